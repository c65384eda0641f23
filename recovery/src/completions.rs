//! `completions`: what a shell needs to complete this tool's command line.
//!
//! It owns nothing but the choice of a shell: verbs and options are those of the command line itself, so that
//! nothing here goes stale.

use clap::CommandFactory;
use clap_complete::Shell;

use crate::output::Output;
use crate::{Cli, Exit, Failure};

/// Writes a completion script for a shell to stdout.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// The shell.
    #[arg(value_enum)]
    shell: Shell,
}

const EXAMPLES: &str = "\
For example:
  bash  log-repair completions bash > ~/.local/share/bash-completion/completions/log-repair
  zsh   log-repair completions zsh > ~/.zfunc/_log-repair        (with ~/.zfunc in fpath)
  fish  log-repair completions fish > ~/.config/fish/completions/log-repair.fish";

pub(crate) fn run(arguments: &Arguments, output: &mut Output) -> Result<Exit, Failure> {
    let mut command = Cli::command();
    let name = command.get_name().to_string();
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut command, name, &mut script);
    output.text(&String::from_utf8_lossy(&script))?;
    Ok(Exit::Clean)
}
