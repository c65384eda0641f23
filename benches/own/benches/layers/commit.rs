//! Group commit: threads that each wait for their own record to be durable, `Durability::Always`.

use std::cell::LazyCell;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, SamplingMode, Throughput};
use stonelog::{Log, Options};
use stonelog_benches::{home, payload};

const SIZE: usize = 1 << 10;

pub(crate) fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("group_commit");
    group.sampling_mode(SamplingMode::Flat);
    for threads in [1, 4, 16, 64] {
        // An iteration is one record of each thread.
        group.throughput(Throughput::Elements(threads as u64));
        let place = LazyCell::new(|| {
            let home = home();
            // Dropped in this order: the directory goes when the log is closed.
            (Options::new().open(home.path().join("log")).unwrap(), home)
        });
        group.bench_function(BenchmarkId::new("threads", threads), |bencher| {
            bencher.iter_custom(|iterations| committed(&place.0, threads, iterations));
        });
    }
    group.finish();
}

/// How long it took until `threads` had appended `count` records each; what they wrote is gone behind it.
fn committed(log: &Log, threads: usize, count: u64) -> Duration {
    let before = log.durable_end();
    let begin = Barrier::new(threads);
    let payload = payload(SIZE);
    let spans: Vec<_> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|_| {
                scope.spawn(|| {
                    begin.wait();
                    // Here, and not where they are waited for: on a busy machine that may wake up too late.
                    let start = Instant::now();
                    for _ in 0..count {
                        log.append(&payload).unwrap();
                    }
                    (start, Instant::now())
                })
            })
            .collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).collect()
    });
    let end = log.durable_end();
    assert_eq!(end - before, count * threads as u64);
    log.truncate_front(end).unwrap();
    let first = spans.iter().map(|(start, _)| *start).min().unwrap();
    let last = spans.iter().map(|(_, end)| *end).max().unwrap();
    last - first
}
