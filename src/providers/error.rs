//! Errors of the ports. An error names the operation, the entity and what the provider said; its kind alone
//! decides whether the executor tries again.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What an error means for the next try.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// The provider asks for fewer calls: try again, later.
    Throttled,
    /// The call may or may not have had its effect: observe, then try again.
    Transient,
    /// The same call will fail again.
    Permanent,
    /// A safety rule says no: a person has to decide.
    Refused,
    /// What was planned on is not what is there any more.
    Moved,
    /// Somebody else is changing the same thing right now.
    Locked,
    /// The step ran out of its time.
    TimedOut,
}

impl ErrorKind {
    /// Whether observing and trying again can help.
    #[must_use]
    pub const fn is_retryable(self) -> bool {
        matches!(self, Self::Throttled | Self::Transient)
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Throttled => "throttled",
            Self::Transient => "transient",
            Self::Permanent => "permanent",
            Self::Refused => "refused",
            Self::Moved => "moved",
            Self::Locked => "locked",
            Self::TimedOut => "timed out",
        })
    }
}

/// What went wrong in a call to the outside.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{operation}: {message}")]
pub struct ProviderError {
    /// What it means for the next try.
    pub kind: ErrorKind,
    /// The call, `ec2 CreateVolume`.
    pub operation: String,
    /// What happened, with the entity in question.
    pub message: String,
    /// The next move for a person.
    pub help: Option<String>,
}

impl ProviderError {
    /// An error of the given kind.
    #[must_use]
    pub fn new(kind: ErrorKind, operation: impl Into<String>, message: impl Into<String>) -> Self {
        Self { kind, operation: operation.into(), message: message.into(), help: None }
    }

    /// An error that no retry mends.
    #[must_use]
    pub fn permanent(operation: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Permanent, operation, message)
    }

    /// A safety rule that says no.
    #[must_use]
    pub fn refused(operation: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Refused, operation, message)
    }

    /// Says the next move.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}
