//! What is promised, on disk: a lock, one small file a row, each replaced by renaming.
//!
//! ```text
//! <data>/networks/NAME.json      definitions; outlive a reboot, so they are synced
//! <run>/boot                     which boot and which network namespace all this is about
//! <run>/lock                     held by one request at a time
//! <run>/host.json                the host's own record
//! <run>/leases/NAME.json         which addresses of a network are given out
//! <run>/containers/NAME/         record.json, and what its processes keep beside it
//! <run>/ports/tcp-8080.json      who has a port
//! <run>/journal.json             the request being carried out
//! <run>/notes/NAME               left by a container whose supervisor died
//! <run>/data                     the path of <data>, for a container's own processes
//! ```
//!
//! Reading and writing the row of the thousandth container costs what the first one's does.

mod row;

use std::{
    collections::BTreeSet,
    ffi::OsString,
    fs, io,
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::{Path, PathBuf},
};

use rustix::fs::FlockOperation;
use serde::{Serialize, de::DeserializeOwned};
use twinax_core::{
    engine::{Journal, Pending},
    name::{ContainerName, NetworkName},
    pool::Leases,
    state::{Container, Host, Keys, Network, PortClaim, PortKey, Row, State, Status, Table},
};

pub use row::file_name;

/// Why a row could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("cannot {what} {}", path.display())]
    File {
        what: &'static str,
        path: PathBuf,
        #[source]
        cause: io::Error,
    },
    #[error("{} does not hold what Twinax wrote; it is left as it is", path.display())]
    Corrupt {
        path: PathBuf,
        #[source]
        cause: serde_json::Error,
    },
}

/// The directories of one network namespace's state.
#[derive(Clone, Debug)]
pub struct Store {
    run: PathBuf,
    data: PathBuf,
    /// Whether nothing was known of this boot and namespace when the store was opened.
    fresh: bool,
}

/// Holds the store for one request; let go when dropped.
#[derive(Debug)]
pub struct Lock {
    _file: fs::File,
}

impl Store {
    /// Opens the store in `run`, with definitions in `data`. `epoch` says which boot and which
    /// network namespace it is about: what an earlier one left in `run` is cleared away.
    ///
    /// # Errors
    /// [`StoreError::File`] where a directory cannot be made or read.
    pub fn open(run: PathBuf, data: PathBuf, epoch: &str) -> Result<Self, StoreError> {
        make_dir(&run)?;
        let mut store = Self::peek(run, data);
        let boot = store.run.join("boot");
        if fs::read_to_string(&boot).is_ok_and(|text| text == epoch) {
            return Ok(store);
        }
        let _lock = store.lock()?;
        // Somebody may have got here first.
        if !fs::read_to_string(&boot).is_ok_and(|text| text == epoch) {
            store.clear()?;
            for dir in ["leases", "containers", "ports", "notes", "hosts"] {
                make_dir(&store.run.join(dir))?;
            }
            let data = store.data.as_os_str().as_bytes();
            write_file(&store.run.join("data"), data, Sync::No)?;
            make_dir(&store.data.join("networks"))?;
            write_file(&boot, epoch.as_bytes(), Sync::No)?;
            store.fresh = true;
        }
        Ok(store)
    }

    /// A store to be read as it is; nothing is made or cleared.
    pub fn peek(run: PathBuf, data: PathBuf) -> Self {
        Self { run, data, fresh: false }
    }

    /// Opens a store that is in use, by its run directory alone.
    ///
    /// # Errors
    /// [`StoreError::File`] where it is none.
    pub fn reopen(run: PathBuf) -> Result<Self, StoreError> {
        let path = run.join("data");
        let data =
            fs::read(&path).map_err(|cause| StoreError::File { what: "read", path, cause })?;
        Ok(Self::peek(run, PathBuf::from(OsString::from_vec(data))))
    }

    /// Returns the directory of what does not outlive a boot.
    pub fn run_dir(&self) -> &Path {
        &self.run
    }

    /// Where the death notes of containers go.
    pub fn notes_dir(&self) -> PathBuf {
        self.run.join("notes")
    }

    /// The directory of a container's own files.
    pub fn container_dir(&self, name: &ContainerName) -> PathBuf {
        self.run.join("containers").join(file_name(name.as_str()))
    }

    /// Where a shared hosts file stands.
    pub fn view_path(&self, view: &str) -> PathBuf {
        self.run.join("hosts").join(file_name(view))
    }

    /// Waits until no other request is being carried out, and keeps others waiting.
    ///
    /// # Errors
    /// [`StoreError::File`] where the lock file cannot be opened or locked.
    pub fn lock(&self) -> Result<Lock, StoreError> {
        let path = self.run.join("lock");
        let failed = |cause| StoreError::File { what: "lock", path: path.clone(), cause };
        let file = fs::File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(failed)?;
        rustix::fs::flock(&file, FlockOperation::LockExclusive).map_err(|e| failed(e.into()))?;
        Ok(Lock { _file: file })
    }

    /// What earlier commands left undone: one look at a directory that is empty otherwise.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn pending(&mut self) -> Result<Pending, StoreError> {
        let mut pending = Pending { fresh: std::mem::take(&mut self.fresh), ..Pending::default() };
        pending.journal = read_row(&self.journal_path())?;
        let notes = list(&self.notes_dir())?;
        pending.dead.extend(notes.iter().filter_map(|name| name.parse().ok()));
        Ok(pending)
    }

    /// Removes the note that a container left; it has been read.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn forget_note(&self, name: &ContainerName) -> Result<(), StoreError> {
        remove(&self.notes_dir().join(name.as_str()))
    }

    fn journal_path(&self) -> PathBuf {
        self.run.join("journal.json")
    }

    /// # Errors
    /// See [`StoreError`].
    pub fn begin(&self, journal: &Journal) -> Result<(), StoreError> {
        self.write_row(&self.journal_path(), journal, Sync::No)
    }

    /// # Errors
    /// See [`StoreError`].
    pub fn finish(&self) -> Result<(), StoreError> {
        remove(&self.journal_path())
    }

    /// # Errors
    /// See [`StoreError`].
    pub fn host(&self) -> Result<Host, StoreError> {
        Ok(read_row(&self.run.join("host.json"))?.unwrap_or_default())
    }

    /// Loads the rows that `keys` name, with the networks and ports that containers bring.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn load(&self, keys: &Keys) -> Result<State, StoreError> {
        let mut state = State { host: self.host()?, ..State::default() };
        let mut networks = keys.networks.clone();
        let mut ports = keys.ports.clone();
        if keys.all {
            for record in self.records()? {
                let (name, container) = record?;
                state.containers.insert(name, container);
            }
        } else {
            state.containers = Table::only(keys.containers.clone());
            for name in &keys.containers {
                if let Some((_, container)) = read_row::<(ContainerName, Container)>(
                    &self.container_dir(name).join("record.json"),
                )? {
                    state.containers.insert(name.clone(), container);
                }
            }
        }
        for container in state.containers.loaded().values() {
            networks.extend(container.endpoints.iter().map(|e| e.network.clone()));
            let published = container.published.iter();
            ports.extend(published.map(|p| PortKey { proto: p.proto, port: p.host_port }));
        }
        self.load_networks(&mut state, keys, networks)?;
        self.load_ports(&mut state, keys, ports)?;
        Ok(state)
    }

    /// Every container's record, each read only when it is asked for.
    ///
    /// # Errors
    /// See [`StoreError`]; of a record that cannot be read, in its place.
    pub fn records(
        &self,
    ) -> Result<impl Iterator<Item = Result<(ContainerName, Container), StoreError>>, StoreError>
    {
        let dir = self.run.join("containers");
        let names = list(&dir)?.into_iter();
        Ok(names.filter_map(move |name| read_row(&dir.join(name).join("record.json")).transpose()))
    }

    fn load_networks(
        &self,
        state: &mut State,
        keys: &Keys,
        mut names: BTreeSet<NetworkName>,
    ) -> Result<(), StoreError> {
        if keys.all || keys.all_networks {
            let files = list(&self.data.join("networks"))?;
            names.extend(files.iter().filter_map(|f| f.strip_suffix(".json")?.parse().ok()));
        } else {
            state.networks = Table::only(names.clone());
            state.leases = Table::only(names.clone());
        }
        for name in names {
            if let Some(network) = self.read_network(&name)? {
                state.networks.insert(name.clone(), network);
            }
            if let Some(leases) = read_row::<Leases>(&self.leases_path(&name))? {
                state.leases.insert(name, leases);
            }
        }
        Ok(())
    }

    fn load_ports(
        &self,
        state: &mut State,
        keys: &Keys,
        ports: BTreeSet<PortKey>,
    ) -> Result<(), StoreError> {
        let read = |state: &mut State, key: PortKey| -> Result<(), StoreError> {
            if let Some(claims) = read_row::<Vec<PortClaim>>(&self.port_path(key))? {
                state.ports.insert(key, claims);
            }
            Ok(())
        };
        if keys.all {
            for file in list(&self.run.join("ports"))? {
                if let Some(key) = row::port_key(&file) {
                    read(state, key)?;
                }
            }
            return Ok(());
        }
        state.ports = Table::only(ports.clone());
        ports.into_iter().try_for_each(|key| read(state, key))
    }

    /// Whether anybody was promised a port.
    pub fn is_claimed(&self, key: PortKey) -> bool {
        self.port_path(key).exists()
    }

    /// # Errors
    /// See [`StoreError`].
    pub fn write(&self, rows: &[Row]) -> Result<(), StoreError> {
        rows.iter().try_for_each(|row| self.write_one(row))
    }

    fn write_one(&self, row: &Row) -> Result<(), StoreError> {
        match row {
            Row::Host(host) => self.write_row(&self.run.join("host.json"), host, Sync::No),
            Row::Network(name, network) => self.write_network(name, network.as_ref()),
            Row::Leases(name, row) => self.put(&self.leases_path(name), row.as_ref()),
            Row::Port(key, row) => self.put(&self.port_path(*key), row.as_ref()),
            Row::Container(name, Some(container)) => {
                let dir = self.container_dir(name);
                make_dir(&dir)?;
                self.write_row(&dir.join("record.json"), &(name, container), Sync::No)
            }
            Row::Container(name, None) => {
                // The record goes first: a directory without one is nobody's.
                let dir = self.container_dir(name);
                remove(&dir.join("record.json"))?;
                remove_dir(&dir)
            }
        }
    }

    fn put<T: Serialize>(&self, path: &Path, row: Option<&T>) -> Result<(), StoreError> {
        match row {
            Some(row) => self.write_row(path, row, Sync::No),
            None => remove(path),
        }
    }

    fn write_row<T: Serialize>(&self, path: &Path, row: &T, sync: Sync) -> Result<(), StoreError> {
        let text = serde_json::to_vec(row).expect("rows have string keys and no failing part");
        write_file(path, &text, sync)
    }

    fn leases_path(&self, name: &NetworkName) -> PathBuf {
        self.run.join("leases").join(format!("{name}.json"))
    }

    fn network_path(&self, name: &NetworkName) -> PathBuf {
        self.data.join("networks").join(format!("{name}.json"))
    }

    fn port_path(&self, key: PortKey) -> PathBuf {
        self.run.join("ports").join(format!("{}-{}.json", key.proto, key.port))
    }

    /// A definition that cannot be read falls back to the version before it.
    fn read_network(&self, name: &NetworkName) -> Result<Option<Network>, StoreError> {
        let path = self.network_path(name);
        match read_row(&path) {
            Err(StoreError::Corrupt { path: bad, cause }) => {
                match read_row(&path.with_extension("json.previous")) {
                    Ok(Some(previous)) => Ok(Some(previous)),
                    _ => Err(StoreError::Corrupt { path: bad, cause }),
                }
            }
            outcome => outcome,
        }
    }

    fn write_network(
        &self,
        name: &NetworkName,
        network: Option<&Network>,
    ) -> Result<(), StoreError> {
        let path = self.network_path(name);
        let previous = path.with_extension("json.previous");
        let Some(network) = network else {
            remove(&path)?;
            return remove(&previous);
        };
        if self.read_network(name).is_ok_and(|stored| stored.is_some()) {
            remove(&previous)?;
            let linked = fs::hard_link(&path, &previous);
            linked.map_err(|cause| StoreError::File { what: "keep", path: previous, cause })?;
        }
        self.write_row(&path, network, Sync::Yes)
    }

    /// Clears what an earlier boot or namespace left, but for the records and logs of containers
    /// that had ended; definitions are not in here.
    fn clear(&self) -> Result<(), StoreError> {
        for dir in ["leases", "ports", "notes", "hosts", "forwards"] {
            remove_dir(&self.run.join(dir))?;
        }
        for file in ["host.json", "journal.json", "forwarder", "boot"] {
            remove(&self.run.join(file))?;
        }
        for name in list(&self.run.join("containers"))? {
            let dir = self.run.join("containers").join(name);
            let record = read_row::<(ContainerName, Container)>(&dir.join("record.json"));
            let ended = record.ok().flatten().and_then(|(_, container)| container.run);
            if !ended.is_some_and(|run| matches!(run.status, Status::Exited { .. })) {
                remove_dir(&dir)?;
            }
        }
        Ok(())
    }
}

/// Whether a file must outlive the machine's stopping.
#[derive(Clone, Copy, PartialEq)]
enum Sync {
    Yes,
    No,
}

fn read_row<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, StoreError> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(cause) => return Err(StoreError::File { what: "read", path: path.into(), cause }),
    };
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|cause| StoreError::Corrupt { path: path.into(), cause })
}

/// Replaces a file whole: readers see the old text or the new, never half of one.
fn write_file(path: &Path, text: &[u8], sync: Sync) -> Result<(), StoreError> {
    let draft = path.with_extension("draft");
    let write = || -> io::Result<()> {
        fs::write(&draft, text)?;
        if sync == Sync::Yes {
            fs::File::open(&draft)?.sync_all()?;
        }
        fs::rename(&draft, path)?;
        if let (Sync::Yes, Some(dir)) = (sync, path.parent()) {
            fs::File::open(dir)?.sync_all()?;
        }
        Ok(())
    };
    write().map_err(|cause| StoreError::File { what: "write", path: path.into(), cause })
}

fn list(dir: &Path) -> Result<Vec<String>, StoreError> {
    let failed = |cause| StoreError::File { what: "list", path: dir.into(), cause };
    let entries = match fs::read_dir(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        outcome => outcome.map_err(failed)?,
    };
    let names = entries.map(|entry| Ok(entry.map_err(failed)?.file_name()));
    let names = names.collect::<Result<Vec<_>, StoreError>>()?;
    Ok(names.into_iter().filter_map(|name| name.into_string().ok()).collect())
}

fn make_dir(path: &Path) -> Result<(), StoreError> {
    fs::create_dir_all(path).map_err(|cause| StoreError::File {
        what: "make directory",
        path: path.into(),
        cause,
    })
}

fn remove(path: &Path) -> Result<(), StoreError> {
    gone(path, fs::remove_file(path))
}

fn remove_dir(path: &Path) -> Result<(), StoreError> {
    gone(path, fs::remove_dir_all(path))
}

fn gone(path: &Path, outcome: io::Result<()>) -> Result<(), StoreError> {
    match outcome {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        // A read-only file system refuses before it looks.
        Err(_) if matches!(path.try_exists(), Ok(false)) => Ok(()),
        outcome => {
            outcome.map_err(|cause| StoreError::File { what: "remove", path: path.into(), cause })
        }
    }
}
