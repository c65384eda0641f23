//! A segment: a store and its index, known by its id.
//!
//! It owns reading a record by offset: from the index to the frame, and what to do when the index
//! was wrong. It knows no manifest and no other segment. Invariants: an index leads, the frame
//! decides (its ordinal is checked at every read); an index that led wrong is dropped and rebuilt
//! from the store once, and only then a record counts as damaged; a sealed segment's files are
//! opened at its first read, so that opening a log does not cost a file handle for each.

mod index_check;
mod index_file;

use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use crate::disk::{self, Disk, OpenMode};
use crate::error::{Damage, Error, Result};
use crate::index::{self, MemoryIndex};
use crate::names;
use crate::scan::{Defect, Source};
use crate::store::{FIRST_FRAME, Payload, ReadFailure, Store};
use crate::sync::{Mutex, PoisonError};

pub(crate) use index_check::IndexCheck;
use index_file::{FileIndex, open_index, write_index_bytes};
pub(crate) use index_file::{Scanned, encode_index, reopen_active_index, scan_index, write_index};

/// Where a log's segments live, and how they are read.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) directory: PathBuf,
    pub(crate) uuid: [u8; 16],
    /// Whether files may be written: a rebuilt index is kept in memory otherwise.
    pub(crate) writable: bool,
    pub(crate) use_maps: bool,
}

impl Place {
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Removes the files of segments that no manifest names any more: what stays behind is removed by the next
    /// opening.
    pub(crate) fn remove_files(&self, ids: &[u64]) {
        for id in ids {
            for name in [names::store(*id), names::index(*id)] {
                let path = self.path(&name);
                if let Err(error) = disk::remove_if_present(self.disk.as_ref(), &path) {
                    tracing::warn!(file = %path.display(), %error, "a dropped file stays until the next opening");
                }
            }
        }
    }
}

/// Where a sealed segment ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SealedEnd {
    pub(crate) next_offset: u64,
    pub(crate) length: u64,
}

/// One segment, for reading; the writer keeps its own handle on an active one's store.
pub(crate) struct Segment {
    place: Arc<Place>,
    pub(crate) id: u64,
    pub(crate) base: u64,
    pub(crate) sealed: Option<SealedEnd>,
    store: OnceLock<Arc<Store>>,
    index: SegmentIndex,
    /// What a scan finds, once an index in memory led wrong: it was read from a file, too.
    scanned: OnceLock<MemoryIndex>,
    /// Serialises opening and rebuilding.
    opening: Mutex<()>,
    first_millis: AtomicU64,
    last_millis: AtomicU64,
}

enum SegmentIndex {
    Memory(MemoryIndex),
    File { loaded: OnceLock<FileIndex>, rebuilt: OnceLock<FileIndex> },
}

impl fmt::Debug for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Segment").field("id", &self.id).field("base", &self.base).finish_non_exhaustive()
    }
}

impl Segment {
    /// A segment whose index is in memory: an active one, or one that a scan just read.
    pub(crate) fn with_memory_index(
        place: Arc<Place>,
        base: u64,
        store: Arc<Store>,
        index: MemoryIndex,
        sealed: Option<SealedEnd>,
    ) -> Segment {
        Segment {
            place,
            id: store.id(),
            base,
            sealed,
            store: OnceLock::from(store),
            index: SegmentIndex::Memory(index),
            scanned: OnceLock::new(),
            opening: Mutex::new(()),
            first_millis: AtomicU64::new(0),
            last_millis: AtomicU64::new(0),
        }
    }

    /// A sealed segment, whose files are opened when it is first read.
    pub(crate) fn sealed(
        place: Arc<Place>,
        id: u64,
        base: u64,
        end: SealedEnd,
        store: Option<Arc<Store>>,
    ) -> Segment {
        Segment {
            place,
            id,
            base,
            sealed: Some(end),
            store: store.map_or_else(OnceLock::new, OnceLock::from),
            index: SegmentIndex::File { loaded: OnceLock::new(), rebuilt: OnceLock::new() },
            scanned: OnceLock::new(),
            opening: Mutex::new(()),
            first_millis: AtomicU64::new(0),
            last_millis: AtomicU64::new(0),
        }
    }

    /// The in-memory index of an active segment.
    pub(crate) fn memory_index(&self) -> Option<&MemoryIndex> {
        match &self.index {
            SegmentIndex::Memory(index) => Some(index),
            SegmentIndex::File { .. } => None,
        }
    }

    /// Notes when records were written.
    pub(crate) fn touch(&self, millis: u64) {
        let _ = self.first_millis.compare_exchange(0, millis, Ordering::Relaxed, Ordering::Relaxed);
        self.last_millis.store(millis, Ordering::Relaxed);
    }

    /// When its first and last records were written, in milliseconds since the Unix epoch.
    pub(crate) fn time_range(&self) -> (u64, u64) {
        (self.first_millis.load(Ordering::Relaxed), self.last_millis.load(Ordering::Relaxed))
    }

    /// The store, opened at first use.
    #[inline]
    pub(crate) fn store(&self) -> Result<&Arc<Store>> {
        match self.store.get() {
            Some(store) => Ok(store),
            None => self.open_store(),
        }
    }

    #[cold]
    fn open_store(&self) -> Result<&Arc<Store>> {
        let _guard = self.opening.lock().unwrap_or_else(PoisonError::into_inner);
        let end = self.sealed.map_or(FIRST_FRAME, |sealed| sealed.length);
        let place = &self.place;
        let opened = Store::open(
            place.disk.as_ref(),
            &place.directory,
            &place.uuid,
            self.id,
            OpenMode::Read,
            end,
            end,
        );
        match opened {
            Ok(store) => Ok(self.store.get_or_init(|| Arc::new(store))),
            Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                Err(self.damage(None, None, "the store is missing, though the manifest names it"))
            }
            Err(error) => Err(error),
        }
    }

    fn damage(&self, position: Option<u64>, offset: Option<u64>, what: &str) -> Error {
        Damage {
            directory: self.place.directory.clone(),
            file: self.place.path(&names::store(self.id)),
            position,
            offsets: offset.map(|offset| offset..offset.saturating_add(1)),
            what: what.to_string(),
            proof: None,
        }
        .into()
    }

    /// The position of a record's frame, as the index tells it.
    #[inline]
    fn position(&self, ordinal: u32) -> Result<Option<u64>> {
        match &self.index {
            SegmentIndex::Memory(index) => Ok(index.get(ordinal)),
            SegmentIndex::File { loaded, rebuilt } => {
                let index = match rebuilt.get().or_else(|| loaded.get()) {
                    Some(index) => index,
                    None => self.load_index()?,
                };
                index.lookup(ordinal).map_err(|error| {
                    Error::io("reading", &self.place.path(&names::index(self.id)), None, error)
                })
            }
        }
    }

    /// Reads the record at `offset`, which is this segment's.
    #[inline]
    pub(crate) fn read(&self, offset: u64, verify: bool) -> Result<(Payload, u64)> {
        let Ok(ordinal) = u32::try_from(offset.saturating_sub(self.base)) else {
            return Err(self.damage(None, Some(offset), "no record of this segment has this offset"));
        };
        let store = match self.store() {
            Err(Error::Damaged(mut damage)) => {
                damage.offsets = Some(offset..offset.saturating_add(1));
                return Err(Error::Damaged(damage));
            }
            store => store?,
        };
        let position = self.position(ordinal)?;
        let Some(position) = position else { return self.read_again(store, offset, ordinal, None, verify) };
        match store.read(position, ordinal, verify, self.place.use_maps) {
            Ok((payload, header)) => Ok((payload, position.saturating_add(header.frame_bytes()))),
            Err(failure) => self.read_again(store, offset, ordinal, Some((position, failure)), verify),
        }
    }

    /// The slow way: the index may have led wrong; rebuild it once, then say what is wrong.
    #[cold]
    fn read_again(
        &self,
        store: &Store,
        offset: u64,
        ordinal: u32,
        mut failed: Option<(u64, ReadFailure)>,
        verify: bool,
    ) -> Result<(Payload, u64)> {
        if let SegmentIndex::File { rebuilt, .. } = &self.index
            && rebuilt.get().is_none()
        {
            tracing::warn!(segment = self.id, offset, "an index led wrong, or to damage: rebuilding it");
            self.rebuild_index(rebuilt)?;
            // Where the scan finds no frame for the record, the old position says where it was.
            if let Some(position) = self.position(ordinal)? {
                match store.read(position, ordinal, verify, self.place.use_maps) {
                    Ok((payload, header)) => {
                        return Ok((payload, position.saturating_add(header.frame_bytes())));
                    }
                    Err(failure) => failed = Some((position, failure)),
                }
            }
        }
        let disk_failed = matches!(&failed, Some((_, ReadFailure::Io(error)))
            if error.kind() != std::io::ErrorKind::UnexpectedEof);
        let mut unreadable = None;
        if !disk_failed && self.may_be_elsewhere() {
            let found = self.search(store, ordinal);
            unreadable = found.err();
            let known = failed.as_ref().map(|(position, _)| *position);
            if let Some(position) = found.ok().flatten().filter(|at| Some(*at) != known)
                && let Ok((payload, header)) = store.read(position, ordinal, verify, self.place.use_maps)
            {
                return Ok((payload, position.saturating_add(header.frame_bytes())));
            }
        }
        if let (None, Some(position)) = (&failed, unreadable) {
            return Err(unreadable_at(store, position));
        }
        match failed {
            None => Err(self.damage(None, Some(offset), "no intact frame in the store carries this record")),
            Some((position, ReadFailure::Defect(defect))) => {
                Err(self.damage(Some(position), Some(offset), defect.describe()))
            }
            Some((position, ReadFailure::Io(error))) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
                Err(self.damage(Some(position), Some(offset), Defect::LengthBeyondEnd.describe()))
            }
            Some((position, ReadFailure::Io(error))) => {
                Err(Error::io("reading", store.path(), Some(position), error))
            }
        }
    }

    /// Whether the store may hold a record where the index does not say so.
    fn may_be_elsewhere(&self) -> bool {
        match &self.index {
            SegmentIndex::Memory(_) => true,
            SegmentIndex::File { rebuilt, .. } => rebuilt.get().is_some_and(|index| index.partial),
        }
    }

    /// Where a record is, by a scan, which is kept if it saw all of the store. The error is the first position
    /// that the disk could not read, where it found no record.
    fn search(&self, store: &Store, ordinal: u32) -> std::result::Result<Option<u64>, u64> {
        if let Some(index) = self.scanned.get() {
            return Ok(index.get(ordinal));
        }
        let _guard = self.opening.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(index) = self.scanned.get() {
            return Ok(index.get(ordinal));
        }
        let length = self.sealed.map_or(store.published(), |sealed| sealed.length.min(store.published()));
        let count = match (self.memory_index(), self.sealed) {
            (Some(index), _) => index.len(),
            (None, sealed) => record_count(self.base, sealed.map_or(0, |sealed| sealed.next_offset), length),
        };
        let Scanned { index, unreadable } = scan_index(store, self.base, count, length);
        match (index.get(ordinal), unreadable) {
            (found, None) => {
                let _ = self.scanned.set(index);
                Ok(found)
            }
            (Some(position), Some(_)) => Ok(Some(position)),
            (None, Some(unreadable)) => Err(unreadable),
        }
    }

    /// The position behind the record before `offset`, checked against frames: where a cut may go.
    pub(crate) fn position_behind(&self, offset: u64) -> Result<u64> {
        match self.read(offset.saturating_sub(1), true) {
            Ok((_, end)) => Ok(end),
            // The record before is damaged; where the one at `offset` begins will do.
            Err(error) => match self.read(offset, true) {
                Ok((payload, end)) => {
                    let length = u32::try_from(payload.bytes().len()).unwrap_or(u32::MAX);
                    Ok(end.saturating_sub(crate::frame::frame_bytes(length)))
                }
                Err(_) => Err(error),
            },
        }
    }

    /// Writes a new index file, of the first `count` records in the first `length` bytes of the store.
    pub(crate) fn write_index(&self, count: u32, length: u64) -> Result<()> {
        if let Some(index) = self.memory_index() {
            return write_index(&self.place, self.id, length, index, count);
        }
        let index = MemoryIndex::new();
        for ordinal in 0..count {
            let _ = index.push(self.position(ordinal)?.unwrap_or(index::NO_FRAME)); // An index had it: it fits.
        }
        write_index(&self.place, self.id, length, &index, count)
    }

    /// The offset behind the last record that the store can hold, whatever was stated of it.
    pub(crate) fn readable_end(&self) -> u64 {
        let count = match (self.memory_index(), self.sealed) {
            (Some(index), _) => index.len(),
            (None, Some(sealed)) => {
                let length = match self.store() {
                    Ok(store) => store.published(),
                    Err(Error::Damaged(_)) => 0,
                    // It cannot be opened now, which says nothing of what it holds.
                    Err(_) => sealed.length,
                };
                record_count(self.base, sealed.next_offset, length)
            }
            (None, None) => 0,
        };
        self.base.saturating_add(u64::from(count))
    }

    fn count(&self) -> u32 {
        self.sealed.map_or(0, |sealed| record_count(self.base, sealed.next_offset, sealed.length))
    }

    #[cold]
    fn load_index(&self) -> Result<&FileIndex> {
        let SegmentIndex::File { loaded, rebuilt } = &self.index else {
            return Err(self.damage(None, None, "an index in memory was taken for a file"));
        };
        let length = self.sealed.map_or(0, |sealed| sealed.length);
        match FileIndex::load(&self.place, self.id, self.count(), length) {
            Ok(index) => Ok(loaded.get_or_init(|| index)),
            Err(defect) => {
                tracing::info!(segment = self.id, %defect, "index not usable: rebuilding it from the store");
                self.rebuild_index(rebuilt)
            }
        }
    }

    fn rebuild_index<'a>(&self, rebuilt: &'a OnceLock<FileIndex>) -> Result<&'a FileIndex> {
        let store = self.store()?;
        let _guard = self.opening.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(index) = rebuilt.get() {
            return Ok(index);
        }
        let length = self.sealed.map_or(0, |sealed| sealed.length);
        // A Seal may state any length; what the file has decides how many records it can hold.
        let end = self.sealed.map_or(0, |sealed| sealed.next_offset);
        let count = record_count(self.base, end, length.min(store.published()));
        let scanned = scan_index(store, self.base, count, length);
        let bytes = encode_index(&self.place.uuid, self.id, length, &scanned.index, count);
        // What the disk could not read now it may read again.
        let whole = count == self.count() && scanned.unreadable.is_none();
        let kept =
            whole && self.place.writable && write_index_bytes(&self.place, self.id, &bytes, false).is_ok();
        let loaded = if kept { FileIndex::load(&self.place, self.id, count, length).ok() } else { None };
        let index = match loaded {
            Some(index) => index,
            None => FileIndex::in_memory(bytes, scanned.unreadable.is_some()).map_err(|defect| {
                self.damage(None, None, &format!("its index cannot be rebuilt: {defect}"))
            })?,
        };
        Ok(rebuilt.get_or_init(|| index))
    }
}

/// The disk's error at a position that a scan could not read.
fn unreadable_at(store: &Store, position: u64) -> Error {
    let again = Source::read(store, position, &mut [0]).err();
    let error = again.unwrap_or_else(|| std::io::Error::other("a scan could not read these bytes"));
    Error::io("reading", store.path(), Some(position), error)
}

/// How many records lie between two offsets, as far as a store of `length` bytes can hold them: a
/// count from disk never decides alone how much memory is taken.
pub(crate) fn record_count(base: u64, end: u64, length: u64) -> u32 {
    let most = length.saturating_sub(FIRST_FRAME) / crate::frame::HEADER_BYTES;
    u32::try_from(end.saturating_sub(base).min(most)).unwrap_or(u32::MAX)
}
