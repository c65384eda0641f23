//! What `--json` writes is what docs/schema says: every document and line of it, field by field.
//!
//! A new verb is one file in docs/schema and one row in [`SCHEMAS`]. The validator below knows the words of JSON
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

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use support::{Bench, run};

/// The schema, the arguments behind which the directory comes, and whether each line is a document.
const SCHEMAS: &[(&str, &[&str], bool)] = &[
    ("check", &["check", "--json"], false),
    ("stat", &["stat", "--json"], false),
    ("dump", &["dump", "--format", "json"], true),
    ("dump", &["dump", "--format", "json", "--frames"], true),
];

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
    let mut documents = 0;
    for (told, directory, _bench) in logs() {
        for (name, arguments, lines) in SCHEMAS {
            let root = schema(name);
            let ran = run(&[*arguments, &[directory.to_str().unwrap()]].concat());
            if !matches!(ran.code, 0 | 4) || ran.stdout.is_empty() {
                continue;
            }
            let texts: Vec<&str> = if *lines { ran.stdout.lines().collect() } else { vec![&ran.stdout] };
            for text in texts {
                let value: Value = serde_json::from_str(text).unwrap();
                let wrong = wrong(&root, &root, &value, name);
                assert!(
                    wrong.is_empty(),
                    "log-repair {arguments:?} {told}:\n{}\n{value:#}",
                    wrong.join("\n")
                );
                documents += 1;
            }
        }
    }
    assert!(documents > 1000, "{documents}");
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
    let tested: BTreeSet<String> = SCHEMAS.iter().map(|(name, ..)| name.to_string()).collect();
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
