//! Puts together what was read: names instead of indices, and cables proved from both ends.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use twinax_core::{
    model::{Addr, FdbEntry, Link, LinkId, LinkKind, Neighbour, Netns, Port, Route},
    ruleset::Group,
    sight::{LinkFacts, Listener, SeenNeighbour, Sight, Space},
};

use super::super::spaces::nobody_seen;
use super::{
    Reads, Room, RoomRead, Survey,
    link::{self, Far, RawLink},
    reach::{self, MAIN},
    sockets::Holders,
};

/// How many namespaces that nobody gave us are read.
const HIDDEN_MAX: usize = 4096;

/// Fills in all but the listeners.
pub(super) fn see(survey: &Survey<'_>, reads: &mut Reads, sight: &mut Sight) {
    let mut places = Places {
        names: survey.rooms.iter().map(|room| room.netns.clone()).collect(),
        numbers: BTreeMap::new(),
        index: HashMap::new(),
    };
    places.find_hidden(survey, reads, sight);
    places.fill_index(&reads.rooms);
    let halves = places.halves(&reads.rooms);
    if !halves.is_empty() {
        // Something changed between one reading and the other.
        places.read_again(survey, reads, &halves);
        places.find_hidden(survey, reads, sight);
        places.fill_index(&reads.rooms);
    }
    places.put(&reads.rooms, sight);
}

/// Fills in the ends of one cable, each first in its room, or both in the same; returns whether each
/// names the other.
pub(super) fn see_one(rooms: &[Room<'_>], reads: &[RoomRead], sight: &mut Sight) -> bool {
    let mut places = Places {
        names: rooms.iter().map(|room| room.netns.clone()).collect(),
        numbers: BTreeMap::new(),
        index: HashMap::new(),
    };
    places.fill_index(reads);
    places.put(reads, sight);
    let near = reads.first().and_then(|read| read.links.first());
    near.is_some_and(|near| places.peer(0, near, reads).is_some())
}

/// Fills in the listeners.
pub(super) fn hear(rooms: &[Room<'_>], reads: &Reads, holders: &Holders, sight: &mut Sight) {
    for (room, read) in rooms.iter().zip(&reads.rooms) {
        sight.listeners.extend(read.listeners.iter().map(|raw| Listener {
            netns: room.netns.clone(),
            proto: raw.proto,
            at: raw.at,
            dual: raw.dual,
            processes: holders.get(&raw.inode).cloned().unwrap_or_default(),
        }));
    }
    sight.listeners.sort();
    sight.listeners.dedup();
}

/// Namespaces by their place: those that were given, then those that were come upon.
struct Places {
    names: Vec<Netns>,
    /// The places of those that the observatory numbered by itself.
    numbers: BTreeMap<i32, usize>,
    /// Where the links are, by place and index.
    index: HashMap<(usize, u32), usize>,
}

impl Places {
    /// Fills in all that was read.
    fn put(&self, rooms: &[RoomRead], sight: &mut Sight) {
        let (mut links, mut facts) = (Vec::new(), Vec::new());
        for (place, room) in rooms.iter().enumerate() {
            sight.unseen.extend(room.unseen.iter().cloned());
            for raw in &room.links {
                let id = self.id(place, raw);
                let (link, of_it) = self.describe(place, raw, rooms);
                facts.push((id.clone(), of_it));
                links.push((id, link));
            }
        }
        sight.topology.links.append(&mut links.into_iter().collect());
        sight.links.append(&mut facts.into_iter().collect());
        for place in 0..rooms.len() {
            self.put_reach(place, rooms, sight);
        }
    }

    /// Reads the namespaces that links lead to and that nobody gave us, and those that they lead
    /// to in turn.
    fn find_hidden(&mut self, survey: &Survey<'_>, reads: &mut Reads, sight: &mut Sight) {
        let mut from = 0;
        while from < reads.rooms.len() && self.numbers.len() < HIDDEN_MAX {
            let upto = reads.rooms.len();
            // In the order of the links that lead there: their numbers are of the moment.
            for number in self.unknown(&reads.rooms[from..upto], from) {
                let Some(asker) = reads.askers.first_mut() else { continue };
                let Ok(links) = link::list(asker, Some(number)) else {
                    continue;
                };
                let addrs = reach::addrs(asker, Some(number)).unwrap_or_default();
                let links = survey.located(links);
                self.numbers.insert(number, reads.rooms.len());
                let read = RoomRead { links, addrs, by_number: true, ..RoomRead::default() };
                reads.rooms.push(read);
                let netns = hidden(self.numbers.len());
                let space = Space { holders: vec![nobody_seen()], ..Space::default() };
                sight.spaces.insert(netns.clone(), space);
                self.names.push(netns);
            }
            from = upto;
        }
        for link in reads.rooms.iter_mut().flat_map(|room| &mut room.links) {
            if let Far::Number(number) = link.far
                && let Some(place) = self.numbers.get(&number)
            {
                link.far = Far::Room(*place);
            }
        }
    }

    fn unknown(&self, rooms: &[RoomRead], first: usize) -> Vec<i32> {
        let mut leading = Vec::new();
        for (n, room) in rooms.iter().enumerate().filter(|(_, room)| room.by_number) {
            let numbers = room.links.iter().filter_map(|link| match link.far {
                Far::Number(number) if number >= 0 => Some((link.index, number)),
                _ => None,
            });
            let name = &self.names[first + n];
            leading.extend(numbers.map(|(index, number)| (name, index, number)));
        }
        leading.sort_unstable();
        let mut seen: BTreeSet<i32> = self.numbers.keys().copied().collect();
        let new = leading.into_iter().map(|(_, _, number)| number);
        new.filter(|number| seen.insert(*number)).collect()
    }

    fn fill_index(&mut self, rooms: &[RoomRead]) {
        self.index.clear();
        self.index.reserve(rooms.iter().map(|room| room.links.len()).sum());
        for (place, room) in rooms.iter().enumerate() {
            let links = room.links.iter().enumerate();
            self.index.extend(links.map(|(at, link)| ((place, link.index), at)));
        }
    }

    /// Returns where a link leads, if that was read.
    fn far<'a>(
        &self,
        place: usize,
        link: &RawLink,
        rooms: &'a [RoomRead],
    ) -> Option<(usize, &'a RawLink)> {
        let there = match link.far {
            Far::Same => place,
            Far::Room(there) => there,
            Far::Number(_) => return None,
        };
        let at = self.index.get(&(there, link.leads_to?))?;
        Some((there, rooms.get(there)?.links.get(*at)?))
    }

    /// Returns the far end of a cable, if that end says so too.
    fn peer<'a>(
        &self,
        place: usize,
        link: &RawLink,
        rooms: &'a [RoomRead],
    ) -> Option<(usize, &'a RawLink)> {
        let (there, peer) = self.far(place, link, rooms).filter(|_| link.is_cable())?;
        let (back, own) = self.far(there, peer, rooms).filter(|_| peer.is_cable())?;
        // A link is not its own far end.
        let apart = (there, peer.index) != (place, link.index);
        (apart && (back, own.index) == (place, link.index)).then_some((there, peer))
    }

    /// The places of cables whose ends do not agree, and where they lead.
    fn halves(&self, rooms: &[RoomRead]) -> BTreeSet<usize> {
        let mut halves = BTreeSet::new();
        for (place, room) in rooms.iter().enumerate() {
            for link in room.links.iter().filter(|link| link.is_cable()) {
                let there = match link.far {
                    Far::Same => place,
                    Far::Room(there) => there,
                    // The kernel had no number for a namespace that was going.
                    Far::Number(number) if number < 0 && room.by_number => place,
                    Far::Number(_) => continue,
                };
                let read = rooms.get(there).is_some_and(|room| !room.links.is_empty());
                if read && self.peer(place, link, rooms).is_none() {
                    halves.extend([place, there]);
                }
            }
        }
        halves
    }

    fn read_again(&self, survey: &Survey<'_>, reads: &mut Reads, places: &BTreeSet<usize>) {
        let given: Vec<usize> =
            places.iter().copied().filter(|place| *place < survey.rooms.len()).collect();
        let again = survey.run(&given, std::mem::take(&mut reads.askers));
        reads.askers = again.askers;
        for (place, read) in again.rooms.into_iter().enumerate() {
            if places.contains(&place) {
                reads.rooms[place] = read;
            }
        }
        for (number, place) in self.numbers.iter().filter(|(_, place)| places.contains(place)) {
            let Some(asker) = reads.askers.first_mut() else { continue };
            let links = link::list(asker, Some(*number));
            reads.rooms[*place].links = survey.located(links.unwrap_or_default());
        }
    }

    fn id(&self, place: usize, link: &RawLink) -> LinkId {
        LinkId { netns: self.names[place].clone(), name: link.name.clone() }
    }

    /// The link of that index in the same namespace.
    fn beside<'a>(&self, place: usize, index: u32, rooms: &'a [RoomRead]) -> Option<&'a RawLink> {
        rooms[place].links.get(*self.index.get(&(place, index))?)
    }

    fn describe(&self, place: usize, raw: &RawLink, rooms: &[RoomRead]) -> (Link, LinkFacts) {
        let peer = self.peer(place, raw, rooms);
        let master = raw.master.and_then(|index| self.beside(place, index, rooms));
        let leads_to = match raw.is_cable() {
            true => peer,
            false => self.far(place, raw, rooms),
        };
        let leads_to = leads_to.map(|(there, link)| self.id(there, link));
        let mut details = raw.details.clone();
        if let (None, Some(index)) = (&leads_to, raw.leads_to) {
            details.push(match raw.far {
                Far::Number(0..) | Far::Room(_) => {
                    format!("leads to link {index} of a namespace that could not be seen")
                }
                Far::Number(_) => "leads to a namespace that is gone or not seen".to_owned(),
                Far::Same => format!("leads to link {index}, which is gone"),
            });
        }
        let on_host = self.names[place] == Netns::Host;
        let kind = match (raw.kind.as_str(), &leads_to) {
            ("bridge", _) => LinkKind::Bridge,
            (_, Some(peer)) if raw.is_cable() && on_host => {
                let bridge = master.filter(|master| master.kind == "bridge");
                let port =
                    bridge.map(|bridge| Port { bridge: bridge.name.clone(), hairpin: raw.hairpin });
                LinkKind::VethHost { peer: peer.clone(), port }
            }
            (_, Some(peer)) if raw.is_cable() => LinkKind::VethContainer { peer: peer.clone() },
            ("", _) if raw.loopback => LinkKind::Other("loopback".to_owned()),
            ("", _) => LinkKind::Other("device".to_owned()),
            (kind, _) => LinkKind::Other(kind.to_owned()),
        };
        let link = Link {
            kind,
            up: raw.up,
            mac: raw.mac,
            mtu: raw.mtu,
            group: on_host.then_some(Group(raw.group)),
            alias: raw.alias.clone(),
        };
        let facts = LinkFacts {
            index: raw.index,
            kind: raw.kind.clone(),
            operstate: link::operstate(raw.operstate).to_owned(),
            carrier: raw.carrier,
            leads_to,
            proven: peer.is_some(),
            master: master.map(|master| self.id(place, master)),
            counters: raw.counters,
            details,
            alt_names: raw.alt_names.clone(),
            ..LinkFacts::default()
        };
        (link, facts)
    }

    /// Fills in addresses, routes and neighbours of the links of a place.
    fn put_reach(&self, place: usize, rooms: &[RoomRead], sight: &mut Sight) {
        let room = &rooms[place];
        let id = |index: u32| Some(self.id(place, self.beside(place, index, rooms)?));
        for (index, net) in &room.addrs {
            let Some(link) = id(*index) else { continue };
            if let Some(facts) = sight.links.get_mut(&link) {
                facts.addrs.push(*net);
            }
            sight.topology.addrs.insert(Addr { link, net: *net });
        }
        for raw in &room.routes {
            let Some(link) = id(raw.index) else { continue };
            let (dst, via, src) = (raw.dst, raw.via, raw.src);
            let route = Route { link, dst, via, src };
            if raw.table == MAIN {
                sight.topology.routes.insert(route);
            } else if let Some(facts) = sight.links.get_mut(&route.link) {
                facts.other_tables.push((raw.table, route));
            }
        }
        for raw in &room.neighbours {
            let Some(link) = id(raw.index) else { continue };
            let (addr, mac, state) = (raw.addr, raw.mac, raw.state().to_owned());
            if let Some(facts) = sight.links.get_mut(&link) {
                facts.neighbours.push(SeenNeighbour { addr, mac, state });
            }
            match (addr, mac) {
                (Some(addr), Some(mac)) if raw.is_kept() => {
                    sight.topology.neighbours.insert(Neighbour { link, addr, mac });
                }
                (None, Some(mac)) if raw.is_kept() => {
                    sight.topology.fdb.insert(FdbEntry { port: link, mac });
                }
                _ => {}
            }
        }
    }
}

/// Names a namespace that has no name that we know. No container has this one: a path would have
/// to lead through a file.
fn hidden(nth: usize) -> Netns {
    let name = format!("netns:/dev/null/hidden-{nth}");
    Netns::Container(name.parse().expect("a path makes a valid name"))
}
