//! The terminal while it is ours: another screen, keys as they are pressed; and back as it was,
//! however we end.

use std::{
    io::{self, Write},
    mem::take,
    os::fd::{AsFd, BorrowedFd},
    sync::Mutex,
};

use rustix::{
    event::{PollFd, PollFlags, poll},
    fs::Timespec,
    process::{Signal, kill_current_process_group},
    termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr},
};

use crate::{
    front::keys::{self, Input},
    linux::task::Signals,
    live::Live,
};

/// Another screen, no cursor, no wrapping at the edge; and the way back.
const ENTER: &str = "\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[2J";
const LEAVE: &str = "\x1b[?1000l\x1b[?1006l\x1b[0m\x1b[?7h\x1b[?25h\x1b[?1049l";
const MOUSE: &str = "\x1b[?1000h\x1b[?1006h";
/// How long the rest of a key's sequence may take, in nanoseconds.
const SEQUENCE_NS: i64 = 30_000_000;

/// Signals that end us, and those that the terminal has another size, and maybe other ways.
const SIGNALS: [i32; 6] =
    [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT, libc::SIGWINCH, libc::SIGCONT];

/// How the terminal was. Is there only while it is ours; a panic finds it here.
static BEFORE: Mutex<Option<Before>> = Mutex::new(None);

struct Before {
    /// Of standard input, if that is a terminal.
    input: Option<Termios>,
}

/// What has happened.
#[derive(Debug, Default)]
pub(super) struct News {
    pub(super) inputs: Vec<Input>,
    /// The terminal may have another size.
    pub(super) resized: bool,
    /// We were stopped, and others had the terminal.
    pub(super) resumed: bool,
    /// Somebody wants us to end, or nobody is there any more.
    pub(super) end: bool,
}

/// What a live view waits for.
#[derive(Debug)]
pub(super) struct Desk {
    signals: Signals,
    /// Of a key whose sequence is not whole.
    pending: Vec<u8>,
    /// Whether keys are read.
    keys: bool,
    /// The terminal got another size while something was written, or we were stopped then.
    resized: bool,
    resumed: bool,
}

impl Desk {
    /// To be made before any thread is started, which would get the signals otherwise.
    pub(super) fn open() -> io::Result<Self> {
        let signals = Signals::block(&SIGNALS)?;
        Ok(Self { signals, pending: Vec::new(), keys: false, resized: false, resumed: false })
    }

    /// Writes to standard output, however slow its reader is: a signal that ends us ends the
    /// waiting, as if nobody read any more.
    pub(super) fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        let output = io::stdout();
        while !bytes.is_empty() {
            let mut fds =
                [PollFd::new(&output, PollFlags::OUT), PollFd::new(&self.signals, PollFlags::IN)];
            match poll(&mut fds, None) {
                Err(rustix::io::Errno::INTR) => continue,
                done => done?,
            };
            if !fds[0].revents().is_empty() {
                // So much a pipe takes at once where it takes anything (pipe(7), `PIPE_BUF`).
                match rustix::io::write(&output, &bytes[..bytes.len().min(4096)]) {
                    Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => {}
                    Ok(length) => bytes = &bytes[length..],
                    Err(error) => return Err(error.into()),
                }
                continue;
            }
            match self.signals.next().map(|signal| signal.number) {
                Some(libc::SIGWINCH) => self.resized = true,
                Some(libc::SIGCONT) => self.resumed = true,
                Some(_) => return Err(io::ErrorKind::BrokenPipe.into()),
                None => {}
            }
        }
        Ok(())
    }

    /// Waits until something happens.
    pub(super) fn wait(&mut self, live: &Live) -> io::Result<News> {
        let (input, output) = (io::stdin(), io::stdout());
        let mut fds = vec![
            PollFd::new(&self.signals, PollFlags::IN),
            PollFd::new(live, PollFlags::IN),
            // Whoever read us has gone.
            PollFd::new(&output, PollFlags::empty()),
        ];
        if self.keys {
            fds.push(PollFd::new(&input, PollFlags::IN));
        }
        let patience = Timespec { tv_sec: 0, tv_nsec: SEQUENCE_NS };
        let (resized, resumed) = (take(&mut self.resized), take(&mut self.resumed));
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        let patience = match resized || resumed {
            true => Some(&at_once),
            false => (!self.pending.is_empty()).then_some(&patience),
        };
        match poll(&mut fds, patience) {
            Err(rustix::io::Errno::INTR) | Ok(_) => {}
            Err(error) => return Err(error.into()),
        }
        let ready: Vec<PollFlags> = fds.iter().map(PollFd::revents).collect();
        let gone = PollFlags::ERR | PollFlags::HUP | PollFlags::NVAL;
        let mut news = News { resized, resumed, end: ready[2].intersects(gone), ..News::default() };
        while let Some(signal) = self.signals.next() {
            match signal.number {
                libc::SIGWINCH => news.resized = true,
                libc::SIGCONT => news.resumed = true,
                _ => news.end = true,
            }
        }
        match ready.get(3).is_some_and(|ready| !ready.is_empty()) {
            true => self.read(input.as_fd(), &mut news),
            false => self.settle(&mut news),
        }
        Ok(news)
    }

    fn read(&mut self, input: BorrowedFd<'_>, news: &mut News) {
        let mut bytes = [0; 4096];
        match rustix::io::read(input, &mut bytes) {
            Ok(0) => news.end = true,
            Ok(length) => {
                self.pending.extend_from_slice(&bytes[..length]);
                let (inputs, used) = keys::read(&self.pending, false);
                self.pending.drain(..used);
                news.inputs = inputs;
            }
            Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => {}
            Err(_) => news.end = true,
        }
    }

    /// Nothing more came: what is there stands for itself.
    fn settle(&mut self, news: &mut News) {
        let (inputs, _) = keys::read(&self.pending, true);
        self.pending.clear();
        news.inputs = inputs;
    }
}

/// The terminal, taken over until this is dropped.
#[derive(Debug)]
pub(super) struct Screen {
    mouse: bool,
}

impl Screen {
    /// Takes the terminal over. Only one at a time.
    pub(super) fn enter(desk: &mut Desk, mouse: bool) -> io::Result<Self> {
        restore_on_panic();
        let screen = Self { mouse };
        screen.take_over(desk)?;
        Ok(screen)
    }

    fn take_over(&self, desk: &mut Desk) -> io::Result<()> {
        let input = io::stdin();
        let now = isatty(&input).then(|| tcgetattr(&input)).transpose()?;
        let mut raw = now.clone();
        // What it was before all is what it will be again.
        let mut before = BEFORE.lock().unwrap_or_else(|broken| broken.into_inner());
        before.get_or_insert(Before { input: now });
        drop(before);
        if let Some(raw) = &mut raw {
            raw.make_raw();
            tcsetattr(&input, OptionalActions::Drain, raw)?;
            desk.keys = true;
        }
        let mut out = io::stdout().lock();
        out.write_all(ENTER.as_bytes())?;
        if self.mouse {
            out.write_all(MOUSE.as_bytes())?;
        }
        out.flush()
    }

    /// Lets the shell have the terminal, if that was asked for, and takes it again afterwards;
    /// returns whether all has to be drawn anew. Where no shell could make us go on the kernel does
    /// not stop us.
    pub(super) fn heed(&self, desk: &mut Desk, news: &News) -> io::Result<bool> {
        let suspend = news.inputs.contains(&Input::Suspend);
        if suspend {
            restore();
            kill_current_process_group(Signal::TSTP)?;
        }
        if suspend || news.resumed {
            self.take_over(desk)?;
        }
        let redraw = news.inputs.contains(&Input::Redraw);
        Ok(suspend || news.resumed || news.resized || redraw)
    }

    /// Columns and lines; a terminal that does not know has 80 and 24.
    pub(super) fn size(&self) -> (u16, u16) {
        let size = tcgetwinsize(io::stdout()).ok();
        let size = size.map(|size| (size.ws_col, size.ws_row));
        size.filter(|(width, height)| *width > 0 && *height > 0).unwrap_or((80, 24))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        restore();
    }
}

/// Gives the terminal back, once.
fn restore() {
    let before = BEFORE.lock().unwrap_or_else(|broken| broken.into_inner()).take();
    let Some(before) = before else { return };
    // Where it cannot be given back nobody can be told.
    let mut out = io::stdout();
    let _ = out.write_all(LEAVE.as_bytes()).and_then(|()| out.flush());
    if let Some(input) = before.input {
        let _ = tcsetattr(io::stdin(), OptionalActions::Flush, &input);
    }
}

/// So that the words of a panic are seen, and the shell after it.
fn restore_on_panic() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        restore();
        usual(panic);
    }));
}
