//! Injected failures, by seed: throttling and broken connections before a call, lost answers after it. The
//! n-th call of an operation fails or not by a hash of (seed, operation, n), so a run can be repeated.

use std::collections::HashMap;
use std::sync::Mutex;

use sha2::{Digest as _, Sha256};

use crate::providers::error::{ErrorKind, ProviderError};

/// Which failures to inject.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Faults {
    /// The seed.
    pub seed: u64,
    /// Share of calls that fail, from 0 to 1.
    pub rate: f64,
}

pub(super) struct Injector {
    faults: Faults,
    calls: Mutex<HashMap<&'static str, u64>>,
}

/// What happens to one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Works,
    FailsBefore(ErrorKind),
    LosesAnswer,
}

impl Injector {
    pub(super) fn new(faults: Faults) -> Self {
        Self { faults, calls: Mutex::default() }
    }

    /// The fate of the next call of an operation.
    pub(super) fn next(&self, operation: &'static str) -> Fate {
        if self.faults.rate <= 0.0 {
            return Fate::Works;
        }
        let mut calls = self.calls.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let count = calls.entry(operation).or_default();
        *count += 1;
        let mut hash = Sha256::new();
        hash.update(self.faults.seed.to_le_bytes());
        hash.update(operation.as_bytes());
        hash.update(count.to_le_bytes());
        let bytes = hash.finalize();
        let draw =
            f64::from(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])) / f64::from(u32::MAX);
        if draw >= self.faults.rate {
            return Fate::Works;
        }
        match bytes[4] % 3 {
            0 => Fate::FailsBefore(ErrorKind::Throttled),
            1 => Fate::FailsBefore(ErrorKind::Transient),
            _ => Fate::LosesAnswer,
        }
    }

    /// A read that may fail.
    pub(super) fn read(&self, operation: &'static str) -> Result<(), ProviderError> {
        match self.next(operation) {
            Fate::Works => Ok(()),
            Fate::FailsBefore(kind) => Err(injected(kind, operation)),
            Fate::LosesAnswer => Err(injected(ErrorKind::Transient, operation)),
        }
    }

    /// A write that may fail before its effect, or lose its answer after it.
    pub(super) fn write<T>(
        &self,
        operation: &'static str,
        effect: impl FnOnce() -> Result<T, ProviderError>,
    ) -> Result<T, ProviderError> {
        match self.next(operation) {
            Fate::Works => effect(),
            Fate::FailsBefore(kind) => Err(injected(kind, operation)),
            Fate::LosesAnswer => {
                effect()?;
                Err(injected(ErrorKind::Transient, operation))
            }
        }
    }
}

fn injected(kind: ErrorKind, operation: &str) -> ProviderError {
    let message = match kind {
        ErrorKind::Throttled => "RequestLimitExceeded (injected)",
        _ => "the connection broke before the answer came (injected)",
    };
    ProviderError::new(kind, operation, message)
}
