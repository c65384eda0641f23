//! Which unsynced changes a power loss keeps.
//!
//! Pure: from the pending changes and a [`Loss`] to one decision per change. It does not know what
//! applying a change means.
//!
//! Invariant: of the directory changes that touch one name, those kept are always the earlier ones, and a
//! rename into another directory is kept only together with that directory. So applying the kept ones in
//! order never meets a name in a state that it never had, and a renamed file is never without a name.
//! Changes of different names, and changes of files' bytes, are independent: no disk promises more.

use std::collections::BTreeSet;

use super::Capabilities;
use super::chance::{Chance, scramble};
use super::change::{Change, Entry};

/// What a power loss does with the changes that were not synced: the pending ones, numbered from 0 in the
/// order in which they were made, over all files and directories
/// ([`SimDisk::pending`](super::SimDisk::pending) says how many there are).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Loss {
    /// Drops them all.
    Nothing,
    /// Keeps them all.
    Everything,
    /// Keeps the first n.
    Prefix(usize),
    /// Keeps all but this one; the directory changes that rest on a dropped one fall with it (a rename
    /// of the file whose creation is dropped).
    DropOne(usize),
    /// Keeps all, but of this write only some of its sectors, by the disk's seed; never all of
    /// them. Where this one is not a write: as `DropOne`.
    TearOne(usize),
    /// Of every write keeps all, nothing, or each sector by itself; every other change by itself,
    /// all by this seed. A kept directory change keeps the earlier ones that it rests on. What a file that
    /// was made longer shows without the bytes, [`UnwrittenBytes`](super::UnwrittenBytes) says.
    Seeded(u64),
}

/// The decision on one change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keep {
    No,
    Whole,
    /// Each sector of a write by itself; `spoilt`: at least one of them is lost.
    Sectors {
        seed: u64,
        spoilt: bool,
    },
}

pub(super) fn decide(loss: Loss, pending: &[Change], capabilities: Capabilities, salt: u64) -> Vec<Keep> {
    let whole = |keep: bool| if keep { Keep::Whole } else { Keep::No };
    let all_but = |one: usize| {
        let mut kept: Vec<bool> = (0..pending.len()).map(|index| index != one).collect();
        drop_dependents(pending, &mut kept, capabilities);
        kept.into_iter().map(whole).collect::<Vec<_>>()
    };
    match loss {
        Loss::Nothing => vec![Keep::No; pending.len()],
        Loss::Everything => vec![Keep::Whole; pending.len()],
        Loss::Prefix(count) => (0..pending.len()).map(|index| whole(index < count)).collect(),
        Loss::DropOne(one) => all_but(one),
        Loss::TearOne(one) => {
            if !matches!(pending.get(one), Some(Change::Write { .. })) {
                return all_but(one);
            }
            let seed = scramble(salt ^ scramble(one as u64));
            let torn = |index| if index == one { Keep::Sectors { seed, spoilt: true } } else { Keep::Whole };
            (0..pending.len()).map(torn).collect()
        }
        Loss::Seeded(seed) => seeded(seed, pending, capabilities),
    }
}

fn seeded(seed: u64, pending: &[Change], capabilities: Capabilities) -> Vec<Keep> {
    let mut chance = Chance::new(scramble(seed ^ 0x10_55));
    let mut decisions: Vec<Keep> = pending
        .iter()
        .map(|change| match (change, chance.below(4)) {
            (_, 0) => Keep::No,
            (_, 1) => Keep::Whole,
            // Large writes would hardly ever be kept or lost whole if each sector were always by itself.
            (Change::Write { .. }, _) => Keep::Sectors { seed: chance.next(), spoilt: false },
            (_, 2) => Keep::No,
            _ => Keep::Whole,
        })
        .collect();
    let mut kept: Vec<bool> = pending
        .iter()
        .zip(&decisions)
        .map(|(change, keep)| change.is_naming() && *keep != Keep::No)
        .collect();
    keep_foundations(pending, &mut kept, capabilities);
    for ((decision, keep), change) in decisions.iter_mut().zip(kept).zip(pending) {
        if change.is_naming() && keep {
            *decision = Keep::Whole;
        }
    }
    decisions
}

/// Marks the directory changes that the marked ones rest on.
pub(super) fn keep_foundations(pending: &[Change], kept: &mut [bool], capabilities: Capabilities) {
    let mut names = BTreeSet::new();
    let mut directories = BTreeSet::new();
    let mut later_kept = false;
    for (change, keep) in pending.iter().zip(kept.iter_mut()).rev() {
        if !change.is_naming() {
            continue;
        }
        let created = match change {
            Change::Create { entry: Entry::Directory(id), .. } => Some(*id),
            _ => None,
        };
        let is_home = created.is_some_and(|id| directories.contains(&id));
        let in_order = capabilities.directory_operations_in_order && later_kept;
        let touched = change.names();
        if !*keep && !is_home && !in_order && !touched.clone().any(|name| names.contains(name)) {
            continue;
        }
        *keep = true;
        later_kept = true;
        names.extend(touched);
        directories.extend(change.moves_into());
        // The home of a moved file must itself be found: up to the root.
        if is_home && let Some((parent, _)) = change.names().next() {
            directories.insert(*parent);
        }
    }
}

/// Unmarks the directory changes that rest on unmarked ones.
fn drop_dependents(pending: &[Change], kept: &mut [bool], capabilities: Capabilities) {
    let mut names = BTreeSet::new();
    let mut directories = BTreeSet::new();
    let mut earlier_dropped = false;
    for (change, keep) in pending.iter().zip(kept.iter_mut()) {
        if !change.is_naming() {
            continue;
        }
        let touched = change.names();
        let homeless = change.moves_into().is_some_and(|id| directories.contains(&id));
        let in_order = capabilities.directory_operations_in_order && earlier_dropped;
        let fallen = !*keep || homeless || in_order || touched.clone().any(|name| names.contains(name));
        if let Change::Create { parent: (parent, _), entry: Entry::Directory(id) } = change
            && (fallen || directories.contains(parent))
        {
            directories.insert(*id);
        }
        if fallen {
            *keep = false;
            earlier_dropped = true;
            names.extend(touched);
        }
    }
}
