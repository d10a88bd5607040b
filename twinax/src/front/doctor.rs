//! What `doctor` prints for people: findings by severity, each with why and what to do.

use std::{collections::BTreeMap, fmt::Write as _};

use twinax_core::{
    doctor::{CHECKS, Finding, Report, Severity, Unchecked},
    map::shown,
};

use super::print::{Style, Table};

/// Lines are broken here where nobody says how wide the terminal is.
const WIDTH: usize = 100;
/// Of namespaces in which a check could not be made, so many are named.
const NAMED: usize = 3;
/// Of findings by one check, so many are printed.
const ALIKE: usize = 20;

/// Returns all of a report.
pub fn text(report: &Report, unseen: &[String], style: Style) -> String {
    let mut out = String::new();
    for severity in Severity::ALL {
        let findings = report.findings.iter().filter(|finding| finding.severity == severity);
        let mut told: BTreeMap<&str, usize> = BTreeMap::new();
        for finding in findings {
            let n = told.entry(finding.check).or_default();
            *n += 1;
            if *n <= ALIKE {
                one(&mut out, finding, style);
            }
        }
        for (check, n) in told.into_iter().filter(|(_, n)| *n > ALIKE) {
            let _ = writeln!(out, "and {} more {check}: --json has them all\n", n - ALIKE);
        }
    }
    out.push_str(&unchecked(&report.unchecked, style));
    for name in &report.unread {
        let text = format!("anything of {name}: it could not be looked into");
        wrapped(&mut out, "not checked: ", &text, style);
    }
    for line in unseen {
        wrapped(&mut out, "not seen: ", &shown(line), style);
    }
    wrapped(&mut out, "", &counts(report), style);
    out
}

fn one(out: &mut String, finding: &Finding, style: Style) {
    let word = finding.severity.as_str();
    let head = match (style.colour, finding.severity) {
        (false, _) => word.to_owned(),
        (true, Severity::Problem) => format!("\x1b[31m{word}\x1b[0m"),
        (true, Severity::Warning) => format!("\x1b[33m{word}\x1b[0m"),
        (true, Severity::Note) => format!("\x1b[2m{word}\x1b[0m"),
    };
    let id = if style.colour {
        format!("\x1b[1m{}\x1b[0m", finding.check)
    } else {
        finding.check.to_owned()
    };
    // Writing to a string does not fail.
    let _ = writeln!(out, "{head} {id}: {}", finding.of.join(", "));
    wrapped(out, "  what  ", &finding.what, style);
    wrapped(out, "  why   ", &finding.why, style);
    let mut label = "  do    ";
    for line in &finding.todo {
        // Commands are to be copied: they are never broken.
        match line.starts_with('#') {
            true => wrapped(out, label, line, style),
            false => out.push_str(&format!("{label}{line}\n")),
        }
        label = "        ";
    }
    out.push('\n');
}

/// A paragraph with its label, the other lines below the first one's text.
fn wrapped(out: &mut String, label: &str, text: &str, style: Style) {
    let width = style.width.unwrap_or(WIDTH).min(WIDTH).max(label.len() + 20);
    let mut line = label.to_owned();
    let mut length = line.chars().count();
    let mut empty = true;
    for word in text.split(' ').filter(|word| !word.is_empty()) {
        let long = word.chars().count();
        if !empty && length + 1 + long > width {
            out.push_str(&line);
            out.push('\n');
            line = " ".repeat(label.len());
            length = label.len();
            empty = true;
        }
        if !empty {
            line.push(' ');
            length += 1;
        }
        line.push_str(word);
        length += long;
        empty = false;
    }
    out.push_str(&line);
    out.push('\n');
}

fn unchecked(list: &[Unchecked], style: Style) -> String {
    let mut out = String::new();
    for it in list {
        let text = match it.of.as_slice() {
            [] => it.why.clone(),
            of if of.len() <= NAMED => format!("{}: {}", of.join(", "), it.why),
            of => format!("{} and {} more: {}", of[..NAMED].join(", "), of.len() - NAMED, it.why),
        };
        wrapped(&mut out, "not checked: ", &format!("{} {text}", it.check), style);
    }
    out
}

/// The last line.
fn counts(report: &Report) -> String {
    let some = |severity: Severity| {
        let (n, word) = (report.count(severity), severity.as_str());
        if n == 1 { format!("1 {word}") } else { format!("{n} {word}s") }
    };
    let mut line = format!(
        "{}, {}, {}; {} checks made",
        some(Severity::Problem),
        some(Severity::Warning),
        some(Severity::Note),
        report.checks
    );
    if !report.unchecked.is_empty() {
        let checks: std::collections::BTreeSet<&str> =
            report.unchecked.iter().map(|it| it.check).collect();
        let _ = write!(line, ", {} not everywhere", checks.len());
    }
    line
}

/// Returns the checks there are, as a table.
pub fn list(style: Style) -> String {
    let mut table = Table::new(&["CHECK", "AT WORST", "FINDS"], &[2]);
    for check in CHECKS {
        table.row(vec![
            check.id.to_owned(),
            check.severity.as_str().to_owned(),
            check.title.to_owned(),
        ]);
    }
    table.render(style)
}
