//! Index files: opened and checked, rebuilt from the store, written.
//!
//! It owns the way from a store's frames to an index and from an index to a file. It does not decide when one is
//! wanted, or what a record is that none has. Invariants: a file is used only where all of it is what was
//! written for this segment and this end of it; it is written whole, under a temporary name; where the disk could not read
//! part of the store, that is said ([`Scanned::unreadable`]), for then a record that was not found may be there.

use std::path::Path;
use std::sync::Arc;

use super::Place;
use crate::disk::{self, Disk, DiskFile, Map, OpenMode};
use crate::error::{Error, Result};
use crate::frame::Seed;
use crate::index::{self, INDEX_HEADER_BYTES, IndexHeader, IndexIdentity, MemoryIndex};
use crate::names;
use crate::scan::{self, Extent};
use crate::store::{FIRST_FRAME, Store};

pub(super) struct FileIndex {
    header: IndexHeader,
    body: IndexBody,
    /// It was made by a scan of a store of which the disk could not read all.
    pub(super) partial: bool,
}

enum IndexBody {
    Map(Map),
    File(Arc<dyn DiskFile>),
    Memory(Vec<u8>),
}

impl FileIndex {
    /// Opens an index file; the error says why it cannot be used.
    pub(super) fn load(place: &Place, id: u64, count: u32, store_length: u64) -> Result<FileIndex, String> {
        let (header, file) =
            open_index(place.disk.as_ref(), &place.directory, &place.uuid, id, count, store_length)?;
        if place.use_maps
            && let Some(map) = file.map(header.file_bytes()).map_err(|error| error.to_string())?
        {
            // An index file never changes: a new one gets a new inode by rename.
            map.publish(header.file_bytes());
            return Ok(FileIndex { header, body: IndexBody::Map(map), partial: false });
        }
        Ok(FileIndex { header, body: IndexBody::File(file), partial: false })
    }

    pub(super) fn in_memory(bytes: Vec<u8>, partial: bool) -> Result<FileIndex, String> {
        let header = IndexHeader::parse(&bytes).map_err(|defect| defect.to_string())?;
        Ok(FileIndex { header, body: IndexBody::Memory(bytes), partial })
    }

    #[inline]
    pub(super) fn lookup(&self, ordinal: u32) -> std::io::Result<Option<u64>> {
        match &self.body {
            IndexBody::Map(map) => {
                let body = map.bytes(INDEX_HEADER_BYTES as u64..self.header.file_bytes());
                Ok(body.and_then(|body| self.header.lookup_in(body, ordinal)))
            }
            IndexBody::File(file) => self.header.lookup_with(ordinal, |buffer, position| {
                disk::read_exact_at(file.as_ref(), buffer, position)
            }),
            IndexBody::Memory(bytes) => {
                Ok(bytes.get(INDEX_HEADER_BYTES..).and_then(|body| self.header.lookup_in(body, ordinal)))
            }
        }
    }
}

/// Opens an index file and checks all of it: header, what the manifest says, body.
pub(super) fn open_index(
    disk: &dyn Disk,
    directory: &Path,
    uuid: &[u8; 16],
    id: u64,
    count: u32,
    store_length: u64,
) -> Result<(IndexHeader, Arc<dyn DiskFile>), String> {
    let path = directory.join(names::index(id));
    let text = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => "it is missing".to_string(),
        _ => error.to_string(),
    };
    let file = disk::retry_interrupted(|| disk.open(&path, OpenMode::Read)).map_err(text)?;
    let length = disk::retry_interrupted(|| file.length()).map_err(text)?;
    let mut head = vec![0; INDEX_HEADER_BYTES];
    disk::read_exact_at(file.as_ref(), &mut head, 0).map_err(|_| "it is cut short".to_string())?;
    let header = IndexHeader::parse(&head).map_err(|defect| defect.to_string())?;
    let seed = Seed::of_segment(uuid, id).value();
    header.matches(id, seed, count, store_length).map_err(|defect| defect.to_string())?;
    if header.file_bytes() != length {
        return Err(format!("it has {length} bytes instead of {}", header.file_bytes()));
    }
    let mut check = header.check_body();
    let mut buffer = vec![0; 64 << 10];
    let mut position = INDEX_HEADER_BYTES as u64;
    while position < length {
        let take = usize::try_from(length - position).unwrap_or(usize::MAX).min(buffer.len());
        let piece = buffer.get_mut(..take).unwrap_or_default();
        disk::read_exact_at(file.as_ref(), piece, position).map_err(text)?;
        check.update(piece);
        position += take as u64;
    }
    check.finish().map_err(|defect| defect.to_string())?;
    Ok((header, file))
}

/// Loads the index that a clean close wrote for the active segment into memory; rebuilds it from
/// the store where it cannot be used.
pub(crate) fn reopen_active_index(
    place: &Place,
    store: &Store,
    base: u64,
    count: u32,
    length: u64,
) -> MemoryIndex {
    let loaded = FileIndex::load(place, store.id(), count, length).and_then(|file| {
        let memory = MemoryIndex::new();
        for ordinal in 0..count {
            let position = file.lookup(ordinal).map_err(|error| error.to_string())?;
            let _ = memory.push(position.unwrap_or(index::NO_FRAME)); // An index had it: it fits.
        }
        Ok(memory)
    });
    loaded.unwrap_or_else(|defect| {
        tracing::info!(segment = store.id(), %defect, "index not usable: rebuilding it from the store");
        scan_index(store, base, count, length).index
    })
}

/// What a scan found of a store's records.
pub(crate) struct Scanned {
    /// Where they are: [`index::NO_FRAME`] where none is intact.
    pub(crate) index: MemoryIndex,
    /// The first byte that the disk could not read, if there is one.
    pub(crate) unreadable: Option<u64>,
}

/// Scans a store for its first `count` records.
pub(crate) fn scan_index(store: &Store, base: u64, count: u32, length: u64) -> Scanned {
    let extent = Extent {
        seed: store.seed(),
        start: FIRST_FRAME,
        end: length,
        base: Some(base),
        ordinal_end: Some(count),
    };
    let index = MemoryIndex::new();
    let leave_out_up_to = |ordinal: u32| {
        for _ in index.len()..ordinal {
            let _ = index.push(index::NO_FRAME);
        }
    };
    let outcome = scan::scan(store, &extent, |frame| {
        let ordinal = frame.header.ordinal;
        // Ordinals ascend; a gap's entries say "no frame".
        if frame.header.kind.is_record() && (index.len()..count).contains(&ordinal) {
            leave_out_up_to(ordinal);
            let _ = index.push(frame.position); // Positions in a store always fit.
        }
    });
    leave_out_up_to(count);
    Scanned { index, unreadable: outcome.unreadable.first().map(|range| range.start) }
}

pub(crate) fn encode_index(
    uuid: &[u8; 16],
    id: u64,
    store_length: u64,
    index: &MemoryIndex,
    count: u32,
) -> Vec<u8> {
    let identity = IndexIdentity { segment_id: id, seed: Seed::of_segment(uuid, id).value() };
    index::encode(&identity, store_length, index.positions(count), count)
}

/// Writes a segment's index file whole: temporary name, fsync, rename.
pub(crate) fn write_index(
    place: &Place,
    id: u64,
    store_length: u64,
    index: &MemoryIndex,
    count: u32,
) -> Result<()> {
    let bytes = encode_index(&place.uuid, id, store_length, index, count);
    write_index_bytes(place, id, &bytes, true)
}

pub(super) fn write_index_bytes(place: &Place, id: u64, bytes: &[u8], durable: bool) -> Result<()> {
    let disk = place.disk.as_ref();
    let temporary = place.path(&names::index_temporary(id));
    let path = place.path(&names::index(id));
    let written = (|| {
        disk::remove_if_present(disk, &temporary)?;
        let file = disk::retry_interrupted(|| disk.open(&temporary, OpenMode::CreateNew))?;
        disk::write_all_at(file.as_ref(), bytes, 0)?;
        if durable {
            disk::retry_interrupted(|| file.sync())?;
        }
        disk::retry_interrupted(|| disk.rename(&temporary, &path))
    })();
    written.map_err(|error| {
        let _ = disk.remove(&temporary);
        Error::io_or_no_space("writing", &path, bytes.len() as u64, error)
    })
}
