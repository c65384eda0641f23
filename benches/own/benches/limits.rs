//! The engine beside the machine's own limits, in one run: `cargo bench -p stonelog-benches --bench limits`.
//!
//! Each workload is interleaved with the bare operation it is compared to, several rounds, and the
//! best round of each counts: the machine may be shared and noisy, so that only ratios mean
//! something. Every log that was written is read back and checked before its number counts.

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

use std::fs::File;
use std::hint::black_box;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use stonelog::{Durability, Log, Options};

const MIB: u64 = 1 << 20;

fn main() {
    // Run without `--bench` (cargo test --benches does), a smaller size shows that it works.
    let rounds = if std::env::args().any(|arg| arg == "--bench") { 5 } else { 1 };
    let scale = if rounds == 1 { 16 } else { 1 };
    let directory = std::env::var_os("STONELOG_BENCH_DIR")
        .map_or_else(|| tempfile::tempdir().unwrap(), |base| tempfile::tempdir_in(base).unwrap());
    let at = directory.path();

    // As much as may be written and not yet durable: more would measure the disk.
    let total = 48 * MIB / scale;
    let mut write = Best::default();
    let mut small = Best::default();
    let mut batches = Best::default();
    let mut large = Best::default();
    for _ in 0..rounds {
        write.keep(bare_write(at, total));
        small.keep(appends(at, total, 128, 1));
        write.keep(bare_write(at, total));
        batches.keep(appends(at, total, 128, 1000));
        write.keep(bare_write(at, total));
        large.keep(appends(at, total, 16 << 10, 1));
    }
    let bare = write.rate;
    println!("bare write(2) of 1 MiB buffers        {:>8.2} GB/s", bare / 1e9);
    row("append 128 B, one call each", small.rate / 1e6, "M/s", small.rate * 128.0 / bare);
    row("append 128 B, batches of 1,000", batches.rate / 1e6, "M/s", batches.rate * 128.0 / bare);
    row("append 16 KiB, one call each", large.rate * 16384.0 / 1e9, "GB/s", large.rate * 16384.0 / bare);

    // A gigabyte is more than may stay unsynced: here the disk decides.
    let long = 1024 * MIB / scale;
    let (mut synced, mut sustained) = (Best::default(), Best::default());
    for _ in 0..rounds.min(3) {
        synced.keep(bare_synced_write(at, long));
        sustained.keep(appends(at, long, 16 << 10, 1) * 16384.0);
    }
    println!("write(2) with fdatasync every 16 MiB  {:>8.2} GB/s", synced.rate / 1e9);
    row("append 16 KiB, 1 GiB in a row", sustained.rate / 1e9, "GB/s", sustained.rate / synced.rate);

    let log = filled(at, 1024, 256 * MIB / scale);
    let (mut crc, mut scan, mut random) = (Best::default(), Best::default(), Best::default());
    for _ in 0..rounds {
        crc.keep(bare_crc(256 * MIB / scale));
        scan.keep(scan_all(&log) * 1024.0);
        random.keep(random_reads(&log, 2_000_000 / scale));
    }
    println!("crc32fast over 1 KiB pieces           {:>8.2} GB/s", crc.rate / 1e9);
    row("scan of 1 KiB records, verified", scan.rate / 1e9, "GB/s", scan.rate / crc.rate);
    println!("random verified read of 1 KiB         {:>8.2} M/s", random.rate / 1e6);
    drop(log);

    let (mut floor, mut alone) = (Best::default(), Best::default());
    for _ in 0..rounds {
        floor.keep(bare_fdatasync(at, 2000 / scale));
        alone.keep(durable(at, 1, 2000 / scale).0);
    }
    println!("write + fdatasync of 4 KiB, written before {:>6.0} us", 1e6 / floor.rate);
    row("durable append of 1 KiB, 1 thread", 1e6 / alone.rate, "us", floor.rate / alone.rate);
    let mut best = (0.0, 0.0);
    for _ in 0..rounds {
        let found = durable(at, 64, 64_000 / scale);
        if found.0 > best.0 {
            best = found;
        }
    }
    println!(
        "durable append of 1 KiB, 64 threads   {:>8.1} k/s, {:.1} records for each fsync",
        best.0 / 1e3,
        best.1
    );
}

/// The fastest round.
#[derive(Default)]
struct Best {
    rate: f64,
}

impl Best {
    fn keep(&mut self, rate: f64) {
        self.rate = self.rate.max(rate);
    }
}

fn row(what: &str, number: f64, unit: &str, ratio: f64) {
    println!("{what:<37} {number:>8.2} {unit:<5} {ratio:>6.2} of the limit above");
}

fn bare_write(directory: &Path, total: u64) -> f64 {
    let path = directory.join("bare");
    let buffer = vec![0x5a; MIB as usize];
    let mut file = File::create(&path).unwrap();
    let start = Instant::now();
    for _ in 0..total / MIB {
        file.write_all(&buffer).unwrap();
    }
    let rate = total as f64 / start.elapsed().as_secs_f64();
    std::fs::remove_file(path).unwrap();
    rate
}

/// What the disk takes: writes of 1 MiB, fdatasync every 16.
fn bare_synced_write(directory: &Path, total: u64) -> f64 {
    let path = directory.join("bare");
    let buffer = vec![0x5a; MIB as usize];
    let mut file = File::create(&path).unwrap();
    let start = Instant::now();
    for step in 1..=total / MIB {
        file.write_all(&buffer).unwrap();
        if step % 16 == 0 {
            file.sync_data().unwrap();
        }
    }
    let rate = total as f64 / start.elapsed().as_secs_f64();
    std::fs::remove_file(path).unwrap();
    rate
}

fn options() -> Options {
    Options::new().durability(Durability::Manual)
}

/// Appends `total` bytes of payload, not synced; records a second.
fn appends(directory: &Path, total: u64, size: usize, batch: usize) -> f64 {
    let path = directory.join("log");
    let log = options().open(&path).unwrap();
    let payload = vec![0x5a; size];
    let count = total / size as u64;
    let start = Instant::now();
    if batch == 1 {
        for _ in 0..count {
            log.append(black_box(&payload)).unwrap();
        }
    } else {
        let records = vec![&payload[..]; batch];
        for _ in 0..count / batch as u64 {
            log.append_batch(black_box(&records)).unwrap();
        }
    }
    let rate = count as f64 / start.elapsed().as_secs_f64();
    log.sync().unwrap();
    let mut reader = log.reader(0);
    while let Some(record) = reader.next().unwrap() {
        assert_eq!(record.len(), size);
    }
    assert_eq!(reader.offset(), count / batch as u64 * batch as u64);
    drop((reader, log));
    std::fs::remove_dir_all(path).unwrap();
    rate
}

fn filled(directory: &Path, size: usize, total: u64) -> Log {
    let log = options().open(directory.join("filled")).unwrap();
    let mut payload = vec![0u8; size];
    for number in 0..total / size as u64 {
        payload[..8].copy_from_slice(&number.to_le_bytes());
        log.append(&payload).unwrap();
    }
    log.close().unwrap();
    options().open(directory.join("filled")).unwrap()
}

fn bare_crc(total: u64) -> f64 {
    let bytes = vec![0x5a; 64 << 20];
    let start = Instant::now();
    let mut done = 0;
    while done < total {
        for piece in bytes.chunks(1024) {
            black_box(crc32fast::hash(black_box(piece)));
        }
        done += bytes.len() as u64;
    }
    done as f64 / start.elapsed().as_secs_f64()
}

fn scan_all(log: &Log) -> f64 {
    let mut reader = log.reader(0);
    let mut count = 0u64;
    let start = Instant::now();
    while let Some(record) = reader.next().unwrap() {
        black_box(record.bytes());
        count += 1;
    }
    assert_eq!(count, log.offsets().end);
    count as f64 / start.elapsed().as_secs_f64()
}

fn random_reads(log: &Log, reads: u64) -> f64 {
    let count = log.offsets().end;
    let mut state = 0x9E37_79B9_7F4A_7C15u64;
    let start = Instant::now();
    for _ in 0..reads {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let offset = (state >> 33) % count;
        let record = log.read(offset).unwrap();
        assert_eq!(record[..8], offset.to_le_bytes());
    }
    reads as f64 / start.elapsed().as_secs_f64()
}

/// The floor of a durable append: 4 KiB into blocks that were written before.
fn bare_fdatasync(directory: &Path, count: u64) -> f64 {
    use std::os::unix::fs::FileExt;
    let path = directory.join("floor");
    let file = File::create(&path).unwrap();
    let zeros = vec![0; MIB as usize];
    for step in 0..8 {
        file.write_all_at(&zeros, step * MIB).unwrap();
    }
    file.sync_all().unwrap();
    let block = vec![0x5a; 4096];
    let start = Instant::now();
    for number in 0..count {
        file.write_all_at(&block, number % 2048 * 4096).unwrap();
        file.sync_data().unwrap();
    }
    let rate = count as f64 / start.elapsed().as_secs_f64();
    std::fs::remove_file(path).unwrap();
    rate
}

/// Durable appends of 1 KiB by `threads`: records a second, and records for each fsync.
fn durable(directory: &Path, threads: u64, count: u64) -> (f64, f64) {
    let path = directory.join("durable");
    let log = Arc::new(Options::new().open(&path).unwrap());
    let start = Instant::now();
    let workers: Vec<_> = (0..threads)
        .map(|_| {
            let log = log.clone();
            std::thread::spawn(move || {
                let payload = vec![0x5a; 1024];
                for _ in 0..count / threads {
                    log.append(&payload).unwrap();
                }
            })
        })
        .collect();
    for worker in workers {
        worker.join().unwrap();
    }
    let rate = count as f64 / start.elapsed().as_secs_f64();
    let stats = log.stats();
    assert_eq!(log.durable_end(), count / threads * threads);
    drop(log);
    std::fs::remove_dir_all(path).unwrap();
    (rate, stats.records as f64 / stats.fsyncs as f64)
}
