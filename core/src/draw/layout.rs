//! Where everything stands, in whole pixels.
//!
//! A lane is a panel: its bar at the top, its cards in rows below. The bar goes on as a rail above
//! each further row, so that a card's cable to its own lane is a short way straight up. Every
//! other wire leaves a box at its bottom, runs in the channel below the box's row to the gutter at
//! the right of everything, and from there into the channel of the other box or into a slot of the
//! other lane. Channels and gutter hold no boxes: so no wire crosses one.

use std::collections::BTreeMap;

use super::{Card, Hang, Node, Scene, Tie, Wire};

/// How much of a card is written on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Density {
    Roomy,
    Compact,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rect {
    pub x: i32,
    pub y: i32,
    pub w: i32,
    pub h: i32,
}

impl Rect {
    pub fn right(&self) -> i32 {
        self.x + self.w
    }

    pub fn bottom(&self) -> i32 {
        self.y + self.h
    }

    /// Whether they share more than an edge.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.x < other.right()
            && other.x < self.right()
            && self.y < other.bottom()
            && other.y < self.bottom()
    }
}

/// A place.
pub type Point = (i32, i32);

/// A drawing's places.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    pub density: Density,
    pub width: i32,
    pub height: i32,
    /// The box that is the host.
    pub host: Rect,
    pub lanes: Vec<LanePlace>,
    pub cards: Vec<Rect>,
    pub devices: Vec<Rect>,
    pub wires: Vec<WirePlace>,
    /// Where the notes on what was not seen begin.
    pub notes: i32,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LanePlace {
    pub panel: Rect,
    /// The bar; a heading without a bar, where cards hang on nothing.
    pub bar: Rect,
    /// How far the words in the bar may go.
    pub words: i32,
    /// The bar's continuations, each a horizontal line from the trunk: `(y, x1, x2)`.
    pub rails: Vec<(i32, i32, i32)>,
    /// Vertical lines that join the rails, and those that wires from elsewhere end at.
    pub trunks: Vec<(i32, i32, i32)>,
}

/// A wire's way, and where its name is written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WirePlace {
    pub points: Vec<Point>,
    /// Left end of the label's baseline, and how wide it may be.
    pub label: Option<(i32, i32, i32)>,
}

/// Sizes that hold for one density.
struct Sizes {
    card: i32,
    gap: i32,
    /// From a rail to the cards below it.
    drop: i32,
    /// Between a panel's edge and its cards.
    pad: i32,
}

const MARGIN: i32 = 28;
const BAR: i32 = 36;
/// Between the host's edge and its devices.
const EDGE: i32 = 30;
/// Above the host: the heading, and the way out.
const SKY: i32 = 96;
const DEVICE: (i32, i32) = (216, 50);
/// Between two wires side by side.
const TRACK: i32 = 9;
/// Between the slots of a lane that wires from elsewhere end at.
const SLOT: i32 = 15;
/// What a slot's label takes.
const SLOT_LABEL: i32 = 104;
const RAIL: i32 = 4;
/// Beyond so many cards there is too little room to write everything on them.
const ROOMY: usize = 48;
/// Cards side by side.
const FEWEST: usize = 4;
const MOST: usize = 32;

impl Density {
    fn sizes(self) -> Sizes {
        match self {
            Self::Roomy => Sizes { card: 248, gap: 20, drop: 40, pad: 28 },
            Self::Compact => Sizes { card: 158, gap: 10, drop: 26, pad: 22 },
        }
    }
}

impl Layout {
    /// Returns the layout that is largest when all of it is to be seen on a screen of 16:10.
    pub fn of(scene: &Scene) -> Self {
        let most = members(scene).iter().map(Vec::len).max().unwrap_or_default();
        let most = most.max(scene.cards.len().isqrt() * 2).clamp(FEWEST, MOST);
        let layouts = (FEWEST..=most).map(|columns| Self::with_columns(scene, columns));
        let screen = |layout: &Self| (layout.width * 10).max(layout.height * 16);
        layouts.min_by_key(screen).unwrap_or_else(|| Self::with_columns(scene, FEWEST))
    }

    fn with_columns(scene: &Scene, columns: usize) -> Self {
        let density = match scene.cards.len() > ROOMY {
            true => Density::Compact,
            false => Density::Roomy,
        };
        Plan::new(scene, density, columns).place()
    }
}

/// The height of a card: as many lines as it has.
pub fn card_height(card: &Card, density: Density) -> i32 {
    let lines = |items: usize, most: usize| i32::try_from(items.min(most)).unwrap_or_default();
    match density {
        Density::Compact => 60 + i32::from(!card.published.is_empty()) * 13,
        Density::Roomy => {
            let chips = match card.chips.len() {
                0 => 0,
                1 => 16 * i32::from(!card.chips[0].image.is_empty()),
                n => 19 * lines(n, 6),
            };
            let addrs: usize = card.ports.iter().map(|port| port.addrs.len().clamp(1, 3)).sum();
            let notes = usize::from(!card.held.is_empty() || card.forlorn);
            let rest = 17 * (lines(addrs, 8) + lines(card.published.len(), 4) + lines(notes, 1));
            (40 + chips + rest + 6 * i32::from(rest > 0)).max(56)
        }
    }
}

/// The cards of each lane, in order.
fn members(scene: &Scene) -> Vec<Vec<usize>> {
    let mut members = vec![Vec::new(); scene.lanes.len()];
    for (n, card) in scene.cards.iter().enumerate() {
        members[card.lane].push(n);
    }
    members
}

/// Boxes that share a channel below them.
#[derive(Default)]
struct Row {
    boxes: Vec<Node>,
    /// Ends of wires that leave at the bottom, as (wire, end).
    exits: Vec<(usize, usize)>,
    top: i32,
    bottom: i32,
    /// Tracks of wires that leave for the gutter, then of those within the row.
    tracks: i32,
}

/// A layout in the making.
struct Plan<'a> {
    scene: &'a Scene,
    sizes: Sizes,
    columns: usize,
    /// Of devices, then of each lane.
    rows: Vec<Row>,
    lane_rows: Vec<Vec<usize>>,
    shelves: Vec<Vec<usize>>,
    row_of: BTreeMap<Node, usize>,
    /// Wires that end in a slot of a lane, as (wire, end).
    slots: Vec<Vec<(usize, usize)>>,
    is_home: Vec<bool>,
    /// The cards of each lane, in order.
    members: Vec<Vec<usize>>,
    /// The wires of each card to its own lane, with the room for a label right of each.
    homes: BTreeMap<Node, Vec<(usize, i32)>>,
    /// Where the end of a wire is: (wire, end).
    ports: BTreeMap<(usize, usize), Point>,
    /// The height at which the end of a wire meets the gutter.
    levels: BTreeMap<(usize, usize), i32>,
    layout: Layout,
}

impl<'a> Plan<'a> {
    fn new(scene: &'a Scene, density: Density, columns: usize) -> Self {
        let layout = Layout {
            density,
            width: 0,
            height: 0,
            host: Rect::default(),
            lanes: vec![LanePlace::default(); scene.lanes.len()],
            cards: vec![Rect::default(); scene.cards.len()],
            devices: vec![Rect::default(); scene.devices.len()],
            wires: vec![WirePlace::default(); scene.wires.len()],
            notes: 0,
        };
        Self {
            scene,
            sizes: density.sizes(),
            columns,
            rows: Vec::new(),
            lane_rows: vec![Vec::new(); scene.lanes.len()],
            shelves: Vec::new(),
            row_of: BTreeMap::new(),
            slots: vec![Vec::new(); scene.lanes.len()],
            is_home: scene.wires.iter().map(|wire| wire.is_home(scene)).collect(),
            members: members(scene),
            homes: BTreeMap::new(),
            ports: BTreeMap::new(),
            levels: BTreeMap::new(),
            layout,
        }
    }

    fn place(mut self) -> Layout {
        self.make_rows();
        self.find_exits();
        self.put_on_shelves();
        self.place_across();
        self.place_ports();
        self.place_down();
        self.route();
        self.layout
    }

    /// The width for panels, without the gutter.
    fn content(&self) -> i32 {
        let columns = i32::try_from(self.columns).unwrap_or(i32::MAX);
        columns * (self.sizes.card + self.sizes.gap) - self.sizes.gap + 2 * self.sizes.pad
    }

    fn make_rows(&mut self) {
        let per_row = usize::try_from((self.content() + 24) / (DEVICE.0 + 24)).unwrap_or(1).max(1);
        let devices: Vec<usize> = (0..self.scene.devices.len()).collect();
        for chunk in devices.chunks(per_row) {
            self.add_row(chunk.iter().map(|device| Node::Device(*device)).collect());
        }
        for lane in 0..self.scene.lanes.len() {
            for chunk in self.members[lane].clone().chunks(self.lane_columns(lane)) {
                let row = self.add_row(chunk.iter().map(|card| Node::Card(*card)).collect());
                self.lane_rows[lane].push(row);
            }
        }
    }

    fn add_row(&mut self, boxes: Vec<Node>) -> usize {
        let row = self.rows.len();
        self.row_of.extend(boxes.iter().map(|node| (*node, row)));
        self.rows.push(Row { boxes, ..Row::default() });
        row
    }

    fn find_exits(&mut self) {
        for (n, wire) in self.scene.wires.iter().enumerate().filter(|(n, _)| !self.is_home[*n]) {
            for (side, end) in wire.ends.iter().enumerate() {
                match end.node {
                    Node::Lane(lane) => self.slots[lane].push((n, side)),
                    node => self.rows[self.row_of[&node]].exits.push((n, side)),
                }
            }
        }
    }

    /// Whether both ends leave into the same channel.
    fn within_row(&self, wire: &Wire) -> bool {
        let row = |n: usize| self.row_of.get(&wire.ends[n].node);
        row(0).is_some() && row(0) == row(1)
    }

    /// Cards side by side in a lane, such that its last row is not much shorter than the others.
    fn lane_columns(&self, lane: usize) -> usize {
        let cards = self.members[lane].len();
        cards.div_ceil(cards.div_ceil(self.columns).max(1)).max(1)
    }

    fn lane_width(&self, lane: usize) -> i32 {
        let cards = self.lane_columns(lane);
        let cards = i32::try_from(cards).unwrap_or_default();
        let cards = cards * (self.sizes.card + self.sizes.gap) - self.sizes.gap;
        let place = &self.scene.lanes[lane];
        let words: usize = place.words.iter().map(|word| word.chars().count() + 3).sum();
        let text = 10 * place.name.chars().count() + 7 * words + 40;
        let text = i32::try_from(text.min(560)).unwrap_or_default().max(260) + self.slot_room(lane);
        let text = text.min(self.content());
        // From two slots on they hang at a trunk of their own, right of the cards.
        let beside = if self.slots[lane].len() > 2 { SLOT_LABEL + 12 } else { 0 };
        (cards + 2 * self.sizes.pad + beside).max(text)
    }

    fn slot_room(&self, lane: usize) -> i32 {
        if self.slots[lane].is_empty() { 0 } else { SLOT_LABEL }
    }

    /// Lanes that nothing leaves stand side by side; one with wires to elsewhere is the last on its
    /// shelf, so that they do not cross another.
    fn put_on_shelves(&mut self) {
        let mut room = 0;
        for lane in 0..self.scene.lanes.len() {
            let exits = |row: &usize| !self.rows[*row].exits.is_empty();
            let is_tied = !self.slots[lane].is_empty() || self.lane_rows[lane].iter().any(exits);
            let width = self.lane_width(lane);
            if self.shelves.is_empty() || room < width {
                self.shelves.push(Vec::new());
                room = self.content();
            }
            if let Some(shelf) = self.shelves.last_mut() {
                shelf.push(lane);
            }
            room = if is_tied { 0 } else { room - width - 24 };
        }
    }

    fn place_across(&mut self) {
        let left = MARGIN * 2;
        for row in self.rows.iter().filter(|row| matches!(row.boxes[0], Node::Device(_))) {
            let mut x = left;
            for node in &row.boxes {
                if let Node::Device(device) = node {
                    self.layout.devices[*device] = Rect { x, y: 0, w: DEVICE.0, h: DEVICE.1 };
                }
                x += DEVICE.0 + 24;
            }
        }
        for shelf in self.shelves.clone() {
            let mut x = left;
            for lane in shelf {
                let w = self.lane_width(lane);
                self.layout.lanes[lane].panel = Rect { x, y: 0, w, h: 0 };
                for row in self.lane_rows[lane].clone() {
                    self.place_cards(row, x + self.sizes.pad);
                }
                x += w + 24;
            }
        }
    }

    fn place_cards(&mut self, row: usize, left: i32) {
        let mut x = left;
        for node in &self.rows[row].boxes {
            if let Node::Card(card) = node {
                let h = card_height(&self.scene.cards[*card], self.layout.density);
                self.layout.cards[*card] = Rect { x, y: 0, w: self.sizes.card, h };
            }
            x += self.sizes.card + self.sizes.gap;
        }
    }

    fn rect(&self, node: Node) -> Rect {
        match node {
            Node::Lane(lane) => self.layout.lanes[lane].bar,
            Node::Card(card) => self.layout.cards[card],
            Node::Device(device) => self.layout.devices[device],
        }
    }

    /// Spreads the ends of wires over the edges of their boxes; heights are not known yet.
    fn place_ports(&mut self) {
        let mut edges: BTreeMap<(Node, bool), Vec<(usize, usize)>> = BTreeMap::new();
        for (n, wire) in self.scene.wires.iter().enumerate() {
            for (side, end) in wire.ends.iter().enumerate() {
                if !matches!(end.node, Node::Lane(_)) {
                    edges.entry((end.node, self.is_home[n])).or_default().push((n, side));
                }
            }
        }
        for ((node, is_home), ends) in edges {
            let rect = self.rect(node);
            let place = |n: usize| spread(rect.x, rect.w, n, ends.len());
            for (n, end) in ends.iter().enumerate() {
                self.ports.insert(*end, (place(n), 0));
                if is_home {
                    let next = if n + 1 < ends.len() { place(n + 1) } else { rect.right() };
                    self.homes.entry(node).or_default().push((end.0, next - place(n)));
                }
            }
        }
        for row in 0..self.rows.len() {
            self.rows[row].tracks = i32::try_from(self.track_order(row).len()).unwrap_or_default();
        }
    }

    /// The wires of a row's channel from its top to its bottom: those from the right first, so
    /// that none crosses another on its way to the gutter.
    fn track_order(&self, row: usize) -> Vec<(usize, usize)> {
        let exits = &self.rows[row].exits;
        let inner = |end: &&(usize, usize)| self.within_row(&self.scene.wires[end.0]);
        let mut within: Vec<_> =
            exits.iter().filter(inner).filter(|end| end.1 == 0).copied().collect();
        within.sort_by_key(|(wire, _)| {
            let x = |side| self.ports.get(&(*wire, side)).map_or(0, |port| port.0);
            ((x(0) - x(1)).abs(), *wire)
        });
        let mut outer: Vec<_> = exits.iter().filter(|end| !inner(end)).copied().collect();
        outer.sort_by_key(|end| (std::cmp::Reverse(self.ports.get(end).map(|port| port.0)), *end));
        within.extend(outer);
        within
    }

    fn place_down(&mut self) {
        let mut y = SKY + EDGE;
        for row in 0..self.rows.len() {
            if matches!(self.rows[row].boxes[0], Node::Device(_)) {
                y = self.place_row(row, y) + 10;
            }
        }
        y += 6;
        for shelf in self.shelves.clone() {
            let bottoms = shelf.iter().map(|lane| self.place_lane(*lane, y)).collect::<Vec<_>>();
            y = bottoms.into_iter().max().unwrap_or(y) + 26;
        }
        self.layout.host = Rect { x: MARGIN, y: SKY, w: 0, h: y - SKY };
        self.layout.notes = y + 26;
        let notes = i32::try_from(self.scene.unseen.len()).unwrap_or_default();
        self.layout.height = y + 20 + notes * 18 + if notes > 0 { 16 } else { 0 };
    }

    /// Places a row below `y`, and returns where its channel ends.
    fn place_row(&mut self, row: usize, y: i32) -> i32 {
        let mut bottom = y;
        for node in self.rows[row].boxes.clone() {
            let rect = match node {
                Node::Card(card) => &mut self.layout.cards[card],
                Node::Device(device) => &mut self.layout.devices[device],
                Node::Lane(_) => continue,
            };
            rect.y = y;
            bottom = bottom.max(rect.bottom());
        }
        let exits = self.rows[row].exits.clone();
        for (wire, side) in exits {
            let rect = self.rect(self.scene.wires[wire].ends[side].node);
            if let Some(port) = self.ports.get_mut(&(wire, side)) {
                port.1 = rect.bottom();
            }
        }
        (self.rows[row].top, self.rows[row].bottom) = (y, bottom);
        for (n, end) in self.track_order(row).into_iter().enumerate() {
            let level = bottom + 16 + i32::try_from(n).unwrap_or_default() * TRACK;
            self.levels.insert(end, level);
        }
        let tracks = self.rows[row].tracks;
        bottom + if tracks > 0 { 18 + tracks * TRACK } else { 14 }
    }

    /// Places a lane below `y`, and returns where it ends.
    fn place_lane(&mut self, lane: usize, y: i32) -> i32 {
        let Rect { x, w, .. } = self.layout.lanes[lane].panel;
        let hang = &self.scene.lanes[lane].hang;
        let has_rail = *hang < Hang::Apart;
        let mut place = LanePlace { bar: Rect { x, y, w, h: BAR }, ..LanePlace::default() };
        place.words = x + w - 14 - self.slot_room(lane);
        let mut bottom = y + BAR;
        for (n, row) in self.lane_rows[lane].clone().into_iter().enumerate() {
            let rail = if n == 0 { bottom } else { bottom + RAIL };
            let drop = if has_rail { self.sizes.drop } else { 8 };
            let end = self.place_row(row, rail + drop);
            self.place_homes(row, rail);
            if n > 0 && has_rail {
                let last = self.rows[row].boxes.last().map(|node| self.rect(*node).right());
                let last = last.unwrap_or_default() - self.sizes.card / 4;
                place.rails.push((bottom + RAIL / 2, x + 10, last));
                place.trunks = vec![(x + 10, y + BAR, bottom + RAIL / 2)];
            }
            bottom = end;
        }
        bottom = self.place_slots(lane, &mut place, bottom);
        place.panel = Rect { x, y, w, h: bottom - y };
        self.layout.lanes[lane] = place;
        bottom
    }

    /// The short ways up from the cards of a row to the rail above them.
    fn place_homes(&mut self, row: usize, rail: i32) {
        for node in &self.rows[row].boxes {
            let top = self.rect(*node).y;
            for (n, room) in self.homes.get(node).into_iter().flatten() {
                let Some((x, y)) = self.ports.get_mut(&(*n, 0)) else { continue };
                *y = top;
                let label = Some((*x + 6, (rail + top) / 2 + 1, room - 10));
                self.layout.wires[*n] = WirePlace { points: vec![(*x, top), (*x, rail)], label };
            }
        }
    }

    /// Gives each wire from elsewhere a height at which it ends in the lane, beside the cards and
    /// not where others leave; returns where the lane ends.
    fn place_slots(&mut self, lane: usize, place: &mut LanePlace, bottom: i32) -> i32 {
        let mut slots = self.slots[lane].clone();
        let right = place.bar.right();
        // From above first, so that the wires keep their order in the gutter.
        slots.sort_by_key(|(wire, side)| {
            let far = &self.scene.wires[*wire].ends[1 - *side];
            (far.node, far.name.clone())
        });
        let rows = self.lane_rows[lane].iter().map(|row| &self.rows[*row]);
        let taken: Vec<(i32, i32)> = rows
            .filter(|row| row.tracks > 0)
            .map(|row| (row.bottom + 8, row.bottom + 24 + row.tracks * TRACK))
            .collect();
        let few = slots.len() <= 2;
        let trunk = right - SLOT_LABEL;
        let mut y = if few { place.bar.y + 12 } else { place.bar.bottom() + SLOT };
        if slots.len() == 1 {
            y = place.bar.y + BAR / 2;
        }
        for end in slots {
            while let Some((_, past)) = taken.iter().find(|(from, to)| (*from..*to).contains(&y)) {
                y = *past;
            }
            self.ports.insert(end, (if few { right } else { trunk }, y));
            self.levels.insert(end, y);
            let x = if few { right - SLOT_LABEL + 8 } else { trunk + 8 };
            let label = if few { y + 3 } else { y - 3 };
            // The label is the second end's name, where that is not of a card.
            let is_named =
                end.1 == 1 || !matches!(self.scene.wires[end.0].ends[1].node, Node::Lane(_));
            if is_named {
                self.layout.wires[end.0].label = Some((x, label, SLOT_LABEL - 16));
            }
            y += SLOT;
        }
        if few {
            return bottom;
        }
        place.trunks.push((trunk, place.bar.bottom(), y - SLOT));
        bottom.max(y)
    }

    /// Leads what goes elsewhere through the gutter, and closes the drawing.
    fn route(&mut self) {
        let gutter = self.gutter();
        let tracks = self.tracks();
        let mut used = 0;
        for n in (0..self.scene.wires.len()).filter(|n| !self.is_home[*n]) {
            let (Some(&a), Some(&b)) = (self.ports.get(&(n, 0)), self.ports.get(&(n, 1))) else {
                continue;
            };
            let level = |side| self.levels.get(&(n, side)).copied();
            // Cables have the names of both ends where they end.
            let has_label = self.scene.wires[n].tie != Tie::Cable;
            let mut points = vec![a];
            if self.within_row(&self.scene.wires[n]) {
                let y = level(0).unwrap_or(a.1 + 12);
                points.extend([(a.0, y), (b.0, y)]);
                let label = (a.0.min(b.0) + 8, y - 3, (a.0 - b.0).abs() - 16);
                self.layout.wires[n].label = Some(label).filter(|_| has_label);
            } else {
                let track = tracks.get(&n).copied().unwrap_or_default();
                used = used.max(track + 1);
                let x = gutter + 14 + i32::try_from(track).unwrap_or_default() * TRACK;
                let (y1, y2) = (level(0).unwrap_or(a.1), level(1).unwrap_or(b.1));
                points.extend([(a.0, y1), (x, y1), (x, y2), (b.0, y2)]);
                let label = &mut self.layout.wires[n].label;
                *label = label.or(Some((a.0 + 60, y1 - 3, 90)).filter(|_| has_label));
            }
            points.push(b);
            points.dedup();
            self.layout.wires[n].points = points;
        }
        let used = i32::try_from(used).unwrap_or_default();
        let right = gutter + if used > 0 { 22 + used * TRACK } else { 0 } + MARGIN;
        self.layout.host.w = (right - MARGIN).max(560);
        self.layout.width = self.layout.host.right() + MARGIN;
    }

    /// Where the gutter begins: right of everything.
    fn gutter(&self) -> i32 {
        let panels = self.layout.lanes.iter().map(|lane| lane.panel.right());
        panels.chain(self.layout.devices.iter().map(Rect::right)).max().unwrap_or(MARGIN * 2)
    }

    /// The gutter's track of each wire: short ones inside, and two in one track where they do not
    /// meet.
    fn tracks(&self) -> BTreeMap<usize, usize> {
        let mut spans: Vec<(i32, i32, i32, usize)> = Vec::new();
        for n in (0..self.scene.wires.len()).filter(|n| !self.is_home[*n]) {
            let level = |side| self.levels.get(&(n, side)).copied();
            if let (Some(a), Some(b)) = (level(0), level(1)) {
                spans.push(((a - b).abs(), a.min(b), a.max(b), n));
            }
        }
        spans.sort_unstable();
        let mut tracks: Vec<Vec<(i32, i32)>> = Vec::new();
        let mut track_of = BTreeMap::new();
        for (_, from, to, n) in spans {
            let is_free = |track: &Vec<(i32, i32)>| {
                track.iter().all(|(a, b)| to + TRACK <= *a || *b + TRACK <= from)
            };
            let track = tracks.iter().position(is_free).unwrap_or(tracks.len());
            if track == tracks.len() {
                tracks.push(Vec::new());
            }
            tracks[track].push((from, to));
            track_of.insert(n, track);
        }
        track_of
    }
}

fn spread(start: i32, length: i32, n: usize, of: usize) -> i32 {
    let (n, of) = (i32::try_from(n).unwrap_or_default(), i32::try_from(of).unwrap_or_default());
    // A single one stands left of the middle, so that its label has room.
    if of == 1 { start + 36.min(length / 2) } else { start + length * (2 * n + 1) / (2 * of) }
}

/// How wide a text is about, in a system font of this size.
pub fn text_width(text: &str, size: f32, is_mono: bool) -> f32 {
    let em = |c: char| match c {
        _ if is_wide(c) => 1.05,
        _ if is_mono => 0.605,
        // As wide as in DejaVu Sans, the widest of the fonts that systems come with.
        'i' | 'j' | 'l' | '.' | ',' | ':' | ';' | '\'' | '|' | '!' | 'I' | ' ' => 0.31,
        'f' | 't' | 'r' | '(' | ')' | '[' | ']' | '-' | '/' => 0.4,
        'm' | 'w' | 'M' | 'W' | '@' | '%' => 0.95,
        c if c.is_uppercase() => 0.72,
        _ => 0.62,
    };
    text.chars().map(em).sum::<f32>() * size
}

/// The same for bold text.
pub fn bold_width(text: &str, size: f32) -> f32 {
    text_width(text, size, false) * 1.13
}

/// East Asian scripts and pictures.
fn is_wide(c: char) -> bool {
    matches!(c, '\u{1100}'..='\u{115f}' | '\u{2e80}'..='\u{a4cf}' | '\u{ac00}'..='\u{d7a3}'
        | '\u{f900}'..='\u{faff}' | '\u{fe30}'..='\u{fe6f}' | '\u{ff00}'..='\u{ff60}'
        | '\u{1f000}'..='\u{3fffd}')
}

/// The text, or as much of its beginning as fits into `width`, with an ellipsis.
pub fn fitted(text: &str, width: i32, size: f32, is_mono: bool) -> String {
    #[expect(clippy::cast_precision_loss, reason = "widths of a drawing are small")]
    let width = width as f32;
    if text_width(text, size, is_mono) <= width {
        return text.to_owned();
    }
    let mut fits = String::new();
    let mut used = text_width("…", size, is_mono);
    for c in text.chars() {
        let mut buffer = [0; 4];
        used += text_width(c.encode_utf8(&mut buffer), size, is_mono);
        if used > width {
            break;
        }
        fits.push(c);
    }
    if fits.is_empty() { String::new() } else { format!("{fits}…") }
}

/// The same for what is called by a path: of that, the end tells more than the beginning.
pub fn fitted_name(text: &str, width: i32, size: f32) -> String {
    if !text.starts_with("netns:/") || fitted(text, width, size, false) == text {
        return fitted(text, width, size, false);
    }
    let backwards: String = text.chars().rev().collect();
    fitted(&backwards, width, size, false).chars().rev().collect()
}
