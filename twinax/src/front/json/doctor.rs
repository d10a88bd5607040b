//! What `doctor` prints: findings, and what could not be checked.

use serde::Serialize;
use twinax_core::doctor::{self, Severity};

/// `doctor --json`.
#[derive(Serialize)]
pub struct Report<'a> {
    worst: Option<Severity>,
    findings: Vec<Finding<'a>>,
    not_checked: Vec<Unchecked<'a>>,
    unseen: &'a [String],
}

#[derive(Serialize)]
struct Finding<'a> {
    check: &'a str,
    severity: Severity,
    about: &'a [String],
    namespaces: Vec<String>,
    interfaces: Vec<Interface>,
    what: &'a str,
    why: &'a str,
    commands: &'a [String],
    explained: String,
}

#[derive(Serialize)]
struct Interface {
    namespace: String,
    interface: String,
}

#[derive(Serialize)]
struct Unchecked<'a> {
    check: &'a str,
    why: &'a str,
    about: &'a [String],
}

/// Returns a report with what the look itself could not see.
pub fn report<'a>(report: &'a doctor::Report, unseen: &'a [String]) -> Report<'a> {
    let findings = report.findings.iter().map(|it| Finding {
        check: it.check,
        severity: it.severity,
        about: &it.of,
        namespaces: it.spaces.iter().map(ToString::to_string).collect(),
        interfaces: it
            .links
            .iter()
            .map(|id| Interface { namespace: id.netns.to_string(), interface: id.name.to_string() })
            .collect(),
        what: &it.what,
        why: &it.why,
        commands: &it.todo,
        explained: format!("docs/doctor.md#{}", it.check),
    });
    let not_checked = report.unchecked.iter().map(|it| Unchecked {
        check: it.check,
        why: &it.why,
        about: &it.of,
    });
    Report {
        worst: report.worst(),
        findings: findings.collect(),
        not_checked: not_checked.collect(),
        unseen,
    }
}

/// `doctor --list --json`.
#[derive(Serialize)]
pub struct Checks {
    checks: Vec<Check>,
}

#[derive(Serialize)]
struct Check {
    check: &'static str,
    severity: Severity,
    title: &'static str,
    explained: String,
}

/// Returns the checks there are.
pub fn checks() -> Checks {
    let check = |it: &doctor::Check| Check {
        check: it.id,
        severity: it.severity,
        title: it.title,
        explained: format!("docs/doctor.md#{}", it.id),
    };
    Checks { checks: doctor::CHECKS.iter().map(check).collect() }
}
