//! Groups: who waits for what.
//!
//! A group is what one commit covers. It owns the outcome of that commit and the list of those who
//! wait for it, each to be woken by itself. It does not know how a commit is done. Invariants: an
//! outcome is set once and never changes; nobody registered before the outcome is forgotten; wakers
//! run outside locks.
//!
//! To wake a thread costs its waker some microseconds, and a leader that wakes dozens keeps the next
//! group waiting. So it wakes the tasks and two threads, and each thread that leaves wakes two
//! more ([`Waiting`]). Nobody is left behind: whoever was woken and had left already woke its two as it
//! left, so as long as anyone sleeps, more were woken than have left, and the rest of them will wake more.
//! Even one that panics, and so wakes nobody, is made up for.
//!
//! Why a group object and not "durable end >= my offset": after a failed group is cut its offsets
//! are given to other records, and a waiter that compared numbers would take their durability for
//! its own.

use std::task::Waker;

use crate::error::Result;
use crate::sync::atomic::{AtomicBool, AtomicU32, Ordering};
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

/// How many threads each thread wakes as it leaves.
const WAKES_EACH: usize = 2;

/// What one commit covers.
#[derive(Default)]
pub(crate) struct Group {
    /// [`OPEN`], [`DURABLE`] or [`FAILED`]: so that those who come later need no lock.
    settled: AtomicU32,
    /// Whether threads of the settled group are still to be woken.
    chained: AtomicBool,
    state: Mutex<GroupState>,
}

const OPEN: u32 = 0;
const DURABLE: u32 = 1;
const FAILED: u32 = 2;

impl std::fmt::Debug for Group {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Group({:?})", self.outcome())
    }
}

/// The wait of a thread that may have registered. As it ends it wakes the next.
pub(crate) struct Waiting<'a>(pub(crate) &'a Group);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if self.0.chained.load(Ordering::Acquire) {
            let next = self.0.next_threads(&mut self.0.state());
            next.into_iter().for_each(Waiter::wake);
        }
    }
}

impl Group {
    fn state(&self) -> MutexGuard<'_, GroupState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The outcome, once there is one.
    #[inline]
    pub(crate) fn outcome(&self) -> Option<Result<()>> {
        match self.settled.load(Ordering::Acquire) {
            OPEN => None,
            DURABLE => Some(Ok(())),
            _ => self.state().outcome.clone(),
        }
    }

    /// Sets the outcome, unless there is one, and hands over those to be woken: the tasks, and the
    /// threads that begin the chain.
    pub(crate) fn settle(&self, outcome: Result<()>) -> Vec<Waiter> {
        let mut state = self.state();
        let settled = if state.outcome.get_or_insert(outcome).is_ok() { DURABLE } else { FAILED };
        let waiters = std::mem::take(&mut state.waiters);
        let (tasks, threads) = waiters.into_iter().partition(|waiter| matches!(waiter, Waiter::Task(_)));
        state.waiters = threads;
        // Threads first: a task's waker is somebody else's code, and may take its time.
        let mut first = self.next_threads(&mut state);
        first.extend::<Vec<_>>(tasks);
        // Last of all: whoever sees it sees the rest.
        self.settled.store(settled, Ordering::Release);
        first
    }

    /// The threads to be woken next, of a settled group.
    fn next_threads(&self, state: &mut GroupState) -> Vec<Waiter> {
        let kept = state.waiters.len().saturating_sub(WAKES_EACH);
        let next = state.waiters.split_off(kept);
        self.chained.store(kept > 0, Ordering::Release);
        next
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
