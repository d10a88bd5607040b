//! Whether there are other network namespaces than before, by the kernel's own list: a matter of
//! microseconds, where the kernel tells nobody of new ones.

use std::collections::BTreeMap;

use twinax_core::sight::Inode;

use super::kernel::{Entry, Walker};

/// The kernel's list as it was last read.
#[derive(Debug)]
pub struct Census {
    walker: Walker,
    /// The caller's own, which is left out.
    apart: Option<Inode>,
    last: BTreeMap<Inode, Entry>,
}

impl Census {
    /// Reads the list for the first time.
    ///
    /// # Errors
    ///
    /// What it takes to read it: CAP_BPF and CAP_PERFMON.
    pub fn open(apart: Option<Inode>) -> Result<Self, &'static str> {
        let mut census = Self { walker: Walker::load()?, apart, last: BTreeMap::new() };
        census.changed();
        Ok(census)
    }

    /// Reads it again; returns whether a namespace came or went since.
    pub fn changed(&mut self) -> bool {
        // A walk that leads nowhere is made again the next time.
        let Some(mut list) = self.walker.walk() else { return false };
        list.retain(|inode, _| Some(*inode) != self.apart);
        let changed = list != self.last;
        self.last = list;
        changed
    }
}
