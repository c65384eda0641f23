//! Ranges of offsets, as they are typed (`A..B`) and as a file names them.
//!
//! It owns how they are read. Invariant: a file in which anything is no range names nothing.

use std::ops::Range;
use std::path::Path;
use std::str::FromStr;

use serde::Deserialize;

use super::read_whole;
use crate::Failure;

/// `A..B`: A up to, and without, B.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OffsetRange(pub(crate) Range<u64>);

impl FromStr for OffsetRange {
    type Err = String;

    fn from_str(text: &str) -> Result<OffsetRange, String> {
        let (start, end) = text
            .split_once("..")
            .ok_or_else(|| format!("{text:?} is no range: write A..B, for A up to and without B"))?;
        let number = |word: &str| {
            word.trim().parse::<u64>().map_err(|_| match word.trim() {
                "A" | "B" => format!("{word} stands for an offset: write the number that you know"),
                _ => format!("{word:?} is no offset"),
            })
        };
        let (start, end) = (number(start)?, number(end)?);
        if start > end {
            return Err(format!("{start}..{end} ends before it begins"));
        }
        Ok(OffsetRange(start..end))
    }
}

/// The ranges that a file names: a plan's JSON its `to_accept`, any other file one on each line. Lines that are
/// empty or begin with # name none.
pub(crate) fn named_by(path: &Path) -> Result<Vec<Range<u64>>, Failure> {
    let shown = path.display();
    let bytes = read_whole(path).map_err(|error| {
        Failure::Said(format!(
            "{shown} cannot be read: {error}. Name a file of ranges A..B, one on each line, or what plan --json wrote"
        ))
    })?;
    parse(&bytes).map_err(|why| {
        Failure::Usage(format!(
            "{shown} names no records: {why}. It has to hold ranges A..B, one on each line, or be what plan --json wrote"
        ))
    })
}

fn parse(bytes: &[u8]) -> Result<Vec<Range<u64>>, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "it is no text".to_string())?;
    if text.trim_start().starts_with('{') {
        let plan: Plan = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let ranges = plan.to_accept.into_iter().map(|span| {
            let range = span.start..span.end;
            if span.start <= span.end { Ok(range) } else { Err(format!("{range:?} ends before it begins")) }
        });
        return ranges.collect();
    }
    let lines = text.lines().map(str::trim).enumerate();
    let lines = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|(number, line)| match line.parse::<OffsetRange>() {
            Ok(range) => Ok(range.0),
            Err(why) => Err(format!("line {}: {why}", number + 1)),
        })
        .collect()
}

/// What is read of a plan.
#[derive(Deserialize)]
struct Plan {
    to_accept: Vec<Named>,
}

#[derive(Deserialize)]
struct Named {
    start: u64,
    end: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_names_ranges_or_nothing() {
        let lines = b"# reviewed by Ada\n5..10\n\n  70..70\r\n".as_slice();
        assert_eq!(parse(lines), Ok(vec![5..10, 70..70]));
        let plan = br#"{"verb": "plan", "to_accept": [{"start": 5, "end": 10}]}"#.as_slice();
        assert_eq!(parse(plan), Ok(vec![Range { start: 5, end: 10 }]));
        assert_eq!(parse(b""), Ok(Vec::new()));
        assert!(parse(b"5..10\n7\n").is_err_and(|why| why.starts_with("line 2: ")));
        let backwards = br#"{"to_accept": [{"start": 10, "end": 5}]}"#.as_slice();
        for bad in [backwards, b"{}", b"{", b"[5]", b"\xff"] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn only_a_range_is_a_range() {
        assert_eq!("5..10".parse(), Ok(OffsetRange(5..10)));
        assert_eq!("70..70".parse(), Ok(OffsetRange(70..70)));
        for text in ["5", "5..", "..5", "10..5", "a..b", "-1..5", "5...10", "5..=10"] {
            assert!(text.parse::<OffsetRange>().is_err(), "{text}");
        }
    }
}
