//! The scanner: bytes in memory to frames, as opening and checking do it.

use std::cell::LazyCell;
use std::hint::black_box;

use criterion::{Criterion, SamplingMode, Throughput};
use stonelog_benches::Frames;

const TOTAL: u32 = 8 << 20;

pub(crate) fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("scan");
    group.sampling_mode(SamplingMode::Flat);
    for size in [128, 1 << 10] {
        let count = TOTAL / size as u32;
        let frames = LazyCell::new(|| Frames::of_size(size, count));
        group.throughput(Throughput::Bytes(u64::from(count) * size as u64));
        group.bench_function(format!("{size}"), |bencher| {
            bencher.iter(|| assert_eq!(black_box(&*frames).scan(), count));
        });
    }
    group.finish();
}
