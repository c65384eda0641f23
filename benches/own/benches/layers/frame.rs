//! The frame codec: a payload hashed and encoded, a frame decoded and verified.

use std::cell::LazyCell;
use std::hint::black_box;

use criterion::{Criterion, SamplingMode, Throughput};
use stonelog_benches::{Frames, encode, payload};

const SIZES: [usize; 3] = [128, 1 << 10, 16 << 10];
/// As much as stays in a processor's second cache: no memory is measured.
const TOTAL: usize = 256 << 10;

pub(crate) fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("frame");
    group.sampling_mode(SamplingMode::Flat);
    for size in SIZES {
        let count = (TOTAL / size) as u32;
        group.throughput(Throughput::Bytes(u64::from(count) * size as u64));
        let payload = payload(size);
        let mut buffer = Vec::new();
        let expected = u64::from(count) * (size as u64 + 16);
        group.bench_function(format!("encode/{size}"), |bencher| {
            bencher.iter(|| assert_eq!(encode(&mut buffer, black_box(&payload), count), expected));
        });
        let frames = LazyCell::new(|| Frames::of_size(size, count));
        group.bench_function(format!("verify/{size}"), |bencher| {
            bencher.iter(|| assert_eq!(black_box(&*frames).verify(), count));
        });
    }
    group.finish();
}
