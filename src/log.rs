//! The handle: composition root of the engine.
//!
//! It owns the public methods, each a few lines over the layer that does the work, and the way an
//! append takes through the writer. It does not know how a log is opened (`open`). Invariant: what a
//! method returns as durable was settled by a commit.

use std::ops::{Bound, Range, RangeBounds};
use std::path::Path;
use std::sync::Arc;

use crate::background::Threads;
use crate::commit::{Core, lock};
use crate::disk::{Background, DiskLock};
use crate::error::{Error, Result};
use crate::frame::PayloadChecksum;
use crate::group::Group;
use crate::manifest::Reading;
use crate::open::{self, Opened};
use crate::options::{Durability, Options};
use crate::reader::{Reader, Record, Records};
use crate::recovery::Recovery;
use crate::signal::Signal;
use crate::stats::{SegmentInfo, Stats};
use crate::sync::Mutex;
use crate::sync::atomic::Ordering;
use crate::table::Table;
use crate::ticket::Ticket;
use crate::writer::{self, Hashed, Room};

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
        self.core.dropped.close_unlinked();
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

    fn serve(opened: Opened) -> Result<Log> {
        let core = Arc::new(opened.core);
        let threads = Threads::start(&core)
            .map_err(|error| Error::io("starting a thread for", &core.place.directory, None, error))?;
        if core.structure.is_some() {
            core.signal.demand(Signal::KEEP);
        }
        let handle = Handle {
            core,
            threads: Mutex::new(threads),
            recovery: opened.recovery,
            lock: Mutex::new(opened.lock),
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
        Ok(self.core().append(&[(record, PayloadChecksum::of(record))], bytes, None)?.start)
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
        let (offsets, group) = core.accept(hashed, bytes, None, |group| group.clone())?;
        if core.options.durability == Durability::Always {
            core.signal.demand(Signal::COMMIT);
        }
        core.run_background();
        Ok(Ticket { core: core.clone(), group, offsets, polled: false })
    }

    /// To say what a record's bytes are is the caller's code: it is asked once, and under no lock. One that panicked
    /// while its batch is encoded would leave half of it, and other bytes than were hashed would be damage.
    fn hash<'a, R: AsRef<[u8]>>(&self, records: &'a [R]) -> Result<(Vec<Hashed<'a>>, u64)> {
        let hashed = |record: &'a R| {
            let payload = record.as_ref();
            (payload, PayloadChecksum::of(payload))
        };
        let hashed: Vec<Hashed<'a>> = records.iter().map(hashed).collect();
        let payloads = hashed.iter().map(|(payload, _)| *payload);
        let bytes = writer::batch_bytes(payloads, self.core().options.max_record_bytes)?;
        Ok((hashed, bytes))
    }

    /// Makes everything that was appended or submitted so far durable.
    ///
    /// # Errors
    /// [`Error::Poisoned`] and [`Error::Io`] when it cannot be known to be.
    pub fn sync(&self) -> Result<()> {
        let core = self.core();
        let group = {
            let writer = lock(&core.writer);
            // Under this lock: a poisoning gives up the open group under it too, and whoever came
            // later would wait for a group that nobody settles.
            core.check_poison()?;
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

    /// The first offset from `offset` on that may be readable: whoever met a record that is damaged or
    /// lost can step over all its neighbours at once, of which a damaged file may name any number. (The
    /// end of what readers may see, where none is.)
    pub fn readable_from(&self, offset: u64) -> u64 {
        // The end before the table, as in a read: what can be seen has its segment in the table.
        let end = self.core().visible_end();
        self.core().table.load().readable_from(offset, end)
    }

    /// Removes the records below `offset`, durably, and frees the space of whole segments: their files
    /// are removed in the background, at once where the disk is full. An `offset` beyond the end leaves
    /// an empty log that starts there.
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
    /// Other handles and readers can read on; nobody can append any more. Closing twice is fine. Who reads on holds
    /// the files: what a later opening truncates gives its space back once the last handle is dropped.
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
        Log::serve(open::open(&self, directory.as_ref())?)
    }

    /// Opens the log in `directory` for reading only: takes no lock, creates no file, works beside
    /// a live writer and on read-only media. It serves what is proven durable at this moment.
    ///
    /// # Errors
    /// [`Error::Damaged`], [`Error::Busy`], [`Error::UnsupportedVersion`], [`Error::Io`].
    pub fn open_read_only(self, directory: impl AsRef<Path>) -> Result<Log> {
        self.check()?;
        Log::serve(open::open_read_only(&self, directory.as_ref())?)
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
        let always = self.options.durability == Durability::Always;
        let (offsets, group) = self.accept(batch, bytes, expected, |group| always.then(|| group.clone()))?;
        if let Some(group) = group {
            self.wait(&group)?;
        }
        if self.background == Background::Inline {
            self.run_background();
        }
        Ok(offsets)
    }

    /// Gives a batch its offsets and encodes it. `take` keeps the group, where somebody will wait for it: to count
    /// one more reference costs as much as the lock.
    fn accept<G>(
        &self,
        batch: &[Hashed<'_>],
        bytes: u64,
        expected: Option<u64>,
        take: impl Fn(&Arc<Group>) -> G,
    ) -> Result<(Range<u64>, G)> {
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
            });
            let room = match room {
                // Files that are let go of hold what is missing.
                Err(error) if error.is_no_space() => {
                    drop(writer);
                    if self.dropped.remove_all(&self.place) {
                        continue;
                    }
                    return Err(error);
                }
                room => room?,
            };
            match room {
                Room::Ready | Room::ReserveAhead => {
                    if matches!(room, Room::ReserveAhead) {
                        self.signal.demand(Signal::KEEP);
                    }
                    let offsets = writer.encode(batch, bytes, self.durable_end.load(Ordering::Relaxed));
                    let group = take(writer.group());
                    let has_piece = writer.has_piece();
                    self.next_offset.store(offsets.end, Ordering::Release);
                    drop(writer);
                    if has_piece && self.options.durability != Durability::Always {
                        self.write_piece(writer::are_large(bytes, batch.len()))?;
                    }
                    return Ok((offsets, group));
                }
                Room::Paused => {
                    drop(writer);
                    drop(self.structure()?);
                }
                Room::NeedsRelief => {
                    drop(writer);
                    self.relieve(bytes)?;
                }
                Room::NeedsCommit => {
                    drop(writer);
                    self.commit_now()?;
                }
                Room::NeedsSpares(needed) => {
                    drop(writer);
                    match self.keep(Some(needed)) {
                        Err(error) if error.is_no_space() && self.dropped.remove_all(&self.place) => {}
                        kept => kept?,
                    }
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
        if offset < table.front || offset >= end {
            return Err(Error::OutOfRange { offset, offsets: table.front..end.max(table.front) });
        }
        table.check_served(&self.place, offset)?;
        if offset >= self.written_end.load(Ordering::Acquire) {
            self.write_for_readers()?;
        }
        let segment = table.segment_of(offset).ok_or_else(|| table.held_by_none(&self.place, offset))?;
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
            _ => self.write_only(|_| true).map(|_| ()),
        }
    }
}

fn check_expected(expected: Option<u64>, next: u64) -> Result<()> {
    match expected {
        Some(expected) if expected != next => Err(Error::UnexpectedOffset { expected, next }),
        _ => Ok(()),
    }
}
