//! Rules the compiler cannot check.

#![expect(clippy::disallowed_methods, reason = "this test reads the source of the core")]

use std::{
    fs,
    path::{Path, PathBuf},
};

const LINES_PER_FN: usize = 70;

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
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
fn modules() -> Vec<String> {
    let lib = read(&source().join("lib.rs"));
    let modules = lib.lines().filter_map(|line| line.strip_prefix("pub mod "));
    modules.map(|module| module.trim_end_matches(';').to_owned()).collect()
}

/// The file of a module, and those in the folder beside it.
fn files_of(module: &str) -> Vec<PathBuf> {
    let mut paths = vec![source().join(format!("{module}.rs"))];
    let folder = source().join(module);
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
    let braced = code.split("use crate::{").skip(1).any(|import| {
        let import = import.split("};").next().unwrap_or_default();
        let mut parts = import.split([',', '\n', ' ', '{']);
        parts.any(|part| part == module || part.starts_with(&format!("{module}::")))
    });
    direct.any(whole_word) || braced
}

#[test]
fn data_flows_one_way() {
    let order = modules();
    assert!(order.len() > 5, "lib.rs lists {order:?}");
    for (n, module) in order.iter().enumerate() {
        for path in files_of(module) {
            let code = code(&path);
            for later in &order[n + 1..] {
                let path = path.display();
                assert!(!uses(&code, later), "{path} uses {later}, which comes after {module}");
            }
        }
    }
}

#[test]
fn an_import_from_later_on_is_found() {
    assert!(uses("use crate::{\n    model::Op,\n    lower::{lower, Part},\n};", "lower"));
    assert!(uses("let x = crate::lower::lower(state);", "lower"));
    assert!(!uses("use crate::lowered::X;\nuse crate::{model::Op};\nlet lower = 1;", "lower"));
}

#[test]
fn every_source_file_belongs_to_a_module() {
    let known: Vec<PathBuf> = modules().iter().flat_map(|module| files_of(module)).collect();
    for path in files(&source()) {
        assert!(path.ends_with("lib.rs") || known.contains(&path), "{} is lost", path.display());
    }
}

#[test]
fn functions_fit_on_a_screen() {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    for path in files(&source()).into_iter().chain(files(&tests)) {
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
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    for path in files(&source()).into_iter().chain(files(&tests)) {
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
