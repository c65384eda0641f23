//! mrecordlog 0.4.0 (3 July 2023), Quickwit's record log; its later versions are not on crates.io.
//!
//! Its docs: queues within one log, `append_record` and `append_records`, `SyncPolicy::OnAppend` "sync and flush at
//! each operation" or `OnDelay`, `range` to read, `truncate`. All retained records are in memory and reads come from
//! there ("all retained data can fit in RAM"); the files are read at the opening only. One queue here.
//!
//! Its source: a sync writes the process's own buffer to the file, and no file is ever synced.
//!
//! The calls are async over tokio's files: a runtime of one thread drives them, under the lock that their `&mut`
//! needs. Reads share the lock.

use std::path::Path;
use std::sync::{Mutex, PoisonError, RwLock};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use mrecordlog::error::MissingQueue;
use mrecordlog::{MultiRecordLog, SyncPolicy};
use tokio::runtime::{Builder, Runtime};

use crate::subject::{Kind, Mode, Subject};

pub struct Mrecordlog;

const QUEUE: &str = "log";

/// How long `OnDelay` keeps records in memory: Quickwit's own setting.
const DELAY: Duration = Duration::from_secs(5);

impl Kind for Mrecordlog {
    fn name(&self) -> &'static str {
        "mrecordlog"
    }

    fn claims(&self) -> &'static str {
        "SyncPolicy::OnAppend: \"sync and flush at each operation\""
    }

    fn verifies_reads(&self) -> bool {
        false
    }

    fn open(&self, directory: &Path, mode: Mode) -> Result<Box<dyn Subject>> {
        let policy = match mode {
            Mode::Durable => SyncPolicy::OnAppend,
            Mode::Unsynced => SyncPolicy::OnDelay(DELAY),
        };
        std::fs::create_dir_all(directory)?;
        let runtime = Builder::new_current_thread().build()?;
        let log = runtime.block_on(async {
            let mut log = MultiRecordLog::open_with_prefs(directory, policy).await?;
            if !log.queue_exists(QUEUE) {
                log.create_queue(QUEUE).await?;
            }
            anyhow::Ok(log)
        })?;
        Ok(Box::new(Open { runtime: Mutex::new(runtime), log: RwLock::new(log) }))
    }
}

struct Open {
    /// Locked before the log, by writers only.
    runtime: Mutex<Runtime>,
    log: RwLock<MultiRecordLog>,
}

impl Open {
    /// Runs one of the log's async calls.
    fn write<T>(&self, call: impl AsyncFnOnce(&mut MultiRecordLog) -> Result<T>) -> Result<T> {
        let runtime = self.runtime.lock().unwrap_or_else(PoisonError::into_inner);
        let mut log = self.log.write().unwrap_or_else(PoisonError::into_inner);
        runtime.block_on(call(&mut log))
    }
}

/// Of the crate's errors only this one is no `Error`.
fn no_queue(_: MissingQueue) -> anyhow::Error {
    anyhow!("no queue")
}

impl Subject for Open {
    fn append(&self, payload: &[u8]) -> Result<()> {
        self.write(async |log| {
            log.append_record(QUEUE, None, payload).await?;
            Ok(())
        })
    }

    fn append_batch(&self, payloads: &[&[u8]]) -> Result<()> {
        self.write(async |log| {
            log.append_records(QUEUE, None, payloads.iter().copied()).await?;
            Ok(())
        })
    }

    fn sync(&self) -> Result<()> {
        self.write(async |log| Ok(log.sync().await?))
    }

    fn scan(&self, visit: &mut dyn FnMut(&[u8])) -> Result<u64> {
        let log = self.log.read().unwrap_or_else(PoisonError::into_inner);
        let mut count = 0;
        for (_, payload) in log.range(QUEUE, ..).map_err(no_queue)? {
            visit(&payload);
            count += 1;
        }
        Ok(count)
    }

    fn read(&self, number: u64, visit: &mut dyn FnMut(&[u8])) -> Result<()> {
        let log = self.log.read().unwrap_or_else(PoisonError::into_inner);
        let (_, payload) =
            log.range(QUEUE, number..=number).map_err(no_queue)?.next().context("no such record")?;
        visit(&payload);
        Ok(())
    }

    fn truncate_front(&self, number: u64) -> Result<()> {
        let Some(last_given_up) = number.checked_sub(1) else { return Ok(()) };
        self.write(async |log| {
            log.truncate(QUEUE, last_given_up).await?;
            Ok(())
        })
    }

    fn close(self: Box<Self>) -> Result<()> {
        // Dropping the log loses what it still has in its own buffer.
        self.sync()
    }
}
