//! G9 for `log-repair`: whatever the bytes, no verb panics, goes on for ever, or takes more memory
//! than its bound. The body of the fuzz target, on its seeds, on what proptest makes, and on crafted
//! stores.
#![allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests: a failed expectation is how they speak, and they make real files"
)]

#[path = "../../tests/hostile/craft.rs"]
#[allow(unused, reason = "shared with the library's hostile tests")]
mod craft;
#[path = "../../tests/support/property.rs"]
mod property;
#[path = "../../tests/fuzz/src/repair.rs"]
mod repair;
#[path = "../../tests/fuzz/src/lib.rs"]
#[allow(unused, reason = "shared with the fuzz targets, of which this binary needs a part")]
mod shared;

use std::path::{Path, PathBuf};

use proptest::prelude::*;
use shared::logs::{DIRECTORY, options, path};
use shared::{bytes::Bytes, logs, mutate};
use stonelog::disk::sim::SimDisk;
use stonelog::manifest::{Close, Edit, Seal};
use stonelog::names;

const MIB: u64 = 1 << 20;

/// What a verb takes at most: so much, and so many times the bytes of the directory.
const VERB: u64 = 64 * MIB;
const VERB_TIMES: u64 = 48;

fn seeds() -> Vec<(PathBuf, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fuzz/seeds/repair");
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "no seeds of repair");
    paths.into_iter().map(|path| (path.clone(), std::fs::read(path).unwrap())).collect()
}

/// Runs every verb on the log of `disk`, and weighs it.
fn weigh(disk: &SimDisk, told: &str) {
    let place = repair::Place::new();
    place.fill(disk);
    let all: u64 = logs::files(disk).values().map(|bytes| bytes.len() as u64).sum();
    repair::every_verb(&place.directory(), |verb, run| {
        let taken = allocation_counter::measure(|| {
            run();
        })
        .bytes_max;
        assert!(taken <= VERB + VERB_TIMES * all, "{told}: {verb:?} took {taken} bytes for {all}");
    });
}

#[test]
fn seeds_of_repair() {
    for (path, bytes) in seeds() {
        println!("cargo fuzz run --fuzz-dir tests/fuzz -s none repair {}", path.display());
        repair::repair(&bytes);
        weigh(&mutate::world(&mut Bytes(&bytes)), &path.display().to_string());
    }
}

proptest! {
    #![proptest_config(property::config(150, Some(
        concat!(env!("CARGO_MANIFEST_DIR"), "/../proptest-regressions/hostile_repair.txt"))))]

    #[test]
    fn directories(data in prop::collection::vec(prop_oneof![0u8..32, any::<u8>()], 0..120)) {
        repair::repair(&data);
    }
}

/// Crafted stores, unsealed and sealed, with a manifest and without one.
#[test]
fn crafted_stores() {
    for (name, bytes) in craft::all(1 << 20) {
        let disk = SimDisk::new(1);
        let log = options(&disk).open(DIRECTORY).unwrap();
        log.append(b"one").unwrap();
        std::mem::forget(log);
        disk.process_crash();
        let store = path(&names::store(1));
        let sectors = disk.read_file(&store).unwrap()[..1024].to_vec();
        let uuid = *sectors[16..32].first_chunk::<16>().unwrap();
        let bytes = craft::with_identity([&sectors[..], &bytes[1024..]].concat(), &uuid);
        let length = bytes.len() as u64;
        disk.write_file(&store, bytes).unwrap();
        weigh(&disk, name);
        let seal = Seal { next_offset: length / 32, length, first_millis: 0, last_millis: 0 };
        let edits = [
            Edit::Init { uuid, created_millis: 1, first_offset: 0, last_id: 1 },
            Edit::Create { id: 1, base: Some(0), born: None },
            Edit::Seal { id: 1, seal },
        ];
        let manifest = path(stonelog::manifest::FILE_NAME);
        disk.write_file(&manifest, mutate::forge_manifest(&uuid, 9, &edits, None)).unwrap();
        weigh(&disk, &format!("{name}, sealed"));
        disk.remove_file(&manifest).unwrap();
        weigh(&disk, &format!("{name}, without a manifest"));
    }
}

/// A manifest that names all the records there can be: nobody counts to 2^62.
#[test]
fn records_that_no_store_holds_are_stepped_over() {
    let end = 1 << 62;
    for (sealed, damaged) in [(true, false), (false, false), (false, true), (true, true)] {
        let disk = SimDisk::new(1);
        let log = options(&disk).open(DIRECTORY).unwrap();
        log.append(b"one").unwrap();
        log.close().unwrap();
        let store = disk.read_file(path(&names::store(1))).unwrap();
        let uuid = *store[16..32].first_chunk::<16>().unwrap();
        let length = store.len() as u64;
        let mut edits = vec![
            Edit::Init { uuid, created_millis: 1, first_offset: 0, last_id: 1 },
            Edit::Create { id: 1, base: Some(0), born: None },
        ];
        if damaged {
            edits.push(Edit::Damaged { offsets: 1..end });
        }
        edits.push(if sealed {
            Edit::Seal { id: 1, seal: Seal { next_offset: end, length, first_millis: 0, last_millis: 0 } }
        } else {
            Edit::Close(Close { length, next_offset: end })
        });
        let manifest = mutate::forge_manifest(&uuid, 9, &edits, None);
        disk.write_file(path(stonelog::manifest::FILE_NAME), manifest).unwrap();
        weigh(&disk, &format!("sealed {sealed}, damaged {damaged}"));
    }
}

/// What lies where a repair keeps its journal may be anything: it is refused, and moves nothing.
#[test]
fn journals_that_nobody_wrote() {
    let disk = SimDisk::new(1);
    let log = options(&disk).open(DIRECTORY).unwrap();
    for offset in 0..40 {
        log.append(logs::content(offset)).unwrap();
    }
    log.close().unwrap();
    let noise: Vec<u8> = (0..1 << 20).map(|at: u32| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let title = b"stonelog repair journal, version 1\n";
    let journals: [&[u8]; 6] = [
        b"",
        b"\n",
        title,
        b"stonelog repair journal, version 1\nout MANIFEST\nend 00000000\n",
        &noise,
        &[0; 4096],
    ];
    for name in ["journal", "undo", "undoing", "journal.next"] {
        for (number, journal) in journals.iter().enumerate() {
            let place = repair::Place::new();
            place.fill(&disk);
            let aside = place.directory().join("repair/1");
            std::fs::create_dir_all(aside.join("old")).unwrap();
            std::fs::write(aside.join(name), journal).unwrap();
            // As long as a disk allows: nobody reads all of it.
            let long = std::fs::File::options().write(true).open(aside.join(name)).unwrap();
            if number == 5 {
                long.set_len(1 << 40).unwrap();
            }
            let told = format!("{name} {number}");
            let directory = place.directory();
            let run = |arguments: &[&str]| {
                let words = ["log-repair", arguments[0], directory.to_str().unwrap()];
                let words = words.iter().chain(&arguments[1..]).map(std::ffi::OsString::from);
                let mut code = 0;
                let taken = allocation_counter::measure(|| {
                    code = log_repair::run(words, log_repair::Streams::to(std::io::sink(), std::io::sink()));
                })
                .bytes_max;
                assert!(taken <= VERB, "{told}: {arguments:?} took {taken} bytes");
                assert!([0, 1, 4, 8].contains(&code), "{told}: {arguments:?} ended with {code}");
            };
            for arguments in
                [&["check"][..], &["plan"], &["undo"], &["repair", "--apply"], &["undo", "--apply"]]
            {
                run(arguments);
            }
            for (name, bytes) in logs::files(&disk) {
                let now = std::fs::read(place.directory().join(&name)).unwrap();
                assert!(name == "LOCK" || now == bytes, "{told}: {name} was changed");
            }
        }
    }
}
