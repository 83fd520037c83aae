//! When to try again, and how long to wait: full jitter over an exponential bound, by error kind.
//!
//! The bound doubles with each try up to a maximum; the wait is a uniform draw below it ("full jitter"), so that
//! many steps that were throttled together do not come back together.

use std::time::Duration;

use crate::providers::ErrorKind;

/// Tries after the first when neither step nor profile say otherwise.
pub const DEFAULT_RETRIES: u32 = 8;

const FIRST: Duration = Duration::from_millis(500);
const FIRST_THROTTLED: Duration = Duration::from_secs(2);
const LONGEST: Duration = Duration::from_secs(60);

/// The wait before try number `attempt` (from 1), or `None` when trying again is no use.
#[must_use]
pub fn backoff(kind: ErrorKind, attempt: u32, retries: u32, random: f64) -> Option<Duration> {
    if !kind.is_retryable() || attempt > retries {
        return None;
    }
    let first = if kind == ErrorKind::Throttled { FIRST_THROTTLED } else { FIRST };
    let bound = first.saturating_mul(1 << attempt.saturating_sub(1).min(16)).min(LONGEST);
    Some(bound.mul_f64(random.clamp(0.0, 1.0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_bound_and_end() {
        let at = |attempt| backoff(ErrorKind::Transient, attempt, 20, 1.0);
        assert_eq!(at(1), Some(FIRST));
        assert_eq!(at(2), Some(FIRST * 2));
        assert_eq!(at(20), Some(LONGEST));
        assert_eq!(at(21), None);
        assert_eq!(backoff(ErrorKind::Throttled, 1, 1, 0.5), Some(FIRST_THROTTLED / 2));
    }

    #[test]
    fn what_will_fail_again_is_not_tried_again() {
        for kind in [ErrorKind::Permanent, ErrorKind::Refused, ErrorKind::TimedOut] {
            assert_eq!(backoff(kind, 1, 5, 0.5), None);
        }
    }
}
