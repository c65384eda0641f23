//! G3. A batch is all there or not at all.
//!
//! What it would catch: a batch end that recovery does not check; a batch that spans segments; a
//! watermark or a copy that ends inside a batch.

use std::cell::Cell;

use stonelog::Error;
use stonelog::disk::sim::{Loss, SimDisk};

use crate::common::{
    DIRECTORY, SEGMENT, after, append, check, check_records, content, killed, manual, open, options,
};
use crate::support::losses;

/// Batches of every size, torn at every sector by every loss at hand, while the group is under way.
#[test]
fn torn_anywhere() {
    for count in [2u64, 3, 7, 20, 60] {
        for before in [0u64, 1, 13] {
            for crash in 1..4 {
                let disk = SimDisk::new(count * 100 + before);
                let log = open(&disk);
                append(&log, before);
                disk.crash_at_mutation(crash);
                disk.crash_mid_write(true);
                let outcome = log.append_batch((before..before + count).map(content));
                if outcome.is_ok() {
                    continue;
                }
                let mut worlds: Vec<_> =
                    losses(disk.pending(), 12).into_iter().map(|loss| after(&disk, loss)).collect();
                worlds.push(killed(&disk));
                for world in worlds {
                    let log = open(&world);
                    let end = log.offsets().end;
                    assert!(
                        end == before || end == before + count,
                        "a batch of {count} at {before}, and {end} is the end"
                    );
                    check_records(&log, 0..end);
                }
            }
        }
    }
}

/// A batch stays in one segment, however large; the segment grows for it.
#[test]
fn a_batch_never_spans_segments() {
    let disk = SimDisk::new(1);
    let log = manual(&disk).open(DIRECTORY).unwrap();
    for count in [1u64, 30, 2, 100, 5, 15, 1] {
        let range = log.append_batch((log.offsets().end..log.offsets().end + count).map(content)).unwrap();
        let holders =
            log.segments().into_iter().filter(|s| s.base < range.end && range.start < s.end).count();
        assert_eq!(holders, 1, "batch {range:?}: {:?}", log.segments());
    }
    log.sync().unwrap();
    assert!(log.segments().iter().any(|segment| segment.length > SEGMENT));
    check(&log, 0..154);
}

/// What is refused leaves nothing behind: not one record of the batch.
#[test]
fn a_refused_batch_leaves_nothing() {
    let disk = SimDisk::new(1);
    let log = options(&disk).max_record_bytes(200).open(DIRECTORY).unwrap();
    append(&log, 2);
    let refused = log.append_batch([vec![1; 10], vec![2; 201], vec![3; 10]]);
    assert!(
        matches!(refused, Err(Error::TooLarge { what: "record", bytes: 201, limit: 200 })),
        "{refused:?}"
    );
    let refused = log.append_at(3, [b"a", b"b"]);
    assert!(matches!(refused, Err(Error::UnexpectedOffset { expected: 3, next: 2 })), "{refused:?}");
    assert_eq!(log.append_batch(Vec::<Vec<u8>>::new()).unwrap(), 2..2);
    check(&log, 0..2);
}

/// A record that says what its bytes are only so often; then it panics, or says something else.
struct Fickle<'a> {
    bytes: &'a [u8],
    asked: Cell<u32>,
    honest: u32,
    then: Option<&'a [u8]>,
}

impl AsRef<[u8]> for Fickle<'_> {
    fn as_ref(&self) -> &[u8] {
        self.asked.set(self.asked.get() + 1);
        if self.asked.get() <= self.honest { self.bytes } else { self.then.expect("asked once too often") }
    }
}

/// To give a record's bytes is the caller's code. Wherever it panics, or changes its mind, a batch is whole, and the
/// log goes on and opens.
#[test]
fn a_fickle_batch_is_whole_or_refused() {
    let large = vec![7; 300_000];
    for then in [None, Some(&b"else"[..]), Some(&large[..])] {
        for honest in 1..5 {
            for mode in [options, manual] {
                let disk = SimDisk::new(1);
                let log = mode(&disk).open(DIRECTORY).unwrap();
                append(&log, 3);
                let contents: Vec<_> = (3..6).map(content).collect();
                let fickle = |offset: usize| Fickle {
                    bytes: &contents[offset],
                    asked: Cell::new(0),
                    honest: if offset == 1 { honest } else { u32::MAX },
                    then,
                };
                let batch = [fickle(0), fickle(1), fickle(2)];
                let appended =
                    std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| log.append_batch(&batch)));
                let end = if matches!(appended, Ok(Ok(_))) { 6 } else { 3 };
                append(&log, 4);
                log.sync().unwrap();
                check(&log, 0..end + 4);
                check(&open(&after(&disk, Loss::Nothing)), 0..end + 4);
            }
        }
    }
}
