//! Figures gathered, and the table made of them. Measures nothing.

use std::{collections::BTreeMap, time::Duration};

use crate::figures::{Spread, aim, print_aligned, print_markdown, rank};

/// One row: what is measured, with how many containers attached before.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// `a` to `g` as in docs/benchmark.md; others further down.
    pub row: String,
    pub size: u32,
}

/// All that was measured, and what could not be.
#[derive(Debug, Default)]
pub struct Figures {
    samples: BTreeMap<Key, Vec<Duration>>,
    missing: BTreeMap<Key, String>,
    notes: Vec<String>,
}

/// The rows in the order of the table, each with what it is.
pub const ROWS: [(&str, &str); 16] = [
    ("a", "floor"),
    ("b", "engine, in-process"),
    ("c", "twinax network connect"),
    ("d", "ip + nft in a script"),
    ("e", "netavark"),
    ("f", "CNI bridge + portmap + firewall"),
    ("g", "docker network connect"),
    ("a-", "floor: take away, namespace goes"),
    ("b-", "engine: remove, namespace goes"),
    ("c-", "twinax rm -f, from start to end"),
    ("b=", "engine: detach, namespace stays"),
    ("v", "process start (twinax --version)"),
    ("t", "process start (/bin/true)"),
    ("r", "floor in the reference's mode"),
    ("b1", "engine: the very first attach"),
    ("m", "resident memory (kB)"),
];

impl Figures {
    /// Takes in a line as [`sample_line`] and its like write it.
    pub fn take(&mut self, line: &str) {
        let mut fields = line.splitn(4, '\t');
        let mut next = || fields.next().unwrap_or_default();
        let (kind, row, size, rest) = (next(), next().to_owned(), next(), next());
        let key = Key { row, size: size.parse().unwrap_or(0) };
        match kind {
            "sample" => {
                let took = rest.split(' ').filter_map(|ns| ns.parse().ok());
                self.samples.entry(key).or_default().extend(took.map(Duration::from_nanos));
            }
            "missing" => drop(self.missing.insert(key, rest.to_owned())),
            "note" => self.notes.push(rest.to_owned()),
            _ => println!("{line}"),
        }
    }

    /// Notes each aim, and whether it was reached.
    pub fn aims(&mut self) {
        let ms = |duration: Duration| duration.as_secs_f64() * 1e3;
        let mut lines = Vec::new();
        let sizes: Vec<u32> =
            self.samples.keys().filter(|key| key.row == "a").map(|key| key.size).collect();
        let start = self.median("v", 0);
        for size in sizes {
            let Some(floor) = self.median("a", size) else { continue };
            if let Some(ratio) =
                self.pair_ratios(size).and_then(|all| all.get(all.len() / 2).copied())
            {
                lines.push(aim(
                    ratio <= 1.3,
                    &format!("(b) / (a), {size} attached: {ratio:.2}, aim 1.3"),
                ));
            }
            if let (Some(own), Some(start)) = (self.median("c", size), start) {
                let most = ms(floor) + ms(start) + 1.0;
                let text = format!(
                    "(c), {size} attached: {:.2} ms, aim floor + start + 1 ms = {most:.2} ms",
                    ms(own)
                );
                lines.push(aim(ms(own) <= most, &text));
            }
        }
        if let (Some(first), Some(last)) = (self.median("b", 1), self.median("b", 1000)) {
            let ratio = ms(last) / ms(first);
            lines.push(aim(
                ratio <= 2.0,
                &format!("(b), 1,000 attached / 1 attached: {ratio:.2}, aim 2"),
            ));
        }
        for (row, peer_size, own_size, least) in
            [("e", 0, 1, 8.0), ("f", 0, 1, 20.0), ("e", 500, 500, 40.0), ("f", 500, 500, 30.0)]
        {
            if let (Some(peer), Some(own)) =
                (self.median(row, peer_size), self.median("c", own_size))
            {
                let ratio = ms(peer) / ms(own);
                let text = format!("({row}) / (c), {peer_size} attached: {ratio:.1}, aim {least}");
                lines.push(aim(ratio >= least, &text));
            }
        }
        let most = self.samples.keys().map(|key| key.size).max().unwrap_or_default();
        if let Some(removal) = self.median("b-", most) {
            lines.push(aim(
                ms(removal) <= 0.5,
                &format!("removal where the namespace goes: {:.3} ms, aim 0.5 ms", ms(removal)),
            ));
        }
        if let Some(start) = start {
            lines.push(aim(
                ms(start) <= 2.0,
                &format!("start of the program: {:.2} ms, aim 2 ms", ms(start)),
            ));
        }
        if let Some(memory) = self.median("m", most) {
            let kb = memory.as_nanos();
            lines.push(aim(kb <= 10_240, &format!("memory of (c): {kb} kB, aim 10 MB")));
        }
        self.notes.extend(lines);
    }

    fn pair_ratios(&self, size: u32) -> Option<Vec<f64>> {
        let of = |row: &str| self.samples.get(&Key { row: row.to_owned(), size });
        let (floor, own) = (of("a")?, of("b")?);
        let mut ratios: Vec<f64> =
            floor.iter().zip(own).map(|(a, b)| b.as_secs_f64() / a.as_secs_f64()).collect();
        ratios.sort_by(f64::total_cmp);
        (floor.len() == own.len()).then_some(ratios)
    }

    pub fn median(&self, row: &str, size: u32) -> Option<Duration> {
        let samples = self.samples.get(&Key { row: row.to_owned(), size })?;
        Some(Spread::of(samples)?.median)
    }

    /// The ratio to the floor of the same size: of the pairs, where they are pairs; else of the
    /// medians.
    pub fn ratio(&self, key: &Key) -> Option<String> {
        let floor_row = if key.row == "b-" { "a-" } else { "a" };
        let floor = self.samples.get(&Key { row: floor_row.to_owned(), size: key.size });
        let own = self.samples.get(key)?;
        if key.row == "b"
            && let Some(ratios) = self.pair_ratios(key.size)
        {
            let at = |percent| ratios[rank(ratios.len(), percent)];
            return Some(format!("{:.2} ({:.2}–{:.2})", at(50), at(10), at(90)));
        }
        let floor = match floor {
            Some(floor) => Spread::of(floor)?.median,
            // A peer with nothing attached stands beside the floor with one.
            None => self.median("a", key.size.max(1))?,
        };
        let ratio = Spread::of(own)?.median.as_secs_f64() / floor.as_secs_f64();
        Some(if ratio < 10.0 { format!("{ratio:.2}") } else { format!("{ratio:.0}") })
    }

    /// Prints the table, what is missing, and the notes.
    pub fn print(&self, markdown: bool) {
        let mut rows =
            vec![["", "attached", "n", "p10", "median", "p99", "ratio to (a)"].map(str::to_owned)];
        for (row, what) in ROWS {
            let keys = self.samples.keys().chain(self.missing.keys());
            let mut keys: Vec<&Key> = keys.filter(|key| key.row == row).collect();
            keys.sort();
            keys.dedup();
            rows.extend(keys.into_iter().map(|key| self.row(key, what)));
        }
        match rows.len() {
            1 => {} // Only bytes were compared.
            _ if markdown => print_markdown(&rows),
            _ => print_aligned(&rows),
        }
        println!();
        for note in &self.notes {
            println!("{}{note}", if markdown { "- " } else { "" });
        }
    }

    fn row(&self, key: &Key, what: &str) -> [String; 7] {
        let letter =
            if is_way(&key.row) { format!("({}) {what}", key.row) } else { what.to_owned() };
        let empty = String::new;
        let size = key.size.to_string();
        match (self.samples.get(key).and_then(|some| Spread::of(some)), self.missing.get(key)) {
            (Some(spread), _) => [
                letter,
                size,
                spread.count.to_string(),
                self.figure(key, spread.p10),
                self.figure(key, spread.median),
                self.figure(key, spread.p99),
                if is_way(&key.row) || ["a-", "b-"].contains(&&*key.row) {
                    self.ratio(key).unwrap_or_default()
                } else {
                    empty()
                },
            ],
            (None, why) => {
                let why = why.map_or("", |why| why);
                [letter, size, empty(), empty(), "missing".to_owned(), empty(), why.to_owned()]
            }
        }
    }

    fn figure(&self, key: &Key, value: Duration) -> String {
        match &*key.row {
            "m" => value.as_nanos().to_string(),
            _ => format!("{:.3} ms", value.as_secs_f64() * 1e3),
        }
    }
}

/// Whether a row is a way to attach, which has a letter in the documentation.
fn is_way(row: &str) -> bool {
    matches!(row.as_bytes(), [b'a'..=b'g'])
}

/// A line of samples, as the part that measured them reports it.
pub fn sample_line(row: &str, size: u32, took: &[Duration]) -> String {
    let took: Vec<String> = took.iter().map(|one| one.as_nanos().to_string()).collect();
    format!("sample\t{row}\t{size}\t{}", took.join(" "))
}

pub fn missing_line(row: &str, size: u32, why: &str) -> String {
    format!("missing\t{row}\t{size}\t{}", why.trim().replace(['\n', '\t'], " "))
}

pub fn note_line(text: &str) -> String {
    format!("note\t\t\t{}", text.replace(['\n', '\t'], " "))
}
