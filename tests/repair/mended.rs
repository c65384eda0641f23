//! A repair from end to end, with every check that holds for all of them.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use stonelog::disk::sim::SimDisk;
use stonelog::recovery::verdict::Verdict;
use stonelog::recovery::{Depth, inspect};
use stonelog::repair::{Basis, Plan, Session, plan};
use stonelog::{DamagePolicy, Error, Options, ReadMode};

use crate::common::{DIRECTORY, files};

pub type Records = BTreeMap<u64, Vec<u8>>;

pub fn lock(disk: &SimDisk) -> stonelog::Result<Session> {
    Session::lock(Arc::new(disk.clone()), Path::new(DIRECTORY))
}

pub fn session(disk: &SimDisk) -> Session {
    lock(disk).unwrap()
}

/// What the log's directory holds, but for the lock and for what repairs keep.
pub fn contents(disk: &SimDisk) -> BTreeMap<String, Vec<u8>> {
    let mut files = files(disk);
    files.retain(|name, _| name != "LOCK" && !name.starts_with("repair/"));
    files
}

/// Plans and does a repair that gives up exactly what it says.
pub fn repair(disk: &SimDisk, basis: Basis, end: Option<u64>) -> stonelog::Result<Plan> {
    let session = lock(disk)?;
    let survey = session.survey(basis)?;
    let plan = plan(&survey, end)?;
    if !plan.is_nothing() {
        session.apply(&plan, &plan.to_accept())?;
    }
    Ok(plan)
}

/// Every record that can be read, and the offsets that are lost.
pub fn served(disk: &SimDisk, policy: DamagePolicy) -> stonelog::Result<(Range<u64>, Records, Vec<u64>)> {
    let options = Options::new().disk(Arc::new(disk.fork())).read_mode(ReadMode::Buffered);
    let log = options.on_damage(policy).open(DIRECTORY)?;
    let (mut records, mut lost) = (Records::new(), Vec::new());
    for offset in log.offsets() {
        match log.read(offset) {
            Ok(record) => {
                records.insert(offset, record.to_vec());
            }
            Err(Error::Lost { .. }) => lost.push(offset),
            Err(_) => {}
        }
    }
    Ok((log.offsets(), records, lost))
}

/// Checks all that must hold of a log that was just repaired by `plan`.
pub fn check(disk: &SimDisk, plan: &Plan, name: &str) -> Records {
    let findings = inspect(disk, Path::new(DIRECTORY), Depth::Everything).unwrap();
    let assessment = findings.assessment.clone().unwrap();
    assert_eq!(assessment.damage, [], "{name}: damage after the repair");
    // (Bytes behind a Close are no repair's business.)
    assert!(plan.is_nothing() || assessment.verdict == Verdict::Clean, "{name}");
    for segment in &findings.segments {
        assert_eq!(segment.index_defect, None, "{name}: segment {:x}", segment.id);
    }
    let session = session(disk);
    let again = stonelog::repair::plan(&session.survey(Basis::Manifest).unwrap(), None).unwrap();
    assert!(again.is_nothing(), "{name}: a second repair would do {:?}", again.actions);
    drop(session);
    let (offsets, records, lost) =
        served(disk, DamagePolicy::Refuse).unwrap_or_else(|error| panic!("{name}: does not open: {error}"));
    assert_eq!(offsets, plan.offsets, "{name}");
    assert_eq!(
        offsets.clone().count(),
        records.len() + lost.len(),
        "{name}: each offset is a record or lost, and nothing else"
    );
    // The log goes on: the next record has the next offset, also after a crash.
    let world = disk.fork();
    let options = || Options::new().disk(Arc::new(world.clone())).read_mode(ReadMode::Buffered);
    let log = options().open(DIRECTORY).unwrap();
    assert_eq!(log.append(b"and on").unwrap(), offsets.end, "{name}");
    world.crash_at_mutation(0);
    world.power_loss(stonelog::disk::sim::Loss::Nothing);
    drop(log);
    let log = options().open(DIRECTORY).unwrap();
    assert_eq!(log.offsets(), offsets.start..offsets.end + 1, "{name}: after a crash");
    assert_eq!(&*log.read(offsets.end).unwrap(), b"and on", "{name}");
    for (offset, bytes) in &records {
        assert_eq!(&*log.read(*offset).unwrap(), bytes.as_slice(), "{name}: record {offset} after a crash");
    }
    records
}

/// Takes the repair back, and checks that every byte is what it was.
pub fn undo(disk: &SimDisk, before: &BTreeMap<String, Vec<u8>>, name: &str) {
    session(disk).undo().unwrap_or_else(|error| panic!("{name}: undo: {error}"));
    let after = contents(disk);
    let names = |files: &BTreeMap<String, Vec<u8>>| files.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(before), names(&after), "{name}: names after the undo");
    for (file, bytes) in before {
        assert!(after[file] == *bytes, "{name}: {file} is not what it was before the repair");
    }
}
