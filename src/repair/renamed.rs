//! Stores that lie under each other's names.
//!
//! It owns a view of a disk ([`Renamed`]) on which each such store has the name that its head says, so that
//! whatever looks or copies finds it there. It passes everything else on. Invariant: a store counts as
//! another segment's only where what has a checksum that names the segment says so (its base sector, under a head that
//! says the same, or its frames), and where that segment's own name does not hold the segment already.
//!
//! Why a view and not renaming first: until the plan is accepted nothing is changed.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::disk::{self, Background, DirectoryEntry, Disk, DiskFile, LockAttempt, OpenMode};
use crate::error::Result;
use crate::frame::Seed;
use crate::names;
use crate::recovery::{Listing, sectors};
use crate::scan::{self, Extent};
use crate::store::{FIRST_FRAME, FileSource};

/// By segment: the id in the name that its store has.
pub(super) type Misnamed = BTreeMap<u64, u64>;

/// How much of a store is looked at to find whose frames it holds.
const LOOK_BYTES: u64 = 1 << 20;
/// At most so many stores without a head of their own are held against so many segments without a store.
const MOST_TRIES: usize = 4096;

/// Finds the stores of the log `uuid` that lie under another segment's name; `ids` are the segments that are
/// known of.
pub(super) fn find(
    disk: &dyn Disk,
    directory: &Path,
    listing: &Listing,
    uuid: &[u8; 16],
    ids: &BTreeSet<u64>,
) -> Result<Misnamed> {
    // Which segment each file holds, by its name.
    let mut holds: BTreeMap<u64, u64> = BTreeMap::new();
    let mut nameless = Vec::new();
    for (name, length) in &listing.stores {
        let found = sectors(disk, directory, *name, Seed::of_segment(uuid, *name))?;
        let head = found.head().filter(|head| head.uuid == *uuid);
        let by_head = match head {
            Some(head) if head.id == *name => true,
            // The base sector's checksum holds for the segment that it was written for.
            Some(head) => {
                let own = sectors(disk, directory, *name, Seed::of_segment(uuid, head.id))?;
                own.base().is_some() || has_frames(disk, directory, *name, *length, uuid, head.id)
            }
            None => false,
        };
        match head.filter(|_| by_head) {
            Some(head) => {
                holds.insert(*name, head.id);
            }
            // A head that is gone, or another's: what the file holds says whose it is.
            None if has_frames(disk, directory, *name, *length, uuid, *name) => {
                holds.insert(*name, *name);
            }
            None => nameless.push((*name, *length)),
        }
    }
    let held: BTreeSet<u64> = holds.values().copied().collect();
    let wanted: Vec<u64> = ids.iter().copied().filter(|id| !held.contains(id)).collect();
    if nameless.len().saturating_mul(wanted.len()) <= MOST_TRIES {
        for (name, length) in nameless {
            let whose = wanted.iter().find(|id| has_frames(disk, directory, name, length, uuid, **id));
            holds.extend(whose.map(|id| (name, *id)));
        }
    }
    let mut misnamed = Misnamed::new();
    for (name, id) in &holds {
        if name != id && holds.get(id) != Some(id) {
            misnamed.entry(*id).or_insert(*name);
        }
    }
    Ok(misnamed)
}

/// Whether the store that lies under `name` holds frames of segment `id`, near its beginning.
fn has_frames(disk: &dyn Disk, directory: &Path, name: u64, length: u64, uuid: &[u8; 16], id: u64) -> bool {
    let path = directory.join(names::store(name));
    let Ok(file) = disk::retry_interrupted(|| disk.open(&path, OpenMode::Read)) else { return false };
    let extent = Extent {
        seed: Seed::of_segment(uuid, id),
        start: FIRST_FRAME,
        end: length.min(LOOK_BYTES),
        base: None,
        ordinal_end: None,
    };
    let outcome = scan::scan(&FileSource { file: file.as_ref(), length }, &extent, |_| {});
    outcome.runs.iter().any(|run| !run.ordinals.is_empty())
}

/// A disk on which misnamed stores have their own names.
#[derive(Debug)]
pub(super) struct Renamed<'a> {
    inner: &'a dyn Disk,
    directory: PathBuf,
    misnamed: &'a Misnamed,
    /// The names that hold another segment's store.
    taken: BTreeSet<u64>,
}

impl<'a> Renamed<'a> {
    pub(super) fn new(inner: &'a dyn Disk, directory: &Path, misnamed: &'a Misnamed) -> Renamed<'a> {
        Renamed {
            inner,
            directory: directory.to_path_buf(),
            misnamed,
            taken: misnamed.values().copied().collect(),
        }
    }

    /// The path that a store really has.
    fn real(&self, path: &Path) -> Option<PathBuf> {
        let inside = path.parent() == Some(self.directory.as_path());
        let name = path.file_name().and_then(|name| name.to_str()).filter(|_| inside);
        let Some(id) = name.and_then(names::id_of_store) else { return Some(path.to_path_buf()) };
        match self.misnamed.get(&id) {
            Some(name) => Some(self.directory.join(names::store(*name))),
            // Its name holds another segment's store: its own is not there.
            None if self.taken.contains(&id) => None,
            None => Some(path.to_path_buf()),
        }
    }
}

impl Disk for Renamed<'_> {
    fn list(&self, path: &Path) -> io::Result<Vec<DirectoryEntry>> {
        let mut entries = self.inner.list(path)?;
        if path == self.directory {
            let id = |entry: &DirectoryEntry| names::id_of_store(&entry.name);
            let lengths: BTreeMap<u64, u64> =
                entries.iter().filter_map(|entry| Some((id(entry)?, entry.length))).collect();
            entries.retain(|entry| id(entry).is_none_or(|id| !self.taken.contains(&id)));
            entries.extend(self.misnamed.iter().filter_map(|(id, name)| {
                let length = *lengths.get(name)?;
                Some(DirectoryEntry { name: names::store(*id), is_directory: false, length })
            }));
            entries.sort_by(|one, other| one.name.cmp(&other.name));
        }
        Ok(entries)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.real(path).map_or(Ok(false), |path| self.inner.exists(&path))
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        match self.real(path) {
            Some(path) => self.inner.open(&path, mode),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.inner.create_dir(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.inner.sync_dir(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.inner.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.inner.remove(path)
    }

    fn lock(&self, path: &Path) -> io::Result<LockAttempt> {
        self.inner.lock(path)
    }

    fn now_millis(&self) -> u64 {
        self.inner.now_millis()
    }

    fn random(&self) -> u64 {
        self.inner.random()
    }

    fn process_id(&self) -> u32 {
        self.inner.process_id()
    }

    fn background(&self) -> Background {
        self.inner.background()
    }
}
