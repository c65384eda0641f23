//! `log-repair check`: what it finds, where it says it is, and how it ends.
#![allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::cast_possible_truncation,
    reason = "tests break real files, behind the library's back"
)]

mod support;

use std::fs;

use stonelog::{DamagePolicy, Options};
use support::{Bench, codes, finding, flip, options, payload, run};

fn span(start: u64, end: u64) -> serde_json::Value {
    serde_json::json!({ "start": start, "end": end })
}

#[test]
fn a_healthy_log_is_clean() {
    let bench = Bench::closed(300);
    assert!(bench.stores().len() > 3, "the log should span segments");
    let ran = bench.check();
    assert_eq!((ran.code, ran.first_line()), (0, "clean"), "{ran:?}");
    assert!(ran.stdout.contains("300 intact records"), "{ran:?}");
    let (_, check) = bench.check_json();
    assert_eq!(codes(&check), Vec::<String>::new(), "{check:#}");
    assert_eq!(check["summary"]["records_intact"], 300);
    assert_eq!(check["next_opening"], "opens");
    assert_eq!(bench.run("check", &["--quiet"]).stdout, "");
}

#[test]
fn a_log_after_truncations_is_clean() {
    let bench = Bench::closed(300);
    let log = bench.open();
    log.truncate_front(77).unwrap();
    log.truncate_back(211).unwrap();
    for offset in 211..260 {
        log.append(payload(offset)).unwrap();
    }
    log.close().unwrap();
    let (code, check) = bench.check_json();
    assert_eq!(code, 0);
    assert_eq!(codes(&check), Vec::<String>::new(), "{check:#}");
    assert_eq!(check["summary"]["records_intact"], 260 - 77);
}

#[test]
fn an_empty_log_and_an_unfinished_beginning_are_no_damage() {
    let bench = Bench::empty();
    bench.open().close().unwrap();
    let ran = bench.check();
    assert_eq!((ran.code, ran.first_line()), (0, "clean"), "{ran:?}");
    fs::remove_file(bench.path("MANIFEST")).unwrap();
    for store in bench.stores() {
        fs::remove_file(store).unwrap();
    }
    let (code, check) = bench.check_json();
    assert_eq!((code, &check["verdict"]), (0, &"empty".into()), "{check:#}");
}

#[test]
fn a_flipped_byte_in_a_sealed_segment_is_named() {
    let bench = Bench::closed(300);
    let (store, position) = bench.flip_record(42);
    let ran = bench.check();
    assert_eq!((ran.code, ran.first_line()), (4, "DAMAGED: 1 record cannot be read (offset 42)"), "{ran:?}");
    let (code, check) = bench.check_json();
    assert_eq!(code, 4);
    assert_eq!(codes(&check), ["E-FRAME-CRC"], "{check:#}");
    let found = finding(&check, "E-FRAME-CRC");
    assert_eq!(found["offsets"], span(42, 43));
    assert_eq!(found["file"], store.to_str().unwrap());
    assert_eq!(found["position"], position);
    assert_eq!(found["position_end"], position + (16 + payload(42).len() as u64).next_multiple_of(8));
    assert!(found["proof"].as_str().unwrap().contains("Seal"), "{found:#}");
    assert!(found["next"].as_str().unwrap().contains("log-repair plan"), "{found:#}");
    // The library, asked for that record, says the same.
    let log = Options::new().on_damage(DamagePolicy::Serve).open_read_only(&bench.directory).unwrap();
    assert!(log.read(42).is_err());
    assert_eq!(*log.read(43).unwrap(), payload(43)[..]);
}

/// How sure each finding is stands in it, and why: damage below a Seal is certain, a tear never is, and what a
/// store says without a manifest is worth less.
#[test]
fn every_finding_says_how_sure_it_is() {
    let bench = Bench::closed(300);
    let (store, _) = bench.flip_record(42);
    let ran = bench.check();
    assert!(
        ran.stdout.contains("  sure   certain: it lies below an end that surviving evidence proves"),
        "{ran:?}"
    );
    let sure = |check: &serde_json::Value, code: &str| {
        let found = finding(check, code);
        assert!(!found["because"].as_str().unwrap().is_empty(), "{found:#}");
        found["sure"].as_str().unwrap().to_string()
    };
    assert_eq!(sure(&bench.check_json().1, "E-FRAME-CRC"), "certain");
    fs::remove_file(bench.path("MANIFEST")).unwrap();
    let (_, check) = bench.check_json();
    assert_eq!(sure(&check, "E-MANIFEST-MISSING"), "certain");
    let found = finding(&check, "E-FRAME-CRC");
    assert_eq!((&found["file"], &found["sure"]), (&store.to_str().unwrap().into(), &"likely".into()));

    let killed = Bench::killed(300);
    let last = killed.stores().into_iter().rfind(|store| fs::metadata(store).unwrap().len() > 1024).unwrap();
    let mut bytes = fs::read(&last).unwrap();
    bytes.extend([0x5a; 24]);
    fs::write(&last, bytes).unwrap();
    assert_eq!(sure(&killed.check_json().1, "W-TAIL-TORN"), "likely");
}

#[test]
fn a_flipped_byte_in_the_active_segment_is_named_after_a_clean_close() {
    let bench = Bench::closed(300);
    let stores = bench.stores();
    let (store, position) = bench.flip_record(295);
    assert!(stores.iter().rev().take(2).any(|last| *last == store), "295 should be in the active store");
    let (code, check) = bench.check_json();
    assert_eq!(code, 4);
    assert_eq!(codes(&check), ["E-FRAME-CRC"], "{check:#}");
    let found = finding(&check, "E-FRAME-CRC");
    assert_eq!((&found["offsets"], &found["position"]), (&span(295, 296), &position.into()));
    assert!(found["proof"].as_str().unwrap().contains("the Close proves 300 durable"), "{found:#}");
    assert_eq!(check["summary"]["records_intact"], 299);
}

#[test]
fn a_flipped_byte_in_the_active_segment_is_named_after_a_kill() {
    let bench = Bench::killed(300);
    let (_, position) = bench.flip_record(290);
    let (code, check) = bench.check_json();
    assert_eq!(code, 4);
    let found = finding(&check, "E-FRAME-CRC");
    assert_eq!((&found["offsets"], &found["position"]), (&span(290, 291), &position.into()));
    assert_eq!(check["next_opening"], "serve-only");
}

#[test]
fn it_never_stops_at_the_first_finding() {
    let bench = Bench::closed(300);
    let mut positions = Vec::new();
    for offset in [10, 12, 130, 299] {
        positions.push(bench.flip_record(offset).1);
    }
    // A header as well: the length of record 200 goes wild.
    let (store, at) = bench.find(200);
    flip(&store, at - 16 + 6);
    let (code, check) = bench.check_json();
    assert_eq!(code, 4);
    let spans: Vec<_> = [10u64, 12, 130, 200, 299].iter().map(|offset| span(*offset, offset + 1)).collect();
    assert_eq!(check["unreadable"], serde_json::Value::from(spans), "{check:#}");
    assert_eq!(check["summary"]["damages"], 5, "{check:#}");
    assert_eq!(
        bench.check().first_line(),
        "DAMAGED: 5 records cannot be read (offsets 10, 12, 130, 200, 299)"
    );
    let crc = codes(&check).iter().filter(|code| *code == "E-FRAME-CRC").count();
    assert!(crc >= 4, "gaps behind the first of a store have a code of their own: {check:#}");
}

#[test]
fn a_missing_store_is_named_with_its_records() {
    let bench = Bench::closed(300);
    let (store, _) = bench.find(42);
    fs::remove_file(&store).unwrap();
    let (code, check) = bench.check_json();
    assert_eq!(code, 4);
    let found = finding(&check, "E-SEG-MISSING");
    assert_eq!(found["file"], store.to_str().unwrap());
    let (start, end) =
        (found["offsets"]["start"].as_u64().unwrap(), found["offsets"]["end"].as_u64().unwrap());
    assert!((start..end).contains(&42), "{found:#}");
    assert_eq!(check["summary"]["records_intact"], 300 - (end - start));
}

#[test]
fn a_missing_active_store_is_named_with_its_records() {
    let bench = Bench::closed(300);
    let (store, _) = bench.find(299);
    fs::remove_file(&store).unwrap();
    let (code, check) = bench.check_json();
    assert_eq!(code, 4);
    assert_eq!(codes(&check), ["E-SEG-MISSING"], "{check:#}");
    let found = finding(&check, "E-SEG-MISSING");
    assert_eq!(found["file"], store.to_str().unwrap());
    assert_eq!(found["offsets"]["end"], 300, "{check:#}");
}

#[test]
fn a_store_of_which_nothing_is_left_is_never_called_readable() {
    let bench = Bench::killed(300);
    let (store, _) = bench.find(299);
    let other = fs::read(&bench.stores()[0]).unwrap();
    fs::write(&store, other).unwrap();
    let ran = bench.check();
    assert_eq!(ran.code, 4, "{ran:?}");
    assert!(!ran.first_line().contains("every record can be read"), "{ran:?}");
    fs::remove_file(&store).unwrap();
    let ran = bench.check();
    assert_eq!(ran.code, 4, "{ran:?}");
    assert!(!ran.first_line().contains("every record can be read"), "{ran:?}");
}

#[test]
fn a_short_store_is_told_once_with_what_it_lost() {
    let bench = Bench::closed(300);
    let (store, at) = bench.find(60);
    let bytes = fs::read(&store).unwrap();
    fs::write(&store, &bytes[..at as usize - 16]).unwrap();
    let (code, check) = bench.check_json();
    assert_eq!(code, 4);
    assert_eq!(codes(&check), ["E-SEG-SHORT"], "{check:#}");
    assert_eq!(finding(&check, "E-SEG-SHORT")["offsets"]["start"], 60);
}

#[test]
fn lost_sectors_of_a_store_are_damage() {
    let bench = Bench::closed(300);
    let (store, _) = bench.find(42);
    flip(&store, 9);
    let (code, check) = bench.check_json();
    assert_eq!((code, codes(&check)), (4, vec!["E-HEAD".to_string()]), "{check:#}");
    flip(&store, 9);
    flip(&store, 515);
    let (code, check) = bench.check_json();
    assert_eq!((code, codes(&check)), (4, vec!["E-BASE".to_string()]), "{check:#}");
    let ran = bench.check();
    assert_eq!(ran.first_line(), "DAMAGED: not what was written, though every record can be read");
}

#[test]
fn zeros_and_strangers_have_codes_of_their_own() {
    let bench = Bench::closed(300);
    let (store, at) = bench.find(42);
    let mut bytes = fs::read(&store).unwrap();
    let frame = at as usize - 16;
    let end = frame + (16 + payload(42).len()).next_multiple_of(8);
    bytes[frame..end].fill(0);
    fs::write(&store, &bytes).unwrap();
    let (_, check) = bench.check_json();
    assert_eq!(codes(&check), ["E-FRAME-ZEROS"], "{check:#}");
    assert_eq!(finding(&check, "E-FRAME-ZEROS")["offsets"], span(42, 43));
}

#[test]
fn a_torn_tail_needs_nothing() {
    let bench = Bench::killed(300);
    let before = bench.check();
    assert_eq!(before.code, 0, "{before:?}");
    // Half a frame behind the last record.
    let (store, _) = bench.find(299);
    let mut bytes = fs::read(&store).unwrap();
    let frames = bench.run("dump", &["--frames", "--from", "299", "--format", "json"]).stdout;
    let last: serde_json::Value = serde_json::from_str(frames.lines().last().unwrap()).unwrap();
    let end = last["position_end"].as_u64().unwrap() as usize;
    assert!(bytes[end..].iter().all(|byte| *byte == 0));
    let torn = b"\x99\x12\x34\x56\x40\x00\x00\x10\x21\x00\x00";
    bytes.resize(bytes.len().max(end + 64), 0);
    bytes[end..end + torn.len()].copy_from_slice(torn);
    fs::write(&store, bytes).unwrap();
    let ran = bench.check();
    assert_eq!((ran.code, ran.first_line()), (0, "torn tail: nothing acknowledged is missing"), "{ran:?}");
    let (_, check) = bench.check_json();
    assert_eq!(codes(&check), ["W-TAIL-TORN", "N-UNCLEAN"], "{check:#}");
    let found = finding(&check, "W-TAIL-TORN");
    assert_eq!((&found["position"], &found["file"]), (&end.into(), &store.to_str().unwrap().into()));
    assert_eq!(found["severity"], "warning");
    // What it says the next opening does is what the next opening does.
    let log = bench.open();
    assert_eq!(log.offsets(), 0..300);
    log.close().unwrap();
    assert_eq!(bench.check().code, 0);
}

#[test]
fn a_log_after_a_recovery_is_clean() {
    let bench = Bench::killed(300);
    let log = bench.open();
    log.append(b"more").unwrap();
    log.close().unwrap();
    let ran = bench.check();
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.first_line().starts_with("clean"), "{ran:?}");
}

#[test]
fn a_wrong_or_missing_index_is_a_warning() {
    let bench = Bench::closed(300);
    let (store, _) = bench.find(42);
    let index = store.with_extension("index");
    flip(&index, 70);
    let (code, check) = bench.check_json();
    assert_eq!((code, codes(&check)), (0, vec!["W-INDEX".to_string()]), "{check:#}");
    assert_eq!(bench.check().first_line(), "clean, with 1 warning");
    fs::remove_file(&index).unwrap();
    let (code, check) = bench.check_json();
    assert_eq!((code, codes(&check)), (0, vec!["W-INDEX-MISSING".to_string()]), "{check:#}");
}

#[test]
fn a_damaged_or_missing_manifest_is_damage_and_the_stores_are_looked_at_all_the_same() {
    let bench = Bench::closed(300);
    let manifest = bench.path("MANIFEST");
    flip(&manifest, 20);
    let (code, check) = bench.check_json();
    assert_eq!(code, 4);
    assert_eq!(codes(&check), ["E-MANIFEST"], "{check:#}");
    assert_eq!(check["summary"]["records_intact"], 300, "{check:#}");
    assert!(bench.check().first_line().starts_with("DAMAGED: without its MANIFEST"));
    fs::remove_file(&manifest).unwrap();
    bench.flip_record(42);
    let (code, check) = bench.check_json();
    assert_eq!(code, 4);
    assert_eq!(codes(&check), ["E-MANIFEST-MISSING", "E-FRAME-CRC"], "{check:#}");
    assert_eq!(finding(&check, "E-FRAME-CRC")["offsets"], span(42, 43));
}

#[test]
fn indexes_without_manifest_and_stores_say_that_a_log_was_here() {
    let bench = Bench::closed(300);
    for store in bench.stores() {
        fs::remove_file(store).unwrap();
    }
    fs::remove_file(bench.path("MANIFEST")).unwrap();
    let (code, check) = bench.check_json();
    assert_eq!((code, codes(&check)), (4, vec!["E-MANIFEST-MISSING".to_string()]), "{check:#}");
}

#[test]
fn an_edit_that_is_missing_from_the_manifest_is_found() {
    let bench = Bench::closed(300);
    // A store of this log above every id that the manifest names, with frames in it.
    let donor = Bench::closed(300);
    let log = donor.open();
    log.close().unwrap();
    let (store, _) = bench.find(42);
    let bytes = fs::read(&store).unwrap();
    // Frames verify only under their own id, so a store written for a high id is needed: the log's
    // own last one, with an older manifest beside it.
    let old = fs::read(bench.path("MANIFEST")).unwrap();
    let log = bench.open();
    for offset in 300..600 {
        log.append(payload(offset)).unwrap();
    }
    log.close().unwrap();
    fs::write(bench.path("MANIFEST"), old).unwrap();
    assert_eq!(fs::read(&store).unwrap(), bytes, "a sealed store never changes");
    let (code, check) = bench.check_json();
    assert_eq!(code, 4);
    finding(&check, "E-MANIFEST-EDIT");
    assert_eq!(check["next_opening"], "refuses");
}

#[test]
fn bytes_behind_a_clean_end_are_told() {
    let bench = Bench::closed(300);
    let (store, at) = bench.find(299);
    let mut bytes = fs::read(&store).unwrap();
    let end = at as usize + payload(299).len() + 64;
    bytes.resize(bytes.len().max(end + 8), 0);
    bytes[end] = 7;
    fs::write(&store, bytes).unwrap();
    let (code, check) = bench.check_json();
    assert_eq!((code, codes(&check)), (0, vec!["W-TAIL-STRAY".to_string()]), "{check:#}");
}

#[test]
fn what_serving_declared_damaged_stays_told() {
    let bench = Bench::killed(300);
    bench.flip_record(290);
    let log = options().on_damage(DamagePolicy::Serve).open(&bench.directory).unwrap();
    assert!(log.read(290).is_err());
    log.close().unwrap();
    let (code, check) = bench.check_json();
    assert_eq!(code, 4, "{check:#}");
    assert_eq!(check["unreadable"], serde_json::json!([span(290, 291)]), "{check:#}");
}

#[test]
fn a_log_in_use_is_checked_all_the_same() {
    let bench = Bench::empty();
    let log = bench.open();
    for offset in 0..200 {
        log.append(payload(offset)).unwrap();
    }
    let (code, check) = bench.check_json();
    assert_eq!(code, 0, "{check:#}");
    if cfg!(target_os = "linux") {
        assert_eq!(check["advisory"], true, "{check:#}");
        assert_eq!(check["in_use_by"]["pid"], std::process::id(), "{check:#}");
        assert_eq!(codes(&check), ["N-IN-USE"], "{check:#}");
    }
    // And it is in nobody's way.
    log.append(b"on and on").unwrap();
    log.close().unwrap();
    assert_eq!(bench.check_json().1["advisory"], false);
}

#[test]
fn a_busy_log_is_never_called_damaged() {
    let bench = Bench::empty();
    let log = bench.open();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut offset = 0;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                log.append(payload(offset)).unwrap();
                offset += 1;
                if offset % 500 == 0 {
                    log.truncate_front(offset - 100).unwrap();
                }
                if offset % 700 == 0 {
                    offset -= 30;
                    log.truncate_back(offset).unwrap();
                }
            }
        });
        let checks: Vec<_> = (0..25).map(|_| bench.run("check", &["--json"])).collect();
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        for ran in checks {
            assert_eq!(ran.code, 0, "{}{}", ran.stdout, ran.stderr);
        }
    });
    log.close().unwrap();
    assert_eq!(bench.check().code, 0);
}

/// A store whose Create was written since the MANIFEST was read, and that got frames since, looks like the proof of a
/// lost edit; two looks at two such stores counted as one that held still.
#[test]
fn a_log_that_rolls_fast_is_never_called_damaged() {
    let bench = Bench::empty();
    let options =
        Options::new().segment_bytes(stonelog::MIN_SEGMENT_BYTES).durability(stonelog::Durability::Manual);
    let log = options.open(&bench.directory).unwrap();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                let offset = log.append([7; 2000]).unwrap();
                if offset % 1000 == 999 {
                    log.truncate_front(offset.saturating_sub(2000)).unwrap();
                }
            }
        });
        let checks: Vec<_> = (0..40).map(|_| bench.run("check", &["--json"])).collect();
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        let wrong: Vec<_> = checks.iter().filter(|ran| ran.code != 0).collect();
        for ran in &wrong {
            println!("{} {} {}", ran.code, ran.stdout, ran.stderr);
        }
        assert!(wrong.is_empty(), "{} of {} checks", wrong.len(), checks.len());
    });
    log.close().unwrap();
}

/// Damage holds still, however the log around it moves.
#[test]
fn damage_in_a_busy_log_is_found() {
    let bench = Bench::closed(400);
    bench.flip_record(30);
    let log = bench.open();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                log.append(b"on and on").unwrap();
            }
        });
        let checks: Vec<_> = (0..5).map(|_| bench.run("check", &["--json"])).collect();
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        for ran in checks {
            assert_eq!(ran.code, 4, "{}{}", ran.stdout, ran.stderr);
            let check: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
            assert_eq!(check["unreadable"][0], span(30, 31), "{check:#}");
        }
    });
}

#[test]
fn exit_codes_are_those_of_fsck() {
    let bench = Bench::closed(10);
    assert_eq!(run(&["check", "/nonexistent-stonelog"]).code, 8);
    assert_eq!(run(&["check", bench.directory.parent().unwrap().to_str().unwrap()]).code, 8);
    assert_eq!(run(&["check", bench.path("MANIFEST").to_str().unwrap()]).code, 8);
    assert_eq!(run(&["check"]).code, 16);
    assert_eq!(run(&["chekc", "x"]).code, 16);
    assert_eq!(run(&[]).code, 16);
    let help = run(&["--help"]);
    assert_eq!(help.code, 0);
    assert!(help.stdout.contains("16  usage error"), "{help:?}");
    assert_eq!(run(&["--version"]).code, 0);
    let help = run(&["check", "--help"]);
    assert!(help.code == 0 && help.stdout.contains("W-TAIL-TORN"), "{help:?}");
    for verb in ["check", "stat", "dump"] {
        let ran = run(&[verb, "/nonexistent-stonelog"]);
        assert!(ran.code == 8 && ran.stderr.starts_with("log-repair: ") && ran.stdout.is_empty(), "{ran:?}");
    }
}

#[test]
fn a_later_format_is_an_operational_error() {
    let bench = Bench::closed(10);
    let path = bench.path("MANIFEST");
    let mut bytes = fs::read(&path).unwrap();
    bytes[8] = 9;
    let checksum = crc32(&bytes[..48]);
    bytes[48..52].copy_from_slice(&checksum.to_le_bytes());
    fs::write(&path, bytes).unwrap();
    let ran = bench.check();
    assert!(ran.code == 8 && ran.stderr.contains("format version 9"), "{ran:?}");
}

/// CRC-32, bit by bit: the tests forge with it.
fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = !0u32;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg());
        }
    }
    !crc
}

#[test]
fn colour_is_only_for_terminals_and_those_who_ask() {
    let bench = Bench::closed(10);
    assert!(!bench.check().stdout.contains('\u{1b}'));
    assert!(bench.run("check", &["--color", "always"]).stdout.contains('\u{1b}'));
}
