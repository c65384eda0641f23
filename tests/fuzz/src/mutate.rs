//! Blows at the files of a log, and the checksums made whole behind them.
//!
//! Random damage ends at the first checksum. So an input may ask that, after its blows, every
//! checksum of a kind of file is computed anew: then its bytes are believed, and what is behind the
//! checksums meets them.

use stonelog::disk::sim::SimDisk;
use stonelog::frame::{self, HEADER_BYTES, Header, Kind, Lag, PayloadChecksum, Seed};
use stonelog::manifest::{Born, Close, Edit, Seal};
use stonelog::scan::{self, Extent};
use stonelog::store::{BASE_POSITION, FIRST_FRAME};
use stonelog::{manifest, names};

use super::bytes::Bytes;
use super::logs::{self, path};

/// Nothing that a fuzzer makes grows beyond this.
pub const MOST_FILE_BYTES: u64 = 256 << 10;
const MOST_BLOWS: usize = 24;
const SECTOR: usize = 512;

/// A log from an input: which one, what is made whole, the blows.
pub fn world(input: &mut Bytes<'_>) -> SimDisk {
    let disk = logs::one(input.u8());
    let whole = input.u8();
    for _ in 0..MOST_BLOWS {
        if input.is_empty() {
            break;
        }
        blow(&disk, input);
    }
    reseal(&disk, whole);
    disk
}

fn blow(disk: &SimDisk, input: &mut Bytes<'_>) {
    let names: Vec<String> = logs::files(disk).into_keys().collect();
    let Some(name) = names.get(usize::from(input.u8()) % names.len().max(1)) else { return };
    let name = path(name);
    let bytes = disk.read_file(&name).unwrap_or_default();
    // Most of a file is reserved zeros: aim at what was written.
    let written = bytes.iter().rposition(|byte| *byte != 0).map_or(1, |last| last + 9).min(bytes.len());
    let kind = input.u8();
    let at = u64::from(input.u16()) % (written.max(1) as u64);
    // A blow at what a former one took away falls into the void.
    let _ = match kind % 16 {
        0 | 1 => disk.overwrite(&name, at, input.piece()),
        2 | 3 => disk.overwrite(&name, at & !3, input.number().to_le_bytes()),
        4 => disk.overwrite(&name, at & !3, (input.number() as u32).to_le_bytes()),
        5 => disk.flip_bit(&name, at, input.u8()),
        6 => disk.zero(&name, at..at + u64::from(input.u16())),
        7 => disk.truncate(&name, at),
        8 => disk.write_file(&name, input.piece()),
        9 => disk.remove_file(&name),
        10 => {
            let other = usize::from(input.u8()) % names.len();
            disk.copy_file(path(&names[other]), &name)
        }
        11 => disk.truncate(&name, (bytes.len() as u64).saturating_add(input.number()).min(MOST_FILE_BYTES)),
        12 => {
            let id = input.number();
            let to = if input.u8().is_multiple_of(2) { names::store(id) } else { names::index(id) };
            disk.copy_file(&name, path(&to))
        }
        13 | 14 => add_edits(disk, input),
        _ => add_frames(disk, &name, bytes, input),
    };
}

/// The end of the chain in a file of frames: position and ordinal.
fn chain_end(bytes: &[u8], seed: Seed, start: u64) -> (u64, u32) {
    let extent = Extent { seed, start, end: bytes.len() as u64, base: None, ordinal_end: None };
    let outcome = scan::scan(bytes, &extent, |_| {});
    outcome.chain().map_or((start, 0), |run| (run.positions.end, run.ordinals.end))
}

fn put(bytes: &mut Vec<u8>, position: u64, frame: &[u8]) {
    let start = position as usize;
    bytes.resize(bytes.len().max(start + frame.len()), 0);
    bytes[start..start + frame.len()].copy_from_slice(frame);
}

fn encoded(kind: Kind, ordinal: u32, lag: u64, payload: &[u8], seed: Seed) -> Vec<u8> {
    let length = if kind == Kind::Mark { 0 } else { payload.len() as u32 };
    let payload = &payload[..length as usize];
    let lag = Lag::between(lag, 0);
    let header = Header { kind, length, ordinal, lag };
    let mut bytes = frame::encode_header(&header, PayloadChecksum::of(payload), seed).to_vec();
    bytes.extend_from_slice(payload);
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    bytes
}

fn kind(choice: u8) -> Kind {
    [Kind::Record, Kind::RecordMore, Kind::Mark, Kind::Record][usize::from(choice) % 4]
}

/// Valid frames behind a store's last one, some with a gap before them.
fn add_frames(disk: &SimDisk, name: &str, mut bytes: Vec<u8>, input: &mut Bytes<'_>) -> std::io::Result<()> {
    let Some(id) = name.rsplit('/').next().and_then(names::id_of_store) else { return Ok(()) };
    let Some(uuid) = bytes.get(16..32).and_then(|uuid| uuid.first_chunk::<16>()).copied() else {
        return Ok(());
    };
    let seed = Seed::of_segment(&uuid, id);
    let (mut position, mut ordinal) = chain_end(&bytes, seed, FIRST_FRAME);
    for _ in 0..=input.u8() % 8 {
        let choice = input.u8();
        position += 8 * u64::from(choice >> 6);
        ordinal = ordinal.wrapping_add(u32::from(choice >> 4 & 3));
        if choice & 8 != 0 {
            ordinal = input.number() as u32;
        }
        let lag = input.number();
        let frame = encoded(kind(choice), ordinal, lag, input.piece(), seed);
        put(&mut bytes, position, &frame);
        position += frame.len() as u64;
        ordinal = ordinal.wrapping_add(1);
        if position > MOST_FILE_BYTES {
            break;
        }
    }
    disk.write_file(name, bytes)
}

/// Edits behind the MANIFEST's last one.
fn add_edits(disk: &SimDisk, input: &mut Bytes<'_>) -> std::io::Result<()> {
    let name = path(manifest::FILE_NAME);
    let Some(mut bytes) = disk.read_file(&name) else { return Ok(()) };
    let Some(seed) = manifest_seed(&bytes) else { return Ok(()) };
    let (mut position, mut ordinal) = chain_end(&bytes, seed, SECTOR as u64);
    for _ in 0..=input.u8() % 8 {
        let choice = input.u8();
        let frame = encoded(kind(choice & 1), ordinal, u64::from(choice >> 4), &edit(input).encode(), seed);
        put(&mut bytes, position, &frame);
        position += frame.len() as u64;
        ordinal += 1;
    }
    disk.write_file(&name, bytes)
}

/// An edit of an input's choosing.
pub fn edit(input: &mut Bytes<'_>) -> Edit {
    let choice = input.u8();
    let seal = |input: &mut Bytes<'_>| Seal {
        next_offset: input.number(),
        length: input.number(),
        first_millis: input.number(),
        last_millis: input.number(),
    };
    let range = |input: &mut Bytes<'_>| {
        let start = input.number();
        start..start.saturating_add(input.number())
    };
    match choice % 10 {
        0 | 1 => {
            let id = input.number();
            let base = (choice & 16 != 0).then(|| input.number());
            let born =
                (choice & 32 != 0).then(|| Born { durable_end: input.number(), length: input.number() });
            Edit::Create { id, base, born }
        }
        2 | 3 => Edit::Seal { id: input.number(), seal: seal(input) },
        4 => Edit::Drop { id: input.number(), quarantine: choice & 16 != 0 },
        5 => Edit::TruncateFront { offset: input.number() },
        6 => Edit::Close(Close { length: input.number(), next_offset: input.number() }),
        7 => Edit::Damaged { offsets: range(input) },
        8 => Edit::Lost { offsets: range(input) },
        _ => Edit::Meta {
            key: String::from_utf8_lossy(input.piece()).chars().take(60).collect(),
            value: (choice & 16 != 0).then(|| input.piece().to_vec()),
        },
    }
}

fn manifest_seed(bytes: &[u8]) -> Option<Seed> {
    let uuid = bytes.get(16..32)?.first_chunk::<16>()?;
    let generation = bytes.get(32..40)?.first_chunk::<8>()?;
    Some(Seed::of_manifest(uuid, u64::from_le_bytes(*generation)))
}

/// A MANIFEST of these edits, all of them one batch; its head claims `length`, or the true one.
pub fn forge_manifest(uuid: &[u8; 16], generation: u64, edits: &[Edit], length: Option<u64>) -> Vec<u8> {
    let seed = Seed::of_manifest(uuid, generation);
    let mut frames = Vec::new();
    for (number, edit) in edits.iter().enumerate() {
        let kind = if number + 1 == edits.len() { Kind::Record } else { Kind::RecordMore };
        frames.extend(encoded(kind, number as u32, number as u64, &edit.encode(), seed));
    }
    let mut bytes = b"STONEMAN\x01\0\0\0\0\0\0\0".to_vec();
    bytes.extend(uuid);
    bytes.extend(generation.to_le_bytes());
    bytes.extend(length.unwrap_or((SECTOR + frames.len()) as u64).to_le_bytes());
    bytes.resize(SECTOR, 0);
    bytes.extend(frames);
    seal_word(&mut bytes, 48, None);
    bytes
}

/// Computes the checksums of the files anew: of stores (bit 0), of the MANIFEST (1), of indexes (2).
pub fn reseal(disk: &SimDisk, whole: u8) {
    for (name, mut bytes) in logs::files(disk) {
        let store = names::id_of_store(&name).filter(|_| whole & 1 != 0);
        if let Some(id) = store {
            reseal_store(&mut bytes, id, whole & 8 != 0);
        } else if name == manifest::FILE_NAME && whole & 2 != 0 {
            seal_word(&mut bytes, 48, None);
            if let Some(seed) = manifest_seed(&bytes) {
                reseal_frames(&mut bytes, SECTOR, seed);
            }
        } else if names::id_of_index(&name).is_some() && whole & 4 != 0 {
            reseal_index(&mut bytes);
        } else {
            continue;
        }
        disk.write_file(path(&name), bytes).expect("a file that was just read");
    }
}

fn reseal_store(bytes: &mut [u8], id: u64, head_too: bool) {
    if head_too {
        seal_word(bytes, 48, None);
    }
    let Some(uuid) = bytes.get(16..32).and_then(|uuid| uuid.first_chunk::<16>()).copied() else { return };
    let seed = Seed::of_segment(&uuid, id);
    let base = BASE_POSITION as usize;
    if bytes.get(base..base + 8) == Some(b"STONBASE")
        && let Some(sector) = bytes.get_mut(base..)
    {
        seal_word(sector, 16, Some(seed));
    }
    reseal_frames(bytes, FIRST_FRAME as usize, seed);
}

pub fn reseal_index(bytes: &mut [u8]) {
    if let Some((header, body)) = bytes.split_at_mut_checked(64) {
        header[48..52].copy_from_slice(&crc32fast::hash(body).to_le_bytes());
        seal_word(header, 60, None);
    }
}

/// The checksum of `bytes[..at]`, with a seed behind them, goes to `at`.
fn seal_word(bytes: &mut [u8], at: usize, seed: Option<Seed>) {
    let Some(covered) = bytes.get(..at) else { return };
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(covered);
    if let Some(seed) = seed {
        hasher.update(&seed.value().to_le_bytes());
    }
    let checksum = hasher.finalize();
    if let Some(word) = bytes.get_mut(at..at + 4) {
        word.copy_from_slice(&checksum.to_le_bytes());
    }
}

fn reseal_frames(bytes: &mut [u8], start: usize, seed: Seed) {
    let mut position = start;
    while let Some(header) = bytes.get(position..).and_then(|rest| rest.first_chunk::<16>()).copied() {
        let payload = position + HEADER_BYTES as usize;
        let decoded = frame::decode_header(&header);
        let whole = decoded
            .and_then(|decoded| Some((decoded, bytes.get(payload..payload + decoded.length as usize)?)));
        let Some((decoded, content)) = whole else {
            position += 8;
            continue;
        };
        let sealed = frame::encode_header(&decoded, PayloadChecksum::of(content), seed);
        bytes[position..payload].copy_from_slice(&sealed);
        position += decoded.frame_bytes() as usize;
    }
}
