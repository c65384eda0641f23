//! The scanner: bytes to frames. There is one, for opening, checking, rebuilding and dumping.
//!
//! It owns the walk along the chain of frames, the search for frames beyond a gap, and what the
//! frames attest (watermarks). It does not know files, segments or verdicts: it reads from a
//! [`Source`] and reports an [`Outcome`]; `recovery::verdict` judges. Invariants: it ends on every
//! input, with work linear in the bytes (n log n where somebody crafted them) and memory bounded by
//! [`MOST_RUNS`], [`WINDOW_BYTES`] and [`MOST_PREFIXES`]; it never trusts a length before it is
//! bounds-checked; unreadable bytes are noted and taken for zeros, which are never a frame.
//!
//! Why the search goes on behind a gap instead of stopping: a crash leaves a gap only in bytes that
//! were never acknowledged, rot leaves one anywhere. What tells them apart is a frame *behind* the
//! gap whose watermark covers it.

use std::io;
use std::ops::Range;

use crate::frame::{self, HEADER_BYTES, Header, PayloadChecksum, Seed};
use crate::mutant::{self, Mutant};

/// How many bytes are read at once.
pub const WINDOW_BYTES: usize = 1 << 20;
/// At most this many runs of intact frames are told apart in one file; what lies behind still
/// counts as evidence, but not as records that can be served.
pub const MOST_RUNS: usize = 1 << 16;
/// At most this many prefix checksums are held (16 MiB of memory).
pub const MOST_PREFIXES: u64 = 1 << 22;

/// Payloads up to this size are hashed as they are during a search.
const DIRECT_BYTES: u64 = 4096;
const UNREADABLE_STEP: usize = 4096;
const MOST_UNREADABLE: usize = 1 << 12;

/// Bytes that can be scanned.
pub trait Source {
    /// How many bytes there are.
    fn length(&self) -> u64;

    /// Fills `buffer` from `position`.
    ///
    /// # Errors
    /// When the bytes cannot be read: the scanner notes them as unreadable and goes on.
    fn read(&self, position: u64, buffer: &mut [u8]) -> io::Result<()>;
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
        window: Window::new(source, end, WINDOW_BYTES),
        edge: Window::new(source, end, frame::HEADER_LENGTH.max(8192)),
        prefixes: None,
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
    let mut window = Window::new(source, end, WINDOW_BYTES);
    let header = window.header(position)?;
    window.verify(position, &header, seed)?;
    Ok(header)
}

struct Scanner<'a, S: Source + ?Sized> {
    extent: Extent,
    window: Window<'a, S>,
    edge: Window<'a, S>,
    prefixes: Option<Prefixes>,
}

impl<S: Source + ?Sized> Scanner<'_, S> {
    fn run(&mut self, sink: &mut impl FnMut(Frame)) -> Outcome {
        let mut outcome = Outcome::default();
        let mut position = self.extent.start;
        let mut ordinal = 0u32;
        loop {
            let run = self.walk(position, ordinal, &mut outcome.watermark, sink);
            let (next_position, next_ordinal) = (run.positions.end, run.ordinals.end);
            let first = outcome.runs.is_empty() && outcome.broken.is_none();
            let rest_from = if run.has_unfinished_batch() { run.whole_position } else { next_position };
            if (!run.ordinals.is_empty() || !run.positions.is_empty()) && outcome.runs.len() < MOST_RUNS {
                outcome.runs.push(run);
            }
            if self.extent.ordinal_end.is_some_and(|end| next_ordinal >= end) {
                break;
            }
            if first {
                let defect = self.defect_at(next_position, next_ordinal);
                outcome.broken = Some(Broken { position: next_position, defect });
                outcome.tail = self.nonzero(rest_from);
            }
            let found = self.search(next_position, next_ordinal);
            match found.filter(|_| !mutant::on(Mutant::SearchOmitted)) {
                Some(found) => {
                    position = found.position;
                    ordinal = found.header.ordinal;
                }
                None => break,
            }
        }
        outcome.unreadable = std::mem::take(&mut self.window.unreadable);
        outcome
    }

    /// Follows valid frames with consecutive ordinals.
    fn walk(
        &mut self,
        start: u64,
        ordinal: u32,
        watermark: &mut Option<Watermark>,
        sink: &mut impl FnMut(Frame),
    ) -> Run {
        let mut run = Run {
            ordinals: ordinal..ordinal,
            positions: start..start,
            whole_ordinal: ordinal,
            whole_position: start,
        };
        while self.extent.ordinal_end.is_none_or(|end| run.ordinals.end < end) {
            let position = run.positions.end;
            let Ok(header) = self.window.header(position) else { break };
            if header.ordinal != run.ordinals.end
                || !self.plausible(&header)
                || self.window.verify(position, &header, self.extent.seed).is_err()
            {
                break;
            }
            let frame = Frame { position, header };
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

    fn plausible(&self, header: &Header) -> bool {
        match (self.extent.base, header.lag.records()) {
            (Some(base), Some(lag)) => u64::from(lag) <= base.saturating_add(u64::from(header.ordinal)),
            _ => true,
        }
    }

    fn defect_at(&mut self, position: u64, ordinal: u32) -> Defect {
        if self.window.unreadable.iter().any(|range| range.contains(&position)) {
            return Defect::Unreadable;
        }
        match self.window.header(position) {
            Err(defect) => defect,
            Ok(header) => match self.window.verify(position, &header, self.extent.seed) {
                Ok(()) if header.ordinal != ordinal => Defect::WrongOrdinal,
                Ok(()) => Defect::NoHeader,
                Err(defect) => defect,
            },
        }
    }

    /// Finds the next valid frame behind the gap that begins at `gap`, where a frame with `ordinal`
    /// should be.
    fn search(&mut self, gap: u64, ordinal: u32) -> Option<Frame> {
        // The broken header's own end first, taken only where exactly one record is missing: then
        // nothing intact can lie in between.
        if let Ok(broken) = self.window.header(gap) {
            let guess = gap.saturating_add(broken.frame_bytes());
            if ordinal
                .checked_add(1)
                .is_some_and(|next| self.window.header(guess).is_ok_and(|header| header.ordinal == next))
                && let Some(frame) = self.candidate(guess, gap, ordinal)
            {
                return Some(frame);
            }
        }
        let mut position = gap.checked_add(frame::ALIGNMENT)?;
        while position.checked_add(HEADER_BYTES)? <= self.extent.end {
            let bytes = self.window.bytes_from(position)?;
            // A word of zeros holds kind 0, which is never a frame.
            let zeros = leading_zero_words(bytes);
            if zeros > 0 {
                position = position.checked_add(zeros as u64 * frame::ALIGNMENT)?;
                continue;
            }
            if let Some(frame) = self.candidate(position, gap, ordinal) {
                return Some(frame);
            }
            position = position.checked_add(frame::ALIGNMENT)?;
        }
        None
    }

    /// The frame at `position`, if it is valid and can stand there.
    fn candidate(&mut self, position: u64, gap: u64, ordinal: u32) -> Option<Frame> {
        let header = self.window.header(position).ok()?;
        let most_lost = position.saturating_sub(gap) / HEADER_BYTES;
        let lost = u64::from(header.ordinal.checked_sub(ordinal)?);
        if lost > most_lost
            || self.extent.ordinal_end.is_some_and(|end| header.ordinal >= end)
            || !self.plausible(&header)
        {
            return None;
        }
        let checksum = self.far_checksum(position + HEADER_BYTES, u64::from(header.length))?;
        let bytes = self.window.header_bytes(position)?;
        frame::verifies(&bytes, checksum, self.extent.seed).then_some(Frame { position, header })
    }

    /// A payload's checksum at a cost that does not depend on its length, so that bytes crafted to
    /// look like many long frames cannot make the search quadratic.
    fn far_checksum(&mut self, start: u64, length: u64) -> Option<PayloadChecksum> {
        let stride = Prefixes::stride(self.extent.end);
        if length <= DIRECT_BYTES {
            return self.window.checksum(start, length);
        }
        if self.prefixes.is_none() {
            self.prefixes = Some(Prefixes::build(&mut self.edge, stride)?);
        }
        let end = start.checked_add(length).filter(|end| *end <= self.extent.end)?;
        let from = self.prefixes.as_ref()?.until(&mut self.window, start)?;
        let until = self.prefixes.as_ref()?.until(&mut self.edge, end)?;
        Some(PayloadChecksum::from_value(until ^ shifted(from, length)))
    }

    /// From the first to behind the last non-zero byte at or behind `from`.
    fn nonzero(&mut self, from: u64) -> Option<Range<u64>> {
        let mut found: Option<Range<u64>> = None;
        let mut position = from;
        while position < self.extent.end {
            let bytes = self.window.bytes_from(position)?;
            let length = bytes.len() as u64;
            if leading_zero_words(bytes) * 8 == bytes.len() {
                position += length;
                continue;
            }
            if let (Some(first), Some(last)) =
                (bytes.iter().position(|byte| *byte != 0), bytes.iter().rposition(|byte| *byte != 0))
            {
                let start = found.as_ref().map_or(position + first as u64, |range| range.start);
                found = Some(start..position + last as u64 + 1);
            }
            position += length;
        }
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

fn leading_zero_words(bytes: &[u8]) -> usize {
    bytes.as_chunks::<8>().0.iter().take_while(|word| **word == [0; 8]).count()
}

/// The checksum of `length` zeros behind bytes whose checksum is `checksum`, less the zeros' own:
/// what a prefix contributes to the checksum of a longer one.
fn shifted(checksum: u32, length: u64) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial_len(checksum, 0);
    hasher.combine(&crc32fast::Hasher::new_with_initial_len(0, length));
    hasher.finalize()
}

/// Checksums of the file's prefixes at every `stride` bytes.
struct Prefixes {
    stride: u64,
    checksums: Vec<u32>,
}

impl Prefixes {
    fn stride(end: u64) -> u64 {
        (end / MOST_PREFIXES).next_power_of_two().max(1024)
    }

    fn build<S: Source + ?Sized>(window: &mut Window<'_, S>, stride: u64) -> Option<Prefixes> {
        let mut checksums = vec![0];
        let mut hasher = crc32fast::Hasher::new();
        let mut position = 0;
        while position + stride <= window.end {
            let mut done = 0;
            while done < stride {
                let bytes = window.bytes_from(position + done)?;
                let take = usize::try_from(stride - done).unwrap_or(usize::MAX).min(bytes.len());
                hasher.update(bytes.get(..take)?);
                done += take as u64;
            }
            checksums.push(hasher.clone().finalize());
            position += stride;
        }
        Some(Prefixes { stride, checksums })
    }

    /// The checksum of the file's first `end` bytes.
    fn until<S: Source + ?Sized>(&self, window: &mut Window<'_, S>, end: u64) -> Option<u32> {
        let index = usize::try_from(end / self.stride).ok()?.min(self.checksums.len() - 1);
        let from = index as u64 * self.stride;
        let prefix = *self.checksums.get(index)?;
        let rest = window.checksum_from(prefix, from, end - from)?;
        Some(rest)
    }
}

/// A piece of the source in memory.
struct Window<'a, S: Source + ?Sized> {
    source: &'a S,
    end: u64,
    size: usize,
    start: u64,
    buffer: Vec<u8>,
    unreadable: Vec<Range<u64>>,
}

impl<'a, S: Source + ?Sized> Window<'a, S> {
    fn new(source: &'a S, end: u64, size: usize) -> Window<'a, S> {
        Window { source, end, size, start: 0, buffer: Vec::new(), unreadable: Vec::new() }
    }

    /// Bytes from `position` on: at least one, at most a window's size; `None` at the end.
    fn bytes_from(&mut self, position: u64) -> Option<&[u8]> {
        self.bytes(position, 1)?;
        let from = usize::try_from(position - self.start).ok()?;
        self.buffer.get(from..)
    }

    /// `length` bytes at `position` (at most a window's size), or `None` where they reach beyond
    /// the end.
    #[inline]
    fn bytes(&mut self, position: u64, length: usize) -> Option<&[u8]> {
        let end = position.checked_add(length as u64)?;
        if position < self.start || end > self.start + self.buffer.len() as u64 {
            if end > self.end || length > self.size {
                return None;
            }
            self.fill(position);
        }
        let from = usize::try_from(position - self.start).ok()?;
        self.buffer.get(from..from + length)
    }

    fn fill(&mut self, position: u64) {
        let length = usize::try_from(self.end - position).unwrap_or(usize::MAX).min(self.size);
        self.start = position;
        self.buffer.resize(length, 0);
        if self.source.read(position, &mut self.buffer).is_ok() {
            return;
        }
        for (index, piece) in self.buffer.chunks_mut(UNREADABLE_STEP).enumerate() {
            let at = position + (index * UNREADABLE_STEP) as u64;
            if self.source.read(at, piece).is_err() {
                piece.fill(0);
                note_unreadable(&mut self.unreadable, at..at + piece.len() as u64);
            }
        }
    }

    fn header_bytes(&mut self, position: u64) -> Option<[u8; frame::HEADER_LENGTH]> {
        frame::header_bytes(self.bytes(position, frame::HEADER_LENGTH)?).copied()
    }

    #[inline]
    fn header(&mut self, position: u64) -> Result<Header, Defect> {
        let end = self.end;
        let Some(bytes) = self.bytes(position, frame::HEADER_LENGTH) else { return Err(Defect::Nothing) };
        let header = frame::header_bytes(bytes).and_then(frame::decode_header);
        match header {
            None if bytes.iter().all(|byte| *byte == 0) => Err(Defect::Nothing),
            None => Err(Defect::NoHeader),
            Some(header) if position.saturating_add(header.frame_bytes()) > end => {
                Err(Defect::LengthBeyondEnd)
            }
            Some(header) => Ok(header),
        }
    }

    /// Checks the checksum of the frame at `position`, whose bounds were checked.
    #[inline]
    fn verify(&mut self, position: u64, header: &Header, seed: Seed) -> Result<(), Defect> {
        let whole = frame::HEADER_LENGTH + header.length as usize;
        if whole <= self.size {
            let bytes = self.bytes(position, whole).ok_or(Defect::LengthBeyondEnd)?;
            let (head, payload) = bytes.split_first_chunk().ok_or(Defect::LengthBeyondEnd)?;
            return if frame::verifies(head, PayloadChecksum::of(payload), seed) {
                Ok(())
            } else {
                Err(Defect::Checksum)
            };
        }
        let bytes = self.header_bytes(position).ok_or(Defect::LengthBeyondEnd)?;
        let checksum = self
            .checksum(position + HEADER_BYTES, u64::from(header.length))
            .ok_or(Defect::LengthBeyondEnd)?;
        if frame::verifies(&bytes, checksum, seed) { Ok(()) } else { Err(Defect::Checksum) }
    }

    fn checksum(&mut self, start: u64, length: u64) -> Option<PayloadChecksum> {
        self.checksum_from(0, start, length).map(PayloadChecksum::from_value)
    }

    /// Continues `checksum` over `length` bytes at `start`, piece by piece.
    fn checksum_from(&mut self, checksum: u32, start: u64, length: u64) -> Option<u32> {
        let mut hasher = crc32fast::Hasher::new_with_initial(checksum);
        let mut done = 0;
        while done < length {
            let bytes = self.bytes_from(start.checked_add(done)?)?;
            let take = usize::try_from(length - done).unwrap_or(usize::MAX).min(bytes.len());
            hasher.update(bytes.get(..take)?);
            done += take as u64;
        }
        Some(hasher.finalize())
    }
}

fn note_unreadable(ranges: &mut Vec<Range<u64>>, range: Range<u64>) {
    let full = ranges.len() >= MOST_UNREADABLE;
    match ranges.last_mut() {
        Some(last) if range.start >= last.start && range.end <= last.end => {}
        // Past the limit the last range swallows what follows: the bound on memory holds, and no
        // unreadable byte is forgotten.
        Some(last) if last.end == range.start || full => last.end = last.end.max(range.end),
        _ => ranges.push(range),
    }
}

/// Walks headers, without checksums, from the frame of `ordinals.start` at `position` to the one
/// of `ordinals.end`: the position behind the last record before it. For frames that a scan found
/// to be valid.
pub fn locate(source: &(impl Source + ?Sized), position: u64, ordinals: Range<u32>) -> Option<u64> {
    let mut window = Window::new(source, source.length(), WINDOW_BYTES);
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
