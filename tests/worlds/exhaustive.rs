//! Every short sequence of operations, crashed at every step, in every way; and the recovery too, and the
//! recovery from that.
//!
//! Sequences, and crashes of the recovery, both multiply what there is to try. So there are three searches:
//! the longest sequences with a crash each; shorter ones with the recovery crashed too; and the shortest with
//! the recovery crashed twice deep. `STONELOG_DEEP=1` makes each longer by one operation, takes every prelude,
//! and loses the unsynced writes of a crashed recovery in every way; the last search then ends after
//! `STONELOG_STATES` distinct states, ten million unless told. `STONELOG_SEED` gives background work other moments.

use std::io::Write;

use crate::support::exhaustive::{PRELUDES, search};
use crate::support::explore::Reach;
use crate::support::op::Op;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

fn is_deep() -> bool {
    number("STONELOG_DEEP") == Some(1)
}

fn explore(length: usize, recoveries: u8, preludes: &[&[Op]]) {
    let most_states =
        if is_deep() && recoveries == 2 { number("STONELOG_STATES").unwrap_or(10_000_000) } else { u64::MAX };
    let reach = Reach { recoveries, every_loss: is_deep(), most_states };
    let (search, sequences) = search(number("STONELOG_SEED").unwrap_or(1), preludes, length, reach)
        .unwrap_or_else(|why| panic!("{why}"));
    let [moments, tried, distinct, crashed] = search.counts.read();
    // Past the capture of a passing test's output: these counts are what the run is for.
    let _ = writeln!(
        std::io::stderr(),
        "worlds: {sequences} sequences (up to {length} operations behind {} preludes), crashed at {moments} \
         moments, recoveries crashed {recoveries} deep at {crashed} moments: {tried} crash states tried, \
         {distinct} distinct{}",
        preludes.len(),
        if search.has_ended() { " (ended there)" } else { "" },
    );
    assert!(distinct >= 5_000, "{distinct}");
}

#[test]
fn every_short_sequence() {
    explore(2 + usize::from(is_deep()), 0, &PRELUDES);
}

#[test]
fn every_recovery_crashed() {
    explore(usize::from(is_deep()), 1, &PRELUDES);
}

#[test]
fn every_recovery_crashed_twice_deep() {
    explore(usize::from(is_deep()), 2, if is_deep() { &PRELUDES } else { &PRELUDES[3..] });
}
