//! When and how the child is killed.
//!
//! The parent waits until the child says that it enters the phase that it is after, spins for a random
//! part of what that phase usually takes, and sends SIGKILL. Then it reads the pipe to its end. The
//! phases that were entered and not left are where the blow landed: a child that is killed between the
//! call's return and its word about it counts as still within, which is as it must be.
//!
//! It knows nothing of what must be true; it passes on what is said.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use crate::dice::Dice;
use crate::phase::Phase;
use crate::said::Said;

/// A child that says nothing for so long hangs.
const SILENCE: Duration = Duration::from_secs(120);
/// A blow that found no aim in so many openings falls all the same.
const PATIENCE: u32 = 20;
/// What a phase is taken to last before it was seen to end.
const UNSEEN: Duration = Duration::from_millis(1);

/// A child and what it says. Killed at the latest when this goes.
pub struct Running {
    pub child: Child,
    says: Receiver<(Instant, String)>,
}

impl Running {
    pub fn start(mut command: Command) -> Running {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let pipe = child.stdout.take().unwrap();
        let (sender, says) = channel();
        std::thread::spawn(move || listen(pipe, |said| drop(sender.send((Instant::now(), said)))));
        Running { child, says }
    }

    /// The next thing it says, and when that was; `None` at the end of the pipe.
    pub fn next(&self) -> Result<Option<(Instant, Said)>, String> {
        match self.says.recv_timeout(SILENCE) {
            Ok((when, said)) => Ok(Some((when, said.parse()?))),
            Err(RecvTimeoutError::Timeout) => Err(format!("the child is silent for {SILENCE:?}")),
            Err(RecvTimeoutError::Disconnected) => Ok(None),
        }
    }

    /// SIGKILL, now. An error if it was not alive any more.
    pub fn kill(&mut self) -> Result<(), String> {
        self.child.kill().map_err(|error| error.to_string())?;
        let status = self.child.wait().map_err(|error| error.to_string())?;
        // A process that a signal ended has no exit code.
        if status.code().is_some() {
            return Err(format!("the child ended by itself: {status}"));
        }
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn listen(pipe: ChildStdout, mut hear: impl FnMut(String)) {
    let mut pipe = BufReader::new(pipe);
    let mut line = String::new();
    while pipe.read_line(&mut line).is_ok_and(|read| read > 0) {
        if let Some(said) = line.strip_prefix('@') {
            hear(said.trim_end().to_string());
        }
        line.clear();
    }
}

/// How long phases take here: a moving mean, so that blows fall all over them and not behind.
#[derive(Default)]
pub struct Habits {
    begun: BTreeMap<(u32, Phase), Instant>,
    usual: BTreeMap<Phase, Duration>,
}

impl Habits {
    /// A new child, whose predecessor left phases that it never ended.
    pub fn forget_begun(&mut self) {
        self.begun.clear();
    }

    pub fn note(&mut self, when: Instant, said: &Said) {
        match said {
            Said::In { thread, phase } => {
                self.begun.insert((*thread, *phase), when);
            }
            Said::Out { thread, phase } => {
                if let Some(begun) = self.begun.remove(&(*thread, *phase)) {
                    let took = when.saturating_duration_since(begun);
                    let usual = self.usual.entry(*phase).or_insert(took);
                    *usual = (*usual * 7 + took) / 8;
                }
            }
            _ => {}
        }
    }

    /// The phases that were entered and not left.
    pub fn under_way(&self) -> BTreeSet<Phase> {
        self.begun.keys().map(|(_, phase)| *phase).collect()
    }

    fn usual(&self, phase: Phase) -> Duration {
        self.usual.get(&phase).copied().unwrap_or(UNSEEN)
    }
}

/// Where a blow is to land.
pub struct Aim {
    pub phase: Phase,
    /// How many of the phase's occurrences are let pass.
    passes: u64,
    /// Into the phase, in 256ths of what it usually takes.
    depth: u32,
}

impl Aim {
    pub fn at(phase: Phase, dice: &mut Dice) -> Aim {
        Aim { phase, passes: dice.below(phase.occurrences()), depth: dice.below(256) as u32 }
    }
}

/// Listens until the aim is in sight, spins into it, strikes, and hears the rest. `Err` is the first
/// wrong thing that was heard, or a child that ended by itself.
pub fn strike(
    running: &mut Running,
    aim: &Aim,
    habits: &mut Habits,
    blow: impl FnOnce(&mut Running) -> Result<(), String>,
    mut hear: impl FnMut(Instant, &Said) -> Result<(), String>,
) -> Result<BTreeSet<Phase>, String> {
    habits.forget_begun();
    let mut passes = aim.passes;
    let mut lives = 0;
    loop {
        let Some((when, said)) = running.next()? else { return Err("the child ended by itself".to_string()) };
        habits.note(when, &said);
        hear(when, &said)?;
        if matches!(said, Said::In { phase, .. } if phase == aim.phase) {
            if passes == 0 {
                let moment = when + habits.usual(aim.phase) * aim.depth / 256;
                while Instant::now() < moment {
                    std::hint::spin_loop();
                }
                break;
            }
            passes -= 1;
        }
        lives += u32::from(matches!(said, Said::Open { .. }));
        if lives == PATIENCE {
            // What it waits for may never come again: then the blow lands anywhere.
            break;
        }
    }
    blow(running)?;
    while let Some((when, said)) = running.next()? {
        habits.note(when, &said);
        hear(when, &said)?;
    }
    Ok(habits.under_way())
}
