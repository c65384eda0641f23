//! Files that somebody forged, with every checksum whole: believed too far, once.

use stonelog::repair::{self, Basis, Session};

use super::*;

/// A Close with a count that its store cannot hold made the opening take gigabytes (G9): the count
/// was believed. Counts are now bounded by the store's length, and such a Close is damage.
#[test]
fn a_close_with_a_hostile_count_is_damage() {
    let disk = SimDisk::new(1);
    let log = open(&disk);
    append(&log, "r", 0..10);
    log.close().unwrap();
    drop(log);
    let found = manifest::read(&disk, Path::new(DIRECTORY)).unwrap();
    let Reading::Whole { state, generation, length, .. } = found else { panic!("{found:?}") };
    // The Close is the last frame: a header of 16 bytes, 18 of payload (the count last), padding.
    let mut bytes = disk.read_file(path("MANIFEST")).unwrap();
    let frame = &mut bytes[usize::try_from(length).unwrap() - 40..];
    let header = decode_header(frame[..16].try_into().unwrap()).unwrap();
    assert_eq!(header.length, 18);
    frame[26..34].copy_from_slice(&(u64::from(u32::MAX) - 1).to_le_bytes());
    let (sum, seed) = (PayloadChecksum::of(&frame[16..34]), Seed::of_manifest(&state.uuid, generation));
    frame[..16].copy_from_slice(&encode_header(&header, sum, seed));
    disk.write_file(path("MANIFEST"), bytes).unwrap();
    assert!(matches!(options(&disk).open(DIRECTORY), Err(Error::Damaged(_))));
}

// ---- forged manifests: every checksum holds, and nothing else does -----------------------------

const UUID: [u8; 16] = *b"forged forged fo";

fn init(first_offset: u64, last_id: u64) -> Edit {
    Edit::Init { uuid: UUID, created_millis: 1, first_offset, last_id }
}

fn created(id: u64, base: Option<u64>) -> Edit {
    Edit::Create { id, base, born: None }
}

fn sealed(id: u64, next_offset: u64, length: u64) -> Edit {
    Edit::Seal { id, seal: Seal { next_offset, length, first_millis: 0, last_millis: 0 } }
}

/// A disk with nothing but this MANIFEST.
fn forged(edits: &[Edit]) -> SimDisk {
    let disk = SimDisk::new(1);
    let bytes = fuzz::mutate::forge_manifest(&UUID, 1, edits, None);
    disk.write_file(path("MANIFEST"), bytes).unwrap();
    disk
}

fn is_damage<T: std::fmt::Debug>(outcome: Result<T, Error>) -> bool {
    matches!(outcome, Err(Error::Damaged(_)))
}

/// G9. A rebuilt index took memory for every record that a Seal's own length could hold, not the file's:
/// a Seal of 2^64 bytes asked for 32 GiB, and the process was ended.
#[test]
fn a_seal_longer_than_its_store_does_not_size_an_index() {
    let disk = SimDisk::new(1);
    let log = open(&disk);
    append(&log, "r", 0..1);
    log.close().unwrap();
    let store = disk.read_file(path(FIRST_STORE)).unwrap();
    let uuid = *store[16..32].first_chunk::<16>().unwrap();
    let end = u64::from(u32::MAX);
    let edits = [
        Edit::Init { uuid, created_millis: 1, first_offset: 0, last_id: 1 },
        created(1, Some(0)),
        sealed(1, end, u64::MAX),
    ];
    disk.write_file(path("MANIFEST"), fuzz::mutate::forge_manifest(&uuid, 9, &edits, None)).unwrap();
    let log = options(&disk).on_damage(DamagePolicy::Serve).open_read_only(DIRECTORY).unwrap();
    check(&log, "r", 0..1);
    assert!(is_damage(log.read(1)));
    assert!(is_damage(log.read(end - 1)));
    assert_eq!(log.readable_from(1), end, "nobody has to ask for each of them");
}

/// A record that a manifest proves and no store holds was "out of range 0..10": every reader of a
/// damaged log was told that he had asked wrongly. It is damage.
#[test]
fn a_record_that_no_store_holds_is_damaged_and_not_out_of_range() {
    let born = Some(Born { durable_end: 10, length: 2000 });
    let disk = forged(&[init(0, 1), Edit::Create { id: 1, base: Some(0), born }]);
    let log = options(&disk).on_damage(DamagePolicy::Serve).open_read_only(DIRECTORY).unwrap();
    assert_eq!(log.offsets(), 0..10);
    assert!(is_damage(log.read(0)));
    assert!(is_damage(log.reader(9).next().map(|record| record.map(|record| record.offset()))));
    assert_eq!(log.readable_from(0), 10);
}

/// G1. Damaged and lost ranges beyond the end stood, so that records which were appended there later, and
/// acknowledged, read as damaged or lost. An opening lets go of them.
#[test]
fn what_is_appended_where_damage_was_declared_can_be_read() {
    for range in [Edit::Damaged { offsets: 0..5 }, Edit::Lost { offsets: 0..5 }] {
        let disk = forged(&[init(0, 0), range]);
        // (The offsets of what was declared are taken: nothing is appended there.)
        for offset in 5..7 {
            let log = serve(&disk);
            append(&log, "r", offset..offset + 1);
            let read = |offset: u64| log.read(offset).unwrap().to_vec();
            assert!((5..=offset).all(|offset| read(offset) == format!("r{offset}").into_bytes()));
            log.close().unwrap();
        }
    }
}

/// A fresh manifest wrote damaged ranges before lost ones, and a Lost takes its range out of the damaged:
/// folded again, a state with both of a record was another one.
#[test]
fn a_fresh_manifest_says_what_the_old_one_said_of_damage_in_lost_records() {
    let edits = [init(0, 0), Edit::Lost { offsets: 3..5 }, Edit::Damaged { offsets: 0..9 }];
    let state = State::fold(edits).unwrap();
    assert_eq!(State::fold(state.edits()), Ok(state));
}

/// A Close below the last Seal gave the next records offsets that were taken; one below the base of the
/// store that it ends, or before its first frame, let a read give another record. All are refused.
#[test]
fn a_close_below_what_it_closes_is_damage() {
    for edits in [
        vec![created(1, None), sealed(1, 2, 2000), Edit::Close(Close { length: 0, next_offset: 1 })],
        vec![created(1, Some(8)), Edit::Close(Close { length: 2000, next_offset: 7 })],
    ] {
        let disk = forged(&[vec![init(0, 1)], edits].concat());
        for policy in [DamagePolicy::Refuse, DamagePolicy::Serve] {
            assert!(is_damage(options(&disk).on_damage(policy).open(DIRECTORY)));
        }
    }
    let disk = SimDisk::new(1);
    let log = open(&disk);
    append(&log, "r", 0..3);
    log.close().unwrap();
    let uuid = *disk.read_file(path(FIRST_STORE)).unwrap()[16..32].first_chunk::<16>().unwrap();
    let edits = [
        Edit::Init { uuid, created_millis: 1, first_offset: 0, last_id: 1 },
        created(1, Some(0)),
        Edit::Close(Close { length: 41, next_offset: 0 }),
    ];
    disk.write_file(path("MANIFEST"), fuzz::mutate::forge_manifest(&uuid, 9, &edits, None)).unwrap();
    assert!(is_damage(options(&disk).open(DIRECTORY)));
}

/// A segment could begin below the end of the sealed one before it, and the fresh manifest of an opening
/// that served it could not be read again. It is refused where it is read, and not written.
#[test]
fn a_segment_does_not_begin_below_its_predecessors_seal() {
    let disk = forged(&[init(0, 2), created(1, None), sealed(1, 9, 2000), created(2, Some(8))]);
    assert!(is_damage(serve_or_not(&disk)));
}

fn serve_or_not(disk: &SimDisk) -> Result<Log, Error> {
    options(disk).on_damage(DamagePolicy::Serve).open(DIRECTORY)
}

/// A manifest may say that the highest id there is was used: the next segment's could not be read
/// again, and a log that had taken records did not open. Now it takes none.
#[test]
fn a_log_without_an_id_to_give_takes_nothing_and_opens_again() {
    let disk = forged(&[init(0, 1 << 62)]);
    for _ in 0..2 {
        let log = serve_or_not(&disk).unwrap();
        assert!(is_damage(log.append("no place for it")));
        drop(log);
        disk.process_crash();
    }
}

/// G9. Offsets from disk were not bounded as those of a caller are: the next offset overflowed.
#[test]
fn an_offset_that_no_log_reaches_is_refused() {
    for first in [u64::MAX, u64::MAX - 1, (1 << 63) + 1] {
        let disk = forged(&[init(first, 0)]);
        let reading = manifest::read(&disk, Path::new(DIRECTORY)).unwrap();
        assert!(matches!(reading, Reading::Damaged(_)), "{reading:?}");
        assert!(is_damage(serve_or_not(&disk)));
    }
    // What can be stated, but leaves no room for a Close behind it.
    assert!(is_damage(serve_or_not(&forged(&[init(1 << 63, 0)]))));
    let disk = forged(&[init(1 << 62, 0)]);
    let log = serve_or_not(&disk).unwrap();
    assert_eq!(log.append("far").unwrap(), 1 << 62);
    log.close().unwrap();
    assert_eq!(serve_or_not(&disk).unwrap().offsets(), 1 << 62..(1 << 62) + 1);
}

/// Removing no offsets from a set of ranges cut one of them in two, so that it no longer covered what
/// it held: a Seal repeated at the same end was enough, and records declared lost were missed again.
#[test]
fn a_seal_repeated_at_its_end_takes_nothing_from_a_lost_range() {
    let edits =
        [init(0, 0), Edit::Lost { offsets: 3..12 }, created(1, None), sealed(1, 8, 2000), sealed(1, 8, 2000)];
    let state = State::fold(edits).unwrap();
    assert!(state.lost.covers(&(3..12)));
}

/// An index that a clean close left for the active segment was believed as one in memory is: forged, with
/// every checksum whole, it made records unreadable. Where it leads wrong the store is scanned, once.
#[test]
fn an_active_segments_index_that_leads_wrong_loses_no_record() {
    const INDEX: &str = "0000000000000001.index";
    let disk = SimDisk::new(1);
    let log = open(&disk);
    append(&log, "r", 0..40);
    log.close().unwrap();
    let mut index = disk.read_file(path(INDEX)).unwrap();
    // The entries' last bytes: some lead elsewhere, some nowhere.
    for byte in index.iter_mut().skip(64) {
        *byte ^= 0x15;
    }
    fuzz::mutate::reseal_index(&mut index);
    disk.write_file(path(INDEX), index).unwrap();
    let log = options(&disk).open_read_only(DIRECTORY).unwrap();
    check(&log, "r", 0..40);
    let log = open(&disk);
    check(&log, "r", 0..40);
    append(&log, "r", 40..44);
    check(&log, "r", 0..44);
}

/// A log of `records`, killed; the identity in its first store.
fn killed_after(disk: &SimDisk, records: Range<u64>) -> [u8; 16] {
    let log = open(disk);
    append(&log, "r", records);
    kill(disk, log);
    *disk.read_file(path(FIRST_STORE)).unwrap()[16..32].first_chunk::<16>().unwrap()
}

/// G9, G11. A MANIFEST whose Close says that no store is written to was believed, though one was: the opening
/// scanned nothing, and removed the store with its records. A store whose base is written had records; it is scanned.
#[test]
fn a_close_of_nothing_removes_no_records() {
    for stated in [0, 3, 5] {
        let disk = SimDisk::new(1);
        let uuid = killed_after(&disk, 0..5);
        let edits = [
            init_of(uuid),
            Edit::Create { id: 1, base: Some(0), born: None },
            Edit::Close(Close { length: 0, next_offset: stated }),
        ];
        disk.write_file(path("MANIFEST"), fuzz::mutate::forge_manifest(&uuid, 9, &edits, None)).unwrap();
        check(&open(&disk), "r", 0..5);
    }
}

/// G5. A store that reaches beyond the base of the one behind it is damage; served in spite of it, the first was
/// sealed as if it held nothing, and its records before that base were lost with those behind. A Seal ends a
/// store where the record at its end begins, which only the frames before it tell.
#[test]
fn a_store_that_reaches_beyond_the_next_ones_base_is_served_up_to_it() {
    let disk = SimDisk::new(1);
    let uuid = killed_after(&disk, 0..7);
    let edits = [
        init_of(uuid),
        Edit::Create { id: 1, base: Some(0), born: None },
        Edit::Create { id: 2, base: None, born: None },
        Edit::Create { id: 3, base: Some(4), born: None },
    ];
    disk.write_file(path("MANIFEST"), fuzz::mutate::forge_manifest(&uuid, 9, &edits, None)).unwrap();
    assert!(matches!(options(&disk).open(DIRECTORY), Err(Error::Damaged(_))));
    let log = options(&disk).on_damage(DamagePolicy::Serve).open(DIRECTORY).unwrap();
    for offset in 0..4 {
        assert_eq!(&log.read(offset).unwrap()[..], format!("r{offset}").as_bytes(), "{offset}");
    }
}

/// A store that was prepared, cut short, beside a Close that says nothing is written to: the repair took it for the
/// segment's own and kept it, and what was repaired did not open. Its length is part of being there.
#[test]
fn a_repair_keeps_no_store_that_is_cut_short() {
    let disk = SimDisk::new(1);
    let uuid = killed_after(&disk, 0..1);
    disk.truncate(path(FIRST_STORE), 60).unwrap();
    let edits = [init_of(uuid), created(1, Some(0)), Edit::Close(Close { length: 0, next_offset: 0 })];
    disk.write_file(path("MANIFEST"), fuzz::mutate::forge_manifest(&uuid, 9, &edits, None)).unwrap();
    assert!(is_damage(options(&disk).open(DIRECTORY)));
    let session = Session::lock(Arc::new(disk.clone()), Path::new(DIRECTORY)).unwrap();
    let plan = repair::plan(&session.survey(Basis::Manifest).unwrap(), None).unwrap();
    session.apply(&plan, &plan.to_accept()).unwrap();
    drop(session);
    assert_eq!(open(&disk).offsets(), 0..0);
}

fn init_of(uuid: [u8; 16]) -> Edit {
    Edit::Init { uuid, created_millis: 1, first_offset: 0, last_id: 9 }
}
