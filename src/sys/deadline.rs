//! A point on the monotonic clock by which a call has to be over; made once at entry and handed down.

use std::time::{Duration, Instant};

/// When a call has to be over, or never.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadline(Option<Instant>);

impl Deadline {
    /// No limit at all.
    pub const NEVER: Self = Self(None);

    /// `span` from now; a span too long for the clock is no limit.
    pub fn after(span: Duration) -> Self {
        Self(Instant::now().checked_add(span))
    }

    /// What is left, zero once it has passed, `None` when there is no limit.
    pub fn remaining(self) -> Option<Duration> {
        self.0.map(|at| at.saturating_duration_since(Instant::now()))
    }

    /// Whether the time is up.
    pub fn has_passed(self) -> bool {
        self.remaining() == Some(Duration::ZERO)
    }

    /// The one that comes first.
    #[must_use]
    pub fn or_sooner(self, other: Self) -> Self {
        match (self.0, other.0) {
            (Some(a), Some(b)) => Self(Some(a.min(b))),
            (a, b) => Self(a.or(b)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_too_long_for_the_clock_is_no_limit() {
        assert_eq!(Deadline::after(Duration::MAX), Deadline::NEVER);
        assert_eq!(Deadline::after(Duration::MAX).remaining(), None);
    }

    #[test]
    fn a_zero_span_has_passed_at_once() {
        assert!(Deadline::after(Duration::ZERO).has_passed());
        assert!(!Deadline::NEVER.has_passed());
    }

    #[test]
    fn the_sooner_of_two_wins_and_any_limit_beats_none() {
        let soon = Deadline::after(Duration::from_secs(1));
        let late = Deadline::after(Duration::from_secs(9));
        assert_eq!(soon.or_sooner(late), soon);
        assert_eq!(Deadline::NEVER.or_sooner(late), late);
    }
}
