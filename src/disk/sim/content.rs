//! The bytes of one simulated file, in one of its two versions (cached or durable).
//!
//! It owns pages, holes and the length. It does not know which version it is, what is pending, or
//! that there are other files.
//!
//! Invariants: no page lies wholly at or beyond the end, and bytes of the last page beyond the end
//! are zero, so growing a file never shows what was cut. A page that is present is allocated space; an
//! absent one is a hole and reads as zeros.
//!
//! Why pages behind `Arc`: a disk is forked for each of millions of crash states, and a fork then
//! copies pointers, and a write after it one page.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::chance::Digest;

/// The unit of allocation and of copying, in bytes.
pub(super) const PAGE: u64 = 4096;
const PAGE_BYTES: usize = 4096;

/// `None`: space that is reserved and reads as zeros.
type Page = Option<Arc<[u8; PAGE_BYTES]>>;

#[derive(Debug, Clone, Default)]
pub(super) struct Content {
    length: u64,
    pages: BTreeMap<u64, Page>,
}

impl Content {
    pub(super) const fn length(&self) -> u64 {
        self.length
    }

    /// How many pages take space.
    pub(super) fn allocated(&self) -> u64 {
        self.pages.len() as u64
    }

    /// How many pages below `end`, from the one that holds `start` on, take no space yet.
    pub(super) fn missing(&self, start: u64, end: u64) -> u64 {
        let (first, beyond) = (start / PAGE, end.div_ceil(PAGE));
        if first >= beyond {
            return 0;
        }
        (beyond - first).saturating_sub(self.pages.range(first..beyond).count() as u64)
    }

    /// How many of the bytes `start..end` can be written with `free` pages more.
    pub(super) fn fitting(&self, start: u64, end: u64, free: u64) -> u64 {
        let mut free = free;
        let mut page = start / PAGE;
        while page.saturating_mul(PAGE) < end {
            if !self.pages.contains_key(&page) {
                if free == 0 {
                    return page.saturating_mul(PAGE).saturating_sub(start);
                }
                free -= 1;
            }
            page += 1;
        }
        end - start
    }

    /// Reads what lies before the end; returns how much that was.
    pub(super) fn read(&self, buffer: &mut [u8], position: u64) -> usize {
        let within = usize::try_from(self.length.saturating_sub(position)).unwrap_or(usize::MAX);
        let count = buffer.len().min(within);
        let mut rest = buffer.get_mut(..count).unwrap_or_default();
        let mut at = position;
        while !rest.is_empty() {
            let start = offset_in_page(at);
            let take = rest.len().min(PAGE_BYTES - start);
            let (piece, later) = rest.split_at_mut(take);
            match self.pages.get(&(at / PAGE)) {
                Some(Some(page)) => copy(piece, page.get(start..).unwrap_or_default()),
                Some(None) | None => piece.fill(0),
            }
            rest = later;
            at = at.saturating_add(take as u64);
        }
        count
    }

    /// Writes, growing the file where needed.
    pub(super) fn write(&mut self, position: u64, bytes: &[u8]) {
        let mut rest = bytes;
        let mut at = position;
        while !rest.is_empty() {
            let start = offset_in_page(at);
            let (piece, later) = rest.split_at(rest.len().min(PAGE_BYTES - start));
            let page = self.pages.entry(at / PAGE).or_default();
            let page = page.get_or_insert_with(|| Arc::new([0; PAGE_BYTES]));
            copy(Arc::make_mut(page).get_mut(start..).unwrap_or_default(), piece);
            rest = later;
            at = at.saturating_add(piece.len() as u64);
        }
        self.length = self.length.max(at);
    }

    /// Cuts or extends; extending takes no space.
    pub(super) fn set_length(&mut self, length: u64) {
        if length < self.length {
            drop(self.pages.split_off(&length.div_ceil(PAGE)));
            let tail = offset_in_page(length);
            if tail > 0
                && let Some(Some(page)) = self.pages.get_mut(&(length / PAGE))
            {
                Arc::make_mut(page).get_mut(tail..).unwrap_or_default().fill(0);
            }
        }
        self.length = length;
    }

    /// Grows to at least `length`.
    pub(super) fn extend(&mut self, length: u64) {
        self.length = self.length.max(length);
    }

    /// Takes space for everything below `length`, and grows to at least that.
    pub(super) fn reserve(&mut self, length: u64) {
        for page in 0..length.div_ceil(PAGE) {
            self.pages.entry(page).or_default();
        }
        self.extend(length);
    }

    /// All bytes, or `None` where they don't fit into memory (a sparse file can be of any length).
    pub(super) fn to_vec(&self) -> Option<Vec<u8>> {
        let length = usize::try_from(self.length).ok()?;
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(length).ok()?;
        bytes.resize(length, 0);
        self.read(&mut bytes, 0);
        Some(bytes)
    }

    /// Takes in what a reader sees: a hole, reserved space and written zeros are the same.
    pub(super) fn digest(&self, digest: &mut Digest) {
        digest.word(self.length);
        for (index, page) in &self.pages {
            if let Some(page) = page
                && page.iter().any(|byte| *byte != 0)
            {
                digest.word(*index);
                digest.bytes(page.as_slice());
            }
        }
    }
}

fn offset_in_page(position: u64) -> usize {
    usize::try_from(position % PAGE).unwrap_or(0)
}

/// Copies as much of `from` as fits.
fn copy(into: &mut [u8], from: &[u8]) {
    let count = into.len().min(from.len());
    if let (Some(into), Some(from)) = (into.get_mut(..count), from.get(..count)) {
        into.copy_from_slice(from);
    }
}
