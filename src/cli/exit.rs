//! Exit codes, and which diagnostic leads to which.

use std::process::ExitCode;

use super::terminal::Terminal;
use crate::diagnostic::{Code, Diagnostic};
use crate::script::Sources;

/// How the process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Exit {
    /// Done, or nothing to do.
    Done = 0,
    /// The script, the plan or the apply failed.
    Failed = 1,
    /// Changes are pending; only with `--detailed-exitcode`.
    Changes = 2,
    /// Refused: not approved, over budget, stale, locked.
    Refused = 3,
    /// Wrong usage.
    Usage = 64,
    /// Interrupted.
    Interrupted = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

impl Exit {
    /// The exit that a diagnostic leads to.
    pub(super) const fn of(code: Code) -> Self {
        match code {
            Code::PlanOverBudget
            | Code::PlanStale
            | Code::PlanNotApproved
            | Code::RunLocked
            | Code::MemoryConflict
            | Code::MemoryMoved
            | Code::MemoryGuarded
            | Code::MemoryLocked => Self::Refused,
            Code::RunInterrupted => Self::Interrupted,
            Code::Usage => Self::Usage,
            _ => Self::Failed,
        }
    }
}

/// Diagnostics that end a command.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) diagnostics: Vec<Diagnostic>,
    /// What to quote from.
    pub(super) sources: Sources,
}

impl Failed {
    /// Prints the diagnostics; returns the exit they lead to. A refusal wins over a failure, because it says that
    /// nothing was done on purpose.
    pub(super) fn report(&self, terminal: &Terminal) -> Exit {
        terminal.diagnostics(&self.diagnostics, &self.sources);
        let exits = || self.diagnostics.iter().map(|diagnostic| Exit::of(diagnostic.code));
        exits().find(|exit| *exit != Exit::Failed).unwrap_or(Exit::Failed)
    }
}

impl From<Diagnostic> for Box<Failed> {
    fn from(diagnostic: Diagnostic) -> Self {
        vec![diagnostic].into()
    }
}

impl From<Vec<Diagnostic>> for Box<Failed> {
    fn from(diagnostics: Vec<Diagnostic>) -> Self {
        Self::new(Failed { diagnostics, sources: Sources::default() })
    }
}

/// Prints what clap has to say. Help and version are no errors.
pub(super) fn of_usage_error(error: &clap::Error) -> Exit {
    // Printing fails only when the stream is closed, and then nobody reads it.
    let _ = error.print();
    if error.use_stderr() { Exit::Usage } else { Exit::Done }
}
