//! `observed` and `desired` in, an ordered list of operations out.

use std::{collections::BTreeSet, fmt};

use crate::{
    model::{Addr, Impossible, Link, LinkId, LinkKind, Netns, Op, Process, Topology, number_of},
    ruleset::SetName,
};

/// What turns one topology into another, in the order it is done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan(pub Vec<Op>);

/// A plan that would not arrive: a fault of Twinax, found before anything was touched.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreached {
    #[error("the plan cannot take a step: {op}")]
    Step {
        op: Box<Op>,
        #[source]
        cause: Impossible,
    },
    #[error("the plan does not arrive at what is wanted")]
    Elsewhere { reached: Box<Topology>, desired: Box<Topology> },
}

/// Returns what turns `observed` into `desired`: undo what is wrong, then build what is missing.
///
/// Every operation is played on a model of the kernel as it is emitted, so later decisions see
/// its consequences, and the finished plan is proved to arrive. At every moment between, what
/// is half done is closed rather than open: filters stand before NAT, NAT before addresses, and
/// go in the opposite order.
///
/// # Errors
/// [`Unreached`] where the proof fails; nothing has been touched then.
pub fn diff(observed: Topology, desired: &Topology) -> Result<Plan, Unreached> {
    let mut planner = Planner { model: observed, desired, plan: Plan::default() };
    planner.close()?;
    planner.let_go()?;
    planner.delete_links()?;
    planner.unconfigure()?;
    planner.forget()?;
    planner.filter()?;
    planner.add_links()?;
    planner.configure()?;
    planner.tell()?;
    match planner.model == *desired {
        true => Ok(planner.plan),
        false => Err(Unreached::Elsewhere {
            reached: Box::new(planner.model),
            desired: Box::new(desired.clone()),
        }),
    }
}

struct Planner<'a> {
    model: Topology,
    desired: &'a Topology,
    plan: Plan,
}

type Step = Result<(), Unreached>;

impl Planner<'_> {
    fn emit(&mut self, op: Op) -> Step {
        match self.model.apply(&op) {
            Ok(()) => {
                self.plan.0.push(op);
                Ok(())
            }
            Err(cause) => Err(Unreached::Step { op: Box::new(op), cause }),
        }
    }

    fn emit_all(&mut self, ops: impl IntoIterator<Item = Op>) -> Step {
        ops.into_iter().try_for_each(|op| self.emit(op))
    }

    /// Ends what leads to containers: forwards, ports, permissions to send, names.
    fn close(&mut self) -> Step {
        let unwanted = self.model.forwards.difference(&self.desired.forwards).cloned();
        let forwards: Vec<_> = unwanted.map(|forward| Op::DelForward { forward }).collect();
        let unwanted = self.model.processes.difference(&self.desired.processes).cloned();
        let processes: Vec<_> = unwanted.map(|process| Op::StopProcess { process }).collect();
        self.emit_all(forwards)?;
        self.emit_all(processes)?;
        self.delete_elements(|set| !set.is_policy())?;
        let unwanted = self.model.hosts.difference(&self.desired.hosts).cloned();
        let unwanted: Vec<_> = unwanted.collect();
        for line in unwanted {
            if self.desired.views.contains(&line.view) {
                self.emit(Op::DelHostsLine { line })?;
            }
        }
        let unwanted = self.model.views.difference(&self.desired.views).cloned();
        let views: Vec<_> = unwanted.map(|view| Op::DelHostsView { view }).collect();
        self.emit_all(views)?;
        let files = self.model.files.keys().filter(|file| !self.desired.files.contains_key(file));
        let files: Vec<_> = files.map(|file| Op::DelFile { file: file.clone() }).collect();
        self.emit_all(files)
    }

    fn delete_elements(&mut self, of: impl Fn(SetName) -> bool) -> Step {
        let unwanted: Vec<Op> = self
            .model
            .elements
            .iter()
            .filter(|(id, have)| of(id.set) && self.desired.elements.get(id) != Some(have))
            .map(|(id, have)| Op::DelElement { id: id.clone(), element: have.clone() })
            .collect();
        self.emit_all(unwanted)
    }

    /// Lets go of namespaces, and takes from the host what leads to them. Their cables go with
    /// them; whoever holds one longer sends into filters that know it no more.
    fn let_go(&mut self) -> Step {
        let neighbours = self.model.neighbours.difference(&self.desired.neighbours).cloned();
        let on_host: Vec<_> = neighbours.filter(|n| n.link.netns == Netns::Host).collect();
        self.emit_all(on_host.into_iter().map(|neighbour| Op::DelNeighbour { neighbour }))?;
        let going: BTreeSet<_> =
            self.model.netns.difference(&self.desired.netns).cloned().collect();
        let is_end = |id: &LinkId| {
            let container = self.model.links.get(id).and_then(Link::leads_into);
            container.is_some_and(|container| going.contains(container))
        };
        let fdb: Vec<_> =
            self.model.fdb.iter().filter(|entry| is_end(&entry.port)).cloned().collect();
        let routes = self.model.routes.iter().filter(|route| is_end(&route.link));
        let routes: Vec<_> = routes.cloned().collect();
        self.emit_all(fdb.into_iter().map(|entry| Op::DelFdb { entry }))?;
        self.emit_all(routes.into_iter().map(|route| Op::DelRoute { route }))?;
        self.emit_all(going.into_iter().map(|container| Op::DropNetns { container }))
    }

    fn must_go(&self, id: &LinkId, link: &Link) -> bool {
        !self.desired.links.get(id).is_some_and(|want| can_become(link, want))
    }

    fn delete_links(&mut self) -> Step {
        let links = self.model.links.iter().filter(|(id, link)| self.must_go(id, link));
        let links: Vec<_> = links.map(|(id, _)| id.clone()).collect();
        for id in links {
            // One end may have gone with the other.
            if self.model.links.contains_key(&id) {
                self.emit(Op::DelLink { link: id })?;
            }
        }
        Ok(())
    }

    /// Takes from the links that stay what they should not have.
    fn unconfigure(&mut self) -> Step {
        let routes: Vec<_> = self.model.routes.difference(&self.desired.routes).cloned().collect();
        self.emit_all(routes.into_iter().map(|route| Op::DelRoute { route }))?;
        let neighbours: Vec<_> =
            self.model.neighbours.difference(&self.desired.neighbours).cloned().collect();
        self.emit_all(neighbours.into_iter().map(|neighbour| Op::DelNeighbour { neighbour }))?;
        let fdb: Vec<_> = self.model.fdb.difference(&self.desired.fdb).cloned().collect();
        self.emit_all(fdb.into_iter().map(|entry| Op::DelFdb { entry }))?;
        let addrs: Vec<_> = self.model.addrs.difference(&self.desired.addrs).cloned().collect();
        self.emit_all(addrs.into_iter().map(|addr| Op::DelAddr { addr }))
    }

    /// Removes policy only now, when what it kept apart is gone.
    fn forget(&mut self) -> Step {
        self.delete_elements(SetName::is_policy)?;
        if self.model.tables && !self.desired.tables {
            self.emit(Op::DelTables)?;
        }
        let restored: Vec<_> = self
            .model
            .sysctls
            .iter()
            .filter(|(sysctl, _)| !self.desired.sysctls.contains_key(sysctl))
            .map(|(sysctl, turned)| Op::RestoreSysctl {
                sysctl: sysctl.clone(),
                value: turned.former.clone(),
            })
            .collect();
        self.emit_all(restored)
    }

    /// Puts the firewall up, policy first, and only then switches forwarding on.
    fn filter(&mut self) -> Step {
        if self.desired.tables && !self.model.tables {
            self.emit(Op::PutTables)?;
        }
        let desired = self.desired;
        for policy in [true, false] {
            for (id, element) in
                desired.elements.iter().filter(|(id, _)| id.set.is_policy() == policy)
            {
                if !self.model.elements.contains_key(id) {
                    self.emit(Op::AddElement { id: id.clone(), element: element.clone() })?;
                }
            }
        }
        for (sysctl, turned) in &desired.sysctls {
            if self.model.sysctls.get(sysctl) != Some(turned) {
                self.emit(Op::SetSysctl { sysctl: sysctl.clone(), turned: turned.clone() })?;
            }
        }
        Ok(())
    }

    /// Adds bridges, then the cables that plug into them.
    fn add_links(&mut self) -> Step {
        let desired = self.desired;
        for (id, link) in &desired.links {
            if link.kind == LinkKind::Bridge && !self.model.links.contains_key(id) {
                self.emit(Op::AddBridge { id: id.clone(), link: link.clone() })?;
            }
        }
        for (id, link) in &desired.links {
            if let LinkKind::VethHost { peer, .. } = &link.kind
                && !self.model.links.contains_key(id)
            {
                let mut inner = desired.links[peer].clone();
                inner.up = false; // A peer cannot be born up: the cable is not whole yet.
                let index = number_of(&id.name).unwrap_or_default();
                let (id, link, peer) = (id.clone(), link.clone(), peer.clone());
                self.emit(Op::AddVeth { id, index, link, peer, inner })?;
            }
        }
        Ok(())
    }

    /// Sets what links have and hold: the host's first, then container by container, so that
    /// each namespace is one send.
    fn configure(&mut self) -> Step {
        let namespaces: BTreeSet<&Netns> = self.desired.links.keys().map(|id| &id.netns).collect();
        for netns in namespaces {
            self.set_links(netns)?;
            self.add_addrs(netns)?;
            self.add_routes(netns)?;
            let desired = self.desired;
            for neighbour in desired.neighbours.iter().filter(|n| n.link.netns == *netns) {
                if !self.model.neighbours.contains(neighbour) {
                    self.emit(Op::AddNeighbour { neighbour: neighbour.clone() })?;
                }
            }
            for entry in desired.fdb.iter().filter(|entry| entry.port.netns == *netns) {
                if !self.model.fdb.contains(entry) {
                    self.emit(Op::AddFdb { entry: entry.clone() })?;
                }
            }
        }
        Ok(())
    }

    fn set_links(&mut self, netns: &Netns) -> Step {
        let desired = self.desired;
        for (id, want) in desired.links.iter().filter(|(id, _)| id.netns == *netns) {
            let have = self.model.links.get(id).cloned();
            let Some(have) = have else {
                continue; // The far end of a cable that could not be told: the proof will say.
            };
            let link = id.clone();
            if let LinkKind::VethHost { port: Some(port), .. } = &want.kind
                && want.kind != have.kind
            {
                self.emit(Op::SetPort { link: link.clone(), port: port.clone() })?;
            }
            if want.mtu != have.mtu {
                self.emit(Op::SetMtu { link: link.clone(), mtu: want.mtu })?;
            }
            if want.mac != have.mac {
                self.emit(Op::SetMac { link: link.clone(), mac: want.mac })?;
            }
            if let Some(group) = want.group.filter(|_| want.group != have.group) {
                self.emit(Op::SetGroup { link: link.clone(), group })?;
            }
            if want.alias != have.alias {
                self.emit(Op::SetAlias { link: link.clone(), alias: want.alias.clone() })?;
            }
            if want.up && !have.up {
                self.emit(Op::SetUp { link })?;
            }
        }
        Ok(())
    }

    fn add_addrs(&mut self, netns: &Netns) -> Step {
        let missing: Vec<Addr> = self
            .desired
            .addrs
            .difference(&self.model.addrs)
            .filter(|addr| addr.link.netns == *netns)
            .cloned()
            .collect();
        self.emit_all(missing.into_iter().map(|addr| Op::AddAddr { addr }))
    }

    /// Routes to the link first: a gateway must be reachable when it is named.
    fn add_routes(&mut self, netns: &Netns) -> Step {
        let missing: Vec<_> = self
            .desired
            .routes
            .difference(&self.model.routes)
            .filter(|route| route.link.netns == *netns)
            .cloned()
            .collect();
        let (direct, via): (Vec<_>, Vec<_>) =
            missing.into_iter().partition(|route| route.via.is_none());
        self.emit_all(direct.into_iter().chain(via).map(|route| Op::AddRoute { route }))
    }

    /// Names, files and the loopback forwarder: for whom everything else must be there.
    fn tell(&mut self) -> Step {
        let desired = self.desired;
        for (file, text) in &desired.files {
            if self.model.files.get(file) != Some(text) {
                self.emit(Op::PutFile { file: file.clone(), text: text.clone() })?;
            }
        }
        let missing: Vec<_> = desired.views.difference(&self.model.views).cloned().collect();
        self.emit_all(missing.into_iter().map(|view| Op::AddHostsView { view }))?;
        let missing: Vec<_> = desired.hosts.difference(&self.model.hosts).cloned().collect();
        self.emit_all(missing.into_iter().map(|line| Op::AddHostsLine { line }))?;
        for (container, source) in &desired.mounts {
            if self.model.mounts.get(container) != Some(source) {
                let (container, source) = (container.clone(), source.clone());
                self.emit(Op::MountHosts { container, source })?;
            }
        }
        let missing: Vec<Process> =
            desired.processes.difference(&self.model.processes).cloned().collect();
        self.emit_all(missing.into_iter().map(|process| Op::StartProcess { process }))?;
        let missing: Vec<_> = desired.forwards.difference(&self.model.forwards).cloned().collect();
        self.emit_all(missing.into_iter().map(|forward| Op::AddForward { forward }))
    }
}

/// Whether a link can be changed in place; if not, it is deleted and made anew.
fn can_become(have: &Link, want: &Link) -> bool {
    match (&have.kind, &want.kind) {
        (LinkKind::Bridge, LinkKind::Bridge) => true,
        (LinkKind::VethHost { peer: have, .. }, LinkKind::VethHost { peer: want, .. })
        | (LinkKind::VethContainer { peer: have }, LinkKind::VethContainer { peer: want }) => {
            have == want
        }
        _ => false,
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|op| writeln!(f, "{op}"))
    }
}
