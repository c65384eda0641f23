//! Moments: the disk as it stood before each change, kept while a run goes on.
//!
//! It owns the list of moments and when one is added. It does not know what a crash does with a moment
//! (that is the caller's: see [`SimDisk::power_loss`]).
//!
//! Invariant: crashing a run at its n-th mutation, and taking the moment before that mutation from an
//! undisturbed run of the same seed and calls, give the same disk.
//!
//! Why this and not one run for each step: a search over all crashes runs every operation once instead of
//! once for each of its steps, and a moment costs no more than a fork.

use std::sync::{Arc, Mutex};

use super::{SimDisk, State};

/// The disk at one moment of a run, see [`SimDisk::record_moments`].
#[derive(Debug, Clone)]
pub struct Moment {
    /// The disk as it was, with no handle open on it.
    pub disk: SimDisk,
    /// The number of the mutation that comes next (1 = the disk's first), or that is half done.
    pub mutation: u64,
    /// Whether a part of that mutation, a write, is done: a prefix of its bytes, none to all, by the seed.
    pub mid_write: bool,
}

impl SimDisk {
    /// Starts to keep the moment before every mutation, and one in the middle of every write; or stops, and
    /// drops those kept.
    pub fn record_moments(&self, on: bool) {
        self.state().moments = on.then(Vec::new);
    }

    /// The moments kept since they were last taken.
    #[must_use]
    pub fn take_moments(&self) -> Vec<Moment> {
        self.state().moments.as_mut().map(std::mem::take).unwrap_or_default()
    }
}

impl State {
    /// Keeps the moment before the mutation that is about to be done.
    pub(super) fn note_moment(&mut self) {
        let mutation = self.mutations + 1;
        self.keep_moment(mutation, false, |_| {});
    }

    /// Keeps the moment in the middle of a write.
    pub(super) fn note_mid_write(&mut self, file: u64, bytes: &[u8], position: u64) {
        let mutation = self.mutations;
        self.keep_moment(mutation, true, |state| {
            let count = state.chance.below_length(bytes.len().saturating_add(1));
            // Whether it fits is all the same: nobody is told.
            drop(state.medium.write(file, bytes.get(..count).unwrap_or(bytes), position));
        });
    }

    fn keep_moment(&mut self, mutation: u64, mid_write: bool, change: impl FnOnce(&mut State)) {
        let Some(mut moments) = self.moments.take() else { return };
        let mut then = self.clone();
        change(&mut then);
        then.medium.close_all();
        then.locks.clear();
        moments.push(Moment { disk: SimDisk { state: Arc::new(Mutex::new(then)) }, mutation, mid_write });
        self.moments = Some(moments);
    }
}
