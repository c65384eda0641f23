//! Every short sequence of operations, as jobs for a search.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use stonelog::Durability;
use stonelog::disk::sim::Capabilities;

use super::explore::{Reach, Search};
use super::op::Op;
use super::run::Setup;

/// What a sequence is made of: each kind of operation, in sizes that stay in a segment and that roll.
pub const ALPHABET: [Op; 12] = [
    Op::Append(30),
    Op::Append(1500),
    Op::Batch(3, 40),
    Op::Submit(8),
    Op::Sync,
    Op::TruncateFront(4),
    Op::TruncateFront(9),
    Op::TruncateBack(4),
    Op::TruncateBack(0),
    Op::PutMeta(0, 1),
    Op::Reopen,
    Op::Kill,
];

/// What comes before a sequence: nothing; two segments and a half; that, closed; that, recovered.
pub const PRELUDES: [&[Op]; 4] = [
    &[],
    &[Op::Append(1500), Op::Append(1500), Op::Batch(3, 200), Op::Append(1500), Op::Submit(20)],
    &[Op::Append(1500), Op::Append(1500), Op::Append(900), Op::PutMeta(0, 9), Op::Reopen],
    &[Op::Append(1500), Op::Append(1500), Op::Append(900), Op::Submit(20), Op::Kill],
];

struct Job {
    setup: Setup,
    ops: Vec<Op>,
    from: usize,
}

/// Every sequence of up to `length` operations behind every prelude. Each job crashes the last operation
/// of its sequence (the first job of a prelude: all of it): the earlier ones are the last of another job.
fn jobs(seed: u64, preludes: &[&[Op]], length: usize) -> Vec<Job> {
    let mut jobs = Vec::new();
    for durability in [Durability::Always, Durability::Manual] {
        let setup = Setup { seed, durability, segment_bytes: 4096, capabilities: Capabilities::default() };
        for prelude in preludes {
            let mut layer = vec![prelude.to_vec()];
            jobs.push(Job { setup, ops: prelude.to_vec(), from: 0 });
            for _ in 0..length {
                layer = layer
                    .iter()
                    .flat_map(|ops| ALPHABET.iter().map(|op| [&ops[..], &[*op]].concat()))
                    .collect();
                jobs.extend(layer.iter().map(|ops| Job { setup, ops: ops.clone(), from: ops.len() }));
            }
        }
    }
    jobs
}

/// Searches all of them, on every core; gives the search and the number of sequences.
///
/// # Errors
/// Which promise broke, and the command that replays it.
pub fn search(seed: u64, preludes: &[&[Op]], length: usize, reach: Reach) -> Result<(Search, usize), String> {
    let search = Search::new(reach);
    let jobs = jobs(seed, preludes, length);
    let next = AtomicUsize::new(0);
    let failed = Mutex::new(None);
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(job) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if failed.lock().unwrap().is_some() {
                        return;
                    }
                    if let Err(why) = search.run(&job.setup, &job.ops, job.from) {
                        failed.lock().unwrap().get_or_insert(why);
                    }
                }
            });
        }
    });
    match failed.into_inner().unwrap() {
        Some(why) => Err(why),
        None => Ok((search, jobs.len())),
    }
}
