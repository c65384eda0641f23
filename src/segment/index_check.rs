//! Checking an index file against the frames of its store, as a scan meets them.
//!
//! It owns the comparison, record by record, and what is held of the file meanwhile. It does not scan:
//! whoever does tells it of each record ([`IndexCheck::record`]), by ascending ordinals. Invariants: memory is
//! bounded by two pages, whatever the count of records; each page of the file is read once more than its
//! checksum needed; a file that is wrong costs no reads after the first thing that is.
//!
//! Why not the positions of all records first, and then the comparison: a segment may have a billion records.

use std::path::Path;
use std::sync::Arc;

use super::open_index;
use crate::disk::{self, Disk, DiskFile};
use crate::index::IndexHeader;

/// How much of an index file is held at once, twice.
const PAGE_BYTES: usize = 32 << 10;

/// An index file that is being compared with a scan.
pub(crate) struct IndexCheck {
    state: Result<Open, String>,
}

struct Open {
    header: IndexHeader,
    file: Arc<dyn DiskFile>,
    /// The entries of 4 bytes and those of 2 are each read in their own order.
    wide: Page,
    narrow: Page,
}

impl IndexCheck {
    /// Opens the index of segment `id`, and checks all that can be checked without the store.
    pub(crate) fn begin(
        disk: &dyn Disk,
        directory: &Path,
        uuid: &[u8; 16],
        id: u64,
        count: u32,
        store_length: u64,
    ) -> IndexCheck {
        let opened = open_index(disk, directory, uuid, id, count, store_length);
        let state = opened.map(|(header, file)| Open {
            header,
            file,
            wide: Page::default(),
            narrow: Page::default(),
        });
        IndexCheck { state }
    }

    /// Compares the entry of record `ordinal`, whose frame was found at `position`.
    #[inline]
    pub(crate) fn record(&mut self, ordinal: u32, position: u64) {
        let Ok(Open { header, file, wide, narrow }) = &mut self.state else { return };
        let end = header.file_bytes();
        let found = header.lookup_with(ordinal, |buffer, at| {
            let page = if buffer.len() == size_of::<u16>() { &mut *narrow } else { &mut *wide };
            page.read(file.as_ref(), end, buffer, at)
        });
        let defect = match found {
            Ok(found) if found == Some(position) => return,
            Ok(_) => format!("it does not lead to record {ordinal} of the segment"),
            Err(error) => error.to_string(),
        };
        self.state = Err(defect);
    }

    /// What is wrong with the index, if anything is.
    pub(crate) fn defect(self) -> Option<String> {
        self.state.err()
    }
}

/// A piece of a file in memory.
#[derive(Default)]
struct Page {
    start: u64,
    bytes: Vec<u8>,
}

impl Page {
    #[inline]
    fn read(
        &mut self,
        file: &dyn DiskFile,
        end: u64,
        buffer: &mut [u8],
        position: u64,
    ) -> std::io::Result<()> {
        if !self.copy_to(buffer, position) {
            let length = end.saturating_sub(position).min(PAGE_BYTES as u64);
            self.bytes.resize(usize::try_from(length).unwrap_or(PAGE_BYTES), 0);
            self.start = position;
            if let Err(error) = disk::read_exact_at(file, &mut self.bytes, position) {
                self.bytes.clear();
                return Err(error);
            }
            if !self.copy_to(buffer, position) {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(())
    }

    #[inline]
    fn copy_to(&self, buffer: &mut [u8], position: u64) -> bool {
        let from = position.checked_sub(self.start).and_then(|from| usize::try_from(from).ok());
        let held = from.and_then(|from| self.bytes.get(from..)?.get(..buffer.len()));
        held.is_some_and(|held| {
            buffer.copy_from_slice(held);
            true
        })
    }
}
