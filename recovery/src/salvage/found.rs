//! What was found in the source, before anybody decided where it belongs.
//!
//! It owns plain data: the files that were read, runs of intact frames in them, and which segment each is of. It
//! holds nothing of a record but its place, so that its size does not grow with the log's bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use stonelog::disk::{self, Disk, DiskFile, OpenMode};
use stonelog::frame::{ALIGNMENT, Seed};
use stonelog::manifest::State;
use stonelog::scan::{Run, Source};
use stonelog::store::Origin;

/// A file of the source.
#[derive(Debug, Clone)]
pub(super) struct SourceFile {
    pub(super) path: PathBuf,
    /// How it is called in reports.
    pub(super) name: String,
}

impl SourceFile {
    pub(super) fn open(&self, disk: &dyn Disk) -> io::Result<OpenFile> {
        let file = disk::retry_interrupted(|| disk.open(&self.path, OpenMode::Read))?;
        let file_length = disk::retry_interrupted(|| file.length())?;
        Ok(OpenFile { file, file_length })
    }
}

/// An open file: something to scan and to read from. Its length is rounded up, with zeros: a file that was cut off
/// inside a frame's padding holds all of the record.
pub(super) struct OpenFile {
    file: Arc<dyn DiskFile>,
    file_length: u64,
}

impl Source for OpenFile {
    fn length(&self) -> u64 {
        self.file_length.next_multiple_of(ALIGNMENT)
    }

    fn read(&self, position: u64, buffer: &mut [u8]) -> io::Result<()> {
        let there = usize::try_from(self.file_length.saturating_sub(position)).unwrap_or(usize::MAX);
        let (held, behind) = buffer.split_at_mut(there.min(buffer.len()));
        if behind.len() as u64 >= ALIGNMENT {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        behind.fill(0);
        disk::read_exact_at(self.file.as_ref(), held, position)
    }
}

/// A run of intact frames in a file.
#[derive(Debug, Clone)]
pub(super) struct Piece {
    /// Which of [`Found::files`].
    pub(super) file: usize,
    pub(super) seed: Seed,
    pub(super) run: Run,
}

impl Piece {
    pub(super) fn records(&self) -> u64 {
        u64::from(self.run.ordinals.end - self.run.ordinals.start)
    }
}

/// What was found of one segment.
#[derive(Debug, Clone, Default)]
pub(super) struct Segment {
    pub(super) origin: Option<Origin>,
    /// What base sectors say. One, unless somebody wrote another with a checksum that holds.
    pub(super) bases: BTreeSet<u64>,
    pub(super) pieces: Vec<Piece>,
    /// The highest watermark of its frames, relative to its base.
    pub(super) watermark: Option<i64>,
    /// Where its records end, if its frames go from the first one on without a gap to the end of a whole batch, with
    /// nothing but zeros behind.
    pub(super) whole_end: Option<u32>,
}

/// Records whose segment, or log, is not the one that is salvaged.
#[derive(Debug, Clone)]
pub(super) struct Loose {
    pub(super) piece: Piece,
    /// Which segment of which log, where that is known all the same.
    pub(super) of: Option<([u8; 16], u64)>,
}

/// A store in `quarantine/`.
#[derive(Debug, Clone)]
pub(super) struct Quarantined {
    pub(super) file: String,
    pub(super) records: u64,
    pub(super) offsets: Option<Range<u64>>,
}

/// What the MANIFEST said.
#[derive(Debug, Clone)]
pub(super) enum Manifest {
    /// All of it.
    Whole(Box<State>),
    /// Nothing reliable.
    Unusable {
        /// Why, in a word.
        word: &'static str,
        /// Why, in a sentence.
        why: String,
    },
}

impl Manifest {
    pub(super) fn state(&self) -> Option<&State> {
        match self {
            Manifest::Whole(state) => Some(state),
            Manifest::Unusable { .. } => None,
        }
    }

    pub(super) fn word(&self) -> &'static str {
        match self {
            Manifest::Whole(_) => "whole",
            Manifest::Unusable { word, .. } => word,
        }
    }
}

/// Everything that was found.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) manifest: Manifest,
    pub(super) files: Vec<SourceFile>,
    pub(super) uuid: Option<[u8; 16]>,
    pub(super) created_millis: Option<u64>,
    pub(super) segments: BTreeMap<u64, Segment>,
    /// Whether ids are those that the log gave; otherwise segments are numbered by their bases.
    pub(super) ids_are_known: bool,
    pub(super) loose: Vec<Loose>,
    pub(super) quarantined: Vec<Quarantined>,
    /// What the disk could not read.
    pub(super) unreadable: Vec<(usize, Range<u64>)>,
    /// What must be said of the source, and leaves something unknown.
    pub(super) unknown: Vec<String>,
    /// What is worth a word, and leaves nothing unknown.
    pub(super) notes: Vec<String>,
}

impl Found {
    pub(super) fn new(manifest: Manifest) -> Found {
        Found {
            manifest,
            files: Vec::new(),
            uuid: None,
            created_millis: None,
            segments: BTreeMap::new(),
            ids_are_known: true,
            loose: Vec::new(),
            quarantined: Vec::new(),
            unreadable: Vec::new(),
            unknown: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// Notes a file; gives its number.
    pub(super) fn add_file(&mut self, path: PathBuf, name: String) -> usize {
        self.files.push(SourceFile { path, name });
        self.files.len() - 1
    }

    pub(super) fn name(&self, file: usize) -> &str {
        self.files.get(file).map_or("", |file| file.name.as_str())
    }
}
