//! `log-repair salvage`: whatever is broken, every intact record comes out, byte for byte, at its own offset
//! wherever that can be known; what does not is named; the source stays as it was.
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
    reason = "tests: a failed expectation is how they speak, and they break real files"
)]

#[allow(unused, reason = "shared with the other tests")]
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use stonelog::frame::{HEADER_BYTES, Seed};
use stonelog::scan::{Extent, Frame, scan};
use stonelog::store::Head;
use stonelog::{DamagePolicy, Error, Log, LogBuilder, Options, names};
use support::{Bench, payload, picture};

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden");

/// A salvage that was run.
struct Salvaged {
    _home: tempfile::TempDir,
    code: i32,
    report: Value,
    directory: PathBuf,
}

/// Runs `salvage SRC ...`, as JSON and as text, and checks that the source is as it was.
fn salvage(source: &Path, arguments: &[&str]) -> Salvaged {
    let home = tempfile::tempdir().unwrap();
    let before = picture_of(source);
    let run = |out: &Path, more: &[&str]| {
        let always = ["salvage", source.to_str().unwrap(), "--out", out.to_str().unwrap()];
        support::run(&[&always, arguments, more].concat())
    };
    let directory = home.path().join("new/log");
    let ran = run(&directory, &["--json"]);
    let text = run(&home.path().join("text"), &[]);
    assert_eq!(ran.code, text.code, "{}{}{}", ran.stderr, text.stdout, text.stderr);
    assert_eq!(picture_of(source), before, "the source was changed");
    let report = serde_json::from_str(&ran.stdout).unwrap_or(Value::Null);
    if ran.code == 8 {
        assert!(!ran.stderr.is_empty());
    } else {
        assert_eq!(report["exit_code"], ran.code);
        assert!(text.stdout.contains("is as it was"), "{}", text.stdout);
    }
    Salvaged { _home: home, code: ran.code, report, directory }
}

fn picture_of(path: &Path) -> Value {
    if path.is_dir() { format!("{:?}", picture(path)).into() } else { fs::read(path).unwrap().into() }
}

impl Salvaged {
    /// The records of the new log, which must be healthy.
    fn records(&self) -> BTreeMap<u64, Vec<u8>> {
        records_of(&self.directory)
    }

    fn unplaced(&self) -> BTreeMap<u64, Vec<u8>> {
        let directory = self.directory.with_file_name("log-unplaced");
        if self.report["unplaced"].is_null() {
            assert!(!directory.exists());
            return BTreeMap::new();
        }
        // The list says where each of them was.
        let list = fs::read_to_string(self.directory.with_file_name("log-unplaced.jsonl")).unwrap();
        let mut next = 0;
        for line in list.lines() {
            let run: Value = serde_json::from_str(line).unwrap();
            assert_eq!(run["offsets"]["start"], next);
            next = run["offsets"]["end"].as_u64().unwrap();
            let ordinals = |end: &str| run["ordinals"][end].as_u64().unwrap();
            assert!(ordinals("end") - ordinals("start") >= next - run["offsets"]["start"].as_u64().unwrap());
        }
        let records = records_of(&directory);
        assert_eq!(records.len() as u64, next);
        records
    }

    fn missing(&self) -> Vec<(u64, u64)> {
        let spans = self.report["missing"].as_array().unwrap();
        spans.iter().map(|span| (span["start"].as_u64().unwrap(), span["end"].as_u64().unwrap())).collect()
    }

    /// Every record of `wanted` is in the new log, and nothing else; the rest of the offsets is lost, and named.
    fn holds_exactly(&self, wanted: impl IntoIterator<Item = u64>) {
        let records = self.records();
        let wanted: BTreeSet<u64> = wanted.into_iter().collect();
        let found: BTreeSet<u64> = records.keys().copied().collect();
        assert!(
            found == wanted,
            "missing {:?}, strange {:?}\n{:#}",
            wanted.difference(&found).collect::<Vec<_>>(),
            found.difference(&wanted).collect::<Vec<_>>(),
            self.report
        );
        for (offset, bytes) in &records {
            assert_eq!(*bytes, payload(*offset), "record {offset}");
        }
    }
}

/// All records of a log that must be healthy: it opens by default, and the check says that it is clean.
fn records_of(directory: &Path) -> BTreeMap<u64, Vec<u8>> {
    let checked = support::run(&["check", directory.to_str().unwrap(), "--json"]);
    let report: Value = serde_json::from_str(&checked.stdout).unwrap();
    assert_eq!((checked.code, &report["verdict"]), (0, &"clean".into()), "{report:#}");
    let codes = support::codes(&report);
    assert!(codes.iter().all(|code| code == "N-LOST"), "{codes:?}");
    let log = Options::new().open_read_only(directory).unwrap();
    let mut records = BTreeMap::new();
    for record in log.records(..) {
        match record {
            Ok(record) => drop(records.insert(record.offset(), record.to_vec())),
            Err(Error::Lost { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
    records
}

fn zero(path: &Path, range: std::ops::Range<usize>) {
    let mut bytes = fs::read(path).unwrap();
    let end = range.end.min(bytes.len());
    bytes[range.start..end].fill(0);
    fs::write(path, bytes).unwrap();
}

fn remove(bench: &Bench, extension: &str) {
    for entry in fs::read_dir(&bench.directory).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|found| found == extension) {
            fs::remove_file(path).unwrap();
        }
    }
}

// ---- directories -------------------------------------------------------------------------------

#[test]
fn a_whole_log_comes_out_whole() {
    for bench in [Bench::closed(300), Bench::killed(300)] {
        let salvaged = salvage(&bench.directory, &[]);
        assert_eq!(salvaged.code, 0, "{:#}", salvaged.report);
        salvaged.holds_exactly(0..300);
        assert_eq!(salvaged.report["manifest"], "whole");
    }
}

#[test]
fn what_only_the_manifest_knows_is_kept_with_it_and_named_without() {
    let bench = Bench::empty();
    let log = Options::new().segment_bytes(4096).first_offset(5).open(&bench.directory).unwrap();
    for offset in 5..200 {
        assert_eq!(log.append(payload(offset)).unwrap(), offset);
    }
    log.put_meta("vote", b"seven").unwrap();
    log.truncate_front(60).unwrap();
    log.close().unwrap();
    let salvaged = salvage(&bench.directory, &[]);
    assert_eq!(salvaged.code, 0);
    salvaged.holds_exactly(60..200);
    let new = Options::new().first_offset(5).open(&salvaged.directory).unwrap();
    assert_eq!(new.offsets(), 60..200);
    assert_eq!(new.meta("vote").unwrap().unwrap(), b"seven");
    assert_eq!(new.append(payload(200)).unwrap(), 200);

    fs::remove_file(bench.path("MANIFEST")).unwrap();
    let salvaged = salvage(&bench.directory, &[]);
    assert_eq!(salvaged.code, 4);
    assert!(salvaged.report["unknown"][0].as_str().unwrap().contains("metadata"));
    let records = salvaged.records();
    // The front lay inside a segment: what is intact before it in there comes again, and is said.
    assert!(*records.keys().next().unwrap() <= 60 && *records.keys().last().unwrap() == 199);
    assert!(records.iter().all(|(offset, bytes)| *bytes == payload(*offset)));
}

#[test]
fn without_manifest_indexes_heads_or_bases() {
    for without in 0..16 {
        for bench in [Bench::closed(300), Bench::killed(300)] {
            if without & 1 != 0 {
                fs::remove_file(bench.path("MANIFEST")).unwrap();
            }
            if without & 2 != 0 {
                remove(&bench, "index");
            }
            for store in bench.stores() {
                if without & 4 != 0 {
                    zero(&store, 0..512);
                }
                // (With every base gone and no manifest nothing tells an offset: that is the next test.)
                if without & 8 != 0 && (without & 1 == 0 || store != bench.stores()[0]) {
                    zero(&store, 512..1024);
                }
            }
            // Bases alone tell offsets where there is no manifest; behind the last one it takes a guess.
            let guess: &[&str] = if without & 9 == 9 { &["--infer-bases"] } else { &[] };
            if without & 9 == 9 {
                let careful = salvage(&bench.directory, &[]);
                assert_eq!(careful.records().len() + careful.unplaced().len(), 300);
                assert!(careful.report["unknown"].to_string().contains("--infer-bases"));
            }
            let salvaged = salvage(&bench.directory, guess);
            println!("without {without:04b}: exit {}", salvaged.code);
            salvaged.holds_exactly(0..300);
            assert!(salvaged.missing().is_empty() && salvaged.report["unplaced"].is_null());
            assert_eq!(salvaged.code, if without & 1 != 0 { 4 } else { 0 });
        }
    }
}

/// Between two bases that are known the others follow, if nothing is missing; if anything is, they do not.
#[test]
fn bases_between_two_others_are_proven() {
    for broken in [None, Some(1), Some(2), Some(3)] {
        let bench = Bench::closed(300);
        fs::remove_file(bench.path("MANIFEST")).unwrap();
        let stores = bench.stores();
        assert!(stores.len() >= 5);
        for store in &stores[1..4] {
            zero(store, 512..1024);
        }
        if let Some(broken) = broken {
            // The last record of a store is zeros, as if it had never been written.
            let last =
                frames(&fs::read(&stores[broken]).unwrap()).into_iter().rfind(|f| f.header.kind.is_record());
            zero(&stores[broken], last.unwrap().position as usize..4096);
        }
        let salvaged = salvage(&bench.directory, &[]);
        match broken {
            None => salvaged.holds_exactly(0..300),
            Some(_) => {
                let (records, unplaced) = (salvaged.records(), salvaged.unplaced());
                assert_eq!(records.len() + unplaced.len(), 299);
                assert!(!unplaced.is_empty());
                assert!(records.iter().all(|(offset, bytes)| *bytes == payload(*offset)));
            }
        }
    }
}

#[test]
fn without_anything_that_tells_an_offset_records_are_unplaced() {
    let bench = Bench::closed(300);
    fs::remove_file(bench.path("MANIFEST")).unwrap();
    for store in bench.stores() {
        zero(&store, 0..1024);
    }
    let salvaged = salvage(&bench.directory, &[]);
    assert_eq!(salvaged.code, 4);
    assert!(salvaged.report["log"].is_null() && !salvaged.directory.exists());
    let unplaced = salvaged.unplaced();
    assert_eq!(unplaced.into_values().collect::<Vec<_>>(), (0..300).map(payload).collect::<Vec<_>>());
}

#[test]
fn truncations_back_stay_done_unless_asked() {
    let bench = Bench::closed(200);
    let log = bench.open();
    log.truncate_back(150).unwrap();
    for number in 0..5 {
        assert_eq!(log.append(format!("anew {number}")).unwrap(), 150 + number);
    }
    log.close().unwrap();
    let anew = |offset: u64| format!("anew {}", offset - 150).into_bytes();
    for manifest in [true, false] {
        if !manifest {
            fs::remove_file(bench.path("MANIFEST")).unwrap();
        }
        let salvaged = salvage(&bench.directory, &[]);
        let records = salvaged.records();
        assert_eq!(records.len(), 155, "{:#}", salvaged.report);
        for (offset, bytes) in &records {
            assert_eq!(*bytes, if *offset < 150 { payload(*offset) } else { anew(*offset) });
        }
        assert!(!salvaged.report["left_out"].as_array().unwrap().is_empty());
        // Everything there is: where an offset was used again the later record is kept, the other one named.
        let all = salvage(&bench.directory, &["--beyond-seals"]);
        let records = all.records();
        assert_eq!(
            (150..155).map(|offset| records[&offset].clone()).collect::<Vec<_>>(),
            (150..155).map(anew).collect::<Vec<_>>()
        );
        assert!(records.len() > 155);
        assert!(all.report["conflict_count"].as_u64().unwrap() > 0, "{:#}", all.report);
        assert_eq!(all.code, 4);
    }
}

#[test]
fn a_batch_without_its_end_stays_out_unless_asked() {
    let bench = Bench::empty();
    let log = bench.open();
    log.append(payload(0)).unwrap();
    log.append_batch((1..5).map(payload)).unwrap();
    log.append_batch((5..9).map(payload)).unwrap();
    std::mem::forget(log);
    let copy = bench.directory.with_file_name("killed");
    fs::create_dir(&copy).unwrap();
    for name in ["MANIFEST", "0000000000000001.store"] {
        fs::copy(bench.path(name), copy.join(name)).unwrap();
    }
    let store = copy.join("0000000000000001.store");
    let last = *frames(&fs::read(&store).unwrap()).iter().rfind(|frame| frame.header.ordinal == 8).unwrap();
    zero(&store, last.position as usize..last.position as usize + 4096);
    let salvaged = salvage(&copy, &[]);
    salvaged.holds_exactly(0..5);
    assert_eq!(salvaged.report["left_out"][0]["records"], 3);
    salvage(&copy, &["--partial-batches"]).holds_exactly(0..8);
}

/// Strokes at random places: what they did not touch comes out, what they did is named. More of them:
/// `STONELOG_ROUNDS=5000 cargo test -p log-repair --test salvage what_random`.
#[test]
fn what_random_damage_did_not_touch_comes_out() {
    let home = tempfile::tempdir().unwrap();
    let (closed, killed) = (Bench::closed(250), Bench::killed(250));
    let mut state = 0x5707_e106_u64;
    let mut random = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    let rounds = std::env::var("STONELOG_ROUNDS").map_or(60, |rounds| rounds.parse().unwrap());
    for round in 0..rounds {
        let is_closed = random(2) == 0;
        let bench = if is_closed { &closed } else { &killed };
        let directory = home.path().join(round.to_string());
        copy(&bench.directory, &directory);
        if random(2) == 0 {
            fs::remove_file(directory.join("MANIFEST")).unwrap();
        }
        let stores = bench.stores();
        for _ in 0..=random(6) {
            let store = directory.join(stores[random(stores.len())].file_name().unwrap());
            let Ok(mut bytes) = fs::read(&store) else { continue };
            if bytes.is_empty() {
                continue;
            }
            let at = random(bytes.len());
            match random(6) {
                0 => bytes[at] ^= 1 << random(8),
                1 => bytes[at / 512 * 512..].iter_mut().take(512).for_each(|byte| *byte = 0),
                2 => bytes[at / 512 * 512..].iter_mut().take(512).for_each(|byte| *byte = 0xa5),
                3 => bytes.truncate(at),
                4 => bytes.truncate(at / 512 * 512),
                _ => bytes[at..].iter_mut().take(40).for_each(|byte| *byte = byte.wrapping_mul(5) ^ 0x33),
            }
            if random(25) == 0 {
                fs::remove_file(&store).unwrap();
            } else {
                fs::write(&store, bytes).unwrap();
            }
        }
        let intact = untouched(bench, &directory);
        let salvaged = salvage(&directory, &[]);
        if intact.is_empty() && salvaged.code == 8 {
            continue;
        }
        let records = if salvaged.report["log"].is_null() { BTreeMap::new() } else { salvaged.records() };
        for (offset, bytes) in &records {
            assert_eq!(*bytes, payload(*offset), "round {round}");
        }
        let unplaced: BTreeSet<Vec<u8>> = salvaged.unplaced().into_values().collect();
        for offset in &intact {
            assert!(
                records.contains_key(offset) || unplaced.contains(&payload(*offset)),
                "round {round}: record {offset} is intact and did not come out: {:#}",
                salvaged.report
            );
        }
        // (Of a log that was not closed the last records can go without a trace.)
        if intact.len() < 250 && is_closed {
            assert_eq!(salvaged.code, 4, "round {round}: {:#}", salvaged.report);
        }
    }
}

/// The offsets whose frames lie in `directory` as they do in `bench`.
fn untouched(bench: &Bench, directory: &Path) -> Vec<u64> {
    let mut intact = Vec::new();
    let (mut next, stores) = (0, bench.stores());
    for store in stores {
        let bytes = fs::read(&store).unwrap();
        let broken = fs::read(directory.join(store.file_name().unwrap())).unwrap_or_default();
        for frame in frames(&bytes) {
            if frame.header.kind.is_record() {
                let range = frame.position as usize
                    ..(frame.position + HEADER_BYTES) as usize + frame.header.length as usize;
                if broken.get(range.clone()) == Some(&bytes[range]) {
                    intact.push(next);
                }
                next += 1;
            }
        }
    }
    assert_eq!(next, 250);
    intact
}

/// The frames of a store whose head is whole.
fn frames(bytes: &[u8]) -> Vec<Frame> {
    let head = Head::parse(bytes).unwrap();
    let seed = Seed::of_segment(&head.uuid, head.id);
    let extent = Extent { seed, start: 1024, end: bytes.len() as u64, base: None, ordinal_end: None };
    let mut frames = Vec::new();
    scan(bytes, &extent, |frame| frames.push(frame));
    frames
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let into = to.join(path.file_name().unwrap());
        if path.is_dir() { copy(&path, &into) } else { assert!(fs::copy(&path, &into).is_ok()) }
    }
}

// ---- golden directories ------------------------------------------------------------------------

/// Whatever the library serves of a golden log, under the most generous policy, is in the salvaged one; and whatever
/// else is intact in its stores is there, too, or in the unplaced log, or named as left out.
#[test]
fn every_kind_of_damage() {
    let nothing_there = BTreeSet::from(["unfinished-beginning"]);
    let mut kinds = 0;
    for entry in fs::read_dir(GOLDEN).unwrap() {
        let source = entry.unwrap().path();
        if !source.is_dir() {
            continue;
        }
        let name = source.file_name().unwrap().to_str().unwrap().to_string();
        let salvaged = salvage(&source, &[]);
        println!("{name}: exit {}", salvaged.code);
        if salvaged.code == 8 {
            assert!(nothing_there.contains(name.as_str()), "{name}: nothing was salvaged");
            continue;
        }
        kinds += 1;
        let records = salvaged.records();
        // A Seal there claims a thousand records too many, and an opening that serves in spite of damage follows it.
        let served = if name == "seal-names-too-many" { BTreeMap::new() } else { served(&source) };
        for (offset, bytes) in served {
            assert_eq!(records.get(&offset), Some(&bytes), "{name}: record {offset}: {:#}", salvaged.report);
        }
        for (offset, bytes) in &records {
            // Most records of golden logs begin with their own offset.
            let said = bytes.strip_prefix(b"<").and_then(|rest| rest.split(|byte| *byte == b'>').next());
            let said = said.and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok());
            assert!(said.is_none_or(|said: u64| said == *offset), "{name}: {said:?} came out as {offset}");
        }
        let out: Vec<Vec<u8>> = records.into_values().chain(salvaged.unplaced().into_values()).collect();
        let left_out = salvaged.report["left_out"].as_array().unwrap();
        let mut left: u64 = left_out.iter().map(|left| left["records"].as_u64().unwrap()).sum();
        for payload in intact_payloads(&source) {
            if !out.contains(&payload) {
                assert!(
                    left > 0,
                    "{name}: an intact record did not come out: {payload:?}: {:#}",
                    salvaged.report
                );
                left -= 1;
            }
        }
    }
    assert!(kinds > 60, "{kinds}");
}

/// What the library gives of a log, however damaged.
fn served(source: &Path) -> BTreeMap<u64, Vec<u8>> {
    let home = tempfile::tempdir().unwrap();
    copy(source, &home.path().join("log"));
    let options = Options::new().segment_bytes(4096).on_damage(DamagePolicy::Serve);
    let Ok(log) = options.open(home.path().join("log")) else { return BTreeMap::new() };
    let read = |offset| Some((offset, log.read(offset).ok()?.to_vec()));
    let offsets = log.offsets();
    (offsets.start..offsets.end.min(offsets.start + 5000)).filter_map(read).collect()
}

/// Every payload that any store of the directory holds in a frame of its own.
fn intact_payloads(source: &Path) -> Vec<Vec<u8>> {
    let mut uuids = BTreeSet::new();
    let mut stores = Vec::new();
    for entry in fs::read_dir(source).unwrap() {
        let path = entry.unwrap().path();
        let bytes = fs::read(&path).unwrap_or_default();
        if path.file_name().unwrap() == "MANIFEST" && bytes.len() >= 512 {
            uuids.insert(<[u8; 16]>::try_from(&bytes[16..32]).unwrap());
        }
        if names::id_of_store(path.file_name().unwrap().to_str().unwrap()).is_some() {
            uuids.extend(Head::parse(&bytes).map(|head| head.uuid));
            stores.push(bytes);
        }
    }
    let mut payloads = Vec::new();
    for bytes in stores {
        for uuid in &uuids {
            for id in 1..12 {
                let seed = Seed::of_segment(uuid, id);
                let extent =
                    Extent { seed, start: 1024, end: bytes.len() as u64, base: None, ordinal_end: None };
                scan(&bytes[..], &extent, |frame| {
                    let start = (frame.position + HEADER_BYTES) as usize;
                    if frame.header.kind.is_record() {
                        payloads.push(bytes[start..start + frame.header.length as usize].to_vec());
                    }
                });
            }
        }
    }
    payloads
}

// ---- carving -----------------------------------------------------------------------------------

fn noise(bytes: usize, salt: u8) -> Vec<u8> {
    (0..bytes as u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8 ^ salt).collect()
}

/// Stores put one behind another, in any order, with anything in between.
fn concatenation(bench: &Bench, with_heads: bool) -> Vec<u8> {
    let mut stores = bench.stores();
    stores.reverse();
    let half = stores.len() / 2;
    stores.rotate_left(half);
    let mut image = noise(4096 + 8, 1);
    for (number, store) in stores.iter().enumerate() {
        let mut bytes = fs::read(store).unwrap();
        if !with_heads {
            bytes[..512].fill(0);
        }
        image.extend(bytes);
        image.extend(noise(number % 5 * 1000 / 8 * 8, number as u8));
    }
    image
}

#[test]
fn a_concatenation_of_stores() {
    for (bench, with_heads) in
        [(Bench::closed(300), true), (Bench::killed(300), true), (Bench::closed(300), false)]
    {
        let image = bench.directory.with_file_name("image");
        fs::write(&image, concatenation(&bench, with_heads)).unwrap();
        let salvaged = salvage(&image, &["--carve"]);
        assert_eq!(salvaged.code, 4, "what the manifest knew stays unknown");
        salvaged.holds_exactly(0..300);
        assert!(salvaged.missing().is_empty() && salvaged.report["unplaced"].is_null());
    }
}

#[test]
fn a_directory_of_pieces() {
    let bench = Bench::closed(300);
    let pieces = bench.directory.with_file_name("pieces");
    fs::create_dir_all(pieces.join("lost+found")).unwrap();
    for (number, store) in bench.stores().iter().enumerate() {
        fs::copy(store, pieces.join("lost+found").join(format!("#{}", number * 77))).unwrap();
    }
    fs::write(pieces.join("notes.txt"), b"an operator was here").unwrap();
    fs::copy(bench.path("MANIFEST"), pieces.join("MANIFEST")).unwrap();
    let salvaged = salvage(&pieces, &["--carve"]);
    salvaged.holds_exactly(0..300);
    // The manifest's own frames are no records.
    assert!(salvaged.report["unplaced"].is_null(), "{:#}", salvaged.report);
}

/// Two logs in one image: one is salvaged, the other is put aside, and named.
#[test]
fn pieces_of_another_log_are_kept_apart() {
    let (bench, other) = (Bench::closed(300), Bench::closed(40));
    let image = bench.directory.with_file_name("image");
    fs::write(&image, [concatenation(&other, true), concatenation(&bench, true)].concat()).unwrap();
    let salvaged = salvage(&image, &["--carve"]);
    salvaged.holds_exactly(0..300);
    assert_eq!(salvaged.unplaced().into_values().collect::<BTreeSet<_>>(), (0..40).map(payload).collect());
    let uuid = uuid_of(&other);
    assert!(salvaged.report["notes"][0].as_str().unwrap().contains(&uuid), "{:#}", salvaged.report);
    salvage(&image, &["--carve", "--uuid", &uuid]).holds_exactly(0..40);
}

fn uuid_of(bench: &Bench) -> String {
    let stat = support::run(&["stat", bench.directory.to_str().unwrap(), "--json"]);
    serde_json::from_str::<Value>(&stat.stdout).unwrap()["uuid"].as_str().unwrap().to_string()
}

/// A filesystem's image: the log's directory in it, and the pieces of a log that was there before and removed.
#[test]
fn an_image_of_a_filesystem() {
    let bench = Bench::closed(3000);
    let image = bench.directory.with_file_name("ext4");
    fs::write(&image, []).unwrap();
    fs::OpenOptions::new().write(true).open(&image).unwrap().set_len(16 << 20).unwrap();
    let made = Command::new("mkfs.ext4")
        .args(["-q", "-F", "-d", bench.directory.to_str().unwrap(), image.to_str().unwrap()])
        .output();
    match made {
        Ok(made) if made.status.success() => {}
        made => {
            eprintln!("skipped: no mkfs.ext4 that takes -d ({made:?})");
            return;
        }
    }
    let salvaged = salvage(&image, &["--carve"]);
    salvaged.holds_exactly(0..3000);
    assert!(salvaged.report["unplaced"].is_null(), "{:#}", salvaged.report);
}

// ---- manners -----------------------------------------------------------------------------------

#[test]
fn what_cannot_work_is_refused_before_anything_is_made() {
    let bench = Bench::closed(30);
    let source = bench.directory.to_str().unwrap();
    let home = bench.directory.parent().unwrap();
    let refused = |arguments: &[&str], words: &str| {
        let before = picture(home);
        let ran = support::run(arguments);
        assert_eq!(ran.code, 8, "{arguments:?}: {}{}", ran.stdout, ran.stderr);
        assert!(ran.stderr.contains(words), "{arguments:?}: {}", ran.stderr);
        assert_eq!(picture(home), before, "{arguments:?}");
    };
    let inside = bench.path("inside/deep");
    refused(&["salvage", source, "--out", inside.to_str().unwrap()], "lies inside");
    refused(&["salvage", source, "--out", source], "lies inside");
    let full = home.join("full");
    fs::create_dir(&full).unwrap();
    fs::write(full.join("notes.txt"), b"somebody's").unwrap();
    refused(&["salvage", source, "--out", full.to_str().unwrap()], "is not empty");
    let out = home.join("out");
    let out = out.to_str().unwrap();
    refused(&["salvage", home.join("nowhere").to_str().unwrap(), "--out", out], "there is no");
    refused(&["salvage", full.join("notes.txt").to_str().unwrap(), "--out", out], "--carve");
    refused(&["salvage", full.to_str().unwrap(), "--out", out], "--carve");
    refused(&["salvage", full.to_str().unwrap(), "--carve", "--out", out], "no intact record");
    assert_eq!(support::run(&["salvage", source]).code, 16, "where to must be said");
    assert_eq!(support::run(&["salvage", source, "--out", out, "--uuid", "seven"]).code, 16);
}

/// A log that was made here is as good a source as any other.
#[test]
fn a_salvaged_log_can_be_salvaged() {
    let bench = Bench::closed(300);
    bench.flip_record(77);
    bench.flip_record(200);
    let wanted = || (0..300).filter(|offset| ![77, 200].contains(offset));
    let once = salvage(&bench.directory, &[]);
    assert_eq!((once.code, once.missing()), (4, vec![(77, 78), (200, 201)]));
    once.holds_exactly(wanted());
    let twice = salvage(&once.directory, &[]);
    assert_eq!(
        (twice.code, twice.missing()),
        (0, vec![]),
        "what was lost is declared, and not missing again"
    );
    twice.holds_exactly(wanted());
    // Without its manifest the holes are gaps again.
    fs::remove_file(once.directory.join("MANIFEST")).unwrap();
    salvage(&once.directory, &[]).holds_exactly(wanted());
}

/// A gap as large as offsets go costs nothing.
#[test]
fn a_huge_gap() {
    let home = tempfile::tempdir().unwrap();
    let far = 1 << 50;
    let mut builder = LogBuilder::begin(&Options::new(), home.path().join("log"), 0).unwrap();
    for offset in (0..10).chain(far..far + 10) {
        builder.push(offset, true, &payload(offset)).unwrap();
    }
    builder.finish(0).unwrap();
    fs::remove_file(home.path().join("log/MANIFEST")).unwrap();
    let salvaged = salvage(&home.path().join("log"), &[]);
    assert_eq!(salvaged.missing(), [(10, far)]);
    let log = Log::open(&salvaged.directory).unwrap();
    assert_eq!(log.offsets(), 0..far + 10);
    assert_eq!(&log.read(far).unwrap()[..], payload(far));
    assert!(matches!(log.read(far / 2), Err(Error::Lost { .. })));
}
