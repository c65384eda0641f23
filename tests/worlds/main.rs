//! Simulated worlds: operations on a log over a simulated disk, and every way that a crash can end them.
//!
//! A failure prints the one command that replays it.
#![allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "tests: a failed expectation is how they speak"
)]

#[path = "../support/mod.rs"]
mod support;

mod exhaustive;
mod random;
mod replay;
