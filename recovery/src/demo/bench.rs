//! The log that is struck, and the blows.
//!
//! It owns how a practice log is written (through the public `Log`), where its frames are (by the
//! library's own scanner), and plain writes into its files, each noted with what it hit. It does not
//! know which blows make which kind of damage.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;
use stonelog::disk::{self, Disk, DiskFile, OpenMode, OsDisk};
use stonelog::frame::Seed;
use stonelog::recovery::{Depth, inspect};
use stonelog::scan::{self, Extent, Frame};
use stonelog::store::FIRST_FRAME;
use stonelog::{DamagePolicy, Log, MIN_SEGMENT_BYTES, Options, ReadMode, names};

use super::disk::DemoDisk;
use crate::Failure;
use crate::looking::StoreSource;

/// Something that was done to a file behind the log's back.
#[derive(Debug, Serialize)]
pub(super) struct Blow {
    /// The file's name in the log directory.
    pub(super) file: String,
    /// From where on its bytes were changed.
    pub(super) position: Option<u64>,
    /// Up to where.
    pub(super) position_end: Option<u64>,
    /// The first record that it hit.
    pub(super) offset: Option<u64>,
    /// What was done.
    pub(super) what: String,
}

/// A record, found in its store.
pub(super) struct Found {
    pub(super) id: u64,
    pub(super) frame: Frame,
}

impl Found {
    /// The bytes of its frame.
    pub(super) fn bytes(&self) -> Range<u64> {
        self.frame.position..self.frame.position.saturating_add(self.frame.header.frame_bytes())
    }
}

/// See the module.
pub(super) struct Bench {
    directory: PathBuf,
    disk: DemoDisk,
    records: u64,
    closed: bool,
    blows: Vec<Blow>,
}

impl Bench {
    pub(super) fn new(directory: &Path, seed: u64) -> Bench {
        Bench {
            directory: directory.to_path_buf(),
            disk: DemoDisk::new(seed),
            records: 0,
            closed: false,
            blows: Vec::new(),
        }
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    pub(super) fn records(&self) -> u64 {
        self.records
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }

    pub(super) fn blows(&self) -> &[Blow] {
        &self.blows
    }

    /// How many segments hold records, by the names of the stores that do.
    pub(super) fn segments(&self) -> Result<usize, Failure> {
        let with_frames = |id: &u64| {
            let source = StoreSource::open(&OsDisk, &self.directory, *id);
            source.is_ok_and(|source| {
                let mut first = [0; 8];
                scan::Source::read(&source, FIRST_FRAME, &mut first).is_ok() && first != [0; 8]
            })
        };
        let entries = said(OsDisk.list(&self.directory))?;
        Ok(entries.iter().filter_map(|entry| names::id_of_store(&entry.name)).filter(with_frames).count())
    }

    // ---- writing ----

    /// Opens the log; it goes on after a crash.
    pub(super) fn open(&mut self, policy: DamagePolicy) -> Result<Log, Failure> {
        // A new disk: the old one may have lost its power. Its clock goes on where that one stood.
        self.closed = false;
        let options = Options::new()
            .segment_bytes(MIN_SEGMENT_BYTES)
            .read_mode(ReadMode::Buffered)
            .on_damage(policy)
            .disk(Arc::new(self.disk.clone()));
        Ok(options.open(&self.directory)?)
    }

    /// Appends up to the record `end`: singles, and now and then a batch of three.
    pub(super) fn append(&mut self, log: &Log, end: u64) -> Result<(), Failure> {
        let mut next = log.offsets().end;
        while next < end {
            if next % 16 == 12 && next + 3 <= end {
                log.append_batch((next..next + 3).map(payload))?;
                next += 3;
            } else {
                log.append(payload(next))?;
                next += 1;
            }
        }
        self.records = self.records.max(next);
        Ok(())
    }

    /// A log of `count` records, closed.
    pub(super) fn closed(&mut self, count: u64) -> Result<(), Failure> {
        let log = self.open(DamagePolicy::Refuse)?;
        self.append(&log, count)?;
        self.close(&log)
    }

    pub(super) fn close(&mut self, log: &Log) -> Result<(), Failure> {
        log.close()?;
        self.closed = true;
        Ok(())
    }

    /// A log of `count` records, and then the power goes.
    pub(super) fn killed(&mut self, count: u64) -> Result<(), Failure> {
        let log = self.open(DamagePolicy::Refuse)?;
        self.append(&log, count)?;
        self.crash(log);
        Ok(())
    }

    /// What was written stays; nothing is written any more.
    pub(super) fn crash(&mut self, log: Log) {
        self.disk.cut_power();
        drop(log);
        self.disk = self.disk.powered_again();
    }

    // ---- looking ----

    /// Segments' ids that the manifest names, in order.
    pub(super) fn ids(&self) -> Result<Vec<u64>, Failure> {
        let findings = inspect(&OsDisk, &self.directory, Depth::Everything)?;
        let used =
            findings.segments.iter().filter(|s| s.scan.as_ref().is_some_and(|scan| !scan.runs.is_empty()));
        Ok(used.map(|segment| segment.id).collect())
    }

    /// The `nth` segment with records.
    pub(super) fn id(&self, nth: usize) -> Result<u64, Failure> {
        self.ids()?.get(nth).copied().ok_or_else(|| missing("segment"))
    }

    /// Where record `offset` is.
    pub(super) fn find(&self, offset: u64) -> Result<Found, Failure> {
        let findings = inspect(&OsDisk, &self.directory, Depth::Everything)?;
        for segment in &findings.segments {
            let (Some(head), Some(base)) = (segment.store.head(), segment.base) else { continue };
            let Some(ordinal) = offset.checked_sub(base).and_then(|ordinal| u32::try_from(ordinal).ok())
            else {
                continue;
            };
            let source = said(StoreSource::open(&OsDisk, &self.directory, segment.id))?;
            let seed = Seed::of_segment(&head.uuid, segment.id);
            let end = scan::Source::length(&source);
            let extent = Extent { seed, start: FIRST_FRAME, end, base: Some(base), ordinal_end: None };
            let mut found = None;
            scan::scan(&source, &extent, |frame| {
                if frame.header.ordinal == ordinal && frame.header.kind.is_record() {
                    found = Some(frame);
                }
            });
            if let Some(frame) = found {
                return Ok(Found { id: segment.id, frame });
            }
        }
        Err(missing("record"))
    }

    /// A file's bytes.
    pub(super) fn read(&self, name: &str) -> Result<Vec<u8>, Failure> {
        let file = self.file(name, OpenMode::Read)?;
        let length = usize::try_from(said(file.length())?).unwrap_or(0);
        let mut bytes = vec![0; length];
        said(disk::read_exact_at(file.as_ref(), &mut bytes, 0))?;
        Ok(bytes)
    }

    // ---- blows ----

    fn file(&self, name: &str, mode: OpenMode) -> Result<Arc<dyn DiskFile>, Failure> {
        said(OsDisk.open(&self.directory.join(name), mode))
    }

    pub(super) fn note(
        &mut self,
        file: &str,
        bytes: Option<Range<u64>>,
        offset: Option<u64>,
        what: impl Into<String>,
    ) {
        self.blows.push(Blow {
            file: file.to_string(),
            position: bytes.as_ref().map(|bytes| bytes.start),
            position_end: bytes.filter(|bytes| bytes.end > bytes.start + 1).map(|bytes| bytes.end),
            offset,
            what: what.into(),
        });
    }

    /// Puts `bytes` into a file, without a note.
    pub(super) fn put(&self, name: &str, position: u64, bytes: &[u8]) -> Result<(), Failure> {
        said(disk::write_all_at(self.file(name, OpenMode::ReadWrite)?.as_ref(), bytes, position))
    }

    /// Flips one bit of a file.
    pub(super) fn flip(
        &mut self,
        name: &str,
        at: u64,
        offset: Option<u64>,
        what: &str,
    ) -> Result<(), Failure> {
        let mut byte = [0];
        said(disk::read_exact_at(self.file(name, OpenMode::Read)?.as_ref(), &mut byte, at))?;
        self.put(name, at, &byte.map(|byte| byte ^ 0x10))?;
        self.note(name, Some(at..at + 1), offset, format!("one bit was flipped: {what}"));
        Ok(())
    }

    /// Flips a bit in the payload of record `offset`.
    pub(super) fn flip_record(&mut self, offset: u64) -> Result<(), Failure> {
        let found = self.find(offset)?;
        let at = found.frame.position + 16 + 9;
        self.flip(&names::store(found.id), at, Some(offset), &format!("in the payload of record {offset}"))
    }

    /// Turns bytes of a file to zeros.
    pub(super) fn zero(
        &mut self,
        name: &str,
        bytes: Range<u64>,
        offset: Option<u64>,
        what: &str,
    ) -> Result<(), Failure> {
        let zeros = vec![0; usize::try_from(bytes.end - bytes.start).unwrap_or(0)];
        self.put(name, bytes.start, &zeros)?;
        self.note(name, Some(bytes), offset, what);
        Ok(())
    }

    /// Cuts a file short.
    pub(super) fn cut(&mut self, name: &str, length: u64, what: &str) -> Result<(), Failure> {
        said(self.file(name, OpenMode::ReadWrite)?.set_length(length))?;
        self.note(name, Some(length..length), None, what);
        Ok(())
    }

    pub(super) fn remove(&mut self, name: &str, what: &str) -> Result<(), Failure> {
        said(OsDisk.remove(&self.directory.join(name)))?;
        self.note(name, None, None, what);
        Ok(())
    }

    pub(super) fn rename(&self, from: &str, to: &str) -> Result<(), Failure> {
        said(OsDisk.rename(&self.directory.join(from), &self.directory.join(to)))
    }

    /// Makes a file, or makes it anew.
    pub(super) fn write(&self, name: &str, bytes: &[u8]) -> Result<(), Failure> {
        let path = self.directory.join(name);
        if said(OsDisk.exists(&path))? {
            said(OsDisk.remove(&path))?;
        }
        said(disk::write_all_at(said(OsDisk.open(&path, OpenMode::CreateNew))?.as_ref(), bytes, 0))
    }
}

fn said<T>(result: std::io::Result<T>) -> Result<T, Failure> {
    result.map_err(|error| Failure::Said(format!("making the log failed: {error}. Name another directory")))
}

fn missing(what: &str) -> Failure {
    Failure::Said(format!("the log that was made lacks a {what} it should have: another seed may do"))
}

/// The payload of record `offset`: something that can be read in a dump.
pub(super) fn payload(offset: u64) -> String {
    const FRUIT: [&str; 7] = ["apples", "pears", "plums", "cherries", "quinces", "figs", "lemons"];
    const NAMES: [&str; 8] = [
        "Ada Lovelace",
        "Grace Hopper",
        "Alan Turing",
        "Edsger Dijkstra",
        "Barbara Liskov",
        "Donald Knuth",
        "Leslie Lamport",
        "Frances Allen",
    ];
    const STREETS: [&str; 5] = ["Mill Lane", "Station Road", "Harbour Street", "Church Walk", "Long Acre"];
    let pick = |list: &[&'static str], number: u64| {
        usize::try_from(number % list.len() as u64)
            .ok()
            .and_then(|place| list.get(place))
            .copied()
            .unwrap_or("")
    };
    format!(
        "order {offset}: {} {}, {} {} for {}, {} {}; paid {}.{:02} by card",
        3 + offset * 5 % 9,
        pick(&FRUIT, offset),
        2 + offset * 7 % 11,
        pick(&FRUIT, offset * 3 + 1),
        pick(&NAMES, offset * 5 + 2),
        1 + offset * 13 % 97,
        pick(&STREETS, offset * 2 + 1),
        4 + offset * 3 % 30,
        offset * 17 % 100,
    )
}
