//! Writing what was placed into a new log, and what was not into another one.
//!
//! It owns the merge of runs by offset: a record that several runs hold is written once; where they differ, the
//! later segment's is, and the others are conflicts. It decides no place.
//!
//! Invariants: offsets are written in order; at any time one record's bytes are in memory, and a buffer for each
//! run that holds the offset at hand; a record that cannot be read (any more) is named.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;
use stonelog::disk::{self, Disk, OpenMode, OsDisk};
use stonelog::manifest::OffsetRanges;
use stonelog::{Built, LogBuilder, Options};

use super::found::{Found, Loose};
use super::place::{Placed, Placement};
use super::read::Records;
use crate::Failure;
use crate::output::{self, SCHEMA_VERSION, Span};

/// At most this many conflicts are listed; all are counted.
const MOST_LISTED: usize = 1000;

/// Two intact records with one offset, and different bytes.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Conflict {
    pub(super) offset: u64,
    pub(super) kept: Place,
    pub(super) other: Place,
}

/// Where a frame is.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Place {
    pub(super) file: String,
    pub(super) position: u64,
    pub(super) segment: u64,
}

/// What came of writing.
#[derive(Debug)]
pub(super) struct Written {
    pub(super) built: Built,
    pub(super) conflicts: Vec<Conflict>,
    pub(super) conflict_count: u64,
    /// What was intact when it was looked for, and was not when it was read.
    pub(super) failed: Vec<String>,
    pub(super) not_proven: u64,
}

/// A run at its next record.
struct Cursor<'a> {
    placed: &'a Placed,
    records: Records,
}

impl Cursor<'_> {
    fn offset(&self) -> Option<u64> {
        let offset = self.placed.base.saturating_add(u64::from(self.records.ordinal()?));
        Some(offset).filter(|offset| *offset < self.placed.offsets.end)
    }
}

/// Writes the salvaged log.
pub(super) fn log(
    disk: &dyn Disk,
    found: &Found,
    placement: &Placement,
    destination: &Path,
    on_record: &dyn Fn(u64),
) -> Result<Written, Failure> {
    let options = Options::new().disk(Arc::new(OsDisk)).first_offset(placement.first_offset);
    let mut builder = LogBuilder::begin(&options, destination, placement.front)?;
    if let Some(millis) = found.created_millis {
        builder.created_millis(millis);
    }
    for (key, value) in found.manifest.state().into_iter().flat_map(|state| &state.meta) {
        builder.put_meta(key, value)?;
    }
    let mut merge =
        Merge { disk, found, placement, failed: Vec::new(), conflicts: Vec::new(), conflict_count: 0 };
    let mut not_proven = 0;
    let mut waiting = placement.placed.iter().peekable();
    let mut active: Vec<Cursor<'_>> = Vec::new();
    loop {
        let next = active.iter().filter_map(Cursor::offset).min();
        // A run is opened when its first record is due.
        if let Some(placed) = waiting.next_if(|placed| next.is_none_or(|next| placed.offsets.start <= next)) {
            active.extend(merge.open(placed));
            continue;
        }
        let Some(offset) = next else { break };
        if let Some((ends_batch, payload)) = merge.take(&mut active, offset) {
            on_record(payload.len() as u64);
            builder.push(offset, ends_batch, &payload)?;
            not_proven += u64::from(offset >= placement.proven_end);
        }
        active.retain(|cursor| cursor.offset().is_some());
    }
    let Merge { failed, conflicts, conflict_count, .. } = merge;
    let built = builder.finish(placement.end)?;
    Ok(Written { built, conflicts, conflict_count, failed, not_proven })
}

struct Merge<'a> {
    disk: &'a dyn Disk,
    found: &'a Found,
    placement: &'a Placement,
    failed: Vec<String>,
    conflicts: Vec<Conflict>,
    conflict_count: u64,
}

impl<'a> Merge<'a> {
    /// Opens a run, at its first record that is wanted.
    fn open(&mut self, placed: &'a Placed) -> Option<Cursor<'a>> {
        let file = self.found.files.get(placed.piece.file)?;
        let opened = Records::open(self.disk, file, &placed.piece).and_then(|mut records| {
            let first = placed.offsets.start.saturating_sub(placed.base);
            while records.ordinal().is_some_and(|ordinal| u64::from(ordinal) < first) {
                records.advance()?;
            }
            Ok(records)
        });
        match opened {
            Ok(records) => Some(Cursor { placed, records }),
            Err(error) => {
                let records = output::records(&placed.offsets);
                self.failed.push(format!("{records} in {} cannot be read ({error})", file.name));
                None
            }
        }
    }

    /// Takes the record at `offset` from the runs that hold it, and steps these on.
    fn take(&mut self, active: &mut Vec<Cursor<'a>>, offset: u64) -> Option<(bool, Vec<u8>)> {
        let alone = active.len() == 1;
        let wanted = !self.placement.declared_lost.contains(offset);
        let mut kept: Option<(bool, Vec<u8>, Place)> = None;
        let mut ended = Vec::new();
        for (index, cursor) in active.iter_mut().enumerate() {
            if cursor.offset() != Some(offset) {
                continue;
            }
            if wanted {
                let place = self.place_of(cursor);
                match cursor.records.payload().and_then(|bytes| Ok((cursor.records.ends_batch()?, bytes))) {
                    Ok((ends_batch, bytes)) => match &mut kept {
                        None => kept = Some((ends_batch, bytes, place)),
                        Some((_, other, _)) if *other == bytes => {}
                        Some(other) => {
                            let mut loser = place;
                            if loser.segment > other.2.segment {
                                std::mem::swap(&mut loser, &mut other.2);
                                (other.0, other.1) = (ends_batch, bytes);
                            }
                            self.conflict_count += 1;
                            if self.conflicts.len() < MOST_LISTED {
                                self.conflicts.push(Conflict { offset, kept: other.2.clone(), other: loser });
                            }
                        }
                    },
                    Err(error) if self.failed.len() < MOST_LISTED => {
                        self.failed.push(format!(
                            "record {offset} at byte {} of {} cannot be read ({error})",
                            place.position, place.file
                        ));
                    }
                    Err(_) => {}
                }
            }
            if cursor.records.advance().is_err() {
                ended.push(index);
            }
            if !alone {
                cursor.records.rest();
            }
        }
        for index in ended.into_iter().rev() {
            let cursor = active.remove(index);
            let rest = offset..cursor.placed.offsets.end;
            let name = self.found.name(cursor.placed.piece.file);
            self.failed.push(format!("{} in {name} cannot be read any more", output::records(&rest)));
        }
        kept.map(|(ends_batch, bytes, _)| (ends_batch, bytes))
    }

    fn place_of(&self, cursor: &Cursor<'_>) -> Place {
        let file = self.found.name(cursor.placed.piece.file).to_string();
        Place { file, position: cursor.records.position(), segment: cursor.placed.segment }
    }
}

/// A run of the unplaced log, as a line of the list beside it.
#[derive(Serialize)]
struct UnplacedRun<'a> {
    schema_version: u32,
    /// Its records' offsets in the unplaced log.
    offsets: Span,
    file: &'a str,
    position: u64,
    position_end: u64,
    ordinals: Span,
    seed: String,
    log: Option<String>,
    segment: Option<u64>,
}

/// The log of what has no place, and the list that says where each run was.
#[derive(Debug)]
pub(super) struct Unplaced {
    pub(super) directory: PathBuf,
    pub(super) list: PathBuf,
    pub(super) built: Built,
    pub(super) runs: usize,
    pub(super) failed: Vec<String>,
}

/// Where unplaced records go.
pub(super) fn unplaced_path(destination: &Path, suffix: &str) -> PathBuf {
    let mut name = destination.file_name().unwrap_or_default().to_os_string();
    name.push(suffix);
    destination.with_file_name(name)
}

/// Writes the unplaced log: records in the order of files and positions, at offsets that say nothing.
pub(super) fn unplaced(
    disk: &dyn Disk,
    found: &Found,
    loose: &[Loose],
    destination: &Path,
    on_record: &dyn Fn(u64),
) -> Result<Unplaced, Failure> {
    let directory = unplaced_path(destination, "-unplaced");
    let list = unplaced_path(destination, "-unplaced.jsonl");
    let options = Options::new().disk(Arc::new(OsDisk));
    let mut builder = LogBuilder::begin(&options, &directory, 0)?;
    let (mut next, mut failed, mut lines) = (0u64, Vec::new(), Vec::new());
    for Loose { piece, of } in loose {
        let Some(file) = found.files.get(piece.file) else { continue };
        let start = next;
        let written = Records::open(disk, file, piece).map_err(Failure::from).and_then(|mut records| {
            while records.ordinal().is_some() {
                let payload = records.payload()?;
                on_record(payload.len() as u64);
                // Batches are their segment's.
                builder.push(next, true, &payload)?;
                next += 1;
                records.advance()?;
            }
            Ok(())
        });
        match written {
            Ok(()) => {}
            Err(Failure::Output(error)) => {
                failed.push(format!("{} from byte {} on: {error}", file.name, piece.run.positions.start));
            }
            Err(other) => return Err(other),
        }
        let line = UnplacedRun {
            schema_version: SCHEMA_VERSION,
            offsets: Span { start, end: next },
            file: &file.name,
            position: piece.run.positions.start,
            position_end: piece.run.positions.end,
            ordinals: Span { start: piece.run.ordinals.start.into(), end: piece.run.ordinals.end.into() },
            seed: format!("{:08x}", piece.seed.value()),
            log: of.map(|(uuid, _)| output::uuid(&uuid)),
            segment: of.map(|(_, id)| id),
        };
        serde_json::to_writer(&mut lines, &line).map_err(std::io::Error::from)?;
        lines.write_all(b"\n")?;
    }
    let built = builder.finish(0)?;
    let saved = disk::retry_interrupted(|| OsDisk.open(&list, OpenMode::CreateNew))
        .and_then(|file| disk::write_all_at(file.as_ref(), &lines, 0).and_then(|()| file.sync()));
    saved.map_err(|error| Failure::Said(format!("{} cannot be written: {error}", list.display())))?;
    Ok(Unplaced { directory, list, built, runs: loose.len(), failed })
}

/// The records that are missing: those that the new log says are lost, less those that were before.
pub(super) fn missing(written: &Written, declared: &OffsetRanges) -> OffsetRanges {
    let mut missing = OffsetRanges::default();
    for range in &written.built.lost {
        missing.insert(range.clone());
    }
    for range in declared.iter() {
        missing.remove(range);
    }
    missing
}

/// What was left out, by file and reason.
pub(super) fn left_out(placement: &Placement) -> Vec<(usize, &'static str, u64, OffsetRanges)> {
    let mut by: BTreeMap<(usize, &'static str), OffsetRanges> = BTreeMap::new();
    for left in &placement.left_out {
        by.entry((left.file, left.why)).or_default().insert(left.offsets.clone());
    }
    by.into_iter()
        .map(|((file, why), offsets)| {
            let count = offsets.iter().map(|range| range.end - range.start).sum();
            (file, why, count, offsets)
        })
        .collect()
}
