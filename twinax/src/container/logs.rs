//! A container's output: kept in frames of exactly the bytes written, read back by line.
//!
//! The file `log` is a row of frames: a header of 30 ASCII bytes, the bytes, a newline. So every
//! byte of both streams is kept, text or not, and the file is still readable by eye:
//!
//! ```text
//! 1767225600.123456789 o 000006
//! hello
//! ```
//!
//! The letter is `o` for standard output, `e` for standard error, `x` for the frame that closes a
//! log and holds the exit code. At [`LIMIT`] the file becomes `log.1`, replacing an older one: the
//! last 16 MiB are always there, and a container's log never takes more than 32 MiB and a frame.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::inotify,
};

use crate::container::Task;

/// Bytes after which a new file is begun.
pub const LIMIT: u64 = 16 << 20;

const HEADER: usize = 30;
/// The longest body of a frame, in bytes.
pub(super) const BODY: usize = 16 << 10;

/// Which output of the command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    Out,
    Err,
}

/// Room for a frame, so that it is written with one call and copied never.
pub(super) struct Chunk([u8; HEADER + BODY + 1]);

impl Chunk {
    pub(super) fn new() -> Self {
        Self([0; HEADER + BODY + 1])
    }

    pub(super) fn room(&mut self, limit: usize) -> &mut [u8] {
        &mut self.0[HEADER..HEADER + limit.min(BODY)]
    }

    pub(super) fn body(&self) -> &[u8] {
        &self.0[HEADER..HEADER + BODY]
    }
}

/// The writing end.
pub(super) struct Log {
    dir: PathBuf,
    file: File,
    length: u64,
}

impl Log {
    /// Begins a new log in `dir`, removing an older one.
    pub(super) fn create(dir: &Path) -> io::Result<Self> {
        match std::fs::remove_file(dir.join("log.1")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        Ok(Self { dir: dir.to_owned(), file: fresh(dir)?, length: 0 })
    }

    /// Adds `length` bytes of `chunk`. What a full disk does not take is lost, whole frames only.
    pub(super) fn append(&mut self, stream: Stream, chunk: Chunk, length: usize) {
        self.frame(if stream == Stream::Out { 'o' } else { 'e' }, chunk, length);
    }

    /// Closes the log: a reader that follows it stops here.
    pub(super) fn end(&mut self, code: Option<i32>) {
        let text = code.map_or_else(|| "unknown".to_owned(), |code| code.to_string());
        let mut chunk = Chunk::new();
        chunk.room(text.len()).copy_from_slice(text.as_bytes());
        self.frame('x', chunk, text.len());
    }

    fn frame(&mut self, kind: char, mut chunk: Chunk, length: usize) {
        if self.length >= LIMIT
            && std::fs::rename(self.dir.join("log"), self.dir.join("log.1")).is_ok()
        {
            match fresh(&self.dir) {
                Ok(file) => (self.file, self.length) = (file, 0),
                Err(_) => return,
            }
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let (secs, nanos) = (now.as_secs(), now.subsec_nanos());
        let mut head = &mut chunk.0[..HEADER];
        // Ten digits of seconds last until the year 2286.
        let _ = writeln!(head, "{secs:010}.{nanos:09} {kind} {length:06}");
        chunk.0[HEADER + length] = b'\n';
        let frame = &chunk.0[..=HEADER + length];
        match self.file.write_all(frame) {
            Ok(()) => self.length += u64::try_from(frame.len()).expect("a frame is short"),
            Err(_) => {
                let _ = self.file.set_len(self.length);
            }
        }
    }
}

fn fresh(dir: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    let path = dir.join("log");
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // Appending, so that a frame cut short by a full disk leaves no hole.
    OpenOptions::new().append(true).create_new(true).mode(0o600).open(path)
}

/// Removes the directory of a container that never came to be, if nothing is in it but a log:
/// with a record in it, it is the store's.
pub(super) fn forget(dir: &Path) {
    let Ok(entries) = std::fs::read_dir(dir) else { return };
    let files: Vec<_> = entries.flatten().map(|entry| entry.file_name()).collect();
    if files.iter().all(|name| name == "log" || name == "log.1") {
        for name in files {
            let _ = std::fs::remove_file(dir.join(name));
        }
        let _ = std::fs::remove_dir(dir);
    }
}

/// Which lines of a log to show.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Only lines begun at or after this time after 1970 (UTC).
    pub since: Option<Duration>,
    /// Only lines begun before this time after 1970 (UTC).
    pub until: Option<Duration>,
    /// Only so many lines, the last ones.
    pub tail: Option<u64>,
    pub stamp: Stamp,
}

/// What each line begins with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stamp {
    #[default]
    None,
    /// When it was begun (RFC 3339, UTC) and a space.
    Rfc3339,
    /// The same in nanoseconds since 1970.
    Nanoseconds,
}

/// Writes the log kept in `dir` to `out` and `err`. With `follow`, which is the container's
/// supervisor, goes on until the container has ended. Returns the exit code if the log says it.
///
/// # Errors
/// Those of reading and writing; a `BrokenPipe` is the reader's way to say enough.
pub fn show(
    dir: &Path,
    filter: &Filter,
    follow: Option<&Task>,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> io::Result<Option<i32>> {
    let mut skip = 0;
    if let Some(tail) = filter.tail {
        let mut count = Lines::new(filter, u64::MAX);
        let mut reader = Reader::open(dir)?;
        while let Some(frame) = reader.next()? {
            count.write(&frame, &mut io::sink(), &mut io::sink())?;
        }
        skip = count.seen.saturating_sub(tail);
    }
    let mut lines = Lines::new(filter, skip);
    let mut reader = Reader::open(dir)?;
    let watch = follow.and_then(|_| Watch::new(dir).ok());
    loop {
        // Asked before reading: what a supervisor wrote before its end is then read below.
        let over = follow.is_none_or(|supervisor| !supervisor.alive());
        while let Some(frame) = reader.next()? {
            if frame.kind == b'x' {
                let code = std::str::from_utf8(&frame.body).ok().and_then(|c| c.parse().ok());
                out.flush()?;
                return Ok(code);
            }
            lines.write(&frame, out, err)?;
        }
        out.flush()?;
        err.flush()?;
        match follow.filter(|_| !over) {
            Some(supervisor) => wait_for_more(watch.as_ref(), supervisor),
            None => return Ok(None),
        }
    }
}

/// Wakes when the log grows.
struct Watch(rustix::fd::OwnedFd);

impl Watch {
    fn new(dir: &Path) -> io::Result<Self> {
        let fd = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
        let flags = inotify::WatchFlags::MODIFY | inotify::WatchFlags::CREATE;
        inotify::add_watch(&fd, dir, flags)?;
        Ok(Self(fd))
    }
}

fn wait_for_more(watch: Option<&Watch>, supervisor: &Task) {
    let Some(process) = supervisor.open() else {
        return;
    };
    let mut fds = vec![PollFd::new(&process, PollFlags::IN)];
    fds.extend(watch.map(|watch| PollFd::new(&watch.0, PollFlags::IN)));
    // Inotify has its limits per user; without it, look again five times a second.
    let patience = if watch.is_some() { (5, 0) } else { (0, 200_000_000) };
    let _ = poll(&mut fds, Some(&Timespec { tv_sec: patience.0, tv_nsec: patience.1 }));
    if let Some(watch) = watch {
        let mut events = [0_u8; 4096];
        while matches!(rustix::io::read(&watch.0, &mut events), Ok(1..)) {}
    }
}

struct Frame {
    time: Duration,
    kind: u8,
    body: Vec<u8>,
}

/// Reads frames of `log.1`, then of `log`, then of what `log` is replaced with.
struct Reader {
    dir: PathBuf,
    files: Vec<File>,
    /// Read but not yet a whole frame.
    ahead: Vec<u8>,
    taken: usize,
}

impl Reader {
    fn open(dir: &Path) -> io::Result<Self> {
        // The newest first: if the files are turned over in between, the older one is the same.
        let new = File::open(dir.join("log"))?;
        let mut files = match File::open(dir.join("log.1")) {
            Ok(old) if inode(&old)? != inode(&new)? => vec![new, old],
            _ => vec![new],
        };
        files.shrink_to_fit();
        Ok(Self { dir: dir.to_owned(), files, ahead: Vec::new(), taken: 0 })
    }

    fn next(&mut self) -> io::Result<Option<Frame>> {
        loop {
            if let Some(frame) = self.whole_frame()? {
                return Ok(Some(frame));
            }
            if self.fill()? == 0 && !self.turn_over()? {
                return Ok(None);
            }
        }
    }

    fn whole_frame(&mut self) -> io::Result<Option<Frame>> {
        let waiting = &self.ahead[self.taken..];
        let Some((head, rest)) = waiting.split_at_checked(HEADER) else {
            return Ok(None);
        };
        let Some((time, kind, length)) = parse_header(head) else {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the log is damaged"));
        };
        if rest.len() <= length {
            return Ok(None);
        }
        let body = rest[..length].to_vec();
        self.taken += HEADER + length + 1;
        Ok(Some(Frame { time, kind, body }))
    }

    fn fill(&mut self) -> io::Result<usize> {
        self.ahead.drain(..self.taken);
        self.taken = 0;
        let file = self.files.last_mut().expect("the newest file is never closed");
        let before = self.ahead.len();
        self.ahead.resize(before + 64 * 1024, 0);
        let read = file.read(&mut self.ahead[before..]);
        self.ahead.truncate(before + *read.as_ref().unwrap_or(&0));
        read
    }

    /// Goes on with the next file, if there is one.
    fn turn_over(&mut self) -> io::Result<bool> {
        if self.files.len() > 1 {
            self.files.pop();
            return Ok(true);
        }
        let newer = match File::open(self.dir.join("log")) {
            Ok(file) if inode(&file)? != inode(&self.files[0])? => file,
            _ => return Ok(false),
        };
        // It is turned over when full, so after this the old one grows no more; read its rest.
        if self.fill()? > 0 {
            return Ok(true);
        }
        self.files[0] = newer;
        Ok(true)
    }
}

fn inode(file: &File) -> io::Result<u64> {
    Ok(file.metadata()?.ino())
}

/// Parses `1767225600.123456789 o 000006\n`.
fn parse_header(head: &[u8]) -> Option<(Duration, u8, usize)> {
    let text = std::str::from_utf8(head).ok()?.strip_suffix('\n')?;
    let mut parts = text.split(' ');
    let (secs, nanos) = parts.next()?.split_once('.')?;
    let kind = parts.next()?.as_bytes();
    let length: usize = parts.next()?.parse().ok()?;
    let time = Duration::new(secs.parse().ok()?, nanos.parse().ok()?);
    match (kind, length <= BODY, parts.next()) {
        (&[kind @ (b'o' | b'e' | b'x')], true, None) => Some((time, kind, length)),
        _ => None,
    }
}

/// Turns frames back into lines. A line belongs to the moment its first byte was read.
struct Lines<'a> {
    filter: &'a Filter,
    skip: u64,
    /// Lines begun that the filter lets pass.
    seen: u64,
    /// For each stream: inside a line, and is it shown?
    inside: [Option<bool>; 2],
}

impl<'a> Lines<'a> {
    fn new(filter: &'a Filter, skip: u64) -> Self {
        Self { filter, skip, seen: 0, inside: [None, None] }
    }

    fn write<'w>(
        &mut self,
        frame: &Frame,
        out: &'w mut dyn Write,
        err: &'w mut dyn Write,
    ) -> io::Result<()> {
        let (index, to): (usize, &mut dyn Write) = match frame.kind {
            b'o' => (0, out),
            b'e' => (1, err),
            _ => return Ok(()),
        };
        for piece in frame.body.split_inclusive(|&byte| byte == b'\n') {
            let shown = match self.inside[index] {
                Some(shown) => shown,
                None => self.begin(frame.time, to)?,
            };
            if shown {
                to.write_all(piece)?;
            }
            self.inside[index] = (!piece.ends_with(b"\n")).then_some(shown);
        }
        Ok(())
    }

    fn begin(&mut self, time: Duration, to: &mut dyn Write) -> io::Result<bool> {
        let filter = self.filter;
        if filter.since.is_some_and(|since| time < since)
            || filter.until.is_some_and(|until| time >= until)
        {
            return Ok(false);
        }
        self.seen += 1;
        let shown = self.seen > self.skip;
        match filter.stamp {
            Stamp::Rfc3339 if shown => write!(to, "{} ", rfc3339(time))?,
            Stamp::Nanoseconds if shown => write!(to, "{} ", time.as_nanos())?,
            _ => {}
        }
        Ok(shown)
    }
}

/// A time after 1970 as `2026-01-01T00:00:00.123456789Z`.
pub fn rfc3339(time: Duration) -> String {
    let (days, second) = (time.as_secs() / 86_400, time.as_secs() % 86_400);
    // Howard Hinnant's civil_from_days: years begin in March, eras have 400 years.
    let shifted = days + 719_468;
    let (era, day) = (shifted / 146_097, shifted % 146_097);
    let of_era = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let of_year = day - (365 * of_era + of_era / 4 - of_era / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let date = of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let nanos = time.subsec_nanos();
    format!("{year:04}-{month:02}-{date:02}T{hour:02}:{minute:02}:{second:02}.{nanos:09}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Dir(PathBuf);

    impl Dir {
        fn new(name: &str) -> Self {
            let path =
                std::env::temp_dir().join(format!("twinax-log-{}-{name}", std::process::id()));
            std::fs::create_dir(&path).unwrap();
            Self(path)
        }
    }

    impl Drop for Dir {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn add(log: &mut Log, stream: Stream, text: &[u8]) {
        let mut chunk = Chunk::new();
        chunk.room(text.len()).copy_from_slice(text);
        log.append(stream, chunk, text.len());
    }

    fn read(dir: &Dir, filter: &Filter) -> (String, String, Option<i32>) {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let code = show(&dir.0, filter, None, &mut out, &mut err).unwrap();
        (String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap(), code)
    }

    #[test]
    fn lines_split_over_frames_are_one_line() {
        let dir = Dir::new("lines");
        let mut log = Log::create(&dir.0).unwrap();
        add(&mut log, Stream::Out, b"a\nb");
        add(&mut log, Stream::Err, b"E\n");
        add(&mut log, Stream::Out, b"b\nc\n");
        log.end(Some(3));
        assert_eq!(read(&dir, &Filter::default()), ("a\nbb\nc\n".into(), "E\n".into(), Some(3)));
        let tail = Filter { tail: Some(2), ..Filter::default() };
        assert_eq!(read(&dir, &tail), ("c\n".into(), "E\n".into(), Some(3)));
        let none = Filter { since: Some(Duration::from_secs(9_000_000_000)), ..Filter::default() };
        assert_eq!(read(&dir, &none).0, "");
        let stamped = Filter { stamp: Stamp::Rfc3339, ..Filter::default() };
        assert_eq!(read(&dir, &stamped).0.matches("Z ").count(), 3);
    }

    #[test]
    fn a_full_file_is_turned_over_once() {
        let dir = Dir::new("turn");
        let mut log = Log::create(&dir.0).unwrap();
        for number in 0..2100 {
            let line = format!("{number:016383}\n");
            add(&mut log, Stream::Out, line.as_bytes());
        }
        let size = |name: &str| std::fs::metadata(dir.0.join(name)).unwrap().len();
        assert!(size("log.1") >= LIMIT && size("log.1") < LIMIT + 20_000);
        let (out, _, _) = read(&dir, &Filter::default());
        let numbers: Vec<u32> = out.lines().map(|line| line.parse().unwrap()).collect();
        assert_eq!(*numbers.last().unwrap(), 2099);
        assert!(numbers.windows(2).all(|pair| pair[0] + 1 == pair[1]));
        assert!(numbers.len() >= 1024);
    }

    #[test]
    fn times_are_written_as_rfc_3339() {
        assert_eq!(rfc3339(Duration::ZERO), "1970-01-01T00:00:00.000000000Z");
        let leap = Duration::new(1_709_164_800, 5);
        assert_eq!(rfc3339(leap), "2024-02-29T00:00:00.000000005Z");
    }
}
