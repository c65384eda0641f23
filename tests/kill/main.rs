//! `kill -9` of a real process in every phase of its work, on real filesystems; and what is nearest to
//! it: a disk that is full, and a disk that stops.
//!
//! The parent starts this test binary anew as a child, which works on a log and says through a pipe what
//! it is about to do and what was acknowledged. The pipe survives the kill. Then the parent opens the
//! log and holds it against what was said:
//!
//! - G1: every acknowledged record is at its offset, byte for byte (unless truncated since);
//! - G2: offsets are dense, each thread's records stand in its order without a gap, and every record
//!   is one that somebody began to append;
//! - G3: a batch is all there or not at all;
//! - G4: no acknowledged truncation is undone, and none happens that nobody asked for;
//! - G7: what one opening served, every later one serves, though openings are killed too;
//! - G10: a full disk is said to be full, and opens, and goes on when space is back;
//! - acknowledged metadata is there.
//!
//! Three kinds of end:
//!
//! - [`rounds`]: SIGKILL. The page cache stays, so this shows what the order of calls leaves, not
//!   whether they were fsynced.
//! - [`full_disk`]: SIGKILL on a filesystem without space (a small tmpfs, a small ext4).
//! - [`power`]: the filesystem itself stops, and with it goes all that was not fsynced, as in a power
//!   cut; but what reached the device stays, so that a flush that the device was not sent is not missed
//!   there. That, and sectors torn and reordered, is what the simulated disk is for (tests/worlds).
//!
//! The last two need to mount filesystems. They do so in a mount namespace of their own, which
//! goes with its last process; where the machine does not allow it they are skipped, and say so.
//!
//! To come, as one more [`phase`]: `Log::snapshot`. (`log-repair repair` and `undo` are struck before each of
//! their system calls in `recovery/tests/kill.rs`.)
//!
//! `STONELOG_KILL_ROUNDS=500 cargo test --test kill` goes on longer; `STONELOG_KILL_SEED` repeats a
//! run's choices (the moments of the kills are as random as the machine); `STONELOG_SMALL_DISK` names a
//! directory on a small filesystem to be filled too. What fails is kept.

#![cfg(unix)]
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "it watches the log from outside: other processes, copies of its files, a clock for random kills"
)]
#![allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a test"
)]

mod check;
mod child;
mod dice;
mod full_disk;
mod holder;
mod machine;
mod model;
mod parent;
mod phase;
mod power;
mod record;
mod rounds;
mod said;
mod scratch;
mod small_disk;

#[test]
#[ignore = "the child process of the other tests; does nothing by itself"]
fn child() {
    child::main();
}
