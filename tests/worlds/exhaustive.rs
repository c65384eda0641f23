//! Every short sequence of operations, crashed at every step, in every way; and the recovery too.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use stonelog::Durability;
use stonelog::disk::sim::Capabilities;

use crate::support::explore::{Reach, Search};
use crate::support::op::Op;
use crate::support::run::Setup;

/// What a sequence is made of: each kind of operation, in sizes that stay in a segment and that roll.
const ALPHABET: [Op; 12] = [
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
const PRELUDES: [&[Op]; 4] = [
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
fn jobs(length: usize) -> Vec<Job> {
    let mut jobs = Vec::new();
    for durability in [Durability::Always, Durability::Manual] {
        let setup = Setup { seed: 1, durability, segment_bytes: 4096, capabilities: Capabilities::default() };
        for prelude in PRELUDES {
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

fn number(name: &str, usual: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

#[test]
fn every_short_sequence() {
    let length = number("STONELOG_SEQUENCE", 2) as usize;
    let reach = Reach {
        recoveries: number("STONELOG_RECOVERIES", 2) as u8,
        every_loss: number("STONELOG_EVERY_LOSS", 0) == 1,
    };
    let search = Search::new(reach);
    let jobs = jobs(length);
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
    if let Some(why) = failed.into_inner().unwrap() {
        panic!("{why}");
    }
    let [moments, tried, distinct, recoveries] = search.counts.read();
    println!(
        "{} sequences of up to {length} operations: crashed at {moments} moments, {tried} crash states tried, \
         {distinct} distinct, {recoveries} recoveries crashed",
        jobs.len()
    );
}
