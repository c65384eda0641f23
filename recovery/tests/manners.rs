//! How `log-repair` behaves whatever the verb: quiet, colours, completions, manual pages, Ctrl-C.
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
use std::process::Stdio;

use support::{Bench, command, run};

/// The verbs that `--help` lists.
fn verbs() -> BTreeSet<String> {
    let help = run(&["--help"]).stdout;
    let commands = help.lines().skip_while(|line| !line.starts_with("Commands:")).skip(1);
    commands
        .take_while(|line| !line.trim().is_empty())
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next().map(String::from))
        .filter(|verb| verb != "help")
        .collect()
}

#[test]
fn every_shell_can_complete_every_verb() {
    let verbs = verbs();
    assert!(verbs.len() >= 5, "{verbs:?}");
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let ran = run(&["completions", shell]);
        assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{shell}");
        for word in verbs.iter().map(String::as_str).chain(["quiet", "color"]) {
            assert!(ran.stdout.contains(word), "{shell} does not complete {word}");
        }
    }
    assert_eq!(run(&["completions", "csh"]).code, 16);
    // A shell that knows how to read it finds nothing wrong with it.
    let script = run(&["completions", "bash"]).stdout;
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("completions");
    fs::write(&path, script).unwrap();
    if let Ok(status) = std::process::Command::new("bash").arg("-n").arg(&path).status() {
        assert!(status.success(), "bash -n");
    }
}

#[test]
fn there_is_a_manual_page_for_the_tool_and_for_every_verb() {
    let home = tempfile::tempdir().unwrap();
    let out = home.path().join("man1");
    let out = out.to_str().unwrap();
    let ran = run(&["man", "--out", out]);
    assert_eq!((ran.code, ran.stdout.as_str()), (0, ""), "{ran:?}");
    // A second time replaces them.
    assert_eq!(run(&["man", "--out", out, "--quiet"]).stderr, "");
    let written: BTreeSet<String> =
        fs::read_dir(out).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    let wanted: BTreeSet<String> = verbs()
        .iter()
        .map(|verb| format!("log-repair-{verb}.1"))
        .chain(["log-repair.1".to_string()])
        .collect();
    assert_eq!(written, wanted);
    for name in &written {
        let page = fs::read_to_string(format!("{out}/{name}")).unwrap();
        assert!(page.contains(&format!(".TH {} 1", name.trim_end_matches(".1"))), "{name}: {page}");
        assert_eq!(page.matches(".SH \"EXIT STATUS\"").count(), 1, "{name}");
        let (_, status) = page.split_once(".SH \"EXIT STATUS\"").unwrap();
        for code in ["0 ", "4 ", "8 ", "16 ", "32 "] {
            let told = status.lines().any(|line| line.trim_start().starts_with(code));
            assert!(told, "{name} does not tell exit code {code}");
        }
        // What goes to stdout is the same page.
        let verb = name.trim_start_matches("log-repair").trim_start_matches('-').trim_end_matches(".1");
        let verb = verb.trim_start_matches('.').trim_start_matches('1');
        let alone = if verb.is_empty() { run(&["man"]) } else { run(&["man", verb]) };
        assert_eq!((alone.code, alone.stdout), (0, page), "{name}");
    }
    assert_eq!(run(&["man", "nothing"]).code, 16);
    assert_eq!(run(&["man", "--out", "/nonexistent-stonelog/pages"]).code, 8);
}

/// What is no result and no error is not said; results and errors are.
#[test]
fn quiet_leaves_results_and_errors() {
    let closed = Bench::closed(300);
    let ran = closed.run("check", &["--quiet"]);
    assert_eq!((ran.code, ran.stdout.as_str(), ran.stderr.as_str()), (0, "", ""));
    let directory = closed.directory.to_str().unwrap();
    // Before the verb as behind it.
    assert_eq!(run(&["-q", "check", directory]).stdout, "");
    for verb in ["stat", "dump"] {
        let (loud, quiet) = (closed.run(verb, &[]), closed.run(verb, &["-q"]));
        assert_eq!((quiet.code, quiet.stdout), (loud.code, loud.stdout), "{verb}: results stay");
        assert_eq!(quiet.stderr, "");
    }
    closed.flip_record(42);
    let ran = closed.run("check", &["-q"]);
    assert!(ran.code == 4 && ran.stdout.contains("E-FRAME-CRC"), "damage is told: {ran:?}");
    let ran = closed.run("dump", &["-q"]);
    assert!(ran.code == 4 && ran.stderr.contains("record 42: damaged"), "{ran:?}");
    assert!(!run(&["check", "-q", "/nonexistent-stonelog"]).stderr.is_empty(), "an error is told");
    // A remark is not.
    fs::remove_file(closed.path("MANIFEST")).unwrap();
    assert!(closed.run("dump", &["--frames"]).stderr.contains("no whole MANIFEST"));
    assert_eq!(closed.run("dump", &["--frames", "-q"]).stderr, "");
}

/// Verbs that look, plan or mend say nothing at all unless something is wrong, or JSON was asked for.
#[test]
fn quiet_verbs_speak_of_damage_and_loss_alone() {
    let home = tempfile::tempdir().unwrap();
    let place = |name: &str| home.path().join(name).to_str().unwrap().to_string();
    let silent = |code: i32, ran: &support::Ran| {
        assert_eq!((ran.code, ran.stdout.as_str(), ran.stderr.as_str()), (code, "", ""), "{ran:?}");
    };
    let bench = Bench::closed(300);
    for verb in ["plan", "repair", "rebuild", "map"] {
        silent(0, &bench.run(verb, &["-q"]));
    }
    silent(0, &bench.run("repair", &["-q", "--apply"]));
    silent(0, &bench.run("explain", &["7", "-q"]));
    silent(0, &bench.run("map", &["-q", "--html", &place("map.html")]));
    assert!(bench.run("map", &["-q", "--html", "-"]).stdout.contains("<html"), "a page that was asked for");
    silent(0, &bench.run("salvage", &["-q", "--out", &place("whole")]));
    silent(0, &run(&["demo", &place("demo"), "torn-tail", "-q"]));
    assert_eq!(run(&["demo", "--list", "-q"]).stdout, run(&["demo", "--list"]).stdout);

    bench.flip_record(42);
    for (verb, more) in [("plan", "lost"), ("repair", "lost"), ("rebuild", "lost"), ("map", "DAMAGED")] {
        let ran = bench.run(verb, &["-q"]);
        assert!(ran.code == 4 && ran.stdout.contains(more) && ran.stderr.is_empty(), "{verb}: {ran:?}");
        let (loud, quiet) = (bench.run(verb, &["--json"]), bench.run(verb, &["--json", "-q"]));
        assert_eq!((quiet.code, &quiet.stdout), (4, &loud.stdout), "{verb} --json");
    }
    silent(0, &bench.run("explain", &["7", "-q"]));
    let ran = bench.run("explain", &["42", "-q"]);
    assert!(ran.code == 4 && ran.stdout.contains("record 42"), "{ran:?}");
    let ran = bench.run("salvage", &["-q", "--out", &place("part")]);
    assert!(ran.code == 4 && ran.stdout.contains("missing"), "{ran:?}");
    let refused = bench.run("repair", &["-q", "--apply"]);
    assert!(refused.code == 4 && refused.stdout.contains("record 42"), "the plan is told: {refused:?}");
    assert!(refused.stderr.contains("--accept-loss 42..43"), "{refused:?}");
    silent(1, &bench.run("repair", &["-q", "--apply", "--accept-loss", "42..43"]));
    silent(0, &bench.run("undo", &["-q"]));
    silent(1, &bench.run("undo", &["-q", "--apply"]));
    assert!(!bench.run("undo", &["-q"]).stderr.is_empty(), "an error is told");
    silent(1, &bench.run("rebuild", &["-q", "--apply", "--accept-loss", "42..43"]));
}

/// No terminal, no colour and no bar, unless colour is asked for; NO_COLOR is heard.
#[test]
fn colours_and_bars_are_for_terminals() {
    let bench = Bench::closed(300);
    bench.flip_record(42);
    let plain = bench.run("check", &[]);
    assert!(!plain.stdout.contains('\u{1b}'), "{plain:?}");
    assert_eq!(plain.stderr, "", "no bar");
    let coloured = bench.run("check", &["--color", "always"]);
    assert!(coloured.stdout.contains('\u{1b}'));
    assert_eq!(bench.run("check", &["--color", "never"]).stdout, plain.stdout);
    let directory = bench.directory.to_str().unwrap();
    // NO_COLOR is heard even by who was made to colour.
    let forced = |name: &str, value: &str| {
        let mut check = command(&["check", directory]);
        check.env("CLICOLOR_FORCE", "1").env(name, value).output().unwrap().stdout.contains(&0x1b)
    };
    assert!(forced("UNRELATED", "1"));
    assert!(!forced("NO_COLOR", "1"));
}

#[cfg(unix)]
#[test]
fn ctrl_c_ends_it_with_32_and_leaves_the_log_alone() {
    use std::io::{BufRead, BufReader};
    let bench = Bench::closed(20);
    let before = support::picture(&bench.directory);
    let mut child = command(&["dump", bench.directory.to_str().unwrap(), "--follow"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    // It is at work, and has its handler: it was set before the first record came.
    for _ in 0..20 {
        lines.next().unwrap().unwrap();
    }
    let status = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(status.success());
    assert_eq!(child.wait().unwrap().code(), Some(32));
    assert!(support::picture(&bench.directory) == before);
}
