//! The simulated disk keeps each of its promises: it is the ground that every crash test stands on.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test's helpers may fail where the test would"
)]

mod faults;
mod losses;
mod machine;

use std::collections::BTreeSet;
use std::io::{self, ErrorKind};
use std::path::Path;
use std::sync::Arc;

use stonelog::disk::sim::{Capabilities, Fault, FaultError, Loss, Operation, Outcome, SimDisk};
use stonelog::disk::{Background, Disk, DiskFile, LockAttempt, OpenMode, write_all_at};

pub(crate) type Outcomes = BTreeSet<Option<Vec<u8>>>;

pub(crate) fn create(disk: &SimDisk, path: &str) -> Arc<dyn DiskFile> {
    disk.open(Path::new(path), OpenMode::CreateNew).unwrap()
}

/// A file whose name and bytes are durable.
pub(crate) fn durable(disk: &SimDisk, path: &str, bytes: &[u8]) -> Arc<dyn DiskFile> {
    let file = create(disk, path);
    write_all_at(&*file, bytes, 0).unwrap();
    file.sync().unwrap();
    disk.sync_dir(Path::new(path).parent().unwrap()).unwrap();
    file
}

pub(crate) fn rename(disk: &SimDisk, from: &str, to: &str) {
    disk.rename(Path::new(from), Path::new(to)).unwrap();
}

/// The disk as it would be after this loss.
pub(crate) fn after(disk: &SimDisk, loss: Loss) -> SimDisk {
    let fork = disk.fork();
    fork.power_loss(loss);
    assert_eq!(fork.pending(), 0);
    assert_eq!(fork.digest(), fork.durable_digest());
    fork
}

/// What a file may be found to hold, over many seeds.
pub(crate) fn found(disk: &SimDisk, path: &str) -> Outcomes {
    (0..400).map(|seed| after(disk, Loss::Seeded(seed)).read_file(path)).collect()
}

pub(crate) fn read(file: &dyn DiskFile) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(file.length().unwrap()).unwrap()];
    let count = file.read_at(&mut bytes, 0).unwrap();
    assert_eq!(count, bytes.len());
    bytes
}

pub(crate) fn is_crash<T: std::fmt::Debug>(outcome: io::Result<T>) -> bool {
    let error = outcome.unwrap_err();
    error.kind() == ErrorKind::Other && error.to_string().starts_with("simulated crash: ")
}

/// A seeded run over all operations, without failing syncs.
pub(crate) fn scribble(disk: &SimDisk, seed: u64, count: usize) {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut below = |bound: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) % bound
    };
    let names = ["a", "b", "c", "d/a", "d/b", "d/q/a"];
    for _ in 0..count {
        let path = Path::new(names[usize::try_from(below(6)).unwrap()]);
        let other = Path::new(names[usize::try_from(below(6)).unwrap()]);
        match below(12) {
            0 => drop(disk.create_dir(Path::new("d"))),
            1 => drop(disk.create_dir(Path::new("d/q"))),
            2 | 3 => drop(disk.open(path, OpenMode::CreateNew)),
            4 => drop(disk.rename(path, other)),
            5 => drop(disk.remove(path)),
            6 => drop(disk.sync_dir(path.parent().unwrap())),
            choice => {
                let Ok(file) = disk.open(path, OpenMode::ReadWrite) else { continue };
                match choice {
                    7 => drop(file.sync()),
                    8 => drop(file.set_length(below(6000))),
                    9 => drop(file.reserve(below(6000))),
                    _ => {
                        let bytes = vec![
                            u8::try_from(below(255)).unwrap() + 1;
                            usize::try_from(below(3000)).unwrap()
                        ];
                        drop(file.write_at(&bytes, below(5000)));
                    }
                }
            }
        }
    }
}
