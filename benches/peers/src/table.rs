//! The table: rows of numbers in groups, one line a subject, in Markdown.

use comfy_table::{Table, presets::ASCII_MARKDOWN};

use crate::audit::Audit;
use crate::report::{About, Better, Failure, Report, Statistic};

/// How a number is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unit {
    /// Records a second.
    Rate,
    Seconds,
    Bytes,
    /// Times something else.
    Times,
    Share,
}

/// One column of numbers.
pub struct Row {
    pub title: &'static str,
    pub workload: &'static str,
    pub metric: &'static str,
    pub unit: Unit,
}

/// What must be known of a subject to judge its numbers, and so stands beside them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Beside {
    /// What a durable append was seen to do.
    Audit,
    /// Whether reads check a checksum over the payload.
    Verification,
}

/// Rows that belong together.
pub struct Group {
    pub title: &'static str,
    pub beside: Beside,
    pub rows: &'static [Row],
}

const fn row(title: &'static str, workload: &'static str, metric: &'static str, unit: Unit) -> Row {
    Row { title, workload, metric, unit }
}

/// All that is shown, in order.
pub const GROUPS: &[Group] = &[
    Group {
        title: "Unsynced appends, single calls (records/s)",
        beside: Beside::Audit,
        rows: &[
            row("128 B", "append-128", "rate", Unit::Rate),
            row("1 KiB", "append-1k", "rate", Unit::Rate),
            row("16 KiB", "append-16k", "rate", Unit::Rate),
        ],
    },
    Group {
        title: "Unsynced appends in batches (records/s)",
        beside: Beside::Audit,
        rows: &[
            row("1,000 x 128 B", "batch-128", "rate", Unit::Rate),
            row("100 x 1 KiB", "batch-1k", "rate", Unit::Rate),
            row("10 x 16 KiB", "batch-16k", "rate", Unit::Rate),
        ],
    },
    Group {
        title: "Durable appends of 1 KiB by threads (records/s)",
        beside: Beside::Audit,
        rows: &[
            row("1 thread", "durable-1", "rate", Unit::Rate),
            row("4", "durable-4", "rate", Unit::Rate),
            row("16", "durable-16", "rate", Unit::Rate),
            row("64", "durable-64", "rate", Unit::Rate),
        ],
    },
    Group {
        title: "Durable appends of 1 KiB: how long a call takes",
        beside: Beside::Audit,
        rows: &[
            row("1 thread, p50", "durable-1", "p50", Unit::Seconds),
            row("p99", "durable-1", "p99", Unit::Seconds),
            row("64 threads, p50", "durable-64", "p50", Unit::Seconds),
            row("p99", "durable-64", "p99", Unit::Seconds),
        ],
    },
    Group {
        title: "Durable batches of 100 x 128 B",
        beside: Beside::Audit,
        rows: &[
            row("records/s", "durable-batch", "rate", Unit::Rate),
            row("p50 of a batch", "durable-batch", "p50", Unit::Seconds),
            row("p99", "durable-batch", "p99", Unit::Seconds),
        ],
    },
    Group {
        title: "Tickets: durable appends of 128 B by one thread, a window not yet durable (records/s)",
        beside: Beside::Audit,
        rows: &[
            row("window 1", "tickets-1", "rate", Unit::Rate),
            row("16", "tickets-16", "rate", Unit::Rate),
            row("256", "tickets-256", "rate", Unit::Rate),
            row("4096", "tickets-4096", "rate", Unit::Rate),
        ],
    },
    Group {
        title: "Scan of a whole log (records/s)",
        beside: Beside::Verification,
        rows: &[
            row("128 B", "scan-128", "rate", Unit::Rate),
            row("first pass", "scan-128", "first_rate", Unit::Rate),
            row("1 KiB", "scan-1k", "rate", Unit::Rate),
            row("first pass", "scan-1k", "first_rate", Unit::Rate),
        ],
    },
    Group {
        title: "Random reads of 1 KiB (records/s)",
        beside: Beside::Verification,
        rows: &[
            row("1 thread", "random-1", "rate", Unit::Rate),
            row("2 threads", "random-2", "rate", Unit::Rate),
        ],
    },
    Group {
        title: "Reading while writing: from the durable append's return to the reader",
        beside: Beside::Audit,
        rows: &[row("lag, p50", "lag", "p50", Unit::Seconds), row("lag, p99", "lag", "p99", Unit::Seconds)],
    },
    Group {
        title: "Reopening (time)",
        beside: Beside::Audit,
        rows: &[
            row("closed, 0.25 GiB", "reopen-256m", "seconds", Unit::Seconds),
            row("closed, 1 GiB", "reopen-1g", "seconds", Unit::Seconds),
            row("closed, 4 GiB", "reopen-4g", "seconds", Unit::Seconds),
            row("kill -9, 0.25 GiB", "killed-256m", "seconds", Unit::Seconds),
            row("kill -9, 1 GiB", "killed-1g", "seconds", Unit::Seconds),
            row("kill -9, 4 GiB", "killed-4g", "seconds", Unit::Seconds),
        ],
    },
    Group {
        title: "Peak anonymous memory (RssAnon) of the reopening process",
        beside: Beside::Audit,
        rows: &[
            row("closed, 0.25 GiB", "reopen-256m", "anonymous", Unit::Bytes),
            row("closed, 1 GiB", "reopen-1g", "anonymous", Unit::Bytes),
            row("closed, 4 GiB", "reopen-4g", "anonymous", Unit::Bytes),
            row("kill -9, 0.25 GiB", "killed-256m", "anonymous", Unit::Bytes),
            row("kill -9, 1 GiB", "killed-1g", "anonymous", Unit::Bytes),
            row("kill -9, 4 GiB", "killed-4g", "anonymous", Unit::Bytes),
        ],
    },
    Group {
        title: "Peak of all resident memory (VmHWM) of the reopening process, mapped files included",
        beside: Beside::Audit,
        rows: &[
            row("closed, 0.25 GiB", "reopen-256m", "high_water", Unit::Bytes),
            row("closed, 1 GiB", "reopen-1g", "high_water", Unit::Bytes),
            row("closed, 4 GiB", "reopen-4g", "high_water", Unit::Bytes),
            row("kill -9, 0.25 GiB", "killed-256m", "high_water", Unit::Bytes),
            row("kill -9, 1 GiB", "killed-1g", "high_water", Unit::Bytes),
            row("kill -9, 4 GiB", "killed-4g", "high_water", Unit::Bytes),
        ],
    },
    Group {
        title: "Peak anonymous memory (RssAnon) of the process that fills the log, unsynced",
        beside: Beside::Audit,
        rows: &[
            row("0.25 GiB", "reopen-256m", "fill_anonymous", Unit::Bytes),
            row("1 GiB", "reopen-1g", "fill_anonymous", Unit::Bytes),
            row("4 GiB", "reopen-4g", "fill_anonymous", Unit::Bytes),
        ],
    },
    Group {
        title: "Peak anonymous memory (RssAnon) of the process that opens the log and reads it whole",
        beside: Beside::Audit,
        rows: &[
            row("0.25 GiB", "reopen-256m", "read_anonymous", Unit::Bytes),
            row("1 GiB", "reopen-1g", "read_anonymous", Unit::Bytes),
            row("4 GiB", "reopen-4g", "read_anonymous", Unit::Bytes),
        ],
    },
    Group {
        title: "Bytes on disk per payload byte, after a clean close",
        beside: Beside::Audit,
        rows: &[
            row("128 B, length", "scan-128", "length_per_payload", Unit::Times),
            row("allocated", "scan-128", "allocated_per_payload", Unit::Times),
            row("1 KiB, length", "scan-1k", "length_per_payload", Unit::Times),
            row("allocated", "scan-1k", "allocated_per_payload", Unit::Times),
        ],
    },
    Group {
        title: "Giving up the older half of 256 MiB, then sync",
        beside: Beside::Audit,
        rows: &[
            row("time", "truncate", "seconds", Unit::Seconds),
            row("space freed", "truncate", "freed", Unit::Share),
        ],
    },
];

impl Unit {
    pub fn better(self) -> Better {
        match self {
            Unit::Rate | Unit::Share => Better::More,
            Unit::Seconds | Unit::Bytes | Unit::Times => Better::Less,
        }
    }

    /// With three digits that matter.
    pub fn show(self, value: f64) -> String {
        let scaled = |value: f64, steps: &[(f64, &str)]| {
            let (by, name) =
                steps.iter().find(|(by, _)| value >= *by).or(steps.last()).copied().unwrap_or((1.0, ""));
            let value = value / by;
            let digits = if value >= 100.0 {
                0
            } else if value >= 10.0 {
                1
            } else {
                2
            };
            format!("{value:.digits$}{name}")
        };
        match self {
            Unit::Rate => scaled(value, &[(1e9, " G"), (1e6, " M"), (1e3, " k"), (1.0, "")]),
            Unit::Seconds => scaled(value, &[(1.0, " s"), (1e-3, " ms"), (1e-6, " µs")]),
            Unit::Bytes => {
                scaled(value, &[(1_073_741_824.0, " GiB"), (1_048_576.0, " MiB"), (1024.0, " KiB")])
            }
            Unit::Times => format!("{value:.3}"),
            // Not "-0 %".
            Unit::Share => format!("{:.0} %", (value * 100.0).round() + 0.0),
        }
    }
}

impl Beside {
    fn header(self) -> &'static str {
        match self {
            Beside::Audit => "a durable append",
            Beside::Verification => "checks each read",
        }
    }

    fn of(self, about: &About) -> String {
        match self {
            Beside::Audit => about.audit.to_string(),
            Beside::Verification => if about.verifies_reads { "yes" } else { "no" }.to_string(),
        }
    }
}

impl Row {
    pub fn statistic(&self, report: &Report, subject: &str) -> Option<Statistic> {
        report.statistic(self.workload, subject, self.metric, self.unit.better())
    }
}

/// What is written where a number could be.
fn text(report: &Report, row: &Row, subject: &str) -> String {
    if let Some(found) = row.statistic(report, subject) {
        let best = row.unit.show(found.best);
        let rounds = report.cell(row.workload, subject).map_or(0, |cell| cell.rounds.len());
        return match rounds {
            0 | 1 => best,
            _ => format!("{best} ({}, {:.0} %)", row.unit.show(found.median), found.spread * 100.0),
        };
    }
    match report.cell(row.workload, subject).map(|cell| &cell.failure) {
        Some(Some(Failure::TimedOut { seconds })) => format!("> {seconds:.0} s"),
        Some(Some(Failure::Failed(_))) => "FAILED".to_string(),
        _ => "-".to_string(),
    }
}

/// A table in Markdown.
pub fn markdown(header: Vec<String>, lines: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(ASCII_MARKDOWN).set_header(header).add_rows(lines);
    table.to_string()
}

/// What each subject says of a durable append, and what it was seen to do.
pub fn render_audits(subjects: &[About]) -> String {
    let header = ["", "says", "seen: a durable append", "calls for each append", "truly durable"];
    let lines = subjects.iter().map(|about| {
        let (calls, durable) = match &about.audit {
            Audit::NotAudited(why) => (why.clone(), "not audited"),
            Audit::Traced(trace) => {
                let each = |(call, count): (&String, &u64)| {
                    format!("{call} {:.2}", *count as f64 / trace.appends as f64)
                };
                let calls: Vec<String> = trace.calls.iter().map(each).collect();
                (calls.join(", "), if about.audit.is_durable() { "yes" } else { "NO" })
            }
        };
        [&about.name, &about.claims, &about.audit.to_string(), &calls, durable].map(str::to_string).to_vec()
    });
    format!("\n## Audit\n\n{}\n", markdown(header.map(str::to_string).to_vec(), lines.collect()))
}

/// Every group that has a number, and what failed.
pub fn render(report: &Report) -> String {
    let mut out = format!("{}\n\n{}\n", report.command, report.machine);
    out += &format!(
        "\nBest of {} rounds (in brackets: the median, and the distance from the least to the greatest as a share of it). \
         Every number is of a run that was reopened and read whole.{}\n",
        report.rounds,
        if report.quick { " QUICK: small sizes and short times; the numbers are rough." } else { "" }
    );
    out += &render_audits(&report.subjects);
    for group in GROUPS {
        out += &render_group(report, group);
    }
    let failed: Vec<String> = report
        .cells
        .iter()
        .filter_map(|cell| match &cell.failure {
            Some(Failure::Failed(why)) => Some(format!("- {} {}: {why}\n", cell.workload, cell.subject)),
            _ => None,
        })
        .collect();
    if !failed.is_empty() {
        out += &format!("\n## Failed\n\n{}", failed.concat());
    }
    out
}

fn render_group(report: &Report, group: &Group) -> String {
    let rows: Vec<&Row> = group
        .rows
        .iter()
        .filter(|row| report.cells.iter().any(|cell| cell.workload == row.workload))
        .collect();
    if rows.is_empty() {
        return String::new();
    }
    let mut limits: Vec<&str> = rows.iter().flat_map(|row| report.limits(row.workload)).collect();
    limits.dedup();
    limits.sort_unstable();
    limits.dedup();
    let header =
        ["", group.beside.header()].into_iter().chain(rows.iter().map(|row| row.title)).map(str::to_string);
    let line = |name: &str, beside: String| -> Vec<String> {
        [name.to_string(), beside].into_iter().chain(rows.iter().map(|row| text(report, row, name))).collect()
    };
    let subjects = report.subjects.iter().map(|about| line(&about.name, group.beside.of(about)));
    let limits = limits.into_iter().map(|limit| {
        let mut cells = line(limit, "limit".to_string());
        cells[0] = format!("*{limit}*");
        cells
    });
    // A limit that says nothing of these rows is none of theirs; a subject that cannot is told by its dashes.
    let limits = limits.filter(|cells| cells.iter().skip(2).any(|cell| cell != "-"));
    format!("\n## {}\n\n{}\n", group.title, markdown(header.collect(), subjects.chain(limits).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_with_three_digits() {
        assert_eq!(Unit::Rate.show(9_190_000.0), "9.19 M");
        assert_eq!(Unit::Rate.show(77_100.0), "77.1 k");
        assert_eq!(Unit::Seconds.show(0.000_118), "118 µs");
        assert_eq!(Unit::Seconds.show(0.0), "0.00 µs");
        assert_eq!(Unit::Bytes.show(8.0 * 1_048_576.0), "8.00 MiB");
        assert_eq!(Unit::Share.show(0.49), "49 %");
    }

    #[test]
    fn every_row_is_of_a_workload_that_exists() {
        let workloads: Vec<String> =
            crate::workloads::all().iter().map(|workload| workload.name().to_string()).collect();
        for row in GROUPS.iter().flat_map(|group| group.rows) {
            assert!(workloads.iter().any(|name| name == row.workload), "{}", row.workload);
        }
    }
}
