//! G1, G6: a write that panicked is never passed over. It lets the write stage go before it poisons the log, and a commit
//! that waited for the stage came in between, wrote what follows the hole, fsynced it and acknowledged all of it. The
//! stage says now that a write began in it and did not end.
//!
//! The moment between the two is some hundred nanoseconds. Here it is made long by an allocator that takes its time for
//! a thread that unwinds (what makes the poison's error allocates).
#![allow(
    missing_docs,
    unsafe_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests: a failed expectation is how they speak"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use stonelog::disk::sim::{Loss, SimDisk};
use stonelog::disk::{Background, DirectoryEntry, Disk, DiskFile, LockAttempt, Map, OpenMode};
use stonelog::{Durability, Options};

/// Whether threads that unwind take their time.
static SLOW: AtomicBool = AtomicBool::new(false);

struct Slow;

// SAFETY: all is the system's allocator's.
unsafe impl GlobalAlloc for Slow {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if SLOW.load(Ordering::Relaxed) && std::thread::panicking() {
            std::thread::sleep(Duration::from_millis(20));
        }
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Slow = Slow;

type Gate = Arc<Mutex<Option<(Sender<()>, Receiver<()>)>>>;

/// A disk of whose files one large write panics, once it may.
#[derive(Debug, Clone)]
struct Panics {
    inner: SimDisk,
    gate: Gate,
}

macro_rules! forward {
    ($($gives:ty: $($name:ident($($argument:ident: $type:ty),*)),*;)*) => {
        $($(fn $name(&self, $($argument: $type),*) -> $gives { self.inner.$name($($argument),*) })*)*
    };
}

impl Disk for Panics {
    forward! {
        io::Result<()>: create_dir(path: &Path), sync_dir(path: &Path), remove(path: &Path);
        io::Result<()>: rename(from: &Path, to: &Path);
        io::Result<bool>: exists(path: &Path); io::Result<Vec<DirectoryEntry>>: list(path: &Path);
        io::Result<LockAttempt>: lock(path: &Path);
        u64: now_millis(), random(); u32: process_id(); Background: background();
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(File { inner: self.inner.open(path, mode)?, gate: self.gate.clone() }))
    }
}

#[derive(Debug)]
struct File {
    inner: Arc<dyn DiskFile>,
    gate: Gate,
}

impl DiskFile for File {
    forward! {
        io::Result<u64>: length();
        io::Result<usize>: read_at(bytes: &mut [u8], position: u64);
        io::Result<()>: set_length(length: u64), reserve(length: u64), sync();
        io::Result<Option<Map>>: map(length: u64);
    }

    fn write_at(&self, bytes: &[u8], position: u64) -> io::Result<usize> {
        if bytes.len() >= 1 << 20
            && let Some((entered, go_on)) = self.gate.lock().unwrap().take()
        {
            entered.send(()).unwrap();
            go_on.recv().unwrap();
            SLOW.store(true, Ordering::Relaxed);
            std::panic::resume_unwind(Box::new("a disk that panics, as the test wants it"));
        }
        self.inner.write_at(bytes, position)
    }
}

#[test]
fn a_commit_beside_a_write_that_panics_acknowledges_nothing() {
    let sim = SimDisk::new(1).with_background(Background::Threads);
    let disk = Panics { inner: sim.clone(), gate: Arc::default() };
    let open = || Options::new().durability(Durability::Manual).disk(Arc::new(disk.clone())).open("/log");
    let log = open().unwrap();
    log.append(b"first").unwrap();
    log.sync().unwrap();

    let ((entered, has_entered), (release, go_on)) = (channel(), channel());
    *disk.gate.lock().unwrap() = Some((entered, go_on));
    let held_up = AtomicBool::new(false);
    let (synced, late) = std::thread::scope(|scope| {
        // A piece for the scribe, or for this thread where the scribe is late.
        let appending = scope.spawn(|| {
            let append = || {
                loop {
                    if held_up.load(Ordering::Relaxed) || log.append([b'x'; 500]).is_err() {
                        break;
                    }
                }
            };
            let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(append));
        });
        has_entered.recv().unwrap();
        held_up.store(true, Ordering::Relaxed);
        let late = log.append(b"late").unwrap();
        let syncing = scope.spawn(|| log.sync());
        // It waits for the write stage.
        std::thread::sleep(Duration::from_millis(100));
        release.send(()).unwrap();
        let synced = syncing.join().unwrap();
        appending.join().unwrap();
        (synced, late)
    });
    SLOW.store(false, Ordering::Relaxed);
    let durable = log.durable_end();
    println!("synced: {synced:?}, durable end {durable}, late is {late}");
    sim.power_loss(Loss::Nothing);
    drop(log);
    if synced.is_ok() {
        let log = open().expect("G5: what a crash leaves opens");
        println!("found after a power cut: {:?}", log.offsets());
        for offset in 0..durable {
            assert!(log.read(offset).is_ok(), "G1: {offset} was acknowledged: {:?}", log.read(offset));
        }
    }
}
