//! G9: no bytes, however hostile, cause a panic, a hang, memory beyond a stated bound, or wrong data.
//!
//! What the fuzz targets of `tests/fuzz` do, done here with what is committed: their seeds, inputs
//! that proptest makes, and stores crafted against the scanner. Memory is counted by an allocator
//! of this binary's own, work by what is read and hashed; nothing is timed.
#![allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    clippy::disallowed_methods,
    reason = "tests: a failed expectation is how they speak"
)]

mod craft;
mod memory;
#[path = "../support/property.rs"]
mod property;
mod replay;
#[path = "../fuzz/src/lib.rs"]
#[allow(unused, reason = "shared with the fuzz targets, of which this binary needs a part")]
mod shared;
mod work;
