//! G1, G5, G9 at the door: what opening trusts, what it rebuilds, whom it turns away, and how little
//! it does after a clean close.
//!
//! What it would catch: an index that is trusted unchecked; a scan of a log that was closed; a
//! second writer; a half-made directory that never opens again.

use std::path::Path;

use stonelog::disk::sim::{Loss, Operation, SimDisk};
use stonelog::recovery::{Depth, inspect};
use stonelog::{DamagePolicy, Error, Options, ReadMode, names};

use crate::common::{
    DIRECTORY, after, append, check, check_records, content, killed, manual, open, options, path,
    poll_to_end, stores, take_apart,
};

fn indexes(disk: &SimDisk) -> Vec<String> {
    disk.file_names(DIRECTORY).into_iter().filter(|name| names::id_of_index(name).is_some()).collect()
}

/// A closed log, and one that crashed, of 60 records in several segments.
fn logs() -> [SimDisk; 2] {
    let disk = SimDisk::new(3);
    let log = open(&disk);
    append(&log, 60);
    let crashed = after(&disk, Loss::Everything);
    log.close().unwrap();
    [after(&disk, Loss::Nothing), crashed]
}

/// A lost index is rebuilt, a wrong one found out: the right data, always.
#[test]
fn indexes_are_never_a_source_of_truth() {
    for disk in logs() {
        let all = indexes(&disk);
        assert!(all.len() >= 2, "{all:?}");
        for (number, name) in all.iter().enumerate() {
            let length = disk.read_file(path(name)).unwrap().len() as u64;
            let other = &all[(number + 1) % all.len()];
            let mut worlds = Vec::new();
            for position in 0..length {
                let world = disk.fork();
                world.flip_bit(path(name), position, (position % 8) as u8).unwrap();
                worlds.push(world);
            }
            let edit = |change: &dyn Fn(&SimDisk)| {
                let world = disk.fork();
                change(&world);
                world
            };
            worlds.push(edit(&|world| world.remove_file(path(name)).unwrap()));
            worlds.push(edit(&|world| world.truncate(path(name), length / 2).unwrap()));
            worlds.push(edit(&|world| world.truncate(path(name), 0).unwrap()));
            worlds.push(edit(&|world| world.truncate(path(name), length + 100).unwrap()));
            worlds.push(edit(&|world| world.swap_files(path(name), path(other)).unwrap()));
            worlds.push(edit(&|world| world.copy_file(path(other), path(name)).unwrap()));
            worlds.push(edit(&|world| all.iter().for_each(|name| world.remove_file(path(name)).unwrap())));
            for world in worlds {
                let reading = options(&world).open_read_only(DIRECTORY).unwrap();
                check_records(&reading, reading.offsets());
                let log = open(&world);
                check(&log, 0..60);
                // Out of order, so that the index must lead.
                for offset in (0..60).rev().step_by(7) {
                    assert_eq!(&*log.read(offset).unwrap(), content(offset));
                }
                append(&log, 1);
                log.close().unwrap();
                check(&open(&world), 0..61);
            }
        }
    }
}

/// An index whose checksums hold and whose entries lead to other records: the frame decides.
#[test]
fn an_index_that_leads_wrong_is_found_out() {
    let mut led_wrong = 0;
    for disk in logs() {
        for name in indexes(&disk) {
            let mut bytes = disk.read_file(path(&name)).unwrap();
            let number = |at: usize, bytes: &[u8]| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
            let (form, count) = (number(12, &bytes), number(28, &bytes) as usize);
            // Blocked: for every 64 records a u32, then a u16 for each.
            if form != 2 || count < 3 {
                continue;
            }
            led_wrong += 1;
            let entries = 64 + 4 * count.div_ceil(64);
            bytes[entries..entries + 2 * count].rotate_left(2);
            let body = crc32fast::hash(&bytes[64..]);
            bytes[48..52].copy_from_slice(&body.to_le_bytes());
            let head = crc32fast::hash(&bytes[..60]);
            bytes[60..64].copy_from_slice(&head.to_le_bytes());
            let world = disk.fork();
            world.write_file(path(&name), &bytes).unwrap();
            let log = open(&world);
            for offset in (0..60).rev() {
                assert_eq!(&*log.read(offset).unwrap(), content(offset), "{name}");
            }
            check(&log, 0..60);
        }
    }
    assert!(led_wrong >= 2, "{led_wrong}");
}

/// Opens a closed log, and demands that nothing is read of the stores but head and base, and once, behind the end
/// that the Close states, what would be a header if the MANIFEST were an older one that was put back.
fn opens_without_a_scan(disk: &SimDisk) {
    disk.record_trace(true);
    let log = open(disk);
    assert!(log.recovery().clean);
    assert_eq!(log.recovery().scanned_bytes, 0);
    let reads = disk.trace().into_iter().filter(|entry| entry.operation == Operation::Read);
    let mut behind = 0;
    for read in reads.filter(|read| read.path.ends_with(".store")) {
        let header = read.length <= 16 && read.position >= 1024;
        behind += u32::from(header);
        assert!(header || read.position + read.length <= 1024, "opening read {read}");
    }
    assert!(behind <= 1, "{behind} looks at frames");
    check(&log, 0..60);
}

/// After a clean close: O(segments), no scan.
#[test]
fn a_clean_reopen_does_not_scan() {
    for seed in 0..8 {
        let disk = SimDisk::new(seed);
        let log = open(&disk);
        append(&log, 60);
        log.close().unwrap();
        opens_without_a_scan(&killed(&disk));
    }
}

/// The same where the power failed right after the close.
#[test]
fn a_clean_reopen_after_a_power_loss_does_not_scan() {
    for seed in 0..8 {
        let disk = SimDisk::new(seed);
        let log = open(&disk);
        append(&log, 60);
        log.close().unwrap();
        opens_without_a_scan(&after(&disk, Loss::Nothing));
    }
}

/// After a crash only unsealed segments are scanned.
#[test]
fn a_crash_scans_unsealed_segments_only() {
    let disk = SimDisk::new(3);
    let log = open(&disk);
    append(&log, 300);
    let sealed: Vec<String> =
        log.segments().iter().filter(|s| s.sealed).map(|s| names::store(s.id)).collect();
    assert!(sealed.len() > 3);
    let world = after(&disk, Loss::Everything);
    world.record_trace(true);
    let log = open(&world);
    let reads = world.trace().into_iter().filter(|entry| entry.operation == Operation::Read);
    for read in reads {
        assert!(!sealed.iter().any(|name| read.path.ends_with(name.as_str())), "opening read {read}");
    }
    assert!(log.recovery().scanned_bytes < 40_000, "{}", log.recovery().scanned_bytes);
}

/// Looking changes nothing.
#[test]
fn inspect_and_read_only_change_nothing() {
    for disk in logs() {
        let damaged = disk.fork();
        let store = take_apart(&disk).stores.remove(0);
        damaged.flip_bit(path(&store.name), store.frames[2].position + 17, 1).unwrap();
        damaged.remove_file(path(&indexes(&disk)[0])).unwrap();
        for world in [disk, damaged] {
            let (mutations, digest) = (world.mutations(), world.digest());
            for depth in [Depth::Opening, Depth::Everything] {
                inspect(&world, Path::new(DIRECTORY), depth).unwrap();
            }
            for policy in [DamagePolicy::Refuse, DamagePolicy::Serve] {
                if let Ok(log) = options(&world).on_damage(policy).open_read_only(DIRECTORY) {
                    let _ = log.records(..).count();
                    assert!(log.read(0).is_ok());
                    let _ = log.close();
                }
            }
            assert_eq!((world.mutations(), world.digest()), (mutations, digest));
        }
    }
    let empty = SimDisk::new(1);
    assert!(options(&empty).open_read_only(DIRECTORY).is_err());
    assert_eq!(empty.mutations(), 0);
}

/// A second writer is turned away at once, with the holder's process id.
#[test]
fn a_second_writer_is_locked_out() {
    let disk = SimDisk::new(1);
    let log = open(&disk);
    let clone = log.clone();
    for _ in 0..2 {
        match options(&disk).open(DIRECTORY) {
            Err(Error::Locked { pid, .. }) => assert_eq!(pid, Some(stonelog::disk::Disk::process_id(&disk))),
            other => panic!("{other:?}"),
        }
    }
    drop(clone);
    assert!(matches!(options(&disk).open(DIRECTORY), Err(Error::Locked { .. })));
    log.close().unwrap();
    append(&open(&disk), 1);

    let directory = tempfile::tempdir().unwrap();
    let held = Options::new().open(directory.path()).unwrap();
    match Options::new().open(directory.path()) {
        Err(Error::Locked { pid, .. }) => {
            assert_eq!(pid, Some(stonelog::disk::Disk::process_id(&stonelog::disk::OsDisk)))
        }
        other => panic!("{other:?}"),
    }
    // A read-only log needs no lock.
    drop(Options::new().open_read_only(directory.path()).unwrap());
    drop(held);
    drop(Options::new().open(directory.path()).unwrap());
}

#[test]
fn another_first_offset_is_refused() {
    let disk = SimDisk::new(1);
    let log = options(&disk).first_offset(100).open(DIRECTORY).unwrap();
    assert_eq!(log.append(b"x").unwrap(), 100);
    log.truncate_front(101).unwrap();
    log.close().unwrap();
    drop(log);
    for first in [0, 99, 101] {
        let refused = options(&disk).first_offset(first).open(DIRECTORY);
        assert!(matches!(refused, Err(Error::InvalidOption { option: "first_offset", .. })), "{refused:?}");
    }
    for options in [options(&disk), options(&disk).first_offset(100)] {
        let log = options.open(DIRECTORY).unwrap();
        assert_eq!(log.offsets(), 101..101);
        log.close().unwrap();
    }
}

/// Whatever a crash during the very first open leaves opens as an empty log.
#[test]
fn a_half_made_directory_opens_as_an_empty_log() {
    for deep in [DIRECTORY, "/a/b/c"] {
        for step in 1.. {
            let disk = SimDisk::new(step);
            disk.crash_at_mutation(step);
            let outcome = options(&disk).open(deep);
            let crashed = disk.has_crashed();
            assert!(outcome.is_ok() || crashed, "{outcome:?}");
            let mut worlds = vec![("killed".to_string(), killed(&disk))];
            let losses = crate::support::losses(disk.pending(), 6);
            worlds.extend(losses.into_iter().map(|loss| (format!("{loss:?}"), after(&disk, loss))));
            for (how, world) in worlds {
                let what = format!("{deep}, step {step}, {how}");
                let log = options(&world).open(deep).unwrap_or_else(|error| panic!("{what}: {error}"));
                assert_eq!(log.offsets(), 0..0, "{what}");
                append(&log, 3);
                let dark = options(&after(&world, Loss::Nothing)).open(deep).unwrap();
                assert_eq!(dark.offsets(), 0..3, "{what}: acknowledged, and lost with the directory");
                check_records(&dark, 0..3);
            }
            if !crashed {
                break;
            }
        }
    }
}

/// Files that are not Stonelog's are left alone; what an interrupted change left is tidied up.
#[test]
fn strange_files_are_left_alone() {
    let [disk, _] = logs();
    disk.write_file(path("README"), b"mine").unwrap();
    disk.write_file(path("0000000000000ABC.store"), b"mine").unwrap();
    disk.write_file(path("0000000000000001.index.next"), b"half").unwrap();
    let log = open(&disk);
    check(&log, 0..60);
    assert_eq!(disk.read_file(path("README")).as_deref(), Some(&b"mine"[..]));
    assert_eq!(disk.read_file(path("0000000000000ABC.store")).as_deref(), Some(&b"mine"[..]));
    assert_eq!(disk.read_file(path("0000000000000001.index.next")), None);
    assert!(stores(&disk).len() >= 2);
}

/// In `Manual` mode too, bytes are synced behind the writer at least every 16 MiB (one group more
/// may be under way), which bounds what a crash leaves to do.
#[test]
fn manual_mode_syncs_behind_the_writer() {
    let directory = tempfile::tempdir().unwrap();
    let log = Options::new()
        .durability(stonelog::Durability::Manual)
        .read_mode(ReadMode::Buffered)
        .segment_bytes(256 << 20)
        .open(directory.path())
        .unwrap();
    let record = vec![7u8; 64 << 10];
    let mut written = 0;
    while written < 200 << 20 {
        log.append(&record).unwrap();
        written += record.len() as u64;
        let behind = (log.offsets().end - log.durable_end()) * record.len() as u64;
        assert!(behind <= (4 * 16 + 8 + 8) << 20, "{} MiB behind", behind >> 20);
    }
    assert!(log.stats().fsyncs >= 200 / 80, "{:?}", log.stats());
}

/// One thread that submits 1,000 records and waits for the last pays few fsyncs.
#[test]
fn a_thousand_tickets_pay_few_fsyncs() {
    for real in [true, false] {
        let directory = tempfile::tempdir().unwrap();
        let disk = SimDisk::new(1);
        let log = if real {
            Options::new().open(directory.path()).unwrap()
        } else {
            options(&disk)
                .segment_bytes(4 << 20)
                .durability(stonelog::Durability::Manual)
                .open(DIRECTORY)
                .unwrap()
        };
        let before = log.stats().fsyncs;
        let mut last = None;
        for offset in 0..1000 {
            last = Some(log.submit(content(offset)).unwrap());
        }
        assert_eq!(last.unwrap().wait().unwrap(), 999..1000);
        assert_eq!(log.durable_end(), 1000);
        let paid = log.stats().fsyncs - before;
        assert!(paid <= 20, "{paid} fsyncs");
        check(&log, 0..1000);
    }
}

/// A ticket that is awaited makes progress though nobody else waits: also on a disk whose
/// background work is done inline, where no thread would ever wake the task.
#[test]
fn an_awaited_ticket_never_sleeps_for_ever() {
    for seed in 0..20 {
        let disk = SimDisk::new(seed);
        let log = manual(&disk).open(DIRECTORY).unwrap();
        let (outcome, woken) = poll_to_end(log.submit(content(0)).unwrap());
        assert_eq!(outcome.unwrap(), 0..1);
        assert!(woken, "seed {seed}: pending, and nobody was ever going to wake the task");
    }
}
