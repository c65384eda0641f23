//! `log-repair map`: it says the same as `check`, cell by cell, and its page is one that needs nothing.
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
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use support::{Bench, run};

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden");

fn golden() -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = fs::read_dir(GOLDEN).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.is_dir());
    paths.sort();
    assert!(paths.len() > 60);
    paths
}

/// Every golden log, and every kind that `demo` makes.
fn logs(home: &Path) -> Vec<PathBuf> {
    let list: Value = serde_json::from_str(&run(&["demo", "--list", "--json"]).stdout).unwrap();
    let mut logs = golden();
    for kind in list["kinds"].as_array().unwrap() {
        let kind = kind["kind"].as_str().unwrap();
        let path = home.join(kind);
        assert_eq!(run(&["demo", path.to_str().unwrap(), kind]).code, 0);
        logs.push(path);
    }
    logs
}

fn json(arguments: &[&str]) -> (i32, Option<Value>) {
    let ran = run(arguments);
    (ran.code, serde_json::from_str(&ran.stdout).ok())
}

fn name(path: &str) -> &str {
    path.rsplit('/').next().unwrap()
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap()
}

#[test]
fn every_cell_agrees_with_the_findings() {
    let home = tempfile::tempdir().unwrap();
    let mut states = BTreeSet::new();
    for log in logs(home.path()) {
        let path = log.to_str().unwrap();
        let ((code, check), (map_code, map)) =
            (json(&["check", path, "--json"]), json(&["map", path, "--json"]));
        assert_eq!(code, map_code, "{path}");
        let (Some(check), Some(map)) = (check, map) else { continue };
        for key in ["verdict", "headline", "findings", "exit_code"] {
            assert_eq!(check[key], map[key], "{path}: {key}");
        }
        let findings = check["findings"].as_array().unwrap();
        for bar in map["segments"].as_array().unwrap() {
            let spans = bar["spans"].as_array().unwrap();
            let told = format!("log-repair map {path} --json; segment {}", bar["segment"]);
            let mut end = 0;
            for span in spans {
                assert_eq!(number(&span["start"]), end, "{told}: a hole or an overlap");
                assert!(number(&span["end"]) > end, "{told}");
                end = number(&span["end"]);
                states.insert(span["state"].as_str().unwrap().to_string());
            }
            assert_eq!(end, number(&bar["length"]), "{told}");
            let about: Vec<&Value> = findings
                .iter()
                .filter(|finding| finding["file"].as_str().is_some_and(|file| name(file) == bar["file"]))
                .collect();
            let within = |finding: &Value, span: &Value| match (
                finding["position"].as_u64(),
                finding["position_end"].as_u64(),
            ) {
                (Some(start), Some(end)) => start < number(&span["end"]) && number(&span["start"]) < end,
                (Some(start), None) => start < number(&span["end"]),
                (None, _) => true,
            };
            let damaged_store = about.iter().any(|f| f["code"].as_str().unwrap().starts_with("E-"));
            for span in spans {
                let claimed = |letter: &str| {
                    about.iter().any(|f| f["code"].as_str().unwrap().starts_with(letter) && within(f, span))
                };
                if span["state"] == "damaged" {
                    assert!(claimed("E-"), "{told}: {span} is called damaged, and no finding says so");
                }
                // (Whole records behind a hole are cut too; the finding about the log's end names their file.
                // In a damaged store the tail is not told of besides.)
                let cut = findings
                    .iter()
                    .any(|f| f["next"].as_str().unwrap().contains(bar["file"].as_str().unwrap()));
                if span["state"] == "torn" && !cut {
                    assert!(
                        claimed("W-TAIL") || damaged_store,
                        "{told}: {span} is called torn, and nothing says so"
                    );
                }
            }
            for finding in &about {
                let (code, start) = (finding["code"].as_str().unwrap(), finding["position"].as_u64());
                let at = |position: u64| {
                    spans
                        .iter()
                        .find(|span| (number(&span["start"])..number(&span["end"])).contains(&position))
                };
                match (code, start) {
                    (code, Some(start)) if code.starts_with("E-") => {
                        assert_eq!(at(start).expect(&told)["state"], "damaged", "{told}: {finding:#}");
                    }
                    (code, Some(start)) if code.starts_with("W-TAIL") => {
                        let state = at(start).expect(&told)["state"].as_str().unwrap();
                        assert!(matches!(state, "torn" | "damaged"), "{told}: {finding:#}");
                    }
                    (code, None) if code.starts_with("E-") => {
                        assert!(spans.iter().any(|span| span["state"] == "damaged"), "{told}: {finding:#}");
                    }
                    _ => {}
                }
            }
        }
        // The picture is of the same: there is an X exactly where something is damaged.
        let text = run(&["map", path, "--ascii", "--all"]);
        let bars = text.stdout.split("\n\n").nth(1).unwrap_or("");
        let damaged = map["totals"].as_array().unwrap().iter().any(|total| total["state"] == "damaged");
        assert_eq!(bars.contains('X'), damaged, "{text:?}");
        assert_eq!(text.first_line(), map["headline"], "{path}");
    }
    let all = ["beyond-seal", "clean", "damaged", "lost", "preallocated", "torn", "truncated"];
    assert_eq!(states, all.map(String::from).into(), "every state occurs in some log");
}

#[test]
fn one_bad_byte_is_one_cell() {
    let bench = Bench::closed(300);
    let (_, position) = bench.flip_record(42);
    let (code, map) = json(&["map", bench.directory.to_str().unwrap(), "--json"]);
    let map = map.unwrap();
    assert_eq!(code, 4);
    let bars = map["segments"].as_array().unwrap();
    let wrong: Vec<&Value> = bars.iter().filter(|bar| bar["worst"] == "damaged").collect();
    assert_eq!(wrong.len(), 1);
    let spans = wrong[0]["spans"].as_array().unwrap();
    let damaged: Vec<&Value> = spans.iter().filter(|span| span["state"] == "damaged").collect();
    assert_eq!((damaged.len(), &damaged[0]["start"]), (1, &position.into()));
    assert_eq!(damaged[0]["offsets"], serde_json::json!({ "start": 42, "end": 43 }));
    let narrow = bench.run("map", &["--width", "40", "--ascii"]);
    assert!(narrow.stdout.contains('X'), "{narrow:?}");
}

#[test]
fn many_segments_are_folded_unless_all_are_asked_for() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("large");
    let path = path.to_str().unwrap();
    run(&["demo", path, "large"]);
    let (short, long) = (run(&["map", path]), run(&["map", path, "--all"]));
    assert!(short.stdout.lines().count() < 40, "{}", short.stdout);
    assert!(long.stdout.lines().count() > 400, "{}", long.stdout.lines().count());
    // Both damaged segments are still there.
    assert_eq!(short.stdout.lines().filter(|line| line.contains("X█")).count(), 2, "{}", short.stdout);
    assert!(short.stdout.contains("segments"), "{}", short.stdout);
    for line in run(&["map", path, "--width", "80"]).stdout.lines().skip(3).take(6) {
        assert!(line.chars().count() <= 80, "{line:?}");
    }
}

/// The data inside a page, and the page.
fn page(path: &str) -> (String, Value) {
    let html = run(&["map", path, "--html", "-"]).stdout;
    let data = html.split_once("id=\"data\">").expect(path).1.split_once("</script>").unwrap().0;
    let data = serde_json::from_str(data).unwrap();
    (html, data)
}

#[test]
fn the_page_needs_nothing_but_itself() {
    let home = tempfile::tempdir().unwrap();
    for log in logs(home.path()) {
        let path = log.to_str().unwrap();
        let (code, check) = json(&["check", path, "--json"]);
        let Some(check) = check else { continue };
        let (html, data) = page(path);
        let markup = html.replace(&data.to_string(), "");
        for asks in [
            "http://",
            "https://",
            "src=",
            "@import",
            "url(",
            "<link",
            "<img",
            "<iframe",
            "fetch(",
            "XMLHttp",
            "import(",
            "WebSocket",
        ] {
            assert!(!markup.contains(asks), "{path}: the page has {asks}");
        }
        assert!(html.contains("default-src 'none'"), "{path}");
        assert!(html.len() < 2 << 20, "{path}: {} bytes", html.len());
        assert_eq!(data["headline"], check["headline"], "{path}");
        assert_eq!(data["findings"], check["findings"], "{path}, which ends with {code}");
        assert_eq!(data["plan"], serde_json::json!([]), "nobody made a plan");
    }
}

#[test]
fn frames_around_what_is_wrong_are_on_the_page() {
    let bench = Bench::closed(300);
    bench.flip_record(42);
    let (_, data) = page(bench.directory.to_str().unwrap());
    let rows = data["rows"].as_array().unwrap();
    let wrong = rows.iter().find(|row| row["worst"] == "damaged").unwrap();
    let offsets: Vec<u64> =
        wrong["frames"].as_array().unwrap().iter().filter_map(|frame| frame["offset"].as_u64()).collect();
    assert!(offsets.contains(&41) && offsets.contains(&43) && !offsets.contains(&42), "{offsets:?}");
}

#[test]
fn no_name_gets_out_of_its_place() {
    let bench = Bench::closed(30);
    let evil = "<script>alert(1)<!--\u{2028}&lt;";
    fs::write(bench.path(evil), b"").unwrap();
    let (html, data) = page(bench.directory.to_str().unwrap());
    let text = html.split_once("id=\"data\">").unwrap().1.split_once("</script>").unwrap().0;
    assert!(!text.contains(['<', '>', '&']), "a file's name can become markup");
    assert!(data["findings"][0]["file"].as_str().unwrap().contains("<script>alert(1)<!--"), "{data:#}");
}

#[test]
fn the_page_is_written_where_it_is_asked_for_and_nowhere_else() {
    let bench = Bench::closed(100);
    let before = support::picture(&bench.directory);
    let target = bench.directory.with_file_name("map.html");
    let ran = bench.run("map", &["--html", target.to_str().unwrap()]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.stdout.contains("map.html"), "{ran:?}");
    // Again, over a longer file: nothing of it is left.
    let first = fs::read_to_string(&target).unwrap();
    fs::write(&target, first.clone() + &"x".repeat(9999)).unwrap();
    bench.run("map", &["--html", target.to_str().unwrap()]);
    assert!(fs::read_to_string(&target).unwrap().trim_end().ends_with("</html>"));
    // Not into the log.
    let inside = bench.path("MANIFEST");
    let ran = bench.run("map", &["--html", inside.to_str().unwrap()]);
    assert_eq!(ran.code, 16, "{ran:?}");
    assert_eq!(support::picture(&bench.directory), before);
}

#[test]
fn what_is_no_log_is_said_to_be_none() {
    let home = tempfile::tempdir().unwrap();
    assert_eq!(run(&["map", home.path().to_str().unwrap()]).code, 8);
    assert_eq!(run(&["map", "/nonexistent-stonelog"]).code, 8);
    assert_eq!(run(&["map", "/nonexistent-stonelog", "--width", "3"]).code, 16);
}

#[test]
fn beside_a_writer_it_is_advisory_and_nothing_is_torn() {
    let bench = Bench::empty();
    let log = bench.open();
    for offset in 0..50 {
        log.append(support::payload(offset)).unwrap();
    }
    let (code, map) = json(&["map", bench.directory.to_str().unwrap(), "--json"]);
    let map = map.unwrap();
    assert_eq!((code, &map["advisory"]), (0, &true.into()), "{map:#}");
    let totals: Vec<_> =
        map["totals"].as_array().unwrap().iter().map(|total| total["state"].clone()).collect();
    assert!(totals.iter().all(|state| state == "clean" || state == "preallocated"), "{map:#}");
    log.close().unwrap();
}
