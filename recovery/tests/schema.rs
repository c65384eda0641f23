//! What `--json` writes is what docs/schema says: every document and line of it, field by field.
//!
//! A new verb is one file in docs/schema and one row in [`SCHEMAS`], or a test of its own. The validator below knows the words of JSON
//! Schema 2020-12 that these files use, and refuses every other: no word in them goes unchecked. It is our own
//! since the crates for it take longer to build than all the rest.
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
    reason = "tests break real files, behind the library's back"
)]

#[allow(unused, reason = "shared with the other tests")]
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use serde_json::Value;
use support::Bench;

/// The schema, the arguments with DIR for the directory, and whether each line is a document.
const SCHEMAS: &[(&str, &[&str], bool)] = &[
    ("check", &["check", "DIR", "--json"], false),
    ("stat", &["stat", "DIR", "--json"], false),
    ("dump", &["dump", "DIR", "--format", "json"], true),
    ("dump", &["dump", "DIR", "--format", "json", "--frames"], true),
    ("map", &["map", "DIR", "--json"], false),
    ("plan", &["plan", "DIR", "--json"], false),
    ("plan", &["plan", "DIR", "--from-stores", "--json"], false),
    ("plan", &["repair", "DIR", "--json"], false),
    ("plan", &["rebuild", "DIR", "--json"], false),
    ("explain", &["explain", "DIR", "7", "--json"], false),
    ("explain", &["explain", "DIR", "23", "--json"], false),
    ("explain", &["explain", "DIR", "1000000", "--json"], false),
    ("explain", &["explain", "DIR", "1:0", "--json"], false),
    ("explain", &["explain", "DIR", "1:512", "--json"], false),
    ("explain", &["explain", "DIR", "1:1500", "--json"], false),
    ("explain", &["explain", "DIR", "2:4000", "--json"], false),
    ("explain", &["explain", "DIR", "MANIFEST", "--json"], false),
    ("explain", &["explain", "DIR", "MANIFEST:600", "--json"], false),
    ("explain", &["explain", "DIR", "MANIFEST:4000", "--json"], false),
    ("explain", &["explain", "DIR", "0000000000000001.index:0", "--json"], false),
    ("explain", &["explain", "DIR", "0000000000000001.index:70", "--json"], false),
];

/// The schemas of what is no look at a log: their tests are below.
const OTHERS: &[&str] = &["undo", "salvage", "unplaced", "demo", "demo-list"];

/// What a run wrote to stdout, in this process: there are thousands of them.
fn run(arguments: &[&str]) -> (i32, String) {
    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let stdout = Kept::default();
    let streams = log_repair::Streams::to(stdout.clone(), std::io::sink());
    let words = ["log-repair"].iter().chain(arguments).map(OsString::from);
    let code = log_repair::run(words, streams);
    (i32::from(code), String::from_utf8(stdout.0.lock().unwrap().clone()).unwrap())
}

/// The schemas, and how many documents of each were found to follow it.
#[derive(Default)]
struct Judge {
    schemas: BTreeMap<String, Value>,
    documents: BTreeMap<String, usize>,
}

impl Judge {
    /// The document that a run wrote, if it wrote one: it must follow its schema, and tell the exit code.
    fn document(&mut self, name: &str, arguments: &[&str]) -> (i32, Option<Value>) {
        let (code, text) = run(arguments);
        if text.is_empty() {
            return (code, None);
        }
        let value = self.value(name, arguments, &text);
        if let Some(told) = value.get("exit_code") {
            assert_eq!(told, code, "log-repair {arguments:?}");
        }
        (code, Some(value))
    }

    fn value(&mut self, name: &str, arguments: &[&str], text: &str) -> Value {
        let root = self.schemas.entry(name.to_string()).or_insert_with(|| schema(name));
        let value: Value = serde_json::from_str(text).unwrap();
        let wrong = wrong(root, root, &value, name);
        assert!(wrong.is_empty(), "log-repair {arguments:?}:\n{}\n{value:#}", wrong.join("\n"));
        *self.documents.entry(name.to_string()).or_default() += 1;
        value
    }

    fn count(&self, name: &str) -> usize {
        self.documents.get(name).copied().unwrap_or(0)
    }
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/schema")
}

fn schema(name: &str) -> Value {
    let path = folder().join(format!("{name}.json"));
    serde_json::from_str(&fs::read_to_string(&path).unwrap())
        .unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// What is wrong with `value` by `schema`, a part of `root`.
fn wrong(root: &Value, schema: &Value, value: &Value, at: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut check = |holds: bool, what: &str| {
        if !holds {
            found.push(format!("{at}: {what}: {value}"));
        }
    };
    let mut inner = Vec::new();
    for (word, said) in schema.as_object().unwrap() {
        match word.as_str() {
            "$schema" | "$id" | "$defs" | "title" | "description" => {}
            "$ref" => {
                let target = said.as_str().unwrap().strip_prefix('#').unwrap();
                let target = root.pointer(target).unwrap_or_else(|| panic!("{at}: no {said}"));
                inner.extend(wrong(root, target, value, at));
            }
            "type" => {
                let is = |name: &Value| match name.as_str().unwrap() {
                    "object" => value.is_object(),
                    "array" => value.is_array(),
                    "string" => value.is_string(),
                    "boolean" => value.is_boolean(),
                    "integer" => value.is_u64() || value.is_i64(),
                    "null" => value.is_null(),
                    other => panic!("{at}: type {other}"),
                };
                check(said.as_array().map_or_else(|| is(said), |names| names.iter().any(is)), "type");
            }
            "const" => check(value == said, "const"),
            "enum" => check(said.as_array().unwrap().contains(value), "enum"),
            "minimum" => check(value.is_null() || value.as_u64() >= said.as_u64(), "minimum"),
            "pattern" => {
                let text = value.as_str().unwrap_or("");
                check(matches(said.as_str().unwrap(), text), "pattern");
            }
            "properties" | "additionalProperties" => {
                assert_eq!(schema["additionalProperties"], false, "{at}: an object says all its fields");
                for (name, value) in value.as_object().into_iter().flatten() {
                    match schema["properties"].get(name) {
                        Some(schema) => inner.extend(wrong(root, schema, value, &format!("{at}.{name}"))),
                        None => check(false, &format!("unknown field {name}")),
                    }
                }
            }
            "required" => {
                for name in said.as_array().unwrap() {
                    check(value.get(name.as_str().unwrap()).is_some(), &format!("{name} is missing"));
                }
            }
            "items" => {
                for (number, value) in value.as_array().into_iter().flatten().enumerate() {
                    inner.extend(wrong(root, said, value, &format!("{at}[{number}]")));
                }
            }
            "anyOf" | "oneOf" => {
                let choices = said.as_array().unwrap().iter();
                let fit = choices.filter(|choice| wrong(root, choice, value, at).is_empty()).count();
                check(if word == "oneOf" { fit == 1 } else { fit > 0 }, word);
            }
            other => panic!("{at}: the validator does not know {other}"),
        }
    }
    found.extend(inner);
    found
}

/// The patterns that the schemas use.
fn matches(pattern: &str, text: &str) -> bool {
    let hex = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    match pattern {
        "^[EWN]-[A-Z-]+$" => {
            let rest = ["E-", "W-", "N-"].iter().find_map(|letter| text.strip_prefix(letter));
            rest.is_some_and(|rest| {
                !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_uppercase() || b == b'-')
            })
        }
        "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$" => {
            let parts: Vec<&str> = text.split('-').collect();
            parts.iter().all(|part| hex(part)) && parts.iter().map(|part| part.len()).eq([8, 4, 4, 4, 12])
        }
        "^([0-9a-f]{2})*$" => hex(text) && text.len().is_multiple_of(2),
        "^[0-9a-f]{8}$" => hex(text) && text.len() == 8,
        "^[0-9a-f]{64}$" => hex(text) && text.len() == 64,
        other => panic!("the validator does not know the pattern {other}"),
    }
}

/// Logs of many kinds.
fn logs() -> Vec<(String, PathBuf, Vec<Bench>)> {
    let mut logs = Vec::new();
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden");
    for entry in fs::read_dir(golden).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.is_dir() {
            logs.push((entry.display().to_string(), entry, Vec::new()));
        }
    }
    for (name, bench) in [("closed", Bench::closed(300)), ("killed", Bench::killed(300))] {
        logs.push((name.to_string(), bench.directory.clone(), vec![bench]));
    }
    let binary = Bench::closed(3);
    let log = binary.open();
    log.append([0xff, 0, 0xfe]).unwrap();
    log.put_meta("vote", b"seven").unwrap();
    log.close().unwrap();
    logs.push(("binary".to_string(), binary.directory.clone(), vec![binary]));
    logs
}

#[test]
fn every_document_and_line_follows_its_schema() {
    let mut judge = Judge::default();
    for (_, directory, _bench) in logs() {
        for (name, arguments, lines) in SCHEMAS {
            let directory = directory.to_str().unwrap();
            let arguments: Vec<&str> =
                arguments.iter().map(|word| if *word == "DIR" { directory } else { word }).collect();
            if *lines {
                run(&arguments).1.lines().for_each(|line| drop(judge.value(name, &arguments, line)));
            } else {
                judge.document(name, &arguments);
            }
        }
    }
    assert!(judge.count("dump") > 1000, "{:?}", judge.documents);
    for name in ["check", "stat", "map"] {
        assert!(judge.count(name) > 40, "{:?}", judge.documents);
    }
    assert!(judge.count("plan") > 160 && judge.count("explain") > 400, "{:?}", judge.documents);
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

/// The files of a log directory, without what a repair leaves of itself.
fn files(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let files = entries.filter(|path| path.is_file() && path.file_name().unwrap() != "LOCK");
    files.map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

/// Repair and rebuild with what their plans want named, and their undoing, of a copy of every log.
#[test]
fn what_a_repair_and_its_undoing_say_follows_its_schema() {
    let mut judge = Judge::default();
    let mut lost = 0;
    for (told, directory, _bench) in logs() {
        for verb in ["repair", "rebuild"] {
            let home = tempfile::tempdir().unwrap();
            let log = home.path().join("log");
            copy(&directory, &log);
            let (before, log) = (files(&log), log.to_str().unwrap());
            let (_, Some(plan)) = judge.document("plan", &[verb, log, "--json"]) else { continue };
            // Refused, where something has to be named; done, where nothing is lost.
            let (mut code, mut done) = judge.document("plan", &[verb, log, "--json", "--apply"]);
            // Where nothing says where the log ended, it is said to have ended where the plan ends.
            let open =
                plan["lost_from"].as_u64().map(|from| (from, plan["offsets"]["end"].as_u64().unwrap()));
            let to_accept = plan["to_accept"].as_array().unwrap().iter();
            let to_accept =
                to_accept.map(|range| (range["start"].as_u64().unwrap(), range["end"].as_u64().unwrap()));
            let named: BTreeSet<(u64, u64)> = to_accept.chain(open).collect();
            if code == 4 && !named.is_empty() {
                let named = named.iter().map(|(start, end)| format!("{start}..{end}"));
                let named: Vec<String> = named.flat_map(|range| ["--accept-loss".into(), range]).collect();
                let named: Vec<&str> = named.iter().map(String::as_str).collect();
                let arguments = [&[verb, log, "--json", "--apply"], named.as_slice()].concat();
                (code, done) = judge.document("plan", &arguments);
                lost += 1;
            }
            let Some(done) = done else { continue };
            if done["done"].is_null() {
                assert_eq!(code, 0, "log-repair {verb} {told} --apply --json: {done:#}");
                continue;
            }
            assert_eq!(code, 1, "log-repair {verb} {told} --apply --json: {done:#}");
            let (code, shown) = judge.document("undo", &["undo", log, "--json"]);
            assert_eq!(code, 0, "log-repair undo {told}, after {verb}: {shown:?}");
            let (code, undone) = judge.document("undo", &["undo", log, "--apply", "--json"]);
            assert_eq!(code, 1, "log-repair undo {told} --apply, after {verb}: {undone:?}");
            assert!(files(Path::new(log)) == before, "log-repair undo {told}, after {verb}");
        }
    }
    assert!(lost > 20 && judge.count("undo") > 80, "{lost} with losses, {:?}", judge.documents);
}

#[test]
fn what_a_salvage_says_follows_its_schema() {
    let mut judge = Judge::default();
    for (_, directory, _bench) in logs() {
        let from = directory.to_str().unwrap();
        for options in [&[][..], &["--carve"]] {
            let home = tempfile::tempdir().unwrap();
            let out = home.path().join("out");
            let arguments = [&["salvage", from, "--out", out.to_str().unwrap(), "--json"], options].concat();
            judge.document("salvage", &arguments);
            if let Ok(lines) = fs::read_to_string(out.with_file_name("out-unplaced.jsonl")) {
                lines.lines().for_each(|line| drop(judge.value("unplaced", &arguments, line)));
            }
        }
    }
    assert!(judge.count("salvage") > 80 && judge.count("unplaced") > 0, "{:?}", judge.documents);
}

#[test]
fn what_a_demo_says_follows_its_schema() {
    let mut judge = Judge::default();
    let list = judge.document("demo-list", &["demo", "--list", "--json"]).1.unwrap();
    for kind in list["kinds"].as_array().unwrap() {
        let home = tempfile::tempdir().unwrap();
        let log = home.path().join("log");
        let log = log.to_str().unwrap();
        let (code, made) = judge.document("demo", &["demo", log, kind["kind"].as_str().unwrap(), "--json"]);
        assert_eq!(code, 0);
        for command in made.unwrap()["next"].as_array().unwrap() {
            let words: Vec<&str> = command.as_str().unwrap().split(' ').skip(1).collect();
            judge.document(words[0], &[words.as_slice(), &["--json"]].concat());
        }
        judge.document("plan", &["plan", log, "--json"]);
    }
    assert!(judge.count("demo") > 20 && judge.count("explain") > 10, "{:?}", judge.documents);
}

/// Each field, wherever it stands, says what it is; each file says its dialect, its version and its verb.
#[test]
fn every_schema_describes_every_field() {
    fn undescribed(schema: &Value, at: &str, found: &mut Vec<String>) {
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            if property["description"].as_str().is_none_or(str::is_empty) {
                found.push(format!("{at}.{name}"));
            }
        }
        match schema {
            Value::Object(fields) => {
                fields.iter().for_each(|(name, value)| undescribed(value, &format!("{at}/{name}"), found))
            }
            Value::Array(values) => values.iter().for_each(|value| undescribed(value, at, found)),
            _ => {}
        }
    }
    let files: BTreeSet<String> = fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_string())
        .collect();
    let tested: BTreeSet<String> =
        SCHEMAS.iter().map(|(name, ..)| name).chain(OTHERS).map(|name| name.to_string()).collect();
    assert_eq!(files, tested, "each file is tested, each test has its file");
    for name in &files {
        let schema = schema(name);
        assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
        assert_eq!(schema["$id"], format!("urn:stonelog:log-repair:{name}:1"));
        let mut found = Vec::new();
        undescribed(&schema, name, &mut found);
        assert!(found.is_empty(), "fields without a description: {found:?}");
    }
}

/// The validator finds what is wrong: a field more, a field less, a wrong type, a wrong word.
#[test]
fn the_validator_is_strict() {
    let bench = Bench::closed(300);
    bench.flip_record(42);
    let (_, good) = bench.check_json();
    let root = schema("check");
    assert!(wrong(&root, &root, &good, "check").is_empty());
    let spoil = |change: &dyn Fn(&mut Value)| {
        let mut bad = good.clone();
        change(&mut bad);
        assert!(!wrong(&root, &root, &bad, "check").is_empty(), "{bad:#}");
    };
    spoil(&|bad| bad["more"] = 1.into());
    spoil(&|bad| bad["findings"][0]["more"] = 1.into());
    spoil(&|bad| drop(bad.as_object_mut().unwrap().remove("verdict")));
    spoil(&|bad| drop(bad["findings"][0].as_object_mut().unwrap().remove("sure")));
    spoil(&|bad| bad["verdict"] = "fine".into());
    spoil(&|bad| bad["schema_version"] = 2.into());
    spoil(&|bad| bad["findings"][0]["position"] = (-1).into());
    spoil(&|bad| bad["findings"][0]["code"] = "X-RAY".into());
    spoil(&|bad| bad["unreadable"] = Value::Null);
}
