//! The primitives as script functions: `import_ami("base", #{ ... })` checks its arguments and records a step.
//! Problems are collected, so that one evaluation reports those of all calls.

use std::sync::Arc;

use rhai::{Array, Dynamic, Engine, ImmutableString, Map as RhaiMap, NativeCallContext};

use super::Inputs;
use super::convert::to_map;
use super::deferred::Deferred;
use super::session::{Native, Session, Shared};
use super::spans::Side;
use crate::diagnostic::{Code, Diagnostic, Origin};
use crate::plan::StepId;
use crate::plan::recorder::NewStep;
use crate::primitives::schema::{Problem, References};
use crate::primitives::{Registered, Registry, Schema};
use crate::units::Seconds;
use crate::value::{Address, Map, Path, Reference, Value};

/// Arguments that every primitive takes, with what they mean.
pub const COMMON_ARGUMENTS: [(&str, &str); 3] = [
    ("after", "steps that must be applied before this one; orders applying only"),
    ("timeout", "the longest one try may take: seconds, or text like \"90s\", \"2h\""),
    ("retries", "tries after the first, when the failure is one that may pass"),
];

/// The most retries a step may ask for.
const MAX_RETRIES: i64 = 100;

/// Registers every primitive the profile allows.
pub(super) fn register(engine: &mut Engine, session: &Shared, inputs: &Inputs) {
    for primitive in Registry::all().iter() {
        if inputs
            .primitives
            .as_ref()
            .is_some_and(|allowed| !allowed.iter().any(|name| name == primitive.name))
        {
            continue;
        }
        let shared = Shared::clone(session);
        engine.register_fn(primitive.name, move |cx: NativeCallContext<'_>, name: Dynamic, args: Dynamic| {
            Call { session: &shared, primitive, cx: &cx }.record(name, args)
        });
        let shared = Shared::clone(session);
        engine.register_fn(primitive.name, move |cx: NativeCallContext<'_>, name: Dynamic| {
            Call { session: &shared, primitive, cx: &cx }.record(name, Dynamic::from_map(RhaiMap::new()))
        });
    }
}

/// What is known of references before anything ran: the primitives' output types, and what a step's own arguments say of
/// its outputs.
pub(super) struct OutputTypes<'a>(pub(super) &'a Session);

impl References for OutputTypes<'_> {
    fn schema(&self, reference: &Reference) -> Option<Schema> {
        let mut schema = match self.0.outputs.borrow().get(&reference.step) {
            Some(own) => own.clone(),
            None => Registry::all().get(reference.step.primitive())?.outputs.clone(),
        };
        for segment in reference.path.segments() {
            schema = schema.below(segment)?;
        }
        Some(schema)
    }
}

struct Call<'a> {
    session: &'a Session,
    primitive: &'static Registered,
    cx: &'a NativeCallContext<'a>,
}

/// What stands beside the primitive's own arguments.
#[derive(Default)]
struct Common {
    after: Vec<StepId>,
    timeout: Option<Seconds>,
    retries: Option<u32>,
}

impl Call<'_> {
    fn record(&self, name: Dynamic, args: Dynamic) -> Native<Deferred> {
        let address = self.address(name)?;
        let common_and_args = self.arguments(args)?;
        let mut handle = Deferred {
            reference: Arc::new(Reference { step: address.clone(), path: Path::root() }),
            schema: Some(self.primitive.outputs.clone()),
        };
        self.session.touch(&handle.reference);
        let Some((common, args, outputs)) = common_and_args else {
            return Ok(handle);
        };
        if let Some(outputs) = outputs {
            self.session.outputs.borrow_mut().insert(address.clone(), outputs.clone());
            handle.schema = Some(outputs);
        }
        let new = NewStep {
            address,
            args: Value::Map(args),
            after: common.after,
            timeout: common.timeout,
            retries: common.retries,
            origin: self.session.call_origin(self.cx),
        };
        let recorded = self.session.recorder.borrow_mut().record(new);
        match recorded {
            Ok(_) => self.session.step_count.set(self.session.step_count.get() + 1),
            Err(diagnostic) if diagnostic.code == Code::ScriptLimit => {
                return Err(super::session::throw(*diagnostic, self.cx.call_position()));
            }
            Err(diagnostic) => self.session.report(*diagnostic, self.cx)?,
        }
        Ok(handle)
    }

    fn arg_origin(&self, index: usize) -> Origin {
        let file = self.session.file(self.cx);
        let call = self.cx.call_position();
        let position = self.session.spans.borrow().arg(&file, call, index);
        self.session.origin(&file, position.unwrap_or(call))
    }

    fn entry_origin(&self, path: &Path, side: Side) -> Origin {
        let file = self.session.file(self.cx);
        let call = self.cx.call_position();
        let position = self.session.spans.borrow().entry(&file, call, path, side);
        self.session.origin(&file, position.unwrap_or(call))
    }

    /// The step's address. A name that cannot be read ends the evaluation: nothing could refer to the step.
    fn address(&self, name: Dynamic) -> Native<Address> {
        let stop = |diagnostic: Diagnostic| {
            super::session::throw(diagnostic.at(self.arg_origin(0)), self.cx.call_position())
        };
        let text = match name.try_cast_result::<ImmutableString>() {
            Ok(text) => text,
            Err(found) => {
                if let Some(handle) = found.read_lock::<Deferred>() {
                    return Err(stop(self.session.deferred_error(&handle.reference, "a step's name")));
                }
                let found = super::types::type_name(found.type_name());
                let message =
                    format!("{} takes the step's name first, a string, found a {found}", self.primitive.name);
                return Err(stop(
                    Diagnostic::error(Code::ScriptWrongType, message)
                        .help(format!("write {}(\"name\", #{{ ... }})", self.primitive.name)),
                ));
            }
        };
        if super::tokens::has_private(&text) {
            return Err(stop(self.session.token_error(&text, "a step's name")));
        }
        Address::new(self.primitive.name, &text).map_err(|error| {
            stop(Diagnostic::error(Code::ScriptBadName, format!("`{}`: {error}", text.escape_debug())))
        })
    }

    /// The arguments, checked; `None` when they cannot be recorded.
    fn arguments(&self, args: Dynamic) -> Native<Option<(Common, Map, Option<Schema>)>> {
        let mut map = match args.try_cast_result::<RhaiMap>() {
            Ok(map) => map,
            Err(found) => {
                let found = super::types::type_name(found.type_name());
                let message =
                    format!("{} takes its arguments as a map, found a {found}", self.primitive.name);
                let diagnostic = Diagnostic::error(Code::ScriptWrongType, message)
                    .at(self.arg_origin(1))
                    .help(format!("write {}(\"name\", #{{ ... }})", self.primitive.name));
                self.session.report(diagnostic, self.cx)?;
                return Ok(None);
            }
        };
        let common = self.common(&mut map)?;
        let args = match to_map(self.session, map) {
            Ok(args) => args,
            Err(unreadable) => {
                let origin = self.entry_origin(&unreadable.path, Side::Value);
                self.session.report(unreadable.diagnostic.at(origin), self.cx)?;
                return Ok(None);
            }
        };
        let value = Value::Map(args);
        let mut problems = self.primitive.args.check(&value, &OutputTypes(self.session));
        let mut outputs = None;
        // What the arguments name is looked at only when they are arguments.
        if problems.is_empty() {
            let found = self.primitive.operations().inspect(&value, &self.session.project);
            (problems, outputs) = (found.problems, found.outputs);
        }
        for problem in problems {
            self.report(problem)?;
        }
        let Value::Map(args) = value else { return Ok(None) };
        Ok(Some((common, args, outputs)))
    }

    fn report(&self, problem: Problem) -> Native<()> {
        let Problem { path, code, message, help, rename, origin: elsewhere } = problem;
        let side = if code == Code::ScriptUnknownArgument { Side::Key } else { Side::Value };
        // A missing argument has no place of its own: the call has.
        let origin = if code == Code::ScriptMissingArgument && path.is_root() {
            self.session.call_origin(self.cx)
        } else {
            self.entry_origin(&path, side)
        };
        let message = match (code, path.is_root()) {
            (Code::ScriptUnknownArgument | Code::ScriptMissingArgument, _) | (_, true) => {
                format!("{}: {message}", self.primitive.name)
            }
            _ => format!("{}: `{path}`: {message}", self.primitive.name),
        };
        let mut diagnostic = match elsewhere {
            None => Diagnostic::error(code, message).at(origin),
            Some(elsewhere) => Diagnostic::error(code, message).at(elsewhere).related("needed here", origin),
        };
        diagnostic.help = help;
        let written = self.session.spans.borrow().has_entry(
            &self.session.file(self.cx),
            self.cx.call_position(),
            &path,
        );
        if let Some(rename) = rename.filter(|_| written) {
            diagnostic = diagnostic.fix("use the argument that exists", rename);
        }
        self.session.report(diagnostic, self.cx)
    }

    fn wrong(&self, key: &str, message: &str) -> Native<()> {
        let origin = self.entry_origin(&Path::root().key(key), Side::Value);
        let diagnostic =
            Diagnostic::error(Code::ScriptWrongType, format!("{}: `{key}`: {message}", self.primitive.name));
        self.session.report(diagnostic.at(origin), self.cx)
    }

    fn common(&self, map: &mut RhaiMap) -> Native<Common> {
        let mut common = Common::default();
        if let Some(after) = map.remove("after") {
            common.after = self.after(after)?;
        }
        if let Some(timeout) = map.remove("timeout") {
            let read = match (timeout.as_int(), timeout.read_lock::<ImmutableString>()) {
                (Ok(seconds), _) => {
                    u64::try_from(seconds).map(Seconds).map_err(|_| format!("{seconds} is negative"))
                }
                (_, Some(text)) => {
                    text.parse().map_err(|error: crate::units::NotADuration| error.to_string())
                }
                _ => Err("expected seconds, or text like \"90s\" or \"2h\"".to_owned()),
            };
            match read {
                Ok(Seconds(0)) => self.wrong("timeout", "a step needs at least one second")?,
                Ok(seconds) => common.timeout = Some(seconds),
                Err(message) => self.wrong("timeout", &message)?,
            }
        }
        if let Some(retries) = map.remove("retries") {
            match retries
                .as_int()
                .ok()
                .filter(|count| (0..=MAX_RETRIES).contains(count))
                .and_then(|count| u32::try_from(count).ok())
            {
                Some(count) => common.retries = Some(count),
                None => self.wrong("retries", &format!("expected an int from 0 to {MAX_RETRIES}"))?,
            }
        }
        Ok(common)
    }

    fn after(&self, after: Dynamic) -> Native<Vec<StepId>> {
        let Ok(items) = after.try_cast_result::<Array>() else {
            self.wrong("after", "expected a list of steps")?;
            return Ok(Vec::new());
        };
        let mut ids = Vec::with_capacity(items.len());
        for item in items {
            let reference = item.read_lock::<Deferred>().map(|handle| Arc::clone(&handle.reference));
            let id = reference
                .filter(|reference| reference.path.is_root())
                .and_then(|reference| self.session.recorder.borrow().find(&reference.step));
            match id {
                Some(id) => ids.push(id),
                None => self.wrong("after", "expected steps themselves, like `after: [image, ami]`")?,
            }
        }
        Ok(ids)
    }
}
