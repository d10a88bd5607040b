//! An engine that serves many requests in one process, beside commands that change the same host,
//! are killed, or fail.

use std::{collections::BTreeSet, fs, net::TcpListener, net::TcpStream};

use twinax::{
    place::{self, Need},
    store::Store,
    world::{Linux, LinuxError},
};
use twinax_core::{
    engine::{self, Failure, Journal, World},
    name::{ContainerName, Proto},
    state::{
        AttachSpec, Change, Container, DEFAULT_NETWORK, Keys, PublishSpec, Request, Row, State, Way,
    },
};

use crate::{
    harness::Outcome,
    product::{answer, links},
    sandbox::{Netns, Sandbox},
    tests, wire,
};

tests![
    it_sees_what_commands_change,
    it_carries_on_what_others_left,
    others_carry_on_what_it_left,
    what_fails_is_taken_back,
];

/// Such an engine.
pub struct Resident {
    world: Linux,
    store: Store,
}

impl Resident {
    pub fn new() -> Self {
        let place = place::enter(Need::Start).unwrap();
        Self { world: Linux::resident(place.store.clone()), store: place.store }
    }

    /// As a command has it, without a second thread.
    pub fn alone() -> Self {
        let place = place::enter(Need::Start).unwrap();
        Self { world: Linux::new(place.store.clone()), store: place.store }
    }

    pub fn run(&mut self, request: &Request) -> Result<State, Failure<LinuxError>> {
        let _lock = self.store.lock().unwrap();
        engine::run(&mut self.world, request).map(|done| done.state)
    }

    /// Attaches a namespace of [`named`], with a port.
    fn attach(&mut self, name: &str, port: u16) -> Result<(), String> {
        let request = self.request(name, port);
        self.run(&request).map(drop).map_err(|failure| format!("{failure:?}"))
    }

    fn request(&mut self, name: &str, port: u16) -> Request {
        let mut request = self.joining(name, DEFAULT_NETWORK);
        let name = handle(name);
        let host_ports = Some((port, port));
        let publish =
            PublishSpec { proto: Proto::Tcp, host: None, host_ports, container_ports: (80, 80) };
        request.push(Change::Publish { container: name, ports: vec![publish] });
        request
    }

    /// What attaches a namespace of [`named`] to a network.
    pub fn joining(&mut self, name: &str, network: &str) -> Request {
        let sandbox = self.world.meet(Way::Path(format!("/run/netns/{name}"))).unwrap();
        let name = handle(name);
        let container = Container::bare("0123456789ab".to_owned(), sandbox);
        let spec = AttachSpec::new(network.parse().unwrap());
        vec![
            Change::PutContainer { name: name.clone(), container },
            Change::Attach { container: name, spec },
        ]
    }

    pub fn remove(&mut self, name: &str) {
        self.run(&vec![Change::RemoveContainer { name: handle(name) }]).unwrap();
    }
}

pub fn handle(name: &str) -> ContainerName {
    format!("netns:/run/netns/{name}").parse().unwrap()
}

/// A namespace kept by a mount.
pub fn named(sandbox: &Sandbox, name: &str) -> Netns {
    fs::create_dir_all("/run/netns").unwrap();
    let netns = sandbox.namespace();
    let path = format!("/run/netns/{name}");
    fs::write(&path, "").unwrap();
    netns.run(|| rustix::mount::mount_bind("/proc/thread-self/ns/net", &path)).unwrap();
    netns
}

/// Every address that `ps` shows, each once.
fn addresses(sandbox: &Sandbox) -> BTreeSet<String> {
    let all = sandbox.json("ps --all");
    let rows = all["containers"].as_array().unwrap().iter();
    let addrs = rows.flat_map(|row| row["networks"].as_array().unwrap());
    let addrs = addrs.map(|end| end["addresses"][0].as_str().unwrap().to_owned());
    let listed: Vec<String> = addrs.collect();
    let once: BTreeSet<String> = listed.iter().cloned().collect();
    assert_eq!(once.len(), listed.len(), "{listed:?}");
    once
}

fn it_sees_what_commands_change(sandbox: &mut Sandbox) -> Outcome {
    let rooms = ["a", "b", "c", "d"].map(|name| named(sandbox, name));
    answer(&rooms[0], "0.0.0.0:80".parse().unwrap());
    let mut resident = Resident::new();
    resident.attach("a", 8001).unwrap();
    drop(TcpStream::connect("127.0.0.1:8001").unwrap());
    // Addresses, numbers and ports that commands have given out are theirs.
    sandbox.done("network connect -p 8002:80 default netns:/run/netns/b");
    resident.attach("c", 8003).unwrap();
    assert_eq!(addresses(sandbox).len(), 3);
    let refused = resident.attach("d", 8002).unwrap_err();
    assert!(refused.contains("Refused"), "{refused}");
    // And what they took away is gone: rows, and what rows of its own said.
    sandbox.done("unpublish netns:/run/netns/a 8001:80");
    sandbox.done("network disconnect default netns:/run/netns/a");
    resident.attach("d", 8001).unwrap();
    assert_eq!(addresses(sandbox).len(), 3);
    resident.remove("c");
    resident.remove("d");
    sandbox.done("unpublish netns:/run/netns/b 8002:80");
    sandbox.done("network disconnect default netns:/run/netns/b");
    assert!(addresses(sandbox).is_empty());
    resident.attach("a", 8001).unwrap();
    drop(TcpStream::connect("127.0.0.1:8001").unwrap());
    sandbox.whole();
    Outcome::Passed
}

/// A request that was begun, and whose rows and kernel objects nobody made.
fn left_by_a_kill(store: &Store, name: &str, keys: &Keys) -> Journal {
    let before = store.load(keys).unwrap();
    let mut host = before.host.clone();
    host.serial += 10;
    let name = handle(name);
    Journal {
        keys: keys.clone(),
        before: vec![Row::Host(before.host.clone()), Row::Container(name.clone(), None)],
        after: vec![Row::Host(host), Row::Container(name, None)],
    }
}

fn it_carries_on_what_others_left(sandbox: &mut Sandbox) -> Outcome {
    let _rooms = ["a", "b", "c"].map(|name| named(sandbox, name));
    let mut resident = Resident::new();
    resident.attach("a", 8001).unwrap();
    let keys = Keys { containers: [handle("b")].into(), ..Keys::default() };
    let serial = resident.store.host().unwrap().serial;
    let journal = left_by_a_kill(&resident.store, "b", &keys);
    resident.store.begin(&journal).unwrap();
    // It is seen until it has been carried on.
    for _ in 0..2 {
        assert!(resident.world.pending().unwrap().journal.is_some());
    }
    // It takes the rows of after for true, as any other command would.
    resident.attach("c", 8003).unwrap();
    assert_eq!(resident.store.host().unwrap().serial, serial + 11);
    // Another one is carried on by a command, of which it hears.
    let journal = left_by_a_kill(&resident.store, "b", &keys);
    resident.store.begin(&journal).unwrap();
    sandbox.whole();
    resident.attach("b", 8002).unwrap();
    assert_eq!(resident.store.host().unwrap().serial, serial + 22);
    sandbox.whole();
    Outcome::Passed
}

fn others_carry_on_what_it_left(sandbox: &mut Sandbox) -> Outcome {
    let _rooms = ["a", "b", "c"].map(|name| named(sandbox, name));
    let mut resident = Resident::new();
    // The journal's file is used again, so twice.
    resident.attach("a", 8001).unwrap();
    resident.attach("b", 8002).unwrap();
    let serial = resident.store.host().unwrap().serial;
    let keys = Keys { containers: [handle("c")].into(), ..Keys::default() };
    let journal = left_by_a_kill(&resident.store, "c", &keys);
    resident.world.begin(&journal).unwrap();
    resident.world.write(&journal.after).unwrap();
    // Killed before the rows are written.
    std::mem::forget(resident.world);
    sandbox.whole();
    assert_eq!(resident.store.host().unwrap().serial, serial + 10);
    sandbox.done("network connect -p 8003:80 default netns:/run/netns/c");
    sandbox.whole();
    Outcome::Passed
}

fn what_fails_is_taken_back(sandbox: &mut Sandbox) -> Outcome {
    let _rooms = ["a", "b"].map(|name| named(sandbox, name));
    let mut resident = Resident::new();
    resident.attach("a", 8001).unwrap();
    let serial = resident.store.host().unwrap().serial;
    // A link that is not ours has the name that the next cable is to have.
    let name = format!("txv{}", serial + 1);
    sandbox.host().run(|| wire::add_bridge(&name)).unwrap();
    let failed = resident.attach("b", 8002).unwrap_err();
    assert!(failed.contains("Restored"), "{failed}");
    drop(TcpListener::bind("127.0.0.1:8002").unwrap());
    sandbox.whole();
    assert_eq!(addresses(sandbox).len(), 1);
    // It went on the way back, as whatever has a name of ours does.
    assert!(!links().contains(&name));
    resident.attach("b", 8002).unwrap();
    drop(TcpStream::connect("127.0.0.1:8002").unwrap());
    assert_eq!(addresses(sandbox).len(), 2);
    sandbox.whole();
    Outcome::Passed
}
