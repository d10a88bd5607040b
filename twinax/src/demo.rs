//! Small servers and clients for the examples and the tests; they know nothing of Twinax.
//!
//! ```text
//! demo http  --port P [--name TEXT] [--upstream HOST:PORT | --upstream kv://HOST:PORT]…
//! demo kv    --port P
//! demo echo  --tcp|--udp --port P [--bind ADDR]
//! demo fetch URL [--timeout SECONDS]
//! demo send  --tcp|--udp HOST:PORT TEXT [--timeout SECONDS]
//! demo wait  HOST:PORT [--timeout SECONDS]
//! ```
//!
//! Servers print one line a request. Exit codes: 0 done, 1 no (or a bad) answer, 2 usage.

mod echo;
mod http;
mod kv;
mod net;

use std::{
    ffi::OsString,
    fmt,
    io::{self, Write},
    net::IpAddr,
    process::ExitCode,
    time::Duration,
};

/// What `demo --help` prints.
const USAGE: &str = "\
Small servers and clients to try a network with.

Usage: twinax demo http  --port P [--name TEXT] [--upstream [kv://]HOST:PORT]...
       twinax demo kv    --port P
       twinax demo echo  --tcp|--udp --port P [--bind ADDR]
       twinax demo fetch URL [--timeout SECONDS]
       twinax demo send  --tcp|--udp HOST:PORT TEXT [--timeout SECONDS]
       twinax demo wait  HOST:PORT [--timeout SECONDS]
";

/// Runs what the words after `demo` ask for. Servers return only when they cannot go on.
pub fn main(args: &[OsString]) -> ExitCode {
    match run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Stop::Usage(message)) => {
            eprintln!("error: {message}\n\n{USAGE}");
            ExitCode::from(2)
        }
        Err(Stop::Failed(message)) => {
            eprintln!("error: {message}");
            ExitCode::from(1)
        }
    }
}

/// Why a demo ends early.
#[derive(Debug, PartialEq, Eq)]
enum Stop {
    Usage(String),
    Failed(String),
}

/// What a server answered.
struct Answer {
    /// As HTTP has it: 200 is good.
    status: u16,
    body: String,
}

impl Stop {
    fn failed(what: impl fmt::Display, error: &io::Error) -> Self {
        Self::Failed(format!("{what}: {}", net::reason(error)))
    }
}

fn run(args: &[OsString]) -> Result<(), Stop> {
    let args: Option<Vec<&str>> = args.iter().map(|arg| arg.to_str()).collect();
    let args = args.ok_or_else(|| Stop::Usage("an argument is not UTF-8".to_owned()))?;
    let Some((&verb, rest)) = args.split_first() else {
        return Err(Stop::Usage("which demo?".to_owned()));
    };
    if ["--help", "-h", "help"].contains(&verb) {
        say(USAGE.trim_end());
        return Ok(());
    }
    let args = Args::parse(rest)?;
    match verb {
        "http" => {
            args.allow(&["--port", "--name", "--upstream"], 0)?;
            let upstreams = args.all("--upstream").map(http::Upstream::parse);
            let upstreams = upstreams.collect::<Result<_, _>>().map_err(Stop::Usage)?;
            http::serve(args.port()?, args.one("--name").unwrap_or("http"), upstreams)
        }
        "kv" => {
            args.allow(&["--port"], 0)?;
            kv::serve(args.port()?)
        }
        "echo" => {
            args.allow(&["--tcp", "--udp", "--port", "--bind"], 0)?;
            echo::serve(args.transport()?, args.bind()?, args.port()?)
        }
        "fetch" => {
            args.allow(&["--timeout"], 1)?;
            http::fetch(args.words[0], args.timeout()?)
        }
        "send" => {
            args.allow(&["--tcp", "--udp", "--timeout"], 2)?;
            echo::send(args.transport()?, args.words[0], args.words[1], args.timeout()?)
        }
        "wait" => {
            args.allow(&["--timeout"], 1)?;
            echo::wait(args.words[0], args.timeout()?)
        }
        _ => Err(Stop::Usage(format!("no demo named {verb:?}"))),
    }
}

/// Prints a line at once, also into a pipe or a log file.
fn say(line: &str) {
    let mut out = io::stdout().lock();
    // Whoever read our output may have gone; serving goes on.
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Transport {
    Tcp,
    Udp,
}

/// A command line cut into flags and words. `--flag=value` and `--flag value` are the same.
#[derive(Debug, Default)]
struct Args<'a> {
    flags: Vec<(&'a str, &'a str)>,
    words: Vec<&'a str>,
}

impl<'a> Args<'a> {
    fn parse(args: &[&'a str]) -> Result<Self, Stop> {
        let mut parsed = Self::default();
        let mut args = args.iter().copied();
        while let Some(arg) = args.next() {
            if arg == "--" {
                parsed.words.extend(args);
                break;
            }
            match arg.split_once('=') {
                _ if !arg.starts_with("--") => parsed.words.push(arg),
                Some((flag, value)) => parsed.flags.push((flag, value)),
                None if ["--tcp", "--udp"].contains(&arg) => parsed.flags.push((arg, "")),
                None => {
                    let missing = || Stop::Usage(format!("{arg} needs a value"));
                    parsed.flags.push((arg, args.next().ok_or_else(missing)?));
                }
            }
        }
        Ok(parsed)
    }

    fn allow(&self, flags: &[&str], words: usize) -> Result<(), Stop> {
        if let Some((flag, _)) = self.flags.iter().find(|(flag, _)| !flags.contains(flag)) {
            return Err(Stop::Usage(format!("unknown option {flag}")));
        }
        if self.words.len() != words {
            let given = self.words.len();
            return Err(Stop::Usage(format!("{words} arguments wanted, {given} given")));
        }
        Ok(())
    }

    fn all(&self, name: &str) -> impl Iterator<Item = &'a str> {
        self.flags.iter().filter(move |(flag, _)| *flag == name).map(|(_, value)| *value)
    }

    fn one(&self, name: &str) -> Option<&'a str> {
        self.all(name).last()
    }

    fn port(&self) -> Result<u16, Stop> {
        let text = self.one("--port").ok_or_else(|| Stop::Usage("--port is missing".to_owned()))?;
        match text.parse() {
            Ok(0) | Err(_) => Err(Stop::Usage(format!("--port: not a port (1 to 65535): {text}"))),
            Ok(port) => Ok(port),
        }
    }

    fn bind(&self) -> Result<Option<IpAddr>, Stop> {
        let Some(text) = self.one("--bind") else { return Ok(None) };
        match text.parse() {
            Ok(addr) => Ok(Some(addr)),
            Err(_) => Err(Stop::Usage(format!("--bind: not an IP address: {text}"))),
        }
    }

    fn transport(&self) -> Result<Transport, Stop> {
        match (self.one("--tcp"), self.one("--udp")) {
            (Some(_), None) => Ok(Transport::Tcp),
            (None, Some(_)) => Ok(Transport::Udp),
            _ => Err(Stop::Usage("exactly one of --tcp and --udp is wanted".to_owned())),
        }
    }

    fn timeout(&self) -> Result<Duration, Stop> {
        let text = self.one("--timeout").unwrap_or("5");
        let seconds =
            text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        match seconds {
            Some(limit) if !limit.is_zero() => Ok(limit),
            _ => Err(Stop::Usage(format!("--timeout: not a number of seconds above 0: {text}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refuse(line: &str) -> String {
        let args: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
        match run(&args) {
            Err(Stop::Usage(message)) => message,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn bad_command_lines_say_what_is_wrong() {
        assert_eq!(refuse("ftp"), "no demo named \"ftp\"");
        assert_eq!(refuse("kv"), "--port is missing");
        assert_eq!(refuse("kv --port"), "--port needs a value");
        assert_eq!(refuse("kv --port 70000"), "--port: not a port (1 to 65535): 70000");
        assert_eq!(refuse("kv --port 1 --name x"), "unknown option --name");
        assert_eq!(refuse("echo --port 1"), "exactly one of --tcp and --udp is wanted");
        assert_eq!(refuse("send --tcp a:1"), "2 arguments wanted, 1 given");
        assert_eq!(refuse("fetch x"), "not a URL (http://HOST[:PORT][/PATH]): x");
        assert_eq!(refuse("wait db"), "not HOST:PORT: db");
        assert_eq!(
            refuse("wait db:1 --timeout 0"),
            "--timeout: not a number of seconds above 0: 0"
        );
        assert_eq!(refuse("http --port 1 --upstream kv:/x"), "not HOST:PORT: kv:/x");
    }
}
