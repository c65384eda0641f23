//! commitlog 0.2.0 (6 November 2021), a log of segments with memory-mapped indexes.
//!
//! Its docs: `append_msg` for one message, `append` with a `MessageBuf` for many, `flush` "forces a flush of the log",
//! `read` from an offset up to a limit in bytes. Segments and index are as by default; `message_max_bytes` bounds a
//! whole buffer, not only a message, and is raised so that a batch fits.
//!
//! Appends need `&mut`, reads do not: a lock for readers and one writer. There is no way to give up the front. A read
//! takes whole messages up to its limit, so the adapter remembers how large the messages are and asks for no more.
//!
//! Its source: `flush` is `File::flush` for the segment, which does nothing, and an `msync` of the index whenever a
//! page of that is full. So nothing that was appended is ever synced.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{PoisonError, RwLock};

use anyhow::{Context, Result};
use commitlog::message::{MessageBuf, MessageSet};
use commitlog::{CommitLog, LogOptions, ReadError, ReadLimit};

use crate::subject::{Kind, Mode, Subject};

pub struct Commitlog;

/// Bytes that precede the payload of each message.
const HEADER_BYTES: usize = commitlog::message::HEADER_SIZE;

/// The most bytes of one buffer: what a segment holds by default.
const BUFFER_BYTES_MAX: usize = 1_000_000_000;

/// What a scan reads at once.
const SCAN_BYTES: usize = 1 << 20;

impl Kind for Commitlog {
    fn name(&self) -> &'static str {
        "commitlog"
    }

    fn claims(&self) -> &'static str {
        "flush: \"forces a flush of the log\""
    }

    fn verifies_reads(&self) -> bool {
        true
    }

    fn open(&self, directory: &Path, mode: Mode) -> Result<Box<dyn Subject>> {
        let mut options = LogOptions::new(directory);
        options.message_max_bytes(BUFFER_BYTES_MAX);
        let log = CommitLog::new(options)?;
        Ok(Box::new(Open {
            log: RwLock::new(log),
            flush_each: mode == Mode::Durable,
            message_bytes: AtomicUsize::new(HEADER_BYTES),
        }))
    }
}

struct Open {
    log: RwLock<CommitLog>,
    flush_each: bool,
    /// The size of the largest message seen.
    message_bytes: AtomicUsize,
}

impl Open {
    fn saw_payload(&self, payload: usize) {
        let message = HEADER_BYTES + payload;
        if message > self.message_bytes.load(Ordering::Relaxed) {
            self.message_bytes.fetch_max(message, Ordering::Relaxed);
        }
    }
}

/// Messages from this offset on, within the limit or, if the first is larger, within twice the limit and so on.
fn read_growing(log: &CommitLog, offset: u64, mut limit: usize) -> Result<MessageBuf> {
    loop {
        match log.read(offset, ReadLimit::max_bytes(limit)) {
            Err(ReadError::Io(error)) if error.kind() == std::io::ErrorKind::InvalidInput => {
                limit = limit.checked_mul(2).context("a message larger than any limit")?;
            }
            result => return Ok(result?),
        }
    }
}

impl Subject for Open {
    fn append(&self, payload: &[u8]) -> Result<()> {
        self.saw_payload(payload.len());
        let mut log = self.log.write().unwrap_or_else(PoisonError::into_inner);
        log.append_msg(payload)?;
        if self.flush_each {
            log.flush()?;
        }
        Ok(())
    }

    fn append_batch(&self, payloads: &[&[u8]]) -> Result<()> {
        let mut messages = MessageBuf::default();
        for payload in payloads {
            self.saw_payload(payload.len());
            messages.push(payload).map_err(|error| anyhow::anyhow!("{error:?}"))?;
        }
        let mut log = self.log.write().unwrap_or_else(PoisonError::into_inner);
        log.append(&mut messages)?;
        if self.flush_each {
            log.flush()?;
        }
        Ok(())
    }

    fn sync(&self) -> Result<()> {
        Ok(self.log.write().unwrap_or_else(PoisonError::into_inner).flush()?)
    }

    fn scan(&self, visit: &mut dyn FnMut(&[u8])) -> Result<u64> {
        let log = self.log.read().unwrap_or_else(PoisonError::into_inner);
        let mut next = 0;
        loop {
            let messages = read_growing(&log, next, SCAN_BYTES)?;
            if messages.is_empty() {
                return Ok(next);
            }
            messages.iter().for_each(|message| visit(message.payload()));
            next += messages.len() as u64;
        }
    }

    fn read(&self, number: u64, visit: &mut dyn FnMut(&[u8])) -> Result<()> {
        let log = self.log.read().unwrap_or_else(PoisonError::into_inner);
        let messages = read_growing(&log, number, self.message_bytes.load(Ordering::Relaxed))?;
        let message = messages.iter().next().context("no such record")?;
        visit(message.payload());
        self.saw_payload(message.payload().len());
        Ok(())
    }

    fn close(self: Box<Self>) -> Result<()> {
        let mut log = self.log.into_inner().unwrap_or_else(PoisonError::into_inner);
        Ok(log.flush()?)
    }
}
