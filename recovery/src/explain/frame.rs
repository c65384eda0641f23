//! One frame of a store, valid or not; the bytes of a hole; a store's two sectors.
//!
//! It owns the words for what docs/FORMAT.md demands of a frame, in its order: whatever fails first
//! is why the frame is none. It does not decide: a frame is called valid exactly where the library's
//! scanner took it.

use std::ops::Range;

use stonelog::frame::{self, HEADER_BYTES, Header, Kind, MAX_PAYLOAD_BYTES, PayloadChecksum, Seed};
use stonelog::scan::{Defect, Source};
use stonelog::store::{BASE_POSITION, FIRST_FRAME};

use super::explained::{Explained, Field, Fields, Piece, part, plain, word};
use super::sight::{Sight, Store, Walked};
use crate::output;

/// How many bytes are hashed at once.
const STEP: usize = 1 << 20;

/// What is wanted of a frame's surroundings.
pub(super) struct Around<'a> {
    pub(super) sight: &'a Sight,
    pub(super) store: &'a Store,
    pub(super) walked: &'a Walked,
    /// Payload bytes to show at most.
    pub(super) most: u64,
}

/// A frame's 16 bytes, whatever they are.
struct Raw {
    stored: u32,
    kind: u32,
    length: u32,
    ordinal: u32,
    lag: u32,
}

impl Raw {
    fn of(bytes: &[u8]) -> Raw {
        let kind_and_length = word(part(bytes, 4, 8));
        Raw {
            stored: word(bytes),
            kind: kind_and_length >> 28,
            length: kind_and_length & MAX_PAYLOAD_BYTES,
            ordinal: word(part(bytes, 8, 12)),
            lag: word(part(bytes, 12, 16)),
        }
    }

    const fn kind_name(&self) -> &'static str {
        match self.kind {
            1 => "a record that ends its batch",
            2 => "a record with more of its batch to come",
            3 => "a mark: no record, it says that everything before it is durable",
            0 => "none: zeros are never a frame",
            _ => "none in version 1",
        }
    }
}

/// A frame's fields, for the header at `position` and the payload behind it.
fn fields(
    header: &[u8],
    position: u64,
    raw: &Raw,
    computed: Option<u32>,
    end: u64,
    base: Option<u64>,
) -> Vec<Field> {
    let mut fields = Fields::of(header, position);
    fields.word("crc", |stored| {
        let note = match computed {
            Some(computed) if computed == stored => "as computed".to_string(),
            Some(computed) => format!("computed 0x{computed:08x}"),
            None => String::new(),
        };
        (format!("0x{stored:08x}"), note)
    });
    fields.word("kind, length", |_| {
        let bytes = output::count(u64::from(raw.length), "byte");
        (format!("{}, {}", raw.kind, raw.length), format!("{}; {bytes} of payload", raw.kind_name()))
    });
    fields.word("ordinal", |ordinal| {
        let offset = base.map(|base| base.saturating_add(u64::from(ordinal)));
        let mark = if raw.kind == 3 { "the next record's; " } else { "" };
        (
            ordinal.to_string(),
            offset.map_or_else(String::new, |offset| {
                format!("{mark}offset {offset} = base {} + ordinal", base.unwrap_or(0))
            }),
        )
    });
    fields.word("lag", |lag| match lag {
        u32::MAX => ("none".to_string(), "says nothing about what was durable".to_string()),
        lag => (lag.to_string(), watermark(base, raw).unwrap_or_default()),
    });
    let mut list = std::mem::take(&mut fields.list);
    let start = position.saturating_add(HEADER_BYTES);
    let payload_end = start.saturating_add(u64::from(raw.length)).min(end);
    if payload_end > start {
        let note = if raw.kind == 3 { "a mark has none" } else { "" };
        let (value, note) = (output::count(payload_end - start, "byte"), note.to_string());
        list.push(Field { name: "payload", start, end: payload_end, value, note });
    }
    let padded = position.saturating_add(frame::frame_bytes(raw.length)).min(end);
    if padded > payload_end && payload_end >= start {
        let value = output::count(padded - payload_end, "byte");
        let note = "up to a multiple of 8; not under the checksum".to_string();
        list.push(Field { name: "padding", start: payload_end, end: padded, value, note });
    }
    list
}

/// What a lag says.
fn watermark(base: Option<u64>, raw: &Raw) -> Option<String> {
    let offset = base?.checked_add(u64::from(raw.ordinal))?;
    match offset.checked_sub(u64::from(raw.lag)) {
        Some(end) => Some(format!("watermark {end}: every record below was durable when this was written")),
        None => Some("further than the log goes back".to_string()),
    }
}

/// The checksum that the frame at `position` should have; none where its bytes cannot be read.
fn computed(store: &Store, position: u64, header: &[u8], raw: &Raw, seed: Seed) -> Option<u32> {
    let decoded = frame::decode_header(header.first_chunk::<16>()?)?;
    let mut hasher = crc32fast::Hasher::new();
    let mut at = position.saturating_add(HEADER_BYTES);
    let end = at.checked_add(u64::from(raw.length)).filter(|end| *end <= store.length())?;
    let mut buffer = vec![0; STEP.min(usize::try_from(raw.length).unwrap_or(STEP))];
    while at < end {
        let count = usize::try_from(end - at).unwrap_or(STEP).min(buffer.len());
        let piece = buffer.get_mut(..count)?;
        store.source.read(at, piece).ok()?;
        hasher.update(piece);
        at = at.saturating_add(count as u64);
    }
    let bytes = frame::encode_header(&decoded, PayloadChecksum::from_value(hasher.finalize()), seed);
    Some(word(&bytes))
}

/// The bytes of a frame that are shown: all, or the head and the tail of a long one.
fn shown(store: &Store, bytes: &Range<u64>, most: u64) -> Vec<Piece> {
    let piece = |range: Range<u64>| Piece { start: range.start, bytes: store.read(range) };
    if bytes.end.saturating_sub(bytes.start) <= HEADER_BYTES.saturating_add(most).saturating_add(8) {
        return vec![piece(bytes.clone())];
    }
    let half = (most / 2).next_multiple_of(8);
    let head = bytes.start..bytes.start.saturating_add(HEADER_BYTES).saturating_add(half);
    vec![piece(head), piece(bytes.end.saturating_sub(half)..bytes.end)]
}

/// A frame that the scanner took.
pub(super) fn valid(around: &Around<'_>, position: u64, header: &Header) -> Explained {
    let store = around.store;
    let offset = store.offset(header.ordinal);
    let bytes = position..position.saturating_add(header.frame_bytes());
    let what = match (header.kind, offset) {
        (Kind::Mark, _) => "a mark".to_string(),
        (_, Some(offset)) => format!("record {offset}"),
        (_, None) => format!("record with ordinal {} (the base is unknown)", header.ordinal),
    };
    let mut told = Explained::new("frame", format!("{what}: a valid frame"));
    told.valid = Some(true);
    told.offset = offset.filter(|_| header.kind.is_record());
    told.bytes = Some(bytes.clone());
    take_apart(around, &mut told, position, header.ordinal, bytes);
    if let (Some(batch), true) = (&around.walked.batch, header.kind.is_record()) {
        let number = header.ordinal.saturating_sub(batch.start).saturating_add(1);
        let of = batch.end.saturating_sub(batch.start).saturating_add(1);
        let records = |first, last: u32| match (store.offset(first), store.offset(last)) {
            (Some(first), Some(last)) => output::records(&(first..last.saturating_add(1))),
            _ => format!("ordinals {first}..{}", last.saturating_add(1)),
        };
        told.fact(
            "batch",
            match (of, around.walked.batch_ends) {
                (1, true) => "a batch of its own".to_string(),
                (_, true) => format!("number {number} of {of}: {}", records(batch.start, batch.end)),
                (_, false) => format!(
                    "number {number} of a batch that never ended ({} are there): no part of the log, unless it was proven",
                    records(batch.start, batch.end)
                ),
            },
        );
    }
    standing(around, &mut told, offset);
    told
}

/// Fields, bytes, and what must hold.
fn take_apart(around: &Around<'_>, told: &mut Explained, position: u64, wanted: u32, bytes: Range<u64>) {
    let store = around.store;
    let header = store.read(position..position.saturating_add(HEADER_BYTES));
    let raw = Raw::of(&header);
    let limit = store.length();
    let whole = header.len() as u64 == HEADER_BYTES;
    told.holds(whole, "16 bytes of header lie within the file");
    let kind = matches!(raw.kind, 1..=3) && (raw.kind != 3 || raw.length == 0);
    let fits = position.saturating_add(frame::frame_bytes(raw.length)) <= limit;
    let computed = store
        .seed()
        .filter(|_| whole && kind && fits)
        .and_then(|seed| computed(store, position, &header, &raw, seed));
    if whole {
        told.holds(kind, format!("kind {} is {}", raw.kind, raw.kind_name()));
        if kind {
            let end = position.saturating_add(frame::frame_bytes(raw.length));
            told.holds(fits, format!("header, payload and padding end at byte {end}, the file at {limit}"));
        }
    }
    checksum(around, told, position, &header, &raw, computed);
    let trusted = computed == Some(raw.stored);
    if trusted {
        told.holds(
            raw.ordinal == wanted,
            format!("ordinal {}, and {wanted} is the one that comes here", raw.ordinal),
        );
        if let Some(base) = store.base {
            let most = base.saturating_add(u64::from(raw.ordinal));
            told.holds(
                raw.lag == u32::MAX || u64::from(raw.lag) <= most,
                match raw.lag {
                    u32::MAX => "the lag says nothing".to_string(),
                    lag => format!("lag {lag} does not reach further back than offset {most} does"),
                },
            );
        }
    } else {
        told.not_asked(format!("ordinal: {wanted} is wanted here"));
    }
    let padding = position.saturating_add(HEADER_BYTES).saturating_add(u64::from(raw.length));
    let padding = store.read(padding..position.saturating_add(frame::frame_bytes(raw.length)));
    if trusted && !padding.is_empty() {
        match padding.iter().all(|byte| *byte == 0) {
            true => told.holds(true, "the padding is zeros"),
            false => told.not_asked("the padding is not zeros, and no part of the frame's checksum"),
        }
    }
    told.fields = fields(&header, position, &raw, computed, bytes.end.min(limit), store.base);
    told.shown = shown(store, &(bytes.start..bytes.end.min(limit)), around.most);
}

fn checksum(
    around: &Around<'_>,
    told: &mut Explained,
    position: u64,
    header: &[u8],
    raw: &Raw,
    computed: Option<u32>,
) {
    let store = around.store;
    let (Some(seed), Some(uuid)) = (store.seed(), store.uuid) else {
        told.not_asked("the checksum: nothing tells which log this is, and its seed needs that");
        return;
    };
    let salt =
        format!("seed 0x{:08x}, of log {} and segment {:x}", seed.value(), output::uuid(&uuid), store.id);
    match computed {
        Some(computed) if computed == raw.stored => {
            told.holds(true, format!("the checksum is 0x{computed:08x}, as stored ({salt})"));
        }
        Some(wrong) => {
            told.holds(
                false,
                format!("the checksum is 0x{wrong:08x}, and 0x{:08x} is stored ({salt})", raw.stored),
            );
            let head = store.found.head().filter(|head| head.id != store.id || head.uuid != uuid);
            if let Some(head) = head {
                let other = Seed::of_segment(&head.uuid, head.id);
                if self::computed(store, position, header, raw, other) == Some(raw.stored) {
                    told.fact("another's", format!("with the seed of the head's own segment {:x} it holds: this is that store's frame", head.id));
                }
            }
        }
        None => told.not_asked(format!("the checksum ({salt})")),
    }
}

/// Where it stands: before or behind the ends, the seal, the front.
pub(super) fn standing(around: &Around<'_>, told: &mut Explained, offset: Option<u64>) {
    let (sight, store) = (around.sight, around.store);
    if store.apart {
        told.fact("place", "no part of the log: this file is in quarantine, or no MANIFEST names it");
        return;
    }
    let Some(state) = sight.state() else {
        told.fact("place", "unknown: without a whole MANIFEST nothing tells what is part of the log");
        return;
    };
    let position = told.bytes.as_ref().map_or(0, |bytes| bytes.start);
    match store.state.as_ref().and_then(|state| state.seal) {
        Some(seal) => {
            let side = if position < seal.length { "before" } else { "behind, no part of the log" };
            told.fact(
                "seal",
                format!(
                    "{side}: segment {:x} is sealed at offset {}, byte {}",
                    store.id, seal.next_offset, seal.length
                ),
            );
        }
        None => told.fact("seal", format!("none: segment {:x} is not sealed", store.id)),
    }
    let (Some(offset), Some(assessment)) = (offset, sight.assessment()) else { return };
    if store.sealed_at().is_some_and(|sealed| position >= sealed) {
        return;
    }
    let (proven, valid) = (assessment.proven_end, assessment.valid_end);
    let proof = assessment.proof.describe(proven);
    if offset < state.front {
        told.fact("front", format!("below offset {}, where the log begins: truncated away", state.front));
    }
    if state.lost.contains(offset) {
        told.fact("lost", "a repair declared this record lost: reading it gives Error::Lost");
    }
    if state.damaged.contains(offset) {
        told.fact("declared", "an opening with DamagePolicy::Serve declared this record damaged");
    }
    let mark = told.kind == "frame" && told.offset.is_none();
    if offset < proven || (mark && offset <= proven) {
        told.fact("proven end", format!("{proven}, and this lies below: it was acknowledged ({proof})"));
    } else if offset < valid {
        told.fact(
            "proven end",
            format!("{proven}, and this does not lie below: whole, not proven acknowledged ({proof})"),
        );
    } else {
        told.fact("proven end", format!("{proven}, and this does not lie below ({proof})"));
    }
    if offset >= valid && offset >= proven && !mark {
        told.fact(
            "valid end",
            format!(
                "{valid}, and this does not lie below: behind the last whole batch, no record of the log"
            ),
        );
    }
}

/// Bytes where no valid frame is.
pub(super) fn hole(around: &Around<'_>, position: u64) -> Explained {
    let (store, walked) = (around.store, around.walked);
    let length = store.length();
    let hole = walked.hole(length);
    let written = walked.outcome.tail.as_ref().map_or(hole.start, |tail| tail.end);
    if walked.next.is_none() && position >= written.max(hole.start) {
        let bytes = written.max(hole.start)..length;
        let mut told = Explained::new(
            "zeros",
            format!("zeros, from byte {} to the end of the file: reserved space", bytes.start),
        );
        told.fact("length", format!("the file has {length} bytes; zeros are never a frame"));
        let from = position.next_multiple_of(16).saturating_sub(16).max(bytes.start);
        told.shown =
            vec![Piece { start: from, bytes: store.read(from..from.saturating_add(64).min(length)) }];
        told.bytes = Some(bytes);
        standing(around, &mut told, None);
        return told;
    }
    let header = store.read(hole.start..hole.start.saturating_add(HEADER_BYTES));
    let raw = Raw::of(&header);
    let is_kind = matches!(raw.kind, 1..=3) && (raw.kind != 3 || raw.length == 0);
    let claims = if is_kind { frame::frame_bytes(raw.length) } else { HEADER_BYTES };
    let end = hole.start.saturating_add(claims).min(hole.end.max(hole.start.saturating_add(HEADER_BYTES)));
    let missed = walked.missed();
    let offset = store.offset(missed);
    let named = offset.map_or_else(|| format!("ordinal {missed}"), |offset| format!("record {offset}"));
    if position < end || hole.start >= hole.end {
        let mut told = Explained::new("broken-frame", format!("no valid frame, where {named} should begin"));
        told.valid = Some(false);
        told.offset = offset;
        told.bytes = Some(hole.start..end.min(length));
        take_apart(around, &mut told, hole.start, missed, hole.start..end);
        told.valid = Some(told.all_hold() && store.seed().is_some()).filter(|holds| !holds).or(Some(false));
        behind(around, &mut told, &hole);
        standing(around, &mut told, offset);
        return told;
    }
    let mut told =
        Explained::new("hole", format!("no valid frame: bytes {}..{} hold none", hole.start, hole.end));
    told.valid = Some(false);
    told.bytes = Some(hole.clone());
    told.holds(
        false,
        format!(
            "the frame before should be {named}'s, at byte {}; nothing from there to here is one",
            hole.start
        ),
    );
    told.fact("begins", format!("see what broke: FILE:{}", hole.start));
    let from = (position - position % 16).max(hole.start);
    told.shown = vec![Piece {
        start: from,
        bytes: store.read(from..from.saturating_add(around.most.max(16)).min(hole.end)),
    }];
    behind(around, &mut told, &hole);
    standing(around, &mut told, offset);
    told
}

/// What follows a hole.
fn behind(around: &Around<'_>, told: &mut Explained, hole: &Range<u64>) {
    let (store, walked) = (around.store, around.walked);
    match walked.next {
        Some(next) => {
            let name = store.offset(next.header.ordinal);
            let name = name.map_or_else(
                || format!("ordinal {}", next.header.ordinal),
                |offset| format!("record {offset}"),
            );
            let missed = next.header.ordinal.saturating_sub(walked.missed());
            let missing = output::count(u64::from(missed), "record");
            told.fact(
                "behind it",
                format!("the next valid frame is at byte {}, {name}: {missing} missing between", hole.end),
            );
        }
        None => told.fact("behind it", "no valid frame follows in this file"),
    }
}

/// A store's head or base sector.
pub(super) fn sector(around: &Around<'_>, position: u64) -> Explained {
    let store = around.store;
    let is_head = position < BASE_POSITION;
    let bytes = if is_head { 0..BASE_POSITION } else { BASE_POSITION..FIRST_FRAME };
    let bytes = bytes.start..bytes.end.min(store.length());
    let all = store.read(bytes.clone());
    let mut told = if is_head { head(store, &all) } else { base(store, &all) };
    told.shown = vec![Piece { start: bytes.start, bytes: part(&all, 0, 64).to_vec() }];
    told.bytes = Some(bytes);
    if all.iter().skip(64).all(|byte| *byte == 0) {
        told.fact("rest", "zeros, to the end of the sector");
    } else {
        told.fact("rest", "bytes follow that are not zeros, and mean nothing");
    }
    told
}

fn head(store: &Store, bytes: &[u8]) -> Explained {
    let parsed = store.found.head();
    let mut told = Explained::new("head", format!("the head sector of segment {:x}'s store", store.id));
    let mut fields = Fields::of(bytes, 0);
    fields.take(8, "magic", |magic| (output::escaped(magic), String::new()));
    fields.word("version", plain);
    fields.word("origin", |origin| {
        let note = match origin {
            1 => "prepared for a roll",
            2 => "a copy that a recovery made",
            _ => "none in version 1",
        };
        (origin.to_string(), note.to_string())
    });
    fields.take(16, "log uuid", |bytes| {
        plain(bytes.first_chunk::<16>().map_or_else(String::new, output::uuid))
    });
    fields.long("segment id", |id| (format!("{id:x}"), String::new()));
    fields.long("created", |millis| (millis.to_string(), output::time(millis)));
    let sum = crc32fast::hash(part(bytes, 0, 48));
    fields.word("crc", |stored| {
        let note = if stored == sum { "as computed".to_string() } else { format!("computed 0x{sum:08x}") };
        (format!("0x{stored:08x}"), note)
    });
    told.fields = fields.list;
    told.holds(part(bytes, 0, 8) == b"STONELOG", "it begins with STONELOG");
    let stored = word(part(bytes, 48, 52));
    told.holds(sum == stored, format!("the checksum is 0x{sum:08x}, and 0x{stored:08x} is stored (no seed)"));
    if let Some(head) = parsed {
        told.holds(
            head.id == store.id,
            format!("it names segment {:x}, and the file segment {:x}", head.id, store.id),
        );
        if let Some(uuid) = store.uuid {
            told.holds(
                head.uuid == uuid,
                format!("it names log {}, and this one is {}", output::uuid(&head.uuid), output::uuid(&uuid)),
            );
        }
    } else {
        told.not_asked("which segment and log it names");
    }
    told.valid = Some(parsed.is_some() && told.all_hold());
    told.title += if told.valid == Some(true) { ": what was written" } else { ": not what was written" };
    told
}

fn base(store: &Store, bytes: &[u8]) -> Explained {
    let mut told = Explained::new("base", format!("the base sector of segment {:x}'s store", store.id));
    let mut fields = Fields::of(bytes, BASE_POSITION);
    fields.take(8, "magic", |magic| (output::escaped(magic), String::new()));
    fields.long("base", |base| (base.to_string(), "the offset of ordinal 0".to_string()));
    let sum = store.seed().map(|seed| {
        let mut hasher = crc32fast::Hasher::new_with_initial(crc32fast::hash(part(bytes, 0, 16)));
        hasher.update(&seed.value().to_le_bytes());
        hasher.finalize()
    });
    fields.word("crc", |stored| {
        let note = match sum {
            Some(sum) if sum == stored => "as computed".to_string(),
            Some(sum) => format!("computed 0x{sum:08x}"),
            None => String::new(),
        };
        (format!("0x{stored:08x}"), note)
    });
    told.fields = fields.list;
    if bytes.iter().all(|byte| *byte == 0) {
        told.title += ": zeros, not written yet or gone";
        told.fact(
            "meaning",
            "it is written with the first frames: zeros are right as long as there are none",
        );
        told.valid = store.base.is_some().then_some(false);
        return told;
    }
    told.holds(part(bytes, 0, 8) == b"STONBASE", "it begins with STONBASE");
    let stored = word(part(bytes, 16, 20));
    match (sum, store.seed()) {
        (Some(sum), Some(seed)) => told.holds(
            sum == stored,
            format!(
                "the checksum is 0x{sum:08x}, and 0x{stored:08x} is stored (seed 0x{:08x})",
                seed.value()
            ),
        ),
        _ => told.not_asked("the checksum: nothing tells which log this is"),
    }
    let known = store.state.as_ref().and_then(|state| state.base);
    if let (Some(known), Some(written)) = (known, store.found.base()) {
        told.holds(known == written, format!("it says {written}, and the MANIFEST {known}"));
    }
    told.valid = Some(store.found.base().is_some() && told.all_hold());
    told.title += if told.valid == Some(true) { ": what was written" } else { ": not what was written" };
    told
}

/// The words for a defect, where the scanner gave one.
pub(super) fn defect(defect: Option<Defect>) -> &'static str {
    defect.map_or("no frame", Defect::describe)
}
