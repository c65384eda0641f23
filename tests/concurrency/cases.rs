//! Small situations of a whole log, each searched within a bound and then sampled without one.
//!
//! Every record that is acknowledged, or that a reader is shown, is looked for at that very moment in
//! what a power cut would leave: acknowledged is durable, and readers see nothing beyond. Who sleeps
//! for ever is reported by shuttle.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use shuttle::thread;
use stonelog::disk::sim::{Fault, Loss, SimDisk};
use stonelog::{Durability, Error, Log};

use crate::scheduler::{Bound, held, sample, search};
use crate::stage::{
    Panicking, acknowledged, at_once, disk, end, found, manual, open, options, record, settle, survives,
};
use crate::threads;

/// One preemption, anywhere. `STONELOG_PREEMPTIONS=2` takes minutes for some.
const BOUND: Bound = Bound { preemptions: 1, wakes: 0, schedules: 100_000 };
/// Two, where that is a matter of seconds.
const WIDER: Bound = Bound { preemptions: 2, ..BOUND };
const SEEDS: u64 = 300;

fn tried_wider(body: impl Fn() + Send + Sync + Copy + 'static) {
    search(WIDER, body);
    sample(SEEDS, body);
}

pub fn tried(body: impl Fn() + Send + Sync + Copy + 'static) {
    search(BOUND, body);
    sample(SEEDS, body);
}

/// Appends, and checks that what was acknowledged is durable.
fn append(log: &Log, disk: &SimDisk, bytes: &[u8]) -> u64 {
    let offset = log.append(bytes).unwrap();
    acknowledged(log, disk, offset, bytes);
    offset
}

pub fn refused<T: std::fmt::Debug>(outcome: Result<T, Error>) {
    assert!(outcome.is_err(), "G6: acknowledged after a failed commit: {outcome:?}");
}

/// What a log of these records, each by itself, must be found as, by whoever opens it next.
pub fn holds(disk: &SimDisk, records: &[&[u8]]) {
    found(disk, Loss::Nothing, |log| {
        let mut there: Vec<Vec<u8>> = log.records(..).map(|record| record.unwrap().to_vec()).collect();
        let mut wanted: Vec<Vec<u8>> = records.iter().map(|record| record.to_vec()).collect();
        there.sort();
        wanted.sort();
        assert_eq!(there, wanted);
    });
}

#[test]
fn two_appenders() {
    tried_wider(|| {
        let disk = disk();
        let log = open(options(disk.clone()), 1);
        let (a, b) = ((log.clone(), disk.clone()), (log.clone(), disk.clone()));
        at_once(threads![move || assert!([1, 2].contains(&append(&a.0, &a.1, b"a"))), move || assert!(
            [1, 2].contains(&append(&b.0, &b.1, b"b"))
        ),]);
        assert_eq!(log.durable_end(), 3);
        end(log);
        holds(&disk, &[b"record 0", b"a", b"b"]);
    });
}

/// The ticket's thread, an appender and the committer may each lead.
#[test]
fn an_appender_a_ticket_and_the_committer() {
    tried(|| {
        let disk = disk();
        let log = open(options(disk.clone()), 1);
        let (a, b) = ((log.clone(), disk.clone()), (log.clone(), disk.clone()));
        at_once(threads![move || assert!(append(&a.0, &a.1, b"a") > 0), move || {
            let ticket = b.0.submit(b"ticket").unwrap();
            let offsets = ticket.wait().unwrap();
            acknowledged(&b.0, &b.1, offsets.start, b"ticket");
        },]);
        end(log);
        holds(&disk, &[b"record 0", b"a", b"ticket"]);
    });
}

/// Where nobody else commits, of two that wait one must lead, and then wake the other or hand over.
#[test]
fn two_tickets_where_nobody_else_commits() {
    tried_wider(|| {
        let disk = disk();
        let log = open(manual(disk.clone()), 1);
        let waiter = |bytes: &'static [u8]| {
            let (log, disk) = (log.clone(), disk.clone());
            move || {
                let offsets = log.submit(bytes).unwrap().wait().unwrap();
                acknowledged(&log, &disk, offsets.start, bytes);
            }
        };
        at_once(threads![waiter(b"a"), waiter(b"b")]);
        end(log);
        holds(&disk, &[b"record 0", b"a", b"b"]);
    });
}

/// A task cannot lead: the committer must, or an appender that is there anyway.
#[test]
fn an_appender_a_task_and_the_committer() {
    tried(|| {
        let disk = disk();
        let log = open(options(disk.clone()), 1);
        let (a, b) = ((log.clone(), disk.clone()), (log.clone(), disk.clone()));
        at_once(threads![move || assert!(append(&a.0, &a.1, b"a") > 0), move || {
            let offsets = shuttle::future::block_on(b.0.submit(b"task").unwrap()).unwrap();
            acknowledged(&b.0, &b.1, offsets.start, b"task");
        },]);
        end(log);
    });
}

/// In the modes in which nobody else commits, a task still gets its answer.
#[test]
fn a_task_alone_in_every_mode() {
    for durability in [Durability::Always, Durability::Manual, Durability::Interval(Duration::from_millis(1))]
    {
        tried_in(durability, |durability| {
            let disk = disk();
            let log = open(options(disk.clone()).durability(durability), 1);
            let (a, b) = ((log.clone(), disk.clone()), log.clone());
            at_once(threads![
                move || {
                    let offsets = shuttle::future::block_on(a.0.submit(b"task").unwrap()).unwrap();
                    acknowledged(&a.0, &a.1, offsets.start, b"task");
                },
                move || assert!(b.append(b"b").is_ok()),
            ]);
            end(log);
            holds(&disk, &[b"record 0", b"task", b"b"]);
        });
    }
}

fn tried_in(durability: Durability, body: impl Fn(Durability) + Send + Sync + Copy + 'static) {
    search(BOUND, move || body(durability));
    // A wake-up for no reason stands for the time-out of `Interval`.
    search(Bound { wakes: 1, preemptions: 0, ..BOUND }, move || body(durability));
    sample(SEEDS / 3, move || body(durability));
}

/// `sync` answers for all that was appended before it was called, by anyone.
#[test]
fn a_sync_beside_an_appender() {
    tried_wider(|| {
        let disk = disk();
        let log = open(manual(disk.clone()), 1);
        let appended = Arc::new(Mutex::new(vec![record(0)]));
        let (a, b) = ((log.clone(), appended.clone()), (log.clone(), disk.clone(), appended.clone()));
        at_once(threads![
            move || {
                for bytes in [b"a1", b"a2"] {
                    let offset = a.0.append(bytes).unwrap();
                    let mut appended = a.1.lock().unwrap();
                    assert_eq!(offset, appended.len() as u64);
                    appended.push(bytes.to_vec());
                }
            },
            move || {
                let before = b.2.lock().unwrap().clone();
                b.0.sync().unwrap();
                for (offset, bytes) in before.iter().enumerate() {
                    acknowledged(&b.0, &b.1, offset as u64, bytes);
                }
            },
        ]);
        end(log);
        holds(&disk, &[b"record 0", b"a1", b"a2"]);
    });
}

/// A record that does not fit next to another one of its size: every append but the first rolls.
fn large(number: u8) -> Vec<u8> {
    vec![number; 2000]
}

/// A reader that polls, without a follower to wake it.
#[test]
fn a_roll_beside_a_reader() {
    tried(|| {
        let disk = disk();
        let log = open(options(disk.clone()), 0);
        held(|| log.append(large(0)).unwrap());
        settle();
        let (a, b) = ((log.clone(), disk.clone()), (log.clone(), disk.clone()));
        at_once(threads![
            move || {
                for number in 1..3 {
                    append(&a.0, &a.1, &large(number));
                }
            },
            move || {
                let mut reader = b.0.reader(0);
                let mut next = 0;
                for _ in 0..2 {
                    while let Some(seen) = reader.next().unwrap() {
                        assert_eq!(seen.offset(), next, "a record was skipped");
                        assert_eq!(&*seen, large(next as u8));
                        survives(&b.1, next, &large(next as u8));
                        next += 1;
                        assert!(next <= b.0.durable_end(), "G8: seen beyond the durable end");
                    }
                    thread::yield_now();
                }
            },
        ]);
        assert!(log.segments().len() >= 2, "nothing rolled");
        let read: Vec<_> = held(|| log.records(..).map(|record| record.unwrap().to_vec()).collect());
        assert_eq!(read, [large(0), large(1), large(2)]);
        end(log);
    });
}

/// What a reader gets beside a truncation is what was there before or what came after, each before or
/// after; or that it stood beyond the cut.
#[test]
fn a_reader_beside_truncate_back() {
    tried(|| {
        let disk = disk();
        let log = open(options(disk.clone()), 4);
        let cut = Arc::new(AtomicBool::new(false));
        let (a, b) = ((log.clone(), disk.clone(), cut.clone()), (log.clone(), disk.clone(), cut.clone()));
        at_once(threads![
            move || {
                a.0.truncate_back(2).unwrap();
                a.2.store(true, Ordering::Relaxed);
                found(&a.1, Loss::Nothing, |log| assert_eq!(log.offsets(), 0..2, "G4"));
                assert_eq!(append(&a.0, &a.1, b"new"), 2);
            },
            move || {
                let mut reader = b.0.reader(1);
                for _ in 0..4 {
                    let was_cut = b.2.load(Ordering::Relaxed);
                    match reader.next() {
                        Ok(Some(seen)) if seen.offset() == 2 && &*seen == b"new" => survives(&b.1, 2, b"new"),
                        Ok(Some(seen)) => {
                            assert_eq!(&*seen, record(seen.offset()));
                            assert!(!was_cut || seen.offset() < 2, "G4: {} was truncated", seen.offset());
                        }
                        Ok(None) => {}
                        Err(Error::Truncated { end, .. }) => {
                            assert_eq!(end, 2);
                            break;
                        }
                        Err(error) => panic!("{error}"),
                    }
                }
            },
        ]);
        assert_eq!(log.offsets(), 0..3);
        end(log);
        holds(&disk, &[b"record 0", b"record 1", b"new"]);
    });
}

#[test]
fn a_reader_beside_truncate_front() {
    tried(|| {
        let disk = disk();
        let log = open(options(disk.clone()), 0);
        held(|| (0..3).for_each(|number| assert!(log.append(large(number)).is_ok())));
        settle();
        let (a, b) = ((log.clone(), disk.clone()), log.clone());
        at_once(threads![
            move || {
                a.0.truncate_front(2).unwrap();
                found(&a.1, Loss::Nothing, |log| assert_eq!(log.offsets(), 2..3, "G4"));
            },
            move || {
                let mut reader = b.reader(0);
                for _ in 0..3 {
                    match reader.next() {
                        Ok(Some(seen)) => assert_eq!(&*seen, large(seen.offset() as u8)),
                        Ok(None) => {}
                        Err(Error::OutOfRange { offsets, .. }) => {
                            assert_eq!(offsets.start, 2);
                            break;
                        }
                        Err(error) => panic!("{error}"),
                    }
                }
            },
        ]);
        end(log);
        holds(&disk, &[&large(2)]);
    });
}

/// One fsync fails. Whoever waited for it, in whichever way, and whoever comes later, is told.
#[test]
fn a_failed_fsync_under_two_waiters_and_a_third() {
    tried(|| {
        let disk = disk();
        let log = open(options(disk.clone()), 1);
        disk.inject(Fault::sync_error(1));
        let (a, b, c) = (log.clone(), log.clone(), log.clone());
        at_once(threads![
            move || refused(a.append(b"a")),
            move || refused(b.submit(b"b").and_then(|ticket| ticket.wait())),
            move || {
                refused(c.append(b"c"));
                refused(c.sync());
            },
        ]);
        refused(log.append(b"late"));
        assert_eq!(log.durable_end(), 1);
        end(log);
        found(&disk, Loss::Nothing, |log| assert_eq!(&*log.read(0).unwrap(), record(0)));
    });
}

#[test]
fn a_failed_fsync_under_a_task() {
    tried(|| {
        let disk = disk();
        let log = open(options(disk.clone()), 1);
        disk.inject(Fault::sync_error(1));
        let (a, b) = (log.clone(), log.clone());
        at_once(threads![move || refused(a.append(b"a")), move || refused(
            b.submit(b"b").and_then(shuttle::future::block_on)
        ),]);
        refused(log.append(b"late"));
        end(log);
    });
}

/// A group whose write failed is cut: those in it are told, those after it get its offsets.
#[test]
fn a_failed_write_is_told_to_its_group_alone() {
    tried(|| {
        let disk = disk();
        let log = open(options(disk.clone()), 1);
        // The mark behind the first record may still be written: either may be struck.
        disk.inject(Fault::write_error(1));
        let known = Arc::new(Mutex::new(vec![record(0)]));
        let appender = |bytes: &'static [u8]| {
            let (log, disk, known) = (log.clone(), disk.clone(), known.clone());
            move || {
                for _ in 0..2 {
                    if let Ok(offset) = log.append(bytes) {
                        acknowledged(&log, &disk, offset, bytes);
                        known.lock().unwrap().push(bytes.to_vec());
                    }
                }
            }
        };
        at_once(threads![appender(b"a"), appender(b"b")]);
        let mut known = known.lock().unwrap().clone();
        end(log);
        found(&disk, Loss::Nothing, |log| {
            let mut there: Vec<_> = log.records(..).map(|record| record.unwrap().to_vec()).collect();
            there.sort();
            known.sort();
            assert_eq!(there, known, "G2: not what was acknowledged");
        });
    });
}

/// A leader that panics takes nobody with it, and nobody after it is acknowledged for its work.
/// (It once poisoned the log only after its stack had let go of the sync stage: the next leader found
/// the groups written, no store dirty, and acknowledged without an fsync.)
///
/// The committer's own panic is not tried: shuttle ends an execution in which a thread dies of one.
#[test]
fn a_leader_that_panics() {
    tried_wider(|| {
        let panicking = Panicking::new(disk());
        let disk = panicking.inner.clone();
        let log = open(manual(panicking.clone()), 1);
        panicking.strike(Some(".store"));
        let panics = Arc::new(AtomicU64::new(0));
        let waiter = |bytes: &'static [u8]| {
            let (log, panics) = (log.clone(), panics.clone());
            move || match catch_unwind(AssertUnwindSafe(|| {
                log.submit(bytes).and_then(|ticket| ticket.wait())
            })) {
                Ok(outcome) => refused(outcome),
                Err(_) => assert!(panics.fetch_add(1, Ordering::Relaxed) < 2),
            }
        };
        at_once(threads![waiter(b"a"), waiter(b"b")]);
        assert!(panics.load(Ordering::Relaxed) >= 1, "nobody led");
        panicking.strike(None);
        refused(log.append(b"late"));
        refused(log.sync());
        end(log);
        found(&disk, Loss::Nothing, |log| assert_eq!(&*log.read(0).unwrap(), record(0)));
    });
}

/// A truncation that panics has stopped the writer: who waits for it to go on is told, and nobody
/// waits for ever.
#[test]
fn a_truncation_that_panics() {
    tried(|| {
        let panicking = Panicking::new(disk());
        let disk = panicking.inner.clone();
        let log = open(options(panicking.clone()), 3);
        panicking.strike(Some("MANIFEST"));
        let (a, b) = (log.clone(), log.clone());
        let survivor = disk.clone();
        at_once(threads![
            move || {
                let truncated = catch_unwind(AssertUnwindSafe(|| a.truncate_back(1)));
                assert!(truncated.is_err(), "its fsync panics");
            },
            move || {
                // Before the truncation, which may have been under way when the power failed.
                if let Ok(offset) = b.append(b"b") {
                    assert_eq!(offset, 3);
                    let end = found(&survivor, Loss::Nothing, |log| log.offsets().end);
                    assert!([1, 4].contains(&end), "{end}");
                }
            },
        ]);
        panicking.strike(None);
        refused(log.append(b"late"));
        refused(log.truncate_back(0));
        end(log);
    });
}

/// An append beside a close is taken, and then durable, or refused, and then absent.
#[test]
fn a_close_beside_appends() {
    search(BOUND, || close_beside(false));
    sample(SEEDS, || close_beside(true));
}

fn close_beside(two: bool) {
    let disk = disk();
    let log = open(options(disk.clone()), 1);
    let taken = Arc::new(Mutex::new(vec![record(0)]));
    let appender = |bytes: &'static [u8]| {
        let (log, disk, taken) = (log.clone(), disk.clone(), taken.clone());
        move || match log.submit(bytes) {
            Ok(ticket) => {
                acknowledged(&log, &disk, ticket.wait().unwrap().start, bytes);
                taken.lock().unwrap().push(bytes.to_vec());
            }
            Err(error) => assert!(matches!(error, Error::Closed), "{error}"),
        }
    };
    let closer = log.clone();
    let mut threads = threads![appender(b"a"), move || closer.close().unwrap()];
    if two {
        threads.push(Box::new(appender(b"b")));
    }
    at_once(threads);
    assert!(matches!(log.append(b"late"), Err(Error::Closed)));
    log.close().unwrap();
    end(log);
    found(&disk, Loss::Nothing, |log| assert!(log.recovery().clean, "closed, and not clean"));
    let taken = taken.lock().unwrap().clone();
    holds(&disk, &taken.iter().map(Vec::as_slice).collect::<Vec<_>>());
}

/// The last of two handles closes the log, whichever it is, with a record on its way.
#[test]
fn the_last_handle_goes() {
    tried_wider(|| {
        let disk = disk();
        let log = open(manual(disk.clone()), 1);
        let other = log.clone();
        at_once(threads![
            move || {
                log.append(b"a").unwrap();
                drop(log);
            },
            move || drop(other),
        ]);
        found(&disk, Loss::Nothing, |log| assert!(log.recovery().clean, "dropped, and not clean"));
        holds(&disk, &[b"record 0", b"a"]);
    });
}

/// The last handle goes in a waker, which runs on the log's own committer, or on whoever led.
#[test]
fn the_last_handle_goes_in_a_waker() {
    struct Holder(Mutex<Option<Log>>, AtomicBool);
    impl Wake for Holder {
        fn wake(self: Arc<Self>) {
            let log = self.0.lock().unwrap().take();
            drop(log);
            self.1.store(true, Ordering::Relaxed);
        }
    }
    tried(|| {
        let disk = disk();
        let log = open(options(disk.clone()), 1);
        let other = log.clone();
        at_once(threads![
            move || {
                let mut ticket = Box::pin(log.submit(b"a").unwrap());
                let holder = Arc::new(Holder(Mutex::new(Some(log)), AtomicBool::new(false)));
                let waker = Waker::from(holder.clone());
                while ticket.as_mut().poll(&mut Context::from_waker(&waker)).is_pending() {
                    thread::yield_now();
                }
                let log = holder.0.lock().unwrap().take();
                // Where the waker has it, closing goes on in the thread that woke.
                while log.is_none() && !holder.1.load(Ordering::Relaxed) {
                    thread::yield_now();
                }
                drop(log);
            },
            move || drop(other),
        ]);
        found(&disk, Loss::Nothing, |log| assert!(log.recovery().clean, "dropped, and not clean"));
        holds(&disk, &[b"record 0", b"a"]);
    });
}
