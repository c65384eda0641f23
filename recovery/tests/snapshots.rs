//! What every verb says, word for word: `snapshots/VERB.trycmd`, on logs that `demo` makes.
//!
//! It owns the look of the human output and of each `--help`. What the output must *mean* is the other
//! tests' part; here a difference is a question to whoever made it. Each file makes its logs in one
//! temporary directory, under names that begin with the file's (all files run at once), so that no path
//! needs a placeholder. `demo` fixes uuids, times and bytes; `[..]` stands for what is not the same in every run
//! (a uuid that salvage drew) or says nothing to a reader (a plan's digest).
//!
//! Where the words change on purpose: `TRYCMD=overwrite cargo test -p log-repair --test snapshots` writes the
//! files anew; read the difference (a new command needs only its `$ ` line). One file alone:
//! `cargo test -p log-repair --test snapshots -- plan.trycmd`.
#![cfg(unix)]
#![allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a test: it fails by panic, and works on the real disk"
)]

const SNAPSHOTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/snapshots");

#[test]
fn every_verb_says_what_it_said() {
    let home = tempfile::tempdir().unwrap();
    // This test is alone in its process, and trycmd runs its commands where the process is.
    std::env::set_current_dir(home.path()).unwrap();
    trycmd::TestCases::new()
        .register_bin("log-repair", std::path::Path::new(env!("CARGO_BIN_EXE_log-repair")))
        // (Help is broken into lines as wide as the terminal, or as this says.)
        .env("COLUMNS", "100")
        .env("NO_COLOR", "1")
        .case(format!("{SNAPSHOTS}/*.trycmd"))
        .run();
}
