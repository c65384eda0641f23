//! The MANIFEST's head, and its edits.
//!
//! It owns the names of their fields. Which edits are whole is the library's reading.

use stonelog::frame::{self, HEADER_BYTES, Kind, PayloadChecksum, Seed};
use stonelog::manifest::edit::Edit;
use stonelog::manifest::{FILE_NAME, Reading};
use stonelog::scan::{self, Extent, Frame};

use super::explained::{Explained, Field, Fields, Piece, long, part, plain, word};
use super::sight::Sight;
use crate::output;

/// The head sector.
const HEAD: u64 = 512;

/// Explains the byte at `position` of a MANIFEST's `bytes`.
pub(super) fn explain(sight: &Sight, bytes: &[u8], position: u64, most: u64) -> Explained {
    let mut told = if position < HEAD { head(bytes) } else { edit(bytes, position, most) };
    told.file = Some(FILE_NAME.to_string());
    match &sight.findings.manifest {
        Reading::Whole { generation, edits, length, .. } => {
            let edits = output::count(u64::from(*edits), "edit");
            told.fact(
                "MANIFEST",
                format!("whole: generation {generation}, {edits} that end at byte {length}"),
            );
        }
        Reading::Damaged(damage) => told.fact("MANIFEST", format!("damaged: {}", damage.what)),
        Reading::Absent => told.fact("MANIFEST", "it is gone"),
    }
    told
}

fn head(bytes: &[u8]) -> Explained {
    let mut told = Explained::new("manifest-head", "the head sector of the MANIFEST");
    let sector = part(bytes, 0, 512);
    let mut fields = Fields::of(sector, 0);
    fields.take(8, "magic", |magic| (output::escaped(magic), String::new()));
    fields.word("version", plain);
    fields.word("unused", plain);
    fields
        .take(16, "log uuid", |uuid| plain(uuid.first_chunk::<16>().map_or_else(String::new, output::uuid)));
    fields.long("generation", |number| (number.to_string(), "higher with every new MANIFEST".to_string()));
    fields.long("length", |number| {
        (number.to_string(), "bytes it had when it got its name: it never gets shorter".to_string())
    });
    let sum = crc32fast::hash(part(bytes, 0, 48));
    fields.word("crc", |stored| {
        let note = if stored == sum { "as computed".to_string() } else { format!("computed 0x{sum:08x}") };
        (format!("0x{stored:08x}"), note)
    });
    told.fields = fields.list;
    told.holds(part(bytes, 0, 8) == b"STONEMAN", "it begins with STONEMAN");
    let stored = word(part(bytes, 48, 52));
    told.holds(sum == stored, format!("the checksum is 0x{sum:08x}, and 0x{stored:08x} is stored (no seed)"));
    let length = long(part(bytes, 40, 48));
    told.holds(
        bytes.len() as u64 >= length,
        format!("the file has {} bytes, and had {length} when it was named", bytes.len()),
    );
    told.valid = Some(told.all_hold() && sector.len() == 512);
    told.title += if told.valid == Some(true) { ": what was written" } else { ": not what was written" };
    told.bytes = Some(0..HEAD.min(bytes.len() as u64));
    told.shown = vec![Piece { start: 0, bytes: part(bytes, 0, 64).to_vec() }];
    told
}

fn edit(bytes: &[u8], position: u64, most: u64) -> Explained {
    let length = bytes.len() as u64;
    if position >= length {
        let mut told = Explained::new(
            "beyond-end",
            format!("byte {position} is beyond the end of the MANIFEST, {length}"),
        );
        told.valid = None;
        return told;
    }
    let (Some(uuid), generation) = (part(bytes, 16, 32).first_chunk::<16>(), long(part(bytes, 32, 40)))
    else {
        return Explained::new("bytes", "bytes of a MANIFEST that is cut short");
    };
    let seed = Seed::of_manifest(uuid, generation);
    let extent = Extent { seed, start: HEAD, end: length, base: Some(0), ordinal_end: None };
    let (mut before, mut found, mut next): (Option<Frame>, Option<Frame>, Option<Frame>) = (None, None, None);
    let outcome = scan::scan(bytes, &extent, |frame| {
        let end = frame.position.saturating_add(frame.header.frame_bytes());
        if (frame.position..end).contains(&position) {
            found = Some(frame);
        } else if frame.position > position {
            next = next.or(Some(frame));
        } else {
            before = Some(frame);
        }
    });
    let start = before.map_or(HEAD, |frame| frame.position.saturating_add(frame.header.frame_bytes()));
    let wanted = before.map_or(0, |frame| frame.header.ordinal.saturating_add(1));
    if let Some(frame) = found {
        let mut told = taken_apart(bytes, frame.position, frame.header.ordinal, seed, most);
        told.kind = "edit";
        told.valid = Some(true);
        let (kind, next_kind) = (frame.header.kind, next.map(|frame| frame.header.kind));
        told.fact(
            "batch",
            match kind {
                Kind::RecordMore if next_kind.is_none() => {
                    "more of its batch was to come, and never did: it does not count"
                }
                Kind::RecordMore => "more of its batch follows: all of it counts, or none",
                _ => "it ends its batch",
            },
        );
        return told;
    }
    let written = outcome.tail.as_ref().map_or(start, |tail| tail.end);
    if next.is_none() && position >= written.max(start) {
        let from = written.max(start);
        let mut told = Explained::new(
            "zeros",
            format!("zeros, from byte {from} to the end of the MANIFEST: room for edits"),
        );
        told.bytes = Some(from..length);
        return told;
    }
    let mut told = taken_apart(bytes, start, wanted, seed, most);
    told.kind = "broken-edit";
    told.valid = Some(false);
    told.title = format!("no valid edit, where edit {wanted} should begin (byte {start})");
    match next {
        Some(next) => told.fact(
            "behind it",
            format!("the next valid edit is at byte {}, number {}", next.position, next.header.ordinal),
        ),
        None => {
            told.fact("behind it", "no valid edit follows: it was being written, or is the last and damaged")
        }
    }
    told
}

fn index(position: u64) -> usize {
    usize::try_from(position).unwrap_or(usize::MAX)
}

fn taken_apart(bytes: &[u8], start: u64, wanted: u32, seed: Seed, most: u64) -> Explained {
    let header = part(bytes, index(start), index(start.saturating_add(HEADER_BYTES)));
    let kind_and_length = word(part(header, 4, 8));
    let (kind, length) = (kind_and_length >> 28, kind_and_length & frame::MAX_PAYLOAD_BYTES);
    let decoded = header.first_chunk::<16>().and_then(frame::decode_header);
    let end = start.saturating_add(frame::frame_bytes(length));
    let fits = end <= bytes.len() as u64;
    let payload_start = start.saturating_add(HEADER_BYTES);
    let payload_end = payload_start.saturating_add(u64::from(length));
    let payload = if fits { part(bytes, index(payload_start), index(payload_end)) } else { &[] };
    let computed = decoded
        .filter(|_| fits)
        .map(|header| word(&frame::encode_header(&header, PayloadChecksum::of(payload), seed)));
    let stored = word(header);
    let mut told = Explained::new("edit", format!("edit {wanted} of the MANIFEST"));
    told.holds(header.len() == 16, "16 bytes of header lie within the file");
    told.holds(
        decoded.is_some(),
        format!("kind {kind} is {}", if matches!(kind, 1 | 2) { "an edit" } else { "none" }),
    );
    if decoded.is_some() {
        told.holds(fits, format!("the frame ends at byte {end}, the file at {}", bytes.len()));
    }
    match computed {
        Some(computed) => told.holds(
            computed == stored,
            format!("the checksum is 0x{computed:08x}, and 0x{stored:08x} is stored (seed 0x{:08x}, of log and generation)", seed.value()),
        ),
        None => told.not_asked("the checksum"),
    }
    let ordinal = word(part(header, 8, 12));
    if computed == Some(stored) {
        told.holds(ordinal == wanted, format!("ordinal {ordinal}, and {wanted} is the one that comes here"));
    }
    let mut fields = Fields::of(header, start);
    fields.word("crc", |stored| {
        let note = match computed {
            Some(computed) if computed == stored => "as computed".to_string(),
            Some(computed) => format!("computed 0x{computed:08x}"),
            None => String::new(),
        };
        (format!("0x{stored:08x}"), note)
    });
    fields.word("kind, length", |_| {
        let note = match kind {
            1 => "ends its batch",
            2 => "more of its batch to come",
            _ => "no edit has this kind",
        };
        (format!("{kind}, {length}"), note.to_string())
    });
    fields.word("ordinal", plain);
    fields.word("lag", |lag| match lag {
        u32::MAX => plain("none"),
        lag => (
            lag.to_string(),
            format!(
                "the first {} edits were durable before",
                u64::from(ordinal).saturating_sub(u64::from(lag))
            ),
        ),
    });
    told.fields = fields.list;
    if fits {
        let intact = computed == Some(stored);
        match Edit::decode(payload) {
            Ok(edit) if intact => told.title = format!("edit {wanted} of the MANIFEST: {}", words(&edit)),
            Ok(_) => {}
            Err(defect) if intact => told.holds(false, format!("its payload is an edit: {defect}")),
            Err(_) => {}
        }
        told.fields.extend(payload_fields(payload, payload_start));
        let padding = end.saturating_sub(payload_end);
        if padding > 0 {
            told.fields.push(Field {
                name: "padding",
                start: payload_end,
                end,
                value: output::count(padding, "byte"),
                note: "up to a multiple of 8; not under the checksum".to_string(),
            });
        }
    }
    let end = if fits && decoded.is_some() { end } else { payload_start }.min(bytes.len() as u64);
    told.bytes = Some(start..end);
    let shown = start..end.min(payload_start.saturating_add(most.max(64)));
    told.shown = vec![Piece { start, bytes: part(bytes, index(shown.start), index(shown.end)).to_vec() }];
    told
}

/// An edit in a few words.
fn words(edit: &Edit) -> String {
    match edit {
        Edit::Init { first_offset, .. } => format!("Init, of a log that begins at offset {first_offset}"),
        Edit::Create { id, born: Some(born), .. } => {
            format!("Create of segment {id:x}, born with frames up to offset {}", born.durable_end)
        }
        Edit::Create { id, base: Some(base), .. } => format!("Create of segment {id:x} at base {base}"),
        Edit::Create { id, .. } => format!("Create of segment {id:x}, prepared ahead"),
        Edit::Seal { id, seal } => {
            format!("Seal of segment {id:x} at offset {}, byte {}", seal.next_offset, seal.length)
        }
        Edit::Drop { id, quarantine: true } => format!("Drop of segment {id:x}, into quarantine/"),
        Edit::Drop { id, .. } => format!("Drop of segment {id:x}"),
        Edit::TruncateFront { offset } => format!("TruncateFront: the log begins at offset {offset}"),
        Edit::Close(close) => format!("Close: a clean end, the next offset is {}", close.next_offset),
        Edit::Damaged { offsets } => format!("Damaged: {} cannot be read", output::records(offsets)),
        Edit::Lost { offsets } => format!("Lost: a repair gave up {}", output::records(offsets)),
        Edit::Meta { key, value: Some(value) } => {
            let bytes = output::count(value.len() as u64, "byte");
            format!("Meta: {} is set to {bytes}", output::escaped(key.as_bytes()))
        }
        Edit::Meta { key, value: None } => format!("Meta: {} is removed", output::escaped(key.as_bytes())),
    }
}

/// The fields of an edit's payload, by its tag.
fn payload_fields(payload: &[u8], start: u64) -> Vec<Field> {
    const NAMES: [&str; 10] =
        ["none", "Init", "Create", "Seal", "Drop", "TruncateFront", "Close", "Damaged", "Lost", "Meta"];
    let (tag, flags) = (payload.first().copied().unwrap_or(0), payload.get(1).copied().unwrap_or(0));
    let mut fields = Fields::of(payload, start);
    fields.take(1, "tag", |_| {
        (tag.to_string(), NAMES.get(usize::from(tag)).copied().unwrap_or("none").to_string())
    });
    fields.take(1, "flags", |_| plain(flags));
    let id = |id: u64| (format!("{id:x}"), String::new());
    let time = |millis: u64| (millis.to_string(), output::time(millis));
    match tag {
        1 => {
            fields.take(16, "uuid", |uuid| {
                plain(uuid.first_chunk::<16>().map_or_else(String::new, output::uuid))
            });
            fields.long("created", time);
            fields.long("first offset", plain);
            fields.long("last id", id);
        }
        2 => {
            fields.long("id", id);
            if flags & 1 != 0 {
                fields.long("base", plain);
            }
            if flags & 2 != 0 {
                fields.long("durable end", plain);
                fields.long("length", plain);
            }
        }
        3 => {
            fields.long("id", id);
            fields.long("next offset", plain);
            fields.long("length", plain);
            fields.long("first written", time);
            fields.long("last written", time);
        }
        4 => fields.long("id", id),
        5 => fields.long("offset", plain),
        6 => {
            fields.long("length", plain);
            fields.long("next offset", plain);
        }
        7 | 8 => {
            fields.long("start", plain);
            fields.long("end", plain);
        }
        9 => {
            let key = usize::from(payload.get(2).copied().unwrap_or(0));
            fields.take(1, "key length", |_| plain(key));
            fields.take(key, "key", |key| plain(output::escaped(key)));
            let value = fields.rest().len();
            fields.take(value, "value", |value| plain(output::count(value.len() as u64, "byte")));
        }
        _ => {}
    }
    let rest = fields.rest().len();
    fields.take(rest, "more", |_| (output::count(rest as u64, "byte"), "no field of this edit".to_string()));
    fields.list
}
