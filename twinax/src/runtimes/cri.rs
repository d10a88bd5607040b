//! Pods of Kubernetes by containerd's CRI plugin: it annotates each bundle with pod and role.

use twinax_core::sight::{Runtime, Workload};

use super::{
    ROLE,
    oci::{self, Bundle},
    scene::Scene,
};

const PREFIX: &str = "io.kubernetes.cri.";

/// Whether the CRI plugin made a bundle, in whichever namespace.
pub(super) fn is_annotated(bundle: &Bundle) -> bool {
    bundle.annotations.contains_key("io.kubernetes.cri.container-type")
}

/// A pod's sandbox, or a container in it. What CNI did was done for the sandbox.
pub(super) fn container(scene: &Scene, id: &str, bundle: Bundle) -> Workload {
    let sandbox = bundle.annotations.get("io.kubernetes.cri.sandbox-id").cloned();
    let mut workload = described(id, bundle);
    for one in scene.attachments(sandbox.as_deref().unwrap_or(id)) {
        workload.networks.push(one.network);
        // A port is the pod's; which of its containers serves it is on no record.
        if workload.labels.contains_key(ROLE) {
            workload.published.extend(one.published);
        }
    }
    workload.published.sort_unstable();
    workload.published.dedup();
    workload
}

fn described(id: &str, bundle: Bundle) -> Workload {
    let mut workload = oci::nameless(Runtime::Cri, id);
    let told = |key: &str| bundle.annotations.get(&format!("{PREFIX}{key}")).cloned();
    let pod = told("sandbox-name");
    if let (Some(namespace), Some(pod)) = (told("sandbox-namespace"), &pod) {
        workload.pod = Some(format!("{namespace}/{pod}"));
    }
    workload.image = told("image-name");
    if told("container-type").as_deref() == Some("sandbox") {
        workload.labels.insert(ROLE.to_owned(), "sandbox".to_owned());
        workload.name = pod.unwrap_or(workload.name);
    } else {
        workload.name = told("container-name").unwrap_or(workload.name);
    }
    workload.netns_path = bundle.netns_path;
    workload
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bundle(pairs: &[(&str, &str)]) -> Bundle {
        let pairs = pairs.iter().map(|(key, word)| (format!("{PREFIX}{key}"), (*word).to_owned()));
        Bundle { annotations: pairs.collect(), ..Bundle::default() }
    }

    #[test]
    fn a_pods_sandbox_is_told_from_its_containers() {
        let pod = [("sandbox-name", "web-1"), ("sandbox-namespace", "shop")];
        let pause = bundle(&[&pod[..], &[("container-type", "sandbox")]].concat());
        assert!(is_annotated(&pause) && !is_annotated(&Bundle::default()));
        let found = described("ab", pause);
        assert_eq!((found.name.as_str(), found.pod.as_deref()), ("web-1", Some("shop/web-1")));
        assert_eq!(found.labels.get(ROLE).map(String::as_str), Some("sandbox"));
        let more = [("container-type", "container"), ("container-name", "nginx")];
        let found =
            described("cd", bundle(&[&pod[..], &more, &[("image-name", "nginx:1")]].concat()));
        assert_eq!((found.name.as_str(), found.pod.as_deref()), ("nginx", Some("shop/web-1")));
        assert_eq!((found.image.as_deref(), found.labels.len()), (Some("nginx:1"), 0));
    }
}
