//! How kept changes reach the durable bytes of a file, and what is found where the file grew and the bytes
//! did not come.
//!
//! It owns the rules of [`UnwrittenBytes`] and the contents that recycled blocks still hold. It does not know
//! which changes are kept (`loss`) or what files are named (`medium`).
//!
//! Invariants: what a sync makes durable is applied as it is, under every capability; only a power loss shows
//! anything else, and only beyond the length that was durable before it. A sector that was written and kept
//! is never stale.
//!
//! Why old files of the same disk, and not noise alone: noise has no valid checksum. A frame that was valid
//! elsewhere has.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::capabilities::{Capabilities, UnwrittenBytes};
use super::chance::{Chance, scramble};
use super::change::Change;
use super::content::Content;
use super::loss::{Keep, Loss};

/// How many contents of gone files are remembered: enough to mix, few enough to fork.
const MOST_RECYCLED: usize = 8;

/// Makes one change of a file's bytes durable as it is.
pub(super) fn apply(durable: &mut Content, change: &Change) {
    match change {
        Change::Write { position, image, length, .. } => lay(durable, *position, image, *length),
        Change::SetLength { length, .. } => durable.set_length(*length),
        Change::Reserve { length, .. } => durable.reserve(*length),
        Change::Create { .. } | Change::Rename { .. } | Change::Remove { .. } => {}
    }
}

/// Lays whole sectors onto the durable bytes. `length` is how long the file was in the cache: a sector
/// makes the durable file longer up to there at most. Where the durable file is longer still (it was cut in
/// the cache, and the cut was lost), the sector's zeros beyond the cut are what is found there.
pub(super) fn lay(durable: &mut Content, position: u64, image: &[u8], length: u64) {
    let end = position.saturating_add(image.len() as u64).min(durable.length().max(length));
    let count = usize::try_from(end.saturating_sub(position)).unwrap_or(usize::MAX);
    durable.write(position, image.get(..count).unwrap_or(image));
}

/// What is left in the blocks of files that are gone; the newest last.
#[derive(Debug, Clone, Default)]
pub(super) struct Recycled {
    contents: Vec<Arc<Content>>,
}

impl Recycled {
    pub(super) fn take(&mut self, content: &Arc<Content>) {
        if content.length() == 0 {
            return;
        }
        if self.contents.len() == MOST_RECYCLED {
            self.contents.remove(0);
        }
        self.contents.push(Arc::clone(content));
    }

    fn any(&self, chance: &mut Chance) -> Option<&Content> {
        self.contents.get(chance.below_length(self.contents.len())).map(Arc::as_ref)
    }
}

/// One power loss, as far as files' bytes go.
#[derive(Debug)]
pub(super) struct Growth {
    unwritten: UnwrittenBytes,
    sector: u64,
    seed: u64,
    files: BTreeMap<u64, Grown>,
}

/// What a power loss has kept of one file so far.
#[derive(Debug)]
struct Grown {
    /// As long as this it was durable before, and was not cut since.
    from: u64,
    /// Where kept writes lie: starts and ends.
    written: Vec<(u64, u64)>,
}

impl Growth {
    pub(super) fn new(capabilities: Capabilities, loss: Loss, salt: u64) -> Self {
        let unwritten = match (capabilities.unwritten_bytes, loss) {
            (UnwrittenBytes::Stale, Loss::Everything) => UnwrittenBytes::Zeros,
            (unwritten, _) => unwritten,
        };
        let choice = match loss {
            Loss::Nothing | Loss::Everything => 0,
            Loss::Prefix(index) | Loss::DropOne(index) | Loss::TearOne(index) => index as u64,
            Loss::Seeded(seed) => seed,
        };
        let seed = scramble(salt ^ scramble(choice ^ 0x57a1e));
        Self { unwritten, sector: capabilities.sector_bytes.max(1), seed, files: BTreeMap::new() }
    }

    /// Makes durable what is kept of one change.
    pub(super) fn apply(&mut self, durable: &mut Content, change: &Change, keep: Keep) {
        let Some(file) = change.writes_to() else { return };
        let from = durable.length();
        let grown = self.files.entry(file).or_insert_with(|| Grown { from, written: Vec::new() });
        let together = self.unwritten == UnwrittenBytes::Never;
        match (change, keep) {
            (_, Keep::No) => {}
            (Change::Write { position, image, length, before, .. }, Keep::Sectors { seed, spoilt }) => {
                let first = Self::reach(durable, *position, *before);
                let mut chance = Chance::new(seed);
                let sectors = image.chunks(usize::try_from(self.sector).unwrap_or(usize::MAX));
                let spoilt = spoilt.then(|| chance.below_length(sectors.len()));
                let mut at = *position;
                for (index, bytes) in sectors.enumerate() {
                    let end = at.saturating_add(bytes.len() as u64);
                    let kept = chance.coin() && Some(index) != spoilt;
                    if kept && (!together || at <= first.max(durable.length())) {
                        lay(durable, at, bytes, *length);
                        grown.written.push((at, end));
                    }
                    at = end;
                }
                if length > before && chance.coin() && !together {
                    durable.extend(*length);
                }
            }
            (Change::Write { position, image, length, before, .. }, Keep::Whole) => {
                if !together || *position <= Self::reach(durable, *position, *before) {
                    lay(durable, *position, image, *length);
                    grown.written.push((*position, position.saturating_add(image.len() as u64)));
                }
            }
            (Change::SetLength { length, before, .. } | Change::Reserve { length, before, .. }, _) => {
                let alone = durable.length() < *before && *length > durable.length();
                if !(together && alone) {
                    apply(durable, change);
                }
                if matches!(change, Change::SetLength { .. }) {
                    grown.cut(*length);
                }
            }
            (Change::Create { .. } | Change::Rename { .. } | Change::Remove { .. }, _) => {}
        }
    }

    /// How far into the file a write at `position` may begin where length and bytes come together: the
    /// durable end; or, where the file is durable as far as it was seen, beyond a hole of its own.
    fn reach(durable: &Content, position: u64, before: u64) -> u64 {
        if durable.length() >= before { durable.length().max(position) } else { durable.length() }
    }

    /// The files that were found longer, if what lies in them unwritten is to be stale.
    pub(super) fn stale_files(&self) -> Vec<u64> {
        if self.unwritten == UnwrittenBytes::Stale {
            self.files.keys().copied().collect()
        } else {
            Vec::new()
        }
    }

    /// Puts stale bytes where the file is longer than it was and nothing was written.
    pub(super) fn fill(&self, file: u64, durable: &mut Content, recycled: &Recycled) {
        let Some(grown) = self.files.get(&file) else { return };
        let mut chance = Chance::new(scramble(self.seed ^ scramble(file)));
        // One in four: its blocks were zeros. One in four: they were all another file's, in its order.
        let way = chance.below(4);
        let whole = if way == 1 { recycled.any(&mut chance) } else { None };
        let mut at = grown.from.div_ceil(self.sector).saturating_mul(self.sector);
        while way != 0 && at < durable.length() {
            let end = at.saturating_add(self.sector).min(durable.length());
            let covered = grown.written.iter().any(|(from, to)| *from <= at && at < *to);
            let mut bytes = vec![0; usize::try_from(end - at).unwrap_or(0)];
            match whole {
                Some(content) => drop(content.read(&mut bytes, at)),
                None => self.stale_sector(&mut bytes, recycled, &mut chance),
            }
            if !covered {
                durable.write(at, &bytes);
            }
            at = end;
        }
    }

    /// Zeros, noise, or some sector of a gone file.
    fn stale_sector(&self, bytes: &mut [u8], recycled: &Recycled, chance: &mut Chance) {
        match (chance.below(4), recycled.any(chance)) {
            (0, _) => {}
            (1, _) | (_, None) => {
                let noise = chance.next();
                for (index, byte) in bytes.iter_mut().enumerate() {
                    *byte = scramble(noise ^ index as u64).to_le_bytes()[0];
                }
            }
            (_, Some(content)) => {
                let sectors = content.length().div_ceil(self.sector);
                content.read(bytes, chance.below(sectors).saturating_mul(self.sector));
            }
        }
    }
}

impl Grown {
    fn cut(&mut self, length: u64) {
        self.from = self.from.min(length);
        for (from, to) in &mut self.written {
            *from = (*from).min(length);
            *to = (*to).min(length);
        }
    }
}
