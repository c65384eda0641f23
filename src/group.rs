//! Groups and tickets: who waits for what.
//!
//! A group is what one commit covers. It owns the outcome of that commit and the list of those who
//! wait for it, each to be woken by itself. It does not know how a commit is done. Invariants: an
//! outcome is set once and never changes; nobody registered before the outcome is forgotten; wakers
//! run outside locks.
//!
//! Why a group object and not "durable end >= my offset": after a failed group is cut its offsets
//! are given to other records, and a waiter that compared numbers would take their durability for
//! its own.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::thread::Thread;

use crate::commit::Core;
use crate::error::Result;

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
    pub(crate) fn register(&self, waiter: Waiter) -> Option<Result<()>> {
        let mut state = self.state();
        if state.outcome.is_none() {
            state.waiters.push(waiter);
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

/// Records that were accepted and are on their way to the disk; see [`Log::submit`](crate::Log::submit).
///
/// Wait for it with [`Ticket::wait`], or `.await` it on any runtime. Dropping it cancels nothing.
#[derive(Debug)]
#[must_use = "a ticket says when its records are durable; dropping it leaves that unknown"]
pub struct Ticket {
    pub(crate) core: Arc<Core>,
    pub(crate) group: Arc<Group>,
    pub(crate) offsets: Range<u64>,
}

impl Ticket {
    /// The offsets of the submitted records. They are final once the ticket was waited for.
    pub fn offsets(&self) -> Range<u64> {
        self.offsets.clone()
    }

    /// Whether the records are durable (`true`), or on their way, or failed (`false`).
    pub fn is_durable(&self) -> bool {
        matches!(self.group.outcome(), Some(Ok(())))
    }

    /// Waits until the records are durable, and demands a commit in every durability mode.
    ///
    /// # Errors
    /// Whatever kept the records from becoming durable.
    pub fn wait(self) -> Result<Range<u64>> {
        self.core.wait(&self.group)?;
        Ok(self.offsets)
    }
}

impl Future for Ticket {
    type Output = Result<Range<u64>>;

    fn poll(
        self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<Range<u64>>> {
        let outcome = self.group.outcome();
        let outcome = outcome.or_else(|| self.group.register(Waiter::Task(context.waker().clone())));
        match outcome {
            Some(outcome) => std::task::Poll::Ready(outcome.map(|()| self.offsets.clone())),
            None => {
                self.core.demand_commit();
                // Inline background work may have settled it just now.
                match self.group.outcome() {
                    Some(outcome) => std::task::Poll::Ready(outcome.map(|()| self.offsets.clone())),
                    None => std::task::Poll::Pending,
                }
            }
        }
    }
}
