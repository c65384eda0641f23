//! Stonelog itself, with its default options but for the durability.

use std::collections::VecDeque;
use std::path::Path;

use anyhow::Result;
use stonelog::{Durability, Log, Options, Ticket};

use crate::payload::Payloads;
use crate::subject::{Kind, Mode, Subject};

/// The kind.
pub struct Stonelog;

struct Open {
    log: Log,
}

impl Kind for Stonelog {
    fn name(&self) -> &'static str {
        "stonelog"
    }

    fn claims(&self) -> &'static str {
        "Always: fdatasync before append returns"
    }

    fn verifies_reads(&self) -> bool {
        true
    }

    fn open(&self, directory: &Path, mode: Mode) -> Result<Box<dyn Subject>> {
        let options = match mode {
            Mode::Unsynced => Options::new().durability(Durability::Manual).readers_see_appended(true),
            // Readers see what is durable: that is all that was appended.
            Mode::Durable => Options::new().durability(Durability::Always),
        };
        Ok(Box::new(Open { log: options.open(directory)? }))
    }
}

impl Subject for Open {
    fn append(&self, payload: &[u8]) -> Result<()> {
        self.log.append(payload)?;
        Ok(())
    }

    fn append_batch(&self, payloads: &[&[u8]]) -> Result<()> {
        self.log.append_batch(payloads)?;
        Ok(())
    }

    fn sync(&self) -> Result<()> {
        Ok(self.log.sync()?)
    }

    fn scan(&self, visit: &mut dyn FnMut(&[u8])) -> Result<u64> {
        let mut reader = self.log.reader(0);
        let mut count = 0;
        while let Some(record) = reader.next()? {
            visit(record.bytes());
            count += 1;
        }
        Ok(count)
    }

    fn read(&self, number: u64, visit: &mut dyn FnMut(&[u8])) -> Result<()> {
        visit(&self.log.read(number)?);
        Ok(())
    }

    fn truncate_front(&self, number: u64) -> Result<()> {
        Ok(self.log.truncate_front(number)?)
    }

    fn append_with_tickets(&self, payloads: &mut Payloads, count: u64, window: u64) -> Result<()> {
        let mut waiting: VecDeque<Ticket> = VecDeque::with_capacity(window as usize);
        for number in 0..count {
            if waiting.len() as u64 == window
                && let Some(oldest) = waiting.pop_front()
            {
                oldest.wait()?;
            }
            waiting.push_back(self.log.submit(payloads.one(number))?);
        }
        for ticket in waiting {
            ticket.wait()?;
        }
        Ok(())
    }

    fn facts(&self) -> Vec<(&'static str, f64)> {
        let recovery = self.log.recovery();
        vec![
            ("scanned_bytes", recovery.scanned_bytes as f64),
            ("copied_records", (recovery.copied.end - recovery.copied.start) as f64),
        ]
    }

    fn close(self: Box<Self>) -> Result<()> {
        Ok(self.log.close()?)
    }
}
