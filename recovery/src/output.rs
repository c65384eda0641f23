//! How results look: the writer, the colours, and how numbers, ranges, times and bytes are spelled.
//!
//! It owns the one place where this tool writes to stdout and stderr. It does not know what it
//! writes about. Invariants: every write's error goes back to the caller (a closed pipe ends a
//! verb); nothing is coloured that is not a terminal, unless asked for; bytes from a log never
//! reach a terminal unescaped, since a record may hold anything.

use std::fmt::{self, Write as _};
use std::io::{self, IsTerminal, Write};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use anstream::{AutoStream, ColorChoice};
use anstyle::{AnsiColor, Style};
use serde::Serialize;

/// What every JSON document and line of this tool follows; raised when a field changes its meaning.
pub(crate) const SCHEMA_VERSION: u32 = 1;

pub(crate) const GOOD: Style = AnsiColor::Green.on_default().bold();
pub(crate) const BAD: Style = AnsiColor::Red.on_default().bold();
pub(crate) const ODD: Style = AnsiColor::Yellow.on_default().bold();
pub(crate) const FAINT: Style = Style::new().dimmed();
pub(crate) const STRONG: Style = Style::new().bold();

/// `text` in a style, for a `write!`.
pub(crate) fn styled<T: fmt::Display>(style: Style, text: T) -> String {
    format!("{style}{text}{style:#}")
}

/// Where a run writes to.
pub struct Streams {
    stdout: Box<dyn Write + Send>,
    stderr: Box<dyn Write + Send>,
    /// How each is coloured where nobody says.
    choices: (ColorChoice, ColorChoice),
    /// Whether somebody looks at stdout at a terminal.
    terminal: bool,
}

impl Streams {
    /// This process's own.
    pub fn of_process() -> Streams {
        Streams {
            choices: (AutoStream::choice(&io::stdout()), AutoStream::choice(&io::stderr())),
            terminal: io::stdout().is_terminal(),
            stdout: Box::new(io::stdout()),
            stderr: Box::new(io::stderr()),
        }
    }

    /// These, without colours unless asked for.
    pub fn to(stdout: impl Write + Send + 'static, stderr: impl Write + Send + 'static) -> Streams {
        Streams {
            choices: (ColorChoice::Never, ColorChoice::Never),
            terminal: false,
            stdout: Box::new(stdout),
            stderr: Box::new(stderr),
        }
    }

    /// Shows what is wrong with the command line, or the help that was asked for.
    pub(crate) fn explain(self, error: &clap::Error) -> io::Result<()> {
        let (to, choice) = match error.use_stderr() {
            true => (self.stderr, self.choices.1),
            false => (self.stdout, self.choices.0),
        };
        let mut stream = AutoStream::new(to, choice);
        write!(stream, "{}", error.render().ansi())?;
        stream.flush()
    }
}

impl fmt::Debug for Streams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Streams").field("terminal", &self.terminal).finish_non_exhaustive()
    }
}

/// Stdout below any colour handling, of which that handling and raw bytes each need a hold.
#[derive(Clone)]
struct Sink(Arc<Mutex<Box<dyn Write + Send>>>);

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).flush()
    }
}

/// Where results go, and what does not belong into them.
pub(crate) struct Output {
    sink: Sink,
    writer: io::BufWriter<AutoStream<Box<dyn Write + Send>>>,
    complaints: AutoStream<Box<dyn Write + Send>>,
    terminal: bool,
    quiet: bool,
}

impl Output {
    /// Colour codes are passed on or taken out by `choice`, if there is one; told to be quiet, it says nothing
    /// but results and errors.
    pub(crate) fn new(streams: Streams, choice: Option<ColorChoice>, quiet: bool) -> Output {
        let sink = Sink(Arc::new(Mutex::new(streams.stdout)));
        let stdout: Box<dyn Write + Send> = Box::new(sink.clone());
        let stdout = AutoStream::new(stdout, choice.unwrap_or(streams.choices.0));
        Output {
            sink,
            writer: io::BufWriter::with_capacity(64 << 10, stdout),
            // (What was asked for colours results.)
            complaints: AutoStream::new(streams.stderr, streams.choices.1),
            terminal: streams.terminal,
            quiet,
        }
    }

    /// Whether nothing but results and errors is wanted.
    pub(crate) fn is_quiet(&self) -> bool {
        self.quiet
    }

    /// Whether somebody looks at this at a terminal.
    pub(crate) fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// The terminal's width, where somebody looks at this at one.
    pub(crate) fn width(&self) -> Option<usize> {
        let size = if self.terminal { terminal_size::terminal_size() } else { None };
        size.map(|(width, _)| usize::from(width.0))
    }

    /// Writes one line.
    pub(crate) fn line(&mut self, line: impl fmt::Display) -> io::Result<()> {
        writeln!(self.writer, "{line}")
    }

    /// Writes text of several lines as it is.
    pub(crate) fn text(&mut self, text: &str) -> io::Result<()> {
        self.writer.write_all(text.as_bytes())
    }

    /// Writes a JSON document over several lines, for people with a pager and for programs alike.
    pub(crate) fn document(&mut self, value: &impl Serialize) -> io::Result<()> {
        serde_json::to_writer_pretty(&mut self.writer, value).map_err(io::Error::from)?;
        self.line("")
    }

    /// Writes a JSON value on a line of its own.
    pub(crate) fn json_line(&mut self, value: &impl Serialize) -> io::Result<()> {
        serde_json::to_writer(&mut self.writer, value).map_err(io::Error::from)?;
        self.line("")
    }

    /// Flushes, then gives the stream below any colour handling: for bytes that are not text.
    pub(crate) fn raw(&mut self) -> io::Result<Raw> {
        self.writer.flush()?;
        Ok(Raw(io::BufWriter::with_capacity(64 << 10, self.sink.clone())))
    }

    /// Hands everything on.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }

    /// Tells on stderr what is good to know and no error; nothing where quiet is wanted.
    pub(crate) fn remark(&mut self, message: &str) {
        if !self.quiet {
            self.complain(message);
        }
    }

    /// Tells an error, or what else does not belong into the result, on stderr.
    pub(crate) fn complain(&mut self, message: &str) {
        // Where stderr is gone, nobody is there to be told.
        let _ = writeln!(self.complaints, "{}: {message}", styled(BAD, "log-repair"));
    }
}

/// Stdout for bytes that are not text.
pub(crate) struct Raw(io::BufWriter<Sink>);

impl Write for Raw {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Columns of text, as wide as their widest cell.
#[derive(Debug, Default)]
pub(crate) struct Columns {
    rows: Vec<Vec<String>>,
}

impl Columns {
    pub(crate) fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.to_vec());
    }

    /// The lines; the first row is a heading. Cells that begin with a digit stand to the right.
    pub(crate) fn lines(&self) -> Vec<String> {
        let count = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let widest = |column: usize| {
            self.rows
                .iter()
                .filter_map(|row| row.get(column))
                .map(|cell| cell.chars().count())
                .max()
                .unwrap_or(0)
        };
        let widths: Vec<usize> = (0..count).map(widest).collect();
        let right = |column: usize| {
            let mut cells = self.rows.iter().skip(1).filter_map(|row| row.get(column)).peekable();
            cells.peek().is_some()
                && cells.all(|cell| cell.starts_with(|c: char| c.is_ascii_digit()) || cell == "-")
        };
        let to_right: Vec<bool> = (0..count).map(right).collect();
        let line = |row: &Vec<String>| {
            let mut line = String::new();
            for ((cell, width), right) in row.iter().zip(&widths).zip(&to_right) {
                let padding = " ".repeat(width.saturating_sub(cell.chars().count()));
                let (before, behind) = if *right { (padding.as_str(), "") } else { ("", padding.as_str()) };
                let _ = write!(line, "{before}{cell}{behind}  ");
            }
            line.trim_end().to_string()
        };
        self.rows.iter().map(line).collect()
    }
}

/// "1 record", "3 records".
pub(crate) fn count(number: u64, one: &str) -> String {
    if number == 1 { format!("1 {one}") } else { format!("{number} {one}s") }
}

/// A sentence's first letter as a sentence has it.
pub(crate) fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters
        .next()
        .map(|first| first.to_uppercase().collect::<String>() + letters.as_str())
        .unwrap_or_default()
}

/// Offsets in words: "record 5", "records 5..9" (the end is not in it).
pub(crate) fn records(offsets: &Range<u64>) -> String {
    if offsets.end.saturating_sub(offsets.start) == 1 {
        format!("record {}", offsets.start)
    } else {
        format!("records {}..{}", offsets.start, offsets.end)
    }
}

/// A number of bytes for people: "512 B", "1.5 MiB".
pub(crate) fn bytes(number: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if number < 1024 {
        return format!("{number} B");
    }
    let mut tenths = u128::from(number) * 10 / 1024;
    let mut units = UNITS.iter();
    let mut unit = units.next();
    while tenths >= 10_240
        && let Some(next) = units.next()
    {
        tenths /= 1024;
        unit = Some(next);
    }
    format!("{}.{} {}", tenths / 10, tenths % 10, unit.unwrap_or(&"B"))
}

/// A log's identity as it is usually written.
pub(crate) fn uuid(bytes: &[u8; 16]) -> String {
    let mut text = String::with_capacity(36);
    for (index, byte) in bytes.iter().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// Milliseconds since the Unix epoch as a time of day in UTC, the way RFC 3339 writes it.
pub(crate) fn time(millis: u64) -> String {
    let (days, rest) = (millis / 86_400_000, millis % 86_400_000);
    // Years are counted from March, so that a leap day is a year's last; an era is 400 of them.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute) = (rest / 3_600_000, rest / 60_000 % 60);
    let (second, milli) = (rest / 1_000 % 60, rest % 1_000);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z")
}

/// Bytes as one line of text: UTF-8 stays, control characters and strays become escapes.
pub(crate) fn escaped(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            // Quotes need no escape: the text is not quoted. A backslash does, to stay unambiguous.
            if matches!(character, '\'' | '"') {
                text.push(character)
            } else {
                text.extend(character.escape_debug())
            }
        }
        for byte in chunk.invalid() {
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text
}

/// Bytes as a string of hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// Bytes as `hexdump -C` shows them.
pub(crate) fn hexdump(bytes: &[u8]) -> Vec<String> {
    let lines = bytes.chunks(16).enumerate().map(|(number, row)| {
        let mut line = format!("{:08x} ", number * 16);
        for index in 0..16 {
            if index % 8 == 0 {
                line.push(' ');
            }
            let _ = match row.get(index) {
                Some(byte) => write!(line, "{byte:02x} "),
                None => write!(line, "   "),
            };
        }
        let shown =
            |byte: &u8| if byte.is_ascii_graphic() || *byte == b' ' { char::from(*byte) } else { '.' };
        line.push_str(" |");
        line.extend(row.iter().map(shown));
        line.push('|');
        line
    });
    lines.chain([format!("{:08x}", bytes.len())]).collect()
}

/// A range as JSON has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Span {
    pub(crate) start: u64,
    pub(crate) end: u64,
}

impl From<&Range<u64>> for Span {
    fn from(range: &Range<u64>) -> Span {
        Span { start: range.start, end: range.end }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        assert_eq!(time(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(time(951_782_400_000), "2000-02-29T00:00:00.000Z");
        assert_eq!(time(1_709_251_199_999), "2024-02-29T23:59:59.999Z");
        assert_eq!(time(4_107_542_400_000), "2100-03-01T00:00:00.000Z");
        assert_eq!(time(1_735_689_599_000), "2024-12-31T23:59:59.000Z");
        // Whatever a hostile file says, there is a time for it.
        assert!(time(u64::MAX).starts_with("584556019-"));
    }

    #[test]
    fn sizes_are_short() {
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1024), "1.0 KiB");
        assert_eq!(bytes(1_572_864), "1.5 MiB");
        assert_eq!(bytes(u64::MAX), "15.9 EiB");
    }

    #[test]
    fn nothing_reaches_a_terminal_unescaped() {
        assert_eq!(escaped("grün \"5\" \\\n\u{1b}[2J".as_bytes()), "grün \"5\" \\\\\\n\\u{1b}[2J");
        assert_eq!(escaped(b"ab\xffc\x80"), "ab\\xffc\\x80");
    }

    #[test]
    fn a_hexdump_reads_like_the_usual_one() {
        let lines = hexdump(b"0123456789abcdef\x00!");
        assert_eq!(
            lines,
            [
                "00000000  30 31 32 33 34 35 36 37  38 39 61 62 63 64 65 66  |0123456789abcdef|",
                "00000010  00 21                                             |.!|",
                "00000012",
            ]
        );
    }
}
