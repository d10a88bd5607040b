//! `inspect`: everything that is known of one thing. Only reads.

use std::process::ExitCode;

use twinax_core::{
    handle::{choices, meanings, near, title},
    inspect::{Detail, inspect as sections, needed},
    map::shown,
    sight::Sight,
};

use super::{
    Done,
    failed::Failed,
    shown::{show, style, tell},
};
use crate::{
    front::{json, tree},
    linux::interior,
    look::{Depth, look_inside},
    place::{self, Need},
};

pub(super) fn inspect(handle: &str, rules: bool, as_json: bool) -> Done {
    place::enter(Need::IfRunning)?;
    let depth = Depth { listeners: true, neighbours: true, every_holder: true, ..Depth::default() };
    let inside = interior::Wanted { flows: false, ..interior::Wanted::ALL };
    let sight = look_inside(depth, inside, |sight| needed(sight, &meanings(sight, handle)));
    let found = meanings(&sight, handle);
    if found.is_empty() {
        return Err(unknown(&sight, handle));
    }
    if as_json {
        show(json::inspected(&sight, &found))?;
        return Ok(ExitCode::SUCCESS);
    }
    match found.as_slice() {
        [one] => {
            let sections = sections(&sight, one, Detail { rules });
            let mut text = format!("{}\n", title(&sight, one));
            text.extend(sections.iter().map(|section| tree::text(section, style())));
            tell(text)?;
        }
        many => {
            let choices = choices(&sight, "inspect", many);
            tell(format!("{} may mean {} things:\n{choices}", shown(handle), many.len()))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The refusal of a handle that means several things, where it has to be one.
pub(super) fn several(handle: &str, many: usize, choices: &str) -> Failed {
    let what = format!("{handle} may mean {many} things");
    Failed::told(what).hint(&format!("say which:\n{}", choices.trim_end()))
}

/// The refusal of a handle that means nothing, with the names that come near.
pub(super) fn unknown(sight: &Sight, handle: &str) -> Failed {
    let what = format!("nothing on this host is called {}", shown(handle));
    let near: Vec<String> = near(sight, handle).iter().map(|name| shown(name)).collect();
    let hint = match near.is_empty() {
        true => "twinax map lists interfaces, containers and addresses".to_owned(),
        false => format!("did you mean {}? (twinax map lists all there is)", near.join(", ")),
    };
    Failed::told(what).hint(&hint)
}
