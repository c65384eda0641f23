//! A world: a setup, operations, and the crashes that end it. It has a text form, so that a failure is
//! one line that replays it, and a kept failure is a string.

use std::fmt;
use std::str::FromStr;

use stonelog::Durability;
use stonelog::disk::sim::{Capabilities, Loss, Moment, SimDisk, UnwrittenBytes};

use super::DIRECTORY;
use super::model::{Found, Model};
use super::op::Op;
use super::run::{Setup, observe};

/// What survives a crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// The process dies, the machine goes on.
    Process,
    /// The power fails.
    Power(Loss),
}

/// One crash: at which mutation of the disk (counted from its beginning), and what survived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Crash {
    pub mutation: u64,
    pub mid_write: bool,
    pub fate: Fate,
}

impl Crash {
    pub fn at(moment: &Moment, fate: Fate) -> Crash {
        Crash { mutation: moment.mutation, mid_write: moment.mid_write, fate }
    }

    /// The disk that the next process finds.
    pub fn strike(&self, moment: &Moment) -> SimDisk {
        let disk = moment.disk.fork();
        // The faults were of the run; what the crash leaves is looked at undisturbed.
        disk.clear_faults();
        disk.set_capacity(None);
        match self.fate {
            Fate::Process => disk.process_crash(),
            Fate::Power(loss) => disk.power_loss(loss),
        }
        disk
    }

    fn is_at(&self, moment: &Moment) -> bool {
        (self.mutation, self.mid_write) == (moment.mutation, moment.mid_write)
    }
}

/// A whole history: the first crash ends the operations, those that follow strike the recoveries.
#[derive(Debug, Clone, PartialEq)]
pub struct World {
    pub setup: Setup,
    pub ops: Vec<Op>,
    pub crashes: Vec<Crash>,
}

impl World {
    /// Runs it, and checks what the last recovery gives.
    ///
    /// # Errors
    /// Which promise broke.
    pub fn replay(&self) -> Result<(), String> {
        self.replay_from(|_| ())
    }

    /// As [`World::replay`], and shows the disk that the first crash left.
    ///
    /// # Errors
    /// Which promise broke.
    pub fn replay_from(&self, look: impl FnOnce(&SimDisk)) -> Result<(), String> {
        let mut struck: Option<(SimDisk, Model)> = None;
        let first = self.crashes.first();
        let mut model = Model::default();
        observe(&self.setup, &self.setup.disk(), &self.ops, &mut model, 0, &mut |model, moments| {
            if let Some(crash) = first
                && let Some(moment) = moments.iter().find(|moment| crash.is_at(moment))
            {
                struck.get_or_insert_with(|| (crash.strike(moment), model.clone()));
            }
            Ok(())
        })?;
        let Some(first) = first else { return Ok(()) };
        let (mut disk, model) =
            struck.ok_or_else(|| format!("the run never came to mutation {}", first.mutation))?;
        look(&disk);
        let mut expected = None;
        for crash in self.crashes.iter().skip(1) {
            let recovered = recover_and_check(&self.setup, &disk.fork(), &model, expected.as_ref(), true)?;
            let moment = recovered.moments.iter().find(|moment| crash.is_at(moment));
            let moment = moment.ok_or_else(|| format!("no recovery came to mutation {}", crash.mutation))?;
            if matches!(first.fate, Fate::Power(_)) {
                expected = expected.or(Some(recovered.found));
            }
            disk = crash.strike(moment);
        }
        recover_and_check(&self.setup, &disk, &model, expected.as_ref(), false).map(drop)
    }

    /// The command that replays it.
    pub fn command(&self) -> String {
        format!("STONELOG_WORLD='{self}' cargo test --test worlds -- --nocapture replay")
    }
}

/// What a recovery gave, and the moments at which it could have been struck.
pub struct Recovered {
    pub found: Found,
    pub moments: Vec<Moment>,
}

/// Opens a crashed world again and checks it, then checks that what was served is really there:
/// it must survive the worst power cut right after opening, and take new records.
///
/// # Errors
/// Which promise broke.
pub fn recover_and_check(
    setup: &Setup,
    disk: &SimDisk,
    model: &Model,
    expected: Option<&Found>,
    with_moments: bool,
) -> Result<Recovered, String> {
    disk.record_moments(with_moments);
    let log = setup.options(disk).open(DIRECTORY).map_err(|error| format!("G5: does not open: {error}"))?;
    let moments = disk.take_moments();
    disk.record_moments(false);
    model.check(&log)?;
    let found = model.found(&log);
    if let Some(expected) = expected.filter(|expected| **expected != found) {
        return Err(format!("G7: an undisturbed recovery gives {expected:?}, this one {found:?}"));
    }
    let mut after = model.clone();
    after.adopt(&log);
    // Whatever is served after opening must not live in the page cache alone (G6, G7).
    disk.power_loss(Loss::Nothing);
    drop(log);
    let log =
        setup.options(disk).open(DIRECTORY).map_err(|error| format!("G7: does not open again: {error}"))?;
    after.check(&log).map_err(|why| format!("after a power cut behind the recovery: {why}"))?;
    for _ in 0..3 {
        let content = after.content(40);
        after.records.push(content.clone());
        log.append(&content).map_err(|error| format!("appending after recovery: {error}"))?;
    }
    log.sync().map_err(|error| format!("syncing after recovery: {error}"))?;
    after.acknowledged = after.end();
    disk.power_loss(Loss::Nothing);
    drop(log);
    let log = setup
        .options(disk)
        .open(DIRECTORY)
        .map_err(|error| format!("G1: does not open at the end: {error}"))?;
    after.check(&log).map_err(|why| format!("after appending behind the recovery: {why}"))?;
    disk.process_crash();
    Ok(Recovered { found, moments })
}

/// Ways to lose what was not synced, for a disk with so many pending changes.
pub fn losses(pending: usize, seeds: u64) -> Vec<Loss> {
    let mut losses = vec![Loss::Nothing, Loss::Everything];
    losses.extend((0..seeds).map(Loss::Seeded));
    for index in 0..pending {
        losses.push(Loss::Prefix(index));
        losses.push(Loss::DropOne(index));
        losses.push(Loss::TearOne(index));
    }
    losses
}

// ---- the text form -------------------------------------------------------------------------------

impl fmt::Display for Crash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}:", self.mutation, if self.mid_write { "m" } else { "" })?;
        match self.fate {
            Fate::Process => f.write_str("process"),
            Fate::Power(Loss::Nothing) => f.write_str("nothing"),
            Fate::Power(Loss::Everything) => f.write_str("everything"),
            Fate::Power(Loss::Prefix(count)) => write!(f, "prefix:{count}"),
            Fate::Power(Loss::DropOne(one)) => write!(f, "drop:{one}"),
            Fate::Power(Loss::TearOne(one)) => write!(f, "tear:{one}"),
            Fate::Power(Loss::Seeded(seed)) => write!(f, "seeded:{seed}"),
            Fate::Power(other) => write!(f, "{other:?}"),
        }
    }
}

impl FromStr for Crash {
    type Err = String;

    fn from_str(text: &str) -> Result<Crash, String> {
        let wrong = || format!("no crash: {text:?}");
        let parts: Vec<&str> = text.split(':').collect();
        let mutation = parts[0].trim_end_matches('m').parse().map_err(|_| wrong())?;
        let number = || parts.get(2).and_then(|part| part.parse::<u64>().ok()).ok_or_else(wrong);
        let index = || number().map(|number| number as usize);
        let fate = match parts.get(1).copied() {
            Some("process") => Fate::Process,
            Some("nothing") => Fate::Power(Loss::Nothing),
            Some("everything") => Fate::Power(Loss::Everything),
            Some("prefix") => Fate::Power(Loss::Prefix(index()?)),
            Some("drop") => Fate::Power(Loss::DropOne(index()?)),
            Some("tear") => Fate::Power(Loss::TearOne(index()?)),
            Some("seeded") => Fate::Power(Loss::Seeded(number()?)),
            _ => return Err(wrong()),
        };
        Ok(Crash { mutation, mid_write: parts[0].ends_with('m'), fate })
    }
}

fn joined<T: fmt::Display>(items: &[T]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

fn split<T: FromStr<Err = String>>(text: &str) -> Result<Vec<T>, String> {
    text.split(',').filter(|item| !item.is_empty()).map(str::parse).collect()
}

impl fmt::Display for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let durability = match self.setup.durability {
            Durability::Always => "always",
            Durability::Manual => "manual",
            _ => "interval",
        };
        write!(f, "seed={} durability={durability} segment={}", self.setup.seed, self.setup.segment_bytes)?;
        let (device, usual) = (self.setup.capabilities, Capabilities::default());
        if device.sector_bytes != usual.sector_bytes {
            write!(f, " sector={}", device.sector_bytes)?;
        }
        if device.directory_operations_in_order {
            f.write_str(" in-order")?;
        }
        if device.file_sync_persists_entry {
            f.write_str(" sync-names")?;
        }
        match device.unwritten_bytes {
            UnwrittenBytes::Never => f.write_str(" unwritten=never")?,
            UnwrittenBytes::Stale => f.write_str(" unwritten=stale")?,
            _ => {}
        }
        write!(f, " ops={} crash={}", joined(&self.ops), joined(&self.crashes))
    }
}

impl FromStr for World {
    type Err = String;

    fn from_str(text: &str) -> Result<World, String> {
        let mut setup = Setup {
            seed: 0,
            durability: Durability::Always,
            segment_bytes: 4096,
            capabilities: Capabilities::default(),
        };
        let (mut ops, mut crashes) = (Vec::new(), Vec::new());
        for word in text.split_whitespace() {
            let (key, value) = word.split_once('=').unwrap_or((word, ""));
            let number = || value.parse::<u64>().map_err(|_| format!("no number: {word:?}"));
            match key {
                "seed" => setup.seed = number()?,
                "durability" => {
                    setup.durability = match value {
                        "always" => Durability::Always,
                        "manual" => Durability::Manual,
                        "interval" => Setup::interval(),
                        _ => return Err(format!("no durability: {word:?}")),
                    }
                }
                "segment" => setup.segment_bytes = number()?,
                "sector" => setup.capabilities.sector_bytes = number()?,
                "in-order" => setup.capabilities.directory_operations_in_order = true,
                "sync-names" => setup.capabilities.file_sync_persists_entry = true,
                "unwritten" => {
                    setup.capabilities.unwritten_bytes = match value {
                        "never" => UnwrittenBytes::Never,
                        "stale" => UnwrittenBytes::Stale,
                        _ => return Err(format!("no such bytes: {word:?}")),
                    }
                }
                "ops" => ops = split(value)?,
                "crash" => crashes = split(value)?,
                _ => return Err(format!("unknown: {word:?}")),
            }
        }
        Ok(World { setup, ops, crashes })
    }
}
