//! Waiting for a log to change, with reads only: for `dump --follow`.
//!
//! It owns what is looked at to tell that something may be new: the names and lengths in the directory, which
//! MANIFEST it is, and for each unsealed store the 16 bytes where its next frame will begin. It does not know what
//! is new: a fresh look at the log says that. Invariant: no record that became durable after [`Watch::begin`] is
//! missed; to wake for nothing is allowed.
//!
//! Why not inotify: it does not tell of what another machine writes, exists on one system, and a handful of small
//! reads five times a second costs nothing. Why not the file's length: space is reserved ahead.

use std::path::{Path, PathBuf};
use std::time::Duration;

use stonelog::disk::Disk;
use stonelog::frame::HEADER_BYTES;
use stonelog::manifest::{self, Reading};
use stonelog::recovery::{Depth, inspect};
use stonelog::store::FIRST_FRAME;

use crate::looking::{LookingDisk, StoreSource};

const PAUSE: Duration = Duration::from_millis(200);

/// A log as it was at one moment.
pub(super) struct Watch {
    directory: PathBuf,
    names: Names,
    places: Vec<Place>,
    /// Something was being written at that moment, or lies torn: no 16 bytes can tell when it is whole.
    restless: bool,
}

/// What is in the directory, and which MANIFEST; nothing where that cannot be told.
#[derive(PartialEq, Eq)]
struct Names {
    entries: Vec<(String, u64)>,
    /// Its generation and its length.
    manifest: Option<(u64, u64)>,
}

impl Names {
    fn of(directory: &Path) -> Names {
        let disk = LookingDisk::default();
        let entries = disk.list(directory).unwrap_or_default();
        let manifest = match manifest::read(&disk, directory) {
            Ok(Reading::Whole { generation, length, .. }) => Some((generation, length)),
            _ => None,
        };
        Names { entries: entries.into_iter().map(|entry| (entry.name, entry.length)).collect(), manifest }
    }
}

/// Where a store's next frame will begin, and the bytes that are there.
struct Place {
    id: u64,
    position: u64,
    bytes: Option<Vec<u8>>,
}

impl Place {
    fn read(directory: &Path, id: u64, position: u64) -> Option<Vec<u8>> {
        let source = StoreSource::open(&LookingDisk::default(), directory, id).ok()?;
        let mut bytes = vec![0; usize::try_from(HEADER_BYTES).ok()?];
        stonelog::scan::Source::read(&source, position, &mut bytes).ok()?;
        Some(bytes)
    }
}

impl Watch {
    /// Remembers how the log looks now.
    pub(super) fn begin(directory: &Path) -> Watch {
        // The names first: what changes while the stores are looked at then differs.
        let names = Names::of(directory);
        let mut places = Vec::new();
        if let Ok(findings) = inspect(&LookingDisk::default(), directory, Depth::Opening) {
            // A closed log goes on with a fresh MANIFEST.
            let closed = matches!(&findings.manifest, Reading::Whole { state, .. } if state.closed.is_some());
            let unsealed = findings.segments.iter().filter(|segment| segment.state.seal.is_none() && !closed);
            for segment in unsealed {
                let runs = segment.scan.as_ref().and_then(|scan| scan.runs.last());
                let position = runs.map_or(FIRST_FRAME, |run| run.positions.end);
                let bytes = Place::read(directory, segment.id, position);
                places.push(Place { id: segment.id, position, bytes });
            }
        }
        let restless = places.iter().any(|place| place.bytes.iter().flatten().any(|byte| *byte != 0));
        Watch { directory: directory.to_path_buf(), names, places, restless }
    }

    /// Waits until the log may have something new.
    pub(super) fn wait(&self) {
        loop {
            self.pause();
            let moved = |place: &Place| Place::read(&self.directory, place.id, place.position) != place.bytes;
            if self.restless || Names::of(&self.directory) != self.names || self.places.iter().any(moved) {
                return;
            }
        }
    }

    /// Waits for a moment.
    pub(super) fn pause(&self) {
        std::thread::sleep(PAUSE);
    }
}
