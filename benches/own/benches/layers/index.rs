//! The index: from an ordinal to a position, in no order, while the segment is written and once it is sealed.

use std::cell::LazyCell;
use std::hint::black_box;

use criterion::{Criterion, SamplingMode, Throughput};
use stonelog::bench::{MemoryIndex, SealedIndex};
use stonelog_benches::{Frames, Random};

const COUNT: u32 = 100_000;
const LOOKUPS: u64 = 1000;

pub(crate) fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("index");
    group.sampling_mode(SamplingMode::Flat);
    group.throughput(Throughput::Elements(LOOKUPS));
    let fixed = LazyCell::new(|| Frames::of_size(128, COUNT));
    let mixed = LazyCell::new(|| Frames::of_sizes(COUNT, |ordinal| 64 + (ordinal as usize * 7919) % 129));
    for (name, frames) in [("fixed", &fixed as &dyn std::ops::Deref<Target = Frames>), ("mixed", &mixed)] {
        let indexed = LazyCell::new(|| {
            let positions = frames.positions_in_store();
            let sealed = SealedIndex::of(&positions, frames.store_length()).unwrap();
            (positions, sealed)
        });
        let mut random = Random::default();
        group.bench_function(format!("sealed_{name}"), |bencher| {
            let (positions, sealed) = &*indexed;
            bencher.iter(|| look_up(&mut random, positions, |ordinal| sealed.get(ordinal)));
        });
    }
    // How far frames are apart is nothing to it.
    let indexed = LazyCell::new(|| {
        let positions = mixed.positions_in_store();
        let memory = MemoryIndex::of(&positions).unwrap();
        (positions, memory)
    });
    let mut random = Random::default();
    group.bench_function("memory", |bencher| {
        let (positions, memory) = &*indexed;
        bencher.iter(|| look_up(&mut random, positions, |ordinal| memory.get(ordinal)));
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
