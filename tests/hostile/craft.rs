//! Stores crafted against the scanner: each makes one of its decisions as dear as it can be.
//!
//! A crafter knows the log's uuid (it stands in every head), so valid frames are his to make; and
//! since headers overlap at steps of 8 bytes, every one of them can be the beginning of one.

use stonelog::frame::{Header, Kind, Lag, PayloadChecksum, Seed, encode_header};
use stonelog::scan::Extent;

pub const UUID: [u8; 16] = *b"crafted!crafted!";
pub const START: u64 = 1024;
const HEADER: usize = 16;

pub fn seed() -> Seed {
    Seed::of_segment(&UUID, 1)
}

/// All of a store, without a base, so that every lag is plausible.
pub fn extent(bytes: &[u8]) -> Extent {
    Extent { seed: seed(), start: START, end: bytes.len() as u64, base: None, ordinal_end: None }
}

/// A whole valid frame.
pub fn frame(kind: Kind, ordinal: u32, lag: u64, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap();
    let lag = Lag::between(u64::from(ordinal), u64::from(ordinal).saturating_sub(lag));
    let header = Header { kind, length, ordinal, lag };
    let mut bytes = encode_header(&header, PayloadChecksum::of(payload), seed()).to_vec();
    bytes.extend_from_slice(payload);
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    bytes
}

/// A header that no payload answers.
fn claim(ordinal: u32, length: u32) -> [u8; HEADER] {
    let mut bytes = [0x55; HEADER];
    bytes[4..8].copy_from_slice(&((1 << 28) | length).to_le_bytes());
    bytes[8..12].copy_from_slice(&ordinal.to_le_bytes());
    bytes[12..16].copy_from_slice(&1u32.to_le_bytes());
    bytes
}

fn rest(size: usize, position: usize) -> u32 {
    u32::try_from(size - position - HEADER).unwrap().min((1 << 28) - 1)
}

/// At every eighth byte a header that claims `length(size, position)` bytes, with an ordinal that may
/// come there: the checksum alone can refuse it.
fn headers_everywhere(size: usize, length: impl Fn(usize, usize) -> u32) -> Vec<u8> {
    let mut bytes = vec![0; size];
    for position in (START as usize..size - HEADER).step_by(8) {
        // The ordinal of one header is the checksum of the next, and its lag the next one's length.
        let ordinal = u32::try_from((position - START as usize) / 32).unwrap();
        let length = length(size, position).min(rest(size, position));
        bytes[position..position + 4].copy_from_slice(&ordinal.to_le_bytes());
        bytes[position + 4..position + 8].copy_from_slice(&((1 << 28) | length).to_le_bytes());
    }
    bytes
}

/// Valid frames without a payload, each followed by a header that claims `length(size, position)`.
fn chains(size: usize, length: impl Fn(usize, usize) -> u32) -> Vec<u8> {
    let mut bytes = vec![0; START as usize];
    let mut ordinal = 0;
    while bytes.len() + 64 <= size {
        bytes.extend(frame(Kind::Record, ordinal, 0, b""));
        ordinal += 1;
        let length = length(size, bytes.len()).min(rest(size, bytes.len()));
        bytes.extend(claim(ordinal, length));
    }
    bytes.resize(size, 0);
    bytes
}

/// Runs of one frame each, whose broken neighbour's own end leads into the second half of the file,
/// to a header that is the right record's.
fn far_guesses(size: usize) -> Vec<u8> {
    let half = size / 2 / 8 * 8;
    let mut bytes = vec![0; START as usize];
    let mut ordinal = 0u32;
    while bytes.len() + 64 <= half {
        bytes.extend(frame(Kind::Record, ordinal, 0, b""));
        ordinal += 1;
        // In the second half the header at 8 * n is that of record n.
        let target = half + 8 * (ordinal as usize + 1);
        let length = u32::try_from(target - bytes.len() - HEADER).unwrap();
        bytes.extend(claim(ordinal, length));
    }
    bytes.resize(half, 0);
    while bytes.len() + 8 <= size {
        let number = u32::try_from((bytes.len() - half) / 8).unwrap();
        bytes.extend(number.saturating_sub(1).to_le_bytes());
        bytes.extend(((1u32 << 28) | 8).to_le_bytes());
    }
    bytes.resize(size, 0);
    bytes
}

/// Valid frames, each of an earlier record than the one before.
fn going_back(size: usize) -> Vec<u8> {
    let mut bytes = vec![0; START as usize];
    let mut ordinal = u32::try_from(size).unwrap();
    while bytes.len() + 64 <= size {
        bytes.extend(frame(Kind::Record, ordinal, 0, b"back"));
        ordinal -= 1;
    }
    bytes.resize(size, 0);
    bytes
}

/// Valid frames with a word of noise between each two.
fn runs(size: usize) -> Vec<u8> {
    let mut bytes = vec![0; START as usize];
    let mut ordinal = 0;
    while bytes.len() + 64 <= size {
        bytes.extend(frame(Kind::Record, ordinal, 0, b""));
        bytes.extend([0xff; 8]);
        ordinal += 1;
    }
    bytes.resize(size, 0);
    bytes
}

/// Every crafted store of `size` bytes, by name.
pub fn all(size: usize) -> Vec<(&'static str, Vec<u8>)> {
    let scattered = |size: usize, position: usize| {
        let number = (position as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 20;
        u32::try_from(number % size as u64).unwrap() | 1
    };
    vec![
        ("headers that claim the rest", headers_everywhere(size, rest)),
        ("headers that claim 4096 bytes", headers_everywhere(size, |_, _| 4096)),
        ("headers that claim half a window", headers_everywhere(size, |_, _| 512 << 10)),
        ("headers that claim a window", headers_everywhere(size, |_, _| (1 << 20) - 16)),
        ("headers that claim more than a window", headers_everywhere(size, |_, _| (1 << 20) + 8)),
        ("headers that end anywhere", headers_everywhere(size, scattered)),
        ("short frames and claims of the rest", chains(size, rest)),
        ("short frames and claims of 4096 bytes", chains(size, |_, _| 4096)),
        ("short frames and claims that end anywhere", chains(size, scattered)),
        ("guesses that lead far", far_guesses(size)),
        ("frames that go back", going_back(size)),
        ("runs of one frame", runs(size)),
    ]
}

/// The same store as one of segment 1 of another log: its valid frames sealed for that one.
pub fn with_identity(mut bytes: Vec<u8>, uuid: &[u8; 16]) -> Vec<u8> {
    let other = Seed::of_segment(uuid, 1);
    let mut frames = Vec::new();
    stonelog::scan::scan(&bytes[..], &extent(&bytes), |frame| frames.push(frame));
    for frame in frames {
        let position = frame.position as usize;
        let payload = &bytes[position + HEADER..][..frame.header.length as usize];
        let head = encode_header(&frame.header, PayloadChecksum::of(payload), other);
        bytes[position..position + HEADER].copy_from_slice(&head);
    }
    bytes
}
