//! Tear or damage: the judgement, as pure functions over findings.
//!
//! It owns the decision table ([`judge`]) and the two numbers it is about: the proven end p (the
//! highest durable end that any surviving evidence attests) and the valid end v (how far whole
//! frames and whole batches reach without a gap). It reads no byte and changes nothing.
//!
//! Invariants: every combination of observations has a row; evidence only ever raises p; what
//! cannot be placed in the log (a base that nobody knows) is neither served nor taken as evidence.

use super::damage::{describe_gap, describe_gaps};
use super::findings::{SegmentFindings, StoreFindings, UnnamedStore};
use crate::frame::HEADER_BYTES;
use crate::manifest::State;
use crate::mutant::{self, Mutant};
use crate::scan::Defect;
use crate::store::{FIRST_FRAME, Origin};

pub use super::damage::{DamageFound, DamageKind, Gap, Placed, gaps};

/// What stands where a named store should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreFile {
    /// This segment's store.
    Ours,
    /// Nothing, or nothing that can be opened.
    Missing,
    /// A file whose head is not this segment's: the head was durable before the store was named.
    Strange,
}

/// How far whole frames reach, compared to what is proven.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// v < p: something acknowledged is not there.
    Short,
    /// v = p.
    Exact,
    /// v > p: there is more than is proven.
    Beyond,
}

/// What lies behind the valid end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rest {
    /// Zeros, or the end of the file.
    Zeros,
    /// Bytes.
    Bytes,
    /// Bytes that the disk cannot read: no crash does that.
    Unreadable,
}

/// The judgement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing is missing and nothing is left over.
    Clean,
    /// What is left over was never proven acknowledged: it is cut, and reported.
    Tear,
    /// Something that was acknowledged is not what was written: refused, never cut.
    Damage,
}

/// The decision table. docs/RECOVERY.md holds the same table; a test enumerates every row.
pub const fn judge(store: StoreFile, reach: Reach, rest: Rest) -> Verdict {
    match (store, reach, rest) {
        (StoreFile::Missing | StoreFile::Strange, _, _) => Verdict::Damage,
        (StoreFile::Ours, Reach::Short, _) => Verdict::Damage,
        (StoreFile::Ours, Reach::Exact | Reach::Beyond, Rest::Unreadable) => Verdict::Damage,
        (StoreFile::Ours, Reach::Exact | Reach::Beyond, Rest::Zeros) => Verdict::Clean,
        (StoreFile::Ours, Reach::Exact | Reach::Beyond, Rest::Bytes) => Verdict::Tear,
    }
}

/// Where the proven end comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proof {
    /// Nothing is proven but the start of the log.
    Start,
    /// A Seal in the manifest.
    Seal {
        /// The sealed segment.
        id: u64,
    },
    /// A Close in the manifest.
    Close,
    /// A Create in the manifest of a segment born with frames.
    Born {
        /// The segment.
        id: u64,
    },
    /// A frame's watermark.
    Watermark {
        /// The segment.
        id: u64,
        /// The frame's position in its store.
        position: u64,
    },
    /// A Damaged or Lost range in the manifest: what it names had been acknowledged.
    Declared,
    /// The base of a copy that an earlier recovery left unfinished.
    LeftoverCopy {
        /// The store's id.
        id: u64,
    },
}

impl Proof {
    /// The proof in words, for a proven end of `end`.
    pub fn describe(&self, end: u64) -> String {
        match self {
            Proof::Start => format!("the log starts at {end}"),
            Proof::Seal { id } => format!("the Seal of segment {id:x} proves {end} durable"),
            Proof::Close => format!("the Close proves {end} durable"),
            Proof::Born { id } => format!("the Create of segment {id:x} proves {end} durable"),
            Proof::Watermark { id, position } => {
                format!("the frame at byte {position} of segment {id:x} proves {end} durable")
            }
            Proof::Declared => {
                format!(
                    "the MANIFEST declares records up to {end} damaged or lost, so they had been acknowledged"
                )
            }
            Proof::LeftoverCopy { id } => {
                format!("copy {id:x}, left by an interrupted recovery, proves {end} durable")
            }
        }
    }
}

/// What the evidence says about the log's end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assessment {
    /// p: the proven end.
    pub proven_end: u64,
    /// Where p comes from.
    pub proof: Proof,
    /// v: the valid end.
    pub valid_end: u64,
    /// The judgement on the whole.
    pub verdict: Verdict,
    /// The unsealed segments that have a place, in order.
    pub placed: Vec<Placed>,
    /// Unsealed segments without a place, that hold bytes all the same (cut, and kept).
    pub unplaced: Vec<u64>,
    /// What is damaged, sealed segments included.
    pub damage: Vec<DamageFound>,
    /// Whether the log was closed and its unsealed segments can be taken as the Close says, unread.
    pub close_holds: bool,
    /// Whether the offsets that are lost can be told from those that never were.
    pub loss_is_bounded: bool,
    /// Where in the store that holds it the proven end lies: segment and position, where p falls
    /// inside a run of intact frames.
    pub proven_position: Option<(u64, u64)>,
}

/// Weighs the evidence about the segments that `state` names.
pub fn assess(state: &State, segments: &[SegmentFindings], unnamed: &[UnnamedStore]) -> Assessment {
    let mut damage = Vec::new();
    let sealed_end = state.sealed_end();
    let (mut proven_end, mut proof) = (sealed_end, Proof::Start);
    if let Some((id, _, _)) = state.sealed().last() {
        proof = Proof::Seal { id };
    }
    let mut prove = |end: u64, by: Proof| {
        if end > proven_end {
            proven_end = end;
            proof = by;
        }
    };
    // Where they were the last ones, nothing else says that their offsets are taken.
    let declared = [&state.damaged, &state.lost].into_iter().filter_map(|ranges| ranges.iter().last());
    declared.for_each(|range| prove(range.end, Proof::Declared));
    check_sealed(state, segments, &mut damage);
    let sealed_damage = damage.len();

    let mut placed: Vec<Placed> = Vec::new();
    let mut unplaced = Vec::new();
    let mut loss_is_bounded = true;
    // v, and whether everything up to it is there without a gap so far.
    // What a repair gave up is not missed.
    let behind_lost = |offset: u64| {
        let end = state.lost.end_of(offset).filter(|_| !mutant::on(Mutant::RepairLostMissed));
        end.unwrap_or(offset)
    };
    let (mut valid_end, mut gapless) = (behind_lost(sealed_end), true);
    // Whether the store before ended as a store ends: with nothing, at a whole batch.
    let mut ended = true;
    let unsealed: Vec<&SegmentFindings> = segments.iter().filter(|s| s.state.seal.is_none()).collect();
    for segment in &unsealed {
        if let Some(born) = segment.state.born {
            prove(born.durable_end, Proof::Born { id: segment.id });
        }
        let file = store_file(state, segment);
        if file != StoreFile::Ours {
            damage.push(DamageFound {
                kind: kind_of_file(&segment.store),
                id: segment.id,
                position: None,
                offsets: None,
                what: describe_file(&segment.store).to_string(),
            });
        }
        if let (Some(known), Some(written)) = (segment.state.base, segment.store.base())
            && known != written
        {
            damage.push(DamageFound {
                kind: DamageKind::Base,
                id: segment.id,
                position: Some(crate::store::BASE_POSITION),
                offsets: None,
                what: format!("its base sector says {written}, the manifest says {known}"),
            });
        }
        let Some(scan) = &segment.scan else {
            if file != StoreFile::Ours {
                gapless = false;
                loss_is_bounded = false;
            }
            continue;
        };
        if file != StoreFile::Ours && scan.runs.is_empty() {
            // Another file in its place, or nothing left of it: how many records it held, nobody knows.
            gapless = false;
            loss_is_bounded = false;
        }
        let base = segment.base.or_else(|| {
            // A lost base is the predecessor's end, but only where something says that the
            // predecessor was whole (a watermark at or behind this segment's own base does), and
            // where it still looks so.
            let attests = scan.watermark.is_some_and(|mark| mark.relative >= 0);
            (attests && gapless && ended).then_some(valid_end)
        });
        let Some(base) = base else {
            if scan.tail.is_some() || !scan.runs.is_empty() {
                unplaced.push(segment.id);
                ended = false;
            }
            continue;
        };
        if let Some(mark) = scan.watermark
            && !mutant::on(Mutant::WatermarksIgnored)
            && let Some(end) = base.checked_add_signed(mark.relative)
        {
            prove(end, Proof::Watermark { id: segment.id, position: mark.position });
        }
        if base > valid_end && base <= state.front {
            // What is missing before it was truncated away.
            (valid_end, gapless) = (base, true);
        }
        // A later segment with a known place bounds what an earlier one can have lost.
        loss_is_bounded = loss_is_bounded || base > valid_end;
        if let Some(previous) = placed.last_mut() {
            previous.limit = Some(base);
        }
        if base < valid_end {
            damage.push(DamageFound {
                kind: DamageKind::Base,
                id: segment.id,
                position: None,
                offsets: None,
                what: format!("its base {base} lies before the end {valid_end} of its predecessor"),
            });
            gapless = false;
        } else if base > valid_end {
            gapless = false;
        }
        if gapless && let Some(chain) = scan.chain() {
            valid_end = behind_lost(base.saturating_add(u64::from(chain.whole_ordinal)));
        }
        ended = scan.tail.is_none() && scan.broken.is_none_or(|broken| broken.defect == Defect::Nothing);
        placed.push(Placed {
            id: segment.id,
            base,
            limit: None,
            limit_position: None,
            runs: scan.runs.clone(),
            tail: scan.tail.clone(),
        });
    }
    if let Some(close) = state.closed {
        prove(close.next_offset, Proof::Close);
        // It says which offset comes next, whatever became of the stores.
        loss_is_bounded = true;
        if let Some(active) = unsealed.first().filter(|_| close.length > 0) {
            let base = active.base.unwrap_or(sealed_end);
            let what = if holds_too_many(Some(base), close.next_offset, close.length) {
                Some("the Close names more records than its length can hold")
            } else if close.length < FIRST_FRAME || close.next_offset < base {
                Some("the Close ends the store before its first record")
            } else {
                None
            };
            damage.extend(what.map(|what| DamageFound {
                kind: DamageKind::StoreShort,
                id: active.id,
                position: None,
                offsets: None,
                what: what.to_string(),
            }));
        }
    }
    for store in unnamed.iter().filter(|store| store.id > state.last_id) {
        if let (Some(head), Some(base)) = (store.head, store.base)
            && head.origin == Origin::Copy
            && head.uuid == state.uuid
            && !mutant::on(Mutant::CopyProofForgotten)
        {
            prove(base, Proof::LeftoverCopy { id: store.id });
        }
    }

    // What was truncated away is not missed.
    valid_end = valid_end.max(state.front);
    // After a clean close nothing is scanned: what the Close states is what there is.
    let unscanned = unsealed.iter().all(|segment| segment.scan.is_none());
    let close_holds = state.closed.is_some() && unscanned && damage.len() == sealed_damage;
    if let Some(close) = state.closed.filter(|_| close_holds) {
        valid_end = valid_end.max(close.next_offset);
    }
    let reach = match valid_end.cmp(&proven_end) {
        std::cmp::Ordering::Less => Reach::Short,
        std::cmp::Ordering::Equal => Reach::Exact,
        std::cmp::Ordering::Greater => Reach::Beyond,
    };
    if reach == Reach::Short {
        damage.extend(describe_gaps(&placed, &unsealed, valid_end..proven_end, state));
    }
    let mut verdict = Verdict::Clean;
    for segment in &unsealed {
        let rest = rest_of(segment);
        if rest == Rest::Unreadable {
            let range = segment.scan.as_ref().and_then(|scan| scan.unreadable.first().cloned());
            damage.push(DamageFound {
                kind: DamageKind::Unreadable,
                id: segment.id,
                position: range.map(|range| range.start),
                offsets: None,
                what: "the disk cannot read these bytes".to_string(),
            });
        }
        verdict = worse(verdict, judge(store_file(state, segment), reach, rest));
    }
    if reach == Reach::Short || !damage.is_empty() {
        verdict = Verdict::Damage;
    }
    Assessment {
        proven_end,
        proof,
        valid_end,
        verdict,
        placed,
        unplaced,
        damage,
        close_holds,
        loss_is_bounded,
        proven_position: None,
    }
}

fn worse(a: Verdict, b: Verdict) -> Verdict {
    match (a, b) {
        (Verdict::Damage, _) | (_, Verdict::Damage) => Verdict::Damage,
        (Verdict::Tear, _) | (_, Verdict::Tear) => Verdict::Tear,
        (Verdict::Clean, Verdict::Clean) => Verdict::Clean,
    }
}

fn store_file(state: &State, segment: &SegmentFindings) -> StoreFile {
    match &segment.store {
        StoreFindings::Missing | StoreFindings::Unreadable { .. } => StoreFile::Missing,
        StoreFindings::Listed { .. } => StoreFile::Ours,
        // A store is never as short as this: its space was reserved, durably, before it was named.
        StoreFindings::Present { length, .. } if *length < FIRST_FRAME => StoreFile::Strange,
        StoreFindings::Present { head: Some(head), .. }
            if head.uuid == state.uuid && head.id == segment.id =>
        {
            StoreFile::Ours
        }
        StoreFindings::Present { .. } => StoreFile::Strange,
    }
}

fn describe_file(store: &StoreFindings) -> &'static str {
    match store {
        StoreFindings::Missing => "the store is missing, though the manifest names it",
        StoreFindings::Unreadable { .. } => "the store cannot be opened",
        StoreFindings::Present { length, .. } if *length < FIRST_FRAME => "the store is cut short",
        StoreFindings::Present { head: Some(_), .. } => "the store is another segment's, or another log's",
        StoreFindings::Present { head: None, .. } => "the store's head is not what was written",
        StoreFindings::Listed { .. } => "the store is there",
    }
}

fn kind_of_file(store: &StoreFindings) -> DamageKind {
    match store {
        StoreFindings::Missing => DamageKind::StoreMissing,
        StoreFindings::Unreadable { .. } => DamageKind::StoreUnreadable,
        StoreFindings::Present { .. } | StoreFindings::Listed { .. } => DamageKind::Head,
    }
}

fn rest_of(segment: &SegmentFindings) -> Rest {
    match &segment.scan {
        Some(scan) if !scan.unreadable.is_empty() => Rest::Unreadable,
        Some(scan) if scan.broken.is_some_and(|broken| broken.defect == Defect::Unreadable) => {
            Rest::Unreadable
        }
        Some(scan) if scan.tail.is_some() => Rest::Bytes,
        _ => Rest::Zeros,
    }
}

/// A sealed store is not scanned at opening; it must be there, and at least as long as its Seal.
/// Where it was scanned (a check), every record must be intact.
fn check_sealed(state: &State, segments: &[SegmentFindings], damage: &mut Vec<DamageFound>) {
    for segment in segments {
        let Some(seal) = segment.state.seal else { continue };
        let base = segment.base.unwrap_or(state.front).max(state.front);
        let records = (base < seal.next_offset).then_some(base..seal.next_offset);
        if records.as_ref().is_some_and(|records| state.lost.covers(records)) {
            continue;
        }
        let found = |kind, position, offsets, what: String| DamageFound {
            kind,
            id: segment.id,
            position,
            offsets,
            what,
        };
        let file = store_file(state, segment);
        match segment.store.length() {
            None => {
                damage.push(found(
                    kind_of_file(&segment.store),
                    None,
                    records,
                    describe_file(&segment.store).to_string(),
                ));
                continue;
            }
            Some(length) if length < seal.length => {
                let what = format!("the store ends at byte {length}, but was sealed at {}", seal.length);
                let records = records.filter(|_| segment.scan.is_none());
                damage.push(found(DamageKind::StoreShort, Some(length), records, what));
            }
            // (An opening that served in spite of damage sealed what it found.)
            Some(_)
                if holds_too_many(segment.base, seal.next_offset, seal.length)
                    && records.as_ref().is_none_or(|records| !state.damaged.covers(records))
                    // What was given up, or truncated away, needs no bytes.
                    && records.as_ref().is_some_and(|records| {
                        let kept = (records.end - records.start).saturating_sub(state.lost.count_in(records));
                        kept > most_records(seal.length)
                    }) =>
            {
                let what = "its Seal names more records than its length can hold".to_string();
                damage.push(found(DamageKind::StoreShort, None, records, what));
            }
            Some(_) if file == StoreFile::Strange => {
                damage.push(found(
                    DamageKind::Head,
                    Some(0),
                    None,
                    describe_file(&segment.store).to_string(),
                ));
            }
            Some(_) => {}
        }
        let (Some(scan), Some(base)) = (&segment.scan, segment.base) else { continue };
        for gap in gaps(base, &scan.runs, base..seal.next_offset) {
            if gap.offsets.end <= state.front || state.lost.covers(&gap.offsets) {
                continue;
            }
            let (kind, what) = describe_gap(scan.broken, &gap);
            // What was truncated away is not missed.
            let offsets = gap.offsets.start.max(state.front)..gap.offsets.end;
            damage.push(found(kind, Some(gap.position), Some(offsets), what));
        }
        if let Some(range) = scan.unreadable.first() {
            let what = "the disk cannot read these bytes".to_string();
            damage.push(found(DamageKind::Unreadable, Some(range.start), None, what));
        }
    }
}

/// Whether more records are named than bytes of frames can hold.
fn holds_too_many(base: Option<u64>, end: u64, length: u64) -> bool {
    base.is_some_and(|base| end.saturating_sub(base) > most_records(length))
}

fn most_records(length: u64) -> u64 {
    length.saturating_sub(FIRST_FRAME) / HEADER_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    /// G5. Every row of docs/RECOVERY.md's table.
    #[test]
    fn the_decision_table_row_by_row() {
        use Reach::{Beyond, Exact, Short};
        use Rest::{Bytes, Unreadable, Zeros};
        use StoreFile::{Missing, Ours, Strange};
        use Verdict::{Clean, Damage, Tear};
        let table = [
            (Ours, Exact, Zeros, Clean),
            (Ours, Exact, Bytes, Tear),
            (Ours, Exact, Unreadable, Damage),
            (Ours, Beyond, Zeros, Clean),
            (Ours, Beyond, Bytes, Tear),
            (Ours, Beyond, Unreadable, Damage),
            (Ours, Short, Zeros, Damage),
            (Ours, Short, Bytes, Damage),
            (Ours, Short, Unreadable, Damage),
            (Missing, Exact, Zeros, Damage),
            (Missing, Exact, Bytes, Damage),
            (Missing, Exact, Unreadable, Damage),
            (Missing, Beyond, Zeros, Damage),
            (Missing, Beyond, Bytes, Damage),
            (Missing, Beyond, Unreadable, Damage),
            (Missing, Short, Zeros, Damage),
            (Missing, Short, Bytes, Damage),
            (Missing, Short, Unreadable, Damage),
            (Strange, Exact, Zeros, Damage),
            (Strange, Exact, Bytes, Damage),
            (Strange, Exact, Unreadable, Damage),
            (Strange, Beyond, Zeros, Damage),
            (Strange, Beyond, Bytes, Damage),
            (Strange, Beyond, Unreadable, Damage),
            (Strange, Short, Zeros, Damage),
            (Strange, Short, Bytes, Damage),
            (Strange, Short, Unreadable, Damage),
        ];
        for (store, reach, rest, verdict) in table {
            assert_eq!(judge(store, reach, rest), verdict, "{store:?} {reach:?} {rest:?}");
        }
        let rows: std::collections::BTreeSet<String> =
            table.iter().map(|(a, b, c, _)| format!("{a:?}{b:?}{c:?}")).collect();
        assert_eq!(rows.len(), 27, "a row is missing");
    }
}
