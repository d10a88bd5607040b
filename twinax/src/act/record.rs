//! Records of containers that are not stored yet, and the requests that bring them in. Sends none.

use std::time::{SystemTime, UNIX_EPOCH};

use twinax_core::{
    name::{ContainerName, HostName, NetworkName},
    state::{
        AttachSpec, Change, Container, DEFAULT_NETWORK, Lab, PublishSpec, Request, Run, Sandbox,
        Status, Way,
    },
};

use super::failed::Failed;
use crate::{
    container::{Born, Task},
    front::cli::Mode,
    world::Linux,
};

/// A container to be started.
pub(super) struct Wanted {
    pub name: ContainerName,
    pub command: Vec<String>,
    pub env: Vec<(String, String)>,
    pub workdir: Option<String>,
    pub mode: Mode,
    pub publish: Vec<PublishSpec>,
    pub hostname: Option<HostName>,
    pub dns: Vec<std::net::IpAddr>,
    pub remove: bool,
    pub attached: bool,
    pub lab: Option<Lab>,
}

/// What only the start of a container's processes tells.
pub(super) struct Birth {
    id: String,
    cookie: Option<u64>,
    init: Task,
    supervisor: Task,
    /// Seconds since 1970.
    created: u64,
}

impl Birth {
    /// That of processes which wait.
    pub(super) fn of(born: &Born) -> Self {
        Self {
            id: new_id(),
            cookie: Some(born.cookie),
            init: born.init,
            supervisor: born.supervisor,
            created: now(),
        }
    }

    /// Stands for processes that have not been started, in a plan.
    pub(super) fn imagined() -> Self {
        let nobody = Task { pid: u32::MAX, start: 0 };
        let id = "0".repeat(12);
        Self { id, cookie: None, init: nobody, supervisor: nobody, created: 0 }
    }
}

/// What is asked of the engine for a container whose processes wait.
pub(super) fn request(wanted: &Wanted, birth: Birth) -> Request {
    let Task { pid, start } = birth.init;
    let way = match &wanted.mode {
        Mode::Networks(_) | Mode::None => Way::Pid { pid, start },
        Mode::Host => Way::Host,
        Mode::Of(other) => Way::Of(other.clone()),
    };
    let run = Run {
        command: wanted.command.clone(),
        remove: wanted.remove,
        status: Status::Running { init: (pid, start), supervisor: birth.supervisor.into() },
        created: birth.created,
        lab: wanted.lab.clone(),
    };
    let container = Container {
        hostname: wanted.hostname.clone(),
        dns: wanted.dns.clone(),
        run: Some(run),
        ..Container::bare(birth.id, Sandbox { way, cookie: birth.cookie })
    };
    let name = || wanted.name.clone();
    let mut request = vec![Change::PutContainer { name: name(), container }];
    if let Mode::Networks(specs) = &wanted.mode {
        let default: NetworkName = DEFAULT_NETWORK.parse().expect("a good name");
        let fallback = [AttachSpec::new(default)];
        let specs = if specs.is_empty() { &fallback } else { specs.as_slice() };
        let attach = |spec: &AttachSpec| Change::Attach { container: name(), spec: spec.clone() };
        request.extend(specs.iter().map(attach));
    }
    if !wanted.publish.is_empty() {
        request.push(Change::Publish { container: name(), ports: wanted.publish.clone() });
    }
    request
}

/// Returns the record of somebody else's namespace, if that is what `name` means.
pub(super) fn foreign(
    world: &mut Linux,
    name: &ContainerName,
) -> Result<Option<Container>, Failed> {
    let way = match name.as_str().split_once(':') {
        Some(("pid", pid)) => {
            let pid = pid.parse().expect("checked when the name was parsed");
            let Some(task) = Task::of(pid) else {
                return Err(Failed::told(format!("there is no process {pid}")));
            };
            Way::Pid { pid: task.pid, start: task.start }
        }
        Some(("netns", path)) => Way::Path(path.to_owned()),
        _ => return Ok(None),
    };
    let sandbox = world.meet(way)?;
    if world.host_cookie().is_ok_and(|own| Some(own) == sandbox.cookie) {
        let what = format!("{name} is the host's own network namespace, which no cable leads into");
        return Err(Failed::told(what).hint("name a process or file of another namespace"));
    }
    Ok(Some(Container::bare(new_id(), sandbox)))
}

/// Twelve random hexadecimal digits, as Docker's short ids.
pub(super) fn new_id() -> String {
    let mut bytes = [0; 6];
    // The kernel's pool never fails for so few bytes once it is seeded.
    let _ = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Seconds since 1970.
pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
