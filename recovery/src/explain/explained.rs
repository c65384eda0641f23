//! What an explanation consists of: plain data, for a terminal and for JSON alike.
//!
//! It owns the shape, and how bytes become numbers in fields. It knows no format.

use std::ops::Range;

use serde::Serialize;

use crate::finding::Finding;

/// A piece of a file, taken apart.
#[derive(Debug, Default)]
pub(super) struct Explained {
    /// frame, broken-frame, hole, zeros, head, base, manifest-head, edit, broken-edit, index-head,
    /// index-entry, truncated, lost, missing, beyond-end, bytes.
    pub(super) kind: &'static str,
    /// The file's name in the log directory, where it is about one.
    pub(super) file: Option<String>,
    pub(super) segment: Option<u64>,
    /// The record, where it is one.
    pub(super) offset: Option<u64>,
    /// Where in the file it is.
    pub(super) bytes: Option<Range<u64>>,
    /// One line: what it is.
    pub(super) title: String,
    /// Whether it is what was written, as far as that can be told.
    pub(super) valid: Option<bool>,
    pub(super) fields: Vec<Field>,
    pub(super) reasons: Vec<Reason>,
    pub(super) facts: Vec<Fact>,
    /// The bytes that are shown.
    pub(super) shown: Vec<Piece>,
    /// What check says about it.
    pub(super) findings: Vec<Finding>,
    /// The next command.
    pub(super) next: String,
}

/// A named part of it.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) value: String,
    /// What that means.
    pub(super) note: String,
}

/// One of the things that must hold, and whether it does; none where it could not be asked.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Reason {
    pub(super) holds: Option<bool>,
    pub(super) what: String,
}

/// Something that is known of it.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Fact {
    pub(super) name: &'static str,
    pub(super) what: String,
}

/// Bytes of the file, from a position on.
#[derive(Debug, Clone)]
pub(super) struct Piece {
    pub(super) start: u64,
    pub(super) bytes: Vec<u8>,
}

impl Explained {
    pub(super) fn new(kind: &'static str, title: impl Into<String>) -> Explained {
        Explained { kind, title: title.into(), ..Explained::default() }
    }

    pub(super) fn holds(&mut self, holds: bool, what: impl Into<String>) {
        self.reasons.push(Reason { holds: Some(holds), what: what.into() });
    }

    pub(super) fn not_asked(&mut self, what: impl Into<String>) {
        self.reasons.push(Reason { holds: None, what: what.into() });
    }

    pub(super) fn fact(&mut self, name: &'static str, what: impl Into<String>) {
        self.facts.push(Fact { name, what: what.into() });
    }

    /// Whether nothing that was asked failed.
    pub(super) fn all_hold(&self) -> bool {
        self.reasons.iter().all(|reason| reason.holds != Some(false))
    }
}

/// Takes the fields of `bytes`, which begin at a position of a file, one behind the other.
pub(super) struct Fields<'a> {
    bytes: &'a [u8],
    start: u64,
    at: usize,
    pub(super) list: Vec<Field>,
}

impl<'a> Fields<'a> {
    pub(super) fn of(bytes: &'a [u8], start: u64) -> Fields<'a> {
        Fields { bytes, start, at: 0, list: Vec::new() }
    }

    /// Where the next field begins.
    pub(super) fn position(&self) -> u64 {
        self.start.saturating_add(self.at as u64)
    }

    /// The rest, which has no field yet.
    pub(super) fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.at..).unwrap_or(&[])
    }

    /// The next `count` bytes, fewer where there are fewer.
    pub(super) fn take(
        &mut self,
        count: usize,
        name: &'static str,
        tell: impl FnOnce(&[u8]) -> (String, String),
    ) {
        let rest = self.rest();
        let field = rest.get(..count).unwrap_or(rest);
        if field.is_empty() {
            return;
        }
        let (value, note) =
            if field.len() < count { ("cut short".to_string(), String::new()) } else { tell(field) };
        let start = self.position();
        self.list.push(Field { name, start, end: start.saturating_add(field.len() as u64), value, note });
        self.at += field.len();
    }

    pub(super) fn word(&mut self, name: &'static str, tell: impl FnOnce(u32) -> (String, String)) {
        self.take(4, name, |bytes| tell(word(bytes)));
    }

    pub(super) fn long(&mut self, name: &'static str, tell: impl FnOnce(u64) -> (String, String)) {
        self.take(8, name, |bytes| tell(long(bytes)));
    }
}

/// The first 4 bytes as a number, little-endian; 0 where there are fewer.
pub(super) fn word(bytes: &[u8]) -> u32 {
    bytes.first_chunk::<4>().map_or(0, |chunk| u32::from_le_bytes(*chunk))
}

/// The first 8 bytes as a number, little-endian; 0 where there are fewer.
pub(super) fn long(bytes: &[u8]) -> u64 {
    bytes.first_chunk::<8>().map_or(0, |chunk| u64::from_le_bytes(*chunk))
}

/// Bytes of `all` from `start` on, none where there are none.
pub(super) fn part(all: &[u8], start: usize, end: usize) -> &[u8] {
    all.get(start.min(all.len())..end.min(all.len())).unwrap_or(&[])
}

/// A value without a note.
pub(super) fn plain(value: impl ToString) -> (String, String) {
    (value.to_string(), String::new())
}
