//! G1, G2, G5, G10. What is done with space takes nothing from anybody: zeros written ahead of small groups, what a
//! sealed store gives back, files that are removed after the truncation has returned.
//!
//! What it would catch: zeros over a frame; a tail of zeros taken for a tear or for damage; a store cut below its
//! Seal; space that is given back and stays lost to the next append, or to the next manifest; dropped files that stay
//! for ever.

use stonelog::disk::sim::{Capabilities, Loss, SimDisk, UnwrittenBytes};
use stonelog::{Durability, Log, Options};

use crate::common::{DIRECTORY, after, killed, options, path, stores};
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
