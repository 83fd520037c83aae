//! L0: diagnostics as data: what is wrong, where, what was expected, and the next move.
//!
//! Nothing here prints or knows colours; `cli` renders. Every kind of problem has one stable code, so that
//! people can search for it and agents can branch on it; `clawd docs codes` lists them from this table.

#![deny(clippy::disallowed_methods)]

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Good to know; nothing is refused.
    Warning,
    /// The plan cannot be made or applied.
    Error,
}

macro_rules! codes {
    ($($(#[doc = $doc:literal])+ $variant:ident = $text:literal,)+) => {
        /// The stable code of a diagnostic.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Code {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl Code {
            /// Every code with its meaning, in the order of the documentation.
            pub const ALL: &'static [(Self, &'static str)] = &[
                $((Self::$variant, concat!($($doc),+)),)+
            ];

            /// The code as it is printed, `script.unknown-argument`.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)+
                }
            }
        }
    };
}

codes! {
    /// The plan script or a file it reads cannot be found.
    ScriptMissing = "script.missing",
    /// The script is not valid Rhai, or uses a part of Rhai that plans do not have.
    ScriptSyntax = "script.syntax",
    /// A variable that is not defined.
    ScriptUnknownVariable = "script.unknown-variable",
    /// A function or primitive that does not exist, or not for these types.
    ScriptUnknownFunction = "script.unknown-function",
    /// A map has no such key, or a list no such index.
    ScriptUnknownKey = "script.unknown-key",
    /// A primitive has no such argument.
    ScriptUnknownArgument = "script.unknown-argument",
    /// A primitive's required argument is not given.
    ScriptMissingArgument = "script.missing-argument",
    /// A value of the wrong type or outside the allowed values.
    ScriptWrongType = "script.wrong-type",
    /// A step has no such output.
    ScriptUnknownOutput = "script.unknown-output",
    /// Two steps of one primitive have the same name.
    ScriptDuplicateStep = "script.duplicate-step",
    /// A step's name has characters or a length that are not allowed.
    ScriptBadName = "script.bad-name",
    /// The value is known only after another step was applied, and is needed while the plan is made.
    ScriptDeferred = "script.deferred-value",
    /// A string function cut or changed the text of a value that is not known yet.
    ScriptDeferredCut = "script.deferred-cut",
    /// The text holds the private characters U+E000 or U+E001, which stand for values not known yet.
    ScriptForgedToken = "script.forged-token",
    /// A secret where a secret is not taken: in text, as a key, or as an argument that is stored.
    ScriptSecret = "script.secret",
    /// The plan has no such parameter.
    ScriptUnknownParam = "script.unknown-param",
    /// A parameter without default was not given.
    ScriptMissingParam = "script.missing-param",
    /// A parameter's value does not fit its declaration, or the declaration is wrong.
    ScriptBadParam = "script.bad-param",
    /// The script ran longer, deeper or larger than the sandbox allows.
    ScriptLimit = "script.limit",
    /// A module or file outside the project, or by a way that is not allowed.
    ScriptOutside = "script.outside-project",
    /// A module that does not exist or imports itself.
    ScriptModule = "script.module",
    /// A file that cannot be read or parsed.
    ScriptFile = "script.file",
    /// An `assert` did not hold.
    ScriptAssert = "script.assert",
    /// The script called `fail`.
    ScriptFail = "script.fail",
    /// The script called `warn`.
    ScriptWarn = "script.warn",
    /// The script stopped with an error of the language, such as an overflow.
    ScriptRuntime = "script.runtime",
    /// A call that is not allowed at this place, such as a second `allow`.
    ScriptMisplaced = "script.misplaced",
    /// A module of a stack is not valid.
    StackModule = "stack.module",
    /// What a step would look at could not be read; its action is not known.
    PlanRead = "plan.read-failed",
    /// A step's rule forbids what the script asks for, given what is there.
    PlanRefused = "plan.refused",
    /// The plan destroys, replaces or formats more than it allows.
    PlanOverBudget = "plan.over-budget",
    /// The world moved between plan and apply.
    PlanStale = "plan.stale",
    /// The plan was not approved.
    PlanNotApproved = "plan.not-approved",
    /// A saved plan file cannot be read.
    FileUnreadable = "plan-file.unreadable",
    /// A saved plan file is cut off or is not a plan.
    FileMalformed = "plan-file.malformed",
    /// A saved plan file was changed after it was written.
    FileEdited = "plan-file.edited",
    /// A saved plan file has a format version that this clawd does not read.
    FileVersion = "plan-file.version",
    /// The steps of a saved plan file depend on each other in a circle, or on steps that are not there.
    FileGraph = "plan-file.graph",
    /// A saved plan file was made for another profile, account, region or fleet.
    FileTarget = "plan-file.target",
    /// Another run holds the lock.
    RunLocked = "run.locked",
    /// A step failed.
    RunFailed = "run.step-failed",
    /// A step ran longer than its timeout.
    RunTimeout = "run.timeout",
    /// The run was interrupted.
    RunInterrupted = "run.interrupted",
    /// A run, or its journal, cannot be found or read.
    RunUnreadable = "run.unreadable",
    /// A directory is no memory: its sentinel file is missing, perhaps because it is not mounted.
    MemoryNone = "memory.none",
    /// A path that is none in the memory, or leads to a link or device.
    MemoryPath = "memory.path",
    /// The memory has no such file.
    MemoryMissing = "memory.missing-file",
    /// The file has another version than the writer knows.
    MemoryMoved = "memory.moved",
    /// The text to replace is not in the file exactly once.
    MemoryNoMatch = "memory.no-match",
    /// A change that looks like an accident: a canonical file would lose much.
    MemoryGuarded = "memory.guarded",
    /// Somebody has held the memory's lock for long.
    MemoryLocked = "memory.locked",
    /// The shared memory cannot be reached, or refuses what is asked of it.
    MemoryRemote = "memory.remote",
    /// Edits were put aside, or a change of the shared memory was refused; a person has to look.
    MemoryConflict = "memory.conflict",
    /// A file of the memory cannot be read or written.
    MemoryUnusable = "memory.unusable",
    /// What a host is asked cannot be read.
    HostSpec = "host.bad-spec",
    /// Files under `.clawd/` cannot be written.
    StateUnwritable = "state.unwritable",
    /// `clawd.toml` is wrong, or names something that does not exist.
    Config = "config.invalid",
    /// The command line is wrong.
    Usage = "usage",
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Code {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// One call on the way from the script to the place of a diagnostic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frame {
    /// What was called: a function's name, or `import "..."`.
    pub call: String,
    /// The file the call stands in, relative to the project.
    pub file: Arc<str>,
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
}

/// A place in a script. Line and column count from 1, columns in characters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The file, relative to the project; `std/...` for the embedded modules.
    pub file: Arc<str>,
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
    /// Length in characters of what is meant; 0 when only the start is known.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub length: u32,
    /// The calls that led here, innermost first.
    #[serde(default, skip_serializing_if = "<[Frame]>::is_empty")]
    pub stack: Box<[Frame]>,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde's signature
fn is_zero(length: &u32) -> bool {
    *length == 0
}

impl Origin {
    /// A place without length and without calls.
    #[must_use]
    pub fn at(file: Arc<str>, line: u32, column: u32) -> Self {
        Self { file, line, column, length: 0, stack: Box::default() }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

/// A second place that explains the first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Related {
    /// What is to be seen there.
    pub message: String,
    /// Where.
    pub origin: Origin,
}

/// A change that mends the problem, safe to apply by a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fix {
    /// What the change does.
    pub description: String,
    /// What is replaced: the diagnostic's own origin when `None`.
    pub origin: Option<Origin>,
    /// The text to put there.
    pub replacement: String,
}

/// One problem.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// The stable code.
    pub code: Code,
    /// Error or warning.
    pub severity: Severity,
    /// What is wrong: the entity, what was found, what was expected.
    pub message: String,
    /// What stands at the origin, in a few words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// Where in a script.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
    /// Other places that matter.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub related: Vec<Related>,
    /// The next move.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
    /// A machine-applicable mend.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<Fix>,
}

impl Diagnostic {
    /// An error.
    #[must_use]
    pub fn error(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            severity: Severity::Error,
            message: message.into(),
            label: None,
            origin: None,
            related: Vec::new(),
            help: None,
            fix: None,
        }
    }

    /// A warning.
    #[must_use]
    pub fn warning(code: Code, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(code, message) }
    }

    /// Says where.
    #[must_use]
    pub fn at(mut self, origin: Origin) -> Self {
        self.origin = Some(origin);
        self
    }

    /// Says what stands at the origin.
    #[must_use]
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = Some(label.into());
        self
    }

    /// Says the next move.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Points at a second place.
    #[must_use]
    pub fn related(mut self, message: impl Into<String>, origin: Origin) -> Self {
        self.related.push(Related { message: message.into(), origin });
        self
    }

    /// Offers a replacement for the text at the origin.
    #[must_use]
    pub fn fix(mut self, description: impl Into<String>, replacement: impl Into<String>) -> Self {
        self.fix =
            Some(Fix { description: description.into(), origin: None, replacement: replacement.into() });
        self
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

/// The candidate that a misspelt word most likely means.
#[must_use]
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let allowed = (word.chars().count() / 3).max(1);
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(word, candidate), candidate))
        .filter(|(distance, candidate)| {
            *distance <= allowed || (word.len() >= 3 && candidate.starts_with(word))
        })
        .min()
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique() {
        let mut texts: Vec<_> = Code::ALL.iter().map(|(code, _)| code.as_str()).collect();
        texts.sort_unstable();
        texts.dedup();
        assert_eq!(texts.len(), Code::ALL.len());
    }

    #[test]
    fn nearest_finds_a_slip_and_no_stranger() {
        let names = ["image", "name_prefix", "method"];
        assert_eq!(nearest("imge", names), Some("image"));
        assert_eq!(nearest("name", names), Some("name_prefix"));
        assert_eq!(nearest("zone", names), None);
    }
}
