//! The audit: what a peer really does when it says "durable", seen from outside by strace.
//!
//! A traced process appends records one by one, alone, by one thread, and leaves a mark before each: an open of a file
//! that does not exist. Between two marks there must be a sync that began and ended there: fsync, fdatasync, sync,
//! syncfs, msync(MS_SYNC), or a write through a file opened with O_SYNC or O_DSYNC. sync_file_range is counted, but is
//! none: it does not flush the device. A peer is truly durable when no append went without. Not seen are syncs that an
//! io_uring does, and whether what was synced is what was appended.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::payload::{Expected, Payloads};
use crate::subject::Mode;
use crate::workloads::{KIB, Outcome, Task};

const MARK: &str = "/peers-audit-mark";
const WARM_UP: u64 = 16;
const APPENDS: u64 = 64;
const CALLS: &str = "fsync,fdatasync,sync,syncfs,msync,sync_file_range,write,pwrite64,writev,pwritev,pwritev2,openat,fallocate";

/// What was seen.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub enum Audit {
    /// Why not.
    NotAudited(String),
    Traced(Trace),
}

/// The system calls of the appends.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
pub struct Trace {
    pub appends: u64,
    pub syncs: u64,
    /// The fewest syncs of an append.
    pub least: u64,
    /// How often each call was made.
    pub calls: BTreeMap<String, u64>,
}

impl Audit {
    /// Every append came with a sync.
    pub fn is_durable(&self) -> bool {
        matches!(self, Audit::Traced(trace) if trace.least > 0)
    }
}

impl std::fmt::Display for Audit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Audit::NotAudited(_) => f.write_str("not audited"),
            Audit::Traced(trace) if trace.syncs == 0 => f.write_str("NEVER syncs"),
            Audit::Traced(trace) => {
                let each = trace.syncs as f64 / trace.appends as f64;
                if trace.least == 0 {
                    write!(f, "NOT each: {each:.2} syncs/append")
                } else {
                    write!(f, "{each:.1} syncs/append")
                }
            }
        }
    }
}

/// What the traced process does.
pub fn appends(task: &Task<'_>) -> Result<Outcome> {
    let subject = task.kind.open(task.directory, Mode::Durable)?;
    let size = KIB as usize;
    let mut payloads = Payloads::new(size);
    for number in 0..WARM_UP + APPENDS {
        if number >= WARM_UP {
            mark();
        }
        subject.append(payloads.one(number))?;
    }
    mark();
    subject.close()?;
    Ok(Outcome::new(Expected::all(size, WARM_UP + APPENDS), []))
}

fn mark() {
    // That it fails is what is wanted: the trace has it, and nothing was opened.
    let _ = File::open(MARK);
}

/// Traces a subject's appends, in this empty directory.
pub fn trace(subject: &str, directory: &Path) -> Result<Audit> {
    let file = directory.with_extension("trace");
    let traced = Command::new("strace")
        .args(["-f", "-y", "-qq", "-s", "0", "-e", &format!("trace={CALLS}"), "-o"])
        .arg(&file)
        .arg(std::env::current_exe()?)
        .args(["one", "--phase", "audit", "--subject", subject, "--directory"])
        .arg(directory)
        .stdin(Stdio::null())
        .output();
    let output = match traced {
        Ok(output) => output,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let how = "strace is not installed; install it (Debian and Ubuntu: apt install strace; Fedora: dnf install strace)";
            return Ok(Audit::NotAudited(how.to_string()));
        }
        Err(error) => return Err(error).context("starting strace"),
    };
    if !output.status.success() {
        bail!("the traced process failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let text = String::from_utf8_lossy(&std::fs::read(&file)?).into_owned();
    std::fs::remove_file(&file)?;
    Ok(Audit::Traced(parse(&text)?))
}

/// Reads what `strace -f -y` wrote.
fn parse(text: &str) -> Result<Trace> {
    let mut trace = Trace::default();
    let mut each: Vec<u64> = Vec::new();
    let mut marks = 0_usize;
    // Calls that were going on when another thread's was told, by thread: the call's beginning and its interval.
    let mut unfinished: BTreeMap<&str, (String, usize)> = BTreeMap::new();
    let mut synchronous: BTreeSet<String> = BTreeSet::new();
    for line in text.lines() {
        let Some((thread, rest)) = line.trim_start().split_once(' ') else { continue };
        let rest = rest.trim_start();
        if let Some(begun) = rest.strip_suffix("<unfinished ...>") {
            unfinished.insert(thread, (begun.to_string(), marks));
            continue;
        }
        let (call, began) = match rest.strip_prefix("<... ") {
            Some(resumed) => {
                let Some((begun, began)) = unfinished.remove(thread) else { continue };
                let end = resumed.split_once("resumed>").map_or("", |(_, end)| end);
                (format!("{begun}{end}"), began)
            }
            None => (rest.to_string(), marks),
        };
        let Some((name, arguments)) = call.split_once('(') else { continue };
        if name == "openat" {
            if arguments.contains(MARK) {
                marks += 1;
                each.push(0);
            } else if let Some(descriptor) = opened(arguments) {
                let is_synchronous = arguments.contains("O_DSYNC") || arguments.contains("O_SYNC");
                if is_synchronous {
                    synchronous.insert(descriptor);
                } else {
                    synchronous.remove(&descriptor);
                }
            }
            continue;
        }
        if marks == 0 || marks as u64 > APPENDS {
            continue;
        }
        let through_synchronous =
            arguments.split(['<', ',']).next().is_some_and(|fd| synchronous.contains(fd));
        let kind = match name {
            "write" | "pwrite64" | "writev" | "pwritev" | "pwritev2" if through_synchronous => {
                "synchronous write"
            }
            "msync" if !arguments.contains("MS_SYNC") => "msync without MS_SYNC",
            other => other,
        };
        *trace.calls.entry(kind.to_string()).or_default() += 1;
        let is_sync =
            matches!(kind, "fsync" | "fdatasync" | "sync" | "syncfs" | "msync" | "synchronous write");
        if is_sync
            && began == marks
            && !call.contains(" = -1 ")
            && let Some(last) = each.last_mut()
        {
            *last += 1;
        }
    }
    if marks as u64 != APPENDS + 1 {
        bail!("the trace has {marks} marks, not {}", APPENDS + 1);
    }
    each.pop();
    trace.appends = APPENDS;
    trace.syncs = each.iter().sum();
    trace.least = each.iter().copied().min().unwrap_or(0);
    Ok(trace)
}

/// The descriptor that an openat gave.
fn opened(arguments: &str) -> Option<String> {
    let (_, result) = arguments.rsplit_once(" = ")?;
    let digits: String = result.chars().take_while(char::is_ascii_digit).collect();
    (!digits.is_empty()).then_some(digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MARKED: &str =
        "7 openat(AT_FDCWD</x>, \"/peers-audit-mark\", O_RDONLY|O_CLOEXEC) = -1 ENOENT (No such file)\n";

    fn traced(append: &str) -> Trace {
        let text =
            format!("{}{MARKED}9 fsync(3</x/a>) = 0\n", format!("{MARKED}{append}").repeat(APPENDS as usize));
        parse(&text).unwrap()
    }

    #[test]
    fn a_sync_for_each_append_is_durable() {
        let trace = traced("7 pwrite64(3</x/a>, \"\"..., 1024, 0) = 1024\n7 fdatasync(3</x/a>) = 0\n");
        assert_eq!((trace.least, trace.syncs), (1, APPENDS));
        assert_eq!(trace.calls["pwrite64"], APPENDS);
        assert!(Audit::Traced(trace).is_durable());
    }

    #[test]
    fn a_sync_that_failed_or_began_before_is_none() {
        assert_eq!(traced("7 fdatasync(3</x/a>) = -1 EIO (Input/output error)\n").least, 0);
        let across = "8 <... fsync resumed>) = 0\n8 fsync(3</x/a> <unfinished ...>\n";
        assert_eq!(traced(across).least, 0);
        let within = "8 fsync(3</x/a> <unfinished ...>\n7 write(4</x/b>, \"\"..., 8) = 8\n8 <... fsync resumed>) = 0\n";
        assert_eq!(traced(within).least, 1);
    }

    #[test]
    fn writes_through_a_synchronous_file_are_syncs_and_other_calls_are_none() {
        let opened = "7 openat(AT_FDCWD</x>, \"data\", O_WRONLY|O_DSYNC|O_CLOEXEC) = 5</x/data>\n";
        assert_eq!(traced(&format!("{opened}7 pwrite64(5</x/data>, \"\"..., 8, 0) = 8\n")).least, 1);
        let others = "7 msync(0x7f, 4096, MS_ASYNC) = 0\n7 sync_file_range(3</x/a>, 0, 8, 2) = 0\n7 write(3</x/a>, \"\", 8) = 8\n";
        assert_eq!(traced(others).syncs, 0);
        assert_eq!(traced("7 msync(0x7f, 4096, MS_SYNC) = 0\n").least, 1);
    }
}
