//! The parent's own opening after a blow: everything is held against the model, then the log goes on.

use std::collections::BTreeMap;
use std::os::unix::fs::FileExt;
use std::path::Path;

use stonelog::Log;
use stonelog::disk::OsDisk;
use stonelog::frame::{self, Header, Kind, Lag, PayloadChecksum, Seed};
use stonelog::manifest::Reading;
use stonelog::recovery::{self, Depth};

use crate::child;
use crate::dice::Dice;
use crate::model::{Model, walk};
use crate::record::Name;
use crate::scratch::Scratch;

/// The parent appends too, under this name.
const PARENT: u32 = 99;

/// What openings came to, so that a test that tests nothing is seen.
#[derive(Debug, Default)]
pub struct Openings {
    pub recoveries: u32,
    pub cut_tails: usize,
    pub records_checked: usize,
}

/// Looks at the log without changing it, beside nobody: what it serves must be what opening serves.
fn look_read_only(log: &Path) -> Result<BTreeMap<u64, Name>, String> {
    let opened = Log::open_read_only(log).map_err(|error| format!("read-only: {error}"))?;
    walk(&opened)
}

/// Opens the log after a blow and checks everything.
pub fn open_and_check(
    model: &mut Model,
    scratch: &Scratch,
    dice: &mut Dice,
    openings: &mut Openings,
) -> Result<Log, String> {
    let path = scratch.log();
    let manifest = path.join(stonelog::manifest::FILE_NAME).exists();
    let seen = if manifest && dice.one_in(2) { Some(look_read_only(&path)?) } else { None };
    let log = child::options(dice)
        .open(&path)
        .map_err(|error| format!("a plain crash must always open (G5): {error}"))?;
    openings.recoveries += u32::from(!log.recovery().clean);
    openings.cut_tails += log.recovery().cut.len();
    model.check(&log).map_err(|what| format!("{what}\nrecovery: {}", log.recovery()))?;
    if let Some(seen) = seen
        && let Some((offset, name)) = seen
            .iter()
            .find(|(offset, name)| **offset >= model.front && model.there.get(offset) != Some(name))
    {
        return Err(format!(
            "read-only served {name} at {offset}, the opening {:?}",
            model.there.get(offset)
        ));
    }
    openings.records_checked += model.there.len();
    Ok(log)
}

/// Appends go on after a recovery, and the log closes.
pub fn go_on(model: &mut Model, log: Log, life: u32, dice: &mut Dice) -> Result<(), String> {
    model
        .append(&log, Name::alone(life, PARENT, 0))
        .map_err(|error| format!("appending after recovery: {error}"))??;
    if dice.one_in(2) {
        log.close().map_err(|error| format!("closing: {error}"))?;
    }
    Ok(())
}

/// Leaves what a power cut in the middle of a write would leave: behind the end, where the next frames
/// would go, a batch that is not finished and ends in half a frame. Kills seldom land inside a write.
pub fn leave_half_a_batch(directory: &Path, life: u32) -> Result<bool, String> {
    let findings =
        recovery::inspect(&OsDisk, directory, Depth::Opening).map_err(|error| error.to_string())?;
    let (Reading::Whole { state, .. }, Some(assessment)) = (&findings.manifest, &findings.assessment) else {
        return Ok(false);
    };
    let last = assessment.placed.iter().rev().find_map(|place| Some((place.id, place.runs.last()?)));
    let (Some((id, run)), None) = (last, state.closed) else { return Ok(false) };
    let mut bytes = Vec::new();
    for index in 0..3 {
        // Nobody began to append these: served, they are strangers.
        let payload = Name { index, batch: 4, ..Name::alone(life, PARENT, 1 + index) }.bytes();
        let header = Header {
            kind: Kind::RecordMore,
            length: payload.len() as u32,
            ordinal: run.whole_ordinal + index,
            lag: Lag::NONE,
        };
        let seed = Seed::of_segment(&state.uuid, id);
        bytes.extend(frame::encode_header(&header, PayloadChecksum::of(&payload), seed));
        bytes.extend(&payload);
        bytes.resize(bytes.len().next_multiple_of(frame::ALIGNMENT as usize), 0);
    }
    bytes.truncate(bytes.len() - 9);
    let file = std::fs::OpenOptions::new().write(true).open(findings.store_path(id)).unwrap();
    file.write_all_at(&bytes, run.whole_position).unwrap();
    Ok(true)
}
