//! The mutants of repairs, caught by the tests here.

use crate::support::mutants::{self, Suite};

#[test]
fn every_mutant_is_caught() {
    mutants::every_mutant_is_caught(Suite::Repair);
}
