//! Lab files: networks, containers and what they run, in strict TOML (docs/lab-file.md).
//!
//! Pure. Every fault is found in one reading and told with its line and column; a key that is not
//! known is a fault, and the nearest known one is named.

mod reader;
mod rules;

use std::{
    collections::BTreeMap,
    fmt::{self, Write as _},
    net::IpAddr,
};

use twinax_core::{
    name::{ContainerName, HostName, NetworkName},
    state::{NetworkSpec, PublishSpec},
};

use super::cli::Mode;

/// What a lab file describes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabFile {
    /// Where it was read from; whoever opened it says so.
    pub path: String,
    /// `name`, or the file's own without its ending.
    pub name: String,
    pub networks: BTreeMap<NetworkName, NetworkSpec>,
    /// Each after all that it depends on; otherwise as they stand in the file.
    pub containers: Vec<LabContainer>,
}

/// A container of a lab.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabContainer {
    pub name: ContainerName,
    /// Never `Networks` without a network: the default one is named.
    pub mode: Mode,
    pub publish: Vec<PublishSpec>,
    /// `twinax` as the first word is the running Twinax itself, wherever it is installed.
    pub run: Vec<String>,
    pub env: BTreeMap<String, String>,
    pub hostname: Option<HostName>,
    pub dns: Vec<IpAddr>,
    pub workdir: Option<String>,
    /// Those that are up before it is started: what it names, and whose network it shares.
    pub depends: Vec<ContainerName>,
    pub ready: Option<Ready>,
    /// Changes exactly when the container must be replaced: see [`replacing_digest`].
    pub digest: String,
}

/// When a container counts as up, beyond being started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ready {
    /// A TCP port that accepts a connection inside.
    pub tcp: u16,
    pub timeout_s: u32,
}

/// All that is wrong with a lab file, in the order of its lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabError {
    pub file: String,
    pub faults: Vec<Fault>,
}

/// One thing wrong in a lab file, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// From 1; of the file's characters, not bytes.
    pub line: usize,
    pub column: usize,
    pub what: String,
    pub hint: Option<String>,
    /// The line's text.
    pub source: String,
}

impl std::error::Error for LabError {}

impl fmt::Display for LabError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, fault) in self.faults.iter().enumerate() {
            if n > 0 {
                f.write_char('\n')?;
            }
            let Fault { line, column, what, hint, source } = fault;
            writeln!(f, "{}:{line}:{column}: {what}", self.file)?;
            write!(f, "  {line:>4} | {source}\n       | {:>column$}", "^")?;
            if let Some(hint) = hint {
                write!(f, " {hint}")?;
            }
        }
        Ok(())
    }
}

/// Reads a lab file; `file` is what errors call it.
pub fn parse(text: &str, file: &str) -> Result<LabFile, LabError> {
    let mut faults = Vec::new();
    let lab = rules::read(text, file, &mut faults);
    match lab {
        Some(lab) if faults.is_empty() => Ok(lab),
        _ => {
            faults.sort_by_key(|fault: &Fault| (fault.line, fault.column));
            Err(LabError { file: file.to_owned(), faults })
        }
    }
}

/// Returns what changes exactly when the container must be replaced rather than changed in place:
/// its command, environment, host name, name servers and directory, and whose network it shares.
/// Networks and ports of a running container can be changed, so they do not count; nor does what
/// only `up` reads (`depends`, `ready`).
///
/// FNV-1a, 64 bits, over each part's length and bytes, in 16 hexadecimal digits; `shared` is the
/// digest of the container whose network it shares, which must outlive it.
pub fn replacing_digest(container: &LabContainer, shared: Option<&str>) -> String {
    let mut hash = Fnv(0xcbf2_9ce4_8422_2325);
    hash.list("run", container.run.iter());
    hash.list("env", container.env.iter().flat_map(|(key, value)| [key, value]));
    hash.list("hostname", container.hostname.iter());
    hash.list("dns", container.dns.iter());
    hash.list("workdir", container.workdir.iter());
    let mode = match &container.mode {
        Mode::Networks(_) => None,
        Mode::None => Some("none".to_owned()),
        Mode::Host => Some("host".to_owned()),
        Mode::Of(name) => Some(format!("container:{name} {}", shared.unwrap_or_default())),
    };
    hash.list("mode", mode.iter());
    format!("{:016x}", hash.0)
}

/// Fowler, Noll and Vo's hash 1a: small, and the same on every machine and in every version.
struct Fnv(u64);

impl Fnv {
    fn list<T: ToString>(&mut self, name: &str, parts: impl Iterator<Item = T>) {
        self.text(name);
        for part in parts {
            self.text(&part.to_string());
        }
    }

    /// The length comes first, so that no two lists of texts run into the same bytes.
    fn text(&mut self, text: &str) {
        for byte in (text.len() as u64).to_le_bytes().iter().chain(text.as_bytes()) {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
}
