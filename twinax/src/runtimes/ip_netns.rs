//! `ip netns`: namespaces mounted on names in `/run/netns`, with or without processes.

use twinax_core::sight::Inode;

use super::view::View;

/// Returns the names that stand for a namespace. Engines put theirs here too.
pub(super) fn names(view: &View) -> Vec<(String, Inode)> {
    let names = view.list("/run/netns").into_iter();
    let inode = |name: String| Some((view.namespace(&format!("/run/netns/{name}"))?, name));
    names.filter_map(inode).map(|(inode, name)| (name, inode)).collect()
}
