//! Faults at rest: what happens to a disk that nobody is using. Bits rot, sectors go blank, an operator
//! copies the wrong file.
//!
//! It owns no state. It knows names and bytes only: a format's meaning belongs to whoever aims the damage.
//!
//! Invariants: none of these is a step, none is struck by faults or capacity; each first makes everything
//! pending durable, so that the damage is on the medium itself and no later sync heals it.

use std::io;
use std::ops::Range;
use std::path::Path;

use super::SimDisk;
use super::change::Entry;
use super::content::Content;
use super::medium::Medium;

/// Looking at, and damaging, the files of a disk at rest. None of these is a step. Those that change
/// something first make everything that is pending durable, and what they do is durable at once.
impl SimDisk {
    /// The bytes of a file, as reads see them; `None` where there is no such file.
    #[must_use]
    pub fn read_file(&self, path: impl AsRef<Path>) -> Option<Vec<u8>> {
        self.state().medium.bytes(path.as_ref())
    }

    /// The names in a directory, sorted; none where there is no such directory.
    #[must_use]
    pub fn file_names(&self, directory: impl AsRef<Path>) -> Vec<String> {
        let entries = self.state().medium.list(directory.as_ref()).unwrap_or_default();
        entries.into_iter().map(|entry| entry.name).collect()
    }

    /// Makes a file have these bytes, creating it, and the directories on its way, where missing.
    ///
    /// # Errors
    /// Where a directory has the name, or a file one of the directories'.
    pub fn write_file(&self, path: impl AsRef<Path>, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        let mut content = Content::default();
        content.write(0, bytes.as_ref());
        self.replace(path.as_ref(), &content)
    }

    /// Writes bytes into a file, past everything a running disk would do; the file grows where needed.
    ///
    /// # Errors
    /// `NotFound`; `InvalidInput` where the position is beyond the file's end.
    pub fn overwrite(
        &self,
        path: impl AsRef<Path>,
        position: u64,
        bytes: impl AsRef<[u8]>,
    ) -> io::Result<()> {
        self.damage(path.as_ref(), position, |content| content.write(position, bytes.as_ref()))
    }

    /// Turns one bit of a file around: bit 0 to 7 (modulo 8) of the byte at `position`.
    ///
    /// # Errors
    /// `NotFound`; `InvalidInput` where the file has no such byte.
    pub fn flip_bit(&self, path: impl AsRef<Path>, position: u64, bit: u8) -> io::Result<()> {
        self.damage(path.as_ref(), position.saturating_add(1), |content| {
            let mut byte = [0];
            // A failed sync can have left the durable version shorter: there is nothing to rot there.
            if content.read(&mut byte, position) == 1 {
                content.write(position, &byte.map(|byte| byte ^ (1 << (bit % 8))));
            }
        })
    }

    /// Makes a range of a file zeros, as far as the file goes; its length stays.
    ///
    /// # Errors
    /// `NotFound`; `InvalidInput` where the range begins beyond the file's end.
    pub fn zero(&self, path: impl AsRef<Path>, range: Range<u64>) -> io::Result<()> {
        self.damage(path.as_ref(), range.start, |content| {
            let end = range.end.min(content.length());
            if let Ok(count) = usize::try_from(end.saturating_sub(range.start)) {
                content.write(range.start.min(end), &vec![0; count]);
            }
        })
    }

    /// Gives a file this length: cuts it, or extends it with zeros.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn truncate(&self, path: impl AsRef<Path>, length: u64) -> io::Result<()> {
        self.damage(path.as_ref(), 0, |content| content.set_length(length))
    }

    /// Lets the device read this range of a file no more: reads there fail, whatever name it has.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn set_unreadable(&self, path: impl AsRef<Path>, range: Range<u64>) -> io::Result<()> {
        self.at_rest(|medium| {
            let file = medium.find_file(path.as_ref())?;
            medium.set_bad(file, range)
        })
    }

    /// Removes a file.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn remove_file(&self, path: impl AsRef<Path>) -> io::Result<()> {
        self.at_rest(|medium| medium.remove(path.as_ref()))
    }

    /// Makes the file `to` have the bytes of `from`, creating it where missing.
    ///
    /// # Errors
    /// `NotFound` where `from` is missing; else as [`write_file`](Self::write_file).
    pub fn copy_file(&self, from: impl AsRef<Path>, to: impl AsRef<Path>) -> io::Result<()> {
        let content = {
            let medium = &self.state().medium;
            medium.content(medium.find_file(from.as_ref())?)?
        };
        self.replace(to.as_ref(), &content)
    }

    /// Exchanges the bytes of two files.
    ///
    /// # Errors
    /// `NotFound` where one of them is missing.
    pub fn swap_files(&self, one: impl AsRef<Path>, other: impl AsRef<Path>) -> io::Result<()> {
        self.at_rest(|medium| {
            let (one, other) = (medium.find_file(one.as_ref())?, medium.find_file(other.as_ref())?);
            let (first, second) = (medium.content(one)?, medium.content(other)?);
            medium.change_at_rest(one, |content| content.clone_from(&second))?;
            medium.change_at_rest(other, |content| content.clone_from(&first))
        })
    }

    fn replace(&self, path: &Path, with: &Content) -> io::Result<()> {
        self.at_rest(|medium| {
            for directory in path.ancestors().skip(1).collect::<Vec<_>>().into_iter().rev() {
                match medium.create_dir(directory) {
                    Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                    _ => {}
                }
            }
            let file = match medium.find(path)? {
                Some(Entry::File(file)) => file,
                Some(Entry::Directory(_)) => return Err(io::ErrorKind::IsADirectory.into()),
                None => medium.create_file(path)?,
            };
            medium.change_at_rest(file, |content| content.clone_from(with))
        })
    }

    /// Changes a file that must be at least `least` long.
    fn damage(&self, path: &Path, least: u64, change: impl Fn(&mut Content)) -> io::Result<()> {
        self.at_rest(|medium| {
            let file = medium.find_file(path)?;
            if medium.length(file)? < least {
                return Err(io::ErrorKind::InvalidInput.into());
            }
            medium.change_at_rest(file, change)
        })
    }

    fn at_rest<T>(&self, change: impl FnOnce(&mut Medium) -> io::Result<T>) -> io::Result<T> {
        let medium = &mut self.state().medium;
        medium.settle();
        let outcome = change(medium);
        medium.settle();
        outcome
    }
}
