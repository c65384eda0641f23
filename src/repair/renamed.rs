//! Stores that lie under each other's names.
//!
//! It owns a view of a disk ([`Renamed`]) on which each such store has the name that its head says, so that
//! whatever looks or copies finds it there. It passes everything else on. Invariant: a store counts as
//! another segment's only where its head and its base sector, whose checksum names the segment, both say so,
//! and where that segment's own name does not hold the segment already.
//!
//! Why a view and not renaming first: until the plan is accepted nothing is changed.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::disk::{Background, DirectoryEntry, Disk, DiskFile, LockAttempt, OpenMode};
use crate::error::Result;
use crate::frame::Seed;
use crate::names;
use crate::recovery::{Listing, sectors};

/// By segment: the id in the name that its store has.
pub(super) type Misnamed = BTreeMap<u64, u64>;

/// Finds the stores of the log `uuid` that lie under another segment's name.
pub(super) fn find(
    disk: &dyn Disk,
    directory: &Path,
    listing: &Listing,
    uuid: &[u8; 16],
) -> Result<Misnamed> {
    let mut holds = BTreeMap::new();
    for id in listing.stores.keys() {
        let found = sectors(disk, directory, *id, Seed::of_segment(uuid, *id))?;
        let Some(head) = found.head().filter(|head| head.uuid == *uuid) else { continue };
        // The base sector's checksum holds for the segment that it was written for.
        let own = sectors(disk, directory, *id, Seed::of_segment(uuid, head.id))?;
        if head.id == *id || own.base().is_some() {
            holds.insert(*id, head.id);
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

/// A disk on which misnamed stores have their own names.
#[derive(Debug)]
pub(super) struct Renamed<'a> {
    inner: &'a dyn Disk,
    directory: PathBuf,
    misnamed: &'a Misnamed,
}

impl<'a> Renamed<'a> {
    pub(super) fn new(inner: &'a dyn Disk, directory: &Path, misnamed: &'a Misnamed) -> Renamed<'a> {
        Renamed { inner, directory: directory.to_path_buf(), misnamed }
    }

    /// The path that a store really has.
    fn real(&self, path: &Path) -> Option<PathBuf> {
        let inside = path.parent() == Some(self.directory.as_path());
        let name = path.file_name().and_then(|name| name.to_str()).filter(|_| inside);
        let Some(id) = name.and_then(names::id_of_store) else { return Some(path.to_path_buf()) };
        match self.misnamed.get(&id) {
            Some(name) => Some(self.directory.join(names::store(*name))),
            // Its name holds another segment's store: its own is not there.
            None if self.misnamed.values().any(|name| *name == id) => None,
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
            entries
                .retain(|entry| id(entry).is_none_or(|id| !self.misnamed.values().any(|name| *name == id)));
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
