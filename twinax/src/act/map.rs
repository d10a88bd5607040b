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
    look::{Depth, look, look_along, look_inside},
    place::{self, Need},
};

pub(super) fn map(asked: &Map) -> Done {
    // An ordinary user's containers are in the namespaces of a holder, and can be seen from there.
    place::enter(Need::IfRunning)?;
    let sight = look(Depth::MAP);
    if let Some(unmatched) = asked.wanted.unmatched(&sight) {
        let hint = match sight.unseen.is_empty() {
            true => "twinax map lists all there is",
            false => "twinax map lists all there is, and what could not be seen",
        };
        return Err(Failed::told(unmatched.to_string()).hint(hint));
    }
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
            let last = tree::counts(&counts) + &tree::unseen(&sight.unseen);
            tell(tree::text(&root, style) + &tree::clipped(&last, style))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) fn peer(handle: &str, json: bool) -> Done {
    place::enter(Need::IfRunning)?;
    let inside = interior::Wanted { attached: true, ..interior::Wanted::default() };
    // What is on record of the host's own namespace takes a look at everything.
    let along = if json { None } else { look_along(handle, inside) };
    let sight =
        along.unwrap_or_else(|| look_inside(Depth::default(), inside, |sight| ends(sight, handle)));
    let cables = peer::find(&sight, handle);
    let others = peer::without_cable(&sight, handle);
    if json {
        show(json::peers(&sight, &cables, &others))?;
    }
    match (cables.as_slice(), others.as_slice()) {
        ([], []) if meanings(&sight, handle).is_empty() => return Err(unknown(&sight, handle)),
        ([], []) => {
            if let Some(why) = peer::unread(&sight, handle) {
                let what =
                    format!("the links of {} cannot be seen: {}", shown(handle), shown(&why));
                return Err(Failed::told(what).hint("this may take root, or who made it"));
            }
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
