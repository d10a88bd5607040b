//! Random requests against a world made of values, with a failure at every step of each: the
//! kernel refuses, or the machine stops. Whatever happens, the kernel holds what is promised,
//! and every promise is kept.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where and stop")]

use std::collections::BTreeSet;

use twinax_core::{
    engine::{Failure, World, check, repair, run},
    fake::{FakeWorld, Mode},
    lower::lower,
    model::Op,
    name::{ContainerName, NetworkName, Proto},
    state::{
        AttachSpec, Change, Container, Driver, GatewayMode, Led, NetworkSpec, PublishSpec, Request,
        Run, Sandbox, State, Status, Way,
    },
};

const REQUESTS: usize = 30;
const SEEDS: u64 = 20;

/// A small generator: the same seed, the same run.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    fn network(&mut self) -> NetworkName {
        ["default", "web", "db", "lan"][self.below(4) as usize].parse().unwrap()
    }

    fn container(&mut self) -> ContainerName {
        ["c1", "c2", "c3", "c4", "pid:7"][self.below(5) as usize].parse().unwrap()
    }

    fn mode(&mut self) -> GatewayMode {
        [GatewayMode::Nat, GatewayMode::Nat, GatewayMode::Routed, GatewayMode::Isolated]
            [self.below(4) as usize]
    }

    fn spec(&mut self) -> NetworkSpec {
        NetworkSpec {
            driver: if self.one_in(4) { Driver::Routed } else { Driver::Bridge },
            ipv6: self.one_in(2),
            internal: self.one_in(4),
            no_icc: self.one_in(4),
            mode4: self.mode(),
            mode6: self.mode(),
            ..NetworkSpec::default()
        }
    }

    fn ports(&mut self) -> Vec<PublishSpec> {
        let port = 8000 + self.below(4) as u16;
        vec![PublishSpec {
            proto: if self.one_in(3) { Proto::Udp } else { Proto::Tcp },
            host: self.one_in(3).then(|| "127.0.0.1".parse().unwrap()),
            host_ports: (!self.one_in(5)).then_some((port, port)),
            container_ports: (80, 80),
        }]
    }

    fn request(&mut self) -> Request {
        let (container, network) = (self.container(), self.network());
        match self.below(11) {
            0 | 1 => vec![Change::CreateNetwork { name: network, spec: self.spec() }],
            2 => vec![Change::RemoveNetwork { name: network }],
            3 | 4 => {
                let name = container.clone();
                let mut request =
                    vec![Change::PutContainer { name, container: fresh(&container, self) }];
                let attach = AttachSpec::new(network);
                request.push(Change::Attach { container: container.clone(), spec: attach });
                if self.one_in(2) {
                    request.push(Change::Publish { container, ports: self.ports() });
                }
                request
            }
            5 => vec![Change::Attach { container, spec: AttachSpec::new(network) }],
            6 => vec![Change::Detach { container, network }],
            7 => vec![Change::Publish { container, ports: self.ports() }],
            8 => vec![Change::Exited { name: container, code: Some(0) }],
            9 => vec![Change::End { name: container }],
            _ => vec![Change::RemoveContainer { name: container }],
        }
    }

    /// Something that happens behind Twinax's back.
    fn mishap(&mut self, world: &mut FakeWorld) {
        match self.below(12) {
            0 => {
                world.kernel.tables = false;
                world.kernel.elements.clear();
            }
            1 => {
                let links: Vec<_> = world.kernel.links.keys().cloned().collect();
                if !links.is_empty() {
                    let link = links[self.below(links.len() as u64) as usize].clone();
                    world.kernel.apply(&Op::DelLink { link }).unwrap();
                }
            }
            2 => world.kernel.links.values_mut().for_each(|link| link.mtu = 1280),
            3 => {
                let names: Vec<_> = world.kernel.netns.iter().cloned().collect();
                if !names.is_empty() {
                    let container = names[self.below(names.len() as u64) as usize].clone();
                    world.dead.insert(container.clone());
                    world.kernel.apply(&Op::DropNetns { container }).unwrap();
                }
            }
            4 => {
                world.kernel.processes.clear();
                world.kernel.forwards.clear();
            }
            _ => {}
        }
    }
}

fn fresh(name: &ContainerName, chance: &mut Chance) -> Container {
    let pid = 1000 + chance.below(1000) as u32;
    let start = chance.next();
    let run = (!name.as_str().contains(':')).then(|| Run {
        command: vec!["sleep".into()],
        remove: chance.one_in(3),
        status: Status::Running { init: (pid, start), supervisor: (pid + 1, start) },
        created: 0,
        lab: None,
    });
    Container {
        id: format!("{:012x}", chance.next() >> 16),
        sandbox: Sandbox { way: Way::Pid { pid, start }, cookie: Some(start) },
        hostname: None,
        endpoints: Vec::new(),
        published: Vec::new(),
        view: None,
        dns: Vec::new(),
        run,
        led: Led::default(),
    }
}

fn world() -> FakeWorld {
    let mut world = FakeWorld::default();
    world.facts.uplink_mtu = 1500;
    world.facts.ephemeral = (32768, 60999);
    world.facts.random = 0x1234_5678_9abc_def1;
    world
}

/// The kernel holds what is promised, and nothing else of ours.
fn holds(world: &FakeWorld, what: &str) {
    let desired = lower(&world.saved);
    assert!(world.kernel == desired, "{what}\nkernel {:#?}\ndesired {desired:#?}", world.kernel);
    assert_eq!(world.journal, None, "{what}");
    kept(&world.saved, what);
}

/// Every address is given out once, every published port leads somewhere.
fn kept(state: &State, what: &str) {
    let mut addrs = BTreeSet::new();
    let mut numbers = BTreeSet::new();
    for (name, container) in state.containers.all() {
        let mut ifnames = BTreeSet::new();
        for endpoint in &container.endpoints {
            assert!(numbers.insert(endpoint.number), "{what}: number {}", endpoint.number);
            assert!(ifnames.insert(&endpoint.ifname), "{what}: {name}/{}", endpoint.ifname);
            for addr in &endpoint.addrs {
                assert!(addrs.insert((endpoint.network.clone(), *addr)), "{what}: {addr} twice");
                assert!(
                    state.leases.get(&endpoint.network).unwrap().holds(*addr),
                    "{what}: {addr}"
                );
            }
        }
        for published in &container.published {
            let leads = lower(state)
                .elements
                .into_keys()
                .any(|id| id.to_string().contains(&format!("{}", published.container_port)))
                || lower(state).forwards.iter().any(|f| f.listen.port() == published.host_port);
            assert!(leads, "{what}: {published:?} leads nowhere");
        }
    }
}

/// What is promised once a repair has let go of what is gone.
fn repaired(world: &FakeWorld) -> State {
    let mut world = world.clone();
    repair(&mut world).unwrap();
    world.saved
}

/// One more `check` finds nothing to do.
fn settled(world: &FakeWorld, what: &str) {
    let mut world = world.clone();
    let plan = check(&mut world).unwrap_or_else(|e| panic!("{what}: {e:?}")).plan;
    assert!(plan.0.is_empty(), "{what}: {plan}");
}

#[test]
fn a_failure_at_any_step_leaves_what_was_or_what_was_asked() {
    let mut failures = 0;
    for seed in 1..=SEEDS {
        let mut chance = Chance(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut world = world();
        for n in 0..REQUESTS {
            let request = chance.request();
            let what = format!("seed {seed} request {n} {request:?}");
            let born = born(&mut world, &request);
            failures += fail_everywhere(&world, &request, &born, &what);
            match run(&mut world, &request) {
                Ok(_) => {}
                Err(Failure::Refused(_)) => die(&mut world, &born),
                Err(other) => panic!("{what}: {other:?}"),
            }
            holds(&world, &what);
            settled(&world, &what);
            chance.mishap(&mut world);
            repair(&mut world).unwrap_or_else(|e| panic!("{what}, then repair: {e:?}"));
            holds(&world, &format!("{what}, then repair"));
            let mut rebooted = world.clone();
            rebooted.reboot();
            check(&mut rebooted).unwrap_or_else(|e| panic!("{what}, then reboot: {e:?}"));
            holds(&rebooted, &format!("{what}, then reboot"));
        }
    }
    assert!(failures > 1000, "only {failures} failure points");
}

/// The namespaces that exist before the request that makes them known, as `run` has it: its
/// process waits in there to be told that all is well, and ends if it is not.
fn born(world: &mut FakeWorld, request: &Request) -> Vec<ContainerName> {
    let new = request.iter().filter_map(|change| match change {
        Change::PutContainer { name, container } if container.run.is_some() => Some(name.clone()),
        _ => None,
    });
    let born: Vec<_> = new.filter(|name| !world.kernel.netns.contains(name)).collect();
    for name in &born {
        world.kernel.netns.insert(name.clone());
        world.dead.remove(name);
    }
    born
}

fn die(world: &mut FakeWorld, names: &[ContainerName]) {
    for container in names.iter().cloned() {
        world.dead.insert(container.clone());
        // Going back may have let go of it already.
        let _ = world.kernel.apply(&Op::DropNetns { container });
    }
}

fn fail_everywhere(
    world: &FakeWorld,
    request: &Request,
    born: &[ContainerName],
    what: &str,
) -> usize {
    let mut rehearsal = world.clone();
    rehearsal.steps = 0;
    if run(&mut rehearsal, request).is_err() {
        return 0;
    }
    for at in 0..rehearsal.steps {
        let what = format!("{what} failing at {at}");
        let mut refused = world.clone();
        refused.fuel = Some((at, Mode::Refuse));
        match run(&mut refused, request) {
            Err(Failure::Restored(_)) => {
                let restored = refused.saved == world.saved || refused.saved == repaired(world);
                assert!(restored, "{what}: the store was not restored");
            }
            Err(Failure::Unfinished(_)) => repair(&mut refused).map(drop).unwrap(),
            other => panic!("{what}: {other:?}"),
        }
        if refused.saved != rehearsal.saved {
            die(&mut refused, born);
        }
        holds(&refused, &what);

        let mut crashed = world.clone();
        crashed.fuel = Some((at, Mode::Crash));
        run(&mut crashed, request).expect_err(&what);
        crashed.restart();
        die(&mut crashed, born);
        // Any command repairs, whatever it is about; an empty one looks at everything.
        let pending = crashed.pending().unwrap();
        assert!(at == 0 || pending.journal.is_some(), "{what}: nothing to repair it by");
        repair(&mut crashed).unwrap_or_else(|e| panic!("{what}, then repair: {e:?}"));
        holds(&crashed, &format!("{what}, then repair"));
        let either = [world, &rehearsal].map(repaired).contains(&crashed.saved);
        assert!(either || !born.is_empty(), "{what}: neither what was nor what was asked");
    }
    rehearsal.steps
}
