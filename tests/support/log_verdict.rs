//! What the library says of a log directory, as one JSON document: how it opens under each policy and for
//! reading alone, what is read, and what an inspection finds.
//!
//! It owns the document's shape. Left out is what may change without a log being read differently: the
//! wording of what is wrong, times, and what an opening writes.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Map, Value, json};
use stonelog::disk::Disk;
use stonelog::manifest::Reading;
use stonelog::recovery::{Depth, inspect};
use stonelog::{Damage, DamagePolicy, Error, Log, Options, ReadMode, Recovery};

/// The whole verdict. `fresh` gives a new copy of the directory each time, to be opened.
pub fn verdict(fresh: &dyn Fn() -> (Arc<dyn Disk>, PathBuf), mode: ReadMode) -> Value {
    let open = |policy, append| {
        let (disk, directory) = fresh();
        let options = Options::new().disk(disk).segment_bytes(4096).read_mode(mode).on_damage(policy);
        opened(options.open(&directory), append)
    };
    let (disk, directory) = fresh();
    let read_only = Options::new().disk(disk).read_mode(mode).open_read_only(&directory);
    let (disk, directory) = fresh();
    json!({
        "refuse": open(DamagePolicy::Refuse, true),
        "serve": open(DamagePolicy::Serve, true),
        "read_only": opened(read_only, false),
        "inspect_as_opening": inspected(disk.as_ref(), &directory, Depth::Opening),
        "inspect_everything": inspected(disk.as_ref(), &directory, Depth::Everything),
    })
}

fn range(range: &Range<u64>) -> Value {
    json!(format!("{}..{}", range.start, range.end))
}

fn name(path: &Path) -> Value {
    json!(path.file_name().map(|name| name.to_string_lossy()))
}

fn opened(outcome: stonelog::Result<Log>, append: bool) -> Value {
    let log = match outcome {
        Ok(log) => log,
        Err(error) => return refused(&error),
    };
    let mut digest = crc32fast::Hasher::new();
    let (mut intact, mut refusals) = (0, Vec::<(Range<u64>, Value)>::new());
    for offset in log.offsets() {
        match log.read(offset) {
            Ok(record) => {
                intact += 1;
                digest.update(&offset.to_le_bytes());
                digest.update(&(record.len() as u64).to_le_bytes());
                digest.update(&record);
            }
            Err(error) => {
                if let Error::Damaged(damage) = &error {
                    assert_eq!(damage.offsets, Some(offset..offset + 1));
                }
                let mut why = refused(&error);
                why.as_object_mut().map(|why| (why.remove("offsets"), why.remove("offset")));
                match refusals.last_mut() {
                    Some((offsets, before)) if *before == why && offsets.end == offset => offsets.end += 1,
                    _ => refusals.push((offset..offset + 1, why)),
                }
            }
        }
    }
    // The iterator says the same.
    let mut offset = log.offsets().start;
    for record in log.records(..) {
        assert_eq!(
            record.as_ref().ok().map(|record| record.to_vec()),
            log.read(offset).ok().map(|r| r.to_vec())
        );
        offset += 1;
    }
    assert_eq!(offset, log.offsets().end, "records() ends early");
    let offsets = range(&log.offsets());
    let meta: Map<String, Value> = ["vote", "gone", "one", "two", "three"]
        .into_iter()
        .filter_map(|key| Some((key.to_string(), json!(log.meta(key).unwrap()?))))
        .collect();
    let recovery = recovery(log.recovery());
    let appends = append.then(|| match log.append(b"one more") {
        Ok(offset) => {
            assert_eq!(&*log.read(offset).unwrap(), b"one more");
            json!(offset)
        }
        Err(error) => refused(&error),
    });
    json!({
        "offsets": offsets,
        "intact": intact,
        "digest": format!("{:08x}", digest.finalize()),
        "refused": refusals.iter().map(|(offsets, why)| json!({ "offsets": range(offsets), "why": why })).collect::<Vec<_>>(),
        "meta": meta,
        "recovery": recovery,
        "appends_at": appends,
    })
}

fn refused(error: &Error) -> Value {
    match error {
        Error::Damaged(damage) => damaged(damage),
        Error::UnsupportedVersion { path, version, .. } => {
            json!({ "error": "UnsupportedVersion", "file": name(path), "version": version })
        }
        Error::Lost { offset } => json!({ "error": "Lost", "offset": offset }),
        Error::Io { action, source, .. } => {
            json!({ "error": "Io", "action": action, "kind": format!("{:?}", source.kind()) })
        }
        Error::ReadOnly { .. } => json!({ "error": "ReadOnly" }),
        // Others have no fields that mean anything to a log at rest: the variant's name.
        other => {
            let text = format!("{other:?}");
            json!({ "error": text.split(|letter: char| !letter.is_alphanumeric()).next() })
        }
    }
}

fn damaged(damage: &Damage) -> Value {
    json!({
        "error": "Damaged",
        // Where no file is to blame, it is the directory, and that has another name in each copy.
        "file": (damage.file != damage.directory).then(|| name(&damage.file)),
        "position": damage.position,
        "offsets": damage.offsets.as_ref().map(range),
        "proof": damage.proof,
    })
}

fn recovery(recovery: &Recovery) -> Value {
    let cut = |cut: &stonelog::recovery::CutTail| json!({ "file": cut.file, "positions": range(&cut.positions), "quarantined": cut.quarantined });
    json!({
        "begun": recovery.begun,
        "clean": recovery.clean,
        "verdict": format!("{:?}", recovery.verdict),
        "proven_end": recovery.proven_end,
        "proof": recovery.proof,
        "valid_end": recovery.valid_end,
        "next_offset": recovery.next_offset,
        "copied": range(&recovery.copied),
        "cut": recovery.cut.iter().map(cut).collect::<Vec<_>>(),
        "removed": recovery.removed,
        "quarantined": recovery.quarantined,
        "damaged": recovery.damaged.iter().map(range).collect::<Vec<_>>(),
    })
}

fn inspected(disk: &dyn Disk, directory: &Path, depth: Depth) -> Value {
    let findings = match inspect(disk, directory, depth) {
        Ok(findings) => findings,
        Err(error) => return refused(&error),
    };
    let manifest = match &findings.manifest {
        Reading::Absent => json!("absent"),
        Reading::Damaged(damage) => damaged(damage),
        Reading::Whole { state, generation, tail, length, edits } => json!({
            "generation": generation,
            "tail": format!("{tail:?}"),
            "length": length,
            "edits": edits,
            "front": state.front,
            "last_id": state.last_id,
            "closed": state.closed.map(|close| close.next_offset),
            "damaged": state.damaged.iter().map(|r| range(&r)).collect::<Vec<_>>(),
            "lost": state.lost.iter().map(|r| range(&r)).collect::<Vec<_>>(),
        }),
    };
    let segment = |segment: &stonelog::recovery::SegmentFindings| {
        json!({
            "id": segment.id,
            "base": segment.base,
            "sealed_at": segment.state.seal.map(|seal| seal.next_offset),
            "born_with": segment.state.born.map(|born| born.durable_end),
            "broken": segment.scan.as_ref().and_then(|scan| scan.broken).map(|broken| {
                json!({ "position": broken.position, "defect": format!("{:?}", broken.defect) })
            }),
            "tail": segment.scan.as_ref().and_then(|scan| scan.tail.as_ref()).map(range),
            "index_is_wrong": segment.index_defect.is_some(),
        })
    };
    let unnamed = |store: &stonelog::recovery::UnnamedStore| {
        json!({
            "id": store.id,
            "base": store.base,
            "origin": store.head.map(|head| format!("{:?}", head.origin)),
            "has_frames": store.has_frames,
        })
    };
    let assessment = findings.assessment.as_ref().map(|assessment| {
        let damage = |found: &stonelog::recovery::verdict::DamageFound| {
            json!({
                "kind": format!("{:?}", found.kind),
                "id": found.id,
                "position": found.position,
                "offsets": found.offsets.as_ref().map(range),
            })
        };
        json!({
            "p": assessment.proven_end,
            "proof": format!("{:?}", assessment.proof),
            "v": assessment.valid_end,
            "verdict": format!("{:?}", assessment.verdict),
            "unplaced": assessment.unplaced,
            "loss_is_bounded": assessment.loss_is_bounded,
            "damage": assessment.damage.iter().map(damage).collect::<Vec<_>>(),
        })
    });
    json!({
        "manifest": manifest,
        "segments": findings.segments.iter().map(segment).collect::<Vec<_>>(),
        "unnamed": findings.unnamed.iter().map(unnamed).collect::<Vec<_>>(),
        "temporary": findings.listing.temporary.iter().filter(|n| *n != "MANIFEST.next").collect::<Vec<_>>(),
        "strange": findings.listing.strange,
        "quarantined": findings.listing.quarantined,
        "assessment": assessment,
    })
}
