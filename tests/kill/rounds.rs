//! The rounds: a child, a blow in a chosen phase, a look; again and again.
//!
//! Every phase is aimed at in turn, in an order by the seed, and again where the blow missed, until each
//! was hit: a run that never killed an opening proves nothing about openings. SIGKILL leaves the
//! page cache as it is, so this is the death of a process; [`power`](crate::power) is the death of the disk.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::check::{Openings, go_on, leave_half_a_batch, open_and_check};
use crate::child::{self, Lives, Work};
use crate::dice::{Dice, variable};
use crate::model::Model;
use crate::parent::{Aim, Habits, Running, strike};
use crate::phase::Phase;
use crate::scratch::Scratch;

pub const ROUNDS: &str = "STONELOG_KILL_ROUNDS";
pub const SEED: &str = "STONELOG_KILL_SEED";
const DEFAULT_ROUNDS: u32 = 26;
/// Rounds beyond those asked for, for phases that were missed.
const MORE_ROUNDS: u32 = 200;

/// The seed of this run.
pub fn seed() -> u64 {
    let clock = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
    variable(SEED).unwrap_or_else(clock)
}

/// Says something that the test harness does not swallow.
pub fn tell(words: &str) {
    let _ = std::io::stderr().write_all(format!("{words}\n").as_bytes());
}

/// Where the blows landed: in how many rounds each phase was under way.
#[derive(Debug, Default)]
pub struct Histogram(BTreeMap<Phase, u32>);

impl Histogram {
    pub fn add(&mut self, under_way: &BTreeSet<Phase>) {
        under_way.iter().for_each(|phase| *self.0.entry(*phase).or_default() += 1);
    }

    pub fn missed(&self) -> Vec<Phase> {
        Phase::all().into_iter().filter(|phase| !self.0.contains_key(phase)).collect()
    }

    pub fn show(&self) -> String {
        let count = |phase: Phase| self.0.get(&phase).copied().unwrap_or(0);
        let bars: Vec<String> =
            Phase::all().into_iter().map(|phase| format!("{phase} {}", count(phase))).collect();
        bars.join(", ")
    }
}

#[derive(Debug, Default)]
struct Tally {
    rounds: u32,
    torn: u32,
    left_for_the_next_child: u32,
    copied_by_children: u64,
    acknowledged: usize,
}

/// A run of rounds, on one log after another.
struct Rounds {
    seed: u64,
    dice: Dice,
    scratch: Scratch,
    model: Model,
    lives: Lives,
    habits: Habits,
    histogram: Histogram,
    tally: Tally,
    openings: Openings,
}

const REPLAY: &str = "a_killed_process";

impl Rounds {
    fn new(seed: u64) -> Rounds {
        Rounds {
            seed,
            dice: Dice(seed),
            scratch: Scratch::new(seed, REPLAY),
            model: Model::default(),
            lives: Lives::default(),
            habits: Habits::default(),
            histogram: Histogram::default(),
            tally: Tally::default(),
            openings: Openings::default(),
        }
    }

    fn begin_anew(&mut self) {
        self.scratch = Scratch::new(self.seed, REPLAY);
        self.tally.acknowledged += std::mem::take(&mut self.model).acknowledged;
    }

    /// One child, killed while it is in this phase, if all goes well.
    fn run_and_kill(&mut self, phase: Phase) -> Result<(), String> {
        self.tally.rounds += 1;
        let aim = Aim::at(phase, &mut self.dice);
        let command = child::command(&self.scratch.log(), self.lives.take(), self.dice.next(), Work::Cycles);
        let (model, tally) = (&mut self.model, &mut self.tally);
        let under_way =
            strike(&mut Running::start(command), &aim, &mut self.habits, Running::kill, |_, said| {
                if let crate::said::Said::Open { copied, .. } = said {
                    tally.copied_by_children += copied;
                }
                model.hear(said)
            })?;
        self.histogram.add(&under_way);
        Ok(())
    }

    /// Kills in this phase, then looks, or leaves it to the next child to find what this one left.
    fn round(&mut self, phase: Phase, looks: bool) -> Result<(), String> {
        match phase {
            Phase::Begin => self.begin_anew(),
            // There must be something to recover: a kill may fall before the beginning or behind the close.
            Phase::Recover => {
                while child::phase_of_opening(&self.scratch.log()) != Phase::Recover {
                    self.run_and_kill(Phase::Append)?;
                }
            }
            _ => {}
        }
        self.run_and_kill(phase)?;
        let life = self.lives.take();
        if self.dice.one_in(3) {
            self.tally.torn += u32::from(leave_half_a_batch(&self.scratch.log(), life)?);
        }
        if !looks {
            self.tally.left_for_the_next_child += 1;
            return Ok(());
        }
        self.scratch.copy_evidence();
        let log = open_and_check(&mut self.model, &self.scratch, &mut self.dice, &mut self.openings)?;
        go_on(&mut self.model, log, life, &mut self.dice)?;
        // Half of the logs go on, so that some have seen many crashes.
        if self.dice.one_in(2) {
            self.begin_anew();
        }
        Ok(())
    }
}

#[test]
fn a_killed_process_loses_nothing_that_was_acknowledged() {
    let rounds = variable(ROUNDS).unwrap_or(DEFAULT_ROUNDS);
    let mut run = Rounds::new(seed());
    let mut aims: Vec<Phase> = Vec::new();
    loop {
        let asked_for = run.tally.rounds < rounds;
        let missed = run.histogram.missed();
        // A run of few rounds is asked for to be short: it need not hit everything.
        let goes_on = rounds >= DEFAULT_ROUNDS && run.tally.rounds < rounds + MORE_ROUNDS;
        if !asked_for && (missed.is_empty() || !goes_on) {
            break;
        }
        if aims.is_empty() {
            aims = run.dice.shuffled(&if asked_for { Phase::all() } else { missed });
        }
        let phase = aims.pop().unwrap();
        let looks = !run.dice.one_in(3);
        let number = run.tally.rounds;
        run.round(phase, looks).unwrap_or_else(|what| panic!("round {number} of {rounds}, {phase}: {what}"));
    }
    // Whatever the last round left.
    open_and_check(&mut run.model, &run.scratch, &mut run.dice, &mut run.openings)
        .unwrap_or_else(|what| panic!("after the last round: {what}"));
    run.tally.acknowledged += run.model.acknowledged;
    tell(&format!("kills landed in: {}", run.histogram.show()));
    tell(&format!("seed {}: {:?} {:?}", run.seed, run.tally, run.openings));
    assert!(run.tally.acknowledged > 0 && run.openings.recoveries > 0, "it tested nothing");
    assert!(
        rounds < DEFAULT_ROUNDS || run.histogram.missed().is_empty(),
        "no kill landed in {:?}",
        run.histogram.missed()
    );
}
