//! `salvage`: every intact record out of a broken log, into a new and healthy one.
//!
//! It owns the order: look through the source, decide what goes where, write, tell. Looking is `gather`'s (a log's
//! directory) or `image`'s (any bytes), deciding is `place`'s, writing is `write`'s, telling is `report`'s.
//!
//! Invariants: the source is opened for reading only; the destination is a fresh directory outside the source; what
//! is intact and not in the new log is named, and so is what nobody can know.
//!
//! Why a new log and not a repair in place: a copy needs nothing of what is broken, not even a MANIFEST, and the
//! source stays as it is for whoever knows better.

mod found;
mod gather;
mod image;
mod place;
mod read;
mod report;
mod write;

use std::path::{Path, PathBuf};
use std::str::FromStr;

use stonelog::disk::{Disk, OsDisk};

use self::place::Wishes;
use self::report::Report;
use crate::meter::Meter;
use crate::output::Output;
use crate::{Exit, Failure, lock};

// (Each paragraph is one line, which clap breaks as wide as the terminal is.)
const HELP: &str = "\
SRC is a log's directory, with or without its MANIFEST and indexes, with heads of stores gone. Every intact \
record goes into a new log in DEST, at the offset that it had. Offsets whose record is gone read as lost there. \
What the MANIFEST says is not the log's any more (truncated, dropped, declared lost) stays out. Without a usable \
MANIFEST the stores tell which records there are; metadata, lost ranges and a front inside a segment are then \
unknown, and records that were truncated back may come again.

With --carve, SRC is any file or directory of files: a disk's image, stores put one behind another, what an \
undelete tool brought back. Frames are looked for at every 8 bytes. They need no head, but two neighbours, or a \
head or frames of their segment nearby. Of a store in several fragments all is found but the frames that were \
cut through.

Records whose place in the log cannot be known go into a second log, DEST-unplaced, in the order of files and \
positions; DEST-unplaced.jsonl says for each run where it was.

A salvage that was cut short leaves DEST without a MANIFEST: remove DEST and begin again.

Exit codes:
   0  every record there was is in DEST
   4  records are missing, unplaced or in conflict, or something stays unknown:
      all of it is named
   8  operational error: nothing to salvage, DEST not empty or inside SRC, no
      space, a disk that fails
  16  usage error
  32  cancelled";

/// Puts every intact record into a new healthy log; the source stays untouched.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP, after_long_help = HELP)]
pub(crate) struct Arguments {
    /// What to salvage from: a log's directory; with --carve any file, or a directory of files.
    #[arg(value_name = "SRC")]
    source: PathBuf,
    /// Where the new log goes: a directory that is empty or not there yet.
    #[arg(long, value_name = "DEST")]
    out: PathBuf,
    /// Looks for records in arbitrary bytes, and trusts no names and no MANIFEST.
    #[arg(long)]
    carve: bool,
    /// Takes what the log let go of, too: truncated, dropped or declared lost. Where an offset was used again, the
    /// later segment's record is kept.
    #[arg(long)]
    beyond_seals: bool,
    /// Takes batches whose end was never written, too.
    #[arg(long)]
    partial_batches: bool,
    /// Without a MANIFEST, places segments that lost their bases by what a neighbour looks like. That puts records
    /// at wrong offsets where the neighbour lost some at its end and does not show it.
    #[arg(long)]
    infer_bases: bool,
    /// Which log to salvage, where there are pieces of several (the one with most of them, unless told).
    #[arg(long, value_name = "UUID")]
    uuid: Option<Uuid>,
    /// Writes one JSON document instead of text.
    #[arg(long)]
    json: bool,
    /// Shows no progress bar (none is shown anyway where stderr is not a terminal).
    #[arg(long)]
    no_progress: bool,
}

/// A log's identity, as reports write it.
#[derive(Debug, Clone, Copy)]
struct Uuid([u8; 16]);

impl FromStr for Uuid {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Uuid, &'static str> {
        let digits: String = text.chars().filter(|letter| *letter != '-').collect();
        let number = u128::from_str_radix(&digits, 16).map_err(|_| "not 32 hexadecimal digits")?;
        if digits.len() == 32 { Ok(Uuid(number.to_be_bytes())) } else { Err("not 32 hexadecimal digits") }
    }
}

pub(crate) fn run(arguments: &Arguments, output: &mut Output) -> Result<Exit, Failure> {
    let (source, destination) = (arguments.source.as_path(), arguments.out.as_path());
    check_paths(arguments)?;
    let meter = Meter::open_ended(!arguments.no_progress && !output.is_quiet());
    let disk = meter.looking();
    let wanted = arguments.uuid.map(|uuid| uuid.0);
    let found = if arguments.carve {
        image::files(&disk, source, wanted)?
    } else {
        gather::directory(&disk, source, wanted)?
    };
    let in_use = !arguments.carve && lock::holder(&OsDisk, source).is_some();
    let wishes = Wishes {
        beyond_seals: arguments.beyond_seals,
        partial_batches: arguments.partial_batches,
        infer_bases: arguments.infer_bases,
    };
    let placement = place::place(&found, wishes);
    if placement.placed.is_empty() && placement.unplaced.is_empty() && found.manifest.state().is_none() {
        return Err(Failure::Said(format!(
            "there is no intact record in {}{}",
            source.display(),
            if arguments.carve { "" } else { ". To look at every byte of its files, add --carve" }
        )));
    }
    let records =
        placement.placed.iter().map(|placed| placed.offsets.end - placed.offsets.start).sum::<u64>();
    meter.count_records(records + placement.unplaced.iter().map(|loose| loose.piece.records()).sum::<u64>());
    let on_record = |_| meter.record();
    let unfinished = |failure| explain(failure, destination);
    let written = if placement.placed.is_empty() && found.manifest.state().is_none() {
        None
    } else {
        Some(write::log(&disk, &found, &placement, destination, &on_record).map_err(unfinished)?)
    };
    let unplaced = if placement.unplaced.is_empty() {
        None
    } else {
        let written = write::unplaced(&disk, &found, &placement.unplaced, destination, &on_record);
        Some(written.map_err(|failure| explain(failure, &write::unplaced_path(destination, "-unplaced")))?)
    };
    meter.end();
    let report = Report::of(arguments, &found, &placement, written, unplaced, in_use, disk.bytes_read());
    let complete = report.is_complete();
    if arguments.json {
        output.document(&report)?;
    } else if !complete || !output.is_quiet() {
        report.show(output)?;
    }
    Ok(Exit::of(!complete))
}

/// Says what is left of a salvage that failed in the middle.
fn explain(failure: Failure, made: &Path) -> Failure {
    match failure {
        Failure::Said(why) | Failure::Damaged(why) => {
            let began =
                OsDisk.list(made).is_ok_and(|entries| entries.iter().any(|e| e.name.ends_with(".store")));
            let next = if began {
                format!(". {} is unfinished: remove it before you begin again", made.display())
            } else {
                String::new()
            };
            Failure::Said(format!("{why}{next}"))
        }
        other => other,
    }
}

/// Refuses what cannot work before anything is read.
fn check_paths(arguments: &Arguments) -> Result<(), Failure> {
    let (source, destination) = (&arguments.source, &arguments.out);
    let said = |words: String| Err(Failure::Said(words));
    let Ok(real) = source.canonicalize() else {
        return said(format!("there is no {}: name the log's directory, or a file", source.display()));
    };
    if !real.is_dir() && !arguments.carve {
        return said(format!(
            "{} is not a directory. To look for records in a file, add --carve",
            source.display()
        ));
    }
    let made = [destination.clone(), write::unplaced_path(destination, "-unplaced")];
    for path in &made {
        let mut there = path.as_path();
        let place = loop {
            match there.canonicalize() {
                Ok(real) => break Some(real),
                Err(_) => match there.parent() {
                    Some(parent) if parent.as_os_str().is_empty() => there = Path::new("."),
                    Some(parent) => there = parent,
                    None => break None,
                },
            }
        };
        if real.is_dir() && place.is_some_and(|place| place.starts_with(&real)) {
            return said(format!(
                "{} lies inside {}, which stays untouched: name a place outside",
                path.display(),
                source.display()
            ));
        }
        let entries = OsDisk.list(path).unwrap_or_default();
        if let Some(entry) = entries.iter().find(|entry| entry.name != stonelog::names::LOCK) {
            return said(format!(
                "{} is not empty ({} is in it): name another directory, or remove this one",
                path.display(),
                entry.name
            ));
        }
    }
    let list = write::unplaced_path(destination, "-unplaced.jsonl");
    if list.exists() {
        return said(format!("{} is there already: name another DEST, or remove it", list.display()));
    }
    Ok(())
}
