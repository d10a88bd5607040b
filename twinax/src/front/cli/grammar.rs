//! The grammar as clap sees it: every command, every option, and what the help says of them.
//!
//! Only `cli.rs` reads these; they change with the wording, [`super::Command`] does not.

use std::{
    ffi::{OsStr, OsString},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::PathBuf,
};

use clap::{
    Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches, Parser, Subcommand,
    builder::{PossibleValue, PossibleValuesParser, TypedValueParser},
};
use ipnet::IpNet;
use twinax_core::{
    doctor::CHECKS,
    name::{ContainerName, HostName, IfName, Mac, NetworkName},
    sight::Runtime,
    state::{Driver, GatewayMode, PublishSpec},
};

use super::{
    super::spelling::{self, Misspelt},
    Output, Since,
};

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  refused, and nothing was changed; or `check` or `diff` found differences
  2  the command line or the lab file cannot be read
  3  the kernel or the store failed, and the former state was restored
  4  `doctor` found warnings
  5  `doctor` found problems

`run`, `exec` and `up` also end with Docker's codes: 127 there is no such program, 126 it cannot \
be run, 125 the container could not be started. A failed `up` or `down` keeps the steps done \
before: each step is done whole or not at all.

A container is named by its name, by a process in it (pid:1234) or by the file of its network \
namespace (netns:/run/netns/x): connect, disconnect, exec and publish take all three. exec, peer and capture also take what \
`twinax map` shows of anybody's containers.";

const CREATE_EXAMPLES: &str = "\
Examples:
  twinax network create web
  twinax network create --subnet 10.1.0.0/24 --gateway 10.1.0.254 web
  twinax network create --subnet 10.1.0.0/24 --subnet fd00:1::/64 dual
  twinax network create --internal data
  twinax network create --driver routed --gateway-mode-ipv4 routed edge";

const RUN_EXAMPLES: &str = "\
Examples:
  twinax run --rm -- ip address
  twinax run -d --name web --network front -p 8080:80 -- httpd -f
  twinax run -d --network front,ip=10.1.0.5,alias=db --network back -- postgres
  twinax run --network none -- sh
  twinax run --network container:web -- tcpdump -i eth0

A port's PROTOCOL is tcp, unless udp or sctp is given; a host port that is left out is chosen. \
Not detached, the exit code is the command's own, 128+n where signal n ended it.";

const INSPECT_EXAMPLES: &str = "\
Examples:
  twinax inspect web                 a container, by name or beginning of its id
  twinax inspect docker0 --rules     a bridge, with every row
  twinax inspect pid:4711 --json     the network namespace of a process";

const CAPTURE_EXAMPLES: &str = "\
Examples:
  twinax capture web
  twinax capture web -w web.pcapng tcp port 80
  twinax capture web -w - | wireshark -k -i -
  twinax capture veth926be0c --both --for 10 host 172.17.0.2 and not arp
  twinax capture docker0 -c 100 'udp and (dst port 53 or src port 53)'

Ctrl-C ends it; how many packets there were, and how many the kernel had no room for, is told on \
standard error. docs/show.md has the filter's grammar.";

const DIFF_EXAMPLES: &str = "\
Examples:
  twinax snapshot before.json
  docker compose up -d
  twinax diff before.json                  what that did
  twinax snapshot - | ssh elsewhere 'cat > host.json'

Counters are left out. The exit code is 0 where nothing changed, 1 where something did, 2 where a \
file cannot be read.";

const EXEC_EXAMPLES: &str = "\
Examples:
  twinax exec web -- sh
  twinax exec 4b46ab12 -- ip address       a container of Docker's, by its id
  twinax exec shop/cart-0 -- ss -lnt       a pod
  twinax exec pid:1234 -- ping 10.1.0.2

A container that Twinax runs is entered whole. Of any other only the network is: files, \
/etc/resolv.conf among them, and processes stay the host's. Not detached, the exit code is the \
command's own, 128+n where signal n ended it.";

const PEER_EXAMPLES: &str = "\
Examples:
  twinax peer veth926be0c
  twinax peer web
  twinax peer 172.17.0.2
  twinax peer 02:42:ac:11:00:02
  twinax peer eth0@web
  twinax peer 2@web";

const DOCTOR_HELP: &str = "\
Exit codes:
  0  nothing was found, or notes only
  1  nothing is called HANDLE
  4  warnings were found
  5  problems were found

Examples:
  twinax doctor
  twinax doctor web
  twinax doctor --only forward-dropped --only mtu-step
  twinax doctor --list

Each check is explained in docs/doctor.md. Nothing is changed: the commands that are printed are \
for you to run.";

const UP_EXAMPLES: &str = "\
Examples:
  twinax plan lab.toml     what would be done
  twinax up lab.toml       do it; a second time there is nothing to do
  $EDITOR lab.toml         change a port, add a container…
  twinax up lab.toml       do only the difference
  twinax down lab.toml     remove all of it";

/// Container networking for Linux that can explain itself
#[derive(Parser)]
#[command(name = "twinax", version, after_help = EXIT_CODES, infer_subcommands = false)]
#[command(disable_help_subcommand = true, max_term_width = 100)]
pub(super) struct Grammar {
    #[command(subcommand)]
    pub verb: Verb,
}

#[derive(Subcommand)]
pub(super) enum Verb {
    /// Create, show, join and remove networks
    #[command(disable_help_subcommand = true)]
    Network(Late<NetworkArgs>),
    /// Run a command in a new container
    #[command(after_help = RUN_EXAMPLES)]
    Run(Box<Late<RunArgs>>),
    /// Run another command in a container, of any runtime
    #[command(after_help = EXEC_EXAMPLES)]
    Exec(Late<ExecArgs>),
    /// List containers
    Ps {
        /// Show ended containers too
        #[arg(short, long)]
        all: bool,
        /// Print names only, one a line
        #[arg(short, long)]
        quiet: bool,
        /// Print JSON (shape: docs/json.md)
        #[arg(long, conflicts_with = "quiet")]
        json: bool,
    },
    /// Show what a container wrote
    Logs(Late<LogsArgs>),
    /// End containers: every process in them, daemonised ones too
    Stop {
        /// Seconds that a container may take before it is killed
        #[arg(short, long, value_name = "SECONDS", default_value_t = 10)]
        time: u32,
        /// The containers
        #[arg(required = true, value_name = "CONTAINER")]
        names: Vec<ContainerName>,
    },
    /// Remove ended containers
    Rm(Late<RemoveArgs>),
    /// List a container's published ports
    Port {
        /// The container
        #[arg(value_name = "CONTAINER")]
        name: ContainerName,
        /// Print JSON (shape: docs/json.md)
        #[arg(long)]
        json: bool,
    },
    /// Publish ports of a running container
    Publish {
        /// The container
        #[arg(value_name = "CONTAINER")]
        name: ContainerName,
        /// [HOST-ADDRESS:][HOST-PORT[-LAST]:]PORT[-LAST][/PROTOCOL]
        #[arg(required = true, value_name = "PORT", value_parser = spelling::publish)]
        ports: Vec<PublishSpec>,
    },
    /// Stop publishing ports of a running container
    Unpublish {
        /// The container
        #[arg(value_name = "CONTAINER")]
        name: ContainerName,
        /// As it was published; a host port that is left out means every one
        #[arg(required = true, value_name = "PORT", value_parser = spelling::publish)]
        ports: Vec<PublishSpec>,
    },
    /// Make a lab file true: networks, containers and ports, changing only the difference
    #[command(after_help = UP_EXAMPLES)]
    Up {
        /// The lab file (docs/lab-file.md)
        file: PathBuf,
    },
    /// Remove what the lab of that name made
    Down {
        /// The lab file
        file: PathBuf,
    },
    /// Print what `up` would do, and do nothing
    Plan {
        /// The lab file
        file: PathBuf,
        /// Print JSON (shape: docs/json.md)
        #[arg(long)]
        json: bool,
    },
    /// Compare the kernel with what was promised; exits with 1 where they differ
    Check {
        /// Print JSON (shape: docs/json.md)
        #[arg(long)]
        json: bool,
    },
    /// Make the kernel what was promised, and print what was done
    Repair {
        /// Print JSON (shape: docs/json.md)
        #[arg(long)]
        json: bool,
    },
    /// Show every container network on the host, whoever made it
    Map(Late<MapArgs>),
    /// Show the map in the terminal as it changes, with traffic; ? tells the keys
    Top(Late<TopArgs>),
    /// Show both ends of a cable, and whose it is
    #[command(after_help = PEER_EXAMPLES)]
    Peer {
        /// What you have in hand: an interface, container, pod, address, MAC, process, INTERFACE@CONTAINER
        #[arg(value_name = "HANDLE")]
        handle: String,
        /// Print JSON (shape: docs/json.md)
        #[arg(long)]
        json: bool,
    },
    /// Show everything known of a namespace, container, link or network
    #[command(after_help = INSPECT_EXAMPLES)]
    Inspect {
        /// What you have in hand: as of peer, or a network, pid:N, netns:PATH, net:[N], host
        #[arg(value_name = "HANDLE")]
        handle: String,
        /// Every rule of the firewall, and every row of long lists
        #[arg(short = 'v', long, visible_alias = "verbose")]
        rules: bool,
        /// Print JSON (shape: docs/json.md)
        #[arg(long)]
        json: bool,
    },
    /// Find what breaks container networks on the host, and say why and what to do
    #[command(after_help = DOCTOR_HELP)]
    Doctor(Late<DoctorArgs>),
    /// Capture the packets of an interface, a container, a cable or a bridge
    #[command(after_help = CAPTURE_EXAMPLES)]
    Capture(Late<CaptureArgs>),
    /// Write down what `map` shows of the whole host, to compare it later
    Snapshot {
        /// Where to; standard output (-)
        file: PathBuf,
    },
    /// Tell what changed since a snapshot, or between two; exits with 1 where something did
    #[command(after_help = DIFF_EXAMPLES)]
    Diff {
        /// The snapshot to compare with; standard input (-)
        old: PathBuf,
        /// The later snapshot; without it, what is now
        new: Option<PathBuf>,
        /// Print JSON (shape: docs/json.md)
        #[arg(long)]
        json: bool,
    },
    /// Print the script that completes twinax in a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page, or write the pages of all commands
    Man {
        /// Where to write twinax.1 and one page for each command
        #[arg(value_name = "DIR")]
        directory: Option<PathBuf>,
    },
    /// Servers and clients for labs and tests
    #[command(hide = true, disable_help_flag = true)]
    Demo {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
}

/// The rest of a command's grammar, built only where the command is the one that was given: most of
/// what reading a line costs would be the building of others.
pub(super) struct Late<T>(pub T);

impl<T: Args> Args for Late<T> {
    fn augment_args(command: Command) -> Command {
        command.defer(T::augment_args)
    }

    fn augment_args_for_update(command: Command) -> Command {
        command.defer(T::augment_args_for_update)
    }
}

impl<T: Args> FromArgMatches for Late<T> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        T::from_arg_matches(matches).map(Self)
    }

    fn from_arg_matches_mut(matches: &mut ArgMatches) -> Result<Self, clap::Error> {
        T::from_arg_matches_mut(matches).map(Self)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        self.0.update_from_arg_matches(matches)
    }
}

#[derive(Args)]
pub(super) struct MapArgs {
    #[command(flatten)]
    pub wanted: WantedArgs,
    /// What to print
    #[arg(short, long, value_enum, default_value_t, value_name = "FORM")]
    pub output: Output,
    /// Print JSON (shape: docs/json.md)
    #[arg(long, conflicts_with = "output")]
    pub json: bool,
    /// Go on and show what changes, with traffic: on a terminal the map itself, elsewhere a line for
    /// each change
    #[arg(short, long)]
    pub watch: bool,
}

#[derive(Args)]
pub(super) struct TopArgs {
    #[command(flatten)]
    pub wanted: WantedArgs,
}

// What is to be in a map. (Clap would take a doc comment for the words of `top`.)
#[derive(Args)]
pub(super) struct WantedArgs {
    /// Also namespaces with nothing in them, made by nobody that is known
    #[arg(short, long)]
    pub all: bool,
    /// Only containers called so: by name, id, pod, address, process; may be repeated
    #[arg(long, value_name = "HANDLE")]
    pub only: Vec<String>,
    /// Only containers on this network, by its name or its bridge
    #[arg(long)]
    pub network: Option<String>,
    /// Only containers of this runtime
    #[arg(long, value_parser = runtimes())]
    pub runtime: Option<Runtime>,
}

fn runtimes() -> impl TypedValueParser<Value = Runtime> {
    let names = PossibleValuesParser::new(Runtime::ALL.map(Runtime::as_str));
    names.map(|name| {
        let runtime = Runtime::ALL.into_iter().find(|runtime| runtime.as_str() == name);
        runtime.expect("it is one of the possible values")
    })
}

#[derive(Args)]
pub(super) struct DoctorArgs {
    /// Only what concerns these: containers, pods, networks, interfaces, addresses, processes
    #[arg(value_name = "HANDLE", conflicts_with = "list")]
    pub of: Vec<String>,
    /// Make this check only, or these: A,B; may be repeated
    #[arg(long, value_name = "CHECK", value_parser = checks(), hide_possible_values = true)]
    #[arg(value_delimiter = ',', conflicts_with = "list")]
    pub only: Vec<String>,
    /// Do not make this check, or these: A,B; may be repeated
    #[arg(long, value_name = "CHECK", value_parser = checks(), hide_possible_values = true)]
    #[arg(value_delimiter = ',', conflicts_with = "list")]
    pub skip: Vec<String>,
    /// List the checks there are, and make none
    #[arg(long)]
    pub list: bool,
    /// Print JSON (shape: docs/json.md)
    #[arg(long)]
    pub json: bool,
}

fn checks() -> PossibleValuesParser {
    PossibleValuesParser::new(CHECKS.iter().map(|check| check.id))
}

#[derive(Args)]
pub(super) struct CaptureArgs {
    /// Write pcapng to this file, or to standard output (-), instead of a line a packet
    #[arg(short, long, value_name = "FILE")]
    pub write: Option<PathBuf>,
    /// Capture at the other end of each cable too
    #[arg(long)]
    pub both: bool,
    /// End after so many packets
    #[arg(short, long, value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,
    /// End after so many seconds
    #[arg(long = "for", value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    pub seconds: Option<u64>,
    /// Keep only so many bytes of each packet
    #[arg(short, long, value_name = "BYTES", default_value_t = SNAP_MOST)]
    #[arg(value_parser = clap::value_parser!(u32).range(14..=i64::from(SNAP_MOST)))]
    pub snap_length: u32,
    /// Whose packets: whatever `peer` takes, CONTAINER/INTERFACE, or a bridge, for all its members
    #[arg(value_name = "HANDLE")]
    pub handle: String,
    /// Which packets: host, net, port, src, dst, tcp, udp, icmp, icmp6, arp, ip, ip6, and, or, not, ( )
    #[arg(value_name = "FILTER")]
    pub filter: Vec<String>,
}

/// Bytes of the longest packet that is kept whole.
const SNAP_MOST: u32 = 131_000;

#[derive(Args)]
pub(super) struct NetworkArgs {
    #[command(subcommand)]
    pub verb: NetworkVerb,
}

#[derive(Subcommand)]
pub(super) enum NetworkVerb {
    /// Create a network
    #[command(after_help = CREATE_EXAMPLES)]
    Create(Box<Late<CreateArgs>>),
    /// List networks
    Ls {
        /// Print names only, one a line
        #[arg(short, long)]
        quiet: bool,
        /// Print JSON (shape: docs/json.md)
        #[arg(long, conflicts_with = "quiet")]
        json: bool,
    },
    /// Show networks, and which host interface leads to which container
    Inspect {
        /// The networks
        #[arg(required = true, value_name = "NETWORK")]
        names: Vec<NetworkName>,
        /// Print JSON (shape: docs/json.md)
        #[arg(long)]
        json: bool,
    },
    /// Remove networks that no container is on
    Rm {
        /// The networks
        #[arg(required = true, value_name = "NETWORK")]
        names: Vec<NetworkName>,
    },
    /// Remove every network that no container is on
    Prune {
        /// Accepted as there is no question to skip: `prune` never asks
        #[arg(short, long)]
        force: bool,
    },
    /// Plug a running container into a network
    Connect(Box<Late<ConnectArgs>>),
    /// Unplug a running container from a network
    Disconnect(Late<DisconnectArgs>),
}

#[derive(Args)]
pub(super) struct DisconnectArgs {
    /// The network
    pub network: NetworkName,
    /// The container
    pub container: ContainerName,
}

#[derive(Args)]
pub(super) struct RemoveArgs {
    /// Kill and remove running containers too
    #[arg(short, long)]
    pub force: bool,
    /// The containers
    #[arg(required = true, value_name = "CONTAINER")]
    pub names: Vec<ContainerName>,
}

#[derive(Args)]
pub(super) struct CreateArgs {
    /// What the network is called
    #[arg(value_name = "NETWORK")]
    pub name: NetworkName,
    /// bridge: a switch in the kernel; routed: no switch, each container has a route of its own
    #[arg(short, long, default_value = "bridge", value_parser = DRIVER, hide_possible_values = true)]
    pub driver: Driver,
    /// Addresses of the network; may be given more than once, for either family
    #[arg(long, value_name = "CIDR", value_parser = spelling::subnet)]
    pub subnet: Vec<IpNet>,
    /// The host's address in the subnet it lies in
    #[arg(long, value_name = "IP")]
    pub gateway: Vec<IpAddr>,
    /// Give containers only these addresses of the subnet they lie in
    #[arg(long, value_name = "CIDR", value_parser = spelling::subnet)]
    pub ip_range: Vec<IpNet>,
    /// Never give out this address
    #[arg(long, value_name = "NAME=IP", value_parser = aux_address)]
    pub aux_address: Vec<(String, IpAddr)>,
    /// Have IPv6; a subnet is chosen unless one is given
    #[arg(long)]
    pub ipv6: bool,
    /// Have no IPv4
    #[arg(long)]
    pub no_ipv4: bool,
    /// Docker's way of saying --no-ipv4: --ipv4=false
    #[arg(long, value_name = "BOOL", require_equals = true, num_args = 0..=1)]
    #[arg(default_value_t = true, default_missing_value = "true", action = ArgAction::Set)]
    #[arg(hide = true, conflicts_with = "no_ipv4")]
    pub ipv4: bool,
    /// No way out and no way in
    #[arg(long)]
    pub internal: bool,
    /// Containers of the network may not talk to each other
    #[arg(long)]
    pub no_icc: bool,
    /// nat: the host's address stands for the containers'; routed: it does not; isolated: the
    /// host has no address on the network
    #[arg(long, value_name = "MODE", default_value = "nat", value_parser = GATEWAY_MODE)]
    #[arg(hide_possible_values = true)]
    pub gateway_mode_ipv4: GatewayMode,
    /// The same for IPv6
    #[arg(long, value_name = "MODE", default_value = "nat", value_parser = GATEWAY_MODE)]
    #[arg(hide_possible_values = true)]
    pub gateway_mode_ipv6: GatewayMode,
    /// Bytes of the largest packet; the uplink's unless given
    #[arg(long, value_name = "BYTES", value_parser = spelling::mtu)]
    pub mtu: Option<u32>,
    /// A note on the network; may be given more than once
    #[arg(long, value_name = "KEY=VALUE", value_parser = spelling::label)]
    pub label: Vec<(String, String)>,
    /// What the bridge's interface is called on the host
    #[arg(long, value_name = "IFNAME")]
    pub bridge: Option<IfName>,
    /// Docker's names of some options above: com.docker.network.driver.mtu and
    /// com.docker.network.bridge.* with name, enable_icc, gateway_mode_ipv4 or gateway_mode_ipv6
    #[arg(short, long, value_name = "KEY=VALUE", value_parser = driver_opt)]
    pub opt: Vec<DriverOpt>,
}

const DRIVER: Words<Driver> = Words { known: &["bridge", "routed"], read: spelling::driver };
const GATEWAY_MODE: Words<GatewayMode> =
    Words { known: &["nat", "routed", "isolated"], read: spelling::gateway_mode };

/// One word of a few: the shell completes those that are known, and `read` has the say, for it
/// tells more of a wrong one than clap would.
#[derive(Clone)]
struct Words<T> {
    known: &'static [&'static str],
    read: fn(&str) -> Result<T, Misspelt>,
}

impl<T: Clone + Send + Sync + 'static> TypedValueParser for Words<T> {
    type Value = T;

    fn parse_ref(
        &self,
        command: &Command,
        arg: Option<&Arg>,
        value: &OsStr,
    ) -> Result<T, clap::Error> {
        self.read.parse_ref(command, arg, value)
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        Some(Box::new(self.known.iter().map(PossibleValue::new)))
    }
}

/// An option in Docker's spelling, already understood.
#[derive(Clone)]
pub(super) enum DriverOpt {
    Icc(bool),
    Mtu(u32),
    Bridge(IfName),
    Mode4(GatewayMode),
    Mode6(GatewayMode),
}

#[derive(Args)]
pub(super) struct ConnectArgs {
    /// The network
    pub network: NetworkName,
    /// The container
    pub container: ContainerName,
    /// The container's IPv4 address on the network; chosen unless given
    #[arg(long)]
    pub ip: Option<Ipv4Addr>,
    /// The container's IPv6 address on the network; chosen unless given
    #[arg(long)]
    pub ip6: Option<Ipv6Addr>,
    /// The interface's Ethernet address; made from the IP address unless given
    #[arg(long, alias = "mac-address")]
    pub mac: Option<Mac>,
    /// A further name by which containers of the network find it; may be given more than once
    #[arg(long, value_name = "NAME")]
    pub alias: Vec<HostName>,
    /// What the interface is called inside; the next free eth0, eth1… unless given
    #[arg(long)]
    pub ifname: Option<IfName>,
    /// The network with the highest gives the container its default route
    #[arg(long, alias = "gw-priority", default_value_t = 0, allow_negative_numbers = true)]
    pub priority: i32,
    /// Publish a port in the same step:
    /// [HOST-ADDRESS:][HOST-PORT[-LAST]:]PORT[-LAST][/PROTOCOL]
    #[arg(short, long, value_name = "PORT", value_parser = spelling::publish)]
    pub publish: Vec<PublishSpec>,
}

#[derive(Args)]
pub(super) struct RunArgs {
    /// Run in the background and print the container's name
    #[arg(short, long)]
    pub detach: bool,
    /// Remove the container when it ends
    #[arg(long)]
    pub rm: bool,
    /// What the container is called; chosen unless given
    #[arg(long)]
    pub name: Option<ContainerName>,
    /// A network to join, with ip=, ip6=, mac=, alias=, ifname= and priority= after commas; may be
    /// given more than once. Or, alone: none, host, container:NAME
    #[arg(long, alias = "net", value_name = "NET[,KEY=VALUE]...")]
    pub network: Vec<String>,
    /// Publish a port: [HOST-ADDRESS:][HOST-PORT[-LAST]:]PORT[-LAST][/PROTOCOL]; may be given more
    /// than once
    #[arg(short, long, value_name = "PORT", value_parser = spelling::publish)]
    pub publish: Vec<PublishSpec>,
    /// What the container calls itself; its name unless given
    #[arg(long)]
    pub hostname: Option<HostName>,
    /// A name server for the container's resolv.conf; may be given more than once
    #[arg(long, value_name = "IP")]
    pub dns: Vec<IpAddr>,
    /// Set an environment variable; may be given more than once
    #[arg(short, long, value_name = "KEY=VALUE", value_parser = spelling::pair)]
    pub env: Vec<(String, String)>,
    /// The directory to start in
    #[arg(short, long, value_name = "DIR")]
    pub workdir: Option<String>,
    /// The command and its arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "COMMAND")]
    pub command: Vec<String>,
}

#[derive(Args)]
pub(super) struct ExecArgs {
    /// Do not wait for the command
    #[arg(short, long)]
    pub detach: bool,
    /// Set an environment variable; may be given more than once
    #[arg(short, long, value_name = "KEY=VALUE", value_parser = spelling::pair)]
    pub env: Vec<(String, String)>,
    /// The directory to start in
    #[arg(short, long, value_name = "DIR")]
    pub workdir: Option<String>,
    /// The container: by its name, or of any runtime by what `map` shows of it (name, id, pod,
    /// address, pid:N, netns:PATH), where only the network is the container's
    #[arg(value_name = "CONTAINER", value_parser = spelling::any_container)]
    pub name: String,
    /// The command and its arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "COMMAND")]
    pub command: Vec<String>,
}

#[derive(Args)]
pub(super) struct LogsArgs {
    /// The container
    #[arg(value_name = "CONTAINER")]
    pub name: ContainerName,
    /// Go on printing what it writes until it ends
    #[arg(short, long)]
    pub follow: bool,
    /// Print when each line was written
    #[arg(short, long)]
    pub timestamps: bool,
    /// Print only so many lines, the last ones
    #[arg(short = 'n', long, value_name = "LINES", default_value = "all", value_parser = tail)]
    pub tail: Tail,
    /// Print only lines written since: 30s, 10m, 2h or 1d ago, or seconds since 1970
    #[arg(long, value_name = "TIME", value_parser = since)]
    pub since: Option<Since>,
    /// Print one JSON object a line (shape: docs/json.md)
    #[arg(long)]
    pub json: bool,
}

/// How many lines; `None` is all. A type of its own as clap reads `Option` its own way.
#[derive(Clone, Copy)]
pub(super) struct Tail(pub Option<usize>);

fn tail(text: &str) -> Result<Tail, Misspelt> {
    match text {
        "all" => Ok(Tail(None)),
        _ => spelling::number(text, "a number of lines, or all").map(|n| Tail(Some(n))),
    }
}

fn since(text: &str) -> Result<Since, Misspelt> {
    let expected = "30s, 10m, 2h or 1d ago, or seconds since 1970";
    let number = |digits: &str| spelling::number::<u64>(digits, expected);
    let units = [('s', 1), ('m', 60), ('h', 3600), ('d', 86400)];
    for (unit, seconds) in units {
        if let Some(digits) = text.strip_suffix(unit) {
            let too_far = || Misspelt(format!("{text:?} is further back than time goes"));
            let ago = number(digits)?.checked_mul(seconds).ok_or_else(too_far)?;
            return Ok(Since::AgoSeconds(ago));
        }
    }
    number(text).map(Since::At)
}

fn aux_address(text: &str) -> Result<(String, IpAddr), Misspelt> {
    let (name, addr) = spelling::pair(text)?;
    Ok((name, spelling::number(&addr, "an address, as in router=10.1.0.9")?))
}

fn driver_opt(text: &str) -> Result<DriverOpt, Misspelt> {
    const KEYS: [&str; 5] = [
        "com.docker.network.bridge.enable_icc",
        "com.docker.network.bridge.gateway_mode_ipv4",
        "com.docker.network.bridge.gateway_mode_ipv6",
        "com.docker.network.bridge.name",
        "com.docker.network.driver.mtu",
    ];
    let (key, value) = spelling::pair(text)?;
    match key.as_str() {
        "com.docker.network.bridge.enable_icc" => {
            spelling::number(&value, "true or false").map(DriverOpt::Icc)
        }
        "com.docker.network.bridge.gateway_mode_ipv4" => {
            spelling::gateway_mode(&value).map(DriverOpt::Mode4)
        }
        "com.docker.network.bridge.gateway_mode_ipv6" => {
            spelling::gateway_mode(&value).map(DriverOpt::Mode6)
        }
        "com.docker.network.bridge.name" => spelling::word(&value).map(DriverOpt::Bridge),
        "com.docker.network.driver.mtu" => spelling::mtu(&value).map(DriverOpt::Mtu),
        _ => {
            let near = spelling::nearest(&key, &KEYS);
            let near = near.map(|near| format!("; did you mean {near}?")).unwrap_or_default();
            let keys = KEYS.join(", ");
            Err(Misspelt(format!("{key} is not an option here{near} (known: {keys})")))
        }
    }
}
