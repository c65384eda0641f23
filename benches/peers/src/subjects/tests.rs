//! What every adapter must keep to, run over all of them in both modes.

use std::path::Path;

use anyhow::Result;

use super::all;
use crate::subject::{Kind, Mode, Subject, Unsupported};

const SINGLES: u64 = 300;
const BATCHES: u64 = 5;
const RECORDS_PER_BATCH: u64 = 200;
const RECORDS: u64 = SINGLES + BATCHES * RECORDS_PER_BATCH;
const GIVEN_UP: u64 = 450;

/// The record of this number: none like another, from nothing to more than one page long.
fn payload(salt: u64, number: u64) -> Vec<u8> {
    let length = if number.is_multiple_of(97) { 9_000 } else { 16 + (number % 300) as usize };
    let mut payload: Vec<u8> = (0..length).map(|at| (at as u64 * 31 + number * 7 + salt) as u8).collect();
    payload[..8].copy_from_slice(&number.to_le_bytes());
    payload[8..16].copy_from_slice(&salt.to_le_bytes());
    payload
}

fn open_if_supported(kind: &dyn Kind, mode: Mode, directory: &Path) -> Result<Option<Box<dyn Subject>>> {
    match kind.open(directory, mode) {
        Err(error) if error.is::<Unsupported>() => Ok(None),
        result => result.map(Some),
    }
}

fn append_all(log: &dyn Subject, salt: u64) -> Result<()> {
    for number in 0..SINGLES {
        log.append(&payload(salt, number))?;
    }
    for batch in 0..BATCHES {
        let first = SINGLES + batch * RECORDS_PER_BATCH;
        let payloads: Vec<_> =
            (first..first + RECORDS_PER_BATCH).map(|number| payload(salt, number)).collect();
        let payloads: Vec<_> = payloads.iter().map(Vec::as_slice).collect();
        log.append_batch(&payloads)?;
    }
    Ok(())
}

/// That the log has exactly the records from this one on, by a scan.
fn check_scan(log: &dyn Subject, salt: u64, first: u64) -> Result<()> {
    let mut next = first;
    let count = log.scan(&mut |found| {
        assert!(found == payload(salt, next), "record {next} differs in the scan");
        next += 1;
    })?;
    assert_eq!((next, count), (RECORDS, RECORDS - first), "records of the scan");
    Ok(())
}

fn check_read(log: &dyn Subject, salt: u64, number: u64) -> Result<()> {
    let mut calls = 0;
    log.read(number, &mut |found| {
        assert!(found == payload(salt, number), "record {number} differs when read");
        calls += 1;
    })?;
    assert_eq!(calls, 1);
    Ok(())
}

fn check_reads(log: &dyn Subject, salt: u64, first: u64) -> Result<()> {
    for number in (first..RECORDS).rev() {
        check_read(log, salt, number)?;
    }
    let mut none = |_: &[u8]| panic!("a record after the last");
    assert!(log.read(RECORDS, &mut none).is_err());
    Ok(())
}

fn check(kind: &dyn Kind, mode: Mode, directory: &Path, salt: u64) -> Result<()> {
    let Some(log) = open_if_supported(kind, mode, directory)? else { return Ok(()) };
    append_all(&*log, salt)?;
    check_scan(&*log, salt, 0)?;
    check_reads(&*log, salt, 0)?;
    log.sync()?;
    log.close()?;

    let log = kind.open(directory, mode)?;
    check_scan(&*log, salt, 0)?;
    check_reads(&*log, salt, 0)?;
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..2).map(|_| scope.spawn(|| check_reads(&*log, salt, 0))).collect();
        readers.into_iter().try_for_each(|reader| reader.join().unwrap())
    })?;
    let first = match log.truncate_front(GIVEN_UP) {
        Err(error) if error.is::<Unsupported>() => 0,
        result => {
            result?;
            GIVEN_UP
        }
    };
    check_scan(&*log, salt, first)?;
    check_reads(&*log, salt, first)?;
    log.sync()?;
    log.close()?;

    let log = kind.open(directory, mode)?;
    // Its unit to give up is a segment, so what was given up of the only one is there again.
    let first = if kind.name() == "okaywal" { 0 } else { first };
    check_scan(&*log, salt, first)?;
    check_reads(&*log, salt, first)?;
    log.close()
}

/// That appends of several threads are all there, each once.
fn check_threads(kind: &dyn Kind, directory: &Path) -> Result<()> {
    const THREADS: u64 = 8;
    const RECORDS_PER_THREAD: u64 = 25;

    let Some(log) = open_if_supported(kind, Mode::Durable, directory)? else { return Ok(()) };
    std::thread::scope(|scope| {
        let log = &log;
        let writers: Vec<_> = (0..THREADS)
            .map(|thread| {
                scope.spawn(move || {
                    (0..RECORDS_PER_THREAD)
                        .try_for_each(|at| log.append(&payload(0, thread * RECORDS_PER_THREAD + at)))
                })
            })
            .collect();
        writers.into_iter().try_for_each(|writer| writer.join().unwrap())
    })?;
    let all_there = |log: &dyn Subject| -> Result<()> {
        let mut found = Vec::new();
        log.scan(&mut |payload| found.push(u64::from_le_bytes(payload[..8].try_into().unwrap())))?;
        found.sort_unstable();
        assert!(found.iter().copied().eq(0..THREADS * RECORDS_PER_THREAD), "found {found:?}");
        Ok(())
    };
    all_there(&*log)?;
    log.close()?;
    let log = kind.open(directory, Mode::Durable)?;
    all_there(&*log)?;
    log.close()
}

#[test]
fn every_kind_gives_back_what_was_appended() -> Result<()> {
    let mut salt = 0;
    for kind in all() {
        for mode in [Mode::Durable, Mode::Unsynced] {
            println!("{} {mode:?}", kind.name());
            salt += 1;
            let directory = tempfile::tempdir()?;
            // raft-engine's cache, keyed by place but not by log, lives as long as the thread.
            std::thread::scope(|scope| {
                scope.spawn(|| check(kind, mode, directory.path(), salt)).join().unwrap()
            })?;
        }
    }
    Ok(())
}

#[test]
fn every_kind_keeps_the_appends_of_all_threads() -> Result<()> {
    for kind in all() {
        println!("{}", kind.name());
        check_threads(kind, tempfile::tempdir()?.path())?;
    }
    Ok(())
}
