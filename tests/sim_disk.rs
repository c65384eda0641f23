//! The simulated disk keeps each of its promises: it is the ground that every crash test stands on.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test's helpers may fail where the test would"
)]

use std::collections::BTreeSet;
use std::io::{self, ErrorKind};
use std::path::Path;
use std::sync::Arc;

use stonelog::disk::sim::{Capabilities, Fault, FaultError, Loss, Operation, Outcome, SimDisk};
use stonelog::disk::{Background, Disk, DiskFile, LockAttempt, OpenMode, write_all_at};

type Outcomes = BTreeSet<Option<Vec<u8>>>;

fn create(disk: &SimDisk, path: &str) -> Arc<dyn DiskFile> {
    disk.open(Path::new(path), OpenMode::CreateNew).unwrap()
}

/// A file whose name and bytes are durable.
fn durable(disk: &SimDisk, path: &str, bytes: &[u8]) -> Arc<dyn DiskFile> {
    let file = create(disk, path);
    write_all_at(&*file, bytes, 0).unwrap();
    file.sync().unwrap();
    disk.sync_dir(Path::new(path).parent().unwrap()).unwrap();
    file
}

fn rename(disk: &SimDisk, from: &str, to: &str) {
    disk.rename(Path::new(from), Path::new(to)).unwrap();
}

/// The disk as it would be after this loss.
fn after(disk: &SimDisk, loss: Loss) -> SimDisk {
    let fork = disk.fork();
    fork.power_loss(loss);
    assert_eq!(fork.pending(), 0);
    assert_eq!(fork.digest(), fork.durable_digest());
    fork
}

/// What a file may be found to hold, over many seeds.
fn found(disk: &SimDisk, path: &str) -> Outcomes {
    (0..400).map(|seed| after(disk, Loss::Seeded(seed)).read_file(path)).collect()
}

fn read(file: &dyn DiskFile) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(file.length().unwrap()).unwrap()];
    let count = file.read_at(&mut bytes, 0).unwrap();
    assert_eq!(count, bytes.len());
    bytes
}

fn is_crash<T: std::fmt::Debug>(outcome: io::Result<T>) -> bool {
    let error = outcome.unwrap_err();
    error.kind() == ErrorKind::Other && error.to_string().starts_with("simulated crash: ")
}

/// A seeded run over all operations, without failing syncs.
fn scribble(disk: &SimDisk, seed: u64, count: usize) {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut below = |bound: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) % bound
    };
    let names = ["a", "b", "c", "d/a", "d/b", "d/q/a"];
    for _ in 0..count {
        let path = Path::new(names[usize::try_from(below(6)).unwrap()]);
        let other = Path::new(names[usize::try_from(below(6)).unwrap()]);
        match below(12) {
            0 => drop(disk.create_dir(Path::new("d"))),
            1 => drop(disk.create_dir(Path::new("d/q"))),
            2 | 3 => drop(disk.open(path, OpenMode::CreateNew)),
            4 => drop(disk.rename(path, other)),
            5 => drop(disk.remove(path)),
            6 => drop(disk.sync_dir(path.parent().unwrap())),
            choice => {
                let Ok(file) = disk.open(path, OpenMode::ReadWrite) else { continue };
                match choice {
                    7 => drop(file.sync()),
                    8 => drop(file.set_length(below(6000))),
                    9 => drop(file.reserve(below(6000))),
                    _ => {
                        let bytes = vec![
                            u8::try_from(below(255)).unwrap() + 1;
                            usize::try_from(below(3000)).unwrap()
                        ];
                        drop(file.write_at(&bytes, below(5000)));
                    }
                }
            }
        }
    }
}

#[test]
fn unsynced_bytes_are_lost_and_synced_ones_stay() {
    let disk = SimDisk::new(1);
    let file = durable(&disk, "a", b"one");
    file.write_at(b"two", 3).unwrap();
    assert_eq!(disk.pending(), 1);
    assert_eq!(read(&*file), b"onetwo");
    assert_eq!(after(&disk, Loss::Nothing).read_file("a").unwrap(), b"one");
    assert_eq!(after(&disk, Loss::Everything).read_file("a").unwrap(), b"onetwo");
    file.sync().unwrap();
    assert_eq!(disk.pending(), 0);
    assert_eq!(after(&disk, Loss::Nothing).read_file("a").unwrap(), b"onetwo");
}

#[test]
fn a_process_crash_keeps_the_cache_and_leaves_it_pending() {
    let disk = SimDisk::new(1);
    let file = durable(&disk, "a", b"one");
    file.write_at(b"two", 3).unwrap();
    let pid = disk.process_id();
    disk.process_crash();
    assert_ne!(disk.process_id(), pid);
    assert!(is_crash(file.length()) && is_crash(file.sync()) && is_crash(file.map(1)));
    assert_eq!(disk.read_file("a").unwrap(), b"onetwo");
    assert_eq!(disk.pending(), 1);
    assert_eq!(after(&disk, Loss::Nothing).read_file("a").unwrap(), b"one");
    // The next process's sync reaches what the one before it wrote.
    disk.open(Path::new("a"), OpenMode::ReadWrite).unwrap().sync().unwrap();
    assert_eq!(after(&disk, Loss::Nothing).read_file("a").unwrap(), b"onetwo");
}

#[test]
fn a_name_is_durable_only_once_its_directory_was_synced() {
    let disk = SimDisk::new(1);
    let file = create(&disk, "a");
    file.write_at(b"bytes", 0).unwrap();
    file.sync().unwrap();
    assert_eq!(after(&disk, Loss::Nothing).read_file("a"), None);
    disk.sync_dir(Path::new("/")).unwrap();
    assert_eq!(after(&disk, Loss::Nothing).read_file("a").unwrap(), b"bytes");

    // A synced directory is lost with its own name.
    disk.create_dir(Path::new("d")).unwrap();
    durable(&disk, "d/a", b"bytes");
    assert_eq!(after(&disk, Loss::Nothing).file_names("/"), ["a"]);
    disk.sync_dir(Path::new("")).unwrap();
    assert_eq!(after(&disk, Loss::Nothing).read_file("/d/./x/../a").unwrap(), b"bytes");
}

#[test]
fn a_name_may_survive_without_bytes_and_bytes_without_the_length() {
    let disk = SimDisk::new(1);
    create(&disk, "a").write_at(b"x", 0).unwrap();
    let found = found(&disk, "a");
    assert_eq!(found, Outcomes::from([None, Some(vec![]), Some(vec![0]), Some(vec![b'x'])]));
}

#[test]
fn removal_is_durable_only_once_its_directory_was_synced() {
    let disk = SimDisk::new(1);
    let file = durable(&disk, "a", b"bytes");
    disk.remove(Path::new("a")).unwrap();
    assert!(!disk.exists(Path::new("a")).unwrap());
    assert_eq!(read(&*file), b"bytes", "an open file outlives its name");
    assert_eq!(found(&disk, "a"), Outcomes::from([None, Some(b"bytes".to_vec())]));
    disk.sync_dir(Path::new("/")).unwrap();
    assert_eq!(read(&*file), b"bytes");
    file.write_at(b"B", 0).unwrap();
    assert_eq!(after(&disk, Loss::Everything).read_file("a"), None);
}

#[test]
fn a_rename_is_old_or_new_never_neither() {
    let disk = SimDisk::new(1);
    drop(durable(&disk, "m", b"old"));
    drop(durable(&disk, "m.tmp", b"new"));
    rename(&disk, "m.tmp", "m");
    assert_eq!(disk.read_file("m").unwrap(), b"new");
    for seed in 0..100 {
        let disk = after(&disk, Loss::Seeded(seed));
        match disk.read_file("m").unwrap().as_slice() {
            b"old" => assert_eq!(disk.read_file("m.tmp").unwrap(), b"new"),
            bytes => assert_eq!((bytes, disk.read_file("m.tmp")), (&b"new"[..], None)),
        }
    }
    assert_eq!(found(&disk, "m").len(), 2);
    disk.sync_dir(Path::new("/")).unwrap();
    assert_eq!(after(&disk, Loss::Nothing).read_file("m").unwrap(), b"new");
}

#[test]
fn a_rename_across_directories_is_whole_and_durable_with_its_destination() {
    let disk = SimDisk::new(1);
    disk.create_dir(Path::new("d")).unwrap();
    disk.sync_dir(Path::new("/")).unwrap();
    drop(durable(&disk, "d/x", b"x"));
    disk.create_dir(Path::new("d/quarantine")).unwrap();
    rename(&disk, "d/x", "d/quarantine/x");
    // The old name is taken again: that rests on the rename.
    drop(create(&disk, "d/x"));
    let where_is = |disk: &SimDisk| {
        let old = disk.read_file("d/x").is_some_and(|bytes| bytes == b"x");
        let new = disk.read_file("d/quarantine/x").is_some_and(|bytes| bytes == b"x");
        assert!(old != new, "in one place, not in both or in none: {old} {new}");
        new
    };
    let places: BTreeSet<bool> = (0..100).map(|seed| where_is(&after(&disk, Loss::Seeded(seed)))).collect();
    assert_eq!(places.len(), 2);
    for index in 0..disk.pending() {
        where_is(&after(&disk, Loss::Prefix(index)));
        where_is(&after(&disk, Loss::DropOne(index)));
    }
    assert!(!where_is(&after(&disk, Loss::Nothing)));
    // The destination's sync is enough, though nobody synced the destination's own name.
    disk.sync_dir(Path::new("d/quarantine")).unwrap();
    assert!(where_is(&after(&disk, Loss::Nothing)));
}

#[test]
fn a_move_into_new_directories_rests_on_all_of_them() {
    let disk = SimDisk::new(1);
    drop(durable(&disk, "x", b"x"));
    disk.create_dir(Path::new("d")).unwrap();
    disk.create_dir(Path::new("d/q")).unwrap();
    rename(&disk, "x", "d/q/x");
    let losses = (0..100).map(Loss::Seeded).chain((0..3).map(Loss::DropOne));
    for loss in losses {
        let disk = after(&disk, loss);
        assert!(disk.read_file("x").is_some() != disk.read_file("d/q/x").is_some(), "{loss:?}");
    }
    disk.sync_dir(Path::new("d/q")).unwrap();
    assert_eq!(after(&disk, Loss::Nothing).read_file("d/q/x").unwrap(), b"x");
}

#[test]
fn the_sync_of_the_old_directory_alone_does_not_make_a_move_durable() {
    let disk = SimDisk::new(1);
    disk.create_dir(Path::new("q")).unwrap();
    drop(durable(&disk, "x", b"x"));
    rename(&disk, "x", "q/x");
    disk.sync_dir(Path::new("/")).unwrap();
    assert_eq!(after(&disk, Loss::Nothing).read_file("x").unwrap(), b"x");
    assert_eq!(after(&disk, Loss::Everything).read_file("q/x").unwrap(), b"x");
}

#[test]
fn a_file_is_never_without_a_name_whatever_is_lost() {
    for seed in 0..30 {
        let disk = SimDisk::new(seed);
        disk.create_dir(Path::new("d")).unwrap();
        disk.sync_dir(Path::new("/")).unwrap();
        drop(durable(&disk, "0", b"0"));
        drop(durable(&disk, "d/1", b"1"));
        let places = ["0", "d/1", "2", "d/3", "4"];
        let mut at = ["0", "d/1"];
        for round in 0..6 {
            let moved = usize::try_from(disk.random() % 2).unwrap();
            let to = places[usize::try_from(disk.random() % 5).unwrap()];
            if !at.contains(&to) {
                rename(&disk, at[moved], to);
                at[moved] = to;
                if round == 3 {
                    disk.sync_dir(Path::new(to).parent().unwrap()).unwrap();
                }
            }
        }
        let losses = (0..50).map(Loss::Seeded);
        let losses = losses.chain((0..disk.pending()).flat_map(|n| [Loss::Prefix(n), Loss::DropOne(n)]));
        for loss in losses {
            let disk = after(&disk, loss);
            for wanted in [b"0", b"1"] {
                let count =
                    places.iter().filter(|place| disk.read_file(place).as_deref() == Some(wanted)).count();
                assert_eq!(count, 1, "{loss:?} of seed {seed}");
            }
        }
    }
}

#[test]
fn a_kept_rename_keeps_the_creation_and_a_dropped_creation_drops_the_rename() {
    let disk = SimDisk::new(1);
    create(&disk, "a").sync().unwrap();
    rename(&disk, "a", "b");
    let states: BTreeSet<Vec<String>> =
        (0..100).map(|seed| after(&disk, Loss::Seeded(seed)).file_names("/")).collect();
    assert_eq!(states, BTreeSet::from([vec![], vec!["a".to_owned()], vec!["b".to_owned()]]));
    assert!(after(&disk, Loss::DropOne(0)).file_names("/").is_empty());
    assert_eq!(after(&disk, Loss::DropOne(1)).file_names("/"), ["a"]);
}

#[test]
fn losses_choose_by_number() {
    let disk = SimDisk::new(1);
    let file = durable(&disk, "a", &[b'.'; 1536]);
    for (index, letter) in b"012".iter().enumerate() {
        file.write_at(&[*letter], 512 * index as u64).unwrap();
    }
    let marks = |loss| {
        let bytes = after(&disk, loss).read_file("a").unwrap();
        String::from_utf8([bytes[0], bytes[512], bytes[1024]].to_vec()).unwrap()
    };
    assert_eq!(disk.pending(), 3);
    assert_eq!(marks(Loss::Prefix(0)), "...");
    assert_eq!(marks(Loss::Prefix(2)), "01.");
    assert_eq!(marks(Loss::Prefix(9)), "012");
    assert_eq!(marks(Loss::DropOne(1)), "0.2");
    assert_eq!(marks(Loss::DropOne(9)), "012");
    assert_eq!(marks(Loss::TearOne(2)), "01.");
}

#[test]
fn sectors_are_whole_or_not_at_all_and_independent() {
    let disk = SimDisk::new(1);
    let file = durable(&disk, "a", &[b'.'; 2048]);
    // 100..1700 covers part of the first and of the last sector.
    file.write_at(&[b'x'; 1600], 100).unwrap();
    let written = read(&*file);
    let mut kept = BTreeSet::new();
    for bytes in found(&disk, "a").into_iter().flatten() {
        assert_eq!(bytes.len(), 2048);
        let mut mask = 0;
        for (sector, piece) in bytes.chunks(512).enumerate() {
            let new = piece == &written[sector * 512..][..512];
            assert!(new || piece == [b'.'; 512]);
            mask |= u8::from(new) << sector;
        }
        kept.insert(mask);
    }
    assert_eq!(kept.len(), 16, "every subset of the four sectors was found: {kept:?}");
}

#[test]
fn a_torn_write_lacks_a_sector_and_leaves_the_others_alone() {
    let disk = SimDisk::new(3);
    let file = durable(&disk, "a", b"");
    file.write_at(&[b'1'; 2048], 0).unwrap();
    file.write_at(&[b'2'; 2048], 2048).unwrap();
    let torn = after(&disk, Loss::TearOne(0)).read_file("a").unwrap();
    assert_eq!(torn.len(), 4096);
    assert_eq!(torn[2048..], [b'2'; 2048]);
    assert_ne!(torn[..2048], [b'1'; 2048]);
    for sector in torn[..2048].chunks(512) {
        assert!(sector == [b'1'; 512] || sector == [0; 512]);
    }
}

#[test]
fn a_sector_beyond_the_durable_end_extends_the_file_with_zeros_between() {
    let disk = SimDisk::new(1);
    let file = durable(&disk, "a", b"abc");
    file.write_at(b"xyz", 1000).unwrap();
    for bytes in found(&disk, "a").into_iter().flatten() {
        assert_eq!(bytes[..3], *b"abc");
        match bytes.len() {
            3 => {}
            1003 => assert!(bytes[3..1000].iter().all(|byte| *byte == 0)),
            // The write's first sector alone: it goes from 512 to 1024 and the file ends at 1003.
            length => panic!("a length that the file never had: {length}"),
        }
    }
    // A sector that an earlier unsynced write also changed comes with both.
    let file = durable(&disk, "b", b"");
    file.write_at(b"1", 0).unwrap();
    file.write_at(b"2", 1).unwrap();
    assert_eq!(after(&disk, Loss::DropOne(0)).read_file("b").unwrap(), b"12");
}

#[test]
fn a_lost_cut_brings_old_bytes_back_but_never_inside_a_written_sector() {
    let disk = SimDisk::new(1);
    let file = durable(&disk, "a", &[b'o'; 1024]);
    file.set_length(100).unwrap();
    file.write_at(b"n", 100).unwrap();
    let bytes = after(&disk, Loss::DropOne(0)).read_file("a").unwrap();
    let expected = [&[b'o'; 100][..], b"n", &[0; 411], &[b'o'; 512]].concat();
    assert_eq!(bytes, expected);
    assert_eq!(after(&disk, Loss::Everything).read_file("a").unwrap().len(), 101);
}

#[test]
fn everything_kept_is_what_was_seen_and_every_state_settles() {
    for seed in 0..60 {
        let disk = SimDisk::new(seed);
        scribble(&disk, seed, 80);
        assert_eq!(after(&disk, Loss::Everything).digest(), disk.digest(), "seed {seed}");
        assert_eq!(after(&disk, Loss::Nothing).digest(), disk.durable_digest(), "seed {seed}");
        assert_eq!(after(&disk, Loss::Prefix(usize::MAX)).digest(), disk.digest());
        for loss in (0..10).map(Loss::Seeded) {
            let lost = after(&disk, loss);
            assert_eq!(lost.digest(), after(&disk, loss).digest(), "{loss:?} of seed {seed}");
            // The survivor is a disk like any other.
            scribble(&lost, seed, 20);
            assert_eq!(after(&lost, Loss::Everything).digest(), lost.digest());
        }
    }
}

#[test]
fn syncing_everything_leaves_nothing_to_lose() {
    for seed in 0..100 {
        let disk = SimDisk::new(seed);
        scribble(&disk, seed, 60);
        disk.process_crash();
        let files = ["a", "b", "c", "d/a", "d/b", "d/q/a"];
        for path in files {
            if let Ok(file) = disk.open(Path::new(path), OpenMode::ReadWrite) {
                file.sync().unwrap();
            }
        }
        for directory in ["/", "d", "d/q"] {
            drop(disk.sync_dir(Path::new(directory)));
        }
        assert_eq!(disk.digest(), disk.durable_digest(), "seed {seed}");
        assert_eq!(disk.pending(), 0, "what belongs to buried files is gone too");
    }
}

#[test]
fn a_failed_fsync_loses_bytes_that_reads_still_show() {
    for error in [FaultError::Io, FaultError::StorageFull] {
        let disk = SimDisk::new(1);
        let file = durable(&disk, "a", b"one");
        file.write_at(&[b'x'; 512], 512).unwrap();
        disk.inject(Fault::Error { operation: Operation::Sync, nth: 1, error });
        assert!(file.sync().is_err());
        assert_eq!(disk.pending(), 0);
        assert_eq!(read(&*file).len(), 1024, "the cache still shows them");
        file.sync().unwrap();
        assert_eq!(after(&disk, Loss::Everything).read_file("a").unwrap(), b"one");
        // Later writes are written as ever, and the lost ones stay lost.
        file.write_at(b"two", 1024).unwrap();
        file.sync().unwrap();
        let bytes = after(&disk, Loss::Nothing).read_file("a").unwrap();
        assert_eq!(bytes, [b"one", &[0; 1021][..], b"two"].concat());
    }
}

#[test]
fn an_interrupted_fsync_loses_nothing() {
    let disk = SimDisk::new(1);
    let file = durable(&disk, "a", b"");
    file.write_at(b"x", 0).unwrap();
    disk.inject(Fault::interrupted(Operation::Sync, 1));
    assert_eq!(file.sync().unwrap_err().kind(), ErrorKind::Interrupted);
    file.sync().unwrap();
    assert_eq!(after(&disk, Loss::Nothing).read_file("a").unwrap(), b"x");
}

#[test]
fn faults_strike_the_nth_call_of_their_operation() {
    let disk = SimDisk::new(1);
    let file = durable(&disk, "a", b"abc");
    disk.inject(Fault::read_error(2));
    disk.inject(Fault::write_error(1));
    disk.inject(Fault::interrupted(Operation::Read, 1));
    disk.inject(Fault::sync_dir_error(1));
    let mut buffer = [0; 3];
    assert_eq!(file.read_at(&mut buffer, 0).unwrap_err().kind(), ErrorKind::Interrupted);
    assert!(file.write_at(b"x", 0).is_err());
    assert!(file.read_at(&mut buffer, 0).is_err());
    assert_eq!(file.read_at(&mut buffer, 0).unwrap(), 3);
    assert_eq!(&buffer, b"abc");
    drop(create(&disk, "b"));
    assert!(disk.sync_dir(Path::new("/")).is_err());
    assert_eq!(after(&disk, Loss::Nothing).file_names("/"), ["a"]);
    disk.sync_dir(Path::new("/")).unwrap();
    assert_eq!(after(&disk, Loss::Nothing).file_names("/"), ["a", "b"]);
    disk.inject(Fault::storage_full(Operation::Create, 1));
    disk.clear_faults();
    drop(create(&disk, "c"));
}

#[test]
fn short_writes_write_a_part() {
    let disk = SimDisk::new(7);
    let file = durable(&disk, "a", b"");
    disk.inject(Fault::ShortWrite { nth: 2 });
    assert_eq!(file.write_at(&[1; 100], 0).unwrap(), 100);
    let count = file.write_at(&[2; 100], 100).unwrap();
    assert!((1..100).contains(&count));
    assert_eq!(file.length().unwrap(), 100 + count as u64);
    disk.inject(Fault::ShortWrites);
    let counts: Vec<usize> = (0..100).map(|_| file.write_at(&[3; 100], 0).unwrap()).collect();
    let short = counts.iter().filter(|count| **count < 100).count();
    assert!((20..80).contains(&short), "{short}");
    write_all_at(&*file, &[4; 1000], 0).unwrap();
    assert_eq!(read(&*file), [4; 1000]);
    assert_eq!(file.write_at(&[], 0).unwrap(), 0);
}

#[test]
fn a_full_disk_says_so_and_goes_on_when_there_is_space() {
    let disk = SimDisk::new(1);
    disk.set_capacity(Some(3 * 4096));
    let file = durable(&disk, "a", &[1; 4096]);
    assert_eq!(disk.used_bytes(), 4096);
    assert_eq!(file.reserve(4 * 4096).unwrap_err().kind(), ErrorKind::StorageFull);
    assert_eq!(file.length().unwrap(), 4096, "a reservation that fails changes nothing");
    file.reserve(2 * 4096).unwrap();
    assert_eq!((file.length().unwrap(), disk.used_bytes()), (8192, 8192));
    file.set_length(1 << 40).unwrap();
    assert_eq!(disk.used_bytes(), 8192, "a hole takes no space");
    file.set_length(8192).unwrap();
    let other = create(&disk, "b");
    assert_eq!(other.write_at(&[2; 5000], 0).unwrap(), 4096, "what fits is written");
    assert_eq!(other.write_at(&[2; 904], 4096).unwrap_err().kind(), ErrorKind::StorageFull);
    assert_eq!(file.write_at(&[3; 4096], 4096).unwrap(), 4096, "reserved space is there");
    // A full disk still locks, removes and cuts.
    assert!(matches!(disk.lock(Path::new("LOCK")).unwrap(), LockAttempt::Acquired(_)));
    disk.remove(Path::new("b")).unwrap();
    assert_eq!(file.write_at(&[3; 1], 8192).unwrap_err().kind(), ErrorKind::StorageFull, "b is still open");
    drop(other);
    assert_eq!(file.write_at(&[3; 1], 8192).unwrap(), 1);
    file.set_length(1).unwrap();
    assert_eq!(disk.used_bytes(), 4096);
    assert_eq!(file.reserve(u64::MAX).unwrap_err().kind(), ErrorKind::StorageFull);
    assert_eq!(file.write_at(b"xx", u64::MAX).unwrap_err().kind(), ErrorKind::FileTooLarge);
}

#[test]
fn reserved_space_reads_as_zeros_and_what_was_cut_never_comes_back_by_growing() {
    let disk = SimDisk::new(1);
    let file = durable(&disk, "a", &[9; 600]);
    file.set_length(10).unwrap();
    file.reserve(5000).unwrap();
    let expected = [&[9; 10][..], &[0; 4990]].concat();
    assert_eq!(read(&*file), expected);
    file.sync().unwrap();
    assert_eq!(after(&disk, Loss::Nothing).read_file("a").unwrap(), expected);
    assert_eq!(after(&disk, Loss::Nothing).used_bytes(), 8192);
    assert!(file.map(100).unwrap().is_none());
}

#[test]
fn a_crash_stops_everything_until_the_boot() {
    let disk = SimDisk::new(1);
    let file = durable(&disk, "a", b"one");
    disk.crash_at_mutation(2);
    assert_eq!(file.write_at(b"two", 3).unwrap(), 3);
    assert_eq!(read(&*file), b"onetwo");
    assert!(!disk.has_crashed());
    assert!(is_crash(file.sync()));
    assert!(disk.has_crashed());
    let steps = disk.steps();
    assert!(
        is_crash(file.length()) && is_crash(disk.list(Path::new("/"))) && is_crash(disk.lock(Path::new("l")))
    );
    assert_eq!(disk.steps(), steps, "a disk that is down does no steps");
    disk.power_loss(Loss::Nothing);
    assert!(!disk.has_crashed());
    assert!(is_crash(file.length()), "the handle stays dead");
    assert_eq!(read(&*disk.open(Path::new("a"), OpenMode::Read).unwrap()), b"one", "the sync did not happen");
}

#[test]
fn the_crashing_write_leaves_nothing_or_where_asked_a_prefix() {
    let lengths = |partly| -> BTreeSet<u64> {
        let length = |seed| {
            let disk = SimDisk::new(seed);
            let file = durable(&disk, "a", b"");
            disk.crash_mid_write(partly);
            disk.crash_at_mutation(1);
            assert!(is_crash(file.write_at(&[1, 2, 3], 0)));
            disk.process_crash();
            let bytes = disk.read_file("a").unwrap();
            assert!([1, 2, 3].starts_with(&bytes));
            bytes.len() as u64
        };
        (0..100).map(length).collect()
    };
    assert_eq!(lengths(false), BTreeSet::from([0]));
    assert_eq!(lengths(true), BTreeSet::from([0, 1, 2, 3]));
}

#[test]
fn every_call_is_a_step_and_mutations_are_counted_apart() {
    let disk = SimDisk::new(1);
    let root = Path::new("/");
    disk.create_dir(Path::new("d")).unwrap();
    let file = create(&disk, "a");
    file.write_at(b"x", 0).unwrap();
    file.sync().unwrap();
    file.set_length(0).unwrap();
    file.reserve(1).unwrap();
    rename(&disk, "a", "b");
    disk.remove(Path::new("b")).unwrap();
    disk.sync_dir(root).unwrap();
    drop(disk.lock(Path::new("LOCK")).unwrap());
    assert_eq!((disk.steps(), disk.mutations()), (10, 10));
    disk.list(root).unwrap();
    disk.exists(root).unwrap();
    file.length().unwrap();
    file.read_at(&mut [0], 0).unwrap();
    disk.open(Path::new("none"), OpenMode::Read).unwrap_err();
    assert_eq!((disk.steps(), disk.mutations()), (15, 10));
    let _ = (disk.now_millis(), disk.random(), disk.process_id(), disk.background());
    assert_eq!(disk.steps(), 15);
}

#[test]
fn the_same_seed_and_calls_give_the_same_trace() {
    let run = |seed: u64| {
        let disk = SimDisk::new(seed);
        disk.record_trace(true);
        disk.inject(Fault::ShortWrites);
        scribble(&disk, 5, 200);
        disk.crash_at_mutation(3);
        scribble(&disk, 6, 20);
        disk.power_loss(Loss::Seeded(4));
        scribble(&disk, 7, 50);
        let lines: Vec<String> = disk.trace().iter().map(ToString::to_string).collect();
        (disk.trace(), lines, disk.digest(), disk.random(), disk.now_millis())
    };
    let (trace, lines, ..) = run(1);
    assert!(trace.len() > 200);
    assert!(trace.iter().any(|entry| entry.outcome == Outcome::Crashed), "{lines:#?}");
    assert!(trace.iter().any(|entry| entry.process != trace[0].process));
    assert_eq!(run(1), run(1));
    assert_ne!(run(1).1, run(2).1);
}

#[test]
fn a_trace_says_what_happened() {
    let disk = SimDisk::new(1);
    disk.record_trace(true);
    let file = create(&disk, "/d/../a");
    file.write_at(b"abc", 7).unwrap();
    file.read_at(&mut [0; 9], 7).unwrap();
    disk.rename(Path::new("a"), Path::new("b")).unwrap();
    disk.open(Path::new("a"), OpenMode::Read).unwrap_err();
    disk.crash_at_mutation(1);
    file.sync().unwrap_err();
    let trace = disk.trace();
    let outcomes: Vec<Outcome> = trace.iter().map(|entry| entry.outcome).collect();
    assert_eq!(
        outcomes,
        [
            Outcome::Done(0),
            Outcome::Done(3),
            Outcome::Done(3),
            Outcome::Done(0),
            Outcome::Failed(ErrorKind::NotFound),
            Outcome::Crashed
        ]
    );
    assert_eq!(trace[1].hash, trace[2].hash, "what was read is what was written");
    assert_eq!(trace[0].to_string(), "     1 p1000 create     a = 0");
    assert_eq!(trace[3].to_string(), "     4 p1000 rename     a -> b = 0");
    disk.record_trace(false);
    assert!(disk.trace().is_empty());
}

#[test]
fn a_fork_lives_its_own_life() {
    let disk = SimDisk::new(1);
    let file = durable(&disk, "a", &[1; 5000]);
    file.write_at(&[2; 10], 0).unwrap();
    let LockAttempt::Acquired(_lock) = disk.lock(Path::new("LOCK")).unwrap() else { panic!("free") };
    let fork = disk.fork();
    assert_eq!((fork.digest(), fork.pending()), (disk.digest(), disk.pending()));
    assert!(matches!(fork.lock(Path::new("LOCK")).unwrap(), LockAttempt::Acquired(_)));
    let digest = disk.digest();
    fork.open(Path::new("a"), OpenMode::ReadWrite).unwrap().write_at(&[3; 10], 4090).unwrap();
    fork.remove(Path::new("a")).unwrap();
    drop(create(&fork, "b"));
    fork.power_loss(Loss::Everything);
    assert_eq!(disk.digest(), digest);
    assert_ne!(fork.digest(), digest);
    let twin = disk.fork();
    file.write_at(&[4], 4999).unwrap();
    assert_eq!(twin.digest(), digest);
    assert_ne!(disk.digest(), digest);
    file.sync().unwrap();
    assert_eq!(twin.random(), disk.random());
    // A clone is the same disk.
    let clone = disk.clone();
    drop(create(&clone, "c"));
    assert!(disk.exists(Path::new("c")).unwrap());
}

#[test]
fn a_lock_is_held_once_and_dies_with_its_guard_or_its_process() {
    let disk = SimDisk::new(1);
    let path = Path::new("LOCK");
    let LockAttempt::Acquired(guard) = disk.lock(path).unwrap() else { panic!("nobody held it") };
    let pid = disk.process_id();
    assert_eq!(disk.read_file("LOCK").unwrap(), pid.to_string().into_bytes());
    assert!(matches!(disk.lock(path).unwrap(), LockAttempt::Held { pid: Some(holder) } if holder == pid));
    drop(guard);
    let LockAttempt::Acquired(old) = disk.lock(path).unwrap() else { panic!("released by its guard") };
    disk.process_crash();
    let LockAttempt::Acquired(_new) = disk.lock(path).unwrap() else { panic!("released by the crash") };
    assert_eq!(disk.read_file("LOCK").unwrap(), disk.process_id().to_string().into_bytes());
    drop(old);
    assert!(matches!(disk.lock(path).unwrap(), LockAttempt::Held { .. }), "a dead guard releases nothing");
}

#[test]
fn names_and_modes_are_checked_as_by_an_os() {
    let disk = SimDisk::new(1);
    let kind = |outcome: io::Result<()>| outcome.unwrap_err().kind();
    let open = |path: &str, mode| disk.open(Path::new(path), mode).map(drop);
    disk.create_dir(Path::new("d")).unwrap();
    drop(create(&disk, "a"));
    assert_eq!(kind(open("none", OpenMode::ReadWrite)), ErrorKind::NotFound);
    assert_eq!(kind(open("none/a", OpenMode::CreateNew)), ErrorKind::NotFound);
    assert_eq!(kind(open("a", OpenMode::CreateNew)), ErrorKind::AlreadyExists);
    assert_eq!(kind(open("a/b", OpenMode::CreateNew)), ErrorKind::NotADirectory);
    assert_eq!(kind(open("d", OpenMode::Read)), ErrorKind::IsADirectory);
    assert_eq!(kind(disk.create_dir(Path::new("d"))), ErrorKind::AlreadyExists);
    assert_eq!(kind(disk.create_dir(Path::new("/"))), ErrorKind::AlreadyExists);
    assert_eq!(kind(disk.remove(Path::new("none"))), ErrorKind::NotFound);
    assert_eq!(kind(disk.rename(Path::new("a"), Path::new("d"))), ErrorKind::IsADirectory);
    assert_eq!(kind(disk.sync_dir(Path::new("e"))), ErrorKind::NotFound);
    let reader = disk.open(Path::new("a"), OpenMode::Read).unwrap();
    assert_eq!(reader.write_at(b"x", 0).unwrap_err().kind(), ErrorKind::PermissionDenied);
    assert_eq!(reader.read_at(&mut [0], 5).unwrap(), 0);
    rename(&disk, "a", "a");
    let names: Vec<(String, bool)> = disk
        .list(Path::new("/"))
        .unwrap()
        .into_iter()
        .map(|entry| (entry.name, entry.is_directory))
        .collect();
    assert_eq!(names, [("a".to_owned(), false), ("d".to_owned(), true)]);
}

#[test]
fn surroundings_are_seeded() {
    let (one, same, other) = (SimDisk::new(1), SimDisk::new(1), SimDisk::new(2));
    let draw = |disk: &SimDisk| -> Vec<u64> { (0..5).map(|_| disk.random()).collect() };
    let drawn = draw(&one);
    // Faults draw from elsewhere.
    same.inject(Fault::ShortWrites);
    create(&same, "a").write_at(&[0; 10], 0).unwrap();
    assert_eq!(drawn, draw(&same));
    assert_ne!(drawn, draw(&other));
    assert_eq!(one.now_millis() + 10, one.now_millis());
    assert_eq!(one.background(), Background::Inline);
    assert_eq!(other.with_background(Background::Threads).background(), Background::Threads);
}

#[test]
fn damage_at_rest_is_durable_and_no_step() {
    let disk = SimDisk::new(1);
    disk.write_file("/d/e/a", b"abcdef").unwrap();
    disk.write_file("d/e/b", b"xyz").unwrap();
    disk.flip_bit("d/e/a", 0, 1).unwrap();
    disk.zero("d/e/a", 4..100).unwrap();
    disk.swap_files("d/e/a", "d/e/b").unwrap();
    disk.copy_file("d/e/b", "d/c").unwrap();
    disk.truncate("d/c", 2).unwrap();
    disk.overwrite("d/c", 2, b"!").unwrap();
    disk.power_loss(Loss::Nothing);
    assert_eq!(disk.read_file("d/e/a").unwrap(), b"xyz");
    assert_eq!(disk.read_file("d/e/b").unwrap(), b"cbcd\0\0");
    assert_eq!(disk.read_file("d/c").unwrap(), b"cb!");
    assert_eq!(disk.file_names("d"), ["c", "e"]);
    disk.remove_file("d/e/a").unwrap();
    disk.write_file("d/c", b"").unwrap();
    disk.power_loss(Loss::Nothing);
    assert_eq!((disk.read_file("d/e/a"), disk.read_file("d/c")), (None, Some(vec![])));
    assert_eq!(disk.flip_bit("d/c", 0, 0).unwrap_err().kind(), ErrorKind::InvalidInput);
    assert_eq!(disk.truncate("none", 0).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(disk.steps(), 0);
}

#[test]
fn digests_tell_states_apart_and_see_only_what_is_visible() {
    let disk = SimDisk::new(1);
    let file = durable(&disk, "a", &[0; 4096]);
    let fork = disk.fork();
    file.sync().unwrap();
    assert_eq!(fork.digest(), disk.digest());
    let hole = SimDisk::new(9);
    create(&hole, "a").set_length(4096).unwrap();
    assert_eq!(hole.digest(), disk.digest(), "a hole and zeros look the same");
    file.set_length(4097).unwrap();
    assert_ne!(fork.digest(), disk.digest());
    assert_eq!(fork.digest(), disk.durable_digest());
    rename(&fork, "a", "b");
    assert_ne!(fork.digest(), fork.durable_digest());
}

#[test]
fn capabilities_narrow_what_is_lost() {
    let mut capabilities = Capabilities::default();
    capabilities.file_sync_persists_entry = true;
    let disk = SimDisk::with_capabilities(1, capabilities);
    disk.create_dir(Path::new("d")).unwrap();
    disk.sync_dir(Path::new("/")).unwrap();
    create(&disk, "d/a").sync().unwrap();
    assert_eq!(after(&disk, Loss::Nothing).file_names("d"), ["a"]);

    let mut capabilities = Capabilities::default();
    capabilities.directory_operations_in_order = true;
    let disk = SimDisk::with_capabilities(1, capabilities);
    for name in ["a", "b", "c", "d"] {
        drop(create(&disk, name));
    }
    let names = ["a", "b", "c", "d"];
    for seed in 0..100 {
        let found = after(&disk, Loss::Seeded(seed)).file_names("/");
        assert_eq!(found, names[..found.len()]);
    }
    assert_eq!(after(&disk, Loss::DropOne(1)).file_names("/"), ["a"]);

    let mut capabilities = Capabilities::default();
    capabilities.sector_bytes = 4096;
    let disk = SimDisk::with_capabilities(1, capabilities);
    durable(&disk, "a", &[1; 4096]).write_at(&[2; 4096], 0).unwrap();
    assert_eq!(found(&disk, "a").len(), 2);
}

#[test]
fn a_disk_can_be_shared_between_threads() {
    let disk = SimDisk::new(1);
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let disk = &disk;
            scope.spawn(move || {
                let file = create(disk, &thread.to_string());
                for position in 0..50 {
                    file.write_at(&[1], position).unwrap();
                }
                file.sync().unwrap();
            });
        }
    });
    assert_eq!(disk.file_names("/").len(), 4);
    assert_eq!(disk.steps(), 4 * 52);
}
