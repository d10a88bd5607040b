//! A key-value server in memory: the database of the examples.
//!
//! A line is a question, a line is the answer:
//!
//! ```text
//! GET visits        = 3     or, if there is none, "-"
//! SET visits 4      ok
//! INCR visits       = 5
//! anything else     ! what is wrong
//! ```

use std::{
    collections::BTreeMap,
    io::{self, BufRead, BufReader, Read, Write},
    net::TcpStream,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use super::{
    Answer, Stop,
    net::{self, Target},
    say,
};

/// The longest question, in bytes, and the most keys held.
const LINE_MAX: u64 = 64 << 10;
const KEYS_MAX: usize = 100_000;

/// Serves for ever, if it can listen. What is stored is gone with the process.
pub(super) fn serve(port: u16) -> Result<(), Stop> {
    let listener = net::listen_tcp(None, port)?;
    let table = Arc::new(Mutex::new(BTreeMap::new()));
    say(&format!("kv: serving on port {port}"));
    loop {
        let (stream, client) = net::accept(&listener);
        let table = Arc::clone(&table);
        thread::spawn(move || {
            if let Err(error) = converse(&stream, &client, &table) {
                say(&format!("{client} {}", net::reason(&error)));
            }
        });
    }
}

fn converse(
    mut stream: &TcpStream,
    client: &str,
    table: &Mutex<BTreeMap<String, String>>,
) -> io::Result<()> {
    let mut questions = BufReader::new(stream);
    loop {
        let mut line = String::new();
        if questions.by_ref().take(LINE_MAX).read_line(&mut line)? == 0 {
            return Ok(());
        }
        if !line.ends_with('\n') {
            return stream.write_all(b"! the line is too long or not ended\n");
        }
        let reply = answer(&mut table.lock().unwrap_or_else(PoisonError::into_inner), line.trim());
        say(&format!("{client} {} -> {reply}", line.trim()));
        stream.write_all(format!("{reply}\n").as_bytes())?;
    }
}

fn answer(table: &mut BTreeMap<String, String>, line: &str) -> String {
    let mut words = line.splitn(3, ' ');
    let question = (words.next().unwrap_or(""), words.next(), words.next());
    let (key, value, reply) = match question {
        ("GET", Some(key), None) => {
            return table.get(key).map_or_else(|| "-".to_owned(), |value| format!("= {value}"));
        }
        ("SET", Some(key), Some(value)) => (key, value.to_owned(), "ok".to_owned()),
        ("INCR", Some(key), None) => {
            let old = table.get(key).map_or(Ok(0), |value| value.parse::<i64>());
            let Some(new) = old.ok().and_then(|old| old.checked_add(1)) else {
                return format!("! {key} is not a number that can grow");
            };
            (key, new.to_string(), format!("= {new}"))
        }
        _ => return "! GET key, SET key value or INCR key".to_owned(),
    };
    if table.len() >= KEYS_MAX && !table.contains_key(key) {
        return "! full".to_owned();
    }
    table.insert(key.to_owned(), value);
    reply
}

/// Adds one to `key` on a server; the body of the answer is the new number.
pub(super) fn increment(target: &Target, key: &str, limit: Duration) -> io::Result<Answer> {
    let mut stream = target.connect(limit)?;
    stream.write_all(format!("INCR {key}\n").as_bytes())?;
    let mut reply = String::new();
    if BufReader::new(stream).read_line(&mut reply)? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    match reply.trim_end().strip_prefix("= ") {
        Some(number) => Ok(Answer { status: 200, body: number.to_owned() }),
        None => Err(io::Error::other(reply.trim_end().to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_answered_by_a_line() {
        let mut table = BTreeMap::new();
        for (question, reply) in [
            ("GET a", "-"),
            ("INCR a", "= 1"),
            ("INCR a", "= 2"),
            ("SET b two words", "ok"),
            ("GET b", "= two words"),
            ("INCR b", "! b is not a number that can grow"),
            ("DEL a", "! GET key, SET key value or INCR key"),
            ("GET", "! GET key, SET key value or INCR key"),
        ] {
            assert_eq!(answer(&mut table, question), reply, "{question}");
        }
    }
}
