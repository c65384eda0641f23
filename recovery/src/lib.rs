//! `log-repair`: what an operator reaches for after a crash.
//!
//! It owns the command line and the exit codes. Each verb has a module of its own, which gets its
//! arguments and a place to write to, and gives back an exit code or the words for an operational
//! error. It deliberately does not know what a frame or a manifest is: the library does, and the
//! library's inspection, scanner and judgement are the only ones.
//!
//! Invariants: only `repair`, `rebuild` and `undo` change a log, and only with `--apply`, by the library's
//! journalled repair; every other verb looks through `looking::LookingDisk`, which refuses to (`salvage` and
//! `demo` write where there is nothing yet, `map` and `man` only the pages asked for). Results go to stdout, progress and
//! errors to stderr; every error names the next step.
//!
//! Why the exit codes of fsck(8): whoever writes a script around this tool knows them already.
//!
//! Why a library beside the binary: so that tests can run every verb in their own process, and count
//! what it takes. It is no interface to build on; that is the `stonelog` crate.

mod alone;
mod check;
mod completions;
mod demo;
mod dump;
mod explain;
mod finding;
mod lister;
mod lock;
mod looking;
mod loose;
mod man;
mod map;
mod mending;
mod meter;
mod opening;
mod output;
mod salvage;
mod stat;
mod sure;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::output::Output;

pub use crate::output::Streams;

const EXIT_CODES: &str = "\
Exit codes, as fsck(8):
   0  nothing acknowledged is missing (warnings and notes, such as a torn tail,
      need nothing done)
   1  corrected: a repair, or its undoing, was done
   4  left uncorrected: bytes that were acknowledged are not what was written,
      or a repair is unfinished
   8  operational error: no such directory, no log in it, a disk that fails, a
      later format version
  16  usage error
  32  cancelled

Only repair, rebuild and undo with --apply change a log. salvage and demo write into a directory of their own, \
map --html and man --out write pages elsewhere. All else changes nothing, takes no lock and makes no file: it works on \
read-only media, and beside a program that has the log open.

Begin with check, then plan. log-repair demo makes broken logs to practise on.";

/// Checks and inspects Stonelog directories.
#[derive(Debug, Parser)]
#[command(name = "log-repair", version, after_help = EXIT_CODES, max_term_width = 100)]
struct Cli {
    /// When to colour: NO_COLOR is honoured, and nothing is coloured that is not a terminal.
    #[arg(long, global = true, value_enum, default_value_t = Colour::Auto, value_name = "WHEN")]
    color: Colour,
    /// Says nothing that is no result and no error: no progress, no remarks. All but stat, dump and demo --list then
    /// say nothing at all unless there is damage or a loss; the exit code tells. What --json writes stays.
    #[arg(long, short, global = true)]
    quiet: bool,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Colour {
    Auto,
    Always,
    Never,
}

// (What each does is said at its arguments: a comment here would stand in for all of that.)
#[derive(Debug, Subcommand)]
enum Verb {
    Check(check::Arguments),
    Stat(stat::Arguments),
    Dump(dump::Arguments),
    Plan(mending::PlanArguments),
    Repair(mending::RepairArguments),
    Undo(mending::UndoArguments),
    Rebuild(mending::RebuildArguments),
    Salvage(salvage::Arguments),
    Explain(explain::Arguments),
    Map(map::Arguments),
    Demo(demo::Arguments),
    Completions(completions::Arguments),
    Man(man::Arguments),
}

/// How a verb ended, where it could do its work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Exit {
    /// Nothing acknowledged is missing.
    Clean,
    /// What was wrong was put right.
    Corrected,
    /// There is damage.
    Damage,
}

impl Exit {
    const fn code(self) -> u8 {
        match self {
            Exit::Clean => 0,
            Exit::Corrected => 1,
            Exit::Damage => 4,
        }
    }

    /// [`Exit::Damage`] where there is any.
    const fn of(damaged: bool) -> Exit {
        if damaged { Exit::Damage } else { Exit::Clean }
    }
}

const OPERATIONAL: u8 = 8;
const USAGE: u8 = 16;
/// The exit code of a run that was cancelled.
pub const CANCELLED: i32 = 32;

/// Why a verb could not do its work.
#[derive(Debug)]
enum Failure {
    /// What happened, and the next step.
    Said(String),
    /// Damage that leaves nothing to show.
    Damaged(String),
    /// What was to be put right is left as it is.
    Left(String),
    /// Arguments that do not go together.
    Usage(String),
    /// Writing the result failed.
    Output(std::io::Error),
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Failure {
        Failure::Output(error)
    }
}

impl From<stonelog::Error> for Failure {
    fn from(error: stonelog::Error) -> Failure {
        match error {
            stonelog::Error::Damaged(_) => Failure::Damaged(error.to_string()),
            stonelog::Error::RepairUnfinished { .. } => Failure::Left(error.to_string()),
            _ => Failure::Said(error.to_string()),
        }
    }
}

/// A log directory, as every verb takes it.
#[derive(Debug, clap::Args)]
struct Directory {
    /// The log's directory: the one that holds MANIFEST.
    #[arg(value_name = "DIR")]
    path: PathBuf,
}

/// Runs the tool: `arguments` with the program's name first, as a process gets them. Gives the exit
/// code.
pub fn run(arguments: impl IntoIterator<Item = OsString>, streams: Streams) -> u8 {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // Nothing is left to tell anybody if even this cannot be written.
            let _ = streams.explain(&error);
            return if error.use_stderr() { USAGE } else { 0 };
        }
    };
    let choice = match cli.color {
        Colour::Auto => None,
        Colour::Always => Some(anstream::ColorChoice::Always),
        Colour::Never => Some(anstream::ColorChoice::Never),
    };
    let mut output = Output::new(streams, choice, cli.quiet);
    let outcome = match &cli.verb {
        Verb::Check(arguments) => check::run(arguments, &mut output),
        Verb::Stat(arguments) => stat::run(arguments, &mut output),
        Verb::Dump(arguments) => dump::run(arguments, &mut output),
        Verb::Plan(arguments) => mending::plan(arguments, &mut output),
        Verb::Repair(arguments) => mending::repair(arguments, &mut output),
        Verb::Undo(arguments) => mending::undo(arguments, &mut output),
        Verb::Rebuild(arguments) => mending::rebuild(arguments, &mut output),
        Verb::Salvage(arguments) => salvage::run(arguments, &mut output),
        Verb::Explain(arguments) => explain::run(arguments, &mut output),
        Verb::Map(arguments) => map::run(arguments, &mut output),
        Verb::Demo(arguments) => demo::run(arguments, &mut output),
        Verb::Completions(arguments) => completions::run(arguments, &mut output),
        Verb::Man(arguments) => man::run(arguments, &mut output),
    };
    let outcome = outcome.and_then(|exit| output.flush().map(|()| exit).map_err(Failure::from));
    match outcome {
        Ok(exit) => exit.code(),
        Err(failure) => {
            // What was already found out is shown, before what stopped it.
            let _ = output.flush();
            let (code, message) = match failure {
                Failure::Damaged(message) | Failure::Left(message) => (Exit::Damage.code(), message),
                Failure::Usage(message) => (USAGE, message),
                Failure::Said(message) => (OPERATIONAL, message),
                // Whoever read our output has seen enough (`| head`): that is no error of ours.
                Failure::Output(error) if error.kind() == std::io::ErrorKind::BrokenPipe => return 0,
                Failure::Output(error) => {
                    (OPERATIONAL, format!("writing the result failed: {error}. Give it another place to go"))
                }
            };
            output.complain(&message);
            code
        }
    }
}
