//! Rules the compiler cannot check.

#![expect(clippy::disallowed_methods, reason = "this test reads the source of the core")]

use std::{
    fs,
    path::{Path, PathBuf},
};

const LINES_PER_FN: usize = 70;

/// The shell's files with `unsafe`, each for what no safe crate offers.
const UNSAFE: [&str; 7] = [
    "linux/interior/ask.rs",
    "linux/netlink.rs",
    "linux/netns.rs",
    "linux/packets.rs",
    "linux/spaces/ask.rs",
    "linux/start.rs",
    "linux/task.rs",
];

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// The crate that does what the core decides.
fn shell() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../twinax")
}

/// Every Rust file of both crates.
fn all_files() -> Vec<PathBuf> {
    let core = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folders = [
        source(),
        core.join("tests"),
        shell().join("src"),
        shell().join("tests"),
        shell().join("benches"),
    ];
    folders.iter().filter(|folder| folder.is_dir()).flat_map(|folder| files(folder)).collect()
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Every Rust file under `dir`, in one order.
fn files(dir: &Path) -> Vec<PathBuf> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(dir).expect("the folder is there") {
        let path = entry.expect("its entries can be read").path();
        if path.is_dir() {
            paths.extend(files(&path));
        } else if path.extension().is_some_and(|ext| ext == "rs") {
            paths.push(path);
        }
    }
    paths.sort();
    paths
}

/// The modules that `lib.rs` lists, in its order, which is the order the data flows.
fn modules(source: &Path) -> Vec<String> {
    let lib = read(&source.join("lib.rs"));
    let modules = lib.lines().filter_map(|line| line.strip_prefix("pub mod "));
    modules.map(|module| module.trim_end_matches(';').to_owned()).collect()
}

/// The file of a module, and those in the folder beside it.
fn files_of(source: &Path, module: &str) -> Vec<PathBuf> {
    let mut paths = vec![source.join(format!("{module}.rs"))];
    let folder = source.join(module);
    if folder.is_dir() {
        paths.extend(files(&folder));
    }
    paths
}

/// The text without comments, as they may name anything.
fn code(path: &Path) -> String {
    let text = read(path);
    let lines = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    lines.collect::<Vec<_>>().join("\n")
}

/// Whether `code` names `crate::module`, alone or in a braced import.
fn uses(code: &str, module: &str) -> bool {
    let whole_word = |rest: &str| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_');
    let named = format!("crate::{module}");
    let mut direct = code.match_indices(&named).map(|(at, _)| &code[at + named.len()..]);
    let mut braced = code.split("use crate::{").skip(1).flat_map(heads);
    direct.any(whole_word) || braced.any(|head| head == module)
}

/// The first words of what a braced import lists: `a` and `b` of `a::{c, d}, b::e};`.
fn heads(import: &str) -> Vec<&str> {
    let (mut heads, mut depth, mut start) = (Vec::new(), 0, 0);
    for (at, c) in import.char_indices() {
        if depth == 0 && matches!(c, ',' | '}') {
            let item = import[start..at].trim();
            heads.push(item.split([':', ' ', '{']).next().unwrap_or_default());
            start = at + 1;
        }
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            _ => {}
        }
    }
    heads
}

/// Panics where a file of `source` uses a module that stands below its own.
fn flows_one_way(source: &Path) {
    let order = modules(source);
    assert!(order.len() > 5, "lib.rs lists {order:?}");
    for (n, module) in order.iter().enumerate() {
        for path in files_of(source, module) {
            let code = code(&path);
            let inner = path.strip_prefix(source).expect("it is in there").display().to_string();
            for later in &order[n + 1..] {
                assert!(!uses(&code, later), "{inner} uses {later}, which comes after {module}");
            }
        }
    }
}

#[test]
fn data_flows_one_way() {
    flows_one_way(&source());
    flows_one_way(&shell().join("src"));
}

#[test]
fn an_import_from_later_on_is_found() {
    assert!(uses("use crate::{\n    model::Op,\n    lower::{lower, Part},\n};", "lower"));
    assert!(uses("let x = crate::lower::lower(state);", "lower"));
    assert!(uses("use crate::{\n    front::{lab, cli::{a}},\n    lower,\n};", "lower"));
    assert!(!uses("use crate::{front::{lab, cli::{lower}}, model};", "lower"));
    assert!(!uses("use crate::lowered::X;\nuse crate::{model::Op};\nlet lower = 1;", "lower"));
}

/// The compiler does not look at a file that no module names, and a test in it does not run.
#[test]
fn every_file_belongs_to_a_module() {
    for path in all_files() {
        let (folder, stem) = (path.parent().expect("in a folder"), path.file_stem());
        let stem = stem.expect("a name").to_string_lossy().into_owned();
        let is_root = matches!(stem.as_str(), "main" | "lib") || folder.ends_with("tests");
        let owners = [folder.with_extension("rs"), folder.join("lib.rs"), folder.join("main.rs")];
        let named = |owner: &PathBuf| {
            owner.is_file()
                && code(owner).lines().any(|line| line.ends_with(&format!("mod {stem};")))
        };
        assert!(is_root || owners.iter().any(named), "{} is lost", path.display());
    }
}

#[test]
fn every_kernel_test_is_run() {
    let folder = shell().join("tests/kernel");
    let main = read(&folder.join("main.rs"));
    for path in files(&folder).iter().filter(|path| code(path).contains("\ntests![")) {
        let stem = path.file_stem().expect("a name").to_string_lossy();
        assert!(main.contains(&format!("{stem}::TESTS")), "main.rs does not run {stem}::TESTS");
    }
}

#[test]
fn unsafe_stands_where_it_is_listed() {
    let source = shell().join("src");
    let allows = |path: &&PathBuf| code(path).contains("unsafe_code");
    let found: Vec<PathBuf> = files(&source).iter().filter(allows).cloned().collect();
    assert_eq!(found, UNSAFE.map(|path| source.join(path)));
}

#[test]
fn functions_fit_on_a_screen() {
    for path in all_files() {
        let text = read(&path);
        let lines: Vec<&str> = text.lines().collect();
        let heads = lines.iter().enumerate().filter(|(_, line)| is_head(line));
        for (start, line) in heads {
            let indent = &line[..line.len() - line.trim_start().len()];
            let close = format!("{indent}}}");
            let Some(length) = lines[start..].iter().position(|line| *line == close) else {
                continue; // A function of one line, or a declaration without a body.
            };
            let place = format!("{}:{}", path.display(), start + 1);
            assert!(length < LINES_PER_FN, "{place}: a function of {} lines", length + 1);
        }
    }
}

fn is_head(line: &str) -> bool {
    let words = line.trim_start().trim_start_matches("pub(super) ").trim_start_matches("pub ");
    words.starts_with("fn ") && !line.ends_with(['}', ';'])
}

#[test]
fn every_file_says_what_it_is() {
    for path in all_files() {
        assert!(read(&path).starts_with("//! "), "{} opens without a `//!`", path.display());
    }
}

#[test]
fn the_core_takes_its_effects_from_outside() {
    for path in files(&source()) {
        let code = code(&path);
        for effect in ["std::fs", "std::env", "std::process", "std::thread", "std::time"] {
            assert!(!code.contains(effect), "{} uses {effect}", path.display());
        }
    }
}

/// The paths that a paper names: targets of links, and what stands in backquotes and begins with
/// a folder of ours.
fn paths_in(text: &str) -> Vec<&str> {
    let links = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let links = links.filter(|link| !link.contains("://"));
    let quoted = text.split('`').skip(1).step_by(2).filter(|word| {
        let folders = ["core/", "twinax/", "docs/", "tests/", "examples/", ".ci/"];
        folders.iter().any(|folder| word.starts_with(folder)) && !word.contains([' ', '\n'])
    });
    links.chain(quoted).collect()
}

#[test]
fn paths_that_papers_name_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for paper in ["README.md", "ARCHITECTURE.md", "docs/decisions.md"] {
        let text = read(&root.join(paper));
        // Links are meant from where the paper is, names of the source from the root.
        let folder = root.join(paper);
        let folder = folder.parent().expect("a file is in a folder");
        for path in paths_in(&text) {
            let there = folder.join(path).exists() || root.join(path).exists();
            assert!(there, "{paper} names {path}, which does not exist");
        }
    }
}
