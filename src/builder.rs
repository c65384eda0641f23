//! Building a whole log at once, from records that somebody else has: salvaged ones, or another system's.
//!
//! It owns how records pushed in the order of their offsets become segments, and in which order all that becomes
//! durable. It does not know where the records come from, and serves none: the log is opened when it is done.
//!
//! Invariants: a directory that holds anything is refused; every offset between the front and the end that got no
//! record is declared lost; every segment is sealed, with an index, and the log is closed cleanly; the MANIFEST
//! comes last, so that before it the directory is no log, and after it all that the MANIFEST says is durable.
//!
//! **A build that was cut short** (a crash, a full disk, an error) leaves stores without a MANIFEST. Every opening
//! refuses that as damage. There is nothing in it that its sources do not have: remove the directory, and build
//! again.
//!
//! Why a log gets an identity of its own, also where it holds another's records: a frame's checksum is tied to its
//! log and segment, so that two logs of one identity could be mixed up file by file and nobody would notice.
//!
//! Why not `Log::append`: it gives the next offset to what it gets, and a log with holes needs the offsets it had.

use std::fmt;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use crate::directory::durable_directory;
use crate::disk::{self, Disk, DiskLock, LockAttempt};
use crate::error::{Error, Result};
use crate::frame::{HEADER_BYTES, Kind, MAX_PAYLOAD_BYTES, PayloadChecksum, frame_bytes};
use crate::manifest::edit::{check_meta_size, check_meta_total};
use crate::manifest::file::ManifestFile;
use crate::manifest::{Close, Seal, SegmentState, State};
use crate::names::{self, LARGEST_END};
use crate::options::{MAX_BATCH_BYTES, MAX_OFFSET, Options};
use crate::segment::{self, Place};
use crate::segment_writer::{MOST_RECORDS, SegmentWriter};
use crate::store::{self, Head, Origin, Store};

/// A gap of at most this many records is left as a hole in its segment, of 16 bytes for each; a larger one ends
/// the segment, and costs nothing however large it is.
const MOST_SKIPPED: u64 = 1024;

/// Builds a whole new log in a fresh directory.
///
/// ```
/// # fn main() -> stonelog::Result<()> {
/// # let directory = tempfile::tempdir().unwrap();
/// # let directory = directory.path().join("copy");
/// use stonelog::{Error, Log, LogBuilder, Options};
///
/// let mut builder = LogBuilder::begin(&Options::new(), &directory, 100)?;
/// builder.push(100, true, b"stone")?;
/// builder.push(102, true, b"log")?; // 101 is declared lost
/// builder.finish(0)?;
///
/// let log = Log::open(&directory)?;
/// assert_eq!(log.offsets(), 100..103);
/// assert!(matches!(log.read(101), Err(Error::Lost { offset: 101 })));
/// # Ok(())
/// # }
/// ```
pub struct LogBuilder {
    place: Place,
    disk: Arc<dyn Disk>,
    segment_bytes: u64,
    state: State,
    /// The offset behind the last record.
    next: u64,
    records: u64,
    bytes: u64,
    in_batch: bool,
    current: Option<Current>,
    /// Nobody begins a log of his own in here meanwhile.
    _lock: Box<dyn DiskLock>,
}

/// The segment that is being written.
struct Current {
    id: u64,
    base: u64,
    writer: SegmentWriter,
    /// Where its last batch begins.
    batch_start: u64,
}

/// A log that was built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Built {
    /// Its identity.
    pub uuid: [u8; 16],
    /// From its front to the offset that the next record gets.
    pub offsets: Range<u64>,
    /// How many records it holds.
    pub records: u64,
    /// The bytes of their payloads.
    pub bytes: u64,
    /// Its segments.
    pub segments: usize,
    /// The offsets that read as [`Error::Lost`].
    pub lost: Vec<Range<u64>>,
}

impl fmt::Debug for LogBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogBuilder")
            .field("directory", &self.place.directory)
            .field("next", &self.next)
            .finish_non_exhaustive()
    }
}

impl LogBuilder {
    /// Begins to build in `directory`, which must be empty or not there yet, a log whose first offset is `front`.
    /// Of `options` count the disk, `segment_bytes`, and `first_offset`: what the log says it was begun with (0
    /// by default), which is not above `front`.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] for a directory that holds something, or for a front that no log has;
    /// [`Error::Locked`]; whatever the disk says.
    pub fn begin(options: &Options, directory: impl AsRef<Path>, front: u64) -> Result<LogBuilder> {
        options.check()?;
        let invalid = |option, why| Err(Error::InvalidOption { option, why });
        let first_offset = options.first_offset.unwrap_or(0);
        if front > MAX_OFFSET {
            return invalid("front", format!("{front} is beyond the largest offset, {MAX_OFFSET}"));
        }
        if first_offset > front {
            return invalid("first_offset", format!("the log would begin at {front}, before {first_offset}"));
        }
        let (disk, directory) = (options.disk.clone(), directory.as_ref().to_path_buf());
        check_empty(disk.as_ref(), &directory)?;
        durable_directory(disk.as_ref(), &directory)?;
        let path = directory.join(names::LOCK);
        let lock = match disk::retry_interrupted(|| disk.lock(&path))
            .map_err(|error| Error::io_or_no_space("locking", &path, 1, error))?
        {
            LockAttempt::Acquired(held) => held,
            LockAttempt::Held { pid } => return Err(Error::Locked { path, pid }),
        };
        // Again: somebody may have begun a log before the lock was ours.
        check_empty(disk.as_ref(), &directory)?;
        let (low, high) = (disk.random().to_le_bytes(), disk.random().to_le_bytes());
        let mut uuid = [0; 16];
        for (byte, random) in uuid.iter_mut().zip(low.into_iter().chain(high)) {
            *byte = random;
        }
        let state = State { front, ..State::begin(uuid, disk.now_millis(), first_offset) };
        Ok(LogBuilder {
            place: Place { disk: disk.clone(), directory, uuid, writable: true, use_maps: false },
            disk,
            segment_bytes: options.segment_bytes,
            state,
            next: front,
            records: 0,
            bytes: 0,
            in_batch: false,
            current: None,
            _lock: lock,
        })
    }

    /// The log's identity.
    pub fn uuid(&self) -> [u8; 16] {
        self.state.uuid
    }

    /// Says when the log was begun, in milliseconds since the Unix epoch: now, unless something else is said.
    pub fn created_millis(&mut self, millis: u64) {
        self.state.created_millis = millis;
    }

    /// Gives a name a value.
    ///
    /// # Errors
    /// [`Error::TooLarge`].
    pub fn put_meta(&mut self, key: &str, value: &[u8]) -> Result<()> {
        check_meta_size(key, Some(value))?;
        check_meta_total(&self.state.meta, key, Some(value))?;
        self.state.meta.insert(key.to_string(), value.to_vec());
        Ok(())
    }

    /// Appends the record at `offset`; the offsets since the last one are lost. `ends_batch` is false where more
    /// of its batch follows.
    ///
    /// # Errors
    /// [`Error::UnexpectedOffset`] for one that is not above the last, [`Error::TooLarge`] for a record that no
    /// frame holds: then nothing was appended. Whatever the disk says: then the build cannot go on.
    pub fn push(&mut self, offset: u64, ends_batch: bool, payload: &[u8]) -> Result<()> {
        if offset < self.next {
            return Err(Error::UnexpectedOffset { expected: offset, next: self.next });
        }
        self.check_end(offset.saturating_add(1))?;
        let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        if length > MAX_PAYLOAD_BYTES {
            return Err(Error::TooLarge {
                what: "record",
                bytes: payload.len() as u64,
                limit: u64::from(MAX_PAYLOAD_BYTES),
            });
        }
        let gap = offset - self.next;
        if self.is_full(gap, frame_bytes(length)) {
            self.seal_current()?;
        }
        if gap > 0 {
            self.state.lost.insert(self.next..offset);
        }
        let mut current = match self.current.take() {
            Some(current) => current,
            None => self.begin_segment(offset)?,
        };
        let skipped = offset - current.base - current.writer.count();
        current.writer.skip(u32::try_from(skipped).unwrap_or(u32::MAX))?;
        if !self.in_batch || gap > 0 {
            current.batch_start = current.writer.length();
        }
        let kind = if ends_batch { Kind::Record } else { Kind::RecordMore };
        current.writer.push(kind, payload, PayloadChecksum::of(payload))?;
        self.current = Some(current);
        self.in_batch = !ends_batch;
        self.next = offset + 1;
        self.records += 1;
        self.bytes += u64::from(length);
        Ok(())
    }

    /// Makes all of it durable and writes the MANIFEST. Where `end` is above the last record, the offsets between
    /// are lost too, and the next record of the log will get `end`.
    ///
    /// # Errors
    /// Whatever the disk says; [`Error::TooLarge`] where more was lost, in more places, than a MANIFEST can say.
    pub fn finish(mut self, end: u64) -> Result<Built> {
        self.check_end(end)?;
        self.seal_current()?;
        if end > self.next {
            self.state.lost.insert(self.next..end);
            // An end that only a Close states would be forgotten at the next crash, and its offsets given away
            // again: a sealed segment without records states it for good.
            self.current = Some(self.begin_segment(end)?);
            self.seal_current()?;
            self.next = end;
        }
        self.state.closed = Some(Close { length: 0, next_offset: self.next });
        // Every name is durable before the MANIFEST that needs it.
        let directory = self.place.directory.clone();
        disk::retry_interrupted(|| self.disk.sync_dir(&directory))
            .map_err(|error| Error::io("syncing directory", &directory, None, error))?;
        let lost: Vec<Range<u64>> = self.state.lost.iter().collect();
        let segments = self.state.segments.len();
        let (uuid, offsets) = (self.state.uuid, self.state.front..self.next);
        ManifestFile::create(self.disk, &directory, self.state, 1).map_err(|failure| failure.into_error())?;
        tracing::info!(directory = %directory.display(), records = self.records, "built");
        Ok(Built { uuid, offsets, records: self.records, bytes: self.bytes, segments, lost })
    }

    fn check_end(&self, end: u64) -> Result<()> {
        if end <= LARGEST_END {
            return Ok(());
        }
        Err(Error::InvalidOption {
            option: "offset",
            why: format!("no log ends at {end}: {LARGEST_END} is as far as one goes"),
        })
    }

    /// Whether the segment must end before `gap` lost records and a frame of `bytes` more.
    fn is_full(&self, gap: u64, bytes: u64) -> bool {
        let Some(current) = &self.current else { return false };
        let length = current.writer.length().saturating_add(gap.saturating_mul(HEADER_BYTES));
        let count = current.writer.count().saturating_add(gap);
        // A batch never spans segments; but one that is larger than any log writes is none.
        let batch = length.saturating_add(bytes).saturating_sub(current.batch_start);
        let keep_together = self.in_batch && gap == 0 && batch <= MAX_BATCH_BYTES;
        gap > MOST_SKIPPED
            || count >= MOST_RECORDS
            || (length.saturating_add(bytes) > self.segment_bytes && !keep_together)
    }

    fn begin_segment(&mut self, base: u64) -> Result<Current> {
        let id = self.state.last_id + 1;
        let head = Head {
            version: store::FORMAT_VERSION,
            origin: Origin::Roll,
            uuid: self.state.uuid,
            id,
            created_millis: self.disk.now_millis(),
        };
        let store = Store::create(self.disk.as_ref(), &self.place.directory, head, 0)?;
        self.state.last_id = id;
        let writer = SegmentWriter::new(store, base);
        Ok(Current { id, base, batch_start: writer.length(), writer })
    }

    /// Ends the current segment, and makes it durable but for its name.
    fn seal_current(&mut self) -> Result<()> {
        let Some(mut current) = self.current.take() else { return Ok(()) };
        let writer = &mut current.writer;
        writer.flush()?;
        let next_offset = current.base + writer.count();
        writer.trim()?;
        writer.sync()?;
        let length = writer.length();
        let (_, index) = current.writer.publish();
        segment::write_index(&self.place, current.id, length, &index, index.len())?;
        let now = self.disk.now_millis();
        let seal = Seal { next_offset, length, first_millis: now, last_millis: now };
        let state = SegmentState { base: Some(current.base), born: None, seal: Some(seal) };
        self.state.segments.insert(current.id, state);
        self.in_batch = false;
        Ok(())
    }
}

fn check_empty(disk: &dyn Disk, directory: &Path) -> Result<()> {
    let entries = match disk::retry_interrupted(|| disk.list(directory)) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Error::io("listing", directory, None, error)),
    };
    match entries.iter().find(|entry| entry.name != names::LOCK) {
        None => Ok(()),
        Some(entry) => Err(Error::InvalidOption {
            option: "directory",
            why: format!(
                "{} is not empty ({} is in it): a log is built in a fresh directory; name another, or remove this one",
                directory.display(),
                entry.name
            ),
        }),
    }
}
