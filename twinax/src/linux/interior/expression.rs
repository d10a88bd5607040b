//! Reads one expression of a rule (`NFTA_EXPR_NAME`, `NFTA_EXPR_DATA`).

use twinax_core::firewall::decoded::{Step, VERDICT};

use crate::linux::netlink::{attribute, be32, text};

/// Returns the step that an expression is; what is not known goes by its name.
pub(super) fn step(bytes: &[u8]) -> Option<Step> {
    let name = attribute(bytes, 1).and_then(text)?;
    let data = Data(attribute(bytes, 2).unwrap_or_default());
    let step = match name {
        "payload" => data.payload(),
        "meta" => data.meta(),
        "ct" => data.ct(),
        "fib" => data.fib(),
        "cmp" => data.compare(),
        "bitwise" => data.bitwise(),
        "range" => data.range(),
        "lookup" => data.lookup(),
        "immediate" => data.immediate(),
        "nat" => data.nat(),
        "masq" => Some(Step::Masquerade),
        "redir" => Some(Step::Redirect { ports: data.words(1, 2) }),
        "reject" => Some(Step::Reject),
        "queue" => Some(Step::Queue),
        "notrack" => Some(Step::Notrack),
        "counter" => data.counter(),
        "log" => {
            Some(Step::Log { prefix: data.get(2).and_then(text).unwrap_or_default().to_owned() })
        }
        "limit" => data.limit(),
        "match" | "target" => data.xt(name == "target"),
        _ => None,
    };
    let into = match name {
        // NFTA_BYTEORDER_DREG, _HASH_DREG, _SOCKET_DREG, _XFRM_DREG; of the others it is first.
        "byteorder" | "hash" | "socket" => data.word(2),
        "exthdr" | "rt" | "numgen" | "osf" | "tunnel" | "xfrm" => data.word(1),
        _ => None,
    };
    Some(step.unwrap_or_else(|| Step::Other { name: name.to_owned(), into }))
}

/// The code and chain of a verdict.
pub(super) fn verdict(data: &[u8]) -> Option<(i32, Option<String>)> {
    let code = attribute(data, 1).and_then(be32)?.cast_signed();
    Some((code, attribute(data, 2).and_then(text).map(ToOwned::to_owned)))
}

struct Data<'a>(&'a [u8]);

impl Data<'_> {
    fn get(&self, kind: u16) -> Option<&[u8]> {
        attribute(self.0, kind)
    }

    fn number(&self, kind: u16) -> Option<u32> {
        self.get(kind).and_then(be32)
    }

    fn long(&self, kind: u16) -> Option<u64> {
        self.get(kind)?.first_chunk().map(|bytes| u64::from_be_bytes(*bytes))
    }

    /// The bytes of `NFTA_DATA_VALUE`.
    fn value(&self, kind: u16) -> Option<Vec<u8>> {
        self.get(kind).and_then(|data| attribute(data, 1)).map(<[u8]>::to_vec)
    }

    /// A register as the word it begins at: `NFT_REG_1` to `4` are four words each,
    /// `NFT_REG32_00` (8) to `15` one.
    fn word(&self, kind: u16) -> Option<u32> {
        match self.number(kind)? {
            0 => Some(VERDICT),
            number @ 1..=4 => Some((number - 1) * 4),
            number @ 8..=23 => Some(number - 8),
            _ => None,
        }
    }

    /// The first and last of a range; of one that names only its first, that twice.
    fn words(&self, first: u16, last: u16) -> Option<(u32, u32)> {
        let first = self.word(first)?;
        Some((first, self.word(last).unwrap_or(first)))
    }

    fn payload(&self) -> Option<Step> {
        let Some(into) = self.word(1) else {
            return Some(Step::Other { name: "payload set".to_owned(), into: None });
        };
        let (base, offset, len) = (self.number(2)?, self.number(3)?, self.number(4)?);
        Some(Step::Payload { base, offset, len, into })
    }

    fn meta(&self) -> Option<Step> {
        let key = self.number(2)?;
        match self.word(1) {
            Some(into) => Some(Step::Meta { key, into }),
            None => Some(Step::MetaSet { key, from: self.word(3)? }),
        }
    }

    fn ct(&self) -> Option<Step> {
        match self.word(1) {
            Some(into) => Some(Step::Ct { key: self.number(2)?, into }),
            None => Some(Step::Other { name: "ct set".to_owned(), into: None }),
        }
    }

    fn fib(&self) -> Option<Step> {
        Some(Step::Fib { into: self.word(1)?, result: self.number(2)?, flags: self.number(3)? })
    }

    fn compare(&self) -> Option<Step> {
        Some(Step::Compare { from: self.word(1)?, op: self.number(2)?, value: self.value(3)? })
    }

    fn bitwise(&self) -> Option<Step> {
        // Shifts and the like have no mask.
        let mask = self.value(4).unwrap_or_default();
        let xor = self.value(5).unwrap_or_default();
        Some(Step::Bitwise { from: self.word(1)?, into: self.word(2)?, mask, xor })
    }

    fn range(&self) -> Option<Step> {
        let not = self.number(2)? == 1; // NFT_RANGE_NEQ
        Some(Step::Range { from: self.word(1)?, not, low: self.value(3)?, high: self.value(4)? })
    }

    fn lookup(&self) -> Option<Step> {
        Some(Step::Lookup {
            set: self.get(1).and_then(text)?.to_owned(),
            from: self.word(2)?,
            into: self.word(3),
            not: self.number(5).is_some_and(|flags| flags & 1 > 0),
        })
    }

    fn immediate(&self) -> Option<Step> {
        match self.word(1)? {
            VERDICT => {
                let (code, chain) = verdict(attribute(self.get(2)?, 2)?)?;
                Some(Step::Verdict { code, chain })
            }
            into => Some(Step::Immediate { into, value: self.value(2)? }),
        }
    }

    fn nat(&self) -> Option<Step> {
        let source = self.number(1)? == 0; // NFT_NAT_SNAT
        Some(Step::Nat { source, addr: self.words(3, 4), ports: self.words(5, 6) })
    }

    fn counter(&self) -> Option<Step> {
        Some(Step::Counter { bytes: self.long(1)?, packets: self.long(2)? })
    }

    fn limit(&self) -> Option<Step> {
        let over = self.number(5).is_some_and(|flags| flags & 1 > 0);
        Some(Step::Limit { rate: self.long(1)?, unit: self.long(2)?, over })
    }

    fn xt(&self, target: bool) -> Option<Step> {
        let name = self.get(1).and_then(text)?.to_owned();
        let (revision, info) = (self.number(2)?, self.get(3)?.to_vec());
        Some(Step::Xt { target, name, revision, info })
    }
}
