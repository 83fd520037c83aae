//! What one evaluation shares between the native functions: the recorder, the tokens, the problems found so
//! far, and where things stand in the sources. Lives on the script's thread only.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use rhai::{EvalAltResult, NativeCallContext, Position};

use super::FileName;
use super::files::Project;
use super::params::Params;
use super::spans::Spans;
use super::tokens::{Meaning, Tokens};
use crate::diagnostic::{Code, Diagnostic, Origin};
use crate::plan::Recorder;
use crate::primitives::Schema;
use crate::value::{Address, Reference};

/// Rhai's call level of a native function that a script calls outside its own functions.
const TOP_LEVEL: usize = 1;

/// The primitive's place in the address of a handle that stands for a module's variable.
pub(super) const VARIABLE: &str = "var";

/// A shared session.
pub(super) type Shared = Rc<Session>;

/// How an evaluation treats the problems that do not end it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// Collect them all.
    Collect,
    /// Stop at the n-th, so that the call stack shows; and watch variables to name the deferred value.
    StopAt(usize),
    /// Run as `Collect`, watching variables.
    Watch,
}

/// What `clawd.toml` says of the fleet, for scripts.
pub(super) struct Fleet {
    pub(super) name: String,
    /// Canonical files of the shared memory, besides those of every memory.
    pub(super) canonical: Vec<String>,
}

/// The state of one evaluation.
pub(super) struct Session {
    pub(super) mode: Mode,
    pub(super) project: Project,
    pub(super) main: FileName,
    /// The fleet; a module's model has none.
    pub(super) fleet: Option<Fleet>,
    pub(super) recorder: RefCell<Recorder>,
    pub(super) tokens: RefCell<Tokens>,
    pub(super) params: RefCell<Params>,
    pub(super) spans: RefCell<Spans>,
    pub(super) problems: RefCell<Vec<Found>>,
    pub(super) warnings: RefCell<Vec<Diagnostic>>,
    pub(super) prints: RefCell<Vec<String>>,
    /// The deferred value that was touched last: what an operator that wants a plain value stumbled over.
    pub(super) touched: RefCell<Option<Arc<Reference>>>,
    pub(super) step_count: Cell<usize>,
    /// What is known of a step's outputs beyond its primitive's.
    pub(super) outputs: RefCell<BTreeMap<Address, Schema>>,
    pub(super) module_functions: RefCell<BTreeMap<String, Vec<String>>>,
}

/// A collected problem, and whether a call stack would help.
pub(super) struct Found {
    pub(super) diagnostic: Diagnostic,
    pub(super) nested: bool,
}

/// A diagnostic on its way through Rhai as an error.
#[derive(Debug, Clone)]
pub(super) struct Thrown(pub(super) Box<Diagnostic>);

/// The result of a native function.
pub(super) type Native<T> = Result<T, Box<EvalAltResult>>;

thread_local! {
    /// The first diagnostic thrown since the evaluation began. Some of Rhai's list functions swallow the errors of
    /// their callbacks; what was thrown ends the evaluation all the same.
    static THROWN: RefCell<Option<(Diagnostic, Position)>> = const { RefCell::new(None) };
}

/// Forgets what was thrown, and returns it.
pub(super) fn take_thrown() -> Option<(Diagnostic, Position)> {
    THROWN.take()
}

/// Throws a diagnostic; it is found again in `errors`.
pub(super) fn throw(diagnostic: Diagnostic, position: Position) -> Box<EvalAltResult> {
    THROWN.with_borrow_mut(|thrown| {
        thrown.get_or_insert_with(|| (diagnostic.clone(), position));
    });
    EvalAltResult::ErrorRuntime(rhai::Dynamic::from(Thrown(Box::new(diagnostic))), position).into()
}

impl Session {
    /// The file a call stands in.
    pub(super) fn file(&self, cx: &NativeCallContext<'_>) -> FileName {
        match cx.call_source() {
            Some(source) if *source != *self.main => source.into(),
            _ => Arc::clone(&self.main),
        }
    }

    /// Whether a call stands in the plan script itself, outside its functions.
    pub(super) fn is_top_level(&self, cx: &NativeCallContext<'_>) -> bool {
        cx.call_level() <= TOP_LEVEL && self.file(cx) == self.main
    }

    /// The place of a call: the callee's name.
    pub(super) fn call_origin(&self, cx: &NativeCallContext<'_>) -> Origin {
        self.origin(&self.file(cx), cx.call_position())
    }

    /// A place, with the length of what stands there.
    pub(super) fn origin(&self, file: &FileName, position: Position) -> Origin {
        let (line, column) = line_column(position);
        let length = self.project.sources().word_length(file, line, column);
        Origin { length, ..Origin::at(Arc::clone(file), line, column) }
    }

    /// The place of a property: Rhai gives the dot or bracket before it.
    pub(super) fn property_origin(&self, cx: &NativeCallContext<'_>) -> Origin {
        let file = self.file(cx);
        let dot = self.origin(&file, cx.call_position());
        if dot.length != 1 {
            return dot;
        }
        let column = dot.column + 1;
        let length = self.project.sources().word_length(&file, dot.line, column);
        Origin { column, length, ..dot }
    }

    /// Notes a problem and goes on, or stops where the mode says so.
    pub(super) fn report(&self, diagnostic: Diagnostic, cx: &NativeCallContext<'_>) -> Native<()> {
        let count = {
            let mut problems = self.problems.borrow_mut();
            problems.push(Found { diagnostic: diagnostic.clone(), nested: !self.is_top_level(cx) });
            problems.len()
        };
        match self.mode {
            Mode::StopAt(index) if count == index + 1 => Err(throw(diagnostic, cx.call_position())),
            _ => Ok(()),
        }
    }

    /// The error of using a value that is not known yet.
    pub(super) fn deferred_error(&self, reference: &Reference, use_: &str) -> Diagnostic {
        deferred(reference, use_)
    }

    /// The error of using a text that holds a token.
    pub(super) fn token_error(&self, text: &str, use_: &str) -> Diagnostic {
        match self.tokens.borrow().first(text) {
            Some(Meaning::Deferred(reference)) => deferred(reference, use_),
            Some(Meaning::Secret(name)) => secret_used(name, use_),
            None => Diagnostic::error(
                Code::ScriptDeferredCut,
                format!("{use_} meets a piece of a value that is known only after apply"),
            )
            .help("a string function cut that value apart; pass it on whole"),
        }
    }

    /// Remembers which deferred value was touched last.
    pub(super) fn touch(&self, reference: &Arc<Reference>) {
        *self.touched.borrow_mut() = Some(Arc::clone(reference));
    }
}

/// Line and column of a position; the start of the file where Rhai knows none.
pub(super) fn line_column(position: Position) -> (u32, u32) {
    let number = |part: Option<usize>| part.and_then(|part| u32::try_from(part).ok()).unwrap_or(1);
    (number(position.line()), number(position.position()))
}

/// The error of using a value that is not known yet.
pub(super) fn deferred(reference: &Reference, use_: &str) -> Diagnostic {
    let known_by = if reference.step.primitive() == VARIABLE {
        format!("the variable `{}` is not known while planning", reference.step.name())
    } else {
        format!("it is known after `{}` is applied", reference.step)
    };
    Diagnostic::error(Code::ScriptDeferred, format!("{use_} needs the value of `{reference}` now; {known_by}"))
        .label("needs a value that is not there yet")
        .help("pass the value on: as an argument, inside a list, map or `${...}` in backticks; decide on parameters or files instead")
}

/// The error of using a secret.
pub(super) fn secret_used(name: &str, use_: &str) -> Diagnostic {
    Diagnostic::error(
        Code::ScriptSecret,
        format!("{use_} needs the value of the secret `{name}`, which a script never sees"),
    )
    .help("pass the secret on whole, where a value may be anything, such as the `vars` of tofu_apply")
}
