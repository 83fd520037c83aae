//! What goes into an apply and what comes out of it.

use std::collections::BTreeMap;

use crate::diagnostic::{Code, Diagnostic};
use crate::plan::Action;
use crate::plan::budget::Cost;
use crate::primitives::Port;
use crate::value::{Address, Value};

/// How to apply.
#[derive(Debug, Clone)]
pub struct Options {
    /// The run's id.
    pub run: String,
    /// Steps at once.
    pub parallelism: usize,
    /// Steps at once per port.
    pub per_port: BTreeMap<Port, usize>,
    /// Start nothing new after the first failure.
    pub fail_fast: bool,
    /// What earlier processes of the same run already spent of the budget.
    pub spent: Vec<Cost>,
}

/// What a person has asked for while it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Interrupt {
    /// Nothing.
    None,
    /// Finish what runs, start nothing new.
    Finish,
    /// Stop at once.
    Abort,
}

/// How one step ended.
#[derive(Debug, Clone, PartialEq)]
pub enum StepResult {
    /// Nothing was to do.
    NoOp,
    /// Something was done.
    Done(Action),
    /// It failed.
    Failed(Box<Diagnostic>),
    /// It was not begun.
    Skipped(String),
}

/// What an apply did.
#[derive(Debug)]
pub struct Applied {
    /// One per step, in plan order.
    pub results: Vec<(Address, StepResult)>,
    /// The plan's outputs as far as they are known.
    pub outputs: Value,
    /// Whether a person interrupted it.
    pub interrupted: bool,
}

impl Applied {
    /// The failures.
    pub fn failures(&self) -> impl Iterator<Item = &Diagnostic> {
        self.results.iter().filter_map(|(_, result)| match result {
            StepResult::Failed(diagnostic) => Some(&**diagnostic),
            _ => None,
        })
    }

    /// How many steps were done.
    #[must_use]
    pub fn done(&self) -> usize {
        self.results.iter().filter(|(_, result)| matches!(result, StepResult::Done(_))).count()
    }

    /// How many steps were not begun.
    #[must_use]
    pub fn skipped(&self) -> usize {
        self.results.iter().filter(|(_, result)| matches!(result, StepResult::Skipped(_))).count()
    }

    /// `done`, `failed`, `refused` or `interrupted`.
    #[must_use]
    pub fn status(&self) -> &'static str {
        let refused =
            |diagnostic: &Diagnostic| matches!(diagnostic.code, Code::PlanStale | Code::PlanOverBudget);
        if self.failures().any(refused) {
            "refused"
        } else if self.failures().next().is_some() {
            "failed"
        } else if self.interrupted {
            "interrupted"
        } else {
            "done"
        }
    }
}

/// Why nothing was applied.
#[derive(Debug)]
pub enum ApplyError {
    /// The world cannot be read, or rules say no.
    Problems(Vec<Diagnostic>),
    /// The world moved: what was shown is not what would be done.
    Stale(Vec<Diagnostic>),
    /// More is destroyed, replaced or formatted than allowed.
    OverBudget(Box<Diagnostic>),
    /// A person interrupted it before anything began.
    Interrupted,
}
