//! What the crash tests share: operations on a log over a simulated disk, a model of what they
//! should give, the check of what a reopened log may hold, and worlds made of these.

#![allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "tests: a failed expectation is how they speak"
)]

pub mod dice;
pub mod exhaustive;
pub mod explore;
pub mod gated;
pub mod model;
pub mod mutants;
pub mod op;
pub mod property;
pub mod run;
pub mod world;

#[allow(unused_imports, reason = "the invariants use it")]
pub use world::losses;

pub const DIRECTORY: &str = "/log";
