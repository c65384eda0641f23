//! `plan`, `repair`, `rebuild` and `undo`: what a repair would do, doing it, and taking it back.
//!
//! It owns the order of talking: look, show the plan, and only with `--apply` take the lock, look again,
//! refuse a plan that is stale or a loss that nobody named, do it, and check the result. What is done is
//! the library's (`stonelog::repair`); nothing here moves a file.
//!
//! Invariants: without `--apply` nothing is changed, locked or made; a plan is shown before it is done;
//! the exit code is 0 where there is nothing to do, 1 where all was done, 4 where damage is left.
//!
//! Why the losses are named by offsets and not by a `--force`: a flag is typed out of habit, numbers are
//! copied from a plan that was read.

mod digest;
mod planned;
mod ranges;
mod undo;

use std::ops::Range;
use std::path::{Path, PathBuf};

use stonelog::disk::{Disk, OpenMode, OsDisk};
use stonelog::repair::{self, Basis, Done, Pending, Session, Survey};

use crate::lock;
use crate::meter::Meter;
use crate::output::{BAD, FAINT, GOOD, ODD, Output, styled};
use crate::{Exit, Failure};

pub(crate) use planned::ActionDocument;
use planned::{Outcome, Planned};
pub(crate) use ranges::OffsetRange;
pub(crate) use undo::{Arguments as UndoArguments, run as undo};

const EXAMPLES_PLAN: &str = "\
Examples:
  log-repair plan DIR                       what would be done, in words
  log-repair plan DIR --json > plan.json    the same, to be reviewed and applied
  log-repair repair DIR --apply plan.json   refused if a byte has changed since

Nothing is changed. The exit code is 0 where there is nothing to repair or only \
what the next opening does by itself, 4 where there is damage.";

const EXAMPLES_REPAIR: &str = "\
Examples:
  log-repair repair DIR                     shows the plan, changes nothing
  log-repair repair DIR --apply             does it, if that loses no record
  log-repair repair DIR --apply --accept-loss 120..125
                                            gives up these records, no others
  log-repair repair DIR --apply plan.json --accept-loss-from plan.json
                                            by a plan that was read and agreed to
  log-repair undo DIR --apply               takes it back, byte for byte

Files that are replaced or taken out are moved to DIR/repair/, never changed. A repair that was interrupted is \
finished by repair --apply. The exit code is 0 where there is nothing to repair, 1 where all of it was done, 4 \
where damage is left.";

const EXAMPLES_REBUILD: &str = "\
Examples:
  log-repair rebuild DIR                    shows the plan, changes nothing
  log-repair rebuild DIR --apply            does it, if that loses no record
  log-repair undo DIR --apply               takes it back, byte for byte

Files that are replaced or taken out are moved to DIR/repair/, never changed. What only a MANIFEST knew is not in \
the stores; the plan names it. The exit code is 0 where no record is lost, 1 where it was done, 4 where damage is left.";

/// What a plan is made of.
#[derive(Debug, clap::Args)]
pub(crate) struct Choices {
    #[command(flatten)]
    directory: crate::Directory,
    /// Acknowledged records that may be given up, exactly as the plan names them. A..B is A up to B - 1;
    /// may be given several times. Where a plan cannot tell where the log ended, B says it: no reader ever
    /// saw a record at B or above.
    #[arg(long, value_name = "A..B")]
    accept_loss: Vec<OffsetRange>,
    /// A file that names more of them: ranges A..B, one on each line, or what `plan --json` wrote. For when there
    /// are too many to type; read it first.
    #[arg(long, value_name = "FILE")]
    accept_loss_from: Option<PathBuf>,
    /// Shows all of a plan, however long it is.
    #[arg(long)]
    all: bool,
    /// Writes one JSON document instead of text.
    #[arg(long)]
    json: bool,
    /// Shows no progress bar (none is shown anyway where stderr is not a terminal).
    #[arg(long)]
    no_progress: bool,
}

/// Shows what `repair` would do, and exactly which records would be lost. Changes nothing.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES_PLAN)]
pub(crate) struct PlanArguments {
    #[command(flatten)]
    choices: Choices,
    /// Puts the MANIFEST and the indexes together from the stores alone, whatever the MANIFEST says.
    #[arg(long)]
    from_stores: bool,
}

/// Repairs a log: every intact record is served again, at its own offset.
///
/// Without --apply it shows the plan and changes nothing.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES_REPAIR)]
pub(crate) struct RepairArguments {
    #[command(flatten)]
    choices: Choices,
    /// Does it. With a PLAN (what `plan --json` wrote) it is refused unless every file is as it was then.
    #[arg(long, value_name = "PLAN", num_args = 0..=1)]
    apply: Option<Option<PathBuf>>,
}

/// Puts the MANIFEST and the indexes together from the stores alone.
///
/// For a log whose MANIFEST is not to be trusted though it reads well, or was restored from another time. Where
/// it is damaged or gone, `repair` does this by itself, and uses what is left of it. Without --apply
/// it shows the plan and changes nothing.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES_REBUILD)]
pub(crate) struct RebuildArguments {
    #[command(flatten)]
    choices: Choices,
    /// Does it. With a PLAN (what `plan --from-stores --json` wrote) it is refused unless every file is as it was
    /// then.
    #[arg(long, value_name = "PLAN", num_args = 0..=1)]
    apply: Option<Option<PathBuf>>,
}

pub(crate) fn plan(arguments: &PlanArguments, output: &mut Output) -> Result<Exit, Failure> {
    let basis = if arguments.from_stores { Basis::Stores } else { Basis::Manifest };
    Task::new("plan", basis, &arguments.choices, None)?.run(output)
}

pub(crate) fn repair(arguments: &RepairArguments, output: &mut Output) -> Result<Exit, Failure> {
    let apply = arguments.apply.as_ref().map(Option::as_deref);
    Task::new("repair", Basis::Manifest, &arguments.choices, apply)?.run(output)
}

pub(crate) fn rebuild(arguments: &RebuildArguments, output: &mut Output) -> Result<Exit, Failure> {
    let apply = arguments.apply.as_ref().map(Option::as_deref);
    Task::new("rebuild", Basis::Stores, &arguments.choices, apply)?.run(output)
}

struct Task<'a> {
    verb: &'static str,
    basis: Basis,
    choices: &'a Choices,
    /// The losses that the operator named.
    accepted: Vec<Range<u64>>,
    /// Whether to do it, and by which plan.
    apply: Option<Option<&'a Path>>,
}

impl<'a> Task<'a> {
    fn new(
        verb: &'static str,
        basis: Basis,
        choices: &'a Choices,
        apply: Option<Option<&'a Path>>,
    ) -> Result<Task<'a>, Failure> {
        let mut accepted: Vec<Range<u64>> = choices.accept_loss.iter().map(|range| range.0.clone()).collect();
        if let Some(path) = &choices.accept_loss_from {
            accepted.extend(ranges::named_by(path)?);
        }
        Ok(Task { verb, basis, choices, accepted, apply })
    }

    fn directory(&self) -> &Path {
        &self.choices.directory.path
    }

    /// How far the operator knows that records were acknowledged.
    fn stated_end(&self) -> Option<u64> {
        self.accepted.iter().map(|range| range.end).max()
    }

    fn run(&self, output: &mut Output) -> Result<Exit, Failure> {
        match self.apply {
            None => self.show(output),
            Some(plan) => self.apply(plan, output),
        }
    }

    fn most_shown(&self) -> usize {
        if self.choices.all { usize::MAX } else { MOST_SHOWN }
    }

    /// A bar for the survey and the digest.
    fn meter(&self, output: &Output) -> Meter {
        // (Without the MANIFEST the stores are read to find out where each belongs, and again by what that gave.)
        let passes = match self.basis {
            Basis::Manifest => 2,
            Basis::Stores => 4,
        };
        Meter::of_directory(self.directory(), passes, !self.choices.no_progress && !output.is_quiet())
    }

    /// A look and a plan, nothing more.
    fn show(&self, output: &mut Output) -> Result<Exit, Failure> {
        let meter = self.meter(output);
        let disk = meter.looking();
        there_is(&disk, self.directory())?;
        if let Some(pending) = repair::pending(&disk, self.directory())? {
            return Err(interrupted(self.directory(), pending));
        }
        let survey = repair::survey(&disk, self.directory(), self.basis)?;
        let in_use = lock::holder(&OsDisk, self.directory());
        let planned = self.planned(&disk, &survey)?;
        meter.end();
        let exit = Exit::of(planned.has_damage);
        if self.choices.json {
            output.document(&planned.document(in_use, None, exit))?;
        } else if planned.has_damage || !planned.plan.beyond.is_empty() || !output.is_quiet() {
            planned.show(in_use, self.most_shown(), output)?;
        }
        Ok(exit)
    }

    fn planned(&self, disk: &dyn Disk, survey: &Survey) -> Result<Planned, Failure> {
        let plan = repair::plan(survey, self.stated_end())?;
        let digest = digest::of(disk, self.directory())?;
        let accepted = self.accepted.clone();
        Ok(Planned::new(self.verb, self.directory(), self.basis, plan, survey, digest, accepted))
    }

    fn apply(&self, wanted: Option<&Path>, output: &mut Output) -> Result<Exit, Failure> {
        let meter = self.meter(output);
        let disk = meter.working();
        there_is(disk.as_ref(), self.directory())?;
        let session = Session::lock(disk.clone(), self.directory())?;
        match session.pending()? {
            Some(Pending::Repair { .. }) => {
                let done = session.resume()?;
                return self.report(&session, &meter, None, &done, output);
            }
            Some(pending @ Pending::Undo { .. }) => return Err(interrupted(self.directory(), pending)),
            None => {}
        }
        let survey = session.survey(self.basis)?;
        let planned = self.planned(disk.as_ref(), &survey)?;
        meter.end();
        if let Some(path) = wanted {
            let file = read_plan(path)?;
            planned.check_fresh(&file).map_err(|why| {
                Failure::Left(format!(
                    "the plan in {} is stale: {why}. Nothing was changed; make a new one: log-repair plan {} --json",
                    path.display(),
                    self.directory().display()
                ))
            })?;
        }
        if planned.plan.is_nothing() {
            if self.choices.json {
                output.document(&planned.document(None, None, Exit::Clean))?;
            } else if !output.is_quiet() {
                planned.show(None, self.most_shown(), output)?;
            }
            return Ok(Exit::Clean);
        }
        if let Err(refused) = planned.plan.accepts(&self.accepted) {
            if self.choices.json {
                output.document(&planned.document(None, None, Exit::Damage))?;
            } else {
                planned.show(None, self.most_shown(), output)?;
            }
            return Err(Failure::Left(refused.to_string()));
        }
        if !self.choices.json && !output.is_quiet() {
            planned.show_actions(self.most_shown(), output)?;
            output.flush()?;
        }
        meter.begin();
        let done = session.apply(&planned.plan, &self.accepted)?;
        self.report(&session, &meter, Some(&planned), &done, output)
    }

    /// Checks again, and says what became of it.
    fn report(
        &self,
        session: &Session,
        meter: &Meter,
        planned: Option<&Planned>,
        done: &Done,
        output: &mut Output,
    ) -> Result<Exit, Failure> {
        let after = session.survey(Basis::Manifest)?;
        let left = repair::plan(&after, None)?;
        meter.end();
        let exit = if left.is_nothing() { Exit::Corrected } else { Exit::Damage };
        let directory = self.directory();
        if self.choices.json {
            let outcome = Outcome::of(done, &left);
            match planned {
                Some(planned) => output.document(&planned.document(None, Some(outcome), exit))?,
                None => {
                    let digest = digest::of(&OsDisk, directory)?;
                    let accepted = self.accepted.clone();
                    let planned =
                        Planned::new(self.verb, directory, self.basis, left, &after, digest, accepted);
                    output.document(&planned.document(None, Some(outcome), exit))?;
                }
            }
            return Ok(exit);
        }
        if output.is_quiet() && exit == Exit::Corrected {
            return Ok(exit);
        }
        output.line("")?;
        if planned.is_none() {
            output.line(styled(GOOD, "An interrupted repair was finished."))?;
        }
        match exit {
            Exit::Corrected => {
                let gave_up = planned.is_some_and(|planned| planned.gives_up_records());
                let word = if gave_up { "Repaired, but for what was given up." } else { "Repaired." };
                output.line(styled(GOOD, word))?;
            }
            _ => {
                output.line(styled(BAD, "Repaired in part; what is left:"))?;
                let actions = left.actions.iter().map(|action| format!("  {action}")).collect();
                listed(actions, self.most_shown(), "  ... and {} more: --all or --json", output)?;
            }
        }
        output.line(format_args!(
            "The log holds offsets {}..{}, and is closed: the next record gets {}.",
            left.offsets.start, left.offsets.end, left.offsets.end
        ))?;
        let kept = done.kept.parent().unwrap_or(&done.kept).display();
        output.line(styled(
            FAINT,
            format!("What was replaced or taken out is in {kept}: delete it once nobody needs it."),
        ))?;
        output.line(styled(
            FAINT,
            format!("To look at the result:  log-repair check {}", directory.display()),
        ))?;
        output.line(styled(
            FAINT,
            format!("To take it all back:    log-repair undo {} --apply", directory.display()),
        ))?;
        Ok(exit)
    }
}

/// Refuses to look at a log that a repair has half moved.
pub(crate) fn refuse_unfinished(disk: &dyn Disk, directory: &Path) -> Result<(), Failure> {
    repair::pending(disk, directory)?.map_or(Ok(()), |pending| Err(interrupted(directory, pending)))
}

/// Says so where there is no such directory.
fn there_is(disk: &dyn Disk, directory: &Path) -> Result<(), Failure> {
    match disk.exists(directory) {
        Ok(false) => Err(Failure::Said(format!(
            "there is no directory {}: name the one that holds MANIFEST",
            directory.display()
        ))),
        _ => Ok(()),
    }
}

/// A repair, or its undoing, that has to be finished before anything else.
fn interrupted(directory: &Path, pending: Pending) -> Failure {
    let directory = directory.display();
    Failure::Left(match pending {
        Pending::Repair { number } => format!(
            "repair {number} of {directory} was interrupted. Nothing is lost; to finish it run: log-repair repair \
             {directory} --apply; to take it back: log-repair undo {directory} --apply"
        ),
        Pending::Undo { number } => format!(
            "the undoing of repair {number} of {directory} was interrupted. Nothing is lost; to finish it run: \
             log-repair undo {directory} --apply"
        ),
    })
}

/// The longest plan that is read, in bytes.
const MOST_PLAN_BYTES: u64 = 64 << 20;

fn read_plan(path: &Path) -> Result<planned::PlanFile, Failure> {
    let failed = |why: String| {
        Failure::Said(format!(
            "the plan {} cannot be read: {why}. Write one with log-repair plan DIR --json",
            path.display()
        ))
    };
    let bytes = read_whole(path).map_err(|error| failed(error.to_string()))?;
    serde_json::from_slice(&bytes).map_err(|error| failed(error.to_string()))
}

/// All of a file that an operator wrote or kept.
fn read_whole(path: &Path) -> std::io::Result<Vec<u8>> {
    let file = OsDisk.open(path, OpenMode::Read)?;
    let mut bytes = vec![0; usize::try_from(file.length()?.min(MOST_PLAN_BYTES)).unwrap_or(0)];
    let got = stonelog::disk::read_up_to(file.as_ref(), &mut bytes, 0)?;
    bytes.truncate(got);
    Ok(bytes)
}

/// How much of a list is shown, unless all of it is asked for.
const MOST_SHOWN: usize = 50;

/// The first `most` lines, then how many more there are, in place of the {} in `more`.
fn listed(lines: Vec<String>, most: usize, more: &str, output: &mut Output) -> std::io::Result<()> {
    for line in lines.iter().take(most) {
        output.line(line)?;
    }
    match lines.len().saturating_sub(most) {
        0 => Ok(()),
        rest => output.line(more.replace("{}", &rest.to_string())),
    }
}

/// The style of a plan's headline.
fn style_of(exit: Exit, nothing: bool) -> anstyle::Style {
    match (exit, nothing) {
        (Exit::Damage, _) => BAD,
        (_, true) => GOOD,
        _ => ODD,
    }
}
