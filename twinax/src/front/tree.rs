//! Trees of rows as text: cells of rows side by side stand below each other.

use std::fmt::Write as _;

use twinax_core::map::{Branch, Cell, Counts, Tone, shown};

use super::print::Style;

/// Between two cells.
const GAP: &str = "  ";
/// Rows share their columns only so far: one long cell does not push all others away.
const WIDEST: usize = 44;

/// Returns the tree, a line a row; cut at the terminal's edge.
pub fn text(root: &Branch, style: Style) -> String {
    let mut out = String::new();
    row(&mut out, "", &root.cells, &[], style);
    children(&mut out, "", &root.children, style);
    out
}

/// Returns rows that hang on nothing.
pub fn rows(rows: &[Branch], style: Style) -> String {
    let mut out = String::new();
    for (branch, widths) in rows.iter().zip(widths(rows)) {
        row(&mut out, "", &branch.cells, &widths, style);
    }
    out
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

fn children(out: &mut String, indent: &str, rows: &[Branch], style: Style) {
    let widths = widths(rows);
    for (n, branch) in rows.iter().enumerate() {
        let last = n + 1 == rows.len();
        let (joint, below) = if last { ("└─ ", "   ") } else { ("├─ ", "│  ") };
        row(out, &format!("{indent}{joint}"), &branch.cells, &widths[n], style);
        children(out, &format!("{indent}{below}"), &branch.children, style);
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

fn row(out: &mut String, indent: &str, cells: &[Cell], widths: &[usize], style: Style) {
    let mut left = style.width.map_or(usize::MAX, |width| width.saturating_sub(length(indent)));
    out.push_str(indent);
    let mut gap = String::new();
    for (column, cell) in cells.iter().enumerate() {
        let width = widths.get(column).copied().unwrap_or(0);
        // An empty cell takes no room where nobody else has anything in its column.
        if cell.text.is_empty() && width == 0 {
            continue;
        }
        if !cell.text.is_empty() {
            let text = cut(&cell.text, left.saturating_sub(length(&gap)));
            if text.is_empty() {
                break;
            }
            left = left.saturating_sub(length(&gap) + length(&text));
            out.push_str(&gap);
            paint(out, &text, cell.tone, style);
            gap.clear();
        }
        gap.extend(std::iter::repeat_n(' ', width.saturating_sub(length(&cell.text))));
        gap.push_str(GAP);
    }
    out.push('\n');
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
