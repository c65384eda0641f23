//! What the machine can do at all: the bare operations that every log is made of.
//!
//! A limit stands beside the subjects in a workload's rounds, and its rate is told in that workload's records, so that
//! the numbers compare. It knows no log, but for the frames of a Stonelog store, which it walks by docs/FORMAT.md.

use std::fs::{File, OpenOptions};
use std::hint::black_box;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use memmap2::Mmap;
use rustix::fs::{FallocateFlags, fallocate};

use crate::payload::next_random;
use crate::subject::Kind;
use crate::subjects::stonelog::Stonelog;
use crate::workloads::{MIB, Outcome, Task, fill_and_close, latencies, read_bytes};

/// One bare operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Limit {
    /// write(2) of 1 MiB buffers into a fresh file, not synced.
    Write,
    /// A copy from one buffer of 1 MiB to another.
    Memcpy,
    /// write + fdatasync of 4 KiB into blocks that were written before: no metadata changes.
    SyncWrittenBefore,
    /// The same into fallocated blocks, which become written ones.
    SyncFallocated,
    /// The same at the end of a file that grows.
    SyncGrowing,
    /// crc32fast over pieces of a record's size.
    Crc,
    /// A walk along the frames of mapped Stonelog stores, crc32fast over each, and nothing else.
    Frames,
    /// A copy of a record's bytes out of a mapped file, at random positions.
    Mapped,
    /// pread of a record's bytes, at random positions.
    Pread,
    /// A copy of 16 MiB from a file that was read to a fresh one, and fsync: the most that recovery copies.
    CopyAndSync,
}

const ALL: [Limit; 10] = [
    Limit::Write,
    Limit::Memcpy,
    Limit::SyncWrittenBefore,
    Limit::SyncFallocated,
    Limit::SyncGrowing,
    Limit::Crc,
    Limit::Frames,
    Limit::Mapped,
    Limit::Pread,
    Limit::CopyAndSync,
];

const BLOCK: u64 = 4096;
const FRAME_HEADER: usize = 16;
const STORE_HEAD: usize = 1024;

impl Limit {
    pub fn name(self) -> &'static str {
        match self {
            Limit::Write => "write(2), 1 MiB each",
            Limit::Memcpy => "memcpy",
            Limit::SyncWrittenBefore => "write + fdatasync 4 KiB, written before",
            Limit::SyncFallocated => "write + fdatasync 4 KiB, fallocated",
            Limit::SyncGrowing => "write + fdatasync 4 KiB, growing",
            Limit::Crc => "crc32fast",
            Limit::Frames => "bare loop over frames",
            Limit::Mapped => "mapped read",
            Limit::Pread => "pread",
            Limit::CopyAndSync => "copy + fsync of 16 MiB",
        }
    }

    pub fn by_name(name: &str) -> Option<Limit> {
        ALL.into_iter().find(|limit| limit.name() == name)
    }

    /// Makes what is read, in a process of its own.
    pub fn prepare(self, task: &Task<'_>, size: usize) -> Result<Outcome> {
        match self {
            Limit::Frames => {
                fill_and_close(task, size, read_bytes(task.quick))?;
            }
            Limit::Mapped | Limit::Pread => {
                write_whole(&task.directory.join("file"), read_bytes(task.quick))?
            }
            _ => {}
        }
        Ok(Outcome::default())
    }

    /// Measures; rates are of records of `size` bytes.
    pub fn measure(self, task: &Task<'_>, size: usize) -> Result<Outcome> {
        let path = task.directory.join("file");
        let per_record =
            |bytes_per_second: f64| Outcome::new(None, [("rate", bytes_per_second / size as f64)]);
        Ok(match self {
            Limit::Write => per_record(write(&path, if task.quick { 16 * MIB } else { 48 * MIB })?),
            Limit::Memcpy => per_record(memcpy(1024 * MIB)),
            Limit::SyncWrittenBefore | Limit::SyncFallocated | Limit::SyncGrowing => {
                self.sync(&path, task)?
            }
            Limit::Crc => per_record(crc(size)),
            Limit::Frames => Outcome::new(None, [("rate", frames(task)?)]),
            Limit::Mapped | Limit::Pread => Outcome::new(None, [("rate", self.random(&path, size, task)?)]),
            Limit::CopyAndSync => Outcome::new(None, [("seconds", copy_and_sync(&path)?)]),
        })
    }

    fn sync(self, path: &Path, task: &Task<'_>) -> Result<Outcome> {
        let file = File::create(path)?;
        let length = 16 * MIB;
        match self {
            Limit::SyncWrittenBefore => write_whole(path, length)?,
            Limit::SyncFallocated => fallocate(&file, FallocateFlags::empty(), 0, length)?,
            _ => {}
        }
        file.sync_all()?;
        let block = vec![0x5a; BLOCK as usize];
        let mut latencies = latencies()?;
        let start = Instant::now();
        let mut before = start;
        // Not around and around: whoever comes to a fallocated block a second time finds it written before.
        for step in 0..length / BLOCK {
            file.write_all_at(&block, step * BLOCK)?;
            file.sync_data()?;
            let after = Instant::now();
            latencies.saturating_record((after - before).as_nanos() as u64);
            before = after;
            if before - start > task.time_box() {
                break;
            }
        }
        let metrics = [
            ("rate", latencies.len() as f64 / (before - start).as_secs_f64()),
            ("p50", latencies.value_at_quantile(0.5) as f64 / 1e9),
            ("p99", latencies.value_at_quantile(0.99) as f64 / 1e9),
        ];
        Ok(Outcome::new(None, metrics))
    }

    fn random(self, path: &Path, size: usize, task: &Task<'_>) -> Result<f64> {
        let file = File::open(path)?;
        let map = map(&file)?;
        let count = map.len() as u64 / size as u64;
        let mut record = vec![0; size];
        let mut state = 1;
        let (mut done, mut sum) = (0_u64, 0_u64);
        let mut start = Instant::now();
        let mut warm = false;
        while start.elapsed() < task.time_box() {
            for _ in 0..64 {
                let position = next_random(&mut state) % count * size as u64;
                if self == Limit::Mapped {
                    record.copy_from_slice(&map[position as usize..position as usize + size]);
                } else {
                    file.read_exact_at(&mut record, position)?;
                }
                sum += u64::from(black_box(&record)[0]);
            }
            done += 64;
            if !warm && start.elapsed() > task.time_box() / 3 {
                (warm, done, start) = (true, 0, Instant::now());
            }
        }
        black_box(sum);
        Ok(done as f64 / start.elapsed().as_secs_f64())
    }
}

#[expect(unsafe_code, reason = "a map's bytes may change under us; nobody else has this file")]
fn map(file: &File) -> Result<Mmap> {
    // SAFETY: the file lies in a fresh directory of this measurement, and no one writes to it any more.
    Ok(unsafe { Mmap::map(file) }?)
}

fn write_whole(path: &Path, length: u64) -> Result<()> {
    use std::io::Write;
    let mut file = OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
    let buffer = vec![0x5a; MIB as usize];
    for _ in 0..length / MIB {
        file.write_all(&buffer)?;
    }
    Ok(())
}

fn write(path: &Path, total: u64) -> Result<f64> {
    use std::io::Write;
    let buffer = vec![0x5a; MIB as usize];
    let mut file = File::create(path)?;
    let start = Instant::now();
    for _ in 0..total / MIB {
        file.write_all(black_box(&buffer))?;
    }
    Ok(total as f64 / start.elapsed().as_secs_f64())
}

fn memcpy(total: u64) -> f64 {
    let from = vec![0x5a_u8; MIB as usize];
    let mut to = vec![0_u8; MIB as usize];
    let start = Instant::now();
    for _ in 0..total / MIB {
        to.copy_from_slice(black_box(&from));
        black_box(&to);
    }
    total as f64 / start.elapsed().as_secs_f64()
}

fn crc(size: usize) -> f64 {
    let bytes = vec![0x5a; 64 * MIB as usize];
    let mut best = 0.0;
    for _ in 0..3 {
        let start = Instant::now();
        for piece in bytes.chunks_exact(size) {
            black_box(crc32fast::hash(black_box(piece)));
        }
        best = f64::max(best, bytes.len() as f64 / start.elapsed().as_secs_f64());
    }
    best
}

/// Records a second, the best of three passes, as in the scan that stands beside it.
fn frames(task: &Task<'_>) -> Result<f64> {
    let mut stores: Vec<PathBuf> = std::fs::read_dir(task.directory)?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<Vec<_>>>()?
        .into_iter()
        .filter(|path| path.extension().is_some_and(|extension| extension == "store"))
        .collect();
    stores.sort();
    let maps = stores.iter().map(|path| map(&File::open(path)?)).collect::<Result<Vec<_>>>()?;
    let mut best = 0.0;
    for _ in 0..3 {
        let mut count = 0_u64;
        let start = Instant::now();
        for map in &maps {
            count += walk(map);
        }
        best = f64::max(best, count as f64 / start.elapsed().as_secs_f64());
        ensure!(count > 0, "no frame was found");
    }
    Ok(best)
}

/// Walks along a store's frames, up to the first that is none; returns how many. The checksum is computed over as many
/// bytes as a reader's, with zeros for the seed, and so is compared with nothing.
fn walk(store: &[u8]) -> u64 {
    let mut rest = store.get(STORE_HEAD..).unwrap_or_default();
    let fresh = crc32fast::Hasher::new();
    let mut count = 0;
    while let Some((header, behind)) = rest.split_first_chunk::<FRAME_HEADER>() {
        let word = u32::from_le_bytes([header[4], header[5], header[6], header[7]]);
        let (kind, length) = (word >> 28, (word & 0x0FFF_FFFF) as usize);
        let Some(payload) = behind.get(..length) else { break };
        if kind != 1 && kind != 2 {
            break;
        }
        let mut hasher = fresh.clone();
        hasher.update(payload);
        let mut rest_of_header = [0; FRAME_HEADER];
        rest_of_header[..FRAME_HEADER - 4].copy_from_slice(&header[4..]);
        hasher.update(&rest_of_header);
        black_box(hasher.finalize());
        rest = behind.get(length.next_multiple_of(8)..).unwrap_or_default();
        count += 1;
    }
    count
}

fn copy_and_sync(path: &Path) -> Result<f64> {
    write_whole(path, 16 * MIB)?;
    let from = std::fs::read(path)?;
    let start = Instant::now();
    let to = File::create(path.with_extension("copy"))?;
    to.write_all_at(&from, 0)?;
    to.sync_all().context("fsync")?;
    Ok(start.elapsed().as_secs_f64())
}

/// What a limit's process is given for a kind: the frames that are walked are Stonelog's.
pub const KIND: &dyn Kind = &Stonelog;
