//! Reading the records of a run, one behind the other.
//!
//! It owns the buffer and checks each frame again as it is read: the source may be failing, or in use. It does not
//! look for frames: where the run says one is, there is one, or an error.
//!
//! Invariant: no payload is given whose checksum does not hold.

use std::io;

use stonelog::disk::Disk;
use stonelog::frame::{self, HEADER_BYTES, Header, PayloadChecksum};
use stonelog::scan::Source;

use super::found::{OpenFile, Piece, SourceFile};

/// How many bytes are read at once.
const BUFFER_BYTES: usize = 128 << 10;

/// The records of a run.
pub(super) struct Records {
    file: OpenFile,
    piece: Piece,
    /// The frame at hand: where it is, its bytes, and which record it should hold.
    position: u64,
    ordinal: u32,
    buffer: Vec<u8>,
    buffer_start: u64,
}

impl Records {
    /// Opens a run at its first record.
    pub(super) fn open(disk: &dyn Disk, file: &SourceFile, piece: &Piece) -> io::Result<Records> {
        Ok(Records {
            file: file.open(disk)?,
            position: piece.run.positions.start,
            ordinal: piece.run.ordinals.start,
            piece: piece.clone(),
            buffer: Vec::new(),
            buffer_start: 0,
        })
    }

    /// The record's ordinal; none behind the last.
    pub(super) fn ordinal(&self) -> Option<u32> {
        Some(self.ordinal).filter(|ordinal| *ordinal < self.piece.run.ordinals.end)
    }

    /// Where the record's frame begins.
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// Whether the record ends its batch.
    pub(super) fn ends_batch(&mut self) -> io::Result<bool> {
        Ok(self.header()?.1.kind == frame::Kind::Record)
    }

    /// The record's bytes.
    pub(super) fn payload(&mut self) -> io::Result<Vec<u8>> {
        let (bytes, header) = self.header()?;
        let mut payload = vec![0; header.length as usize];
        self.read(self.position + HEADER_BYTES, &mut payload)?;
        if frame::verifies(&bytes, PayloadChecksum::of(&payload), self.piece.seed) {
            Ok(payload)
        } else {
            Err(changed())
        }
    }

    /// Steps to the next record.
    pub(super) fn advance(&mut self) -> io::Result<()> {
        let (_, header) = self.header()?;
        self.position += header.frame_bytes();
        self.ordinal += 1;
        Ok(())
    }

    /// Gives back memory, of a run that is not the only one at hand.
    pub(super) fn rest(&mut self) {
        self.buffer = Vec::new();
    }

    fn header(&mut self) -> io::Result<([u8; 16], Header)> {
        loop {
            let mut bytes = [0; 16];
            self.read(self.position, &mut bytes)?;
            let header = frame::decode_header(&bytes)
                .filter(|header| header.ordinal == self.ordinal)
                .filter(|header| self.position + header.frame_bytes() <= self.piece.run.positions.end)
                .ok_or_else(changed)?;
            if header.kind.is_record() {
                return Ok((bytes, header));
            }
            // A mark, which no log leaves between two records, but which is none of them either.
            self.position += header.frame_bytes();
        }
    }

    fn read(&mut self, position: u64, into: &mut [u8]) -> io::Result<()> {
        if into.len() > BUFFER_BYTES / 2 {
            return self.file.read(position, into);
        }
        let held = |reader: &Records| {
            let from = usize::try_from(position.checked_sub(reader.buffer_start)?).ok()?;
            reader.buffer.get(from..from.checked_add(into.len())?).map(<[u8]>::to_vec)
        };
        if held(self).is_none() {
            let left = self.piece.run.positions.end.saturating_sub(position);
            let length = usize::try_from(left).unwrap_or(usize::MAX).clamp(into.len(), BUFFER_BYTES);
            self.buffer.resize(length, 0);
            self.buffer_start = position;
            if self.file.read(position, &mut self.buffer).is_err() {
                // What lies ahead may be unreadable; the record at hand need not be.
                self.buffer.clear();
                return self.file.read(position, into);
            }
        }
        if let Some(bytes) = held(self) {
            into.copy_from_slice(&bytes);
        }
        Ok(())
    }
}

fn changed() -> io::Error {
    io::Error::other("the bytes changed while they were being salvaged")
}
