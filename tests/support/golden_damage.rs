//! What is broken in golden logs: frames, stores, bases, the manifest, indexes.
//!
//! It owns the blows. What they strike is in `golden_logs`.

use stonelog::disk::sim::{Loss, SimDisk};
use stonelog::frame::{Header, Kind, Lag, PayloadChecksum, Seed, encode_header};
use stonelog::manifest::{Edit, Seal};
use stonelog::names;
use stonelog::store::{BASE_POSITION, FIRST_FRAME};

use crate::common::{DIRECTORY, StoreAt, after, append, content, open, options, path, take_apart};
use crate::forge::{self, MANIFEST, findings, manifest_frames, rewrite, uuid, without_room};
use crate::golden_logs::{
    begun, born_copy, closed, filled, id, last_record, manifest_torn, recovery_crashed, several_unsealed,
    store_at, unclean,
};

// ---- frames ------------------------------------------------------------------------------------

#[derive(Clone, Copy)]
pub enum Blow {
    Payload,
    Header,
    Length,
    Zeros,
}

/// Strikes record `record` of the `nth` store.
pub fn damaged(disk: SimDisk, nth: usize, record: usize, blow: Blow) -> SimDisk {
    let store = store_at(&disk, nth);
    let frame = store.frames.iter().filter(|frame| frame.offset.is_some()).nth(record).unwrap();
    let name = path(&store.name);
    match blow {
        Blow::Payload => disk.flip_bit(name, frame.position + 18, 2),
        // A kind that does not exist.
        Blow::Header => disk.overwrite(name, frame.position + 4, [0xff; 4]),
        Blow::Length => disk.overwrite(name, frame.position + 4, [0xff, 0xff, 0xff, 0x1f]),
        Blow::Zeros => disk.zero(name, frame.position..frame.padded_end),
    }
    .unwrap();
    disk
}

/// The one that nothing can prove.
pub fn frame_crc_last() -> SimDisk {
    let disk = unclean();
    let store = store_at(&disk, 2);
    disk.flip_bit(path(&store.name), last_record(&store).position + 17, 1).unwrap();
    disk
}

/// Record 5 stands where record 7 was, too.
pub fn frame_ordinal() -> SimDisk {
    let disk = SimDisk::new(11);
    let log = open(&disk);
    for number in 0..20_u8 {
        log.append([number; 40]).unwrap();
    }
    let disk = after(&disk, Loss::Nothing);
    drop(log);
    let store = store_at(&disk, 0);
    let (from, to) = (&store.frames[5], &store.frames[7]);
    let bytes = disk.read_file(path(&store.name)).unwrap();
    disk.overwrite(path(&store.name), to.position, &bytes[from.position as usize..from.padded_end as usize])
        .unwrap();
    disk
}

pub fn zeroed(disk: SimDisk, nth: usize, range: std::ops::Range<u64>) -> SimDisk {
    disk.zero(path(&store_at(&disk, nth).name), range).unwrap();
    disk
}

pub fn page_zeroed() -> SimDisk {
    let disk = SimDisk::new(12);
    let log = options(&disk).segment_bytes(16 << 10).open(DIRECTORY).unwrap();
    append(&log, 90);
    let disk = after(&disk, Loss::Nothing);
    drop(log);
    zeroed(disk, 0, 4096..8192)
}

// ---- stores ------------------------------------------------------------------------------------

pub fn missing(disk: SimDisk, nth: usize) -> SimDisk {
    disk.remove_file(path(&store_at(&disk, nth).name)).unwrap();
    disk
}

pub fn missing_between() -> SimDisk {
    let disk = several_unsealed();
    let unsealed = take_apart(&disk).stores.into_iter().filter(|s| s.seal.is_none());
    let name = unsealed.map(|store| store.name).nth(1).unwrap();
    disk.remove_file(path(&name)).unwrap();
    disk
}

pub fn store_short() -> SimDisk {
    let disk = closed();
    let store = store_at(&disk, 1);
    let frame = &store.frames[store.frames.len() - 4];
    disk.truncate(path(&store.name), frame.position + 5).unwrap();
    disk
}

pub fn store_short_active() -> SimDisk {
    let disk = closed();
    let store = store_at(&disk, 2);
    disk.truncate(path(&store.name), store.frames[4].position).unwrap();
    disk
}

pub fn store_cut_to_nothing() -> SimDisk {
    let disk = unclean();
    disk.truncate(path(&store_at(&disk, 2).name), 0).unwrap();
    disk
}

pub fn foreign_store() -> SimDisk {
    let disk = closed();
    let (other, log) = filled(13);
    log.close().unwrap();
    let name = path(&store_at(&disk, 0).name);
    disk.write_file(&name, other.read_file(&name).unwrap()).unwrap();
    disk
}

pub fn stores_swapped() -> SimDisk {
    let disk = unclean();
    let (one, other) = (store_at(&disk, 1).name, store_at(&disk, 2).name);
    disk.swap_files(path(&one), path(&other)).unwrap();
    disk
}

pub fn seal_names_too_many() -> SimDisk {
    let disk = closed();
    rewrite(&disk, |edits| {
        let base = 1000;
        for edit in edits.iter_mut() {
            if let Edit::Seal { seal: Seal { next_offset, .. }, .. } = edit
                && *next_offset > 30
            {
                *next_offset += base;
            }
        }
        edits.retain(|edit| !matches!(edit, Edit::Close(_)));
    });
    disk
}

/// A frame of a later segment, that attests records which no store between holds.
pub fn no_store() -> SimDisk {
    let disk = unclean();
    let prepared = |store: &StoreAt| store.seal.is_none() && store.frames.is_empty();
    let store = take_apart(&disk).stores.into_iter().rfind(prepared).unwrap();
    disk.overwrite(path(&store.name), BASE_POSITION, forge::base_sector(&uuid(&disk), store.id, 90)).unwrap();
    let frames = one_frame(&disk, store.id);
    disk.overwrite(path(&store.name), FIRST_FRAME, frames).unwrap();
    disk
}

/// A recovery's copy says that five records were proven, in a log whose stores hold none.
pub fn no_store_at_all() -> SimDisk {
    let disk = begun();
    let donor = findings(&recovery_crashed()).unnamed.into_iter().find_map(|u| u.head).unwrap();
    let id = 9;
    let head = stonelog::store::Head { uuid: uuid(&disk), id, ..donor };
    let mut bytes = head.encode().to_vec();
    bytes.extend(forge::base_sector(&uuid(&disk), id, 5));
    disk.write_file(path(&names::store(id)), bytes).unwrap();
    disk
}

/// A valid first frame for a store, which attests all before it.
pub fn one_frame(disk: &SimDisk, id: u64) -> Vec<u8> {
    let payload = content(90);
    let header = Header { kind: Kind::Record, length: payload.len() as u32, ordinal: 0, lag: Lag::ZERO };
    let seed = Seed::of_segment(&uuid(disk), id);
    let mut bytes = encode_header(&header, PayloadChecksum::of(&payload), seed).to_vec();
    bytes.extend(payload);
    bytes
}

// ---- bases -------------------------------------------------------------------------------------

/// The base is gone and so is the end of the segment before it, so that nobody knows what it was.
pub fn base_lost_unrecoverable() -> SimDisk {
    let disk = several_unsealed();
    let stores: Vec<_> = take_apart(&disk).stores.into_iter().filter(|s| s.seal.is_none()).collect();
    disk.zero(path(&stores[1].name), BASE_POSITION..FIRST_FRAME).unwrap();
    let last = last_record(&stores[0]);
    disk.flip_bit(path(&stores[0].name), last.position + 17, 1).unwrap();
    disk
}

/// The manifest knows the base of a copy; its base sector says another.
pub fn base_contradicts() -> SimDisk {
    let disk = born_copy();
    let segment =
        findings(&disk).segments.into_iter().find(|s| s.state.base.is_some() && s.state.seal.is_none());
    let segment = segment.unwrap();
    let wrong = forge::base_sector(&uuid(&disk), segment.id, segment.base.unwrap() + 3);
    disk.overwrite(path(&names::store(segment.id)), BASE_POSITION, wrong).unwrap();
    disk
}

pub fn base_below() -> SimDisk {
    let disk = unclean();
    let store = store_at(&disk, 2);
    let base = findings(&disk).segments[2].base.unwrap();
    let wrong = forge::base_sector(&uuid(&disk), store.id, base - 2);
    disk.overwrite(path(&store.name), BASE_POSITION, wrong).unwrap();
    disk
}

// ---- the manifest and indexes ------------------------------------------------------------------

pub fn manifest_middle() -> SimDisk {
    let disk = manifest_torn();
    let log = open(&disk);
    log.put_meta("one", b"1").unwrap();
    log.put_meta("two", b"2").unwrap();
    log.put_meta("three", b"3").unwrap();
    let disk = after(&disk, Loss::Nothing);
    drop(log);
    without_room(&disk);
    let frames = manifest_frames(&disk);
    disk.flip_bit(path(MANIFEST), frames[frames.len() - 2].0 + 17, 0).unwrap();
    disk
}

/// An older MANIFEST beside stores that it does not name yet.
pub fn lost_create() -> SimDisk {
    let (disk, log) = filled(14);
    log.close().unwrap();
    let old = disk.read_file(path(MANIFEST)).unwrap();
    let log = open(&disk);
    append(&log, 90);
    log.close().unwrap();
    let disk = after(&disk, Loss::Nothing);
    disk.write_file(path(MANIFEST), old).unwrap();
    disk
}

/// An index of a sealed segment that lacks its last record, its checksums holding.
pub fn index_of_another_count() -> SimDisk {
    let disk = closed();
    let name = path(&names::index(id(&disk, 0)));
    let mut bytes = disk.read_file(&name).unwrap();
    let count = u32::from_le_bytes(bytes[28..32].try_into().unwrap());
    bytes[28..32].copy_from_slice(&(count - 1).to_le_bytes());
    let checksum = crc32fast::hash(&bytes[..60]);
    bytes[60..64].copy_from_slice(&checksum.to_le_bytes());
    disk.write_file(&name, bytes).unwrap();
    disk
}

/// What an opening under `Serve` leaves that crashed before it had prepared a segment: only the Damaged range
/// says that the last records had been there.
pub fn damaged_at_the_end() -> SimDisk {
    let disk = missing(closed(), 2);
    rewrite(&disk, |edits| {
        edits.retain(|edit| match edit {
            Edit::Create { id, .. } | Edit::Seal { id, .. } | Edit::Drop { id, .. } => *id <= 2,
            other => !matches!(other, Edit::Close(_)),
        });
        edits.push(Edit::Damaged { offsets: 56..70 });
    });
    disk
}

/// The log, repaired, with what was lost named.
pub fn repaired(disk: SimDisk) -> SimDisk {
    use stonelog::repair::{Basis, Session, plan};
    let session = Session::lock(std::sync::Arc::new(disk.clone()), std::path::Path::new(DIRECTORY)).unwrap();
    let plan = plan(&session.survey(Basis::Manifest).unwrap(), None).unwrap();
    session.apply(&plan, &plan.to_accept()).unwrap();
    disk
}
