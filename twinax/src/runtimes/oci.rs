//! What OCI runtimes' files have in common: a bundle's `config.json`, ports in every spelling.

use std::{collections::BTreeMap, net::IpAddr};

use serde_json::Value;
use twinax_core::{
    name::Proto,
    sight::{PublishedPort, Runtime, Workload},
};

/// What is read of a bundle's `config.json`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Bundle {
    pub(super) annotations: BTreeMap<String, String>,
    /// Where its network namespace is; `None` if it got a new one.
    pub(super) netns_path: Option<String>,
    pub(super) hostname: Option<String>,
}

/// Reads a bundle's `config.json`.
pub(super) fn bundle(bytes: &[u8]) -> Option<Bundle> {
    let config: Value = serde_json::from_slice(bytes).ok()?;
    let namespaces = config.pointer("/linux/namespaces").and_then(Value::as_array);
    let mut namespaces = namespaces.into_iter().flatten();
    let network = namespaces.find(|space| text(space, "/type").as_deref() == Some("network"));
    Some(Bundle {
        annotations: words(&config, "/annotations"),
        netns_path: network.and_then(|space| text(space, "/path")),
        hostname: text(&config, "/hostname"),
    })
}

/// A container of which nothing but its id is known.
pub(super) fn nameless(runtime: Runtime, id: &str) -> Workload {
    Workload {
        runtime,
        id: id.to_owned(),
        name: id.get(..12).unwrap_or(id).to_owned(),
        image: None,
        pod: None,
        pid: None,
        netns_path: None,
        networks: Vec::new(),
        published: Vec::new(),
        labels: BTreeMap::new(),
    }
}

/// A string that is there and not empty.
pub(super) fn text(value: &Value, pointer: &str) -> Option<String> {
    let text = value.pointer(pointer)?.as_str()?;
    (!text.is_empty()).then(|| text.to_owned())
}

/// An object of strings.
pub(super) fn words(value: &Value, pointer: &str) -> BTreeMap<String, String> {
    let object = value.pointer(pointer).and_then(Value::as_object);
    let pairs = object.into_iter().flatten();
    pairs.filter_map(|(key, word)| Some((key.clone(), word.as_str()?.to_owned()))).collect()
}

/// Reads a list of port mappings as CNI, nerdctl, Podman and CRI-O write them: the same words,
/// in capitals or not.
pub(super) fn ports(list: &Value) -> Vec<PublishedPort> {
    let mut ports = Vec::new();
    for mapping in list.as_array().into_iter().flatten().filter_map(Value::as_object) {
        let get = |word: &str| {
            let same = |key: &str| key.replace('_', "").eq_ignore_ascii_case(word);
            mapping.iter().find(|(key, _)| same(key)).map(|(_, value)| value)
        };
        let number = |word| get(word).and_then(Value::as_u64).and_then(|n| u16::try_from(n).ok());
        let (Some(inner), Some(outer)) = (number("containerport"), number("hostport")) else {
            continue;
        };
        let host = get("hostip").and_then(Value::as_str).and_then(|ip| ip.parse().ok());
        for proto in protocols(get("protocol")) {
            let range = 0..number("range").unwrap_or(1).max(1);
            ports.extend(range.map_while(|n| {
                let (host_port, container_port) = (outer.checked_add(n)?, inner.checked_add(n)?);
                (outer > 0).then_some(PublishedPort { proto, host, host_port, container_port })
            }));
        }
    }
    ports
}

/// `tcp`, `TCP`, `tcp,udp`, or the number that the CRI has for it; TCP if nothing is said.
fn protocols(value: Option<&Value>) -> Vec<Proto> {
    match value {
        Some(Value::Number(number)) => match number.as_u64() {
            Some(0 | 6) => vec![Proto::Tcp],
            Some(1 | 17) => vec![Proto::Udp],
            Some(2 | 132) => vec![Proto::Sctp],
            _ => Vec::new(),
        },
        Some(Value::String(words)) if !words.is_empty() => {
            words.split(',').filter_map(|word| word.to_ascii_lowercase().parse().ok()).collect()
        }
        _ => vec![Proto::Tcp],
    }
}

/// Reads one of Docker's port keys: `80/tcp`.
pub(super) fn port_key(key: &str) -> Option<(u16, Proto)> {
    let (port, proto) = key.split_once('/').unwrap_or((key, "tcp"));
    Some((port.parse().ok()?, proto.parse().ok()?))
}

/// An address as engines write it; `None` where they leave it open.
pub(super) fn address(text: Option<String>) -> Option<IpAddr> {
    text?.trim_matches(['[', ']']).parse().ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn show(list: &Value) -> Vec<String> {
        let show = |p: &PublishedPort| {
            let host = p.host.map_or_else(|| "*".to_owned(), |ip| ip.to_string());
            format!("{host}:{}->{}/{}", p.host_port, p.container_port, p.proto)
        };
        ports(list).iter().map(show).collect()
    }

    #[test]
    fn ports_are_read_in_every_spelling() {
        let podman = json!([{"host_ip":"","container_port":80,"host_port":8080,"range":2,"protocol":"tcp,udp"}]);
        let said = ["*:8080->80/tcp", "*:8081->81/tcp", "*:8080->80/udp", "*:8081->81/udp"];
        assert_eq!(show(&podman), said);
        let nerdctl =
            json!([{"HostPort":8080,"ContainerPort":80,"Protocol":"tcp","HostIP":"127.0.0.1"}]);
        assert_eq!(show(&nerdctl), ["127.0.0.1:8080->80/tcp"]);
        let cni = json!([{"hostPort":53,"containerPort":53,"protocol":"UDP"}]);
        assert_eq!(show(&cni), ["*:53->53/udp"]);
        let crio = json!([{"protocol":1,"container_port":53,"host_port":5353,"host_ip":"::1"}]);
        assert_eq!(show(&crio), ["::1:5353->53/udp"]);
        for odd in [
            json!(null),
            json!([{"hostPort":99999,"containerPort":1}]),
            json!([{"hostPort":0,"containerPort":1}]),
            json!([1, "x", {}]),
            json!([{"hostPort":1,"containerPort":1,"protocol":"quic"}]),
        ] {
            assert_eq!(show(&odd), [""; 0], "{odd}");
        }
        let edge = json!([{"hostPort":65535,"containerPort":65535,"range":60000}]);
        assert_eq!(show(&edge).len(), 1);
    }
}
