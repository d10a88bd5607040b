//! The drawing as one page, to attach to a ticket: it needs no network and no other file.
//!
//! Names are others' and may be hostile. They reach the page escaped, as text of the drawing and
//! in a block of data; the script puts them into the page as text only, and the page's policy runs
//! no script but that one.

use std::collections::BTreeMap;

use super::{
    Card, Device, End, Hang, Lane, Node, Scene, Wire, digest,
    dot::id,
    layout::Layout,
    svg::{self, escaped, node_name, wire_title},
};
use crate::{
    map::{is_loopback, is_up, shown},
    model::{LinkId, Netns},
    sight::{LinkFacts, Sight, Workload},
};

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// Returns the page. `scene` is made from `sight`.
pub fn html(scene: &Scene, sight: &Sight) -> String {
    let layout = Layout::of(scene);
    let style = format!("\n{}{STYLE}", svg::STYLE);
    let policy = format!(
        "default-src 'none'; script-src 'sha256-{}'; style-src 'sha256-{}'; base-uri 'none'; \
         form-action 'none'",
        digest::sha256_base64(SCRIPT),
        digest::sha256_base64(&style)
    );
    let summary = escaped(&svg::summary(scene));
    let (w, h) = (layout.width, layout.height);
    let picture = svg::picture(scene, &layout);
    let data = data(scene, sight);
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"{policy}\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <title>Container networks</title>\n<style>{style}</style>\n</head>\n<body>\n{HEADER}\
         <main>\n<svg xmlns=\"http://www.w3.org/2000/svg\" id=\"map\" role=\"group\" \
         aria-label=\"Container networks of the host\" width=\"{w}\" height=\"{h}\" \
         viewBox=\"0 0 {w} {h}\">\n<desc>{summary}</desc>\n{picture}</svg>\n\
         <aside id=\"details\" aria-live=\"polite\" hidden></aside>\n</main>\n\
         <script type=\"application/json\" id=\"data\">{data}</script>\n\
         <script>{SCRIPT}</script>\n</body>\n</html>\n"
    )
}

const HEADER: &str = "<header>\n<strong>Container networks</strong>\n\
    <input id=\"search\" type=\"search\" autocomplete=\"off\" spellcheck=\"false\" \
    placeholder=\"Name, address, MAC, veth, port…  ( / )\" aria-label=\"Search\">\n\
    <output id=\"found\" for=\"search\"></output>\n\
    <label><input id=\"lonely\" type=\"checkbox\" checked> no network</label>\n\
    <span class=\"buttons\"><button id=\"out\" aria-label=\"Smaller\">−</button>\
    <button id=\"fit\">Fit</button><button id=\"in\" aria-label=\"Larger\">+</button></span>\n\
    </header>\n";

/// A heading and what stands below it: a word and what there is to say.
type Section = (String, Vec<(String, String)>);

/// What the page knows of each thing drawn, as JSON.
fn data(scene: &Scene, sight: &Sight) -> String {
    let links = links_by_netns(sight);
    let mut things = Vec::new();
    for (n, card) in scene.cards.iter().enumerate() {
        let sections = card_sections(sight, &links, card);
        things.push(thing(&format!("c{n}"), &card.label, &sections));
    }
    for (n, lane) in scene.lanes.iter().enumerate() {
        let sections = lane_sections(scene, sight, n, lane);
        things.push(thing(&format!("l{n}"), &lane.name, &sections));
    }
    for (n, device) in scene.devices.iter().enumerate() {
        things.push(thing(&format!("d{n}"), &device.name, &device_sections(sight, device)));
    }
    let wires = scene.wires.iter().enumerate().map(|(n, wire)| {
        let [a, b] = [0, 1].map(|side| json(&id(wire.ends[side].node)));
        let thing =
            thing(&format!("w{n}"), &wire_title(scene, wire), &wire_sections(scene, sight, wire));
        format!("{{\"ends\":[{a},{b}],{}", &thing[1..])
    });
    let wires: Vec<String> = wires.collect();
    format!("{{\"things\":[\n{}\n],\"wires\":[\n{}\n]}}", things.join(",\n"), wires.join(",\n"))
}

fn thing(id: &str, title: &str, sections: &[Section]) -> String {
    let parts: Vec<String> = sections
        .iter()
        .filter(|(_, rows)| !rows.is_empty())
        .map(|(heading, rows)| {
            let rows: Vec<String> = rows
                .iter()
                .map(|(key, value)| format!("[{},{}]", json(key), json(value)))
                .collect();
            format!("[{},[{}]]", json(heading), rows.join(","))
        })
        .collect();
    format!("{{\"id\":\"{id}\",\"title\":{},\"sections\":[{}]}}", json(title), parts.join(","))
}

/// A JSON string that may stand in HTML: nothing in it ends the block that it stands in.
fn json(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '<' | '>' | '&' | '\'' | '\u{2028}' | '\u{2029}' => {
                quoted.push_str(&format!("\\u{:04x}", u32::from(c)));
            }
            c if c.is_control() => quoted.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

type Links<'a> = BTreeMap<&'a Netns, Vec<(&'a LinkId, &'a LinkFacts)>>;

fn links_by_netns(sight: &Sight) -> Links<'_> {
    let mut links = Links::new();
    for (id, facts) in &sight.links {
        links.entry(&id.netns).or_default().push((id, facts));
    }
    links
}

fn card_sections(sight: &Sight, links: &Links<'_>, card: &Card) -> Vec<Section> {
    let mut sections = Vec::new();
    let space = sight.spaces.get(&card.netns);
    let workloads = space.map(|space| space.workloads.as_slice()).unwrap_or_default();
    let is_guest = card.netns == Netns::Host;
    // Of all that are in the host's namespace or in none that is seen, the one that the card is.
    let unplaced = sight.unplaced.iter().filter(|_| is_guest);
    let own =
        workloads.iter().chain(unplaced).filter(|w| !is_guest || shown(&w.name) == card.label);
    sections.extend(own.map(|w| ("Container".to_owned(), workload_rows(w))));
    if is_guest {
        return sections;
    }
    let links = links.get(&card.netns).map(Vec::as_slice).unwrap_or_default();
    let links = links.iter().filter(|(id, _)| !is_loopback(id));
    sections.extend(links.map(|(id, facts)| ("Link".to_owned(), link_rows(sight, id, facts))));
    let routes = sight.topology.routes.iter().filter(|route| route.link.netns == card.netns);
    let routes = routes.map(|route| {
        let dst =
            if route.dst.prefix_len() == 0 { "default".to_owned() } else { route.dst.to_string() };
        let via = route.via.map(|via| format!("via {via} ")).unwrap_or_default();
        (dst, format!("{via}dev {}", shown(route.link.name.as_str())))
    });
    sections.push(("Routes".to_owned(), routes.collect()));
    let ports = card.published.iter().filter_map(|port| {
        let (at, to) = port.split_once(' ')?;
        Some((at.to_owned(), to.to_owned()))
    });
    sections.push(("Published ports".to_owned(), ports.collect()));
    let listeners = sight.listeners.iter().filter(|listener| listener.netns == card.netns);
    let listeners = listeners.map(|listener| {
        let who = listener.processes.iter().map(|(pid, comm)| format!("{} ({pid})", shown(comm)));
        (format!("{} {}", listener.proto, listener.at), who.collect::<Vec<_>>().join(", "))
    });
    sections.push(("Listening".to_owned(), listeners.collect()));
    let mut rows =
        vec![("handle".to_owned(), shown(card.netns.container().map_or("", |n| n.as_str())))];
    if let Some(space) = space {
        rows.push(("inode".to_owned(), format!("net:[{}]", space.inode)));
        rows.extend(space.holders.iter().map(|h| ("held by".to_owned(), shown(&h.to_string()))));
    }
    sections.push(("Namespace".to_owned(), rows));
    sections
}

fn workload_rows(workload: &Workload) -> Vec<(String, String)> {
    let row = |key: &str, value: &str| (key.to_owned(), shown(value));
    let mut rows = vec![row("name", &workload.name), row("runtime", &workload.runtime.to_string())];
    rows.extend(workload.image.iter().map(|image| row("image", image)));
    rows.extend(workload.pod.iter().map(|pod| row("pod", pod)));
    rows.push(row("id", &workload.id));
    rows.extend(workload.pid.iter().map(|pid| row("pid", &pid.to_string())));
    if !workload.networks.is_empty() {
        rows.push(row("networks", &workload.networks.join(", ")));
    }
    rows.extend(workload.labels.iter().map(|(key, value)| (shown(key), shown(value))));
    rows
}

fn link_rows(sight: &Sight, id: &LinkId, facts: &LinkFacts) -> Vec<(String, String)> {
    let row = |key: &str, value: String| (key.to_owned(), value);
    let kind = if facts.kind.is_empty() { "device" } else { &facts.kind };
    let state = if is_up(facts) { "up" } else { facts.operstate.as_str() };
    let mut rows = vec![row("name", shown(&format!("{} · {kind} · {state}", id.name)))];
    rows.extend(facts.addrs.iter().map(|addr| row("address", addr.to_string())));
    if let Some(link) = sight.topology.links.get(id) {
        rows.push(row("MAC", format!("{} · MTU {}", link.mac, link.mtu)));
        rows.extend((!link.alias.is_empty()).then(|| row("alias", shown(&link.alias))));
    }
    if let Some(far) = &facts.leads_to {
        let key = if facts.kind == "veth" { "cable to" } else { "lies on" };
        rows.push(row(key, format!("{} ({})", shown(far.name.as_str()), sight.label(&far.netns))));
        let port = sight.links.get(far).and_then(|far| far.master.as_ref());
        rows.extend(port.map(|bridge| row("port of", shown(bridge.name.as_str()))));
    } else if facts.kind == "veth" {
        rows.push(row("cable to", "orphan: its other end was not found".to_owned()));
    }
    rows.extend(facts.master.iter().map(|master| row("member of", shown(master.name.as_str()))));
    rows.extend(facts.details.iter().map(|detail| row("detail", shown(detail))));
    let counters = &facts.counters;
    if counters.rx_packets + counters.tx_packets > 0 {
        let words = |packets, bytes, dropped| {
            format!("{packets} packets, {bytes} bytes, {dropped} dropped")
        };
        rows.push(row(
            "received",
            words(counters.rx_packets, counters.rx_bytes, counters.rx_dropped),
        ));
        rows.push(row("sent", words(counters.tx_packets, counters.tx_bytes, counters.tx_dropped)));
    }
    rows
}

fn lane_sections(scene: &Scene, sight: &Sight, n: usize, lane: &Lane) -> Vec<Section> {
    let mut sections = Vec::new();
    if let Hang::Bridge(id) | Hang::Parent(id) = &lane.hang
        && let Some(facts) = sight.links.get(id)
    {
        let mut rows = link_rows(sight, id, facts);
        rows.extend(
            lane.words
                .iter()
                .filter(|w| w.starts_with("network "))
                .map(|w| ("network".to_owned(), w.trim_start_matches("network ").to_owned())),
        );
        sections.push(("Link".to_owned(), rows));
    }
    let members = scene.wires.iter().filter(|wire| wire.ends[1].node == Node::Lane(n));
    let members = members.map(|wire| {
        let port = if wire.label().is_empty() { "—" } else { wire.label() };
        (port.to_owned(), format!("{} {}", node_name(scene, wire.ends[0].node), wire.ends[0].name))
    });
    sections.push(("Members".to_owned(), members.collect()));
    sections
}

fn wire_sections(scene: &Scene, sight: &Sight, wire: &Wire) -> Vec<Section> {
    let side = |end: &End| {
        let id = end.link.as_ref()?;
        let rows = link_rows(sight, id, sight.links.get(id)?);
        Some((node_name(scene, end.node).to_owned(), rows))
    };
    wire.ends.iter().filter_map(side).collect()
}

fn device_sections(sight: &Sight, device: &Device) -> Vec<Section> {
    let facts = sight.links.get(&device.id);
    let mut rows = facts.map(|facts| link_rows(sight, &device.id, facts)).unwrap_or_default();
    rows.extend(device.gateways.iter().map(|gateway| ("gateway".to_owned(), gateway.to_string())));
    vec![("Link".to_owned(), rows)]
}
