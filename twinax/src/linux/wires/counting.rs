//! Reads what went over links, and nothing else of them.

use rustix::io::Errno;
use twinax_core::sight::Counters;

use super::{asker::Asker, link};
use crate::linux::netlink::{attribute, number};

// linux/rtnetlink.h, linux/if_link.h
const RTM_NEWSTATS: u16 = 92;
const RTM_GETSTATS: u16 = 94;
const IFLA_STATS_LINK_64: u16 = 1;
/// Bytes of `struct if_stats_msg`.
const HEADER: usize = 12;

/// Reads the counters of the namespace that it was opened in.
///
/// By `RTM_GETSTATS`, which tells nothing else: in an answer to `RTM_GETLINK` the kernel names the
/// other end's namespace, for which it searches through all of them, once a cable.
#[derive(Debug)]
pub struct Counting(Asker);

impl Counting {
    /// Opens a socket in the namespace of the calling thread.
    pub fn open() -> Result<Self, Errno> {
        Ok(Self(Asker::open()?))
    }

    /// Returns what went over each link, by its index.
    pub fn read(&mut self) -> Result<Vec<(u32, Counters)>, Errno> {
        self.0.list(
            RTM_GETSTATS,
            |out| {
                let mut header = [0; HEADER];
                header[8..].copy_from_slice(&(1u32 << (IFLA_STATS_LINK_64 - 1)).to_ne_bytes());
                out.body(&header);
            },
            |message| {
                let (header, rest) = message.body.split_at_checked(HEADER)?;
                let stats = attribute(rest, IFLA_STATS_LINK_64)?;
                let index = number(&header[4..])?;
                (message.kind == RTM_NEWSTATS).then(|| (index, link::counters(stats)))
            },
        )
    }
}

/// As [`Counting::read`], of the namespace that the socket's own calls `number`: there only
/// `RTM_GETLINK` tells of others.
pub(super) fn of_number(asker: &mut Asker, number: i32) -> Result<Vec<(u32, Counters)>, Errno> {
    let links = link::list(asker, Some(number))?;
    Ok(links.into_iter().map(|link| (link.index, link.counters)).collect())
}
