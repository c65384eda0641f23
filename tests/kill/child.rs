//! The process that is killed: it works on the log, and says what it does.
//!
//! It is this test binary, started anew with the test `child` alone and its orders in the environment.
//! It decides nothing about right and wrong, but for one thing: a call that fails where it must not is
//! told, and ends it. Invariant: nothing is called on the log that was not said before.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use stonelog::disk::OsDisk;
use stonelog::manifest::{self, Reading};
use stonelog::{DamagePolicy, Durability, Error, Log, Options, ReadMode};

use crate::dice::{Dice, variable};
use crate::phase::Phase;
use crate::record::Name;
use crate::said::{Said, Step};

const DIRECTORY: &str = "STONELOG_KILL_CHILD";
const LIFE: &str = "STONELOG_KILL_CHILD_LIFE";
const SEED: &str = "STONELOG_KILL_CHILD_SEED";
const WORK: &str = "STONELOG_KILL_CHILD_WORK";

/// A child may open the log so many times.
const LIVES: u32 = 1_000;
const THREADS: u32 = 4;
/// The thread that opens, truncates alone, and closes.
pub const MAIN: u32 = 50;

/// Numbers of lives, no two the same in a run: a record's name begins with one.
#[derive(Debug, Default)]
pub struct Lives(u32);

impl Lives {
    /// The first of as many as a child may need.
    pub fn take(&mut self) -> u32 {
        self.0 += LIVES;
        self.0
    }
}

/// What a child is told to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// Open, work, close, and again, through all phases.
    Cycles,
    /// Append and never close, on a disk that gets full.
    Fill,
    /// The same with truncations and metadata.
    FillWithChanges,
    /// Open, and wait for the end.
    Hold,
}

const WORKS: [(Work, &str); 4] = [
    (Work::Cycles, "cycles"),
    (Work::Fill, "fill"),
    (Work::FillWithChanges, "fill-with-changes"),
    (Work::Hold, "hold"),
];

/// The command that starts a child.
pub fn command(directory: &Path, life: u32, seed: u64, work: Work) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["child", "--exact", "--ignored", "--nocapture", "--test-threads=1"]);
    let work = WORKS.iter().find(|(each, _)| *each == work).unwrap().1;
    command.env(DIRECTORY, directory).env(LIFE, life.to_string()).env(SEED, seed.to_string());
    command.env(WORK, work);
    command
}

/// Says something to the parent. When nobody listens any more, this process has no reason to be.
fn say(said: Said) {
    // The line feed in front ends what the test harness may have begun.
    if std::io::stdout().lock().write_all(format!("\n@{said}\n").as_bytes()).is_err() {
        std::process::exit(0);
    }
}

fn fail(doing: &str, error: &Error) -> ! {
    say(Said::Failed(format!("{doing}: {error}")));
    std::process::exit(3);
}

trait OrFail<T> {
    fn or_fail(self, doing: &str) -> T;
}

impl<T> OrFail<T> for stonelog::Result<T> {
    fn or_fail(self, doing: &str) -> T {
        self.unwrap_or_else(|error| fail(doing, &error))
    }
}

/// Does it, between the two things to be said about a phase. What fails where it must not is not said
/// to be left: that is where the process ends.
fn within<T>(thread: u32, phase: Phase, call: impl FnOnce() -> stonelog::Result<T>) -> stonelog::Result<T> {
    say(Said::In { thread, phase });
    let result = call();
    if matches!(result, Ok(_) | Err(Error::NoSpace { .. })) {
        say(Said::Out { thread, phase });
    }
    result
}

/// The options of both processes: tiny segments, so that there are many.
pub fn options(dice: &mut Dice) -> Options {
    let mode = if dice.one_in(2) { ReadMode::Mapped } else { ReadMode::Buffered };
    let segment_bytes = if dice.one_in(2) { 4 << 10 } else { 16 << 10 };
    Options::new().segment_bytes(segment_bytes).read_mode(mode).on_damage(DamagePolicy::Refuse)
}

/// The phase in which an opening of this directory would be.
pub fn phase_of_opening(directory: &Path) -> Phase {
    match manifest::read(&OsDisk, directory) {
        Ok(Reading::Whole { state, .. }) if state.closed.is_some() => Phase::Reopen,
        Ok(Reading::Whole { .. }) => Phase::Recover,
        _ => Phase::Begin,
    }
}

/// The child's main. Does nothing where it has no orders.
pub fn main() {
    let Some(directory) = std::env::var_os(DIRECTORY) else { return };
    let directory = PathBuf::from(directory);
    let first: u32 = variable(LIFE).unwrap();
    let mut dice = Dice(variable(SEED).unwrap());
    let told: String = variable(WORK).unwrap();
    let work = WORKS.iter().find(|(_, name)| *name == told).unwrap().0;
    for life in first..first + LIVES {
        let durability = match dice.below(6) {
            0 => Durability::Interval(Duration::from_millis(1)),
            1 => Durability::Manual,
            _ => Durability::Always,
        };
        let options = options(&mut dice).durability(durability);
        let opened = within(MAIN, phase_of_opening(&directory), || options.open(&directory));
        let log = match opened {
            // It can be full already; then there is nothing to do.
            Err(Error::NoSpace { .. }) if work == Work::FillWithChanges => {
                say(Said::NoSpace { thread: MAIN });
                wait_for_the_end();
                return;
            }
            opened => opened.or_fail("opening"),
        };
        let (offsets, copied) = (log.offsets(), log.recovery().copied.clone());
        say(Said::Open { front: offsets.start, end: offsets.end, copied: copied.end - copied.start });
        if work == Work::Hold {
            return wait_for_the_end();
        }
        let operations = if work == Work::Cycles { 3 + dice.below(20) } else { u64::MAX };
        if work == Work::Cycles {
            change_alone(&log, &mut dice);
        }
        let acknowledged = AtomicU64::new(0);
        let met_full_disk = AtomicBool::new(work == Work::Cycles);
        std::thread::scope(|scope| {
            for thread in 0..THREADS {
                let dice = Dice(dice.next());
                let log = &log;
                let (acknowledged, met_full_disk) = (&acknowledged, &met_full_disk);
                let mut worker = Worker {
                    log,
                    life,
                    thread,
                    durability,
                    work,
                    acknowledged,
                    met_full_disk,
                    number: 0,
                    dice,
                };
                scope.spawn(move || (0..operations).for_each(|count| worker.work(count)));
            }
        });
        within(MAIN, Phase::Close, || log.close()).or_fail("closing");
    }
    say(Said::Failed(format!("nobody killed it in {LIVES} lives")));
}

/// Until the parent kills it, or is gone.
fn wait_for_the_end() {
    let _ = std::io::stdin().read_line(&mut String::new());
}

/// Truncations whose outcome could not be told beside appends.
fn change_alone(log: &Log, dice: &mut Dice) {
    let offsets = log.offsets();
    if dice.one_in(2) {
        let end = offsets.end - dice.below(offsets.end - offsets.start + 1).min(dice.below(200));
        say(Said::Back { end, step: Step::Tried });
        within(MAIN, Phase::TruncateBack, || log.truncate_back(end)).or_fail("truncating the back");
        say(Said::Back { end, step: Step::Done });
    }
    if dice.one_in(3) {
        let offset = log.offsets().end + 1 + dice.below(1_000);
        say(Said::Front { offset, step: Step::Tried });
        within(MAIN, Phase::SkipForward, || log.truncate_front(offset)).or_fail("truncating past the end");
        say(Said::Front { offset, step: Step::Done });
    }
}

/// One of the threads that work beside each other.
struct Worker<'a> {
    log: &'a Log,
    life: u32,
    thread: u32,
    durability: Durability,
    work: Work,
    /// Behind some acknowledged record: a place where the front may go.
    acknowledged: &'a AtomicU64,
    /// Until then nothing is truncated, or the disk would never get full.
    met_full_disk: &'a AtomicBool,
    /// Of the next record. A refused one gives its number back.
    number: u32,
    dice: Dice,
}

impl Worker<'_> {
    fn work(&mut self, count: u64) {
        let changes = self.work != Work::Fill && self.met_full_disk.load(Ordering::Relaxed);
        match self.dice.below(100) {
            0..46 => self.append(),
            46..64 => self.append_batch(),
            64..78 => self.submit(),
            78..84 => self.roll(),
            84..92 if changes => self.truncate_front(),
            92.. if changes => self.put_meta(count),
            _ => self.append(),
        }
    }

    /// `None` where the disk is full, and may be.
    fn unless_full<T>(&self, result: stonelog::Result<T>, doing: &str) -> Option<T> {
        match result {
            Err(Error::NoSpace { .. }) if self.work != Work::Cycles => {
                self.met_full_disk.store(true, Ordering::Relaxed);
                say(Said::NoSpace { thread: self.thread });
                None
            }
            result => Some(result.or_fail(doing)),
        }
    }

    /// The names of the next records, said to be tried.
    fn names(&self, count: u32, batch: bool) -> Vec<Name> {
        say(Said::Try { life: self.life, thread: self.thread, below: self.number + count });
        let name = |index| {
            let alone = Name::alone(self.life, self.thread, self.number + index);
            if batch { Name { index, batch: count, ..alone } } else { alone }
        };
        (0..count).map(name).collect()
    }

    /// Makes records that were appended durable, where append did not, and says so.
    fn acknowledge<'a>(&mut self, appended: impl IntoIterator<Item = (u64, &'a Name)>) {
        let appended: Vec<(u64, &Name)> = appended.into_iter().collect();
        if self.durability != Durability::Always && !appended.is_empty() {
            self.log.sync().or_fail("syncing");
        }
        for (offset, name) in appended {
            self.number = name.number + 1;
            say(Said::Acknowledged { offset, name: *name });
            self.acknowledged.fetch_max(offset + 1, Ordering::Relaxed);
        }
    }

    fn append(&mut self) {
        // Where append does not wait, several come before one sync.
        let count = if self.durability == Durability::Always { 1 } else { 1 + self.dice.below(40) as u32 };
        let names = self.names(count, false);
        let appended: Vec<u64> = within(self.thread, Phase::Append, || {
            let append = |name: &Name| self.unless_full(self.log.append(name.bytes()), "appending");
            Ok(names.iter().map_while(append).collect())
        })
        .or_fail("appending");
        self.acknowledge(appended.into_iter().zip(&names));
    }

    fn append_batch(&mut self) {
        // Now and then a long write, for the kill to land in.
        let count = if self.dice.one_in(8) { 60 } else { 2 + self.dice.below(8) as u32 };
        self.batch_of(count, Phase::Batch);
    }

    fn batch_of(&mut self, count: u32, phase: Phase) {
        let names = self.names(count, true);
        let appended = within(self.thread, phase, || self.log.append_batch(names.iter().map(Name::bytes)));
        let offsets = self.unless_full(appended, "appending a batch");
        self.acknowledge(offsets.into_iter().flatten().zip(&names));
    }

    fn submit(&mut self) {
        let count = 1 + self.dice.below(20) as u32;
        let names = self.names(count, false);
        let offsets: Vec<u64> = within(self.thread, Phase::Submit, || {
            let submit = |name: &Name| self.unless_full(self.log.submit(name.bytes()), "submitting");
            let tickets: Vec<_> = names.iter().map_while(submit).collect();
            tickets.into_iter().map(|ticket| Ok(ticket.wait()?.start)).collect()
        })
        .or_fail("waiting");
        self.acknowledge(offsets.into_iter().zip(&names));
    }

    /// A batch larger than the rest of any segment, then the wait for the Seal of what it left behind.
    fn roll(&mut self) {
        let known: BTreeSet<u64> = self.log.segments().iter().map(|segment| segment.id).collect();
        self.batch_of(100, Phase::Roll);
        within(self.thread, Phase::Seal, || {
            // The keeper may be late, and a full disk keeps it from sealing: no waiting without end.
            for _ in 0..2_000 {
                let open = |segment: &stonelog::SegmentInfo| !segment.sealed && known.contains(&segment.id);
                if !self.log.segments().iter().any(open) {
                    break;
                }
                std::thread::yield_now();
            }
            Ok(())
        })
        .or_fail("watching segments");
    }

    fn truncate_front(&mut self) {
        let acknowledged = self.acknowledged.load(Ordering::Relaxed);
        let back = if self.dice.one_in(6) { 0 } else { self.dice.below(400) };
        let offset = acknowledged.saturating_sub(back);
        say(Said::Front { offset, step: Step::Tried });
        let truncated = within(self.thread, Phase::TruncateFront, || self.log.truncate_front(offset));
        let done = self.unless_full(truncated, "truncating the front").is_some();
        say(Said::Front { offset, step: if done { Step::Done } else { Step::Refused } });
    }

    fn put_meta(&mut self, count: u64) {
        let (key, value) = (format!("of-thread-{}", self.thread), format!("{}.{count}", self.life));
        let said = |step| say(Said::Meta { key: key.clone(), value: value.clone(), step });
        said(Step::Tried);
        let put = within(self.thread, Phase::PutMeta, || self.log.put_meta(&key, &value));
        let done = self.unless_full(put, "keeping metadata").is_some();
        said(if done { Step::Done } else { Step::Refused });
    }
}
