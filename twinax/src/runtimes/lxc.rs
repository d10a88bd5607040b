//! LXC, and LXD and Incus above it: a name in the control group or the monitor's title, and
//! `LXCPATH/NAME/config`.

use twinax_core::sight::{Runtime, Workload};

use super::{oci, scene::Scene, view::RECORD};

/// Where containers are if no monitor tells; Incus and LXD keep what they hand to LXC in `/run`
/// or their log directory.
const CONFIGS: [&str; 4] = [
    "/var/lib/lxc/NAME/config",
    "/run/incus/NAME/lxc.conf",
    "/var/log/incus/NAME/lxc.conf",
    "/var/log/lxd/NAME/lxc.conf",
];

/// Reads the container's configuration, if it is there; its name is enough otherwise.
pub(super) fn workload(scene: &Scene, name: &str, path: Option<&String>) -> Workload {
    let mut workload = oci::nameless(Runtime::Lxc, name);
    name.clone_into(&mut workload.name);
    let told = path.map(|path| format!("{path}/NAME/config"));
    let engine = ["incus", "lxd"]
        .into_iter()
        .find(|engine| path.is_some_and(|path| path.contains(&format!("/{engine}/"))));
    if let Some(engine) = engine {
        workload.labels.insert("engine".to_owned(), engine.to_owned());
    }
    if name.contains('/') {
        return workload; // LXC allows none: this is somebody's idea of a path.
    }
    let files = told.into_iter().chain(CONFIGS.map(str::to_owned));
    let config = files.map(|file| file.replace("NAME", name));
    let config = config.into_iter().find_map(|file| scene.view.read(&file, RECORD));
    if let Some(config) = config {
        workload.networks = networks(&String::from_utf8_lossy(&config));
    }
    workload
}

/// The bridges and devices that a configuration's interfaces are linked to. A device that is
/// moved in whole is no network: Incus makes its cables itself and hands over an end.
fn networks(config: &str) -> Vec<String> {
    let pairs: Vec<(&str, &str)> = config
        .lines()
        .filter_map(|line| line.trim().split_once('='))
        .map(|(key, value)| (key.trim(), value.trim()))
        .collect();
    let moved = |prefix: &str| {
        pairs.iter().any(|(key, value)| *value == "phys" && *key == format!("{prefix}.type"))
    };
    let links = pairs.iter().filter_map(|(key, value)| {
        let prefix = key.strip_suffix(".link")?;
        let is_one = prefix == "lxc.network" || prefix.starts_with("lxc.net.");
        (is_one && !value.is_empty() && !moved(prefix)).then(|| (*value).to_owned())
    });
    links.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_names_its_bridges() {
        let config = "# lxc.net.9.link = no\nlxc.net.0.type = veth\nlxc.net.0.link = lxcbr0\n\
            lxc.net.1.link=br-x\nlxc.network.link = old0\nlxc.net.2.link =\n\
            lxc.net.3.type = phys\nlxc.net.3.link = vethab\n";
        assert_eq!(networks(config), ["lxcbr0", "br-x", "old0"]);
    }
}
