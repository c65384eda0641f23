//! Recovery: what an opening, `log-repair` and a read-only reader do with what a crash left.
//!
//! One mechanism, in three steps that know nothing of each other's insides: [`inspect()`] (reads
//! only, by pread) gives [`Findings`]; [`plan()`] (pure) turns findings and a policy into a
//! [`Plan`]; `apply` carries it out, and may crash anywhere and be begun again. [`verdict`] (pure)
//! tells a tear from damage.
//!
//! Invariants: nothing is removed, cut or appended to before the fresh MANIFEST that no longer
//! needs it is durable; what is cut stays beyond a seal or goes to `quarantine/`.

pub(crate) mod apply;
mod damage;
mod findings;
mod inspect;
mod parallel;
mod plan;
mod report;
pub mod verdict;

pub use findings::{Findings, Listing, SegmentFindings, StoreFindings, UnnamedStore};
pub use inspect::{Depth, inspect};
pub use plan::{Copy, CopyPiece, Moved, Plan, Planned, plan};
pub use report::{CutTail, Recovery};

pub(crate) use inspect::{find_positions, inspect_as, list, position_behind, sectors};
pub(crate) use plan::copy_is_named;
pub(crate) use plan::{Thrift, check_end, lost_edit, plan_with, reach_beyond, standing_damage};
