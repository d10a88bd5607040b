//! Attaches a container as others do it: a script, netavark, the CNI plugins, Docker.
//!
//! Each is called as its own callers call it, and timed from outside. None gets a state that it
//! did not make itself.

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::floor::Cable;

/// Returns the first of `paths` that is there, or says that none is.
pub fn find(what: &str, paths: &[&str]) -> Result<PathBuf, String> {
    let found = paths.iter().map(Path::new).find(|path| path.exists());
    found
        .map(Path::to_owned)
        .ok_or_else(|| format!("no {what} on this machine ({})", paths.join(", ")))
}

/// Runs a command to its end, with `stdin`; an error if it fails.
pub fn run(command: &mut Command, stdin: &[u8]) -> io::Result<Output> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    if let Some(mut pipe) = child.stdin.take() {
        // A program that does not read closes its end early.
        let _ = pipe.write_all(stdin);
    }
    let output = child.wait_with_output()?;
    if output.status.success() {
        return Ok(output);
    }
    let said = [&output.stdout[..], &output.stderr[..]].concat();
    let said = String::from_utf8_lossy(&said).trim().to_owned();
    Err(io::Error::other(format!("{command:?} ended with {}: {said}", output.status)))
}

/// A way to attach, with one published port, and to undo that.
pub trait Peer {
    /// Attaches container `number` and returns how long that took.
    fn attach(&mut self, number: u32, netns: &Path) -> io::Result<Duration>;
    fn detach(&mut self, number: u32, netns: &Path) -> io::Result<()>;
}

/// The same outcome as the floor's, by commands.
pub struct Script {
    shell: PathBuf,
    bridge: String,
}

const SCRIPT: &str = "/tmp/attach.sh";

impl Script {
    pub fn new(bridge: &str) -> Result<Self, String> {
        let shell = find("shell", &["/bin/sh"])?;
        find("ip", &["/sbin/ip", "/usr/sbin/ip", "/bin/ip"])?;
        find("nft", &["/sbin/nft", "/usr/sbin/nft"])?;
        fs::write(SCRIPT, include_str!("attach.sh")).map_err(|error| error.to_string())?;
        Ok(Self { shell, bridge: bridge.to_owned() })
    }

    pub fn attach(&self, cable: &Cable, netns: &str) -> io::Result<Duration> {
        let dotted = |bytes: &[u8]| bytes.iter().map(u8::to_string).collect::<Vec<_>>().join(".");
        let colons =
            |mac: &[u8]| mac.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":");
        let mut command = Command::new(&self.shell);
        command
            .arg(SCRIPT)
            .env("END", cable.host_end())
            .env("NUMBER", cable.number.to_string())
            .env("ALIAS", &cable.alias)
            .env("BRIDGE", &self.bridge)
            .env("GROUP", cable.group.to_string())
            .env("MTU", cable.mtu.to_string())
            .env("NETNS", netns)
            .env("MAC", colons(&cable.mac))
            .env("HOST_MAC", colons(&cable.host_mac))
            .env("ADDR", dotted(&cable.addr))
            .env("PREFIX", cable.prefix.to_string())
            .env("GATEWAY", dotted(&cable.gateway))
            .env("GATEWAY_MAC", colons(&cable.gateway_mac))
            .env("HOST_PORT", cable.host_port.to_string())
            .env("PORT", cable.port.to_string())
            .env("COMMENT", format!("container {}", cable.container))
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        let started = Instant::now();
        run(&mut command, b"")?;
        Ok(started.elapsed())
    }
}

/// Podman's netavark, as podman calls it.
pub struct Netavark {
    program: PathBuf,
}

impl Netavark {
    pub fn new() -> Result<Self, String> {
        let paths = ["/usr/lib/podman/netavark", "/usr/libexec/podman/netavark"];
        let program = find("netavark", &paths)?;
        find("iptables", &["/usr/sbin/iptables", "/sbin/iptables"])?;
        Ok(Self { program })
    }

    fn call(&self, verb: &str, number: u32, netns: &Path) -> io::Result<Duration> {
        let [high, low] = ((number + 2) as u16).to_be_bytes();
        let request = json!({
            "container_id": format!("{number:064x}"),
            "container_name": format!("c{number}"),
            "port_mappings": [{
                "host_ip": "", "host_port": 20_000 + number, "container_port": 80,
                "range": 1, "protocol": "tcp"
            }],
            "networks": {
                "bench": { "static_ips": [format!("10.88.{high}.{low}")], "interface_name": "eth0" }
            },
            "network_info": { "bench": {
                "name": "bench",
                "id": "53ce4390f2adb1681eb1a90ec8b48c49c015e0a8d336c197637e7f65e365fa9e",
                "driver": "bridge",
                "network_interface": "bench0",
                "subnets": [{ "gateway": "10.88.0.1", "subnet": "10.88.0.0/16" }],
                "ipv6_enabled": false, "internal": false, "dns_enabled": false,
                "ipam_options": { "driver": "host-local" }
            }}
        });
        let mut command = Command::new(&self.program);
        command.args(["--config", "/run/netavark", verb]).arg(netns);
        command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        let request = request.to_string();
        let started = Instant::now();
        run(&mut command, request.as_bytes())?;
        Ok(started.elapsed())
    }
}

impl Peer for Netavark {
    fn attach(&mut self, number: u32, netns: &Path) -> io::Result<Duration> {
        self.call("setup", number, netns)
    }

    fn detach(&mut self, number: u32, netns: &Path) -> io::Result<()> {
        self.call("teardown", number, netns).map(drop)
    }
}

/// The CNI plugins, in a chain, as a container runtime calls them.
pub struct Cni {
    plugins: Vec<(PathBuf, Value)>,
    dir: PathBuf,
}

impl Cni {
    pub fn new() -> Result<Self, String> {
        let bridge = find("CNI plugins", &["/usr/lib/cni/bridge", "/opt/cni/bin/bridge"])?;
        find("iptables", &["/usr/sbin/iptables", "/sbin/iptables"])?;
        let dir = bridge.parent().map(Path::to_owned).unwrap_or_default();
        let configs = [
            json!({
                "type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": true,
                "hairpinMode": true,
                "ipam": {
                    "type": "host-local", "ranges": [[{ "subnet": "10.89.0.0/16" }]],
                    "routes": [{ "dst": "0.0.0.0/0" }]
                }
            }),
            json!({ "type": "portmap", "capabilities": { "portMappings": true } }),
            json!({ "type": "firewall", "backend": "iptables" }),
        ];
        let plugins = configs
            .into_iter()
            .map(|config| (dir.join(config["type"].as_str().unwrap_or_default()), config));
        Ok(Self { plugins: plugins.collect(), dir: dir.clone() })
    }

    fn call(&self, verb: &str, number: u32, netns: &Path) -> io::Result<Duration> {
        let mut plugins: Vec<&(PathBuf, Value)> = self.plugins.iter().collect();
        if verb == "DEL" {
            plugins.reverse();
        }
        let mut previous: Option<Value> = None;
        let started = Instant::now();
        for (program, config) in plugins {
            let mut config = config.clone();
            config["cniVersion"] = "0.4.0".into();
            config["name"] = "bench".into();
            config["runtimeConfig"] = json!({ "portMappings": [
                { "hostPort": 20_000 + number, "containerPort": 80, "protocol": "tcp" }
            ]});
            if let Some(result) = &previous {
                config["prevResult"] = result.clone();
            }
            let mut command = Command::new(program);
            command
                .env_clear()
                .env("CNI_COMMAND", verb)
                .env("CNI_CONTAINERID", format!("c{number}"))
                .env("CNI_NETNS", netns)
                .env("CNI_IFNAME", "eth0")
                .env("CNI_PATH", &self.dir)
                .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
            let output = run(&mut command, config.to_string().as_bytes())?;
            if verb == "ADD" {
                previous = Some(serde_json::from_slice(&output.stdout)?);
            }
        }
        Ok(started.elapsed())
    }
}

impl Peer for Cni {
    fn attach(&mut self, number: u32, netns: &Path) -> io::Result<Duration> {
        self.call("ADD", number, netns)
    }

    fn detach(&mut self, number: u32, netns: &Path) -> io::Result<()> {
        self.call("DEL", number, netns).map(drop)
    }
}

/// The Docker that runs on this machine; the only one that is not in a sandbox.
pub struct Docker {
    program: PathBuf,
}

/// What we make there is called so, and nothing else is touched.
const DOCKER_NAME: &str = "twinax-bench";

impl Docker {
    pub fn new() -> Result<Self, String> {
        let program = find("docker", &["/usr/bin/docker", "/usr/local/bin/docker"])?;
        let docker = Self { program };
        docker.call(&["info"]).map_err(|_| "dockerd does not run".to_owned())?;
        Ok(docker)
    }

    fn call(&self, args: &[&str]) -> io::Result<Duration> {
        let started = Instant::now();
        run(Command::new(&self.program).args(args), b"")?;
        Ok(started.elapsed())
    }

    /// Times `docker network connect` of a running container with one published port.
    pub fn samples(&self, count: usize) -> io::Result<Vec<Duration>> {
        let samples = self.prepare().and_then(|()| {
            (0..count)
                .map(|_| {
                    self.call(&["network", "disconnect", DOCKER_NAME, DOCKER_NAME])?;
                    self.call(&["network", "connect", DOCKER_NAME, DOCKER_NAME])
                })
                .collect()
        });
        for args in
            [&["rm", "-f", DOCKER_NAME][..], &["network", "rm", DOCKER_NAME], &["rmi", DOCKER_NAME]]
        {
            let _ = self.call(args);
        }
        samples
    }

    /// A network, and a container on it of an empty image that sees the host's programs.
    fn prepare(&self) -> io::Result<()> {
        let mut import = Command::new(&self.program);
        // An archive without files: two blocks of zeros.
        run(import.args(["import", "-", DOCKER_NAME]), &[0; 1024])?;
        self.call(&["network", "create", DOCKER_NAME])?;
        let mut args = vec!["run", "-d", "--name", DOCKER_NAME, "--network", DOCKER_NAME];
        args.extend(["-p", "20000:80"]);
        let seen = ["/bin", "/lib", "/lib64", "/usr"].map(|dir| format!("{dir}:{dir}:ro"));
        args.extend(seen.iter().flat_map(|dir| ["-v", dir.as_str()]));
        args.extend([DOCKER_NAME, "/bin/sleep", "3600"]);
        self.call(&args).map(drop)
    }
}
