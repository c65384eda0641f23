//! What a repaired log is to those who use it, and what an undo refuses.

use std::path::Path;
use std::sync::Arc;

use stonelog::disk::sim::SimDisk;
use stonelog::repair::{Basis, Session, plan, survey};
use stonelog::{DamagePolicy, Error};

use crate::common::{check_records, content, open, options, path};
use crate::golden::load;
use crate::mended::{contents, repair, session, undo};

fn repaired(name: &str) -> SimDisk {
    let disk = load(name);
    repair(&disk, Basis::Manifest, None).unwrap();
    disk
}

/// Reading a lost record says so, for good: after appends, truncations, crashes and reopenings.
#[test]
fn lost_records_stay_lost_and_their_offsets_unused() {
    let disk = repaired("store-missing-sealed");
    let log = open(&disk);
    let lost = |log: &stonelog::Log| {
        (0..28).for_each(|offset| {
            assert!(matches!(log.read(offset), Err(Error::Lost { offset: o }) if o == offset));
        })
    };
    lost(&log);
    check_records(&log, 28..70);
    let listed: Vec<bool> = log.records(0..70).map(|record| record.is_ok()).collect();
    assert_eq!(listed.iter().filter(|ok| **ok).count(), 42);
    for offset in 70..200 {
        assert_eq!(log.append(content(offset)).unwrap(), offset);
    }
    log.close().unwrap();
    let log = open(&disk);
    lost(&log);
    check_records(&log, 28..200);
    log.truncate_front(20).unwrap();
    assert!(matches!(log.read(20), Err(Error::Lost { .. })));
    log.truncate_back(150).unwrap();
    drop(log);
    let log = open(&disk);
    assert_eq!(log.offsets(), 20..150);
    assert!(matches!(log.read(27), Err(Error::Lost { .. })));
    check_records(&log, 28..150);
}

/// No acknowledged record is given up that was not named.
#[test]
fn a_loss_has_to_be_named_exactly() {
    let disk = load("sector-zeroed-sealed");
    let before = contents(&disk);
    let session = session(&disk);
    let plan = plan(&session.survey(Basis::Manifest).unwrap(), None).unwrap();
    assert_eq!(plan.to_accept(), [5..10]);
    for named in [&[][..], &[5..9], &[4..10], &[5..11], &[5..10, 20..21], &[0..70]] {
        let error = session.apply(&plan, named).unwrap_err();
        assert!(error.to_string().contains("--accept-loss 5..10"), "{error}");
        assert_eq!(contents(&disk), before, "{named:?}");
    }
    session.apply(&plan, &[5..7, 7..10]).unwrap();
}

/// Where nobody can tell how much is lost, the caller says where the log goes on.
#[test]
fn an_open_loss_ends_where_the_caller_says() {
    let disk = load("store-missing-active-unclean");
    let session = session(&disk);
    let found = session.survey(Basis::Manifest).unwrap();
    let blind = plan(&found, None).unwrap();
    assert_eq!((blind.loss.open_from, blind.to_accept()), (Some(56), vec![56..56]));
    assert!(matches!(plan(&found, Some(50)), Err(Error::RepairRefused { .. })));
    let told = plan(&found, Some(90)).unwrap();
    assert_eq!((told.to_accept(), told.offsets.clone()), (vec![56..90], 0..90));
    assert!(session.apply(&told, &[]).is_err());
    session.apply(&told, &told.to_accept()).unwrap();
    drop(session);
    let log = open(&disk);
    assert_eq!(log.append(b"on").unwrap(), 90);
    assert!(matches!(log.read(60), Err(Error::Lost { .. })));
    check_records(&log, 0..56);
}

/// Intact records behind a hole that nothing proves are kept where the caller knows better.
#[test]
fn records_behind_an_unproven_hole_are_kept_on_request() {
    let disk = SimDisk::new(1);
    let log = crate::common::manual(&disk).open("/log").unwrap();
    crate::common::append(&log, 20);
    log.sync().unwrap();
    let rest = crate::common::after(&disk, stonelog::disk::sim::Loss::Nothing);
    drop(log);
    let store = crate::common::take_apart(&rest).stores[0].clone();
    let frame = store.frames.iter().find(|frame| frame.offset == Some(7)).unwrap();
    rest.flip_bit(path(&store.name), frame.position + 20, 1).unwrap();
    let found = survey(&rest, Path::new("/log"), Basis::Manifest).unwrap();
    let cautious = plan(&found, None).unwrap();
    assert_eq!((cautious.offsets.clone(), cautious.beyond.clone()), (0..7, vec![8..20]));
    assert!(cautious.loss.is_nothing());
    let knowing = plan(&found, Some(8)).unwrap();
    assert_eq!((knowing.offsets.clone(), knowing.to_accept()), (0..20, vec![7..8]));
    session(&rest).apply(&knowing, &[7..8]).unwrap();
    let log = open(&rest);
    check_records(&log, 0..7);
    check_records(&log, 8..20);
    assert!(matches!(log.read(7), Err(Error::Lost { .. })));
}

/// G6. A failed fsync leaves records in the page cache alone. What is sealed by the caller's word is written anew
/// before it is served: nobody proved that it is on the disk.
#[test]
fn what_the_caller_vouches_for_survives_a_power_cut() {
    use stonelog::disk::sim::{Fault, Loss};
    let mut tried = 0;
    for nth in 1..=4 {
        let disk = SimDisk::new(1);
        let log = crate::common::manual(&disk).open("/log").unwrap();
        crate::common::append(&log, 60);
        disk.inject(Fault::sync_error(nth));
        let failed = log.sync();
        let rest = crate::common::killed(&disk);
        drop(log);
        if failed.is_ok() {
            continue;
        }
        let stores = crate::common::take_apart(&rest).stores;
        let struck = stores[0].frames.iter().find(|frame| frame.offset == Some(7)).unwrap();
        rest.flip_bit(path(&stores[0].name), struck.position + 20, 1).unwrap();
        let plan = repair(&rest, Basis::Manifest, Some(8)).unwrap();
        assert_eq!(plan.to_accept(), [7..8], "{nth}: {plan:?}");
        let dark = rest.fork();
        dark.power_loss(Loss::Nothing);
        for disk in [&rest, &dark] {
            let records = crate::mended::check(disk, &plan, &format!("fsync {nth} failed"));
            assert!(records.len() > 20 && records.iter().all(|(at, bytes)| *bytes == content(*at)), "{nth}");
        }
        tried += 1;
    }
    assert!(tried > 0);
}

/// An undo is for a log that nobody wrote to since.
#[test]
fn an_undo_is_refused_once_the_log_was_opened_for_writing() {
    let disk = repaired("frame-crc-sealed");
    options(&disk).open_read_only("/log").unwrap();
    let before = contents(&disk);
    open(&disk).close().unwrap();
    let error = session(&disk).undo().unwrap_err();
    assert!(matches!(&error, Error::RepairRefused { why } if why.contains("opened for writing")), "{error}");
    assert!(contents(&disk) != before, "the opening wrote a MANIFEST");
    let never = load("closed");
    assert!(matches!(session(&never).undo(), Err(Error::RepairRefused { .. })));
}

/// Repairs are taken back one after the other, the last one first.
#[test]
fn repairs_are_taken_back_in_their_order() {
    let disk = load("frame-crc-sealed");
    let first = contents(&disk);
    repair(&disk, Basis::Manifest, None).unwrap();
    let second = contents(&disk);
    // The indexes and the MANIFEST from the stores alone: there is something to do, though nothing is wrong.
    assert!(!repair(&disk, Basis::Stores, None).unwrap().is_nothing());
    undo(&disk, &second, "the second");
    undo(&disk, &first, "the first");
}

/// A log that is open cannot be repaired, and one that is being repaired cannot be opened.
#[test]
fn one_at_a_time() {
    let disk = load("closed");
    let log = open(&disk);
    let locked = Session::lock(Arc::new(disk.clone()), Path::new("/log"));
    assert!(matches!(locked, Err(Error::Locked { .. })), "{locked:?}");
    log.close().unwrap();
    let session = session(&disk);
    assert!(matches!(options(&disk).open("/log"), Err(Error::Locked { .. })));
    drop(session);
    open(&disk);
}

/// A repair heals what an opening under `Serve` had declared damaged.
#[test]
fn a_standing_damage_is_settled() {
    let disk = load("damaged-standing");
    assert!(matches!(options(&disk).open("/log"), Err(Error::Damaged(_))));
    repair(&disk, Basis::Manifest, None).unwrap();
    assert!(options(&disk).on_damage(DamagePolicy::Refuse).open("/log").is_ok());
}

/// The MANIFEST and the indexes can be put together from the stores alone, though they are whole.
#[test]
fn a_log_is_rebuilt_from_its_stores() {
    let disk = load("closed");
    let before = contents(&disk);
    let plan = repair(&disk, Basis::Stores, None).unwrap();
    assert!(!plan.unknown.is_empty() && plan.loss.is_nothing(), "{plan:?}");
    crate::mended::check(&disk, &plan, "rebuilt");
    undo(&disk, &before, "rebuilt");
}

/// G9. A store that the disk cannot read in places is written anew without them, and the rest is served.
#[test]
fn unreadable_sectors_are_left_behind() {
    let disk = SimDisk::new(2);
    let log = options(&disk).segment_bytes(32 << 10).open("/log").unwrap();
    crate::common::append(&log, 400);
    log.close().unwrap();
    let store = crate::common::take_apart(&disk).stores[0].clone();
    let page = 8192..8192 + 4096;
    disk.set_unreadable(path(&store.name), page.clone()).unwrap();
    let hit: Vec<u64> = store
        .frames
        .iter()
        .filter(|frame| frame.position < page.end && frame.end > page.start)
        .filter_map(|frame| frame.offset)
        .collect();
    let plan = repair(&disk, Basis::Manifest, None).unwrap();
    assert_eq!(plan.to_accept().into_iter().flatten().collect::<Vec<_>>(), hit);
    let log = open(&disk);
    for offset in 0..400 {
        match log.read(offset) {
            Ok(record) => assert_eq!(&*record, content(offset)),
            Err(Error::Lost { .. }) => assert!(hit.contains(&offset)),
            Err(error) => panic!("{offset}: {error}"),
        }
    }
}

/// Stores under each other's names are found by their heads: nothing is lost by it.
#[test]
fn misnamed_stores_get_their_names_back() {
    let name = |id: u64| path(&stonelog::names::store(id));
    for log in ["closed", "unclean"] {
        for manifest in [true, false] {
            for (first, second) in [(1, 2), (1, 3), (2, 9)] {
                let disk = load(log);
                let about = format!("{log}, {first} and {second}, manifest {manifest}");
                if second == 9 {
                    disk.copy_file(name(first), name(second)).unwrap();
                    disk.remove_file(name(first)).unwrap();
                } else {
                    disk.swap_files(name(first), name(second)).unwrap();
                }
                if !manifest {
                    disk.remove_file(path("MANIFEST")).unwrap();
                }
                let before = contents(&disk);
                let plan = repair(&disk, Basis::Manifest, None).unwrap();
                assert!(plan.loss.is_nothing(), "{about}: {plan:?}");
                let records = crate::mended::check(&disk, &plan, &about);
                assert!(records.keys().copied().eq(0..70), "{about}");
                assert!(records.iter().all(|(offset, bytes)| *bytes == content(*offset)), "{about}");
                undo(&disk, &before, &about);
            }
        }
    }
}

/// An opening under `Serve` that crashes right after it gave up records at the end must not forget them: their
/// offsets would be given to new records. (Found while repairs were made: nothing but the Damaged range, which
/// was no evidence, said that they had been there.)
#[test]
fn serving_without_the_last_records_never_gives_their_offsets_away() {
    use stonelog::disk::sim::Loss;
    let mut checked = 0;
    for log in ["store-missing-active-closed", "store-cut-to-nothing-closed", "frame-crc-active-closed"] {
        for step in 1.. {
            let disk = load(log);
            disk.crash_at_mutation(step);
            let before = disk.mutations();
            let opened = options(&disk).on_damage(DamagePolicy::Serve).open("/log");
            let ended = disk.mutations() - before < step;
            for loss in [Loss::Nothing, Loss::Everything] {
                let world = disk.fork();
                world.power_loss(loss);
                let again = options(&world).on_damage(DamagePolicy::Serve).open("/log").unwrap();
                assert_eq!(again.offsets().end, 70, "{log}, crashed at mutation {step}, {loss:?}");
                assert!(matches!(again.read(60), Ok(_) | Err(Error::Damaged(_))), "{log}");
                checked += 1;
            }
            drop(opened);
            if ended {
                break;
            }
        }
        // The same once they are declared lost.
        let repaired = repaired(log);
        for step in 1.. {
            let disk = repaired.fork();
            disk.crash_at_mutation(step);
            let before = disk.mutations();
            let opened = options(&disk).open("/log");
            let ended = disk.mutations() - before < step;
            for loss in [Loss::Nothing, Loss::Everything] {
                let world = disk.fork();
                world.power_loss(loss);
                let again = open(&world);
                assert_eq!(again.offsets().end, 70, "{log}, repaired, crashed at mutation {step}, {loss:?}");
                checked += 1;
            }
            drop(opened);
            if ended {
                break;
            }
        }
    }
    assert!(checked > 50);
}

/// A directory that was named by mistake is left as it is, to the last name.
#[test]
fn a_directory_that_holds_no_log_gets_no_lock() {
    let disk = SimDisk::new(1);
    disk.write_file("/log/diary.txt", b"dear diary").unwrap();
    let refused = Session::lock(Arc::new(disk.clone()), Path::new("/log")).unwrap_err();
    assert!(matches!(&refused, Error::RepairRefused { why } if why.contains("holds no log")), "{refused}");
    assert_eq!(disk.file_names("/log"), ["diary.txt"]);
}

/// What is left of a batch behind the last whole record takes nothing with it, though nobody can tell where the log ended.
#[test]
fn an_open_loss_behind_half_a_batch_gives_up_nothing_before_it() {
    let disk = SimDisk::new(1);
    let log = crate::common::manual(&disk).open("/log").unwrap();
    crate::common::append(&log, 20);
    log.sync().unwrap();
    crate::common::append_batch(&log, 6).unwrap();
    log.sync().unwrap();
    let rest = crate::common::after(&disk, stonelog::disk::sim::Loss::Everything);
    drop(log);
    let stores = crate::common::take_apart(&rest).stores;
    let holder = stores.iter().find(|store| store.frames.iter().any(|f| f.offset == Some(20))).unwrap();
    let half = holder.frames.iter().find(|frame| frame.offset == Some(23)).unwrap();
    rest.zero(path(&holder.name), half.position..holder.end_of_frames()).unwrap();
    // A prepared store: whether records went there nobody knows.
    rest.remove_file(path(&stores.last().unwrap().name)).unwrap();
    assert_ne!(stores.last().unwrap().name, holder.name);
    // (What is left of the batch is kept where the caller says that it was acknowledged.)
    for (end, loss) in [(None, 20..20), (Some(20), 20..20), (Some(30), 23..30)] {
        let disk = rest.fork();
        let before = contents(&disk);
        let plan = repair(&disk, Basis::Manifest, end).unwrap();
        assert_eq!(plan.to_accept(), [loss]);
        crate::mended::check(&disk, &plan, &format!("{end:?}"));
        check_records(&open(&disk.fork()), 0..20);
        undo(&disk, &before, &format!("{end:?}"));
    }
    let refused = repair(&rest, Basis::Manifest, Some(22)).unwrap_err();
    assert!(
        matches!(&refused, Error::RepairRefused { why } if why.contains("inside of a batch")),
        "{refused}"
    );
}

/// A base that nothing tells is not guessed: the store before it may hold more than is the log's.
#[test]
fn a_lost_base_gives_no_record_another_offset() {
    let disk = SimDisk::new(1);
    let log = open(&disk);
    crate::common::append(&log, 25);
    log.truncate_back(7).unwrap();
    for offset in 7..25 {
        assert_eq!(log.append(content(offset)).unwrap(), offset);
    }
    log.close().unwrap();
    let stores = crate::common::take_apart(&disk).stores;
    let holder = stores.iter().find(|store| store.frames.iter().any(|f| f.offset == Some(7))).unwrap();
    assert_ne!(holder.name, stores[0].name);
    disk.zero(path(&holder.name), 512..1024).unwrap();
    disk.remove_file(path("MANIFEST")).unwrap();
    let before = contents(&disk);
    let plan = repair(&disk, Basis::Manifest, None).unwrap();
    assert!(plan.unknown.iter().any(|line| line.contains("whose offsets nothing tells")), "{plan:?}");
    for (offset, bytes) in crate::mended::check(&disk, &plan, "a base that is gone") {
        assert_eq!(bytes, content(offset), "record {offset}");
    }
    undo(&disk, &before, "a base that is gone");
}
