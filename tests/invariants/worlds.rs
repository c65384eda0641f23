//! G1 to G4, G6 to G8 in every small world: each sequence of few operations, crashed at every step in every
//! way, and the recovery too. The longer sequences are in `tests/worlds`.

use crate::support::exhaustive::{PRELUDES, search};
use crate::support::explore::Reach;

#[test]
fn every_single_operation() {
    search(1, &PRELUDES, 1, Reach::deep(0)).unwrap_or_else(|why| panic!("{why}"));
}

#[test]
fn every_recovery_crashed() {
    search(2, &PRELUDES[3..], 0, Reach::deep(1)).unwrap_or_else(|why| panic!("{why}"));
}
