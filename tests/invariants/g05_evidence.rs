//! G5, continued: what counts as evidence that records were acknowledged, and what does not.
//!
//! What it would catch: a proof that is forgotten (the base of a copy that a crashed recovery left, frames
//! in a store that no edit names), and one that is none (a lag that says nothing).

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use stonelog::Options;
use stonelog::disk::sim::{Loss, SimDisk};
use stonelog::disk::{Disk, OpenMode, OsDisk, read_exact_at, write_all_at};
use stonelog::frame::{self, Kind, Lag, PayloadChecksum, Seed};
use stonelog::scan::{Extent, Source, scan};
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

/// G5. The last frame of a file may end in zeros, and be followed by nothing but zeros: it is found behind a gap all the
/// same, and so is the one before it.
#[test]
fn a_frame_that_ends_in_zeros_is_found_behind_a_gap() {
    let seed = Seed::of_segment(&[7; 16], 1);
    let frame = |kind, ordinal, payload: &[u8]| {
        let header = frame::Header {
            kind,
            length: payload.len() as u32,
            ordinal,
            lag: Lag::between(u64::from(ordinal), 0),
        };
        let header =
            if kind == Kind::Mark { frame::Header { lag: Lag::between(0, 0), ..header } } else { header };
        let mut bytes = frame::encode_header(&header, PayloadChecksum::of(payload), seed).to_vec();
        bytes.extend(payload);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        bytes
    };
    // What follows the gap, and how many records it says were durable.
    let lasts = [
        (frame(Kind::Mark, 3, b""), 3),
        (frame(Kind::Record, 3, b""), 0),
        (frame(Kind::Record, 3, &[0; 100]), 0),
    ];
    for (last, durable) in lasts {
        for behind in [0, 8, 4096, 3 << 20] {
            let mut bytes = vec![0; FIRST_FRAME as usize];
            bytes.extend(frame(Kind::Record, 0, b"first"));
            bytes.extend(frame(Kind::Record, 1, b"second"));
            let gap = bytes.len() as u64;
            bytes.extend(vec![0; 64]);
            let at = bytes.len() as u64;
            bytes.extend(&last);
            bytes.resize(bytes.len() + behind, 0);
            let end = bytes.len() as u64;
            let extent = Extent { seed, start: FIRST_FRAME, end, base: Some(0), ordinal_end: None };
            let mut found = Vec::new();
            let outcome = scan(&bytes[..], &extent, |frame| found.push(frame.position));
            assert_eq!(found.last(), Some(&at), "{behind} zeros behind it");
            assert_eq!(outcome.broken.map(|broken| broken.position), Some(gap));
            assert_eq!(outcome.watermark.map(|mark| mark.relative), Some(durable));
        }
    }
}

/// G5. On a real disk, where zeros are read past the page cache: a frame far behind a gap, in the cache alone, is proof.
#[test]
fn a_frame_behind_reserved_space_is_found_on_a_real_disk() {
    let dir = tempfile::tempdir().unwrap();
    let options = || Options::new().segment_bytes(16 << 20);
    let log = options().open(dir.path().join("log")).unwrap();
    append(&log, 10);
    // As a kill leaves it, but that the last five records are zeros, and the last stands once more far behind.
    for far in [64, 5_000, 2 << 20, 5 << 20] {
        let world = dir.path().join(format!("{far}"));
        OsDisk.create_dir(&world).unwrap();
        for entry in OsDisk.list(&dir.path().join("log")).unwrap() {
            let from = OsDisk.open(&dir.path().join("log").join(&entry.name), OpenMode::Read).unwrap();
            let mut bytes = vec![0; entry.length as usize];
            read_exact_at(&*from, &mut bytes, 0).unwrap();
            let to = OsDisk.open(&world.join(&entry.name), OpenMode::CreateNew).unwrap();
            write_all_at(&*to, &bytes, 0).unwrap();
            let Some(head) = Head::parse(&bytes).filter(|_| entry.name.ends_with("1.store")) else {
                continue;
            };
            let seed = Seed::of_segment(&head.uuid, head.id);
            let end = bytes.len() as u64;
            let extent = Extent { seed, start: FIRST_FRAME, end, base: Some(0), ordinal_end: None };
            let mut frames = Vec::new();
            scan(&bytes[..], &extent, |frame| frames.push(frame));
            let records: Vec<_> = frames.iter().filter(|frame| frame.header.kind == Kind::Record).collect();
            let (fifth, last) = (records[5].position, records[9]);
            let (from, length) = (last.position as usize, last.header.frame_bytes() as usize);
            let zeros = vec![0; frames.last().unwrap().position as usize + 16 - fifth as usize];
            write_all_at(&*to, &zeros, fifth).unwrap();
            to.reserve(16 << 20).unwrap();
            write_all_at(&*to, &bytes[from..from + length], last.position + far).unwrap();
        }
        let found = damage(options().open(&world));
        assert_eq!(found.offsets.map(|offsets| offsets.start), Some(5), "{far} bytes behind");
    }
}

/// G5. What the disk could not read when the scan looked for the last byte that is not zero may be read when it
/// searches: it is searched.
#[test]
fn what_is_unreadable_once_is_searched_again() {
    struct FailsOnce<'a>(&'a [u8], AtomicBool);
    impl Source for FailsOnce<'_> {
        fn length(&self) -> u64 {
            self.0.len() as u64
        }

        fn read(&self, position: u64, buffer: &mut [u8]) -> std::io::Result<()> {
            let behind = position + buffer.len() as u64;
            // The whole window, and then its last page.
            if behind == self.length() && position > 0 && !self.1.load(Ordering::Relaxed) {
                self.1.store(buffer.len() <= 4096, Ordering::Relaxed);
                return Err(std::io::Error::other("not now"));
            }
            self.0.read(position, buffer)
        }
    }
    let seed = Seed::of_segment(&[7; 16], 1);
    let mut bytes = vec![0; 3 << 20];
    let header = frame::Header { kind: Kind::Mark, length: 0, ordinal: 3, lag: Lag::between(0, 0) };
    let mark = frame::encode_header(&header, PayloadChecksum::of(b""), seed);
    let at = bytes.len() - 64;
    bytes[at..at + mark.len()].copy_from_slice(&mark);
    let end = bytes.len() as u64;
    let extent = Extent { seed, start: FIRST_FRAME, end, base: Some(0), ordinal_end: None };
    let outcome = scan(&FailsOnce(&bytes, AtomicBool::new(false)), &extent, |_| {});
    assert_eq!(outcome.watermark.map(|mark| mark.relative), Some(3));
    assert!(!outcome.unreadable.is_empty(), "nothing was unreadable");
}
