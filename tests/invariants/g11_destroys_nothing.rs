//! G11. Recovery destroys nothing: what it cuts stays in the sealed file beyond its seal, or whole
//! files move to `quarantine/`, each reported.
//!
//! What it would catch: a tail that is truncated or overwritten; a store that is removed although
//! it holds bytes that are in no other file; a cut that the report forgets.

use std::collections::BTreeMap;

use stonelog::disk::sim::{Loss, SimDisk};
use stonelog::names;

use crate::common::{
    DIRECTORY, after, append, append_batch, check_records, files, manual, open, options, path, serve,
    take_apart,
};
use crate::support::losses;

type Files = BTreeMap<String, Vec<u8>>;

fn begins_with(now: Option<&Vec<u8>>, before: &[u8]) -> bool {
    let used = before.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    now.is_some_and(|now| now.len() >= used && now[..used] == before[..used])
}

/// Every byte that a store held before is still there: in place, in quarantine, or as a record that
/// the log serves.
fn nothing_is_gone(before: &SimDisk, now: &SimDisk, end: u64, what: &str) {
    let (old, new): (Files, Files) = (files(before), files(now));
    for (name, bytes) in old.iter().filter(|(name, _)| names::id_of_store(name).is_some()) {
        if begins_with(new.get(name), bytes) || begins_with(new.get(&format!("quarantine/{name}")), bytes) {
            continue;
        }
        let apart = take_apart(before);
        let store = apart.stores.iter().find(|store| store.name == *name);
        let served = match store {
            Some(store) => {
                let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last as u64 + 1);
                used <= store.end_of_frames()
                    && store.frames.iter().all(|frame| frame.offset.is_none_or(|o| o < end))
            }
            // Unnamed: a preparation or a copy of an interrupted recovery, never served from.
            None => true,
        };
        assert!(served, "{what}: {name} held bytes that are nowhere now");
    }
}

/// What the report says was cut is where it says, byte for byte.
fn cuts_are_kept(before: &SimDisk, now: &SimDisk, log: &stonelog::Log, what: &str) -> usize {
    for cut in &log.recovery().cut {
        let was = before.read_file(path(&cut.file)).unwrap();
        let place = if cut.quarantined { path(&format!("quarantine/{}", cut.file)) } else { path(&cut.file) };
        let is = now.read_file(&place).unwrap_or_else(|| panic!("{what}: {place} is gone, cut {cut:?}"));
        let range = cut.positions.start as usize..cut.positions.end as usize;
        assert_eq!(is[range.clone()], was[range], "{what}: {cut:?}");
        if cut.quarantined {
            assert!(now.read_file(format!("{place}.json")).is_some(), "{what}: no note beside {place}");
            assert!(log.recovery().quarantined.contains(&cut.file), "{what}");
        }
        assert!(log.recovery().to_string().contains(&cut.file), "{what}: {}", log.recovery());
    }
    log.recovery().cut.len()
}

/// Torn in every way that a crash can tear.
#[test]
fn torn_tails_stay() {
    let (mut cuts, mut quarantined, mut tried) = (0, 0, 0);
    for seed in 0..12 {
        for crash in 1..9 {
            let disk = SimDisk::new(seed);
            let log = manual(&disk).open(DIRECTORY).unwrap();
            append(&log, 5 + seed * 3);
            log.sync().unwrap();
            append(&log, 3 * (seed % 5));
            append_batch(&log, 2 + seed % 9).unwrap();
            append(&log, 10);
            disk.crash_mid_write(seed % 2 == 0);
            disk.crash_at_mutation(crash);
            if log.sync().is_ok() {
                continue;
            }
            for loss in losses(disk.pending(), 6) {
                let before = after(&disk, loss);
                let world = before.fork();
                let log = open(&world);
                let what = format!("{seed}, crash {crash}, {loss:?}");
                let end = log.offsets().end;
                check_records(&log, 0..end);
                nothing_is_gone(&before, &world, end, &what);
                cuts += cuts_are_kept(&before, &world, &log, &what);
                quarantined += log.recovery().quarantined.len();
                tried += 1;
                // And they still do when the log has gone on, was closed, and came back.
                append(&log, 20);
                log.close().unwrap();
                drop(open(&world));
                let report = log.recovery().clone();
                for cut in report.cut.iter().filter(|cut| !cut.quarantined) {
                    let was = before.read_file(path(&cut.file)).unwrap();
                    let is = world.read_file(path(&cut.file)).unwrap();
                    let range = cut.positions.start as usize..cut.positions.end as usize;
                    assert_eq!(is[range.clone()], was[range], "{what}: a later life took {cut:?}");
                }
                // What goes to quarantine must be found there after a power loss too.
                let dark = after(&world, Loss::Nothing);
                drop(open(&dark));
                nothing_is_gone(&before, &dark, end, &what);
            }
        }
    }
    println!("{tried} recoveries, {cuts} cuts, {quarantined} files in quarantine");
    assert!(cuts > 100 && quarantined > 0, "{cuts} cuts, {quarantined} in quarantine of {tried}");
}

/// A recovery that crashes at any step has destroyed nothing either.
#[test]
fn a_crashed_recovery_destroys_nothing() {
    for seed in 0..6 {
        let disk = SimDisk::new(seed);
        let log = manual(&disk).open(DIRECTORY).unwrap();
        append(&log, 12);
        log.sync().unwrap();
        append(&log, 30);
        disk.crash_at_mutation(4);
        let _ = log.sync();
        for loss in [Loss::Everything, Loss::Seeded(seed), Loss::Seeded(seed + 50)] {
            let before = after(&disk, loss);
            for step in 1.. {
                let world = before.fork();
                world.crash_at_mutation(step);
                drop(options(&world).open(DIRECTORY));
                if !world.has_crashed() {
                    break;
                }
                for again in [Loss::Nothing, Loss::Everything, Loss::Seeded(step)] {
                    let now = after(&world, again);
                    let log = open(&now);
                    let end = log.offsets().end;
                    check_records(&log, 0..end);
                    nothing_is_gone(&before, &now, end, &format!("{seed}, {loss:?}, step {step}, {again:?}"));
                }
            }
        }
    }
}

/// `Serve` moves and shortens no damaged file.
#[test]
fn serving_destroys_nothing() {
    for seed in 0..4 {
        let disk = SimDisk::new(seed);
        let log = open(&disk);
        append(&log, 45);
        let rest = after(&disk, Loss::Everything);
        for store in take_apart(&rest).stores {
            for frame in store.frames.iter().step_by(3) {
                let before = rest.fork();
                before.zero(path(&store.name), frame.position..frame.padded_end).unwrap();
                let world = before.fork();
                let log = serve(&world).unwrap();
                let now = files(&world);
                let bytes = before.read_file(path(&store.name)).unwrap();
                let kept = begins_with(now.get(&store.name), &bytes)
                    || begins_with(now.get(&format!("quarantine/{}", store.name)), &bytes);
                let untouched = frame.offset.is_none();
                assert!(kept || untouched, "{}: {frame:?}", store.name);
                cuts_are_kept(&before, &world, &log, "Serve");
            }
        }
    }
}
