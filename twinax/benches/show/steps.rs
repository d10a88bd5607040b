//! Takes the figures: each step of discovery in this process, the commands, and the script.

use std::{
    collections::BTreeSet,
    fs, io,
    os::fd::{AsFd, BorrowedFd},
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use rustix::{mount::mount_bind, time::ClockId};
use twinax::{
    front::{json, tree},
    linux::{
        spaces::{self, Found},
        wires::{self, Wanted},
    },
    look::{Depth, look},
    runtimes,
};
use twinax_core::{
    draw::{Scene, svg::svg},
    map,
    model::{LinkId, Netns},
    sight::{Holder, Sight},
};

use crate::{
    host::{Host, Tenant},
    sandbox::{self, TWINAX},
    table::{
        IP_MAP, IP_PEER, MAP, MAP_PLAIN, NSENTER_MAP, NSENTER_PEER, PEER, Took, tell_memory,
        tell_missing, tell_note, tell_samples,
    },
};

const DOCTOR: &str = "twinax doctor";
const SCRIPT: &str = include_str!("show.sh");

/// Fails unless both ends of every cable are proven, each with the container that it was made for.
pub fn verify(host: &Host) -> io::Result<()> {
    let all = Depth { listeners: true, every_holder: true, ..Depth::default() };
    let sight = look(all);
    // Of these alone: others' may come and go.
    let ours: BTreeSet<u64> = host.tenants.iter().map(|tenant| tenant.inode).collect();
    let named = |sight: &Sight| -> Vec<_> {
        let named = sight.spaces.iter().map(|(netns, space)| (netns.clone(), space.inode));
        named.filter(|(_, inode)| ours.contains(inode)).collect()
    };
    if named(&sight) != named(&look(Depth::default())) {
        return Err(io::Error::other("without all holders other namespaces are found"));
    }
    let wrong: Vec<String> = host.tenants.iter().filter_map(|t| wrong_with(&sight, t)).collect();
    if let Some(first) = wrong.first() {
        return Err(io::Error::other(format!("{} containers wrong: {first}", wrong.len())));
    }
    let near = host.tenants.iter().filter_map(near);
    let far = near.filter_map(|near| sight.links.get(&near)?.leads_to.as_ref());
    let numbers: BTreeSet<u32> = far.map(|far| sight.links[far].index).collect();
    let unseen = |holder: &Holder| matches!(holder, Holder::Unseen);
    let lost = sight.spaces.values().filter(|space| space.holders.iter().any(unseen)).count();
    tell_note(&format!(
        "{} cables: both ends of each are proven and in the right namespace; the containers' ends \
         have {} different number(s)",
        host.tenants.len(),
        numbers.len(),
    ));
    tell_note(&format!(
        "namespaces: {}, of others beside: {lost}; not seen: {}",
        sight.spaces.len(),
        if sight.unseen.is_empty() { "nothing".to_owned() } else { sight.unseen.join("; ") },
    ));
    Ok(())
}

fn near(tenant: &Tenant) -> Option<LinkId> {
    Some(LinkId { netns: Netns::Host, name: tenant.host_end.parse().ok()? })
}

/// What is not as it was made.
fn wrong_with(sight: &Sight, tenant: &Tenant) -> Option<String> {
    let told = |what: &str| Some(format!("{}: {what}", tenant.name));
    let near = near(tenant)?;
    let Some(near_facts) = sight.links.get(&near) else { return told("no host end") };
    let Some(far) = near_facts.leads_to.as_ref() else { return told("leads nowhere") };
    let Some(space) = sight.spaces.get(&far.netns) else { return told("in no namespace") };
    if space.inode != tenant.inode {
        return told("in another's namespace");
    }
    if !space.workloads.iter().any(|workload| workload.name == tenant.name) {
        return told("has no name");
    }
    let Some(facts) = sight.links.get(far) else { return told("no far end") };
    if facts.leads_to.as_ref() != Some(&near) || !facts.proven || !near_facts.proven {
        return told("not proven");
    }
    if !facts.addrs.iter().any(|net| net.addr() == std::net::IpAddr::from(tenant.addr)) {
        return told("without its address");
    }
    let mut routes = sight.topology.routes.iter().filter(|route| route.link == *far);
    if !routes.any(|route| route.via.is_some()) {
        return told("without its route");
    }
    let mut waiting = sight.listeners.iter().filter(|listener| listener.netns == far.netns);
    let pid = tenant.pid;
    if !waiting.any(|one| one.at.port() == 8080 && one.processes.iter().any(|(p, _)| *p == pid)) {
        return told("without its listener");
    }
    None
}

/// Samples of rows that are taken in turns, so that what disturbs meets all of them.
#[derive(Default)]
struct Rows(Vec<(String, Vec<Took>)>);

impl Rows {
    fn add(&mut self, row: &str, took: Took) {
        match self.0.iter_mut().find(|(name, _)| name == row) {
            Some((_, all)) => all.push(took),
            None => self.0.push((row.to_owned(), vec![took])),
        }
    }

    /// Times what is done in this process.
    fn time<T>(&mut self, row: &str, action: impl FnOnce() -> T) -> T {
        let (started, busy) = (Instant::now(), own_cpu());
        let outcome = action();
        let took = Took { wall: started.elapsed(), busy: own_cpu().saturating_sub(busy) };
        self.add(row, took);
        outcome
    }

    fn tell(&self) {
        self.0.iter().for_each(|(row, took)| tell_samples(row, took));
    }
}

/// Processor time of all threads so far.
fn own_cpu() -> Duration {
    let now = rustix::time::clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

/// Processor time of all children that have ended, their own and the kernel's for them.
fn children_cpu() -> Duration {
    let usage = sandbox::children();
    let time = |at: libc::timeval| Duration::new(at.tv_sec as u64, at.tv_usec as u32 * 1000);
    time(usage.ru_utime) + time(usage.ru_stime)
}

/// Each step alone, one after the other, and then as `map` does it.
pub fn in_process(samples: usize) -> io::Result<()> {
    let mut rows = Rows::default();
    for _ in 0..samples {
        let (processes, _) = rows.time("step: processes", spaces::processes);
        let found = rows.time("step: namespaces, all of", || spaces::find(&processes));
        for (step, wall) in &found.costs {
            rows.add(&format!("- {step}"), Took { wall: *wall, busy: *wall });
        }
        rows.time("step: runtimes' files", || runtimes::workloads(&processes, Path::new("/")));
        let opened = opened(&found);
        let deep = Wanted { listeners: true, ..Wanted::default() };
        let mut sight = Sight::default();
        rows.time("step: links, addresses, routes", || {
            wires::read(&opened, &Wanted::default(), &mut sight);
        });
        let mut sight = Sight::default();
        rows.time("step: the same with listeners", || wires::read(&opened, &deep, &mut sight));
        drop(found);
        let sight = rows.time(MAP_PLAIN, || {
            let sight = look(Depth::default());
            text(&sight);
            sight
        });
        drop(sight);
        let listening = Depth { listeners: true, every_holder: true, ..Depth::default() };
        let sight = rows.time("map in one process, with listeners", || {
            let sight = look(listening);
            text(&sight);
            sight
        });
        rows.time("drawing: text", || text(&sight));
        rows.time("drawing: JSON", || json::text(json::sight(&sight)).map(|text| text.len()).ok());
        rows.time("drawing: SVG", || svg(&Scene::of(&sight, &map::Wanted::default())).len());
    }
    rows.tell();
    Ok(())
}

fn opened(found: &Found) -> Vec<(Netns, BorrowedFd<'_>)> {
    let seen = found.spaces.values();
    seen.filter_map(|seen| Some((seen.netns.clone(), seen.fd.as_ref()?.as_fd()))).collect()
}

fn text(sight: &Sight) -> usize {
    let (root, counts) = map::tree(sight, &map::Wanted::default());
    let style = twinax::front::print::Style::default();
    (tree::text(&root, style) + &tree::counts(&counts) + &tree::unseen(&sight.unseen)).len()
}

/// The commands, from start to end.
pub fn commands(host: &Host, samples: usize) -> io::Result<()> {
    let middle = &host.tenants[host.tenants.len() / 2];
    let [a, b, c, d] = middle.addr;
    let addr = format!("{a}.{b}.{c}.{d}");
    let at = format!("2@{}", middle.name);
    let all: [(&str, &[&str]); 9] = [
        ("twinax --version", &["--version"]),
        (MAP, &["map"]),
        ("twinax map --json", &["map", "--json"]),
        (PEER, &["peer", &middle.host_end]),
        ("twinax peer ADDRESS", &["peer", &addr]),
        ("twinax peer CONTAINER", &["peer", &middle.name]),
        ("twinax peer INDEX@CONTAINER", &["peer", &at]),
        ("twinax inspect CONTAINER", &["inspect", &middle.name]),
        (DOCTOR, &["doctor"]),
    ];
    let mut rows = Rows::default();
    for _ in 0..samples {
        for (row, args) in all {
            // What doctor found is told by its code.
            let codes: &[i32] = if row == DOCTOR { &[0, 4, 5] } else { &[0] };
            rows.add(row, run(Command::new(TWINAX).args(args), codes)?);
        }
    }
    rows.tell();
    let [along, whole] = [&middle.host_end, &middle.name].map(|handle| said(handle));
    let (along, whole) = (along?, whole?);
    if along != whole || !along.contains(&middle.name) {
        return Err(io::Error::other(format!("peer by interface says {along} and else {whole}")));
    }
    tell_memory(sandbox::weigh(TWINAX, &["map"])?);
    Ok(())
}

/// What `peer` says but for counters, which may count meanwhile, and for the mark of the end that was
/// asked for.
fn said(handle: &str) -> io::Result<String> {
    let said = Command::new(TWINAX).args(["peer", handle]).output()?;
    let said = String::from_utf8_lossy(&said.stdout).replace('▸', " ");
    Ok(said.lines().filter(|line| !line.starts_with("traffic")).collect::<Vec<_>>().join("\n"))
}

/// Runs a command to its end, which must be by one of these codes.
fn run(command: &mut Command, codes: &[i32]) -> io::Result<Took> {
    let (started, busy) = (Instant::now(), children_cpu());
    let status = command.stdout(Stdio::null()).status()?;
    let took = Took { wall: started.elapsed(), busy: children_cpu().saturating_sub(busy) };
    match status.code().is_some_and(|code| codes.contains(&code)) {
        true => Ok(took),
        false => Err(io::Error::other(format!("{command:?}: {status}"))),
    }
}

/// The script, by what there is to enter a namespace with.
pub fn scripts(host: &Host, samples: usize) -> io::Result<()> {
    let middle = &host.tenants[host.tenants.len() / 2];
    let there = |program: &str, option: &str| {
        Command::new(program).arg(option).stdout(Stdio::null()).status().is_ok()
    };
    let (has_ip, has_nsenter) = (there("ip", "-V"), there("nsenter", "-V"));
    let pids: Vec<String> = host.tenants.iter().map(|t| t.pid.to_string()).collect();
    let names: Vec<String> = host.tenants.iter().map(|t| t.name.clone()).collect();
    if has_ip && samples > 0 {
        // Only now: hundreds of mounts would be in the way of what was measured before.
        for tenant in &host.tenants {
            let name = format!("/run/netns/{}", tenant.name);
            fs::write(&name, "")?;
            mount_bind(format!("/proc/{}/ns/net", tenant.pid), &name)?;
        }
    }
    let ways = [
        (NSENTER_MAP, "map", "nsenter", has_ip && has_nsenter, &pids),
        (NSENTER_PEER, "peer", "nsenter", has_ip && has_nsenter, &pids),
        (IP_MAP, "map", "ip", has_ip, &names),
        (IP_PEER, "peer", "ip", has_ip, &names),
    ];
    for (row, what, by, is_there, list) in ways {
        match (is_there, samples) {
            (false, _) => tell_missing(row, &format!("there is no ip or no {by}")),
            (true, 0) => tell_missing(row, "not asked for"),
            (true, _) => {
                let took = (0..samples).map(|_| script([what, by, &middle.host_end], list, middle));
                tell_samples(row, &took.collect::<io::Result<Vec<_>>>()?);
            }
        }
    }
    let docker = "docker exec needs a dockerd that has made the containers, with ip in each";
    tell_missing("script: map by docker exec", docker);
    Ok(())
}

fn script(args: [&str; 3], list: &[String], middle: &Tenant) -> io::Result<Took> {
    let path = "/run/names";
    fs::write(path, list.join("\n") + "\n")?;
    let (started, busy) = (Instant::now(), children_cpu());
    let mut command = Command::new("/bin/sh");
    let output =
        command.args(["-c", SCRIPT, "sh"]).args(args).stdin(fs::File::open(path)?).output()?;
    let took = Took { wall: started.elapsed(), busy: children_cpu().saturating_sub(busy) };
    let said = String::from_utf8_lossy(&output.stdout);
    let whose = [middle.pid.to_string(), middle.name.clone()];
    match output.status.success() && whose.iter().any(|who| said.contains(who.as_str())) {
        true => Ok(took),
        false => {
            let why = String::from_utf8_lossy(&output.stderr);
            Err(io::Error::other(format!("the script {args:?}: {why}{:.300}", said)))
        }
    }
}
