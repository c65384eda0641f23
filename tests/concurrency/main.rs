//! The engine under `shuttle`: every thread, lock and atomic of it, the committer, the keeper and the scribe
//! included, takes its turn when the test says so.
//!
//! ```text
//! RUSTFLAGS="--cfg shuttle" cargo test --release --target-dir target/shuttle --test concurrency
//! ```
//!
//! Without that cfg this binary is empty. `scheduler` decides who runs, and how a failure is
//! replayed; `protocols` tries groups and signals by themselves; `cases` and `ahead` are small situations of a
//! whole log, searched; `worlds` are larger ones, drawn from a seed, that end in a crash.
//!
//! Each small case is searched for every schedule with few preemptions (a thread that could go on is
//! held up), as most bugs of this kind need one or two, and then sampled without that bound.
//!
//! There are no followers yet: "readers" here are those that poll.
#![cfg(shuttle)]
#![allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "tests: a failed expectation is how they speak"
)]

mod ahead;
mod cases;
#[path = "../support/dice.rs"]
mod dice;
mod protocols;
mod scheduler;
mod stage;
mod worlds;

// `protocols` tries these two alone, so they are built here once more, from the same source.
#[path = "../../src/group.rs"]
#[allow(dead_code)]
mod group;
#[path = "../../src/signal.rs"]
#[allow(dead_code)]
mod signal;
#[path = "../../src/sync.rs"]
#[allow(dead_code, unused_imports)]
mod sync;

/// What `group` knows errors by.
mod error {
    pub use stonelog::Result;
}
