//! Opening: from a directory to what serves it.
//!
//! It owns the order of opening (directory, lock, inspect, plan, apply, then serve) and what a
//! read-only opening may do without. It owns no rule of recovery: `recovery` does. Invariant:
//! nothing is served and nothing taken before the fresh MANIFEST is durable; a read-only opening
//! takes no lock and writes no byte.

use std::path::Path;
use std::sync::Arc;

use crate::commit::Core;
use crate::directory::durable_directory;
use crate::disk::{self, Disk, DiskLock, LockAttempt, OpenMode};
use crate::error::{Error, Result};
use crate::manifest::file::ManifestFile;
use crate::manifest::{Reading, State};
use crate::mutant::{self, Mutant};
use crate::names;
use crate::options::{DamagePolicy, Options, ReadMode};
use crate::recovery::apply::{Applied, apply, make_room};
use crate::recovery::verdict::Verdict;
use crate::recovery::{self, Depth, Findings, Plan, Planned, Recovery, Thrift};
use crate::repair::refuse_unfinished;
use crate::segment::{self, Place, SealedEnd, Segment};
use crate::store::{FIRST_FRAME, Store};
use crate::sync::thread;
use crate::table::Table;
use crate::writer::{Active, Gate, Rolled, Writer};

/// How often a directory that a live writer changes is read again before giving up.
const MOST_ATTEMPTS: usize = 64;

/// An opened log, before anything runs on it.
pub(crate) struct Opened {
    pub(crate) core: Core,
    pub(crate) recovery: Recovery,
    pub(crate) lock: Option<Box<dyn DiskLock>>,
}

/// Opens for reading and writing.
pub(crate) fn open(options: &Options, directory: &Path) -> Result<Opened> {
    let disk = options.disk.as_ref();
    durable_directory(disk, directory)?;
    let lock_path = directory.join(names::LOCK);
    let held = match disk::retry_interrupted(|| disk.lock(&lock_path))
        .map_err(|error| Error::io_or_no_space("locking", &lock_path, 1, error))?
    {
        LockAttempt::Acquired(held) => held,
        LockAttempt::Held { pid } => return Err(Error::Locked { path: lock_path, pid }),
    };
    if !mutant::on(Mutant::RepairOpenUnrefused) {
        refuse_unfinished(disk, directory)?;
    }
    let findings = recovery::inspect(disk, directory, Depth::Opening)?;
    let (core, recovery) = match recovery::plan(&findings, options.on_damage)? {
        Planned::Begin => begin(options, directory)?,
        Planned::Proceed(plan) => recover(options, directory, &findings, *plan)?,
        Planned::ReadsOnly(damage) => {
            tracing::error!(%damage, "the loss cannot be bounded: serving reads only");
            let why = "acknowledged records are missing and nobody can tell how many: salvage what is there";
            read_only(options, directory, &findings, why)?
        }
    };
    tracing::info!(directory = %directory.display(), %recovery, "opened");
    Ok(Opened { core, recovery, lock: Some(held) })
}

/// Opens for reading only.
pub(crate) fn open_read_only(options: &Options, directory: &Path) -> Result<Opened> {
    for _ in 0..MOST_ATTEMPTS {
        match try_read_only(options, directory) {
            // A store that is missing from a log at rest is damage. This one a live writer let go of meanwhile.
            Err(Error::Io { path, source, .. })
                if path != directory && source.kind() == std::io::ErrorKind::NotFound =>
            {
                thread::yield_now();
            }
            outcome => return outcome,
        }
    }
    Err(Error::Busy { path: directory.to_path_buf() })
}

fn try_read_only(options: &Options, directory: &Path) -> Result<Opened> {
    let findings = settled_findings(options.disk.as_ref(), directory);
    // (Asked last: a repair that began meanwhile shows files that come and go.)
    if !mutant::on(Mutant::RepairOpenUnrefused) {
        refuse_unfinished(options.disk.as_ref(), directory)?;
    }
    let findings = findings?;
    let (Reading::Whole { state, .. }, Some(assessment)) = (&findings.manifest, &findings.assessment) else {
        // Damage says so; otherwise there is no log.
        recovery::plan(&findings, options.on_damage)?;
        return Err(Error::io("opening", directory, None, std::io::ErrorKind::NotFound.into()));
    };
    if let Some(damage) = recovery::lost_edit(&findings, state) {
        return Err(damage.into());
    }
    if options.on_damage == DamagePolicy::Refuse
        && let Some(damage) = recovery::standing_damage(&findings, state, assessment)
    {
        return Err(damage.into());
    }
    recovery::check_end(&findings, assessment.proven_end.max(state.front))?;
    let (core, recovery) = read_only(options, directory, &findings, "it was opened read-only")?;
    Ok(Opened { core, recovery, lock: None })
}

fn place(options: &Options, directory: &Path, uuid: [u8; 16], writable: bool) -> Arc<Place> {
    Arc::new(Place {
        disk: options.disk.clone(),
        directory: directory.to_path_buf(),
        uuid,
        writable,
        use_maps: writable && options.read_mode == ReadMode::Mapped,
    })
}

/// Begins a new log: Init is durable before the first store.
fn begin(options: &Options, directory: &Path) -> Result<(Core, Recovery)> {
    let disk = &options.disk;
    let mut uuid = [0; 16];
    let (low, high) = uuid.split_at_mut(8);
    low.copy_from_slice(&disk.random().to_le_bytes());
    high.copy_from_slice(&disk.random().to_le_bytes());
    let first = options.first_offset.unwrap_or(0);
    let state = State::begin(uuid, disk.now_millis(), first);
    let manifest =
        ManifestFile::create(disk.clone(), directory, state, 1).map_err(|failure| failure.into_error())?;
    let place = place(options, directory, uuid, true);
    let writer = Writer::new(place.clone(), options.segment_bytes, first, Gate::Open);
    let table = Table { front: first, ..Table::default() };
    let core = Core::new(place, options.clone(), Some(manifest), writer, table, first);
    let recovery = Recovery {
        begun: true,
        clean: true,
        verdict: Verdict::Clean,
        proven_end: first,
        proof: format!("the log starts at {first}"),
        valid_end: first,
        next_offset: first,
        scanned_bytes: 0,
        copied: first..first,
        cut: Vec::new(),
        removed: Vec::new(),
        quarantined: Vec::new(),
        damaged: Vec::new(),
    };
    Ok((core, recovery))
}

/// Applies a plan, then builds what serves.
fn recover(
    options: &Options,
    directory: &Path,
    findings: &Findings,
    mut plan: Plan,
) -> Result<(Core, Recovery)> {
    let Reading::Whole { state: old, .. } = &findings.manifest else {
        return Err(Error::io("opening", directory, None, std::io::ErrorKind::NotFound.into()));
    };
    check_first_offset(options, old)?;
    let applied = match apply(&options.disk, directory, &mut plan, old) {
        Err(error) if error.is_no_space() => {
            tracing::warn!(%error, "the disk is full: recovering with as little space as can be");
            let spare = recovery::plan_with(findings, options.on_damage, Thrift::Sparing)?;
            let Planned::Proceed(sparing) = spare else { return Err(error) };
            plan = *sparing;
            make_room(&options.disk, directory, &mut plan, old)?;
            apply(&options.disk, directory, &mut plan, old)?
        }
        applied => applied?,
    };
    let Applied { manifest, copied, unlinked } = applied;
    let state = manifest.state();
    let place = place(options, directory, state.uuid, true);
    let mut table = sealed_table(&place, state);
    let next_offset = plan.recovery.next_offset;
    let mut writer = Writer::new(place.clone(), options.segment_bytes, next_offset, Gate::Open);

    if let Some((id, length)) = plan.active {
        let base =
            state.segments.get(&id).and_then(|segment| segment.base).unwrap_or_else(|| state.sealed_end());
        let count = segment::record_count(base, next_offset, length);
        let (store, index) = match copied {
            Some(copied) => (copied.store.with_map_bytes(options.segment_bytes), copied.index),
            None => {
                let (disk, map_bytes) = (options.disk.as_ref(), options.segment_bytes);
                let mode = OpenMode::ReadWrite;
                let store = Store::open(disk, directory, &state.uuid, id, mode, length, map_bytes)?;
                let index = segment::reopen_active_index(&place, &store, base, count, length);
                (store, index)
            }
        };
        let store = Arc::new(store);
        let active = Segment::with_memory_index(place.clone(), base, store.clone(), index, None);
        let active = Arc::new(active);
        table.segments.push(active.clone());
        let held = active.memory_index().map_or(0, |index| index.len());
        let end = base.saturating_add(u64::from(held));
        if end == next_offset {
            writer.active = Some(Active { segment: active, store, position: length });
        } else {
            // A front beyond its end leaves its ordinals behind: it is sealed as it is, and the next
            // record begins a segment of its own.
            writer.rolled.push_back(Rolled { segment: active, end, length });
        }
    }
    let core = Core::new(place, options.clone(), Some(manifest), writer, table, next_offset);
    core.dropped.add_unlinked(unlinked);
    Ok((core, plan.recovery))
}

fn check_first_offset(options: &Options, state: &State) -> Result<()> {
    match options.first_offset {
        Some(first) if first != state.first_offset => Err(Error::InvalidOption {
            option: "first_offset",
            why: format!("this log was begun with {}, not {first}", state.first_offset),
        }),
        _ => Ok(()),
    }
}

fn sealed_table(place: &Arc<Place>, state: &State) -> Table {
    let mut segments = Vec::new();
    let mut predecessor_end = state.front;
    for (id, segment, seal) in state.sealed() {
        let base = segment.base.unwrap_or(predecessor_end);
        let end = SealedEnd { next_offset: seal.next_offset, length: seal.length };
        segments.push(Arc::new(Segment::sealed(place.clone(), id, base, end, None)));
        predecessor_end = seal.next_offset;
    }
    Table { segments, front: state.front, damaged: state.damaged.clone(), lost: state.lost.clone() }
}

/// Findings of a directory that a live writer may be changing: read again until they hold still.
fn settled_findings(disk: &dyn Disk, directory: &Path) -> Result<Findings> {
    let mut before: Option<(u64, u64, u64)> = None;
    for _ in 0..MOST_ATTEMPTS {
        let findings = recovery::inspect(disk, directory, Depth::Opening)?;
        let Reading::Whole { state, generation, length, .. } = &findings.manifest else {
            return Ok(findings);
        };
        let unchanged = match crate::manifest::read(disk, directory)? {
            Reading::Whole { generation: now, length: end, .. } => (now, end) == (*generation, *length),
            _ => false,
        };
        let Some(assessment) = &findings.assessment else { return Ok(findings) };
        // What looks like damage beside a live writer may be a frame that was being written while
        // the scan went by: damage holds still.
        let seen = (*generation, assessment.valid_end, assessment.proven_end);
        let damaged =
            assessment.verdict == Verdict::Damage || recovery::lost_edit(&findings, state).is_some();
        if unchanged && (!damaged || before == Some(seen)) {
            return Ok(findings);
        }
        before = Some(seen);
        thread::yield_now();
    }
    Err(Error::Busy { path: directory.to_path_buf() })
}

/// Builds what serves reads and nothing else, without writing a byte.
fn read_only(
    options: &Options,
    directory: &Path,
    findings: &Findings,
    why: &'static str,
) -> Result<(Core, Recovery)> {
    let (Reading::Whole { state, .. }, Some(assessment)) = (&findings.manifest, &findings.assessment) else {
        return Err(Error::io("opening", directory, None, std::io::ErrorKind::NotFound.into()));
    };
    check_first_offset(options, state)?;
    let place = place(options, directory, state.uuid, false);
    let mut table = sealed_table(&place, state);
    let end = assessment.proven_end.max(state.front);
    let in_flight = assessment.valid_end.saturating_sub(end);
    let unscanned = state.closed.filter(|_| assessment.placed.is_empty());
    let disk = options.disk.as_ref();
    let mut add = |id: u64, base: u64, limit: u64, length: u64| -> Result<()> {
        let store = Store::open(disk, directory, &state.uuid, id, OpenMode::Read, length, 0)?;
        let count = segment::record_count(base, limit, store.published());
        let index = segment::reopen_active_index(&place, &store, base, count, length);
        let segment = Segment::with_memory_index(place.clone(), base, Arc::new(store), index, None);
        table.segments.push(Arc::new(segment));
        Ok(())
    };
    if let (Some(close), Some((id, segment))) = (unscanned, state.unsealed().next()) {
        let found = findings.segments.iter().find(|found| found.id == id);
        let known = segment.base.or_else(|| found.and_then(|found| found.base));
        let there = found.is_some_and(|found| found.store.length().is_some());
        if there && close.length > FIRST_FRAME {
            add(id, known.unwrap_or_else(|| state.sealed_end()), end, close.length)?;
        }
    }
    for placed in assessment.placed.iter().filter(|placed| placed.base < end) {
        // Not how long the store was at some time before or after its scan: a live writer's grow, and are trimmed.
        let length = placed.runs.last().map_or(FIRST_FRAME, |run| {
            if run.has_unfinished_batch() { run.positions.end } else { run.whole_position }
        });
        add(placed.id, placed.base, placed.limit.unwrap_or(end).min(end), length)?;
    }
    for lost in assessment.damage.iter().filter_map(|found| found.offsets.clone()) {
        if lost.start >= state.sealed_end() {
            table.damaged.insert(lost.start.max(state.front)..lost.end);
        }
    }
    let recovery = Recovery {
        begun: false,
        clean: state.closed.is_some(),
        verdict: assessment.verdict,
        proven_end: assessment.proven_end,
        proof: assessment.proof.describe(assessment.proven_end),
        valid_end: assessment.valid_end,
        next_offset: end,
        scanned_bytes: findings.scanned_bytes(),
        copied: end..end,
        cut: Vec::new(),
        removed: Vec::new(),
        quarantined: Vec::new(),
        damaged: table.damaged.iter().collect(),
    };
    tracing::debug!(directory = %directory.display(), end, in_flight, "opened read-only");
    let writer = Writer::new(place.clone(), options.segment_bytes, end, Gate::ReadOnly(why));
    let mut core = Core::new(place, options.clone(), None, writer, table, end);
    core.frozen_meta = state.meta.clone();
    Ok((core, recovery))
}
