//! `log-repair check` beside a plain read of the same files, warm cache, in one run:
//!
//! ```text
//! cargo bench -p log-repair --bench check              # 1 GiB for each size of record
//! cargo bench -p log-repair --bench check -- 4096      # 4 GiB
//! cargo bench -p log-repair --bench check -- 1024 200  # 1 GiB of records of about 200 bytes
//! STONELOG_BENCH_DIR=/mnt/disk cargo bench ...         # somewhere else than the temporary directory
//! ```
//!
//! The plain read is what `cat` does: one thread, file after file, 1 MiB at a time, nothing looked at.
//! The check is the verb itself, in this process. They take turns, several rounds, and the best round
//! of each counts: the machine may be shared and noisy, so that only the ratio means something. More
//! memory than the log is needed, or the disk is what is measured.
//!
//! Records are of one length, or of mixed ones around it: a half to one and a half, in no order. Mixed ones
//! are harder: nothing can be predicted, and the index has an entry for each that must be compared.

#![allow(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a bench measures the real machine, and stops at the first surprise"
)]

use std::ffi::OsString;
use std::fs::File;
use std::hint::black_box;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Instant;

use stonelog::{Durability, Options};

const MIB: u64 = 1 << 20;

fn main() {
    // `cargo test --benches` runs this too: a smaller log shows that it works.
    let bench = std::env::args().any(|argument| argument == "--bench");
    let asked: Vec<u64> = std::env::args().filter_map(|argument| argument.parse().ok()).collect();
    let total = asked.first().copied().unwrap_or(if bench { 1024 } else { 8 }) * MIB;
    let sizes = match asked.get(1..) {
        Some(sizes) if !sizes.is_empty() => sizes,
        _ => &[128, 1024, 16 << 10],
    };
    let rounds = if bench { 5 } else { 1 };
    let home = std::env::var_os("STONELOG_BENCH_DIR")
        .map_or_else(|| tempfile::tempdir().unwrap(), |base| tempfile::tempdir_in(base).unwrap());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    println!("{} MiB in each log, {threads} threads at hand, the best of {rounds} rounds", total / MIB);
    for (size, mixed) in sizes.iter().flat_map(|size| [(*size as usize, false), (*size as usize, true)]) {
        let log = filled(home.path(), size, mixed, total);
        let (mut plain, mut check) = (0f64, 0f64);
        let bytes = read_plainly(&log);
        for _ in 0..rounds {
            plain = plain.max(rate(bytes, || read_plainly(&log)));
            check = check.max(rate(bytes, || run_check(&log)));
        }
        println!(
            "records of {size:>5} B{}: plain read {:>6.2} GB/s, check {:>6.2} GB/s, {:>5.2} of it",
            if mixed { ", mixed" } else { "       " },
            plain / 1e9,
            check / 1e9,
            check / plain
        );
        std::fs::remove_dir_all(&log).unwrap();
    }
}

fn rate<T>(bytes: u64, work: impl FnOnce() -> T) -> f64 {
    let start = Instant::now();
    black_box(work());
    bytes as f64 / start.elapsed().as_secs_f64()
}

/// A log of about `total` bytes, closed.
fn filled(home: &Path, size: usize, mixed: bool, total: u64) -> PathBuf {
    let directory = home.join(format!("records-of-{size}"));
    let log = Options::new().durability(Durability::Manual).open(&directory).unwrap();
    let bytes: Vec<u8> = (0..2 * size).map(|at| (at * 31 % 251) as u8).collect();
    let mut written = 0;
    let mut length = size;
    while written < total {
        if mixed {
            length = size / 2 + (length + 7919) % (size + 1);
        }
        log.append(&bytes[..length]).unwrap();
        written += length as u64 + 16;
    }
    log.close().unwrap();
    directory
}

/// Reads every file in turn; how many bytes that is.
fn read_plainly(directory: &Path) -> u64 {
    let mut names: Vec<_> =
        std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.sort();
    let mut buffer = vec![0; MIB as usize];
    let mut total = 0;
    for name in names {
        let mut file = File::open(name).unwrap();
        loop {
            match file.read(&mut buffer).unwrap() {
                0 => break,
                count => total += black_box(&buffer[..count]).len() as u64,
            }
        }
    }
    total
}

fn run_check(directory: &Path) {
    let arguments = ["log-repair", "check", "--no-progress"].map(OsString::from);
    let arguments = arguments.into_iter().chain([directory.as_os_str().to_owned()]);
    let streams = log_repair::Streams::to(std::io::sink(), std::io::stderr());
    assert_eq!(log_repair::run(arguments, streams), 0, "the log is whole");
}
