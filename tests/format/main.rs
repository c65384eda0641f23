//! docs/FORMAT.md is true: its dumps are what is on disk, and a reader written from it alone, with
//! nothing of this crate but its public face to compare with, reads what `Log` reads.
//!
//! When the format changes on purpose, `STONELOG_BLESS=1 cargo test --test format` writes the new
//! dumps into docs/FORMAT.md; read the difference before you keep it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::disallowed_methods,
    reason = "a test: it fails by panic, and reads docs/FORMAT.md from the real disk"
)]

mod reader;

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use reader::{Directory, Found, read_log, read_manifest};
use stonelog::disk::sim::{Loss, SimDisk};
use stonelog::disk::{Background, DirectoryEntry, Disk, DiskFile, LockAttempt, OpenMode};
use stonelog::{Durability, Error, Log, Options, ReadMode};

const FORMAT_MD: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/FORMAT.md");

// ---- the worked example ------------------------------------------------------------------------

/// A simulated disk whose clock stands still and whose dice always show the same, so that every
/// byte of a log is known beforehand. (Both halves of the uuid read "tinylog!".)
#[derive(Debug)]
struct FixedDisk(SimDisk);

impl Disk for FixedDisk {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.0.create_dir(path)
    }
    fn list(&self, path: &Path) -> io::Result<Vec<DirectoryEntry>> {
        self.0.list(path)
    }
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.0.sync_dir(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.0.remove(path)
    }
    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.0.exists(path)
    }
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        self.0.open(path, mode)
    }
    fn lock(&self, path: &Path) -> io::Result<LockAttempt> {
        self.0.lock(path)
    }
    fn now_millis(&self) -> u64 {
        1_700_000_000_000
    }
    fn random(&self) -> u64 {
        // Even, so that background work is always done at once.
        u64::from_le_bytes(*b"tinylog!")
    }
    fn process_id(&self) -> u32 {
        self.0.process_id()
    }
    fn background(&self) -> Background {
        Background::Inline
    }
}

/// The log that docs/FORMAT.md shows.
fn example() -> Directory {
    let disk = SimDisk::new(1);
    let options = Options::new().disk(Arc::new(FixedDisk(disk.clone()))).segment_bytes(4096);
    let log = options.read_mode(ReadMode::Buffered).open("/log").unwrap();
    log.append(b"stone").unwrap();
    log.append_batch([&b"written in stone"[..], b"ok"]).unwrap();
    log.put_meta("vote", [7]).unwrap();
    log.close().unwrap();
    files_of(&disk)
}

/// As `hexdump -C` shows it: sixteen bytes a line, a star for lines that repeat the one before.
fn hex_dump(bytes: &[u8]) -> String {
    let mut text = String::new();
    let (mut before, mut starred): (Option<&[u8]>, bool) = (None, false);
    for (index, line) in bytes.chunks(16).enumerate() {
        if before == Some(line) {
            if !starred {
                text += "*\n";
            }
            starred = true;
            continue;
        }
        (before, starred) = (Some(line), false);
        let hex: Vec<String> = line.iter().map(|byte| format!("{byte:02x}")).collect();
        let (left, right) = hex.split_at(hex.len().min(8));
        let shown: String =
            line.iter().map(|byte| if (32..127).contains(byte) { char::from(*byte) } else { '.' }).collect();
        text += &format!("{:08x}  {:<23}  {:<23}  |{shown}|\n", index * 16, left.join(" "), right.join(" "));
    }
    text + &format!("{:08x}\n", bytes.len())
}

/// Where in the page the dump of `name` stands: the lines inside the fence behind its comment.
fn dump_in(page: &str, name: &str) -> Range<usize> {
    let comment = format!("<!-- dump: {name} -->\n```text\n");
    let start =
        page.find(&comment).unwrap_or_else(|| panic!("docs/FORMAT.md has no dump of {name}")) + comment.len();
    start..start + page[start..].find("```").expect("the fence ends")
}

#[test]
fn the_dumps_in_the_page_are_what_is_on_disk() {
    let files = example();
    let mut page = std::fs::read_to_string(FORMAT_MD).unwrap();
    let bless = std::env::var_os("STONELOG_BLESS").is_some();
    for name in ["MANIFEST", "0000000000000001.store", "0000000000000001.index"] {
        let dump = hex_dump(&files[name]);
        let place = dump_in(&page, name);
        if bless {
            page.replace_range(place, &dump);
        } else {
            assert!(page[place.clone()] == dump, "{name} is, not as docs/FORMAT.md says:\n{dump}");
        }
    }
    if bless {
        std::fs::write(FORMAT_MD, page).unwrap();
    }
    assert_eq!(
        files.keys().map(String::as_str).collect::<Vec<_>>(),
        ["0000000000000001.index", "0000000000000001.store", "LOCK", "MANIFEST", "MANIFEST.next",]
    );
    assert!(files["LOCK"].starts_with(b"1000"), "the holder's process id");
    assert!(files["MANIFEST.next"].iter().all(|byte| *byte == 0), "ballast holds nothing");
}

#[test]
fn the_example_reads_as_the_page_says() {
    let found = read_log(&example()).unwrap();
    assert_eq!((found.front, found.end, found.clean), (0, 3, true));
    assert_eq!(found.meta, BTreeMap::from([("vote".to_string(), vec![7])]));
    let records: Vec<_> = found.records.iter().map(|(offset, bytes)| (*offset, bytes.as_slice())).collect();
    assert_eq!(records, [(0, &b"stone"[..]), (1, b"written in stone"), (2, b"ok")]);
}

// ---- the two readers agree ---------------------------------------------------------------------

fn files_of(disk: &SimDisk) -> Directory {
    let names = disk.file_names("/log").into_iter();
    names.filter_map(|name| Some((name.clone(), disk.read_file(format!("/log/{name}"))?))).collect()
}

fn options(disk: &SimDisk, durability: Durability) -> Options {
    let options = Options::new().disk(Arc::new(disk.clone())).durability(durability);
    options.segment_bytes(4096).read_mode(ReadMode::Buffered)
}

/// A small generator, so that a seed is a world.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

/// Does something to a log; gives the log that is open afterwards.
fn act(disk: &SimDisk, durability: Durability, dice: &mut Dice, log: Log) -> stonelog::Result<Log> {
    let size = |dice: &mut Dice| match dice.roll(3) {
        0 => 40,
        _ => dice.roll(700) as usize,
    };
    let offsets = log.offsets();
    match dice.roll(12) {
        0..6 => {
            log.append(vec![dice.roll(256) as u8; size(dice)])?;
        }
        6..9 => {
            let batch: Vec<Vec<u8>> = (0..1 + dice.roll(5)).map(|_| vec![7; size(dice)]).collect();
            log.append_batch(batch)?;
        }
        9 => log.put_meta("key", [dice.roll(256) as u8])?,
        10 if offsets.end > offsets.start => {
            let place = offsets.start + dice.roll(offsets.end - offsets.start);
            match dice.roll(2) {
                0 => log.truncate_front(place)?,
                _ => log.truncate_back(place)?,
            }
        }
        _ if dice.roll(4) == 0 => {
            log.close()?;
            return options(disk, durability).open("/log");
        }
        _ => log.sync()?,
    }
    Ok(log)
}

/// Lives the whole life of a world.
fn live(disk: &SimDisk, seed: u64, durability: Durability) -> stonelog::Result<Log> {
    let mut dice = Dice(seed);
    let mut log = options(disk, durability).open("/log")?;
    for _ in 0..80 {
        log = act(disk, durability, &mut dice, log)?;
    }
    Ok(log)
}

fn compare(files: &Directory, log: &Log, world: &str) -> Found {
    let found = read_log(files).unwrap_or_else(|why| panic!("{world}: {why}"));
    assert_eq!(found.front..found.end, log.offsets(), "{world}");
    let held: BTreeMap<u64, Vec<u8>> = log
        .records(..)
        .map(|record| record.unwrap_or_else(|error| panic!("{world}: {error}")))
        .map(|record| (record.offset(), record.to_vec()))
        .collect();
    assert_eq!(found.records.keys().collect::<Vec<_>>(), held.keys().collect::<Vec<_>>(), "{world}");
    assert!(found.records == held, "{world}: the bytes differ");
    assert_eq!(found.meta.get("key").cloned(), log.meta("key").unwrap(), "{world}");
    assert!(found.missing.is_empty(), "{world}");
    found
}

#[test]
fn a_reader_from_the_page_reads_what_the_log_reads() {
    let (mut segments, mut indexes, mut torn) = (0, 0, 0);
    for seed in 0..80 {
        let durability = if seed % 2 == 0 { Durability::Always } else { Durability::Manual };
        let disk = SimDisk::new(seed);
        let log = live(&disk, seed, durability).unwrap();
        segments += log.segments().len();
        log.close().unwrap();
        let found = compare(&files_of(&disk), &log, &format!("world {seed}, closed"));
        assert!(found.clean);
        indexes += found.indexes;

        // Whatever a power cut in the middle of it leaves, both read the same of it.
        let mut dice = Dice(!seed);
        for _ in 0..12 {
            let step = dice.roll(disk.mutations()) + 1;
            let world = format!("world {seed}, crashed at mutation {step}");
            let crashed = SimDisk::new(seed);
            crashed.crash_mid_write(true);
            crashed.crash_at_mutation(step);
            let lived = live(&crashed, seed, durability);
            crashed.power_loss(Loss::Seeded(dice.roll(1 << 20)));
            drop(lived);
            let files = files_of(&crashed);
            let log =
                options(&crashed, durability).open("/log").unwrap_or_else(|error| panic!("{world}: {error}"));
            if !files.contains_key("MANIFEST") {
                assert!(log.recovery().begun && log.offsets().is_empty(), "{world}");
                continue;
            }
            compare(&files, &log, &world);
            torn += usize::from(!log.recovery().cut.is_empty());
            // And of what the recovery made of it.
            log.close().unwrap();
            compare(&files_of(&crashed), &log, &format!("{world}, recovered"));
        }
    }
    // The worlds are worth something: several segments each, with indexes, and torn tails.
    assert!(
        segments > 200 && indexes > 200 && torn > 50,
        "{segments} segments, {indexes} indexes, {torn} torn"
    );
}

#[test]
fn both_miss_the_same_records_of_a_damaged_segment() {
    for seed in 0..40 {
        let disk = SimDisk::new(seed);
        let mut dice = Dice(seed);
        let log = options(&disk, Durability::Always).open("/log").unwrap();
        for number in 0..60u8 {
            log.append(vec![number; 20 + dice.roll(300) as usize]).unwrap();
        }
        let sealed = log.segments().into_iter().find(|segment| segment.sealed).unwrap();
        log.close().unwrap();
        let position = 1024 + dice.roll(sealed.length - 1024);
        disk.flip_bit(format!("/log/{:016x}.store", sealed.id), position, dice.roll(8) as u8).unwrap();
        let found = read_log(&files_of(&disk)).unwrap();
        let log = options(&disk, Durability::Always).open("/log").unwrap();
        assert_eq!(found.front..found.end, log.offsets());
        for offset in log.offsets() {
            match log.read(offset) {
                Ok(record) => assert_eq!(found.records.get(&offset).map(Vec::as_slice), Some(&*record)),
                Err(Error::Damaged(_)) => assert!(found.missing.contains(&offset), "seed {seed}, {offset}"),
                Err(error) => panic!("{error}"),
            }
        }
        // A bit of padding is covered by no checksum and carries nothing; any other is missed.
        assert!(found.missing.len() <= 1);
    }
}

#[test]
fn both_judge_a_flipped_bit_behind_a_crash_alike() {
    let (mut refused, mut opened) = (0, 0);
    for seed in 0..400 {
        let mut dice = Dice(seed);
        let disk = SimDisk::new(seed);
        let lived = live(&disk, seed, Durability::Always);
        disk.power_loss(Loss::Seeded(dice.roll(1 << 20)));
        drop(lived);
        let files = files_of(&disk);
        let unsealed = {
            let manifest = read_manifest(&files["MANIFEST"]).unwrap();
            let id = manifest.segments.iter().find(|(_, segment)| segment.seal.is_none()).map(|(id, _)| *id);
            id.map(|id| format!("{id:016x}.store"))
        };
        let name = unsealed.filter(|_| dice.roll(3) > 0).unwrap_or("MANIFEST".to_string());
        let used = files[&name].iter().rposition(|byte| *byte != 0).unwrap();
        let (position, bit) = (dice.roll(used as u64 + 1), dice.roll(8) as u8);
        disk.flip_bit(format!("/log/{name}"), position, bit).unwrap();
        let world = format!("world {seed}, bit {bit} of byte {position} of {name}");
        let files = files_of(&disk);
        match options(&disk, Durability::Always).open("/log") {
            Ok(log) => {
                opened += 1;
                compare(&files, &log, &world);
            }
            Err(error) => {
                refused += 1;
                assert!(read_log(&files).is_err(), "{world}: {error}");
            }
        }
    }
    assert!(refused > 50 && opened > 50, "{refused} refused, {opened} opened");
}
