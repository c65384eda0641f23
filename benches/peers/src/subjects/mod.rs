//! Every peer, one file each; this file only lists them.

pub mod stonelog;

use crate::subject::Kind;

/// All kinds that this build has, Stonelog first.
pub fn all() -> Vec<&'static dyn Kind> {
    vec![&stonelog::Stonelog]
}
