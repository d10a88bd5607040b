//! What goes over links a second, from what their counters say at two moments.

use std::{collections::BTreeMap, fmt};

use crate::{model::LinkId, sight::Counters};

/// What went over each link a second, of those that were read twice.
pub type Rates = BTreeMap<LinkId, Rate>;

/// What goes over a link, as that link has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rate {
    /// Bytes a second that come in.
    pub rx_bytes: u64,
    /// Bytes a second that go out.
    pub tx_bytes: u64,
}

impl Rate {
    /// Returns what went over a link a second between two readings, `elapsed_us` microseconds
    /// apart. `None` where nobody can tell: no time between them, or counters that began anew, as
    /// those of another link by the same name do.
    pub fn between(before: &Counters, after: &Counters, elapsed_us: u64) -> Option<Self> {
        let speed = |before: u64, after: u64| {
            let bytes = u128::from(after.checked_sub(before)?);
            let rate = bytes.saturating_mul(1_000_000).checked_div(elapsed_us.into())?;
            Some(u64::try_from(rate).unwrap_or(u64::MAX))
        };
        Some(Self {
            rx_bytes: speed(before.rx_bytes, after.rx_bytes)?,
            tx_bytes: speed(before.tx_bytes, after.tx_bytes)?,
        })
    }

    /// The same as the other end of a cable has it.
    pub fn turned(self) -> Self {
        Self { rx_bytes: self.tx_bytes, tx_bytes: self.rx_bytes }
    }

    /// Whether nothing goes over it.
    pub fn is_idle(&self) -> bool {
        self.rx_bytes == 0 && self.tx_bytes == 0
    }
}

/// In bytes a second; always as wide, so that columns of them hold still.
impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (down, up) = (humanised(self.rx_bytes), humanised(self.tx_bytes));
        f.pad(&format!("↓{down:>4} ↑{up:>4} B/s"))
    }
}

/// Returns a number in four characters or less, rounded down: `999`, `1.2k`, `34M`, by powers of
/// 1,000.
pub fn humanised(number: u64) -> String {
    const UNITS: [char; 6] = ['k', 'M', 'G', 'T', 'P', 'E'];
    if number < 1000 {
        return number.to_string();
    }
    let (mut unit, mut tenths) = (0, number / 100);
    while tenths >= 10_000 {
        unit += 1;
        tenths /= 1000;
    }
    match tenths {
        0..100 => format!("{}.{}{}", tenths / 10, tenths % 10, UNITS[unit]),
        _ => format!("{}{}", tenths / 10, UNITS[unit]),
    }
}

/// Makes rates of readings that come one after the other.
#[derive(Clone, Debug, Default)]
pub struct Meter {
    last: BTreeMap<LinkId, Counters>,
    last_us: Option<u64>,
}

impl Meter {
    /// Takes what all counters say at `now_us`, a time in microseconds from any beginning. A link
    /// that is in no two readings in a row has no rate.
    pub fn read(&mut self, now_us: u64, counters: BTreeMap<LinkId, Counters>) -> Rates {
        let elapsed = self.last_us.map_or(0, |last| now_us.saturating_sub(last));
        let rate = |(id, after): (&LinkId, &Counters)| {
            Some((id.clone(), Rate::between(self.last.get(id)?, after, elapsed)?))
        };
        let rates = counters.iter().filter_map(rate).collect();
        (self.last, self.last_us) = (counters, Some(now_us));
        rates
    }
}
