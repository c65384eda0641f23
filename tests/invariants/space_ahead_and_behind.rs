//! G1, G2, G5, G10. What is done with space takes nothing from anybody: zeros written ahead of small groups, what a
//! sealed store gives back, files that are removed after the truncation has returned, files that a recovery removed and
//! that are closed behind it.
//!
//! What it would catch: zeros over a frame; a tail of zeros taken for a tear or for damage; a store cut below its
//! Seal; space that is given back and stays lost to the next append, or to the next manifest; dropped files that stay
//! for ever; an opening that needs the space of files which a dying process has not let go of yet.

use stonelog::disk::sim::{Capabilities, Fault, Loss, Operation, SimDisk, UnwrittenBytes};
use stonelog::{Durability, Log, Options};

use crate::common::{DIRECTORY, after, killed, no_space, options, path, poisoned, stores};
use crate::support::losses;

/// Segments that hold some groups of a few KiB, so that zeros are written ahead.
fn roomy(disk: &SimDisk) -> Options {
    options(disk).segment_bytes(160 << 10)
}

fn payload(offset: u64) -> Vec<u8> {
    let length = 3000 + (offset * 977 % 2000) as usize;
    let mut bytes = vec![offset as u8 | 1; length];
    bytes[..8].copy_from_slice(&offset.to_le_bytes());
    bytes
}

fn check(log: &Log, least: u64, most: u64, what: &str) {
    let end = log.offsets().end;
    assert!((least..=most).contains(&end), "{what}: {end}, not {least} to {most}");
    for record in log.records(0..) {
        let record = record.unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(&*record, payload(record.offset()), "{what}: {}", record.offset());
    }
    assert_eq!(log.records(0..).count() as u64, end - log.offsets().start, "{what}");
}

/// Before and in the middle of every write, the zeros' own among them, the power fails or the process dies.
#[test]
fn zeros_ahead_take_nothing() {
    for sector_bytes in [1, 512, 4096] {
        for unwritten_bytes in [UnwrittenBytes::Never, UnwrittenBytes::Zeros, UnwrittenBytes::Stale] {
            let mut device = Capabilities::default();
            device.sector_bytes = sector_bytes;
            device.unwritten_bytes = unwritten_bytes;
            zeros_ahead_on(device);
        }
    }
}

fn zeros_ahead_on(device: Capabilities) {
    let disk = SimDisk::with_capabilities(11, device);
    let log = roomy(&disk).open(DIRECTORY).unwrap();
    for offset in 0..28 {
        disk.record_moments(true);
        log.append(payload(offset)).unwrap();
        for moment in disk.take_moments() {
            let what =
                format!("{device:?}, {offset}, mutation {}, mid-write {}", moment.mutation, moment.mid_write);
            let mut worlds = vec![killed(&moment.disk)];
            worlds.extend(
                [Loss::Nothing, Loss::Everything, Loss::Seeded(offset), Loss::Seeded(offset + 100)]
                    .map(|loss| after(&moment.disk, loss)),
            );
            for world in worlds {
                check(&roomy(&world).open(DIRECTORY).unwrap(), offset, offset + 1, &what);
            }
        }
    }
    let file = disk.read_file(path(&stores(&disk)[0])).unwrap();
    assert!(file.len() > 64 << 10, "no group of this test ever lay where zeros are written ahead");
}

fn large(offset: u64) -> Vec<u8> {
    vec![offset as u8 | 1; 50_000]
}

/// A store whose last record did not fit ends at its Seal once that is written, and is as good as before
/// after any crash.
#[test]
fn a_sealed_store_gives_back_what_it_does_not_use() {
    let disk = SimDisk::new(12);
    let log = roomy(&disk).durability(Durability::Manual).open(DIRECTORY).unwrap();
    for offset in 0..40 {
        log.append(large(offset)).unwrap();
        log.sync().unwrap();
        for loss in losses(disk.pending(), 2) {
            let log = roomy(&after(&disk, loss)).open(DIRECTORY).unwrap();
            assert_eq!(log.offsets(), 0..offset + 1);
            assert!(log.records(0..).all(|record| record.is_ok_and(|r| *r == large(r.offset()))));
        }
    }
    let sealed: Vec<_> = log.segments().into_iter().filter(|segment| segment.sealed).collect();
    assert!(sealed.len() > 5, "{sealed:?}");
    let mut trimmed = 0;
    for segment in &sealed {
        let file = disk.read_file(path(&stonelog::names::store(segment.id))).unwrap();
        // Three records, and the two sectors before them.
        let length = 1024 + 3 * (16 + 50_000);
        assert!(file.len() >= length, "segment {}: {} bytes", segment.id, file.len());
        trimmed += usize::from(file.len() == length);
    }
    assert!(trimmed + 2 >= sealed.len(), "{trimmed} of {} sealed stores were trimmed", sealed.len());
}

/// Whether the background came to it or not: an append that finds the disk full has dropped files removed, a close
/// does, and after a crash the next opening.
#[test]
fn dropped_files_go() {
    for seed in 0..16 {
        let disk = SimDisk::new(seed);
        let log = roomy(&disk).open(DIRECTORY).unwrap();
        let mut next = 0;
        let append = |log: &Log, next: &mut u64| {
            log.append(payload(*next)).unwrap_or_else(|error| panic!("seed {seed}, {next}: {error}"));
            *next += 1;
        };
        while log.segments().len() < 5 {
            append(&log, &mut next);
        }
        let front = log.segments()[3].base;
        // As full as it can be: what comes now must come from what was dropped.
        disk.set_capacity(Some(disk.used_bytes()));
        while log.append(payload(next)).is_ok() {
            next += 1;
        }
        log.truncate_front(front).unwrap();
        for _ in 0..20 {
            append(&log, &mut next);
        }
        disk.set_capacity(None);

        let front = log.segments().last().unwrap().base;
        while log.segments().last().unwrap().base == front {
            append(&log, &mut next);
        }
        let behind = log.segments().into_iter().filter(|segment| segment.end <= front);
        let dropped: Vec<String> = behind.map(|segment| stonelog::names::store(segment.id)).collect();
        assert!(!dropped.is_empty());
        log.truncate_front(front).unwrap();
        for world in [after(&disk, Loss::Nothing), after(&disk, Loss::Everything), killed(&disk)] {
            let log = roomy(&world).open(DIRECTORY).unwrap();
            assert_eq!(log.offsets(), front..next);
            assert!(stores(&world).iter().all(|name| !dropped.contains(name)), "seed {seed}: {dropped:?}");
        }
        log.close().unwrap();
        assert!(stores(&disk).iter().all(|name| !dropped.contains(name)), "seed {seed}: {dropped:?}");
    }
}

/// What a truncation dropped is to be had by the very next append, also where its store was sealed a moment before.
/// (One that waited to be trimmed was held open, and kept the space of its removed file.)
#[test]
fn a_dropped_store_that_was_just_sealed_holds_no_space() {
    for seed in 0..24 {
        for count in 4..12 {
            let disk = SimDisk::new(seed);
            let log = roomy(&disk).open(DIRECTORY).unwrap();
            for offset in 0..count {
                log.append(large(offset)).unwrap();
            }
            let segments = log.segments();
            log.truncate_front(segments[segments.len() - 2].base).unwrap();
            disk.set_capacity(Some(disk.used_bytes()));
            while log.append(large(log.offsets().end)).is_ok() {}
            let front = log.segments().last().unwrap().base;
            if log.segments().len() < 2 {
                continue;
            }
            log.truncate_front(front).unwrap();
            let appended = log.append(large(log.offsets().end));
            assert!(appended.is_ok(), "seed {seed}, {count} records: {appended:?}");
        }
    }
}

/// A change of the manifest that finds no space has dropped files removed before it gives up; one that leaves none for
/// the next opening's manifest has them removed too.
#[test]
fn the_next_manifest_has_what_was_dropped() {
    for seed in 0..24 {
        let disk = SimDisk::new(seed);
        let log = roomy(&disk).open(DIRECTORY).unwrap();
        while log.segments().len() < 4 {
            log.append(large(log.offsets().end)).unwrap();
        }
        disk.set_capacity(Some(disk.used_bytes()));
        while log.append(large(log.offsets().end)).is_ok() {}
        let front = log.segments().last().unwrap().base;
        log.truncate_front(front).unwrap();
        // It needs the ballast, and cannot lay it in again without what was dropped.
        for number in 0..8 {
            let put = log.put_meta("position", vec![number; 60_000]);
            assert!(put.is_ok(), "seed {seed}, {number}: {put:?}");
            for world in [killed(&disk), after(&disk, Loss::Everything)] {
                let opened = roomy(&world).open(DIRECTORY);
                assert!(opened.is_ok(), "seed {seed}, {number}: {opened:?}");
            }
        }
    }
}

/// The space of files that have no name and are open. (Nothing is open on a fork.)
fn held(disk: &SimDisk) -> u64 {
    disk.used_bytes() - disk.fork().used_bytes()
}

/// A log that was killed with records which the next opening has to copy, and how many records it holds. There is
/// `room` for so many bytes more, if that is said.
fn killed_with_a_tail(seed: u64, room: Option<u64>) -> (SimDisk, u64) {
    let disk = SimDisk::new(seed);
    let options = roomy(&disk).durability(Durability::Manual).readers_see_appended(true);
    let log = options.open(DIRECTORY).unwrap();
    let append_to = |end| {
        while log.offsets().end < end {
            log.append(payload(log.offsets().end)).unwrap();
        }
    };
    append_to(70);
    log.sync().unwrap();
    append_to(110);
    // A process that dies takes what is buffered; what is read was written.
    let next = log.offsets().end;
    log.read(next - 1).unwrap();
    let world = killed(&disk);
    world.set_capacity(room.map(|room| world.used_bytes() + room));
    (world, next)
}

/// An opening has the names of the stores that it copied durably gone, and their space when nobody has to wait for it.
#[test]
fn what_a_recovery_removed_is_closed_behind_it() {
    for seed in 0..16 {
        let (disk, _) = killed_with_a_tail(seed, None);
        let log = roomy(&disk).open(DIRECTORY).unwrap();
        let removed = log.recovery().removed.clone();
        assert!(removed.iter().any(|name| stonelog::names::id_of_store(name).is_some()), "{removed:?}");
        assert!(held(&disk) > 0, "seed {seed}: nothing was left to the background");
        for world in [after(&disk, Loss::Nothing), after(&disk, Loss::Seeded(seed)), killed(&disk)] {
            assert!(stores(&world).iter().all(|name| !removed.contains(name)), "seed {seed}: {removed:?}");
        }
        let mut appended = 0;
        while held(&disk) > 0 {
            log.append(payload(log.offsets().end)).unwrap();
            appended += 1;
            assert!(appended < 100, "seed {seed}: the background never closes them");
        }
    }
}

/// Whoever finds the disk full has them closed before it gives up, and whatever ends the log closes them.
#[test]
fn what_a_recovery_removed_keeps_nobody_out() {
    for seed in 0..16 {
        // Room for the copy and the manifests, not for more.
        let full = || {
            let (disk, next) = killed_with_a_tail(seed, Some(2 << 20));
            let log = roomy(&disk).open(DIRECTORY).unwrap();
            let copied = held(&disk);
            assert!(copied > 0, "seed {seed}");
            disk.set_capacity(Some(disk.used_bytes()));
            (disk, log, next, copied)
        };
        let (disk, log, next, copied) = full();
        while log.append(payload(log.offsets().end)).is_ok() {}
        no_space(log.append(payload(log.offsets().end)));
        assert_eq!(held(&disk), 0, "seed {seed}: an append gave up");
        // At least half of what was held was used for records.
        assert!(
            (log.offsets().end - next) * 4000 > copied / 2,
            "seed {seed}: {} of {copied}",
            log.offsets().end - next
        );

        let (disk, log, ..) = full();
        while log.put_meta("position", vec![1; 60_000]).is_ok() && held(&disk) > 0 {}
        assert_eq!(held(&disk), 0, "seed {seed}: a change of the manifest gave up");

        let (disk, log, ..) = full();
        log.close().unwrap();
        assert_eq!(held(&disk), 0, "seed {seed}: closed");

        let (disk, log, ..) = full();
        disk.set_capacity(None);
        disk.inject(Fault::sync_error(1));
        assert!(log.put_meta("position", [1]).is_err());
        poisoned(log.close());
        assert_eq!(held(&disk), 0, "seed {seed}: poisoned");
        assert_eq!(log.offsets().start, 0, "it can be read on");
    }
}

/// A process that dies on a full disk lets go of its lock and of its files in whatever order: the next opening does not
/// need what they hold.
#[test]
fn the_next_opening_needs_nothing_that_is_held() {
    let mut tried = 0;
    for (seed, pages) in (0..4).flat_map(|seed| (0..60).map(move |pages| (seed, pages))) {
        let (disk, next) = killed_with_a_tail(seed, Some(pages * 4096));
        let log = roomy(&disk).open(DIRECTORY).unwrap();
        for more in 0..3 {
            let dying = held(&disk);
            tried += u64::from(dying > 0);
            for world in [killed(&disk), after(&disk, Loss::Nothing)] {
                world.set_capacity(Some(world.used_bytes().max(disk.used_bytes() - dying)));
                let what = format!("seed {seed}, {pages} pages, {more} appends, {dying} bytes held");
                let reopened = roomy(&world).open(DIRECTORY);
                check(&reopened.unwrap_or_else(|error| panic!("{what}: {error}")), next, next + more, &what);
            }
            if log.append(payload(log.offsets().end)).is_err() {
                break;
            }
        }
    }
    assert!(tried > 200, "{tried}");
}

/// Where an opening finds no space for the ballast of the next manifest, it holds nothing.
#[test]
fn nothing_is_held_without_ballast() {
    let (mut with, mut without) = (0, 0);
    for seed in 0..4 {
        for nth in 1..12 {
            let (disk, _) = killed_with_a_tail(seed, None);
            // Ballast is asked for twice: as much as is good, then as little as can be.
            disk.inject(Fault::storage_full(Operation::Reserve, nth));
            disk.inject(Fault::storage_full(Operation::Reserve, nth + 1));
            let log = roomy(&disk).open(DIRECTORY).unwrap();
            let ballast = disk.read_file(path("MANIFEST.next")).is_some_and(|bytes| !bytes.is_empty());
            assert_eq!(held(&disk) > 0, ballast, "seed {seed}, {nth}");
            (with, without) = (with + u64::from(ballast), without + u64::from(!ballast));
            drop(log);
        }
    }
    assert!(with > 0 && without > 0, "{with} openings with ballast, {without} without");
}
