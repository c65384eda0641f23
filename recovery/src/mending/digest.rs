//! The digest of a log directory: what binds a plan to the exact files that it saw.
//!
//! It owns which files count: all that a repair reads or moves, by name, length and every byte. The lock,
//! what quarantine/ and repair/ keep, and names that are not Stonelog's do not count. Invariant: two
//! directories with one digest are the same to a repair.
//!
//! Why BLAKE3 and not the frames' CRC-32: a plan may be applied days later, by somebody else.

use std::io;
use std::path::Path;

use stonelog::disk::{self, Disk, DiskFile, OpenMode};
use stonelog::names;

use crate::Failure;

/// How much is read at once.
const PIECE_BYTES: usize = 1 << 20;
/// How much is taken as unreadable at once, where the disk fails.
const PAGE_BYTES: usize = 4096;

/// The digest, in hexadecimal.
pub(crate) fn of(disk: &dyn Disk, directory: &Path) -> Result<String, Failure> {
    let failed = |path: &Path, error: io::Error| {
        Failure::Said(format!(
            "{} cannot be read: {error}. Look into the system's log for what the disk says",
            path.display()
        ))
    };
    let entries =
        disk::retry_interrupted(|| disk.list(directory)).map_err(|error| failed(directory, error))?;
    let mut hasher = blake3::Hasher::new();
    for entry in entries.iter().filter(|entry| !entry.is_directory && counts(&entry.name)) {
        let path = directory.join(&entry.name);
        let file = disk::retry_interrupted(|| disk.open(&path, OpenMode::Read));
        hasher.update(&(entry.name.len() as u64).to_le_bytes());
        hasher.update(entry.name.as_bytes());
        match file {
            Ok(file) => add(&mut hasher, file.as_ref()).map_err(|error| failed(&path, error))?,
            // One that cannot even be opened is the same as long as it cannot.
            Err(error) => {
                hasher.update(error.kind().to_string().as_bytes());
            }
        }
    }
    Ok(hasher.finalize().to_hex().to_string())
}

fn counts(name: &str) -> bool {
    name == stonelog::manifest::FILE_NAME
        || names::id_of_store(name).is_some()
        || names::id_of_index(name).is_some()
        || name.ends_with(".index.next")
}

fn add(hasher: &mut blake3::Hasher, file: &dyn DiskFile) -> io::Result<()> {
    let length = disk::retry_interrupted(|| file.length())?;
    hasher.update(&length.to_le_bytes());
    let mut buffer = vec![0; PIECE_BYTES];
    let mut position = 0;
    while position < length {
        let take = usize::try_from(length - position).unwrap_or(PIECE_BYTES).min(PIECE_BYTES);
        let piece = buffer.get_mut(..take).unwrap_or_default();
        if disk::read_exact_at(file, piece, position).is_ok() {
            hasher.update(piece);
        } else {
            for (page, at) in piece.chunks_mut(PAGE_BYTES).zip((position..).step_by(PAGE_BYTES)) {
                match disk::read_exact_at(file, page, at) {
                    Ok(()) => hasher.update(page),
                    Err(_) => hasher.update(b"unreadable"),
                };
            }
        }
        position += take as u64;
    }
    Ok(())
}
