//! `dump --follow`: every record once and in order, beside the program that writes them.
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
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStdout, Stdio};

use support::{Bench, command, payload};

fn follow(bench: &Bench, arguments: &[&str]) -> (Child, BufReader<ChildStdout>) {
    let directory = bench.directory.to_str().unwrap();
    let mut child = command(&[&["dump", directory, "--follow"], arguments].concat())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let stdout = BufReader::new(child.stdout.take().unwrap());
    (child, stdout)
}

fn line(offset: u64) -> String {
    format!("{offset}\t{}", String::from_utf8(payload(offset)).unwrap())
}

/// Over rolls, seals, a close and a new opening; each record when it is durable, before the next is written.
#[test]
fn each_record_is_shown_while_the_log_is_written() {
    let bench = Bench::closed(20);
    let (mut child, stdout) = follow(&bench, &["--from", "5", "--limit", "395"]);
    let mut lines = stdout.lines();
    let mut next = || lines.next().unwrap().unwrap();
    for offset in 5..20 {
        assert_eq!(next(), line(offset));
    }
    let mut log = bench.open();
    for offset in 20..400 {
        log.append(payload(offset)).unwrap();
        if offset % 130 == 0 {
            log.close().unwrap();
            log = bench.open();
        }
        // In steps, so that it sees the log at rest and in motion.
        if offset % 40 == 39 {
            for shown in offset - 39..=offset {
                if shown >= 20 {
                    assert_eq!(next(), line(shown));
                }
            }
        }
    }
    assert_eq!(lines.next().map(Result::unwrap), None, "it ends after --limit records");
    assert_eq!(child.wait().unwrap().code(), Some(0));
    log.close().unwrap();
}

#[test]
fn it_ends_at_the_offset_to_stop_before_and_goes_back_with_the_log() {
    let bench = Bench::closed(30);
    let (mut child, stdout) = follow(&bench, &["--to", "32", "--format", "json"]);
    let mut lines = stdout.lines();
    let mut next = || serde_json::from_str::<serde_json::Value>(&lines.next().unwrap().unwrap()).unwrap();
    for offset in 0..30 {
        assert_eq!(next()["offset"], offset);
    }
    let log = bench.open();
    log.truncate_back(28).unwrap();
    // It looks now and then: what stands there when it looks is what it shows.
    let mut message = String::new();
    let mut errors = BufReader::new(child.stderr.take().unwrap());
    errors.read_line(&mut message).unwrap();
    assert!(message.contains("cut back to offset 28"), "{message}");
    for offset in 28..32 {
        log.append(format!("again {offset}")).unwrap();
    }
    for offset in 28..32 {
        let record = next();
        assert_eq!((&record["offset"], &record["text"]), (&offset.into(), &format!("again {offset}").into()));
    }
    assert_eq!(lines.next().map(Result::unwrap), None);
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn raw_and_damage_are_followed_too_and_frames_are_not() {
    let bench = Bench::closed(30);
    let (store, position) = bench.flip_record(7);
    let (mut child, mut stdout) = follow(&bench, &["--limit", "30", "--format", "raw"]);
    let record = |stdout: &mut BufReader<ChildStdout>| {
        let mut length = [0; 4];
        stdout.read_exact(&mut length).unwrap();
        let mut bytes = vec![0; u32::from_le_bytes(length) as usize];
        stdout.read_exact(&mut bytes).unwrap();
        bytes
    };
    for offset in (0..30).filter(|offset| *offset != 7) {
        assert_eq!(record(&mut stdout), payload(offset));
    }
    let log = bench.open();
    log.append(payload(30)).unwrap();
    assert_eq!(record(&mut stdout), payload(30));
    let mut rest = Vec::new();
    stdout.read_to_end(&mut rest).unwrap();
    assert!(rest.is_empty());
    let mut errors = String::new();
    child.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(4), "{}, byte {position}: {errors}", store.display());
    assert!(errors.contains("record 7: damaged"), "{errors}");
    assert_eq!(bench.run("dump", &["--follow", "--frames"]).code, 16);
    // Nothing there to follow is an error at once, not a wait.
    fs::remove_file(bench.path("MANIFEST")).unwrap();
    assert_eq!(bench.run("dump", &["--follow"]).code, 4);
}
