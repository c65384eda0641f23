//! Looking at all of a log: the same findings whoever scans what, an index compared record by record, and
//! memory that does not grow with the records.
#![allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::disallowed_methods,
    reason = "tests: a failed expectation is how they speak, and they make real files"
)]

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread::ThreadId;

use stonelog::disk::{Background, DirectoryEntry, Disk, DiskFile, LockAttempt, OpenMode, OsDisk};
use stonelog::recovery::{Depth, Findings, inspect};
use stonelog::{Durability, Options, names};

/// The operating system's disk, which says who does background work and sees who opened files.
#[derive(Debug)]
struct Watched {
    background: Background,
    threads: Mutex<BTreeSet<String>>,
}

impl Watched {
    fn new(background: Background) -> Watched {
        Watched { background, threads: Mutex::default() }
    }

    fn note(&self, thread: ThreadId) {
        self.threads.lock().unwrap().insert(format!("{thread:?}"));
    }
}

impl Disk for Watched {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        OsDisk.create_dir(path)
    }
    fn list(&self, path: &Path) -> io::Result<Vec<DirectoryEntry>> {
        OsDisk.list(path)
    }
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        OsDisk.sync_dir(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        OsDisk.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        OsDisk.remove(path)
    }
    fn exists(&self, path: &Path) -> io::Result<bool> {
        OsDisk.exists(path)
    }
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        assert_eq!(mode, OpenMode::Read, "a look only reads: {}", path.display());
        self.note(std::thread::current().id());
        OsDisk.open(path, mode)
    }
    fn lock(&self, path: &Path) -> io::Result<LockAttempt> {
        panic!("a look takes no lock: {}", path.display());
    }
    fn now_millis(&self) -> u64 {
        OsDisk.now_millis()
    }
    fn random(&self) -> u64 {
        OsDisk.random()
    }
    fn process_id(&self) -> u32 {
        OsDisk.process_id()
    }
    fn background(&self) -> Background {
        self.background
    }
}

/// A closed log of `count` records, each as long as `length` says, in segments of `segment_bytes`.
fn log(home: &Path, segment_bytes: u64, count: u64, length: impl Fn(u64) -> u64) -> PathBuf {
    let directory = home.join("log");
    let options = Options::new().segment_bytes(segment_bytes).durability(Durability::Manual);
    let log = options.open(&directory).unwrap();
    for offset in 0..count {
        log.append(vec![offset as u8; length(offset) as usize]).unwrap();
    }
    log.close().unwrap();
    directory
}

fn everything(directory: &Path) -> Findings {
    inspect(&OsDisk, directory, Depth::Everything).unwrap()
}

#[test]
fn findings_are_the_same_on_one_thread_and_on_many() {
    let home = tempfile::tempdir().unwrap();
    let directory = log(home.path(), 64 << 10, 8000, |offset| 40 + offset % 80);
    let whole = everything(&directory);
    assert!(whole.segments.len() > 8, "many segments");
    // A different damage in each.
    for segment in &whole.segments {
        let path = directory.join(names::store(segment.id));
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[2000 + segment.id as usize * 8] ^= 1;
        std::fs::write(&path, bytes).unwrap();
    }
    std::fs::remove_file(directory.join(names::store(4))).unwrap();
    std::fs::write(directory.join(names::index(5)), b"no index").unwrap();

    let (one, many) = (Watched::new(Background::Inline), Watched::new(Background::Threads));
    for depth in [Depth::Everything, Depth::Opening] {
        let in_order = format!("{:#?}", inspect(&one, &directory, depth).unwrap());
        for _ in 0..8 {
            assert_eq!(format!("{:#?}", inspect(&many, &directory, depth).unwrap()), in_order);
        }
    }
    assert_eq!(one.threads.lock().unwrap().len(), 1, "an inline disk has no threads");
}

/// For each form that an index has: one entry leads elsewhere, under a checksum that holds.
#[test]
fn an_index_is_compared_record_by_record() {
    type Length = fn(u64) -> u64;
    let forms: [(&str, u64, Length); 3] = [
        ("fixed", 40_000, |_| 100),
        ("blocked", 40_000, |offset| 40 + offset % 80),
        ("wide", 1_000, |offset| if offset.is_multiple_of(8) { 70_000 } else { 40 }),
    ];
    for (form, count, length) in forms {
        let home = tempfile::tempdir().unwrap();
        let directory = log(home.path(), 3 << 20, count, length);
        let id = everything(&directory).segments[0].id;
        let path = directory.join(names::index(id));
        let good = std::fs::read(&path).unwrap();
        let number = ["fixed", "blocked", "wide"].iter().position(|name| *name == form).unwrap() + 1;
        assert_eq!(usize::from(good[12]), number, "{form}: the form that was meant");
        let defect = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            everything(&directory).segments[0].index_defect.clone()
        };
        assert_eq!(defect(&good), None, "{form}: whole");
        // The first entry of a record, the last one, and some between; of a fixed index the stride.
        let body = good.len() - 64;
        let places: Vec<usize> = match form {
            "fixed" => vec![40],
            "blocked" => vec![64 + body / 4, 64 + body / 2, 64 + body - 8],
            _ => vec![64, 64 + body / 2 / 4 * 4, 64 + body - 4],
        };
        for place in places {
            let mut bytes = good.clone();
            bytes[place] ^= 4;
            let crc = crc32fast::hash(&bytes[64..]);
            bytes[48..52].copy_from_slice(&crc.to_le_bytes());
            let crc = crc32fast::hash(&bytes[..60]);
            bytes[60..64].copy_from_slice(&crc.to_le_bytes());
            let told = defect(&bytes).unwrap_or_else(|| panic!("{form}: byte {place} was not missed"));
            assert!(told.contains("does not lead to record"), "{form}: {told}");
        }
    }
}

/// A segment of half a million records takes no more memory than one of a few.
#[test]
fn memory_does_not_grow_with_the_records() {
    let weigh = |count: u64| {
        let home = tempfile::tempdir().unwrap();
        // Sealed segments among them; on one thread, since memory is counted by thread.
        let directory = home.path().join("log");
        let options = Options::new().segment_bytes(64 << 20).durability(Durability::Manual);
        let log = options.open(&directory).unwrap();
        for offset in 0..count {
            log.append(vec![7; (offset % 90) as usize]).unwrap();
        }
        log.close().unwrap();
        let disk = Watched::new(Background::Inline);
        let mut found = None;
        let taken = allocation_counter::measure(|| {
            found = Some(inspect(&disk, &directory, Depth::Everything).unwrap());
        });
        let found = found.unwrap();
        let records: u64 = found
            .segments
            .iter()
            .map(|s| u64::from(s.scan.as_ref().unwrap().chain().unwrap().ordinals.end))
            .sum();
        assert_eq!(records, count);
        taken.bytes_max
    };
    let (few, many) = (weigh(1_000), weigh(2_000_000));
    let bound = 3 << 19;
    assert!(few <= bound && many <= bound, "{few} bytes for few records, {many} for many");
}
