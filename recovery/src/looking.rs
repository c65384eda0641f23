//! The disk as this tool sees it: something to look at, and nothing else.
//!
//! It owns [`LookingDisk`], which passes reads on to the operating system's disk, counts the bytes,
//! and refuses everything that could change one; and [`StoreSource`], an open store as something
//! the library's scanner can scan. It knows no frames and no verdicts.
//!
//! Invariant: whatever the library is asked to do through this disk, no file is made, written,
//! renamed, removed, locked or mapped. Why a wrapper and not trust: "read-only" is then a property
//! of thirty lines here, and stays one however the library grows.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use stonelog::disk::{self, Background, DirectoryEntry, Disk, DiskFile, LockAttempt, Map, OpenMode, OsDisk};
use stonelog::recovery::StoreFindings;
use stonelog::scan::Source;
use stonelog::{names, store};

/// Called with how many bytes were just read.
pub(crate) type OnRead = Arc<dyn Fn(u64) + Send + Sync>;

/// The operating system's disk, for reading only.
#[derive(Clone, Default)]
pub(crate) struct LookingDisk {
    inner: OsDisk,
    bytes_read: Arc<AtomicU64>,
    on_read: Option<OnRead>,
}

impl LookingDisk {
    /// A disk that tells how it gets on.
    pub(crate) fn with_progress(on_read: OnRead) -> LookingDisk {
        LookingDisk { on_read: Some(on_read), ..LookingDisk::default() }
    }

    /// Bytes read so far.
    pub(crate) fn bytes_read(&self) -> u64 {
        self.bytes_read.load(Ordering::Relaxed)
    }
}

impl std::fmt::Debug for LookingDisk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LookingDisk").field("bytes_read", &self.bytes_read()).finish_non_exhaustive()
    }
}

fn refused<T>() -> io::Result<T> {
    Err(io::Error::new(io::ErrorKind::PermissionDenied, "log-repair only looks here"))
}

impl Disk for LookingDisk {
    fn create_dir(&self, _path: &Path) -> io::Result<()> {
        refused()
    }

    fn list(&self, path: &Path) -> io::Result<Vec<DirectoryEntry>> {
        self.inner.list(path)
    }

    fn sync_dir(&self, _path: &Path) -> io::Result<()> {
        refused()
    }

    fn rename(&self, _from: &Path, _to: &Path) -> io::Result<()> {
        refused()
    }

    fn remove(&self, _path: &Path) -> io::Result<()> {
        refused()
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.inner.exists(path)
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        if mode != OpenMode::Read {
            return refused();
        }
        let file = self.inner.open(path, mode)?;
        Ok(Arc::new(LookingFile { file, bytes_read: self.bytes_read.clone(), on_read: self.on_read.clone() }))
    }

    fn lock(&self, _path: &Path) -> io::Result<LockAttempt> {
        refused()
    }

    fn now_millis(&self) -> u64 {
        self.inner.now_millis()
    }

    fn random(&self) -> u64 {
        self.inner.random()
    }

    fn process_id(&self) -> u32 {
        self.inner.process_id()
    }

    fn background(&self) -> Background {
        // The library's scans of many segments at once: threads that end with the look.
        Background::Threads
    }
}

struct LookingFile {
    file: Arc<dyn DiskFile>,
    bytes_read: Arc<AtomicU64>,
    on_read: Option<OnRead>,
}

impl std::fmt::Debug for LookingFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LookingFile").field("file", &self.file).finish_non_exhaustive()
    }
}

impl DiskFile for LookingFile {
    fn length(&self) -> io::Result<u64> {
        self.file.length()
    }

    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        let count = self.file.read_at(buffer, position)?;
        self.bytes_read.fetch_add(count as u64, Ordering::Relaxed);
        if let Some(on_read) = &self.on_read {
            on_read(count as u64);
        }
        Ok(count)
    }

    fn write_at(&self, _bytes: &[u8], _position: u64) -> io::Result<usize> {
        refused()
    }

    fn sync(&self) -> io::Result<()> {
        refused()
    }

    fn set_length(&self, _length: u64) -> io::Result<()> {
        refused()
    }

    fn reserve(&self, _length: u64) -> io::Result<()> {
        refused()
    }

    /// None: through a map a failing disk answers with a signal, by pread with an error.
    fn map(&self, _length: u64) -> io::Result<Option<Map>> {
        Ok(None)
    }
}

/// An open store: something to scan.
pub(crate) struct StoreSource {
    file: Arc<dyn DiskFile>,
    length: u64,
    stopped: AtomicBool,
}

impl StoreSource {
    /// Opens the store of segment `id`.
    pub(crate) fn open(disk: &dyn Disk, directory: &Path, id: u64) -> io::Result<StoreSource> {
        StoreSource::open_file(disk, &directory.join(names::store(id)))
    }

    /// Opens the store at `path`.
    pub(crate) fn open_file(disk: &dyn Disk, path: &Path) -> io::Result<StoreSource> {
        let file = disk::retry_interrupted(|| disk.open(path, OpenMode::Read))?;
        let length = disk::retry_interrupted(|| file.length())?;
        Ok(StoreSource { file, length, stopped: AtomicBool::new(false) })
    }

    /// Reads no more: a scan under way then ends soon, since it takes what it cannot read for zeros.
    pub(crate) fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    /// The raw bytes of head and base, as far as the file has them.
    pub(crate) fn sectors(&self) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; usize::try_from(store::FIRST_FRAME).unwrap_or(1024)];
        let got = disk::read_up_to(self.file.as_ref(), &mut bytes, 0)?;
        bytes.truncate(got);
        Ok(bytes)
    }

    /// Head and base, for segment `id` of the log `uuid`.
    pub(crate) fn findings(&self, uuid: &[u8; 16], id: u64) -> StoreFindings {
        match self.sectors() {
            Ok(sectors) => StoreFindings::of_sectors(self.length, &sectors, uuid, id),
            Err(error) => StoreFindings::Unreadable { why: error.to_string() },
        }
    }
}

impl Source for StoreSource {
    fn length(&self) -> u64 {
        self.length
    }

    fn read(&self, position: u64, buffer: &mut [u8]) -> io::Result<()> {
        if self.stopped.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        disk::read_exact_at(self.file.as_ref(), buffer, position)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_looking_disk_refuses_whatever_could_change_a_byte() {
        let disk = LookingDisk::default();
        let nowhere = Path::new("/nonexistent-stonelog/file");
        let refusals = [
            disk.create_dir(nowhere),
            disk.sync_dir(nowhere),
            disk.rename(nowhere, nowhere),
            disk.remove(nowhere),
            disk.lock(nowhere).map(drop),
            disk.open(nowhere, OpenMode::ReadWrite).map(drop),
            disk.open(nowhere, OpenMode::CreateNew).map(drop),
        ];
        for refusal in refusals {
            assert_eq!(refusal.unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        }
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
        let file = disk.open(&manifest, OpenMode::Read).unwrap();
        for refusal in [file.write_at(b"x", 0).map(drop), file.sync(), file.set_length(0), file.reserve(1)] {
            assert_eq!(refusal.unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        }
        let mut bytes = [0; 9];
        disk::read_exact_at(file.as_ref(), &mut bytes, 0).unwrap();
        assert_eq!(&bytes, b"[package]");
        assert_eq!(disk.bytes_read(), 9);
    }
}
