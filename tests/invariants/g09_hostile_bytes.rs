//! G9. No bytes on disk, however hostile, cause a panic, a hang, memory beyond a stated bound, or
//! wrong data.
//!
//! What it would catch: a length that is believed before it is checked; arithmetic that overflows
//! on a lag, an ordinal, a base; a fold that assumes its edits make sense; a scan without an end.

use std::path::Path;

use proptest::prelude::*;
use stonelog::disk::sim::{Loss, SimDisk};
use stonelog::recovery::{Depth, inspect};
use stonelog::{DamagePolicy, Error};

use crate::common::{DIRECTORY, after, append, append_batch, content, files, manual, open, options, path};
use crate::support::property;

/// Logs at rest: closed, cut off, in groups, truncated at both ends.
fn logs() -> Vec<SimDisk> {
    let mut logs = Vec::new();
    for seed in 0..2 {
        let disk = SimDisk::new(seed);
        let log = if seed == 0 { open(&disk) } else { manual(&disk).open(DIRECTORY).unwrap() };
        append(&log, 40);
        append_batch(&log, 5).unwrap();
        log.put_meta("vote", b"somebody").unwrap();
        log.truncate_front(9).unwrap();
        log.truncate_back(43).unwrap();
        log.sync().unwrap();
        append(&log, 4);
        logs.push(after(&disk, Loss::Everything));
        logs.push(after(&disk, Loss::Seeded(seed)));
        log.close().unwrap();
        logs.push(after(&disk, Loss::Nothing));
    }
    logs
}

/// Bytes that don't print one to a line.
#[derive(Clone)]
struct Bytes(Vec<u8>);

impl std::fmt::Debug for Bytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "b\"{}\"", self.0.escape_ascii())
    }
}

#[derive(Debug, Clone)]
enum Blow {
    Overwrite(Bytes),
    Number(u64),
    Flip(u8),
    Zero(u16),
    Truncate,
    Replace(Bytes),
    Remove,
    CopyFrom(u8),
    Extend(u16),
}

fn blow() -> impl Strategy<Value = (u8, u32, Blow)> {
    let bytes = || prop::collection::vec(any::<u8>(), 0..600);
    let number = prop_oneof![Just(0), Just(u64::MAX), Just(1 << 63), Just(u64::from(u32::MAX)), any::<u64>()];
    let blow = prop_oneof![
        4 => bytes().prop_map(|b| Blow::Overwrite(Bytes(b))),
        4 => number.prop_map(Blow::Number),
        4 => any::<u8>().prop_map(Blow::Flip),
        2 => any::<u16>().prop_map(Blow::Zero),
        1 => Just(Blow::Truncate),
        1 => bytes().prop_map(|b| Blow::Replace(Bytes(b))),
        1 => Just(Blow::Remove),
        1 => any::<u8>().prop_map(Blow::CopyFrom),
        1 => any::<u16>().prop_map(Blow::Extend),
    ];
    (any::<u8>(), any::<u32>(), blow)
}

/// Deals the blows; says where they fell.
fn strike(disk: &SimDisk, blows: &[(u8, u32, Blow)]) -> String {
    let mut told = String::new();
    for (which, place, blow) in blows {
        let names: Vec<String> = files(disk).into_keys().collect();
        let name = path(&names[usize::from(*which) % names.len()]);
        let bytes = disk.read_file(&name).unwrap();
        // Most of a file is reserved zeros: aim at what was written.
        let written = bytes.iter().rposition(|byte| *byte != 0).map_or(1, |last| last + 9).min(bytes.len());
        let at = u64::from(*place) % (written.max(1) as u64);
        let kind = format!("{blow:?}");
        told.push_str(&format!(
            "{} at {at} of {name} ({written} of {} bytes); ",
            kind.split('(').next().unwrap(),
            bytes.len()
        ));
        let done = match blow {
            Blow::Overwrite(with) => disk.overwrite(&name, at, &with.0),
            Blow::Number(number) => disk.overwrite(&name, at & !3, number.to_le_bytes()),
            Blow::Flip(bit) => disk.flip_bit(&name, at, *bit),
            Blow::Zero(count) => disk.zero(&name, at..at + u64::from(*count)),
            Blow::Truncate => disk.truncate(&name, at),
            Blow::Replace(with) => disk.write_file(&name, &with.0),
            Blow::Remove if names.len() > 1 => disk.remove_file(&name),
            Blow::Remove => Ok(()),
            Blow::CopyFrom(other) => disk.copy_file(path(&names[usize::from(*other) % names.len()]), &name),
            Blow::Extend(by) => disk.truncate(&name, bytes.len() as u64 + u64::from(*by)),
        };
        // A position beyond an emptied file: nothing to damage there.
        let _ = done;
    }
    told
}

/// Opens, reads, scans and goes on, in every way; only what was written may come out.
fn look(disk: &SimDisk, check_content: bool, told: &str) {
    drop(inspect(disk, Path::new(DIRECTORY), Depth::Everything));
    drop(inspect(disk, Path::new(DIRECTORY), Depth::Opening));
    let world = disk.fork();
    if let Ok(log) = options(&world).on_damage(DamagePolicy::Serve).open_read_only(DIRECTORY) {
        read_all(&log, check_content, &format!("{told}read-only"));
    }
    for policy in [DamagePolicy::Refuse, DamagePolicy::Serve] {
        for verify in [true, false] {
            let world = disk.fork();
            let before = world.steps();
            let opened = options(&world).on_damage(policy).verify_reads(verify).open(DIRECTORY);
            assert!(world.steps() - before < 5_000, "opening did {} I/O calls", world.steps() - before);
            let Ok(log) = opened else { continue };
            read_all(&log, check_content && verify, &format!("{told}{policy:?}"));
            let end = log.offsets().end;
            if let Ok(offset) = log.append(content(end)) {
                assert_eq!(offset, end);
                log.sync().unwrap();
                assert_eq!(&*log.read(offset).unwrap(), content(offset), "what was just appended");
                log.close().unwrap();
                let again = options(&world)
                    .on_damage(policy)
                    .open(DIRECTORY)
                    .unwrap_or_else(|error| panic!("{told}{policy:?}: closed, and: {error}"));
                assert_eq!(again.offsets().end, end + 1);
                assert_eq!(&*again.read(offset).unwrap(), content(offset), "what was appended, reopened");
            }
        }
    }
}

fn read_all(log: &stonelog::Log, check_content: bool, told: &str) {
    let offsets = log.offsets();
    let middle = offsets.start..offsets.end.min(offsets.start.saturating_add(200));
    let last = offsets.end.saturating_sub(50).max(middle.end)..offsets.end;
    for offset in middle.chain(last) {
        match log.read(offset) {
            Ok(record) if check_content => {
                assert_eq!(&*record, content(offset), "{told}: wrong data at {offset}")
            }
            Ok(_) => {}
            Err(Error::Damaged(_) | Error::Lost { .. } | Error::Io { .. }) => {}
            Err(error) => panic!("{told}: reading {offset} of {offsets:?}: {error}"),
        }
    }
    for record in log.records(offsets.start..offsets.start.saturating_add(200)) {
        if let Ok(record) = record
            && check_content
        {
            assert_eq!(&*record, content(record.offset()), "wrong data at {}", record.offset());
        }
    }
    let _ = (log.segments(), log.stats(), log.recovery().to_string(), log.meta("vote"));
}

fn config(cases: u32) -> ProptestConfig {
    property::config(
        cases,
        Some(concat!(env!("CARGO_MANIFEST_DIR"), "/proptest-regressions/g09_hostile_bytes.txt")),
    )
}

proptest! {
    #![proptest_config(config(1500))]

    /// Blows at random files: no panic, no wrong data, and whoever opens can go on.
    #[test]
    fn struck_anywhere(which in 0usize..6, blows in prop::collection::vec(blow(), 1..5)) {
        thread_local!(static LOGS: Vec<SimDisk> = logs());
        let disk = LOGS.with(|logs| logs[which].fork());
        let told = strike(&disk, &blows);
        look(&disk, true, &told);
    }

    /// Noise as whole files.
    #[test]
    fn noise_as_files(files in prop::collection::vec((0u8..6, prop::collection::vec(any::<u8>(), 0..3000)), 1..4)) {
        let disk = SimDisk::new(1);
        for (which, bytes) in files {
            let name = ["MANIFEST", "0000000000000001.store", "0000000000000001.index", "LOCK",
                "ffffffffffffffff.store", "MANIFEST.next"][usize::from(which)];
            disk.write_file(path(name), bytes).unwrap();
        }
        look(&disk, false, "noise");
    }
}

/// Crafted rather than random: a store full of things that look like frames to the searcher. The
/// work stays near linear, which shows in the number of reads.
#[test]
fn a_store_full_of_headers_is_searched_in_bounded_work() {
    let disk = SimDisk::new(2);
    let log = open(&disk);
    append(&log, 10);
    let world = after(&disk, Loss::Everything);
    let store = crate::common::take_apart(&world).stores.remove(0);
    let first = &store.frames[0];
    let mut bytes = world.read_file(path(&store.name)).unwrap();
    bytes.resize(2 << 20, 0);
    // Plausible headers everywhere, each claiming most of the file; no checksum holds.
    let start = first.position as usize;
    let header = bytes[start..start + 16].to_vec();
    for (number, at) in (start..bytes.len() - 16).step_by(8).enumerate() {
        let mut fake = header.clone();
        fake[0] ^= 0x55;
        let length = (bytes.len() - at - 16) as u32;
        fake[4..8].copy_from_slice(&((1 << 28) | length).to_le_bytes());
        fake[8..12].copy_from_slice(&(number as u32 + 20).to_le_bytes());
        fake[12..16].copy_from_slice(&1u32.to_le_bytes());
        bytes[at..at + 8].copy_from_slice(&fake[if number % 2 == 0 { 0..8 } else { 8..16 }]);
    }
    world.write_file(path(&store.name), &bytes).unwrap();
    let before = world.steps();
    drop(options(&world).on_damage(DamagePolicy::Serve).open(DIRECTORY));
    assert!(world.steps() - before < 2_000, "{} calls for 2 MiB", world.steps() - before);
}

/// The numbers at the edges of u64, as a log's own first offset.
#[test]
fn offsets_at_the_edge() {
    for first in [u64::MAX, u64::MAX - 1, u64::MAX - 3, 1 << 63, u64::from(u32::MAX) - 2] {
        let disk = SimDisk::new(1);
        let Ok(log) = options(&disk).first_offset(first).open(DIRECTORY) else { continue };
        for _ in 0..6 {
            let Ok(offset) = log.append(b"edge") else { break };
            assert_eq!(&*log.read(offset).unwrap(), b"edge");
        }
        let _ = log.truncate_front(u64::MAX);
        let _ = log.truncate_back(u64::MAX);
        let _ = (log.records(..).count(), log.records(..=u64::MAX).count(), log.segments());
        let end = log.offsets();
        let _ = log.close();
        drop(log);
        if let Ok(log) = options(&disk).open(DIRECTORY) {
            assert_eq!(log.offsets(), end);
        }
    }
}
