//! Tickets: one thread appends without waiting for each, at most a window of records not yet durable.
//!
//! Only for peers whose append gives something to wait on. All are durable when the clock stops.

use std::time::Instant;

use anyhow::Result;

use super::{MIB, Outcome, Task, Workload};
use crate::payload::{Expected, Payloads};
use crate::subject::Mode;

struct Tickets {
    name: String,
    window: u64,
}

const SIZE: usize = 128;

/// Windows from one, which is a plain durable append, to as many as matter.
pub fn all() -> Vec<Box<dyn Workload>> {
    [1, 16, 256, 4096]
        .map(|window| Box::new(Tickets { name: format!("tickets-{window}"), window }) as Box<dyn Workload>)
        .into()
}

impl Workload for Tickets {
    fn name(&self) -> &str {
        &self.name
    }

    fn size(&self) -> usize {
        SIZE
    }

    fn measure(&self, task: &Task<'_>) -> Result<Outcome> {
        // As many as the unsynced workloads, but not longer than needed for the small windows.
        let most = if task.quick { 16 * MIB } else { 48 * MIB } / SIZE as u64;
        let count = most.min(self.window * if task.quick { 1_000 } else { 5_000 });
        let subject = task.open(Mode::Durable)?;
        let mut payloads = Payloads::new(SIZE);
        let start = Instant::now();
        subject.append_with_tickets(&mut payloads, count, self.window)?;
        let seconds = start.elapsed().as_secs_f64();
        subject.close()?;
        Ok(Outcome::new(Expected::all(SIZE, count), [("rate", count as f64 / seconds)]))
    }
}
