//! Who panics while others wait, and who waits while the log is busy with itself.

use super::*;

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
