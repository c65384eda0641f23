//! The walkthroughs of docs/OPERATIONS.md and of the README: what they show is what runs.
//!
//! Each `###` section is one session in a directory of its own: every ```console block of it runs, in
//! order, in one shell, with `log-repair` first on its PATH and `demo` doing the damage. A line that begins
//! with `$ ` is a command, and what follows it must be its output (stdout and stderr), byte for byte, but
//! for the placeholders that the page names: a digest is `[DIGEST]`, and an exit code other than 0 stands
//! behind the output as `[exit 4]`. A section that mounts a filesystem runs in a mount namespace of its
//! own, or is skipped where that is not allowed.
//!
//! Where what is shown changes on purpose: `STONELOG_BLESS=1 cargo test -p log-repair --test walkthroughs`
//! writes the pages anew; read the difference.
#![cfg(unix)]
#![allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::print_stderr,
    reason = "a test: it fails by panic, says what it skipped, and works on the real disk"
)]

use std::ffi::OsString;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const OPERATIONS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/OPERATIONS.md");
const README: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md");

const BLESS: &str = "STONELOG_BLESS=1 cargo test -p log-repair --test walkthroughs";

/// Written by the shell behind each command's output, before its exit code.
const MARK: &str = "--- end of the output, exit code ";

/// A command of a page, and the output that the page shows.
#[derive(Debug)]
struct Step {
    /// The number of the command's line, from 0.
    line: usize,
    command: String,
    shown: Vec<String>,
}

/// A `###` section (or whatever comes before the first one) with console blocks.
#[derive(Debug)]
struct Session {
    title: String,
    steps: Vec<Step>,
}

fn sessions(page: &str) -> Vec<Session> {
    let mut sessions = vec![Session { title: String::new(), steps: Vec::new() }];
    let mut fence: Option<bool> = None;
    for (number, line) in page.lines().enumerate() {
        let session = sessions.last_mut().unwrap();
        match fence {
            None if line.starts_with("```") => fence = Some(line == "```console"),
            None if line.starts_with("## ") || line.starts_with("### ") => {
                let title = line.trim_start_matches('#').trim().to_string();
                sessions.push(Session { title, steps: Vec::new() });
            }
            Some(_) if line == "```" => fence = None,
            Some(true) => match line.strip_prefix("$ ") {
                Some(command) => {
                    let (command, shown) = (command.to_string(), Vec::new());
                    session.steps.push(Step { line: number, command, shown });
                }
                None => {
                    let step = session.steps.last_mut().expect("a block begins with a command");
                    assert_eq!(step.line + step.shown.len() + 1, number, "a block begins with a command");
                    step.shown.push(line.to_string());
                }
            },
            _ => {}
        }
    }
    assert_eq!(fence, None, "a block is not closed");
    sessions.retain(|session| !session.steps.is_empty());
    sessions
}

/// A directory with nothing in it but the tool, to be found first.
fn path() -> OsString {
    let tool = Path::new(env!("CARGO_BIN_EXE_log-repair")).parent().unwrap().to_path_buf();
    let rest = std::env::var_os("PATH").unwrap_or_default();
    let all: Vec<PathBuf> = [tool].into_iter().chain(std::env::split_paths(&rest)).collect();
    std::env::join_paths(all).unwrap()
}

/// A shell, in a mount namespace if it has to mount.
fn shell(mounts: bool) -> Command {
    if !mounts {
        return Command::new("sh");
    }
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private"]);
    // Who is not root is so in there: that is enough for a tmpfs.
    if fs::OpenOptions::new().write(true).open("/proc/1/oom_score_adj").is_err() {
        command.args(["--user", "--map-root-user"]);
    }
    command.arg("sh");
    command
}

/// Why nothing can be mounted here.
fn no_mounting(home: &Path) -> Option<String> {
    let tried = shell(true).args(["-ec", "mount -t tmpfs -o size=64k none ."]).current_dir(home).output();
    match tried {
        Ok(tried) if tried.status.success() => None,
        Ok(tried) => Some(String::from_utf8_lossy(&tried.stderr).trim().to_string()),
        Err(error) => Some(format!("no unshare: {error}")),
    }
}

/// What each step puts out, as a page shows it. Nothing where the session cannot run here.
fn run(session: &Session) -> Option<Vec<Vec<String>>> {
    let home = tempfile::tempdir().unwrap();
    let mounts = session.steps.iter().any(|step| step.command.starts_with("mount "));
    if mounts && let Some(why) = no_mounting(home.path()) {
        eprintln!("SKIPPED {:?}: {why}", session.title);
        return None;
    }
    let mut script = String::from("exec 2>&1\n");
    for step in &session.steps {
        script.push_str(&format!("{}\nprintf '\\n{MARK}%s\\n' $?\n", step.command));
    }
    let mut child = shell(mounts)
        .current_dir(home.path())
        .env("PATH", path())
        .env("LC_ALL", "C")
        .env("COLUMNS", "100")
        .env_remove("CLICOLOR_FORCE")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let mut outputs = Vec::new();
    let mut rest = text.as_str();
    while let Some((before, behind)) = rest.split_once(&format!("\n{MARK}")) {
        let (code, behind) = behind.split_once('\n').unwrap();
        let mut lines: Vec<String> = before.lines().map(placeholders).collect();
        if code != "0" {
            lines.push(format!("[exit {code}]"));
        }
        outputs.push(lines);
        rest = behind;
    }
    assert_eq!((outputs.len(), rest), (session.steps.len(), ""), "{:?}: {text}", session.title);
    Some(outputs)
}

/// The line, with placeholders for what no two runs have in common.
fn placeholders(line: &str) -> String {
    let is_digest = |word: &str| word.len() == 64 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
    let words: Vec<&str> =
        line.split(' ').map(|word| if is_digest(word) { "[DIGEST]" } else { word }).collect();
    words.join(" ")
}

/// Runs a page; gives what its sessions are called.
fn runs(path: &str) -> Vec<String> {
    let page = fs::read_to_string(path).unwrap();
    let mut lines: Vec<String> = page.lines().map(ToString::to_string).collect();
    let sessions = sessions(&page);
    let mut wrong = String::new();
    // From the last to the first, so that the numbers of lines stay true.
    for session in sessions.iter().rev() {
        let Some(outputs) = run(session) else { continue };
        for (step, output) in session.steps.iter().zip(outputs).rev() {
            if step.shown == output {
                continue;
            }
            wrong.push_str(&format!(
                "\n{path}, line {}, {:?}\n$ {}\n--- shown\n{}\n--- real\n{}\n",
                step.line + 1,
                session.title,
                step.command,
                step.shown.join("\n"),
                output.join("\n")
            ));
            let first = step.line + 1;
            lines.splice(first..first + step.shown.len(), output);
        }
    }
    if std::env::var("STONELOG_BLESS").is_ok_and(|what| what == "1") {
        fs::write(path, lines.join("\n") + "\n").unwrap();
    } else {
        assert!(wrong.is_empty(), "{wrong}\nWhere that is meant: {BLESS}");
    }
    sessions.into_iter().map(|session| session.title).collect()
}

#[test]
fn operations() {
    let titles = runs(OPERATIONS);
    for situation in
        ["power cut", "full disk", "bad sector", "deleted", "overwritten", "moved between machines"]
    {
        let there = titles.iter().any(|title| title.to_lowercase().contains(situation));
        assert!(there, "no walkthrough is about {situation:?}: {titles:#?}");
    }
}

#[test]
fn readme() {
    assert!(!runs(README).is_empty(), "the README shows nothing that runs");
}

#[test]
fn a_page_is_read_as_it_is_meant() {
    let page = "# P\n```console\n$ a\n1\n\n$ b\n```\n### S\n```text\n$ no\n```\n```console\n$ c\n```\n## T\n";
    let read = sessions(page);
    let titles: Vec<&str> = read.iter().map(|session| session.title.as_str()).collect();
    assert_eq!(titles, ["", "S"]);
    let steps = read.iter().flat_map(|session| &session.steps);
    let steps: Vec<(usize, &str, usize)> =
        steps.map(|step| (step.line, step.command.as_str(), step.shown.len())).collect();
    assert_eq!(steps, [(2, "a", 2), (5, "b", 0), (12, "c", 0)]);
    let digest = "ab".repeat(32);
    assert_eq!(placeholders(&format!("  digest: {digest}")), "  digest: [DIGEST]");
}
