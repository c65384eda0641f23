//! Looking through a log's directory for every intact frame.
//!
//! It owns which file is taken for which segment. The library's scanner finds the frames; where a store's seed is
//! unknown (its head is gone, or its name is another's), the library's carver does. It decides nothing about
//! offsets.
//!
//! Invariant: a file that cannot be read or understood is said, and the others are read all the same.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use stonelog::Error;
use stonelog::carve::{self, Carved};
use stonelog::disk::{self, Disk};
use stonelog::frame::Seed;
use stonelog::manifest::{self, Reading};
use stonelog::recovery::StoreFindings;
use stonelog::scan::{self, Extent, MOST_RUNS, Outcome, Source};
use stonelog::store::{FIRST_FRAME, FORMAT_VERSION, Head};
use stonelog::{MAX_OFFSET, names};

use super::found::{Found, Loose, Manifest, OpenFile, Piece, Quarantined, Segment, SourceFile};
use crate::{Failure, output};

/// A store as it lies in the directory.
struct StoreFile {
    id: u64,
    file: SourceFile,
    head: Option<Head>,
}

/// Looks through the directory of a log.
pub(super) fn directory(
    disk: &dyn Disk,
    directory: &Path,
    wanted: Option<[u8; 16]>,
) -> Result<Found, Failure> {
    let shown = directory.display();
    let entries = disk::retry_interrupted(|| disk.list(directory))
        .map_err(|error| Failure::Said(format!("{shown} cannot be listed: {error}")))?;
    let ids: Vec<u64> = entries
        .iter()
        .filter(|entry| !entry.is_directory)
        .filter_map(|entry| names::id_of_store(&entry.name))
        .collect();
    let mut manifest = read_manifest(disk, directory);
    if let (Some(wanted), Some(state)) = (wanted, manifest.state())
        && wanted != state.uuid
    {
        let why = format!("it is that of another log, {}", output::uuid(&state.uuid));
        manifest = Manifest::Unusable { word: "another log's", why };
    }
    if ids.is_empty() && matches!(manifest, Manifest::Unusable { word: "missing", .. }) {
        return Err(Failure::Said(format!(
            "{shown} holds no store and no MANIFEST. If it holds files in which records may be, run: \
             log-repair salvage {shown} --carve --out DEST"
        )));
    }
    let mut found = Found::new(manifest);
    let mut stores = Vec::new();
    for id in ids {
        let name = names::store(id);
        let file = SourceFile { path: directory.join(&name), name };
        match file.open(disk).and_then(|opened| sectors(&opened)) {
            Ok(bytes) => stores.push(StoreFile { id, file, head: Head::parse(&bytes) }),
            Err(error) => found.unknown.push(format!("{} cannot be read ({error})", file.name)),
        }
    }
    let state = found.manifest.state();
    found.uuid = wanted.or(state.map(|state| state.uuid)).or_else(|| most_heads(&stores));
    found.created_millis = state.map(|state| state.created_millis).or_else(|| {
        let of_log =
            stores.iter().filter_map(|store| store.head).filter(|head| Some(head.uuid) == found.uuid);
        of_log.map(|head| head.created_millis).min()
    });
    for store in &stores {
        take(disk, store, &mut found);
    }
    for name in missing_stores(&found, &stores) {
        found.unknown.push(format!("{name} is missing, though the MANIFEST names it"));
    }
    if entries.iter().any(|entry| entry.is_directory && entry.name == names::QUARANTINE) {
        quarantine(disk, &directory.join(names::QUARANTINE), &mut found);
    }
    Ok(found)
}

fn read_manifest(disk: &dyn Disk, directory: &Path) -> Manifest {
    let unusable = |word, why| Manifest::Unusable { word, why };
    match manifest::read(disk, directory) {
        Ok(Reading::Whole { state, .. }) if state.front > MAX_OFFSET => {
            unusable("damaged", "it states offsets that no log has".to_string())
        }
        Ok(Reading::Whole { state, .. }) => Manifest::Whole(Box::new(state)),
        Ok(Reading::Absent) => unusable("missing", "there is none".to_string()),
        Ok(Reading::Damaged(damage)) => unusable("damaged", damage.what),
        Err(Error::UnsupportedVersion { version, .. }) => unusable(
            "unsupported",
            format!("it has format version {version}, which this build does not read"),
        ),
        Err(error) => unusable("unreadable", error.to_string()),
    }
}

/// The identity that most heads give.
fn most_heads(stores: &[StoreFile]) -> Option<[u8; 16]> {
    let mut counts: BTreeMap<[u8; 16], usize> = BTreeMap::new();
    for head in stores.iter().filter_map(|store| store.head) {
        *counts.entry(head.uuid).or_default() += 1;
    }
    counts.into_iter().max_by_key(|(_, count)| *count).map(|(uuid, _)| uuid)
}

fn missing_stores(found: &Found, stores: &[StoreFile]) -> Vec<String> {
    let Some(state) = found.manifest.state() else { return Vec::new() };
    // A sealed segment's loss has bounds: it shows as missing records. So it does after a Close.
    let unbounded = |seal: bool| !seal && state.closed.is_none();
    let named = state.segments.iter().filter(|(_, segment)| unbounded(segment.seal.is_some()));
    named
        .filter(|(id, _)| !stores.iter().any(|store| store.id == **id))
        .map(|(id, _)| names::store(*id))
        .collect()
}

/// The raw bytes of head and base, as far as the file has them.
fn sectors(file: &OpenFile) -> io::Result<Vec<u8>> {
    let length = usize::try_from(file.length().min(FIRST_FRAME)).unwrap_or(0);
    let mut bytes = vec![0; length];
    file.read(0, &mut bytes)?;
    Ok(bytes)
}

/// Takes what one store holds.
fn take(disk: &dyn Disk, store: &StoreFile, found: &mut Found) {
    let name = &store.file.name;
    let opened = match store.file.open(disk) {
        Ok(opened) => opened,
        Err(error) => return found.unknown.push(format!("{name} cannot be read ({error})")),
    };
    let file = found.add_file(store.file.path.clone(), name.clone());
    if let Some(head) = store.head.filter(|head| head.version != FORMAT_VERSION) {
        let version = head.version;
        found
            .unknown
            .push(format!("{name} has format version {version}; only frames as of version 1 are found"));
    }
    let stranger = store.head.filter(|head| Some(head.uuid) != found.uuid);
    let mut taken = false;
    if let Some(uuid) = found.uuid {
        // Its name says which segment it is; so does its head, where somebody swapped the names.
        let mut ids = vec![store.id];
        ids.extend(store.head.filter(|head| head.uuid == uuid && head.id != store.id).map(|head| head.id));
        for id in ids {
            taken |= take_as(&opened, file, store, (uuid, id), found);
        }
    }
    if let Some(head) = stranger
        && found.uuid.is_some()
    {
        let of = (head.uuid, head.id);
        let outcome = scan_all(&opened, Seed::of_segment(&head.uuid, head.id));
        let records = keep_loose(outcome, file, Seed::of_segment(&head.uuid, head.id), Some(of), found);
        taken |= records > 0;
        found.notes.push(format!(
            "{name} is a store of another log, {}: its {} are put out as unplaced",
            output::uuid(&head.uuid),
            output::count(records, "record")
        ));
    }
    if !taken && opened.length() > FIRST_FRAME {
        take_by_carving(&opened, file, store.id, found);
    }
}

fn scan_all(opened: &OpenFile, seed: Seed) -> Outcome {
    let extent = Extent { seed, start: FIRST_FRAME, end: opened.length(), base: None, ordinal_end: None };
    scan::scan(opened, &extent, |_| {})
}

/// Takes the store as this segment of this log; says whether it holds any record of it.
fn take_as(
    opened: &OpenFile,
    file: usize,
    store: &StoreFile,
    (uuid, id): ([u8; 16], u64),
    found: &mut Found,
) -> bool {
    let seed = Seed::of_segment(&uuid, id);
    let base = sectors(opened)
        .ok()
        .and_then(|bytes| StoreFindings::of_sectors(opened.length(), &bytes, &uuid, id).base());
    let head = store.head.filter(|head| head.uuid == uuid && head.id == id);
    take_with_seed(opened, file, (id, seed), base, head, found)
}

/// Scans the store with this seed, as that of segment `id`; says whether it holds any record of it.
fn take_with_seed(
    opened: &OpenFile,
    file: usize,
    (id, seed): (u64, Seed),
    base: Option<u64>,
    head: Option<Head>,
    found: &mut Found,
) -> bool {
    let outcome = scan_all(opened, seed);
    let holds = outcome.runs.iter().any(|run| !run.ordinals.is_empty());
    if !holds && base.is_none() && head.is_none() {
        return false;
    }
    if outcome.runs.len() >= MOST_RUNS {
        let name = found.name(file).to_string();
        found
            .unknown
            .push(format!("{name} has more than {MOST_RUNS} gaps; what lies behind is not salvaged"));
    }
    let whole = outcome.chain().filter(|run| {
        let only = outcome.tail.is_none() && outcome.unreadable.is_empty() && outcome.runs.len() == 1;
        only && !run.has_unfinished_batch()
    });
    let whole_end = whole.map(|run| run.ordinals.end);
    found.unreadable.extend(outcome.unreadable.iter().map(|range| (file, range.clone())));
    let segment = found.segments.entry(id).or_default();
    segment.origin = segment.origin.or(head.map(|head| head.origin));
    segment.bases.extend(base);
    segment.whole_end = segment.whole_end.or(whole_end);
    segment.watermark = segment.watermark.max(outcome.watermark.map(|mark| mark.relative));
    let runs = outcome.runs.into_iter().filter(|run| !run.ordinals.is_empty());
    segment.pieces.extend(runs.map(|run| Piece { file, seed, run }));
    holds
}

fn keep_loose(
    outcome: Outcome,
    file: usize,
    seed: Seed,
    of: Option<([u8; 16], u64)>,
    found: &mut Found,
) -> u64 {
    let runs = outcome.runs.into_iter().filter(|run| !run.ordinals.is_empty());
    let loose: Vec<Loose> = runs.map(|run| Loose { piece: Piece { file, seed, run }, of }).collect();
    let records = loose.iter().map(|loose| loose.piece.records()).sum();
    found.loose.extend(loose);
    records
}

/// A store that is not what its name and its head say: its frames say by themselves what they are.
fn take_by_carving(opened: &OpenFile, file: usize, id: u64, found: &mut Found) {
    let carved = carve::carve(opened, FIRST_FRAME - 512..opened.length());
    let one_seed = carved.runs.windows(2).all(|pair| matches!(pair, [a, b] if a.seed == b.seed));
    // All frames of one segment: with its seed known the scanner sees more, its end among it.
    if let Some(run) = carved.runs.first().filter(|_| one_seed) {
        let solved =
            found.uuid.and_then(|uuid| run.seed.segment_id(&uuid)).filter(|id| is_likely_id(*id, found));
        // No head is left in the whole directory: what the file is called is all there is.
        let named = if found.uuid.is_none() { Some(id) } else { solved };
        if let Some(id) = named {
            let base = carved.bases.iter().find(|base| base.seed == run.seed).map(|base| base.base);
            take_with_seed(opened, file, (id, run.seed), base, None, found);
            return;
        }
    }
    for run in &carved.runs {
        let seed = run.seed;
        let named = found.uuid.and_then(|uuid| seed.segment_id(&uuid)).filter(|id| is_likely_id(*id, found));
        let piece = Piece { file, seed, run: run.run.clone() };
        match named {
            Some(id) => add_carved(&carved, run, piece, found.segments.entry(id).or_default()),
            None => found.loose.push(Loose { piece, of: None }),
        }
    }
}

/// Adds a carved run to the segment that it is of.
pub(super) fn add_carved(carved: &Carved, run: &carve::CarvedRun, piece: Piece, segment: &mut Segment) {
    let bases = carved.bases.iter().filter(|base| base.seed == run.seed).map(|base| base.base);
    segment.bases.extend(bases);
    segment.watermark = segment.watermark.max(run.watermark);
    segment.pieces.push(piece);
}

/// Whether a solved id can be one of this log: any seed is that of *some* id.
pub(super) fn is_likely_id(id: u64, found: &Found) -> bool {
    let named = found.manifest.state().map_or(0, |state| state.last_id);
    let highest = found.segments.last_key_value().map_or(0, |(id, _)| *id).max(named);
    id > 0 && id <= highest.saturating_mul(4).max(1 << 16)
}

/// Looks into the stores that recovery took out of the log. They are no part of it: their offsets name other
/// records by now.
fn quarantine(disk: &dyn Disk, directory: &Path, found: &mut Found) {
    let entries = match disk::retry_interrupted(|| disk.list(directory)) {
        Ok(entries) => entries,
        Err(error) => return found.notes.push(format!("quarantine/ cannot be listed ({error})")),
    };
    for entry in entries {
        let Some(id) = names::id_of_store(&entry.name) else { continue };
        let file = SourceFile {
            path: directory.join(&entry.name),
            name: format!("{}/{}", names::QUARANTINE, entry.name),
        };
        let Ok(opened) = file.open(disk) else { continue };
        let head = sectors(&opened).ok().and_then(|bytes| Head::parse(&bytes));
        let Some(uuid) = head.map(|head| head.uuid).or(found.uuid) else { continue };
        let outcome = scan_all(&opened, Seed::of_segment(&uuid, id));
        let base = sectors(&opened)
            .ok()
            .and_then(|bytes| StoreFindings::of_sectors(opened.length(), &bytes, &uuid, id).base());
        let records: u64 =
            outcome.runs.iter().map(|run| u64::from(run.ordinals.end - run.ordinals.start)).sum();
        let first = outcome.runs.iter().find(|run| !run.ordinals.is_empty()).map(|run| run.ordinals.start);
        let last = outcome.runs.iter().rev().find(|run| !run.ordinals.is_empty()).map(|run| run.ordinals.end);
        let offsets = base.zip(first.zip(last)).map(|(base, (first, last))| {
            base.saturating_add(u64::from(first))..base.saturating_add(u64::from(last))
        });
        found.quarantined.push(Quarantined { file: file.name, records, offsets });
    }
}
