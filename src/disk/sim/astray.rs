//! Writes that a lying device acknowledges, through every fsync, and does not do, or does elsewhere.
//!
//! It owns where such a write lands. It does not know which write is struck (`fault`).
//!
//! Invariants: the cache shows the write where it was meant; the length that it gave the file is kept, since
//! that is the file system's and not the device's; what it lands on changes in the durable version alone, as
//! nobody reads from the device what is in the cache.

use std::io;
use std::sync::Arc;

use super::chance::Chance;
use super::change::Change;
use super::growth;
use super::medium::{File, Medium};

impl Medium {
    /// A write that is acknowledged and never done.
    pub(super) fn lose_write(&mut self, file: u64, bytes: &[u8], position: u64) -> io::Result<usize> {
        let (count, change) = self.write_to_cache(file, bytes, position)?;
        if let Some(change) = &change {
            self.keep_length(change);
        }
        Ok(count)
    }

    /// A write whose sectors land over durable ones elsewhere.
    pub(super) fn misdirect(
        &mut self,
        file: u64,
        bytes: &[u8],
        position: u64,
        chance: &mut Chance,
    ) -> io::Result<usize> {
        let (count, change) = self.write_to_cache(file, bytes, position)?;
        let Some(change) = change else { return Ok(count) };
        self.keep_length(&change);
        if let Change::Write { position, image, .. } = change
            && let Some((target, elsewhere)) = self.place_elsewhere(file, position, chance)
            && let Some(durable) = self.durable_mut(target)
        {
            let length = durable.length();
            growth::lay(durable, elsewhere, &image, length);
        }
        Ok(count)
    }

    /// A file and a position in its durable bytes, at a sector: in the same file or in another one.
    fn place_elsewhere(&self, file: u64, position: u64, chance: &mut Chance) -> Option<(u64, u64)> {
        let sector = self.sector();
        let own = position / sector;
        // How many sectors there are to choose from; the write's own place is none of them.
        let places = |(id, node): (&u64, &Arc<File>)| {
            let sectors = node.durable.length().div_ceil(sector);
            (*id, sectors.saturating_sub(u64::from(*id == file && own < sectors)))
        };
        let mut files: Vec<(u64, u64)> = self.files.iter().map(places).filter(|(_, n)| *n > 0).collect();
        if chance.coin() && files.iter().any(|(id, _)| *id == file) {
            files.retain(|(id, _)| *id == file);
        }
        let (target, places) = files.get(chance.below_length(files.len())).copied()?;
        let choice = chance.below(places);
        let choice = if target == file && choice >= own { choice + 1 } else { choice };
        Some((target, choice.saturating_mul(sector)))
    }

    fn keep_length(&mut self, write: &Change) {
        if let Change::Write { file, length, before, .. } = *write
            && length > before
        {
            self.pending.push(Change::SetLength { file, length, before });
        }
    }
}
