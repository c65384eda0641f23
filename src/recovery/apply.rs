//! Carrying out a plan, crash-safe and to be begun again at any step.
//!
//! It owns the order: copy and fsync the copy and its directory; write the fresh MANIFEST; only
//! then move and remove files. It decides nothing but which removed files are closed later.
//! Invariants: up to the fresh MANIFEST's directory fsync nothing that the old manifest needs has
//! changed; afterwards only files go that the fresh one does not name, so that a crash anywhere
//! leaves either the old log or the new one.

use std::path::Path;
use std::sync::Arc;

use super::plan::{Copy, CopyPiece, Moved, Plan};
use crate::disk::{self, Disk, DiskFile, OpenMode};
use crate::error::{Damage, Error, Result};
use crate::frame::{self, HEADER_BYTES, HEADER_LENGTH, PayloadChecksum, Seed};
use crate::index::MemoryIndex;
use crate::manifest::State;
use crate::manifest::file::{Failure, ManifestFile, remove_if_present};
use crate::mutant::{self, Mutant};
use crate::names;
use crate::segment_writer::SegmentWriter;
use crate::store::{self, FIRST_FRAME, Origin, Store};

/// At most this many files are kept in `quarantine/`; the oldest go first.
pub(crate) const QUARANTINE_FILES: usize = 64;
/// At most this many bytes are kept in `quarantine/`; the oldest go first.
pub(crate) const QUARANTINE_BYTES: u64 = 1 << 30;
/// At most this many removed stores are held open: more than a crash leaves unsealed, few among a process's handles.
const MOST_UNLINKED: usize = 16;

/// A copy, finished and durable.
pub(crate) struct Copied {
    pub(crate) store: Store,
    pub(crate) index: MemoryIndex,
}

/// What applying a plan gave.
pub(crate) struct Applied {
    pub(crate) manifest: ManifestFile,
    pub(crate) copied: Option<Copied>,
    /// Removed stores, durably without a name, whose space is free once they are closed: that takes long, and nothing
    /// has to wait for it but a full disk.
    pub(crate) unlinked: Vec<Arc<dyn DiskFile>>,
}

/// Carries out `plan`.
///
/// # Errors
/// Whatever the disk says. Opening again finishes, or begins anew. After [`Error::NoSpace`] nothing
/// has changed but for files that no manifest names.
pub(crate) fn apply(disk: &Arc<dyn Disk>, directory: &Path, plan: &mut Plan, old: &State) -> Result<Applied> {
    let copied = match plan.copy.clone() {
        Some(copy) => {
            let finished = copy_records(disk.as_ref(), directory, directory, &old.uuid, &copy)?;
            plan.name_copy(&copy, finished.store.published());
            Some(finished)
        }
        None => None,
    };
    let create = || ManifestFile::create(disk.clone(), directory, plan.state.clone(), plan.generation);
    #[cfg(feature = "_mutants")]
    let create = || ManifestFile::go_on(disk, directory, &plan.state).unwrap_or_else(create);
    let created = create();
    let manifest = created.map_err(|failure| {
        if let (Failure::Refused(_), Some(copy)) = (&failure, &plan.copy) {
            // The copy has no name in any manifest, and holds space.
            let _ = disk.remove(&directory.join(names::store(copy.id)));
        }
        failure.into_error()
    })?;
    for moved in &plan.quarantine {
        match quarantine(disk.as_ref(), directory, moved) {
            // It stays where it is, and the manifest says that it is to be moved: a later opening
            // will, when there is space.
            Err(error) if error.is_no_space() => tracing::warn!(%error, "not moved to quarantine for now"),
            moved => moved?,
        }
    }
    let mut unlinked = Vec::new();
    for name in &plan.remove {
        let path = directory.join(name);
        // Without ballast nothing is held open: it may hold what the next opening needs.
        if manifest.has_ballast() && unlinked.len() < MOST_UNLINKED && names::id_of_store(name).is_some() {
            // One that cannot be opened is as well removed.
            unlinked.extend(disk.open(&path, OpenMode::Read).ok());
        }
        remove_if_present(disk.as_ref(), &path)?;
    }
    if !plan.remove.is_empty() {
        // Removed files that come back at a power cut would hold the space that the next opening
        // may need.
        disk::retry_interrupted(|| disk.sync_dir(directory))
            .map_err(|error| Error::io("syncing directory", directory, None, error))?;
    }
    if !plan.quarantine.is_empty() && disk.exists(&directory.join(names::QUARANTINE)).unwrap_or(false) {
        bound_quarantine(disk.as_ref(), directory)?;
    }
    Ok(Applied { manifest, copied, unlinked })
}

/// Makes room on a full disk, before a sparing plan is applied: prepared segments that were never
/// used go (their reservation is kept as large as a copy can get), and so do the frames of copies
/// that an interrupted recovery left, down to the base that attests what it proved.
///
/// # Errors
/// Whatever the disk says.
pub(crate) fn make_room(disk: &Arc<dyn Disk>, directory: &Path, plan: &mut Plan, old: &State) -> Result<()> {
    for id in &plan.leftover_copies {
        let path = directory.join(names::store(*id));
        disk::retry_interrupted(|| disk.open(&path, OpenMode::ReadWrite)?.set_length(FIRST_FRAME))
            .map_err(|error| Error::io("cutting", &path, Some(FIRST_FRAME), error))?;
    }
    if plan.unused.is_empty() {
        return Ok(());
    }
    let mut state = State { closed: None, ..old.clone() };
    state.segments.retain(|id, _| !plan.unused.contains(id));
    ManifestFile::create(disk.clone(), directory, state, plan.generation)
        .map_err(|failure| failure.into_error())?;
    plan.generation = plan.generation.saturating_add(1);
    for id in std::mem::take(&mut plan.unused) {
        remove_if_present(disk.as_ref(), &directory.join(names::store(id)))?;
    }
    disk::retry_interrupted(|| disk.sync_dir(directory))
        .map_err(|error| Error::io("syncing directory", directory, None, error))
}

/// Copies records from the stores in `directory` into a fresh store in `target`, and makes it and its name
/// durable.
pub(crate) fn copy_records(
    disk: &dyn Disk,
    directory: &Path,
    target: &Path,
    uuid: &[u8; 16],
    copy: &Copy,
) -> Result<Copied> {
    let head = store::Head {
        version: store::FORMAT_VERSION,
        origin: Origin::Copy,
        uuid: *uuid,
        id: copy.id,
        created_millis: disk.now_millis(),
    };
    // The head is durable before the first frame: frames under a lost head are never a leftover of
    // a recovery, but damage.
    let fresh = Store::create(disk, target, head, copy.bytes())?;
    fill_copy(disk, directory, target, uuid, copy, fresh).inspect_err(|_| {
        // Unnamed, and without a use: the next attempt makes its own.
        let _ = disk.remove(&target.join(names::store(copy.id)));
    })
}

fn fill_copy(
    disk: &dyn Disk,
    directory: &Path,
    target: &Path,
    uuid: &[u8; 16],
    copy: &Copy,
    fresh: Store,
) -> Result<Copied> {
    let mut writer = SegmentWriter::new(fresh, copy.base);
    for piece in &copy.pieces {
        copy_piece(&mut writer, disk, directory, uuid, piece)?;
    }
    writer.flush()?;
    if !mutant::on(Mutant::CopyUnsynced) {
        writer.sync()?;
    }
    disk::retry_interrupted(|| disk.sync_dir(target))
        .map_err(|error| Error::io("syncing directory", target, None, error))?;
    let (store, index) = writer.publish();
    Ok(Copied { store, index })
}

/// Copies frames, each checked once more on its way.
fn copy_piece(
    writer: &mut SegmentWriter,
    disk: &dyn Disk,
    directory: &Path,
    uuid: &[u8; 16],
    piece: &CopyPiece,
) -> Result<()> {
    let path = directory.join(names::store(piece.id));
    let file = disk::retry_interrupted(|| disk.open(&path, OpenMode::Read))
        .map_err(|error| Error::io("opening", &path, None, error))?;
    let seed = Seed::of_segment(uuid, piece.id);
    let mut bytes = PieceBytes { file, path: &path, end: piece.positions.end, start: 0, buffer: Vec::new() };
    let mut position = piece.positions.start;
    let mut ordinal = piece.ordinals.start;
    while ordinal < piece.ordinals.end {
        let changed = || -> Error {
            Damage {
                directory: directory.to_path_buf(),
                file: path.clone(),
                position: Some(position),
                offsets: None,
                what: "the bytes changed while they were being recovered".to_string(),
                proof: None,
            }
            .into()
        };
        let header = bytes
            .at(position, HEADER_BYTES)?
            .and_then(frame::header_bytes)
            .and_then(frame::decode_header)
            .filter(|header| header.ordinal == ordinal)
            .ok_or_else(changed)?;
        let frame = bytes.at(position, header.frame_bytes())?.ok_or_else(changed)?;
        let (head, rest) = frame.split_first_chunk::<HEADER_LENGTH>().ok_or_else(changed)?;
        let payload = rest.get(..header.length as usize).ok_or_else(changed)?;
        let checksum = PayloadChecksum::of(payload);
        if !frame::verifies(head, checksum, seed) {
            return Err(changed());
        }
        if header.kind.is_record() {
            writer.push(header.kind, payload, checksum)?;
            ordinal = ordinal.saturating_add(1);
        }
        position = position.saturating_add(header.frame_bytes());
    }
    Ok(())
}

/// The bytes of a piece, read many frames at once.
struct PieceBytes<'a> {
    file: Arc<dyn DiskFile>,
    path: &'a Path,
    /// The position behind the piece.
    end: u64,
    /// Where the buffer was read from.
    start: u64,
    buffer: Vec<u8>,
}

impl PieceBytes<'_> {
    /// `length` bytes at `position`; none where they reach beyond the piece.
    fn at(&mut self, position: u64, length: u64) -> Result<Option<&[u8]>> {
        const READ_BYTES: u64 = 1 << 20;
        let held = self.start.saturating_add(self.buffer.len() as u64);
        let Some(wanted) = position.checked_add(length).filter(|wanted| *wanted <= self.end) else {
            return Ok(None);
        };
        if position < self.start || wanted > held {
            let take = length.max(READ_BYTES).min(self.end.saturating_sub(position));
            // Bounded: a frame's length by its header, and both by a file that is there.
            self.buffer.resize(usize::try_from(take).unwrap_or(usize::MAX), 0);
            self.start = position;
            disk::read_exact_at(self.file.as_ref(), &mut self.buffer, position)
                .map_err(|error| Error::io("reading", self.path, Some(position), error))?;
        }
        let from = usize::try_from(position.saturating_sub(self.start)).ok();
        let to = usize::try_from(wanted.saturating_sub(self.start)).ok();
        Ok(from.zip(to).and_then(|(from, to)| self.buffer.get(from..to)))
    }
}

/// Moves a store to `quarantine/`, with a file beside it that says why.
fn quarantine(disk: &dyn Disk, directory: &Path, moved: &Moved) -> Result<()> {
    let aside = directory.join(names::QUARANTINE);
    match disk::retry_interrupted(|| disk.create_dir(&aside)) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            return Err(Error::io_or_no_space("creating", &aside, 4096, error));
        }
        _ => {}
    }
    let name = names::store(moved.id);
    let note = format!(
        "{{\"file\":\"{name}\",\"segment\":{},\"why\":\"{}\",\"moved_millis\":{}}}\n",
        moved.id,
        moved.why,
        disk.now_millis()
    );
    let note_path = aside.join(format!("{name}.json"));
    remove_if_present(disk, &note_path)?;
    // The note is a courtesy: a disk without space for it must not keep the log from opening.
    let written = disk::retry_interrupted(|| disk.open(&note_path, OpenMode::CreateNew))
        .and_then(|file| disk::write_all_at(file.as_ref(), note.as_bytes(), 0).and_then(|()| file.sync()));
    if let Err(error) = written {
        tracing::warn!(%error, file = %note_path.display(), "the note beside a quarantined file could not be written");
    }
    let from = directory.join(&name);
    match disk::retry_interrupted(|| disk.rename(&from, &aside.join(&name))) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(Error::io("moving to quarantine", &from, None, error));
        }
        _ => {}
    }
    for synced in [aside.as_path(), directory] {
        disk::retry_interrupted(|| disk.sync_dir(synced))
            .map_err(|error| Error::io("syncing directory", synced, None, error))?;
    }
    tracing::warn!(file = %from.display(), why = %moved.why, "moved to quarantine");
    Ok(())
}

/// Removes the oldest quarantined stores beyond the bounds.
fn bound_quarantine(disk: &dyn Disk, directory: &Path) -> Result<()> {
    let aside = directory.join(names::QUARANTINE);
    let entries = disk::retry_interrupted(|| disk.list(&aside))
        .map_err(|error| Error::io("listing", &aside, None, error))?;
    // Ids ascend with time, and so do names.
    let stores: Vec<_> = entries.iter().filter(|entry| names::id_of_store(&entry.name).is_some()).collect();
    let (mut files, mut bytes) = (0, 0u64);
    for entry in stores.iter().rev() {
        files += 1;
        bytes = bytes.saturating_add(entry.length);
        if files > QUARANTINE_FILES || (bytes > QUARANTINE_BYTES && files > 1) {
            remove_if_present(disk, &aside.join(&entry.name))?;
            remove_if_present(disk, &aside.join(format!("{}.json", entry.name)))?;
        }
    }
    Ok(())
}
