//! Makes sense of rules: what is loaded and compared becomes what a rule asks for, and its last
//! step what it does.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use super::{
    Action, Family, MapDoes, Match, What, decoded,
    decoded::{Step, VERDICT},
    value::{Field, is, one_of},
    xt,
};

/// `NFT_CMP_*`.
const EQ: u32 = 0;
const NEQ: u32 = 1;
const LTE: u32 = 3;
const GTE: u32 = 5;

/// A rule that makes sense, with how it looks into a map, if it does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Understood {
    pub rule: super::Rule,
    pub(super) map: Option<MapUse>,
}

/// How a rule looks into a map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct MapUse {
    pub(super) map: String,
    pub(super) key: Vec<Loaded>,
    /// Where in what the map yields the address and the port are, in bytes.
    pub(super) addr: Option<usize>,
    pub(super) port: Option<usize>,
}

/// What lies in a word, and how many bytes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Loaded {
    pub(super) field: Field,
    pub(super) len: u32,
    mask: Option<Vec<u8>>,
    /// Not of the packet but of the rule.
    constant: Option<Vec<u8>>,
}

/// Returns what a rule of a table asks for and does.
pub fn rule(family: Family, sets: &Sets<'_>, raw: &decoded::Rule) -> Understood {
    let mut reader = Reader {
        family,
        sets,
        words: BTreeMap::new(),
        version: match family {
            Family::Ip => Some(4),
            Family::Ip6 => Some(6),
            _ => None,
        },
        proto: None,
        looked_up: None,
        low: None,
        found: Understood::default(),
    };
    reader.found.rule.handle = raw.handle;
    reader.found.rule.comment = raw.comment.clone();
    for step in &raw.steps {
        reader.take(step);
    }
    reader.found
}

/// A table's sets by their names.
pub type Sets<'a> = BTreeMap<&'a str, &'a decoded::Set>;

struct Reader<'a> {
    family: Family,
    sets: &'a Sets<'a>,
    words: BTreeMap<u32, Loaded>,
    /// Of the packet's IP, as far as the rule has asked already.
    version: Option<u8>,
    proto: Option<u8>,
    /// Where the last map put what, until something uses it.
    looked_up: Option<(u32, MapUse, String)>,
    /// What a word was just found to be at least.
    low: Option<(u32, Vec<u8>)>,
    found: Understood,
}

impl Reader<'_> {
    fn take(&mut self, step: &Step) {
        match step {
            Step::Payload { .. }
            | Step::Meta { .. }
            | Step::Ct { .. }
            | Step::Fib { .. }
            | Step::Other { .. }
            | Step::Immediate { .. } => self.load(step),
            Step::Bitwise { from, into, mask, xor } => self.mask(*from, *into, mask, xor),
            Step::Compare { from, op, value } => self.compare(*from, *op, value),
            Step::Range { from, not, low, high } => self.range(*from, *not, low, high),
            Step::Lookup { set, from, into, not } => match into {
                None => self.look_up(set, *from, *not),
                Some(into) => self.map(set, *from, *into),
            },
            Step::Known(known) => self.found.rule.matches.push(known.clone()),
            Step::Xt { target, name, revision, info } => {
                self.xt(*target, name, *revision, info);
            }
            Step::Limit { rate, unit, over } => self.limit(*rate, *unit, *over),
            Step::Counter { packets, bytes } => self.found.rule.counted = Some((*packets, *bytes)),
            Step::Log { prefix } if prefix.is_empty() => self.also("log".to_owned()),
            Step::Log { prefix } => self.also(format!("log \"{prefix}\"")),
            Step::Notrack => self.also("notrack".to_owned()),
            Step::MetaSet { key, from } => self.set_meta(*key, *from),
            Step::Nat { source, addr, ports } => self.nat(*source, *addr, *ports),
            Step::Redirect { ports } => {
                let ports = self.ports(*ports);
                self.act(Action::Redirect { ports });
            }
            Step::Masquerade => self.act(Action::Masquerade),
            Step::Reject => self.act(Action::Reject),
            Step::Queue => self.act(Action::Queue),
            Step::Verdict { code, chain } => self.act(verdict(*code, chain.as_deref())),
        }
    }

    fn act(&mut self, action: Action) {
        if action != Action::Continue {
            self.found.rule.action = action;
        }
    }

    fn also(&mut self, words: String) {
        self.found.rule.also.push(words);
    }

    fn ask(&mut self, not: bool, what: What) {
        match &what {
            What::IpVersion(version) if !not => self.version = Some(*version),
            What::Protocol(proto) if !not => self.proto = Some(*proto),
            _ => {}
        }
        self.found.rule.matches.push(Match { not, what });
    }

    fn load(&mut self, step: &Step) {
        self.low = None;
        let (field, len, into, constant) = match step {
            Step::Payload { base, offset, len, into } => {
                let field = Field::of_payload(self.version, (*base, *offset, *len), self.proto);
                (field, *len, *into, None)
            }
            Step::Meta { key, into } => {
                let field = Field::of_meta(*key);
                let len = field.len();
                (field, len, *into, None)
            }
            Step::Ct { key, into } => (Field::of_ct(*key), 4, *into, None),
            Step::Fib { result, flags, into } => (Field::of_fib(*result, *flags), 4, *into, None),
            Step::Immediate { into, value } => {
                let len = u32::try_from(value.len()).unwrap_or_default();
                (Field::Other("a constant".to_owned()), len, *into, Some(value.clone()))
            }
            Step::Other { name, into: Some(into) } => (Field::Other(name.clone()), 4, *into, None),
            Step::Other { name, into: None } => {
                return match is_harmless(name) {
                    true => self.also(name.clone()),
                    // It may decide, or be a match: nobody here knows.
                    false => self.ask(false, What::Other(name.clone())),
                };
            }
            _ => return,
        };
        self.words.insert(into, Loaded { field, len, mask: None, constant });
    }

    fn mask(&mut self, from: u32, into: u32, mask: &[u8], xor: &[u8]) {
        let Some(mut loaded) = self.words.get(&from).cloned() else { return };
        if loaded.mask.is_some() || xor.iter().any(|byte| *byte != 0) || mask.is_empty() {
            loaded.field = Field::Other(format!("{} after arithmetic", loaded.field));
        }
        loaded.mask = Some(mask.to_vec());
        self.words.insert(into, loaded);
    }

    fn at(&self, word: u32) -> Loaded {
        let unknown =
            Loaded { field: Field::Other("?".to_owned()), len: 4, mask: None, constant: None };
        self.words.get(&word).cloned().unwrap_or(unknown)
    }

    fn compare(&mut self, from: u32, op: u32, value: &[u8]) {
        let loaded = self.at(from);
        match op {
            EQ | NEQ => {
                let (inverted, what) = is(&loaded.field, loaded.mask.as_deref(), value);
                self.ask(inverted != (op == NEQ), what);
            }
            LTE if self.low.as_ref().is_some_and(|(at, ..)| *at == from) => {
                if let Some((_, low)) = self.low.take() {
                    self.found.rule.matches.pop();
                    self.ask(false, one_of(&loaded.field, &low, value));
                }
            }
            _ => {
                // What is at least this is mostly said to be at most that next.
                self.low = (op == GTE).then(|| (from, value.to_vec()));
                let sign = ["==", "!=", "<", "<=", ">", ">="].get(op as usize).unwrap_or(&"?");
                let (field, value) = (&loaded.field, loaded.field.spelled(value));
                self.ask(false, What::Other(format!("{field} {sign} {value}")));
            }
        }
    }

    fn range(&mut self, from: u32, not: bool, low: &[u8], high: &[u8]) {
        let field = self.at(from).field;
        self.ask(not, one_of(&field, low, high));
    }

    /// The fields that make up a key which begins at that word.
    fn key(&self, from: u32, len: u32) -> Vec<Loaded> {
        let mut fields = Vec::new();
        let mut at = from;
        while let Some(loaded) = self.words.get(&at) {
            fields.push(loaded.clone());
            at += loaded.len.div_ceil(4).max(1);
            if (at - from) * 4 >= len {
                break;
            }
        }
        fields
    }

    fn look_up(&mut self, name: &str, from: u32, not: bool) {
        let set = self.sets.get(name).copied();
        let key = self.key(from, set.map_or(0, |set| set.key_len));
        if let Some(set) = set.filter(|set| set.anonymous)
            && let Some(elements) = &set.elements
            && let Some(matches) = inline(&key, set.intervals, elements, not)
        {
            matches.into_iter().for_each(|one| self.ask(one.not, one.what));
            return;
        }
        self.ask(not, What::InSet { key: in_words(&key), set: name.to_owned() });
    }

    fn map(&mut self, name: &str, from: u32, into: u32) {
        let key = self.key(from, self.sets.get(name).map_or(0, |set| set.key_len));
        let words = in_words(&key);
        let used = MapUse { map: name.to_owned(), key, addr: None, port: None };
        if into == VERDICT {
            self.found.map = Some(used);
            self.act(Action::ByMap { key: words, map: name.to_owned(), does: MapDoes::Verdict });
            return;
        }
        let field = Field::Other(format!("{words} map @{name}"));
        self.words.insert(into, Loaded { field, len: 4, mask: None, constant: None });
        self.looked_up = Some((into, used, words));
    }

    fn nat(&mut self, source: bool, addr: Option<(u32, u32)>, ports: Option<(u32, u32)>) {
        if let Some((base, mut used, key)) = self.looked_up.take() {
            let offset = |word: u32| word.checked_sub(base).map(|words| words as usize * 4);
            let constant = |word: u32| self.words.get(&word).is_some_and(|w| w.constant.is_some());
            used.addr = addr.and_then(|(first, _)| offset(first));
            used.port = ports.map(|(first, _)| first).filter(|w| !constant(*w)).and_then(offset);
            let does = if source { MapDoes::Snat } else { MapDoes::Dnat };
            let map = used.map.clone();
            self.found.map = Some(used);
            return self.act(Action::ByMap { key, map, does });
        }
        let addr = addr.and_then(|(first, last)| {
            let value = |word| address(self.words.get(&word)?.constant.as_deref()?);
            Some((value(first)?, value(last)?))
        });
        let ports = self.ports(ports);
        self.act(match source {
            true => Action::Snat { addr, ports },
            false => Action::Dnat { addr, ports },
        });
    }

    fn ports(&self, words: Option<(u32, u32)>) -> Option<(u16, u16)> {
        let value = |word| {
            let bytes = self.words.get(&word)?.constant.as_deref()?;
            bytes.first_chunk().map(|bytes| u16::from_be_bytes(*bytes))
        };
        let (first, last) = words?;
        Some((value(first)?, value(last)?))
    }

    fn set_meta(&mut self, key: u32, from: u32) {
        let field = Field::of_meta(key);
        let to = self.words.get(&from).and_then(|word| word.constant.clone());
        let to = to.map_or_else(|| "…".to_owned(), |value| field.spelled(&value));
        self.also(format!("{field} set {to}"));
    }

    fn limit(&mut self, rate: u64, unit: u64, over: bool) {
        let unit = match unit {
            1 => "second".to_owned(),
            60 => "minute".to_owned(),
            3600 => "hour".to_owned(),
            86400 => "day".to_owned(),
            other => format!("{other} s"),
        };
        let over = if over { "over " } else { "" };
        self.ask(false, What::Other(format!("limit rate {over}{rate}/{unit}")));
    }

    fn xt(&mut self, target: bool, name: &str, revision: u32, info: &[u8]) {
        match (target, name) {
            (true, _) => match xt::target(self.family, name, revision, info) {
                Ok(action) => self.act(action),
                Err(words) => self.also(words),
            },
            (false, "comment") => self.found.rule.comment = Some(xt::comment(info)),
            (false, _) => {
                let matches = xt::matches(name, revision, info);
                matches.into_iter().for_each(|one| self.ask(one.not, one.what));
            }
        }
    }
}

/// Expressions that neither match nor decide.
fn is_harmless(name: &str) -> bool {
    matches!(name, "objref" | "last" | "dup" | "flow_offload" | "dynset" | "ct set" | "payload set")
}

/// `NF_*` and `NFT_*` verdicts.
pub(super) fn verdict(code: i32, chain: Option<&str>) -> Action {
    let chain = || chain.unwrap_or_default().to_owned();
    match code {
        0 => Action::Drop,
        1 => Action::Accept,
        3 => Action::Queue,
        -1 | -2 => Action::Continue, // NFT_CONTINUE, NFT_BREAK
        -3 => Action::Jump(chain()),
        -4 => Action::Goto(chain()),
        -5 => Action::Return,
        other => Action::Other(format!("verdict {other}")),
    }
}

/// An address of the rule's own.
pub(super) fn address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => Some(Ipv4Addr::from(*bytes.first_chunk::<4>()?).into()),
        16 => Some(Ipv6Addr::from(*bytes.first_chunk::<16>()?).into()),
        _ => None,
    }
}

fn in_words(key: &[Loaded]) -> String {
    let words: Vec<String> = key.iter().map(|loaded| loaded.field.to_string()).collect();
    words.join(" . ")
}

/// What an inline set asks for; `None` where that cannot be said as matches.
fn inline(
    key: &[Loaded],
    intervals: bool,
    elements: &[decoded::Element],
    not: bool,
) -> Option<Vec<Match>> {
    let [first] = key else {
        // Several fields at once: one element is as many matches, if it is not turned round.
        let [only] = elements else { return None };
        let parts = (!not).then(|| parts(key, &only.key))??;
        let last = only
            .last
            .as_ref()
            .map_or_else(|| Some(parts.clone()), |last| self::parts(key, last))?;
        let ends = key.iter().zip(parts.into_iter().zip(last));
        let matches = ends.map(|(loaded, (low, high))| one_of(&loaded.field, low, high));
        return Some(matches.map(|what| Match { not: false, what }).collect());
    };
    if first.mask.is_some() {
        return None;
    }
    let mut all: Vec<What> = spans(intervals, elements, first.len as usize)
        .iter()
        .map(|(low, high)| one_of(&first.field, low, high))
        .collect();
    let what = if all.len() == 1 { all.pop()? } else { What::AnyOf(all) };
    Some(vec![Match { not, what }])
}

/// Cuts a key into its fields, each of which was filled up to words.
pub(super) fn parts<'a>(key: &[Loaded], mut bytes: &'a [u8]) -> Option<Vec<&'a [u8]>> {
    let mut parts = Vec::with_capacity(key.len());
    for loaded in key {
        let len = loaded.len as usize;
        parts.push(bytes.get(..len)?);
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    Some(parts)
}

/// The first and last key of each element.
fn spans(intervals: bool, elements: &[decoded::Element], len: usize) -> Vec<(Vec<u8>, Vec<u8>)> {
    let own = |element: &decoded::Element| {
        let mut key = element.key.clone();
        key.truncate(len);
        key
    };
    // The kernel tells those of a hash table in no order.
    let mut sorted: Vec<&decoded::Element> = elements.iter().collect();
    sorted.sort_by_key(|element| (&element.key, !element.end));
    if !intervals {
        return sorted.iter().map(|element| (own(element), own(element))).collect();
    }
    let mut spans = Vec::new();
    for (n, element) in sorted.iter().enumerate().filter(|(_, element)| !element.end) {
        let next = sorted.get(n + 1).map(|next| before(own(next)));
        let last = element.last.clone().or(next).unwrap_or_else(|| vec![0xff; len]);
        spans.push((own(element), last));
    }
    spans
}

/// The number before a big-endian one.
fn before(mut bytes: Vec<u8>) -> Vec<u8> {
    for byte in bytes.iter_mut().rev() {
        let (less, borrowed) = byte.overflowing_sub(1);
        *byte = less;
        if !borrowed {
            break;
        }
    }
    bytes
}

/// Connection tracking's states in a mask (`NF_CT_STATE_*`).
pub(super) fn states(mask: u32) -> Vec<String> {
    let words = [(1, "invalid"), (2, "established"), (4, "related"), (8, "new"), (64, "untracked")];
    in_mask(mask, &words)
}

/// Connection tracking's status bits in a mask (`IPS_*`).
pub(super) fn statuses(mask: u32) -> Vec<String> {
    let words = [
        (1, "expected"),
        (2, "seen-reply"),
        (4, "assured"),
        (8, "confirmed"),
        (16, "snat"),
        (32, "dnat"),
        (512, "dying"),
    ];
    in_mask(mask, &words)
}

fn in_mask(mask: u32, words: &[(u32, &str)]) -> Vec<String> {
    let known = words.iter().filter(|(bit, _)| mask & bit > 0).map(|(_, word)| (*word).to_owned());
    let rest = mask & !words.iter().fold(0, |all, (bit, _)| all | bit);
    known.chain((rest > 0).then(|| format!("{rest:#x}"))).collect()
}
