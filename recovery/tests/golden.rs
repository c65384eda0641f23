//! What `log-repair check` says of each golden directory (`tests/golden/NAME`, see `tests/golden.rs` beside
//! it), as `NAME.check.json`: the codes are stable, and scripts go by them.
//!
//! The check runs on a copy, never in the tree. Where its word changes on purpose:
//! `STONELOG_BLESS=verdicts cargo test -p log-repair --test golden`, and read the difference.

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
    reason = "a test: it fails by panic, and works on the real disk"
)]

#[allow(unused, reason = "shared with the other tests")]
mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden");

fn names() -> Vec<String> {
    let entries = fs::read_dir(GOLDEN).unwrap().map(|entry| entry.unwrap());
    let directories = entries.filter(|entry| entry.path().is_dir());
    let mut names: Vec<_> = directories.map(|entry| entry.file_name().into_string().unwrap()).collect();
    names.sort();
    names
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

/// The exit code, and of the document what is no wording: where each finding is and what about.
fn check(name: &str) -> Value {
    let home = tempfile::tempdir().unwrap();
    let directory = home.path().join("log");
    copy(&Path::new(GOLDEN).join(name), &directory);
    let before = support::picture(&directory);
    let ran = support::run(&["check", directory.to_str().unwrap(), "--json"]);
    assert_eq!(support::picture(&directory), before, "{name} was changed by being checked");
    let Ok(document) = serde_json::from_str::<Value>(&ran.stdout) else {
        return json!({ "exit_code": ran.code });
    };
    let finding = |finding: &Value| {
        let file = finding["file"].as_str().map(|file| {
            let within = Path::new(file).strip_prefix(&directory);
            within.map_or_else(|_| file.to_string(), |within| within.to_str().unwrap().to_string())
        });
        json!({
            "code": finding["code"],
            "sure": finding["sure"],
            "file": file,
            "position": finding["position"],
            "position_end": finding["position_end"],
            "offsets": finding["offsets"],
        })
    };
    json!({
        "exit_code": ran.code,
        "next_opening": document["next_opening"],
        "records_intact": document["summary"]["records_intact"],
        "findings": document["findings"].as_array().unwrap().iter().map(finding).collect::<Vec<_>>(),
    })
}

fn verdict_path(name: &str) -> PathBuf {
    Path::new(GOLDEN).join(format!("{name}.check.json"))
}

#[test]
fn every_golden_log_is_checked_as_it_must_be() {
    let bless = std::env::var("STONELOG_BLESS").is_ok_and(|what| what == "verdicts");
    let mut wrong = Vec::new();
    for name in names() {
        let found = check(&name);
        if bless {
            let text = serde_json::to_string_pretty(&found).unwrap() + "\n";
            fs::write(verdict_path(&name), text).unwrap();
        }
        let wanted: Value = serde_json::from_str(&fs::read_to_string(verdict_path(&name)).unwrap()).unwrap();
        if wanted != found {
            wrong.push(format!("{name}: must be {wanted:#}\nand is {found:#}"));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} golden logs are checked differently:\n{}\nreplay: cargo test -p log-repair --test golden; if they \
         are meant to change: STONELOG_BLESS=verdicts cargo test -p log-repair --test golden, and read the \
         difference",
        wrong.len(),
        wrong.join("\n")
    );
}

/// Each code that `check --help` lists is given for some golden log, or cannot be.
#[test]
fn every_code_has_a_golden_log() {
    // What a file's bytes cannot show: a disk that fails, a program that has the log open, a log that moves.
    let not_in_files = BTreeSet::from(["E-UNREADABLE", "N-IN-USE", "N-CHANGED"]);
    let help = support::run(&["check", "--help"]).stdout;
    let listed: BTreeSet<&str> = help
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .filter(|word| ["E-", "W-", "N-"].iter().any(|severity| word.starts_with(severity)))
        .collect();
    assert!(listed.len() > 20, "{listed:?}");
    let mut given = BTreeSet::new();
    for name in names() {
        let verdict: Value = serde_json::from_str(&fs::read_to_string(verdict_path(&name)).unwrap()).unwrap();
        if verdict["findings"].is_array() {
            given.extend(support::codes(&verdict));
        }
    }
    let given: BTreeSet<&str> = given.iter().map(String::as_str).collect();
    let missing: Vec<_> = listed.difference(&not_in_files).filter(|code| !given.contains(**code)).collect();
    assert!(missing.is_empty(), "no golden log gives {missing:?}");
    assert!(given.is_disjoint(&not_in_files), "{given:?}");
}
