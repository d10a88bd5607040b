//! An HTTP/1.1 server that shows who asked and what its upstreams say, and a client.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::TcpStream,
    sync::Arc,
    thread,
    time::Duration,
};

use super::{
    Answer, Stop, kv,
    net::{self, Target},
    say,
};

/// The longest request head, and the longest answer a client takes, in bytes.
const HEAD_MAX: u64 = 16 << 10;
const BODY_MAX: u64 = 16 << 20;
/// How long a server waits for its client, and for each of its upstreams.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a page is made from besides the request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Upstream {
    Http(Target),
    /// A visit counter in a `demo kv`.
    Kv(Target),
}

impl Upstream {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        match text.strip_prefix("kv://") {
            Some(rest) => Target::parse(rest).map(Self::Kv),
            None => Target::parse(text.strip_prefix("http://").unwrap_or(text)).map(Self::Http),
        }
    }

    /// Returns what it says, or why it says nothing.
    fn ask(&self) -> Result<String, String> {
        let (target, answer) = match self {
            Self::Http(target) => (target, get(target, "/", PATIENCE)),
            Self::Kv(target) => (target, kv::increment(target, "visits", PATIENCE)),
        };
        match (self, answer) {
            (Self::Kv(_), Ok(Answer { body, .. })) => {
                Ok(format!("visit {body} counted by {target}"))
            }
            (Self::Http(_), Ok(Answer { status: 200, body })) => Ok(body),
            (_, Ok(Answer { status, .. })) => {
                Err(format!("{target}: answered with status {status}"))
            }
            (_, Err(error)) => Err(format!("{target}: {}", net::reason(&error))),
        }
    }
}

struct Site {
    name: String,
    upstreams: Vec<Upstream>,
}

/// Serves for ever, if it can listen.
pub(super) fn serve(port: u16, name: &str, upstreams: Vec<Upstream>) -> Result<(), Stop> {
    let listener = net::listen_tcp(None, port)?;
    let site = Arc::new(Site { name: name.to_owned(), upstreams });
    say(&format!("{name}: serving http on port {port}"));
    loop {
        let (stream, client) = net::accept(&listener);
        let site = Arc::clone(&site);
        thread::spawn(move || {
            let outcome = site.answer(stream, &client);
            let outcome = outcome.unwrap_or_else(|error| net::reason(&error));
            say(&format!("{client} {outcome}"));
        });
    }
}

impl Site {
    /// Answers one request; returns what to log.
    fn answer(&self, mut stream: TcpStream, client: &str) -> io::Result<String> {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut head = BufReader::new((&stream).take(HEAD_MAX));
        let mut request = String::new();
        head.read_line(&mut request)?;
        let mut line = String::new();
        while head.read_line(&mut line)? > 2 {
            line.clear();
        }
        let mut words = request.split_whitespace();
        let (method, path) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
        let (status, body) = match (method, path) {
            ("GET" | "HEAD", "/") => self.page(client),
            ("GET" | "HEAD", _) => ("404 Not Found", "there is only /\n".to_owned()),
            _ => ("405 Method Not Allowed", "only GET\n".to_owned()),
        };
        let mut answer = format!(
            "HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n",
            body.len()
        );
        if method != "HEAD" {
            answer.push_str(&body);
        }
        stream.write_all(answer.as_bytes())?;
        Ok(format!("{method} {path} {}", &status[..3]))
    }

    fn page(&self, client: &str) -> (&'static str, String) {
        let mut status = "200 OK";
        let mut body = format!("{} was asked by {client}\n", self.name);
        for upstream in &self.upstreams {
            let text = upstream.ask().unwrap_or_else(|why| {
                status = "502 Bad Gateway";
                why
            });
            for line in text.lines() {
                body.push_str("  ");
                body.push_str(line);
                body.push('\n');
            }
        }
        (status, body)
    }
}

/// Prints the body of `url`; fails unless the status is 200.
pub(super) fn fetch(url: &str, limit: Duration) -> Result<(), Stop> {
    let wrong = || Stop::Usage(format!("not a URL (http://HOST[:PORT][/PATH]): {url}"));
    let rest = url.strip_prefix("http://").ok_or_else(wrong)?;
    let (host, path) = rest.find('/').map_or((rest, "/"), |at| rest.split_at(at));
    let target = Target::parse(host)
        .or_else(|_| Target::parse(&format!("{host}:80")))
        .map_err(|_| wrong())?;
    let answer = get(&target, path, limit)
        .map_err(|error| Stop::failed(format!("fetching {url}"), &error))?;
    say(answer.body.trim_end_matches('\n'));
    match answer.status {
        200 => Ok(()),
        status => Err(Stop::Failed(format!("fetching {url}: answered with status {status}"))),
    }
}

fn get(target: &Target, path: &str, limit: Duration) -> io::Result<Answer> {
    let mut stream = target.connect(limit)?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {target}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut bytes = Vec::new();
    stream.take(BODY_MAX).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    if text.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.strip_prefix("HTTP/1.").and_then(|rest| rest.split(' ').nth(1));
    let status = status.and_then(|status| status.parse().ok());
    let status = status.ok_or_else(|| io::Error::other("the answer is not HTTP"))?;
    Ok(Answer { status, body: body.to_owned() })
}
