//! The progress bar on stderr of every verb that reads whole logs.
//!
//! It owns what is counted (bytes that were read; records that were written) and when nobody sees it: where stderr
//! is no terminal, or whoever makes it says so. It does not know what is read. Invariants: it is gone before a verb
//! says a word, and whichever way a verb ends; a disk that is counted does all that the one below it does.
//!
//! Why the disk counts, and not whoever reads: the library reads, and it has no idea of progress.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use indicatif::{ProgressBar, ProgressStyle};
use stonelog::disk::{Background, DirectoryEntry, Disk, DiskFile, LockAttempt, Map, OpenMode, OsDisk};

use crate::looking::{LookingDisk, OnRead};

const OF_BYTES: &str = "{bar:32} {decimal_bytes}/{decimal_total_bytes} {decimal_bytes_per_sec} {eta}";
const LOOKING: &str = "{spinner} looking: {decimal_bytes} read, {decimal_bytes_per_sec}";
const OF_RECORDS: &str = "{bar:32} {human_pos}/{human_len} records {eta}";

/// See the module.
pub(crate) struct Meter {
    bar: ProgressBar,
    /// Whether what is read counts.
    reading: Arc<AtomicBool>,
}

impl Meter {
    /// For reading a log's files `passes` times, about.
    pub(crate) fn of_directory(directory: &Path, passes: u64, wanted: bool) -> Meter {
        let length = || total(directory).saturating_mul(passes);
        Meter::new(if wanted { ProgressBar::new(length()) } else { ProgressBar::hidden() }, OF_BYTES)
    }

    /// For reading nobody knows how much.
    pub(crate) fn open_ended(wanted: bool) -> Meter {
        Meter::new(if wanted { ProgressBar::no_length() } else { ProgressBar::hidden() }, LOOKING)
    }

    fn new(bar: ProgressBar, template: &str) -> Meter {
        let meter = Meter { bar, reading: Arc::new(AtomicBool::new(true)) };
        meter.style(template);
        meter
    }

    fn style(&self, template: &str) {
        if let Ok(style) = ProgressStyle::with_template(template) {
            self.bar.set_style(style);
        }
    }

    fn on_read(&self) -> OnRead {
        let (bar, reading) = (self.bar.clone(), self.reading.clone());
        Arc::new(move |bytes| {
            if reading.load(Ordering::Relaxed) {
                bar.inc(bytes);
            }
        })
    }

    /// A disk to look at, which is counted.
    pub(crate) fn looking(&self) -> LookingDisk {
        LookingDisk::with_progress(self.on_read())
    }

    /// A disk to work on, which is counted.
    pub(crate) fn working(&self) -> Arc<dyn Disk> {
        Arc::new(CountedDisk { inner: OsDisk, on_read: self.on_read() })
    }

    /// Begins once more, even after an end.
    pub(crate) fn begin(&self) {
        self.reading.store(true, Ordering::Relaxed);
        self.bar.reset();
    }

    /// From here on records are counted, and no bytes.
    pub(crate) fn count_records(&self, records: u64) {
        self.reading.store(false, Ordering::Relaxed);
        self.style(OF_RECORDS);
        self.bar.set_position(0);
        self.bar.set_length(records);
    }

    /// One record more.
    pub(crate) fn record(&self) {
        self.bar.inc(1);
    }

    /// It is gone, and counts no more.
    pub(crate) fn end(&self) {
        self.reading.store(false, Ordering::Relaxed);
        self.bar.finish_and_clear();
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.end();
    }
}

/// About how much there is to read. A directory that cannot be listed is the verb's matter.
fn total(directory: &Path) -> u64 {
    let entries = OsDisk.list(directory).unwrap_or_default();
    entries.iter().map(|entry| entry.length).fold(0, u64::saturating_add)
}

/// The operating system's disk, with what is read told.
struct CountedDisk {
    inner: OsDisk,
    on_read: OnRead,
}

impl std::fmt::Debug for CountedDisk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CountedDisk").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl Disk for CountedDisk {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.inner.create_dir(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<DirectoryEntry>> {
        self.inner.list(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.inner.sync_dir(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.inner.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.inner.remove(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.inner.remove_dir(path)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.inner.exists(path)
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let file = self.inner.open(path, mode)?;
        Ok(Arc::new(CountedFile { file, on_read: self.on_read.clone() }))
    }

    fn lock(&self, path: &Path) -> io::Result<LockAttempt> {
        self.inner.lock(path)
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
        self.inner.background()
    }
}

struct CountedFile {
    file: Arc<dyn DiskFile>,
    on_read: OnRead,
}

impl std::fmt::Debug for CountedFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CountedFile").field("file", &self.file).finish_non_exhaustive()
    }
}

impl DiskFile for CountedFile {
    fn length(&self) -> io::Result<u64> {
        self.file.length()
    }

    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        let count = self.file.read_at(buffer, position)?;
        (self.on_read)(count as u64);
        Ok(count)
    }

    fn write_at(&self, bytes: &[u8], position: u64) -> io::Result<usize> {
        self.file.write_at(bytes, position)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync()
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        self.file.set_length(length)
    }

    fn reserve(&self, length: u64) -> io::Result<()> {
        self.file.reserve(length)
    }

    fn map(&self, length: u64) -> io::Result<Option<Map>> {
        self.file.map(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_is_counted_until_records_are() {
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
        let meter = Meter::open_ended(false);
        let files = [meter.looking().open(&manifest, OpenMode::Read).unwrap(), {
            let disk = meter.working();
            disk.open(&manifest, OpenMode::Read).unwrap()
        }];
        let mut bytes = [0; 9];
        for file in &files {
            assert_eq!(file.read_at(&mut bytes, 0).unwrap(), 9);
        }
        assert_eq!(meter.bar.position(), 18);
        meter.count_records(5);
        meter.record();
        files[0].read_at(&mut bytes, 0).unwrap();
        assert_eq!((meter.bar.position(), meter.bar.length()), (1, Some(5)));
        meter.end();
        meter.begin();
        files[0].read_at(&mut bytes, 0).unwrap();
        assert_eq!((meter.bar.position(), meter.bar.is_finished()), (9, false));
    }
}
