//! The targets: bytes in, a panic where a promise breaks.

use std::path::Path;

use stonelog::disk::sim::SimDisk;
use stonelog::frame::{self, Header, Kind, Lag, PayloadChecksum, Seed};
use stonelog::manifest::{self, Edit, Reading, State};
use stonelog::recovery::{Depth, inspect};
use stonelog::scan::{Extent, Outcome, scan as scan_bytes};
use stonelog::{DamagePolicy, Error, Log, names, store};

use super::bytes::Bytes;
use super::logs::{self, DIRECTORY, content, options, path};
use super::mutate;
use super::reference;

const UUID: [u8; 16] = *b"fuzzing!fuzzing!";

/// The codecs of single things: a frame's header, an edit, a store's head, a name.
pub fn frame(data: &[u8]) {
    if let Some(head) = data.first_chunk::<16>()
        && let Some(header) = frame::decode_header(head)
    {
        assert!(header.frame_bytes() >= 16 && header.frame_bytes().is_multiple_of(8));
        let payload = &data[16..];
        let seed = Seed::of_segment(&UUID, 1);
        let checksum = PayloadChecksum::of(payload);
        let again = frame::encode_header(&header, checksum, seed);
        assert_eq!(frame::decode_header(&again), Some(header));
        assert_eq!(again[4..], head[4..], "a header has one encoding");
        assert!(frame::verifies(&again, checksum, seed));
        assert_eq!(frame::verifies(head, checksum, seed), again == *head);
    }
    if let Ok(edit) = Edit::decode(data) {
        assert_eq!(edit.encode(), data, "an edit has one encoding");
    }
    if let Some(head) = store::Head::parse(data) {
        assert_eq!(store::Head::parse(&head.encode()), Some(head));
    }
    if let Ok(name) = std::str::from_utf8(data)
        && let Some(id) = names::id_of_store(name)
    {
        assert_eq!(names::store(id), name);
    }
}

/// A store from an input: valid frames, broken ones, claims, noise.
fn crafted(input: &mut Bytes<'_>, seed: Seed) -> Vec<u8> {
    const MOST_BYTES: usize = 16 << 10;
    let mut bytes = vec![0; 32];
    let mut ordinal = 0u32;
    while !input.is_empty() && bytes.len() < MOST_BYTES {
        let choice = input.u8();
        match choice % 8 {
            // Frames: as they follow, with a jump, or to be broken.
            0..=3 => {
                let kind =
                    [Kind::Record, Kind::RecordMore, Kind::Mark, Kind::Record][usize::from(choice >> 3) % 4];
                if choice & 0x80 != 0 {
                    ordinal = ordinal.wrapping_add(input.number() as u32);
                }
                let payload = if kind == Kind::Mark { &[] } else { input.piece() };
                let lag = Lag::between(if choice & 0x40 != 0 { input.number() } else { 0 }, 0);
                let header = Header { kind, length: payload.len() as u32, ordinal, lag };
                let mut head = frame::encode_header(&header, PayloadChecksum::of(payload), seed);
                if choice & 0x20 != 0 {
                    head[usize::from(input.u8()) % 16] ^= 1 << (choice >> 3 & 3);
                }
                bytes.extend(head);
                bytes.extend(payload);
                bytes.resize(bytes.len().next_multiple_of(8), 0);
                if kind.is_record() {
                    ordinal = ordinal.wrapping_add(1);
                }
            }
            4 => {
                for _ in 0..=choice >> 3 {
                    bytes.extend((input.number() as u32).to_le_bytes());
                    bytes.extend(((1 << 28) | (input.number() as u32 & 0xfff_ffff)).to_le_bytes());
                }
            }
            5 => bytes.resize(bytes.len() + 8 * usize::from(choice >> 3), 0),
            6 => bytes.extend(input.piece()),
            // A piece of what is there, once more.
            _ => {
                let from = usize::from(input.u16()) % bytes.len();
                let count = (8 * usize::from(input.u8())).min(bytes.len() - from);
                bytes.extend_from_within(from..from + count);
            }
        }
        if choice % 8 != 6 {
            bytes.resize(bytes.len().next_multiple_of(8), 0);
        }
    }
    bytes
}

fn as_found(outcome: &Outcome, frames: Vec<(u64, u32)>) -> reference::Found {
    let runs = outcome.runs.iter();
    reference::Found {
        frames,
        runs: runs
            .map(|run| (run.ordinals.clone(), run.positions.clone(), run.whole_ordinal, run.whole_position))
            .collect(),
        watermark: outcome.watermark.map(|mark| mark.relative),
        tail: outcome.tail.clone(),
    }
}

/// The scanner agrees with a plain one, and works no more than it states.
pub fn scan(data: &[u8]) {
    let mut input = Bytes(data);
    let shape = input.u8();
    let seed = Seed::of_segment(&UUID, u64::from(shape & 1));
    let base = (shape & 2 != 0).then(|| input.number());
    let ordinal_end = (shape & 4 != 0).then(|| input.number() as u32);
    let bytes = if shape & 8 != 0 { input.0.to_vec() } else { crafted(&mut input, seed) };
    let end = if shape & 16 != 0 {
        u64::MAX
    } else {
        bytes.len() as u64 - (bytes.len() as u64).min(u64::from(shape >> 5))
    };
    let extent = Extent { seed, start: 32, end, base, ordinal_end };
    let mut frames = Vec::new();
    let outcome =
        scan_bytes(&bytes[..], &extent, |frame| frames.push((frame.position, frame.header.ordinal)));
    let most = 8 * bytes.len() as u64;
    assert!(outcome.hashed_bytes <= most, "{} bytes hashed of {}", outcome.hashed_bytes, bytes.len());
    assert_eq!(as_found(&outcome, frames), reference::scan(&bytes, &extent));
}

/// A MANIFEST: as noise, as edits that nobody would write, as true ones with a blow.
pub fn manifest(data: &[u8]) {
    let mut input = Bytes(data);
    let shape = input.u8();
    let bytes = if shape & 1 != 0 {
        input.0.to_vec()
    } else {
        let mut edits = vec![Edit::Init {
            uuid: UUID,
            created_millis: 1,
            first_offset: if shape & 2 != 0 { input.number() } else { 0 },
            last_id: if shape & 4 != 0 { input.number() } else { 0 },
        }];
        while !input.is_empty() && edits.len() < 64 {
            edits.push(mutate::edit(&mut input));
        }
        let length = (shape & 8 != 0).then(|| input.number());
        mutate::forge_manifest(&UUID, u64::from(shape), &edits, length)
    };
    let disk = SimDisk::new(1);
    disk.write_file(path(manifest::FILE_NAME), &bytes).expect("a fresh disk");
    if let Ok(Reading::Whole { state, length, .. }) = manifest::read(&disk, Path::new(DIRECTORY)) {
        assert!(length <= bytes.len() as u64);
        assert_eq!(State::fold(state.edits()), Ok(state), "a fresh manifest would say something else");
    }
    look(&disk);
}

/// An index is never the truth: with any other in its place, what is served stays the same.
pub fn index(data: &[u8]) {
    let mut input = Bytes(data);
    let disk = logs::one(input.u8() % 2 * 2);
    let mut indexes: Vec<String> = disk.file_names(DIRECTORY);
    indexes.retain(|name| names::id_of_index(name).is_some());
    let name = path(&indexes[usize::from(input.u8()) % indexes.len()]);
    let mut bytes = disk.read_file(&name).expect("it was listed");
    let shape = input.u8();
    if shape & 1 != 0 {
        bytes.truncate(usize::from(input.u16()));
    }
    while shape & 2 == 0 && !input.is_empty() {
        let at = usize::from(input.u8()) * 4 % bytes.len().max(4);
        let number = input.number().to_le_bytes();
        let width = if shape & 4 == 0 { 4 } else { 8 };
        let end = (at + width).min(bytes.len());
        if at < end {
            bytes[at..end].copy_from_slice(&number[..end - at]);
        }
    }
    if shape & 2 != 0 {
        bytes.splice(bytes.len().min(64).., input.0.iter().copied());
    }
    if shape & 8 == 0 {
        mutate::reseal_index(&mut bytes);
    }
    disk.write_file(&name, bytes).expect("it was there");
    drop(inspect(&disk, Path::new(DIRECTORY), Depth::Everything));
    for log in [options(&disk.fork()).open_read_only(DIRECTORY), options(&disk.fork()).open(DIRECTORY)] {
        let log = log.expect("an index keeps nobody from opening");
        for offset in log.offsets() {
            assert_eq!(&*log.read(offset).expect("an index loses no record"), content(offset));
        }
    }
}

/// A whole directory.
pub fn open(data: &[u8]) {
    look(&mutate::world(&mut Bytes(data)));
}

/// A directory of a few hundred KiB is opened with at most so many I/O calls.
const MOST_OPENING_STEPS: u64 = 5_000;

/// Opens, reads, appends, closes and opens again, in every way.
pub fn look(disk: &SimDisk) {
    drop(inspect(disk, Path::new(DIRECTORY), Depth::Everything));
    drop(inspect(disk, Path::new(DIRECTORY), Depth::Opening));
    for policy in [DamagePolicy::Refuse, DamagePolicy::Serve] {
        if let Ok(log) = options(&disk.fork()).on_damage(policy).open_read_only(DIRECTORY) {
            read_all(&log);
        }
        let world = disk.fork();
        let before = world.steps();
        let opened = options(&world).on_damage(policy).open(DIRECTORY);
        let steps = world.steps() - before;
        assert!(steps <= MOST_OPENING_STEPS, "opening took {steps} I/O calls");
        let Ok(log) = opened else { continue };
        read_all(&log);
        go_on(&log, &world, policy);
    }
}

fn read_all(log: &Log) {
    let offsets = log.offsets();
    let first = offsets.start..offsets.end.min(offsets.start.saturating_add(200));
    let last = offsets.end.saturating_sub(50).max(first.end)..offsets.end;
    for offset in first.chain(last) {
        match log.read(offset) {
            Ok(_) | Err(Error::Damaged(_) | Error::Lost { .. } | Error::Io { .. }) => {}
            Err(error) => panic!("reading {offset} of {offsets:?}: {error}"),
        }
    }
    let _ = log.records(..).take(200).count();
    let _ = (log.segments(), log.stats(), log.recovery().to_string(), log.meta("vote"));
}

/// Who could open can go on: what is appended now is there, before and after a reopening.
fn go_on(log: &Log, world: &SimDisk, policy: DamagePolicy) {
    let end = log.offsets().end;
    let Ok(offset) = log.append(b"went on") else { return };
    assert_eq!(offset, end);
    log.sync().expect("sync");
    assert_eq!(&*log.read(offset).expect("what was just appended"), b"went on");
    let offsets = log.offsets();
    log.close().expect("close");
    let again = options(world).on_damage(policy).open(DIRECTORY).expect("what was closed opens");
    assert_eq!(again.offsets(), offsets);
    assert_eq!(&*again.read(offset).expect("what was appended, reopened"), b"went on");
}
