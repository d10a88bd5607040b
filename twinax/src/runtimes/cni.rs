//! What CNI's library keeps of each attachment, whichever runtime asked for it.

use serde_json::Value;
use twinax_core::sight::PublishedPort;

use super::{
    oci,
    view::{RECORD, View},
};

/// Where the library keeps it, and where CRI-O and others have it keep it instead.
const FOLDERS: [&str; 2] = ["/var/lib/cni/results", "/var/lib/cni/cache/results"];

/// The files that are there, read when somebody asks.
#[derive(Debug)]
pub(super) struct Results(Vec<String>);

/// An attachment.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Attachment {
    pub(super) network: String,
    pub(super) published: Vec<PublishedPort>,
}

impl Results {
    pub(super) fn list(view: &View) -> Self {
        let files = FOLDERS.iter().flat_map(|folder| {
            view.list(folder).into_iter().map(move |name| format!("{folder}/{name}"))
        });
        Self(files.collect())
    }

    /// The attachments of the container or pod that has `id` (containerd's own are
    /// `NAMESPACE-ID`); their files are called `NETWORK-ID-INTERFACE`.
    pub(super) fn of(&self, view: &View, id: &str) -> Vec<Attachment> {
        let named = self.0.iter().filter(|file| !id.is_empty() && file.contains(id));
        let read = named.filter_map(|file| attachment(&view.read(file, RECORD)?, id));
        read.collect()
    }
}

/// Reads one of the library's files; `None` if it is about another.
fn attachment(bytes: &[u8], id: &str) -> Option<Attachment> {
    let cache: Value = serde_json::from_slice(bytes).ok()?;
    if oci::text(&cache, "/containerId")? != id {
        return None;
    }
    // What brings the loopback up is a network to CNI's library, and to nobody else.
    if oci::text(&cache, "/ifName").as_deref() == Some("lo") {
        return None;
    }
    let network = oci::text(&cache, "/networkName")?;
    let ports = cache.pointer("/capabilityArgs/portMappings");
    Some(Attachment { network, published: ports.map(oci::ports).unwrap_or_default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cached_result_tells_network_and_ports() {
        let text = br#"{"kind":"cniCacheV1","containerId":"default-ab12","ifName":"eth0",
            "networkName":"bridge","capabilityArgs":{"portMappings":
            [{"hostPort":8080,"containerPort":80,"protocol":"tcp","hostIP":""}]}}"#;
        let found = attachment(text, "default-ab12").unwrap();
        assert_eq!((found.network.as_str(), found.published.len()), ("bridge", 1));
        assert_eq!(attachment(text, "b12"), None);
        assert_eq!(attachment(text, "ab12"), None, "that may be another namespace's");
        let loopback = br#"{"containerId":"ab12","ifName":"lo","networkName":"cni-loopback"}"#;
        assert_eq!(attachment(loopback, "ab12"), None);
        assert_eq!(attachment(b"{", "default-ab12"), None);
    }
}
