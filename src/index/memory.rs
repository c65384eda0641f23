//! The index of a segment that is being written, in memory.
//!
//! It owns the law and the entries, and how one writer publishes both to readers without a lock. It does not
//! know what a position means, nor the forms on disk. Invariant: below the count a record is found by the
//! law, or by an entry that is whole.
//!
//! Most logs have records of one size, whose frames are equally far apart. So an index begins as a *law*: the
//! unit of the first record and the stride to each next one, and no memory for any of them. The first record
//! that does not follow ends the law's *reach*; it and all behind it have entries.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use super::{NO_FRAME, UNIT_BYTES, unit_of};
use crate::sync;

/// The reach of a law that every record follows. There is no record of this ordinal.
const ENDLESS: u32 = u32::MAX;
/// Chunks of one length: four of them double what there is, so that each is at most a quarter of it.
const CHUNKS_OF_A_LENGTH_BITS: u32 = 2;
/// The first chunks have `1 << FIRST_CHUNK_BITS` entries.
const FIRST_CHUNK_BITS: u32 = 8;
/// Enough chunks for every entry that a `u32` can number.
const CHUNKS: usize = 89;

/// The index of a segment that is being written: one writer appends, many readers look up without a
/// lock.
///
/// Entries have 4 bytes and are in chunks that are never moved; memory is at most a quarter more than they
/// need, and 1 KiB. Why not a `Vec` behind a lock, or an `ArcSwap` of one: the one makes readers wait for
/// the writer, the other copies what it has whenever it grows.
///
/// `count` publishes everything else. A law is set before the count says that two records are there, and
/// its reach before the count goes beyond it; neither changes again below the count. So a reader who sees a
/// record counted, finds it: whether he sees the reach of that moment or a later one, it tells the same of his
/// record. Only [`MemoryIndex::truncate`] takes something back.
#[derive(Debug)]
pub(crate) struct MemoryIndex {
    /// The unit of record 0.
    first: AtomicU32,
    /// From one unit to the next, modulo 2^32: then the law can say whatever was pushed, in any order.
    stride: AtomicU32,
    /// The first record that has an entry.
    reach: AtomicU32,
    chunks: Box<[OnceLock<Box<[AtomicU32]>>]>,
    /// How many records count: what publishes them.
    count: sync::atomic::AtomicU32,
}

/// The chunk that holds an entry, and the place in it.
#[inline]
fn place_of(entry: u32) -> (usize, usize) {
    // As if there were four chunks before the first: then a chunk's number is in the upper bits of this one.
    let number = u64::from(entry) + (1 << (FIRST_CHUNK_BITS + CHUNKS_OF_A_LENGTH_BITS));
    let bits = number.ilog2() - CHUNKS_OF_A_LENGTH_BITS;
    // Its upper three bits, less the highest, which is always set; and four chunks for each doubling before.
    let upper = (number >> bits) as usize - (1 << CHUNKS_OF_A_LENGTH_BITS);
    let chunk = ((bits - FIRST_CHUNK_BITS) << CHUNKS_OF_A_LENGTH_BITS) as usize + upper;
    (chunk, (number & ((1 << bits) - 1)) as usize)
}

impl MemoryIndex {
    /// An index of no records.
    pub(crate) fn new() -> Self {
        Self {
            first: AtomicU32::new(0),
            stride: AtomicU32::new(0),
            reach: AtomicU32::new(ENDLESS),
            chunks: (0..CHUNKS).map(|_| OnceLock::new()).collect(),
            count: sync::atomic::AtomicU32::new(0),
        }
    }

    /// Appends the position of the next record's frame ([`NO_FRAME`] for a damaged one) and returns
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
        match ordinal.checked_sub(self.reach.load(Ordering::Relaxed)) {
            None if unit == self.unit_by_law(ordinal) => {}
            None => self.change_law(ordinal, unit)?,
            Some(entry) => self.set_entry(entry, unit)?,
        }
        // Release: whoever sees the count sees the law, its reach and the entry too.
        self.count.store(next, Ordering::Release);
        Some(ordinal)
    }

    /// For a record that does not follow the law: the first two make it, a later one ends its reach.
    #[cold]
    fn change_law(&self, ordinal: u32, unit: u32) -> Option<()> {
        match ordinal {
            0 => self.first.store(unit, Ordering::Relaxed),
            1 => self.stride.store(unit.wrapping_sub(self.unit_by_law(0)), Ordering::Relaxed),
            _ => {
                self.set_entry(0, unit)?;
                self.reach.store(ordinal, Ordering::Relaxed);
            }
        }
        Some(())
    }

    #[inline]
    fn set_entry(&self, entry: u32, unit: u32) -> Option<()> {
        let (chunk, place) = place_of(entry);
        let entries = self.chunks.get(chunk)?.get_or_init(|| new_chunk(chunk));
        entries.get(place)?.store(unit, Ordering::Relaxed);
        Some(())
    }

    #[inline]
    fn unit_by_law(&self, ordinal: u32) -> u32 {
        let stride = self.stride.load(Ordering::Relaxed);
        self.first.load(Ordering::Relaxed).wrapping_add(ordinal.wrapping_mul(stride))
    }

    /// The position of a record's frame; `None` where there is no such record, or it is damaged
    /// (see [`MemoryIndex::len`] to tell the two apart).
    ///
    /// A reader of a record that [`MemoryIndex::truncate`] takes meanwhile may get the old position, the one
    /// of the record that came instead, or one at which neither is; the frame there says whether it is what
    /// the reader wanted. Records below the cut are always found.
    #[inline]
    pub(crate) fn get(&self, ordinal: u32) -> Option<u64> {
        if ordinal >= self.len() {
            return None;
        }
        let unit = match ordinal.checked_sub(self.reach.load(Ordering::Relaxed)) {
            None => self.unit_by_law(ordinal),
            Some(entry) => {
                let (chunk, place) = place_of(entry);
                self.chunks.get(chunk)?.get()?.get(place)?.load(Ordering::Relaxed)
            }
        };
        (unit != 0).then_some(u64::from(unit) * UNIT_BYTES)
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
            if count <= self.reach.load(Ordering::Relaxed) {
                // All that is left follows the law, so what comes next may too.
                self.reach.store(ENDLESS, Ordering::Relaxed);
            }
            self.count.store(count, Ordering::Release);
        }
    }

    /// The positions of the first `count` records, [`NO_FRAME`] for damaged and missing ones: what
    /// [`encode`](super::encode) takes.
    pub(crate) fn positions(&self, count: u32) -> impl Iterator<Item = u64> + Clone {
        (0..count).map(|ordinal| self.get(ordinal).unwrap_or(NO_FRAME))
    }
}

#[cold]
fn new_chunk(chunk: usize) -> Box<[AtomicU32]> {
    let doublings = chunk >> CHUNKS_OF_A_LENGTH_BITS;
    (0..1usize << FIRST_CHUNK_BITS << doublings).map(|_| AtomicU32::new(0)).collect()
}

#[cfg(test)]
mod tests;
