//! The index of a segment that is being written, in memory.
//!
//! It owns how positions are kept, and how one writer publishes them to readers without a lock. It does not
//! know what a position means, nor the forms on disk. Invariant: below the count a record is found.
//!
//! There are three ways to keep a position, as in the forms on disk. A segment goes from each to the next at the
//! first record that does not fit, and stays there:
//!
//! - By the *law*, as long as all frames have one size: the unit of the first and the stride to each next one.
//!   That takes no memory, and most logs have records of one size.
//! - *Narrow*, in blocks of 64: a u32 for the block and a u16 above it for each.
//! - *Wide*, a u32 for each: where a frame is damaged, or a block has more than 512 KiB, so that there are few.

mod chunks;

use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};

use super::{NO_FRAME, UNIT_BYTES, unit_of};
use crate::sync;
use chunks::Chunks;

/// The reach of what every record fits so far. There is no record of this ordinal.
const ENDLESS: u32 = u32::MAX;
const BLOCK: usize = super::BLOCK_RECORDS as usize;

/// The index of a segment that is being written: one writer appends, many readers look up without a
/// lock.
///
/// Entries are in chunks that are never moved. Why not a `Vec` behind a lock, or an `ArcSwap` of one: the one
/// makes readers wait for the writer, the other copies what it has whenever it grows.
///
/// `count` publishes everything else. A law is set before the count says that two records are there, and
/// each reach before the count goes beyond it; none of them changes again below the count. So a reader who sees a
/// record counted, finds it: whether he sees a reach of that moment or a later one, it tells the same of his
/// record. Only [`MemoryIndex::truncate`] takes something back.
#[derive(Debug)]
pub(crate) struct MemoryIndex {
    /// The unit of record 0.
    first: AtomicU32,
    /// From one unit to the next, modulo 2^32: then the law can say whatever was pushed, in any order.
    stride: AtomicU32,
    /// How many records follow the law. Those behind are counted anew, from 0.
    lawful: AtomicU32,
    blocks: Chunks<Block, BLOCK>,
    /// How many records behind the law are in blocks. Those behind are counted anew, from 0.
    narrow: AtomicU32,
    wide: Chunks<AtomicU32, 1>,
    /// How many records count: what publishes them.
    count: sync::atomic::AtomicU32,
}

/// The units of neighbours.
#[derive(Debug)]
struct Block {
    /// The first one's.
    base: AtomicU32,
    /// How far each is above it.
    above: [AtomicU16; BLOCK],
}

impl Default for Block {
    fn default() -> Self {
        Self { base: AtomicU32::new(0), above: [const { AtomicU16::new(0) }; BLOCK] }
    }
}

/// Where a record's unit is kept.
enum Kept {
    ByLaw,
    Narrow(u32),
    Wide(u32),
}

impl MemoryIndex {
    /// An index of no records.
    pub(crate) fn new() -> Self {
        Self {
            first: AtomicU32::new(0),
            stride: AtomicU32::new(0),
            lawful: AtomicU32::new(ENDLESS),
            blocks: Chunks::new(),
            narrow: AtomicU32::new(ENDLESS),
            wide: Chunks::new(),
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
        match self.kept(ordinal) {
            Kept::ByLaw if unit == self.unit_by_law(ordinal) => {}
            Kept::ByLaw => self.change_law(ordinal, unit)?,
            Kept::Narrow(record) => self.push_narrow(record, unit)?,
            Kept::Wide(record) => self.push_wide(record, unit)?,
        }
        // Release: whoever sees the count sees the law, each reach and the entry too.
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
                self.push_narrow(0, unit)?;
                self.lawful.store(ordinal, Ordering::Relaxed);
            }
        }
        Some(())
    }

    #[inline]
    fn push_narrow(&self, record: u32, unit: u32) -> Option<()> {
        let (block, place) = self.blocks.get_or_grow(record)?;
        if place == 0 {
            block.base.store(unit, Ordering::Relaxed);
        }
        let above = unit.checked_sub(block.base.load(Ordering::Relaxed)).map(u16::try_from);
        match (above, block.above.get(place)) {
            (Some(Ok(above)), Some(entry)) => entry.store(above, Ordering::Relaxed),
            _ => {
                self.push_wide(0, unit)?;
                self.narrow.store(record, Ordering::Relaxed);
            }
        }
        Some(())
    }

    #[inline]
    fn push_wide(&self, record: u32, unit: u32) -> Option<()> {
        self.wide.get_or_grow(record)?.0.store(unit, Ordering::Relaxed);
        Some(())
    }

    #[inline]
    fn kept(&self, ordinal: u32) -> Kept {
        let Some(unlawful) = ordinal.checked_sub(self.lawful.load(Ordering::Relaxed)) else {
            return Kept::ByLaw;
        };
        match unlawful.checked_sub(self.narrow.load(Ordering::Relaxed)) {
            None => Kept::Narrow(unlawful),
            Some(wide) => Kept::Wide(wide),
        }
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
        let unit = match self.kept(ordinal) {
            Kept::ByLaw => self.unit_by_law(ordinal),
            Kept::Narrow(record) => {
                let (block, place) = self.blocks.get(record)?;
                let above = block.above.get(place)?.load(Ordering::Relaxed);
                block.base.load(Ordering::Relaxed).wrapping_add(u32::from(above))
            }
            Kept::Wide(record) => self.wide.get(record)?.0.load(Ordering::Relaxed),
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
        if count >= self.count.load(Ordering::Relaxed) {
            return;
        }
        // Where all that is left fits, what comes next may fit too.
        let unlawful = count.saturating_sub(self.lawful.load(Ordering::Relaxed));
        if unlawful <= self.narrow.load(Ordering::Relaxed) {
            self.narrow.store(ENDLESS, Ordering::Relaxed);
        }
        if unlawful == 0 {
            self.lawful.store(ENDLESS, Ordering::Relaxed);
        }
        self.count.store(count, Ordering::Release);
    }

    /// The positions of the first `count` records, [`NO_FRAME`] for damaged and missing ones: what
    /// [`encode`](super::encode) takes.
    pub(crate) fn positions(&self, count: u32) -> impl Iterator<Item = u64> + Clone {
        (0..count).map(|ordinal| self.get(ordinal).unwrap_or(NO_FRAME))
    }
}

#[cfg(test)]
mod tests;
