//! A door for Stonelog's own benches (benches/own) to layers that nobody else can reach.
//!
//! It owns nothing: each function is the layer's own, under a name that a bench can call. It is there only
//! with the feature `_bench`, and promises nothing to anybody.
//!
//! Why not the self dev-dependency that the tests use: it brings the mutants' switches into the hot paths,
//! and a bench would measure what no user runs.

use crate::frame::{self, Header, Seed};
use crate::index::{self, INDEX_HEADER_BYTES, IndexHeader, IndexIdentity};

/// Hashes a payload and appends its whole frame to `buffer`.
pub fn encode(buffer: &mut Vec<u8>, header: &Header, payload: &[u8], seed: Seed) {
    frame::encode_into(buffer, header, payload, seed);
}

/// The index of a segment that is being written.
#[derive(Debug)]
pub struct MemoryIndex(index::MemoryIndex);

impl MemoryIndex {
    /// The index of frames at these positions; `None` where it cannot hold one of them.
    pub fn of(positions: &[u64]) -> Option<MemoryIndex> {
        let memory = index::MemoryIndex::new();
        for position in positions {
            memory.push(*position)?;
        }
        Some(MemoryIndex(memory))
    }

    /// The position of a record's frame.
    #[inline]
    pub fn get(&self, ordinal: u32) -> Option<u64> {
        self.0.get(ordinal)
    }
}

/// The index of a sealed segment, as its file has it.
#[derive(Debug)]
pub struct SealedIndex {
    header: IndexHeader,
    file: Vec<u8>,
}

impl SealedIndex {
    /// The index of frames at these positions in a store of `store_length` bytes, in the form that fits;
    /// `None` where there are too many.
    pub fn of(positions: &[u64], store_length: u64) -> Option<SealedIndex> {
        let identity = IndexIdentity { segment_id: 1, seed: 1 };
        let count = u32::try_from(positions.len()).ok()?;
        let file = index::encode(&identity, store_length, positions.iter().copied(), count);
        Some(SealedIndex { header: IndexHeader::parse(&file).ok()?, file })
    }

    /// The position of a record's frame.
    #[inline]
    pub fn get(&self, ordinal: u32) -> Option<u64> {
        self.header.lookup_in(self.file.get(INDEX_HEADER_BYTES..)?, ordinal)
    }

    /// How many bytes its file has.
    pub fn file_bytes(&self) -> usize {
        self.file.len()
    }
}
