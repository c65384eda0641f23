//! What is damaged, and which records that costs. Pure.
//!
//! It owns the kinds of damage, and how the records that no run of intact frames holds become a list of
//! them. It does not judge whether anything is damage at all: `verdict` does. Invariant: every record that
//! is asked for and that no run holds is in exactly one gap.

use std::ops::Range;

use super::findings::SegmentFindings;
use crate::manifest::State;
use crate::scan::{Broken, Defect, Run};
use crate::store::FIRST_FRAME;

/// An unsealed segment whose place in the log is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    /// The segment.
    pub id: u64,
    /// Its base offset.
    pub base: u64,
    /// The offset behind the records that can be its (its successor's base), where that is known.
    pub limit: Option<u64>,
    /// Where the record at `limit` begins in its store, where intact frames go on across that.
    pub limit_position: Option<u64>,
    /// Runs of intact frames.
    pub runs: Vec<Run>,
    /// Non-zero bytes behind the last whole batch of its chain.
    pub tail: Option<Range<u64>>,
}

/// What kind of damage it is: what a tool gives a stable code to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum DamageKind {
    /// A store that the manifest names is not there.
    StoreMissing,
    /// A store cannot be opened, or its first sectors cannot be read.
    StoreUnreadable,
    /// A store is shorter than it was sealed.
    StoreShort,
    /// A store's head is not what was written, or another store's.
    Head,
    /// A base that contradicts the manifest, or the segment before.
    Base,
    /// Frames are not what was written; what is wrong with the first of them, where that is known.
    Frames(Option<Defect>),
    /// No store holds the records.
    NoStore,
    /// The disk cannot read the bytes.
    Unreadable,
}

/// Something that is not what was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DamageFound {
    /// What kind of damage.
    pub kind: DamageKind,
    /// The segment.
    pub id: u64,
    /// The position in its store, where there is one.
    pub position: Option<u64>,
    /// The records that cannot be served, where that is known.
    pub offsets: Option<Range<u64>>,
    /// What is wrong.
    pub what: String,
}

/// Records that are not in any run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gap {
    /// The records.
    pub offsets: Range<u64>,
    /// Where in the store the gap begins.
    pub position: u64,
    /// What is wrong there, where a scan's runs tell it.
    pub defect: Option<Defect>,
}

/// The records of `wanted` that `runs` (of a segment at `base`) do not hold.
pub fn gaps(base: u64, runs: &[Run], wanted: Range<u64>) -> Vec<Gap> {
    let mut gaps = Vec::new();
    let (mut next, mut position, mut defect) = (wanted.start, FIRST_FRAME, None);
    for run in runs {
        let start = base.saturating_add(u64::from(run.ordinals.start));
        let end = base.saturating_add(u64::from(run.ordinals.end));
        if start > next && next < wanted.end {
            gaps.push(Gap { offsets: next..start.min(wanted.end), position, defect });
        }
        next = next.max(end);
        (position, defect) = (run.positions.end, run.broken);
    }
    if next < wanted.end {
        gaps.push(Gap { offsets: next..wanted.end, position, defect });
    }
    gaps
}

/// What is wrong with the first frame of a gap.
pub(super) fn describe_gap(broken: Option<Broken>, gap: &Gap) -> (DamageKind, String) {
    let first = broken.filter(|broken| broken.position == gap.position).map(|broken| broken.defect);
    let defect = gap.defect.or(first);
    let what = defect.map_or("the frames here are not what was written", Defect::describe);
    (DamageKind::Frames(defect), what.to_string())
}

/// What is missing of the offsets `lost`, store by store.
pub(super) fn describe_gaps(
    placed: &[Placed],
    unsealed: &[&SegmentFindings],
    lost: Range<u64>,
    state: &State,
) -> Vec<DamageFound> {
    let mut found = Vec::new();
    let mut covered = lost.start;
    for place in placed {
        let end = place.limit.unwrap_or(lost.end).min(lost.end);
        if covered < place.base.min(lost.end) {
            // No store holds these: their own is gone.
            let id = unsealed.iter().map(|s| s.id).take_while(|id| *id < place.id).last().unwrap_or(place.id);
            let what = "no store holds these records".to_string();
            found.push(DamageFound {
                kind: DamageKind::NoStore,
                id,
                position: None,
                offsets: Some(covered..place.base.min(lost.end)),
                what,
            });
        }
        let start = place.base.max(lost.start);
        if start >= end {
            continue;
        }
        let scan = unsealed.iter().find(|s| s.id == place.id).and_then(|s| s.scan.as_ref());
        for gap in gaps(place.base, &place.runs, start..end) {
            let (kind, what) = describe_gap(scan.and_then(|scan| scan.broken), &gap);
            found.push(DamageFound {
                kind,
                id: place.id,
                position: Some(gap.position),
                offsets: Some(gap.offsets),
                what,
            });
        }
        covered = covered.max(end);
    }
    if covered < lost.end {
        // The last segment that can have held them.
        let holds = |segment: &&&SegmentFindings| segment.base.is_some_and(|base| base <= covered);
        let holder = unsealed.iter().rfind(holds).or(unsealed.last());
        let id = holder.map_or(state.last_id, |segment| segment.id);
        let what = "no store holds these records".to_string();
        found.push(DamageFound {
            kind: DamageKind::NoStore,
            id,
            position: None,
            offsets: Some(covered..lost.end),
            what,
        });
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_what_no_run_holds() {
        let run = |ordinals: Range<u32>, positions: Range<u64>| Run {
            whole_ordinal: ordinals.end,
            whole_position: positions.end,
            ordinals,
            positions,
            broken: Some(Defect::Checksum),
        };
        let runs = [run(0..3, 1024..1100), run(5..6, 1200..1300)];
        let found = gaps(10, &runs, 10..20);
        let gap = |offsets, position, defect| Gap { offsets, position, defect };
        let broken = Some(Defect::Checksum);
        assert_eq!(found, [gap(13..15, 1100, broken), gap(16..20, 1300, broken)]);
        assert_eq!(gaps(10, &[], 10..12), [gap(10..12, 1024, None)]);
    }
}
