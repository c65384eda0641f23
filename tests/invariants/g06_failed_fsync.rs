//! G6. After a failed fsync nobody who waited on it, and nobody later, gets an acknowledgement
//! until the log is reopened; and reopening serves nothing that may live in the page cache alone.
//!
//! What it would catch: a poison that is forgotten, or told to one of several waiters; an fsync
//! that is simply called again (the kernel has marked the pages clean, it says yes and writes
//! nothing); a recovery that goes on in the file whose fsync failed; a Close on a poisoned log.

use stonelog::disk::Background;
use stonelog::disk::sim::{Fault, FaultError, Loss, Operation, Outcome, SimDisk};
use stonelog::{Durability, Error, Log};

use crate::common::{
    DIRECTORY, after, append, append_batch, check, check_records, content, killed, manual, open, options,
    poisoned, poll_to_end,
};
use crate::support::gated::Gated;

/// What is known of a log under a workload.
#[derive(Debug, Clone, Default)]
struct Known {
    front: u64,
    /// Acknowledged as durable.
    durable: u64,
    end: u64,
    meta: Option<u8>,
    /// A change that failed: either state may be found.
    front_may_be: Option<u64>,
    end_may_be: Option<u64>,
    meta_may_be: Option<u8>,
}

/// One step of the workload: appends, tickets, batches, metadata, both truncations, sync.
fn step(log: &Log, number: u64, always: bool, known: &mut Known) -> stonelog::Result<()> {
    let next = log.offsets().end;
    match number % 24 {
        5 => {
            known.meta_may_be = Some(number as u8);
            log.put_meta("vote", [number as u8])?;
            known.meta = known.meta_may_be.take();
        }
        9 | 10 => {
            known.end = next + 1;
            known.durable = log.submit(content(next))?.wait()?.end;
        }
        13 => {
            known.end = next + 4;
            append_batch(log, 4)?;
            if always {
                known.durable = known.end;
            }
        }
        16 => {
            known.front_may_be = Some(known.front + 9);
            log.truncate_front(known.front + 9)?;
            known.front += 9;
            known.front_may_be = None;
            known.durable = known.durable.max(known.front);
        }
        19 => {
            known.end_may_be = Some(next - 2);
            log.truncate_back(next - 2)?;
            known.end_may_be = None;
            known.end = next - 2;
            known.durable = known.end;
        }
        21 => {
            log.sync()?;
            known.durable = next;
        }
        _ => {
            known.end = next + 1;
            log.append(content(next))?;
            if always {
                known.durable = next + 1;
            }
        }
    }
    Ok(())
}

fn reopened(known: &Known, disk: &SimDisk, what: &str) {
    let log = options(disk).open(DIRECTORY).unwrap_or_else(|error| panic!("{what}: does not open: {error}"));
    let offsets = log.offsets();
    assert!(
        offsets.start == known.front || Some(offsets.start) == known.front_may_be,
        "{what}: {offsets:?}, {known:?}"
    );
    let least = known.end_may_be.map_or(known.durable, |end| end.min(known.durable));
    assert!(offsets.end >= least && offsets.end <= known.end, "{what}: {offsets:?}, {known:?}");
    check_records(&log, offsets.clone());
    let meta = log.meta("vote").unwrap().map(|value| value[0]);
    assert!(
        meta == known.meta || (meta.is_some() && meta == known.meta_may_be),
        "{what}: meta {meta:?}, {known:?}"
    );
    // What is served now must not live in the page cache alone.
    let dark = after(disk, Loss::Nothing);
    let again =
        options(&dark).open(DIRECTORY).unwrap_or_else(|error| panic!("{what}: after the dark: {error}"));
    assert_eq!(again.offsets(), offsets, "{what}: served from the page cache alone");
    check_records(&again, offsets.clone());
    assert_eq!(
        again.meta("vote").unwrap().map(|value| value[0]),
        meta,
        "{what}: meta from the page cache alone"
    );
    // And the log goes on.
    append(&log, 3);
    log.sync().unwrap();
    check(&open(&after(disk, Loss::Nothing)), offsets.start..offsets.end + 3);
}

/// Whether the fault struck a file that nobody depends on yet: a fresh one that was being prepared
/// (its first bytes written, never yet synced), which may be thrown away and made again.
fn struck_a_preparation(disk: &SimDisk) -> Option<(bool, String)> {
    let trace = disk.trace();
    let strike = trace.iter().position(|entry| matches!(entry.outcome, Outcome::Failed(kind) if kind == std::io::ErrorKind::Other || kind == std::io::ErrorKind::StorageFull))?;
    let path = &trace[strike].path;
    let before = trace[..strike].iter().rev().filter(|entry| entry.path == *path);
    for entry in before {
        match (entry.operation, entry.outcome) {
            (Operation::Sync, Outcome::Done(_)) => return Some((false, path.clone())),
            (Operation::Write, Outcome::Done(_)) if entry.position == 0 => return Some((true, path.clone())),
            (Operation::Create, _) => {
                return Some((
                    trace[strike].operation == Operation::Write && trace[strike].position == 0,
                    path.clone(),
                ));
            }
            _ => {}
        }
    }
    Some((false, path.clone()))
}

/// Refused now, whatever is asked for; reads of durable records go on.
fn is_poisoned(log: &Log, what: &str) {
    let offsets = log.offsets();
    let durable = log.durable_end();
    poisoned(log.append(b"x"));
    poisoned(log.append_batch([b"x", b"y"]));
    poisoned(log.append_at(offsets.end, [b"x"]));
    poisoned(log.submit(b"x"));
    poisoned(log.sync());
    poisoned(log.put_meta("vote", b"x"));
    poisoned(log.remove_meta("vote"));
    poisoned(log.truncate_front(offsets.end));
    poisoned(log.truncate_back(offsets.start));
    assert_eq!(log.durable_end(), durable, "{what}: the durable end moved on a poisoned log");
    check_records(log, offsets.start.min(durable)..durable);
    let text = log.append(b"x").unwrap_err().to_string();
    assert!(text.contains("open the log again"), "{what}: {text}");
    poisoned(log.close());
}

fn strike_everywhere(fault: impl Fn(u64) -> Fault, operation: Operation, always: bool) -> (u32, u32) {
    let durability = if always { Durability::Always } else { Durability::Manual };
    let (mut struck, mut poisonings) = (0, 0);
    for nth in 1.. {
        let disk = SimDisk::new(nth);
        let log = options(&disk).durability(durability).open(DIRECTORY).unwrap();
        disk.record_trace(true);
        disk.inject(fault(nth));
        let mut known = Known::default();
        let what = format!("{operation} {nth}, {durability:?}");
        let mut failed = None;
        for number in 0..70 {
            if let Err(error) = step(&log, number, always, &mut known) {
                failed = Some((number, error));
                break;
            }
            assert!(log.durable_end() >= known.durable, "{what}");
        }
        let Some((preparation, path)) = struck_a_preparation(&disk) else { break };
        let what = format!("{what} ({path}), failed: {failed:?}");
        struck += 1;
        let is_poison = matches!(log.append_batch(Vec::<Vec<u8>>::new()), Err(Error::Poisoned { .. }))
            || matches!(log.sync(), Err(Error::Poisoned { .. }));
        if is_poison {
            poisonings += 1;
            is_poisoned(&log, &what);
        } else {
            assert!(preparation, "{what}: not poisoned");
        }
        reopened(&known, &killed(&disk), &format!("{what}, process killed"));
        reopened(&known, &after(&disk, Loss::Nothing), &format!("{what}, power lost"));
        reopened(&known, &after(&disk, Loss::Everything), &format!("{what}, all else kept"));
        reopened(&known, &after(&disk, Loss::Seeded(nth)), &format!("{what}, some kept"));
        if is_poison {
            assert!(!open(&killed(&disk)).recovery().clean, "{what}: a poisoned log wrote Close");
        }
    }
    (struck, poisonings)
}

#[test]
fn every_fsync_fails_once() {
    for always in [true, false] {
        let (struck, poisonings) = strike_everywhere(Fault::sync_error, Operation::Sync, always);
        assert!(struck > 20 && poisonings * 2 > struck, "{poisonings} of {struck}");
    }
}

/// ENOSPC from an fsync poisons like any other error: bytes that were accepted may be gone.
#[test]
fn every_fsync_finds_the_disk_full() {
    let fault = |nth| Fault::Error { operation: Operation::Sync, nth, error: FaultError::StorageFull };
    for always in [true, false] {
        let (struck, poisonings) = strike_everywhere(fault, Operation::Sync, always);
        assert!(struck > 20 && poisonings * 2 > struck, "{poisonings} of {struck}");
    }
}

#[test]
fn every_directory_fsync_fails_once() {
    for always in [true, false] {
        let (struck, poisonings) = strike_everywhere(Fault::sync_dir_error, Operation::SyncDir, always);
        assert!(struck >= 3 && poisonings == struck, "{poisonings} of {struck}");
    }
}

/// A write to the MANIFEST that fails leaves it unknown what a reopening finds.
#[test]
fn a_failed_manifest_write_poisons() {
    let disk = SimDisk::new(1);
    let log = open(&disk);
    append(&log, 5);
    disk.inject(Fault::write_error(1));
    assert!(log.put_meta("vote", b"1").is_err());
    is_poisoned(&log, "manifest write");
    let known = Known { durable: 5, end: 5, meta_may_be: Some(b'1'), ..Known::default() };
    reopened(&known, &killed(&disk), "killed");
    reopened(&known, &after(&disk, Loss::Nothing), "dark");
}

/// Everyone who waited on the group gets the error, also a waiter that asks late, and a task.
#[test]
fn every_waiter_gets_the_error() {
    let disk = SimDisk::new(3);
    let log = manual(&disk).open(DIRECTORY).unwrap();
    let before = log.submit(content(0)).unwrap();
    let twin = log.submit(content(1)).unwrap();
    log.sync().unwrap();
    let mut tickets: Vec<_> = (2..7).map(|offset| log.submit(content(offset)).unwrap()).collect();
    disk.inject(Fault::sync_error(1));
    let awaited = tickets.remove(2);
    for ticket in tickets {
        assert!(ticket.wait().is_err());
    }
    assert!(!awaited.is_durable());
    assert!(poll_to_end(awaited).0.is_err());
    is_poisoned(&log, "tickets");
    // What was durable before stays acknowledged.
    assert!(twin.is_durable());
    assert_eq!(before.wait().unwrap(), 0..1);
    check(&open(&killed(&disk)), 0..log.durable_end().max(open(&killed(&disk)).offsets().end));
}

/// Real threads: one error, and none of those who waited on it is told otherwise.
#[test]
fn threads_do_not_split_one_error() {
    for nth in 1..12 {
        let disk = SimDisk::new(nth).with_background(Background::Threads);
        let log = options(&disk).segment_bytes(1 << 20).open(DIRECTORY).unwrap();
        log.append(content(0)).unwrap();
        disk.record_trace(true);
        disk.inject(Fault::sync_error(nth));
        let acknowledged: Vec<u64> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4u64)
                .map(|thread| {
                    let log = &log;
                    scope.spawn(move || {
                        let mut own = Vec::new();
                        for number in 0..20u64 {
                            match log.append((thread * 100 + number).to_le_bytes()) {
                                Ok(offset) => own.push(offset),
                                Err(_) => break,
                            }
                        }
                        assert!(
                            own.len() == 20 || log.append(b"later").is_err(),
                            "acknowledged after the error"
                        );
                        own
                    })
                })
                .collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        match struck_a_preparation(&disk) {
            Some((false, _)) => poisoned(log.append(b"x")),
            Some((true, path)) => assert!(path.ends_with(".store") || path.ends_with(".next"), "{path}"),
            None => assert!(nth > 5, "{nth}: 80 appends by 4 threads, and not so many fsyncs"),
        }
        let dark = open(&after(&disk, Loss::Nothing));
        for offset in acknowledged {
            assert!(offset < dark.offsets().end, "{offset} was acknowledged, {:?} is there", dark.offsets());
        }
    }
}

/// The fsync failed, and the leader does not know it yet; another appender comes, whose fsync would go well
/// and mean nothing. Nobody may be told "durable".
#[test]
fn an_error_that_is_on_its_way_is_nobody_elses_success() {
    let (disk, log) = Gated::open(Background::Inline, Durability::Always);
    for offset in 0..4 {
        log.append(content(offset)).unwrap();
    }
    let durable = log.durable_end();
    let (entered, release) = disk.hold_done("0000");
    disk.inner.inject(Fault::sync_error(1));
    std::thread::scope(|scope| {
        let append = || scope.spawn(|| log.append(b"never acknowledged"));
        let first = append();
        entered.recv().unwrap();
        let second = append();
        // It either waits, or makes its mistake within this time.
        for _ in 0..50 {
            if second.is_finished() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        release.send(()).unwrap();
        assert!(first.join().unwrap().is_err(), "its fsync failed");
        assert!(second.join().unwrap().is_err(), "another's fsync failed, and took its bytes");
    });
    assert_eq!(log.durable_end(), durable);
    poisoned(log.append(b"x"));
    check(&open(&after(&disk.inner, Loss::Nothing)), 0..durable);
}

/// Metadata alone, in a log without a segment: what a failed fsync left in the page cache is served by the
/// next opening only if that made it durable itself.
#[test]
fn metadata_alone() {
    let disk = SimDisk::new(1);
    let log = open(&disk);
    log.put_meta("vote", b"one").unwrap();
    disk.inject(Fault::sync_error(1));
    assert!(log.put_meta("vote", b"two").is_err());
    disk.process_crash();
    drop(log);
    let log = open(&disk);
    let served = log.meta("vote").unwrap();
    assert_eq!(
        served.as_deref(),
        Some(&b"two"[..]),
        "nothing is served that could be from the page cache alone"
    );
    assert_eq!(open(&after(&disk, Loss::Nothing)).meta("vote").unwrap(), served, "from the page cache alone");
}

/// An error while opening leaves nothing half-done that a second opening would trip over.
#[test]
fn faults_while_opening() {
    let seed = SimDisk::new(9);
    let log = open(&seed);
    append(&log, 40);
    for make in [Fault::sync_error as fn(u64) -> Fault, Fault::sync_dir_error, Fault::write_error] {
        for nth in 1..12 {
            for loss in [Loss::Nothing, Loss::Everything] {
                let disk = after(&seed, loss);
                disk.inject(make(nth));
                let first = options(&disk).open(DIRECTORY);
                disk.clear_faults();
                drop(first);
                for world in [killed(&disk), after(&disk, Loss::Nothing), after(&disk, Loss::Seeded(nth))] {
                    let log = open(&world);
                    assert!(log.offsets() == (0..40), "{:?}", log.offsets());
                    let dark = open(&after(&world, Loss::Nothing));
                    check(&dark, 0..40);
                }
            }
        }
    }
}
