//! fjall 3.1.13, a log-structured merge tree with a journal in front.
//!
//! Its docs: integer keys "should use the big endian form"; after a write "you can choose to call
//! `Database::persist`", with `SyncData` for `fdatasync`, as `insert` flushes to the system's buffers but not to disk.
//! `manual_journal_persist` leaves out that flush too: the fastest way for unsynced appends. Else its defaults.
//! Appends of several threads do not share a sync: `persist` syncs under the journal's lock.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result};
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};

use crate::subject::{Kind, Mode, Subject};

pub struct Fjall;

/// How many removals go into one batch.
const REMOVALS_PER_BATCH: u64 = 10_000;

impl Kind for Fjall {
    fn name(&self) -> &'static str {
        "fjall"
    }

    fn claims(&self) -> &'static str {
        "PersistMode::SyncData: fdatasync of the journal"
    }

    fn verifies_reads(&self) -> bool {
        true
    }

    fn open(&self, directory: &Path, mode: Mode) -> Result<Box<dyn Subject>> {
        let database = Database::builder(directory).manual_journal_persist(true).open()?;
        let log = database.keyspace("log", KeyspaceCreateOptions::default)?;
        let first = log.first_key_value().map(|record| number_of(&record.key()?)).transpose()?;
        let last = log.last_key_value().map(|record| number_of(&record.key()?)).transpose()?;
        Ok(Box::new(Open {
            database,
            log,
            sync_each: mode == Mode::Durable,
            first: AtomicU64::new(first.unwrap_or(0)),
            next: AtomicU64::new(last.map_or(0, |last| last + 1)),
        }))
    }
}

fn number_of(key: &[u8]) -> Result<u64> {
    Ok(u64::from_be_bytes(key.try_into()?))
}

struct Open {
    database: Database,
    log: Keyspace,
    sync_each: bool,
    first: AtomicU64,
    next: AtomicU64,
}

impl Subject for Open {
    fn append(&self, payload: &[u8]) -> Result<()> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.log.insert(number.to_be_bytes(), payload)?;
        if self.sync_each {
            self.database.persist(PersistMode::SyncData)?;
        }
        Ok(())
    }

    fn append_batch(&self, payloads: &[&[u8]]) -> Result<()> {
        let first = self.next.fetch_add(payloads.len() as u64, Ordering::Relaxed);
        let durability = self.sync_each.then_some(PersistMode::SyncData);
        let mut batch = self.database.batch().durability(durability);
        for (number, payload) in (first..).zip(payloads) {
            batch.insert(&self.log, number.to_be_bytes(), *payload);
        }
        Ok(batch.commit()?)
    }

    fn sync(&self) -> Result<()> {
        Ok(self.database.persist(PersistMode::SyncData)?)
    }

    fn scan(&self, visit: &mut dyn FnMut(&[u8])) -> Result<u64> {
        let mut count = 0;
        for record in self.log.range(self.first.load(Ordering::Relaxed).to_be_bytes()..) {
            visit(&record.value()?);
            count += 1;
        }
        Ok(count)
    }

    fn read(&self, number: u64, visit: &mut dyn FnMut(&[u8])) -> Result<()> {
        visit(&self.log.get(number.to_be_bytes())?.context("no such record")?);
        Ok(())
    }

    fn truncate_front(&self, number: u64) -> Result<()> {
        // There is no removal of a range: one for each record.
        let mut first = self.first.load(Ordering::Relaxed);
        while first < number {
            let end = number.min(first + REMOVALS_PER_BATCH);
            let mut batch = self.database.batch();
            (first..end).for_each(|number| batch.remove(&self.log, number.to_be_bytes()));
            batch.commit()?;
            first = end;
            self.first.store(first, Ordering::Relaxed);
        }
        if self.sync_each {
            self.sync()?;
        }
        Ok(())
    }

    fn close(self: Box<Self>) -> Result<()> {
        // Dropping the database persists the journal too, but would not tell of an error.
        Ok(self.database.persist(PersistMode::SyncAll)?)
    }
}
