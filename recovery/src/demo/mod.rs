//! `demo`: a small log with one kind of damage, for practice and for the documents.
//!
//! It owns the command and what it says; [`kinds`] owns which damages there are and how each is done,
//! [`bench`] the log that is struck, [`disk`] what makes it repeatable. It deliberately writes nothing
//! but a directory that it found empty or missing: this tool never damages a log that was there before.
//!
//! Invariant: the same kind and seed give the same bytes, on every machine.

mod bench;
mod disk;
mod kinds;

use std::path::PathBuf;

use serde::Serialize;
use stonelog::disk::{Disk, OsDisk};

use self::bench::{Bench, Blow};
use self::kinds::Kind;
use crate::output::{self, BAD, Columns, FAINT, GOOD, Output, SCHEMA_VERSION, STRONG, styled};
use crate::{Exit, Failure};

const EXAMPLES: &str = "\
Examples:
  log-repair demo --list
  log-repair demo /tmp/practice flipped-byte
  log-repair check /tmp/practice

DIR must be empty, or not there yet: an existing log is never touched. The same KIND and seed
give the same bytes.";

/// Makes a small log with one kind of damage, to practise on.
///
/// A few dozen readable records in a few segments, written by Stonelog itself and then damaged
/// behind its back, under 1 MiB in all. It says what was done to which bytes, and what to run next.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// Where to make it: a directory that is empty, or not there yet.
    #[arg(value_name = "DIR", required_unless_present = "list")]
    directory: Option<PathBuf>,
    /// What is to be wrong with it; --list tells what there is.
    #[arg(value_name = "KIND", value_enum, required_unless_present = "list", hide_possible_values = true)]
    kind: Option<Kind>,
    /// Lists the kinds, and makes nothing.
    #[arg(long)]
    list: bool,
    /// The log's identity, and the moments of its background work.
    #[arg(long, default_value_t = 1, value_name = "NUMBER")]
    seed: u64,
    /// Writes one JSON document instead of text.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: &Arguments, output: &mut Output) -> Result<Exit, Failure> {
    let (Some(directory), Some(kind), false) = (&arguments.directory, arguments.kind, arguments.list) else {
        return list(arguments, output);
    };
    let shown = directory.display();
    match OsDisk.list(directory) {
        Ok(entries) if entries.is_empty() => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Ok(entries) => {
            return Err(Failure::Said(format!(
                "{shown} is not empty (it holds {}): name a directory that is not there yet",
                output::count(entries.len() as u64, "file")
            )));
        }
        Err(error) => {
            return Err(Failure::Said(format!("listing {shown} failed: {error}. Name another directory")));
        }
    }
    let mut bench = Bench::new(directory, arguments.seed);
    kind.make(&mut bench)?;
    let next = next(kind, &bench);
    let json = Json {
        schema_version: SCHEMA_VERSION,
        verb: "demo",
        directory: shown.to_string(),
        kind: kind.name(),
        about: kind.about(),
        seed: arguments.seed,
        records: bench.records(),
        segments: bench.segments()?,
        closed: bench.is_closed(),
        damage: bench.blows(),
        codes: kind.codes(),
        next,
    };
    if arguments.json {
        output.document(&json)?;
    } else if !output.is_quiet() {
        show(&json, output)?;
    }
    Ok(Exit::Clean)
}

fn list(arguments: &Arguments, output: &mut Output) -> Result<Exit, Failure> {
    if arguments.json {
        let kinds =
            Kind::all().map(|kind| JsonKind { kind: kind.name(), about: kind.about(), codes: kind.codes() });
        let json = JsonList { schema_version: SCHEMA_VERSION, verb: "demo", kinds: kinds.collect() };
        output.document(&json)?;
        return Ok(Exit::Clean);
    }
    let mut columns = Columns::default();
    columns.row(["KIND", "WHAT IS WRONG WITH IT"].map(String::from));
    Kind::all().for_each(|kind| columns.row([kind.name().to_string(), kind.about().to_string()]));
    for (number, line) in columns.lines().into_iter().enumerate() {
        if number == 0 { output.line(styled(STRONG, line))? } else { output.line(line)? }
    }
    output.line("")?;
    output.line("make one:  log-repair demo DIR KIND")?;
    Ok(Exit::Clean)
}

/// What to run on the log that was made.
fn next(kind: Kind, bench: &Bench) -> Vec<String> {
    let path = bench.directory().display();
    let mut next = vec![format!("log-repair check {path}"), format!("log-repair map {path}")];
    let place = bench.blows().iter().find_map(|blow| match (blow.offset, blow.position) {
        (Some(offset), _) => Some(offset.to_string()),
        (None, Some(position)) => Some(format!("{}:{position}", blow.file)),
        (None, None) => None,
    });
    if kind.is_explained() {
        next.extend(place.map(|place| format!("log-repair explain {path} {place}")));
    }
    next
}

fn show(json: &Json<'_>, output: &mut Output) -> std::io::Result<()> {
    let end = if json.closed { "closed cleanly" } else { "left without a close, as a crash leaves it" };
    output.line(format_args!(
        "made a log of {} in {} in {}, {end}",
        output::count(json.records, "record"),
        output::count(json.segments as u64, "segment"),
        json.directory
    ))?;
    output.line(format_args!("{}: {}", styled(STRONG, json.kind), json.about))?;
    for blow in json.damage {
        let place = match (blow.position, blow.position_end) {
            (Some(start), Some(end)) => format!(", bytes {start}..{end}"),
            (Some(start), None) => format!(", byte {start}"),
            (None, _) => String::new(),
        };
        let mark = styled(BAD, "x");
        output.line(format_args!("  {mark} {}{place}: {}", blow.file, blow.what))?;
    }
    if json.damage.is_empty() {
        output.line(format_args!("  {}", styled(GOOD, "nothing was damaged")))?;
    }
    output.line("")?;
    for (number, command) in json.next.iter().enumerate() {
        output.line(format_args!("{}  {command}", if number == 0 { "next" } else { "    " }))?;
    }
    output.line(styled(FAINT, "      (when done, remove the directory: it is yours)"))
}

#[derive(Serialize)]
struct Json<'a> {
    schema_version: u32,
    verb: &'static str,
    directory: String,
    kind: &'static str,
    about: &'static str,
    seed: u64,
    records: u64,
    segments: usize,
    closed: bool,
    damage: &'a [Blow],
    codes: &'static [&'static str],
    next: Vec<String>,
}

#[derive(Serialize)]
struct JsonList {
    schema_version: u32,
    verb: &'static str,
    kinds: Vec<JsonKind>,
}

#[derive(Serialize)]
struct JsonKind {
    kind: &'static str,
    about: &'static str,
    codes: &'static [&'static str],
}
