//! What is promised, on disk: a lock, one small file a row, each made or replaced whole.
//!
//! ```text
//! <data>/networks/NAME.json      definitions; outlive a reboot, so they are synced
//! <run>/boot                     which boot and which network namespace all this is about
//! <run>/lock                     held by one request at a time; its number tells whether anything
//!                                was written since (see [`Memory`])
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

mod memory;
mod row;

use std::{
    collections::BTreeSet,
    ffi::OsString,
    fs,
    io::{self, Read, Write},
    os::unix::{
        ffi::{OsStrExt, OsStringExt},
        fs::FileExt,
    },
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

pub use memory::Memory;
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
        let mut store = Self::peek(run, data);
        let boot = store.run.join("boot");
        if read_file(&boot).is_ok_and(|text| text == epoch.as_bytes()) {
            return Ok(store);
        }
        make_dir(&store.run)?;
        let _lock = store.lock()?;
        // Somebody may have got here first.
        if !fs::read_to_string(&boot).is_ok_and(|text| text == epoch) {
            store.raise_number()?;
            store.clear()?;
            for dir in ["leases", "containers", "ports", "notes", "hosts"] {
                make_dir(&store.run.join(dir))?;
            }
            let data = store.data.as_os_str().as_bytes();
            write_file(&store.run.join("data"), data, Manner::Replaced)?;
            make_dir(&store.data.join("networks"))?;
            write_file(&boot, epoch.as_bytes(), Manner::Replaced)?;
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
        let journal = read_row(&self.journal_path())?;
        if journal.is_some() {
            // Whoever carries it on writes rows.
            self.raise_number()?;
        }
        self.pending_beside(journal)
    }

    /// Adds to a journal what else may be left.
    fn pending_beside(&mut self, journal: Option<Journal>) -> Result<Pending, StoreError> {
        let fresh = std::mem::take(&mut self.fresh);
        let mut pending = Pending { journal, fresh, ..Pending::default() };
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
        self.raise_number()?;
        self.write_row(&self.journal_path(), journal, Manner::New)
    }

    /// # Errors
    /// See [`StoreError`].
    pub fn finish(&self) -> Result<(), StoreError> {
        remove(&self.journal_path())
    }

    /// Tells those who remember rows ([`Memory`]) that theirs will not hold any more.
    fn raise_number(&self) -> Result<(), StoreError> {
        let file = self.open_number()?;
        let number = self.read_number(&file)?;
        self.write_number(&file, number.wrapping_add(1))
    }

    fn open_number(&self) -> Result<fs::File, StoreError> {
        let path = self.run.join("lock");
        let mut options = fs::File::options();
        let file = options.create(true).truncate(false).read(true).write(true).open(&path);
        file.map_err(|cause| StoreError::File { what: "open", path, cause })
    }

    /// 0 where nothing was ever written.
    fn read_number(&self, file: &fs::File) -> Result<u64, StoreError> {
        let mut bytes = [0; 8];
        let read = file.read_at(&mut bytes, 0);
        let failed = |cause| StoreError::File { what: "read", path: self.run.join("lock"), cause };
        read.map(|_| u64::from_ne_bytes(bytes)).map_err(failed)
    }

    fn write_number(&self, file: &fs::File, number: u64) -> Result<(), StoreError> {
        let failed = |cause| StoreError::File { what: "write", path: self.run.join("lock"), cause };
        file.write_all_at(&number.to_ne_bytes(), 0).map_err(failed)
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
        self.load_with(keys, None)
    }

    fn load_with(&self, keys: &Keys, mut memory: Option<&mut Memory>) -> Result<State, StoreError> {
        let host = match &mut memory {
            Some(Memory { host: Some(host), .. }) => host.clone(),
            Some(memory) => memory.host.insert(self.host()?).clone(),
            None => self.host()?,
        };
        let mut state = State { host, ..State::default() };
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
                let known = memory.as_deref_mut().map(|memory| &mut memory.rows.containers);
                if let Some(container) = recall(known, name, || self.read_container(name))? {
                    state.containers.insert(name.clone(), container);
                }
            }
        }
        for container in state.containers.loaded().values() {
            networks.extend(container.endpoints.iter().map(|e| e.network.clone()));
            let published = container.published.iter();
            ports.extend(published.map(|p| PortKey { proto: p.proto, port: p.host_port }));
        }
        self.load_networks(&mut state, memory.as_deref_mut(), keys, networks)?;
        self.load_ports(&mut state, memory, keys, ports)?;
        Ok(state)
    }

    fn read_container(&self, name: &ContainerName) -> Result<Option<Container>, StoreError> {
        let path = self.container_dir(name).join("record.json");
        Ok(read_row::<(ContainerName, Container)>(&path)?.map(|(_, container)| container))
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
        mut memory: Option<&mut Memory>,
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
            let known = memory.as_deref_mut().map(|memory| &mut memory.rows.networks);
            if let Some(network) = recall(known, &name, || self.read_network(&name))? {
                state.networks.insert(name.clone(), network);
            }
            let known = memory.as_deref_mut().map(|memory| &mut memory.rows.leases);
            let read = || read_row::<Leases>(&self.leases_path(&name));
            if let Some(leases) = recall(known, &name, read)? {
                state.leases.insert(name, leases);
            }
        }
        Ok(())
    }

    fn load_ports(
        &self,
        state: &mut State,
        mut memory: Option<&mut Memory>,
        keys: &Keys,
        ports: BTreeSet<PortKey>,
    ) -> Result<(), StoreError> {
        let mut read = |state: &mut State, key: PortKey| -> Result<(), StoreError> {
            let known = memory.as_deref_mut().map(|memory| &mut memory.rows.ports);
            let read = || read_row::<Vec<PortClaim>>(&self.port_path(key));
            if let Some(claims) = recall(known, &key, read)? {
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
            Row::Host(host) => self.write_row(&self.run.join("host.json"), host, Manner::Replaced),
            Row::Network(name, network) => self.write_network(name, network.as_ref()),
            Row::Leases(name, row) => {
                self.put(&self.leases_path(name), row.as_ref(), Manner::Replaced)
            }
            Row::Port(key, row) => self.put(&self.port_path(*key), row.as_ref(), Manner::New),
            Row::Container(name, Some(container)) => {
                let dir = self.container_dir(name);
                make_dir(&dir)?;
                self.write_row(&dir.join("record.json"), &(name, container), Manner::New)
            }
            Row::Container(name, None) => {
                // The record goes first: a directory without one is nobody's.
                let dir = self.container_dir(name);
                remove(&dir.join("record.json"))?;
                remove_dir(&dir)
            }
        }
    }

    fn put<T: Serialize>(
        &self,
        path: &Path,
        row: Option<&T>,
        manner: Manner,
    ) -> Result<(), StoreError> {
        match row {
            Some(row) => self.write_row(path, row, manner),
            None => remove(path),
        }
    }

    fn write_row<T: Serialize>(
        &self,
        path: &Path,
        row: &T,
        manner: Manner,
    ) -> Result<(), StoreError> {
        write_file(path, &row_text(row), manner)
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
        self.write_row(&path, network, Manner::Synced)
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

/// What is known of a row, or what `read` finds.
fn recall<K: Ord + Clone + std::fmt::Debug, V: Clone>(
    known: Option<&mut Table<K, V>>,
    key: &K,
    read: impl FnOnce() -> Result<Option<V>, StoreError>,
) -> Result<Option<V>, StoreError> {
    let Some(known) = known else { return read() };
    if known.knows(key) {
        return Ok(known.get(key).cloned());
    }
    let row = read()?;
    known.learn(key.clone());
    if let Some(row) = &row {
        known.insert(key.clone(), row.clone());
    }
    Ok(row)
}

fn row_text<T: Serialize>(row: &T) -> Vec<u8> {
    // Room for most rows at once, rather than by growing.
    let mut text = Vec::with_capacity(WHOLE);
    serde_json::to_writer(&mut text, row).expect("rows have string keys and no failing part");
    text
}

/// How a file is written.
#[derive(Clone, Copy, PartialEq)]
enum Manner {
    /// Mostly it is not there yet.
    New,
    /// Mostly it is there.
    Replaced,
    /// As `Replaced`, and to outlive the machine's stopping.
    Synced,
}

/// What a kill does not tear: the kernel looks for signals between pages
/// (`generic_perform_write`), and a reader sees a page's bytes at once.
const WHOLE: usize = 4096;

fn read_row<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, StoreError> {
    let bytes = match read_file(path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(cause) => return Err(StoreError::File { what: "read", path: path.into(), cause }),
    };
    if bytes.is_empty() {
        return Ok(None); // Whoever began to make it was killed.
    }
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|cause| StoreError::Corrupt { path: path.into(), cause })
}

/// Reads a file that mostly is small: in one go, without asking for its size first.
fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    let mut file = fs::File::open(path)?;
    let mut bytes = Vec::with_capacity(WHOLE);
    let len = rustix::io::read(&file, rustix::buffer::spare_capacity(&mut bytes))?;
    if len == bytes.capacity() {
        file.read_to_end(&mut bytes)?;
    }
    Ok(bytes)
}

/// Writes a file whole: readers see the old text or the new, never half of one. A file that is
/// empty counts as absent, so one that was not there may be made where it belongs.
fn write_file(path: &Path, text: &[u8], manner: Manner) -> Result<(), StoreError> {
    let made = manner == Manner::New && text.len() <= WHOLE && make_file(path, text)?;
    let replaced = if made { Ok(()) } else { replace_file(path, text, manner == Manner::Synced) };
    replaced.map_err(|cause| StoreError::File { what: "write", path: path.into(), cause })
}

/// Makes a file; false if it is there already.
fn make_file(path: &Path, text: &[u8]) -> Result<bool, StoreError> {
    let failed = |cause| StoreError::File { what: "write", path: path.into(), cause };
    let file = fs::File::options().write(true).create_new(true).open(path);
    let mut file = match file {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => return Ok(false),
        opened => opened.map_err(failed)?,
    };
    file.write_all(text).map(|()| true).map_err(|cause| {
        // What was asked has failed; that its trace stays as well would be no news.
        let _ = fs::remove_file(path);
        failed(cause)
    })
}

fn replace_file(path: &Path, text: &[u8], sync: bool) -> io::Result<()> {
    let draft = path.with_extension("draft");
    fs::write(&draft, text)?;
    if sync {
        fs::File::open(&draft)?.sync_all()?;
    }
    fs::rename(&draft, path)?;
    if let (true, Some(dir)) = (sync, path.parent()) {
        fs::File::open(dir)?.sync_all()?;
    }
    Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_made_or_replaced_whole_and_counts_from_its_first_byte() {
        let dir = std::env::temp_dir().join(format!("twinax-store-{}", std::process::id()));
        make_dir(&dir).expect("a new directory");
        let path = dir.join("row.json");
        let row = || read_row::<Vec<u32>>(&path).expect("nothing corrupt");
        for manner in [Manner::New, Manner::Replaced, Manner::Synced] {
            remove(&path).expect("ours");
            assert_eq!(row(), None);
            // Killed right after it was made.
            fs::write(&path, "").expect("ours");
            assert_eq!(row(), None);
            let long: Vec<u32> = (0..2000).collect();
            for want in [vec![1], vec![2, 3], vec![], long, vec![4]] {
                let text = serde_json::to_vec(&want).expect("numbers");
                write_file(&path, &text, manner).expect("ours");
                assert_eq!(row(), Some(want));
            }
        }
        let names = list(&dir).expect("ours");
        assert_eq!(names, ["row.json"], "a draft stays");
        remove_dir(&dir).expect("ours");
    }
}
