//! What a repair does and what it gives up, as data and in words. Pure.
//!
//! It owns the list of deeds and losses that a plan is told by, and how each is said. It decides none of
//! them. Invariant: what is said names the file, and the offsets where records are concerned.

use std::fmt;
use std::ops::Range;

use super::survey::Mend;
use crate::manifest::OffsetRanges;
use crate::names;

/// Which acknowledged records a repair gives up.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Loss {
    /// Their offsets.
    pub offsets: OffsetRanges,
    /// Where nobody can tell how many there were: the first offset that may have been one.
    pub open_from: Option<u64>,
}

impl Loss {
    /// Whether nothing is given up.
    pub fn is_nothing(&self) -> bool {
        self.offsets.is_empty() && self.open_from.is_none()
    }

    /// The ranges to be accepted, as a plan for `end` states them: of an open loss the part up to there.
    pub fn ranges(&self, end: u64) -> Vec<Range<u64>> {
        let mut all = self.offsets.clone();
        if let Some(from) = self.open_from {
            all.insert(from..end);
        }
        let mut ranges: Vec<Range<u64>> = all.iter().collect();
        // An open loss that is said to be none is said, too.
        ranges.extend(self.open_from.filter(|from| *from == end).map(|from| from..from));
        ranges
    }
}

/// Why a loss is not accepted by what the caller named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LossRefused {
    /// What has to be named.
    pub wanted: Vec<Range<u64>>,
    /// What was named.
    pub named: Vec<Range<u64>>,
    /// Where nobody has told yet how many were lost: the first offset that may have been one. (The range in
    /// `wanted` that begins there says that there was none, which is for the caller to say.)
    pub open_from: Option<u64>,
}

impl fmt::Display for LossRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        /// More are not told one by one.
        const MOST: usize = 20;
        let word = |range: &Range<u64>, option: &str| match self.open_from {
            Some(from) if from == range.start => format!("{option}{from}..B"),
            _ => format!("{option}{}..{}", range.start, range.end),
        };
        let words = |ranges: &[Range<u64>], option: &str| {
            let mut words: Vec<String> = ranges.iter().take(MOST).map(|range| word(range, option)).collect();
            let more = ranges.len().saturating_sub(MOST);
            words.extend((more > 0).then(|| format!("and {more} more")));
            if words.is_empty() { "nothing".to_string() } else { words.join(" ") }
        };
        let add = if self.wanted.len() > MOST {
            "--accept-loss-from FILE, which names them one on a line, or is a plan that was written with --json"
                .to_string()
        } else {
            words(&self.wanted, "--accept-loss ")
        };
        write!(
            f,
            "this gives up acknowledged records, and has to be told which: {}. Named was: {}. Nothing was changed; to give \
             them up, add: {add}",
            words(&self.wanted, ""),
            words(&self.named, ""),
        )?;
        // A number to copy would be taken for one that is known.
        self.open_from.map_or(Ok(()), |_| {
            write!(f, ", with an offset for B at and above which no reader ever saw a record")
        })
    }
}

/// One thing that a repair does, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// The MANIFEST is put together from the stores.
    RebuildManifest {
        /// What is wrong with the one that is there.
        why: String,
    },
    /// A store gets its head or base back, or zeros where the disk cannot read.
    RewriteStore {
        /// What is done to it.
        mend: Mend,
    },
    /// A segment ends where its intact records do.
    Seal {
        /// The segment.
        id: u64,
        /// The offset behind its last record.
        next_offset: u64,
        /// The position behind its last frame.
        length: u64,
    },
    /// Records that may be in the page cache alone are copied into a fresh store.
    Copy {
        /// The fresh segment.
        id: u64,
        /// The records.
        offsets: Range<u64>,
        /// The segments they come from.
        from: Vec<u64>,
    },
    /// A segment of which nothing is left goes.
    Drop {
        /// The segment.
        id: u64,
        /// Why.
        why: &'static str,
    },
    /// Records are declared lost, for good: reading one gives `Error::Lost`.
    DeclareLost {
        /// The records.
        offsets: Range<u64>,
        /// The segment that held them, where that is known.
        segment: Option<u64>,
    },
    /// An index is written anew.
    WriteIndex {
        /// The segment.
        id: u64,
    },
    /// A file is moved into `repair/`, and nothing takes its place.
    TakeOut {
        /// Its name.
        name: String,
        /// Why.
        why: &'static str,
    },
    /// A fresh MANIFEST says all this, and that the log is closed.
    WriteManifest {
        /// Its generation.
        generation: u64,
        /// The offset that the next record gets.
        next_offset: u64,
    },
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Action::RebuildManifest { why } => {
                write!(f, "put the MANIFEST together from the stores ({why})")
            }
            Action::RewriteStore { mend } => {
                let mut what = Vec::new();
                what.extend(mend.misnamed.map(|name| format!("what lies in {}", names::store(name))));
                what.extend(mend.unsynced.then(|| "what may be in the page cache alone".to_string()));
                what.extend(mend.head_gone.then(|| "its head".to_string()));
                what.extend(mend.base_gone.then(|| format!("its base, {}", mend.base)));
                if !mend.unreadable.is_empty() {
                    let bytes: u64 = mend.unreadable.iter().map(|range| range.end - range.start).sum();
                    what.push(format!("zeros for {bytes} bytes that the disk cannot read"));
                }
                write!(f, "write {} anew, with {}", names::store(mend.id), what.join(" and "))
            }
            Action::Seal { id, next_offset, length } => {
                write!(f, "seal {} at offset {next_offset}, byte {length}", names::store(*id))
            }
            Action::Copy { id, offsets, from } => {
                let from: Vec<String> = from.iter().map(|id| names::store(*id)).collect();
                write!(
                    f,
                    "copy records {}..{} from {} into {}",
                    offsets.start,
                    offsets.end,
                    from.join(", "),
                    names::store(*id)
                )
            }
            Action::Drop { id, why } => write!(f, "drop segment {id:x}: {why}"),
            Action::DeclareLost { offsets, segment } => {
                match offsets.end - offsets.start {
                    1 => write!(f, "declare record {} lost", offsets.start)?,
                    _ => write!(f, "declare records {}..{} lost", offsets.start, offsets.end)?,
                }
                segment.map_or(Ok(()), |id| write!(f, " ({})", names::store(id)))
            }
            Action::WriteIndex { id } => write!(f, "write {} anew from its store", names::index(*id)),
            Action::TakeOut { name, why } => write!(f, "move {name} out: {why}"),
            Action::WriteManifest { generation, next_offset } => {
                write!(
                    f,
                    "write a fresh MANIFEST (generation {generation}): closed, next offset {next_offset}"
                )
            }
        }
    }
}
