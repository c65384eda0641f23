//! Replays one world, as a failure printed it; and that a world is the same each time.

use stonelog::disk::sim::SimDisk;

use crate::support::model::Model;
use crate::support::op::Dice;
use crate::support::run::{Setup, run};
use crate::support::world::World;

/// The world in `STONELOG_WORLD`, if there is one.
#[test]
fn replay() {
    let Ok(text) = std::env::var("STONELOG_WORLD") else { return };
    let world: World = text.parse().unwrap();
    println!("replaying {world}");
    if let Err(why) = world.replay() {
        panic!("{why}");
    }
}

/// Worlds that failed once.
#[test]
fn they_do_not_fail_again() {
    let failed = [
        // A failed read while an index was rebuilt: an intact record read as damaged.
        "seed=39109 durability=interval segment=4096 ops=append:0,append:4200,fill:3,submit:0,fault:read:1,append:0,\
         fault:read:2,front:2 crash=",
        // Zeros written ahead of their place (a bug made on purpose).
        "seed=0 durability=always segment=4096 ops=submit:33000,sync crash=",
    ];
    for text in failed {
        let world: World = text.parse().unwrap();
        world.replay().unwrap_or_else(|why| panic!("{why}\n  replay: {}", world.command()));
    }
}

#[test]
fn a_world_is_what_its_text_says() {
    for text in [
        "seed=3 durability=manual segment=4096 ops=append:30,batch:3:40,submit:0,sync,front:9,back:4 crash=",
        "seed=0 durability=interval segment=8192 sector=4096 in-order sync-names unwritten=stale ops=meta:1:2,reopen,kill,\
         cut:77,fault:sync:2,fault:enospc:1,fill:3,heal crash=12m:tear:3,15:process,99:seeded:4,7:nothing",
    ] {
        let world: World = text.parse().unwrap();
        assert_eq!(world.to_string(), text);
    }
}

/// The same seed gives the same I/O, step by step.
#[test]
fn a_world_is_deterministic() {
    let trace = |seed: u64| {
        let setup: World = format!("seed={seed} durability=manual").parse().unwrap();
        let setup = Setup { seed, ..setup.setup };
        let disk = SimDisk::new(seed);
        disk.record_trace(true);
        let _ = run(&setup, &disk, &Dice::new(seed).ops(30), &mut Model::default());
        disk.trace()
    };
    for seed in 0..6 {
        let (first, second) = (trace(seed), trace(seed));
        assert!(first.len() > 50);
        assert_eq!(first, second, "world {seed}");
    }
}
