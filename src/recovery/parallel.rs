//! One piece of work for each of many files, on as many threads as help.
//!
//! It owns the threads, and nothing about the work. Invariants: the results come in the order of the files,
//! whoever did what and when; on a disk that says [`Background::Inline`] there is no thread, and the work is
//! done in order (a simulated run is repeatable step by step); a thread that the system does not give is not
//! missed: the others, and the caller, do its work.
//!
//! Why a counter that threads draw from, and not a share for each: segments differ in what they cost.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::disk::Background;
use crate::sync::scoped;

/// Threads beyond these only wait for the disk, and each holds its buffers.
const MOST_THREADS: usize = 8;

/// Does `work` for each number below `count`; the results in that order.
pub(super) fn each<T: Send>(
    background: Background,
    count: usize,
    work: impl Fn(usize) -> T + Sync,
) -> Vec<T> {
    let threads = scoped::available_parallelism().map_or(1, usize::from).min(MOST_THREADS).min(count);
    if background == Background::Inline || threads < 2 {
        return (0..count).map(work).collect();
    }
    let next = AtomicUsize::new(0);
    let draw = || {
        let mut done = Vec::new();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= count {
                return done;
            }
            done.push((number, work(number)));
        }
    };
    let mut done = scoped::scope(|scope| {
        let helpers: Vec<_> = (1..threads)
            .map_while(|_| {
                scoped::Builder::new().name("stonelog-scan".to_string()).spawn_scoped(scope, draw).ok()
            })
            .collect();
        let mut done = draw();
        for helper in helpers {
            match helper.join() {
                Ok(more) => done.extend(more),
                // As if it had happened here.
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        done
    });
    done.sort_unstable_by_key(|(number, _)| *number);
    done.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::thread;

    #[test]
    fn results_come_in_order_whoever_did_the_work() {
        for count in [0, 1, 2, 7, 100] {
            for background in [Background::Inline, Background::Threads] {
                let squares = each(background, count, |number| {
                    thread::yield_now();
                    number * number
                });
                assert_eq!(squares, (0..count).map(|number| number * number).collect::<Vec<_>>());
            }
        }
    }

    /// Each of two pieces waits for the other to begin.
    #[test]
    fn two_threads_work_at_once() {
        if scoped::available_parallelism().map_or(1, usize::from) < 2 {
            return;
        }
        let (begun, changed) = (std::sync::Mutex::new(0), std::sync::Condvar::new());
        let met = each(Background::Threads, 2, |_| {
            let mut begun = begun.lock().unwrap();
            *begun += 1;
            changed.notify_all();
            // (So long only where it fails.)
            let patience = std::time::Duration::from_secs(60);
            let (begun, _) = changed.wait_timeout_while(begun, patience, |begun| *begun < 2).unwrap();
            *begun == 2
        });
        assert_eq!(met, [true, true]);
    }

    #[test]
    fn an_inline_disk_has_no_threads() {
        let caller = thread::current().id();
        let threads = each(Background::Inline, 8, |_| thread::current().id());
        assert!(threads.iter().all(|thread| *thread == caller));
    }
}
