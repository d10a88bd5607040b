//! One root's files and the processes that made its containers, each looked at once.

use std::{
    cell::{OnceCell, RefCell},
    collections::BTreeMap,
};

use twinax_core::sight::Process;

use super::{
    cni::{Attachment, Results},
    podman::Storage,
    view::{LARGE, RECORD, View},
};

/// What is read for the containers of one root.
#[derive(Debug)]
pub(super) struct Scene {
    /// Where `proc` is.
    proc: View,
    /// Where runtimes' files are.
    pub(super) view: View,
    attachments: OnceCell<Results>,
    pub(super) storages: RefCell<BTreeMap<String, Storage>>,
    /// What is mounted where, as the engine sees it; by the engine's process.
    mounts: RefCell<BTreeMap<u32, Vec<Mount>>>,
    /// Which container has a process, by the directory of containerd's bundles.
    pub(super) inits: RefCell<BTreeMap<String, BTreeMap<u32, String>>>,
}

/// A line of `mountinfo`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mount {
    device: String,
    /// The directory of the file system that is mounted.
    source: String,
    target: String,
}

impl Scene {
    pub(super) fn new(proc: View, view: View) -> Self {
        Self {
            proc,
            view,
            attachments: OnceCell::new(),
            storages: RefCell::default(),
            mounts: RefCell::default(),
            inits: RefCell::default(),
        }
    }

    /// How many files were kept from us.
    pub(super) fn denied(&self) -> u32 {
        self.proc.denied() + self.view.denied()
    }

    /// What CNI's library has on record of a container or pod.
    pub(super) fn attachments(&self, id: &str) -> Vec<Attachment> {
        self.attachments.get_or_init(|| Results::list(&self.view)).of(&self.view, id)
    }

    fn args(&self, pid: u32) -> Vec<String> {
        let line = self.proc.read_proc(&format!("proc/{pid}/cmdline"), RECORD).unwrap_or_default();
        let words = line.split(|byte| *byte == 0).map(String::from_utf8_lossy);
        words.map(|word| word.into_owned()).collect()
    }

    fn cwd(&self, pid: u32) -> Option<String> {
        self.proc.link(&format!("proc/{pid}/cwd"))
    }

    /// The processes' numbers of `pid`, outermost namespace first.
    pub(super) fn numbers(&self, pid: u32) -> Vec<u32> {
        let status = self.proc.read_proc(&format!("proc/{pid}/status"), RECORD).unwrap_or_default();
        let status = String::from_utf8_lossy(&status);
        let line = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
        line.unwrap_or_default().split_whitespace().filter_map(|word| word.parse().ok()).collect()
    }

    /// Where the file that is mounted on `target` in the container of process `pid` lies, as
    /// the engine's process `maker` sees it.
    pub(super) fn source(&self, pid: u32, maker: u32, target: &str) -> Option<String> {
        let inside = self.mounts_of(pid);
        let mount = inside.iter().rev().find(|mount| mount.target == target)?;
        located(mount, &self.mounts_of(maker))
    }

    fn mounts_of(&self, pid: u32) -> Vec<Mount> {
        if let Some(known) = self.mounts.borrow().get(&pid) {
            return known.clone();
        }
        let text = self.proc.read_proc(&format!("proc/{pid}/mountinfo"), LARGE).unwrap_or_default();
        let mounts = mounts(&String::from_utf8_lossy(&text));
        self.mounts.borrow_mut().insert(pid, mounts.clone());
        mounts
    }
}

/// The process that made `pid`: field 4 of its `stat`.
pub(super) fn parent(proc: &View, pid: u32) -> Option<u32> {
    stat_field(proc, pid, 4)?.parse().ok()
}

/// A field of a process's `stat`, counted as proc(5) does, from the third on; the second is a
/// name that may hold anything.
fn stat_field(proc: &View, pid: u32, number: usize) -> Option<String> {
    let stat = proc.read_proc(&format!("proc/{pid}/stat"), RECORD)?;
    let stat = String::from_utf8_lossy(&stat);
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    fields.nth(number - 3).map(str::to_owned)
}

/// Reads a `mountinfo` (proc(5)).
fn mounts(text: &str) -> Vec<Mount> {
    let mount = |line: &str| {
        let mut fields = line.split(' ').skip(2);
        let device = fields.next()?.to_owned();
        Some(Mount { device, source: plain(fields.next()?), target: plain(fields.next()?) })
    };
    text.lines().filter_map(mount).collect()
}

/// Where what `mount` shows is found among `others`: by the mount that is nearest.
fn located(mount: &Mount, others: &[Mount]) -> Option<String> {
    let rest = |other: &Mount| {
        let rest = mount.source.strip_prefix(other.source.trim_end_matches('/'))?;
        let fits = other.device == mount.device && (rest.is_empty() || rest.starts_with('/'));
        fits.then(|| format!("{}{rest}", other.target.trim_end_matches('/')))
    };
    let places = others.iter().filter_map(|other| Some((other.source.len(), rest(other)?)));
    places.max_by_key(|(nearness, _)| *nearness).map(|(_, path)| path)
}

/// Undoes the kernel's escaping of blanks and the like: `\040`.
fn plain(field: &str) -> String {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field.as_bytes();
    while let [first, tail @ ..] = rest {
        let code = tail.get(..3).filter(|_| *first == b'\\');
        let code = code.and_then(|code| std::str::from_utf8(code).ok());
        if let Some(byte) = code.and_then(|code| u8::from_str_radix(code, 8).ok()) {
            bytes.push(byte);
            rest = &tail[3..];
        } else {
            bytes.push(*first);
            rest = tail;
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The process that stays with a container from the outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Monitor {
    /// containerd's.
    Shim(Shim),
    /// Podman's and CRI-O's.
    Conmon(Conmon),
    /// LXC's, with its directory of containers.
    Lxc { path: String, name: String },
    /// `systemd-nspawn` itself, with its arguments.
    Nspawn(Vec<String>),
}

/// `containerd-shim-runc-v2 -namespace NS -id ID -address SOCKET`, in the bundle of ID.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Shim {
    pub(super) namespace: String,
    pub(super) id: String,
    /// The directory of the namespace's bundles.
    pub(super) bundles: Option<String>,
}

/// `conmon -c ID -n NAME -b BUNDLE -p PIDFILE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Conmon {
    pub(super) id: String,
    pub(super) name: Option<String>,
    pub(super) bundle: Option<String>,
    pub(super) pidfile: Option<String>,
}

impl Monitor {
    /// Whether a process of this name may be one.
    pub(super) fn is_one(comm: &str) -> bool {
        comm.starts_with("containerd-shim")
            || matches!(
                comm,
                "conmon" | "systemd-nspawn" | "lxc-start" | "lxc-execute" | "lxcmonitor"
            )
            || comm.starts_with("[lxc monitor]")
    }

    /// Reads its command line, if it is one.
    pub(super) fn of(scene: &Scene, process: &Process) -> Option<Self> {
        if !Self::is_one(&process.comm) {
            return None;
        }
        let args = scene.args(process.pid);
        match process.comm.as_str() {
            "conmon" => conmon(&args).map(Self::Conmon),
            "systemd-nspawn" => Some(Self::Nspawn(args)),
            comm if comm.starts_with("containerd-shim") => {
                let mut shim = shim(&args)?;
                let folder = scene.cwd(process.pid);
                shim.bundles = folder.and_then(|cwd| Some(cwd.rsplit_once('/')?.0.to_owned()));
                Some(Self::Shim(shim))
            }
            _ => lxc(&args),
        }
    }
}

/// The word after `name`, in the spellings of Go's and of GNU's options.
pub(super) fn option(args: &[String], names: &[&str]) -> Option<String> {
    args.iter().enumerate().find_map(|(n, arg)| {
        let (word, value) = match arg.split_once('=') {
            Some((word, value)) => (word, Some(value.to_owned())),
            None => (arg.as_str(), args.get(n + 1).cloned()),
        };
        names.contains(&word).then_some(value).flatten()
    })
}

fn shim(args: &[String]) -> Option<Shim> {
    let namespace = option(args, &["-namespace", "--namespace"])?;
    Some(Shim { namespace, id: option(args, &["-id", "--id"])?, bundles: None })
}

fn conmon(args: &[String]) -> Option<Conmon> {
    Some(Conmon {
        id: option(args, &["-c", "--cid"])?,
        name: option(args, &["-n", "--name"]),
        bundle: option(args, &["-b", "--bundle"]),
        pidfile: option(args, &["-p", "--container-pidfile"]),
    })
}

/// `[lxc monitor] /var/lib/lxc NAME`, all in one word; or `lxc-start -n NAME`.
fn lxc(args: &[String]) -> Option<Monitor> {
    let title = args.first()?.strip_prefix("[lxc monitor] ");
    let said = title.and_then(|rest| rest.trim_end().rsplit_once(' '));
    let (path, name) = match said {
        Some((path, name)) => (path.to_owned(), name.to_owned()),
        None => {
            let path = option(args, &["-P", "--lxcpath"]);
            let name = option(args, &["-n", "--name"])?;
            (path.unwrap_or_else(|| "/var/lib/lxc".to_owned()), name)
        }
    };
    Some(Monitor::Lxc { path, name })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn monitors_say_what_they_watch() {
        let args = words("/usr/bin/containerd-shim-runc-v2 -namespace k8s.io -id ab -address /x");
        let found = shim(&args).unwrap();
        assert_eq!((found.namespace.as_str(), found.id.as_str()), ("k8s.io", "ab"));
        let args = words("/usr/bin/conmon --api-version 1 -c ab -u ab -b /b/userdata -p /p -n web");
        let found = conmon(&args).unwrap();
        assert_eq!(found.name.as_deref(), Some("web"));
        assert_eq!(found.bundle.as_deref(), Some("/b/userdata"));
        let found = lxc(&["[lxc monitor] /var/lib/my lxc web".to_owned()]).unwrap();
        assert_eq!(found, Monitor::Lxc { path: "/var/lib/my lxc".into(), name: "web".into() });
        let found = lxc(&words("lxc-start -P /srv -n web -F")).unwrap();
        assert_eq!(found, Monitor::Lxc { path: "/srv".into(), name: "web".into() });
        for line in ["", "conmon -c", "[lxc monitor] x", "containerd-shim-runc-v2 -id"] {
            let args = words(line);
            assert!(shim(&args).is_none() && conmon(&args).is_none() && lxc(&args).is_none());
        }
    }

    #[test]
    fn a_bind_mounts_source_is_found_from_the_outside() {
        let outside = mounts(
            "1 0 8:1 / / rw - ext4 /dev/sda1 rw\n2 1 0:57 / /var/lib rw - tmpfs none rw\n\
             3 1 8:2 /data /mnt/my\\040disk rw - ext4 /dev/sdb rw",
        );
        let at = |line| located(&mounts(line)[0], &outside);
        let path = at("9 8 0:57 /docker/containers/ab/hostname /etc/hostname rw - tmpfs none rw");
        assert_eq!(path.as_deref(), Some("/var/lib/docker/containers/ab/hostname"));
        let path = at("9 8 8:2 /data/docker/hosts /etc/hosts rw - ext4 /dev/sdb rw");
        assert_eq!(path.as_deref(), Some("/mnt/my disk/docker/hosts"));
        assert_eq!(at("9 8 8:2 /database/hosts /etc/hosts rw - ext4 /dev/sdb rw"), None);
        assert_eq!(at("9 8 8:9 /x /etc/hosts rw - ext4 /dev/sdc rw"), None);
        assert_eq!(mounts("garbage\n\n1 2"), []);
        assert_eq!(plain("\\04"), "\\04");
    }
}
