//! What a control group's path claims about who made its processes; a claim, until files agree.

/// Which runtime's pattern a name follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Hint {
    Docker,
    Podman,
    Containerd,
    Cri,
    CriO,
    Lxc,
    Nspawn,
    /// A container's id with nothing that says whose.
    Unknown,
}

/// A container's name or id in a control group's path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Claim {
    pub(super) hint: Hint,
    pub(super) id: String,
    /// The path as far as the container's own group: the same for all its processes.
    pub(super) group: String,
}

/// Returns the innermost claim: of containers within containers, the inner one's.
pub(super) fn claim(cgroup: &str) -> Option<Claim> {
    let (mut found, mut before, mut end) = (None, "", 0);
    for part in cgroup.split('/') {
        end += part.len();
        if let Some((hint, id)) = claim_of(part, before, &cgroup[..end - part.len()]) {
            found = Some(Claim { hint, id, group: cgroup[..end].to_owned() });
        }
        end += 1;
        before = part;
    }
    found
}

/// The systemd unit that a path lies in, if that is one.
pub(super) fn unit(cgroup: &str) -> Option<&str> {
    let is_unit = |part: &&str| part.ends_with(".service") || part.ends_with(".scope");
    cgroup.rsplit('/').find(is_unit)
}

fn claim_of(part: &str, before: &str, path: &str) -> Option<(Hint, String)> {
    let name = part.strip_suffix(".scope").unwrap_or(part);
    if let Some(name) = name.strip_prefix("lxc.payload.") {
        return Some((Hint::Lxc, name.to_owned()));
    }
    if matches!(before, "lxc.payload" | "lxc") && !part.is_empty() && path.len() <= 13 {
        return Some((Hint::Lxc, part.to_owned()));
    }
    if let Some(machine) = machine(part) {
        return Some((Hint::Nspawn, machine));
    }
    let (prefix, id) = name.rsplit_once('-').unwrap_or(("", name));
    if !is_id(id) {
        return None;
    }
    let hint = match prefix {
        "docker" => Hint::Docker,
        "libpod" | "libpod-payload" => Hint::Podman,
        "cri-containerd" => Hint::Cri,
        "nerdctl" => Hint::Containerd,
        "crio" => Hint::CriO,
        "" if before == "libpod_parent" => return None, // A pod, which holds containers.
        "" if before == "docker" => Hint::Docker,
        "" if path.contains("kubepods") => Hint::Cri,
        "" => Hint::Unknown,
        _ => return None,
    };
    Some((hint, id.to_owned()))
}

/// The machine of `machine-NAME.scope` or `systemd-nspawn@NAME.service`, as systemd escapes it.
fn machine(part: &str) -> Option<String> {
    let name = part.strip_prefix("machine-").and_then(|rest| rest.strip_suffix(".scope"));
    let name = name.or_else(|| {
        part.strip_prefix("systemd-nspawn@").and_then(|rest| rest.strip_suffix(".service"))
    })?;
    // What libvirt registers are machines too.
    let foreign = name.starts_with("qemu\\x2d") || name.starts_with("lxc\\x2d");
    (!foreign).then(|| unescape(name))
}

/// Undoes systemd's escaping of unit names: `\x2d` is `-`, `-` is `/`.
fn unescape(name: &str) -> String {
    let mut bytes = Vec::with_capacity(name.len());
    let mut rest = name;
    while let Some(first) = rest.bytes().next() {
        let code = rest.strip_prefix("\\x").and_then(|hex| hex.get(..2));
        if let Some(byte) = code.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            bytes.push(byte);
            rest = &rest[4..];
        } else {
            bytes.push(if first == b'-' { b'/' } else { first });
            // A byte of a longer character comes out as it went in.
            let width = rest.chars().next().map_or(1, char::len_utf8);
            bytes.extend_from_slice(&rest.as_bytes()[1..width]);
            rest = &rest[width..];
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Whether a name is what OCI engines number containers with: 64 hexadecimal digits.
pub(super) fn is_id(name: &str) -> bool {
    name.len() == 64 && name.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pattern_is_known() {
        let id = "4b".repeat(32);
        let other = "0c".repeat(32);
        let lines = [
            (format!("/docker/{id}"), Hint::Docker, id.as_str()),
            (format!("/docker/{id}/init.scope"), Hint::Docker, &id),
            (format!("/system.slice/docker-{id}.scope"), Hint::Docker, &id),
            (format!("/ours/{id}"), Hint::Unknown, &id),
            (format!("/machine.slice/libpod-{id}.scope/container"), Hint::Podman, &id),
            (format!("/libpod_parent/{other}/libpod-{id}"), Hint::Podman, &id),
            (
                format!(
                    "/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{id}.scope"
                ),
                Hint::Podman,
                &id,
            ),
            (
                format!("/kubepods.slice/kubepods-pod1.slice/cri-containerd-{id}.scope"),
                Hint::Cri,
                &id,
            ),
            (format!("/kubepods/burstable/pod7f/{id}"), Hint::Cri, &id),
            (format!("/kubepods.slice/crio-{id}.scope"), Hint::CriO, &id),
            (format!("/system.slice/nerdctl-{id}.scope"), Hint::Containerd, &id),
            (format!("/docker/{other}/kubelet.slice/cri-containerd-{id}.scope"), Hint::Cri, &id),
            ("/lxc.payload.web/system.slice/x.service".to_owned(), Hint::Lxc, "web"),
            ("/lxc/web".to_owned(), Hint::Lxc, "web"),
            ("/machine.slice/machine-my\\x2dbox.scope/payload".to_owned(), Hint::Nspawn, "my-box"),
            ("/machine.slice/systemd-nspawn@box.service/payload".to_owned(), Hint::Nspawn, "box"),
        ];
        for (path, hint, id) in lines {
            let claim = claim(&path).unwrap_or_else(|| panic!("{path} claims nothing"));
            assert_eq!((claim.hint, claim.id.as_str()), (hint, id), "{path}");
            assert!(path.starts_with(&claim.group), "{path}: {}", claim.group);
        }
    }

    #[test]
    fn others_claim_nothing() {
        let id = "4b".repeat(32);
        for path in [
            "/".to_owned(),
            String::new(),
            "/system.slice/docker.service".to_owned(),
            format!("/machine.slice/libpod-conmon-{id}.scope"),
            format!("/libpod_parent/{id}"),
            format!("/crio-conmon-{id}.scope"),
            "/lxc.monitor.web".to_owned(),
            "/machine.slice/machine-qemu\\x2d1\\x2dvm.scope".to_owned(),
            "/docker/short".to_owned(),
        ] {
            assert_eq!(claim(&path), None, "{path}");
        }
        assert_eq!(unit("/system.slice/a.service/init.scope/x"), Some("init.scope"));
        assert_eq!(unescape("\\x2d\\xzz\\xé-"), "-\\xzz\\xé/");
    }
}
