//! The state of `twinax top`: which rows are there, which one is selected, and what a key does.
//!
//! Draws nothing and asks nothing: sights, rates and keys go in, rows and details come out.

mod details;

use std::collections::{BTreeMap, BTreeSet};

use self::details::details;
use crate::{
    map::{Branch, Counts, Row, Subject, Wanted, rows},
    model::LinkId,
    rate::Rates,
    sight::{Counters, Sight},
};

/// What a person does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    Char(char),
    Up,
    Down,
    Left,
    Right,
    PageUp,
    PageDown,
    Home,
    End,
    Enter,
    Escape,
    Backspace,
    /// On a row of the tree, counted from the first one on the screen.
    Click(usize),
    /// So many rows down the tree; up, if below zero.
    WheelTree(isize),
    /// The same in the details.
    WheelDetails(isize),
    /// Ctrl-C: quit, whatever goes on.
    Interrupt,
}

/// What comes of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Stay,
    Quit,
}

/// A line of the tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    pub about: Subject,
    pub fold: Fold,
    /// The line that it hangs on.
    parent: usize,
}

/// Whether rows hang on a row, and whether these are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fold {
    Leaf,
    Open,
    Folded,
}

/// Which end of a cable the details are about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Side {
    #[default]
    Near,
    Far,
}

/// All that is shown, and what was chosen of it.
#[derive(Debug, Default)]
pub struct Top {
    wanted: Wanted,
    sight: Option<Sight>,
    rates: Rates,
    counts: Counts,
    whole: Option<Row>,
    tree: Branch,
    lines: Vec<Line>,
    folded: BTreeSet<Subject>,
    zoom: Vec<Subject>,
    filter: String,
    typing: bool,
    help: bool,
    selected: usize,
    side: Side,
    /// The first line on the screen, and how many there is room for.
    first: usize,
    room: usize,
    details_first: usize,
    /// How many lines of details there are beyond those that there is room for.
    details_more: usize,
    note: Option<String>,
}

impl Top {
    pub fn new(wanted: Wanted) -> Self {
        Self { wanted, room: 1, ..Self::default() }
    }

    /// The host looks like that now.
    pub fn see(&mut self, sight: Sight) {
        self.sight = Some(sight);
        self.read();
    }

    /// So much has gone over links by now, and goes a second.
    pub fn measure(&mut self, counters: &BTreeMap<LinkId, Counters>, rates: Rates) {
        for (id, counters) in counters {
            let facts = self.sight.as_mut().and_then(|sight| sight.links.get_mut(id));
            if let Some(facts) = facts {
                facts.counters = *counters;
            }
        }
        self.rates = rates;
        self.read();
    }

    /// There is room for so many lines of the tree, and details go on for so many more.
    pub fn fit(&mut self, room: usize, details_more: usize) {
        self.room = room.max(1);
        self.details_more = details_more;
        self.details_first = self.details_first.min(details_more);
        self.keep_in_view();
    }

    /// Whether the first look is over.
    pub fn is_ready(&self) -> bool {
        self.sight.is_some()
    }

    /// The rows that are there, as a tree; [`Self::lines`] has the same in their order.
    pub fn tree(&self) -> &Branch {
        &self.tree
    }

    pub fn lines(&self) -> &[Line] {
        &self.lines
    }

    /// The place of the selected line.
    pub fn selected(&self) -> usize {
        self.selected
    }

    /// The place of the first line on the screen.
    pub fn first(&self) -> usize {
        self.first
    }

    pub fn details_first(&self) -> usize {
        self.details_first
    }

    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// What could not be seen, a line each.
    pub fn unseen(&self) -> &[String] {
        self.sight.as_ref().map(|sight| sight.unseen.as_slice()).unwrap_or_default()
    }

    pub fn filter(&self) -> &str {
        &self.filter
    }

    /// Whether the filter is being typed.
    pub fn is_typing(&self) -> bool {
        self.typing
    }

    pub fn shows_help(&self) -> bool {
        self.help
    }

    /// Whether less than everything is shown, by zoom.
    pub fn is_zoomed(&self) -> bool {
        !self.zoom.is_empty()
    }

    /// What there is to say about the last key.
    pub fn note(&self) -> Option<&str> {
        self.note.as_deref()
    }

    /// What the details are about: the other end of the selected cable after `p`.
    pub fn focus(&self) -> Option<Subject> {
        let about = &self.lines.get(self.selected)?.about;
        match (self.side, self.far_end(about)) {
            (Side::Far, Some(far)) => Some(Subject::Link(far)),
            _ => Some(about.clone()),
        }
    }

    /// All that is known of what is selected.
    pub fn details(&self) -> Vec<Branch> {
        match (&self.sight, self.focus()) {
            (Some(sight), Some(focus)) => details(sight, &self.rates, &focus, self.side),
            _ => Vec::new(),
        }
    }

    /// Does what a key means.
    pub fn press(&mut self, key: Key) -> Outcome {
        self.note = None;
        if key == Key::Interrupt {
            return Outcome::Quit;
        }
        if self.help {
            self.help = false;
            return Outcome::Stay;
        }
        if self.typing {
            self.type_filter(key);
            return Outcome::Stay;
        }
        match key {
            Key::Char('q') => return Outcome::Quit,
            Key::Char('?') => self.help = true,
            Key::Char('/') => self.typing = true,
            Key::Char('p') => self.jump(),
            Key::Char(' ') => self.toggle(),
            Key::Enter => self.zoom_in(),
            Key::Escape | Key::Backspace => self.back_out(),
            Key::Left | Key::Char('h') => self.fold_or_leave(),
            Key::Right | Key::Char('l') => self.unfold(),
            Key::Click(row) => self.click(row),
            Key::WheelTree(rows) => self.scroll(rows),
            Key::WheelDetails(rows) => self.scroll_details(rows),
            Key::Char('J') => self.scroll_details(1),
            Key::Char('K') => self.scroll_details(-1),
            key => self.go(key),
        }
        Outcome::Stay
    }

    fn go(&mut self, key: Key) {
        let page = self.room.saturating_sub(1).max(1);
        let to = match key {
            Key::Up | Key::Char('k') => self.selected.saturating_sub(1),
            Key::Down | Key::Char('j') => self.selected + 1,
            Key::PageUp => self.selected.saturating_sub(page),
            Key::PageDown => self.selected + page,
            Key::Home | Key::Char('g') => 0,
            Key::End | Key::Char('G') => usize::MAX,
            _ => return,
        };
        self.select(to);
    }

    fn select(&mut self, to: usize) {
        let to = to.min(self.lines.len().saturating_sub(1));
        if to != self.selected {
            (self.side, self.details_first) = (Side::Near, 0);
        }
        self.selected = to;
        self.keep_in_view();
    }

    /// No row that could be shown is left out, and the selected one is shown.
    fn keep_in_view(&mut self) {
        let last = self.lines.len().saturating_sub(self.room);
        self.first = self.first.min(self.selected).min(last);
        self.first = self.first.max((self.selected + 1).saturating_sub(self.room));
    }

    fn scroll(&mut self, rows: isize) {
        let last = self.lines.len().saturating_sub(self.room);
        self.first = self.first.saturating_add_signed(rows).min(last);
        let on_screen = self.first..=(self.first + self.room - 1);
        self.select(self.selected.clamp(*on_screen.start(), *on_screen.end()));
    }

    fn scroll_details(&mut self, rows: isize) {
        self.details_first = self.details_first.saturating_add_signed(rows).min(self.details_more);
    }

    fn click(&mut self, row: usize) {
        let at = self.first + row;
        if at >= self.lines.len() {
            return;
        }
        if at == self.selected {
            self.toggle();
        }
        self.select(at);
    }

    fn type_filter(&mut self, key: Key) {
        match key {
            Key::Enter => self.typing = false,
            Key::Escape => {
                self.typing = false;
                self.filter.clear();
            }
            Key::Backspace if self.filter.is_empty() => self.typing = false,
            Key::Backspace => drop(self.filter.pop()),
            Key::Char(c) if self.filter.chars().count() < 100 => self.filter.push(c),
            Key::Up | Key::Down | Key::PageUp | Key::PageDown => return self.go(key),
            _ => return,
        }
        self.show();
    }

    fn toggle(&mut self) {
        match self.lines.get(self.selected).map(|line| line.fold) {
            Some(Fold::Open) => self.fold_or_leave(),
            Some(Fold::Folded) => self.unfold(),
            _ => {}
        }
    }

    fn fold_or_leave(&mut self) {
        let Some(line) = self.lines.get(self.selected) else { return };
        if line.fold == Fold::Open && self.filter.is_empty() {
            self.folded.insert(line.about.clone());
            self.show();
        } else {
            self.select(line.parent);
        }
    }

    fn unfold(&mut self) {
        let Some(line) = self.lines.get(self.selected) else { return };
        if line.fold == Fold::Folded {
            self.folded.remove(&line.about);
            self.show();
        }
    }

    fn zoom_in(&mut self) {
        let Some(line) = self.lines.get(self.selected) else { return };
        if self.selected == 0 {
            return;
        }
        self.folded.remove(&line.about);
        self.zoom.push(line.about.clone());
        self.show();
    }

    /// Out of the help, the filter, the zoom: one at a time.
    fn back_out(&mut self) {
        if self.filter.is_empty() {
            self.zoom.pop();
        } else {
            self.filter.clear();
        }
        self.show();
    }

    /// To the other end of a cable: to the row that is about it, or, where one row is about both
    /// ends, to its details.
    fn jump(&mut self) {
        let Some(line) = self.lines.get(self.selected) else { return };
        let Some(far) = self.far_end(&line.about) else {
            self.note = Some("no cable leads from here to another end".to_owned());
            return;
        };
        let about = Subject::Link(far.clone());
        if !self.lines.iter().any(|line| line.about == about) && self.is_in_the_tree(&about) {
            (self.filter, self.zoom) = (String::new(), Vec::new());
            self.folded.clear();
            self.show();
        }
        match self.lines.iter().position(|line| line.about == about) {
            Some(at) => self.select(at),
            None => {
                self.details_first = 0;
                self.side = match self.side {
                    Side::Near => Side::Far,
                    Side::Far => Side::Near,
                };
            }
        }
    }

    fn is_in_the_tree(&self, about: &Subject) -> bool {
        self.whole.as_ref().is_some_and(|whole| find(whole, about).is_some())
    }

    fn far_end(&self, about: &Subject) -> Option<LinkId> {
        let Subject::Link(id) = about else { return None };
        let facts = self.sight.as_ref()?.links.get(id)?;
        facts.leads_to.clone()
    }

    /// Makes the rows anew from what was seen and measured.
    fn read(&mut self) {
        let Some(sight) = &self.sight else { return };
        let (whole, counts) = rows(sight, &self.wanted, Some(&self.rates));
        (self.whole, self.counts) = (Some(whole), counts);
        self.show();
    }

    /// Makes the lines anew, and finds what was selected among them.
    fn show(&mut self) {
        let Some(whole) = &self.whole else { return };
        let selected = self.lines.get(self.selected).map(|line| line.about.clone());
        while self.zoom.last().is_some_and(|about| find(whole, about).is_none()) {
            self.zoom.pop();
        }
        let from = self.zoom.last().and_then(|about| find(whole, about)).unwrap_or(whole);
        let filter = self.filter.to_lowercase();
        let mut lines = Vec::new();
        let pruning = Pruning { filter: &filter, folded: &self.folded };
        self.tree = pruning.prune(from, 0, &mut lines).unwrap_or_default();
        self.lines = lines;
        let found = selected.and_then(|about| self.lines.iter().position(|l| l.about == about));
        match found {
            Some(at) => self.selected = at,
            None => self.select(self.selected),
        }
        self.keep_in_view();
    }
}

fn find<'a>(row: &'a Row, about: &Subject) -> Option<&'a Row> {
    match row.about == *about {
        true => Some(row),
        false => row.children.iter().find_map(|child| find(child, about)),
    }
}

/// What is left of a tree.
struct Pruning<'a> {
    /// In small letters.
    filter: &'a str,
    folded: &'a BTreeSet<Subject>,
}

impl Pruning<'_> {
    fn matches(&self, row: &Row) -> bool {
        self.filter.is_empty()
            || row.cells.iter().any(|cell| cell.text.to_lowercase().contains(self.filter))
    }

    /// Adds the lines of a row and of what hangs on it; the row itself hangs on line `parent`.
    /// The first row stays whatever the filter.
    fn prune(&self, row: &Row, parent: usize, lines: &mut Vec<Line>) -> Option<Branch> {
        let at = lines.len();
        let matches = self.matches(row);
        let is_folded = self.filter.is_empty() && self.folded.contains(&row.about) && at > 0;
        lines.push(Line { about: row.about.clone(), fold: Fold::Leaf, parent });
        // Of what was found all is shown that hangs on it.
        let all = Self { filter: "", folded: self.folded };
        let below = if matches && at > 0 { &all } else { self };
        let children: Vec<Branch> = match is_folded {
            true => Vec::new(),
            false => row.children.iter().filter_map(|c| below.prune(c, at, lines)).collect(),
        };
        if !matches && children.is_empty() && at > 0 {
            lines.truncate(at);
            return None;
        }
        lines[at].fold = match (row.children.is_empty(), is_folded) {
            (true, _) => Fold::Leaf,
            (_, true) => Fold::Folded,
            _ => Fold::Open,
        };
        let mut cells = row.cells.clone();
        if let (Some(first), true) = (cells.first_mut(), at > 0 && !row.children.is_empty()) {
            first.text.insert_str(0, if is_folded { "▸ " } else { "▾ " });
        }
        Some(Branch { cells, children })
    }
}
