//! Every golden log, repaired and taken back.

use std::fs;
use std::path::{Path, PathBuf};

use stonelog::DamagePolicy;
use stonelog::disk::sim::SimDisk;
use stonelog::repair::Basis;

use crate::common::path;
use crate::mended::{check, contents, repair, served, undo};

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden");

fn names() -> Vec<String> {
    let entries = fs::read_dir(GOLDEN).unwrap().map(|entry| entry.unwrap());
    let mut names: Vec<String> =
        entries.filter(|e| e.path().is_dir()).map(|e| e.file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Logs that no repair touches: a later version's, and one that was never begun.
const REFUSED: &[&str] = &["manifest-later-version", "store-of-a-later-version", "unfinished-beginning"];

pub fn load(name: &str) -> SimDisk {
    let disk = SimDisk::new(1);
    let home = Path::new(GOLDEN).join(name);
    let mut directories: Vec<PathBuf> = vec![home.clone()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let file = entry.unwrap().path();
            if file.is_dir() {
                directories.push(file);
                continue;
            }
            let name = file.strip_prefix(&home).unwrap().to_str().unwrap().to_string();
            disk.write_file(path(&name), fs::read(&file).unwrap()).unwrap();
        }
    }
    disk
}

#[test]
fn every_golden_log_is_repaired_and_taken_back() {
    let mut failed = Vec::new();
    let mut repaired = 0;
    for name in names() {
        match std::panic::catch_unwind(|| one(&name)) {
            Ok(true) => repaired += 1,
            Ok(false) => {}
            Err(_) => failed.push(name),
        }
    }
    assert!(failed.is_empty(), "{failed:?}");
    assert!(repaired > 40, "{repaired}");
}

fn one(name: &str) -> bool {
    let disk = load(name);
    let before = contents(&disk);
    let readable = served(&disk, DamagePolicy::Serve);
    let plan = match repair(&disk, Basis::Manifest, None) {
        Ok(plan) => plan,
        Err(error) => {
            assert!(REFUSED.contains(&name), "{name}: {error}");
            assert_eq!(contents(&disk), before, "{name} was changed by a repair that was refused");
            return false;
        }
    };
    let records = check(&disk, &plan, name);
    if let Ok((_, readable, _)) = readable {
        for (offset, bytes) in readable.range(plan.offsets.start..) {
            assert_eq!(records.get(offset), Some(bytes), "{name}: record {offset} could be read before");
        }
    }
    if plan.is_nothing() {
        return false;
    }
    undo(&disk, &before, name);
    true
}
