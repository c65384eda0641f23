//! What is measured: one file for each kind of workload, all listed here.
//!
//! A workload runs in a process of its own, once for each number. It may have a preparation, which is another process,
//! so that what it measures begins with a fresh one; and whatever it leaves behind is opened and read whole by a third.
//! It knows neither the peers nor the rounds.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::limits::Limit;
use crate::machine::MemoryWatch;
use crate::payload::{Check, Expected, Payloads};
use crate::subject::{Kind, Mode, Subject, Unsupported};

mod appends;
mod durable;
mod lag;
mod random;
mod reopen;
mod scan;
mod tickets;
mod truncate;

pub use durable::latencies;
pub use scan::bytes as read_bytes;

/// Numbers by name: seconds, bytes, records a second; the rows (`table`) say how they are shown.
pub type Metrics = BTreeMap<String, f64>;

pub const KIB: u64 = 1 << 10;
pub const MIB: u64 = 1 << 20;
pub const GIB: u64 = 1 << 30;

/// What one process is asked to do.
pub struct Task<'a> {
    pub kind: &'a dyn Kind,
    pub directory: &'a Path,
    /// Smaller sizes, shorter times: shows that all works; the numbers are rough.
    pub quick: bool,
    /// What the preparation left.
    pub expected: Option<Expected>,
}

impl Task<'_> {
    /// How long a workload goes on that has no natural end.
    pub fn time_box(&self) -> Duration {
        Duration::from_millis(if self.quick { 250 } else { 1200 })
    }

    fn open(&self, mode: Mode) -> Result<Box<dyn Subject>> {
        self.kind.open(self.directory, mode).context("opening")
    }

    /// Unsynced, where the peer has that: for what is not about appends.
    fn open_either(&self) -> Result<Box<dyn Subject>> {
        match self.open(Mode::Unsynced) {
            Err(error) if error.is::<Unsupported>() => self.open(Mode::Durable),
            opened => opened,
        }
    }
}

/// What one process found.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Outcome {
    pub metrics: Metrics,
    /// What the log must hold now.
    pub expected: Option<Expected>,
}

impl Outcome {
    /// Metrics of a log that must hold this now.
    pub fn new(
        expected: impl Into<Option<Expected>>,
        metrics: impl IntoIterator<Item = (&'static str, f64)>,
    ) -> Outcome {
        let metrics = metrics.into_iter().map(|(name, value)| (name.to_string(), value)).collect();
        Outcome { metrics, expected: expected.into() }
    }
}

/// What happens before the measured process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Preparation {
    /// Nothing: it begins with an empty directory.
    Nothing,
    /// One for all rounds; the logs of all subjects stay beside each other and the rounds are interleaved.
    Once,
    /// As `Once`, but one subject after the other, for want of space.
    OnceAlone,
    /// One before each round, one subject after the other.
    EachRound,
}

/// One thing to measure.
pub trait Workload: Sync {
    /// What `--only` calls it.
    fn name(&self) -> &str;

    /// Bytes of a record.
    fn size(&self) -> usize;

    fn preparation(&self) -> Preparation {
        Preparation::Nothing
    }

    /// How many rounds of those asked for.
    fn rounds(&self, asked: usize) -> usize {
        asked
    }

    /// The workload whose preparation is a part of this one's, and how many times more this one takes: who would be too
    /// slow is not even begun.
    fn grows_from(&self) -> Option<(String, f64)> {
        None
    }

    /// Whether a quick run has it.
    fn is_quick(&self) -> bool {
        true
    }

    fn limits(&self) -> Vec<Limit> {
        Vec::new()
    }

    fn prepare(&self, _task: &Task<'_>) -> Result<Outcome> {
        Ok(Outcome::default())
    }

    fn measure(&self, task: &Task<'_>) -> Result<Outcome>;
}

/// All, in the order of the table.
pub fn all() -> Vec<Box<dyn Workload>> {
    let mut all: Vec<Box<dyn Workload>> = Vec::new();
    all.extend(appends::all());
    all.extend(durable::all());
    all.extend(tickets::all());
    all.extend(scan::all());
    all.extend(random::all());
    all.push(Box::new(lag::Lag));
    all.push(Box::new(truncate::Truncate));
    all.extend(reopen::all());
    all
}

/// Opens the log and reads all of it; every byte must be as appended.
pub fn verify(task: &Task<'_>) -> Result<Outcome> {
    let Some(expected) = task.expected.clone() else { return Ok(Outcome::default()) };
    let watch = MemoryWatch::start()?;
    let subject = task.open_either()?;
    let mut check = Check::new(expected);
    let count = subject.scan(&mut |payload| check.visit(payload)).context("reading all back")?;
    let lost = check.finish(count)?;
    subject.close()?;
    let (anonymous, _) = watch.peaks()?;
    Ok(Outcome::new(None, [("lost", lost as f64), ("read_anonymous", anonymous as f64)]))
}

/// Appends `bytes` of payloads by batches, unsynced; returns how many they are.
fn fill(subject: &dyn Subject, size: usize, bytes: u64) -> Result<u64> {
    let count = bytes / size as u64;
    let mut payloads = Payloads::new(size);
    let mut next = 0;
    while next < count {
        let batch = (count - next).min(payloads.most() as u64) as usize;
        subject.append_batch(&payloads.many(next, batch))?;
        next += batch as u64;
    }
    Ok(count)
}

/// `fill` of a fresh log, closed cleanly.
pub fn fill_and_close(task: &Task<'_>, size: usize, bytes: u64) -> Result<Expected> {
    let subject = task.open_either()?;
    let count = fill(&*subject, size, bytes)?;
    subject.sync()?;
    subject.close()?;
    Ok(Expected::all(size, count))
}
