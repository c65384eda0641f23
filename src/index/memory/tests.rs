//! The index in memory against a plain `Vec`: the law, its end, cuts across it, and readers beside the writer.

use proptest::prelude::*;

use super::chunks::{CHUNKS, place_of, records_of};
use super::*;
use crate::property;

/// Units are small in these tests: `unit * 8`.
fn at(unit: u32) -> u64 {
    u64::from(unit) * UNIT_BYTES
}

fn filled(positions: &[u64]) -> MemoryIndex {
    let index = MemoryIndex::new();
    append(&index, positions);
    index
}

fn append(index: &MemoryIndex, positions: &[u64]) {
    for position in positions {
        let next = index.len();
        assert_eq!(index.push(*position), Some(next));
    }
}

/// Compares every record, and what is beyond them.
fn check(index: &MemoryIndex, positions: &[u64]) {
    let count = u32::try_from(positions.len()).unwrap();
    assert_eq!(index.len(), count);
    for (ordinal, position) in (0..).zip(positions) {
        let expected = Some(*position).filter(|position| *position != NO_FRAME);
        assert_eq!(index.get(ordinal), expected, "record {ordinal} of {positions:?}");
    }
    assert_eq!((index.get(count), index.get(u32::MAX)), (None, None));
    let all: Vec<u64> = index.positions(count + 2).collect();
    assert_eq!(all, [positions, &[NO_FRAME, NO_FRAME]].concat());
}

/// For how many narrow and wide records there is memory.
fn memory_of(index: &MemoryIndex) -> (usize, usize) {
    (index.blocks.records(), index.wide.records())
}

/// `count` positions that follow a law.
fn lawful(first: u32, stride: u32, count: u32) -> Vec<u64> {
    (0..count).map(|ordinal| at(first + ordinal * stride)).collect()
}

#[test]
fn records_of_one_size_take_no_memory() {
    let positions = lawful(128, 20, 500_000);
    let index = filled(&positions);
    check(&index, &positions);
    assert_eq!(memory_of(&index), (0, 0));
}

#[test]
fn a_law_may_end_at_any_record() {
    for reach in 0..70 {
        for odd in [NO_FRAME, at(7), at(128 + reach * 4 + 1), at(u32::MAX)] {
            let mut positions = lawful(128, 4, reach);
            positions.push(odd);
            // Behind it the records that the law would have had again, and others.
            positions.extend(&lawful(128, 4, reach + 40)[positions.len()..]);
            positions.extend([NO_FRAME, at(1), NO_FRAME, at(u32::MAX - 1)]);
            let index = filled(&positions);
            check(&index, &positions);
        }
    }
}

#[test]
fn whatever_comes_first_can_make_a_law() {
    for positions in [
        vec![NO_FRAME; 100],
        vec![at(128); 100],
        (0..100).map(|ordinal| at(5000 - ordinal * 50)).collect(),
        // Down through zero, and on from the highest unit: the law counts modulo 2^32, and is right.
        (0..8u32).map(|ordinal| at(3u32.wrapping_sub(ordinal))).collect(),
    ] {
        let index = filled(&positions);
        check(&index, &positions);
        assert_eq!(memory_of(&index), (0, 0), "{positions:?}");
    }
    let positions = [&[NO_FRAME], &lawful(128, 4, 300)[..]].concat();
    let index = filled(&positions);
    check(&index, &positions);
    assert_eq!(index.lawful.load(Ordering::Relaxed), 2);
}

#[test]
fn what_is_no_position_is_not_taken() {
    for positions in [vec![], lawful(128, 2, 5), vec![at(128), at(130), at(140)]] {
        let index = filled(&positions);
        for position in [1 << 35, 1025, u64::MAX] {
            assert_eq!(index.push(position), None);
        }
        check(&index, &positions);
        assert_eq!(index.push((1 << 35) - 8), Some(index.len() - 1));
    }
}

#[test]
fn blocks_end_at_the_first_record_that_does_not_fit() {
    // Behind the law of the first two: 200 narrow ones, the last of them as high above its block as can be.
    let mut positions = lawful(128, 4, 2);
    positions.extend(lawful(200, 3, 192));
    positions.extend(lawful(2000, 3, 7));
    positions.push(at(2000 + 65_535));
    let index = filled(&positions);
    check(&index, &positions);
    assert_eq!(memory_of(&index), (256, 0));
    for odd in [NO_FRAME, at(1999), at(2000 + 65_536), at(u32::MAX)] {
        index.truncate(202);
        let mut positions = positions.clone();
        positions.extend([odd, at(70_000), NO_FRAME, at(u32::MAX), at(1)]);
        append(&index, &positions[202..]);
        check(&index, &positions);
        assert_eq!(memory_of(&index), (256, 256));
    }
}

#[test]
fn a_cut_anywhere_leaves_what_is_below() {
    const COUNT: u32 = 12;
    for lawful_until in 0..8 {
        for narrow_until in lawful_until..10 {
            for cut in 0..=COUNT as usize {
                for then in [lawful(128, 4, 14)[cut..].to_vec(), lawful(129, 5, 9), vec![NO_FRAME; 3]] {
                    let mut positions = lawful(128, 4, lawful_until);
                    positions.extend(lawful(200, 3, narrow_until - lawful_until));
                    positions.extend(lawful(1 << 20, 1 << 18, COUNT - narrow_until));
                    let index = filled(&positions);
                    index.truncate(u32::try_from(cut).unwrap());
                    positions.truncate(cut);
                    check(&index, &positions);
                    append(&index, &then);
                    positions.extend(&then);
                    check(&index, &positions);
                    // No effect: there are not so many.
                    index.truncate(1000);
                    check(&index, &positions);
                }
            }
        }
    }
}

#[test]
fn after_a_cut_what_fits_is_kept_as_before() {
    let index = filled(&lawful(128, 4, 100));
    append(&index, &[at(9000), at(9003), at(9006), NO_FRAME]);
    assert_eq!(memory_of(&index), (256, 256));
    // Back to blocks: they are the first to grow.
    index.truncate(102);
    let mut positions = [lawful(128, 4, 100), lawful(9000, 3, 1000)].concat();
    append(&index, &positions[102..]);
    check(&index, &positions);
    let narrow = memory_of(&index);
    assert!(narrow.0 >= 1000 && narrow.1 == 256);
    // And to the law: nothing grows.
    index.truncate(60);
    positions = lawful(128, 4, 5000);
    append(&index, &positions[60..]);
    check(&index, &positions);
    assert_eq!(memory_of(&index), narrow);
}

#[test]
fn chunks_follow_one_another_without_a_gap() {
    let mut start = 0u64;
    for chunk in 0..CHUNKS {
        let length = records_of(chunk) as u64;
        let last = u32::try_from(start + length - 1).unwrap_or(u32::MAX);
        assert_eq!(place_of(u32::try_from(start).unwrap()), (chunk, 0));
        assert_eq!(place_of(last), (chunk, usize::try_from(u64::from(last) - start).unwrap()));
        // What there is at its first record is at most a quarter more than there are, and 256.
        assert!(length <= start / 4 + 256);
        start += length;
    }
    assert!(start > u64::from(u32::MAX));
    assert_eq!(place_of(u32::MAX).0, CHUNKS - 1);
}

#[test]
fn memory_is_little_more_than_the_records_need() {
    assert_eq!(size_of::<Block>(), 4 + 2 * 64);
    let narrow = filled(&lawful(128, 4, 1000));
    let wide = filled(&[at(128), at(132), at(200), NO_FRAME]);
    for record in 1..100_000 {
        narrow.push(at(10_000 + 3 * record)).unwrap();
        wide.push(at(10_000 + 3 * record)).unwrap();
        let most = record as usize + record as usize / 4 + 257;
        let (narrow, wide) = (memory_of(&narrow), memory_of(&wide));
        assert!(narrow.0 <= most && narrow.1 == 0, "{narrow:?} for {record}");
        assert!(wide.0 == 256 && wide.1 <= most, "{wide:?} for {record}");
    }
}

/// Lengths of which the first third is alike, and the last third large.
fn unit_of_record(ordinal: u32) -> u32 {
    const THIRD: u32 = 70_000;
    let (second, last) = (ordinal.saturating_sub(THIRD), ordinal.saturating_sub(2 * THIRD));
    128 + 2 * ordinal + 3 * second + 2000 * last
}

#[test]
fn readers_see_whole_records_while_the_forms_change() {
    const RECORDS: u32 = 210_000;
    let index = MemoryIndex::new();
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while index.len() < RECORDS {
                    let count = index.len();
                    for ordinal in [0, count / 2, count.saturating_sub(1)] {
                        if ordinal < count {
                            assert_eq!(index.get(ordinal), Some(at(unit_of_record(ordinal))));
                        }
                    }
                }
            });
        }
        for ordinal in 0..RECORDS {
            assert_eq!(index.push(at(unit_of_record(ordinal))), Some(ordinal));
        }
    });
}

#[test]
fn readers_below_a_cut_notice_nothing() {
    // Two by the law, and some in a block.
    const KEPT: u32 = 5;
    let kept = [lawful(128, 4, 2), lawful(300, 7, KEPT - 2)].concat();
    let index = filled(&kept);
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    for (ordinal, position) in (0..).zip(&kept) {
                        assert_eq!(index.get(ordinal), Some(*position));
                    }
                }
            });
        }
        for round in 0..20_000 {
            // Each round ends the law and the blocks elsewhere, by other units.
            for ordinal in KEPT..KEPT + round % 5 {
                index.push(at(128 + 4 * ordinal)).unwrap();
            }
            for step in 0..1 + round % 3 {
                index.push(at(1000 + round + 3 * step)).unwrap();
            }
            index.push(NO_FRAME).unwrap();
            index.truncate(KEPT);
        }
        done.store(true, Ordering::Relaxed);
    });
    check(&index, &kept);
}

#[derive(Debug, Clone)]
enum Step {
    /// Records of one length, in units.
    Alike(u32, u32),
    Damaged,
    Anywhere(u32),
    Cut(u32),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1u32..6, 1u32..300).prop_map(|(length, count)| Step::Alike(length, count)),
        1 => Just(Step::Damaged),
        1 => any::<u32>().prop_map(Step::Anywhere),
        2 => (0u32..1000).prop_map(Step::Cut),
    ]
}

fn config() -> ProptestConfig {
    property::config(256, Some(concat!(env!("CARGO_MANIFEST_DIR"), "/proptest-regressions/index_memory.txt")))
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn it_is_a_vec(steps in prop::collection::vec(step(), 0..20)) {
        let index = MemoryIndex::new();
        let mut model: Vec<u64> = Vec::new();
        for step in steps {
            let before = model.len();
            match step {
                Step::Alike(length, count) => {
                    let end = model.last().map_or(128, |last| u32::try_from(last / UNIT_BYTES).unwrap());
                    model.extend((1..=count).map(|n| at(end.wrapping_add(n * length))));
                }
                Step::Damaged => model.push(NO_FRAME),
                Step::Anywhere(unit) => model.push(at(unit)),
                Step::Cut(permille) => {
                    // Often far back, where a law still reaches.
                    let kept = model.len() * permille as usize * permille as usize / 1_000_000;
                    model.truncate(kept);
                    index.truncate(u32::try_from(kept).unwrap());
                }
            }
            append(&index, model.get(before..).unwrap_or(&[]));
            check(&index, &model);
        }
    }
}
