//! What the records say: each one names itself, and its bytes follow from its name.
//!
//! So whoever reads a record knows who appended it, as which one, and whether a byte is wrong, without
//! having been told. Pure.

use std::fmt;
use std::str::FromStr;

use crate::dice::Dice;

/// Which record this is; its bytes follow from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Name {
    /// The opening in which it was appended, over all rounds of a run.
    pub life: u32,
    pub thread: u32,
    /// The record's number among its thread's.
    pub number: u32,
    /// Which one of how many in its batch.
    pub index: u32,
    pub batch: u32,
}

impl Name {
    pub fn alone(life: u32, thread: u32, number: u32) -> Name {
        Name { life, thread, number, index: 0, batch: 1 }
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = format!("{self}|").into_bytes();
        let mut dice =
            Dice(u64::from(self.life) << 40 ^ u64::from(self.thread) << 32 ^ u64::from(self.number));
        let length = if dice.one_in(60) { dice.below(6_000) } else { dice.below(500) };
        bytes.extend((0..length).map(|_| dice.next() as u8));
        bytes
    }

    /// The name in a record, if all its bytes are what that name's bytes are.
    pub fn of(bytes: &[u8]) -> Option<Name> {
        let end = bytes.iter().position(|byte| *byte == b'|')?;
        let name: Name = std::str::from_utf8(&bytes[..end]).ok()?.parse().ok()?;
        (name.bytes() == bytes).then_some(name)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}.{}.{}", self.life, self.thread, self.number, self.index, self.batch)
    }
}

impl FromStr for Name {
    type Err = ();

    fn from_str(text: &str) -> Result<Name, ()> {
        let numbers: Result<Vec<u32>, _> = text.split('.').map(str::parse).collect();
        match numbers.map_err(drop)?[..] {
            [life, thread, number, index, batch] => Ok(Name { life, thread, number, index, batch }),
            _ => Err(()),
        }
    }
}
