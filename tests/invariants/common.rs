//! What the modules share: a log of small segments on a simulated disk, records whose bytes follow
//! from their offset, and a look at the frames of a store at rest.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use stonelog::disk::sim::{Loss, SimDisk};
use stonelog::frame::{Kind, Seed};
use stonelog::manifest::Reading;
use stonelog::recovery::{Depth, inspect};
use stonelog::scan::{Extent, scan};
use stonelog::store::{FIRST_FRAME, Head};
use stonelog::{Damage, DamagePolicy, Durability, Error, Log, Options, ReadMode, names};

pub use crate::support::DIRECTORY;

pub const SEGMENT: u64 = 4096;

pub fn options(disk: &SimDisk) -> Options {
    Options::new().disk(Arc::new(disk.clone())).segment_bytes(SEGMENT).read_mode(ReadMode::Buffered)
}

pub fn manual(disk: &SimDisk) -> Options {
    options(disk).durability(Durability::Manual)
}

pub fn open(disk: &SimDisk) -> Log {
    options(disk).open(DIRECTORY).unwrap_or_else(|error| panic!("does not open: {error}"))
}

pub fn serve(disk: &SimDisk) -> stonelog::Result<Log> {
    options(disk).on_damage(DamagePolicy::Serve).open(DIRECTORY)
}

pub fn path(name: &str) -> String {
    format!("{DIRECTORY}/{name}")
}

/// The record that every test gives the offset `offset`; some are empty, few end at a multiple of 8.
pub fn content(offset: u64) -> Vec<u8> {
    if offset % 13 == 12 {
        return Vec::new();
    }
    let length = 9 + (offset * 37 % 180) as usize;
    let mut bytes = format!("<{offset}>").into_bytes();
    while bytes.len() < length {
        bytes.push((bytes.len() as u64 * 131 + offset * 7 + 1) as u8 | 1);
    }
    bytes
}

/// Appends the next `count` records, each by itself.
pub fn append(log: &Log, count: u64) {
    for _ in 0..count {
        let next = log.offsets().end;
        assert_eq!(log.append(content(next)).unwrap(), next);
    }
}

/// Appends the next `count` records as one batch.
pub fn append_batch(log: &Log, count: u64) -> stonelog::Result<Range<u64>> {
    let next = log.offsets().end;
    log.append_batch((next..next + count).map(content))
}

/// Checks that exactly `offsets` are there, each with the right bytes, by every way of reading.
pub fn check(log: &Log, offsets: Range<u64>) {
    assert_eq!(log.offsets(), offsets);
    check_records(log, offsets);
}

/// Checks that `offsets` can be read and are right.
pub fn check_records(log: &Log, offsets: Range<u64>) {
    for offset in offsets.clone() {
        assert_eq!(&*log.read(offset).unwrap(), content(offset), "record {offset}");
    }
    let listed: Vec<_> =
        log.records(offsets.clone()).map(|r| r.map(|r| (r.offset(), r.to_vec())).unwrap()).collect();
    assert_eq!(listed, offsets.map(|offset| (offset, content(offset))).collect::<Vec<_>>());
}

/// The disk as another machine would find it after this loss of power; the old one lives on.
pub fn after(disk: &SimDisk, loss: Loss) -> SimDisk {
    let world = disk.fork();
    world.crash_at_mutation(0);
    world.clear_faults();
    world.power_loss(loss);
    world
}

/// The disk as it is found after the process alone died.
pub fn killed(disk: &SimDisk) -> SimDisk {
    let world = disk.fork();
    world.crash_at_mutation(0);
    world.clear_faults();
    world.process_crash();
    world
}

/// Every file of a log directory, by name.
pub fn files(disk: &SimDisk) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut names: Vec<String> = disk.file_names(DIRECTORY);
    while let Some(name) = names.pop() {
        match disk.read_file(path(&name)) {
            Some(bytes) => {
                files.insert(name, bytes);
            }
            None => names.extend(disk.file_names(path(&name)).iter().map(|inner| format!("{name}/{inner}"))),
        }
    }
    files
}

/// The names of the stores.
pub fn stores(disk: &SimDisk) -> Vec<String> {
    let names = disk.file_names(DIRECTORY);
    names.into_iter().filter(|name| names::id_of_store(name).is_some()).collect()
}

/// The damage that an operation was refused with.
#[track_caller]
pub fn damage<T: std::fmt::Debug>(outcome: stonelog::Result<T>) -> Damage {
    match outcome {
        Err(Error::Damaged(damage)) => *damage,
        other => panic!("expected Error::Damaged, got {other:?}"),
    }
}

#[track_caller]
pub fn poisoned<T: std::fmt::Debug>(outcome: stonelog::Result<T>) {
    assert!(matches!(outcome, Err(Error::Poisoned { .. })), "expected Error::Poisoned, got {outcome:?}");
}

#[track_caller]
pub fn no_space<T: std::fmt::Debug>(outcome: stonelog::Result<T>) {
    assert!(matches!(outcome, Err(Error::NoSpace { .. })), "expected Error::NoSpace, got {outcome:?}");
}

/// A frame of a store at rest.
#[derive(Debug, Clone)]
pub struct FrameAt {
    pub position: u64,
    /// Behind its payload, without padding.
    pub end: u64,
    /// Behind its padding.
    pub padded_end: u64,
    /// Its record's offset; `None` for a mark.
    pub offset: Option<u64>,
    /// The offset of the first record of its batch.
    pub batch: Option<u64>,
    /// The durable end that it attests.
    pub watermark: Option<u64>,
}

/// A named store of a log at rest.
#[derive(Debug, Clone)]
pub struct StoreAt {
    pub id: u64,
    pub name: String,
    pub seal: Option<u64>,
    pub born: Option<u64>,
    pub length: u64,
    pub frames: Vec<FrameAt>,
}

impl StoreAt {
    pub fn end_of_frames(&self) -> u64 {
        self.frames.last().map_or(FIRST_FRAME, |frame| frame.padded_end)
    }
}

/// A log at rest, taken apart.
#[derive(Debug, Clone)]
pub struct AtRest {
    pub stores: Vec<StoreAt>,
    pub closed: Option<u64>,
}

/// Takes an undamaged log apart.
pub fn take_apart(disk: &SimDisk) -> AtRest {
    let findings = inspect(disk, Path::new(DIRECTORY), Depth::Everything).unwrap();
    let Reading::Whole { state, .. } = &findings.manifest else { panic!("no manifest") };
    let mut stores = Vec::new();
    for segment in &findings.segments {
        let name = names::store(segment.id);
        let bytes = disk.read_file(path(&name)).unwrap();
        let head = Head::parse(&bytes).unwrap();
        let seed = Seed::of_segment(&head.uuid, head.id);
        let end = segment.state.seal.map_or(bytes.len() as u64, |seal| seal.length);
        let extent = Extent { seed, start: FIRST_FRAME, end, base: None, ordinal_end: None };
        let mut frames = Vec::new();
        let mut batch = None;
        scan(&bytes[..], &extent, |frame| {
            let at = segment.base.map(|base| base + u64::from(frame.header.ordinal));
            let of_batch = batch.or(at);
            batch = if frame.header.kind == Kind::RecordMore { of_batch } else { None };
            frames.push(FrameAt {
                position: frame.position,
                end: frame.position + 16 + u64::from(frame.header.length),
                padded_end: frame.position + frame.header.frame_bytes(),
                offset: at.filter(|_| frame.header.kind.is_record()),
                batch: of_batch.filter(|_| frame.header.kind.is_record()),
                watermark: at.zip(frame.header.lag.records()).map(|(at, lag)| at - u64::from(lag)),
            });
        });
        stores.push(StoreAt {
            id: segment.id,
            name,
            seal: segment.state.seal.map(|seal| seal.next_offset),
            born: segment.state.born.map(|born| born.durable_end),
            length: bytes.len() as u64,
            frames,
        });
    }
    AtRest { stores, closed: state.closed.map(|close| close.next_offset) }
}

#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Polls a future on a disk without threads, asking again even where nobody woke it; says too
/// whether a runtime, which polls only what was woken, would have got there.
pub fn poll_to_end<F: Future>(future: F) -> (F::Output, bool) {
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(woken.clone());
    let mut future = pin!(future);
    let mut honest = true;
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return (output, honest);
        }
        honest &= woken.0.swap(false, Ordering::SeqCst);
    }
}
