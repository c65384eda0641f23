//! Looking at a log directory, with reads only.
//!
//! It owns the order in which files are read and what is read of each. It takes no lock, creates
//! no file, and uses pread alone, so that it can look at a log in use, at read-only media, and at a
//! disk that fails under it. It judges nothing itself.
//!
//! Invariants: after a clean close no frame is read but for one look at what follows the end that the Close
//! states ([`Depth::Opening`]), after a crash only those of unsealed segments; a file that cannot be read is a finding, not an error.

use std::path::Path;
use std::sync::Arc;

use super::findings::{Findings, Listing, SegmentFindings, StoreFindings, UnnamedStore};
use super::{parallel, verdict};
use crate::disk::{self, Disk, DiskFile, OpenMode};
use crate::error::{Error, Result};
use crate::frame::{self, HEADER_BYTES, HEADER_LENGTH, PayloadChecksum, Seed};
use crate::manifest::{self, Close, Reading, State};
use crate::names;
use crate::scan::{self, Extent, Outcome, Run};
use crate::segment::{IndexCheck, record_count};
use crate::store::{self, FIRST_FRAME, FileSource, Head};

/// How deep to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// What opening needs: unsealed segments, and only after an unclean end.
    Opening,
    /// Every frame of every segment, and every index.
    Everything,
}

/// Looks at the log in `directory`.
///
/// Segments are scanned by as many threads as the machine runs at once, at most eight (none but the caller's
/// where the disk has no threads of its own); what is found does not depend on who scanned what. Memory: for
/// each thread about 1.5 MiB, and 16 MiB more while bytes that were made to look like frames are scanned
/// (see [`scan`](crate::scan)); for each segment its runs of intact frames, one where nothing is damaged and
/// at most [`MOST_RUNS`](crate::scan::MOST_RUNS). Never more for more or smaller records.
///
/// # Errors
/// When the directory cannot be listed, the manifest cannot be read, or a later version wrote it.
/// Damage and missing files are findings, not errors.
pub fn inspect(disk: &dyn Disk, directory: &Path, depth: Depth) -> Result<Findings> {
    let listing = list(disk, directory)?;
    let manifest = if listing.exists { manifest::read(disk, directory)? } else { Reading::Absent };
    inspect_as(disk, directory, listing, manifest, depth)
}

/// Looks at the log in `directory` as what `manifest` says it is.
///
/// # Errors
/// When a later version wrote a store, or the proven end cannot be read.
pub(crate) fn inspect_as(
    disk: &dyn Disk,
    directory: &Path,
    listing: Listing,
    manifest: Reading,
    depth: Depth,
) -> Result<Findings> {
    let mut findings = Findings {
        directory: directory.to_path_buf(),
        listing,
        manifest,
        segments: Vec::new(),
        unnamed: Vec::new(),
        assessment: None,
    };
    let Reading::Whole { state, .. } = &findings.manifest else {
        findings.unnamed =
            findings.listing.stores.iter().map(|(id, length)| unlooked(*id, *length)).collect();
        return Ok(findings);
    };
    let inspector = Inspector { disk, directory, state, listing: &findings.listing, depth };
    let mut segments = inspector.named()?;
    inspector.scan_all(&mut segments);
    inspector.look_for_bases(&mut segments)?;
    let unnamed = inspector.unnamed()?;
    let mut assessment = verdict::assess(state, &segments, &unnamed);
    find_positions(disk, directory, &mut assessment)?;
    findings.segments = segments;
    findings.unnamed = unnamed;
    findings.assessment = Some(assessment);
    Ok(findings)
}

/// Lists a log directory; one that does not exist is empty.
pub(crate) fn list(disk: &dyn Disk, directory: &Path) -> Result<Listing> {
    let mut listing = Listing::default();
    let entries = match disk::retry_interrupted(|| disk.list(directory)) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(listing),
        Err(error) => return Err(Error::io("listing", directory, None, error)),
    };
    listing.exists = true;
    for entry in entries {
        let name = entry.name.as_str();
        if entry.is_directory && name != names::QUARANTINE && name != names::REPAIR {
            listing.strange.push(entry.name);
            continue;
        }
        if let Some(id) = names::id_of_store(name) {
            listing.stores.insert(id, entry.length);
        } else if let Some(id) = names::id_of_index(name) {
            listing.indexes.insert(id, entry.length);
        } else if name == manifest::NEXT_NAME || name.ends_with(names::INDEX_TEMPORARY_SUFFIX) {
            listing.temporary.push(entry.name);
        } else if name == names::QUARANTINE && entry.is_directory {
            let inside = disk::retry_interrupted(|| disk.list(&directory.join(names::QUARANTINE)));
            listing.quarantined = inside.unwrap_or_default().into_iter().map(|inner| inner.name).collect();
        } else if name == names::REPAIR && entry.is_directory {
            let inside = disk::retry_interrupted(|| disk.list(&directory.join(names::REPAIR)));
            listing.repairs = inside.unwrap_or_default().into_iter().map(|inner| inner.name).collect();
        } else if name == manifest::FILE_NAME {
            listing.manifest = true;
        } else if name != names::LOCK {
            listing.strange.push(entry.name);
        }
    }
    Ok(listing)
}

/// One sector, and head and base together, in bytes.
const SECTOR: usize = 512;
const SECTORS: usize = 2 * SECTOR;

fn unlooked(id: u64, length: u64) -> UnnamedStore {
    UnnamedStore { id, length, head: None, base: None, has_frames: false }
}

struct Inspector<'a> {
    disk: &'a dyn Disk,
    directory: &'a Path,
    state: &'a State,
    listing: &'a Listing,
    depth: Depth,
}

impl Inspector<'_> {
    fn named(&self) -> Result<Vec<SegmentFindings>> {
        let mut segments = Vec::new();
        let mut predecessor_end = None;
        for (id, state) in &self.state.segments {
            let look = self.depth == Depth::Everything || state.seal.is_none();
            let store = match self.listing.stores.get(id) {
                None => StoreFindings::Missing,
                Some(length) if !look => StoreFindings::Listed { length: *length },
                Some(_) => self.sectors(*id)?,
            };
            let base = state.base.or_else(|| store.base()).or(predecessor_end);
            predecessor_end = state.seal.map(|seal| seal.next_offset);
            segments.push(SegmentFindings {
                id: *id,
                state: state.clone(),
                base,
                store,
                scan: None,
                scanned_bytes: 0,
                index_defect: None,
            });
        }
        Ok(segments)
    }

    /// Reads a store's head and base.
    fn sectors(&self, id: u64) -> Result<StoreFindings> {
        sectors(self.disk, self.directory, id, self.seed(id))
    }

    fn open(&self, id: u64) -> std::io::Result<(Arc<dyn DiskFile>, u64)> {
        open(self.disk, self.directory, id)
    }

    fn seed(&self, id: u64) -> Seed {
        Seed::of_segment(&self.state.uuid, id)
    }

    fn scan_all(&self, segments: &mut [SegmentFindings]) {
        let bases: Vec<Option<u64>> = segments.iter().map(|segment| segment.base).collect();
        let trust_the_close = self.trusts_the_close(segments);
        let wanted: Vec<(&mut SegmentFindings, Option<u64>)> = segments
            .iter_mut()
            .enumerate()
            .filter(|(_, segment)| self.wants_scan(segment, trust_the_close))
            .map(|(index, segment)| {
                let next_base = match segment.state.seal {
                    Some(seal) => Some(seal.next_offset),
                    None => bases.get(index + 1).copied().flatten(),
                };
                (segment, next_base)
            })
            .collect();
        let scans = parallel::each(self.disk.background(), wanted.len(), |number| {
            wanted.get(number).and_then(|(segment, next_base)| self.scan_one(segment, *next_base))
        });
        for ((segment, _), scan) in wanted.into_iter().zip(scans) {
            let Some(Scanned { outcome, bytes, index_defect }) = scan else { continue };
            segment.scan = Some(outcome);
            segment.scanned_bytes = bytes;
            segment.index_defect = index_defect;
        }
    }

    /// Beside a live writer a base can come to be after it was looked for, and before the frames were. Taken for
    /// lost it would be guessed, from a store that went on after it was scanned: and that would be wrong.
    fn look_for_bases(&self, segments: &mut [SegmentFindings]) -> Result<()> {
        let holds =
            |segment: &SegmentFindings| segment.scan.as_ref().is_some_and(|scan| !scan.runs.is_empty());
        for segment in segments.iter_mut().filter(|segment| segment.base.is_none() && holds(segment)) {
            let store = self.sectors(segment.id)?;
            if store.base().is_some() {
                (segment.base, segment.store) = (store.base(), store);
            }
        }
        Ok(())
    }

    /// Scans a segment's frames up to the offset `next_base`, where that is known; none where its store
    /// cannot be opened.
    fn scan_one(&self, segment: &SegmentFindings, next_base: Option<u64>) -> Option<Scanned> {
        let ordinal_end = match (segment.base, next_base) {
            (Some(base), Some(next)) => u32::try_from(next.saturating_sub(base)).ok(),
            _ => None,
        };
        let (file, length) = self.open(segment.id).ok()?;
        let extent = Extent {
            seed: self.seed(segment.id),
            start: FIRST_FRAME,
            end: segment.state.seal.map_or(length, |seal| seal.length.min(length)),
            base: segment.base,
            ordinal_end,
        };
        let source = FileSource { file: file.as_ref(), length };
        let seal = segment.state.seal.filter(|_| self.depth == Depth::Everything);
        let mut index = seal.map(|seal| {
            let count = segment.base.map_or(0, |base| record_count(base, seal.next_offset, seal.length));
            IndexCheck::begin(self.disk, self.directory, &self.state.uuid, segment.id, count, seal.length)
        });
        let outcome = scan::scan(&source, &extent, |frame| {
            if let Some(index) = index.as_mut().filter(|_| frame.header.kind.is_record()) {
                index.record(frame.header.ordinal, frame.position);
            }
        });
        let bytes = scanned(&outcome, &extent);
        Some(Scanned { outcome, bytes, index_defect: index.and_then(IndexCheck::defect) })
    }

    fn wants_scan(&self, segment: &SegmentFindings, trust_the_close: bool) -> bool {
        self.depth == Depth::Everything || (segment.state.seal.is_none() && !trust_the_close)
    }

    /// A clean close vouches for all files, as long as each is there and as long as it says. With
    /// one that is not, nothing is taken on trust.
    fn trusts_the_close(&self, segments: &[SegmentFindings]) -> bool {
        let Some(close) = self.state.closed else { return false };
        let mut active = true;
        segments.iter().all(|segment| {
            let length = segment.store.length();
            match segment.state.seal {
                Some(seal) => length.is_some_and(|length| length >= seal.length),
                None => {
                    let wanted = if std::mem::take(&mut active) { close.length } else { 0 };
                    let ours = |head: &Head| head.uuid == self.state.uuid && head.id == segment.id;
                    segment.store.head().is_some_and(ours)
                        // (A base goes out with the first frames, and where those are the Close has a length.)
                        && (wanted > 0 || segment.store.base().is_none())
                        && length.is_some_and(|length| length >= wanted)
                        && !(wanted > 0 && self.goes_on(segment, close))
                }
            }
        })
    }

    /// Whether a valid record follows the end that the Close states, so that this is not the MANIFEST which the store
    /// was last written under: an older one was put back.
    fn goes_on(&self, segment: &SegmentFindings, close: Close) -> bool {
        let base = segment.base.unwrap_or_else(|| self.state.sealed_end());
        let next = close.next_offset.checked_sub(base).and_then(|ordinal| u32::try_from(ordinal).ok());
        let (Some(next), Ok((file, length))) = (next, self.open(segment.id)) else { return false };
        let mut head = [0; HEADER_LENGTH];
        if disk::read_exact_at(file.as_ref(), &mut head, close.length).is_err() {
            return false;
        }
        let header = frame::decode_header(&head);
        let fits = |header: &frame::Header| {
            let end = close.length.saturating_add(header.frame_bytes());
            header.kind.is_record() && header.ordinal == next && end <= length
        };
        let Some(header) = header.filter(fits) else { return false };
        let mut payload = vec![0; header.length as usize];
        disk::read_exact_at(file.as_ref(), &mut payload, close.length.saturating_add(HEADER_BYTES)).is_ok()
            && frame::verifies(&head, PayloadChecksum::of(&payload), self.seed(segment.id))
    }

    fn unnamed(&self) -> Result<Vec<UnnamedStore>> {
        let mut unnamed = Vec::new();
        for (id, length) in &self.listing.stores {
            if self.state.segments.contains_key(id) {
                continue;
            }
            let mut found = unlooked(*id, *length);
            let is_above_all = *id > self.state.last_id;
            if let StoreFindings::Present { head, base, .. } = self.sectors(*id)? {
                found.head = head;
                found.base = base.filter(|_| is_above_all);
            }
            if is_above_all {
                found.has_frames = self.has_frames(*id);
            }
            unnamed.push(found);
        }
        Ok(unnamed)
    }

    fn has_frames(&self, id: u64) -> bool {
        let Ok((file, length)) = self.open(id) else { return true };
        let extent =
            Extent { seed: self.seed(id), start: FIRST_FRAME, end: length, base: None, ordinal_end: None };
        let outcome = scan::scan(&FileSource { file: file.as_ref(), length }, &extent, |_| {});
        !outcome.runs.is_empty()
    }
}

/// Finds where the proven end lies, and where each store is to end that holds more than is its: only the frames
/// before tell, and an assessment reads none.
pub(crate) fn find_positions(
    disk: &dyn Disk,
    directory: &Path,
    assessment: &mut verdict::Assessment,
) -> Result<()> {
    assessment.proven_position = proven_position(disk, directory, assessment)?;
    for place in &mut assessment.placed {
        let ordinal = place.limit.and_then(|limit| limit.checked_sub(place.base));
        let ordinal = ordinal.and_then(|ordinal| u32::try_from(ordinal).ok());
        // (A run that ends there needs no looking for.)
        let across = |ordinal: &u32| place.runs.iter().any(|run| run.ordinals.contains(ordinal));
        if let Some(ordinal) = ordinal.filter(|ordinal| *ordinal > 0).filter(across) {
            place.limit_position = position_behind(disk, directory, place.id, &place.runs, ordinal)?;
        }
    }
    Ok(())
}

/// Where the proven end lies, where a segment holds it inside a run of intact frames.
fn proven_position(
    disk: &dyn Disk,
    directory: &Path,
    assessment: &verdict::Assessment,
) -> Result<Option<(u64, u64)>> {
    let proven = assessment.proven_end;
    for place in assessment.placed.iter().rev() {
        let Some(ordinal) = proven.checked_sub(place.base).and_then(|o| u32::try_from(o).ok()) else {
            continue;
        };
        if ordinal == 0 {
            continue;
        }
        let position = position_behind(disk, directory, place.id, &place.runs, ordinal)?;
        return Ok(position.map(|position| (place.id, position)));
    }
    Ok(None)
}

/// The position behind the record before `ordinal` of segment `id`, where one of its `runs` holds that.
pub(crate) fn position_behind(
    disk: &dyn Disk,
    directory: &Path,
    id: u64,
    runs: &[Run],
    ordinal: u32,
) -> Result<Option<u64>> {
    let holds = |run: &&Run| run.ordinals.start < ordinal && ordinal <= run.ordinals.end;
    let Some(run) = runs.iter().find(holds) else { return Ok(None) };
    if ordinal == run.whole_ordinal {
        return Ok(Some(run.whole_position));
    }
    let path = directory.join(names::store(id));
    let failed = |error| Error::io("opening", &path, None, error);
    let file = match disk::retry_interrupted(|| disk.open(&path, OpenMode::Read)) {
        // A live writer let go of it since it was scanned: who looks beside one looks again.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        file => file.map_err(failed)?,
    };
    let length = disk::retry_interrupted(|| file.length()).map_err(failed)?;
    let source = FileSource { file: file.as_ref(), length };
    Ok(scan::locate(&source, run.positions.start, run.ordinals.start..ordinal))
}

fn open(disk: &dyn Disk, directory: &Path, id: u64) -> std::io::Result<(Arc<dyn DiskFile>, u64)> {
    let path = directory.join(names::store(id));
    let file = disk::retry_interrupted(|| disk.open(&path, OpenMode::Read))?;
    let length = disk::retry_interrupted(|| file.length())?;
    Ok((file, length))
}

/// Reads the head and base of segment `id`'s store.
///
/// # Errors
/// When a later version wrote it.
pub(crate) fn sectors(disk: &dyn Disk, directory: &Path, id: u64, seed: Seed) -> Result<StoreFindings> {
    let (file, length) = match open(disk, directory, id) {
        Ok(opened) => opened,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(StoreFindings::Missing),
        // Who may not read a file knows nothing of it: that is no damage.
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            return Err(Error::io("opening", &directory.join(names::store(id)), None, error));
        }
        Err(error) => return Ok(StoreFindings::Unreadable { why: error.to_string() }),
    };
    let mut bytes = vec![0; SECTORS];
    match disk::read_up_to(file.as_ref(), &mut bytes, 0) {
        Ok(got) => bytes.truncate(got),
        // Each sector for itself: one that cannot be read is one that is not what was written.
        Err(_) => {
            for (sector, at) in bytes.chunks_mut(SECTOR).zip((0u64..).step_by(SECTOR)) {
                if disk::read_exact_at(file.as_ref(), sector, at).is_err() {
                    sector.fill(0);
                }
            }
        }
    }
    let head = Head::parse(&bytes);
    if let Some(version) = head.map(|head| head.version).filter(|version| *version != store::FORMAT_VERSION) {
        return Err(Error::UnsupportedVersion {
            path: directory.join(names::store(id)),
            version,
            supported: store::FORMAT_VERSION,
        });
    }
    let base = bytes.get(SECTOR..).and_then(|sector| store::parse_base(sector, seed));
    Ok(StoreFindings::Present { length, head, base })
}

/// What the scan of one segment gave.
struct Scanned {
    outcome: Outcome,
    bytes: u64,
    index_defect: Option<String>,
}

fn scanned(outcome: &Outcome, extent: &Extent) -> u64 {
    let whole = extent.end.saturating_sub(extent.start);
    match (&outcome.broken, outcome.chain()) {
        (None, Some(chain)) => chain.positions.end.saturating_sub(extent.start).min(whole),
        _ => whole,
    }
}
