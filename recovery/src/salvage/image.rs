//! Looking through files of which nobody knows what they are: a disk's image, stores put one behind another, or
//! whatever an undelete tool brought back.
//!
//! It owns which carved run is taken for which segment of which log. What carving can find, and what not, is
//! `stonelog::carve`'s. It knows no MANIFEST: one that lies in an image may be of any time.
//!
//! Invariant: a run whose segment is not certain is loose, never placed by a guess.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use stonelog::carve::{self, Carved, CarvedRun};
use stonelog::disk::{self, Disk};
use stonelog::frame::Seed;
use stonelog::manifest::Edit;
use stonelog::scan::Source;

use super::found::{Found, Loose, Manifest, Piece, Segment};
use super::gather::{add_carved, is_likely_id};
use super::read::Records;
use crate::Failure;

/// How deep directories are gone into.
const MOST_DEPTH: usize = 16;
/// No manifest was replaced so often.
const MOST_GENERATIONS: u64 = 1 << 24;

/// Looks through a file, or all files of a directory.
pub(super) fn files(disk: &dyn Disk, source: &Path, wanted: Option<[u8; 16]>) -> Result<Found, Failure> {
    let why = "carving looks at bytes, and trusts no MANIFEST among them".to_string();
    let mut found = Found::new(Manifest::Unusable { word: "not looked for", why });
    let mut paths = Vec::new();
    list(disk, source, 0, &mut paths)
        .map_err(|error| Failure::Said(format!("{} cannot be read: {error}", source.display())))?;
    let mut carved = Vec::new();
    for path in paths {
        let name = path.strip_prefix(source).ok().filter(|name| !name.as_os_str().is_empty());
        let name = name.unwrap_or(&path).display().to_string();
        let file = found.add_file(path, name.clone());
        let opened = match found.files.last().map(|file| file.open(disk)) {
            Some(Ok(opened)) => opened,
            Some(Err(error)) => {
                found.unknown.push(format!("{name} cannot be read ({error})"));
                continue;
            }
            None => continue,
        };
        let result = carve::carve(&opened, 0..opened.length());
        if let Some(position) = result.stopped_at {
            found.unknown.push(format!(
                "{name} holds more pieces than can be told apart in one go; it was looked through up to byte \
                 {position}. Cut it there and salvage the rest by itself"
            ));
        }
        found.unreadable.extend(result.unreadable.iter().map(|range| (file, range.clone())));
        carved.push((file, result));
    }
    choose_log(&carved, wanted, &mut found);
    assign(disk, &carved, &mut found);
    Ok(found)
}

fn list(disk: &dyn Disk, path: &Path, depth: usize, paths: &mut Vec<PathBuf>) -> std::io::Result<()> {
    // A file is what cannot be listed.
    let Ok(entries) = disk::retry_interrupted(|| disk.list(path)) else {
        disk::retry_interrupted(|| disk.open(path, disk::OpenMode::Read))?;
        paths.push(path.to_path_buf());
        return Ok(());
    };
    for entry in entries {
        let inner = path.join(&entry.name);
        if !entry.is_directory {
            paths.push(inner);
        } else if depth < MOST_DEPTH {
            list(disk, &inner, depth + 1, paths)?;
        }
    }
    Ok(())
}

/// Which log is salvaged: the one that is wanted, or else the one with most records under heads of its own.
fn choose_log(carved: &[(usize, Carved)], wanted: Option<[u8; 16]>, found: &mut Found) {
    let names = heads(carved);
    let mut records: BTreeMap<[u8; 16], u64> = BTreeMap::new();
    for (_, carved) in carved {
        for uuid in carved.heads.iter().map(|head| head.head.uuid).chain(carved.manifests.iter().map(|m| m.1))
        {
            records.entry(uuid).or_default();
        }
        for run in &carved.runs {
            if let Some((uuid, _)) = names.get(&run.seed.value()) {
                *records.entry(*uuid).or_default() +=
                    u64::from(run.run.ordinals.end - run.run.ordinals.start);
            }
        }
    }
    found.uuid = wanted.or_else(|| records.iter().max_by_key(|(_, count)| **count).map(|(uuid, _)| *uuid));
    let others: Vec<&[u8; 16]> = records.keys().filter(|uuid| Some(**uuid) != found.uuid).collect();
    for other in &others {
        found.notes.push(format!(
            "there are pieces of another log, {0}: its records are put out as unplaced; to salvage that log, run it \
             again with --uuid {0}",
            crate::output::uuid(other)
        ));
    }
    let of_log =
        carved.iter().flat_map(|(_, carved)| &carved.heads).filter(|h| Some(h.head.uuid) == found.uuid);
    found.created_millis = of_log.map(|head| head.head.created_millis).min();
}

/// Log and segment by seed, as heads say.
fn heads(carved: &[(usize, Carved)]) -> BTreeMap<u32, ([u8; 16], u64)> {
    let heads = carved.iter().flat_map(|(_, carved)| &carved.heads);
    heads.map(|h| (Seed::of_segment(&h.head.uuid, h.head.id).value(), (h.head.uuid, h.head.id))).collect()
}

/// Gives each run its segment.
fn assign(disk: &dyn Disk, carved: &[(usize, Carved)], found: &mut Found) {
    let names = heads(carved);
    let uuids: BTreeSet<[u8; 16]> = carved
        .iter()
        .flat_map(|(_, carved)| {
            let heads = carved.heads.iter().map(|head| head.head.uuid);
            heads.chain(carved.manifests.iter().map(|manifest| manifest.1))
        })
        .chain(found.uuid)
        .collect();
    // Heads first, so that what a likely id is can be told.
    for (uuid, id) in names.values() {
        if Some(*uuid) == found.uuid {
            found.segments.entry(*id).or_default();
        }
    }
    for head in carved.iter().flat_map(|(_, carved)| &carved.heads).map(|head| head.head) {
        if let Some(segment) = found.segments.get_mut(&head.id).filter(|_| Some(head.uuid) == found.uuid) {
            segment.origin = Some(head.origin);
        }
    }
    let mut nameless: BTreeMap<u32, Segment> = BTreeMap::new();
    for (file, carved) in carved {
        for run in carved.runs.iter().filter(|run| !run.run.ordinals.is_empty()) {
            let piece = Piece { file: *file, seed: run.seed, run: run.run.clone() };
            let named = names.get(&run.seed.value()).copied();
            let solved = || {
                let uuid = found.uuid?;
                Some((uuid, run.seed.segment_id(&uuid).filter(|id| is_likely_id(*id, found))?))
            };
            match named.or_else(solved) {
                Some((uuid, id)) if Some(uuid) == found.uuid => {
                    add_carved(carved, run, piece, found.segments.entry(id).or_default());
                }
                Some(of) => found.loose.push(Loose { piece, of: Some(of) }),
                None if is_of_a_manifest(disk, run, &piece, &uuids, found) => {}
                None if found.uuid.is_none() => {
                    add_carved(carved, run, piece, nameless.entry(run.seed.value()).or_default());
                }
                None => found.loose.push(Loose { piece, of: None }),
            }
        }
    }
    for (_, carved) in carved {
        for base in &carved.bases {
            let named = names.get(&base.seed.value()).filter(|(uuid, _)| Some(*uuid) == found.uuid);
            if let Some(segment) = named.and_then(|(_, id)| found.segments.get_mut(id)) {
                segment.bases.insert(base.base);
            }
        }
    }
    number_by_base(nameless, found);
}

/// Edits are frames too.
fn is_of_a_manifest(
    disk: &dyn Disk,
    run: &CarvedRun,
    piece: &Piece,
    uuids: &BTreeSet<[u8; 16]>,
    found: &Found,
) -> bool {
    let solved = uuids.iter().filter_map(|uuid| run.seed.generation(uuid));
    if !solved.into_iter().any(|generation| generation <= MOST_GENERATIONS) {
        return false;
    }
    let Some(file) = found.files.get(piece.file) else { return false };
    let Ok(mut records) = Records::open(disk, file, piece) else { return false };
    records.payload().is_ok_and(|payload| Edit::decode(&payload).is_ok())
}

/// Without a single head nobody knows whether two seeds are of one log. They are taken for one where their bases
/// say so: each segment begins at or behind the end of the one before.
fn number_by_base(nameless: BTreeMap<u32, Segment>, found: &mut Found) {
    let end =
        |segment: &Segment| segment.pieces.iter().map(|piece| piece.run.ordinals.end).max().unwrap_or(0);
    let based = |segment: &Segment| segment.bases.first().copied().filter(|_| segment.bases.len() == 1);
    let (mut with, mut without): (Vec<_>, Vec<_>) = nameless.into_values().partition(|s| based(s).is_some());
    with.sort_by_key(based);
    let apart = with.windows(2).all(|pair| match pair {
        [a, b] => {
            let behind = based(a).map(|base| base.saturating_add(u64::from(end(a))));
            behind <= based(b)
        }
        _ => true,
    });
    if !apart {
        found.unknown.push(
            "no head of a store is left, and the pieces overlap: they may be of several logs, so all are unplaced"
                .to_string(),
        );
        without.append(&mut with);
    }
    found.ids_are_known = with.is_empty();
    if !with.is_empty() {
        found.notes.push(
            "no head of a store is left: the pieces are taken for one log, since their bases fit together"
                .to_string(),
        );
    }
    for (id, segment) in (1..).zip(with) {
        found.segments.insert(id, segment);
    }
    let loose = without.into_iter().flat_map(|segment| segment.pieces);
    found.loose.extend(loose.map(|piece| Loose { piece, of: None }));
}
