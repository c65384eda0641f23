//! The real disk: [`Disk`] and [`DiskFile`] on the operating system.
//!
//! It owns every call into the machine: files, directories, the advisory lock, the clock, the
//! process id, randomness. It deliberately does not know what is in the files, does not retry, and
//! does not explain errors: it passes them on as the system gave them.
//!
//! Invariants: no cursor (every read and write names its position); no file is removed or shortened
//! unless asked; the lock file is never removed (to unlink a locked file lets two processes hold
//! "the" lock, each on a file of its own).
//!
//! Why fs2 for the lock and the reservation, and not `File::try_lock` of std: reservation is not in
//! std at all, and std's locks are younger than the oldest compiler that this crate builds with.
//! Why by trait path (`fs2::FileExt::unlock(&file)`): newer compilers have inherent methods of the
//! same names, and a method call would change its meaning with the compiler.
//!
//! Proven on Linux. On other unixes and on Windows it builds on what std gives; that is unproven.
#![expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "the one place where the seam meets the operating system"
)]

use std::fs::{self, File, OpenOptions};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
#[cfg(unix)]
use std::os::unix::fs::FileExt;
#[cfg(windows)]
use std::os::windows::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use super::{Background, DirectoryEntry, Disk, DiskFile, DiskLock, LockAttempt, Map, OpenMode, write_all_at};

/// How many zeros one write carries where a file is extended by hand.
const ZERO_BYTES: usize = 64 * 1024;

/// The operating system's disk, clock and process.
#[derive(Debug, Clone, Copy, Default)]
pub struct OsDisk;

/// An open file of the operating system.
#[derive(Debug)]
struct OsFile {
    file: File,
    /// The same file, open for reads past the page cache, once they were asked for; none where there are no such reads.
    #[cfg(target_os = "linux")]
    direct: std::sync::OnceLock<Option<File>>,
}

/// Holds the advisory lock.
#[derive(Debug)]
struct OsLock {
    file: OsFile,
}

impl DiskLock for OsLock {}

impl Drop for OsLock {
    fn drop(&mut self) {
        // Said aloud, and not left to the closing of the file: a child that was forked meanwhile
        // shares the open file, and would go on holding the lock. A failure leaves it to the close.
        let _ = fs2::FileExt::unlock(&self.file.file);
    }
}

impl Disk for OsDisk {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        fs::create_dir(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<DirectoryEntry>> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            // A link is shown as what it leads to, since `open` follows it too; one that leads
            // nowhere is shown as itself, since its name is taken all the same.
            let metadata = match fs::metadata(entry.path()).or_else(|_| entry.metadata()) {
                Ok(metadata) => metadata,
                // Removed between the listing and the look: then it is not in the directory.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            let is_directory = metadata.is_dir();
            entries.push(DirectoryEntry {
                name: entry.file_name().to_string_lossy().into_owned(),
                is_directory,
                length: if is_directory { 0 } else { metadata.len() },
            });
        }
        entries.sort_by(|left, right| left.name.cmp(&right.name));
        Ok(entries)
    }

    #[cfg(not(windows))]
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    /// Unproven: Windows has no fsync of a directory. NTFS journals its names, in an order that
    /// nothing here can ask for.
    #[cfg(windows)]
    fn sync_dir(&self, _path: &Path) -> io::Result<()> {
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir(path)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        path.try_exists()
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        options.read(true);
        match mode {
            // A pipe under a file's name would be waited at until somebody writes to it.
            #[cfg(target_os = "linux")]
            OpenMode::Read => {
                std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, O_NONBLOCK);
            }
            #[cfg(not(target_os = "linux"))]
            OpenMode::Read => {}
            OpenMode::ReadWrite => {
                options.write(true);
            }
            OpenMode::CreateNew => {
                options.write(true).create_new(true);
            }
        }
        Ok(Arc::new(OsFile::new(options.open(path)?)))
    }

    fn lock(&self, path: &Path) -> io::Result<LockAttempt> {
        // Never truncated at opening: until the lock is ours, the text in it is the holder's.
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        let file = OsFile::new(file);
        match fs2::FileExt::try_lock_exclusive(&file.file) {
            Ok(()) => {
                // The id is a courtesy to whoever is turned away, the lock is what counts: a full
                // disk must not keep anyone out of a log. An old id would mislead, so it goes.
                if file.leave_process_id(self.process_id()).is_err() {
                    let _ = file.set_length(0);
                }
                Ok(LockAttempt::Acquired(Box::new(OsLock { file })))
            }
            Err(error) if is_contended(&error) => Ok(LockAttempt::Held { pid: file.read_process_id() }),
            Err(error) => Err(error),
        }
    }

    fn now_millis(&self) -> u64 {
        // A clock before 1970 reads as 0: the time is shown to people, never decided upon.
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    fn random(&self) -> u64 {
        // std seeds its hasher from the system's randomness, without a file that may be missing and
        // on every platform. It does so once in a thread; the counter keeps one thread's numbers
        // apart, the process id and the time those of a process and its fork.
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut hasher = RandomState::new().build_hasher();
        hasher.write_u64(COUNTER.fetch_add(1, Ordering::Relaxed));
        hasher.write_u32(self.process_id());
        hasher.write_u128(now.as_nanos());
        hasher.finish()
    }

    fn process_id(&self) -> u32 {
        std::process::id()
    }

    fn background(&self) -> Background {
        Background::Threads
    }
}

/// Whether locking failed because somebody holds the lock.
fn is_contended(error: &io::Error) -> bool {
    let contended = fs2::lock_contended_error();
    error.kind() == contended.kind() || error.raw_os_error() == contended.raw_os_error()
}

/// `O_DIRECT`, which std does not name; none where this crate does not know it.
#[cfg(target_os = "linux")]
const O_DIRECT: Option<i32> = if cfg!(any(target_arch = "x86_64", target_arch = "riscv64")) {
    Some(0o40_000)
} else if cfg!(any(target_arch = "aarch64", target_arch = "arm")) {
    Some(0o200_000)
} else {
    None
};

/// `O_NONBLOCK`, which means nothing for a file; nothing where this crate does not know it.
#[cfg(target_os = "linux")]
const O_NONBLOCK: i32 = if O_DIRECT.is_some() { 0o4_000 } else { 0 };

/// Positions, lengths and addresses of reads past the page cache are multiples of this.
#[cfg(target_os = "linux")]
const DIRECT_BYTES: usize = 4096;

impl OsFile {
    const fn new(file: File) -> OsFile {
        OsFile {
            file,
            #[cfg(target_os = "linux")]
            direct: std::sync::OnceLock::new(),
        }
    }

    #[cfg(target_os = "linux")]
    fn open_direct(&self) -> Option<File> {
        use std::os::fd::AsRawFd;
        use std::os::unix::fs::OpenOptionsExt;
        // By its descriptor: the file may have another name by now, and the name another file.
        let itself = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        OpenOptions::new().read(true).custom_flags(O_DIRECT?).open(itself).ok()
    }

    /// Reads past the page cache; none where that does not give all of `buffer`, for whatever reason.
    #[cfg(target_os = "linux")]
    fn read_direct(&self, buffer: &mut [u8], position: u64) -> Option<()> {
        const PIECE_BYTES: usize = 256 << 10;
        let direct = self.direct.get_or_init(|| self.open_direct()).as_ref()?;
        // A piece that begins and ends inside of pages, and the way to the first address that is a multiple.
        let mut room = vec![0; PIECE_BYTES.min(buffer.len()) + 3 * DIRECT_BYTES];
        let aligned = room.as_ptr().align_offset(DIRECT_BYTES);
        let mut at = position;
        for piece in buffer.chunks_mut(PIECE_BYTES) {
            let skipped = usize::try_from(at % DIRECT_BYTES as u64).ok()?;
            let end = skipped.checked_add(piece.len())?;
            let pages = room.get_mut(aligned..aligned.checked_add(end.next_multiple_of(DIRECT_BYTES))?)?;
            let got = FileExt::read_at(direct, pages, at - skipped as u64).ok()?;
            piece.copy_from_slice(pages.get(..got)?.get(skipped..end)?);
            at = at.checked_add(piece.len() as u64)?;
        }
        Some(())
    }

    /// Leaves the process id in the lock file, as a line of text. Written first and cut after: to
    /// cut first would give up the file's block, which a full disk may not give back.
    fn leave_process_id(&self, pid: u32) -> io::Result<()> {
        let line = format!("{pid}\n");
        write_all_at(self, line.as_bytes(), 0)?;
        self.set_length(line.len() as u64)
    }

    /// The process id in the lock file, if there is one to read: the first line, since the rest of
    /// a longer old one may still be there while the holder writes.
    fn read_process_id(&self) -> Option<u32> {
        let mut text = [0; 16];
        let length = super::read_up_to(self, &mut text, 0).ok()?;
        let line = text.get(..length)?.split(|byte| *byte == b'\n').next()?;
        std::str::from_utf8(line).ok()?.trim().parse().ok().filter(|pid| *pid != 0)
    }

    /// Does by hand what the system would not: makes the file `length` bytes long by writing zeros
    /// behind `old`, its length. Bytes below `old` are never touched. The caller cuts the file back
    /// to `old` when this fails.
    fn reserve_by_writing(&self, old: u64, length: u64) -> io::Result<()> {
        if length > old {
            return self.extend_with_zeros(old, length);
        }
        // Nothing to extend: what could be missing are holes. They can't be filled by hand (zeros
        // would have to be written where another may just have written), only be weighed.
        let holes = old.saturating_sub(fs2::FileExt::allocated_size(&self.file)?);
        if holes == 0 {
            return Ok(());
        }
        // Asking for as much behind the end shows what is wrong: a full disk, most likely.
        self.extend_with_zeros(old, old.saturating_add(holes))?;
        Err(io::Error::new(io::ErrorKind::Unsupported, "space inside the file cannot be reserved here"))
    }

    fn extend_with_zeros(&self, old: u64, length: u64) -> io::Result<()> {
        // Too long for the filesystem is better said now than when the disk has been filled up.
        self.file.set_len(length)?;
        let zeros = [0; ZERO_BYTES];
        let mut position = old;
        while position < length {
            let count = usize::try_from(length - position).unwrap_or(ZERO_BYTES).min(ZERO_BYTES);
            write_all_at(self, zeros.get(..count).unwrap_or(&zeros), position)?;
            position = position.saturating_add(count as u64);
        }
        Ok(())
    }
}

impl DiskFile for OsFile {
    fn length(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    #[cfg(unix)]
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        FileExt::read_at(&self.file, buffer, position)
    }

    #[cfg(windows)]
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        self.file.seek_read(buffer, position)
    }

    /// By `O_DIRECT`. To read a hole, or reserved space, through the page cache costs a page of memory for each
    /// page of zeros. The kernel first writes out what the cache holds of these pages and the disk does not, so that the
    /// bytes are the same.
    #[cfg(target_os = "linux")]
    fn read_past_cache_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        match self.read_direct(buffer, position) {
            Some(()) => Ok(buffer.len()),
            None => self.read_at(buffer, position),
        }
    }

    #[cfg(unix)]
    fn write_at(&self, bytes: &[u8], position: u64) -> io::Result<usize> {
        FileExt::write_at(&self.file, bytes, position)
    }

    #[cfg(windows)]
    fn write_at(&self, bytes: &[u8], position: u64) -> io::Result<usize> {
        self.file.seek_write(bytes, position)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        self.file.set_len(length)
    }

    /// For the file's one writer: nobody else may write to the file or change its length meanwhile.
    /// (Where the filesystem has no fallocate, glibc reads a byte of each block and writes it back.)
    /// When it fails the file has its old length; space that was found for holes below that length
    /// may stay with the file. Ask in bounded steps: on a full disk what is left of it is filled and
    /// given back, to learn the error.
    fn reserve(&self, length: u64) -> io::Result<()> {
        if length == 0 {
            // posix_fallocate calls this an invalid argument.
            return Ok(());
        }
        if i64::try_from(length).is_err() {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let old = self.length()?;
        // It reserves from 0 to `length`, holes included, and never shortens a longer file.
        if fs2::FileExt::allocate(&self.file, length).is_ok() {
            return Ok(());
        }
        // Its error says nothing: posix_fallocate returns its error and leaves errno alone, and fs2
        // reports errno, so "success" or whatever failed in this thread before. Writing zeros either
        // does the work or tells the truth.
        self.reserve_by_writing(old, length).inspect_err(|_| {
            // Also gives back what the system had reserved before it gave up.
            let _ = self.file.set_len(old);
        })
    }

    /// Only on unix: elsewhere a map can't reach beyond the end of the file, and keeps the file from
    /// being renamed, shortened or removed. A length that no address can name has no map either.
    fn map(&self, length: u64) -> io::Result<Option<Map>> {
        match usize::try_from(length) {
            Ok(length) if length > 0 && cfg!(unix) => {
                let raw = memmap2::MmapOptions::new().len(length).map_raw_read_only(&self.file)?;
                Ok(Some(Map::new(raw)))
            }
            _ => Ok(None),
        }
    }
}
