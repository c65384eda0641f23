//! What Stonelog must reach: each row's number, the ratio asked, the ratio reached, and whether that is met.
//!
//! A ratio is always of best rounds. It knows the report alone; nothing is measured here.

use crate::report::{About, Better, Report};
use crate::table::{Unit, markdown};
use crate::workloads::{KIB, MIB};

const SUBJECT: &str = "stonelog";

/// "Flat": the largest log may take this much longer than the smallest.
const FLAT: f64 = 1.5;

/// What is asked of a number.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Asked {
    AtLeast(f64),
    AtMost(f64),
}

impl Asked {
    fn is_met(self, reached: f64) -> bool {
        match self {
            Asked::AtLeast(ratio) => reached >= ratio,
            Asked::AtMost(ratio) => reached <= ratio,
        }
    }

    fn show(self) -> String {
        match self {
            Asked::AtLeast(ratio) => format!("at least {ratio:.2}"),
            Asked::AtMost(ratio) => format!("at most {ratio:.2}"),
        }
    }
}

/// One target.
struct Target {
    what: &'static str,
    asked: Asked,
    /// What it is aimed at beyond that.
    aim: Option<f64>,
    /// The number, and what stands beside it.
    found: Option<Found>,
}

struct Found {
    number: String,
    beside: String,
    ratio: f64,
}

impl Target {
    fn new(what: &'static str, asked: Asked, found: Option<Found>) -> Target {
        Target { what, asked, aim: None, found }
    }

    fn aiming(mut self, aim: f64) -> Target {
        self.aim = Some(aim);
        self
    }

    fn line(&self) -> Vec<String> {
        let asked = match self.aim {
            Some(aim) => format!("{} (aim {aim:.0})", self.asked.show()),
            None => self.asked.show(),
        };
        let (number, beside, reached, met) = match &self.found {
            Some(found) => {
                let met = if self.asked.is_met(found.ratio) { "met" } else { "NOT MET" };
                (found.number.clone(), found.beside.clone(), format!("{:.2}", found.ratio), met)
            }
            None => ("-".to_string(), "-".to_string(), "-".to_string(), "not measured"),
        };
        vec![self.what.to_string(), number, beside, asked, reached, met.to_string()]
    }
}

/// The table of targets; nothing where Stonelog was not measured.
pub fn render(report: &Report) -> String {
    if !report.cells.iter().any(|cell| cell.subject == SUBJECT) {
        return String::new();
    }
    let header = ["target", "number", "beside", "ratio asked", "ratio reached", ""];
    let lines = all(report).iter().map(Target::line).collect();
    format!("\n## Targets\n\n{}\n", markdown(header.map(str::to_string).to_vec(), lines))
}

fn all(report: &Report) -> Vec<Target> {
    use Asked::{AtLeast, AtMost};
    let look = Look { report };
    let durable = |about: &About| about.audit.is_durable();
    let verifies = |about: &About| about.verifies_reads;
    let any = |_: &About| true;
    let sync_floor = "write + fdatasync 4 KiB, written before";
    vec![
        Target::new("append 128 B, single calls, unsynced", AtLeast(8.0), look.rate("append-128", any))
            .aiming(10.0),
        Target::new("append 128 B, batches of 1,000", AtLeast(2.5), look.rate("batch-128", any)),
        Target::new(
            "append 16 KiB, unsynced, of a bare write(2)",
            AtLeast(0.8),
            look.rate_of_limit("append-16k", "write(2), 1 MiB each"),
        ),
        Target::new(
            "durable append, 1 thread, p50 of the floor's",
            AtMost(1.1),
            look.p50_of("durable-1", sync_floor),
        ),
        Target::new(
            "durable append, 1 thread, p50 of the best truly durable peer's",
            AtMost(1.0),
            look.beside_peer("durable-1", "p50", Unit::Seconds, durable),
        ),
        Target::new("durable append, 64 threads", AtLeast(1.5), look.rate("durable-64", durable)).aiming(2.0),
        Target::new("durable batches of 100 x 128 B", AtLeast(1.2), look.rate("durable-batch", durable)),
        Target::new(
            "tickets, window 4096, of the unsynced rate",
            AtLeast(0.5),
            look.own_beside_own("tickets-4096", "append-128"),
        ),
        Target::new(
            "scan, 128 B, beside a peer that verifies",
            AtLeast(2.0),
            look.rate("scan-128", verifies),
        ),
        Target::new(
            "scan, 128 B, of a bare loop",
            AtLeast(0.8),
            look.rate_of_limit("scan-128", "bare loop over frames"),
        ),
        Target::new("scan, 1 KiB, beside a peer that verifies", AtLeast(2.0), look.rate("scan-1k", verifies)),
        Target::new(
            "scan, 1 KiB, of a bare loop",
            AtLeast(0.8),
            look.rate_of_limit("scan-1k", "bare loop over frames"),
        ),
        Target::new("random read, 1 KiB", AtLeast(2.0), look.rate("random-1", any)),
        Target::new(
            "random read, two threads of one",
            AtLeast(1.8),
            look.own_beside_own("random-2", "random-1"),
        ),
        Target::new("reopen after a close, 4 GiB, of 5 ms", AtMost(1.0), look.seconds_of("reopen-4g", 0.005)),
        Target::new(
            "reopen after a close, 4 GiB, of 0.25 GiB (flat)",
            AtMost(FLAT),
            look.flat("reopen-4g", "reopen-256m"),
        ),
        Target::new("reopen after kill -9, 4 GiB, of what is unsealed", AtMost(1.0), look.killed()),
        Target::new("the same: copied, of 16 MiB", AtMost(1.0), look.copied()),
        Target::new("bytes on disk per payload byte, 128 B", AtMost(1.13), look.space("scan-128")),
        Target::new("bytes on disk per payload byte, 1 KiB", AtMost(1.02), look.space("scan-1k")),
        Target::new(
            "truncate_front of half of 256 MiB, of 5 ms",
            AtMost(1.0),
            look.seconds_of("truncate", 0.005),
        ),
        Target::new("the same: space freed, of half", AtLeast(0.8), look.freed()),
        Target::new("memory (peak RssAnon), of 8 MiB", AtMost(1.0), look.memory()),
    ]
}

/// Looks numbers up.
struct Look<'a> {
    report: &'a Report,
}

impl Look<'_> {
    fn own(&self, workload: &str, metric: &str, unit: Unit) -> Option<f64> {
        self.report.best(workload, SUBJECT, metric, unit.better())
    }

    fn found(number: f64, unit: Unit, beside: f64, whose: &str) -> Found {
        Found {
            number: unit.show(number),
            beside: format!("{} {whose}", unit.show(beside)),
            ratio: number / beside,
        }
    }

    /// Beside the best of the peers that are asked for.
    fn beside_peer(
        &self,
        workload: &str,
        metric: &str,
        unit: Unit,
        which: impl Fn(&About) -> bool,
    ) -> Option<Found> {
        let own = self.own(workload, metric, unit)?;
        let peers = self.report.subjects.iter().filter(|about| about.name != SUBJECT && which(about));
        let numbers = peers.filter_map(|about| {
            Some((about.name.as_str(), self.report.best(workload, &about.name, metric, unit.better())?))
        });
        let by_number = |a: &(&str, f64), b: &(&str, f64)| a.1.total_cmp(&b.1);
        let (name, best) = match unit.better() {
            Better::More => numbers.max_by(by_number)?,
            Better::Less => numbers.min_by(by_number)?,
        };
        Some(Look::found(own, unit, best, name))
    }

    fn rate(&self, workload: &str, which: impl Fn(&About) -> bool) -> Option<Found> {
        self.beside_peer(workload, "rate", Unit::Rate, which)
    }

    fn rate_of_limit(&self, workload: &str, limit: &str) -> Option<Found> {
        let best = self.report.best(workload, limit, "rate", Better::More)?;
        Some(Look::found(self.own(workload, "rate", Unit::Rate)?, Unit::Rate, best, limit))
    }

    fn p50_of(&self, workload: &str, limit: &str) -> Option<Found> {
        let best = self.report.best(workload, limit, "p50", Better::Less)?;
        Some(Look::found(self.own(workload, "p50", Unit::Seconds)?, Unit::Seconds, best, limit))
    }

    fn own_beside_own(&self, workload: &str, other: &str) -> Option<Found> {
        let beside = self.own(other, "rate", Unit::Rate)?;
        Some(Look::found(self.own(workload, "rate", Unit::Rate)?, Unit::Rate, beside, other))
    }

    fn seconds_of(&self, workload: &str, seconds: f64) -> Option<Found> {
        Some(Look::found(self.own(workload, "seconds", Unit::Seconds)?, Unit::Seconds, seconds, "asked"))
    }

    fn flat(&self, large: &str, small: &str) -> Option<Found> {
        let beside = self.own(small, "seconds", Unit::Seconds)?;
        Some(Look::found(self.own(large, "seconds", Unit::Seconds)?, Unit::Seconds, beside, small))
    }

    /// What a recovery may take: what it scans at half the rate of a scan, and what it copies at the machine's own rate
    /// of copying with an fsync.
    fn killed(&self) -> Option<Found> {
        let seconds = self.own("killed-4g", "seconds", Unit::Seconds)?;
        let scanned = self.own("killed-4g", "scanned_bytes", Unit::Bytes)?;
        let copied = self.own("killed-4g", "copied_records", Unit::Bytes)? * KIB as f64;
        let scan_rate = self.own("scan-1k", "rate", Unit::Rate)? * KIB as f64;
        let copy = self.report.best("killed-256m", "copy + fsync of 16 MiB", "seconds", Better::Less)?;
        let bound = scanned / (scan_rate / 2.0) + copy * (copied / (16 * MIB) as f64);
        let whose = format!("for {} scanned, {} copied", Unit::Bytes.show(scanned), Unit::Bytes.show(copied));
        Some(Look::found(seconds, Unit::Seconds, bound, &whose))
    }

    fn copied(&self) -> Option<Found> {
        let copied = self.own("killed-4g", "copied_records", Unit::Bytes)? * KIB as f64;
        Some(Look::found(copied, Unit::Bytes, (16 * MIB) as f64, "asked"))
    }

    /// The greater of length and allocated blocks.
    fn space(&self, workload: &str) -> Option<Found> {
        let length = self.own(workload, "length_per_payload", Unit::Times)?;
        let allocated = self.own(workload, "allocated_per_payload", Unit::Times)?;
        let number = format!("{length:.3} length, {allocated:.3} allocated");
        Some(Found { number, beside: "payload".to_string(), ratio: length.max(allocated) })
    }

    fn freed(&self) -> Option<Found> {
        let freed = self.own("truncate", "freed", Unit::Share)?;
        Some(Look::found(freed, Unit::Share, 0.5, "of all"))
    }

    /// The greatest of all that were looked at: filling, reopening and reading whole, at every size.
    fn memory(&self) -> Option<Found> {
        let cells = self.report.cells.iter().filter(|cell| cell.subject == SUBJECT && cell.failure.is_none());
        let values = cells.flat_map(|cell| &cell.rounds).flat_map(|metrics| {
            ["anonymous", "fill_anonymous", "read_anonymous"]
                .into_iter()
                .filter_map(|metric| metrics.get(metric).copied())
        });
        let most = values.max_by(f64::total_cmp)?;
        Some(Look::found(most, Unit::Bytes, (8 * MIB) as f64, "asked"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::{Audit, Trace};
    use crate::machine::Machine;
    use crate::report::{Cell, Failure};

    fn about(name: &str, durable: bool) -> About {
        let trace =
            Trace { appends: 1, syncs: u64::from(durable), least: u64::from(durable), ..Trace::default() };
        About {
            name: name.into(),
            claims: String::new(),
            verifies_reads: durable,
            audit: Audit::Traced(trace),
        }
    }

    fn cell(workload: &str, subject: &str, rate: f64, failure: Option<Failure>) -> Cell {
        Cell {
            workload: workload.into(),
            subject: subject.into(),
            is_limit: false,
            rounds: vec![[("rate".to_string(), rate)].into()],
            failure,
        }
    }

    fn report(cells: Vec<Cell>) -> Report {
        Report {
            command: String::new(),
            machine: Machine {
                processor: String::new(),
                cores: 1,
                memory_bytes: 0,
                kernel: String::new(),
                file_system: String::new(),
            },
            quick: false,
            rounds: 1,
            subjects: vec![about(SUBJECT, true), about("syncs", true), about("lies", false)],
            cells,
        }
    }

    #[test]
    fn only_truly_durable_peers_count_where_durability_is_asked() {
        let report = report(vec![
            cell("durable-64", SUBJECT, 30.0, None),
            cell("durable-64", "syncs", 10.0, None),
            cell("durable-64", "lies", 1000.0, None),
        ]);
        let look = Look { report: &report };
        assert_eq!(look.rate("durable-64", |about| about.audit.is_durable()).unwrap().ratio, 3.0);
        assert_eq!(look.rate("durable-64", |_| true).unwrap().ratio, 0.03);
    }

    #[test]
    fn a_peer_that_failed_is_no_peer() {
        let failed = Some(Failure::Failed("verification".into()));
        let report = report(vec![
            cell("append-128", SUBJECT, 30.0, None),
            cell("append-128", "syncs", 60.0, failed),
            cell("append-128", "lies", 15.0, None),
        ]);
        assert_eq!(Look { report: &report }.rate("append-128", |_| true).unwrap().ratio, 2.0);
    }

    #[test]
    fn a_target_is_met_at_its_ratio_and_not_short_of_it() {
        assert!(Asked::AtLeast(2.0).is_met(2.0) && !Asked::AtLeast(2.0).is_met(1.99));
        assert!(Asked::AtMost(1.1).is_met(1.1) && !Asked::AtMost(1.1).is_met(1.11));
        let target = Target::new("a", Asked::AtLeast(2.0), None);
        assert_eq!(target.line().last().unwrap(), "not measured");
    }
}
