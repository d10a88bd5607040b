//! What a watch tells of what changed between two looks at a host: of that only which was asked
//! for, as [`crate::changes`] has it.

use std::collections::BTreeSet;

use crate::{
    changes::{Change, Kind, changes},
    map::{View, Wanted},
    model::Netns,
    sight::Sight,
    snapshot::{Snapshot, Taken},
};

/// A look, as it is compared with the next one.
#[derive(Clone, Debug)]
pub struct Moment {
    snapshot: Snapshot,
    /// The namespaces that were asked for, by their handles.
    visible: BTreeSet<String>,
    /// Those of them that are worth a row.
    worth: BTreeSet<String>,
    /// Names of the containers that were asked for and have no namespace of their own to be seen.
    guests: BTreeSet<String>,
}

impl Moment {
    pub fn of(sight: &Sight, wanted: &Wanted) -> Self {
        let view = View::of(sight, wanted);
        let visible = || sight.spaces.keys().filter(|netns| view.is_visible(netns));
        let worth = visible().filter(|netns| **netns != Netns::Host && view.is_shown(netns));
        let guests = view.guests.iter().chain(&view.unplaced);
        Self {
            visible: visible().map(Netns::to_string).collect(),
            worth: worth.map(Netns::to_string).collect(),
            guests: guests.map(|workload| workload.name.clone()).collect(),
            snapshot: Snapshot::of(sight, Taken::default()),
        }
    }

    fn has(&self, change: &Change) -> bool {
        let is_in = |handles: &BTreeSet<String>, handle: &Option<String>| {
            handle.as_ref().is_some_and(|handle| handles.contains(handle))
        };
        let of_space = matches!(change.kind, Kind::Container | Kind::Namespace);
        let on_host = change.namespace.as_deref().is_none_or(|handle| handle == "host");
        match (change.place.is_empty() && change.interface.is_none(), of_space) {
            (true, _) if on_host => change.containers.iter().any(|name| self.guests.contains(name)),
            (_, true) => is_in(&self.worth, &change.namespace),
            _ => is_in(&self.visible, &change.namespace) || is_in(&self.visible, &change.beside),
        }
    }
}

/// Returns what is other in `after` than in `before` of what was asked for. What happens all the
/// time goes unsaid: who holds a namespace, who listens, and what becomes of loopbacks.
pub fn told(before: &Moment, after: &Moment) -> Vec<Change> {
    let unsaid = |change: &Change| {
        matches!(change.kind, Kind::Holder | Kind::Listener)
            || change.interface.as_deref() == Some("lo")
    };
    let mut told = changes(&before.snapshot, &after.snapshot);
    told.retain(|change| !unsaid(change) && (before.has(change) || after.has(change)));
    told
}
