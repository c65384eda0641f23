//! Logs at rest, to begin from: each as a real one comes to be.

use std::collections::BTreeMap;
use std::sync::Arc;

use stonelog::disk::sim::{Loss, SimDisk};
use stonelog::{DamagePolicy, Durability, Log, Options, ReadMode};

pub const DIRECTORY: &str = "/log";

pub fn path(name: &str) -> String {
    format!("{DIRECTORY}/{name}")
}

pub fn options(disk: &SimDisk) -> Options {
    Options::new().disk(Arc::new(disk.clone())).segment_bytes(4096).read_mode(ReadMode::Buffered)
}

/// The payload of the record at `offset`.
pub fn content(offset: u64) -> Vec<u8> {
    let length = [0, 5, 40, 300, 8, 64, 1100, 17][(offset % 8) as usize];
    (0..length).map(|place: u64| (offset * 31 + place * 7) as u8).collect()
}

fn append(log: &Log, count: u64) {
    for _ in 0..count {
        log.append(content(log.offsets().end)).expect("append");
    }
}

/// The files of the log on `disk`, by name.
pub fn files(disk: &SimDisk) -> BTreeMap<String, Vec<u8>> {
    let names = disk.file_names(DIRECTORY);
    names.into_iter().filter_map(|name| Some((name.clone(), disk.read_file(path(&name))?))).collect()
}

/// What is left of a log that is open now.
fn left(disk: &SimDisk, loss: Loss) -> SimDisk {
    let left = disk.fork();
    left.power_loss(loss);
    left
}

fn closed(records: u64) -> SimDisk {
    let disk = SimDisk::new(1);
    let log = options(&disk).open(DIRECTORY).expect("open");
    append(&log, records);
    log.put_meta("vote", b"somebody").expect("put_meta");
    log.close().expect("close");
    left(&disk, Loss::Nothing)
}

/// Segments, batches, metadata, truncations of both ends; then the power goes.
fn busy(seed: u64, loss: Loss) -> SimDisk {
    let disk = SimDisk::new(seed);
    let log = options(&disk).open(DIRECTORY).expect("open");
    append(&log, 30);
    log.put_meta("vote", b"somebody").expect("put_meta");
    let batch = (30..34).map(content);
    log.append_batch(batch).expect("append_batch");
    log.truncate_front(9).expect("truncate_front");
    log.truncate_back(32).expect("truncate_back");
    append(&log, 9);
    for offset in 41..44 {
        drop(log.submit(content(offset)).expect("submit"));
    }
    left(&disk, loss)
}

/// Written without syncs: much is torn.
fn torn(seed: u64) -> SimDisk {
    let disk = SimDisk::new(seed);
    let log = options(&disk).durability(Durability::Manual).open(DIRECTORY).expect("open");
    append(&log, 20);
    log.sync().expect("sync");
    append(&log, 12);
    left(&disk, Loss::Seeded(seed))
}

/// Crashed, recovered into a copy, and crashed again.
fn recovered() -> SimDisk {
    let disk = torn(3);
    let log = options(&disk).open(DIRECTORY).expect("open");
    append(&log, 3);
    left(&disk, Loss::Everything)
}

/// A recovery that was interrupted, with its copy lying about.
fn interrupted() -> SimDisk {
    let disk = busy(4, Loss::Everything);
    for step in 1..200 {
        let world = disk.fork();
        world.crash_at_mutation(step);
        drop(options(&world).open(DIRECTORY));
        world.power_loss(Loss::Everything);
        let manifest = world.read_file(path("MANIFEST"));
        let same = manifest == disk.read_file(path("MANIFEST"));
        let copied = files(&world).len() > files(&disk).len();
        let whole = files(&world).values().last().is_some_and(|bytes| bytes.len() > 1100 && bytes[1024] != 0);
        if same && copied && whole {
            return world;
        }
    }
    disk
}

/// Damaged in the middle, and served all the same.
fn served() -> SimDisk {
    let disk = torn(5);
    let names = files(&disk);
    let store = names.keys().find(|name| name.ends_with(".store")).expect("a store");
    disk.flip_bit(path(store), 1100, 3).expect("flip");
    let log = options(&disk).on_damage(DamagePolicy::Serve).open(DIRECTORY).expect("open");
    append(&log, 2);
    left(&disk, Loss::Everything)
}

/// Every log to begin from.
pub fn at_rest() -> Vec<SimDisk> {
    vec![
        closed(40),
        closed(0),
        busy(2, Loss::Everything),
        busy(2, Loss::Nothing),
        busy(7, Loss::Seeded(7)),
        torn(3),
        torn(5),
        recovered(),
        interrupted(),
        served(),
    ]
}

thread_local! {
    static LOGS: Vec<SimDisk> = at_rest();
}

/// A copy of one of them, to do with as one likes.
pub fn one(choice: u8) -> SimDisk {
    LOGS.with(|logs| logs[usize::from(choice) % logs.len()].fork())
}
