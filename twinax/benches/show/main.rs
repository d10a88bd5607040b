//! What `map` and `peer` take on a host of many containers, step by step, and what the usual script
//! takes for the same.
//!
//! `cargo bench --bench show` prints the table; docs/benchmark.md says what each row is. Nothing
//! here judges by the clock: an aim that is missed is printed as missed.
#![allow(unreachable_pub, reason = "`pub` says what the parts may use; nothing is outside")]

#[path = "../attach/figures.rs"]
mod figures;
#[path = "../attach/floor.rs"]
#[allow(dead_code, reason = "makes cables here, and is no row")]
mod floor;
mod host;
#[path = "../attach/sandbox.rs"]
#[allow(dead_code, reason = "the other benchmark has more parts")]
mod sandbox;
mod steps;
mod table;

use std::{
    env, io,
    process::ExitCode,
    time::{Duration, Instant},
};

use sandbox::Role;
use table::Figures;

const USAGE: &str = "usage: cargo bench --bench show -- [--containers 1000] [--processes 2000] \
    [--samples 20] [--script-samples 3] [--markdown]";

/// What to measure.
#[derive(Clone, Debug)]
pub struct Options {
    containers: u32,
    /// On the whole host.
    processes: u32,
    samples: usize,
    /// Of the script, of which one takes seconds.
    script_samples: usize,
    markdown: bool,
}

impl Options {
    fn parse(args: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut options = Self {
            containers: 1000,
            processes: 2000,
            samples: 20,
            script_samples: 3,
            markdown: false,
        };
        let mut args = args.flat_map(|arg| match arg.split_once('=') {
            Some((flag, value)) if flag.starts_with("--") => {
                vec![flag.to_owned(), value.to_owned()]
            }
            _ => vec![arg],
        });
        let number = |text: &str| text.parse().map_err(|_| format!("not a number: {text}"));
        while let Some(arg) = args.next() {
            let mut value = || {
                args.next().ok_or_else(|| format!("{arg} needs a value")).and_then(|t| number(&t))
            };
            match arg.as_str() {
                "--bench" => {}
                "--containers" => options.containers = value()?,
                "--processes" => options.processes = value()?,
                "--samples" => options.samples = value()?.max(1) as usize,
                "--script-samples" => options.script_samples = value()? as usize,
                "--markdown" => options.markdown = true,
                _ => return Err(format!("unknown option {arg}")),
            }
        }
        match options.containers {
            // The addresses of one subnet; indices of the host ends; published ports.
            1..=20_000 => Ok(options),
            other => Err(format!("{other} containers is not from 1 to 20000")),
        }
    }
}

fn main() -> ExitCode {
    if let Some(code) = host::be_tenant() {
        return code;
    }
    if matches!(Role::own(), Role::Weigh) {
        return sandbox::weigh_here();
    }
    let args: Vec<String> = env::args().skip(1).collect();
    if args.is_empty() {
        // `cargo test --all-targets` runs benchmarks too, but does not ask for figures.
        println!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    let options = match Options::parse(args.into_iter()) {
        Ok(options) => options,
        Err(why) => {
            eprintln!("error: {why}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let outcome = match Role::own() {
        Role::Door => host::keep_outer().map(|()| sandbox::door()),
        Role::Inside(_) => {
            sandbox::furnish().and_then(|()| inside(&options)).map(|()| ExitCode::SUCCESS)
        }
        _ => run(&options).map(|()| ExitCode::SUCCESS),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("error: {error}");
        ExitCode::FAILURE
    })
}

fn run(options: &Options) -> io::Result<()> {
    let mut figures = Figures::default();
    let outcome = sandbox::run("host", |line| figures.take(line));
    println!("{}\n", sandbox::machine());
    figures.aims();
    figures.print(options.markdown);
    outcome
}

fn inside(options: &Options) -> io::Result<()> {
    let started = Instant::now();
    let say = |what: &str| eprintln!("{:>4} s  {what}", started.elapsed().as_secs());
    say("making the host");
    let each = options.processes.div_ceil(options.containers).max(1);
    let host = host::Host::build(options.containers, each)?;
    // What was put off when links came up is done by then.
    std::thread::sleep(Duration::from_secs(2));
    say("checking what is seen");
    steps::verify(&host)?;
    say("steps");
    steps::in_process(options.samples)?;
    say("commands");
    steps::commands(&host, options.samples)?;
    say("the script");
    steps::scripts(&host, options.script_samples)
}
