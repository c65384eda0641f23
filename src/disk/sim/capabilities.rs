//! What the simulated device and its file system promise.
//!
//! It owns the promises, as one value that a run declares. It does not know how they are kept: `loss` keeps
//! the order of names, `medium` the entries, `growth` the bytes.
//!
//! Invariant: the defaults are the least that a log may rest on, but for the bytes of a file that grew.
//! Why these are zeros by default and not stale: most file systems give zeros, and seeds that were kept
//! must go on meaning the same run.

use crate::disk::SECTOR_BYTES;

/// What the simulated device and file system promise, beyond the least that every one does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Capabilities {
    /// The piece that is written whole or not at all, in bytes; 0 counts as 1. Default 512.
    pub sector_bytes: u64,
    /// Whether the changes of all directories become durable in the order in which they were made (as with
    /// one journal), so that a later one is never found without the earlier ones. Default: no.
    pub directory_operations_in_order: bool,
    /// Whether the sync of a file makes its name durable too. Default: no.
    pub file_sync_persists_entry: bool,
    /// What is found where a file got longer and a power loss took the bytes. Default: zeros.
    pub unwritten_bytes: UnwrittenBytes,
}

impl Default for Capabilities {
    fn default() -> Self {
        Self {
            sector_bytes: SECTOR_BYTES,
            directory_operations_in_order: false,
            file_sync_persists_entry: false,
            unwritten_bytes: UnwrittenBytes::Zeros,
        }
    }
}

/// What is found, after a power loss, in the part of a file that was not yet durable: whether its length
/// may have got there without its bytes, and what is read then.
///
/// What was reserved or extended *and synced* reads as zeros under each of them, as on every file system.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum UnwrittenBytes {
    /// Length and bytes come together: a file is found longer only as far as everything in between is
    /// there too (ext4 with `data=ordered`). A change whose foundation a [`Loss`](super::Loss) drops falls
    /// with it.
    Never,
    /// The length may come alone; zeros are read there.
    #[default]
    Zeros,
    /// The length may come alone, and what is read there is what the blocks held before (`data=writeback`):
    /// whole or in pieces a file that was removed or replaced on this disk, other bytes, or zeros, sector by
    /// sector, by the seed. Not under [`Loss::Everything`](super::Loss::Everything), which is as if all had
    /// been synced.
    Stale,
}
