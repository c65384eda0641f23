//! A log's directory, made so that it stays.
//!
//! It owns the order in which a directory and what leads to it become durable. It knows of a log only the name of
//! its MANIFEST. Invariant: when it returns, no crash takes the directory's own name.
//!
//! Why a module of its own: a log is begun in two ways, by opening and by building, and both rest on this.

use std::path::Path;

use crate::disk::{self, Disk};
use crate::error::{Error, Result};
use crate::manifest;
use crate::mutant::{self, Mutant};

/// Creates the log directory and what leads to it. Until a log was begun there, every directory up
/// to the root is made durable: an earlier attempt may have crashed between making and syncing one.
pub(crate) fn durable_directory(disk: &dyn Disk, directory: &Path) -> Result<()> {
    let exists = |path: &Path| {
        disk::retry_interrupted(|| disk.exists(path))
            .map_err(|error| Error::io("looking for", path, None, error))
    };
    if exists(&directory.join(manifest::FILE_NAME))? {
        return Ok(());
    }
    let parent = match directory.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => return Ok(()),
    };
    if !exists(directory)? {
        if !exists(parent)? {
            durable_directory(disk, parent)?;
        }
        match disk::retry_interrupted(|| disk.create_dir(directory)) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                return Err(Error::io_or_no_space("creating", directory, 4096, error));
            }
            _ => {}
        }
    }
    let ancestors = if mutant::on(Mutant::ParentUnsynced) { 0 } else { usize::MAX };
    for ancestor in directory.ancestors().skip(1).take(ancestors) {
        let ancestor = if ancestor.as_os_str().is_empty() { Path::new(".") } else { ancestor };
        match disk::retry_interrupted(|| disk.sync_dir(ancestor)) {
            // A directory that this process may not read was not made by it.
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied && ancestor != parent => {}
            synced => synced.map_err(|error| Error::io("syncing directory", ancestor, None, error))?,
        }
    }
    Ok(())
}
