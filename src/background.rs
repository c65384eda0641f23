//! Background work: the committer, the keeper and the scribe.
//!
//! It owns the threads, or their inline stand-in on a simulated disk. The committer commits
//! where submitted bytes have no leader; the keeper prepares segments ahead, seals those behind, and removes and
//! closes files that were let go of; the scribe writes out what appends that wait for no commit leave behind, while
//! they encode more.
//! It decides nothing about what they do. Invariant: all threads end before the last handle is
//! gone.
//!
//! Why the committer does not write ahead too: it is in an fsync for half of a fast run, and the appender would
//! have to write meanwhile.

use std::sync::Arc;

use crate::commit::Core;
use crate::disk::Background;
use crate::options::Durability;
use crate::signal::Signal;
use crate::sync::thread::{self, JoinHandle};

/// The background threads of one log.
#[derive(Debug, Default)]
pub(crate) struct Threads(Vec<JoinHandle<()>>);

impl Threads {
    /// Starts them, where the disk wants threads.
    ///
    /// # Errors
    /// When the operating system gives no thread.
    pub(crate) fn start(core: &Arc<Core>) -> std::io::Result<Threads> {
        let mut threads = Threads::default();
        if core.background == Background::Inline {
            return Ok(threads);
        }
        type Work = fn(&Core);
        let work: [(&str, Work); 3] =
            [("stonelog-commit", committer), ("stonelog-keep", keeper), ("stonelog-write", scribe)];
        // Where every append waits for its commit, a leader writes: there is nothing for a scribe.
        let needed = work.len() - usize::from(core.options.durability == Durability::Always);
        for (name, work) in work.into_iter().take(needed) {
            let shared = core.clone();
            match thread::Builder::new().name(name.to_string()).spawn(move || work(&shared)) {
                Ok(handle) => threads.0.push(handle),
                Err(error) => {
                    threads.stop(core);
                    return Err(error);
                }
            }
        }
        Ok(threads)
    }

    /// Stops them and waits for their end.
    pub(crate) fn stop(&mut self, core: &Core) {
        core.signal.stop();
        for handle in self.0.drain(..) {
            handle.thread().unpark();
            // The last handle can go in a waker that runs on one of these threads.
            if handle.thread().id() == thread::current().id() {
                continue;
            }
            // A thread that panicked has poisoned the log; there is nothing more to say here.
            let _ = handle.join();
        }
    }
}

fn committer(core: &Core) {
    let _ = core.signal.committer.set(thread::current());
    while !core.signal.stopping() {
        let demanded = core.signal.take(Signal::COMMIT);
        let due = match core.options.durability {
            Durability::Interval(interval) if !demanded => {
                thread::park_timeout(interval);
                true
            }
            _ => demanded,
        };
        if due {
            if core.has_uncommitted() {
                // A failure has reached everybody who waits; those who do not will meet the poison.
                let _ = core.commit_now();
            }
        } else if !core.signal.is_demanded(Signal::COMMIT) && !core.signal.stopping() {
            thread::park();
        }
    }
}

fn keeper(core: &Core) {
    let _ = core.signal.keeper.set(thread::current());
    while !core.signal.stopping() {
        if core.signal.take(Signal::KEEP) {
            // Without space a spare cannot be prepared now; the append that needs it says so.
            if let Err(error) = core.keep(None) {
                tracing::debug!(%error, "nothing prepared ahead for now");
            }
            core.dropped.remove_all(&core.place);
        } else {
            thread::park();
        }
    }
}

fn scribe(core: &Core) {
    let _ = core.signal.scribe.set(thread::current());
    while !core.signal.stopping() {
        if core.signal.take(Signal::WRITE) {
            // A failure has poisoned the log: the next append meets it.
            let _ = core.write_ahead();
        } else {
            thread::park();
        }
    }
}

impl Core {
    /// Does what the background would, now or later as the disk's random numbers say: for disks
    /// without threads.
    pub(crate) fn run_background(&self) {
        if self.background != Background::Inline {
            return;
        }
        if self.signal.is_demanded(Signal::WRITE) && self.options.disk.random() & 1 == 0 {
            self.signal.take(Signal::WRITE);
            let _ = self.write_ahead();
        }
        if self.signal.is_demanded(Signal::COMMIT) && self.options.disk.random() & 1 == 0 {
            self.signal.take(Signal::COMMIT);
            let _ = self.commit_now();
        }
        if let Durability::Interval(_) = self.options.durability
            && self.options.disk.random() & 7 == 0
            && self.has_uncommitted()
        {
            let _ = self.commit_now();
        }
        if self.signal.is_demanded(Signal::KEEP) && self.options.disk.random() & 1 == 0 {
            self.signal.take(Signal::KEEP);
            let _ = self.keep(None);
            self.dropped.remove_all(&self.place);
        }
    }
}
