//! Group commit: how accepted bytes get to the disk, and who is told.
//!
//! It owns the two stages behind the writer. The *write stage* takes what the writer encoded and
//! writes it. The *sync stage* is the leader's: it runs a write, fsyncs the stores, and then
//! publishes the durable end or poisons, all under one lock, so that two callers can never split
//! one error. It holds the manifest's lock for the layer above (`structure`) and never takes it.
//!
//! Invariants: the durable end moves only to what was written before the fsync that proves it
//! began, and only over stores that were all fsynced; a group is settled after the durable end
//! covers it; after a failed fsync nobody is acknowledged any more.
//!
//! Why the waiters lead and not a thread of the log's: a lone appender that commits for itself
//! saves two context switches for each record. A committer thread leads only where nobody waits. And where appends
//! wait for no commit, the scribe runs the write stage by itself, so that they need not: see
//! docs/decisions/0015-a-scribe-writes-ahead.md.
//!
//! Locks, always taken in this order: structure (manifest), sync stage, write stage, writer.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::disk::Background;
use crate::dropped::Dropped;
use crate::error::{Error, Result};
use crate::frame::{self, Header, Kind, Lag, PayloadChecksum};
use crate::group::{Group, Waiter, Waiting};
use crate::manifest::file::{Failure, ManifestFile};
use crate::mutant::{self, Mutant};
use crate::options::{Durability, Options};
use crate::segment::Place;
use crate::signal::Signal;
use crate::store::Store;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{ArcSwap, Mutex, MutexGuard, OnceLock, PoisonError, TryLockError, thread};
use crate::table::{Table, Truncations};
use crate::writer::{Buffers, Chunk, Taken, Writer};

/// Behind the writer, bytes are fsynced at least this often in every mode: what a crash leaves to
/// be copied is bounded by it.
pub(crate) const SYNC_EVERY_BYTES: u64 = 16 << 20;
/// With more than this written and not fsynced, an append waits for the fsync.
pub(crate) const MOST_UNSYNCED_BYTES: u64 = 4 * SYNC_EVERY_BYTES;

/// What has been written and not yet fsynced.
#[derive(Default)]
pub(crate) struct WriteStage {
    /// Stores with writes since their last fsync, in order.
    dirty: Vec<Arc<Store>>,
    /// Groups whose bytes are all written.
    written_groups: Vec<Arc<Group>>,
    /// Bytes written since the last fsync began.
    unsynced_bytes: u64,
    /// Bytes that the fsync under way covers.
    syncing_bytes: u64,
    /// Where the next frame will be written, and the offset it will have: the place for a mark.
    mark_place: Option<(Arc<Store>, u64, u32)>,
    /// The buffers of what was written last, for the writer.
    emptied: Buffers,
    /// What the writer gave is being written. Whoever comes to the stage and finds this comes after one that
    /// panicked, and before its poison: there is a hole in what is written.
    writing: bool,
}

/// Counters for `stats`: nothing is decided by them, so they stay std's.
#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) written_bytes: std::sync::atomic::AtomicU64,
    pub(crate) writes: std::sync::atomic::AtomicU64,
    pub(crate) fsyncs: std::sync::atomic::AtomicU64,
    pub(crate) commits: std::sync::atomic::AtomicU64,
}

/// What every handle, reader, ticket and background thread of one open log shares.
pub(crate) struct Core {
    pub(crate) place: Arc<Place>,
    pub(crate) options: Options,
    /// `None` where the log is read-only.
    pub(crate) structure: Option<Mutex<ManifestFile>>,
    /// The leader's lock.
    pub(crate) sync_stage: Mutex<()>,
    pub(crate) write_stage: Mutex<WriteStage>,
    pub(crate) writer: Mutex<Writer>,
    pub(crate) table: ArcSwap<Table>,
    pub(crate) dropped: Dropped,
    pub(crate) truncations: Truncations,
    pub(crate) next_offset: AtomicU64,
    pub(crate) durable_end: AtomicU64,
    /// The offset behind the last record that was written.
    pub(crate) written_end: AtomicU64,
    poison: OnceLock<Arc<Error>>,
    pub(crate) signal: Signal,
    pub(crate) background: Background,
    pub(crate) counters: Counters,
    /// What `meta` answers from where there is no manifest to write.
    pub(crate) frozen_meta: BTreeMap<String, Vec<u8>>,
    #[cfg(feature = "_mutants")]
    pub(crate) stale_seals: Mutex<Vec<crate::manifest::Edit>>,
}

impl fmt::Debug for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log").field("directory", &self.place.directory).finish_non_exhaustive()
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A thread that panicked with the lock poisoned the log (see `Leader`), which is checked
    // wherever it matters.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Those to be woken once no lock is held: when this is dropped.
#[derive(Default)]
pub(crate) struct Wakes(Vec<Waiter>);

impl Wakes {
    fn settle(&mut self, groups: impl IntoIterator<Item = Arc<Group>>, outcome: &Result<()>) {
        for group in groups {
            self.0.extend(group.settle(outcome.clone()));
        }
    }
}

impl Drop for Wakes {
    fn drop(&mut self) {
        for waiter in self.0.drain(..) {
            // A waker is somebody else's code: its panic must not keep the others asleep.
            let woken = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| waiter.wake()));
            if woken.is_err() {
                tracing::error!("a waker panicked");
            }
        }
    }
}

impl Core {
    pub(crate) fn new(
        place: Arc<Place>,
        options: Options,
        structure: Option<ManifestFile>,
        writer: Writer,
        table: Table,
        durable_end: u64,
    ) -> Core {
        let background = options.disk.background();
        Core {
            place,
            options,
            structure: structure.map(Mutex::new),
            sync_stage: Mutex::default(),
            write_stage: Mutex::default(),
            next_offset: AtomicU64::new(writer.next_offset()),
            writer: Mutex::new(writer),
            table: ArcSwap::from_pointee(table),
            dropped: Dropped::default(),
            truncations: Truncations::default(),
            durable_end: AtomicU64::new(durable_end),
            written_end: AtomicU64::new(durable_end),
            poison: OnceLock::new(),
            signal: Signal::default(),
            background,
            counters: Counters::default(),
            frozen_meta: BTreeMap::new(),
            #[cfg(feature = "_mutants")]
            stale_seals: Mutex::default(),
        }
    }

    /// The first failure as an error, where the log is poisoned.
    pub(crate) fn check_poison(&self) -> Result<()> {
        match self.poison.get() {
            Some(cause) => Err(Error::Poisoned { cause: cause.clone() }),
            None => Ok(()),
        }
    }

    pub(crate) fn durable_end(&self) -> u64 {
        self.durable_end.load(Ordering::Acquire)
    }

    /// The end of what readers may see.
    pub(crate) fn visible_end(&self) -> u64 {
        if self.options.readers_see_appended || mutant::on(Mutant::UndurableVisible) {
            self.next_offset.load(Ordering::Acquire)
        } else {
            self.durable_end()
        }
    }

    /// Latches the first failure: from now on nothing is acknowledged. The write stage must be held
    /// (or taken) by the caller; what is under way in it and in the writer fails.
    fn poison(&self, stage: &mut WriteStage, error: Error, wakes: &mut Wakes) -> Error {
        tracing::error!(directory = %self.place.directory.display(), %error, "the log is poisoned");
        let cause = if mutant::on(Mutant::PoisonForgotten) {
            Arc::new(error.clone())
        } else {
            self.poison.get_or_init(|| Arc::new(error.clone())).clone()
        };
        let mut groups = std::mem::take(&mut stage.written_groups);
        groups.push(lock(&self.writer).give_up());
        wakes.settle(groups, &Err(Error::Poisoned { cause }));
        error
    }

    /// Refuses where the log is poisoned, or has to be: after a write that panicked.
    fn check_whole(&self, stage: &mut WriteStage, wakes: &mut Wakes) -> Result<()> {
        if std::mem::take(&mut stage.writing) {
            let error = self.panicked();
            self.poison(stage, error, wakes);
        }
        self.check_poison()
    }

    fn panicked(&self) -> Error {
        let what = std::io::Error::other("the committing thread panicked");
        Error::io("committing", &self.place.directory, None, what)
    }

    /// Poisons the log from outside a commit (a manifest or directory that failed).
    pub(crate) fn poison_all(&self, error: Error) -> Error {
        let mut wakes = Wakes::default();
        let error = {
            let _sync = lock(&self.sync_stage);
            let mut stage = lock(&self.write_stage);
            self.poison(&mut stage, error, &mut wakes)
        };
        // Whoever came to wait meanwhile could not lead.
        self.hand_over();
        error
    }

    /// Waits until `group` is settled; leads a commit where nobody else does.
    pub(crate) fn wait(&self, group: &Arc<Group>) -> Result<()> {
        if let Some(outcome) = group.outcome() {
            return outcome;
        }
        let _waiting = Waiting(group);
        loop {
            if let Some(outcome) = group.outcome() {
                return outcome;
            }
            if self.try_lead() {
                continue;
            }
            if let Some(outcome) = group.register(Waiter::Thread(thread::current()), true) {
                return outcome;
            }
            // A leader that let go before it could see us registered leaves the lead to us: look
            // once more. One that lets go later finds us and wakes us.
            if !self.try_lead() {
                thread::park();
            }
        }
    }

    /// Leads one commit, unless somebody leads already.
    fn try_lead(&self) -> bool {
        let sync = match self.sync_stage.try_lock() {
            Ok(sync) => sync,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return false,
        };
        // The outcome reaches whoever waits through the group.
        let _ = self.lead(sync);
        true
    }

    /// Commits everything encoded so far; for those who do not wait on a group.
    pub(crate) fn commit_now(&self) -> Result<()> {
        self.lead(lock(&self.sync_stage))
    }

    fn lead(&self, sync: MutexGuard<'_, ()>) -> Result<()> {
        let sync = Some(sync).filter(|_| !mutant::on(Mutant::FsyncErrorSplit));
        let leader = Leader::new(self, sync);
        let mut wakes = Wakes::default();
        let outcome = self.commit(&leader, &mut wakes);
        leader.done();
        self.hand_over();
        drop(wakes);
        outcome
    }

    /// Wakes whoever should lead next, if there is anything to lead.
    fn hand_over(&self) {
        let (group, pending) = {
            let writer = lock(&self.writer);
            (writer.group().clone(), writer.has_pending())
        };
        if let Some(leader) = group.next_leader() {
            leader.wake();
        } else if pending && self.options.durability == Durability::Always {
            self.signal.demand(Signal::COMMIT);
        }
    }

    /// Writes what is encoded, fsyncs every dirty store, and publishes the durable end or poisons.
    fn commit(&self, _leader: &Leader<'_>, wakes: &mut Wakes) -> Result<()> {
        let (dirty, groups, end) = {
            let mut stage = lock(&self.write_stage);
            if let Err(error) = self.check_whole(&mut stage, wakes) {
                let mut groups = std::mem::take(&mut stage.written_groups);
                groups.push(lock(&self.writer).give_up());
                wakes.settle(groups, &Err(error.clone()));
                return Err(error);
            }
            let taken = lock(&self.writer).take(true, &mut stage.emptied);
            let end = self.write_out(&mut stage, taken, wakes)?;
            stage.zero_ahead();
            stage.syncing_bytes = std::mem::take(&mut stage.unsynced_bytes);
            // The groups stay in the stage until they are settled: whatever happens to this thread,
            // whoever poisons the log finds them there.
            (std::mem::take(&mut stage.dirty), stage.written_groups.len(), end)
        };
        let unsynced = match dirty.len() {
            all if mutant::on(Mutant::AckBeforeFsync) => all,
            all if mutant::on(Mutant::EarlierStoreUnsynced) => all.saturating_sub(1),
            _ => 0,
        };
        for store in dirty.iter().skip(unsynced) {
            self.counters.fsyncs.fetch_add(1, Ordering::Relaxed);
            if let Err(error) = store.sync() {
                let mut stage = lock(&self.write_stage);
                return Err(self.poison(&mut stage, error, wakes));
            }
        }
        if !dirty.is_empty() {
            self.counters.commits.fetch_add(1, Ordering::Relaxed);
            self.durable_end.store(end, Ordering::Release);
        }
        {
            let mut stage = lock(&self.write_stage);
            stage.syncing_bytes = 0;
            let groups = groups.min(stage.written_groups.len());
            wakes.settle(stage.written_groups.drain(..groups), &Ok(()));
        }
        self.leave_mark(end);
        Ok(())
    }

    /// Gives back what a sealed store has reserved and does not use, if that is worth it. Durably: a crash must not
    /// bring back what others have used meanwhile; and so under the leader's lock.
    pub(crate) fn trim(&self, store: &Store, end: u64) {
        const WORTH: u64 = 512;
        if store.reserved().saturating_sub(end) <= end / WORTH {
            return;
        }
        let mut wakes = Wakes::default();
        {
            let leader = Leader::new(self, Some(lock(&self.sync_stage)));
            if self.check_poison().is_ok() {
                match store.trim(end) {
                    Ok(()) => {
                        self.counters.fsyncs.fetch_add(1, Ordering::Relaxed);
                        if let Err(error) = store.sync() {
                            self.poison(&mut lock(&self.write_stage), error, &mut wakes);
                        }
                    }
                    Err(error) => tracing::debug!(%error, "reserved space stays"),
                }
            }
            leader.done();
        }
        // Whoever came to wait meanwhile could not lead.
        self.hand_over();
    }

    /// Writes what the writer gave, without fsync. Gives the offset behind what is written.
    fn write_out(&self, stage: &mut WriteStage, taken: Taken, wakes: &mut Wakes) -> Result<u64> {
        stage.written_groups.extend(taken.group);
        stage.writing = true;
        let chunks = taken.chunks.len();
        for (index, mut chunk) in taken.chunks.into_iter().enumerate() {
            if index + 1 == chunks {
                chunk.restamp(self.durable_end());
            }
            let failed = chunk.store.write(&chunk.bytes, chunk.position).err();
            self.counters.writes.fetch_add(1, Ordering::Relaxed);
            self.counters.written_bytes.fetch_add(chunk.bytes.len() as u64, Ordering::Relaxed);
            if let Some(error) = failed {
                stage.writing = false;
                return Err(self.write_failed(stage, &chunk, chunks == 1, error, wakes));
            }
            chunk.segment.touch(self.options.disk.now_millis());
            chunk.store.publish(chunk.end_position());
            stage.unsynced_bytes += chunk.bytes.len() as u64;
            stage.mark_place = Some((chunk.store.clone(), chunk.end_position(), chunk.next_ordinal()));
            if stage.dirty.last().is_none_or(|last| !Arc::ptr_eq(last, &chunk.store)) {
                stage.dirty.push(chunk.store.clone());
            }
            stage.emptied.keep(chunk.bytes);
        }
        stage.writing = false;
        self.written_end.store(taken.end, Ordering::Release);
        Ok(taken.end)
    }

    /// A write failed inside reserved space. Where everybody it concerns is still waiting, the
    /// group is cut (durably, before the next frame goes there); otherwise the log is poisoned.
    fn write_failed(
        &self,
        stage: &mut WriteStage,
        chunk: &Chunk,
        alone: bool,
        error: Error,
        wakes: &mut Wakes,
    ) -> Error {
        let mut writer = lock(&self.writer);
        // With an append that returned (Manual, Interval), across a roll, or with other groups
        // written and not synced, a cut would take more than the group.
        let clean_cut = self.options.durability == Durability::Always
            && alone
            && stage.dirty.is_empty()
            && writer.is_active(&chunk.store);
        if !clean_cut || chunk.store.cut(chunk.position, chunk.bytes.len()).is_err() {
            drop(writer);
            return self.poison(stage, error, wakes);
        }
        tracing::warn!(file = %chunk.store.path().display(), %error, "a write failed; its group was cut");
        let mut groups = std::mem::take(&mut stage.written_groups);
        groups.push(writer.rewind(chunk));
        self.next_offset.store(writer.next_offset(), Ordering::Release);
        // Readers that see appended records may have counted on them.
        self.truncations.note(writer.next_offset());
        wakes.settle(groups, &Err(error.clone()));
        error
    }

    /// Leaves a mark behind the last group, unsynced, so that what was just acknowledged comes to
    /// be proven although no record follows. The next frame is written over it.
    fn leave_mark(&self, end: u64) {
        let Ok(stage) = self.write_stage.try_lock() else { return };
        let Some((store, position, ordinal)) = &stage.mark_place else { return };
        if !stage.dirty.is_empty() || lock(&self.writer).has_pending() || self.durable_end() != end {
            return;
        }
        if position.saturating_add(frame::HEADER_BYTES) > store.reserved() {
            return;
        }
        let header = Header { kind: Kind::Mark, length: 0, ordinal: *ordinal, lag: Lag::ZERO };
        let bytes = frame::encode_header(&header, PayloadChecksum::of(b""), store.seed());
        // Only a hint for recovery: a failure here takes nothing from anybody.
        if let Err(error) = store.write(&bytes, *position) {
            tracing::debug!(%error, "no mark was left");
        }
    }

    /// Writes out what is encoded, for a writer that got so far ahead that a batch of `bytes` does not fit.
    /// Without a leader in [`Durability::Always`], commits.
    pub(crate) fn relieve(&self, bytes: u64) -> Result<()> {
        if self.options.durability == Durability::Always {
            return self.commit_now();
        }
        self.write_bounded(|writer| writer.is_full(bytes))
    }

    /// Has the piece that is encoded written: by the scribe; or, of large frames, here, unless somebody is at it.
    pub(crate) fn write_piece(&self, large: bool) -> Result<()> {
        if !large {
            self.signal.demand(Signal::WRITE);
            return Ok(());
        }
        match self.write_stage.try_lock() {
            Ok(stage) => drop(stage),
            Err(_) => return Ok(()),
        }
        self.write_ahead()
    }

    /// Writes out what is encoded, if there is a piece of it: the scribe's work.
    pub(crate) fn write_ahead(&self) -> Result<()> {
        self.write_bounded(Writer::has_piece)
    }

    /// As [`Core::write_only`]; and where the committer is behind with its fsyncs, commits: what a crash leaves to
    /// do stays bounded.
    fn write_bounded(&self, wanted: impl FnOnce(&Writer) -> bool) -> Result<()> {
        if self.write_only(wanted)? > MOST_UNSYNCED_BYTES { self.commit_now() } else { Ok(()) }
    }

    /// Writes out what is encoded, without fsync, if that is still `wanted` when whoever writes now is done; gives the
    /// bytes that are written and not durable.
    pub(crate) fn write_only(&self, wanted: impl FnOnce(&Writer) -> bool) -> Result<u64> {
        let mut wakes = Wakes::default();
        let leader = Leader::new(self, None);
        let outcome = {
            let mut stage = lock(&self.write_stage);
            self.check_whole(&mut stage, &mut wakes).and_then(|()| {
                let mut writer = lock(&self.writer);
                if wanted(&writer) {
                    let taken = writer.take(false, &mut stage.emptied);
                    drop(writer);
                    self.write_out(&mut stage, taken, &mut wakes)?;
                }
                Ok((stage.unsynced_bytes, stage.unsynced_bytes + stage.syncing_bytes))
            })
        };
        leader.done();
        drop(wakes);
        let (unsynced, behind) = outcome?;
        if unsynced >= SYNC_EVERY_BYTES {
            self.signal.demand(Signal::COMMIT);
        }
        Ok(behind)
    }

    /// Whether anything was accepted that is not durable yet.
    pub(crate) fn has_uncommitted(&self) -> bool {
        if lock(&self.writer).has_pending() {
            return true;
        }
        !lock(&self.write_stage).dirty.is_empty()
    }

    /// Asks for a commit in the background.
    pub(crate) fn demand_commit(&self) {
        if self.background == Background::Inline {
            // Whoever waits hears of a failure through the group.
            let _ = self.commit_now();
        } else {
            self.signal.demand(Signal::COMMIT);
        }
    }

    /// Replaces the table of segments by what `change` makes of it.
    pub(crate) fn change_table(&self, change: impl Fn(&Table) -> Table) {
        self.table.rcu(|table| change(table));
    }

    /// Runs `change` while the writer stands still: nobody writes, syncs or encodes, and everything
    /// encoded is durable. The caller holds the structure lock, at which appenders wait meanwhile.
    /// An uncertain failure poisons, once the stages are released.
    pub(crate) fn while_quiet<T>(
        &self,
        change: impl FnOnce(&mut Writer, &mut WriteStage) -> Result<T, Failure>,
    ) -> Result<T> {
        let outcome = loop {
            lock(&self.writer).paused = true;
            let committed = self.commit_now();
            let leader = Leader::new(self, Some(lock(&self.sync_stage)));
            let mut stage = lock(&self.write_stage);
            let mut writer = lock(&self.writer);
            if let Err(error) = committed.and_then(|()| self.check_poison()) {
                writer.paused = false;
                drop((writer, stage));
                leader.done();
                break Err(Failure::Refused(error));
            }
            if !writer.has_pending() && stage.dirty.is_empty() {
                let outcome = change(&mut writer, &mut stage);
                writer.paused = false;
                drop((writer, stage));
                leader.done();
                break outcome;
            }
            drop((writer, stage));
            leader.done();
        };
        // Whoever came to wait meanwhile could not lead.
        self.hand_over();
        outcome.map_err(|failure| self.failed(failure))
    }

    /// The error of a failed change of the manifest; an uncertain one poisons.
    pub(crate) fn failed(&self, failure: Failure) -> Error {
        match failure {
            Failure::Refused(error) => error,
            Failure::Unknown(error) => self.poison_all(error),
        }
    }
}

impl WriteStage {
    /// Where small groups are fsynced, the blocks for the next ones are written in the same fsync: see
    /// [`Store::zero_ahead`]. Large groups gain less than the zeros cost, and a log that stays small needs none.
    fn zero_ahead(&self) {
        const LARGEST_GROUP: u64 = 128 << 10;
        const SMALLEST_STORE: u64 = 32 << 10;
        const GROUPS_AHEAD: u64 = 16;
        const LEAST_AHEAD: u64 = 64 << 10;
        const MOST_AHEAD: u64 = 1 << 20;
        let Some((store, end, _)) = &self.mark_place else { return };
        if (1..=LARGEST_GROUP).contains(&self.unsynced_bytes) && *end >= SMALLEST_STORE {
            let ahead = self.unsynced_bytes.saturating_mul(GROUPS_AHEAD).clamp(LEAST_AHEAD, MOST_AHEAD);
            if let Err(error) = store.zero_ahead(*end, ahead) {
                tracing::debug!(%error, "no zeros written ahead");
            }
        }
    }

    /// Forgets where a mark could go, as the log's end moves elsewhere.
    pub(crate) fn forget_mark(&mut self) {
        self.mark_place = None;
    }
}

/// Who commits, or writes. One that panics poisons the log and wakes everybody, before it lets the sync stage go:
/// the next leader would find its groups written and its stores no longer dirty, and acknowledge without an fsync.
struct Leader<'a> {
    core: &'a Core,
    /// `None` for one who only writes: what it took and did not write is all that is lost.
    sync: Option<MutexGuard<'a, ()>>,
    /// Whether it came to its end, well or not: one that is dropped without panicked. (Its thread may have been unwinding
    /// before, from a `drop`, so that nothing else tells.)
    done: bool,
}

impl<'a> Leader<'a> {
    fn new(core: &'a Core, sync: Option<MutexGuard<'a, ()>>) -> Leader<'a> {
        Leader { core, sync, done: false }
    }

    fn done(mut self) {
        self.done = true;
    }
}

impl Drop for Leader<'_> {
    fn drop(&mut self) {
        if self.done {
            return;
        }
        let mut wakes = Wakes::default();
        {
            let error = self.core.panicked();
            let mut stage = lock(&self.core.write_stage);
            self.core.poison(&mut stage, error, &mut wakes);
        }
        self.sync = None;
        // Whoever came to wait meanwhile could not lead.
        self.core.hand_over();
    }
}
