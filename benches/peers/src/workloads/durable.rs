//! Durable appends: each call returns once its records are on disk, as far as the peer has that.
//!
//! Threads share one log and append one record after the other until the time is over. Whether a peer really
//! syncs is not asked here: the audit says it, and the table shows it beside the number.

use std::sync::Barrier;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use hdrhistogram::Histogram;

use super::{KIB, MIB, Outcome, Task, Workload};
use crate::limits::Limit;
use crate::payload::{Expected, Payloads, number};
use crate::subject::{Mode, Subject};

/// Appends before the clock starts: what a first append has to make is made.
const WARM_UP: u64 = 32;

/// A peer that never syncs would fill the disk within the time: it stops here.
const MOST_BYTES: u64 = 256 * MIB;

struct Durable {
    name: String,
    size: usize,
    threads: usize,
    batch: usize,
}

/// 1 KiB by 1, 4, 16 and 64 threads; batches of 100 by one.
pub fn all() -> Vec<Box<dyn Workload>> {
    let threads = [1, 4, 16, 64].map(|threads| Durable {
        name: format!("durable-{threads}"),
        size: KIB as usize,
        threads,
        batch: 1,
    });
    let batches = Durable { name: "durable-batch".to_string(), size: 128, threads: 1, batch: 100 };
    threads.into_iter().chain([batches]).map(|durable| Box::new(durable) as Box<dyn Workload>).collect()
}

impl Workload for Durable {
    fn name(&self) -> &str {
        &self.name
    }

    fn size(&self) -> usize {
        self.size
    }

    fn limits(&self) -> Vec<Limit> {
        match self.threads * self.batch {
            1 => vec![Limit::SyncWrittenBefore, Limit::SyncFallocated, Limit::SyncGrowing],
            _ => Vec::new(),
        }
    }

    fn measure(&self, task: &Task<'_>) -> Result<Outcome> {
        let subject = task.open(Mode::Durable)?;
        let most = MOST_BYTES / (self.size * self.threads) as u64;
        let mut payloads = Payloads::new(self.size);
        for nth in 0..WARM_UP {
            self.append(&*subject, &mut payloads, number(0, nth * self.batch as u64))?;
        }
        let barrier = Barrier::new(self.threads + 1);
        let (seconds, workers) = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..self.threads)
                .map(|thread| {
                    let (barrier, subject) = (&barrier, &*subject);
                    let first = if thread == 0 { WARM_UP * self.batch as u64 } else { 0 };
                    scope.spawn(move || {
                        self.one_thread(subject, thread, first, most, task.time_box(), barrier)
                    })
                })
                .collect();
            barrier.wait();
            let start = Instant::now();
            let workers: Vec<_> = workers.into_iter().map(|worker| worker.join()).collect();
            (start.elapsed().as_secs_f64(), workers)
        });
        let (mut counts, mut all) = (Vec::new(), latencies()?);
        for worker in workers {
            let (count, latencies) = worker.map_err(|_| anyhow!("a thread panicked"))??;
            counts.push(count);
            all.add(latencies)?;
        }
        subject.close()?;
        let done = all.len() * self.batch as u64;
        let metrics = [
            ("rate", done as f64 / seconds),
            ("p50", all.value_at_quantile(0.5) as f64 / 1e9),
            ("p99", all.value_at_quantile(0.99) as f64 / 1e9),
        ];
        Ok(Outcome::new(Expected { counts, ..Expected::all(self.size, 0) }, metrics))
    }
}

impl Durable {
    fn append(&self, subject: &dyn Subject, payloads: &mut Payloads, first: u64) -> Result<()> {
        match self.batch {
            1 => subject.append(payloads.one(first)),
            batch => subject.append_batch(&payloads.many(first, batch)),
        }
    }

    /// Appends until the time is over; gives the thread's next number and what each call took.
    fn one_thread(
        &self,
        subject: &dyn Subject,
        thread: usize,
        first: u64,
        most: u64,
        time_box: Duration,
        barrier: &Barrier,
    ) -> Result<(u64, Histogram<u64>)> {
        let mut payloads = Payloads::new(self.size);
        let mut latencies = latencies()?;
        let mut next = first;
        barrier.wait();
        let start = Instant::now();
        let mut before = start;
        while next < most && before - start < time_box {
            self.append(subject, &mut payloads, number(thread, next))?;
            next += self.batch as u64;
            let after = Instant::now();
            latencies.saturating_record((after - before).as_nanos() as u64);
            before = after;
        }
        Ok((next, latencies))
    }
}

/// Nanoseconds up to a minute, three digits kept.
pub fn latencies() -> Result<Histogram<u64>> {
    Ok(Histogram::new_with_bounds(1, 60_000_000_000, 3)?)
}
