//! Mutants: builds that are broken on purpose, so that the tests can be tested.
//!
//! It owns the list of ways to break the engine, each one rule left out, and the switch that says which
//! one is on. It does not know what the rules are for: the place that asks [`on`] does. At most one
//! mutant is on, for the life of the process, named by the environment variable `STONELOG_MUTANT`.
//!
//! Invariant: without the feature `_mutants`, which only Stonelog's own tests switch on, [`on`] is a
//! constant `false` and every mutant is compiled away.
//!
//! Why a switch and not patches of the source: one build holds them all, so that the suite can be run
//! against each in seconds, and a mutant cannot rot unnoticed as the code around it moves.

macro_rules! mutants {
    ($($variant:ident $name:literal $what:literal,)*) => {
        /// One rule left out.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Mutant {
            $(#[doc = $what] $variant,)*
        }

        impl Mutant {
            /// All of them.
            pub const ALL: &'static [Mutant] = &[$(Mutant::$variant,)*];

            /// The name that `STONELOG_MUTANT` takes.
            pub const fn name(self) -> &'static str {
                match self { $(Mutant::$variant => $name,)* }
            }

            /// What is broken, in words.
            pub const fn what(self) -> &'static str {
                match self { $(Mutant::$variant => $what,)* }
            }
        }
    };
}

mutants! {
    AckBeforeFsync "ack-before-fsync" "a commit is acknowledged, and its stores are not fsynced",
    EarlierStoreUnsynced "earlier-store-unsynced" "the durable end is published past an earlier store that is not fsynced",
    FsyncErrorSplit "fsync-error-split" "the fsync is done outside the leader's lock: two callers split one error",
    PoisonForgotten "poison-forgotten" "a failed fsync is told to those who wait, and then forgotten",
    CutUnsynced "cut-unsynced" "what a failed write left is cut, and the cut is not fsynced before new frames",
    UndurableVisible "undurable-visible" "readers are shown records that are not durable",
    StoreNameUnsynced "store-name-unsynced" "a new store's directory entry is not fsynced before its Create",
    StoreHeadUnsynced "store-head-unsynced" "a new store's head is not fsynced before its Create",
    ParentUnsynced "parent-unsynced" "the log directory's own entry in its parent is not fsynced",
    EditUnsynced "edit-unsynced" "an edit is acknowledged, and the MANIFEST is not fsynced",
    ManifestNameUnsynced "manifest-name-unsynced" "files are removed before the directory fsync of the fresh MANIFEST",
    ManifestUnsynced "manifest-unsynced" "appends are taken before the fresh MANIFEST is durable",
    ManifestTrusted "manifest-trusted" "recovery acts on what the old MANIFEST says without writing it anew",
    ManifestContinued "manifest-continued" "recovery appends its edits to a MANIFEST that this process did not write",
    FilesBeforeEdit "files-before-edit" "a truncation removes files before its edit",
    FrontWithoutEdit "front-without-edit" "a truncation of the front without its edit",
    BackWithoutEdit "back-without-edit" "a truncation of the back whose edits are not written",
    DurableEndKept "durable-end-kept" "truncate_back does not lower the durable end",
    StaleSeal "stale-seal" "a Seal is decided before a truncation and written after it",
    IdsReused "ids-reused" "a fresh MANIFEST forgets the highest id ever named, and ids are used again",
    CloseWhenPoisoned "close-when-poisoned" "a Close is written though the log is poisoned",
    CloseBeforeCommit "close-before-commit" "a Close is written before everything is durable",
    OldFileContinued "old-file-continued" "recovery goes on in the file that was open, instead of copying what is not proven",
    CopyUnsynced "copy-unsynced" "recovery names its copy before it is fsynced",
    CopyProofForgotten "copy-proof-forgotten" "the base of a leftover copy is not taken as proof",
    CutDiscarded "cut-discarded" "recovery removes a store whose bytes are in no copy, instead of moving it to quarantine",
    WatermarksIgnored "watermarks-ignored" "watermarks in frames are not taken as proof",
    NoLagTakenAsProof "no-lag-taken-as-proof" "a lag that says nothing is taken as proof",
    SearchOmitted "search-omitted" "the scan stops at the first gap",
    BatchEndUnchecked "batch-end-unchecked" "the valid end may lie inside a batch",
    UnnamedStoreRemoved "unnamed-store-removed" "an unnamed store that holds acknowledged frames is removed",
    ChecksumUnseeded "checksum-unseeded" "checksums are not seeded: a frame of another segment or log is valid",
    OrdinalUnchecked "ordinal-unchecked" "a read trusts the index, and does not check the frame's ordinal",
    IndexUnchecked "index-unchecked" "an index is trusted: neither its checksum nor the ordinal of the frame that it leads to is checked",
    ReadUnverified "read-unverified" "reads do not verify the payload's checksum",
    NoSpareKept "no-spare-kept" "records are accepted without the space to recover them",
    RepairStageUnsynced "repair-stage-unsynced" "what a repair puts in is not fsynced before its journal is written",
    RepairJournalUnsynced "repair-journal-unsynced" "a repair moves files before its journal's name is fsynced",
    RepairMovesUnsynced "repair-moves-unsynced" "a repair puts files in before it is durable that the old ones are out",
    RepairSealUnsynced "repair-seal-unsynced" "a repair seals stores beyond what was proven, and does not write them anew",
    RepairMovedOver "repair-moved-over" "what has the name of a file that a repair puts in is not moved out first",
    RepairBaseGuessed "repair-base-guessed" "a lost base is taken from the end of whatever store comes before",
    RepairLossUnnamed "repair-loss-unnamed" "records are given up that nobody named",
    RepairUndoUnchecked "repair-undo-unchecked" "a repair is taken back though the log was written to since",
    RepairUndoUnkept "repair-undo-unkept" "an undo goes on though a file that it would put back is gone",
    RepairOpenUnrefused "repair-open-unrefused" "a half repaired log opens",
    RepairLostMissed "repair-lost-missed" "records that a repair gave up are missed once more",
    RepairWithoutClose "repair-without-close" "a repaired log does not say where it ended",
}

/// Whether this mutant is on.
#[cfg(feature = "_mutants")]
pub fn on(mutant: Mutant) -> bool {
    use std::sync::OnceLock;
    static ON: OnceLock<Option<Mutant>> = OnceLock::new();
    let chosen = ON.get_or_init(|| {
        let name = std::env::var("STONELOG_MUTANT").ok()?;
        Mutant::ALL.iter().copied().find(|mutant| mutant.name() == name)
    });
    *chosen == Some(mutant)
}

/// Whether this mutant is on: never.
#[cfg(not(feature = "_mutants"))]
pub(crate) const fn on(_: Mutant) -> bool {
    false
}
