//! Running the operator's tool, as an operator would: another program, by its command line.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::Outcome;

/// How a Rust program ends that panicked; and cargo, when it could not build.
const PANICKED: i32 = 101;

/// How the tool ended.
pub(crate) struct Ended(Option<i32>);

impl Ended {
    pub(crate) fn succeeded(&self) -> bool {
        self.0 == Some(0)
    }

    /// It ended in an orderly way, and not with "all is well".
    pub(crate) fn found_damage(&self) -> bool {
        self.0.is_some_and(|code| code != 0 && code != PANICKED)
    }

    /// It did what it was to do.
    pub(crate) fn corrected(&self) -> bool {
        self.0 == Some(1)
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(code) => write!(f, "exit code {code}"),
            None => f.write_str("killed by a signal"),
        }
    }
}

/// What to type to do the same.
pub(crate) fn command_line(verb: &str, directory: &Path, more: &[&str]) -> String {
    let more: String = more.iter().map(|word| format!(" {word}")).collect();
    format!("cargo run --release -p log-repair -- {verb} {}{more}", directory.display())
}

/// Runs `log-repair`: how it ended and what it said.
pub(crate) fn run(verb: &str, directory: &Path, more: &[&str]) -> Outcome<(Ended, String)> {
    let mut command = tool()?;
    let Output { status, stdout, stderr } = command
        .arg(verb)
        .arg(directory)
        .args(more)
        .output()
        .map_err(|error| format!("cannot run log-repair ({command:?}): {error}"))?;
    let mut said = String::from_utf8_lossy(&stdout).into_owned();
    said.push_str(&String::from_utf8_lossy(&stderr));
    Ok((Ended(status.code()), said))
}

/// Whether `said` has the number in it, as a number of its own.
pub(crate) fn names(said: &str, number: u64) -> bool {
    said.split(|letter: char| !letter.is_ascii_digit()).any(|digits| digits.parse() == Ok(number))
}

/// Cargo's fresh build of the tool, or, where this program was started without cargo, the binary
/// that lies in the same target directory.
fn tool() -> Outcome<Command> {
    let binary = match std::env::var_os("CARGO") {
        Some(cargo) => Some(build(Path::new(&cargo))?),
        None => beside_this_example().filter(|binary| binary.is_file()),
    };
    let missing =
        "there is no log-repair: run this example with cargo, or `cargo build --release -p log-repair` first";
    Ok(Command::new(binary.ok_or(missing)?))
}

/// Builds the tool; gives its path.
fn build(cargo: &Path) -> Outcome<PathBuf> {
    let mut command = Command::new(cargo);
    command.args([
        "build",
        "--quiet",
        "--package",
        "log-repair",
        "--message-format",
        "json-render-diagnostics",
    ]);
    command.arg("--manifest-path").arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml"));
    if !cfg!(debug_assertions) {
        command.arg("--release");
    }
    let built = command.output().map_err(|error| format!("cannot run {}: {error}", cargo.display()))?;
    if !built.status.success() {
        return Err(format!("log-repair cannot be built:\n{}", String::from_utf8_lossy(&built.stderr)).into());
    }
    // One JSON object a line; the last one with an executable is the binary's.
    let said = String::from_utf8(built.stdout)?;
    let mut paths = said.lines().filter_map(|line| line.split_once("\"executable\":\"")?.1.split_once('"'));
    let (path, _) = paths.next_back().ok_or("cargo built log-repair, but does not say where")?;
    Ok(PathBuf::from(path.replace("\\\\", "\\")))
}

/// `target/release/log-repair`, where this is `target/release/examples/crash`.
fn beside_this_example() -> Option<PathBuf> {
    let here = std::env::current_exe().ok()?;
    Some(here.parent()?.parent()?.join(format!("log-repair{}", std::env::consts::EXE_SUFFIX)))
}
