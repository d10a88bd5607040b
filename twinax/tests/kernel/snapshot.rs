//! `snapshot` and `diff` around what Twinax and others do to a host.

use std::{
    fs,
    io::Write,
    os::unix::fs::{FileTypeExt, symlink},
    process::Stdio,
};

use rustix::fs::{CWD, Mode, mkfifoat};
use serde_json::Value as Json;

use crate::{harness::Outcome, sandbox::Sandbox, tests, wire};

tests![connecting_is_told_and_nothing_else, what_others_do_is_told, what_is_no_snapshot_is_refused];

fn diff(sandbox: &Sandbox, line: &str, code: i32) -> String {
    let output = sandbox.try_line(&format!("diff {line}"));
    assert_eq!(output.code, Some(code), "{}{}", output.stdout, output.stderr);
    let told = output.stdout.lines().filter(|line| !line.starts_with("not seen"));
    told.map(|line| format!("{line}\n")).collect()
}

fn connecting_is_told_and_nothing_else(sandbox: &mut Sandbox) -> Outcome {
    sandbox.done("network create web");
    sandbox.done("network create back");
    let one = sandbox.start("one", "--network web");
    sandbox.start("two", "--network back");
    sandbox.done("snapshot /run/tmp/a.json");
    assert_eq!(diff(sandbox, "/run/tmp/a.json", 0), "");
    sandbox.done("network connect back one");
    let addr = sandbox.inside("one").addrs[one.addrs.len()];
    let told = diff(sandbox, "/run/tmp/a.json", 1);
    let [cable, network] = told.lines().collect::<Vec<_>>()[..] else { panic!("{told}") };
    assert!(cable.starts_with("+ cable txv") && cable.contains(" ⇄ one/eth1: on tx-back, "));
    assert!(cable.contains(&format!(" {addr}/")), "{cable}");
    assert_eq!(network, "+ network of one: back");
    sandbox.done("snapshot /run/tmp/b.json");
    assert_eq!(diff(sandbox, "/run/tmp/b.json", 0), "");
    assert_eq!(diff(sandbox, "/run/tmp/a.json /run/tmp/b.json", 1), told);
    let back = diff(sandbox, "/run/tmp/b.json /run/tmp/a.json", 1);
    assert_eq!(back, told.replace("+ ", "- "));
    let output = sandbox.twinax(&["diff", "/run/tmp/a.json", "--json"]);
    let json: Json = serde_json::from_str(&output.stdout).unwrap();
    assert_eq!(
        (output.code, &json["version"], &json["same_boot"]),
        (Some(1), &1.into(), &true.into())
    );
    let changes = json["changes"].as_array().unwrap();
    assert_eq!(changes.len(), 2, "{json}");
    assert_eq!((&changes[0]["kind"], &changes[0]["before"]), (&"cable".into(), &Json::Null));
    assert_eq!((&changes[1]["what"], &changes[1]["after"]), (&"one".into(), &"back".into()));
    Outcome::Passed
}

fn what_others_do_is_told(sandbox: &mut Sandbox) -> Outcome {
    wire::add_bridge("br9").unwrap();
    wire::set_up("br9").unwrap();
    let netns = sandbox.namespace();
    fs::create_dir_all("/run/netns").unwrap();
    fs::write("/run/netns/blue", "").unwrap();
    netns.run(|| rustix::mount::mount_bind("/proc/thread-self/ns/net", "/run/netns/blue")).unwrap();
    let fd = std::os::fd::AsRawFd::as_raw_fd(&std::os::fd::AsFd::as_fd(&netns));
    wire::add_veth("left", "right", fd).unwrap();
    sandbox.done("snapshot /run/tmp/a.json");
    assert_eq!(diff(sandbox, "/run/tmp/a.json", 0), "");
    wire::set_mtu("br9", 1400).unwrap();
    wire::set_master("left", "br9").unwrap();
    netns.run(|| wire::add_addr("right", [10, 9, 0, 1].into(), 24).unwrap());
    let told = diff(sandbox, "/run/tmp/a.json", 1);
    for line in [
        "~ mtu of br9 on the host: 1500 → 1400\n",
        "+ bridge or other master of left on the host: br9\n",
        "+ address of right in blue: 10.9.0.1/24\n",
    ] {
        assert!(told.contains(line), "{line}{told}");
    }
    wire::del_link("left").unwrap();
    let told = diff(sandbox, "/run/tmp/a.json", 1);
    assert!(told.contains("- cable left ⇄ blue/right\n"), "{told}");
    Outcome::Passed
}

fn what_is_no_snapshot_is_refused(sandbox: &mut Sandbox) -> Outcome {
    sandbox.done("snapshot /run/tmp/a.json");
    let text = fs::read_to_string("/run/tmp/a.json").unwrap();
    let map = sandbox.done("map --json");
    let other = text.replacen("\"version\": 1", "\"version\": 2", 1);
    let broken = text.replacen("\"inode\"", "\"x\"", 1);
    for (text, why) in [
        (map.as_str(), "/run/tmp/b.json is not a snapshot"),
        ("", "/run/tmp/b.json is not a snapshot"),
        (&text[..text.len() / 2], "/run/tmp/b.json is not a snapshot"),
        (&other, "/run/tmp/b.json is a snapshot of version 2"),
        (&broken, "the snapshot /run/tmp/b.json cannot be read: missing field `inode`"),
    ] {
        fs::write("/run/tmp/b.json", text).unwrap();
        let output = sandbox.try_line("diff /run/tmp/b.json");
        assert_eq!(output.code, Some(2), "{}", output.stderr);
        assert!(output.stderr.contains(why), "{why}: {}", output.stderr);
    }
    assert_eq!(sandbox.try_line("diff /run/tmp/none.json").code, Some(2));
    // By pipes.
    let written = sandbox.done("snapshot -");
    let mut command = sandbox.command(&["diff", "-"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(written.as_bytes()).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    // A link is replaced, and what it leads to stays.
    fs::write("/run/tmp/precious", "kept").unwrap();
    symlink("/run/tmp/precious", "/run/tmp/link").unwrap();
    sandbox.done("snapshot /run/tmp/link");
    assert_eq!(fs::read_to_string("/run/tmp/precious").unwrap(), "kept");
    assert!(fs::read_to_string("/run/tmp/link").unwrap().contains("twinax snapshot"));
    // What is no file is no place for one, and neither is what leads there.
    let pipe = "/run/tmp/pipe";
    mkfifoat(CWD, pipe, Mode::RUSR | Mode::WUSR).unwrap();
    symlink(pipe, "/run/tmp/to-pipe").unwrap();
    symlink("/dev/null", "/run/tmp/to-device").unwrap();
    for (name, why) in [("pipe", "a pipe"), ("to-pipe", "a pipe"), ("to-device", "a device")] {
        let error = sandbox.refused(&format!("snapshot /run/tmp/{name}"));
        assert!(error.contains(&format!("/run/tmp/{name} is {why}")), "{error}");
    }
    assert!(fs::metadata(pipe).unwrap().file_type().is_fifo());
    assert!(fs::symlink_metadata("/run/tmp/to-device").unwrap().is_symlink());
    // The longest name there is.
    sandbox.done(&format!("snapshot /run/tmp/{}", "n".repeat(255)));
    // Names are others' words, too.
    let output = sandbox.twinax(&["diff", "/run/tmp/\x1b[31m"]);
    assert!(output.stderr.contains("cannot read /run/tmp/\\x1b[31m"), "{}", output.stderr);
    let left: Vec<_> = fs::read_dir("/run/tmp").unwrap().flatten().map(|e| e.file_name()).collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().starts_with('.')), "{left:?}");
    Outcome::Passed
}
