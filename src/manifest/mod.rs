//! The manifest: the write-ahead list of edits that says which segments make up the log.
//!
//! [`edit`] owns an edit's bytes, [`state`] owns what edits add up to, [`file`] owns the MANIFEST
//! file. None of them knows a store or an index. Invariant: the fsynced edit *is* the commit point
//! of every change of structure; first the edit, then the files.

pub mod edit;
pub(crate) mod file;
pub mod state;

pub use edit::{Born, Close, Edit, Seal};
pub(crate) use file::MAX_FILE_BYTES;
pub use file::{FILE_NAME, NEXT_NAME, Reading, Remains, Tail, read, remains};
pub use state::{OffsetRanges, SegmentState, State};
