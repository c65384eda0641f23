//! Logs to break, and the binary to run on them.

#[cfg(unix)]
pub mod practice;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub mod trace;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::SystemTime;

use stonelog::{Durability, Log, Options};
use tempfile::TempDir;

/// A log in a directory of its own.
pub struct Bench {
    _home: TempDir,
    pub directory: PathBuf,
}

/// The payload of record `offset`: its own number, at a length of its own.
pub fn payload(offset: u64) -> Vec<u8> {
    format!("record {offset} {}", "x".repeat((offset % 40) as usize)).into_bytes()
}

pub fn options() -> Options {
    Options::new().segment_bytes(4096).durability(Durability::Always)
}

impl Bench {
    pub fn empty() -> Bench {
        let home = tempfile::tempdir().unwrap();
        let directory = home.path().join("log");
        Bench { _home: home, directory }
    }

    /// A log of `count` records, over several segments, closed.
    pub fn closed(count: u64) -> Bench {
        let bench = Bench::empty();
        let log = bench.open();
        for offset in 0..count {
            assert_eq!(log.append(payload(offset)).unwrap(), offset);
        }
        log.close().unwrap();
        bench
    }

    /// The same without the close: as a kill leaves it.
    pub fn killed(count: u64) -> Bench {
        let bench = Bench::empty();
        let log = bench.open();
        for offset in 0..count {
            log.append(payload(offset)).unwrap();
        }
        // A copy of the files while the log is open is what a kill at this moment would leave, as
        // long as nothing moves meanwhile (the log seals and prepares segments behind its writer).
        let copy = bench.directory.with_file_name("killed");
        loop {
            let before = picture(&bench.directory);
            fs::create_dir(&copy).unwrap();
            let copied = |path: &PathBuf| fs::copy(path, copy.join(path.file_name().unwrap())).is_ok();
            let all = before.keys().filter(|path| path.is_file()).all(copied);
            if all && picture(&bench.directory) == before {
                break;
            }
            fs::remove_dir_all(&copy).unwrap();
        }
        log.close().unwrap();
        Bench { directory: copy, ..bench }
    }

    pub fn open(&self) -> Log {
        options().open(&self.directory).unwrap()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// The stores, by name.
    pub fn stores(&self) -> Vec<PathBuf> {
        let mut stores: Vec<PathBuf> = fs::read_dir(&self.directory)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "store"))
            .collect();
        stores.sort();
        stores
    }

    /// The store that holds record `offset`, and where its payload is.
    pub fn find(&self, offset: u64) -> (PathBuf, u64) {
        let wanted = payload(offset);
        for path in self.stores() {
            let bytes = fs::read(&path).unwrap();
            if let Some(at) = bytes.windows(wanted.len()).position(|window| window == wanted) {
                return (path, at as u64);
            }
        }
        panic!("no store holds record {offset}");
    }

    /// Flips a bit of record `offset`'s payload; says in which store, and where its frame begins.
    pub fn flip_record(&self, offset: u64) -> (PathBuf, u64) {
        let (path, at) = self.find(offset);
        flip(&path, at + 3);
        (path, at - 16)
    }

    /// Runs `log-repair VERB DIR ARGUMENTS`.
    pub fn run(&self, verb: &str, arguments: &[&str]) -> Ran {
        let path = self.directory.to_str().unwrap();
        run(&[&[verb, path], arguments].concat())
    }

    pub fn check(&self) -> Ran {
        self.run("check", &[])
    }

    /// The check as JSON, which must agree with the text on the exit code.
    pub fn check_json(&self) -> (i32, serde_json::Value) {
        let ran = self.run("check", &["--json"]);
        assert_eq!(ran.code, self.check().code);
        let value: serde_json::Value = serde_json::from_str(&ran.stdout).expect(&ran.stdout);
        assert_eq!(value["schema_version"], 1);
        assert_eq!(value["exit_code"], ran.code);
        (ran.code, value)
    }
}

/// Flips one bit.
pub fn flip(path: &Path, position: u64) {
    let mut bytes = fs::read(path).unwrap();
    bytes[usize::try_from(position).unwrap()] ^= 0x10;
    fs::write(path, bytes).unwrap();
}

/// What a run of the binary gave.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Ran {
    pub fn first_line(&self) -> &str {
        self.stdout.lines().next().unwrap_or("")
    }
}

pub fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_log-repair"));
    command.args(arguments);
    command
}

pub fn run(arguments: &[&str]) -> Ran {
    let Output { status, stdout, stderr } = command(arguments).output().unwrap();
    Ran {
        code: status.code().expect("ended by a signal"),
        stdout: String::from_utf8_lossy(&stdout).into_owned(),
        stderr: String::from_utf8_lossy(&stderr).into_owned(),
    }
}

/// The codes of a check's findings.
pub fn codes(check: &serde_json::Value) -> Vec<String> {
    let findings = check["findings"].as_array().unwrap();
    findings.iter().map(|finding| finding["code"].as_str().unwrap().to_string()).collect()
}

/// The one finding with this code.
pub fn finding<'a>(check: &'a serde_json::Value, code: &str) -> &'a serde_json::Value {
    let findings = check["findings"].as_array().unwrap();
    let mut found = findings.iter().filter(|finding| finding["code"] == code);
    let one = found.next().unwrap_or_else(|| panic!("no {code} in {check:#}"));
    assert!(found.next().is_none(), "{code} twice in {check:#}");
    one
}

/// Everything about a directory that a read-only tool must leave as it was.
pub fn picture(directory: &Path) -> BTreeMap<PathBuf, (Option<Vec<u8>>, SystemTime)> {
    let mut picture = BTreeMap::new();
    let mut left = vec![directory.to_path_buf()];
    while let Some(path) = left.pop() {
        // What a live log renames meanwhile is not in the picture, which then differs from the next one.
        let Ok(metadata) = fs::metadata(&path) else { continue };
        let bytes = if metadata.is_dir() {
            left.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            None
        } else {
            let Ok(bytes) = fs::read(&path) else { continue };
            Some(bytes)
        };
        picture.insert(path, (bytes, metadata.modified().unwrap()));
    }
    picture
}
