//! The mutants of the engine, caught by the promises' tests.

use crate::support::mutants::{self, Suite};

#[test]
fn every_mutant_is_caught() {
    mutants::every_mutant_is_caught(Suite::Invariants);
}
