//! `stat`: a log at a glance.
//!
//! It owns which numbers are shown and how. It reads what an opening reads (the manifest, and after
//! an unclean end the unsealed stores), so it is quick on a log of any size, and it says less than
//! `check`: a sealed store is taken at the manifest's word.
//!
//! Why no exact payload size: only reading every frame could tell it. What is shown is an upper
//! bound, less than 8 bytes a record above the truth.

use std::io;

use serde::Serialize;
use stonelog::disk::{self, Disk, OpenMode, OsDisk};
use stonelog::frame::HEADER_BYTES;
use stonelog::manifest::{self, Reading, State};
use stonelog::names;
use stonelog::recovery::verdict::{Assessment, Verdict};
use stonelog::recovery::{Depth, Findings, SegmentFindings, StoreFindings, inspect};
use stonelog::store::{FIRST_FRAME, Origin};

use crate::lock;
use crate::looking::{LookingDisk, StoreSource};
use crate::mending;
use crate::output::{self, BAD, Columns, GOOD, ODD, Output, SCHEMA_VERSION, STRONG, Span, styled};
use crate::{Exit, Failure};

/// Shows a log at a glance, without reading its records.
///
/// Exits with 4 where the MANIFEST, or what an opening reads, already shows damage; whether every
/// record is what was written only `check` can tell.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    directory: crate::Directory,
    /// Writes one JSON document instead of text.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: &Arguments, output: &mut Output) -> Result<Exit, Failure> {
    let directory = &arguments.directory.path;
    let disk = LookingDisk::default();
    mending::refuse_unfinished(&disk, directory)?;
    let findings = inspect(&disk, directory, Depth::Opening)?;
    let shown = directory.display();
    if !findings.listing.exists {
        return Err(Failure::Said(format!(
            "there is no directory {shown}: name the one that holds MANIFEST"
        )));
    }
    let (state, assessment, generation, edits, manifest_bytes) = match (
        &findings.manifest,
        &findings.assessment,
    ) {
        (Reading::Whole { state, generation, edits, length, .. }, Some(assessment)) => {
            (state, assessment, *generation, *edits, *length)
        }
        (Reading::Damaged(_), _) => {
            return Err(Failure::Damaged(format!(
                "the MANIFEST of {shown} is damaged, and says nothing reliable. Run: log-repair check {shown}"
            )));
        }
        _ => {
            return Err(Failure::Said(format!(
                "{shown} has no MANIFEST. If a log was here, run: log-repair check {shown}"
            )));
        }
    };
    let in_use = lock::holder(&OsDisk, directory);
    let segments: Vec<Segment> =
        findings.segments.iter().map(|segment| describe(segment, state, assessment)).collect();
    let damaged = assessment.verdict == Verdict::Damage || !state.damaged.is_empty();
    let next = match state.closed {
        Some(close) if assessment.damage.is_empty() => close.next_offset.max(state.front),
        _ => assessment.valid_end.max(assessment.proven_end).max(state.front),
    };
    let json = Json {
        schema_version: SCHEMA_VERSION,
        verb: "stat",
        directory: shown.to_string(),
        uuid: output::uuid(&state.uuid),
        created_millis: state.created_millis,
        created: output::time(state.created_millis),
        end: match (in_use, state.closed) {
            (Some(_), _) => "open",
            (None, Some(_)) => "clean",
            (None, None) => "unclean",
        },
        in_use_by: in_use.map(|holder| InUseBy { pid: holder.pid }),
        offsets: Span { start: state.front, end: next },
        records: next.saturating_sub(state.front),
        proven_end: assessment.proven_end,
        valid_end: if state.closed.is_some() { next } else { assessment.valid_end },
        proof: assessment.proof.describe(assessment.proven_end),
        damaged: state.damaged.iter().map(|range| Span::from(&range)).collect(),
        found_damaged: assessment.damage.len(),
        lost: state.lost.iter().map(|range| Span::from(&range)).collect(),
        manifest: Manifest { generation, edits, bytes: manifest_bytes, last_id: state.last_id },
        bytes: sizes(&disk, &findings, &segments),
        written: Written::of(&segments),
        last_recovery: last_recovery(&disk, &findings, state),
        meta: state.meta.iter().map(|(key, value)| Meta { key: key.clone(), bytes: value.len() }).collect(),
        quarantine: findings.listing.quarantined.clone(),
        unnamed: findings.unnamed.iter().map(|store| names::store(store.id)).collect(),
        segments,
    };
    if arguments.json {
        output.document(&json)?;
    } else {
        show(&json, output)?;
    }
    Ok(Exit::of(damaged))
}

fn describe(segment: &SegmentFindings, state: &State, assessment: &Assessment) -> Segment {
    let (born, closed) = (segment.state.born, state.closed);
    let reached = segment.scan.as_ref().and_then(|scan| scan.chain());
    let base = segment.base;
    let first_unsealed = state.unsealed().next().is_some_and(|(id, _)| id == segment.id);
    let (end, frames_end) = match (segment.state.seal, reached, closed) {
        (Some(seal), ..) => (Some(seal.next_offset), Some(seal.length)),
        (None, Some(run), _) => {
            (base.map(|base| base.saturating_add(u64::from(run.whole_ordinal))), Some(run.whole_position))
        }
        // After a clean close the active store is not read: what the Close states is what there is.
        (None, None, Some(close)) if first_unsealed && close.length > 0 => {
            (Some(close.next_offset), Some(close.length))
        }
        _ => (base, None),
    };
    let unused = segment.state.seal.is_none() && frames_end.is_none_or(|end| end <= FIRST_FRAME);
    let damaged = assessment.damage.iter().any(|damage| damage.id == segment.id);
    let condition = match (&segment.store, segment.state.seal) {
        (StoreFindings::Missing, _) => "missing",
        (StoreFindings::Unreadable { .. }, _) => "unreadable",
        _ if damaged => "damaged",
        (_, Some(_)) => "sealed",
        _ if unused => "prepared",
        _ => "unsealed",
    };
    let copied = segment.store.head().map_or(born.is_some(), |head| head.origin == Origin::Copy);
    Segment {
        id: segment.id,
        file: names::store(segment.id),
        state: condition,
        origin: if copied { "copy" } else { "roll" },
        offsets: base.zip(end).filter(|_| !unused).map(|(start, end)| Span { start, end: end.max(start) }),
        frame_bytes: frames_end.map_or(0, |end| end.saturating_sub(FIRST_FRAME)),
        file_bytes: segment.store.length(),
        created_millis: segment.store.head().map(|head| head.created_millis),
        first_millis: segment.state.seal.map(|seal| seal.first_millis).filter(|millis| *millis > 0),
        last_millis: segment.state.seal.map(|seal| seal.last_millis).filter(|millis| *millis > 0),
    }
}

fn sizes(disk: &LookingDisk, findings: &Findings, segments: &[Segment]) -> Bytes {
    let frames: u64 = segments.iter().map(|segment| segment.frame_bytes).fold(0, u64::saturating_add);
    let records = segments.iter().filter_map(|segment| segment.offsets);
    let records: u64 = records.map(|offsets| offsets.end - offsets.start).fold(0, u64::saturating_add);
    let headers = records.saturating_mul(HEADER_BYTES);
    let stores = findings.listing.stores.values().copied().fold(0, u64::saturating_add);
    let indexes = findings.listing.indexes.values().copied().fold(0, u64::saturating_add);
    // What cannot be listed now was listed a moment ago: then this log is on its way out.
    let entries = disk.list(&findings.directory).unwrap_or_default();
    let manifest = entries.iter().filter(|e| e.name == manifest::FILE_NAME || e.name == manifest::NEXT_NAME);
    let manifest = manifest.map(|entry| entry.length).fold(0, u64::saturating_add);
    let payload_at_most = frames.saturating_sub(headers);
    let sectors = FIRST_FRAME.saturating_mul(findings.listing.stores.len() as u64);
    let reserved = stores.saturating_sub(frames).saturating_sub(sectors);
    let used = stores.saturating_sub(reserved).saturating_add(indexes).saturating_add(manifest);
    Bytes {
        payload_at_most,
        headers,
        frames,
        stores,
        indexes,
        manifest,
        reserved,
        overhead_permille: used
            .saturating_sub(payload_at_most)
            .saturating_mul(1000)
            .checked_div(used)
            .unwrap_or(0),
    }
}

impl Written {
    fn of(segments: &[Segment]) -> Written {
        Written {
            first_millis: segments.iter().find_map(|segment| segment.first_millis),
            last_sealed_millis: segments.iter().rev().find_map(|segment| segment.last_millis),
            unsealed_since_millis: segments
                .iter()
                .find(|segment| segment.state == "unsealed")
                .and_then(|segment| segment.created_millis),
        }
    }
}

/// The last time an opening had something to put right, as far as the directory still tells: a segment that it
/// copied, or a file that it moved aside.
fn last_recovery(disk: &LookingDisk, findings: &Findings, state: &State) -> Option<LastRecovery> {
    let copies = findings.segments.iter().filter_map(|segment| {
        // (A sealed store was not looked into; a segment that was born with frames is a copy.)
        let head = match segment.store.head() {
            Some(head) => Some(*head),
            None if segment.state.born.is_some() => {
                let source = StoreSource::open(disk, &findings.directory, segment.id).ok()?;
                source.findings(&state.uuid, segment.id).head().copied()
            }
            None => None,
        };
        let head = head.filter(|head| head.origin == Origin::Copy)?;
        Some(LastRecovery {
            millis: head.created_millis,
            what: format!(
                "segment {:x} was begun with records copied from another, by a recovery or a truncation",
                segment.id
            ),
        })
    });
    let moved = findings.listing.quarantined.iter().filter_map(|name| {
        let note = name.strip_suffix(".json").filter(|file| names::id_of_store(file).is_some())?;
        let path = findings.directory.join(names::QUARANTINE).join(name);
        let file = disk.open(&path, OpenMode::Read).ok()?;
        let mut text = vec![0; MOST_NOTE_BYTES];
        let length = disk::read_up_to(file.as_ref(), &mut text, 0).ok()?;
        let told: Note = serde_json::from_slice(text.get(..length)?).ok()?;
        let what = format!("{note} was moved to quarantine/: {}", output::escaped(told.why.as_bytes()));
        Some(LastRecovery { millis: told.moved_millis, what })
    });
    copies.chain(moved).max_by_key(|recovery| recovery.millis)
}

/// A note beside a file in quarantine is a line.
const MOST_NOTE_BYTES: usize = 4096;

#[derive(serde::Deserialize)]
struct Note {
    why: String,
    moved_millis: u64,
}

fn show(json: &Json, output: &mut Output) -> io::Result<()> {
    let mut field = |name: &str, value: String| output.line(format_args!("{name:<11} {value}"));
    let end = match json.end {
        "clean" => styled(GOOD, "closed cleanly"),
        "open" => {
            let pid = json.in_use_by.as_ref().and_then(|holder| holder.pid);
            let by = pid.map_or(String::new(), |pid| format!(" by process {pid}"));
            styled(STRONG, format!("open for writing{by}: as of one moment"))
        }
        _ => styled(ODD, "ended without a close"),
    };
    field("log", json.uuid.clone())?;
    field("begun", json.created.clone())?;
    field("end", end)?;
    let offsets = format!("{}..{}", json.offsets.start, json.offsets.end);
    field("offsets", format!("{offsets} ({})", output::count(json.records, "record")))?;
    let beyond = json.valid_end.saturating_sub(json.proven_end);
    let beyond = match beyond {
        0 => String::new(),
        more => format!("; {} behind it, whole, not proven acknowledged", output::count(more, "record")),
    };
    field("durable", format!("proven to {} ({}){beyond}", json.proven_end, json.proof))?;
    let bytes = &json.bytes;
    field(
        "bytes",
        format!(
            "payload at most {}, headers {}; on disk: stores {} (reserved space included), indexes {}, manifest {}",
            output::bytes(bytes.payload_at_most),
            output::bytes(bytes.headers),
            output::bytes(bytes.stores),
            output::bytes(bytes.indexes),
            output::bytes(bytes.manifest)
        ),
    )?;
    field(
        "overhead",
        format!(
            "at least {}.{} % of what is used; {} more are reserved ahead, or lie behind a seal",
            bytes.overhead_permille / 10,
            bytes.overhead_permille % 10,
            output::bytes(bytes.reserved)
        ),
    )?;
    let written = &json.written;
    let from = written.first_millis.map(output::time);
    let to = written.last_sealed_millis.map(output::time);
    let since =
        written.unsealed_since_millis.map(|millis| format!("unsealed since {}", output::time(millis)));
    let sealed = from.zip(to).map(|(from, to)| format!("{from} to {to}"));
    let told: Vec<String> = sealed.into_iter().chain(since).collect();
    if !told.is_empty() {
        field("written", told.join(", "))?;
    }
    let recovered = json.last_recovery.as_ref();
    let recovered = recovered.map(|last| format!("{}: {}", output::time(last.millis), last.what));
    field("recovered", recovered.unwrap_or("nothing here tells of a recovery".to_string()))?;
    let manifest = &json.manifest;
    let edits = output::count(u64::from(manifest.edits), "edit");
    field(
        "manifest",
        format!("generation {}, {edits}, last id {:x}", manifest.generation, manifest.last_id),
    )?;
    for range in &json.damaged {
        field("damaged", styled(BAD, output::records(&(range.start..range.end))))?;
    }
    if json.found_damaged > 0 {
        let damages = output::count(json.found_damaged as u64, "damage");
        field("damaged", styled(BAD, format!("{damages} found: run log-repair check {}", json.directory)))?;
    }
    for range in &json.lost {
        field("lost", styled(ODD, output::records(&(range.start..range.end))))?;
    }
    for meta in &json.meta {
        field("meta", format!("{} ({} bytes)", output::escaped(meta.key.as_bytes()), meta.bytes))?;
    }
    for name in &json.quarantine {
        field("quarantine", output::escaped(name.as_bytes()))?;
    }
    for name in &json.unnamed {
        field("unnamed", name.clone())?;
    }
    if json.segments.is_empty() {
        return Ok(());
    }
    let mut columns = Columns::default();
    columns.row(
        ["SEGMENT", "STATE", "ORIGIN", "OFFSETS", "RECORDS", "FRAMES", "FILE", "WRITTEN"].map(String::from),
    );
    for segment in &json.segments {
        let dash = || "-".to_string();
        let written = match (segment.first_millis, segment.last_millis, segment.created_millis) {
            (Some(first), Some(last), _) if first != last => {
                format!("{} to {}", output::time(first), output::time(last))
            }
            (Some(first), ..) => output::time(first),
            (None, _, Some(created)) => format!("from {}", output::time(created)),
            _ => dash(),
        };
        columns.row([
            format!("{:x}", segment.id),
            segment.state.to_string(),
            segment.origin.to_string(),
            segment.offsets.map_or_else(dash, |offsets| format!("{}..{}", offsets.start, offsets.end)),
            segment.offsets.map_or_else(dash, |offsets| (offsets.end - offsets.start).to_string()),
            output::bytes(segment.frame_bytes),
            segment.file_bytes.map_or_else(dash, output::bytes),
            written,
        ]);
    }
    output.line("")?;
    for (number, line) in columns.lines().into_iter().enumerate() {
        if number == 0 { output.line(styled(STRONG, line))? } else { output.line(line)? }
    }
    Ok(())
}

#[derive(Serialize)]
struct Json {
    schema_version: u32,
    verb: &'static str,
    directory: String,
    uuid: String,
    created_millis: u64,
    created: String,
    end: &'static str,
    in_use_by: Option<InUseBy>,
    offsets: Span,
    records: u64,
    proven_end: u64,
    valid_end: u64,
    proof: String,
    damaged: Vec<Span>,
    found_damaged: usize,
    lost: Vec<Span>,
    manifest: Manifest,
    bytes: Bytes,
    written: Written,
    last_recovery: Option<LastRecovery>,
    meta: Vec<Meta>,
    quarantine: Vec<String>,
    unnamed: Vec<String>,
    segments: Vec<Segment>,
}

#[derive(Serialize)]
struct InUseBy {
    pid: Option<u32>,
}

#[derive(Serialize)]
struct Manifest {
    generation: u64,
    edits: u32,
    bytes: u64,
    last_id: u64,
}

#[derive(Serialize)]
struct Bytes {
    payload_at_most: u64,
    headers: u64,
    frames: u64,
    stores: u64,
    indexes: u64,
    manifest: u64,
    reserved: u64,
    overhead_permille: u64,
}

/// When the records were written, as far as that is known without reading them.
#[derive(Serialize)]
struct Written {
    first_millis: Option<u64>,
    last_sealed_millis: Option<u64>,
    unsealed_since_millis: Option<u64>,
}

#[derive(Serialize)]
struct LastRecovery {
    millis: u64,
    what: String,
}

#[derive(Serialize)]
struct Meta {
    key: String,
    bytes: usize,
}

#[derive(Serialize)]
struct Segment {
    id: u64,
    file: String,
    state: &'static str,
    origin: &'static str,
    offsets: Option<Span>,
    frame_bytes: u64,
    file_bytes: Option<u64>,
    created_millis: Option<u64>,
    first_millis: Option<u64>,
    last_millis: Option<u64>,
}
