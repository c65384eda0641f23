//! Checking an index file against the frames of its store, as a scan meets them.
//!
//! It owns the comparison, record by record, and what is held of the file meanwhile. It does not scan:
//! whoever does tells it of each record ([`IndexCheck::record`]), by ascending ordinals. Invariants: memory is
//! bounded by one piece of the index, whatever the count of records; the file is read once more than its
//! checksum needs; a file that is wrong costs no reads after the first thing that is.
//!
//! Why not the positions of all records first, and then the comparison: a segment may have a billion records.

use std::path::Path;
use std::sync::Arc;

use super::open_index;
use crate::disk::{self, Disk, DiskFile};
use crate::index::{IndexHeader, NO_FRAME};

/// How many records are compared with one piece of the index: a multiple of 64.
const PIECE_RECORDS: u32 = 1024;

/// An index file that is being compared with a scan.
pub(crate) struct IndexCheck {
    state: Result<Open, String>,
}

struct Open {
    header: IndexHeader,
    file: Arc<dyn DiskFile>,
    /// The ordinal of the first of `positions`.
    start: u32,
    positions: Vec<u64>,
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
        let state = opened.map(|(header, file)| Open { header, file, start: 0, positions: Vec::new() });
        IndexCheck { state }
    }

    /// Compares the entry of record `ordinal`, whose frame was found at `position`.
    #[inline]
    pub(crate) fn record(&mut self, ordinal: u32, position: u64) {
        let Ok(open) = &mut self.state else { return };
        let place = ordinal.wrapping_sub(open.start) as usize;
        let found = match open.positions.get(place) {
            Some(found) => Ok(*found),
            None => open.load(ordinal),
        };
        let defect = match found {
            Ok(found) if found == position => return,
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

impl Open {
    /// Reads the piece that has record `ordinal`; the position that it gives.
    #[cold]
    fn load(&mut self, ordinal: u32) -> std::io::Result<u64> {
        self.start = ordinal - ordinal % PIECE_RECORDS;
        let file = self.file.as_ref();
        self.header.positions_with(self.start, PIECE_RECORDS, &mut self.positions, |buffer, position| {
            disk::read_exact_at(file, buffer, position)
        })?;
        let place = ordinal.saturating_sub(self.start) as usize;
        Ok(self.positions.get(place).copied().unwrap_or(NO_FRAME))
    }
}
