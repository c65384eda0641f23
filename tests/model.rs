//! The whole API against a Vec, under proptest, without crashes: on a simulated disk with segments
//! of 4 KiB, and on the real one, mapped and buffered.
#![allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "tests: a failed expectation is how they speak"
)]

#[path = "support/property.rs"]
mod property;

use std::collections::BTreeMap;
use std::ops::{Bound, Range};
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use stonelog::disk::sim::SimDisk;
use stonelog::{Durability, Error, Log, Options, ReadMode, Ticket};

/// "At most a few": the engine's bound on rolled segments, and the active one.
const MOST_UNSEALED: usize = 5;

#[derive(Debug, Clone)]
enum Op {
    Append(u16),
    Batch(Vec<u16>),
    Submit(u16, Wait),
    SubmitBatch(Vec<u16>, Wait),
    AppendAt(Vec<u16>),
    AppendAtWrong(i8, u16),
    TooLarge,
    Read(u16),
    /// A range of offsets, as shares of the span, and how its bounds are written.
    Records(u16, u16, u8),
    Reader(u16, u8),
    /// A share of the span; above 1000: past the end by the rest.
    TruncateFront(u16),
    TruncateBack(u16),
    PutMeta(u8, Vec<u8>),
    RemoveMeta(u8),
    Sync,
    Segments,
    Reopen,
    DropAndReopen,
}

#[derive(Debug, Clone, Copy)]
enum Wait {
    Now,
    Await,
    AtSync,
    Never,
}

fn length() -> impl Strategy<Value = u16> {
    prop_oneof![Just(0u16), 1..40u16, 100..400u16, Just(1500u16), Just(5000u16)]
}

fn lengths() -> impl Strategy<Value = Vec<u16>> {
    prop::collection::vec(length(), 0..6)
}

fn wait() -> impl Strategy<Value = Wait> {
    prop_oneof![Just(Wait::Now), Just(Wait::Await), Just(Wait::AtSync), Just(Wait::Never)]
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => length().prop_map(Op::Append),
        3 => lengths().prop_map(Op::Batch),
        4 => (length(), wait()).prop_map(|(length, wait)| Op::Submit(length, wait)),
        2 => (lengths(), wait()).prop_map(|(lengths, wait)| Op::SubmitBatch(lengths, wait)),
        2 => lengths().prop_map(Op::AppendAt),
        1 => (any::<i8>(), length()).prop_map(|(by, length)| Op::AppendAtWrong(by, length)),
        1 => Just(Op::TooLarge),
        3 => (0..1100u16).prop_map(Op::Read),
        3 => (0..1100u16, 0..1100u16, any::<u8>()).prop_map(|(from, to, kind)| Op::Records(from, to, kind)),
        2 => (0..1100u16, any::<u8>()).prop_map(|(from, steps)| Op::Reader(from, steps)),
        2 => (0..1050u16).prop_map(Op::TruncateFront),
        2 => (0..1050u16).prop_map(Op::TruncateBack),
        1 => (0..4u8, prop::collection::vec(any::<u8>(), 0..50)).prop_map(|(key, value)| Op::PutMeta(key, value)),
        1 => (0..4u8).prop_map(Op::RemoveMeta),
        2 => Just(Op::Sync),
        2 => Just(Op::Segments),
        1 => Just(Op::Reopen),
        1 => Just(Op::DropAndReopen),
    ]
}

struct Unpark(std::thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// The smallest runtime. On a disk without threads nobody may wake the task: it asks again.
fn block_on<F: Future>(future: F, threads: bool) -> F::Output {
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending if threads => std::thread::park(),
            Poll::Pending => {}
        }
    }
}

/// How a world opens its log.
struct World {
    options: Options,
    directory: PathBuf,
    threads: bool,
    appended_seen: bool,
    always: bool,
}

impl World {
    fn open(&self) -> Log {
        self.options.clone().open(&self.directory).unwrap()
    }
}

/// The log as a Vec.
#[derive(Default)]
struct Model {
    start: u64,
    front: u64,
    records: Vec<Vec<u8>>,
    /// Known to be durable.
    durable: u64,
    meta: BTreeMap<String, Vec<u8>>,
    counter: u32,
}

impl Model {
    fn end(&self) -> u64 {
        self.start + self.records.len() as u64
    }

    fn record(&self, offset: u64) -> &[u8] {
        &self.records[(offset - self.start) as usize]
    }

    fn make(&mut self, length: u16) -> Vec<u8> {
        self.counter += 1;
        let seed = self.counter;
        (0..u32::from(length)).map(|at| (seed.wrapping_mul(31).wrapping_add(at * 7)) as u8).collect()
    }

    fn make_all(&mut self, lengths: &[u16]) -> Vec<Vec<u8>> {
        lengths.iter().map(|length| self.make(*length)).collect()
    }

    fn push(&mut self, records: Vec<Vec<u8>>) -> Range<u64> {
        let start = self.end();
        self.records.extend(records);
        start..self.end()
    }

    /// An offset at this share of the span; above 1000 it lies beyond the end.
    fn at(&self, share: u16) -> u64 {
        let span = self.end() - self.front;
        match share.checked_sub(1000) {
            None => self.front + span * u64::from(share) / 1000,
            Some(beyond) => self.end() + u64::from(beyond),
        }
    }
}

fn run(world: &World, ops: &[Op]) {
    let mut log = world.open();
    let mut model = Model::default();
    let mut tickets: Vec<Ticket> = Vec::new();
    for op in ops {
        step(world, &mut log, &mut model, &mut tickets, op);
        let offsets = log.offsets();
        assert_eq!(offsets, model.front..model.end(), "after {op:?}");
        let durable = log.durable_end();
        assert!(durable >= model.durable && durable <= model.end(), "after {op:?}: durable end {durable}");
    }
    log.sync().unwrap();
    model.durable = model.end();
    compare_all(&log, &model);
    log.close().unwrap();
    assert!(matches!(log.append(b"x"), Err(Error::Closed)));
    compare_all(&log, &model);
    drop(log);
    compare_all(&world.open(), &model);
    let reading = world.options.clone().open_read_only(&world.directory).unwrap();
    compare_all(&reading, &model);
}

fn compare_all(log: &Log, model: &Model) {
    assert_eq!(log.offsets(), model.front..model.end());
    assert_eq!(log.durable_end(), model.end());
    for offset in log.offsets() {
        let record = log.read(offset).unwrap();
        assert_eq!((record.offset(), &*record), (offset, model.record(offset)));
    }
    let listed: Vec<_> =
        log.records(..).map(|record| record.unwrap()).map(|r| (r.offset(), r.to_vec())).collect();
    assert_eq!(listed.len() as u64, model.end() - model.front);
    assert!(listed.iter().all(|(offset, bytes)| bytes == model.record(*offset)));
    for key in 0..4 {
        let key = format!("key{key}");
        assert_eq!(log.meta(&key).unwrap().as_ref(), model.meta.get(&key));
    }
    check_segments(log);
}

fn check_segments(log: &Log) {
    let segments = log.segments();
    let offsets = log.offsets();
    for pair in segments.windows(2) {
        assert!(pair[0].id < pair[1].id, "{segments:?}");
        assert_eq!(pair[0].end, pair[1].base, "a gap between segments: {segments:?}");
        assert!(pair[0].sealed || !pair[1].sealed, "sealed out of order: {segments:?}");
    }
    if !offsets.is_empty() {
        assert!(segments.first().unwrap().base <= offsets.start, "{segments:?} of {offsets:?}");
        assert_eq!(segments.last().unwrap().end, offsets.end, "{segments:?}");
    }
    assert!(
        segments.iter().filter(|segment| !segment.sealed).count() <= MOST_UNSEALED,
        "too many unsealed: {segments:?}"
    );
}

fn finish(world: &World, ticket: Ticket, wait: Wait, model: &mut Model, tickets: &mut Vec<Ticket>) {
    let range = ticket.offsets();
    match wait {
        Wait::Now => assert_eq!(ticket.wait().unwrap(), range),
        Wait::Await => assert_eq!(block_on(ticket, world.threads).unwrap(), range),
        Wait::AtSync => {
            tickets.push(ticket);
            return;
        }
        Wait::Never => return,
    }
    model.durable = model.durable.max(range.end);
}

#[allow(clippy::too_many_lines, reason = "one arm for each operation")]
fn step(world: &World, log: &mut Log, model: &mut Model, tickets: &mut Vec<Ticket>, op: &Op) {
    let acknowledged = |model: &mut Model| {
        if world.always {
            model.durable = model.end();
        }
    };
    match op {
        Op::Append(length) => {
            let bytes = model.make(*length);
            let range = model.push(vec![bytes.clone()]);
            assert_eq!(log.append(&bytes).unwrap(), range.start);
            acknowledged(model);
        }
        Op::Batch(lengths) => {
            let batch = model.make_all(lengths);
            let range = model.push(batch.clone());
            assert_eq!(log.append_batch(&batch).unwrap(), range);
            if !lengths.is_empty() {
                acknowledged(model);
            }
        }
        Op::Submit(length, wait) => {
            let bytes = model.make(*length);
            let range = model.push(vec![bytes.clone()]);
            let ticket = log.submit(&bytes).unwrap();
            assert_eq!(ticket.offsets(), range);
            finish(world, ticket, *wait, model, tickets);
        }
        Op::SubmitBatch(lengths, wait) => {
            let batch = model.make_all(lengths);
            if batch.is_empty() {
                return;
            }
            let range = model.push(batch.clone());
            let ticket = log.submit_batch(&batch).unwrap();
            assert_eq!(ticket.offsets(), range);
            finish(world, ticket, *wait, model, tickets);
        }
        Op::AppendAt(lengths) => {
            let batch = model.make_all(lengths);
            let expected = model.end();
            let range = model.push(batch.clone());
            assert_eq!(log.append_at(expected, &batch).unwrap(), range);
            if !lengths.is_empty() {
                acknowledged(model);
            }
        }
        Op::AppendAtWrong(by, length) => {
            let wrong = model.end().wrapping_add_signed(if *by == 0 { 1 } else { i64::from(*by) });
            let refused = log.append_at(wrong, [vec![0; usize::from(*length)]]);
            match refused {
                Err(Error::UnexpectedOffset { expected, next }) => {
                    assert_eq!((expected, next), (wrong, model.end()))
                }
                other => panic!("append_at({wrong}) at {}: {other:?}", model.end()),
            }
        }
        Op::TooLarge => {
            let refused = log.append(vec![0; 8193]);
            assert!(
                matches!(refused, Err(Error::TooLarge { what: "record", bytes: 8193, limit: 8192 })),
                "{refused:?}"
            );
        }
        Op::Read(share) => {
            for offset in [model.at(*share), model.front.wrapping_sub(1), model.end(), u64::MAX] {
                read(world, log, model, offset);
            }
        }
        Op::Records(from, to, kind) => {
            let (from, to) = (model.at(*from), model.at(*to));
            let start = match kind % 3 {
                0 => Bound::Included(from),
                1 => Bound::Excluded(from),
                _ => Bound::Unbounded,
            };
            let end = match kind / 3 % 3 {
                0 => Bound::Included(to),
                1 => Bound::Excluded(to),
                _ => Bound::Unbounded,
            };
            let visible = if world.appended_seen { model.end() } else { log.durable_end() };
            let listed: Vec<_> = log.records((start, end)).map(|record| record.unwrap()).collect();
            let first = match start {
                Bound::Included(from) => from,
                Bound::Excluded(from) => from + 1,
                Bound::Unbounded => 0,
            }
            .max(model.front);
            let last = match end {
                Bound::Included(to) => to + 1,
                Bound::Excluded(to) => to,
                Bound::Unbounded => u64::MAX,
            };
            let least = last.min(visible).saturating_sub(first) as usize;
            let most = last.min(model.end()).saturating_sub(first) as usize;
            assert!(listed.len() >= least && listed.len() <= most, "{} of {least}..={most}", listed.len());
            for (offset, record) in (first..).zip(&listed) {
                assert_eq!((record.offset(), &**record), (offset, model.record(offset)));
            }
        }
        Op::Reader(from, steps) => {
            let from = model.at(*from);
            let mut reader = log.reader(from);
            let mut next = from.max(model.front);
            assert_eq!(reader.offset(), next);
            for _ in 0..*steps {
                let durable = log.durable_end();
                let Some(record) = reader.next().unwrap() else {
                    assert!(
                        next >= if world.appended_seen { model.end() } else { durable },
                        "ended at {next}"
                    );
                    break;
                };
                assert_eq!((record.offset(), record.bytes()), (next, model.record(next)));
                next += 1;
            }
            assert_eq!(reader.offset(), next);
        }
        Op::TruncateFront(share) => {
            let front = model.at(*share);
            log.truncate_front(front).unwrap();
            if front > model.end() {
                model.records.clear();
                model.start = front;
            }
            model.front = model.front.max(front);
            model.durable = model.durable.max(front);
            // Going back does nothing.
            log.truncate_front(model.front / 2).unwrap();
        }
        Op::TruncateBack(share) => {
            let end = model.at(*share);
            log.truncate_back(end).unwrap();
            if end < model.end() {
                model.records.truncate((end - model.start) as usize);
                model.durable = model.end();
                tickets.clear();
            }
            if model.front > 0 {
                assert!(matches!(log.truncate_back(model.front - 1), Err(Error::OutOfRange { .. })));
            }
        }
        Op::PutMeta(key, value) => {
            let key = format!("key{key}");
            log.put_meta(&key, value).unwrap();
            model.meta.insert(key.clone(), value.clone());
            assert_eq!(log.meta(&key).unwrap().as_ref(), Some(value));
        }
        Op::RemoveMeta(key) => {
            let key = format!("key{key}");
            log.remove_meta(&key).unwrap();
            model.meta.remove(&key);
            assert_eq!(log.meta(&key).unwrap(), None);
        }
        Op::Sync => {
            log.sync().unwrap();
            model.durable = model.end();
            assert_eq!(log.durable_end(), model.end());
            for ticket in tickets.drain(..) {
                let range = ticket.offsets();
                assert_eq!(ticket.wait().unwrap(), range);
            }
        }
        Op::Segments => check_segments(log),
        Op::Reopen => {
            tickets.clear();
            log.close().unwrap();
            log.close().unwrap();
            *log = reopen(world, log);
            model.durable = model.end();
            assert!(log.recovery().clean, "{}", log.recovery());
            compare_all(log, model);
        }
        Op::DropAndReopen => {
            tickets.clear();
            *log = reopen(world, log);
            model.durable = model.end();
            assert!(log.recovery().clean, "{}", log.recovery());
            compare_all(log, model);
        }
    }
}

/// Drops the handle, the last one, and opens again.
fn reopen(world: &World, log: &mut Log) -> Log {
    let elsewhere = Options::new().disk(Arc::new(SimDisk::new(0))).open("/placeholder").unwrap();
    drop(std::mem::replace(log, elsewhere));
    world.open()
}

fn read(world: &World, log: &Log, model: &Model, offset: u64) {
    let visible = if world.appended_seen { model.end() } else { log.durable_end() };
    let outcome = log.read(offset);
    let later = if world.appended_seen { model.end() } else { log.durable_end() };
    match outcome {
        Ok(record) => {
            assert!(offset >= model.front && offset < later);
            assert_eq!((record.offset(), &*record), (offset, model.record(offset)));
        }
        Err(Error::OutOfRange { offset: named, .. }) => {
            assert_eq!(named, offset);
            assert!(offset < model.front || offset >= visible, "{offset} is there");
        }
        Err(error) => panic!("reading {offset}: {error}"),
    }
}

fn against_the_model(cases: u32, world: impl Fn(u64) -> (World, Option<tempfile::TempDir>)) {
    let regressions = concat!(env!("CARGO_MANIFEST_DIR"), "/proptest-regressions/model.txt");
    let mut runner = TestRunner::new(property::config(cases, Some(regressions)));
    let outcome = runner.run(&(any::<u64>(), prop::collection::vec(op(), 1..60)), |(seed, ops)| {
        let (world, guard) = world(seed);
        run(&world, &ops);
        drop(guard);
        Ok(())
    });
    if let Err(failure) = outcome {
        panic!("{failure}");
    }
}

fn options() -> Options {
    Options::new().segment_bytes(4096).max_record_bytes(8192)
}

fn on_sim(durability: Durability, appended_seen: bool) -> impl Fn(u64) -> (World, Option<tempfile::TempDir>) {
    move |seed| {
        let options = options()
            .disk(Arc::new(SimDisk::new(seed)))
            .durability(durability)
            .readers_see_appended(appended_seen);
        let always = durability == Durability::Always;
        (World { options, directory: "/log".into(), threads: false, appended_seen, always }, None)
    }
}

fn on_os(
    durability: Durability,
    mode: ReadMode,
    appended_seen: bool,
) -> impl Fn(u64) -> (World, Option<tempfile::TempDir>) {
    move |_| {
        let guard = tempfile::tempdir().unwrap();
        let options = options().durability(durability).read_mode(mode).readers_see_appended(appended_seen);
        let always = durability == Durability::Always;
        let directory = guard.path().join("log");
        (World { options, directory, threads: true, appended_seen, always }, Some(guard))
    }
}

#[test]
fn simulated_always() {
    against_the_model(300, on_sim(Durability::Always, false));
}

#[test]
fn simulated_manual() {
    against_the_model(300, on_sim(Durability::Manual, false));
}

#[test]
fn simulated_interval() {
    against_the_model(150, on_sim(Durability::Interval(Duration::from_millis(5)), false));
}

#[test]
fn simulated_readers_see_appended() {
    against_the_model(150, on_sim(Durability::Manual, true));
    against_the_model(100, on_sim(Durability::Always, true));
}

#[test]
fn real_mapped() {
    against_the_model(12, on_os(Durability::Always, ReadMode::Mapped, false));
    against_the_model(16, on_os(Durability::Manual, ReadMode::Mapped, false));
    against_the_model(8, on_os(Durability::Manual, ReadMode::Mapped, true));
}

#[test]
fn real_buffered() {
    against_the_model(8, on_os(Durability::Always, ReadMode::Buffered, false));
    against_the_model(12, on_os(Durability::Interval(Duration::from_millis(1)), ReadMode::Buffered, true));
}

/// A record read before a truncation stays readable: it holds what it lends.
#[test]
fn a_record_outlives_its_place() {
    for mode in [ReadMode::Mapped, ReadMode::Buffered] {
        let (world, _guard) = on_os(Durability::Always, mode, false)(0);
        let log = world.open();
        for number in 0..40u8 {
            log.append([number; 300]).unwrap();
        }
        let held: Vec<_> = (0..40).map(|offset| log.read(offset).unwrap()).collect();
        log.truncate_front(35).unwrap();
        log.truncate_back(37).unwrap();
        for _ in 0..20 {
            log.append([200; 300]).unwrap();
        }
        log.close().unwrap();
        drop(log);
        for (number, record) in (0..).zip(&held) {
            assert_eq!(**record, [number; 300]);
        }
    }
}
