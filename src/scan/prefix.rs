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

/// The checksum of `length` zeros behind bytes whose checksum is `checksum`, less the zeros' own:
/// what a prefix contributes to the checksum of a longer one.
pub(super) fn shifted(checksum: u32, length: u64) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial_len(checksum, 0);
    hasher.combine(&crc32fast::Hasher::new_with_initial_len(0, length));
    hasher.finalize()
}

/// Checksums of the file's prefixes at every `stride` bytes.
pub(super) struct Prefixes {
    pub(super) stride: u64,
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
                return Some(Prefixes { stride, checksums });
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
