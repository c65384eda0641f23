//! The writer: where a record gets its offset and becomes bytes.
//!
//! It owns encoding under one short lock: the next offset, the active segment's end, the bytes not
//! yet written, the open group, the prepared spare, and the roll from one segment to the next. It
//! writes nothing (but reserves space, so that a full disk shows before a record gets an offset),
//! and does no manifest or directory I/O.
//!
//! Invariants: offsets are dense; a batch never spans segments; a record gets an offset only once
//! its bytes have reserved space; what cannot be recovered is not accepted.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::frame::{self, Header, Kind, Lag, PayloadChecksum};
use crate::group::Group;
use crate::index::MemoryIndex;
use crate::mutant::{self, Mutant};
use crate::names::LARGEST_END;
use crate::options::MAX_BATCH_BYTES;
use crate::segment::{Place, Segment};
use crate::store::{self, FIRST_FRAME, FIRST_RESERVE, Store};
use crate::sync::EXPLORED;

/// Where no commit takes them, encoded bytes are written out in pieces of at least this size.
const WRITE_EVERY_BYTES: u64 = if EXPLORED { 128 } else { 1 << 20 };
/// Encoded bytes that wait to be written are bounded by this (and one batch), and those that are being written
/// by as much again: a piece of [`WRITE_EVERY_BYTES`], and what comes until the one before is written.
pub(crate) const MOST_PENDING_BYTES: u64 = if EXPLORED { 256 } else { 3 << 19 };
/// So many emptied buffers are kept on either side: with a roll in what is written, and one in what waits, two are
/// in use there. One that is freed and taken anew costs more than its bytes: allocators keep memory for each
/// thread that took some.
const MOST_RECYCLED: usize = 2;
/// A buffer that had to be larger for one batch is not kept.
const MOST_RECYCLED_BYTES: usize = 2 << 20;
/// At most this many rolled segments wait to be sealed; then a roll waits. With them, the active
/// one and the spares, at most eight segments are unsealed.
pub(crate) const MOST_ROLLED: usize = 4;
/// So many segments are prepared ahead in a log that will roll soon.
const MOST_SPARES: usize = 3;
/// And before: one to roll to, and one more, as nothing is accepted without a spare behind it.
const FIRST_SPARES: usize = 2;
/// What is reserved of each in such a log.
const SPARE_RESERVE: u64 = 16 << 20;

/// How much reserved space should lie ahead of `position`; with less, more is reserved in the
/// background. As much as was written already, within bounds: a small log stays small.
pub(crate) fn space_ahead(position: u64) -> u64 {
    position.clamp(16 << 10, 8 << 20)
}

/// A payload with its checksum, hashed before the lock was taken.
pub(crate) type Hashed<'a> = (&'a [u8], PayloadChecksum);

/// Bytes for one contiguous place of one store.
pub(crate) struct Chunk {
    pub(crate) segment: Arc<Segment>,
    pub(crate) store: Arc<Store>,
    pub(crate) position: u64,
    pub(crate) bytes: Vec<u8>,
    /// The first record's offset.
    first_offset: u64,
    /// The last frame, to be restamped with the newest watermark: where, what, its payload's hash.
    last: Option<(usize, Header, PayloadChecksum)>,
}

impl Chunk {
    /// The position behind the chunk.
    pub(crate) fn end_position(&self) -> u64 {
        self.position + self.bytes.len() as u64
    }

    /// The ordinal behind its last record.
    pub(crate) fn next_ordinal(&self) -> u32 {
        self.last.map_or(0, |(_, header, _)| header.ordinal.saturating_add(1))
    }

    /// Stamps the newest durable end into the last frame.
    pub(crate) fn restamp(&mut self, durable_end: u64) {
        let Some((at, header, checksum)) = self.last else { return };
        let offset = self.segment.base + u64::from(header.ordinal);
        let header = Header { lag: Lag::between(offset, durable_end), ..header };
        let bytes = frame::encode_header(&header, checksum, self.store.seed());
        if let Some(place) = self.bytes.get_mut(at..at + bytes.len()) {
            place.copy_from_slice(&bytes);
        }
    }
}

/// The segment that takes records.
pub(crate) struct Active {
    pub(crate) segment: Arc<Segment>,
    pub(crate) store: Arc<Store>,
    /// Where the next frame goes.
    pub(crate) position: u64,
}

/// A segment that was rolled and waits for its Seal.
#[derive(Clone)]
pub(crate) struct Rolled {
    pub(crate) segment: Arc<Segment>,
    pub(crate) end: u64,
    pub(crate) length: u64,
}

/// Why the writer takes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gate {
    Open,
    Closed,
    ReadOnly(&'static str),
}

/// Emptied buffers, to be filled again: a few, and none that had to be large.
#[derive(Default)]
pub(crate) struct Buffers(Vec<Vec<u8>>);

impl Buffers {
    pub(crate) fn keep(&mut self, mut buffer: Vec<u8>) {
        if self.0.len() < MOST_RECYCLED && buffer.capacity() <= MOST_RECYCLED_BYTES {
            buffer.clear();
            self.0.push(buffer);
        }
    }

    fn get(&mut self) -> Vec<u8> {
        self.0.pop().unwrap_or_default()
    }
}

/// What the writer gives to be written.
pub(crate) struct Taken {
    pub(crate) chunks: Vec<Chunk>,
    /// The group these bytes complete, where it was closed.
    pub(crate) group: Option<Arc<Group>>,
    /// The offset behind the last record.
    pub(crate) end: u64,
}

/// What must happen before a batch fits.
pub(crate) enum Room {
    /// It fits.
    Ready,
    /// It fits, and more space should be reserved before it is needed.
    ReserveAhead,
    /// The structure is being changed: wait for it.
    Paused,
    /// So many spares must be there, and rolled segments sealed where too many wait, first.
    NeedsSpares(usize),
    /// Bytes must be written out first.
    NeedsRelief,
    /// What is encoded must be durable first: a full disk could not take its recovery.
    NeedsCommit,
}

/// See the module's documentation.
pub(crate) struct Writer {
    place: Arc<Place>,
    segment_bytes: u64,
    next_offset: u64,
    pub(crate) active: Option<Active>,
    pub(crate) spares: VecDeque<Store>,
    pub(crate) rolled: VecDeque<Rolled>,
    chunks: Vec<Chunk>,
    pending_bytes: u64,
    /// Bytes encoded since the group before the last commit: what a recovery may have to copy.
    exposed_bytes: u64,
    last_group_bytes: u64,
    group: Arc<Group>,
    recycled: Buffers,
    pub(crate) gate: Gate,
    /// A change of structure wants the writer to itself: appenders wait at the structure's lock.
    pub(crate) paused: bool,
    grows: bool,
    /// Whether the next manifest is sure to find space, so that the log can be opened again.
    pub(crate) has_ballast: bool,
    appended: bool,
    /// Since opening: for `stats`, counted here as the lock is held anyway.
    accepted_records: u64,
    accepted_bytes: u64,
}

impl Writer {
    pub(crate) fn new(place: Arc<Place>, segment_bytes: u64, next_offset: u64, gate: Gate) -> Writer {
        Writer {
            place,
            segment_bytes,
            next_offset,
            active: None,
            spares: VecDeque::new(),
            rolled: VecDeque::new(),
            chunks: Vec::new(),
            pending_bytes: 0,
            exposed_bytes: 0,
            last_group_bytes: 0,
            group: Arc::default(),
            recycled: Buffers::default(),
            gate,
            paused: false,
            grows: false,
            has_ballast: false,
            appended: false,
            accepted_records: 0,
            accepted_bytes: 0,
        }
    }

    pub(crate) fn next_offset(&self) -> u64 {
        self.next_offset
    }

    /// Records and payload bytes accepted since opening.
    pub(crate) fn accepted(&self) -> (u64, u64) {
        (self.accepted_records, self.accepted_bytes)
    }

    /// Whether enough waits to be written that it is worth a write.
    pub(crate) fn has_piece(&self) -> bool {
        self.pending_bytes >= WRITE_EVERY_BYTES
    }

    /// Whether so much waits to be written that a batch of `bytes` of frames does not fit behind it.
    pub(crate) fn is_full(&self, bytes: u64) -> bool {
        self.pending_bytes > 0 && self.pending_bytes + bytes > MOST_PENDING_BYTES
    }

    pub(crate) fn has_pending(&self) -> bool {
        self.appended
    }

    pub(crate) fn group(&self) -> &Arc<Group> {
        &self.group
    }

    pub(crate) fn is_active(&self, store: &Arc<Store>) -> bool {
        self.active.as_ref().is_some_and(|active| Arc::ptr_eq(&active.store, store))
    }

    /// How many segments should be prepared, and how much of each should be reserved: a log that
    /// filled a quarter of a segment is taken to go on so.
    pub(crate) fn wants_spares(&self) -> (usize, u64) {
        let (spares, reserve) =
            if self.grows { (MOST_SPARES, SPARE_RESERVE) } else { (FIRST_SPARES, FIRST_RESERVE) };
        // One more where there is none to write to yet.
        let wanted = spares + usize::from(self.active.is_none());
        (
            wanted.saturating_sub(self.spares.len()),
            reserve.min(self.segment_bytes).saturating_sub(FIRST_FRAME),
        )
    }

    /// Whether there are so many spares, and room for one more rolled segment.
    pub(crate) fn has_spares(&self, needed: usize) -> bool {
        self.spares.len() >= needed && self.rolled.len() < MOST_ROLLED && self.has_ballast
    }

    /// Refuses where the writer takes nothing.
    pub(crate) fn check_gate(&self) -> Result<()> {
        match self.gate {
            Gate::Open => Ok(()),
            Gate::Closed => Err(Error::Closed),
            Gate::ReadOnly(why) => Err(Error::ReadOnly { why }),
        }
    }

    /// Makes room for a batch of `bytes` of frames with `records` records: reserves space, or rolls.
    /// `on_roll` publishes the new segment.
    ///
    /// # Errors
    /// [`Error::NoSpace`], before any record got an offset.
    #[inline]
    pub(crate) fn make_room(
        &mut self,
        bytes: u64,
        records: usize,
        mut on_roll: impl FnMut(&Arc<Segment>),
    ) -> Result<Room> {
        if self.paused {
            return Ok(Room::Paused);
        }
        if self.is_full(bytes) {
            return Ok(Room::NeedsRelief);
        }
        if let Some(active) = &self.active {
            let end = active.position + bytes;
            let empty = active.position == FIRST_FRAME;
            let ordinals = self.next_offset - active.segment.base + records as u64;
            if (end <= self.segment_bytes || empty) && ordinals < u64::from(u32::MAX) {
                if self.spares.is_empty() || !self.has_ballast {
                    return Ok(Room::NeedsSpares(1));
                }
                if !self.covers_recovery(bytes)? {
                    return Ok(Room::NeedsCommit);
                }
                let reserved = active.store.reserved();
                if end + space_ahead(end) <= reserved || reserved >= self.segment_bytes && end <= reserved {
                    return Ok(Room::Ready);
                }
                if end > reserved {
                    active.store.reserve(end, self.segment_bytes.max(end))?;
                }
                self.grows |= end > self.segment_bytes / 4;
                return Ok(Room::ReserveAhead);
            }
        }
        self.grows |= self.active.is_some();
        // (Asked at a roll alone: no segment has more ordinals.)
        if self.next_offset > LARGEST_END - u64::from(u32::MAX) {
            return Err(Error::InvalidOption {
                option: "offset",
                why: format!(
                    "the log ends at {}, and no log goes beyond {LARGEST_END}: begin another",
                    self.next_offset
                ),
            });
        }
        if self.rolled.len() >= MOST_ROLLED || self.spares.len() < 2 || !self.has_ballast {
            return Ok(Room::NeedsSpares(2));
        }
        let Some(spare) = self.spares.pop_front() else { return Ok(Room::NeedsSpares(2)) };
        let end = FIRST_FRAME + bytes;
        let covered =
            spare.reserve(end, self.segment_bytes.max(end)).and_then(|()| self.covers_recovery(bytes));
        if !matches!(covered, Ok(true)) {
            self.spares.push_front(spare);
            return covered.map(|_| Room::NeedsCommit);
        }
        self.roll(spare, &mut on_roll);
        Ok(Room::Ready)
    }

    /// What a recovery may have to copy must find space even on a full disk: a spare's reservation,
    /// which recovery may give up, is kept as large, and nothing is accepted without. `false` asks for a commit, after which there is
    /// less to copy.
    #[inline]
    fn covers_recovery(&self, bytes: u64) -> Result<bool> {
        let Some(spare) = self.spares.back() else { return Ok(false) };
        if mutant::on(Mutant::NoSpareKept) {
            return Ok(true);
        }
        let needed = self.exposed_bytes + self.last_group_bytes + bytes + FIRST_FRAME;
        if needed <= spare.reserved() {
            return Ok(true);
        }
        // Twice what is needed: a long run without a commit asks the filesystem a few times, not at every piece.
        const LEAST_STEP: u64 = 256 << 10;
        match spare.reserve(needed, needed + needed.max(LEAST_STEP)) {
            Ok(()) => Ok(true),
            Err(error) if error.is_no_space() && self.appended => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Makes the spare the active segment. The base goes out with the first frames.
    fn roll(&mut self, spare: Store, on_roll: &mut impl FnMut(&Arc<Segment>)) {
        let store = Arc::new(spare.with_map_bytes(self.segment_bytes));
        if let Some(old) = self.active.take() {
            self.rolled.push_back(Rolled {
                segment: old.segment,
                end: self.next_offset,
                length: old.position,
            });
        }
        let base = self.next_offset;
        let segment = Arc::new(Segment::with_memory_index(
            self.place.clone(),
            base,
            store.clone(),
            MemoryIndex::new(),
            None,
        ));
        let mut bytes = self.recycled.get();
        bytes.extend_from_slice(&store::encode_base(base, store.seed()));
        self.chunks.push(Chunk {
            segment: segment.clone(),
            store: store.clone(),
            position: store::BASE_POSITION,
            bytes,
            first_offset: base,
            last: None,
        });
        tracing::debug!(segment = store.id(), base, "rolled to a new segment");
        on_roll(&segment);
        self.active = Some(Active { segment, store, position: FIRST_FRAME });
    }

    /// Encodes a batch of `bytes` of frames, for which there is room.
    #[inline]
    pub(crate) fn encode(&mut self, batch: &[Hashed<'_>], bytes: u64, durable_end: u64) -> Range<u64> {
        let first = self.next_offset;
        let Some(active) = &mut self.active else { return first..first };
        let continues = self.chunks.last().is_some_and(|chunk| Arc::ptr_eq(&chunk.store, &active.store));
        if !continues {
            self.chunks.push(Chunk {
                segment: active.segment.clone(),
                store: active.store.clone(),
                position: active.position,
                bytes: self.recycled.get(),
                first_offset: first,
                last: None,
            });
        }
        let Some(chunk) = self.chunks.last_mut() else { return first..first };
        let seed = active.store.seed();
        let before = chunk.bytes.len();
        make_capacity(&mut chunk.bytes, bytes);
        if !are_large(bytes, batch.len()) {
            touch_ahead(&mut chunk.bytes, bytes);
        }
        for (index, (payload, checksum)) in batch.iter().enumerate() {
            let offset = self.next_offset;
            let header = Header {
                kind: if index + 1 == batch.len() { Kind::Record } else { Kind::RecordMore },
                // Both were bounded before the lock was taken, or in `make_room`.
                length: u32::try_from(payload.len()).unwrap_or(frame::MAX_PAYLOAD_BYTES),
                ordinal: u32::try_from(offset - active.segment.base).unwrap_or(u32::MAX),
                lag: Lag::between(offset, durable_end),
            };
            if let Some(memory) = active.segment.memory_index() {
                let _ = memory.push(active.position); // Positions in a store always fit.
            }
            let at = chunk.bytes.len();
            frame::push_frame(&mut chunk.bytes, &header, payload, *checksum, seed);
            chunk.last = Some((at, header, *checksum));
            active.position += header.frame_bytes();
            self.accepted_bytes += u64::from(header.length);
            self.next_offset += 1;
        }
        let added = (chunk.bytes.len() - before) as u64;
        self.pending_bytes += added;
        self.exposed_bytes += added;
        self.accepted_records += self.next_offset - first;
        self.appended = true;
        first..self.next_offset
    }

    /// Hands over what is encoded, for the buffers that were `emptied` since the last time: whoever writes comes to
    /// this lock once for each piece, as an appender that finds it taken, or must wake who waits for it, loses more
    /// than a lock's time. Closing the group begins a new one: for a commit.
    pub(crate) fn take(&mut self, close_group: bool, emptied: &mut Buffers) -> Taken {
        emptied.0.drain(..).for_each(|buffer| self.recycled.keep(buffer));
        self.pending_bytes = 0;
        if close_group {
            self.appended = false;
            self.last_group_bytes = std::mem::take(&mut self.exposed_bytes);
        }
        Taken {
            chunks: std::mem::take(&mut self.chunks),
            group: close_group.then(|| std::mem::take(&mut self.group)),
            end: self.next_offset,
        }
    }

    /// Drops what is encoded and hands over the open group, to be failed.
    pub(crate) fn give_up(&mut self) -> Arc<Group> {
        self.chunks.clear();
        self.pending_bytes = 0;
        self.appended = false;
        std::mem::take(&mut self.group)
    }

    /// Goes back to where `failed` began: its bytes were cut, and what was encoded behind it falls
    /// with it.
    pub(crate) fn rewind(&mut self, failed: &Chunk) -> Arc<Group> {
        let first_frame = failed.position.max(FIRST_FRAME);
        if let Some(active) = &mut self.active {
            active.position = first_frame;
            let kept = failed.first_offset - active.segment.base;
            if let Some(memory) = active.segment.memory_index() {
                memory.truncate(u32::try_from(kept).unwrap_or(u32::MAX));
            }
        }
        self.next_offset = failed.first_offset;
        let group = self.give_up();
        if failed.position == store::BASE_POSITION
            && let Some(active) = &self.active
        {
            // The base sector was cut too: it goes out with the next first frames.
            self.chunks.push(Chunk {
                segment: active.segment.clone(),
                store: active.store.clone(),
                position: store::BASE_POSITION,
                bytes: store::encode_base(active.segment.base, active.store.seed()).to_vec(),
                first_offset: active.segment.base,
                last: None,
            });
        }
        group
    }

    /// Moves the log's end: after a truncation that begins a fresh segment (or none for now).
    pub(crate) fn restart(&mut self, next_offset: u64, fresh: Option<Store>) {
        self.active = None;
        self.rolled.clear();
        self.chunks.clear();
        self.spares = fresh.into_iter().collect();
        self.next_offset = next_offset;
    }
}

/// Makes a buffer large enough for `more` bytes, by powers of two: as long as it has no more than
/// [`MOST_PENDING_BYTES`], it can be recycled. (A `Vec` doubles whatever length it has.)
#[inline]
fn make_capacity(buffer: &mut Vec<u8>, more: u64) {
    let more = usize::try_from(more).unwrap_or(usize::MAX);
    if buffer.capacity() - buffer.len() < more {
        let needed = buffer.len().saturating_add(more);
        let wanted = if needed <= MOST_RECYCLED_BYTES { needed.next_power_of_two() } else { needed };
        buffer.reserve_exact(wanted - buffer.len());
    }
}

/// Whether a batch of `bytes` has large frames. The next piece of these is encoded in less time than another core
/// needs to read this one out of this core's cache: who appends them writes them too.
#[inline]
pub(crate) fn are_large(bytes: u64, records: usize) -> bool {
    const LARGE_FRAME: u64 = 1 << 10;
    bytes >= LARGE_FRAME.saturating_mul(records as u64)
}

/// Writes zeros where the next frames will go, a step at a time. A recycled buffer that the scribe has read lies in
/// its core's cache too, and each line must be taken back before it is written. Zeros take them together; frames
/// would wait for each by itself, at the next locked instruction: half of the time of a small append.
#[inline]
fn touch_ahead(buffer: &mut Vec<u8>, more: u64) {
    const STEP: usize = 16 << 10;
    let length = buffer.len();
    let end = length.saturating_add(usize::try_from(more).unwrap_or(usize::MAX));
    let may_be_recycled = buffer.capacity() <= MOST_RECYCLED_BYTES;
    if may_be_recycled && (length == 0 || length / STEP != end / STEP) {
        buffer.resize(end.saturating_add(STEP).min(buffer.capacity()), 0);
        buffer.truncate(length);
    }
}

/// Checks the sizes of a batch: the bytes of its frames.
///
/// # Errors
/// [`Error::TooLarge`] for a record over `max_record_bytes`, or a batch over [`MAX_BATCH_BYTES`].
#[inline]
pub(crate) fn batch_bytes<'a>(
    payloads: impl Iterator<Item = &'a [u8]>,
    max_record_bytes: u32,
) -> Result<u64> {
    let mut total = 0u64;
    for payload in payloads {
        match u32::try_from(payload.len()) {
            Ok(length) if length <= max_record_bytes => {
                total = total.saturating_add(frame::frame_bytes(length))
            }
            _ => {
                return Err(Error::TooLarge {
                    what: "record",
                    bytes: payload.len() as u64,
                    limit: u64::from(max_record_bytes),
                });
            }
        }
    }
    if total > MAX_BATCH_BYTES {
        return Err(Error::TooLarge { what: "batch", bytes: total, limit: MAX_BATCH_BYTES });
    }
    Ok(total)
}
