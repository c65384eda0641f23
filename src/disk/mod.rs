//! The seam between Stonelog and the machine: every file, directory, clock, process id and random
//! number the log ever touches is reached through [`Disk`] and [`DiskFile`].
//!
//! It owns the vocabulary of I/O and the loops that make it whole (short reads and writes,
//! `EINTR`). It does not know what a frame, a segment or a manifest is.
//!
//! Invariants: nothing outside `disk/os.rs` names `std::fs`; every method is object-safe, so that
//! a log is not generic over its disk (one compiled engine, real or simulated).
//!
//! Why a trait and not `std::fs` behind a cargo feature: the promises are about what happens at
//! *every* I/O step, and only a disk that can stop at each of them can test that.

mod map;
mod os;
#[cfg(feature = "sim")]
pub mod sim;

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

pub use map::Map;
pub use os::OsDisk;
#[cfg(feature = "sim")]
pub use sim::SimDisk;

/// The smallest piece a device writes whole or not at all, in bytes.
pub const SECTOR_BYTES: u64 = 512;

/// How a file is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenMode {
    /// An existing file, for reading only.
    Read,
    /// An existing file, for reading and writing.
    ReadWrite,
    /// A new file, for reading and writing; fails with `AlreadyExists` when the name is taken.
    CreateNew,
}

/// One name in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirectoryEntry {
    /// The name, without its directory. Names that are not UTF-8 are shown lossily.
    pub name: String,
    /// Whether it is a directory.
    pub is_directory: bool,
    /// The length in bytes (0 for a directory).
    pub length: u64,
}

/// Who does background work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Background {
    /// Threads of the log's own.
    Threads,
    /// Nobody: the caller's thread does it inline, at moments that [`Disk::random`] decides. This
    /// is what makes a simulated run deterministic.
    Inline,
}

/// What trying to take the advisory lock gave.
#[derive(Debug)]
pub enum LockAttempt {
    /// The lock is held until the guard is dropped.
    Acquired(Box<dyn DiskLock>),
    /// Another process (or another handle of this one) holds it.
    Held {
        /// The process id that the holder left in the lock file, where it can be read.
        pid: Option<u32>,
    },
}

/// Holds an advisory lock; dropping it (or the death of the process) releases it.
pub trait DiskLock: Send + Sync + fmt::Debug {}

/// A filesystem with its surroundings: the clock, the process id and randomness.
///
/// Errors are plain [`io::Error`]s; the layers above add the file, the position and the advice.
/// An implementation may return `ErrorKind::Interrupted` from anything: callers retry.
pub trait Disk: Send + Sync + fmt::Debug {
    /// Creates one directory. Fails with `AlreadyExists` when the name is taken, with `NotFound`
    /// when its parent is missing. The new name is durable once the parent was synced.
    fn create_dir(&self, path: &Path) -> io::Result<()>;

    /// Lists the names in a directory, sorted by name.
    fn list(&self, path: &Path) -> io::Result<Vec<DirectoryEntry>>;

    /// Makes the names in a directory durable (fsync of the directory).
    fn sync_dir(&self, path: &Path) -> io::Result<()>;

    /// Renames a file, replacing what has the name `to`.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file's name.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Removes an empty directory's name. A disk that cannot says `Unsupported`: an empty directory then
    /// stays, which harms nothing.
    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        let _ = path;
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Whether a file or directory of this name exists.
    fn exists(&self, path: &Path) -> io::Result<bool>;

    /// Opens or creates a file.
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>>;

    /// Tries to take the exclusive advisory lock on the file `path`, creating the file when it is
    /// missing and leaving this process's id in it. Never waits.
    fn lock(&self, path: &Path) -> io::Result<LockAttempt>;

    /// The wall clock: milliseconds since the Unix epoch. Shown to people, never decided upon.
    fn now_millis(&self) -> u64;

    /// A random number: for log uuids, and for the moments of inline background work.
    fn random(&self) -> u64;

    /// This process's id.
    fn process_id(&self) -> u32;

    /// Who does background work.
    fn background(&self) -> Background;
}

/// An open file. All methods take `&self` and a position: there is no cursor to share.
pub trait DiskFile: Send + Sync + fmt::Debug {
    /// The length in bytes.
    fn length(&self) -> io::Result<u64>;

    /// Reads up to `buffer.len()` bytes at `position`; 0 means the end of the file.
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize>;

    /// As [`read_at`](Self::read_at), and shows the same, for bytes that are not read again, such as zeros in reserved
    /// space: a disk that would keep a copy of them in memory may read them past its cache.
    fn read_past_cache_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        self.read_at(buffer, position)
    }

    /// Writes up to `bytes.len()` bytes at `position`, growing the file where needed.
    fn write_at(&self, bytes: &[u8], position: u64) -> io::Result<usize>;

    /// Makes the file's bytes and its length durable (fdatasync). Does not make its name durable.
    fn sync(&self) -> io::Result<()>;

    /// Cuts the file at `length`, or extends it with zeros that have no space reserved.
    fn set_length(&self, length: u64) -> io::Result<()>;

    /// Reserves space up to `length` and makes the file at least that long; what is new reads as
    /// zeros, and writing there cannot run out of space. Fails with `StorageFull` when the disk is.
    fn reserve(&self, length: u64) -> io::Result<()>;

    /// A read-only map of the first `length` bytes (which may lie beyond the file's end: what is
    /// read must lie before it), or `None` where this disk has no maps. Bytes of the map can be
    /// read only below its published end, which the log moves on as it writes.
    fn map(&self, length: u64) -> io::Result<Option<Map>>;
}

/// Reads exactly `buffer.len()` bytes at `position`, retrying interrupted and short reads.
///
/// # Errors
/// `UnexpectedEof` when the file ends first; whatever else the disk says.
pub fn read_exact_at(file: &dyn DiskFile, buffer: &mut [u8], position: u64) -> io::Result<()> {
    let wanted = buffer.len();
    let got = read_up_to(file, buffer, position)?;
    if got == wanted { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

/// [`read_exact_at`], by [`DiskFile::read_past_cache_at`].
///
/// # Errors
/// As there.
pub(crate) fn read_exact_past_cache_at(
    file: &dyn DiskFile,
    buffer: &mut [u8],
    position: u64,
) -> io::Result<()> {
    match retry_interrupted(|| file.read_past_cache_at(buffer, position))? {
        count if count == buffer.len() => Ok(()),
        _ => read_exact_at(file, buffer, position),
    }
}

/// Reads up to `buffer.len()` bytes at `position`, fewer only where the file ends.
///
/// # Errors
/// Whatever the disk says, `EINTR` excepted (it is retried).
pub fn read_up_to(file: &dyn DiskFile, buffer: &mut [u8], position: u64) -> io::Result<usize> {
    let mut done = 0;
    while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, position.saturating_add(done as u64)) {
            Ok(0) => break,
            Ok(count) => done += count.min(rest.len()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

/// Writes all of `bytes` at `position`, retrying interrupted and short writes.
///
/// # Errors
/// `WriteZero` when the disk takes nothing more; whatever else it says. Part of the bytes may have
/// been written.
pub fn write_all_at(file: &dyn DiskFile, bytes: &[u8], position: u64) -> io::Result<()> {
    let mut done = 0;
    while let Some(rest) = bytes.get(done..).filter(|rest| !rest.is_empty()) {
        match file.write_at(rest, position.saturating_add(done as u64)) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => done += count.min(rest.len()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Removes a file that may not be there.
///
/// # Errors
/// Whatever the disk says, but for `NotFound`.
pub(crate) fn remove_if_present(disk: &dyn Disk, path: &Path) -> io::Result<()> {
    match retry_interrupted(|| disk.remove(path)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Calls `operation` again for as long as it is interrupted (`EINTR`). An interrupted fdatasync
/// did not lose anything yet: it can be asked again.
///
/// # Errors
/// Every other error, unchanged.
pub fn retry_interrupted<T>(mut operation: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match operation() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            outcome => return outcome,
        }
    }
}
