//! The engine as a resident process has it: one world, opened once, one request after another.

use std::path::Path;

use rustix::process::{Pid, Signal};

use twinax::{
    linux::process::Task,
    place::{self, Need},
    store::Store,
    world::Linux,
};
use twinax_core::{
    engine,
    name::{ContainerName, NetworkName, Proto},
    state::{
        AttachSpec, Change, Container, DEFAULT_NETWORK, Endpoint, Keys, Network, PublishSpec,
        Request, State, Status, Way,
    },
};

use crate::timed::{Spent, Timed};

/// What the floor has to know of the network that the engine has made.
#[derive(Clone, Debug)]
pub struct Facts {
    pub bridge: String,
    pub group: u32,
    pub mtu: u32,
}

/// What the engine chose for a container.
#[derive(Clone, Debug)]
pub struct Chosen {
    pub name: ContainerName,
    pub endpoint: Endpoint,
    pub network: Network,
}

/// The engine on this sandbox's kernel.
pub struct Engine {
    world: Linux,
    store: Store,
    network: NetworkName,
    made: u64,
}

impl Engine {
    pub fn open() -> Result<Self, String> {
        let place = place::enter(Need::Start).map_err(told)?;
        let network = DEFAULT_NETWORK.parse().map_err(told)?;
        let world = Linux::resident(place.store.clone());
        Ok(Self { world, store: place.store, network, made: 0 })
    }

    /// Attaches a namespace to the default network, as `network connect -p PORT:80` does.
    pub fn attach(&mut self, way: Way, host_port: u16) -> Result<Chosen, String> {
        let (name, request) = self.request(way, host_port)?;
        let done = self.carry(&request)?;
        self.chosen(name, &done.state)
    }

    /// Attaches so too, and returns where the time went that it took.
    pub fn profile(&mut self, way: Way, host_port: u16) -> Result<(Chosen, Spent), String> {
        let (name, request) = self.request(way, host_port)?;
        let _lock = self.store.lock().map_err(told)?;
        let mut world = Timed::new(&mut self.world);
        let done = engine::run(&mut world, &request).map_err(|failure| format!("{failure:?}"))?;
        let spent = world.spent();
        Ok((self.chosen(name, &done.state)?, spent))
    }

    fn request(&mut self, way: Way, host_port: u16) -> Result<(ContainerName, Request), String> {
        let name = name_of(&way)?;
        let sandbox = self.world.meet(way).map_err(told)?;
        self.made += 1;
        let container = Container::bare(format!("{:012x}", self.made), sandbox);
        let ports = vec![publish(host_port)];
        let spec = AttachSpec::new(self.network.clone());
        let request = vec![
            Change::PutContainer { name: name.clone(), container },
            Change::Attach { container: name.clone(), spec },
            Change::Publish { container: name.clone(), ports },
        ];
        Ok((name, request))
    }

    fn chosen(&self, name: ContainerName, state: &State) -> Result<Chosen, String> {
        let container = state.containers.get(&name).ok_or("it is not recorded")?;
        let endpoint = container.endpoints.first().ok_or("it has no endpoint")?.clone();
        let network = state.networks.get(&self.network).ok_or("there is no network")?;
        Ok(Chosen { name, endpoint, network: network.clone() })
    }

    /// Detaches a namespace that stays; its ports go first.
    pub fn detach(&mut self, container: ContainerName, host_port: u16) -> Result<(), String> {
        let network = self.network.clone();
        let ports = vec![publish(host_port)];
        self.carry(&vec![
            Change::Unpublish { container: container.clone(), ports },
            Change::Detach { container, network },
        ])
        .map(drop)
    }

    /// Detaches a container that Twinax runs, and that is to be killed then.
    pub fn end(&mut self, name: ContainerName) -> Result<(), String> {
        self.carry(&vec![Change::End { name }]).map(drop)
    }

    /// Detaches one so too, and returns where the time went that it took.
    pub fn profile_end(&mut self, name: ContainerName) -> Result<Spent, String> {
        let _lock = self.store.lock().map_err(told)?;
        let mut world = Timed::new(&mut self.world);
        let request = vec![Change::End { name }];
        engine::run(&mut world, &request).map_err(|failure| format!("{failure:?}"))?;
        Ok(world.spent())
    }

    /// Returns the supervisor and the first process of a container that Twinax runs.
    pub fn processes(&self, name: &ContainerName) -> Result<[u32; 2], String> {
        let keys = Keys { containers: [name.clone()].into(), ..Keys::default() };
        let state = self.store.load(&keys).map_err(told)?;
        let run = state.containers.get(name).and_then(|container| container.run.as_ref());
        match run.map(|run| &run.status) {
            Some(Status::Running { init, supervisor }) => Ok([supervisor.0, init.0]),
            _ => Err(format!("{name} does not run")),
        }
    }

    /// Removes a container, whose namespace has mostly ended by then.
    pub fn remove(&mut self, name: ContainerName) -> Result<(), String> {
        self.carry(&vec![Change::RemoveContainer { name }]).map(drop)
    }

    fn carry(&mut self, request: &Request) -> Result<engine::Done, String> {
        let _lock = self.store.lock().map_err(told)?;
        engine::run(&mut self.world, request).map_err(|failure| format!("{failure:?}"))
    }
}

impl Chosen {
    pub fn facts(&self) -> Facts {
        Facts {
            bridge: self.network.bridge.to_string(),
            group: self.network.group().0,
            mtu: self.network.mtu,
        }
    }
}

/// How a namespace kept by a mount is found.
pub fn at(path: &Path) -> Way {
    Way::Path(path.display().to_string())
}

fn publish(host_port: u16) -> PublishSpec {
    PublishSpec {
        proto: Proto::Tcp,
        host: None,
        host_ports: Some((host_port, host_port)),
        container_ports: (80, 80),
    }
}

pub fn name_of(way: &Way) -> Result<ContainerName, String> {
    match way {
        Way::Pid { pid, .. } => format!("pid:{pid}"),
        Way::Path(path) => format!("netns:{path}"),
        other => format!("{other:?}"),
    }
    .parse()
    .map_err(told)
}

/// Ends a process and waits until nothing of it is left but its number.
pub fn end(pid: u32) -> Result<(), String> {
    let process = Pid::from_raw(pid as i32).ok_or("that is no process")?;
    rustix::process::kill_process(process, Signal::KILL).map_err(told)?;
    while Task::of(pid).is_some() {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    Ok(())
}

fn told(error: impl std::fmt::Display) -> String {
    error.to_string()
}
