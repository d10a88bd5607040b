//! The drawing as SVG that needs nothing else: no font, no script, no style sheet.

use std::fmt;

use super::{
    Card, Device, Hang, Node, Scene, Tie, Wire,
    layout::{
        Density, LanePlace, Layout, Point, Rect, WirePlace, bold_width, fitted, fitted_name,
        text_width,
    },
};

/// What the drawing looks like, by day and by night.
pub(super) const STYLE: &str = include_str!("picture.css");

const HUES: usize = 8;

/// Returns the drawing as a file of its own.
pub fn svg(scene: &Scene) -> String {
    let layout = Layout::of(scene);
    let mut pen = Pen::default();
    let (w, h) = (layout.width, layout.height);
    pen.put(format_args!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" role=\"img\" \
         aria-label=\"Container networks of the host\" width=\"{w}\" height=\"{h}\" \
         viewBox=\"0 0 {w} {h}\">\n<desc>{}</desc>\n<style>\n{STYLE}</style>\n",
        escaped(&summary(scene))
    ));
    pen.put(format_args!("{}</svg>\n", picture(scene, &layout)));
    pen.out
}

/// Returns what stands within the `svg` element. Cards, lanes, devices and wires are groups whose
/// ids are a letter and their number in the scene.
pub(super) fn picture(scene: &Scene, layout: &Layout) -> String {
    let mut pen = Pen::default();
    let (w, h) = (layout.width, layout.height);
    pen.rect("sheet", &Rect { x: 0, y: 0, w, h }, 0);
    pen.rect("host", &layout.host, 14);
    pen.heading(scene, layout);
    for (n, place) in layout.lanes.iter().enumerate() {
        pen.panel(scene, n, place);
    }
    for (n, device) in scene.devices.iter().enumerate() {
        pen.device(n, device, &layout.devices[n], layout);
    }
    for (n, card) in scene.cards.iter().enumerate() {
        let is_lonely = scene.lanes[card.lane].hang == Hang::NoNetwork;
        pen.card(n, card, &layout.cards[n], (layout.density, is_lonely));
    }
    for (is_home, (n, wire)) in wires(scene).filter(|(is_home, _)| !is_home) {
        pen.wire(scene, n, (wire, is_home), &layout.wires[n]);
    }
    for (n, place) in layout.lanes.iter().enumerate() {
        pen.rails(&hue(scene, n), place);
    }
    for (is_home, (n, wire)) in wires(scene).filter(|(is_home, _)| *is_home) {
        pen.wire(scene, n, (wire, is_home), &layout.wires[n]);
    }
    for (n, line) in scene.unseen.iter().enumerate() {
        let y = layout.notes + i32::try_from(n).unwrap_or_default() * 18;
        let line = fitted(&format!("Not seen: {line}"), w - 80, 12.0, false);
        pen.text("warning", (40, y), 12.0, &line);
    }
    pen.out
}

/// The wires with their numbers, and whether they are cards' to their own lanes.
fn wires(scene: &Scene) -> impl Iterator<Item = (bool, (usize, &Wire))> {
    scene.wires.iter().enumerate().map(|(n, wire)| (wire.is_home(scene), (n, wire)))
}

/// The counts in words.
pub(super) fn summary(scene: &Scene) -> String {
    let counts = &scene.counts;
    let of = |n: usize, one: &str| format!("{n} {one}{}", if n == 1 { "" } else { "s" });
    let mut words = vec![
        of(counts.containers, "container"),
        of(counts.namespaces, "namespace"),
        of(counts.bridges, "bridge"),
        of(counts.cables, "cable"),
    ];
    if counts.orphans > 0 {
        words.push(of(counts.orphans, "orphan"));
    }
    if counts.hidden > 0 {
        words.push(format!("{} not drawn", of(counts.hidden, "namespace")));
    }
    words.join(" · ")
}

/// Text for XML, in elements and attributes.
pub(super) fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            // What XML 1.0 has no place for.
            '\u{0}'..='\u{8}'
            | '\u{b}'
            | '\u{c}'
            | '\u{e}'..='\u{1f}'
            | '\u{fffe}'
            | '\u{ffff}' => {
                safe.push('\u{fffd}');
            }
            c => safe.push(c),
        }
    }
    safe
}

#[derive(Default)]
struct Pen {
    out: String,
}

impl Pen {
    fn put(&mut self, what: fmt::Arguments<'_>) {
        fmt::Write::write_fmt(&mut self.out, what)
            .expect("a String takes what there is memory for");
    }

    fn rect(&mut self, class: &str, rect: &Rect, round: i32) {
        let Rect { x, y, w, h } = rect;
        self.put(format_args!(
            "<rect class=\"{class}\" x=\"{x}\" y=\"{y}\" width=\"{w}\" height=\"{h}\" rx=\"{round}\"/>\n"
        ));
    }

    fn text(&mut self, class: &str, (x, y): Point, size: f32, text: &str) {
        self.put(format_args!(
            "<text class=\"{class}\" x=\"{x}\" y=\"{y}\" font-size=\"{size}\">{}</text>\n",
            escaped(text)
        ));
    }

    fn open(&mut self, class: &str, id: &str, title: &str) {
        // What can be told apart can be told to a screen reader, and reached with the keyboard.
        self.put(format_args!(
            "<g class=\"{class}\" id=\"{id}\"><title>{}</title>\n",
            escaped(title)
        ));
    }

    fn close(&mut self) {
        self.out.push_str("</g>\n");
    }

    /// A small rounded label with its right end at `x`; returns its left end.
    fn pill(&mut self, (x, y): Point, text: &str) -> i32 {
        let w = pixels(text_width(text, 10.0, false)) + 14;
        self.rect("pill", &Rect { x: x - w, y: y - 12, w, h: 17 }, 8);
        self.text("faint", (x - w + 7, y), 10.0, text);
        x - w
    }

    fn heading(&mut self, scene: &Scene, layout: &Layout) {
        let x = layout.host.x + 2;
        self.text("name", (x, 40), 20.0, "host");
        let beside = x + pixels(bold_width("host", 20.0)) + 14;
        self.text("faint mono", (beside, 40), 11.5, &scene.host);
        let after = beside + pixels(text_width(&scene.host, 11.5, true)) + 18;
        let room = layout.host.right() - after;
        self.text("faint", (after, 40), 12.5, &fitted(&summary(scene), room, 12.5, false));
    }

    fn panel(&mut self, scene: &Scene, n: usize, place: &LanePlace) {
        let lane = &scene.lanes[n];
        let hue = hue(scene, n);
        let title = format!("{} {}", lane.name, lane.words.join(" "));
        let class = if lane.hang == Hang::NoNetwork { "lane lonely" } else { "lane" };
        self.open(class, &format!("l{n}"), title.trim_end());
        self.rect(&format!("t{hue}"), &place.panel, 10);
        let is_bar = lane.hang < Hang::Apart;
        let fill = if is_bar { format!("bar f{hue}") } else { "bar apart".to_owned() };
        self.rect(&fill, &place.bar, 8);
        let (name, faint) = if is_bar { ("name onbar", "onbar-faint") } else { ("name", "faint") };
        let (x, y) = (place.bar.x + 14, place.bar.y + 23);
        let text = fitted(&lane.name, place.words - x, 15.5, false);
        self.text(name, (x, y), 13.5, &text);
        let after = x + pixels(bold_width(&text, 13.5)) + 14;
        let mut words = lane.words.clone();
        words.extend((!lane.up).then(|| "down".to_owned()));
        let members =
            scene.wires.iter().filter(|wire| wire.ends.iter().any(|e| e.node == Node::Lane(n)));
        words.extend((is_bar && members.count() == 0).then(|| "no members".to_owned()));
        let words = fitted(&words.join(" · "), place.words - after, 12.0, false);
        self.text(faint, (after, y), 12.0, &words);
        self.close();
    }

    /// The bar's continuations, which lie on wires to elsewhere.
    fn rails(&mut self, hue: &str, place: &LanePlace) {
        for (x, y1, y2) in &place.trunks {
            self.put(format_args!("<path class=\"rail s{hue}\" d=\"M{x} {y1}V{y2}\"/>\n"));
        }
        for (y, x1, x2) in &place.rails {
            self.put(format_args!("<path class=\"rail s{hue}\" d=\"M{x1} {y}H{x2}\"/>\n"));
        }
    }

    fn wire(&mut self, scene: &Scene, n: usize, (wire, is_home): (&Wire, bool), place: &WirePlace) {
        let lane = wire.ends.iter().rev().find_map(|end| match end.node {
            Node::Lane(lane) => Some(lane),
            _ => None,
        });
        let hue = match lane {
            _ if !wire.proven => "w".to_owned(),
            Some(lane) => hue(scene, lane),
            None => "n".to_owned(),
        };
        let mut class = "wire".to_owned();
        class.push_str(if wire.up { "" } else { " down" });
        class.push_str(if wire.tie == Tie::Cable && wire.proven { "" } else { " on" });
        self.open(&class, &format!("w{n}"), &wire_title(scene, wire));
        let way = rounded(&place.points);
        if !is_home {
            self.put(format_args!("<path class=\"halo\" d=\"{way}\"/>\n"));
        }
        self.put(format_args!("<path class=\"line s{hue}\" d=\"{way}\"/>\n"));
        self.put(format_args!("<path class=\"hit\" d=\"{way}\"/>\n"));
        for (x, y) in place.points.first().into_iter().chain(place.points.last()) {
            self.put(format_args!("<circle class=\"p{hue}\" cx=\"{x}\" cy=\"{y}\" r=\"4\"/>\n"));
        }
        for (end, point) in wire.ends.iter().zip([place.points.first(), place.points.last()]) {
            if let (false, Node::Card(_), Some((x, y))) = (is_home, end.node, point) {
                self.text("faint mono", (x + 7, y + 11), 9.0, &fitted(&end.name, 60, 9.0, true));
            }
        }
        if let Some((x, y, room)) = place.label {
            let on_bar = lane.is_some() && !is_home && place.points.last().is_some_and(|p| y > p.1);
            let class = if on_bar { "onbar mono" } else { "faint mono" };
            let size = if is_home { 9.5 } else { 10.0 };
            self.text(class, (x, y), size, &fitted(wire.label(), room, size, true));
        }
        self.close();
    }

    fn device(&mut self, n: usize, device: &Device, rect: &Rect, layout: &Layout) {
        let class = if device.orphan { "device warn" } else { "device" };
        let title = format!("{} {} {}", device.kind, device.name, device.words.join(" "));
        self.open(class, &format!("d{n}"), title.trim());
        let x = rect.x + rect.w / 2;
        if device.is_physical() && rect.y < layout.host.y + 60 {
            let top = layout.host.y - 12;
            self.put(format_args!("<path class=\"uplink\" d=\"M{x} {}V{top}\"/>\n", rect.y));
            let gateways: Vec<String> = device.gateways.iter().map(ToString::to_string).collect();
            match gateways.is_empty() {
                true => self
                    .put(format_args!("<circle class=\"pn\" cx=\"{x}\" cy=\"{top}\" r=\"4\"/>\n")),
                false => self.gateway((x, top), &gateways.join(" · ")),
            }
        }
        self.rect(if device.is_physical() || device.orphan { "box" } else { "box loose" }, rect, 8);
        let dot = if device.up { "good" } else { "off" };
        self.put(format_args!(
            "<circle class=\"{dot}\" cx=\"{}\" cy=\"{}\" r=\"4\"/>\n",
            rect.x + 15,
            rect.y + 17
        ));
        let kind = match device.kind.as_str() {
            "" => "device",
            _ if device.orphan => "orphan",
            kind => kind,
        };
        let left = self.pill((rect.right() - 9, rect.y + 21), kind);
        let name = fitted(&device.name, left - rect.x - 32, 14.5, false);
        self.text("name", (rect.x + 25, rect.y + 21), 12.5, &name);
        let (class, mono) = if device.orphan { ("warning", false) } else { ("faint mono", true) };
        let words = fitted(&device.words.join(" · "), rect.w - 24, 10.5, mono);
        self.text(class, (rect.x + 12, rect.y + 39), 10.5, &words);
        self.close();
    }

    fn gateway(&mut self, (x, y): Point, gateways: &str) {
        let text = format!("gateway {gateways}");
        let w = pixels(text_width(&text, 11.0, false)) + 24;
        self.rect("pill", &Rect { x: x - w / 2, y: y - 22, w, h: 22 }, 11);
        self.put(format_args!(
            "<text x=\"{x}\" y=\"{}\" font-size=\"11\" text-anchor=\"middle\">{}</text>\n",
            y - 7,
            escaped(&text)
        ));
    }

    fn card(&mut self, n: usize, card: &Card, rect: &Rect, (density, is_lonely): (Density, bool)) {
        let is_warning = card.forlorn || card.ports.iter().any(|port| port.orphan);
        let mut class = "card".to_owned();
        class.push_str(if is_warning { " warn" } else { "" });
        class.push_str(if is_lonely { " lonely" } else { "" });
        self.open(&class, &format!("c{n}"), &card.lines().join("\n"));
        self.rect(if card.held.is_empty() { "box" } else { "box loose" }, rect, 8);
        match density {
            Density::Roomy => self.roomy(card, rect),
            Density::Compact => self.compact(card, rect),
        }
        self.close();
    }

    fn roomy(&mut self, card: &Card, rect: &Rect) {
        let (x, right) = (rect.x + 14, rect.right() - 10);
        let mut y = rect.y + 25;
        let runtimes = runtimes(card);
        let left = if runtimes.is_empty() { right } else { self.pill((right, y), &runtimes) };
        self.text("name", (x, y), 13.0, &fitted_name(&card.label, left - x - 8, 15.0));
        match card.chips.as_slice() {
            [] => {}
            [only] if only.image.is_empty() => {}
            [only] => {
                y += 16;
                self.text("faint", (x, y), 11.0, &fitted(&only.image, right - x, 11.0, false));
            }
            chips => {
                for chip in chips.iter().take(6) {
                    y += 19;
                    self.rect("pill", &Rect { x, y: y - 12, w: right - x - 4, h: 17 }, 6);
                    let text = format!("{} · {}", chip.name, chip.image);
                    self.text(
                        "",
                        (x + 8, y),
                        10.5,
                        &fitted(text.trim_end_matches(" · "), right - x - 20, 10.5, false),
                    );
                }
            }
        }
        y += 6;
        for (class, name, text) in lines(card) {
            y += 17;
            if name.is_empty() {
                self.text(class, (x, y), 11.0, &fitted(&text, right - x, 11.0, false));
                continue;
            }
            let name = fitted(&name, 70, 10.5, true);
            self.text("faint mono", (x, y), 10.5, &name);
            let at = x + (pixels(text_width(&name, 10.5, true)) + 10).max(38);
            self.text(class, (at, y), 10.5, &fitted(&text, right - at, 10.5, true));
        }
    }

    fn compact(&mut self, card: &Card, rect: &Rect) {
        let (x, y, room) = (rect.x + 10, rect.y, rect.w - 18);
        self.text("name", (x, y + 19), 11.5, &fitted_name(&card.label, room, 13.3));
        let image = card.chips.first().map(|chip| chip.image.as_str()).unwrap_or_default();
        let more = match card.chips.len() {
            0 | 1 => String::new(),
            n => format!("{n} × "),
        };
        let made = format!("{more}{} {image}", runtimes(card));
        let made = match card.held.is_empty() {
            true => made,
            false => card.held.clone(),
        };
        self.text("faint", (x, y + 34), 9.5, &fitted(made.trim(), room, 9.5, false));
        let mut addrs = card.ports.iter().flat_map(|port| &port.addrs);
        let text = match (addrs.next(), addrs.count()) {
            (None, _) => card.ports.iter().map(|p| p.name.as_str()).collect::<Vec<_>>().join(" "),
            (Some(addr), 0) => addr.to_string(),
            (Some(addr), more) => format!("{addr}  +{more}"),
        };
        self.text("mono", (x, y + 49), 10.0, &fitted(&text, room, 10.0, true));
        if let Some(first) = card.published.first() {
            let more = match card.published.len() {
                1 => String::new(),
                n => format!("  +{}", n - 1),
            };
            let text = fitted(&format!("{first}{more}"), room, 9.5, true);
            self.text("faint mono", (x, y + 63), 9.5, &text);
        }
    }
}

/// The lines of a card below its name: a class, what stands before, and the text.
fn lines(card: &Card) -> Vec<(&'static str, String, String)> {
    let mut addrs = Vec::new();
    for port in &card.ports {
        let name = port.name.clone();
        if port.orphan {
            addrs.push(("warning", name, "orphan: no other end found".to_owned()));
            continue;
        }
        if port.addrs.is_empty() {
            addrs.push(("faint mono", name, port.kind.clone()));
            continue;
        }
        for (n, addr) in port.addrs.iter().take(3).enumerate() {
            let name = if n == 0 { name.clone() } else { " ".to_owned() };
            addrs.push(("mono", name, addr.to_string()));
        }
    }
    let more = addrs.len().saturating_sub(8);
    addrs.truncate(8);
    if let Some(last) = addrs.last_mut().filter(|_| more > 0) {
        *last = ("faint", String::new(), format!("and {} more", more + 1));
    }
    let mut ports: Vec<_> =
        card.published.iter().map(|text| ("mono", "⇥".to_owned(), text.clone())).collect();
    let more = ports.len().saturating_sub(4);
    ports.truncate(4);
    if let Some(last) = ports.last_mut().filter(|_| more > 0) {
        *last = ("faint", String::new(), format!("and {} ports more", more + 1));
    }
    addrs.extend(ports);
    if card.forlorn {
        addrs.push(("warning", String::new(), "held by nobody who could be seen".to_owned()));
    } else if !card.held.is_empty() {
        addrs.push(("faint", String::new(), card.held.clone()));
    }
    addrs
}

fn runtimes(card: &Card) -> String {
    let mut runtimes: Vec<&str> = card.chips.iter().map(|chip| chip.runtime.as_str()).collect();
    runtimes.dedup();
    runtimes.join(" ")
}

/// What people call a node.
pub(super) fn node_name(scene: &Scene, node: Node) -> &str {
    match node {
        Node::Lane(lane) => &scene.lanes[lane].name,
        Node::Card(card) => &scene.cards[card].label,
        Node::Device(device) => &scene.devices[device].name,
    }
}

pub(super) fn wire_title(scene: &Scene, wire: &Wire) -> String {
    let side = |n: usize| {
        let end = &wire.ends[n];
        let place = node_name(scene, end.node);
        match end.name.is_empty() || end.name == place {
            true => place.to_owned(),
            false => format!("{} ({place})", end.name),
        }
    };
    let joint = match &wire.tie {
        Tie::Cable => "⇄".to_owned(),
        Tie::On(what) => format!("— {what} —"),
    };
    let doubt = if wire.proven { "" } else { ": not confirmed from the other end" };
    let down = if wire.up { "" } else { ", down" };
    format!("{} {joint} {}{down}{doubt}", side(0), side(1))
}

/// The colour of a lane: one of the bridges', or none.
fn hue(scene: &Scene, lane: usize) -> String {
    let is_bridge = |lane: &&super::Lane| matches!(lane.hang, Hang::Bridge(_));
    match scene.lanes[lane].hang {
        Hang::Bridge(_) => {
            let number = scene.lanes[..lane].iter().filter(is_bridge).count();
            (number % HUES).to_string()
        }
        _ => "n".to_owned(),
    }
}

/// A way with its corners rounded.
fn rounded(points: &[Point]) -> String {
    let Some((first, rest)) = points.split_first() else { return String::new() };
    let mut way = format!("M{} {}", first.0, first.1);
    let mut from = *first;
    for (n, &(x, y)) in rest.iter().enumerate() {
        let Some(&(next_x, next_y)) = rest.get(n + 1) else {
            way.push_str(&format!("L{x} {y}"));
            break;
        };
        let into = (x - from.0).abs() + (y - from.1).abs();
        let out = (next_x - x).abs() + (next_y - y).abs();
        let r = 7.min(into / 2).min(out / 2);
        let (bx, by) = (x - (x - from.0).signum() * r, y - (y - from.1).signum() * r);
        let (ax, ay) = (x + (next_x - x).signum() * r, y + (next_y - y).signum() * r);
        way.push_str(&format!("L{bx} {by}Q{x} {y} {ax} {ay}"));
        from = (x, y);
    }
    way
}

#[expect(clippy::cast_possible_truncation, reason = "widths of a drawing are small")]
fn pixels(width: f32) -> i32 {
    width.ceil() as i32
}
