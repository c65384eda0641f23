//! Bytes that no log writes any more, or never did: forged from docs/FORMAT.md and the public frame codec.
//!
//! It owns how a MANIFEST and a base sector are put together by hand, with checksums that hold. What they say
//! is the caller's.

use std::path::Path;

use stonelog::disk::sim::SimDisk;
use stonelog::frame::{Header, Kind, Lag, PayloadChecksum, Seed, encode_header};
use stonelog::manifest::{Edit, Reading};
use stonelog::names;
use stonelog::recovery::{Depth, Findings, inspect};
use stonelog::scan::{Extent, scan};

use crate::common::{DIRECTORY, path};

pub const MANIFEST: &str = "MANIFEST";

pub fn findings(disk: &SimDisk) -> Findings {
    inspect(disk, Path::new(DIRECTORY), Depth::Everything).unwrap()
}

/// The log's identity, as the manifest says.
pub fn uuid(disk: &SimDisk) -> [u8; 16] {
    let Reading::Whole { state, .. } = findings(disk).manifest else { panic!("no manifest") };
    state.uuid
}

/// Where the frames of the MANIFEST lie, and the position behind the last.
pub fn manifest_frames(disk: &SimDisk) -> Vec<(u64, u64)> {
    let Reading::Whole { state, generation, length, .. } = findings(disk).manifest else {
        panic!("no manifest")
    };
    let bytes = disk.read_file(path(MANIFEST)).unwrap();
    let seed = Seed::of_manifest(&state.uuid, generation);
    let extent = Extent { seed, start: 512, end: length, base: Some(0), ordinal_end: None };
    let mut frames = Vec::new();
    scan(&bytes[..], &extent, |frame| {
        frames.push((frame.position, frame.position + frame.header.frame_bytes()));
    });
    frames
}

/// The edits of the MANIFEST.
pub fn edits(disk: &SimDisk) -> Vec<Edit> {
    let bytes = disk.read_file(path(MANIFEST)).unwrap();
    let payload = |(position, _): (u64, u64)| {
        let at = position as usize;
        let length = u32::from_le_bytes(bytes[at + 4..at + 8].try_into().unwrap()) & 0x0fff_ffff;
        Edit::decode(&bytes[at + 16..at + 16 + length as usize]).unwrap()
    };
    manifest_frames(disk).into_iter().map(payload).collect()
}

/// One frame of a manifest, of a batch that begins with edit `first` and ends with edit `last`.
fn manifest_frame(payload: &[u8], ordinal: u32, first: u32, last: u32, seed: Seed) -> Vec<u8> {
    let header = Header {
        kind: if ordinal == last { Kind::Record } else { Kind::RecordMore },
        length: payload.len() as u32,
        ordinal,
        lag: Lag::between(u64::from(ordinal), u64::from(first)),
    };
    let mut bytes = encode_header(&header, PayloadChecksum::of(payload), seed).to_vec();
    bytes.extend_from_slice(payload);
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    bytes
}

/// A whole MANIFEST of one batch, as long as `length` says or as the edits need.
pub fn manifest(uuid: &[u8; 16], version: u32, generation: u64, edits: &[Vec<u8>], length: usize) -> Vec<u8> {
    let seed = Seed::of_manifest(uuid, generation);
    let last = edits.len() as u32 - 1;
    let frames: Vec<u8> =
        (0..).zip(edits).flat_map(|(ordinal, edit)| manifest_frame(edit, ordinal, 0, last, seed)).collect();
    let length = length.max((512 + frames.len()).next_multiple_of(4096));
    let mut bytes = manifest_head(uuid, version, generation, length as u64);
    bytes.extend(frames);
    bytes.resize(length, 0);
    bytes
}

fn manifest_head(uuid: &[u8; 16], version: u32, generation: u64, length: u64) -> Vec<u8> {
    let mut head = b"STONEMAN".to_vec();
    head.extend(version.to_le_bytes());
    head.extend([0; 4]);
    head.extend(uuid);
    head.extend(generation.to_le_bytes());
    head.extend(length.to_le_bytes());
    head.extend(crc32fast::hash(&head).to_le_bytes());
    head.resize(512, 0);
    head
}

/// Cuts the MANIFEST down to its edits, as a log gets it that finds no room for more on a full disk.
pub fn without_room(disk: &SimDisk) {
    let Ok(findings) = inspect(disk, Path::new(DIRECTORY), Depth::Opening) else { return };
    let Reading::Whole { state, generation, length, .. } = findings.manifest else { return };
    let length = length.next_multiple_of(4096);
    disk.truncate(path(MANIFEST), length).unwrap();
    disk.overwrite(path(MANIFEST), 0, manifest_head(&state.uuid, 1, generation, length)).unwrap();
}

/// Writes the MANIFEST anew, with its edits changed.
pub fn rewrite(disk: &SimDisk, change: impl FnOnce(&mut Vec<Edit>)) {
    let mut changed = edits(disk);
    change(&mut changed);
    rewrite_raw(disk, 1, &changed.iter().map(Edit::encode).collect::<Vec<_>>());
}

/// Writes the MANIFEST anew, of these edits as bytes.
pub fn rewrite_raw(disk: &SimDisk, version: u32, edits: &[Vec<u8>]) {
    let bytes = manifest(&uuid(disk), version, 77, edits, 0);
    disk.write_file(path(MANIFEST), bytes).unwrap();
}

/// A base sector that says `base`.
pub fn base_sector(uuid: &[u8; 16], id: u64, base: u64) -> Vec<u8> {
    let mut bytes = b"STONBASE".to_vec();
    bytes.extend(base.to_le_bytes());
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&bytes);
    hasher.update(&Seed::of_segment(uuid, id).value().to_le_bytes());
    bytes.extend(hasher.finalize().to_le_bytes());
    bytes.resize(512, 0);
    bytes
}

/// A store's head of another format version, its checksum holding.
pub fn head_of_version(disk: &SimDisk, id: u64, version: u32) {
    let name = path(&names::store(id));
    let mut head = disk.read_file(&name).unwrap()[..512].to_vec();
    head[8..12].copy_from_slice(&version.to_le_bytes());
    let end = (8..508).rev().find(|end| {
        let stored = u32::from_le_bytes(disk.read_file(&name).unwrap()[*end..*end + 4].try_into().unwrap());
        crc32fast::hash(&disk.read_file(&name).unwrap()[..*end]) == stored
    });
    let end = end.unwrap();
    let checksum = crc32fast::hash(&head[..end]);
    head[end..end + 4].copy_from_slice(&checksum.to_le_bytes());
    disk.overwrite(name, 0, head).unwrap();
}
