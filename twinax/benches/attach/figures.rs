//! What all benchmarks do with samples: their spread, and a table of text. Measures nothing.

use std::time::Duration;

/// What is told of many samples.
pub struct Spread {
    pub count: usize,
    pub p10: Duration,
    pub median: Duration,
    pub p99: Duration,
}

impl Spread {
    pub fn of(samples: &[Duration]) -> Option<Self> {
        let mut sorted = samples.to_vec();
        sorted.sort();
        let count = sorted.len();
        let at = |percent| sorted.get(rank(count, percent)).copied();
        Some(Self { count, p10: at(10)?, median: at(50)?, p99: at(99)? })
    }
}

/// The place of a percentile among `count` sorted samples.
pub fn rank(count: usize, percent: usize) -> usize {
    (count * percent / 100).min(count.saturating_sub(1))
}

/// Prints rows as a person reads them; the first is the heading.
pub fn print_aligned<const N: usize>(rows: &[[String; N]]) {
    let width = |column: usize| {
        rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default()
    };
    for row in rows {
        let mut line = format!("{:<1$}", row[0], width(0));
        for (column, cell) in row.iter().enumerate().skip(1) {
            match column + 1 {
                last if last == N => line.push_str(&format!("  {cell}")),
                _ => line.push_str(&format!("  {cell:>0$}", width(column))),
            }
        }
        println!("{}", line.trim_end());
    }
}

/// Prints rows as a document has them; the first is the heading.
pub fn print_markdown<const N: usize>(rows: &[[String; N]]) {
    for (n, row) in rows.iter().enumerate() {
        println!("| {} |", row.join(" | "));
        if n == 0 {
            println!("|---|{}---|", "--:|".repeat(N - 2));
        }
    }
}

/// A line that says whether an aim was reached.
pub fn aim(reached: bool, text: &str) -> String {
    format!("{}: {text}", if reached { "reached" } else { "MISSED" })
}
