//! The state that a manifest's edits add up to.
//!
//! It owns the fold: [`State::apply`] takes one edit, [`State::edits`] gives the shortest list of
//! edits that folds to the same state. Pure: no I/O, no clock. Invariants: segments are ordered by
//! id and so by offset; only the last segments are unsealed; ids are never used twice; an edit that
//! contradicts the state is refused (every edit was decided from the folded state, under the
//! manifest's lock, so a contradiction means damage).

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use super::edit::{Born, Close, Edit, Seal};
use crate::mutant::{self, Mutant};

/// A set of offsets, as ordered ranges that neither overlap nor touch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OffsetRanges(BTreeMap<u64, u64>);

impl OffsetRanges {
    /// Adds a range.
    pub fn insert(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let (mut start, mut end) = (range.start, range.end);
        while let Some((&first, &last)) = self.0.range(..=end).next_back().filter(|(_, last)| **last >= start)
        {
            start = start.min(first);
            end = end.max(last);
            self.0.remove(&first);
        }
        self.0.insert(start, end);
    }

    /// Removes a range.
    pub fn remove(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        while let Some((&first, &last)) =
            self.0.range(..range.end).next_back().filter(|(_, last)| **last > range.start)
        {
            self.0.remove(&first);
            if first < range.start {
                self.0.insert(first, range.start);
            }
            if last > range.end {
                self.0.insert(range.end, last);
            }
        }
    }

    /// Whether the set holds `offset`.
    pub fn contains(&self, offset: u64) -> bool {
        self.0.range(..=offset).next_back().is_some_and(|(_, end)| *end > offset)
    }

    /// The end of the range that holds `offset`, if one does.
    pub fn end_of(&self, offset: u64) -> Option<u64> {
        self.0.range(..=offset).next_back().map(|(_, end)| *end).filter(|end| *end > offset)
    }

    /// Whether the set holds all of `range`.
    pub fn covers(&self, range: &Range<u64>) -> bool {
        range.is_empty() || self.0.range(..=range.start).next_back().is_some_and(|(_, end)| *end >= range.end)
    }

    /// How many offsets of `range` the set holds.
    pub fn count_in(&self, range: &Range<u64>) -> u64 {
        let ranges = self.0.range(..range.end).rev().take_while(|(_, end)| **end > range.start);
        ranges
            .map(|(start, end)| (*end).min(range.end) - (*start).max(range.start))
            .fold(0, u64::saturating_add)
    }

    /// How many offsets the set holds.
    pub fn count(&self) -> u64 {
        self.0.iter().map(|(start, end)| end - start).fold(0, u64::saturating_add)
    }

    /// Whether the set is empty.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The ranges in order.
    pub fn iter(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        self.0.iter().map(|(start, end)| *start..*end)
    }
}

/// What the manifest knows of one segment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SegmentState {
    /// Its base offset, where the manifest knows it.
    pub base: Option<u64>,
    /// What it was born with.
    pub born: Option<Born>,
    /// Its final shape, once it is sealed.
    pub seal: Option<Seal>,
}

/// The folded manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// The log's identity.
    pub uuid: [u8; 16],
    /// When the log was begun, in milliseconds since the Unix epoch.
    pub created_millis: u64,
    /// The first offset the log was begun with.
    pub first_offset: u64,
    /// The highest segment id ever named.
    pub last_id: u64,
    /// The first offset that was not truncated away.
    pub front: u64,
    /// The segments by id, which is their order in the log.
    pub segments: BTreeMap<u64, SegmentState>,
    /// Stores that left the log for `quarantine/`, until a manifest is written after they went.
    pub quarantined: BTreeSet<u64>,
    /// Records that cannot be read.
    pub damaged: OffsetRanges,
    /// Records that a repair gave up.
    pub lost: OffsetRanges,
    /// Small named values.
    pub meta: BTreeMap<String, Vec<u8>>,
    /// The clean end, where the last edit is one.
    pub closed: Option<Close>,
}

/// An edit that cannot follow the edits before it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("edit {edit}: {why}")]
pub struct Contradiction {
    /// Which edit, counted from 0 in the file.
    pub edit: u64,
    /// Why it cannot be.
    pub why: &'static str,
}

impl State {
    /// The state of a log that was just begun.
    pub fn begin(uuid: [u8; 16], created_millis: u64, first_offset: u64) -> State {
        State {
            uuid,
            created_millis,
            first_offset,
            last_id: 0,
            front: first_offset,
            segments: BTreeMap::new(),
            quarantined: BTreeSet::new(),
            damaged: OffsetRanges::default(),
            lost: OffsetRanges::default(),
            meta: BTreeMap::new(),
            closed: None,
        }
    }

    /// Folds a whole file of edits.
    ///
    /// # Errors
    /// [`Contradiction`] where an edit cannot follow those before it.
    pub fn fold(edits: impl IntoIterator<Item = Edit>) -> Result<State, Contradiction> {
        let mut edits = edits.into_iter().zip(0u64..);
        let first = edits.next().map(|(edit, _)| edit);
        let Some(Edit::Init { uuid, created_millis, first_offset, last_id }) = first else {
            return Err(Contradiction { edit: 0, why: "the first edit is not Init" });
        };
        let mut state = State { last_id, ..State::begin(uuid, created_millis, first_offset) };
        for (edit, number) in edits {
            state.apply(edit).map_err(|why| Contradiction { edit: number, why })?;
        }
        Ok(state)
    }

    /// Folds one more edit in.
    ///
    /// # Errors
    /// Why the edit cannot follow; the state is then of no use.
    pub fn apply(&mut self, edit: Edit) -> Result<(), &'static str> {
        if self.closed.is_some() {
            return Err("an edit follows a Close");
        }
        match edit {
            Edit::Init { .. } => return Err("a second Init"),
            Edit::Create { id, base, born } => self.create(id, base, born)?,
            Edit::Seal { id, seal } => self.seal(id, seal)?,
            Edit::Drop { id, quarantine } => {
                // A recovery's fresh manifest repeats the drops whose file it has yet to move.
                match self.segments.remove(&id) {
                    Some(gone) => self.forget_ranges(&gone),
                    None if quarantine && id <= self.last_id => {}
                    None => return Err("a Drop of a segment that is not there"),
                }
                if quarantine {
                    self.quarantined.insert(id);
                }
            }
            Edit::TruncateFront { offset } => {
                if offset < self.front {
                    return Err("a TruncateFront that goes back");
                }
                self.front = offset;
                self.damaged.remove(0..offset);
                self.lost.remove(0..offset);
            }
            Edit::Close(close) => self.close(close)?,
            Edit::Damaged { offsets } => self.damaged.insert(offsets),
            Edit::Lost { offsets } => {
                self.damaged.remove(offsets.clone());
                self.lost.insert(offsets);
            }
            Edit::Meta { key, value: Some(value) } => {
                self.meta.insert(key, value);
            }
            Edit::Meta { key, value: None } => {
                self.meta.remove(&key);
            }
        }
        Ok(())
    }

    /// A dropped segment's records are neither damaged nor lost any more: they are gone, and their
    /// offsets can come to name others.
    fn forget_ranges(&mut self, gone: &SegmentState) {
        let Some(base) = gone.base else { return };
        let end = gone.seal.map_or(u64::MAX, |seal| seal.next_offset);
        self.damaged.remove(base..end);
        self.lost.remove(base..end);
    }

    fn create(&mut self, id: u64, base: Option<u64>, born: Option<Born>) -> Result<(), &'static str> {
        // The fold that opens a manifest names segments at or below Init's last_id; later ones are
        // above every id before. Either way ids ascend, and none is used twice.
        if self.segments.last_key_value().is_some_and(|(last, _)| *last >= id) {
            return Err("a Create whose id does not ascend");
        }
        if born.is_some_and(|born| base.is_none_or(|base| born.durable_end < base)) {
            return Err("a Create born without a base, or with an end below it");
        }
        let before = self.segments.last_key_value().and_then(|(_, before)| before.seal);
        if before.is_some_and(|before| base.is_some_and(|base| base < before.next_offset)) {
            return Err("a Create below its predecessor's Seal");
        }
        let base = base.or(before.map(|before| before.next_offset));
        if let (Some(base), None) = (base, born) {
            // New records will have these offsets.
            self.damaged.remove(base..u64::MAX);
            self.lost.remove(base..u64::MAX);
        }
        self.segments.insert(id, SegmentState { base, born, seal: None });
        self.last_id = self.last_id.max(id);
        Ok(())
    }

    fn seal(&mut self, id: u64, seal: Seal) -> Result<(), &'static str> {
        // Sealed segments come first, so that the nearest one before speaks for all.
        if self.segments.range(..id).next_back().is_some_and(|(_, before)| before.seal.is_none()) {
            return Err("a Seal before its predecessor's");
        }
        let segment = self.segments.get_mut(&id).ok_or("a Seal of a segment that is not there")?;
        if segment.base.is_some_and(|base| seal.next_offset < base) {
            return Err("a Seal below its segment's base");
        }
        if let Some(before) = segment.seal {
            if seal.next_offset > before.next_offset || seal.length > before.length {
                return Err("a Seal beyond the one before");
            }
            let end = before.next_offset;
            self.damaged.remove(seal.next_offset..end);
            self.lost.remove(seal.next_offset..end);
        }
        if let Some(segment) = self.segments.get_mut(&id) {
            segment.seal = Some(seal);
        }
        if let Some((_, successor)) = self.segments.range_mut(id + 1..).next() {
            match successor.base {
                None => successor.base = Some(seal.next_offset),
                Some(base) if base < seal.next_offset => return Err("a Seal beyond its successor's base"),
                Some(_) => {}
            }
        }
        Ok(())
    }

    fn close(&mut self, close: Close) -> Result<(), &'static str> {
        if self.sealed().last().is_some_and(|(_, _, seal)| close.next_offset < seal.next_offset) {
            return Err("a Close below the last Seal");
        }
        let active = self.unsealed().next().filter(|_| close.length > 0);
        if active.and_then(|(_, active)| active.base).is_some_and(|base| close.next_offset < base) {
            return Err("a Close below the segment that it ends");
        }
        self.closed = Some(close);
        Ok(())
    }

    /// The edits of a fresh manifest that says what this state says.
    pub fn edits(&self) -> Vec<Edit> {
        let mut last_id = self.last_id;
        if mutant::on(Mutant::IdsReused) {
            last_id = self.segments.last_key_value().map_or(0, |(id, _)| *id);
        }
        let mut edits = vec![Edit::Init {
            uuid: self.uuid,
            created_millis: self.created_millis,
            first_offset: self.first_offset,
            last_id,
        }];
        if self.front > self.first_offset {
            edits.push(Edit::TruncateFront { offset: self.front });
        }
        edits.extend(self.quarantined.iter().map(|id| Edit::Drop { id: *id, quarantine: true }));
        for (id, segment) in &self.segments {
            edits.push(Edit::Create { id: *id, base: segment.base, born: segment.born });
            edits.extend(segment.seal.map(|seal| Edit::Seal { id: *id, seal }));
        }
        // Lost ones first: a Lost would take its range out of the damaged ones.
        edits.extend(self.lost.iter().map(|offsets| Edit::Lost { offsets }));
        edits.extend(self.damaged.iter().map(|offsets| Edit::Damaged { offsets }));
        edits.extend(
            self.meta.iter().map(|(key, value)| Edit::Meta { key: key.clone(), value: Some(value.clone()) }),
        );
        edits.extend(self.closed.map(Edit::Close));
        edits
    }

    /// Edits that lead from this state to `next`, a recovery's: for the mutants that append them.
    #[cfg(feature = "_mutants")]
    pub(crate) fn edits_to(&self, next: &State) -> Vec<Edit> {
        let gone = self.segments.keys().filter(|id| !next.segments.contains_key(id));
        let mut edits: Vec<Edit> =
            gone.map(|id| Edit::Drop { id: *id, quarantine: next.quarantined.contains(id) }).collect();
        for (id, segment) in &next.segments {
            let before = self.segments.get(id);
            if before.is_none() {
                edits.push(Edit::Create { id: *id, base: segment.base, born: segment.born });
            }
            let seal = segment.seal.filter(|seal| before.and_then(|before| before.seal) != Some(*seal));
            edits.extend(seal.map(|seal| Edit::Seal { id: *id, seal }));
        }
        edits
    }

    /// The offset behind the last sealed segment: where the unsealed ones begin.
    pub fn sealed_end(&self) -> u64 {
        let mut sealed = self.segments.values().filter_map(|segment| segment.seal);
        sealed.next_back().map_or(self.first_unsealed_base(), |seal| seal.next_offset)
    }

    fn first_unsealed_base(&self) -> u64 {
        let first = self.segments.values().next().and_then(|segment| segment.base);
        first.unwrap_or(self.front)
    }

    /// The sealed segments in order.
    pub fn sealed(&self) -> impl Iterator<Item = (u64, &SegmentState, Seal)> {
        self.segments.iter().filter_map(|(id, segment)| Some((*id, segment, segment.seal?)))
    }

    /// The unsealed segments in order.
    pub fn unsealed(&self) -> impl Iterator<Item = (u64, &SegmentState)> {
        self.segments.iter().filter(|(_, segment)| segment.seal.is_none()).map(|(id, segment)| (*id, segment))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seal(next_offset: u64, length: u64) -> Seal {
        Seal { next_offset, length, first_millis: 1, last_millis: 2 }
    }

    fn begun() -> State {
        State::begin([7; 16], 5, 0)
    }

    fn with(edits: impl IntoIterator<Item = Edit>) -> Result<State, &'static str> {
        let mut state = begun();
        for edit in edits {
            state.apply(edit)?;
        }
        Ok(state)
    }

    fn create(id: u64) -> Edit {
        Edit::Create { id, base: None, born: None }
    }

    #[test]
    fn ranges_merge_and_split() {
        let mut ranges = OffsetRanges::default();
        ranges.insert(5..8);
        ranges.insert(10..12);
        ranges.insert(8..10);
        assert_eq!(ranges.iter().collect::<Vec<_>>(), vec![5..12; 1]);
        ranges.remove(6..7);
        assert_eq!(ranges.iter().collect::<Vec<_>>(), [5..6, 7..12]);
        assert!(ranges.contains(5) && !ranges.contains(6) && ranges.contains(11) && !ranges.contains(12));
        assert!(ranges.covers(&(8..12)) && !ranges.covers(&(5..8)));
        ranges.remove(8..8);
        assert_eq!(ranges.iter().collect::<Vec<_>>(), [5..6, 7..12], "nothing was removed");
        ranges.remove(0..100);
        assert!(ranges.is_empty());
    }

    #[test]
    fn the_fold_of_the_edits_is_the_state() {
        let state = with([
            create(1),
            create(2),
            Edit::Seal { id: 1, seal: seal(10, 2000) },
            create(3),
            Edit::TruncateFront { offset: 4 },
            Edit::Damaged { offsets: 5..7 },
            Edit::Lost { offsets: 6..8 },
            Edit::Meta { key: "vote".into(), value: Some(vec![1]) },
            Edit::Drop { id: 3, quarantine: true },
        ])
        .unwrap();
        assert_eq!(state.segments[&2].base, Some(10), "a sealed predecessor's end is the base");
        assert_eq!(State::fold(state.edits()), Ok(state));
    }

    #[test]
    fn contradictions_are_refused() {
        let cases: Vec<(Vec<Edit>, &str)> = vec![
            (vec![create(2), create(2)], "a Create whose id does not ascend"),
            (
                vec![create(1), create(2), Edit::Seal { id: 2, seal: seal(1, 9) }],
                "a Seal before its predecessor's",
            ),
            (vec![Edit::Seal { id: 1, seal: seal(1, 9) }], "a Seal of a segment that is not there"),
            (vec![Edit::Drop { id: 1, quarantine: false }], "a Drop of a segment that is not there"),
            (
                vec![
                    create(1),
                    Edit::Seal { id: 1, seal: seal(5, 9) },
                    Edit::Seal { id: 1, seal: seal(6, 9) },
                ],
                "a Seal beyond the one before",
            ),
            (
                vec![Edit::TruncateFront { offset: 5 }, Edit::TruncateFront { offset: 4 }],
                "a TruncateFront that goes back",
            ),
            (
                vec![Edit::Close(Close { length: 0, next_offset: 0 }), Edit::TruncateFront { offset: 5 }],
                "an edit follows a Close",
            ),
            (
                vec![
                    create(1),
                    Edit::Seal { id: 1, seal: seal(5, 9) },
                    Edit::Create { id: 2, base: Some(4), born: None },
                ],
                "a Create below its predecessor's Seal",
            ),
            (
                vec![
                    create(1),
                    Edit::Seal { id: 1, seal: seal(5, 9) },
                    Edit::Close(Close { length: 0, next_offset: 4 }),
                ],
                "a Close below the last Seal",
            ),
            (
                vec![
                    Edit::Create { id: 1, base: Some(5), born: None },
                    Edit::Close(Close { length: 2000, next_offset: 4 }),
                ],
                "a Close below the segment that it ends",
            ),
        ];
        for (edits, why) in cases {
            assert_eq!(with(edits.clone()).unwrap_err(), why, "{edits:?}");
        }
        assert!(State::fold([create(1)]).is_err());
    }

    #[test]
    fn a_truncation_back_seals_lower_and_forgets_damage_beyond() {
        let state = with([
            create(1),
            Edit::Seal { id: 1, seal: seal(10, 2000) },
            Edit::Damaged { offsets: 8..9 },
            create(2),
            Edit::Drop { id: 2, quarantine: false },
            Edit::Seal { id: 1, seal: seal(6, 1500) },
            create(3),
        ])
        .unwrap();
        assert!(state.damaged.is_empty());
        assert_eq!(state.sealed_end(), 6);
        assert_eq!(state.segments[&3].base, Some(6));
    }
}
