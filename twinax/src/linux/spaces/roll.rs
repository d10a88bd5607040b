//! Whether there are processes in other places than before: other network namespaces, other
//! containers. Reads each process once, when it is new.

use std::collections::{BTreeMap, HashMap};

use rustix::fd::{AsFd, OwnedFd};
use twinax_core::sight::Inode;

use super::processes::{linked, longest_cgroup, numbers, open_proc, text};

/// Where processes are: a network namespace, and the container that a control group claims.
type Seat = (Option<Inode>, Option<String>);

/// What is known of a process.
#[derive(Clone, Copy, Debug)]
struct Seated {
    /// The seat's number; nothing for those of no concern.
    seat: Option<u32>,
    /// Read twice: a container's first process begins on the host and goes there.
    settled: bool,
}

/// Who is where, as last read.
#[derive(Debug)]
pub struct Roll {
    proc: OwnedFd,
    /// Says which container a control group is of.
    claimed: fn(&str) -> Option<String>,
    own: Option<Inode>,
    /// By number.
    processes: HashMap<u32, Seated>,
    seats: BTreeMap<Seat, u32>,
    buffer: Vec<u8>,
}

impl Roll {
    /// Reads all processes. `claimed` says which container a control group's path is of.
    pub fn open(claimed: fn(&str) -> Option<String>) -> Option<Self> {
        let proc = open_proc().ok()?;
        let own = rustix::fs::stat(super::OWN).ok().map(|stat| stat.st_ino);
        let (processes, seats) = Default::default();
        let mut roll = Self { proc, claimed, own, processes, seats, buffer: Vec::new() };
        roll.changed();
        Some(roll)
    }

    /// Reads them again; returns whether a seat was taken that nobody had, or left by the last one.
    pub fn changed(&mut self) -> bool {
        let Ok(pids) = numbers(&self.proc) else { return false };
        let mut before = std::mem::take(&mut self.processes);
        let mut processes = HashMap::with_capacity(pids.len());
        let (mut changed, mut moved, mut path) = (false, false, String::new());
        for pid in pids {
            let known = before.remove(&pid);
            let seated = match known {
                Some(seated) if seated.settled => seated,
                _ => {
                    let seat = self.seat(pid, &mut path);
                    let seat = seat.map(|seat| self.number(seat, &mut changed));
                    moved |= known.is_some_and(|known| known.seat != seat);
                    Seated { seat, settled: known.is_some() }
                }
            };
            processes.insert(pid, seated);
        }
        self.processes = processes;
        if !before.is_empty() || moved {
            changed |= self.forget_empty();
        }
        changed
    }

    fn number(&mut self, seat: Seat, changed: &mut bool) -> u32 {
        let next = self.seats.len() as u32;
        *self.seats.entry(seat).or_insert_with(|| {
            *changed = true;
            next
        })
    }

    /// Drops the seats that nobody has any more, and counts the others anew.
    fn forget_empty(&mut self) -> bool {
        let mut taken = vec![false; self.seats.len()];
        for seat in self.processes.values().filter_map(|seated| seated.seat) {
            taken[seat as usize] = true;
        }
        if taken.iter().all(|taken| *taken) {
            return false;
        }
        let mut renumbered = vec![None; taken.len()];
        self.seats.retain(|_, number| taken[*number as usize]);
        for (new, number) in self.seats.values_mut().enumerate() {
            renumbered[*number as usize] = Some(new as u32);
            *number = new as u32;
        }
        for Seated { seat, .. } in self.processes.values_mut() {
            *seat = seat.and_then(|seat| renumbered[seat as usize]);
        }
        true
    }

    /// Where a process is; `None` for one at home on the host, and one that has ended.
    fn seat(&mut self, pid: u32, path: &mut String) -> Option<Seat> {
        path.clear();
        path.push_str(&format!("{pid}/cgroup"));
        text(self.proc.as_fd(), path, &mut self.buffer).ok()?;
        let container = (self.claimed)(&longest_cgroup(&self.buffer));
        path.clear();
        path.push_str(&format!("{pid}/ns/net"));
        let netns = linked(&self.proc, path, "net").ok();
        let at_home = netns.is_none() || netns == self.own;
        (!at_home || container.is_some()).then_some((netns, container))
    }
}
