//! Why requests are refused, in words for the one who asked.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::{
    gateway::Family,
    name::{BadName, ContainerName, HostName, IfName, Mac, NetworkName, Proto},
};

/// Why a request is refused. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("no network named {0}")]
    NoSuchNetwork(NetworkName),
    /// As [`Self::NoSuchNetwork`], to one who would be content if there were one.
    #[error("no network named {0}")]
    NoNetworkToJoin(NetworkName),
    #[error("network {name} exists already, with another {what}")]
    NetworkDiffers { name: NetworkName, what: &'static str },
    #[error("network {network} is in use by {}", users(.containers))]
    NetworkInUse { network: NetworkName, containers: Vec<ContainerName> },
    #[error("network {network} cannot have {what}: {why}")]
    BadOption { network: NetworkName, what: String, why: String },
    #[error("network {network} cannot have subnet {net}: {why}")]
    BadSubnet { network: NetworkName, net: IpNet, why: String },
    #[error("subnet {net} of network {network} overlaps {other} of network {by}")]
    SubnetTaken { network: NetworkName, net: IpNet, other: IpNet, by: NetworkName },
    #[error("subnet {net} of network {network} overlaps {other}, which this host has or routes to")]
    SubnetOnHost { network: NetworkName, net: IpNet, other: IpNet },
    #[error("no {family} subnet is left for network {network}: every block of the pools is in use")]
    PoolsExhausted { network: NetworkName, family: Family },
    #[error("no number is left for network {0}: there are 65,535 networks")]
    TooManyNetworks(NetworkName),

    #[error("no container named {0}")]
    NoSuchContainer(ContainerName),
    #[error("container {0} exists already")]
    ContainerExists(ContainerName),
    #[error("container {0} is being ended")]
    ContainerEnding(ContainerName),
    #[error("container {0} has exited")]
    ContainerExited(ContainerName),
    #[error("container {0} is gone: its network namespace no longer exists")]
    ContainerGone(ContainerName),
    #[error("container {container} cannot {what}: it uses the network of {of}")]
    NoSandbox { container: ContainerName, what: &'static str, of: String },

    #[error("container {container} is on network {network} already, with another {what}")]
    AttachedDifferently { container: ContainerName, network: NetworkName, what: &'static str },
    #[error("container {container} is not attached to network {network}")]
    NotAttached { container: ContainerName, network: NetworkName },
    #[error("network {network} has no {family}, so {container} cannot have {addr} there")]
    NoFamily { container: ContainerName, network: NetworkName, family: Family, addr: IpAddr },
    #[error("{addr} is in no subnet of network {network}, which has {subnets}")]
    AddressOutside { network: NetworkName, addr: IpAddr, subnets: String },
    #[error("{addr} cannot be given out on network {network}: it is {what}")]
    AddressTaken { network: NetworkName, addr: IpAddr, what: String },
    #[error(
        "{addr} cannot be given out on network {network}: it is held until link {link}, cut before, is gone"
    )]
    AddressHeld { network: NetworkName, addr: IpAddr, link: IfName },
    #[error("no {family} address is left on network {network}, which has {subnets}")]
    NoAddressLeft { network: NetworkName, family: Family, subnets: String },
    #[error("network {0} is full: a bridge has 1,023 ports")]
    BridgeFull(NetworkName),
    #[error("MAC {mac} on network {network} is {what}")]
    MacTaken { network: NetworkName, mac: Mac, what: String },
    #[error("container {container} cannot have another interface {ifname}")]
    IfNameTaken { container: ContainerName, ifname: IfName },
    #[error("alias {alias} is refused: network {network} is the default one, which has no names")]
    NoNames { network: NetworkName, alias: HostName },

    #[error("ports {0}-{1} are not a range of ports from 1 to 65535")]
    BadPorts(u16, u16),
    #[error("{host} host ports cannot lead to {container} container ports")]
    PortsMismatch { host: u32, container: u32 },
    #[error("host address {0} cannot be listened on")]
    BadHostAddress(IpAddr),
    #[error("cannot publish on {0}: this host has no such address")]
    NoHostAddress(IpAddr),
    #[error("host port {} is taken by {by}", place(*.host, *.port, *.proto))]
    PortTaken { proto: Proto, host: Option<IpAddr>, port: u16, by: String },
    #[error("no {proto} port is free in {} of the host", span(*.ports))]
    NoPortLeft { proto: Proto, ports: Option<(u16, u16)> },
    #[error("nothing can be published from container {container}: {why}")]
    CannotCarry { container: ContainerName, why: String },
    #[error("container {container} does not publish {asked}; it publishes {published}")]
    NotPublished { container: ContainerName, asked: String, published: String },
    #[error("container {container} cannot leave network {network}, which carries {published}")]
    CarriesPorts { container: ContainerName, network: NetworkName, published: String },

    #[error(transparent)]
    BadName(#[from] BadName),
}

impl Refusal {
    /// Whether it may be due to cables cut a moment ago, whose links the kernel has yet to take
    /// away.
    pub fn may_pass(&self) -> bool {
        matches!(self, Self::AddressHeld { .. } | Self::NoAddressLeft { .. } | Self::BridgeFull(_))
    }

    /// What the one who asked can do about it.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NoSuchNetwork(_) => "twinax network ls shows which there are".to_owned(),
            Self::NoNetworkToJoin(name) => format!("twinax network create {name}"),
            Self::NetworkDiffers { name, .. } => {
                format!("remove network {name} first, or choose another name")
            }
            Self::NetworkInUse { .. } => "disconnect or remove them first".to_owned(),
            Self::SubnetTaken { .. } | Self::SubnetOnHost { .. } => {
                "choose another subnet, or leave the choice to Twinax".to_owned()
            }
            Self::PoolsExhausted { .. } => "name a subnet, or remove unused networks".to_owned(),
            Self::ContainerExists(name) => {
                format!("remove it (twinax rm {name}) or choose another name")
            }
            Self::ContainerEnding(name)
            | Self::ContainerExited(name)
            | Self::ContainerGone(name) => {
                format!("remove it (twinax rm {name}) and run it again")
            }
            Self::NoSandbox { of, .. } => format!("ask for {of} instead"),
            Self::AttachedDifferently { container, network, .. } => {
                format!("disconnect it first: twinax network disconnect {network} {container}")
            }
            Self::AddressTaken { .. } | Self::AddressHeld { .. } => {
                "choose another address, or none".to_owned()
            }
            Self::NoAddressLeft { .. } | Self::BridgeFull(_) => {
                "attach to another network, or make one with a larger subnet".to_owned()
            }
            Self::NoNames { .. } => "create a network: names work on every other".to_owned(),
            Self::PortTaken { .. } => {
                "choose another host port, or none to have one chosen".to_owned()
            }
            Self::CannotCarry { .. } => {
                "attach it to a network that leads out and publish then".to_owned()
            }
            Self::CarriesPorts { container, .. } => {
                format!(
                    "unpublish them first (twinax unpublish {container} …), or attach it to another network that leads out"
                )
            }
            _ => return None,
        })
    }
}

fn users(containers: &[ContainerName]) -> String {
    match containers {
        [] => "containers".to_owned(),
        [one] => format!("container {one}"),
        many if many.len() > 5 => {
            format!("containers {} and {} more", join(&many[..5]), many.len() - 5)
        }
        many => format!("containers {}", join(many)),
    }
}

pub(super) fn join<T: ToString>(items: &[T]) -> String {
    items.iter().map(T::to_string).collect::<Vec<_>>().join(", ")
}

fn place(host: Option<IpAddr>, port: u16, proto: Proto) -> String {
    match host {
        None => format!("{port}/{proto}"),
        Some(IpAddr::V4(addr)) => format!("{addr}:{port}/{proto}"),
        Some(IpAddr::V6(addr)) => format!("[{addr}]:{port}/{proto}"),
    }
}

fn span(ports: Option<(u16, u16)>) -> String {
    match ports {
        Some((first, last)) => format!("{first}-{last}"),
        None => "the ephemeral range".to_owned(),
    }
}
