//! How sure a finding is, and why: pure, one row for each code.
//!
//! It owns the three words and the reasons. It does not know what a particular finding rests on (that is
//! its `proof`): here is what a proof of that kind is worth. Where one is worth less than usual, whoever
//! makes the finding says so ([`Finding::only`](crate::finding::Finding::only)).
//!
//! Invariant: every code has a row, and none says more than GUARANTEES grants.
//!
//! Why said at all: at three in the morning "a tear" and "a tear, as far as anything can tell" are two
//! things. The one needs nothing, the other a look at what the program was told.

use crate::finding::Code;

/// How sure it is that a finding is what its code says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Sure {
    /// The evidence excludes everything else that the format allows.
    Certain,
    /// Everything points to it; what else it could be is named.
    Likely,
    /// It may be so; look again, or elsewhere, before acting on it.
    Possible,
}

impl Sure {
    /// The word.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Sure::Certain => "certain",
            Sure::Likely => "likely",
            Sure::Possible => "possible",
        }
    }
}

/// What findings of this code are worth, and why.
pub(crate) const fn of(code: Code) -> (Sure, &'static str) {
    use Sure::{Certain, Likely};
    match code {
        Code::Manifest => (Certain, "no crash leaves a MANIFEST like this: it is replaced whole"),
        Code::ManifestMissing => (Certain, "a MANIFEST is durable before any store is made"),
        Code::ManifestEdit => (Likely, "a store put back from a later copy of the log would look the same"),
        Code::SegmentMissing => (Certain, "a store is durable before the MANIFEST names it"),
        Code::SegmentShort => (Certain, "a store is durable before it is sealed, and never shortened after"),
        Code::Head | Code::Base => (Certain, "the sector's checksum fails, or it names another store"),
        Code::FrameChecksum | Code::FrameHeader | Code::FrameZeros | Code::FrameOrdinal => {
            (Certain, "it lies below an end that surviving evidence proves durable: no crash leaves that")
        }
        Code::Gap => {
            (Certain, "an end beyond these records is proven durable, and every store was looked at")
        }
        Code::Unreadable => {
            (Likely, "the disk said so this time: another attempt, cable or machine may read it")
        }
        Code::Declared => (Likely, "an earlier opening found it; it was not found again"),
        Code::TailTorn => (
            Likely,
            "the very last acknowledged records look the same when damaged and nothing came after them",
        ),
        Code::TailStray => (Certain, "the Close states where the log ends"),
        Code::ManifestTorn => {
            (Likely, "the very last acknowledged edit looks the same when damaged and nothing came after it")
        }
        Code::Index => (Certain, "the index was compared with the frames of its store"),
        Code::IndexMissing => (Certain, "an index is durable before its segment is sealed"),
        Code::Unnamed => (Certain, "the MANIFEST was read whole, and does not name it"),
        Code::Unclean => (Certain, "a clean close is the MANIFEST's last edit"),
        Code::InUse => (Likely, "the lock was held when it was looked at; that may have ended since"),
        Code::Changed => (Certain, "two looks differ"),
        Code::Unfinished => (Likely, "a directory whose files are all gone looks the same"),
        Code::Lost => (Certain, "the MANIFEST says so"),
        Code::Quarantine | Code::Repaired | Code::Strange => (Certain, "the directory lists it"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tear_is_never_more_than_likely() {
        // (GUARANTEES: damage to the last acknowledged group before a crash cannot be told from one.)
        for code in [Code::TailTorn, Code::ManifestTorn] {
            assert_eq!(of(code).0, Sure::Likely);
        }
        assert!(Code::ALL.iter().all(|code| !of(*code).1.is_empty()));
    }
}
