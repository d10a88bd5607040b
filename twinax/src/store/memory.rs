//! What a process that serves many requests need not read again.
//!
//! The lock's file holds a number that everybody raises, under the lock, before the first row is
//! written or a journal is carried on. As long as nobody else has raised it, rows are as they were
//! last read or written here, and no journal is there but one of ours. Whoever is killed has
//! raised it before. Death notes are no rows, and are looked for each time.

use std::{fs::File, io, os::unix::fs::FileExt};

use twinax_core::{
    engine::{Journal, Pending},
    state::{Host, Keys, Row, State, Table},
};

use super::{Manner, Store, StoreError, WHOLE, row_text};

/// After so many requests everything is forgotten, so that what was once asked for does not pile up.
const REQUESTS: u32 = 1000;

/// Rows and files that are kept between requests.
#[derive(Debug)]
pub struct Memory {
    /// The lock's file; `None` before the first request.
    number: Option<File>,
    /// The number that the rest was true at.
    known: Option<u64>,
    /// How many requests there were since.
    served: u32,
    /// A journal was written, or found, and not taken away.
    begun: bool,
    /// The journal, which is empty between requests.
    journal: Option<File>,
    pub(super) host: Option<Host>,
    pub(super) rows: State,
}

impl Default for Memory {
    fn default() -> Self {
        let mut memory = Self {
            number: None,
            known: None,
            served: 0,
            begun: false,
            journal: None,
            host: None,
            rows: State::default(),
        };
        memory.forget();
        memory
    }
}

impl Memory {
    /// Forgets every row.
    pub fn forget(&mut self) {
        (self.known, self.begun, self.journal, self.host) = (None, false, None, None);
        self.served = 0;
        self.rows = State {
            networks: Table::only([].into()),
            leases: Table::only([].into()),
            containers: Table::only([].into()),
            ports: Table::only([].into()),
            ..State::default()
        };
    }

    /// Remembers rows that are written now; if that fails, everything is to be forgotten.
    pub fn put(&mut self, rows: &[Row]) {
        for row in rows {
            match row {
                Row::Host(host) => self.host = Some(host.clone()),
                other => self.rows.put(other.clone()),
            }
        }
    }
}

impl Store {
    /// As [`Self::pending`], with what is remembered. To be called first, under the lock.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn pending_by(&mut self, memory: &mut Memory) -> Result<Pending, StoreError> {
        let number = match &mut memory.number {
            Some(number) => number,
            none => none.insert(self.open_number()?),
        };
        let now = self.read_number(number)?;
        memory.served += 1;
        if memory.known == Some(now) && !memory.begun && memory.served < REQUESTS {
            return self.pending_beside(None);
        }
        memory.forget();
        let pending = self.pending()?;
        memory.begun = pending.journal.is_some();
        memory.known = match (&pending.journal, &memory.number) {
            // It was raised once more.
            (Some(_), Some(number)) => Some(self.read_number(number)?),
            _ => Some(now),
        };
        Ok(pending)
    }

    /// As [`Self::begin`], with what is remembered.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn begin_by(&self, memory: &mut Memory, journal: &Journal) -> Result<(), StoreError> {
        let (Some(number), Some(known)) = (&memory.number, memory.known) else {
            return self.begin(journal); // Nobody asked what was pending.
        };
        memory.begun = true;
        self.write_number(number, known.wrapping_add(1))?;
        memory.known = Some(known.wrapping_add(1));
        let text = row_text(journal);
        let path = self.journal_path();
        let failed = |cause| StoreError::File { what: "write", path: path.clone(), cause };
        if text.len() > WHOLE {
            memory.journal = None;
            return super::write_file(&path, &text, Manner::Replaced);
        }
        let file = match &mut memory.journal {
            Some(file) => file,
            none => {
                super::remove(&path)?;
                let new = File::options().write(true).create_new(true).open(&path);
                none.insert(new.map_err(failed)?)
            }
        };
        // It is empty, so this tears as little as a new file's first write.
        match file.write_at(&text, 0) {
            Ok(len) if len == text.len() => Ok(()),
            Ok(_) => Err(failed(io::ErrorKind::WriteZero.into())),
            Err(cause) => Err(failed(cause)),
        }
    }

    /// As [`Self::finish`], with what is remembered: the journal is emptied, which counts as absent.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn finish_by(&self, memory: &mut Memory) -> Result<(), StoreError> {
        match &memory.journal {
            Some(file) => file.set_len(0).map_err(|cause| StoreError::File {
                what: "empty",
                path: self.journal_path(),
                cause,
            })?,
            None => self.finish()?,
        }
        memory.begun = false;
        Ok(())
    }

    /// As [`Self::load`], with what is remembered.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn load_by(&self, memory: &mut Memory, keys: &Keys) -> Result<State, StoreError> {
        match memory.known {
            Some(_) if !keys.all && !keys.all_networks => self.load_with(keys, Some(memory)),
            _ => self.load(keys),
        }
    }
}
