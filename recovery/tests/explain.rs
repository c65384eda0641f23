//! `log-repair explain`: every place has its words, they agree with `check`, and none is a panic.
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

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use log_repair::Streams;
use serde_json::Value;
use support::{Bench, payload, run};

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden");

#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<u8>>>);

impl Write for Kept {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Runs it in this process: there are thousands of places.
fn explain(directory: &Path, place: &str) -> (u8, Value) {
    let kept = Kept::default();
    let words = ["log-repair", "explain", directory.to_str().unwrap(), place, "--json"];
    let code = log_repair::run(words.map(OsString::from), Streams::to(kept.clone(), Kept::default()));
    let bytes = kept.0.lock().unwrap().clone();
    (code, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
}

fn demo(home: &Path, kind: &str) -> PathBuf {
    let path = home.join(kind);
    assert_eq!(run(&["demo", path.to_str().unwrap(), kind]).code, 0);
    path
}

fn codes(told: &Value) -> Vec<&str> {
    told["findings"].as_array().unwrap().iter().map(|finding| finding["code"].as_str().unwrap()).collect()
}

fn broken(told: &Value) -> Vec<&str> {
    let reasons = told["reasons"].as_array().unwrap().iter();
    reasons.filter(|reason| reason["holds"] == false).map(|reason| reason["what"].as_str().unwrap()).collect()
}

fn fact<'a>(told: &'a Value, name: &str) -> &'a str {
    let facts = told["facts"].as_array().unwrap();
    facts.iter().find(|fact| fact["name"] == name).map_or("", |fact| fact["what"].as_str().unwrap())
}

fn field<'a>(told: &'a Value, name: &str) -> &'a Value {
    let fields = told["fields"].as_array().unwrap();
    fields.iter().find(|field| field["name"] == name).unwrap_or_else(|| panic!("no {name}: {told:#}"))
}

#[test]
fn a_record_and_any_byte_of_its_frame_are_the_same_frame() {
    let bench = Bench::closed(300);
    let (store, at) = bench.find(42);
    let name = store.file_name().unwrap().to_str().unwrap();
    let (code, told) = explain(&bench.directory, "42");
    assert_eq!((code, &told["kind"], &told["valid"]), (0, &"frame".into(), &true.into()), "{told:#}");
    assert_eq!(told["bytes"]["start"], at - 16);
    assert_eq!(field(&told, "payload")["start"], at);
    assert_eq!(field(&told, "payload")["end"], at + payload(42).len() as u64);
    assert!(broken(&told).is_empty(), "{told:#}");
    assert!(fact(&told, "proven end").contains("acknowledged"), "{told:#}");
    // What is shown is what is there, and the fields are all of it.
    let hex = told["dump"][0]["hex"].as_str().unwrap();
    let length = told["bytes"]["end"].as_u64().unwrap() - (at - 16);
    assert_eq!(hex.len() as u64, 2 * length);
    let fields = told["fields"].as_array().unwrap();
    let size = |field: &Value| field["end"].as_u64().unwrap() - field["start"].as_u64().unwrap();
    assert_eq!(fields.iter().map(size).sum::<u64>(), length);
    for position in [at - 16, at - 1, at, at + length - 17] {
        let (_, same) = explain(&bench.directory, &format!("{name}:{position}"));
        assert_eq!((&same["bytes"], &same["offset"]), (&told["bytes"], &told["offset"]), "{position}");
    }
    let id = name.trim_start_matches('0').trim_end_matches(".store");
    let (_, same) = explain(&bench.directory, &format!("{id}:{:#x}", at));
    assert_eq!(same["bytes"], told["bytes"]);
}

#[test]
fn a_flipped_byte_is_told_by_its_checksums() {
    let bench = Bench::closed(300);
    let (store, position) = bench.flip_record(42);
    let (code, told) = explain(&bench.directory, "42");
    assert_eq!((code, &told["kind"], &told["valid"]), (4, &"broken-frame".into(), &false.into()), "{told:#}");
    assert_eq!((codes(&told), broken(&told).len()), (vec!["E-FRAME-CRC"], 1), "{told:#}");
    assert!(broken(&told)[0].contains("checksum"), "{told:#}");
    assert!(field(&told, "crc")["note"].as_str().unwrap().starts_with("computed 0x"), "{told:#}");
    assert_eq!(told["bytes"]["start"], position);
    assert!(fact(&told, "behind it").contains("record 43"), "{told:#}");
    let name = store.file_name().unwrap().to_str().unwrap();
    assert_eq!(explain(&bench.directory, &format!("{name}:{}", position + 20)).1["bytes"], told["bytes"]);
    let (code, told) = explain(&bench.directory, "43");
    assert_eq!((code, codes(&told)), (0, vec![]), "its neighbour is none of it: {told:#}");
}

#[test]
fn an_offset_is_damaged_exactly_where_check_says_so() {
    let home = tempfile::tempdir().unwrap();
    for kind in [
        "many",
        "zeroed-block",
        "short-store",
        "missing-store",
        "damaged-tail",
        "overwritten",
        "clean",
        "power-cut",
    ] {
        let directory = demo(home.path(), kind);
        let check: Value =
            serde_json::from_str(&run(&["check", directory.to_str().unwrap(), "--json"]).stdout).unwrap();
        let unreadable: Vec<_> = check["unreadable"]
            .as_array()
            .unwrap()
            .iter()
            .map(|span| span["start"].as_u64().unwrap()..span["end"].as_u64().unwrap())
            .collect();
        for offset in 0..145 {
            let (code, told) = explain(&directory, &offset.to_string());
            let wanted = if unreadable.iter().any(|range| range.contains(&offset)) { 4 } else { 0 };
            assert_eq!(code, wanted, "log-repair explain ({kind}) {offset}: {told:#}");
            assert!(told["title"].as_str().unwrap().contains(&offset.to_string()), "{told:#}");
        }
    }
}

#[test]
fn every_finding_is_found_at_its_place() {
    let home = tempfile::tempdir().unwrap();
    let mut logs: Vec<PathBuf> = fs::read_dir(GOLDEN).unwrap().map(|entry| entry.unwrap().path()).collect();
    logs.retain(|path| path.is_dir());
    for kind in ["many", "swapped-stores", "base-gone", "head-gone", "manifest-damaged", "torn-tail"] {
        logs.push(demo(home.path(), kind));
    }
    let mut places = 0;
    for log in logs {
        let ran = run(&["check", log.to_str().unwrap(), "--json"]);
        let Ok(check) = serde_json::from_str::<Value>(&ran.stdout) else { continue };
        for finding in check["findings"].as_array().unwrap() {
            let (Some(file), Some(position)) = (finding["file"].as_str(), finding["position"].as_u64())
            else {
                continue;
            };
            let name = file.rsplit('/').next().unwrap();
            let (_, told) = explain(&log, &format!("{name}:{position}"));
            let code = finding["code"].as_str().unwrap();
            assert!(
                codes(&told).contains(&code),
                "log-repair explain {} {name}:{position}: no {code} in {told:#}",
                log.display()
            );
            places += 1;
        }
    }
    assert!(places > 40, "{places}");
}

/// Wherever one points, in every golden log: an answer, the same directory, no panic.
#[test]
fn every_kind_of_place_is_explained() {
    let mut kinds = BTreeSet::new();
    for entry in fs::read_dir(GOLDEN).unwrap() {
        let log = entry.unwrap().path();
        if !log.is_dir() {
            continue;
        }
        let before = support::picture(&log);
        let mut places: Vec<String> =
            [0, 1, 8, 30, 59, 70, 100, u64::MAX].map(|offset| offset.to_string()).into();
        let mut files: Vec<PathBuf> = before.keys().filter(|path| path.is_file()).cloned().collect();
        files.push(log.join("0000000000000002.store"));
        for file in files {
            let name = file.strip_prefix(&log).unwrap().to_str().unwrap();
            let length = fs::metadata(&file).map_or(0, |metadata| metadata.len());
            let steps = (0..length).step_by(if name == "MANIFEST" { 24 } else { 232 }).take(60);
            let ends = [length.saturating_sub(1), length, length + 1, u64::MAX];
            places.extend(steps.chain(ends).map(|position| format!("{name}:{position}")));
        }
        for place in places {
            let (code, told) = explain(&log, &place);
            assert!(
                matches!(code, 0 | 4 | 8),
                "log-repair explain {} {place} ended with {code}",
                log.display()
            );
            if told != Value::Null {
                assert_eq!(
                    (told["exit_code"].as_u64(), &told["place"]),
                    (Some(code.into()), &place.as_str().into())
                );
                kinds.insert(told["kind"].as_str().unwrap().to_string());
                assert!(told["next"].as_str().unwrap().starts_with("log-repair "), "{told:#}");
            }
        }
        assert_eq!(support::picture(&log), before, "{} was changed", log.display());
    }
    let wanted = [
        "base",
        "beyond-end",
        "broken-edit",
        "broken-frame",
        "bytes",
        "edit",
        "frame",
        "head",
        "hole",
        "index-entry",
        "index-head",
        "lost",
        "manifest-head",
        "missing",
        "truncated",
        "zeros",
    ];
    let missing: Vec<_> = wanted.iter().filter(|kind| !kinds.contains(**kind)).collect();
    assert!(missing.is_empty(), "no golden log shows {missing:?}; there are {kinds:?}");
}

#[test]
fn ends_and_fronts_are_told() {
    let home = tempfile::tempdir().unwrap();
    let truncated = demo(home.path(), "truncated");
    assert_eq!(explain(&truncated, "3").1["kind"], "truncated");
    let (_, told) = explain(&truncated, "30");
    assert!(fact(&told, "front").contains("truncated away"), "its frame is still there: {told:#}");
    let (_, told) = explain(&truncated, "72");
    assert!(told["title"].as_str().unwrap().contains("next record gets offset 72"), "{told:#}");
    let torn = demo(home.path(), "power-cut");
    let (code, told) = explain(&torn, "71");
    assert_eq!((code, &told["valid"]), (0, &true.into()), "whole, and behind a hole: {told:#}");
    assert!(fact(&told, "valid end").contains("66"), "{told:#}");
    let swapped = demo(home.path(), "swapped-stores");
    let (code, told) = explain(&swapped, "1:1024");
    assert_eq!(code, 4);
    assert!(fact(&told, "another's").contains("segment 2"), "{told:#}");
    let (_, told) = explain(&demo(home.path(), "clean"), "13");
    assert_eq!(fact(&told, "batch"), "number 2 of 3: records 12..15");
}

#[test]
fn large_payloads_show_head_and_tail() {
    let bench = Bench::empty();
    let log = bench.open();
    log.append(vec![7; 3000]).unwrap();
    log.close().unwrap();
    let ran = bench.run("explain", &["0", "--bytes", "64"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.stdout.contains("not shown") && ran.stdout.lines().count() < 40, "{ran:?}");
    let all = bench.run("explain", &["0", "--bytes", "4096"]);
    assert!(!all.stdout.contains("not shown"), "{all:?}");
}

#[test]
fn colours_and_letters_mark_the_same_fields() {
    let bench = Bench::closed(30);
    let (plain, coloured) = (bench.run("explain", &["5"]), bench.run("explain", &["5", "--color", "always"]));
    assert!(plain.stdout.contains("a---------- b----------  c---------- d----------"), "{plain:?}");
    assert!(!plain.stdout.contains('\u{1b}') && coloured.stdout.contains('\u{1b}'));
}

#[test]
fn places_that_are_none_are_usage_errors_and_files_that_are_none_are_said_to_be() {
    let bench = Bench::closed(30);
    assert_eq!(bench.run("explain", &["3:x"]).code, 16);
    assert_eq!(bench.run("explain", &[":5"]).code, 16);
    for place in ["nothing.store:5", "../log/MANIFEST:0", "/etc/passwd:0", "quarantine/../MANIFEST:0", "ff:0"]
    {
        let ran = bench.run("explain", &[place]);
        assert_eq!(ran.code, 8, "{place}: {ran:?}");
        assert!(ran.stderr.contains("has no file"), "{ran:?}");
    }
    assert_eq!(run(&["explain", "/nonexistent-stonelog", "5"]).code, 8);
}

#[test]
fn beside_a_writer_it_is_as_of_one_moment() {
    let bench = Bench::empty();
    let log = bench.open();
    log.append(payload(0)).unwrap();
    let (code, told) = explain(&bench.directory, "0");
    assert_eq!((code, &told["valid"], &told["advisory"]), (0, &true.into(), &true.into()), "{told:#}");
    assert!(fact(&told, "in use").contains("one moment"), "{told:#}");
    log.close().unwrap();
}
