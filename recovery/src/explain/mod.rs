//! `explain`: the bytes of one frame, each field named, and why it is or is not valid.
//!
//! It owns how a place is named on the command line, and what is done about each kind of file. What
//! stands there is told by [`frame`], [`manifest`] and [`index`]; what is wrong with it by the lister,
//! as in `check`. Invariants: nothing is judged here; no bytes, however hostile, are trusted with a
//! length; the exit code is 4 where a damage that check finds is about this place.

mod explained;
mod frame;
mod index;
mod manifest;
mod show;
mod sight;

use std::ops::Range;

use serde::Serialize;
use stonelog::disk::{self, Disk, OpenMode};
use stonelog::manifest as library;
use stonelog::names;
use stonelog::recovery::StoreFindings;
use stonelog::store::FIRST_FRAME;

use self::explained::{Explained, Fact, Field, Piece, Reason};
use self::frame::Around;
use self::sight::{Sight, Store, Wanted};
use crate::check::{self, JsonFinding};
use crate::finding::{Code, Finding, Severity};
use crate::looking::StoreSource;
use crate::output::{self, Output, SCHEMA_VERSION, Span};
use crate::{Exit, Failure};

const EXAMPLES: &str = "\
Examples:
  log-repair explain DIR 4711                          the frame of record 4711
  log-repair explain DIR 0000000000000003.store:1840   what holds byte 1840 of that store
  log-repair explain DIR 3:0x730                       the same: segment 3, in hexadecimal
  log-repair explain DIR 3:0                           its head sector
  log-repair explain DIR MANIFEST:512                  the MANIFEST's first edit
  log-repair explain DIR 0000000000000003.index:64     an entry of an index

Exit codes: 4 where check finds damage at this place, 0 where it does not.";

/// Explains the bytes of one frame: each field, its checksum, and why it is valid or not.
///
/// PLACE is a record's offset, or FILE:POSITION, where FILE is a name in DIR (or a segment's id alone)
/// and POSITION a byte in it. A position inside a frame explains that frame. Reads the segment that is
/// asked about, and no other.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    #[command(flatten)]
    directory: crate::Directory,
    /// A record's offset, or FILE:POSITION.
    #[arg(value_name = "PLACE")]
    place: String,
    /// Payload bytes to show at most; of a longer one the head and the tail.
    #[arg(long, default_value_t = 256, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(..=1 << 20))]
    bytes: u64,
    /// Writes one JSON document instead of text.
    #[arg(long)]
    json: bool,
}

/// What was asked about.
#[derive(Debug, PartialEq, Eq)]
enum Place {
    Offset(u64),
    File(String, u64),
}

fn number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x").or(text.strip_prefix("0X")) {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

fn parse(place: &str) -> Result<Place, Failure> {
    let bad = || {
        Failure::Usage(format!(
            "{place:?} is no place: give a record's offset, or FILE:POSITION (0000000000000003.store:1840, 3:1840, MANIFEST:512)"
        ))
    };
    match place.rsplit_once(':') {
        Some((file, position)) if !file.is_empty() => {
            Ok(Place::File(file.to_string(), number(position).ok_or_else(bad)?))
        }
        Some(_) => Err(bad()),
        None => match number(place) {
            Some(offset) => Ok(Place::Offset(offset)),
            None if place.is_empty() => Err(bad()),
            None => Ok(Place::File(place.to_string(), 0)),
        },
    }
}

pub(crate) fn run(arguments: &Arguments, output: &mut Output) -> Result<Exit, Failure> {
    let place = parse(&arguments.place)?;
    let mut sight = Sight::of(&arguments.directory.path)?;
    let mut told = match place {
        Place::Offset(offset) => of_offset(&mut sight, offset, arguments.bytes)?,
        Place::File(file, position) => of_file(&mut sight, &file, position, arguments.bytes)?,
    };
    told.findings = sight.list().into_iter().filter(|finding| is_about(finding, &told)).collect();
    if sight.is_live() {
        told.fact("in use", "a program has the log open for writing: this is as of one moment");
    }
    told.next = next(&sight, &told);
    let damaged = told.findings.iter().any(|finding| finding.code.severity() == Severity::Damage);
    let exit = Exit::of(damaged);
    if arguments.json {
        output.document(&json(&sight, &arguments.place, &told, exit))?;
    } else if damaged || !output.is_quiet() {
        show::show(&told, output)?;
    }
    Ok(exit)
}

/// Whether a finding is about what is explained.
fn is_about(finding: &Finding, told: &Explained) -> bool {
    let same_file = finding.file.is_some() && finding.file == told.file;
    let overlaps = |bytes: &Range<u64>| match (finding.position, finding.position_end) {
        (Some(start), Some(end)) => start < bytes.end && bytes.start < end,
        (Some(start), None) => bytes.contains(&start),
        (None, _) => true,
    };
    let here = same_file && told.bytes.as_ref().is_none_or(overlaps);
    let record = match (told.offset, &finding.offsets) {
        (Some(offset), Some(offsets)) => {
            offsets.contains(&offset)
                && (finding.segment.is_none() || finding.segment == told.segment || told.segment.is_none())
        }
        _ => false,
    };
    // A whole file's finding that names records is about those.
    let elsewhere =
        finding.position.is_none() && finding.offsets.is_some() && told.offset.is_some() && !record;
    (here && !elsewhere) || (record && finding.code != Code::Unclean)
}

fn next(sight: &Sight, told: &Explained) -> String {
    let directory = sight.directory().display();
    let damage = told.findings.iter().any(|finding| finding.code.severity() == Severity::Damage);
    match (damage, told.kind, told.offset) {
        (true, ..) => format!("log-repair check {directory}"),
        (false, "frame", Some(offset)) => format!("log-repair dump {directory} --from {offset} --limit 1"),
        (false, "missing" | "broken-frame" | "hole" | "broken-edit", _) => {
            format!("log-repair check {directory}")
        }
        (false, "beyond-end" | "truncated" | "lost", _) => format!("log-repair stat {directory}"),
        _ => format!("log-repair map {directory}"),
    }
}

// ---- a record ----

fn of_offset(sight: &mut Sight, offset: u64, most: u64) -> Result<Explained, Failure> {
    let shown = sight.directory().display().to_string();
    let Some(state) = sight.state() else {
        return of_offset_without_manifest(sight, offset, most);
    };
    let front = state.front;
    let lost = state.lost.contains(offset);
    // The last segment that begins at or below it; one more, where nobody knows where it begins.
    let id = sight.findings.segments.iter().filter(|segment| segment.base.is_some_and(|base| base <= offset));
    let id = id.map(|segment| segment.id).next_back();
    if let Some(id) = id {
        sight.look_into(id);
    }
    let assessment = sight.assessment();
    let ends = assessment.map(|a| a.valid_end.max(a.proven_end).max(front));
    let close = sight.state().and_then(|state| state.closed).map(|close| close.next_offset);
    let end = ends.max(close).unwrap_or(front);
    let ordinal = id.and_then(|id| {
        let segment = sight.findings.segments.iter().find(|segment| segment.id == id)?;
        u32::try_from(offset.checked_sub(segment.base?)?).ok()
    });
    if let (Some(id), Some(ordinal)) = (id, ordinal)
        && let Some(store) = open(sight, &names::store(id), id, false)
        && let Some(walked) = store.walk(Wanted::Ordinal(ordinal))
    {
        let around = Around { sight, store: &store, walked: &walked, most };
        let told = match walked.frame {
            Some(frame) => Some(frame::valid(&around, frame.position, &frame.header)),
            None if offset < end || walked.next.is_some() => Some(missing(&around, offset, ordinal)),
            None => None,
        };
        if let Some(mut told) = told {
            told.file = Some(store.name.clone());
            told.segment = Some(id);
            return Ok(told);
        }
    }
    let mut told = if offset < front {
        Explained::new(
            "truncated",
            format!("record {offset} was truncated away: the log begins at offset {front}"),
        )
    } else if lost {
        Explained::new("lost", lost_title(offset))
    } else if offset >= end {
        Explained::new(
            "beyond-end",
            format!("record {offset} is beyond the end: the next record gets offset {end}"),
        )
    } else {
        Explained::new("missing", format!("record {offset} is missing: no store holds it"))
    };
    told.offset = Some(offset);
    told.valid = (told.kind == "missing").then_some(false);
    if told.kind == "missing" || told.kind == "lost" {
        if let Some(id) = id {
            told.file = Some(names::store(id));
            told.segment = Some(id);
            let there = sight.findings.listing.stores.contains_key(&id);
            told.fact(
                "store",
                if there { "it is there, and no frame of this record is in it" } else { "it is not there" },
            );
        }
    } else {
        told.fact("log", format!("{shown} has offsets {front}..{end}"));
    }
    if let Some(assessment) = sight.assessment() {
        told.fact(
            "proven end",
            format!("{} ({})", assessment.proven_end, assessment.proof.describe(assessment.proven_end)),
        );
    }
    Ok(told)
}

/// A record that has no valid frame, though its place in the store is known.
fn missing(around: &Around<'_>, offset: u64, ordinal: u32) -> Explained {
    let hole = around.walked.hole(around.store.length());
    let first = around.walked.missed();
    let mut told = frame::hole(around, hole.start);
    if first != ordinal {
        let first =
            around.store.offset(first).map_or_else(|| first.to_string(), |offset| format!("record {offset}"));
        told.title = format!(
            "record {offset} has no valid frame: it stood behind {first}, in the hole that begins here"
        );
    } else if told.kind == "zeros" {
        told.title = format!("record {offset} has no frame: there are zeros where it should begin");
    } else {
        told.title = format!("record {offset} has no valid frame: {}", frame::defect(gap_defect(around)));
    }
    if around.sight.state().is_some_and(|state| state.lost.contains(offset)) {
        told.kind = "lost";
        told.title = lost_title(offset);
    }
    told.offset = Some(offset);
    told.valid = Some(false);
    told
}

fn lost_title(offset: u64) -> String {
    format!("record {offset} is lost: a repair gave it up, and reading it gives Error::Lost")
}

fn gap_defect(around: &Around<'_>) -> Option<stonelog::scan::Defect> {
    let outcome = &around.walked.outcome;
    let gap = around.walked.next.and_then(|next| next.gap);
    let start = around.walked.hole(around.store.length()).start;
    gap.or(outcome.broken.filter(|broken| broken.position == start).map(|broken| broken.defect))
}

/// Goes by what the stores say themselves.
fn of_offset_without_manifest(sight: &mut Sight, offset: u64, most: u64) -> Result<Explained, Failure> {
    let ids: Vec<u64> = sight.findings.listing.stores.keys().copied().collect();
    if ids.is_empty() {
        return Err(no_log(sight));
    }
    for id in ids.into_iter().rev() {
        let Some(store) = open(sight, &names::store(id), id, false) else { continue };
        let Some(ordinal) = store.base.and_then(|base| u32::try_from(offset.checked_sub(base)?).ok()) else {
            continue;
        };
        sight.look_into(id);
        let Some(walked) = store.walk(Wanted::Ordinal(ordinal)) else { continue };
        let around = Around { sight, store: &store, walked: &walked, most };
        let mut told = match (walked.frame, walked.next) {
            (Some(frame), _) => frame::valid(&around, frame.position, &frame.header),
            (None, Some(_)) => missing(&around, offset, ordinal),
            (None, None) => break,
        };
        told.file = Some(store.name.clone());
        told.segment = Some(id);
        return Ok(told);
    }
    let mut told = Explained::new("missing", format!("no store here says that it holds record {offset}"));
    told.offset = Some(offset);
    told.fact("MANIFEST", "there is no whole one: what the stores say by themselves is all there is");
    Ok(told)
}

fn no_log(sight: &Sight) -> Failure {
    Failure::Said(format!(
        "{} holds no log: name the directory that holds MANIFEST",
        sight.directory().display()
    ))
}

// ---- a file ----

/// Opens a store of the log, or one apart (in quarantine, or not named).
fn open(sight: &Sight, name: &str, id: u64, apart: bool) -> Option<Store> {
    let source = StoreSource::open_file(&sight.disk, &sight.directory().join(name)).ok()?;
    let uuid = sight.uuid();
    let own = source.findings(&[0; 16], id).head().map(|head| head.uuid);
    let uuid = uuid.or(own);
    let found = source.findings(&uuid.unwrap_or_default(), id);
    let named = sight.findings.segments.iter().find(|segment| segment.id == id && !apart);
    let base = named.and_then(|segment| segment.base).or(found.base());
    let apart = apart || (named.is_none() && sight.state().is_some());
    let state = named.map(|segment| segment.state.clone());
    Some(Store { name: name.to_string(), id, source, uuid, found, base, state, apart })
}

fn of_file(sight: &mut Sight, file: &str, position: u64, most: u64) -> Result<Explained, Failure> {
    let id = u64::from_str_radix(file, 16).ok().filter(|id| *id <= names::MAX_ID && file.len() <= 16);
    let name = id.map_or_else(|| file.to_string(), names::store);
    let directory = sight.directory().display().to_string();
    if name == library::FILE_NAME {
        let bytes = read_whole(sight, &name)?;
        return Ok(manifest::explain(sight, &bytes, position, most));
    }
    let (inner, apart) = match name.strip_prefix("quarantine/") {
        Some(inner) => (inner, true),
        None => (name.as_str(), false),
    };
    let listing = &sight.findings.listing;
    if let Some(id) = names::id_of_index(inner).filter(|id| !apart && listing.indexes.contains_key(id)) {
        sight.look_into(id);
        let store = open(sight, &names::store(id), id, false);
        let told = index::explain(&sight.disk, sight.directory(), id, store.as_ref(), position);
        return told.map_err(|error| {
            Failure::Said(format!("reading {name} failed: {error}. Look into the system's log"))
        });
    }
    let known = match names::id_of_store(inner) {
        Some(id) if apart => Some(id).filter(|_| listing.quarantined.iter().any(|found| found == inner)),
        Some(id) => Some(id).filter(|id| listing.stores.contains_key(id)),
        None => None,
    };
    if let Some(id) = known {
        return of_store(sight, &name, id, apart, position, most);
    }
    // A store that the MANIFEST names, and that is gone, can be explained too.
    if let Some(id) = names::id_of_store(inner).filter(|_| !apart)
        && let Some(segment) = sight.findings.segments.iter().find(|segment| segment.id == id)
    {
        let mut told = Explained::new(
            "missing",
            format!("the store of segment {id:x} is not there, and the MANIFEST names it"),
        );
        if matches!(segment.store, StoreFindings::Unreadable { .. }) {
            told.title = format!("the store of segment {id:x} cannot be read");
        }
        (told.file, told.segment, told.valid) = (Some(name), Some(id), Some(false));
        return Ok(told);
    }
    let entries = sight.disk.list(sight.directory()).unwrap_or_default();
    if !entries.iter().any(|entry| entry.name == name && !entry.is_directory) {
        return Err(Failure::Said(format!(
            "{directory} has no file {}: name one of its files, a segment's id, or MANIFEST",
            output::escaped(name.as_bytes())
        )));
    }
    // Whatever else it is, its bytes can be shown.
    let mut told = Explained::new(
        "bytes",
        format!("bytes of {}, a file that holds no frames", output::escaped(name.as_bytes())),
    );
    let bytes = read_some(sight, &name, position, most.max(16))?;
    told.bytes = Some(position..position.saturating_add(bytes.len() as u64));
    told.shown = vec![Piece { start: position, bytes }];
    told.file = Some(name);
    Ok(told)
}

fn of_store(
    sight: &mut Sight,
    name: &str,
    id: u64,
    apart: bool,
    position: u64,
    most: u64,
) -> Result<Explained, Failure> {
    if !apart {
        sight.look_into(id);
    }
    let Some(store) = open(sight, name, id, apart) else {
        let mut told = Explained::new("missing", format!("the store of segment {id:x} cannot be opened"));
        (told.file, told.segment, told.valid) = (Some(name.to_string()), Some(id), Some(false));
        return Ok(told);
    };
    let walked = store.walk(Wanted::Position(position)).unwrap_or_default();
    let around = Around { sight, store: &store, walked: &walked, most };
    let mut told = if position >= store.length() {
        let length = store.length();
        let mut told =
            Explained::new("beyond-end", format!("byte {position} is beyond the end of the file, {length}"));
        if let Some(sealed) = store.sealed_at().filter(|sealed| *sealed > length) {
            told.valid = Some(false);
            told.fact(
                "seal",
                format!(
                    "it was sealed at byte {sealed}: {} are missing",
                    output::count(sealed - length, "byte")
                ),
            );
        }
        told.bytes = Some(length..position.saturating_add(1));
        told
    } else if position < FIRST_FRAME {
        frame::sector(&around, position)
    } else {
        match walked.frame {
            Some(frame) => frame::valid(&around, frame.position, &frame.header),
            None => frame::hole(&around, position),
        }
    };
    told.file = Some(name.to_string());
    told.segment = Some(id);
    Ok(told)
}

fn read_whole(sight: &Sight, name: &str) -> Result<Vec<u8>, Failure> {
    // The library refuses a larger MANIFEST.
    read_some(sight, name, 0, 64 << 20)
}

fn read_some(sight: &Sight, name: &str, position: u64, most: u64) -> Result<Vec<u8>, Failure> {
    let said = |error: std::io::Error| {
        let directory = sight.directory().display();
        Failure::Said(format!(
            "reading {name} in {directory} failed: {error}. Run: log-repair check {directory}"
        ))
    };
    let file = disk::retry_interrupted(|| sight.disk.open(&sight.directory().join(name), OpenMode::Read))
        .map_err(said)?;
    let left = file.length().map_err(said)?.saturating_sub(position);
    let mut bytes = vec![0; usize::try_from(left.min(most)).unwrap_or(0)];
    let got = disk::read_up_to(file.as_ref(), &mut bytes, position).map_err(said)?;
    bytes.truncate(got);
    Ok(bytes)
}

// ---- JSON ----

#[derive(Serialize)]
struct Json<'a> {
    schema_version: u32,
    verb: &'static str,
    directory: String,
    place: &'a str,
    kind: &'static str,
    title: &'a str,
    file: Option<&'a str>,
    segment: Option<u64>,
    offset: Option<u64>,
    bytes: Option<Span>,
    valid: Option<bool>,
    fields: &'a [Field],
    reasons: &'a [Reason],
    facts: &'a [Fact],
    dump: Vec<JsonPiece>,
    findings: Vec<JsonFinding<'a>>,
    next: &'a str,
    advisory: bool,
    exit_code: u8,
}

#[derive(Serialize)]
struct JsonPiece {
    start: u64,
    hex: String,
}

fn json<'a>(sight: &Sight, place: &'a str, told: &'a Explained, exit: Exit) -> Json<'a> {
    let piece = |piece: &Piece| JsonPiece { start: piece.start, hex: output::hex(&piece.bytes) };
    Json {
        schema_version: SCHEMA_VERSION,
        verb: "explain",
        directory: sight.directory().display().to_string(),
        place,
        kind: told.kind,
        title: &told.title,
        file: told.file.as_deref(),
        segment: told.segment,
        offset: told.offset,
        bytes: told.bytes.as_ref().map(Span::from),
        valid: told.valid,
        fields: &told.fields,
        reasons: &told.reasons,
        facts: &told.facts,
        dump: told.shown.iter().map(piece).collect(),
        findings: told
            .findings
            .iter()
            .map(|finding| check::json_finding(sight.directory(), finding))
            .collect(),
        next: &told.next,
        advisory: sight.is_live(),
        exit_code: exit.code(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_offsets_or_files_with_positions() {
        let file = |name: &str, position| Place::File(name.to_string(), position);
        assert_eq!(parse("17").ok(), Some(Place::Offset(17)));
        assert_eq!(parse("3:0x10").ok(), Some(file("3", 16)));
        assert_eq!(parse("MANIFEST").ok(), Some(file("MANIFEST", 0)));
        assert_eq!(parse("quarantine/x.store:5").ok(), Some(file("quarantine/x.store", 5)));
        for bad in ["", ":", ":5", "3:", "3:x", "99999999999999999999:x"] {
            assert!(matches!(parse(bad), Err(Failure::Usage(_))), "{bad:?}");
        }
    }
}
