//! The map as one page: HTML that needs no network and no other file.
//!
//! It owns what goes into the page and how much of it. How it looks is `page.css`'s matter, what it
//! does `page.js`'s. Invariants: everything that comes from a log goes in as data, inside one JSON
//! script element that no text can end, and the script puts it on the page as text alone; the page
//! asks for nothing (its policy forbids it to); its size is bounded, whatever the log's.

use serde::Serialize;
use stonelog::disk::{Disk, OsDisk};
#[cfg(test)]
use stonelog::names;

use super::aside::{self, Shown};
use super::picture::{Bar, State};
use super::{JsonManifest, Map, Total};
use crate::check::JsonFinding;
use crate::finding::Severity;
use crate::opening::Opening;
use crate::output::{self, Span};

/// From so many segments on, runs of clean ones go in as one.
const FOLD_FROM: usize = 1500;
/// At most so many rows go in.
const MOST_ROWS: usize = 3000;
/// At most so many single frames.
const MOST_FRAMES: usize = 12_000;
/// At most so many spans, of all bars together.
const MOST_SPANS: usize = 40_000;
/// At most so many findings.
const MOST_FINDINGS: usize = 1000;

/// Something that a repair would do, as the page shows it. The list is empty as long as nobody made
/// a plan.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct PlannedAction {
    /// What is done, in a few words.
    pub(crate) what: String,
    /// Why.
    pub(crate) why: String,
    /// To which file, and where, if to one.
    pub(crate) file: Option<String>,
    pub(crate) segment: Option<u64>,
    pub(crate) position: Option<u64>,
    pub(crate) position_end: Option<u64>,
    /// Records that are given up by it.
    pub(crate) loses: Option<Span>,
}

#[derive(Serialize)]
struct Page<'a> {
    directory: String,
    verdict: &'static str,
    headline: String,
    advisory: bool,
    made: String,
    version: &'static str,
    uuid: Option<String>,
    offsets: Option<Span>,
    records_intact: u64,
    records_unreadable: u64,
    segments: usize,
    bytes: u64,
    manifest: JsonManifest,
    next_opening: String,
    totals: Vec<Total>,
    states: Vec<StateWord>,
    rows: Vec<Row<'a>>,
    rows_left_out: usize,
    findings: Vec<JsonFinding<'a>>,
    findings_left_out: usize,
    plan: &'a [PlannedAction],
}

#[derive(Serialize)]
struct StateWord {
    state: State,
    meaning: &'static str,
}

#[derive(Serialize)]
#[serde(tag = "row", rename_all = "lowercase")]
enum Row<'a> {
    Segment {
        #[serde(flatten)]
        bar: &'a Bar,
        frames: Vec<Shown>,
    },
    Fold {
        first: u64,
        last: u64,
        segments: usize,
        offsets: Option<Span>,
        bytes: u64,
    },
}

/// The page.
pub(super) fn render(map: &Map<'_>, disk: &dyn Disk, plan: &[PlannedAction]) -> String {
    let report = map.report;
    let uuid = match &report.findings.manifest {
        stonelog::manifest::Reading::Whole { state, .. } => Some(output::uuid(&state.uuid)),
        _ => None,
    };
    let (rows, rows_left_out) = rows(map, disk);
    let mut opening = output::capital(&report.opening.describe()) + ".";
    if report.worst() == Some(Severity::Damage) && matches!(report.opening, Opening::Opens(_)) {
        opening += " It does not notice the damage: it trusts a Seal and a Close, and reads no frame they vouch for.";
    }
    let page = Page {
        directory: report.findings.directory.display().to_string(),
        verdict: report.verdict(),
        headline: report.headline(),
        advisory: report.is_advisory(),
        made: output::time(OsDisk.now_millis()),
        version: env!("CARGO_PKG_VERSION"),
        uuid,
        offsets: map.offsets(),
        records_intact: report.records,
        records_unreadable: report
            .lost
            .iter()
            .map(|range| range.end - range.start)
            .fold(0, u64::saturating_add),
        segments: map.bars.len(),
        bytes: map.bytes(),
        manifest: map.manifest(),
        next_opening: opening,
        totals: map.totals(),
        states: State::ALL
            .into_iter()
            .rev()
            .map(|state| StateWord { state, meaning: state.meaning() })
            .collect(),
        rows,
        rows_left_out,
        findings: report
            .list
            .iter()
            .take(MOST_FINDINGS)
            .map(|finding| report.json_finding(finding))
            .collect(),
        findings_left_out: report.list.len().saturating_sub(MOST_FINDINGS),
        plan,
    };
    assemble(&page)
}

/// Which bars go in, and what of each: the worst first, as far as the bounds reach.
fn rows<'a>(map: &Map<'a>, disk: &dyn Disk) -> (Vec<Row<'a>>, usize) {
    let mut frames_left = MOST_FRAMES;
    // What is wrong gets its frames first.
    let mut frames: std::collections::BTreeMap<u64, Vec<Shown>> = std::collections::BTreeMap::new();
    let worth = |bar: &&Bar| bar.worst >= State::Torn;
    let order = map.bars.iter().filter(worth).chain(map.bars.iter().filter(|bar| !worth(bar)));
    for bar in order {
        if frames_left == 0 {
            break;
        }
        let fair =
            if bar.worst >= State::Torn { frames_left.min(MOST_FRAMES / 4) } else { frames_left.min(600) };
        let shown = aside::frames(disk, map.report, bar, fair);
        frames_left = frames_left.saturating_sub(shown.len());
        frames.insert(bar.segment, shown);
    }
    let mut spans_left = MOST_SPANS;
    let (mut rows, mut left_out, mut rest) = (Vec::new(), 0, map.bars);
    let folds = map.bars.len() >= FOLD_FROM;
    while let Some((bar, others)) = rest.split_first() {
        let quiet = rest.iter().take_while(|bar| bar.is_quiet() && bar.kind == "sealed").count();
        if folds && quiet >= 3 {
            let (folded, others) = rest.split_at(quiet);
            rows.extend(fold(folded));
            rest = others;
            continue;
        }
        rest = others;
        if rows.len() >= MOST_ROWS || bar.spans.len() > spans_left {
            left_out += 1;
            continue;
        }
        spans_left -= bar.spans.len();
        rows.push(Row::Segment { bar, frames: frames.remove(&bar.segment).unwrap_or_default() });
    }
    (rows, left_out)
}

fn fold<'a>(bars: &[Bar]) -> Option<Row<'a>> {
    let (first, last) = (bars.first()?, bars.last()?);
    let offsets = first.offsets.zip(last.offsets);
    Some(Row::Fold {
        first: first.segment,
        last: last.segment,
        segments: bars.len(),
        offsets: offsets.map(|(first, last)| Span { start: first.start, end: last.end }),
        bytes: bars.iter().map(|bar| bar.length).fold(0, u64::saturating_add),
    })
}

/// Puts style, data and script into the frame of the page.
fn assemble(page: &Page<'_>) -> String {
    const FRAME: &str = include_str!("page.html");
    // Numbers, texts and lists of them: that always becomes JSON.
    let data = serde_json::to_string(page).unwrap_or_else(|_| "null".to_string());
    // Inside a script element only `<` could end it, and a JSON string can spell it otherwise.
    let data = data.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026");
    let mut html = String::with_capacity(data.len() + (64 << 10));
    let mut rest = FRAME;
    for (mark, text) in [
        ("/*STYLE*/", include_str!("page.css")),
        ("\"DATA\"", data.as_str()),
        ("/*SCRIPT*/", include_str!("page.js")),
    ] {
        if let Some((before, behind)) = rest.split_once(mark) {
            html.push_str(before);
            html.push_str(text);
            rest = behind;
        }
    }
    html.push_str(rest);
    html
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check;
    use crate::looking::LookingDisk;
    use crate::map::picture::Span as Bytes;

    fn bar(segment: u64, worst: State) -> Bar {
        let spans = (0..3).map(|n| Bytes { start: n * 100, end: (n + 1) * 100, state: worst, offsets: None });
        Bar {
            segment,
            file: names::store(segment),
            kind: "sealed",
            origin: Some("roll"),
            created_millis: Some(0),
            offsets: Some(Span { start: segment * 10, end: segment * 10 + 10 }),
            file_bytes: Some(300),
            length: 300,
            sealed_at: Some(300),
            worst,
            spans: spans.collect(),
            findings: Vec::new(),
        }
    }

    fn page(bars: &[Bar], plan: &[PlannedAction]) -> (String, serde_json::Value) {
        let golden = std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/closed"));
        let Ok(report) = check::look(golden, false) else { panic!("the golden log cannot be checked") };
        let html = render(&Map { report: &report, bars }, &LookingDisk::default(), plan);
        let data = html.split_once("id=\"data\">").unwrap().1.split_once("</script>").unwrap().0;
        let value = serde_json::from_str(data).unwrap();
        (html, value)
    }

    #[test]
    fn a_huge_log_makes_no_huge_page() {
        let mut bars: Vec<Bar> = (1..200_000).map(|id| bar(id, State::Clean)).collect();
        bars[70_000].worst = State::Damaged;
        bars[70_000].spans[1].state = State::Damaged;
        let (html, data) = page(&bars, &[]);
        assert!(html.len() < 1 << 20, "{}", html.len());
        let rows = data["rows"].as_array().unwrap();
        let told: Vec<_> = rows.iter().map(|row| row["row"].as_str().unwrap()).collect();
        assert_eq!(told, ["fold", "segment", "fold"]);
        assert_eq!((&rows[0]["segments"], &rows[1]["segment"]), (&70_000.into(), &70_001.into()));
        // Where all are damaged, what is left out is counted.
        bars.iter_mut().for_each(|bar| bar.worst = State::Damaged);
        let (html, data) = page(&bars, &[]);
        assert!(html.len() < 4 << 20, "{}", html.len());
        let (shown, left_out) =
            (data["rows"].as_array().unwrap().len(), data["rows_left_out"].as_u64().unwrap());
        assert_eq!(shown as u64 + left_out, 199_999);
    }

    #[test]
    fn a_plan_is_put_beside_the_findings() {
        let action = PlannedAction {
            what: "Seal".to_string(),
            why: "</script><b>".to_string(),
            file: Some(names::store(1)),
            segment: Some(1),
            position: Some(2000),
            position_end: None,
            loses: Some(Span { start: 3, end: 4 }),
        };
        let (html, data) = page(&[bar(1, State::Clean)], &[action]);
        assert_eq!(data["plan"][0]["loses"]["start"], 3);
        assert_eq!(data["plan"][0]["why"], "</script><b>");
        assert!(!html.contains("</script><b>") && !html.contains("</script\\u003e"), "text ends the data");
    }
}
