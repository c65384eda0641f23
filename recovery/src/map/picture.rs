//! From what a check saw to bars of coloured bytes: pure.
//!
//! It owns which state every byte of every store is in. It judges nothing: intact frames are the
//! scanner's runs, damage and tears are `check`'s findings, and a byte is called damaged here exactly
//! where one of those is about it. Invariants: the spans of a bar cover it from 0 to its length,
//! without a gap and without an overlap; where several things are true of a byte the worst is shown.
//!
//! Why spans and not cells: the terminal and the page cut them differently, and only whoever draws
//! knows how wide.

use std::collections::BTreeMap;
use std::ops::Range;

use serde::Serialize;
use stonelog::manifest::{OffsetRanges, Reading, State as Manifest};
use stonelog::names;
use stonelog::recovery::{SegmentFindings, StoreFindings};
use stonelog::scan::Outcome;
use stonelog::store::{BASE_POSITION, FIRST_FRAME, Origin};

use super::aside::Aside;
use crate::check::Report;
use crate::finding::{Code, Finding, Severity};
use crate::opening::Opening;
use crate::output::Span as Offsets;

/// At most this many spans are told apart in a bar; beyond, neighbours are told as their worst.
const MOST_SPANS: usize = 2048;

/// What is true of a byte; the later, the worse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum State {
    /// Zeros: space that was reserved ahead, or never written.
    Preallocated,
    /// Records below the front: truncated away, and still there.
    Truncated,
    /// What was written.
    Clean,
    /// No part of the log: behind a Seal, or in a store that nothing names.
    BeyondSeal,
    /// Left unfinished by a crash, or behind the end: never proven acknowledged.
    Torn,
    /// Records that a repair gave up.
    Lost,
    /// Not what was written.
    Damaged,
}

impl State {
    /// All, the best first.
    pub(crate) const ALL: [State; 7] = [
        State::Preallocated,
        State::Truncated,
        State::Clean,
        State::BeyondSeal,
        State::Torn,
        State::Lost,
        State::Damaged,
    ];

    /// Its name, as JSON has it.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            State::Preallocated => "preallocated",
            State::Truncated => "truncated",
            State::Clean => "clean",
            State::BeyondSeal => "beyond-seal",
            State::Torn => "torn",
            State::Lost => "lost",
            State::Damaged => "damaged",
        }
    }

    /// What it means, in a few words.
    pub(crate) const fn meaning(self) -> &'static str {
        match self {
            State::Preallocated => "reserved space, zeros",
            State::Truncated => "records below the front",
            State::Clean => "what was written",
            State::BeyondSeal => "no part of the log: behind a seal, or in a store that nothing names",
            State::Torn => "unfinished, never proven acknowledged",
            State::Lost => "records that a repair gave up",
            State::Damaged => "not what was written",
        }
    }
}

/// Bytes of one state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Span {
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) state: State,
    /// The records in it, where they are known.
    pub(crate) offsets: Option<Offsets>,
}

/// One store.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Bar {
    pub(crate) segment: u64,
    pub(crate) file: String,
    /// sealed, unsealed, prepared, missing, unreadable, unnamed, or loose (there is no manifest).
    pub(crate) kind: &'static str,
    /// roll or copy, where its head tells.
    pub(crate) origin: Option<&'static str>,
    pub(crate) created_millis: Option<u64>,
    /// The offsets that are its.
    pub(crate) offsets: Option<Offsets>,
    /// The file's length; none where there is no file.
    pub(crate) file_bytes: Option<u64>,
    /// The bar's length: the file's, or what it should be where that is more.
    pub(crate) length: u64,
    /// Where it was sealed.
    pub(crate) sealed_at: Option<u64>,
    pub(crate) worst: State,
    pub(crate) spans: Vec<Span>,
    /// Which findings are about it, by their place in the list.
    pub(crate) findings: Vec<usize>,
}

impl Bar {
    /// Whether there is nothing to see.
    pub(crate) fn is_quiet(&self) -> bool {
        self.worst <= State::BeyondSeal && self.findings.is_empty() && self.kind != "unnamed"
    }
}

/// The bars of all stores, in the order of the log, then those that are no part of it.
pub(crate) fn bars(report: &Report, aside: &Aside) -> Vec<Bar> {
    let mut by_store: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
    for (place, finding) in report.list.iter().enumerate() {
        if let Some(id) = finding.segment {
            by_store.entry(id).or_default().push(place);
        }
    }
    let findings = &report.findings;
    let longest = findings.listing.stores.values().copied().max().unwrap_or(FIRST_FRAME).max(FIRST_FRAME);
    let painter = Painter { report, aside, by_store, longest };
    let mut bars = Vec::new();
    if let Reading::Whole { state, .. } = &findings.manifest {
        bars.extend(findings.segments.iter().map(|segment| painter.named(segment, state)));
        let unnamed = findings.unnamed.iter().map(|store| {
            let layers = vec![(0..store.length, State::BeyondSeal, None)];
            let bar = painter.bar(store.id, "unnamed", Some(store.length), None);
            painter.finish(bar, layers, None, None)
        });
        bars.extend(unnamed);
    } else {
        bars.extend(report.loose.iter().map(|loose| {
            let mut layers = painter.sectors(&loose.store);
            let base = loose.store.base();
            if let Some(scan) = &loose.scan {
                painter.frames(scan, base, &Limits::default(), &mut layers);
            }
            let mut bar = painter.bar(loose.id, "loose", loose.store.length(), None);
            painter.head(&mut bar, &loose.store);
            bar.offsets = base.zip(loose.scan.as_ref()).and_then(|(base, scan)| held(base, scan));
            painter.finish(bar, layers, loose.scan.as_ref(), base)
        }));
    }
    bars
}

fn offset(base: u64, ordinal: u32) -> u64 {
    base.saturating_add(u64::from(ordinal))
}

/// The offsets of the frames that are there.
fn held(base: u64, scan: &Outcome) -> Option<Offsets> {
    let last = scan.runs.last()?;
    Some(Offsets { start: base, end: offset(base, last.ordinals.end) }).filter(|held| held.start < held.end)
}

/// Bytes, what is true of them, and which records.
type Layer = (Range<u64>, State, Option<Offsets>);

/// What bounds the records of a store.
#[derive(Default)]
struct Limits<'a> {
    front: u64,
    /// Where the front stands in this store, if it does.
    front_position: Option<u64>,
    lost: Option<&'a OffsetRanges>,
    /// Frames from this offset on were never proven, and do not follow what is whole.
    torn_from: Option<u64>,
    /// Where it was sealed: next offset and length.
    seal: Option<(u64, u64)>,
}

struct Painter<'a> {
    report: &'a Report,
    aside: &'a Aside,
    by_store: BTreeMap<u64, Vec<usize>>,
    longest: u64,
}

impl Painter<'_> {
    fn bar(&self, id: u64, kind: &'static str, file_bytes: Option<u64>, sealed_at: Option<u64>) -> Bar {
        Bar {
            segment: id,
            file: names::store(id),
            kind,
            origin: None,
            created_millis: None,
            offsets: None,
            file_bytes,
            length: file_bytes.unwrap_or(self.longest).max(sealed_at.unwrap_or(0)),
            sealed_at,
            worst: State::Preallocated,
            spans: Vec::new(),
            findings: self.by_store.get(&id).cloned().unwrap_or_default(),
        }
    }

    fn head(&self, bar: &mut Bar, store: &StoreFindings) {
        if let Some(head) = store.head() {
            bar.origin = Some(if head.origin == Origin::Copy { "copy" } else { "roll" });
            bar.created_millis = Some(head.created_millis);
        }
    }

    fn named(&self, segment: &SegmentFindings, state: &Manifest) -> Bar {
        let ends = self.report.findings.assessment.as_ref().map(|a| (a.valid_end, a.proven_end));
        let seal = segment.state.seal;
        let written = segment.scan.as_ref().is_some_and(|scan| !scan.runs.is_empty() || scan.tail.is_some());
        let kind = match (&segment.store, seal) {
            (StoreFindings::Missing, _) => "missing",
            (StoreFindings::Unreadable { .. }, _) => "unreadable",
            (_, Some(_)) => "sealed",
            (_, None) if written => "unsealed",
            (_, None) => "prepared",
        };
        let sealed_at = seal.map(|seal| seal.length);
        let mut bar = self.bar(segment.id, kind, segment.store.length(), sealed_at);
        if let (StoreFindings::Missing, Some(length)) = (&segment.store, sealed_at) {
            bar.length = length;
        }
        self.head(&mut bar, &segment.store);
        bar.offsets = match (segment.base, seal, &segment.scan) {
            (Some(base), Some(seal), _) => Some(Offsets { start: base, end: seal.next_offset.max(base) }),
            (Some(base), None, Some(scan)) => held(base, scan).and_then(|held| {
                // What lies behind the end is there, and no record of the log.
                let end = ends.map_or(held.end, |(valid, proven)| held.end.min(valid.max(proven)));
                (held.start < end).then_some(Offsets { end, ..held })
            }),
            _ => None,
        };
        let mut layers = self.sectors(&segment.store);
        if let Some(scan) = &segment.scan {
            // In a log that is damaged, what follows the damage is no tear.
            let opens = matches!(self.report.opening, Opening::Opens(_));
            let limits = Limits {
                front: state.front,
                front_position: self.aside.front.filter(|(id, _)| *id == segment.id).map(|(_, at)| at),
                lost: Some(&state.lost),
                torn_from: ends.filter(|_| seal.is_none() && opens).map(|(valid, proven)| valid.max(proven)),
                seal: seal.map(|seal| (seal.next_offset, seal.length)),
            };
            self.frames(scan, segment.base, &limits, &mut layers);
        } else if let (Some(base), Some(seal)) = (segment.base, seal)
            && state.lost.covers(&(base..seal.next_offset))
        {
            layers.push((0..bar.length, State::Lost, bar.offsets));
        }
        layers
            .extend(self.aside.beyond.get(&segment.id).map(|bytes| (bytes.clone(), State::BeyondSeal, None)));
        self.finish(bar, layers, segment.scan.as_ref(), segment.base)
    }

    fn sectors(&self, store: &StoreFindings) -> Vec<Layer> {
        let mut layers = Vec::new();
        if store.head().is_some() {
            layers.push((0..BASE_POSITION, State::Clean, None));
        }
        if store.base().is_some() {
            layers.push((BASE_POSITION..FIRST_FRAME, State::Clean, None));
        }
        layers
    }

    /// What the frames of a store are, and what stands between them.
    fn frames(&self, scan: &Outcome, base: Option<u64>, limits: &Limits<'_>, layers: &mut Vec<Layer>) {
        let about = |ordinals: Range<u32>| {
            base.map(|base| Offsets { start: offset(base, ordinals.start), end: offset(base, ordinals.end) })
        };
        let unproven = if self.report.is_advisory() { State::Clean } else { State::Torn };
        let (mut end, mut next) = (FIRST_FRAME, 0);
        for run in &scan.runs {
            if run.positions.start > end {
                let missing = about(next..run.ordinals.start);
                layers.push((end..run.positions.start, gap_state(missing, limits, unproven), missing));
            }
            (end, next) = (run.positions.end, run.ordinals.end);
            let held = about(run.ordinals.clone());
            let from = held.map_or(0, |held| held.start);
            let mut bytes = run.positions.clone();
            let mut held = held;
            if let Some(records) = &mut held
                && records.start < limits.front
            {
                let front = limits.front.min(records.end);
                let all = records.end <= limits.front;
                let at = if all { bytes.end } else { limits.front_position.unwrap_or(bytes.start) };
                let at = at.clamp(bytes.start, bytes.end);
                layers.push((
                    bytes.start..at,
                    State::Truncated,
                    Some(Offsets { start: records.start, end: front }),
                ));
                (bytes.start, records.start) = (at, front);
            }
            let whole = limits.torn_from.is_none_or(|torn| from <= torn || run.ordinals.is_empty());
            let state = if whole { State::Clean } else { unproven };
            let ends_inside = whole
                && limits.torn_from.is_some_and(|torn| held.is_some_and(|held| held.end > torn))
                && run.has_unfinished_batch();
            if ends_inside {
                let at = run.whole_position.clamp(bytes.start, bytes.end);
                layers.push((at..bytes.end, unproven, about(run.whole_ordinal..run.ordinals.end)));
                bytes.end = at;
                held = held.map(|held| Offsets {
                    end: held.end.min(offset(base.unwrap_or(0), run.whole_ordinal)),
                    ..held
                });
            }
            layers.push((bytes, state, held));
        }
        if let Some((next_offset, length)) = limits.seal {
            let missing =
                about(next..next).map(|at| Offsets { start: at.start, end: next_offset.max(at.start) });
            let missing = missing.filter(|missing| missing.start < missing.end);
            if length > end && missing.is_some() {
                layers.push((end..length, gap_state(missing, limits, unproven), missing));
            }
        } else if let Some(tail) = scan.tail.clone().filter(|tail| tail.end > end) {
            layers.push((tail.start.max(end)..tail.end, unproven, None));
        }
    }

    /// What the next opening will cut: never proven, however whole it looks. (One that refuses cuts
    /// nothing, and what it would serve is no verdict on these bytes.)
    fn cut<'a>(&'a self, bar: &'a Bar) -> impl Iterator<Item = Layer> + 'a {
        let recovery = match &self.report.opening {
            Opening::Opens(recovery) if !self.report.is_advisory() => Some(recovery),
            _ => None,
        };
        let cut = recovery.into_iter().flat_map(|recovery| &recovery.cut);
        cut.filter(|cut| cut.file == bar.file).map(|cut| (cut.positions.clone(), State::Torn, None))
    }

    /// Lays the findings over what is known, and makes spans of it all.
    fn finish(&self, mut bar: Bar, mut layers: Vec<Layer>, scan: Option<&Outcome>, base: Option<u64>) -> Bar {
        let painted: Vec<Layer> = bar
            .findings
            .iter()
            .filter_map(|place| self.report.list.get(*place))
            .filter(|finding| finding.file.as_ref() == Some(&bar.file))
            .filter_map(|finding| painted(finding, &bar, scan, base))
            .collect();
        for (bytes, ..) in &painted {
            bar.length = bar.length.max(bytes.end);
        }
        layers.extend(painted);
        layers.extend(self.cut(&bar));
        bar.spans = flatten(bar.length, layers);
        bar.worst = bar.spans.iter().map(|span| span.state).max().unwrap_or(State::Preallocated);
        bar
    }
}

/// What is true of bytes where frames are missing, as far as no finding tells.
fn gap_state(missing: Option<Offsets>, limits: &Limits<'_>, unproven: State) -> State {
    match (missing, limits.lost) {
        (Some(missing), Some(lost)) if lost.covers(&(missing.start..missing.end)) => State::Lost,
        (Some(missing), _) if missing.end <= limits.front && missing.start < missing.end => State::Truncated,
        _ if limits.seal.is_some() => State::Damaged,
        _ => unproven,
    }
}

/// Which bytes of its store a finding is about, and what it makes of them.
fn painted(finding: &Finding, bar: &Bar, scan: Option<&Outcome>, base: Option<u64>) -> Option<Layer> {
    /// A header that is missed.
    const LEAST: u64 = 16;
    let state = match (finding.code.severity(), finding.code) {
        (Severity::Damage, _) => State::Damaged,
        (_, Code::TailTorn | Code::TailStray) => State::Torn,
        (_, Code::Unnamed) => State::BeyondSeal,
        _ => return None,
    };
    let last = scan.and_then(|scan| scan.runs.last()).map_or(FIRST_FRAME, |run| run.positions.end);
    let bytes = match (finding.code, finding.position, finding.position_end, &finding.offsets) {
        // The end of the file is missing.
        (Code::SegmentShort, position, ..) => {
            let end = bar.sealed_at.unwrap_or(bar.length).max(last.saturating_add(LEAST));
            position.unwrap_or(last).min(last)..end
        }
        (_, Some(start), Some(end), _) => start..end,
        (Code::TailStray, Some(start), None, _) => start..last.max(start.saturating_add(LEAST)),
        (_, Some(start), None, _) => start..start.saturating_add(LEAST),
        (Code::Base, None, ..) => BASE_POSITION..FIRST_FRAME,
        (Code::Declared, None, _, Some(offsets)) => holding(offsets, scan, base, bar.length),
        _ => 0..bar.length,
    };
    Some((bytes, state, finding.offsets.as_ref().map(Offsets::from)))
}

/// The bytes that hold, or held, these records.
fn holding(offsets: &Range<u64>, scan: Option<&Outcome>, base: Option<u64>, length: u64) -> Range<u64> {
    let (Some(scan), Some(base)) = (scan, base) else { return 0..length };
    let before = scan.runs.iter().rfind(|run| offset(base, run.ordinals.end) <= offsets.start);
    let behind = scan.runs.iter().find(|run| offset(base, run.ordinals.start) >= offsets.end);
    let start = before.map_or(FIRST_FRAME, |run| run.positions.end);
    let end = behind.map(|run| run.positions.start).or(scan.tail.as_ref().map(|tail| tail.end));
    let end = end.or(scan.runs.last().map(|run| run.positions.end)).unwrap_or(length);
    start..end.max(start.saturating_add(16))
}

/// Layers to spans that lie side by side, the worst layer on top.
fn flatten(length: u64, mut layers: Vec<Layer>) -> Vec<Span> {
    layers.retain_mut(|(bytes, ..)| {
        bytes.end = bytes.end.min(length);
        bytes.start < bytes.end
    });
    let mut edges: Vec<u64> = layers.iter().flat_map(|(bytes, ..)| [bytes.start, bytes.end]).collect();
    edges.extend([0, length]);
    edges.sort_unstable();
    edges.dedup();
    layers.sort_by_key(|(bytes, ..)| bytes.start);
    // Those that begin at or before the edge, by how bad they are; whoever has ended is dropped when it
    // comes to the top.
    let mut open: std::collections::BinaryHeap<(State, u64, usize)> = std::collections::BinaryHeap::new();
    let mut coming = layers.iter().enumerate().peekable();
    let mut spans: Vec<Span> = Vec::new();
    for (start, end) in edges.iter().zip(edges.iter().skip(1)) {
        while let Some((place, (bytes, state, _))) = coming.next_if(|(_, (bytes, ..))| bytes.start <= *start)
        {
            open.push((*state, bytes.end, place));
        }
        while open.peek().is_some_and(|(_, ended, _)| ended <= start) {
            open.pop();
        }
        let top = open.peek().and_then(|(_, _, place)| layers.get(*place));
        let (state, offsets) =
            top.map_or((State::Preallocated, None), |(_, state, offsets)| (*state, *offsets));
        match spans.last_mut() {
            Some(last) if last.state == state && last.offsets == offsets => last.end = *end,
            _ => spans.push(Span { start: *start, end: *end, state, offsets }),
        }
    }
    bounded(spans)
}

fn bounded(spans: Vec<Span>) -> Vec<Span> {
    if spans.len() <= MOST_SPANS {
        return spans;
    }
    let together = spans.len().div_ceil(MOST_SPANS);
    let joined = spans.chunks(together).filter_map(|group| {
        let (first, last) = (group.first()?, group.last()?);
        let start = group.iter().filter_map(|span| span.offsets).map(|offsets| offsets.start).min();
        let end = group.iter().filter_map(|span| span.offsets).map(|offsets| offsets.end).max();
        Some(Span {
            start: first.start,
            end: last.end,
            state: group.iter().map(|span| span.state).max()?,
            offsets: start.zip(end).map(|(start, end)| Offsets { start, end }),
        })
    });
    joined.collect()
}

/// The worst of each cell of a bar, for cells of `bytes` bytes.
pub(crate) fn cells(bar: &Bar, bytes: u64) -> Vec<State> {
    let bytes = bytes.max(1);
    let count = usize::try_from(bar.length.div_ceil(bytes)).unwrap_or(0);
    let mut cells = vec![State::Preallocated; count];
    for span in &bar.spans {
        let first = usize::try_from(span.start / bytes).unwrap_or(count);
        let last = usize::try_from(span.end.div_ceil(bytes)).unwrap_or(count);
        for cell in cells.iter_mut().take(last).skip(first) {
            *cell = (*cell).max(span.state);
        }
    }
    cells
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bar(spans: Vec<Span>, length: u64) -> Bar {
        Bar {
            segment: 1,
            file: names::store(1),
            kind: "sealed",
            origin: None,
            created_millis: None,
            offsets: None,
            file_bytes: Some(length),
            length,
            sealed_at: None,
            worst: State::Clean,
            spans,
            findings: Vec::new(),
        }
    }

    #[test]
    fn one_bad_byte_in_64_mebibytes_is_seen() {
        let length = 64 << 20;
        let at = 33_333_333;
        let layers = vec![(0..length, State::Clean, None), (at..at + 1, State::Damaged, None)];
        let spans = flatten(length, layers);
        assert_eq!(spans.len(), 3, "{spans:?}");
        let cells = cells(&bar(spans, length), length.div_ceil(60));
        assert_eq!(cells.len(), 60);
        assert_eq!(cells.iter().filter(|cell| **cell == State::Damaged).count(), 1);
    }

    #[test]
    fn spans_cover_the_bar_and_show_the_worst() {
        let layers = vec![
            (0..512, State::Clean, None),
            (100..300, State::Torn, None),
            (200..1000, State::Damaged, None),
            (900..2000, State::Clean, None),
            (5000..9000, State::Clean, None),
        ];
        let spans = flatten(4096, layers);
        let told: Vec<_> = spans.iter().map(|span| (span.start, span.end, span.state)).collect();
        let wanted = [
            (0, 100, State::Clean),
            (100, 200, State::Torn),
            (200, 1000, State::Damaged),
            (1000, 2000, State::Clean),
            (2000, 4096, State::Preallocated),
        ];
        assert_eq!(told, wanted);
    }

    #[test]
    fn too_many_spans_are_told_as_their_worst() {
        let layers = (0..10_000u64).map(|n| {
            let state = if n == 5000 { State::Damaged } else { State::Clean };
            (n * 16..n * 16 + 8, state, None)
        });
        let spans = flatten(160_000, layers.collect());
        assert!(spans.len() <= MOST_SPANS, "{}", spans.len());
        assert_eq!(spans.iter().filter(|span| span.state == State::Damaged).count(), 1);
        assert_eq!((spans[0].start, spans.last().unwrap().end), (0, 160_000));
        assert!(spans.windows(2).all(|pair| pair[0].end == pair[1].start));
    }
}
