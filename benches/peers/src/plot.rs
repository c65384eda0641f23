//! The plot: one small bar chart for each chosen row, as SVG.
//!
//! Bars are linear and begin at zero, the best above. Stonelog stands out; the machine's limit is a line; where
//! durability is asked, who does not truly sync is drawn pale and hatched, and does not stretch the scale. What does not
//! fit on the scale is cut off and says so. The drawing knows the report alone.

use std::path::Path;

use anyhow::Result;
use svg::Document;
use svg::node::element::{Definitions, Group, Line, Path as Shape, Pattern, Rectangle, Text, Title};

use crate::report::{Better, Failure, Report, Statistic};
use crate::table::{GROUPS, Row, Unit};

const SUBJECT: &str = "stonelog";

/// One chart.
struct Panel {
    title: &'static str,
    /// Which of the table's rows: workload and metric.
    row: (&'static str, &'static str),
    limit: Option<&'static str>,
    /// Only truly durable peers make the scale.
    durable: bool,
    /// Who does not check what is read says so.
    reads: bool,
}

const fn panel(title: &'static str, row: (&'static str, &'static str), limit: Option<&'static str>) -> Panel {
    Panel { title, row, limit, durable: false, reads: false }
}

const fn durable(
    title: &'static str,
    row: (&'static str, &'static str),
    limit: Option<&'static str>,
) -> Panel {
    Panel { title, row, limit, durable: true, reads: false }
}

const fn reads(title: &'static str, row: (&'static str, &'static str), limit: Option<&'static str>) -> Panel {
    Panel { title, row, limit, durable: false, reads: true }
}

const WRITE: Option<&str> = Some("write(2), 1 MiB each");
const FLOOR: Option<&str> = Some("write + fdatasync 4 KiB, written before");
const FRAMES: Option<&str> = Some("bare loop over frames");

const PANELS: &[Panel] = &[
    panel("Append 128 B, single calls, unsynced", ("append-128", "rate"), WRITE),
    panel("Append 1 KiB, single calls, unsynced", ("append-1k", "rate"), WRITE),
    panel("Append 16 KiB, single calls, unsynced", ("append-16k", "rate"), WRITE),
    panel("Append 1,000 x 128 B batches, unsynced", ("batch-128", "rate"), WRITE),
    panel("Append 100 x 1 KiB batches, unsynced", ("batch-1k", "rate"), WRITE),
    panel("Append 10 x 16 KiB batches, unsynced", ("batch-16k", "rate"), WRITE),
    durable("Durable append of 1 KiB, 1 thread: p50", ("durable-1", "p50"), FLOOR),
    durable("Durable appends of 1 KiB, 4 threads", ("durable-4", "rate"), None),
    durable("Durable appends of 1 KiB, 64 threads", ("durable-64", "rate"), None),
    durable("Durable batches of 100 x 128 B", ("durable-batch", "rate"), None),
    reads("Scan, 128 B", ("scan-128", "rate"), FRAMES),
    reads("Scan, 1 KiB", ("scan-1k", "rate"), FRAMES),
    reads("Random read of 1 KiB, 1 thread", ("random-1", "rate"), Some("mapped read")),
    reads("Random read of 1 KiB, 2 threads", ("random-2", "rate"), None),
    durable("Durable append to the reader: lag, p50", ("lag", "p50"), None),
    panel("Reopen 1 GiB after a clean close", ("reopen-1g", "seconds"), None),
    panel("Reopen 1 GiB after kill -9", ("killed-1g", "seconds"), None),
    panel("Reopen 1 GiB: peak anonymous memory", ("reopen-1g", "anonymous"), None),
    panel("On disk per payload byte, 128 B", ("scan-128", "allocated_per_payload"), None),
    panel("On disk per payload byte, 1 KiB", ("scan-1k", "allocated_per_payload"), None),
    panel("Give up half of 256 MiB, then sync", ("truncate", "seconds"), None),
];

const COLUMNS: usize = 3;
const WIDTH: f64 = 1260.0;
const MARGIN: f64 = 28.0;
const GUTTER: f64 = 36.0;
const PANEL_WIDTH: f64 = (WIDTH - 2.0 * MARGIN - (COLUMNS as f64 - 1.0) * GUTTER) / COLUMNS as f64;
const HEAD: f64 = 118.0;
const BAR: f64 = 13.0;
const STEP: f64 = 18.0;
const NAME_WIDTH: f64 = 98.0;
const VALUE_WIDTH: f64 = 66.0;
const PANEL_HEAD: f64 = 40.0;
const BAR_WIDTH: f64 = PANEL_WIDTH - NAME_WIDTH - VALUE_WIDTH;

const INK: &str = "#1f2933";
const QUIET: &str = "#66727f";
const OWN: &str = "#0f766e";
const PEER: &str = "#a9b4c2";
const LIMIT: &str = "#c2410c";

/// Draws the report into this file.
pub fn save(report: &Report, path: &Path) -> Result<()> {
    Ok(svg::save(path, &draw(report))?)
}

/// One subject in a chart.
struct Bar<'a> {
    name: &'a str,
    found: Option<Statistic>,
    /// What stands where there is no number.
    instead: String,
    /// What stands behind the name.
    note: &'static str,
    /// It is measured, but does not do what is asked.
    is_pale: bool,
}

fn draw(report: &Report) -> Document {
    let panels: Vec<(&Panel, &Row)> =
        PANELS.iter().filter_map(|panel| Some((panel, row_of(report, panel)?))).collect();
    let height = PANEL_HEAD + STEP * report.subjects.len() as f64 + 34.0;
    let lines = panels.len().div_ceil(COLUMNS) as f64;
    let whole = HEAD + lines * height + 40.0;
    let mut document = Document::new()
        .set("viewBox", (0, 0, WIDTH, whole))
        .set("width", WIDTH)
        .set("height", whole)
        .set("font-family", "DejaVu Sans, Verdana, Helvetica, Arial, sans-serif")
        .set("font-size", 11)
        .add(Title::new("Stonelog beside its peers"))
        .add(hatching())
        .add(rectangle(0.0, 0.0, WIDTH, whole, "#ffffff"));
    document = head(report).into_iter().fold(document, Document::add);
    for (at, (panel, row)) in panels.into_iter().enumerate() {
        let x = MARGIN + (at % COLUMNS) as f64 * (PANEL_WIDTH + GUTTER);
        let y = HEAD + (at / COLUMNS) as f64 * height;
        document =
            document.add(chart(report, panel, row).set("transform", format!("translate({x:.1} {y:.1})")));
    }
    document.add(
        text(MARGIN, whole - 18.0, &format!("Made by: {}", report.command), QUIET).set("font-size", 10.5),
    )
}

/// The table's row of a panel, if anyone was measured.
fn row_of(report: &Report, panel: &Panel) -> Option<&'static Row> {
    let row =
        GROUPS.iter().flat_map(|group| group.rows).find(|row| (row.workload, row.metric) == panel.row)?;
    report.subjects.iter().any(|about| row.statistic(report, &about.name).is_some()).then_some(row)
}

fn head(report: &Report) -> Vec<Group> {
    let best = format!(
        "Best of {} rounds, interleaved, each in a process of its own and verified by a reopen and a full read.",
        report.rounds
    );
    let quick = if report.quick { " A QUICK run: the numbers are rough." } else { "" };
    let title =
        text(MARGIN, 38.0, "Stonelog beside its peers", INK).set("font-size", 22).set("font-weight", "bold");
    let facts = text(MARGIN, 60.0, &report.machine.to_string(), QUIET).set("font-size", 12);
    let how = text(MARGIN, 77.0, &format!("{best}{quick}"), QUIET).set("font-size", 12);
    let mut legend = Group::new();
    let mut x = MARGIN;
    let pale = "url(#pale)";
    for (fill, label) in
        [(OWN, "Stonelog"), (PEER, "peer"), (pale, "does not sync each durable append (strace)")]
    {
        legend = legend.add(rectangle(x, 89.0, 14.0, 11.0, fill)).add(text(x + 19.0, 99.0, label, INK));
        x += 46.0 + label.len() as f64 * 6.2;
    }
    let mark = Line::new()
        .set("x1", x)
        .set("x2", x)
        .set("y1", 86)
        .set("y2", 103)
        .set("stroke", LIMIT)
        .set("stroke-width", 2);
    legend = legend.add(mark).add(text(x + 8.0, 99.0, "the machine's limit", INK));
    vec![Group::new().add(title).add(facts).add(how), legend]
}

fn chart(report: &Report, panel: &Panel, row: &Row) -> Group {
    let better = row.unit.better();
    let bars = bars(report, panel, row);
    let limit =
        panel.limit.and_then(|limit| Some((limit, report.best(row.workload, limit, row.metric, better)?)));
    let scale = scale(&bars, limit.map(|(_, value)| value));
    let direction = match (row.unit, better) {
        (Unit::Rate, _) => "records/s, more is better",
        (_, Better::More) => "more is better",
        (_, Better::Less) => "less is better",
    };
    let starred = if panel.reads { "; * checks no checksum" } else { "" };
    let mut group = Group::new()
        .add(text(0.0, 14.0, panel.title, INK).set("font-size", 13).set("font-weight", "bold"))
        .add(text(0.0, 29.0, &format!("{direction}{starred}"), QUIET).set("font-size", 10));
    for (at, bar) in bars.iter().enumerate() {
        group = group.add(draw_bar(bar, row.unit, scale, PANEL_HEAD + at as f64 * STEP));
    }
    // The numbers come last, so that the limit's line does not cross them out.
    let numbers = |group: Group| {
        let all = bars.iter().enumerate();
        all.fold(group, |group, (at, bar)| {
            group.add(draw_number(bar, row.unit, scale, PANEL_HEAD + at as f64 * STEP))
        })
    };
    let bottom = PANEL_HEAD + bars.len() as f64 * STEP;
    let axis =
        Line::new().set("x1", NAME_WIDTH).set("x2", NAME_WIDTH).set("y1", PANEL_HEAD - 3.0).set("y2", bottom);
    group = group.add(axis.set("stroke", "#cbd2d9"));
    match limit {
        Some((name, value)) => {
            numbers(group.add(draw_limit(name, row.unit.show(value), value / scale, bottom)))
        }
        None => numbers(group),
    }
}

/// The subjects, the best above and those without a number below.
fn bars<'a>(report: &'a Report, panel: &Panel, row: &Row) -> Vec<Bar<'a>> {
    let mut bars: Vec<Bar<'a>> = report
        .subjects
        .iter()
        .map(|about| Bar {
            note: if panel.reads && !about.verifies_reads { "*" } else { "" },
            name: &about.name,
            found: row.statistic(report, &about.name),
            instead: match report.cell(row.workload, &about.name).and_then(|cell| cell.failure.as_ref()) {
                Some(Failure::TimedOut { seconds }) => format!("gave up after {seconds:.0} s"),
                Some(Failure::Failed(_)) => "failed".to_string(),
                _ => "cannot".to_string(),
            },
            is_pale: panel.durable && !about.audit.is_durable(),
        })
        .collect();
    bars.sort_by(|a, b| match (a.found, b.found) {
        (Some(a), Some(b)) if row.unit.better() == Better::More => b.best.total_cmp(&a.best),
        (Some(a), Some(b)) => a.best.total_cmp(&b.best),
        (a, b) => a.is_none().cmp(&b.is_none()),
    });
    bars
}

/// What the whole width stands for: the greatest that counts, and the limit where it is not far off.
fn scale(bars: &[Bar<'_>], limit: Option<f64>) -> f64 {
    let greatest = |pale: bool| {
        let counted = bars.iter().filter(|bar| pale || !bar.is_pale);
        counted.filter_map(|bar| bar.found).map(|found| found.best).fold(0.0, f64::max)
    };
    let most = if greatest(false) > 0.0 { greatest(false) } else { greatest(true) };
    match limit {
        Some(limit) if limit > most && limit < most * 3.0 => limit,
        _ if most > 0.0 => most,
        _ => 1.0,
    }
}

fn draw_bar(bar: &Bar<'_>, unit: Unit, scale: f64, y: f64) -> Group {
    let is_own = bar.name == SUBJECT;
    let name =
        text(NAME_WIDTH - 6.0, y + 10.5, &format!("{}{}", bar.name, bar.note), INK).set("text-anchor", "end");
    let name = if is_own { name.set("font-weight", "bold").set("fill", OWN) } else { name };
    let group = Group::new().add(name);
    let Some(found) = bar.found else { return group };
    let told = format!(
        "{}: {}, median {}, spread {:.0} %",
        bar.name,
        unit.show(found.best),
        unit.show(found.median),
        found.spread * 100.0
    );
    let is_cut = found.best > scale * 1.001;
    let width = (found.best / scale).min(1.0) * BAR_WIDTH;
    let fill = match (is_own, bar.is_pale) {
        (true, _) => OWN,
        (_, true) => "url(#pale)",
        _ => PEER,
    };
    let drawn = rectangle(NAME_WIDTH, y, width.max(1.0), BAR, fill).add(Title::new(told));
    let group = group.add(drawn);
    if is_cut { group.add(cut(NAME_WIDTH + width - 12.0, y)) } else { group }
}

fn draw_number(bar: &Bar<'_>, unit: Unit, scale: f64, y: f64) -> Text {
    let Some(found) = bar.found else {
        return text(NAME_WIDTH + 6.0, y + 10.5, &bar.instead, QUIET).set("font-style", "italic");
    };
    let x = NAME_WIDTH + (found.best / scale).min(1.0) * BAR_WIDTH + 5.0;
    let (ink, weight) = if bar.name == SUBJECT { (OWN, "bold") } else { (INK, "normal") };
    text(x, y + 10.5, &unit.show(found.best), ink)
        .set("font-weight", weight)
        .set("stroke", "#ffffff")
        .set("stroke-width", 3)
        .set("paint-order", "stroke")
}

/// The sign that a bar goes on.
fn cut(x: f64, y: f64) -> Shape {
    let (top, bottom) = (y - 1.0, y + BAR + 1.0);
    let outline = format!("M{x} {bottom} L{} {top} L{} {top} L{} {bottom} Z", x + 5.0, x + 9.0, x + 4.0);
    Shape::new().set("d", outline).set("fill", "#ffffff")
}

/// The limit as a line, or in words where it is beyond the scale.
fn draw_limit(name: &str, value: String, share: f64, bottom: f64) -> Group {
    let label = format!("limit: {name} {value}");
    if share > 1.001 {
        let beyond = text(NAME_WIDTH, bottom + 11.0, &format!("{label} (beyond the scale)"), LIMIT);
        return Group::new().add(beyond.set("font-size", 10));
    }
    let x = NAME_WIDTH + share * BAR_WIDTH;
    let line = Line::new().set("x1", x).set("x2", x).set("y1", PANEL_HEAD - 3.0).set("y2", bottom + 1.0);
    let label = text(NAME_WIDTH, bottom + 11.0, &label, LIMIT).set("font-size", 10);
    Group::new().add(line.set("stroke", LIMIT).set("stroke-width", 1.6)).add(label)
}

fn hatching() -> Definitions {
    let lines =
        Shape::new().set("d", "M-1 1 L1 -1 M0 6 L6 0 M5 7 L7 5").set("stroke", PEER).set("stroke-width", 1.2);
    let pattern = Pattern::new()
        .set("id", "pale")
        .set("width", 6)
        .set("height", 6)
        .set("patternUnits", "userSpaceOnUse")
        .add(rectangle(0.0, 0.0, 6.0, 6.0, "#f4f6f8"))
        .add(lines);
    Definitions::new().add(pattern)
}

fn rectangle(x: f64, y: f64, width: f64, height: f64, fill: &str) -> Rectangle {
    let rounded = |value: f64| format!("{value:.1}");
    Rectangle::new()
        .set("x", rounded(x))
        .set("y", rounded(y))
        .set("width", rounded(width))
        .set("height", rounded(height))
        .set("fill", fill)
}

fn text(x: f64, y: f64, content: &str, fill: &str) -> Text {
    Text::new(content).set("x", format!("{x:.1}")).set("y", format!("{y:.1}")).set("fill", fill)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bar(best: f64, is_pale: bool) -> Bar<'static> {
        let found = Some(Statistic { best, median: best, spread: 0.0 });
        Bar { name: "a", found, instead: String::new(), note: "", is_pale }
    }

    #[test]
    fn who_does_not_sync_does_not_stretch_the_scale() {
        assert_eq!(scale(&[bar(10.0, false), bar(1000.0, true)], None), 10.0);
        assert_eq!(scale(&[bar(1000.0, true)], None), 1000.0);
    }

    #[test]
    fn a_limit_far_beyond_does_not_squeeze_the_bars() {
        assert_eq!(scale(&[bar(10.0, false)], Some(20.0)), 20.0);
        assert_eq!(scale(&[bar(10.0, false)], Some(200.0)), 10.0);
        assert_eq!(scale(&[bar(10.0, false)], Some(5.0)), 10.0);
    }

    #[test]
    fn every_panel_is_a_row_of_the_table() {
        for panel in PANELS {
            let mut rows = GROUPS.iter().flat_map(|group| group.rows);
            assert!(rows.any(|row| (row.workload, row.metric) == panel.row), "{}", panel.title);
        }
    }
}
