//! containerd: bundles in `STATE/io.containerd.runtime.v2.task/NAMESPACE/ID`, whose clients are
//! told apart by the namespace and by what they annotate. `ctr` and nerdctl are read here.

use std::collections::BTreeMap;

use serde_json::Value;
use twinax_core::sight::{Runtime, Workload};

use super::{
    SHARES, Suspect, cri, docker,
    docker::compose,
    oci::{self, Bundle, bundle},
    scene::{Scene, Shim},
    view::RECORD,
};

/// Where bundles are if no shim tells.
const TASKS: &str = "/run/containerd/io.containerd.runtime.v2.task";
/// The namespace of Docker's containers.
const DOCKER: &str = "moby";
/// The namespace of Kubernetes' containers.
const CRI: &str = "k8s.io";

/// A container whose shim is there.
pub(super) fn shimmed(scene: &Scene, suspect: &Suspect, shim: &Shim) -> Option<Workload> {
    let claimed = suspect.claim.as_ref().map(|claim| claim.id.as_str());
    if shim.namespace == DOCKER {
        let id = claimed.unwrap_or(&shim.id);
        let nameless = || oci::nameless(Runtime::Docker, id);
        return Some(docker::workload(scene, suspect, id).unwrap_or_else(nameless));
    }
    let usual = format!("{TASKS}/{}", shim.namespace);
    let bundles = shim.bundles.as_deref().unwrap_or(&usual);
    let (id, bundle) = read_bundle(scene, bundles, claimed.unwrap_or_default())
        .map(|bundle| (claimed.unwrap_or_default().to_owned(), bundle))
        .or_else(|| {
            // One shim watches all containers of a pod, and nobody has to name a control group
            // after a container.
            let id = init(scene, suspect.first.pid, bundles).unwrap_or_else(|| shim.id.clone());
            let bundle = read_bundle(scene, bundles, &id);
            Some((id, bundle.unwrap_or_default()))
        })?;
    Some(container(scene, &shim.namespace, &id, bundle))
}

/// A container whose shim may not be looked at, in the usual place.
pub(super) fn workload(scene: &Scene, id: &str) -> Option<Workload> {
    scene.view.list(TASKS).into_iter().filter(|namespace| namespace != DOCKER).find_map(|space| {
        let bundle = read_bundle(scene, &format!("{TASKS}/{space}"), id)?;
        Some(container(scene, &space, id, bundle))
    })
}

fn read_bundle(scene: &Scene, bundles: &str, id: &str) -> Option<Bundle> {
    if id.is_empty() || id.contains('/') {
        return None;
    }
    bundle(&scene.view.read(&format!("{bundles}/{id}/config.json"), RECORD)?)
}

/// The container whose first process is `pid`, by the numbers in the bundles' `init.pid`.
fn init(scene: &Scene, pid: u32, bundles: &str) -> Option<String> {
    let mut known = scene.inits.borrow_mut();
    let inits = known.entry(bundles.to_owned()).or_insert_with(|| {
        let read = |id: String| {
            let text = scene.view.read(&format!("{bundles}/{id}/init.pid"), RECORD)?;
            Some((String::from_utf8_lossy(&text).trim().parse().ok()?, id))
        };
        scene.view.list(bundles).into_iter().filter_map(read).collect::<BTreeMap<u32, String>>()
    });
    // The engine counts in a namespace between ours and the container's own.
    let mut numbers = scene.numbers(pid);
    numbers.pop();
    let found = numbers.iter().rev().chain([&pid]).find_map(|pid| inits.get(pid));
    found.cloned()
}

fn container(scene: &Scene, namespace: &str, id: &str, bundle: Bundle) -> Workload {
    if namespace == CRI || cri::is_annotated(&bundle) {
        return cri::container(scene, id, bundle);
    }
    let mut workload = own(namespace, id, bundle);
    let attachments = scene.attachments(&format!("{namespace}-{id}"));
    if workload.networks.is_empty() {
        workload.networks = attachments.iter().map(|one| one.network.clone()).collect();
    }
    if workload.published.is_empty() {
        workload.published = attachments.into_iter().flat_map(|one| one.published).collect();
        workload.published.sort_unstable();
        workload.published.dedup();
    }
    workload
}

/// A container of `ctr` or nerdctl.
fn own(namespace: &str, id: &str, bundle: Bundle) -> Workload {
    let mut workload = oci::nameless(Runtime::Containerd, id);
    let told = |key: &str| bundle.annotations.get(key).filter(|word| !word.is_empty()).cloned();
    let list = |key: &str| -> Value {
        told(key).and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default()
    };
    // `ctr` has people choose ids, so they are names.
    let short = if super::cgroup::is_id(id) { workload.name.clone() } else { id.to_owned() };
    workload.name = told("nerdctl/name").unwrap_or(short);
    workload.image = told("nerdctl/image-ref").or_else(|| told("io.containerd.image.name"));
    let networks = list("nerdctl/networks");
    let networks = networks.as_array().into_iter().flatten().filter_map(Value::as_str);
    for network in networks {
        match network.strip_prefix("container:") {
            Some(other) => {
                workload.labels.insert(SHARES.to_owned(), other.to_owned());
            }
            None => workload.networks.push(network.to_owned()),
        }
    }
    workload.published = oci::ports(&list("nerdctl/ports"));
    workload.labels.extend(compose(&bundle.annotations));
    workload.labels.insert("namespace".to_owned(), namespace.to_owned());
    workload.netns_path = bundle.netns_path;
    workload
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nerdctl_annotates_what_it_knows() {
        let id = "5d".repeat(32);
        let annotations = [
            ("nerdctl/name", "web"),
            ("nerdctl/networks", r#"["bridge","container:db"]"#),
            (
                "nerdctl/ports",
                r#"[{"HostPort":80,"ContainerPort":80,"Protocol":"tcp","HostIP":"0.0.0.0"}]"#,
            ),
            ("com.docker.compose.project", "shop"),
        ];
        let pairs = annotations.map(|(key, word)| (key.to_owned(), word.to_owned()));
        let bundle = Bundle { annotations: pairs.into(), ..Bundle::default() };
        let found = own("default", &id, bundle);
        assert_eq!(
            (found.name.as_str(), found.networks.as_slice()),
            ("web", &["bridge".into()][..])
        );
        assert_eq!(found.published.len(), 1);
        let labels: Vec<_> = found.labels.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        let told = [("compose project", "shop"), ("namespace", "default"), ("network of", "db")];
        assert_eq!(labels, told);
    }
}
