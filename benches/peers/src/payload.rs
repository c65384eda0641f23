//! What is appended, and how a wrong, missing or misplaced record shows.
//!
//! Owns the payloads and the account of which must be there. Every payload carries its number in its first 8 bytes:
//! the thread that appended it in the upper 24 bits, and how many that thread had appended before. The rest is
//! pseudo-random, prepared once in a ring of slots, so that making a payload costs one store of 8 bytes and no
//! copy. A thread appends one after the other, so that its records must be found in order; threads may interleave.

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};

/// The bits of a number that count within one thread.
const COUNT_BITS: u32 = 40;

/// The bytes of a number.
pub const NUMBER_BYTES: usize = 8;

/// The number of a thread's n-th record.
pub fn number(thread: usize, nth: u64) -> u64 {
    ((thread as u64) << COUNT_BITS) | nth
}

/// The number that a payload carries.
#[inline]
pub fn number_of(payload: &[u8]) -> Option<u64> {
    payload.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
}

/// Payloads of one size.
pub struct Payloads {
    size: usize,
    slots: usize,
    ring: Vec<u8>,
}

impl Payloads {
    /// Payloads of `size` bytes, at least 8.
    pub fn new(size: usize) -> Payloads {
        // 128 KiB and more: a peer that compresses finds nothing that repeats within LZ4's reach of 64 KiB. Small
        // enough for a second-level cache, so that memory does not limit whoever is measured.
        let slots = (128 * 1024 / size).max(64).next_power_of_two();
        let mut state = 0x9E37_79B9_7F4A_7C15_u64 ^ size as u64;
        let words = (slots * size).div_ceil(8);
        let mut ring: Vec<u8> = (0..words).flat_map(|_| next_random(&mut state).to_le_bytes()).collect();
        ring.truncate(slots * size);
        Payloads { size, slots, ring }
    }

    /// The most that `many` gives at once.
    pub fn most(&self) -> usize {
        self.slots
    }

    /// The payload of this number.
    #[inline]
    pub fn one(&mut self, number: u64) -> &[u8] {
        let start = (number as usize & (self.slots - 1)) * self.size;
        let payload = &mut self.ring[start..start + self.size];
        payload[..NUMBER_BYTES].copy_from_slice(&number.to_le_bytes());
        payload
    }

    /// The payloads of `count` numbers from this one on.
    pub fn many(&mut self, first: u64, count: usize) -> Vec<&[u8]> {
        assert!(count <= self.slots, "no two payloads of a batch may share a slot");
        for number in first..first + count as u64 {
            self.one(number);
        }
        (first..first + count as u64)
            .map(|number| {
                let start = (number as usize & (self.slots - 1)) * self.size;
                &self.ring[start..start + self.size]
            })
            .collect()
    }
}

/// One step of a fast generator (SplitMix64).
pub fn next_random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

/// The records that a log must hold.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct Expected {
    /// Bytes of each payload.
    pub size: usize,
    /// How many each thread appended.
    pub counts: Vec<u64>,
    /// The last of a killed process may be missing, as it was not synced.
    pub tail_may_be_lost: bool,
    /// The first may be given up, but none from this one on.
    pub given_up_below: u64,
}

impl Expected {
    /// All of what one thread appended.
    pub fn all(size: usize, count: u64) -> Expected {
        Expected { size, counts: vec![count], tail_may_be_lost: false, given_up_below: 0 }
    }

    /// How many there are at most.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }
}

/// Goes through a log's records and checks each byte.
pub struct Check {
    expected: Expected,
    payloads: Payloads,
    next: Vec<Option<u64>>,
    wrong: Option<String>,
    seen: u64,
}

impl Check {
    pub fn new(expected: Expected) -> Check {
        let payloads = Payloads::new(expected.size);
        let next = vec![None; expected.counts.len()];
        Check { expected, payloads, next, wrong: None, seen: 0 }
    }

    /// Takes the next record that the log gives.
    pub fn visit(&mut self, payload: &[u8]) {
        if self.wrong.is_none() {
            self.wrong = self.judge(payload).err().map(|error| error.to_string());
        }
        self.seen += 1;
    }

    fn judge(&mut self, payload: &[u8]) -> Result<()> {
        let at = self.seen;
        if payload.len() != self.expected.size {
            bail!("record {at} has {} bytes, not {}", payload.len(), self.expected.size);
        }
        let Some(number) = number_of(payload) else { bail!("record {at} has no number") };
        let (thread, nth) = ((number >> COUNT_BITS) as usize, number & ((1 << COUNT_BITS) - 1));
        let Some(next) = self.next.get_mut(thread) else {
            bail!("record {at} is of thread {thread}: there was none")
        };
        match *next {
            Some(next) if nth != next => bail!("record {at} is number {nth}, not {next}"),
            None if nth > self.expected.given_up_below => bail!("the first record is number {nth}"),
            _ => *next = Some(nth + 1),
        }
        if payload != self.payloads.one(number) {
            bail!("record {at} (number {nth}) has other bytes than were appended");
        }
        Ok(())
    }

    /// The judgement, once all were seen; gives how many are missing at the end, where some may be.
    pub fn finish(self, said: u64) -> Result<u64> {
        if let Some(wrong) = self.wrong {
            bail!("{wrong}");
        }
        if said != self.seen {
            bail!("the scan says {said} records and gave {}", self.seen);
        }
        let mut lost = 0;
        for (thread, (&count, next)) in self.expected.counts.iter().zip(&self.next).enumerate() {
            let reached = next.unwrap_or(0);
            if reached > count {
                bail!("thread {thread} appended {count} records, the log has {reached}");
            }
            lost += count - reached;
        }
        if lost > 0 && !self.expected.tail_may_be_lost {
            bail!("{lost} of {} records are missing", self.expected.count());
        }
        Ok(lost)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(expected: Expected, numbers: &[u64]) -> Result<u64> {
        let mut payloads = Payloads::new(expected.size);
        let mut check = Check::new(expected);
        for &number in numbers {
            check.visit(payloads.one(number));
        }
        check.finish(numbers.len() as u64)
    }

    #[test]
    fn every_record_in_order_is_right() {
        assert_eq!(judged(Expected::all(128, 5), &[0, 1, 2, 3, 4]).unwrap(), 0);
    }

    #[test]
    fn a_missing_a_doubled_and_a_swapped_record_show() {
        for numbers in [&[0, 1, 3][..], &[0, 1, 1, 2], &[0, 2, 1], &[1, 2], &[0, 1, 2, 3], &[0, 1]] {
            assert!(judged(Expected::all(128, 3), numbers).is_err(), "{numbers:?}");
        }
    }

    #[test]
    fn a_wrong_byte_and_a_wrong_length_show() {
        for change in [|bytes: &mut Vec<u8>| bytes[100] ^= 1, |bytes: &mut Vec<u8>| bytes.truncate(127)] {
            let mut bytes = Payloads::new(128).one(0).to_vec();
            change(&mut bytes);
            let mut check = Check::new(Expected::all(128, 1));
            check.visit(&bytes);
            assert!(check.finish(1).is_err());
        }
    }

    #[test]
    fn threads_may_interleave_and_keep_their_order() {
        let expected = Expected { counts: vec![2, 2], ..Expected::all(128, 0) };
        let (a, b) = (number(0, 0), number(1, 0));
        assert_eq!(judged(expected.clone(), &[b, a, a + 1, b + 1]).unwrap(), 0);
        assert!(judged(expected, &[b + 1, a, a + 1, b]).is_err());
    }

    #[test]
    fn a_tail_may_be_lost_only_where_it_may() {
        let expected = Expected { tail_may_be_lost: true, ..Expected::all(128, 5) };
        assert_eq!(judged(expected, &[0, 1, 2]).unwrap(), 2);
        assert!(judged(Expected::all(128, 5), &[0, 1, 2]).is_err());
    }

    #[test]
    fn the_front_may_go_up_to_what_was_given_up() {
        let expected = Expected { given_up_below: 3, ..Expected::all(128, 5) };
        assert!(judged(expected.clone(), &[3, 4]).is_ok());
        assert!(judged(expected.clone(), &[2, 3, 4]).is_ok());
        assert!(judged(expected, &[4]).is_err());
    }

    #[test]
    fn a_batch_carries_its_numbers() {
        let mut payloads = Payloads::new(128);
        let most = payloads.most();
        let numbers: Vec<_> = payloads.many(7, most).into_iter().filter_map(number_of).collect();
        assert_eq!(numbers, (7..7 + most as u64).collect::<Vec<_>>());
    }
}
