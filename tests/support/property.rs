//! How the properties of this repository are tried.
//!
//! The usual run takes the same cases every time: whether a change passes depends on the change alone, and what
//! fails fails again. Searching is a run of its own: `STONELOG_CASES=n` takes n times as many cases, others every time,
//! and `PROPTEST_RNG_SEED` names them.

use proptest::test_runner::{Config, FileFailurePersistence, RngSeed};

/// Where the usual run's cases come from: any number does.
const USUAL_SEED: u64 = 57;

/// A property that is tried with `cases` inputs; a failure's seed goes to the file `regressions`.
pub fn config(cases: u32, regressions: Option<&'static str>) -> Config {
    let times = std::env::var("STONELOG_CASES").ok().and_then(|text| text.parse::<u32>().ok());
    let usual = Config::default();
    let rng_seed = match (usual.rng_seed, times) {
        (RngSeed::Random, None) => RngSeed::Fixed(USUAL_SEED),
        (seed, _) => seed,
    };
    Config {
        cases: cases.saturating_mul(times.unwrap_or(1)),
        rng_seed,
        failure_persistence: regressions.map(|file| Box::new(FileFailurePersistence::Direct(file)) as _),
        ..usual
    }
}
