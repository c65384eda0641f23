//! The disk that a practice log is written on: the operating system's, with a clock, dice and a power
//! switch of its own.
//!
//! It owns what makes a demonstration repeatable: the log's work runs inline, at moments that a seed
//! decides, by a clock that stands still between calls. It knows no records and no damage. Invariants:
//! once the power is cut nothing reaches a file any more, so that a log which is let go of then stays
//! as a crash leaves it; nothing outlives a real power cut for certain (no fsync is passed on).
//!
//! Why not to leave the log open and copy its files: threads and clocks would make every copy another,
//! and the documents show these logs byte for byte.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use stonelog::disk::{Background, DirectoryEntry, Disk, DiskFile, LockAttempt, Map, OpenMode, OsDisk};

/// When every practice log is begun: nine o'clock on the first day of 2026.
const BEGUN_MILLIS: u64 = 1_767_258_000_000;
/// How far the clock goes on whenever it is asked.
const STEP_MILLIS: u64 = 250;

/// See the module.
#[derive(Debug, Clone)]
pub(super) struct DemoDisk {
    dice: Arc<AtomicU64>,
    clock: Arc<AtomicU64>,
    dead: Arc<AtomicBool>,
}

impl DemoDisk {
    /// A disk whose clock and dice begin where `seed` says.
    pub(super) fn new(seed: u64) -> DemoDisk {
        DemoDisk {
            dice: Arc::new(AtomicU64::new(seed)),
            clock: Arc::new(AtomicU64::new(BEGUN_MILLIS)),
            dead: Arc::new(AtomicBool::new(false)),
        }
    }

    /// From now on nothing is written.
    pub(super) fn cut_power(&self) {
        self.dead.store(true, Ordering::Relaxed);
    }

    /// The same machine after the power came back.
    pub(super) fn powered_again(&self) -> DemoDisk {
        DemoDisk { dead: Arc::new(AtomicBool::new(false)), ..self.clone() }
    }

    fn powered(&self) -> io::Result<()> {
        if self.dead.load(Ordering::Relaxed) { Err(io::Error::other("the power is cut")) } else { Ok(()) }
    }
}

impl Disk for DemoDisk {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.powered()?;
        OsDisk.create_dir(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<DirectoryEntry>> {
        OsDisk.list(path)
    }

    fn sync_dir(&self, _path: &Path) -> io::Result<()> {
        self.powered()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.powered()?;
        OsDisk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.powered()?;
        OsDisk.remove(path)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        OsDisk.exists(path)
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        if mode != OpenMode::Read {
            self.powered()?;
        }
        Ok(Arc::new(DemoFile { file: OsDisk.open(path, mode)?, disk: self.clone() }))
    }

    fn lock(&self, path: &Path) -> io::Result<LockAttempt> {
        self.powered()?;
        OsDisk.lock(path)
    }

    fn now_millis(&self) -> u64 {
        self.clock.fetch_add(STEP_MILLIS, Ordering::Relaxed)
    }

    /// SplitMix64 (Steele, Lea and Flood, 2014).
    fn random(&self) -> u64 {
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut word = self.dice.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    fn process_id(&self) -> u32 {
        OsDisk.process_id()
    }

    fn background(&self) -> Background {
        Background::Inline
    }
}

#[derive(Debug)]
struct DemoFile {
    file: Arc<dyn DiskFile>,
    disk: DemoDisk,
}

impl DiskFile for DemoFile {
    fn length(&self) -> io::Result<u64> {
        self.file.length()
    }

    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        self.file.read_at(buffer, position)
    }

    fn write_at(&self, bytes: &[u8], position: u64) -> io::Result<usize> {
        self.disk.powered()?;
        self.file.write_at(bytes, position)
    }

    fn sync(&self) -> io::Result<()> {
        self.disk.powered()
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        self.disk.powered()?;
        self.file.set_length(length)
    }

    fn reserve(&self, length: u64) -> io::Result<()> {
        self.disk.powered()?;
        self.file.reserve(length)
    }

    fn map(&self, _length: u64) -> io::Result<Option<Map>> {
        Ok(None)
    }
}
