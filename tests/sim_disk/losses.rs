//! What a loss of power takes, and what it may not: bytes, lengths, names, renames, sectors.

use super::*;

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
