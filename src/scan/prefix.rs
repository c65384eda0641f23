//! Checksums of a file's prefixes, so that a payload of any length is verified at a cost that does not
//! depend on it.
//!
//! It owns where the prefixes lie and how two of them give the checksum of what is between. It does not
//! know frames. Invariant: at most [`MOST_PREFIXES`] are held, whatever the file's length.
//!
//! Why: bytes crafted to look like many long frames would otherwise be hashed once for each of them.

use std::ops::Range;

use super::window::Window;
use super::{MOST_PREFIXES, PROBE_BYTES, Source};
use crate::frame;

/// The checksum of `length` zeros behind bytes whose checksum is `checksum`, less the zeros' own:
/// what a prefix contributes to the checksum of a longer one.
fn shifted(checksum: u32, length: u64) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial_len(checksum, 0);
    hasher.combine(&crc32fast::Hasher::new_with_initial_len(0, length));
    hasher.finalize()
}

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
        length: u64,
    ) -> Option<u32> {
        let from = self.until(window, probe, start)?;
        let until = self.until(window, probe, start.checked_add(length)?)?;
        Some(until ^ shifted(from, length))
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
