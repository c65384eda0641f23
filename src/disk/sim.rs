//! A simulated disk, to crash-test code on: everything that can happen to a real disk between two
//! syncs, at every step, decided by a seed.
//!
//! It owns the machine around the medium: steps and crashes, handles, locks, faults, the clock and the
//! randomness. The medium itself (names, bytes, what is durable) is in `medium`, the choice of what
//! a power loss keeps in `loss`. It deliberately knows nothing of logs, frames or segments: it promises
//! what a disk promises, so that code tested on it is tested against that and nothing kinder.
//!
//! Invariants:
//! - the same seed and the same calls give the same results, to the last byte (with several threads:
//!   the same order of calls);
//! - after the crash nothing reaches the medium until the next boot, and no handle or lock outlives
//!   its process;
//! - every I/O call of the traits is exactly one step.
//!
//! Why a model and not a file system that drops writes: a model can be forked at any moment, so each
//! crash state costs microseconds, and what it leaves open (the order of sectors, names without bytes,
//! bytes without names) is as wide as the promises of real disks are.
//!
//! ```
//! use std::path::Path;
//! use stonelog::disk::{Disk, DiskFile, OpenMode};
//! use stonelog::disk::sim::{Loss, SimDisk};
//!
//! # fn main() -> std::io::Result<()> {
//! let disk = SimDisk::new(1);
//! let file = disk.open(Path::new("notes"), OpenMode::CreateNew)?;
//! file.write_at(b"synced", 0)?;
//! file.sync()?;
//! disk.sync_dir(Path::new("/"))?;
//! file.write_at(b"in the cache alone", 6)?;
//!
//! disk.power_loss(Loss::Nothing);
//! assert_eq!(disk.read_file("notes").as_deref(), Some(&b"synced"[..]));
//! # Ok(())
//! # }
//! ```

mod astray;
mod capabilities;
mod chance;
mod change;
mod content;
mod fault;
mod growth;
mod handle;
mod loss;
mod medium;
mod moment;
mod rest;
mod trace;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use capabilities::{Capabilities, UnwrittenBytes};
pub use fault::{Fault, FaultError};
pub use loss::Loss;
pub use moment::Moment;
pub use trace::{Operation, Outcome, TraceEntry};

use super::{Background, DirectoryEntry, Disk, DiskFile, LockAttempt, OpenMode};
use chance::{Chance, hash};
use change::Entry;
use fault::{Fate, Faults, crash_error};
use handle::{SimFile, SimLock};
use medium::{Medium, components};

/// The first process's id.
const FIRST_PROCESS: u32 = 1000;
/// The first reading of the clock: some moment of 2023.
const FIRST_MILLIS: u64 = 1_700_000_000_000;
/// By how much each look at the clock sets it forward.
const TICK_MILLIS: u64 = 10;

/// A simulated disk; clones are handles of the same one.
///
/// Paths are normalised by their components, relative ones being relative to the root (`a/./b`, `/a/b` and
/// `a/c/../b` are the same). The root exists and is durable. Only files can be renamed and removed.
///
/// A change is at first *pending*: reads see it, a power loss may take it. [`DiskFile::sync`] makes a file's
/// bytes and length durable, [`Disk::sync_dir`] a directory's names; a rename from one directory into
/// another becomes durable, as a whole, with the sync of the directory that it goes to.
///
/// The disk never holds more than 4 GiB, less where [`SimDisk::set_capacity`] says so.
#[derive(Clone)]
pub struct SimDisk {
    state: Arc<Mutex<State>>,
}

#[derive(Clone)]
struct State {
    medium: Medium,
    faults: Faults,
    /// For what the disk decides by itself, apart from `random`, so that a fault never changes what the code
    /// under test draws.
    chance: Chance,
    random: Chance,
    millis: u64,
    tick_millis: u64,
    background: Background,
    boots: u32,
    crashed: bool,
    crash_in: Option<u64>,
    crash_mid_write: bool,
    locks: BTreeMap<u64, u32>,
    steps: u64,
    mutations: u64,
    trace: Option<Vec<TraceEntry>>,
    moments: Option<Vec<Moment>>,
}

impl SimDisk {
    /// An empty disk. All that it decides by itself, it decides by `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self::with_capabilities(seed, Capabilities::default())
    }

    /// An empty disk of such capabilities.
    #[must_use]
    pub fn with_capabilities(seed: u64, capabilities: Capabilities) -> Self {
        let mut medium = Medium::new(seed);
        medium.capabilities = capabilities;
        let mut chance = Chance::new(seed);
        let random = Chance::new(chance.next());
        let state = State {
            medium,
            faults: Faults::default(),
            chance,
            random,
            millis: FIRST_MILLIS,
            tick_millis: TICK_MILLIS,
            background: Background::Inline,
            boots: 0,
            crashed: false,
            crash_in: None,
            crash_mid_write: false,
            locks: BTreeMap::new(),
            steps: 0,
            mutations: 0,
            trace: None,
            moments: None,
        };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    /// The same disk, with background work done in this way; [`Background::Inline`] unless told.
    #[must_use]
    pub fn with_background(self, background: Background) -> Self {
        self.set_background(background);
        self
    }

    /// Who does background work from now on.
    pub fn set_background(&self, background: Background) {
        self.state().background = background;
    }

    /// By how many milliseconds each look at the clock sets it forward from now on; 10 unless told. With 0
    /// it stands still, so that two runs which differ in nothing but the time leave equal disks.
    pub fn set_tick_millis(&self, tick: u64) {
        self.state().tick_millis = tick;
    }

    /// A copy that lives its own life: same bytes and names, same pending changes, same seeds, counters,
    /// armed faults and crash, but no handle is open and no lock held on it, and no moments are kept. Cheap: the copy shares
    /// the bytes until one of the two changes them.
    #[must_use]
    pub fn fork(&self) -> Self {
        let mut state = self.state();
        // Moments are the run's that recorded them.
        let moments = state.moments.take();
        let mut copy = state.clone();
        state.moments = moments;
        drop(state);
        copy.medium.close_all();
        copy.locks.clear();
        Self { state: Arc::new(Mutex::new(copy)) }
    }

    // ---- crashes -----------------------------------------------------------------------------

    /// The process dies and another one is born: every handle and lock is dead, what was written stays
    /// readable and pending.
    pub fn process_crash(&self) {
        self.state().boot();
    }

    /// The power fails and comes back: as [`process_crash`](Self::process_crash), and of the pending changes
    /// only what `loss` chooses survives. Afterwards nothing is pending.
    pub fn power_loss(&self, loss: Loss) {
        let mut state = self.state();
        state.medium.lose_power(loss);
        state.boot();
    }

    /// How many changes are pending: the numbers that [`Loss`] chooses from.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.state().medium.pending()
    }

    /// The n-th mutation from now on (1 = the next) does not happen, and nothing after it: they fail with
    /// "simulated crash", until [`process_crash`](Self::process_crash) or
    /// [`power_loss`](Self::power_loss), which also call off a crash that did not come. 0 calls it off.
    pub fn crash_at_mutation(&self, nth: u64) {
        self.state().crash_in = (nth > 0).then_some(nth);
    }

    /// Whether a write that the crash strikes may have got partly through: then a prefix of its
    /// bytes, none to all, by the seed, is in the cache and pending. Off unless told.
    pub fn crash_mid_write(&self, partly: bool) {
        self.state().crash_mid_write = partly;
    }

    /// Whether the crash that was asked for has come, and no boot since.
    #[must_use]
    pub fn has_crashed(&self) -> bool {
        self.state().crashed
    }

    /// The number of I/O calls so far, over all boots. Calls on a crashed disk don't count.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.state().steps
    }

    /// The number of those that could change something, see [`Operation::is_mutation`].
    #[must_use]
    pub fn mutations(&self) -> u64 {
        self.state().mutations
    }

    /// A hash of all that can be seen: names, lengths and bytes (not space, nor what is pending). Two disks
    /// fresh from a power loss with equal digests behave alike (under [`UnwrittenBytes::Stale`] but for what
    /// the next power loss shows).
    #[must_use]
    pub fn digest(&self) -> u64 {
        self.state().medium.digest(false)
    }

    /// The digest that the disk would have after losing everything that is pending.
    #[must_use]
    pub fn durable_digest(&self) -> u64 {
        self.state().medium.digest(true)
    }

    /// A hash of the pending changes, in their order: of two disks with equal digests and equal durable
    /// digests, it tells whether a loss of power leaves the same of both.
    #[must_use]
    pub fn pending_digest(&self) -> u64 {
        self.state().medium.pending_digest()
    }

    // ---- faults ------------------------------------------------------------------------------

    /// Arms a fault. It outlives crashes: it is the disk's, not the process's.
    pub fn inject(&self, fault: Fault) {
        self.state().faults.inject(fault);
    }

    /// Calls off all faults that have not struck, [`Fault::ShortWrites`] too.
    pub fn clear_faults(&self) {
        self.state().faults.clear();
    }

    /// How many bytes all files together may take, in whole pages of 4096 bytes; `None`: no limit but the 4 GiB.
    ///
    /// A file takes the pages that are written or reserved; extending it with `set_length` takes none. A
    /// write that fits in part is short, one that fits in no part fails with `StorageFull`; a
    /// reservation fits or changes nothing. Names take no space.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.state().medium.capacity = bytes;
    }

    /// How many bytes the files take, see [`set_capacity`](Self::set_capacity). A removed file takes its
    /// space for as long as it is open.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        self.state().medium.used_pages().saturating_mul(content::PAGE)
    }

    // ---- trace -------------------------------------------------------------------------------

    /// Starts a trace of every step, or ends and drops it.
    pub fn record_trace(&self, on: bool) {
        let mut state = self.state();
        state.trace = on.then(|| state.trace.take().unwrap_or_default());
    }

    /// What was traced so far.
    #[must_use]
    pub fn trace(&self) -> Vec<TraceEntry> {
        self.state().trace.clone().unwrap_or_default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic of a test's thread says nothing about this state: it is consistent between calls.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One step: refused when it comes from before the last crash, counted, struck by what is armed,
    /// done, traced.
    fn step<T>(
        &self,
        boot: Option<u32>,
        call: &Call<'_>,
        body: impl FnOnce(&mut State, Fate) -> io::Result<Done<T>>,
    ) -> io::Result<T> {
        #[cfg(shuttle)]
        crate::sync::scheduling_point();
        let mut state = self.state();
        state.admit(boot)?;
        let fate = state.begin(call.operation);
        let outcome = body(&mut state, fate);
        state.record(call, &outcome);
        outcome.map(|done| done.value)
    }
}

impl fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("SimDisk");
        // Never waits: it may be printed by whoever holds the lock.
        if let Ok(state) = self.state.try_lock() {
            debug.field("steps", &state.steps);
            debug.field("pending", &state.medium.pending());
            debug.field("crashed", &state.crashed);
        }
        debug.finish_non_exhaustive()
    }
}

/// A call, as the trace shows it. Borrowed: nothing is copied while no trace is kept.
struct Call<'a> {
    operation: Operation,
    path: &'a Path,
    to: Option<&'a Path>,
    position: u64,
    length: u64,
    bytes: &'a [u8],
}

impl<'a> Call<'a> {
    const fn on(operation: Operation, path: &'a Path) -> Self {
        Self { operation, path, to: None, position: 0, length: 0, bytes: &[] }
    }
}

/// What a call gave, and what the trace says of it.
struct Done<T> {
    value: T,
    count: u64,
    hash: u64,
}

impl<T> Done<T> {
    const fn new(value: T) -> Self {
        Self { value, count: 0, hash: 0 }
    }

    const fn counting(value: T, count: u64) -> Self {
        Self { value, count, hash: 0 }
    }
}

impl State {
    /// Everything of the old process is dead; a new one begins.
    fn boot(&mut self) {
        self.medium.close_all();
        self.locks.clear();
        self.boots = self.boots.saturating_add(1);
        self.crashed = false;
        self.crash_in = None;
    }

    fn process_id(&self) -> u32 {
        FIRST_PROCESS.saturating_add(self.boots)
    }

    fn admit(&self, boot: Option<u32>) -> io::Result<()> {
        if boot.is_some_and(|boot| boot != self.boots) {
            return Err(crash_error("this handle's process is dead"));
        }
        if self.crashed {
            return Err(crash_error("the machine is down"));
        }
        Ok(())
    }

    fn begin(&mut self, operation: Operation) -> Fate {
        self.steps += 1;
        if operation.is_mutation() {
            self.note_moment();
            self.mutations += 1;
            self.crash_in = self.crash_in.map(|left| left.saturating_sub(1));
            if self.crash_in == Some(0) {
                self.crash_in = None;
                self.crashed = true;
                return Fate::Crash;
            }
        }
        let chance = &mut self.chance;
        self.faults.strike(operation, || chance.coin())
    }

    fn record<T>(&mut self, call: &Call<'_>, outcome: &io::Result<Done<T>>) {
        let (step, process, crashed) = (self.steps, self.process_id(), self.crashed);
        let Some(trace) = &mut self.trace else { return };
        let (outcome, seen) = match outcome {
            Ok(done) => (Outcome::Done(done.count), done.hash),
            Err(_) if crashed => (Outcome::Crashed, 0),
            Err(error) => (Outcome::Failed(error.kind()), 0),
        };
        trace.push(TraceEntry {
            step,
            process,
            operation: call.operation,
            path: shown(call.path),
            to: call.to.map(shown),
            position: call.position,
            length: call.length,
            hash: if call.bytes.is_empty() { seen } else { hash(call.bytes) },
            outcome,
        });
    }

    fn write(&mut self, fate: Fate, file: u64, bytes: &[u8], position: u64) -> io::Result<usize> {
        if matches!(fate, Fate::Proceed | Fate::Short) {
            self.note_mid_write(file, bytes, position);
        }
        match fate {
            Fate::Proceed => self.medium.write(file, bytes, position),
            Fate::Short => {
                // At least one byte: a disk that takes none reports an error, not progress of zero.
                let count = 1 + self.chance.below_length(bytes.len().saturating_sub(1));
                self.medium.write(file, bytes.get(..count).unwrap_or(bytes), position)
            }
            Fate::Lost => self.medium.lose_write(file, bytes, position),
            Fate::Misdirected => self.medium.misdirect(file, bytes, position, &mut self.chance),
            Fate::Fail(error) => Err(error.to_error()),
            Fate::Crash => {
                if self.crash_mid_write {
                    let count = self.chance.below_length(bytes.len().saturating_add(1));
                    // Whether it fits is all the same: nobody is told.
                    drop(self.medium.write(file, bytes.get(..count).unwrap_or(bytes), position));
                }
                fate.plain().map(|()| 0)
            }
        }
    }

    fn sync(&mut self, fate: Fate, file: u64) -> io::Result<()> {
        if let Fate::Fail(FaultError::Io | FaultError::StorageFull) = fate {
            self.medium.forget(file);
        }
        fate.plain()?;
        self.medium.sync(file)
    }

    /// The file to lock, with the holder's id if there is one.
    fn lock(&mut self, path: &Path) -> io::Result<(u64, Option<u32>)> {
        let file = match self.medium.find(path)? {
            None => self.medium.create_file(path)?,
            Some(Entry::File(file)) => file,
            Some(Entry::Directory(_)) => return Err(io::ErrorKind::IsADirectory.into()),
        };
        if let Some(holder) = self.locks.get(&file) {
            return Ok((file, Some(*holder)));
        }
        self.locks.insert(file, self.process_id());
        // The guard keeps the file alive, as an open descriptor would.
        self.medium.opened(file)?;
        self.medium.set_length(file, 0)?;
        // The id is a courtesy to people: a full disk must not keep anybody from the lock.
        match self.medium.write(file, self.process_id().to_string().as_bytes(), 0) {
            Err(error) if error.kind() != io::ErrorKind::StorageFull => Err(error),
            _ => Ok((file, None)),
        }
    }
}

/// A path as the trace shows it.
fn shown(path: &Path) -> String {
    let names = components(path);
    if names.is_empty() { String::from("/") } else { names.join("/") }
}

impl Disk for SimDisk {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.step(None, &Call::on(Operation::CreateDir, path), |state, fate| {
            fate.plain()?;
            state.medium.create_dir(path).map(Done::new)
        })
    }

    fn list(&self, path: &Path) -> io::Result<Vec<DirectoryEntry>> {
        self.step(None, &Call::on(Operation::List, path), |state, fate| {
            fate.plain()?;
            let entries = state.medium.list(path)?;
            let count = entries.len() as u64;
            Ok(Done::counting(entries, count))
        })
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.step(None, &Call::on(Operation::SyncDir, path), |state, fate| {
            fate.plain()?;
            state.medium.sync_dir(path).map(Done::new)
        })
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let call = Call { to: Some(to), ..Call::on(Operation::Rename, from) };
        self.step(None, &call, |state, fate| {
            fate.plain()?;
            state.medium.rename(from, to).map(Done::new)
        })
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.step(None, &Call::on(Operation::Remove, path), |state, fate| {
            fate.plain()?;
            state.medium.remove(path).map(Done::new)
        })
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.step(None, &Call::on(Operation::Exists, path), |state, fate| {
            fate.plain()?;
            // A path through a missing directory, or through a file, leads nowhere: that is an answer.
            let exists = state.medium.find(path).is_ok_and(|entry| entry.is_some());
            Ok(Done::counting(exists, u64::from(exists)))
        })
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let create = mode == OpenMode::CreateNew;
        let operation = if create { Operation::Create } else { Operation::Open };
        let (file, boot) = self.step(None, &Call::on(operation, path), |state, fate| {
            fate.plain()?;
            let file = if create { state.medium.create_file(path)? } else { state.medium.find_file(path)? };
            state.medium.opened(file)?;
            Ok(Done::new((file, state.boots)))
        })?;
        let writable = mode != OpenMode::Read;
        Ok(Arc::new(SimFile { disk: self.clone(), file, boot, writable, path: Arc::from(path) }))
    }

    fn lock(&self, path: &Path) -> io::Result<LockAttempt> {
        let (file, held, boot) = self.step(None, &Call::on(Operation::Lock, path), |state, fate| {
            fate.plain()?;
            let (file, held) = state.lock(path)?;
            Ok(Done::counting((file, held, state.boots), u64::from(held.is_none())))
        })?;
        Ok(match held {
            Some(pid) => LockAttempt::Held { pid: Some(pid) },
            None => LockAttempt::Acquired(Box::new(SimLock { disk: self.clone(), file, boot })),
        })
    }

    fn now_millis(&self) -> u64 {
        let mut state = self.state();
        state.millis = state.millis.saturating_add(state.tick_millis);
        state.millis
    }

    fn random(&self) -> u64 {
        self.state().random.next()
    }

    fn process_id(&self) -> u32 {
        self.state().process_id()
    }

    fn background(&self) -> Background {
        self.state().background
    }
}
