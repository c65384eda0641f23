//! G3. A batch is all there or not at all.
//!
//! What it would catch: a batch end that recovery does not check; a batch that spans segments; a
//! watermark or a copy that ends inside a batch.

use stonelog::Error;
use stonelog::disk::sim::SimDisk;

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
