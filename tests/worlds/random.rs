//! Large random worlds: operations, faults, full disks, killed processes and power cuts, in any durability
//! mode on any kind of device, under proptest. What breaks a promise is shrunk to a short list.

use proptest::prelude::*;
use proptest::sample::Index;
use stonelog::Durability;
use stonelog::disk::sim::{Capabilities, Loss, SimDisk, UnwrittenBytes};

use crate::support::model::Model;
use crate::support::op::{FaultKind, Op};
use crate::support::property;
use crate::support::run::{Setup, observe};
use crate::support::world::{Crash, Fate, World, losses, recover_and_check};

fn length() -> impl Strategy<Value = u16> {
    // (Behind 32 KiB zeros are written ahead of what comes.)
    prop_oneof![12 => 0..300u16, 3 => Just(0u16), 3 => 1200..2000u16, 3 => Just(4200u16), 1 => Just(33_000u16)]
}

fn fault_kind() -> impl Strategy<Value = FaultKind> {
    prop::sample::select(vec![
        FaultKind::Read,
        FaultKind::Write,
        FaultKind::ShortWrite,
        FaultKind::Sync,
        FaultKind::SyncDir,
        FaultKind::Rename,
        FaultKind::Interrupted,
        FaultKind::Full,
    ])
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => length().prop_map(Op::Append),
        3 => (2..6u8, 0..400u16).prop_map(|(count, length)| Op::Batch(count, length)),
        5 => length().prop_map(Op::Submit),
        2 => Just(Op::Sync),
        2 => (0..10u8).prop_map(Op::TruncateFront),
        2 => (0..9u8).prop_map(Op::TruncateBack),
        2 => (0..3u8, 0..250u8).prop_map(|(key, value)| Op::PutMeta(key, value)),
        2 => Just(Op::Reopen),
        1 => Just(Op::Kill),
        1 => any::<u16>().prop_map(Op::PowerCut),
        2 => (fault_kind(), 1..8u8).prop_map(|(kind, nth)| Op::Fault(kind, nth)),
        1 => (0..40u8).prop_map(Op::Fill),
        2 => Just(Op::Heal),
    ]
}

fn setup() -> impl Strategy<Value = Setup> {
    let durability = prop::sample::select(vec![Durability::Always, Durability::Manual, Setup::interval()]);
    let segment = prop::sample::select(vec![4096u64, 8192, 65536]);
    let sector = prop::sample::select(vec![512u64, 1, 4096]);
    let unwritten =
        prop::sample::select(vec![UnwrittenBytes::Zeros, UnwrittenBytes::Never, UnwrittenBytes::Stale]);
    (0..u64::from(u16::MAX), durability, segment, sector, any::<(bool, bool)>(), unwritten).prop_map(
        |(seed, durability, segment_bytes, sector_bytes, (in_order, persists), unwritten_bytes)| {
            let mut capabilities = Capabilities::default();
            capabilities.sector_bytes = sector_bytes;
            capabilities.directory_operations_in_order = in_order;
            capabilities.file_sync_persists_entry = persists;
            capabilities.unwritten_bytes = unwritten_bytes;
            Setup { seed, durability, segment_bytes, capabilities }
        },
    )
}

/// A choice of moment, and of what survives it.
type Blow = (Index, Index);

fn fates(pending: usize) -> Vec<Fate> {
    let power = losses(pending, 6).into_iter().map(Fate::Power);
    // A few in a hundred would be too few for the process alone.
    power.chain(std::iter::repeat_n(Fate::Process, 2)).collect()
}

/// Runs a world, crashes it at some moment of its last third or so, and its recoveries after that.
fn live_and_die(setup: Setup, ops: &[Op], blows: &[Blow]) -> Result<(), String> {
    let mut world = World { setup, ops: ops.to_vec(), crashes: Vec::new() };
    let mut model = Model::default();
    let mut moments = Vec::new();
    observe(&setup, &setup.disk(), ops, &mut model, 0, &mut |model, new| {
        moments.extend(new.into_iter().map(|moment| (moment, model.clone())));
        Ok(())
    })
    .map_err(|why| told(&world, &why))?;
    let Some(((when, how), again)) = blows.split_first() else { return Ok(()) };
    let (moment, model) = when.get(&moments);
    let crash = Crash::at(moment, *how.get(&fates(moment.disk.pending())));
    world.crashes.push(crash);
    let mut disk = crash.strike(moment);
    let mut expected = None;
    for (when, how) in again {
        let recovered = recover_and_check(&setup, &disk.fork(), model, expected.as_ref(), true)
            .map_err(|why| told(&world, &why))?;
        if matches!(crash.fate, Fate::Power(_)) {
            expected = expected.or(Some(recovered.found));
        }
        if recovered.moments.is_empty() {
            break;
        }
        let moment = when.get(&recovered.moments);
        let crash = Crash::at(moment, *how.get(&fates(moment.disk.pending())));
        world.crashes.push(crash);
        disk = crash.strike(moment);
    }
    recover_and_check(&setup, &disk, model, expected.as_ref(), false)
        .map(drop)
        .map_err(|why| told(&world, &why))
}

fn told(world: &World, why: &str) -> String {
    format!("{why}\n  replay: {}", world.command())
}

proptest! {
    #![proptest_config(ProptestConfig {
        max_shrink_iters: 20_000,
        ..property::config(3000, Some(
            concat!(env!("CARGO_MANIFEST_DIR"), "/proptest-regressions/worlds.txt")))
    })]

    #[test]
    fn random_worlds(
        setup in setup(),
        ops in prop::collection::vec(op(), 0..60),
        blows in prop::collection::vec(any::<(Index, Index)>(), 1..4),
    ) {
        if let Err(why) = live_and_die(setup, &ops, &blows) {
            return Err(TestCaseError::fail(why));
        }
    }
}

/// Blows at every moment are too many for a random world, but the last ones of a fixed one are not: this
/// keeps the walk from [`live_and_die`] to [`World::replay`] honest.
#[test]
fn a_world_replays_as_it_was_lived() {
    let text = "seed=7 durability=manual segment=4096 ops=append:1500,append:1500,submit:20,append:1500,\
                back:4,append:90,submit:30 crash=";
    let lived: World = text.parse().unwrap();
    let mut model = Model::default();
    let mut crashes = Vec::new();
    observe(&lived.setup, &lived.setup.disk(), &lived.ops, &mut model, 0, &mut |_, moments| {
        crashes.extend(moments.iter().map(|moment| {
            let crash = Crash::at(moment, Fate::Power(Loss::Seeded(moment.mutation)));
            (crash, crash.strike(moment).digest())
        }));
        Ok(())
    })
    .unwrap();
    assert!(crashes.len() > 60, "{}", crashes.len());
    for (crash, digest) in crashes {
        let world = World { crashes: vec![crash], ..lived.clone() };
        let again: World = world.to_string().parse().unwrap();
        assert_eq!(again, world);
        let look = |disk: &SimDisk| assert_eq!(disk.digest(), digest, "{world}");
        again.replay_from(look).unwrap_or_else(|why| panic!("{why}\n  replay: {}", world.command()));
    }
}
