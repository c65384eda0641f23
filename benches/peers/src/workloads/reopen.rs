//! Reopening: how long until a log of some size takes records again, after a clean close and after SIGKILL.
//!
//! One process fills the log by batches of 1 KiB records, unsynced, and closes it or kills itself in the middle; a
//! fresh one opens it. Nothing is dropped from the page cache. Both also say their peak of anonymous memory
//! (RssAnon, looked at every millisecond; the harness's own megabyte is in it) and VmHWM, in which mapped files count.

use std::time::Instant;

use anyhow::{Context, Result};
use rustix::process::{Signal, getpid, kill_process};

use super::{GIB, KIB, MIB, Metrics, Outcome, Preparation, Task, Workload, fill};
use crate::limits::Limit;
use crate::machine::MemoryWatch;
use crate::payload::Expected;

struct Reopen {
    name: String,
    bytes: u64,
    killed: bool,
}

const SIZE: usize = KIB as usize;

pub fn all() -> Vec<Box<dyn Workload>> {
    let sizes = [("256m", GIB / 4), ("1g", GIB), ("4g", 4 * GIB)];
    let clean = sizes.map(|(label, bytes)| Reopen { name: format!("reopen-{label}"), bytes, killed: false });
    let killed = sizes.map(|(label, bytes)| Reopen { name: format!("killed-{label}"), bytes, killed: true });
    clean.into_iter().chain(killed).map(|reopen| Box::new(reopen) as Box<dyn Workload>).collect()
}

impl Workload for Reopen {
    fn name(&self) -> &str {
        &self.name
    }

    fn size(&self) -> usize {
        SIZE
    }

    fn preparation(&self) -> Preparation {
        if self.killed { Preparation::EachRound } else { Preparation::OnceAlone }
    }

    fn rounds(&self, asked: usize) -> usize {
        // After a kill every round fills the log anew.
        if self.killed && self.bytes > GIB / 4 { 1 } else { asked.min(3) }
    }

    fn grows_from(&self) -> Option<(String, f64)> {
        let kind = if self.killed { "killed" } else { "reopen" };
        match self.bytes {
            GIB => Some((format!("{kind}-256m"), 4.0)),
            bytes if bytes > GIB => Some((format!("{kind}-1g"), 4.0)),
            _ => None,
        }
    }

    fn is_quick(&self) -> bool {
        self.bytes < GIB
    }

    fn limits(&self) -> Vec<Limit> {
        if self.killed && self.bytes < GIB { vec![Limit::CopyAndSync] } else { Vec::new() }
    }

    fn prepare(&self, task: &Task<'_>) -> Result<Outcome> {
        let bytes = if task.quick { self.bytes.min(64 * MIB) } else { self.bytes };
        let watch = MemoryWatch::start()?;
        let subject = task.open_either()?;
        let start = Instant::now();
        let count = fill(&*subject, SIZE, bytes)?;
        let rate = count as f64 / start.elapsed().as_secs_f64();
        if !self.killed {
            subject.sync()?;
            subject.close()?;
        }
        let (anonymous, _) = watch.peaks()?;
        let metrics = [("fill_rate", rate), ("fill_anonymous", anonymous as f64)];
        let expected = Expected { tail_may_be_lost: self.killed, ..Expected::all(SIZE, count) };
        let outcome = Outcome::new(expected, metrics);
        if self.killed {
            crate::one::print(&outcome)?;
            kill_process(getpid(), Signal::KILL)?;
        }
        Ok(outcome)
    }

    fn measure(&self, task: &Task<'_>) -> Result<Outcome> {
        let expected = task.expected.clone().context("nothing was prepared")?;
        let watch = MemoryWatch::start()?;
        let start = Instant::now();
        let subject = task.open_either()?;
        let seconds = start.elapsed().as_secs_f64();
        let (anonymous, high_water) = watch.peaks()?;
        let facts: Metrics =
            subject.facts().into_iter().map(|(name, value)| (name.to_string(), value)).collect();
        subject.close()?;
        let metrics =
            [("seconds", seconds), ("anonymous", anonymous as f64), ("high_water", high_water as f64)];
        let mut outcome = Outcome::new(expected, metrics);
        outcome.metrics.extend(facts);
        Ok(outcome)
    }
}
