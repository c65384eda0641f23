//! From findings and a policy to what will be done. Pure: nothing here reads or writes.
//!
//! It owns the decision what is sealed, copied, dropped, kept aside and served. Invariants: the
//! same findings and policy give the same plan; nothing below the proven end is cut; nothing beyond
//! it is lost (it is copied, stays beyond a seal, or goes to `quarantine/`); no file is appended to
//! that was open at an unclean end.

use std::ops::Range;

use super::findings::{Findings, SegmentFindings, StoreFindings, UnnamedStore};
use super::report::{CutTail, Recovery};
use super::verdict::{Assessment, Placed, Verdict};
use crate::error::{Damage, Result};
use crate::manifest::{self, Born, Reading, Seal, SegmentState, State};
use crate::mutant::{self, Mutant};
use crate::names::{self, LARGEST_END};
use crate::options::DamagePolicy;
use crate::store::{FIRST_FRAME, Origin};

/// A segment with at most this many bytes of frames is copied whole, so that a machine that loses
/// power every hour does not collect tiny segments.
pub(crate) const COPY_WHOLE_BYTES: u64 = 1 << 20;

/// What is to be done with a directory.
#[derive(Debug, Clone)]
pub enum Planned {
    /// There is no log yet: begin one.
    Begin,
    /// Recover, then serve.
    Proceed(Box<Plan>),
    /// The loss cannot be bounded, so that nobody knows which offset comes next: serve reads, and
    /// change nothing.
    ReadsOnly(Box<Damage>),
}

/// A store to be moved to `quarantine/`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moved {
    /// The segment whose store it is.
    pub id: u64,
    /// Why, in words, for the file beside it.
    pub why: String,
}

/// A piece of a store to be copied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyPiece {
    /// The segment to copy from.
    pub id: u64,
    /// The positions from the first frame to behind the last.
    pub positions: Range<u64>,
    /// The ordinals (in the old segment) of its records.
    pub ordinals: Range<u32>,
    /// The offset behind the last of them.
    pub end: u64,
}

/// Records to be copied into a fresh store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copy {
    /// The fresh segment's id.
    pub id: u64,
    /// Its base offset.
    pub base: u64,
    /// The offset behind the last record.
    pub end: u64,
    /// Where they come from, in order.
    pub pieces: Vec<CopyPiece>,
}

impl Copy {
    /// Bytes of frames to be copied.
    pub fn bytes(&self) -> u64 {
        self.pieces.iter().map(|piece| piece.positions.end - piece.positions.start).sum()
    }
}

/// What recovery will do, in the order in which it will do it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Records to be copied first.
    pub copy: Option<Copy>,
    /// The state for the fresh manifest; the copy is added to it once its length is known.
    pub state: State,
    /// The fresh manifest's generation.
    pub generation: u64,
    /// Segments without any bytes that may be given up first when the disk is full.
    pub unused: Vec<u64>,
    /// Copies that an interrupted recovery left: on a full disk their frames go first.
    pub leftover_copies: Vec<u64>,
    /// Stores to be moved once the fresh manifest is durable.
    pub quarantine: Vec<Moved>,
    /// Files to be removed once the fresh manifest is durable.
    pub remove: Vec<String>,
    /// The active segment that goes on after a clean close: id and the store's length.
    pub active: Option<(u64, u64)>,
    /// The report.
    pub recovery: Recovery,
}

/// Decides what to do.
///
/// # Errors
/// [`Error::Damaged`](crate::Error::Damaged) where the policy refuses, or the manifest itself is damaged.
pub fn plan(findings: &Findings, policy: DamagePolicy) -> Result<Planned> {
    plan_with(findings, policy, Thrift::Comfortable)
}

/// How much space a plan may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Thrift {
    /// As much as is good for the log.
    Comfortable,
    /// No more than it must: for a full disk.
    Sparing,
}

/// Decides what to do, with an eye on space.
pub(crate) fn plan_with(findings: &Findings, policy: DamagePolicy, thrift: Thrift) -> Result<Planned> {
    let (state, generation) = match &findings.manifest {
        Reading::Absent => return begin(findings),
        Reading::Damaged(damage) => return Err(damage.clone().into()),
        Reading::Whole { state, generation, .. } => (state, *generation),
    };
    let Some(assessment) = &findings.assessment else { return begin(findings) };
    if let Some(damage) = lost_edit(findings, state) {
        return Err(damage.into());
    }
    if let Some(damage) = standing_damage(findings, state, assessment) {
        if policy == DamagePolicy::Refuse {
            return Err(damage.into());
        }
        if !assessment.loss_is_bounded {
            return Ok(Planned::ReadsOnly(Box::new(damage)));
        }
    }
    let planner = Planner { findings, old: state, assessment, generation, thrift };
    let plan = planner.plan();
    check_end(findings, plan.recovery.next_offset)?;
    Ok(Planned::Proceed(Box::new(plan)))
}

/// Refuses to open a log that ends there.
pub(crate) fn check_end(findings: &Findings, end: u64) -> Result<()> {
    if end <= LARGEST_END {
        return Ok(());
    }
    Err(Damage {
        directory: findings.directory.clone(),
        file: findings.directory.clone(),
        position: None,
        offsets: None,
        what: format!("the next offset would be {end}, which no log ever reached"),
        proof: None,
    }
    .into())
}

fn begin(findings: &Findings) -> Result<Planned> {
    let stores = findings.listing.stores.keys().map(|id| names::store(*id));
    let indexes = findings.listing.indexes.keys().map(|id| names::index(*id));
    let Some(file) = stores.chain(indexes).next() else { return Ok(Planned::Begin) };
    Err(Damage {
        directory: findings.directory.clone(),
        file: findings.directory.join(manifest::FILE_NAME),
        position: None,
        offsets: None,
        what: "the manifest is missing, though there are segments".to_string(),
        proof: Some(format!("{file} is there; the manifest is durable before any segment")),
    }
    .into())
}

/// A store above every id the manifest knows, with frames, and not a recovery's copy: its Create
/// was durable before its first frame, so the manifest lost an edit.
fn proves_a_lost_edit(store: &UnnamedStore, state: &State) -> bool {
    let is_copy = store.head.is_some_and(|head| head.origin == Origin::Copy && head.uuid == state.uuid);
    store.id > state.last_id && store.has_frames && !is_copy && !mutant::on(Mutant::UnnamedStoreRemoved)
}

/// The damage of a manifest that lacks an edit, where a store proves that. It is served under no policy.
pub(crate) fn lost_edit(findings: &Findings, state: &State) -> Option<Damage> {
    let store = findings.unnamed.iter().find(|store| proves_a_lost_edit(store, state))?;
    Some(Damage {
        directory: findings.directory.clone(),
        file: findings.directory.join(manifest::FILE_NAME),
        position: None,
        offsets: None,
        what: "an edit that was acknowledged is missing from the manifest".to_string(),
        proof: Some(format!(
            "{} holds frames, and a store is named in the manifest before it gets any",
            names::store(store.id)
        )),
    })
}

/// The first damage that speaks against serving, as an error would tell it.
pub(crate) fn standing_damage(findings: &Findings, state: &State, assessment: &Assessment) -> Option<Damage> {
    if assessment.verdict == Verdict::Damage {
        let first =
            assessment.damage.iter().find(|found| found.offsets.is_some()).or(assessment.damage.first());
        let proof = Some(assessment.proof.describe(assessment.proven_end));
        return Some(Damage {
            directory: findings.directory.clone(),
            file: first.map_or_else(|| findings.directory.clone(), |found| findings.store_path(found.id)),
            position: first.and_then(|found| found.position),
            offsets: first.and_then(|found| found.offsets.clone()),
            what: first
                .map_or_else(|| "acknowledged records are missing".to_string(), |found| found.what.clone()),
            proof,
        });
    }
    let range = state.damaged.iter().next()?;
    let holder =
        findings.segments.iter().rev().find(|segment| segment.base.is_some_and(|base| base <= range.start));
    Some(Damage {
        directory: findings.directory.clone(),
        file: holder.map_or_else(|| findings.directory.clone(), |segment| findings.store_path(segment.id)),
        position: None,
        offsets: Some(range),
        what: "an earlier opening found these records damaged, and no repair has declared them lost"
            .to_string(),
        proof: Some("the manifest holds a Damaged edit".to_string()),
    })
}

/// How far intact whole batches follow the proven end without a gap.
pub(crate) fn reach_beyond(assessment: &Assessment, proven: u64) -> u64 {
    if assessment.verdict != Verdict::Damage {
        return assessment.valid_end.max(proven);
    }
    let mut end = proven;
    for place in &assessment.placed {
        for run in &place.runs {
            let start = place.base.saturating_add(u64::from(run.ordinals.start));
            let whole = place.base.saturating_add(u64::from(run.whole_ordinal));
            let limit = place.limit.unwrap_or(u64::MAX);
            if start <= end && end < whole.min(limit) {
                end = whole.min(limit);
            }
        }
    }
    end
}

struct Planner<'a> {
    findings: &'a Findings,
    old: &'a State,
    assessment: &'a Assessment,
    generation: u64,
    thrift: Thrift,
}

impl Planner<'_> {
    fn plan(&self) -> Plan {
        let clean = self.assessment.close_holds;
        let mut state = State { closed: None, ..self.old.clone() };
        let recovery = Recovery {
            begun: false,
            clean,
            verdict: self.assessment.verdict,
            proven_end: self.assessment.proven_end,
            proof: self.assessment.proof.describe(self.assessment.proven_end),
            valid_end: self.assessment.valid_end,
            next_offset: self.assessment.valid_end.max(self.old.front),
            scanned_bytes: self.findings.scanned_bytes(),
            copied: 0..0,
            cut: Vec::new(),
            removed: Vec::new(),
            quarantined: Vec::new(),
            damaged: Vec::new(),
        };
        let unused = self.unused();
        state.quarantined.retain(|id| self.findings.listing.stores.contains_key(id));
        let mut plan = Plan {
            copy: None,
            state,
            generation: self.generation.saturating_add(1),
            unused,
            leftover_copies: self.leftover_copies(),
            quarantine: Vec::new(),
            remove: Vec::new(),
            active: None,
            recovery,
        };
        if clean {
            self.go_on(&mut plan);
        } else {
            self.recover(&mut plan);
        }
        // Offsets from here on name records that are yet to come: none of them is damaged or lost.
        let next_offset = plan.recovery.next_offset;
        plan.state.damaged.remove(next_offset..u64::MAX);
        plan.state.lost.remove(next_offset..u64::MAX);
        if self.assessment.verdict == Verdict::Damage {
            plan.recovery.damaged = plan.state.damaged.iter().collect();
        }
        self.tidy(&mut plan);
        plan
    }

    /// After a clean close: the active segment goes on where it was.
    fn go_on(&self, plan: &mut Plan) {
        let Some(close) = self.old.closed else { return };
        let mut unsealed = self.old.unsealed().map(|(id, _)| id);
        if let Some(active) = unsealed.next().filter(|_| close.length > 0) {
            plan.active = Some((active, close.length));
            // The base sector may be the only place that knows it.
            let base = self.findings.segments.iter().find(|s| s.id == active).and_then(|s| s.base);
            if let Some(segment) = plan.state.segments.get_mut(&active) {
                segment.base = segment.base.or(base);
                // The Close goes, and with it the only word for the last group, if no mark came to follow it.
                let proven = segment.base.is_some_and(|base| base <= close.next_offset);
                segment.born = segment
                    .born
                    .filter(|_| !proven)
                    .or(proven.then_some(Born { durable_end: close.next_offset, length: close.length }));
            }
        }
        let active = plan.active.map(|(id, _)| id);
        plan.state.segments.retain(|id, segment| segment.seal.is_some() || Some(*id) == active);
        plan.recovery.next_offset = close.next_offset.max(self.old.front);
        self.declare_damage(plan);
    }

    /// After an unclean end: seal what is proven, copy what is valid beyond, let go of the rest.
    fn recover(&self, plan: &mut Plan) {
        #[cfg(feature = "_mutants")]
        if mutant::on(Mutant::OldFileContinued) && self.go_on_in_the_old_file(plan) {
            return;
        }
        let proven = self.assessment.proven_end;
        let end = reach_beyond(self.assessment, proven);
        let last = self.assessment.placed.iter().rposition(|place| place.base < proven);
        let whole =
            last.and_then(|index| self.assessment.placed.get(index)).filter(|place| self.copied_whole(place));
        self.declare_damage(plan);
        self.seal_proven(plan, last, whole.map(|place| place.id));

        let from = whole.map_or(proven, |place| place.base);
        let pieces = self.pieces(from, end);
        let covered = pieces.last().map_or(from, |piece| piece.end);
        // What was truncated away need not be copied.
        let served = if covered > from.max(self.old.front) {
            plan.copy = Some(Copy { id: self.fresh_id(), base: from, end: covered, pieces });
            plan.recovery.copied = from..covered;
            covered
        } else {
            proven
        };
        self.let_go(plan, served);
        plan.recovery.next_offset = served.max(self.old.front);
    }

    /// For the mutant: the one segment that holds anything goes on where its whole batches end. Gives
    /// whether it is so simple.
    #[cfg(feature = "_mutants")]
    fn go_on_in_the_old_file(&self, plan: &mut Plan) -> bool {
        let [place] = self.assessment.placed.as_slice() else { return false };
        let ([run], true) = (place.runs.as_slice(), self.assessment.verdict != Verdict::Damage) else {
            return false;
        };
        plan.state.segments.retain(|id, segment| segment.seal.is_some() || *id == place.id);
        if let Some(segment) = plan.state.segments.get_mut(&place.id) {
            segment.base = Some(place.base);
        }
        plan.active = Some((place.id, run.whole_position));
        let end = place.base.saturating_add(u64::from(run.whole_ordinal));
        plan.recovery.next_offset = end.max(self.old.front);
        true
    }

    /// Whether a segment is small, intact and without a torn tail: then all of it is copied, and
    /// the old one dropped.
    fn copied_whole(&self, place: &Placed) -> bool {
        let intact =
            self.assessment.verdict != Verdict::Damage && place.tail.is_none() && place.runs.len() == 1;
        let bytes = place.runs.first().map_or(0, |run| run.whole_position - FIRST_FRAME);
        intact && bytes <= COPY_WHOLE_BYTES && self.thrift == Thrift::Comfortable
    }

    fn declare_damage(&self, plan: &mut Plan) {
        if self.assessment.verdict != Verdict::Damage {
            return;
        }
        let missing = |id: u64| {
            let segments = &self.findings.segments;
            let found = segments.binary_search_by_key(&id, |segment| segment.id);
            found
                .ok()
                .and_then(|place| segments.get(place))
                .is_some_and(|s| s.state.seal.is_some() && s.store.length().is_none())
        };
        let sealed_end = self.old.sealed_end();
        for found in &self.assessment.damage {
            let Some(offsets) = &found.offsets else { continue };
            if offsets.start >= sealed_end || missing(found.id) {
                plan.state.damaged.insert(offsets.start.max(self.old.front)..offsets.end);
            }
        }
    }

    /// Seals every unsealed segment that holds something proven (all but one that is copied whole).
    fn seal_proven(&self, plan: &mut Plan, last: Option<usize>, whole: Option<u64>) {
        let proven = self.assessment.proven_end;
        let last_id = last.and_then(|index| self.assessment.placed.get(index)).map(|place| place.id);
        let mut cursor = self.old.sealed_end();
        for segment in self.unsealed() {
            if last_id.is_none_or(|last| segment.id > last) || whole == Some(segment.id) {
                continue;
            }
            let place = self.assessment.placed.iter().find(|place| place.id == segment.id);
            let next =
                self.assessment.placed.iter().find(|place| place.id > segment.id).map(|place| place.base);
            let base = place.map_or(cursor, |place| place.base);
            let next_offset = next.unwrap_or(proven).min(proven).max(base);
            let millis = segment.store.head().map_or(0, |head| head.created_millis);
            let seal = Seal {
                next_offset,
                length: self.sealed_length(segment, place, next_offset),
                first_millis: millis,
                last_millis: millis,
            };
            let entry = SegmentState { base: Some(base), born: segment.state.born, seal: Some(seal) };
            plan.state.segments.insert(segment.id, entry);
            if let Some(tail) = place.and_then(|place| place.tail.clone()) {
                let start = tail.start.max(seal.length);
                plan.recovery.cut.extend(self.cut(segment.id, start..tail.end, false));
            }
            cursor = next_offset;
        }
    }

    /// The position behind the last record below `end`.
    fn sealed_length(&self, segment: &SegmentFindings, place: Option<&Placed>, end: u64) -> u64 {
        let file = segment.store.length().unwrap_or(0);
        let Some(place) = place else { return FIRST_FRAME.min(file) };
        if let Some((id, position)) = self.assessment.proven_position
            && id == segment.id
            && end == self.assessment.proven_end
        {
            return position;
        }
        if let Some(position) = place.limit_position.filter(|_| place.limit == Some(end)) {
            return position;
        }
        // Behind its last whole batch: what stands there of another one is no part of it.
        let whole = place.runs.iter().rfind(|run| {
            place.base.saturating_add(u64::from(run.whole_ordinal)) == end
                && run.whole_ordinal > run.ordinals.start
        });
        if let Some(run) = whole {
            return run.whole_position;
        }
        let before = place.runs.iter().rfind(|run| {
            place.base.saturating_add(u64::from(run.ordinals.end)) <= end && !run.ordinals.is_empty()
        });
        before.map_or(FIRST_FRAME.min(file), |run| {
            if run.has_unfinished_batch() { run.positions.end } else { run.whole_position }
        })
    }

    /// Where the records `from..end` stand.
    fn pieces(&self, from: u64, end: u64) -> Vec<CopyPiece> {
        let mut pieces = Vec::new();
        let mut next = from;
        for place in &self.assessment.placed {
            for run in &place.runs {
                let start = place.base.saturating_add(u64::from(run.ordinals.start));
                let whole = place.base.saturating_add(u64::from(run.whole_ordinal));
                if next >= end || !(start <= next && next < whole) {
                    continue;
                }
                let position = match self.assessment.proven_position {
                    Some((id, position)) if id == place.id && next == self.assessment.proven_end => position,
                    _ => run.positions.start,
                };
                let Ok(first) = u32::try_from(next - place.base) else { continue };
                pieces.push(CopyPiece {
                    id: place.id,
                    positions: position..run.whole_position,
                    ordinals: first..run.whole_ordinal,
                    end: whole,
                });
                next = whole;
            }
        }
        pieces
    }

    /// Drops the unsealed segments that were not sealed; what holds bytes that are in no copy goes
    /// to quarantine.
    fn let_go(&self, plan: &mut Plan, end: u64) {
        for segment in self.unsealed() {
            let sealed = plan.state.segments.get(&segment.id).is_some_and(|s| s.seal.is_some());
            if sealed {
                continue;
            }
            plan.state.segments.remove(&segment.id);
            let place = self.assessment.placed.iter().find(|place| place.id == segment.id);
            let tail = segment.scan.as_ref().and_then(|scan| scan.tail.clone());
            let uncopied = place.is_some_and(|place| place.base >= end && !place.runs.is_empty())
                || self.assessment.unplaced.contains(&segment.id)
                // Nobody looked: nobody can say that it holds nothing.
                || segment.scan.is_none();
            if segment.store.length().is_none() {
                continue;
            }
            if (tail.is_some() || uncopied) && !mutant::on(Mutant::CutDiscarded) {
                let length = segment.store.length().unwrap_or(FIRST_FRAME);
                let cut = tail.unwrap_or(FIRST_FRAME..length.max(FIRST_FRAME));
                plan.recovery.cut.extend(self.cut(segment.id, cut, true));
                plan.state.quarantined.insert(segment.id);
            }
        }
    }

    fn cut(&self, id: u64, positions: Range<u64>, quarantined: bool) -> Option<CutTail> {
        (!positions.is_empty()).then(|| CutTail { file: names::store(id), positions, quarantined })
    }

    /// Files that no manifest will name.
    fn tidy(&self, plan: &mut Plan) {
        let keep = |id: &u64| plan.state.segments.contains_key(id);
        let mut remove = Vec::new();
        for id in self.findings.listing.stores.keys().filter(|id| !keep(id)) {
            if plan.state.quarantined.contains(id) {
                plan.quarantine.push(Moved {
                    id: *id,
                    why: "its bytes were never proven acknowledged and are in no other file".to_string(),
                });
                plan.recovery.quarantined.push(names::store(*id));
            } else if self.is_anothers(*id) {
                // Whoever gave it this name may have no other copy.
                plan.quarantine.push(Moved {
                    id: *id,
                    why: "its head says that it is another segment's, or another log's".to_string(),
                });
                plan.recovery.quarantined.push(names::store(*id));
            } else {
                remove.push(names::store(*id));
            }
        }
        remove
            .extend(self.findings.listing.indexes.keys().filter(|id| !keep(id)).map(|id| names::index(*id)));
        let temporary = self.findings.listing.temporary.iter().filter(|name| *name != manifest::NEXT_NAME);
        remove.extend(temporary.cloned());
        plan.recovery.removed = remove.clone();
        plan.remove = remove;
    }

    /// Whether a store that no manifest names lies under a name that is not its own.
    fn is_anothers(&self, id: u64) -> bool {
        let head = self.findings.unnamed.iter().find(|store| store.id == id).and_then(|store| store.head);
        head.is_some_and(|head| head.id != id || head.uuid != self.old.uuid)
    }

    fn unsealed(&self) -> impl Iterator<Item = &SegmentFindings> {
        self.findings.segments.iter().filter(|segment| segment.state.seal.is_none())
    }

    fn leftover_copies(&self) -> Vec<u64> {
        let is_copy = |store: &&UnnamedStore| {
            store.id > self.old.last_id && store.head.is_some_and(|head| head.origin == Origin::Copy)
        };
        self.findings.unnamed.iter().filter(is_copy).map(|store| store.id).collect()
    }

    /// Prepared segments that were never written to.
    fn unused(&self) -> Vec<u64> {
        let empty = |segment: &&SegmentFindings| {
            matches!(segment.store, StoreFindings::Present { head: Some(_), base: None, .. })
                && segment.scan.as_ref().is_some_and(|scan| scan.runs.is_empty() && scan.tail.is_none())
        };
        let last_used = self.unsealed().filter(|segment| !empty(segment)).map(|segment| segment.id).max();
        self.unsealed()
            .filter(empty)
            .map(|s| s.id)
            .filter(|id| last_used.is_none_or(|last| *id > last))
            .collect()
    }

    /// An id above every id ever seen.
    fn fresh_id(&self) -> u64 {
        let listed = self.findings.listing.stores.keys().next_back().copied().unwrap_or(0);
        listed.max(self.old.last_id).saturating_add(1)
    }
}

impl Plan {
    /// Adds the finished copy to the state.
    pub(crate) fn name_copy(&mut self, copy: &Copy, length: u64) {
        copy_is_named(&mut self.state, copy, length);
        self.active = Some((copy.id, length));
    }
}

/// Adds a finished copy of `length` bytes to `state`.
pub(crate) fn copy_is_named(state: &mut State, copy: &Copy, length: u64) {
    let born = Born { durable_end: copy.end, length };
    state.segments.insert(copy.id, SegmentState { base: Some(copy.base), born: Some(born), seal: None });
    state.last_id = state.last_id.max(copy.id);
}
