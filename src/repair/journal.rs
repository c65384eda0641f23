//! The journal of a repair, as bytes and back. Pure.
//!
//! It owns the list of files that are moved out of the log directory and of those that are put in. It
//! does not know why. Invariant: what is parsed names only files that a log directory can hold, each
//! at most once: a hostile journal moves nothing else.
//!
//! Why text: whoever finds a half-repaired log at three in the morning can read it.

use std::collections::BTreeSet;

use crate::manifest;
use crate::names;

/// A longer journal is refused: it is read whole.
pub(crate) const MAX_BYTES: u64 = 16 << 20;

const TITLE: &str = "stonelog repair journal, version 1";

/// A file that a repair puts in place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PutIn {
    pub(crate) name: String,
    /// Its length in bytes.
    pub(crate) length: u64,
    /// The CRC-32 of its bytes, where it is small enough to be read whole at once: the MANIFEST.
    pub(crate) checksum: Option<u32>,
}

/// What a repair does to the directory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Journal {
    /// Files that are moved out, in order.
    pub(crate) out: Vec<String>,
    /// Files that are put in, in order, once all are out.
    pub(crate) put_in: Vec<PutIn>,
    /// The length of the ballast that had to go to make room, to be laid in again by an undo.
    pub(crate) ballast: Option<u64>,
}

impl Journal {
    /// The journal's bytes: a line for each file, and the CRC-32 of all lines before in the last.
    pub(crate) fn encode(&self) -> String {
        let mut text = format!("{TITLE}\n");
        for name in &self.out {
            text += &format!("out {name}\n");
        }
        for file in &self.put_in {
            let checksum = file.checksum.map_or("-".to_string(), |crc| format!("{crc:08x}"));
            text += &format!("in {} {} {checksum}\n", file.name, file.length);
        }
        if let Some(length) = self.ballast {
            text += &format!("ballast {length}\n");
        }
        let checksum = crc32fast::hash(text.as_bytes());
        text + &format!("end {checksum:08x}\n")
    }

    /// Reads a journal; the error says what is wrong with it.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Journal, String> {
        let text = str::from_utf8(bytes).map_err(|_| "it is no text".to_string())?;
        let (body, end) = text
            .strip_suffix('\n')
            .and_then(|text| text.rfind('\n').and_then(|at| text.split_at_checked(at + 1)))
            .ok_or("it is cut short")?;
        let checksum = end.strip_prefix("end ").and_then(|hex| u32::from_str_radix(hex, 16).ok());
        if checksum != Some(crc32fast::hash(body.as_bytes())) {
            return Err("its checksum does not hold".to_string());
        }
        let mut lines = body.lines();
        if lines.next() != Some(TITLE) {
            return Err("it is none of this version".to_string());
        }
        let mut journal = Journal::default();
        let (mut outs, mut ins) = (BTreeSet::new(), BTreeSet::new());
        for line in lines {
            let words: Vec<&str> = line.split(' ').collect();
            match words.as_slice() {
                ["out", name] if is_ours(name) && outs.insert(*name) => {
                    journal.out.push((*name).to_string());
                }
                ["in", name, length, checksum] if is_ours(name) && ins.insert(*name) => {
                    let length = length.parse().map_err(|_| format!("no length in {line:?}"))?;
                    let checksum = match *checksum {
                        "-" => None,
                        hex => Some(u32::from_str_radix(hex, 16).map_err(|_| format!("no CRC in {line:?}"))?),
                    };
                    journal.put_in.push(PutIn { name: (*name).to_string(), length, checksum });
                }
                ["ballast", length] => {
                    journal.ballast = Some(length.parse().map_err(|_| format!("no length in {line:?}"))?);
                }
                _ => return Err(format!("{line:?} is no line of it")),
            }
        }
        Ok(journal)
    }
}

/// Whether a repair may touch a file of this name.
fn is_ours(name: &str) -> bool {
    name == manifest::FILE_NAME
        || names::id_of_store(name).is_some()
        || names::id_of_index(name).is_some()
        || names::id_of_unfinished_index(name).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Journal {
        let put = |name: &str, checksum| PutIn { name: name.to_string(), length: 65536, checksum };
        Journal {
            out: vec!["MANIFEST".to_string(), names::store(3), format!("{:016x}.index.next", 4)],
            put_in: vec![put("MANIFEST", Some(0xfeed)), put(&names::store(5), None)],
            ballast: Some(8192),
        }
    }

    #[test]
    fn what_is_written_is_read() {
        for journal in [example(), Journal::default()] {
            assert_eq!(Journal::parse(journal.encode().as_bytes()), Ok(journal));
        }
    }

    /// G9. No prefix and no changed byte is taken for a journal.
    #[test]
    fn a_journal_that_was_not_written_is_none() {
        let bytes = example().encode().into_bytes();
        for end in 0..bytes.len() {
            assert!(Journal::parse(&bytes[..end]).is_err(), "cut at {end}");
        }
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert!(Journal::parse(&changed).is_err(), "byte {at} changed");
        }
    }

    /// G9. A journal with a valid checksum names files of the log alone.
    #[test]
    fn a_hostile_journal_leads_nowhere_else() {
        for name in
            ["../precious", "/etc/passwd", "LOCK", "a b", "", "quarantine/x", "0000000000000003.store/x"]
        {
            let journal = Journal { out: vec![name.to_string()], ..Journal::default() };
            assert!(Journal::parse(journal.encode().as_bytes()).is_err(), "{name:?}");
        }
        let twice = Journal { out: vec![names::store(1), names::store(1)], ..Journal::default() };
        assert!(Journal::parse(twice.encode().as_bytes()).is_err());
    }
}
