//! What an adversarial review found: each a shrunk case, with what went wrong.

use stonelog::disk::sim::SimDisk;
use stonelog::repair::{Basis, plan};
use stonelog::{Error, names};

use crate::common::{append, check_records, content, open, options, path, take_apart};
use crate::golden::load;
use crate::mended::{check, contents, repair, session, undo};

fn store(id: u64) -> String {
    path(&names::store(id))
}

/// A store whose head was gone was not seen to hold its segment; the one that took its name was moved over
/// it, and no undo could bring it back.
#[test]
fn a_store_that_lost_its_head_is_never_moved_over() {
    let stray = |disk: &SimDisk| {
        disk.copy_file(store(1), store(0xff)).unwrap();
        disk.zero(store(1), 0..512).unwrap();
    };
    let swapped = |disk: &SimDisk| {
        disk.swap_files(store(1), store(2)).unwrap();
        disk.zero(store(2), 0..512).unwrap();
    };
    let bare = |disk: &SimDisk| {
        disk.swap_files(store(1), store(2)).unwrap();
        disk.zero(store(2), 0..1024).unwrap();
    };
    for (name, damage) in
        [("stray", &stray as &dyn Fn(&SimDisk)), ("swapped", &swapped), ("swapped, base too", &bare)]
    {
        let disk = load("closed");
        damage(&disk);
        let before = contents(&disk);
        let plan = repair(&disk, Basis::Manifest, None).unwrap();
        assert!(plan.loss.is_nothing(), "{name}: {plan:?}");
        let records = check(&disk, &plan, name);
        assert!((0..70).all(|offset| records[&offset] == content(offset)), "{name}");
        undo(&disk, &before, name);
    }
}

/// An undo whose files had been deleted took the repaired log away, and said that all was well.
#[test]
fn an_undo_without_its_files_is_refused() {
    let disk = load("unclean");
    repair(&disk, Basis::Manifest, None).unwrap();
    let repaired = contents(&disk);
    for name in disk.file_names("/log/repair/1/old") {
        disk.remove_file(format!("/log/repair/1/old/{name}")).unwrap();
    }
    let error = session(&disk).undo().unwrap_err();
    assert!(matches!(&error, Error::RepairRefused { why } if why.contains("not kept any more")), "{error}");
    assert!(contents(&disk) == repaired);
    check_records(&open(&disk), 0..70);
}

/// A copy that a crashed recovery had half written took the place of the store that it was copied from, once
/// no MANIFEST said that it was nothing yet.
#[test]
fn an_unfinished_copy_supersedes_nothing() {
    for manifest in [true, false] {
        let disk = load("recovery-crashed");
        // Of the copy, the first records are there.
        let copy = take_apart_of(&disk, 7);
        disk.zero(store(7), copy..disk.read_file(store(7)).unwrap().len() as u64).unwrap();
        if !manifest {
            disk.remove_file(path("MANIFEST")).unwrap();
        }
        let before = contents(&disk);
        let plan = repair(&disk, Basis::Stores, None).unwrap();
        assert_eq!(plan.offsets, 0..70, "manifest {manifest}: {plan:?}");
        let records = check(&disk, &plan, "an unfinished copy");
        assert!((0..70).all(|offset| records[&offset] == content(offset)));
        undo(&disk, &before, "an unfinished copy");
    }
}

/// Where the fourth frame of a store begins.
fn take_apart_of(disk: &SimDisk, id: u64) -> u64 {
    let bytes = disk.read_file(store(id)).unwrap();
    let mut position = 1024;
    for _ in 0..4 {
        let header =
            stonelog::frame::decode_header(bytes[position..position + 16].try_into().unwrap()).unwrap();
        position += header.frame_bytes() as usize;
    }
    position as u64
}

/// One base sector that was gone, in the middle of several unsealed stores, cost a whole intact segment.
#[test]
fn a_lost_base_between_two_known_ones_is_found() {
    let disk = load("several-unsealed");
    disk.zero(store(2), 512..1024).unwrap();
    let before = contents(&disk);
    let plan = repair(&disk, Basis::Manifest, None).unwrap();
    assert!(plan.loss.is_nothing() && plan.offsets == (0..80), "{plan:?}");
    let records = check(&disk, &plan, "a lost base");
    assert!((0..80).all(|offset| records[&offset] == content(offset)));
    undo(&disk, &before, "a lost base");
}

/// An older MANIFEST, put back, ended the log where it had been closed then; an opening wrote over the
/// records behind, which were acknowledged.
#[test]
fn an_older_manifest_does_not_hide_the_records_behind_its_close() {
    let disk = SimDisk::new(1);
    let log = options(&disk).segment_bytes(1 << 20).open("/log").unwrap();
    append(&log, 20);
    log.close().unwrap();
    let older = disk.read_file(path("MANIFEST")).unwrap();
    let log = options(&disk).segment_bytes(1 << 20).open("/log").unwrap();
    append(&log, 30);
    log.close().unwrap();
    disk.write_file(path("MANIFEST"), older).unwrap();
    let repaired = disk.fork();
    let log = open(&disk);
    assert_eq!(log.offsets(), 0..50);
    check_records(&log, 0..50);
    let plan = repair(&repaired, Basis::Manifest, None).unwrap();
    assert_eq!(plan.offsets, 0..50);
    check(&repaired, &plan, "an older MANIFEST");
}

/// A page at a store's beginning that the disk cannot read gave up every frame of it.
#[test]
fn an_unreadable_head_costs_what_is_unreadable() {
    let disk = SimDisk::new(1);
    let log = options(&disk).segment_bytes(32 << 10).open("/log").unwrap();
    append(&log, 400);
    log.close().unwrap();
    let first = take_apart(&disk).stores[0].clone();
    disk.set_unreadable(path(&first.name), 0..512).unwrap();
    let plan = repair(&disk, Basis::Manifest, None).unwrap();
    assert!(plan.loss.is_nothing(), "{plan:?}");
    assert_eq!(check(&disk, &plan, "an unreadable head").len(), 400);
}

/// A digit too many in what was to be accepted made a hole of millions of offsets.
#[test]
fn an_end_that_no_store_can_have_held_is_refused() {
    let disk = load("torn-frame");
    let survey = session(&disk).survey(Basis::Manifest).unwrap();
    assert!(plan(&survey, Some(70)).is_ok());
    assert!(matches!(plan(&survey, Some(7_000_000)), Err(Error::RepairRefused { .. })));
}

/// Records whose offset nothing tells are never let go of without a word.
#[test]
fn records_without_a_place_are_asked_for() {
    let disk = load("closed");
    disk.remove_file(path("MANIFEST")).unwrap();
    disk.zero(store(3), 512..1024).unwrap();
    let last = plan(&session(&disk).survey(Basis::Manifest).unwrap(), None).unwrap();
    assert_eq!(last.loss.open_from, Some(56), "{last:?}");
    let disk = load("closed");
    disk.remove_file(path("MANIFEST")).unwrap();
    disk.zero(store(1), 512..1024).unwrap();
    let first = plan(&session(&disk).survey(Basis::Manifest).unwrap(), None).unwrap();
    assert_eq!(first.to_accept(), [0..28], "{first:?}");
}

/// A store in the middle was gone, and what followed it, intact, was left out without a question, as a tear is.
#[test]
fn what_damage_leaves_behind_a_hole_is_asked_for() {
    let disk = load("store-missing-between-unsealed");
    let survey = session(&disk).survey(Basis::Manifest).unwrap();
    let blind = plan(&survey, None).unwrap();
    assert_eq!(blind.loss.open_from, Some(28), "{blind:?}");
    let hole = blind.beyond[0].start;
    let knowing = plan(&survey, Some(hole)).unwrap();
    assert!(knowing.loss.offsets.covers(&(28..hole)) && knowing.beyond.is_empty(), "{knowing:?}");
    assert_eq!(knowing.offsets, 0..blind.beyond.last().unwrap().end);
    session(&disk).apply(&knowing, &knowing.to_accept()).unwrap();
    let records = check(&disk, &knowing, "behind a hole");
    assert!(records.iter().all(|(offset, bytes)| *bytes == content(*offset)));
}

/// The MANIFEST and the indexes made from the stores alone gave the offsets of lost records away, which the MANIFEST
/// that was not to be used knew of.
#[test]
fn a_rebuild_gives_no_lost_offset_away() {
    let disk = load("store-missing-active-unclean");
    repair(&disk, Basis::Manifest, Some(90)).unwrap();
    let survey = session(&disk).survey(Basis::Stores).unwrap();
    assert_eq!(plan(&survey, None).unwrap().loss.open_from, Some(56));
    assert_eq!(plan(&survey, Some(90)).unwrap().offsets, 0..90);
}

/// A repair whose files are gone cannot be finished; it can be taken back.
#[test]
fn a_repair_without_its_files_is_taken_back() {
    let disk = load("head-zeroed-sealed");
    let before = contents(&disk);
    let mut refused = 0;
    for step in 1.. {
        let world = disk.fork();
        world.crash_at_mutation(step);
        let done = repair(&world, Basis::Manifest, None).is_ok();
        world.process_crash();
        if stonelog::repair::pending(&world, std::path::Path::new("/log")).unwrap().is_some() {
            for name in world.file_names("/log/repair/1/new") {
                world.remove_file(format!("/log/repair/1/new/{name}")).unwrap();
            }
            if let Err(error) = session(&world).resume() {
                assert!(error.to_string().contains("log-repair undo"), "{error}");
                refused += 1;
            }
            undo(&world, &before, "without its files");
        }
        if done {
            break;
        }
    }
    assert!(refused > 2, "{refused}");
}

/// A hole that was named too short was taken as said, and what is intact behind it was left out.
#[test]
fn a_hole_is_named_whole() {
    let disk = load("store-missing-between-unsealed");
    let survey = session(&disk).survey(Basis::Manifest).unwrap();
    let hole = plan(&survey, None).unwrap().beyond[0].start;
    let short = plan(&survey, Some(hole - 2)).unwrap_err().to_string();
    assert!(short.contains(&format!("up to {hole}")), "{short}");
    assert!(plan(&survey, Some(hole)).is_ok());
}
