//! What crashes and rot do to files, done on purpose.
//!
//! Positions come from the engine's own public scanner; the bytes are changed behind its back.

use std::fs::OpenOptions;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use stonelog::disk::OsDisk;
use stonelog::frame::{self, HEADER_BYTES, Header, Kind, Lag, PayloadChecksum, Seed};
use stonelog::manifest::Reading;
use stonelog::recovery::{self, Depth, Findings};
use stonelog::scan::{self, Extent};
use stonelog::store::FIRST_FRAME;
use stonelog::{Log, Recovery, names};

use crate::Outcome;
use crate::input::Input;
use crate::writer::Notes;

/// Half a frame behind the end.
pub(crate) struct Tear {
    pub(crate) file: String,
    pub(crate) position: u64,
    pub(crate) left: u64,
    pub(crate) whole: u64,
}

impl Tear {
    /// Whether recovery reports that it cut these bytes.
    pub(crate) fn was_cut(&self, recovery: &Recovery) -> bool {
        let ours = self.position..self.position + self.left;
        recovery.cut.iter().any(|cut| {
            cut.file == self.file && cut.positions.start < ours.end && ours.start < cut.positions.end
        })
    }
}

/// Writes the first half of the frame that would have come next.
pub(crate) fn leave_half_a_frame(directory: &Path, input: &Input) -> Outcome<Tear> {
    let findings = recovery::inspect(&OsDisk, directory, Depth::Opening)?;
    let uuid = uuid(&findings)?;
    let assessment = findings.assessment.ok_or("the writer left no log")?;
    let last = assessment.placed.iter().rev().find_map(|place| Some((place.id, place.runs.last()?)));
    let (id, run) = last.ok_or("the writer left no records")?;

    let line = input.lines.iter().find(|line| line.len() >= 32).or(input.lines.first()).ok_or("no lines")?;
    let length = u32::try_from(line.len())?;
    let header = Header { kind: Kind::Record, length, ordinal: run.whole_ordinal, lag: Lag::ZERO };
    let seed = Seed::of_segment(&uuid, id);
    let mut bytes = frame::encode_header(&header, PayloadChecksum::of(line), seed).to_vec();
    bytes.extend_from_slice(line);
    let whole = bytes.len() as u64;
    bytes.truncate(bytes.len() / 2);

    let position = run.whole_position;
    let mut file = OpenOptions::new().write(true).open(findings.directory.join(names::store(id)))?;
    file.seek(SeekFrom::Start(position))?;
    file.write_all(&bytes)?;
    file.sync_all()?;
    Ok(Tear { file: names::store(id), position, left: bytes.len() as u64, whole })
}

/// One bit to flip.
pub(crate) struct Flip {
    pub(crate) offset: u64,
    pub(crate) position: u64,
    id: u64,
}

impl Flip {
    pub(crate) fn file(&self) -> String {
        names::store(self.id)
    }

    /// Flips the bit; a second time flips it back.
    pub(crate) fn carry_out(&self, directory: &Path) -> Outcome<()> {
        let path: PathBuf = directory.join(self.file());
        let mut file = OpenOptions::new().read(true).write(true).open(path)?;
        let mut byte = [0];
        file.seek(SeekFrom::Start(self.position))?;
        file.read_exact(&mut byte)?;
        file.seek(SeekFrom::Start(self.position))?;
        file.write_all(&byte.map(|byte| byte ^ 0x01))?;
        file.sync_all()?;
        Ok(())
    }
}

/// A record in the middle, acknowledged like its neighbours, and a byte in its middle.
pub(crate) fn choose_flip(directory: &Path, log: &Log, notes: &Notes) -> Outcome<Flip> {
    let acknowledged = |offset: u64| notes.acknowledged.contains_key(&offset);
    let middle = log.offsets().end / 2;
    let fits = |offset: &u64| *offset > 0 && (offset - 1..=offset + 1).all(acknowledged);
    let long = |offset: &u64| log.read(*offset).is_ok_and(|record| record.len() >= 16);
    let mut fitting = (middle..log.offsets().end).chain(0..middle).filter(fits);
    let first = fitting.next().ok_or("too few records to damage one in the middle")?;
    let offset = if long(&first) { first } else { fitting.take(1_000).find(long).unwrap_or(first) };

    let segments = log.segments();
    let segment = segments
        .iter()
        .find(|segment| (segment.base..segment.end).contains(&offset))
        .ok_or("no segment holds the record")?;
    let findings = recovery::inspect(&OsDisk, directory, Depth::Opening)?;
    let bytes = std::fs::read(directory.join(names::store(segment.id)))?;
    let extent = Extent {
        seed: Seed::of_segment(&uuid(&findings)?, segment.id),
        start: FIRST_FRAME,
        end: segment.length,
        base: Some(segment.base),
        ordinal_end: u32::try_from(segment.end - segment.base).ok(),
    };
    let mut found = None;
    scan::scan(&bytes[..], &extent, |frame| {
        if frame.header.kind.is_record() && segment.base + u64::from(frame.header.ordinal) == offset {
            found = Some(frame);
        }
    });
    let frame = found.ok_or("the scanner does not find the record")?;
    let position = match frame.header.length {
        0 => frame.position, // an empty line: its checksum
        length => frame.position + HEADER_BYTES + u64::from(length) / 2,
    };
    Ok(Flip { offset, position, id: segment.id })
}

fn uuid(findings: &Findings) -> Outcome<[u8; 16]> {
    match &findings.manifest {
        Reading::Whole { state, .. } => Ok(state.uuid),
        _ => Err("the log has no whole MANIFEST".into()),
    }
}
