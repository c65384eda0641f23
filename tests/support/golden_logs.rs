//! The logs that golden directories are made of: one of each kind that an opening can meet.
//!
//! It owns what is in them, and nothing of what must be said about them; how they are broken is in `golden_damage`. They are made when blessed and never
//! otherwise: what counts afterwards is the committed bytes.
//!
//! Small on purpose: segments of 4 KiB, few records, a MANIFEST without room where nothing depends on it.

use stonelog::disk::sim::{Loss, SimDisk};
use stonelog::manifest::Edit;
use stonelog::recovery::StoreFindings;
use stonelog::store::{BASE_POSITION, FIRST_FRAME, Origin};
use stonelog::{Log, names};

use crate::common::{
    DIRECTORY, FrameAt, StoreAt, after, append, append_batch, manual, open, options, path, serve, stores,
    take_apart,
};
use crate::forge::{self, MANIFEST, findings, manifest_frames, rewrite, rewrite_raw, without_room};
use crate::golden_damage::*;

/// A golden log's name, and who makes it.
type Maker = (&'static str, fn() -> SimDisk);

/// Every golden log, by name.
pub fn all() -> Vec<(&'static str, SimDisk)> {
    let makers: &[Maker] = &[
        // Healthy.
        ("unfinished-beginning", unfinished_beginning),
        ("begun", begun),
        ("begun-closed", begun_closed),
        ("closed", closed_whole),
        ("closed-truncated", truncated),
        ("closed-many-small", many_small),
        ("unclean", unclean),
        ("unclean-with-mark", unclean_with_mark),
        ("unclean-batches", unclean_batches),
        // Torn.
        ("torn-frame", torn_frame),
        ("torn-batch", torn_batch),
        ("torn-garbage", torn_garbage),
        ("torn-garbage-to-quarantine", torn_in_second),
        ("several-unsealed", several_unsealed),
        ("recovery-crashed", recovery_crashed),
        ("recovery-crashed-copy-attests", leftover_copy_attests),
        ("born-copy", born_copy),
        ("born-copy-alone", born_copy_alone),
        ("born-copy-damaged", || {
            let disk = born_copy_alone();
            let born = take_apart(&disk).stores.iter().position(|store| store.born.is_some()).unwrap();
            damaged(disk, born, 3, Blow::Payload)
        }),
        ("manifest-torn", manifest_torn),
        // Standing.
        ("damaged-standing", damaged_standing),
        // The bytes came back (a cable, a backup); what was declared stands until a repair says otherwise.
        ("damaged-standing-healed", || {
            let disk = damaged_standing();
            let name = store_at(&unclean(), 2).name;
            let frame = store_at(&unclean(), 2).frames[3].clone();
            disk.flip_bit(path(&name), frame.position + 18, 2).unwrap();
            disk
        }),
        ("lost-range", lost_range),
        ("quarantine", quarantine),
        ("stray-files", stray_files),
        ("unnamed-leftovers", unnamed_leftovers),
        // Frames.
        ("frame-crc-sealed", || damaged(closed(), 0, 7, Blow::Payload)),
        ("frame-crc-active-closed", || damaged(closed(), 2, 3, Blow::Payload)),
        ("frame-crc-unclean", || damaged(unclean(), 2, 3, Blow::Payload)),
        ("frame-crc-last-unproven", frame_crc_last),
        ("frame-header-unclean", || damaged(unclean(), 2, 3, Blow::Header)),
        ("frame-length-beyond-end", || damaged(unclean(), 2, 3, Blow::Length)),
        ("frame-ordinal", frame_ordinal),
        ("frame-zeros", || damaged(unclean(), 2, 3, Blow::Zeros)),
        ("damaged-at-the-end", damaged_at_the_end),
        ("repaired", || repaired(zeroed(closed(), 0, 1536..2048))),
        ("sector-zeroed-sealed", || zeroed(closed(), 0, 1536..2048)),
        ("sector-zeroed-unclean", || zeroed(unclean(), 2, 1024..1536)),
        ("page-zeroed", page_zeroed),
        // Stores.
        ("store-missing-sealed", || missing(closed(), 0)),
        ("store-missing-active-closed", || missing(closed(), 2)),
        ("store-missing-active-unclean", || missing(unclean(), 2)),
        ("store-missing-between-unsealed", missing_between),
        ("store-short-sealed", store_short),
        ("store-short-active-closed", store_short_active),
        ("store-cut-to-nothing", store_cut_to_nothing),
        ("store-cut-to-nothing-closed", || {
            let disk = closed();
            disk.truncate(path(&store_at(&disk, 2).name), 0).unwrap();
            disk
        }),
        ("store-of-another-log", foreign_store),
        ("stores-swapped", stores_swapped),
        ("head-zeroed-sealed", || zeroed(closed(), 0, 0..512)),
        ("head-zeroed-unclean", || zeroed(unclean(), 2, 0..512)),
        ("store-of-a-later-version", || {
            let disk = unclean();
            forge::head_of_version(&disk, id(&disk, 2), 2);
            disk
        }),
        ("seal-names-too-many", seal_names_too_many),
        ("no-store-for-proven-records", no_store),
        ("no-store-at-all", no_store_at_all),
        // Bases.
        ("base-lost-recoverable", || zeroed(unclean(), 2, BASE_POSITION..FIRST_FRAME)),
        ("base-lost-unrecoverable", base_lost_unrecoverable),
        ("base-contradicts", base_contradicts),
        ("base-below-predecessor", base_below),
        // The manifest.
        ("manifest-head", || {
            let disk = closed();
            disk.flip_bit(path(MANIFEST), 20, 3).unwrap();
            disk
        }),
        ("manifest-short", || {
            let disk = closed();
            disk.truncate(path(MANIFEST), 1000).unwrap();
            disk
        }),
        ("manifest-middle-edit", manifest_middle),
        ("manifest-first-batch", || {
            let disk = unclean();
            rewrite(&disk, |_| {});
            disk.flip_bit(path(MANIFEST), 512 + 20, 0).unwrap();
            disk
        }),
        ("manifest-missing", || {
            let disk = closed();
            disk.remove_file(path(MANIFEST)).unwrap();
            disk
        }),
        ("manifest-later-version", || {
            let disk = closed();
            let edits: Vec<_> = forge::edits(&disk).iter().map(Edit::encode).collect();
            rewrite_raw(&disk, 2, &edits);
            disk
        }),
        ("manifest-lost-create", lost_create),
        ("manifest-unknown-edit", || {
            let disk = closed();
            let mut edits: Vec<_> = forge::edits(&disk).iter().map(Edit::encode).collect();
            edits.push(vec![99, 0, 1, 2, 3]);
            rewrite_raw(&disk, 1, &edits);
            disk
        }),
        ("manifest-contradicts-itself", || {
            let disk = closed();
            rewrite(&disk, |edits| edits.push(Edit::Drop { id: 1 << 40, quarantine: false }));
            disk
        }),
        ("manifest-bytes-behind-close", || {
            let disk = closed_whole();
            let end = manifest_frames(&disk).last().unwrap().1;
            disk.overwrite(path(MANIFEST), end, b"no edit at all").unwrap();
            disk
        }),
        ("bytes-behind-close", || {
            let disk = closed();
            let store = store_at(&disk, 2);
            disk.overwrite(path(&store.name), store.end_of_frames(), b"no frame at all, but bytes").unwrap();
            disk
        }),
        // Indexes.
        ("index-missing", || {
            let disk = closed();
            disk.remove_file(path(&names::index(id(&disk, 0)))).unwrap();
            disk
        }),
        ("index-wrong", || {
            let disk = closed();
            disk.flip_bit(path(&names::index(id(&disk, 0))), 70, 1).unwrap();
            disk
        }),
        ("index-of-another-segment", || {
            let disk = closed();
            let (one, other) = (names::index(id(&disk, 0)), names::index(id(&disk, 1)));
            disk.swap_files(path(&one), path(&other)).unwrap();
            disk
        }),
        ("index-of-another-count", index_of_another_count),
    ];
    let made = |(name, make): &Maker| {
        let disk = make();
        without_reserved_space(&disk);
        if *name != "closed" {
            without_room(&disk);
        }
        (*name, disk)
    };
    makers.iter().map(made).collect()
}

/// Cuts off sectors of zeros that were reserved ahead: they are nothing but bytes to keep. How long a
/// store is says nothing until it is sealed, and a seal's length ends in a frame.
fn without_reserved_space(disk: &SimDisk) {
    for store in stores(disk) {
        let bytes = disk.read_file(path(&store)).unwrap();
        let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last as u64 + 1);
        let end = end.next_multiple_of(512).max(FIRST_FRAME);
        if end < bytes.len() as u64 {
            disk.truncate(path(&store), end).unwrap();
        }
    }
}

// ---- healthy and torn --------------------------------------------------------------------------

fn unfinished_beginning() -> SimDisk {
    let disk = SimDisk::new(1);
    disk.write_file(path(names::LOCK), b"1000").unwrap();
    disk
}

pub fn begun() -> SimDisk {
    let disk = SimDisk::new(2);
    let log = open(&disk);
    let begun = after(&disk, Loss::Nothing);
    drop(log);
    begun
}

fn begun_closed() -> SimDisk {
    let disk = SimDisk::new(2);
    open(&disk).close().unwrap();
    after(&disk, Loss::Everything)
}

/// 70 records in three segments, the last one active.
pub fn filled(seed: u64) -> (SimDisk, Log) {
    let disk = SimDisk::new(seed);
    let log = open(&disk);
    append(&log, 70);
    (disk, log)
}

fn closed_whole() -> SimDisk {
    let (disk, log) = filled(3);
    log.put_meta("vote", b"seven").unwrap();
    log.close().unwrap();
    after(&disk, Loss::Everything)
}

pub fn closed() -> SimDisk {
    let disk = closed_whole();
    without_room(&disk);
    disk
}

fn truncated() -> SimDisk {
    let disk = SimDisk::new(4);
    let log = open(&disk);
    for _ in 0..30 {
        log.append([b'f'; 112]).unwrap();
    }
    append(&log, 40);
    log.put_meta("vote", b"seven").unwrap();
    log.put_meta("gone", b"x").unwrap();
    log.remove_meta("gone").unwrap();
    log.truncate_front(5).unwrap();
    log.truncate_back(log.offsets().end - 4).unwrap();
    append(&log, 3);
    log.close().unwrap();
    after(&disk, Loss::Everything)
}

/// More records in a segment than one block of an index holds, of more than one size.
fn many_small() -> SimDisk {
    let disk = SimDisk::new(15);
    let log = open(&disk);
    for number in 0..150_u8 {
        log.append(vec![number; usize::from(number % 14)]).unwrap();
    }
    log.close().unwrap();
    let disk = after(&disk, Loss::Everything);
    assert!(take_apart(&disk).stores.iter().any(|store| store.seal.is_some_and(|end| end > 64)));
    disk
}

pub fn unclean() -> SimDisk {
    let (disk, log) = filled(3);
    let unclean = after(&disk, Loss::Nothing);
    drop(log);
    without_room(&unclean);
    unclean
}

fn unclean_with_mark() -> SimDisk {
    let disk = SimDisk::new(5);
    let log = open(&disk);
    append(&log, 9);
    let unclean = after(&disk, Loss::Everything);
    drop(log);
    unclean
}

/// Groups of several records and batches, so that watermarks lag.
fn unclean_batches() -> SimDisk {
    let disk = SimDisk::new(6);
    let log = manual(&disk).open(DIRECTORY).unwrap();
    for _ in 0..4 {
        append(&log, 3);
        append_batch(&log, 4).unwrap();
        log.sync().unwrap();
    }
    append_batch(&log, 3).unwrap();
    log.sync().unwrap();
    let unclean = after(&disk, Loss::Nothing);
    std::mem::forget(log);
    unclean
}

pub fn id(disk: &SimDisk, nth: usize) -> u64 {
    store_at(disk, nth).id
}

pub fn store_at(disk: &SimDisk, nth: usize) -> StoreAt {
    take_apart(disk).stores.remove(nth)
}

pub fn last_record(store: &StoreAt) -> FrameAt {
    store.frames.iter().rfind(|frame| frame.offset.is_some()).unwrap().clone()
}

fn torn_frame() -> SimDisk {
    let disk = unclean();
    let store = store_at(&disk, 2);
    let last = last_record(&store);
    disk.zero(path(&store.name), last.position + 20..last.padded_end).unwrap();
    disk
}

fn torn_batch() -> SimDisk {
    let disk = unclean_batches();
    let store = store_at(&disk, 1);
    let last = last_record(&store);
    disk.zero(path(&store.name), last.position..last.padded_end).unwrap();
    disk
}

fn torn_garbage() -> SimDisk {
    let disk = unclean();
    let store = store_at(&disk, 2);
    let noise: Vec<u8> = (0..200_u32).map(|n| (n * 151 + 7) as u8).collect();
    disk.overwrite(path(&store.name), store.end_of_frames() + 16, noise).unwrap();
    disk
}

/// The first frames of a segment, half written: nothing of it is kept, so that the store goes to quarantine.
fn torn_in_second() -> SimDisk {
    let disk = SimDisk::new(7);
    let log = open(&disk);
    append(&log, 8);
    let unclean = after(&disk, Loss::Nothing);
    drop(log);
    let prepared = store_at(&unclean, 1);
    assert!(prepared.frames.is_empty());
    unclean.overwrite(path(&prepared.name), FIRST_FRAME, b"half a frame, and no more of it").unwrap();
    unclean
}

/// A crash inside a sync, behind which several segments were written and none sealed.
pub fn several_unsealed() -> SimDisk {
    for step in 1..40 {
        let disk = SimDisk::new(8);
        let log = manual(&disk).open(DIRECTORY).unwrap();
        append(&log, 10);
        log.sync().unwrap();
        append(&log, 70);
        disk.crash_at_mutation(step);
        let _ = log.sync();
        let world = after(&disk, Loss::Everything);
        std::mem::forget(log);
        let unsealed =
            take_apart(&world).stores.into_iter().filter(|s| s.seal.is_none() && !s.frames.is_empty());
        if unsealed.count() >= 3 {
            return world;
        }
    }
    panic!("no crash leaves three unsealed segments");
}

pub fn recovery_crashed() -> SimDisk {
    crash_recovery_of(unclean)
}

/// The copy that an interrupted recovery left says what was proven, and the frames that said so are gone since.
fn leftover_copy_attests() -> SimDisk {
    let disk = crash_recovery_of(torn_garbage);
    let store = store_at(&disk, 2);
    let records: Vec<_> = store.frames.iter().filter(|frame| frame.offset.is_some()).collect();
    let last_two = &records[records.len() - 2..];
    disk.zero(path(&store.name), last_two[0].position..last_two[1].padded_end).unwrap();
    disk
}

fn crash_recovery_of(crashed: fn() -> SimDisk) -> SimDisk {
    for step in (1..40).rev() {
        let world = crashed();
        world.crash_at_mutation(step);
        let opened = options(&world).open(DIRECTORY);
        if !world.has_crashed() {
            continue;
        }
        world.power_loss(Loss::Everything);
        drop(opened);
        let copy = |head: Option<stonelog::store::Head>| head.is_some_and(|head| head.origin == Origin::Copy);
        let left =
            findings(&world).unnamed.into_iter().any(|u| copy(u.head) && u.has_frames && u.base.is_some());
        if left {
            return world;
        }
    }
    panic!("no crash leaves a copy");
}

/// Opened after a crash, and crashed again at once: what the copy was born with proves how far it is durable.
fn born_copy_alone() -> SimDisk {
    let disk = unclean();
    let log = open(&disk);
    let again = after(&disk, Loss::Nothing);
    drop(log);
    again
}

/// The same, with records behind.
pub fn born_copy() -> SimDisk {
    let disk = unclean();
    let log = open(&disk);
    append(&log, 4);
    let again = after(&disk, Loss::Nothing);
    drop(log);
    let born = |s: &StoreFindings| s.head().is_some_and(|head| head.origin == Origin::Copy);
    assert!(findings(&again).segments.iter().any(|s| s.state.born.is_some() && born(&s.store)));
    again
}

pub fn manifest_torn() -> SimDisk {
    let (disk, log) = filled(9);
    log.put_meta("vote", b"seven").unwrap();
    log.put_meta("vote", b"eight").unwrap();
    let disk = after(&disk, Loss::Nothing);
    drop(log);
    let last = *manifest_frames(&disk).last().unwrap();
    disk.zero(path(MANIFEST), last.0 + 8..last.1).unwrap();
    disk
}

// ---- standing ----------------------------------------------------------------------------------

fn damaged_standing() -> SimDisk {
    let disk = damaged(unclean(), 2, 3, Blow::Payload);
    let log = serve(&disk).unwrap();
    log.append(b"goes on").unwrap();
    log.close().unwrap();
    after(&disk, Loss::Everything)
}

fn lost_range() -> SimDisk {
    let disk = damaged_standing();
    rewrite(&disk, |edits| {
        let damaged = edits.iter().find_map(|edit| match edit {
            Edit::Damaged { offsets } => Some(offsets.clone()),
            _ => None,
        });
        edits.insert(edits.len() - 1, Edit::Lost { offsets: damaged.unwrap() });
    });
    disk
}

fn quarantine() -> SimDisk {
    let disk = torn_in_second();
    let log = open(&disk);
    assert!(!log.recovery().quarantined.is_empty(), "{}", log.recovery());
    append(&log, 2);
    log.close().unwrap();
    after(&disk, Loss::Everything)
}

fn stray_files() -> SimDisk {
    let disk = closed();
    disk.write_file(path("notes.txt"), b"an operator was here").unwrap();
    disk.write_file(path("1.store"), b"no name of Stonelog's").unwrap();
    disk.write_file(path("backup/MANIFEST"), b"neither").unwrap();
    disk
}

/// A drop and a preparation that did not finish, and indexes that were being written.
fn unnamed_leftovers() -> SimDisk {
    let (disk, log) = filled(10);
    let old = disk.fork();
    let first = names::store(id(&after(&old, Loss::Everything), 0));
    let bytes = disk.read_file(path(&first)).unwrap();
    log.truncate_front(40).unwrap();
    log.close().unwrap();
    let disk = after(&disk, Loss::Nothing);
    assert!(!stores(&disk).contains(&first), "{first} is still there");
    disk.write_file(path(&first), bytes).unwrap();
    let index = first.replace("store", "index");
    disk.write_file(path(&index), b"of a segment that is no more").unwrap();
    disk.write_file(path(&format!("{index}.tmp")), b"half").unwrap();
    let last = names::id_of_store(stores(&disk).last().unwrap()).unwrap();
    disk.write_file(path(&names::store(last + 1)), vec![0; 4096]).unwrap();
    disk.write_file(path("MANIFEST.next"), b"half a manifest").unwrap();
    disk
}
