//! G5, continued: what counts as evidence that records were acknowledged, and what does not.
//!
//! What it would catch: a proof that is forgotten (the base of a copy that a crashed recovery left, frames
//! in a store that no edit names), and one that is none (a lag that says nothing).

use std::path::PathBuf;

use stonelog::disk::sim::{Loss, SimDisk};
use stonelog::frame::{self, Kind, Lag, PayloadChecksum, Seed};
use stonelog::store::{FIRST_FRAME, Head};

use crate::common::{
    DIRECTORY, after, append, check, content, damage, files, killed, manual, open, options, path, take_apart,
};

/// A recovery saw eight records proven, by a watermark in the page cache alone, and said so in the base of
/// its copy. It crashed; the watermark is gone. The base is not.
#[test]
fn a_leftover_copy_is_proof() {
    let mut leftovers = 0;
    for seed in 0..8 {
        let disk = SimDisk::new(seed);
        let log = manual(&disk).open(DIRECTORY).unwrap();
        append(&log, 8);
        log.sync().unwrap();
        append(&log, 6);
        disk.crash_mid_write(true);
        disk.crash_at_mutation(1);
        let _ = log.sync();
        let cached = killed(&disk);
        cached.record_moments(true);
        drop(options(&cached).open(DIRECTORY));
        for moment in cached.take_moments() {
            let world = after(&moment.disk, Loss::Nothing);
            let rest = take_apart(&world);
            let named: Vec<&String> = rest.stores.iter().map(|store| &store.name).collect();
            let copy = crate::common::stores(&world).into_iter().find(|name| !named.contains(&name));
            let base = copy.and_then(|copy| {
                let bytes = world.read_file(path(&copy))?;
                let base = bytes.get(520..528)?.try_into().map(u64::from_le_bytes).ok();
                base.filter(|_| bytes[512..520] == *b"STONBASE")
            });
            if base != Some(8) {
                continue;
            }
            leftovers += 1;
            assert_eq!(open(&world.fork()).offsets(), 0..8, "without damage it opens");
            let store = &rest.stores[0];
            let last = store.frames.iter().find(|frame| frame.offset == Some(7)).unwrap();
            world.flip_bit(path(&store.name), last.position + 16, 3).unwrap();
            let found = damage(options(&world).open(DIRECTORY));
            assert_eq!(found.offsets, Some(7..8));
            assert!(found.proof.unwrap().contains("left by an interrupted recovery"), "{seed}");
        }
    }
    assert!(leftovers > 0, "no recovery left a copy that proves anything");
}

/// A store is named before it gets its first frame: frames in one that nobody names are an edit lost.
#[test]
fn frames_in_an_unnamed_store_are_proof() {
    let disk = SimDisk::new(1);
    let log = open(&disk);
    append(&log, 5);
    let world = after(&disk, Loss::Nothing);
    // All that was ever appended to the MANIFEST: the Creates.
    let manifest = world.read_file(path("MANIFEST")).unwrap();
    let init = u32::from_le_bytes(manifest[516..520].try_into().unwrap()) & 0x0fff_ffff;
    let second = 512 + frame::frame_bytes(init);
    world.zero(path("MANIFEST"), second..manifest.len() as u64).unwrap();
    let before = files(&world);
    let found = damage(options(&world).open(DIRECTORY));
    assert_eq!(found.file, PathBuf::from(path("MANIFEST")));
    let mut now = files(&world);
    now.insert("LOCK".to_string(), before["LOCK"].clone());
    assert_eq!(now, before, "nothing was removed");
}

/// A frame whose lag did not fit says nothing, and so proves nothing: before it a gap is a tear.
#[test]
fn a_lag_that_says_nothing_is_no_proof() {
    let disk = SimDisk::new(2);
    let log = manual(&disk).open(DIRECTORY).unwrap();
    append(&log, 6);
    log.sync().unwrap();
    for lag in [Lag::NONE, Lag::between(6, 6)] {
        let world = after(&disk, Loss::Nothing);
        let store = take_apart(&world).stores.remove(0);
        let bytes = world.read_file(path(&store.name)).unwrap();
        let head = Head::parse(&bytes).unwrap();
        let seed = Seed::of_segment(&head.uuid, head.id);
        // What a writer that was far ahead would have left: record 6 torn away, record 7 whole.
        let payload = content(7);
        let header = frame::Header { kind: Kind::Record, length: payload.len() as u32, ordinal: 7, lag };
        let mut frame = frame::encode_header(&header, PayloadChecksum::of(&payload), seed).to_vec();
        frame.extend(&payload);
        let end = store.frames.iter().rfind(|frame| frame.offset.is_some()).unwrap().padded_end;
        assert!(end > FIRST_FRAME);
        world.overwrite(path(&store.name), end, vec![0x55; 64]).unwrap();
        world.overwrite(path(&store.name), end + 64, &frame).unwrap();
        if lag == Lag::NONE {
            check(&open(&world), 0..6);
        } else {
            // The same frame, with a watermark: record 6 was durable.
            let found = damage(options(&world).open(DIRECTORY));
            assert_eq!(found.offsets, Some(6..7));
        }
    }
}

/// G5. A clean close proves the last record, and goes on proving it once the log is open again.
#[test]
fn what_a_close_proved_stays_proven_after_the_next_opening() {
    for records in [1, 5, 40] {
        let disk = SimDisk::new(records);
        let log = open(&disk);
        append(&log, records);
        log.close().unwrap();
        let log = open(&disk);
        let world = killed(&disk);
        drop(log);
        let store = take_apart(&world).stores.into_iter().rfind(|store| !store.frames.is_empty()).unwrap();
        let last = store.frames.iter().rfind(|frame| frame.offset == Some(records - 1)).unwrap();
        world.flip_bit(path(&store.name), last.position + 5, 1).unwrap();
        let found = damage(options(&world).open(DIRECTORY));
        assert_eq!(found.offsets, Some(records - 1..records));
    }
}
