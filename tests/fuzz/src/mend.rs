//! The target that repairs: a directory of any bytes, with what a repair may have left in it, is looked at, planned
//! for, repaired, resumed, opened and taken back.
//!
//! Where no repair was under way the promises are held as they stand: what was repaired opens, needs no second
//! repair, gives for each offset a record or `Lost`, and comes back byte for byte. A journal that somebody forged
//! may move the log's own files as it likes; it must end, and touch nothing else.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use stonelog::disk::sim::SimDisk;
use stonelog::repair::{Basis, Pending, Session, pending, plan, survey, undoable};
use stonelog::{Error, Log, names};

use super::bytes::Bytes;
use super::logs::{self, DIRECTORY, options, path};
use super::mutate;

/// A directory of a few hundred KiB is repaired with at most so many I/O calls.
const MOST_STEPS: u64 = 20_000;

/// The target.
pub fn mend(data: &[u8]) {
    let mut input = Bytes(data);
    let shape = input.u8();
    let left = if shape & 3 == 0 { Some(left_by_a_repair(&mut input)) } else { None };
    let end = if shape & 4 == 0 { None } else { Some(input.number()) };
    let disk = mutate::world(&mut input);
    if let Some(left) = left {
        left.put(&disk);
    }
    disk.write_file("/precious", b"nobody's").expect("a place beside it");
    for basis in [Basis::Manifest, Basis::Stores] {
        look(&disk, basis, end);
        let world = disk.fork();
        let before = world.steps();
        repair(&world, basis, end);
        let steps = world.steps() - before;
        assert!(steps < MOST_STEPS, "a repair took {steps} I/O calls");
        assert_eq!(world.read_file("/precious").as_deref(), Some(&b"nobody's"[..]));
    }
}

/// A journal, by any name, of any content, and files beside it.
struct Left {
    name: &'static str,
    journal: Vec<u8>,
    files: Vec<(&'static str, String, Vec<u8>)>,
}

fn left_by_a_repair(input: &mut Bytes<'_>) -> Left {
    let choice = input.u8();
    let name = ["journal", "undo", "undoing", "journal.next"][usize::from(choice) % 4];
    let mut files = Vec::new();
    let mut text = "stonelog repair journal, version 1\n".to_string();
    for _ in 0..choice >> 2 & 15 {
        let file = a_name(input);
        match input.u8() % 8 {
            0 | 1 => text += &format!("out {file}\n"),
            2 | 3 => text += &format!("in {file} {} -\n", input.number()),
            4 => text += &format!("in {file} {} {:08x}\n", input.number(), input.u32()),
            5 => text += &format!("ballast {}\n", input.number()),
            6 => files.push(("new", file, input.piece().to_vec())),
            _ => files.push(("old", file, input.piece().to_vec())),
        }
    }
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(text.as_bytes());
    text += &format!("end {:08x}\n", hasher.finalize());
    let mut journal = text.into_bytes();
    if choice & 0x40 != 0 {
        let at = usize::from(input.u16()) % journal.len();
        journal[at] ^= 1 << (choice & 7);
    }
    if choice & 0x80 != 0 {
        journal = input.piece().to_vec();
    }
    Left { name, journal, files }
}

fn a_name(input: &mut Bytes<'_>) -> String {
    let id = input.number() % 9;
    match input.u8() % 8 {
        0 | 1 => "MANIFEST".to_string(),
        2..=4 => names::store(id),
        5 | 6 => names::index(id),
        _ => ["../precious", "/precious", "LOCK", "", "repair/1/undo", "quarantine"][(id % 6) as usize]
            .to_string(),
    }
}

impl Left {
    fn put(&self, disk: &SimDisk) {
        disk.write_file(path(&format!("repair/1/{}", self.name)), &self.journal).expect("a journal");
        for (place, name, bytes) in &self.files {
            if !name.is_empty() && !name.contains('/') {
                disk.write_file(path(&format!("repair/1/{place}/{name}")), bytes).expect("a file");
            }
        }
    }
}

/// Whatever only looks changes nothing.
fn look(disk: &SimDisk, basis: Basis, end: Option<u64>) {
    let directory = Path::new(DIRECTORY);
    let before = disk.mutations();
    drop(pending(disk, directory));
    drop(undoable(disk, directory));
    if let Ok(survey) = survey(disk, directory, basis)
        && let Ok(plan) = plan(&survey, end)
    {
        assert!(plan.accepts(&plan.to_accept()).is_ok());
        let _ = plan.actions.iter().map(ToString::to_string).collect::<Vec<_>>();
    }
    assert_eq!(disk.mutations(), before, "a look has changed something");
}

fn contents(disk: &SimDisk) -> BTreeMap<String, Vec<u8>> {
    let mut files = logs::files(disk);
    files.remove(names::LOCK);
    files
}

fn repair(disk: &SimDisk, basis: Basis, end: Option<u64>) {
    let before = contents(disk);
    let Ok(session) = Session::lock(Arc::new(disk.clone()), Path::new(DIRECTORY)) else { return };
    match session.pending() {
        Ok(None) => {}
        Ok(Some(Pending::Repair { .. })) => {
            let _ = session.resume().and_then(|_| session.undo());
            return;
        }
        Ok(Some(Pending::Undo { .. })) => return drop(session.undo()),
        Err(_) => return,
    }
    let Ok(survey) = session.survey(basis) else { return };
    let Ok(plan) = plan(&survey, end) else { return };
    if plan.is_nothing() {
        return;
    }
    if let Err(error) = session.apply(&plan, &plan.to_accept()) {
        assert!(contents(disk) == before, "changed by a repair that failed: {error}");
        return;
    }
    let again = session.survey(Basis::Manifest).expect("a repaired log can be surveyed");
    let again = stonelog::repair::plan(&again, None).expect("a repaired log can be planned for");
    assert!(again.is_nothing(), "a second repair would do {:?}", again.actions);
    drop(session);
    let log = options(&disk.fork()).open(DIRECTORY).expect("what was repaired opens");
    assert_eq!(log.offsets(), plan.offsets);
    read_all(&log);
    drop(log);
    let session = Session::lock(Arc::new(disk.clone()), Path::new(DIRECTORY)).expect("nobody has it");
    session.undo().expect("what was repaired can be taken back");
    assert!(contents(disk) == before, "the undo gives back something else");
}

fn read_all(log: &Log) {
    let offsets = log.offsets();
    let first = offsets.start..offsets.end.min(offsets.start.saturating_add(200));
    let last = offsets.end.saturating_sub(50).max(first.end)..offsets.end;
    for offset in first.chain(last) {
        match log.read(offset) {
            Ok(_) | Err(Error::Lost { .. }) => {}
            Err(error) => panic!("reading {offset} of {offsets:?}: {error}"),
        }
    }
}
