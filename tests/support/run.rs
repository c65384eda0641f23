//! Runs operations on a log over a simulated disk, and tells what was known at each moment of it.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use stonelog::disk::sim::{Capabilities, Fault, FaultError, Loss, Moment, Operation, SimDisk};
use stonelog::{DamagePolicy, Durability, Error, Log, Options, ReadMode, Ticket};

use super::DIRECTORY;
use super::model::Model;
use super::op::{FaultKind, Op};

/// How the worlds of one run open their log.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Setup {
    pub seed: u64,
    pub durability: Durability,
    pub segment_bytes: u64,
    pub capabilities: Capabilities,
}

impl Setup {
    pub fn options(&self, disk: &SimDisk) -> Options {
        Options::new()
            .disk(Arc::new(disk.clone()))
            .durability(self.durability)
            .segment_bytes(self.segment_bytes)
            .read_mode(ReadMode::Buffered)
            .on_damage(DamagePolicy::Refuse)
    }

    /// A new disk, whose clock stands still: equal histories leave equal disks.
    pub fn disk(&self) -> SimDisk {
        let disk = SimDisk::with_capabilities(self.seed, self.capabilities);
        disk.set_tick_millis(0);
        disk
    }

    pub fn interval() -> Durability {
        Durability::Interval(Duration::from_millis(5))
    }
}

/// Why a run of operations ended.
#[derive(Debug)]
pub enum Ended {
    /// All done; the log was left open.
    Done(Log),
    /// The disk crashed under it.
    Crashed,
    /// The log is poisoned by an injected fault.
    Poisoned,
}

/// Is told of the moments of a run, with what was known at them.
pub type Observer<'a> = dyn FnMut(&Model, Vec<Moment>) -> Result<(), String> + 'a;

/// Runs operations on a log over `disk`, keeping `model` up to date.
///
/// # Errors
/// What went wrong that should not have.
pub fn run(setup: &Setup, disk: &SimDisk, ops: &[Op], model: &mut Model) -> Result<Ended, String> {
    observe(setup, disk, ops, model, usize::MAX, &mut |_, _| Ok(()))
}

/// As [`run`], and tells `observer` of every moment from the `from`-th operation on (0: the first
/// opening, n: the n-th operation), and of the last one.
///
/// # Errors
/// What went wrong that should not have, or what the observer says.
pub fn observe(
    setup: &Setup,
    disk: &SimDisk,
    ops: &[Op],
    model: &mut Model,
    from: usize,
    observer: &mut Observer<'_>,
) -> Result<Ended, String> {
    disk.record_moments(from == 0);
    let opened = setup.options(disk).open(DIRECTORY);
    observer(model, disk.take_moments())?;
    let log = match opened {
        Ok(log) => log,
        Err(_) if disk.has_crashed() => return Ok(Ended::Crashed),
        Err(error) => return Err(format!("opening failed: {error}")),
    };
    let mut run =
        Running { setup, disk, log, tickets: Vec::new(), faulty: false, full: false, was_faulty: false };
    for (index, op) in ops.iter().enumerate() {
        if index + 1 == from {
            disk.record_moments(true);
        }
        let outcome = run.step(*op, model, observer);
        observer(model, disk.take_moments())?;
        if disk.has_crashed() {
            return Ok(Ended::Crashed);
        }
        match outcome {
            Ok(()) if run.faulty && run.log.offsets().end < model.end() => {
                // A commit in the background failed and was cut: whoever holds a ticket is told.
                run.reconcile(model).map_err(|why| format!("after a cut behind {op}: {why}"))?;
            }
            Ok(()) => {}
            Err(Trouble::Broken(why)) => return Err(format!("{op}: {why}")),
            Err(Trouble::Refused(error)) => {
                // A fault may have struck in the background, and show only now.
                if run.was_faulty && run.is_poisoned() {
                    observer(model, vec![last_moment(disk)])?;
                    return Ok(Ended::Poisoned);
                }
                if !run.faulty {
                    return Err(format!("{op} failed: {error}"));
                }
                run.reconcile(model).map_err(|why| format!("after {op} failed with {error}: {why}"))?;
            }
        }
        run.check(model).map_err(|why| format!("after {op}: {why}"))?;
        if disk.has_crashed() {
            return Ok(Ended::Crashed);
        }
    }
    observer(model, vec![last_moment(disk)])?;
    Ok(Ended::Done(run.log))
}

fn last_moment(disk: &SimDisk) -> Moment {
    disk.record_moments(false);
    Moment { disk: disk.fork(), mutation: disk.mutations() + 1, mid_write: false }
}

/// Why a step did not succeed.
enum Trouble {
    /// The log refused, or the disk failed: that can be right.
    Refused(Error),
    /// A promise is broken.
    Broken(String),
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Trouble {
        Trouble::Refused(error)
    }
}

impl From<String> for Trouble {
    fn from(why: String) -> Trouble {
        Trouble::Broken(why)
    }
}

struct Running<'a> {
    setup: &'a Setup,
    disk: &'a SimDisk,
    log: Log,
    tickets: Vec<Ticket>,
    /// Whether faults were armed or space taken since it was last healed: then operations may fail.
    faulty: bool,
    full: bool,
    /// Whether this was ever so since the log was opened.
    was_faulty: bool,
}

impl Running<'_> {
    /// One operation: what the model may come to hold goes in before the call, what it must hold after it.
    /// In between the moments of the call are told, with what was known in it.
    fn step(&mut self, op: Op, model: &mut Model, observer: &mut Observer<'_>) -> Result<(), Trouble> {
        let always = self.setup.durability == Durability::Always;
        match op {
            Op::Append(length) => {
                let content = model.content(length);
                let expected = model.end();
                model.records.push(content.clone());
                let appended = self.log.append(&content);
                self.tell(model, observer)?;
                same("append", appended?, expected)?;
                if always {
                    model.acknowledged = model.end();
                }
            }
            Op::Batch(count, length) => {
                let start = model.end();
                let contents: Vec<Arc<[u8]>> = (0..count).map(|_| model.content(length)).collect();
                model.records.extend(contents.iter().cloned());
                model.batches.push(start..model.end());
                let appended = self.log.append_batch(&contents);
                self.tell(model, observer)?;
                same("append_batch", appended?, start..model.end())?;
                if always {
                    model.acknowledged = model.end();
                }
            }
            Op::Submit(length) => {
                let content = model.content(length);
                model.records.push(content.clone());
                let submitted = self.log.submit(&content);
                self.tell(model, observer)?;
                let ticket = submitted?;
                same("submit", ticket.offsets().end, model.end())?;
                self.tickets.push(ticket);
            }
            Op::Sync => {
                if let Some(ticket) = self.tickets.pop() {
                    let waited = ticket.wait();
                    self.tell(model, observer)?;
                    model.acknowledged = model.acknowledged.max(waited?.end.min(model.end()));
                }
                let synced = self.log.sync();
                self.tell(model, observer)?;
                synced?;
                self.tickets.clear();
                model.acknowledged = model.end();
            }
            Op::TruncateFront(eighths) => {
                let offsets = self.log.offsets();
                let front = if eighths > 8 { offsets.end + 5 } else { share(offsets.clone(), eighths) };
                model.front_under_way = Some(front);
                let truncated = self.log.truncate_front(front);
                self.tell(model, observer)?;
                truncated?;
                model.front_under_way = None;
                model.front = front;
                if front > offsets.end {
                    model.restart(front);
                    self.tickets.clear();
                }
                model.acknowledged = model.acknowledged.max(front);
            }
            Op::TruncateBack(eighths) => {
                let end = share(self.log.offsets(), eighths);
                if end < model.end() {
                    model.back_under_way = Some(end);
                    let truncated = self.log.truncate_back(end);
                    self.tell(model, observer)?;
                    truncated?;
                    model.back_under_way = None;
                    model.truncate_back(end);
                    self.tickets.clear();
                }
            }
            Op::PutMeta(key, value) => {
                let (key, value) = (format!("key{}", key % 3), vec![value; 3]);
                model.meta_under_way = Some((key.clone(), value.clone()));
                let put = self.log.put_meta(&key, &value);
                self.tell(model, observer)?;
                put?;
                model.meta_under_way = None;
                model.meta.insert(key, value);
            }
            Op::Reopen => {
                self.tickets.clear();
                let closed = self.log.close();
                self.tell(model, observer)?;
                match closed {
                    Ok(()) => model.acknowledged = model.end(),
                    Err(error) if !self.faulty || self.disk.has_crashed() => return Err(error.into()),
                    Err(_) => {}
                }
                self.reopen(model, observer)?;
            }
            Op::Kill => {
                self.disk.process_crash();
                self.reopen(model, observer)?;
            }
            Op::PowerCut(seed) => {
                self.disk.power_loss(Loss::Seeded(u64::from(seed)));
                self.reopen(model, observer)?;
            }
            Op::Fault(kind, nth) => {
                (self.faulty, self.was_faulty) = (true, true);
                self.disk.inject(fault(kind, u64::from(nth)));
            }
            Op::Fill(pages) => {
                (self.faulty, self.full, self.was_faulty) = (true, true, true);
                self.disk.set_capacity(Some(self.disk.used_bytes() + u64::from(pages) * 4096));
            }
            Op::Heal => self.heal(),
        }
        Ok(())
    }

    /// Tells of the moments since the last time, with what was known at them.
    fn tell(&self, model: &Model, observer: &mut Observer<'_>) -> Result<(), String> {
        observer(model, self.disk.take_moments())
    }

    fn heal(&mut self) {
        (self.faulty, self.full) = (false, false);
        self.disk.clear_faults();
        self.disk.set_capacity(None);
    }

    /// Opens the log again, checks it, and goes on from what it holds.
    fn reopen(&mut self, model: &mut Model, observer: &mut Observer<'_>) -> Result<(), Trouble> {
        self.tickets.clear();
        let mut opened = self.setup.options(self.disk).open(DIRECTORY);
        if opened.is_err() && self.faulty && !self.disk.has_crashed() {
            // Whatever a fault made of this opening, the next one goes well.
            self.heal();
            opened = self.setup.options(self.disk).open(DIRECTORY);
        }
        self.tell(model, observer)?;
        self.log = opened?;
        // A fault that waits for a read must not strike the check.
        self.disk.clear_faults();
        (self.faulty, self.was_faulty) = (self.full, self.full);
        model.check(&self.log)?;
        model.adopt(&self.log);
        Ok(())
    }

    /// Asked in a way that changes nothing.
    fn is_poisoned(&self) -> bool {
        matches!(self.log.truncate_front(0), Err(Error::Poisoned { .. }))
    }

    /// After an operation that failed and left the log in service: it is as if it had never been.
    fn reconcile(&mut self, model: &mut Model) -> Result<(), String> {
        let offsets = self.log.offsets();
        if offsets.start != model.front {
            return Err(format!("G4: the front is {}, not {}", offsets.start, model.front));
        }
        model.front_under_way = None;
        // What was not durable may have been cut, under a truncation too.
        model.back_under_way = None;
        if offsets.end < model.acknowledged || offsets.end > model.end() {
            return Err(format!(
                "the end is {}, of {}, {} acknowledged",
                offsets.end,
                model.end(),
                model.acknowledged
            ));
        }
        model.records.truncate((offsets.end - model.start) as usize);
        model.batches.retain(|batch| batch.end <= offsets.end);
        if self.tickets.iter().any(|ticket| ticket.offsets().end > offsets.end && ticket.is_durable()) {
            return Err("G1: a record was taken back whose ticket says that it is durable".to_string());
        }
        self.tickets.retain(|ticket| ticket.offsets().end <= offsets.end);
        if let Some((key, _)) = model.meta_under_way.take() {
            let found = self.log.meta(&key).map_err(|error| error.to_string())?;
            if found.as_ref() != model.meta.get(&key) {
                return Err(format!("meta {key} changed, though putting it failed"));
            }
        }
        Ok(())
    }

    /// What an open log must show at any time.
    fn check(&self, model: &Model) -> Result<(), String> {
        let offsets = self.log.offsets();
        if offsets != (model.front..model.end().max(model.front)) {
            return Err(format!("offsets are {offsets:?}, not {:?}", model.front..model.end()));
        }
        let durable = self.log.durable_end();
        if durable < model.acknowledged || durable > offsets.end {
            return Err(format!(
                "G1: durable end {durable} of {offsets:?}, {} was acknowledged",
                model.acknowledged
            ));
        }
        for offset in [offsets.start, durable.saturating_sub(1), durable, offsets.end] {
            match self.log.read(offset) {
                Ok(record) if offset < durable && offset >= offsets.start => {
                    if Some(&*record) != model.record(offset) {
                        return Err(format!("the record at {offset} is not what was appended"));
                    }
                }
                Err(Error::OutOfRange { .. }) if offset >= durable || offset < offsets.start => {}
                Err(Error::Io { .. }) if self.faulty => {}
                other => {
                    return Err(format!(
                        "G8: reading {offset} of {offsets:?}, durable {durable}, gave {other:?}"
                    ));
                }
            }
        }
        Ok(())
    }
}

fn same<T: PartialEq + std::fmt::Debug>(call: &str, given: T, expected: T) -> Result<(), String> {
    if given == expected { Ok(()) } else { Err(format!("G2: {call} gave {given:?}, not {expected:?}")) }
}

fn share(range: Range<u64>, eighths: u8) -> u64 {
    range.start + (range.end - range.start) * u64::from(eighths) / 8
}

fn fault(kind: FaultKind, nth: u64) -> Fault {
    match kind {
        FaultKind::Read => Fault::read_error(nth),
        FaultKind::Write => Fault::write_error(nth),
        FaultKind::ShortWrite => Fault::ShortWrite { nth },
        FaultKind::Sync => Fault::sync_error(nth),
        FaultKind::SyncDir => Fault::sync_dir_error(nth),
        FaultKind::Rename => Fault::Error { operation: Operation::Rename, nth, error: FaultError::Io },
        FaultKind::Interrupted => Fault::interrupted(Operation::Sync, nth),
        FaultKind::Full => Fault::storage_full(Operation::Write, nth),
    }
}
