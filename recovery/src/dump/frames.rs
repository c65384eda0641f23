//! The frames of every store, valid or not.
//!
//! It owns how a frame is shown. It needs neither a manifest nor a healthy store: what the scanner finds is what
//! is listed. Why it does not set the exit code: bytes that are no frame may be damage, a torn tail or nothing at
//! all; telling which is `check`'s work.

use std::io;
use std::ops::Range;
use std::path::Path;

use serde::Serialize;
use stonelog::disk::Disk;
use stonelog::frame::{Kind, Seed};
use stonelog::manifest::{self, Reading, State};
use stonelog::names;
use stonelog::recovery::StoreFindings;
use stonelog::scan::{self, Defect, Extent, Frame};
use stonelog::store::FIRST_FRAME;

use super::{Arguments, Format};
use crate::looking::{LookingDisk, StoreSource};
use crate::output::{self, BAD, FAINT, ODD, Output, SCHEMA_VERSION, STRONG, styled};
use crate::{Exit, Failure};

pub(super) fn run(arguments: &Arguments, output: &mut Output) -> Result<Exit, Failure> {
    let directory = &arguments.directory.path;
    let disk = LookingDisk::default();
    let entries = disk.list(directory).map_err(|error| {
        Failure::Said(format!("listing {} failed: {error}. Name a log directory", directory.display()))
    })?;
    let ids: Vec<u64> = entries.iter().filter_map(|entry| names::id_of_store(&entry.name)).collect();
    if ids.is_empty() {
        return Err(Failure::Said(format!("{} holds no stores: name a log directory", directory.display())));
    }
    let state = match manifest::read(&disk, directory) {
        Ok(Reading::Whole { state, .. }) => Some(state),
        Ok(Reading::Absent | Reading::Damaged(_)) => {
            output.remark("there is no whole MANIFEST: what follows is what the stores say by themselves");
            None
        }
        Err(error) => return Err(error.into()),
    };
    let heads = ids.iter().filter_map(|id| {
        let head = *StoreSource::open(&disk, directory, *id).ok()?.findings(&[0; 16], *id).head()?;
        (head.id == *id).then_some(head.uuid)
    });
    let uuid = state.as_ref().map(|state| state.uuid).or_else(|| heads.into_iter().next());
    let mut left = arguments.limit;
    for id in ids {
        if left == 0 {
            break;
        }
        let looked = Looked::at(&disk, directory, id, state.as_ref(), uuid);
        if looked.lies_outside(arguments) {
            continue;
        }
        let mut lister =
            FrameLister { looked, output, arguments, left, end: FIRST_FRAME, ordinal: 0, sealed_told: false };
        lister.all()?;
        left = lister.left;
    }
    Ok(Exit::Clean)
}

/// A store, and what is known of its place in the log.
struct Looked {
    id: u64,
    source: Result<StoreSource, String>,
    store: StoreFindings,
    uuid: Option<[u8; 16]>,
    base: Option<u64>,
    /// The end and the length that a Seal states.
    seal: Option<(u64, u64)>,
    named: Option<bool>,
}

impl Looked {
    fn at(
        disk: &dyn Disk,
        directory: &Path,
        id: u64,
        state: Option<&State>,
        uuid: Option<[u8; 16]>,
    ) -> Looked {
        let source = StoreSource::open(disk, directory, id).map_err(|error| error.to_string());
        let store = match (&source, uuid) {
            (Ok(source), uuid) => source.findings(&uuid.unwrap_or_default(), id),
            (Err(why), _) => StoreFindings::Unreadable { why: why.clone() },
        };
        let segment = state.and_then(|state| state.segments.get(&id));
        Looked {
            id,
            base: segment.and_then(|segment| segment.base).or(store.base()),
            seal: segment.and_then(|segment| segment.seal).map(|seal| (seal.next_offset, seal.length)),
            named: state.map(|_| segment.is_some()),
            source,
            store,
            uuid,
        }
    }

    fn lies_outside(&self, arguments: &Arguments) -> bool {
        self.base.is_some_and(|base| base >= arguments.to && arguments.to != u64::MAX)
            || self.seal.is_some_and(|(next_offset, _)| next_offset <= arguments.from && arguments.from > 0)
    }

    fn title(&self) -> String {
        let mut title = format!("== {}", names::store(self.id));
        title += &match self.store.head() {
            Some(head) if head.id == self.id && self.uuid.is_none_or(|uuid| uuid == head.uuid) => {
                format!(": segment {:x}, made {}", self.id, output::time(head.created_millis))
            }
            Some(head) => {
                format!(": its head is segment {:x}'s of log {}", head.id, output::uuid(&head.uuid))
            }
            None => ": its head is not what was written".to_string(),
        };
        title += &self.base.map_or(", base unknown".to_string(), |base| format!(", base {base}"));
        if let Some((next_offset, length)) = self.seal {
            title += &format!(", sealed at offset {next_offset}, byte {length}");
        }
        if self.named == Some(false) {
            title += ", not named by the MANIFEST";
        }
        title
    }
}

struct FrameLister<'a> {
    looked: Looked,
    output: &'a mut Output,
    arguments: &'a Arguments,
    left: u64,
    /// Behind the last valid frame.
    end: u64,
    /// The record that should come next.
    ordinal: u32,
    sealed_told: bool,
}

impl FrameLister<'_> {
    fn all(&mut self) -> Result<(), Failure> {
        if self.arguments.format == Format::Text {
            let title = self.looked.title();
            self.output.line(styled(STRONG, title))?;
        }
        let source = match std::mem::replace(&mut self.looked.source, Err(String::new())) {
            Ok(source) => source,
            Err(why) => return Ok(self.broken(0..0, &format!("it cannot be opened: {why}"))?),
        };
        let Some(uuid) = self.looked.uuid else {
            let what = "nothing tells which log this is, and without that no checksum can be verified";
            return Ok(self.broken(FIRST_FRAME..scan::Source::length(&source), what)?);
        };
        if self.arguments.format == Format::Text {
            let heading = format!(
                "{:>12}  {:<6}  {:>9}  {:>9}  {:>12}  {:>12}  crc",
                "POSITION", "KIND", "LENGTH", "ORDINAL", "OFFSET", "DURABLE END"
            );
            self.output.line(styled(FAINT, heading))?;
        }
        let seed = Seed::of_segment(&uuid, self.looked.id);
        let length = scan::Source::length(&source);
        let extent =
            Extent { seed, start: FIRST_FRAME, end: length, base: self.looked.base, ordinal_end: None };
        let mut failed = None;
        let outcome = scan::scan(&source, &extent, |frame| {
            if failed.is_none() && self.left > 0 {
                failed = self.frame(frame).err();
            }
            if failed.is_some() || self.left == 0 {
                source.stop();
            }
        });
        if let Some(error) = failed {
            return Err(error.into());
        }
        if self.left == 0 {
            return Ok(());
        }
        let rest = outcome.tail.map_or(self.end, |tail| tail.end);
        if rest > self.end && self.is_wanted(self.ordinal..u32::MAX) {
            let defect = scan::frame_at(&source, seed, self.end, length).err();
            self.broken(self.end..rest, defect.map_or("no frame", Defect::describe))?;
            self.end = rest;
        }
        if self.arguments.format == Format::Text && self.end < length {
            let line = format!("{:>12}  zeros to the end of the file, byte {length}", self.end);
            self.output.line(styled(FAINT, line))?;
        }
        Ok(())
    }

    fn frame(&mut self, frame: Frame) -> io::Result<()> {
        if frame.position > self.end && self.is_wanted(self.ordinal..frame.header.ordinal) {
            let what = frame.gap.map_or("a frame of another record", Defect::describe);
            self.broken(self.end..frame.position, what)?;
        }
        self.end = frame.position.saturating_add(frame.header.frame_bytes());
        let header = frame.header;
        self.ordinal = header.ordinal.saturating_add(u32::from(header.kind.is_record()));
        let offset = self.looked.base.map(|base| base.saturating_add(u64::from(header.ordinal)));
        let wanted = self.arguments.from..self.arguments.to;
        if offset.is_some_and(|offset| !wanted.contains(&offset)) {
            return Ok(());
        }
        self.left -= 1;
        let durable_end =
            offset.zip(header.lag.records()).map(|(offset, lag)| offset.saturating_sub(u64::from(lag)));
        let kind = match header.kind {
            Kind::Record => "record",
            Kind::RecordMore => "more",
            Kind::Mark => "mark",
        };
        if self.arguments.format == Format::Json {
            return self.output.json_line(&JsonFrame {
                v: SCHEMA_VERSION,
                file: names::store(self.looked.id),
                position: frame.position,
                position_end: self.end,
                kind,
                valid: true,
                length: Some(header.length),
                ordinal: Some(header.ordinal),
                offset,
                lag: header.lag.records(),
                durable_end,
                what: None,
            });
        }
        if let Some((_, sealed)) = self.looked.seal
            && frame.position >= sealed
            && !std::mem::replace(&mut self.sealed_told, true)
        {
            let line = format!("{sealed:>12}  sealed here: what follows is no part of the log");
            self.output.line(styled(ODD, line))?;
        }
        let number = |number: Option<u64>| number.map_or("-".to_string(), |number| number.to_string());
        self.output.line(format_args!(
            "{:>12}  {kind:<6}  {:>9}  {:>9}  {:>12}  {:>12}  ok",
            frame.position,
            header.length,
            header.ordinal,
            number(offset),
            number(durable_end)
        ))
    }

    /// Whether any of these records were asked for; they all are where nobody knows their offsets.
    fn is_wanted(&self, ordinals: Range<u32>) -> bool {
        self.looked.base.is_none_or(|base| {
            let offset = |ordinal: u32| base.saturating_add(u64::from(ordinal));
            offset(ordinals.start) < self.arguments.to && self.arguments.from <= offset(ordinals.end)
        })
    }

    /// Bytes that are no frame.
    fn broken(&mut self, positions: Range<u64>, what: &str) -> io::Result<()> {
        if self.arguments.format == Format::Json {
            return self.output.json_line(&JsonFrame {
                v: SCHEMA_VERSION,
                file: names::store(self.looked.id),
                position: positions.start,
                position_end: positions.end,
                kind: "broken",
                valid: false,
                length: None,
                ordinal: None,
                offset: None,
                lag: None,
                durable_end: None,
                what: Some(what),
            });
        }
        let bytes = output::bytes(positions.end.saturating_sub(positions.start));
        self.output.line(styled(BAD, format!("{:>12}  broken  {bytes}: {what}", positions.start)))
    }
}

#[derive(Serialize)]
struct JsonFrame<'a> {
    v: u32,
    file: String,
    position: u64,
    position_end: u64,
    kind: &'static str,
    valid: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    length: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ordinal: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    offset: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lag: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    durable_end: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    what: Option<&'a str>,
}
