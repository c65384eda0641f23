//! What an opening found and did, for the caller and the operator.
//!
//! It owns plain data and its display. It decides nothing.

use std::fmt;
use std::ops::Range;

use super::verdict::Verdict;

/// Bytes that were cut, and where they still are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CutTail {
    /// The file that held them.
    pub file: String,
    /// Where in that file they were.
    pub positions: Range<u64>,
    /// Whether the file went to `quarantine/`; otherwise they stay beyond the file's seal.
    pub quarantined: bool,
}

/// What opening a log found and did; see [`Log::recovery`](crate::Log::recovery).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovery {
    /// The log was begun by this opening (there was none, or a beginning was never finished).
    pub begun: bool,
    /// The log had been closed: nothing was scanned.
    pub clean: bool,
    /// The judgement.
    pub verdict: Verdict,
    /// The proven end p: everything below was proven acknowledged.
    pub proven_end: u64,
    /// How p is known.
    pub proof: String,
    /// The valid end v: how far whole records reached.
    pub valid_end: u64,
    /// The offset the next record gets.
    pub next_offset: u64,
    /// Bytes of frames that were read to find out.
    pub scanned_bytes: u64,
    /// Records copied into a fresh segment, as they may have been in the page cache alone.
    pub copied: Range<u64>,
    /// Bytes that were not proven acknowledged and are no part of the log any more.
    pub cut: Vec<CutTail>,
    /// Files that were removed: unfinished drops, unfinished preparations, copied stores.
    pub removed: Vec<String>,
    /// Files that were moved to `quarantine/`.
    pub quarantined: Vec<String>,
    /// Records that cannot be served.
    pub damaged: Vec<Range<u64>>,
}

impl fmt::Display for Recovery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.begun {
            return write!(f, "a new log, starting at offset {}", self.next_offset);
        }
        if self.clean {
            write!(f, "closed cleanly at offset {}; nothing had to be scanned", self.next_offset)?;
        } else {
            write!(
                f,
                "ended without a close; {} bytes scanned; {} ({}); whole records reach to {}",
                self.scanned_bytes,
                self.proof,
                match self.verdict {
                    Verdict::Clean => "nothing torn",
                    Verdict::Tear => "a torn tail behind",
                    Verdict::Damage => "DAMAGE",
                },
                self.valid_end,
            )?;
        }
        if !self.copied.is_empty() {
            write!(
                f,
                "; records {}..{} copied to a fresh segment and synced",
                self.copied.start, self.copied.end
            )?;
        }
        for cut in &self.cut {
            write!(
                f,
                "; cut {} bytes at byte {} of {}, not proven acknowledged, kept {}",
                cut.positions.end - cut.positions.start,
                cut.positions.start,
                cut.file,
                if cut.quarantined { "in quarantine/" } else { "beyond its seal" }
            )?;
        }
        for range in &self.damaged {
            write!(f, "; records {}..{} are damaged and cannot be served", range.start, range.end)?;
        }
        write!(f, "; next offset {}", self.next_offset)
    }
}
