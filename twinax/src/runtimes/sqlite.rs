//! An SQLite database, as far as it has to be read: the rows of a table, as they were in the file
//! at one moment (the file format is documented at <https://www.sqlite.org/fileformat2.html>).
//!
//! The file is pages. The first has the schema, a table of tables, each with the page of its root;
//! from there a tree of pages leads to cells, and a long one goes on in a chain of other pages. A
//! transaction that is being written may be read half; so every number is doubted, and each page
//! belongs to one place only ([`PAGES`] bounds what a knot may cost).

const MAGIC: &[u8] = b"SQLite format 3\0";
/// An inner page of a table's tree, and a leaf.
const INNER: u8 = 0x05;
const LEAF: u8 = 0x0d;
/// Deeper trees are knots.
const DEPTH: u32 = 20;
/// More pages than this are not read of a table.
const PAGES: u32 = 65_536;
/// Longer rows are not a record of one container.
const ROW: usize = 1 << 20;

/// A value of a row; numbers are of no interest.
pub(super) type Value = Option<Vec<u8>>;

/// A database's bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sqlite<'a> {
    bytes: &'a [u8],
    page: usize,
    /// What of each page is in use.
    usable: usize,
}

impl<'a> Sqlite<'a> {
    /// Takes a database that is written in UTF-8; `None` if it is none.
    pub(super) fn open(bytes: &'a [u8]) -> Option<Self> {
        if !bytes.starts_with(MAGIC) || number(bytes, 56, 4)? != 1 {
            return None;
        }
        let page = match number(bytes, 16, 2)? {
            1 => 65_536,
            page => page,
        };
        let usable = page.checked_sub(number(bytes, 20, 1)?)?;
        (page.is_power_of_two() && usable >= 480).then_some(Self { bytes, page, usable })
    }

    /// The rows of a table, without those that cannot be read.
    pub(super) fn rows(self, table: &str) -> Vec<Vec<Value>> {
        // type, name, tbl_name, rootpage, sql
        let is_it = |cells: &&Cells| {
            cells.text(0) == Some(b"table") && cells.text(1) == Some(table.as_bytes())
        };
        let schema = self.cells(1);
        let root = schema.iter().find(is_it).and_then(|cells| cells.integer(3));
        let rows = root.map(|root| self.cells(root)).unwrap_or_default();
        rows.into_iter().map(Cells::values).collect()
    }

    fn cells(self, root: usize) -> Vec<Cells> {
        let (mut found, mut budget) = (Vec::new(), PAGES);
        self.walk(root, DEPTH, &mut budget, &mut found);
        found
    }

    /// Page `number`, counted from 1, and where its own header begins.
    fn page(self, number: usize) -> Option<(&'a [u8], usize)> {
        let start = number.checked_sub(1)?.checked_mul(self.page)?;
        let page = self.bytes.get(start..start.checked_add(self.usable)?)?;
        Some((page, if number == 1 { 100 } else { 0 }))
    }

    fn walk(self, number_of: usize, depth: u32, budget: &mut u32, found: &mut Vec<Cells>) {
        if depth == 0 || *budget == 0 {
            return;
        }
        *budget -= 1;
        let Some((page, start)) = self.page(number_of) else { return };
        let (kind, count) = (number(page, start, 1), number(page, start + 3, 2).unwrap_or(0));
        let is_inner = kind == Some(INNER.into());
        if !is_inner && kind != Some(LEAF.into()) {
            return;
        }
        let pointers = start + if is_inner { 12 } else { 8 };
        for at in (0..count).map_while(|n| number(page, pointers + 2 * n, 2)) {
            if is_inner {
                let child = number(page, at, 4).unwrap_or(0);
                self.walk(child, depth - 1, budget, found);
            } else {
                found.extend(self.payload(page, at, budget).and_then(Cells::read));
            }
        }
        if is_inner {
            let last = number(page, start + 8, 4).unwrap_or(0);
            self.walk(last, depth - 1, budget, found);
        }
    }

    /// A leaf's cell: how long it is, its row's number, and as much of it as fits; the rest is
    /// elsewhere.
    fn payload(self, page: &[u8], at: usize, budget: &mut u32) -> Option<Vec<u8>> {
        let (length, size) = varint(page.get(at..)?)?;
        let (_, key) = varint(page.get(at + size..)?)?;
        let (length, start) = (usize::try_from(length).ok()?, at + size + key);
        if length > ROW {
            return None;
        }
        let most = self.usable - 35;
        if length <= most {
            return Some(page.get(start..start + length)?.to_vec());
        }
        let least = (self.usable - 12) * 32 / 255 - 23;
        let fitting = least + (length - least) % (self.usable - 4);
        let here = if fitting <= most { fitting } else { least };
        let mut payload = page.get(start..start + here)?.to_vec();
        let mut next = number(page, start + here, 4)?;
        while payload.len() < length {
            *budget = budget.checked_sub(1)?;
            let (page, _) = self.page(next)?;
            let left = (length - payload.len()).min(self.usable - 4);
            payload.extend(page.get(4..4 + left)?);
            next = number(page, 0, 4)?;
        }
        Some(payload)
    }
}

/// A row: what kind each of its values is, and where it lies.
#[derive(Debug)]
struct Cells {
    payload: Vec<u8>,
    /// Kind, start and length.
    columns: Vec<(u64, usize, usize)>,
}

impl Cells {
    fn read(payload: Vec<u8>) -> Option<Self> {
        let (header, mut at) = varint(&payload)?;
        let header = usize::try_from(header).ok().filter(|header| *header <= payload.len())?;
        let (mut columns, mut start) = (Vec::new(), header);
        while at < header {
            let (kind, size) = varint(payload.get(at..header)?)?;
            let length = match kind {
                0 | 8 | 9 => 0,
                1..=4 => usize::try_from(kind).ok()?,
                5 => 6,
                6 | 7 => 8,
                10 | 11 => return None,
                // From 12 on bytes (even) and text (odd).
                text => usize::try_from((text - 12) / 2).ok()?,
            };
            columns.push((kind, start, length));
            (at, start) = (at + size, start.checked_add(length)?);
        }
        (start <= payload.len()).then_some(Self { payload, columns })
    }

    fn text(&self, column: usize) -> Option<&[u8]> {
        let (kind, start, length) = *self.columns.get(column)?;
        (kind >= 12).then(|| self.payload.get(start..start + length))?
    }

    /// A number that is not negative.
    fn integer(&self, column: usize) -> Option<usize> {
        match *self.columns.get(column)? {
            (8, ..) => Some(0),
            (9, ..) => Some(1),
            (1..=6, start, length) => number(&self.payload, start, length),
            _ => None,
        }
    }

    fn values(self) -> Vec<Value> {
        (0..self.columns.len()).map(|n| self.text(n).map(<[u8]>::to_vec)).collect()
    }
}

/// A number of `size` bytes, the highest first.
fn number(bytes: &[u8], at: usize, size: usize) -> Option<usize> {
    let bytes = bytes.get(at..at.checked_add(size)?)?;
    Some(bytes.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)))
}

/// A number of one to nine bytes, seven bits in each but the ninth, and how many those are.
fn varint(bytes: &[u8]) -> Option<(u64, usize)> {
    let mut sum = 0;
    for (n, byte) in bytes.iter().take(9).enumerate() {
        if n == 8 {
            return Some((sum << 8 | u64::from(*byte), 9));
        }
        sum = sum << 7 | u64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            return Some((sum, n + 1));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_as_many_bytes_as_they_need() {
        assert_eq!(varint(&[0x7f]), Some((127, 1)));
        assert_eq!(varint(&[0x81, 0x00, 9]), Some((128, 2)));
        assert_eq!(varint(&[0xff; 9]), Some((u64::MAX, 9)));
        assert_eq!(varint(&[0xff; 8]), None);
        assert_eq!(varint(&[]), None);
    }

    #[test]
    fn what_is_no_database_has_no_rows() {
        assert!(Sqlite::open(b"").is_none());
        assert!(Sqlite::open(&[0; 4096]).is_none());
        let mut bytes = [MAGIC, &[0; 4080]].concat();
        bytes[59] = 1;
        for (high, low) in [(0, 0), (0, 3), (1, 0), (0xff, 0xff)] {
            (bytes[16], bytes[17]) = (high, low);
            assert!(Sqlite::open(&bytes).is_none(), "{high} {low}");
        }
        bytes[16] = 0x10;
        bytes[17] = 0;
        let empty = Sqlite::open(&bytes).unwrap();
        assert_eq!(empty.rows("ContainerConfig"), Vec::<Vec<Value>>::new());
    }
}
