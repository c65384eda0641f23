//! Files of segments that an edit let go of, until they are removed.
//!
//! It owns the list and who removes. It does not know why a segment was dropped. Invariants: an id comes here only
//! once the edit that drops it is durable, so that a file which stays behind after a crash is the next opening's to
//! remove; whoever finds the disk full has everything here removed before it gives up.
//!
//! Why not at once, by who truncates: to free 64 MiB takes the filesystem some ten milliseconds, most of it for the
//! pages in memory, and a truncation is durable without it.

use crate::segment::Place;
use crate::sync::{Mutex, PoisonError, TryLockError};

/// See the module's documentation.
#[derive(Debug, Default)]
pub(crate) struct Dropped {
    ids: Mutex<Vec<u64>>,
    /// Held while files are removed.
    removing: Mutex<()>,
}

impl Dropped {
    /// Takes in the ids of dropped segments.
    pub(crate) fn add(&self, ids: &[u64]) {
        self.ids.lock().unwrap_or_else(PoisonError::into_inner).extend(ids);
    }

    /// Removes what there is; whether anything was removed, by this call or by one that it waited for.
    pub(crate) fn remove_all(&self, place: &Place) -> bool {
        let (waited, _removing) = match self.removing.try_lock() {
            Ok(removing) => (false, removing),
            Err(TryLockError::Poisoned(poisoned)) => (false, poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => {
                (true, self.removing.lock().unwrap_or_else(PoisonError::into_inner))
            }
        };
        let ids = std::mem::take(&mut *self.ids.lock().unwrap_or_else(PoisonError::into_inner));
        place.remove_files(&ids);
        waited || !ids.is_empty()
    }
}
