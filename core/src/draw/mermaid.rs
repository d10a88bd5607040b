//! The drawing in Mermaid's language, which forges and editors render within Markdown.
//!
//! They refuse what is long (50,000 characters, 500 wires, unless configured): narrow it then.

use super::{Hang, Scene, Tie, dot::id};

/// Returns the drawing as a flowchart, with a subgraph for the host and one for each lane.
pub fn mermaid(scene: &Scene) -> String {
    let mut out = String::from("flowchart LR\n");
    let host = format!("host {}", scene.host);
    out.push_str(&format!("  subgraph host[{}]\n", quoted(&[host.trim_end()])));
    for (n, device) in scene.devices.iter().enumerate() {
        let kind = if device.kind.is_empty() { "device" } else { &device.kind };
        let mut lines = vec![format!("{} ({kind})", device.name)];
        lines.extend(device.words.iter().cloned());
        lines.extend(device.gateways.iter().map(|gateway| format!("gw {gateway}")));
        let class = if device.orphan { ":::warn" } else { "" };
        out.push_str(&format!("    d{n}[{}]{class}\n", quoted(&lines)));
    }
    for (n, lane) in scene.lanes.iter().enumerate() {
        out.push_str(&format!("    subgraph g{n}[{}]\n", quoted(&[&lane.name])));
        if lane.hang < Hang::Apart {
            let mut lines = vec![lane.name.clone()];
            lines.extend(lane.words.iter().cloned());
            out.push_str(&format!("      l{n}[[{}]]:::lane\n", quoted(&lines)));
        }
        for (n, card) in scene.cards.iter().enumerate().filter(|(_, card)| card.lane == n) {
            let is_warning = card.forlorn || card.ports.iter().any(|port| port.orphan);
            let class = if is_warning { ":::warn" } else { "" };
            out.push_str(&format!("      c{n}({}){class}\n", quoted(&card.lines())));
        }
        out.push_str("    end\n");
    }
    out.push_str("  end\n");
    for wire in &scene.wires {
        let [a, b] = [0, 1].map(|side| &wire.ends[side]);
        let (line, label) = match &wire.tie {
            Tie::Cable if wire.proven => ("---", format!("{} ⇄ {}", a.name, b.name)),
            Tie::Cable => ("-.-", format!("{} ⇄ {} (not confirmed)", a.name, b.name)),
            Tie::On(what) => ("-.-", what.clone()),
        };
        out.push_str(&format!("  {} {line}|{}| {}\n", id(a.node), quoted(&[label]), id(b.node)));
    }
    out.push_str("  classDef lane fill:#dbe7fb,stroke:#2f66d0,color:#1b2433\n");
    out.push_str(
        "  classDef warn fill:#fff3dc,stroke:#c47a15,color:#1b2433,stroke-dasharray:5 4\n",
    );
    out
}

/// Lines as one string of Mermaid. Whatever could mean something to it, to Markdown or to HTML
/// becomes `#`, the character's number and `;`, which is its way to write entities.
fn quoted<T: AsRef<str>>(lines: &[T]) -> String {
    let mut text = String::from("\"");
    for (n, line) in lines.iter().enumerate() {
        if n > 0 {
            text.push_str("<br/>");
        }
        for c in line.as_ref().chars() {
            let is_plain = c.is_alphanumeric() || !c.is_ascii() || " .,:/()-+=@".contains(c);
            match is_plain {
                true => text.push(c),
                false => text.push_str(&format!("#{};", u32::from(c))),
            }
        }
    }
    text.push('"');
    text
}
