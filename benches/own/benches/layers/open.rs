//! Opening: after a clean close, with few segments and with many, and after an unclean end.

use std::cell::LazyCell;
use std::path::{Path, PathBuf};

use criterion::{BatchSize, BenchmarkId, Criterion, SamplingMode};
use stonelog::Options;
use stonelog_benches::{fill, home, options, payload};

const SIZE: usize = 1 << 10;
const SEGMENT_BYTES: u64 = 64 << 10;

pub(crate) fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("open");
    group.sampling_mode(SamplingMode::Flat);
    for segments in [1, 16, 64] {
        let count = records_of(segments);
        let home = LazyCell::new(|| {
            let home = home();
            fill(home.path(), small_segments(), SIZE, count);
            home
        });
        group.bench_function(BenchmarkId::new("clean", segments), |bencher| {
            let at = home.path();
            // The log is dropped, and so closed, behind the clock.
            bencher.iter_batched(
                || (),
                |()| {
                    let log = small_segments().open(at).unwrap();
                    assert_eq!(log.offsets().end, count);
                    assert_eq!(log.segments().len(), segments);
                    log
                },
                BatchSize::PerIteration,
            );
        });
    }

    // A megabyte that was written and never synced nor closed, as a killed process leaves it.
    let count = 1024;
    let place = LazyCell::new(|| {
        let home = home();
        (unclean(home.path(), count), home)
    });
    let mut number = 0;
    group.bench_function("unclean/1_mib", |bencher| {
        let (image, home) = &*place;
        bencher.iter_batched(
            || {
                number += 1;
                let fresh = home.path().join(format!("copy-{number}"));
                copy(image, &fresh);
                Removed(fresh)
            },
            |fresh| {
                let log = options().open(&fresh.0).unwrap();
                assert_eq!(log.offsets().end, count);
                (log, fresh)
            },
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

fn small_segments() -> Options {
    options().segment_bytes(SEGMENT_BYTES)
}

/// How many records fill all but half of the last one of so many segments.
fn records_of(segments: usize) -> u64 {
    let in_a_segment = (SEGMENT_BYTES - stonelog::store::FIRST_FRAME) / (SIZE as u64 + 16);
    segments as u64 * in_a_segment - in_a_segment / 2
}

/// The files of a log that is open and has `count` records.
fn unclean(home: &Path, count: u64) -> PathBuf {
    let directory = home.join("open");
    let log = options().open(&directory).unwrap();
    for _ in 0..count {
        log.append(payload(SIZE)).unwrap();
    }
    log.sync().unwrap();
    let image = home.join("image");
    copy(&directory, &image);
    image
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_file() {
            std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

/// A directory that goes when this is dropped.
struct Removed(PathBuf);

impl Drop for Removed {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
