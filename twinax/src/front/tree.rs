//! Trees of rows as text: cells of rows side by side stand below each other.

use std::{fmt::Write as _, ops::Range};

use twinax_core::map::{Branch, Cell, Counts, Tone, shown};

use super::print::Style;

/// Between two cells.
const GAP: usize = 2;
/// Rows share their columns only so far: one long cell does not push all others away.
const WIDEST: usize = 44;

/// Returns the tree, a line a row; cut at the terminal's edge.
pub fn text(root: &Branch, style: Style) -> String {
    let lines = lines(root, style.width);
    lines.iter().map(|line| painted(line, style)).collect()
}

/// Returns rows that hang on nothing.
pub fn rows(rows: &[Branch], style: Style) -> String {
    let lines = row_lines(rows, style.width);
    lines.iter().map(|line| painted(line, style)).collect()
}

/// Returns the pieces of each line of a tree, in the order of its rows; no line is wider than
/// `width` columns.
pub fn lines(root: &Branch, width: Option<usize>) -> Vec<Vec<Cell>> {
    lines_among(root, width, 0..usize::MAX)
}

/// As [`lines`], only those whose places are `wanted`: to make a line takes longer than to pass it.
pub fn lines_among(root: &Branch, width: Option<usize>, wanted: Range<usize>) -> Vec<Vec<Cell>> {
    let mut maker = Maker { lines: Vec::new(), at: 0, wanted, width };
    maker.add("", "", &root.cells, &[]);
    maker.children("", &root.children);
    maker.lines
}

/// As [`lines`], of rows that hang on nothing.
pub fn row_lines(rows: &[Branch], width: Option<usize>) -> Vec<Vec<Cell>> {
    let each = rows.iter().zip(widths(rows));
    each.map(|(branch, widths)| line("", &branch.cells, &widths, width)).collect()
}

/// Cuts lines that belong to no tree at the terminal's edge.
pub fn clipped(lines: &str, style: Style) -> String {
    let width = style.width.unwrap_or(usize::MAX);
    lines.lines().map(|line| cut(line, width) + "\n").collect()
}

/// What could not be seen, a line each.
pub fn unseen(lines: &[String]) -> String {
    lines.iter().map(|line| format!("not seen: {}\n", shown(line))).collect()
}

/// Makes the lines of a tree.
struct Maker {
    lines: Vec<Vec<Cell>>,
    /// The place of the next line.
    at: usize,
    wanted: Range<usize>,
    width: Option<usize>,
}

impl Maker {
    fn add(&mut self, indent: &str, joint: &str, cells: &[Cell], widths: &[usize]) {
        if self.wanted.contains(&self.at) {
            self.lines.push(line(&format!("{indent}{joint}"), cells, widths, self.width));
        }
        self.at += 1;
    }

    fn children(&mut self, indent: &str, rows: &[Branch]) {
        let widths = widths(rows);
        for (n, branch) in rows.iter().enumerate() {
            let last = n + 1 == rows.len();
            let (joint, below) = if last { ("└─ ", "   ") } else { ("├─ ", "│  ") };
            self.add(indent, joint, &branch.cells, &widths[n]);
            if !branch.children.is_empty() {
                self.children(&format!("{indent}{below}"), &branch.children);
            }
        }
    }
}

/// The widths of each row's columns: rows next to each other that have as many cells share them.
/// Rows with children of their own are headings and keep to themselves.
fn widths(rows: &[Branch]) -> Vec<Vec<usize>> {
    let shape = |branch: &Branch| (branch.children.is_empty(), branch.cells.len());
    let mut widths = Vec::with_capacity(rows.len());
    for alike in rows.chunk_by(|a, b| shape(a) == shape(b)) {
        let leaf = alike[0].children.is_empty();
        let width = |column: usize| {
            let all = alike.iter().map(|branch| length(&branch.cells[column].text));
            all.filter(|width| *width <= WIDEST && leaf).max().unwrap_or(0)
        };
        let shared: Vec<usize> = (0..alike[0].cells.len()).map(width).collect();
        widths.extend(alike.iter().map(|_| shared.clone()));
    }
    widths
}

fn line(indent: &str, cells: &[Cell], widths: &[usize], width: Option<usize>) -> Vec<Cell> {
    let mut left = width.map_or(usize::MAX, |width| width.saturating_sub(length(indent)));
    let mut pieces = Vec::new();
    let mut gap = indent.to_owned();
    let mut gap_width = 0;
    for (column, cell) in cells.iter().enumerate() {
        let width = widths.get(column).copied().unwrap_or(0);
        // An empty cell takes no room where nobody else has anything in its column.
        if cell.text.is_empty() && width == 0 {
            continue;
        }
        if !cell.text.is_empty() {
            let text = cut(&cell.text, left.saturating_sub(gap_width));
            if text.is_empty() {
                break;
            }
            left = left.saturating_sub(gap_width + length(&text));
            pieces.push(Cell { text: std::mem::take(&mut gap), tone: Tone::Plain });
            pieces.push(Cell { text, tone: cell.tone });
            gap_width = 0;
        }
        let more = width.saturating_sub(length(&cell.text)) + GAP;
        gap.extend(std::iter::repeat_n(' ', more));
        gap_width += more;
    }
    // Nothing but where it hangs.
    if pieces.is_empty() {
        pieces.push(Cell { text: indent.to_owned(), tone: Tone::Plain });
    }
    pieces
}

/// Returns a tree cut to what fits on a screen of `height` lines with `below` under it: what is left
/// out is counted.
pub fn screenful(root: &Branch, below: &[String], height: usize, style: Style) -> Vec<String> {
    let below = &below[below.len().saturating_sub(height)..];
    let room = height - below.len();
    let all = rows_in(root);
    let shown = if all > room { room.saturating_sub(1) } else { all };
    let lines = lines_among(root, style.width, 0..shown);
    let mut screen: Vec<String> = lines.iter().map(|line| painted(line, style)).collect();
    if all > shown && room > 0 {
        let text = format!("… and {} more rows", all - shown);
        screen.push(painted(&[Cell { text, tone: Tone::Faint }], style));
    }
    let cut = |line: &String| style.width.map_or_else(|| line.clone(), |width| cut(line, width));
    screen.extend(below.iter().map(cut));
    screen.iter().map(|line| line.trim_end_matches('\n').to_owned()).collect()
}

fn rows_in(root: &Branch) -> usize {
    1 + root.children.iter().map(rows_in).sum::<usize>()
}

fn painted(pieces: &[Cell], style: Style) -> String {
    let mut out = String::new();
    pieces.iter().for_each(|piece| paint(&mut out, &piece.text, piece.tone, style));
    out.push('\n');
    out
}

fn cut(text: &str, room: usize) -> String {
    match length(text) <= room {
        true => text.to_owned(),
        false if room < 2 => String::new(),
        false => text.chars().take(room - 1).chain(['…']).collect(),
    }
}

fn paint(out: &mut String, text: &str, tone: Tone, style: Style) {
    let code = match tone {
        _ if !style.colour => "",
        Tone::Plain => "",
        Tone::Name => "1",
        Tone::Faint => "2",
        Tone::Good => "32",
        Tone::Bad => "31",
    };
    // Writing to a string does not fail.
    let _ = match code {
        "" => write!(out, "{text}"),
        code => write!(out, "\x1b[{code}m{text}\x1b[0m"),
    };
}

fn length(text: &str) -> usize {
    text.chars().count()
}

/// The last line: how many there are of each.
pub fn counts(counts: &Counts) -> String {
    let some = |n: usize, one: &str, many: &str| match n {
        1 => format!("1 {one}"),
        n => format!("{n} {many}"),
    };
    let mut parts = vec![
        some(counts.containers, "container", "containers"),
        some(counts.namespaces, "namespace", "namespaces"),
        some(counts.bridges, "bridge", "bridges"),
        some(counts.cables, "cable", "cables"),
        some(counts.orphans, "orphan", "orphans"),
    ];
    if counts.unpaired > 0 {
        let ends = some(counts.unpaired, "cable end", "cable ends");
        parts.push(format!("{ends} whose other end could not be seen"));
    }
    if counts.hidden > 0 {
        parts.push(format!("{} not shown (-a)", counts.hidden));
    }
    format!("{}\n", parts.join(", "))
}
