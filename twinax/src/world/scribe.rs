//! A second thread that writes rows and opens ports while the first has the kernel make links.
//!
//! Only for a process that serves many requests. What is written is in the journal before, and the
//! journal is taken away after, so it does not matter in which order the two get on.

use std::{
    sync::mpsc::{Receiver, Sender, channel},
    thread,
};

use twinax_core::{model::Forward, state::Row};

use super::LinuxError;
use crate::{
    forwarder::{self, Opened},
    store::Store,
};

/// What is to be done on the side.
pub(super) struct Job {
    pub(super) rows: Vec<Row>,
    /// To be opened, but not handed over yet.
    pub(super) ports: Vec<Forward>,
}

type Outcome = Result<Opened, LinuxError>;

/// Ends when dropped, having done what it was told.
#[derive(Debug)]
pub(super) struct Scribe {
    jobs: Sender<Job>,
    done: Receiver<Outcome>,
    /// Whether there is something under way.
    busy: bool,
}

impl Scribe {
    /// `None` where no thread can be had; then things are done one after another.
    pub(super) fn start(store: &Store) -> Option<Self> {
        let (jobs, told) = channel::<Job>();
        let (tell, done) = channel();
        let store = store.clone();
        let work = move || told.into_iter().try_for_each(|job| tell.send(carry_out(&store, &job)));
        let thread = thread::Builder::new().name("twinax-scribe".to_owned()).spawn(work);
        thread.ok().map(|_| Self { jobs, done, busy: false })
    }

    /// Begins a job; the job comes back if nobody is there to do it.
    pub(super) fn begin(&mut self, job: Job) -> Result<(), Job> {
        self.jobs.send(job).map_err(|unsent| unsent.0)?;
        self.busy = true;
        Ok(())
    }

    /// Waits for what is under way.
    pub(super) fn end(&mut self) -> Outcome {
        match std::mem::take(&mut self.busy) {
            true => self.done.recv().unwrap_or(Err(LinuxError::Scribe)),
            false => Ok(Opened::default()),
        }
    }
}

/// Does a job, here and now.
pub(super) fn carry_out(store: &Store, job: &Job) -> Outcome {
    store.write(&job.rows)?;
    let ports: Vec<&Forward> = job.ports.iter().collect();
    Ok(forwarder::open(store.run_dir(), &ports)?)
}
