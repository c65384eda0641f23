//! Doing a repair, going on with one that was interrupted, and taking it back.
//!
//! It owns the lock, the directories in `repair/`, and the order: write everything that is to be put in;
//! fsync it; write the journal, which is the point of no return; move out; move in; make the journal the
//! undo record. It decides nothing about the log. Invariants: before the journal has its name the log's
//! directory is as it was; after that, each step can be done again; no file that a repair moved out is
//! ever removed by it.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::journal::{self, Journal};
use super::plan::Plan;
use super::record::{
    JOURNAL, JOURNAL_NEXT, NEW, OLD, Pending, UNDO, UNDOING, check_kept, check_untouched, exists, last_done,
    numbers, pending, place_of, read_journal, refuse_unfinished,
};
use super::stage::{Room, stage, sync_dir, write_file};
use super::survey::{Basis, Survey, survey};
use crate::disk::{self, Disk, DiskLock, LockAttempt, OpenMode};
use crate::error::{Error, Result};
use crate::manifest;
use crate::mutant::{self, Mutant};
use crate::names;
use crate::recovery;

/// What a repair did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Done {
    /// The repair's number.
    pub number: u64,
    /// Where the files are that were moved out.
    pub kept: PathBuf,
    /// The files that were moved out.
    pub moved_out: Vec<String>,
    /// The files that were put in.
    pub put_in: Vec<String>,
}

/// What an undo did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Undone {
    /// The number of the repair that was taken back.
    pub number: u64,
    /// The files that are back.
    pub back: Vec<String>,
    /// The files that are gone again, as the repair had made them.
    pub gone: Vec<String>,
}

fn rename(disk: &dyn Disk, from: &Path, to: &Path) -> Result<()> {
    disk::retry_interrupted(|| disk.rename(from, to)).map_err(|error| Error::io("moving", from, None, error))
}

fn create_dir(disk: &dyn Disk, path: &Path) -> Result<()> {
    match disk::retry_interrupted(|| disk.create_dir(path)) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            Err(Error::io_or_no_space("creating", path, 4096, error))
        }
        _ => Ok(()),
    }
}

/// What [`Session::undo`] would do now, with reads only.
///
/// # Errors
/// As for the undo.
pub fn undoable(disk: &dyn Disk, directory: &Path) -> Result<Undone> {
    let half_done = |number, record| {
        let journal = read_journal(disk, directory, number, record)?;
        check_kept(disk, directory, number, &journal)?;
        Ok::<_, Error>((number, journal))
    };
    let (number, journal) = match pending(disk, directory)? {
        Some(Pending::Repair { number }) => half_done(number, JOURNAL)?,
        Some(Pending::Undo { number }) => half_done(number, UNDOING)?,
        None => {
            let number = last_done(disk, directory)?;
            let journal = read_journal(disk, directory, number, UNDO)?;
            check_untouched(disk, directory, number, &journal)?;
            (number, journal)
        }
    };
    Ok(Undone::of(number, &journal))
}

impl Undone {
    fn of(number: u64, journal: &Journal) -> Undone {
        Undone {
            number,
            back: journal.out.clone(),
            gone: journal.put_in.iter().map(|file| file.name.clone()).collect(),
        }
    }
}

/// A log directory under its lock, for repairs.
#[derive(Debug)]
pub struct Session {
    disk: Arc<dyn Disk>,
    directory: PathBuf,
    _lock: Box<dyn DiskLock>,
}

impl Session {
    /// Takes the lock of the log in `directory`.
    ///
    /// # Errors
    /// [`Error::Locked`] while a program has it open for writing; [`Error::RepairRefused`] where there is
    /// no such directory, or no log in it: then no lock is left there either.
    pub fn lock(disk: Arc<dyn Disk>, directory: &Path) -> Result<Session> {
        if !exists(disk.as_ref(), directory)? {
            let why =
                format!("there is no directory {}: name the one that holds MANIFEST", directory.display());
            return Err(Error::RepairRefused { why });
        }
        let listing = recovery::list(disk.as_ref(), directory)?;
        if !listing.manifest && listing.stores.is_empty() && listing.repairs.is_empty() {
            return Err(Error::RepairRefused {
                why: format!("{} holds no log: name the directory that holds MANIFEST", directory.display()),
            });
        }
        let path = directory.join(names::LOCK);
        let attempt = disk::retry_interrupted(|| disk.lock(&path))
            .map_err(|error| Error::io_or_no_space("locking", &path, 1, error))?;
        match attempt {
            LockAttempt::Acquired(lock) => {
                Ok(Session { disk, directory: directory.to_path_buf(), _lock: lock })
            }
            LockAttempt::Held { pid } => Err(Error::Locked { path, pid }),
        }
    }

    /// What was begun and not finished.
    ///
    /// # Errors
    /// When `repair/` cannot be listed.
    pub fn pending(&self) -> Result<Option<Pending>> {
        pending(self.disk.as_ref(), &self.directory)
    }

    /// Looks at the log.
    ///
    /// # Errors
    /// See [`survey()`]; [`Error::RepairUnfinished`] while a repair is half done.
    pub fn survey(&self, basis: Basis) -> Result<Survey> {
        refuse_unfinished(self.disk.as_ref(), &self.directory)?;
        survey(self.disk.as_ref(), &self.directory, basis)
    }

    /// Does what `plan` says, which was made from a survey of this session.
    ///
    /// # Errors
    /// [`Error::RepairRefused`] where the plan gives up records that `accepted` does not name exactly: then,
    /// and after [`Error::NoSpace`], nothing was changed. After any other error what was begun goes on
    /// with [`Session::resume`], or nothing was.
    pub fn apply(&self, plan: &Plan, accepted: &[Range<u64>]) -> Result<Done> {
        refuse_unfinished(self.disk.as_ref(), &self.directory)?;
        plan.accepts(accepted).map_err(|refused| Error::RepairRefused { why: refused.to_string() })?;
        let number = self.fresh_number()?;
        let (journal, place) = self.stage(number, plan)?;
        rename(self.disk.as_ref(), &place.join(JOURNAL_NEXT), &place.join(JOURNAL))?;
        if !mutant::on(Mutant::RepairJournalUnsynced) {
            sync_dir(self.disk.as_ref(), &place)?;
        }
        self.finish(number, &journal)
    }

    /// Goes on with a repair that was interrupted.
    ///
    /// # Errors
    /// [`Error::RepairRefused`] where there is none, or its journal is not what was written; whatever the
    /// disk says.
    pub fn resume(&self) -> Result<Done> {
        match self.pending()? {
            Some(Pending::Repair { number }) => {
                let journal = self.read_journal(number, JOURNAL)?;
                self.finish(number, &journal)
            }
            Some(pending @ Pending::Undo { .. }) => Err(pending.error(&self.directory)),
            None => Err(Error::RepairRefused {
                why: format!("no repair of {} was interrupted", self.directory.display()),
            }),
        }
    }

    /// Takes the last repair back, or goes on doing so: every file is again what it was. One that was interrupted
    /// can be taken back as well as finished: each of its moves can be made backwards.
    ///
    /// # Errors
    /// [`Error::RepairRefused`] where there is no repair to take back, or the log was opened for writing since;
    /// whatever the disk says.
    pub fn undo(&self) -> Result<Undone> {
        let number = match self.pending()? {
            Some(Pending::Undo { number }) => {
                self.check_kept(number, UNDOING)?;
                number
            }
            Some(Pending::Repair { number }) => {
                self.check_kept(number, JOURNAL)?;
                self.begin_undoing(number, JOURNAL)?
            }
            None => {
                let number = last_done(self.disk.as_ref(), &self.directory)?;
                let journal = self.read_journal(number, UNDO)?;
                check_untouched(self.disk.as_ref(), &self.directory, number, &journal)?;
                self.begin_undoing(number, UNDO)?
            }
        };
        let journal = self.read_journal(number, UNDOING)?;
        self.move_back(number, &journal)
    }

    /// Nothing is let go of, and nothing is moved, unless everything can come back.
    fn check_kept(&self, number: u64, record: &str) -> Result<()> {
        check_kept(self.disk.as_ref(), &self.directory, number, &self.read_journal(number, record)?)
    }

    fn begin_undoing(&self, number: u64, record: &str) -> Result<u64> {
        let place = place_of(&self.directory, number);
        rename(self.disk.as_ref(), &place.join(record), &place.join(UNDOING))?;
        sync_dir(self.disk.as_ref(), &place)?;
        Ok(number)
    }

    /// Writes what is to be put in, and the journal under its temporary name.
    fn stage(&self, number: u64, plan: &Plan) -> Result<(Journal, PathBuf)> {
        match self.try_stage(number, plan, Room::Usual, None) {
            Err(error) if error.is_no_space() => {
                self.clear(number)?;
                let ballast = self.drop_ballast()?;
                self.try_stage(number, plan, Room::Least, ballast).inspect_err(|_| {
                    let _ = self.clear(number);
                    self.lay_ballast(ballast);
                })
            }
            staged => staged.inspect_err(|_| {
                // Nothing names what is half-made; leaving it would only hold space.
                let _ = self.clear(number);
            }),
        }
    }

    fn try_stage(
        &self,
        number: u64,
        plan: &Plan,
        room: Room,
        ballast: Option<u64>,
    ) -> Result<(Journal, PathBuf)> {
        let disk = self.disk.as_ref();
        let place = place_of(&self.directory, number);
        let above = self.directory.join(names::REPAIR);
        for path in [&above, &place, &place.join(NEW), &place.join(OLD)] {
            create_dir(disk, path)?;
        }
        let mut journal = stage(disk, &self.directory, &place.join(NEW), plan, room)?;
        journal.ballast = ballast;
        // Whatever has the name of a file that goes in is moved out first, whoever it is.
        let mut more = Vec::new();
        let out: BTreeSet<&str> = journal.out.iter().map(String::as_str).collect();
        for file in journal.put_in.iter().filter(|file| !out.contains(file.name.as_str())) {
            let in_the_way = exists(disk, &self.directory.join(&file.name))?;
            if in_the_way && !mutant::on(Mutant::RepairMovedOver) {
                more.push(file.name.clone());
            }
        }
        more.append(&mut journal.out);
        journal.out = more;
        let text = journal.encode();
        if text.len() as u64 > journal::MAX_BYTES {
            return Err(Error::TooLarge {
                what: "repair journal",
                bytes: text.len() as u64,
                limit: journal::MAX_BYTES,
            });
        }
        write_file(disk, &place.join(JOURNAL_NEXT), text.as_bytes(), text.len() as u64)?;
        for path in [&place, &above, &self.directory] {
            sync_dir(disk, path)?;
        }
        Ok((journal, place))
    }

    /// From the journal to the end: everything that is out is out, everything that goes in is in.
    fn finish(&self, number: u64, journal: &Journal) -> Result<Done> {
        let disk = self.disk.as_ref();
        let place = place_of(&self.directory, number);
        let (new, old) = (place.join(NEW), place.join(OLD));
        // Whoever copied the log may have left out directories with nothing in them.
        for path in [&new, &old] {
            create_dir(disk, path)?;
        }
        let out: BTreeSet<&str> = journal.out.iter().map(String::as_str).collect();
        for file in &journal.put_in {
            // Where it is already, what it replaced is aside.
            let in_place = !out.contains(file.name.as_str()) || exists(disk, &old.join(&file.name))?;
            let here = in_place && exists(disk, &self.directory.join(&file.name))?;
            if !here && !exists(disk, &new.join(&file.name))? {
                let why = format!(
                    "{} is gone, which repair {number} was to put in, so it cannot be finished. To take it back: log-repair undo \
                     {} --apply",
                    new.join(&file.name).display(),
                    self.directory.display()
                );
                return Err(Error::RepairRefused { why });
            }
        }
        for name in &journal.out {
            let (here, aside) = (self.directory.join(name), old.join(name));
            if !exists(disk, &aside)? && exists(disk, &here)? {
                rename(disk, &here, &aside)?;
            }
        }
        // What goes in takes no name but those that are free by now.
        for file in journal.put_in.iter().filter(|file| !out.contains(file.name.as_str())) {
            let here = self.directory.join(&file.name);
            if exists(disk, &new.join(&file.name))? && exists(disk, &here)? {
                let why = format!(
                    "{} is in the way of repair {number}, whose journal does not move it: look at {}, and move one of them",
                    here.display(),
                    new.join(&file.name).display()
                );
                return Err(Error::RepairRefused { why });
            }
        }
        // All that is out is out for good before the first file that takes a name of theirs goes in.
        if !mutant::on(Mutant::RepairMovesUnsynced) {
            sync_dir(disk, &old)?;
            sync_dir(disk, &self.directory)?;
        }
        for file in &journal.put_in {
            let (made, here) = (new.join(&file.name), self.directory.join(&file.name));
            if exists(disk, &made)? {
                rename(disk, &made, &here)?;
            }
        }
        sync_dir(disk, &self.directory)?;
        sync_dir(disk, &new)?;
        rename(disk, &place.join(JOURNAL), &place.join(UNDO))?;
        sync_dir(disk, &place)?;
        let _ = disk.remove_dir(&new);
        tracing::warn!(directory = %self.directory.display(), kept = %old.display(), "repaired");
        Ok(Done {
            number,
            kept: old,
            moved_out: journal.out.clone(),
            put_in: journal.put_in.iter().map(|file| file.name.clone()).collect(),
        })
    }

    /// From the undo's journal to the end.
    fn move_back(&self, number: u64, journal: &Journal) -> Result<Undone> {
        let disk = self.disk.as_ref();
        let place = place_of(&self.directory, number);
        let (new, old) = (place.join(NEW), place.join(OLD));
        for path in [&new, &old] {
            create_dir(disk, path)?;
        }
        sync_dir(disk, &place)?;
        let out: BTreeSet<&str> = journal.out.iter().map(String::as_str).collect();
        for file in &journal.put_in {
            let (here, aside) = (self.directory.join(&file.name), new.join(&file.name));
            // (What was never moved out is no replacement.)
            let replaced = !out.contains(file.name.as_str()) || exists(disk, &old.join(&file.name))?;
            if replaced && !exists(disk, &aside)? && exists(disk, &here)? {
                rename(disk, &here, &aside)?;
            }
        }
        sync_dir(disk, &new)?;
        sync_dir(disk, &self.directory)?;
        for name in &journal.out {
            let (aside, here) = (old.join(name), self.directory.join(name));
            if exists(disk, &aside)? {
                rename(disk, &aside, &here)?;
            }
        }
        sync_dir(disk, &self.directory)?;
        sync_dir(disk, &old)?;
        manifest::file::remove_if_present(disk, &place.join(UNDOING))?;
        sync_dir(disk, &place)?;
        self.clear(number)?;
        // (Only now is there space for it, where the disk is full.)
        self.lay_ballast(journal.ballast);
        tracing::warn!(directory = %self.directory.display(), number, "took a repair back");
        Ok(Undone::of(number, journal))
    }

    fn read_journal(&self, number: u64, name: &str) -> Result<Journal> {
        read_journal(self.disk.as_ref(), &self.directory, number, name)
    }

    /// A number that no repair has: those of attempts that never came to their journal are used again.
    fn fresh_number(&self) -> Result<u64> {
        let mut last = 0;
        for number in numbers(self.disk.as_ref(), &self.directory)? {
            let place = place_of(&self.directory, number);
            if exists(self.disk.as_ref(), &place.join(UNDO))? || !self.clear(number)? {
                last = number;
            }
        }
        Ok(last + 1)
    }

    /// Removes what an attempt wrote and never named; gives whether nothing of it is left that matters.
    /// What was moved out is never removed.
    fn clear(&self, number: u64) -> Result<bool> {
        let disk = self.disk.as_ref();
        let place = place_of(&self.directory, number);
        let list = |path: &Path| disk::retry_interrupted(|| disk.list(path)).unwrap_or_default();
        let (new, old) = (place.join(NEW), place.join(OLD));
        for entry in list(&new) {
            manifest::file::remove_if_present(disk, &new.join(&entry.name))?;
        }
        manifest::file::remove_if_present(disk, &place.join(JOURNAL_NEXT))?;
        let clear = list(&old).is_empty();
        // A directory that is not empty, or on a disk that cannot remove any, stays.
        for path in [&new, &old, &place, &self.directory.join(names::REPAIR)] {
            let _ = disk.remove_dir(path);
        }
        sync_dir(disk, &self.directory)?;
        Ok(clear)
    }

    /// Removes the ballast for the next MANIFEST, where it is nothing but that; gives its length.
    fn drop_ballast(&self) -> Result<Option<u64>> {
        let disk = self.disk.as_ref();
        let path = self.directory.join(manifest::NEXT_NAME);
        let Ok(file) = disk::retry_interrupted(|| disk.open(&path, OpenMode::Read)) else { return Ok(None) };
        let length = disk::retry_interrupted(|| file.length())
            .map_err(|error| Error::io("measuring", &path, None, error))?;
        if length > 2 * manifest::MAX_FILE_BYTES {
            return Ok(None);
        }
        let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
        let read = disk::read_exact_at(file.as_ref(), &mut bytes, 0);
        if read.is_err() || bytes.iter().any(|byte| *byte != 0) {
            return Ok(None);
        }
        drop(file);
        manifest::file::remove_if_present(disk, &path)?;
        sync_dir(disk, &self.directory)?;
        Ok(Some(length))
    }

    /// Lays the ballast in again, where it was taken. Best effort: it is nothing but space.
    fn lay_ballast(&self, length: Option<u64>) {
        let Some(length) = length else { return };
        let path = self.directory.join(manifest::NEXT_NAME);
        let laid = disk::retry_interrupted(|| self.disk.open(&path, OpenMode::CreateNew))
            .and_then(|file| disk::retry_interrupted(|| file.reserve(length)));
        if let Err(error) = laid {
            tracing::debug!(%error, "no ballast for the next manifest for now");
        }
    }
}
