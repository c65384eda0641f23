//! Repair: what `log-repair` does to a log that an opening refuses, and how it is taken back.
//!
//! It stands on recovery's three steps and makes them deeper: [`survey()`] (reads only) looks at every
//! byte, and where the MANIFEST is no help it finds out from the stores what they are part of; [`plan()`]
//! (pure) says what will be done and exactly which acknowledged records are lost by it; a [`Session`]
//! (under the lock) does it, resumes it, or takes it back. `log-repair` shows all this to people.
//!
//! Invariants: no byte of a file that was there is ever changed: what a repair replaces or takes out is
//! *moved* into `repair/`, and what it puts in its place was written and fsynced beside it before. So a
//! repair that is killed before its journal has changed nothing, one that is killed after it goes on
//! from there and ends in the same state, and undoing it moves the same files back, byte for byte. No
//! acknowledged record is given up unless the caller named its offset.
//!
//! Why not to cut and patch in place, after a copy of what is cut: it takes as much space as a
//! replacement, it needs an undo record that is right about every byte, and rewriting a file of which
//! the page cache may know more than the disk is what section 4 of the design forbids.

mod action;
mod journal;
mod plan;
mod rebuild;
mod record;
mod renamed;
mod session;
mod stage;
mod survey;

pub use action::{Action, Loss, LossRefused};
pub use plan::{Plan, plan};
pub use record::{Pending, pending};
pub use session::{Done, Session, Undone, undoable};
pub use survey::{Basis, Mend, Rebuilt, Survey, survey};

pub(crate) use record::refuse_unfinished;
