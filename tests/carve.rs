//! Carving finds every intact frame that its neighbours or its place prove, and nothing else, in whatever bytes;
//! and crafted bytes make it neither slow nor wrong.
#![allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "tests: a failed expectation is how they speak"
)]

#[path = "hostile/craft.rs"]
#[allow(unused, reason = "shared with the hostile tests")]
mod craft;
#[path = "support/property.rs"]
mod property;

use std::collections::BTreeMap;

use proptest::prelude::*;
use stonelog::carve::{Carved, LONE_REACH, MOST_HASHED, carve};
use stonelog::frame::{HEADER_BYTES, Header, Kind, Lag, PayloadChecksum, Seed, encode_header};
use stonelog::scan::frame_at;
use stonelog::store::{FORMAT_VERSION, Head, Origin};

const UUID: [u8; 16] = *b"carved!!carved!!";

/// A frame as it lies in an image.
type Frames = BTreeMap<(u32, u32), Vec<u8>>;

fn frame(seed: Seed, ordinal: u32, kind: Kind, payload: &[u8]) -> Vec<u8> {
    let header = Header { kind, length: payload.len() as u32, ordinal, lag: Lag::ZERO };
    let mut bytes = encode_header(&header, PayloadChecksum::of(payload), seed).to_vec();
    bytes.extend(payload);
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    bytes
}

fn payload(id: u64, ordinal: u32) -> Vec<u8> {
    format!("segment {id} record {ordinal} ").repeat(ordinal as usize % 5).into_bytes()
}

fn head(id: u64) -> Vec<u8> {
    let head = Head { version: FORMAT_VERSION, origin: Origin::Roll, uuid: UUID, id, created_millis: 5 };
    head.encode().to_vec()
}

fn base_sector(seed: Seed, base: u64) -> Vec<u8> {
    let mut bytes = b"STONBASE".to_vec();
    bytes.extend(base.to_le_bytes());
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&bytes);
    hasher.update(&seed.value().to_le_bytes());
    bytes.extend(hasher.finalize().to_le_bytes());
    bytes.resize(512, 0);
    bytes
}

/// A store of `count` records, of which those in `broken` do not hold; adds the others to `intact`.
fn store(id: u64, count: u32, with_head: bool, broken: &[u32], intact: &mut Frames) -> Vec<u8> {
    let seed = Seed::of_segment(&UUID, id);
    let mut bytes = if with_head { head(id) } else { vec![0; 512] };
    bytes.extend(base_sector(seed, id * 1000));
    for ordinal in 0..count {
        let mut frame = frame(seed, ordinal, Kind::Record, &payload(id, ordinal));
        if broken.contains(&ordinal) {
            // (Two neighbours with the same error in their checksums would have the same seed again.)
            let error = ordinal.wrapping_mul(2_654_435_761) | 1;
            frame[..4].iter_mut().zip(error.to_le_bytes()).for_each(|(byte, error)| *byte ^= error);
        } else {
            intact.insert((seed.value(), ordinal), payload(id, ordinal));
        }
        bytes.extend(frame);
    }
    bytes
}

/// Everything that was found, each frame checked for itself.
fn frames(image: &[u8], carved: &Carved) -> Frames {
    let mut found = Frames::new();
    for run in &carved.runs {
        let mut position = run.run.positions.start;
        let mut ordinal = run.run.ordinals.start;
        while position < run.run.positions.end {
            let header = frame_at(image, run.seed, position, image.len() as u64).unwrap();
            assert_eq!(header.ordinal, ordinal);
            let start = (position + HEADER_BYTES) as usize;
            if header.kind.is_record() {
                let payload = image[start..start + header.length as usize].to_vec();
                assert_eq!(found.insert((run.seed.value(), ordinal), payload), None, "{ordinal} twice");
                ordinal += 1;
            }
            position += header.frame_bytes();
        }
        assert_eq!(run.run.ordinals.end, ordinal);
    }
    found
}

fn found(image: &[u8]) -> (Carved, Frames) {
    let carved = carve(image, 0..image.len() as u64);
    assert!(carved.hashed_bytes <= MOST_HASHED * image.len() as u64, "{} bytes hashed", carved.hashed_bytes);
    let frames = frames(image, &carved);
    (carved, frames)
}

/// That the same frames are in both, said shortly.
fn same(found: &Frames, wanted: &Frames) {
    let only =
        |a: &Frames, b: &Frames| a.keys().filter(|key| a.get(key) != b.get(key)).copied().collect::<Vec<_>>();
    assert!(found == wanted, "missing {:?}, strange {:?}", only(wanted, found), only(found, wanted));
}

fn noise(bytes: usize, salt: u64) -> Vec<u8> {
    let mut state = salt | 1;
    let step = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as u8
    };
    (0..bytes).map(step).collect()
}

#[test]
fn stores_are_found_with_their_heads_bases_and_records() {
    let mut intact = Frames::new();
    let mut image = noise(1000 * 8, 1);
    let first = image.len() as u64;
    image.extend(store(7, 60, true, &[], &mut intact));
    image.extend(noise(808, 2));
    image.extend(store(3, 40, true, &[5, 6, 39], &mut intact));
    let (carved, frames) = found(&image);
    same(&frames, &intact);
    assert_eq!(carved.heads.iter().map(|head| head.head.id).collect::<Vec<_>>(), [7, 3]);
    assert_eq!(carved.heads[0].position, first);
    let bases: Vec<_> = carved.bases.iter().map(|base| (base.seed, base.base)).collect();
    assert_eq!(bases, [(Seed::of_segment(&UUID, 7), 7000), (Seed::of_segment(&UUID, 3), 3000)]);
}

#[test]
fn without_a_head_neighbours_prove_each_other_and_name_the_segment() {
    let mut intact = Frames::new();
    let image = store(12, 30, false, &[0, 2, 4, 9, 11], &mut intact);
    let (carved, frames) = found(&image);
    // Records 1, 3 and 10 stand alone, before and behind others: their place proves them.
    same(&frames, &intact);
    assert!(carved.heads.is_empty());
    assert!(carved.runs.iter().all(|run| run.seed.segment_id(&UUID) == Some(12)));
}

#[test]
fn one_frame_alone_is_nobodys() {
    let seed = Seed::of_segment(&UUID, 1);
    let alone = [noise(160, 3), frame(seed, 0, Kind::Record, b"alone"), noise(160, 4)].concat();
    assert_eq!(found(&alone).1, Frames::new());
    // Near its head it is.
    let image = [head(1), vec![0; 512], noise(160, 3), frame(seed, 2, Kind::Record, b"alone")].concat();
    assert_eq!(found(&image).1.len(), 1);
    // Not with an ordinal that there is no room for.
    let image = [head(1), vec![0; 512], noise(160, 3), frame(seed, 11, Kind::Record, b"alone")].concat();
    assert_eq!(found(&image).1.len(), 0);
}

#[test]
fn a_store_in_pieces_is_found_in_pieces() {
    let mut intact = Frames::new();
    let whole = store(5, 400, true, &[], &mut intact);
    let mut image = Vec::new();
    let mut pieces: Vec<&[u8]> = whole.chunks(4096).collect();
    pieces.swap(1, 3);
    for piece in &pieces {
        image.extend(*piece);
        image.resize(image.len().next_multiple_of(4096), 0);
        image.extend(noise(4096, 9));
    }
    let (carved, frames) = found(&image);
    assert!(carved.runs.len() >= pieces.len());
    // Only frames that were cut through are missing: one for each cut.
    assert!(intact.len() - frames.len() < pieces.len(), "{} of {}", frames.len(), intact.len());
    assert!(frames.iter().all(|(key, payload)| intact[key] == *payload));
}

#[test]
fn a_payload_may_hold_a_store() {
    let mut inner = Frames::new();
    let mut intact = Frames::new();
    let nested = store(9, 20, true, &[], &mut inner);
    let seed = Seed::of_segment(&UUID, 2);
    let mut image = [head(2), base_sector(seed, 0)].concat();
    for ordinal in 0..3 {
        let payload = if ordinal == 1 { nested.clone() } else { b"plain".to_vec() };
        image.extend(frame(seed, ordinal, Kind::Record, &payload));
        intact.insert((seed.value(), ordinal), payload);
    }
    let (carved, frames) = found(&image);
    same(&frames, &intact);
    assert_eq!(carved.heads.len(), 1);
}

#[test]
fn records_larger_than_any_window_are_found() {
    let seed = Seed::of_segment(&UUID, 4);
    let mut image = noise(64, 5);
    for ordinal in 0..4 {
        image.extend(frame(seed, ordinal, Kind::Record, &noise(3 << 20, u64::from(ordinal))));
    }
    let (_, frames) = found(&image);
    assert_eq!(frames.len(), 4);
}

/// At every 16th byte a header that may stand there and claims half a file or all of the rest; with `neighbours`
/// each leads to another one, whose ordinal comes next.
fn claims(size: usize, neighbours: bool) -> Vec<u8> {
    let mut bytes = vec![0; size];
    for position in (1024..size - 64).step_by(16) {
        let number = position / 16;
        let rest = size - position - 16;
        let length = if neighbours { (rest / 2 / 32 * 32 + 16).min(rest / 16 * 16) } else { rest };
        let length = length.min((1 << 28) - 1) as u32;
        bytes[position..position + 4].copy_from_slice(&(number as u32 * 77).to_le_bytes());
        bytes[position + 4..position + 8].copy_from_slice(&((1 << 28) | length).to_le_bytes());
        bytes[position + 8] = (number % 2) as u8;
    }
    bytes
}

/// Work is bounded for crafted bytes too: behind a head each of them is a frame that may stand alone there.
#[test]
fn crafted_bytes_cost_no_more_than_is_said() {
    let mut dearest = 0;
    for size in [64 << 10, 1 << 20, 8 << 20] {
        let own = [("claims of the rest", false), ("claims with neighbours", true)];
        let own = own.map(|(name, neighbours)| (name, claims(size, neighbours)));
        for (name, mut bytes) in craft::all(size).into_iter().chain(own) {
            let head = Head { version: 1, origin: Origin::Roll, uuid: craft::UUID, id: 1, created_millis: 5 };
            bytes[..512].copy_from_slice(&head.encode());
            let (carved, _) = found(&bytes);
            let each = carved.hashed_bytes / bytes.len() as u64;
            println!("{name}, {size} bytes: {each} bytes hashed for each byte");
            dearest = dearest.max(each);
        }
    }
    assert!(dearest >= 2, "the crafted bytes are not dear any more: {dearest}");
}

#[test]
fn what_cannot_be_read_is_noted_and_passed_over() {
    struct Failing<'a>(&'a [u8], std::ops::Range<u64>);
    impl stonelog::scan::Source for Failing<'_> {
        fn length(&self) -> u64 {
            self.0.len() as u64
        }
        fn read(&self, position: u64, buffer: &mut [u8]) -> std::io::Result<()> {
            if position < self.1.end && position + buffer.len() as u64 > self.1.start {
                return Err(std::io::Error::other("bad sector"));
            }
            stonelog::scan::Source::read(self.0, position, buffer)
        }
    }
    let mut intact = Frames::new();
    let image = store(5, 2000, true, &[], &mut intact);
    let carved = carve(&Failing(&image, 8192..8704), 0..image.len() as u64);
    assert_eq!(carved.unreadable, vec![8192..12288; 1]);
    let found = frames(&image, &carved);
    assert!(found.len() > 1800 && found.len() < 2000, "{}", found.len());
}

#[test]
fn the_reach_of_a_lone_frame_is_stated() {
    let seed = Seed::of_segment(&UUID, 1);
    for (gap, wanted) in [(LONE_REACH - 4096, 1), (LONE_REACH + 4096, 0)] {
        let mut image = [head(1), vec![0; 512]].concat();
        image.resize(1024 + gap as usize, 0);
        image.extend(frame(seed, 2, Kind::Record, b"alone"));
        assert_eq!(found(&image).1.len(), wanted);
    }
}

fn noise_or_text() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..600),
        prop::collection::vec(prop_oneof![Just(0u8), Just(1), Just(0x10), Just(0x20)], 0..600),
        "[a-z .,0-9]{0,600}".prop_map(String::into_bytes),
    ]
}

proptest! {
    #![proptest_config(property::config(400, Some(
        concat!(env!("CARGO_MANIFEST_DIR"), "/proptest-regressions/carve.txt"))))]

    /// Stores in any order with anything between: every intact frame with a proof comes out, and nothing else.
    #[test]
    fn any_stores_among_anything(stores in prop::collection::vec(
        (1u32..40, any::<bool>(), prop::collection::btree_set(0u32..40, 0..12), noise_or_text()), 1..6)) {
        let mut intact = Frames::new();
        let mut image = Vec::new();
        for (id, (count, with_head, broken, between)) in (1..).zip(stores) {
            let broken: Vec<u32> = broken.into_iter().collect();
            let mut own = Frames::new();
            image.extend(store(id, count, with_head, &broken, &mut own));
            let ordinals: Vec<u32> = own.keys().map(|(_, ordinal)| *ordinal).collect();
            let proven = with_head || ordinals.windows(2).any(|pair| pair[1] == pair[0] + 1);
            if proven {
                intact.extend(own);
            }
            image.extend(between);
            image.resize(image.len().next_multiple_of(8), 0xee);
        }
        let (_, frames) = found(&image);
        same(&frames, &intact);
    }

    #[test]
    fn arbitrary_bytes_hold_no_frames(bytes in noise_or_text()) {
        prop_assert_eq!(found(&bytes).1, Frames::new());
    }
}
