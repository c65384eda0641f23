//! The simulated medium: names and bytes, each in the version that calls see (the cache) and in the one
//! that survives a power loss (durable), and the ordered list of changes between the two.
//!
//! It deliberately knows no handles' validity, no faults, no step counts and no locks: those belong to the
//! machine around it (`sim`). Which pending changes a power loss keeps is decided in `loss`, what they leave
//! of a file's bytes in `growth`.
//!
//! Invariants:
//! - a file has at most one name in the cache and at most one durable name, so a rename is old or new;
//! - applying all pending changes in order makes durable what is cached, except for what failed syncs
//!   forgot and what a lying device did not write, or wrote elsewhere;
//! - a pending write holds whole sectors, as they were in the cache just after it: what reaches the device
//!   is never a part of a sector;
//! - after a power loss, durable equals cached and nothing is pending.
//!
//! Why one list for all files and directories and not one each: a crash is a choice over all of them in
//! their order, and "the first n" has to mean something.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;
use std::path::{Component, Path};
use std::sync::Arc;

use super::capabilities::{Capabilities, UnwrittenBytes};
use super::chance::Digest;
use super::change::{Change, Entry, Name};
use super::content::{Content, PAGE};
use super::growth::{self, Growth, Recycled};
use super::loss::{Keep, Loss, decide, keep_foundations};
use crate::disk::DirectoryEntry;

pub(super) const ROOT: u64 = 0;

/// The most space the medium ever has, in pages (4 GiB): a bound on what a hostile length can take.
const MOST_PAGES: u64 = 1 << 20;

/// The longest a file can be, as on Linux.
const MOST_BYTES: u64 = u64::MAX >> 1;

#[derive(Debug, Clone, Default)]
pub(super) struct File {
    cache: Arc<Content>,
    pub(super) durable: Arc<Content>,
    /// Whether the cache names it.
    linked: bool,
    durable_name: Option<Name>,
    handles: u64,
    /// Ranges that the device cannot read any more.
    bad: Vec<Range<u64>>,
}

#[derive(Debug, Clone, Default)]
struct Directory {
    cache: BTreeMap<Arc<str>, Entry>,
    durable: BTreeMap<Arc<str>, Entry>,
}

#[derive(Debug, Clone)]
pub(super) struct Medium {
    pub(super) files: BTreeMap<u64, Arc<File>>,
    directories: BTreeMap<u64, Arc<Directory>>,
    pub(super) pending: Vec<Change>,
    next_id: u64,
    salt: u64,
    recycled: Recycled,
    pub(super) capacity: Option<u64>,
    pub(super) capabilities: Capabilities,
}

/// The names on the way from the root.
pub(super) fn components(path: &Path) -> Vec<Arc<str>> {
    let mut names = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => names.push(Arc::from(name.to_string_lossy())),
            Component::ParentDir => {
                names.pop();
            }
            Component::Prefix(_) | Component::RootDir | Component::CurDir => {}
        }
    }
    names
}

impl Medium {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            files: BTreeMap::new(),
            directories: BTreeMap::from([(ROOT, Arc::default())]),
            pending: Vec::new(),
            next_id: ROOT + 1,
            salt: seed,
            recycled: Recycled::default(),
            capacity: None,
            capabilities: Capabilities::default(),
        }
    }

    pub(super) fn pending(&self) -> usize {
        self.pending.len()
    }

    pub(super) fn pending_digest(&self) -> u64 {
        let mut digest = Digest::new();
        self.pending.iter().for_each(|change| change.digest(&mut digest));
        digest.finish()
    }

    // ---- names -------------------------------------------------------------------------------

    pub(super) fn find(&self, path: &Path) -> io::Result<Option<Entry>> {
        let names = components(path);
        let Some((name, way)) = names.split_last() else { return Ok(Some(Entry::Directory(ROOT))) };
        let parent = self.walk(way)?;
        Ok(self.directory(parent)?.cache.get(name).copied())
    }

    pub(super) fn find_file(&self, path: &Path) -> io::Result<u64> {
        match self.find(path)? {
            Some(Entry::File(file)) => Ok(file),
            Some(Entry::Directory(_)) => Err(io::ErrorKind::IsADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn find_directory(&self, path: &Path) -> io::Result<u64> {
        self.walk(&components(path))
    }

    /// Where a name is, or would be: its directory must exist.
    fn place(&self, path: &Path) -> io::Result<(Name, Option<Entry>)> {
        let mut names = components(path);
        let Some(name) = names.pop() else { return Err(io::ErrorKind::IsADirectory.into()) };
        let parent = self.walk(&names)?;
        let entry = self.directory(parent)?.cache.get(&name).copied();
        Ok(((parent, name), entry))
    }

    fn walk(&self, names: &[Arc<str>]) -> io::Result<u64> {
        names.iter().try_fold(ROOT, |at, name| match self.directory(at)?.cache.get(name) {
            Some(Entry::Directory(id)) => Ok(*id),
            Some(Entry::File(_)) => Err(io::ErrorKind::NotADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        })
    }

    pub(super) fn list(&self, path: &Path) -> io::Result<Vec<DirectoryEntry>> {
        let directory = self.directory(self.find_directory(path)?)?;
        let entry = |(name, entry): (&Arc<str>, &Entry)| {
            let (is_directory, length) = match entry {
                Entry::File(file) => (false, self.file(*file)?.cache.length()),
                Entry::Directory(_) => (true, 0),
            };
            Ok(DirectoryEntry { name: name.to_string(), is_directory, length })
        };
        directory.cache.iter().map(entry).collect()
    }

    pub(super) fn create_dir(&mut self, path: &Path) -> io::Result<()> {
        if components(path).is_empty() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let id = self.next_id;
        self.create(path, Entry::Directory(id))?;
        self.directories.insert(id, Arc::default());
        Ok(())
    }

    pub(super) fn create_file(&mut self, path: &Path) -> io::Result<u64> {
        let id = self.next_id;
        self.create(path, Entry::File(id))?;
        self.files.insert(id, Arc::new(File { linked: true, ..File::default() }));
        Ok(id)
    }

    fn create(&mut self, path: &Path, entry: Entry) -> io::Result<()> {
        let (parent, taken) = self.place(path)?;
        if taken.is_some() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        self.directory_mut(parent.0)?.cache.insert(Arc::clone(&parent.1), entry);
        self.pending.push(Change::Create { parent, entry });
        self.next_id += 1;
        Ok(())
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let (from, moved) = self.place(from)?;
        let (to, replaced) = self.place(to)?;
        let file = match (moved, replaced) {
            (None, _) => return Err(io::ErrorKind::NotFound.into()),
            // Only files are renamed here: the trait promises no more, and a moved directory would make
            // "who is durably where" a question about whole trees.
            (Some(Entry::Directory(_)), _) | (_, Some(Entry::Directory(_))) => {
                return Err(io::ErrorKind::IsADirectory.into());
            }
            (Some(Entry::File(file)), _) => file,
        };
        if from == to {
            return Ok(());
        }
        self.directory_mut(from.0)?.cache.remove(&from.1);
        self.directory_mut(to.0)?.cache.insert(Arc::clone(&to.1), Entry::File(file));
        if let Some(Entry::File(replaced)) = replaced {
            self.file_mut(replaced)?.linked = false;
        }
        self.pending.push(Change::Rename { file, from, to });
        Ok(())
    }

    pub(super) fn remove(&mut self, path: &Path) -> io::Result<()> {
        let (from, entry) = self.place(path)?;
        let file = match entry {
            Some(Entry::File(file)) => file,
            Some(Entry::Directory(_)) => return Err(io::ErrorKind::IsADirectory.into()),
            None => return Err(io::ErrorKind::NotFound.into()),
        };
        self.directory_mut(from.0)?.cache.remove(&from.1);
        self.file_mut(file)?.linked = false;
        self.pending.push(Change::Remove { file, from });
        Ok(())
    }

    pub(super) fn sync_dir(&mut self, path: &Path) -> io::Result<()> {
        let id = self.find_directory(path)?;
        let kept = self.pending.iter().map(|change| change.home() == Some(id)).collect();
        self.persist_marked(kept);
        Ok(())
    }

    // ---- bytes -------------------------------------------------------------------------------

    pub(super) fn length(&self, file: u64) -> io::Result<u64> {
        Ok(self.file(file)?.cache.length())
    }

    pub(super) fn read(&self, file: u64, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        let file = self.file(file)?;
        let behind = position.saturating_add(buffer.len() as u64);
        let bad = file.bad.iter().filter(|bad| bad.start < behind && position < bad.end);
        let Some(bad) = bad.map(|bad| bad.start).min() else { return Ok(file.cache.read(buffer, position)) };
        // As far as a device can read, it reads.
        match usize::try_from(bad.saturating_sub(position)).ok().filter(|count| *count > 0) {
            Some(count) => Ok(file.cache.read(buffer.get_mut(..count).unwrap_or_default(), position)),
            None => Err(io::Error::other("the simulated device cannot read here")),
        }
    }

    pub(super) fn set_bad(&mut self, file: u64, range: Range<u64>) -> io::Result<()> {
        self.file_mut(file)?.bad.push(range);
        Ok(())
    }

    pub(super) fn write(&mut self, file: u64, bytes: &[u8], position: u64) -> io::Result<usize> {
        let (count, change) = self.write_to_cache(file, bytes, position)?;
        self.pending.extend(change);
        Ok(count)
    }

    /// Makes a write visible; what would make it durable is returned, `None` where nothing was to be written.
    pub(super) fn write_to_cache(
        &mut self,
        file: u64,
        bytes: &[u8],
        position: u64,
    ) -> io::Result<(usize, Option<Change>)> {
        if bytes.is_empty() {
            return Ok((0, None));
        }
        let end = position
            .checked_add(bytes.len() as u64)
            .filter(|end| *end <= MOST_BYTES)
            .ok_or(io::ErrorKind::FileTooLarge)?;
        let fitting = self.file(file)?.cache.fitting(position, end, self.free_pages());
        let count = usize::try_from(fitting).unwrap_or(usize::MAX).min(bytes.len());
        let bytes = bytes.get(..count).unwrap_or(bytes);
        if bytes.is_empty() {
            return Err(full());
        }
        let sector = self.sector();
        let node = self.file_mut(file)?;
        let before = node.cache.length();
        let cache = Arc::make_mut(&mut node.cache);
        cache.write(position, bytes);
        let end = position + bytes.len() as u64;
        let first = position - position % sector;
        let beyond = end.div_ceil(sector).saturating_mul(sector);
        let mut image = vec![0; usize::try_from(beyond - first).unwrap_or(bytes.len())];
        cache.read(&mut image, first);
        let length = cache.length();
        let image = Arc::from(image);
        Ok((count, Some(Change::Write { file, position: first, image, length, before })))
    }

    pub(super) fn set_length(&mut self, file: u64, length: u64) -> io::Result<()> {
        if length > MOST_BYTES {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let node = self.file_mut(file)?;
        let before = node.cache.length();
        if before != length {
            Arc::make_mut(&mut node.cache).set_length(length);
            self.pending.push(Change::SetLength { file, length, before });
        }
        Ok(())
    }

    pub(super) fn reserve(&mut self, file: u64, length: u64) -> io::Result<()> {
        let free = self.free_pages();
        let node = self.file_mut(file)?;
        let missing = node.cache.missing(0, length);
        if missing > free {
            return Err(full());
        }
        let before = node.cache.length();
        if missing > 0 || before < length {
            Arc::make_mut(&mut node.cache).reserve(length);
            self.pending.push(Change::Reserve { file, length, before });
        }
        Ok(())
    }

    pub(super) fn sync(&mut self, file: u64) -> io::Result<()> {
        self.file(file)?;
        let names = self.capabilities.file_sync_persists_entry;
        let marked = |change: &Change| {
            change.writes_to() == Some(file) || (names && change.names_file() == Some(file))
        };
        let kept = self.pending.iter().map(marked).collect();
        self.persist_marked(kept);
        Ok(())
    }

    /// What a failed fsync leaves: pages marked clean that are not on the disk.
    pub(super) fn forget(&mut self, file: u64) {
        self.pending.retain(|change| change.writes_to() != Some(file));
    }

    // ---- handles and space -------------------------------------------------------------------

    pub(super) fn opened(&mut self, file: u64) -> io::Result<()> {
        self.file_mut(file)?.handles += 1;
        Ok(())
    }

    pub(super) fn closed(&mut self, file: u64) {
        if let Ok(node) = self.file_mut(file) {
            node.handles = node.handles.saturating_sub(1);
            if !node.linked && node.handles == 0 {
                self.bury();
            }
        }
    }

    pub(super) fn close_all(&mut self) {
        for node in self.files.values_mut() {
            if node.handles > 0 {
                Arc::make_mut(node).handles = 0;
            }
        }
        self.bury();
    }

    /// Space taken: by files that have a name or are open.
    pub(super) fn used_pages(&self) -> u64 {
        let alive = self.files.values().filter(|file| file.linked || file.handles > 0);
        alive.map(|file| file.cache.allocated()).sum()
    }

    fn free_pages(&self) -> u64 {
        let all = self.capacity.map_or(MOST_PAGES, |bytes| (bytes / PAGE).min(MOST_PAGES));
        all.saturating_sub(self.used_pages())
    }

    /// Forgets files that nothing can bring back: no name, no handle, no pending change of a name.
    fn bury(&mut self) {
        let lost = |file: &File| !file.linked && file.handles == 0 && file.durable_name.is_none();
        if !self.files.values().any(|file| lost(file)) {
            return;
        }
        let named: BTreeSet<u64> = self.pending.iter().filter_map(Change::names_file).collect();
        let keep = |id: &u64, file: &Arc<File>| !lost(file) || named.contains(id);
        self.retain_files(keep);
        let files = &self.files;
        self.pending.retain(|change| change.writes_to().is_none_or(|file| files.contains_key(&file)));
    }

    // ---- durability --------------------------------------------------------------------------

    /// Makes the marked changes durable, with the directory changes that they rest on.
    fn persist_marked(&mut self, mut kept: Vec<bool>) {
        keep_foundations(&self.pending, &mut kept, self.capabilities);
        let mut rest = Vec::new();
        for (change, keep) in std::mem::take(&mut self.pending).into_iter().zip(kept) {
            if keep {
                self.persist(&change);
            } else {
                rest.push(change);
            }
        }
        self.pending = rest;
        self.bury();
    }

    /// Applies one change to the durable version.
    fn persist(&mut self, change: &Change) {
        match change {
            Change::Write { file, .. } | Change::SetLength { file, .. } | Change::Reserve { file, .. } => {
                if let Some(durable) = self.durable_mut(*file) {
                    growth::apply(durable, change);
                }
            }
            Change::Create { parent, entry } => self.assign(parent, Some(*entry)),
            Change::Rename { file, from, to } => {
                self.assign(from, None);
                self.assign(to, Some(Entry::File(*file)));
            }
            Change::Remove { from, .. } => self.assign(from, None),
        }
    }

    /// Makes a durable name stand for `entry`, and a file stand under that name alone.
    fn assign(&mut self, name: &Name, entry: Option<Entry>) {
        if let Some(Entry::File(file)) = entry
            && let Some(old) = self.file(file).ok().and_then(|node| node.durable_name.clone())
            && let Ok(directory) = self.directory_mut(old.0)
        {
            directory.durable.remove(&old.1);
        }
        let Ok(directory) = self.directory_mut(name.0) else { return };
        let replaced = match entry {
            Some(entry) => directory.durable.insert(Arc::clone(&name.1), entry),
            None => directory.durable.remove(&name.1),
        };
        if let Some(Entry::File(replaced)) = replaced
            && let Ok(node) = self.file_mut(replaced)
        {
            node.durable_name = None;
        }
        if let Some(Entry::File(file)) = entry
            && let Ok(node) = self.file_mut(file)
        {
            node.durable_name = Some(name.clone());
        }
    }

    /// The cache is gone; what is left is what was durable, and what `loss` keeps of the rest.
    pub(super) fn lose_power(&mut self, loss: Loss) {
        let keeps = decide(loss, &self.pending, self.capabilities, self.salt);
        let mut growth = Growth::new(self.capabilities, loss, self.salt);
        for (change, keep) in std::mem::take(&mut self.pending).iter().zip(keeps) {
            match change.writes_to() {
                Some(file) => {
                    if keep != Keep::No
                        && let Some(durable) = self.durable_mut(file)
                    {
                        growth.apply(durable, change, keep);
                    }
                }
                None if keep == Keep::No => {}
                None => self.persist(change),
            }
        }
        let (files, directories) = self.durably_named();
        self.retain_files(|id, _| files.contains(id));
        for file in growth.stale_files() {
            if let Some(node) = self.files.get_mut(&file) {
                growth.fill(file, Arc::make_mut(&mut Arc::make_mut(node).durable), &self.recycled);
            }
        }
        self.directories.retain(|id, _| directories.contains(id));
        for node in self.files.values_mut() {
            // What needs no change stays shared with the disk that this one was forked from.
            if !node.linked || node.handles > 0 || !Arc::ptr_eq(&node.cache, &node.durable) {
                let node = Arc::make_mut(node);
                node.cache = Arc::clone(&node.durable);
                node.linked = true;
                node.handles = 0;
            }
        }
        for node in self.directories.values_mut() {
            if node.cache != node.durable {
                let node = Arc::make_mut(node);
                node.cache.clone_from(&node.durable);
            }
        }
    }

    /// Lets the other files go; their blocks may be found again in files that grow.
    fn retain_files(&mut self, keep: impl Fn(&u64, &Arc<File>) -> bool) {
        let recycled = &mut self.recycled;
        let remember = self.capabilities.unwritten_bytes == UnwrittenBytes::Stale;
        self.files.retain(|id, file| {
            let keep = keep(id, file);
            if !keep && remember {
                recycled.take(&file.durable);
            }
            keep
        });
    }

    /// All files and directories that the durable names lead to.
    fn durably_named(&self) -> (BTreeSet<u64>, BTreeSet<u64>) {
        let (mut files, mut directories) = (BTreeSet::new(), BTreeSet::from([ROOT]));
        let mut way = vec![ROOT];
        while let Some(directory) = way.pop() {
            let Some(directory) = self.directories.get(&directory) else { continue };
            for entry in directory.durable.values() {
                match entry {
                    Entry::File(file) => {
                        files.insert(*file);
                    }
                    Entry::Directory(id) => {
                        if directories.insert(*id) {
                            way.push(*id);
                        }
                    }
                }
            }
        }
        (files, directories)
    }

    // ---- at rest -----------------------------------------------------------------------------

    /// Makes everything pending durable.
    pub(super) fn settle(&mut self) {
        let kept = vec![true; self.pending.len()];
        self.persist_marked(kept);
    }

    pub(super) fn bytes(&self, path: &Path) -> Option<Vec<u8>> {
        self.file(self.find_file(path).ok()?).ok()?.cache.to_vec()
    }

    /// Changes a file's bytes, cached and durable, and no matter how much space there is.
    pub(super) fn change_at_rest(&mut self, file: u64, change: impl Fn(&mut Content)) -> io::Result<()> {
        let node = self.file_mut(file)?;
        change(Arc::make_mut(&mut node.cache));
        change(Arc::make_mut(&mut node.durable));
        Ok(())
    }

    pub(super) fn content(&self, file: u64) -> io::Result<Arc<Content>> {
        Ok(Arc::clone(&self.file(file)?.cache))
    }

    // ---- digests -----------------------------------------------------------------------------

    /// The hash of all names and bytes: of the durable ones or of the cached ones.
    pub(super) fn digest(&self, durable: bool) -> u64 {
        let mut digest = Digest::new();
        self.digest_directory(ROOT, durable, &mut digest);
        digest.finish()
    }

    fn digest_directory(&self, directory: u64, durable: bool, digest: &mut Digest) {
        // Directories are never moved, so this goes no deeper than the paths that the caller made.
        let Some(directory) = self.directories.get(&directory) else { return };
        let entries = if durable { &directory.durable } else { &directory.cache };
        digest.word(entries.len() as u64);
        for (name, entry) in entries {
            digest.bytes(name.as_bytes());
            match entry {
                Entry::Directory(id) => {
                    digest.word(1);
                    self.digest_directory(*id, durable, digest);
                }
                Entry::File(file) => {
                    digest.word(2);
                    if let Some(file) = self.files.get(file) {
                        let content = if durable { &file.durable } else { &file.cache };
                        content.digest(digest);
                    }
                }
            }
        }
    }

    // ---- nodes -------------------------------------------------------------------------------

    pub(super) fn sector(&self) -> u64 {
        self.capabilities.sector_bytes.max(1)
    }

    fn file(&self, id: u64) -> io::Result<&File> {
        self.files.get(&id).map(Arc::as_ref).ok_or_else(|| missing("file"))
    }

    fn file_mut(&mut self, id: u64) -> io::Result<&mut File> {
        self.files.get_mut(&id).map(Arc::make_mut).ok_or_else(|| missing("file"))
    }

    pub(super) fn durable_mut(&mut self, id: u64) -> Option<&mut Content> {
        self.file_mut(id).ok().map(|file| Arc::make_mut(&mut file.durable))
    }

    fn directory(&self, id: u64) -> io::Result<&Directory> {
        self.directories.get(&id).map(Arc::as_ref).ok_or_else(|| missing("directory"))
    }

    fn directory_mut(&mut self, id: u64) -> io::Result<&mut Directory> {
        self.directories.get_mut(&id).map(Arc::make_mut).ok_or_else(|| missing("directory"))
    }
}

fn full() -> io::Error {
    io::Error::new(io::ErrorKind::StorageFull, "the simulated disk is full")
}

fn missing(what: &str) -> io::Error {
    io::Error::other(format!("the simulated disk has lost a {what}: a bug of the simulation"))
}
