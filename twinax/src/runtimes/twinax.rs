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

/// Returns the containers that run. `here`: the store that the environment names counts too.
pub(super) fn containers(scene: &Scene, here: bool) -> Vec<Workload> {
    let mut found = Vec::new();
    for store in stores(scene, here) {
        let folder = format!("{store}/containers");
        let records = scene.view.list(&folder).into_iter();
        let records = records.map(|name| format!("{folder}/{name}/record.json"));
        let records = records.filter_map(|record| scene.view.read(&record, RECORD));
        found.extend(records.filter_map(|bytes| container(&bytes)));
    }
    found.retain(|(workload, start)| {
        workload.pid.is_some_and(|pid| scene.start(pid) == Some(*start))
    });
    found.into_iter().map(|(workload, _)| workload).collect()
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
