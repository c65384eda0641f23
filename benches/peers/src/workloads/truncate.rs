//! Giving up the older half of a log of 256 MiB: how long until that is durable, and whether the space comes back.

use std::time::Instant;

use anyhow::{Context, Result};

use super::{KIB, MIB, Outcome, Preparation, Task, Workload, fill_and_close};
use crate::machine;
use crate::payload::Expected;

pub struct Truncate;

const SIZE: usize = KIB as usize;

/// In a quick run too: a smaller log may have nothing that can be freed.
const BYTES: u64 = 256 * MIB;

impl Workload for Truncate {
    fn name(&self) -> &str {
        "truncate"
    }

    fn size(&self) -> usize {
        SIZE
    }

    fn preparation(&self) -> Preparation {
        Preparation::EachRound
    }

    fn prepare(&self, task: &Task<'_>) -> Result<Outcome> {
        Ok(Outcome::new(fill_and_close(task, SIZE, BYTES)?, []))
    }

    fn measure(&self, task: &Task<'_>) -> Result<Outcome> {
        let expected = task.expected.clone().context("nothing was prepared")?;
        let half = expected.count() / 2;
        let before = machine::space(task.directory)?.allocated as f64;
        let subject = task.open_either()?;
        let start = Instant::now();
        subject.truncate_front(half)?;
        subject.sync()?;
        let seconds = start.elapsed().as_secs_f64();
        subject.close()?;
        let after = machine::space(task.directory)?.allocated as f64;
        let metrics = [("seconds", seconds), ("freed", (before - after) / before)];
        Ok(Outcome::new(Expected { given_up_below: half, ..expected }, metrics))
    }
}
