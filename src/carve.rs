//! Carving: frames in bytes of which nobody knows what they are, such as a disk's image, a concatenation of
//! stores, or a store whose head is gone.
//!
//! It owns how frames are recognised without a seed to check them with, and what else of a log can be recognised
//! by itself: heads, base sectors, heads of manifests. It does not know which log is wanted, names no segment, and
//! gives no record an offset. [`scan`](crate::scan) is for bytes whose seed is known; this is for all others.
//!
//! How frames are recognised: the seed is the last thing under a frame's checksum, and CRC-32 can be turned back,
//! so any bytes that could be a frame have exactly one seed with which they are one. Two neighbours with successive
//! ordinals and the same seed prove each other: by chance that comes once in 2^64. From there a run is followed with
//! that seed. A frame *alone* counts only within [`LONE_REACH`] of a head or of frames of the same seed, with an
//! ordinal that leaves 16 bytes for every record in between.
//!
//! Where frames are looked for: at every multiple of 8 from where the looking begins. Filesystems align what they
//! store far better than that, and so do stores put one behind another. Frames of a store that was cut into pieces
//! come out as a run for every piece; a frame that was itself cut through is not found.
//!
//! Invariants: no length is trusted before it is bounds-checked; it ends on every input, with at most
//! [`MOST_HASHED`] bytes hashed for each byte looked at (usual bytes: 2), and memory bounded by [`MOST_FOUND`].
//!
//! Why bytes inside an intact frame are not looked at: a payload may hold anything, an old store too.

use std::collections::VecDeque;
use std::ops::Range;

use crate::frame::{self, HEADER_BYTES, Header, Kind, PayloadChecksum, Seed};
use crate::scan::prefix::Prefixes;
use crate::scan::window::{Ahead, Window};
use crate::scan::{MOST_PREFIXES, PROBE_BYTES, Run, Source, WINDOW_BYTES, leading_zero_words};
use crate::store::{self, FIRST_FRAME, Head};

/// At most this many runs, and as many heads, bases and manifests, are told apart in one look; it ends there.
pub const MOST_FOUND: usize = 1 << 17;
/// How far from others of its segment a frame that stands alone is believed, in bytes.
pub const LONE_REACH: u64 = 64 << 20;
/// At most this many bytes are hashed for each byte that is looked at, crafted ones too.
pub const MOST_HASHED: u64 = 160;

/// So many bytes are looked at with one allowance of hashing in vain.
const BLOCK_BYTES: u64 = 64 << 20;
/// The largest frame, and the header behind it.
const FRAME_REACH: u64 = (1 << 28) + 64;
/// So many segments can be expected to go on at a time.
const MOST_ACTIVE: usize = 16;
/// A store of 1 GiB holds so many of the smallest records; an ordinal beyond needs a source that large.
const LIKELY_ORDINALS: u64 = 1 << 26;
const SECTOR: usize = 512;

/// A store's head sector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FoundHead {
    /// Where it begins.
    pub position: u64,
    /// What it says.
    pub head: Head,
}

/// What may be a base sector: it is one where frames have its seed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FoundBase {
    /// Where it begins.
    pub position: u64,
    /// The seed with which its checksum holds.
    pub seed: Seed,
    /// The offset of ordinal 0.
    pub base: u64,
}

/// Frames of one seed without a gap between them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CarvedRun {
    /// The seed that they have in common.
    pub seed: Seed,
    /// Ordinals and positions. ([`Run::broken`] is not told.)
    pub run: Run,
    /// The highest watermark among them, relative to the offset of ordinal 0.
    pub watermark: Option<i64>,
}

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Carved {
    /// Heads of stores, in order of position.
    pub heads: Vec<FoundHead>,
    /// Base sectors, in order of position.
    pub bases: Vec<FoundBase>,
    /// The log uuids that heads of manifests name.
    pub manifests: Vec<(u64, [u8; 16])>,
    /// Runs of records. In order of position, but for those found looking back.
    pub runs: Vec<CarvedRun>,
    /// Ranges that the disk could not read.
    pub unreadable: Vec<Range<u64>>,
    /// Where the look ended, if before the end: [`MOST_FOUND`] things were found.
    pub stopped_at: Option<u64>,
    /// How many bytes were hashed.
    pub hashed_bytes: u64,
}

/// Looks for a log's pieces in `range` of `source`, at multiples of 8 from its start.
pub fn carve(source: &(impl Source + ?Sized), range: Range<u64>) -> Carved {
    let end = range.end.min(source.length());
    let mut carver = Carver {
        window: Window::new(source, end, WINDOW_BYTES, Ahead::Yes),
        probe: Window::new(source, end, PROBE_BYTES, Ahead::No),
        start: range.start,
        end,
        most_ordinals: LIKELY_ORDINALS.max(end / HEADER_BYTES).min(u64::from(u32::MAX)),
        active: VecDeque::new(),
        looked_to: range.start,
        credit: 0,
        block_end: range.start,
        prefixes: None,
        found: Carved::default(),
    };
    carver.run();
    carver.found.unreadable = std::mem::take(&mut carver.window.unreadable);
    carver.found
}

/// A segment that may go on: the ordinal that comes next, and the position from which on it may come.
#[derive(Debug, Clone, Copy)]
struct Active {
    seed: Seed,
    next: u32,
    position: u64,
}

struct Carver<'a, S: Source + ?Sized> {
    /// Moves forward through the bytes.
    window: Window<'a, S>,
    /// Looks aside without moving the window.
    probe: Window<'a, S>,
    start: u64,
    end: u64,
    most_ordinals: u64,
    active: VecDeque<Active>,
    /// What lies before this is told already.
    looked_to: u64,
    /// How many bytes may still be hashed in vain in this block before prefixes are taken.
    credit: u64,
    block_end: u64,
    prefixes: Option<Prefixes>,
    found: Carved,
}

impl<S: Source + ?Sized> Carver<'_, S> {
    fn run(&mut self) {
        let mut position = self.start;
        while position.checked_add(HEADER_BYTES).is_some_and(|end| end <= self.end) {
            if position >= self.block_end {
                self.block_end = position.saturating_add(BLOCK_BYTES);
                self.credit = BLOCK_BYTES.min(self.end - position);
                self.prefixes = None;
            }
            let Some(bytes) = self.window.bytes_from(position) else { break };
            let zeros = leading_zero_words(bytes) as u64;
            if zeros > 0 {
                position += zeros * frame::ALIGNMENT;
                continue;
            }
            if self.is_full() {
                self.found.stopped_at = Some(position);
                break;
            }
            position = self.look(position);
        }
    }

    fn is_full(&self) -> bool {
        let found = &self.found;
        [found.heads.len(), found.bases.len(), found.manifests.len(), found.runs.len()]
            .iter()
            .any(|count| *count >= MOST_FOUND)
    }

    /// Looks at one place; gives the next one to look at.
    fn look(&mut self, position: u64) -> u64 {
        let next = position + frame::ALIGNMENT;
        let Some(bytes) = self.window.header_bytes(position) else { return next };
        if bytes.starts_with(b"STON") && self.look_for_sector(position) {
            return position + SECTOR as u64;
        }
        let Some(header) = frame::decode_header(&bytes) else { return next };
        let behind = position.saturating_add(header.frame_bytes());
        if !header.kind.is_record() || behind > self.end || !self.is_likely(&header) {
            return next;
        }
        match self.prove(position, &bytes, &header, behind) {
            Some(seed) => self.follow(position, header.ordinal, seed),
            None => next,
        }
    }

    /// Whether a head sector stands here, which is passed over whole. Other sectors are noted.
    fn look_for_sector(&mut self, position: u64) -> bool {
        let length = (SECTOR as u64).min(self.end - position);
        let Some(sector) = self.window.bytes(position, usize::try_from(length).unwrap_or(SECTOR)) else {
            return false;
        };
        if let Some(head) = Head::parse(sector) {
            let seed = Seed::of_segment(&head.uuid, head.id);
            self.found.heads.push(FoundHead { position, head });
            self.expect(Active { seed, next: 0, position: position.saturating_add(FIRST_FRAME) });
            return true;
        }
        if let Some((base, seed)) = store::parse_base_unseeded(sector) {
            self.found.bases.push(FoundBase { position, seed, base });
        } else if sector.starts_with(b"STONEMAN")
            && let Some(uuid) = sector.get(16..).and_then(|rest| rest.first_chunk::<16>())
        {
            self.found.manifests.push((position, *uuid));
        }
        false
    }

    /// No log holds an ordinal or a lag that its source has no room for. (Text and most other bytes end here.)
    fn is_likely(&self, header: &Header) -> bool {
        u64::from(header.ordinal) < self.most_ordinals
            && header.lag.records().is_none_or(|lag| u64::from(lag) < self.most_ordinals)
    }

    /// The seed of the frame here, if its neighbour or its place proves it.
    fn prove(
        &mut self,
        position: u64,
        bytes: &[u8; frame::HEADER_LENGTH],
        header: &Header,
        behind: u64,
    ) -> Option<Seed> {
        self.active.retain(|active| active.position.saturating_add(LONE_REACH) > position);
        let expected = self.active.iter().any(|active| active.may_have(header.ordinal, position));
        let window = if self.window.holds(behind) { &mut self.window } else { &mut self.probe };
        let neighbour =
            window.header(behind).ok().filter(|next| Some(next.ordinal) == header.ordinal.checked_add(1));
        if !expected && neighbour.is_none() {
            return None;
        }
        let seed = Seed::of_frame(bytes, self.payload(position, header)?);
        if self.active.iter().any(|active| active.seed == seed && active.may_have(header.ordinal, position)) {
            return Some(seed);
        }
        let mut hashed = header.frame_bytes();
        if let Some(next) = neighbour {
            let window = if self.window.holds(behind) { &mut self.window } else { &mut self.probe };
            let bytes = window.header_bytes(behind)?;
            if Seed::of_frame(&bytes, self.payload(behind, &next)?) == seed {
                return Some(seed);
            }
            hashed += next.frame_bytes();
        }
        self.charge(position, hashed);
        None
    }

    /// The checksum of the payload of the frame at `position`, whose bounds were checked.
    fn payload(&mut self, position: u64, header: &Header) -> Option<PayloadChecksum> {
        let start = position.checked_add(HEADER_BYTES)?;
        let length = u64::from(header.length);
        if let Some(prefixes) = &self.prefixes
            && let Some(checksum) = prefixes.between(&mut self.window, &mut self.probe, start, header.length)
        {
            self.found.hashed_bytes += prefixes.cost(start, start + length);
            return Some(PayloadChecksum::from_value(checksum));
        }
        self.found.hashed_bytes += length;
        let window = if self.window.holds_all(start, length) { &mut self.window } else { &mut self.probe };
        window.checksum(start, length)
    }

    /// Bytes were hashed in vain.
    fn charge(&mut self, position: u64, bytes: u64) {
        self.credit = self.credit.saturating_sub(bytes);
        if self.credit == 0 && self.prefixes.is_none() {
            // All that a frame of this block, and its neighbour, can reach.
            let end = self.block_end.saturating_add(2 * FRAME_REACH).min(self.end);
            self.found.hashed_bytes += end - position;
            self.prefixes = Prefixes::build(&mut self.probe, position..end);
        }
    }

    /// Follows the frames of `seed` from a proven one on; gives the position behind them.
    fn follow(&mut self, position: u64, ordinal: u32, seed: Seed) -> u64 {
        let is_new = !self.active.iter().any(|active| active.seed == seed);
        if is_new && ordinal > 0 {
            self.look_back(position, ordinal, seed);
        }
        let found = self.walk(position, ordinal, seed, self.end);
        let (end, next) = (found.run.positions.end.max(position + frame::ALIGNMENT), found.run.ordinals.end);
        self.found.runs.push(found);
        self.expect(Active { seed, next, position: end });
        self.looked_to = end;
        end
    }

    fn expect(&mut self, active: Active) {
        self.active.retain(|other| other.seed != active.seed);
        self.active.truncate(MOST_ACTIVE - 1);
        self.active.push_front(active);
    }

    /// Valid frames of `seed` with consecutive ordinals, up to `end`.
    fn walk(&mut self, start: u64, ordinal: u32, seed: Seed, end: u64) -> CarvedRun {
        let mut run = Run {
            ordinals: ordinal..ordinal,
            positions: start..start,
            whole_ordinal: ordinal,
            whole_position: start,
            broken: None,
        };
        let mut watermark: Option<i64> = None;
        loop {
            let position = run.positions.end;
            let Ok(header) = self.window.header(position) else { break };
            let behind = position.saturating_add(header.frame_bytes());
            if header.ordinal != run.ordinals.end || behind > end {
                break;
            }
            let (Some(bytes), Some(payload)) =
                (self.window.header_bytes(position), self.payload_ahead(position, &header))
            else {
                break;
            };
            if Seed::of_frame(&bytes, payload) != seed {
                self.charge(position, header.frame_bytes());
                break;
            }
            if let Some(lag) = header.lag.records() {
                watermark = watermark.max(Some(i64::from(header.ordinal) - i64::from(lag)));
            }
            run.positions.end = behind;
            if header.kind.is_record() {
                let Some(next) = run.ordinals.end.checked_add(1) else { break };
                run.ordinals.end = next;
            }
            if header.kind == Kind::Record {
                (run.whole_ordinal, run.whole_position) = (run.ordinals.end, behind);
            }
        }
        CarvedRun { seed, run, watermark }
    }

    /// As [`Carver::payload`], where what comes is most likely a frame: the window moves on to it.
    fn payload_ahead(&mut self, position: u64, header: &Header) -> Option<PayloadChecksum> {
        let whole = header.frame_bytes();
        if self.prefixes.is_none() && whole <= WINDOW_BYTES as u64 {
            self.window.bytes(position, usize::try_from(whole).ok()?)?;
        }
        self.payload(position, header)
    }

    /// Frames of `seed` that stand alone before the first ones that proved it.
    fn look_back(&mut self, first: u64, ordinal: u32, seed: Seed) {
        let mut position = self.looked_to.max(first.saturating_sub(LONE_REACH));
        position += (first - position) % frame::ALIGNMENT;
        let mut next = 0;
        while position.checked_add(HEADER_BYTES).is_some_and(|end| end <= first) {
            let length = (PROBE_BYTES as u64).min(first - position);
            if !self.probe.holds(position) {
                // (A piece at a time; the probe reads no more than it is asked for.)
                let Ok(length) = usize::try_from(length) else { return };
                if self.probe.bytes(position, length).is_none() {
                    return;
                }
            }
            let Ok(header) = self.probe.header(position) else {
                position += frame::ALIGNMENT;
                continue;
            };
            let behind = position.saturating_add(header.frame_bytes());
            let fits = header.kind.is_record()
                && behind <= first
                && header.ordinal >= next
                && header.ordinal < ordinal
                && u64::from(ordinal - header.ordinal) <= (first - position) / HEADER_BYTES;
            let bytes = if fits { self.probe.header_bytes(position) } else { None };
            let payload = bytes.and_then(|bytes| Some((bytes, self.payload(position, &header)?)));
            match payload {
                Some((bytes, payload)) if Seed::of_frame(&bytes, payload) == seed => {
                    let found = self.walk(position, header.ordinal, seed, first);
                    next = found.run.ordinals.end;
                    position = found.run.positions.end.max(position + frame::ALIGNMENT);
                    self.found.runs.push(found);
                }
                Some(_) => {
                    self.charge(position, header.frame_bytes());
                    position += frame::ALIGNMENT;
                }
                None => position += frame::ALIGNMENT,
            }
        }
    }
}

impl Active {
    /// Whether this segment's record `ordinal` can stand at `position`: each one that is missed took 16 bytes.
    fn may_have(&self, ordinal: u32, position: u64) -> bool {
        let room = position.checked_sub(self.position).map(|bytes| bytes / HEADER_BYTES);
        match (ordinal.checked_sub(self.next), room) {
            (Some(missed), Some(room)) => u64::from(missed) <= room && room <= LONE_REACH / HEADER_BYTES,
            _ => false,
        }
    }
}

// The prefixes of all that a block's frames can reach are at most this far apart; four are looked up for each
// place, up to twice a stride apart from a known one: that is where MOST_HASHED comes from.
const _: () = assert!((BLOCK_BYTES + 2 * FRAME_REACH).div_ceil(MOST_PREFIXES).next_power_of_two() <= 256);
