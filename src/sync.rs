//! Where the engine takes its locks, atomics and threads from.
//!
//! It owns one choice: std's primitives, or those of `shuttle` where the crate is built with
//! `--cfg shuttle`, so that a test can try every order in which threads may meet. It knows nothing
//! of what they guard. Invariant: without that cfg every name here is std's (or `arc_swap`'s) own,
//! and nothing is added to it.
//!
//! Under shuttle all threads take turns on one thread of the system, and change places only at a
//! *scheduling point*: before an atomic operation, at a lock, at a park. So what is shared and not
//! named here must not be held across one, and is seen to change only at the points around it:
//!
//! - A lock of std that is held across a scheduling point would stop everybody. `SimDisk` has one,
//!   within each call; the call begins with a scheduling point, so that I/O interleaves too.
//! - [`OnceLock`] and [`ArcSwap`] stay what they are: their own code has no scheduling point in it, nor
//!   have the closures that the engine gives them. Here they get one in front, as others see what
//!   they publish. A cache, which gives the same whoever filled it (an opened store, a loaded index),
//!   takes `OnceLock` from std and is not explored.
//! - Counters, and the entries behind an index's count, stay std's for the same reason: the
//!   atomic that publishes them is here.
//!
//! Shuttle takes every atomic operation as sequentially consistent. It does not find an ordering that
//! is too weak.
//!
//! Why a cfg and not a cargo feature: features are unified. One dependant that switched it on would
//! switch it on for all.

/// Whether threads are explored. Then a log's pieces are so small that a few records fill them: their number is what
/// makes the orders to try many.
pub(crate) const EXPLORED: bool = cfg!(shuttle);

#[cfg(not(shuttle))]
pub(crate) use arc_swap::ArcSwap;
#[cfg(not(shuttle))]
pub(crate) use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError, TryLockError};

#[cfg(not(shuttle))]
pub(crate) mod atomic {
    pub(crate) use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
}

#[cfg(not(shuttle))]
pub(crate) mod thread {
    pub(crate) use std::thread::{Builder, JoinHandle, Thread, current, park, park_timeout, yield_now};
}

/// Threads that end before the call that made them, for work on a disk that has threads. Std's in either case:
/// no disk that is explored has any.
pub(crate) mod scoped {
    pub(crate) use std::thread::{Builder, available_parallelism, scope};
}

#[cfg(shuttle)]
pub(crate) use explored::{ArcSwap, OnceLock};
#[cfg(shuttle)]
pub(crate) use shuttle::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

#[cfg(shuttle)]
pub(crate) mod atomic {
    pub(crate) use shuttle::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
}

#[cfg(shuttle)]
pub(crate) mod thread {
    // Time is not explored: `park_timeout` is `park`, which may wake for no reason.
    pub(crate) use shuttle::thread::{Builder, JoinHandle, Thread, current, park, park_timeout, yield_now};
}

/// Lets other threads in, where they are explored; otherwise nothing.
#[cfg(shuttle)]
pub(crate) fn scheduling_point() {
    // Outside an exploration (a value that outlives its test) there is nobody to let in.
    if shuttle::current::try_get_current_task().is_some() {
        shuttle::thread::sleep(std::time::Duration::ZERO);
    }
}

#[cfg(shuttle)]
mod explored {
    use std::sync::Arc;

    use super::scheduling_point;

    /// [`std::sync::OnceLock`], with a scheduling point before each use.
    #[derive(Debug)]
    pub(crate) struct OnceLock<T>(std::sync::OnceLock<T>);

    impl<T> Default for OnceLock<T> {
        fn default() -> Self {
            Self::new()
        }
    }

    impl<T> OnceLock<T> {
        pub(crate) const fn new() -> Self {
            Self(std::sync::OnceLock::new())
        }

        pub(crate) fn get(&self) -> Option<&T> {
            scheduling_point();
            self.0.get()
        }

        pub(crate) fn set(&self, value: T) -> Result<(), T> {
            scheduling_point();
            self.0.set(value)
        }

        pub(crate) fn get_or_init(&self, init: impl FnOnce() -> T) -> &T {
            scheduling_point();
            self.0.get_or_init(init)
        }
    }

    /// [`arc_swap::ArcSwap`], with a scheduling point before each use.
    pub(crate) struct ArcSwap<T>(arc_swap::ArcSwap<T>);

    impl<T> ArcSwap<T> {
        pub(crate) fn from_pointee(value: T) -> Self {
            Self(arc_swap::ArcSwap::from_pointee(value))
        }

        pub(crate) fn load(&self) -> arc_swap::Guard<Arc<T>> {
            scheduling_point();
            self.0.load()
        }

        pub(crate) fn load_full(&self) -> Arc<T> {
            scheduling_point();
            self.0.load_full()
        }

        pub(crate) fn rcu(&self, change: impl FnMut(&Arc<T>) -> T) -> Arc<T> {
            scheduling_point();
            self.0.rcu(change)
        }
    }
}
