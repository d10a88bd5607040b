//! From processes to containers, by what runtimes leave in files; no daemon and no program of
//! theirs is asked.
//!
//! Theory of operation. A process's control group claims whose it is; processes of one claim are
//! one container, its first process stands for it. Who made the first process — containerd's
//! shim, conmon, LXC's monitor — says more: which engine, which directory. Files are read in the
//! root directory that *that* process sees, so an engine that runs in a container of another
//! (KinD, Docker in Docker) is read as one on the host is. What is left over and has a network
//! namespace of its own is a name of `ip netns`, or a plain process.
//!
//! Containers' files are in the hands of whoever is in the container. Nothing is followed out of
//! its root, nothing but regular files is opened, everything is bounded ([`view`]), and each root
//! is read in a thread that is left behind when it keeps us waiting ([`PATIENCE`]): a file system
//! that nobody serves any more stops nobody here.

mod view;
mod cgroup;
mod oci;
mod cni;
mod bolt;
mod sqlite;
mod scene;
mod docker;
mod podman;
mod containerd;
mod cri;
mod crio;
mod lxc;
mod nspawn;
mod ip_netns;
mod twinax;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    path::{Path, PathBuf},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use twinax_core::sight::{Inode, Process, Runtime, Workload};

use self::{
    cgroup::{Claim, Hint, claim},
    scene::{Monitor, Scene},
    view::View,
};

/// How long all files together may take to be read.
pub const PATIENCE: Duration = Duration::from_secs(2);

/// The label of a pod's container that does nothing but hold its namespaces: `sandbox`.
pub const ROLE: &str = "role";
/// The label that names the container whose own engine made this one.
pub const INSIDE: &str = "inside";
/// The label that says whose network namespace a container shares, in its runtime's words.
pub const SHARES: &str = "network of";

/// The container that a control group's path claims to be of: the same text for all its processes.
pub fn claimed(cgroup: &str) -> Option<String> {
    claim(cgroup).map(|claim| claim.group)
}

/// Processes that look like one container's.
#[derive(Clone, Debug)]
struct Suspect {
    claim: Option<Claim>,
    first: Process,
    pids: BTreeSet<u32>,
    /// Who made the first process.
    parent: Option<Process>,
}

/// Suspects with their places among all.
type Numbered = Vec<(usize, Suspect)>;

/// What was read below one root.
#[derive(Debug, Default)]
struct Account {
    /// The number of a suspect, and what it is.
    workloads: BTreeMap<usize, Workload>,
    /// Those that are known otherwise than by a suspect, with the start of their first process: if
    /// that is another's now, they have ended.
    others: Vec<(Workload, u64)>,
    /// Names in `/run/netns`, and what they stand for.
    names: Vec<(String, Inode)>,
    denied: u32,
}

/// Returns the containers that `processes` belong to, and a line for people for each thing that
/// could not be seen. `root` is where `/proc` and all else is: `/`, or a copy of somebody's.
///
/// Host-network containers are among them; other processes of the host's own namespace are not.
pub fn workloads(processes: &[Process], root: &Path) -> (Vec<Workload>, Vec<String>) {
    let here = match View::open(root) {
        Ok(view) => view,
        Err(error) => {
            return (Vec::new(), vec![format!("cannot read {}: {error}", root.display())]);
        }
    };
    let host = Host::of(&here, processes);
    let suspects = suspects(processes, &here, host.mntns);
    let (mut account, mut unseen) = read_all(&suspects, root, host.mntns);
    let mut found = Vec::new();
    for (n, suspect) in suspects.iter().enumerate() {
        let told = account.workloads.remove(&n);
        if let Some(mut workload) = told.or_else(|| by_claim(suspect.claim.as_ref()?)) {
            workload.pid = Some(suspect.first.pid);
            found.push((Some(n), workload));
        }
    }
    let starts: HashMap<u32, u64> = processes.iter().map(|p| (p.pid, p.start)).collect();
    let runs = |pid: Option<u32>, start| pid.is_some_and(|pid| starts.get(&pid) == Some(&start));
    let others = account.others.into_iter().filter(|(workload, start)| runs(workload.pid, *start));
    found.extend(others.map(|(workload, _)| (None, workload)));
    name_outer(&mut found, &suspects, host.mntns);
    let mut workloads: Vec<Workload> = found.into_iter().map(|(_, workload)| workload).collect();
    let rest = Rest { processes, host: &host, suspects: &suspects };
    rest.add_names(&account.names, &mut workloads);
    rest.add_plain(&mut workloads);
    if account.denied > 0 {
        unseen.push(format!(
            "names, images and networks of some containers: {} files of runtimes may be read by root only",
            account.denied
        ));
    }
    (workloads, unseen)
}

/// Returns those of `all` that tell whose the network namespace `netns` is: who is in it, who is of
/// the same containers, and who made these. `None` if `some`, who are in it and who made those, do
/// not tell whether there are more.
pub fn concerned(all: Option<&[Process]>, some: &[Process], netns: Inode) -> Option<Vec<Process>> {
    let monitors: BTreeSet<u32> =
        some.iter().filter(|p| Monitor::is_one(&p.comm)).map(|p| p.pid).collect();
    let inside = || some.iter().filter(|process| process.netns == Some(netns));
    let claims: BTreeSet<Claim> = inside().filter_map(|process| claim(&process.cgroup)).collect();
    let made = inside().filter(|process| monitors.contains(&process.parent));
    let mntns: BTreeSet<Inode> = made.filter_map(|process| process.mntns).collect();
    if claims.is_empty() && mntns.is_empty() {
        return Some(some.to_vec());
    }
    let all = all?;
    let is_one = |process: &&Process| {
        process.netns == Some(netns)
            || process.mntns.is_some_and(|inode| mntns.contains(&inode))
            || claim(&process.cgroup).is_some_and(|claim| claims.contains(&claim))
    };
    let found: Vec<&Process> = all.iter().filter(is_one).collect();
    let wanted: BTreeSet<u32> = found.iter().flat_map(|p| [p.pid, p.parent]).collect();
    Some(all.iter().filter(|process| wanted.contains(&process.pid)).cloned().collect())
}

/// The host's own namespaces.
#[derive(Debug)]
struct Host {
    mntns: Option<Inode>,
    netns: Option<Inode>,
}

impl Host {
    /// Those of this very process; in a copy of somebody's `/proc`, of the first one.
    fn of(view: &View, processes: &[Process]) -> Self {
        let own = |kind: &str| {
            let link = view.link(&format!("proc/self/ns/{kind}"))?;
            link.rsplit_once('[')?.1.strip_suffix(']')?.parse().ok()
        };
        let first = processes.iter().min_by_key(|process| process.pid);
        Self {
            mntns: own("mnt").or_else(|| first?.mntns),
            netns: own("net").or_else(|| first?.netns),
        }
    }
}

/// Groups processes by what they claim, and those that claim nothing by their mount namespace if
/// a monitor made them.
fn suspects(processes: &[Process], proc: &View, host: Option<Inode>) -> Vec<Suspect> {
    let by_pid: BTreeMap<u32, &Process> = processes.iter().map(|p| (p.pid, p)).collect();
    let mut groups: BTreeMap<(Option<Claim>, Option<Inode>), Vec<&Process>> = BTreeMap::new();
    for process in processes.iter().filter(|process| !Monitor::is_one(&process.comm)) {
        let key = match claim(&process.cgroup) {
            Some(claim) => (Some(claim), None),
            None if process.mntns.is_none() || process.mntns == host => continue,
            None => (None, process.mntns),
        };
        groups.entry(key).or_default().push(process);
    }
    let suspect = |((claim, _), group): ((Option<Claim>, _), Vec<&Process>)| {
        let first = *group.iter().min_by_key(|process| (process.start, process.pid))?;
        let known = Some(first.parent).filter(|parent| *parent != 0);
        let parent = known.or_else(|| scene::parent(proc, first.pid));
        let parent = parent.and_then(|pid| by_pid.get(&pid).copied());
        let is_made = parent.is_some_and(|parent| Monitor::is_one(&parent.comm));
        (claim.is_some() || is_made).then(|| Suspect {
            claim,
            first: first.clone(),
            pids: group.iter().map(|process| process.pid).collect(),
            parent: parent.cloned(),
        })
    };
    groups.into_iter().filter_map(suspect).collect()
}

/// Reads each root's files in a thread of its own, and waits no longer than [`PATIENCE`].
fn read_all(suspects: &[Suspect], root: &Path, host: Option<Inode>) -> (Account, Vec<String>) {
    // The host's root first, whether or not anything runs there.
    let mut roots: BTreeMap<Option<Inode>, (PathBuf, Numbered)> = BTreeMap::new();
    roots.insert(None, (root.to_owned(), Vec::new()));
    for (n, suspect) in suspects.iter().enumerate() {
        let maker = suspect.parent.as_ref();
        let elsewhere = maker.filter(|maker| maker.mntns.is_some() && maker.mntns != host);
        let key = elsewhere.and_then(|maker| maker.mntns);
        let path = || elsewhere.map(|maker| root.join(format!("proc/{}/root", maker.pid)));
        let entry = roots.entry(key);
        let (_, list) = entry.or_insert_with(|| (path().unwrap_or_default(), Vec::new()));
        list.push((n, suspect.clone()));
    }
    let (sender, receiver) = mpsc::channel();
    let mut waiting: BTreeMap<Option<Inode>, PathBuf> = BTreeMap::new();
    for (key, (path, list)) in roots {
        let (sender, root, is_host) = (sender.clone(), root.to_owned(), key.is_none());
        waiting.insert(key, path.clone());
        // A thread that cannot be started is one that never answers.
        let _ = thread::Builder::new().spawn(move || {
            // Nobody listens any more once it took too long.
            let _ = sender.send((key, account(&root, &path, &list, is_host)));
        });
    }
    drop(sender);
    let mut whole = Account::default();
    let mut unseen = Vec::new();
    let deadline = Instant::now() + PATIENCE;
    while let Ok((key, read)) =
        receiver.recv_timeout(deadline.saturating_duration_since(Instant::now()))
    {
        let path = waiting.remove(&key).unwrap_or_default();
        match read {
            Ok(read) => whole.merge(read),
            Err(error) => unseen.push(format!("files of runtimes in {}: {error}", path.display())),
        }
    }
    unseen.extend(waiting.values().map(|path| {
        format!("files of runtimes in {}: they did not answer in time", path.display())
    }));
    (whole, unseen)
}

impl Account {
    fn merge(&mut self, other: Self) {
        self.workloads.extend(other.workloads);
        self.others.extend(other.others);
        self.names.extend(other.names);
        self.denied += other.denied;
    }
}

/// Reads what is to be read below one root.
fn account(
    root: &Path,
    path: &Path,
    suspects: &[(usize, Suspect)],
    is_host: bool,
) -> std::io::Result<Account> {
    let scene = Scene::new(View::open(root)?, View::open(path)?);
    let mut account = Account::default();
    for (n, suspect) in suspects {
        account.workloads.extend(identify(&scene, suspect).map(|workload| (*n, workload)));
    }
    if is_host {
        account.names = ip_netns::names(&scene.view);
        account.others = twinax::containers(&scene, root == Path::new("/"));
    }
    account.denied = scene.denied();
    Ok(account)
}

/// Finds out whose container it is, by its monitor if there is one.
fn identify(scene: &Scene, suspect: &Suspect) -> Option<Workload> {
    let monitor = suspect.parent.as_ref().and_then(|parent| Monitor::of(scene, parent));
    let hint = suspect.claim.as_ref().map(|claim| claim.hint);
    match (&monitor, hint) {
        (Some(Monitor::Shim(shim)), _) => containerd::shimmed(scene, suspect, shim),
        (Some(Monitor::Conmon(conmon)), _) => {
            crio::monitored(scene, conmon).or_else(|| podman::monitored(scene, conmon))
        }
        (Some(Monitor::Lxc { path, name }), _) => Some(lxc::workload(scene, name, Some(path))),
        (_, Some(Hint::Lxc)) => Some(lxc::workload(scene, &suspect.claim.as_ref()?.id, None)),
        (Some(Monitor::Nspawn(args)), _) => nspawn::workload(scene, suspect, Some(args)),
        (_, Some(Hint::Nspawn)) => nspawn::workload(scene, suspect, None),
        (None, Some(hint)) => orphaned(scene, suspect, hint),
        (None, None) => None,
    }
}

/// A container whose monitor is gone or may not be looked at: its id and the usual places.
fn orphaned(scene: &Scene, suspect: &Suspect, hint: Hint) -> Option<Workload> {
    let id = &suspect.claim.as_ref()?.id;
    match hint {
        Hint::Docker => docker::workload(scene, suspect, id),
        Hint::Podman => podman::workload(scene, id),
        Hint::CriO => crio::workload(scene, id),
        Hint::Cri | Hint::Containerd => containerd::workload(scene, id),
        Hint::Unknown => docker::workload(scene, suspect, id)
            .or_else(|| podman::workload(scene, id))
            .or_else(|| containerd::workload(scene, id)),
        Hint::Lxc | Hint::Nspawn => None,
    }
}

/// What is known where no file could be read.
fn by_claim(claim: &Claim) -> Option<Workload> {
    let runtime = match claim.hint {
        Hint::Docker => Runtime::Docker,
        Hint::Podman => Runtime::Podman,
        Hint::Containerd => Runtime::Containerd,
        Hint::Cri => Runtime::Cri,
        Hint::CriO => Runtime::CriO,
        Hint::Lxc => Runtime::Lxc,
        Hint::Nspawn => Runtime::Nspawn,
        Hint::Unknown => return None,
    };
    let mut workload = oci::nameless(runtime, &claim.id);
    if matches!(runtime, Runtime::Lxc | Runtime::Nspawn) {
        workload.name.clone_from(&claim.id);
    }
    Some(workload)
}

/// Says of containers that an engine in another container made, which one that is.
fn name_outer(found: &mut [(Option<usize>, Workload)], suspects: &[Suspect], host: Option<Inode>) {
    let owners: BTreeMap<Inode, String> = found
        .iter()
        .filter_map(|(n, workload)| Some((suspects[(*n)?].first.mntns?, workload.name.clone())))
        .filter(|(mntns, _)| Some(*mntns) != host)
        .collect();
    for (n, workload) in found {
        let maker = n.and_then(|n| suspects[n].parent.as_ref());
        if let Some(outer) = maker.and_then(|maker| owners.get(&maker.mntns?)) {
            workload.labels.insert(INSIDE.to_owned(), outer.clone());
        }
    }
}

/// What is told of namespaces that no runtime's container is in.
struct Rest<'a> {
    processes: &'a [Process],
    host: &'a Host,
    suspects: &'a [Suspect],
}

impl Rest<'_> {
    fn covered(&self, workloads: &[Workload]) -> BTreeSet<Inode> {
        let pids: BTreeSet<u32> = workloads.iter().filter_map(|workload| workload.pid).collect();
        let in_one = self.processes.iter().filter(|process| pids.contains(&process.pid));
        in_one.filter_map(|process| process.netns).chain(self.host.netns).collect()
    }

    fn first_in(&self, netns: Inode) -> Option<&Process> {
        let inside = self.processes.iter().filter(|process| process.netns == Some(netns));
        inside.min_by_key(|process| (process.start, process.pid))
    }

    /// Names of `ip netns`: those that no engine gave a container's namespace.
    fn add_names(&self, names: &[(String, Inode)], workloads: &mut Vec<Workload>) {
        let covered = self.covered(workloads);
        for (name, inode) in names.iter().filter(|(_, inode)| !covered.contains(inode)) {
            let mut workload = oci::nameless(Runtime::IpNetns, name);
            workload.name.clone_from(name);
            workload.pid = self.first_in(*inode).map(|process| process.pid);
            workload.netns_path = Some(format!("/run/netns/{name}"));
            workloads.push(workload);
        }
    }

    /// One plain process for each namespace that has processes and nothing else.
    fn add_plain(&self, workloads: &mut Vec<Workload>) {
        let covered = self.covered(workloads);
        let spaces: BTreeSet<Inode> = self.processes.iter().filter_map(|p| p.netns).collect();
        for first in spaces.difference(&covered).filter_map(|netns| self.first_in(*netns)) {
            let mut workload = oci::nameless(Runtime::Process, &first.pid.to_string());
            workload.name.clone_from(&first.comm);
            workload.pid = Some(first.pid);
            if let Some(unit) = cgroup::unit(&first.cgroup) {
                workload.labels.insert("unit".to_owned(), unit.to_owned());
            }
            let outer = self.suspects.iter().find(|suspect| suspect.pids.contains(&first.pid));
            let outer = outer.map(|suspect| suspect.first.pid);
            let outer = workloads.iter().find(|other| outer.is_some() && other.pid == outer);
            if let Some(outer) = outer.map(|outer| outer.name.clone()) {
                workload.labels.insert(INSIDE.to_owned(), outer);
            }
            workloads.push(workload);
        }
    }
}
