//! Plans that are long, and losses that a file names: what people see stays short, and what is given up exact.
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

use std::fs;
use std::path::PathBuf;

use serde_json::Value;
use support::{Bench, picture, run};

/// A log of which every other of 200 records is damaged: as many losses as can be.
fn riddled() -> Bench {
    let bench = Bench::closed(300);
    for offset in (0..200).step_by(2) {
        bench.flip_record(offset);
    }
    bench
}

fn to_accept(bench: &Bench) -> Vec<String> {
    let plan: Value = serde_json::from_str(&bench.run("plan", &["--json"]).stdout).unwrap();
    let ranges = plan["to_accept"].as_array().unwrap();
    ranges.iter().map(|range| format!("{}..{}", range["start"], range["end"])).collect()
}

/// A file beside the log.
fn beside(bench: &Bench, name: &str, text: &str) -> PathBuf {
    let path = bench.directory.with_file_name(name);
    fs::write(&path, text).unwrap();
    path
}

#[test]
fn a_long_plan_is_shown_in_part_unless_all_of_it_is_asked_for() {
    let bench = riddled();
    let short = bench.run("plan", &[]);
    assert!(short.stdout.lines().count() < 130, "{}", short.stdout);
    let longest = short.stdout.lines().map(str::len).max().unwrap();
    assert!(longest < 300, "{}", short.stdout);
    assert!(short.stdout.contains("... and 50 more: --all or --json"), "{}", short.stdout);
    assert!(!short.stdout.contains("record 198"), "{}", short.stdout);
    let all = bench.run("plan", &["--all"]).stdout;
    for offset in (0..200).step_by(2) {
        assert_eq!(all.matches(&format!("record {offset} lost")).count(), 1, "{all}");
        assert_eq!(all.matches(&format!("record {offset}: no intact frame")).count(), 1, "{all}");
    }
    assert!(!all.contains("..."), "{all}");
    // A refusal names some, and says how to name them all.
    let refused = bench.run("repair", &["--apply"]);
    assert_eq!(refused.code, 4);
    assert!(
        refused.stderr.contains("and 80 more") && refused.stderr.contains("--accept-loss-from"),
        "{refused:?}"
    );
    assert!(refused.stderr.len() < 1000 && refused.stdout.lines().count() < 130, "{refused:?}");
    // A short one is as it was: each named on the command line.
    let little = Bench::closed(300);
    little.flip_record(42);
    let shown = little.run("plan", &[]).stdout;
    assert!(shown.contains("--apply --accept-loss 42..43\n") && !shown.contains("more"), "{shown}");
}

/// The commands that a long plan suggests do it.
#[test]
fn what_a_long_plan_suggests_works() {
    for verb in ["repair", "rebuild"] {
        let bench = riddled();
        let before = picture(&bench.directory).into_iter().map(|(path, (bytes, _))| (path, bytes));
        let before: Vec<_> = before.filter(|(path, _)| path.is_file() && !path.ends_with("LOCK")).collect();
        let shown = bench.run(verb, &[]).stdout;
        let (_, suggested) = shown.split_once("To do it:").unwrap();
        let mut commands = suggested.lines().filter_map(|line| line.trim().strip_prefix("log-repair "));
        let plan = bench.directory.with_file_name("plan.json");
        let shown = plan.to_str().unwrap();
        let (first, into) = commands.next().unwrap().split_once(" > ").unwrap();
        assert_eq!(into, "plan.json");
        let ran = run(&first.split(' ').collect::<Vec<_>>());
        assert_eq!(ran.code, 4, "{ran:?}");
        fs::write(&plan, ran.stdout).unwrap();
        let second = commands.next().unwrap().replace("plan.json", shown);
        let ran = run(&second.split(' ').collect::<Vec<_>>());
        assert_eq!(ran.code, 1, "log-repair {second}: {ran:?}");
        assert_eq!(bench.run("check", &[]).code, 0);
        assert_eq!(bench.run("undo", &["--apply"]).code, 1);
        for (path, bytes) in before {
            assert!(fs::read(&path).ok() == bytes, "{}", path.display());
        }
    }
}

/// A file names losses as exactly as a command line: one less, one more or one that is none, and nothing is done.
#[test]
fn a_file_names_losses_exactly() {
    let bench = riddled();
    let ranges = to_accept(&bench);
    assert_eq!(ranges.len(), 100);
    let before = picture(&bench.directory);
    let try_with = |text: &str, more: &[&str]| {
        let file = beside(&bench, "named", text);
        let named = ["--apply", "--accept-loss-from", file.to_str().unwrap()];
        bench.run("repair", &[&named, more].concat())
    };
    let less = ranges[..99].join("\n");
    let (more, bad) = (format!("{}\n250..251\n", ranges.join("\n")), format!("{less}\n198\n"));
    for (text, code) in [(less.as_str(), 4), (more.as_str(), 4), (bad.as_str(), 16), ("{}", 16), ("", 4)] {
        let ran = try_with(text, &[]);
        assert_eq!(ran.code, code, "{ran:?}");
        assert!(!ran.stderr.is_empty() && ran.stderr.len() < 2000, "{ran:?}");
    }
    assert!(try_with(&bad, &[]).stderr.contains("line 100"));
    let nowhere = bench.run("plan", &["--accept-loss-from", "/nonexistent-stonelog/named"]);
    assert_eq!(nowhere.code, 8, "{nowhere:?}");
    let after = picture(&bench.directory);
    let kept = before.iter().filter(|(path, _)| path.is_file() && !path.ends_with("LOCK"));
    for (path, (bytes, _)) in kept {
        assert!(after.get(path).map(|(bytes, _)| bytes) == Some(bytes), "{}", path.display());
    }
    // Together with what is typed, and with remarks of whoever read it.
    let ran = try_with(&format!("# read by Ada\n\n{less}\n"), &["--accept-loss", &ranges[99]]);
    assert_eq!(ran.code, 1, "{ran:?}");
}

/// Where nobody can tell how much is lost, a file can say it as the command line does.
#[test]
fn a_file_can_say_where_the_log_ended() {
    let bench = Bench::killed(300);
    let last = bench.find(299).0;
    fs::remove_file(last).unwrap();
    let plan: Value = serde_json::from_str(&bench.run("plan", &["--json"]).stdout).unwrap();
    let from = plan["lost_from"].as_u64().unwrap();
    let named = beside(&bench, "named", &format!("{from}..300\n"));
    let named = named.to_str().unwrap();
    let plan = bench.run("plan", &["--accept-loss-from", named, "--json"]).stdout;
    let plan: Value = serde_json::from_str(&plan).unwrap();
    assert_eq!(plan["offsets"]["end"], 300, "{plan:#}");
    let ran = bench.run("repair", &["--apply", "--accept-loss-from", named]);
    assert_eq!(ran.code, 1, "{ran:?}");
}
