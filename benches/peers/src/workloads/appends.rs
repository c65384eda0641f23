//! Unsynced appends: how fast a peer takes records when nobody asks for durability.
//!
//! 48 MiB in all, for everyone: Stonelog lets at most 64 MiB be written and not yet durable, so that more would
//! measure the disk. A slow peer stops after some seconds; its rate is what it did until then. Timed are the
//! calls; opening, the sync afterwards and closing are not.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::{KIB, MIB, Outcome, Task, Workload};
use crate::limits::Limit;
use crate::payload::{Expected, Payloads};
use crate::subject::Mode;

struct Appends {
    name: String,
    size: usize,
    batch: usize,
}

/// Three sizes, single calls and batches. 128 B go in batches of 1,000; the others in such of about the same bytes.
pub fn all() -> Vec<Box<dyn Workload>> {
    let sizes = [("128", 128, 1000), ("1k", KIB as usize, 100), ("16k", 16 * KIB as usize, 10)];
    let single = sizes.map(|(label, size, _)| Appends { name: format!("append-{label}"), size, batch: 1 });
    let many = sizes.map(|(label, size, batch)| Appends { name: format!("batch-{label}"), size, batch });
    single.into_iter().chain(many).map(|appends| Box::new(appends) as Box<dyn Workload>).collect()
}

impl Workload for Appends {
    fn name(&self) -> &str {
        &self.name
    }

    fn size(&self) -> usize {
        self.size
    }

    fn limits(&self) -> Vec<Limit> {
        vec![Limit::Write, Limit::Memcpy]
    }

    fn measure(&self, task: &Task<'_>) -> Result<Outcome> {
        let total = if task.quick { 16 * MIB } else { 48 * MIB };
        let count = total / (self.size * self.batch) as u64 * self.batch as u64;
        let patience = Duration::from_secs(if task.quick { 1 } else { 3 });
        // Looking at the clock costs some nanoseconds: not at every record.
        let between = (64 * KIB / self.size as u64).max(1);
        let subject = task.open(Mode::Unsynced)?;
        let mut payloads = Payloads::new(self.size);
        let mut done = 0;
        let start = Instant::now();
        while done < count && start.elapsed() < patience {
            if self.batch == 1 {
                let until = count.min(done + between);
                for number in done..until {
                    subject.append(payloads.one(number))?;
                }
                done = until;
            } else {
                subject.append_batch(&payloads.many(done, self.batch))?;
                done += self.batch as u64;
            }
        }
        let seconds = start.elapsed().as_secs_f64();
        subject.sync()?;
        subject.close()?;
        Ok(Outcome::new(Expected::all(self.size, done), [("rate", done as f64 / seconds)]))
    }
}
