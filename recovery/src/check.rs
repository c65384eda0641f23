//! `check`: reads every byte of a log, and says all that is not what was written.
//!
//! It owns what is read and when, and how the result is shown. The look itself is
//! `stonelog::recovery::inspect`, the findings are [`lister`]'s. Invariants: it never stops at the
//! first finding; the exit code is 4 exactly where there is a damage.
//!
//! Why it looks twice: as deep as it goes, for the findings, and then as an opening would, to tell
//! what the next opening does. The second look costs nothing after a clean close, and where the log
//! is not closed it is also the test whether it held still: damage does, a write in flight does not.
//! What looks damaged in a log that moves counts only where the next look finds it again.

use std::io;
use std::ops::Range;
use std::path::Path;

use serde::Serialize;
use stonelog::disk::{Disk, OsDisk};
use stonelog::manifest::{OffsetRanges, Reading};
use stonelog::recovery::{Depth, Findings, SegmentFindings, inspect};
use stonelog::scan::Outcome;

use crate::alone;
use crate::finding::{self, Code, Finding, Severity};
use crate::lister::{self, Seen};
use crate::lock::{self, Holder};
use crate::looking::LookingDisk;
use crate::loose::LooseStore;
use crate::mending;
use crate::meter::Meter;
use crate::opening::Opening;
use crate::output::{self, BAD, FAINT, GOOD, ODD, Output, SCHEMA_VERSION, STRONG, Span, styled};
use crate::sure::Sure;
use crate::{Exit, Failure};

/// How often a log that moves is looked at, for damage that holds still.
const MOST_LOOKS: usize = 8;

/// Reads every byte of a log and reports all that is not what was written.
///
/// Nothing is changed, no lock is taken, no file is made. A log that is in use is checked all the
/// same; the result is then advisory.
#[derive(Debug, clap::Args)]
#[command(after_help = codes_help(), after_long_help = codes_help())]
pub(crate) struct Arguments {
    #[command(flatten)]
    directory: crate::Directory,
    /// Writes one JSON document instead of text.
    #[arg(long)]
    json: bool,
    /// Shows no progress bar (none is shown anyway where stderr is not a terminal).
    #[arg(long)]
    no_progress: bool,
}

fn codes_help() -> String {
    let mut text = "Findings (E: damage, exit code 4; W: warning; N: note):\n".to_string();
    for code in Code::ALL {
        text += &format!("  {:<19} {}\n", code.text(), code.meaning());
    }
    text += "\n\
Each finding says how sure it is: certain (the evidence excludes all else that the format allows), likely \
(everything points to it; what else it could be is named), possible (look again before acting on it).\n\n";
    text + crate::EXIT_CODES
}

pub(crate) fn run(arguments: &Arguments, output: &mut Output) -> Result<Exit, Failure> {
    let report = look(&arguments.directory.path, !arguments.no_progress && !output.is_quiet())?;
    let damaged = report.worst() == Some(Severity::Damage);
    if arguments.json {
        output.document(&report.json())?;
    } else if !output.is_quiet() || damaged {
        report.show(output)?;
    }
    Ok(Exit::of(damaged))
}

/// All that a check found out.
pub(crate) struct Report {
    pub(crate) findings: Findings,
    pub(crate) opening: Opening,
    holder: Option<Holder>,
    changed: bool,
    pub(crate) list: Vec<Finding>,
    pub(crate) lost: OffsetRanges,
    pub(crate) records: u64,
    bytes_read: u64,
    pub(crate) loose: Vec<LooseStore>,
}

/// Looks at everything.
pub(crate) fn look(directory: &Path, progress: bool) -> Result<Report, Failure> {
    mending::refuse_unfinished(&LookingDisk::default(), directory)?;
    let meter = Meter::of_directory(directory, 1, progress);
    let disk = meter.looking();
    let holder = lock::holder(&OsDisk, directory);
    let mut before: Vec<Finding> = Vec::new();
    let mut looks = 0;
    let report = loop {
        looks += 1;
        meter.begin();
        let mut report = look_once(directory, &disk, holder)?;
        let damages = report.list.iter().filter(|finding| finding.is_damage());
        let moved: Vec<&Finding> =
            damages.clone().filter(|new| !before.iter().any(|old| old.is(new))).collect();
        if !report.changed || moved.is_empty() {
            break report;
        }
        if looks == MOST_LOOKS {
            // It never held still: what the next look does not find again was being written.
            report.list.retain(|finding| !finding.is_damage() || before.iter().any(|old| old.is(finding)));
            report.lost = finding::unreadable(&report.list);
            report.opening = Opening::Unknown;
            break report;
        }
        before = damages.cloned().collect();
    };
    meter.end();
    Ok(Report { bytes_read: disk.bytes_read(), ..report })
}

fn look_once(directory: &Path, disk: &LookingDisk, holder: Option<Holder>) -> Result<Report, Failure> {
    let findings = inspect(disk, directory, Depth::Everything)?;
    if !findings.listing.exists {
        let path = directory.display();
        return Err(Failure::Said(format!("there is no directory {path}: name the one that holds MANIFEST")));
    }
    if is_no_log(&findings) {
        return Err(Failure::Said(format!(
            "{0} holds no log: name the directory that holds MANIFEST. If it holds an image, or stores in other files, what \
             is in them can be put out: log-repair salvage {0} --carve --out DEST",
            directory.display()
        )));
    }
    let second = inspect(disk, directory, Depth::Opening)?;
    let changed = state_of(&findings) != state_of(&second);
    let opening = Opening::of(&second);
    let loose = match findings.manifest {
        Reading::Whole { .. } => Vec::new(),
        Reading::Absent | Reading::Damaged(_) => alone::look(disk, &findings),
    };
    let seen = Seen { findings: &findings, loose: &loose, opening: &opening, holder, changed };
    let list = lister::list(&seen);
    let lost = finding::unreadable(&list);
    let records =
        intact(&findings).saturating_add(loose.iter().filter_map(|l| l.scan.as_ref()).map(in_runs).sum());
    Ok(Report { opening, holder, changed, list, lost, records, bytes_read: 0, loose, findings })
}

/// What must be the same in two looks at a log that holds still. (After a clean close the depths
/// differ in what they scan, so there only the manifest is compared.)
#[derive(PartialEq, Eq)]
enum State {
    NoManifest(usize),
    Closed(u64, u64),
    Open(u64, u64, Option<(u64, u64)>, usize, Vec<u64>),
}

fn state_of(findings: &Findings) -> State {
    let stores = findings.listing.stores.len();
    match &findings.manifest {
        Reading::Whole { generation, length, state, .. } if state.closed.is_some() => {
            State::Closed(*generation, *length)
        }
        Reading::Whole { generation, length, .. } => {
            let ends = findings.assessment.as_ref().map(|a| (a.valid_end, a.proven_end));
            // (What looks like a lost edit may be one that was written since the MANIFEST was read.)
            let unnamed = findings.unnamed.iter().filter(|store| store.has_frames).map(|store| store.id);
            State::Open(*generation, *length, ends, stores, unnamed.collect())
        }
        Reading::Absent | Reading::Damaged(_) => State::NoManifest(stores),
    }
}

/// Whether nothing in the directory ever was Stonelog's.
fn is_no_log(findings: &Findings) -> bool {
    let listing = &findings.listing;
    let lock = OsDisk.exists(&findings.directory.join(stonelog::names::LOCK)).unwrap_or(false);
    matches!(findings.manifest, Reading::Absent)
        && listing.stores.is_empty()
        && listing.indexes.is_empty()
        && listing.temporary.is_empty()
        && listing.quarantined.is_empty()
        && !lock
}

/// Intact records that are part of the log.
fn intact(findings: &Findings) -> u64 {
    let (Reading::Whole { state, .. }, Some(assessment)) = (&findings.manifest, &findings.assessment) else {
        return 0;
    };
    let end = assessment.valid_end.max(assessment.proven_end);
    let mut records = 0u64;
    for segment in &findings.segments {
        let (Some(scan), Some(base)) = (&segment.scan, segment.base) else { continue };
        let limit = segment.state.seal.map_or(end, |seal| seal.next_offset);
        for run in &scan.runs {
            let offsets = base.saturating_add(u64::from(run.ordinals.start)).max(state.front)
                ..base.saturating_add(u64::from(run.ordinals.end)).min(limit);
            records += offsets.end.saturating_sub(offsets.start);
        }
    }
    records
}

fn in_runs(outcome: &Outcome) -> u64 {
    outcome.runs.iter().map(|run| u64::from(run.ordinals.end - run.ordinals.start)).sum()
}

impl Report {
    pub(crate) fn worst(&self) -> Option<Severity> {
        self.list.first().map(|finding| finding.code.severity())
    }

    fn has(&self, code: Code) -> bool {
        self.list.iter().any(|finding| finding.code == code)
    }

    fn count(&self, severity: Severity) -> usize {
        self.list.iter().filter(|finding| finding.code.severity() == severity).count()
    }

    pub(crate) fn is_advisory(&self) -> bool {
        self.holder.is_some() || self.changed
    }

    /// One word.
    pub(crate) fn verdict(&self) -> &'static str {
        if self.worst() == Some(Severity::Damage) {
            "damaged"
        } else if self.has(Code::TailTorn) {
            "torn"
        } else if self.has(Code::Unfinished) {
            "empty"
        } else {
            "clean"
        }
    }

    /// The first line.
    pub(crate) fn headline(&self) -> String {
        let lost: u64 = self.lost.iter().map(|range| range.end - range.start).sum();
        let line = match (self.verdict(), lost) {
            ("damaged", 0) if self.has(Code::Manifest) || self.has(Code::ManifestMissing) => {
                "DAMAGED: without its MANIFEST no record of the log can be served".to_string()
            }
            ("damaged", 0) if self.has(Code::ManifestEdit) => {
                "DAMAGED: the MANIFEST lost an edit, and the log cannot be opened".to_string()
            }
            ("damaged", 0) if !self.loss_is_known() => {
                "DAMAGED: a store is gone, and nobody can tell how many records went with it, if any"
                    .to_string()
            }
            ("damaged", 0) => "DAMAGED: not what was written, though every record can be read".to_string(),
            ("damaged", _) => {
                let records = output::count(lost, "record");
                format!("DAMAGED: {records} cannot be read ({})", offsets(&self.lost))
            }
            ("torn", _) => "torn tail: nothing acknowledged is missing".to_string(),
            ("empty", _) => "no log yet: its beginning was never finished".to_string(),
            _ if self.count(Severity::Warning) > 0 => {
                format!("clean, with {}", output::count(self.count(Severity::Warning) as u64, "warning"))
            }
            _ => "clean".to_string(),
        };
        if self.is_advisory() { format!("{line} (advisory: in use)") } else { line }
    }

    /// Whether the records that are gone can be told from those that never were: not where an
    /// unsealed store is gone, or nothing of it is left, and no Close says where the log ended.
    fn loss_is_known(&self) -> bool {
        let (Reading::Whole { state, .. }, Some(assessment)) =
            (&self.findings.manifest, &self.findings.assessment)
        else {
            return true;
        };
        let gone = |segment: &SegmentFindings| {
            segment.scan.as_ref().is_none_or(|scan| scan.runs.is_empty())
                && self.list.iter().any(|finding| {
                    let whole = matches!(finding.code, Code::Head | Code::Unreadable | Code::SegmentMissing);
                    whole && finding.segment == Some(segment.id) && finding.offsets.is_none()
                })
        };
        let unsealed = self.findings.segments.iter().filter(|segment| segment.state.seal.is_none());
        state.closed.is_some() || (assessment.loss_is_bounded && !unsealed.into_iter().any(gone))
    }

    fn show(&self, output: &mut Output) -> io::Result<()> {
        let style = match self.worst() {
            Some(Severity::Damage) => BAD,
            Some(Severity::Warning) => ODD,
            _ => GOOD,
        };
        output.line(styled(style, self.headline()))?;
        let mut last_next = "";
        for finding in &self.list {
            output.line("")?;
            show_finding(output, finding, last_next)?;
            last_next = &finding.next;
        }
        output.line("")?;
        if self.worst() == Some(Severity::Damage) {
            let opening = self.opening.describe();
            output.line(format_args!("{}.", output::capital(&opening)))?;
            if matches!(self.opening, Opening::Opens(_)) {
                // The default policy refuses damage that it sees: this it does not see.
                output.line(
                    "It does not notice: it trusts a Seal and a Close, and reads no frame they vouch for.",
                )?;
            }
        }
        let summary = format!(
            "checked {}, {}, {} read: {}, {}, {}",
            output::count((self.findings.segments.len() + self.loose.len()) as u64, "segment"),
            output::count(self.records, "intact record"),
            output::bytes(self.bytes_read),
            output::count(self.count(Severity::Damage) as u64, "damage"),
            output::count(self.count(Severity::Warning) as u64, "warning"),
            output::count(self.count(Severity::Note) as u64, "note"),
        );
        output.line(styled(FAINT, summary))
    }

    fn json(&self) -> Json<'_> {
        Json {
            schema_version: SCHEMA_VERSION,
            verb: "check",
            directory: self.findings.directory.display().to_string(),
            verdict: self.verdict(),
            headline: self.headline(),
            advisory: self.is_advisory(),
            in_use_by: self.holder.map(|holder| InUseBy { pid: holder.pid }),
            exit_code: Exit::of(self.worst() == Some(Severity::Damage)).code(),
            next_opening: self.opening.word(),
            unreadable: self.lost.iter().map(|range| Span::from(&range)).collect(),
            findings: self.list.iter().map(|finding| self.json_finding(finding)).collect(),
            summary: Summary {
                segments: self.findings.segments.len() + self.loose.len(),
                records_intact: self.records,
                records_unreadable: self.lost.iter().map(|range| range.end - range.start).sum(),
                bytes_read: self.bytes_read,
                damages: self.count(Severity::Damage),
                warnings: self.count(Severity::Warning),
                notes: self.count(Severity::Note),
            },
        }
    }

    pub(crate) fn json_finding<'a>(&self, finding: &'a Finding) -> JsonFinding<'a> {
        json_finding(&self.findings.directory, finding)
    }
}

/// A finding as JSON has it.
pub(crate) fn json_finding<'a>(directory: &Path, finding: &'a Finding) -> JsonFinding<'a> {
    JsonFinding {
        code: finding.code.text(),
        severity: finding.code.severity(),
        file: finding::path(directory, finding).map(|path| path.display().to_string()),
        segment: finding.segment,
        position: finding.position,
        position_end: finding.position_end,
        offsets: finding.offsets.as_ref().map(Span::from),
        what: &finding.what,
        sure: finding.sure,
        because: finding.because,
        proof: finding.proof.as_deref(),
        next: &finding.next,
    }
}

/// Offsets in words, the first few of them.
fn offsets(ranges: &OffsetRanges) -> String {
    const MOST: usize = 5;
    let word = |range: Range<u64>| match range.end - range.start {
        1 => range.start.to_string(),
        _ => format!("{}..{}", range.start, range.end),
    };
    let mut words: Vec<String> = ranges.iter().take(MOST).map(word).collect();
    words.extend((ranges.iter().count() > MOST).then(|| "...".to_string()));
    let one = words.len() == 1 && ranges.iter().all(|range| range.end - range.start == 1);
    format!("{} {}", if one { "offset" } else { "offsets" }, words.join(", "))
}

fn show_finding(output: &mut Output, finding: &Finding, last_next: &str) -> io::Result<()> {
    let style = match finding.code.severity() {
        Severity::Damage => BAD,
        Severity::Warning => ODD,
        Severity::Note => STRONG,
    };
    let mut place: Vec<String> = Vec::new();
    place.extend(finding.file.clone());
    place.extend(finding.offsets.as_ref().map(|offsets: &Range<u64>| output::records(offsets)));
    place.extend(match (finding.position, finding.position_end) {
        (Some(start), Some(end)) => Some(format!("bytes {start}..{end}")),
        (Some(start), None) => Some(format!("byte {start}")),
        (None, _) => None,
    });
    output.line(format!("{}  {}", styled(style, finding.code.text()), place.join(", ")).trim_end())?;
    output.line(format_args!("  what   {}", finding.what))?;
    output.line(format_args!("  sure   {}: {}", finding.sure.word(), finding.because))?;
    if let Some(proof) = &finding.proof {
        output.line(format_args!("  proof  {proof}"))?;
    }
    // Said once for many of a kind: a thousand damaged records need one copy of the directory.
    let next = if finding.next == last_next { "as above" } else { &finding.next };
    output.line(format_args!("  next   {next}"))
}

#[derive(Serialize)]
struct Json<'a> {
    schema_version: u32,
    verb: &'static str,
    directory: String,
    verdict: &'static str,
    headline: String,
    advisory: bool,
    in_use_by: Option<InUseBy>,
    exit_code: u8,
    next_opening: &'static str,
    unreadable: Vec<Span>,
    findings: Vec<JsonFinding<'a>>,
    summary: Summary,
}

#[derive(Serialize)]
struct InUseBy {
    pid: Option<u32>,
}

#[derive(Serialize)]
pub(crate) struct JsonFinding<'a> {
    code: &'static str,
    severity: Severity,
    file: Option<String>,
    segment: Option<u64>,
    position: Option<u64>,
    position_end: Option<u64>,
    offsets: Option<Span>,
    what: &'a str,
    sure: Sure,
    because: &'static str,
    proof: Option<&'a str>,
    next: &'a str,
}

#[derive(Serialize)]
struct Summary {
    segments: usize,
    records_intact: u64,
    records_unreadable: u64,
    bytes_read: u64,
    damages: usize,
    warnings: usize,
    notes: usize,
}
