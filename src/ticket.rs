//! Tickets: records on their way to the disk, to be waited for.
//!
//! It owns the two ways to wait, blocking and `.await`. It does not know how a commit is done.
//! Invariant: waiting demands a commit in every durability mode; dropping a ticket cancels nothing.

use std::ops::Range;
use std::sync::Arc;

use crate::commit::Core;
use crate::error::Result;
use crate::group::{Group, Waiter};

/// Records that were accepted and are on their way to the disk; see [`Log::submit`](crate::Log::submit).
///
/// Wait for it with [`Ticket::wait`], or `.await` it on any runtime. Dropping it cancels nothing.
#[derive(Debug)]
#[must_use = "a ticket says when its records are durable; dropping it leaves that unknown"]
pub struct Ticket {
    pub(crate) core: Arc<Core>,
    pub(crate) group: Arc<Group>,
    pub(crate) offsets: Range<u64>,
    /// Whether it was polled before, and so left a waker.
    pub(crate) polled: bool,
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
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<Range<u64>>> {
        let outcome = self.group.outcome();
        let again = std::mem::replace(&mut self.polled, true);
        let outcome = outcome.or_else(|| self.group.register(Waiter::Task(context.waker().clone()), again));
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
