//! What every store under measurement looks like: the least that a log's user does with it.
//!
//! Owns the two traits and nothing else; it knows no peer, no workload and no clock. A `Kind` says how a peer is
//! opened and what it promises; a `Subject` is one open log. An adapter does each thing in the way the peer's own docs
//! recommend for a log: where a peer is a map, records are keyed by their number, big-endian; where it has no number
//! of its own, the adapter keeps one. What a peer cannot do, it says with `Unsupported`; the table then shows a dash.

use std::path::Path;

use anyhow::Result;

use crate::payload::Payloads;

/// A peer cannot do this at all: the table shows a dash.
#[derive(Debug)]
pub struct Unsupported;

impl std::fmt::Display for Unsupported {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("not supported by this peer")
    }
}

impl std::error::Error for Unsupported {}

/// When a call of `append` returns.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// Once the peer has accepted the records, by its fastest documented way: they may still be in memory.
    Unsynced,
    /// Once they survive a power cut, as far as the peer has such a mode.
    Durable,
}

/// One kind of store, closed.
pub trait Kind: Sync {
    /// As its crate is called.
    fn name(&self) -> &'static str;

    /// What its documentation says of `Mode::Durable`, in a few words; the audit says what it really does.
    fn claims(&self) -> &'static str;

    /// Whether a read checks a checksum over the payload.
    fn verifies_reads(&self) -> bool;

    /// Opens the log in this directory, made if there is none. Reads see all that was appended.
    fn open(&self, directory: &Path, mode: Mode) -> Result<Box<dyn Subject>>;
}

/// One open log. Records are numbered from 0 in the order of their appends.
pub trait Subject: Send + Sync {
    /// Appends one record, by the peer's call for one record; returns as the mode says.
    fn append(&self, payload: &[u8]) -> Result<()>;

    /// Appends these records by the peer's call for many, atomic where it has such a one.
    fn append_batch(&self, payloads: &[&[u8]]) -> Result<()>;

    /// Makes all that was appended durable.
    fn sync(&self) -> Result<()>;

    /// Hands over every record from the first that is left, in order; returns how many.
    fn scan(&self, visit: &mut dyn FnMut(&[u8])) -> Result<u64>;

    /// Hands over the record of this number.
    fn read(&self, number: u64, visit: &mut dyn FnMut(&[u8])) -> Result<()>;

    /// Gives up all records below this number, by the peer's own means.
    fn truncate_front(&self, _number: u64) -> Result<()> {
        Err(Unsupported.into())
    }

    /// Appends the payloads 0 to `count` without waiting for each, at most `window` not yet durable; returns once all
    /// are durable. Only for a peer whose call gives something to wait on.
    fn append_with_tickets(&self, _payloads: &mut Payloads, _count: u64, _window: u64) -> Result<()> {
        Err(Unsupported.into())
    }

    /// Whatever it can say of its last opening, by name: kept beside the numbers.
    fn facts(&self) -> Vec<(&'static str, f64)> {
        Vec::new()
    }

    /// Closes cleanly.
    fn close(self: Box<Self>) -> Result<()>;
}
