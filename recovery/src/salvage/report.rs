//! What a salvage says in the end: for people, and as JSON.
//!
//! It owns which results make a salvage incomplete, and how all of them are shown. Invariant: whatever is missing,
//! left out, in doubt or unknown is named; a salvage with none of it is complete.

use std::io;

use serde::Serialize;
use stonelog::manifest::OffsetRanges;

use super::Arguments;
use super::found::{Found, Manifest};
use super::place::Placement;
use super::write::{self, Conflict, Unplaced, Written};
use crate::Exit;
use crate::output::{self, BAD, FAINT, GOOD, ODD, Output, SCHEMA_VERSION, STRONG, Span, styled};

/// How many of a kind are shown to people; JSON has all.
const MOST_SHOWN: usize = 8;

#[derive(Serialize)]
pub(super) struct Report {
    schema_version: u32,
    verb: &'static str,
    source: String,
    exit_code: u8,
    advisory: bool,
    /// What could be made of the MANIFEST.
    manifest: &'static str,
    source_uuid: Option<String>,
    log: Option<Log>,
    unplaced: Option<UnplacedLog>,
    missing: Vec<Span>,
    records_missing: u64,
    conflicts: Vec<Conflict>,
    conflict_count: u64,
    left_out: Vec<LeftOut>,
    inferred_bases: Vec<Inferred>,
    quarantine: Vec<Quarantined>,
    unreadable: Vec<Unreadable>,
    unknown: Vec<String>,
    notes: Vec<String>,
    bytes_read: u64,
    next: Option<String>,
}

/// The log that was made.
#[derive(Serialize)]
struct Log {
    directory: String,
    uuid: String,
    offsets: Span,
    records: u64,
    bytes: u64,
    segments: usize,
    /// Whole, but nothing proves that they were acknowledged.
    records_not_proven: u64,
    proven_end: u64,
    /// Lost before this salvage.
    declared_lost: Vec<Span>,
}

#[derive(Serialize)]
struct UnplacedLog {
    directory: String,
    list: String,
    records: u64,
    bytes: u64,
    runs: usize,
}

#[derive(Serialize)]
struct LeftOut {
    file: String,
    why: &'static str,
    records: u64,
    offsets: Vec<Span>,
}

#[derive(Serialize)]
struct Inferred {
    segment: u64,
    base: u64,
    from_segment: u64,
}

#[derive(Serialize)]
struct Quarantined {
    file: String,
    records: u64,
    offsets: Option<Span>,
}

#[derive(Serialize)]
struct Unreadable {
    file: String,
    start: u64,
    end: u64,
}

impl Report {
    pub(super) fn of(
        arguments: &Arguments,
        found: &Found,
        placement: &Placement,
        written: Option<Written>,
        unplaced: Option<Unplaced>,
        in_use: bool,
        bytes_read: u64,
    ) -> Report {
        let missing = written
            .as_ref()
            .map_or_else(OffsetRanges::default, |written| write::missing(written, &placement.declared_lost));
        let mut unknown = [found.unknown.clone(), placement.unknown.clone()].concat();
        unknown.extend(unknown_without_manifest(&found.manifest, arguments.carve));
        unknown.extend(written.iter().flat_map(|written| written.failed.clone()));
        unknown.extend(unplaced.iter().flat_map(|unplaced| unplaced.failed.clone()));
        let mut notes = found.notes.clone();
        notes.extend(in_use.then(|| {
            "a program has the log open: this is the log as of no single moment; salvage it again when it is closed"
                .to_string()
        }));
        let log = written.as_ref().map(|written| Log {
            directory: arguments.out.display().to_string(),
            uuid: output::uuid(&written.built.uuid),
            offsets: Span::from(&written.built.offsets),
            records: written.built.records,
            bytes: written.built.bytes,
            segments: written.built.segments,
            records_not_proven: written.not_proven,
            proven_end: placement.proven_end,
            declared_lost: placement.declared_lost.iter().map(|range| Span::from(&range)).collect(),
        });
        let next = log.as_ref().map(|log| format!("log-repair check {}", log.directory));
        let left_out = write::left_out(placement).into_iter().map(|(file, why, records, offsets)| LeftOut {
            file: found.name(file).to_string(),
            why,
            records,
            offsets: offsets.iter().map(|range| Span::from(&range)).collect(),
        });
        let inferred = placement.inferred.iter().map(|inferred| Inferred {
            segment: inferred.segment,
            base: inferred.base,
            from_segment: inferred.from,
        });
        let quarantine = found.quarantined.iter().map(|store| Quarantined {
            file: store.file.clone(),
            records: store.records,
            offsets: store.offsets.as_ref().map(Span::from),
        });
        let unreadable = found.unreadable.iter().map(|(file, range)| Unreadable {
            file: found.name(*file).to_string(),
            start: range.start,
            end: range.end,
        });
        let mut report = Report {
            schema_version: SCHEMA_VERSION,
            verb: "salvage",
            source: arguments.source.display().to_string(),
            exit_code: 0,
            advisory: in_use,
            manifest: found.manifest.word(),
            source_uuid: found.uuid.map(|uuid| output::uuid(&uuid)),
            unplaced: unplaced.map(|unplaced| UnplacedLog {
                directory: unplaced.directory.display().to_string(),
                list: unplaced.list.display().to_string(),
                records: unplaced.built.records,
                bytes: unplaced.built.bytes,
                runs: unplaced.runs,
            }),
            records_missing: missing.iter().map(|range| range.end - range.start).fold(0, u64::saturating_add),
            missing: missing.iter().map(|range| Span::from(&range)).collect(),
            conflict_count: written.as_ref().map_or(0, |written| written.conflict_count),
            conflicts: written.map_or_else(Vec::new, |written| written.conflicts),
            left_out: left_out.collect(),
            inferred_bases: inferred.collect(),
            quarantine: quarantine.collect(),
            unreadable: unreadable.collect(),
            unknown,
            notes,
            bytes_read,
            next,
            log,
        };
        report.exit_code = Exit::of(!report.is_complete()).code();
        report
    }

    /// Whether every record there was is in the new log.
    pub(super) fn is_complete(&self) -> bool {
        self.missing.is_empty()
            && self.unplaced.is_none()
            && self.conflict_count == 0
            && self.unknown.is_empty()
            && self.log.is_some()
    }

    pub(super) fn show(&self, output: &mut Output) -> io::Result<()> {
        output.line(self.headline())?;
        output.line("")?;
        let mut field = |name: &str, value: String| output.line(format_args!("{name:<11} {value}"));
        if let Some(log) = &self.log {
            field("log", log.directory.clone())?;
            field(
                "offsets",
                format!(
                    "{}..{}: {}, {} in {}",
                    log.offsets.start,
                    log.offsets.end,
                    output::count(log.records, "record"),
                    output::bytes(log.bytes),
                    output::count(log.segments as u64, "segment")
                ),
            )?;
            if log.records_not_proven > 0 {
                let records = output::count(log.records_not_proven, "record");
                field("", format!("{records} of them whole, but not proven acknowledged"))?;
            }
        }
        for span in self.missing.iter().take(MOST_SHOWN) {
            field("missing", styled(BAD, output::records(&(span.start..span.end))))?;
        }
        more(&mut field, "missing", self.missing.len() as u64, "range")?;
        if let Some(unplaced) = &self.unplaced {
            let records = output::count(unplaced.records, "record");
            let runs = output::count(unplaced.runs as u64, "run");
            field("unplaced", styled(ODD, format!("{records} in {runs}: {}", unplaced.directory)))?;
            field("", format!("where they were: {}", unplaced.list))?;
        }
        for conflict in self.conflicts.iter().take(MOST_SHOWN) {
            field(
                "conflict",
                styled(
                    BAD,
                    format!(
                        "record {}: kept that at byte {} of {}, not that at byte {} of {}",
                        conflict.offset,
                        conflict.kept.position,
                        conflict.kept.file,
                        conflict.other.position,
                        conflict.other.file
                    ),
                ),
            )?;
        }
        more(&mut field, "conflict", self.conflict_count, "record")?;
        for left in self.left_out.iter().take(MOST_SHOWN) {
            let place = match left.offsets.as_slice() {
                [span] => format!(" ({})", output::records(&(span.start..span.end))),
                _ => String::new(),
            };
            let records = output::count(left.records, "intact record");
            field("left out", format!("{records} of {}{place}: {}", left.file, left.why))?;
        }
        more(&mut field, "left out", self.left_out.len() as u64, "reason")?;
        for inferred in self.inferred_bases.iter().take(MOST_SHOWN) {
            field(
                "base",
                styled(
                    ODD,
                    format!(
                        "segment {:x} lost its base; {} follows from segment {:x}",
                        inferred.segment, inferred.base, inferred.from_segment
                    ),
                ),
            )?;
        }
        more(&mut field, "base", self.inferred_bases.len() as u64, "segment")?;
        for store in self.quarantine.iter().take(MOST_SHOWN) {
            let records = output::count(store.records, "intact record");
            field("quarantine", format!("{}: {records}, which the log let go of; not put out", store.file))?;
        }
        more(&mut field, "quarantine", self.quarantine.len() as u64, "store")?;
        for range in self.unreadable.iter().take(MOST_SHOWN) {
            field(
                "unreadable",
                styled(BAD, format!("bytes {}..{} of {}", range.start, range.end, range.file)),
            )?;
        }
        more(&mut field, "unreadable", self.unreadable.len() as u64, "range")?;
        for unknown in self.unknown.iter().take(2 * MOST_SHOWN) {
            field("unknown", styled(ODD, unknown))?;
        }
        for note in self.notes.iter().take(2 * MOST_SHOWN) {
            field("note", note.clone())?;
        }
        if let Some(next) = &self.next {
            field("next", styled(STRONG, next))?;
        }
        output.line("")?;
        output.line(styled(
            FAINT,
            format!("{} read; {} is as it was", output::bytes(self.bytes_read), self.source),
        ))
    }

    fn headline(&self) -> String {
        let Some(log) = &self.log else {
            return styled(BAD, "no record could be given its place: all are in the unplaced log");
        };
        let records = output::count(log.records, "record");
        if self.is_complete() {
            return styled(GOOD, format!("salvaged {records}: nothing is missing"));
        }
        let mut buts = Vec::new();
        if self.records_missing > 0 {
            buts.push(format!("{} missing", self.records_missing));
        }
        if let Some(unplaced) = &self.unplaced {
            buts.push(format!("{} unplaced", unplaced.records));
        }
        if self.conflict_count > 0 {
            buts.push(format!("{} in conflict", self.conflict_count));
        }
        if !self.unknown.is_empty() {
            buts.push("something stays unknown".to_string());
        }
        styled(ODD, format!("salvaged {records}; {}", buts.join(", ")))
    }
}

/// Says how many of a kind were not shown.
fn more(
    field: &mut impl FnMut(&str, String) -> io::Result<()>,
    name: &str,
    all: u64,
    one: &str,
) -> io::Result<()> {
    match all.checked_sub(MOST_SHOWN as u64).filter(|rest| *rest > 0) {
        Some(rest) => field(name, format!("and {}: see --json", output::count(rest, &format!("more {one}")))),
        None => Ok(()),
    }
}

/// What only a MANIFEST knows.
fn unknown_without_manifest(manifest: &Manifest, carved: bool) -> Option<String> {
    let Manifest::Unusable { word, why } = manifest else { return None };
    let manifest = stonelog::manifest::FILE_NAME;
    let begin = if carved {
        format!("carving looks for no {manifest}")
    } else {
        format!("{manifest} is {word} ({why})")
    };
    Some(format!(
        "{begin}: metadata and declared losses are not in the new log, its front is that of the first record found, \
         and records that were truncated back may be in it again"
    ))
}
