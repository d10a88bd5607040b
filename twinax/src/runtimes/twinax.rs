//! Twinax itself: the records in its stores, root's and users'.
//!
//! A user's store is in that user's hands, so it is read as any other runtime's and not by
//! [`crate::store::Store`], which trusts its own.

use std::env;

use twinax_core::{
    name::ContainerName,
    sight::{PublishedPort, Runtime, Workload},
    state::{Container, Way},
};

use super::{SHARES, oci, scene::Scene, view::RECORD};
use crate::linux::process::init_of;

/// Returns the containers that run, as far as their records say so, each with the start of its first
/// process. `here`: the store that the environment names counts too.
pub(super) fn containers(scene: &Scene, here: bool) -> Vec<(Workload, u64)> {
    let mut found = Vec::new();
    for store in stores(scene, here) {
        let folder = format!("{store}/containers");
        let names = scene.view.list(&folder).into_iter();
        // There may be a thousand, and of root's each may be opened at once.
        let records: Vec<Vec<u8>> = match scene.view.of_root(&folder) {
            Some(view) => {
                let read = |name| view.read_proc(&format!("{name}/record.json"), RECORD);
                names.filter_map(read).collect()
            }
            None => {
                let read = |name| scene.view.read(&format!("{folder}/{name}/record.json"), RECORD);
                names.filter_map(read).collect()
            }
        };
        found.extend(records.iter().filter_map(|bytes| container(bytes)));
    }
    found
}

/// The directories of stores, as `crate::place` lays them out.
fn stores(scene: &Scene, here: bool) -> Vec<String> {
    let below = |folder: &str, rest: &str| {
        let names = scene.view.list(folder).into_iter();
        names.map(|name| format!("{folder}/{name}{rest}")).collect::<Vec<_>>()
    };
    let mut stores = below("/run/twinax", "");
    let told = env::var("TWINAX_RUN_DIR").ok().filter(|dir| here && dir != "/run/twinax");
    stores.extend(told.iter().flat_map(|dir| below(dir, "")));
    stores.extend(below("/run/user", "/twinax/state"));
    // A user's own may be anywhere.
    let own = env::var("XDG_RUNTIME_DIR").ok().filter(|_| here);
    stores.extend(own.map(|dir| format!("{dir}/twinax/state")).filter(|dir| !stores.contains(dir)));
    let users = scene.view.list("/tmp").into_iter().filter(|name| name.starts_with("twinax-"));
    stores.extend(users.map(|name| format!("/tmp/{name}/state")));
    stores
}

/// Reads a record, with the start of the container's first process; `None` if none runs.
fn container(bytes: &[u8]) -> Option<(Workload, u64)> {
    let (name, container): (ContainerName, Container) = serde_json::from_slice(bytes).ok()?;
    let init = init_of(&container)?;
    let mut workload = oci::nameless(Runtime::Twinax, &container.id);
    name.as_str().clone_into(&mut workload.name);
    workload.pid = Some(init.pid);
    workload.networks = container.endpoints.iter().map(|e| e.network.to_string()).collect();
    let ports = container.published.iter().map(|port| PublishedPort {
        proto: port.proto,
        host: port.host,
        host_port: port.host_port,
        container_port: port.container_port,
    });
    workload.published = ports.collect();
    match &container.sandbox.way {
        Way::Path(path) => workload.netns_path = Some(path.clone()),
        Way::Of(other) => {
            workload.labels.insert(SHARES.to_owned(), other.to_string());
        }
        Way::Pid { .. } | Way::Host => {}
    }
    if let Some(lab) = container.run.as_ref().and_then(|run| run.lab.as_ref()) {
        workload.labels.insert("lab".to_owned(), lab.name.clone());
    }
    Some((workload, init.start))
}
