//! The names of files in a log directory.
//!
//! It owns how an id becomes a name and back. Invariant: there is one spelling of each name; any
//! other is not Stonelog's and is left alone.

/// The highest segment id: a name or an edit with a higher one is not Stonelog's.
pub const MAX_ID: u64 = 1 << 62;
/// The highest offset that a file may state, and the furthest that a log ends: none begins beyond 2^62, and nobody
/// appends the difference. A higher one is not Stonelog's, and no sum of an offset and a number of records overflows.
pub const LARGEST_END: u64 = 3 << 61;
/// The advisory lock's file name.
pub const LOCK: &str = "LOCK";
/// Where whole files go that recovery took out.
pub const QUARANTINE: &str = "quarantine";
/// Where a repair keeps what it replaced.
pub const REPAIR: &str = "repair";
/// How the name of an index in the making ends.
pub(crate) const INDEX_TEMPORARY_SUFFIX: &str = ".index.next";

/// The file name of a segment's store.
pub fn store(id: u64) -> String {
    format!("{id:016x}.store")
}

/// The file name of a segment's index.
pub fn index(id: u64) -> String {
    format!("{id:016x}.index")
}

/// The temporary name of a segment's index in the making.
pub(crate) fn index_temporary(id: u64) -> String {
    format!("{id:016x}{INDEX_TEMPORARY_SUFFIX}")
}

/// The segment id in a store's file name.
pub fn id_of_store(name: &str) -> Option<u64> {
    id_in(name, ".store")
}

/// The segment id in an index's file name.
pub fn id_of_index(name: &str) -> Option<u64> {
    id_in(name, ".index")
}

/// The segment id in the name of an index in the making.
pub(crate) fn id_of_unfinished_index(name: &str) -> Option<u64> {
    id_in(name, INDEX_TEMPORARY_SUFFIX)
}

fn id_in(name: &str, suffix: &str) -> Option<u64> {
    let digits = name.strip_suffix(suffix)?;
    let id = u64::from_str_radix(digits, 16).ok()?;
    (id <= MAX_ID
        && digits.len() == 16
        && digits.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)))
    .then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_one_spelling_of_a_name_counts() {
        assert_eq!(id_of_store(&store(12)), Some(12));
        assert_eq!(id_of_index(&index(12)), Some(12));
        for name in ["c.store", "000000000000000C.store", "+00000000000000c.store", "000000000000000c.index"]
        {
            assert_eq!(id_of_store(name), None, "{name}");
        }
    }
}
