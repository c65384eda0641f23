//! Edits: what the manifest says, one statement at a time, as bytes and back.
//!
//! It owns the encoding of an edit (the payload of one manifest frame). It does not know what the
//! edits add up to (`state`) or where they are kept (`file`). Invariant: decoding is total: every
//! byte string is an edit or an error, and nothing is allocated beyond the bytes at hand.
//!
//! Why hand-written and not serde: the format is fixed and documented byte for byte, and an
//! outsider must be able to read it from docs/FORMAT.md alone.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::error::Error;
use crate::names::{LARGEST_END, MAX_ID};

/// The longest key of a [`Edit::Meta`], in bytes.
pub const MAX_META_KEY_BYTES: usize = 255;
/// All named values together have at most this many bytes, keys included.
pub const MAX_META_BYTES: usize = 4 << 20;
/// The longest value of a [`Edit::Meta`], in bytes.
pub const MAX_META_VALUE_BYTES: usize = 64 << 10;

/// A segment that is born with frames (a recovery's copy): what was durable before it was named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Born {
    /// The offset behind its last record, all durable.
    pub durable_end: u64,
    /// The store's position behind its last frame.
    pub length: u64,
}

/// A segment's final shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seal {
    /// The offset behind its last record.
    pub next_offset: u64,
    /// The store's position behind its last frame: the file may be longer, never shorter.
    pub length: u64,
    /// When its first records were written, in milliseconds since the Unix epoch.
    pub first_millis: u64,
    /// When its last records were written, in milliseconds since the Unix epoch.
    pub last_millis: u64,
}

/// A clean end: everything durable, nothing poisoned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Close {
    /// The active store's position behind its last frame (0 where there is no active segment).
    pub length: u64,
    /// The offset the next record gets.
    pub next_offset: u64,
}

/// One statement of the manifest. Once fsynced, it *is* the change it states.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Edit {
    /// The first edit of every manifest: what never changes, and the highest id ever named.
    Init {
        /// The log's identity.
        uuid: [u8; 16],
        /// When the log was begun, in milliseconds since the Unix epoch.
        created_millis: u64,
        /// The first offset the log was begun with.
        first_offset: u64,
        /// The highest segment id ever named: ids are never used again.
        last_id: u64,
    },
    /// A segment exists from here on.
    Create {
        /// Its id.
        id: u64,
        /// Its base offset, where that is not the predecessor's end (or is known already).
        base: Option<u64>,
        /// What it was born with, where it was.
        born: Option<Born>,
    },
    /// A segment takes no more records; or, if it was sealed before, ends earlier now.
    Seal {
        /// Its id.
        id: u64,
        /// Its shape.
        seal: Seal,
    },
    /// A segment is no more. Its files go after this edit is durable.
    Drop {
        /// Its id.
        id: u64,
        /// Whether its store goes to `quarantine/`, as it holds bytes that recovery cut.
        quarantine: bool,
    },
    /// Records below this offset are no more.
    TruncateFront {
        /// The first offset that remains.
        offset: u64,
    },
    /// A clean end.
    Close(Close),
    /// Records that cannot be read, served as `Error::Damaged`.
    Damaged {
        /// Their offsets.
        offsets: Range<u64>,
    },
    /// Records that a repair gave up, served as `Error::Lost`.
    Lost {
        /// Their offsets.
        offsets: Range<u64>,
    },
    /// A small named value; none removes it.
    Meta {
        /// Its name.
        key: String,
        /// Its bytes.
        value: Option<Vec<u8>>,
    },
}

/// Why bytes are not an edit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EditDefect {
    /// The tag names no edit of this format version.
    #[error("tag {0} names no edit")]
    UnknownTag(u8),
    /// The bytes end inside a field.
    #[error("the edit is cut short")]
    Short,
    /// Bytes follow the last field.
    #[error("{0} bytes follow the edit")]
    Trailing(usize),
    /// A field has a value it cannot have.
    #[error("field {0} has an impossible value")]
    Field(&'static str),
}

const INIT: u8 = 1;
const CREATE: u8 = 2;
const SEAL: u8 = 3;
const DROP: u8 = 4;
const TRUNCATE_FRONT: u8 = 5;
const CLOSE: u8 = 6;
const DAMAGED: u8 = 7;
const LOST: u8 = 8;
const META: u8 = 9;

const HAS_BASE: u8 = 1;
const HAS_BORN: u8 = 2;
const QUARANTINE: u8 = 1;
const HAS_VALUE: u8 = 1;

impl Edit {
    /// The edit's bytes: a tag, a byte of flags, then the fields, little-endian.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(48);
        match self {
            Edit::Init { uuid, created_millis, first_offset, last_id } => {
                bytes.extend([INIT, 0]);
                bytes.extend(uuid);
                put(&mut bytes, &[*created_millis, *first_offset, *last_id]);
            }
            Edit::Create { id, base, born } => {
                let flags =
                    if base.is_some() { HAS_BASE } else { 0 } | if born.is_some() { HAS_BORN } else { 0 };
                bytes.extend([CREATE, flags]);
                put(&mut bytes, &[*id]);
                put(&mut bytes, base.as_slice());
                if let Some(born) = born {
                    put(&mut bytes, &[born.durable_end, born.length]);
                }
            }
            Edit::Seal { id, seal } => {
                bytes.extend([SEAL, 0]);
                put(&mut bytes, &[*id, seal.next_offset, seal.length, seal.first_millis, seal.last_millis]);
            }
            Edit::Drop { id, quarantine } => {
                bytes.extend([DROP, if *quarantine { QUARANTINE } else { 0 }]);
                put(&mut bytes, &[*id]);
            }
            Edit::TruncateFront { offset } => {
                bytes.extend([TRUNCATE_FRONT, 0]);
                put(&mut bytes, &[*offset]);
            }
            Edit::Close(close) => {
                bytes.extend([CLOSE, 0]);
                put(&mut bytes, &[close.length, close.next_offset]);
            }
            Edit::Damaged { offsets } => {
                bytes.extend([DAMAGED, 0]);
                put(&mut bytes, &[offsets.start, offsets.end]);
            }
            Edit::Lost { offsets } => {
                bytes.extend([LOST, 0]);
                put(&mut bytes, &[offsets.start, offsets.end]);
            }
            Edit::Meta { key, value } => {
                bytes.extend([META, if value.is_some() { HAS_VALUE } else { 0 }]);
                // The key was checked to fit one byte of length before it came here.
                bytes.push(u8::try_from(key.len()).unwrap_or(u8::MAX));
                bytes.extend(key.bytes().take(MAX_META_KEY_BYTES));
                bytes.extend(value.iter().flatten());
            }
        }
        bytes
    }

    /// Reads an edit.
    ///
    /// # Errors
    /// [`EditDefect`] when the bytes are no edit of this format version.
    pub fn decode(bytes: &[u8]) -> Result<Edit, EditDefect> {
        let mut fields = Fields(bytes);
        let [tag, flags] = fields.array::<2>()?;
        let allowed = match tag {
            CREATE => HAS_BASE | HAS_BORN,
            DROP => QUARANTINE,
            META => HAS_VALUE,
            _ => 0,
        };
        if flags & !allowed != 0 {
            return Err(EditDefect::Field("flags"));
        }
        let edit = match tag {
            INIT => Edit::Init {
                uuid: fields.array()?,
                created_millis: fields.number()?,
                first_offset: fields.offset()?,
                last_id: fields.number()?,
            },
            CREATE => Edit::Create {
                id: fields.number()?,
                base: if flags & HAS_BASE != 0 { Some(fields.offset()?) } else { None },
                born: if flags & HAS_BORN != 0 {
                    Some(Born { durable_end: fields.offset()?, length: fields.number()? })
                } else {
                    None
                },
            },
            SEAL => Edit::Seal {
                id: fields.number()?,
                seal: Seal {
                    next_offset: fields.offset()?,
                    length: fields.number()?,
                    first_millis: fields.number()?,
                    last_millis: fields.number()?,
                },
            },
            DROP => Edit::Drop { id: fields.number()?, quarantine: flags & QUARANTINE != 0 },
            TRUNCATE_FRONT => Edit::TruncateFront { offset: fields.offset()? },
            CLOSE => Edit::Close(Close { length: fields.number()?, next_offset: fields.offset()? }),
            DAMAGED => Edit::Damaged { offsets: fields.range()? },
            LOST => Edit::Lost { offsets: fields.range()? },
            META => {
                let [length] = fields.array::<1>()?;
                let key = fields.take(usize::from(length))?;
                let key = String::from_utf8(key.to_vec()).map_err(|_| EditDefect::Field("key"))?;
                let rest = std::mem::take(&mut fields.0);
                if rest.len() > MAX_META_VALUE_BYTES || (flags & HAS_VALUE == 0 && !rest.is_empty()) {
                    return Err(EditDefect::Field("value"));
                }
                Edit::Meta { key, value: (flags & HAS_VALUE != 0).then(|| rest.to_vec()) }
            }
            other => return Err(EditDefect::UnknownTag(other)),
        };
        let id = match &edit {
            Edit::Init { last_id: id, .. } | Edit::Create { id, .. } => *id,
            _ => 0,
        };
        if id > MAX_ID {
            return Err(EditDefect::Field("id"));
        }
        if fields.0.is_empty() { Ok(edit) } else { Err(EditDefect::Trailing(fields.0.len())) }
    }
}

fn put(bytes: &mut Vec<u8>, numbers: &[u64]) {
    for number in numbers {
        bytes.extend(number.to_le_bytes());
    }
}

/// Refuses a named value that no edit can hold.
pub(crate) fn check_meta_size(key: &str, value: Option<&[u8]>) -> Result<(), Error> {
    within("metadata key", key.len(), MAX_META_KEY_BYTES)?;
    within("metadata value", value.map_or(0, <[u8]>::len), MAX_META_VALUE_BYTES)
}

/// Refuses a named value that, beside those in `meta`, would be more than a log holds.
pub(crate) fn check_meta_total(
    meta: &BTreeMap<String, Vec<u8>>,
    key: &str,
    value: Option<&[u8]>,
) -> Result<(), Error> {
    let kept = meta.iter().filter(|(other, _)| *other != key).map(|(key, value)| key.len() + value.len());
    within("metadata", kept.sum::<usize>() + key.len() + value.map_or(0, <[u8]>::len), MAX_META_BYTES)
}

fn within(what: &'static str, bytes: usize, limit: usize) -> Result<(), Error> {
    if bytes <= limit {
        return Ok(());
    }
    Err(Error::TooLarge { what, bytes: bytes as u64, limit: limit as u64 })
}

struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], EditDefect> {
        let (field, rest) = self.0.split_at_checked(count).ok_or(EditDefect::Short)?;
        self.0 = rest;
        Ok(field)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], EditDefect> {
        let (field, rest) = self.0.split_first_chunk::<N>().ok_or(EditDefect::Short)?;
        self.0 = rest;
        Ok(*field)
    }

    fn number(&mut self) -> Result<u64, EditDefect> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    fn offset(&mut self) -> Result<u64, EditDefect> {
        let offset = self.number()?;
        if offset <= LARGEST_END { Ok(offset) } else { Err(EditDefect::Field("offset")) }
    }

    fn range(&mut self) -> Result<Range<u64>, EditDefect> {
        let (start, end) = (self.offset()?, self.offset()?);
        if start < end { Ok(start..end) } else { Err(EditDefect::Field("offsets")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::property;
    use proptest::prelude::*;

    fn edits() -> impl Strategy<Value = Edit> {
        let range = (any::<u32>(), 1u64..1000).prop_map(|(a, n)| u64::from(a)..u64::from(a) + n);
        let offset = || 0..=LARGEST_END;
        prop_oneof![
            (any::<([u8; 16], u64)>(), offset(), 0..=MAX_ID).prop_map(
                |((uuid, created_millis), first_offset, last_id)| {
                    Edit::Init { uuid, created_millis, first_offset, last_id }
                }
            ),
            (
                0..=MAX_ID,
                prop::option::of(offset()),
                prop::option::of(
                    (offset(), any::<u64>()).prop_map(|(durable_end, length)| Born { durable_end, length })
                )
            )
                .prop_map(|(id, base, born)| Edit::Create { id, base, born }),
            (offset(), any::<(u64, u64, u64, u64)>()).prop_map(
                |(next_offset, (id, length, first_millis, last_millis))| Edit::Seal {
                    id,
                    seal: Seal { next_offset, length, first_millis, last_millis }
                }
            ),
            any::<(u64, bool)>().prop_map(|(id, quarantine)| Edit::Drop { id, quarantine }),
            offset().prop_map(|offset| Edit::TruncateFront { offset }),
            (any::<u64>(), offset())
                .prop_map(|(length, next_offset)| Edit::Close(Close { length, next_offset })),
            range.clone().prop_map(|offsets| Edit::Damaged { offsets }),
            range.prop_map(|offsets| Edit::Lost { offsets }),
            ("[a-zé]{0,40}", any::<Option<Vec<u8>>>()).prop_map(|(key, value)| Edit::Meta { key, value }),
        ]
    }

    proptest! {
        #![proptest_config(property::config(256, Some(
            concat!(env!("CARGO_MANIFEST_DIR"), "/proptest-regressions/manifest_edit.txt"))))]
        #[test]
        fn what_is_encoded_is_decoded(edit in edits()) {
            prop_assert_eq!(Edit::decode(&edit.encode()), Ok(edit));
        }

        #[test]
        fn hostile_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            if let Ok(edit) = Edit::decode(&bytes) {
                prop_assert_eq!(edit.encode(), bytes);
            }
        }

        #[test]
        fn a_cut_edit_is_refused(edit in edits().prop_filter("values may be cut", |e| !matches!(e, Edit::Meta { .. }))) {
            let bytes = edit.encode();
            for end in 0..bytes.len() {
                prop_assert!(Edit::decode(&bytes[..end]).is_err());
            }
        }
    }
}
