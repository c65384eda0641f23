//! Lag: how long after a durable append has returned a reader in another thread has the record.
//!
//! The writer appends one record a millisecond, durably; the reader asks for the next one until it is there, and
//! gives way to other threads in between. A record that the reader had before the append returned counts as zero.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};

use super::durable::latencies;
use super::{KIB, Outcome, Task, Workload};
use crate::payload::{Expected, Payloads, number_of};
use crate::subject::{Mode, Subject, Unsupported};

pub struct Lag;

const SIZE: usize = KIB as usize;
const PACE: Duration = Duration::from_millis(1);

impl Workload for Lag {
    fn name(&self) -> &str {
        "lag"
    }

    fn size(&self) -> usize {
        SIZE
    }

    fn measure(&self, task: &Task<'_>) -> Result<Outcome> {
        let subject = task.open(Mode::Durable)?;
        let count = task.time_box().div_duration_f64(PACE) as u64;
        let start = Instant::now();
        let returned: Vec<_> = (0..count).map(|_| AtomicU64::new(u64::MAX)).collect();
        let over = AtomicBool::new(false);
        let (written, seen) = std::thread::scope(|scope| {
            let reader = scope.spawn(|| tail(&*subject, count, start, &over));
            let written = write(&*subject, &returned, start);
            over.store(true, Ordering::Release);
            (written, reader.join())
        });
        written?;
        let seen = seen.map_err(|_| anyhow!("the reader panicked"))??;
        let mut lags = latencies()?;
        for (seen, returned) in seen.iter().zip(&returned) {
            lags.saturating_record(seen.saturating_sub(returned.load(Ordering::Acquire)));
        }
        subject.close()?;
        let metrics = [
            ("p50", lags.value_at_quantile(0.5) as f64 / 1e9),
            ("p99", lags.value_at_quantile(0.99) as f64 / 1e9),
        ];
        Ok(Outcome::new(Expected::all(SIZE, count), metrics))
    }
}

fn write(subject: &dyn Subject, returned: &[AtomicU64], start: Instant) -> Result<()> {
    let mut payloads = Payloads::new(SIZE);
    for (number, returned) in returned.iter().enumerate() {
        let due = start + PACE * number as u32;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        subject.append(payloads.one(number as u64))?;
        returned.store(start.elapsed().as_nanos() as u64, Ordering::Release);
    }
    Ok(())
}

/// When each record was there to be read.
fn tail(subject: &dyn Subject, count: u64, start: Instant, over: &AtomicBool) -> Result<Vec<u64>> {
    let mut seen = Vec::with_capacity(count as usize);
    while (seen.len() as u64) < count {
        let number = seen.len() as u64;
        let was_over = over.load(Ordering::Acquire);
        let mut found = None;
        match subject.read(number, &mut |payload| found = number_of(payload)) {
            Ok(()) if found == Some(number) => seen.push(start.elapsed().as_nanos() as u64),
            Err(error) if error.is::<Unsupported>() => return Err(error),
            // Not there yet: some say so with an error, some give nothing.
            Err(error) if was_over => return Err(error.context(format!("record {number} never came"))),
            _ => {
                ensure!(!was_over, "record {number} never came");
                std::thread::yield_now();
            }
        }
    }
    Ok(seen)
}
