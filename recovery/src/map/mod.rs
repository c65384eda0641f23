//! `map`: a picture of the log, in the terminal or as one page for a browser.
//!
//! It owns the command and its JSON document. What is wrong is `check`'s word ([`check::look`]); which
//! byte is in which state is [`picture`]'s; [`terminal`] and [`page`] draw. Invariants: the exit code
//! and the headline are those of `check`; nothing is written but the page that was asked for, and that
//! never into the log's directory.

mod aside;
mod page;
mod picture;
mod terminal;

use std::io::Write;
use std::path::{Path, PathBuf};

use serde::Serialize;
use stonelog::disk::{self, Disk, OpenMode, OsDisk};
use stonelog::manifest::{self, Reading};

use self::aside::Aside;
use self::page::PlannedAction;
use self::picture::{Bar, State};
use crate::check::{self, JsonFinding, Report};
use crate::finding::Severity;
use crate::looking::LookingDisk;
use crate::mending::ActionDocument;
use crate::output::{self, Output, SCHEMA_VERSION, Span};
use crate::{Exit, Failure};

const EXAMPLES: &str = "\
Examples:
  log-repair map DIR
  log-repair map DIR --all | less
  log-repair map DIR --html map.html     then open it in any browser: no network is needed

Each segment is one bar, all to one scale; each cell shows the worst of the bytes it stands for.
The exit code is that of check: 4 where there is damage.";

/// Draws the log: each segment one bar, coloured by what its bytes are.
///
/// Reads every byte, as `check` does, and changes nothing. A program may have the log open.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    #[command(flatten)]
    directory: crate::Directory,
    /// Writes one self-contained page instead (to stdout for -): the same map, zoomable down to the
    /// frame, with the findings beside it.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["json", "all", "width", "ascii"])]
    html: Option<PathBuf>,
    /// Shows every segment; otherwise runs of clean ones are folded where there are many.
    #[arg(long)]
    all: bool,
    /// How wide, in characters; otherwise the terminal's width, or 100.
    #[arg(long, value_name = "COLUMNS", value_parser = clap::value_parser!(u16).range(40..=1000))]
    width: Option<u16>,
    /// Draws with ASCII alone.
    #[arg(long)]
    ascii: bool,
    /// Writes one JSON document instead of text; it holds every segment.
    #[arg(long)]
    json: bool,
    /// Shows no progress bar (none is shown anyway where stderr is not a terminal).
    #[arg(long)]
    no_progress: bool,
}

pub(crate) fn run(arguments: &Arguments, output: &mut Output) -> Result<Exit, Failure> {
    let directory = &arguments.directory.path;
    let stdout = arguments.html.as_deref() == Some(Path::new("-"));
    if let Some(file) = arguments.html.as_ref().filter(|_| !stdout) {
        refuse_inside(directory, file)?;
    }
    let report = check::look(directory, !arguments.no_progress && !output.is_quiet())?;
    let disk = LookingDisk::default();
    let aside = Aside::of(&disk, &report.findings);
    let bars = picture::bars(&report, &aside);
    let map = Map { report: &report, bars: &bars };
    let exit = Exit::of(report.worst() == Some(Severity::Damage));
    let says_nothing = output.is_quiet() && exit == Exit::Clean;
    if let Some(file) = &arguments.html {
        let page = page::render(&map, &disk, &planned(&disk, directory));
        if stdout {
            let mut raw = output.raw()?;
            raw.write_all(page.as_bytes())?;
            raw.flush()?;
            return Ok(exit);
        }
        save(file, page.as_bytes())?;
        if says_nothing {
            return Ok(exit);
        }
        output.line(report.headline())?;
        let bytes = output::bytes(page.len() as u64);
        output.line(format_args!("the map is in {} ({bytes}): open it in a browser", file.display()))?;
    } else if arguments.json {
        output.document(&map.json(exit))?;
    } else if !says_nothing {
        let width = match arguments.width {
            Some(width) => usize::from(width),
            None => output.width().unwrap_or(100),
        };
        terminal::draw(&map, &terminal::Style { width, all: arguments.all, ascii: arguments.ascii }, output)?;
    }
    Ok(exit)
}

/// What a repair would do; nothing where there is no log to plan for, which the findings say.
fn planned(disk: &LookingDisk, directory: &Path) -> Vec<PlannedAction> {
    use stonelog::repair::{self, Action, Basis};
    let plan =
        repair::survey(disk, directory, Basis::Manifest).and_then(|survey| repair::plan(&survey, None));
    let Ok(plan) = plan else { return Vec::new() };
    let shown = plan.actions.iter().map(|action| {
        let document = ActionDocument::of(action);
        let (position, why) = match action {
            Action::Seal { length, .. } => (Some(*length), "its records end there"),
            Action::RewriteStore { .. } => (Some(0), "its frames are intact"),
            Action::DeclareLost { .. } => (None, "no intact frame carries them"),
            Action::RebuildManifest { .. } => (None, "the stores and what is left of it tell"),
            Action::Copy { .. } => (None, "they may be in the page cache alone"),
            Action::Drop { why, .. } | Action::TakeOut { why, .. } => (None, *why),
            Action::WriteIndex { .. } => (None, "an index is derived from its store"),
            Action::WriteManifest { .. } => (None, "it says all this"),
        };
        PlannedAction {
            what: document.what,
            why: why.to_string(),
            file: document.file,
            segment: document.segment,
            position,
            position_end: None,
            loses: match action {
                Action::DeclareLost { offsets, .. } => Some(output::Span::from(offsets)),
                _ => None,
            },
        }
    });
    shown.collect()
}

/// A page in the log's directory would be a stranger there, and could take a log file's name.
fn refuse_inside(directory: &Path, file: &Path) -> Result<(), Failure> {
    let parent = match file.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => Path::new("."),
    };
    if let (Ok(log), Ok(parent)) = (directory.canonicalize(), parent.canonicalize())
        && parent.starts_with(&log)
    {
        return Err(Failure::Usage(format!(
            "{} lies in the log's own directory: name a file elsewhere",
            file.display()
        )));
    }
    Ok(())
}

fn save(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let said = |error: std::io::Error| {
        Failure::Said(format!("writing {} failed: {error}. Name another file", path.display()))
    };
    let file = match OsDisk.open(path, OpenMode::CreateNew) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            OsDisk.open(path, OpenMode::ReadWrite).map_err(said)?
        }
        other => other.map_err(said)?,
    };
    file.set_length(0).map_err(said)?;
    disk::write_all_at(file.as_ref(), bytes, 0).map_err(said)
}

/// What is drawn.
struct Map<'a> {
    report: &'a Report,
    bars: &'a [Bar],
}

impl Map<'_> {
    /// The records of the log, where a manifest tells.
    fn offsets(&self) -> Option<Span> {
        let Reading::Whole { state, .. } = &self.report.findings.manifest else { return None };
        let assessment = self.report.findings.assessment.as_ref()?;
        let end = assessment.valid_end.max(assessment.proven_end).max(state.front);
        Some(Span { start: state.front, end })
    }

    /// How many bytes are in each state, of those that occur.
    fn totals(&self) -> Vec<Total> {
        let total = |state: State| {
            let spans = self.bars.iter().flat_map(|bar| &bar.spans).filter(|span| span.state == state);
            Total { state, bytes: spans.map(|span| span.end - span.start).fold(0, u64::saturating_add) }
        };
        State::ALL.into_iter().rev().map(total).filter(|total| total.bytes > 0).collect()
    }

    fn bytes(&self) -> u64 {
        self.bars.iter().filter_map(|bar| bar.file_bytes).fold(0, u64::saturating_add)
    }

    fn manifest(&self) -> JsonManifest {
        let bad = self.report.list.iter().any(|finding| {
            finding.code.severity() == Severity::Damage
                && finding.file.as_deref() == Some(manifest::FILE_NAME)
        });
        match &self.report.findings.manifest {
            Reading::Absent => JsonManifest { state: "missing", generation: None, edits: None, bytes: None },
            Reading::Damaged(_) => {
                JsonManifest { state: "damaged", generation: None, edits: None, bytes: None }
            }
            Reading::Whole { generation, edits, length, .. } => JsonManifest {
                state: if bad { "damaged" } else { "clean" },
                generation: Some(*generation),
                edits: Some(*edits),
                bytes: Some(*length),
            },
        }
    }

    fn json(&self, exit: Exit) -> Json<'_> {
        Json {
            schema_version: SCHEMA_VERSION,
            verb: "map",
            directory: self.report.findings.directory.display().to_string(),
            verdict: self.report.verdict(),
            headline: self.report.headline(),
            advisory: self.report.is_advisory(),
            exit_code: exit.code(),
            offsets: self.offsets(),
            records_intact: self.report.records,
            bytes: self.bytes(),
            manifest: self.manifest(),
            totals: self.totals(),
            segments: self.bars,
            findings: self.report.list.iter().map(|finding| self.report.json_finding(finding)).collect(),
        }
    }
}

#[derive(Serialize)]
struct Total {
    state: State,
    bytes: u64,
}

#[derive(Serialize)]
struct JsonManifest {
    state: &'static str,
    generation: Option<u64>,
    edits: Option<u32>,
    bytes: Option<u64>,
}

#[derive(Serialize)]
struct Json<'a> {
    schema_version: u32,
    verb: &'static str,
    directory: String,
    verdict: &'static str,
    headline: String,
    advisory: bool,
    exit_code: u8,
    offsets: Option<Span>,
    records_intact: u64,
    bytes: u64,
    manifest: JsonManifest,
    totals: Vec<Total>,
    segments: &'a [Bar],
    findings: Vec<JsonFinding<'a>>,
}
