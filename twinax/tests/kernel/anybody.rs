//! Commands run in namespaces of whatever `map` shows, by the name that people have for it.

use std::{fs, io::BufRead, io::BufReader, process::Child, process::Stdio};

use crate::{
    harness::Outcome,
    sandbox::{Netns, Sandbox},
    tests,
};

tests![anybodys_container_is_entered_by_name, who_may_not_enter_is_told];

/// A namespace with an address of its own, mounted as `ip netns` does it.
fn named(sandbox: &Sandbox, name: &str) -> Netns {
    let netns = sandbox.namespace();
    fs::create_dir_all("/run/netns").unwrap();
    let path = format!("/run/netns/{name}");
    fs::write(&path, "").unwrap();
    netns.run(|| rustix::mount::mount_bind("/proc/thread-self/ns/net", path.as_str())).unwrap();
    netns
}

/// A process in a namespace of its own, that serves until it is killed.
fn stranger(sandbox: &Sandbox) -> Child {
    let netns = sandbox.namespace();
    let mut command = sandbox.command(&["demo", "echo", "--tcp", "--port", "7"]);
    command.stdout(Stdio::piped());
    let mut child = netns.run(|| command.spawn()).unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.contains("serving"), "{line}");
    child
}

fn inode(path: &str) -> String {
    fs::read_link(path).unwrap().display().to_string()
}

fn anybodys_container_is_entered_by_name(sandbox: &mut Sandbox) -> Outcome {
    let blue = named(sandbox, "blue");
    let own = inode("/proc/self/ns/net");
    let theirs = blue.run(|| inode("/proc/thread-self/ns/net"));
    assert_ne!(own, theirs);
    let see = "readlink /proc/self/ns/net";
    assert_eq!(sandbox.done(&format!("exec blue -- {see}")).trim(), theirs);
    // The host's files: only the network is another's.
    let files = sandbox.done("exec blue -- readlink /proc/self/ns/mnt");
    assert_eq!(files.trim(), inode("/proc/self/ns/mnt"));
    assert_eq!(sandbox.try_line("exec blue -- sh -c false").code, Some(1));

    let (mut one, mut two) = (stranger(sandbox), stranger(sandbox));
    let of_one = inode(&format!("/proc/{}/ns/net", one.id()));
    assert_eq!(sandbox.done(&format!("exec {} -- {see}", one.id())).trim(), of_one);
    let error = sandbox.refused(&format!("exec twinax -- {see}"));
    assert!(error.contains("twinax may mean 2 things"), "{error}");
    for child in [&one, &two] {
        let exact = format!("container:{}", child.id());
        let line = format!("container twinax (process)  (twinax exec {exact})");
        assert!(error.contains(&line), "{line}: {error}");
        let theirs = inode(&format!("/proc/{}/ns/net", child.id()));
        assert_eq!(sandbox.done(&format!("exec {exact} -- {see}")).trim(), theirs);
    }
    let error = sandbox.refused(&format!("exec nobody -- {see}"));
    assert!(error.contains("there is no container nobody"), "{error}");

    // A container of Twinax's wins, and is entered whole as ever.
    sandbox.done("network create web");
    let ours = sandbox.start("blue", "--network web");
    let inside = sandbox.done(&format!("exec blue -- {see}"));
    assert_eq!(inside.trim(), inode(&format!("/proc/{}/ns/net", ours.pid)));
    let files = sandbox.done("exec blue -- readlink /proc/self/ns/mnt");
    assert_eq!(files.trim(), inode(&format!("/proc/{}/ns/mnt", ours.pid)));
    for child in [&mut one, &mut two] {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    Outcome::Passed
}

/// Without the capability in this user namespace, and with none of its own around the other.
fn who_may_not_enter_is_told(sandbox: &mut Sandbox) -> Outcome {
    use rustix::thread::{CapabilitiesSecureBits, set_capabilities_secure_bits};
    named(sandbox, "blue");
    let mut command = sandbox.command(&["exec", "netns:/run/netns/blue", "--", "true"]);
    let without = || {
        // Root is nobody special in programs that are started from here.
        set_capabilities_secure_bits(CapabilitiesSecureBits::NO_ROOT).unwrap();
        command.output().unwrap()
    };
    let output = std::thread::scope(|scope| scope.spawn(without).join().unwrap());
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(125), "{error}");
    assert!(error.contains("cannot enter the network namespace /run/netns/blue"), "{error}");
    assert!(error.contains("hint: that takes CAP_SYS_ADMIN over it"), "{error}");
    Outcome::Passed
}
