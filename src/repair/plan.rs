//! From a survey to what a repair will do. Pure.
//!
//! It owns the decision what is rewritten, sealed, copied, dropped and moved out, and the exact list of
//! acknowledged records that are lost by it. What recovery decides for an unclean end, recovery's own
//! plan decides here too. Invariants: the same survey gives the same plan; every record that is intact
//! and part of the log is served afterwards at its offset; an offset is lost only if no intact frame
//! carries it; the repaired log is closed cleanly, so that the next offset is stated, not guessed.
//!
//! Why losses are computed from what is intact, and not from the list of damages: a damage says what
//! was seen, and may not know what it cost; an offset without a frame is lost whatever the reason.

use std::collections::BTreeSet;
use std::ops::Range;

use super::action::{Action, Loss, LossRefused};
use super::renamed::Misnamed;
use super::survey::{Mend, Survey};
use crate::error::{Error, Result};
use crate::frame::HEADER_BYTES;
use crate::manifest::{self, Close, OffsetRanges, Reading, Seal, State, Tail};
use crate::mutant::{self, Mutant};
use crate::names;
use crate::options::DamagePolicy;
use crate::recovery::verdict::{self, Verdict};
use crate::recovery::{self, Copy, Findings, Planned, SegmentFindings, StoreFindings, Thrift};
use crate::scan::Run;
use crate::store::FIRST_FRAME;

/// What a repair will do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// In words, in the order in which it takes effect. Empty: there is nothing to repair.
    pub actions: Vec<Action>,
    /// The acknowledged records that are given up.
    pub loss: Loss,
    /// What only a lost MANIFEST knew.
    pub unknown: Vec<String>,
    /// The offsets that the repaired log serves, those that are lost among them.
    pub offsets: Range<u64>,
    /// Intact records that are left out: they stand behind a hole, and nothing proves that they, or what was
    /// in the hole, were acknowledged. Their files are kept.
    pub beyond: Vec<Range<u64>>,
    pub(super) state: State,
    pub(super) generation: u64,
    pub(super) copy: Option<Copy>,
    pub(super) mends: Vec<Mend>,
    pub(super) indexes: Vec<u64>,
    pub(super) take_out: Vec<String>,
    pub(super) misnamed: Misnamed,
}

impl Plan {
    /// Whether there is nothing to repair.
    pub fn is_nothing(&self) -> bool {
        self.actions.is_empty()
    }

    /// How many of its offsets are lost, those of earlier repairs among them.
    pub fn lost_in_all(&self) -> u64 {
        self.state.lost.count()
    }

    /// The ranges that have to be accepted before this is done.
    pub fn to_accept(&self) -> Vec<Range<u64>> {
        self.loss.ranges(self.offsets.end)
    }

    /// Whether `named` names exactly the records that are given up.
    ///
    /// # Errors
    /// What has to be named, where it does not.
    pub fn accepts(&self, named: &[Range<u64>]) -> std::result::Result<(), LossRefused> {
        if mutant::on(Mutant::RepairLossUnnamed) {
            return Ok(());
        }
        let wanted = self.to_accept();
        let union = |ranges: &[Range<u64>]| {
            let mut all = OffsetRanges::default();
            ranges.iter().for_each(|range| all.insert(range.clone()));
            all
        };
        // An open loss of nothing has to be named all the same.
        let said = |range: &Range<u64>| !range.is_empty() || named.contains(range);
        if union(&wanted) == union(named) && wanted.iter().all(said) {
            return Ok(());
        }
        let open_from = self.loss.open_from.filter(|_| named.is_empty());
        Err(LossRefused { wanted, named: named.to_vec(), open_from })
    }
}

/// Decides what to do.
///
/// `end` is the caller's own knowledge of how far records were acknowledged, where no evidence that
/// survived says so: the log goes on there, or behind what is intact from there on. An open loss ends at
/// it; intact records behind a hole ([`Plan::beyond`]) are kept by naming the hole's end. Without one, nothing
/// is taken for acknowledged but what is proven.
///
/// # Errors
/// [`Error::RepairRefused`] where there is no log, or `end` lies below what is there;
/// [`Error::Damaged`] where what is there contradicts itself beyond repair.
pub fn plan(survey: &Survey, end: Option<u64>) -> Result<Plan> {
    let plan = plan_for(survey, end, survey.open_end)?;
    let verdict = survey.findings.assessment.as_ref().map(|assessment| assessment.verdict);
    if verdict == Some(Verdict::Damage) && !plan.beyond.is_empty() && plan.loss.open_from.is_none() {
        // More than a crash leaves is wrong here, and intact records would be left out: that is not for a
        // repair alone to decide.
        return plan_for(survey, end, true);
    }
    Ok(plan)
}

fn plan_for(survey: &Survey, end: Option<u64>, open_end: bool) -> Result<Plan> {
    let (Reading::Whole { state, generation, tail, .. }, Some(assessment)) =
        (&survey.findings.manifest, &survey.findings.assessment)
    else {
        let directory = survey.findings.directory.display();
        return Err(Error::RepairRefused {
            why: format!(
                "{directory} holds no log, so there is nothing to repair: name the directory that holds MANIFEST. If it \
                 holds an image, or stores in other files, what is in them can be put out: log-repair salvage {directory} --carve \
                 --out DEST"
            ),
        });
    };
    let open = open_end || !assessment.loss_is_bounded;
    let reach =
        recovery::reach_beyond(assessment, assessment.proven_end).max(assessment.valid_end).max(state.front);
    // What the caller knows to have been acknowledged is proven by that.
    let stated = end.filter(|end| open || (state.closed.is_none() && *end > reach));
    if let Some(end) = stated
        && end < reach
    {
        return Err(Error::RepairRefused {
            why: format!(
                "the log cannot go on at {end}: records up to {reach} are there. Name an end at or above it"
            ),
        });
    }
    // A number with a digit too many would leave the log a hole for good.
    let room = survey.findings.segments.iter().filter(|segment| segment.state.seal.is_none());
    let room: u64 =
        room.filter_map(|s| s.store.length()).map(|bytes| bytes / HEADER_BYTES).fold(0, u64::saturating_add);
    if let Some(end) = stated.filter(|end| !open && *end > reach.saturating_add(room)) {
        return Err(Error::RepairRefused {
            why: format!(
                "no store here could have held records up to {end}: the intact ones reach to {reach}, and there is room for {room} \
                 more. Name an end that can be"
            ),
        });
    }
    // Nothing is ever acknowledged but whole batches: a log never ended inside of one.
    let inside = |end: u64| {
        let runs = assessment.placed.iter().flat_map(|place| place.runs.iter().map(|run| (place.base, run)));
        let offset = |base: u64, ordinal: u32| base.saturating_add(u64::from(ordinal));
        let mut ends =
            runs.map(|(base, run)| (offset(base, run.whole_ordinal), offset(base, run.ordinals.end)));
        ends.find(|(whole, last)| *whole < end && end < *last)
    };
    if let Some((whole, last)) = stated.and_then(inside) {
        return Err(Error::RepairRefused {
            why: format!(
                "the log cannot go on at {}: that lies inside of a batch, records {whole}..{last}. Name {whole}, or an end from \
                 {last} on",
                stated.unwrap_or(whole)
            ),
        });
    }
    // A hole is named whole, or what is intact behind it would be left out all the same.
    if let Some(end) = stated {
        let runs = assessment.placed.iter().flat_map(|place| {
            let offset = |ordinal: u32| place.base.saturating_add(u64::from(ordinal));
            place.runs.iter().map(move |run| offset(run.ordinals.start)..offset(run.ordinals.end))
        });
        let within = runs.clone().any(|run| run.start <= end && end <= run.end);
        if let Some(next) = runs.map(|run| run.start).filter(|start| *start > end && !within).min() {
            return Err(Error::RepairRefused {
                why: format!(
                    "the hole that {end} lies in ends at {next}, where intact records begin: name it whole, up to {next}"
                ),
            });
        }
    }
    // What is intact is not part of an open loss, and the holes before it are losses like others.
    let intact = assessment.placed.iter().flat_map(|place| {
        place.runs.iter().map(|run| place.base.saturating_add(u64::from(run.ordinals.end)))
    });
    let known = intact.max().unwrap_or(reach).min(stated.unwrap_or(reach)).max(reach);
    let open_from = open.then_some(known);
    let mut findings = survey.findings.clone();
    if (open || stated.is_some())
        && let Reading::Whole { state, .. } = &mut findings.manifest
    {
        // The caller's word for where the log ended counts as a Close would.
        state.closed = Some(Close { length: 0, next_offset: stated.unwrap_or(reach) });
        let mut closed = verdict::assess(state, &findings.segments, &findings.unnamed);
        if closed.proven_end == assessment.proven_end {
            closed.proven_position = assessment.proven_position;
        }
        for (place, before) in closed.placed.iter_mut().zip(&assessment.placed) {
            if (place.id, place.limit) == (before.id, before.limit) {
                place.limit_position = before.limit_position;
            }
        }
        findings.assessment = Some(closed);
    }
    let planner = Planner {
        survey,
        old: state,
        findings: &findings,
        generation: generation.saturating_add(1),
        open_from,
        torn_manifest: matches!(tail, Tail::Torn(_)),
    };
    planner.plan()
}

struct Planner<'a> {
    survey: &'a Survey,
    /// The state as it stands.
    old: &'a State,
    findings: &'a Findings,
    generation: u64,
    open_from: Option<u64>,
    torn_manifest: bool,
}

/// The plan's core: the state to come, and the records to copy.
struct Core {
    state: State,
    copy: Option<Copy>,
    next_offset: u64,
}

impl Planner<'_> {
    fn plan(&self) -> Result<Plan> {
        let mut core = if self.keeps_its_end() { self.keep_the_end() } else { self.recover()? };
        let dropped = self.drop_what_is_gone(&mut core);
        self.seal_short(&mut core);
        let mut mends = self.mends(&core);
        mends.extend(self.unsynced(&core, &mends));
        mends.sort_by_key(|mend| mend.id);
        let loss = self.settle_losses(&mut core);
        let indexes = self.indexes(&core);
        core.state.damaged = OffsetRanges::default();
        core.state.quarantined.clear();
        let take_out = self.take_out(&core, &mends, &indexes);
        let mut plan = Plan {
            actions: Vec::new(),
            loss,
            unknown: self.survey.rebuilt.iter().flat_map(|rebuilt| rebuilt.unknown.clone()).collect(),
            offsets: core.state.front..core.next_offset,
            beyond: self.beyond(core.next_offset),
            state: core.state,
            generation: self.generation,
            copy: core.copy,
            mends,
            indexes,
            take_out,
            misnamed: self.survey.misnamed.clone(),
        };
        plan.actions = self.actions(&plan, &dropped);
        Ok(plan)
    }

    fn segment(&self, id: u64) -> Option<&SegmentFindings> {
        let segments = &self.findings.segments;
        segments.get(segments.binary_search_by_key(&id, |segment| segment.id).ok()?)
    }

    fn runs(&self, id: u64) -> &[Run] {
        self.segment(id).and_then(|segment| segment.scan.as_ref()).map_or(&[], |scan| scan.runs.as_slice())
    }

    /// Whether a store is there that says it is this segment's.
    fn is_own(&self, segment: &SegmentFindings) -> bool {
        let head = segment.store.head();
        let whole = segment.store.length().is_some_and(|length| length >= FIRST_FRAME);
        whole && head.is_some_and(|head| head.uuid == self.old.uuid && head.id == segment.id)
    }

    /// Whether the log was closed, and its active store holds what the Close says.
    fn keeps_its_end(&self) -> bool {
        let Some(close) = self.old.closed.filter(|_| self.open_from.is_none()) else { return false };
        let Some((id, state)) = self.old.unsealed().next().filter(|_| close.length > 0) else {
            // No store was written to that is not sealed.
            let mut unsealed = self.findings.segments.iter().filter(|s| s.state.seal.is_none());
            let empty = |s: &SegmentFindings| {
                self.is_own(s) && s.scan.as_ref().is_some_and(|scan| scan.runs.is_empty())
            };
            return close.next_offset >= self.old.sealed_end() && unsealed.all(empty);
        };
        let base = state.base.or_else(|| self.segment(id).and_then(|segment| segment.base));
        let base = base.unwrap_or_else(|| self.old.sealed_end());
        let wanted = close.next_offset.saturating_sub(base);
        let long_enough = self.segment(id).and_then(|s| s.store.length()).is_some_and(|l| l >= close.length);
        let chain = self.segment(id).and_then(|segment| segment.scan.as_ref()).and_then(|scan| scan.chain());
        let held = chain.map_or(0, |run| u64::from(run.ordinals.end));
        let ends = chain.map_or(FIRST_FRAME, |run| run.positions.end);
        let only = self.runs(id).len() <= 1;
        let ours = self.segment(id).is_some_and(|segment| self.is_own(segment));
        // (Records behind the Close: then the MANIFEST is older than the store.)
        ours && close.length >= FIRST_FRAME && long_enough && held == wanted && ends >= close.length && only
    }

    /// After a clean close whose active store is intact: all stays as it is, but for what is damaged
    /// elsewhere.
    fn keep_the_end(&self) -> Core {
        let mut state = self.old.clone();
        let close = self.old.closed.unwrap_or(Close { length: 0, next_offset: self.old.sealed_end() });
        let active = self.old.unsealed().next().filter(|_| close.length > 0).map(|(id, _)| id);
        state.segments.retain(|id, segment| {
            let ours = || self.segment(*id).is_some_and(|segment| self.is_own(segment));
            segment.seal.is_some() || active == Some(*id) || ours()
        });
        Core { state, copy: None, next_offset: close.next_offset.max(self.old.front) }
    }

    /// After any other end: what recovery would do, told to serve in spite of damage.
    fn recover(&self) -> Result<Core> {
        let plan = match recovery::plan_with(self.findings, DamagePolicy::Serve, Thrift::Comfortable)? {
            Planned::Proceed(plan) => *plan,
            Planned::ReadsOnly(damage) => return Err((*damage).into()),
            Planned::Begin => return Err(Error::RepairRefused { why: "there is no log here".to_string() }),
        };
        let next_offset = plan.recovery.next_offset;
        let mut state = plan.state;
        // Recovery leaves no unsealed segment but the copy, which is named when it is written.
        state.closed = Some(Close { length: 0, next_offset });
        Ok(Core { state, copy: plan.copy, next_offset })
    }

    /// Segments of which no intact record is left, though they held some, go.
    fn drop_what_is_gone(&self, core: &mut Core) -> Vec<(u64, &'static str)> {
        let mut gone = Vec::new();
        for (id, state) in &core.state.segments {
            let Some(segment) = self.segment(*id) else { continue };
            let why = match &segment.store {
                StoreFindings::Missing => Some("its store is not there"),
                StoreFindings::Unreadable { .. } => Some("its store cannot be read"),
                StoreFindings::Present { .. } => {
                    let holds = self.runs(*id).iter().any(|run| !run.ordinals.is_empty());
                    (!self.is_own(segment) && !holds).then_some("its store holds none of its records")
                }
                StoreFindings::Listed { .. } => None,
            };
            let short = segment.store.length().is_some_and(|length| length < FIRST_FRAME);
            let why = why.or(short.then_some("its store is cut short before its first record"));
            // (A closed log's active segment holds what its Close says, or the log is recovered.)
            gone.extend(why.filter(|_| state.seal.is_some()).map(|why| (*id, why)));
        }
        for (id, _) in &gone {
            core.state.segments.remove(id);
        }
        // With a predecessor gone, nothing else would say where a segment begins.
        for (id, segment) in &mut core.state.segments {
            let known = self.segment(*id).and_then(|segment| segment.base);
            segment.base = segment.base.or(known);
        }
        gone
    }

    /// A store that is shorter than it was sealed is sealed again, where its last intact frame ends.
    fn seal_short(&self, core: &mut Core) {
        let ids: Vec<u64> = core.state.segments.keys().copied().collect();
        for id in ids {
            let length = self.segment(id).and_then(|segment| segment.store.length());
            let end = self.runs(id).last().map_or(FIRST_FRAME, |run| run.positions.end);
            if let Some(segment) = core.state.segments.get_mut(&id)
                && let (Some(seal), Some(length)) = (segment.seal, length)
                && length < seal.length
            {
                segment.seal = Some(Seal { length: end.min(length), ..seal });
            }
        }
    }

    /// The stores to be written anew that are still part of the log.
    fn mends(&self, core: &Core) -> Vec<Mend> {
        let kept = |mend: &&Mend| core.state.segments.contains_key(&mend.id);
        self.survey.mends.iter().filter(kept).cloned().collect()
    }

    /// Intact records at or behind `next_offset`. (Behind a clean close there is nothing of the log.)
    fn beyond(&self, next_offset: u64) -> Vec<Range<u64>> {
        let mut beyond = OffsetRanges::default();
        let unsealed = self.findings.segments.iter().filter(|segment| segment.state.seal.is_none());
        for segment in unsealed.filter(|_| self.old.closed.is_none()) {
            let Some(base) = segment.base else { continue };
            for run in self.runs(segment.id) {
                let offset = |ordinal: u32| base.saturating_add(u64::from(ordinal));
                // (What goes on from the end without a hole, and is left out, is a batch that never ended.)
                if offset(run.ordinals.start) > next_offset {
                    beyond.insert(offset(run.ordinals.start)..offset(run.whole_ordinal));
                }
            }
        }
        beyond.iter().collect()
    }

    /// Stores that are sealed beyond what was proven, by the caller's word for where the log ended: nothing is
    /// acted on from a file that may differ between page cache and disk, so each is written anew.
    fn unsynced(&self, core: &Core, mends: &[Mend]) -> Vec<Mend> {
        let proven = self.survey.findings.assessment.as_ref().map_or(0, |assessment| assessment.proven_end);
        let beyond = core.state.segments.iter().filter_map(|(id, state)| {
            let (seal, segment) = (state.seal?, self.segment(*id)?);
            let fresh = segment.state.seal.is_none() && seal.next_offset > proven.max(state.base?);
            let fresh = fresh && !mutant::on(Mutant::RepairSealUnsynced);
            let unmended = !mends.iter().any(|mend| mend.id == *id);
            let (head, base) = (*segment.store.head()?, state.base?);
            (fresh && unmended && self.runs(*id).iter().any(|run| !run.ordinals.is_empty())).then_some(Mend {
                id: *id,
                head,
                base,
                head_gone: false,
                base_gone: false,
                misnamed: None,
                unsynced: true,
                unreadable: Vec::new(),
            })
        });
        beyond.collect()
    }

    /// Whatever offset no intact frame carries is lost.
    fn settle_losses(&self, core: &mut Core) -> Loss {
        let mut lost = OffsetRanges::default();
        lost.insert(core.state.front..core.next_offset);
        for (id, segment) in &core.state.segments {
            let Some(base) = segment.base.or_else(|| self.segment(*id).and_then(|s| s.base)) else {
                continue;
            };
            let limit = segment.seal.map_or(core.next_offset, |seal| seal.next_offset);
            for run in self.runs(*id) {
                let start = base.saturating_add(u64::from(run.ordinals.start));
                let end = base.saturating_add(u64::from(run.ordinals.end)).min(limit);
                if start < end {
                    lost.remove(start..end);
                }
            }
        }
        if let Some(copy) = &core.copy {
            lost.remove(copy.base..copy.end);
        }
        let mut offsets = lost.clone();
        for known in self.old.lost.iter() {
            offsets.remove(known);
        }
        let mut all = self.old.lost.clone();
        lost.iter().for_each(|range| all.insert(range));
        all.remove(0..core.state.front);
        all.remove(core.next_offset..u64::MAX);
        core.state.lost = all;
        // What is copied from there on is there.
        let copied = core.copy.as_ref().map_or(0, |copy| copy.end);
        let open_from = self.open_from.map(|from| from.max(copied));
        if let Some(from) = open_from {
            offsets.remove(from..u64::MAX);
        }
        Loss { offsets, open_from }
    }

    /// The sealed segments whose index has to be written.
    fn indexes(&self, core: &Core) -> Vec<u64> {
        let wanted = |id: &u64, seal: Seal| {
            let segment = self.segment(*id);
            let before = segment.and_then(|segment| segment.state.seal);
            let same = before.is_some_and(|b| (b.next_offset, b.length) == (seal.next_offset, seal.length));
            !same || segment.is_some_and(|segment| segment.index_defect.is_some())
        };
        let sealed = core.state.segments.iter().filter_map(|(id, segment)| Some((*id, segment.seal?)));
        sealed.filter(|(id, seal)| wanted(id, *seal)).map(|(id, _)| id).collect()
    }

    /// The files that leave the directory: those that are replaced, and those that are no part of the log.
    fn take_out(&self, core: &Core, mends: &[Mend], indexes: &[u64]) -> Vec<String> {
        let listing = &self.findings.listing;
        let mut out = BTreeSet::new();
        let keeps = |id: &u64| core.state.segments.contains_key(id);
        // A store that lies under another's name leaves that name.
        let real = |id: u64| names::store(self.survey.misnamed.get(&id).copied().unwrap_or(id));
        out.extend(listing.stores.keys().filter(|id| !keeps(id)).map(|id| real(*id)));
        out.extend(mends.iter().map(|mend| real(mend.id)));
        if !mutant::on(Mutant::RepairMovedOver) {
            out.extend(self.survey.shadowed.iter().map(|id| names::store(*id)));
        }
        let stale = |id: &&u64| !keeps(id) || indexes.contains(id) || self.is_stale_index(core, **id);
        out.extend(listing.indexes.keys().filter(stale).map(|id| names::index(*id)));
        let unfinished = |name: &&String| names::id_of_unfinished_index(name).is_some();
        out.extend(listing.temporary.iter().filter(unfinished).cloned());
        let mut out: Vec<String> = out.into_iter().collect();
        // The MANIFEST goes last: until then the directory still says what it was.
        if listing.manifest {
            out.push(manifest::FILE_NAME.to_string());
        }
        out
    }

    /// An index that was written for another end of its segment.
    fn is_stale_index(&self, core: &Core, id: u64) -> bool {
        let now = core.state.segments.get(&id).and_then(|segment| segment.seal);
        let before = self.segment(id).and_then(|segment| segment.state.seal);
        now.is_some() && now != before
    }

    fn actions(&self, plan: &Plan, dropped: &[(u64, &'static str)]) -> Vec<Action> {
        let mut actions = Vec::new();
        actions.extend(self.survey.rebuilt.iter().map(|r| Action::RebuildManifest { why: r.why.clone() }));
        actions.extend(plan.mends.iter().map(|mend| Action::RewriteStore { mend: mend.clone() }));
        actions.extend(plan.copy.iter().map(|copy| Action::Copy {
            id: copy.id,
            offsets: copy.base..copy.end,
            from: copy.pieces.iter().map(|piece| piece.id).collect(),
        }));
        for (id, segment) in &plan.state.segments {
            let before = self.segment(*id).and_then(|found| found.state.seal);
            if let Some(seal) = segment.seal.filter(|seal| before != Some(*seal)) {
                actions.push(Action::Seal { id: *id, next_offset: seal.next_offset, length: seal.length });
            }
        }
        actions.extend(dropped.iter().map(|(id, why)| Action::Drop { id: *id, why }));
        let open = plan.loss.open_from.map(|from| from..plan.offsets.end).filter(|range| !range.is_empty());
        for offsets in plan.loss.offsets.iter().chain(open) {
            let holder = |segment: &&SegmentFindings| segment.base.is_some_and(|base| base <= offsets.start);
            let segment = self.findings.segments.iter().rev().find(holder).map(|segment| segment.id);
            actions.push(Action::DeclareLost { offsets, segment });
        }
        actions.extend(plan.indexes.iter().map(|id| Action::WriteIndex { id: *id }));
        for name in &plan.take_out {
            let mended = |id: u64| plan.mends.iter().any(|mend| mend.misnamed.unwrap_or(mend.id) == id);
            let replaced = names::id_of_store(name).is_some_and(mended)
                || names::id_of_index(name).is_some_and(|id| plan.indexes.contains(&id))
                || name == manifest::FILE_NAME;
            if !replaced {
                actions.push(Action::TakeOut { name: name.clone(), why: self.why_out(plan, name, dropped) });
            }
        }
        let changed = plan.state.lost != self.old.lost
            || !self.old.damaged.is_empty()
            || self.old.closed.is_none()
            || plan.state.segments.len() != self.old.segments.len()
            || plan.loss.open_from.is_some()
            || self.torn_manifest;
        if !actions.is_empty() || changed {
            actions
                .push(Action::WriteManifest { generation: plan.generation, next_offset: plan.offsets.end });
        }
        actions
    }

    fn why_out(&self, plan: &Plan, name: &str, dropped: &[(u64, &'static str)]) -> &'static str {
        let Some(id) = names::id_of_store(name) else { return "it belongs to no segment of the log" };
        if self.survey.shadowed.contains(&id) {
            return "it is not its segment's store, which lies under another name";
        }
        // What lies under another's name is judged as what it is.
        let id = self.survey.misnamed.iter().find(|(_, under)| **under == id).map_or(id, |(own, _)| *own);
        let copied = plan.copy.iter().any(|copy| copy.pieces.iter().any(|piece| piece.id == id));
        if dropped.iter().any(|(gone, _)| *gone == id) {
            "it holds none of its segment's records"
        } else if copied {
            "its records are copied"
        } else if self.runs(id).iter().any(|run| !run.ordinals.is_empty()) {
            match self.segment(id).and_then(|segment| segment.base) {
                Some(_) => "its records were never proven acknowledged",
                None => "nothing tells where its records belong, and they were never proven acknowledged",
            }
        } else if self.survey.unplaced.contains(&id) {
            "it holds records, and nothing tells where they belong"
        } else if self.segment(id).is_none() {
            "the log let go of it before"
        } else {
            "it holds no record"
        }
    }
}
