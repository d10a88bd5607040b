//! Figures gathered, and the table made of them. Measures nothing.

use std::time::Duration;

use crate::figures::{Spread, aim, print_aligned, print_markdown};

pub const MAP_PLAIN: &str = "map in one process, without listeners";
pub const MAP: &str = "twinax map";
pub const PEER: &str = "twinax peer INTERFACE";
pub const MEMORY: &str = "memory of twinax map, at its highest";
pub const NSENTER_MAP: &str = "script: map by nsenter";
pub const NSENTER_PEER: &str = "script: peer by nsenter";
pub const IP_MAP: &str = "script: map by ip -n";
pub const IP_PEER: &str = "script: peer by ip -n";

/// What one sample took.
#[derive(Clone, Copy, Debug)]
pub struct Took {
    pub wall: Duration,
    /// Of all processors.
    pub busy: Duration,
}

#[derive(Debug)]
struct Row {
    name: String,
    wall: Vec<Duration>,
    busy: Vec<Duration>,
    missing: Option<String>,
}

/// All that was measured, and what could not be.
#[derive(Debug, Default)]
pub struct Figures {
    rows: Vec<Row>,
    notes: Vec<String>,
    memory: Option<u64>,
}

pub fn tell_samples(row: &str, took: &[Took]) {
    let list = |of: fn(&Took) -> Duration| {
        took.iter().map(|took| of(took).as_nanos().to_string()).collect::<Vec<_>>().join(" ")
    };
    println!("sample\t{row}\t{}\t{}", list(|took| took.wall), list(|took| took.busy));
}

pub fn tell_missing(row: &str, why: &str) {
    println!("missing\t{row}\t{}", why.trim().replace(['\n', '\t'], " "));
}

pub fn tell_note(text: &str) {
    println!("note\t{}", text.replace(['\n', '\t'], " "));
}

pub fn tell_memory(bytes: u64) {
    println!("memory\t{bytes}");
}

impl Figures {
    /// Takes in a line as those above write it.
    pub fn take(&mut self, line: &str) {
        let fields: Vec<&str> = line.split('\t').collect();
        let times = |text: &str| -> Vec<Duration> {
            text.split(' ').filter_map(|ns| ns.parse().ok()).map(Duration::from_nanos).collect()
        };
        match fields.as_slice() {
            ["sample", name, wall, busy] => self.rows.push(Row {
                name: (*name).to_owned(),
                wall: times(wall),
                busy: times(busy),
                missing: None,
            }),
            ["missing", name, why] => self.rows.push(Row {
                name: (*name).to_owned(),
                wall: Vec::new(),
                busy: Vec::new(),
                missing: Some((*why).to_owned()),
            }),
            ["memory", bytes] => self.memory = bytes.parse().ok(),
            ["note", text] => self.notes.push((*text).to_owned()),
            _ => println!("{line}"),
        }
    }

    fn median_ms(&self, name: &str) -> Option<f64> {
        let row = self.rows.iter().find(|row| row.name == name)?;
        Some(Spread::of(&row.wall)?.median.as_secs_f64() * 1e3)
    }

    /// Notes each aim, and whether it was reached.
    pub fn aims(&mut self) {
        let mut lines = Vec::new();
        for (row, most) in [(MAP_PLAIN, 100.0), (MAP, 200.0), (PEER, 20.0)] {
            if let Some(ms) = self.median_ms(row) {
                lines.push(aim(ms <= most, &format!("{row}: {ms:.1} ms, aim {most} ms")));
            }
        }
        for (script, own) in
            [(NSENTER_MAP, MAP), (NSENTER_PEER, PEER), (IP_MAP, MAP), (IP_PEER, PEER)]
        {
            if let (Some(script_ms), Some(ms)) = (self.median_ms(script), self.median_ms(own)) {
                let times = script_ms / ms;
                let text = format!("{script} / {own}: {times:.0}, aim 50");
                lines.push(aim(times >= 50.0, &text));
            }
        }
        if let Some(bytes) = self.memory {
            let mb = bytes as f64 / 1e6;
            lines.push(aim(mb <= 60.0, &format!("{MEMORY}: {mb:.1} MB, aim 60 MB")));
        }
        self.notes.extend(lines);
    }

    /// Prints the table and the notes.
    pub fn print(&self, markdown: bool) {
        let heading = ["", "n", "p10", "median", "p99", "processor", ""];
        let mut rows = vec![heading.map(str::to_owned)];
        let ms = |time: Duration| format!("{:.2} ms", time.as_secs_f64() * 1e3);
        for row in &self.rows {
            let (wall, busy) = (Spread::of(&row.wall), Spread::of(&row.busy));
            rows.push(match (wall, busy) {
                (Some(wall), Some(busy)) => [
                    row.name.clone(),
                    wall.count.to_string(),
                    ms(wall.p10),
                    ms(wall.median),
                    ms(wall.p99),
                    ms(busy.median),
                    String::new(),
                ],
                _ => {
                    let why = row.missing.clone().unwrap_or_default();
                    let none = String::new;
                    [row.name.clone(), none(), none(), "missing".to_owned(), none(), none(), why]
                }
            });
        }
        match markdown {
            true => print_markdown(&rows),
            false => print_aligned(&rows),
        }
        println!();
        for note in &self.notes {
            println!("{}{note}", if markdown { "- " } else { "" });
        }
    }
}
