//! The disk stops: what was not fsynced is gone, on a real filesystem.
//!
//! ext4 on a loop device is shut down as its developers' own tests do it (FS_IOC_SHUTDOWN): from one
//! moment to the next nothing reaches the device any more, neither data nor journal. The child goes
//! on against a dead filesystem for a while, and gets errors. What it acknowledges after the word to stop
//! was given counts as unknown: a power cut would have taken the word with the bytes. (And ext4, when
//! it is stopped in the middle of an fdatasync, can report success for bytes that are gone. A dozen
//! lines of pwrite and fdatasync show that, without Stonelog: 14 times in 60 stops, and never for one
//! that returned before the stop.) Then the filesystem is mounted again, replays its journal, and the log
//! is opened.
//!
//! What reached the device counts as kept, so a flush that is missing shows only where the bytes were
//! still in the page cache, which is nearly everywhere.

use std::cell::Cell;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::check::{Openings, go_on, open_and_check};
use crate::child::{self, Lives, Work};
use crate::dice::{Dice, variable};
use crate::machine::{Filesystem, Place, image, place, run, run_in};
use crate::model::Model;
use crate::parent::{Aim, Habits, Running, strike};
use crate::phase::Phase;
use crate::rounds::{Histogram, ROUNDS, seed, tell};
use crate::said::Said;
use crate::scratch::Scratch;

const DEFAULT_ROUNDS: u32 = 13;
const REPLAY: &str = "the_disk_stops";

/// FS_IOC_SHUTDOWN is _IOR('X', 125, u32). With 2 nothing is flushed; with 1 the journal is, first.
const SHUT_DOWN: &str = r#"
    open(my $root, "<", $ARGV[0]) or die "$!"; $| = 1; print "ready\n"; my $flags = <STDIN>;
    defined $flags or exit; ioctl($root, 0x8004587d, pack("L", $flags)) or die "$!";
    print "stopped\n";
"#;

/// A process that waits for the word to stop the filesystem. This crate has no `unsafe` outside of its
/// map, so it is perl that calls the ioctl.
struct Switch {
    child: Child,
    says: BufReader<std::process::ChildStdout>,
}

impl Switch {
    fn ready(mounted: &Path) -> Result<Switch, String> {
        let mut command = Command::new("perl");
        command.args(["-e", SHUT_DOWN]).arg(mounted).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().map_err(|error| format!("no perl: {error}"))?;
        let says = BufReader::new(child.stdout.take().unwrap());
        let mut switch = Switch { child, says };
        switch.hear("ready")?;
        Ok(switch)
    }

    fn hear(&mut self, expected: &str) -> Result<(), String> {
        let mut line = String::new();
        self.says.read_line(&mut line).map_err(|error| error.to_string())?;
        if line.trim() == expected {
            Ok(())
        } else {
            Err(format!("the filesystem cannot be stopped: {line:?}"))
        }
    }

    fn stop(&mut self, flags: u32) -> Result<(), String> {
        let mut stdin = self.child.stdin.take().unwrap();
        writeln!(stdin, "{flags}").map_err(|error| error.to_string())?;
        drop(stdin);
        self.hear("stopped")
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        // Its open directory would keep the filesystem mounted.
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

fn remount(place: &Place, options: &str) -> Result<(), String> {
    let (image, directory) = (image(&place.keep), place.directory.to_str().unwrap());
    run("umount", &[directory])?;
    let options = format!("loop,{options}");
    run("mount", &["-o", &options, image.to_str().unwrap(), directory])
}

#[test]
fn the_disk_stops_and_nothing_acknowledged_is_lost() {
    run_in(Filesystem::Ext4, "power::inside", "run as root, with loop devices and mkfs.ext4");
}

#[test]
#[ignore = "runs in the mount namespace that the_disk_stops makes; does nothing by itself"]
fn inside() {
    let Some(place) = place() else { return };
    match Switch::ready(&place.directory).and_then(|mut switch| switch.stop(2)) {
        Ok(()) => {}
        Err(why) => return tell(&format!("SKIPPED power::inside: {why}")),
    }
    let seed = seed();
    let mut dice = Dice(seed);
    let rounds = variable(ROUNDS).unwrap_or(DEFAULT_ROUNDS);
    let (mut habits, mut histogram, mut openings) =
        (Habits::default(), Histogram::default(), Openings::default());
    remount(&place, "data=ordered").unwrap();
    let new_scratch = || Scratch::on(&place.directory, Some(place.keep.clone()), seed, REPLAY);
    let mut scratch = new_scratch();
    let mut model = Model::default();
    let mut lives = Lives::default();
    let mut acknowledged = 0;
    let phases = dice.shuffled(&Phase::all());
    for round in 0..rounds {
        let phase = phases[round as usize % phases.len()];
        let failed = |what: String| -> ! { panic!("round {round} of {rounds}, {phase}: {what}") };
        if phase == Phase::Begin || dice.one_in(3) {
            scratch = new_scratch();
            acknowledged += std::mem::take(&mut model).acknowledged;
            // The directory that the log is to be in is there for good.
            std::fs::File::open(&place.directory).and_then(|directory| directory.sync_all()).unwrap();
        }
        // There must be something to recover.
        while phase == Phase::Recover && child::phase_of_opening(&scratch.log()) != phase {
            let command = child::command(&scratch.log(), lives.take(), dice.next(), Work::Cycles);
            let aim = Aim::at(Phase::Append, &mut dice);
            strike(&mut Running::start(command), &aim, &mut habits, Running::kill, |_, said| {
                model.hear(said)
            })
            .unwrap_or_else(|what| failed(what));
        }
        let mut running =
            Running::start(child::command(&scratch.log(), lives.take(), dice.next(), Work::Cycles));
        let mut switch = Switch::ready(&place.directory).unwrap();
        let flags = 1 + dice.below(2) as u32;
        let stopping = Cell::new(None);
        let stopped = |running: &mut Running| {
            stopping.set(Some(Instant::now()));
            switch.stop(flags)?;
            // Either it meets an error and ends, or it lives and is killed.
            std::thread::sleep(Duration::from_millis(dice.below(5)));
            let _ = running.kill();
            Ok(())
        };
        let aim = Aim::at(phase, &mut Dice(u64::from(round) ^ seed));
        let mut dead = false;
        let under_way = strike(&mut running, &aim, &mut habits, stopped, |when, said| match said {
            // What it meets once the disk is gone is no failure.
            Said::Failed(_) => {
                dead = true;
                Ok(())
            }
            // A power cut would have taken the words with it.
            said if stopping.get().is_some_and(|moment| when >= moment) => {
                model.hear_late(said);
                Ok(())
            }
            said => model.hear(said),
        });
        histogram.add(&under_way.unwrap_or_else(|what| failed(what)));
        drop((running, switch));
        remount(&place, ["data=ordered", "data=writeback", "data=journal"][dice.below(3) as usize])
            .unwrap_or_else(|what| failed(what));
        scratch.copy_evidence();
        let log = open_and_check(&mut model, &scratch, &mut dice, &mut openings)
            .unwrap_or_else(|what| failed(format!("{what} (the child met an error: {dead})")));
        go_on(&mut model, log, lives.take(), &mut dice).unwrap_or_else(|what| failed(what));
    }
    acknowledged += model.acknowledged;
    tell(&format!("the disk stopped in: {}", histogram.show()));
    tell(&format!("seed {seed}: {acknowledged} acknowledged, {openings:?}"));
    assert!(acknowledged > 0 && openings.recoveries > 0, "it tested nothing");
}
