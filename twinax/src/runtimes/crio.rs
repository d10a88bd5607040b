//! CRI-O: conmon's bundles, as Podman's, with annotations that say it is not Podman.

use serde_json::Value;
use twinax_core::sight::{Runtime, Workload};

use super::{
    ROLE,
    oci::{self, Bundle, bundle},
    scene::{Conmon, Scene},
    view::RECORD,
};

/// Where bundles are if no conmon tells.
const BUNDLES: &str = "/run/containers/storage/overlay-containers";

/// A container whose conmon is there, if it is CRI-O's.
pub(super) fn monitored(scene: &Scene, conmon: &Conmon) -> Option<Workload> {
    read(scene, &conmon.id, conmon.bundle.as_deref()?)
}

/// A container whose conmon is gone, in the usual place.
pub(super) fn workload(scene: &Scene, id: &str) -> Option<Workload> {
    read(scene, id, &format!("{BUNDLES}/{id}/userdata"))
}

fn read(scene: &Scene, id: &str, folder: &str) -> Option<Workload> {
    let bundle = bundle(&scene.view.read(&format!("{folder}/config.json"), RECORD)?)?;
    let sandbox = told(&bundle, "io.kubernetes.cri-o.SandboxID");
    let mut workload = container(id, bundle)?;
    let attachments = scene.attachments(sandbox.as_deref().unwrap_or(id));
    workload.networks = attachments.into_iter().map(|one| one.network).collect();
    Some(workload)
}

/// Reads the annotations; `None` if they are not CRI-O's.
fn container(id: &str, bundle: Bundle) -> Option<Workload> {
    // Podman uses some of the same words.
    let is_ours = match told(&bundle, "io.container.manager") {
        Some(manager) => manager == "cri-o",
        None => told(&bundle, "io.kubernetes.cri-o.Name").is_some(),
    };
    if !is_ours {
        return None;
    }
    let mut workload = oci::nameless(Runtime::CriO, id);
    let pod = told(&bundle, "io.kubernetes.pod.name");
    if let (Some(space), Some(pod)) = (told(&bundle, "io.kubernetes.pod.namespace"), &pod) {
        workload.pod = Some(format!("{space}/{pod}"));
    }
    if told(&bundle, "io.kubernetes.cri-o.ContainerType").as_deref() == Some("sandbox") {
        workload.labels.insert(ROLE.to_owned(), "sandbox".to_owned());
        workload.name = pod.unwrap_or(workload.name);
    } else {
        workload.name = told(&bundle, "io.kubernetes.container.name").unwrap_or(workload.name);
    }
    let image = ["io.kubernetes.cri-o.ImageName", "io.kubernetes.cri-o.Image"];
    workload.image = image.iter().find_map(|key| told(&bundle, key));
    let ports = told(&bundle, "io.kubernetes.cri-o.PortMappings");
    let ports = ports.and_then(|text| serde_json::from_str::<Value>(&text).ok());
    workload.published = ports.as_ref().map(oci::ports).unwrap_or_default();
    workload.netns_path = bundle.netns_path;
    Some(workload)
}

fn told(bundle: &Bundle, key: &str) -> Option<String> {
    bundle.annotations.get(key).filter(|word| !word.is_empty()).cloned()
}
