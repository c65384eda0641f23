//! What the directories in `repair/` say: which repairs there were, and which is not finished.
//!
//! It owns their names, and what is read of them. It moves nothing. Invariant: nothing here changes a byte, so
//! that an opening and a tool that only looks can ask as well.
//!
//! ```text
//! repair/1/new/      files to be put in (while a repair goes on)
//! repair/1/old/      files that were moved out
//! repair/1/journal   what is moved; while it goes on. Then its name is:
//! repair/1/undo      ... once the repair is done, and
//! repair/1/undoing   ... while the repair is being taken back
//! ```

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::journal::{self, Journal, PutIn};
use crate::disk::{self, Disk, OpenMode};
use crate::error::{Error, Result};
use crate::manifest;
use crate::mutant::{self, Mutant};
use crate::names;

pub(super) const NEW: &str = "new";
pub(super) const OLD: &str = "old";
pub(super) const JOURNAL: &str = "journal";
pub(super) const JOURNAL_NEXT: &str = "journal.next";
pub(super) const UNDO: &str = "undo";
pub(super) const UNDOING: &str = "undoing";
/// Numbers above this name no repair.
const MOST_REPAIRS: u64 = 1 << 32;

/// Something that was begun and not finished.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pending {
    /// A repair: its journal is there.
    Repair {
        /// Its number.
        number: u64,
    },
    /// The undoing of a repair.
    Undo {
        /// The repair's number.
        number: u64,
    },
}

impl Pending {
    pub(super) fn error(self, directory: &Path) -> Error {
        let (what, command) = match self {
            Pending::Repair { .. } => ("a repair", "repair"),
            Pending::Undo { .. } => ("the undoing of a repair", "undo"),
        };
        Error::RepairUnfinished { directory: directory.to_path_buf(), what, command }
    }
}

/// What was begun in `directory` and not finished, with reads only.
///
/// # Errors
/// When `repair/` cannot be listed.
pub fn pending(disk: &dyn Disk, directory: &Path) -> Result<Option<Pending>> {
    for number in numbers(disk, directory)? {
        let place = place_of(directory, number);
        if exists(disk, &place.join(JOURNAL))? {
            return Ok(Some(Pending::Repair { number }));
        }
        if exists(disk, &place.join(UNDOING))? {
            return Ok(Some(Pending::Undo { number }));
        }
    }
    Ok(None)
}

/// Refuses to open a log that a repair has half moved.
pub(crate) fn refuse_unfinished(disk: &dyn Disk, directory: &Path) -> Result<()> {
    pending(disk, directory)?.map_or(Ok(()), |pending| Err(pending.error(directory)))
}

pub(super) fn place_of(directory: &Path, number: u64) -> PathBuf {
    directory.join(names::REPAIR).join(number.to_string())
}

/// The numbers of the repairs whose directories are there, ascending.
pub(super) fn numbers(disk: &dyn Disk, directory: &Path) -> Result<Vec<u64>> {
    let path = directory.join(names::REPAIR);
    let entries = match disk::retry_interrupted(|| disk.list(&path)) {
        Ok(entries) => entries,
        Err(error)
            if matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) =>
        {
            return Ok(Vec::new());
        }
        Err(error) => return Err(Error::io("listing", &path, None, error)),
    };
    let number =
        |name: &str| name.parse::<u64>().ok().filter(|n| n.to_string() == name && *n <= MOST_REPAIRS);
    let mut numbers: Vec<u64> =
        entries.iter().filter(|entry| entry.is_directory).filter_map(|entry| number(&entry.name)).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

pub(super) fn exists(disk: &dyn Disk, path: &Path) -> Result<bool> {
    disk::retry_interrupted(|| disk.exists(path)).map_err(|error| Error::io("looking for", path, None, error))
}

/// The last repair that was finished.
pub(super) fn last_done(disk: &dyn Disk, directory: &Path) -> Result<u64> {
    for number in numbers(disk, directory)?.into_iter().rev() {
        if exists(disk, &place_of(directory, number).join(UNDO))? {
            return Ok(number);
        }
    }
    Err(Error::RepairRefused {
        why: format!("no repair of {} is there to be taken back", directory.display()),
    })
}

pub(super) fn read_journal(disk: &dyn Disk, directory: &Path, number: u64, name: &str) -> Result<Journal> {
    let path = place_of(directory, number).join(name);
    let io = |action: &'static str| move |error| (action, error);
    let read = || -> std::result::Result<Vec<u8>, (&'static str, std::io::Error)> {
        let file = disk::retry_interrupted(|| disk.open(&path, OpenMode::Read)).map_err(io("opening"))?;
        let length = disk::retry_interrupted(|| file.length()).map_err(io("measuring"))?;
        let mut bytes = vec![0; usize::try_from(length.min(journal::MAX_BYTES)).unwrap_or(0)];
        disk::read_exact_at(file.as_ref(), &mut bytes, 0).map_err(io("reading"))?;
        Ok(bytes)
    };
    let bytes = read().map_err(|(action, error)| Error::io(action, &path, None, error))?;
    Journal::parse(&bytes).map_err(|what| Error::RepairRefused {
        why: format!(
            "{} is not what was written ({what}), so nothing is moved by it. Copy the directory elsewhere; \
             the files that were moved out are in {}, what the stores hold can be put out with log-repair salvage",
            path.display(),
            place_of(directory, number).join(OLD).display()
        ),
    })
}

/// Whether the directory is as the repair left it.
pub(super) fn check_untouched(
    disk: &dyn Disk,
    directory: &Path,
    number: u64,
    journal: &Journal,
) -> Result<()> {
    if mutant::on(Mutant::RepairUndoUnchecked) {
        return Ok(());
    }
    let refused = |what: String| {
        Err(Error::RepairRefused {
            why: format!(
                "repair {number} of {} cannot be taken back: {what}. The files that it moved out are in {}",
                directory.display(),
                place_of(directory, number).join(OLD).display()
            ),
        })
    };
    for file in &journal.put_in {
        match is_as_left(disk, directory, file)? {
            Some(true) => {}
            None => return refused(format!("{} is gone", file.name)),
            Some(false) => {
                return refused(format!(
                    "{} is not as the repair left it: the log was opened for writing since",
                    file.name
                ));
            }
        }
    }
    for name in &journal.out {
        if !exists(disk, &place_of(directory, number).join(OLD).join(name))? {
            return refused(format!("{name}, which it moved out, is not kept any more"));
        }
    }
    let put_in: BTreeSet<&str> = journal.put_in.iter().map(|file| file.name.as_str()).collect();
    for name in journal.out.iter().filter(|name| !put_in.contains(name.as_str())) {
        if exists(disk, &directory.join(name))? {
            return refused(format!("there is a {name} again"));
        }
    }
    Ok(())
}

/// Whether `file` is in its place as the repair put it in; `None` where nothing there can be opened.
fn is_as_left(disk: &dyn Disk, directory: &Path, file: &PutIn) -> Result<Option<bool>> {
    let path = directory.join(&file.name);
    let open = disk::retry_interrupted(|| disk.open(&path, OpenMode::Read));
    let Ok(open) = open else { return Ok(None) };
    let length = disk::retry_interrupted(|| open.length())
        .map_err(|error| Error::io("measuring", &path, None, error))?;
    let mut same = length == file.length;
    if let Some(checksum) = file.checksum.filter(|_| same && length <= manifest::MAX_FILE_BYTES) {
        let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
        disk::read_exact_at(open.as_ref(), &mut bytes, 0)
            .map_err(|error| Error::io("reading", &path, None, error))?;
        same = crc32fast::hash(&bytes) == checksum;
    }
    Ok(Some(same))
}

/// Whether each file that a half-done repair or undo moved out is kept, or still in its place, or back there.
///
/// Once the last one is out, they all were: what has such a name, and is not aside, is what the repair put in.
pub(super) fn check_kept(disk: &dyn Disk, directory: &Path, number: u64, journal: &Journal) -> Result<()> {
    if mutant::on(Mutant::RepairUndoUnkept) {
        return Ok(());
    }
    let place = place_of(directory, number);
    let (new, old) = (place.join(NEW), place.join(OLD));
    let mut all_out = match journal.out.last() {
        Some(last) => exists(disk, &old.join(last))?,
        None => false,
    };
    if let Some(manifest) = journal.put_in.iter().find(|file| file.checksum.is_some()) {
        all_out |= is_as_left(disk, directory, manifest)? == Some(true);
    }
    let put_in: BTreeSet<&str> = journal.put_in.iter().map(|file| file.name.as_str()).collect();
    for name in &journal.out {
        if exists(disk, &old.join(name))? {
            continue;
        }
        let replaced = all_out && put_in.contains(name.as_str()) && !exists(disk, &new.join(name))?;
        if replaced || !exists(disk, &directory.join(name))? {
            return Err(Error::RepairRefused {
                why: format!(
                    "{name}, which repair {number} moved out, is neither in {} nor in {}, so the repair cannot be taken back, \
                     and nothing was moved. What it made is in these two, or in {}",
                    old.display(),
                    directory.display(),
                    new.display()
                ),
            });
        }
    }
    Ok(())
}
