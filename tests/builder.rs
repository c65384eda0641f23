//! A log that was built at once is a log like any other: it opens, gives every record at its offset and
//! [`Error::Lost`] for every other one, is found clean, and goes on. Cut short anywhere, a build is no log.
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
use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;
use stonelog::disk::sim::{Loss, SimDisk};
use stonelog::disk::{Disk, OsDisk};
use stonelog::manifest::Reading;
use stonelog::recovery::verdict::Verdict;
use stonelog::recovery::{Depth, inspect};
use stonelog::{Built, DamagePolicy, Error, Log, LogBuilder, MAX_OFFSET, Options};

const DIRECTORY: &str = "/made/here/log";

fn options(disk: &Arc<dyn Disk>) -> Options {
    Options::new().disk(disk.clone()).segment_bytes(4096)
}

fn on(disk: &SimDisk) -> Arc<dyn Disk> {
    Arc::new(disk.clone())
}

fn content(offset: u64) -> Vec<u8> {
    format!("record {offset} ").repeat((offset % 9) as usize).into_bytes()
}

/// Builds a log of these records, whose batches end at every third offset.
fn build(
    disk: &Arc<dyn Disk>,
    directory: &Path,
    front: u64,
    records: &[u64],
    end: u64,
) -> stonelog::Result<Built> {
    let mut builder = LogBuilder::begin(&options(disk), directory, front)?;
    builder.created_millis(77);
    builder.put_meta("vote", b"seven")?;
    for offset in records {
        builder.push(*offset, offset % 3 == 0, &content(*offset))?;
    }
    builder.finish(end)
}

/// Whatever a reader can ask of the log agrees with what was built.
fn agrees(log: &Log, front: u64, records: &[u64], end: u64) {
    let end = end.max(records.last().map_or(front, |last| last + 1));
    assert_eq!(log.offsets(), front..end);
    assert_eq!(log.meta("vote").unwrap().unwrap(), b"seven");
    let held: BTreeMap<u64, Vec<u8>> = records.iter().map(|offset| (*offset, content(*offset))).collect();
    let mut at = front;
    while at < end {
        // A gap is looked at where it begins and ends.
        for offset in [at, at + 1, at + 2].into_iter().filter(|offset| *offset < end) {
            match (log.read(offset), held.get(&offset)) {
                (Ok(record), Some(wanted)) => assert_eq!(&record[..], &wanted[..], "record {offset}"),
                (Err(Error::Lost { offset: lost }), None) => assert_eq!(lost, offset),
                (found, wanted) => panic!("record {offset}: {found:?} instead of {wanted:?}"),
            }
        }
        at = log.readable_from(at + 1).max(at + 1);
    }
    // A run through all of it goes on behind what is lost.
    if end - front < 100_000 {
        let (mut found, mut lost) = (Vec::new(), 0);
        for record in log.records(..) {
            match record {
                Ok(record) => found.push(record.offset()),
                Err(Error::Lost { .. }) => lost += 1,
                Err(error) => panic!("{error}"),
            }
        }
        assert_eq!(found, records);
        assert_eq!(lost, end - front - records.len() as u64);
    }
}

fn is_clean(disk: &dyn Disk, directory: &Path) {
    let findings = inspect(disk, directory, Depth::Everything).unwrap();
    let assessment = findings.assessment.as_ref().unwrap();
    assert_eq!(assessment.verdict, Verdict::Clean, "{:?}", assessment.damage);
    assert!(assessment.damage.is_empty(), "{:?}", assessment.damage);
    assert!(findings.unnamed.is_empty() && findings.listing.strange.is_empty());
    for segment in &findings.segments {
        assert_eq!(segment.index_defect, None, "segment {}", segment.id);
    }
    let Reading::Whole { state, .. } = &findings.manifest else { panic!("{:?}", findings.manifest) };
    assert_eq!(state.created_millis, 77);
    assert!(state.closed.is_some() && state.unsealed().next().is_none());
}

#[test]
fn what_is_built_is_a_healthy_log() {
    let far = 1 << 61;
    let cases: Vec<(&str, u64, Vec<u64>, u64)> = vec![
        ("nothing", 0, vec![], 0),
        ("nothing but a front", 40, vec![], 0),
        ("nothing but a loss", 40, vec![], 50),
        ("everything lost, however much", 0, vec![], far),
        ("one record", 0, vec![0], 0),
        ("no gap", 7, (7..300).collect(), 0),
        ("every other one", 0, (0..300).map(|n| n * 2).collect(), 0),
        ("a gap at the front", 5, (9..40).collect(), 0),
        ("a huge gap at the front", 5, (far..far + 9).collect(), 0),
        ("a gap at the end", 0, (0..100).collect(), 103),
        ("a huge gap at the end", 0, (0..100).collect(), far),
        ("a huge gap in between", 0, (0..100).chain(far..far + 100).collect(), 0),
        (
            "gaps around what fits a segment",
            0,
            (0..6).map(|n| n * 1023).chain([9000, 10025, 11050]).collect(),
            0,
        ),
        ("the last offsets", MAX_OFFSET, vec![MAX_OFFSET, MAX_OFFSET + 3], MAX_OFFSET + 4),
    ];
    for (name, front, records, end) in cases {
        println!("{name}");
        let disk = on(&SimDisk::new(1));
        let directory = Path::new(DIRECTORY);
        let built = build(&disk, directory, front, &records, end).unwrap();
        assert_eq!(built.records, records.len() as u64);
        is_clean(disk.as_ref(), directory);
        agrees(&options(&disk).open_read_only(directory).unwrap(), front, &records, end);
        let log = options(&disk).open(directory).unwrap();
        assert!(log.recovery().clean);
        agrees(&log, front, &records, end);
        assert_eq!(log.offsets(), built.offsets);
    }
}

/// Opened, a built log goes on where it ends, crash or not: an offset that was lost is never given away.
#[test]
fn a_lost_end_stays_lost_through_crashes() {
    for records in [vec![], vec![0, 1, 2]] {
        let sim = SimDisk::new(2);
        let disk = on(&sim);
        build(&disk, Path::new(DIRECTORY), 0, &records, 500).unwrap();
        for _ in 0..3 {
            let log = options(&disk).open(DIRECTORY).unwrap();
            agrees(&log, 0, &records, 500);
            std::mem::forget(log);
            sim.power_loss(Loss::Nothing);
        }
        let log = options(&disk).open(DIRECTORY).unwrap();
        assert_eq!(log.append(b"goes on").unwrap(), 500);
        assert!(matches!(log.read(499), Err(Error::Lost { .. })));
        std::mem::forget(log);
        sim.power_loss(Loss::Nothing);
        let log = options(&disk).open(DIRECTORY).unwrap();
        assert_eq!(&log.read(500).unwrap()[..], b"goes on");
        assert!(matches!(log.read(499), Err(Error::Lost { .. })));
    }
}

#[test]
fn on_the_real_disk_too() {
    let home = tempfile::tempdir().unwrap();
    let directory = home.path().join("a/b/log");
    let disk: Arc<dyn Disk> = Arc::new(OsDisk);
    let records: Vec<u64> = (10..200).filter(|offset| offset % 7 != 0).collect();
    build(&disk, &directory, 8, &records, 230).unwrap();
    is_clean(disk.as_ref(), &directory);
    let log = Log::open(&directory).unwrap();
    agrees(&log, 8, &records, 230);
    assert_eq!(log.append(b"goes on").unwrap(), 230);
    log.close().unwrap();
}

/// A cut anywhere leaves either the whole log, or what no opening takes for one that holds records.
#[test]
fn a_build_that_is_cut_short_is_no_log() {
    let records: Vec<u64> = (3..90).filter(|offset| offset % 5 != 0).collect();
    let whole = SimDisk::new(3);
    let before = whole.mutations();
    build(&on(&whole), Path::new(DIRECTORY), 3, &records, 95).unwrap();
    let steps = whole.mutations() - before;
    assert!(steps > 20, "{steps}");
    let (mut refused, mut begun, mut complete) = (0, 0, 0);
    for step in 1..=steps {
        let seeded = (0..6).map(|seed| Loss::Seeded(step * 100 + seed));
        for loss in [Loss::Everything, Loss::Nothing].into_iter().chain(seeded) {
            let sim = SimDisk::new(3);
            sim.crash_at_mutation(step);
            let built = build(&on(&sim), Path::new(DIRECTORY), 3, &records, 95);
            sim.power_loss(loss);
            let told = format!("step {step} of {steps}, {loss:?}");
            match options(&on(&sim)).open(DIRECTORY) {
                Ok(log) if log.recovery().begun => begun += 1,
                Ok(log) => {
                    complete += 1;
                    agrees(&log, 3, &records, 95);
                }
                Err(Error::Damaged(damage)) => {
                    assert!(damage.what.contains("the manifest is missing"), "{told}: {damage}");
                    let serve = options(&on(&sim)).on_damage(DamagePolicy::Serve).open(DIRECTORY);
                    assert!(serve.is_err(), "{told}");
                    refused += 1;
                    // It is not built upon, either.
                    let again = build(&on(&sim), Path::new(DIRECTORY), 3, &records, 95);
                    assert!(matches!(again, Err(Error::InvalidOption { .. })), "{told}: {again:?}");
                }
                Err(error) => panic!("{told}: {error}"),
            }
            assert!(built.is_err() || complete > 0, "{told}");
        }
    }
    assert!(refused > 20 && begun > 0, "{refused} {begun} {complete}");
    let log = options(&on(&whole)).open(DIRECTORY).unwrap();
    agrees(&log, 3, &records, 95);
}

/// When `finish` has returned, no crash takes anything.
#[test]
fn what_is_finished_is_durable() {
    let sim = SimDisk::new(4);
    let records: Vec<u64> = (0..60).collect();
    build(&on(&sim), Path::new(DIRECTORY), 0, &records, 0).unwrap();
    sim.power_loss(Loss::Nothing);
    is_clean(&sim, Path::new(DIRECTORY));
    agrees(&options(&on(&sim)).open(DIRECTORY).unwrap(), 0, &records, 0);
}

#[test]
fn a_full_disk_says_so() {
    let sim = SimDisk::new(5);
    sim.set_capacity(Some(64 << 10));
    let mut builder = LogBuilder::begin(&options(&on(&sim)), DIRECTORY, 0).unwrap();
    let error = (0..1000).find_map(|offset| builder.push(offset, true, &[7; 1000]).err()).unwrap();
    assert!(error.is_no_space(), "{error}");
}

#[test]
fn a_batch_stays_in_one_segment() {
    let sim = SimDisk::new(6);
    let disk = on(&sim);
    let mut builder = LogBuilder::begin(&options(&disk), DIRECTORY, 0).unwrap();
    for offset in 0..40 {
        builder.push(offset, offset % 10 == 9, &[7; 900]).unwrap();
    }
    builder.finish(0).unwrap();
    let log = options(&disk).open(DIRECTORY).unwrap();
    let ends: Vec<u64> = log.segments().iter().map(|segment| segment.end).collect();
    assert!(ends.len() >= 4 && ends.iter().all(|end| end % 10 == 0), "{ends:?}");
}

#[test]
fn what_cannot_be_is_refused() {
    let sim = SimDisk::new(7);
    let disk = on(&sim);
    sim.write_file(format!("{DIRECTORY}/notes.txt"), b"somebody's").unwrap();
    let refused = LogBuilder::begin(&options(&disk), DIRECTORY, 0).unwrap_err();
    assert!(refused.to_string().contains("notes.txt"), "{refused}");
    let other = "/other";
    assert!(LogBuilder::begin(&options(&disk), other, MAX_OFFSET + 1).is_err());
    assert!(LogBuilder::begin(&options(&disk).first_offset(9), other, 8).is_err());
    let mut builder = LogBuilder::begin(&options(&disk).first_offset(9), other, 10).unwrap();
    assert!(matches!(LogBuilder::begin(&options(&disk), other, 0), Err(Error::Locked { .. })));
    assert!(matches!(options(&disk).open(other), Err(Error::Locked { .. })));
    assert!(matches!(builder.push(9, true, b""), Err(Error::UnexpectedOffset { expected: 9, next: 10 })));
    builder.push(10, true, b"ten").unwrap();
    assert!(matches!(builder.push(10, true, b""), Err(Error::UnexpectedOffset { expected: 10, next: 11 })));
    assert!(matches!(builder.push(u64::MAX, true, b""), Err(Error::InvalidOption { .. })));
    assert!(matches!(builder.put_meta("k", &[0; 70_000]), Err(Error::TooLarge { .. })));
    builder.finish(0).unwrap();
    let log = options(&disk).first_offset(9).open(other).unwrap();
    assert_eq!((log.offsets(), &log.read(10).unwrap()[..]), (10..11, &b"ten"[..]));
}

proptest! {
    #![proptest_config(property::config(200, Some(
        concat!(env!("CARGO_MANIFEST_DIR"), "/proptest-regressions/builder.txt"))))]
    #[test]
    fn any_records_with_any_gaps(front in 0u64..50, steps in prop::collection::vec(prop_oneof![
        6 => Just(1u64), 2 => 2u64..40, 1 => 900u64..1300, 1 => 1u64 << 40..1u64 << 41], 0..120), beyond in 0u64..60) {
        let mut at = front;
        let records: Vec<u64> = steps.iter().map(|step| { at += step; at - 1 }).collect();
        let end = if beyond % 2 == 0 { 0 } else { at + beyond };
        let disk = on(&SimDisk::new(8));
        build(&disk, Path::new(DIRECTORY), front, &records, end).unwrap();
        is_clean(disk.as_ref(), Path::new(DIRECTORY));
        agrees(&options(&disk).open(DIRECTORY).unwrap(), front, &records, end);
    }
}
