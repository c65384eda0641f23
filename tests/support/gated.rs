//! A simulated disk whose fsyncs can be held up: for what two threads do to each other around one.

#![allow(
    missing_docs,
    unreachable_pub,
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "tests: a failed expectation is how they speak"
)]

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use stonelog::disk::sim::SimDisk;
use stonelog::disk::{Background, DirectoryEntry, Disk, DiskFile, LockAttempt, Map, OpenMode};
use stonelog::{Durability, Log, Options};

/// Which file's next fsync is held up, whether before or after it is done, who is told that it began, and
/// when it may go on.
#[derive(Debug)]
struct Gate {
    file: &'static str,
    done_first: bool,
    entered: Sender<()>,
    go_on: Receiver<()>,
}

/// Who is told that it began, and when it may go on.
type Ends = (Sender<()>, Receiver<()>);

/// A simulated disk whose fsyncs and large writes can be held up, and panic.
#[derive(Debug, Clone)]
pub struct Gated {
    pub inner: SimDisk,
    gates: Arc<Mutex<Vec<Gate>>>,
    writes_panic: Arc<AtomicBool>,
    large_write: Arc<Mutex<Option<Ends>>>,
}

impl Gated {
    /// A log in `/log` on such a disk.
    pub fn open(background: Background, durability: Durability) -> (Gated, Log) {
        let disk = Gated {
            inner: SimDisk::new(1).with_background(background),
            gates: Arc::default(),
            writes_panic: Arc::default(),
            large_write: Arc::default(),
        };
        let options = Options::new().durability(durability).disk(Arc::new(disk.clone()));
        (disk, options.open("/log").unwrap())
    }

    /// From now on every write panics, or none.
    pub fn panic_at_writes(&self, panic: bool) {
        self.writes_panic.store(panic, Ordering::Relaxed);
    }

    /// Holds up the next write of a MiB or more until something is sent; it panics, and says nothing, where the sender is
    /// dropped instead.
    pub fn hold_large_write(&self) -> (Receiver<()>, Sender<()>) {
        let ((entered, has_entered), (release, go_on)) = (channel(), channel());
        *self.large_write.lock().unwrap() = Some((entered, go_on));
        (has_entered, release)
    }

    /// Holds up the next fsync of a file whose name begins so, before it is done, until something is sent;
    /// it panics where the sender is dropped instead.
    pub fn hold(&self, file: &'static str) -> (Receiver<()>, Sender<()>) {
        self.gate(file, false)
    }

    /// Holds it up when it is done, and its outcome not yet known to who asked for it.
    pub fn hold_done(&self, file: &'static str) -> (Receiver<()>, Sender<()>) {
        self.gate(file, true)
    }

    fn gate(&self, file: &'static str, done_first: bool) -> (Receiver<()>, Sender<()>) {
        let ((entered, has_entered), (release, go_on)) = (channel(), channel());
        self.gates.lock().unwrap().push(Gate { file, done_first, entered, go_on });
        (has_entered, release)
    }
}

macro_rules! forward {
    ($($gives:ty: $($name:ident($($argument:ident: $type:ty),*)),*;)*) => {
        $($(fn $name(&self, $($argument: $type),*) -> $gives { self.inner.$name($($argument),*) })*)*
    };
}

impl Disk for Gated {
    forward! {
        io::Result<()>: create_dir(path: &Path), sync_dir(path: &Path), remove(path: &Path);
        io::Result<()>: rename(from: &Path, to: &Path);
        io::Result<bool>: exists(path: &Path); io::Result<Vec<DirectoryEntry>>: list(path: &Path);
        io::Result<LockAttempt>: lock(path: &Path);
        u64: now_millis(), random(); u32: process_id(); Background: background();
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let inner = self.inner.open(path, mode)?;
        Ok(Arc::new(GatedFile { name, inner, disk: self.clone() }))
    }
}

#[derive(Debug)]
struct GatedFile {
    name: String,
    inner: Arc<dyn DiskFile>,
    disk: Gated,
}

impl DiskFile for GatedFile {
    forward! {
        io::Result<u64>: length();
        io::Result<usize>: read_at(bytes: &mut [u8], position: u64);
        io::Result<()>: set_length(length: u64), reserve(length: u64);
        io::Result<Option<Map>>: map(length: u64);
    }

    fn write_at(&self, bytes: &[u8], position: u64) -> io::Result<usize> {
        assert!(!self.disk.writes_panic.load(Ordering::Relaxed), "a disk that panics, as the test wants it");
        let held = if bytes.len() >= 1 << 20 { self.disk.large_write.lock().unwrap().take() } else { None };
        if let Some((entered, go_on)) = held {
            let _ = entered.send(());
            if go_on.recv().is_err() {
                std::panic::resume_unwind(Box::new("a disk that panics, as the test wants it"));
            }
        }
        self.inner.write_at(bytes, position)
    }

    fn sync(&self) -> io::Result<()> {
        let mut gates = self.disk.gates.lock().unwrap();
        let mine = gates.iter().position(|gate| self.name.starts_with(gate.file));
        let gate = mine.map(|index| gates.remove(index));
        drop(gates);
        let Some(gate) = gate else { return self.inner.sync() };
        let done = gate.done_first.then(|| self.inner.sync());
        let _ = gate.entered.send(());
        gate.go_on.recv().expect("a disk that panics, as the test wants it");
        done.unwrap_or_else(|| self.inner.sync())
    }
}
