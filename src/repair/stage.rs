//! The files that a repair puts in place, written beside the log before anything is moved.
//!
//! It owns how each is made: a store with its head back, a copy of unproven records, an index, the
//! MANIFEST. It decides nothing, and touches nothing outside its own directory. Invariant: when it is
//! done, every file is fsynced, and so are the names.

use std::path::Path;
use std::sync::Arc;

use super::journal::{Journal, PutIn};
use super::plan::Plan;
use super::renamed::Renamed;
use super::survey::Mend;
use crate::disk::{self, Disk, DiskFile, OpenMode, SECTOR_BYTES};
use crate::error::{Error, Result};
use crate::frame::Seed;
use crate::index::MemoryIndex;
use crate::manifest::file::encode;
use crate::manifest::{self, Close, State};
use crate::mutant::{self, Mutant};
use crate::names;
use crate::recovery::apply::{Copied, copy_records};
use crate::recovery::copy_is_named;
use crate::segment::{encode_index, record_count, scan_index};
use crate::store::{BASE_POSITION, FIRST_FRAME, Store, encode_base};

/// Stores are copied in pieces of this size.
const PIECE_BYTES: usize = 1 << 20;

/// How much space the MANIFEST takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Room {
    /// As much as any fresh one.
    Usual,
    /// No more than it must: for a full disk.
    Least,
}

/// Writes all that `plan` puts in into `target`, and gives the journal that goes with it.
pub(super) fn stage(
    disk: &dyn Disk,
    directory: &Path,
    target: &Path,
    plan: &Plan,
    room: Room,
) -> Result<Journal> {
    let view = Renamed::new(disk, directory, &plan.misnamed);
    let disk: &dyn Disk = &view;
    let mut state = plan.state.clone();
    let mut put_in = Vec::new();
    for mend in &plan.mends {
        let length = rewrite(disk, directory, target, &state, mend)?;
        put_in.push(PutIn { name: names::store(mend.id), length, checksum: None });
    }
    if let Some(copy) = &plan.copy {
        let Copied { store, index } = copy_records(disk, directory, target, &state.uuid, copy)?;
        let length = store.published();
        put_in.push(PutIn { name: names::store(copy.id), length: store.reserved(), checksum: None });
        let count = index.len();
        put_in.push(write_index(disk, target, &state.uuid, copy.id, length, &index, count)?);
        copy_is_named(&mut state, copy, length);
        state.closed = Some(Close { length, next_offset: plan.offsets.end });
    }
    for id in &plan.indexes {
        let mended = plan.mends.iter().any(|mend| mend.id == *id);
        put_in.extend(index(disk, if mended { target } else { directory }, target, &state, *id)?);
    }
    if mutant::on(Mutant::RepairWithoutClose) {
        state.closed = None;
    }
    put_in.push(write_manifest(disk, directory, target, plan, &state, room)?);
    sync_dir(disk, target)?;
    Ok(Journal { out: plan.take_out.clone(), put_in, ballast: None })
}

pub(super) fn sync_dir(disk: &dyn Disk, path: &Path) -> Result<()> {
    disk::retry_interrupted(|| disk.sync_dir(path))
        .map_err(|error| Error::io("syncing directory", path, None, error))
}

/// Creates `path` with `length` bytes reserved.
fn create(disk: &dyn Disk, path: &Path, length: u64) -> Result<Arc<dyn DiskFile>> {
    let file = disk::retry_interrupted(|| disk.open(path, OpenMode::CreateNew))
        .map_err(|error| Error::io_or_no_space("creating", path, length, error))?;
    disk::retry_interrupted(|| file.reserve(length))
        .map_err(|error| Error::io_or_no_space("reserving space in", path, length, error))?;
    Ok(file)
}

fn write(file: &dyn DiskFile, path: &Path, bytes: &[u8], position: u64) -> Result<()> {
    disk::write_all_at(file, bytes, position)
        .map_err(|error| Error::io_or_no_space("writing", path, bytes.len() as u64, error))
}

fn sync(file: &dyn DiskFile, path: &Path) -> Result<()> {
    if mutant::on(Mutant::RepairStageUnsynced) {
        return Ok(());
    }
    disk::retry_interrupted(|| file.sync()).map_err(|error| Error::io("syncing", path, None, error))
}

/// Writes a whole small file.
pub(super) fn write_file(disk: &dyn Disk, path: &Path, bytes: &[u8], length: u64) -> Result<()> {
    let file = create(disk, path, length)?;
    write(file.as_ref(), path, bytes, 0)?;
    sync(file.as_ref(), path)
}

/// Writes a store anew: its head and base as they should be, its frames as they are, zeros where the
/// disk cannot read.
fn rewrite(disk: &dyn Disk, directory: &Path, target: &Path, state: &State, mend: &Mend) -> Result<u64> {
    let name = names::store(mend.id);
    let (from, to) = (directory.join(&name), target.join(&name));
    let source = disk::retry_interrupted(|| disk.open(&from, OpenMode::Read))
        .map_err(|error| Error::io("opening", &from, None, error))?;
    let length = disk::retry_interrupted(|| source.length())
        .map_err(|error| Error::io("measuring", &from, None, error))?;
    let file = create(disk, &to, length)?;
    let mut piece = vec![0; PIECE_BYTES];
    let mut position = FIRST_FRAME;
    while position < length {
        let take = usize::try_from(length - position).unwrap_or(PIECE_BYTES).min(PIECE_BYTES);
        let bytes = piece.get_mut(..take).unwrap_or_default();
        read_what_can_be_read(source.as_ref(), bytes, position);
        write(file.as_ref(), &to, bytes, position)?;
        position += take as u64;
    }
    write(file.as_ref(), &to, &mend.head.encode(), 0)?;
    let seed = Seed::of_segment(&state.uuid, mend.id);
    write(file.as_ref(), &to, &encode_base(mend.base, seed), BASE_POSITION)?;
    sync(file.as_ref(), &to)?;
    Ok(length)
}

/// Zeros stand for what the disk cannot read: sector by sector, once a whole piece fails.
fn read_what_can_be_read(file: &dyn DiskFile, bytes: &mut [u8], position: u64) {
    bytes.fill(0);
    if disk::read_exact_at(file, bytes, position).is_ok() {
        return;
    }
    let sector = usize::try_from(SECTOR_BYTES).unwrap_or(512);
    for (sector, at) in bytes.chunks_mut(sector).zip((position..).step_by(sector)) {
        if disk::read_exact_at(file, sector, at).is_err() {
            sector.fill(0);
        }
    }
}

/// Writes a sealed segment's index, from its store in `from`.
fn index(disk: &dyn Disk, from: &Path, target: &Path, state: &State, id: u64) -> Result<Option<PutIn>> {
    let Some((segment, seal)) = state.segments.get(&id).and_then(|s| Some((s, s.seal?))) else {
        return Ok(None);
    };
    let store = Store::open(disk, from, &state.uuid, id, OpenMode::Read, seal.length, 0)?;
    // A base that nobody states is the end of the segment before.
    let before = state.segments.range(..id).next_back().and_then(|(_, before)| before.seal);
    let base = segment.base.or(before.map(|seal| seal.next_offset)).unwrap_or(state.front);
    let count = record_count(base, seal.next_offset, seal.length);
    let index = scan_index(&store, base, count, seal.length).index;
    write_index(disk, target, &state.uuid, id, seal.length, &index, count).map(Some)
}

fn write_index(
    disk: &dyn Disk,
    target: &Path,
    uuid: &[u8; 16],
    id: u64,
    store_length: u64,
    index: &MemoryIndex,
    count: u32,
) -> Result<PutIn> {
    let bytes = encode_index(uuid, id, store_length, index, count);
    let (name, length) = (names::index(id), bytes.len() as u64);
    write_file(disk, &target.join(&name), &bytes, length)?;
    Ok(PutIn { name, length, checksum: None })
}

fn write_manifest(
    disk: &dyn Disk,
    directory: &Path,
    target: &Path,
    plan: &Plan,
    state: &State,
    room: Room,
) -> Result<PutIn> {
    let encoded = encode(directory, state, plan.generation)?;
    let length = match room {
        Room::Usual => encoded.reserved,
        Room::Least => encoded.least(),
    };
    let mut bytes = encoded.bytes(&state.uuid, plan.generation, length);
    let path = target.join(manifest::FILE_NAME);
    write_file(disk, &path, &bytes, length)?;
    bytes.resize(usize::try_from(length).unwrap_or(bytes.len()).max(bytes.len()), 0);
    let checksum = Some(crc32fast::hash(&bytes));
    Ok(PutIn { name: manifest::FILE_NAME.to_string(), length, checksum })
}
