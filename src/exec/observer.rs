//! What an apply tells the outside while it runs. The names and fields are the `--format jsonl` events.

use std::sync::Mutex;

use serde::Serialize;

use crate::plan::Action;
use crate::value::Address;

/// One fact.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The run begins.
    RunStarted {
        /// Its id.
        run: String,
        /// How many steps act.
        steps: usize,
    },
    /// A step begins.
    StepStarted {
        /// Which.
        step: Address,
        /// What it does.
        action: Action,
    },
    /// A step says what it is doing.
    StepProgress {
        /// Which.
        step: Address,
        /// What.
        message: String,
    },
    /// A step failed in a way that may pass, and is tried again.
    StepRetried {
        /// Which.
        step: Address,
        /// Number of the coming try, from 2.
        attempt: u32,
        /// What went wrong.
        error: String,
        /// The wait before it, in milliseconds.
        wait_ms: u64,
    },
    /// A step is done.
    StepDone {
        /// Which.
        step: Address,
        /// What was done; `no-op` when it turned out not to be needed.
        action: Action,
    },
    /// A step failed.
    StepFailed {
        /// Which.
        step: Address,
        /// The diagnostic's code.
        code: String,
        /// What went wrong.
        error: String,
    },
    /// A step was not begun.
    StepSkipped {
        /// Which.
        step: Address,
        /// Why.
        reason: String,
    },
    /// The run is over.
    RunEnded {
        /// Its id.
        run: String,
        /// `done`, `failed`, `refused`, `interrupted`.
        status: String,
        /// Steps done.
        done: usize,
        /// Steps failed.
        failed: usize,
        /// Steps not begun.
        skipped: usize,
    },
}

/// Takes facts.
pub trait Observer: Send + Sync {
    /// Called in the order in which things happen.
    fn event(&self, event: &Event);
}

/// Keeps events, for tests.
#[derive(Debug, Default)]
pub struct Recording(Mutex<Vec<Event>>);

impl Recording {
    /// What happened so far.
    #[must_use]
    pub fn events(&self) -> Vec<Event> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }
}

impl Observer for Recording {
    fn event(&self, event: &Event) {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(event.clone());
    }
}
