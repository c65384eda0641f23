//! G5, G8. A log that is opened read-only beside a live writer serves what it is: whatever the writer does between two
//! reads of that opening.
//!
//! What it would catch: a store placed by what was read of another before the writer went on; an index built from a length
//! that is not true any more; good records called damage.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};

use stonelog::disk::sim::SimDisk;
use stonelog::disk::{Background, DirectoryEntry, Disk, DiskFile, LockAttempt, Map, OpenMode};
use stonelog::{Error, Log};

use crate::common::{DIRECTORY, options};

/// What somebody else does before one of this disk's calls, and how many come before that one.
type Deed = Arc<Mutex<Option<(u64, Box<dyn FnOnce() + Send>)>>>;

#[derive(Clone)]
struct Shared {
    inner: SimDisk,
    deed: Deed,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.inner.fmt(f)
    }
}

impl Shared {
    fn call(&self) {
        let mut deed = self.deed.lock().unwrap();
        let due = match &mut *deed {
            Some((left, _)) if *left > 0 => {
                *left -= 1;
                return;
            }
            due => due.take(),
        };
        drop(deed);
        if let Some((_, deed)) = due {
            deed();
        }
    }
}

macro_rules! forward {
    ($($gives:ty: $($name:ident($($argument:ident: $type:ty),*)),*;)*) => {
        $($(fn $name(&self, $($argument: $type),*) -> $gives { self.call(); self.inner.$name($($argument),*) })*)*
    };
}

impl Disk for Shared {
    forward! {
        io::Result<()>: create_dir(path: &Path), sync_dir(path: &Path), remove(path: &Path);
        io::Result<()>: rename(from: &Path, to: &Path);
        io::Result<bool>: exists(path: &Path); io::Result<Vec<DirectoryEntry>>: list(path: &Path);
        io::Result<LockAttempt>: lock(path: &Path);
        u64: now_millis(), random(); u32: process_id(); Background: background();
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        self.call();
        Ok(Arc::new(SharedFile { inner: self.inner.open(path, mode)?, disk: self.clone() }))
    }
}

#[derive(Debug)]
struct SharedFile {
    inner: Arc<dyn DiskFile>,
    disk: Shared,
}

impl SharedFile {
    fn call(&self) {
        self.disk.call();
    }
}

impl DiskFile for SharedFile {
    forward! {
        io::Result<u64>: length();
        io::Result<usize>: read_at(bytes: &mut [u8], position: u64), write_at(bytes: &[u8], position: u64);
        io::Result<()>: sync(), set_length(length: u64), reserve(length: u64);
        io::Result<Option<Map>>: map(length: u64);
    }
}

/// Three to a segment, which it does not fill.
fn payload(offset: u64) -> Vec<u8> {
    let mut bytes = vec![offset as u8 | 1; 50_000 + (offset as usize % 7) * 8];
    bytes[..8].copy_from_slice(&offset.to_le_bytes());
    bytes
}

fn append(log: &Log, count: u64) {
    for _ in 0..count {
        log.append(payload(log.offsets().end)).unwrap();
    }
}

/// A writer appends, rolls, seals, trims and truncates while somebody opens and reads.
#[test]
fn a_writer_goes_on_between_any_two_reads() {
    for (before, more, front) in
        (2..9).flat_map(|before| [(before, 1, 0), (before, 3, 0), (before, 9, 0), (before, 5, 3)])
    {
        for call in 0..70 {
            let disk = SimDisk::new(before * 100 + more);
            let roomy = |disk: Arc<dyn Disk>| options(&SimDisk::new(0)).segment_bytes(160 << 10).disk(disk);
            let log = roomy(Arc::new(disk.clone())).open(DIRECTORY).unwrap();
            append(&log, before);
            let writer = log.clone();
            let goes_on = move || {
                append(&writer, more);
                writer.truncate_front(front).unwrap();
            };
            let deed: Deed = Arc::new(Mutex::new(Some((call, Box::new(goes_on)))));
            let what = format!("{more} more than {before}, from {front} on, at call {call}");
            let looking = roomy(Arc::new(Shared { inner: disk, deed })).open_read_only(DIRECTORY);
            let looking = looking.unwrap_or_else(|error| panic!("{what}: {error}"));
            let offsets = looking.offsets();
            assert!((before..=before + more).contains(&offsets.end), "{what}: {offsets:?}");
            for offset in offsets {
                match looking.read(offset) {
                    Ok(record) => assert_eq!(*record, payload(offset), "{what}: {offset}"),
                    Err(Error::OutOfRange { .. }) if offset < front => {}
                    Err(error) => panic!("{what}: {offset}: {error}"),
                }
            }
        }
    }
}
