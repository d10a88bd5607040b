//! Docker: `DATA-ROOT/containers/ID/config.v2.json`.

use std::collections::BTreeMap;

use serde_json::Value;
use twinax_core::sight::{PublishedPort, Runtime, Workload};

use super::{
    SHARES, Suspect,
    cgroup::is_id,
    oci::{self, address, port_key, text, words},
    scene::Scene,
    view::RECORD,
};

/// The files of a container's directory that Docker mounts into it.
const MOUNTED: [&str; 3] = ["/etc/hostname", "/etc/hosts", "/etc/resolv.conf"];

/// Reads the container's file, wherever the data root is: what is mounted on its `/etc/hostname`
/// lies beside it.
pub(super) fn workload(scene: &Scene, suspect: &Suspect, id: &str) -> Option<Workload> {
    let usual = format!("/var/lib/docker/containers/{id}");
    let (dir, bytes) = config(scene, usual).or_else(|| {
        let maker = suspect.parent.as_ref()?.pid;
        MOUNTED.iter().find_map(|target| {
            let file = scene.source(suspect.first.pid, maker, target)?;
            let (dir, _) = file.rsplit_once('/')?;
            let (containers, other) = dir.rsplit_once('/')?;
            // Who shares another's network has the other's files; its own are beside them. It
            // is told of nobody but itself, whatever is mounted there from within.
            let is_dockers = containers.ends_with("/containers") && is_id(other);
            is_dockers.then(|| config(scene, format!("{containers}/{id}")))?
        })
    })?;
    let mut workload = container(&bytes, id)?;
    if workload.networks.is_empty() {
        let bytes = scene.view.read(&format!("{dir}/hostconfig.json"), RECORD);
        if let Some(other) = bytes.and_then(|bytes| sharer(&bytes)) {
            workload.labels.insert(SHARES.to_owned(), other);
        }
    }
    Some(workload)
}

fn config(scene: &Scene, dir: String) -> Option<(String, Vec<u8>)> {
    let bytes = scene.view.read(&format!("{dir}/config.v2.json"), RECORD)?;
    Some((dir, bytes))
}

/// Reads a `config.v2.json`.
fn container(bytes: &[u8], id: &str) -> Option<Workload> {
    let config: Value = serde_json::from_slice(bytes).ok()?;
    if text(&config, "/ID").is_some_and(|told| told != id) {
        return None;
    }
    let mut workload = oci::nameless(Runtime::Docker, id);
    if let Some(name) = text(&config, "/Name") {
        name.trim_start_matches('/').clone_into(&mut workload.name);
    }
    workload.image = text(&config, "/Config/Image");
    workload.netns_path = text(&config, "/NetworkSettings/SandboxKey");
    let networks = config.pointer("/NetworkSettings/Networks").and_then(Value::as_object);
    workload.networks = networks.into_iter().flatten().map(|(name, _)| name.clone()).collect();
    workload.networks.sort_unstable();
    workload.published = published(&config);
    workload.labels = compose(&words(&config, "/Config/Labels"));
    Some(workload)
}

fn published(config: &Value) -> Vec<PublishedPort> {
    let ports = config.pointer("/NetworkSettings/Ports").and_then(Value::as_object);
    let mut published = Vec::new();
    for (key, bindings) in ports.into_iter().flatten() {
        let Some((container_port, proto)) = port_key(key) else { continue };
        for binding in bindings.as_array().into_iter().flatten() {
            let port = text(binding, "/HostPort").and_then(|port| port.parse().ok());
            if let Some(host_port) = port.filter(|port| *port > 0) {
                let host = address(text(binding, "/HostIp"));
                published.push(PublishedPort { proto, host, host_port, container_port });
            }
        }
    }
    published.sort_unstable();
    published
}

/// What Compose, of whatever make, says of a container.
pub(super) fn compose(labels: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let known = [
        ("com.docker.compose.project", "compose project"),
        ("com.docker.compose.service", "compose service"),
        ("com.docker.swarm.service.name", "swarm service"),
    ];
    let pairs = known.iter();
    pairs.filter_map(|(key, word)| Some(((*word).to_owned(), labels.get(*key)?.clone()))).collect()
}

/// Whose network a container was told to share, by `hostconfig.json`.
fn sharer(bytes: &[u8]) -> Option<String> {
    let config: Value = serde_json::from_slice(bytes).ok()?;
    Some(text(&config, "/NetworkMode")?.strip_prefix("container:")?.to_owned())
}
