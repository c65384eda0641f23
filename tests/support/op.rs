//! Operations on a log in a simulated world: what they are, how they are drawn, and their text form, so
//! that a failing world can be printed, replayed and kept as a regression.

use std::fmt;
use std::str::FromStr;

pub use super::dice::Dice;

/// One operation. Sizes and places are chosen small, so that segments roll all the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    Append(u16),
    Batch(u8, u16),
    Submit(u16),
    Sync,
    /// Truncate the front at this share (of 8) of the log's span; 9 is beyond the end.
    TruncateFront(u8),
    /// Truncate the back at this share (of 8) of the log's span.
    TruncateBack(u8),
    PutMeta(u8, u8),
    /// Close cleanly and open again.
    Reopen,
    /// The process dies, the machine goes on; the log is opened again.
    Kill,
    /// The power fails, and each unsynced change survives or not by this seed; the log is opened again.
    PowerCut(u16),
    /// The n-th call of this kind from now on fails.
    Fault(FaultKind, u8),
    /// The disk has room for this many more pages of 4096 bytes.
    Fill(u8),
    /// The disk has room again, and faults that did not strike are called off.
    Heal,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultKind {
    Read,
    Write,
    ShortWrite,
    Sync,
    SyncDir,
    Rename,
    /// `EINTR` from a sync.
    Interrupted,
    /// `ENOSPC` from a write that had its space reserved.
    Full,
}

const FAULTS: [(FaultKind, &str); 8] = [
    (FaultKind::Read, "read"),
    (FaultKind::Write, "write"),
    (FaultKind::ShortWrite, "short"),
    (FaultKind::Sync, "sync"),
    (FaultKind::SyncDir, "syncdir"),
    (FaultKind::Rename, "rename"),
    (FaultKind::Interrupted, "eintr"),
    (FaultKind::Full, "enospc"),
];

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Op::Append(length) => write!(f, "append:{length}"),
            Op::Batch(count, length) => write!(f, "batch:{count}:{length}"),
            Op::Submit(length) => write!(f, "submit:{length}"),
            Op::Sync => f.write_str("sync"),
            Op::TruncateFront(eighths) => write!(f, "front:{eighths}"),
            Op::TruncateBack(eighths) => write!(f, "back:{eighths}"),
            Op::PutMeta(key, value) => write!(f, "meta:{key}:{value}"),
            Op::Reopen => f.write_str("reopen"),
            Op::Kill => f.write_str("kill"),
            Op::PowerCut(seed) => write!(f, "cut:{seed}"),
            Op::Fault(kind, nth) => {
                let name = FAULTS.iter().find(|(other, _)| other == kind).map_or("?", |(_, name)| name);
                write!(f, "fault:{name}:{nth}")
            }
            Op::Fill(pages) => write!(f, "fill:{pages}"),
            Op::Heal => f.write_str("heal"),
        }
    }
}

impl FromStr for Op {
    type Err = String;

    fn from_str(text: &str) -> Result<Op, String> {
        let wrong = || format!("no operation: {text:?}");
        let parts: Vec<&str> = text.split(':').collect();
        let number = |at: usize| parts.get(at).and_then(|part| part.parse::<u16>().ok()).ok_or_else(wrong);
        let small = |at: usize| number(at).and_then(|number| u8::try_from(number).map_err(|_| wrong()));
        Ok(match parts[0] {
            "append" => Op::Append(number(1)?),
            "batch" => Op::Batch(small(1)?, number(2)?),
            "submit" => Op::Submit(number(1)?),
            "sync" => Op::Sync,
            "front" => Op::TruncateFront(small(1)?),
            "back" => Op::TruncateBack(small(1)?),
            "meta" => Op::PutMeta(small(1)?, small(2)?),
            "reopen" => Op::Reopen,
            "kill" => Op::Kill,
            "cut" => Op::PowerCut(number(1)?),
            "fault" => {
                let kind = FAULTS.iter().find(|(_, name)| parts.get(1) == Some(name)).ok_or_else(wrong)?.0;
                Op::Fault(kind, small(2)?)
            }
            "fill" => Op::Fill(small(1)?),
            "heal" => Op::Heal,
            _ => return Err(wrong()),
        })
    }
}

/// Draws operations.
impl Dice {
    pub fn op(&mut self) -> Op {
        let length = match self.roll(8) {
            0 => 0,
            1 => 1500,
            _ => self.roll(300) as u16,
        };
        match self.roll(20) {
            0..=5 => Op::Append(length),
            6..=7 => Op::Batch(2 + self.roll(4) as u8, length),
            8..=11 => Op::Submit(length),
            12 => Op::Sync,
            13 => Op::TruncateFront(self.roll(10) as u8),
            14 => Op::TruncateBack(self.roll(9) as u8),
            15 => Op::PutMeta(self.roll(3) as u8, self.roll(250) as u8),
            16 => Op::Reopen,
            17 => Op::Kill,
            _ => Op::Append(length / 4),
        }
    }

    pub fn ops(&mut self, count: usize) -> Vec<Op> {
        (0..count).map(|_| self.op()).collect()
    }
}
