//! Golden directories: logs of format version 1 as files under `tests/golden`, and what must be said of each.
//! A later version that reads one of them differently fails here.
//!
//! `tests/golden/NAME/` is the log, `tests/golden/NAME.json` its verdict. (`log-repair check` has its own
//! word on each, `NAME.check.json`: see `recovery/tests/golden.rs`.) A test run never makes them: it copies
//! each into a simulated disk and into a directory of the real one, and opens the copies. Ballast
//! (`MANIFEST.next` of zeros, which nobody reads) is left out.
//!
//! Where a verdict changes on purpose: `STONELOG_BLESS=verdicts cargo test --test golden` writes the verdicts
//! anew, and leaves the logs alone; read the difference. `STONELOG_BLESS=logs` makes the logs anew, too (`support/golden_logs`): that
//! is for new kinds of logs, and for a new format version, whose logs go beside these and not over them.

#![allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a test: it fails by panic, and reads committed files from the real disk"
)]

#[path = "invariants/common.rs"]
#[allow(unused, reason = "shared with the invariants")]
mod common;
#[path = "support/forge.rs"]
mod forge;
#[path = "support/golden_damage.rs"]
mod golden_damage;
#[path = "support/golden_logs.rs"]
mod golden_logs;
#[path = "support/log_verdict.rs"]
mod log_verdict;
#[allow(unused, reason = "shared with the crash tests")]
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;
use stonelog::ReadMode;
use stonelog::disk::sim::SimDisk;
use stonelog::disk::{Disk, OsDisk};

use common::{DIRECTORY, path};

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden");

/// The files of a golden log, by their names within it.
type Files = BTreeMap<String, Vec<u8>>;

fn names() -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(GOLDEN)
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.path().is_dir())
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn load(directory: &Path) -> Files {
    let mut files = Files::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_string();
        if path.is_dir() {
            files.extend(load(&path).into_iter().map(|(inner, bytes)| (format!("{name}/{inner}"), bytes)));
        } else {
            files.insert(name, fs::read(&path).unwrap());
        }
    }
    files
}

fn save(directory: &Path, files: &Files) {
    for (name, bytes) in files {
        let path = directory.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
}

fn on_the_simulated_disk(files: &Files) -> Value {
    let disk = SimDisk::new(1);
    for (name, bytes) in files {
        disk.write_file(path(name), bytes).unwrap();
    }
    let fresh = || (Arc::new(disk.fork()) as Arc<dyn Disk>, PathBuf::from(DIRECTORY));
    log_verdict::verdict(&fresh, ReadMode::Buffered)
}

fn on_the_real_disk(files: &Files) -> Value {
    let home = tempfile::tempdir().unwrap();
    let copies = std::cell::Cell::new(0);
    let fresh = || {
        copies.set(copies.get() + 1);
        let directory = home.path().join(copies.get().to_string());
        save(&directory, files);
        (Arc::new(OsDisk) as Arc<dyn Disk>, directory)
    };
    log_verdict::verdict(&fresh, ReadMode::Mapped)
}

fn verdict_path(name: &str) -> PathBuf {
    Path::new(GOLDEN).join(format!("{name}.json"))
}

fn committed(name: &str) -> Value {
    serde_json::from_str(&fs::read_to_string(verdict_path(name)).unwrap()).unwrap()
}

/// The first place where two documents differ.
fn difference(place: &str, wanted: &Value, found: &Value) -> Option<String> {
    match (wanted, found) {
        (Value::Object(wanted), Value::Object(found)) => {
            let keys: BTreeSet<&String> = wanted.keys().chain(found.keys()).collect();
            keys.into_iter().find_map(|key| {
                let none = Value::Null;
                let (wanted, found) = (wanted.get(key).unwrap_or(&none), found.get(key).unwrap_or(&none));
                difference(&format!("{place}.{key}"), wanted, found)
            })
        }
        (Value::Array(wanted), Value::Array(found)) if wanted.len() == found.len() => wanted
            .iter()
            .zip(found)
            .enumerate()
            .find_map(|(index, (wanted, found))| difference(&format!("{place}[{index}]"), wanted, found)),
        _ => (wanted != found).then(|| format!("{place} must be {wanted}, and is {found}")),
    }
}

fn bless(logs: bool) {
    if logs {
        for (name, disk) in golden_logs::all() {
            let directory = Path::new(GOLDEN).join(name);
            if directory.exists() {
                fs::remove_dir_all(&directory).unwrap();
            }
            let mut files = common::files(&disk);
            files.retain(|name, bytes| name != "MANIFEST.next" || bytes.iter().any(|byte| *byte != 0));
            save(&directory, &files);
        }
    }
    for name in names() {
        let verdict = on_the_simulated_disk(&load(&Path::new(GOLDEN).join(&name)));
        fs::write(verdict_path(&name), serde_json::to_string_pretty(&verdict).unwrap() + "\n").unwrap();
    }
}

#[test]
fn every_golden_log_is_read_as_it_must_be() {
    match std::env::var("STONELOG_BLESS").as_deref() {
        Ok("logs") => bless(true),
        Ok("verdicts") => bless(false),
        _ => {}
    }
    let mut wrong = Vec::new();
    for name in names() {
        let files = load(&Path::new(GOLDEN).join(&name));
        let wanted = committed(&name);
        for (disk, found) in
            [("simulated", on_the_simulated_disk(&files)), ("real", on_the_real_disk(&files))]
        {
            if let Some(difference) = difference("", &wanted, &found) {
                wrong.push(format!("{name}, on the {disk} disk: {difference}"));
            }
        }
        assert_eq!(files, load(&Path::new(GOLDEN).join(&name)), "{name} was changed by being looked at");
    }
    assert!(
        wrong.is_empty(),
        "{} golden verdicts do not hold:\n  {}\nreplay: cargo test --test golden; if they are meant to change: \
         STONELOG_BLESS=verdicts cargo test --test golden, and read the difference",
        wrong.len(),
        wrong.join("\n  ")
    );
}

/// The names of an enum's variants, from its source.
fn variants(source: &str, name: &str) -> Vec<String> {
    let start = source.find(&format!("pub enum {name} {{")).unwrap_or_else(|| panic!("no enum {name}"));
    let body = &source[start..start + source[start..].find("\n}").unwrap()];
    let variant = |line: &str| {
        let line = line.strip_prefix("    ")?;
        let end = line.find(|letter: char| !letter.is_alphanumeric()).unwrap_or(line.len());
        line.starts_with(char::is_uppercase).then(|| line[..end].to_string())
    };
    body.lines().filter_map(variant).collect()
}

/// Whatever the library can say of a log, some golden log makes it say. A new kind needs a new log.
#[test]
fn every_kind_of_damage_and_proof_has_a_golden_log() {
    // No bytes of a file make a disk unable to read them: `scan` and `verdict` test these by themselves.
    let not_in_files = ["DamageKind::StoreUnreadable", "DamageKind::Unreadable", "Defect::Unreadable"];
    let all: String = names().iter().map(|name| fs::read_to_string(verdict_path(name)).unwrap()).collect();
    let verdict_source = include_str!("../src/recovery/verdict.rs");
    let damage_source = include_str!("../src/recovery/damage.rs");
    let scan_source = include_str!("../src/scan.rs");
    let store_source = include_str!("../src/store.rs");
    let mut uncovered = Vec::new();
    for (name, source, field) in [
        ("DamageKind", damage_source, "\"kind\": \""),
        ("Verdict", verdict_source, "\"verdict\": \""),
        ("Proof", verdict_source, "\"proof\": \""),
        ("Defect", scan_source, "\"defect\": \""),
        ("Origin", store_source, "\"origin\": \""),
    ] {
        let variants = variants(source, name);
        assert!(variants.len() > 1, "{name}: {variants:?}");
        for variant in variants {
            let said = all.contains(&format!("{field}{variant}"));
            let listed = not_in_files.contains(&format!("{name}::{variant}").as_str());
            if said == listed {
                uncovered.push(format!("{name}::{variant}"));
            }
        }
    }
    for error in ["Damaged", "Lost", "ReadOnly", "UnsupportedVersion"] {
        assert!(all.contains(&format!("\"error\": \"{error}\"")), "no golden log gives {error}");
    }
    assert!(
        uncovered.is_empty(),
        "no golden log shows {uncovered:?} (or one shows what is listed as impossible)"
    );
}

/// All forms of index are among the committed files.
#[test]
fn every_form_of_index_is_there() {
    let mut forms = BTreeSet::new();
    for name in names() {
        for (file, bytes) in load(&Path::new(GOLDEN).join(&name)) {
            if file.ends_with(".index") && bytes.starts_with(b"STONEIDX") {
                forms.insert(u32::from_le_bytes(bytes[12..16].try_into().unwrap()));
            }
        }
    }
    assert_eq!(forms, BTreeSet::from([1, 2, 3]));
}

/// Golden logs are small: they are cloned with every checkout.
#[test]
fn the_golden_logs_are_small() {
    let bytes: usize = names()
        .iter()
        .flat_map(|name| load(&Path::new(GOLDEN).join(name)).into_values())
        .map(|bytes| bytes.len())
        .sum();
    assert!(bytes < 3 << 19, "{bytes} bytes");
}
