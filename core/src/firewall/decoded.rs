//! A firewall as the kernel tells it, step by step, before anybody has made sense of it.
//!
//! Names and numbers are those of include/uapi/linux/netfilter/nf_tables.h. What is loaded lies in
//! sixteen words of 32 bits; the older registers of 128 bits are four words each.

use super::{Base, Engine, Family, Match};

/// The place of verdicts among the words.
pub const VERDICT: u32 = u32::MAX;

/// A table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    pub engine: Engine,
    pub family: Family,
    pub name: String,
    pub owner: Option<u32>,
    pub dormant: bool,
    pub chains: Vec<Chain>,
    pub sets: Vec<Set>,
}

/// A chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    pub name: String,
    pub base: Option<Base>,
    pub rules: Vec<Rule>,
}

/// A rule: steps that are taken until one does not hold, or decides.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    pub handle: u64,
    pub steps: Vec<Step>,
    pub comment: Option<String>,
}

/// A set or map; an anonymous one is part of the rule that looks into it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Set {
    pub name: String,
    pub anonymous: bool,
    pub map: bool,
    /// What it yields is a verdict.
    pub verdicts: bool,
    /// Its elements are where intervals begin and end.
    pub intervals: bool,
    /// Bytes of a key, each of its fields filled up to words.
    pub key_len: u32,
    /// `None`: they were not read, or too many to be.
    pub elements: Option<Vec<Element>>,
}

/// An element.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Element {
    pub key: Vec<u8>,
    /// The last key of an interval that has both of its ends in one element.
    pub last: Option<Vec<u8>>,
    /// An interval ends before this one.
    pub end: bool,
    pub yields: Yield,
}

/// What a map has for a key.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Yield {
    #[default]
    Nothing,
    Value(Vec<u8>),
    Verdict {
        code: i32,
        chain: Option<String>,
    },
}

/// One expression of a rule. `from` and `into` are words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    Payload {
        base: u32,
        offset: u32,
        len: u32,
        into: u32,
    },
    Meta {
        key: u32,
        into: u32,
    },
    MetaSet {
        key: u32,
        from: u32,
    },
    Ct {
        key: u32,
        into: u32,
    },
    Fib {
        result: u32,
        flags: u32,
        into: u32,
    },
    /// `op` is one of `NFT_CMP_*`.
    Compare {
        from: u32,
        op: u32,
        value: Vec<u8>,
    },
    Bitwise {
        from: u32,
        into: u32,
        mask: Vec<u8>,
        xor: Vec<u8>,
    },
    Range {
        from: u32,
        not: bool,
        low: Vec<u8>,
        high: Vec<u8>,
    },
    Lookup {
        set: String,
        from: u32,
        /// Of maps: where what they yield goes, possibly [`VERDICT`].
        into: Option<u32>,
        not: bool,
    },
    Immediate {
        into: u32,
        value: Vec<u8>,
    },
    Verdict {
        code: i32,
        chain: Option<String>,
    },
    /// Address and ports are words that hold the first and last.
    Nat {
        source: bool,
        addr: Option<(u32, u32)>,
        ports: Option<(u32, u32)>,
    },
    Masquerade,
    Redirect {
        ports: Option<(u32, u32)>,
    },
    Reject,
    Queue,
    Counter {
        packets: u64,
        bytes: u64,
    },
    Log {
        prefix: String,
    },
    Limit {
        rate: u64,
        /// Seconds.
        unit: u64,
        over: bool,
    },
    Notrack,
    /// A match or target of iptables' own, with its bytes.
    Xt {
        target: bool,
        name: String,
        revision: u32,
        info: Vec<u8>,
    },
    /// What is already understood.
    Known(Match),
    /// Puts something into a word that is called so; `into` is missing where it only acts.
    Other {
        name: String,
        into: Option<u32>,
    },
}
