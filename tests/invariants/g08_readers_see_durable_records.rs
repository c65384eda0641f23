//! G8. Readers see only durable records unless they ask for more, so nobody acts on a record that a
//! crash takes back.
//!
//! What it would catch: a reader bounded by what is appended or written; a reader that runs past a
//! truncation and gives other bytes under an offset it was promised; one that never wakes up again
//! after it met the end.

use stonelog::disk::sim::{Loss, SimDisk};
use stonelog::{Durability, Error};

use crate::common::{DIRECTORY, after, append, check_records, content, manual, open, options};

/// Every way of reading ends at the durable end; and what was seen survives the worst.
#[test]
fn nothing_undurable_is_seen() {
    for seed in 0..10 {
        let disk = SimDisk::new(seed);
        let log = manual(&disk).open(DIRECTORY).unwrap();
        let mut reader = log.reader(0);
        let mut seen = 0;
        for round in 0..30 {
            append(&log, 1 + (seed + round) % 4);
            if (seed + round) % 5 == 0 {
                log.sync().unwrap();
            }
            if round % 7 == 3 {
                drop(log.submit(content(log.offsets().end)).unwrap());
            }
            let durable = log.durable_end();
            assert!(matches!(log.read(durable), Err(Error::OutOfRange { .. })), "{durable}");
            assert_eq!(log.records(..).count() as u64, durable);
            assert_eq!(log.records(durable..).count(), 0);
            while let Some(record) = reader.next().unwrap() {
                assert_eq!((record.offset(), record.bytes()), (seen, &content(seen)[..]));
                seen += 1;
            }
            assert_eq!(seen, durable, "the reader stopped elsewhere");
            let dark = open(&after(&disk, Loss::Nothing));
            assert!(dark.offsets().end >= seen, "{seen} records were seen, and {:?} survive", dark.offsets());
        }
    }
}

/// At the end a reader gets `None`, and goes on when there is more, over rolls and all.
#[test]
fn a_reader_at_the_end_goes_on() {
    let disk = SimDisk::new(4);
    let log = open(&disk);
    let mut reader = log.reader(0);
    assert!(reader.next().unwrap().is_none());
    for offset in 0..60 {
        append(&log, 1);
        assert_eq!(reader.next().unwrap().unwrap().bytes(), content(offset));
        assert!(reader.next().unwrap().is_none());
        assert!(reader.next().unwrap().is_none());
        assert_eq!(reader.offset(), offset + 1);
    }
}

/// Those who ask for it see what is appended, at once, in every mode.
#[test]
fn readers_that_ask_see_appended_records() {
    for durability in [Durability::Always, Durability::Manual] {
        let disk = SimDisk::new(4);
        let log = options(&disk).durability(durability).readers_see_appended(true).open(DIRECTORY).unwrap();
        let mut reader = log.reader(0);
        for offset in 0..50 {
            drop(log.submit(content(offset)).unwrap());
            assert_eq!(&*log.read(offset).unwrap(), content(offset));
            assert_eq!(reader.next().unwrap().unwrap().bytes(), content(offset));
        }
        check_records(&log, 0..50);
        assert!(matches!(log.read(50), Err(Error::OutOfRange { .. })));
    }
}

/// A reader beyond the cut is told, however late it asks; one at or below it goes on and sees the
/// new records, not the old.
#[test]
fn a_truncation_is_told() {
    let disk = SimDisk::new(2);
    let log = open(&disk);
    append(&log, 40);
    let (mut beyond, mut at, mut below, mut asleep) =
        (log.reader(0), log.reader(0), log.reader(0), log.reader(38));
    for _ in 0..35 {
        beyond.next().unwrap().unwrap();
    }
    for _ in 0..30 {
        at.next().unwrap().unwrap();
    }
    for _ in 0..10 {
        below.next().unwrap().unwrap();
    }
    let mut listing = log.records(33..);
    listing.next().unwrap().unwrap();
    log.truncate_back(30).unwrap();
    for _ in 0..3 {
        assert!(
            matches!(beyond.next(), Err(Error::Truncated { offset: 35, end: 30 })),
            "{:?}",
            beyond.offset()
        );
    }
    assert!(matches!(listing.next(), Some(Err(Error::Truncated { .. }))));
    assert!(listing.next().is_none());
    assert!(at.next().unwrap().is_none());
    let fresh = |offset: u64| format!("fresh {offset}").into_bytes();
    for offset in 30..45 {
        log.append(fresh(offset)).unwrap();
    }
    assert!(matches!(beyond.next(), Err(Error::Truncated { offset: 35, end: 30 })));
    assert!(matches!(asleep.next(), Err(Error::Truncated { offset: 38, end: 30 })));
    assert_eq!(at.next().unwrap().unwrap().bytes(), fresh(30));
    for offset in 10..45 {
        let record = below.next().unwrap().unwrap();
        assert_eq!(record.offset(), offset);
        assert_eq!(record.bytes(), if offset < 30 { content(offset) } else { fresh(offset) });
    }
    assert!(below.next().unwrap().is_none());
}

/// A reader whose next record was truncated away in front is told too; a new one begins at the front.
#[test]
fn a_truncated_front_is_told() {
    let disk = SimDisk::new(2);
    let log = open(&disk);
    append(&log, 40);
    let mut reader = log.reader(3);
    reader.next().unwrap().unwrap();
    log.truncate_front(33).unwrap();
    // In the middle of a segment it may go on among bytes that are still there; it never skips.
    match reader.next() {
        Ok(Some(record)) => assert_eq!((record.offset(), record.bytes()), (4, &content(4)[..])),
        Err(Error::OutOfRange { .. }) => {}
        other => panic!("{other:?}"),
    }
    let mut fresh = log.reader(0);
    assert_eq!(fresh.next().unwrap().unwrap().offset(), 33);
    assert_eq!(log.records(..).next().unwrap().unwrap().offset(), 33);
}

/// Beside a live writer, a read-only log shows a durable prefix and changes nothing.
#[test]
fn read_only_beside_a_writer() {
    for seed in 0..6 {
        let disk = SimDisk::new(seed);
        let log = if seed % 2 == 0 { open(&disk) } else { manual(&disk).open(DIRECTORY).unwrap() };
        for round in 0..20 {
            append(&log, 1 + round % 5);
            if round % 3 == 0 {
                log.sync().unwrap();
            }
            let mutations = disk.mutations();
            let looking = options(&disk).open_read_only(DIRECTORY).unwrap();
            let offsets = looking.offsets();
            assert!(offsets.end <= log.durable_end(), "{offsets:?} beyond {}", log.durable_end());
            assert!(
                offsets.end + 6 >= log.durable_end() || seed % 2 == 1,
                "{offsets:?} far below {}",
                log.durable_end()
            );
            check_records(&looking, offsets);
            assert!(matches!(looking.append(b"x"), Err(Error::ReadOnly { .. })));
            assert!(matches!(looking.put_meta("a", b"x"), Err(Error::ReadOnly { .. })));
            drop(looking);
            assert_eq!(disk.mutations(), mutations, "a read-only log changed something");
        }
    }
}
