//! The hot paths, for callgrind: `benches/counts` runs this and divides.
//!
//! Each path is a function of its own that is never inlined and whose name begins with `measured_`: callgrind
//! collects only inside of them, so that what is prepared does not count. A path's name and
//! how many records it handled go to the standard output, a line for each, for the script to divide by.
//!
//! Only the thread that calls is in these functions, and so only it counts: what the log's own threads do
//! (an fsync behind the writer, space reserved ahead) is not in the numbers. What is written stays below the
//! bytes after which the log syncs by itself. So the numbers are the same in every run on one machine.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a bench measures the real machine, and stops at the first surprise"
)]

use std::hint::black_box;
use std::path::Path;

use stonelog::{Log, bench};
use stonelog_benches::{Frames, Random, encode, fill, home, options, payload};

fn main() {
    let home = home();
    let home = home.path();

    let mut buffer = Vec::with_capacity(64 << 20);
    for (name, path, size, count) in [
        ("encode_128_bytes", measured_encode_128_bytes as fn(&mut Vec<u8>, &[u8], u32), 128, 20_000),
        ("encode_16_kib", measured_encode_16_kib, 16 << 10, 500),
    ] {
        path(&mut buffer, &payload(size), count);
        handled(name, count.into());
    }

    let small = Frames::of_size(128, 50_000);
    let large = Frames::of_size(1024, 10_000);
    measured_verify_128_bytes(&small);
    handled("verify_128_bytes", small.count().into());
    measured_scan_128_bytes(&small);
    handled("scan_128_bytes", small.count().into());
    measured_scan_1_kib(&large);
    handled("scan_1_kib", large.count().into());

    let mixed = Frames::of_sizes(20_000, |ordinal| 64 + (ordinal as usize * 7919) % 200);
    let positions = mixed.positions_in_store();
    let memory = bench::MemoryIndex::of(&positions).unwrap();
    let sealed = bench::SealedIndex::of(&positions, mixed.store_length()).unwrap();
    measured_lookup_in_memory(&memory, mixed.count());
    handled("lookup_in_memory", mixed.count().into());
    measured_lookup_sealed(&sealed, mixed.count());
    handled("lookup_sealed", mixed.count().into());

    appends(home);
    reads(home);
}

/// Says how many records a path handled.
fn handled(path: &str, records: u64) {
    println!("{path} {records}");
}

#[inline(never)]
fn measured_encode_128_bytes(buffer: &mut Vec<u8>, payload: &[u8], count: u32) {
    encode(buffer, payload, count);
}

#[inline(never)]
fn measured_encode_16_kib(buffer: &mut Vec<u8>, payload: &[u8], count: u32) {
    encode(buffer, payload, count);
}

#[inline(never)]
fn measured_verify_128_bytes(frames: &Frames) {
    assert_eq!(frames.verify(), frames.count());
}

#[inline(never)]
fn measured_scan_128_bytes(frames: &Frames) {
    assert_eq!(frames.scan(), frames.count());
}

#[inline(never)]
fn measured_scan_1_kib(frames: &Frames) {
    assert_eq!(frames.scan(), frames.count());
}

#[inline(never)]
fn measured_lookup_in_memory(index: &bench::MemoryIndex, count: u32) {
    for ordinal in 0..count {
        assert!(black_box(index.get(black_box(ordinal))).is_some());
    }
}

#[inline(never)]
fn measured_lookup_sealed(index: &bench::SealedIndex, count: u32) {
    for ordinal in 0..count {
        assert!(black_box(index.get(black_box(ordinal))).is_some());
    }
}

fn appends(home: &Path) {
    const COUNT: u64 = 10_000;
    let (small, large) = (payload(128), payload(16 << 10));
    let batch = vec![&small[..]; 1000];
    on_log_of(home, "append_128_bytes", &small, COUNT, |log| measured_append_128_bytes(log, &small, COUNT));
    on_log_of(home, "append_batch_of_1000", &small, COUNT, |log| {
        measured_append_batch_of_1000(log, &batch, COUNT / 1000);
    });
    on_log_of(home, "submit_128_bytes", &small, COUNT, |log| measured_submit_128_bytes(log, &small, COUNT));
    on_log_of(home, "append_16_kib", &large, 100, |log| measured_append_16_kib(log, &large, 100));
}

/// Runs a path that appends `count` records, on a log that holds records of this one payload: most logs have
/// records of one size, and an index in memory for them is another than for mixed ones.
fn on_log_of(home: &Path, path: &str, payload: &[u8], count: u64, measured: impl Fn(&Log)) {
    const SEGMENT_BYTES: u64 = 4 << 20;
    let log = options().segment_bytes(SEGMENT_BYTES).open(home.join(path)).unwrap();
    // The first segments have their space reserved as they are written, in the background, at moments that
    // differ from run to run. A later one has it from the beginning: one is begun, and holds all that follows.
    let some = vec![payload; (256 << 10) / payload.len()];
    let mut before = 0;
    while log.segments().len() < 5 {
        before = log.append_batch(&some).unwrap().end;
    }
    log.sync().unwrap();
    measured(&log);
    handled(path, count);
    assert_eq!(log.offsets().end, before + count);
    assert_eq!(log.segments().len(), 5);
    log.close().unwrap();
}

#[inline(never)]
fn measured_append_128_bytes(log: &Log, payload: &[u8], count: u64) {
    for _ in 0..count {
        log.append(black_box(payload)).unwrap();
    }
}

#[inline(never)]
fn measured_append_batch_of_1000(log: &Log, batch: &[&[u8]], count: u64) {
    for _ in 0..count {
        log.append_batch(black_box(batch)).unwrap();
    }
}

#[inline(never)]
fn measured_submit_128_bytes(log: &Log, payload: &[u8], count: u64) {
    for _ in 0..count {
        drop(log.submit(black_box(payload)).unwrap());
    }
}

#[inline(never)]
fn measured_append_16_kib(log: &Log, payload: &[u8], count: u64) {
    for _ in 0..count {
        log.append(black_box(payload)).unwrap();
    }
}

fn reads(home: &Path) {
    const COUNT: u64 = 10_000;
    fill(&home.join("reads"), options(), 1024, COUNT);
    let log = options().open(home.join("reads")).unwrap();
    // The first read maps the store.
    log.read(0).unwrap();
    measured_read_1_kib(&log, COUNT);
    handled("read_1_kib", COUNT);
    measured_reader_1_kib(&log, COUNT);
    handled("reader_1_kib", COUNT);
}

#[inline(never)]
fn measured_read_1_kib(log: &Log, count: u64) {
    let mut random = Random::default();
    for _ in 0..count {
        let offset = random.below(count);
        assert_eq!(log.read(offset).unwrap()[..8], offset.to_le_bytes());
    }
}

#[inline(never)]
fn measured_reader_1_kib(log: &Log, count: u64) {
    let mut reader = log.reader(0);
    while let Some(record) = reader.next().unwrap() {
        black_box(record.bytes());
    }
    assert_eq!(reader.offset(), count);
}
