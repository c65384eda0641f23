//! G10 on real filesystems: the log on a disk that gets full, in one process and through kills.
//!
//! What must hold: an append that finds no space says `NoSpace` and gives out no offset; nothing
//! accepted is lost, whether the process ends well or is killed; the log opens on the full disk, unless
//! truncations or metadata used up what it had laid in for that (then it says `NoSpace`, and opens when
//! there is space); and it goes on as soon as there is. Nothing may be poisoned on the way.
//!
//! On a small tmpfs, on a small ext4, and in the directory that STONELOG_SMALL_DISK names: the two
//! differ in what costs space (ext4: blocks of directories and extents) and in when what was freed is
//! to be had (ext4: after its journal committed).

use std::path::{Path, PathBuf};

use stonelog::{Durability, Error, Log};

use crate::check::{Openings, go_on, open_and_check};
use crate::child::{self, Lives, Work};
use crate::dice::{Dice, variable};
use crate::machine::{Filesystem, place, run_in};
use crate::model::Model;
use crate::parent::Running;
use crate::record::Name;
use crate::rounds::{ROUNDS, seed, tell};
use crate::said::Said;
use crate::scratch::Scratch;
use crate::small_disk::{Filler, os_disk_names_a_full_disk};

const DEFAULT_ROUNDS: u32 = 8;
const REPLAY: &str = "full";
const HINT: &str = "STONELOG_SMALL_DISK=DIR, on a filesystem of 2 to 64 MiB, will do as well";
/// Not to be filled by a mistake: a disk on which other things live.
const MOST_SMALL_DISK: u64 = 64 << 20;

#[test]
fn a_full_tmpfs() {
    run_in(Filesystem::Tmpfs, "full_disk::inside", HINT);
}

#[test]
fn a_full_ext4() {
    run_in(Filesystem::Ext4, "full_disk::inside", HINT);
}

#[test]
fn a_full_disk_of_ones_own() {
    // Not said to be skipped: it is for machines on which the others are.
    let Some(small) = std::env::var_os("STONELOG_SMALL_DISK").map(PathBuf::from) else { return };
    let size = fs2::total_space(&small).unwrap();
    assert!(size <= MOST_SMALL_DISK, "STONELOG_SMALL_DISK has {size} bytes: too large to be filled");
    all(&small, None, "STONELOG_SMALL_DISK");
}

#[test]
#[ignore = "runs in the mount namespace that the others make; does nothing by itself"]
fn inside() {
    if let Some(place) = place() {
        all(&place.directory, Some(place.keep), &place.kind);
    }
}

fn all(place: &Path, keep: Option<PathBuf>, kind: &str) {
    let seed = seed();
    os_disk_names_a_full_disk(place);
    for (free, durability) in
        [(300, Durability::Always), (500, Durability::Manual), (900, Durability::Always)]
    {
        let scratch = Scratch::on(place, keep.clone(), seed, REPLAY);
        one_process(&scratch, place, free << 10, durability);
    }
    killed_while_full(place, keep, seed, kind);
}

/// Fills the log until it says that there is no space. A mirror of what was accepted.
fn fill(model: &mut Model, log: &Log, thread: u32) {
    for number in 0.. {
        let offsets = log.offsets();
        match model.append(log, Name::alone(0, thread, number)) {
            Ok(appended) => appended.unwrap(),
            Err(Error::NoSpace { .. }) => {
                assert_eq!(log.offsets(), offsets, "a refused append got an offset");
                return;
            }
            Err(error) => panic!("a full disk must say so, but: {error}"),
        }
    }
}

/// The same handle through a full disk: appends, truncations, metadata, space that comes back.
fn one_process(scratch: &Scratch, place: &Path, free: u64, durability: Durability) {
    let filler = Filler::leaving(place, free);
    let open = || stonelog::Options::new().segment_bytes(16 << 10).durability(durability).open(scratch.log());
    let log = open().unwrap_or_else(|error| panic!("{free} bytes free: {error}"));
    let mut model = Model::default();
    fill(&mut model, &log, 0);
    filler.take_all();
    assert!(model.end > 0, "{free} bytes free, and no record was taken");
    log.sync().unwrap_or_else(|error| panic!("what was accepted cannot be synced: {error}"));
    model.check(&log).unwrap();

    // Closed and opened on the full disk.
    log.close().unwrap_or_else(|error| panic!("closing on the full disk: {error}"));
    // (A closed handle still reads, and so holds the files that a truncation is to give back.)
    drop(log);
    let log = open().unwrap_or_else(|error| panic!("opening on the full disk: {error}"));
    model.check(&log).unwrap();
    match log.put_meta("position", b"1") {
        Ok(()) => assert_eq!(log.meta("position").unwrap().as_deref(), Some(&b"1"[..])),
        Err(error) => assert!(error.is_no_space(), "metadata on the full disk: {error}"),
    }

    // A truncation works, and what it frees is to be had.
    let front = model.end - model.end / 4;
    log.truncate_front(front).unwrap_or_else(|error| panic!("truncating the front, full: {error}"));
    model.hear(&Said::Front { offset: front, step: crate::said::Step::Tried }).unwrap();
    model.hear(&Said::Front { offset: front, step: crate::said::Step::Done }).unwrap();
    let before = model.end;
    fill(&mut model, &log, 1);
    assert!(model.end > before, "space was freed, and nothing was accepted");
    filler.take_all();
    log.sync().unwrap();
    let cut = front + (model.end - front) / 2;
    log.truncate_back(cut).unwrap_or_else(|error| panic!("truncating the back, full: {error}"));
    model.hear(&Said::Back { end: cut, step: crate::said::Step::Done }).unwrap();
    model.check(&log).unwrap();

    // Space comes back: the same handle goes on.
    filler.give_back();
    for number in 0..50 {
        model
            .append(&log, Name::alone(0, 2, number))
            .unwrap_or_else(|e| panic!("space is back: {e}"))
            .unwrap();
    }
    log.sync().unwrap();
    log.put_meta("position", b"2").unwrap();
    model.check(&log).unwrap();
    drop(log);
    model.check(&open().unwrap()).unwrap();
}

#[derive(Debug, Default)]
struct Tally {
    rounds: u32,
    refused: usize,
    opened_full: u32,
    /// Records that such openings copied.
    copied_full: u64,
    /// The least that was free then.
    least_free: Option<u64>,
    opened_later: u32,
    acknowledged: usize,
}

/// A child fills the disk and is killed when it is full; the log is opened on the full disk, then with
/// space.
fn killed_while_full(place: &Path, keep: Option<PathBuf>, seed: u64, kind: &str) {
    let mut dice = Dice(seed);
    let (mut tally, mut openings) = (Tally::default(), Openings::default());
    for round in 0..variable(ROUNDS).unwrap_or(DEFAULT_ROUNDS) {
        let scratch = Scratch::on(place, keep.clone(), seed, REPLAY);
        let mut model = Model::default();
        tally.rounds += 1;
        // The disk is full twice, the second time from a log that met a full disk before.
        let mut lives = Lives::default();
        for _ in 0..2 {
            let work = if dice.one_in(2) { Work::Fill } else { Work::FillWithChanges };
            let failed = |what: String| -> ! { panic!("round {round}, {work:?}: {what}") };
            let filler = Filler::leaving(place, (200 + dice.below(600)) << 10);
            kill_when_full(&scratch, &mut model, lives.take(), work, &mut dice, &mut tally)
                .unwrap_or_else(|what| failed(what));
            if dice.one_in(2) {
                filler.take_all();
            }
            let free = fs2::available_space(place).unwrap();
            tally.least_free = Some(tally.least_free.map_or(free, |least| least.min(free)));
            // A copy would not fit beside it.
            if keep.is_some() {
                scratch.copy_evidence();
            }
            let may_refuse = work == Work::FillWithChanges;
            match child::options(&mut Dice(seed)).open(scratch.log()) {
                Ok(log) => {
                    model.check(&log).unwrap_or_else(|what| failed(what));
                    tally.opened_full += 1;
                    tally.copied_full += log.recovery().copied.end - log.recovery().copied.start;
                }
                Err(Error::NoSpace { .. }) if may_refuse => tally.opened_later += 1,
                Err(error) => failed(format!("opening on the full disk: {error}")),
            }
            filler.give_back();
            let log = open_and_check(&mut model, &scratch, &mut dice, &mut openings)
                .unwrap_or_else(|what| failed(format!("with space again: {what}")));
            go_on(&mut model, log, lives.take(), &mut dice).unwrap_or_else(|what| failed(what));
        }
        tally.acknowledged += model.acknowledged;
    }
    tell(&format!("full disk, {kind}: seed {seed}: {tally:?} {openings:?}"));
    assert!(tally.acknowledged > 0 && tally.refused > 0 && tally.opened_full > 0, "it tested nothing");
}

/// A child that appends until it is told that the disk is full, and somewhat longer.
fn kill_when_full(
    scratch: &Scratch,
    model: &mut Model,
    life: u32,
    work: Work,
    dice: &mut Dice,
    tally: &mut Tally,
) -> Result<(), String> {
    let mut running = Running::start(child::command(&scratch.log(), life, dice.next(), work));
    let mut after = dice.below(300);
    let mut full = false;
    loop {
        let Some((_, said)) = running.next()? else { return Err("the child ended by itself".to_string()) };
        model.hear(&said)?;
        full |= matches!(said, Said::NoSpace { .. });
        // One that cannot even open says so and waits.
        let waits = matches!(said, Said::NoSpace { thread: child::MAIN });
        if waits || (full && after == 0) {
            break;
        }
        after -= u64::from(full);
    }
    running.kill()?;
    tally.refused += 1;
    while let Some((_, said)) = running.next()? {
        model.hear(&said)?;
        tally.refused += usize::from(matches!(said, Said::NoSpace { .. }));
    }
    Ok(())
}
