//! The child process that appends, and the parent's side of its pipe.
//!
//! The notes go through a pipe because it survives what the log must survive: what the child wrote
//! into it before the kill can be read after the kill. `> LINE` says that a line is about to be
//! appended, `= OFFSET LINE FSYNCS` that `append` returned.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use stonelog::Log;

use crate::input::{self, Input};
use crate::{Outcome, THREADS, options};

/// The hidden argument that makes this program the writer.
pub(crate) const CHILD_ARGUMENT: &str = "--be-the-writer";
/// A small input is appended over and over, so that there is something to kill.
const LEAST_ACKNOWLEDGED: usize = 1_000;
/// On a slow disk nobody wants to wait longer for the kill.
const LONGEST_SECONDS: u64 = 4;

/// The writer: takes the lines from its standard input and appends them until it is killed.
pub(crate) fn run(directory: Option<&Path>) -> Outcome<()> {
    let directory = directory.ok_or("the writer was not told a directory")?;
    let mut text = Vec::new();
    std::io::stdin().read_to_end(&mut text)?;
    let lines = input::split(&text);
    let log = options().max_record_bytes(longest(&lines)).open(directory)?;
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                let Err(error) = append_forever(&log, &lines, &next);
                // The other threads would go on for ever.
                eprintln!("the writer gave up: {error}");
                std::process::exit(1);
            });
        }
    });
    Ok(())
}

fn append_forever(
    log: &Log,
    lines: &[Vec<u8>],
    next: &AtomicUsize,
) -> Result<std::convert::Infallible, Box<dyn std::error::Error>> {
    let mut acknowledged = String::new();
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed) % lines.len();
        let line = lines.get(number).ok_or("no such line")?;
        note(&format!("{acknowledged}> {number}\n"))?;
        let offset = log.append(line)?;
        acknowledged = format!("= {offset} {number} {}\n", log.stats().fsyncs);
    }
}

/// What is noted in one write is in the pipe as a whole or not at all.
fn note(line: &str) -> std::io::Result<()> {
    std::io::stdout().lock().write_all(line.as_bytes())
}

/// The largest record to accept: the default, or more where a line is longer.
fn longest(lines: &[Vec<u8>]) -> u32 {
    let longest = lines.iter().map(Vec::len).max().unwrap_or(0);
    u32::try_from(longest).unwrap_or(u32::MAX).max(16 << 20)
}

/// What the parent knows of the writer, from outside the log.
#[derive(Default)]
pub(crate) struct Notes {
    /// Line numbers by the offsets at which they were acknowledged.
    pub(crate) acknowledged: BTreeMap<u64, usize>,
    pub(crate) fsyncs: usize,
    pub(crate) seconds: f64,
    begun: usize,
}

impl Notes {
    /// Appends that were begun and not acknowledged.
    pub(crate) fn in_flight(&self) -> usize {
        self.begun - self.acknowledged.len()
    }

    #[allow(clippy::cast_precision_loss, reason = "a ratio to look at")]
    pub(crate) fn fsyncs_per_line(&self) -> f64 {
        self.fsyncs as f64 / self.acknowledged.len().max(1) as f64
    }

    fn take(&mut self, line: &str) -> Outcome<()> {
        let strange = || format!("the writer said {line:?}");
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        match words.as_slice() {
            [">", _] => self.begun += 1,
            ["=", offset, number, fsyncs] => {
                let offset = offset.parse().map_err(|_| strange())?;
                let number = number.parse().map_err(|_| strange())?;
                self.fsyncs = self.fsyncs.max(fsyncs.parse().map_err(|_| strange())?);
                if self.acknowledged.insert(offset, number).is_some() {
                    return Err(format!("offset {offset} was acknowledged twice").into());
                }
            }
            _ => return Err(strange().into()),
        }
        Ok(())
    }
}

/// Starts the writer, kills it in the middle of its work, and gives what it noted.
pub(crate) fn run_and_kill(directory: &Path, input: &Input) -> Outcome<Notes> {
    let mut child = Command::new(std::env::current_exe()?)
        .arg(CHILD_ARGUMENT)
        .arg(directory)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut stdin = child.stdin.take().ok_or("the writer has no standard input")?;
    let pipe = child.stdout.take().ok_or("the writer has no standard output")?;
    stdin.write_all(&input.lines.join(&b'\n'))?;
    stdin.write_all(b"\n")?;
    drop(stdin);

    let enough = (input.lines.len() / 10 * 6).max(LEAST_ACKNOWLEDGED);
    let begun = Instant::now();
    let mut notes = Notes::default();
    let mut killed = false;
    for line in BufReader::new(pipe).lines() {
        notes.take(&line?)?;
        let waited = begun.elapsed() >= Duration::from_secs(LONGEST_SECONDS);
        let done = notes.acknowledged.len() >= enough || (waited && notes.acknowledged.len() >= 3);
        if done && !killed {
            // SIGKILL: no handler, no destructor, no flush. What is in the pipe is still read.
            child.kill()?;
            notes.seconds = begun.elapsed().as_secs_f64();
            killed = true;
        }
    }
    let status = child.wait()?;
    // A process that a signal ended has no exit code.
    if !killed || status.code().is_some() {
        return Err(format!("the writer ended by itself ({status}) before it was killed").into());
    }
    if notes.in_flight() == 0 {
        return Err("the kill did not land in mid-write: run it again".into());
    }
    Ok(notes)
}
