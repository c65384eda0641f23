//! Ranges of offsets, as they are typed: `A..B`.

use std::ops::Range;
use std::str::FromStr;

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_range_is_a_range() {
        assert_eq!("5..10".parse(), Ok(OffsetRange(5..10)));
        assert_eq!("70..70".parse(), Ok(OffsetRange(70..70)));
        for text in ["5", "5..", "..5", "10..5", "a..b", "-1..5", "5...10", "5..=10"] {
            assert!(text.parse::<OffsetRange>().is_err(), "{text}");
        }
    }
}
