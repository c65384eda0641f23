//! The map in a terminal.
//!
//! It owns widths, characters, colours and what is folded. Every state has a character of its own, so
//! that the map says the same without colours, through a pipe and to whoever cannot tell them apart.
//! Invariant: what it writes is bounded unless all was asked for.

use std::io;

use anstyle::{AnsiColor, Style as Ansi};

use super::Map;
use super::picture::{Bar, State, cells};
use crate::finding::{Finding, Severity};
use crate::output::{self, BAD, FAINT, GOOD, ODD, Output, STRONG, styled};

/// From so many segments on, runs of clean ones are folded.
const FOLD_FROM: usize = 24;
/// A shorter run of clean segments is not worth folding.
const LEAST_FOLD: usize = 3;
/// At most so many bars are drawn, unless all were asked for.
const MOST_BARS: usize = 120;
/// At most so many findings are named below them.
const MOST_FINDINGS: usize = 12;

/// How it is drawn.
pub(super) struct Style {
    pub(super) width: usize,
    pub(super) all: bool,
    pub(super) ascii: bool,
}

const fn glyph(state: State, ascii: bool) -> char {
    match (state, ascii) {
        (State::Preallocated, false) => '·',
        (State::Preallocated, true) => '.',
        (State::Truncated, false) => '░',
        (State::Truncated, true) => '-',
        (State::Clean, false) => '█',
        (State::Clean, true) => '#',
        (State::BeyondSeal, _) => '+',
        (State::Torn, _) => '~',
        (State::Lost, _) => 'L',
        (State::Damaged, _) => 'X',
    }
}

const fn colour(state: State) -> Ansi {
    match state {
        State::Preallocated | State::Truncated => FAINT,
        State::Clean => AnsiColor::Green.on_default(),
        State::BeyondSeal => AnsiColor::Cyan.on_default(),
        State::Torn => ODD,
        State::Lost => AnsiColor::Magenta.on_default().bold(),
        State::Damaged => BAD.invert(),
    }
}

/// A line of the map.
enum Row<'a> {
    Bar(&'a Bar),
    /// So many clean segments in a row.
    Folded(&'a [Bar]),
}

pub(super) fn draw(map: &Map<'_>, style: &Style, output: &mut Output) -> io::Result<()> {
    let report = map.report;
    let headline = match report.worst() {
        Some(Severity::Damage) => BAD,
        Some(Severity::Warning) => ODD,
        _ => GOOD,
    };
    output.line(styled(headline, report.headline()))?;
    let rows = if style.all { map.bars.iter().map(Row::Bar).collect() } else { fold(map.bars) };
    let texts: Vec<[String; 4]> = rows.iter().map(describe).collect();
    let widths: Vec<usize> = (0..4)
        .map(|column| texts.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max())
        .map(|width| width.unwrap_or(0))
        .collect();
    let left: usize = widths.iter().map(|width| width + 2).sum();
    let room = style.width.saturating_sub(left).max(16);
    let longest = map.bars.iter().map(|bar| bar.length).max().unwrap_or(1).max(1);
    let scale = longest.div_ceil(room as u64).max(1);
    summary(map, scale, output)?;
    output.line("")?;
    let mut hidden = 0usize;
    for (number, (row, text)) in rows.iter().zip(&texts).enumerate() {
        if number >= MOST_BARS && !style.all {
            hidden += 1;
            continue;
        }
        let mut line = String::new();
        for ((cell, width), column) in text.iter().zip(&widths).zip(0..) {
            let padding = " ".repeat(width.saturating_sub(cell.chars().count()));
            // The kind is a word, the rest are numbers.
            line += &if column == 1 { format!("{cell}{padding}  ") } else { format!("{padding}{cell}  ") };
        }
        line += &match row {
            Row::Bar(bar) => bar_line(bar, scale, style.ascii),
            Row::Folded(_) => styled(FAINT, "all clean"),
        };
        output.line(line.trim_end())?;
    }
    if hidden > 0 {
        let directory = report.findings.directory.display();
        let more = output::count(hidden as u64, "line");
        output.line(styled(FAINT, format!("... {more} more: log-repair map {directory} --all")))?;
    }
    output.line("")?;
    legend(map, style.ascii, output)?;
    findings(map, output)
}

/// Folds runs of clean segments, where there are many in all. The last one is always shown: that is
/// where the log goes on.
fn fold(bars: &[Bar]) -> Vec<Row<'_>> {
    if bars.len() <= FOLD_FROM {
        return bars.iter().map(Row::Bar).collect();
    }
    let (mut rows, mut rest) = (Vec::new(), bars);
    while let Some((first, others)) = rest.split_first() {
        let quiet = rest.iter().take_while(|bar| bar.is_quiet() && bar.kind == "sealed").count();
        if quiet < LEAST_FOLD {
            rows.push(Row::Bar(first));
            rest = others;
            continue;
        }
        let (folded, others) = rest.split_at(quiet);
        rows.push(Row::Folded(folded));
        rest = others;
    }
    rows
}

/// The words to the left of a bar: id, kind, offsets, size.
fn describe(row: &Row<'_>) -> [String; 4] {
    let offsets = |from: Option<output::Span>, to: Option<output::Span>| match (from, to) {
        (Some(from), Some(to)) => format!("{}..{}", from.start, to.end),
        _ => "-".to_string(),
    };
    match row {
        Row::Bar(bar) => [
            format!("{:x}", bar.segment),
            bar.kind.to_string(),
            offsets(bar.offsets, bar.offsets),
            bar.file_bytes.map_or_else(|| "-".to_string(), output::bytes),
        ],
        Row::Folded(bars) => {
            let (first, last) = (bars.first(), bars.last());
            let bytes = bars.iter().filter_map(|bar| bar.file_bytes).fold(0, u64::saturating_add);
            let ids = first.zip(last).map(|(first, last)| format!("{:x}..{:x}", first.segment, last.segment));
            [
                ids.unwrap_or_default(),
                output::count(bars.len() as u64, "segment"),
                offsets(first.and_then(|bar| bar.offsets), last.and_then(|bar| bar.offsets)),
                output::bytes(bytes),
            ]
        }
    }
}

fn bar_line(bar: &Bar, scale: u64, ascii: bool) -> String {
    let mut line = String::new();
    for group in cells(bar, scale).chunk_by(|left, right| left == right) {
        let Some(state) = group.first() else { continue };
        let text: String = std::iter::repeat_n(glyph(*state, ascii), group.len()).collect();
        line += &styled(colour(*state), text);
    }
    line
}

fn summary(map: &Map<'_>, scale: u64, output: &mut Output) -> io::Result<()> {
    let directory = map.report.findings.directory.display();
    let held = map.offsets().map(|held| format!("offsets {}..{} in ", held.start, held.end));
    let stores = output::count(map.bars.len() as u64, "segment");
    let bytes = output::bytes(map.bytes());
    let cell = output::bytes(scale);
    let line = format!("{directory}: {}{stores}, {bytes}; a cell is {cell}", held.unwrap_or_default());
    output.line(styled(FAINT, line))
}

/// The states that occur, each with its character.
fn legend(map: &Map<'_>, ascii: bool, output: &mut Output) -> io::Result<()> {
    for total in map.totals() {
        let sign = styled(colour(total.state), glyph(total.state, ascii));
        let bytes = output::bytes(total.bytes);
        output.line(format_args!(
            "{sign}  {:<12}  {bytes:>10}  {}",
            total.state.word(),
            total.state.meaning()
        ))?;
    }
    Ok(())
}

fn findings(map: &Map<'_>, output: &mut Output) -> io::Result<()> {
    let directory = map.report.findings.directory.display();
    let list = &map.report.list;
    if !list.is_empty() {
        output.line("")?;
    }
    let width = list.iter().take(MOST_FINDINGS).map(|finding| finding.code.text().len()).max().unwrap_or(0);
    for finding in list.iter().take(MOST_FINDINGS) {
        let style = match finding.code.severity() {
            Severity::Damage => BAD,
            Severity::Warning => ODD,
            Severity::Note => STRONG,
        };
        let code = styled(style, format!("{:<width$}", finding.code.text()));
        output.line(format_args!("{code}  {}{}", place(finding), finding.what))?;
    }
    if list.len() > MOST_FINDINGS {
        let more = output::count((list.len() - MOST_FINDINGS) as u64, "finding");
        output.line(styled(FAINT, format!("... and {more} more")))?;
    }
    output.line("")?;
    let explained = list.iter().find_map(|finding| {
        let file = finding.file.as_ref()?;
        finding.position.map(|position| format!("{file}:{position}"))
    });
    let damaged = map.report.worst() == Some(Severity::Damage);
    let mut next = Vec::new();
    if !list.is_empty() {
        next.push(format!("log-repair check {directory}"));
    }
    next.extend(explained.filter(|_| damaged).map(|place| format!("log-repair explain {directory} {place}")));
    next.push(format!("log-repair map {directory} --html map.html"));
    for (number, command) in next.iter().enumerate() {
        output.line(format_args!("{}  {command}", if number == 0 { "next" } else { "    " }))?;
    }
    Ok(())
}

fn place(finding: &Finding) -> String {
    let mut place = String::new();
    if let Some(file) = &finding.file {
        place += file;
    }
    if let Some(offsets) = &finding.offsets {
        place += &format!("{}{}", if place.is_empty() { "" } else { ", " }, output::records(offsets));
    }
    if !place.is_empty() {
        place += ": ";
    }
    place
}
