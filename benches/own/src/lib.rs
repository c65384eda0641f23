//! What the benches and the instruction counts share: the same work under a clock and under callgrind.
//!
//! It owns how frames, indexes and logs to measure are made. It measures nothing.

#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    reason = "a bench measures the real machine, and stops at the first surprise"
)]

use std::path::Path;

use stonelog::frame::{self, HEADER_BYTES, Header, Kind, Lag, PayloadChecksum, Seed};
use stonelog::scan::{self, Extent};
use stonelog::{Durability, Options, bench};
use tempfile::TempDir;

/// A temporary directory: below `STONELOG_BENCH_DIR` where that is set. It goes when this is dropped.
pub fn home() -> TempDir {
    let base = std::env::var_os("STONELOG_BENCH_DIR").map_or_else(std::env::temp_dir, Into::into);
    tempfile::Builder::new().prefix("stonelog-bench-").tempdir_in(base).unwrap()
}

/// Nothing waits for the disk.
pub fn options() -> Options {
    Options::new().durability(Durability::Manual)
}

/// A payload of `size` bytes.
pub fn payload(size: usize) -> Vec<u8> {
    (0..size).map(|at| (at * 31 % 251) as u8).collect()
}

/// Fills a new log with `count` records of `size` bytes, each beginning with its offset, and closes it.
pub fn fill(directory: &Path, options: Options, size: usize, count: u64) {
    let log = options.open(directory).unwrap();
    let mut payload = payload(size);
    for offset in 0..count {
        payload[..8].copy_from_slice(&offset.to_le_bytes());
        assert_eq!(log.append(&payload).unwrap(), offset);
    }
    log.close().unwrap();
}

/// Numbers in no order, the same in every run.
#[derive(Debug, Clone, Copy)]
pub struct Random(u64);

impl Default for Random {
    fn default() -> Random {
        Random(0x9E37_79B9_7F4A_7C15)
    }
}

impl Random {
    /// The next one below `limit`, which is at most 2^31.
    #[inline]
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        // No division: a lookup costs less than one.
        ((self.0 >> 33) * limit) >> 31
    }
}

/// Frames one behind the other, as in a store behind its head.
#[derive(Debug)]
pub struct Frames {
    seed: Seed,
    /// The frames.
    pub bytes: Vec<u8>,
    positions: Vec<u64>,
}

impl Frames {
    /// `count` frames whose payloads have `size` bytes.
    pub fn of_size(size: usize, count: u32) -> Frames {
        Frames::of_sizes(count, |_| size)
    }

    /// `count` frames, the payload of each as long as `size` says.
    pub fn of_sizes(count: u32, mut size: impl FnMut(u32) -> usize) -> Frames {
        let mut frames = Frames { seed: seed(), bytes: Vec::new(), positions: Vec::new() };
        for ordinal in 0..count {
            let payload = payload(size(ordinal));
            frames.positions.push(frames.bytes.len() as u64);
            bench::encode(&mut frames.bytes, &header(ordinal, payload.len()), &payload, frames.seed);
        }
        frames
    }

    /// How many there are.
    pub fn count(&self) -> u32 {
        self.positions.len() as u32
    }

    /// Where each begins, in a store that has a head before them.
    pub fn positions_in_store(&self) -> Vec<u64> {
        self.positions.iter().map(|position| position + stonelog::store::FIRST_FRAME).collect()
    }

    /// How long such a store is.
    pub fn store_length(&self) -> u64 {
        self.bytes.len() as u64 + stonelog::store::FIRST_FRAME
    }

    /// Decodes and verifies each; how many hold.
    pub fn verify(&self) -> u32 {
        let mut sound = 0;
        for position in &self.positions {
            let bytes = &self.bytes[*position as usize..];
            let (head, rest) = bytes.split_first_chunk().unwrap();
            let Some(header) = frame::decode_header(head) else { continue };
            let payload = PayloadChecksum::of(&rest[..header.length as usize]);
            sound += u32::from(frame::verifies(head, payload, self.seed));
        }
        sound
    }

    /// Scans them as recovery does; how many records it found.
    pub fn scan(&self) -> u32 {
        let extent = Extent {
            seed: self.seed,
            start: 0,
            end: self.bytes.len() as u64,
            base: Some(0),
            ordinal_end: None,
        };
        let mut seen = 0;
        let outcome = scan::scan(self.bytes.as_slice(), &extent, |frame| {
            seen += u32::from(frame.header.kind.is_record());
        });
        assert_eq!(outcome.runs.len(), 1);
        seen
    }
}

/// Encodes `count` frames of `payload` into `buffer`, which is emptied first; how many bytes they have.
pub fn encode(buffer: &mut Vec<u8>, payload: &[u8], count: u32) -> u64 {
    buffer.clear();
    let seed = seed();
    for ordinal in 0..count {
        bench::encode(buffer, &header(ordinal, payload.len()), payload, seed);
    }
    assert!(buffer.len() as u64 >= u64::from(count) * HEADER_BYTES);
    buffer.len() as u64
}

/// The seed of a segment.
fn seed() -> Seed {
    Seed::of_segment(b"0123456789abcdef", 1)
}

fn header(ordinal: u32, length: usize) -> Header {
    Header { kind: Kind::Record, length: length as u32, ordinal, lag: Lag::NONE }
}
