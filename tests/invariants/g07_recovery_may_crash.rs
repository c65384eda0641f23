//! G7. Recovery may itself crash, anywhere, any number of times, and ends with the same records and
//! metadata.
//!
//! What it would catch: files removed before the fresh MANIFEST is durable; a leftover copy that is
//! removed with the proof in its base; a recovery that appends to what it read; ids used twice.

use stonelog::disk::sim::{Loss, SimDisk};

use crate::common::{DIRECTORY, after, append, append_batch, check, killed, manual, open, options};
use crate::support::losses;

/// Logs cut off in the middle: several unsealed segments, a torn tail, a tail to be copied.
fn crashed() -> Vec<(SimDisk, u64)> {
    let mut worlds = Vec::new();
    for seed in 0..4 {
        let disk = SimDisk::new(seed);
        let log = manual(&disk).open(DIRECTORY).unwrap();
        append(&log, 20 + seed);
        log.put_meta("vote", b"me").unwrap();
        log.sync().unwrap();
        let durable = log.durable_end();
        append(&log, 18);
        append_batch(&log, 4).unwrap();
        disk.crash_at_mutation(3 + seed);
        let _ = log.sync();
        worlds.push((after(&disk, Loss::Everything), durable));
        worlds.push((after(&disk, Loss::Seeded(seed)), durable));
        worlds.push((killed(&disk), durable));
    }
    worlds
}

/// Crashed at every step, with every loss, twice deep: what the first undisturbed opening would have
/// found proven is there, and nothing is served that is not what was written.
#[test]
fn crashed_at_every_step_twice_deep() {
    let mut recoveries = 0u32;
    for (world, durable) in crashed() {
        let undisturbed = open(&world.fork());
        let most = undisturbed.offsets().end;
        for step in 1.. {
            let disk = world.fork();
            disk.crash_at_mutation(step);
            let opened = options(&disk).open(DIRECTORY);
            if !disk.has_crashed() {
                break;
            }
            drop(opened);
            recoveries += 1;
            let mut kept = losses(disk.pending(), 2);
            kept.truncate(14);
            for loss in kept {
                let once = after(&disk, loss);
                finish(&once, durable, most, &format!("step {step}, {loss:?}"));
                let second = 1 + (step * 5 + recoveries as u64) % 11;
                let disk = once.fork();
                disk.crash_at_mutation(second);
                drop(options(&disk).open(DIRECTORY));
                if disk.has_crashed() {
                    recoveries += 1;
                    for again in [Loss::Nothing, Loss::Everything, Loss::Seeded(second)] {
                        finish(
                            &after(&disk, again),
                            durable,
                            most,
                            &format!("step {step}, {loss:?}, then {second}, {again:?}"),
                        );
                    }
                    finish(
                        &killed(&disk),
                        durable,
                        most,
                        &format!("step {step}, {loss:?}, then {second}, killed"),
                    );
                }
            }
        }
    }
    assert!(recoveries > 300, "{recoveries}");
}

fn finish(disk: &SimDisk, durable: u64, most: u64, what: &str) {
    let disk = disk.fork();
    let log = options(&disk).open(DIRECTORY).unwrap_or_else(|error| panic!("{what}: {error}"));
    let end = log.offsets().end;
    assert!(end >= durable && end <= most, "{what}: {end}, durable {durable}, most {most}");
    check(&log, 0..end);
    assert_eq!(log.meta("vote").unwrap().as_deref(), Some(&b"me"[..]), "{what}");
    // It was served, so it stays.
    let dark = open(&after(&disk, Loss::Nothing));
    check(&dark, 0..end);
}

/// Opening again and again without a write changes nothing but the MANIFEST's generation.
#[test]
fn opening_settles() {
    for (world, _) in crashed() {
        let mut disk = world;
        let end = open(&disk).offsets().end;
        for round in 0..12 {
            disk = after(&disk, [Loss::Nothing, Loss::Everything, Loss::Seeded(round)][(round % 3) as usize]);
            let log = open(&disk);
            check(&log, 0..end);
            assert!(log.segments().len() <= 6, "segments pile up: {:?}", log.segments());
        }
        assert!(disk.file_names(DIRECTORY).len() < 20, "files pile up: {:?}", disk.file_names(DIRECTORY));
    }
}
