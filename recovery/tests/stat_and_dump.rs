//! `log-repair stat` and `dump`, and that no verb changes anything on disk.
#![allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    dead_code,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::cast_possible_truncation,
    reason = "tests break real files, behind the library's back"
)]

mod support;

use std::fs;
use std::io::Read;
use std::process::Stdio;

use stonelog::Options;
use support::{Bench, command, flip, options, payload, picture};

fn text_lines(range: std::ops::Range<u64>) -> String {
    range.map(|offset| format!("{offset}\t{}\n", String::from_utf8(payload(offset)).unwrap())).collect()
}

#[test]
fn nothing_on_disk_changes() {
    let healthy = Bench::closed(300);
    let killed = Bench::killed(300);
    let broken = Bench::closed(300);
    broken.flip_record(42);
    fs::remove_file(broken.find(200).0).unwrap();
    fs::remove_file(broken.find(250).0.with_extension("index")).unwrap();
    let lockless = Bench::closed(300);
    fs::remove_file(lockless.path("LOCK")).unwrap();
    let headless = Bench::closed(300);
    flip(&headless.path("MANIFEST"), 20);
    for bench in [&healthy, &killed, &broken, &lockless, &headless] {
        let before = picture(&bench.directory);
        for arguments in [
            &["check"][..],
            &["check", "--json"],
            &["stat"],
            &["stat", "--json"],
            &["dump"],
            &["dump", "--format", "raw"],
            &["dump", "--frames"],
        ] {
            bench.run(arguments[0], &arguments[1..]);
            assert!(
                picture(&bench.directory) == before,
                "{arguments:?} changed {}",
                bench.directory.display()
            );
        }
    }
}

#[test]
fn stat_shows_a_log_at_a_glance() {
    let bench = Bench::closed(300);
    let log = bench.open();
    log.put_meta("vote", b"seven").unwrap();
    log.truncate_front(5).unwrap();
    log.close().unwrap();
    let ran = bench.run("stat", &["--json"]);
    let stat: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(ran.code, 0);
    assert_eq!(stat["schema_version"], 1);
    assert_eq!(stat["offsets"], serde_json::json!({ "start": 5, "end": 300 }));
    assert_eq!(stat["end"], "clean");
    assert_eq!(stat["meta"], serde_json::json!([{ "key": "vote", "bytes": 5 }]));
    let payload_bytes: u64 = (0..300).map(|offset| payload(offset).len() as u64).sum();
    let at_most = stat["bytes"]["payload_at_most"].as_u64().unwrap();
    assert!(at_most >= payload_bytes && at_most < payload_bytes + 8 * 300 + 16 * 10, "{stat:#}");
    let segments = stat["segments"].as_array().unwrap();
    assert!(segments.len() > 3);
    let ends: Vec<_> = segments.iter().filter_map(|segment| segment["offsets"]["end"].as_u64()).collect();
    assert_eq!(ends.last(), Some(&300), "{stat:#}");
    let text = bench.run("stat", &[]);
    assert!(text.stdout.contains("closed cleanly") && text.stdout.contains("vote (5 bytes)"), "{text:?}");

    let log = bench.open();
    let open = bench.run("stat", &[]);
    assert!(!cfg!(target_os = "linux") || open.stdout.contains("open for writing"), "{open:?}");
    log.close().unwrap();
    flip(&bench.path("MANIFEST"), 20);
    assert_eq!(bench.run("stat", &[]).code, 4);
}

/// How much of the disk is not payload, when records were written, and what the directory tells of the last
/// recovery: nothing for a log that never had one.
#[test]
fn stat_tells_overhead_times_and_the_last_recovery() {
    let stat = |bench: &Bench| -> serde_json::Value {
        serde_json::from_str(&bench.run("stat", &["--json"]).stdout).unwrap()
    };
    let bench = Bench::closed(300);
    let told = stat(&bench);
    let payload_bytes: u64 = (0..300).map(|offset| payload(offset).len() as u64).sum();
    let files = fs::read_dir(&bench.directory).unwrap().map(|entry| entry.unwrap());
    let all: u64 =
        files.filter(|file| file.file_name() != "LOCK").map(|file| file.metadata().unwrap().len()).sum();
    let bytes = |name: &str| told["bytes"][name].as_u64().unwrap();
    let used = all - bytes("reserved");
    assert!(bytes("reserved") < all);
    let truth = 1000 * (used - payload_bytes) / used;
    let shown = bytes("overhead_permille");
    assert!(shown <= truth && shown + 1000 * (8 * 300 + 16 * 20) / used >= truth, "{shown} of {truth}");
    let written = &told["written"];
    let (first, last) =
        (written["first_millis"].as_u64().unwrap(), written["last_sealed_millis"].as_u64().unwrap());
    assert!(told["created_millis"].as_u64().unwrap() <= first && first <= last, "{written:#}");
    assert!(told["last_recovery"].is_null(), "{told:#}");
    assert!(bench.run("stat", &[]).stdout.contains("nothing here tells of a recovery"));

    let killed = Bench::killed(300);
    let before = stat(&killed);
    assert!(before["last_recovery"].is_null(), "not yet: {before:#}");
    assert!(before["written"]["unsealed_since_millis"].is_u64(), "{before:#}");
    killed.open().close().unwrap();
    let after = stat(&killed);
    assert!(
        after["last_recovery"]["what"].as_str().unwrap().contains("begun with records copied"),
        "{after:#}"
    );
    // It is remembered once that segment is sealed, too.
    let log = killed.open();
    for offset in 300..600 {
        log.append(payload(offset)).unwrap();
    }
    log.close().unwrap();
    assert_eq!(stat(&killed)["last_recovery"], after["last_recovery"]);
}

#[test]
fn stat_after_a_kill_tells_the_proven_from_the_valid_end() {
    let bench = Bench::killed(300);
    let ran = bench.run("stat", &["--json"]);
    let stat: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!((ran.code, &stat["end"], &stat["valid_end"]), (0, &"unclean".into(), &300.into()), "{stat:#}");
    assert_eq!(stat["offsets"]["end"], 300);
}

#[test]
fn dump_writes_records_in_every_form() {
    let bench = Bench::closed(300);
    assert_eq!(bench.run("dump", &[]).stdout, text_lines(0..300));
    let ran = bench.run("dump", &["--from", "120", "--to", "150", "--limit", "20"]);
    assert_eq!((ran.code, ran.stdout), (0, text_lines(120..140)));
    let ran = bench.run("dump", &["--from", "290", "--format", "json"]);
    let lines: Vec<serde_json::Value> =
        ran.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 10);
    assert_eq!(
        lines[3],
        serde_json::json!({ "v": 1, "offset": 293, "length": payload(293).len(),
            "text": String::from_utf8(payload(293)).unwrap() })
    );
    let ran = bench.run("dump", &["--from", "7", "--limit", "1", "--format", "hex"]);
    assert!(
        ran.stdout.starts_with("# record 7, 16 bytes\n00000000  72 65 63 6f 72 64 20 37  20 78"),
        "{ran:?}"
    );
    let raw =
        command(&["dump", bench.directory.to_str().unwrap(), "--format", "raw"]).output().unwrap().stdout;
    let mut rest = &raw[..];
    for offset in 0..300 {
        let (length, behind) = rest.split_first_chunk::<4>().unwrap();
        let (bytes, behind) = behind.split_at(u32::from_le_bytes(*length) as usize);
        assert_eq!(bytes, payload(offset));
        rest = behind;
    }
    assert!(rest.is_empty());
}

#[test]
fn bytes_that_are_no_text_are_escaped() {
    let bench = Bench::empty();
    let log = bench.open();
    log.append(b"\xff\x1b[2Jtab\there").unwrap();
    log.append(b"").unwrap();
    log.close().unwrap();
    assert_eq!(bench.run("dump", &[]).stdout, "0\t\\xff\\u{1b}[2Jtab\\there\n1\t\n");
    let json = bench.run("dump", &["--format", "json", "--limit", "1"]).stdout;
    assert!(json.contains("\"hex\":\"ff1b5b324a7461620968657265\""), "{json}");
}

#[test]
fn dump_names_what_it_passes_over() {
    let bench = Bench::closed(300);
    bench.flip_record(42);
    bench.flip_record(295);
    let (gone, _) = bench.find(130);
    fs::remove_file(&gone).unwrap();
    let ran = bench.run("dump", &["--from", "40", "--to", "45"]);
    assert_eq!((ran.code, ran.stdout), (4, text_lines(40..42) + &text_lines(43..45)));
    assert!(
        ran.stderr.contains("record 42: damaged") && ran.stderr.contains("log-repair check"),
        "{}",
        ran.stderr
    );
    let ran = bench.run("dump", &["--format", "json"]);
    assert_eq!(ran.code, 4);
    let lines: Vec<serde_json::Value> =
        ran.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let shown = lines.iter().filter(|line| line["length"].is_u64()).count() as u64;
    let troubles: Vec<_> = lines.iter().filter(|line| line["state"] == "damaged").collect();
    assert_eq!(troubles.len(), 3, "neighbours are told at once: {troubles:#?}");
    let missed: u64 =
        troubles.iter().map(|t| t["end"].as_u64().unwrap() - t["offset"].as_u64().unwrap()).sum();
    assert_eq!(shown + missed, 300);
    let ran = bench.run("dump", &["--format", "hex", "--from", "42", "--to", "43"]);
    assert!(ran.stdout.starts_with("# record 42: damaged"), "{ran:?}");
}

#[test]
fn dump_says_what_a_kill_left_unproven() {
    let bench = Bench::killed(300);
    let ran = bench.run("dump", &[]);
    let shown = ran.stdout.lines().count();
    assert_eq!(ran.code, 0);
    if shown < 300 {
        assert!(ran.stderr.contains("not proven acknowledged"), "{ran:?}");
    }
    let frames = bench.run("dump", &["--frames", "--from", "299", "--format", "json"]).stdout;
    assert!(frames.lines().any(|line| line.contains("\"offset\":299")), "{frames}");
}

#[test]
fn frames_are_shown_with_and_without_a_manifest() {
    let bench = Bench::closed(300);
    let (_, position) = bench.flip_record(42);
    let ran = bench.run("dump", &["--frames"]);
    assert_eq!(ran.code, 0);
    assert!(ran.stdout.contains(&format!("{position:>12}  broken")), "{}", ran.stdout);
    assert!(ran.stdout.contains("the frame's checksum does not hold"), "{}", ran.stdout);
    let records = |text: &str| {
        text.lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
            .filter(|frame| frame["kind"] == "record" || frame["kind"] == "more")
            .count()
    };
    let json = bench.run("dump", &["--frames", "--format", "json"]).stdout;
    assert_eq!(records(&json), 299);
    fs::remove_file(bench.path("MANIFEST")).unwrap();
    let ran = bench.run("dump", &["--frames", "--format", "json"]);
    assert_eq!((ran.code, records(&ran.stdout)), (0, 299));
    assert!(ran.stderr.contains("no whole MANIFEST"), "{ran:?}");
    let few = bench.run("dump", &["--frames", "--format", "json", "--limit", "3"]).stdout;
    assert_eq!(few.lines().count(), 3);
    // Segments without a manifest are damage, not "no log here".
    assert_eq!(bench.run("dump", &[]).code, 4);
    assert_eq!(bench.run("dump", &["--frames", "--format", "hex"]).code, 16);
}

#[test]
fn dump_works_beside_a_writer() {
    let bench = Bench::empty();
    let log = bench.open();
    for offset in 0..50 {
        log.append(payload(offset)).unwrap();
    }
    let ran = bench.run("dump", &[]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(text_lines(0..50).starts_with(&ran.stdout), "{ran:?}");
    log.close().unwrap();
}

#[test]
fn a_closed_pipe_ends_it_quietly() {
    let bench = Bench::empty();
    let log = Options::new().durability(stonelog::Durability::Manual).open(&bench.directory).unwrap();
    for offset in 0..20_000 {
        log.append(payload(offset)).unwrap();
    }
    log.close().unwrap();
    for more in [&[][..], &["--format", "raw"], &["--frames"]] {
        let path = bench.directory.to_str().unwrap();
        let mut child = command(&[&["dump", path], more].concat())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut some = [0; 100];
        child.stdout.take().unwrap().read_exact(&mut some).unwrap();
        let ended = child.wait_with_output().unwrap();
        assert_eq!(ended.status.code(), Some(0), "{ended:?}");
        assert!(ended.stderr.is_empty(), "{ended:?}");
    }
    let _ = options();
}
