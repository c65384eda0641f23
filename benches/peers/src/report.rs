//! Everything that one run found, as it is kept in JSON; and the statistics over the rounds.

use serde::{Deserialize, Serialize};

use crate::audit::Audit;
use crate::machine::Machine;
use crate::workloads::Metrics;

/// A whole run.
#[derive(Debug, Serialize, Deserialize)]
pub struct Report {
    /// The command that made it.
    pub command: String,
    pub machine: Machine,
    pub quick: bool,
    pub rounds: usize,
    pub subjects: Vec<About>,
    pub cells: Vec<Cell>,
}

/// One subject, and what it really does about durability.
#[derive(Debug, Serialize, Deserialize)]
pub struct About {
    pub name: String,
    pub claims: String,
    pub verifies_reads: bool,
    pub audit: Audit,
}

/// One workload of one subject.
#[derive(Debug, Serialize, Deserialize)]
pub struct Cell {
    pub workload: String,
    pub subject: String,
    /// It is no subject but a limit of the machine.
    pub is_limit: bool,
    /// One for each round that was verified.
    pub rounds: Vec<Metrics>,
    /// Why there are no more.
    pub failure: Option<Failure>,
}

/// Why a cell is not whole. One failure fails the cell, whatever other rounds said.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub enum Failure {
    /// The peer has no such thing.
    Unsupported,
    /// It took longer than this.
    TimedOut { seconds: f64 },
    /// It failed, or what it left was not what was appended.
    Failed(String),
}

/// Whether more or less is better.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Better {
    More,
    Less,
}

/// A number over the rounds.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Statistic {
    pub best: f64,
    pub median: f64,
    /// The distance from the least to the greatest, as a share of the median.
    pub spread: f64,
}

impl Statistic {
    /// Of at least one value.
    pub fn of(values: &[f64], better: Better) -> Option<Statistic> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (least, most) = (*sorted.first()?, *sorted.last()?);
        let middle = sorted.len() / 2;
        let median =
            if sorted.len() % 2 == 1 { sorted[middle] } else { (sorted[middle - 1] + sorted[middle]) / 2.0 };
        let best = match better {
            Better::More => most,
            Better::Less => least,
        };
        Some(Statistic {
            best,
            median,
            spread: if median == 0.0 { 0.0 } else { (most - least) / median.abs() },
        })
    }
}

impl Report {
    pub fn cell(&self, workload: &str, subject: &str) -> Option<&Cell> {
        self.cells.iter().find(|cell| cell.workload == workload && cell.subject == subject)
    }

    /// A metric over the rounds of a cell that is whole.
    pub fn statistic(
        &self,
        workload: &str,
        subject: &str,
        metric: &str,
        better: Better,
    ) -> Option<Statistic> {
        let cell = self.cell(workload, subject)?;
        if cell.failure.is_some() {
            return None;
        }
        let values: Vec<f64> =
            cell.rounds.iter().filter_map(|metrics| metrics.get(metric).copied()).collect();
        Statistic::of(&values, better)
    }

    /// The best round.
    pub fn best(&self, workload: &str, subject: &str, metric: &str, better: Better) -> Option<f64> {
        Some(self.statistic(workload, subject, metric, better)?.best)
    }

    /// The limits that stand beside this workload.
    pub fn limits(&self, workload: &str) -> impl Iterator<Item = &str> {
        let cells = self.cells.iter().filter(move |cell| cell.workload == workload && cell.is_limit);
        cells.map(|cell| cell.subject.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn best_is_the_most_of_rates_and_the_least_of_times() {
        let values = [3.0, 1.0, 2.0];
        assert_eq!(
            Statistic::of(&values, Better::More),
            Some(Statistic { best: 3.0, median: 2.0, spread: 1.0 })
        );
        assert_eq!(
            Statistic::of(&values, Better::Less),
            Some(Statistic { best: 1.0, median: 2.0, spread: 1.0 })
        );
        assert_eq!(Statistic::of(&[2.0, 4.0], Better::More).map(|statistic| statistic.median), Some(3.0));
        assert_eq!(Statistic::of(&[], Better::More), None);
    }
}
