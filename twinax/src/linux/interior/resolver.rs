//! Reads a process's `/etc/resolv.conf`, in the root directory of that process and no further:
//! the file is in the hands of whoever is in there.

use std::{fs::File, io::Read, net::IpAddr, sync::mpsc, thread, time::Duration};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, fstat, openat2};
use twinax_core::interior::Resolver;

/// No more is read than this, in bytes.
const MOST: u64 = 64 << 10;
/// A file system of somebody else's may never answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// Reads what process `pid` has; `None` where there is none, or it may not be read.
pub(super) fn read(pid: u32) -> Option<Resolver> {
    let (sender, receiver) = mpsc::channel();
    // One that is never answered stays behind, and ends with the process.
    thread::Builder::new().spawn(move || sender.send(content(pid))).ok()?;
    let text = receiver.recv_timeout(PATIENCE).ok()??;
    Some(parse(pid, &text))
}

fn content(pid: u32) -> Option<String> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(format!("/proc/{pid}/root"), flags, Mode::empty()).ok()?;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let open = |flags| {
        openat2(&root, "etc/resolv.conf", flags | OFlags::CLOEXEC, Mode::empty(), resolve).ok()
    };
    let regular = |fd: &_| {
        let stat = fstat(fd).ok();
        stat.is_some_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile)
    };
    // What it is must be known before it is opened: opening a device may do something.
    open(OFlags::PATH).filter(regular)?;
    let file = open(OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY).filter(regular)?;
    let mut bytes = Vec::new();
    File::from(file).take(MOST).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// resolv.conf(5): of several `search` lines the last one counts.
fn parse(pid: u32, text: &str) -> Resolver {
    let mut found = Resolver { pid, ..Resolver::default() };
    for line in text.lines() {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("nameserver") => {
                // A zone may follow the address.
                let addr = words.next().and_then(|word| word.split('%').next());
                found.servers.extend(addr.and_then(|addr| addr.parse::<IpAddr>().ok()));
            }
            Some("search" | "domain") => found.search = words.map(ToOwned::to_owned).collect(),
            Some("options") => found.options.extend(words.map(ToOwned::to_owned)),
            _ => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_as_the_resolver_does() {
        let text = "# by hand\nsearch a b\nnameserver 10.0.0.1 # x\nnameserver fe80::1%eth0\n\
                    nameserver nonsense\nsearch c\noptions ndots:5 edns0\n";
        let found = parse(7, text);
        let servers: Vec<String> = found.servers.iter().map(ToString::to_string).collect();
        assert_eq!(servers, ["10.0.0.1", "fe80::1"]);
        assert_eq!((found.search, found.options.len()), (vec!["c".to_owned()], 2));
    }
}
