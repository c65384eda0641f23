//! The kinds of damage there are to practise on, one after the other.
//!
//! It owns each kind's name, its line, what `check` is to say of it, and the blows that make it. A
//! kind does one thing to a healthy log, so that whoever looks at it sees that thing alone (`many`
//! excepted).

use clap::ValueEnum;
use stonelog::store::{BASE_POSITION, FIRST_FRAME};
use stonelog::{DamagePolicy, manifest, names};

use super::bench::{Bench, payload};
use crate::Failure;

/// Records of an ordinary practice log: three segments of them.
const RECORDS: u64 = 72;
/// Records where there is more than one damage.
const MORE_RECORDS: u64 = 140;
/// Records where there are to be hundreds of segments.
const MANY_RECORDS: u64 = 12_000;

macro_rules! kinds {
    ($($variant:ident $name:literal $about:literal [$($code:literal),*],)*) => {
        /// What is wrong with a practice log.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
        pub(super) enum Kind {
            $(#[doc = $about] #[value(name = $name)] $variant,)*
        }

        impl Kind {
            /// The name, as it is given on the command line.
            pub(super) const fn name(self) -> &'static str {
                match self {
                    $(Kind::$variant => $name,)*
                }
            }

            /// One line about it.
            pub(super) const fn about(self) -> &'static str {
                match self {
                    $(Kind::$variant => $about,)*
                }
            }

            /// The codes that `check` gives for it, each once.
            pub(super) const fn codes(self) -> &'static [&'static str] {
                match self {
                    $(Kind::$variant => &[$($code),*],)*
                }
            }
        }
    };
}

kinds! {
    Clean "clean" "nothing: a healthy log, closed" [],
    Truncated "truncated" "nothing: a healthy log whose oldest records were truncated away" [],
    Killed "killed" "nothing acknowledged is missing: the process died, the log was never closed" ["N-UNCLEAN"],
    TornTail "torn-tail" "the last write never finished: a crash in the middle of an append"
        ["W-TAIL-TORN", "N-UNCLEAN"],
    PowerCut "power-cut" "the last group never reached the disk whole: a power cut before its fsync"
        ["W-TAIL-TORN", "N-UNCLEAN"],
    FlippedByte "flipped-byte" "one bit of one record flipped, in a sealed segment" ["E-FRAME-CRC"],
    DamagedTail "damaged-tail" "one bit flipped below the proven end of the unsealed segment, after a crash"
        ["E-FRAME-CRC", "N-UNCLEAN"],
    Declared "declared" "the same, opened since with DamagePolicy::Serve: the damage stands, the log goes on"
        ["E-FRAME-CRC", "W-INDEX-MISSING"],
    ZeroedBlock "zeroed-block" "a sector of a sealed segment reads as zeros" ["E-FRAME-CRC"],
    Overwritten "overwritten" "another program wrote text into the middle of a store" ["E-FRAME-CRC"],
    ShortStore "short-store" "a sealed store was cut short" ["E-SEG-SHORT"],
    MissingStore "missing-store" "a sealed store is not there" ["E-SEG-MISSING"],
    MissingActiveStore "missing-active-store" "after a crash, the store that was being written is not there"
        ["E-SEG-MISSING", "N-UNCLEAN"],
    SwappedStores "swapped-stores" "two stores have each other's names" ["E-HEAD", "E-FRAME-CRC", "E-SEG-SHORT"],
    HeadGone "head-gone" "a store's first sector reads as zeros" ["E-HEAD"],
    BaseGone "base-gone" "a store's second sector reads as zeros: no record is lost" ["E-BASE"],
    IndexWrong "index-wrong" "an index is not what its store says: no record is lost" ["W-INDEX"],
    IndexMissing "index-missing" "an index is not there: no record is lost" ["W-INDEX-MISSING"],
    ManifestMissing "manifest-missing" "there is no MANIFEST" ["E-MANIFEST-MISSING"],
    ManifestDamaged "manifest-damaged" "a bit of the MANIFEST flipped" ["E-MANIFEST"],
    ManifestEditLost "manifest-edit-lost" "an older MANIFEST was put back: its newest edits are missing"
        ["E-MANIFEST-EDIT", "W-TAIL-STRAY", "W-UNNAMED"],
    StrayFile "stray-file" "nothing: a file that is not Stonelog's lies beside it" ["N-STRANGE"],
    Many "many" "several of these at once"
        ["E-FRAME-CRC", "E-SEG-MISSING", "W-INDEX-MISSING", "N-STRANGE"],
    Large "large" "hundreds of segments, two of them damaged" ["E-FRAME-CRC"],
}

impl Kind {
    /// Every kind, in the order in which they are best practised.
    pub(super) fn all() -> impl Iterator<Item = Kind> {
        Kind::value_variants().iter().copied()
    }

    /// Whether there is a place that is worth an `explain`.
    pub(super) fn is_explained(self) -> bool {
        !matches!(self, Kind::StrayFile | Kind::IndexMissing | Kind::ManifestMissing)
    }

    /// Makes the log, and strikes it.
    pub(super) fn make(self, bench: &mut Bench) -> Result<(), Failure> {
        match self {
            Kind::Clean => bench.closed(RECORDS),
            Kind::Truncated => {
                let log = bench.open(DamagePolicy::Refuse)?;
                bench.append(&log, RECORDS)?;
                log.truncate_front(35)?;
                bench.close(&log)
            }
            Kind::Killed => bench.killed(RECORDS),
            Kind::TornTail => torn_tail(bench),
            Kind::PowerCut => power_cut(bench),
            Kind::FlippedByte => {
                bench.closed(RECORDS)?;
                bench.flip_record(17)
            }
            Kind::DamagedTail => {
                bench.killed(RECORDS)?;
                bench.flip_record(66)
            }
            Kind::Declared => {
                bench.killed(RECORDS)?;
                bench.flip_record(66)?;
                let log = bench.open(DamagePolicy::Serve)?;
                bench.append(&log, RECORDS + 10)?;
                bench.close(&log)
            }
            Kind::ZeroedBlock => {
                bench.closed(RECORDS)?;
                zeroed_sector(bench, 1)
            }
            Kind::Overwritten => {
                bench.closed(RECORDS)?;
                overwritten(bench, 1)
            }
            Kind::ShortStore => {
                bench.closed(RECORDS)?;
                short(bench, 17)
            }
            Kind::MissingStore => {
                bench.closed(RECORDS)?;
                let name = names::store(bench.id(1)?);
                bench.remove(&name, "the file was removed")
            }
            Kind::MissingActiveStore => {
                bench.killed(RECORDS)?;
                let name = names::store(bench.id(2)?);
                bench.remove(&name, "the file was removed")
            }
            Kind::SwappedStores => {
                bench.closed(RECORDS)?;
                let (one, other) = (names::store(bench.id(0)?), names::store(bench.id(1)?));
                bench.rename(&one, "swapped")?;
                bench.rename(&other, &one)?;
                bench.rename("swapped", &other)?;
                bench.note(&one, None, None, format!("it got the name of {other}, and that file got its"));
                Ok(())
            }
            Kind::HeadGone => {
                bench.closed(RECORDS)?;
                let name = names::store(bench.id(1)?);
                bench.zero(&name, 0..BASE_POSITION, None, "the first sector was turned to zeros")
            }
            Kind::BaseGone => {
                bench.closed(RECORDS)?;
                let name = names::store(bench.id(1)?);
                let what = "the second sector was turned to zeros";
                bench.zero(&name, BASE_POSITION..FIRST_FRAME, None, what)
            }
            Kind::IndexWrong => {
                bench.closed(RECORDS)?;
                let name = names::index(bench.id(0)?);
                bench.flip(&name, 70, None, "in an entry of the index")
            }
            Kind::IndexMissing => {
                bench.closed(RECORDS)?;
                let name = names::index(bench.id(0)?);
                bench.remove(&name, "the file was removed")
            }
            Kind::ManifestMissing => {
                bench.closed(RECORDS)?;
                bench.remove(manifest::FILE_NAME, "the file was removed")
            }
            Kind::ManifestDamaged => {
                bench.closed(RECORDS)?;
                bench.flip(manifest::FILE_NAME, 512 + 20, None, "in the first edit")
            }
            Kind::ManifestEditLost => {
                bench.closed(RECORDS)?;
                let old = bench.read(manifest::FILE_NAME)?;
                let log = bench.open(DamagePolicy::Refuse)?;
                bench.append(&log, 2 * RECORDS)?;
                bench.close(&log)?;
                bench.write(manifest::FILE_NAME, &old)?;
                let what = format!("it was replaced by the one of {RECORDS} records before");
                bench.note(manifest::FILE_NAME, None, None, what);
                Ok(())
            }
            Kind::StrayFile => {
                bench.closed(RECORDS)?;
                bench.write("shopping-list.txt", b"apples, pears, a cake\n")?;
                bench.note("shopping-list.txt", None, None, "a file was put here that is not Stonelog's");
                Ok(())
            }
            Kind::Many => many(bench),
            Kind::Large => {
                bench.closed(MANY_RECORDS)?;
                bench.flip_record(1_717)?;
                bench.flip_record(9_090)
            }
        }
    }
}

/// Half of the last frame never came, and the mark behind it neither.
fn torn_tail(bench: &mut Bench) -> Result<(), Failure> {
    bench.killed(RECORDS)?;
    let last = bench.find(RECORDS - 1)?;
    let bytes = last.bytes();
    let half = (bytes.start + (bytes.end - bytes.start) / 2).next_multiple_of(8);
    // (The mark that follows is 16 bytes.)
    let what = format!("the second half of record {} was taken back, as if never written", RECORDS - 1);
    bench.zero(&names::store(last.id), half..bytes.end + 16, Some(RECORDS - 1), &what)
}

/// Of a batch that was written and not synced the first sector never came, and the later ones did: a
/// disk owes no order between two fsyncs.
fn power_cut(bench: &mut Bench) -> Result<(), Failure> {
    let log = bench.open(DamagePolicy::Refuse)?;
    bench.append(&log, RECORDS - 6)?;
    log.append_batch((RECORDS - 6..RECORDS).map(payload))?;
    bench.append(&log, RECORDS)?;
    bench.crash(log);
    let first = bench.find(RECORDS - 6)?;
    let last = bench.find(RECORDS - 1)?;
    let name = names::store(first.id);
    let start = first.bytes().start;
    let what = "the first bytes of the last group never reached the disk (the rest of it did)";
    bench.zero(&name, start..(start + 8).next_multiple_of(512), Some(RECORDS - 6), what)?;
    // The mark behind it was written later still.
    bench.put(&name, last.bytes().end, &[0; 16])
}

fn zeroed_sector(bench: &mut Bench, nth: usize) -> Result<(), Failure> {
    let name = names::store(bench.id(nth)?);
    bench.zero(&name, 2048..2560, None, "a sector was turned to zeros")
}

fn overwritten(bench: &mut Bench, nth: usize) -> Result<(), Failure> {
    const TEXT: &[u8] = b"Dear diary, today I found a file that nobody seemed to need, and wrote into it. ";
    let name = names::store(bench.id(nth)?);
    let text = TEXT.repeat(5);
    let start = 1500;
    bench.put(&name, start, &text)?;
    bench.note(
        &name,
        Some(start..start + text.len() as u64),
        None,
        "another program's text was written here",
    );
    Ok(())
}

fn short(bench: &mut Bench, offset: u64) -> Result<(), Failure> {
    let found = bench.find(offset)?;
    let what = format!("the file was cut in the middle of record {offset}");
    bench.cut(&names::store(found.id), found.frame.position + 21, &what)
}

fn many(bench: &mut Bench) -> Result<(), Failure> {
    bench.closed(MORE_RECORDS)?;
    bench.flip_record(3)?;
    bench.flip_record(11)?;
    zeroed_sector(bench, 1)?;
    let name = names::store(bench.id(2)?);
    bench.remove(&name, "the file was removed")?;
    let index = names::index(bench.id(0)?);
    bench.remove(&index, "the file was removed")?;
    overwritten(bench, 2)?;
    bench.write("shopping-list.txt", b"apples, pears, a cake\n")?;
    bench.note("shopping-list.txt", None, None, "a file was put here that is not Stonelog's");
    Ok(())
}
