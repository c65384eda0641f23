//! An index file: its head, or the entry that a position lies in.
//!
//! It owns the arithmetic of docs/FORMAT.md's three forms, for one entry. An index is derived, so
//! what counts is whether the frame it leads to is the record's: the store is asked.

use std::io;
use std::path::Path;
use std::sync::Arc;

use stonelog::disk::{self, Disk, DiskFile, OpenMode};
use stonelog::names;

use super::explained::{Explained, Fields, Piece, long, part, plain, word};
use super::sight::{Store, Wanted};
use crate::output;

const HEAD: u64 = 64;
/// How much of the body is hashed at once.
const STEP: usize = 1 << 20;
const FIXED: u32 = 1;
const BLOCKED: u32 = 2;
const WIDE: u32 = 3;
/// Records of a block.
const BLOCK: u64 = 64;

struct Head {
    form: u32,
    id: u64,
    seed: u32,
    count: u32,
    length: u64,
    body_sum: u32,
}

/// Explains the byte at `position` of segment `id`'s index.
pub(super) fn explain(
    disk: &dyn Disk,
    directory: &Path,
    id: u64,
    store: Option<&Store>,
    position: u64,
) -> io::Result<Explained> {
    let file = disk.open(&directory.join(names::index(id)), OpenMode::Read)?;
    let length = file.length()?;
    let mut head_bytes = vec![0; 64];
    let got = disk::read_up_to(file.as_ref(), &mut head_bytes, 0)?;
    head_bytes.truncate(got);
    let head = Head {
        form: word(part(&head_bytes, 12, 16)),
        id: long(part(&head_bytes, 16, 24)),
        seed: word(part(&head_bytes, 24, 28)),
        count: word(part(&head_bytes, 28, 32)),
        length: long(part(&head_bytes, 32, 40)),
        body_sum: word(part(&head_bytes, 48, 52)),
    };
    let mut told = if position < HEAD {
        of_head(&file, length, &head_bytes, &head, id, store)?
    } else if position >= length {
        Explained::new("beyond-end", format!("byte {position} is beyond the end of the index, {length}"))
    } else {
        of_entry(&file, length, &head, store, position)?
    };
    told.file = Some(names::index(id));
    told.segment = Some(id);
    told.fact("index", "derived from its store, never the truth: one that is wrong is built anew");
    Ok(told)
}

fn of_head(
    file: &Arc<dyn DiskFile>,
    length: u64,
    bytes: &[u8],
    head: &Head,
    id: u64,
    store: Option<&Store>,
) -> io::Result<Explained> {
    let mut told = Explained::new("index-head", format!("the head of segment {id:x}'s index"));
    let mut fields = Fields::of(bytes, 0);
    fields.take(8, "magic", |magic| (output::escaped(magic), String::new()));
    fields.word("version", plain);
    fields.word("form", |form| {
        let note = match form {
            FIXED => "fixed: every frame has the same size, no body",
            BLOCKED => "blocked: 2 bytes a record against a base for every 64",
            WIDE => "wide: 4 bytes a record",
            _ => "none in version 1",
        };
        (form.to_string(), note.to_string())
    });
    fields.long("segment id", |id| (format!("{id:x}"), String::new()));
    fields.word("seed", |seed| plain(format!("0x{seed:08x}")));
    fields.word("count", |count| (count.to_string(), "records".to_string()));
    fields.long("store length", |length| (length.to_string(), "as its Seal or Close states it".to_string()));
    fields.word("first", plain);
    fields.word("stride", plain);
    fields.word("body crc", |crc| plain(format!("0x{crc:08x}")));
    fields.take(8, "unused", |bytes| plain(output::hex(bytes)));
    fields.word("crc", |crc| plain(format!("0x{crc:08x}")));
    told.fields = fields.list;
    told.holds(part(bytes, 0, 8) == b"STONEIDX", "it begins with STONEIDX");
    let (sum, stored) = (crc32fast::hash(part(bytes, 0, 60)), word(part(bytes, 60, 64)));
    told.holds(sum == stored, format!("the head's checksum is 0x{sum:08x}, and 0x{stored:08x} is stored"));
    let body = body_sum(file, length)?;
    told.holds(
        body == head.body_sum,
        format!("the body's checksum is 0x{body:08x}, and 0x{:08x} is stored", head.body_sum),
    );
    told.holds(head.id == id, format!("it names segment {:x}, and the file segment {id:x}", head.id));
    if let Some(seed) = store.and_then(Store::seed) {
        told.holds(
            seed.value() == head.seed,
            format!("its seed is 0x{:08x}, and the store's 0x{:08x}", head.seed, seed.value()),
        );
    }
    let seal = store.and_then(|store| store.state.as_ref()?.seal.zip(store.base));
    if let Some((seal, base)) = seal {
        let records = seal.next_offset.saturating_sub(base);
        told.holds(
            u64::from(head.count) == records,
            format!("it counts {} records, and the Seal {records}", head.count),
        );
        told.holds(
            head.length == seal.length,
            format!("it states a store of {} bytes, and the Seal {}", head.length, seal.length),
        );
    }
    told.valid = Some(told.all_hold() && bytes.len() == 64);
    told.bytes = Some(0..HEAD.min(length));
    told.shown = vec![Piece { start: 0, bytes: bytes.to_vec() }];
    Ok(told)
}

fn body_sum(file: &Arc<dyn DiskFile>, length: u64) -> io::Result<u32> {
    let mut hasher = crc32fast::Hasher::new();
    let mut buffer = vec![0; STEP.min(usize::try_from(length).unwrap_or(STEP)).max(1)];
    let mut at = HEAD;
    loop {
        let got = disk::read_up_to(file.as_ref(), &mut buffer, at)?;
        if got == 0 {
            return Ok(hasher.finalize());
        }
        hasher.update(part(&buffer, 0, got));
        at = at.saturating_add(got as u64);
    }
}

fn of_entry(
    file: &Arc<dyn DiskFile>,
    length: u64,
    head: &Head,
    store: Option<&Store>,
    position: u64,
) -> io::Result<Explained> {
    let read = |at: u64, count: usize| -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; count];
        let got = disk::read_up_to(file.as_ref(), &mut bytes, at)?;
        bytes.truncate(got);
        Ok(bytes)
    };
    let blocks = u64::from(head.count).div_ceil(BLOCK);
    let entries = HEAD.saturating_add(blocks.saturating_mul(4));
    let into = position.saturating_sub(HEAD);
    // The entry's bytes, which record's it is, and the unit that it says.
    let (start, size, record, unit) = match head.form {
        BLOCKED if position < entries => {
            let start = position - into % 4;
            let base = word(&read(start, 4)?);
            let mut told = Explained::new(
                "index-entry",
                format!("the base of records {}..{}", into / 4 * BLOCK, (into / 4 + 1) * BLOCK),
            );
            let note = format!(
                "the lowest unit of 8 bytes in the block: byte {}",
                u64::from(base).saturating_mul(8)
            );
            told.bytes = Some(start..start.saturating_add(4).min(length));
            let bytes = read(start, 4)?;
            let mut fields = Fields::of(&bytes, start);
            fields.word("block base", |base| (base.to_string(), note));
            told.fields = fields.list;
            told.shown = vec![Piece { start, bytes }];
            return Ok(told);
        }
        BLOCKED => {
            let start = position - (position - entries) % 2;
            let record = (start - entries) / 2;
            let base = word(&read(HEAD.saturating_add(record / BLOCK * 4), 4)?);
            let own = read(start, 2)?.first_chunk::<2>().map_or(0, |bytes| u16::from_le_bytes(*bytes));
            (start, 2, record, u64::from(base).saturating_add(u64::from(own)))
        }
        WIDE => {
            let start = position - into % 4;
            (start, 4, into / 4, u64::from(word(&read(start, 4)?)))
        }
        _ => {
            let mut told =
                Explained::new("bytes", "bytes behind the head of an index whose form has no body");
            told.shown = vec![Piece { start: position, bytes: read(position, 64)? }];
            told.bytes = Some(position..length);
            return Ok(told);
        }
    };
    if record >= u64::from(head.count) {
        let mut told = Explained::new("zeros", "padding behind the last entry of an index");
        told.bytes = Some(start..length);
        told.shown = vec![Piece { start, bytes: read(start, 16)? }];
        return Ok(told);
    }
    let target = unit.saturating_mul(8);
    let mut told = Explained::new(
        "index-entry",
        format!("the entry of ordinal {record}: its frame is at byte {target} of the store"),
    );
    let bytes = read(start, size)?;
    told.bytes = Some(start..start.saturating_add(size as u64).min(length));
    let mut fields = Fields::of(&bytes, start);
    fields.take(size, "entry", |bytes| {
        let value = if bytes.len() == 2 {
            u32::from(bytes.first_chunk::<2>().map_or(0, |b| u16::from_le_bytes(*b)))
        } else {
            word(bytes)
        };
        (value.to_string(), format!("unit {unit} of 8 bytes: byte {target}"))
    });
    told.fields = fields.list;
    told.shown = vec![Piece { start, bytes }];
    let ordinal = u32::try_from(record).ok();
    if unit == 0 {
        told.fact("meaning", "unit 0: no intact frame carried this record when the index was written");
    } else if let (Some(store), Some(ordinal)) = (store, ordinal) {
        told.offset = store.offset(ordinal);
        let frame = store.walk(Wanted::Ordinal(ordinal)).and_then(|walked| walked.frame);
        match frame {
            Some(frame) => told.holds(
                frame.position == target,
                format!("the frame of ordinal {ordinal} is at byte {}", frame.position),
            ),
            None => told.not_asked(format!("the store has no valid frame of ordinal {ordinal}")),
        }
    }
    told.valid = Some(told.all_hold());
    Ok(told)
}
