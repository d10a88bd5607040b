//! How keys become file names, and back.

use twinax_core::state::PortKey;

/// The longest key that stands in a file name as it is; the kernel takes 255 bytes.
const LONGEST: usize = 200;

/// Returns a file name for `key`: the key itself, with `/` and `%` escaped, or its beginning and
/// a digest where it is too long.
pub fn file_name(key: &str) -> String {
    let escaped = key.replace('%', "%25").replace('/', "%2F");
    if escaped.len() <= LONGEST {
        return escaped;
    }
    let mut end = LONGEST - 20;
    while !escaped.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}~{:016x}", &escaped[..end], fnv1a(key.as_bytes()))
}

/// The 64-bit FNV-1a digest: the same in every version of Twinax.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// Reads a port's key from its file name, as `tcp-8080.json`.
pub(super) fn port_key(file: &str) -> Option<PortKey> {
    let (proto, port) = file.strip_suffix(".json")?.split_once('-')?;
    Some(PortKey { proto: proto.parse().ok()?, port: port.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_keys_stay_apart_and_short() {
        let (a, b) =
            (format!("netns:/{}a", "x".repeat(900)), format!("netns:/{}b", "x".repeat(900)));
        assert!(file_name(&a).len() <= LONGEST && file_name(&a) != file_name(&b));
        assert_eq!(file_name("netns:/run/x"), "netns:%2Frun%2Fx");
    }
}
