//! Scan: every record of a log, from the first to the last, in a fresh process. And the space that the log takes.
//!
//! Three passes within the process, of which the best counts; the first also faults the pages in, and is kept as
//! well. The page cache is left as the filling made it: warm, for everyone. Each record's number is compared.

use std::time::Instant;

use anyhow::{Context, Result, ensure};

use super::{KIB, MIB, Outcome, Preparation, Task, Workload, fill_and_close};
use crate::limits::Limit;
use crate::machine;
use crate::payload::number_of;

struct Scan {
    name: &'static str,
    size: usize,
}

pub fn all() -> Vec<Box<dyn Workload>> {
    vec![
        Box::new(Scan { name: "scan-128", size: 128 }),
        Box::new(Scan { name: "scan-1k", size: KIB as usize }),
    ]
}

impl Workload for Scan {
    fn name(&self) -> &str {
        self.name
    }

    fn size(&self) -> usize {
        self.size
    }

    fn preparation(&self) -> Preparation {
        Preparation::Once
    }

    fn limits(&self) -> Vec<Limit> {
        vec![Limit::Frames, Limit::Crc]
    }

    fn prepare(&self, task: &Task<'_>) -> Result<Outcome> {
        let expected = fill_and_close(task, self.size, bytes(task.quick))?;
        let payload = (expected.count() * self.size as u64) as f64;
        let space = machine::space(task.directory)?;
        let metrics = [
            ("length_per_payload", space.length as f64 / payload),
            ("allocated_per_payload", space.allocated as f64 / payload),
        ];
        Ok(Outcome::new(expected, metrics))
    }

    fn measure(&self, task: &Task<'_>) -> Result<Outcome> {
        let expected = task.expected.clone().context("nothing was prepared")?;
        let subject = task.open_either()?;
        let mut rates = Vec::new();
        for _ in 0..3 {
            let (mut next, mut wrong) = (0, 0_u64);
            let start = Instant::now();
            let count = subject.scan(&mut |payload| {
                wrong += u64::from(number_of(payload) != Some(next));
                next += 1;
            })?;
            rates.push(count as f64 / start.elapsed().as_secs_f64());
            ensure!(wrong == 0, "{wrong} records with a wrong number");
            ensure!(next == expected.count(), "{next} records, not {}", expected.count());
        }
        subject.close()?;
        let best = rates.iter().copied().fold(0.0, f64::max);
        Ok(Outcome::new(expected, [("rate", best), ("first_rate", rates[0])]))
    }
}

/// The payload bytes of a log that is read.
pub fn bytes(quick: bool) -> u64 {
    if quick { 32 * MIB } else { 256 * MIB }
}
