//! systemd-nspawn: what machined registered in `/run/systemd/machines`, or nspawn's own
//! arguments.

use std::collections::BTreeMap;

use twinax_core::sight::{Runtime, Workload};

use super::{
    Suspect, oci,
    scene::{Scene, option},
    view::RECORD,
};

const MACHINES: &str = "/run/systemd/machines";

/// Reads the machine's registration, found by its name or by its first process.
pub(super) fn workload(
    scene: &Scene,
    suspect: &Suspect,
    args: Option<&[String]>,
) -> Option<Workload> {
    let claimed = suspect.claim.as_ref().map(|claim| claim.id.clone());
    let name = args.and_then(name).or(claimed);
    let file = |name: &str| scene.view.read(&format!("{MACHINES}/{name}"), RECORD);
    let registered = name.as_deref().and_then(file).or_else(|| {
        // Unit files link here by their names: those are the same machines again.
        let names = scene.view.list(MACHINES).into_iter().filter(|name| !name.starts_with("unit:"));
        let mut files = names.filter_map(|name| file(&name));
        let leads = |pairs: &BTreeMap<String, String>| {
            let leader = pairs.get("LEADER").and_then(|pid| pid.parse().ok());
            leader.is_some_and(|pid: u32| suspect.pids.contains(&pid))
        };
        files.find(|bytes| leads(&assignments(&String::from_utf8_lossy(bytes))))
    });
    let pairs = registered.map(|bytes| assignments(&String::from_utf8_lossy(&bytes)));
    let mut pairs = pairs.unwrap_or_default();
    if pairs.get("CLASS").is_some_and(|class| class != "container") {
        return None; // A virtual machine's processes are in no namespace of its own.
    }
    let name = pairs.remove("NAME").or(name)?;
    let mut workload = oci::nameless(Runtime::Nspawn, &name);
    workload.name = name;
    workload.image = pairs.remove("ROOT");
    let zone = args.and_then(|args| {
        let bridge = option(args, &["--network-bridge"]);
        bridge.or_else(|| Some(format!("vz-{}", option(args, &["--network-zone"])?)))
    });
    workload.networks = zone.into_iter().collect();
    Some(workload)
}

/// The name that nspawn was given, or makes of its directory or image.
fn name(args: &[String]) -> Option<String> {
    // Short options take their word at once, too.
    let short = |letter: &str| {
        let glued = |arg: &&String| arg.starts_with(letter) && arg.len() > 2;
        args.iter().find(glued).map(|arg| arg[2..].to_owned())
    };
    let told = option(args, &["--machine", "-M"]).or_else(|| short("-M"));
    told.or_else(|| {
        let root = option(args, &["--directory", "-D", "--image", "-i"]).or_else(|| short("-D"))?;
        let name = root.trim_end_matches('/').rsplit('/').next()?;
        Some(name.trim_end_matches(".raw").to_owned()).filter(|name| !name.is_empty())
    })
}

/// Reads lines of `KEY=value`, quoted or not.
fn assignments(text: &str) -> BTreeMap<String, String> {
    let pairs = text.lines().filter(|line| !line.starts_with('#'));
    let pairs = pairs.filter_map(|line| line.split_once('='));
    pairs.map(|(key, value)| (key.to_owned(), value.trim_matches('"').to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machines_name_is_found_in_every_spelling() {
        for (line, want) in [
            ("systemd-nspawn --machine=box -D /srv/x", Some("box")),
            ("systemd-nspawn -M box", Some("box")),
            ("systemd-nspawn -Mbox", Some("box")),
            ("systemd-nspawn -D /srv/box/", Some("box")),
            ("systemd-nspawn --image=/srv/box.raw", Some("box")),
            ("systemd-nspawn", None),
            ("systemd-nspawn -D /", None),
        ] {
            let args: Vec<String> = line.split(' ').map(str::to_owned).collect();
            assert_eq!(name(&args).as_deref(), want, "{line}");
        }
        let pairs = assignments("# x\nNAME=box\nROOT=\"/srv/my box\"\nLEADER=12\nodd\n");
        assert_eq!(pairs.get("ROOT").map(String::as_str), Some("/srv/my box"));
        assert_eq!(pairs.len(), 3);
    }
}
