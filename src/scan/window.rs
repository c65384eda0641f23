//! A piece of the source in memory: what the scanner reads through.
//!
//! It owns which bytes are held, and what could not be read. It knows how to check one frame's bounds and
//! checksum, and not which frame should come. Invariants: no more than its size is held; unreadable bytes are
//! noted and taken for zeros, which are never a frame; no unreadable byte is forgotten.

use std::ops::Range;

use super::{Defect, Source};
use crate::frame::{self, HEADER_BYTES, Header, PayloadChecksum, Seed};

const UNREADABLE_STEP: usize = 4096;
const MOST_UNREADABLE: usize = 1 << 12;

/// Whether a window reads more than it is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ahead {
    Yes,
    No,
}

/// A piece of the source in memory.
pub(crate) struct Window<'a, S: Source + ?Sized> {
    source: &'a S,
    pub(crate) end: u64,
    size: usize,
    ahead: Ahead,
    /// Whether what is read next is most likely zeros.
    pub(crate) expects_zeros: bool,
    start: u64,
    buffer: Vec<u8>,
    pub(crate) unreadable: Vec<Range<u64>>,
}

impl<'a, S: Source + ?Sized> Window<'a, S> {
    pub(crate) fn new(source: &'a S, end: u64, size: usize, ahead: Ahead) -> Window<'a, S> {
        let (buffer, unreadable) = (Vec::new(), Vec::new());
        Window { source, end, size, ahead, expects_zeros: false, start: 0, buffer, unreadable }
    }

    /// Whether a header at `position` is in memory.
    pub(crate) fn holds(&self, position: u64) -> bool {
        self.holds_all(position, HEADER_BYTES)
    }

    pub(crate) fn holds_all(&self, position: u64, length: u64) -> bool {
        let held = self.start + self.buffer.len() as u64;
        position >= self.start && position.checked_add(length).is_some_and(|end| end <= held)
    }

    /// Bytes from `position` on: at least one, at most a window's size; `None` at the end.
    pub(crate) fn bytes_from(&mut self, position: u64) -> Option<&[u8]> {
        self.bytes(position, 1)?;
        let from = usize::try_from(position - self.start).ok()?;
        self.buffer.get(from..)
    }

    /// `length` bytes at `position` (at most a window's size), or `None` where they reach beyond
    /// the end.
    #[inline]
    pub(crate) fn bytes(&mut self, position: u64, length: usize) -> Option<&[u8]> {
        let end = position.checked_add(length as u64)?;
        if position < self.start || end > self.start + self.buffer.len() as u64 {
            if end > self.end || length > self.size {
                return None;
            }
            self.fill(position, length);
        }
        let from = usize::try_from(position - self.start).ok()?;
        self.buffer.get(from..from + length)
    }

    fn fill(&mut self, position: u64, wanted: usize) {
        let length = match self.ahead {
            Ahead::Yes => usize::try_from(self.end - position).unwrap_or(usize::MAX).min(self.size),
            Ahead::No => wanted,
        };
        self.start = position;
        self.buffer.resize(length, 0);
        let read = if self.expects_zeros {
            self.source.read_zeros(position, &mut self.buffer)
        } else {
            self.source.read(position, &mut self.buffer)
        };
        if read.is_ok() {
            return;
        }
        // Page by page, as the file's pages lie: one that cannot be read takes no byte of another with it.
        let step = UNREADABLE_STEP as u64;
        let first = usize::try_from(step - position % step).unwrap_or(UNREADABLE_STEP).min(self.buffer.len());
        let (head, rest) = self.buffer.split_at_mut(first);
        let mut at = position;
        for piece in std::iter::once(head).chain(rest.chunks_mut(UNREADABLE_STEP)) {
            if self.source.read(at, piece).is_err() {
                piece.fill(0);
                note_unreadable(&mut self.unreadable, at..at + piece.len() as u64);
            }
            at += piece.len() as u64;
        }
    }

    pub(crate) fn header_bytes(&mut self, position: u64) -> Option<[u8; frame::HEADER_LENGTH]> {
        frame::header_bytes(self.bytes(position, frame::HEADER_LENGTH)?).copied()
    }

    /// The frame at `position`, header and payload, where all of it is in memory.
    #[inline]
    pub(super) fn held_frame(&self, position: u64) -> Option<(&[u8; frame::HEADER_LENGTH], Header, &[u8])> {
        let from = usize::try_from(position.checked_sub(self.start)?).ok()?;
        let (bytes, rest) = self.buffer.get(from..)?.split_first_chunk()?;
        let header = frame::decode_header(bytes)?;
        let length = header.length as usize;
        let payload = rest.get(..length)?;
        (length + frame::padding_bytes(length) <= rest.len()).then_some((bytes, header, payload))
    }

    #[inline]
    pub(crate) fn header(&mut self, position: u64) -> Result<Header, Defect> {
        let end = self.end;
        let Some(bytes) = self.bytes(position, frame::HEADER_LENGTH) else { return Err(Defect::Nothing) };
        let header = frame::header_bytes(bytes).and_then(frame::decode_header);
        match header {
            None if bytes.iter().all(|byte| *byte == 0) => Err(Defect::Nothing),
            None => Err(Defect::NoHeader),
            Some(header) if position.saturating_add(header.frame_bytes()) > end => {
                Err(Defect::LengthBeyondEnd)
            }
            Some(header) => Ok(header),
        }
    }

    /// Checks the checksum of the frame at `position`, whose bounds were checked.
    #[inline]
    pub(crate) fn verify(&mut self, position: u64, header: &Header, seed: Seed) -> Result<(), Defect> {
        let whole = frame::HEADER_LENGTH + header.length as usize;
        if whole <= self.size {
            let bytes = self.bytes(position, whole).ok_or(Defect::LengthBeyondEnd)?;
            let (head, payload) = bytes.split_first_chunk().ok_or(Defect::LengthBeyondEnd)?;
            return if frame::verifies(head, PayloadChecksum::of(payload), seed) {
                Ok(())
            } else {
                Err(Defect::Checksum)
            };
        }
        let bytes = self.header_bytes(position).ok_or(Defect::LengthBeyondEnd)?;
        let checksum = self
            .checksum(position + HEADER_BYTES, u64::from(header.length))
            .ok_or(Defect::LengthBeyondEnd)?;
        if frame::verifies(&bytes, checksum, seed) { Ok(()) } else { Err(Defect::Checksum) }
    }

    pub(crate) fn checksum(&mut self, start: u64, length: u64) -> Option<PayloadChecksum> {
        self.checksum_from(0, start, length).map(PayloadChecksum::from_value)
    }

    /// Continues `checksum` over `length` bytes at `start`, piece by piece.
    pub(crate) fn checksum_from(&mut self, checksum: u32, start: u64, length: u64) -> Option<u32> {
        let mut hasher = crc32fast::Hasher::new_with_initial(checksum);
        let mut done = 0;
        while done < length {
            let position = start.checked_add(done)?;
            let left = usize::try_from(length - done).unwrap_or(usize::MAX);
            let bytes = match self.ahead {
                Ahead::Yes => self.bytes_from(position)?,
                Ahead::No => self.bytes(position, left.min(self.size))?,
            };
            let take = left.min(bytes.len());
            hasher.update(bytes.get(..take)?);
            done += take as u64;
        }
        Some(hasher.finalize())
    }
}

/// Notes a range that cannot be read; the ranges stay in order, and neither overlap nor touch.
fn note_unreadable(ranges: &mut Vec<Range<u64>>, range: Range<u64>) {
    let first = ranges.partition_point(|other| other.end < range.start);
    let touched = ranges.iter().skip(first).take_while(|other| other.start <= range.end).count();
    if touched == 0 && ranges.len() < MOST_UNREADABLE {
        ranges.insert(first, range);
        return;
    }
    // Past the limit a neighbour swallows the range: the bound on memory holds, and no unreadable
    // byte is forgotten.
    let (first, touched) = if touched == 0 { (first.saturating_sub(1), 1) } else { (first, touched) };
    let merged = ranges
        .drain(first..first + touched)
        .fold(range, |all, other| all.start.min(other.start)..all.end.max(other.end));
    ranges.insert(first, merged);
}
