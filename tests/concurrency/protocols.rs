//! Groups and signals by themselves: every schedule there is with one wake-up for
//! no reason, or nearly.
//!
//! What is asserted is that everyone comes to an end; shuttle reports who does not as a deadlock.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use shuttle::thread;

use crate::error::Result;
use crate::group::{Group, Waiter, Waiting};
use crate::scheduler::{Bound, search};
use crate::signal::Signal;

/// No bound that a schedule of this length could reach.
const EVERY: Bound = Bound { preemptions: 100, wakes: 1, schedules: 2_000_000 };
/// Three threads have millions of schedules; these are those with few preemptions.
const MOST: Bound = Bound { preemptions: 4, ..EVERY };

fn failure() -> Result<()> {
    Err(stonelog::Error::Closed)
}

/// Waits as `commit` does, but for leading.
fn wait(group: &Group) -> Result<()> {
    let _waiting = Waiting(group);
    loop {
        if let Some(outcome) = group.outcome() {
            return outcome;
        }
        if let Some(outcome) = group.register(Waiter::Thread(thread::current()), true) {
            return outcome;
        }
        thread::park();
    }
}

fn settle(group: &Group, outcome: Result<()>) {
    for waiter in group.settle(outcome) {
        waiter.wake();
    }
}

#[test]
fn a_settled_group_wakes_a_thread_and_a_task() {
    search(MOST, || {
        let group = Arc::new(Group::default());
        let waiter = {
            let group = group.clone();
            thread::spawn(move || assert!(wait(&group).is_ok()))
        };
        let task = {
            let group = group.clone();
            thread::spawn(move || {
                let outcome = shuttle::future::block_on(std::future::poll_fn(|context| {
                    let waiter = Waiter::Task(context.waker().clone());
                    match group.outcome().or_else(|| group.register(waiter, true)) {
                        Some(outcome) => std::task::Poll::Ready(outcome),
                        None => std::task::Poll::Pending,
                    }
                }));
                assert!(outcome.is_ok());
            })
        };
        settle(&group, Ok(()));
        waiter.join().unwrap();
        task.join().unwrap();
    });
}

#[test]
fn the_first_outcome_is_everyones() {
    search(MOST, || {
        let group = Arc::new(Group::default());
        let waiter = {
            let group = group.clone();
            thread::spawn(move || wait(&group).is_ok())
        };
        let other = {
            let group = group.clone();
            thread::spawn(move || settle(&group, failure()))
        };
        settle(&group, Ok(()));
        other.join().unwrap();
        let told = waiter.join().unwrap();
        assert_eq!(group.outcome().map(|outcome| outcome.is_ok()), Some(told));
    });
}

/// The one who settles wakes two, and they the others; one of these had seen the outcome by itself.
#[test]
fn those_who_leave_wake_the_others() {
    search(Bound { preemptions: 2, ..EVERY }, || {
        let group = Arc::new(Group::default());
        let waiters: Vec<_> = (0..3)
            .map(|_| {
                let group = group.clone();
                thread::spawn(move || wait(&group).is_ok())
            })
            .collect();
        settle(&group, Ok(()));
        for waiter in waiters {
            assert!(waiter.join().unwrap());
        }
    });
}

/// The one who is asked to lead settles the group in turn, and forgets nobody.
#[test]
fn a_leader_that_was_picked_settles_for_the_others() {
    search(MOST, || {
        let group = Arc::new(Group::default());
        let leads = Arc::new(AtomicU32::new(0));
        let waiters: Vec<_> = (0..2)
            .map(|_| {
                let (group, leads) = (group.clone(), leads.clone());
                thread::spawn(move || {
                    let _waiting = Waiting(&group);
                    loop {
                        if let Some(outcome) = group.outcome() {
                            return outcome.is_ok();
                        }
                        if let Some(outcome) = group.register(Waiter::Thread(thread::current()), true) {
                            return outcome.is_ok();
                        }
                        // Both are needed before anyone is picked.
                        if leads.fetch_add(1, Ordering::Relaxed) == 1
                            && let Some(leader) = group.next_leader()
                        {
                            leader.wake();
                            settle(&group, Ok(()));
                        }
                        thread::park();
                    }
                })
            })
            .collect();
        for waiter in waiters {
            assert!(waiter.join().unwrap());
        }
    });
}

/// Every demand is met after it was made, and the thread ends when it is told to.
#[test]
fn no_demand_is_lost() {
    search(MOST, || {
        let signal = Arc::new(Signal::default());
        // What was asked for, and what was found when the demand was met.
        let (asked, met) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
        let committer = {
            let (signal, asked, met) = (signal.clone(), asked.clone(), met.clone());
            thread::spawn(move || {
                let _ = signal.committer.set(thread::current());
                while met.load(Ordering::Relaxed) < 2 {
                    if signal.take(Signal::COMMIT) {
                        met.store(asked.load(Ordering::Relaxed), Ordering::Relaxed);
                    } else if !signal.is_demanded(Signal::COMMIT) {
                        thread::park();
                    }
                }
            })
        };
        let other = {
            let (signal, asked) = (signal.clone(), asked.clone());
            thread::spawn(move || {
                asked.fetch_add(1, Ordering::Relaxed);
                signal.demand(Signal::COMMIT);
            })
        };
        asked.fetch_add(1, Ordering::Relaxed);
        signal.demand(Signal::COMMIT);
        other.join().unwrap();
        committer.join().unwrap();
        assert_eq!(met.load(Ordering::Relaxed), 2);
    });
}

#[test]
fn a_thread_that_is_stopped_ends() {
    search(EVERY, || {
        let signal = Arc::new(Signal::default());
        let keeper = {
            let signal = signal.clone();
            thread::spawn(move || {
                let _ = signal.keeper.set(thread::current());
                while !signal.stopping() {
                    if !signal.take(Signal::KEEP) {
                        thread::park();
                    }
                }
            })
        };
        signal.demand(Signal::KEEP);
        signal.stop();
        keeper.thread().unpark();
        keeper.join().unwrap();
    });
}
