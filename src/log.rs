//! The handle: composition root of the engine.
//!
//! It owns opening (inspect, plan, apply, then serve) and the public methods, each a few lines over
//! the layer that does the work. It owns no rule of its own beyond the order of opening. Invariant:
//! nothing is served and nothing taken before the fresh MANIFEST is durable.

use std::ops::{Bound, Range, RangeBounds};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use crate::background::Threads;
use crate::commit::{Core, lock};
use crate::disk::{self, Background, Disk, DiskLock, LockAttempt, OpenMode};
use crate::error::{Error, Result};
use crate::frame::PayloadChecksum;
use crate::group::Group;
use crate::manifest::file::ManifestFile;
use crate::manifest::{Reading, State};
use crate::names;
use crate::options::{Durability, Options, ReadMode};
use crate::reader::{Reader, Record, Records};
use crate::recovery::apply::{Applied, apply, make_room};
use crate::recovery::verdict::Verdict;
use crate::recovery::{self, Depth, Findings, Plan, Planned, Recovery, Thrift};
use crate::segment::{self, Place, SealedEnd, Segment};
use crate::signal::Signal;
use crate::stats::{SegmentInfo, Stats};
use crate::store::{FIRST_FRAME, Store};
use crate::table::Table;
use crate::ticket::Ticket;
use crate::writer::{self, Active, Gate, Hashed, Rolled, Room, Writer};

/// How often a directory that a live writer changes is read again before giving up.
const MOST_ATTEMPTS: usize = 64;

/// An open log. Cheap to clone; all clones are the same log. Every method takes `&self` and can be
/// called from any thread.
///
/// Dropping the last handle closes the log as [`Log::close`] does, but cannot report a failure.
#[derive(Debug, Clone)]
pub struct Log {
    handle: Arc<Handle>,
}

#[derive(Debug)]
struct Handle {
    core: Arc<Core>,
    threads: Mutex<Threads>,
    recovery: Recovery,
    lock: Mutex<Option<Box<dyn DiskLock>>>,
    /// How closing went, once it was tried.
    closed: Mutex<Option<Result<()>>>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        if let Err(error) = self.close() {
            tracing::warn!(%error, directory = %self.core.place.directory.display(),
                "the log was dropped without a clean close");
        }
    }
}

impl Handle {
    fn close(&self) -> Result<()> {
        let mut closed = lock(&self.closed);
        if let Some(outcome) = &*closed {
            return outcome.clone();
        }
        // Whatever comes of it, nothing is taken any more: then the lock can go.
        let outcome = self.core.close();
        lock(&self.threads).stop(&self.core);
        lock(&self.lock).take();
        *closed = Some(outcome.clone());
        outcome
    }
}

impl Log {
    /// Opens the log in `directory` with the default [`Options`], creating it if there is none.
    ///
    /// # Errors
    /// See [`Options::open`].
    pub fn open(directory: impl AsRef<Path>) -> Result<Log> {
        Options::new().open(directory)
    }

    /// Opens the log in `directory` for reading only, with the default [`Options`]; see
    /// [`Options::open_read_only`].
    ///
    /// # Errors
    /// See [`Options::open_read_only`].
    pub fn open_read_only(directory: impl AsRef<Path>) -> Result<Log> {
        Options::new().open_read_only(directory)
    }

    pub(crate) fn open_with(options: Options, directory: &Path) -> Result<Log> {
        let disk = options.disk.clone();
        create_directory(disk.as_ref(), directory)?;
        let lock_path = directory.join(names::LOCK);
        let held = match disk::retry_interrupted(|| disk.lock(&lock_path))
            .map_err(|error| Error::io_or_no_space("locking", &lock_path, 1, error))?
        {
            LockAttempt::Acquired(held) => held,
            LockAttempt::Held { pid } => return Err(Error::Locked { path: lock_path, pid }),
        };
        let findings = recovery::inspect(disk.as_ref(), directory, Depth::Opening)?;
        let (core, recovery) = match recovery::plan(&findings, options.on_damage)? {
            Planned::Begin => begin(&options, directory)?,
            Planned::Proceed(plan) => recover(&options, directory, &findings, *plan)?,
            Planned::ReadsOnly(damage) => {
                tracing::error!(%damage, "the loss cannot be bounded: serving reads only");
                let why =
                    "acknowledged records are missing and nobody can tell how many: salvage what is there";
                read_only(&options, directory, &findings, why)?
            }
        };
        tracing::info!(directory = %directory.display(), %recovery, "opened");
        let core = Arc::new(core);
        let threads = Threads::start(&core)
            .map_err(|error| Error::io("starting a thread for", directory, None, error))?;
        if core.structure.is_some() {
            core.signal.demand(Signal::KEEP);
        }
        Ok(Log {
            handle: Arc::new(Handle {
                core,
                threads: Mutex::new(threads),
                recovery,
                lock: Mutex::new(Some(held)),
                closed: Mutex::new(None),
            }),
        })
    }

    pub(crate) fn open_read_only_with(options: Options, directory: &Path) -> Result<Log> {
        let findings = settled_findings(options.disk.as_ref(), directory)?;
        let (Reading::Whole { state, .. }, Some(assessment)) = (&findings.manifest, &findings.assessment)
        else {
            // Damage says so; otherwise there is no log.
            recovery::plan(&findings, options.on_damage)?;
            return Err(Error::io("opening", directory, None, std::io::ErrorKind::NotFound.into()));
        };
        if options.on_damage == crate::options::DamagePolicy::Refuse
            && let Some(damage) = recovery::standing_damage(&findings, state, assessment)
        {
            return Err(damage.into());
        }
        let (core, recovery) = read_only(&options, directory, &findings, "it was opened read-only")?;
        let handle = Handle {
            core: Arc::new(core),
            threads: Mutex::default(),
            recovery,
            lock: Mutex::new(None),
            closed: Mutex::new(None),
        };
        Ok(Log { handle: Arc::new(handle) })
    }

    fn core(&self) -> &Arc<Core> {
        &self.handle.core
    }

    /// Appends one record and returns its offset. Under [`Durability::Always`] the record is
    /// durable when this returns.
    ///
    /// # Errors
    /// [`Error::TooLarge`], [`Error::NoSpace`] (nothing was appended; call again when space is
    /// back), [`Error::Poisoned`], [`Error::Closed`], [`Error::ReadOnly`], [`Error::Io`].
    pub fn append(&self, record: impl AsRef<[u8]>) -> Result<u64> {
        let record = record.as_ref();
        let bytes = writer::batch_bytes(std::iter::once(record), self.core().options.max_record_bytes)?;
        let hashed = [(record, PayloadChecksum::of(record))];
        Ok(self.core().append(&hashed, bytes, None)?.start)
    }

    /// Appends records, all or none of which survive a crash; returns their offsets.
    ///
    /// # Errors
    /// As [`Log::append`].
    pub fn append_batch<I, R>(&self, records: I) -> Result<Range<u64>>
    where
        I: IntoIterator<Item = R>,
        R: AsRef<[u8]>,
    {
        let records: Vec<R> = records.into_iter().collect();
        let (hashed, bytes) = self.hash(&records)?;
        self.core().append(&hashed, bytes, None)
    }

    /// Appends records only if the first of them gets the offset `expected`.
    ///
    /// # Errors
    /// [`Error::UnexpectedOffset`] with the actual next offset; otherwise as [`Log::append`].
    pub fn append_at<I, R>(&self, expected: u64, records: I) -> Result<Range<u64>>
    where
        I: IntoIterator<Item = R>,
        R: AsRef<[u8]>,
    {
        let records: Vec<R> = records.into_iter().collect();
        let (hashed, bytes) = self.hash(&records)?;
        self.core().append(&hashed, bytes, Some(expected))
    }

    /// Hands one record over without waiting, in any durability mode; the [`Ticket`] says when it
    /// is durable. Blocks only while too many bytes wait to be written.
    ///
    /// # Errors
    /// As [`Log::append`], for what shows at once.
    pub fn submit(&self, record: impl AsRef<[u8]>) -> Result<Ticket> {
        let record = record.as_ref();
        let bytes = writer::batch_bytes(std::iter::once(record), self.core().options.max_record_bytes)?;
        self.ticket(&[(record, PayloadChecksum::of(record))], bytes)
    }

    /// Hands a batch over without waiting; see [`Log::submit`].
    ///
    /// # Errors
    /// As [`Log::submit`].
    pub fn submit_batch<I, R>(&self, records: I) -> Result<Ticket>
    where
        I: IntoIterator<Item = R>,
        R: AsRef<[u8]>,
    {
        let records: Vec<R> = records.into_iter().collect();
        let (hashed, bytes) = self.hash(&records)?;
        self.ticket(&hashed, bytes)
    }

    fn ticket(&self, hashed: &[Hashed<'_>], bytes: u64) -> Result<Ticket> {
        let core = self.core();
        let (offsets, group) = core.accept(hashed, bytes, None)?;
        if core.options.durability == Durability::Always {
            core.signal.demand(Signal::COMMIT);
        }
        core.run_background();
        Ok(Ticket { core: core.clone(), group, offsets, polled: false })
    }

    fn hash<'a, R: AsRef<[u8]>>(&self, records: &'a [R]) -> Result<(Vec<Hashed<'a>>, u64)> {
        let payloads = records.iter().map(AsRef::as_ref);
        let bytes = writer::batch_bytes(payloads, self.core().options.max_record_bytes)?;
        let hashed = records.iter().map(|r| (r.as_ref(), PayloadChecksum::of(r.as_ref()))).collect();
        Ok((hashed, bytes))
    }

    /// Makes everything that was appended or submitted so far durable.
    ///
    /// # Errors
    /// [`Error::Poisoned`] and [`Error::Io`] when it cannot be known to be.
    pub fn sync(&self) -> Result<()> {
        let core = self.core();
        core.check_poison()?;
        let group = {
            let writer = lock(&core.writer);
            if writer.next_offset() == core.durable_end() {
                return Ok(());
            }
            writer.group().clone()
        };
        let synced = core.wait(&group);
        core.run_background();
        synced
    }

    /// Reads the record at `offset`.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] when no (durable) record has this offset, [`Error::Damaged`],
    /// [`Error::Lost`], [`Error::Io`].
    #[inline]
    pub fn read(&self, offset: u64) -> Result<Record> {
        let payload = self.core().read(offset)?;
        Ok(Record::new(offset, payload))
    }

    /// The records of a range of offsets, owned, one by one; of those that readers may see. A range
    /// that begins before the front begins at the front.
    pub fn records(&self, range: impl RangeBounds<u64>) -> Records {
        let start = match range.start_bound() {
            Bound::Included(start) => *start,
            Bound::Excluded(start) => start.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(end) => end.saturating_add(1),
            Bound::Excluded(end) => *end,
            Bound::Unbounded => u64::MAX,
        };
        Records::new(self.reader(start), end)
    }

    /// A reader that lends records without copying or counting references: the fastest way through
    /// a log. It begins at `from`, or at the front where that is later.
    pub fn reader(&self, from: u64) -> Reader {
        Reader::new(self.core().clone(), from)
    }

    /// Removes the records below `offset`, durably, and frees the space of whole segments. An
    /// `offset` beyond the end leaves an empty log that starts there.
    ///
    /// # Errors
    /// [`Error::Poisoned`], [`Error::NoSpace`], [`Error::Io`], [`Error::Closed`], [`Error::ReadOnly`].
    pub fn truncate_front(&self, offset: u64) -> Result<()> {
        let truncated = self.core().truncate_front(offset);
        self.core().run_background();
        truncated
    }

    /// Removes the records at and above `end`, durably: the next record gets the offset `end`.
    /// Readers that stood beyond get [`Error::Truncated`].
    ///
    /// # Errors
    /// [`Error::OutOfRange`] below the front; otherwise as [`Log::truncate_front`].
    pub fn truncate_back(&self, end: u64) -> Result<()> {
        let truncated = self.core().truncate_back(end);
        self.core().run_background();
        truncated
    }

    /// Keeps a small named value (a vote, a consumer's position), durable when this returns. Not
    /// ordered with appends. Keys have up to 255 bytes, values up to 64 KiB; meant for a few.
    ///
    /// # Errors
    /// [`Error::TooLarge`]; otherwise as [`Log::truncate_front`].
    pub fn put_meta(&self, key: &str, value: impl AsRef<[u8]>) -> Result<()> {
        self.core().put_meta(key, Some(value.as_ref()))
    }

    /// Removes a named value, durably.
    ///
    /// # Errors
    /// As [`Log::put_meta`].
    pub fn remove_meta(&self, key: &str) -> Result<()> {
        self.core().put_meta(key, None)
    }

    /// A named value, if there is one.
    ///
    /// # Errors
    /// None at present; a read-only log answers from when it was opened.
    pub fn meta(&self, key: &str) -> Result<Option<Vec<u8>>> {
        match &self.core().structure {
            Some(structure) => Ok(lock(structure).state().meta.get(key).cloned()),
            None => Ok(self.core().frozen_meta.get(key).cloned()),
        }
    }

    /// The offsets of all records, durable or not: from the front to the next record's offset.
    pub fn offsets(&self) -> Range<u64> {
        self.core().table.load().front..self.core().next_offset.load(Ordering::Acquire)
    }

    /// Every record below this offset is durable.
    pub fn durable_end(&self) -> u64 {
        self.core().durable_end()
    }

    /// The segments that hold records, in order.
    pub fn segments(&self) -> Vec<SegmentInfo> {
        let next = self.core().next_offset.load(Ordering::Acquire);
        SegmentInfo::list(&self.core().table.load(), next)
    }

    /// Counters since opening.
    pub fn stats(&self) -> Stats {
        let (records, payload_bytes) = lock(&self.core().writer).accepted();
        Stats::of(&self.core().counters, records, payload_bytes)
    }

    /// What opening found and did.
    pub fn recovery(&self) -> &Recovery {
        &self.handle.recovery
    }

    /// Makes everything durable and states so, so that the next opening has nothing to look for.
    /// Other handles and readers can read on; nobody can append any more. Closing twice is fine.
    ///
    /// # Errors
    /// [`Error::Poisoned`] when that cannot be stated: the next opening then recovers.
    pub fn close(&self) -> Result<()> {
        self.handle.close()
    }
}

impl Options {
    /// Opens the log in `directory` for reading and writing, and recovers it where needed. What is
    /// not there is created.
    ///
    /// # Errors
    /// [`Error::Locked`], [`Error::Damaged`] (see [`DamagePolicy`](crate::DamagePolicy)), [`Error::NoSpace`],
    /// [`Error::InvalidOption`], [`Error::UnsupportedVersion`], [`Error::Io`].
    pub fn open(self, directory: impl AsRef<Path>) -> Result<Log> {
        self.check()?;
        Log::open_with(self, directory.as_ref())
    }

    /// Opens the log in `directory` for reading only: takes no lock, creates no file, works beside
    /// a live writer and on read-only media. It serves what is proven durable at this moment.
    ///
    /// # Errors
    /// [`Error::Damaged`], [`Error::Busy`], [`Error::UnsupportedVersion`], [`Error::Io`].
    pub fn open_read_only(self, directory: impl AsRef<Path>) -> Result<Log> {
        self.check()?;
        Log::open_read_only_with(self, directory.as_ref())
    }
}

impl Core {
    fn append(&self, batch: &[Hashed<'_>], bytes: u64, expected: Option<u64>) -> Result<Range<u64>> {
        if batch.is_empty() {
            let writer = lock(&self.writer);
            writer.check_gate()?;
            check_expected(expected, writer.next_offset())?;
            return Ok(writer.next_offset()..writer.next_offset());
        }
        let (offsets, group) = self.accept(batch, bytes, expected)?;
        if self.options.durability == Durability::Always {
            self.wait(&group)?;
        }
        if self.background == Background::Inline {
            self.run_background();
        }
        Ok(offsets)
    }

    /// Gives a batch its offsets and encodes it.
    fn accept(
        &self,
        batch: &[Hashed<'_>],
        bytes: u64,
        expected: Option<u64>,
    ) -> Result<(Range<u64>, Arc<Group>)> {
        loop {
            let mut writer = lock(&self.writer);
            self.check_poison()?;
            writer.check_gate()?;
            check_expected(expected, writer.next_offset())?;
            let room = writer.make_room(bytes, batch.len(), |segment| {
                self.change_table(|table| {
                    let mut table = table.clone();
                    table.segments.push(segment.clone());
                    table
                });
                self.signal.demand(Signal::KEEP);
            })?;
            match room {
                Room::Ready | Room::ReserveAhead => {
                    if matches!(room, Room::ReserveAhead) {
                        self.signal.demand(Signal::KEEP);
                    }
                    let offsets = writer.encode(batch, self.durable_end.load(Ordering::Relaxed));
                    let group = writer.group().clone();
                    let pending = writer.pending_bytes();
                    self.next_offset.store(offsets.end, Ordering::Release);
                    drop(writer);
                    if pending >= crate::commit::WRITE_EVERY_BYTES as u64
                        && self.options.durability != Durability::Always
                    {
                        self.write_ahead()?;
                    }
                    return Ok((offsets, group));
                }
                Room::Paused => {
                    drop(writer);
                    drop(self.structure()?);
                }
                Room::NeedsRelief => {
                    drop(writer);
                    self.relieve()?;
                }
                Room::NeedsCommit => {
                    drop(writer);
                    self.commit_now()?;
                }
                Room::NeedsSpares(needed) => {
                    drop(writer);
                    self.keep(Some(needed))?;
                }
            }
        }
    }

    /// Reads one record that readers may see.
    #[inline]
    pub(crate) fn read(&self, offset: u64) -> Result<crate::store::Payload> {
        loop {
            // The end before the table: a record that can be seen has its segment in the table.
            let end = self.visible_end();
            let table = self.table.load();
            match self.read_from(&table, offset, end) {
                Ok(payload) => return Ok(payload),
                // What looks wrong may only have changed meanwhile.
                Err(_) if !Arc::ptr_eq(&table, &self.table.load()) => {}
                Err(error) => return Err(self.truncated_or(offset, error)),
            }
        }
    }

    #[inline]
    fn read_from(&self, table: &Table, offset: u64, end: u64) -> Result<crate::store::Payload> {
        let out_of_range = || Error::OutOfRange { offset, offsets: table.front..end.max(table.front) };
        if offset < table.front || offset >= end {
            return Err(out_of_range());
        }
        table.check_served(&self.place, offset)?;
        if offset >= self.written_end.load(Ordering::Acquire) {
            self.write_for_readers()?;
        }
        let segment = table.segment_of(offset).ok_or_else(out_of_range)?;
        Ok(segment.read(offset, self.options.verify_reads)?.0)
    }

    /// A record that a truncation took while it was being read is not damaged: it is gone.
    #[cold]
    pub(crate) fn truncated_or(&self, offset: u64, error: Error) -> Error {
        let mut offsets = self.table.load().front..self.visible_end();
        if self.structure.is_none()
            && let Ok(Reading::Whole { state, .. }) =
                crate::manifest::read(self.place.disk.as_ref(), &self.place.directory)
        {
            // The live writer beside this reader may have truncated its front.
            offsets.start = offsets.start.max(state.front);
        }
        if offsets.contains(&offset) { error } else { Error::OutOfRange { offset, offsets } }
    }

    /// Readers that see appended records need them in the file.
    pub(crate) fn write_for_readers(&self) -> Result<()> {
        match self.options.durability {
            Durability::Always => self.commit_now(),
            _ => self.write_only().map(|_| ()),
        }
    }
}

fn check_expected(expected: Option<u64>, next: u64) -> Result<()> {
    match expected {
        Some(expected) if expected != next => Err(Error::UnexpectedOffset { expected, next }),
        _ => Ok(()),
    }
}

/// Creates the log directory and what leads to it. Until a log was begun there, every directory up
/// to the root is made durable: an earlier attempt may have crashed between making and syncing one.
fn create_directory(disk: &dyn Disk, directory: &Path) -> Result<()> {
    let exists = |path: &Path| {
        disk::retry_interrupted(|| disk.exists(path))
            .map_err(|error| Error::io("looking for", path, None, error))
    };
    if exists(&directory.join(crate::manifest::FILE_NAME))? {
        return Ok(());
    }
    let parent = match directory.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => return Ok(()),
    };
    if !exists(directory)? {
        if !exists(parent)? {
            create_directory(disk, parent)?;
        }
        match disk::retry_interrupted(|| disk.create_dir(directory)) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                return Err(Error::io_or_no_space("creating", directory, 4096, error));
            }
            _ => {}
        }
    }
    for ancestor in directory.ancestors().skip(1) {
        let ancestor = if ancestor.as_os_str().is_empty() { Path::new(".") } else { ancestor };
        match disk::retry_interrupted(|| disk.sync_dir(ancestor)) {
            // A directory that this process may not read was not made by it.
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied && ancestor != parent => {}
            synced => synced.map_err(|error| Error::io("syncing directory", ancestor, None, error))?,
        }
    }
    Ok(())
}

fn place(options: &Options, directory: &Path, uuid: [u8; 16], writable: bool) -> Arc<Place> {
    Arc::new(Place {
        disk: options.disk.clone(),
        directory: directory.to_path_buf(),
        uuid,
        writable,
        use_maps: writable && options.read_mode == ReadMode::Mapped,
    })
}

/// Begins a new log: Init is durable before the first store.
fn begin(options: &Options, directory: &Path) -> Result<(Core, Recovery)> {
    let disk = &options.disk;
    let mut uuid = [0; 16];
    let (low, high) = uuid.split_at_mut(8);
    low.copy_from_slice(&disk.random().to_le_bytes());
    high.copy_from_slice(&disk.random().to_le_bytes());
    let first = options.first_offset.unwrap_or(0);
    let state = State::begin(uuid, disk.now_millis(), first);
    let manifest =
        ManifestFile::create(disk.clone(), directory, state, 1).map_err(|failure| failure.into_error())?;
    let place = place(options, directory, uuid, true);
    let writer = Writer::new(place.clone(), options.segment_bytes, first, Gate::Open);
    let table = Table { front: first, ..Table::default() };
    let core = Core::new(place, options.clone(), Some(manifest), writer, table, first);
    let recovery = Recovery {
        begun: true,
        clean: true,
        verdict: Verdict::Clean,
        proven_end: first,
        proof: format!("the log starts at {first}"),
        valid_end: first,
        next_offset: first,
        scanned_bytes: 0,
        copied: first..first,
        cut: Vec::new(),
        removed: Vec::new(),
        quarantined: Vec::new(),
        damaged: Vec::new(),
    };
    Ok((core, recovery))
}

/// Applies a plan, then builds what serves.
fn recover(
    options: &Options,
    directory: &Path,
    findings: &Findings,
    mut plan: Plan,
) -> Result<(Core, Recovery)> {
    let Reading::Whole { state: old, .. } = &findings.manifest else {
        return Err(Error::io("opening", directory, None, std::io::ErrorKind::NotFound.into()));
    };
    check_first_offset(options, old)?;
    let applied = match apply(&options.disk, directory, &mut plan, old) {
        Err(error) if error.is_no_space() => {
            tracing::warn!(%error, "the disk is full: recovering with as little space as can be");
            let spare = recovery::plan_with(findings, options.on_damage, Thrift::Sparing)?;
            let Planned::Proceed(sparing) = spare else { return Err(error) };
            plan = *sparing;
            make_room(&options.disk, directory, &mut plan, old)?;
            apply(&options.disk, directory, &mut plan, old)?
        }
        applied => applied?,
    };
    let Applied { manifest, copied } = applied;
    let state = manifest.state();
    let place = place(options, directory, state.uuid, true);
    let mut table = sealed_table(&place, state);
    let next_offset = plan.recovery.next_offset;
    let mut writer = Writer::new(place.clone(), options.segment_bytes, next_offset, Gate::Open);

    if let Some((id, length)) = plan.active {
        let base =
            state.segments.get(&id).and_then(|segment| segment.base).unwrap_or_else(|| state.sealed_end());
        let count = segment::record_count(base, next_offset, length);
        let (store, index) = match copied {
            Some(copied) => (copied.store.with_map_bytes(options.segment_bytes), copied.index),
            None => {
                let (disk, map_bytes) = (options.disk.as_ref(), options.segment_bytes);
                let mode = OpenMode::ReadWrite;
                let store = Store::open(disk, directory, &state.uuid, id, mode, length, map_bytes)?;
                let index = segment::reopen_active_index(&place, &store, base, count, length);
                (store, index)
            }
        };
        let store = Arc::new(store);
        let active = Segment::with_memory_index(place.clone(), base, store.clone(), index, None);
        let active = Arc::new(active);
        table.segments.push(active.clone());
        let held = active.memory_index().map_or(0, |index| index.len());
        let end = base.saturating_add(u64::from(held));
        if end == next_offset {
            writer.active = Some(Active { segment: active, store, position: length });
        } else {
            // A front beyond its end leaves its ordinals behind: it is sealed as it is, and the next
            // record begins a segment of its own.
            writer.rolled.push_back(Rolled { segment: active, end, length });
        }
    }
    let core = Core::new(place, options.clone(), Some(manifest), writer, table, next_offset);
    Ok((core, plan.recovery))
}

fn check_first_offset(options: &Options, state: &State) -> Result<()> {
    match options.first_offset {
        Some(first) if first != state.first_offset => Err(Error::InvalidOption {
            option: "first_offset",
            why: format!("this log was begun with {}, not {first}", state.first_offset),
        }),
        _ => Ok(()),
    }
}

fn sealed_table(place: &Arc<Place>, state: &State) -> Table {
    let mut segments = Vec::new();
    let mut predecessor_end = state.front;
    for (id, segment, seal) in state.sealed() {
        let base = segment.base.unwrap_or(predecessor_end);
        let end = SealedEnd { next_offset: seal.next_offset, length: seal.length };
        segments.push(Arc::new(Segment::sealed(place.clone(), id, base, end, None)));
        predecessor_end = seal.next_offset;
    }
    Table { segments, front: state.front, damaged: state.damaged.clone(), lost: state.lost.clone() }
}

/// Findings of a directory that a live writer may be changing: read again until they hold still.
fn settled_findings(disk: &dyn Disk, directory: &Path) -> Result<Findings> {
    let mut before: Option<(u64, u64, u64)> = None;
    for _ in 0..MOST_ATTEMPTS {
        let findings = recovery::inspect(disk, directory, Depth::Opening)?;
        let Reading::Whole { generation, length, .. } = &findings.manifest else { return Ok(findings) };
        let unchanged = match crate::manifest::read(disk, directory)? {
            Reading::Whole { generation: now, length: end, .. } => (now, end) == (*generation, *length),
            _ => false,
        };
        let Some(assessment) = &findings.assessment else { return Ok(findings) };
        // What looks like damage beside a live writer may be a frame that was being written while
        // the scan went by: damage holds still.
        let seen = (*generation, assessment.valid_end, assessment.proven_end);
        if unchanged && (assessment.verdict != Verdict::Damage || before == Some(seen)) {
            return Ok(findings);
        }
        before = Some(seen);
        std::thread::yield_now();
    }
    Err(Error::Busy { path: directory.to_path_buf() })
}

/// Builds what serves reads and nothing else, without writing a byte.
fn read_only(
    options: &Options,
    directory: &Path,
    findings: &Findings,
    why: &'static str,
) -> Result<(Core, Recovery)> {
    let (Reading::Whole { state, .. }, Some(assessment)) = (&findings.manifest, &findings.assessment) else {
        return Err(Error::io("opening", directory, None, std::io::ErrorKind::NotFound.into()));
    };
    check_first_offset(options, state)?;
    let place = place(options, directory, state.uuid, false);
    let mut table = sealed_table(&place, state);
    let end = assessment.proven_end.max(state.front);
    let in_flight = assessment.valid_end.saturating_sub(end);
    let unscanned = state.closed.filter(|_| assessment.placed.is_empty());
    let disk = options.disk.as_ref();
    let mut add = |id: u64, base: u64, limit: u64, length: u64| -> Result<()> {
        let store = Store::open(disk, directory, &state.uuid, id, OpenMode::Read, length, 0)?;
        let count = segment::record_count(base, limit, store.published());
        let index = segment::reopen_active_index(&place, &store, base, count, length);
        let segment = Segment::with_memory_index(place.clone(), base, Arc::new(store), index, None);
        table.segments.push(Arc::new(segment));
        Ok(())
    };
    if let (Some(close), Some((id, segment))) = (unscanned, state.unsealed().next()) {
        let found = findings.segments.iter().find(|found| found.id == id);
        let known = segment.base.or_else(|| found.and_then(|found| found.base));
        let there = found.is_some_and(|found| found.store.length().is_some());
        if there && close.length > FIRST_FRAME {
            add(id, known.unwrap_or_else(|| state.sealed_end()), end, close.length)?;
        }
    }
    for placed in assessment.placed.iter().filter(|placed| placed.base < end) {
        let length = findings.segments.iter().find(|s| s.id == placed.id).and_then(|s| s.store.length());
        add(placed.id, placed.base, placed.limit.unwrap_or(end).min(end), length.unwrap_or(0))?;
    }
    for lost in assessment.damage.iter().filter_map(|found| found.offsets.clone()) {
        if lost.start >= state.sealed_end() {
            table.damaged.insert(lost.start.max(state.front)..lost.end);
        }
    }
    let recovery = Recovery {
        begun: false,
        clean: state.closed.is_some(),
        verdict: assessment.verdict,
        proven_end: assessment.proven_end,
        proof: assessment.proof.describe(assessment.proven_end),
        valid_end: assessment.valid_end,
        next_offset: end,
        scanned_bytes: findings.scanned_bytes(),
        copied: end..end,
        cut: Vec::new(),
        removed: Vec::new(),
        quarantined: Vec::new(),
        damaged: table.damaged.iter().collect(),
    };
    tracing::debug!(directory = %directory.display(), end, in_flight, "opened read-only");
    let writer = Writer::new(place.clone(), options.segment_bytes, end, Gate::ReadOnly(why));
    let mut core = Core::new(place, options.clone(), None, writer, table, end);
    core.frozen_meta = state.meta.clone();
    Ok((core, recovery))
}
