//! The target that runs `log-repair` in this process, every verb of it, on a directory of files.

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use log_repair::{Streams, run};
use stonelog::disk::sim::SimDisk;

use super::shared::bytes::Bytes;
use super::shared::{logs, mutate};

/// Every way to call it. Those that change something belong last, each with a fresh copy.
const VERBS: &[&[&str]] = &[
    &["check", "--no-progress"],
    &["check", "--no-progress", "--json"],
    &["check", "--no-progress", "--quiet"],
    &["stat"],
    &["stat", "--json"],
    &["dump"],
    &["dump", "--format", "hex", "--limit", "9"],
    &["dump", "--format", "json", "--from", "3"],
    &["dump", "--format", "raw", "--to", "30"],
    &["dump", "--frames"],
    &["map"],
    &["map", "--all", "--ascii", "--width", "60"],
    &["map", "--json"],
    &["map", "--html", "-"],
    // (Of each kind of place one, and some that are not there.)
    &["explain", "0"],
    &["explain", "7", "--json"],
    &["explain", "40", "--bytes", "9"],
    &["explain", "4611686018427387904"],
    &["explain", "1:0"],
    &["explain", "1:600", "--json"],
    &["explain", "1:1024"],
    &["explain", "1:1500"],
    &["explain", "2:1100", "--json"],
    &["explain", "2:18446744073709551615"],
    &["explain", "MANIFEST:40"],
    &["explain", "MANIFEST:512", "--json"],
    &["explain", "MANIFEST:700"],
    &["explain", "0000000000000001.index:12"],
    &["explain", "0000000000000001.index:70", "--json"],
    &["dump", "--frames", "--format", "json", "--from", "2", "--to", "20", "--limit", "50"],
    &["salvage", "--no-progress", "--out", OUT],
    &[
        "salvage",
        "--no-progress",
        "--json",
        "--beyond-seals",
        "--partial-batches",
        "--infer-bases",
        "--out",
        OUT,
    ],
    &["salvage", "--no-progress", "--json", "--carve", "--out", OUT],
    &["plan"],
    &["plan", "--json"],
    &["plan", "--from-stores"],
    &["plan", "--json", "--accept-loss", "3..9"],
    &["repair"],
    &["repair", "--json", "--accept-loss", "0..30"],
    &["rebuild"],
    &["rebuild", "--json"],
    &["undo"],
    &["undo", "--json"],
];

/// Stands for a place beside the directory, where nothing is.
const OUT: &str = "@OUT";

/// The exit codes of docs/OPERATIONS.md that a verb can end with here.
const EXITS: [u8; 3] = [0, 4, 8];

/// How much may be written about a directory: a report repeats names, and says several things of
/// each record, but does not go on for ever.
const MOST_WRITTEN: u64 = 64 << 20;

/// Counts what is written, and keeps nothing.
#[derive(Clone, Default)]
struct Counter(Arc<AtomicU64>);

impl Write for Counter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let all = self.0.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        assert!(all < MOST_WRITTEN, "a verb writes without an end");
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A directory of the real filesystem, in memory where there is such a place.
pub struct Place {
    home: tempfile::TempDir,
}

impl Place {
    pub fn new() -> Place {
        let memory = Path::new("/dev/shm");
        let parent = if memory.is_dir() { memory.to_path_buf() } else { std::env::temp_dir() };
        Place { home: tempfile::tempdir_in(parent).expect("a temporary directory") }
    }

    pub fn directory(&self) -> PathBuf {
        self.home.path().join("log")
    }

    /// Writes the files of a simulated log.
    pub fn fill(&self, disk: &SimDisk) {
        std::fs::create_dir(self.directory()).expect("a fresh directory");
        for (name, bytes) in logs::files(disk) {
            std::fs::write(self.directory().join(name), bytes).expect("a file");
        }
    }
}

/// Runs every verb on `directory`; `around` is called with the arguments and the run itself.
pub fn every_verb(directory: &Path, mut around: impl FnMut(&[&str], &mut dyn FnMut() -> u8)) {
    for verb in VERBS {
        let out = directory.with_file_name("out");
        let arguments = || {
            for made in ["out", "out-unplaced"].map(|name| directory.with_file_name(name)) {
                let _ = std::fs::remove_dir_all(made);
            }
            let _ = std::fs::remove_file(directory.with_file_name("out-unplaced.jsonl"));
            let words = ["log-repair", verb[0]].into_iter().map(OsString::from);
            let rest = verb[1..]
                .iter()
                .map(|word| if *word == OUT { out.clone().into() } else { OsString::from(word) });
            words.chain([directory.as_os_str().to_os_string()]).chain(rest).collect::<Vec<_>>()
        };
        around(verb, &mut || {
            let code = run(arguments(), Streams::to(Counter::default(), Counter::default()));
            assert!(EXITS.contains(&code), "{verb:?} ended with {code}");
            code
        });
    }
}

/// The target.
pub fn repair(data: &[u8]) {
    let disk = mutate::world(&mut Bytes(data));
    let place = Place::new();
    place.fill(&disk);
    every_verb(&place.directory(), |_, run| {
        run();
    });
    for (name, bytes) in logs::files(&disk) {
        let now = std::fs::read(place.directory().join(&name)).ok();
        assert!(now.as_ref() == Some(&bytes), "a verb that only looks has changed {name}");
    }
}
