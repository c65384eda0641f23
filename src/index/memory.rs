//! The index of a segment that is being written, in memory.
//!
//! It owns the chunks that entries are in, and how one writer publishes them to readers without a lock. It
//! does not know what a position means, nor the forms on disk. Invariant: an entry below the count is whole.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

#[cfg(test)]
use super::NO_FRAME;
use super::{UNIT_BYTES, unit_of};
use crate::sync;

/// The first chunk has `1 << FIRST_CHUNK_BITS` entries, each further one twice as many as the last.
const FIRST_CHUNK_BITS: u32 = 10;
/// Enough chunks for every ordinal that a `u32` can name.
pub(super) const CHUNKS: usize = 23;

/// The index of a segment that is being written: one writer appends, many readers look up without a
/// lock.
///
/// Entries are in chunks that are never moved, each twice as long as the last, so memory is at most
/// about twice what the records need (4 bytes each), and 4 KiB at first. Why not a `Vec` behind a
/// lock, or an `ArcSwap` of one: the one makes readers wait for the writer, the other copies what
/// it has whenever it grows.
#[derive(Debug)]
pub(crate) struct MemoryIndex {
    pub(super) chunks: Box<[OnceLock<Box<[AtomicU32]>>]>,
    /// How many entries count: what publishes them.
    count: sync::atomic::AtomicU32,
}

/// The chunk that holds an ordinal, and the place in it.
#[inline]
pub(super) fn place_of(ordinal: u32) -> (usize, usize) {
    // Chunk k begins at ordinal (2^k - 1) * 1024, so k is the binary logarithm of this number.
    let number = (ordinal >> FIRST_CHUNK_BITS) + 1;
    let chunk = number.ilog2();
    let start = ((1u32 << chunk) - 1) << FIRST_CHUNK_BITS;
    (chunk as usize, (ordinal - start) as usize)
}

impl MemoryIndex {
    /// An index of no records.
    pub(crate) fn new() -> Self {
        Self {
            chunks: (0..CHUNKS).map(|_| OnceLock::new()).collect(),
            count: sync::atomic::AtomicU32::new(0),
        }
    }

    /// Appends the position of the next record's frame ([`NO_FRAME`](super::NO_FRAME) for a damaged one) and returns
    /// its ordinal. For one writer at a time: callers serialise.
    ///
    /// `None`, with nothing appended, when the position is not a multiple of 8 below 2^35, or when
    /// there are `u32::MAX` records.
    #[inline]
    #[must_use = "a position that was not taken leaves every later record under a wrong ordinal"]
    pub(crate) fn push(&self, position: u64) -> Option<u32> {
        let unit = unit_of(position)?;
        let ordinal = self.count.load(Ordering::Relaxed);
        let next = ordinal.checked_add(1)?;
        let (chunk, place) = place_of(ordinal);
        let entries = self.chunks.get(chunk)?.get_or_init(|| new_chunk(chunk));
        entries.get(place)?.store(unit, Ordering::Relaxed);
        // Release: whoever sees the count sees the entry too.
        self.count.store(next, Ordering::Release);
        Some(ordinal)
    }

    /// The position of a record's frame; `None` where there is no such record, or it is damaged
    /// (see [`MemoryIndex::len`] to tell the two apart).
    ///
    /// A reader that races with [`MemoryIndex::truncate`] and the pushes after it may get the old or
    /// the new position; the frame there says whether it is what the reader wanted.
    #[inline]
    pub(crate) fn get(&self, ordinal: u32) -> Option<u64> {
        if ordinal >= self.len() {
            return None;
        }
        let (chunk, place) = place_of(ordinal);
        match self.chunks.get(chunk)?.get()?.get(place)?.load(Ordering::Relaxed) {
            0 => None,
            unit => Some(u64::from(unit) * UNIT_BYTES),
        }
    }

    /// How many records there are.
    #[inline]
    pub(crate) fn len(&self) -> u32 {
        self.count.load(Ordering::Acquire)
    }

    /// Forgets the records from ordinal `count` on; no effect where there are no more than that.
    /// For the one writer: a group that could not be written is cut. Memory is kept for the next.
    pub(crate) fn truncate(&self, count: u32) {
        if count < self.count.load(Ordering::Relaxed) {
            self.count.store(count, Ordering::Release);
        }
    }

    /// The positions of the first `count` records, [`NO_FRAME`](super::NO_FRAME) for damaged and missing ones: what
    /// [`encode`](super::encode) takes.
    #[cfg(test)]
    pub(crate) fn positions(&self, count: u32) -> impl Iterator<Item = u64> + Clone {
        (0..count).map(|ordinal| self.get(ordinal).unwrap_or(NO_FRAME))
    }
}

#[cold]
fn new_chunk(chunk: usize) -> Box<[AtomicU32]> {
    (0..1usize << FIRST_CHUNK_BITS << chunk).map(|_| AtomicU32::new(0)).collect()
}
