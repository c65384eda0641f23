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

#[path = "support/gated.rs"]
mod gated;

use gated::Gated;

#[path = "fuzz/src/lib.rs"]
#[allow(unused, reason = "shared with the fuzz targets, of which this binary forges manifests")]
mod fuzz;

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

/// A `sync` beside `truncate_back` never returned: handed the lead, it met the quiet phase, slept again,
/// and nobody woke it (G1: what is durable must also be said). Its end now hands the lead over.
#[test]
fn who_waits_through_a_quiet_phase_is_woken() {
    // Who is faster after the hand-over is chance, hence the rounds.
    for _ in 0..10 {
        let (disk, log) = Gated::open(Background::Threads, Durability::Manual);
        append(&log, "r", 0..10);
        let (leads, release_leader) = disk.hold(FIRST_STORE);
        let (one, other) = (log.clone(), log.clone());
        let truncating = thread::spawn(move || one.truncate_back(5));
        leads.recv().unwrap();
        let syncing = thread::spawn(move || other.sync());
        // Time to fall asleep, twice; without it the test proves less, and still passes.
        thread::sleep(Duration::from_millis(10));
        let (quiet, release_quiet) = disk.hold("MANIFEST");
        release_leader.send(()).unwrap();
        quiet.recv().unwrap();
        thread::sleep(Duration::from_millis(10));
        release_quiet.send(()).unwrap();
        truncating.join().unwrap().unwrap();
        syncing.join().unwrap().unwrap();
    }
}

/// A leader that panicked left those of its group asleep for good: it had taken the group along
/// (G6: they must hear of it). Groups now stay in the write stage until they are settled.
#[test]
fn a_leader_that_panics_leaves_nobody_waiting() {
    let (disk, log) = Gated::open(Background::Inline, Durability::Manual);
    append(&log, "r", 0..1);
    log.sync().unwrap();
    let (one, other) = (log.submit("b").unwrap(), log.submit("c").unwrap());
    drop(disk.hold(FIRST_STORE));
    assert!(catch_unwind(AssertUnwindSafe(|| one.wait())).is_err());
    assert!(matches!(other.wait(), Err(Error::Poisoned { .. })));
    assert!(matches!(log.append("d"), Err(Error::Poisoned { .. })));
}

/// A write without a commit that panicked left a hole: what it had taken was gone, and what came after it was written
/// behind, synced and acknowledged (G1, G2). Whoever writes and panics now poisons the log.
#[test]
fn a_write_that_panics_leaves_no_hole() {
    for background in [Background::Inline, Background::Threads] {
        let (disk, log) = Gated::open(background, Durability::Manual);
        append(&log, "r", 0..1);
        log.sync().unwrap();
        disk.panic_at_writes(true);
        // The scribe's panic ends this, or the append's own.
        let _ = catch_unwind(AssertUnwindSafe(|| while log.append(vec![b'x'; 64 << 10]).is_ok() {}));
        disk.panic_at_writes(false);
        assert!(matches!(log.append("late"), Err(Error::Poisoned { .. })));
        assert!(matches!(log.sync(), Err(Error::Poisoned { .. })));
    }
}

/// An append from a `drop`, while its thread unwound from somebody else's panic, poisoned the log as if the commit
/// had panicked.
#[test]
fn an_append_while_its_thread_unwinds_harms_nobody() {
    struct Says(Log);
    impl Drop for Says {
        fn drop(&mut self) {
            self.0.append("going").unwrap();
        }
    }
    let (_, log) = Gated::open(Background::Inline, Durability::Always);
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let _says = Says(log.clone());
        std::panic::resume_unwind(Box::new("a panic that is none of the log's"));
    }));
    assert!(panicked.is_err());
    assert_eq!(log.append("after").unwrap(), 1);
}

/// A truncation that panicked left the writer paused, and every append after it went round for ever
/// (G6: they must hear of it). Whoever holds the sync stage and panics now poisons the log. (And does so
/// before it lets go: a leader that came in between acknowledged what was never fsynced, G1. That one
/// takes two threads; `tests/concurrency` tries every order of them.)
#[test]
fn a_truncation_that_panics_leaves_no_append_waiting() {
    let (disk, log) = Gated::open(Background::Inline, Durability::Manual);
    append(&log, "r", 0..3);
    log.sync().unwrap();
    drop(disk.hold("MANIFEST"));
    assert!(catch_unwind(AssertUnwindSafe(|| log.truncate_back(1))).is_err());
    assert!(matches!(log.append("d"), Err(Error::Poisoned { .. })));
    assert!(matches!(log.truncate_back(0), Err(Error::Poisoned { .. })));
}

/// A waker that tells, or panics.
struct Wakes(Option<Sender<()>>);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.as_ref().expect("a waker that panics, as the test wants it").send(()).unwrap();
    }
}

fn poll(ticket: &mut Ticket, tell: Option<&Sender<()>>) -> Poll<stonelog::Result<Range<u64>>> {
    let waker = Waker::from(Arc::new(Wakes(tell.cloned())));
    Pin::new(ticket).poll(&mut Context::from_waker(&waker))
}

/// A waker that panicked took the wake-ups behind it along, and the committer, and poisoned the log
/// whose records were durable (G1: what is durable must also be said). Each is now caught by itself.
#[test]
fn a_waker_that_panics_harms_nobody_else() {
    let (disk, log) = Gated::open(Background::Threads, Durability::Manual);
    let (mut one, mut other) = (log.submit("a").unwrap(), log.submit("b").unwrap());
    let (leads, release) = disk.hold(FIRST_STORE);
    assert!(poll(&mut one, None).is_pending());
    leads.recv().unwrap();
    let (told, woken) = channel();
    assert!(poll(&mut other, Some(&told)).is_pending());
    release.send(()).unwrap();
    woken.recv().unwrap();
    assert!(matches!(poll(&mut one, None), Poll::Ready(Ok(range)) if range == (0..1)));
    assert!(matches!(poll(&mut other, Some(&told)), Poll::Ready(Ok(range)) if range == (1..2)));
    assert_eq!(log.append("c").unwrap(), 2, "the log is not poisoned");
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

/// A Close with a count that its store cannot hold made the opening take gigabytes (G9): the count
/// was believed. Counts are now bounded by the store's length, and such a Close is damage.
#[test]
fn a_close_with_a_hostile_count_is_damage() {
    let disk = SimDisk::new(1);
    let log = open(&disk);
    append(&log, "r", 0..10);
    log.close().unwrap();
    drop(log);
    let found = manifest::read(&disk, Path::new(DIRECTORY)).unwrap();
    let Reading::Whole { state, generation, length, .. } = found else { panic!("{found:?}") };
    // The Close is the last frame: a header of 16 bytes, 18 of payload (the count last), padding.
    let mut bytes = disk.read_file(path("MANIFEST")).unwrap();
    let frame = &mut bytes[usize::try_from(length).unwrap() - 40..];
    let header = decode_header(frame[..16].try_into().unwrap()).unwrap();
    assert_eq!(header.length, 18);
    frame[26..34].copy_from_slice(&(u64::from(u32::MAX) - 1).to_le_bytes());
    let (sum, seed) = (PayloadChecksum::of(&frame[16..34]), Seed::of_manifest(&state.uuid, generation));
    frame[..16].copy_from_slice(&encode_header(&header, sum, seed));
    disk.write_file(path("MANIFEST"), bytes).unwrap();
    assert!(matches!(options(&disk).open(DIRECTORY), Err(Error::Damaged(_))));
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

// ---- forged manifests: every checksum holds, and nothing else does -----------------------------

const UUID: [u8; 16] = *b"forged forged fo";

fn init(first_offset: u64, last_id: u64) -> Edit {
    Edit::Init { uuid: UUID, created_millis: 1, first_offset, last_id }
}

fn created(id: u64, base: Option<u64>) -> Edit {
    Edit::Create { id, base, born: None }
}

fn sealed(id: u64, next_offset: u64, length: u64) -> Edit {
    Edit::Seal { id, seal: Seal { next_offset, length, first_millis: 0, last_millis: 0 } }
}

/// A disk with nothing but this MANIFEST.
fn forged(edits: &[Edit]) -> SimDisk {
    let disk = SimDisk::new(1);
    let bytes = fuzz::mutate::forge_manifest(&UUID, 1, edits, None);
    disk.write_file(path("MANIFEST"), bytes).unwrap();
    disk
}

fn is_damage<T: std::fmt::Debug>(outcome: Result<T, Error>) -> bool {
    matches!(outcome, Err(Error::Damaged(_)))
}

/// G9. A rebuilt index took memory for every record that a Seal's own length could hold, not the file's:
/// a Seal of 2^64 bytes asked for 32 GiB, and the process was ended.
#[test]
fn a_seal_longer_than_its_store_does_not_size_an_index() {
    let disk = SimDisk::new(1);
    let log = open(&disk);
    append(&log, "r", 0..1);
    log.close().unwrap();
    let store = disk.read_file(path(FIRST_STORE)).unwrap();
    let uuid = *store[16..32].first_chunk::<16>().unwrap();
    let end = u64::from(u32::MAX);
    let edits = [
        Edit::Init { uuid, created_millis: 1, first_offset: 0, last_id: 1 },
        created(1, Some(0)),
        sealed(1, end, u64::MAX),
    ];
    disk.write_file(path("MANIFEST"), fuzz::mutate::forge_manifest(&uuid, 9, &edits, None)).unwrap();
    let log = options(&disk).on_damage(DamagePolicy::Serve).open_read_only(DIRECTORY).unwrap();
    check(&log, "r", 0..1);
    assert!(is_damage(log.read(1)));
    assert!(is_damage(log.read(end - 1)));
    assert_eq!(log.readable_from(1), end, "nobody has to ask for each of them");
}

/// A record that a manifest proves and no store holds was "out of range 0..10": every reader of a
/// damaged log was told that he had asked wrongly. It is damage.
#[test]
fn a_record_that_no_store_holds_is_damaged_and_not_out_of_range() {
    let born = Some(Born { durable_end: 10, length: 2000 });
    let disk = forged(&[init(0, 1), Edit::Create { id: 1, base: Some(0), born }]);
    let log = options(&disk).on_damage(DamagePolicy::Serve).open_read_only(DIRECTORY).unwrap();
    assert_eq!(log.offsets(), 0..10);
    assert!(is_damage(log.read(0)));
    assert!(is_damage(log.reader(9).next().map(|record| record.map(|record| record.offset()))));
    assert_eq!(log.readable_from(0), 10);
}

/// G1. Damaged and lost ranges beyond the end stood, so that records which were appended there later, and
/// acknowledged, read as damaged or lost. An opening lets go of them.
#[test]
fn what_is_appended_where_damage_was_declared_can_be_read() {
    for range in [Edit::Damaged { offsets: 0..5 }, Edit::Lost { offsets: 0..5 }] {
        let disk = forged(&[init(0, 0), range]);
        // (The offsets of what was declared are taken: nothing is appended there.)
        for offset in 5..7 {
            let log = serve(&disk);
            append(&log, "r", offset..offset + 1);
            let read = |offset: u64| log.read(offset).unwrap().to_vec();
            assert!((5..=offset).all(|offset| read(offset) == format!("r{offset}").into_bytes()));
            log.close().unwrap();
        }
    }
}

/// A fresh manifest wrote damaged ranges before lost ones, and a Lost takes its range out of the damaged:
/// folded again, a state with both of a record was another one.
#[test]
fn a_fresh_manifest_says_what_the_old_one_said_of_damage_in_lost_records() {
    let edits = [init(0, 0), Edit::Lost { offsets: 3..5 }, Edit::Damaged { offsets: 0..9 }];
    let state = State::fold(edits).unwrap();
    assert_eq!(State::fold(state.edits()), Ok(state));
}

/// A Close below the last Seal gave the next records offsets that were taken; one below the base of the
/// store that it ends, or before its first frame, let a read give another record. All are refused.
#[test]
fn a_close_below_what_it_closes_is_damage() {
    for edits in [
        vec![created(1, None), sealed(1, 2, 2000), Edit::Close(Close { length: 0, next_offset: 1 })],
        vec![created(1, Some(8)), Edit::Close(Close { length: 2000, next_offset: 7 })],
    ] {
        let disk = forged(&[vec![init(0, 1)], edits].concat());
        for policy in [DamagePolicy::Refuse, DamagePolicy::Serve] {
            assert!(is_damage(options(&disk).on_damage(policy).open(DIRECTORY)));
        }
    }
    let disk = SimDisk::new(1);
    let log = open(&disk);
    append(&log, "r", 0..3);
    log.close().unwrap();
    let uuid = *disk.read_file(path(FIRST_STORE)).unwrap()[16..32].first_chunk::<16>().unwrap();
    let edits = [
        Edit::Init { uuid, created_millis: 1, first_offset: 0, last_id: 1 },
        created(1, Some(0)),
        Edit::Close(Close { length: 41, next_offset: 0 }),
    ];
    disk.write_file(path("MANIFEST"), fuzz::mutate::forge_manifest(&uuid, 9, &edits, None)).unwrap();
    assert!(is_damage(options(&disk).open(DIRECTORY)));
}

/// A segment could begin below the end of the sealed one before it, and the fresh manifest of an opening
/// that served it could not be read again. It is refused where it is read, and not written.
#[test]
fn a_segment_does_not_begin_below_its_predecessors_seal() {
    let disk = forged(&[init(0, 2), created(1, None), sealed(1, 9, 2000), created(2, Some(8))]);
    assert!(is_damage(serve_or_not(&disk)));
}

fn serve_or_not(disk: &SimDisk) -> Result<Log, Error> {
    options(disk).on_damage(DamagePolicy::Serve).open(DIRECTORY)
}

/// A manifest may say that the highest id there is was used: the next segment's could not be read
/// again, and a log that had taken records did not open. Now it takes none.
#[test]
fn a_log_without_an_id_to_give_takes_nothing_and_opens_again() {
    let disk = forged(&[init(0, 1 << 62)]);
    for _ in 0..2 {
        let log = serve_or_not(&disk).unwrap();
        assert!(is_damage(log.append("no place for it")));
        drop(log);
        disk.process_crash();
    }
}

/// G9. Offsets from disk were not bounded as those of a caller are: the next offset overflowed.
#[test]
fn an_offset_that_no_log_reaches_is_refused() {
    for first in [u64::MAX, u64::MAX - 1, (1 << 63) + 1] {
        let disk = forged(&[init(first, 0)]);
        let reading = manifest::read(&disk, Path::new(DIRECTORY)).unwrap();
        assert!(matches!(reading, Reading::Damaged(_)), "{reading:?}");
        assert!(is_damage(serve_or_not(&disk)));
    }
    // What can be stated, but leaves no room for a Close behind it.
    assert!(is_damage(serve_or_not(&forged(&[init(1 << 63, 0)]))));
    let disk = forged(&[init(1 << 62, 0)]);
    let log = serve_or_not(&disk).unwrap();
    assert_eq!(log.append("far").unwrap(), 1 << 62);
    log.close().unwrap();
    assert_eq!(serve_or_not(&disk).unwrap().offsets(), 1 << 62..(1 << 62) + 1);
}

/// Removing no offsets from a set of ranges cut one of them in two, so that it no longer covered what
/// it held: a Seal repeated at the same end was enough, and records declared lost were missed again.
#[test]
fn a_seal_repeated_at_its_end_takes_nothing_from_a_lost_range() {
    let edits =
        [init(0, 0), Edit::Lost { offsets: 3..12 }, created(1, None), sealed(1, 8, 2000), sealed(1, 8, 2000)];
    let state = State::fold(edits).unwrap();
    assert!(state.lost.covers(&(3..12)));
}

/// An index that a clean close left for the active segment was believed as one in memory is: forged, with
/// every checksum whole, it made records unreadable. Where it leads wrong the store is scanned, once.
#[test]
fn an_active_segments_index_that_leads_wrong_loses_no_record() {
    const INDEX: &str = "0000000000000001.index";
    let disk = SimDisk::new(1);
    let log = open(&disk);
    append(&log, "r", 0..40);
    log.close().unwrap();
    let mut index = disk.read_file(path(INDEX)).unwrap();
    // The entries' last bytes: some lead elsewhere, some nowhere.
    for byte in index.iter_mut().skip(64) {
        *byte ^= 0x15;
    }
    fuzz::mutate::reseal_index(&mut index);
    disk.write_file(path(INDEX), index).unwrap();
    let log = options(&disk).open_read_only(DIRECTORY).unwrap();
    check(&log, "r", 0..40);
    let log = open(&disk);
    check(&log, "r", 0..40);
    append(&log, "r", 40..44);
    check(&log, "r", 0..44);
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

/// A log of `records`, killed; the identity in its first store.
fn killed_after(disk: &SimDisk, records: Range<u64>) -> [u8; 16] {
    let log = open(disk);
    append(&log, "r", records);
    kill(disk, log);
    *disk.read_file(path(FIRST_STORE)).unwrap()[16..32].first_chunk::<16>().unwrap()
}

/// G9, G11. A MANIFEST whose Close says that no store is written to was believed, though one was: the opening
/// scanned nothing, and removed the store with its records. A store whose base is written had records; it is scanned.
#[test]
fn a_close_of_nothing_removes_no_records() {
    for stated in [0, 3, 5] {
        let disk = SimDisk::new(1);
        let uuid = killed_after(&disk, 0..5);
        let edits = [
            Edit::Init { uuid, created_millis: 1, first_offset: 0, last_id: 9 },
            Edit::Create { id: 1, base: Some(0), born: None },
            Edit::Close(Close { length: 0, next_offset: stated }),
        ];
        disk.write_file(path("MANIFEST"), fuzz::mutate::forge_manifest(&uuid, 9, &edits, None)).unwrap();
        check(&open(&disk), "r", 0..5);
    }
}

/// G5. A store that reaches beyond the base of the one behind it is damage; served in spite of it, the first was
/// sealed as if it held nothing, and its records before that base were lost with those behind. A Seal ends a
/// store where the record at its end begins, which only the frames before it tell.
#[test]
fn a_store_that_reaches_beyond_the_next_ones_base_is_served_up_to_it() {
    let disk = SimDisk::new(1);
    let uuid = killed_after(&disk, 0..7);
    let edits = [
        Edit::Init { uuid, created_millis: 1, first_offset: 0, last_id: 9 },
        Edit::Create { id: 1, base: Some(0), born: None },
        Edit::Create { id: 2, base: None, born: None },
        Edit::Create { id: 3, base: Some(4), born: None },
    ];
    disk.write_file(path("MANIFEST"), fuzz::mutate::forge_manifest(&uuid, 9, &edits, None)).unwrap();
    assert!(matches!(options(&disk).open(DIRECTORY), Err(Error::Damaged(_))));
    let log = options(&disk).on_damage(DamagePolicy::Serve).open(DIRECTORY).unwrap();
    for offset in 0..4 {
        assert_eq!(&log.read(offset).unwrap()[..], format!("r{offset}").as_bytes(), "{offset}");
    }
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

struct Says(Log, Gated);

impl Drop for Says {
    fn drop(&mut self) {
        self.1.panic_at_writes(true);
        let _ = catch_unwind(AssertUnwindSafe(|| self.0.append("going")));
        self.1.panic_at_writes(false);
    }
}

/// G1, G6. A write that panics inside a `drop`, while its thread unwinds from another panic, was not noticed: the log
/// was not poisoned, and what followed the hole was acknowledged. That a leader came to its end is stated by itself now.
#[test]
fn a_write_that_panics_in_a_drop_leaves_no_hole() {
    let (disk, log) = Gated::open(Background::Inline, Durability::Always);
    log.append("first").unwrap();
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let _says = Says(log.clone(), disk.clone());
        std::panic::resume_unwind(Box::new("a panic that is none of the log's"));
    }));
    assert!(panicked.is_err());
    let after = log.append("after");
    let durable = log.durable_end();
    println!("{after:?}, durable end {durable}");
    disk.inner.power_loss(Loss::Nothing);
    drop(log);
    let log = Options::new().disk(Arc::new(disk)).open(DIRECTORY).expect("G5: a crash opens");
    if let Ok(after) = after {
        assert_eq!(&*log.read(after).expect("G1: it was acknowledged"), b"after");
    }
}

/// The same with an fsync: the stores that it was to make durable are forgotten, and the next commit acknowledges them.
struct Syncs(Log, Gated);

impl Drop for Syncs {
    fn drop(&mut self) {
        drop(self.1.hold("0000"));
        let _ = catch_unwind(AssertUnwindSafe(|| self.0.append("going")));
    }
}

#[test]
fn an_fsync_that_panics_in_a_drop_is_not_forgotten() {
    let (disk, log) = Gated::open(Background::Inline, Durability::Always);
    log.append("first").unwrap();
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let _syncs = Syncs(log.clone(), disk.clone());
        std::panic::resume_unwind(Box::new("a panic that is none of the log's"));
    }));
    assert!(panicked.is_err());
    let synced = log.sync();
    println!("{synced:?}, durable end {} of {:?}", log.durable_end(), log.offsets());
    assert!(synced.is_err() || log.durable_end() == log.offsets().end, "G6: acknowledged without an fsync");
}
