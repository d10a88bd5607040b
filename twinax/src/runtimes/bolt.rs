//! A bbolt database, as far as it has to be read: buckets, keys and values of one moment.
//!
//! The file is pages. Page 0 and 1 say where the root is, the later transaction's in turn; the
//! rest are a tree of branches and leaves, in which a value may be a bucket with a root of its
//! own, or a leaf written in its place. Pages of a transaction that ended are not overwritten
//! before a later one's end, so a copy of the file is read; every number in it is doubted.

const MAGIC: u32 = 0xED0C_DAED;
const BRANCH: u16 = 1;
const LEAF: u16 = 2;
/// A leaf's entry that is a bucket.
const BUCKET: u32 = 1;
/// Deeper trees are knots.
const DEPTH: u32 = 32;
/// More entries than this are not read from a bucket.
const ENTRIES: usize = 65_536;

/// A database's bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bolt<'a> {
    bytes: &'a [u8],
    page: usize,
    root: u64,
}

/// What a key leads to.
#[derive(Clone, Debug)]
pub(super) enum Entry<'a> {
    Value(&'a [u8]),
    Bucket(Bucket<'a>),
}

/// A bucket.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bucket<'a> {
    bolt: Bolt<'a>,
    root: u64,
    /// The leaf that is written where a small bucket's root would be.
    inline: &'a [u8],
}

impl<'a> Bolt<'a> {
    /// Finds the later of the two beginnings.
    pub(super) fn open(bytes: &'a [u8]) -> Option<Self> {
        let page = usize::try_from(u32_at(bytes, 24)?).ok()?;
        let page = if (512..=65536).contains(&page) { page } else { 4096 };
        let metas = [0, page].into_iter().filter_map(|at| {
            let meta = bytes.get(at + 16..)?;
            let whole = u32_at(meta, 0)? == MAGIC && fnv1a(meta.get(..56)?) == u64_at(meta, 56)?;
            whole.then_some((u64_at(meta, 48)?, u64_at(meta, 16)?))
        });
        let (_, root) = metas.max()?;
        Some(Self { bytes, page, root })
    }

    /// The bucket that holds all others.
    pub(super) fn root(self) -> Bucket<'a> {
        Bucket { bolt: self, root: self.root, inline: &[] }
    }

    fn page(self, id: u64) -> &'a [u8] {
        let at = usize::try_from(id).ok().and_then(|id| id.checked_mul(self.page));
        at.and_then(|at| self.bytes.get(at..)).unwrap_or_default()
    }
}

impl<'a> Bucket<'a> {
    /// The bucket called `name` in this one.
    pub(super) fn bucket(&self, name: &[u8]) -> Option<Self> {
        self.entries().into_iter().find_map(|(key, entry)| match entry {
            Entry::Bucket(bucket) if key == name => Some(bucket),
            _ => None,
        })
    }

    /// The value called `name` in this bucket.
    pub(super) fn value(&self, name: &[u8]) -> Option<&'a [u8]> {
        self.entries().into_iter().find_map(|(key, entry)| match entry {
            Entry::Value(value) if key == name => Some(value),
            _ => None,
        })
    }

    /// Everything in it, in the order of keys.
    pub(super) fn entries(&self) -> Vec<(&'a [u8], Entry<'a>)> {
        let mut found = Vec::new();
        let first = if self.root == 0 { self.inline } else { self.bolt.page(self.root) };
        let mut budget = ENTRIES;
        walk(self.bolt, first, DEPTH, &mut budget, &mut found);
        found
    }
}

fn walk<'a>(
    bolt: Bolt<'a>,
    page: &'a [u8],
    depth: u32,
    budget: &mut usize,
    found: &mut Vec<(&'a [u8], Entry<'a>)>,
) {
    let (Some(flags), Some(count)) = (u16_at(page, 8), u16_at(page, 10)) else { return };
    for n in 0..usize::from(count) {
        if depth == 0 || *budget == 0 {
            return;
        }
        *budget -= 1;
        let at = 16 + 16 * n;
        let Some(element) = page.get(at..) else { return };
        if flags & BRANCH != 0 {
            let Some(child) = u64_at(element, 8) else { return };
            walk(bolt, bolt.page(child), depth - 1, budget, found);
        } else if flags & LEAF != 0 {
            found.extend(leaf(bolt, element));
        }
    }
}

fn leaf<'a>(bolt: Bolt<'a>, element: &'a [u8]) -> Option<(&'a [u8], Entry<'a>)> {
    let size = |at| usize::try_from(u32_at(element, at)?).ok();
    let (start, key_len, value_len) = (size(4)?, size(8)?, size(12)?);
    let key = element.get(start..start.checked_add(key_len)?)?;
    let value = element.get(start + key_len..)?.get(..value_len)?;
    if u32_at(element, 0)? & BUCKET == 0 {
        return Some((key, Entry::Value(value)));
    }
    let bucket = Bucket { bolt, root: u64_at(value, 0)?, inline: value.get(16..)? };
    Some((key, Entry::Bucket(bucket)))
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..)?.first_chunk().copied()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..)?.first_chunk().copied()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..)?.first_chunk().copied()?))
}

fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
