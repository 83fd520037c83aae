//! What goes wrong with a memory, and what is there instead.

use std::io;
use std::path::Path;

use super::SENTINEL;
use crate::diagnostic::{Code, Diagnostic};
use crate::memory::{PathError, Version};

/// What kind of problem it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The directory is no memory, or is not mounted.
    NoMemory,
    /// A path that means no file in it.
    Path,
    /// There is no such file.
    Missing,
    /// Another version is there than the writer knows.
    Moved,
    /// The text to replace is not there exactly once.
    NoMatch,
    /// It looks like an accident.
    Guarded,
    /// Somebody else has held the lock for long.
    Locked,
    /// The shared memory cannot be reached.
    Remote,
    /// The shared memory refuses this call; another may succeed.
    Rejected,
    /// A file or directory cannot be read or written.
    Io,
    /// The call makes no sense.
    Usage,
}

impl ErrorKind {
    const fn code(self) -> Code {
        match self {
            Self::NoMemory => Code::MemoryNone,
            Self::Path => Code::MemoryPath,
            Self::Missing => Code::MemoryMissing,
            Self::Moved => Code::MemoryMoved,
            Self::NoMatch => Code::MemoryNoMatch,
            Self::Guarded => Code::MemoryGuarded,
            Self::Locked => Code::MemoryLocked,
            Self::Remote | Self::Rejected => Code::MemoryRemote,
            Self::Io => Code::MemoryUnusable,
            Self::Usage => Code::Usage,
        }
    }
}

/// A problem with a memory.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct MemoryError {
    /// What kind of problem it is.
    pub kind: ErrorKind,
    /// What happened.
    pub message: String,
    /// The next move.
    pub help: Option<String>,
    /// The version of the file now, where the problem is about one.
    pub current: Option<Version>,
    /// How the file differs from what the writer knows, as a patch.
    pub diff: Option<String>,
}

impl MemoryError {
    pub(super) fn new(kind: ErrorKind, message: String) -> Self {
        Self { kind, message, help: None, current: None, diff: None }
    }

    pub(super) fn usage(message: String) -> Self {
        Self::new(ErrorKind::Usage, message)
    }

    pub(super) fn io(what: &str, path: &Path, error: &io::Error) -> Self {
        let message = format!("cannot {what} {}: {error}", path.display());
        let error = Self::new(ErrorKind::Io, message);
        error.help("check the disk and the permissions; nothing that was there is lost")
    }

    pub(super) fn path(error: &PathError) -> Self {
        Self::new(ErrorKind::Path, error.to_string())
            .help("paths are relative to the memory, like `goals.md`")
    }

    pub(super) fn no_memory(dir: &Path) -> Self {
        Self::new(ErrorKind::NoMemory, format!("{} is no memory: it has no {SENTINEL}", dir.display()))
            .help("mount it if it is a volume of its own; `clawd memory init` makes a new one")
    }

    #[must_use]
    pub(super) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    #[must_use]
    pub(super) fn current(mut self, current: Option<Version>, diff: Option<String>) -> Self {
        self.current = current;
        self.diff = diff;
        self
    }

    /// The stable code.
    #[must_use]
    pub const fn code(&self) -> Code {
        self.kind.code()
    }
}

impl From<PathError> for MemoryError {
    fn from(error: PathError) -> Self {
        Self::path(&error)
    }
}

impl From<&MemoryError> for Diagnostic {
    fn from(error: &MemoryError) -> Self {
        let diagnostic = Self::error(error.code(), error.message.clone());
        match &error.help {
            Some(help) => diagnostic.help(help.clone()),
            None => diagnostic,
        }
    }
}
