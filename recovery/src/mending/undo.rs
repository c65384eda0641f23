//! `undo`: takes the last repair back.
//!
//! It owns the words. What is moved back, and when that is refused, is the library's.

use std::sync::Arc;

use serde::Serialize;
use stonelog::disk::{Disk, OsDisk};
use stonelog::repair::{self, Pending, Session, Undone};

use super::{MOST_SHOWN, listed, there_is};
use crate::looking::LookingDisk;
use crate::output::{FAINT, GOOD, Output, SCHEMA_VERSION, styled};
use crate::{Exit, Failure};

const EXAMPLES: &str = "\
Examples:
  log-repair undo DIR            shows what would be moved back, changes nothing
  log-repair undo DIR --apply    every file is again what it was, byte for byte

Refused once the log was opened for writing after the repair: what was written since would be lost. Repairs are \
taken back one by one, the last one first. The exit code is 1 where a repair was taken back.";

/// Takes the last repair back, byte for byte.
///
/// Without --apply it shows what would be moved and changes nothing.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    #[command(flatten)]
    directory: crate::Directory,
    /// Does it.
    #[arg(long)]
    apply: bool,
    /// Writes one JSON document instead of text.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: &Arguments, output: &mut Output) -> Result<Exit, Failure> {
    let directory = &arguments.directory.path;
    there_is(&OsDisk, directory)?;
    let looking = LookingDisk::default();
    let pending = repair::pending(&looking, directory)?;
    let (undone, exit) = if arguments.apply {
        let disk: Arc<dyn Disk> = Arc::new(OsDisk);
        (Session::lock(disk, directory)?.undo()?, Exit::Corrected)
    } else {
        (repair::undoable(&looking, directory)?, Exit::Clean)
    };
    if arguments.json {
        output.document(&Document::of(directory.display().to_string(), &undone, exit, arguments.apply))?;
        return Ok(exit);
    }
    if output.is_quiet() {
        return Ok(exit);
    }
    let Undone { number, back, gone } = &undone;
    let begun = match pending {
        None => "",
        Some(Pending::Undo { .. }) => ", whose undoing was interrupted,",
        Some(Pending::Repair { .. }) => ", which was interrupted,",
    };
    let headline = match arguments.apply {
        true => {
            styled(GOOD, format!("Repair {number}{begun} is taken back: every file is again what it was."))
        }
        false => format!("Repair {number}{begun} can be taken back:"),
    };
    output.line(headline)?;
    output.line("")?;
    let goes = gone.iter().filter(|name| !back.contains(name));
    let goes = goes.map(|name| format!("  {name} goes: the repair made it"));
    let comes = back.iter().map(|name| {
        let word = if gone.contains(name) { "comes back in place of the repaired one" } else { "comes back" };
        format!("  {name} {word}")
    });
    listed(goes.chain(comes).collect(), MOST_SHOWN, "  ... and {} more: --json", output)?;
    output.line("")?;
    let shown = directory.display();
    match arguments.apply {
        true => {
            output.line(styled(FAINT, format!("What is wrong with it now:  log-repair check {shown}")))?
        }
        false => output.line(format_args!("To do it:  log-repair undo {shown} --apply"))?,
    }
    Ok(exit)
}

#[derive(Serialize)]
struct Document<'a> {
    schema_version: u32,
    verb: &'static str,
    directory: String,
    exit_code: u8,
    repair: u64,
    back: &'a [String],
    gone: &'a [String],
    done: bool,
}

impl Document<'_> {
    fn of(directory: String, undone: &Undone, exit: Exit, done: bool) -> Document<'_> {
        Document {
            schema_version: SCHEMA_VERSION,
            verb: "undo",
            directory,
            exit_code: exit.code(),
            repair: undone.number,
            back: &undone.back,
            gone: &undone.gone,
            done,
        }
    }
}
