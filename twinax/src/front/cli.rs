//! The command line: Docker's grammar in, one typed [`Command`] out.
//!
//! Pure: parsing asks nothing of the machine. Help, shell completions and manual pages are
//! printed from the same definitions (`grammar.rs`).

mod grammar;

use std::{ffi::OsString, mem::ManuallyDrop, path::PathBuf};

use clap::{Args, CommandFactory, FromArgMatches, ValueEnum, error::ErrorKind};
use twinax_core::{
    doctor,
    filter::{self, Filter},
    map::Wanted,
    name::{ContainerName, HostName, NetworkName},
    state::{AttachSpec, NetworkSpec, PublishSpec},
};

use self::grammar::{
    CaptureArgs, ConnectArgs, CreateArgs, DisconnectArgs, DoctorArgs, DriverOpt, ExecArgs, Grammar,
    LogsArgs, MapArgs, NetworkVerb, RemoveArgs, RunArgs, Verb, WantedArgs,
};
use super::spelling::{self, Addressing, Part};

/// What a user asks for; every value in it is parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    NetworkCreate {
        name: NetworkName,
        spec: NetworkSpec,
    },
    NetworkList {
        quiet: bool,
        json: bool,
    },
    NetworkInspect {
        names: Vec<NetworkName>,
        json: bool,
    },
    NetworkRemove {
        names: Vec<NetworkName>,
    },
    NetworkPrune,
    NetworkConnect {
        container: ContainerName,
        spec: AttachSpec,
        publish: Vec<PublishSpec>,
    },
    NetworkDisconnect {
        network: NetworkName,
        container: ContainerName,
    },
    Run(Box<Run>),
    Exec(Exec),
    List {
        all: bool,
        quiet: bool,
        json: bool,
    },
    Logs(Logs),
    /// `wait_s`: how long a container may take to end before it is killed.
    Stop {
        names: Vec<ContainerName>,
        wait_s: u32,
    },
    Remove {
        names: Vec<ContainerName>,
        force: bool,
    },
    Port {
        name: ContainerName,
        json: bool,
    },
    Publish {
        name: ContainerName,
        ports: Vec<PublishSpec>,
    },
    Unpublish {
        name: ContainerName,
        ports: Vec<PublishSpec>,
    },
    Up {
        file: PathBuf,
    },
    Down {
        file: PathBuf,
    },
    Plan {
        file: PathBuf,
        json: bool,
    },
    Check {
        json: bool,
    },
    Repair {
        json: bool,
    },
    Map(Map),
    Top(Wanted),
    Peer {
        handle: String,
        json: bool,
    },
    Doctor(Doctor),
    Inspect {
        handle: String,
        rules: bool,
        json: bool,
    },
    Capture(Box<Capture>),
    Snapshot {
        file: PathBuf,
    },
    /// Without `new`, what is now.
    Diff {
        old: PathBuf,
        new: Option<PathBuf>,
        json: bool,
    },
    Completions {
        shell: clap_complete::Shell,
    },
    /// Without a directory, the page of `twinax` itself goes to standard output.
    Man {
        directory: Option<PathBuf>,
    },
    /// Test servers and clients; their own grammar reads the rest.
    Demo {
        args: Vec<OsString>,
    },
}

/// `twinax map`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Map {
    pub wanted: Wanted,
    pub output: Output,
    /// Go on and show what changes.
    pub watch: bool,
}

/// `twinax doctor`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Doctor {
    pub asked: doctor::Asked,
    /// Only tell which checks there are.
    pub list: bool,
    pub json: bool,
}

/// What a map is printed as.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Output {
    #[default]
    Text,
    Json,
    /// A picture
    Svg,
    /// A page to attach to a ticket: search, details, zoom; needs nothing else
    Html,
    /// For Graphviz
    Dot,
    /// For Markdown
    Mermaid,
}

/// `twinax capture`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capture {
    pub handle: String,
    /// Without one, packets are told a line each.
    pub write: Option<PathBuf>,
    pub both: bool,
    /// After how many packets, and seconds, it ends by itself.
    pub count: Option<u64>,
    pub seconds: Option<u64>,
    /// Bytes of each packet that are kept.
    pub keep: u32,
    pub filter: Option<Filter>,
    /// The filter as it was written.
    pub words: String,
}

/// `twinax run`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    pub name: Option<ContainerName>,
    pub command: Vec<String>,
    pub detach: bool,
    /// Remove the container when it ends.
    pub remove: bool,
    pub mode: Mode,
    pub publish: Vec<PublishSpec>,
    pub hostname: Option<HostName>,
    pub dns: Vec<std::net::IpAddr>,
    pub env: Vec<(String, String)>,
    pub workdir: Option<String>,
}

/// Where a container's network comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mode {
    /// These networks; none named: the default network.
    Networks(Vec<AttachSpec>),
    /// A namespace of its own with nothing in it but a loopback.
    None,
    /// The host's own.
    Host,
    /// Another container's.
    Of(ContainerName),
}

/// `twinax exec`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exec {
    /// A container of Twinax's, or whatever `map` shows.
    pub name: String,
    pub command: Vec<String>,
    pub detach: bool,
    pub env: Vec<(String, String)>,
    pub workdir: Option<String>,
}

/// `twinax logs`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Logs {
    pub name: ContainerName,
    pub follow: bool,
    pub timestamps: bool,
    /// Only so many lines, the last ones.
    pub tail: Option<usize>,
    pub since: Option<Since>,
    pub json: bool,
}

/// A moment, told by its distance from now or from 1970, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Since {
    AgoSeconds(u64),
    At(u64),
}

/// Reads a whole command line, the program's name first.
///
/// A request for help or the version comes back as an error too, as clap has it: `exit_code()` is
/// then 0, and 2 for every line that cannot be read; `print()` finds the right stream.
pub fn parse<A>(args: impl IntoIterator<Item = A>) -> Result<Command, clap::Error>
where
    A: Into<OsString> + Clone,
{
    let words: Vec<OsString> = args.into_iter().map(Into::into).collect();
    parse_known(&words).map_or_else(|| parse_any(&words), Ok)
}

/// Reads the lines that scripts write a thousand of, with the grammar of their command alone: to build
/// the names and descriptions of all others takes four times as long as to read the line.
///
/// Whatever is not a plain and right line comes to `None`, and to [`parse_any`], which says what
/// is wrong with it. Both read by the same definitions.
fn parse_known(words: &[OsString]) -> Option<Command> {
    let word = |n: usize| words.get(n).and_then(|word| word.to_str());
    match (word(1)?, word(2)?) {
        ("network", "connect") => read_alone(&words[3..]).map(connect),
        ("network", "disconnect") => read_alone(&words[3..]).map(disconnect),
        ("run", _) => {
            read_alone(&words[2..]).and_then(|args| run(args).ok()).map(Box::new).map(Command::Run)
        }
        ("exec", _) => read_alone(&words[2..]).map(exec).map(Command::Exec),
        ("rm", _) => read_alone(&words[2..]).map(remove),
        _ => None,
    }
}

/// Reads what follows the name of a command.
fn read_alone<T: Args>(words: &[OsString]) -> Option<T> {
    let alone = clap::Command::new("twinax").no_binary_name(true);
    let mut grammar = ManuallyDrop::new(T::augment_args(alone));
    let mut matches = grammar.try_get_matches_from_mut(words).ok()?;
    T::from_arg_matches_mut(&mut matches).ok()
}

fn parse_any(words: &[OsString]) -> Result<Command, clap::Error> {
    // Taking the grammar apart again takes a third of the time that building it does.
    let mut grammar = ManuallyDrop::new(Grammar::command());
    let mut matches = grammar.try_get_matches_from_mut(words)?;
    let parsed = Grammar::from_arg_matches_mut(&mut matches);
    Ok(match parsed.map_err(|error| error.format(&mut grammar))?.verb {
        Verb::Network(args) => network(args.0.verb)?,
        Verb::Run(args) => Command::Run(Box::new(run(args.0)?)),
        Verb::Exec(args) => Command::Exec(exec(args.0)),
        Verb::Ps { all, quiet, json } => Command::List { all, quiet, json },
        Verb::Logs(args) => Command::Logs(logs(args.0)),
        Verb::Stop { time, names } => Command::Stop { names, wait_s: time },
        Verb::Rm(args) => remove(args.0),
        Verb::Port { name, json } => Command::Port { name, json },
        Verb::Publish { name, ports } => Command::Publish { name, ports },
        Verb::Unpublish { name, ports } => Command::Unpublish { name, ports },
        Verb::Up { file } => Command::Up { file },
        Verb::Down { file } => Command::Down { file },
        Verb::Plan { file, json } => Command::Plan { file, json },
        Verb::Check { json } => Command::Check { json },
        Verb::Repair { json } => Command::Repair { json },
        Verb::Map(args) => Command::Map(map(args.0)?),
        Verb::Top(args) => Command::Top(wanted(args.0.wanted)),
        Verb::Peer { handle, json } => Command::Peer { handle, json },
        Verb::Doctor(args) => {
            let DoctorArgs { of, only, skip, list, json } = args.0;
            Command::Doctor(Doctor { asked: doctor::Asked { of, only, skip }, list, json })
        }
        Verb::Inspect { handle, rules, json } => Command::Inspect { handle, rules, json },
        Verb::Capture(args) => Command::Capture(Box::new(capture(args.0)?)),
        Verb::Snapshot { file } => Command::Snapshot { file },
        Verb::Diff { old, new, json } => Command::Diff { old, new, json },
        Verb::Completions { shell } => Command::Completions { shell },
        Verb::Man { directory } => Command::Man { directory },
        Verb::Demo { args } => Command::Demo { args },
    })
}

fn map(args: MapArgs) -> Result<Map, clap::Error> {
    let MapArgs { wanted: of, output, json, watch } = args;
    let output = if json { Output::Json } else { output };
    if watch && !matches!(output, Output::Text | Output::Json) {
        let form = output.to_possible_value().expect("every form has a name");
        let why = format!("--watch prints text or JSON as it goes, and no {}", form.get_name());
        return Err(refuse(&["map"], ErrorKind::ArgumentConflict, why));
    }
    Ok(Map { wanted: wanted(of), output, watch })
}

fn wanted(args: WantedArgs) -> Wanted {
    let WantedArgs { all, only, network, runtime } = args;
    Wanted { all, only, network, runtime }
}

fn capture(args: CaptureArgs) -> Result<Capture, clap::Error> {
    let words = args.filter.join(" ");
    let filter = filter::parse(&words).map_err(|why| {
        refuse(&["capture"], ErrorKind::ValueValidation, format!("the filter: {why}"))
    })?;
    Ok(Capture {
        handle: args.handle,
        write: args.write,
        both: args.both,
        count: args.count,
        seconds: args.seconds,
        keep: args.snap_length,
        filter,
        words,
    })
}

/// The grammar itself, for what is made from it.
pub fn grammar() -> clap::Command {
    Grammar::command()
}

/// Returns the script that completes `twinax` in a shell.
pub fn completions(shell: clap_complete::Shell) -> Vec<u8> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Grammar::command(), "twinax", &mut script);
    script
}

/// Returns the manual pages by file name, `twinax.1` first, then one for each command.
pub fn manual() -> std::io::Result<Vec<(String, Vec<u8>)>> {
    let mut root = Grammar::command();
    root.build();
    let mut pages = Vec::new();
    page(&root, &mut pages)?;
    Ok(pages)
}

/// clap has given each command its whole name, as `twinax-network-create`.
fn page(command: &clap::Command, pages: &mut Vec<(String, Vec<u8>)>) -> std::io::Result<()> {
    let mut text = Vec::new();
    clap_mangen::Man::new(command.clone()).section("1").manual("Twinax").render(&mut text)?;
    let name = command.get_display_name().unwrap_or_else(|| command.get_name());
    pages.push((format!("{name}.1"), text));
    for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
        page(sub, pages)?;
    }
    Ok(())
}

/// An error of the whole line rather than of one value; the usage shown is the command's.
fn refuse(path: &[&str], kind: ErrorKind, why: impl std::fmt::Display) -> clap::Error {
    let mut root = Grammar::command();
    root.build();
    let mut command = &mut root;
    for name in path {
        command = command.find_subcommand_mut(name).expect("the grammar has this command");
    }
    command.error(kind, why)
}

fn network(verb: NetworkVerb) -> Result<Command, clap::Error> {
    Ok(match verb {
        NetworkVerb::Create(args) => create(args.0)?,
        NetworkVerb::Ls { quiet, json } => Command::NetworkList { quiet, json },
        NetworkVerb::Inspect { names, json } => Command::NetworkInspect { names, json },
        NetworkVerb::Rm { names } => Command::NetworkRemove { names },
        NetworkVerb::Prune { .. } => Command::NetworkPrune,
        NetworkVerb::Connect(args) => connect(args.0),
        NetworkVerb::Disconnect(args) => disconnect(args.0),
    })
}

fn disconnect(args: DisconnectArgs) -> Command {
    let DisconnectArgs { network, container } = args;
    Command::NetworkDisconnect { network, container }
}

fn remove(args: RemoveArgs) -> Command {
    let RemoveArgs { force, names } = args;
    Command::Remove { names, force }
}

fn connect(args: ConnectArgs) -> Command {
    let spec = AttachSpec {
        network: args.network,
        ip: args.ip,
        ip6: args.ip6,
        mac: args.mac,
        aliases: args.alias,
        ifname: args.ifname,
        gateway_priority: args.priority,
    };
    Command::NetworkConnect { container: args.container, spec, publish: args.publish }
}

fn create(args: CreateArgs) -> Result<Command, clap::Error> {
    let usage = |why: String| refuse(&["network", "create"], ErrorKind::ValueValidation, why);
    let addressing = Addressing {
        subnets: args.subnet,
        gateways: args.gateway,
        ranges: args.ip_range,
        reserved: args.aux_address,
    };
    let subnets = addressing.resolve().map_err(|misplaced| {
        let flag = match misplaced.part {
            Part::Subnet => "--subnet",
            Part::Gateway => "--gateway",
            Part::Range => "--ip-range",
            Part::Reserved => "--aux-address",
        };
        usage(format!("{flag}: {misplaced}"))
    })?;
    let mut spec = NetworkSpec {
        driver: args.driver,
        no_ipv4: args.no_ipv4 || !args.ipv4,
        ipv6: args.ipv6,
        subnets,
        internal: args.internal,
        no_icc: args.no_icc,
        mode4: args.gateway_mode_ipv4,
        mode6: args.gateway_mode_ipv6,
        mtu: args.mtu,
        bridge: args.bridge,
        labels: args.label.into_iter().collect(),
    };
    for opt in args.opt {
        match opt {
            DriverOpt::Icc(icc) => spec.no_icc = !icc,
            DriverOpt::Mtu(mtu) => spec.mtu = Some(mtu),
            DriverOpt::Bridge(bridge) => spec.bridge = Some(bridge),
            DriverOpt::Mode4(mode) => spec.mode4 = mode,
            DriverOpt::Mode6(mode) => spec.mode6 = mode,
        }
    }
    let spec = spelling::settle(spec).map_err(|why| usage(why.to_string()))?;
    Ok(Command::NetworkCreate { name: args.name, spec })
}

fn run(args: RunArgs) -> Result<Run, clap::Error> {
    let mode = mode(&args)?;
    Ok(Run {
        name: args.name,
        command: args.command,
        detach: args.detach,
        remove: args.rm,
        mode,
        publish: args.publish,
        hostname: args.hostname,
        dns: args.dns,
        env: args.env,
        workdir: args.workdir,
    })
}

/// What `--network` may say once: a mode instead of a network.
pub(super) fn special(text: &str) -> Option<Result<Mode, spelling::Misspelt>> {
    match text {
        "none" => Some(Ok(Mode::None)),
        "host" => Some(Ok(Mode::Host)),
        _ => {
            let name = text.strip_prefix("container:")?;
            Some(spelling::word(name).map(Mode::Of))
        }
    }
}

fn mode(args: &RunArgs) -> Result<Mode, clap::Error> {
    let conflict = |why: String| refuse(&["run"], ErrorKind::ArgumentConflict, why);
    let invalid = |text: &str, why: spelling::Misspelt| {
        let why = format!("invalid value '{text}' for '--network <NET[,KEY=VALUE]...>': {why}");
        refuse(&["run"], ErrorKind::ValueValidation, why)
    };
    let mut specs: Vec<AttachSpec> = Vec::new();
    for text in &args.network {
        if let Some(mode) = special(text) {
            let mode = mode.map_err(|why| invalid(text, why))?;
            if args.network.len() > 1 {
                return Err(conflict(format!(
                    "--network {text} cannot be combined with another --network"
                )));
            }
            alone(args, &mode)
                .map_err(|what| conflict(format!("{what} cannot be used with --network {text}")))?;
            return Ok(mode);
        }
        let spec = spelling::attach(text).map_err(|why| invalid(text, why))?;
        if specs.iter().any(|other| other.network == spec.network) {
            return Err(conflict(format!("--network {} is given twice", spec.network)));
        }
        specs.push(spec);
    }
    Ok(Mode::Networks(specs))
}

/// What makes no sense where the container has no network of its own: returns the option.
fn alone(args: &RunArgs, mode: &Mode) -> Result<(), &'static str> {
    if !args.publish.is_empty() {
        return Err("--publish");
    }
    if matches!(mode, Mode::Of(_)) && args.hostname.is_some() {
        return Err("--hostname");
    }
    if matches!(mode, Mode::Of(_)) && !args.dns.is_empty() {
        return Err("--dns");
    }
    Ok(())
}

fn exec(args: ExecArgs) -> Exec {
    Exec {
        name: args.name,
        command: args.command,
        detach: args.detach,
        env: args.env,
        workdir: args.workdir,
    }
}

fn logs(args: LogsArgs) -> Logs {
    Logs {
        name: args.name,
        follow: args.follow,
        timestamps: args.timestamps,
        tail: args.tail.0,
        since: args.since,
        json: args.json,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        std::iter::once("twinax").chain(line.split_whitespace()).map(Into::into).collect()
    }

    #[test]
    fn a_command_s_grammar_alone_reads_what_the_whole_reads() {
        for line in [
            "network connect web c1",
            "network connect -p 8080:80 --publish [::1]:53:53/udp web pid:1",
            "network connect --ip 10.1.0.5 --ip6 fd00::5 --alias a --alias=b web netns:/run/netns/x",
            "network disconnect web c1",
            "run -- ls -l",
            "run -d --rm --name n --network web,ip=10.1.0.5,alias=db --network back -p 80 sh -c x --help",
            "run --network none -- --version",
            "run --network container:web sh",
            "exec -e A=b=c -d web ls -e --all",
            "exec shop/cart-0 -- ss -lnt",
            "rm a",
            "rm -f a b",
            "rm a --force -- b",
        ] {
            let whole = parse_any(&words(line)).expect(line);
            assert_eq!(parse_known(&words(line)), Some(whole), "{line}");
        }
    }

    #[test]
    fn what_is_not_plainly_right_is_left_to_the_whole_grammar() {
        for line in [
            "",
            "run",
            "rm",
            "rm --help",
            "rm --version a",
            "rm -f",
            "--help rm a",
            "network",
            "network connect",
            "network connect web",
            "network connect --help",
            "network connect --ip x web c1",
            "network disconnect web c1 c2",
            "run --network container:web --hostname h sh",
            "run --network none --network web sh",
            "exec web",
            "ps -a",
        ] {
            assert_eq!(parse_known(&words(line)), None, "{line}");
        }
    }
}
