//! What a terminal sends when keys are pressed or a mouse is used, as xterm and those like it have
//! it (ECMA-48; xterm's "SGR" mouse reports).

use twinax_core::top::Key;

/// What a person does at a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    Key(Key),
    /// The left button was pressed, at this column and line, counted from 0.
    Press(u16, u16),
    /// The wheel was turned there: down, or up if below zero.
    Wheel(u16, u16, isize),
    /// Ctrl-L: draw everything anew.
    Redraw,
    /// Ctrl-Z: let the shell have the terminal for a while.
    Suspend,
}

const ESCAPE: u8 = 0x1b;
/// No sequence that means anything to us is longer.
const LONGEST: usize = 32;

/// Reads what has come; returns it, and how many bytes it was. What is left may be the beginning
/// of something: with `last` nothing more comes, and it stands for itself.
pub fn read(bytes: &[u8], last: bool) -> (Vec<Input>, usize) {
    let (mut inputs, mut at) = (Vec::new(), 0);
    while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
        let Some((input, length)) = one(rest, last) else { break };
        inputs.extend(input);
        at += length;
    }
    (inputs, at)
}

/// One input, if it means anything, and its length; `None` where more has to come.
fn one(bytes: &[u8], last: bool) -> Option<(Option<Input>, usize)> {
    let key = |key| Some((Some(Input::Key(key)), 1));
    match *bytes.first()? {
        ESCAPE => sequence(bytes, last),
        b'\r' | b'\n' => key(Key::Enter),
        0x08 | 0x7f => key(Key::Backspace),
        0x03 => key(Key::Interrupt),
        0x0c => Some((Some(Input::Redraw), 1)),
        0x1a => Some((Some(Input::Suspend), 1)),
        0..0x20 => Some((None, 1)),
        first => {
            let length = match first {
                0..0x80 => 1,
                0xc0..0xe0 => 2,
                0xe0..0xf0 => 3,
                0xf0..=0xff => 4,
                _ => return Some((None, 1)),
            };
            let Some(whole) = bytes.get(..length) else {
                return last.then_some((None, bytes.len()));
            };
            let c = std::str::from_utf8(whole).ok().and_then(|text| text.chars().next());
            // What is no character is passed a byte at a time.
            let length = if c.is_some() { length } else { 1 };
            let c = c.filter(|c| !c.is_control());
            Some((c.map(|c| Input::Key(Key::Char(c))), length))
        }
    }
}

fn sequence(bytes: &[u8], last: bool) -> Option<(Option<Input>, usize)> {
    let escape = Some((Some(Input::Key(Key::Escape)), 1));
    match bytes.get(1) {
        None => escape.filter(|_| last),
        Some(b'O') => match bytes.get(2) {
            Some(name) => Some((named(*name).map(Input::Key), 3)),
            None => last.then_some((None, 2)),
        },
        Some(b'[') => {
            let end = bytes[2..].iter().position(|byte| matches!(byte, 0x40..=0x7e));
            match end {
                Some(end) => Some((control(&bytes[2..2 + end], bytes[2 + end]), end + 3)),
                None if last || bytes.len() > LONGEST => Some((None, bytes.len())),
                None => None,
            }
        }
        // Escape, and then something else.
        Some(_) => escape,
    }
}

fn named(name: u8) -> Option<Key> {
    Some(match name {
        b'A' => Key::Up,
        b'B' => Key::Down,
        b'C' => Key::Right,
        b'D' => Key::Left,
        b'H' => Key::Home,
        b'F' => Key::End,
        b'M' => Key::Enter,
        _ => return None,
    })
}

fn control(parameters: &[u8], name: u8) -> Option<Input> {
    let text = std::str::from_utf8(parameters).ok()?;
    if let Some(mouse) = text.strip_prefix('<') {
        return self::mouse(mouse, name);
    }
    let number = text.split(';').next().and_then(|first| first.parse::<u32>().ok());
    let key = match (name, number) {
        (b'~', Some(1 | 7)) => Key::Home,
        (b'~', Some(4 | 8)) => Key::End,
        (b'~', Some(5)) => Key::PageUp,
        (b'~', Some(6)) => Key::PageDown,
        (b'~', _) => return None,
        (name, _) => named(name)?,
    };
    Some(Input::Key(key))
}

fn mouse(text: &str, name: u8) -> Option<Input> {
    const WHEEL: isize = 3;
    let mut numbers = text.split(';').map(|number| number.parse::<u16>().ok());
    let (button, x, y) = (numbers.next()??, numbers.next()??, numbers.next()??);
    let (x, y) = (x.saturating_sub(1), y.saturating_sub(1));
    match (button, name) {
        (0, b'M') => Some(Input::Press(x, y)),
        (64, b'M') => Some(Input::Wheel(x, y, -WHEEL)),
        (65, b'M') => Some(Input::Wheel(x, y, WHEEL)),
        _ => None,
    }
}
