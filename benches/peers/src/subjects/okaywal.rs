//! okaywal 0.3.1 (26 November 2023), a write-ahead log for several writers.
//!
//! Its docs: `begin_entry`, `write_chunk`, `commit`: "once this call returns, all data is atomically updated and
//! synchronized to disk", and several threads may wait for one sync. A batch is one entry of many chunks. There is no
//! unsynced commit. `read_at` reads a chunk at its position; all else is read by recovery at the opening, so `scan`
//! closes the log and replays it.
//!
//! It is meant to stand in front of a store: a full segment is handed to `LogManager::checkpoint_to`, and "shortly
//! after function returns, the entries stored within the file being checkpointed will no longer be accessible". Here
//! the log is the store, so the manager returns only once the segment's records were given up. Segments are larger
//! than by default, as the docs advise for larger entries: 64 MiB preallocated, full at 48 MiB. What was given up of a
//! segment that stays is there again after the next opening, and the numbers start at its first record.

use std::cell::RefCell;
use std::cmp::Ordering;
use std::collections::VecDeque;
use std::io;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};

use anyhow::{Context, Result, anyhow, ensure};
use okaywal::{
    Configuration, Entry, EntryId, LogManager, LogPosition, ReadChunkResult, SegmentReader, WriteAheadLog,
};

use crate::subject::{Kind, Mode, Subject, Unsupported};

pub struct OkayWal;

const PREALLOCATED_BYTES: u32 = 64 << 20;
const FULL_AFTER_BYTES: u64 = 48 << 20;

/// How many payloads a replay hands over at once, and how many such lots may wait.
const PAYLOADS_PER_LOT: usize = 1_000;
const LOTS_WAITING: usize = 4;

const CLOSED: &str = "the log is closed";
const CLOSING: &str = "closing, the segment stays";
const NO_SUCH_RECORD: &str = "no such record";

thread_local! {
    /// Where a read puts its payload together.
    static PAYLOAD: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

impl Kind for OkayWal {
    fn name(&self) -> &'static str {
        "okaywal"
    }

    fn claims(&self) -> &'static str {
        "commit: \"atomically updated and synchronized to disk\""
    }

    fn verifies_reads(&self) -> bool {
        true
    }

    fn open(&self, directory: &Path, mode: Mode) -> Result<Box<dyn Subject>> {
        if mode == Mode::Unsynced {
            return Err(Unsupported.into());
        }
        let shared = Arc::new(Shared::default());
        let log = recover(directory, &shared)?;
        Ok(Box::new(Open { directory: directory.to_owned(), shared, log: RwLock::new(Some(log)) }))
    }
}

/// What the log and its manager both see.
#[derive(Debug, Default)]
struct Shared {
    records: Mutex<Records>,
    /// There while a scan recovers the log.
    replay: Mutex<Option<Replay>>,
    retention: Mutex<Retention>,
    retention_changed: Condvar,
}

/// Where each record is.
#[derive(Debug, Default)]
struct Records {
    /// The number of the first in `places`.
    first: u64,
    places: VecDeque<(EntryId, LogPosition)>,
    /// Those below this number are committed. `read_at` would make the others durable too, but may find a chunk of
    /// which only the beginning has left the writer's buffer.
    readable: u64,
}

impl Records {
    fn end(&self) -> u64 {
        self.first + self.places.len() as u64
    }
}

#[derive(Debug, Default)]
struct Retention {
    /// The entry of the first record that is left; those before it were given up.
    first: EntryId,
    /// How many of that entry's own records were.
    records_of_first: usize,
    closing: bool,
}

/// Passes the payloads on that a recovery meets.
#[derive(Debug)]
struct Replay {
    lots: SyncSender<Vec<Vec<u8>>>,
    lot: Vec<Vec<u8>>,
}

impl Replay {
    fn send(&mut self) {
        // Fails if no one listens any more: then there is no one to tell either.
        let _ = self.lots.send(std::mem::take(&mut self.lot));
    }
}

/// Keeps each segment until its records were given up or the log is closing.
#[derive(Debug)]
struct Keeper(Arc<Shared>);

impl LogManager for Keeper {
    fn recover(&mut self, entry: &mut Entry<'_>) -> io::Result<()> {
        let id = entry.id();
        let mut places = Vec::new();
        let mut payloads = Vec::new();
        let mut payload = Vec::new();
        let mut replay = lock(&self.0.replay);
        loop {
            let mut chunk = match entry.read_chunk()? {
                ReadChunkResult::Chunk(chunk) => chunk,
                ReadChunkResult::EndOfEntry => break,
                ReadChunkResult::AbortedEntry => return Ok(()),
            };
            payload.clear();
            chunk.read_to_end(&mut payload)?;
            if !chunk.check_crc()? {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "a chunk's checksum does not match"));
            }
            places.push((id, chunk.log_position()));
            if replay.is_some() {
                payloads.push(std::mem::take(&mut payload));
            }
        }
        let retention = lock(&self.0.retention);
        let given_up = match id.cmp(&retention.first) {
            Ordering::Less => places.len(),
            Ordering::Equal => retention.records_of_first,
            Ordering::Greater => 0,
        };
        lock(&self.0.records).places.extend(places.drain(given_up..));
        if let Some(replay) = &mut *replay {
            replay.lot.extend(payloads.drain(given_up..));
            if replay.lot.len() >= PAYLOADS_PER_LOT {
                replay.send();
            }
        }
        Ok(())
    }

    fn checkpoint_to(&mut self, last: EntryId, _: &mut SegmentReader, _: &WriteAheadLog) -> io::Result<()> {
        let retention = self
            .0
            .retention_changed
            .wait_while(lock(&self.0.retention), |retention| !retention.closing && last >= retention.first)
            .unwrap_or_else(PoisonError::into_inner);
        if last < retention.first {
            Ok(())
        } else {
            // An error leaves the segment as it is, and ends the thread that checkpoints.
            Err(io::Error::new(io::ErrorKind::Interrupted, CLOSING))
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn recover(directory: &Path, shared: &Arc<Shared>) -> io::Result<WriteAheadLog> {
    let log = Configuration::default_for(directory)
        .preallocate_bytes(PREALLOCATED_BYTES)
        .checkpoint_after_bytes(FULL_AFTER_BYTES)
        .open(Keeper(Arc::clone(shared)));
    if let Some(mut replay) = lock(&shared.replay).take() {
        replay.send();
    }
    let mut records = lock(&shared.records);
    records.readable = records.end();
    log
}

struct Open {
    directory: PathBuf,
    shared: Arc<Shared>,
    /// None only if a scan could not open the log again.
    log: RwLock<Option<WriteAheadLog>>,
}

impl Open {
    fn write(&self, payloads: &[&[u8]]) -> Result<()> {
        let log = self.log.read().unwrap_or_else(PoisonError::into_inner);
        let mut entry = log.as_ref().context(CLOSED)?.begin_entry()?;
        let id = entry.id();
        let places: io::Result<Vec<_>> =
            payloads.iter().map(|payload| Ok((id, entry.write_chunk(payload)?.position))).collect();
        // Before the commit lets the next writer in, so that the numbers follow the entries.
        let end = {
            let mut records = lock(&self.shared.records);
            records.places.extend(places?);
            records.end()
        };
        entry.commit()?;
        let mut records = lock(&self.shared.records);
        records.readable = records.readable.max(end);
        Ok(())
    }

    /// Closes the log and leaves all segments to the next recovery.
    fn shut_down(&self, log: WriteAheadLog) -> io::Result<()> {
        lock(&self.shared.retention).closing = true;
        self.shared.retention_changed.notify_all();
        match log.shutdown() {
            // The thread that checkpoints ended with `checkpoint_to`'s error, or had by the time of the call.
            Err(error) if error.to_string() == CLOSING || error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            result => result,
        }
    }
}

impl Subject for Open {
    fn append(&self, payload: &[u8]) -> Result<()> {
        self.write(&[payload])
    }

    fn append_batch(&self, payloads: &[&[u8]]) -> Result<()> {
        self.write(payloads)
    }

    fn sync(&self) -> Result<()> {
        // Every commit has synced.
        Ok(())
    }

    fn scan(&self, visit: &mut dyn FnMut(&[u8])) -> Result<u64> {
        let mut log = self.log.write().unwrap_or_else(PoisonError::into_inner);
        self.shut_down(log.take().context(CLOSED)?)?;
        lock(&self.shared.retention).closing = false;
        lock(&self.shared.records).places.clear();
        let (lots, received) = sync_channel(LOTS_WAITING);
        *lock(&self.shared.replay) = Some(Replay { lots, lot: Vec::new() });
        let mut count = 0;
        // The log keeps its manager for good and wants it 'static, which `visit` is not: so a thread of its own.
        let reopened = std::thread::scope(|scope| {
            let recovery = scope.spawn(|| {
                let log = recover(&self.directory, &self.shared);
                // Ends the loop below, also when the recovery failed half way.
                lock(&self.shared.replay).take();
                log
            });
            for payload in received.iter().flatten() {
                visit(&payload);
                count += 1;
            }
            recovery.join()
        });
        *log = Some(reopened.map_err(|_| anyhow!("the recovery panicked"))??);
        Ok(count)
    }

    fn read(&self, number: u64, visit: &mut dyn FnMut(&[u8])) -> Result<()> {
        let place = {
            let records = lock(&self.shared.records);
            ensure!((records.first..records.readable).contains(&number), NO_SUCH_RECORD);
            records.places.get(usize::try_from(number - records.first)?).copied()
        };
        let (_, position) = place.context(NO_SUCH_RECORD)?;
        let log = self.log.read().unwrap_or_else(PoisonError::into_inner);
        let mut chunk = log.as_ref().context(CLOSED)?.read_at(position)?;
        PAYLOAD.with_borrow_mut(|payload| {
            payload.clear();
            chunk.read_to_end(payload)?;
            ensure!(chunk.crc_is_valid()?, "a chunk's checksum does not match");
            visit(payload);
            Ok(())
        })
    }

    fn truncate_front(&self, number: u64) -> Result<()> {
        let mut records = lock(&self.shared.records);
        let mut retention = lock(&self.shared.retention);
        while records.first < number {
            let Some((id, _)) = records.places.pop_front() else { break };
            records.first += 1;
            if id > retention.first {
                retention.first = id;
                retention.records_of_first = 0;
            }
            retention.records_of_first += 1;
        }
        if let Some((id, _)) = records.places.front()
            && *id > retention.first
        {
            retention.first = *id;
            retention.records_of_first = 0;
        }
        self.shared.retention_changed.notify_all();
        Ok(())
    }

    fn close(self: Box<Self>) -> Result<()> {
        let log = self.log.write().unwrap_or_else(PoisonError::into_inner).take();
        Ok(self.shut_down(log.context(CLOSED)?)?)
    }
}
