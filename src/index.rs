//! The index: from a record's ordinal in its segment to the position of its frame in the store.
//!
//! It owns the form in memory ([`MemoryIndex`], while a segment is active) and the form on disk
//! ([`encode`], [`IndexHeader`]). It deliberately does no I/O and does not know what a frame or a
//! store is: positions are numbers to it. Nor does it know whether it is right: an index is derived,
//! never a source of truth. Whoever reads a frame checks that it carries the wanted ordinal, and
//! drops and rebuilds an index that led him wrong.
//!
//! Invariants: a lookup touches at most two entries; a position that a lookup gives is a multiple of
//! 8, above 0, below 2^35 and, from disk, below the store's length; no bytes, however hostile, cause
//! a panic, an overflow, or an allocation (decoding allocates nothing at all).
//!
//! Positions are multiples of 8 below 2^35, so they are kept in *units* of 8 bytes, in a `u32`. A
//! store begins with its head, so no frame is at unit 0, and unit 0 says "no frame: damaged".
//!
//! Why dense, and not every nth record with a walk from there: frames are found by a read of their
//! header, so a walk costs a page of the store for every few records; an entry costs two bytes, or
//! none. Why fixed-width entries, and not varints: a lookup must not have to decode its neighbours.
//!
//! The file, little-endian: a header of 64 bytes, then the body.
//!
//! ```text
//!  0  [u8; 8]  magic "STONEIDX"
//!  8  u32      version: 1
//! 12  u32      form: 1 fixed, 2 blocked, 3 wide
//! 16  u64      segment id
//! 24  u32      the segment's seed (CRC of log uuid and segment id)
//! 28  u32      count of records
//! 32  u64      length of the store, bytes
//! 40  u32      first:  unit of record 0       (form 1; else 0)
//! 44  u32      stride: units between records  (form 1; else 0)
//! 48  u32      CRC-32 of the body
//! 52  [u8; 8]  zeros
//! 60  u32      CRC-32 of the 60 bytes before
//! 64  body     fixed:   nothing; record n is at unit first + n * stride
//!              blocked: a u32 base unit per block of 64 records, all bases first; then a u16 per
//!                       record, its unit less its block's base; zeros up to a multiple of 8
//!              wide:    a u32 unit per record, the one form that can say "damaged"
//! ```

mod memory;

use thiserror::Error;

use crate::mutant::{self, Mutant};

pub(crate) use memory::MemoryIndex;

/// The length of an index file's header, in bytes.
pub(crate) const INDEX_HEADER_BYTES: usize = 64;

/// The position that stands for "no frame: damaged", in what goes into an index.
pub(crate) const NO_FRAME: u64 = 0;

const MAGIC: [u8; 8] = *b"STONEIDX";
const VERSION: u32 = 1;
const UNIT_BYTES: u64 = 8;
const BLOCK_RECORDS: u32 = 64;

/// The unit of a position, if it has one: a multiple of 8 below 2^35.
#[inline]
fn unit_of(position: u64) -> Option<u32> {
    if position.is_multiple_of(UNIT_BYTES) { u32::try_from(position / UNIT_BYTES).ok() } else { None }
}

/// What ties an index to its segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct IndexIdentity {
    /// The segment's id.
    pub(crate) segment_id: u64,
    /// The segment's seed: the CRC of the log's uuid and the segment's id.
    pub(crate) seed: u32,
}

/// Why an index file is not used. It is derived, so the cure is always the same: drop it and rebuild
/// it from the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(crate) enum IndexDefect {
    /// There is no whole header.
    #[error("the index has no whole header")]
    Short,
    /// It is no index.
    #[error("the file does not begin as an index does")]
    Magic,
    /// The header is not what was written.
    #[error("the index header fails its checksum")]
    HeaderCrc,
    /// Written by a version of this crate that we do not know.
    #[error("the index has version {0}, which this program does not know")]
    Version(u32),
    /// A form that we do not know.
    #[error("the index has form {0}, which this program does not know")]
    Form(u32),
    /// The header's fields contradict one another.
    #[error("the index header contradicts itself")]
    Contradiction,
    /// The index of another segment.
    #[error("the index is that of segment {found}, not of {expected}")]
    Segment {
        /// The segment that was asked for.
        expected: u64,
        /// The segment in the header.
        found: u64,
    },
    /// The index of a segment of another log.
    #[error("the index belongs to another log (seed {found:08x}, not {expected:08x})")]
    Seed {
        /// The segment's seed.
        expected: u32,
        /// The seed in the header.
        found: u32,
    },
    /// The index of more or fewer records.
    #[error("the index has {found} records, the segment {expected}")]
    Count {
        /// How many records the segment has.
        expected: u32,
        /// The count in the header.
        found: u32,
    },
    /// The index of a longer or shorter store.
    #[error("the index is that of a store of {found} bytes, not of {expected}")]
    StoreLength {
        /// The store's length in bytes.
        expected: u64,
        /// The length in the header.
        found: u64,
    },
    /// The body is not as long as the header says.
    #[error("the index body has {found} bytes instead of {expected}")]
    BodyLength {
        /// The length that follows from the header, in bytes.
        expected: u64,
        /// The length that was seen, in bytes.
        found: u64,
    },
    /// The body is not what was written.
    #[error("the index body fails its checksum")]
    BodyCrc,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Fixed,
    Blocked,
    Wide,
}

impl Form {
    fn number(self) -> u32 {
        match self {
            Self::Fixed => 1,
            Self::Blocked => 2,
            Self::Wide => 3,
        }
    }

    fn from_number(number: u32) -> Result<Self, IndexDefect> {
        match number {
            1 => Ok(Self::Fixed),
            2 => Ok(Self::Blocked),
            3 => Ok(Self::Wide),
            _ => Err(IndexDefect::Form(number)),
        }
    }

    /// The length of the body in bytes: far below 2^64 for every count.
    fn body_bytes(self, count: u32) -> u64 {
        match self {
            Self::Fixed => 0,
            Self::Blocked => (bases_bytes(count) + 2 * u64::from(count)).next_multiple_of(8),
            Self::Wide => 4 * u64::from(count),
        }
    }
}

/// The length of the bases of a blocked body, in bytes.
#[inline]
fn bases_bytes(count: u32) -> u64 {
    4 * u64::from(count.div_ceil(BLOCK_RECORDS))
}

/// What an encoder has to know of the units before it can choose a form.
struct Survey {
    /// First and stride, where all units are equally far apart.
    fixed: Option<(u32, u32)>,
    /// Whether every block fits into 16 bits above its lowest unit.
    blocked: bool,
}

impl Survey {
    fn of(units: impl Iterator<Item = u32>) -> Self {
        let mut survey = Self { fixed: Some((0, 0)), blocked: true };
        let mut previous = 0;
        let (mut lowest, mut highest) = (0, 0);
        for (ordinal, unit) in (0u32..).zip(units) {
            if unit == 0 {
                return Self { fixed: None, blocked: false };
            }
            survey.fixed = survey.fixed.and_then(|(first, stride)| match ordinal {
                0 => Some((unit, 0)),
                1 => unit.checked_sub(first).filter(|stride| *stride > 0).map(|stride| (first, stride)),
                _ => (unit.checked_sub(previous) == Some(stride)).then_some((first, stride)),
            });
            if ordinal.is_multiple_of(BLOCK_RECORDS) {
                (lowest, highest) = (unit, unit);
            } else {
                (lowest, highest) = (unit.min(lowest), unit.max(highest));
            }
            survey.blocked &= highest - lowest <= u32::from(u16::MAX);
            previous = unit;
        }
        survey
    }

    fn form(&self, count: u32) -> Form {
        // By size, not by rank: of three records, wide entries are smaller than a padded block.
        let smaller = Form::Blocked.body_bytes(count) <= Form::Wide.body_bytes(count);
        match self.fixed {
            Some(_) => Form::Fixed,
            None if self.blocked && smaller => Form::Blocked,
            None => Form::Wide,
        }
    }
}

/// Encodes an index file, in the smallest form that fits.
///
/// `positions` gives the `count` records' positions in the store, in order; [`NO_FRAME`] for a
/// damaged record. A position that an index can't hold (no multiple of 8, 2^35 or more, at or beyond
/// `store_length`) or that is missing is written as damaged; what is beyond `count` is left out.
/// `store_length` is in bytes.
///
/// The iterator is run through up to three times, so that nothing but the result is held.
pub(crate) fn encode(
    identity: &IndexIdentity,
    store_length: u64,
    positions: impl Iterator<Item = u64> + Clone,
    count: u32,
) -> Vec<u8> {
    let units = positions
        .map(|position| unit_of(position).filter(|_| position < store_length).unwrap_or(0))
        .chain(std::iter::repeat(0))
        .take(count as usize);
    let survey = Survey::of(units.clone());
    let form = survey.form(count);
    let (first, stride) = survey.fixed.unwrap_or((0, 0));
    let mut header = IndexHeader {
        form,
        segment_id: identity.segment_id,
        seed: identity.seed,
        count,
        store_length,
        first,
        stride,
        body_crc: 0,
    };

    let total = usize::try_from(header.file_bytes()).unwrap_or(INDEX_HEADER_BYTES);
    let mut file = Vec::with_capacity(total);
    file.resize(INDEX_HEADER_BYTES, 0);
    match form {
        Form::Fixed => {}
        Form::Wide => {
            for unit in units {
                file.extend_from_slice(&unit.to_le_bytes());
            }
        }
        Form::Blocked => {
            let bases = bases_of(units.clone());
            for base in &bases {
                file.extend_from_slice(&base.to_le_bytes());
            }
            let bases = bases.iter().flat_map(|base| std::iter::repeat_n(*base, BLOCK_RECORDS as usize));
            for (unit, base) in units.zip(bases) {
                // The survey saw that it fits.
                let above = u16::try_from(unit.saturating_sub(base)).unwrap_or(u16::MAX);
                file.extend_from_slice(&above.to_le_bytes());
            }
            file.resize(file.len().next_multiple_of(8), 0);
        }
    }
    header.body_crc = crc32fast::hash(file.get(INDEX_HEADER_BYTES..).unwrap_or(&[]));
    for (place, byte) in file.iter_mut().zip(header.to_bytes()) {
        *place = byte;
    }
    file
}

/// The lowest unit of each block.
fn bases_of(units: impl Iterator<Item = u32>) -> Vec<u32> {
    let mut bases: Vec<u32> = Vec::new();
    for (ordinal, unit) in (0u32..).zip(units) {
        match bases.last_mut() {
            Some(base) if !ordinal.is_multiple_of(BLOCK_RECORDS) => *base = unit.min(*base),
            _ => bases.push(unit),
        }
    }
    bases
}

/// Where a record's unit is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Location {
    /// It follows from the header.
    Unit(u64),
    /// A u32 at this byte of the body.
    Entry(u64),
    /// A u32 at `base`, to which the u16 at `above` is added: bytes of the body.
    Sum { base: u64, above: u64 },
}

/// The header of an index file: all that a lookup needs besides the one or two entries it touches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct IndexHeader {
    form: Form,
    segment_id: u64,
    seed: u32,
    count: u32,
    store_length: u64,
    first: u32,
    stride: u32,
    body_crc: u32,
}

impl IndexHeader {
    /// Reads the header from a file's first [`INDEX_HEADER_BYTES`] bytes; more may follow.
    ///
    /// # Errors
    /// What is wrong with it. A header that parses is whole and agrees with itself; whether it is
    /// the right one, [`IndexHeader::matches`] tells.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, IndexDefect> {
        let bytes = bytes.first_chunk::<INDEX_HEADER_BYTES>().ok_or(IndexDefect::Short)?;
        let mut rest = bytes.as_slice();
        if take::<8>(&mut rest)? != MAGIC {
            return Err(IndexDefect::Magic);
        }
        let version = take_u32(&mut rest)?;
        let form = take_u32(&mut rest)?;
        let segment_id = take_u64(&mut rest)?;
        let seed = take_u32(&mut rest)?;
        let count = take_u32(&mut rest)?;
        let store_length = take_u64(&mut rest)?;
        let first = take_u32(&mut rest)?;
        let stride = take_u32(&mut rest)?;
        let body_crc = take_u32(&mut rest)?;
        let reserved = take_u64(&mut rest)?;
        let covered = bytes.split_last_chunk::<4>().map_or(&[][..], |(covered, _)| covered);
        if take_u32(&mut rest)? != crc32fast::hash(covered) {
            return Err(IndexDefect::HeaderCrc);
        }
        if version != VERSION {
            return Err(IndexDefect::Version(version));
        }
        let form = Form::from_number(form)?;
        let header = Self { form, segment_id, seed, count, store_length, first, stride, body_crc };
        if reserved != 0 || !header.is_consistent() {
            return Err(IndexDefect::Contradiction);
        }
        Ok(header)
    }

    /// Whether the fields are such as the encoder writes.
    fn is_consistent(&self) -> bool {
        match (self.form, self.count.checked_sub(1)) {
            (Form::Fixed, Some(last)) => {
                let last_in_store = self.position_of(self.fixed_unit(last)).is_some();
                self.first != 0 && (self.stride == 0) == (last == 0) && last_in_store
            }
            (Form::Fixed, None) | (Form::Blocked | Form::Wide, _) => self.first == 0 && self.stride == 0,
        }
    }

    fn to_bytes(self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(INDEX_HEADER_BYTES);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&self.form.number().to_le_bytes());
        bytes.extend_from_slice(&self.segment_id.to_le_bytes());
        bytes.extend_from_slice(&self.seed.to_le_bytes());
        bytes.extend_from_slice(&self.count.to_le_bytes());
        bytes.extend_from_slice(&self.store_length.to_le_bytes());
        bytes.extend_from_slice(&self.first.to_le_bytes());
        bytes.extend_from_slice(&self.stride.to_le_bytes());
        bytes.extend_from_slice(&self.body_crc.to_le_bytes());
        bytes.extend_from_slice(&[0; 8]);
        let crc = crc32fast::hash(&bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Checks that the index is the one of this segment as the caller knows it: its Seal or Close
    /// says the count of records and the store's length in bytes.
    ///
    /// # Errors
    /// The first thing that differs.
    pub(crate) fn matches(
        &self,
        segment_id: u64,
        seed: u32,
        count: u32,
        store_length: u64,
    ) -> Result<(), IndexDefect> {
        if self.segment_id != segment_id {
            return Err(IndexDefect::Segment { expected: segment_id, found: self.segment_id });
        }
        if self.seed != seed {
            return Err(IndexDefect::Seed { expected: seed, found: self.seed });
        }
        if self.count != count {
            return Err(IndexDefect::Count { expected: count, found: self.count });
        }
        if self.store_length != store_length {
            return Err(IndexDefect::StoreLength { expected: store_length, found: self.store_length });
        }
        Ok(())
    }

    /// How many records the index has.
    #[inline]
    #[cfg(test)]
    pub(crate) fn count(&self) -> u32 {
        self.count
    }

    /// The length of the whole file, in bytes; a file of another length is not to be used.
    pub(crate) fn file_bytes(&self) -> u64 {
        INDEX_HEADER_BYTES as u64 + self.body_bytes()
    }

    /// The length of the body, in bytes.
    pub(crate) fn body_bytes(&self) -> u64 {
        self.form.body_bytes(self.count)
    }

    /// Begins to check a body that comes in pieces: [`BodyCheck::update`] with each, in order.
    pub(crate) fn check_body(&self) -> BodyCheck {
        let expected = self.body_bytes();
        BodyCheck { expected, found: 0, crc: self.body_crc, hasher: crc32fast::Hasher::new() }
    }

    /// Checks a body that is there as a whole.
    ///
    /// # Errors
    /// `BodyLength` or `BodyCrc`.
    #[cfg(test)]
    pub(crate) fn verify_body(&self, body: &[u8]) -> Result<(), IndexDefect> {
        let mut check = self.check_body();
        check.update(body);
        check.finish()
    }

    /// The position in the store of a record's frame, looked up in a body that is in memory or
    /// mapped (the file from byte [`INDEX_HEADER_BYTES`] on).
    ///
    /// `None` where there is no such record, where it is damaged, or where the entry can't be true:
    /// the body ends before it, or it names a position beyond the store.
    #[inline]
    pub(crate) fn lookup_in(&self, body: &[u8], ordinal: u32) -> Option<u64> {
        let unit = match self.location_of(ordinal)? {
            Location::Unit(unit) => unit,
            Location::Entry(at) => u64::from(u32::from_le_bytes(*entry_at(body, at)?)),
            Location::Sum { base, above } => {
                let base = u32::from_le_bytes(*entry_at(body, base)?);
                let above = u16::from_le_bytes(*entry_at(body, above)?);
                u64::from(base) + u64::from(above)
            }
        };
        self.position_of(unit)
    }

    /// The same lookup by small reads: `read` fills a buffer of 2 or 4 bytes from a byte position
    /// in the index file. It is called at most twice.
    ///
    /// # Errors
    /// What `read` says.
    pub(crate) fn lookup_with<E>(
        &self,
        ordinal: u32,
        mut read: impl FnMut(&mut [u8], u64) -> Result<(), E>,
    ) -> Result<Option<u64>, E> {
        const BODY: u64 = INDEX_HEADER_BYTES as u64;
        let mut wide = [0; 4];
        let unit = match self.location_of(ordinal) {
            None => return Ok(None),
            Some(Location::Unit(unit)) => unit,
            Some(Location::Entry(at)) => {
                read(&mut wide, BODY + at)?;
                u64::from(u32::from_le_bytes(wide))
            }
            Some(Location::Sum { base, above }) => {
                let mut narrow = [0; 2];
                read(&mut wide, BODY + base)?;
                read(&mut narrow, BODY + above)?;
                u64::from(u32::from_le_bytes(wide)) + u64::from(u16::from_le_bytes(narrow))
            }
        };
        Ok(self.position_of(unit))
    }

    /// The positions of `count` records from ordinal `start` on, fewer where the index ends: each as
    /// [`IndexHeader::lookup_with`] gives it, [`NO_FRAME`] where that gives none; by at most two reads. `start` is
    /// a multiple of 64.
    ///
    /// # Errors
    /// What `read` says.
    pub(crate) fn positions_with<E>(
        &self,
        start: u32,
        count: u32,
        positions: &mut Vec<u64>,
        mut read: impl FnMut(&mut [u8], u64) -> Result<(), E>,
    ) -> Result<(), E> {
        const BODY: u64 = INDEX_HEADER_BYTES as u64;
        let count = count.min(self.count.saturating_sub(start));
        let position_of = |unit: u64| self.position_of(unit).unwrap_or(NO_FRAME);
        positions.clear();
        match self.form {
            Form::Fixed => positions.extend(
                (start..start.saturating_add(count)).map(|ordinal| position_of(self.fixed_unit(ordinal))),
            ),
            Form::Wide => {
                let mut units = vec![0; 4 * count as usize];
                read(&mut units, BODY + 4 * u64::from(start))?;
                let units = units.as_chunks::<4>().0.iter().map(|unit| u32::from_le_bytes(*unit));
                positions.extend(units.map(|unit| position_of(u64::from(unit))));
            }
            Form::Blocked => {
                let mut bases = vec![0; 4 * count.div_ceil(BLOCK_RECORDS) as usize];
                read(&mut bases, BODY + 4 * u64::from(start / BLOCK_RECORDS))?;
                let mut above = vec![0; 2 * count as usize];
                read(&mut above, BODY + bases_bytes(self.count) + 2 * u64::from(start))?;
                let blocks = above.chunks(2 * BLOCK_RECORDS as usize);
                for (base, block) in bases.as_chunks::<4>().0.iter().zip(blocks) {
                    let base = u64::from(u32::from_le_bytes(*base));
                    let above = block.as_chunks::<2>().0.iter().map(|unit| u16::from_le_bytes(*unit));
                    positions.extend(above.map(|above| position_of(base + u64::from(above))));
                }
            }
        }
        Ok(())
    }

    #[inline]
    fn location_of(&self, ordinal: u32) -> Option<Location> {
        if ordinal >= self.count {
            return None;
        }
        Some(match self.form {
            Form::Fixed => Location::Unit(self.fixed_unit(ordinal)),
            Form::Blocked => Location::Sum {
                base: 4 * u64::from(ordinal / BLOCK_RECORDS),
                above: bases_bytes(self.count) + 2 * u64::from(ordinal),
            },
            Form::Wide => Location::Entry(4 * u64::from(ordinal)),
        })
    }

    /// The unit of a record in the fixed form: three numbers below 2^32 can't overflow 64 bits here.
    #[inline]
    fn fixed_unit(&self, ordinal: u32) -> u64 {
        u64::from(self.first) + u64::from(ordinal) * u64::from(self.stride)
    }

    #[inline]
    fn position_of(&self, unit: u64) -> Option<u64> {
        if unit == 0 || unit > u64::from(u32::MAX) {
            return None;
        }
        Some(unit * UNIT_BYTES).filter(|position| *position < self.store_length)
    }
}

/// The check of a body that comes in pieces.
#[derive(Debug)]
pub(crate) struct BodyCheck {
    expected: u64,
    found: u64,
    crc: u32,
    hasher: crc32fast::Hasher,
}

impl BodyCheck {
    /// Takes the next piece of the body.
    pub(crate) fn update(&mut self, piece: &[u8]) {
        self.found = self.found.saturating_add(piece.len() as u64);
        self.hasher.update(piece);
    }

    /// Ends the check.
    ///
    /// # Errors
    /// `BodyLength` when the pieces were not as long as the header says, `BodyCrc` when they are not
    /// what was written.
    pub(crate) fn finish(self) -> Result<(), IndexDefect> {
        if self.found != self.expected {
            return Err(IndexDefect::BodyLength { expected: self.expected, found: self.found });
        }
        if self.hasher.finalize() != self.crc && !mutant::on(Mutant::IndexUnchecked) {
            return Err(IndexDefect::BodyCrc);
        }
        Ok(())
    }
}

/// The `N` bytes at a byte of the body.
#[inline]
fn entry_at<const N: usize>(body: &[u8], at: u64) -> Option<&[u8; N]> {
    body.get(usize::try_from(at).ok()?..)?.first_chunk()
}

fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], IndexDefect> {
    let (taken, left) = rest.split_first_chunk::<N>().ok_or(IndexDefect::Short)?;
    *rest = left;
    Ok(*taken)
}

fn take_u32(rest: &mut &[u8]) -> Result<u32, IndexDefect> {
    take(rest).map(u32::from_le_bytes)
}

fn take_u64(rest: &mut &[u8]) -> Result<u64, IndexDefect> {
    take(rest).map(u64::from_le_bytes)
}

#[cfg(test)]
mod tests;
