//! The map: a file's bytes as memory, and the one module of the crate with `unsafe` in it.
//!
//! It owns the *published end* of a map, and hands out slices below that end only. It does not
//! know what the bytes mean, nor who writes them.
//!
//! Invariants: a slice never reaches beyond the published end, nor beyond the map; the published
//! end never falls; the map stays until the last slice is gone (slices borrow from it).
//!
//! Why a raw map with a published end, and not one `&[u8]` over the whole file: `write(2)` by this
//! very process changes what lies behind the end, and a `&[u8]` over bytes that change is undefined
//! behaviour even if nobody looks at them. Below the end nothing changes any more: published bytes
//! are never rewritten, and no store is ever shortened below them.
//!
//! What this cannot prevent: another process that truncates a mapped file makes the next touch of
//! the lost pages raise `SIGBUS`, and one that overwrites it changes bytes behind a `&[u8]`. So maps
//! are made only of files that this process holds locked (or that nobody changes any more), and
//! processes without the lock read with pread. A medium error shows as `SIGBUS` too.
#![expect(unsafe_code, reason = "slices over a map: the only `unsafe` of the crate, kept in this one module")]

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use memmap2::MmapRaw;

/// A read-only map of the first bytes of a file, readable below its published end.
#[derive(Debug)]
pub struct Map {
    raw: MmapRaw,
    /// Bytes below this position are in the file and never change again.
    published: AtomicU64,
}

impl Map {
    /// Wraps a map; nothing of it can be read before [`Map::publish`].
    pub(super) fn new(raw: MmapRaw) -> Self {
        Self { raw, published: AtomicU64::new(0) }
    }

    /// Makes the bytes below position `end` readable. Never lowers the published end; an `end`
    /// beyond the map is fine (the map shows what it covers).
    ///
    /// The caller states that, for as long as this map lives, the bytes below `end` are in the file
    /// (below its length) and will not change: nobody writes there and nobody cuts the file there.
    /// Slices that [`Map::bytes`] hands out are sound only while that is true; the compiler cannot
    /// check it.
    #[inline]
    pub(crate) fn publish(&self, end: u64) {
        // Release: whoever sees this end also sees what the publisher did before, the write first.
        self.published.fetch_max(end, Ordering::Release);
    }

    /// The published end, in bytes from the start of the file. It may lie beyond [`Map::len`].
    #[inline]
    #[must_use]
    pub fn published(&self) -> u64 {
        self.published.load(Ordering::Acquire)
    }

    /// How many bytes the map covers, which may be more than the file has.
    #[inline]
    #[must_use]
    pub fn len(&self) -> u64 {
        self.raw.len() as u64
    }

    /// Whether the map covers nothing.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.raw.len() == 0
    }

    /// The bytes at these positions, or `None` where the range ends beyond the published end or
    /// beyond the map, or ends before it begins.
    #[inline]
    #[must_use]
    pub fn bytes(&self, range: Range<u64>) -> Option<&[u8]> {
        if range.end > self.published().min(self.len()) {
            return None;
        }
        let length = usize::try_from(range.end.checked_sub(range.start)?).ok()?;
        let start = usize::try_from(range.start).ok()?;
        // SAFETY: start + length == range.end <= self.len(), so the slice lies within this one
        // mapping, which is live for as long as `self` is borrowed and no longer than isize::MAX
        // (mmap gives no more). Any byte is a valid u8. The publisher stated that what lies below
        // the published end is in the file and does not change while the map lives; the pages are
        // mapped read-only, so nobody writes through this map either.
        Some(unsafe { std::slice::from_raw_parts(self.raw.as_ptr().add(start), length) })
    }

    /// Says that the map will be read in order: the kernel reads far ahead. Best effort.
    pub fn advise_sequential(&self) {
        #[cfg(unix)]
        let _ = self.raw.advise(memmap2::Advice::Sequential);
    }

    /// Says that the map will be read here and there: the kernel reads nothing ahead. Best effort.
    pub fn advise_random(&self) {
        #[cfg(unix)]
        let _ = self.raw.advise(memmap2::Advice::Random);
    }

    /// Says that these positions will be read soon: the kernel begins to read them in. Best effort;
    /// what lies beyond the map is left out.
    pub fn advise_will_need(&self, range: Range<u64>) {
        #[cfg(unix)]
        {
            let end = range.end.min(self.len());
            let start = usize::try_from(range.start).unwrap_or(usize::MAX);
            let length = usize::try_from(end.saturating_sub(range.start)).unwrap_or(0);
            if length > 0 {
                let _ = self.raw.advise_range(memmap2::Advice::WillNeed, start, length);
            }
        }
        #[cfg(not(unix))]
        let _ = range;
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::ops::Range;

    use crate::disk::{Disk, OpenMode, OsDisk, write_all_at};

    #[test]
    fn a_map_shows_what_is_published_and_no_more() {
        let dir = tempfile::tempdir().unwrap();
        let file = OsDisk.open(&dir.path().join("file"), OpenMode::CreateNew).unwrap();
        write_all_at(&*file, b"written before", 0).unwrap();
        assert!(file.map(0).unwrap().is_none());

        // Far beyond the end of the file.
        let map = file.map(1 << 20).unwrap().unwrap();
        assert_eq!((map.len(), map.is_empty(), map.published()), (1 << 20, false, 0));
        assert_eq!(map.bytes(0..0), Some(&b""[..]));
        assert_eq!(map.bytes(0..1), None);
        map.advise_sequential();
        map.advise_random();
        map.advise_will_need(0..u64::MAX);
        map.advise_will_need(Range { start: u64::MAX, end: 3 });

        map.publish(7);
        map.publish(3);
        assert_eq!(map.published(), 7);
        assert_eq!(map.bytes(0..7), Some(&b"written"[..]));
        assert_eq!(map.bytes(2..4), Some(&b"it"[..]));
        assert_eq!(map.bytes(7..7), Some(&b""[..]));
        assert_eq!(map.bytes(0..8), None);
        assert_eq!(map.bytes(8..8), None);
        assert_eq!(map.bytes(Range { start: 5, end: 4 }), None);
        assert_eq!(map.bytes(Range { start: u64::MAX, end: 7 }), None);

        // What is written later shows, once published, and not beyond the map.
        write_all_at(&*file, &[5; 4096], (1 << 20) - 2048).unwrap();
        map.publish((1 << 20) + 2048);
        assert_eq!(map.bytes((1 << 20) - 2..1 << 20), Some(&[5, 5][..]));
        assert_eq!(map.bytes((1 << 20) - 2..(1 << 20) + 1), None);
        assert_eq!(map.bytes(u64::MAX..u64::MAX), None);

        // The map outlives its file's handle, and its name.
        drop(file);
        OsDisk.remove(&dir.path().join("file")).unwrap();
        assert_eq!(map.bytes(0..7), Some(&b"written"[..]));
    }
}
