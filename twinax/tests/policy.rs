//! What may be depended on: licences, origin, number and versions of packages.
//!
//! `cargo` itself is asked; nothing is fetched.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where and stop")]

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

/// Licences that ask for no more than a notice (SPDX).
const LICENCES: [&str; 10] = [
    "MIT",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "Zlib",
    "Unicode-3.0",
    "Unlicense",
    "0BSD",
];
const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";
/// How many packages of others may go into the program.
const PACKAGES: usize = 52;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn cargo(args: &[&str]) -> String {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo).args(args).current_dir(root()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "cargo {args:?}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

/// The packages for this machine. Those of other systems are not asked
/// about: they may never have been fetched.
fn metadata() -> Value {
    let version = cargo(&["-vV"]);
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).unwrap();
    let text = cargo(&[
        "metadata",
        "--format-version=1",
        "--locked",
        "--offline",
        "--filter-platform",
        host,
    ]);
    serde_json::from_str(&text).unwrap()
}

fn array<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().map_or(&[], Vec::as_slice)
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

/// Name and version of what is linked into the program: neither macros nor what only builds or
/// tests, and with the features it is built with, which `cargo metadata` does not tell apart.
fn linked() -> BTreeSet<(String, String)> {
    let edges = "normal,no-proc-macro";
    let asked = ["tree", "--package=twinax", "--edges", edges, "--prefix=none", "--no-dedupe"];
    let tree = cargo(&[&asked[..], &["--format={p}", "--locked", "--offline"]].concat());
    let package = |line: &str| {
        let (name, rest) = line.split_once(' ')?;
        Some((name.to_owned(), rest.split(' ').next()?.to_owned()))
    };
    tree.lines().filter_map(package).collect()
}

/// Whether a licence expression can be met by licences we accept: OR of ANDs, with parentheses.
fn accepted(expression: &str) -> bool {
    let expression = expression.replace('/', " OR ");
    let expression = expression.trim();
    for (word, all) in [(" OR ", false), (" AND ", true)] {
        let parts = split(expression, word);
        if parts.len() > 1 {
            return match all {
                true => parts.iter().all(|part| accepted(part)),
                false => parts.iter().any(|part| accepted(part)),
            };
        }
    }
    let inner = expression.strip_prefix('(').and_then(|rest| rest.strip_suffix(')'));
    inner.map_or_else(|| LICENCES.contains(&expression), accepted)
}

/// Splits at `word` outside of parentheses.
fn split<'a>(expression: &'a str, word: &str) -> Vec<&'a str> {
    let (mut parts, mut depth, mut start) = (Vec::new(), 0, 0);
    for (at, c) in expression.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ if depth == 0 && expression[at..].starts_with(word) => {
                parts.push(&expression[start..at]);
                start = at + word.len();
            }
            _ => {}
        }
    }
    parts.push(&expression[start..]);
    parts
}

#[test]
fn licences_are_permissive() {
    let metadata = metadata();
    for package in array(&metadata, "packages") {
        let (name, licence) = (text(package, "name"), text(package, "license"));
        assert!(accepted(licence), "{name} is under {licence:?}, which is not on the list");
    }
}

#[test]
fn licence_expressions_are_understood() {
    assert!(accepted("(MIT OR GPL-3.0) AND Unicode-3.0") && accepted("GPL-2.0/MIT"));
    assert!(!accepted("MIT AND GPL-3.0") && !accepted("") && !accepted("(GPL-3.0 OR AGPL-3.0)"));
}

/// The lock file has those of every system.
#[test]
fn packages_come_from_the_registry() {
    let lock = std::fs::read_to_string(root().join("Cargo.lock")).unwrap();
    let sources = lock.lines().filter_map(|line| line.strip_prefix("source = "));
    for source in sources {
        assert_eq!(source.trim_matches('"'), REGISTRY);
    }
    assert!(!lock.is_empty());
}

#[test]
fn the_program_is_made_of_few_packages_each_once() {
    let linked = linked();
    let names = linked.iter().map(|(name, _)| name.as_str());
    let names: Vec<&str> = names.filter(|name| !name.starts_with("twinax")).collect();
    assert!(names.len() > 10, "cargo was misunderstood: {names:?}");
    assert!(names.len() <= PACKAGES, "{} packages: {names:?}", names.len());
    assert_eq!(twice(&names), BTreeSet::new());
}

/// Built twice, and in no program: ratatui-core's strum_macros is not on the version yet that all
/// other macros have.
const TWICE: [&str; 1] = ["syn"];

#[test]
fn what_builds_or_tests_is_there_once() {
    let metadata = metadata();
    let packages = array(&metadata, "packages").iter();
    let names: Vec<&str> = packages.map(|package| text(package, "name")).collect();
    assert_eq!(twice(&names), BTreeSet::from(TWICE));
}

fn twice<'a>(names: &[&'a str]) -> BTreeSet<&'a str> {
    let mut seen = BTreeSet::new();
    names.iter().filter(|name| !seen.insert(**name)).copied().collect()
}

#[test]
fn each_direct_dependency_has_its_reason() {
    let Ok(decisions) = std::fs::read_to_string(root().join("docs/decisions.md")) else { return };
    let metadata = metadata();
    let ours = array(&metadata, "packages").iter().filter(|package| package["source"].is_null());
    for dependency in ours.flat_map(|package| array(package, "dependencies")) {
        let name = text(dependency, "name");
        let known = name.starts_with("twinax") || decisions.contains(name);
        assert!(known, "docs/decisions.md does not say why {name} is needed");
    }
}

/// See `build.rs`: to be moved costs a command time.
#[test]
#[cfg(target_env = "gnu")]
fn the_program_is_linked_at_a_fixed_address() {
    use std::{fs, io::Read};

    let mut header = [0; 18];
    let program = fs::File::open(env!("CARGO_BIN_EXE_twinax"));
    program.and_then(|mut file| file.read_exact(&mut header)).expect("the program can be read");
    // `e_type` of an ELF header (elf(5)), in the machine's own order: 2 is ET_EXEC, 3 ET_DYN.
    assert_eq!(u16::from_ne_bytes([header[16], header[17]]), 2);
}
