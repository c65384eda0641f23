//! rusqlite 0.43.0 with the SQLite 3.54.1 that it bundles: a table, keyed by the record's number.
//!
//! SQLite's docs: WAL mode is "significantly faster in most scenarios"; with `synchronous = FULL` the write-ahead log
//! is synced at each commit. With `OFF` SQLite "continues without syncing as soon as it has handed data off to the
//! operating system", and a power cut may then corrupt the database: the fastest way for unsynced appends. (`NORMAL`,
//! which keeps the database consistent, syncs at every checkpoint and is 2 to 3 times slower here.) A checkpoint with
//! `FULL` makes all durable. Statements are prepared once. A call for one record is a transaction of its own.
//!
//! There is one writer at a time by SQLite's design: one connection under a lock. Readers take connections from a
//! pool, so that they wait for no one.

use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};
use rusqlite::{Connection, OptionalExtension, TransactionBehavior};

use crate::subject::{Kind, Mode, Subject};

pub struct Rusqlite;

const INSERT: &str = "insert into log (number, payload) values (?1, ?2)";

impl Kind for Rusqlite {
    fn name(&self) -> &'static str {
        "rusqlite"
    }

    fn claims(&self) -> &'static str {
        "WAL, synchronous = FULL: synced at each commit"
    }

    fn verifies_reads(&self) -> bool {
        false
    }

    fn open(&self, directory: &Path, mode: Mode) -> Result<Box<dyn Subject>> {
        std::fs::create_dir_all(directory)?;
        let path = directory.join("log.sqlite");
        let connection = Connection::open(&path)?;
        connection.pragma_update(None, "journal_mode", "wal")?;
        let synchronous = match mode {
            Mode::Durable => "full",
            Mode::Unsynced => "off",
        };
        connection.pragma_update(None, "synchronous", synchronous)?;
        connection.execute(
            "create table if not exists log (number integer primary key, payload blob not null)",
            (),
        )?;
        let last: Option<u64> = connection.query_row("select max(number) from log", (), |row| row.get(0))?;
        let writer = Writer { connection, next: last.map_or(0, |last| last + 1) };
        Ok(Box::new(Open { path, synchronous, writer: Mutex::new(writer), idle_readers: Mutex::default() }))
    }
}

struct Writer {
    connection: Connection,
    next: u64,
}

struct Open {
    path: PathBuf,
    synchronous: &'static str,
    writer: Mutex<Writer>,
    idle_readers: Mutex<Vec<Connection>>,
}

/// A connection to read with, which goes back to the pool.
struct Reader<'a> {
    pool: &'a Mutex<Vec<Connection>>,
    connection: Option<Connection>,
}

impl Deref for Reader<'_> {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        self.connection.as_ref().expect("there until dropped")
    }
}

impl Drop for Reader<'_> {
    fn drop(&mut self) {
        let mut pool = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
        pool.extend(self.connection.take());
    }
}

impl Open {
    fn reader(&self) -> Result<Reader<'_>> {
        let idle = self.idle_readers.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let connection = match idle {
            Some(connection) => connection,
            None => Connection::open(&self.path)?,
        };
        Ok(Reader { pool: &self.idle_readers, connection: Some(connection) })
    }
}

impl Subject for Open {
    fn append(&self, payload: &[u8]) -> Result<()> {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        writer.connection.prepare_cached(INSERT)?.execute((writer.next, payload))?;
        writer.next += 1;
        Ok(())
    }

    fn append_batch(&self, payloads: &[&[u8]]) -> Result<()> {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let Writer { connection, next } = &mut *writer;
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        {
            let mut insert = transaction.prepare_cached(INSERT)?;
            for (number, payload) in (*next..).zip(payloads) {
                insert.execute((number, payload))?;
            }
        }
        transaction.commit()?;
        *next += payloads.len() as u64;
        Ok(())
    }

    fn sync(&self) -> Result<()> {
        let connection = &self.writer.lock().unwrap_or_else(PoisonError::into_inner).connection;
        connection.pragma_update(None, "synchronous", "full")?;
        // A checkpoint that finds nothing to copy syncs nothing, though earlier ones may have copied without a sync:
        // so that it does, write something.
        connection.pragma_update(None, "user_version", 1)?;
        connection.query_row("pragma wal_checkpoint(full)", (), |_| Ok(()))?;
        connection.pragma_update(None, "synchronous", self.synchronous)?;
        Ok(())
    }

    fn scan(&self, visit: &mut dyn FnMut(&[u8])) -> Result<u64> {
        let reader = self.reader()?;
        let mut select = reader.prepare_cached("select payload from log order by number")?;
        let mut rows = select.query(())?;
        let mut count = 0;
        while let Some(row) = rows.next()? {
            visit(row.get_ref(0)?.as_blob()?);
            count += 1;
        }
        Ok(count)
    }

    fn read(&self, number: u64, visit: &mut dyn FnMut(&[u8])) -> Result<()> {
        let reader = self.reader()?;
        let mut select = reader.prepare_cached("select payload from log where number = ?1")?;
        select
            .query_row((number,), |row| {
                visit(row.get_ref(0)?.as_blob()?);
                Ok(())
            })
            .optional()?
            .context("no such record")
    }

    fn truncate_front(&self, number: u64) -> Result<()> {
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        writer.connection.execute("delete from log where number < ?1", (number,))?;
        Ok(())
    }

    fn close(self: Box<Self>) -> Result<()> {
        self.sync()?;
        // The last connection to close folds the write-ahead log into the database: the writer's, for its errors.
        drop(self.idle_readers);
        let writer = self.writer.into_inner().unwrap_or_else(PoisonError::into_inner);
        writer.connection.close().map_err(|(_, error)| error.into())
    }
}
