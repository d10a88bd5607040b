//! `map` and `peer`: what is there, whoever made it. Only reads.

use std::process::ExitCode;

use twinax_core::{
    draw::{Scene, dot::dot, html::html, mermaid::mermaid, svg::svg},
    map::{shown, tree as map_tree},
    peer,
};

use super::{
    Done,
    failed::Failed,
    shown::{show, style, tell},
};
use crate::{
    front::{
        cli::{Map, Output},
        json, tree,
    },
    look::{Depth, look, look_along},
    place::{self, Need},
};

pub(super) fn map(asked: &Map) -> Done {
    // An ordinary user's containers are in the namespaces of a holder, and can be seen from there.
    place::enter(Need::IfRunning)?;
    let sight = look(Depth { listeners: true, every_holder: true, ..Depth::default() });
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
    // What is on record of the host's own namespace takes a look at everything.
    let along = if json { None } else { look_along(handle) };
    let sight = along.unwrap_or_else(|| look(Depth::default()));
    let cables = peer::find(&sight, handle);
    if json {
        show(json::peers(&sight, &cables))?;
    }
    match cables.as_slice() {
        [] => {
            let what = format!("nothing on this host that has a cable is called {}", shown(handle));
            let hint = "twinax map lists interfaces, containers and addresses";
            return Err(Failed::told(what).hint(hint));
        }
        _ if json => {}
        [cable] => {
            let rows = peer::about(&sight, cable);
            tell(tree::rows(&rows, style()))?;
        }
        many => {
            let rows: Vec<_> = many.iter().map(|cable| peer::line(&sight, cable)).collect();
            tell(format!("{} may mean {} cables:\n", shown(handle), many.len()))?;
            tell(tree::rows(&rows, style()))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
