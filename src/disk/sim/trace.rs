//! What was asked of the disk, call by call.
//!
//! It owns the names of the operations and the entries' form. It does not know what the operations do.
//! Invariant: an entry holds nothing that differs between two runs of the same seed and calls (no
//! address, no time), so two traces can be compared for equality.

use std::fmt;
use std::io;

/// An I/O call of the [`Disk`](crate::disk::Disk) or [`DiskFile`](crate::disk::DiskFile) trait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Operation {
    /// `Disk::create_dir`.
    CreateDir,
    /// `Disk::list`.
    List,
    /// `Disk::sync_dir`.
    SyncDir,
    /// `Disk::rename`.
    Rename,
    /// `Disk::remove`.
    Remove,
    /// `Disk::exists`.
    Exists,
    /// `Disk::open` of an existing file.
    Open,
    /// `Disk::open` with `OpenMode::CreateNew`.
    Create,
    /// `Disk::lock`.
    Lock,
    /// `DiskFile::length`.
    Length,
    /// `DiskFile::read_at`.
    Read,
    /// `DiskFile::write_at`.
    Write,
    /// `DiskFile::sync`.
    Sync,
    /// `DiskFile::set_length`.
    SetLength,
    /// `DiskFile::reserve`.
    Reserve,
}

impl Operation {
    /// Whether it can change the disk or what is durable of it: a call that is worth a crash. Taking
    /// the lock is, even when the lock turns out to be held.
    #[must_use]
    pub const fn is_mutation(self) -> bool {
        !matches!(self, Self::List | Self::Exists | Self::Open | Self::Length | Self::Read)
    }

    const fn name(self) -> &'static str {
        match self {
            Self::CreateDir => "create_dir",
            Self::List => "list",
            Self::SyncDir => "sync_dir",
            Self::Rename => "rename",
            Self::Remove => "remove",
            Self::Exists => "exists",
            Self::Open => "open",
            Self::Create => "create",
            Self::Lock => "lock",
            Self::Length => "length",
            Self::Read => "read_at",
            Self::Write => "write_at",
            Self::Sync => "sync",
            Self::SetLength => "set_length",
            Self::Reserve => "reserve",
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// It succeeded. The number is what it gave: bytes read or written, a length, the number of
    /// names, 1 or 0 for yes or no (`exists`; `lock`: taken or held); 0 where there is nothing to give.
    Done(u64),
    /// It failed.
    Failed(io::ErrorKind),
    /// The machine stopped at it.
    Crashed,
}

/// One call, see [`SimDisk::trace`](super::SimDisk::trace).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TraceEntry {
    /// The number of the step, see [`SimDisk::steps`](super::SimDisk::steps).
    pub step: u64,
    /// The id of the process that called; each crash begins a new one.
    pub process: u32,
    /// What was called.
    pub operation: Operation,
    /// On which path, normalised; of a handle: the path it was opened with; of a rename: the old one.
    pub path: String,
    /// A rename's new path.
    pub to: Option<String>,
    /// Where in the file (0 where there is no position).
    pub position: u64,
    /// How many bytes were asked for, or up to which length; 0 where it means nothing.
    pub length: u64,
    /// A hash of the bytes read or offered for writing; 0 where there are none.
    pub hash: u64,
    /// How it ended.
    pub outcome: Outcome,
}

impl fmt::Display for TraceEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>6} p{} {:<10} {}", self.step, self.process, self.operation, self.path)?;
        if let Some(to) = &self.to {
            write!(f, " -> {to}")?;
        }
        match self.operation {
            Operation::Read | Operation::Write => {
                write!(f, " @{} +{} #{:016x}", self.position, self.length, self.hash)?;
            }
            Operation::SetLength | Operation::Reserve => write!(f, " {}", self.length)?,
            _ => {}
        }
        match self.outcome {
            Outcome::Done(count) => write!(f, " = {count}"),
            Outcome::Failed(kind) => write!(f, " ! {kind}"),
            Outcome::Crashed => f.write_str(" ! crash"),
        }
    }
}
