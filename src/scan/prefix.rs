//! Checksums of a file's prefixes, so that a payload of any length is verified at a cost that does not
//! depend on it.
//!
//! It owns where the prefixes lie and how two of them give the checksum of what is between. It does not
//! know frames. Invariant: at most [`MOST_PREFIXES`] are held, whatever the file's length.
//!
//! Why: bytes crafted to look like many long frames would otherwise be hashed once for each of them.

use super::window::Window;
use super::{MOST_PREFIXES, PROBE_BYTES, Source};
use crate::frame;

/// What a prefix contributes to the checksum of a longer one, by how many bytes longer it is.
///
/// One table for each power of two, of what each byte of a checksum becomes that many bytes later. Why not
/// crc32fast's `combine`: it multiplies polynomials bit by bit, and took nine tenths of the time that crafted
/// bytes can cost.
pub(super) struct Shifts {
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
    pub(super) fn shifted(&self, checksum: u32, length: u32) -> u32 {
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

/// Checksums of the file's prefixes at every `stride` bytes.
pub(super) struct Prefixes {
    pub(super) stride: u64,
    pub(super) shifts: Shifts,
    checksums: Vec<u32>,
}

impl Prefixes {
    /// How far apart they are in a file of `end` bytes: 8 bytes up to 32 MiB, more where there would
    /// be too many of them.
    pub(super) fn stride(end: u64) -> u64 {
        end.div_ceil(MOST_PREFIXES).next_power_of_two().max(frame::ALIGNMENT)
    }

    pub(super) fn build<S: Source + ?Sized>(probe: &mut Window<'_, S>) -> Option<Prefixes> {
        let stride = Prefixes::stride(probe.end);
        let mut checksums = Vec::with_capacity(usize::try_from(probe.end / stride).ok()?.checked_add(1)?);
        let mut checksum = 0;
        let mut position = 0;
        loop {
            checksums.push(checksum);
            if position + stride > probe.end {
                return Some(Prefixes { stride, shifts: Shifts::new(), checksums });
            }
            // Each piece is read once: the probe's bytes are as many whole strides.
            if !probe.holds_all(position, stride) {
                let bytes = (PROBE_BYTES as u64).min(probe.end - position);
                probe.bytes(position, usize::try_from(bytes).ok()?)?;
            }
            checksum = probe.checksum_from(checksum, position, stride)?;
            position += stride;
        }
    }

    /// The checksum of the file's first `end` bytes, from the nearest prefix and the bytes behind it.
    pub(super) fn until<'a, S: Source + ?Sized>(
        &self,
        window: &mut Window<'a, S>,
        probe: &mut Window<'a, S>,
        end: u64,
    ) -> Option<u32> {
        let index = usize::try_from(end / self.stride).ok()?;
        let from = index as u64 * self.stride;
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
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, cases: 64, ..ProptestConfig::default() })]
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
