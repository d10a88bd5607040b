//! Names and identities: parsed once at the door, never bare strings inside.

use std::{fmt, marker::PhantomData, net::IpAddr, str::FromStr, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Why a name was not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{kind} name {name:?} is not valid: {why}")]
pub struct BadName {
    pub kind: &'static str,
    pub name: String,
    pub why: &'static str,
}

const CHARACTERS: &str =
    "it starts with a letter or digit and goes on with letters, digits, '_', '.' or '-'";

fn check_name(kind: &'static str, name: &str) -> Result<(), BadName> {
    let bad = |why| Err(BadName { kind, name: name.to_owned(), why });
    if name.is_empty() || name.len() > 63 {
        return bad("it has 1 to 63 characters");
    }
    let good = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    if !name.starts_with(|c: char| c.is_ascii_alphanumeric()) || !name.chars().all(good) {
        return bad(CHARACTERS);
    }
    Ok(())
}

/// Reads a name from where it stands, without a copy of its text in between.
struct Spelled<T>(PhantomData<T>);

impl<T: FromStr<Err = BadName>> de::Visitor<'_> for Spelled<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $check:path) => {
        $(#[$doc])*
        ///
        /// Cheap to clone: one name stands in many keys of the same topology.
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Returns the name as it was given.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = BadName;
            fn from_str(name: &str) -> Result<Self, BadName> {
                $check($kind, name)?;
                Ok(Self(name.into()))
            }
        }

        impl TryFrom<String> for $name {
            type Error = BadName;
            fn try_from(name: String) -> Result<Self, BadName> {
                name.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.as_str().to_owned()
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_str(Spelled(PhantomData))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
    };
}

name!(
    /// What users call a network: `[a-zA-Z0-9][a-zA-Z0-9_.-]{0,62}`, but neither `host` nor
    /// `none`, which a container can ask for instead of networks.
    NetworkName, "network", check_network
);
name!(
    /// What users call a container, or the handle of a foreign network namespace
    /// (`pid:1234`, `netns:/run/netns/x`), which is a name too.
    ContainerName, "container", check_container
);
name!(
    /// A host name in the sense of RFC 1123, at most 63 characters; also aliases.
    HostName, "host", check_host
);
name!(
    /// A network interface's name as the kernel takes it (`dev_valid_name`): at most 15 bytes,
    /// neither `.` nor `..`, no `/`, no `:`, no space.
    IfName, "interface", check_interface
);

impl IfName {
    /// Spells whatever the kernel calls a link. What a terminal would obey, or not show, is written
    /// as `\\x1b`, and so is every backslash: no two names are spelled alike. Such a name may be
    /// longer than one that can be asked for.
    pub fn spelled(name: &[u8]) -> Self {
        let plain = |c: char| !(c.is_control() || c.is_whitespace() || "\\/:".contains(c));
        let text = std::str::from_utf8(name).unwrap_or_default();
        if text.chars().all(|c| plain(c) && !unseen(c)) && check_interface("", text).is_ok() {
            return Self(text.into());
        }
        let mut spelled = String::new();
        for chunk in name.utf8_chunks() {
            for c in chunk.valid().chars() {
                match plain(c) && !unseen(c) {
                    true => spelled.push(c),
                    false => escape(c, &mut spelled),
                }
            }
            spelled.extend(chunk.invalid().iter().copied().map(escaped));
        }
        Self(spelled.into())
    }
}

/// Text of somebody else's, such that it cannot act on a terminal, turn lines round or hide:
/// control characters and those without looks of their own are written as [`IfName::spelled`]
/// writes them. All else stays, backslashes too, so that what is shown may be shown again.
pub fn shown(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for c in text.chars() {
        match acts(c) {
            true => escape(c, &mut plain),
            false => plain.push(c),
        }
    }
    plain
}

/// Whether a character does something to a terminal or to the text around it, or cannot be seen.
pub fn acts(c: char) -> bool {
    c.is_control() || unseen(c)
}

/// Whether a character has no looks of its own, breaks the line, or turns the writing around
/// (Unicode, UAX 9).
fn unseen(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{e0000}'..='\u{e007f}')
}

/// Writes a character's bytes, as `\x1b`.
fn escape(c: char, to: &mut String) {
    to.extend(c.encode_utf8(&mut [0; 4]).bytes().map(escaped));
}

fn escaped(byte: u8) -> String {
    format!("\\x{byte:02x}")
}

fn check_network(kind: &'static str, name: &str) -> Result<(), BadName> {
    if ["host", "none"].contains(&name) {
        let why = "it means the host's own network, or none at all";
        return Err(BadName { kind, name: name.to_owned(), why });
    }
    check_name(kind, name)
}

fn check_container(kind: &'static str, name: &str) -> Result<(), BadName> {
    let bad = |why| Err(BadName { kind, name: name.to_owned(), why });
    if let Some(pid) = name.strip_prefix("pid:") {
        return match pid.parse::<u32>() {
            Ok(1..) => Ok(()),
            _ => bad("pid: is followed by the number of a process"),
        };
    }
    if let Some(path) = name.strip_prefix("netns:") {
        return match path.starts_with('/') && path.len() < 4096 {
            true => Ok(()),
            false => bad("netns: is followed by an absolute path"),
        };
    }
    check_name(kind, name)
}

fn check_host(kind: &'static str, name: &str) -> Result<(), BadName> {
    let bad = |why| Err(BadName { kind, name: name.to_owned(), why });
    if name.is_empty() || name.len() > 253 {
        return bad("it has 1 to 253 characters");
    }
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
    };
    match name.split('.').all(label) {
        true => Ok(()),
        false => bad("each part between dots is 1 to 63 letters, digits, '_' or inner '-'"),
    }
}

fn check_interface(kind: &'static str, name: &str) -> Result<(), BadName> {
    let bad = |why| Err(BadName { kind, name: name.to_owned(), why });
    if name.is_empty() || name.len() > 15 {
        return bad("it has 1 to 15 bytes");
    }
    if name == "."
        || name == ".."
        || name.chars().any(|c| c == '/' || c == ':' || c.is_whitespace())
    {
        return bad("it may not be '.' or '..' nor hold '/', ':' or a space");
    }
    Ok(())
}

/// An Ethernet address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// Returns the address Twinax gives to whoever owns `addr`: locally administered, and as
    /// unique and as stable as the address it is made from.
    pub fn of(addr: IpAddr) -> Self {
        match addr {
            IpAddr::V4(v4) => {
                let [a, b, c, d] = v4.octets();
                Self([0x02, 0x74, a, b, c, d])
            }
            IpAddr::V6(v6) => {
                let o = v6.octets();
                let folded: [u8; 4] = std::array::from_fn(|n| o[n] ^ o[n + 4] ^ o[n + 8]);
                Self([
                    0x06,
                    folded[0] ^ folded[1],
                    folded[2] ^ folded[3] ^ o[12],
                    o[13],
                    o[14],
                    o[15],
                ])
            }
        }
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl FromStr for Mac {
    type Err = BadName;
    fn from_str(text: &str) -> Result<Self, BadName> {
        let bad = |why| BadName { kind: "MAC", name: text.to_owned(), why };
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts.next().filter(|p| p.len() == 2);
            *byte = part
                .and_then(|p| u8::from_str_radix(p, 16).ok())
                .ok_or_else(|| bad("it is six pairs of hexadecimal digits, 02:00:5e:00:53:01"))?;
        }
        if parts.next().is_some() {
            return Err(bad("it is six pairs of hexadecimal digits, 02:00:5e:00:53:01"));
        }
        if bytes[0] & 1 == 1 || bytes == [0; 6] {
            return Err(bad("a container's address is unicast and not all zero"));
        }
        Ok(Self(bytes))
    }
}

impl TryFrom<String> for Mac {
    type Error = BadName;
    fn try_from(text: String) -> Result<Self, BadName> {
        text.parse()
    }
}

impl From<Mac> for String {
    fn from(mac: Mac) -> Self {
        mac.to_string()
    }
}

/// The transport protocols whose ports can be published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Proto {
    Tcp,
    Udp,
    Sctp,
}

impl Proto {
    /// IANA's protocol number.
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }
}

impl fmt::Display for Proto {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        })
    }
}

impl FromStr for Proto {
    type Err = BadName;
    fn from_str(text: &str) -> Result<Self, BadName> {
        match text {
            "tcp" => Ok(Self::Tcp),
            "udp" => Ok(Self::Udp),
            "sctp" => Ok(Self::Sctp),
            _ => Err(BadName { kind: "protocol", name: text.to_owned(), why: "tcp, udp or sctp" }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_names_of_links_are_spelled_alike() {
        let names: [(&[u8], &str); 8] = [
            (b"eth0", "eth0"),
            ("f\u{fc}nf".as_bytes(), "f\u{fc}nf"),
            (b"a\x1b[2J", "a\\x1b[2J"),
            (b"\xff", "\\xff"),
            (b"\\xff", "\\x5cxff"),
            (b"\xc3\xa9\xc3", "\u{e9}\\xc3"),
            ("\u{202e}0hte".as_bytes(), "\\xe2\\x80\\xae0hte"),
            ("a\u{2003}b".as_bytes(), "a\\xe2\\x80\\x83b"),
        ];
        for (name, spelled) in names {
            assert_eq!(IfName::spelled(name).as_str(), spelled);
        }
    }
}
