//! heed 0.23.1 over LMDB's master: a memory-mapped copy-on-write B-tree.
//!
//! Its docs: `PutFlags::APPEND` "allows fast bulk loading when keys are already known to be in the correct order";
//! without flags a commit syncs the data and then, by `O_DSYNC`, the meta page; with `NO_SYNC` it does not, and `force_sync` does. LMDB's
//! docs add that with `NO_SYNC` a power cut can corrupt the database unless the file system keeps the order of writes.
//! Each call is a transaction: a write transaction cannot be kept for another thread's call, and reads would not see
//! its records. Reads open one of their own, so threads do not wait for one another, and hand the map's bytes over.
//!
//! LMDB's docs offer `WRITE_MAP` for speed too, at the cost that a stray pointer can write to the database. It makes
//! small unsynced transactions several times faster and large ones slower, so there is a kind with it and one without.
//!
//! The map is 16 GiB, the most that the log can hold.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result};
use heed::byteorder::BigEndian;
use heed::types::{Bytes, U64};
use heed::{CommitOrAbort, Database, Env, EnvFlags, EnvOpenOptions, PutFlags};

use crate::subject::{Kind, Mode, Subject};

pub struct Heed {
    pub write_map: bool,
}

type Log = Database<'static, U64<BigEndian>, Bytes>;

const MAP_BYTES: usize = 16 << 30;

impl Kind for Heed {
    fn name(&self) -> &'static str {
        if self.write_map { "heed+write-map" } else { "heed" }
    }

    fn claims(&self) -> &'static str {
        "synced at each commit, data and meta page"
    }

    fn verifies_reads(&self) -> bool {
        false
    }

    fn open(&self, directory: &Path, mode: Mode) -> Result<Box<dyn Subject>> {
        std::fs::create_dir_all(directory)?;
        let mut options = EnvOpenOptions::new();
        options.map_size(MAP_BYTES);
        if mode == Mode::Unsynced {
            // SAFETY: what NO_SYNC puts at risk is the database after a power cut, which the mode accepts.
            unsafe { options.flags(EnvFlags::NO_SYNC) };
        }
        if self.write_map {
            // SAFETY: nothing else in this process writes to memory that is not its own.
            unsafe { options.flags(EnvFlags::WRITE_MAP) };
        }
        // SAFETY: the directory is the caller's alone and nothing else writes to the mapped file.
        let environment = unsafe { options.open(directory)? };
        let transaction = environment.write_txn()?;
        let log: Log = environment
            .create_databases_and_commit(transaction, |opener, transaction| {
                opener.create_database(transaction, None).map(CommitOrAbort::<_, ()>::Commit)
            })?
            .unwrap_commit();
        let transaction = environment.read_txn()?;
        let last = log.last(&transaction)?.map(|(number, _)| number);
        drop(transaction);
        Ok(Box::new(Open { environment, log, next: AtomicU64::new(last.map_or(0, |last| last + 1)) }))
    }
}

struct Open {
    environment: Env,
    log: Log,
    /// Read and written only under a write transaction, of which there is one at a time.
    next: AtomicU64,
}

impl Open {
    fn write<'a>(&self, payloads: impl Iterator<Item = &'a [u8]>) -> Result<()> {
        let mut transaction = self.environment.write_txn()?;
        let before = self.next.load(Ordering::Relaxed);
        let mut number = before;
        for payload in payloads {
            self.log.put_with_flags(&mut transaction, PutFlags::APPEND, &number, payload)?;
            number += 1;
        }
        // Before the commit lets the next writer in. Numbers of a failed commit stay unused.
        self.next.store(number, Ordering::Relaxed);
        Ok(transaction.commit()?)
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
        Ok(self.environment.force_sync()?)
    }

    fn scan(&self, visit: &mut dyn FnMut(&[u8])) -> Result<u64> {
        let transaction = self.environment.read_txn()?;
        let mut count = 0;
        for record in self.log.iter(&transaction)?.move_between_keys() {
            visit(record?.1);
            count += 1;
        }
        Ok(count)
    }

    fn read(&self, number: u64, visit: &mut dyn FnMut(&[u8])) -> Result<()> {
        let transaction = self.environment.read_txn()?;
        visit(self.log.get(&transaction, &number)?.context("no such record")?);
        Ok(())
    }

    fn truncate_front(&self, number: u64) -> Result<()> {
        let mut transaction = self.environment.write_txn()?;
        self.log.delete_range(&mut transaction, &(..number))?;
        Ok(transaction.commit()?)
    }

    fn close(self: Box<Self>) -> Result<()> {
        let Open { environment, .. } = *self;
        environment.force_sync()?;
        environment.prepare_for_closing().wait();
        Ok(())
    }
}
