//! Changes of structure: preparing, sealing, truncating, metadata, closing.
//!
//! It owns the order "first the edit, then the files", under the manifest's lock.
//! Every edit is decided here from the folded state. It does not know how frames are encoded or
//! committed, and stops the writer ([`Core::while_quiet`]) where a change must not race it.
//!
//! Invariants: a store is durable, and its name too, before its Create; files go only after the
//! edit that lets go of them; any failed manifest or directory operation poisons the log, but for a
//! full disk that shows before anything changed.

use std::sync::Arc;

use crate::commit::{Core, lock};
use crate::disk;
use crate::error::{Error, Result};
use crate::manifest::edit::{check_meta_size, check_meta_total};
use crate::manifest::file::{Failure, ManifestFile, remove_if_present};
use crate::manifest::{Close, Edit, Seal};
use crate::mutant::{self, Mutant};
use crate::names;
use crate::options::MAX_OFFSET;
use crate::segment::{SealedEnd, Segment};
use crate::signal::Signal;
use crate::store::{self, FIRST_FRAME, FIRST_RESERVE, Head, Origin, Store};
use crate::sync::MutexGuard;
use crate::sync::atomic::Ordering;
use crate::table::Table;
use crate::writer::{Gate, MOST_ROLLED, Rolled, space_ahead};

type Guard<'a> = MutexGuard<'a, ManifestFile>;

impl Core {
    /// The manifest's lock, where the log may change.
    pub(crate) fn structure(&self) -> Result<Guard<'_>> {
        match &self.structure {
            Some(structure) => Ok(lock(structure)),
            None => {
                lock(&self.writer).check_gate()?;
                Err(Error::ReadOnly { why: "it was opened read-only" })
            }
        }
    }

    /// The lock, for a change that a poisoned or closed log refuses.
    fn changing(&self) -> Result<Guard<'_>> {
        let structure = self.structure()?;
        self.check_poison()?;
        lock(&self.writer).check_gate()?;
        Ok(structure)
    }

    /// Appends edits. Where the next manifest finds no space, files that are let go of may hold it.
    fn append_edits(&self, structure: &mut ManifestFile, edits: Vec<Edit>) -> Result<(), Failure> {
        match structure.append(edits.clone()) {
            Err(Failure::Refused(error)) if error.is_no_space() && self.dropped.remove_all(&self.place) => {
                structure.append(edits)
            }
            outcome => outcome,
        }
    }

    /// Appends edits; an uncertain failure poisons.
    fn edit(&self, structure: &mut ManifestFile, edits: Vec<Edit>) -> Result<()> {
        let appended = self.append_edits(structure, edits);
        // A refused change may have cost the ballast too.
        self.keep_ballast(structure);
        lock(&self.writer).has_ballast = structure.has_ballast();
        appended.map_err(|failure| self.failed(failure))?;
        #[cfg(feature = "_mutants")]
        if structure.state().closed.is_none() {
            self.write_stale_seals(structure).map_err(|failure| self.failed(failure))?;
            lock(&self.writer).has_ballast = structure.has_ballast();
        }
        Ok(())
    }

    /// Without ballast no dropped file waits to be removed: it may hold what the next opening needs.
    fn keep_ballast(&self, structure: &mut ManifestFile) {
        if !structure.has_ballast() && self.dropped.remove_all(&self.place) {
            structure.restock();
        }
    }

    /// For the mutant: Seals that were decided before the edit that was just written.
    #[cfg(feature = "_mutants")]
    fn write_stale_seals(&self, structure: &mut ManifestFile) -> Result<(), Failure> {
        let stale = std::mem::take(&mut *lock(&self.stale_seals));
        if stale.is_empty() { Ok(()) } else { structure.append(stale) }
    }

    /// Seals what was rolled, prepares segments ahead, and reserves space ahead: what a roll should
    /// not have to wait for. The edits go out as one batch. `needed` is for an append that cannot go
    /// on without so many spares: it has a commit made where sealing waits for one.
    ///
    /// # Errors
    /// [`Error::NoSpace`] where fewer segments than `needed` could be prepared.
    pub(crate) fn keep(&self, needed: Option<usize>) -> Result<()> {
        let mut structure = self.changing()?;
        if needed.is_some_and(|needed| lock(&self.writer).has_spares(needed)) {
            return Ok(());
        }
        structure.restock();
        self.reserve_ahead();
        let mut edits = Vec::new();
        let sealed = self.plan_seals(needed.is_some(), &mut edits)?;
        #[cfg(feature = "_mutants")]
        let stale = if mutant::on(Mutant::StaleSeal) { std::mem::take(&mut edits) } else { Vec::new() };
        let prepared = self.prepare(&structure, &mut edits);
        if !edits.is_empty() {
            self.edit(&mut structure, edits)?;
        }
        #[cfg(feature = "_mutants")]
        lock(&self.stale_seals).extend(stale);
        self.finish_seals(sealed);
        let (stores, shortage) = prepared.map_err(|failure| self.failed(failure))?;
        let spares = {
            let mut writer = lock(&self.writer);
            writer.spares.extend(stores);
            writer.has_ballast = structure.has_ballast();
            writer.spares.len()
        };
        match shortage {
            Some(error) if spares < needed.unwrap_or(0) => Err(error),
            _ if needed.is_some() && !structure.has_ballast() => {
                let path = self.place.path(crate::manifest::NEXT_NAME);
                Err(Error::NoSpace { path, needed: 4096 })
            }
            _ => Ok(()),
        }
    }

    /// Keeps reserved space ahead of the writer. A full disk is the append's to report.
    fn reserve_ahead(&self) {
        let (store, position) = match &lock(&self.writer).active {
            Some(active) => (active.store.clone(), active.position),
            None => return,
        };
        let most = self.options.segment_bytes;
        if store.reserved() < most && position + space_ahead(position) > store.reserved() {
            let _ = store.reserve(store.reserved() + 1, most);
        }
    }

    /// Prepares segments ahead: files, then directory; the Creates are the caller's to append. Gives
    /// what there was space for, and the shortage where there was less than wanted.
    fn prepare(
        &self,
        structure: &ManifestFile,
        edits: &mut Vec<Edit>,
    ) -> Result<(Vec<Store>, Option<Error>), Failure> {
        let (wanted, reserve, mut base) = {
            let writer = lock(&self.writer);
            let (wanted, reserve) = writer.wants_spares();
            // Without an active segment there is no predecessor whose end could be the base.
            let base = (writer.active.is_none() && writer.spares.is_empty()).then_some(writer.next_offset());
            (wanted, reserve, base)
        };
        let mut stores: Vec<Store> = Vec::new();
        let mut shortage = None;
        for number in 0..wanted {
            let id = structure.state().last_id.saturating_add(1 + number as u64);
            match self.new_store(id, reserve) {
                Ok(store) => stores.push(store),
                Err(error) if error.is_no_space() => {
                    shortage = Some(error);
                    break;
                }
                Err(error) => return Err(Failure::Refused(error)),
            }
        }
        if !stores.is_empty() {
            self.sync_directory()?;
        }
        edits.extend(stores.iter().map(|store| Edit::Create {
            id: store.id(),
            base: base.take(),
            born: None,
        }));
        Ok((stores, shortage))
    }

    /// A store that no manifest names yet; its name is not durable yet. Takes no lock, so that it
    /// can be called while the writer stands still.
    fn new_store(&self, id: u64, reserve: u64) -> Result<Store> {
        let disk = self.place.disk.as_ref();
        // Left behind by an attempt that found the disk full.
        remove_if_present(disk, &self.place.path(&names::store(id)))?;
        let head = Head {
            version: store::FORMAT_VERSION,
            origin: Origin::Roll,
            uuid: self.place.uuid,
            id,
            created_millis: disk.now_millis(),
        };
        let directory = &self.place.directory;
        let small = reserve.min(FIRST_RESERVE);
        Store::create(disk, directory, head, reserve).or_else(|error| {
            if error.is_no_space() && small < reserve {
                Store::create(disk, directory, head, small)
            } else {
                Err(error)
            }
        })
    }

    /// A fresh store for a truncation, durable with its name; none on a full disk: the log then
    /// goes on without an active segment until space is back.
    fn fresh_store(&self, structure: &ManifestFile) -> Result<Option<Store>, Failure> {
        let id = structure.state().last_id.saturating_add(1);
        let reserve = FIRST_RESERVE.min(self.options.segment_bytes.saturating_sub(FIRST_FRAME));
        match self.new_store(id, reserve) {
            Ok(store) => {
                self.sync_directory()?;
                Ok(Some(store))
            }
            Err(error) if error.is_no_space() => Ok(None),
            Err(error) => Err(Failure::Refused(error)),
        }
    }

    fn sync_directory(&self) -> Result<(), Failure> {
        if mutant::on(Mutant::StoreNameUnsynced) {
            return Ok(());
        }
        let directory = &self.place.directory;
        disk::retry_interrupted(|| self.place.disk.sync_dir(directory))
            .map_err(|error| Failure::Unknown(Error::io("syncing directory", directory, None, error)))
    }

    /// Seals rolled segments, in order, all of them.
    fn seal_rolled(&self, structure: &mut ManifestFile) -> Result<()> {
        self.commit_now()?;
        let mut edits = Vec::new();
        let sealed = self.plan_seals(false, &mut edits)?;
        if !edits.is_empty() {
            self.edit(structure, edits)?;
        }
        self.finish_seals(sealed);
        Ok(())
    }

    /// The Seals of rolled segments that the durable end has passed, their indexes written. With
    /// `urgent`, at least one.
    fn plan_seals(&self, urgent: bool, edits: &mut Vec<Edit>) -> Result<Vec<(Rolled, Seal)>> {
        let rolled: Vec<Rolled> = lock(&self.writer).rolled.iter().cloned().collect();
        if urgent
            && rolled.len() >= MOST_ROLLED
            && rolled.first().is_some_and(|first| self.durable_end() < first.end)
        {
            self.commit_now()?;
        }
        let durable_end = self.durable_end();
        let mut sealed = Vec::new();
        for rolled in rolled.into_iter().take_while(|rolled| rolled.end <= durable_end) {
            let seal = seal_of(&rolled, rolled.segment.time_range());
            self.write_index_of(&rolled.segment, seal);
            edits.push(Edit::Seal { id: rolled.segment.id, seal });
            sealed.push((rolled, seal));
        }
        Ok(sealed)
    }

    /// After the edits: readers go over to the index on disk.
    fn finish_seals(&self, sealed: Vec<(Rolled, Seal)>) {
        for (rolled, seal) in sealed {
            match self.sealed_segment(&rolled.segment, seal) {
                Ok(segment) => self.replace_segment(&segment),
                // The one in memory serves as well.
                Err(error) => tracing::warn!(%error, "a sealed segment could not be opened anew"),
            }
            if let Ok(store) = rolled.segment.store() {
                self.trim(store, seal.length);
            }
            lock(&self.writer).rolled.pop_front();
            tracing::debug!(segment = rolled.segment.id, next_offset = seal.next_offset, "sealed");
        }
    }

    /// An index is derived: without space for it the segment is sealed all the same, and the index
    /// rebuilt when it is read.
    fn write_index_of(&self, segment: &Segment, seal: Seal) {
        let count = u32::try_from(seal.next_offset.saturating_sub(segment.base)).unwrap_or(u32::MAX);
        if let Err(error) = segment.write_index(count, seal.length) {
            tracing::warn!(segment = segment.id, %error, "no index written; it will be rebuilt when needed");
        }
    }

    fn sealed_segment(&self, segment: &Segment, seal: Seal) -> Result<Arc<Segment>> {
        let end = SealedEnd { next_offset: seal.next_offset, length: seal.length };
        let store = segment.store()?.clone();
        Ok(Arc::new(Segment::sealed(self.place.clone(), segment.id, segment.base, end, Some(store))))
    }

    fn replace_segment(&self, fresh: &Arc<Segment>) {
        self.change_table(|table| {
            let mut table = table.clone();
            for segment in &mut table.segments {
                if segment.id == fresh.id {
                    *segment = fresh.clone();
                }
            }
            table
        });
    }

    /// See [`Log::put_meta`](crate::Log::put_meta).
    pub(crate) fn put_meta(&self, key: &str, value: Option<&[u8]>) -> Result<()> {
        check_meta_size(key, value)?;
        let mut structure = self.changing()?;
        if value.is_some() {
            check_meta_total(&structure.state().meta, key, value)?;
        }
        let edit = Edit::Meta { key: key.to_string(), value: value.map(<[u8]>::to_vec) };
        self.edit(&mut structure, vec![edit])
    }

    /// See [`Log::truncate_front`](crate::Log::truncate_front).
    pub(crate) fn truncate_front(&self, offset: u64) -> Result<()> {
        let mut structure = self.changing()?;
        if offset <= self.table.load().front {
            return Ok(());
        }
        if offset > MAX_OFFSET {
            return Err(Error::InvalidOption {
                option: "truncate_front",
                why: format!("{offset} is beyond the largest offset, {MAX_OFFSET}"),
            });
        }
        if offset > self.next_offset.load(Ordering::Acquire) {
            return self.skip_forward(&mut structure, offset);
        }
        // What is truncated away is durable first: a crash never finds a front beyond the end.
        if offset > self.durable_end() {
            self.commit_now()?;
            if offset > self.durable_end() {
                // A failed write took records back meanwhile.
                let next = self.next_offset.load(Ordering::Acquire);
                return Err(Error::UnexpectedOffset { expected: offset, next });
            }
        }
        if lock(&self.writer).rolled.front().is_some_and(|rolled| rolled.end <= offset) {
            self.seal_rolled(&mut structure)?;
        }
        let state = structure.state();
        let dropped: Vec<u64> =
            state.sealed().filter(|(_, _, seal)| seal.next_offset <= offset).map(|(id, _, _)| id).collect();
        let mut edits = vec![Edit::TruncateFront { offset }];
        edits.extend(dropped.iter().map(|id| Edit::Drop { id: *id, quarantine: false }));
        if mutant::on(Mutant::FilesBeforeEdit) {
            self.place.remove_files(&dropped);
        }
        if !mutant::on(Mutant::FrontWithoutEdit) {
            self.edit(&mut structure, edits)?;
        }
        self.change_table(|table| {
            let mut table = Table { front: offset, ..table.clone() };
            table.segments.retain(|segment| !dropped.contains(&segment.id));
            table.damaged.remove(0..offset);
            table.lost.remove(0..offset);
            table
        });
        self.let_go(&mut structure, &dropped);
        tracing::info!(offset, dropped = dropped.len(), "truncated the front");
        Ok(())
    }

    /// A front beyond the end: an empty log that starts there.
    fn skip_forward(&self, structure: &mut Guard<'_>, offset: u64) -> Result<()> {
        let dropped = self.while_quiet(|writer, stage| {
            if offset <= writer.next_offset() {
                // Appends came in before the writer stopped.
                let next = writer.next_offset();
                return Err(Failure::Refused(Error::UnexpectedOffset { expected: offset, next }));
            }
            let fresh = self.fresh_store(structure)?;
            let dropped: Vec<u64> = structure.state().segments.keys().copied().collect();
            let mut edits = vec![Edit::TruncateFront { offset }];
            edits.extend(dropped.iter().map(|id| Edit::Drop { id: *id, quarantine: false }));
            edits.extend(fresh.as_ref().map(|store| Edit::Create {
                id: store.id(),
                base: Some(offset),
                born: None,
            }));
            self.append_edits(structure, edits)?;
            stage.forget_mark();
            writer.restart(offset, fresh);
            self.change_table(|_| Table { front: offset, ..Table::default() });
            for end in [&self.next_offset, &self.written_end, &self.durable_end] {
                end.store(offset, Ordering::Release);
            }
            Ok(dropped)
        })?;
        self.let_go(structure, &dropped);
        tracing::info!(offset, "truncated the front beyond the end");
        Ok(())
    }

    /// After a truncation's edit: the files go (at once where space is short), and what is missing is prepared.
    fn let_go(&self, structure: &mut Guard<'_>, dropped: &[u64]) {
        self.dropped.add(dropped);
        structure.restock();
        self.keep_ballast(structure);
        lock(&self.writer).has_ballast = structure.has_ballast();
        self.signal.demand(Signal::KEEP);
    }

    /// See [`Log::truncate_back`](crate::Log::truncate_back).
    pub(crate) fn truncate_back(&self, end: u64) -> Result<()> {
        let mut structure = self.changing()?;
        let front = self.table.load().front;
        if end < front {
            let offsets = front..self.next_offset.load(Ordering::Acquire);
            return Err(Error::OutOfRange { offset: end, offsets });
        }
        if end >= self.next_offset.load(Ordering::Acquire) {
            return Ok(());
        }
        let dropped = self.while_quiet(|writer, stage| {
            let table = self.table.load_full();
            let Some(cut) = table.segment_of(end).cloned() else {
                let offsets = front..writer.next_offset();
                return Err(Failure::Refused(Error::OutOfRange { offset: end, offsets }));
            };
            let keeps_part = end > cut.base;
            // Rolled segments before the cut one need their Seals first, in order.
            let mut sealed: Vec<Rolled> =
                writer.rolled.iter().filter(|rolled| rolled.end <= end).cloned().collect();
            if keeps_part {
                let length = cut.position_behind(end).map_err(Failure::Refused)?;
                sealed.push(Rolled { segment: cut.clone(), end, length });
            }
            let first_dropped = if keeps_part { cut.id.saturating_add(1) } else { cut.id };
            let state = structure.state();
            let dropped: Vec<u64> = state.segments.range(first_dropped..).map(|(id, _)| *id).collect();
            let fresh = self.fresh_store(&structure)?;
            let mut edits: Vec<Edit> =
                dropped.iter().map(|id| Edit::Drop { id: *id, quarantine: false }).collect();
            let mut replaced = Vec::new();
            for rolled in &sealed {
                let before = structure.state().segments.get(&rolled.segment.id);
                let times = before
                    .and_then(|state| state.seal)
                    .map_or(rolled.segment.time_range(), |seal| (seal.first_millis, seal.last_millis));
                let seal = seal_of(rolled, times);
                self.write_index_of(&rolled.segment, seal);
                edits.push(Edit::Seal { id: rolled.segment.id, seal });
                replaced.push(self.sealed_segment(&rolled.segment, seal).map_err(Failure::Refused)?);
            }
            edits.extend(fresh.as_ref().map(|store| Edit::Create {
                id: store.id(),
                base: Some(end),
                born: None,
            }));

            // Readers leave first: nobody may act on a record that is about to go. The ends before
            // the epoch: a reader that knows the new epoch sees the new ends.
            for lowered in [&self.written_end, &self.next_offset] {
                lowered.store(end, Ordering::Release);
            }
            if !mutant::on(Mutant::DurableEndKept) {
                self.durable_end.store(end, Ordering::Release);
            }
            self.truncations.note(end);
            // The end was lowered for readers already: after any failure, what is on disk is for a
            // reopening to find.
            if !mutant::on(Mutant::BackWithoutEdit) {
                let appended = self.append_edits(&mut structure, edits);
                appended.map_err(|failure| Failure::Unknown(failure.into_error()))?;
            }
            #[cfg(feature = "_mutants")]
            self.write_stale_seals(&mut structure)?;
            stage.forget_mark();
            writer.restart(end, fresh);
            self.change_table(|table| {
                let mut table = table.clone();
                table.segments.retain(|segment| !dropped.contains(&segment.id));
                for fresh in &replaced {
                    for segment in table.segments.iter_mut().filter(|segment| segment.id == fresh.id) {
                        *segment = fresh.clone();
                    }
                }
                table.damaged.remove(end..u64::MAX);
                table.lost.remove(end..u64::MAX);
                table
            });
            // Again, for readers that stood at the end with the old segment in hand.
            self.truncations.note(end);
            Ok(dropped)
        })?;
        self.let_go(&mut structure, &dropped);
        tracing::info!(end, dropped = dropped.len(), "truncated the back");
        Ok(())
    }

    /// See [`Log::close`](crate::Log::close).
    pub(crate) fn close(&self) -> Result<()> {
        let Some(structure) = &self.structure else {
            lock(&self.writer).gate = Gate::Closed;
            return Ok(());
        };
        let mut structure = lock(structure);
        // First of all: whatever comes of closing, nothing is taken any more.
        lock(&self.writer).gate = Gate::Closed;
        let early = mutant::on(Mutant::CloseBeforeCommit)
            || (mutant::on(Mutant::CloseWhenPoisoned) && self.check_poison().is_err());
        if early {
            let writer = lock(&self.writer);
            let length = writer.active.as_ref().map_or(0, |active| active.position);
            let close = Close { length, next_offset: writer.next_offset() };
            drop(writer);
            return self.edit(&mut structure, vec![Edit::Close(close)]);
        }
        self.check_poison()?;
        self.seal_rolled(&mut structure)?;
        let (next_offset, active, spares) = self.while_quiet(|writer, stage| {
            stage.forget_mark();
            let spares: Vec<u64> = writer.spares.drain(..).map(|spare| spare.id()).collect();
            Ok((writer.next_offset(), writer.active.take(), spares))
        })?;
        let length = active.as_ref().map_or(0, |active| active.position);
        if let Some(active) = &active {
            let seal = Seal { next_offset, length, first_millis: 0, last_millis: 0 };
            self.write_index_of(&active.segment, seal);
            self.sync_directory().map_err(|failure| self.failed(failure))?;
        }
        let mut edits: Vec<Edit> =
            spares.iter().map(|id| Edit::Drop { id: *id, quarantine: false }).collect();
        edits.push(Edit::Close(Close { length, next_offset }));
        #[cfg(feature = "_mutants")]
        self.write_stale_seals(&mut structure).map_err(|failure| self.failed(failure))?;
        self.edit(&mut structure, edits)?;
        self.place.remove_files(&spares);
        self.dropped.remove_all(&self.place);
        // Reserved space would only look like waste now. Nothing promised depends on it.
        if let Some(active) = &active
            && let Err(error) = active.store.trim(length)
        {
            tracing::debug!(%error, "reserved space stays");
        }
        tracing::info!(directory = %self.place.directory.display(), next_offset, "closed");
        Ok(())
    }
}

/// A rolled segment's Seal, with the times of its first and last records.
fn seal_of(rolled: &Rolled, (first_millis, last_millis): (u64, u64)) -> Seal {
    Seal { next_offset: rolled.end, length: rolled.length, first_millis, last_millis }
}
