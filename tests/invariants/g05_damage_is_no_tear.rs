//! G5. Damage is never mistaken for a tear where any evidence says otherwise, and never returned
//! as data; a plain crash, in any mode, always opens.
//!
//! What it would catch: a scan that stops at the first broken frame and cuts; watermarks that are
//! ignored; an unseeded checksum (a frame of another segment or log taken for one's own); a store
//! whose loss goes unnoticed; a damaged file that `Serve` writes to.

use std::ops::Range;
use std::path::PathBuf;

use stonelog::disk::sim::{Loss, SimDisk};
use stonelog::store::{BASE_POSITION, FIRST_FRAME};
use stonelog::{DamagePolicy, Error, Log};

use crate::common::{
    AtRest, DIRECTORY, StoreAt, after, append, append_batch, check_records, content, damage, files, manual,
    open, options, path, serve, take_apart,
};

/// A log at rest, to be damaged.
struct Subject {
    label: String,
    disk: SimDisk,
    rest: AtRest,
    /// The end that an undamaged opening finds.
    end: u64,
}

impl Subject {
    fn new(label: String, disk: SimDisk) -> Subject {
        let rest = take_apart(&disk);
        let opened = open(&disk.fork());
        Subject { label, disk, rest, end: opened.offsets().end }
    }

    fn clean(&self) -> bool {
        self.rest.closed.is_some()
    }
}

fn subjects() -> Vec<Subject> {
    let mut subjects = Vec::new();
    for seed in 0..3 {
        let disk = SimDisk::new(seed);
        let log = open(&disk);
        append(&log, 50);
        append_batch(&log, 4).unwrap();
        append(&log, 9 + seed * 5);
        subjects.push(Subject::new(format!("{seed}, all kept"), after(&disk, Loss::Everything)));
        subjects.push(Subject::new(format!("{seed}, unsynced lost"), after(&disk, Loss::Nothing)));
        log.close().unwrap();
        let closed = after(&disk, Loss::Nothing);
        subjects.push(Subject::new(format!("{seed}, closed"), closed));
        // Recovered once, so that a segment is born with frames, and crashed again.
        let again = after(&disk, Loss::Everything);
        let log = open(&again);
        append(&log, 6);
        subjects.push(Subject::new(format!("{seed}, second life"), after(&again, Loss::Everything)));
    }
    for seed in 10..12 {
        let disk = SimDisk::new(seed);
        let log = manual(&disk).open(DIRECTORY).unwrap();
        for _ in 0..9 {
            append(&log, 5);
            append_batch(&log, 2).unwrap();
            log.sync().unwrap();
        }
        subjects.push(Subject::new(format!("{seed}, groups, all kept"), after(&disk, Loss::Everything)));
        subjects.push(Subject::new(format!("{seed}, groups, unsynced lost"), after(&disk, Loss::Nothing)));
    }
    subjects
}

/// What the surviving evidence proves when the bytes `hit` of a store are not what was written.
fn proven(rest: &AtRest, store: &StoreAt, hit: &Range<u64>) -> u64 {
    let mut proven = rest.closed.unwrap_or(0);
    for other in &rest.stores {
        proven = proven.max(other.seal.unwrap_or(0)).max(other.born.unwrap_or(0));
        if other.seal.is_some() {
            continue;
        }
        for frame in &other.frames {
            let survives = other.id != store.id || hit.end <= frame.position || frame.end <= hit.start;
            if survives {
                proven = proven.max(frame.watermark.unwrap_or(0));
            }
        }
    }
    proven
}

fn hit_records(store: &StoreAt, hit: &Range<u64>) -> Vec<u64> {
    let frames = store.frames.iter().filter(|frame| hit.start < frame.end && frame.position < hit.end);
    frames.filter_map(|frame| frame.offset).collect()
}

/// Where the first batch begins that was hit: a batch is all there or not at all.
fn first_batch_hit(store: &StoreAt, hit: &Range<u64>) -> Option<u64> {
    store
        .frames
        .iter()
        .filter(|frame| hit.start < frame.end && frame.position < hit.end)
        .find_map(|frame| frame.batch)
}

/// Every offset below `end` is right, or an error that names it.
fn never_wrong(log: &Log, end: u64, hit: &[u64], what: &str) {
    for offset in log.offsets().start..end {
        match log.read(offset) {
            Ok(record) => {
                assert_eq!(&*record, content(offset), "{what}: wrong data at {offset}");
                assert!(!hit.contains(&offset), "{what}: {offset} was hit and is served");
            }
            Err(Error::Damaged(damage)) => {
                assert_eq!(damage.offsets, Some(offset..offset + 1), "{what}");
                assert!(hit.contains(&offset), "{what}: {offset} was not hit, but {damage}");
            }
            Err(error) => panic!("{what}: reading {offset}: {error}"),
        }
    }
    // The iterator passes one record's trouble and skips none.
    let mut next = log.offsets().start;
    for record in log.records(..end) {
        match record {
            Ok(record) => {
                assert_eq!((record.offset(), &*record), (next, &content(next)[..]), "{what}");
            }
            Err(Error::Damaged(damage)) => {
                assert_eq!(damage.offsets, Some(next..next + 1), "{what}");
            }
            Err(error) => panic!("{what}: listing {next}: {error}"),
        }
        next += 1;
    }
    assert_eq!(next, end, "{what}: records() ended early");
}

/// The core of the promise, for damage to the bytes `hit` of one store.
fn judge(subject: &Subject, store: &StoreAt, damaged: &SimDisk, hit: &Range<u64>, what: &str) {
    let what = &format!("{}: {what}", subject.label);
    let records = hit_records(store, hit);
    let proven = proven(&subject.rest, store, hit);
    let scanned = store.seal.is_none() && !subject.clean();
    let missed = records.iter().any(|offset| *offset < proven);
    let head = store.seal.is_none() && hit.start < 52;
    let refused = damaged.fork();
    let bytes_before = files(&refused);
    match options(&refused).open(DIRECTORY) {
        Ok(log) => {
            assert!(!(scanned && missed), "{what}: {records:?} below the proven end {proven} went unnoticed");
            assert!(!head, "{what}: a lost head went unnoticed");
            let first_hit = first_batch_hit(store, hit).filter(|_| scanned).unwrap_or(subject.end);
            let end = log.offsets().end;
            assert!(
                end >= proven && end >= subject.end.min(first_hit),
                "{what}: ends at {end}, proven {proven}"
            );
            assert!(end <= subject.end, "{what}: strangers");
            never_wrong(&log, end, &records, what);
        }
        Err(Error::Damaged(damage)) => {
            assert!(head || (scanned && missed), "{what}: refused a tear: {damage}");
            assert_eq!(damage.file, PathBuf::from(path(&store.name)), "{what}: {damage}");
            assert!(damage.proof.is_some(), "{what}: no proof: {damage}");
            let text = damage.to_string();
            assert!(text.contains("log-repair check /log"), "{what}: {text}");
            if missed && scanned && !head {
                let named = damage.offsets.clone().unwrap_or_else(|| panic!("{what}: no offsets: {damage}"));
                assert!(named.contains(&records[0]), "{what}: {damage} does not name {records:?}");
                let position = damage.position.unwrap_or_else(|| panic!("{what}: no position: {damage}"));
                let frame = store.frames.iter().find(|frame| frame.offset == Some(records[0])).unwrap();
                assert_eq!(position, frame.position, "{what}: {damage}");
            }
            let mut now = files(&refused);
            now.insert("LOCK".to_string(), bytes_before["LOCK"].clone());
            assert_eq!(now, bytes_before, "{what}: refusing changed something");
        }
        Err(error) => panic!("{what}: {error}"),
    }
    serve_it(subject, store, damaged, (&records, hit), proven, what);
}

/// Whether the blow left neither the head nor any frame of an unsealed store: how many records it
/// held, nobody knows, so that only reads are served.
fn nothing_left(subject: &Subject, store: &StoreAt, hit: &Range<u64>) -> bool {
    let headless = hit.start < 52 || (hit.end >= store.length && hit.start < 1024);
    let frameless = store.frames.iter().all(|frame| hit.start < frame.end && frame.position < hit.end);
    store.seal.is_none() && !subject.clean() && headless && frameless
}

/// `DamagePolicy::Serve`: everything undamaged before and after is served, appends go on, no
/// damaged file changes.
fn serve_it(
    subject: &Subject,
    store: &StoreAt,
    damaged: &SimDisk,
    (hit, range): (&[u64], &Range<u64>),
    proven: u64,
    what: &str,
) {
    let disk = damaged.fork();
    let before = disk.read_file(path(&store.name)).unwrap();
    let log = serve(&disk).unwrap_or_else(|error| panic!("{what}: Serve does not open: {error}"));
    let end = log.offsets().end;
    assert!(end >= proven && end <= subject.end, "{what}: Serve ends at {end}, proven {proven}");
    never_wrong(&log, end, hit, what);
    let damage_stands = hit.iter().any(|offset| *offset < end);
    match log.append_batch(Vec::<Vec<u8>>::new()) {
        Ok(_) => {}
        Err(Error::ReadOnly { .. }) if nothing_left(subject, store, range) => return,
        Err(error) => panic!("{what}: Serve takes no appends: {error}"),
    }
    append(&log, 3);
    check_records(&log, end..end + 3);
    let worlds = [after(&disk, Loss::Nothing), {
        log.close().unwrap_or_else(|error| panic!("{what}: {error}"));
        disk.fork()
    }];
    for (world, how) in worlds.iter().zip(["a power loss", "a close"]) {
        let log = serve(world).unwrap_or_else(|error| panic!("{what}: Serve after {how}: {error}"));
        assert_eq!(log.offsets().end, end + 3, "{what}: after {how}");
        never_wrong(&log, end, hit, &format!("{what}, after {how}"));
        check_records(&log, end..end + 3);
        append(&log, 2);
        log.close().unwrap_or_else(|error| panic!("{what}: {error}"));
        if damage_stands {
            let now = world.read_file(path(&store.name));
            let length = (store.end_of_frames() as usize).min(before.len());
            assert_eq!(
                now.as_deref().map(|now| &now[..length.min(now.len())]),
                Some(&before[..length]),
                "{what}: the damaged file changed"
            );
        }
    }
}

/// Each class of bytes of every frame, one bit each: header (crc, kind and length, ordinal, lag),
/// payload (first, middle, last byte).
#[test]
fn every_region_of_every_frame() {
    for subject in subjects() {
        for store in &subject.rest.stores {
            for frame in &store.frames {
                let mut positions = vec![0, 3, 4, 7, 8, 11, 12, 15]
                    .into_iter()
                    .map(|at| frame.position + at)
                    .collect::<Vec<_>>();
                if frame.end > frame.position + 16 {
                    positions.extend([
                        frame.position + 16,
                        (frame.position + 16 + frame.end) / 2,
                        frame.end - 1,
                    ]);
                }
                // A handful of each; the bit varies with the place.
                positions.retain(|at| (at / 8 + at + store.id) % 3 == 0);
                for position in positions {
                    let damaged = subject.disk.fork();
                    damaged.flip_bit(path(&store.name), position, (position % 7) as u8).unwrap();
                    let what = format!("bit of byte {position} of {} (frame {frame:?})", store.name);
                    judge(&subject, store, &damaged, &(position..position + 1), &what);
                }
            }
        }
    }
}

/// Padding carries nothing: a flip there is no damage, and no record is lost to it.
#[test]
fn padding_carries_nothing() {
    for subject in subjects() {
        for store in &subject.rest.stores {
            for frame in store.frames.iter().filter(|frame| frame.end < frame.padded_end) {
                let damaged = subject.disk.fork();
                damaged.flip_bit(path(&store.name), frame.end, 3).unwrap();
                let log = open(&damaged);
                assert_eq!(log.offsets().end, subject.end, "{}: {} {frame:?}", subject.label, store.name);
                never_wrong(&log, subject.end, &[], &subject.label);
            }
        }
    }
}

#[test]
fn heads_and_bases() {
    for subject in subjects() {
        for store in &subject.rest.stores {
            for position in [0, 9, 20, 40, 51] {
                let damaged = subject.disk.fork();
                damaged.flip_bit(path(&store.name), position, 1).unwrap();
                judge(
                    &subject,
                    store,
                    &damaged,
                    &(position..position + 1),
                    &format!("head byte {position} of {}", store.name),
                );
            }
            // The base is known to the manifest or told by the predecessor's end: no record goes.
            for position in [BASE_POSITION, BASE_POSITION + 8, BASE_POSITION + 19] {
                let damaged = subject.disk.fork();
                damaged.flip_bit(path(&store.name), position, 5).unwrap();
                judge(
                    &subject,
                    store,
                    &damaged,
                    &(position..position + 1),
                    &format!("base byte {position} of {}", store.name),
                );
            }
        }
    }
}

/// A sector or a page is gone: as many frames as it held.
#[test]
fn zeroed_sectors_and_pages() {
    for subject in subjects() {
        for store in &subject.rest.stores {
            for size in [512, 4096] {
                let mut start = 0;
                while start < store.end_of_frames() {
                    let range = start..(start + size).min(store.length);
                    let damaged = subject.disk.fork();
                    damaged.zero(path(&store.name), range.clone()).unwrap();
                    judge(&subject, store, &damaged, &range, &format!("zeroed {range:?} of {}", store.name));
                    start += size;
                }
            }
        }
    }
}

/// Noise where zeros were: behind the last frame it is a tear (or nothing at all), never an obstacle.
#[test]
fn bytes_beyond_the_end() {
    for subject in subjects() {
        for store in subject.rest.stores.iter().filter(|store| store.end_of_frames() + 600 < store.length) {
            for skip in [0, 24, 512] {
                let damaged = subject.disk.fork();
                let noise: Vec<u8> = (0..64u8).map(|n| n.wrapping_mul(73) | 1).collect();
                damaged.overwrite(path(&store.name), store.end_of_frames() + skip, &noise).unwrap();
                let log = open(&damaged);
                assert_eq!(
                    log.offsets().end,
                    subject.end,
                    "{}: noise at {skip} in {}",
                    subject.label,
                    store.name
                );
                never_wrong(&log, subject.end, &[], &subject.label);
            }
        }
    }
}

/// Cut short at every frame, and inside one.
#[test]
fn truncated_stores() {
    for subject in subjects() {
        for store in &subject.rest.stores {
            let frames = store.frames.iter().map(|frame| frame.position);
            for length in [0, 100, 512, 700].into_iter().chain(frames.clone()).chain(frames.map(|at| at + 11))
            {
                if length >= store.end_of_frames() {
                    continue;
                }
                let damaged = subject.disk.fork();
                damaged.truncate(path(&store.name), length).unwrap();
                let hit = length..store.length;
                let what = format!("{}: {} cut at {length}", subject.label, store.name);
                let records = hit_records(store, &hit);
                let proven = proven(&subject.rest, store, &hit);
                match options(&damaged.fork()).open(DIRECTORY) {
                    Ok(log) => {
                        let scanned = store.seal.is_none() && !subject.clean();
                        assert!(scanned, "{what}: shorter than its Seal or Close, and unnoticed");
                        assert!(!records.iter().any(|offset| *offset < proven), "{what}: proven {proven}");
                        assert!(
                            log.offsets().end >= first_batch_hit(store, &hit).unwrap_or(subject.end),
                            "{what}"
                        );
                        never_wrong(&log, log.offsets().end, &records, &what);
                    }
                    Err(Error::Damaged(damage)) => {
                        assert_eq!(damage.file, PathBuf::from(path(&store.name)), "{what}: {damage}");
                    }
                    Err(error) => panic!("{what}: {error}"),
                }
                let disk = damaged.fork();
                let log = serve(&disk).unwrap_or_else(|error| panic!("{what}: Serve: {error}"));
                let end = log.offsets().end;
                assert!(end >= proven && end <= subject.end, "{what}: Serve ends at {end}, proven {proven}");
                never_wrong(&log, end, &records, &what);
                if nothing_left(&subject, store, &hit) {
                    assert!(matches!(log.append(b""), Err(Error::ReadOnly { .. })), "{what}");
                    continue;
                }
                append(&log, 2);
                log.close().unwrap();
                let log = serve(&disk).unwrap_or_else(|error| panic!("{what}: Serve again: {error}"));
                assert_eq!(log.offsets().end, end + 2, "{what}");
                never_wrong(&log, end, &records, &what);
            }
        }
    }
}

/// A named store that is missing is always damage; what is in the others is served.
#[test]
fn removed_stores() {
    for subject in subjects() {
        for (index, store) in subject.rest.stores.iter().enumerate() {
            let disk = subject.disk.fork();
            disk.remove_file(path(&store.name)).unwrap();
            let what = format!("{}: {} removed", subject.label, store.name);
            let refused = damage(options(&disk.fork()).open(DIRECTORY));
            assert_eq!(refused.file, PathBuf::from(path(&store.name)), "{what}: {refused}");
            let records: Vec<u64> = store.frames.iter().filter_map(|frame| frame.offset).collect();
            let log = serve(&disk).unwrap_or_else(|error| panic!("{what}: Serve: {error}"));
            let later = subject.rest.stores.iter().skip(index + 1).any(|store| !store.frames.is_empty());
            let proven = proven(&subject.rest, store, &(0..u64::MAX));
            assert!(log.offsets().end >= proven, "{what}: ends at {:?}, proven {proven}", log.offsets());
            never_wrong(&log, log.offsets().end, &records, &what);
            if records.is_empty() {
                continue;
            }
            if later || store.seal.is_some() {
                let end = log.offsets().end;
                append(&log, 2);
                log.close().unwrap();
                let log = serve(&disk).unwrap_or_else(|error| panic!("{what}: Serve again: {error}"));
                assert_eq!(log.offsets().end, end + 2, "{what}");
                never_wrong(&log, end, &records, &what);
                check_records(&log, end..end + 2);
            } else if !subject.clean() {
                // Nobody knows how far the active store went: reads only, and nothing changes.
                let before = files(&disk);
                assert!(
                    matches!(log.append(b"x"), Err(Error::ReadOnly { .. })),
                    "{what}: {:?}",
                    log.append(b"x")
                );
                drop(log);
                assert_eq!(files(&disk), before, "{what}");
            }
        }
    }
}

/// Swapped stores, and another log's store under the same name: heads, seeds and ordinals tell.
#[test]
fn swapped_and_foreign_stores() {
    let foreign = SimDisk::new(77);
    append(&open(&foreign), 63);
    let foreign = after(&foreign, Loss::Everything);
    for subject in subjects() {
        for (index, store) in subject.rest.stores.iter().enumerate() {
            let records: Vec<u64> = store.frames.iter().filter_map(|frame| frame.offset).collect();
            if records.is_empty() {
                continue;
            }
            let mut worlds = Vec::new();
            for other in subject.rest.stores.iter().skip(index + 1).filter(|other| !other.frames.is_empty()) {
                let disk = subject.disk.fork();
                disk.swap_files(path(&store.name), path(&other.name)).unwrap();
                let hit: Vec<u64> = [store, other]
                    .iter()
                    .flat_map(|store| store.frames.iter().filter_map(|frame| frame.offset))
                    .collect();
                worlds.push((
                    disk,
                    hit,
                    store.seal.is_some() && other.seal.is_some(),
                    format!("swapped with {}", other.name),
                ));
            }
            if let Some(bytes) = foreign.read_file(path(&store.name)) {
                let disk = subject.disk.fork();
                disk.write_file(path(&store.name), bytes).unwrap();
                worlds.push((disk, records.clone(), store.seal.is_some(), "another log's".to_string()));
            }
            for (disk, hit, sealed, how) in worlds {
                let what = format!("{}: {} {how}", subject.label, store.name);
                match options(&disk.fork()).open(DIRECTORY) {
                    Ok(log) => {
                        assert!(sealed, "{what}: unnoticed");
                        assert_eq!(log.offsets().end, subject.end, "{what}");
                        never_wrong(&log, subject.end, &hit, &what);
                    }
                    Err(Error::Damaged(_)) => {}
                    Err(error) => panic!("{what}: {error}"),
                }
                let log = serve(&disk).unwrap_or_else(|error| panic!("{what}: Serve: {error}"));
                never_wrong(&log, log.offsets().end, &hit, &what);
            }
        }
    }
}

/// Each byte of the MANIFEST: refused, but where nothing depends on it (its very last edit, and
/// what never meant anything).
#[test]
fn every_byte_of_the_manifest() {
    for subject in subjects() {
        let bytes = subject.disk.read_file(path("MANIFEST")).unwrap();
        let written = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
        for position in 0..(written + 40).min(bytes.len()) {
            let disk = subject.disk.fork();
            disk.flip_bit(path("MANIFEST"), position as u64, (position % 8) as u8).unwrap();
            let what = format!("{}: byte {position} of {written} of MANIFEST", subject.label);
            for policy in [DamagePolicy::Refuse, DamagePolicy::Serve] {
                match options(&disk.fork()).on_damage(policy).open(DIRECTORY) {
                    Ok(log) => {
                        // A lost last edit is a Close, a Seal or a Create that nothing depends on.
                        assert_eq!(log.offsets(), 0..subject.end, "{what}: silently another log");
                        never_wrong(&log, subject.end, &[], &what);
                    }
                    Err(Error::Damaged(damage)) => {
                        assert_eq!(damage.file, PathBuf::from(path("MANIFEST")), "{what}: {damage}");
                    }
                    Err(Error::UnsupportedVersion { .. }) if (8..12).contains(&position) => {}
                    Err(error) => panic!("{what}: {error}"),
                }
            }
        }
    }
}

/// A MANIFEST that is missing beside a store is damage, under any policy.
#[test]
fn a_missing_manifest() {
    for subject in subjects() {
        let disk = subject.disk.fork();
        disk.remove_file(path("MANIFEST")).unwrap();
        let before = files(&disk);
        for policy in [DamagePolicy::Refuse, DamagePolicy::Serve] {
            let found = damage(options(&disk).on_damage(policy).open(DIRECTORY));
            assert_eq!(found.file, PathBuf::from(path("MANIFEST")));
            assert!(found.proof.is_some());
        }
        let mut now = files(&disk);
        now.insert("LOCK".to_string(), before["LOCK"].clone());
        assert_eq!(now, before);
        assert!(options(&disk).open_read_only(DIRECTORY).is_err());
    }
}

/// For a reader it is damage too, and no "not found".
#[test]
fn a_missing_manifest_read_only() {
    let disk = subjects().remove(0).disk;
    disk.remove_file(path("MANIFEST")).unwrap();
    let found = damage(options(&disk).open_read_only(DIRECTORY));
    assert_eq!(found.file, PathBuf::from(path("MANIFEST")));
}

/// A plain crash always opens, in every mode, whatever of the unsynced survives.
#[test]
fn plain_crashes_open() {
    for seed in 0..60 {
        let disk = SimDisk::new(seed);
        let log = if seed % 2 == 0 { open(&disk) } else { manual(&disk).open(DIRECTORY).unwrap() };
        append(&log, 10 + seed % 30);
        if seed % 3 == 0 {
            log.sync().unwrap();
        }
        append_batch(&log, 1 + seed % 5).unwrap();
        let end = log.offsets().end;
        let durable = log.durable_end();
        for loss in [Loss::Nothing, Loss::Everything].into_iter().chain((0..12).map(Loss::Seeded)) {
            let world = after(&disk, loss);
            let log = open(&world);
            let offsets = log.offsets();
            assert!(
                (durable..=end).contains(&offsets.end),
                "world {seed}, {loss:?}: {offsets:?}, durable {durable}"
            );
            check_records(&log, offsets);
        }
    }
}

/// The first frame of a segment is where a lost segment would hide: FIRST_FRAME of each store.
#[test]
fn a_damage_error_tells_its_whole_story() {
    let disk = SimDisk::new(5);
    let log = open(&disk);
    append(&log, 8);
    let world = after(&disk, Loss::Everything);
    let store = take_apart(&world).stores.remove(0);
    world.flip_bit(path(&store.name), FIRST_FRAME + 17, 2).unwrap();
    let found = damage(options(&world).open(DIRECTORY));
    assert_eq!(found.position, Some(FIRST_FRAME));
    assert_eq!(found.offsets, Some(0..1));
    let text = found.to_string();
    for part in [
        store.name.as_str(),
        "at byte 1024",
        "the record at offset 0",
        "proves 8 durable",
        "log-repair check /log",
    ] {
        assert!(text.contains(part), "{part:?} is not in {text:?}");
    }
}

/// Damage in a sealed segment takes nothing from the active one, also after a clean close, where
/// opening did not mean to scan.
#[test]
fn damage_in_a_sealed_store_spares_the_active_one() {
    for removed in [true, false] {
        let disk = SimDisk::new(1);
        let log = open(&disk);
        append(&log, 60);
        log.close().unwrap();
        let first = take_apart(&disk).stores.remove(0);
        let sealed = log.segments()[0].clone();
        assert!(sealed.sealed && sealed.id == first.id);
        if removed {
            disk.remove_file(path(&first.name)).unwrap();
        } else {
            disk.truncate(path(&first.name), 0).unwrap();
        }
        let log = serve(&disk).unwrap();
        assert_eq!(log.offsets(), 0..60);
        for offset in sealed.end..60 {
            assert_eq!(&*log.read(offset).unwrap(), content(offset), "removed: {removed}, {offset}");
        }
        append(&log, 3);
        log.close().unwrap();
        let log = serve(&disk).unwrap();
        check_records(&log, sealed.end..63);
    }
}

/// A read-only look at a log with a missing store tells damage from "no such record", too.
#[test]
fn read_only_over_removed_stores() {
    for subject in subjects() {
        for store in &subject.rest.stores {
            let records: Vec<u64> = store.frames.iter().filter_map(|frame| frame.offset).collect();
            if records.is_empty() {
                continue;
            }
            let disk = subject.disk.fork();
            disk.remove_file(path(&store.name)).unwrap();
            let what = format!("{}: {} removed", subject.label, store.name);
            damage(options(&disk).open_read_only(DIRECTORY));
            let log = options(&disk)
                .on_damage(DamagePolicy::Serve)
                .open_read_only(DIRECTORY)
                .unwrap_or_else(|error| panic!("{what}: {error}"));
            assert!(
                log.offsets().end >= proven(&subject.rest, store, &(0..u64::MAX)),
                "{what}: {:?}",
                log.offsets()
            );
            never_wrong(&log, log.offsets().end, &records, &what);
        }
    }
}
