//! What an explanation looks at: the manifest, one store, and what check says of it.
//!
//! It owns what is read: what an opening reads, and every frame of the one segment that is asked
//! about. The judgement over these is the library's own (`verdict::assess`), the findings are the
//! lister's, so they are what `check` says of that segment; what is wrong elsewhere is not looked for.
//!
//! Why not a whole check: who asks about one frame of a log of terabytes wants an answer now.

use std::ops::Range;
use std::path::Path;

use stonelog::disk::OsDisk;
use stonelog::frame::{Kind, Seed};
use stonelog::manifest::{Reading, SegmentState, State};
use stonelog::recovery::verdict::{self, Assessment};
use stonelog::recovery::{Depth, Findings, StoreFindings, inspect};
use stonelog::scan::{self, Extent, Frame, Outcome, Source};
use stonelog::store::FIRST_FRAME;

use crate::Failure;
use crate::finding::Finding;
use crate::lister::{self, Seen};
use crate::lock::{self, Holder};
use crate::looking::{LookingDisk, StoreSource};
use crate::loose::LooseStore;
use crate::opening::Opening;

/// See the module.
pub(super) struct Sight {
    pub(super) disk: LookingDisk,
    pub(super) findings: Findings,
    opening: Opening,
    holder: Option<Holder>,
    loose: Vec<LooseStore>,
}

impl Sight {
    pub(super) fn of(directory: &Path) -> Result<Sight, Failure> {
        let disk = LookingDisk::default();
        let findings = inspect(&disk, directory, Depth::Opening)?;
        if !findings.listing.exists {
            return Err(Failure::Said(format!(
                "there is no directory {}: name the one that holds MANIFEST",
                directory.display()
            )));
        }
        let opening = Opening::of(&findings);
        let holder = lock::holder(&OsDisk, directory);
        Ok(Sight { disk, findings, opening, holder, loose: Vec::new() })
    }

    pub(super) fn directory(&self) -> &Path {
        &self.findings.directory
    }

    pub(super) fn state(&self) -> Option<&State> {
        match &self.findings.manifest {
            Reading::Whole { state, .. } => Some(state),
            _ => None,
        }
    }

    pub(super) fn assessment(&self) -> Option<&Assessment> {
        self.findings.assessment.as_ref()
    }

    pub(super) fn is_live(&self) -> bool {
        self.holder.is_some()
    }

    /// The log's identity: the manifest's, or that of any store whose head is its own.
    pub(super) fn uuid(&self) -> Option<[u8; 16]> {
        let own = |id: &u64| {
            let source = StoreSource::open(&self.disk, self.directory(), *id).ok()?;
            let head = *source.findings(&[0; 16], *id).head()?;
            (head.id == *id).then_some(head.uuid)
        };
        self.state().map(|state| state.uuid).or_else(|| self.findings.listing.stores.keys().find_map(own))
    }

    /// Reads every frame of segment `id`, and judges anew with what they say.
    pub(super) fn look_into(&mut self, id: u64) {
        let uuid = self.uuid();
        let Ok(source) = StoreSource::open(&self.disk, self.directory(), id) else { return };
        let (Reading::Whole { state, .. }, Some(uuid)) = (&self.findings.manifest, uuid) else {
            self.look_at_loose(id, &source, uuid);
            return;
        };
        let segments = &mut self.findings.segments;
        let Ok(place) = segments.binary_search_by_key(&id, |segment| segment.id) else { return };
        let next_base = segments.get(place + 1).and_then(|next| next.base);
        let Some(segment) = segments.get_mut(place) else { return };
        if matches!(segment.store, StoreFindings::Listed { .. }) {
            segment.store = source.findings(&uuid, id);
            segment.base = segment.state.base.or(segment.store.base()).or(segment.base);
        }
        if segment.scan.is_none() {
            let end = segment.state.seal.map_or(source.length(), |seal| seal.length.min(source.length()));
            let next = segment.state.seal.map(|seal| seal.next_offset).or(next_base);
            let ordinal_end =
                segment.base.zip(next).and_then(|(base, next)| u32::try_from(next.saturating_sub(base)).ok());
            let extent = Extent {
                seed: Seed::of_segment(&uuid, id),
                start: FIRST_FRAME,
                end,
                base: segment.base,
                ordinal_end,
            };
            segment.scan = Some(scan::scan(&source, &extent, |_| {}));
        }
        let (segments, unnamed) = (&self.findings.segments, &self.findings.unnamed);
        self.findings.assessment = Some(verdict::assess(state, segments, unnamed));
    }

    fn look_at_loose(&mut self, id: u64, source: &StoreSource, uuid: Option<[u8; 16]>) {
        let store = source.findings(&uuid.unwrap_or_default(), id);
        let scan = uuid.map(|uuid| {
            let seed = Seed::of_segment(&uuid, id);
            let (base, end) = (store.base(), source.length());
            let extent = Extent { seed, start: FIRST_FRAME, end, base, ordinal_end: None };
            scan::scan(source, &extent, |_| {})
        });
        self.loose = vec![LooseStore { id, store, scan }];
    }

    /// What check says of all this.
    pub(super) fn list(&self) -> Vec<Finding> {
        lister::list(&Seen {
            findings: &self.findings,
            loose: &self.loose,
            opening: &self.opening,
            holder: self.holder,
            changed: false,
        })
    }
}

/// A store that is open, and what is known of it.
pub(super) struct Store {
    pub(super) name: String,
    pub(super) id: u64,
    pub(super) source: StoreSource,
    pub(super) uuid: Option<[u8; 16]>,
    pub(super) found: StoreFindings,
    pub(super) base: Option<u64>,
    /// What the manifest says of it, where it names it.
    pub(super) state: Option<SegmentState>,
    /// Whether it is no part of the log: in quarantine, or not named.
    pub(super) apart: bool,
}

impl Store {
    pub(super) fn seed(&self) -> Option<Seed> {
        self.uuid.map(|uuid| Seed::of_segment(&uuid, self.id))
    }

    pub(super) fn length(&self) -> u64 {
        self.source.length()
    }

    pub(super) fn offset(&self, ordinal: u32) -> Option<u64> {
        self.base.map(|base| base.saturating_add(u64::from(ordinal)))
    }

    pub(super) fn sealed_at(&self) -> Option<u64> {
        self.state.as_ref().and_then(|state| state.seal).map(|seal| seal.length)
    }

    /// Bytes of the store, as many as there are and can be read.
    pub(super) fn read(&self, bytes: Range<u64>) -> Vec<u8> {
        let end = bytes.end.min(self.length());
        let mut read = vec![0; usize::try_from(end.saturating_sub(bytes.start)).unwrap_or(0)];
        match self.source.read(bytes.start, &mut read) {
            Ok(()) => read,
            Err(_) => Vec::new(),
        }
    }

    /// Walks all frames of the file, and stops to look at what is wanted.
    pub(super) fn walk(&self, wanted: Wanted) -> Option<Walked> {
        let extent = Extent {
            seed: self.seed()?,
            start: FIRST_FRAME,
            end: self.length(),
            base: self.base,
            ordinal_end: None,
        };
        let mut walked = Walked::default();
        let mut batch: Option<u32> = None;
        let outcome = scan::scan(&self.source, &extent, |frame| {
            let end = frame.position.saturating_add(frame.header.frame_bytes());
            let ordinal = frame.header.ordinal;
            if frame.gap.is_some() {
                batch = None;
            }
            if frame.header.kind.is_record() {
                batch = batch.or(Some(ordinal));
            }
            let hit = match wanted {
                Wanted::Position(position) => (frame.position..end).contains(&position),
                Wanted::Ordinal(wanted) => frame.header.kind.is_record() && ordinal == wanted,
            };
            let past = match wanted {
                Wanted::Position(position) => frame.position > position,
                Wanted::Ordinal(wanted) => ordinal > wanted,
            };
            if hit && walked.frame.is_none() {
                walked.frame = Some(frame);
                walked.batch = batch.filter(|_| frame.header.kind.is_record()).map(|first| first..ordinal);
                walked.batch_ends = frame.header.kind != Kind::RecordMore;
            } else if walked.frame.is_some() || past {
                let follows =
                    walked.batch.as_ref().is_some_and(|batch| batch.end.checked_add(1) == Some(ordinal));
                if follows && !walked.batch_ends && frame.gap.is_none() && frame.header.kind.is_record() {
                    walked.batch = walked.batch.take().map(|batch| batch.start..ordinal);
                    walked.batch_ends = frame.header.kind == Kind::Record;
                }
                walked.next = walked.next.or(Some(frame));
            } else {
                walked.before = Some(frame);
            }
            if frame.header.kind == Kind::Record {
                batch = None;
            }
        });
        walked.outcome = outcome;
        Some(walked)
    }
}

/// What a walk stops at.
#[derive(Debug, Clone, Copy)]
pub(super) enum Wanted {
    /// The frame that holds this byte.
    Position(u64),
    /// The frame of this record.
    Ordinal(u32),
}

/// What a walk saw.
#[derive(Debug, Default)]
pub(super) struct Walked {
    /// The last valid frame before what is wanted.
    pub(super) before: Option<Frame>,
    /// What is wanted, where it is a valid frame.
    pub(super) frame: Option<Frame>,
    /// The first valid frame behind it.
    pub(super) next: Option<Frame>,
    /// The first and the last ordinal (that one included) of its batch, as far as it is there.
    pub(super) batch: Option<Range<u32>>,
    /// Whether that batch is whole.
    pub(super) batch_ends: bool,
    pub(super) outcome: Outcome,
}

impl Walked {
    /// Where no valid frame holds what is wanted: the bytes between those that are valid.
    pub(super) fn hole(&self, length: u64) -> Range<u64> {
        let start = self
            .before
            .map_or(FIRST_FRAME, |frame| frame.position.saturating_add(frame.header.frame_bytes()));
        start..self.next.map_or(length, |frame| frame.position).max(start)
    }

    /// The ordinal of the frame that should begin the hole.
    pub(super) fn missed(&self) -> u32 {
        self.before
            .map_or(0, |frame| frame.header.ordinal.saturating_add(u32::from(frame.header.kind.is_record())))
    }
}
