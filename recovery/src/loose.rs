//! Stores without a manifest, and what each says by itself: pure, findings out of what was read.
//!
//! It owns what can be told of a store whose place in the log nobody states. It does not know the
//! log's end, so it judges a hole by the store's own watermarks alone: where a frame behind it
//! attests that what is missing was durable it is damage, otherwise a crash may have left it.

use std::ops::Range;
use std::path::Path;

use stonelog::recovery::StoreFindings;
use stonelog::scan::{Defect, Outcome};
use stonelog::store::{BASE_POSITION, FIRST_FRAME};

use crate::finding::{Code, Finding};
use crate::sure::Sure;

/// A store that was looked at by itself, since no manifest says what it is part of.
#[derive(Debug, Clone)]
pub(crate) struct LooseStore {
    pub(crate) id: u64,
    pub(crate) store: StoreFindings,
    /// What its frames say; none where nothing tells the log's identity, which checksums need.
    pub(crate) scan: Option<Outcome>,
}

/// What to do about damage.
pub(crate) fn see_the_plan(directory: &Path) -> String {
    format!("see what a repair would do, and what it would lose: log-repair plan {}", directory.display())
}

/// What stores without a manifest say by themselves.
pub(crate) fn list(stores: &[LooseStore], directory: &Path) -> Vec<Finding> {
    let mut found = Vec::new();
    for loose in stores {
        let head = loose.store.head();
        if head.is_none_or(|head| head.id != loose.id) {
            let what = match &loose.store {
                StoreFindings::Unreadable { why } => format!("the store cannot be read: {why}"),
                _ if loose.scan.is_none() => {
                    "the store's head is not what was written, and no other tells which log this is"
                        .to_string()
                }
                _ => "the store's head is not what was written, or another store's".to_string(),
            };
            let code = if matches!(loose.store, StoreFindings::Unreadable { .. }) {
                Code::Unreadable
            } else {
                Code::Head
            };
            let finding = Finding::new(code, what, see_the_plan(directory)).in_store(loose.id);
            found.push(finding.at(0, Some(BASE_POSITION)));
        }
        let Some(scan) = &loose.scan else { continue };
        let base = loose.store.base();
        let mut before = (0u32, FIRST_FRAME, scan.broken.map(|broken| broken.defect));
        for run in &scan.runs {
            if run.positions.start > before.1 {
                let gap = Gap {
                    ordinals: before.0..run.ordinals.start,
                    positions: before.1..run.positions.start,
                    defect: before.2,
                };
                found.push(loose_gap(loose.id, scan, gap, base));
            }
            before = (run.ordinals.end, run.positions.end, run.broken);
        }
        for range in &scan.unreadable {
            let what = Defect::Unreadable.describe();
            let next = see_the_plan(directory);
            found.push(
                Finding::new(Code::Unreadable, what, next)
                    .in_store(loose.id)
                    .at(range.start, Some(range.end)),
            );
        }
    }
    found
}

/// A hole between frames of a store that stands alone.
struct Gap {
    ordinals: Range<u32>,
    positions: Range<u64>,
    defect: Option<Defect>,
}

/// Where a frame behind the hole attests that what is missing was durable it is damage, otherwise a
/// crash may have left it.
fn loose_gap(id: u64, scan: &Outcome, gap: Gap, base: Option<u64>) -> Finding {
    let Gap { ordinals, positions, defect } = gap;
    let mark = scan.watermark.filter(|mark| mark.relative > i64::from(ordinals.start));
    let what = defect.map_or("the frames here are not what was written", Defect::describe);
    let code = match mark {
        Some(_) => defect.map_or(Code::FrameHeader, Code::of_defect),
        None => Code::TailTorn,
    };
    let finding = Finding::new(code, what, "first the MANIFEST: without it nothing of the log can be served")
        .in_store(id)
        .at(positions.start, Some(positions.end));
    let finding = match (base, ordinals.is_empty()) {
        (Some(base), false) => {
            let offset = |ordinal: u32| base.saturating_add(u64::from(ordinal));
            finding.about(Some(offset(ordinals.start)..offset(ordinals.end)))
        }
        _ => finding,
    };
    match mark {
        Some(mark) => {
            let proof = format!("the frame at byte {} attests that more was durable", mark.position);
            finding.proven(proof).only(Sure::Likely, "without a MANIFEST nobody knows what was truncated")
        }
        None => finding.only(Sure::Possible, "without a MANIFEST nobody knows where the log ended"),
    }
}
