//! Which namespaces a person means: by a container's name, the beginning of its id, its pod, a
//! process, an address, or the handle itself.

use crate::{
    map::shown,
    model::Netns,
    sight::{Sight, Space, Workload},
};

/// Returns the namespaces that `handle` may mean. One that is called so whole comes before all
/// that only begin so: a name is not hidden by somebody's id.
pub fn called<'a>(sight: &'a Sight, handle: &str) -> Vec<&'a Netns> {
    let is_whole =
        |w: &Workload| w.name == handle || w.id == handle || w.pod.as_deref() == Some(handle);
    let whole = |netns: &Netns, space: &Space| {
        netns.to_string() == handle || space.workloads.iter().any(is_whole)
    };
    let spaces = || sight.spaces.iter();
    let exact: Vec<&Netns> =
        spaces().filter(|(netns, space)| whole(netns, space)).map(|(netns, _)| netns).collect();
    if !exact.is_empty() {
        return exact;
    }
    let close = spaces().filter(|(netns, space)| sight.is_called(netns, space, handle));
    close.map(|(netns, _)| netns).collect()
}

/// Returns a line for people that tells a namespace from others called alike: who made what is in
/// it, its name and id, and the handle that every command takes.
pub fn candidate(sight: &Sight, netns: &Netns) -> String {
    let workloads = sight.spaces.get(netns).map(|space| space.workloads.as_slice());
    let told = |w: &Workload| {
        let id: String = w.id.chars().take(12).collect();
        match w.id == w.name {
            true => format!("{} {}", w.runtime, shown(&w.name)),
            false => format!("{} {} {}", w.runtime, shown(&w.name), shown(&id)),
        }
    };
    let told: Vec<String> = workloads.unwrap_or_default().iter().map(told).collect();
    format!("{}  {}", shown(&netns.to_string()), told.join(" + ")).trim_end().to_owned()
}
