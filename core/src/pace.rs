//! When to look at the host again: soon after something happened, seldom enough that looking costs
//! little, whatever goes on.
//!
//! Times are microseconds from any beginning.

/// What happens together is looked at together.
pub const TOGETHER_US: u64 = 40_000;
/// Looks begin at least so far apart.
pub const APART_US: u64 = 200_000;
/// After a look nothing is done for so many times as long as it took: a quarter of one CPU.
pub const REST: u64 = 3;
/// After the last look that was called for comes one more: what follows a new cable without an
/// event, such as a server that begins to listen or a name in a runtime's file, is there by then.
pub const AFTERMATH_US: u64 = 1_000_000;
/// While nothing happens, what has no events is looked for every half minute, or more seldom: the
/// look takes no more than the 400th part of the time.
pub const IDLE_US: u64 = 30_000_000;
const IDLE_TIMES: u64 = 400;

/// Decides when to look.
#[derive(Clone, Debug, Default)]
pub struct Pace {
    /// When the first thing happened that nobody has looked at.
    stirred: Option<u64>,
    /// When the last look began and ended.
    looked: Option<(u64, u64)>,
    /// Whether that one was called for.
    was_called: bool,
}

impl Pace {
    /// Something happened.
    pub fn stir(&mut self, now_us: u64) {
        self.stirred.get_or_insert(now_us);
    }

    /// Whether something happened that nobody has looked at; what happens then changes nothing.
    pub fn is_stirred(&self) -> bool {
        self.stirred.is_some()
    }

    /// A look begins that is to see all that happened until now.
    pub fn begin(&mut self, now_us: u64) {
        self.was_called = self.stirred.take().is_some() || self.looked.is_none();
        self.looked = Some((now_us, now_us));
    }

    /// The look has ended.
    pub fn end(&mut self, now_us: u64) {
        if let Some((_, ended)) = &mut self.looked {
            *ended = now_us;
        }
    }

    /// When the next look is to begin.
    pub fn due_us(&self) -> u64 {
        let Some((began, ended)) = self.looked else { return 0 };
        let cost = ended.saturating_sub(began);
        let rested = ended.saturating_add(cost.saturating_mul(REST)).max(began + APART_US);
        match self.stirred {
            Some(at) => rested.max(at.saturating_add(TOGETHER_US)),
            None if self.was_called => rested.max(ended.saturating_add(AFTERMATH_US)),
            None => ended.saturating_add(IDLE_US.max(cost.saturating_mul(IDLE_TIMES))),
        }
    }
}
