//! The scanner: bytes in memory to frames, as opening and checking do it.

use std::hint::black_box;

use criterion::{Criterion, Throughput};
use stonelog_benches::Frames;

pub(crate) fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("scan");
    for size in [128, 1 << 10] {
        let frames = Frames::of_size(size, (8 << 20) / size as u32);
        group.throughput(Throughput::Bytes(frames.bytes.len() as u64));
        group.bench_function(format!("{size}"), |bencher| {
            bencher.iter(|| assert_eq!(black_box(&frames).scan(), frames.count()));
        });
    }
    group.finish();
}
