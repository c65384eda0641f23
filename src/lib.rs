#![doc = include_str!("../README.md")]
//!
//! # The layers
//!
//! record ([`frame`]), store, index, segment, log; around them the write-ahead [`manifest`], the
//! [`recovery`] that cuts torn tails and finds damage, and the [`disk`] seam below everything.
//! docs/ARCHITECTURE.md draws the house, docs/GUARANTEES.md says what is promised.

mod background;
#[cfg(feature = "_bench")]
#[doc(hidden)]
pub mod bench;
mod builder;
pub mod carve;
mod commit;
mod directory;
pub mod disk;
mod dropped;
mod error;
pub mod frame;
mod group;
mod index;
mod log;
pub mod manifest;
#[cfg(feature = "_mutants")]
#[doc(hidden)]
pub mod mutant;
#[cfg(not(feature = "_mutants"))]
#[allow(dead_code, unreachable_pub, reason = "only the tests, with the feature, use all of it")]
mod mutant;
pub mod names;
mod open;
mod options;
#[cfg(test)]
#[path = "../tests/support/property.rs"]
#[allow(unreachable_pub, reason = "shared with the tests outside of the library")]
mod property;
mod reader;
pub mod recovery;
pub mod repair;
pub mod scan;
mod segment;
mod segment_writer;
mod signal;
mod stats;
pub mod store;
mod structure;
mod sync;
mod table;
mod ticket;
mod writer;

pub use builder::{Built, LogBuilder};
pub use error::{Damage, Error, Result};

pub use log::Log;
pub use options::{
    DamagePolicy, Durability, MAX_BATCH_BYTES, MAX_OFFSET, MAX_SEGMENT_BYTES, MIN_SEGMENT_BYTES, Options,
    ReadMode,
};
pub use reader::{Reader, Record, RecordRef, Records};
pub use recovery::Recovery;
pub use stats::{SegmentInfo, Stats};
pub use ticket::Ticket;
