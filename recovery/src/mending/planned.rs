//! A plan as people and programs see it.
//!
//! It owns the words around a plan and its JSON. It does not decide: the library's plan does.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use anstyle::Style;
use serde::{Deserialize, Serialize};
use stonelog::repair::{Action, Basis, Done, Plan, Survey};

use super::{listed, style_of};
use crate::Exit;
use crate::lock::Holder;
use crate::output::{self, BAD, FAINT, ODD, Output, SCHEMA_VERSION, STRONG, Span, styled};

/// So many losses are named on a command line; more are named by a file.
const MOST_NAMED: usize = 20;

/// What is said before anybody gives up a record.
const LOOK_FIRST: &str = "look for what is lost elsewhere: a backup or a replica of this log, lost+found, a mount that is \
                          missing. A sealed store is the same file in every copy of the log: put it back, and check again";

/// A plan with what is said about it.
pub(crate) struct Planned {
    verb: &'static str,
    directory: PathBuf,
    basis: Basis,
    pub(crate) plan: Plan,
    digest: String,
    /// What the operator accepts, so far.
    accepted: Vec<Range<u64>>,
    /// Whether an opening would refuse, or records are lost: more than the next opening mends by itself.
    pub(crate) has_damage: bool,
}

impl Planned {
    pub(crate) fn new(
        verb: &'static str,
        directory: &Path,
        basis: Basis,
        plan: Plan,
        survey: &Survey,
        digest: String,
        accepted: Vec<Range<u64>>,
    ) -> Planned {
        let by_itself = |action: &Action| {
            matches!(
                action,
                Action::Seal { .. }
                    | Action::Copy { .. }
                    | Action::WriteIndex { .. }
                    | Action::TakeOut { .. }
                    | Action::WriteManifest { .. }
            )
        };
        let standing = survey.state().is_some_and(|state| !state.damaged.is_empty());
        let has_damage = !plan.loss.is_nothing() || standing || !plan.actions.iter().all(by_itself);
        // To put together what is whole is a wish, and no damage.
        let has_damage = has_damage && (basis == Basis::Manifest || !plan.loss.is_nothing());
        Planned { verb, directory: directory.to_path_buf(), basis, plan, digest, accepted, has_damage }
    }

    /// Whether a plan that was written earlier is about what is here now.
    pub(crate) fn check_fresh(&self, file: &PlanFile) -> Result<(), String> {
        if file.schema_version != SCHEMA_VERSION {
            return Err(format!("it follows version {} of its schema", file.schema_version));
        }
        if file.digest != self.digest {
            return Err("a file of the log has changed since it was made".to_string());
        }
        if file.from_stores != (self.basis == Basis::Stores) {
            return Err("it was made from other evidence (see rebuild, and plan --from-stores)".to_string());
        }
        let now: Vec<String> = self.plan.actions.iter().map(ToString::to_string).collect();
        if file.actions.iter().map(|action| &action.what).ne(&now) {
            return Err("it says other things, as other losses are accepted now".to_string());
        }
        Ok(())
    }

    fn headline(&self) -> String {
        let lost = self.plan.loss.offsets.count();
        match () {
            () if self.plan.is_nothing() => "nothing to repair".to_string(),
            () if self.plan.loss.open_from.is_some() => {
                "to be repaired, but nobody can tell how many records are lost".to_string()
            }
            () if lost > 0 => format!("to be repaired; {} lost", is(lost)),
            () if self.basis == Basis::Stores => {
                "to be put together from the stores, without losing a record".to_string()
            }
            () if self.has_damage => "to be repaired, without losing a record".to_string(),
            () if !self.plan.beyond.is_empty() => {
                let left: u64 = self.plan.beyond.iter().map(|range| range.end - range.start).sum();
                format!(
                    "nothing that is proven is lost, but {} behind a hole {} left out, unless you say otherwise",
                    output::count(left, "intact record"),
                    if left == 1 { "is" } else { "are" }
                )
            }
            () => "nothing is lost; the next opening does by itself what is to be done".to_string(),
        }
    }

    /// All of it; of long lists the first `most`.
    pub(crate) fn show(&self, in_use: Option<Holder>, most: usize, output: &mut Output) -> io::Result<()> {
        self.show_actions(most, output)?;
        if !self.plan.is_nothing() {
            paragraph(output, FAINT, "digest", &self.digest)?;
        }
        if let Some(holder) = in_use {
            let who = holder.pid.map_or("a program".to_string(), |pid| format!("process {pid}"));
            output.line("")?;
            output.line(styled(
                ODD,
                format!("advisory: in use. {who} has the log open for writing: close it there first."),
            ))?;
        }
        if self.plan.is_nothing() {
            return Ok(());
        }
        output.line("")?;
        if !self.plan.loss.is_nothing() {
            paragraph(output, STRONG, "first", LOOK_FIRST)?;
            output.line("")?;
        }
        let command = match self.basis {
            Basis::Manifest => "repair",
            Basis::Stores => "rebuild",
        };
        let directory = self.directory.display();
        let open_from = self.plan.loss.open_from.filter(|_| self.accepted.is_empty());
        let to_accept = self.plan.to_accept();
        let name = |range: &Range<u64>| match open_from {
            Some(from) if from == range.start => format!(" --accept-loss {from}..B"),
            _ => format!(" --accept-loss {}..{}", range.start, range.end),
        };
        if to_accept.len() > MOST_NAMED {
            let from_stores = if self.basis == Basis::Stores { " --from-stores" } else { "" };
            let open = to_accept.last().filter(|range| open_from == Some(range.start)).map(name);
            let open = open.unwrap_or_default();
            output.line(format!(
                "To do it:  log-repair plan {directory}{from_stores}{open} --json > plan.json"
            ))?;
            output.line("           read what plan.json gives up (\"to_accept\"), then")?;
            return output.line(format!(
                "           log-repair {command} {directory} --apply plan.json --accept-loss-from plan.json"
            ));
        }
        let named: String = to_accept.iter().map(name).collect();
        output.line(format!("To do it:  log-repair {command} {directory} --apply{named}"))?;
        // Both ways, side by side: which it is, only a person can know.
        match self.plan.beyond.first().filter(|_| self.plan.loss.open_from.is_none()) {
            Some(kept) => output.line(format!(
                "To keep what is behind the hole:\n           log-repair {command} {directory} --apply{named} --accept-loss {}..{}",
                self.plan.offsets.end, kept.start
            )),
            None => Ok(()),
        }
    }

    /// What has to be accepted. An open loss is left to whoever knows where it ends, until they have said so.
    fn to_accept(&self) -> Vec<Range<u64>> {
        let mut ranges = self.plan.to_accept();
        if self.plan.loss.open_from.is_some() && self.accepted.is_empty() {
            ranges.pop();
        }
        ranges
    }

    /// Whether acknowledged records are given up by it, or may be.
    pub(crate) fn gives_up_records(&self) -> bool {
        self.plan.to_accept().iter().any(|range| !range.is_empty())
    }

    /// What is done and what is lost; of long lists the first `most`.
    pub(crate) fn show_actions(&self, most: usize, output: &mut Output) -> io::Result<()> {
        let exit = Exit::of(self.has_damage);
        output.line(styled(style_of(exit, self.plan.is_nothing()), output::capital(&self.headline())))?;
        if self.plan.is_nothing() {
            return Ok(());
        }
        output.line("")?;
        let actions = self.plan.actions.iter().zip(1..);
        let actions = actions.map(|(action, number)| format!("  {number:>2}. {action}")).collect();
        listed(actions, most, "      ... and {} more: --all or --json", output)?;
        output.line("")?;
        let lost = self.plan.loss.offsets.iter().map(|range| {
            let them = if range.end - range.start == 1 { "it" } else { "them" };
            format!("{}: no intact frame carries {them}", output::records(&range))
        });
        paragraphs(output, BAD, "lost", lost, most)?;
        let unknown = self.plan.loss.open_from.map(|from| match self.accepted.is_empty() {
            true => format!(
                "records from {from} on, if there were any: a store is gone or unreadable, and nothing says where the log \
                 ended. B in --accept-loss {from}..B says it: no reader ever saw a record at B or above ({from}..{from}: \
                 there were none). The positions of consumers, replicas and the program's own logs tell. If unsure, name a \
                 higher one: too low gives away offsets that readers saw, too high only leaves a gap"
            ),
            false => format!(
                "records from {from} on, if there were any; none was at {} or above, as you say",
                self.plan.offsets.end
            ),
        });
        paragraphs(output, BAD, "unknown", unknown, most)?;
        // What is gone may only be elsewhere: nobody should give up what a backup holds.
        let dropped = self.plan.actions.iter().filter_map(|action| match action {
            Action::Drop { id, .. } => Some(format!(
                "look for {}: in a backup, lost+found, quarantine/, on a mount that is missing. With it back, less is lost",
                stonelog::names::store(*id)
            )),
            _ => None,
        });
        paragraphs(output, STRONG, "before", dropped, most)?;
        let beyond = self.plan.beyond.iter().map(|range| {
            format!(
                "{} intact behind a hole, and nothing proves that they were acknowledged: they are left out, their file \
                 is kept. To keep them in the log, give up the hole: --accept-loss {}..{}",
                output::records(range),
                self.plan.offsets.end,
                range.start
            )
        });
        paragraphs(output, ODD, "left out", beyond, most)?;
        paragraphs(output, ODD, "not known", self.plan.unknown.iter().cloned(), most)?;
        let offsets = &self.plan.offsets;
        let served = (offsets.end - offsets.start).saturating_sub(self.plan.lost_in_all());
        let text = format!(
            "offsets {}..{}, {} served; what is replaced or moved goes to {}/repair/",
            offsets.start,
            offsets.end,
            output::count(served, "record"),
            self.directory.display()
        );
        paragraph(output, STRONG, "after", &text)
    }

    pub(crate) fn document(
        &self,
        in_use: Option<Holder>,
        outcome: Option<Outcome>,
        exit: Exit,
    ) -> Document<'_> {
        Document {
            schema_version: SCHEMA_VERSION,
            verb: self.verb,
            directory: self.directory.display().to_string(),
            headline: self.headline(),
            exit_code: exit.code(),
            advisory: in_use.is_some(),
            from_stores: self.basis == Basis::Stores,
            digest: &self.digest,
            actions: self.plan.actions.iter().map(ActionDocument::of).collect(),
            lost: self.plan.loss.offsets.iter().map(|range| Span::from(&range)).collect(),
            lost_from: self.plan.loss.open_from,
            to_accept: self.to_accept().iter().map(Span::from).collect(),
            left_out: self.plan.beyond.iter().map(Span::from).collect(),
            not_known: &self.plan.unknown,
            offsets: Span::from(&self.plan.offsets),
            done: outcome,
        }
    }
}

/// Columns that the word before a paragraph takes.
const WORD_COLUMNS: usize = 11;
/// How wide text is where nobody looks at it at a terminal.
const TEXT_COLUMNS: usize = 100;

/// Paragraphs that begin with the same word, the first `most` of them.
fn paragraphs(
    output: &mut Output,
    style: Style,
    word: &str,
    texts: impl IntoIterator<Item = String>,
    most: usize,
) -> io::Result<()> {
    let mut texts = texts.into_iter();
    for text in texts.by_ref().take(most) {
        paragraph(output, style, word, &text)?;
    }
    match texts.count() {
        0 => Ok(()),
        more => paragraph(output, style, word, &format!("... and {more} more: --all or --json")),
    }
}

/// A word, and beside it what there is to say, in as many lines as it takes.
fn paragraph(output: &mut Output, style: Style, word: &str, text: &str) -> io::Result<()> {
    let width = output.width().unwrap_or(TEXT_COLUMNS).clamp(4 * WORD_COLUMNS, TEXT_COLUMNS) - WORD_COLUMNS;
    let mut before = styled(style, word) + &" ".repeat(WORD_COLUMNS.saturating_sub(word.len()));
    let mut line = String::new();
    for word in text.split(' ') {
        if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > width {
            output.line(format_args!("{before}{line}"))?;
            before = " ".repeat(WORD_COLUMNS);
            line.clear();
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    output.line(format_args!("{before}{line}"))
}

fn is(count: u64) -> String {
    format!("{} {}", output::count(count, "record"), if count == 1 { "is" } else { "are" })
}

/// What was done.
#[derive(Serialize)]
pub(crate) struct Outcome {
    repair: u64,
    kept: String,
    moved_out: Vec<String>,
    put_in: Vec<String>,
    left: Vec<String>,
}

impl Outcome {
    pub(crate) fn of(done: &Done, left: &Plan) -> Outcome {
        Outcome {
            repair: done.number,
            kept: done.kept.display().to_string(),
            moved_out: done.moved_out.clone(),
            put_in: done.put_in.clone(),
            left: left.actions.iter().map(ToString::to_string).collect(),
        }
    }
}

#[derive(Serialize)]
pub(crate) struct Document<'a> {
    schema_version: u32,
    verb: &'static str,
    directory: String,
    headline: String,
    exit_code: u8,
    advisory: bool,
    from_stores: bool,
    digest: &'a str,
    actions: Vec<ActionDocument>,
    lost: Vec<Span>,
    lost_from: Option<u64>,
    to_accept: Vec<Span>,
    left_out: Vec<Span>,
    not_known: &'a [String],
    offsets: Span,
    done: Option<Outcome>,
}

/// What is read of a plan that is to be applied.
#[derive(Deserialize)]
pub(crate) struct PlanFile {
    schema_version: u32,
    digest: String,
    from_stores: bool,
    actions: Vec<PlannedAction>,
}

#[derive(Deserialize)]
struct PlannedAction {
    what: String,
}

#[derive(Serialize)]
pub(crate) struct ActionDocument {
    /// One word.
    action: &'static str,
    pub(crate) what: String,
    pub(crate) file: Option<String>,
    pub(crate) segment: Option<u64>,
    offsets: Option<Span>,
}

impl ActionDocument {
    pub(crate) fn of(action: &Action) -> ActionDocument {
        use stonelog::{manifest, names};
        let (word, file, segment, offsets) = match action {
            Action::RebuildManifest { .. } => {
                ("rebuild-manifest", Some(manifest::FILE_NAME.to_string()), None, None)
            }
            Action::RewriteStore { mend } => {
                ("rewrite-store", Some(names::store(mend.id)), Some(mend.id), None)
            }
            Action::Seal { id, .. } => ("seal", Some(names::store(*id)), Some(*id), None),
            Action::Copy { id, offsets, .. } => ("copy", Some(names::store(*id)), Some(*id), Some(offsets)),
            Action::Drop { id, .. } => ("drop", Some(names::store(*id)), Some(*id), None),
            Action::DeclareLost { offsets, segment } => {
                ("declare-lost", segment.map(names::store), *segment, Some(offsets))
            }
            Action::WriteIndex { id } => ("write-index", Some(names::index(*id)), Some(*id), None),
            Action::TakeOut { name, .. } => ("take-out", Some(name.clone()), names::id_of_store(name), None),
            Action::WriteManifest { .. } => {
                ("write-manifest", Some(manifest::FILE_NAME.to_string()), None, None)
            }
        };
        ActionDocument {
            action: word,
            what: action.to_string(),
            file,
            segment,
            offsets: offsets.map(Span::from),
        }
    }
}
