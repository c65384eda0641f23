//! The index: from an ordinal to a position, in no order, while the segment is written and once it is sealed.

use std::hint::black_box;

use criterion::{Criterion, Throughput};
use stonelog::bench::{MemoryIndex, SealedIndex};
use stonelog_benches::{Frames, Random};

const COUNT: u32 = 100_000;
const LOOKUPS: u64 = 1000;

pub(crate) fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("index");
    group.throughput(Throughput::Elements(LOOKUPS));
    let fixed = Frames::of_size(128, COUNT);
    let mixed = Frames::of_sizes(COUNT, |ordinal| 64 + (ordinal as usize * 7919) % 129);
    for (name, frames) in [("fixed", &fixed), ("mixed", &mixed)] {
        let positions = frames.positions_in_store();
        let sealed = SealedIndex::of(&positions, frames.store_length()).unwrap();
        group.bench_function(format!("sealed_{name}"), |bencher| {
            let mut random = Random::default();
            bencher.iter(|| look_up(&mut random, &positions, |ordinal| sealed.get(ordinal)));
        });
    }
    // How far frames are apart is nothing to it.
    let positions = mixed.positions_in_store();
    let memory = MemoryIndex::of(&positions).unwrap();
    group.bench_function("memory", |bencher| {
        let mut random = Random::default();
        bencher.iter(|| look_up(&mut random, &positions, |ordinal| memory.get(ordinal)));
    });
    group.finish();
}

fn look_up(random: &mut Random, positions: &[u64], get: impl Fn(u32) -> Option<u64>) {
    for _ in 0..LOOKUPS {
        let ordinal = random.below(positions.len() as u64);
        let found = get(black_box(ordinal as u32));
        assert_eq!(found, Some(positions[ordinal as usize]));
    }
}
