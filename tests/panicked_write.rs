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
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use stonelog::disk::Background;
use stonelog::disk::sim::Loss;
use stonelog::{Durability, Options};

#[path = "support/gated.rs"]
mod gated;

use gated::Gated;

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

#[test]
fn a_commit_beside_a_write_that_panics_acknowledges_nothing() {
    let (disk, log) = Gated::open(Background::Threads, Durability::Manual);
    log.append(b"first").unwrap();
    log.sync().unwrap();

    let (has_entered, release) = disk.hold_large_write();
    // A piece for the scribe and some more, and less than the 1.5 MiB at which an append writes by itself.
    for _ in 0..2200 {
        log.append([b'x'; 500]).unwrap();
    }
    has_entered.recv().unwrap();
    let late = log.append(b"late").unwrap();
    let synced = std::thread::scope(|scope| {
        let syncing = scope.spawn(|| log.sync());
        // It waits for the write stage.
        std::thread::sleep(Duration::from_millis(100));
        SLOW.store(true, Ordering::Relaxed);
        drop(release);
        syncing.join().unwrap()
    });
    SLOW.store(false, Ordering::Relaxed);
    let durable = log.durable_end();
    println!("synced: {synced:?}, durable end {durable}, late is {late}");
    disk.inner.power_loss(Loss::Nothing);
    drop(log);
    if synced.is_ok() {
        let log = Options::new().disk(Arc::new(disk)).open("/log").expect("G5: what a crash leaves opens");
        println!("found after a power cut: {:?}", log.offsets());
        for offset in 0..durable {
            assert!(log.read(offset).is_ok(), "G1: {offset} was acknowledged: {:?}", log.read(offset));
        }
    }
}
