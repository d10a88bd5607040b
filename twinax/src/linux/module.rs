//! Which of the kernel's modules are there: a question put to one that is not would load it.

use std::fs;

/// Whether all of these are loaded or built in.
pub fn are_there(modules: &[&str]) -> bool {
    // A kernel without modules loads none.
    let Ok(loaded) = fs::read_to_string("/proc/modules") else {
        return !fs::exists("/proc/modules").unwrap_or(true);
    };
    let is_loaded =
        |module: &&str| loaded.lines().any(|line| line.split(' ').next() == Some(module));
    if modules.iter().all(&is_loaded) {
        return true;
    }
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let builtin = format!("/lib/modules/{}/modules.builtin", release.trim_end());
    let builtin = fs::read_to_string(builtin).unwrap_or_default();
    modules.iter().all(|module| {
        let file = format!("/{module}.ko");
        is_loaded(module) || builtin.lines().any(|line| line.ends_with(&file))
    })
}
