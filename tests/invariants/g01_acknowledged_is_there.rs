//! G1. An acknowledged append is there after any crash, byte for byte.
//!
//! What it would catch: an acknowledgement before the fsync; a new store whose directory entry was
//! never synced; a durable end published past an earlier store that is not synced; a roll, a
//! truncation or a metadata edit that loses what was there before.

use stonelog::Durability;
use stonelog::disk::sim::{Capabilities, Loss, SimDisk, UnwrittenBytes};

use crate::common::{
    DIRECTORY, SEGMENT, after, append_batch, check_records, content, manual, open, options, poll_to_end,
};
use crate::support::losses;
use crate::support::model::Model;
use crate::support::op::Dice;
use crate::support::run::{Setup, observe};
use crate::support::world::{Crash, Fate, World, recover_and_check};

/// After every single acknowledgement, of every kind, the power fails.
#[test]
fn the_power_fails_after_each_acknowledgement() {
    for seed in 0..6 {
        let disk = SimDisk::new(seed);
        let log = open(&disk);
        for number in 0..45u64 {
            let next = log.offsets().end;
            match number % 4 {
                0 | 1 => assert_eq!(log.append(content(next)).unwrap(), next),
                2 => assert_eq!(append_batch(&log, 3).unwrap(), next..next + 3),
                _ => assert_eq!(log.submit(content(next)).unwrap().wait().unwrap(), next..next + 1),
            }
            for loss in losses(disk.pending(), 2) {
                let log = open(&after(&disk, loss));
                assert!(log.offsets().end >= log.durable_end());
                let end = next + if number % 4 == 2 { 3 } else { 1 };
                assert!(log.offsets() == (0..end), "{seed}, {number}, {loss:?}: {:?}", log.offsets());
                check_records(&log, 0..end);
            }
        }
    }
}

/// Tickets and sync acknowledge everything before them, across segments, in `Manual` too.
#[test]
fn tickets_and_sync_cover_all_before_them() {
    for seed in 0..12 {
        let disk = SimDisk::new(seed);
        let log = manual(&disk).open(DIRECTORY).unwrap();
        let mut acknowledged = 0;
        for round in 0..6 {
            for _ in 0..17 {
                log.append(content(log.offsets().end)).unwrap();
            }
            match round % 3 {
                0 => log.sync().unwrap(),
                1 => drop(log.submit(content(log.offsets().end)).unwrap().wait().unwrap()),
                _ => drop(poll_to_end(log.submit(content(log.offsets().end)).unwrap()).0.unwrap()),
            }
            acknowledged = acknowledged.max(log.offsets().end);
            assert_eq!(log.durable_end(), acknowledged);
            for _ in 0..3 {
                log.append(content(log.offsets().end)).unwrap();
            }
            for loss in [Loss::Nothing, Loss::Everything, Loss::Seeded(seed), Loss::Seeded(round)] {
                let log = open(&after(&disk, loss));
                assert!(log.offsets().end >= acknowledged, "{loss:?}: {:?} of {acknowledged}", log.offsets());
                check_records(&log, log.offsets());
            }
        }
    }
}

/// Metadata is durable on return, and independent of appends.
#[test]
fn metadata_is_durable_on_return() {
    let disk = SimDisk::new(8);
    let log = open(&disk);
    for number in 0..30u8 {
        log.put_meta(if number % 2 == 0 { "vote" } else { "position" }, [number; 40]).unwrap();
        log.append(content(log.offsets().end)).unwrap();
        let dark = open(&after(&disk, Loss::Nothing));
        let key = if number % 2 == 0 { "vote" } else { "position" };
        assert_eq!(dark.meta(key).unwrap(), Some(vec![number; 40]));
    }
    log.remove_meta("vote").unwrap();
    assert_eq!(open(&after(&disk, Loss::Nothing)).meta("vote").unwrap(), None);
    assert_eq!(log.meta("vote").unwrap(), None);
}

/// Every device that can be declared.
fn devices() -> Vec<Capabilities> {
    let mut devices = Vec::new();
    for sector in [1, 512, 4096] {
        for bits in 0..4 {
            for unwritten in [UnwrittenBytes::Never, UnwrittenBytes::Zeros, UnwrittenBytes::Stale] {
                let mut device = Capabilities::default();
                device.sector_bytes = sector;
                device.directory_operations_in_order = bits & 1 != 0;
                device.file_sync_persists_entry = bits & 2 != 0;
                device.unwritten_bytes = unwritten;
                devices.push(device);
            }
        }
    }
    devices
}

/// Devices that promise more (or have larger sectors), and those that show stale bytes where a file grew,
/// must not make it worse.
#[test]
fn on_other_devices() {
    for (seed, device) in devices().into_iter().enumerate() {
        let disk = SimDisk::with_capabilities(seed as u64, device);
        let log = open(&disk);
        for end in 1..50 {
            log.append(content(end - 1)).unwrap();
            for loss in [Loss::Nothing, Loss::Everything, Loss::Seeded(end), Loss::Seeded(end + 1000)] {
                let log = options(&after(&disk, loss)).open(DIRECTORY).unwrap();
                check_records(&log, 0..end);
            }
        }
    }
}

/// Random operations on each of them, with segments dropped and manifests replaced, so that there is
/// something for stale bytes to be of; crashed at many a moment, and the recovery crashed too.
#[test]
fn random_operations_on_other_devices() {
    let devices = devices().into_iter().filter(|device| device.sector_bytes > 1);
    for (seed, capabilities) in (0..).zip(devices) {
        let durability = if seed % 3 == 0 { Durability::Manual } else { Durability::Always };
        let setup = Setup { seed, durability, segment_bytes: SEGMENT, capabilities };
        let ops = Dice::new(seed).ops(16);
        let mut moments = Vec::new();
        observe(&setup, &setup.disk(), &ops, &mut Model::default(), 0, &mut |model, new| {
            moments.extend(new.into_iter().map(|moment| (moment, model.clone())));
            Ok(())
        })
        .unwrap();
        let stride = moments.len() / 14 + 1;
        for (moment, model) in moments.iter().skip(seed as usize % stride).step_by(stride) {
            let pending = moment.disk.pending();
            let seeds = [moment.mutation, moment.mutation ^ 0x5555].map(Loss::Seeded);
            let one = losses(pending, 0).into_iter().skip(2 + (moment.mutation as usize * 7) % (pending + 1));
            for loss in [Loss::Nothing].into_iter().chain(seeds).chain(one.step_by(pending + 1)) {
                let mut world = World { setup, ops: ops.clone(), crashes: Vec::new() };
                world.crashes.push(Crash::at(moment, Fate::Power(loss)));
                let disk = world.crashes[0].strike(moment);
                let again = recover_and_check(&setup, &disk.fork(), model, None, true)
                    .unwrap_or_else(|why| panic!("{why}\n  replay: {}", world.command()));
                let Some(second) = again.moments.get(1 + moment.mutation as usize % 11) else { continue };
                let crash = Crash::at(second, Fate::Power(seeds[0]));
                world.crashes.push(crash);
                recover_and_check(&setup, &crash.strike(second), model, Some(&again.found), false)
                    .unwrap_or_else(|why| panic!("{why}\n  replay: {}", world.command()));
            }
        }
    }
}
