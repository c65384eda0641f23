//! Chunks: what grows under readers, without a lock and without moving.
//!
//! It owns how long each chunk is and how to find a record's. It does not know what is in them. Invariant: a
//! chunk, once there, stays where it is.

use std::sync::OnceLock;

/// Chunks of one length: four of them double what there is, so that each is at most a quarter of it.
const CHUNKS_OF_A_LENGTH_BITS: u32 = 2;
/// The first chunks are for `1 << FIRST_CHUNK_BITS` records.
const FIRST_CHUNK_BITS: u32 = 8;
/// Enough chunks for every record that a `u32` can number.
pub(super) const CHUNKS: usize = 89;

/// Where a record is: which chunk, and which record of the chunk.
#[inline]
pub(super) fn place_of(record: u32) -> (usize, usize) {
    // As if there were four chunks before the first: then a chunk's number is in the upper bits of this one.
    let number = u64::from(record) + (1 << (FIRST_CHUNK_BITS + CHUNKS_OF_A_LENGTH_BITS));
    let bits = number.ilog2() - CHUNKS_OF_A_LENGTH_BITS;
    // Its upper three bits, less the highest, which is always set; and four chunks for each doubling before.
    let doublings = u64::from(bits - FIRST_CHUNK_BITS);
    let chunk = (doublings << CHUNKS_OF_A_LENGTH_BITS) + (number >> bits) - (1 << CHUNKS_OF_A_LENGTH_BITS);
    let place = number & ((1 << bits) - 1);
    // Both are below 2^32, whatever the record.
    (usize::try_from(chunk).unwrap_or(usize::MAX), usize::try_from(place).unwrap_or(usize::MAX))
}

/// How many records a chunk is for.
pub(super) fn records_of(chunk: usize) -> usize {
    1 << FIRST_CHUNK_BITS << (chunk >> CHUNKS_OF_A_LENGTH_BITS)
}

/// Chunks of `T`s, each of which is for `RECORDS` records. Memory is for at most a quarter more records than
/// there are, and 256.
#[derive(Debug)]
pub(super) struct Chunks<T, const RECORDS: usize>(Box<[OnceLock<Box<[T]>>]>);

impl<T: Default, const RECORDS: usize> Chunks<T, RECORDS> {
    pub(super) fn new() -> Self {
        Self((0..CHUNKS).map(|_| OnceLock::new()).collect())
    }

    /// The `T` for a record, and which of its records this one is; `None` where its chunk is not there.
    #[inline]
    pub(super) fn get(&self, record: u32) -> Option<(&T, usize)> {
        let (chunk, place) = place_of(record);
        Some((self.0.get(chunk)?.get()?.get(place / RECORDS)?, place % RECORDS))
    }

    /// The same, and the chunk is there from now on. For one writer at a time.
    #[inline]
    pub(super) fn get_or_grow(&self, record: u32) -> Option<(&T, usize)> {
        let (chunk, place) = place_of(record);
        let entries = self.0.get(chunk)?.get_or_init(|| new_chunk(records_of(chunk) / RECORDS));
        Some((entries.get(place / RECORDS)?, place % RECORDS))
    }

    /// For how many records there is memory.
    #[cfg(test)]
    pub(super) fn records(&self) -> usize {
        self.0.iter().filter_map(OnceLock::get).map(|chunk| chunk.len() * RECORDS).sum()
    }
}

#[cold]
fn new_chunk<T: Default>(length: usize) -> Box<[T]> {
    (0..length).map(|_| T::default()).collect()
}
