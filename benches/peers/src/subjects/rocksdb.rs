//! rocksdb 0.25.0 (16 August 2026), the binding, with the RocksDB 11.8.1 that it compiles: a log-structured merge
//! tree with a write-ahead log in front.
//!
//! RocksDB's docs: a write with `sync` returns once the write-ahead log is synced, and concurrent writes share a sync;
//! with `manual_wal_flush` unsynced writes stay in the process until `flush_wal`, which saves a system call each;
//! `DeleteRange` and `DeleteFilesInRange` for old data. No compression (the feature is off): a log's payloads are as
//! the caller wants them. The rest is as by default.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result};
use rocksdb::{DB, IteratorMode, Options, WriteBatch, WriteOptions};

use crate::subject::{Kind, Mode, Subject};

pub struct RocksDb;

impl Kind for RocksDb {
    fn name(&self) -> &'static str {
        "rocksdb"
    }

    fn claims(&self) -> &'static str {
        "WriteOptions::sync: fdatasync of the write-ahead log"
    }

    fn verifies_reads(&self) -> bool {
        true
    }

    fn open(&self, directory: &Path, mode: Mode) -> Result<Box<dyn Subject>> {
        let mut options = Options::default();
        options.create_if_missing(true);
        options.set_manual_wal_flush(mode == Mode::Unsynced);
        let database = DB::open(&options, directory)?;
        let last = database.iterator(IteratorMode::End).next().transpose()?;
        let next = match last {
            Some((key, _)) => u64::from_be_bytes(key.as_ref().try_into()?) + 1,
            None => 0,
        };
        Ok(Box::new(Open {
            database,
            sync: mode == Mode::Durable,
            first: AtomicU64::new(0),
            next: AtomicU64::new(next),
        }))
    }
}

struct Open {
    database: DB,
    sync: bool,
    /// The first number that may be left: a scan from here has no removed records to step over.
    first: AtomicU64,
    next: AtomicU64,
}

impl Open {
    fn write_options(&self) -> WriteOptions {
        let mut options = WriteOptions::default();
        options.set_sync(self.sync);
        options
    }
}

impl Subject for Open {
    fn append(&self, payload: &[u8]) -> Result<()> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        Ok(self.database.put_opt(number.to_be_bytes(), payload, &self.write_options())?)
    }

    fn append_batch(&self, payloads: &[&[u8]]) -> Result<()> {
        let first = self.next.fetch_add(payloads.len() as u64, Ordering::Relaxed);
        let mut batch = WriteBatch::default();
        for (number, payload) in (first..).zip(payloads) {
            batch.put(number.to_be_bytes(), payload);
        }
        Ok(self.database.write_opt(batch, &self.write_options())?)
    }

    fn sync(&self) -> Result<()> {
        Ok(self.database.flush_wal(true)?)
    }

    fn scan(&self, visit: &mut dyn FnMut(&[u8])) -> Result<u64> {
        let mut records = self.database.raw_iterator();
        records.seek(self.first.load(Ordering::Relaxed).to_be_bytes());
        let mut count = 0;
        while let Some(payload) = records.value() {
            visit(payload);
            count += 1;
            records.next();
        }
        records.status()?;
        Ok(count)
    }

    fn read(&self, number: u64, visit: &mut dyn FnMut(&[u8])) -> Result<()> {
        visit(&self.database.get_pinned(number.to_be_bytes())?.context("no such record")?);
        Ok(())
    }

    fn truncate_front(&self, number: u64) -> Result<()> {
        let (from, to) = (0_u64.to_be_bytes(), number.to_be_bytes());
        let mut batch = WriteBatch::default();
        batch.delete_range(from, to);
        self.database.write_opt(batch, &self.write_options())?;
        self.database.delete_file_in_range(from, to)?;
        self.first.fetch_max(number, Ordering::Relaxed);
        Ok(())
    }

    fn close(self: Box<Self>) -> Result<()> {
        self.sync()
    }
}
