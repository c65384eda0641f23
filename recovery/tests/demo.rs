//! `log-repair demo`: each kind makes the damage that its line says, and nothing but a fresh directory.
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
    reason = "tests: a failed expectation is how they speak, and they make real files"
)]

#[allow(unused, reason = "shared with the other tests")]
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use serde_json::Value;
use support::run;

fn json(arguments: &[&str]) -> (i32, Value) {
    let ran = run(arguments);
    (ran.code, serde_json::from_str(&ran.stdout).unwrap_or_else(|_| panic!("{ran:?}")))
}

fn kinds() -> Vec<Value> {
    let (code, list) = json(&["demo", "--list", "--json"]);
    assert_eq!(code, 0);
    list["kinds"].as_array().unwrap().clone()
}

fn contents(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_file() && path.file_name().unwrap() != "LOCK")
        .map(|path| (path.file_name().unwrap().to_str().unwrap().to_string(), fs::read(path).unwrap()))
        .collect()
}

#[test]
fn each_kind_is_what_it_says() {
    let kinds = kinds();
    assert!(kinds.len() >= 20, "{kinds:#?}");
    for kind in kinds {
        let name = kind["kind"].as_str().unwrap();
        let home = tempfile::tempdir().unwrap();
        let directory = home.path().join("log");
        let path = directory.to_str().unwrap();
        let (code, made) = json(&["demo", path, name, "--json"]);
        assert_eq!((code, &made["kind"]), (0, &kind["kind"]), "{made:#}");
        let (code, check) = json(&["check", path, "--json"]);
        let given: BTreeSet<String> = support::codes(&check).into_iter().collect();
        let wanted = kind["codes"].as_array().unwrap().iter().map(|code| code.as_str().unwrap().to_string());
        assert_eq!(given, wanted.collect(), "log-repair demo DIR {name}; {check:#}");
        assert_eq!(code, if given.iter().any(|code| code.starts_with("E-")) { 4 } else { 0 }, "{name}");
        // Where it says it struck, something else lies now; and it says so of existing files.
        for blow in made["damage"].as_array().unwrap() {
            let file = directory.join(blow["file"].as_str().unwrap());
            let removed = blow["what"].as_str().unwrap().contains("removed");
            assert_eq!(file.exists(), !removed, "{blow:#}");
        }
        assert!(
            made["damage"].as_array().unwrap().is_empty() == given.is_empty() || name == "killed",
            "{name}"
        );
        let bytes: usize = contents(&directory).values().map(Vec::len).sum();
        assert!(bytes < if name == "large" { 8 << 20 } else { 1 << 20 }, "{name} has {bytes} bytes");
        let records = made["records"].as_u64().unwrap();
        assert!(made["segments"].as_u64().unwrap() >= 2 && records >= 60, "{made:#}");
    }
}

#[test]
fn the_same_kind_and_seed_give_the_same_bytes() {
    let home = tempfile::tempdir().unwrap();
    let make = |name: &str, seed: &str| {
        let directory = home.path().join(name);
        let made = run(&["demo", directory.to_str().unwrap(), "many", "--seed", seed]);
        assert_eq!(made.code, 0, "{made:?}");
        contents(&directory)
    };
    let (one, two, other) = (make("one", "7"), make("two", "7"), make("other", "8"));
    assert!(one == two);
    assert!(one != other, "a seed makes another log");
}

#[test]
fn records_are_readable() {
    let home = tempfile::tempdir().unwrap();
    let directory = home.path().join("log");
    run(&["demo", directory.to_str().unwrap(), "clean"]);
    let dump = run(&["dump", directory.to_str().unwrap(), "--from", "17", "--limit", "1"]);
    assert!(dump.stdout.starts_with("17\torder 17: "), "{dump:?}");
}

#[test]
fn a_directory_with_anything_in_it_is_left_alone() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().to_str().unwrap();
    fs::write(home.path().join("precious"), b"data").unwrap();
    let ran = run(&["demo", path, "flipped-byte"]);
    assert_eq!(ran.code, 8, "{ran:?}");
    assert!(ran.stderr.contains("not empty"), "{ran:?}");
    assert_eq!(contents(home.path()), BTreeMap::from([("precious".to_string(), b"data".to_vec())]));
    assert_eq!(run(&["demo", path]).code, 16);
    assert_eq!(run(&["demo", path, "no-such-kind"]).code, 16);
}

#[test]
fn text_says_what_was_done_and_what_to_run() {
    let home = tempfile::tempdir().unwrap();
    let directory = home.path().join("log");
    let path = directory.to_str().unwrap();
    let ran = run(&["demo", path, "flipped-byte"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    for part in ["0000000000000001.store, byte ", "record 17", &format!("log-repair check {path}")] {
        assert!(ran.stdout.contains(part), "{part}: {ran:?}");
    }
}
