//! The MANIFEST file: how it is read, written anew, and appended to.
//!
//! It owns the head sector, the frames of edits, the rename that replaces the file whole, and the
//! ballast that lets a full disk take one more manifest. It does not know why an edit is made.
//!
//! Invariants: a process appends only to a MANIFEST that it wrote itself; a new one is durable
//! (file, rename, directory) before any edit on it is; an append is fsynced before it returns; a
//! batch of edits is all there or not at all.
//!
//! Why every writable open replaces the file: what a crashed process left may be in the page cache
//! alone, and appending behind it would build on bytes that the next power cut takes away.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::edit::Edit;
use super::state::State;
use crate::disk::{self, Disk, DiskFile, OpenMode, SECTOR_BYTES};
use crate::error::{Damage, Error, Result};
use crate::frame::{self, Header, Kind, Lag, Seed};
use crate::mutant::{self, Mutant};
use crate::scan::{self, Extent};

/// The manifest's name in the log directory.
pub const FILE_NAME: &str = "MANIFEST";
/// The name of a manifest in the making; otherwise ballast for a full disk.
pub const NEXT_NAME: &str = "MANIFEST.next";
/// The format version that this build writes and reads.
pub(crate) const FORMAT_VERSION: u32 = 1;
/// A larger MANIFEST is refused: it is read whole.
pub(crate) const MAX_FILE_BYTES: u64 = 64 << 20;

const MAGIC: [u8; 8] = *b"STONEMAN";
const HEAD_BYTES: usize = 52;
const SECTOR: usize = 512;
/// Room behind the folded state at least: how many bytes of edits fit before the next checkpoint.
const ROOM_BYTES: u64 = 32 << 10;

/// What lies behind the last whole batch of edits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tail {
    /// Zeros, or nothing.
    Clean,
    /// An edit that was being written when the process ended: it was never acknowledged.
    Torn(Range<u64>),
}

/// What reading a MANIFEST gave.
#[derive(Debug, Clone)]
pub enum Reading {
    /// There is none.
    Absent,
    /// It is whole, up to a torn tail.
    Whole {
        /// What its edits add up to.
        state: State,
        /// Its generation.
        generation: u64,
        /// What lies behind the last edit.
        tail: Tail,
        /// The position behind the last edit.
        length: u64,
        /// How many edits it holds.
        edits: u32,
    },
    /// It is not what was written.
    Damaged(Damage),
}

/// Reads `directory`'s MANIFEST, with reads only.
///
/// # Errors
/// When the file cannot be read, or a later version wrote it. Damage is not an error here but a
/// finding.
pub fn read(disk: &dyn Disk, directory: &Path) -> Result<Reading> {
    let path = directory.join(FILE_NAME);
    let file = match disk::retry_interrupted(|| disk.open(&path, OpenMode::Read)) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Reading::Absent),
        Err(error) => return Err(Error::io("opening", &path, None, error)),
    };
    let length = disk::retry_interrupted(|| file.length())
        .map_err(|error| Error::io("measuring", &path, None, error))?;
    let bytes = match load(file.as_ref(), length) {
        Ok(bytes) => bytes,
        Err(what) => return Ok(Reading::Damaged(damage(directory, None, what, None))),
    };
    interpret(directory, &bytes)
}

/// What is left of a MANIFEST that is not what was written.
#[derive(Debug, Clone, Default)]
pub struct Remains {
    /// The log's identity, where the head survived.
    pub uuid: Option<[u8; 16]>,
    /// Its generation, where the head survived.
    pub generation: Option<u64>,
    /// Every edit that is intact, in order: there may be gaps between them.
    pub edits: Vec<Edit>,
}

/// Reads every intact edit of `directory`'s MANIFEST, whatever became of the others.
///
/// # Errors
/// When the file cannot be opened or measured. One that is not there, or is longer than any manifest,
/// has no remains.
pub fn remains(disk: &dyn Disk, directory: &Path) -> Result<Remains> {
    let path = directory.join(FILE_NAME);
    let file = match disk::retry_interrupted(|| disk.open(&path, OpenMode::Read)) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Remains::default()),
        Err(error) => return Err(Error::io("opening", &path, None, error)),
    };
    let length = disk::retry_interrupted(|| file.length())
        .map_err(|error| Error::io("measuring", &path, None, error))?;
    let mut bytes = vec![0; usize::try_from(length.min(MAX_FILE_BYTES)).unwrap_or(0)];
    for (piece, at) in bytes.chunks_mut(SECTOR).zip((0u64..).step_by(SECTOR)) {
        // What the disk cannot read stays zeros, which are never an edit.
        let _ = disk::read_up_to(file.as_ref(), piece, at);
    }
    let Some(head) = Head::parse(&bytes).filter(|head| head.version == FORMAT_VERSION) else {
        return Ok(Remains::default());
    };
    let extent = Extent {
        seed: Seed::of_manifest(&head.uuid, head.generation),
        start: SECTOR_BYTES,
        end: bytes.len() as u64,
        base: Some(0),
        ordinal_end: None,
    };
    let mut edits = Vec::new();
    scan::scan(bytes.as_slice(), &extent, |frame| {
        let payload = usize::try_from(frame.position + frame::HEADER_BYTES)
            .ok()
            .and_then(|start| bytes.get(start..start.checked_add(frame.header.length as usize)?));
        edits.extend(payload.and_then(|payload| Edit::decode(payload).ok()));
    });
    Ok(Remains { uuid: Some(head.uuid), generation: Some(head.generation), edits })
}

fn load(file: &dyn DiskFile, length: u64) -> Result<Vec<u8>, String> {
    let length = usize::try_from(length)
        .ok()
        .filter(|_| length <= MAX_FILE_BYTES)
        .ok_or_else(|| format!("it is longer than {MAX_FILE_BYTES} bytes, which no manifest is"))?;
    let mut bytes = vec![0; length];
    let got = disk::read_up_to(file, &mut bytes, 0).map_err(|error| format!("it cannot be read: {error}"))?;
    bytes.truncate(got);
    Ok(bytes)
}

fn damage(directory: &Path, position: Option<u64>, what: String, proof: Option<String>) -> Damage {
    Damage {
        directory: directory.to_path_buf(),
        file: directory.join(FILE_NAME),
        position,
        offsets: None,
        what,
        proof,
    }
}

/// Judges a MANIFEST's bytes. Pure.
///
/// # Errors
/// [`Error::UnsupportedVersion`].
pub(crate) fn interpret(directory: &Path, bytes: &[u8]) -> Result<Reading> {
    let damaged = |position, what: &str, proof| {
        Ok(Reading::Damaged(damage(directory, position, what.to_string(), proof)))
    };
    let Some(head) = Head::parse(bytes) else {
        return damaged(Some(0), "its head is not what was written", None);
    };
    if head.version != FORMAT_VERSION {
        return Err(Error::UnsupportedVersion {
            path: directory.join(FILE_NAME),
            version: head.version,
            supported: FORMAT_VERSION,
        });
    }
    if (bytes.len() as u64) < head.length {
        let what = format!("it ends at byte {}, but had {} when it was named", bytes.len(), head.length);
        return damaged(Some(bytes.len() as u64), &what, None);
    }
    let extent = Extent {
        seed: Seed::of_manifest(&head.uuid, head.generation),
        start: SECTOR_BYTES,
        end: bytes.len() as u64,
        base: Some(0),
        ordinal_end: None,
    };
    let mut frames = Vec::new();
    let outcome = scan::scan(bytes, &extent, |frame| frames.push(frame));
    let (whole, length) =
        outcome.chain().map_or((0, SECTOR_BYTES), |run| (run.whole_ordinal, run.whole_position));
    // A manifest gets its name only once its first batch is durable.
    let proven = outcome.watermark.map_or(1, |mark| mark.relative.max(1));
    if i64::from(whole) < proven {
        let proof = outcome.watermark.map(|mark| {
            format!(
                "the frame at byte {} says that {} edits were durable, {whole} are intact",
                mark.position, mark.relative
            )
        });
        return damaged(Some(length), "an edit that was acknowledged is not what was written", proof);
    }
    let mut edits = Vec::new();
    for frame in frames.iter().take_while(|frame| frame.position < length) {
        let payload = usize::try_from(frame.position + frame::HEADER_BYTES)
            .ok()
            .and_then(|start| bytes.get(start..start.checked_add(frame.header.length as usize)?));
        match payload.map(Edit::decode) {
            Some(Ok(edit)) => edits.push(edit),
            Some(Err(defect)) => {
                return damaged(Some(frame.position), &format!("an edit cannot be read: {defect}"), None);
            }
            None => return damaged(Some(frame.position), "an edit reaches beyond the file", None),
        }
    }
    let state = match State::fold(edits) {
        Ok(state) if state.uuid == head.uuid => state,
        Ok(_) => return damaged(Some(SECTOR_BYTES), "its head and its Init name different logs", None),
        Err(contradiction) => {
            return damaged(
                Some(SECTOR_BYTES),
                &format!("its edits contradict each other: {contradiction}"),
                None,
            );
        }
    };
    let tail = outcome.tail.map_or(Tail::Clean, Tail::Torn);
    Ok(Reading::Whole { state, generation: head.generation, tail, length, edits: whole })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Head {
    version: u32,
    uuid: [u8; 16],
    generation: u64,
    /// The file's length when it got its name: it never gets shorter.
    length: u64,
}

impl Head {
    fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(SECTOR);
        bytes.extend(MAGIC);
        bytes.extend(self.version.to_le_bytes());
        bytes.extend([0; 4]);
        bytes.extend(self.uuid);
        bytes.extend(self.generation.to_le_bytes());
        bytes.extend(self.length.to_le_bytes());
        let checksum = crc32fast::hash(&bytes);
        bytes.extend(checksum.to_le_bytes());
        bytes.resize(SECTOR, 0);
        bytes
    }

    fn parse(bytes: &[u8]) -> Option<Head> {
        let head = bytes.first_chunk::<HEAD_BYTES>()?;
        let (body, checksum) = head.split_last_chunk::<4>()?;
        if crc32fast::hash(body) != u32::from_le_bytes(*checksum) {
            return None;
        }
        let (magic, rest) = body.split_first_chunk::<8>()?;
        let (version, rest) = rest.split_first_chunk::<4>()?;
        let (_, rest) = rest.split_first_chunk::<4>()?;
        let (uuid, rest) = rest.split_first_chunk::<16>()?;
        let (generation, rest) = rest.split_first_chunk::<8>()?;
        let (length, _) = rest.split_first_chunk::<8>()?;
        (*magic == MAGIC).then(|| Head {
            version: u32::from_le_bytes(*version),
            uuid: *uuid,
            generation: u64::from_le_bytes(*generation),
            length: u64::from_le_bytes(*length),
        })
    }
}

/// Encodes edits as one batch of frames.
fn encode_batch(edits: &[Edit], first_ordinal: u32, seed: Seed) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut ordinal = first_ordinal;
    for (index, edit) in edits.iter().enumerate() {
        let payload = edit.encode();
        let header = Header {
            kind: if index + 1 == edits.len() { Kind::Record } else { Kind::RecordMore },
            length: u32::try_from(payload.len()).unwrap_or(frame::MAX_PAYLOAD_BYTES),
            ordinal,
            // Everything before this batch was fsynced before it: the batch's start is the durable end.
            lag: Lag::between(u64::from(ordinal), u64::from(first_ordinal)),
        };
        frame::encode_into(&mut bytes, &header, &payload, seed);
        ordinal = ordinal.saturating_add(1);
    }
    bytes
}

/// A fresh MANIFEST, encoded: what it is when nothing was appended to it yet.
pub(crate) struct Encoded {
    batch: Vec<u8>,
    /// The position behind the last edit.
    position: u64,
    /// How long the file should be: room for as much again.
    pub(crate) reserved: u64,
    edits: u32,
}

impl Encoded {
    /// The bytes of a file that will be `reserved` bytes long.
    pub(crate) fn bytes(&self, uuid: &[u8; 16], generation: u64, reserved: u64) -> Vec<u8> {
        let head = Head { version: FORMAT_VERSION, uuid: *uuid, generation, length: reserved };
        let mut bytes = head.encode();
        bytes.extend_from_slice(&self.batch);
        bytes
    }

    /// The least length that a file with these edits can have: filesystems give space in blocks, and the
    /// rest of the last one costs nothing.
    pub(crate) fn least(&self) -> u64 {
        self.position.next_multiple_of(4096)
    }
}

/// Encodes what a fresh MANIFEST of this state says. Pure.
///
/// # Errors
/// What could not be read again is not written: a state that was recovered from bytes which contradict
/// each other may contradict itself.
pub(crate) fn encode(directory: &Path, state: &State, generation: u64) -> Result<Encoded> {
    let edits = state.edits();
    check_readable(directory, &edits).map_err(Failure::into_error)?;
    if let Err(contradiction) = State::fold(edits.iter().cloned()) {
        let what = format!("what it says and what the stores say contradict each other: {contradiction}");
        return Err(damage(directory, None, what, None).into());
    }
    let batch = encode_batch(&edits, 0, Seed::of_manifest(&state.uuid, generation));
    let position = SECTOR_BYTES + batch.len() as u64;
    if position > MAX_FILE_BYTES {
        return Err(Error::TooLarge { what: "manifest", bytes: position, limit: MAX_FILE_BYTES });
    }
    // As much room again as the state takes: a checkpoint's cost is spread over as many edits.
    let reserved = (position + position.max(ROOM_BYTES)).min(MAX_FILE_BYTES);
    Ok(Encoded { batch, position, reserved, edits: u32::try_from(edits.len()).unwrap_or(u32::MAX) })
}

/// Why a manifest was not changed, and whether that is certain.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Nothing changed: the old state stands.
    Refused(Error),
    /// It is unknown what a reopening would find: the log must be poisoned.
    Unknown(Error),
}

impl Failure {
    pub(crate) fn into_error(self) -> Error {
        match self {
            Failure::Refused(error) | Failure::Unknown(error) => error,
        }
    }
}

/// The MANIFEST that this process wrote, open for appending.
#[derive(Debug)]
pub(crate) struct ManifestFile {
    disk: Arc<dyn Disk>,
    directory: PathBuf,
    path: PathBuf,
    file: Arc<dyn DiskFile>,
    state: State,
    generation: u64,
    seed: Seed,
    position: u64,
    ordinal: u32,
    reserved: u64,
    /// How much space `MANIFEST.next` holds for the next manifest.
    ballast: u64,
}

impl ManifestFile {
    /// Writes `state` into a fresh MANIFEST: temporary name, fsync, rename, directory fsync.
    pub(crate) fn create(
        disk: Arc<dyn Disk>,
        directory: &Path,
        state: State,
        generation: u64,
    ) -> Result<ManifestFile, Failure> {
        let next = directory.join(NEXT_NAME);
        let seed = Seed::of_manifest(&state.uuid, generation);
        let encoded = encode(directory, &state, generation).map_err(Failure::Refused)?;
        let Encoded { position, reserved, edits, .. } = encoded;
        let write = |reserved: u64| {
            let bytes = encoded.bytes(&state.uuid, generation, reserved);
            remove_if_present(disk.as_ref(), &next)?;
            let file = disk::retry_interrupted(|| disk.open(&next, OpenMode::CreateNew))
                .map_err(|error| Error::io_or_no_space("creating", &next, reserved, error))?;
            disk::retry_interrupted(|| file.reserve(reserved))
                .map_err(|error| Error::io_or_no_space("reserving space in", &next, reserved, error))?;
            disk::write_all_at(file.as_ref(), &bytes, 0)
                .map_err(|error| Error::io_or_no_space("writing", &next, reserved, error))?;
            if !mutant::on(Mutant::ManifestUnsynced) {
                disk::retry_interrupted(|| file.sync())
                    .map_err(|error| Error::io("syncing", &next, None, error))?;
            }
            Ok((file, reserved))
        };
        // A full disk may still hold the state, if not room for more.
        let written = write(reserved)
            .or_else(|error: Error| if error.is_no_space() { write(encoded.least()) } else { Err(error) });
        let (file, reserved) = match written {
            Ok(written) => written,
            Err(error) => {
                // What is half-made has no meaning; leaving it would only hold space.
                let _ = remove_if_present(disk.as_ref(), &next);
                return Err(Failure::Refused(error));
            }
        };
        let path = directory.join(FILE_NAME);
        disk::retry_interrupted(|| disk.rename(&next, &path))
            .map_err(|error| Failure::Unknown(Error::io("renaming to", &path, None, error)))?;
        if !mutant::on(Mutant::ManifestNameUnsynced) && !mutant::on(Mutant::ManifestUnsynced) {
            disk::retry_interrupted(|| disk.sync_dir(directory))
                .map_err(|error| Failure::Unknown(Error::io("syncing directory", directory, None, error)))?;
        }
        let ordinal = edits;
        let directory = directory.to_path_buf();
        let mut manifest = ManifestFile {
            disk,
            directory,
            path,
            file,
            state,
            generation,
            seed,
            position,
            ordinal,
            reserved,
            ballast: 0,
        };
        manifest.restock();
        Ok(manifest)
    }

    /// The mutants that go on in the file that is there: `None` where they don't.
    #[cfg(feature = "_mutants")]
    pub(crate) fn go_on(
        disk: &Arc<dyn Disk>,
        directory: &Path,
        state: &State,
    ) -> Option<Result<ManifestFile, Failure>> {
        let (trusted, continued) =
            (mutant::on(Mutant::ManifestTrusted), mutant::on(Mutant::ManifestContinued));
        if !trusted && !continued {
            return None;
        }
        let Ok(Reading::Whole { state: old, generation, length, edits, .. }) = read(disk.as_ref(), directory)
        else {
            return None;
        };
        let edits_to_come = old.edits_to(state);
        if old.closed.is_some() || !(continued || trusted && edits_to_come.is_empty()) {
            return None;
        }
        let path = directory.join(FILE_NAME);
        let file = disk.open(&path, OpenMode::ReadWrite).ok()?;
        let mut manifest = ManifestFile {
            disk: disk.clone(),
            directory: directory.to_path_buf(),
            path,
            reserved: file.length().ok()?,
            file,
            seed: Seed::of_manifest(&old.uuid, generation),
            state: old,
            generation,
            position: length,
            ordinal: edits,
            ballast: 0,
        };
        let appended = if edits_to_come.is_empty() { Ok(()) } else { manifest.append(edits_to_come) };
        manifest.state = state.clone();
        manifest.restock();
        Some(appended.map(|()| manifest))
    }

    /// Whether the next manifest is sure to find space.
    pub(crate) fn has_ballast(&self) -> bool {
        self.ballast >= self.least_ballast()
    }

    /// What the next manifest needs at least: the state folded takes no more than its edits, and a
    /// recovery adds a few.
    fn least_ballast(&self) -> u64 {
        const RECOVERY_BYTES: u64 = 1024;
        self.position.saturating_add(RECOVERY_BYTES).next_multiple_of(4096)
    }

    pub(crate) fn state(&self) -> &State {
        &self.state
    }

    /// Appends edits as one batch and makes them durable; where the file has no room for them, a
    /// fresh one that says the same takes its place. They are folded in when this returns.
    pub(crate) fn append(&mut self, edits: Vec<Edit>) -> Result<(), Failure> {
        check_readable(&self.directory, &edits)?;
        let bytes = encode_batch(&edits, self.ordinal, self.seed);
        let count = u32::try_from(edits.len()).unwrap_or(u32::MAX);
        let mut state = self.state.clone();
        for edit in edits {
            // Every edit was decided from this state under its lock, so that none contradicts it.
            state.apply(edit).map_err(|why| {
                let source = std::io::Error::other(format!("an edit contradicts the state: {why}"));
                Failure::Unknown(Error::io("changing", &self.path, Some(self.position), source))
            })?;
        }
        if self.position + bytes.len() as u64 > self.reserved {
            let generation = self.generation.saturating_add(1);
            let fresh = ManifestFile::create(self.disk.clone(), &self.directory, state, generation)
                // It took the ballast for its attempt.
                .inspect_err(|_| self.restock())?;
            tracing::debug!(directory = %self.directory.display(), generation, "manifest checkpoint");
            *self = fresh;
            return Ok(());
        }
        disk::write_all_at(self.file.as_ref(), &bytes, self.position).map_err(|error| {
            Failure::Unknown(Error::io("writing", &self.path, Some(self.position), error))
        })?;
        if !mutant::on(Mutant::EditUnsynced) {
            disk::retry_interrupted(|| self.file.sync())
                .map_err(|error| Failure::Unknown(Error::io("syncing", &self.path, None, error)))?;
        }
        self.position += bytes.len() as u64;
        self.ordinal = self.ordinal.saturating_add(count);
        self.state = state;
        Ok(())
    }

    /// Lays in ballast: a file as large as the next manifest will be, to be removed when that is
    /// written, so that truncating and reopening work on a full disk. Best effort.
    pub(crate) fn restock(&mut self) {
        let next = self.directory.join(NEXT_NAME);
        // The next manifest holds at most what this one has room for, and as much room again; where
        // that does not fit, at least its state.
        let lay = |wanted: u64| {
            disk::retry_interrupted(|| match self.disk.open(&next, OpenMode::ReadWrite) {
                Ok(file) if file.length()? >= wanted => file.length(),
                Ok(file) => file.reserve(wanted).map(|()| wanted),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    self.disk.open(&next, OpenMode::CreateNew)?.reserve(wanted).map(|()| wanted)
                }
                Err(error) => Err(error),
            })
        };
        let least = self.least_ballast();
        let outcome = lay(self.reserved.saturating_mul(2)).or_else(|_| lay(least));
        self.ballast = outcome.as_ref().copied().unwrap_or(0);
        if let Err(error) = outcome {
            tracing::debug!(%error, file = %next.display(), "no ballast for the next manifest for now");
        }
    }
}

/// Refuses edits that could not be read again: ids or offsets beyond those that files may state.
fn check_readable(directory: &Path, edits: &[Edit]) -> Result<(), Failure> {
    let unreadable = edits.iter().find_map(|edit| Edit::decode(&edit.encode()).err());
    unreadable.map_or(Ok(()), |defect| {
        let what = format!("what it says leaves no room for more: {defect}");
        Err(Failure::Refused(damage(directory, None, what, None).into()))
    })
}

/// Removes a file that may not be there.
pub(crate) fn remove_if_present(disk: &dyn Disk, path: &Path) -> Result<()> {
    disk::remove_if_present(disk, path).map_err(|error| Error::io("removing", path, None, error))
}
