//! What `doctor` prints, and that docs/doctor.md explains each check.

use std::{fs, path::Path};

use expect_test::expect;
use twinax::front::{
    cli::{self, Command, Doctor},
    doctor::{list, text},
    json,
    print::Style,
};
use twinax_core::{
    doctor::{Asked, CHECKS, Finding, Report, Severity, Unchecked},
    model::{LinkId, Netns},
    name::IfName,
};

fn finding(check: &'static str, severity: Severity) -> Finding {
    Finding {
        check,
        severity,
        of: vec!["host tx-web".to_owned()],
        links: [LinkId::host("tx-web".parse().expect("a name"))].into(),
        spaces: [Netns::Host].into(),
        what: "something with a long name of many words is not as it should be, and this is said \
               in more words than fit one line"
            .to_owned(),
        why: "It is so.".to_owned(),
        todo: vec![
            "sysctl -w net/ipv4/conf/a-link-with-a-name/rp_filter=2   # never broken, so that it \
             can be copied as it is"
                .to_owned(),
            "# a remark may be broken where the line is full, as it is nothing that anybody copies \
             anywhere"
                .to_owned(),
        ],
    }
}

fn report() -> Report {
    Report {
        findings: vec![
            finding("forward-dropped", Severity::Problem),
            finding("mtu-uplink", Severity::Warning),
        ],
        unchecked: vec![Unchecked {
            check: "neighbour-table-full",
            why: "the limit (gc_thresh3) is not shown here".to_owned(),
            of: ["a", "b", "c", "d", "e"].map(str::to_owned).into(),
        }],
        unread: vec!["hidden".to_owned()],
        checks: 29,
    }
}

#[test]
fn findings_come_with_why_and_what_to_do() {
    let unseen = ["mounts: \x1b[2J".to_owned()];
    expect![[r#"
        problem forward-dropped: host tx-web
          what  something with a long name of many words is not as it should be, and this is said in more
                words than fit one line
          why   It is so.
          do    sysctl -w net/ipv4/conf/a-link-with-a-name/rp_filter=2   # never broken, so that it can be copied as it is
                # a remark may be broken where the line is full, as it is nothing that anybody copies
                anywhere

        warning mtu-uplink: host tx-web
          what  something with a long name of many words is not as it should be, and this is said in more
                words than fit one line
          why   It is so.
          do    sysctl -w net/ipv4/conf/a-link-with-a-name/rp_filter=2   # never broken, so that it can be copied as it is
                # a remark may be broken where the line is full, as it is nothing that anybody copies
                anywhere

        not checked: neighbour-table-full a, b, c and 2 more: the limit (gc_thresh3) is not shown here
        not checked: anything of hidden: it could not be looked into
        not seen: mounts: \x1b[2J
        1 problem, 1 warning, 0 notes; 29 checks made, 1 not everywhere
    "#]]
    .assert_eq(&text(&report(), &unseen, Style::default()));
}

#[test]
fn a_terminal_gets_colours_and_its_own_width() {
    let style = Style { width: Some(40), colour: true };
    let printed = text(&report(), &[], style);
    assert!(printed.starts_with("\x1b[31mproblem\x1b[0m \x1b[1mforward-dropped\x1b[0m"));
    let prose = printed.lines().filter(|line| !line.contains("sysctl") && !line.contains('\x1b'));
    assert!(prose.clone().count() > 10 && prose.clone().all(|line| line.chars().count() <= 40));
}

#[test]
fn what_is_alike_is_cut() {
    let findings = vec![finding("orphan-veth", Severity::Warning); 50];
    let many = Report { findings, ..Report::default() };
    let printed = text(&many, &[], Style::default());
    assert_eq!(printed.matches("warning orphan-veth").count(), 20);
    assert!(printed.contains("and 30 more orphan-veth: --json has them all"));
    assert!(printed.ends_with("0 problems, 50 warnings, 0 notes; 0 checks made\n"));
}

#[test]
fn json_is_as_documented() {
    let mut report = report();
    report.findings.truncate(1);
    report.findings[0].todo.truncate(1);
    report.findings[0].links.insert(LinkId::host(IfName::spelled(b"\x1b[m")));
    let unseen = ["a line".to_owned()];
    expect![[r##"
        {
          "version": 1,
          "worst": "problem",
          "findings": [
            {
              "check": "forward-dropped",
              "severity": "problem",
              "about": [
                "host tx-web"
              ],
              "namespaces": [
                "host"
              ],
              "interfaces": [
                {
                  "namespace": "host",
                  "interface": "\\x1b[m"
                },
                {
                  "namespace": "host",
                  "interface": "tx-web"
                }
              ],
              "what": "something with a long name of many words is not as it should be, and this is said in more words than fit one line",
              "why": "It is so.",
              "commands": [
                "sysctl -w net/ipv4/conf/a-link-with-a-name/rp_filter=2   # never broken, so that it can be copied as it is"
              ],
              "explained": "docs/doctor.md#forward-dropped"
            }
          ],
          "not_checked": [
            {
              "check": "neighbour-table-full",
              "why": "the limit (gc_thresh3) is not shown here",
              "about": [
                "a",
                "b",
                "c",
                "d",
                "e"
              ]
            }
          ],
          "unseen": [
            "a line"
          ]
        }
    "##]]
    .assert_eq(&json::text(json::report(&report, &unseen)).unwrap());
}

#[test]
fn the_command_line_is_read() {
    let parse = |line: &str| cli::parse(line.split(' '));
    let asked = Asked {
        of: vec!["web".to_owned(), "pid:7".to_owned()],
        only: vec!["mtu-step".to_owned(), "port-down".to_owned()],
        skip: vec!["mtu-tunnel".to_owned()],
    };
    let line = "twinax doctor web pid:7 --only mtu-step --only port-down --skip mtu-tunnel --json";
    let doctor = Doctor { asked, list: false, json: true };
    assert_eq!(parse(line).unwrap(), Command::Doctor(doctor));
    let line = "twinax doctor web --only mtu-step,port-down pid:7 --skip mtu-tunnel --json";
    assert_eq!(parse(line).unwrap(), parse(&line.replace(',', " --only ")).unwrap());
    for wrong in
        ["--only nothing", "--only mtu-step,nothing", "--list web", "--list --skip mtu-step"]
    {
        assert_eq!(parse(&format!("twinax doctor {wrong}")).unwrap_err().exit_code(), 2, "{wrong}");
    }
}

/// The parts of each explanation, in their order.
const PARTS: [&str; 6] = [
    "* **What it means.** ",
    "* **How it shows.** ",
    "* **Why.** ",
    "* **How to mend it.** ",
    "* **How it is found.** ",
    "* **When it is fine.** ",
];

#[test]
fn every_check_is_explained() {
    let paper = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/doctor.md");
    let paper = fs::read_to_string(paper).unwrap();
    let sections: Vec<&str> = paper.split("\n## ").skip(1).collect();
    let heads: Vec<&str> = sections.iter().map(|it| it.lines().next().unwrap()).collect();
    let ids: Vec<&str> = CHECKS.iter().map(|check| check.id).collect();
    assert_eq!(heads, ids, "docs/doctor.md and the checks that there are");
    for (check, section) in CHECKS.iter().zip(sections) {
        let said = format!("*At worst a {}: {}.*", check.severity.as_str(), check.title);
        assert_eq!(section.lines().nth(2), Some(said.as_str()));
        let bold = section.lines().filter(|line| line.starts_with("* **"));
        let parts: Vec<&str> = bold.collect();
        assert_eq!(parts.len(), PARTS.len(), "{}", check.id);
        for (line, part) in parts.iter().zip(PARTS) {
            assert!(line.starts_with(part) && line.len() > part.len(), "{}: {line}", check.id);
        }
    }
}

#[test]
fn identifiers_are_plain_and_listed() {
    let printed = list(Style::default());
    for (n, check) in CHECKS.iter().enumerate() {
        assert!(
            check.id.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-'),
            "{}",
            check.id
        );
        assert!(CHECKS[..n].iter().all(|other| other.id != check.id), "{} twice", check.id);
        assert!(printed.lines().any(|line| line.starts_with(check.id)), "{}", check.id);
    }
}
