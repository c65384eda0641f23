//! What a log tells about itself: segments and counters. Plain data.

use std::sync::atomic::Ordering;

use crate::commit::Counters;
use crate::table::Table;

/// One segment; see [`Log::segments`](crate::Log::segments).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentInfo {
    /// Its id, which names its files.
    pub id: u64,
    /// The offset of its first record.
    pub base: u64,
    /// The offset behind its last record.
    pub end: u64,
    /// Whether it takes no more records.
    pub sealed: bool,
    /// The position behind its last frame in the store: bytes on disk, reserved space aside.
    pub length: u64,
}

impl SegmentInfo {
    pub(crate) fn list(table: &Table, next_offset: u64) -> Vec<SegmentInfo> {
        let ends = table.segments.iter().skip(1).map(|segment| segment.base).chain([next_offset]);
        let described = table.segments.iter().zip(ends).map(|(segment, end)| SegmentInfo {
            id: segment.id,
            base: segment.base,
            end: segment.sealed.map_or(end, |sealed| sealed.next_offset),
            sealed: segment.sealed.is_some(),
            length: match segment.sealed {
                Some(sealed) => sealed.length,
                None => segment.store().map_or(0, |store| store.published()),
            },
        });
        described.collect()
    }
}

/// Counters since opening; see [`Log::stats`](crate::Log::stats).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Stats {
    /// Records accepted.
    pub records: u64,
    /// Bytes of their payloads.
    pub payload_bytes: u64,
    /// Calls that wrote to stores.
    pub writes: u64,
    /// Bytes written to stores, headers and padding included.
    pub written_bytes: u64,
    /// Fsyncs of stores.
    pub fsyncs: u64,
    /// Commits: each made one group of records durable.
    pub commits: u64,
}

impl Stats {
    pub(crate) fn of(counters: &Counters, records: u64, payload_bytes: u64) -> Stats {
        Stats {
            records,
            payload_bytes,
            writes: counters.writes.load(Ordering::Relaxed),
            written_bytes: counters.written_bytes.load(Ordering::Relaxed),
            fsyncs: counters.fsyncs.load(Ordering::Relaxed),
            commits: counters.commits.load(Ordering::Relaxed),
        }
    }
}
