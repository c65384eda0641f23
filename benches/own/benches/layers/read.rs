//! Reads of sealed segments, mapped and verified: at random offsets, and in order.

use std::cell::LazyCell;
use std::hint::black_box;

use criterion::{Criterion, SamplingMode, Throughput};
use stonelog_benches::{Random, fill, home, options};

const SIZE: usize = 1 << 10;
const COUNT: u64 = 64 << 10;
const READS: u64 = 1000;

pub(crate) fn bench(criterion: &mut Criterion) {
    let place = LazyCell::new(|| {
        let home = home();
        fill(home.path(), options().segment_bytes(16 << 20), SIZE, COUNT);
        // Dropped in this order: the directory goes when the log is closed.
        (options().open(home.path()).unwrap(), home)
    });

    let mut group = criterion.benchmark_group("read");
    group.sampling_mode(SamplingMode::Flat);
    group.throughput(Throughput::Elements(READS));
    let mut random = Random::default();
    group.bench_function(format!("random/{SIZE}"), |bencher| {
        let log = &place.0;
        bencher.iter(|| {
            for _ in 0..READS {
                let offset = random.below(COUNT);
                assert_eq!(log.read(black_box(offset)).unwrap()[..8], offset.to_le_bytes());
            }
        });
    });
    group.throughput(Throughput::Bytes(COUNT * SIZE as u64));
    group.bench_function(format!("in_order/{SIZE}"), |bencher| {
        let log = &place.0;
        bencher.iter(|| {
            let mut reader = log.reader(0);
            let mut count = 0;
            while let Some(record) = reader.next().unwrap() {
                black_box(record.bytes());
                count += 1;
            }
            assert_eq!(count, COUNT);
        });
    });
    group.finish();
}
