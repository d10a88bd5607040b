//! Finds where the members of the kernel's structures are, in its own description of its types
//! (BTF). Reads what it needs and skips the rest; whatever is not as it should be is "not found".

const KIND_STRUCT: u32 = 4;
const KIND_UNION: u32 = 5;
/// How deep structures without names are looked into.
const DEPTH: u32 = 4;

/// The types, by number, of which the first is 1, and their names.
#[derive(Debug)]
pub(super) struct Types<'a> {
    types: &'a [u8],
    names: &'a [u8],
}

impl<'a> Types<'a> {
    /// Reads the header (linux/btf.h).
    pub(super) fn of(btf: &'a [u8]) -> Option<Self> {
        const MAGIC: u16 = 0xeb9f;
        if u16::from_ne_bytes(btf.get(..2)?.try_into().ok()?) != MAGIC {
            return None;
        }
        let part = |at: usize| {
            let start = word(btf, 4)?.checked_add(word(btf, at)?)? as usize;
            btf.get(start..start.checked_add(word(btf, at + 4)? as usize)?)
        };
        Some(Self { types: part(8)?, names: part(16)? })
    }

    /// Returns the offset in bytes of `member` of `structure` for each of the wanted.
    pub(super) fn offsets(&self, wanted: &[(&str, &str)]) -> Vec<Option<u32>> {
        let mut found = vec![None; wanted.len()];
        let mut at = 0;
        while let Some((name, info, end)) = self.kind_at(at) {
            if info >> 24 & 0x1f == KIND_STRUCT && name != 0 {
                for ((structure, member), found) in wanted.iter().zip(&mut found) {
                    if found.is_none() && self.is_named(name, structure) {
                        *found = self.member(at, member, DEPTH);
                    }
                }
            }
            if found.iter().all(Option::is_some) {
                break;
            }
            at = end;
        }
        found
    }

    /// The name and info of the type at `at`, and where the next one starts.
    fn kind_at(&self, at: usize) -> Option<(u32, u32, usize)> {
        let (name, info) = (word(self.types, at)?, word(self.types, at + 4)?);
        let count = (info & 0xffff) as usize;
        let more = match info >> 24 & 0x1f {
            1 | 14 | 17 => 4,
            3 => 12,
            KIND_STRUCT | KIND_UNION | 15 | 19 => 12 * count,
            6 | 13 => 8 * count,
            2 | 7..=12 | 16 | 18 => 0,
            _ => return None,
        };
        Some((name, info, at + 12 + more))
    }

    fn is_named(&self, name: u32, wanted: &str) -> bool {
        let rest = self.names.get(name as usize..).unwrap_or_default();
        rest.starts_with(wanted.as_bytes()) && rest.get(wanted.len()) == Some(&0)
    }

    /// The offset of a member, also of a structure without a name inside.
    fn member(&self, at: usize, wanted: &str, depth: u32) -> Option<u32> {
        let info = word(self.types, at + 4)?;
        let members = || (0..(info & 0xffff) as usize).map(|n| at + 12 + 12 * n);
        let offset = |member: usize| {
            let bits = word(self.types, member + 8)?;
            // With the flag, the upper eight bits are the size of a bit field.
            Some(if info >> 31 == 1 { bits & 0xff_ffff } else { bits })
        };
        for member in members() {
            let name = word(self.types, member)?;
            if name != 0 && self.is_named(name, wanted) {
                return Some(offset(member)? / 8);
            }
        }
        // Only then: to find a type by its number takes a walk.
        for member in members() {
            let (name, kind) = (word(self.types, member)?, word(self.types, member + 4)?);
            let bits = offset(member)?;
            if name == 0 && depth > 0 {
                let inner = self.place(kind).and_then(|at| self.member(at, wanted, depth - 1));
                if let Some(inner) = inner {
                    return Some(bits / 8 + inner);
                }
            }
        }
        None
    }

    /// Where the structure or union of a number starts.
    fn place(&self, number: u32) -> Option<usize> {
        let mut at = 0;
        for _ in 1..number {
            at = self.kind_at(at)?.2;
        }
        let kind = self.kind_at(at)?.1 >> 24 & 0x1f;
        matches!(kind, KIND_STRUCT | KIND_UNION).then_some(at)
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `struct a { int x; struct { int y; }; }` with offsets of 4 and 8 + 2 bytes.
    fn sample() -> Vec<u8> {
        let names = b"\0a\0x\0y\0";
        let inner = [0, KIND_STRUCT << 24 | 1, 4, 5, 9, 16];
        let outer = [1, KIND_STRUCT << 24 | 2, 12, 3, 9, 32, 0, 1, 64];
        let words: Vec<u32> = inner.into_iter().chain(outer).collect();
        let length = words.len() as u32 * 4;
        let mut btf = vec![0x9f, 0xeb, 1, 0];
        for word in [24, 0, length, length, names.len() as u32].into_iter().chain(words) {
            btf.extend(word.to_le_bytes());
        }
        btf.extend(names);
        btf
    }

    #[test]
    fn members_are_found_also_in_structures_without_names() {
        let btf = sample();
        let types = Types::of(&btf).unwrap();
        let found = types.offsets(&[("a", "x"), ("a", "y"), ("a", "z"), ("b", "x")]);
        assert_eq!(found, [Some(4), Some(10), None, None]);
    }

    #[test]
    fn what_is_cut_short_or_not_one_is_not_found() {
        let btf = sample();
        for length in 0..btf.len() {
            if let Some(types) = Types::of(&btf[..length]) {
                drop(types.offsets(&[("a", "x"), ("a", "y")]));
            }
        }
        assert!(Types::of(&[0; 64]).is_none());
    }
}
