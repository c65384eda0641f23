//! `log-repair repair --apply` and `undo --apply` as real processes, killed before every system call that
//! changes something, and interrupted.
//!
//! Whatever is left: the log is as it was, or repaired, or the same command finishes what was begun; then it is
//! sound, and an undo gives back every byte. The page cache stays, so this shows what the order of calls
//! leaves, not whether they were fsynced: that is tests/repair/crash.rs, on the simulated disk.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]
#![allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests: a failed expectation is how they speak, and they make real files and processes"
)]

#[allow(unused, reason = "shared with the other tests")]
mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use nix::sys::signal::Signal;
use stonelog::DamagePolicy;
use stonelog::disk::OsDisk;
use stonelog::repair::{Pending, pending};
use support::practice::{Practice, contents, payload};
use support::trace::{Blow, End, Followed, Unable, follow, tell};

/// One log for each thing that a repair does: a head written anew, a loss declared, a tail copied or left,
/// a MANIFEST put together.
const KINDS: &[&str] = &["head-gone", "zeroed-block", "killed", "power-cut", "manifest-missing"];

type Contents = BTreeMap<PathBuf, Option<Vec<u8>>>;

/// A log with what it is to be in the end.
struct Case {
    practice: Practice,
    /// The arguments of the repair.
    arguments: Vec<String>,
    before: Contents,
    records: BTreeMap<u64, Vec<u8>>,
    lost: Vec<u64>,
}

impl Case {
    fn of(kind: &str) -> Case {
        let practice = Practice::new(kind);
        let arguments = practice.repair_arguments();
        let before = contents(&practice.directory);
        let done = practice.copy();
        let ran = done.run("repair", &words(&arguments));
        assert_eq!(ran.code, 1, "{kind}: {ran:?}");
        let (records, lost) = done.served(DamagePolicy::Refuse).unwrap();
        assert!(records.len() > 50 && records.iter().all(|(offset, bytes)| bytes == payload(*offset)));
        Case { practice, arguments, before, records, lost }
    }

    /// Names in a copy are names of the original.
    fn is_as_before(&self, copy: &Practice) -> bool {
        let named = |directory: &Path, contents: Contents| -> Contents {
            let name = |path: PathBuf| path.strip_prefix(directory).unwrap().to_path_buf();
            contents.into_iter().map(|(path, bytes)| (name(path), bytes)).collect()
        };
        named(&copy.directory, contents(&copy.directory))
            == named(&self.practice.directory, self.before.clone())
    }

    fn check_repaired(&self, copy: &Practice, told: &str) {
        let check = copy.run("check", &[]);
        assert_eq!(check.code, 0, "{told}: {check:?}");
        let (records, lost) = copy.served(DamagePolicy::Refuse).unwrap();
        assert!(records == self.records && lost == self.lost, "{told}: other records");
    }

    fn undo(&self, copy: &Practice, told: &str) {
        let undo = copy.run("undo", &["--apply"]);
        assert_eq!(undo.code, 1, "{told}: {undo:?}");
        assert!(self.is_as_before(copy), "{told}: the undo gives back something else");
        assert!(!copy.directory.join("repair").exists(), "{told}: something of it is left");
    }

    /// Whatever a killed repair left: it is done again, or finished, and taken back.
    fn mend_and_undo(&self, copy: &Practice, told: &str) -> &'static str {
        let outcome = match pending(&OsDisk, &copy.directory).unwrap() {
            Some(Pending::Undo { .. }) => panic!("{told}: nothing was being taken back"),
            Some(Pending::Repair { .. }) => {
                let plan = copy.run("plan", &[]);
                assert_eq!(plan.code, 4, "{told}: {plan:?}");
                assert!(copy.served(DamagePolicy::Serve).is_err(), "{told}: a half repaired log opens");
                // Nothing has to be accepted once more.
                let ran = copy.run("repair", &["--apply"]);
                assert_eq!(ran.code, 1, "{told}: {ran:?}");
                "went on"
            }
            None if self.is_as_before(copy) => {
                let ran = copy.run("repair", &words(&self.arguments));
                assert_eq!(ran.code, 1, "{told}: {ran:?}");
                "anew"
            }
            None => "done",
        };
        self.check_repaired(copy, told);
        self.undo(copy, told);
        outcome
    }
}

fn words(arguments: &[String]) -> Vec<&str> {
    arguments.iter().map(String::as_str).collect()
}

fn start(copy: &Practice, verb: &str, arguments: &[String], blow: Blow) -> Result<Followed, Unable> {
    let head = [verb.to_string(), copy.shown().to_string()];
    follow(Path::new(env!("CARGO_BIN_EXE_log-repair")), &[&head[..], arguments].concat(), blow)
}

/// Kills the command before each of its steps; gives how often what was found.
fn kill_everywhere(
    verb: &str,
    arguments: &[String],
    make: impl Fn() -> Practice,
    look: impl Fn(&Practice, &str) -> &'static str,
) -> Result<BTreeMap<&'static str, u32>, Unable> {
    let mut counts = BTreeMap::new();
    for step in 1.. {
        let copy = make();
        let followed = start(&copy, verb, arguments, Blow::KillAt(step))?;
        let End::Killed(call) = &followed.end else {
            assert_eq!(followed.end, End::Exited(1), "{verb} {}", copy.kind);
            assert!(step > 25, "{verb} of {} takes {step} steps only: {:?}", copy.kind, followed.changes);
            break;
        };
        let told = format!("{}: {verb} killed before step {step}, {call}", copy.kind);
        *counts.entry(look(&copy, &told)).or_default() += 1;
    }
    Ok(counts)
}

/// Adds up what was counted; or says why there is nothing.
fn total(
    name: &str,
    counts: Result<Vec<BTreeMap<&'static str, u32>>, Unable>,
) -> Option<BTreeMap<&'static str, u32>> {
    match counts {
        Ok(counts) => {
            let mut all = BTreeMap::new();
            counts.into_iter().flatten().for_each(|(what, count)| *all.entry(what).or_default() += count);
            tell(&format!("{name}: {all:?}"));
            Some(all)
        }
        Err(why) => {
            tell(&format!("SKIPPED {name}: {}", why.0));
            None
        }
    }
}

#[test]
fn a_repair_killed_before_any_call_has_not_begun_or_is_finished() {
    let counts = KINDS.iter().map(|kind| {
        let case = Case::of(kind);
        let make = || case.practice.copy();
        kill_everywhere("repair", &case.arguments, make, |copy, told| case.mend_and_undo(copy, told))
    });
    let Some(counts) = total("repairs killed", counts.collect()) else { return };
    assert!(counts["anew"] > 50 && counts["went on"] > 50 && counts["done"] > 3, "{counts:?}");
}

#[test]
fn going_on_may_be_killed_too() {
    let case = Case::of("manifest-missing");
    let mut counts = Vec::new();
    for step in 1.. {
        let half = case.practice.copy();
        let followed = match start(&half, "repair", &case.arguments, Blow::KillAt(step)) {
            Ok(followed) => followed,
            Err(why) => return drop(total("resumptions killed", Err(why))),
        };
        if matches!(followed.end, End::Exited(_)) {
            break;
        }
        // Every third of the states in which there is something to go on with.
        let begun = matches!(pending(&OsDisk, &half.directory).unwrap(), Some(Pending::Repair { .. }));
        if !begun || step % 3 != 0 {
            continue;
        }
        for again in 1.. {
            let copy = half.copy();
            let followed = start(&copy, "repair", &["--apply".to_string()], Blow::KillAt(again)).unwrap();
            if matches!(followed.end, End::Exited(_)) {
                break;
            }
            let told = format!("repair killed at {step}, then at {again}");
            counts.push(BTreeMap::from([(case.mend_and_undo(&copy, &told), 1)]));
        }
    }
    let counts = total("resumptions killed", Ok(counts)).unwrap();
    assert!(counts["went on"] > 30, "{counts:?}");
}

#[test]
fn an_undo_killed_before_any_call_is_finished() {
    let counts = KINDS.iter().map(|kind| {
        let case = Case::of(kind);
        let repaired = case.practice.copy();
        assert_eq!(repaired.run("repair", &words(&case.arguments)).code, 1);
        let apply = ["--apply".to_string()];
        kill_everywhere(
            "undo",
            &apply,
            || repaired.copy(),
            |copy, told| {
                match pending(&OsDisk, &copy.directory).unwrap() {
                    Some(Pending::Repair { .. }) => panic!("{told}: a repair goes on"),
                    Some(Pending::Undo { .. }) => {
                        assert!(copy.served(DamagePolicy::Serve).is_err(), "{told}: a half undone log opens");
                        assert_eq!(copy.run("repair", &["--apply"]).code, 4, "{told}");
                        case.undo(copy, told);
                        "went on"
                    }
                    // All is back; what is left of the repair's directory is swept by the same command.
                    None if case.is_as_before(copy) => {
                        let again = copy.run("undo", &["--apply"]);
                        assert_eq!(again.code, 8, "{told}: {again:?}");
                        assert!(case.is_as_before(copy), "{told}");
                        // Nothing of it is in the way of another repair.
                        assert_eq!(copy.run("repair", &words(&case.arguments)).code, 1, "{told}");
                        case.check_repaired(copy, told);
                        case.undo(copy, told);
                        "done"
                    }
                    None => {
                        case.check_repaired(copy, told);
                        case.undo(copy, told);
                        "anew"
                    }
                }
            },
        )
    });
    let Some(counts) = total("undos killed", counts.collect()) else { return };
    assert!(counts["went on"] > 50 && counts["anew"] > 3 && counts["done"] > 3, "{counts:?}");
}

/// Ctrl-C at any moment: the exit code says so, and what was begun goes on.
#[test]
fn an_interrupted_process_says_so_and_leaves_what_can_be_finished() {
    let counts = ["zeroed-block", "manifest-missing"].map(|kind| {
        let case = Case::of(kind);
        let mut counts = BTreeMap::new();
        for step in (1..).step_by(3) {
            let copy = case.practice.copy();
            let followed = start(&copy, "repair", &case.arguments, Blow::SignalAt(step, Signal::SIGINT))?;
            if followed.changes.len() < step {
                break;
            }
            let told = format!("{kind}: interrupted at step {step} of {}", followed.changes.len());
            // (It may have ended before it was heard.)
            match followed.end {
                End::Exited(log_repair::CANCELLED) => *counts.entry("cancelled").or_default() += 1,
                End::Exited(1) => *counts.entry("too late").or_default() += 1,
                ref end => panic!("{told}: {end:?}"),
            }
            case.mend_and_undo(&copy, &told);
        }
        Ok(counts)
    });
    let Some(counts) = total("repairs interrupted", counts.into_iter().collect()) else { return };
    assert!(counts["cancelled"] > 5, "{counts:?}");
}
