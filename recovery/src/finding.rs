//! A finding: one thing that an operator should know, as data.
//!
//! It owns the codes, which never change their meaning once released, and their severities. It does
//! not know how anything is found out (`lister` makes findings out of an inspection), nor how a
//! finding is shown.
//!
//! Invariants: the first letter of a code is its severity; every defect of a frame has a code that
//! is damage.
//!
//! Why typed codes, and not the library's sentences: scripts and the documents of other verbs
//! (plan, repair, explain) refer to them.

use std::ops::Range;
use std::path::{Path, PathBuf};

use stonelog::manifest::OffsetRanges;
use stonelog::names;
use stonelog::scan::Defect;

use crate::sure::{self, Sure};

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Severity {
    /// Acknowledged bytes are not what was written. The exit code is 4.
    Damage,
    /// Something is not as a clean close leaves it; the log mends it by itself, nothing is missing.
    Warning,
    /// Worth knowing.
    Note,
}

macro_rules! codes {
    ($($variant:ident $text:literal $meaning:literal,)*) => {
        /// What kind of finding: stable, for scripts.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Code {
            $(#[doc = $meaning] $variant,)*
        }

        impl Code {
            /// Every code.
            pub(crate) const ALL: &'static [Code] = &[$(Code::$variant,)*];

            /// The code as it is written.
            pub(crate) const fn text(self) -> &'static str {
                match self {
                    $(Code::$variant => $text,)*
                }
            }

            /// What it means, in a line.
            pub(crate) const fn meaning(self) -> &'static str {
                match self {
                    $(Code::$variant => $meaning,)*
                }
            }
        }
    };
}

codes! {
    Manifest "E-MANIFEST" "the MANIFEST is not what was written",
    ManifestMissing "E-MANIFEST-MISSING" "there are stores, and no MANIFEST",
    ManifestEdit "E-MANIFEST-EDIT" "an acknowledged edit is missing from the MANIFEST",
    SegmentMissing "E-SEG-MISSING" "a store that the MANIFEST names is not there",
    SegmentShort "E-SEG-SHORT" "a store is shorter than it was sealed",
    Head "E-HEAD" "a store's first sector is not what was written, or another store's",
    Base "E-BASE" "a store's second sector is not what was written",
    FrameChecksum "E-FRAME-CRC" "a frame's checksum does not hold",
    FrameHeader "E-FRAME-HEADER" "the bytes where a frame should be are none",
    FrameZeros "E-FRAME-ZEROS" "zeros, or nothing, where a frame should be",
    FrameOrdinal "E-FRAME-ORDINAL" "a valid frame of another record stands where a frame should be",
    Gap "E-GAP" "no store holds acknowledged records",
    Unreadable "E-UNREADABLE" "the disk cannot read the bytes",
    Declared "E-DAMAGED" "an opening declared records damaged, and no repair has settled it",
    TailTorn "W-TAIL-TORN" "bytes behind the proven end that a crash left unfinished",
    TailStray "W-TAIL-STRAY" "bytes behind the end that a clean close states",
    ManifestTorn "W-MANIFEST-TORN" "bytes behind the MANIFEST's last edit",
    Index "W-INDEX" "an index file is not what its store says",
    IndexMissing "W-INDEX-MISSING" "a sealed segment has no index file",
    Unnamed "W-UNNAMED" "a file of the log that the MANIFEST does not name",
    Unclean "N-UNCLEAN" "the log ended without a close",
    InUse "N-IN-USE" "a program has the log open for writing",
    Changed "N-CHANGED" "the log changed while it was read",
    Unfinished "N-UNFINISHED" "a log that was about to be begun",
    Lost "N-LOST" "records that a repair gave up",
    Quarantine "N-QUARANTINE" "files that a recovery took out and kept",
    Repaired "N-REPAIRED" "files that a repair replaced or took out and kept",
    Strange "N-STRANGE" "a name that is not Stonelog's",
}

impl Code {
    /// Its severity: the first letter says it.
    pub(crate) fn severity(self) -> Severity {
        match self.text().as_bytes().first() {
            Some(b'E') => Severity::Damage,
            Some(b'W') => Severity::Warning,
            _ => Severity::Note,
        }
    }

    /// The code of a frame that is not one.
    pub(crate) const fn of_defect(defect: Defect) -> Code {
        match defect {
            Defect::Nothing => Code::FrameZeros,
            Defect::NoHeader | Defect::LengthBeyondEnd => Code::FrameHeader,
            Defect::Checksum => Code::FrameChecksum,
            Defect::WrongOrdinal => Code::FrameOrdinal,
            Defect::Unreadable => Code::Unreadable,
        }
    }
}

/// One thing that an operator should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) code: Code,
    /// The file's name in the log directory, where it is about one.
    pub(crate) file: Option<String>,
    /// The segment, where it is about one.
    pub(crate) segment: Option<u64>,
    /// Where in the file it begins.
    pub(crate) position: Option<u64>,
    /// Where in the file it ends, where that is known.
    pub(crate) position_end: Option<u64>,
    /// The records it is about.
    pub(crate) offsets: Option<Range<u64>>,
    /// What is the matter.
    pub(crate) what: String,
    /// How sure that is.
    pub(crate) sure: Sure,
    /// Why it is no surer, or why it is certain.
    pub(crate) because: &'static str,
    /// How that is known.
    pub(crate) proof: Option<String>,
    /// What to do.
    pub(crate) next: String,
}

impl Finding {
    /// Whether it is the same thing, seen again.
    pub(crate) fn is(&self, other: &Finding) -> bool {
        let key = |it: &Finding| (it.code, it.segment, it.position, it.offsets.clone());
        // (A lost edit has no place but the store that proves it.)
        let proven = self.code != Code::ManifestEdit || self.proof == other.proof;
        self.file == other.file && key(self) == key(other) && proven
    }

    /// A finding about nothing in particular yet.
    pub(crate) fn new(code: Code, what: impl Into<String>, next: impl Into<String>) -> Finding {
        let (sure, because) = sure::of(code);
        Finding {
            code,
            sure,
            because,
            file: None,
            segment: None,
            position: None,
            position_end: None,
            offsets: None,
            what: what.into(),
            proof: None,
            next: next.into(),
        }
    }

    pub(crate) fn in_store(mut self, id: u64) -> Finding {
        self.file = Some(names::store(id));
        self.segment = Some(id);
        self
    }

    pub(crate) fn in_file(mut self, name: impl Into<String>) -> Finding {
        self.file = Some(name.into());
        self
    }

    pub(crate) fn at(mut self, start: u64, end: Option<u64>) -> Finding {
        self.position = Some(start);
        self.position_end = end.filter(|end| *end > start);
        self
    }

    pub(crate) fn about(mut self, offsets: Option<Range<u64>>) -> Finding {
        self.offsets = offsets;
        self
    }

    pub(crate) fn proven(mut self, proof: impl Into<String>) -> Finding {
        self.proof = Some(proof.into());
        self
    }

    /// Less sure than its code usually is, and why.
    pub(crate) fn only(mut self, sure: Sure, because: &'static str) -> Finding {
        (self.sure, self.because) = (sure, because);
        self
    }

    pub(crate) fn is_damage(&self) -> bool {
        self.code.severity() == Severity::Damage
    }
}
/// The records that cannot be read, by what `findings` say.
pub(crate) fn unreadable(findings: &[Finding]) -> OffsetRanges {
    let mut ranges = OffsetRanges::default();
    for finding in findings.iter().filter(|finding| finding.is_damage()) {
        if let Some(offsets) = &finding.offsets {
            ranges.insert(offsets.clone());
        }
    }
    ranges
}
/// The path that a finding is about.
pub(crate) fn path(directory: &Path, finding: &Finding) -> Option<PathBuf> {
    finding.file.as_ref().map(|name| directory.join(name))
}
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_and_say_their_severity() {
        let texts: std::collections::BTreeSet<_> = Code::ALL.iter().map(|code| code.text()).collect();
        assert_eq!(texts.len(), Code::ALL.len());
        for code in Code::ALL {
            assert!(["E-", "W-", "N-"].iter().any(|letter| code.text().starts_with(letter)), "{code:?}");
            assert!(!code.meaning().is_empty());
        }
        assert_eq!(Code::TailTorn.severity(), Severity::Warning);
        assert_eq!(Code::FrameChecksum.severity(), Severity::Damage);
        assert_eq!(Code::Unclean.severity(), Severity::Note);
    }

    #[test]
    fn every_defect_has_a_code_that_is_damage() {
        use Defect::{Checksum, LengthBeyondEnd, NoHeader, Nothing, Unreadable, WrongOrdinal};
        for defect in [Nothing, NoHeader, LengthBeyondEnd, Checksum, WrongOrdinal, Unreadable] {
            assert_eq!(Code::of_defect(defect).severity(), Severity::Damage);
        }
    }
}
