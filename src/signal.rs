//! The signal between those who append and the background.
//!
//! It owns a set of demands and the threads to wake for them. It does not know how a demand is met.
//! Invariant: no demand is lost: it is set before its thread is woken, and taken back before the
//! work is looked at.

use crate::sync::OnceLock;
use crate::sync::atomic::{AtomicU32, Ordering};
use crate::sync::thread::Thread;

/// What the background is asked for.
#[derive(Default)]
pub(crate) struct Signal {
    demands: AtomicU32,
    pub(crate) committer: OnceLock<Thread>,
    pub(crate) keeper: OnceLock<Thread>,
    pub(crate) scribe: OnceLock<Thread>,
}

impl Signal {
    pub(crate) const COMMIT: u32 = 1;
    pub(crate) const KEEP: u32 = 2;
    pub(crate) const WRITE: u32 = 4;
    const STOP: u32 = 8;

    /// Asks for something; wakes the thread that does it unless it was asked before.
    #[inline]
    pub(crate) fn demand(&self, what: u32) {
        if self.demands.load(Ordering::Acquire) & what != 0 {
            return;
        }
        if self.demands.fetch_or(what, Ordering::AcqRel) & what == 0 {
            let thread = match what {
                Self::COMMIT => &self.committer,
                Self::WRITE => &self.scribe,
                _ => &self.keeper,
            };
            if let Some(thread) = thread.get() {
                thread.unpark();
            }
        }
    }

    /// Whether it was asked for and not taken yet.
    pub(crate) fn is_demanded(&self, what: u32) -> bool {
        self.demands.load(Ordering::Acquire) & what != 0
    }

    /// Takes the demand back, as it is about to be met.
    pub(crate) fn take(&self, what: u32) -> bool {
        self.demands.fetch_and(!what, Ordering::AcqRel) & what != 0
    }

    /// Tells the threads to end; they are to be woken.
    pub(crate) fn stop(&self) {
        self.demands.fetch_or(Self::STOP, Ordering::AcqRel);
    }

    /// Whether the threads are to end.
    pub(crate) fn stopping(&self) -> bool {
        self.is_demanded(Self::STOP)
    }
}
