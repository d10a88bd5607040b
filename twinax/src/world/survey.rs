//! Answers what `decide` asks of the world.

use std::time::{SystemTime, UNIX_EPOCH};

use twinax_core::{
    decide::{Facts, Probe, ProbeAnswer, Questions},
    state::{Container, PortKey, State},
};

use super::{Linux, LinuxError};
use crate::{
    forwarder,
    linux::{
        link, listeners,
        netns::{NetnsError, NetnsHandle},
        process::init_of,
        survey, sysctl,
    },
};

pub(super) fn answer(
    world: &mut Linux,
    questions: &Questions,
    state: &State,
) -> Result<Facts, LinuxError> {
    let mut facts = Facts { now: now(), random: random(), ..Facts::default() };
    if questions.uplink_mtu {
        facts.uplink_mtu = survey::uplink_mtu(world.links()?.host())?;
    }
    if questions.subnets {
        let subnets = survey::foreign_subnets(world.links()?.host())?;
        facts.subnets = subnets.into_iter().collect();
    }
    if questions.ports.iter().any(Probe::automatic) {
        facts.ephemeral = listeners::ephemeral_range()?;
    }
    for probe in &questions.ports {
        let answer = ask_ports(world, probe, facts.ephemeral)?;
        facts.ports.insert(probe.clone(), answer);
    }
    for switch in &questions.sysctls {
        facts.sysctls.insert(switch.clone(), sysctl::read(switch)?);
    }
    for name in &questions.links {
        if !link::exists(world.links()?.host(), name)? {
            facts.gone_links.insert(name.clone());
        }
    }
    for name in &questions.sandboxes {
        if state.containers.loaded().get(name).is_some_and(is_gone) {
            facts.gone_sandboxes.insert(name.clone());
        }
    }
    for (name, sandbox) in &questions.rooms {
        match world.open(sandbox) {
            Ok((netns, mut socket)) => {
                facts.rooms.insert(name.clone(), survey::room(&mut socket)?);
                // What follows will work in there.
                world.links()?.settle_in(name.clone(), netns, socket);
            }
            Err(NetnsError::Gone { .. }) => {} // Whoever goes in will say so.
            Err(other) => return Err(other.into()),
        }
    }
    Ok(facts)
}

/// Whether a container's namespace has gone, or the process that Twinax runs in another's.
fn is_gone(container: &Container) -> bool {
    match &container.run {
        Some(_) => init_of(container).is_some_and(|init| !init.alive()),
        None => NetnsHandle::of(&container.sandbox).is_err(),
    }
}

/// Asks for a range as it is; any port will do where the probe says so, but for those promised
/// to somebody.
fn ask_ports(
    world: &Linux,
    probe: &Probe,
    ephemeral: (u16, u16),
) -> Result<ProbeAnswer, LinuxError> {
    if !probe.automatic() {
        let mut answer = listeners::probe(probe)?;
        if answer.busy.is_empty() {
            return Ok(answer);
        }
        // A port that was handed over a moment ago is nobody's until the forwarder has taken it.
        if forwarder::settle(world.store.run_dir()).is_ok() {
            answer = listeners::probe(probe)?;
        }
        // What our own forwarder serves is a promise, and promises are judged by `decide`.
        let ours = forwarder::pid(world.store.run_dir()).map(|pid| format!("(pid {pid})"));
        let is_ours = |by: &String| ours.as_ref().is_some_and(|ours| by.ends_with(ours));
        let promised: Vec<u16> =
            answer.busy.iter().filter(|(_, by)| is_ours(by)).map(|(port, _)| *port).collect();
        answer.busy.retain(|port, _| !promised.contains(port));
        answer.free.extend(promised);
        return Ok(answer);
    }
    let mut answer = ProbeAnswer::default();
    for port in probe.candidates(ephemeral) {
        if answer.free.len() >= usize::from(probe.want) {
            break;
        }
        if world.store.is_claimed(PortKey { proto: probe.proto, port }) {
            continue;
        }
        let one = Probe { first: port, last: port, want: 1, ..probe.clone() };
        let found = listeners::probe(&one)?;
        answer.free.extend(found.free);
        if found.absent {
            answer.absent = true;
            break;
        }
    }
    Ok(answer)
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn random() -> u64 {
    let mut bytes = [0; 8];
    // The kernel's pool never fails for so few bytes once it is seeded.
    let _ = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    u64::from_ne_bytes(bytes)
}
