//! What readers look things up in: the segments, the front, what cannot be served.
//!
//! It owns an immutable snapshot ([`Table`], replaced whole) and the record of truncations back
//! ([`Truncations`]). It knows no writer and no manifest. Invariants: segments are ordered by base;
//! a reader that stood beyond a truncation is told, however late it asks.

use std::sync::Arc;

use crate::error::{Damage, Error, Result};
use crate::manifest::OffsetRanges;
use crate::names;
use crate::segment::{Place, Segment};
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Mutex, PoisonError};

/// A snapshot of the log's structure.
#[derive(Debug, Clone, Default)]
pub(crate) struct Table {
    pub(crate) segments: Vec<Arc<Segment>>,
    pub(crate) front: u64,
    pub(crate) damaged: OffsetRanges,
    pub(crate) lost: OffsetRanges,
}

impl Table {
    /// The segment that would hold `offset`.
    #[inline]
    pub(crate) fn segment_of(&self, offset: u64) -> Option<&Arc<Segment>> {
        let behind = self.segments.partition_point(|segment| segment.base <= offset);
        self.segments.get(behind.checked_sub(1)?)
    }

    /// Why no segment holds an offset that lies within the log.
    #[cold]
    pub(crate) fn held_by_none(&self, place: &Place, offset: u64) -> Error {
        Damage {
            directory: place.directory.clone(),
            file: place.directory.clone(),
            position: None,
            offsets: Some(offset..offset.saturating_add(1)),
            what: "no store holds this record".to_string(),
            proof: None,
        }
        .into()
    }

    /// The first offset, from `offset` on and below `end`, that is not known to be unreadable.
    pub(crate) fn readable_from(&self, offset: u64, end: u64) -> u64 {
        let mut offset = offset.max(self.front);
        while offset < end {
            if let Some(behind) = self.damaged.end_of(offset).or_else(|| self.lost.end_of(offset)) {
                offset = behind;
                continue;
            }
            let next = self.segments.partition_point(|segment| segment.base <= offset);
            let holder = next.checked_sub(1).and_then(|place| self.segments.get(place));
            if holder.is_some_and(|segment| offset < segment.readable_end()) {
                return offset;
            }
            offset = self.segments.get(next).map_or(end, |segment| segment.base);
        }
        end.max(self.front)
    }

    /// Refuses offsets that are known not to be readable.
    #[inline]
    pub(crate) fn check_served(&self, place: &Place, offset: u64) -> Result<()> {
        if self.damaged.is_empty() && self.lost.is_empty() {
            return Ok(());
        }
        if self.lost.contains(offset) {
            return Err(Error::Lost { offset });
        }
        if self.damaged.contains(offset) {
            let file = self
                .segment_of(offset)
                .map_or_else(|| place.directory.clone(), |segment| place.path(&names::store(segment.id)));
            return Err(Damage {
                directory: place.directory.clone(),
                file,
                position: None,
                offsets: Some(offset..offset.saturating_add(1)),
                what: "opening found this record damaged".to_string(),
                proof: None,
            }
            .into());
        }
        Ok(())
    }
}

/// Which ends truncations back have left, for readers that were further.
#[derive(Debug, Default)]
pub(crate) struct Truncations {
    epoch: AtomicU64,
    /// (epoch, end), ends ascending: a later truncation that cut lower swallows those before it.
    ends: Mutex<Vec<(u64, u64)>>,
}

/// Beyond this many remembered truncations the two oldest are merged, to the lower end.
const MOST_REMEMBERED: usize = 64;

impl Truncations {
    /// The current epoch: it rises with every truncation back.
    #[inline]
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// Notes that the log was cut at `end`.
    pub(crate) fn note(&self, end: u64) {
        let mut ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        let epoch = self.epoch() + 1;
        ends.retain(|(_, before)| *before < end);
        ends.push((epoch, end));
        if ends.len() > MOST_REMEMBERED {
            // Merging the two oldest: the newer epoch at the lower end tells more readers than it
            // must, and forgets none.
            let lowest = ends.remove(0);
            if let Some(next) = ends.first_mut() {
                next.1 = lowest.1;
            }
        }
        self.epoch.store(epoch, Ordering::Release);
    }

    /// The lowest end that the log was cut at after `epoch`.
    pub(crate) fn lowest_since(&self, epoch: u64) -> Option<u64> {
        let ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        ends.iter().find(|(at, _)| *at > epoch).map(|(_, end)| *end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_learns_of_the_lowest_cut_since_it_looked() {
        let truncations = Truncations::default();
        assert_eq!(truncations.lowest_since(0), None);
        truncations.note(10);
        truncations.note(20);
        assert_eq!(truncations.lowest_since(0), Some(10));
        assert_eq!(truncations.lowest_since(1), Some(20));
        truncations.note(5);
        assert_eq!(truncations.lowest_since(0), Some(5));
        assert_eq!(truncations.lowest_since(2), Some(5));
        assert_eq!(truncations.lowest_since(3), None);
    }

    #[test]
    fn remembering_is_bounded_and_forgets_no_reader() {
        let truncations = Truncations::default();
        for end in 1..=1000 {
            truncations.note(end);
        }
        for epoch in 0..1000 {
            let told = truncations.lowest_since(epoch).unwrap();
            assert!(told <= epoch + 1, "a reader of epoch {epoch} must hear of the cut at {}", epoch + 1);
        }
    }
}
