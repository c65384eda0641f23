//! What the stores are part of, where the MANIFEST does not say. Pure.
//!
//! It owns the rules by which stores alone, with whatever edits of the MANIFEST are intact, become a state:
//! which store follows which, where each ends, what is proven, what was superseded. It reads no byte.
//! Invariants: a later segment's base ends the one before it; a record is given up only where a later
//! base or a watermark says that it was there; what cannot be known is said ([`unknown`]).
//!
//! Why intact edits count though others are lost: each was true when it was written, and all that
//! later ones can have changed, but for metadata, shows in the stores.

use std::collections::{BTreeMap, BTreeSet};

use crate::manifest::{Born, Edit, OffsetRanges, Seal, SegmentState, State};
use crate::mutant::{self, Mutant};
use crate::recovery::{SegmentFindings, StoreFindings};
use crate::store::Origin;

/// What intact edits say.
#[derive(Debug, Clone, Default)]
pub(super) struct Hints {
    pub(super) uuid: Option<[u8; 16]>,
    created_millis: Option<u64>,
    first_offset: Option<u64>,
    last_id: u64,
    front: Option<u64>,
    bases: BTreeMap<u64, Option<u64>>,
    born: BTreeMap<u64, Born>,
    seals: BTreeMap<u64, Seal>,
    pub(super) dropped: BTreeSet<u64>,
    lost: OffsetRanges,
    meta: BTreeMap<String, Vec<u8>>,
}

impl Hints {
    /// Takes in edits in their order, whether or not they follow from each other.
    pub(super) fn of(edits: impl IntoIterator<Item = Edit>) -> Hints {
        let mut hints = Hints::default();
        for edit in edits {
            match edit {
                Edit::Init { uuid, created_millis, first_offset, last_id } => {
                    hints.uuid = Some(uuid);
                    hints.created_millis = Some(created_millis);
                    hints.first_offset = Some(first_offset);
                    hints.last_id = hints.last_id.max(last_id);
                }
                Edit::Create { id, base, born } => {
                    hints.bases.insert(id, base);
                    hints.born.extend(born.map(|born| (id, born)));
                    hints.last_id = hints.last_id.max(id);
                }
                Edit::Seal { id, seal } => {
                    hints.seals.insert(id, seal);
                }
                Edit::Drop { id, .. } => {
                    hints.dropped.insert(id);
                    hints.bases.remove(&id);
                    hints.seals.remove(&id);
                    hints.born.remove(&id);
                }
                Edit::TruncateFront { offset } => hints.front = hints.front.max(Some(offset)),
                Edit::Lost { offsets } => hints.lost.insert(offsets),
                Edit::Meta { key, value: Some(value) } => {
                    hints.meta.insert(key, value);
                }
                Edit::Meta { key, value: None } => {
                    hints.meta.remove(&key);
                }
                // A Close may be followed by nothing, but the edits that are lost may have come before it,
                // and what it says of the active store the store says too. Damage is looked for anew.
                Edit::Close(_) | Edit::Damaged { .. } => {}
            }
        }
        hints
    }

    /// Whether an edit says anything at all.
    fn is_empty(&self) -> bool {
        self.uuid.is_none()
    }
}

/// A first state, to scan the stores by: each is a segment without an end.
pub(super) fn first_guess(uuid: [u8; 16], hints: &Hints, stores: &BTreeMap<u64, StoreFindings>) -> State {
    let mut segments = BTreeMap::new();
    let known = stores.keys().chain(hints.bases.keys()).filter(|id| !hints.dropped.contains(id));
    for id in known {
        // The MANIFEST knows a base better than the sector that repeats it.
        let hinted = hints.bases.get(id).copied().flatten();
        let base = hinted.or_else(|| stores.get(id).and_then(StoreFindings::base));
        let born = hints.born.get(id).copied();
        segments.insert(*id, SegmentState { base, born, seal: None });
    }
    let created = stores.values().filter_map(StoreFindings::head).map(|head| head.created_millis).min();
    let created = hints.created_millis.or(created).unwrap_or(0);
    let last = stores.keys().next_back().copied().unwrap_or(0).max(hints.last_id);
    let mut state = State::begin(uuid, created, hints.first_offset.unwrap_or(0));
    state.last_id = last;
    state.segments = segments;
    state
}

/// A store with its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) id: u64,
    pub(super) base: u64,
    /// The offset behind its last record of a whole batch.
    end: u64,
    /// Where its successor, or its Seal, says that it ends.
    limit: Option<u64>,
    /// What its frames attest, as far as that lies in the log.
    proven: u64,
    /// The sealed end, where it is to be sealed; the length is the caller's to find.
    pub(super) seal: Option<u64>,
}

/// What was made of the stores.
#[derive(Debug, Clone, Default)]
pub(super) struct Settled {
    pub(super) places: Vec<Place>,
    /// Segments whose records others hold, or that were cut off: no part of the log any more.
    pub(super) superseded: Vec<u64>,
    /// Segments that hold frames and have no place.
    pub(super) unplaced: Vec<u64>,
    /// Where a store held more than is the log's, since a later one begins before its end.
    pub(super) cut_back: Vec<(u64, u64)>,
}

impl Settled {
    /// Places are in the order of their ids.
    fn place(&self, id: u64) -> Option<&Place> {
        self.places.get(self.places.binary_search_by_key(&id, |place| place.id).ok()?)
    }

    /// A recovery's copy that no edit names and that does not reach as far as what it was copied from is one that
    /// was never finished: it goes, and what its base proves stays. (A finished one holds all of it, and more.)
    fn leave_out_unfinished_copies(&mut self, hints: &Hints, segments: &[SegmentFindings]) {
        let segment = |id: u64| segments.get(segments.binary_search_by_key(&id, |segment| segment.id).ok()?);
        let reaches = |place: &Place, from: u64| {
            let runs =
                segment(place.id).and_then(|s| s.scan.as_ref()).map_or(&[][..], |scan| scan.runs.as_slice());
            let offset = |ordinal: u32| place.base.saturating_add(u64::from(ordinal));
            let run =
                runs.iter().find(|r| offset(r.ordinals.start) <= from && from < offset(r.whole_ordinal));
            run.map_or(0, |run| offset(run.whole_ordinal))
        };
        let is_copy = |place: &Place| {
            let head = segment(place.id).and_then(|segment| segment.store.head());
            head.is_some_and(|head| head.origin == Origin::Copy) && !hints.bases.contains_key(&place.id)
        };
        let unfinished: Vec<u64> = self
            .places
            .iter()
            .filter(|copy| is_copy(copy))
            .filter(|copy| {
                let before = self.places.iter().filter(|place| place.id < copy.id);
                before.map(|place| reaches(place, copy.base)).any(|end| end > copy.end)
            })
            .map(|copy| copy.id)
            .collect();
        for id in unfinished {
            let Some(at) = self.places.iter().position(|place| place.id == id) else { continue };
            let copy = self.places.remove(at);
            self.superseded.push(id);
            if let Some(place) = self.places.iter_mut().rfind(|place| place.id < id) {
                place.proven = place.proven.max(copy.base);
            }
        }
    }

    /// Whether a store without a place comes before all others.
    fn unplaced_before(&self) -> bool {
        let first = self.places.first().map(|place| place.id);
        self.unplaced.first().is_some_and(|id| first.is_none_or(|first| *id < first))
    }

    /// Whether a store without a place comes behind all others: where the log ended, nobody can tell.
    pub(super) fn unplaced_behind(&self) -> bool {
        let last = self.places.last().map(|place| place.id);
        self.unplaced.last().is_some_and(|id| last.is_none_or(|last| *id > last))
    }
}

/// Finds each store's place among the others.
pub(super) fn settle(hints: &Hints, segments: &[SegmentFindings]) -> Settled {
    let mut settled = Settled::default();
    let bases = bases(hints, segments);
    for (segment, base) in segments.iter().zip(&bases) {
        let runs = segment.scan.as_ref().map_or(&[][..], |scan| scan.runs.as_slice());
        let hinted = hints.seals.get(&segment.id);
        let Some(base) = *base else {
            if !runs.is_empty() {
                settled.unplaced.push(segment.id);
            }
            continue;
        };
        let whole = runs.last().map_or(0, |run| run.whole_ordinal);
        let mark = segment.scan.as_ref().and_then(|scan| scan.watermark);
        let attested = mark.and_then(|mark| base.checked_add_signed(mark.relative)).unwrap_or(0);
        let is_copy = segment.store.head().is_some_and(|head| head.origin == Origin::Copy);
        let copied = if is_copy { base } else { 0 };
        let born = segment.state.born.map_or(0, |born| born.durable_end);
        settled.places.push(Place {
            id: segment.id,
            base,
            end: base.saturating_add(u64::from(whole)),
            limit: hinted.map(|seal| seal.next_offset),
            proven: attested.max(copied).max(born).max(hinted.map_or(0, |seal| seal.next_offset)),
            seal: None,
        });
    }
    settled.leave_out_unfinished_copies(hints, segments);
    // A later segment's base ends all before it.
    let mut next: Option<u64> = None;
    for place in settled.places.iter_mut().rev() {
        place.limit = match (place.limit, next) {
            (Some(limit), Some(next)) => Some(limit.min(next)),
            (limit, next) => limit.or(next),
        };
        next = Some(next.map_or(place.base, |next| next.min(place.base)));
    }
    let (kept, superseded): (Vec<Place>, Vec<Place>) =
        settled.places.into_iter().partition(|place| place.limit.is_none_or(|limit| place.base < limit));
    settled.places = kept;
    settled.superseded.extend(superseded.into_iter().map(|place| place.id));
    // What is proven: by frames as far as their segment reaches, and where a store reaches beyond its
    // limit, by the truncation that must have been there before its successor's first frame was.
    let mut proven = 0;
    for place in &settled.places {
        let limit = place.limit.unwrap_or(u64::MAX);
        proven = proven.max(place.proven.min(limit));
        if place.end > limit {
            proven = proven.max(limit);
            settled.cut_back.push((place.id, limit));
        }
    }
    let mut all_sealed = true;
    for place in &mut settled.places {
        place.seal = place.limit.filter(|limit| all_sealed && *limit <= proven);
        all_sealed = place.seal.is_some();
    }
    settled
}

/// The base of each segment, where it can be told: its own word, or, where its intact Create leaves that to
/// the segment right before it, that one's intact Seal.
///
/// Why not the end of whatever store comes before: a store in between may be gone, and a truncation of
/// the back leaves more in a store than is the log's. A base that is wrong gives records other offsets.
fn bases(hints: &Hints, segments: &[SegmentFindings]) -> Vec<Option<u64>> {
    let before = |id: u64| {
        let follows = hints.bases.get(&id)?.is_none();
        let seal = hints.seals.get(&id.checked_sub(1)?)?;
        follows.then_some(seal.next_offset)
    };
    let told = |segment: &SegmentFindings| segment.base.or_else(|| before(segment.id));
    segments
        .iter()
        .enumerate()
        .map(|(place, segment)| told(segment).or_else(|| guess(segments, place)))
        .collect()
}

/// The guess that is not made, but by a mutant.
fn guess(segments: &[SegmentFindings], place: usize) -> Option<u64> {
    let before = segments.get(place.checked_sub(1)?).filter(|_| mutant::on(Mutant::RepairBaseGuessed))?;
    let whole = before.scan.as_ref()?.runs.last()?.whole_ordinal;
    before.base.map(|base| base.saturating_add(u64::from(whole)))
}

/// The state that the stores and the intact edits add up to; `seals` has the lengths that go with the
/// places' seals.
pub(super) fn state(guess: &State, hints: &Hints, settled: &Settled, seals: &BTreeMap<u64, Seal>) -> State {
    let mut state = State::begin(guess.uuid, guess.created_millis, guess.first_offset);
    state.last_id = guess.last_id;
    let gone: BTreeSet<u64> = settled.superseded.iter().chain(&settled.unplaced).copied().collect();
    let last_sealed = settled.places.iter().rfind(|place| place.seal.is_some()).map(|place| place.id);
    for (id, segment) in guess.segments.iter().filter(|(id, _)| !gone.contains(id)) {
        let place = settled.place(*id);
        let base = place.map(|place| place.base).or(segment.base);
        // Nothing may be unsealed before something sealed; an unused one there has no meaning.
        let sealed_later = last_sealed.is_some_and(|last| last > *id);
        if place.is_none_or(|place| place.seal.is_none()) && sealed_later {
            continue;
        }
        let seal = place.and_then(|place| place.seal).and_then(|_| seals.get(id).copied());
        state.segments.insert(*id, SegmentState { base, born: segment.born, seal });
    }
    let first = settled.places.first().map(|place| place.base);
    // A segment that edits name and that has no store any more was not dropped by a truncation, and a store
    // without a place holds records that were somewhere: what is not there is missing.
    let missing = |id: &u64| settled.place(*id).is_none();
    let missing = hints.bases.keys().next().is_some_and(missing) || settled.unplaced_before();
    let stated = hints.front.or(hints.first_offset);
    state.front = match (stated, first) {
        (Some(stated), Some(first)) if !missing => stated.max(first),
        (Some(stated), _) => stated,
        (None, Some(first)) if !missing => first,
        (None, _) => 0,
    };
    // No front lies before the first offset: where edits contradict each other on that, the records decide.
    if hints.first_offset.is_none() || state.first_offset > state.front {
        state.first_offset = state.front;
    }
    state.lost = hints.lost.clone();
    state.lost.remove(0..state.front);
    state.meta = hints.meta.clone();
    state
}

/// What a MANIFEST knew that stores do not, in words.
pub(super) fn unknown(hints: &Hints, settled: &Settled) -> Vec<String> {
    let mut unknown = Vec::new();
    if hints.is_empty() {
        unknown.push("named values (put_meta) are gone".to_string());
        unknown.push(
            "a front inside the first segment is gone: records truncated away there are back".to_string(),
        );
        if let Some(first) = settled.places.first().filter(|place| place.base > 0) {
            unknown.push(format!(
                "records below {}, if there were any, are taken for truncated away",
                first.base
            ));
        }
        unknown.push("what earlier repairs declared lost is found missing once more".to_string());
        unknown.push(
            "the first offset that the log was begun with is taken to be its first record's".to_string(),
        );
    } else {
        unknown.push(
            "named values (put_meta) are as the intact edits say: a later change of one may be gone"
                .to_string(),
        );
        unknown.push(
            "a truncation of the front whose edit is gone may be undone, inside one segment".to_string(),
        );
    }
    unknown.push("a truncation of the back that nothing was appended after may be undone".to_string());
    for (id, end) in &settled.cut_back {
        unknown.push(format!(
            "segment {id:x} holds records from {end} on that a later segment replaces: they are left out"
        ));
    }
    for id in &settled.unplaced {
        unknown.push(format!("segment {id:x} holds records whose offsets nothing tells: its store is kept aside, log-repair salvage puts them out. If a truncation of the back came before it, what was truncated away is back"));
    }
    unknown
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scan::{Outcome, Run, Watermark};
    use crate::store::{FORMAT_VERSION, Head};

    fn segment(id: u64, base: Option<u64>, records: u32, durable: Option<i64>) -> SegmentFindings {
        let head =
            Head { version: FORMAT_VERSION, origin: Origin::Roll, uuid: [7; 16], id, created_millis: 5 };
        let run = Run {
            ordinals: 0..records,
            positions: 1024..2048,
            whole_ordinal: records,
            whole_position: 2048,
            broken: None,
        };
        let scan = Outcome {
            runs: if records > 0 { vec![run] } else { Vec::new() },
            watermark: durable.map(|relative| Watermark { relative, position: 1024 }),
            ..Outcome::default()
        };
        SegmentFindings {
            id,
            state: SegmentState { base, ..SegmentState::default() },
            base,
            store: StoreFindings::Present { length: 4096, head: Some(head), base },
            scan: Some(scan),
            scanned_bytes: 0,
            index_defect: None,
        }
    }

    fn seals(settled: &Settled) -> Vec<(u64, u64, Option<u64>)> {
        settled.places.iter().map(|place| (place.id, place.base, place.seal)).collect()
    }

    #[test]
    fn stores_in_a_row_end_where_the_next_begins_as_far_as_that_is_proven() {
        let stores = [
            segment(1, Some(0), 10, Some(9)),
            segment(2, Some(10), 10, Some(5)),
            segment(3, Some(20), 4, None),
        ];
        let settled = settle(&Hints::default(), &stores);
        // Only 15 is proven: where the second ends is for the usual judgement.
        assert_eq!(seals(&settled), [(1, 0, Some(10)), (2, 10, None), (3, 20, None)]);
    }

    #[test]
    fn a_later_store_that_begins_earlier_cuts_back() {
        let stores = [segment(1, Some(0), 10, Some(9)), segment(3, Some(6), 2, None)];
        let settled = settle(&Hints::default(), &stores);
        assert_eq!(seals(&settled), [(1, 0, Some(6)), (3, 6, None)]);
        assert_eq!(settled.cut_back, [(1, 6)]);
        let replaced = [segment(1, Some(0), 10, Some(9)), segment(3, Some(0), 2, None)];
        let settled = settle(&Hints::default(), &replaced);
        assert_eq!((settled.superseded.as_slice(), seals(&settled)), (&[1][..], vec![(3, 0, None)]));
    }

    #[test]
    fn a_lost_base_is_told_by_edits_alone() {
        let stores = [segment(1, Some(0), 10, Some(9)), segment(2, None, 3, Some(1))];
        assert_eq!(settle(&Hints::default(), &stores).unplaced, [2]);
        let seal = Seal { next_offset: 8, length: 1900, first_millis: 0, last_millis: 0 };
        let edits = [Edit::Seal { id: 1, seal }, Edit::Create { id: 2, base: None, born: None }];
        let settled = settle(&Hints::of(edits), &stores);
        assert_eq!(seals(&settled), [(1, 0, Some(8)), (2, 8, None)]);
    }

    #[test]
    fn intact_edits_are_believed() {
        let seal = Seal { next_offset: 8, length: 1900, first_millis: 0, last_millis: 0 };
        let hints = Hints::of([
            Edit::Init { uuid: [7; 16], created_millis: 3, first_offset: 0, last_id: 4 },
            Edit::Create { id: 1, base: Some(0), born: None },
            Edit::Seal { id: 1, seal },
            Edit::Create { id: 2, base: None, born: None },
            Edit::Drop { id: 2, quarantine: false },
            Edit::TruncateFront { offset: 4 },
            Edit::Meta { key: "vote".to_string(), value: Some(b"7".to_vec()) },
        ]);
        let stores = BTreeMap::from([
            (1, segment(1, Some(0), 10, None).store),
            (2, segment(2, Some(8), 2, None).store),
        ]);
        let guess = first_guess([7; 16], &hints, &stores);
        assert_eq!(guess.segments.keys().copied().collect::<Vec<_>>(), [1]);
        let settled = settle(&hints, &[segment(1, Some(0), 10, None)]);
        assert_eq!(seals(&settled), [(1, 0, Some(8))]);
        let state = state(&guess, &hints, &settled, &BTreeMap::from([(1, seal)]));
        assert_eq!((state.front, state.last_id, state.created_millis), (4, 4, 3));
        assert_eq!(state.segments[&1].seal, Some(seal));
        assert_eq!(state.meta["vote"], b"7");
    }
}
