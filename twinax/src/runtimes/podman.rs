//! Podman, root's and users': `STORAGE/DRIVER-containers/containers.json`, each bundle's
//! `config.json`, and the database beside them, which alone has networks and ports: bolt's until
//! Podman 4, SQLite's since then.

use std::collections::BTreeMap;

use serde_json::Value;
use twinax_core::sight::{PublishedPort, Runtime, Workload};

use super::{
    ROLE, SHARES,
    bolt::{Bolt, Bucket, Entry},
    docker::compose,
    oci::{self, bundle, text, words},
    scene::{Conmon, Scene},
    sqlite::{Sqlite, Value as Column},
    view::{LARGE, RECORD},
};

/// The places of a storage that need no conmon to tell them.
const STORAGE: &str = "/var/lib/containers/storage";
const DRIVERS: [&str; 4] = ["overlay", "vfs", "btrfs", "zfs"];

/// What one storage's files say of all its containers.
#[derive(Debug, Default)]
pub(super) struct Storage {
    /// Name and image.
    listed: BTreeMap<String, (String, Option<String>)>,
    recorded: BTreeMap<String, Recorded>,
}

/// A container in the database.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Recorded {
    name: Option<String>,
    image: Option<String>,
    pod: Option<String>,
    infra: bool,
    networks: Vec<String>,
    published: Vec<PublishedPort>,
    /// Whose network namespace it is in.
    shares: Option<String>,
    labels: BTreeMap<String, String>,
}

/// A container whose conmon is there.
pub(super) fn monitored(scene: &Scene, conmon: &Conmon) -> Option<Workload> {
    let folder = conmon.bundle.as_deref()?;
    let mut workload = read(scene, &conmon.id, folder);
    if let Some(name) = &conmon.name {
        workload.name.clone_from(name);
    }
    if workload.networks.is_empty() && !workload.labels.contains_key(SHARES) {
        workload.networks = resolved(scene, conmon);
    }
    Some(workload)
}

/// A container whose conmon is gone, in the usual storage.
pub(super) fn workload(scene: &Scene, id: &str) -> Option<Workload> {
    DRIVERS.iter().find_map(|driver| {
        let folder = format!("{STORAGE}/{driver}-containers/{id}/userdata");
        scene.view.read(&format!("{folder}/config.json"), RECORD)?;
        Some(read(scene, id, &folder))
    })
}

fn read(scene: &Scene, id: &str, folder: &str) -> Workload {
    let mut workload = oci::nameless(Runtime::Podman, id);
    let config = scene.view.read(&format!("{folder}/config.json"), RECORD);
    let config = config.and_then(|bytes| bundle(&bytes)).unwrap_or_default();
    workload.netns_path = config.netns_path;
    // STORAGE/DRIVER-containers/ID/userdata
    let Some((containers, _)) = folder.trim_end_matches("/userdata").rsplit_once('/') else {
        return workload;
    };
    let mut storages = scene.storages.borrow_mut();
    let storage = storages.entry(containers.to_owned());
    storage.or_insert_with(|| Storage::read(scene, containers)).describe(id, &mut workload);
    workload
}

impl Storage {
    fn read(scene: &Scene, containers: &str) -> Self {
        let root = containers.rsplit_once('/').map_or("", |(root, _)| root);
        let lists = ["containers.json", "volatile-containers.json"];
        let lists =
            lists.iter().filter_map(|list| scene.view.read(&format!("{containers}/{list}"), LARGE));
        let database = |path: &str| scene.view.read(&format!("{root}/{path}"), LARGE);
        // Where one followed the other, the older one still has the older containers.
        let bolt = database("libpod/bolt_state.db");
        let mut recorded = bolt.map(|bytes| recorded(&bytes)).unwrap_or_default();
        for path in ["libpod/db.sql", "db.sql"] {
            recorded.extend(database(path).map(|bytes| in_rows(&bytes)).unwrap_or_default());
        }
        Self { listed: lists.flat_map(|bytes| listed(&bytes)).collect(), recorded }
    }

    fn describe(&self, id: &str, workload: &mut Workload) {
        if let Some((name, image)) = self.listed.get(id) {
            workload.name.clone_from(name);
            workload.image.clone_from(image);
        }
        let Some(told) = self.recorded.get(id) else { return };
        if let Some(name) = &told.name {
            workload.name.clone_from(name);
        }
        if told.image.is_some() {
            workload.image.clone_from(&told.image);
        }
        workload.networks.clone_from(&told.networks);
        workload.published.clone_from(&told.published);
        workload.labels.clone_from(&told.labels);
        workload.pod.clone_from(&told.pod);
        let role = told.infra.then(|| "sandbox".to_owned());
        let pairs = [(SHARES, told.shares.clone()), (ROLE, role)].into_iter();
        let pairs = pairs.filter_map(|(key, word)| Some((key.to_owned(), word?)));
        workload.labels.extend(pairs);
    }
}

/// Reads a `containers.json`: ids with names and images.
fn listed(bytes: &[u8]) -> BTreeMap<String, (String, Option<String>)> {
    let list: Value = serde_json::from_slice(bytes).unwrap_or_default();
    let entry = |entry: &Value| {
        let metadata: Value = serde_json::from_str(&text(entry, "/metadata")?).unwrap_or_default();
        let name = text(entry, "/names/0").or_else(|| text(&metadata, "/name"))?;
        Some((text(entry, "/id")?, (name, text(&metadata, "/image-name"))))
    };
    list.as_array().into_iter().flatten().filter_map(entry).collect()
}

/// Reads a `bolt_state.db`: the buckets `ctr` and `pod`, in them one for each id with its
/// `config` as JSON, and with a container's its networks by name.
fn recorded(bytes: &[u8]) -> BTreeMap<String, Recorded> {
    let Some(root) = Bolt::open(bytes).map(Bolt::root) else { return BTreeMap::new() };
    let pods: BTreeMap<String, String> = each(root, b"pod")
        .filter_map(|(id, _, config)| Some((id, text(&config, "/name")?)))
        .collect();
    let containers = each(root, b"ctr").map(|(id, bucket, config)| {
        let mut told = container(&config, &pods);
        let networks = bucket.bucket(b"networks").map(|networks| networks.entries());
        let names = networks.into_iter().flatten().map(|(name, _)| String::from_utf8_lossy(name));
        told.networks = names.map(|name| name.into_owned()).collect();
        (id, told)
    });
    containers.collect()
}

/// Reads a `db.sql`: the tables `ContainerConfig` (id, name, pod's id, the configuration as JSON)
/// and `PodConfig` (id, name, JSON).
fn in_rows(bytes: &[u8]) -> BTreeMap<String, Recorded> {
    let Some(database) = Sqlite::open(bytes) else { return BTreeMap::new() };
    let word =
        |column: Option<&Column>| Some(String::from_utf8_lossy(column?.as_ref()?).into_owned());
    let pods = database.rows("PodConfig");
    let pods = pods.iter().filter_map(|row| Some((word(row.first())?, word(row.get(1))?)));
    let pods = pods.collect();
    let rows = database.rows("ContainerConfig");
    let containers = rows.iter().filter_map(|row| {
        let config = serde_json::from_slice(row.get(3)?.as_ref()?).ok()?;
        let mut told = container(&config, &pods);
        // Of other modes what is there was not used.
        if text(&config, "/networkMode").is_none_or(|mode| mode == "bridge") {
            let networks = config.pointer("/newNetworks").and_then(Value::as_object);
            told.networks = networks.into_iter().flatten().map(|(name, _)| name.clone()).collect();
        }
        Some((word(row.first())?, told))
    });
    containers.collect()
}

fn each<'a>(
    root: Bucket<'a>,
    kind: &[u8],
) -> impl Iterator<Item = (String, Bucket<'a>, Value)> + use<'a> {
    let all = root.bucket(kind).map(|all| all.entries()).unwrap_or_default();
    all.into_iter().filter_map(|(id, entry)| {
        let Entry::Bucket(bucket) = entry else { return None };
        let config = serde_json::from_slice(bucket.value(b"config")?).ok()?;
        Some((String::from_utf8_lossy(id).into_owned(), bucket, config))
    })
}

/// Reads a container's configuration as the database has it.
fn container(config: &Value, pods: &BTreeMap<String, String>) -> Recorded {
    let pod = text(config, "/pod");
    let ports = ["/newPortMappings", "/portMappings"];
    let ports = ports.iter().find_map(|key| config.pointer(key));
    let mut published = ports.map(oci::ports).unwrap_or_default();
    published.sort_unstable();
    Recorded {
        name: text(config, "/name"),
        image: text(config, "/rootfsImageName"),
        pod: pod.map(|id| pods.get(&id).cloned().unwrap_or(id)),
        infra: ["/pause", "/isInfra"].iter().any(|key| config.pointer(key) == Some(&true.into())),
        networks: Vec::new(),
        published,
        shares: text(config, "/netNsCtr"),
        labels: compose(&words(config, "/labels")),
    }
}

/// The networks with names for containers that a container is on: a file for each, in a line
/// for each container. What there is where the database is not bolt's.
fn resolved(scene: &Scene, conmon: &Conmon) -> Vec<String> {
    let run = conmon.pidfile.as_deref().and_then(|file| {
        let (folder, _) = file.split_once(&format!("/{}/", conmon.id))?;
        Some(format!("{}/networks", folder.rsplit_once('/')?.0))
    });
    let folders = run.into_iter().chain(["/run/containers/networks".to_owned()]);
    let mut networks = Vec::new();
    for folder in folders.map(|folder| format!("{folder}/aardvark-dns")) {
        for network in scene.view.list(&folder) {
            let file = scene.view.read(&format!("{folder}/{network}"), RECORD).unwrap_or_default();
            let file = String::from_utf8_lossy(&file);
            // Newer versions call them NETWORK%INTERFACE.
            let name = network.split('%').next().unwrap_or_default();
            if file.lines().any(|line| line.starts_with(&conmon.id)) {
                networks.push(name.to_owned());
            }
        }
        if !networks.is_empty() {
            break;
        }
    }
    networks
}
