//! Looking at each store by itself, where there is no manifest to go by.
//!
//! It owns which log the stores are taken to be of, and the threads that read them. It judges nothing:
//! that is `loose`'s. Invariant: the result does not depend on who read what.
//!
//! Why any identity at all: checksums need the log's uuid, and a store whose head is lost does not have it.
//! Its neighbours know.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use stonelog::disk::Disk;
use stonelog::frame::Seed;
use stonelog::recovery::{Findings, StoreFindings};
use stonelog::scan::{self, Extent};
use stonelog::store::FIRST_FRAME;

use crate::looking::StoreSource;
use crate::loose::LooseStore;

/// Each thread holds a window of the scanner's.
const MOST_THREADS: usize = 8;

/// Looks at every store that was listed.
pub(crate) fn look(disk: &dyn Disk, findings: &Findings) -> Vec<LooseStore> {
    let listed: Vec<(u64, u64)> = findings.listing.stores.iter().map(|(id, length)| (*id, *length)).collect();
    let identity = listed.iter().find_map(|(id, _)| {
        let source = StoreSource::open(disk, &findings.directory, *id).ok()?;
        uuid_of(&source, *id)
    });
    let next = AtomicUsize::new(0);
    let draw = || {
        let mut done = Vec::new();
        while let Some((id, length)) = listed.get(next.fetch_add(1, Ordering::Relaxed)) {
            done.push(one(disk, findings, *id, *length, identity));
        }
        done
    };
    let threads = thread::available_parallelism().map_or(1, usize::from).min(MOST_THREADS).min(listed.len());
    let mut stores = thread::scope(|scope| {
        // A thread that the system does not give is not missed.
        let helpers: Vec<_> =
            (1..threads).map_while(|_| thread::Builder::new().spawn_scoped(scope, draw).ok()).collect();
        let mut stores = draw();
        for helper in helpers {
            stores.extend(helper.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        }
        stores
    });
    stores.sort_unstable_by_key(|store| store.id);
    stores
}

/// The log that a store says it is of, where its head is its own.
fn uuid_of(source: &StoreSource, id: u64) -> Option<[u8; 16]> {
    source.findings(&[0; 16], id).head().filter(|head| head.id == id).map(|head| head.uuid)
}

fn one(disk: &dyn Disk, findings: &Findings, id: u64, length: u64, identity: Option<[u8; 16]>) -> LooseStore {
    let mut loose = LooseStore { id, store: StoreFindings::Missing, scan: None };
    let source = match StoreSource::open(disk, &findings.directory, id) {
        Ok(source) => source,
        Err(error) => {
            loose.store = StoreFindings::Unreadable { why: error.to_string() };
            return loose;
        }
    };
    let Some(uuid) = uuid_of(&source, id).or(identity) else {
        loose.store = source.findings(&[0; 16], id);
        return loose;
    };
    loose.store = source.findings(&uuid, id);
    let seed = Seed::of_segment(&uuid, id);
    let base = loose.store.base();
    let extent = Extent { seed, start: FIRST_FRAME, end: length, base, ordinal_end: None };
    loose.scan = Some(scan::scan(&source, &extent, |_| {}));
    loose
}
