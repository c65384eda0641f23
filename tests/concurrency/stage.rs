//! What cases and worlds share: a log whose background runs in explored threads, the look at what a
//! power cut would leave, and a disk on which an fsync panics.
//!
//! Opening, closing and looking are held: nobody else runs meanwhile, and nothing of them is explored,
//! so that a case's schedules are spent on what it is about.

use std::io;
use std::panic::panic_any;
use std::path::Path;
use std::sync::{Arc, Mutex};

use stonelog::disk::sim::{Loss, SimDisk};
use stonelog::disk::{Background, DirectoryEntry, Disk, DiskFile, LockAttempt, Map, OpenMode};
use stonelog::{Durability, Log, Options, ReadMode};

use crate::scheduler::{ON_PURPOSE, held};

pub const DIRECTORY: &str = "/log";

/// A disk for which a log starts its threads.
pub fn disk() -> SimDisk {
    SimDisk::new(1).with_background(Background::Threads)
}

pub fn options(disk: impl Disk + 'static) -> Options {
    Options::new().disk(Arc::new(disk)).segment_bytes(4096).read_mode(ReadMode::Buffered)
}

pub fn manual(disk: impl Disk + 'static) -> Options {
    options(disk).durability(Durability::Manual)
}

/// Opens a log, appends `count` records, and waits until its threads have nothing to do.
pub fn open(options: Options, count: u64) -> Log {
    held(|| {
        let log = options.open(DIRECTORY).unwrap();
        for offset in 0..count {
            assert_eq!(log.append(record(offset)).unwrap(), offset);
        }
        log.sync().unwrap();
        settle();
        log
    })
}

/// Lets everyone else run until they wait.
pub fn settle() {
    held(|| {
        for _ in 0..6 {
            shuttle::thread::yield_now();
        }
    });
}

/// The record that a case gives the offset `offset`, where it may say so.
pub fn record(offset: u64) -> Vec<u8> {
    format!("record {offset}").into_bytes()
}

/// Closes, or drops, what is left of a log.
pub fn end(log: Log) {
    held(|| drop(log));
}

/// The log as it is found after `loss` at this moment; the disk and its log live on.
pub fn found<T>(disk: &SimDisk, loss: Loss, look: impl FnOnce(&Log) -> T) -> T {
    held(|| {
        let world = disk.fork();
        world.crash_at_mutation(0);
        world.clear_faults();
        world.set_background(Background::Inline);
        world.power_loss(loss);
        let log = options(world).open(DIRECTORY).unwrap_or_else(|error| panic!("does not open: {error}"));
        look(&log)
    })
}

/// Checks that a record which was acknowledged at this moment lies below the durable end, can be read,
/// and survives.
#[track_caller]
pub fn acknowledged(log: &Log, disk: &SimDisk, offset: u64, bytes: &[u8]) {
    let durable = held(|| log.durable_end());
    assert!(offset < durable, "record {offset} was acknowledged, and the durable end is {durable}");
    held(|| assert_eq!(&*log.read(offset).unwrap(), bytes, "G8: record {offset} was acknowledged"));
    survives(disk, offset, bytes);
}

/// Checks that a record which was acknowledged, or shown, at this moment is there after the worst
/// power cut.
#[track_caller]
pub fn survives(disk: &SimDisk, offset: u64, bytes: &[u8]) {
    found(disk, Loss::Nothing, |log| match log.read(offset) {
        Ok(read) => assert_eq!(&*read, bytes, "G1: record {offset} was acknowledged"),
        Err(error) => panic!("G1: record {offset} was acknowledged, and a power cut takes it: {error}"),
    });
}

/// Runs these at once, each in a thread of its own, and waits for all.
pub fn at_once(threads: Vec<Box<dyn FnOnce() + Send>>) {
    let threads: Vec<_> = threads.into_iter().map(shuttle::thread::spawn).collect();
    for thread in threads {
        thread.join().unwrap();
    }
}

/// `at_once(threads![move || ..., move || ...])`
#[macro_export]
macro_rules! threads {
    ($($thread:expr),* $(,)?) => { vec![$(Box::new($thread) as Box<dyn FnOnce() + Send>),*] };
}

/// A disk on which every fsync of a file with this in its name panics, once there is one.
#[derive(Debug, Clone)]
pub struct Panicking {
    pub inner: SimDisk,
    struck: Arc<Mutex<Option<&'static str>>>,
}

impl Panicking {
    pub fn new(inner: SimDisk) -> Panicking {
        Panicking { inner, struck: Arc::default() }
    }

    pub fn strike(&self, name: Option<&'static str>) {
        *self.struck.lock().unwrap() = name;
    }
}

#[derive(Debug)]
struct PanickingFile {
    inner: Arc<dyn DiskFile>,
    path: String,
    disk: Panicking,
}

impl Disk for Panicking {
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
    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.inner.exists(path)
    }
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let inner = self.inner.open(path, mode)?;
        Ok(Arc::new(PanickingFile { inner, path: path.display().to_string(), disk: self.clone() }))
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

impl DiskFile for PanickingFile {
    fn length(&self) -> io::Result<u64> {
        self.inner.length()
    }
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        self.inner.read_at(buffer, position)
    }
    fn write_at(&self, bytes: &[u8], position: u64) -> io::Result<usize> {
        self.inner.write_at(bytes, position)
    }
    fn sync(&self) -> io::Result<()> {
        let struck = *self.disk.struck.lock().unwrap();
        if struck.is_some_and(|name| self.path.contains(name)) {
            panic_any(ON_PURPOSE);
        }
        self.inner.sync()
    }
    fn set_length(&self, length: u64) -> io::Result<()> {
        self.inner.set_length(length)
    }
    fn reserve(&self, length: u64) -> io::Result<()> {
        self.inner.reserve(length)
    }
    fn map(&self, length: u64) -> io::Result<Option<Map>> {
        self.inner.map(length)
    }
}
