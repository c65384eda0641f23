//! Writing one whole segment: records in, frames out, none of them served before all are durable.
//!
//! It owns the buffer, the ordinals and the index of a store that nobody reads yet: a recovery's copy, or a
//! segment of a log that is being built. It does not know where the records come from, and names no segment in
//! any manifest. Invariants: the base sector goes out in one write with the first frames; no watermark lies
//! above the segment's base, since until the segment is named nothing more is proven.
//!
//! Why not the log's own writer: that one shares its buffer with readers and committers, and its segment has a
//! name before its first frame.

use crate::error::{Error, Result};
use crate::frame::{self, HEADER_LENGTH, Header, Kind, Lag, PayloadChecksum};
use crate::index::{self, MemoryIndex};
use crate::store::{self, FIRST_FRAME, Store};

/// Frames are written in pieces of this size.
const BUFFER_BYTES: usize = 1 << 20;
/// How many records a segment holds at most: an index counts them in a `u32`.
pub(crate) const MOST_RECORDS: u64 = u32::MAX as u64 - 1;

/// A segment in the making.
pub(crate) struct SegmentWriter {
    store: Store,
    index: MemoryIndex,
    base: u64,
    next: u64,
    /// Where the buffer goes.
    position: u64,
    buffer: Vec<u8>,
}

impl SegmentWriter {
    /// Begins the segment of a store that holds nothing but its head.
    pub(crate) fn new(store: Store, base: u64) -> SegmentWriter {
        SegmentWriter {
            index: MemoryIndex::new(),
            base,
            next: base,
            position: store::BASE_POSITION,
            buffer: store::encode_base(base, store.seed()).to_vec(),
            store,
        }
    }

    /// Appends a record, whose payload was hashed before.
    pub(crate) fn push(&mut self, kind: Kind, payload: &[u8], checksum: PayloadChecksum) -> Result<()> {
        let too_many =
            |_| Error::TooLarge { what: "batch", bytes: self.next - self.base, limit: u64::from(u32::MAX) };
        let header = Header {
            kind,
            length: u32::try_from(payload.len()).map_err(too_many)?,
            ordinal: u32::try_from(self.next - self.base).map_err(too_many)?,
            lag: Lag::between(self.next, self.base),
        };
        let _ = self.index.push(self.length()); // Positions in a store always fit.
        frame::push_frame(&mut self.buffer, &header, payload, checksum, self.store.seed());
        self.next += 1;
        if self.buffer.len() >= BUFFER_BYTES { self.flush() } else { Ok(()) }
    }

    /// Leaves `count` ordinals without a frame. Where each would be stand 16 bytes of zeros: a scanner takes no
    /// frame for the next one that comes sooner than the smallest frames between could.
    pub(crate) fn skip(&mut self, count: u32) -> Result<()> {
        for _ in 0..count {
            let _ = self.index.push(index::NO_FRAME);
            self.buffer.extend_from_slice(&[0; HEADER_LENGTH]);
        }
        self.next += u64::from(count);
        if self.buffer.len() >= BUFFER_BYTES { self.flush() } else { Ok(()) }
    }

    /// How many records there are, those without a frame included.
    pub(crate) fn count(&self) -> u64 {
        self.next - self.base
    }

    /// The position behind the last frame.
    pub(crate) fn length(&self) -> u64 {
        self.position + self.buffer.len() as u64
    }

    /// Writes what is buffered.
    pub(crate) fn flush(&mut self) -> Result<()> {
        let end = self.length();
        self.store.reserve(end, end)?;
        self.store.write(&self.buffer, self.position)?;
        self.position = end.max(FIRST_FRAME);
        self.buffer.clear();
        Ok(())
    }

    /// Gives back space that was reserved and not used.
    pub(crate) fn trim(&self) -> Result<()> {
        self.store.trim(self.position)
    }

    /// Fsyncs the store. The caller fsyncs the directory.
    pub(crate) fn sync(&self) -> Result<()> {
        self.store.sync()
    }

    /// What was flushed and fsynced can be read from here on.
    pub(crate) fn publish(self) -> (Store, MemoryIndex) {
        self.store.publish(self.position);
        (self.store, self.index)
    }
}
