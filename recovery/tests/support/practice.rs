//! The practice logs of `log-repair demo` on the real disk, the tool run on them in this process, and all
//! that a filesystem knows of a directory.

#![allow(dead_code, reason = "each test needs a part of it")]

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};

use serde_json::Value;
use stonelog::{DamagePolicy, Error, Options, ReadMode};
use tempfile::TempDir;

pub use super::Ran;

/// Payloads by their offsets.
pub type Records = BTreeMap<u64, Vec<u8>>;

/// A practice log in a directory of its own.
pub struct Practice {
    home: TempDir,
    pub directory: PathBuf,
    pub kind: String,
    /// How many records were appended to it.
    pub records: u64,
    /// What `check` is to say of it.
    pub codes: Vec<String>,
}

/// A writer whose bytes somebody else keeps.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<u8>>>);

impl Write for Kept {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Runs the tool in this process: as the binary does, and faster.
pub fn run_here<S: AsRef<OsStr>>(arguments: &[S]) -> Ran {
    let (stdout, stderr) = (Kept::default(), Kept::default());
    let words = arguments.iter().map(|word| word.as_ref().to_os_string());
    let words = std::iter::once("log-repair".into()).chain(words);
    let code = log_repair::run(words, log_repair::Streams::to(stdout.clone(), stderr.clone()));
    let text = |kept: &Kept| String::from_utf8_lossy(&kept.0.lock().unwrap()).into_owned();
    Ran { code: i32::from(code), stdout: text(&stdout), stderr: text(&stderr) }
}

/// Every kind that `log-repair demo --list` names.
pub fn kinds() -> Vec<String> {
    let list: Value = serde_json::from_str(&run_here(&["demo", "--list", "--json"]).stdout).unwrap();
    let kinds = list["kinds"].as_array().unwrap().iter();
    let kinds: Vec<String> = kinds.map(|kind| kind["kind"].as_str().unwrap().to_string()).collect();
    assert!(kinds.len() >= 20, "{kinds:?}");
    kinds
}

/// Calls `work` for every kind, two at a time; tells of all that failed.
pub fn for_each_kind(replay: &str, work: impl Fn(&str) + Sync) {
    let left = Mutex::new(kinds());
    let failed = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let Some(kind) = left.lock().unwrap().pop() else { return };
                    if std::env::var("STONELOG_KIND").is_ok_and(|only| only != kind) {
                        continue;
                    }
                    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| work(&kind)));
                    if outcome.is_err() {
                        failed.lock().unwrap().push(kind);
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    assert!(failed.is_empty(), "{failed:?} failed; replay: STONELOG_KIND=<kind> {replay}");
}

/// The payload of the record at `offset`, in a practice log of any kind.
pub fn payload(offset: u64) -> &'static [u8] {
    static PAYLOADS: OnceLock<BTreeMap<u64, Vec<u8>>> = OnceLock::new();
    let all = PAYLOADS.get_or_init(|| {
        let home = tempfile::tempdir().unwrap();
        let whole = home.path().join("log");
        // (Longer than any other, and of the same words; two of its records are damaged.)
        let made = run_here(&["demo".as_ref(), whole.as_os_str(), "large".as_ref()]);
        assert_eq!(made.code, 0, "{made:?}");
        let dump = run_here(&["dump".as_ref(), whole.as_os_str()]);
        let record = |line: &str| {
            let (offset, bytes) = line.split_once('\t').unwrap();
            (offset.parse().unwrap(), bytes.as_bytes().to_vec())
        };
        dump.stdout.lines().filter(|line| line.contains("order")).map(record).collect()
    });
    &all[&offset]
}

impl Practice {
    pub fn new(kind: &str) -> Practice {
        let home = tempfile::tempdir().unwrap();
        let directory = home.path().join("log");
        let made = run_here(&["demo".as_ref(), directory.as_os_str(), kind.as_ref(), "--json".as_ref()]);
        assert_eq!(made.code, 0, "{made:?}");
        let made: Value = serde_json::from_str(&made.stdout).unwrap();
        let codes = made["codes"].as_array().unwrap().iter();
        Practice {
            directory,
            kind: kind.to_string(),
            records: made["records"].as_u64().unwrap(),
            codes: codes.map(|code| code.as_str().unwrap().to_string()).collect(),
            home,
        }
    }

    /// A path beside the log.
    pub fn beside(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    pub fn shown(&self) -> &str {
        self.directory.to_str().unwrap()
    }

    /// The same log once more, to be treated otherwise.
    pub fn copy(&self) -> Practice {
        let home = tempfile::tempdir().unwrap();
        let directory = home.path().join("log");
        copy(&self.directory, &directory);
        Practice {
            home,
            directory,
            kind: self.kind.clone(),
            records: self.records,
            codes: self.codes.clone(),
        }
    }

    /// `log-repair VERB DIR ARGUMENTS`, in this process.
    pub fn run(&self, verb: &str, arguments: &[&str]) -> Ran {
        run_here(&[&[verb, self.shown()], arguments].concat())
    }

    /// The same, as the JSON that it writes.
    pub fn json(&self, verb: &str, arguments: &[&str]) -> (i32, Value) {
        let ran = self.run(verb, &[arguments, &["--json"]].concat());
        let value = serde_json::from_str(&ran.stdout).unwrap_or_else(|_| panic!("{verb}: {ran:?}"));
        (ran.code, value)
    }

    /// `--accept-loss A..B` for all that a plan gives up; where it cannot tell how many that is, up to the
    /// end that the log had.
    pub fn acceptance(&self, plan: &Value) -> Vec<String> {
        let mut words = Vec::new();
        for range in plan["to_accept"].as_array().unwrap() {
            let (start, end) = (range["start"].as_u64().unwrap(), range["end"].as_u64().unwrap());
            words.extend(["--accept-loss".to_string(), format!("{start}..{end}")]);
        }
        if let Some(from) = plan["lost_from"].as_u64() {
            words.extend(["--accept-loss".to_string(), format!("{from}..{}", self.records)]);
        }
        words
    }

    /// The whole command line of a repair that gives up what the plan says.
    pub fn repair_arguments(&self) -> Vec<String> {
        let (_, plan) = self.json("plan", &[]);
        [vec!["--apply".to_string()], self.acceptance(&plan)].concat()
    }

    /// The records that can be read, where the log opens, and the offsets that are lost.
    pub fn served(&self, policy: DamagePolicy) -> stonelog::Result<(Records, Vec<u64>)> {
        let options = Options::new().read_mode(ReadMode::Buffered).on_damage(policy);
        let log = options.open_read_only(&self.directory)?;
        let (mut records, mut lost) = (BTreeMap::new(), Vec::new());
        for offset in log.offsets() {
            match log.read(offset) {
                Ok(record) => {
                    records.insert(offset, record.to_vec());
                }
                Err(Error::Lost { .. }) => lost.push(offset),
                Err(Error::Damaged(_)) => {}
                Err(error) => panic!("{}: record {offset}: {error}", self.kind),
            }
        }
        Ok((records, lost))
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let into = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &into);
        } else {
            fs::copy(&path, &into).unwrap();
        }
    }
}

/// What a filesystem knows of one name, the time of the last access aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    pub bytes: Option<Vec<u8>>,
    pub inode: u64,
    mode: u32,
    owner: (u32, u32),
    links: u64,
    pub modified: (i64, i64),
    /// When any of this changed last: nobody can set it back.
    changed: (i64, i64),
}

/// All of a directory, itself and whatever is in it.
pub fn everything(directory: &Path) -> BTreeMap<PathBuf, Known> {
    let mut all = BTreeMap::new();
    let mut left = vec![directory.to_path_buf()];
    while let Some(path) = left.pop() {
        let metadata = fs::symlink_metadata(&path).unwrap();
        if metadata.is_dir() {
            left.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
        let known = Known {
            bytes: metadata.is_file().then(|| fs::read(&path).unwrap()),
            inode: metadata.ino(),
            mode: metadata.mode(),
            owner: (metadata.uid(), metadata.gid()),
            links: metadata.nlink(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        };
        all.insert(path, known);
    }
    all
}

/// All of the directory of a log that is open, once what the log does behind its writer has come to rest.
pub fn settled(directory: &Path) -> BTreeMap<PathBuf, Known> {
    loop {
        // (A file may go between its listing and the look at it.)
        let look = || std::panic::catch_unwind(|| everything(directory)).ok();
        let before = look();
        std::thread::sleep(std::time::Duration::from_millis(100));
        match (before, look()) {
            (Some(before), Some(now)) if before == now => return now,
            _ => {}
        }
    }
}

/// What differs between two pictures of one directory, in words.
pub fn difference(before: &BTreeMap<PathBuf, Known>, after: &BTreeMap<PathBuf, Known>) -> Vec<String> {
    let paths: std::collections::BTreeSet<&PathBuf> = before.keys().chain(after.keys()).collect();
    let mut differences = Vec::new();
    for path in paths {
        match (before.get(path), after.get(path)) {
            (Some(_), None) => differences.push(format!("{} is gone", path.display())),
            (None, Some(_)) => differences.push(format!("{} is new", path.display())),
            (Some(before), Some(after)) if before != after => {
                let what = if before.bytes == after.bytes { "its metadata" } else { "its bytes" };
                differences.push(format!("{}: {what} changed", path.display()));
            }
            _ => {}
        }
    }
    differences
}

/// The bytes of a log, by name: the lock and what repairs keep aside.
pub fn contents(directory: &Path) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
    let aside = [directory.join("LOCK"), directory.join("repair")];
    let ours = |path: &PathBuf| !aside.iter().any(|aside| path.starts_with(aside));
    let all = everything(directory).into_iter().filter(|(path, _)| ours(path));
    all.map(|(path, known)| (path, known.bytes)).collect()
}
