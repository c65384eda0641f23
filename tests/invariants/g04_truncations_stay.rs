//! G4. An acknowledged truncation, front or back, is never undone.
//!
//! What it would catch: files removed before the edit is durable; an edit that a fresh MANIFEST
//! forgets; a durable end that stays where it was, so that records cut away are proven again; a
//! rebuilt or recovered segment that serves what lies behind its seal.

use stonelog::disk::sim::{Loss, SimDisk};
use stonelog::{Error, Options, ReadMode};

use crate::common::{DIRECTORY, after, append, check, content, killed, open, options};
use crate::support::losses;

fn worlds(disk: &SimDisk) -> Vec<(String, SimDisk)> {
    let mut worlds: Vec<_> =
        losses(disk.pending(), 4).into_iter().map(|loss| (format!("{loss:?}"), after(disk, loss))).collect();
    worlds.push(("killed".to_string(), killed(disk)));
    worlds
}

#[test]
fn the_front() {
    for front in 0..61 {
        let disk = SimDisk::new(front);
        let log = open(&disk);
        append(&log, 55);
        log.truncate_front(front).unwrap();
        let end = 55.max(front);
        assert_eq!(log.offsets(), front..end);
        for (how, world) in worlds(&disk) {
            let log = open(&world);
            assert_eq!(log.offsets(), front..end, "{how}");
            check(&log, front..end);
            assert!(matches!(log.read(front.wrapping_sub(1)), Err(Error::OutOfRange { .. })));
            append(&log, 2);
            log.close().unwrap();
            check(&open(&world), front..end + 2);
        }
    }
}

#[test]
fn the_back() {
    for end in 0..55 {
        let disk = SimDisk::new(end);
        let log = open(&disk);
        append(&log, 55);
        log.truncate_back(end).unwrap();
        check(&log, 0..end);
        for (how, world) in worlds(&disk) {
            let log = open(&world);
            assert_eq!(log.offsets(), 0..end, "{how}");
            check(&log, 0..end);
            // Other records get the offsets; the old ones never come back.
            let fresh = |offset: u64| {
                format!("another record {offset}, in place of the one that was cut").into_bytes()
            };
            for offset in end..end + 5 {
                assert_eq!(log.append(fresh(offset)).unwrap(), offset);
            }
            for (how_again, world) in
                [("nothing", after(&world, Loss::Nothing)), ("everything", after(&world, Loss::Everything))]
            {
                let log = open(&world);
                assert_eq!(log.offsets(), 0..end + 5, "{how}, then {how_again}");
                for offset in 0..end + 5 {
                    let wanted = if offset < end { content(offset) } else { fresh(offset) };
                    assert_eq!(&*log.read(offset).unwrap(), wanted, "{how}, then {how_again}: {offset}");
                }
            }
        }
    }
}

/// Cut, append, cut lower, append, cut into what was copied: only the last state is ever found.
#[test]
fn again_and_again() {
    for seed in 0..30u64 {
        let disk = SimDisk::new(seed);
        let log = open(&disk);
        let mut truth: Vec<Vec<u8>> = Vec::new();
        let mut front = 0;
        for round in 0..12u64 {
            for _ in 0..(5 + (seed * 7 + round) % 20) {
                let bytes =
                    format!("round {round}, {}", "x".repeat((truth.len() * 31 + round as usize) % 200))
                        .into_bytes();
                log.append(&bytes).unwrap();
                truth.push(bytes);
            }
            let span = truth.len() as u64 - front;
            if round % 3 == 2 {
                front += (seed + round) % span;
                log.truncate_front(front).unwrap();
            } else {
                let end = front + (seed * 13 + round * 5) % span;
                log.truncate_back(end).unwrap();
                truth.truncate(end as usize);
            }
            for loss in [Loss::Nothing, Loss::Everything, Loss::Seeded(round)] {
                let found = options(&after(&disk, loss)).open(DIRECTORY).unwrap();
                assert_eq!(
                    found.offsets(),
                    front..truth.len() as u64,
                    "world {seed}, round {round}, {loss:?}"
                );
                for offset in found.offsets() {
                    assert_eq!(
                        &*found.read(offset).unwrap(),
                        truth[offset as usize],
                        "world {seed}, round {round}"
                    );
                }
            }
        }
    }
}

/// A crash anywhere in a truncation: the old state or the new one, whole.
#[test]
fn a_crash_inside_gives_one_or_the_other() {
    for back in [false, true] {
        for cut in [0u64, 7, 23, 40, 54, 70] {
            for step in 1.. {
                let disk = SimDisk::new(cut);
                let log = open(&disk);
                append(&log, 55);
                disk.crash_at_mutation(step);
                let outcome = if back { log.truncate_back(cut) } else { log.truncate_front(cut) };
                let (old, new) = (0..55, if back { 0..cut.min(55) } else { cut..cut.max(55) });
                let finished = outcome.is_ok() && !disk.has_crashed();
                for (how, world) in worlds(&disk) {
                    let found = open(&world);
                    let offsets = found.offsets();
                    assert!(
                        offsets == new || (outcome.is_err() && offsets == old),
                        "{back}, {cut}, step {step}, {how}: {offsets:?}"
                    );
                    check(&found, offsets);
                }
                if finished {
                    break;
                }
            }
        }
    }
}

/// A reader that walks through maps stops at the cut: the frames behind it are still in the file,
/// and still intact, but they are no records any more.
#[test]
fn a_sequential_reader_stops_at_the_cut() {
    for mode in [ReadMode::Mapped, ReadMode::Buffered] {
        for reopened in [false, true] {
            let directory = tempfile::tempdir().unwrap();
            let open = || Options::new().read_mode(mode).open(directory.path()).unwrap();
            let mut log = open();
            for offset in 0..10u64 {
                log.append(format!("old {offset}")).unwrap();
            }
            log.truncate_back(4).unwrap();
            if reopened {
                log.close().unwrap();
                drop(log);
                log = open();
            }
            for offset in 4..8u64 {
                log.append(format!("new {offset}")).unwrap();
            }
            let mut reader = log.reader(0);
            for offset in 0..8u64 {
                let wanted = format!("{} {offset}", if offset < 4 { "old" } else { "new" });
                let record = reader.next().unwrap().unwrap();
                assert_eq!(String::from_utf8_lossy(record.bytes()), wanted, "{mode:?}, reopened: {reopened}");
                assert_eq!(String::from_utf8_lossy(&log.read(offset).unwrap()), wanted);
            }
            assert!(reader.next().unwrap().is_none());
            let listed: Vec<String> =
                log.records(..).map(|r| String::from_utf8_lossy(&r.unwrap()).into_owned()).collect();
            assert_eq!(listed[3..5], ["old 3", "new 4"]);
        }
    }
}
