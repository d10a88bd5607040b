//! `snapshot` and `diff`: the whole host written down, and what changed since.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
    process::ExitCode,
};

use serde::Deserialize;
use twinax_core::{
    changes::{Change, Way, changes},
    map::{Branch, Cell, Tone, shown},
    sight::Sight,
    snapshot::{FORMAT, Snapshot, Taken},
};

use super::{
    Done,
    failed::Failed,
    record::now,
    shown::{show, style, tell},
    target_file::TargetFile,
};
use crate::{
    front::{json, report::Report, tree},
    linux::process::boot_id,
    look::{Depth, look},
    place::{self, Need},
};

/// The longest file that is read: of a host with far more containers than any has.
const BYTES_MAX: u64 = 512 << 20;

pub(super) fn snapshot(file: &Path) -> Done {
    let file = (!is_dash(file)).then(|| TargetFile::find(file)).transpose()?;
    let (sight, taken) = now_seen()?;
    let text = json::text(json::snapshot(&sight, taken));
    let text = text.map_err(|cause| Failed::Output(cause.into()))?;
    match file {
        Some(file) => file.replace(text.as_bytes())?,
        None => tell(text)?,
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) fn diff(old: &Path, new: Option<&Path>, as_json: bool) -> Done {
    if is_dash(old) && new.is_some_and(is_dash) {
        let what = "standard input cannot be both snapshots".to_owned();
        return Err(Failed::Unreadable(Report::new(what)));
    }
    // What a user names is where the user stands: before anything is entered.
    let old = read(old)?;
    let new = match new {
        Some(new) => read(new)?,
        None => {
            let (sight, taken) = now_seen()?;
            Snapshot::of(&sight, taken)
        }
    };
    let found = changes(&old, &new);
    match as_json {
        true => show(json::diff(&old.snapshot, &new.snapshot, &found))?,
        false => {
            let rows: Vec<Branch> = found.iter().map(row).collect();
            tell(tree::rows(&rows, style()) + &unseen(&old, &new))?;
        }
    }
    Ok(ExitCode::from(u8::from(!found.is_empty())))
}

fn is_dash(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// Looks at everything.
fn now_seen() -> Result<(Sight, Taken), Failed> {
    place::enter(Need::IfRunning)?;
    let sight = look(Depth::MAP);
    // Where it cannot be read, every snapshot is of the same unknown boot.
    let boot = boot_id().unwrap_or_default().trim().to_owned();
    let taken = Taken { format: FORMAT.to_owned(), taken: now(), boot };
    Ok((sight, taken))
}

fn read(path: &Path) -> Result<Snapshot, Failed> {
    let name = match is_dash(path) {
        true => "standard input".to_owned(),
        false => shown(&path.display().to_string()),
    };
    let mut bytes = Vec::new();
    let mut fill = |from: &mut dyn Read| from.take(BYTES_MAX + 1).read_to_end(&mut bytes);
    let filled = match is_dash(path) {
        true => fill(&mut io::stdin().lock()),
        false => File::open(path).and_then(|mut file| fill(&mut file)),
    };
    filled.map_err(|cause| refused(format!("cannot read {name}: {cause}")))?;
    if bytes.len() as u64 > BYTES_MAX {
        return Err(refused(format!("{name} is too long for a snapshot")));
    }
    parse(&bytes, &name)
}

fn refused(what: String) -> Failed {
    Failed::Unreadable(Report::new(what))
}

/// What is looked at first: whether the rest may be read at all.
#[derive(Deserialize)]
struct Head {
    version: u32,
    snapshot: Kind,
}

#[derive(Deserialize)]
struct Kind {
    format: String,
}

fn parse(bytes: &[u8], name: &str) -> Result<Snapshot, Failed> {
    let head: Head = match serde_json::from_slice::<Head>(bytes) {
        Ok(head) if head.snapshot.format == FORMAT => head,
        _ => {
            let report = Report::new(format!("{name} is not a snapshot"));
            return Err(Failed::Unreadable(report.hint("twinax snapshot FILE makes one")));
        }
    };
    if head.version != json::VERSION {
        let what = format!("{name} is a snapshot of version {}", head.version);
        let hint = format!("this twinax reads version {}", json::VERSION);
        return Err(Failed::Unreadable(Report::new(what).hint(hint)));
    }
    serde_json::from_slice(bytes)
        .map_err(|cause| refused(format!("the snapshot {name} cannot be read: {cause}")))
}

fn row(change: &Change) -> Branch {
    let tone = match change.way() {
        Way::Added => Tone::Good,
        Way::Removed => Tone::Bad,
        Way::Changed => Tone::Plain,
    };
    Branch { cells: vec![Cell { text: change.to_string(), tone }], children: Vec::new() }
}

/// What could not be seen at one time only may look as if it had come or gone.
fn unseen(old: &Snapshot, new: &Snapshot) -> String {
    let then = old.unseen.iter().filter(|line| !new.unseen.contains(line));
    let now = new.unseen.iter().filter(|line| !old.unseen.contains(line));
    let told =
        |when: &str, line: &String| format!("not seen at the {when} time: {}\n", shown(line));
    then.map(|line| told("first", line)).chain(now.map(|line| told("second", line))).collect()
}
