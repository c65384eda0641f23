//! G9, work: whatever the bytes, a scan reads and hashes no more than a few times what there is.
//!
//! What it would catch: a length that is hashed before anything bounds how often; a look aside that
//! moves the window there and back; a defect that is searched for again and again.

use std::cell::Cell;
use std::io;

use stonelog::scan::{MOST_RUNS, Outcome, Source, scan};

use crate::craft;

/// Counts what is read.
struct Counting<'a> {
    bytes: &'a [u8],
    read: Cell<u64>,
    calls: Cell<u64>,
}

impl Source for Counting<'_> {
    fn length(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn read(&self, position: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.read.set(self.read.get() + buffer.len() as u64);
        self.calls.set(self.calls.get() + 1);
        self.bytes.read(position, buffer)
    }
}

struct Work {
    outcome: Outcome,
    read: u64,
    calls: u64,
    frames: u64,
}

fn work(bytes: &[u8]) -> Work {
    let source = Counting { bytes, read: Cell::new(0), calls: Cell::new(0) };
    let mut frames = 0;
    let outcome = scan(&source, &craft::extent(bytes), |_| frames += 1);
    Work { outcome, read: source.read.get(), calls: source.calls.get(), frames }
}

/// What docs/GUARANTEES.md states, in bytes for each byte scanned.
const MOST_READ: u64 = 8;
const MOST_HASHED: u64 = 8;

#[test]
fn no_crafted_store_makes_a_scan_read_or_hash_more_than_a_few_times_its_bytes() {
    for size in [64 << 10, 1 << 20, 3 << 20] {
        let mut over = Vec::new();
        for (name, bytes) in craft::all(size) {
            let Work { outcome, read, calls, frames } = work(&bytes);
            let size = size as u64;
            let hashed = outcome.hashed_bytes;
            println!(
                "{name}, {size}: read {:.1}, hashed {:.1}, {calls} calls, {frames} frames, {} runs",
                read as f64 / size as f64,
                hashed as f64 / size as f64,
                outcome.runs.len()
            );
            // A look aside takes a call for every frame, and one for every header that claims a far end.
            if read > MOST_READ * size || hashed > MOST_HASHED * size || calls > 64 + size / 8 {
                over.push(format!("{name} ({size}): read {read}, hashed {hashed}, {calls} calls"));
            }
        }
        // The small ones first: what is quadratic need not be waited for.
        assert!(over.is_empty(), "{over:#?}");
    }
}

#[test]
fn the_search_finds_every_frame_between_claims_of_the_rest() {
    let bytes = &craft::all(1 << 20)[6].1;
    let Work { outcome, frames, .. } = work(bytes);
    assert_eq!(frames, (bytes.len() as u64 - craft::START) / 32 - 1);
    assert_eq!(outcome.runs.len() as u64, frames);
}

#[test]
fn runs_beyond_the_bound_are_evidence_and_no_records() {
    let bytes = &craft::all(MOST_RUNS * 24 + (64 << 10)).pop().unwrap().1;
    let Work { outcome, frames, .. } = work(bytes);
    assert!(frames > MOST_RUNS as u64);
    assert_eq!(outcome.runs.len(), MOST_RUNS);
    // Each frame says that all before it was durable, the last one too.
    assert_eq!(outcome.watermark.map(|mark| mark.relative), Some(frames as i64 - 1));
}
