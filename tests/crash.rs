//! Random operations on a simulated disk, a crash at every I/O step, several ways to lose what was
//! not synced, the recovery crashed too: G1 to G4 and G7 hold.
//!
//! A failure prints the one command that replays it.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "tests: a failed expectation is how they speak"
)]

mod support;

use stonelog::Durability;
use stonelog::disk::sim::{Loss, SimDisk};
use support::{DIRECTORY, Dice, Ended, Model, Op, Setup, losses, recover_and_check, run};

fn setup(seed: u64) -> Setup {
    let durability = match seed % 3 {
        0 | 1 => Durability::Always,
        _ => Durability::Manual,
    };
    Setup { seed, durability, segment_bytes: 4096 }
}

struct Counts {
    crashes: u64,
    states: u64,
    recoveries_crashed: u64,
}

/// One world: its operations, crashed at every step.
fn explore(seed: u64, operations: usize, counts: &mut Counts) {
    let setup = setup(seed);
    let ops: Vec<Op> = Dice::new(seed).ops(operations);
    let disk = SimDisk::new(seed);
    let mut model = Model::default();
    if let Err(why) = run(&setup, &disk, &ops, &mut model) {
        fail(seed, 0, "no crash", &ops, &why);
    }
    let steps = disk.mutations();
    for step in 1..=steps {
        let disk = SimDisk::new(seed);
        disk.crash_mid_write(step % 2 == 0);
        disk.crash_at_mutation(step);
        let mut model = Model::default();
        match run(&setup, &disk, &ops, &mut model) {
            Ok(Ended::Crashed) => {}
            // Kill boots the disk, which calls a crash off.
            Ok(_) => continue,
            Err(why) => fail(seed, step, "while running", &ops, &why),
        }
        counts.crashes += 1;
        let pending = disk.pending();
        let mut choices = losses(pending, 3);
        if choices.len() > 12 {
            // A sample; the exhaustive search takes them all.
            let mut dice = Dice::new(seed ^ step);
            let extra = choices.split_off(5);
            choices.extend((0..7).map(|_| extra[dice.roll(extra.len() as u64) as usize]));
        }
        for loss in choices {
            counts.states += 1;
            let world = disk.fork();
            world.power_loss(loss);
            crash_the_recovery(&setup, &world, &model, seed, step, loss, &ops, counts);
            if let Err(why) = recover_and_check(&setup, &world, &model) {
                fail(seed, step, &format!("{loss:?}"), &ops, &why);
            }
        }
        // The process alone dies: the page cache survives.
        let world = disk.fork();
        world.process_crash();
        if let Err(why) = recover_and_check(&setup, &world, &model) {
            fail(seed, step, "process crash", &ops, &why);
        }
    }
}

/// G7: the recovery itself crashes, at a step chosen by the seed, and again.
#[allow(clippy::too_many_arguments)]
fn crash_the_recovery(
    setup: &Setup,
    world: &SimDisk,
    model: &Model,
    seed: u64,
    step: u64,
    loss: Loss,
    ops: &[Op],
    counts: &mut Counts,
) {
    let mut dice = Dice::new(seed ^ step << 20);
    let disk = world.fork();
    for depth in 0..2 {
        let at = 1 + dice.roll(12);
        disk.crash_at_mutation(at);
        let opened = setup.options(&disk).open(DIRECTORY);
        if opened.is_ok() && !disk.has_crashed() {
            break;
        }
        counts.recoveries_crashed += 1;
        let again = Loss::Seeded(dice.roll(1 << 30));
        disk.power_loss(again);
        drop(opened);
        if depth == 0 && dice.roll(2) == 0 {
            continue;
        }
        if let Err(why) = recover_and_check(setup, &disk.fork(), model) {
            fail(seed, step, &format!("{loss:?}, recovery crashed at {at}, then {again:?}"), ops, &why);
        }
    }
}

fn fail(seed: u64, step: u64, how: &str, ops: &[Op], why: &str) -> ! {
    panic!(
        "{why}\n  world {seed}, crash at step {step}, {how}\n  operations: {ops:?}\n  replay: \
         STONELOG_WORLD={seed} cargo test --test crash -- --nocapture every_step"
    );
}

#[test]
fn every_step_of_random_worlds() {
    let one: Option<u64> = std::env::var("STONELOG_WORLD").ok().and_then(|seed| seed.parse().ok());
    let worlds = std::env::var("STONELOG_WORLDS").ok().and_then(|count| count.parse().ok()).unwrap_or(40);
    let seeds = one.map_or(0..worlds, |seed| seed..seed + 1);
    let mut counts = Counts { crashes: 0, states: 0, recoveries_crashed: 0 };
    let total = seeds.end - seeds.start;
    for seed in seeds {
        explore(seed, 14, &mut counts);
    }
    println!(
        "{total} worlds, {} crash points, {} crash states tried, {} recoveries crashed",
        counts.crashes, counts.states, counts.recoveries_crashed
    );
}

/// The same seed gives the same I/O, step by step.
#[test]
fn a_world_is_deterministic() {
    let trace = |seed: u64| {
        let disk = SimDisk::new(seed);
        disk.record_trace(true);
        let _ = run(&setup(seed), &disk, &Dice::new(seed).ops(30), &mut Model::default());
        disk.trace()
    };
    for seed in 0..6 {
        let (first, second) = (trace(seed), trace(seed));
        assert!(first.len() > 50);
        assert_eq!(first, second, "world {seed}");
    }
}
