//! How a log is opened.
//!
//! It owns the options, their bounds and their defaults. It opens nothing itself: `Log` does.

use std::sync::Arc;
use std::time::Duration;

use crate::disk::{Disk, OsDisk};
use crate::error::{Error, Result};
use crate::frame::MAX_PAYLOAD_BYTES;

/// The smallest segment, in bytes.
pub const MIN_SEGMENT_BYTES: u64 = 4 << 10;
/// The largest segment, in bytes.
pub const MAX_SEGMENT_BYTES: u64 = 16 << 30;
/// The largest offset a log can begin at or be truncated to.
pub const MAX_OFFSET: u64 = 1 << 62;
/// The largest batch, frames included, in bytes. A segment may grow beyond `segment_bytes` by at
/// most this much, as a batch never spans segments.
pub const MAX_BATCH_BYTES: u64 = 512 << 20;

/// When an append is acknowledged, and so which crash can take it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// `append` returns once its record is on disk. No crash takes what it returned.
    Always,
    /// `append` returns at once; a background commit makes everything durable about every so often.
    /// Any crash (of the process or of the machine) takes at most what was appended since the last
    /// commit.
    Interval(Duration),
    /// `append` returns at once; nothing is durable before `sync` or a ticket's `wait` returns. A
    /// killed process loses what is still buffered; a power cut loses what was not synced. (Behind
    /// the writer the log syncs at least every 16 MiB all the same, which bounds recovery.)
    Manual,
}

/// How records are read from files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadMode {
    /// Through memory maps, without copies. A failing disk may raise SIGBUS.
    Mapped,
    /// By pread into memory: a failing disk gives an error.
    Buffered,
}

/// What opening does about damage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DamagePolicy {
    /// Refuse to open, with the file, the position, the offsets and the proof.
    Refuse,
    /// Open all the same: damaged records read as [`Error::Damaged`], every other one is served,
    /// appends go on. No damaged file is changed.
    Serve,
}

/// How to open a log; a builder by value.
///
/// ```
/// # fn main() -> stonelog::Result<()> {
/// # let directory = tempfile::tempdir().unwrap();
/// # let directory = directory.path().join("orders");
/// use stonelog::{Durability, Options};
///
/// let log = Options::new().segment_bytes(8 << 20).durability(Durability::Manual).open(&directory)?;
/// log.append(b"fast")?;
/// log.sync()?; // now durable
/// log.close()?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Options {
    pub(crate) segment_bytes: u64,
    pub(crate) durability: Durability,
    pub(crate) max_record_bytes: u32,
    pub(crate) verify_reads: bool,
    pub(crate) read_mode: ReadMode,
    pub(crate) readers_see_appended: bool,
    pub(crate) on_damage: DamagePolicy,
    pub(crate) first_offset: Option<u64>,
    pub(crate) disk: Arc<dyn Disk>,
}

impl Default for Options {
    fn default() -> Options {
        Options::new()
    }
}

impl Options {
    /// The defaults: segments of 64 MiB, [`Durability::Always`], records up to 16 MiB, verified
    /// reads through maps, readers see durable records only, damage is refused.
    pub fn new() -> Options {
        Options {
            segment_bytes: 64 << 20,
            durability: Durability::Always,
            max_record_bytes: 16 << 20,
            verify_reads: true,
            read_mode: ReadMode::Mapped,
            readers_see_appended: false,
            on_damage: DamagePolicy::Refuse,
            first_offset: None,
            disk: Arc::new(OsDisk),
        }
    }

    /// A segment is rolled when its store would grow beyond this many bytes
    /// ([`MIN_SEGMENT_BYTES`] to [`MAX_SEGMENT_BYTES`]). Can differ at every opening.
    pub fn segment_bytes(mut self, bytes: u64) -> Options {
        self.segment_bytes = bytes;
        self
    }

    /// When an append is acknowledged.
    pub fn durability(mut self, durability: Durability) -> Options {
        self.durability = durability;
        self
    }

    /// The largest record that an append accepts, in bytes (at most 2^28 - 1).
    pub fn max_record_bytes(mut self, bytes: u32) -> Options {
        self.max_record_bytes = bytes;
        self
    }

    /// Whether every read verifies the record's checksum. Without it a read still checks that the
    /// frame carries the wanted record's number and lies within the file.
    pub fn verify_reads(mut self, verify: bool) -> Options {
        self.verify_reads = verify;
        self
    }

    /// How records are read.
    pub fn read_mode(mut self, mode: ReadMode) -> Options {
        self.read_mode = mode;
        self
    }

    /// Whether readers see records that are appended but not durable yet, which a crash may take
    /// back.
    pub fn readers_see_appended(mut self, see: bool) -> Options {
        self.readers_see_appended = see;
        self
    }

    /// What opening does about damage.
    pub fn on_damage(mut self, policy: DamagePolicy) -> Options {
        self.on_damage = policy;
        self
    }

    /// The offset a new log starts at (0 by default). Opening an existing log that was begun with
    /// another first offset is an error.
    pub fn first_offset(mut self, offset: u64) -> Options {
        self.first_offset = Some(offset);
        self
    }

    /// The disk: the operating system's, or a simulated one.
    pub fn disk(mut self, disk: Arc<dyn Disk>) -> Options {
        self.disk = disk;
        self
    }

    /// Refuses values that cannot work.
    pub(crate) fn check(&self) -> Result<()> {
        let invalid = |option, why: String| Err(Error::InvalidOption { option, why });
        if !(MIN_SEGMENT_BYTES..=MAX_SEGMENT_BYTES).contains(&self.segment_bytes) {
            return invalid(
                "segment_bytes",
                format!("{} is not within {MIN_SEGMENT_BYTES}..={MAX_SEGMENT_BYTES}", self.segment_bytes),
            );
        }
        if self.max_record_bytes > MAX_PAYLOAD_BYTES {
            return invalid(
                "max_record_bytes",
                format!("{} is more than a frame holds, which is {MAX_PAYLOAD_BYTES}", self.max_record_bytes),
            );
        }
        if self.first_offset.is_some_and(|first| first > MAX_OFFSET) {
            return invalid("first_offset", format!("it is beyond the largest offset, {MAX_OFFSET}"));
        }
        if self.durability == Durability::Interval(Duration::ZERO) {
            return invalid("durability", "an interval of zero: use Durability::Always".to_string());
        }
        Ok(())
    }
}
