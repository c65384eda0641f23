//! What an edit let go of and the filesystem has not taken back yet: files that are still to be removed, and files
//! without a name that are still to be closed.
//!
//! It owns the two lists and who works them off. It does not know why a segment was dropped. Invariants: an id comes
//! here only once the edit that drops it is durable, so that a file which stays behind after a crash is the next
//! opening's to remove; a file comes here only once it is durable that its name is gone, so that a crash closes it;
//! whoever finds the disk full has everything here gone before it gives up.
//!
//! Why not at once, by who truncates or opens: to free 64 MiB takes the filesystem some ten milliseconds, most of it for
//! the pages in memory, and neither is more durable for it. Why two lists: a truncation need not even wait for a
//! directory to be fsynced; an opening must, as it may stand on a full disk.

use std::sync::Arc;

use crate::disk::DiskFile;
use crate::segment::Place;
use crate::sync::{Mutex, PoisonError, TryLockError};

/// See the module's documentation.
#[derive(Debug, Default)]
pub(crate) struct Dropped {
    waiting: Mutex<Waiting>,
    /// Held while files are removed and closed.
    removing: Mutex<()>,
}

#[derive(Debug, Default)]
struct Waiting {
    ids: Vec<u64>,
    unlinked: Vec<Arc<dyn DiskFile>>,
}

impl Dropped {
    /// Takes in the ids of dropped segments.
    pub(crate) fn add(&self, ids: &[u64]) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).ids.extend(ids);
    }

    /// Takes in files that have no name any more: each the last handle of its file.
    pub(crate) fn add_unlinked(&self, files: Vec<Arc<dyn DiskFile>>) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).unlinked.extend(files);
    }

    /// Removes and closes what there is; whether there was anything, for this call or for one that it waited for.
    pub(crate) fn remove_all(&self, place: &Place) -> bool {
        let (waited, _removing) = match self.removing.try_lock() {
            Ok(removing) => (false, removing),
            Err(TryLockError::Poisoned(poisoned)) => (false, poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => {
                (true, self.removing.lock().unwrap_or_else(PoisonError::into_inner))
            }
        };
        let Waiting { ids, unlinked } =
            std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        place.remove_files(&ids);
        let any = waited || !ids.is_empty() || !unlinked.is_empty();
        // Closed before anybody is told, under the lock that others wait for.
        drop(unlinked);
        any
    }

    /// Closes what has no name, or waits for who is at it: what ends a log, however it ends, keeps no space.
    pub(crate) fn close_unlinked(&self) {
        let _removing = self.removing.lock().unwrap_or_else(PoisonError::into_inner);
        let unlinked =
            std::mem::take(&mut self.waiting.lock().unwrap_or_else(PoisonError::into_inner).unlinked);
        drop(unlinked);
    }
}
