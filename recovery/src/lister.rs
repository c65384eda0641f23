//! From what the library saw to what an operator is told: pure, a list of findings.
//!
//! It owns the words: what is wrong, how that is known, what to do. It does not judge: whether
//! something is damage, a tear or nothing is `stonelog::recovery`'s word (`verdict` for the log's
//! end, `plan` for what the next opening does), and every finding here says the same in an
//! operator's terms. It reads no file; what had to be read beyond an inspection comes in as data
//! ([`Seen`]).
//!
//! Invariants: a damage names the file, and the position and the records where those are known;
//! every damage of the library's list is in this one; findings are ordered by severity, then by
//! place in the log.
//!
//! Why a pass of its own over the library's findings, and not words in the library: an opening needs
//! one damage to refuse, an operator needs all of them, each told once.

use std::collections::BTreeMap;
use std::path::Path;

use stonelog::manifest::{self, Reading, State};
use stonelog::names;
use stonelog::recovery::verdict::{Assessment, DamageFound, DamageKind, Proof};
use stonelog::recovery::{Findings, SegmentFindings, StoreFindings};
use stonelog::store::{BASE_POSITION, FIRST_FRAME};

use crate::finding::{Code, Finding, unreadable};
use crate::lock::Holder;
use crate::loose::{self, LooseStore};
use crate::opening::Opening;
use crate::output::{self, records};
use crate::sure::Sure;

/// What a look at a directory gave.
#[derive(Debug)]
pub(crate) struct Seen<'a> {
    /// The inspection.
    pub(crate) findings: &'a Findings,
    /// The stores, where there is no manifest to go by.
    pub(crate) loose: &'a [LooseStore],
    /// What the next opening would do.
    pub(crate) opening: &'a Opening,
    /// Who has the log open for writing.
    pub(crate) holder: Option<Holder>,
    /// The log changed between two looks, so that this one may show what never was at one time.
    pub(crate) changed: bool,
}

impl Seen<'_> {
    /// Somebody writes: what is unfinished is in flight, not left over.
    fn is_live(&self) -> bool {
        self.holder.is_some() || self.changed
    }
}

/// All there is to tell, worst first, then in the order of the log.
pub(crate) fn list(seen: &Seen<'_>) -> Vec<Finding> {
    let mut lister =
        Lister { seen, directory: &seen.findings.directory, found: Vec::new(), short: BTreeMap::new() };
    lister.manifest();
    if let (Reading::Whole { state, .. }, Some(assessment)) =
        (&seen.findings.manifest, &seen.findings.assessment)
    {
        for damage in &assessment.damage {
            lister.damage(damage, assessment);
        }
        lister.bases(state, assessment);
        lister.declared(state);
        lister.tails(state, assessment);
        lister.indexes(state);
        lister.unnamed(state);
        lister.end(state, assessment);
        for offsets in state.lost.iter() {
            let what = format!("a repair declared {} lost: reading one gives Error::Lost", records(&offsets));
            lister.found.push(Finding::new(Code::Lost, what, NOTHING).about(Some(offsets)));
        }
    }
    lister.found.extend(loose::list(seen.loose, lister.directory));
    lister.names();
    let mut found = lister.found;
    if seen.changed {
        let in_flight = "the log changed while it was read: it may have been in flight";
        for finding in found.iter_mut().filter(|finding| finding.is_damage()) {
            (finding.sure, finding.because) = (Sure::Possible, in_flight);
        }
    }
    found.sort_by_key(|finding| finding.code.severity());
    found
}
const NOTHING: &str = "nothing";

struct Lister<'a> {
    seen: &'a Seen<'a>,
    directory: &'a Path,
    found: Vec<Finding>,
    /// Where in `found` the stores are that are too short, by segment.
    short: BTreeMap<u64, usize>,
}

impl Lister<'_> {
    /// What to do about records that are gone.
    fn see_the_plan(&self) -> String {
        loose::see_the_plan(self.directory)
    }

    fn manifest(&mut self) {
        let name = manifest::FILE_NAME;
        match &self.seen.findings.manifest {
            Reading::Damaged(damage) => {
                let finding = Finding::new(Code::Manifest, &damage.what, self.see_the_plan()).in_file(name);
                let mut finding = match damage.position {
                    Some(position) => finding.at(position, None),
                    None => finding,
                };
                finding.proof = damage.proof.clone();
                self.found.push(finding);
            }
            Reading::Absent => {
                let listing = &self.seen.findings.listing;
                let stores = listing.stores.keys().map(|id| names::store(*id));
                let evidence = stores.chain(listing.indexes.keys().map(|id| names::index(*id)));
                let evidence =
                    evidence.chain(listing.quarantined.iter().map(|name| format!("quarantine/{name}")));
                match evidence.into_iter().next() {
                    Some(file) => {
                        let next = "look for MANIFEST where this directory was copied or restored from; ".to_string()
                            + &self.see_the_plan();
                        self.found.push(
                            Finding::new(Code::ManifestMissing, "there is no MANIFEST, though a log was here", next)
                                .in_file(name)
                                .proven(format!("{file} is there; the MANIFEST is durable before any such file")),
                        );
                    }
                    None => self.found.push(Finding::new(
                        Code::Unfinished,
                        "there is no MANIFEST and no store: a crash during the very first opening leaves that",
                        "nothing, where no log was ever used here: the next opening begins one. Otherwise all its \
                         files are gone: do not open it, look for them",
                    )),
                }
            }
            Reading::Whole { tail: manifest::Tail::Torn(range), state, .. } if !self.seen.is_live() => {
                let what = match state.closed {
                    Some(_) => "bytes behind the Close, which is the last edit: no crash leaves that",
                    None => "an edit was being written when the log ended: it was never acknowledged",
                };
                self.found.push(
                    Finding::new(
                        Code::ManifestTorn,
                        what,
                        "nothing: the next opening writes a fresh MANIFEST without it",
                    )
                    .in_file(name)
                    .at(range.start, Some(range.end)),
                );
            }
            Reading::Whole { .. } => {}
        }
        if let (Reading::Whole { .. }, Opening::Refuses(damage)) =
            (&self.seen.findings.manifest, self.seen.opening)
        {
            let mut finding =
                Finding::new(Code::ManifestEdit, &damage.what, self.see_the_plan()).in_file(name);
            finding.proof = damage.proof.clone();
            self.found.push(finding);
        }
    }

    fn segment(&self, id: u64) -> Option<&SegmentFindings> {
        let segments = &self.seen.findings.segments;
        segments.get(segments.binary_search_by_key(&id, |segment| segment.id).ok()?)
    }

    /// Says one damage of the library's list in an operator's terms.
    fn damage(&mut self, damage: &DamageFound, assessment: &Assessment) {
        let id = damage.id;
        let segment = self.segment(id);
        let seal = segment.and_then(|segment| segment.state.seal);
        let proven_end = match seal {
            Some(seal) => Proof::Seal { id }.describe(seal.next_offset),
            None => assessment.proof.describe(assessment.proven_end),
        };
        let new = |code, next: String| {
            Finding::new(code, &damage.what, next).in_store(id).about(damage.offsets.clone())
        };
        let named = format!("the MANIFEST names segment {id:x}, and a store is durable before it is named");
        let finding = match damage.kind {
            DamageKind::StoreMissing => {
                let name = names::store(id);
                let next = if self.seen.findings.listing.quarantined.contains(&name) {
                    format!(
                        "a file of this name is in quarantine/: see {name}.json beside it for why; {}",
                        self.see_the_plan()
                    )
                } else {
                    format!(
                        "look for {name} (a backup, lost+found, a mount that is missing); {}",
                        self.see_the_plan()
                    )
                };
                new(Code::SegmentMissing, next).proven(named)
            }
            DamageKind::StoreUnreadable => {
                let why = match segment.map(|segment| &segment.store) {
                    Some(StoreFindings::Unreadable { why }) => format!("{}: {why}", damage.what),
                    _ => damage.what.clone(),
                };
                let next =
                    format!("look into the system's log for what the disk says; {}", self.see_the_plan());
                Finding { what: why, ..new(Code::Unreadable, next).proven(named) }
            }
            DamageKind::StoreShort => new(Code::SegmentShort, self.see_the_plan()).proven(proven_end),
            DamageKind::Head => {
                let proof = "the head is durable before the store is named in the MANIFEST";
                new(Code::Head, self.see_the_plan()).at(0, Some(BASE_POSITION)).proven(proof)
            }
            DamageKind::Base => new(Code::Base, self.see_the_plan()).proven(proven_end),
            DamageKind::Frames(defect) => {
                let position = damage.position.unwrap_or(FIRST_FRAME);
                let end = segment.and_then(|segment| gap_end(segment, position));
                // A short file's missing end is told once, with the file's length.
                let short = self.short.get(&id).and_then(|place| self.found.get_mut(*place));
                if let (Some(short), Some(seal)) = (short, seal)
                    && damage.offsets.as_ref().is_some_and(|offsets| offsets.end == seal.next_offset)
                {
                    short.offsets = damage.offsets.clone();
                    return;
                }
                let code = defect.map_or(Code::FrameHeader, Code::of_defect);
                let finding = new(code, self.see_the_plan()).at(position, end).proven(proven_end);
                match defect {
                    Some(defect) => Finding { what: defect.describe().to_string(), ..finding },
                    None => finding,
                }
            }
            DamageKind::NoStore => {
                // The records of a missing store are told with it.
                let gone = |f: &&mut Finding| f.code == Code::SegmentMissing && f.offsets.is_none();
                if let Some(missing) = self.found.iter_mut().find(gone) {
                    missing.offsets = damage.offsets.clone();
                    return;
                }
                let finding = new(Code::Gap, self.see_the_plan()).proven(proven_end);
                Finding { file: None, segment: None, ..finding }
            }
            DamageKind::Unreadable => return self.unreadable_ranges(id, damage, &proven_end),
            _ => new(Code::FrameHeader, self.see_the_plan()).proven(proven_end),
        };
        let finding = match damage.position {
            Some(position) if finding.position.is_none() => finding.at(position, None),
            _ => finding,
        };
        if finding.code == Code::SegmentShort {
            self.short.entry(id).or_insert(self.found.len());
        }
        self.found.push(finding);
    }

    /// One finding for each range that the disk could not read and that no missing record tells of.
    fn unreadable_ranges(&mut self, id: u64, damage: &DamageFound, proven_end: &str) {
        let next = format!("look into the system's log for what the disk says; {}", self.see_the_plan());
        let ranges =
            self.segment(id).and_then(|segment| segment.scan.as_ref()).map(|scan| scan.unreadable.clone());
        for range in ranges.unwrap_or_default() {
            let told = self.found.iter().any(|finding| {
                finding.segment == Some(id)
                    && finding.position.is_some_and(|start| start <= range.start)
                    && finding.position_end.is_some_and(|end| range.start < end)
            });
            if !told {
                self.found.push(
                    Finding::new(Code::Unreadable, &damage.what, &next)
                        .in_store(id)
                        .at(range.start, Some(range.end))
                        .proven(proven_end),
                );
            }
        }
    }

    /// Base sectors that are gone although frames behind them were proven durable: both were written
    /// at once. No record is lost by it as long as the manifest lives.
    fn bases(&mut self, state: &State, assessment: &Assessment) {
        for segment in &self.seen.findings.segments {
            let StoreFindings::Present { head: Some(head), base: written, .. } = &segment.store else {
                continue;
            };
            let Some(base) = segment.base.filter(|_| head.id == segment.id && head.uuid == state.uuid) else {
                continue;
            };
            let proven = segment.state.seal.map_or(assessment.proven_end, |seal| seal.next_offset);
            let what = match written {
                None if proven > base => "its base sector is not what was written".to_string(),
                Some(written) if *written != base && segment.state.seal.is_some() => {
                    format!("its base sector says {written}, the MANIFEST says {base}")
                }
                _ => continue,
            };
            let next = format!(
                "no record is lost by this as long as the MANIFEST lives, but this disk changed bytes: {}",
                self.see_the_plan()
            );
            let proof =
                format!("frames that were written with it are proven durable: the segment begins at {base}");
            self.found.push(
                Finding::new(Code::Base, what, next)
                    .in_store(segment.id)
                    .at(BASE_POSITION, Some(FIRST_FRAME))
                    .proven(proof),
            );
        }
    }

    /// Records that an earlier opening declared damaged, as far as nothing above told of them.
    fn declared(&mut self, state: &State) {
        let told = unreadable(&self.found);
        let mut left = state.damaged.clone();
        for range in told.iter() {
            left.remove(range);
        }
        // The last segment that begins at or before an offset, for offsets that ascend.
        let mut later: Vec<(u64, u64)> = Vec::new();
        for segment in self.seen.findings.segments.iter().rev() {
            let Some(base) = segment.base else { continue };
            if later.last().is_none_or(|(lowest, _)| base < *lowest) {
                later.push((base, segment.id));
            }
        }
        for offsets in left.iter() {
            let holder = later.get(later.partition_point(|(base, _)| *base > offsets.start));
            let what = format!(
                "an earlier opening, told to serve all the same, found {} damaged",
                records(&offsets)
            );
            let finding = Finding::new(Code::Declared, what, self.see_the_plan())
                .proven("the MANIFEST holds a Damaged edit, and no Lost one that settles it");
            let finding = match holder {
                Some((_, id)) => finding.in_store(*id),
                None => finding.in_file(manifest::FILE_NAME),
            };
            self.found.push(finding.about(Some(offsets)));
        }
    }

    /// What lies behind the end of an unsealed store.
    fn tails(&mut self, state: &State, assessment: &Assessment) {
        if self.seen.is_live() {
            // Unfinished, not left over: somebody is writing it.
            return;
        }
        let damaged =
            |id: u64| self.found.iter().any(|finding| finding.is_damage() && finding.segment == Some(id));
        let unplaced = assessment
            .unplaced
            .iter()
            .filter_map(|id| Some((*id, self.segment(*id)?.scan.as_ref()?.tail.clone()?)));
        let placed = assessment.placed.iter().filter_map(|place| Some((place.id, place.tail.clone()?)));
        let tails: Vec<_> = placed.chain(unplaced).filter(|(id, _)| !damaged(*id)).collect();
        for (id, tail) in tails {
            let finding = match state.closed {
                None => self.torn(id, assessment),
                Some(close) => stray(close.next_offset),
            };
            self.found.push(finding.in_store(id).at(tail.start, Some(tail.end)));
        }
        if let Some(close) = state.closed
            && assessment.valid_end > close.next_offset.max(state.front)
            && let Some(place) = assessment.placed.last()
        {
            let beyond = close.next_offset..assessment.valid_end;
            let what = format!(
                "whole records behind offset {}, where a clean close states the end: this MANIFEST is older than the store",
                close.next_offset
            );
            let next = "nothing, if an older MANIFEST was put back: the next opening takes these records in. What else the \
                        newer one said is not known: look for it first";
            let finding = Finding::new(Code::TailStray, what, next).in_store(place.id);
            self.found.push(finding.at(close.length, None).about(Some(beyond)));
        }
    }

    fn torn(&self, id: u64, assessment: &Assessment) -> Finding {
        let name = names::store(id);
        let cut = self
            .seen
            .opening
            .recovery()
            .and_then(|recovery| recovery.cut.iter().find(|cut| cut.file == name));
        let next = match cut {
            Some(cut) if cut.quarantined => {
                "nothing: the next opening cuts it, and keeps the file in quarantine/".to_string()
            }
            Some(_) => "nothing: the next opening seals the store before it; the bytes stay where they are"
                .to_string(),
            None => "nothing: the next opening cuts it".to_string(),
        };
        Finding::new(
            Code::TailTorn,
            "bytes of a write that never finished: nothing says that they were acknowledged",
            next,
        )
        .proven(format!(
            "{}, whole records reach to {}; no frame behind these bytes attests more",
            assessment.proof.describe(assessment.proven_end),
            assessment.valid_end
        ))
    }

    fn indexes(&mut self, state: &State) {
        let listing = &self.seen.findings.listing;
        for segment in self.seen.findings.segments.iter() {
            let Some(defect) = &segment.index_defect else { continue };
            let missing = !listing.indexes.contains_key(&segment.id);
            if missing && self.seen.is_live() {
                continue;
            }
            let (code, what) = if missing {
                (Code::IndexMissing, "it is not there".to_string())
            } else {
                (Code::Index, defect.clone())
            };
            let mut finding = Finding::new(
                code,
                what,
                "nothing: an index is derived from its store, and built anew when a record is read",
            )
            .in_file(names::index(segment.id));
            finding.segment = Some(segment.id);
            self.found.push(finding);
        }
        if self.seen.is_live() {
            return;
        }
        for id in listing.indexes.keys().filter(|id| !state.segments.contains_key(id)) {
            let what = "the index of a segment that is no part of the log";
            let next = "nothing: the next opening removes it";
            self.found.push(Finding::new(Code::Unnamed, what, next).in_file(names::index(*id)));
        }
    }

    fn unnamed(&mut self, state: &State) {
        if self.seen.is_live() {
            // Prepared, and about to be named.
            return;
        }
        let refuses = matches!(self.seen.opening, Opening::Refuses(_));
        for store in &self.seen.findings.unnamed {
            let others = store.head.filter(|head| head.id != store.id || head.uuid != state.uuid);
            let what = if state.quarantined.contains(&store.id) {
                "a recovery let go of it, and was interrupted before it was moved to quarantine/"
            } else if store.id <= state.last_id {
                "a segment that was dropped, by a change that was interrupted before its file went"
            } else if others.is_some() {
                "a store under a name that is not its own: its head says another segment, or another log"
            } else if store.has_frames {
                "a store above every id of the MANIFEST, with frames"
            } else {
                "a store that was being prepared, and was never used"
            };
            let next = match () {
                () if refuses && (store.id > state.last_id || others.is_some()) => self.see_the_plan(),
                () if others.is_some() => "nothing: the next opening moves it to quarantine/".to_string(),
                () if state.quarantined.contains(&store.id) => {
                    "nothing: the next opening moves it".to_string()
                }
                () => "nothing: the next opening removes it".to_string(),
            };
            self.found.push(Finding::new(Code::Unnamed, what, next).in_store(store.id));
        }
        for name in self.seen.findings.listing.temporary.iter().filter(|name| *name != manifest::NEXT_NAME) {
            let next = "nothing: the next opening removes it";
            self.found
                .push(Finding::new(Code::Unnamed, "an index that was never finished", next).in_file(name));
        }
    }

    /// How the log ended, or that it has not.
    fn end(&mut self, state: &State, assessment: &Assessment) {
        if let Some(holder) = self.seen.holder {
            let who = holder.pid.map_or("a program".to_string(), |pid| format!("process {pid}"));
            self.found.push(Finding::new(
                Code::InUse,
                format!("{who} has the log open for writing: this is advisory, as of one moment"),
                "for a final word, close the log there and check again",
            ));
        }
        if self.seen.changed {
            self.found.push(Finding::new(
                Code::Changed,
                "the log changed while it was read: this is advisory, what looks damaged may have been in flight",
                "check again, once nothing writes to it",
            ));
        }
        if state.closed.is_none() && !self.seen.is_live() {
            let beyond = assessment.valid_end.saturating_sub(assessment.proven_end);
            let mut what =
                "the log ended without a close: a crash, a kill, or a handle that was never closed"
                    .to_string();
            if beyond > 0 {
                what += &format!("; {} whole, not proven acknowledged", output::count(beyond, "record"));
            }
            let next = match self.seen.opening {
                Opening::Opens(_) => format!("nothing: {}", self.seen.opening.describe()),
                _ => "see the damage".to_string(),
            };
            let finding = Finding::new(Code::Unclean, what, next)
                .proven(assessment.proof.describe(assessment.proven_end));
            let range = assessment.proven_end..assessment.valid_end;
            self.found.push(finding.about((beyond > 0).then_some(range)));
        }
    }

    fn names(&mut self) {
        let listing = &self.seen.findings.listing;
        let kept: Vec<_> =
            listing.quarantined.iter().filter(|name| names::id_of_store(name).is_some()).collect();
        if !kept.is_empty() {
            let what = format!(
                "{} that a recovery took out of the log, and kept",
                output::count(kept.len() as u64, "file")
            );
            let next = "nothing; each has a .json beside it that says why. They may be deleted once nobody needs them";
            self.found
                .push(Finding::new(Code::Quarantine, what, next).in_file(format!("{}/", names::QUARANTINE)));
        }
        if !listing.repairs.is_empty() {
            let count = output::count(listing.repairs.len() as u64, "repair");
            let what = format!("what {count} replaced or took out, and kept");
            let next = format!(
                "nothing; the last one can be taken back as long as nothing was written since: log-repair undo {}. It may be \
                 deleted once nobody needs it",
                self.directory.display()
            );
            self.found.push(Finding::new(Code::Repaired, what, next).in_file(format!("{}/", names::REPAIR)));
        }
        for name in &listing.strange {
            let what = "a name that is not Stonelog's, left alone";
            self.found
                .push(Finding::new(Code::Strange, what, NOTHING).in_file(output::escaped(name.as_bytes())));
        }
    }
}

fn stray(end: u64) -> Finding {
    Finding::new(
        Code::TailStray,
        format!("bytes behind offset {end}, where a clean close states the end: no crash leaves that"),
        "find out what else writes to this file; no record is missing",
    )
}

/// Where the gap that begins at `position` ends: at the next intact frame, or where the bytes do.
fn gap_end(segment: &SegmentFindings, position: u64) -> Option<u64> {
    let scan = segment.scan.as_ref()?;
    let next = scan.runs.partition_point(|run| run.positions.start <= position);
    let next = scan.runs.get(next).map(|run| run.positions.start);
    let sealed = segment.state.seal.map(|seal| seal.length);
    let written = scan.tail.as_ref().map(|tail| tail.end);
    next.or(sealed).or(written)
}
