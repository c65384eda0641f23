//! Open files and held locks of the simulated disk.
//!
//! It owns whose process a handle belongs to. What a call does is the machine's (`sim`) and the medium's.
//!
//! Invariant: a handle of an earlier boot does nothing, neither by a call nor by being dropped.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

use super::chance::hash;
use super::fault::Fate;
use super::trace::Operation;
use super::{Call, Done, SimDisk, State};
use crate::disk::{DiskFile, DiskLock, Map};

/// An open file; dead after the next crash.
pub(super) struct SimFile {
    pub(super) disk: SimDisk,
    pub(super) file: u64,
    pub(super) boot: u32,
    pub(super) writable: bool,
    pub(super) path: Arc<Path>,
}

impl SimFile {
    fn step<T>(
        &self,
        call: &Call<'_>,
        body: impl FnOnce(&mut State, Fate) -> io::Result<Done<T>>,
    ) -> io::Result<T> {
        self.disk.step(Some(self.boot), call, body)
    }

    fn check_writable(&self) -> io::Result<()> {
        if self.writable { Ok(()) } else { Err(io::ErrorKind::PermissionDenied.into()) }
    }
}

impl DiskFile for SimFile {
    fn length(&self) -> io::Result<u64> {
        self.step(&Call::on(Operation::Length, &self.path), |state, fate| {
            fate.plain()?;
            let length = state.medium.length(self.file)?;
            Ok(Done::counting(length, length))
        })
    }

    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        let length = buffer.len() as u64;
        let call = Call { position, length, ..Call::on(Operation::Read, &self.path) };
        self.step(&call, |state, fate| {
            fate.plain()?;
            let count = state.medium.read(self.file, buffer, position)?;
            let seen = if state.trace.is_some() { hash(buffer.get(..count).unwrap_or_default()) } else { 0 };
            Ok(Done { value: count, count: count as u64, hash: seen })
        })
    }

    fn write_at(&self, bytes: &[u8], position: u64) -> io::Result<usize> {
        let length = bytes.len() as u64;
        let call = Call { position, length, bytes, ..Call::on(Operation::Write, &self.path) };
        self.step(&call, |state, fate| {
            self.check_writable().or_else(|error| fate.plain().and(Err(error)))?;
            let count = state.write(fate, self.file, bytes, position)?;
            Ok(Done::counting(count, count as u64))
        })
    }

    fn sync(&self) -> io::Result<()> {
        self.step(&Call::on(Operation::Sync, &self.path), |state, fate| {
            state.sync(fate, self.file).map(Done::new)
        })
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        self.step(&Call { length, ..Call::on(Operation::SetLength, &self.path) }, |state, fate| {
            fate.plain()?;
            self.check_writable()?;
            state.medium.set_length(self.file, length).map(Done::new)
        })
    }

    fn reserve(&self, length: u64) -> io::Result<()> {
        self.step(&Call { length, ..Call::on(Operation::Reserve, &self.path) }, |state, fate| {
            fate.plain()?;
            self.check_writable()?;
            state.medium.reserve(self.file, length).map(Done::new)
        })
    }

    fn map(&self, _length: u64) -> io::Result<Option<Map>> {
        self.disk.state().admit(Some(self.boot))?;
        Ok(None)
    }
}

impl Drop for SimFile {
    fn drop(&mut self) {
        let mut state = self.disk.state();
        if state.boots == self.boot {
            state.medium.closed(self.file);
        }
    }
}

impl fmt::Debug for SimFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimFile").field("path", &self.path).finish_non_exhaustive()
    }
}

/// Holds the advisory lock until it is dropped or its process dies.
pub(super) struct SimLock {
    pub(super) disk: SimDisk,
    pub(super) file: u64,
    pub(super) boot: u32,
}

impl DiskLock for SimLock {}

impl Drop for SimLock {
    fn drop(&mut self) {
        let mut state = self.disk.state();
        if state.boots == self.boot {
            state.locks.remove(&self.file);
            state.medium.closed(self.file);
        }
    }
}

impl fmt::Debug for SimLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimLock").finish_non_exhaustive()
    }
}
