//! Twinax itself: the records in its stores, root's and users'.
//!
//! A user's store is in that user's hands, so it is read as any other runtime's and not by
//! [`crate::store::Store`], which trusts its own.

use std::{env, thread};

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
        let names = scene.view.list(&folder);
        // There may be a thousand, and of root's each may be opened at once.
        if scene.view.of_root(&folder).is_some() {
            found.extend(of_root(scene, &folder, &names));
            continue;
        }
        let read = |name| scene.view.read(&format!("{folder}/{name}/record.json"), RECORD);
        found.extend(names.iter().filter_map(|name| container(&read(name)?)));
    }
    found
}

/// As [`containers`], of a folder of root's; on several threads if there are many.
fn of_root(scene: &Scene, folder: &str, names: &[String]) -> Vec<(Workload, u64)> {
    const THREADS: usize = 2;
    /// From so many on, work is worth a thread.
    const MANY: usize = 128;
    let threads = if names.len() < MANY { 1 } else { THREADS };
    let parts = names.chunks(names.len().div_ceil(threads).max(1));
    thread::scope(|scope| {
        let mut readers = Vec::new();
        for part in parts {
            let Some(view) = scene.view.of_root(folder) else { continue };
            readers.push(scope.spawn(move || {
                let read = |name| view.read_proc(&format!("{name}/record.json"), RECORD);
                part.iter().filter_map(|name| container(&read(name)?)).collect::<Vec<_>>()
            }));
        }
        readers.into_iter().flat_map(|reader| reader.join().unwrap_or_default()).collect()
    })
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
    // Wherever else the caller's own is.
    let own = env::var("XDG_RUNTIME_DIR").ok().filter(|dir| here && dir.starts_with('/'));
    let own = own.map(|dir| format!("{}/twinax/state", dir.trim_end_matches('/')));
    if let Some(own) = own.filter(|store| !stores.contains(store)) {
        stores.push(own);
    }
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
