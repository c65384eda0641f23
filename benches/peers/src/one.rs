//! The child: one phase of one workload for one subject, in a process of its own, told in one line of JSON.

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};

use crate::limits::{self, Limit};
use crate::payload::Expected;
use crate::subject::Kind;
use crate::workloads::{self, Outcome, Task, Workload};
use crate::{audit, subjects};

/// Which part of a measurement.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Phase {
    Prepare,
    Measure,
    Verify,
    /// The appends that the audit traces.
    Audit,
}

/// What the parent asks for.
#[derive(Args, Debug)]
pub struct One {
    #[arg(long)]
    pub phase: Phase,
    #[arg(long, default_value = "")]
    pub workload: String,
    #[arg(long)]
    pub subject: String,
    #[arg(long)]
    pub directory: PathBuf,
    #[arg(long)]
    pub quick: bool,
    /// JSON: what the phase before left.
    #[arg(long)]
    pub expected: Option<String>,
}

/// Does it and prints the outcome.
pub fn run(one: &One) -> Result<()> {
    let expected: Option<Expected> = one.expected.as_deref().map(serde_json::from_str).transpose()?;
    let limit = Limit::by_name(&one.subject);
    let kind = match limit {
        Some(_) => limits::KIND,
        None => kind(&one.subject)?,
    };
    let task = Task { kind, directory: &one.directory, quick: one.quick, expected };
    let outcome = match (one.phase, limit) {
        (Phase::Prepare, None) => workload(&one.workload)?.prepare(&task)?,
        (Phase::Measure, None) => workload(&one.workload)?.measure(&task)?,
        (Phase::Prepare, Some(limit)) => limit.prepare(&task, workload(&one.workload)?.size())?,
        (Phase::Measure, Some(limit)) => limit.measure(&task, workload(&one.workload)?.size())?,
        (Phase::Verify, _) => workloads::verify(&task)?,
        (Phase::Audit, _) => audit::appends(&task)?,
    };
    print(&outcome)
}

/// Prints an outcome as the parent reads it.
pub fn print(outcome: &Outcome) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", serde_json::to_string(outcome)?)?;
    Ok(out.flush()?)
}

fn kind(name: &str) -> Result<&'static dyn Kind> {
    let all = subjects::all();
    match all.iter().find(|kind| kind.name() == name) {
        Some(kind) => Ok(*kind),
        None => bail!("no subject is called {name}"),
    }
}

fn workload(name: &str) -> Result<Box<dyn Workload>> {
    let found = workloads::all().into_iter().find(|workload| workload.name() == name);
    found.with_context(|| format!("no workload is called {name}"))
}
