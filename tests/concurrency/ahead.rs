//! What no commit takes: the scribe writes it while appenders encode more, and an appender that gets too far ahead
//! writes it itself. Two of these records are a piece, and a fourth does not fit behind three ([`EXPLORED`]).
//!
//! As in `cases`, each is searched within a bound and then sampled without one.
//!
//! [`EXPLORED`]: crate::sync::EXPLORED

use std::sync::{Arc, Mutex};

use stonelog::disk::sim::{Fault, Loss};
use stonelog::{Error, Log};

use crate::cases::{holds, refused, tried};
use crate::stage::{disk, end, found, manual, open};
use crate::threads;

fn large(byte: u8) -> Vec<u8> {
    vec![byte; 64]
}

/// Appends these, one by one.
fn appends(log: &Log, bytes: &'static [u8]) -> impl FnOnce() + Send + 'static {
    let log = log.clone();
    move || {
        for byte in bytes {
            log.append(large(*byte)).unwrap();
        }
    }
}

/// All of it comes to be written, once, and in the order of each appender.
#[test]
fn two_appenders_and_the_scribe() {
    tried(|| {
        let disk = disk();
        let log = open(manual(disk.clone()), 0);
        at_once_and_sync(&log, threads![appends(&log, b"abc"), appends(&log, b"xyz")]);
        end(log);
        found(&disk, Loss::Nothing, |log| {
            let there: Vec<u8> = log.records(..).map(|record| record.unwrap()[0]).collect();
            let of = |from: u8| {
                there.iter().copied().filter(|byte| (from..from + 3).contains(byte)).collect::<Vec<_>>()
            };
            assert_eq!((there.len(), of(b'a'), of(b'x')), (6, b"abc".to_vec(), b"xyz".to_vec()), "G2");
        });
    });
}

fn at_once_and_sync(log: &Log, threads: Vec<Box<dyn FnOnce() + Send>>) {
    crate::stage::at_once(threads);
    log.sync().unwrap();
    assert_eq!(log.durable_end(), log.offsets().end);
}

/// A commit covers what the scribe has written, and what it is writing.
#[test]
fn a_sync_beside_the_scribe() {
    tried(|| {
        let disk = disk();
        let log = open(manual(disk.clone()), 0);
        let other = (log.clone(), disk.clone());
        at_once_and_sync(
            &log,
            threads![appends(&log, b"abcd"), move || {
                let appended = other.0.offsets().end;
                other.0.sync().unwrap();
                assert!(other.0.durable_end() >= appended);
                found(&other.1, Loss::Nothing, |log| {
                    assert!(log.offsets().end >= appended, "G1: synced, and not there");
                });
            }],
        );
        end(log);
        holds(&disk, &[&large(b'a'), &large(b'b'), &large(b'c'), &large(b'd')]);
    });
}

/// Readers of what is not durable find it in the file, whoever wrote it.
#[test]
fn a_reader_beside_the_scribe() {
    tried(|| {
        let disk = disk();
        let log = open(manual(disk.clone()).readers_see_appended(true), 0);
        let other = log.clone();
        at_once_and_sync(
            &log,
            threads![appends(&log, b"abcd"), move || {
                for offset in 0..other.offsets().end {
                    assert_eq!(&*other.read(offset).unwrap(), large(b'a' + offset as u8));
                }
            }],
        );
        end(log);
    });
}

/// Whoever's write fails, no commit after it succeeds, and nobody waits for ever.
#[test]
fn a_write_ahead_that_fails() {
    tried(|| {
        let disk = disk();
        let log = open(manual(disk.clone()), 1);
        disk.inject(Fault::write_error(1));
        let appender = |bytes: &'static [u8]| {
            let log = log.clone();
            move || {
                for byte in bytes {
                    if log.append(large(*byte)).is_err() {
                        break;
                    }
                }
            }
        };
        crate::stage::at_once(threads![appender(b"abc"), appender(b"xyz")]);
        refused(log.sync());
        refused(log.append(b"late"));
        end(log);
        holds(&disk, &[b"record 0"]);
    });
}

/// A cut takes what the scribe has in hand, or comes before it.
#[test]
fn a_truncation_beside_the_scribe() {
    tried(|| {
        let disk = disk();
        let log = open(manual(disk.clone()), 2);
        let other = log.clone();
        at_once_and_sync(&log, threads![appends(&log, b"abc"), move || other.truncate_back(2).unwrap()]);
        let there: Vec<Vec<u8>> = log.records(2..).map(|record| record.unwrap().to_vec()).collect();
        let all = [large(b'a'), large(b'b'), large(b'c')];
        assert!(all.ends_with(&there), "what came after the cut is there, and nothing else");
        end(log);
        let mut kept: Vec<&[u8]> = vec![b"record 0", b"record 1"];
        kept.extend(there.iter().map(Vec::as_slice));
        holds(&disk, &kept);
    });
}

/// A close takes along what was accepted, whoever writes it.
#[test]
fn a_close_beside_the_scribe() {
    tried(|| {
        let disk = disk();
        let log = open(manual(disk.clone()), 0);
        let taken = Arc::new(Mutex::new(Vec::new()));
        let (appender, closer, known) = (log.clone(), log.clone(), taken.clone());
        crate::stage::at_once(threads![
            move || {
                for byte in *b"abcd" {
                    match appender.append(large(byte)) {
                        Ok(_) => known.lock().unwrap().push(large(byte)),
                        Err(error) => assert!(matches!(error, Error::Closed), "{error}"),
                    }
                }
            },
            move || closer.close().unwrap(),
        ]);
        end(log);
        found(&disk, Loss::Nothing, |log| assert!(log.recovery().clean, "closed, and not clean"));
        let taken = taken.lock().unwrap().clone();
        holds(&disk, &taken.iter().map(Vec::as_slice).collect::<Vec<_>>());
    });
}
