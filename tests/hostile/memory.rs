//! G9, memory: the bounds of docs/GUARANTEES.md, asserted by an allocator that counts.
//!
//! What it would catch: a count or a length from disk that is believed before memory is taken for it;
//! a list that grows with what a crafted file repeats.

use std::path::Path;

use allocation_counter::measure;
use stonelog::disk::sim::SimDisk;
use stonelog::manifest::{self, Born, Close, Edit, Reading, Seal};
use stonelog::recovery::{Depth, inspect};
use stonelog::scan::scan;
use stonelog::{DamagePolicy, Options, names};

use crate::craft;
use crate::replay::seeds;
use crate::shared::bytes::Bytes;
use crate::shared::logs::{self, DIRECTORY, options, path};
use crate::shared::{mutate, targets};

const MIB: u64 = 1 << 20;

/// A scan, of a store of any length.
const SCAN: u64 = 26 * MIB;
/// Reading a MANIFEST takes so many times its bytes at most.
const MANIFEST_TIMES: u64 = 16;
/// What opening a directory takes at most: so much, and so many times the bytes of its files (a Create
/// of 32 bytes whose store is missing is an entry, a finding and a damage).
const OPEN: u64 = SCAN;
const OPEN_TIMES: u64 = 48;

/// The most that was allocated at any moment of `work`, in bytes.
fn peak(work: impl FnOnce()) -> u64 {
    measure(work).bytes_max
}

fn total(disk: &SimDisk) -> u64 {
    logs::files(disk).values().map(|bytes| bytes.len() as u64).sum()
}

#[test]
fn a_scan_takes_no_more_than_its_bound() {
    for size in [1 << 20, 6 << 20] {
        for (name, bytes) in craft::all(size) {
            let extent = craft::extent(&bytes);
            let taken = peak(|| drop(scan(&bytes[..], &extent, |_| {})));
            println!("{name}, {size}: {taken}");
            assert!(taken <= SCAN, "{name} ({size}): {taken} bytes");
        }
    }
}

/// Edits of every kind, as many as fit, with numbers as large as they go.
fn manifests() -> Vec<(&'static str, Vec<u8>)> {
    const MANY: u64 = 40_000;
    let init = |last_id| Edit::Init { uuid: craft::UUID, created_millis: 1, first_offset: 0, last_id };
    let seal = |next_offset| Seal { next_offset, length: u64::MAX, first_millis: 0, last_millis: u64::MAX };
    let created = |id| Edit::Create { id, base: None, born: None };
    let sealed = |id| Edit::Seal { id, seal: seal(id << 32) };
    let kinds: Vec<(&'static str, Vec<Edit>)> = vec![
        ("creates", (1..MANY).map(created).collect()),
        ("seals", (1..MANY / 2).flat_map(|id| [created(id), sealed(id)]).collect()),
        (
            "births",
            (1..MANY)
                .map(|id| Edit::Create {
                    id,
                    base: Some(id << 40),
                    born: Some(Born { durable_end: 1 << 61, length: u64::MAX }),
                })
                .collect(),
        ),
        ("damages", (1..MANY).map(|n| Edit::Damaged { offsets: 2 * n..2 * n + 1 }).collect()),
        (
            "damages of sealed segments",
            (1..MANY / 4)
                .flat_map(|id| [created(id), sealed(id)])
                .chain((1..MANY / 2).map(|n| Edit::Damaged { offsets: n << 24..(n << 24) + 9 }))
                .collect(),
        ),
        ("drops", (1..MANY).map(|id| Edit::Drop { id, quarantine: true }).collect()),
        ("values", (1..MANY).map(|n| Edit::Meta { key: n.to_string(), value: Some(vec![]) }).collect()),
        (
            "a close of everything",
            vec![created(1), Edit::Close(Close { length: u64::MAX, next_offset: names::LARGEST_END })],
        ),
    ];
    let forged = |(name, edits): (&'static str, Vec<Edit>)| {
        let edits: Vec<Edit> = [init(1 << 62)].into_iter().chain(edits).collect();
        (name, mutate::forge_manifest(&craft::UUID, 1, &edits, None))
    };
    kinds.into_iter().map(forged).collect()
}

#[test]
fn a_manifest_takes_a_few_times_its_bytes() {
    for (name, bytes) in manifests() {
        let disk = SimDisk::new(1);
        disk.write_file(path(manifest::FILE_NAME), &bytes).unwrap();
        let size = bytes.len() as u64;
        let taken = peak(|| {
            let reading = manifest::read(&disk, Path::new(DIRECTORY)).unwrap();
            assert!(matches!(reading, Reading::Whole { .. }), "{name}: {reading:?}");
        });
        let looked = peak(|| drop(inspect(&disk, Path::new(DIRECTORY), Depth::Everything)));
        let opened = peak(|| {
            drop(options(&disk).on_damage(DamagePolicy::Serve).open_read_only(DIRECTORY));
        });
        let times = |taken: u64| taken as f64 / size as f64;
        println!(
            "{name}, {size}: read {:.1}, looked {:.1}, opened {:.1}",
            times(taken),
            times(looked),
            times(opened)
        );
        assert!(taken <= 4 * MIB + MANIFEST_TIMES * size, "{name}: reading took {taken} of {size}");
        assert!(looked <= 4 * MIB + OPEN_TIMES * size, "{name}: looking took {looked} of {size}");
        assert!(opened <= 4 * MIB + OPEN_TIMES * size, "{name}: opening took {opened} of {size}");
    }
}

/// A closed log, whose Close and Seals name as many records as a number can say.
#[test]
fn a_count_of_records_takes_no_more_than_its_store_could_hold() {
    for (sealed, length) in [(true, 1 << 20), (false, 1 << 20), (true, u64::MAX), (false, u64::MAX)] {
        let disk = SimDisk::new(1);
        let log = options(&disk).open(DIRECTORY).unwrap();
        log.append(b"one").unwrap();
        log.close().unwrap();
        drop(log);
        let store = path(&names::store(1));
        let bytes = disk.read_file(&store).unwrap();
        let uuid = *bytes[16..32].first_chunk::<16>().unwrap();
        // A file that is long and holds nothing: sparse, it costs whoever made it nothing.
        disk.truncate(&store, 1 << 20).unwrap();
        let end = u64::from(u32::MAX);
        let mut edits = vec![
            Edit::Init { uuid, created_millis: 1, first_offset: 0, last_id: 1 },
            Edit::Create { id: 1, base: Some(0), born: None },
        ];
        if sealed {
            let seal = Seal { next_offset: end, length, first_millis: 0, last_millis: 0 };
            edits.push(Edit::Seal { id: 1, seal });
            edits.push(Edit::Damaged { offsets: 1..end });
        } else {
            edits.push(Edit::Close(Close { length, next_offset: end }));
        }
        disk.write_file(path(manifest::FILE_NAME), mutate::forge_manifest(&uuid, 9, &edits, None)).unwrap();
        let all = total(&disk);
        let taken = peak(|| targets::look(&disk));
        println!("sealed {sealed}, length {length}: {taken} of {all}");
        assert!(taken <= OPEN + OPEN_TIMES * all, "sealed {sealed}, length {length}: {taken} of {all}");
    }
}

#[test]
fn opening_a_crafted_store_takes_no_more_than_its_bound() {
    for (name, bytes) in craft::all(2 << 20) {
        let disk = SimDisk::new(1);
        let log = options(&disk).open(DIRECTORY).unwrap();
        log.append(b"one").unwrap();
        std::mem::forget(log);
        disk.process_crash();
        let store = path(&names::store(1));
        let sectors = disk.read_file(&store).unwrap()[..1024].to_vec();
        let uuid = *sectors[16..32].first_chunk::<16>().unwrap();
        let bytes = [&sectors[..], &bytes[1024..]].concat();
        disk.write_file(&store, craft::with_identity(bytes, &uuid)).unwrap();
        let all = total(&disk);
        let look = |policy| {
            let world = disk.fork();
            let before = world.used_bytes();
            let taken = peak(|| {
                drop(
                    Options::new().disk(std::sync::Arc::new(world.clone())).on_damage(policy).open(DIRECTORY),
                );
            });
            // What was written is on the simulated disk, not in the log's memory.
            taken.saturating_sub(world.used_bytes().saturating_sub(before))
        };
        let taken = look(DamagePolicy::Refuse).max(look(DamagePolicy::Serve));
        println!("{name}: {taken} of {all}");
        assert!(taken <= OPEN + OPEN_TIMES * all, "{name}: {taken} of {all}");
    }
}

/// What the fuzzers found, weighed.
#[test]
fn no_seed_takes_more_than_the_bound() {
    for (path, bytes) in seeds("open") {
        let disk = mutate::world(&mut Bytes(&bytes));
        let all = total(&disk);
        let taken = peak(|| targets::look(&disk));
        assert!(taken <= OPEN + OPEN_TIMES * all, "{}: {taken} of {all}", path.display());
    }
    for (path, bytes) in seeds("manifest") {
        let taken = peak(|| targets::manifest(&bytes));
        assert!(taken <= OPEN + OPEN_TIMES * bytes.len() as u64, "{}: {taken}", path.display());
    }
    for (path, bytes) in seeds("scan") {
        let taken = peak(|| targets::scan(&bytes));
        assert!(taken <= SCAN, "{}: {taken}", path.display());
    }
}
