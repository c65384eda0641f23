//! The model of a log: what must be there, what may be, and what was under way.
//!
//! It keeps three kinds of knowledge apart: what was acknowledged (must be there), what was submitted
//! (may be there, in order), and what was under way when the crash came (either state).

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Range;
use std::sync::Arc;

use stonelog::Log;

/// What is known of a log.
#[derive(Debug, Clone, Default)]
pub struct Model {
    pub front: u64,
    /// Submitted records by offset, from `start`.
    pub start: u64,
    pub records: Vec<Arc<[u8]>>,
    /// Ranges of batches with more than one record.
    pub batches: Vec<Range<u64>>,
    pub acknowledged: u64,
    pub meta: BTreeMap<String, Vec<u8>>,
    /// Under way when the crash came.
    pub front_under_way: Option<u64>,
    pub back_under_way: Option<u64>,
    pub meta_under_way: Option<(String, Vec<u8>)>,
    /// Names without a value, though one was once on its way.
    refused: BTreeSet<String>,
    counter: u64,
}

/// What a recovered log holds, as far as two recoveries of one disk must agree.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Found {
    pub offsets: Range<u64>,
    pub meta: Vec<(String, Option<Vec<u8>>)>,
}

impl Model {
    pub fn end(&self) -> u64 {
        self.start + self.records.len() as u64
    }

    /// The next record's bytes: each differs from every other.
    pub fn content(&mut self, length: u16) -> Arc<[u8]> {
        self.counter += 1;
        let mut bytes = format!("<{}>", self.counter).into_bytes();
        while bytes.len() < usize::from(length) {
            let next = bytes[bytes.len() - 1].wrapping_mul(31).wrapping_add(self.counter as u8);
            bytes.push(next);
        }
        bytes.truncate(usize::from(length));
        bytes.into()
    }

    pub fn record(&self, offset: u64) -> Option<&[u8]> {
        self.records.get(usize::try_from(offset.checked_sub(self.start)?).ok()?).map(|record| &**record)
    }

    pub fn truncate_back(&mut self, end: u64) {
        self.records.truncate((end - self.start) as usize);
        self.acknowledged = end;
        self.batches.retain(|batch| batch.end <= end);
    }

    /// Forgets everything and starts at `offset`.
    pub fn restart(&mut self, offset: u64) {
        self.records.clear();
        self.batches.clear();
        self.start = offset;
        self.acknowledged = offset;
    }

    /// Takes what a reopened log holds as the truth, after it was checked.
    pub fn adopt(&mut self, log: &Log) {
        let offsets = log.offsets();
        if offsets.start >= self.end() {
            self.restart(offsets.start);
        } else {
            self.records.truncate((offsets.end - self.start) as usize);
            self.batches.retain(|batch| batch.end <= offsets.end);
        }
        self.front = offsets.start;
        self.acknowledged = offsets.end;
        self.front_under_way = None;
        self.back_under_way = None;
        if let Some((key, _)) = self.meta_under_way.take() {
            match log.meta(&key).expect("meta") {
                Some(value) => drop(self.meta.insert(key, value)),
                // It was served without a value, so none may come up later.
                None => drop(self.refused.insert(key)),
            }
        }
    }

    /// Checks a reopened log against the model: G1 to G4 and G8.
    pub fn check(&self, log: &Log) -> Result<(), String> {
        let offsets = log.offsets();
        if log.durable_end() != offsets.end {
            return Err(format!("G8: reopened with durable end {} below {}", log.durable_end(), offsets.end));
        }
        let fronts = [Some(self.front), self.front_under_way];
        if !fronts.contains(&Some(offsets.start)) {
            return Err(format!("G4: front is {}, may be {fronts:?}", offsets.start));
        }
        let skipped =
            self.front_under_way.is_some_and(|front| front > self.end() && offsets == (front..front));
        let cut = self.back_under_way == Some(offsets.end);
        if !skipped && !cut {
            if offsets.end < self.acknowledged {
                return Err(format!("G1: end is {}, {} was acknowledged", offsets.end, self.acknowledged));
            }
            if offsets.end > self.end().max(self.front) {
                return Err(format!("G2: end is {}, only {} was submitted", offsets.end, self.end()));
            }
            for batch in &self.batches {
                if batch.start < offsets.end && offsets.end < batch.end {
                    return Err(format!("G3: end {} lies inside batch {batch:?}", offsets.end));
                }
            }
        }
        for offset in offsets.clone() {
            let read = log.read(offset).map_err(|error| format!("G1: {offset} cannot be read: {error}"))?;
            if Some(&*read) != self.record(offset) {
                return Err(format!("G2: the record at {offset} is not what was submitted"));
            }
        }
        let listed: Vec<u64> = log
            .records(..)
            .map(|record| record.map(|r| r.offset()))
            .collect::<Result<_, _>>()
            .map_err(|e| e.to_string())?;
        if listed != offsets.clone().collect::<Vec<_>>() {
            return Err(format!("G2: records() gives {listed:?} of {offsets:?}"));
        }
        for key in self.keys() {
            let found = log.meta(key).map_err(|error| error.to_string())?;
            let known = self.meta.get(key);
            let under_way = self.meta_under_way.as_ref().filter(|(other, _)| other == key).map(|(_, v)| v);
            if found.as_ref() != known && (found.is_none() || found.as_ref() != under_way) {
                return Err(format!("G1: meta {key} is {found:?}, not {known:?} or {under_way:?}"));
            }
        }
        Ok(())
    }

    /// The names that a value was put under, or may have been.
    fn keys(&self) -> impl Iterator<Item = &String> {
        let under_way = self.meta_under_way.as_ref().map(|(key, _)| key);
        self.meta.keys().chain(self.refused.iter()).chain(under_way)
    }

    /// What the log holds, of what the model knows the names of.
    pub fn found(&self, log: &Log) -> Found {
        let meta = self.keys().map(|key| (key.clone(), log.meta(key).expect("meta"))).collect();
        Found { offsets: log.offsets(), meta }
    }

    /// A hash of all that a check depends on: two crash states with equal disks and equal signatures
    /// need to be checked once.
    pub fn signature(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        (self.front, self.start, self.acknowledged, &self.records, &self.batches).hash(&mut hasher);
        (&self.refused, &self.meta, self.front_under_way, self.back_under_way, &self.meta_under_way)
            .hash(&mut hasher);
        hasher.finish()
    }
}
