//! `man`: the manual pages, made of the command line's own help.
//!
//! It owns which pages there are (one for the tool, one for each verb) and their names. It does not own their
//! words: those are the help's, exit codes included, so that a page and `--help` cannot differ.

use std::path::{Path, PathBuf};

use clap::{Command, CommandFactory};
use clap_mangen::Man;
use stonelog::disk::{self, Disk, OpenMode, OsDisk};

use crate::output::Output;
use crate::{Cli, EXIT_CODES, Exit, Failure};

/// Writes a manual page: the tool's, or a verb's; or all of them into a directory.
#[derive(Debug, clap::Args)]
#[command(after_help = "To read one: log-repair man check | man -l -")]
pub(crate) struct Arguments {
    /// The verb whose page is wanted; without it the tool's.
    #[arg(value_name = "VERB", conflicts_with = "out")]
    verb: Option<String>,
    /// Writes every page into this directory, which is made where it is missing; pages of the same names are
    /// replaced.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

pub(crate) fn run(arguments: &Arguments, output: &mut Output) -> Result<Exit, Failure> {
    let pages = pages();
    if let Some(directory) = &arguments.out {
        write_all(&pages, directory)?;
        output.remark(&format!(
            "{} pages written. To read one: man {}/log-repair.1",
            pages.len(),
            directory.display()
        ));
        return Ok(Exit::Clean);
    }
    let name =
        arguments.verb.as_ref().map_or(String::from("log-repair"), |verb| format!("log-repair-{verb}"));
    let Some((_, page)) = pages.iter().find(|(page, _)| *page == name) else {
        return Err(Failure::Usage(format!("there is no page {name}: log-repair --help names the verbs")));
    };
    output.text(&page_text(&name, page)?)?;
    Ok(Exit::Clean)
}

/// Each page's name, and the part of the command line that it is about.
fn pages() -> Vec<(String, Command)> {
    let mut tool = Cli::command();
    // Gives each verb its full name, and the options that all have.
    tool.build();
    let name = tool.get_name().to_string();
    let verbs: Vec<_> = tool
        .get_subcommands()
        .filter(|verb| verb.get_name() != "help" && !verb.is_hide_set())
        .map(|verb| (format!("{name}-{}", verb.get_name()), verb.clone().version(env!("CARGO_PKG_VERSION"))))
        .collect();
    std::iter::once((name, tool)).chain(verbs).collect()
}

fn page_text(name: &str, command: &Command) -> Result<String, Failure> {
    let man = Man::new(command.clone()).title(name);
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    if command.has_subcommands() {
        man.render_subcommands_section(&mut page)?;
    }
    let mut page = String::from_utf8_lossy(&page).into_owned();
    // What stands behind the options in the help; every page has the exit codes once.
    let after = command.get_after_long_help().or(command.get_after_help());
    let after = after.map(ToString::to_string).unwrap_or_default();
    let notes = after.replace(EXIT_CODES, "");
    if !notes.trim().is_empty() {
        page += &section("NOTES", notes.trim());
    }
    page += &section("EXIT STATUS", EXIT_CODES);
    Ok(page)
}

/// A section whose lines stay as they are.
fn section(title: &str, text: &str) -> String {
    let mut section = format!(".SH \"{title}\"\n.nf\n");
    for line in text.lines() {
        // A dot or a quote at the start of a line would be taken for a command.
        let command = if line.starts_with(['.', '\'']) { "\\&" } else { "" };
        section += &format!("{command}{}\n", line.replace('\\', "\\e").replace('-', "\\-"));
    }
    section + ".fi\n"
}

fn write_all(pages: &[(String, Command)], directory: &Path) -> Result<(), Failure> {
    let failed = |path: &Path, error: std::io::Error| {
        Failure::Said(format!(
            "writing {} failed: {error}. Name another directory with --out",
            path.display()
        ))
    };
    match OsDisk.create_dir(directory) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            return Err(failed(directory, error));
        }
        _ => {}
    }
    for (name, command) in pages {
        let path = directory.join(format!("{name}.1"));
        match OsDisk.remove(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(&path, error)),
            _ => {}
        }
        let text = page_text(name, command)?;
        OsDisk
            .open(&path, OpenMode::CreateNew)
            .and_then(|file| disk::write_all_at(file.as_ref(), text.as_bytes(), 0))
            .map_err(|error| failed(&path, error))?;
    }
    Ok(())
}
