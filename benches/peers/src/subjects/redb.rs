//! redb 4.6.0 (13 November 2026), a copy-on-write B-tree in one file.
//!
//! Its docs: `Durability::Immediate`, the default, is "guaranteed to be persistent as soon as `commit` returns";
//! with `Durability::None` a commit is persistent only after a later one with `Immediate`, which is what `sync` does
//! here. Each call is a transaction, as redb has no write outside one. Cache: its default.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result};
use redb::{Database, Durability, ReadableDatabase, ReadableTable, TableDefinition};

use crate::subject::{Kind, Mode, Subject};

pub struct Redb;

const LOG: TableDefinition<u64, &[u8]> = TableDefinition::new("log");

impl Kind for Redb {
    fn name(&self) -> &'static str {
        "redb"
    }

    fn claims(&self) -> &'static str {
        "Durability::Immediate: persistent once commit returns"
    }

    fn verifies_reads(&self) -> bool {
        false
    }

    fn open(&self, directory: &Path, mode: Mode) -> Result<Box<dyn Subject>> {
        std::fs::create_dir_all(directory)?;
        let database = Database::create(directory.join("log.redb"))?;
        let transaction = database.begin_write()?;
        let next = transaction.open_table(LOG)?.last()?.map_or(0, |(number, _)| number.value() + 1);
        transaction.commit()?;
        let durability = match mode {
            Mode::Durable => Durability::Immediate,
            Mode::Unsynced => Durability::None,
        };
        Ok(Box::new(Open { database, durability, next: AtomicU64::new(next) }))
    }
}

struct Open {
    database: Database,
    durability: Durability,
    /// Read and written only under a write transaction, of which there is one at a time.
    next: AtomicU64,
}

impl Open {
    fn write<'a>(&self, payloads: impl Iterator<Item = &'a [u8]>) -> Result<()> {
        let mut transaction = self.database.begin_write()?;
        transaction.set_durability(self.durability)?;
        let mut number = self.next.load(Ordering::Relaxed);
        {
            let mut log = transaction.open_table(LOG)?;
            for payload in payloads {
                log.insert(number, payload)?;
                number += 1;
            }
        }
        // Before the commit lets the next writer in. A failed commit makes the database refuse further ones.
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
        Ok(self.database.begin_write()?.commit()?)
    }

    fn scan(&self, visit: &mut dyn FnMut(&[u8])) -> Result<u64> {
        let log = self.database.begin_read()?.open_table(LOG)?;
        let mut count = 0;
        for record in log.iter()? {
            visit(record?.1.value());
            count += 1;
        }
        Ok(count)
    }

    fn read(&self, number: u64, visit: &mut dyn FnMut(&[u8])) -> Result<()> {
        let log = self.database.begin_read()?.open_table(LOG)?;
        visit(log.get(number)?.context("no such record")?.value());
        Ok(())
    }

    fn truncate_front(&self, number: u64) -> Result<()> {
        let mut transaction = self.database.begin_write()?;
        transaction.set_durability(self.durability)?;
        transaction.open_table(LOG)?.retain_in(..number, |_, _| false)?;
        Ok(transaction.commit()?)
    }

    fn close(self: Box<Self>) -> Result<()> {
        Ok(self.database.close()?)
    }
}
