//! What a map needs and a check does not tell: what lies beyond a seal, where the front stands, and
//! single frames around what is wrong.
//!
//! It owns these few reads, all through the library's scanner. It judges nothing.

use std::collections::BTreeMap;
use std::ops::Range;

use serde::Serialize;
use stonelog::disk::Disk;
use stonelog::frame::{Kind, Seed};
use stonelog::manifest::Reading;
use stonelog::recovery::Findings;
use stonelog::scan::{self, Extent, Source};
use stonelog::store::FIRST_FRAME;

use super::picture::{Bar, State};
use crate::check::Report;
use crate::looking::StoreSource;

/// Frames on each side of what is wrong that are told one by one.
const AROUND: u64 = 48;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Aside {
    /// By segment, the bytes that are not zeros behind where its records end.
    pub(crate) beyond: BTreeMap<u64, Range<u64>>,
    /// The segment that holds the front inside a run of frames, and the position of the front there.
    pub(crate) front: Option<(u64, u64)>,
}

impl Aside {
    pub(crate) fn of(disk: &dyn Disk, findings: &Findings) -> Aside {
        let mut aside = Aside::default();
        let Reading::Whole { state, .. } = &findings.manifest else { return aside };
        for segment in &findings.segments {
            let Some(scan) = &segment.scan else { continue };
            let last = scan.runs.last().map_or(FIRST_FRAME, |run| run.positions.end);
            let start = match segment.state.seal {
                Some(seal) => seal.length.max(last),
                // The next segment begins where its records end.
                None if scan.broken.is_none() && !scan.runs.is_empty() => last,
                None => continue,
            };
            let Ok(source) = StoreSource::open(disk, &findings.directory, segment.id) else { continue };
            if start < source.length() {
                let seed = Seed::of_segment(&state.uuid, segment.id);
                let bytes = not_zeros(&source, seed, start.next_multiple_of(8));
                aside.beyond.extend(bytes.map(|bytes| (segment.id, bytes)));
            }
            let Some(base) = segment.base else { continue };
            let front = state.front.checked_sub(base).and_then(|ordinal| u32::try_from(ordinal).ok());
            let run = scan.runs.iter().find(|run| front.is_some_and(|front| run.ordinals.contains(&front)));
            if let (Some(run), Some(front)) = (run, front.filter(|front| *front > 0)) {
                let position = scan::locate(&source, run.positions.start, run.ordinals.start..front);
                aside.front = position.map(|position| (segment.id, position)).or(aside.front);
            }
        }
        aside
    }
}

fn not_zeros(source: &StoreSource, seed: Seed, start: u64) -> Option<Range<u64>> {
    // The last group's mark stands behind every seal: it is no leftover.
    let start = match scan::frame_at(source, seed, start, source.length()) {
        Ok(header) if header.kind == Kind::Mark => start.saturating_add(header.frame_bytes()),
        _ => start,
    };
    let extent = Extent { seed, start, end: source.length(), base: None, ordinal_end: None };
    let outcome = scan::scan(source, &extent, |_| {});
    let first = outcome.runs.iter().map(|run| run.positions.start);
    let last = outcome.runs.iter().map(|run| run.positions.end);
    let start = first.chain(outcome.tail.as_ref().map(|tail| tail.start)).min()?;
    let end = last.chain(outcome.tail.as_ref().map(|tail| tail.end)).max()?;
    (start < end).then_some(start..end)
}

/// One frame on the page.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Shown {
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) kind: &'static str,
    pub(crate) offset: Option<u64>,
    pub(crate) lag: Option<u32>,
}

/// Frames of the bar's store, `most` at most: those around what is wrong; all of them where there is
/// nothing wrong and they are few.
pub(crate) fn frames(disk: &dyn Disk, report: &Report, bar: &Bar, most: usize) -> Vec<Shown> {
    let findings = &report.findings;
    let uuid = match &findings.manifest {
        Reading::Whole { state, .. } => Some(state.uuid),
        _ => report.loose.iter().find_map(|loose| loose.store.head().map(|head| head.uuid)),
    };
    let (Some(uuid), Ok(source)) = (uuid, StoreSource::open(disk, &findings.directory, bar.segment)) else {
        return Vec::new();
    };
    let named = findings.segments.iter().find(|segment| segment.id == bar.segment);
    let loose = report.loose.iter().find(|loose| loose.id == bar.segment);
    let base = named.and_then(|segment| segment.base).or(loose.and_then(|loose| loose.store.base()));
    let seed = Seed::of_segment(&uuid, bar.segment);
    let end = bar.sealed_at.unwrap_or(u64::MAX).min(source.length());
    let extent = Extent { seed, start: FIRST_FRAME, end, base, ordinal_end: None };
    let wrong: Vec<&super::picture::Span> =
        bar.spans.iter().filter(|span| span.state >= State::Torn).collect();
    // How many frames are kept in reserve until it shows whether something wrong follows them.
    let mut waiting: std::collections::VecDeque<Shown> = std::collections::VecDeque::new();
    let (mut shown, mut left_behind, mut passed) = (Vec::new(), 0u64, 0usize);
    let all = wrong.is_empty();
    scan::scan(&source, &extent, |frame| {
        if shown.len() >= most {
            source.stop();
            return;
        }
        let end = frame.position.saturating_add(frame.header.frame_bytes());
        let told = Shown {
            start: frame.position,
            end,
            kind: match frame.header.kind {
                Kind::Record => "record",
                Kind::RecordMore => "more",
                Kind::Mark => "mark",
            },
            offset: base.map(|base| base.saturating_add(u64::from(frame.header.ordinal))),
            lag: frame.header.lag.records(),
        };
        if all {
            shown.push(told);
            return;
        }
        while wrong.get(passed).is_some_and(|span| span.start <= frame.position) {
            passed += 1;
            left_behind = AROUND;
            shown.extend(waiting.drain(..));
        }
        if left_behind > 0 {
            left_behind -= 1;
            shown.push(told);
        } else {
            waiting.push_back(told);
            if waiting.len() as u64 > AROUND {
                waiting.pop_front();
            }
        }
    });
    if wrong.get(passed).is_some() {
        shown.extend(waiting);
    }
    shown.truncate(most);
    shown
}
