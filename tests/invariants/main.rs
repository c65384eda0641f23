//! One module per promise of docs/GUARANTEES.md: each says in words what is promised, and holds the
//! tests that would fail if it broke.
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
#[allow(unused, reason = "shared with the crash tests, of which this binary needs a part")]
mod support;

mod common;

mod g01_acknowledged_is_there;
mod g02_prefix_of_what_was_submitted;
mod g03_batches_are_whole;
mod g04_truncations_stay;
mod g05_damage_is_no_tear;
mod g05_evidence;
mod g05_lying_device;
mod g06_failed_fsync;
mod g07_recovery_may_crash;
mod g08_beside_a_writer;
mod g08_readers_see_durable_records;
mod g09_hostile_bytes;
mod g10_full_disk;
mod g11_destroys_nothing;
mod manual_writes_behind;
mod mutants;
mod opening;
mod space_ahead_and_behind;
mod worlds;
