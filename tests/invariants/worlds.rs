//! G1 to G4, G6 to G8 in every small world: each sequence of few operations, crashed at every step in every
//! way, and the recovery too. The longer sequences are in `tests/worlds`.

use crate::support::exhaustive::{PRELUDES, search};
use crate::support::explore::Reach;
use crate::support::world::World;

#[test]
fn every_single_operation() {
    search(1, &PRELUDES, 1, Reach::deep(0)).unwrap_or_else(|why| panic!("{why}"));
}

#[test]
fn every_recovery_crashed() {
    search(2, &PRELUDES[3..], 0, Reach::deep(1)).unwrap_or_else(|why| panic!("{why}"));
}

/// Worlds that failed once, each with its postmortem.
#[test]
fn worlds_that_failed_once() {
    for (world, postmortem) in KEPT {
        let world: World = world.parse().unwrap();
        if let Err(why) = world.replay() {
            panic!("{why}\n  {postmortem}\n  replay: {}", world.command());
        }
    }
}

const KEPT: &[(&str, &str)] = &[];
