//! The survey: a look at every byte of a log, and what can be known of it without its MANIFEST.
//!
//! It owns the order of looking (the MANIFEST, the stores, once more by what the stores tell) and the
//! list of stores that have to be written anew ([`Mend`]): a store whose frames are intact counts as the
//! segment's own, though its head is gone. It reads only, and decides nothing that [`plan`](super::plan())
//! decides. Invariant: what it takes for intact, a repair makes so.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::Path;

use super::rebuild::{self, Hints};
use super::renamed::{self, Misnamed, Renamed};
use crate::disk::Disk;
use crate::error::{Damage, Error, Result};
use crate::frame::Seed;
use crate::manifest::{self, Reading, Seal, State, Tail};
use crate::recovery::{Depth, Findings, Listing, SegmentFindings, StoreFindings};
use crate::recovery::{find_positions, inspect_as, list, lost_edit, position_behind, sectors, verdict};
use crate::scan::Defect;
use crate::store::{self, FIRST_FRAME, Head, Origin};

/// What says which segments make up the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Basis {
    /// The MANIFEST, as far as it is what was written; the stores for the rest.
    Manifest,
    /// The stores alone.
    Stores,
}

/// A store that has to be written anew, though its records are intact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mend {
    /// The segment.
    pub id: u64,
    /// The head it gets.
    pub head: Head,
    /// The base offset it gets.
    pub base: u64,
    /// Whether its head, and whether its base, is not what was written.
    pub head_gone: bool,
    /// See `head_gone`.
    pub base_gone: bool,
    /// The id in the name that the store lies under, where that is another segment's.
    pub misnamed: Option<u64>,
    /// It is sealed beyond what was proven durable: what is there may be in the page cache alone.
    pub unsynced: bool,
    /// Ranges that the disk cannot read: zeros take their place.
    pub unreadable: Vec<Range<u64>>,
}

/// The log was put together from its stores.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rebuilt {
    /// What is wrong with the MANIFEST.
    pub why: String,
    /// What only the MANIFEST knew, in words.
    pub unknown: Vec<String>,
}

/// A log as it stands, looked at to the last byte.
#[derive(Debug, Clone)]
pub struct Survey {
    /// What was seen, with the stores of `mends` taken for whole. Where the log was put together from
    /// its stores, the manifest in it is what they say.
    pub findings: Findings,
    /// Stores to be written anew.
    pub mends: Vec<Mend>,
    /// Whether, and why, the MANIFEST was not taken at its word.
    pub rebuilt: Option<Rebuilt>,
    /// Where the log ended nobody can tell: bytes at the end of an unsealed store cannot be read, records have
    /// no place, or a MANIFEST that is not used knows of more.
    pub open_end: bool,
    /// Stores that lie under another segment's name.
    pub(super) misnamed: Misnamed,
    /// Ids whose names hold files that are nobody's, while their own stores lie under other names.
    pub(super) shadowed: Vec<u64>,
    /// Segments that hold records, whose place in the log nothing tells.
    pub(super) unplaced: Vec<u64>,
}

impl Survey {
    fn write_under_its_own_name(&mut self, id: u64, name: u64) {
        if let Some(mend) = self.mends.iter_mut().find(|mend| mend.id == id) {
            mend.misnamed = Some(name);
            return;
        }
        let segment = self.findings.segments.iter().find(|segment| segment.id == id);
        let Some((segment, head)) = segment.and_then(|segment| Some((segment, *segment.store.head()?)))
        else {
            return;
        };
        let Some(base) = segment.base.or(segment.store.base()) else { return };
        let whole = Mend {
            id,
            head,
            base,
            head_gone: false,
            base_gone: false,
            misnamed: Some(name),
            unsynced: false,
            unreadable: Vec::new(),
        };
        self.mends.push(whole);
        self.mends.sort_by_key(|mend| mend.id);
    }

    /// The state that it stands on, where there is a log.
    pub fn state(&self) -> Option<&State> {
        match &self.findings.manifest {
            Reading::Whole { state, .. } => Some(state),
            Reading::Absent | Reading::Damaged(_) => None,
        }
    }
}

/// Looks at the log in `directory`, with reads only.
///
/// # Errors
/// When the directory cannot be listed, the MANIFEST cannot be read, or a later version wrote a file.
/// [`Error::Damaged`](crate::Error::Damaged) where neither a MANIFEST nor the head of a store tells which log this is.
pub fn survey(disk: &dyn Disk, directory: &Path, basis: Basis) -> Result<Survey> {
    let listing = list(disk, directory)?;
    let manifest = if listing.exists { manifest::read(disk, directory)? } else { Reading::Absent };
    // Whatever the MANIFEST says of them, stores have names of their own.
    let uuid = match &manifest {
        Reading::Whole { state, .. } => Some(state.uuid),
        Reading::Absent | Reading::Damaged(_) => {
            manifest::remains(disk, directory)?.uuid.or(identity(disk, directory, &listing)?)
        }
    };
    let mut ids: BTreeSet<u64> = listing.stores.keys().chain(listing.indexes.keys()).copied().collect();
    if let Reading::Whole { state, .. } = &manifest {
        ids.extend(state.segments.keys());
    }
    let misnamed = match uuid {
        Some(uuid) => renamed::find(disk, directory, &listing, &uuid, &ids)?,
        None => Misnamed::new(),
    };
    let view = Renamed::new(disk, directory, &misnamed);
    let mut survey = survey_as_named(&view, directory, manifest, basis)?;
    for (id, name) in &misnamed {
        survey.write_under_its_own_name(*id, *name);
    }
    let moved: BTreeSet<u64> = misnamed.values().copied().collect();
    let is_shadowed = |id: &&u64| misnamed.contains_key(*id) && !moved.contains(*id);
    survey.shadowed = listing.stores.keys().filter(is_shadowed).copied().collect();
    survey.misnamed = misnamed;
    Ok(survey)
}

/// The survey, with each store under its own name.
fn survey_as_named(disk: &dyn Disk, directory: &Path, manifest: Reading, basis: Basis) -> Result<Survey> {
    let listing = list(disk, directory)?;
    let findings = inspect_as(disk, directory, listing, manifest, Depth::Everything)?;
    let gone = match &findings.manifest {
        Reading::Absent if findings.listing.stores.is_empty() => None,
        Reading::Absent => Some(("there is none".to_string(), 0)),
        Reading::Damaged(damage) => Some((damage.what.clone(), 0)),
        Reading::Whole { state, generation, .. } => match (lost_edit(&findings, state), basis) {
            (Some(damage), _) => Some((damage.what, *generation)),
            (None, Basis::Stores) => Some(("it is not to be used".to_string(), *generation)),
            (None, Basis::Manifest) => None,
        },
    };
    let Some((why, generation)) = gone else { return mended(disk, findings, None) };
    let remains = if basis == Basis::Stores { None } else { Some(manifest::remains(disk, directory)?) };
    rebuild(disk, findings, remains.unwrap_or_default(), why, generation)
}

/// Puts the log together from its stores.
fn rebuild(
    disk: &dyn Disk,
    findings: Findings,
    remains: manifest::Remains,
    why: String,
    generation: u64,
) -> Result<Survey> {
    let directory = findings.directory.clone();
    let known_end = match &findings.manifest {
        Reading::Whole { state, .. } => {
            let declared =
                [&state.lost, &state.damaged].into_iter().filter_map(|ranges| ranges.iter().last());
            let ends = declared.map(|range| range.end).chain(state.closed.map(|close| close.next_offset));
            ends.chain([state.front, state.sealed_end()]).max()
        }
        Reading::Absent | Reading::Damaged(_) => None,
    };
    let mut hints = Hints::of(remains.edits);
    hints.uuid = hints.uuid.or(remains.uuid);
    if let Reading::Whole { state, .. } = &findings.manifest
        && hints.uuid.is_some()
    {
        // A whole MANIFEST that lacks an edit knows what it let go of.
        let known = state.segments.keys().copied().collect::<Vec<_>>();
        let stores = findings.listing.stores.keys();
        hints.dropped.extend(stores.filter(|id| **id <= state.last_id && !known.contains(id)));
    }
    let uuid = match hints.uuid {
        Some(uuid) => uuid,
        None => identity(disk, &directory, &findings.listing)?.ok_or_else(|| no_identity(&directory))?,
    };
    let mut stores = BTreeMap::new();
    for id in findings.listing.stores.keys() {
        stores.insert(*id, sectors(disk, &directory, *id, Seed::of_segment(&uuid, *id))?);
    }
    let guess = rebuild::first_guess(uuid, &hints, &stores);
    let generation = remains.generation.unwrap_or(generation).max(generation);
    let reading = |state| Reading::Whole { state, generation, tail: Tail::Clean, length: 0, edits: 0 };
    let listing = findings.listing;
    let seen = inspect_as(disk, &directory, listing.clone(), reading(guess.clone()), Depth::Everything)?;
    let settled = rebuild::settle(&hints, &seen.segments);
    let mut seals = BTreeMap::new();
    for place in &settled.places {
        let found = seen.segments.binary_search_by_key(&place.id, |segment| segment.id);
        let segment = found.ok().and_then(|at| seen.segments.get(at));
        let (Some(end), Some(segment)) = (place.seal, segment) else { continue };
        let length = sealed_length(disk, &directory, segment, end.saturating_sub(place.base))?;
        let millis = segment.store.head().map_or(0, |head| head.created_millis);
        let seal = Seal { next_offset: end, length, first_millis: millis, last_millis: millis };
        seals.insert(place.id, seal);
    }
    let state = rebuild::state(&guess, &hints, &settled, &seals);
    let unknown = rebuild::unknown(&hints, &settled);
    let findings = inspect_as(disk, &directory, listing, reading(state), Depth::Everything)?;
    let mut survey = mended(disk, findings, Some(Rebuilt { why, unknown }))?;
    let reach = survey.findings.assessment.as_ref().map_or(0, |found| found.proven_end.max(found.valid_end));
    survey.unplaced = settled.unplaced.clone();
    // A MANIFEST that is not to be used may still know of offsets that are taken.
    survey.open_end |= settled.unplaced_behind() || known_end.is_some_and(|end| end > reach);
    Ok(survey)
}

/// The log's identity, by the heads of its stores: a store under another's name has a vote as well.
fn identity(disk: &dyn Disk, directory: &Path, listing: &Listing) -> Result<Option<[u8; 16]>> {
    let mut votes: BTreeMap<[u8; 16], usize> = BTreeMap::new();
    for id in listing.stores.keys() {
        let found = sectors(disk, directory, *id, Seed::of_segment(&[0; 16], *id))?;
        if let Some(head) = found.head() {
            // (Where there are as many, the names decide.)
            *votes.entry(head.uuid).or_default() += if head.id == *id { 3 } else { 2 };
        }
    }
    Ok(votes.into_iter().max_by_key(|(_, votes)| *votes).map(|(uuid, _)| uuid))
}

fn no_identity(directory: &Path) -> Error {
    Damage {
        directory: directory.to_path_buf(),
        file: directory.join(manifest::FILE_NAME),
        position: None,
        offsets: None,
        what: "neither a MANIFEST nor the head of any store tells which log this is; what the stores hold can be put out \
               with log-repair salvage --carve"
            .to_string(),
        proof: None,
    }
    .into()
}

/// The position behind the last intact record below `ordinal`.
fn sealed_length(disk: &dyn Disk, directory: &Path, segment: &SegmentFindings, records: u64) -> Result<u64> {
    let file = segment.store.length().unwrap_or(0);
    let Some(scan) = &segment.scan else { return Ok(FIRST_FRAME.min(file)) };
    let ordinal = u32::try_from(records).unwrap_or(u32::MAX);
    if let Some(position) = position_behind(disk, directory, segment.id, &scan.runs, ordinal)? {
        return Ok(position);
    }
    let before = scan.runs.iter().rfind(|run| run.ordinals.end <= ordinal);
    Ok(before.map_or(FIRST_FRAME.min(file), |run| run.positions.end))
}

/// A store whose base is gone was scanned without it, and then less is demanded of its frames than will be once it
/// is back: so it is looked at once more, with the base that its place gives it.
fn with_bases(disk: &dyn Disk, mut findings: Findings) -> Result<Findings> {
    let (Reading::Whole { state, .. }, Some(assessment)) = (&mut findings.manifest, &findings.assessment)
    else {
        return Ok(findings);
    };
    let mut told = false;
    // Under a whole MANIFEST a segment without a base of its own begins where the one before ends, and so ends where the
    // next begins: its records, all there, count back from that.
    let mut next: Option<u64> = None;
    for segment in findings.segments.iter().rev() {
        if segment.base.is_none()
            && let (Some(end), Some(scan)) = (next, &segment.scan)
            && let [run] = scan.runs.as_slice()
            && run.ordinals.start == 0
            && scan.tail.is_none()
            && let Some(base) = end.checked_sub(u64::from(run.whole_ordinal))
            && let Some(known) = state.segments.get_mut(&segment.id)
        {
            known.base = Some(base);
            told = true;
        }
        let base = state.segments.get(&segment.id).and_then(|known| known.base).or(segment.base);
        let holds = segment.scan.as_ref().is_some_and(|scan| !scan.runs.is_empty());
        next = if base.is_some() { base } else { next.filter(|_| !holds) };
    }
    for segment in findings.segments.iter().filter(|segment| segment.base.is_none()) {
        let place = assessment.placed.iter().find(|place| place.id == segment.id && !place.runs.is_empty());
        let known = state.segments.get_mut(&segment.id).filter(|known| known.base.is_none());
        if let (Some(place), Some(known)) = (place, known) {
            known.base = Some(place.base);
            told = true;
        }
    }
    if !told {
        return Ok(findings);
    }
    let Findings { directory, listing, manifest, .. } = findings;
    inspect_as(disk, &directory, listing, manifest, Depth::Everything)
}

/// Takes stores whose frames are intact for whole, and notes what has to be written anew.
fn mended(disk: &dyn Disk, findings: Findings, rebuilt: Option<Rebuilt>) -> Result<Survey> {
    let mut findings = with_bases(disk, findings)?;
    let mut survey = Survey {
        findings: findings.clone(),
        mends: Vec::new(),
        rebuilt,
        open_end: false,
        misnamed: Misnamed::new(),
        shadowed: Vec::new(),
        unplaced: Vec::new(),
    };
    let Reading::Whole { state, .. } = &survey.findings.manifest else { return Ok(survey) };
    let placed: Vec<(u64, u64)> = findings
        .assessment
        .iter()
        .flat_map(|assessment| assessment.placed.iter().map(|place| (place.id, place.base)))
        .collect();
    for segment in &mut findings.segments {
        let known = segment.base.or_else(|| Some(placed.iter().find(|place| place.0 == segment.id)?.1));
        survey.mends.extend(mend(state, segment, known));
    }
    // Where the disk cannot read behind an unsealed store's whole frames, records may have been: how many,
    // nobody knows, unless a Close or a later segment tells.
    let bounded = |id: u64| state.closed.is_some() || placed.iter().any(|place| place.0 > id);
    survey.open_end = survey.mends.iter().any(|mend| {
        let segment = findings.segments.iter().find(|segment| segment.id == mend.id);
        let last = segment.and_then(|s| s.scan.as_ref()).and_then(|scan| scan.runs.last());
        let end = last.map_or(FIRST_FRAME, |run| run.positions.end);
        let unsealed = segment.is_some_and(|segment| segment.state.seal.is_none());
        unsealed && mend.unreadable.iter().any(|range| range.end > end) && !bounded(mend.id)
    });
    let mut assessment = verdict::assess(state, &findings.segments, &findings.unnamed);
    // Records that nothing places were somewhere, and where the log ended they may have been acknowledged.
    let records = |id: &u64| {
        let segment = findings.segments.iter().find(|segment| segment.id == *id);
        let runs =
            segment.and_then(|segment| segment.scan.as_ref()).map_or(&[][..], |scan| scan.runs.as_slice());
        runs.iter().any(|run| run.whole_ordinal > run.ordinals.start)
    };
    survey.open_end |= state.closed.is_none() && assessment.unplaced.iter().any(records);
    find_positions(disk, &findings.directory, &mut assessment)?;
    findings.assessment = Some(assessment);
    survey.findings = findings;
    Ok(survey)
}

/// What has to be written anew of one store, where its frames say that it is the segment's own.
fn mend(state: &State, segment: &mut SegmentFindings, base: Option<u64>) -> Option<Mend> {
    let scan = segment.scan.as_mut()?;
    let StoreFindings::Present { length, head, base: written } = &mut segment.store else { return None };
    let base = base.or(*written)?;
    let ours = head.is_some_and(|head| head.uuid == state.uuid && head.id == segment.id);
    if *length < FIRST_FRAME || (scan.runs.is_empty() && !ours) {
        return None;
    }
    let origin = if segment.state.born.is_some() { Origin::Copy } else { Origin::Roll };
    let own = Head {
        version: store::FORMAT_VERSION,
        origin,
        uuid: state.uuid,
        id: segment.id,
        created_millis: segment.state.seal.map_or(state.created_millis, |seal| seal.first_millis),
    };
    let made = head.filter(|_| ours).unwrap_or(own);
    // A base sector goes out with the first frames: a store without any has none.
    let base_gone = !scan.runs.is_empty() && *written != Some(base);
    let unreadable = std::mem::take(&mut scan.unreadable);
    if ours && !base_gone && unreadable.is_empty() {
        return None;
    }
    if let Some(broken) = scan.broken.as_mut().filter(|broken| broken.defect == Defect::Unreadable) {
        // It will be zeros, which are no frame.
        broken.defect = Defect::Nothing;
    }
    *head = Some(made);
    if base_gone {
        *written = Some(base);
    }
    Some(Mend {
        id: segment.id,
        head: made,
        base,
        head_gone: !ours,
        base_gone,
        misnamed: None,
        unsynced: false,
        unreadable,
    })
}
