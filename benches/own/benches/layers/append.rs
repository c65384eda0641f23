//! Appends that wait for no disk: `Durability::Manual`.

use std::cell::LazyCell;
use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, SamplingMode, Throughput};
use stonelog::Log;
use stonelog_benches::{home, options, payload};

/// As much as may be written and not yet durable: with more, the disk would be measured.
const MOST_UNSYNCED_BYTES: u64 = 48 << 20;

pub(crate) fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("append");
    group.sampling_mode(SamplingMode::Flat);
    for (name, size, batch) in [("single", 128, 1), ("batch_of_1000", 128, 1000), ("single", 16 << 10, 1)] {
        group.throughput(Throughput::Bytes(size as u64 * batch as u64));
        let payload = payload(size);
        let records = vec![&payload[..]; batch];
        let place = LazyCell::new(|| {
            let home = home();
            // Dropped in this order: the directory goes when the log is closed.
            (options().open(home.path().join("log")).unwrap(), home)
        });
        group.bench_function(BenchmarkId::new(name, size), |bencher| {
            let log = &place.0;
            let most = MOST_UNSYNCED_BYTES / (size as u64 * batch as u64);
            bencher.iter_custom(|iterations| {
                let mut taken = Duration::ZERO;
                let mut left = iterations;
                while left > 0 {
                    let count = left.min(most);
                    taken += appended(log, &records, count);
                    left -= count;
                }
                taken
            });
        });
    }
    group.finish();
}

/// How long `count` appends took, into a segment that begins with them; what they wrote is gone behind it.
fn appended(log: &Log, records: &[&[u8]], count: u64) -> Duration {
    let before = log.offsets().end;
    let start = Instant::now();
    if let [record] = records {
        for _ in 0..count {
            log.append(black_box(record)).unwrap();
        }
    } else {
        for _ in 0..count {
            log.append_batch(black_box(records)).unwrap();
        }
    }
    let taken = start.elapsed();
    let end = log.offsets().end;
    assert_eq!(end - before, count * records.len() as u64);
    log.truncate_front(end).unwrap();
    assert_eq!(log.durable_end(), end);
    taken
}
