//! Which offsets the records that were found have, and which of them are the log's. Pure.
//!
//! It owns the rules. A segment's base is, in this order, what the MANIFEST says, what its base sector says, or what
//! its neighbours prove; otherwise its records are unplaced. Of a segment's records those are the
//! log's that the MANIFEST says are: up to its Seal, from the front on, not declared lost. Without a MANIFEST a
//! segment ends where a later one begins, because a log is truncated back by beginning a segment there.
//!
//! Invariants: nothing is placed by a guess that something else contradicts; what is left out is counted and said.

use std::collections::BTreeMap;
use std::ops::Range;

use stonelog::frame::HEADER_BYTES;
use stonelog::manifest::{OffsetRanges, SegmentState, State};
use stonelog::names::LARGEST_END;
use stonelog::store::{FIRST_FRAME, Origin};

use super::found::{Found, Loose, Piece, Segment};

/// What is salvaged beyond what a log would serve.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wishes {
    /// What was truncated away, dropped or declared lost, too.
    pub(super) beyond_seals: bool,
    /// Batches without their end, too.
    pub(super) partial_batches: bool,
    /// Segments that lost their bases placed by what a neighbour looks like.
    pub(super) infer_bases: bool,
}

/// A run with its place in the log.
#[derive(Debug, Clone)]
pub(super) struct Placed {
    pub(super) segment: u64,
    pub(super) piece: Piece,
    /// The offset of ordinal 0.
    pub(super) base: u64,
    /// Which of its records are the log's.
    pub(super) offsets: Range<u64>,
}

/// Intact records that are not put out.
#[derive(Debug, Clone)]
pub(super) struct LeftOut {
    pub(super) file: usize,
    pub(super) why: &'static str,
    pub(super) offsets: Range<u64>,
}

/// Where a base comes from that no sector and no MANIFEST says.
#[derive(Debug, Clone)]
pub(super) struct Inferred {
    pub(super) segment: u64,
    pub(super) base: u64,
    pub(super) from: u64,
}

/// What goes where.
#[derive(Debug, Default)]
pub(super) struct Placement {
    /// By their first offsets.
    pub(super) placed: Vec<Placed>,
    /// By file and position.
    pub(super) unplaced: Vec<Loose>,
    pub(super) left_out: Vec<LeftOut>,
    pub(super) inferred: Vec<Inferred>,
    /// Offsets that are not to be put out, whatever holds them.
    pub(super) declared_lost: OffsetRanges,
    pub(super) front: u64,
    /// The offset behind the last record that is known to have been durable.
    pub(super) proven_end: u64,
    pub(super) end: u64,
    pub(super) first_offset: u64,
    pub(super) unknown: Vec<String>,
}

pub(super) const BEYOND_SEAL: &str = "beyond the end of its segment: truncated back, or cut by a recovery";
pub(super) const DROPPED: &str = "in a store that the log let go of";
pub(super) const BEFORE_FRONT: &str = "before the front: truncated away";
pub(super) const LATER_SEGMENT: &str = "a later segment begins before it: truncated back";
pub(super) const PARTIAL_BATCH: &str = "in a batch whose end was never written: never acknowledged";
pub(super) const DECLARED_LOST: &str = "declared lost by a repair";

/// Decides what goes where.
pub(super) fn place(found: &Found, wishes: Wishes) -> Placement {
    let mut placement = Placement { unplaced: found.loose.clone(), ..Placement::default() };
    let bases = bases(found, wishes, &mut placement);
    let state = found.manifest.state();
    placement.proven_end = proven_end(found, &bases);
    placement.declared_lost = match state {
        Some(state) if !wishes.beyond_seals => state.lost.clone(),
        _ => OffsetRanges::default(),
    };
    let front = match state {
        Some(state) if !wishes.beyond_seals => state.front,
        _ => 0,
    };
    for (id, segment) in &found.segments {
        let Some(base) = bases.get(id).copied() else {
            let of = found.uuid.filter(|_| found.ids_are_known).map(|uuid| (uuid, *id));
            placement.unplaced.extend(segment.pieces.iter().map(|piece| Loose { piece: piece.clone(), of }));
            continue;
        };
        let limit = if wishes.beyond_seals { None } else { limit(*id, segment, found, &bases) };
        for piece in &segment.pieces {
            let start = base + u64::from(piece.run.ordinals.start);
            let end = base + u64::from(piece.run.ordinals.end);
            let mut allowed = start.max(front)..end;
            let mut leave = |why, offsets: Range<u64>| {
                if !offsets.is_empty() {
                    placement.left_out.push(LeftOut { file: piece.file, why, offsets });
                }
            };
            leave(BEFORE_FRONT, start..end.min(front));
            if let Some((limit, why)) = limit {
                let limit = match segment_fill(*id, piece, found, &bases) {
                    Some(fill) => limit.max(fill),
                    None => limit,
                };
                leave(why, limit.max(allowed.start)..end);
                allowed.end = allowed.end.min(limit);
            }
            // Below the proven end the rest of the batch was durable too, whatever became of it.
            let whole = (base + u64::from(piece.run.whole_ordinal)).max(placement.proven_end);
            if whole < allowed.end && !wishes.partial_batches {
                leave(PARTIAL_BATCH, whole.max(allowed.start)..allowed.end);
                allowed.end = whole;
            }
            for lost in placement.declared_lost.iter() {
                leave(DECLARED_LOST, allowed.start.max(lost.start)..allowed.end.min(lost.end));
            }
            if allowed.start < allowed.end {
                let piece = piece.clone();
                placement.placed.push(Placed { segment: *id, piece, base, offsets: allowed });
            }
        }
    }
    placement.placed.sort_by_key(|placed| (placed.offsets.start, placed.segment));
    placement.unplaced.sort_by_key(|loose| (loose.piece.file, loose.piece.run.positions.start));
    ends(found, state, &bases, front, &mut placement);
    placement
}

/// Front, end, and the offset that the log says it was begun with.
fn ends(
    found: &Found,
    state: Option<&State>,
    bases: &BTreeMap<u64, u64>,
    front: u64,
    placement: &mut Placement,
) {
    let lowest = placement.placed.first().map(|placed| placed.offsets.start);
    let highest = placement.placed.iter().map(|placed| placed.offsets.end).max();
    placement.front = match state {
        Some(state) => lowest.map_or(state.front, |lowest| lowest.min(state.front).max(front)),
        None => lowest.unwrap_or(placement.proven_end),
    };
    placement.end = highest.unwrap_or(0).max(placement.proven_end).max(placement.front);
    // The first segment of all begins where the log does.
    let begun = bases.get(&1).copied().filter(|_| found.ids_are_known);
    let first_offset = state.map_or_else(|| begun.unwrap_or(0), |state| state.first_offset);
    placement.first_offset = first_offset.min(placement.front);
}

/// The bases of all segments that have one.
fn bases(found: &Found, wishes: Wishes, placement: &mut Placement) -> BTreeMap<u64, u64> {
    let mut bases = BTreeMap::new();
    let state = found.manifest.state();
    for (id, segment) in &found.segments {
        let said = state.and_then(|state| said_base(*id, state));
        if segment.bases.len() > 1 {
            placement
                .unknown
                .push(format!("segment {id:x} has several base sectors, which contradict each other"));
        }
        let written = segment.bases.first().copied().filter(|_| segment.bases.len() == 1);
        if let (Some(said), Some(written)) = (said, written)
            && said != written
        {
            placement.unknown.push(format!(
                "segment {id:x} begins at {said}, says the MANIFEST, and at {written}, says its base sector; the \
                 MANIFEST is followed"
            ));
        }
        let last = segment.pieces.iter().map(|piece| piece.run.ordinals.end).max().unwrap_or(0);
        if let Some(base) = said.or(written) {
            if base.saturating_add(u64::from(last)) > LARGEST_END {
                placement
                    .unknown
                    .push(format!("segment {id:x} states offsets that no log reaches: it is unplaced"));
            } else {
                bases.insert(*id, base);
            }
        }
    }
    if state.is_some_and(|state| lacks_an_edit(found, state)) {
        placement.unknown.push(
            "the MANIFEST lacks an edit: what was done to the log since is known from the stores alone"
                .to_string(),
        );
    }
    for (id, sealed, _) in
        state.into_iter().flat_map(State::sealed).filter(|(_, sealed, _)| !is_possible(sealed))
    {
        let end = sealed.seal.map_or(0, |seal| seal.next_offset);
        placement.unknown.push(format!(
            "the Seal of segment {id:x} names more records than its store can hold: that it ends at {end} is not believed"
        ));
    }
    infer(found, wishes, &mut bases, placement);
    bases
}

/// The base that a MANIFEST says. What follows from a Seal that cannot be true is not one.
fn said_base(id: u64, state: &State) -> Option<u64> {
    let before = state.segments.range(..id).next_back();
    let segment = state.segments.get(&id).filter(|_| before.is_none_or(|(_, before)| is_possible(before)))?;
    segment.base
}

/// Whether a Seal names no more records than the length that it states can hold.
fn is_possible(segment: &SegmentState) -> bool {
    let (Some(base), Some(seal)) = (segment.base, segment.seal) else { return true };
    let most = seal.length.saturating_sub(FIRST_FRAME) / HEADER_BYTES;
    seal.next_offset.saturating_sub(base) <= most
}

/// Finds bases that no sector and no MANIFEST says, from neighbours.
///
/// Where the segments between two known bases hold exactly as many records as lie between these, each begins where
/// the one before it ends: whatever had lost anything would leave too few. That proves them. With one known side
/// alone a base follows only if nothing is missing at the end of what stands before, which can look as if nothing
/// were (zeros behind the last record). A MANIFEST that knows both segments makes that as good as what an opening
/// goes by; without one it is a guess, which is made only where it is wished for.
fn infer(found: &Found, wishes: Wishes, bases: &mut BTreeMap<u64, u64>, placement: &mut Placement) {
    if !found.ids_are_known {
        return;
    }
    let ids: Vec<u64> = found.segments.keys().copied().collect();
    for id in &ids {
        between(*id, found, bases, placement);
    }
    let mut guessed = bases.clone();
    // Up, so that one base leads to the next; then down.
    for id in ids.iter().chain(ids.iter().rev()) {
        if guessed.contains_key(id) {
            continue;
        }
        let Some(told) = from_one_side(*id, found, &guessed) else { continue };
        guessed.insert(*id, told.0);
        if found.manifest.state().is_some() || wishes.infer_bases {
            bases.insert(*id, told.0);
            placement.inferred.push(Inferred { segment: *id, base: told.0, from: told.1 });
        }
    }
    let more = guessed.len() - bases.len();
    if more > 0 {
        placement.unknown.push(format!(
            "{more} of the segments have lost their bases, and their neighbours look whole, which proves nothing: if \
             you know that nothing is missing at the ends of these, --infer-bases places the segments behind them"
        ));
    }
}

/// The segment that follows in the log, as far as that can be told.
fn next_segment(id: u64, found: &Found) -> Option<u64> {
    match found.manifest.state() {
        Some(state) => state.segments.range(id.saturating_add(1)..).next().map(|(id, _)| *id),
        None => id.checked_add(1),
    }
}

/// Gives the segments behind `first`, up to the next known base, theirs, if they fit exactly.
fn between(first: u64, found: &Found, bases: &mut BTreeMap<u64, u64>, placement: &mut Placement) {
    let Some(mut end) = bases.get(&first).copied() else { return };
    let mut fits = Vec::new();
    let mut id = first;
    while let Some(count) = found.segments.get(&id).and_then(chain_end) {
        end = end.saturating_add(u64::from(count));
        let Some(next) = next_segment(id, found) else { return };
        if let Some(base) = bases.get(&next) {
            if *base == end {
                placement.inferred.extend(fits.iter().map(|(segment, base)| Inferred {
                    segment: *segment,
                    base: *base,
                    from: first,
                }));
                bases.extend(fits);
            }
            return;
        }
        fits.push((next, end));
        id = next;
    }
}

/// What one neighbour tells of a base, and which: that it ends where this one begins, or the other way round. The
/// one that ends there must look whole, and a frame of the other must attest that all before it was durable.
fn from_one_side(id: u64, found: &Found, bases: &BTreeMap<u64, u64>) -> Option<(u64, u64)> {
    let segment = found.segments.get(&id)?;
    let before = found
        .segments
        .range(..id)
        .next_back()
        .filter(|(before, _)| next_segment(**before, found) == Some(id));
    let before = before.filter(|_| attests(segment)).and_then(|(before, other)| {
        Some((bases.get(before)?.checked_add(u64::from(other.whole_end?))?, *before))
    });
    let behind = next_segment(id, found).and_then(|behind| {
        let base = bases.get(&behind)?.checked_sub(u64::from(segment.whole_end?))?;
        Some((base, behind)).filter(|_| found.segments.get(&behind).is_some_and(attests))
    });
    let told = match (before, behind) {
        // They contradict each other.
        (Some(_), Some(_)) => None,
        (one, other) => one.or(other),
    };
    told.filter(|(base, _)| *base <= LARGEST_END / 2)
}

/// Whether a frame of the segment says that everything before the segment was durable.
fn attests(segment: &Segment) -> bool {
    segment.watermark.is_some_and(|relative| relative >= 0)
}

/// How many records a segment has, if there are any, and no gap between them.
fn chain_end(segment: &Segment) -> Option<u32> {
    let mut runs: Vec<&Range<u32>> = segment.pieces.iter().map(|piece| &piece.run.ordinals).collect();
    runs.sort_by_key(|ordinals| (ordinals.start, ordinals.end));
    let mut end = 0;
    for ordinals in runs {
        if ordinals.start > end {
            return None;
        }
        end = end.max(ordinals.end);
    }
    Some(end).filter(|end| *end > 0)
}

/// The offset behind the last record that a segment holds for the log, and why those behind are not the log's; none
/// where all that is intact is the log's.
fn limit(
    id: u64,
    segment: &Segment,
    found: &Found,
    bases: &BTreeMap<u64, u64>,
) -> Option<(u64, &'static str)> {
    if let Some(state) = found.manifest.state() {
        let Some(named) = state.segments.get(&id) else {
            // An id above all that were named: an edit was lost, or a recovery did not finish its copy.
            return (id <= state.last_id).then_some((0, DROPPED));
        };
        if let Some(seal) = named.seal {
            return Some((seal.next_offset, BEYOND_SEAL));
        }
        let active = state.unsealed().next().is_some_and(|(first, _)| first == id);
        // A manifest that lacks what came later may lack that the log went on behind this Close, too.
        let close = state.closed.filter(|close| active && close.length > 0 && !lacks_an_edit(found, state));
        return close.map(|close| (close.next_offset, BEYOND_SEAL));
    }
    if segment.pieces.is_empty() || !found.ids_are_known {
        return None;
    }
    later_base(id, bases).map(|base| (base, LATER_SEGMENT))
}

/// Where later segments begin.
fn later_base(id: u64, bases: &BTreeMap<u64, u64>) -> Option<u64> {
    bases.range(id.saturating_add(1)..).map(|(_, base)| *base).min()
}

/// Whether there are records that a later manifest must have named: in a store above every id that this one names,
/// which is not an unfinished recovery's.
pub(super) fn lacks_an_edit(found: &Found, state: &State) -> bool {
    let later = found.segments.range(state.last_id.saturating_add(1)..);
    later.into_iter().any(|(_, segment)| segment.origin != Some(Origin::Copy) && !segment.pieces.is_empty())
}

/// Up to which offset a run holds the same records as the copy that a recovery made of it: what the copy lost, the
/// old store may still have.
fn segment_fill(id: u64, piece: &Piece, found: &Found, bases: &BTreeMap<u64, u64>) -> Option<u64> {
    if let Some(state) = found.manifest.state() {
        state.segments.get(&id)?;
        let (_, next) = state.segments.range(id.saturating_add(1)..).next()?;
        return next.born.map(|born| born.durable_end);
    }
    let (next, _) = bases.range(id.saturating_add(1)..).next()?;
    let copied = found.segments.get(next)?.origin == Some(Origin::Copy);
    // All whole batches of the chain were copied, and nothing else.
    let chain = piece.run.ordinals.start == 0;
    let end = bases.get(&id)?.saturating_add(u64::from(piece.run.whole_ordinal));
    Some(end).filter(|_| copied && chain)
}

/// The highest durable end that anything attests.
fn proven_end(found: &Found, bases: &BTreeMap<u64, u64>) -> u64 {
    let state = found.manifest.state();
    let watermarks = found.segments.iter().filter_map(|(id, segment)| {
        if state.is_some_and(|state| id <= &state.last_id && !state.segments.contains_key(id)) {
            return None;
        }
        // What lies beyond a Seal was durable once, and is not the log's.
        let seal = state.and_then(|state| state.segments.get(id)).and_then(|named| named.seal);
        let end = bases.get(id)?.checked_add_signed(segment.watermark?)?;
        let later = later_base(*id, bases).filter(|_| state.is_none() && found.ids_are_known);
        Some(seal.map_or(end, |seal| end.min(seal.next_offset)).min(later.unwrap_or(u64::MAX)))
    });
    let said = state.into_iter().flat_map(|state| {
        let seals =
            state.sealed().filter(|(_, sealed, _)| is_possible(sealed)).map(|(_, _, seal)| seal.next_offset);
        let born = state.segments.values().filter_map(|segment| segment.born).map(|born| born.durable_end);
        seals.chain(born).chain(state.closed.map(|close| close.next_offset)).chain([state.front])
    });
    let copies = found.segments.iter().filter(|(_, segment)| segment.origin == Some(Origin::Copy));
    let copies = copies.filter(|(id, _)| state.is_none_or(|state| **id > state.last_id));
    let copies = copies.filter_map(|(id, _)| bases.get(id).copied());
    watermarks.chain(said).chain(copies).filter(|end| *end <= LARGEST_END).max().unwrap_or(0)
}
