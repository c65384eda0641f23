//! A scanner that is slow and plain, written from docs/FORMAT.md: what the real one must agree with.

use std::ops::Range;

use stonelog::frame::{self, Header, Kind, PayloadChecksum};
use stonelog::scan::Extent;

/// What it finds.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Position and ordinal of every valid frame, in order.
    pub frames: Vec<(u64, u32)>,
    /// Ordinals, positions, and the end of the last whole batch (ordinal, position) of every run.
    pub runs: Vec<(Range<u32>, Range<u64>, u32, u64)>,
    /// The highest durable end that a frame attests, less the base.
    pub watermark: Option<i64>,
    /// The non-zero bytes behind the last whole batch of the chain, unless nothing breaks it.
    pub tail: Option<Range<u64>>,
}

fn valid(bytes: &[u8], extent: &Extent, position: u64) -> Option<Header> {
    let end = extent.end.min(bytes.len() as u64);
    let start = usize::try_from(position).ok()?;
    let head = bytes.get(start..start.checked_add(16)?)?.first_chunk::<16>()?;
    let header = frame::decode_header(head)?;
    if position + header.frame_bytes() > end {
        return None;
    }
    let payload = bytes.get(start + 16..start + 16 + header.length as usize)?;
    let plausible = match (extent.base, header.lag.records()) {
        (Some(base), Some(lag)) => u64::from(lag) <= base.saturating_add(u64::from(header.ordinal)),
        _ => true,
    };
    (plausible && frame::verifies(head, PayloadChecksum::of(payload), extent.seed)).then_some(header)
}

pub fn scan(bytes: &[u8], extent: &Extent) -> Found {
    let mut found = Found::default();
    let end = extent.end.min(bytes.len() as u64);
    let below_end = |ordinal: u32| extent.ordinal_end.is_none_or(|end| ordinal < end);
    let (mut position, mut ordinal) = (extent.start, 0u32);
    let mut first = true;
    loop {
        let (start, start_ordinal) = (position, ordinal);
        let mut whole = (ordinal, position);
        while below_end(ordinal) {
            let Some(header) = valid(bytes, extent, position).filter(|h| h.ordinal == ordinal) else { break };
            found.frames.push((position, ordinal));
            if let Some(lag) = header.lag.records() {
                let mark = i64::from(ordinal) - i64::from(lag);
                found.watermark = Some(found.watermark.map_or(mark, |best| best.max(mark)));
            }
            position += header.frame_bytes();
            if header.kind.is_record() {
                let Some(next) = ordinal.checked_add(1) else { break };
                ordinal = next;
            }
            if header.kind == Kind::Record {
                whole = (ordinal, position);
            }
        }
        if position > start {
            found.runs.push((start_ordinal..ordinal, start..position, whole.0, whole.1));
        }
        if !below_end(ordinal) {
            return found;
        }
        if std::mem::take(&mut first) {
            let from = if whole.0 == ordinal { position } else { whole.1 };
            let rest = bytes.get(from as usize..end.max(from) as usize).unwrap_or_default();
            let nonzero = |byte: &u8| *byte != 0;
            if let (Some(a), Some(b)) = (rest.iter().position(nonzero), rest.iter().rposition(nonzero)) {
                found.tail = Some(from + a as u64..from + b as u64 + 1);
            }
        }
        let gap = position;
        let can_stand = |at: u64, header: &Header| {
            header.ordinal >= ordinal
                && u64::from(header.ordinal - ordinal) <= (at - gap) / 16
                && below_end(header.ordinal)
        };
        // A broken header's own end first, where it hides one record and nothing else.
        let guess = bytes
            .get(gap as usize..)
            .and_then(|rest| rest.first_chunk::<16>())
            .and_then(frame::decode_header)
            .map(|header| gap + header.frame_bytes())
            .filter(|guess| *guess <= end);
        let guessed = guess.and_then(|at| {
            let header = valid(bytes, extent, at)?;
            (ordinal.checked_add(1) == Some(header.ordinal) && can_stand(at, &header)).then_some((at, header))
        });
        let next = guessed.or_else(|| {
            (1..).map(|step| gap + 8 * step).take_while(|at| at + 16 <= end).find_map(|at| {
                let header = valid(bytes, extent, at)?;
                can_stand(at, &header).then_some((at, header))
            })
        });
        let Some((at, header)) = next else { return found };
        (position, ordinal) = (at, header.ordinal);
    }
}
