//! L0: quantities with their units, so that no bare integer crosses a function boundary.
//!
//! Never converts silently between units: GiB are 2^30 bytes, and a duration is whole seconds.

#![deny(clippy::disallowed_methods)]

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A size in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Bytes(pub u64);

/// A size in GiB (2^30 bytes), the unit EBS sells volumes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct GiB(pub u64);

/// A duration in whole seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Seconds(pub u64);

impl GiB {
    /// The smallest whole number of GiB that holds `bytes`.
    #[must_use]
    pub fn holding(bytes: Bytes) -> Self {
        Self(bytes.0.div_ceil(1 << 30))
    }
}

impl Seconds {
    /// The same span as a standard library duration.
    #[must_use]
    pub fn duration(self) -> Duration {
        Duration::from_secs(self.0)
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(&str, u32); 4] = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];
        for (unit, shift) in UNITS {
            if self.0 >= 1 << shift {
                // One decimal is enough to compare sizes; the loss of precision is the point.
                #[allow(clippy::cast_precision_loss)]
                let scaled = self.0 as f64 / f64::from(shift).exp2();
                return write!(f, "{scaled:.1} {unit}");
            }
        }
        write!(f, "{} B", self.0)
    }
}

impl fmt::Display for GiB {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} GiB", self.0)
    }
}

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (days, hours, minutes, seconds) =
            (self.0 / 86_400, self.0 / 3_600 % 24, self.0 / 60 % 60, self.0 % 60);
        match (days, hours, minutes) {
            (0, 0, 0) => write!(f, "{seconds}s"),
            (0, 0, _) if seconds == 0 => write!(f, "{minutes}m"),
            (0, 0, _) => write!(f, "{minutes}m{seconds}s"),
            (0, _, 0) => write!(f, "{hours}h"),
            (0, _, _) => write!(f, "{hours}h{minutes}m"),
            (_, 0, _) => write!(f, "{days}d"),
            _ => write!(f, "{days}d{hours}h"),
        }
    }
}

/// Why a text is not a duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a duration: write whole seconds or a number with one of s, m, h, d, like \"90s\" or \"2h\""
)]
pub struct NotADuration(String);

impl FromStr for Seconds {
    type Err = NotADuration;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refuse = || NotADuration(text.to_owned());
        let (digits, factor) = match text.char_indices().next_back() {
            Some((at, 's')) => (&text[..at], 1),
            Some((at, 'm')) => (&text[..at], 60),
            Some((at, 'h')) => (&text[..at], 3_600),
            Some((at, 'd')) => (&text[..at], 86_400),
            Some((_, last)) if last.is_ascii_digit() => (text, 1),
            _ => return Err(refuse()),
        };
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(refuse());
        }
        digits.parse::<u64>().ok().and_then(|count| count.checked_mul(factor)).map(Self).ok_or_else(refuse)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_back() {
        for (text, seconds) in [("90", 90), ("90s", 90), ("15m", 900), ("2h", 7_200), ("1d", 86_400)] {
            assert_eq!(text.parse(), Ok(Seconds(seconds)), "{text}");
        }
        for text in ["", "s", "-1s", "1.5h", "99999999999999999999d", "1w"] {
            assert!(text.parse::<Seconds>().is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_print_in_the_largest_fitting_unit() {
        assert_eq!(Bytes(512).to_string(), "512 B");
        assert_eq!(Bytes(3 << 30).to_string(), "3.0 GiB");
        assert_eq!(GiB::holding(Bytes((3 << 30) + 1)), GiB(4));
        assert_eq!(Seconds(93_600).to_string(), "1d2h");
    }
}
