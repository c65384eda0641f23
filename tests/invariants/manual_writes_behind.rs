//! What docs/GUARANTEES.md says a killed process loses under `Manual`: what was encoded and not yet written, usually
//! up to 1 MiB. A piece that is encoded is written though nobody syncs, and though the append that completed it
//! returned.
//!
//! What it would catch: a demand for a write that nobody meets, or that wakes somebody else. There the first test
//! does not end: nothing here measures time.

use stonelog::Durability;
use stonelog::disk::Background;
use stonelog::disk::sim::SimDisk;

use crate::common::{DIRECTORY, options};

const RECORD: [u8; 500] = [7; 500];
/// A piece and some more, and less than the 1.5 MiB at which an append writes by itself.
const SOME_MORE_THAN_A_PIECE: u64 = 2200;

#[test]
fn a_piece_is_written_by_the_scribe() {
    let disk = SimDisk::new(1).with_background(Background::Threads);
    let log = options(&disk).segment_bytes(8 << 20).durability(Durability::Manual).open(DIRECTORY).unwrap();
    let before = log.stats().written_bytes;
    for _ in 0..SOME_MORE_THAN_A_PIECE {
        log.append(RECORD).unwrap();
    }
    while log.stats().written_bytes < before + (1 << 20) {
        std::thread::yield_now();
    }
    assert_eq!(log.durable_end(), 0, "nobody synced");
    // What was written outlives the process.
    let left = disk.fork();
    left.process_crash();
    let log = options(&left).segment_bytes(8 << 20).open(DIRECTORY).unwrap();
    let end = log.offsets().end;
    assert!((2000..=SOME_MORE_THAN_A_PIECE).contains(&end), "{end}");
}

#[test]
fn without_threads_a_piece_is_written_at_some_append_after_it() {
    for seed in 0..20 {
        let disk = SimDisk::new(seed);
        let log =
            options(&disk).segment_bytes(8 << 20).durability(Durability::Manual).open(DIRECTORY).unwrap();
        let before = log.stats().written_bytes;
        for _ in 0..SOME_MORE_THAN_A_PIECE {
            log.append(RECORD).unwrap();
        }
        assert!(log.stats().written_bytes >= before + (1 << 20), "seed {seed}");
    }
}
