//! Repairs, resumptions and undos that are killed at every I/O step, on a disk that keeps what it will.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use stonelog::disk::sim::{Loss, SimDisk};
use stonelog::repair::{Basis, Pending, Plan, pending};
use stonelog::{Error, Options};

use crate::common::files;
use crate::golden::load;
use crate::mended::{check, contents, lock, repair, session, undo};

type Contents = BTreeMap<String, Vec<u8>>;

/// One log for each thing that a repair does.
const LOGS: &[&str] = &[
    "head-zeroed-sealed",
    "frame-crc-unclean",
    "store-missing-sealed",
    "store-short-sealed",
    "manifest-missing",
    "several-unsealed",
    "unnamed-leftovers",
    "seal-names-too-many",
];

/// What a power cut may keep. (The process alone may die, too: then all is kept.)
fn losses() -> Vec<Loss> {
    let seeded = (0..6).map(Loss::Seeded);
    [Loss::Nothing, Loss::Everything].into_iter().chain(seeded).collect()
}

/// The states that `deed` leaves on `disk`, killed before every mutation and inside every write.
fn killed(disk: &SimDisk, deed: impl Fn(&SimDisk)) -> Vec<(String, SimDisk)> {
    let mut states = Vec::new();
    for partly in [false, true] {
        for step in 1.. {
            let world = disk.fork();
            world.crash_mid_write(partly);
            world.crash_at_mutation(step);
            let before = world.mutations();
            deed(&world);
            let ended = world.mutations() - before < step;
            for loss in losses() {
                let after = world.fork();
                after.power_loss(loss);
                states.push((format!("killed at mutation {step} (partly: {partly}), {loss:?}"), after));
            }
            if ended {
                break;
            }
        }
    }
    states
}

fn begun(disk: &SimDisk) -> Option<Pending> {
    pending(disk, Path::new("/log")).unwrap()
}

fn try_repair(disk: &SimDisk) {
    let _ = repair(disk, Basis::Manifest, None);
}

fn refuses_to_open(disk: &SimDisk, name: &str) {
    let options = || Options::new().disk(Arc::new(disk.fork()));
    for opened in [options().open("/log"), options().open_read_only("/log")] {
        let error = opened.expect_err(name).to_string();
        assert!(error.contains("was interrupted"), "{name}: {error}");
    }
}

/// Whatever a crash left of a repair: it is begun anew, or goes on, and is taken back in the end.
fn mend_and_undo(disk: &SimDisk, before: &Contents, plan: &Plan, name: &str) -> &'static str {
    let outcome = match begun(disk) {
        Some(Pending::Repair { .. }) => {
            refuses_to_open(disk, name);
            // It can be taken back from here, too.
            undo(&disk.fork(), before, &format!("{name}, taken back half done"));
            let session = session(disk);
            assert!(matches!(session.survey(Basis::Manifest), Err(Error::RepairUnfinished { .. })), "{name}");
            session.resume().unwrap_or_else(|error| panic!("{name}: does not go on: {error}"));
            "went on"
        }
        Some(Pending::Undo { .. }) => panic!("{name}: nothing was undone"),
        None if contents(disk) == *before => {
            repair(disk, Basis::Manifest, None).unwrap_or_else(|error| panic!("{name}: anew: {error}"));
            "anew"
        }
        None => "done",
    };
    assert_eq!(begun(disk), None, "{name}");
    let records = check(&disk.fork(), plan, name);
    assert!(!records.is_empty(), "{name}");
    undo(disk, before, name);
    outcome
}

/// G7 for repairs.
#[test]
fn a_repair_killed_at_any_step_has_not_begun_or_goes_on() {
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    for log in LOGS {
        let disk = load(log);
        let before = contents(&disk);
        let done = disk.fork();
        let plan = repair(&done, Basis::Manifest, None).unwrap();
        for (name, state) in killed(&disk, try_repair) {
            let outcome = mend_and_undo(&state, &before, &plan, &format!("{log}, {name}"));
            *counts.entry(outcome).or_default() += 1;
        }
    }
    let _ = writeln!(std::io::stderr(), "repairs killed: {counts:?}");
    assert!(counts["anew"] > 500 && counts["went on"] > 500 && counts["done"] > 50, "{counts:?}");
}

/// G7 for repairs. Going on may be interrupted as well.
#[test]
fn going_on_may_be_killed_too() {
    let mut tried = 0;
    for log in ["frame-crc-unclean", "head-zeroed-sealed"] {
        let disk = load(log);
        let before = contents(&disk);
        let plan = repair(&disk.fork(), Basis::Manifest, None).unwrap();
        let half: Vec<_> = killed(&disk, try_repair)
            .into_iter()
            .filter(|(_, state)| matches!(begun(state), Some(Pending::Repair { .. })))
            .step_by(9)
            .collect();
        assert!(half.len() > 5);
        for (first, state) in half {
            for (second, again) in
                killed(&state, |disk| drop(lock(disk).and_then(|session| session.resume())))
            {
                mend_and_undo(&again, &before, &plan, &format!("{log}, {first}, then {second}"));
                tried += 1;
            }
        }
    }
    assert!(tried > 500, "{tried}");
}

/// An undo that is killed goes on, and gives back every byte.
#[test]
fn an_undo_killed_at_any_step_goes_on() {
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    for log in LOGS {
        let disk = load(log);
        let before = contents(&disk);
        repair(&disk, Basis::Manifest, None).unwrap();
        let repaired = contents(&disk);
        for (name, state) in killed(&disk, |disk| drop(lock(disk).and_then(|session| session.undo()))) {
            let name = format!("{log}, undo {name}");
            match begun(&state) {
                Some(Pending::Undo { .. }) => {
                    refuses_to_open(&state, &name);
                    *counts.entry("went on").or_default() += 1;
                    undo(&state, &before, &name);
                }
                Some(Pending::Repair { .. }) => panic!("{name}: a repair goes on"),
                None if contents(&state) == repaired => {
                    *counts.entry("anew").or_default() += 1;
                    undo(&state, &before, &name);
                }
                None => {
                    *counts.entry("done").or_default() += 1;
                    assert!(contents(&state) == before, "{name}");
                }
            }
        }
    }
    let _ = writeln!(std::io::stderr(), "undos killed: {counts:?}");
    assert!(counts["anew"] > 50 && counts["went on"] > 500 && counts["done"] > 50, "{counts:?}");
}

/// G11. An undo that was begun, or that begins at a repair that was killed, moves nothing and removes nothing once a file
/// is gone that it would put back.
#[test]
fn an_undo_that_cannot_end_lets_go_of_nothing() {
    let old = |name: &str| format!("/log/repair/1/old/{name}");
    let all = |disk: &SimDisk| {
        let mut files = files(disk);
        files.remove("LOCK");
        files
    };
    let mut refused = 0;
    for log in LOGS {
        let disk = load(log);
        let repaired = disk.fork();
        repair(&repaired, Basis::Manifest, None).unwrap();
        let undone = |disk: &SimDisk| drop(lock(disk).and_then(|session| session.undo()));
        let half = killed(&disk, try_repair).into_iter().chain(killed(&repaired, undone));
        for (step, state) in half.filter(|(_, state)| begun(state).is_some()).step_by(7) {
            let kept = state.file_names(old(""));
            for gone in kept.iter().map(std::slice::from_ref).chain([kept.as_slice()]) {
                let state = state.fork();
                gone.iter().for_each(|name| state.remove_file(old(name)).unwrap());
                if gone.is_empty() {
                    continue;
                }
                let (before, began) = (all(&state), begun(&state));
                let name = format!("{log}, {step}, without {gone:?}");
                let error = session(&state).undo().expect_err(&name);
                assert!(matches!(error, Error::RepairRefused { .. }), "{name}: {error}");
                assert!(all(&state) == before, "{name}: something was moved");
                assert_eq!(begun(&state), began, "{name}");
                refused += 1;
            }
        }
    }
    assert!(refused > 500, "{refused}");
}
