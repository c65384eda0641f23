//! Stonelog, its peers and the machine's limits, measured side by side. README.md says how to run it and what each row
//! does. This file only reads the command line.

mod audit;
mod limits;
mod machine;
mod one;
mod payload;
mod plot;
mod report;
mod run;
mod subject;
mod subjects;
mod table;
mod targets;
mod workloads;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand};

use crate::report::Report;
use crate::run::Settings;

#[derive(Parser)]
#[command(about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measures everything and prints the table and the targets.
    Table(TableArguments),
    /// Shows what each peer really does for a durable append.
    Audit {
        /// Only these, separated by commas.
        #[arg(long, value_delimiter = ',')]
        subjects: Vec<String>,
        #[arg(long, default_value_os_t = std::env::temp_dir())]
        directory: PathBuf,
    },
    /// Prints the table of an earlier run again, from its JSON.
    Render {
        file: PathBuf,
        /// Also draws it.
        #[arg(long)]
        svg: Option<PathBuf>,
    },
    #[command(hide = true)]
    One(one::One),
}

#[derive(Args)]
struct TableArguments {
    /// Small sizes and one round: shows that all works; the numbers are rough.
    #[arg(long)]
    quick: bool,
    /// Only workloads of these names, or whose names begin so, separated by commas.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Only these, separated by commas.
    #[arg(long, value_delimiter = ',')]
    subjects: Vec<String>,
    /// How often each is measured (3; quick: 1).
    #[arg(long)]
    rounds: Option<usize>,
    /// Where the logs are made: it should be on the disk that you mean.
    #[arg(long, default_value_os_t = std::env::temp_dir())]
    directory: PathBuf,
    /// How many seconds one process may take.
    #[arg(long, default_value_t = 60)]
    patience: u64,
    /// Keeps everything in this file.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Draws it into this file.
    #[arg(long)]
    svg: Option<PathBuf>,
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is::<subject::Unsupported>() => ExitCode::from(run::EXIT_UNSUPPORTED as u8),
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    match Cli::parse().command {
        Command::Table(arguments) => table_command(&arguments),
        Command::Audit { subjects, directory } => audit_command(&subjects, &directory),
        Command::Render { file, svg } => {
            let text = std::fs::read_to_string(&file).with_context(|| file.display().to_string())?;
            show(&serde_json::from_str(&text)?, svg.as_deref())
        }
        Command::One(one) => one::run(&one),
    }
}

fn table_command(arguments: &TableArguments) -> Result<()> {
    let report = run::run(&Settings {
        command: command_line(),
        quick: arguments.quick,
        only: arguments.only.clone(),
        subjects: arguments.subjects.clone(),
        rounds: arguments.rounds.unwrap_or(if arguments.quick { 1 } else { 3 }),
        directory: arguments.directory.clone(),
        patience: Duration::from_secs(arguments.patience),
    })?;
    if let Some(path) = &arguments.json {
        std::fs::write(path, serde_json::to_string_pretty(&report)?)?;
    }
    show(&report, arguments.svg.as_deref())
}

fn show(report: &Report, svg: Option<&Path>) -> Result<()> {
    print!("{}", table::render(report));
    print!("{}", targets::render(report));
    if let Some(path) = svg {
        plot::save(report, path)?;
    }
    Ok(())
}

fn audit_command(subjects: &[String], directory: &Path) -> Result<()> {
    std::fs::create_dir_all(directory)?;
    let base = tempfile::Builder::new().prefix("peers-").tempdir_in(directory)?;
    let abouts = run::audits(&run::chosen_subjects(subjects)?, base.path())?;
    print!("{}", table::render_audits(&abouts));
    Ok(())
}

/// The command as a user would type it, without the paths of this machine.
fn command_line() -> String {
    let mut arguments = std::env::args().skip(1).peekable();
    let mut words = vec!["cargo run --release --manifest-path benches/peers/Cargo.toml --".to_string()];
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--directory" => {
                arguments.next();
                words.push("--directory DIR".to_string());
            }
            with_value if with_value.starts_with("--directory=") => words.push("--directory DIR".to_string()),
            _ => words.push(argument),
        }
    }
    words.join(" ")
}
