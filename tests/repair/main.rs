//! Repairs, held to what they promise: every intact record is served afterwards at its offset, exactly what
//! was named is lost, nothing is lost unnamed, an interrupted repair ends as one that was not, and an undo gives every byte
//! back. (G5, G7, G11 for a log that an operator mends.)
#![allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::single_range_in_vec_init,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a test: it fails by panic, and reads committed files from the real disk"
)]

#[path = "../invariants/common.rs"]
#[allow(unused, reason = "shared with the invariants")]
mod common;
mod crash;
mod full_disk;
mod golden;
mod life;
mod mended;
mod misnamed;
mod mutants;
mod random;
mod review;
#[path = "../support/mod.rs"]
#[allow(unused, reason = "shared with the crash tests")]
mod support;
