//! The drawing in Graphviz' language: `dot -Tpdf`.

use super::{
    Hang, Node, Scene, Tie,
    svg::{summary, wire_title},
};

/// Returns the drawing as a graph, with a cluster for the host and one for each lane.
pub fn dot(scene: &Scene) -> String {
    let mut out = String::from(
        "graph twinax {\n  graph [rankdir=LR, compound=true, fontname=\"Helvetica\", pad=0.4, ranksep=1.2]\n  \
         node [shape=box, style=\"rounded,filled\", fillcolor=white, fontname=\"Helvetica\", fontsize=11]\n  \
         edge [fontname=\"Helvetica\", fontsize=9, color=gray35]\n  subgraph cluster_host {\n",
    );
    let host = format!("host {}", scene.host);
    out.push_str(&format!(
        "    label={}\n    style=rounded\n",
        quoted(&[host.trim_end(), &summary(scene)])
    ));
    for (n, device) in scene.devices.iter().enumerate() {
        let kind = if device.kind.is_empty() { "device" } else { &device.kind };
        let gateways = device.gateways.iter().map(|gateway| format!("gw {gateway}"));
        let head = format!("{} ({kind})", device.name);
        let mut lines = vec![head];
        lines.extend(device.words.iter().cloned().chain(gateways));
        let warning = if device.orphan { WARNING } else { ", fillcolor=gray95" };
        out.push_str(&format!("    d{n} [label={}{warning}]\n", quoted(&lines)));
    }
    for (n, lane) in scene.lanes.iter().enumerate() {
        out.push_str(&format!(
            "    subgraph cluster_l{n} {{\n      label={}\n",
            quoted(&[&lane.name])
        ));
        out.push_str("      style=\"rounded,filled\"\n      fillcolor=gray97\n");
        if lane.hang < Hang::Apart {
            let mut lines = vec![lane.name.clone()];
            lines.extend(lane.words.iter().cloned());
            let label = quoted(&lines);
            out.push_str(&format!(
                "      l{n} [label={label}, shape=component, fillcolor=lightblue]\n"
            ));
        }
        for (n, card) in scene.cards.iter().enumerate().filter(|(_, card)| card.lane == n) {
            let is_warning = card.forlorn || card.ports.iter().any(|port| port.orphan);
            let warning = if is_warning { WARNING } else { "" };
            out.push_str(&format!("      c{n} [label={}{warning}]\n", quoted(&card.lines())));
        }
        out.push_str("    }\n");
    }
    out.push_str("  }\n");
    for wire in &scene.wires {
        let [a, b] = [0, 1].map(|side| &wire.ends[side]);
        let mut marks = vec![format!("tooltip={}", quoted(&[wire_title(scene, wire)]))];
        match &wire.tie {
            Tie::Cable => {
                marks.push(format!("taillabel={}", quoted(&[&a.name])));
                marks.push(format!("headlabel={}", quoted(&[&b.name])));
            }
            Tie::On(what) => marks.push(format!("label={}, style=dashed", quoted(&[what]))),
        }
        if !wire.proven {
            marks.push("color=orange, style=dotted".to_owned());
        } else if !wire.up {
            marks.push("color=gray75".to_owned());
        }
        out.push_str(&format!("  {} -- {} [{}]\n", id(a.node), id(b.node), marks.join(", ")));
    }
    out.push_str("}\n");
    out
}

const WARNING: &str = ", color=orange, fillcolor=cornsilk, style=\"rounded,filled,dashed\"";

pub(super) fn id(node: Node) -> String {
    match node {
        Node::Lane(n) => format!("l{n}"),
        Node::Card(n) => format!("c{n}"),
        Node::Device(n) => format!("d{n}"),
    }
}

/// Lines as one string of Graphviz, which knows escapes by backslash and entities as of HTML.
fn quoted<T: AsRef<str>>(lines: &[T]) -> String {
    let mut text = String::from("\"");
    for (n, line) in lines.iter().enumerate() {
        if n > 0 {
            text.push_str("\\n");
        }
        for c in line.as_ref().chars() {
            match c {
                '"' => text.push_str("\\\""),
                '\\' => text.push_str("\\\\"),
                '&' => text.push_str("&amp;"),
                '<' => text.push_str("&lt;"),
                '>' => text.push_str("&gt;"),
                c => text.push(c),
            }
        }
    }
    text.push('"');
    text
}
