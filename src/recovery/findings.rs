//! What an inspection saw, before anybody judged it.
//!
//! It owns plain data: a listing of the directory, the manifest as read, and for each store what
//! its two sectors and its frames say. Invariant: a finding is an observation; conclusions are
//! `verdict`'s and `plan`'s.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::frame::Seed;
use crate::manifest::{Reading, SegmentState};
use crate::scan::Outcome;
use crate::store::{self, Head};

/// The names in a log directory.
#[derive(Debug, Clone, Default)]
pub struct Listing {
    /// Whether the directory exists.
    pub exists: bool,
    /// Whether there is a MANIFEST.
    pub manifest: bool,
    /// Stores by segment id, with their lengths in bytes.
    pub stores: BTreeMap<u64, u64>,
    /// Indexes by segment id, with their lengths in bytes.
    pub indexes: BTreeMap<u64, u64>,
    /// Files that a crash left half-made under a temporary name.
    pub temporary: Vec<String>,
    /// Names that are not Stonelog's: left alone.
    pub strange: Vec<String>,
    /// Files in `quarantine/`.
    pub quarantined: Vec<String>,
    /// Names in `repair/`: one directory for each repair, by number.
    pub repairs: Vec<String>,
}

/// A store file as found.
#[derive(Debug, Clone)]
pub enum StoreFindings {
    /// The manifest names it, the directory does not.
    Missing,
    /// It could not be opened.
    Unreadable {
        /// What the disk said.
        why: String,
    },
    /// It is there, and was not looked into.
    Listed {
        /// Its length in bytes.
        length: u64,
    },
    /// It is there, and its sectors were read.
    Present {
        /// Its length in bytes.
        length: u64,
        /// Its head, where that is what was written.
        head: Option<Head>,
        /// Its base sector's offset, where that is what was written.
        base: Option<u64>,
    },
}

impl StoreFindings {
    /// What a store's first two sectors say, for a store of `length` bytes that should be segment
    /// `id` of the log `uuid`: for who looks at stores without a manifest.
    pub fn of_sectors(length: u64, sectors: &[u8], uuid: &[u8; 16], id: u64) -> StoreFindings {
        let base = usize::try_from(store::BASE_POSITION)
            .ok()
            .and_then(|start| sectors.get(start..))
            .and_then(|sector| store::parse_base(sector, Seed::of_segment(uuid, id)));
        StoreFindings::Present { length, head: Head::parse(sectors), base }
    }

    /// The file's length, where there is a file.
    pub fn length(&self) -> Option<u64> {
        match self {
            StoreFindings::Listed { length } | StoreFindings::Present { length, .. } => Some(*length),
            StoreFindings::Missing | StoreFindings::Unreadable { .. } => None,
        }
    }

    /// The offset in the base sector, where it survived.
    pub fn base(&self) -> Option<u64> {
        match self {
            StoreFindings::Present { base, .. } => *base,
            _ => None,
        }
    }

    /// The head, where it survived.
    pub fn head(&self) -> Option<&Head> {
        match self {
            StoreFindings::Present { head, .. } => head.as_ref(),
            _ => None,
        }
    }
}

/// What was seen of a segment that the manifest names.
#[derive(Debug, Clone)]
pub struct SegmentFindings {
    /// Its id.
    pub id: u64,
    /// What the manifest says of it.
    pub state: SegmentState,
    /// Its base offset, where manifest, base sector or a sealed predecessor tell.
    pub base: Option<u64>,
    /// Its store file.
    pub store: StoreFindings,
    /// What its frames say, where they were scanned.
    pub scan: Option<Outcome>,
    /// Bytes that were scanned.
    pub scanned_bytes: u64,
    /// What is wrong with its index file, where that was checked (`None`: nothing).
    pub index_defect: Option<String>,
}

/// A store that the manifest does not name.
#[derive(Debug, Clone)]
pub struct UnnamedStore {
    /// The id in its name.
    pub id: u64,
    /// Its length in bytes.
    pub length: u64,
    /// Its head, where that is what was written.
    pub head: Option<Head>,
    /// Its base sector's offset, where that is what was written (looked for only above the manifest's last id).
    pub base: Option<u64>,
    /// Whether it holds a valid frame of this log (looked for only above the manifest's last id).
    pub has_frames: bool,
}

/// Everything an inspection saw.
#[derive(Debug, Clone)]
pub struct Findings {
    /// The log directory.
    pub directory: PathBuf,
    /// The directory's names.
    pub listing: Listing,
    /// The manifest.
    pub manifest: Reading,
    /// The segments that the manifest names, in order.
    pub segments: Vec<SegmentFindings>,
    /// The stores that it does not name.
    pub unnamed: Vec<UnnamedStore>,
    /// What `verdict` makes of the unsealed segments, where there is a whole manifest.
    pub assessment: Option<super::verdict::Assessment>,
}

impl Findings {
    /// The path of a segment's store.
    pub fn store_path(&self, id: u64) -> PathBuf {
        self.directory.join(crate::names::store(id))
    }

    /// Bytes that were scanned for all this.
    pub fn scanned_bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.scanned_bytes).sum()
    }
}
