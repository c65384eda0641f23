//! raft-engine 0.4.2 (16 April 2024), TiKV's log store.
//!
//! Its docs: a `LogBatch` of protobuf entries with consecutive indexes per Raft group, `Engine::write(batch, sync)`;
//! "each writing thread must enter a queue. The first in line automatically becomes the queue leader, responsible for
//! writing the entire group to the log file", with one `fdatasync` for all of them. Configuration: its defaults, LZ4
//! over batches above 8 KiB included, and files freed only once the log is above 10 GB.
//!
//! Indexes must follow one another within a Raft group, so threads that share one would wait for one another and lose
//! the group commit. Its users have many groups; here each writing thread has its own, from 1 upwards in the order in
//! which the threads first append. The records' numbers run through the first group, then through the second, and so
//! on: with one writing thread that is the order of the appends, with several it is not. A group that was given up
//! whole starts anew after a reopen, as nothing but its entries tells its last index.
//!
//! The engine keeps the last block that a thread read in a thread-local cache, keyed by file number, offset and length
//! but not by engine: a thread that outlives one engine and reads the same place of another gets the first one's
//! bytes. Whoever reads several logs must read each with threads of its own.

use std::cell::RefCell;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use anyhow::{Context, Result};
use raft_engine::{Config, Engine, LogBatch, MessageExt};
use raft_proto::eraftpb::Entry;

use crate::subject::{Kind, Mode, Subject};

pub struct RaftEngine;

/// The group of what `sync` writes.
const SYNC_GROUP: u64 = u64::MAX;

/// How much one fetch of a scan asks for.
const ENTRIES_PER_FETCH: u64 = 1_000;

/// How raft-engine finds the index in an entry.
struct Entries;

impl MessageExt for Entries {
    type Entry = Entry;

    fn index(entry: &Entry) -> u64 {
        entry.index
    }
}

impl Kind for RaftEngine {
    fn name(&self) -> &'static str {
        "raft-engine"
    }

    fn claims(&self) -> &'static str {
        "fdatasync after the write, shared by all writers in the queue"
    }

    fn verifies_reads(&self) -> bool {
        true
    }

    fn open(&self, directory: &Path, mode: Mode) -> Result<Box<dyn Subject>> {
        static OPENED: AtomicU64 = AtomicU64::new(0);

        // The engine makes the last directory only.
        std::fs::create_dir_all(directory)?;
        let dir = directory.to_str().context("a path of UTF-8")?.to_owned();
        let engine = Engine::open(Config { dir, ..Config::default() })?;
        let groups = engine.raft_groups().into_iter().filter(|group| *group != SYNC_GROUP).max().unwrap_or(0);
        let lasts = (1..=groups)
            .map(|group| Arc::new(AtomicU64::new(engine.last_index(group).unwrap_or(0))))
            .collect();
        Ok(Box::new(Open {
            engine,
            sync: mode == Mode::Durable,
            instance: OPENED.fetch_add(1, Ordering::Relaxed) + 1,
            lasts: RwLock::new(lasts),
            given_out: AtomicU64::new(0),
        }))
    }
}

struct Open {
    engine: Engine,
    sync: bool,
    /// Tells this log from others in the threads' `WRITER`.
    instance: u64,
    /// The last index of each group; the first is group 1's. Only the thread that owns a group changes its.
    lasts: RwLock<Vec<Arc<AtomicU64>>>,
    /// How many groups threads of this opening own.
    given_out: AtomicU64,
}

/// What a thread needs to append: its group in the log it last wrote to, and buffers to use again.
struct Writer {
    instance: u64,
    group: u64,
    last: Arc<AtomicU64>,
    entries: Vec<Entry>,
    batch: LogBatch,
}

thread_local! {
    static WRITER: RefCell<Writer> = RefCell::new(Writer {
        instance: 0,
        group: 0,
        last: Arc::default(),
        entries: Vec::new(),
        batch: LogBatch::default(),
    });
}

impl Open {
    fn write<'a>(&self, payloads: impl Iterator<Item = &'a [u8]>) -> Result<()> {
        WRITER.with_borrow_mut(|writer| {
            if writer.instance != self.instance {
                (writer.group, writer.last) = self.own_a_group();
                writer.instance = self.instance;
            }
            let mut index = writer.last.load(Ordering::Relaxed);
            writer.entries.clear();
            writer.entries.extend(payloads.map(|payload| {
                index += 1;
                Entry { index, data: payload.to_vec().into(), ..Entry::default() }
            }));
            writer.batch.add_entries::<Entries>(writer.group, &writer.entries)?;
            self.engine.write(&mut writer.batch, self.sync)?;
            writer.last.store(index, Ordering::Release);
            Ok(())
        })
    }

    /// The next group that no thread of this opening owns, with the entries it may have from earlier.
    fn own_a_group(&self) -> (u64, Arc<AtomicU64>) {
        let mut lasts = self.lasts.write().unwrap_or_else(PoisonError::into_inner);
        let position = self.given_out.fetch_add(1, Ordering::Relaxed);
        let at = position as usize;
        if at == lasts.len() {
            lasts.push(Arc::default());
        }
        (position + 1, Arc::clone(&lasts[at]))
    }

    /// Each group that has entries, with the number before its first index's and its last index.
    fn groups(&self) -> Vec<(u64, u64, u64)> {
        let lasts = self.lasts.read().unwrap_or_else(PoisonError::into_inner);
        let mut base = 0;
        let mut groups = Vec::with_capacity(lasts.len());
        for (group, last) in (1..).zip(lasts.iter()) {
            let last = last.load(Ordering::Acquire);
            groups.push((group, base, last));
            base += last;
        }
        groups
    }

    /// The group and index of a record.
    fn place(&self, number: u64) -> Option<(u64, u64)> {
        let lasts = self.lasts.read().unwrap_or_else(PoisonError::into_inner);
        let mut index = number + 1;
        for (group, last) in (1..).zip(lasts.iter()) {
            let last = last.load(Ordering::Acquire);
            if index <= last {
                return Some((group, index));
            }
            index -= last;
        }
        None
    }
}

impl Subject for Open {
    fn append(&self, payload: &[u8]) -> Result<()> {
        self.write(std::iter::once(payload))
    }

    fn append_batch(&self, payloads: &[&[u8]]) -> Result<()> {
        self.write(payloads.iter().copied())
    }

    fn sync(&self) -> Result<()> {
        // Not `Engine::sync`: it writes an empty batch, which `write` passes over without a sync.
        let mut batch = LogBatch::default();
        batch.put(SYNC_GROUP, b"sync".to_vec(), Vec::new())?;
        self.engine.write(&mut batch, true)?;
        Ok(())
    }

    fn scan(&self, visit: &mut dyn FnMut(&[u8])) -> Result<u64> {
        let mut count = 0;
        let mut entries = Vec::new();
        for (group, _, last) in self.groups() {
            let Some(mut next) = self.engine.first_index(group) else { continue };
            while next <= last {
                let end = (last + 1).min(next + ENTRIES_PER_FETCH);
                self.engine.fetch_entries_to::<Entries>(group, next, end, None, &mut entries)?;
                entries.iter().for_each(|entry| visit(&entry.data));
                count += entries.len() as u64;
                entries.clear();
                next = end;
            }
        }
        Ok(count)
    }

    fn read(&self, number: u64, visit: &mut dyn FnMut(&[u8])) -> Result<()> {
        let (group, index) = self.place(number).context("no such record")?;
        let entry = self.engine.get_entry::<Entries>(group, index)?.context("no such record")?;
        visit(&entry.data);
        Ok(())
    }

    fn truncate_front(&self, number: u64) -> Result<()> {
        for (group, base, last) in self.groups() {
            if number > base {
                self.engine.compact_to(group, (number - base).min(last) + 1);
            }
        }
        self.engine.purge_expired_files()?;
        Ok(())
    }

    fn close(self: Box<Self>) -> Result<()> {
        // There is no other close: what the system has buffered stays so until it writes it out.
        drop(self);
        Ok(())
    }
}
