//! `doctor`: looks at everything, has it judged, and prints what was found. Only reads.

use std::process::ExitCode;

use twinax_core::{
    doctor::{Severity, examine},
    map::shown,
};

use super::{
    Done,
    failed::Failed,
    shown::{show, style, tell},
};
use crate::{
    front::{cli::Doctor, doctor as printed, json},
    holder,
    linux::interior,
    look::{Depth, look_inside},
    place::{self, Need},
};

/// What checks need to know of each namespace.
const WITHIN: interior::Wanted = interior::Wanted {
    attached: false,
    switches: Some(interior::Switches::Judged),
    ..interior::Wanted::ALL
};

pub(super) fn doctor(command: &Doctor) -> Done {
    if command.list {
        match command.json {
            true => show(json::checks())?,
            false => tell(printed::list(style()))?,
        }
        return Ok(ExitCode::SUCCESS);
    }
    let place = place::enter(Need::IfRunning)?;
    let depth = Depth { listeners: true, neighbours: true, every_holder: true, ..Depth::default() };
    let sight = look_inside(depth, WITHIN, |sight| sight.spaces.keys().cloned().collect());
    let mut report = examine(&sight, &command.asked).map_err(|handle| {
        let what = format!("nothing on this host is called {}", shown(&handle));
        Failed::told(what).hint("twinax map lists interfaces, containers and addresses")
    })?;
    let holder = place.user.filter(|_| place.live).and_then(|user| holder::find(&user));
    if let Some(holder) = holder {
        report.lead_through(holder.pid);
    }
    match command.json {
        true => show(json::report(&report, &sight.unseen))?,
        false => tell(printed::text(&report, &sight.unseen, style()))?,
    }
    Ok(ExitCode::from(match code(report.worst()) {
        // Nothing was found where nothing was seen.
        0 if !report.unread.is_empty() => 3,
        code => code,
    }))
}

/// Not among those that tell how a command failed: a script can tell "sick" from "no answer".
fn code(worst: Option<Severity>) -> u8 {
    match worst {
        None | Some(Severity::Note) => 0,
        Some(Severity::Warning) => 4,
        Some(Severity::Problem) => 5,
    }
}
