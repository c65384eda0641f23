//! G2. After a crash the log is a prefix of what was submitted: no gaps, no strangers, no reordering.
//!
//! What it would catch: bytes of an earlier life of a place (a failed group, a truncated tail) that
//! come back with a valid checksum; a gap that is skipped; a tail that is taken although something
//! before it is missing.

use stonelog::Error;
use stonelog::disk::sim::{Fault, Loss, SimDisk};

use crate::common::{DIRECTORY, after, killed, manual, open};
use crate::support::losses;

/// Each life writes its own bytes, so that a stranger from an earlier one shows.
fn record(life: u64, offset: u64) -> Vec<u8> {
    let mut bytes = format!("life {life}, record {offset};").into_bytes();
    bytes.resize(30 + (offset * 53 % 150) as usize, b'a' + (life % 26) as u8);
    bytes
}

/// Life after life ends in the dark; what the next one finds is a prefix of what was submitted.
#[test]
fn life_after_life() {
    for seed in 0..25u64 {
        let mut disk = SimDisk::new(seed);
        let mut truth: Vec<Vec<u8>> = Vec::new();
        let mut durable = 0;
        for life in 0..6 {
            let log = manual(&disk).open(DIRECTORY).unwrap();
            let found: Vec<Vec<u8>> = log.records(..).map(|record| record.unwrap().to_vec()).collect();
            assert!(
                truth.starts_with(&found),
                "world {seed}, life {life}: {} of {}",
                found.len(),
                truth.len()
            );
            assert_eq!(log.offsets(), 0..found.len() as u64);
            assert!(found.len() >= durable, "world {seed}, life {life}: {durable} were acknowledged");
            truth = found;
            durable = truth.len();
            for round in 0..4 {
                for _ in 0..(7 + (seed + round) % 9) {
                    let bytes = record(life, truth.len() as u64);
                    log.append(&bytes).unwrap();
                    truth.push(bytes);
                }
                match (seed + life + round) % 3 {
                    0 => {
                        log.sync().unwrap();
                        durable = truth.len();
                    }
                    1 => {
                        let end = truth.len() as u64 - 2;
                        log.truncate_back(end).unwrap();
                        truth.truncate(end as usize);
                        durable = truth.len();
                    }
                    _ => {}
                }
            }
            // Unsynced bytes must reach the disk, for the dark to have something to take.
            if life % 2 == 0 {
                disk.crash_at_mutation(1 + (seed + life) % 4);
                let _ = log.sync();
            }
            disk = after(
                &disk,
                [Loss::Seeded(seed ^ life), Loss::Everything, Loss::Nothing][(life % 3) as usize],
            );
        }
    }
}

/// One large group over several segments, any part of which may be missing.
#[test]
fn any_part_of_a_group_may_be_missing() {
    for seed in 0..8 {
        let disk = SimDisk::new(seed);
        let log = manual(&disk).open(DIRECTORY).unwrap();
        for offset in 0..20 {
            log.append(record(0, offset)).unwrap();
        }
        log.sync().unwrap();
        for offset in 20..36 {
            log.append(record(0, offset)).unwrap();
        }
        // The machine stops at the commit's first fsync: all is written, nothing is synced.
        disk.record_trace(true);
        disk.crash_at_mutation(2 + seed % 3);
        let _ = log.sync();
        for loss in losses(disk.pending(), 40) {
            let world = after(&disk, loss);
            let log = open(&world);
            let end = log.offsets().end;
            assert!((20..=36).contains(&end), "{loss:?}: {end}");
            for (offset, found) in log.records(..).enumerate() {
                assert_eq!(&*found.unwrap(), record(0, offset as u64), "{loss:?}");
            }
            // What was cut never comes back behind new records.
            for offset in end..end + 4 {
                assert_eq!(log.append(record(1, offset)).unwrap(), offset);
            }
            let log = open(&after(&world, Loss::Seeded(seed)));
            assert_eq!(log.offsets().end, end + 4, "{loss:?}: strangers behind the end");
            for (offset, found) in (0..).zip(log.records(..)) {
                assert_eq!(&*found.unwrap(), record(u64::from(offset >= end), offset), "{loss:?}");
            }
        }
    }
}

/// A group of two failed when its first record was whole on its way; it was cut, and the offset given to
/// another record. Whatever of the three writes survives, the first one never stands there again.
#[test]
fn what_a_failed_group_left_never_comes_back() {
    let mut cuts = 0;
    for seed in 0..60 {
        let disk = SimDisk::new(seed);
        let log = open(&disk);
        for offset in 0..3 {
            log.append(record(0, offset)).unwrap();
        }
        disk.inject(Fault::ShortWrite { nth: 1 });
        disk.inject(Fault::write_error(2));
        let (Ok(_), Ok(_)) = (log.submit(record(1, 3)), log.submit(vec![b'x'; 1800])) else { continue };
        let failed = log.sync();
        disk.clear_faults();
        // Where the fault struck a preparation, or the first record alone, there is nothing to see here.
        if failed.is_ok() || log.offsets() != (0..3) || log.truncate_front(0).is_err() {
            continue;
        }
        cuts += 1;
        disk.record_moments(true);
        assert_eq!(log.append(record(2, 3)).unwrap(), 3);
        for moment in disk.take_moments() {
            let mut worlds: Vec<SimDisk> =
                losses(moment.disk.pending(), 20).into_iter().map(|loss| after(&moment.disk, loss)).collect();
            worlds.push(killed(&moment.disk));
            for world in worlds {
                let log = open(&world);
                match log.read(3) {
                    Ok(found) => assert_eq!(&*found, record(2, 3), "world {seed}: a stranger"),
                    Err(Error::OutOfRange { .. }) => assert_eq!(log.offsets(), 0..3),
                    Err(error) => panic!("world {seed}: {error}"),
                }
            }
        }
    }
    assert!(cuts > 5, "{cuts}");
}
