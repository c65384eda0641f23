//! A reader of a log's files, written from docs/FORMAT.md alone: it uses no code of the library.

use std::collections::BTreeMap;
use std::ops::Range;

pub(crate) type Directory = BTreeMap<String, Vec<u8>>;

/// What the reader found.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) clean: bool,
    pub(crate) front: u64,
    /// The offset behind the last record.
    pub(crate) end: u64,
    pub(crate) records: BTreeMap<u64, Vec<u8>>,
    /// Offsets within front..end that no intact frame carries.
    pub(crate) missing: Vec<u64>,
    pub(crate) meta: BTreeMap<String, Vec<u8>>,
    /// Index files that were looked at and led to the right frames.
    pub(crate) indexes: usize,
}

/// Little-endian fields, one after the other.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], String> {
        let (field, rest) = self.0.split_at_checked(count).ok_or("the bytes end inside a field")?;
        self.0 = rest;
        Ok(field)
    }
    fn u32(&mut self) -> Result<u32, String> {
        Ok(u32::from_le_bytes(self.take(4)?.try_into().unwrap()))
    }
    fn u64(&mut self) -> Result<u64, String> {
        Ok(u64::from_le_bytes(self.take(8)?.try_into().unwrap()))
    }
}

fn crc(parts: &[&[u8]]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    parts.iter().for_each(|part| hasher.update(part));
    hasher.finalize()
}

/// Splits a sector into the fields before its checksum, where magic and checksum hold.
fn sector<'a>(bytes: &'a [u8], magic: &[u8], length: usize, salt: &[u8]) -> Option<Fields<'a>> {
    let covered = bytes.get(..length)?;
    let stored = u32::from_le_bytes(bytes.get(length..length + 4)?.try_into().ok()?);
    let holds = covered.starts_with(magic) && crc(&[covered, salt]) == stored;
    holds.then(|| Fields(&covered[magic.len()..]))
}

#[derive(Debug, Clone, Copy)]
struct Frame {
    position: usize,
    kind: u32,
    length: usize,
    ordinal: u64,
    lag: Option<u64>,
}

impl Frame {
    fn at(bytes: &[u8], position: usize, seed: u32) -> Option<Frame> {
        let header = bytes.get(position..position.checked_add(16)?)?;
        let word = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().unwrap());
        let (kind, length) = (word(4) >> 28, (word(4) & 0x0fff_ffff) as usize);
        let payload = bytes.get(position + 16..position + 16 + length)?;
        let fits = position + 16 + length.next_multiple_of(8) <= bytes.len();
        let holds = crc(&[payload, &header[4..16], &seed.to_le_bytes()]) == word(0);
        if !(1..=3).contains(&kind) || (kind == 3 && length != 0) || !fits || !holds {
            return None;
        }
        let lag = (word(12) != u32::MAX).then_some(u64::from(word(12)));
        Some(Frame { position, kind, length, ordinal: u64::from(word(8)), lag })
    }
    fn end(&self) -> usize {
        self.position + 16 + self.length.next_multiple_of(8)
    }
    fn payload<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        &bytes[self.position + 16..self.position + 16 + self.length]
    }
    fn is_record(&self) -> bool {
        self.kind != 3
    }
}

/// The frames of a file.
#[derive(Default)]
struct Frames {
    /// From the first position on without a gap.
    chain: Vec<Frame>,
    /// Behind the first gap.
    beyond: Vec<Frame>,
    /// Records up to the end of the chain's last whole batch, and the position behind it.
    whole: (u64, usize),
    /// Whether nothing but zeros lies behind that batch and the marks that follow it.
    looks_whole: bool,
}

impl Frames {
    fn all(&self) -> impl Iterator<Item = &Frame> {
        self.chain.iter().chain(&self.beyond)
    }
    /// The highest watermark, relative to ordinal 0.
    fn watermark(&self) -> Option<i64> {
        self.all().filter_map(|frame| Some(frame.ordinal as i64 - frame.lag? as i64)).max()
    }
}

fn frames(bytes: &[u8], start: usize, seed: u32, base: Option<u64>, ordinals: Option<u64>) -> Frames {
    let plausible = |frame: &Frame| match (base, frame.lag) {
        (Some(base), Some(lag)) => lag <= base + frame.ordinal,
        _ => true,
    };
    let mut found = Frames { whole: (0, start), ..Frames::default() };
    let (mut position, mut next, mut gap) = (start, 0, None);
    while ordinals.is_none_or(|end| next < end) && position + 16 <= bytes.len() {
        let frame = Frame::at(bytes, position, seed).filter(plausible).filter(|frame| match gap {
            None => frame.ordinal == next,
            Some(gap) => {
                let lost = frame.ordinal.checked_sub(next);
                lost.is_some_and(|lost| lost <= ((position - gap) / 16) as u64)
                    && ordinals.is_none_or(|end| frame.ordinal < end)
            }
        });
        let Some(frame) = frame else {
            gap = gap.or(Some(position));
            position += 8;
            continue;
        };
        next = frame.ordinal + u64::from(frame.is_record());
        position = frame.end();
        if found.beyond.is_empty() && gap.is_none() {
            found.chain.push(frame);
            if frame.kind == 1 {
                found.whole = (next, position);
            }
        } else {
            found.beyond.push(frame);
        }
        gap = None;
    }
    let behind = found.chain.iter().rfind(|frame| frame.is_record()).is_none_or(|last| last.kind == 1);
    let rest = found.chain.last().map_or(start, Frame::end);
    let stopped = ordinals.is_some_and(|end| next >= end);
    found.looks_whole =
        behind && (stopped || bytes.get(rest..).is_none_or(|rest| rest.iter().all(|byte| *byte == 0)));
    found
}

#[derive(Debug, Default, Clone)]
pub(crate) struct Segment {
    base: Option<u64>,
    born: Option<u64>,
    /// Next offset and store length.
    pub(crate) seal: Option<(u64, u64)>,
}

#[derive(Debug, Default)]
pub(crate) struct Manifest {
    pub(crate) uuid: Vec<u8>,
    pub(crate) front: u64,
    pub(crate) last_id: u64,
    pub(crate) segments: BTreeMap<u64, Segment>,
    pub(crate) damaged: Vec<Range<u64>>,
    pub(crate) lost: Vec<Range<u64>>,
    pub(crate) meta: BTreeMap<String, Vec<u8>>,
    /// Store length and next offset.
    pub(crate) closed: Option<(u64, u64)>,
}

pub(crate) fn read_manifest(bytes: &[u8]) -> Result<Manifest, String> {
    let mut head = sector(bytes, b"STONEMAN", 48, b"").ok_or("the manifest's head")?;
    if head.u32()? != 1 {
        return Err("the manifest's version".into());
    }
    head.u32()?;
    let uuid = head.take(16)?.to_vec();
    let generation = head.take(8)?;
    if (bytes.len() as u64) < head.u64()? {
        return Err("the manifest is shorter than it was when it got its name".into());
    }
    let frames = frames(bytes, 512, crc(&[&uuid, generation, b"manifest"]), Some(0), None);
    let proven = frames.watermark().unwrap_or(1).max(1);
    if (frames.whole.0 as i64) < proven {
        return Err("damage in the manifest".into());
    }
    let mut manifest = Manifest::default();
    for (number, frame) in frames.chain.iter().filter(|frame| frame.end() <= frames.whole.1).enumerate() {
        fold(&mut manifest, number, frame.payload(bytes))?;
    }
    if manifest.uuid == uuid { Ok(manifest) } else { Err("the manifest's head and Init differ".into()) }
}

impl Manifest {
    /// These offsets are neither damaged nor lost any more.
    fn forget(&mut self, offsets: Range<u64>) {
        for ranges in [&mut self.damaged, &mut self.lost] {
            *ranges = std::mem::take(ranges)
                .into_iter()
                .flat_map(|range| {
                    [range.start..range.end.min(offsets.start), range.start.max(offsets.end)..range.end]
                })
                .filter(|range| !range.is_empty())
                .collect();
        }
    }
}

fn possible_id(id: u64) -> Result<u64, String> {
    if id <= 1 << 62 { Ok(id) } else { Err(format!("{id} is above every id")) }
}

fn fold(manifest: &mut Manifest, number: usize, payload: &[u8]) -> Result<(), String> {
    let mut fields = Fields(payload);
    let (tag, flags) = (fields.take(1)?[0], fields.take(1)?[0]);
    if manifest.closed.is_some() || (number == 0) != (tag == 1) {
        return Err(format!("edit {number} has no business there"));
    }
    match tag {
        1 => {
            manifest.uuid = fields.take(16)?.to_vec();
            fields.u64()?;
            manifest.front = fields.u64()?;
            manifest.last_id = possible_id(fields.u64()?)?;
        }
        2 => {
            let id = possible_id(fields.u64()?)?;
            let base = if flags & 1 != 0 { Some(fields.u64()?) } else { None };
            let born = if flags & 2 != 0 { Some((fields.u64()?, fields.u64()?).0) } else { None };
            let last = manifest.segments.last_key_value();
            if last.is_some_and(|(last, _)| *last >= id) {
                return Err("ids do not ascend".into());
            }
            let base = base.or_else(|| Some(last?.1.seal?.0));
            if let (Some(base), None) = (base, born) {
                manifest.forget(base..u64::MAX);
            }
            manifest.segments.insert(id, Segment { base, born, seal: None });
            manifest.last_id = manifest.last_id.max(id);
        }
        3 => {
            let (id, end, length) = (fields.u64()?, fields.u64()?, fields.u64()?);
            fields.take(16)?;
            let segment = manifest.segments.get_mut(&id).ok_or("a Seal of nothing")?;
            if let Some((before, _)) = segment.seal.replace((end, length)) {
                manifest.forget(end..before);
            }
            let later = manifest.segments.range_mut(id + 1..).next();
            if let Some((_, successor)) = later {
                successor.base = successor.base.or(Some(end));
            }
        }
        4 => {
            let id = fields.u64()?;
            match manifest.segments.remove(&id) {
                Some(Segment { base: Some(base), seal, .. }) => {
                    manifest.forget(base..seal.map_or(u64::MAX, |(end, _)| end));
                }
                Some(_) => {}
                None if flags & 1 != 0 && id <= manifest.last_id => {}
                None => return Err("a Drop of nothing".into()),
            }
        }
        5 => {
            manifest.front = fields.u64()?;
            manifest.forget(0..manifest.front);
        }
        6 => manifest.closed = Some((fields.u64()?, fields.u64()?)),
        7 => manifest.damaged.push(fields.u64()?..fields.u64()?),
        8 => manifest.lost.push(fields.u64()?..fields.u64()?),
        9 => {
            let length = usize::from(fields.take(1)?[0]);
            let key = String::from_utf8(fields.take(length)?.to_vec()).map_err(|error| error.to_string())?;
            let value = fields.take(fields.0.len())?.to_vec();
            manifest.meta.remove(&key);
            if flags & 1 != 0 {
                manifest.meta.insert(key, value);
            }
        }
        other => return Err(format!("edit {number} has tag {other}")),
    }
    if fields.0.is_empty() { Ok(()) } else { Err(format!("bytes follow edit {number}")) }
}

/// Reads a log directory as docs/FORMAT.md, "Reading a log", says.
pub(crate) fn read_log(files: &Directory) -> Result<Found, String> {
    let manifest = read_manifest(files.get("MANIFEST").ok_or("there is no log")?)?;
    let mut found = Found {
        clean: manifest.closed.is_some(),
        front: manifest.front,
        end: 0,
        records: BTreeMap::new(),
        missing: Vec::new(),
        meta: manifest.meta.clone(),
        indexes: 0,
    };
    let mut closed = manifest.closed;
    // The end so far, the proven end so far, and whether nothing was missing so far.
    let first = manifest.segments.values().next().and_then(|segment| segment.base);
    let (mut valid, mut proven) = (first.unwrap_or(manifest.front), 0);
    let ids: Vec<u64> = manifest.segments.keys().copied().collect();
    let bases: Vec<Option<u64>> = ids
        .iter()
        .map(|id| {
            let known = manifest.segments[id].base;
            let seed = segment_seed(&manifest, *id).to_le_bytes();
            let store = files.get(&format!("{id:016x}.store"));
            let sector = store.and_then(|store| sector(store.get(512..)?, b"STONBASE", 16, &seed));
            known.or_else(|| sector?.u64().ok())
        })
        .collect();
    // (A base that nothing tells may only be guessed behind a store that looks whole.)
    let (mut whole_so_far, mut looked_whole) = (true, true);
    for (index, id) in ids.iter().enumerate() {
        let segment = &manifest.segments[id];
        let name = format!("{id:016x}.store");
        let Some(store) = files.get(&name) else { return Err(format!("{name} is missing")) };
        if store.len() < 1024 {
            return Err(format!("{name} is cut short"));
        }
        let mut head = sector(store, b"STONELOG", 48, b"").ok_or(format!("the head of {name}"))?;
        let (version, _origin) = (head.u32()?, head.u32()?);
        if version != 1 || head.take(16)? != manifest.uuid || head.u64()? != *id {
            return Err(format!("{name} is another's"));
        }
        let end = segment.seal.or_else(|| closed.take().map(|(length, next)| (next, length)));
        let seed = segment_seed(&manifest, *id);
        let limit = end.map(|(next, _)| next).or(bases.get(index + 1).copied().flatten());
        let length = end.map_or(store.len(), |(_, length)| length as usize);
        let store = store.get(..length).ok_or(format!("{name} is shorter than the manifest says"))?;
        let ordinals = limit.zip(bases[index]).map(|(limit, base)| limit.saturating_sub(base));
        let held = frames(store, 1024, seed, bases[index], ordinals);
        let attested = held.watermark().is_some_and(|watermark| watermark >= 0);
        let guess = (attested && whole_so_far && looked_whole).then_some(valid);
        let Some(base) = bases[index].or(guess) else {
            looked_whole &= held.chain.is_empty() && held.beyond.is_empty() && held.looks_whole;
            continue;
        };
        if segment.seal.is_none() {
            proven = proven.max(segment.born.unwrap_or(0));
        }
        proven = proven.max(held.watermark().map_or(0, |watermark| base.saturating_add_signed(watermark)));
        match end {
            Some((next, _)) => {
                // Sealed, or closed: what is there is told, and what is not is missing.
                (valid, proven) = (next, proven.max(next));
                for frame in held.all().filter(|frame| frame.is_record()) {
                    found.records.insert(base + frame.ordinal, frame.payload(store).to_vec());
                }
                check_index(files, *id, seed, base, (next, length), &held, &mut found)?;
            }
            None => {
                looked_whole = held.looks_whole;
                if base > valid && base <= manifest.front {
                    // What is missing before it was truncated away.
                    (valid, whole_so_far) = (base, true);
                }
                whole_so_far &= base == valid;
                if !whole_so_far {
                    continue;
                }
                for frame in
                    held.chain.iter().filter(|frame| frame.is_record() && frame.end() <= held.whole.1)
                {
                    found.records.insert(base + frame.ordinal, frame.payload(store).to_vec());
                }
                valid = base + held.whole.0;
            }
        }
    }
    for (name, store) in files {
        let id = name.strip_suffix(".store").and_then(|digits| u64::from_str_radix(digits, 16).ok());
        let Some(id) = id.filter(|id| *id > manifest.last_id && *id <= 1 << 62) else { continue };
        let seed = segment_seed(&manifest, id);
        let origin = sector(store, b"STONELOG", 48, b"").and_then(|mut head| {
            let (_version, origin) = (head.u32().ok()?, head.u32().ok()?);
            (head.take(16).ok()? == manifest.uuid).then_some(origin)
        });
        let base = sector(store.get(512..).unwrap_or(&[]), b"STONBASE", 16, &seed.to_le_bytes());
        match (origin, base) {
            (Some(2), Some(mut base)) => proven = proven.max(base.u64()?),
            (Some(2), None) => {}
            _ if frames(store, 1024, seed, None, None).all().next().is_some() => {
                return Err(format!("{name} holds frames and is not named: the manifest lost an edit"));
            }
            _ => {}
        }
    }
    found.end = valid.max(manifest.front);
    if found.end < proven {
        return Err(format!("damage: {proven} is proven, {} is there", found.end));
    }
    found.records.retain(|offset, _| *offset >= manifest.front);
    let given_up =
        |offset: &u64| manifest.lost.iter().chain(&manifest.damaged).any(|range| range.contains(offset));
    found.records.retain(|offset, _| !given_up(offset));
    found.missing = (found.front..found.end).filter(|offset| !found.records.contains_key(offset)).collect();
    Ok(found)
}

fn segment_seed(manifest: &Manifest, id: u64) -> u32 {
    crc(&[&manifest.uuid, &id.to_le_bytes()])
}

/// Checks a segment's index, where there is a usable one: every entry leads to its frame.
fn check_index(
    files: &Directory,
    id: u64,
    seed: u32,
    base: u64,
    (next, length): (u64, usize),
    held: &Frames,
    found: &mut Found,
) -> Result<(), String> {
    let Some(bytes) = files.get(&format!("{id:016x}.index")) else { return Ok(()) };
    let Some(mut header) = sector(bytes, b"STONEIDX", 60, b"") else { return Ok(()) };
    let (version, form, of, of_seed) = (header.u32()?, header.u32()?, header.u64()?, header.u32()?);
    let (count, store_length) = (header.u32()?, header.u64()?);
    let (first, stride, body_crc) = (header.u32()?, header.u32()?, header.u32()?);
    let body = &bytes[64..];
    let usable = (version, of, of_seed) == (1, id, seed)
        && u64::from(count) == next - base
        && store_length == length as u64
        && crc(&[body]) == body_crc;
    if !usable {
        return Ok(());
    }
    let u32_at = |at: usize| u32::from_le_bytes(body[at..at + 4].try_into().unwrap());
    let bases = 4 * (count as usize).div_ceil(64);
    for frame in held.all().filter(|frame| frame.is_record()) {
        let n = frame.ordinal as usize;
        let unit = match form {
            1 => first + stride * n as u32,
            2 => {
                u32_at(4 * (n / 64))
                    + u32::from(u16::from_le_bytes(body[bases + 2 * n..][..2].try_into().unwrap()))
            }
            3 => u32_at(4 * n),
            other => return Err(format!("index form {other}")),
        };
        if unit as usize * 8 != frame.position && unit != 0 {
            return Err(format!("the index of {id} leads record {n} to {unit}, not {}", frame.position));
        }
    }
    found.indexes += 1;
    Ok(())
}
