//! `map` and `peer`: what is there, whoever made it. Only reads.

use std::{collections::BTreeSet, process::ExitCode};

use twinax_core::{
    draw::{Scene, dot::dot, html::html, mermaid::mermaid, svg::svg},
    handle::meanings,
    map::{shown, tree as map_tree},
    model::Netns,
    peer,
    sight::Sight,
};

use super::{
    Done,
    failed::Failed,
    inspect::unknown,
    shown::{show, style, tell},
};
use crate::{
    front::{
        cli::{Map, Output},
        json, tree,
    },
    linux::interior,
    look::{Depth, look_inside},
    place::{self, Need},
};

pub(super) fn map(asked: &Map) -> Done {
    // An ordinary user's containers are in the namespaces of a holder, and can be seen from there.
    place::enter(Need::IfRunning)?;
    let depth = Depth { listeners: true, ..Depth::default() };
    let inside = interior::Wanted { firewall: true, ..interior::Wanted::default() };
    let mut sight = look_inside(depth, inside, engines);
    sight.unseen.extend(sight.interiors.values().flat_map(|inside| inside.unseen.iter().cloned()));
    let scene = || Scene::of(&sight, &asked.wanted);
    match asked.output {
        Output::Json => show(json::sight(&sight))?,
        Output::Svg => tell(svg(&scene()))?,
        Output::Html => tell(html(&scene(), &sight))?,
        Output::Dot => tell(dot(&scene()))?,
        Output::Mermaid => tell(mermaid(&scene()))?,
        Output::Text => {
            let (root, counts) = map_tree(&sight, &asked.wanted);
            let style = style();
            tell(tree::text(&root, style) + &tree::counts(&counts) + &tree::unseen(&sight.unseen))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) fn peer(handle: &str, json: bool) -> Done {
    place::enter(Need::IfRunning)?;
    let inside = interior::Wanted { attached: true, ..interior::Wanted::default() };
    let sight = look_inside(Depth::default(), inside, |sight| ends(sight, handle));
    let cables = peer::find(&sight, handle);
    let others = peer::without_cable(&sight, handle);
    if json {
        show(json::peers(&sight, &cables, &others))?;
    }
    match (cables.as_slice(), others.as_slice()) {
        ([], []) if meanings(&sight, handle).is_empty() => return Err(unknown(&sight, handle)),
        ([], []) => {
            let what =
                format!("{} has no cable, and no other link but its loopback", shown(handle));
            return Err(Failed::told(what).hint("twinax inspect tells what else there is of it"));
        }
        _ if json => {}
        ([cable], []) => tell(tree::rows(&peer::about(&sight, cable, handle), style()))?,
        ([], [link]) => tell(tree::rows(&peer::uncabled(&sight, link), style()))?,
        (cables, others) => {
            let mut rows: Vec<_> = cables.iter().map(|cable| peer::line(&sight, cable)).collect();
            rows.extend(others.iter().map(|id| peer::line_without(&sight, id)));
            let what = if others.is_empty() { "cables" } else { "links" };
            tell(format!("{} may mean {} {what}:\n", shown(handle), rows.len()))?;
            tell(tree::rows(&rows, style()))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The namespaces that a handle's cables are in.
fn ends(sight: &Sight, handle: &str) -> BTreeSet<Netns> {
    let cables = peer::find(sight, handle);
    let ends = cables.iter().flat_map(|cable| [Some(cable.near), cable.far]).flatten();
    ends.chain(peer::without_cable(sight, handle)).map(|id| id.netns.clone()).collect()
}

/// Where published ports are led from: the host, and engines in containers.
fn engines(sight: &Sight) -> BTreeSet<Netns> {
    let bridges = sight.links.iter().filter(|(_, facts)| facts.kind == "bridge");
    bridges.map(|(id, _)| id.netns.clone()).chain([Netns::Host]).collect()
}
