//! Random reads: one record by its number, again and again, by one thread and by two that share the log.
//!
//! A part of a second goes by before the clock starts, so that the pages are mapped; the page cache is warm. The
//! number in each payload is compared.

use std::sync::Barrier;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};

use super::scan::bytes;
use super::{KIB, Outcome, Preparation, Task, Workload, fill_and_close};
use crate::limits::Limit;
use crate::payload::{next_random, number_of};
use crate::subject::Subject;

struct Random {
    name: &'static str,
    threads: usize,
}

const SIZE: usize = KIB as usize;

pub fn all() -> Vec<Box<dyn Workload>> {
    vec![Box::new(Random { name: "random-1", threads: 1 }), Box::new(Random { name: "random-2", threads: 2 })]
}

impl Workload for Random {
    fn name(&self) -> &str {
        self.name
    }

    fn size(&self) -> usize {
        SIZE
    }

    fn preparation(&self) -> Preparation {
        Preparation::Once
    }

    fn limits(&self) -> Vec<Limit> {
        if self.threads == 1 { vec![Limit::Mapped, Limit::Pread] } else { Vec::new() }
    }

    fn prepare(&self, task: &Task<'_>) -> Result<Outcome> {
        Ok(Outcome::new(fill_and_close(task, SIZE, bytes(task.quick))?, []))
    }

    fn measure(&self, task: &Task<'_>) -> Result<Outcome> {
        let expected = task.expected.clone().context("nothing was prepared")?;
        let subject = task.open_either()?;
        reads(&*subject, 0, expected.count(), task.time_box() / 3)?;
        let barrier = Barrier::new(self.threads + 1);
        let (seconds, workers) = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..self.threads)
                .map(|thread| {
                    let (barrier, subject) = (&barrier, &*subject);
                    let count = expected.count();
                    scope.spawn(move || {
                        barrier.wait();
                        reads(subject, 1 + thread as u64, count, task.time_box())
                    })
                })
                .collect();
            barrier.wait();
            let start = Instant::now();
            let workers: Vec<_> = workers.into_iter().map(|worker| worker.join()).collect();
            (start.elapsed().as_secs_f64(), workers)
        });
        let mut done = 0;
        for worker in workers {
            done += worker.map_err(|_| anyhow!("a thread panicked"))??;
        }
        subject.close()?;
        Ok(Outcome::new(expected, [("rate", done as f64 / seconds)]))
    }
}

/// Reads until the time is over; returns how many.
fn reads(subject: &dyn Subject, seed: u64, count: u64, time_box: Duration) -> Result<u64> {
    let mut state = seed;
    let (mut done, mut wrong) = (0, 0_u64);
    let start = Instant::now();
    while start.elapsed() < time_box {
        for _ in 0..64 {
            let number = next_random(&mut state) % count;
            let mut found = None;
            subject.read(number, &mut |payload| found = number_of(payload))?;
            wrong += u64::from(found != Some(number));
        }
        done += 64;
    }
    ensure!(wrong == 0, "{wrong} reads gave another record");
    Ok(done)
}
