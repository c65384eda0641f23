//! `kill -9` of a real process, again and again, on a real disk.
//!
//! The parent starts this test binary anew as a child. The child opens a log of small segments, and
//! several threads append records, batches and tickets to it, truncate its front, and keep
//! metadata; each says through a pipe what it is about to do and what was acknowledged. The pipe
//! survives the kill. Sometimes the parent leaves an unfinished batch behind the end, as a power cut in
//! the middle of a write would. Then it opens the log and holds it against what the pipe told:
//!
//! - G1: every acknowledged record is at its offset, byte for byte (unless truncated since);
//! - G2: offsets are dense, each thread's records stand in its order without a gap, and every record
//!   is one that somebody began to append;
//! - G3: a batch is all there or not at all;
//! - G4: no acknowledged truncation is undone, and none happens that nobody asked for;
//! - G7: what one opening served, every later one serves, though openings are killed too;
//! - acknowledged metadata is there.
//!
//! `STONELOG_KILL_ROUNDS=500 cargo test --test kill` goes on longer; `STONELOG_KILL_SEED` repeats a
//! run's choices (the moments of the kills are as random as the machine). What fails is kept.

#![cfg(unix)]
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "it watches the log from outside: other processes, copies of its files, a clock for random kills"
)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a test"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use stonelog::disk::OsDisk;
use stonelog::frame::{self, Header, Kind, Lag, PayloadChecksum, Seed};
use stonelog::manifest::Reading;
use stonelog::recovery::{self, Depth};
use stonelog::{DamagePolicy, Durability, Error, Log, Options, ReadMode};

const CHILD_DIRECTORY: &str = "STONELOG_KILL_CHILD";
const CHILD_ROUND: &str = "STONELOG_KILL_CHILD_ROUND";
const CHILD_SEED: &str = "STONELOG_KILL_CHILD_SEED";
const CHILD_HOLDS: &str = "STONELOG_KILL_CHILD_HOLDS";

const ROUNDS: &str = "STONELOG_KILL_ROUNDS";
const SEED: &str = "STONELOG_KILL_SEED";
const DEFAULT_ROUNDS: u32 = 20;
const THREADS: u32 = 4;
/// The parent appends too, under this name.
const PARENT: u32 = 99;
const SEGMENT_BYTES: u64 = 16 << 10;
/// A child that says nothing for so long hangs.
const SILENCE: Duration = Duration::from_secs(120);

/// splitmix64: enough for choices.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }

    fn one_in(&mut self, sides: u64) -> bool {
        self.below(sides) == 0
    }
}

/// Which record this is; its bytes follow from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Name {
    round: u32,
    thread: u32,
    /// The record's number among its thread's.
    number: u32,
    /// Which one of how many in its batch.
    index: u32,
    batch: u32,
}

impl Name {
    fn bytes(&self) -> Vec<u8> {
        let mut bytes = format!("{self}|").into_bytes();
        let mut dice =
            Dice(u64::from(self.round) << 40 | u64::from(self.thread) << 32 | u64::from(self.number));
        let length = if dice.one_in(60) { dice.below(6_000) } else { dice.below(500) };
        bytes.extend((0..length).map(|_| dice.next() as u8));
        bytes
    }

    /// The name in a record, if all its bytes are what that name's bytes are.
    fn of(bytes: &[u8]) -> Option<Name> {
        let end = bytes.iter().position(|byte| *byte == b'|')?;
        let numbers: Vec<u32> = parse_all(std::str::from_utf8(&bytes[..end]).ok()?.split('.'))?;
        let [round, thread, number, index, batch] = numbers[..] else { return None };
        let name = Name { round, thread, number, index, batch };
        (name.bytes() == bytes).then_some(name)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}.{}.{}", self.round, self.thread, self.number, self.index, self.batch)
    }
}

fn parse_all<'a, T: FromStr>(words: impl Iterator<Item = &'a str>) -> Option<Vec<T>> {
    words.map(|word| word.parse().ok()).collect()
}

// ---------------------------------------------------------------------------------------- the child

/// Says something to the parent, in one write: it is in the pipe as a whole or not at all. When
/// nobody listens any more, this process has no reason to be.
fn say(words: &str) {
    // The line feed in front ends what the test harness may have begun.
    if std::io::stdout().lock().write_all(format!("\n@{words}\n").as_bytes()).is_err() {
        std::process::exit(0);
    }
}

fn give_up(doing: &str, error: &Error) -> ! {
    say(&format!("error {doing}: {error}"));
    std::process::exit(3);
}

trait OrGiveUp<T> {
    fn or_give_up(self, doing: &str) -> T;
}

impl<T> OrGiveUp<T> for stonelog::Result<T> {
    fn or_give_up(self, doing: &str) -> T {
        self.unwrap_or_else(|error| give_up(doing, &error))
    }
}

fn variable<T: FromStr>(name: &str) -> Option<T> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
#[ignore = "the child process of the other tests; does nothing by itself"]
fn child() {
    let Some(directory) = std::env::var_os(CHILD_DIRECTORY) else { return };
    let directory = PathBuf::from(directory);
    let round: u32 = variable(CHILD_ROUND).unwrap();
    let mut dice = Dice(variable(CHILD_SEED).unwrap());
    let durability = match dice.below(6) {
        0 => Durability::Interval(Duration::from_millis(1)),
        1 => Durability::Manual,
        _ => Durability::Always,
    };
    say("opening");
    let log = options(&mut dice).durability(durability).open(&directory).or_give_up("opening");
    let offsets = log.offsets();
    say(&format!("open {} {}", offsets.start, offsets.end));
    if std::env::var_os(CHILD_HOLDS).is_some() {
        // Until the parent kills it, or is gone.
        let _ = std::io::stdin().read_line(&mut String::new());
        return;
    }
    change_alone(&log, &mut dice);
    let worker = Worker { log: &log, round, durability, acknowledged: &AtomicU64::new(0) };
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let mut dice = Dice(dice.next());
            let worker = &worker;
            scope.spawn(move || worker.work(thread, &mut dice));
        }
    });
}

fn options(dice: &mut Dice) -> Options {
    let mode = if dice.one_in(2) { ReadMode::Mapped } else { ReadMode::Buffered };
    Options::new().segment_bytes(SEGMENT_BYTES).read_mode(mode).on_damage(DamagePolicy::Refuse)
}

/// Truncations whose outcome could not be told beside appends.
fn change_alone(log: &Log, dice: &mut Dice) {
    let offsets = log.offsets();
    if dice.one_in(5) {
        let end = offsets.end - dice.below(offsets.end - offsets.start + 1).min(dice.below(200));
        say(&format!("back? {end}"));
        log.truncate_back(end).or_give_up("truncating the back");
        say(&format!("back! {end}"));
    }
    if dice.one_in(8) {
        let front = log.offsets().end + dice.below(1_000);
        say(&format!("front? {front}"));
        log.truncate_front(front).or_give_up("truncating past the end");
        say(&format!("front! {front}"));
    }
}

struct Worker<'a> {
    log: &'a Log,
    round: u32,
    durability: Durability,
    /// Behind some acknowledged record: a place where the front may go.
    acknowledged: &'a AtomicU64,
}

impl Worker<'_> {
    fn work(&self, thread: u32, dice: &mut Dice) {
        let mut number = 0;
        let mut metas = 0;
        loop {
            match dice.below(100) {
                0..55 => self.append(thread, &mut number, dice),
                55..75 => self.append_batch(thread, &mut number, dice),
                75..92 => self.submit(thread, &mut number, dice),
                92..96 => self.truncate_front(dice),
                _ => {
                    let value = format!("{}.{thread}.{metas}", self.round);
                    metas += 1;
                    say(&format!("meta? {thread} {value}"));
                    self.log.put_meta(&format!("of thread {thread}"), &value).or_give_up("keeping metadata");
                    say(&format!("meta! {thread} {value}"));
                }
            }
        }
    }

    fn names(&self, thread: u32, number: &mut u32, count: u32, batch: bool) -> Vec<Name> {
        let first = *number;
        *number += count;
        say(&format!("try {thread} {number}"));
        let name = |index| Name {
            round: self.round,
            thread,
            number: first + index,
            index: if batch { index } else { 0 },
            batch: if batch { count } else { 1 },
        };
        (0..count).map(name).collect()
    }

    fn acknowledge(&self, offset: u64, name: &Name) {
        say(&format!("ack {offset} {name}"));
        self.acknowledged.fetch_max(offset + 1, Ordering::Relaxed);
    }

    fn append(&self, thread: u32, number: &mut u32, dice: &mut Dice) {
        // Where append does not wait, several come before one sync.
        let count = if self.durability == Durability::Always { 1 } else { 1 + dice.below(40) as u32 };
        let names = self.names(thread, number, count, false);
        let append = |name: &Name| self.log.append(name.bytes()).or_give_up("appending");
        let offsets: Vec<u64> = names.iter().map(append).collect();
        if self.durability != Durability::Always {
            self.log.sync().or_give_up("syncing");
        }
        offsets.iter().zip(&names).for_each(|(offset, name)| self.acknowledge(*offset, name));
    }

    fn append_batch(&self, thread: u32, number: &mut u32, dice: &mut Dice) {
        // Now and then larger than a segment: a long write, for the kill to land in.
        let count = if dice.one_in(8) { 200 } else { 2 + dice.below(8) as u32 };
        let names = self.names(thread, number, count, true);
        let offsets = self.log.append_batch(names.iter().map(Name::bytes)).or_give_up("appending a batch");
        if self.durability != Durability::Always {
            self.log.sync().or_give_up("syncing");
        }
        offsets.zip(&names).for_each(|(offset, name)| self.acknowledge(offset, name));
    }

    fn submit(&self, thread: u32, number: &mut u32, dice: &mut Dice) {
        let names = self.names(thread, number, 1 + dice.below(20) as u32, false);
        let submit = |name: &Name| self.log.submit(name.bytes()).or_give_up("submitting");
        let tickets: Vec<_> = names.iter().map(submit).collect();
        for (ticket, name) in tickets.into_iter().zip(&names) {
            let offsets = ticket.wait().or_give_up("waiting");
            self.acknowledge(offsets.start, name);
        }
    }

    fn truncate_front(&self, dice: &mut Dice) {
        let acknowledged = self.acknowledged.load(Ordering::Relaxed);
        let front = acknowledged.saturating_sub(if dice.one_in(6) { 0 } else { dice.below(400) });
        say(&format!("front? {front}"));
        self.log.truncate_front(front).or_give_up("truncating the front");
        say(&format!("front! {front}"));
    }
}

// --------------------------------------------------------------------------------- what must be true

/// What the pipe told of one log, over all its children.
#[derive(Default)]
struct Model {
    /// Records that must be there: acknowledged, or served by an opening.
    there: BTreeMap<u64, Name>,
    /// How many records each round's thread began to append.
    tried: BTreeMap<(u32, u32), u32>,
    /// The front is at least this, and one of these.
    front: u64,
    fronts_tried: BTreeSet<u64>,
    /// The end that the last opening served.
    end: u64,
    /// A truncation back that was begun, and not acknowledged.
    back_tried: Option<u64>,
    /// Where truncations cut, through batches perhaps.
    cuts: BTreeSet<u64>,
    /// What each key may hold.
    metas: BTreeMap<String, Vec<Option<Vec<u8>>>>,
    acknowledged: usize,
}

impl Model {
    /// Takes one thing that a child said.
    fn hear(&mut self, said: &str, round: u32) -> Result<(), String> {
        let words: Vec<&str> = said.split(' ').collect();
        let number = |index: usize| -> Result<u64, String> {
            words.get(index).and_then(|word| word.parse().ok()).ok_or(format!("the child said {said:?}"))
        };
        match words[0] {
            "opening" => {}
            "open" => self.opened(number(1)?, number(2)?)?,
            "try" => {
                self.tried.insert((round, number(1)? as u32), number(2)? as u32);
            }
            "ack" => {
                let numbers: Option<Vec<u32>> = parse_all(words[2].split('.'));
                let Some([round, thread, number_of, index, batch]) = numbers.as_deref() else {
                    return Err(format!("the child said {said:?}"));
                };
                let name =
                    Name { round: *round, thread: *thread, number: *number_of, index: *index, batch: *batch };
                self.acknowledged += 1;
                if let Some(other) = self.there.insert(number(1)?, name) {
                    return Err(format!("offset {} was given to {other} and to {name}", number(1)?));
                }
            }
            "front?" => {
                self.fronts_tried.insert(number(1)?);
            }
            "front!" => self.front = self.front.max(number(1)?),
            "back?" => self.back_tried = Some(number(1)?),
            "back!" => self.cut_back(number(1)?),
            "meta?" => self.may_hold(words[1]).push(Some(words[2].as_bytes().to_vec())),
            "meta!" => *self.may_hold(words[1]) = vec![Some(words[2].as_bytes().to_vec())],
            _ => return Err(format!("the child said {said:?}")),
        }
        Ok(())
    }

    fn may_hold(&mut self, thread: &str) -> &mut Vec<Option<Vec<u8>>> {
        self.metas.entry(format!("of thread {thread}")).or_insert_with(|| vec![None])
    }

    fn cut_back(&mut self, end: u64) {
        self.there.split_off(&end);
        self.end = end;
        self.cuts.insert(end);
        self.back_tried = None;
    }

    /// An opening served `front..end`.
    fn opened(&mut self, front: u64, end: u64) -> Result<(), String> {
        if front < self.front {
            return Err(format!(
                "G4: the front is {front}, but truncating to {} was acknowledged",
                self.front
            ));
        }
        if front != self.front && !self.fronts_tried.contains(&front) {
            return Err(format!("the front is {front}, where nobody truncated; it was {}", self.front));
        }
        self.front = front;
        if let Some(cut) = self.back_tried.take() {
            // Nothing was appended since, so it happened or it did not.
            if end == cut {
                self.cut_back(cut);
            } else if end != self.end {
                return Err(format!("truncating {} back to {cut} left {end}", self.end));
            }
        }
        if end < self.end {
            return Err(format!("G7: an opening served records up to {}, a later one up to {end}", self.end));
        }
        self.end = end;
        self.there = self.there.split_off(&front);
        match self.there.keys().next_back() {
            Some(last) if *last >= end => Err(format!("G1: {last} was acknowledged, the log ends at {end}")),
            _ => Ok(()),
        }
    }

    /// Holds an open log against all this.
    fn check(&mut self, log: &Log) -> Result<(), String> {
        let offsets = log.offsets();
        self.opened(offsets.start, offsets.end)?;
        if log.durable_end() != offsets.end {
            return Err(format!("the log opened with {offsets:?} but durable up to {}", log.durable_end()));
        }
        let records = walk(log)?;
        if !records.keys().copied().eq(offsets.clone()) {
            return Err(format!("G2: the records of {offsets:?} are not dense"));
        }
        for (offset, name) in &self.there {
            if records[offset] != *name {
                return Err(format!("G1: {offset} holds {}, it was acknowledged to {name}", records[offset]));
            }
            let read = log.read(*offset).map_err(|error| format!("G1: reading {offset}: {error}"))?;
            if read[..] != name.bytes() {
                return Err(format!("G1: read({offset}) and the reader differ"));
            }
        }
        self.check_order(&records)?;
        self.check_batches(&records, offsets.end)?;
        for (key, may) in &mut self.metas {
            let held = log.meta(key).map_err(|error| error.to_string())?;
            if !may.contains(&held) {
                let held = held.map(|value| String::from_utf8_lossy(&value).into_owned());
                return Err(format!("metadata {key:?} is {held:?}, it may be {may:?}"));
            }
            *may = vec![held];
        }
        // What was served once stays.
        self.there = records;
        Ok(())
    }

    /// Each thread's records in its order, without a gap, and none that it did not begin.
    fn check_order(&self, records: &BTreeMap<u64, Name>) -> Result<(), String> {
        let mut next: BTreeMap<(u32, u32), u32> = BTreeMap::new();
        for (offset, name) in records {
            let of = (name.round, name.thread);
            let tried = self.tried.get(&of).copied().unwrap_or(0);
            if name.number >= tried {
                return Err(format!("G2: {offset} holds {name}, but only {tried} were begun"));
            }
            let begins = if self.front == 0 { Some(0) } else { None };
            if let Some(expected) = next.get(&of).copied().or(begins)
                && expected != name.number
            {
                return Err(format!("G2: {offset} holds {name}, expected its thread's record {expected}"));
            }
            next.insert(of, name.number + 1);
        }
        Ok(())
    }

    fn check_batches(&self, records: &BTreeMap<u64, Name>, end: u64) -> Result<(), String> {
        for (offset, name) in records {
            let goes_on = records.get(&(offset + 1)).is_some_and(|next| {
                let following = Name { number: name.number + 1, index: name.index + 1, ..*name };
                *next == following
            });
            let last = name.index + 1 == name.batch;
            if !last && !goes_on && !self.cuts.contains(&(offset + 1)) {
                return Err(format!("G3: the batch of {name} at {offset} is not whole (the end is {end})"));
            }
            let begun_before = offset.checked_sub(1).and_then(|before| records.get(&before));
            let preceded = begun_before
                .is_some_and(|before| before.batch == name.batch && before.index + 1 == name.index);
            if name.index > 0 && !preceded && *offset != self.front {
                return Err(format!("G3: {offset} holds {name}, without what its batch begins with"));
            }
        }
        Ok(())
    }
}

/// All records of a log that are what some name says.
fn walk(log: &Log) -> Result<BTreeMap<u64, Name>, String> {
    let mut records = BTreeMap::new();
    for record in log.records(..) {
        let record =
            record.map_err(|error| format!("G1: a record after {:?}: {error}", records.last_key_value()))?;
        let name = Name::of(&record).ok_or(format!("G2: a stranger at {}", record.offset()))?;
        records.insert(record.offset(), name);
    }
    Ok(records)
}

// --------------------------------------------------------------------------------------- the parent

/// A child and what it says. Killed at the latest when this goes.
struct Running {
    child: Child,
    says: Receiver<String>,
}

impl Running {
    fn start(directory: &Path, round: u32, seed: u64, holds: bool) -> Running {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["child", "--exact", "--ignored", "--nocapture", "--test-threads=1"]);
        command.env(CHILD_DIRECTORY, directory).env(CHILD_ROUND, round.to_string());
        command.env(CHILD_SEED, seed.to_string());
        if holds {
            command.env(CHILD_HOLDS, "1");
        }
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let pipe = child.stdout.take().unwrap();
        let (sender, says) = channel();
        std::thread::spawn(move || listen(pipe, |said| drop(sender.send(said))));
        Running { child, says }
    }

    /// The next thing it says; `None` at the end of the pipe, or when `until` has come.
    fn next(&self, until: Option<Instant>) -> Option<String> {
        let patience = until.map_or(SILENCE, |until| until.saturating_duration_since(Instant::now()));
        match self.says.recv_timeout(patience) {
            Ok(said) => Some(said),
            Err(RecvTimeoutError::Timeout) if until.is_none() => {
                panic!("the child is silent for {SILENCE:?}")
            }
            Err(_) => None,
        }
    }

    /// SIGKILL, now. An error if it was not alive any more.
    fn kill(&mut self) -> Result<(), String> {
        self.child.kill().map_err(|error| error.to_string())?;
        let status = self.child.wait().map_err(|error| error.to_string())?;
        // A process that a signal ended has no exit code.
        if status.code().is_some() {
            return Err(format!("the child ended by itself: {status}"));
        }
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn listen(pipe: ChildStdout, mut hear: impl FnMut(String)) {
    let mut pipe = BufReader::new(pipe);
    let mut line = String::new();
    while pipe.read_line(&mut line).is_ok_and(|read| read > 0) {
        if let Some(said) = line.strip_prefix('@') {
            hear(said.trim_end().to_string());
        }
        line.clear();
    }
}

/// A directory that stays when the test fails, with what replays it.
struct Scratch {
    directory: Option<tempfile::TempDir>,
    seed: u64,
}

impl Scratch {
    fn new(seed: u64) -> Scratch {
        let directory = tempfile::Builder::new().prefix("stonelog-kill-").tempdir().unwrap();
        Scratch { directory: Some(directory), seed }
    }

    fn path(&self) -> &Path {
        self.directory.as_ref().unwrap().path()
    }

    fn log(&self) -> PathBuf {
        self.path().join("log")
    }

    /// Keeps the files as the kill left them, as opening changes them.
    fn copy_evidence(&self) {
        let (from, to) = (self.log(), self.path().join("log-as-killed"));
        let _ = std::fs::remove_dir_all(&to);
        copy_all(&from, &to);
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Some(directory) = self.directory.take()
        {
            let kept = directory.keep();
            eprintln!("kept: {} (log-as-killed: before the last opening)", kept.display());
            eprintln!("replay: STONELOG_KILL_SEED={} cargo test --test kill", self.seed);
        }
    }
}

fn copy_all(from: &Path, to: &Path) {
    // Killed before it made the directory: nothing to copy.
    let Ok(entries) = std::fs::read_dir(from) else { return };
    std::fs::create_dir_all(to).unwrap();
    for entry in entries.map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_all(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// What the rounds came to, so that a test that tests nothing is seen.
#[derive(Debug, Default)]
struct Tally {
    rounds: u32,
    killed_before_open: u32,
    torn: u32,
    left_for_the_next_child: u32,
    recoveries: u32,
    cut_tails: usize,
    acknowledged: usize,
    records_checked: usize,
}

/// One child, killed at a random moment. Whether it had opened the log.
fn run_and_kill(model: &mut Model, log: &Path, round: u32, dice: &mut Dice) -> Result<bool, String> {
    let mut running = Running::start(log, round, dice.next(), false);
    let during_open = dice.one_in(3);
    let mut hear = |said: String| match said.strip_prefix("error ") {
        Some(error) => Err(format!("the child failed {error}")),
        None => model.hear(&said, round).map(|()| said.starts_with("open ")),
    };
    let mut opened = false;
    // The moment counts from when the child began to open, or had opened.
    loop {
        let Some(said) = running.next(None) else { return Err("the child ended by itself".to_string()) };
        let begun = said == "opening";
        opened |= hear(said)?;
        if opened || (begun && during_open) {
            break;
        }
    }
    let micros = if during_open { dice.below(4_000) } else { dice.below(150_000) };
    let moment = Instant::now() + Duration::from_micros(micros);
    while let Some(said) = running.next(Some(moment)) {
        opened |= hear(said)?;
        if Instant::now() >= moment {
            break;
        }
    }
    running.kill()?;
    while let Some(said) = running.next(None) {
        opened |= hear(said)?;
    }
    Ok(opened)
}

/// Leaves what a power cut in the middle of a write would leave: behind the end, where the next frames
/// would go, a batch that is not finished and ends in half a frame. Kills seldom land inside a write.
fn leave_half_a_batch(directory: &Path, round: u32) -> Result<bool, String> {
    let findings =
        recovery::inspect(&OsDisk, directory, Depth::Opening).map_err(|error| error.to_string())?;
    let (Reading::Whole { state, .. }, Some(assessment)) = (&findings.manifest, &findings.assessment) else {
        return Ok(false);
    };
    let last = assessment.placed.iter().rev().find_map(|place| Some((place.id, place.runs.last()?)));
    let (Some((id, run)), None) = (last, state.closed) else { return Ok(false) };
    let mut bytes = Vec::new();
    for index in 0..3 {
        // Nobody began to append these: served, they are strangers.
        let payload = Name { round, thread: PARENT, number: 1 + index, index, batch: 4 }.bytes();
        let header = Header {
            kind: Kind::RecordMore,
            length: payload.len() as u32,
            ordinal: run.whole_ordinal + index,
            lag: Lag::NONE,
        };
        let seed = Seed::of_segment(&state.uuid, id);
        bytes.extend(frame::encode_header(&header, PayloadChecksum::of(&payload), seed));
        bytes.extend(&payload);
        bytes.resize(bytes.len().next_multiple_of(frame::ALIGNMENT as usize), 0);
    }
    bytes.truncate(bytes.len() - 9);
    let file = std::fs::OpenOptions::new().write(true).open(findings.store_path(id)).unwrap();
    file.write_all_at(&bytes, run.whole_position).unwrap();
    Ok(true)
}

/// Looks at the log without changing it, beside nobody: what it serves must be what opening serves.
fn look_read_only(log: &Path) -> Result<BTreeMap<u64, Name>, String> {
    let opened = Log::open_read_only(log).map_err(|error| format!("read-only: {error}"))?;
    walk(&opened)
}

/// The parent's own opening after a kill: checks everything, then goes on.
fn open_and_check(
    model: &mut Model,
    scratch: &Scratch,
    round: u32,
    dice: &mut Dice,
    tally: &mut Tally,
) -> Result<(), String> {
    let path = scratch.log();
    scratch.copy_evidence();
    let manifest = path.join(stonelog::manifest::FILE_NAME).exists();
    let seen = if manifest && dice.one_in(2) { Some(look_read_only(&path)?) } else { None };
    let log =
        options(dice).open(&path).map_err(|error| format!("a plain crash must always open (G5): {error}"))?;
    tally.recoveries += u32::from(!log.recovery().clean);
    tally.cut_tails += log.recovery().cut.len();
    model.check(&log).map_err(|what| format!("{what}\nrecovery: {}", log.recovery()))?;
    if let Some(seen) = seen
        && let Some((offset, name)) = seen
            .iter()
            .find(|(offset, name)| **offset >= model.front && model.there.get(offset) != Some(name))
    {
        return Err(format!(
            "read-only served {name} at {offset}, the opening {:?}",
            model.there.get(offset)
        ));
    }
    tally.records_checked += model.there.len();

    // Appends go on.
    let name = Name { round, thread: PARENT, number: 0, index: 0, batch: 1 };
    model.tried.insert((round, PARENT), 1);
    let offset = log.append(name.bytes()).map_err(|error| format!("appending after recovery: {error}"))?;
    if offset != model.end {
        return Err(format!("the next record got {offset} instead of {}", model.end));
    }
    model.there.insert(offset, name);
    model.end = offset + 1;
    if round.is_multiple_of(2) {
        log.close().map_err(|error| format!("closing: {error}"))?;
    }
    drop(log);
    Ok(())
}

#[test]
fn a_killed_process_loses_nothing_that_was_acknowledged() {
    let rounds = variable(ROUNDS).unwrap_or(DEFAULT_ROUNDS);
    let clock = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
    let seed = variable(SEED).unwrap_or_else(clock);
    let mut dice = Dice(seed);
    let mut tally = Tally::default();
    let mut scratch = Scratch::new(seed);
    let mut model = Model::default();
    for round in 0..rounds {
        let failed = |what: String| -> ! { panic!("round {round} of {rounds}: {what}") };
        tally.rounds += 1;
        let opened =
            run_and_kill(&mut model, &scratch.log(), round, &mut dice).unwrap_or_else(|what| failed(what));
        tally.killed_before_open += u32::from(!opened);
        if dice.one_in(3) {
            let left = leave_half_a_batch(&scratch.log(), round).unwrap_or_else(|what| failed(what));
            tally.torn += u32::from(left);
        }
        // Now and then nobody looks in between, and the next child finds what this one left.
        if round + 1 < rounds && dice.one_in(3) {
            tally.left_for_the_next_child += 1;
            continue;
        }
        open_and_check(&mut model, &scratch, round, &mut dice, &mut tally)
            .unwrap_or_else(|what| failed(what));
        // Half of the logs go on, so that some have seen many crashes.
        if dice.one_in(2) {
            tally.acknowledged += std::mem::take(&mut model).acknowledged;
            scratch = Scratch::new(seed);
        }
    }
    tally.acknowledged += model.acknowledged;
    println!("{tally:?}");
    assert!(tally.acknowledged > 0 && tally.recoveries > 0, "it tested nothing: {tally:?}");
}

#[test]
fn a_second_process_is_told_who_holds_the_log() {
    let scratch = Scratch::new(0);
    let mut holder = Running::start(&scratch.log(), 0, 0, true);
    while let Some(said) = holder.next(None) {
        if said.starts_with("open ") {
            break;
        }
    }
    match Log::open(scratch.log()) {
        Err(Error::Locked { pid, .. }) => assert_eq!(pid, Some(holder.child.id())),
        other => panic!("expected Locked, got {other:?}"),
    }
    // Reading beside it is fine.
    assert_eq!(Log::open_read_only(scratch.log()).unwrap().offsets(), 0..0);
    holder.kill().unwrap();
    // The lock dies with its holder, whatever the LOCK file still says.
    let log = Log::open(scratch.log()).unwrap();

    // And the other way round.
    let second = Running::start(&scratch.log(), 0, 0, true);
    let said: Vec<String> = std::iter::from_fn(|| second.next(None)).collect();
    let ours = format!("process {}", std::process::id());
    assert!(said.iter().any(|said| said.starts_with("error ") && said.contains(&ours)), "{said:?}");
    log.close().unwrap();
}
