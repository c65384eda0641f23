//! What the process is doing when it is killed: the phases that kills are aimed at.
//!
//! A phase is named by the child right before the call and right after it, so that the parent can wait
//! for one and strike within it. One more phase (a snapshot, a repair) is one more line in [`PHASES`],
//! one more arm in the child's work that does it, and, where it promises something of its own, one
//! more check of what it left.

use std::fmt;
use std::str::FromStr;

/// One thing that the log is asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Opening a directory that holds no log yet.
    Begin,
    /// Opening after a kill, where records must be copied.
    Recover,
    /// Opening after a clean close.
    Reopen,
    Append,
    Batch,
    Submit,
    /// A batch that does not fit into the active segment.
    Roll,
    /// After a roll, until the keeper has written the old segment's index and its Seal.
    Seal,
    TruncateFront,
    /// Truncating the front beyond the end.
    SkipForward,
    TruncateBack,
    PutMeta,
    Close,
}

/// Every phase, its name, and how many times it may pass before the blow comes.
const PHASES: [(Phase, &str, u64); 13] = [
    (Phase::Begin, "begin", 1),
    (Phase::Recover, "recover", 1),
    (Phase::Reopen, "reopen", 2),
    (Phase::Append, "append", 60),
    (Phase::Batch, "batch", 30),
    (Phase::Submit, "submit", 30),
    (Phase::Roll, "roll", 6),
    (Phase::Seal, "seal", 6),
    (Phase::TruncateFront, "truncate-front", 6),
    (Phase::SkipForward, "skip-forward", 1),
    (Phase::TruncateBack, "truncate-back", 2),
    (Phase::PutMeta, "put-meta", 6),
    (Phase::Close, "close", 2),
];

impl Phase {
    pub fn all() -> Vec<Phase> {
        PHASES.iter().map(|(phase, _, _)| *phase).collect()
    }

    /// One of so many of its occurrences is struck.
    pub fn occurrences(self) -> u64 {
        PHASES.iter().find(|(phase, _, _)| *phase == self).map_or(1, |(_, _, most)| *most)
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = PHASES.iter().find(|(phase, _, _)| phase == self).map_or("?", |(_, name, _)| name);
        f.pad(name)
    }
}

impl FromStr for Phase {
    type Err = ();

    fn from_str(text: &str) -> Result<Phase, ()> {
        PHASES.iter().find(|(_, name, _)| *name == text).map(|(phase, _, _)| *phase).ok_or(())
    }
}
