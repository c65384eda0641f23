//! The search through crash states: from a run's moments to everything that a crash there can leave, and
//! from there through crashes of the recovery, and of the recovery of that.
//!
//! It owns which states were seen. A state is a disk (names, bytes, what is pending of them) and what is
//! known of the log at that moment; one that was seen is not tried again, unless the recovery is now to be
//! crashed more often than it was then. What a recovery does depends on nothing else: the clock stands
//! still, and random numbers decide on background work, and how far a write had got, only.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, DefaultHasher, Hash, Hasher};
use std::io::Write;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use stonelog::disk::sim::{Loss, Moment, SimDisk};

use super::model::{Found, Model};
use super::op::Op;
use super::run::{Setup, observe};
use super::world::{Crash, Fate, World, losses, recover_and_check};

/// A long search says where it is, whenever it has seen so many more states.
const PROGRESS: u64 = 1_000_000;

/// How far a search goes.
#[derive(Debug, Clone, Copy)]
pub struct Reach {
    /// How often the recovery is crashed, each time at every step.
    pub recoveries: u8,
    /// Whether a crashed recovery loses its unsynced writes in every way, or in a few: nothing, everything,
    /// a seeded part; and the second crash all of them.
    pub every_loss: bool,
    /// The search ends once it has seen so many distinct states.
    pub most_states: u64,
}

impl Reach {
    /// Recoveries crashed so deep, with few losses each.
    pub fn deep(recoveries: u8) -> Reach {
        Reach { recoveries, every_loss: false, most_states: u64::MAX }
    }
}

/// What was tried.
#[derive(Debug, Default)]
pub struct Counts {
    /// Moments at which a run was crashed.
    pub moments: AtomicU64,
    /// Crash states looked at.
    pub tried: AtomicU64,
    /// Those that differed from all before: each was recovered, checked, cut off, recovered and extended.
    pub distinct: AtomicU64,
    /// Moments at which a recovery was crashed.
    pub recoveries: AtomicU64,
}

impl Counts {
    fn add(counter: &AtomicU64, count: usize) {
        counter.fetch_add(count as u64, Ordering::Relaxed);
    }

    pub fn read(&self) -> [u64; 4] {
        [&self.moments, &self.tried, &self.distinct, &self.recoveries].map(|c| c.load(Ordering::Relaxed))
    }
}

/// Keys are hashes already.
#[derive(Default)]
struct Unchanged(u64);

impl Hasher for Unchanged {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {}

    fn write_u64(&mut self, key: u64) {
        self.0 = key;
    }
}

type Seen = HashMap<u64, u8, BuildHasherDefault<Unchanged>>;

/// A search, shared by its threads.
pub struct Search {
    reach: Reach,
    pub counts: Counts,
    /// How often the recovery of each state was crashed already, by shares of the key.
    seen: Vec<Mutex<Seen>>,
}

/// Where in a history the search is.
struct Branch<'a> {
    setup: &'a Setup,
    ops: &'a [Op],
    model: &'a Model,
    signature: u64,
}

impl Search {
    pub fn new(reach: Reach) -> Search {
        Search { reach, counts: Counts::default(), seen: (0..64).map(|_| Mutex::default()).collect() }
    }

    /// Runs `ops`, and crashes the run at every moment from the `from`-th operation on.
    ///
    /// # Errors
    /// Which promise broke, and the command that replays it.
    pub fn run(&self, setup: &Setup, ops: &[Op], from: usize) -> Result<(), String> {
        let mut model = Model::default();
        observe(setup, &setup.disk(), ops, &mut model, from, &mut |model, moments| {
            let branch = Branch { setup, ops, model, signature: model.signature() };
            moments.iter().try_for_each(|moment| self.crash(&branch, moment))
        })
        .map(drop)
        .map_err(|why| {
            let quiet = World { setup: *setup, ops: ops.to_vec(), crashes: Vec::new() };
            if why.contains("replay:") { why } else { format!("{why}\n  replay: {}", quiet.command()) }
        })
    }

    /// Everything that a crash at this moment can leave.
    fn crash(&self, branch: &Branch<'_>, moment: &Moment) -> Result<(), String> {
        if self.has_ended() {
            return Ok(());
        }
        Counts::add(&self.counts.moments, 1);
        let power = losses(moment.disk.pending(), 3).into_iter().map(Fate::Power);
        for fate in power.chain([Fate::Process]) {
            let crash = Crash::at(moment, fate);
            let disk = crash.strike(moment);
            self.visit(branch, disk, None, fate != Fate::Process, &[crash])?;
        }
        Ok(())
    }

    /// One crash state, and the crashes of its recovery.
    fn visit(
        &self,
        branch: &Branch<'_>,
        disk: SimDisk,
        expected: Option<&Found>,
        is_durable: bool,
        crashes: &[Crash],
    ) -> Result<(), String> {
        if self.has_ended() {
            return Ok(());
        }
        Counts::add(&self.counts.tried, 1);
        let left = (self.reach.recoveries + 1).saturating_sub(crashes.len() as u8);
        if !self.is_new(branch, &disk, expected, left) {
            return Ok(());
        }
        let recovered = recover_and_check(branch.setup, &disk, branch.model, expected, left > 0);
        let recovered = recovered.map_err(|why| {
            let world = World { setup: *branch.setup, ops: branch.ops.to_vec(), crashes: crashes.to_vec() };
            format!("{why}\n  replay: {}", world.command())
        })?;
        // What was durable when the first recovery began, every later one must find too.
        let expected = if is_durable { Some(expected.unwrap_or(&recovered.found)) } else { None };
        for moment in recovered.moments.iter().take_while(|_| !self.has_ended()) {
            Counts::add(&self.counts.recoveries, 1);
            for fate in self.recovery_fates(moment, crashes.len()) {
                let crash = Crash::at(moment, fate);
                let mut crashes = crashes.to_vec();
                crashes.push(crash);
                self.visit(branch, crash.strike(moment), expected, is_durable, &crashes)?;
            }
        }
        Ok(())
    }

    fn recovery_fates(&self, moment: &Moment, depth: usize) -> Vec<Fate> {
        let power = match depth {
            _ if self.reach.every_loss => losses(moment.disk.pending(), 3),
            1 => vec![Loss::Nothing, Loss::Everything, Loss::Seeded(moment.mutation)],
            _ => return vec![Fate::Power(Loss::Nothing)],
        };
        power.into_iter().map(Fate::Power).chain([Fate::Process]).collect()
    }

    /// Whether it has seen as much as it may.
    pub fn has_ended(&self) -> bool {
        self.counts.distinct.load(Ordering::Relaxed) >= self.reach.most_states
    }

    /// For deep runs, which are long: past the capture of a test's output.
    fn tell_progress(&self) {
        let [moments, tried, distinct, recoveries] = self.counts.read();
        let _ = writeln!(
            std::io::stderr(),
            "worlds: so far {distinct} distinct of {tried} tried, {moments} moments, {recoveries} recoveries crashed"
        );
    }

    fn is_new(&self, branch: &Branch<'_>, disk: &SimDisk, expected: Option<&Found>, left: u8) -> bool {
        let mut hasher = DefaultHasher::new();
        let pending = disk.pending();
        (disk.digest(), pending).hash(&mut hasher);
        // Without anything pending, what is seen is what is durable.
        if pending > 0 {
            (disk.durable_digest(), disk.pending_digest()).hash(&mut hasher);
        }
        (branch.signature, expected, branch.setup.durability == stonelog::Durability::Always)
            .hash(&mut hasher);
        let key = hasher.finish();
        let mut seen = self.seen[(key % self.seen.len() as u64) as usize].lock().unwrap();
        match seen.get_mut(&key) {
            Some(before) if *before >= left => false,
            Some(before) => {
                *before = left;
                true
            }
            None => {
                seen.insert(key, left);
                drop(seen);
                let before = self.counts.distinct.fetch_add(1, Ordering::Relaxed);
                if (before + 1).is_multiple_of(PROGRESS) {
                    self.tell_progress();
                }
                true
            }
        }
    }
}
