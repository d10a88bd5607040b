//! Answers each line or datagram with the sender's address and the text; and the client for it.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{IpAddr, TcpStream},
    thread,
    time::{Duration, Instant},
};

use super::{
    Stop, Transport,
    net::{self, Target},
    say,
};

/// The longest text, in bytes; also the largest UDP datagram.
const TEXT_MAX: usize = 65_535;

/// Serves for ever, if it can listen.
pub(super) fn serve(transport: Transport, addr: Option<IpAddr>, port: u16) -> Result<(), Stop> {
    match transport {
        Transport::Tcp => {
            let listener = net::listen_tcp(addr, port)?;
            say(&format!("echo: serving tcp on port {port}"));
            loop {
                let (stream, client) = net::accept(&listener);
                thread::spawn(move || converse(stream, &client));
            }
        }
        Transport::Udp => {
            let socket = net::listen_udp(addr, port)?;
            say(&format!("echo: serving udp on port {port}"));
            let mut buffer = vec![0; TEXT_MAX];
            loop {
                // An error here tells of an earlier answer that found nobody: not of the socket.
                let Ok((length, client)) = socket.recv_from(&mut buffer) else { continue };
                let text = String::from_utf8_lossy(&buffer[..length]);
                let answer = format!("{} {}", net::plain(client), text.trim_end());
                say(&answer);
                let _ = socket.send_to(format!("{answer}\n").as_bytes(), client);
            }
        }
    }
}

fn converse(mut stream: TcpStream, client: &str) {
    let Ok(reading) = stream.try_clone() else { return };
    let mut lines = BufReader::new(reading);
    let mut text = String::new();
    while matches!(lines.by_ref().take(TEXT_MAX as u64).read_line(&mut text), Ok(1..)) {
        let answer = format!("{client} {}", text.trim_end());
        say(&answer);
        if stream.write_all(format!("{answer}\n").as_bytes()).is_err() {
            return;
        }
        text.clear();
    }
}

/// Sends `text` and prints the answer.
pub(super) fn send(
    transport: Transport,
    target: &str,
    text: &str,
    limit: Duration,
) -> Result<(), Stop> {
    let target = Target::parse(target).map_err(Stop::Usage)?;
    let answer = match transport {
        Transport::Tcp => ask_tcp(&target, text, limit),
        Transport::Udp => ask_udp(&target, text, limit),
    };
    let answer = answer.map_err(|error| Stop::failed(&target, &error))?;
    say(answer.trim_end());
    Ok(())
}

fn ask_tcp(target: &Target, text: &str, limit: Duration) -> io::Result<String> {
    let mut stream = target.connect(limit)?;
    stream.write_all(format!("{text}\n").as_bytes())?;
    let mut answer = String::new();
    match BufReader::new(stream).read_line(&mut answer)? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(answer),
    }
}

fn ask_udp(target: &Target, text: &str, limit: Duration) -> io::Result<String> {
    let socket = target.connect_udp(limit)?;
    socket.send(text.as_bytes())?;
    let mut answer = vec![0; TEXT_MAX];
    let length = socket.recv(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer[..length]).into_owned())
}

/// Returns as soon as a TCP server accepts.
pub(super) fn wait(target: &str, limit: Duration) -> Result<(), Stop> {
    let target = Target::parse(target).map_err(Stop::Usage)?;
    let deadline = Instant::now() + limit;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match target.connect(left.max(Duration::from_millis(1))) {
            Ok(_) => return Ok(()),
            Err(error) if left.is_zero() => return Err(Stop::failed(&target, &error)),
            Err(_) => thread::sleep(left.min(Duration::from_millis(20))),
        }
    }
}
