//! `dump`: the records of a log, or the frames that hold them.
//!
//! It owns the forms they are written in. Records come through `Log::open_read_only`, told to serve
//! what is left, so that what is shown is what an application would read; frames come from the
//! library's scanner, store by store (`frames`). Invariants: a record that cannot be read is named and
//! passed over, never left out silently; in text and raw what is not a record goes to stderr, so that
//! stdout holds records alone.
//!
//! Why following opens the log again each time, and no handle stays open: a reader of another process hears
//! nothing of what the writer does, and a fresh look is what `open_read_only` promises about.

mod follow;
mod frames;

use std::io::{self, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;
use stonelog::{DamagePolicy, Error, Log, Options, ReadMode};

use crate::looking::LookingDisk;
use crate::output::{self, BAD, ODD, Output, SCHEMA_VERSION, STRONG, styled};
use crate::{Exit, Failure};
use follow::Watch;

/// Writes out records, or the frames that hold them.
///
/// Shows what is proven durable, as `Log::open_read_only` serves it. A record that cannot be read
/// is named (in hex and json where it would stand, otherwise on stderr) and passed over; the exit
/// code is then 4.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    directory: crate::Directory,
    /// The first offset to show.
    #[arg(long, default_value_t = 0, value_name = "OFFSET")]
    from: u64,
    /// The offset to stop before.
    #[arg(long, default_value_t = u64::MAX, hide_default_value = true, value_name = "OFFSET")]
    to: u64,
    /// How many to show at most.
    #[arg(long, default_value_t = u64::MAX, hide_default_value = true, value_name = "COUNT")]
    limit: u64,
    /// How to write them.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// Shows the frames of every store instead: works without a MANIFEST, and on torn and damaged
    /// stores. In text or json.
    #[arg(long, conflicts_with = "follow")]
    frames: bool,
    /// Goes on as the log grows, also beside the program that writes to it, until --limit or --to is reached or
    /// Ctrl-C ends it (exit code 32).
    #[arg(long)]
    follow: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// The offset, a tab, and the bytes as one line of text; what is not printable is escaped.
    Text,
    /// As `hexdump -C` has it, behind a line that names the record.
    Hex,
    /// A JSON object on each line: v (the schema's version), offset, length, and text or hex.
    Json,
    /// For each record its length (4 bytes, little-endian) and its bytes.
    Raw,
}

pub(crate) fn run(arguments: &Arguments, output: &mut Output) -> Result<Exit, Failure> {
    if arguments.frames && !matches!(arguments.format, Format::Text | Format::Json) {
        return Err(Failure::Usage(
            "frames are shown as text or json: leave --format away, or --frames".to_string(),
        ));
    }
    if arguments.format == Format::Raw && output.is_terminal() {
        return Err(Failure::Usage(
            "raw bytes can upset a terminal: send them to a file or a program, or use --format hex"
                .to_string(),
        ));
    }
    if arguments.frames { frames::run(arguments, output) } else { records(arguments, output) }
}

// ---- records ----

fn records(arguments: &Arguments, output: &mut Output) -> Result<Exit, Failure> {
    let directory = &arguments.directory.path;
    let raw = if arguments.format == Format::Raw { Some(output.raw()?) } else { None };
    let mut printer = Printer { output, raw, format: arguments.format, trouble: None, unreadable: 0 };
    let mut at = Range { start: arguments.from, end: arguments.to };
    let mut left = arguments.limit;
    // Where the log ended at the last look.
    let mut seen_end = 0;
    let mut failed = 0;
    loop {
        // Before the look, so that what comes while it is under way is not missed.
        let watch = arguments.follow.then(|| Watch::begin(directory));
        let log = match open(directory) {
            Ok(log) => log,
            // What fails beside a writer may have moved under the look.
            Err(_) if seen_end > 0 && failed < MOST_FAILED_LOOKS => {
                failed += 1;
                watch.iter().for_each(Watch::pause);
                continue;
            }
            Err(failure) => return Err(failure),
        };
        failed = 0;
        let offsets = log.offsets();
        if offsets.end < seen_end && offsets.end < at.start {
            at.start = offsets.end;
            printer
                .output
                .remark(&format!("the log was cut back to offset {0}; going on from there", offsets.end));
        }
        seen_end = offsets.end;
        let shown = printer.all(&log, &mut at, left)?;
        left -= shown;
        printer.flush()?;
        if let Some(watch) = watch.filter(|_| left > 0 && !at.is_empty()) {
            watch.wait();
            continue;
        }
        if !arguments.follow {
            remark_on_what_is_in_flight(&log, arguments, printer.output);
        }
        break;
    }
    let unreadable = printer.unreadable;
    if unreadable > 0 {
        output.complain(&format!(
            "{} could not be read. To see all that is wrong, run: log-repair check {}",
            output::count(unreadable, "record"),
            directory.display()
        ));
    }
    Ok(Exit::of(unreadable > 0))
}

/// So many looks in a row may fail while a log is followed.
const MOST_FAILED_LOOKS: u32 = 25;

fn open(directory: &Path) -> Result<Log, Failure> {
    let options = Options::new()
        .on_damage(DamagePolicy::Serve)
        .read_mode(ReadMode::Buffered)
        .disk(Arc::new(LookingDisk::default()));
    options.open_read_only(directory).map_err(|error| match error {
        Error::Io { path, source, .. } if source.kind() == io::ErrorKind::NotFound && path == *directory => {
            Failure::Said(format!(
                "{0} holds no log with a MANIFEST. If one was here, run: log-repair check {0}",
                directory.display()
            ))
        }
        Error::Damaged(damage) => Failure::Damaged(format!(
            "{damage}; what the stores hold: log-repair dump {} --frames",
            directory.display()
        )),
        error => Failure::Said(format!(
            "{error}. What the stores hold: log-repair dump {} --frames",
            directory.display()
        )),
    })
}

fn remark_on_what_is_in_flight(log: &Log, arguments: &Arguments, output: &mut Output) {
    let recovery = log.recovery();
    let in_flight = recovery.valid_end.saturating_sub(recovery.next_offset);
    if in_flight > 0 && arguments.to > recovery.next_offset {
        output.remark(&format!(
            "{} from offset {} on, whole but not proven acknowledged, not shown (an opening for writing keeps them): \
             log-repair dump {} --frames --from {1}",
            output::count(in_flight, "record"),
            recovery.next_offset,
            arguments.directory.path.display()
        ));
    }
}

/// Why records could not be shown; neighbours with the same trouble are told at once.
struct Trouble {
    offsets: Range<u64>,
    lost: bool,
    file: Option<PathBuf>,
    what: String,
}

struct Printer<'a> {
    output: &'a mut Output,
    raw: Option<output::Raw>,
    format: Format,
    trouble: Option<Trouble>,
    unreadable: u64,
}

impl Printer<'_> {
    /// Shows at most `limit` of the records `at`, whose start moves on to the first that was not looked at;
    /// how many were shown.
    fn all(&mut self, log: &Log, at: &mut Range<u64>, limit: u64) -> Result<u64, Failure> {
        let mut reader = log.reader(at.start);
        let mut shown = 0u64;
        while shown < limit && reader.offset() < at.end {
            let offset = reader.offset();
            let error = match reader.next() {
                Ok(None) => break,
                Ok(Some(record)) => {
                    self.tell_trouble()?;
                    self.record(offset, record.bytes())?;
                    shown += 1;
                    at.start = reader.offset();
                    continue;
                }
                Err(error) => error,
            };
            if reader.offset() == offset {
                // Not about this record, but about the whole log.
                self.tell_trouble()?;
                return Err(error.into());
            }
            self.note(offset, &error)?;
            // A damaged file may name any number of records that are not there.
            let next = log.readable_from(reader.offset()).min(at.end);
            if next > reader.offset() {
                self.stretch(next);
                reader = log.reader(next);
            }
            at.start = reader.offset();
        }
        Ok(shown)
    }

    /// Hands on all there is.
    fn flush(&mut self) -> io::Result<()> {
        self.tell_trouble()?;
        match &mut self.raw {
            Some(raw) => raw.flush(),
            None => self.output.flush(),
        }
    }

    fn note(&mut self, offset: u64, error: &Error) -> io::Result<()> {
        let (lost, file, what) = match error {
            Error::Lost { .. } => (true, None, "a repair declared it lost".to_string()),
            Error::Damaged(damage) => (false, Some(damage.file.clone()), damage.what.clone()),
            Error::Io { path, source, .. } => {
                (false, Some(path.clone()), format!("the disk cannot read it: {source}"))
            }
            other => (false, None, other.to_string()),
        };
        self.unreadable = self.unreadable.saturating_add(u64::from(!lost));
        match &mut self.trouble {
            Some(before) if (before.lost, &before.file, &before.what) == (lost, &file, &what) => {
                before.offsets.end = offset.saturating_add(1);
            }
            _ => {
                self.tell_trouble()?;
                self.trouble = Some(Trouble { offsets: offset..offset.saturating_add(1), lost, file, what });
            }
        }
        Ok(())
    }

    /// The trouble that was just noted goes on, up to the record `end`.
    fn stretch(&mut self, end: u64) {
        if let Some(trouble) = &mut self.trouble {
            let more = end.saturating_sub(trouble.offsets.end);
            trouble.offsets.end = trouble.offsets.end.max(end);
            self.unreadable = self.unreadable.saturating_add(if trouble.lost { 0 } else { more });
        }
    }

    fn tell_trouble(&mut self) -> io::Result<()> {
        let Some(trouble) = self.trouble.take() else { return Ok(()) };
        let file = trouble.file.as_ref().map(|file| format!(" ({})", file.display())).unwrap_or_default();
        let state = if trouble.lost { "lost" } else { "damaged" };
        match self.format {
            Format::Json => self.output.json_line(&JsonTrouble {
                v: SCHEMA_VERSION,
                offset: trouble.offsets.start,
                end: trouble.offsets.end,
                state,
                what: &trouble.what,
                file: trouble.file.map(|file| file.display().to_string()),
            }),
            Format::Hex => {
                let style = if trouble.lost { ODD } else { BAD };
                let line =
                    format!("# {}: {state}: {}{file}", output::records(&trouble.offsets), trouble.what);
                self.output.line(styled(style, line))
            }
            Format::Text | Format::Raw => {
                // In the order in which it happened, where both go to one terminal.
                self.output.flush()?;
                self.output.complain(&format!(
                    "{}: {state}: {}{file}",
                    output::records(&trouble.offsets),
                    trouble.what
                ));
                Ok(())
            }
        }
    }

    fn record(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        match (self.format, &mut self.raw) {
            (Format::Raw, Some(raw)) => {
                let length =
                    u32::try_from(bytes.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
                raw.write_all(&length.to_le_bytes())?;
                raw.write_all(bytes)
            }
            (Format::Hex, _) => {
                let title = format!("# record {offset}, {}", output::count(bytes.len() as u64, "byte"));
                self.output.line(styled(STRONG, title))?;
                output::hexdump(bytes).into_iter().try_for_each(|line| self.output.line(line))
            }
            (Format::Json, _) => {
                let text = std::str::from_utf8(bytes).ok();
                let hex = text.is_none().then(|| output::hex(bytes));
                self.output.json_line(&JsonRecord {
                    v: SCHEMA_VERSION,
                    offset,
                    length: bytes.len(),
                    text,
                    hex,
                })
            }
            (Format::Text | Format::Raw, _) => {
                self.output.line(format_args!("{offset}\t{}", output::escaped(bytes)))
            }
        }
    }
}

#[derive(Serialize)]
struct JsonRecord<'a> {
    v: u32,
    offset: u64,
    length: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hex: Option<String>,
}

#[derive(Serialize)]
struct JsonTrouble<'a> {
    v: u32,
    offset: u64,
    end: u64,
    state: &'static str,
    what: &'a str,
    file: Option<String>,
}
