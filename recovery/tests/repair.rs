//! `log-repair plan`, `repair` and `undo` on the real disk: every practice log is repaired and taken back, a
//! plan file holds for the bytes that it saw and no others, and each exit code means what the help says.
//!
//! What a repair does to a log is held against the simulated disk in tests/repair; here it is what an
//! operator sees of it.
#![cfg(unix)]
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

use std::fs::{self, FileTimes};
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde_json::Value;
use stonelog::{DamagePolicy, Error, Options};
use support::practice::{Practice, contents, difference, everything, for_each_kind, kinds, payload, settled};

/// A kind, the offsets that its repaired log has, and those of them that are lost: from, and up to.
type Cost = (&'static str, Range<u64>, &'static [(u64, u64)]);

/// What each kind costs.
const COSTS: &[Cost] = &[
    ("clean", 0..72, &[]),
    ("truncated", 35..72, &[]),
    ("killed", 0..72, &[]),
    ("torn-tail", 0..71, &[]),
    ("power-cut", 0..66, &[]),
    ("flipped-byte", 0..72, &[(17, 18)]),
    ("damaged-tail", 0..72, &[(66, 67)]),
    ("declared", 0..82, &[(66, 67)]),
    ("zeroed-block", 0..72, &[(38, 44)]),
    ("overwritten", 0..72, &[(32, 37)]),
    ("short-store", 0..72, &[(17, 28)]),
    ("missing-store", 0..72, &[(28, 58)]),
    ("missing-active-store", 0..72, &[(58, 72)]),
    ("swapped-stores", 0..72, &[]),
    ("head-gone", 0..72, &[]),
    ("base-gone", 0..72, &[]),
    ("index-wrong", 0..72, &[]),
    ("index-missing", 0..72, &[]),
    ("manifest-missing", 0..72, &[]),
    ("manifest-damaged", 0..72, &[]),
    ("manifest-edit-lost", 0..144, &[]),
    ("stray-file", 0..72, &[]),
    ("many", 0..140, &[(3, 4), (11, 12), (38, 44), (58, 88), (92, 97)]),
    ("large", 0..12_000, &[(1_717, 1_718), (9_090, 9_091)]),
];

fn costs(kind: &str) -> (Range<u64>, Vec<u64>) {
    let (_, offsets, lost) = COSTS.iter().find(|(name, ..)| *name == kind).expect("a kind without its cost");
    (offsets.clone(), lost.iter().flat_map(|(start, end)| *start..*end).collect())
}

#[test]
fn the_cost_of_every_kind_is_known() {
    assert_eq!(kinds(), COSTS.iter().map(|(kind, ..)| kind.to_string()).collect::<Vec<_>>());
}

fn words(arguments: &[String]) -> Vec<&str> {
    arguments.iter().map(String::as_str).collect()
}

/// The offsets in a plan's list of ranges.
fn offsets(ranges: &Value) -> Vec<u64> {
    let ranges = ranges.as_array().unwrap().iter();
    ranges.flat_map(|range| range["start"].as_u64().unwrap()..range["end"].as_u64().unwrap()).collect()
}

/// The plan says what is wrong, and what it costs, in words and in JSON.
fn plan_of(practice: &Practice) -> Value {
    let kind = &practice.kind;
    let (_, lost) = costs(kind);
    let (checked, check) = practice.json("check", &[]);
    let errors = practice.codes.iter().any(|code| code.starts_with("E-"));
    assert_eq!(checked, if errors { 4 } else { 0 }, "{kind}: {check:#}");
    let (planned, plan) = practice.json("plan", &[]);
    assert_eq!(planned, checked, "{kind}: what check calls damage, plan mends: {plan:#}");
    let text = practice.run("plan", &[]);
    assert_eq!((text.code, text.stderr.as_str()), (planned, ""), "{kind}");
    match plan["lost_from"].as_u64() {
        None => assert_eq!(offsets(&plan["to_accept"]), lost, "{kind}: {plan:#}"),
        Some(from) => {
            assert_eq!(lost.first(), Some(&from), "{kind}: {plan:#}");
            assert!(text.stdout.contains(&format!("--accept-loss {from}..B")), "{kind}: {text:?}");
        }
    }
    for range in plan["lost"].as_array().unwrap() {
        let (start, end) = (range["start"].as_u64().unwrap(), range["end"].as_u64().unwrap());
        assert!(text.stdout.contains(&format!("--accept-loss {start}..{end}")), "{kind}: {text:?}");
        let named =
            if end == start + 1 { format!("record {start}") } else { format!("records {start}..{end}") };
        assert!(text.stdout.contains(&named), "{kind}: {text:?}");
    }
    plan
}

/// What is served of a repaired log: every record is there, byte for byte, or lost.
fn check_repaired(practice: &Practice) {
    let kind = &practice.kind;
    let (range, wanted) = costs(kind);
    let check = practice.run("check", &[]);
    assert_eq!(check.code, 0, "{kind}: {check:?}");
    let (records, lost) = practice.served(DamagePolicy::Refuse).unwrap();
    assert_eq!(lost, wanted, "{kind}");
    for (offset, bytes) in &records {
        assert!(bytes == payload(*offset), "{kind}: record {offset} is not what was written");
    }
    let there = range.filter(|offset| !wanted.contains(offset));
    assert!(records.keys().copied().eq(there), "{kind}: {:?}", records.keys());
}

/// A repaired log opens for writing, and goes on behind its end; then nothing can be taken back any more.
fn check_that_it_goes_on(practice: Practice) {
    let kind = &practice.kind;
    let log = Options::new().open(&practice.directory).unwrap();
    let (range, lost) = costs(kind);
    assert_eq!(log.offsets(), range, "{kind}");
    assert_eq!(log.append(b"and on").unwrap(), range.end, "{kind}");
    for offset in lost {
        assert!(
            matches!(log.read(offset), Err(Error::Lost { offset: o }) if o == offset),
            "{kind}: {offset}"
        );
    }
    log.close().unwrap();
    let now = everything(&practice.directory);
    for arguments in [&[][..], &["--apply"]] {
        let undo = practice.run("undo", arguments);
        assert_eq!(undo.code, 8, "{kind}: {undo:?}");
        assert!(undo.stderr.contains("opened for writing since"), "{kind}: {undo:?}");
    }
    let after = everything(&practice.directory);
    let bytes = |path: &PathBuf| after.get(path).map(|known| &known.bytes);
    let lock = practice.directory.join("LOCK");
    assert!(now.iter().all(|(path, known)| *path == lock || bytes(path) == Some(&known.bytes)), "{kind}");
}

#[test]
fn every_kind_is_repaired_and_taken_back() {
    for_each_kind("cargo test -p log-repair --test repair every_kind", |kind| {
        let practice = Practice::new(kind);
        let plan = plan_of(&practice);
        let before = contents(&practice.directory);
        let known = everything(&practice.directory);
        let readable = practice.served(DamagePolicy::Serve).map(|(records, _)| records).unwrap_or_default();
        let arguments = practice.repair_arguments();
        let accepted = arguments.len() > 1;
        if plan["actions"].as_array().unwrap().is_empty() {
            let ran = support::run(&[&["repair", practice.shown()], &words(&arguments)[..]].concat());
            assert_eq!((ran.code, ran.first_line()), (0, "Nothing to repair"), "{kind}: {ran:?}");
            assert_eq!(contents(&practice.directory), before, "{kind}");
            assert!(!practice.directory.join("repair").exists(), "{kind}");
            return check_repaired(&practice);
        }
        if accepted {
            let unnamed = practice.run("repair", &["--apply"]);
            assert_eq!(unnamed.code, 4, "{kind}: {unnamed:?}");
            assert!(unnamed.stderr.contains("--accept-loss"), "{kind}: {unnamed:?}");
            assert_eq!(contents(&practice.directory), before, "{kind}: repaired without a word");
        }
        let ran = support::run(&[&["repair", practice.shown()], &words(&arguments)[..]].concat());
        assert_eq!(ran.code, 1, "{kind}: {ran:?}");
        check_repaired(&practice);
        let (records, _) = practice.served(DamagePolicy::Refuse).unwrap();
        for (offset, bytes) in &readable {
            assert_eq!(records.get(offset), Some(bytes), "{kind}: record {offset} could be read before");
        }
        let again = practice.run("repair", &["--apply"]);
        assert_eq!((again.code, again.first_line()), (0, "Nothing to repair"), "{kind}: {again:?}");
        check_that_it_goes_on(practice.copy());

        let dry = practice.run("undo", &[]);
        assert_eq!(dry.code, 0, "{kind}: {dry:?}");
        let undo = support::run(&["undo", practice.shown(), "--apply"]);
        assert_eq!(undo.code, 1, "{kind}: {undo:?}");
        assert!(contents(&practice.directory) == before, "{kind}: the undo gives back something else");
        assert!(!practice.directory.join("repair").exists(), "{kind}");
        // They are the same files, and not others like them.
        let now = everything(&practice.directory);
        for (path, before) in known.iter().filter(|(path, _)| path.is_file() && !path.ends_with("LOCK")) {
            assert_eq!(now[path].inode, before.inode, "{kind}: {}", path.display());
            assert_eq!(now[path].modified, before.modified, "{kind}: {}", path.display());
        }
        assert_eq!(practice.run("undo", &["--apply"]).code, 8, "{kind}: there is none any more");
        plan_of(&practice);
    });
}

/// A copy of a log, its plan in a file, and the arguments that apply it.
fn planned(kind: &str) -> (Practice, Vec<String>) {
    let practice = Practice::new(kind);
    let (_, plan) = practice.json("plan", &[]);
    let accepted = practice.acceptance(&plan);
    let (_, plan) = practice.json("plan", &words(&accepted));
    let file = practice.beside("plan.json");
    fs::write(&file, plan.to_string()).unwrap();
    let arguments = [vec!["--apply".to_string(), file.to_str().unwrap().to_string()], accepted].concat();
    (practice, arguments)
}

/// Rewrites a file with its old dates: only its bytes tell.
fn rewrite(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let metadata = fs::metadata(path).unwrap();
    let times = FileTimes::new()
        .set_modified(metadata.modified().unwrap())
        .set_accessed(metadata.accessed().unwrap());
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    fs::write(path, bytes).unwrap();
    fs::File::options().write(true).open(path).unwrap().set_times(times).unwrap();
    assert_eq!(fs::metadata(path).unwrap().modified().unwrap(), metadata.modified().unwrap());
}

#[test]
fn a_plan_holds_as_long_as_every_byte_does() {
    for kind in ["many", "missing-active-store", "killed", "manifest-missing"] {
        let (practice, arguments) = planned(kind);
        let mut files: Vec<PathBuf> = contents(&practice.directory).into_keys().collect();
        // (What is nobody's, and what is nothing but space, does not count.)
        files.retain(|path| {
            path.is_file() && !path.ends_with("shopping-list.txt") && !path.ends_with("MANIFEST.next")
        });
        for path in &files {
            let length = fs::metadata(path).unwrap().len() as usize;
            for at in [0, length / 2, length - 1] {
                let changed = Practice::copy(&practice);
                rewrite(&changed.directory.join(path.file_name().unwrap()), |bytes| bytes[at] ^= 1);
                refused_as_stale(&changed, &arguments, &format!("{} at {at}", path.display()));
            }
            let changed = practice.copy();
            rewrite(&changed.directory.join(path.file_name().unwrap()), |bytes| bytes.push(0));
            refused_as_stale(&changed, &arguments, &format!("{} longer", path.display()));
            let changed = practice.copy();
            fs::remove_file(changed.directory.join(path.file_name().unwrap())).unwrap();
            refused_as_stale(&changed, &arguments, &format!("{} removed", path.display()));
        }
        let more = practice.copy();
        fs::write(more.directory.join("00000000000000ff.store"), b"").unwrap();
        refused_as_stale(&more, &arguments, "one more store");
        // Whatever the dates are, and in another place: the same bytes.
        let moved = practice.copy();
        let ran = moved.run("repair", &words(&arguments));
        assert_eq!(ran.code, 1, "{kind}: {ran:?}");
        check_repaired(&moved);
        // And once it is done, the plan is about what was.
        let again = moved.run("repair", &words(&arguments));
        assert_eq!(again.code, 4, "{kind}: {again:?}");
    }
}

fn refused_as_stale(practice: &Practice, arguments: &[String], what: &str) {
    let before = contents(&practice.directory);
    let ran = practice.run("repair", &words(arguments));
    let kind = &practice.kind;
    assert!([4, 8].contains(&ran.code), "{kind}, {what}: {ran:?}");
    assert!(ran.stderr.contains("stale") || ran.code == 8, "{kind}, {what}: {ran:?}");
    assert!(contents(&practice.directory) == before, "{kind}, {what}: changed by a stale plan");
}

/// A plan is applied by the verb that it was made for, with the losses that it was made for.
#[test]
fn a_plan_is_for_one_verb_and_one_loss() {
    let (practice, arguments) = planned("flipped-byte");
    let before = contents(&practice.directory);
    let arguments = words(&arguments);
    let refusals: [(&str, Vec<&str>, i32); 6] = [
        ("rebuild", arguments.clone(), 4),
        ("repair", arguments[..2].to_vec(), 4),
        ("repair", [&arguments[..2], &["--accept-loss", "17..19"]].concat(), 4),
        ("repair", [&arguments[..2], &["--accept-loss", "16..18"]].concat(), 4),
        ("repair", vec!["--apply", "/there/is/none.json"], 8),
        ("repair", vec!["--apply", practice.shown()], 8),
    ];
    for (verb, arguments, code) in refusals {
        let ran = practice.run(verb, &arguments);
        assert_eq!(ran.code, code, "{verb} {arguments:?}: {ran:?}");
        assert!(contents(&practice.directory) == before, "{verb} {arguments:?}");
    }
    for text in ["", "{}", "[]", "null", "{\"schema_version\": 1}", "\u{0}"] {
        fs::write(practice.beside("odd.json"), text).unwrap();
        let ran = practice.run("repair", &["--apply", practice.beside("odd.json").to_str().unwrap()]);
        assert_eq!(ran.code, 8, "{text:?}: {ran:?}");
        assert!(contents(&practice.directory) == before, "{text:?}");
    }
}

#[test]
fn usage_errors_end_with_16() {
    let practice = Practice::new("flipped-byte");
    let before = contents(&practice.directory);
    for verb in ["plan", "repair", "rebuild", "undo"] {
        assert_eq!(support::run(&[verb]).code, 16, "{verb}");
        assert_eq!(practice.run(verb, &["--no-such-thing"]).code, 16, "{verb}");
        assert_eq!(practice.run(verb, &["another"]).code, 16, "{verb}");
    }
    for range in ["17", "18..17", "a..b", "-1..4", "17..", ""] {
        for verb in ["plan", "repair", "rebuild"] {
            let ran = practice.run(verb, &["--accept-loss", range]);
            assert_eq!(ran.code, 16, "{verb} {range:?}: {ran:?}");
        }
    }
    assert_eq!(practice.run("plan", &["--apply"]).code, 16);
    assert_eq!(practice.run("repair", &["--from-stores"]).code, 16);
    assert!(contents(&practice.directory) == before);
    for verb in ["plan", "repair", "rebuild", "undo"] {
        let help = support::run(&[verb, "--help"]);
        assert_eq!(help.code, 0, "{verb}");
        assert!(help.stdout.contains("exit code"), "{verb} says how it ends: {}", help.stdout);
    }
}

#[test]
fn what_is_no_log_ends_with_8_and_the_next_step() {
    let home = tempfile::tempdir().unwrap();
    let missing = home.path().join("nowhere");
    let empty = home.path().join("empty");
    fs::create_dir(&empty).unwrap();
    let file = home.path().join("file");
    fs::write(&file, b"no directory").unwrap();
    for place in [&missing, &empty, &file] {
        let before = everything(home.path());
        let shown = place.to_str().unwrap();
        for arguments in [
            &["plan", shown][..],
            &["repair", shown],
            &["rebuild", shown],
            &["undo", shown],
            &["repair", shown, "--apply"],
            &["rebuild", shown, "--apply"],
            &["undo", shown, "--apply"],
        ] {
            let ran = support::run(arguments);
            assert_eq!(ran.code, 8, "{arguments:?}: {ran:?}");
            assert!(ran.stdout.is_empty() && !ran.stderr.is_empty(), "{arguments:?}: {ran:?}");
            let now = everything(home.path());
            let lock = empty.join("LOCK");
            let new: Vec<&PathBuf> =
                now.keys().filter(|path| !before.contains_key(*path) && **path != lock).collect();
            assert!(new.is_empty(), "{arguments:?} made {new:?}");
        }
    }
    assert!(!empty.join("LOCK").exists(), "a directory that holds no log is left as it was");
}

/// Locked by a program that has it open: not now, and nothing is changed.
#[test]
fn a_log_that_is_open_is_not_repaired() {
    let practice = Practice::new("declared");
    let plain = practice.repair_arguments();
    let options = Options::new().on_damage(DamagePolicy::Serve);
    let log = options.open(&practice.directory).unwrap();
    let before = settled(&practice.directory);
    for verb in ["repair", "rebuild"] {
        let ran = support::run(&[&[verb, practice.shown()], &words(&plain)[..]].concat());
        assert_eq!(ran.code, 8, "{ran:?}");
        assert!(ran.stderr.contains(&std::process::id().to_string()), "{ran:?}");
    }
    assert_eq!(difference(&before, &everything(&practice.directory)), Vec::<String>::new());
    drop(log);
}

/// A rebuild from the stores alone, of a log that is whole: done when asked for, and taken back.
#[test]
fn a_rebuild_is_taken_back_like_a_repair() {
    for kind in ["clean", "killed", "flipped-byte", "manifest-damaged"] {
        let practice = Practice::new(kind);
        let before = contents(&practice.directory);
        let (_, plan) = practice.json("plan", &["--from-stores"]);
        let accepted = practice.acceptance(&plan);
        let arguments = [vec!["--apply".to_string()], accepted].concat();
        let ran = practice.run("rebuild", &words(&arguments));
        assert_eq!(ran.code, 1, "{kind}: {ran:?}");
        check_repaired(&practice);
        let undo = practice.run("undo", &["--apply"]);
        assert_eq!(undo.code, 1, "{kind}: {undo:?}");
        assert!(contents(&practice.directory) == before, "{kind}");
    }
}

/// What an interrupted repair leaves is finished by the next one, whoever looks is told so.
#[test]
fn an_interrupted_repair_is_said_to_be_one() {
    let practice = Practice::new("flipped-byte");
    let before = contents(&practice.directory);
    let arguments = practice.repair_arguments();
    assert_eq!(practice.run("repair", &words(&arguments)).code, 1);
    let place = practice.directory.join("repair/1");
    fs::rename(place.join("undo"), place.join("journal")).unwrap();
    let back = practice.copy();
    let undone = back.run("undo", &["--apply"]);
    assert!(undone.code == 1 && undone.stdout.contains("which was interrupted"), "{undone:?}");
    assert!(contents(&back.directory).values().eq(before.values()), "taken back half done");
    for (verb, more) in [("plan", &[][..]), ("repair", &[]), ("check", &[])] {
        let ran = practice.run(verb, more);
        assert_eq!(ran.code, 4, "{verb} {more:?}: {ran:?}");
        assert!(
            ran.stderr.contains(&format!("log-repair repair {} --apply", practice.shown())),
            "{verb}: {ran:?}"
        );
    }
    let ran = practice.run("repair", &["--apply"]);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.stdout.contains("An interrupted repair was finished."), "{ran:?}");
    check_repaired(&practice);
    // The same for what is being taken back.
    fs::rename(place.join("undo"), place.join("undoing")).unwrap();
    for (verb, more) in [("plan", &[][..]), ("repair", &[]), ("repair", &["--apply"])] {
        let ran = practice.run(verb, more);
        assert_eq!(ran.code, 4, "{verb} {more:?}: {ran:?}");
        assert!(
            ran.stderr.contains(&format!("log-repair undo {} --apply", practice.shown())),
            "{verb}: {ran:?}"
        );
    }
    assert_eq!(practice.run("undo", &[]).code, 0);
    assert_eq!(practice.run("undo", &["--apply"]).code, 1);
    assert!(contents(&practice.directory) == before);
}
