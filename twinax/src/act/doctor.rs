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
    look::{Depth, look},
    place::{self, Need},
};

pub(super) fn doctor(command: &Doctor) -> Done {
    if command.list {
        match command.json {
            true => show(json::checks())?,
            false => tell(printed::list(style()))?,
        }
        return Ok(ExitCode::SUCCESS);
    }
    place::enter(Need::IfRunning)?;
    let sight = look(Depth { listeners: true, neighbours: true, inside: true });
    let report = examine(&sight, &command.asked).map_err(|handle| {
        let what = format!("nothing on this host is called {}", shown(&handle));
        Failed::told(what).hint("twinax map lists interfaces, containers and addresses")
    })?;
    match command.json {
        true => show(json::report(&report, &sight.unseen))?,
        false => tell(printed::text(&report, &sight.unseen, style()))?,
    }
    Ok(ExitCode::from(code(report.worst())))
}

/// Not among those that tell how a command failed: a script can tell "sick" from "no answer".
fn code(worst: Option<Severity>) -> u8 {
    match worst {
        None | Some(Severity::Note) => 0,
        Some(Severity::Warning) => 4,
        Some(Severity::Problem) => 5,
    }
}
