//! The store: the file that holds a segment's frames.
//!
//! It owns the head and base sectors, reserved space, writing frames at positions, and reading one
//! frame back (through a map or by pread). It knows no index, no offsets beyond the base it is told
//! to write, and no manifest.
//!
//! Invariants: the head is durable before the store is named in the manifest; the base sector goes
//! out in one write with the first frames; bytes below the published end never change; no store is
//! ever made shorter than its published end.
//!
//! Why two sectors and not one: the head is written when the file is prepared ahead, before anyone
//! knows which offset will come first, and a sector is the unit that is written whole or not at all.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use crate::disk::{self, Disk, DiskFile, Map, OpenMode, SECTOR_BYTES};
use crate::error::{Error, Result};
use crate::frame::{self, HEADER_BYTES, HEADER_LENGTH, Header, PayloadChecksum, Seed};
use crate::mutant::{self, Mutant};
use crate::names;
use crate::scan::{Defect, Source};
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Mutex, PoisonError};

/// The position of the first frame.
pub const FIRST_FRAME: u64 = 2 * SECTOR_BYTES;
/// The position of the base sector.
pub const BASE_POSITION: u64 = SECTOR_BYTES;
/// The format version of stores that this build writes and reads.
pub const FORMAT_VERSION: u32 = 1;

const HEAD_MAGIC: [u8; 8] = *b"STONELOG";
const BASE_MAGIC: [u8; 8] = *b"STONBASE";
const HEAD_BYTES: usize = 52;
const BASE_BYTES: usize = 20;
const SECTOR: usize = 512;
/// A store's first reservation where nobody knows how much will come, in bytes.
pub(crate) const FIRST_RESERVE: u64 = 64 << 10;
const LARGEST_RESERVE: u64 = 16 << 20;

/// How a store came to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// Prepared ahead for a roll.
    Roll,
    /// Made by a recovery, which copied a tail of unproven records into it.
    Copy,
}

/// The first sector of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// The format version.
    pub version: u32,
    /// How the store came to be.
    pub origin: Origin,
    /// The log's identity.
    pub uuid: [u8; 16],
    /// The segment's id.
    pub id: u64,
    /// When the file was made, in milliseconds since the Unix epoch.
    pub created_millis: u64,
}

impl Head {
    /// The sector's bytes.
    pub fn encode(&self) -> [u8; SECTOR] {
        let origin: u32 = match self.origin {
            Origin::Roll => 1,
            Origin::Copy => 2,
        };
        let mut bytes = Vec::with_capacity(HEAD_BYTES);
        bytes.extend(HEAD_MAGIC);
        bytes.extend(self.version.to_le_bytes());
        bytes.extend(origin.to_le_bytes());
        bytes.extend(self.uuid);
        bytes.extend(self.id.to_le_bytes());
        bytes.extend(self.created_millis.to_le_bytes());
        sector(&bytes, crc32fast::hash(&bytes))
    }

    /// Reads a head; `None` where the bytes are none, or their checksum does not hold.
    pub fn parse(bytes: &[u8]) -> Option<Head> {
        let head = bytes.first_chunk::<HEAD_BYTES>()?;
        let (body, checksum) = head.split_last_chunk::<4>()?;
        if crc32fast::hash(body) != u32::from_le_bytes(*checksum) {
            return None;
        }
        let (magic, rest) = body.split_first_chunk::<8>()?;
        let (version, rest) = rest.split_first_chunk::<4>()?;
        let (origin, rest) = rest.split_first_chunk::<4>()?;
        let (uuid, rest) = rest.split_first_chunk::<16>()?;
        let (id, rest) = rest.split_first_chunk::<8>()?;
        let (created, _) = rest.split_first_chunk::<8>()?;
        let origin = match u32::from_le_bytes(*origin) {
            1 => Origin::Roll,
            2 => Origin::Copy,
            _ => return None,
        };
        (*magic == HEAD_MAGIC).then(|| Head {
            version: u32::from_le_bytes(*version),
            origin,
            uuid: *uuid,
            id: u64::from_le_bytes(*id),
            created_millis: u64::from_le_bytes(*created),
        })
    }
}

/// The base sector's bytes.
pub(crate) fn encode_base(base: u64, seed: Seed) -> [u8; SECTOR] {
    let mut bytes = Vec::with_capacity(BASE_BYTES);
    bytes.extend(BASE_MAGIC);
    bytes.extend(base.to_le_bytes());
    let checksum = base_checksum(&bytes, seed);
    sector(&bytes, checksum)
}

/// Reads a base sector; `None` where it was lost.
pub(crate) fn parse_base(bytes: &[u8], seed: Seed) -> Option<u64> {
    let base = bytes.first_chunk::<BASE_BYTES>()?;
    let (body, checksum) = base.split_last_chunk::<4>()?;
    let (magic, number) = body.split_first_chunk::<8>()?;
    let holds = *magic == BASE_MAGIC && base_checksum(body, seed) == u32::from_le_bytes(*checksum);
    let base = u64::from_le_bytes(*number.first_chunk::<8>()?);
    (holds && base <= names::LARGEST_END).then_some(base)
}

/// Reads a base sector of whatever store: the base, and the one seed with which its checksum holds. That seed is
/// proven only by frames that have it too.
pub(crate) fn parse_base_unseeded(bytes: &[u8]) -> Option<(u64, Seed)> {
    let (body, checksum) = bytes.first_chunk::<BASE_BYTES>()?.split_last_chunk::<4>()?;
    let seed = Seed::of_checksum(body, u32::from_le_bytes(*checksum));
    parse_base(bytes, seed).map(|base| (base, seed))
}

fn base_checksum(body: &[u8], seed: Seed) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(crc32fast::hash(body));
    hasher.update(&seed.value().to_le_bytes());
    hasher.finalize()
}

fn sector(body: &[u8], checksum: u32) -> [u8; SECTOR] {
    let mut bytes = [0; SECTOR];
    let content = body.iter().copied().chain(checksum.to_le_bytes());
    for (place, byte) in bytes.iter_mut().zip(content) {
        *place = byte;
    }
    bytes
}

/// The bytes of one payload: a piece of a map, or a copy.
#[derive(Clone)]
pub(crate) enum Payload {
    Mapped { map: Arc<Map>, start: u64, end: u64 },
    Owned(Arc<[u8]>),
}

impl Payload {
    #[inline]
    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            // The range was served from this map before, so it lies below the published end.
            Payload::Mapped { map, start, end } => map.bytes(*start..*end).unwrap_or(&[]),
            Payload::Owned(bytes) => bytes,
        }
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Payload({} bytes)", self.bytes().len())
    }
}

/// Why a frame could not be served.
#[derive(Debug)]
pub(crate) enum ReadFailure {
    /// The bytes are not the frame that should be there.
    Defect(Defect),
    /// The disk failed.
    Io(io::Error),
}

/// An open store.
pub(crate) struct Store {
    id: u64,
    seed: Seed,
    path: PathBuf,
    file: Arc<dyn DiskFile>,
    reserved: AtomicU64,
    published: AtomicU64,
    /// Position up to which blocks were written ahead with zeros, by this process.
    zeroed: AtomicU64,
    /// Created at the first mapped read; replaced (under the lock) only where a store outgrew it.
    map: OnceLock<Option<Arc<Map>>>,
    larger_map: Mutex<Option<Arc<Map>>>,
    /// Serialises whatever changes the file's length.
    growing: Mutex<()>,
    map_bytes: u64,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Store {
    /// Creates a store with its head written and space reserved, and fsyncs it. The caller fsyncs
    /// the directory. `reserve` is what must be there for frames.
    pub(crate) fn create(disk: &dyn Disk, directory: &Path, head: Head, reserve: u64) -> Result<Store> {
        let path = directory.join(names::store(head.id));
        let reserved = reserve.saturating_add(FIRST_FRAME);
        let made = (|| {
            let file = disk::retry_interrupted(|| disk.open(&path, OpenMode::CreateNew))
                .map_err(|error| Error::io_or_no_space("creating", &path, reserved, error))?;
            disk::retry_interrupted(|| file.reserve(reserved))
                .map_err(|error| Error::io_or_no_space("reserving space in", &path, reserved, error))?;
            disk::write_all_at(file.as_ref(), &head.encode(), 0)
                .map_err(|error| Error::io_or_no_space("writing", &path, reserved, error))?;
            if !mutant::on(Mutant::StoreHeadUnsynced) {
                disk::retry_interrupted(|| file.sync())
                    .map_err(|error| Error::io("syncing", &path, None, error))?;
            }
            Ok(file)
        })();
        match made {
            Ok(file) => Ok(Store::new(&head.uuid, head.id, path, file, reserved, FIRST_FRAME, 0)),
            Err(error) => {
                // Unnamed and without frames: the next opening would remove it as well.
                let _ = disk.remove(&path);
                Err(error)
            }
        }
    }

    /// Opens an existing store. `published` is the position below which its bytes are final;
    /// `map_bytes` is how much a map should cover beyond that.
    pub(crate) fn open(
        disk: &dyn Disk,
        directory: &Path,
        uuid: &[u8; 16],
        id: u64,
        mode: OpenMode,
        published: u64,
        map_bytes: u64,
    ) -> Result<Store> {
        let path = directory.join(names::store(id));
        let file = disk::retry_interrupted(|| disk.open(&path, mode))
            .map_err(|error| Error::io("opening", &path, None, error))?;
        let length = disk::retry_interrupted(|| file.length())
            .map_err(|error| Error::io("measuring", &path, None, error))?;
        Ok(Store::new(uuid, id, path, file, length, published.min(length), map_bytes))
    }

    fn new(
        uuid: &[u8; 16],
        id: u64,
        path: PathBuf,
        file: Arc<dyn DiskFile>,
        reserved: u64,
        published: u64,
        map_bytes: u64,
    ) -> Store {
        Store {
            id,
            seed: Seed::of_segment(uuid, id),
            path,
            file,
            reserved: AtomicU64::new(reserved),
            published: AtomicU64::new(published),
            zeroed: AtomicU64::new(0),
            map: OnceLock::new(),
            larger_map: Mutex::new(None),
            growing: Mutex::new(()),
            map_bytes,
        }
    }

    /// Says how far a map of this store should reach (before it is first read).
    pub(crate) fn with_map_bytes(mut self, map_bytes: u64) -> Store {
        self.map_bytes = map_bytes;
        self
    }

    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    pub(crate) fn seed(&self) -> Seed {
        self.seed
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Position up to which space is reserved.
    pub(crate) fn reserved(&self) -> u64 {
        self.reserved.load(Ordering::Relaxed)
    }

    /// Position below which bytes are final.
    pub(crate) fn published(&self) -> u64 {
        self.published.load(Ordering::Acquire)
    }

    /// Makes sure that frames up to position `end` fit in reserved space, in growing steps so that
    /// a small log stays small.
    pub(crate) fn reserve(&self, end: u64, most: u64) -> Result<()> {
        let _growing = self.growing.lock().unwrap_or_else(PoisonError::into_inner);
        let reserved = self.reserved();
        if end <= reserved {
            return Ok(());
        }
        let step = reserved.clamp(FIRST_RESERVE, LARGEST_RESERVE);
        let wanted = end.max(reserved.saturating_add(step).min(most));
        let outcome = disk::retry_interrupted(|| self.file.reserve(wanted)).map(|()| wanted);
        // A nearly full disk may still hold what is needed, if not the comfortable step.
        let outcome = outcome.or_else(|error| {
            if wanted == end {
                Err(error)
            } else {
                disk::retry_interrupted(|| self.file.reserve(end)).map(|()| end)
            }
        });
        match outcome {
            Ok(reached) => {
                self.reserved.store(reached, Ordering::Relaxed);
                Ok(())
            }
            Err(error) => Err(Error::io_or_no_space("reserving space in", &self.path, end - reserved, error)),
        }
    }

    /// Writes bytes at a position.
    pub(crate) fn write(&self, bytes: &[u8], position: u64) -> Result<()> {
        disk::write_all_at(self.file.as_ref(), bytes, position)
            .map_err(|error| Error::io_or_no_space("writing", &self.path, bytes.len() as u64, error))
    }

    /// Writes zeros from `end`, the end of what was just written, up to `ahead` bytes beyond it, within reserved
    /// space, unless blocks up to there are written already. The next fsync covers them, and those after it find
    /// blocks that were written before: no extent has to be converted for them, which the filesystem would do
    /// through its journal. The bytes there are zeros before and after, so a failure takes nothing from anybody.
    pub(crate) fn zero_ahead(&self, end: u64, ahead: u64) -> io::Result<()> {
        static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
        let zeroed = self.zeroed.load(Ordering::Relaxed);
        let until = end.saturating_add(ahead).min(self.reserved());
        let mut position = zeroed.max(end);
        if end.saturating_add(ahead / 8) <= zeroed {
            return Ok(());
        }
        while position < until {
            let piece = usize::try_from(until - position).unwrap_or(ZEROS.len()).min(ZEROS.len());
            disk::write_all_at(self.file.as_ref(), ZEROS.get(..piece).unwrap_or(&ZEROS), position)?;
            position += piece as u64;
            self.zeroed.store(position, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Fsyncs the store. An interrupted call is asked again; every other error means that it is
    /// unknown what is on disk.
    pub(crate) fn sync(&self) -> Result<()> {
        disk::retry_interrupted(|| self.file.sync())
            .map_err(|error| Error::io("syncing", &self.path, None, error))
    }

    /// Overwrites bytes that were never published with zeros, durably. The file keeps its length
    /// and its space.
    pub(crate) fn cut(&self, position: u64, length: usize) -> Result<()> {
        self.write(&vec![0; length], position)?;
        if mutant::on(Mutant::CutUnsynced) { Ok(()) } else { self.sync() }
    }

    /// Gives back reserved space behind `position`.
    pub(crate) fn trim(&self, position: u64) -> Result<()> {
        disk::retry_interrupted(|| self.file.set_length(position))
            .map_err(|error| Error::io("trimming", &self.path, Some(position), error))?;
        self.reserved.store(position, Ordering::Relaxed);
        Ok(())
    }

    /// States that bytes below `end` are written and will never change.
    pub(crate) fn publish(&self, end: u64) {
        self.published.fetch_max(end, Ordering::AcqRel);
    }

    /// A map that covers `end`, where this disk has maps.
    #[inline]
    fn mapped(&self, end: u64) -> Result<Option<Arc<Map>>, io::Error> {
        let first = match self.map.get() {
            Some(first) => first,
            None => {
                let length = self.map_bytes.max(self.published());
                let map = disk::retry_interrupted(|| self.file.map(length))?.map(Arc::new);
                self.map.get_or_init(|| map)
            }
        };
        let Some(first) = first else { return Ok(None) };
        if end <= first.len() {
            if end > first.published() {
                first.publish(self.published());
            }
            return Ok(Some(first.clone()));
        }
        self.mapped_larger(end)
    }

    /// Only for a store that a batch made larger than its map.
    #[cold]
    fn mapped_larger(&self, end: u64) -> Result<Option<Arc<Map>>, io::Error> {
        let mut larger = self.larger_map.lock().unwrap_or_else(PoisonError::into_inner);
        if larger.as_ref().is_none_or(|map| map.len() < end) {
            let length = self.published().max(end);
            *larger = disk::retry_interrupted(|| self.file.map(length))?.map(Arc::new);
        }
        if let Some(map) = larger.as_ref() {
            map.publish(self.published());
        }
        Ok(larger.clone())
    }

    /// Reads the record `ordinal`, whose frame should stand at `position`, below the published end.
    #[inline]
    pub(crate) fn read(
        &self,
        position: u64,
        ordinal: u32,
        verify: bool,
        use_map: bool,
    ) -> Result<(Payload, Header), ReadFailure> {
        let published = self.published();
        let verify = verify && !mutant::on(Mutant::ReadUnverified);
        if use_map && let Some(map) = self.mapped(published).map_err(ReadFailure::Io)? {
            let (start, header) =
                check_in_map(&map, position, ordinal, published, verify.then_some(self.seed))?;
            let end = start + u64::from(header.length);
            return Ok((Payload::Mapped { map, start, end }, header));
        }
        self.read_buffered(position, ordinal, verify, published)
    }

    fn read_buffered(
        &self,
        position: u64,
        ordinal: u32,
        verify: bool,
        published: u64,
    ) -> Result<(Payload, Header), ReadFailure> {
        let mut head = [0; HEADER_LENGTH];
        if position.checked_add(HEADER_BYTES).is_none_or(|end| end > published) {
            return Err(ReadFailure::Defect(Defect::LengthBeyondEnd));
        }
        disk::read_exact_at(self.file.as_ref(), &mut head, position).map_err(ReadFailure::Io)?;
        let header = check_header(&head, position, ordinal, published)?;
        // Bounded: the frame was just found to end below the published end of a real file.
        let mut payload = vec![0; header.length as usize];
        disk::read_exact_at(self.file.as_ref(), &mut payload, position + HEADER_BYTES)
            .map_err(ReadFailure::Io)?;
        if verify && !frame::verifies(&head, PayloadChecksum::of(&payload), self.seed) {
            return Err(ReadFailure::Defect(Defect::Checksum));
        }
        Ok((Payload::Owned(payload.into()), header))
    }

    /// The map for a sequential reader, where there is one.
    pub(crate) fn map_for_reading(&self) -> Result<Option<Arc<Map>>, io::Error> {
        self.mapped(self.published())
    }
}

/// Checks the frame of record `ordinal` at `position` in a map: where its payload starts, and its
/// header. With a seed, the checksum is verified too.
#[inline]
pub(crate) fn check_in_map(
    map: &Map,
    position: u64,
    ordinal: u32,
    published: u64,
    seed: Option<Seed>,
) -> Result<(u64, Header), ReadFailure> {
    let start = position.saturating_add(HEADER_BYTES);
    let head = map
        .bytes(position..start)
        .and_then(frame::header_bytes)
        .ok_or(ReadFailure::Defect(Defect::LengthBeyondEnd))?;
    let header = check_header(head, position, ordinal, published)?;
    let payload = map
        .bytes(start..start.saturating_add(u64::from(header.length)))
        .ok_or(ReadFailure::Defect(Defect::LengthBeyondEnd))?;
    if seed.is_some_and(|seed| !frame::verifies(head, PayloadChecksum::of(payload), seed)) {
        return Err(ReadFailure::Defect(Defect::Checksum));
    }
    Ok((start, header))
}

#[inline]
fn check_header(
    head: &[u8; HEADER_LENGTH],
    position: u64,
    ordinal: u32,
    published: u64,
) -> Result<Header, ReadFailure> {
    let Some(header) = frame::decode_header(head).filter(|header| header.kind.is_record()) else {
        return Err(ReadFailure::Defect(Defect::NoHeader));
    };
    if header.ordinal != ordinal
        && !mutant::on(Mutant::OrdinalUnchecked)
        && !mutant::on(Mutant::IndexUnchecked)
    {
        return Err(ReadFailure::Defect(Defect::WrongOrdinal));
    }
    if position.checked_add(header.frame_bytes()).is_none_or(|end| end > published) {
        return Err(ReadFailure::Defect(Defect::LengthBeyondEnd));
    }
    Ok(header)
}

/// An open file as something to scan.
pub(crate) struct FileSource<'a> {
    pub(crate) file: &'a dyn DiskFile,
    pub(crate) length: u64,
}

impl Source for FileSource<'_> {
    fn length(&self) -> u64 {
        self.length
    }

    fn read(&self, position: u64, buffer: &mut [u8]) -> io::Result<()> {
        disk::read_exact_at(self.file, buffer, position)
    }

    fn read_zeros(&self, position: u64, buffer: &mut [u8]) -> io::Result<()> {
        disk::read_exact_past_cache_at(self.file, buffer, position)
    }
}

impl Source for Store {
    fn length(&self) -> u64 {
        self.published()
    }

    fn read(&self, position: u64, buffer: &mut [u8]) -> io::Result<()> {
        disk::read_exact_at(self.file.as_ref(), buffer, position)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_and_bases_round_trip_and_refuse_strangers() {
        let uuid = [9; 16];
        let head = Head { version: 1, origin: Origin::Copy, uuid, id: 12, created_millis: 77 };
        assert_eq!(Head::parse(&head.encode()), Some(head));
        let seed = Seed::of_segment(&uuid, 12);
        assert_eq!(parse_base(&encode_base(500, seed), seed), Some(500));
        assert_eq!(parse_base(&encode_base(500, seed), Seed::of_segment(&uuid, 13)), None);
        for bit in 0..HEAD_BYTES * 8 {
            let mut bad = head.encode();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Head::parse(&bad), None);
        }
        assert_eq!(Head::parse(&[0; 512]), None);
        assert_eq!(parse_base(&[0; 512], seed), None);
    }
}
