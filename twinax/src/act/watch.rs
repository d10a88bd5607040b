//! `map --watch`: on a terminal the map as it changes, elsewhere a line for each change.

use std::{
    io::{self, IsTerminal},
    process::ExitCode,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use twinax_core::{
    map::{rows, tree as map_tree},
    rate::Rates,
    sight::Sight,
    top::Key,
    watch::{self, Moment},
};

use super::{
    Done,
    failed::Failed,
    screen::{Desk, Screen},
    shown::style,
};
use crate::{
    front::{
        cli::{Map, Output},
        keys::Input,
        print::Style,
        tree, words,
    },
    live::{Ended, Live, Update},
    look::Depth,
    place::{self, Need},
};

pub(super) fn watch(asked: &Map) -> Done {
    place::enter(Need::IfRunning)?;
    let mut desk = Desk::open().map_err(Failed::output)?;
    let shows = asked.output == Output::Text && io::stdout().is_terminal();
    // A line for each change tells of no listeners.
    let depth = Depth { listeners: shows, ..Depth::MAP };
    let live = Live::start(depth, shows).map_err(Failed::output)?;
    let done = match shows {
        true => on_screen(asked, &mut desk, &live),
        false => in_lines(asked, &mut desk, &live),
    };
    match done {
        // Who closed standard output has read enough.
        Err(cause) if cause.kind() == io::ErrorKind::BrokenPipe => Ok(ExitCode::SUCCESS),
        Err(cause) => Err(Failed::output(cause)),
        Ok(()) => Ok(ExitCode::SUCCESS),
    }
}

/// Takes all updates that are there; returns whether there were any.
pub(super) fn take(live: &Live, mut each: impl FnMut(Update)) -> io::Result<bool> {
    let mut any = false;
    loop {
        match live.next() {
            Ok(Some(update)) => each(update),
            Ok(None) => return Ok(any),
            Err(Ended) => return Err(io::Error::other("the thread that looks has ended")),
        }
        any = true;
    }
}

fn on_screen(asked: &Map, desk: &mut Desk, live: &Live) -> io::Result<()> {
    let screen = Screen::enter(desk, false)?;
    let (mut sight, mut rates): (Option<Box<Sight>>, Rates) = Default::default();
    let colour = style().colour;
    loop {
        let news = desk.wait(live)?;
        let quits = |input: &Input| matches!(input, Input::Key(Key::Char('q') | Key::Interrupt));
        if news.end || news.inputs.iter().any(quits) {
            return Ok(());
        }
        let new = take(live, |update| match update {
            Update::Sight(seen) => sight = Some(seen),
            Update::Traffic(_, measured) => rates = measured,
        })?;
        let redraw = screen.heed(desk, &news)?;
        let Some(sight) = sight.as_ref().filter(|_| new || redraw) else { continue };
        let (width, height) = screen.size();
        let style = Style { width: Some(width.into()), colour };
        let (root, counts) = rows(sight, &asked.wanted, Some(&rates));
        let mut below = vec![String::new(), tree::counts(&counts)];
        below.extend(match sight.unseen.len() {
            0 => None,
            n => Some(format!("not seen: {n} (twinax map tells what)")),
        });
        let lines = tree::screenful(&root.into(), &below, height.into(), style);
        desk.write(drawn(&lines, redraw).as_bytes())?;
    }
}

/// Over what is there, so that nothing flickers: each line to its end, then all that is below.
fn drawn(lines: &[String], anew: bool) -> String {
    let mut text =
        String::from(if anew { "\x1b[?2026h\x1b[2J\x1b[H" } else { "\x1b[?2026h\x1b[H" });
    for (n, line) in lines.iter().enumerate() {
        text.push_str(if n == 0 { "" } else { "\r\n" });
        text.push_str(line);
        text.push_str("\x1b[K");
    }
    text.push_str("\x1b[J\x1b[?2026l");
    text
}

fn in_lines(asked: &Map, desk: &mut Desk, live: &Live) -> io::Result<()> {
    let json = asked.output == Output::Json;
    let mut before: Option<Moment> = None;
    loop {
        let mut failed = None;
        take(live, |update| {
            let Update::Sight(after) = update else { return };
            let moment = Moment::of(&after, &asked.wanted);
            let told = match &before {
                None => start(asked, json, &after),
                Some(before) => told(json, before, &moment),
            };
            failed =
                failed.take().or_else(|| told.and_then(|text| desk.write(text.as_bytes())).err());
            before = Some(moment);
        })?;
        if let Some(error) = failed {
            return Err(error);
        }
        if desk.wait(live)?.end {
            return Ok(());
        }
    }
}

fn time() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO)
}

/// What there is to say of the first look.
fn start(asked: &Map, json: bool, sight: &Sight) -> io::Result<String> {
    let (_, counts) = map_tree(sight, &asked.wanted);
    match json {
        true => words::start_json(&counts, time()).map_err(io::Error::from),
        false => Ok(words::start(&counts, time())),
    }
}

/// What there is to say of a look, after the one before it.
fn told(json: bool, before: &Moment, after: &Moment) -> io::Result<String> {
    let (changes, time) = (watch::told(before, after), time());
    let lines = changes.iter().map(|change| match json {
        true => words::change_json(change, time).map_err(io::Error::from),
        false => Ok(words::change(change, time)),
    });
    lines.collect()
}
