//! What must be true of the log, from what its children said.
//!
//! It keeps apart what was acknowledged (must be there), what was begun (may be there or not, in its
//! thread's order), and what nobody began (must not be there). It knows neither processes nor files:
//! it is told what was said, and shown an open log. What one opening served counts as acknowledged
//! from then on (G7).

use std::collections::{BTreeMap, BTreeSet};

use stonelog::Log;

use crate::record::Name;
use crate::said::{Said, Step};

/// What is known of one log, over all its children.
#[derive(Default)]
pub struct Model {
    /// Records that must be there: acknowledged, or served by an opening.
    pub there: BTreeMap<u64, Name>,
    /// How many records the thread of a life began to append.
    tried: BTreeMap<(u32, u32), u32>,
    /// The front is at least this, and one of these.
    pub front: u64,
    fronts_tried: BTreeSet<u64>,
    /// The end that the last opening served.
    pub end: u64,
    /// A truncation back that was begun, and not acknowledged.
    back_tried: Option<u64>,
    /// Where truncations cut, through batches perhaps.
    cuts: BTreeSet<u64>,
    /// What each key may hold.
    metas: BTreeMap<String, Vec<Option<Vec<u8>>>>,
    pub acknowledged: usize,
}

impl Model {
    /// Takes one thing that a child said.
    pub fn hear(&mut self, said: &Said) -> Result<(), String> {
        match said {
            Said::In { .. } | Said::Out { .. } | Said::NoSpace { .. } => {}
            Said::Failed(what) => return Err(format!("the child failed {what}")),
            Said::Open { front, end, .. } => self.opened(*front, *end)?,
            Said::Try { life, thread, below } => self.tries(*life, *thread, *below),
            Said::Acknowledged { offset, name } => {
                self.acknowledged += 1;
                if let Some(other) = self.there.insert(*offset, *name) {
                    return Err(format!("offset {offset} was given to {other} and to {name}"));
                }
            }
            Said::Front { offset, step: Step::Tried } => {
                self.fronts_tried.insert(*offset);
            }
            Said::Front { offset, step: Step::Done } => self.front = self.front.max(*offset),
            // Another thread may have asked for the same.
            Said::Front { step: Step::Refused, .. } => {}
            Said::Back { end, step: Step::Tried } => self.back_tried = Some(*end),
            Said::Back { end, step: Step::Done } => self.cut_back(*end),
            Said::Back { step: Step::Refused, .. } => self.back_tried = None,
            Said::Meta { key, value, step } => {
                let may = self.metas.entry(key.clone()).or_insert_with(|| vec![None]);
                let value = Some(value.as_bytes().to_vec());
                match step {
                    Step::Tried => may.push(value),
                    Step::Done => *may = vec![value],
                    Step::Refused => may.retain(|other| *other != value),
                }
            }
        }
        Ok(())
    }

    /// Takes what was said when it may have been too late to be true: what was begun may have happened,
    /// what was acknowledged need not have.
    pub fn hear_late(&mut self, said: &Said) {
        match said {
            Said::Try { life, thread, below } => self.tries(*life, *thread, *below),
            Said::Front { offset, step: Step::Tried } => {
                self.fronts_tried.insert(*offset);
            }
            // (Begun in time and done late, it may have been followed by appends that came in time, too.)
            Said::Back { end, step: Step::Tried | Step::Done } => {
                // Behind it everything is open, as the end that it cut from is not known either.
                self.cut_back((*end).min(self.end));
            }
            Said::Meta { key, value, step: Step::Tried } => {
                let may = self.metas.entry(key.clone()).or_insert_with(|| vec![None]);
                may.push(Some(value.as_bytes().to_vec()));
            }
            _ => {}
        }
    }

    /// A thread begins to append its records below this number.
    pub fn tries(&mut self, life: u32, thread: u32, below: u32) {
        let tried = self.tried.entry((life, thread)).or_default();
        *tried = below.max(*tried);
    }

    fn cut_back(&mut self, end: u64) {
        self.there.split_off(&end);
        self.end = end;
        self.cuts.insert(end);
        self.back_tried = None;
    }

    /// An opening served `front..end`.
    fn opened(&mut self, front: u64, end: u64) -> Result<(), String> {
        if front < self.front {
            return Err(format!(
                "G4: the front is {front}, but truncating to {} was acknowledged",
                self.front
            ));
        }
        if front != self.front && !self.fronts_tried.contains(&front) {
            return Err(format!("the front is {front}, where nobody truncated; it was {}", self.front));
        }
        self.front = front;
        if let Some(cut) = self.back_tried.take() {
            // Nothing was appended since, so it happened or it did not.
            if end == cut {
                self.cut_back(cut);
            } else if end != self.end {
                return Err(format!("truncating {} back to {cut} left {end}", self.end));
            }
        }
        if end < self.end {
            return Err(format!("G7: an opening served records up to {}, a later one up to {end}", self.end));
        }
        self.end = end;
        self.there = self.there.split_off(&front);
        match self.there.keys().next_back() {
            Some(last) if *last >= end => Err(format!("G1: {last} was acknowledged, the log ends at {end}")),
            _ => Ok(()),
        }
    }

    /// Holds an open log against all this.
    pub fn check(&mut self, log: &Log) -> Result<(), String> {
        let offsets = log.offsets();
        self.opened(offsets.start, offsets.end)?;
        if log.durable_end() != offsets.end {
            return Err(format!("the log opened with {offsets:?} but durable up to {}", log.durable_end()));
        }
        let records = walk(log)?;
        if !records.keys().copied().eq(offsets.clone()) {
            return Err(format!("G2: the records of {offsets:?} are not dense"));
        }
        for (offset, name) in &self.there {
            if records[offset] != *name {
                return Err(format!("G1: {offset} holds {}, it was acknowledged to {name}", records[offset]));
            }
            let read = log.read(*offset).map_err(|error| format!("G1: reading {offset}: {error}"))?;
            if read[..] != name.bytes() {
                return Err(format!("G1: read({offset}) and the reader differ"));
            }
        }
        self.check_order(&records)?;
        self.check_batches(&records, offsets.end)?;
        for (key, may) in &mut self.metas {
            let held = log.meta(key).map_err(|error| error.to_string())?;
            if !may.contains(&held) {
                let held = held.map(|value| String::from_utf8_lossy(&value).into_owned());
                return Err(format!("metadata {key:?} is {held:?}, it may be {may:?}"));
            }
            *may = vec![held];
        }
        // What was served once stays.
        self.there = records;
        Ok(())
    }

    /// Each thread's records in its order, without a gap, and none that it did not begin.
    fn check_order(&self, records: &BTreeMap<u64, Name>) -> Result<(), String> {
        let mut next: BTreeMap<(u32, u32), u32> = BTreeMap::new();
        for (offset, name) in records {
            let of = (name.life, name.thread);
            let tried = self.tried.get(&of).copied().unwrap_or(0);
            if name.number >= tried {
                return Err(format!("G2: {offset} holds {name}, but only {tried} were begun"));
            }
            let begins = if self.front == 0 { Some(0) } else { None };
            if let Some(expected) = next.get(&of).copied().or(begins)
                && expected != name.number
            {
                return Err(format!("G2: {offset} holds {name}, expected its thread's record {expected}"));
            }
            next.insert(of, name.number + 1);
        }
        Ok(())
    }

    fn check_batches(&self, records: &BTreeMap<u64, Name>, end: u64) -> Result<(), String> {
        for (offset, name) in records {
            let goes_on = records.get(&(offset + 1)).is_some_and(|next| {
                let following = Name { number: name.number + 1, index: name.index + 1, ..*name };
                *next == following
            });
            let last = name.index + 1 == name.batch;
            if !last && !goes_on && !self.cuts.contains(&(offset + 1)) {
                return Err(format!("G3: the batch of {name} at {offset} is not whole (the end is {end})"));
            }
            let begun_before = offset.checked_sub(1).and_then(|before| records.get(&before));
            let preceded = begun_before
                .is_some_and(|before| before.batch == name.batch && before.index + 1 == name.index);
            if name.index > 0 && !preceded && *offset != self.front {
                return Err(format!("G3: {offset} holds {name}, without what its batch begins with"));
            }
        }
        Ok(())
    }

    /// Appends one record from here, and expects it where the log ends.
    pub fn append(&mut self, log: &Log, name: Name) -> stonelog::Result<Result<(), String>> {
        self.tries(name.life, name.thread, name.number + 1);
        let offset = log.append(name.bytes())?;
        if offset != self.end {
            return Ok(Err(format!("the next record got {offset} instead of {}", self.end)));
        }
        self.there.insert(offset, name);
        self.end = offset + 1;
        Ok(Ok(()))
    }
}

/// All records of a log that are what some name says.
pub fn walk(log: &Log) -> Result<BTreeMap<u64, Name>, String> {
    let mut records = BTreeMap::new();
    for record in log.records(..) {
        let record =
            record.map_err(|error| format!("G1: a record after {:?}: {error}", records.last_key_value()))?;
        let name = Name::of(&record).ok_or(format!("G2: a stranger at {}", record.offset()))?;
        records.insert(record.offset(), name);
    }
    Ok(records)
}
