//! Worlds: one seed decides what two to four threads do, in which order they meet, which call of the
//! disk fails, and where the machine crashes. What is found afterwards is checked against what each
//! thread knows.
//!
//! Knowledge is partial. What was acknowledged, to an appender, by a ticket, by `sync`, or by being
//! shown to a reader, must be there. What was submitted and not acknowledged is unknown, which is not
//! the same as absent: it may be there or not, but whole, once, in its thread's order, and at its
//! offset where that was told. Nothing else may be there.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use shuttle::thread;
use stonelog::disk::Background;
use stonelog::disk::sim::{Fault, Loss, SimDisk};
use stonelog::{Durability, Error, Log, Ticket};

use crate::dice::Dice;
use crate::scheduler::{held, sample, seed, trace, trace_of};
use crate::stage::{DIRECTORY, end, open, options};

/// What became of a submission, as far as its thread was told.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Outcome {
    /// Under way, or failed while nobody can say how.
    Unknown,
    /// It has these offsets, and may still be lost.
    Taken(Range<u64>),
    Acknowledged(Range<u64>),
    /// Refused: absent, unless the log was poisoned.
    Refused,
}

#[derive(Debug, Clone, Hash)]
struct Submission {
    thread: u64,
    contents: Vec<Vec<u8>>,
    outcome: Outcome,
}

/// What came up in all worlds: a check that never meets a case does not check it.
static CRASHED: AtomicU64 = AtomicU64::new(0);
static POISONED: AtomicU64 = AtomicU64::new(0);
static ACKNOWLEDGED: AtomicU64 = AtomicU64::new(0);
static SEEN: AtomicU64 = AtomicU64::new(0);
static UNKNOWN_THERE: AtomicU64 = AtomicU64::new(0);
static UNKNOWN_ABSENT: AtomicU64 = AtomicU64::new(0);

fn count(what: &AtomicU64, by: usize) {
    what.fetch_add(by as u64, Ordering::Relaxed);
}

/// What the threads know together.
#[derive(Debug, Clone, Default, Hash)]
struct Knowledge {
    /// In the order of each thread.
    submissions: Vec<Submission>,
    /// What readers were shown.
    seen: BTreeMap<u64, Vec<u8>>,
    front: u64,
    fronts_under_way: Vec<u64>,
    /// By thread: what is kept, and what was tried to be put since.
    meta: BTreeMap<u64, (Option<u8>, Vec<u8>)>,
    /// A failed write takes back a group: then a later record may be there and an earlier one not.
    cuts: bool,
}

/// What the seed decides, besides the schedule.
#[derive(Debug, Clone)]
struct World {
    durability: Durability,
    threads: u64,
    operations: u64,
    /// Before which change of the disk, if at all.
    crash: u64,
    mid_write: bool,
    fault: Option<Fault>,
    closes: bool,
}

impl World {
    fn of(seed: u64) -> World {
        let mut dice = Dice::new(seed ^ 0x57_0E);
        World {
            durability: match dice.roll(4) {
                0 => Durability::Manual,
                1 => Durability::Interval(Duration::from_millis(1)),
                _ => Durability::Always,
            },
            threads: 2 + dice.roll(3),
            operations: 2 + dice.roll(5),
            crash: dice.roll(4).min(1) * (1 + dice.roll(50)),
            mid_write: dice.roll(2) == 0,
            fault: match dice.roll(8) {
                0 => Some(Fault::sync_error(1 + dice.roll(8))),
                1 => Some(Fault::write_error(1 + dice.roll(12))),
                _ => None,
            },
            closes: dice.roll(2) == 0,
        }
    }
}

/// One thread of a world.
struct Actor {
    number: u64,
    log: Log,
    disk: SimDisk,
    knowledge: Arc<Mutex<Knowledge>>,
    always: bool,
    dice: Dice,
    counter: u64,
    tickets: Vec<(usize, Ticket)>,
}

impl Actor {
    fn contents(&mut self, count: u64) -> Vec<Vec<u8>> {
        let length = match self.dice.roll(4) {
            0 => 1200,
            _ => self.dice.roll(200) as usize,
        };
        self.counter += 1;
        let content = |index| {
            let mut bytes =
                format!("thread {} number {} part {index}", self.number, self.counter).into_bytes();
            bytes.resize(bytes.len().max(length), b'.');
            bytes
        };
        (0..count).map(content).collect()
    }

    /// Notes a submission before it is made: from now on it may be there.
    fn note(&self, contents: Vec<Vec<u8>>) -> usize {
        let mut knowledge = self.knowledge.lock().unwrap();
        let outcome = Outcome::Unknown;
        knowledge.submissions.push(Submission { thread: self.number, contents, outcome });
        knowledge.submissions.len() - 1
    }

    fn learn(&self, at: usize, outcome: Outcome) {
        self.knowledge.lock().unwrap().submissions[at].outcome = outcome;
    }

    fn told<T>(&self, at: usize, outcome: Result<T, Error>, taken: impl FnOnce(T) -> Outcome) {
        match outcome {
            Ok(value) => {
                let outcome = taken(value);
                if let Outcome::Acknowledged(range) = &outcome {
                    let durable = held(|| self.log.durable_end());
                    assert!(range.end <= durable, "{range:?} acknowledged, durable end {durable}");
                }
                self.learn(at, outcome);
            }
            Err(Error::Io { .. } | Error::NoSpace { .. }) => self.learn(at, Outcome::Refused),
            Err(Error::Poisoned { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }

    fn live(mut self, operations: u64) {
        for _ in 0..operations {
            if self.disk.has_crashed() {
                return;
            }
            self.act();
        }
        while let Some((at, ticket)) = self.tickets.pop() {
            if self.dice.roll(2) == 0 {
                self.told(at, ticket.wait(), Outcome::Acknowledged);
            }
        }
    }

    fn act(&mut self) {
        let always = self.always;
        let durable = |range: Range<u64>| {
            if always { Outcome::Acknowledged(range) } else { Outcome::Taken(range) }
        };
        match self.dice.roll(14) {
            0..=3 => {
                let contents = self.contents(1);
                let at = self.note(contents.clone());
                let appended = self.log.append(&contents[0]);
                self.told(at, appended, |offset| durable(offset..offset + 1));
            }
            4..=5 => {
                let count = 2 + self.dice.roll(2);
                let contents = self.contents(count);
                let at = self.note(contents.clone());
                let appended = self.log.append_batch(&contents);
                self.told(at, appended, durable);
            }
            6..=7 => {
                let contents = self.contents(1);
                let at = self.note(contents.clone());
                match self.log.submit(&contents[0]) {
                    Ok(ticket) => {
                        if !self.knowledge.lock().unwrap().cuts {
                            self.learn(at, Outcome::Taken(ticket.offsets()));
                        }
                        self.tickets.push((at, ticket));
                    }
                    Err(error) => self.told(at, Err(error), durable),
                }
            }
            8 => {
                if let Some((at, ticket)) = self.tickets.pop() {
                    let waited = if self.dice.roll(2) == 0 {
                        ticket.wait()
                    } else {
                        shuttle::future::block_on(ticket)
                    };
                    self.told(at, waited, Outcome::Acknowledged);
                }
            }
            9 => self.sync(),
            10 => self.truncate_front(),
            11 => self.read(),
            12 => self.follow(),
            _ => self.put_meta(),
        }
    }

    /// Answers for all that was taken before, by anyone.
    fn sync(&self) {
        let before = self.knowledge.lock().unwrap().submissions.clone();
        if self.log.sync().is_ok() {
            for (at, submission) in before.into_iter().enumerate() {
                if let Outcome::Taken(range) = submission.outcome {
                    self.learn(at, Outcome::Acknowledged(range));
                }
            }
        }
    }

    fn truncate_front(&mut self) {
        let front = self.dice.roll(self.log.durable_end() + 1);
        self.knowledge.lock().unwrap().fronts_under_way.push(front);
        if self.log.truncate_front(front).is_ok() {
            let mut knowledge = self.knowledge.lock().unwrap();
            knowledge.front = knowledge.front.max(front);
        }
    }

    fn shown(&self, offset: u64, bytes: &[u8]) {
        let mut knowledge = self.knowledge.lock().unwrap();
        assert!(
            knowledge
                .submissions
                .iter()
                .any(|submission| submission.contents.iter().any(|known| known == bytes)),
            "G2: a reader was shown what nobody submitted, at {offset}"
        );
        let before = knowledge.seen.insert(offset, bytes.to_vec());
        assert!(before.is_none_or(|before| before == bytes), "a durable record changed, at {offset}");
    }

    fn read(&mut self) {
        let end = self.log.durable_end();
        if end == 0 {
            return;
        }
        let offset = self.dice.roll(end);
        match self.log.read(offset) {
            Ok(record) => self.shown(offset, &record),
            Err(Error::OutOfRange { offsets, .. }) => {
                assert!(offset < offsets.start, "G8: {offset} is durable")
            }
            Err(error) => assert!(self.disk.has_crashed(), "{offset} cannot be read: {error}"),
        }
    }

    fn follow(&mut self) {
        let mut reader = self.log.reader(0);
        for _ in 0..3 {
            let before = reader.offset();
            match reader.next() {
                Ok(Some(record)) => {
                    assert_eq!(record.offset(), before, "a record was skipped");
                    self.shown(before, record.bytes());
                }
                Ok(None) => thread::yield_now(),
                Err(Error::OutOfRange { .. }) => return,
                Err(error) => {
                    assert!(self.disk.has_crashed(), "{before} cannot be read: {error}");
                    return;
                }
            }
        }
    }

    fn put_meta(&mut self) {
        let value = self.dice.roll(200) as u8;
        self.knowledge.lock().unwrap().meta.entry(self.number).or_default().1.push(value);
        if self.log.put_meta(&format!("key {}", self.number), [value]).is_ok() {
            self.knowledge.lock().unwrap().meta.insert(self.number, (Some(value), Vec::new()));
        }
    }
}

impl Knowledge {
    /// Checks what was found. `sound`: nothing crashed and nothing was poisoned.
    fn check(&self, log: &Log, sound: bool) {
        let offsets = log.offsets();
        assert_eq!(log.durable_end(), offsets.end, "G8: reopened, and not all of it durable");
        assert!(
            offsets.start == self.front
                || offsets.start > self.front && self.fronts_under_way.contains(&offsets.start),
            "G4: front {}, truncated at {}, and perhaps at {:?}",
            offsets.start,
            self.front,
            self.fronts_under_way
        );
        for (thread, (kept, tried)) in &self.meta {
            let value = log.meta(&format!("key {thread}")).unwrap().map(|value| value[0]);
            let may_be = value == *kept || value.is_some_and(|value| tried.contains(&value));
            assert!(may_be, "metadata of thread {thread} is {value:?}, was {kept:?}, perhaps {tried:?}");
        }
        let there: BTreeMap<u64, Vec<u8>> = offsets
            .clone()
            .map(|offset| match log.read(offset) {
                Ok(record) => (offset, record.to_vec()),
                Err(error) => panic!("G1: {offset} cannot be read: {error}"),
            })
            .collect();
        let is_there = |offset: u64, bytes: &[u8], why: &str| {
            if offset >= offsets.start {
                let found = there.get(&offset).map(Vec::as_slice);
                let shown = found.map(String::from_utf8_lossy);
                assert!(found == Some(bytes), "{offset} {why}; found {shown:?}, log of {offsets:?}");
            }
        };
        for (offset, bytes) in &self.seen {
            is_there(*offset, bytes, "was shown to a reader (G8)");
        }
        let mut places = BTreeMap::new();
        for (offset, bytes) in &there {
            let before = places.insert(bytes.as_slice(), *offset);
            assert!(before.is_none(), "G2: one submission twice, at {before:?} and {offset}");
        }
        let mut found_of_thread: BTreeMap<u64, (u64, Option<usize>)> = BTreeMap::new();
        for (number, submission) in self.submissions.iter().enumerate() {
            let parts: Vec<Option<u64>> =
                submission.contents.iter().map(|bytes| places.remove(bytes.as_slice())).collect();
            let what = String::from_utf8_lossy(&submission.contents[0]);
            let what = what.trim_end_matches('.');
            if let Outcome::Acknowledged(range) = &submission.outcome {
                for (offset, bytes) in range.clone().zip(&submission.contents) {
                    is_there(offset, bytes, "was acknowledged (G1)");
                }
            }
            if let Outcome::Taken(range) = &submission.outcome {
                for (offset, bytes) in
                    range.clone().zip(&submission.contents).filter(|(at, _)| *at < offsets.end)
                {
                    is_there(offset, bytes, "was taken, and something else has its place (G2)");
                }
            }
            if matches!(submission.outcome, Outcome::Unknown | Outcome::Taken(_)) {
                let there = parts.iter().any(Option::is_some);
                count(if there { &UNKNOWN_THERE } else { &UNKNOWN_ABSENT }, 1);
            }
            let missing = parts.iter().take_while(|part| part.is_none()).count();
            let (last_end, absent) = found_of_thread.entry(submission.thread).or_insert((0, None));
            if missing == parts.len() {
                // Absent, or below the front.
                if submission.outcome != Outcome::Refused {
                    *absent = Some(number);
                }
                continue;
            }
            assert!(!(sound && submission.outcome == Outcome::Refused), "{what} was refused, and is there");
            let first = parts[missing].unwrap();
            assert!(
                missing == 0 || first == offsets.start,
                "G3: the batch of {what} begins with part {missing}"
            );
            for (place, part) in (first..).zip(&parts[missing..]) {
                assert_eq!(*part, Some(place), "G3: the batch of {what} is not whole");
            }
            assert!(first >= *last_end, "G2: {what} is before what its thread submitted earlier");
            *last_end = first + 1;
            assert!(
                absent.is_none() || offsets.start > 0 || self.cuts,
                "G2: {what} is there, and what its thread submitted before it is not"
            );
        }
        assert!(places.is_empty(), "G2: strangers: {places:?}");
    }
}

/// Lives one world, and gives a hash of all that can be seen of it.
fn live(seed: u64, traced: bool) -> u64 {
    let world = World::of(seed);
    if std::env::var_os("STONELOG_SCHEDULE_SEED").is_some() {
        println!("{world:?}");
    }
    let disk = SimDisk::new(seed).with_background(Background::Threads);
    disk.record_trace(traced);
    let log = open(options(disk.clone()).durability(world.durability), 0);
    let cuts = world.durability == Durability::Always && world.fault.is_some();
    let knowledge = Arc::new(Mutex::new(Knowledge { cuts, ..Knowledge::default() }));
    disk.crash_at_mutation(world.crash);
    disk.crash_mid_write(world.mid_write);
    if let Some(fault) = world.fault {
        disk.inject(fault);
    }
    let threads: Vec<_> = (0..world.threads)
        .map(|number| {
            let actor = Actor {
                number,
                log: log.clone(),
                disk: disk.clone(),
                knowledge: knowledge.clone(),
                always: world.durability == Durability::Always,
                dice: Dice::new(seed.wrapping_mul(31).wrapping_add(number)),
                counter: 0,
                tickets: Vec::new(),
            };
            let operations = world.operations;
            thread::spawn(move || actor.live(operations))
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    let poisoned = disk.has_crashed() || held(|| log.put_meta("last", b"1")).is_err();
    if world.closes && log.close().is_ok() {
        let mut knowledge = knowledge.lock().unwrap();
        for submission in &mut knowledge.submissions {
            if let Outcome::Taken(range) = &submission.outcome {
                submission.outcome = Outcome::Acknowledged(range.clone());
            }
        }
    }
    let left = disk.fork();
    end(log);
    let knowledge = knowledge.lock().unwrap().clone();
    count(&CRASHED, usize::from(left.has_crashed()));
    count(&POISONED, usize::from(poisoned && !left.has_crashed()));
    let acknowledged = |submission: &&Submission| matches!(submission.outcome, Outcome::Acknowledged(_));
    count(&ACKNOWLEDGED, knowledge.submissions.iter().filter(acknowledged).count());
    count(&SEEN, knowledge.seen.len());
    held(|| look(seed, &left, &knowledge, !poisoned));
    let mut hasher = DefaultHasher::new();
    (trace(), &knowledge, left.digest(), left.durable_digest(), left.steps()).hash(&mut hasher);
    format!("{:?}", left.trace()).hash(&mut hasher);
    hasher.finish()
}

/// Opens what is left after several ways to crash, twice each.
fn look(seed: u64, left: &SimDisk, knowledge: &Knowledge, sound: bool) {
    let losses = [None, Some(Loss::Nothing), Some(Loss::Everything), Some(Loss::Seeded(seed))];
    for loss in losses {
        let world = left.fork();
        world.clear_faults();
        world.set_background(Background::Inline);
        match loss {
            None => world.process_crash(),
            Some(loss) => world.power_loss(loss),
        }
        let reopen = || {
            options(world.clone())
                .open(DIRECTORY)
                .unwrap_or_else(|error| panic!("G5: does not open after {loss:?}: {error}"))
        };
        let log = reopen();
        knowledge.check(&log, sound);
        let offsets = log.offsets();
        world.power_loss(Loss::Nothing);
        drop(log);
        let log = reopen();
        assert_eq!(log.offsets(), offsets, "G7: another power cut changes what was recovered");
        knowledge.check(&log, sound);
    }
}

#[test]
fn worlds() {
    const SEEDS: u64 = 6000;
    if sample(SEEDS, || assert_ne!(live(seed(), false), 0)) < SEEDS {
        return;
    }
    for (what, counted) in [
        ("worlds crashed", &CRASHED),
        ("worlds were poisoned", &POISONED),
        ("submissions were acknowledged", &ACKNOWLEDGED),
        ("records were shown to readers", &SEEN),
        ("times an unknown submission was there", &UNKNOWN_THERE),
        ("times one was absent", &UNKNOWN_ABSENT),
    ] {
        let counted = counted.load(Ordering::Relaxed);
        println!("  {counted} {what}");
        assert!(counted >= 100, "only {counted} {what}");
    }
}

/// Without this, a seed would replay nothing.
#[test]
fn a_seed_is_a_world() {
    for seed in 1..=30 {
        let lived = || {
            let seen = Arc::new(Mutex::new(0));
            let inner = seen.clone();
            let schedule = trace_of(seed, move || *inner.lock().unwrap() = live(seed, true));
            let seen = *seen.lock().unwrap();
            (schedule, seen)
        };
        let first = lived();
        assert_eq!(first, lived(), "seed {seed} is not the same world twice");
    }
}
