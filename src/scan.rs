//! The scanner: bytes to frames. There is one, for opening, checking, rebuilding and dumping.
//!
//! It owns the walk along the chain of frames, the search for frames beyond a gap, and what the
//! frames attest (watermarks). It does not know files, segments or verdicts: it reads from a
//! [`Source`] and reports an [`Outcome`]; `recovery::verdict` judges. Invariants: it ends on every
//! input, with work linear in the bytes, crafted ones too, and memory bounded by [`MOST_RUNS`],
//! [`WINDOW_BYTES`] and [`MOST_PREFIXES`]; it never trusts a length before it is bounds-checked;
//! unreadable bytes are noted and taken for zeros, which are never a frame.
//!
//! Why the search goes on behind a gap instead of stopping: a crash leaves a gap only in bytes that
//! were never acknowledged, rot leaves one anywhere. What tells them apart is a frame *behind* the
//! gap whose watermark covers it.
//!
//! Why there are two ways to verify a checksum: hashing a payload is fastest, and as long as frames
//! hold, each byte is hashed once or twice. But bytes can be crafted so that at every eighth stands a
//! header that claims all the rest. So what is hashed *in vain* is counted, and once that is as much
//! as there are bytes, payloads are verified from the checksums of the file's prefixes instead, which
//! costs no more than the stride of these prefixes however long the payloads claim to be.

pub(crate) mod prefix;
pub(crate) mod window;

use std::io;
use std::ops::Range;

use crate::frame::{self, HEADER_BYTES, Header, PayloadChecksum, PayloadHasher, Seed};
use crate::mutant::{self, Mutant};
use prefix::Prefixes;
use window::{Ahead, Window};

/// How many bytes are read at once.
pub const WINDOW_BYTES: usize = 1 << 20;
/// At most this many runs of intact frames are told apart in one file; what lies behind still
/// counts as evidence, but not as records that can be served.
pub const MOST_RUNS: usize = 1 << 16;
/// At most this many prefix checksums are held (16 MiB of memory, and a tenth of one for how they are joined).
pub const MOST_PREFIXES: u64 = 1 << 22;

/// How many bytes are read at once where a look aside must not move the window.
pub(crate) const PROBE_BYTES: usize = 64 << 10;

/// Bytes that can be scanned.
pub trait Source {
    /// How many bytes there are.
    fn length(&self) -> u64;

    /// Fills `buffer` from `position`.
    ///
    /// # Errors
    /// When the bytes cannot be read: the scanner notes them as unreadable and goes on.
    fn read(&self, position: u64, buffer: &mut [u8]) -> io::Result<()>;

    /// The same, where most likely there are but zeros: nobody will read them again.
    ///
    /// # Errors
    /// The same.
    fn read_zeros(&self, position: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.read(position, buffer)
    }
}

impl Source for [u8] {
    fn length(&self) -> u64 {
        self.len() as u64
    }

    fn read(&self, position: u64, buffer: &mut [u8]) -> io::Result<()> {
        let bytes = usize::try_from(position)
            .ok()
            .and_then(|start| self.get(start..start.checked_add(buffer.len())?))
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.copy_from_slice(bytes);
        Ok(())
    }
}

/// What part of which file is scanned.
#[derive(Debug, Clone)]
pub struct Extent {
    /// The file's checksum seed.
    pub seed: Seed,
    /// The position of the first frame.
    pub start: u64,
    /// Where the scan ends (at most the file's length).
    pub end: u64,
    /// The offset of ordinal 0, where it is known: a lag beyond its frame's offset is implausible.
    pub base: Option<u64>,
    /// Ordinals from here on belong to a later file: bytes behind them are not looked at.
    pub ordinal_end: Option<u32>,
}

/// A valid frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    /// Where its header begins.
    pub position: u64,
    /// Its header.
    pub header: Header,
    /// What broke the chain right before it; none where it follows the frame before, or is the first.
    pub gap: Option<Defect>,
}

/// Intact frames without a gap between them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// The records' ordinals.
    pub ordinals: Range<u32>,
    /// From the first frame's header to the end of the last frame (marks included).
    pub positions: Range<u64>,
    /// The ordinal behind the last whole batch of the run.
    pub whole_ordinal: u32,
    /// The position behind the last whole batch's last record.
    pub whole_position: u64,
    /// Why no frame follows the last one; none where none is wanted.
    pub broken: Option<Defect>,
}

impl Run {
    /// Whether the run ends inside a batch.
    pub fn has_unfinished_batch(&self) -> bool {
        self.whole_ordinal != self.ordinals.end
    }
}

/// The highest durable end that a file's frames attest, relative to the offset of its ordinal 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Watermark {
    /// Durable end minus the file's base offset: negative where it lies in an earlier file.
    pub relative: i64,
    /// The frame that says so.
    pub position: u64,
}

/// What a scan found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Runs of intact frames, in order; the first may start behind a gap.
    pub runs: Vec<Run>,
    /// The highest watermark of all valid frames.
    pub watermark: Option<Watermark>,
    /// Where the chain from the start stopped, and why, unless it reached the end.
    pub broken: Option<Broken>,
    /// From the first to behind the last non-zero byte beyond the chain's last whole batch.
    pub tail: Option<Range<u64>>,
    /// Ranges that the disk could not read.
    pub unreadable: Vec<Range<u64>>,
    /// How many bytes were hashed for it: the work, which no bytes can make more than a few times
    /// what was scanned (up to 64 MiB; beyond, see [`MOST_PREFIXES`]).
    pub hashed_bytes: u64,
}

/// A place where a frame should be and is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Broken {
    /// The position of the frame that should be there.
    pub position: u64,
    /// What is wrong.
    pub defect: Defect,
}

/// Why bytes are not the frame that should be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Defect {
    /// Zeros, or nothing, where a header should be: the ordinary end of what was written.
    Nothing,
    /// Bytes that were never a header.
    NoHeader,
    /// The length leads beyond the end of the file.
    LengthBeyondEnd,
    /// The checksum does not hold.
    Checksum,
    /// A valid frame with another record's number.
    WrongOrdinal,
    /// The disk could not read the bytes.
    Unreadable,
}

impl Defect {
    /// The defect in words that fit behind "the frame".
    pub const fn describe(self) -> &'static str {
        match self {
            Defect::Nothing => "there is nothing where a frame should be",
            Defect::NoHeader => "the bytes are no frame header",
            Defect::LengthBeyondEnd => "the frame's length leads beyond the end of the file",
            Defect::Checksum => "the frame's checksum does not hold",
            Defect::WrongOrdinal => "a frame of another record stands here",
            Defect::Unreadable => "the disk cannot read the bytes",
        }
    }
}

impl Outcome {
    /// The chain from ordinal 0, where its first frame is intact.
    pub fn chain(&self) -> Option<&Run> {
        self.runs.first().filter(|run| run.ordinals.start == 0)
    }
}

/// Scans `extent` of `source`, calling `sink` for every valid frame in order of position.
pub fn scan(source: &(impl Source + ?Sized), extent: &Extent, mut sink: impl FnMut(Frame)) -> Outcome {
    let end = extent.end.min(source.length());
    let mut scanner = Scanner {
        extent: Extent { end, ..extent.clone() },
        window: Window::new(source, end, WINDOW_BYTES, Ahead::Yes),
        probe: Window::new(source, end, PROBE_BYTES, Ahead::No),
        zeros_from: end,
        credit: end,
        prefixes: None,
        hashed_bytes: 0,
        hasher: PayloadHasher::new(),
    };
    scanner.run(&mut sink)
}

/// Checks the one frame at `position`: its header where it is valid, otherwise what is wrong.
///
/// # Errors
/// The defect.
pub fn frame_at(
    source: &(impl Source + ?Sized),
    seed: Seed,
    position: u64,
    end: u64,
) -> Result<Header, Defect> {
    let end = end.min(source.length());
    let mut window = Window::new(source, end, PROBE_BYTES, Ahead::No);
    let header = window.header(position)?;
    window.verify(position, &header, seed)?;
    Ok(header)
}

struct Scanner<'a, S: Source + ?Sized> {
    extent: Extent,
    /// Moves forward through the bytes.
    window: Window<'a, S>,
    /// Looks aside, at single places, without moving the window.
    probe: Window<'a, S>,
    /// From here on there are but zeros, which are never a frame: nothing to search, nor to read again.
    zeros_from: u64,
    /// How many bytes may still be hashed in vain before prefixes are taken.
    credit: u64,
    prefixes: Option<Prefixes>,
    hashed_bytes: u64,
    hasher: PayloadHasher,
}

impl<S: Source + ?Sized> Scanner<'_, S> {
    fn run(&mut self, sink: &mut impl FnMut(Frame)) -> Outcome {
        let mut outcome = Outcome::default();
        let mut position = self.extent.start;
        let mut ordinal = 0u32;
        let mut gap = None;
        loop {
            let mut run = self.walk(position, ordinal, gap, &mut outcome.watermark, sink);
            let (next_position, next_ordinal) = (run.positions.end, run.ordinals.end);
            let ended = self.extent.ordinal_end.is_some_and(|end| next_ordinal >= end);
            if !ended {
                gap = Some(self.defect_at(next_position, next_ordinal));
                run.broken = gap;
            }
            let first = outcome.runs.is_empty() && outcome.broken.is_none();
            let rest_from = if run.has_unfinished_batch() { run.whole_position } else { next_position };
            if (!run.ordinals.is_empty() || !run.positions.is_empty()) && outcome.runs.len() < MOST_RUNS {
                outcome.runs.push(run);
            }
            if ended {
                break;
            }
            if first {
                outcome.broken = gap.map(|defect| Broken { position: next_position, defect });
                outcome.tail = self.nonzero(rest_from);
                // What the disk did not give may be given when it is asked again.
                if self.window.unreadable.is_empty() {
                    self.zeros_from = outcome.tail.as_ref().map_or(next_position, |tail| tail.end);
                }
            }
            let found = self.search(next_position, next_ordinal);
            match found.filter(|_| !mutant::on(Mutant::SearchOmitted)) {
                Some((found, header)) => (position, ordinal) = (found, header.ordinal),
                None => break,
            }
        }
        outcome.unreadable = std::mem::take(&mut self.window.unreadable);
        outcome.hashed_bytes = self.hashed_bytes;
        outcome
    }

    /// Follows valid frames with consecutive ordinals.
    fn walk(
        &mut self,
        start: u64,
        ordinal: u32,
        mut gap: Option<Defect>,
        watermark: &mut Option<Watermark>,
        sink: &mut impl FnMut(Frame),
    ) -> Run {
        let mut run = Run {
            ordinals: ordinal..ordinal,
            positions: start..start,
            whole_ordinal: ordinal,
            whole_position: start,
            broken: None,
        };
        while self.extent.ordinal_end.is_none_or(|end| run.ordinals.end < end) {
            let position = run.positions.end;
            let header = match self.next_in_memory(position, run.ordinals.end) {
                Some(header) => header,
                None => {
                    let Ok(header) = self.window.header(position) else { break };
                    if header.ordinal != run.ordinals.end
                        || !self.plausible(&header)
                        || self.verify(position, &header).is_err()
                    {
                        break;
                    }
                    header
                }
            };
            let frame = Frame { position, header, gap: gap.take() };
            sink(frame);
            note_watermark(watermark, frame);
            run.positions.end = position + header.frame_bytes();
            if header.kind.is_record() {
                let Some(next) = run.ordinals.end.checked_add(1) else { break };
                run.ordinals.end = next;
            }
            let ends_batch = header.kind == frame::Kind::Record;
            if ends_batch || (header.kind.is_record() && mutant::on(Mutant::BatchEndUnchecked)) {
                run.whole_ordinal = run.ordinals.end;
                run.whole_position = run.positions.end;
            }
        }
        run
    }

    /// The frame at `position`, where all of it is in memory and it is the valid one of record `ordinal`: the
    /// usual case of the walk, looked at once. Where it gives none the long way says why.
    #[inline]
    fn next_in_memory(&mut self, position: u64, ordinal: u32) -> Option<Header> {
        let (bytes, header, payload) = self.window.held_frame(position)?;
        if header.ordinal != ordinal || !self.plausible(&header) || self.prefixes.is_some() {
            return None;
        }
        self.hashed_bytes += header.frame_bytes();
        if !frame::verifies(bytes, self.hasher.of(payload), self.extent.seed) {
            self.charge(&header);
            return None;
        }
        Some(header)
    }

    #[inline]
    fn plausible(&self, header: &Header) -> bool {
        match (self.extent.base, header.lag.records()) {
            (Some(base), Some(lag)) => u64::from(lag) <= base.saturating_add(u64::from(header.ordinal)),
            _ => true,
        }
    }

    fn defect_at(&mut self, position: u64, ordinal: u32) -> Defect {
        let unreadable = &self.window.unreadable;
        let near = unreadable.partition_point(|range| range.end <= position);
        if unreadable.get(near).is_some_and(|range| range.start <= position) {
            return Defect::Unreadable;
        }
        match self.window.header(position) {
            Err(defect) => defect,
            Ok(header) => match self.verify(position, &header) {
                Ok(()) if header.ordinal != ordinal => Defect::WrongOrdinal,
                Ok(()) => Defect::NoHeader,
                Err(defect) => defect,
            },
        }
    }

    /// Finds the next valid frame behind the gap that begins at `gap`, where a frame with `ordinal`
    /// should be.
    fn search(&mut self, gap: u64, ordinal: u32) -> Option<(u64, Header)> {
        // The broken header's own end first, taken only where exactly one record is missing: then
        // nothing intact can lie in between.
        if let Some(next) = ordinal.checked_add(1)
            && let Ok(broken) = self.window.header(gap)
        {
            let guess = gap.saturating_add(broken.frame_bytes());
            let window = if self.window.holds(guess) { &mut self.window } else { &mut self.probe };
            if let Ok(header) = window.header(guess)
                && header.ordinal == next
                && self.can_stand(guess, &header, gap, ordinal)
                && self.verify(guess, &header).is_ok()
            {
                return Some((guess, header));
            }
        }
        let mut position = gap.checked_add(frame::ALIGNMENT)?;
        // (A header that begins before those zeros may end in them: a mark's lag is 0.)
        while position < self.zeros_from && position.checked_add(HEADER_BYTES)? <= self.extent.end {
            let bytes = self.window.bytes_from(position)?;
            // A word of zeros holds kind 0, which is never a frame.
            let zeros = leading_zero_words(bytes);
            if zeros > 0 {
                position = position.checked_add(zeros as u64 * frame::ALIGNMENT)?;
                continue;
            }
            if let Ok(header) = self.window.header(position)
                && self.can_stand(position, &header, gap, ordinal)
                && self.verify(position, &header).is_ok()
            {
                return Some((position, header));
            }
            position = position.checked_add(frame::ALIGNMENT)?;
        }
        None
    }

    /// Whether a frame with this header can stand at `position`, behind a gap where `ordinal` is missed.
    fn can_stand(&self, position: u64, header: &Header, gap: u64, ordinal: u32) -> bool {
        let most_lost = position.saturating_sub(gap) / HEADER_BYTES;
        header.ordinal.checked_sub(ordinal).is_some_and(|lost| u64::from(lost) <= most_lost)
            && self.extent.ordinal_end.is_none_or(|end| header.ordinal < end)
            && self.plausible(header)
    }

    /// Checks the checksum of the frame at `position`, whose bounds were checked.
    #[inline]
    fn verify(&mut self, position: u64, header: &Header) -> Result<(), Defect> {
        if self.prefixes.is_some() {
            return self.verify_by_prefixes(position, header);
        }
        self.hashed_bytes += header.frame_bytes();
        let window = if self.window.holds(position) { &mut self.window } else { &mut self.probe };
        window.verify(position, header, self.extent.seed).inspect_err(|_| self.charge(header))
    }

    /// A frame was hashed in vain.
    #[cold]
    fn charge(&mut self, header: &Header) {
        self.credit = self.credit.saturating_sub(header.frame_bytes());
        if self.credit == 0 {
            self.prefixes = Prefixes::build(&mut self.probe, 0..self.extent.end);
            self.hashed_bytes += self.extent.end;
        }
    }

    /// Checks a frame's checksum at a cost that does not depend on its length.
    fn verify_by_prefixes(&mut self, position: u64, header: &Header) -> Result<(), Defect> {
        let start = position.saturating_add(HEADER_BYTES);
        let end = start.saturating_add(u64::from(header.length));
        let checked = (|| {
            let prefixes = self.prefixes.as_ref()?;
            let payload = prefixes.between(&mut self.window, &mut self.probe, start, header.length)?;
            self.hashed_bytes += prefixes.cost(start, end) + HEADER_BYTES;
            let payload = PayloadChecksum::from_value(payload);
            let window = if self.window.holds(position) { &mut self.window } else { &mut self.probe };
            Some(frame::verifies(&window.header_bytes(position)?, payload, self.extent.seed))
        })();
        match checked {
            Some(true) => Ok(()),
            Some(false) => Err(Defect::Checksum),
            None => Err(Defect::LengthBeyondEnd),
        }
    }

    /// From the first to behind the last non-zero byte at or behind `from`.
    fn nonzero(&mut self, from: u64) -> Option<Range<u64>> {
        let mut found: Option<Range<u64>> = None;
        let mut position = from;
        while position < self.extent.end {
            let bytes = self.window.bytes_from(position)?;
            let length = bytes.len() as u64;
            let zeros = leading_zero_words(bytes) * 8 == bytes.len();
            if !zeros
                && let Some(first) = bytes.iter().position(|byte| *byte != 0)
                && let Some(last) = bytes.iter().rposition(|byte| *byte != 0)
            {
                let start = found.as_ref().map_or(position + first as u64, |range| range.start);
                found = Some(start..position + last as u64 + 1);
            }
            // Behind zeros comes more of what was reserved.
            self.window.expects_zeros = zeros;
            position += length;
        }
        self.window.expects_zeros = false;
        found
    }
}

fn note_watermark(best: &mut Option<Watermark>, frame: Frame) {
    let nothing = if mutant::on(Mutant::NoLagTakenAsProof) { Some(0) } else { None };
    let Some(lag) = frame.header.lag.records().or(nothing) else { return };
    let relative = i64::from(frame.header.ordinal) - i64::from(lag);
    if best.is_none_or(|best| relative > best.relative) {
        *best = Some(Watermark { relative, position: frame.position });
    }
}

pub(crate) fn leading_zero_words(bytes: &[u8]) -> usize {
    bytes.as_chunks::<8>().0.iter().take_while(|word| **word == [0; 8]).count()
}

/// Walks headers, without checksums, from the frame of `ordinals.start` at `position` to the one
/// of `ordinals.end`: the position behind the last record before it. For frames that a scan found
/// to be valid.
pub fn locate(source: &(impl Source + ?Sized), position: u64, ordinals: Range<u32>) -> Option<u64> {
    let mut window = Window::new(source, source.length(), WINDOW_BYTES, Ahead::Yes);
    let (mut position, mut next, mut behind) = (position, ordinals.start, position);
    while next < ordinals.end {
        let header = window.header(position).ok().filter(|header| header.ordinal == next)?;
        position = position.checked_add(header.frame_bytes())?;
        if header.kind.is_record() {
            next = next.checked_add(1)?;
            behind = position;
        }
    }
    Some(behind)
}
