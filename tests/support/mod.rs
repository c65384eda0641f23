//! What the crash tests share: operations on a log over a simulated disk, a model of what they
//! should give, and the check of what a reopened log may hold.
//!
//! The model keeps three kinds of knowledge apart: what was acknowledged (must be there), what was
//! submitted (may be there, in order), and what was under way when the crash came (either state).

#![allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "tests: a failed expectation is how they speak"
)]

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use stonelog::disk::sim::{Loss, SimDisk};
use stonelog::{DamagePolicy, Durability, Error, Log, Options, ReadMode, Ticket};

pub const DIRECTORY: &str = "/log";

/// One operation. Sizes and places are chosen small, so that segments roll all the time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    Append(u16),
    Batch(u8, u16),
    Submit(u16),
    Sync,
    /// Truncate the front at this share (of 8) of the log's span; 9 is beyond the end.
    TruncateFront(u8),
    /// Truncate the back at this share (of 8) of the log's span.
    TruncateBack(u8),
    PutMeta(u8, u8),
    /// Close cleanly and open again.
    Reopen,
    /// Drop nothing, lose nothing: the process dies and the log is opened again.
    Kill,
}

/// How the worlds of one run open their log.
#[derive(Debug, Clone, Copy)]
pub struct Setup {
    pub seed: u64,
    pub durability: Durability,
    pub segment_bytes: u64,
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
}

/// What is known of the log.
#[derive(Debug, Clone, Default)]
pub struct Model {
    pub front: u64,
    /// Submitted records by offset, from `start`.
    pub start: u64,
    pub records: Vec<Vec<u8>>,
    /// Ranges of batches with more than one record.
    pub batches: Vec<Range<u64>>,
    pub acknowledged: u64,
    pub meta: BTreeMap<String, Vec<u8>>,
    /// Under way when the crash came.
    pub front_under_way: Option<u64>,
    pub back_under_way: Option<u64>,
    pub meta_under_way: Option<(String, Vec<u8>)>,
    counter: u64,
}

impl Model {
    pub fn end(&self) -> u64 {
        self.start + self.records.len() as u64
    }

    fn content(&mut self, length: u16) -> Vec<u8> {
        self.counter += 1;
        let mut bytes = format!("<{}>", self.counter).into_bytes();
        while bytes.len() < usize::from(length) {
            let next = bytes[bytes.len() - 1].wrapping_mul(31).wrapping_add(self.counter as u8);
            bytes.push(next);
        }
        bytes.truncate(usize::from(length));
        bytes
    }

    pub fn record(&self, offset: u64) -> Option<&[u8]> {
        self.records.get(usize::try_from(offset.checked_sub(self.start)?).ok()?).map(Vec::as_slice)
    }

    fn truncate_back(&mut self, end: u64) {
        self.records.truncate((end - self.start) as usize);
        self.acknowledged = end;
        self.batches.retain(|batch| batch.end <= end);
    }

    /// Forgets everything and starts at `offset`.
    fn restart(&mut self, offset: u64) {
        self.records.clear();
        self.batches.clear();
        self.start = offset;
        self.acknowledged = offset;
    }

    /// Takes what a reopened log holds as the truth, after it was checked.
    pub fn adopt(&mut self, log: &Log) {
        let offsets = log.offsets();
        if offsets.start >= self.end() {
            self.restart(offsets.start);
        } else {
            self.records.truncate((offsets.end - self.start) as usize);
            self.batches.retain(|batch| batch.end <= offsets.end);
        }
        self.front = offsets.start;
        self.acknowledged = offsets.end;
        self.front_under_way = None;
        self.back_under_way = None;
        if let Some((key, _)) = self.meta_under_way.take()
            && let Some(value) = log.meta(&key).expect("meta")
        {
            self.meta.insert(key, value);
        }
    }

    /// Checks a reopened log against the model: G1 to G4.
    pub fn check(&self, log: &Log) -> Result<(), String> {
        let offsets = log.offsets();
        if log.durable_end() != offsets.end {
            return Err(format!("G8: reopened with durable end {} below {}", log.durable_end(), offsets.end));
        }
        let fronts = [Some(self.front), self.front_under_way];
        if !fronts.contains(&Some(offsets.start)) {
            return Err(format!("G4: front is {}, may be {fronts:?}", offsets.start));
        }
        let skipped =
            self.front_under_way.is_some_and(|front| front > self.end() && offsets == (front..front));
        let cut = self.back_under_way == Some(offsets.end);
        if !skipped && !cut {
            if offsets.end < self.acknowledged {
                return Err(format!("G1: end is {}, {} was acknowledged", offsets.end, self.acknowledged));
            }
            if offsets.end > self.end().max(self.front) {
                return Err(format!("G2: end is {}, only {} was submitted", offsets.end, self.end()));
            }
            for batch in &self.batches {
                if batch.start < offsets.end && offsets.end < batch.end {
                    return Err(format!("G3: end {} lies inside batch {batch:?}", offsets.end));
                }
            }
        }
        for offset in offsets.clone() {
            let read = log.read(offset).map_err(|error| format!("G1: {offset} cannot be read: {error}"))?;
            if Some(&*read) != self.record(offset) {
                return Err(format!("G2: the record at {offset} is not what was submitted"));
            }
        }
        let listed: Vec<u64> = log
            .records(..)
            .map(|record| record.map(|r| r.offset()))
            .collect::<Result<_, _>>()
            .map_err(|e| e.to_string())?;
        if listed != offsets.clone().collect::<Vec<_>>() {
            return Err(format!("G2: records() gives {listed:?} of {offsets:?}"));
        }
        for (key, value) in &self.meta {
            let found = log.meta(key).map_err(|error| error.to_string())?;
            let under_way = self.meta_under_way.as_ref().filter(|(other, _)| other == key).map(|(_, v)| v);
            if found.as_ref() != Some(value) && found.as_ref() != under_way {
                return Err(format!("G1: meta {key} is {found:?}, not {value:?}"));
            }
        }
        Ok(())
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

/// Runs operations on a log over `disk`, keeping `model` up to date.
///
/// # Errors
/// What went wrong that should not have.
pub fn run(setup: &Setup, disk: &SimDisk, ops: &[Op], model: &mut Model) -> Result<Ended, String> {
    let mut log = match setup.options(disk).open(DIRECTORY) {
        Ok(log) => log,
        Err(_) if disk.has_crashed() => return Ok(Ended::Crashed),
        Err(error) => return Err(format!("opening failed: {error}")),
    };
    let mut tickets: Vec<Ticket> = Vec::new();
    for op in ops {
        let outcome = step(setup, disk, op, model, &mut log, &mut tickets);
        if disk.has_crashed() {
            return Ok(Ended::Crashed);
        }
        match outcome {
            Ok(()) => {}
            Err(Error::Poisoned { .. }) => return Ok(Ended::Poisoned),
            Err(error) => {
                if log.append(b"").is_err_and(|error| matches!(error, Error::Poisoned { .. })) {
                    return Ok(Ended::Poisoned);
                }
                return Err(format!("{op:?} failed: {error}"));
            }
        }
        check_open(&log, model).map_err(|why| format!("after {op:?}: {why}"))?;
        if disk.has_crashed() {
            return Ok(Ended::Crashed);
        }
    }
    Ok(Ended::Done(log))
}

/// What an open log must show at any time.
fn check_open(log: &Log, model: &Model) -> Result<(), String> {
    let offsets = log.offsets();
    if offsets != (model.front..model.end().max(model.front)) {
        return Err(format!("offsets are {offsets:?}, not {:?}", model.front..model.end()));
    }
    let durable = log.durable_end();
    if durable < model.acknowledged {
        return Err(format!(
            "G1: durable end {durable} is below what was acknowledged, {}",
            model.acknowledged
        ));
    }
    for offset in [offsets.start, durable.saturating_sub(1), durable, offsets.end] {
        match log.read(offset) {
            Ok(record) if offset < durable && offset >= offsets.start => {
                if Some(&*record) != model.record(offset) {
                    return Err(format!("the record at {offset} is not what was appended"));
                }
            }
            Err(Error::OutOfRange { .. }) if offset >= durable || offset < offsets.start => {}
            other => {
                return Err(format!(
                    "G8: reading {offset} of {offsets:?}, durable {durable}, gave {other:?}"
                ));
            }
        }
    }
    Ok(())
}

fn share(range: Range<u64>, eighths: u8) -> u64 {
    range.start + (range.end - range.start) * u64::from(eighths) / 8
}

fn step(
    setup: &Setup,
    disk: &SimDisk,
    op: &Op,
    model: &mut Model,
    log: &mut Log,
    tickets: &mut Vec<Ticket>,
) -> stonelog::Result<()> {
    let always = setup.durability == Durability::Always;
    match op {
        Op::Append(length) => {
            let content = model.content(*length);
            model.records.push(content.clone());
            let offset = log.append(&content)?;
            assert_eq!(offset + 1, model.end(), "append gave another offset");
            if always {
                model.acknowledged = model.end();
            }
        }
        Op::Batch(count, length) => {
            let contents: Vec<Vec<u8>> = (0..*count).map(|_| model.content(*length)).collect();
            let start = model.end();
            model.records.extend(contents.iter().cloned());
            model.batches.push(start..model.end());
            let range = log.append_batch(&contents)?;
            assert_eq!(range, start..model.end(), "append_batch gave other offsets");
            if always {
                model.acknowledged = model.end();
            }
        }
        Op::Submit(length) => {
            let content = model.content(*length);
            model.records.push(content.clone());
            let ticket = log.submit(&content)?;
            assert_eq!(ticket.offsets().end, model.end());
            tickets.push(ticket);
        }
        Op::Sync => {
            if let Some(ticket) = tickets.pop() {
                let range = ticket.wait()?;
                model.acknowledged = model.acknowledged.max(range.end.min(model.end()));
            }
            log.sync()?;
            tickets.clear();
            model.acknowledged = model.end();
        }
        Op::TruncateFront(eighths) => {
            let offsets = log.offsets();
            let front = if *eighths > 8 { offsets.end + 5 } else { share(offsets.clone(), *eighths) };
            model.front_under_way = Some(front);
            log.truncate_front(front)?;
            model.front_under_way = None;
            model.front = front;
            if front > offsets.end {
                model.restart(front);
            }
            model.acknowledged = model.acknowledged.max(front);
            if front > offsets.end {
                tickets.clear();
            }
        }
        Op::TruncateBack(eighths) => {
            let end = share(log.offsets(), *eighths);
            if end < model.end() {
                model.back_under_way = Some(end);
                log.truncate_back(end)?;
                model.back_under_way = None;
                model.truncate_back(end);
                tickets.clear();
            }
        }
        Op::PutMeta(key, value) => {
            let (key, value) = (format!("key{}", key % 3), vec![*value; 3]);
            model.meta_under_way = Some((key.clone(), value.clone()));
            log.put_meta(&key, &value)?;
            model.meta_under_way = None;
            model.meta.insert(key, value);
        }
        Op::Reopen => {
            tickets.clear();
            log.close()?;
            model.acknowledged = model.end();
            *log = setup.options(disk).open(DIRECTORY)?;
        }
        Op::Kill => {
            tickets.clear();
            disk.process_crash();
            *log = setup.options(disk).open(DIRECTORY)?;
            model.check(log).unwrap_or_else(|why| panic!("after a killed process: {why}"));
            model.adopt(log);
        }
    }
    Ok(())
}

/// Ways to lose what was not synced, for a disk with so many pending changes.
pub fn losses(pending: usize, seeds: u64) -> Vec<Loss> {
    let mut losses = vec![Loss::Nothing, Loss::Everything];
    losses.extend((0..seeds).map(Loss::Seeded));
    for index in 0..pending {
        losses.push(Loss::Prefix(index));
        losses.push(Loss::DropOne(index));
        losses.push(Loss::TearOne(index));
    }
    losses
}

/// Opens a crashed world again and checks it, then checks that what was served is really there:
/// it must survive the worst power cut right after opening, and take new records.
///
/// # Errors
/// Which promise broke.
pub fn recover_and_check(setup: &Setup, disk: &SimDisk, model: &Model) -> Result<Model, String> {
    let log = setup.options(disk).open(DIRECTORY).map_err(|error| format!("G5: does not open: {error}"))?;
    model.check(&log)?;
    let mut after = model.clone();
    after.adopt(&log);
    // Whatever is served after opening must not live in the page cache alone (G6, G7).
    disk.power_loss(Loss::Nothing);
    drop(log);
    let log =
        setup.options(disk).open(DIRECTORY).map_err(|error| format!("G7: does not open again: {error}"))?;
    after.check(&log).map_err(|why| format!("after a power cut behind the recovery: {why}"))?;
    for _ in 0..3 {
        let content = after.content(40);
        after.records.push(content.clone());
        log.append(&content).map_err(|error| format!("appending after recovery: {error}"))?;
    }
    log.sync().map_err(|error| format!("syncing after recovery: {error}"))?;
    after.acknowledged = after.end();
    disk.power_loss(Loss::Nothing);
    drop(log);
    let log = setup
        .options(disk)
        .open(DIRECTORY)
        .map_err(|error| format!("G1: does not open at the end: {error}"))?;
    after.check(&log).map_err(|why| format!("after appending behind the recovery: {why}"))?;
    after.adopt(&log);
    disk.process_crash();
    Ok(after)
}

/// A small generator, so that a seed is a world.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Dice {
        Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(1))
    }

    pub fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % sides
    }

    pub fn op(&mut self) -> Op {
        let length = match self.roll(8) {
            0 => 0,
            1 => 1500,
            _ => self.roll(300) as u16,
        };
        match self.roll(20) {
            0..=5 => Op::Append(length),
            6..=7 => Op::Batch(2 + self.roll(4) as u8, length),
            8..=11 => Op::Submit(length),
            12 => Op::Sync,
            13 => Op::TruncateFront(self.roll(10) as u8),
            14 => Op::TruncateBack(self.roll(9) as u8),
            15 => Op::PutMeta(self.roll(3) as u8, self.roll(250) as u8),
            16 => Op::Reopen,
            17 => Op::Kill,
            _ => Op::Append(length / 4),
        }
    }

    pub fn ops(&mut self, count: usize) -> Vec<Op> {
        (0..count).map(|_| self.op()).collect()
    }
}
