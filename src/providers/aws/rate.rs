//! How many calls per second: a bucket of tokens that fills at a rate, which drops when the service throttles and grows back
//! slowly (additive increase, multiplicative decrease, as TCP does).

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// A rate never drops below this many per second.
const LEAST: f64 = 8.0;

/// Calls that may be made at once after a pause, in seconds of the rate.
const BURST: f64 = 0.25;

struct Bucket {
    tokens: f64,
    rate: f64,
    filled: Instant,
    slowed: Instant,
}

/// A limit on calls per second.
pub(crate) struct Rate {
    most: f64,
    bucket: Mutex<Bucket>,
}

impl Rate {
    /// At most so many per second.
    pub(crate) fn new(per_second: u32) -> Self {
        let most = f64::from(per_second);
        let now = Instant::now();
        Self {
            most,
            bucket: Mutex::new(Bucket { tokens: most * BURST, rate: most, filled: now, slowed: now }),
        }
    }

    /// Takes a token, or says how long to wait for one.
    fn take(&self, now: Instant) -> Option<Duration> {
        let mut bucket = self.bucket.lock().unwrap_or_else(PoisonError::into_inner);
        let passed = now.duration_since(bucket.filled).as_secs_f64();
        // A tenth of the allowed rate comes back per second.
        bucket.rate = (bucket.rate + passed * self.most / 10.0).min(self.most);
        bucket.tokens = (bucket.tokens + passed * bucket.rate).min((bucket.rate * BURST).max(1.0));
        bucket.filled = now;
        if bucket.tokens >= 1.0 {
            bucket.tokens -= 1.0;
            return None;
        }
        Some(Duration::from_secs_f64((1.0 - bucket.tokens) / bucket.rate))
    }

    /// Waits for the next call's turn.
    pub(crate) async fn turn(&self) {
        while let Some(wait) = self.take(Instant::now()) {
            tokio::time::sleep(wait).await;
        }
    }

    /// The service throttled: half the rate. Many answers at once to calls of one moment count once.
    pub(crate) fn slow_down(&self) {
        let mut bucket = self.bucket.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if now.duration_since(bucket.slowed) < Duration::from_millis(500) {
            return;
        }
        bucket.rate = (bucket.rate / 2.0).max(LEAST);
        bucket.tokens = 0.0;
        bucket.slowed = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many turns there are in a span, asked for at each of its milliseconds.
    fn turns(rate: &Rate, from: Instant, millis: u64) -> u32 {
        (0..millis).map(|at| u32::from(rate.take(from + Duration::from_millis(at)).is_none())).sum()
    }

    #[tokio::test]
    async fn the_rate_holds_drops_by_half_and_comes_back() {
        let rate = Rate::new(100);
        let start = Instant::now();
        // The burst of a quarter of a second, then the rate.
        let first = turns(&rate, start, 1000);
        assert!((120..=126).contains(&first), "{first}");
        {
            let mut bucket = rate.bucket.lock().unwrap();
            bucket.slowed = start - Duration::from_secs(1);
        }
        rate.slow_down();
        let slowed = rate.bucket.lock().unwrap().rate;
        assert!((49.0..=51.0).contains(&slowed), "{slowed}");
        rate.slow_down();
        assert!(
            (rate.bucket.lock().unwrap().rate - slowed).abs() < 1.0,
            "throttled twice at once counts once"
        );
        rate.take(start + Duration::from_secs(60));
        assert!((rate.bucket.lock().unwrap().rate - 100.0).abs() < f64::EPSILON);
    }
}
