//! Reads one cable of the namespace where we are, and nothing of those that it has nothing to do with.
//!
//! The observatory is given one number only, that of home. The kernel then numbers the far end's
//! namespace by itself, as it tells of the near end; and whoever is given has it if the observatory
//! calls him that. A thousand others cost a question each, and are not read.

use std::os::fd::BorrowedFd;

use rustix::{
    io::Errno,
    thread::{LinkNameSpaceType, move_into_link_name_space},
};
use twinax_core::{model::Netns, sight::Sight};

use super::{
    Room, RoomRead,
    asker::Asker,
    link::{self, Far, RawLink, Which},
    pair, reach,
};

const HOME: i32 = 0;

/// The near end of a cable, and what the observatory calls the namespace of the other.
#[derive(Debug)]
pub struct Lead {
    asker: Asker,
    near: RawLink,
    number: i32,
}

/// Looks where the cable called `name` leads of the namespace `home`, which is that of the calling
/// thread; `None` if there is none of that name, or its other end is gone.
///
/// # Errors
/// The kernel's, where no namespace may be made or numbered.
pub fn follow(name: &str, home: BorrowedFd<'_>) -> Result<Option<Lead>, Errno> {
    let observe = || {
        crate::linux::netns::unshare_network()?;
        let mut asker = Asker::open()?;
        let numbered = asker.number(&[home])?;
        Ok::<_, Errno>((asker, numbered == [true]))
    };
    let observing = std::thread::scope(|scope| scope.spawn(observe).join());
    let (mut asker, true) = observing.unwrap_or(Err(Errno::IO))? else { return Ok(None) };
    let near = link::one(&mut asker, HOME, &Which::Name(name))?;
    // The kernel takes other names too.
    let Some(near) = near.filter(|near| near.name.as_str() == name && near.is_cable()) else {
        return Ok(None);
    };
    Ok(match near.far {
        Far::Same => Some(Lead { asker, near, number: HOME }),
        Far::Number(number @ 0..) => Some(Lead { asker, near, number }),
        Far::Number(_) | Far::Room(_) => None,
    })
}

impl Lead {
    /// The number of the far end, in its namespace.
    pub fn peer(&self) -> Option<u32> {
        self.near.leads_to
    }

    /// Which of the given namespaces has the far end; `None` if none of them.
    ///
    /// # Errors
    /// The kernel's.
    pub fn place(&mut self, given: &[BorrowedFd<'_>]) -> Result<Option<usize>, Errno> {
        /// Mostly the rest need not be asked for.
        const AT_ONCE: usize = 128;
        for (n, some) in given.chunks(AT_ONCE).enumerate() {
            let numbers = self.asker.numbers(some)?;
            let at = numbers.iter().position(|called| *called == Some(self.number));
            if let Some(at) = at {
                return Ok(Some(n * AT_ONCE + at));
            }
        }
        Ok(None)
    }
}

/// Reads both ends into `sight`, and what they are members of, their addresses, and the routes of
/// their namespaces; returns whether each end names the other. `home` and `far` are the namespaces
/// of the ends, the same one twice if it has both.
///
/// # Errors
/// The kernel's.
pub fn read_lead(
    mut lead: Lead,
    home: (&Netns, BorrowedFd<'_>),
    far: (&Netns, BorrowedFd<'_>),
    sight: &mut Sight,
) -> Result<bool, Errno> {
    let Some(index) = lead.near.leads_to else { return Ok(false) };
    let asker = &mut lead.asker;
    let Some(peer) = link::one(asker, lead.number, &Which::Index(index))? else {
        return Ok(false);
    };
    let mut near_read = end(asker, HOME, lead.near)?;
    let (mut rooms, mut reads) = (vec![room(home)?], Vec::new());
    if lead.number == HOME {
        near_read.links.push(peer);
    } else {
        rooms.push(room(far)?);
        reads.push(end(asker, lead.number, peer)?);
    }
    reads.insert(0, near_read);
    for link in reads.iter_mut().flat_map(|read| &mut read.links) {
        link.far = match link.far {
            Far::Number(HOME) => Far::Room(0),
            Far::Number(number) if number == lead.number => Far::Room(1),
            other => other,
        };
    }
    for (room, read) in rooms.iter().zip(&mut reads) {
        read.routes = routes(room)?;
    }
    Ok(pair::see_one(&rooms, &reads, sight))
}

fn room<'a>((netns, fd): (&'a Netns, BorrowedFd<'a>)) -> Result<Room<'a>, Errno> {
    Ok(Room { netns, fd, inode: rustix::fs::fstat(fd)?.st_ino })
}

/// One end, with what it is a member of, and the addresses of its namespace.
fn end(asker: &mut Asker, number: i32, link: RawLink) -> Result<RoomRead, Errno> {
    let master = match link.master {
        Some(index) => link::one(asker, number, &Which::Index(index))?,
        None => None,
    };
    let addrs = reach::addrs(asker, Some(number))?;
    let links = std::iter::once(link).chain(master).collect();
    Ok(RoomRead { links, addrs, by_number: true, ..RoomRead::default() })
}

/// Those of a namespace, which are told only within.
fn routes(room: &Room<'_>) -> Result<Vec<reach::RawRoute>, Errno> {
    let within = || {
        move_into_link_name_space(room.fd, Some(LinkNameSpaceType::Network))?;
        reach::routes(&mut Asker::open()?)
    };
    std::thread::scope(|scope| scope.spawn(within).join().unwrap_or(Err(Errno::IO)))
}
