//! G5 and G9 on a device that lies: one write that it acknowledged, through every fsync, was never done, or
//! landed elsewhere. That breaks assumption A1, so not all can be promised. What can be:
//!
//! - **Never wrong data.** A record that is read is what was submitted at its offset; else it is an error, or
//!   the log is refused as damaged. That holds of any one lie, at any write, to any file. (Where the lie
//!   undoes a truncation of the back, what was submitted at the offset before it counts: see below.)
//! - **Never shorter in silence where a later record was acknowledged**: it was written after the lie, and its
//!   watermark attests all before it. So the opening refuses, or all offsets are there and the missing record
//!   answers `Error::Damaged`. (In a sealed segment, and after a clean close, it is always the latter: the
//!   Seal and the Close say how many there are.)
//! - **Never shorter than before the operation that was lied about**, where the write was lost and no more.
//!
//! What nothing can prove is what GUARANTEES says it is, and a lie is one more way to get there: the last
//! acknowledged group without a frame behind it; the manifest's last edit with nothing that depends on it,
//! so that a truncation or a value of metadata is undone. A misdirected write can also strike the records
//! just before itself, and with them what attests it.
//!
//! What it would catch: a watermark that is not written, or not believed; a frame taken for another because
//! it lies where that should be; an index or a manifest trusted without its checksum.

use std::collections::{BTreeMap, BTreeSet};

use stonelog::disk::sim::{Capabilities, Fault, Loss, Operation, SimDisk};
use stonelog::names;
use stonelog::{DamagePolicy, Error, Log};

use crate::common::{DIRECTORY, after, damage, options};
use crate::support::op::Dice;

/// A lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lie {
    Lost,
    Misdirected,
}

impl Lie {
    fn about(self, nth: u64) -> Fault {
        match self {
            Lie::Lost => Fault::LostWrite { nth },
            Lie::Misdirected => Fault::MisdirectedWrite { nth },
        }
    }
}

/// With sectors of 8 bytes no neighbour's write heals a lost one, and what goes astray fits everywhere.
fn device(seed: u64, sector: u64) -> SimDisk {
    let mut device = Capabilities::default();
    device.sector_bytes = sector;
    let disk = SimDisk::with_capabilities(seed, device);
    disk.record_trace(true);
    disk
}

fn writes(disk: &SimDisk) -> u64 {
    disk.trace().iter().filter(|entry| entry.operation == Operation::Write).count() as u64
}

/// What a world did, as far as it bears on what may be read.
#[derive(Debug, Default)]
struct History {
    /// All that was ever submitted at an offset.
    submitted: BTreeMap<u64, BTreeSet<Vec<u8>>>,
    values: BTreeSet<Vec<u8>>,
    counter: u64,
    /// The end, when the last operation began in which the lie may have been told, and whether records were
    /// acknowledged in a later one.
    end_before: u64,
    confirmed: bool,
    end: u64,
}

impl History {
    fn content(&mut self, offset: u64, length: u64) -> Vec<u8> {
        self.counter += 1;
        let mut bytes = format!("<{} at {offset}>", self.counter).into_bytes();
        while (bytes.len() as u64) < length {
            bytes.push((bytes.len() as u64 * 131 + self.counter * 7 + 1) as u8 | 1);
        }
        self.submitted.entry(offset).or_default().insert(bytes.clone());
        bytes
    }

    /// Random operations; the `lied`-th write is the one that does not happen as it should. The log is left
    /// as a crash would.
    fn run(seed: u64, disk: &SimDisk, lied: u64) -> History {
        let mut history = History::default();
        let mut dice = Dice::new(seed);
        let mut log = options(disk).open(DIRECTORY).unwrap();
        for _ in 0..22 {
            let told = writes(disk) >= lied;
            let offsets = log.offsets();
            if !told {
                history.end_before = offsets.end;
            }
            let length = [0, 30, 200, 700, 1300][dice.roll(5) as usize];
            match dice.roll(12) {
                0 | 1 => {
                    let batch: Vec<_> = (offsets.end..offsets.end + 3)
                        .map(|offset| history.content(offset, length))
                        .collect();
                    log.append_batch(batch).unwrap();
                    history.confirmed |= told;
                }
                2 => log.truncate_front(offsets.start + dice.roll(offsets.end - offsets.start + 1)).unwrap(),
                3 => {
                    log.truncate_back(offsets.end - dice.roll((offsets.end - offsets.start).min(4) + 1))
                        .unwrap();
                    if !told {
                        history.end_before = log.offsets().end;
                    }
                }
                4 => {
                    let value = history.counter.to_string().into_bytes();
                    history.values.insert(value.clone());
                    log.put_meta("key", value).unwrap();
                }
                5 => {
                    log.close().unwrap();
                    log = options(disk).open(DIRECTORY).unwrap();
                }
                _ => {
                    let content = history.content(offsets.end, length);
                    log.append(content).unwrap();
                    history.confirmed |= told;
                }
            }
        }
        history.end = log.offsets().end;
        std::mem::forget(log);
        history
    }

    fn check(&self, log: &Log, what: &str) {
        for offset in log.offsets() {
            match log.read(offset) {
                Ok(record) => {
                    let submitted = self.submitted.get(&offset);
                    assert!(
                        submitted.is_some_and(|all| all.contains(&*record)),
                        "{what}: wrong data at {offset}"
                    );
                }
                Err(Error::Damaged(damage)) => {
                    assert_eq!(damage.offsets, Some(offset..offset + 1), "{what}");
                }
                Err(error) => panic!("{what}: reading {offset}: {error}"),
            }
        }
        for record in log.records(..) {
            match record {
                Ok(record) => assert!(self.submitted[&record.offset()].contains(&*record), "{what}"),
                Err(Error::Damaged(_)) => {}
                Err(error) => panic!("{what}: listing: {error}"),
            }
        }
        if let Some(value) = log.meta("key").unwrap() {
            assert!(self.values.contains(&value), "{what}: a value that nobody put");
        }
    }
}

/// Of any one lie, about any write, nothing comes that was not submitted.
#[test]
fn one_lie_anywhere_gives_no_wrong_data_and_hides_nothing_that_is_attested() {
    let (mut refused, mut opened, mut shortened) = (0, 0, 0);
    for (seed, sector) in (0..5).flat_map(|seed| [(seed, 8), (seed, 512)]) {
        let honest = device(seed, sector);
        History::run(seed, &honest, u64::MAX);
        for nth in 1..=writes(&honest) {
            for lie in [Lie::Lost, Lie::Misdirected] {
                let disk = device(seed, sector);
                disk.inject(lie.about(nth));
                let history = History::run(seed, &disk, nth);
                for loss in [Loss::Nothing, Loss::Everything, Loss::Seeded(nth)] {
                    let what = format!("seed {seed}, sectors of {sector}, write {nth} {lie:?}, {loss:?}");
                    let world = after(&disk, loss);
                    match options(&world.fork()).open(DIRECTORY) {
                        Ok(log) => {
                            opened += 1;
                            history.check(&log, &what);
                            let end = log.offsets().end;
                            if end < history.end {
                                shortened += 1;
                                assert!(!history.confirmed, "{what}: {end} of {} in silence", history.end);
                                assert!(
                                    lie == Lie::Misdirected || end >= history.end_before,
                                    "{what}: {end} is below {}",
                                    history.end_before
                                );
                            }
                        }
                        Err(Error::Damaged(_)) => refused += 1,
                        Err(error) => panic!("{what}: {error}"),
                    }
                    for log in [
                        options(&world.fork()).on_damage(DamagePolicy::Serve).open(DIRECTORY),
                        options(&world).open_read_only(DIRECTORY),
                    ] {
                        match log {
                            Ok(log) => history.check(&log, &what),
                            Err(Error::Damaged(_)) => {}
                            Err(error) => panic!("{what}: {error}"),
                        }
                    }
                }
            }
        }
    }
    println!("{opened} opened, {shortened} of these shorter, {refused} refused");
    assert!(opened > 500 && refused > 300, "{opened} opened, {refused} refused: the lies do not bite");
}

/// Each record's own write is lost. With another record acknowledged behind it the opening names it and its
/// proof, or, where a Seal already counts it, reading it does. Without one nothing can: it is gone, alone.
#[test]
fn a_lost_record_is_named_where_a_later_one_attests_it() {
    const RECORDS: u64 = 24;
    let content = |offset: u64| vec![offset as u8 + 1; 300];
    let record_writes = {
        let disk = device(1, 8);
        let log = options(&disk).open(DIRECTORY).unwrap();
        let mut nth = Vec::new();
        for offset in 0..RECORDS {
            let before = writes(&disk) as usize;
            log.append(content(offset)).unwrap();
            let trace = disk.trace();
            let of_record = trace.iter().filter(|e| e.operation == Operation::Write).enumerate().skip(before);
            // A segment's first frames go with its base sector, in one write.
            let frames = of_record.filter(|(_, entry)| {
                let name = entry.path.rsplit('/').next().unwrap();
                names::id_of_store(name).is_some() && entry.position > 0 && entry.length >= 316
            });
            nth.push(frames.map(|(index, _)| index as u64 + 1).next().unwrap());
        }
        nth
    };
    let mut by_reading = 0;
    for (lost, nth) in (0..).zip(record_writes) {
        for closed in [false, true] {
            let disk = device(1, 8);
            disk.inject(Fault::LostWrite { nth });
            let log = options(&disk).open(DIRECTORY).unwrap();
            for offset in 0..RECORDS {
                log.append(content(offset)).unwrap();
            }
            if closed {
                log.close().unwrap();
            }
            let world = after(&disk, Loss::Nothing);
            std::mem::forget(log);
            let log = match options(&world).open(DIRECTORY) {
                Ok(log) => log,
                Err(Error::Damaged(damage)) => {
                    assert!(!closed && lost + 1 < RECORDS, "{lost}: {damage}");
                    assert_eq!(damage.offsets.clone().map(|offsets| offsets.start), Some(lost), "{damage}");
                    assert!(damage.proof.is_some(), "{damage}");
                    continue;
                }
                Err(error) => panic!("{lost}: {error}"),
            };
            if !closed && lost + 1 == RECORDS {
                assert_eq!(log.offsets(), 0..lost, "nothing attests the last one");
                continue;
            }
            by_reading += 1;
            assert_eq!(log.offsets(), 0..RECORDS);
            for offset in 0..RECORDS {
                if offset == lost {
                    assert_eq!(damage(log.read(offset)).offsets, Some(lost..lost + 1));
                } else {
                    assert_eq!(&*log.read(offset).unwrap(), content(offset));
                }
            }
        }
    }
    assert!(by_reading > RECORDS, "{by_reading}: no segment was sealed");
}
