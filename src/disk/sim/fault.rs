//! Faults that strike a running disk: errors, interruptions, short writes, and lies.
//!
//! It owns which call a fault strikes. It does not know what the fault then does to the file (a
//! failed fsync loses the file's unsynced bytes, a lost write is in the cache alone: see `medium`).
//!
//! Invariant: a fault armed for the n-th call counts calls of its own operation only, so that two faults
//! never disturb each other's count.

use std::io;

use super::trace::Operation;

/// A fault to inject, see [`SimDisk::inject`](super::SimDisk::inject).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// The n-th call of this operation from now on (1 = the next) fails, having done nothing.
    ///
    /// An [`Operation::Sync`] that fails with anything but [`FaultError::Interrupted`] is worse than
    /// that, as on Linux: the file's unsynced changes are forgotten. Reads still see them, no later
    /// sync writes them (and it returns `Ok`), and a power loss takes them. A failed
    /// [`Operation::SyncDir`] leaves the directory's changes pending.
    Error {
        /// Whose calls are counted.
        operation: Operation,
        /// Which call fails, 1 = the next.
        nth: u64,
        /// With what.
        error: FaultError,
    },
    /// The n-th write from now on (1 = the next) takes only a part of the bytes, by the seed.
    ShortWrite {
        /// Which write, 1 = the next.
        nth: u64,
    },
    /// From now on each write takes only a part of its bytes with probability 1/2, by the seed.
    ShortWrites,
    /// The n-th write from now on (1 = the next) is acknowledged and never done. Reads see it, from the
    /// cache, and so does a process born after a [`process_crash`](super::SimDisk::process_crash); a power
    /// loss takes it, synced or not. The length that it gave the file is kept, as any other. A later write
    /// to the same sector writes all of the sector, as the cache has it, and so heals it.
    ///
    /// No disk that keeps its promises does this: what then holds is only what a checksum can tell.
    LostWrite {
        /// Which write, 1 = the next.
        nth: u64,
    },
    /// The n-th write from now on (1 = the next) is acknowledged, and its sectors land elsewhere: at
    /// another place of the same file or in another one, by the seed, over what is durable there. Where it
    /// should be, it is as with [`Fault::LostWrite`]; where it is, reads see the cache, and a power loss
    /// shows it. A disk without any durable bytes has no other place: then the write is lost.
    MisdirectedWrite {
        /// Which write, 1 = the next.
        nth: u64,
    },
}

impl Fault {
    /// The n-th read fails with an I/O error.
    #[must_use]
    pub const fn read_error(nth: u64) -> Self {
        Self::Error { operation: Operation::Read, nth, error: FaultError::Io }
    }

    /// The n-th write fails with an I/O error.
    #[must_use]
    pub const fn write_error(nth: u64) -> Self {
        Self::Error { operation: Operation::Write, nth, error: FaultError::Io }
    }

    /// The n-th sync of a file fails with an I/O error, and the file's unsynced bytes are lost.
    #[must_use]
    pub const fn sync_error(nth: u64) -> Self {
        Self::Error { operation: Operation::Sync, nth, error: FaultError::Io }
    }

    /// The n-th sync of a directory fails with an I/O error.
    #[must_use]
    pub const fn sync_dir_error(nth: u64) -> Self {
        Self::Error { operation: Operation::SyncDir, nth, error: FaultError::Io }
    }

    /// The n-th call of this operation is interrupted (`EINTR`): nothing happened, ask again.
    #[must_use]
    pub const fn interrupted(operation: Operation, nth: u64) -> Self {
        Self::Error { operation, nth, error: FaultError::Interrupted }
    }

    /// The n-th call of this operation finds the disk full (`ENOSPC`).
    #[must_use]
    pub const fn storage_full(operation: Operation, nth: u64) -> Self {
        Self::Error { operation, nth, error: FaultError::StorageFull }
    }
}

/// The error that an injected fault gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum FaultError {
    /// `EIO`: an error of kind `Other`, for std has no kind for it.
    Io,
    /// `ENOSPC`: an error of kind `StorageFull`.
    StorageFull,
    /// `EINTR`: an error of kind `Interrupted`.
    Interrupted,
}

impl FaultError {
    pub(super) fn to_error(self) -> io::Error {
        match self {
            Self::Io => io::Error::other("simulated I/O error (EIO)"),
            Self::StorageFull => io::Error::new(io::ErrorKind::StorageFull, "simulated full disk (ENOSPC)"),
            Self::Interrupted => io::ErrorKind::Interrupted.into(),
        }
    }
}

/// What is to happen to a call.
#[derive(Debug, Clone, Copy)]
pub(super) enum Fate {
    Proceed,
    /// A write takes a part only.
    Short,
    /// A write stays in the cache.
    Lost,
    /// A write stays in the cache, and lands elsewhere.
    Misdirected,
    Fail(FaultError),
    /// The machine stops here.
    Crash,
}

impl Fate {
    /// For calls that know no special ending.
    pub(super) fn plain(self) -> io::Result<()> {
        match self {
            Self::Proceed | Self::Short | Self::Lost | Self::Misdirected => Ok(()),
            Self::Fail(error) => Err(error.to_error()),
            Self::Crash => Err(crash_error("the machine stopped here")),
        }
    }
}

pub(super) fn crash_error(why: &str) -> io::Error {
    io::Error::other(format!("simulated crash: {why}"))
}

#[derive(Debug, Clone)]
struct Armed {
    operation: Operation,
    left: u64,
    fate: Fate,
}

/// The faults that have not struck yet.
#[derive(Debug, Clone, Default)]
pub(super) struct Faults {
    armed: Vec<Armed>,
    short_writes: bool,
}

impl Faults {
    pub(super) fn inject(&mut self, fault: Fault) {
        let (operation, nth, fate) = match fault {
            Fault::Error { operation, nth, error } => (operation, nth, Fate::Fail(error)),
            Fault::ShortWrite { nth } => (Operation::Write, nth, Fate::Short),
            Fault::LostWrite { nth } => (Operation::Write, nth, Fate::Lost),
            Fault::MisdirectedWrite { nth } => (Operation::Write, nth, Fate::Misdirected),
            Fault::ShortWrites => {
                self.short_writes = true;
                return;
            }
        };
        self.armed.push(Armed { operation, left: nth.max(1), fate });
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Counts one call; of several faults due at once, the one injected first strikes.
    pub(super) fn strike(&mut self, operation: Operation, coin: impl FnOnce() -> bool) -> Fate {
        let mut due = None;
        self.armed.retain_mut(|armed| {
            if armed.operation != operation {
                return true;
            }
            armed.left -= 1;
            if armed.left == 0 {
                due.get_or_insert(armed.fate);
            }
            armed.left > 0
        });
        match due {
            Some(fate) => fate,
            None if self.short_writes && operation == Operation::Write && coin() => Fate::Short,
            None => Fate::Proceed,
        }
    }
}
