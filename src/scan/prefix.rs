//! Checksums of a file's prefixes, so that a payload of any length is verified at a cost that does not
//! depend on it.
//!
//! It owns where the prefixes lie and how two of them give the checksum of what is between. It does not
//! know frames. Invariant: at most [`MOST_PREFIXES`] are held, whatever the file's length.
//!
//! Why: bytes crafted to look like many long frames would otherwise be hashed once for each of them.

use std::ops::Range;
use std::sync::LazyLock;

use super::window::Window;
use super::{MOST_PREFIXES, PROBE_BYTES, Source};
use crate::frame;

/// What a prefix contributes to the checksum of a longer one, by how many bytes longer it is.
///
/// One table for each power of two, of what each byte of a checksum becomes that many bytes later. Why not
/// crc32fast's `combine`: it multiplies polynomials bit by bit, and took nine tenths of the time that crafted
/// bytes can cost.
struct Shifts {
    powers: Vec<[[u32; 256]; 4]>,
}

impl Shifts {
    /// For payloads of any length.
    fn new() -> Shifts {
        let powers = 0..u32::BITS - frame::MAX_PAYLOAD_BYTES.leading_zeros();
        Shifts { powers: powers.map(|power| Shifts::table(1 << power)).collect() }
    }

    fn table(length: u64) -> [[u32; 256]; 4] {
        let zeros = crc32fast::Hasher::new_with_initial_len(0, length);
        let mut table = [[0; 256]; 4];
        for (place, entries) in (0u32..).zip(&mut table) {
            for (byte, entry) in (0u32..).zip(entries) {
                let mut hasher = crc32fast::Hasher::new_with_initial(byte << (8 * place));
                hasher.combine(&zeros);
                *entry = hasher.finalize();
            }
        }
        table
    }

    /// What bytes of this checksum contribute once `length` more have followed.
    fn shifted(&self, checksum: u32, length: u32) -> u32 {
        let mut checksum = checksum;
        for (power, [a, b, c, d]) in self.powers.iter().enumerate() {
            if (length >> power) & 1 == 1 {
                let entry = |table: &[u32; 256], byte: u8| table.get(usize::from(byte)).copied().unwrap_or(0);
                let bytes = checksum.to_le_bytes();
                checksum = entry(a, bytes[0]) ^ entry(b, bytes[1]) ^ entry(c, bytes[2]) ^ entry(d, bytes[3]);
            }
        }
        checksum
    }
}

/// Made once: they are the same for every file.
static SHIFTS: LazyLock<Shifts> = LazyLock::new(Shifts::new);

/// Checksums of the prefixes of a piece of a file, at every `stride` bytes.
pub(crate) struct Prefixes {
    range: Range<u64>,
    pub(crate) stride: u64,
    checksums: Vec<u32>,
}

impl Prefixes {
    /// How far apart they are in a piece of `length` bytes: 8 bytes up to 32 MiB, more where there would
    /// be too many of them.
    fn stride(length: u64) -> u64 {
        length.div_ceil(MOST_PREFIXES).next_power_of_two().max(frame::ALIGNMENT)
    }

    /// Hashes `range`, once.
    pub(crate) fn build<S: Source + ?Sized>(
        probe: &mut Window<'_, S>,
        range: Range<u64>,
    ) -> Option<Prefixes> {
        let stride = Prefixes::stride(range.end.saturating_sub(range.start));
        let count = range.end.saturating_sub(range.start) / stride;
        let mut checksums = Vec::with_capacity(usize::try_from(count).ok()?.checked_add(1)?);
        let mut checksum = 0;
        let mut position = range.start;
        loop {
            checksums.push(checksum);
            if position + stride > range.end {
                return Some(Prefixes { range, stride, checksums });
            }
            // Each piece is read once: the probe's bytes are as many whole strides.
            if !probe.holds_all(position, stride) {
                let bytes = (PROBE_BYTES as u64).min(range.end - position);
                probe.bytes(position, usize::try_from(bytes).ok()?)?;
            }
            checksum = probe.checksum_from(checksum, position, stride)?;
            position += stride;
        }
    }

    /// The checksum of the `length` bytes from `start` on, which lie within the range.
    pub(crate) fn between<'a, S: Source + ?Sized>(
        &self,
        window: &mut Window<'a, S>,
        probe: &mut Window<'a, S>,
        start: u64,
        length: u32,
    ) -> Option<u32> {
        let from = self.until(window, probe, start)?;
        let until = self.until(window, probe, start.checked_add(u64::from(length))?)?;
        Some(until ^ SHIFTS.shifted(from, length))
    }

    /// How many bytes are hashed to look at the range from `start` to `end`.
    pub(crate) fn cost(&self, start: u64, end: u64) -> u64 {
        let behind = |position: u64| position.saturating_sub(self.range.start) % self.stride;
        behind(start) + behind(end)
    }

    /// The checksum from the range's start to `end`, from the nearest prefix and the bytes behind it.
    fn until<'a, S: Source + ?Sized>(
        &self,
        window: &mut Window<'a, S>,
        probe: &mut Window<'a, S>,
        end: u64,
    ) -> Option<u32> {
        let index = usize::try_from(end.checked_sub(self.range.start)? / self.stride).ok()?;
        let from = self.range.start + index as u64 * self.stride;
        let prefix = *self.checksums.get(index)?;
        if from == end {
            return Some(prefix);
        }
        let window = if window.holds_all(from, end - from) { window } else { probe };
        window.checksum_from(prefix, from, end - from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::property;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(property::config(64, None))]
        #[test]
        fn two_prefixes_give_the_checksum_of_what_is_between(
            bytes in prop::collection::vec(any::<u8>(), 0..5000), cut in any::<prop::sample::Index>(),
        ) {
            let cut = cut.index(bytes.len() + 1);
            let (first, second) = bytes.split_at(cut);
            let between = crc32fast::hash(&bytes)
                ^ Shifts::new().shifted(crc32fast::hash(first), u32::try_from(second.len()).unwrap());
            prop_assert_eq!(between, crc32fast::hash(second));
        }

        #[test]
        fn a_shift_is_what_crc32fast_combines(checksum in any::<u32>(), length in 0..=frame::MAX_PAYLOAD_BYTES) {
            let mut hasher = crc32fast::Hasher::new_with_initial(checksum);
            hasher.combine(&crc32fast::Hasher::new_with_initial_len(0, u64::from(length)));
            prop_assert_eq!(Shifts::new().shifted(checksum, length), hasher.finalize());
        }
    }
}
