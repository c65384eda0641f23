//! What can go wrong, and what the caller should do about it.
//!
//! It owns [`Error`] and [`Damage`]. It knows no layer: the layers build its values. Invariants:
//! every variant's display says what happened, to which file and position, and the next step; an
//! error can be cloned, because one failed fsync is the answer to everyone who waited on it.

use std::fmt;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A result whose error is a Stonelog [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that a log can answer instead of doing what it was asked.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The disk refused an operation.
    #[error("{action} {} failed{}: {source}. Check the disk and its mount, then try again", path.display(), At(*position))]
    Io {
        /// What was being done, such as "reading".
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The byte position in the file, where there is one.
        position: Option<u64>,
        /// What the operating system said.
        source: Arc<io::Error>,
    },

    /// There is no space left. Nothing that was accepted is lost, and the log goes on once space is
    /// back: free some and call again.
    #[error(
        "no space left for {needed} bytes in {}: nothing that was accepted is lost; free space (or truncate_front) and call again",
        path.display()
    )]
    NoSpace {
        /// The file that had to grow.
        path: PathBuf,
        /// How many bytes it needed.
        needed: u64,
    },

    /// Another process, or another handle of this one, has the log open for writing.
    #[error(
        "{} is held by {}: close the log there, or use open_read_only beside it",
        path.display(), Holder(*pid)
    )]
    Locked {
        /// The lock file.
        path: PathBuf,
        /// The holder's process id, where it could be read.
        pid: Option<u32>,
    },

    /// Acknowledged bytes are not what was written.
    #[error("{0}")]
    Damaged(Box<Damage>),

    /// The record was declared lost by a repair. Its offset will never name other bytes.
    #[error("the record at offset {offset} was declared lost by log-repair: go on with the next offset")]
    Lost {
        /// The record's offset.
        offset: u64,
    },

    /// No record has this offset.
    #[error(
        "there is no record at offset {offset}: this log holds offsets {}..{}",
        offsets.start, offsets.end
    )]
    OutOfRange {
        /// The offset that was asked for.
        offset: u64,
        /// The offsets that can be read.
        offsets: Range<u64>,
    },

    /// A reader stood beyond the end that `truncate_back` left.
    #[error(
        "the log was truncated back to offset {end} while a reader stood at {offset}: start a new reader at or below {end}"
    )]
    Truncated {
        /// Where the reader stood.
        offset: u64,
        /// The end that the truncation left.
        end: u64,
    },

    /// A record or batch is larger than the log takes.
    #[error("{what} of {bytes} bytes is over the limit of {limit}: split it, or raise the limit in Options")]
    TooLarge {
        /// "record" or "batch".
        what: &'static str,
        /// Its size in bytes.
        bytes: u64,
        /// The limit in bytes.
        limit: u64,
    },

    /// `append_at` expected another end of the log. Nothing was appended.
    #[error(
        "append_at expected the next offset to be {expected}, but it is {next}: look at what is there and try again at {next}"
    )]
    UnexpectedOffset {
        /// What the caller expected.
        expected: u64,
        /// The offset the next record will get.
        next: u64,
    },

    /// An earlier failure left it unknown what is on disk. Durable records can still be read; to
    /// append again, open the log anew: recovery then finds out.
    #[error(
        "the log takes no more changes since an earlier failure ({cause}): durable records can still be read; drop this handle and open the log again to go on"
    )]
    Poisoned {
        /// The first failure.
        cause: Arc<Error>,
    },

    /// The log was closed.
    #[error("this log was closed: open it again")]
    Closed,

    /// The log was opened read-only, or serves reads only since a loss cannot be bounded.
    #[error("this log takes no changes: {why}")]
    ReadOnly {
        /// Why, and what to do.
        why: &'static str,
    },

    /// An option has a value that cannot work, or that contradicts the existing log.
    #[error("option {option}: {why}")]
    InvalidOption {
        /// The option's name.
        option: &'static str,
        /// Why it cannot be.
        why: String,
    },

    /// The files were written by a later version of Stonelog.
    #[error(
        "{} has format version {version}, this build reads version {supported}: open it with a newer Stonelog",
        path.display()
    )]
    UnsupportedVersion {
        /// The file.
        path: PathBuf,
        /// Its format version.
        version: u32,
        /// The version that this build reads.
        supported: u32,
    },

    /// A repair (or its undoing) was interrupted. Nothing is lost: it goes on from its journal.
    #[error(
        "{what} of {} was interrupted and is not finished: to finish it run: log-repair {command} {} --apply",
        directory.display(), directory.display()
    )]
    RepairUnfinished {
        /// The log directory.
        directory: PathBuf,
        /// "a repair", or "the undoing of a repair".
        what: &'static str,
        /// The verb of log-repair that finishes it.
        command: &'static str,
    },

    /// A repair cannot be done as asked. Nothing was changed.
    #[error("{why}")]
    RepairRefused {
        /// Why, and what to do next.
        why: String,
    },

    /// The directory changed faster than it could be read (a live writer beside a reader).
    #[error("{} kept changing while it was read: try again", path.display())]
    Busy {
        /// The log directory.
        path: PathBuf,
    },
}

/// What is known of bytes that are not what was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// The log directory.
    pub directory: PathBuf,
    /// The damaged (or missing) file.
    pub file: PathBuf,
    /// The byte position in that file, where it is known.
    pub position: Option<u64>,
    /// The records that cannot be served, where that is known.
    pub offsets: Option<Range<u64>>,
    /// What is wrong with the bytes.
    pub what: String,
    /// How it is known that they were acknowledged, where that is the point.
    pub proof: Option<String>,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "damage in {}{}", self.file.display(), At(self.position))?;
        match &self.offsets {
            Some(offsets) if offsets.end.saturating_sub(offsets.start) == 1 => {
                write!(f, ", the record at offset {}", offsets.start)?;
            }
            Some(offsets) => write!(f, ", records {}..{}", offsets.start, offsets.end)?,
            None => {}
        }
        write!(f, ": {}", self.what)?;
        if let Some(proof) = &self.proof {
            write!(f, " ({proof})")?;
        }
        write!(
            f,
            ". Nothing was changed; to see all of it run: log-repair check {}",
            self.directory.display()
        )
    }
}

impl std::error::Error for Damage {}

/// " at byte N", or nothing.
struct At(Option<u64>);

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(position) => write!(f, " at byte {position}"),
            None => Ok(()),
        }
    }
}

struct Holder(Option<u32>);

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(pid) => write!(f, "process {pid}"),
            None => f.write_str("another process"),
        }
    }
}

impl Error {
    /// An I/O error with its surroundings; a full disk becomes [`Error::NoSpace`] only where the
    /// caller can name what it needed, see [`Error::io_or_no_space`].
    pub(crate) fn io(action: &'static str, path: &Path, position: Option<u64>, source: io::Error) -> Error {
        Error::Io { action, path: path.to_path_buf(), position, source: Arc::new(source) }
    }

    /// [`Error::NoSpace`] when the disk or the quota is full, [`Error::Io`] otherwise.
    pub(crate) fn io_or_no_space(action: &'static str, path: &Path, needed: u64, source: io::Error) -> Error {
        if matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
            Error::NoSpace { path: path.to_path_buf(), needed }
        } else {
            Error::io(action, path, None, source)
        }
    }

    /// Whether space coming back heals this.
    pub fn is_no_space(&self) -> bool {
        matches!(self, Error::NoSpace { .. })
    }
}

impl From<Damage> for Error {
    fn from(damage: Damage) -> Error {
        Error::Damaged(Box::new(damage))
    }
}
