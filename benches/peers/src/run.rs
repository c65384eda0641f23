//! The parent: starts a process for each phase of each measurement, and keeps what it says.
//!
//! Within a workload the rounds are interleaved, A B C A B C, so that a machine that slows down slows all alike.
//! Before each measurement the file system is synced; each has a fresh directory, removed afterwards. A failure is kept
//! in its cell, and the run goes on.

use std::collections::BTreeMap;
use std::io::{Read, Seek};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use wait_timeout::ChildExt;

use crate::audit::{self, Audit};
use crate::machine::Machine;
use crate::payload::Expected;
use crate::report::{About, Cell, Failure, Report};
use crate::subject::Kind;
use crate::subjects;
use crate::workloads::{self, Outcome, Preparation, Workload};

/// How a child says that the peer has no such thing.
pub const EXIT_UNSUPPORTED: i32 = 3;

/// What to run.
pub struct Settings {
    pub command: String,
    pub quick: bool,
    pub only: Vec<String>,
    pub subjects: Vec<String>,
    pub rounds: usize,
    /// Where the measured directories are made.
    pub directory: PathBuf,
    /// How long one process may take.
    pub patience: Duration,
}

/// Whose turn it is.
struct Turn {
    subject: String,
    is_limit: bool,
    directory: PathBuf,
    /// What its preparation said, once it had one.
    prepared: Option<Outcome>,
    cell: Cell,
}

struct Runner<'a> {
    settings: &'a Settings,
    base: &'a Path,
    progress: ProgressBar,
    /// How long each preparation took.
    preparations: BTreeMap<(String, String), f64>,
}

/// Runs everything that was asked for.
pub fn run(settings: &Settings) -> Result<Report> {
    std::fs::create_dir_all(&settings.directory)?;
    let base = tempfile::Builder::new().prefix("peers-").tempdir_in(&settings.directory)?;
    let kinds = chosen_subjects(&settings.subjects)?;
    let workloads = chosen_workloads(settings)?;
    let subjects = audits(&kinds, base.path())?;
    let style = ProgressStyle::with_template("{elapsed_precise} {bar:30} {pos}/{len} {msg}")?;
    let turns = |workload: &dyn Workload| {
        (workload.rounds(settings.rounds) * (kinds.len() + workload.limits().len())) as u64
    };
    let progress =
        ProgressBar::new(workloads.iter().map(|workload| turns(&**workload)).sum()).with_style(style);
    let mut runner = Runner { settings, base: base.path(), progress, preparations: BTreeMap::new() };
    let mut cells = Vec::new();
    for workload in &workloads {
        // Where no one watches a bar, a line a workload is enough.
        if runner.progress.is_hidden() {
            eprintln!("{}", workload.name());
        }
        cells.extend(runner.workload(&**workload, &kinds)?);
    }
    runner.progress.finish_and_clear();
    Ok(Report {
        command: settings.command.clone(),
        machine: Machine::of(base.path())?,
        quick: settings.quick,
        rounds: settings.rounds,
        subjects,
        cells,
    })
}

/// The subjects of these names, or all.
pub fn chosen_subjects(names: &[String]) -> Result<Vec<&'static dyn Kind>> {
    let all = subjects::all();
    for name in names {
        let known: Vec<_> = all.iter().map(|kind| kind.name()).collect();
        ensure!(
            known.contains(&name.as_str()),
            "no subject is called {name}; there are: {}",
            known.join(", ")
        );
    }
    Ok(all
        .into_iter()
        .filter(|kind| names.is_empty() || names.iter().any(|name| name == kind.name()))
        .collect())
}

/// The workloads that are called so or, where none is, whose names begin so; or all.
fn chosen_workloads(settings: &Settings) -> Result<Vec<Box<dyn Workload>>> {
    let all = workloads::all();
    let names: Vec<_> = all.iter().map(|workload| workload.name().to_string()).collect();
    for only in &settings.only {
        let known = names.iter().any(|name| name.starts_with(only));
        ensure!(known, "no workload begins with {only}; there are: {}", names.join(", "));
    }
    let is_meant = |only: &String, name: &str| {
        if names.contains(only) { name == only } else { name.starts_with(only.as_str()) }
    };
    let is_chosen = |workload: &dyn Workload| match settings.only.as_slice() {
        [] => workload.is_quick() || !settings.quick,
        only => only.iter().any(|only| is_meant(only, workload.name())),
    };
    Ok(all.into_iter().filter(|workload| is_chosen(&**workload)).collect())
}

/// Audits each of them.
pub fn audits(kinds: &[&'static dyn Kind], base: &Path) -> Result<Vec<About>> {
    let mut abouts = Vec::new();
    for kind in kinds {
        let directory = base.join(format!("audit-{}", kind.name()));
        std::fs::create_dir_all(&directory)?;
        let audit = audit::trace(kind.name(), &directory)
            .unwrap_or_else(|error| Audit::NotAudited(format!("{error:#}")));
        std::fs::remove_dir_all(&directory)?;
        abouts.push(About {
            name: kind.name().to_string(),
            claims: kind.claims().to_string(),
            verifies_reads: kind.verifies_reads(),
            audit,
        });
    }
    Ok(abouts)
}

impl Runner<'_> {
    fn workload(&mut self, workload: &dyn Workload, kinds: &[&'static dyn Kind]) -> Result<Vec<Cell>> {
        let names = kinds.iter().map(|kind| (kind.name().to_string(), false));
        let limits = workload.limits().into_iter().map(|limit| (limit.name().to_string(), true));
        let mut turns: Vec<Turn> =
            names.chain(limits).map(|(name, is_limit)| self.turn(workload, name, is_limit)).collect();
        let rounds = workload.rounds(self.settings.rounds);
        match workload.preparation() {
            Preparation::OnceAlone => {
                for turn in &mut turns {
                    for _ in 0..rounds {
                        self.round(workload, turn)?;
                    }
                    remove(turn)?;
                }
            }
            preparation => {
                for _ in 0..rounds {
                    for turn in &mut turns {
                        self.round(workload, turn)?;
                        if preparation != Preparation::Once {
                            remove(turn)?;
                        }
                    }
                }
                turns.iter_mut().try_for_each(remove)?;
            }
        }
        Ok(turns.into_iter().map(|turn| turn.cell).collect())
    }

    fn turn(&self, workload: &dyn Workload, subject: String, is_limit: bool) -> Turn {
        let plain: String =
            subject.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
        Turn {
            directory: self.base.join(format!("{}-{plain}", workload.name())),
            prepared: None,
            cell: Cell {
                workload: workload.name().to_string(),
                subject: subject.clone(),
                is_limit,
                rounds: Vec::new(),
                failure: None,
            },
            subject,
            is_limit,
        }
    }

    /// One round of one subject: prepared if it is not yet, measured, verified. A cell that failed stays as it is.
    fn round(&mut self, workload: &dyn Workload, turn: &mut Turn) -> Result<()> {
        let round = turn.cell.rounds.len() + 1;
        self.progress.set_message(format!("{} {} round {round}", workload.name(), turn.subject));
        if turn.cell.failure.is_none() {
            std::fs::create_dir_all(&turn.directory)?;
            match self.steps(workload, turn) {
                Ok(outcome) => turn.cell.rounds.push(outcome.metrics),
                Err(failure) => turn.cell.failure = Some(failure),
            }
            if turn.cell.failure.is_some() {
                remove(turn)?;
            }
        }
        self.progress.inc(1);
        Ok(())
    }

    fn steps(&mut self, workload: &dyn Workload, turn: &mut Turn) -> Result<Outcome, Failure> {
        if workload.preparation() != Preparation::Nothing && turn.prepared.is_none() {
            turn.prepared = Some(self.prepare(workload, turn)?);
        }
        let (metrics, expected) = match &turn.prepared {
            Some(prepared) => (prepared.metrics.clone(), prepared.expected.clone()),
            None => Default::default(),
        };
        self.settle()?;
        let mut outcome = self.child("measure", workload, turn, expected.as_ref())?;
        if !turn.is_limit {
            let verified = self.child("verify", workload, turn, outcome.expected.as_ref());
            let verified = verified.map_err(|failure| match failure {
                Failure::Failed(why) => Failure::Failed(format!("verification: {why}")),
                other => other,
            })?;
            outcome.metrics.extend(verified.metrics);
        }
        outcome.metrics.extend(metrics);
        Ok(outcome)
    }

    fn prepare(&mut self, workload: &dyn Workload, turn: &Turn) -> Result<Outcome, Failure> {
        if let Some((smaller, factor)) = workload.grows_from()
            && let Some(seconds) = self.preparations.get(&(smaller, turn.subject.clone()))
            && seconds * factor > self.settings.patience.as_secs_f64()
        {
            return Err(Failure::TimedOut { seconds: self.settings.patience.as_secs_f64() });
        }
        let start = Instant::now();
        let prepared = self.child("prepare", workload, turn, None);
        // A preparation that failed took longer than anyone waits.
        let seconds = if prepared.is_ok() { start.elapsed().as_secs_f64() } else { f64::INFINITY };
        self.preparations.insert((workload.name().to_string(), turn.subject.clone()), seconds);
        prepared
    }

    /// Lets the file system come to rest: what others left dirty is not for the next to pay.
    fn settle(&self) -> Result<(), Failure> {
        let synced = std::fs::File::open(self.base).and_then(|file| Ok(rustix::fs::syncfs(file)?));
        synced.map_err(|error| Failure::Failed(format!("syncfs: {error}")))
    }

    fn child(
        &self,
        phase: &str,
        workload: &dyn Workload,
        turn: &Turn,
        expected: Option<&Expected>,
    ) -> Result<Outcome, Failure> {
        let mut arguments =
            vec!["one", "--phase", phase, "--workload", workload.name(), "--subject", &turn.subject];
        if self.settings.quick {
            arguments.push("--quick");
        }
        let expected =
            expected.map(serde_json::to_string).transpose().map_err(|error| failed(error.into()))?;
        if let Some(expected) = &expected {
            arguments.extend(["--expected", expected]);
        }
        start(&arguments, &turn.directory, self.settings.patience).unwrap_or_else(|error| Err(failed(error)))
    }
}

fn failed(error: anyhow::Error) -> Failure {
    Failure::Failed(format!("{error:#}"))
}

/// Starts this program again with these arguments and waits for its outcome.
fn start(arguments: &[&str], directory: &Path, patience: Duration) -> Result<Result<Outcome, Failure>> {
    let mut complaints = tempfile::tempfile()?;
    let mut child = Command::new(std::env::current_exe()?)
        .args(arguments)
        .arg("--directory")
        .arg(directory)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(complaints.try_clone()?)
        .spawn()
        .context("starting a measurement")?;
    let Some(status) = child.wait_timeout(patience)? else {
        child.kill()?;
        child.wait()?;
        return Ok(Err(Failure::TimedOut { seconds: patience.as_secs_f64() }));
    };
    if status.code() == Some(EXIT_UNSUPPORTED) {
        return Ok(Err(Failure::Unsupported));
    }
    let mut said = String::new();
    child.stdout.take().context("a child without an output")?.read_to_string(&mut said)?;
    // Whoever kills itself has said all before.
    let outcome = said.lines().last().and_then(|line| serde_json::from_str(line).ok());
    match outcome {
        Some(outcome) if status.success() || status.code().is_none() => Ok(Ok(outcome)),
        _ => {
            let mut why = String::new();
            complaints.rewind()?;
            complaints.read_to_string(&mut why)?;
            let why = why.trim();
            Ok(Err(Failure::Failed(if why.is_empty() { status.to_string() } else { why.to_string() })))
        }
    }
}

fn remove(turn: &mut Turn) -> Result<()> {
    turn.prepared = None;
    match std::fs::remove_dir_all(&turn.directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}
