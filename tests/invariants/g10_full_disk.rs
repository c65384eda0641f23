//! G10. A full disk gives a clear error, loses nothing that was accepted, and the log goes on when
//! space is back; truncate, open and repair work on a full disk.
//!
//! What it would catch: an offset given before its space was reserved; a poison where nothing was
//! lost; an opening that needs more space than a full disk has; a failed write whose bytes come back
//! as strangers; an interruption or a short write taken for a failure or for success.

use stonelog::disk::sim::{Fault, Loss, Operation, SimDisk};
use stonelog::{Durability, Error, Log, Options};

use crate::common::{
    DIRECTORY, after, append, append_batch, check, check_records, content, killed, manual, no_space, open,
    options, poisoned,
};

const PAGE: u64 = 4096;

/// Appends until the disk is full. Gives the end.
fn fill(log: &Log) -> u64 {
    loop {
        let offsets = log.offsets();
        assert!(offsets.end < 5_000, "the disk never got full");
        match log.append(content(offsets.end)) {
            Ok(offset) => assert_eq!(offset, offsets.end),
            Err(Error::NoSpace { .. }) => {
                assert_eq!(log.offsets(), offsets, "a refused append got an offset");
                return offsets.end;
            }
            Err(error) => panic!("a full disk must say so, but: {error}"),
        }
    }
}

fn modes(disk: &SimDisk) -> [Options; 2] {
    [options(disk), manual(disk)]
}

/// The disk gets full at each level, in both modes: a clear error, nothing lost, reopening on the
/// full disk after every kind of end, and on it goes when space is back.
#[test]
fn full_at_every_level() {
    let mut failures = Vec::new();
    for pages in 0..72 {
        for mode in 0..2 {
            full_at(pages, mode, &mut failures);
        }
    }
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
}

fn full_at(pages: u64, mode: u64, failures: &mut Vec<String>) {
    let disk = SimDisk::new(pages * 2 + mode);
    disk.set_capacity(Some(pages * PAGE));
    let what = format!("{pages} pages, mode {mode}");
    let log = match modes(&disk)[mode as usize].clone().open(DIRECTORY) {
        Ok(log) => log,
        Err(Error::NoSpace { .. }) => {
            // Nothing half-made stands in the way once space is back.
            disk.set_capacity(None);
            append(&open(&disk), 3);
            return;
        }
        Err(error) => panic!("{what}: {error}"),
    };
    let end = fill(&log);
    no_space(log.append(vec![7; 100_000]));
    check_records(&log, 0..log.durable_end());
    log.sync().unwrap_or_else(|error| panic!("{what}: what was accepted cannot be synced: {error}"));
    check(&log, 0..end);
    let worlds = [
        ("power lost", after(&disk, Loss::Nothing)),
        ("all kept", after(&disk, Loss::Everything)),
        ("some kept", after(&disk, Loss::Seeded(pages))),
        ("killed", killed(&disk)),
    ];
    for (how, world) in worlds {
        if end == 0 {
            // Nothing was accepted: as before the first opening, an opening may say NoSpace.
            world.set_capacity(None);
        }
        let log = options(&world)
            .open(DIRECTORY)
            .unwrap_or_else(|error| panic!("{what}: does not open on the full disk, {how}: {error}"));
        check(&log, 0..end);
        // As if nothing had been, a second time.
        let again = after(&world, Loss::Nothing);
        check(
            &options(&again).open(DIRECTORY).unwrap_or_else(|e| panic!("{what}: second opening, {how}: {e}")),
            0..end,
        );
        world.set_capacity(None);
        append(&log, 5);
        log.sync().unwrap();
        check(&open(&after(&world, Loss::Nothing)), 0..end + 5);
    }
    log.close().unwrap_or_else(|error| panic!("{what}: close on the full disk: {error}"));
    if end == 0 {
        disk.set_capacity(None);
    }
    drop(log);
    let reopened = match options(&disk).open(DIRECTORY) {
        Ok(log) => log,
        Err(error) => {
            failures.push(format!("{what}, {end} records: does not open, closed: {error}"));
            return;
        }
    };
    check(&reopened, 0..end);
    disk.set_capacity(None);
    append(&reopened, 30);
    reopened.sync().unwrap();
    check(&open(&after(&disk, Loss::Nothing)), 0..end + 30);
}

/// The same handle goes on when space is back, in batches too, and nothing was poisoned.
#[test]
fn the_same_handle_goes_on() {
    for pages in 16..60 {
        let disk = SimDisk::new(pages);
        disk.set_capacity(Some(pages * PAGE));
        let Ok(log) = options(&disk).open(DIRECTORY) else { continue };
        let mut end = fill(&log);
        let batch = append_batch(&log, 60);
        no_space(batch);
        assert_eq!(log.offsets().end, end, "part of a batch got in");
        for round in 1..4 {
            disk.set_capacity(Some((pages + round * 4) * PAGE));
            let more = fill(&log);
            assert!(more > end, "{pages} pages, round {round}: space came back and nothing was accepted");
            end = more;
        }
        check(&log, 0..end);
        check(&open(&after(&disk, Loss::Nothing)), 0..end);
    }
}

/// `truncate_front` and `truncate_back` work on a full disk, free space, and appends go on.
#[test]
fn truncating_frees_space() {
    for pages in 18..72 {
        for seed in 0..2 {
            let disk = SimDisk::new(seed * 1000 + pages);
            disk.set_capacity(Some(pages * PAGE));
            let Ok(log) = options(&disk).open(DIRECTORY) else { continue };
            let end = fill(&log);
            if end < 60 {
                continue;
            }
            let front = end - 10;
            log.truncate_front(front)
                .unwrap_or_else(|error| panic!("{pages} pages: truncate_front on a full disk: {error}"));
            // What was freed may have gone to ballast and to prepared segments already: that appends
            // go on is what it is for.
            check(&log, front..end);
            append(&log, 5);
            for loss in [Loss::Nothing, Loss::Everything] {
                let opened = options(&after(&disk, loss)).open(DIRECTORY);
                check(
                    &opened
                        .unwrap_or_else(|e| panic!("{pages} pages, {seed}, front truncated, {loss:?}: {e}")),
                    front..end + 5,
                );
            }

            let cut = front + 2;
            let more = fill(&log);
            log.truncate_back(cut)
                .unwrap_or_else(|error| panic!("{pages} pages: truncate_back on a full disk: {error}"));
            check(&log, front..cut);
            let opened = options(&after(&disk, Loss::Nothing)).open(DIRECTORY);
            check(
                &opened.unwrap_or_else(|e| panic!("{pages} pages, {seed}, back truncated: {e}")),
                front..cut,
            );
            // Past the end: an empty log.
            log.truncate_front(more + 100)
                .unwrap_or_else(|error| panic!("{pages} pages: past the end: {error}"));
            check(&log, more + 100..more + 100);
            let log = open(&after(&disk, Loss::Nothing));
            assert_eq!(log.offsets(), more + 100..more + 100);
        }
    }
}

/// Metadata on a full disk: durable, or refused; never a poison.
#[test]
fn metadata_on_a_full_disk() {
    let disk = SimDisk::new(4);
    disk.set_capacity(Some(40 * PAGE));
    let log = open(&disk);
    let end = fill(&log);
    let mut kept = None;
    for number in 0..400u32 {
        let value = vec![number as u8; 900];
        match log.put_meta("position", &value) {
            Ok(()) => kept = Some(value),
            Err(Error::NoSpace { .. }) => break,
            Err(error) => panic!("{number}: {error}"),
        }
    }
    assert_eq!(log.meta("position").unwrap(), kept);
    let dark = open(&after(&disk, Loss::Nothing));
    check(&dark, 0..end);
    assert_eq!(dark.meta("position").unwrap(), kept);
    disk.set_capacity(None);
    append(&log, 3);
    log.put_meta("position", b"new").unwrap();
    assert_eq!(open(&after(&disk, Loss::Nothing)).meta("position").unwrap().as_deref(), Some(&b"new"[..]));
}

/// In `Always`, a write that fails fails its group only; it is cut, and the log goes on. The failed
/// record never comes back as a stranger.
#[test]
fn a_failed_write_fails_its_group_only() {
    for nth in 1..90 {
        let disk = SimDisk::new(nth);
        let log = options(&disk).open(DIRECTORY).unwrap();
        disk.inject(Fault::write_error(nth));
        let (mut failures, mut acknowledged) = (0, 0);
        for _ in 0..40 {
            let next = log.offsets().end;
            // A stranger, should it ever be read: as long as the real one, other bytes.
            let real = content(next);
            match log.append(vec![b'!'; real.len().max(1)]) {
                // Where the fault strikes the truncation's edit, the log is poisoned: another test's.
                Ok(_) if log.truncate_back(next).is_err() => break,
                Ok(_) => {}
                Err(Error::Poisoned { .. }) => break,
                Err(_) => failures += 1,
            }
            match log.append(&real) {
                Ok(offset) => {
                    assert_eq!(offset, next);
                    acknowledged = next + 1;
                }
                Err(Error::Poisoned { .. }) => break,
                Err(_) => failures += 1,
            }
        }
        assert!(failures <= 1, "{nth}: one fault, {failures} failures");
        for loss in [Loss::Nothing, Loss::Everything, Loss::Seeded(nth), Loss::Seeded(nth + 1000)] {
            let log = open(&after(&disk, loss));
            let offsets = log.offsets();
            assert!(offsets.end >= acknowledged, "{nth}, {loss:?}: {offsets:?}, acknowledged {acknowledged}");
            check_records(&log, 0..acknowledged);
        }
    }
}

/// The write that fails is the record's own: Io, not a poison, and the very next append gets its offset.
#[test]
fn a_failed_append_is_cut_and_its_offset_given_again() {
    for before in 0..40 {
        for (partly, seed) in [(false, 1), (true, 2), (true, 3)] {
            let disk = SimDisk::new(seed + before);
            let log = open(&disk);
            append(&log, before);
            if partly {
                disk.inject(Fault::ShortWrite { nth: 1 });
            }
            disk.inject(Fault::write_error(1 + u64::from(partly)));
            let failed = log.append(vec![b'!'; 150]);
            disk.clear_faults();
            match failed {
                // A segment had to be prepared, so the fault struck elsewhere; or across a roll.
                Ok(_) | Err(Error::Poisoned { .. }) => continue,
                Err(_) => {}
            }
            if log.sync().is_err() {
                continue;
            }
            assert_eq!(log.offsets(), 0..before, "the failed record kept its offset");
            for loss in [Loss::Nothing, Loss::Everything, Loss::Seeded(before)] {
                check(&open(&after(&disk, loss)), 0..before);
            }
            append(&log, 4);
            for loss in [Loss::Nothing, Loss::Everything, Loss::Seeded(before)] {
                check(&open(&after(&disk, loss)), 0..before + 4);
            }
        }
    }
}

/// In `Manual`, an append that returned may have been in it: the log is poisoned.
#[test]
fn a_failed_write_poisons_in_manual_mode() {
    let disk = SimDisk::new(1);
    let log = manual(&disk).open(DIRECTORY).unwrap();
    append(&log, 3);
    log.sync().unwrap();
    append(&log, 3);
    disk.inject(Fault::write_error(1));
    assert!(log.sync().is_err());
    poisoned(log.append(b"x"));
    poisoned(log.sync());
    check_records(&log, 0..3);
    for loss in [Loss::Nothing, Loss::Everything] {
        let log = open(&after(&disk, loss));
        assert!(log.offsets().end >= 3);
        check_records(&log, log.offsets());
    }
}

/// A little of everything, to be run under interruptions.
fn workload(options: &Options) -> Log {
    let log = options.clone().open(DIRECTORY).unwrap();
    append(&log, 30);
    append_batch(&log, 5).unwrap();
    log.put_meta("vote", b"me").unwrap();
    log.truncate_front(17).unwrap();
    log.truncate_back(33).unwrap();
    append(&log, 10);
    log.sync().unwrap();
    check(&log, 17..43);
    log.close().unwrap();
    let log = options.clone().open(DIRECTORY).unwrap();
    append(&log, 10);
    log.sync().unwrap();
    check(&log, 17..53);
    log
}

/// EINTR, at every call of every kind: asked again, and nobody notices.
#[test]
fn interruptions_everywhere() {
    use Operation as Op;
    let all = [
        Op::CreateDir,
        Op::List,
        Op::SyncDir,
        Op::Rename,
        Op::Remove,
        Op::Exists,
        Op::Open,
        Op::Create,
        Op::Lock,
        Op::Length,
        Op::Read,
        Op::Write,
        Op::Sync,
        Op::SetLength,
        Op::Reserve,
    ];
    for durability in [Durability::Always, Durability::Manual] {
        for operation in all {
            let rehearsal = SimDisk::new(5);
            rehearsal.record_trace(true);
            drop(workload(&options(&rehearsal).durability(durability)));
            let calls = rehearsal.trace().iter().filter(|entry| entry.operation == operation).count() as u64;
            let step = (calls / 60).max(1);
            for nth in (1..=calls).step_by(step as usize) {
                let disk = SimDisk::new(5);
                disk.inject(Fault::interrupted(operation, nth));
                let log = workload(&options(&disk).durability(durability));
                check(&open(&after(&disk, Loss::Nothing)), 17..53);
                drop(log);
            }
        }
    }
}

/// Writes that take only a part of their bytes.
#[test]
fn short_writes_everywhere() {
    for seed in 0..20 {
        let disk = SimDisk::new(seed);
        disk.inject(Fault::ShortWrites);
        let log = workload(&options(&disk));
        check(&open(&after(&disk, Loss::Nothing)), 17..53);
        drop(log);
    }
}
