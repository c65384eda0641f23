//! Groups: who waits for what.
//!
//! A group is what one commit covers. It owns the outcome of that commit and the list of those who
//! wait for it, each to be woken by itself. It does not know how a commit is done. Invariants: an
//! outcome is set once and never changes; nobody registered before the outcome is forgotten; wakers
//! run outside locks.
//!
//! Why a group object and not "durable end >= my offset": after a failed group is cut its offsets
//! are given to other records, and a waiter that compared numbers would take their durability for
//! its own.

use std::task::Waker;

use crate::error::Result;
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::thread::Thread;
use crate::sync::{Mutex, MutexGuard, PoisonError};

/// Someone who waits for a group.
pub(crate) enum Waiter {
    Thread(Thread),
    Task(Waker),
}

impl Waiter {
    pub(crate) fn wake(self) {
        match self {
            Waiter::Thread(thread) => thread.unpark(),
            Waiter::Task(waker) => waker.wake(),
        }
    }
}

#[derive(Default)]
struct GroupState {
    outcome: Option<Result<()>>,
    waiters: Vec<Waiter>,
}

/// What one commit covers.
#[derive(Default)]
pub(crate) struct Group {
    settled: AtomicBool,
    state: Mutex<GroupState>,
}

impl std::fmt::Debug for Group {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Group({:?})", self.outcome())
    }
}

impl Group {
    fn state(&self) -> MutexGuard<'_, GroupState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The outcome, once there is one.
    pub(crate) fn outcome(&self) -> Option<Result<()>> {
        if !self.settled.load(Ordering::Acquire) {
            return None;
        }
        self.state().outcome.clone()
    }

    /// Sets the outcome, unless there is one, and hands over those to be woken.
    pub(crate) fn settle(&self, outcome: Result<()>) -> Vec<Waiter> {
        let mut state = self.state();
        if state.outcome.is_none() {
            state.outcome = Some(outcome);
        }
        self.settled.store(true, Ordering::Release);
        std::mem::take(&mut state.waiters)
    }

    /// Registers a waiter; gives the outcome instead where it is there already.
    /// With `again`, it takes the place of the one that it was registered as before.
    pub(crate) fn register(&self, waiter: Waiter, again: bool) -> Option<Result<()>> {
        let mut state = self.state();
        if state.outcome.is_none() {
            let same = |other: &Waiter| match (other, &waiter) {
                (Waiter::Task(one), Waiter::Task(other)) => one.will_wake(other),
                (Waiter::Thread(one), Waiter::Thread(other)) => one.id() == other.id(),
                _ => false,
            };
            if !again || !state.waiters.iter().any(same) {
                state.waiters.push(waiter);
            }
        }
        state.outcome.clone()
    }

    /// One thread that waits, to be woken as the next leader.
    pub(crate) fn next_leader(&self) -> Option<Waiter> {
        let mut state = self.state();
        let index = state.waiters.iter().position(|waiter| matches!(waiter, Waiter::Thread(_)))?;
        Some(state.waiters.swap_remove(index))
    }
}
