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
    reason = "tests: a failed expectation is how they speak"
)]

use std::io;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::pin::Pin;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::Duration;

use stonelog::disk::sim::{Fault, SimDisk};
use stonelog::disk::{Background, DirectoryEntry, Disk, DiskFile, LockAttempt, Map, OpenMode};
use stonelog::frame::{PayloadChecksum, Seed, decode_header, encode_header};
use stonelog::manifest::{self, Reading};
use stonelog::{DamagePolicy, Durability, Error, Log, MAX_OFFSET, Options, Ticket};

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

#[track_caller]
fn check(log: &Log, what: &str, offsets: Range<u64>) {
    for offset in offsets {
        assert_eq!(&*log.read(offset).unwrap(), format!("{what}{offset}").as_bytes());
    }
}

/// A log with one record, and a second one submitted that no background work has committed yet.
fn with_one_under_way(options: impl Fn(&SimDisk) -> Options) -> (SimDisk, Log, Ticket) {
    for seed in 0..64 {
        let disk = SimDisk::new(seed);
        let log = options(&disk).open(DIRECTORY).unwrap();
        log.append("acknowledged").unwrap();
        let ticket = log.submit("under way").unwrap();
        if !ticket.is_durable() {
            return (disk, log, ticket);
        }
    }
    panic!("no seed leaves the commit for later");
}

/// What an fsync does that a test has its hands on: it says that it began, then does as it is told.
#[derive(Debug)]
struct Gate {
    file: &'static str,
    entered: Sender<()>,
    go_on: Receiver<()>,
}

/// A simulated disk with threads in the background, whose fsyncs can be held up or panic.
#[derive(Debug, Clone)]
struct Gated {
    inner: SimDisk,
    gates: Arc<Mutex<Vec<Gate>>>,
}

impl Gated {
    fn new(background: Background) -> Gated {
        Gated { inner: SimDisk::new(1).with_background(background), gates: Arc::default() }
    }

    fn open(&self) -> Log {
        let options = Options::new().durability(Durability::Manual).disk(Arc::new(self.clone()));
        options.open(DIRECTORY).unwrap()
    }

    /// Holds up the next fsync of a file; one that is let go by dropping the sender panics.
    fn hold(&self, file: &'static str) -> (Receiver<()>, Sender<()>) {
        let (entered, has_entered) = channel();
        let (release, go_on) = channel();
        self.gates.lock().unwrap().push(Gate { file, entered, go_on });
        (has_entered, release)
    }
}

impl Disk for Gated {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.inner.create_dir(path)
    }
    fn list(&self, path: &Path) -> io::Result<Vec<DirectoryEntry>> {
        self.inner.list(path)
    }
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.inner.sync_dir(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.inner.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.inner.remove(path)
    }
    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.inner.exists(path)
    }
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let inner = self.inner.open(path, mode)?;
        Ok(Arc::new(GatedFile { name, inner, gates: self.gates.clone() }))
    }
    fn lock(&self, path: &Path) -> io::Result<LockAttempt> {
        self.inner.lock(path)
    }
    fn now_millis(&self) -> u64 {
        self.inner.now_millis()
    }
    fn random(&self) -> u64 {
        self.inner.random()
    }
    fn process_id(&self) -> u32 {
        self.inner.process_id()
    }
    fn background(&self) -> Background {
        self.inner.background()
    }
}

#[derive(Debug)]
struct GatedFile {
    name: String,
    inner: Arc<dyn DiskFile>,
    gates: Arc<Mutex<Vec<Gate>>>,
}

impl DiskFile for GatedFile {
    fn length(&self) -> io::Result<u64> {
        self.inner.length()
    }
    fn read_at(&self, bytes: &mut [u8], position: u64) -> io::Result<usize> {
        self.inner.read_at(bytes, position)
    }
    fn write_at(&self, bytes: &[u8], position: u64) -> io::Result<usize> {
        self.inner.write_at(bytes, position)
    }
    fn sync(&self) -> io::Result<()> {
        let gate = {
            let mut gates = self.gates.lock().unwrap();
            let index = gates.iter().position(|gate| self.name == gate.file);
            index.map(|index| gates.remove(index))
        };
        if let Some(gate) = gate {
            let _ = gate.entered.send(());
            gate.go_on.recv().expect("a disk that panics, as the test wants it");
        }
        self.inner.sync()
    }
    fn set_length(&self, length: u64) -> io::Result<()> {
        self.inner.set_length(length)
    }
    fn reserve(&self, length: u64) -> io::Result<()> {
        self.inner.reserve(length)
    }
    fn map(&self, length: u64) -> io::Result<Option<Map>> {
        self.inner.map(length)
    }
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
    let open = || options(&disk).segment_bytes(4096).on_damage(DamagePolicy::Serve).open(DIRECTORY).unwrap();
    let log = open();
    for _ in 0..40 {
        log.append([7; 500]).unwrap();
    }
    log.close().unwrap();
    let segments = log.segments();
    drop(log);
    let gone = &segments[2];
    disk.remove_file(path(&format!("{:016x}.store", gone.id))).unwrap();

    let log = open();
    assert!(matches!(log.read(gone.base), Err(Error::Damaged(_))));
    let cut = segments[1].base + 1;
    log.truncate_back(cut).unwrap();
    append(&log, "again", cut..40);
    check(&log, "again", cut..40);
    log.close().unwrap();
    drop(log);
    check(&open(), "again", cut..40);
}

/// A `sync` beside `truncate_back` never returned: handed the lead, it found the quiet phase in its
/// way, slept again, and nobody woke it after. (No number: what is durable must also be said, G1.)
/// The quiet phase now hands the lead over as it ends.
#[test]
fn who_waits_through_a_quiet_phase_is_woken() {
    let disk = Gated::new(Background::Threads);
    let log = disk.open();
    append(&log, "r", 0..10);
    let (leads, release_leader) = disk.hold(FIRST_STORE);
    let truncating = thread::spawn({
        let log = log.clone();
        move || log.truncate_back(5)
    });
    leads.recv().unwrap();
    let syncing = thread::spawn({
        let log = log.clone();
        move || log.sync()
    });
    // Time for it to fall asleep, twice; without, the test proves less and still passes.
    thread::sleep(Duration::from_millis(50));
    let (quiet, release_quiet) = disk.hold("MANIFEST");
    release_leader.send(()).unwrap();
    quiet.recv().unwrap();
    thread::sleep(Duration::from_millis(50));
    release_quiet.send(()).unwrap();
    truncating.join().unwrap().unwrap();
    syncing.join().unwrap().unwrap();
    assert_eq!(log.offsets(), 0..5);
}

/// A leader that panicked left those of its group asleep for good: it had taken the group along
/// (G6: they must hear of it). Groups now stay in the write stage until they are settled.
#[test]
fn a_leader_that_panics_leaves_nobody_waiting() {
    let disk = Gated::new(Background::Inline);
    let log = disk.open();
    append(&log, "r", 0..1);
    log.sync().unwrap();
    let (one, other) = (log.submit("b").unwrap(), log.submit("c").unwrap());
    drop(disk.hold(FIRST_STORE));
    assert!(catch_unwind(AssertUnwindSafe(|| one.wait())).is_err());
    assert!(matches!(other.wait(), Err(Error::Poisoned { .. })));
    assert!(matches!(log.append("d"), Err(Error::Poisoned { .. })));
    check(&log, "r", 0..1);
}

struct Panics;

impl Wake for Panics {
    fn wake(self: Arc<Self>) {
        panic!("a waker panics");
    }
}

struct Tells(Sender<()>);

impl Wake for Tells {
    fn wake(self: Arc<Self>) {
        let _ = self.0.send(());
    }
}

fn poll(ticket: &mut Ticket, waker: impl Wake + Send + Sync + 'static) -> Poll<stonelog::Result<Range<u64>>> {
    Pin::new(ticket).poll(&mut Context::from_waker(&Waker::from(Arc::new(waker))))
}

/// A waker that panicked took the wake-ups behind it along, and the committer, and poisoned the log
/// whose records were durable (G1: what is durable must also be said). Each is now caught by itself.
#[test]
fn a_waker_that_panics_harms_nobody_else() {
    let disk = Gated::new(Background::Threads);
    let log = disk.open();
    let (mut one, mut other) = (log.submit("a").unwrap(), log.submit("b").unwrap());
    let (leads, release) = disk.hold(FIRST_STORE);
    assert!(poll(&mut one, Panics).is_pending());
    leads.recv().unwrap();
    let (told, woken) = channel();
    assert!(poll(&mut other, Tells(told.clone())).is_pending());
    release.send(()).unwrap();
    woken.recv().unwrap();
    assert!(matches!(poll(&mut one, Panics), Poll::Ready(Ok(range)) if range == (0..1)));
    assert!(matches!(poll(&mut other, Tells(told.clone())), Poll::Ready(Ok(range)) if range == (1..2)));

    // The committer lives.
    let mut third = log.submit("c").unwrap();
    if poll(&mut third, Tells(told.clone())).is_pending() {
        woken.recv().unwrap();
    }
    assert!(matches!(poll(&mut third, Tells(told)), Poll::Ready(Ok(range)) if range == (2..3)));
}

/// A close that failed let go of the lock and left the gate open, so that two handles wrote and what
/// one acknowledged was gone (G1). Closing now shuts the gate first, and its outcome is remembered.
#[test]
fn a_log_whose_close_failed_takes_nothing_any_more() {
    let (disk, log, _ticket) = with_one_under_way(options);
    disk.inject(Fault::write_error(1));
    assert!(log.close().is_err());
    disk.clear_faults();
    assert!(log.close().is_err(), "closing again must not claim success");
    let second = open(&disk);
    assert!(log.append("without the lock").is_err());
    let next = second.offsets().end;
    assert_eq!(second.append("with it").unwrap(), next);
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
    assert_eq!(log.offsets(), 0..10);
    append(&log, "r", 10..400);
    log.close().unwrap();
    drop(log);
    let log = open(&disk);
    assert_eq!(log.offsets(), 0..400);
    check(&log, "r", 0..400);
}

/// A small log did not open on a full disk: recovery copied all of it to save a segment, where only
/// what is not proven must be copied (G10). On a full disk it now plans sparingly.
#[test]
fn a_small_log_opens_on_a_full_disk() {
    for count in [10, 100, 400, 1000] {
        let disk = SimDisk::new(1);
        let log = open(&disk);
        for _ in 0..count {
            log.append([1; 1000]).unwrap();
        }
        disk.set_capacity(Some(disk.used_bytes()));
        kill(&disk, log);
        assert_eq!(open(&disk).offsets(), 0..count);
    }
}

/// A log with much that was not durable did not open on a full disk: space for its recovery was kept
/// as best effort (G10). Now nothing is accepted beyond the space that a recovery may take.
#[test]
fn a_log_with_much_exposed_opens_on_a_full_disk() {
    let disk = SimDisk::new(1);
    let log = options(&disk).durability(Durability::Manual).open(DIRECTORY).unwrap();
    for number in 0..17_000 {
        log.append([1; 1000]).unwrap();
        if number % 50 == 0 {
            log.sync().unwrap();
        }
    }
    log.sync().unwrap();
    for _ in 0..12_000 {
        log.append([1; 1000]).unwrap();
    }
    let durable = log.durable_end();
    disk.set_capacity(Some(disk.used_bytes()));
    kill(&disk, log);
    assert!(open(&disk).offsets().end >= durable.max(17_000));
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
    let Reading::Whole { state, generation, length, .. } =
        manifest::read(&disk, Path::new(DIRECTORY)).unwrap()
    else {
        panic!("no whole manifest");
    };
    // The Close is the last frame: a header of 16 bytes, 18 of payload (the count last), padding.
    let mut bytes = disk.read_file(path("MANIFEST")).unwrap();
    let frame = &mut bytes[usize::try_from(length).unwrap() - 40..];
    let header = decode_header(frame[..16].try_into().unwrap()).unwrap();
    assert_eq!(header.length, 18);
    frame[26..34].copy_from_slice(&(u64::from(u32::MAX) - 1).to_le_bytes());
    let sum = PayloadChecksum::of(&frame[16..34]);
    let header = encode_header(&header, sum, Seed::of_manifest(&state.uuid, generation));
    frame[..16].copy_from_slice(&header);
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
    drop(log);
    let log = open(&disk);
    assert_eq!(log.offsets(), 0..7);
    check(&log, "record", 0..7);
}

/// A failed write took back a record that a reader of appended ones had counted on; the reader then
/// passed over the next record at that offset (G2). A cut now sends readers to look again.
#[test]
fn a_reader_skips_nothing_after_a_failed_write() {
    let (disk, log, ticket) = with_one_under_way(|disk| options(disk).readers_see_appended(true));
    let mut reader = log.reader(0);
    assert_eq!(&*reader.next().unwrap().unwrap(), b"acknowledged");
    disk.inject(Fault::write_error(1));
    assert!(!matches!(reader.next(), Ok(Some(_))));
    disk.clear_faults();
    assert!(ticket.wait().is_err());
    assert_eq!(log.append("instead").unwrap(), 1);
    let record = reader.next().unwrap().unwrap();
    assert_eq!((record.offset(), record.bytes()), (1, &b"instead"[..]));
}

/// Serving in spite of a missing sealed store doubted the Close too, and what was appended then was
/// gone after the next one (G1, G5). Damage to sealed segments no longer touches the active one.
#[test]
fn serving_after_a_clean_close_spares_the_active_segment() {
    let disk = SimDisk::new(1);
    let open = || options(&disk).segment_bytes(4096).on_damage(DamagePolicy::Serve).open(DIRECTORY).unwrap();
    let log = open();
    for _ in 0..20 {
        log.append([7; 500]).unwrap();
    }
    log.close().unwrap();
    let gone = log.segments()[1].clone();
    drop(log);
    disk.remove_file(path(&format!("{:016x}.store", gone.id))).unwrap();
    for next in 20..23 {
        let log = open();
        let damaged = gone.base..gone.end;
        assert_eq!(log.recovery().damaged, [damaged.clone()]);
        assert_eq!(log.offsets(), 0..next);
        for offset in 0..next {
            let read = log.read(offset);
            assert_eq!(matches!(read, Err(Error::Damaged(_))), damaged.contains(&offset), "{read:?}");
        }
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
        for _ in 0..3 {
            log.append([1; 100]).unwrap();
        }
        log.truncate_front(3).unwrap();
        kill(&disk, log);
        disk.truncate(path(FIRST_STORE), 1024 + 150).unwrap();
        let log = open(&disk);
        append(&log, "acknowledged", 3..5);
        kill(&disk, log);
        let log = open(&disk);
        assert_eq!(log.offsets(), 3..5);
        check(&log, "acknowledged", 3..5);
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
        let refused = log.truncate_front(offset);
        assert!(matches!(refused, Err(Error::InvalidOption { option: "truncate_front", .. })), "{refused:?}");
    }
    append(&log, "r", 3..5);
    check(&log, "r", 0..5);
    log.truncate_front(MAX_OFFSET).unwrap();
    assert_eq!(log.append("last").unwrap(), MAX_OFFSET);
}
