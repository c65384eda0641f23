//! Readers: records one after the other.
//!
//! It owns the walk along frames ([`Reader`], lending; [`Records`], owning) and the [`Record`] that
//! reads give. It does not know files: where the walk meets anything unexpected it asks the
//! segment, which decides by index and frame. Invariants: a reader never passes what readers may
//! see; it never skips a record silently; after an error about one record it goes on behind it.

use std::ops::{Deref, Range};
use std::sync::Arc;

use crate::commit::Core;
use crate::disk::Map;
use crate::error::{Error, Result};
use crate::frame::Seed;
use crate::segment::Segment;
use crate::store::{self, Payload};
use crate::sync::atomic::Ordering;

/// One record: its offset and its bytes, without a copy where maps are used.
#[derive(Clone)]
pub struct Record {
    offset: u64,
    payload: Payload,
}

impl Record {
    pub(crate) fn new(offset: u64, payload: Payload) -> Record {
        Record { offset, payload }
    }

    /// The record's offset.
    pub fn offset(&self) -> u64 {
        self.offset
    }
}

impl Deref for Record {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        self.payload.bytes()
    }
}

impl AsRef<[u8]> for Record {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl std::fmt::Debug for Record {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Record {{ offset: {}, bytes: {} }}", self.offset, self.len())
    }
}

/// A record lent by a [`Reader`] until its next step.
#[derive(Debug, Clone, Copy)]
pub struct RecordRef<'a> {
    offset: u64,
    bytes: &'a [u8],
}

impl<'a> RecordRef<'a> {
    /// The record's offset.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The record's bytes, for as long as the reader stands still.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }
}

impl Deref for RecordRef<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.bytes
    }
}

/// Where a reader stands in a segment.
#[derive(Debug)]
struct Cursor {
    segment: Arc<Segment>,
    map: Option<Arc<Map>>,
    seed: Option<Seed>,
    /// Where the next frame should begin, and which record it should carry.
    position: u64,
    ordinal: u32,
    /// The offset behind the segment's last record: behind a truncation's cut lie old frames.
    end: u64,
}

/// A lending reader; see [`Log::reader`](crate::Log::reader).
#[derive(Debug)]
pub struct Reader {
    core: Arc<Core>,
    next: u64,
    /// What was visible when last asked.
    limit: u64,
    epoch: u64,
    cursor: Option<Cursor>,
    current: Option<Payload>,
}

impl Reader {
    pub(crate) fn new(core: Arc<Core>, from: u64) -> Reader {
        let front = core.table.load().front;
        let epoch = core.truncations.epoch();
        Reader { next: from.max(front), limit: 0, epoch, cursor: None, current: None, core }
    }

    /// The offset of the record that comes next.
    pub fn offset(&self) -> u64 {
        self.next
    }

    /// The next record, or `None` at the end of what readers may see (more may come later).
    ///
    /// # Errors
    /// [`Error::Damaged`] or [`Error::Lost`] for the record that comes next, behind which the
    /// reader then stands; [`Error::Truncated`] when `truncate_back` cut below the reader;
    /// [`Error::OutOfRange`] when `truncate_front` removed what comes next; [`Error::Io`].
    // Not an Iterator: what it lends lives until the next step. `Log::records` gives one.
    #[allow(clippy::should_implement_trait)]
    #[inline]
    pub fn next(&mut self) -> Result<Option<RecordRef<'_>>> {
        match self.advance(u64::MAX)? {
            Some((offset, range)) => Ok(Some(RecordRef { offset, bytes: self.bytes(range) })),
            None => Ok(None),
        }
    }

    /// Steps to the next record below `end`. The range is where it lies in the cursor's map; none
    /// where the bytes are in `current`.
    #[inline]
    fn advance(&mut self, end: u64) -> Result<Option<(u64, Option<Range<u64>>)>> {
        if self.epoch != self.core.truncations.epoch() {
            self.look_for_truncation()?;
        }
        if self.next >= self.limit {
            self.refresh()?;
        }
        if self.next >= self.limit.min(end) {
            return Ok(None);
        }
        let offset = self.next;
        if let Some(cursor) = &mut self.cursor
            && offset < cursor.end
            && let Some(map) = &cursor.map
            && let Ok((start, header)) =
                store::check_in_map(map, cursor.position, cursor.ordinal, u64::MAX, cursor.seed)
        {
            cursor.position += header.frame_bytes();
            cursor.ordinal = cursor.ordinal.wrapping_add(1);
            self.next += 1;
            return Ok(Some((offset, Some(start..start + u64::from(header.length)))));
        }
        self.advance_by_index(offset, end)
    }

    #[inline]
    fn bytes(&self, range: Option<Range<u64>>) -> &[u8] {
        match (range, &self.cursor, &self.current) {
            (Some(range), Some(Cursor { map: Some(map), .. }), _) => map.bytes(range).unwrap_or(&[]),
            (_, _, Some(payload)) => payload.bytes(),
            _ => &[],
        }
    }

    /// The way that decides: through the segment's index.
    #[cold]
    fn advance_by_index(&mut self, offset: u64, end: u64) -> Result<Option<(u64, Option<Range<u64>>)>> {
        self.cursor = None;
        let verify = self.core.options.verify_reads;
        let (table, segment, payload, position) = loop {
            let table = self.core.table.load_full();
            if offset < table.front {
                return Err(Error::OutOfRange { offset, offsets: table.front..self.limit });
            }
            let found = table.check_served(&self.core.place, offset).and_then(|()| {
                let segment =
                    table.segment_of(offset).ok_or_else(|| table.held_by_none(&self.core.place, offset))?;
                let (payload, position) = segment.read(offset, verify)?;
                Ok((segment.clone(), payload, position))
            });
            match found {
                Ok((segment, payload, position)) => break (table, segment, payload, position),
                Err(error) => {
                    // What looks wrong may only have changed under this reader.
                    if self.epoch != self.core.truncations.epoch() {
                        self.look_for_truncation()?;
                        return self.advance(end);
                    }
                    if !Arc::ptr_eq(&table, &self.core.table.load_full()) {
                        continue;
                    }
                    // Whatever is wrong with this record, the next one may be right.
                    self.next += 1;
                    return Err(self.core.truncated_or(offset, error));
                }
            }
        };
        self.next += 1;
        self.current = Some(payload);
        let served_whole = table.damaged.is_empty() && table.lost.is_empty();
        let ordinal = u32::try_from(self.next.saturating_sub(segment.base));
        if let (Ok(ordinal), true) = (ordinal, served_whole && self.core.place.use_maps) {
            let store = segment.store()?;
            let map = store.map_for_reading().ok().flatten();
            let seed = verify.then(|| store.seed());
            let behind = segment.sealed.map_or(u64::MAX, |sealed| sealed.next_offset);
            self.cursor = Some(Cursor { segment, map, seed, position, ordinal, end: behind });
        }
        Ok(Some((offset, None)))
    }

    /// Looks how far readers may see now.
    fn refresh(&mut self) -> Result<()> {
        self.limit = self.core.visible_end();
        if self.next < self.limit && self.limit > self.core.written_end.load(Ordering::Acquire) {
            self.core.write_for_readers()?;
        }
        // The map learns how far the store is published.
        if let Some(cursor) = &mut self.cursor {
            cursor.map = cursor.segment.store()?.map_for_reading().ok().flatten();
        }
        Ok(())
    }

    #[cold]
    fn look_for_truncation(&mut self) -> Result<()> {
        let epoch = self.core.truncations.epoch();
        if let Some(end) = self.core.truncations.lowest_since(self.epoch)
            && self.next > end
        {
            return Err(Error::Truncated { offset: self.next, end });
        }
        self.epoch = epoch;
        self.limit = 0;
        self.cursor = None;
        Ok(())
    }
}

/// An iterator over owned records; see [`Log::records`](crate::Log::records).
#[derive(Debug)]
pub struct Records {
    reader: Reader,
    end: u64,
    failed: bool,
}

impl Records {
    pub(crate) fn new(reader: Reader, end: u64) -> Records {
        Records { reader, end, failed: false }
    }
}

impl Iterator for Records {
    type Item = Result<Record>;

    fn next(&mut self) -> Option<Result<Record>> {
        if self.failed {
            return None;
        }
        let before = self.reader.next;
        match self.reader.advance(self.end) {
            Ok(None) => None,
            Ok(Some((offset, range))) => {
                let payload = match (range, &self.reader.cursor) {
                    (Some(range), Some(Cursor { map: Some(map), .. })) => {
                        Payload::Mapped { map: map.clone(), start: range.start, end: range.end }
                    }
                    _ => self.reader.current.take()?,
                };
                Some(Ok(Record::new(offset, payload)))
            }
            Err(error) => {
                // One record's trouble is passed over; a reader that cannot go on ends.
                self.failed = self.reader.next == before;
                Some(Err(error))
            }
        }
    }
}
