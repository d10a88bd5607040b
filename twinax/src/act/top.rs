//! `top`: reads keys and updates, and sends to the terminal what of the picture has changed.

use std::{
    io::{self, IsTerminal},
    process::ExitCode,
};

use ratatui_core::{buffer::Buffer, layout::Rect};
use twinax_core::{
    map::Wanted,
    top::{Outcome, Top},
};

use super::{
    Done,
    failed::Failed,
    screen::{Desk, Screen},
    shown::style,
    watch::take,
};
use crate::{
    front::top::{Places, ansi, draw},
    live::{Live, Update},
    look::Depth,
    place::{self, Need},
};

pub(super) fn top(wanted: Wanted) -> Done {
    if !io::stdin().is_terminal() || !io::stdout().is_terminal() {
        let what = "twinax top is used at a terminal, and standard input or output is none";
        return Err(Failed::told(what).hint("twinax map --watch prints a line for each change"));
    }
    place::enter(Need::IfRunning)?;
    let mut desk = Desk::open().map_err(Failed::output)?;
    let live = Live::start(Depth::MAP, true);
    let live = live.map_err(Failed::output)?;
    let done = show(Top::new(wanted), &mut desk, &live);
    match done {
        // A signal, while the terminal took nothing.
        Err(cause) if cause.kind() == io::ErrorKind::BrokenPipe => Ok(ExitCode::SUCCESS),
        done => done.map(|()| ExitCode::SUCCESS).map_err(Failed::output),
    }
}

fn show(mut top: Top, desk: &mut Desk, live: &Live) -> io::Result<()> {
    let screen = Screen::enter(desk, true)?;
    let colour = style().colour;
    let area = |(width, height)| Rect::new(0, 0, width, height);
    let mut shown = Buffer::empty(area(screen.size()));
    loop {
        let mut next = Buffer::empty(shown.area);
        draw(&mut top, &mut next, colour);
        let difference = ansi(&shown, &next);
        shown = next;
        desk.write(difference.as_bytes())?;
        let news = desk.wait(live)?;
        if news.end {
            return Ok(());
        }
        take(live, |update| match update {
            Update::Sight(sight) => top.see(*sight),
            Update::Traffic(counters, rates) => top.measure(&counters, rates),
        })?;
        let places = Places::of(shown.area);
        for input in &news.inputs {
            let Some(key) = places.key(*input) else { continue };
            if top.press(key) == Outcome::Quit {
                return Ok(());
            }
        }
        if screen.heed(desk, &news)? {
            shown = Buffer::empty(area(screen.size()));
            desk.write(b"\x1b[2J")?;
        }
    }
}
