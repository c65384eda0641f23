//! The index against its promises: round trips, the smallest form, hostile bytes.

use proptest::prelude::*;

use super::*;
use crate::property;

const IDENTITY: IndexIdentity = IndexIdentity { segment_id: 12, seed: 0x5eed };

fn count_of(positions: &[u64]) -> u32 {
    u32::try_from(positions.len()).unwrap()
}

fn encoded(positions: &[u64], store_length: u64) -> Vec<u8> {
    encode(&IDENTITY, store_length, positions.iter().copied(), count_of(positions))
}

/// Writes a header over a file's, with a CRC that fits.
fn forged(header: IndexHeader, file: &[u8]) -> Vec<u8> {
    [&header.to_bytes(), file.get(INDEX_HEADER_BYTES..).unwrap_or(&[])].concat()
}

/// Patches header bytes and makes the CRC right again.
fn patched(file: &[u8], at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut file = file.to_vec();
    file[at..at + bytes.len()].copy_from_slice(bytes);
    let crc = crc32fast::hash(&file[..60]);
    file[60..64].copy_from_slice(&crc.to_le_bytes());
    file
}

fn lookup_by_reads(header: &IndexHeader, file: &[u8], ordinal: u32) -> Option<u64> {
    let mut reads = 0;
    let found = header.lookup_with(ordinal, |buffer, at| {
        reads += 1;
        let at = usize::try_from(at).unwrap();
        let bytes = file.get(at..at + buffer.len()).ok_or(())?;
        buffer.copy_from_slice(bytes);
        Ok::<(), ()>(())
    });
    assert!(reads <= 2);
    found.unwrap_or(None)
}

/// Encodes, decodes, and compares every record, both ways of looking up.
fn round_trip(positions: &[u64], store_length: u64) -> Form {
    let file = encoded(positions, store_length);
    let header = IndexHeader::parse(&file).unwrap();
    let count = count_of(positions);
    assert_eq!(header.matches(12, 0x5eed, count, store_length), Ok(()));
    assert_eq!(header.file_bytes(), file.len() as u64);
    let body = &file[INDEX_HEADER_BYTES..];
    assert_eq!(header.verify_body(body), Ok(()));
    for (ordinal, position) in (0..).zip(positions) {
        let expected = Some(*position).filter(|position| *position != NO_FRAME);
        assert_eq!(header.lookup_in(body, ordinal), expected, "record {ordinal}");
        assert_eq!(lookup_by_reads(&header, &file, ordinal), expected, "record {ordinal}");
    }
    assert_eq!(header.lookup_in(body, count), None);
    assert_eq!(header.lookup_in(body, u32::MAX), None);
    header.form
}

/// Positions of frames of these lengths (in units), the first one at byte 1024.
fn positions_of(lengths: &[u64]) -> (Vec<u64>, u64) {
    let mut end = 1024;
    let positions = lengths
        .iter()
        .map(|length| {
            let position = end;
            end += length * 8;
            position
        })
        .collect();
    (positions, end)
}

#[test]
fn the_smallest_form_is_chosen() {
    assert_eq!(round_trip(&[], 1024), Form::Fixed);
    assert_eq!(round_trip(&[1024], 2048), Form::Fixed);
    assert_eq!(round_trip(&[1024, 1040], 2048), Form::Fixed);
    assert_eq!(round_trip(&[1024, 1040, 1056, 1072], 2048), Form::Fixed);
    // 12 bytes wide, 16 as a padded block.
    assert_eq!(round_trip(&[1024, 1040, 1072], 2048), Form::Wide);
    assert_eq!(round_trip(&[1024, 1040, 1056, 1080], 2048), Form::Blocked);
    assert_eq!(round_trip(&[0, 0, 0, 0, 0], 2048), Form::Wide);
    assert_eq!(round_trip(&[1024, 1040, 0, 1072, 1088], 2048), Form::Wide);
    // Not in order, and twice the same: no store has that, but the codec can say it.
    assert_eq!(round_trip(&[2040, 1040, 1024, 1080], 2048), Form::Blocked);
    assert_eq!(round_trip(&[1024, 1024, 1024, 1024], 2048), Form::Blocked);

    // The widest block: 65535 units from its first record to its last.
    let mut positions: Vec<u64> = (0..64).map(|n| 1024 + n * 8).collect();
    positions[63] = 1024 + 65535 * 8;
    assert_eq!(round_trip(&positions, 1 << 20), Form::Blocked);
    positions[63] += 8;
    assert_eq!(round_trip(&positions, 1 << 20), Form::Wide);
    // The step between two blocks may be as wide as it likes.
    positions[63] = 1024 + 64 * 8;
    positions.push((1 << 35) - 8);
    assert_eq!(round_trip(&positions, 1 << 35), Form::Blocked);
}

#[test]
fn the_bytes_are_those_of_the_format() {
    let file = encoded(&[1024, 1040, 1056, 1080], 1104);
    let mut expected = Vec::new();
    expected.extend_from_slice(b"STONEIDX");
    expected.extend_from_slice(&[1, 0, 0, 0, 2, 0, 0, 0, 12, 0, 0, 0, 0, 0, 0, 0]);
    expected.extend_from_slice(&[0xed, 0x5e, 0, 0, 4, 0, 0, 0, 0x50, 4, 0, 0, 0, 0, 0, 0]);
    expected.extend_from_slice(&[0; 8]);
    let body = [128, 0, 0, 0, 0, 0, 2, 0, 4, 0, 7, 0, 0, 0, 0, 0];
    expected.extend_from_slice(&crc32fast::hash(&body).to_le_bytes());
    expected.extend_from_slice(&[0; 8]);
    expected.extend_from_slice(&crc32fast::hash(&expected).to_le_bytes());
    assert_eq!(expected.len(), INDEX_HEADER_BYTES);
    expected.extend_from_slice(&body);
    assert_eq!(file, expected);
}

#[test]
fn what_an_index_cannot_hold_is_written_as_damaged() {
    let positions = [1024, 1027, 1040, 2048, 1 << 40];
    let file = encode(&IDENTITY, 2048, positions.into_iter(), 7);
    let header = IndexHeader::parse(&file).unwrap();
    assert_eq!(header.count(), 7);
    let found: Vec<_> = (0..7).map(|n| header.lookup_in(&file[INDEX_HEADER_BYTES..], n)).collect();
    assert_eq!(found, [Some(1024), None, Some(1040), None, None, None, None]);
    // What is beyond the count is left out.
    let file = encode(&IDENTITY, 2048, positions.into_iter(), 1);
    assert_eq!(IndexHeader::parse(&file).unwrap().form, Form::Fixed);
}

#[test]
fn another_segments_index_is_refused() {
    let header = IndexHeader::parse(&encoded(&[1024, 1040], 1056)).unwrap();
    assert_eq!(header.matches(12, 0x5eed, 2, 1056), Ok(()));
    assert_eq!(header.matches(13, 0x5eed, 2, 1056), Err(IndexDefect::Segment { expected: 13, found: 12 }));
    assert_eq!(header.matches(12, 1, 2, 1056), Err(IndexDefect::Seed { expected: 1, found: 0x5eed }));
    assert_eq!(header.matches(12, 0x5eed, 3, 1056), Err(IndexDefect::Count { expected: 3, found: 2 }));
    assert_eq!(
        header.matches(12, 0x5eed, 2, 1064),
        Err(IndexDefect::StoreLength { expected: 1064, found: 1056 })
    );
}

#[test]
fn every_flipped_bit_of_a_header_is_seen() {
    let file = encoded(&[1024, 1040, 1056, 1080], 2048);
    for bit in 0..INDEX_HEADER_BYTES * 8 {
        let mut bytes = file.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert!(IndexHeader::parse(&bytes).is_err(), "bit {bit}");
    }
    for length in 0..INDEX_HEADER_BYTES {
        assert_eq!(IndexHeader::parse(&file[..length]), Err(IndexDefect::Short));
    }
}

#[test]
fn every_flipped_bit_of_a_body_is_seen() {
    let file = encoded(&[1024, 1040, 1056, 1080], 2048);
    let header = IndexHeader::parse(&file).unwrap();
    let body = &file[INDEX_HEADER_BYTES..];
    for bit in 0..body.len() * 8 {
        let mut bytes = body.to_vec();
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(header.verify_body(&bytes), Err(IndexDefect::BodyCrc));
    }
    assert_eq!(header.verify_body(&body[1..]), Err(IndexDefect::BodyLength { expected: 16, found: 15 }));
    let mut check = header.check_body();
    body.chunks(3).for_each(|piece| check.update(piece));
    assert_eq!(check.finish(), Ok(()));
}

#[test]
fn a_header_with_a_right_checksum_is_still_not_believed() {
    let fixed = encoded(&[1024, 1040, 1056], 2048);
    assert!(IndexHeader::parse(&patched(&fixed, 60, &[])).is_ok());
    assert_eq!(IndexHeader::parse(&patched(&fixed, 8, &[2])), Err(IndexDefect::Version(2)));
    assert_eq!(IndexHeader::parse(&patched(&fixed, 12, &[0])), Err(IndexDefect::Form(0)));
    assert_eq!(IndexHeader::parse(&patched(&fixed, 12, &[4])), Err(IndexDefect::Form(4)));
    assert_eq!(IndexHeader::parse(&patched(&fixed, 0, b"stone")), Err(IndexDefect::Magic));
    for (at, bytes) in [
        (12, &[2][..]),      // blocked, with a stride
        (12, &[3]),          // wide, with a stride
        (28, &[0]),          // no records, yet a first one
        (28, &[1]),          // one record, yet a stride
        (28, &[255; 4]),     // the last record far beyond the store
        (32, &[0, 0, 0, 0]), // a store that ends before its records
        (40, &[0; 4]),       // the first record at unit 0
        (40, &[255; 4]),     // the last record beyond 2^32 units
        (44, &[0; 4]),       // three records at one place
        (44, &[255; 4]),
        (52, &[1]),
        (59, &[1]),
    ] {
        let file = patched(&fixed, at, bytes);
        assert_eq!(IndexHeader::parse(&file), Err(IndexDefect::Contradiction), "{at}: {bytes:?}");
    }
    // 2^32 - 1 records two units apart, in a store as long as can be: the sum leaves 32 bits.
    let file = patched(&patched(&fixed, 28, &[255; 4]), 32, &[255; 8]);
    assert_eq!(IndexHeader::parse(&file), Err(IndexDefect::Contradiction));
}

#[test]
fn hostile_entries_lead_nowhere() {
    let all = [255; 64];
    for form in [Form::Blocked, Form::Wide] {
        for (count, store_length) in [(4, 2048), (4, u64::MAX), (u32::MAX, u64::MAX)] {
            let header = IndexHeader {
                form,
                segment_id: 1,
                seed: 2,
                count,
                store_length,
                first: 0,
                stride: 0,
                body_crc: 0,
            };
            let file = forged(header, &[]);
            let header = IndexHeader::parse(&file).unwrap();
            assert!(header.file_bytes() < 1 << 35);
            for ordinal in [0, 1, 3, 4, 1000, u32::MAX - 1, u32::MAX] {
                assert_eq!(header.lookup_in(&[], ordinal), None);
                assert_eq!(header.lookup_in(&[0; 64], ordinal), None);
                let found = header.lookup_in(&all, ordinal);
                assert!(found.is_none_or(|position| position < store_length.min(1 << 35)));
            }
        }
    }
}

fn config() -> ProptestConfig {
    property::config(256, Some(concat!(env!("CARGO_MANIFEST_DIR"), "/proptest-regressions/index.txt")))
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn fixed_round_trip(first in 128u64..1 << 20, stride in 2u64..1 << 16, count in 0u64..500) {
        let positions: Vec<_> = (0..count).map(|n| (first + n * stride) * 8).collect();
        prop_assert_eq!(round_trip(&positions, (first + count * stride) * 8), Form::Fixed);
    }

    #[test]
    fn blocked_round_trip(lengths in prop::collection::vec(2u64..1000, 4..500)) {
        let (positions, end) = positions_of(&lengths);
        let steps = &lengths[..lengths.len() - 1];
        let equal = steps.iter().all(|length| *length == steps[0]);
        prop_assert_eq!(round_trip(&positions, end), if equal { Form::Fixed } else { Form::Blocked });
    }

    #[test]
    fn wide_round_trip(lengths in prop::collection::vec(2u64..1 << 20, 3..500)) {
        let (mut positions, end) = positions_of(&lengths);
        // A damaged record, and a step too wide for a block.
        positions[1] = NO_FRAME;
        prop_assert_eq!(round_trip(&positions, end), Form::Wide);
    }

    #[test]
    fn any_positions_come_back(units in prop::collection::vec(any::<u32>(), 0..300)) {
        let positions: Vec<_> = units.iter().map(|unit| u64::from(*unit) * 8).collect();
        round_trip(&positions, 1 << 35);
        let index = MemoryIndex::new();
        for position in &positions {
            prop_assert!(index.push(*position).is_some());
        }
        let again = encode(&IDENTITY, 1 << 35, index.positions(index.len()), index.len());
        prop_assert_eq!(again, encoded(&positions, 1 << 35));
    }

    /// Nothing that stands in an index file panics, and nothing leads beyond the store.
    #[test]
    fn hostile_files_are_harmless(
        fields in any::<(u32, u64, u32, u32, u64, u32, u32)>(),
        small in any::<bool>(),
        body in prop::collection::vec(any::<u8>(), 0..600),
        ordinals in prop::collection::vec(any::<u32>(), 20),
    ) {
        let (form, segment_id, seed, count, store_length, first, stride) = fields;
        let mut bytes = IndexHeader {
            form: Form::Wide,
            segment_id,
            seed,
            count: if small { count % 200 } else { count },
            store_length: if small { store_length % (1 << 36) } else { store_length },
            first,
            stride,
            body_crc: crc32fast::hash(&body),
        }
        .to_bytes();
        bytes.extend_from_slice(&body);
        let form = form % 4;
        let mut bytes = patched(&bytes, 12, &form.to_le_bytes());
        if form != 1 {
            bytes = patched(&bytes, 40, &[0; 8]);
        }
        if let Ok(header) = IndexHeader::parse(&bytes) {
            let _ = header.verify_body(&body);
            for ordinal in ordinals.iter().flat_map(|n| [*n, n % 256]) {
                let found = header.lookup_in(&body, ordinal);
                prop_assert_eq!(found, lookup_by_reads(&header, &bytes, ordinal));
                if let Some(position) = found {
                    prop_assert!(ordinal < header.count());
                    prop_assert!(position > 0 && position < header.store_length && position % 8 == 0);
                }
            }
        }
    }

    #[test]
    fn random_bytes_are_no_index(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(IndexHeader::parse(&bytes).is_err());
    }
}
