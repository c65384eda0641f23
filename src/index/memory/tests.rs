//! The index in memory against a plain `Vec`: the law, its end, cuts across it, and readers beside the writer.

use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;

use super::*;

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

fn entries_of(index: &MemoryIndex) -> usize {
    index.chunks.iter().filter_map(|chunk| chunk.get()).map(|chunk| chunk.len()).sum()
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
    assert_eq!(entries_of(&index), 0);
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
        assert_eq!(entries_of(&index), 0, "{positions:?}");
    }
    let positions = [&[NO_FRAME], &lawful(128, 4, 300)[..]].concat();
    let index = filled(&positions);
    check(&index, &positions);
    assert_eq!(index.reach.load(Ordering::Relaxed), 2);
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
fn a_cut_on_either_side_of_the_reach_leaves_what_is_below() {
    for reach in 0..8 {
        for cut in 0..14 {
            for then in [lawful(128, 4, 14)[cut..].to_vec(), lawful(129, 5, 9), vec![NO_FRAME; 3]] {
                let mut positions = lawful(128, 4, reach);
                positions.extend(lawful(200, 3, 12 - reach));
                let index = filled(&positions);
                let cut = cut.min(positions.len());
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

#[test]
fn after_a_cut_the_law_goes_on() {
    let index = filled(&lawful(128, 4, 100));
    append(&index, &[at(9000), at(9003), at(9006)]);
    assert_eq!(entries_of(&index), 256);
    index.truncate(60);
    append(&index, &lawful(128, 4, 5000)[60..]);
    check(&index, &lawful(128, 4, 5000));
    assert_eq!(entries_of(&index), 256);
}

#[test]
fn chunks_follow_one_another_without_a_gap() {
    let mut start = 0u64;
    for chunk in 0..CHUNKS {
        let length = 256u64 << (chunk / 4);
        let last = u32::try_from(start + length - 1).unwrap_or(u32::MAX);
        assert_eq!(place_of(u32::try_from(start).unwrap()), (chunk, 0));
        assert_eq!(place_of(last), (chunk, usize::try_from(u64::from(last) - start).unwrap()));
        // What is there once the chunk is, is at most a quarter more than its first entry needs, and 1 KiB.
        assert!(start + length <= start + start / 4 + 256);
        start += length;
    }
    assert!(start - (256 << 22) <= u64::from(u32::MAX) && start > u64::from(u32::MAX));
    for chunk in 0..20 {
        assert_eq!(new_chunk(chunk).len(), 256 << (chunk / 4));
    }
}

#[test]
fn entries_take_little_more_than_they_need() {
    let index = filled(&lawful(128, 4, 1000));
    for entry in 1..100_000 {
        index.push(at(10_000 + 3 * entry)).unwrap();
        let needed = entry as usize;
        assert!(entries_of(&index) <= needed + needed / 4 + 256, "{entry} entries");
    }
}

/// Lengths of which the first half are alike.
fn unit_of_record(ordinal: u32) -> u32 {
    const ALIKE: u32 = 100_000;
    128 + 2 * ordinal.min(ALIKE) + 3 * ordinal.saturating_sub(ALIKE)
}

#[test]
fn readers_see_whole_records_while_the_law_ends() {
    const RECORDS: u32 = 200_000;
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
    const KEPT: u32 = 3;
    let index = filled(&lawful(128, 4, KEPT));
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    for ordinal in 0..KEPT {
                        assert_eq!(index.get(ordinal), Some(at(128 + 4 * ordinal)));
                    }
                }
            });
        }
        for round in 0..20_000 {
            // Each round ends the law elsewhere, by another unit.
            let lawful_until = KEPT + round % 5;
            for ordinal in KEPT..lawful_until {
                index.push(at(128 + 4 * ordinal)).unwrap();
            }
            index.push(at(1000 + round)).unwrap();
            index.push(NO_FRAME).unwrap();
            index.truncate(KEPT);
        }
        done.store(true, Ordering::Relaxed);
    });
    check(&index, &lawful(128, 4, KEPT));
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
    ProptestConfig {
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/proptest-regressions/index_memory.txt"
        )))),
        ..ProptestConfig::default()
    }
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
