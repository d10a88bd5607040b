//! `twinax top` on the screen: a tree, the details of what is selected in it, and two lines that
//! say how things are. Draws into a buffer; what of that is sent to the terminal is told by
//! [`ansi`].

use std::fmt::Write as _;

use ratatui_core::{
    buffer::{Buffer, Cell as Spot},
    layout::Rect,
    style::{Color, Modifier, Style},
};
use twinax_core::{
    map::{Branch, Cell, Tone},
    top::{Key, Top},
};

use super::{keys::Input, tree};

/// From so many columns on the details stand beside the tree.
const BESIDE: u16 = 110;
/// With fewer lines there are none below it.
const BELOW: u16 = 14;
/// What stands before the values in the details takes no more columns.
const LABEL: usize = 15;

const KEYS: [(&str, &str); 14] = [
    ("↑ ↓  k j", "select a row; PgUp PgDn Home End go further"),
    ("← →  h l", "fold and unfold; Space does either"),
    ("Enter", "zoom: only what hangs on the row"),
    ("Esc", "out of the filter, out of the zoom"),
    ("/", "only rows that have a text in them"),
    ("p", "to the cable's other end"),
    ("J K", "scroll the details"),
    ("mouse", "select; again: fold; the wheel scrolls"),
    ("↓", "what a container receives, a second"),
    ("↑", "what it sends"),
    ("Ctrl-L", "draw anew"),
    ("Ctrl-Z", "stop, until the shell's fg"),
    ("?", "this"),
    ("q", "quit"),
];

/// What is where on the screen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Places {
    title: Rect,
    tree: Rect,
    /// Between tree and details.
    rule: Rect,
    details: Rect,
    status: Rect,
}

impl Places {
    /// Divides a screen; what there is no room for is left out.
    pub fn of(screen: Rect) -> Self {
        let (width, height) = (screen.width, screen.height);
        let title = Rect::new(0, 0, width, u16::from(height >= 4));
        let status = Rect::new(0, height.saturating_sub(1), width, u16::from(height >= 3));
        let (top, bottom) = (title.height, height - status.height.min(height));
        let body = Rect::new(0, top, width, bottom.saturating_sub(top));
        let (mut tree, mut rule, mut details) = (body, Rect::ZERO, Rect::ZERO);
        if width >= BESIDE {
            tree.width = width * 3 / 5;
            rule = Rect::new(tree.width, top, 1, body.height);
            details = Rect::new(tree.width + 2, top, width - tree.width - 2, body.height);
        } else if height >= BELOW {
            details.height = (body.height / 2).min(11);
            tree.height = body.height - details.height - 1;
            rule = Rect::new(0, top + tree.height, width, 1);
            details = Rect::new(0, rule.y + 1, width, details.height);
        }
        Self { title, tree, rule, details, status }
    }

    /// What an input means to what is shown there.
    pub fn key(&self, input: Input) -> Option<Key> {
        let inside = |area: Rect, x, y| area.contains((x, y).into());
        match input {
            Input::Key(key) => Some(key),
            Input::Press(x, y) => {
                inside(self.tree, x, y).then(|| Key::Click(usize::from(y - self.tree.y)))
            }
            Input::Wheel(x, y, rows) if inside(self.details, x, y) => Some(Key::WheelDetails(rows)),
            Input::Wheel(_, _, rows) => Some(Key::WheelTree(rows)),
            Input::Redraw | Input::Suspend => None,
        }
    }
}

/// Draws everything. `colour`: whether there may be any.
pub fn draw(top: &mut Top, buffer: &mut Buffer, colour: bool) {
    let screen = buffer.area;
    let places = Places::of(screen);
    let width = usize::from(places.details.width);
    let details = if width > 0 { wrapped(&top.details(), width) } else { Vec::new() };
    let more = details.len().saturating_sub(usize::from(places.details.height));
    top.fit(usize::from(places.tree.height), more);
    let mut pen = Pen { buffer, colour };
    pen.title(top, places.title);
    pen.tree(top, places.tree);
    pen.rule(top, places.rule);
    let room = usize::from(places.details.height);
    for (n, line) in details.iter().skip(top.details_first()).take(room).enumerate() {
        pen.line(line, places.details, n as u16);
    }
    pen.status(top, places.status);
    if top.shows_help() {
        pen.help(screen);
    }
}

/// Draws into a buffer.
struct Pen<'a> {
    buffer: &'a mut Buffer,
    colour: bool,
}

impl Pen<'_> {
    fn style(&self, tone: Tone) -> Style {
        let style = Style::new();
        match tone {
            Tone::Plain => style,
            Tone::Name => style.add_modifier(Modifier::BOLD),
            Tone::Faint => style.add_modifier(Modifier::DIM),
            Tone::Good if self.colour => style.fg(Color::Green),
            Tone::Bad if self.colour => style.fg(Color::Red),
            Tone::Good => style,
            Tone::Bad => style.add_modifier(Modifier::BOLD),
        }
    }

    /// Writes from a column on, as far as there is room; returns the column behind it.
    fn write(&mut self, (x, y): (u16, u16), text: &str, end: u16, style: Style) -> u16 {
        if x >= end || y >= self.buffer.area.bottom() {
            return x;
        }
        self.buffer.set_stringn(x, y, text, usize::from(end - x), style).0
    }

    /// Writes the pieces of a line into an area.
    fn line(&mut self, pieces: &[Cell], area: Rect, row: u16) {
        if row >= area.height {
            return;
        }
        let mut x = area.x;
        for piece in pieces {
            let style = self.style(piece.tone);
            x = self.write((x, area.y + row), &piece.text, area.right(), style);
        }
    }

    fn title(&mut self, top: &Top, area: Rect) {
        if area.height == 0 {
            return;
        }
        let bar = Style::new().add_modifier(Modifier::REVERSED);
        self.buffer.set_style(area, bar);
        let name = bar.add_modifier(Modifier::BOLD);
        let x = self.write((0, area.y), " twinax top ", area.right(), name);
        let counts = match top.is_ready() {
            true => tree::counts(top.counts()),
            false => "looking…".to_owned(),
        };
        self.write((x, area.y), &format!(" {}", counts.trim_end()), area.right(), bar);
    }

    fn tree(&mut self, top: &Top, area: Rect) {
        let room = usize::from(area.height);
        let wanted = top.first()..top.first() + room;
        if !top.is_ready() {
            return;
        }
        let width = usize::from(area.width);
        let lines = tree::lines_among(top.tree(), Some(width), wanted);
        for (n, line) in lines.iter().enumerate() {
            self.line(line, area, n as u16);
            if top.first() + n == top.selected() {
                let row = Rect::new(area.x, area.y + n as u16, area.width, 1);
                self.buffer.set_style(row, Style::new().add_modifier(Modifier::REVERSED));
            }
        }
    }

    fn rule(&mut self, top: &Top, area: Rect) {
        let faint = self.style(Tone::Faint);
        if area.width == 1 {
            (area.top()..area.bottom()).for_each(|y| {
                self.write((area.x, y), "│", area.right(), faint);
            });
        } else if area.height == 1 {
            self.write((0, area.y), &"─".repeat(area.width.into()), area.right(), faint);
            let place = format!(" {} of {} ", top.selected() + 1, top.lines().len());
            if top.is_ready() {
                self.write((2, area.y), &place, area.right(), faint);
            }
        }
    }

    fn status(&mut self, top: &Top, area: Rect) {
        if area.height == 0 {
            return;
        }
        let (plain, faint) = (Style::new(), self.style(Tone::Faint));
        let mut x = 0;
        if top.is_typing() || !top.filter().is_empty() {
            let cursor = if top.is_typing() { "▏" } else { "" };
            let text = format!(" /{}{cursor} ", top.filter());
            x = self.write((x, area.y), &text, area.right(), self.style(Tone::Name));
        }
        if let Some(note) = top.note() {
            self.write((x, area.y), &format!(" {note}"), area.right(), plain);
            return;
        }
        let zoom = if top.is_zoomed() { "  Esc out" } else { "" };
        let keys = match top.is_typing() {
            true => " Enter keep  Esc forget".to_owned(),
            false => format!(" / filter  Enter zoom{zoom}  p other end  ? keys  q quit"),
        };
        x = self.write((x, area.y), &keys, area.right(), faint);
        let unseen = match top.unseen().len() {
            0 => return,
            1 => "1 thing not seen ".to_owned(),
            n => format!("{n} things not seen "),
        };
        let at = area.right().saturating_sub(unseen.chars().count() as u16);
        if at > x {
            self.write((at, area.y), &unseen, area.right(), self.style(Tone::Bad));
        }
    }

    fn help(&mut self, screen: Rect) {
        let width = 60.min(screen.width);
        let height = (KEYS.len() as u16 + 2).min(screen.height);
        let (x, y) = ((screen.width - width) / 2, (screen.height - height) / 2);
        let area = Rect::new(x, y, width, height);
        for y in area.top()..area.bottom() {
            for x in area.left()..area.right() {
                self.buffer[(x, y)].reset();
            }
        }
        self.frame(area);
        for (n, (key, meaning)) in KEYS.iter().enumerate() {
            let y = area.y + 1 + n as u16;
            if y + 1 >= area.bottom() {
                break;
            }
            let end = area.right().saturating_sub(1);
            self.write((area.x + 2, y), key, end, self.style(Tone::Name));
            self.write((area.x + 13, y), meaning, end, Style::new());
        }
    }

    fn frame(&mut self, area: Rect) {
        if area.width < 2 || area.height < 2 {
            return;
        }
        let faint = self.style(Tone::Faint);
        let (right, bottom) = (area.right() - 1, area.bottom() - 1);
        let edge = "─".repeat(usize::from(area.width) - 2);
        self.write((area.x, area.y), &format!("┌{edge}┐"), area.right(), faint);
        self.write((area.x, bottom), &format!("└{edge}┘"), area.right(), faint);
        for y in area.y + 1..bottom {
            self.write((area.x, y), "│", area.right(), faint);
            self.write((right, y), "│", area.right(), faint);
        }
        self.write((area.x + 2, area.y), " keys ", right, self.style(Tone::Name));
    }
}

/// Details as lines no wider than `width`. Of rows of a name and values what does not fit goes on
/// below; sections, whose rows stand in columns, are cut at the edge.
fn wrapped(rows: &[Branch], width: usize) -> Vec<Vec<Cell>> {
    let first = |row: &Branch| row.cells.first().map_or(0, |cell| cell.text.chars().count());
    let named = rows.iter().filter(|row| row.children.is_empty());
    let label = named.map(first).max().unwrap_or(0).min(LABEL).min(width / 3);
    let mut lines = Vec::new();
    for row in rows {
        if !row.children.is_empty() {
            lines.extend(tree::lines(row, Some(width)));
            continue;
        }
        let Some((name, values)) = row.cells.split_first() else {
            lines.push(Vec::new());
            continue;
        };
        let short: String = name.text.chars().take(label).collect();
        let mut head = Cell { text: format!("{short:<label$} "), tone: name.tone };
        let text: Vec<&str> = values.iter().map(|value| value.text.as_str()).collect();
        let tone = values.first().map_or(Tone::Plain, |value| value.tone);
        for piece in broken(&text.join("  "), width.saturating_sub(label + 1).max(1)) {
            lines.push(vec![head.clone(), Cell { text: piece, tone }]);
            head = Cell { text: " ".repeat(label + 1), tone: Tone::Plain };
        }
    }
    lines
}

/// Breaks a text between words, and words that are too long anywhere.
fn broken(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    let mut used = 0;
    for word in text.split(' ') {
        let length = word.chars().count();
        let fits = used + usize::from(used > 0) + length <= width;
        if used > 0 && !fits {
            lines.push(String::new());
            used = 0;
        }
        let line = lines.last_mut().expect("there is one from the start");
        if used > 0 {
            line.push(' ');
            used += 1;
        }
        if length <= width {
            line.push_str(word);
            used += length;
            continue;
        }
        let letters: Vec<char> = word.chars().collect();
        let mut pieces = letters.chunks(width);
        line.extend(pieces.next().unwrap_or_default());
        used = width;
        for piece in pieces {
            lines.push(piece.iter().collect());
            used = piece.len();
        }
    }
    lines
}

/// Returns what to send to a terminal that shows `before` so that it shows `after`: only what is
/// other, in one go; nothing, if nothing is.
pub fn ansi(before: &Buffer, after: &Buffer) -> String {
    let difference = before.diff(after);
    if difference.is_empty() {
        return String::new();
    }
    let mut out = String::from("\x1b[?2026h");
    let mut next = None;
    let mut style = None;
    for (x, y, spot) in difference {
        if next != Some((x, y)) {
            // Writing to a string does not fail.
            let _ = write!(out, "\x1b[{};{}H", y + 1, x + 1);
        }
        let wanted = (spot.fg, spot.modifier);
        if style != Some(wanted) {
            out.push_str(&sgr(spot));
            style = Some(wanted);
        }
        out.push_str(spot.symbol());
        // Where a wide character leaves the cursor is told anew.
        next = spot.symbol().is_ascii().then_some((x + 1, y));
    }
    out.push_str("\x1b[0m\x1b[?2026l");
    out
}

fn sgr(spot: &Spot) -> String {
    let mut codes = String::from("0");
    let modifiers = [(Modifier::BOLD, ";1"), (Modifier::DIM, ";2"), (Modifier::REVERSED, ";7")];
    for (modifier, code) in modifiers {
        if spot.modifier.contains(modifier) {
            codes.push_str(code);
        }
    }
    match spot.fg {
        Color::Green => codes.push_str(";32"),
        Color::Red => codes.push_str(";31"),
        _ => {}
    }
    format!("\x1b[{codes}m")
}
