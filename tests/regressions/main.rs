//! Bugs that an attack on the log found, each held down by a small test with its postmortem: what
//! went wrong, why, which promise of docs/GUARANTEES.md it broke, and how it was fixed.
//!
//! Where a lost wake-up comes back, its test does not end: nothing here measures time.
#![allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "tests: a failed expectation is how they speak"
)]

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::Duration;

use stonelog::disk::Background;
use stonelog::disk::sim::{Fault, FaultError, Loss, Operation, SimDisk};
use stonelog::frame::{PayloadChecksum, Seed, decode_header, encode_header};
use stonelog::manifest::{self, Born, Close, Edit, Reading, Seal, State};
use stonelog::names::LARGEST_END;
use stonelog::{
    DamagePolicy, Durability, Error, Log, LogBuilder, MAX_OFFSET, Options, ReadMode, SegmentInfo, Ticket,
};

#[path = "../support/gated.rs"]
mod gated;

use gated::Gated;

#[path = "../fuzz/src/lib.rs"]
#[allow(unused, reason = "shared with the fuzz targets, of which this binary forges manifests")]
mod fuzz;

mod forged;
mod panics;

const DIRECTORY: &str = "/log";
const FIRST_STORE: &str = "0000000000000001.store";

fn options(disk: &SimDisk) -> Options {
    Options::new().disk(Arc::new(disk.clone()))
}

fn open(disk: &SimDisk) -> Log {
    options(disk).open(DIRECTORY).unwrap_or_else(|error| panic!("does not open: {error}"))
}

fn path(name: &str) -> String {
    format!("{DIRECTORY}/{name}")
}

/// The process dies with the log open.
fn kill(disk: &SimDisk, log: Log) {
    std::mem::forget(log);
    disk.process_crash();
}

fn append(log: &Log, what: &str, offsets: Range<u64>) {
    for offset in offsets {
        assert_eq!(log.append(format!("{what}{offset}")).unwrap(), offset);
    }
}

fn check(log: &Log, what: &str, offsets: Range<u64>) {
    for offset in offsets {
        assert_eq!(&*log.read(offset).unwrap(), format!("{what}{offset}").as_bytes());
    }
}

/// A log with one record, and a second that background work has not committed yet, as seeds have it.
fn with_one_under_way(readers_see_it: bool) -> (SimDisk, Log, Ticket) {
    let mut worlds = (0..64).map(|seed| {
        let disk = SimDisk::new(seed);
        let log = options(&disk).readers_see_appended(readers_see_it).open(DIRECTORY).unwrap();
        log.append("acknowledged").unwrap();
        let ticket = log.submit("under way").unwrap();
        (disk, log, ticket)
    });
    worlds.find(|(_, _, ticket)| !ticket.is_durable()).unwrap()
}

fn serve(disk: &SimDisk) -> Log {
    options(disk).segment_bytes(4096).on_damage(DamagePolicy::Serve).open(DIRECTORY).unwrap()
}

/// A log of small segments that was closed; then one of its stores went. Gives the segments.
fn with_a_store_gone(disk: &SimDisk, records: u64, gone: usize) -> Vec<SegmentInfo> {
    let log = serve(disk);
    append(&log, &"r".repeat(500), 0..records);
    log.close().unwrap();
    disk.remove_file(path(&format!("{:016x}.store", log.segments()[gone].id))).unwrap();
    log.segments()
}

/// A reader went on past a truncation's cut and gave records that were truncated away: its cursor
/// followed the old frames, which stay in the file (G4). A cursor now ends where its segment does.
#[test]
fn a_reader_ends_at_the_cut_of_a_truncation() {
    // On a real disk: only there are maps.
    let directory = tempfile::tempdir().unwrap();
    let log = Options::new().open(directory.path().join("log")).unwrap();
    append(&log, "old", 0..10);
    log.truncate_back(5).unwrap();
    append(&log, "new", 5..10);
    let listed: Vec<Vec<u8>> = log.records(..).map(|record| record.unwrap().to_vec()).collect();
    let expected = (0..10).map(|at| format!("{}{at}", if at < 5 { "old" } else { "new" }).into_bytes());
    assert_eq!(listed, expected.collect::<Vec<_>>());
}

/// Records were refused as damaged since others, truncated away, once had their offsets: the
/// manifest kept the ranges of dropped segments (G1). A Drop and a Create now forget them.
#[test]
fn damage_that_was_truncated_away_is_forgotten() {
    let disk = SimDisk::new(1);
    let segments = with_a_store_gone(&disk, 40, 2);
    let log = serve(&disk);
    assert!(matches!(log.read(segments[2].base), Err(Error::Damaged(_))));
    let cut = segments[1].base + 1;
    log.truncate_back(cut).unwrap();
    append(&log, "again", cut..40);
    log.close().unwrap();
    drop(log);
    check(&serve(&disk), "again", cut..40);
}

/// A close that failed let go of the lock and left the gate open, so that two handles wrote and what
/// one acknowledged was gone (G1). Closing now shuts the gate first, and its outcome is remembered.
#[test]
fn a_log_whose_close_failed_takes_nothing_any_more() {
    let (disk, log, _ticket) = with_one_under_way(false);
    disk.inject(Fault::write_error(1));
    assert!(log.close().is_err());
    disk.clear_faults();
    assert!(log.close().is_err(), "closing again must not claim success");
    let second = open(&disk);
    assert!(log.append("without the lock").is_err());
    let next = second.append("with it").unwrap();
    drop((log, second));
    assert_eq!(&*open(&disk).read(next).unwrap(), b"with it");
}

/// A stray file with the name of the highest store used up the ids: the log could not be opened
/// again (G1, G9). Names and edits with ids above 2^62 are now taken for somebody else's.
#[test]
fn a_stray_store_with_the_highest_id_uses_up_no_ids() {
    let disk = SimDisk::new(1);
    let log = options(&disk).segment_bytes(4096).open(DIRECTORY).unwrap();
    append(&log, "r", 0..10);
    kill(&disk, log);
    disk.write_file(path("fffffffffffffffe.store"), b"").unwrap();
    let log = options(&disk).segment_bytes(4096).open(DIRECTORY).unwrap();
    append(&log, "r", 10..400);
    log.close().unwrap();
    drop(log);
    check(&open(&disk), "r", 0..400);
}

/// Logs did not open on a full disk: of a small one recovery copied all, and space for what was not
/// durable was kept as best effort (G10). It now plans sparingly there, and nothing is accepted
/// beyond the space that a recovery may take.
#[test]
fn a_log_opens_on_a_full_disk() {
    for (synced, exposed) in [(10, 0), (100, 0), (400, 0), (1000, 0), (17_000, 12_000)] {
        let disk = SimDisk::new(1);
        let log = options(&disk).durability(Durability::Manual).open(DIRECTORY).unwrap();
        for number in 0..synced + exposed {
            log.append([1; 1000]).unwrap();
            if number < synced && number % 50 == 0 || number + 1 == synced {
                log.sync().unwrap();
            }
        }
        disk.set_capacity(Some(disk.used_bytes()));
        kill(&disk, log);
        assert!(open(&disk).offsets().end >= synced);
    }
}

/// A crash inside a recovery on a full disk left a half-made copy that took the space of the next
/// one: the log stayed shut (G7, G10). Leftover copies now give their space first.
#[test]
fn an_interrupted_recovery_does_not_fill_the_disk() {
    let base = SimDisk::new(1);
    let log = open(&base);
    for number in 0..50 {
        log.append(vec![1; if number < 30 { 1000 } else { 1 }]).unwrap();
    }
    base.set_capacity(Some(base.used_bytes()));
    kill(&base, log);
    let (probe, before) = (base.fork(), base.mutations());
    assert_eq!(open(&probe).offsets(), 0..50);
    for step in 1..=probe.mutations() - before {
        let disk = base.fork();
        disk.crash_at_mutation(step);
        std::mem::forget(options(&disk).open(DIRECTORY));
        disk.process_crash();
        assert_eq!(open(&disk).offsets(), 0..50, "after a crash at step {step}");
    }
}

/// A damaged record could not be truncated away: the cut's place was read from that very record
/// (G4). It is now the place behind the record before.
#[test]
fn the_back_can_be_truncated_at_a_damaged_record() {
    let disk = SimDisk::new(1);
    let log = open(&disk);
    append(&log, "record", 0..10);
    log.close().unwrap();
    drop(log);
    let bytes = disk.read_file(path(FIRST_STORE)).unwrap();
    let at = bytes.windows(7).position(|window| window == b"record5").unwrap();
    disk.flip_bit(path(FIRST_STORE), at as u64, 0).unwrap();
    let log = open(&disk);
    assert!(matches!(log.read(5), Err(Error::Damaged(_))));
    log.truncate_back(5).unwrap();
    append(&log, "record", 5..7);
    check(&log, "record", 0..7);
}

/// A failed write took back a record that a reader of appended ones had counted on; the reader then
/// passed over the next record at that offset (G2). A cut now sends readers to look again.
#[test]
fn a_reader_skips_nothing_after_a_failed_write() {
    let (disk, log, ticket) = with_one_under_way(true);
    let mut reader = log.reader(0);
    disk.inject(Fault::write_error(1));
    assert!(reader.next().is_err(), "it has what was appended written, and that failed");
    disk.clear_faults();
    assert_eq!(reader.next().unwrap().unwrap().bytes(), b"acknowledged");
    assert!(reader.next().unwrap().is_none());
    assert!(ticket.wait().is_err());
    assert_eq!(log.append("instead").unwrap(), 1);
    assert_eq!(reader.next().unwrap().unwrap().bytes(), b"instead");
}

/// Serving in spite of a missing sealed store doubted the Close too, and what was appended then was
/// gone after the next one (G1, G5). Damage to sealed segments no longer touches the active one.
#[test]
fn serving_after_a_clean_close_spares_the_active_segment() {
    let disk = SimDisk::new(1);
    let gone = with_a_store_gone(&disk, 20, 1).remove(1);
    let damaged = gone.base..gone.end;
    for next in 20..23 {
        let log = serve(&disk);
        assert_eq!(log.recovery().damaged, std::slice::from_ref(&damaged));
        assert_eq!(log.offsets(), 0..next);
        let unreadable = (0..next).filter(|offset| log.read(*offset).is_err());
        assert!(unreadable.eq(damaged.clone()));
        append(&log, "after", next..next + 1);
        check(&log, "after", 20..next + 1);
        log.close().unwrap();
    }
}

/// With a front beyond what was left of the store, the log took records, then a kill made it refuse
/// to open: the gap before the front was called damage (G5). What was truncated away is no gap now.
#[test]
fn a_front_beyond_what_is_there_survives_a_kill() {
    for seed in 0..20 {
        let disk = SimDisk::new(seed);
        let log = open(&disk);
        append(&log, &"r".repeat(100), 0..3);
        log.truncate_front(3).unwrap();
        kill(&disk, log);
        disk.truncate(path(FIRST_STORE), 1024 + 150).unwrap();
        let log = open(&disk);
        append(&log, "acknowledged", 3..5);
        kill(&disk, log);
        check(&open(&disk), "acknowledged", 3..5);
    }
}

/// A front near the end of u64 left appends no offsets, and the sums overflowed (G9). Offsets beyond
/// 2^62 are now refused, before anything changes.
#[test]
fn a_front_beyond_the_largest_offset_is_refused() {
    let disk = SimDisk::new(1);
    let log = open(&disk);
    append(&log, "r", 0..3);
    for offset in [MAX_OFFSET + 1, u64::MAX - 1, u64::MAX] {
        assert!(matches!(log.truncate_front(offset), Err(Error::InvalidOption { .. })));
    }
    append(&log, "r", 3..5);
    log.truncate_front(MAX_OFFSET).unwrap();
    assert_eq!(log.append("last").unwrap(), MAX_OFFSET);
}

/// A reader opened a log whose manifest had lost the Create of a store with acknowledged records, and served
/// what was before it as if that were all: only opening for writing looked at stores above the last id (G5,
/// "damage of the manifest is never served"). The golden directories showed it. Now both ask the same.
#[test]
fn a_reader_refuses_a_manifest_that_lacks_an_edit() {
    let disk = SimDisk::new(1);
    let small = || options(&disk).segment_bytes(4096);
    let log = small().open(DIRECTORY).unwrap();
    append(&log, &"r".repeat(100), 0..40);
    log.close().unwrap();
    let old = disk.read_file(path("MANIFEST")).unwrap();
    let log = small().open(DIRECTORY).unwrap();
    append(&log, &"r".repeat(100), 40..160);
    log.close().unwrap();
    disk.write_file(path("MANIFEST"), old).unwrap();
    for policy in [DamagePolicy::Refuse, DamagePolicy::Serve] {
        let refused = |outcome: stonelog::Result<Log>| match outcome {
            Err(Error::Damaged(damage)) => assert!(damage.file.ends_with("MANIFEST"), "{damage}"),
            other => panic!("under {policy:?}: {other:?}"),
        };
        refused(small().on_damage(policy).open_read_only(DIRECTORY));
        refused(small().on_damage(policy).open(DIRECTORY));
    }
}

/// G11. An opening removed a store that the MANIFEST does not name and that holds no frame of the segment in
/// its name, as one that was prepared and never used. It may be another segment's, put under a free name by
/// somebody who found it: the one copy of acknowledged records. Its head tells, and it goes to quarantine/.
#[test]
fn a_store_under_a_free_name_is_kept() {
    const STRAY: [&str; 2] = ["00000000000000ff.store", "0000000000000001.store"];
    let disk = SimDisk::new(1);
    let small = || options(&disk).segment_bytes(4096);
    let log = small().open(DIRECTORY).unwrap();
    append(&log, "r", 0..400);
    log.truncate_front(200).unwrap();
    log.close().unwrap();
    let state = match manifest::read(&disk, Path::new(DIRECTORY)).unwrap() {
        Reading::Whole { state, .. } => state,
        reading => panic!("{reading:?}"),
    };
    // (The names of a store that never was and of one that is gone.)
    let second = *state.segments.keys().nth(1).unwrap();
    let store = disk.read_file(path(&format!("{second:016x}.store"))).unwrap();
    for name in STRAY {
        disk.write_file(path(name), store.clone()).unwrap();
    }
    let log = small().open(DIRECTORY).unwrap();
    let quarantined: Vec<String> = log.recovery().quarantined.clone();
    assert_eq!(quarantined, [STRAY[1], STRAY[0]], "{:?}", log.recovery());
    for name in STRAY {
        assert_eq!(disk.read_file(path(&format!("quarantine/{name}"))).unwrap(), store, "{name}");
    }
    check(&log, "r", 200..400);
}

/// A closed log of sealed segments, of which the first has no index.
fn with_an_index_gone() -> SimDisk {
    let disk = SimDisk::new(1);
    let log = options(&disk).segment_bytes(16 << 10).open(DIRECTORY).unwrap();
    for offset in 0..50u64 {
        log.append([b'a' + offset as u8; 700]).unwrap();
    }
    log.close().unwrap();
    disk.remove_file(path("0000000000000001.index")).unwrap();
    disk
}

/// G5. While an index was rebuilt, what the disk could not read counted as no frame: one failed read, and records that
/// are there read as damaged, by an index that was kept, and written. Random worlds found it, once in 24,000. A
/// scan that could not read all says so; its index is kept for what it has, and for the rest the disk is asked again.
#[test]
fn a_read_that_fails_while_an_index_is_rebuilt_is_no_damage() {
    let is = |log: &Log, offset: u64| match log.read(offset) {
        Ok(record) => {
            assert_eq!(&*record, [b'a' + offset as u8; 700], "{offset}");
            true
        }
        Err(Error::Io { .. }) => false,
        Err(error) => panic!("{offset}: {error}"),
    };
    let mut failed = 0;
    for nth in 1..8 {
        let disk = with_an_index_gone();
        let log = options(&disk).read_mode(ReadMode::Buffered).open(DIRECTORY).unwrap();
        disk.inject(Fault::Error { operation: Operation::Read, nth, error: FaultError::Io });
        failed += (0..50).filter(|offset| !is(&log, *offset)).count();
        disk.clear_faults();
        assert!((0..50).all(|offset| is(&log, offset)), "read {nth} failed, once");
    }
    assert!(failed > 3, "{failed}");
    // A page that cannot be read: its records cannot; the others can, and no index is written that lacks one.
    let disk = with_an_index_gone();
    disk.set_unreadable(path(FIRST_STORE), 8192..12288).unwrap();
    let log = options(&disk).read_mode(ReadMode::Buffered).open(DIRECTORY).unwrap();
    let unread: Vec<u64> = (0..50).filter(|offset| !is(&log, *offset)).collect();
    assert_eq!(unread, (9..16).collect::<Vec<u64>>());
    assert!(disk.read_file(path("0000000000000001.index")).is_none());
}

fn built_up_to(end: u64) -> SimDisk {
    let disk = SimDisk::new(1);
    let mut builder = LogBuilder::begin(&options(&disk), DIRECTORY, MAX_OFFSET).unwrap();
    builder.push(end - 1, true, b"last").unwrap();
    builder.finish(0).unwrap();
    disk
}

/// G1. `LogBuilder` makes a log that ends where logs end; what was appended behind that was acknowledged, and refused by
/// the next opening. No segment begins so late any more that its records could lie behind that end.
#[test]
fn what_is_appended_at_the_largest_end_is_there_after_a_close() {
    let disk = built_up_to(LARGEST_END);
    let log = options(&disk).open(DIRECTORY).unwrap();
    if let Ok(offset) = log.append(b"acknowledged") {
        assert!(log.durable_end() > offset);
        log.close().unwrap();
        drop(log);
        let log = options(&disk).open(DIRECTORY).unwrap();
        assert_eq!(&*log.read(offset).unwrap(), b"acknowledged");
    }
}

#[test]
fn what_is_appended_at_the_largest_end_is_there_after_a_crash() {
    let disk = built_up_to(LARGEST_END);
    let log = options(&disk).open(DIRECTORY).unwrap();
    let mut last = None;
    while log.offsets().end < LARGEST_END + 3 {
        match log.append(b"acknowledged") {
            Ok(offset) => last = Some(offset),
            Err(_) => break,
        }
    }
    disk.power_loss(Loss::Everything);
    drop(log);
    let log = options(&disk).open(DIRECTORY).unwrap();
    if let Some(offset) = last {
        assert_eq!(&*log.read(offset).unwrap(), b"acknowledged");
    }
}
