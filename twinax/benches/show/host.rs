//! The host that is looked at: containers with a cable each, and the processes in them.
//!
//! A container is this program again in namespaces of its own: its first process has a socket that
//! waits for others, the rest sleep. Its cable is the floor's of the other benchmark, so the far
//! end of each has the same number. On record it is Twinax's, so that names are looked up too.

use std::{
    env, fs,
    io::{self, BufRead, BufReader, Write},
    net::TcpListener,
    os::{fd::AsFd, unix::fs::MetadataExt},
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, Stdio},
    thread,
};

use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};
use twinax::{
    linux::{
        netns::own_cookie,
        nft::{NftOp, NftSocket},
        process::Task,
    },
    place::{self, Need},
};
use twinax_core::{
    name::ContainerName,
    state::{Container, Run, Sandbox, Status, Way},
};

use crate::{
    floor::{Cable, Floor},
    sandbox,
};

/// How many processes the container that this one begins is to have; unset elsewhere.
const TENANT: &str = "TWINAX_BENCH_TENANT";
/// Set for the process that goes to the namespace that is its standard input.
const OUTSIDER: &str = "TWINAX_BENCH_OUTSIDER";
/// Where the records of Twinax's containers are.
const STORE: &str = "/run/twinax";
const BRIDGE: &str = "tx-bench";
const GATEWAY: [u8; 4] = [10, 78, 255, 254];
const GATEWAY_MAC: [u8; 6] = [2, 0x74, 10, 78, 255, 254];
/// Of the host ends, by number; those of the containers are all alike.
const FIRST: u32 = 5000;
/// A bridge has 1,023 ports.
const PORTS: u32 = 1000;

/// A container, as it was made.
pub struct Tenant {
    pub name: String,
    pub pid: u32,
    pub host_end: String,
    pub addr: [u8; 4],
    /// Of its network namespace.
    pub inode: u64,
}

pub struct Host {
    pub tenants: Vec<Tenant>,
    /// They sleep until this process ends, as it is the first of its pid namespace.
    _children: Vec<Child>,
}

/// Keeps the namespace of the machine open as standard input, which the sandbox inherits: there is
/// a process in it that the sandbox cannot see.
pub fn keep_outer() -> io::Result<()> {
    let outer = fs::File::open("/proc/self/ns/net")?;
    Ok(rustix::stdio::dup2_stdin(outer)?)
}

impl Host {
    /// Makes `size` containers of `processes` processes each.
    pub fn build(size: u32, processes: u32) -> io::Result<Self> {
        // Now somebody who is seen is in it, as on any host.
        let mut outsider = tenant(0)?;
        outsider.env(OUTSIDER, "").stdin(Stdio::inherit());
        let mut children = vec![outsider.spawn()?];
        rustix::stdio::dup2_stdin(fs::File::open("/dev/null")?)?;
        let mut floor = Floor::open()?;
        floor.loopback_up()?;
        let mut nft = NftSocket::open().map_err(io::Error::other)?;
        nft.transact(&[NftOp::PutTables]).map_err(io::Error::other)?;
        // Where no store is begun, the first command begins one, and empties it.
        place::enter(Need::Start).map_err(io::Error::other)?;
        let store = PathBuf::from(format!("{STORE}/{}/containers", own_cookie()?));
        let (mut tenants, mut bridge) = (Vec::new(), (0, String::new()));
        for n in 0..size {
            if n % PORTS == 0 {
                let name = format!("{BRIDGE}{}", n / PORTS);
                let index = floor.bridge(&name, GATEWAY_MAC, (GATEWAY, 16))?;
                bridge = (index, name);
            }
            let mut child = tenant(processes)?.stdout(Stdio::piped()).spawn()?;
            let stdout = child.stdout.take().ok_or_else(|| io::Error::other("no output"))?;
            let mut line = String::new();
            BufReader::new(stdout).read_line(&mut line)?;
            if line.trim() != "ready" {
                return Err(io::Error::other(format!("container {n} does not start")));
            }
            let netns = format!("/proc/{}/ns/net", child.id());
            let cable = cable(n, &bridge);
            floor.attach(&cable, Path::new(&netns))?;
            record(&store, &cable.container, child.id())?;
            tenants.push(Tenant {
                pid: child.id(),
                host_end: cable.host_end(),
                addr: cable.addr,
                inode: fs::metadata(&netns)?.ino(),
                name: cable.container,
            });
            children.push(child);
        }
        Ok(Self { tenants, _children: children })
    }
}

fn cable(n: u32, bridge: &(u32, String)) -> Cable {
    let number = FIRST + n;
    let addr = [10, 78, (n / 250) as u8, (n % 250) as u8 + 1];
    let [w, x, y, z] = addr;
    Cable {
        container: format!("c{n:05}"),
        number,
        alias: format!("twinax default/c{n:05} eth0"),
        bridge: bridge.0,
        bridge_name: bridge.1.clone(),
        group: twinax_core::ruleset::GROUP_BASE + 1,
        mtu: 1500,
        mac: [2, 0x74, w, x, y, z],
        host_mac: [0x0a, 0x74, w, x, y, z],
        addr,
        prefix: 16,
        gateway: GATEWAY,
        gateway_mac: GATEWAY_MAC,
        host_port: 20_000 + n as u16,
        port: 80,
    }
}

/// Writes the record as `twinax run` does.
fn record(store: &Path, name: &str, pid: u32) -> io::Result<()> {
    let task = Task::of(pid).ok_or_else(|| io::Error::other("the container is gone"))?;
    let (id, name) = (format!("{pid:012x}"), name.parse::<ContainerName>());
    let sandbox = Sandbox { way: Way::Pid { pid, start: task.start }, cookie: None };
    let mut container = Container::bare(id, sandbox);
    let me = Task::own().ok_or_else(|| io::Error::other("no /proc"))?;
    container.run = Some(Run {
        command: vec!["sleep".to_owned()],
        remove: false,
        status: Status::Running { init: task.into(), supervisor: me.into() },
        created: 0,
        lab: None,
    });
    let name = name.map_err(io::Error::other)?;
    let folder = store.join(name.as_str());
    fs::create_dir_all(&folder)?;
    let text = serde_json::to_vec(&(name, container)).map_err(io::Error::other)?;
    fs::write(folder.join("record.json"), text)
}

fn tenant(processes: u32) -> io::Result<Command> {
    let mut command = Command::new(env::current_exe()?);
    command.env(TENANT, processes.to_string()).stdin(Stdio::null());
    Ok(command)
}

/// Whether this process is one of a container's; it never returns then.
pub fn be_tenant() -> Option<ExitCode> {
    let processes: u32 = env::var(TENANT).ok()?.parse().ok()?;
    match live(processes) {
        Ok(()) => Some(ExitCode::SUCCESS),
        Err(error) => {
            eprintln!("error: {error}");
            Some(ExitCode::FAILURE)
        }
    }
}

fn live(processes: u32) -> io::Result<()> {
    let _socket = match processes {
        0 if env::var_os(OUTSIDER).is_some() => {
            move_into_link_name_space(io::stdin().as_fd(), Some(LinkNameSpaceType::Network))?;
            None
        }
        0 => None,
        _ => {
            sandbox::unshare(
                UnshareFlags::NEWNET
                    | UnshareFlags::NEWNS
                    | UnshareFlags::NEWUTS
                    | UnshareFlags::NEWIPC,
            )?;
            for _ in 1..processes {
                tenant(0)?.stdout(Stdio::null()).spawn()?;
            }
            let socket = TcpListener::bind("0.0.0.0:8080")?;
            println!("ready");
            io::stdout().flush()?;
            Some(socket)
        }
    };
    loop {
        thread::park();
    }
}
