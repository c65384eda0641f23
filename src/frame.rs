//! The frame codec: a record (or a manifest edit) as bytes on disk, and back.
//!
//! It owns the 16-byte header, the checksum, the seed and the padding. It does not know files,
//! offsets of the log or who reads: it is data to data. Invariants: a frame starts and ends at a
//! multiple of 8; kind 0 is invalid, so zeros are never a frame; the seed makes a frame of another
//! segment or another log invalid here.
//!
//! Why the payload comes first under the checksum, and not the header: the payload can then be
//! hashed before its place in the log is known (outside the writer's lock), and the header can be
//! restamped with a newer watermark for the cost of hashing 16 bytes more.

mod tail;

use std::sync::LazyLock;

use crate::mutant::{self, Mutant};

/// Bytes of a frame's header.
pub const HEADER_BYTES: u64 = 16;
/// The header's size where an array length is wanted.
pub(crate) const HEADER_LENGTH: usize = 16;
/// Frames begin and end at multiples of this.
pub const ALIGNMENT: u64 = 8;
/// The longest payload a frame can hold: 2^28 - 1 bytes.
pub const MAX_PAYLOAD_BYTES: u32 = (1 << 28) - 1;

const LENGTH_BITS: u32 = 28;
const LAG_NONE: u32 = u32::MAX;

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A record that ends its batch (a single record is a batch of one).
    Record,
    /// A record with more of its batch to come.
    RecordMore,
    /// A control frame without payload: "everything before me is durable".
    Mark,
}

impl Kind {
    const fn code(self) -> u32 {
        match self {
            Kind::Record => 1,
            Kind::RecordMore => 2,
            Kind::Mark => 3,
        }
    }

    const fn of_code(code: u32) -> Option<Kind> {
        match code {
            1 => Some(Kind::Record),
            2 => Some(Kind::RecordMore),
            3 => Some(Kind::Mark),
            _ => None,
        }
    }

    /// Whether the frame carries a record (and so counts as one).
    pub const fn is_record(self) -> bool {
        matches!(self, Kind::Record | Kind::RecordMore)
    }
}

/// How far a frame's offset lay beyond the durable end when it was written: the watermark, relative.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lag(u32);

impl Lag {
    /// "Says nothing": the distance did not fit, or nobody knew.
    pub const NONE: Lag = Lag(LAG_NONE);
    /// The durable end is right before the frame.
    pub const ZERO: Lag = Lag(0);

    /// The lag of a frame at `offset` when the durable end is `durable_end`.
    pub fn between(offset: u64, durable_end: u64) -> Lag {
        match offset.checked_sub(durable_end).map(u32::try_from) {
            Some(Ok(lag)) if lag != LAG_NONE => Lag(lag),
            _ => Lag::NONE,
        }
    }

    /// The distance in records, or `None` where the frame says nothing.
    pub const fn records(self) -> Option<u32> {
        if self.0 == LAG_NONE { None } else { Some(self.0) }
    }
}

/// The salt of a file's checksums: frames of another file do not verify here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seed(u32);

impl Seed {
    /// The seed of a segment's store and index.
    pub fn of_segment(uuid: &[u8; 16], id: u64) -> Seed {
        Seed::of(uuid, id, b"")
    }

    /// The seed of one generation of the manifest.
    pub fn of_manifest(uuid: &[u8; 16], generation: u64) -> Seed {
        Seed::of(uuid, generation, b"manifest")
    }

    fn of(uuid: &[u8; 16], number: u64, domain: &[u8]) -> Seed {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(uuid);
        hasher.update(&number.to_le_bytes());
        hasher.update(domain);
        Seed(if mutant::on(Mutant::ChecksumUnseeded) { 0 } else { hasher.finalize() })
    }

    /// The seed as a number, as it goes into a checksum.
    pub const fn value(self) -> u32 {
        self.0
    }

    /// The one seed under which a frame's checksum holds, whatever its header and payload. By itself that proves
    /// nothing; two neighbours with one seed prove each other.
    pub fn of_frame(bytes: &[u8; HEADER_LENGTH], payload: PayloadChecksum) -> Seed {
        let mut hasher = crc32fast::Hasher::new_with_initial(payload.0);
        hasher.update(bytes.last_chunk::<12>().unwrap_or(&[0; 12]));
        Seed(last_word(hasher.finalize(), word_at(bytes, 0)))
    }

    /// The one seed with which `checksum` is that of `body` and the seed behind it.
    pub(crate) fn of_checksum(body: &[u8], checksum: u32) -> Seed {
        Seed(last_word(crc32fast::hash(body), checksum))
    }

    /// The segment of the log `uuid` that has this seed, if its id is below 2^32: there is at most one. A seed of
    /// another log has one here too; how likely a small one is by chance, its size tells.
    pub fn segment_id(self, uuid: &[u8; 16]) -> Option<u64> {
        self.number(uuid, b"")
    }

    /// The generation of the manifest of the log `uuid` that has this seed, as [`Seed::segment_id`].
    pub fn generation(self, uuid: &[u8; 16]) -> Option<u64> {
        self.number(uuid, b"manifest")
    }

    fn number(self, uuid: &[u8; 16], domain: &[u8]) -> Option<u64> {
        // Back over the domain and the number's upper half, which is zeros; what is left to find is 4 bytes.
        let mut register = !self.0;
        for byte in domain.iter().rev() {
            register = unshifted(register, 8) ^ u32::from(*byte);
        }
        let number = last_word(crc32fast::hash(uuid), !unshifted(register, 32));
        (Seed::of(uuid, u64::from(number), domain) == self).then_some(u64::from(number))
    }
}

/// The checksum's register before so many zero bits went through it: a step of CRC-32 loses nothing.
fn unshifted(mut register: u32, bits: u32) -> u32 {
    const POLYNOMIAL: u32 = 0xEDB8_8320;
    for _ in 0..bits {
        let carried = register >> 31;
        register = (register ^ (POLYNOMIAL * carried)) << 1 | carried;
    }
    register
}

/// The one word that leads from the checksum `before` it to the checksum `after` it.
fn last_word(before: u32, after: u32) -> u32 {
    !before ^ unshifted(!after, 32)
}

/// A frame's header, decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// What the frame is.
    pub kind: Kind,
    /// Payload bytes, padding not counted.
    pub length: u32,
    /// The record's number within its file (a mark's: the next record's).
    pub ordinal: u32,
    /// The watermark, relative to the frame's own offset.
    pub lag: Lag,
}

impl Header {
    /// The frame's size on disk in bytes: header, payload, padding.
    pub const fn frame_bytes(&self) -> u64 {
        frame_bytes(self.length)
    }
}

/// The size on disk in bytes of a frame with `length` bytes of payload.
pub const fn frame_bytes(length: u32) -> u64 {
    HEADER_BYTES + (length as u64).next_multiple_of(ALIGNMENT)
}

/// Zeros that follow a payload of `length` bytes.
pub(crate) const fn padding_bytes(length: usize) -> usize {
    length.wrapping_neg() & 7
}

/// The checksum of a payload alone, which a frame's checksum continues.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PayloadChecksum(u32);

impl PayloadChecksum {
    /// Hashes a payload.
    #[inline]
    pub fn of(payload: &[u8]) -> PayloadChecksum {
        // One for the whole process: what this processor can do is asked once, and not for every record.
        static HASHER: LazyLock<PayloadHasher> = LazyLock::new(PayloadHasher::new);
        HASHER.of(payload)
    }

    /// A payload's checksum that was computed elsewhere (piece by piece).
    pub const fn from_value(value: u32) -> PayloadChecksum {
        PayloadChecksum(value)
    }

    /// The checksum of the whole frame whose header has these words behind its checksum.
    #[inline]
    fn seal(self, [word, ordinal, lag]: [u32; 3], seed: Seed) -> u32 {
        tail::continued(self.0, [word, ordinal, lag, seed.0])
    }
}

/// Hashes one payload after another, and asks only once what this processor can do.
pub(crate) struct PayloadHasher(crc32fast::Hasher);

impl PayloadHasher {
    pub(crate) fn new() -> PayloadHasher {
        PayloadHasher(crc32fast::Hasher::new())
    }

    /// [`PayloadChecksum::of`].
    #[inline]
    pub(crate) fn of(&self, payload: &[u8]) -> PayloadChecksum {
        let mut hasher = self.0.clone();
        hasher.update(payload);
        PayloadChecksum(hasher.finalize())
    }
}

/// Encodes a header for a payload that was hashed before.
#[inline]
pub fn encode_header(header: &Header, payload: PayloadChecksum, seed: Seed) -> [u8; HEADER_LENGTH] {
    let word = (header.kind.code() << LENGTH_BITS) | (header.length & MAX_PAYLOAD_BYTES);
    let fields = [word, header.ordinal, header.lag.0];
    let mut bytes = [0u8; HEADER_LENGTH];
    let (place, rest) = bytes.split_at_mut(4);
    place.copy_from_slice(&payload.seal(fields, seed).to_le_bytes());
    for (place, field) in rest.chunks_exact_mut(4).zip(fields) {
        place.copy_from_slice(&field.to_le_bytes());
    }
    bytes
}

/// Appends a whole frame to `buffer`.
pub(crate) fn encode_into(buffer: &mut Vec<u8>, header: &Header, payload: &[u8], seed: Seed) {
    push_frame(buffer, header, payload, PayloadChecksum::of(payload), seed);
}

/// Appends a whole frame, whose payload was hashed before, to `buffer`.
#[inline]
pub(crate) fn push_frame(
    buffer: &mut Vec<u8>,
    header: &Header,
    payload: &[u8],
    checksum: PayloadChecksum,
    seed: Seed,
) {
    const ZEROS: [u8; 8] = [0; 8];
    buffer.extend_from_slice(&encode_header(header, checksum, seed));
    buffer.extend_from_slice(payload);
    let padding = padding_bytes(payload.len());
    if padding > 0 {
        buffer.extend_from_slice(ZEROS.get(..padding).unwrap_or(&ZEROS));
    }
}

/// Decodes a header's fields without looking at the checksum. `None` where the kind is invalid, or
/// a mark claims a payload: such bytes were never written as a header.
#[inline]
pub fn decode_header(bytes: &[u8; HEADER_LENGTH]) -> Option<Header> {
    let word = word_at(bytes, 4);
    let kind = Kind::of_code(word >> LENGTH_BITS)?;
    let length = word & MAX_PAYLOAD_BYTES;
    if kind == Kind::Mark && length != 0 {
        return None;
    }
    Some(Header { kind, length, ordinal: word_at(bytes, 8), lag: Lag(word_at(bytes, 12)) })
}

#[inline]
fn word_at(bytes: &[u8; HEADER_LENGTH], at: usize) -> u32 {
    let mut word = [0u8; 4];
    if let Some(source) = bytes.get(at..at + 4) {
        word.copy_from_slice(source);
    }
    u32::from_le_bytes(word)
}

/// Whether a frame's checksum holds for its header bytes and its payload's checksum.
#[inline]
pub fn verifies(bytes: &[u8; HEADER_LENGTH], payload: PayloadChecksum, seed: Seed) -> bool {
    let fields = [word_at(bytes, 4), word_at(bytes, 8), word_at(bytes, 12)];
    word_at(bytes, 0) == payload.seal(fields, seed)
}

/// The first 16 bytes of `bytes` as a header's bytes, or `None` where there are fewer.
#[inline]
pub(crate) fn header_bytes(bytes: &[u8]) -> Option<&[u8; HEADER_LENGTH]> {
    bytes.first_chunk::<HEADER_LENGTH>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::property;
    use proptest::prelude::*;

    const UUID: [u8; 16] = *b"0123456789abcdef";

    fn frame(header: Header, payload: &[u8], seed: Seed) -> Vec<u8> {
        let mut buffer = Vec::new();
        encode_into(&mut buffer, &header, payload, seed);
        buffer
    }

    #[test]
    fn zeros_are_never_a_frame() {
        assert_eq!(decode_header(&[0; 16]), None);
    }

    #[test]
    fn every_single_bit_flip_is_found() {
        let seed = Seed::of_segment(&UUID, 7);
        let header = Header { kind: Kind::Record, length: 5, ordinal: 3, lag: Lag::ZERO };
        let good = frame(header, b"stone", seed);
        for bit in 0..(16 + 5) * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let bytes = header_bytes(&bad).unwrap();
            let still_valid = decode_header(bytes)
                .is_some_and(|h| h.length == 5 && verifies(bytes, PayloadChecksum::of(&bad[16..21]), seed));
            assert!(!still_valid, "bit {bit}");
        }
    }

    #[test]
    fn a_frame_of_another_segment_log_or_manifest_does_not_verify() {
        let seed = Seed::of_segment(&UUID, 7);
        let header = Header { kind: Kind::Mark, length: 0, ordinal: 3, lag: Lag::ZERO };
        let bytes = encode_header(&header, PayloadChecksum::of(b""), seed);
        let mut other = UUID;
        other[0] ^= 1;
        for strange in [Seed::of_segment(&UUID, 8), Seed::of_segment(&other, 7), Seed::of_manifest(&UUID, 7)]
        {
            assert!(!verifies(&bytes, PayloadChecksum::of(b""), strange));
        }
        assert!(verifies(&bytes, PayloadChecksum::of(b""), seed));
    }

    #[test]
    fn a_seed_is_solved_from_a_frame_and_names_its_segment() {
        for id in [1, 7, 4_000_000, u64::from(u32::MAX)] {
            let seed = Seed::of_segment(&UUID, id);
            let header = Header { kind: Kind::Record, length: 5, ordinal: 3, lag: Lag::NONE };
            let good = frame(header, b"stone", seed);
            assert_eq!(Seed::of_frame(header_bytes(&good).unwrap(), PayloadChecksum::of(b"stone")), seed);
            assert_eq!(seed.segment_id(&UUID), Some(id));
            assert_eq!(Seed::of_manifest(&UUID, id).generation(&UUID), Some(id));
            assert_ne!(seed.generation(&UUID), Some(id));
        }
        assert_ne!(
            Seed::of_segment(&UUID, 1 << 32).segment_id(&UUID),
            Some(1 << 32),
            "beyond what is looked for"
        );
    }

    #[test]
    fn a_lag_that_does_not_fit_says_nothing() {
        assert_eq!(Lag::between(10, 4).records(), Some(6));
        assert_eq!(Lag::between(4, 10), Lag::NONE);
        assert_eq!(Lag::between(u64::from(u32::MAX), 0), Lag::NONE);
        assert_eq!(Lag::between(u64::from(u32::MAX) - 1, 0).records(), Some(u32::MAX - 1));
    }

    proptest! {
        #![proptest_config(property::config(256, Some(
            concat!(env!("CARGO_MANIFEST_DIR"), "/proptest-regressions/frame.txt"))))]
        #[test]
        fn what_is_encoded_is_decoded(payload in prop::collection::vec(any::<u8>(), 0..300),
                                      ordinal in any::<u32>(), lag in any::<u32>(), more in any::<bool>(), id in any::<u64>()) {
            let seed = Seed::of_segment(&UUID, id);
            let kind = if more { Kind::RecordMore } else { Kind::Record };
            let header = Header { kind, length: u32::try_from(payload.len()).unwrap(), ordinal, lag: Lag(lag) };
            let bytes = frame(header, &payload, seed);
            prop_assert_eq!(bytes.len() as u64, header.frame_bytes());
            prop_assert_eq!(bytes.len() % 8, 0);
            let head = header_bytes(&bytes).unwrap();
            prop_assert_eq!(decode_header(head), Some(header));
            prop_assert!(verifies(head, PayloadChecksum::of(&payload), seed));
        }

        #[test]
        fn hostile_headers_never_panic(bytes in any::<[u8; 16]>()) {
            if let Some(header) = decode_header(&bytes) {
                prop_assert!(header.frame_bytes() >= HEADER_BYTES);
            }
        }
    }
}
