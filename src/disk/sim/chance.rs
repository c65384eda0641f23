//! Seeded chance and hashing: splitmix64, and a quick hash to tell disk states apart.
//!
//! It knows nothing of disks. Invariant: the same seed gives the same numbers, on every machine and
//! in every version, since failing seeds are kept. Why not a crate: it is twenty lines, and a
//! dependency's next version might number differently.

/// A splitmix64 generator.
#[derive(Debug, Clone)]
pub(super) struct Chance {
    state: u64,
}

impl Chance {
    pub(super) const fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    pub(super) fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        scramble(self.state)
    }

    pub(super) fn coin(&mut self) -> bool {
        self.next() >> 63 == 1
    }

    /// A number below `bound`; 0 when `bound` is 0.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.next().checked_rem(bound).unwrap_or(0)
    }

    /// A length below `bound`; 0 when `bound` is 0.
    pub(super) fn below_length(&mut self, bound: usize) -> usize {
        usize::try_from(self.below(bound as u64)).unwrap_or(0)
    }
}

/// Spreads every bit of `word` over the whole result (the finish of splitmix64).
pub(super) const fn scramble(word: u64) -> u64 {
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

/// A running hash: not against malice, only to tell states apart.
#[derive(Debug, Clone)]
pub(super) struct Digest {
    state: u64,
}

impl Digest {
    pub(super) const fn new() -> Self {
        Self { state: 0x5a17_ed0c_ea11_f00d }
    }

    pub(super) const fn word(&mut self, word: u64) {
        self.state = scramble(self.state.rotate_left(5) ^ word);
    }

    /// Takes in the bytes and their number, so that "ab","c" and "a","bc" differ.
    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.word(bytes.len() as u64);
        // Four lanes, which the processor works on at once: a state is hashed for each of many crashes.
        let mut lanes = [1_u64, 2, 3, 4];
        let mut blocks = bytes.chunks_exact(32);
        for block in blocks.by_ref() {
            for (lane, chunk) in lanes.iter_mut().zip(block.chunks_exact(8)) {
                *lane = (lane.rotate_left(29) ^ little_endian(chunk)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            }
        }
        for lane in lanes {
            self.word(lane);
        }
        for chunk in blocks.remainder().chunks(8) {
            self.word(little_endian(chunk));
        }
    }

    pub(super) const fn finish(&self) -> u64 {
        self.state
    }
}

/// The hash of one piece of bytes.
pub(super) fn hash(bytes: &[u8]) -> u64 {
    let mut digest = Digest::new();
    digest.bytes(bytes);
    digest.finish()
}

/// Up to 8 bytes as a number.
fn little_endian(bytes: &[u8]) -> u64 {
    if let Ok(word) = bytes.try_into() {
        return u64::from_le_bytes(word);
    }
    let mut word = [0_u8; 8];
    for (into, from) in word.iter_mut().zip(bytes) {
        *into = *from;
    }
    u64::from_le_bytes(word)
}
