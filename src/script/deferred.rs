//! The handles scripts hold: `Deferred` for what is known after apply, `Secret` for what is never seen. Every
//! operation that would need the value is an error that names it.

use std::sync::Arc;

use rhai::{Array, Dynamic, Engine, ImmutableString, Map, NativeCallContext};
use smol_str::SmolStr;

use super::session::{Native, Shared, deferred, secret_used, throw};
use super::tokens::{Meaning, has_private, is_private};
use crate::diagnostic::{Code, Diagnostic, nearest};
use crate::primitives::Schema;
use crate::value::{Path, Reference, Segment};

/// A value known after apply: a step, or a place in its outputs.
#[derive(Debug, Clone)]
pub(super) struct Deferred {
    pub(super) reference: Arc<Reference>,
    /// What is known of its type; `None` for anything.
    pub(super) schema: Option<Schema>,
}

/// A secret.
#[derive(Debug, Clone)]
pub(super) struct Secret(pub(super) SmolStr);

/// Operators that need both values now.
const BINARY: [&str; 21] = [
    "==", "!=", "<", "<=", ">", ">=", "+", "-", "*", "/", "%", "**", "&", "|", "^", "<<", ">>", "..", "..=",
    "contains", "min",
];

/// Properties that are methods of strings, lists and maps: asked of a deferred value, they need it now.
const METHODS: [&str; 12] = [
    "len",
    "is_empty",
    "keys",
    "values",
    "to_string",
    "to_upper",
    "to_lower",
    "contains",
    "split",
    "trim",
    "chars",
    "bytes",
];

/// A handle that operations refuse.
trait Handle: Clone + 'static {
    fn refuse(&self, operation: &str) -> Diagnostic;
    fn meaning(&self) -> Meaning;
}

impl Handle for Deferred {
    fn refuse(&self, operation: &str) -> Diagnostic {
        deferred(&self.reference, operation)
    }

    fn meaning(&self) -> Meaning {
        Meaning::Deferred(Arc::clone(&self.reference))
    }
}

impl Handle for Secret {
    fn refuse(&self, operation: &str) -> Diagnostic {
        secret_used(&self.0, operation)
    }

    fn meaning(&self) -> Meaning {
        Meaning::Secret(self.0.clone())
    }
}

fn operator(name: &str) -> String {
    format!("`{name}`")
}

/// Registers both handle types.
pub(super) fn register(engine: &mut Engine, session: &Shared) {
    engine.register_type_with_name::<Deferred>("Deferred").register_type_with_name::<Secret>("Secret");
    refusals::<Deferred>(engine);
    refusals::<Secret>(engine);
    texts::<Deferred>(engine, session);
    texts::<Secret>(engine, session);
    // Debugging a list or map prints its elements this way: tokens stay tokens.
    for name in ["to_debug", "debug"] {
        engine.register_fn(name, |text: ImmutableString| -> ImmutableString {
            if has_private(&text) { format!("\"{text}\"").into() } else { format!("{text:?}").into() }
        });
        engine.register_fn(name, |c: char| -> ImmutableString {
            if is_private(c) { c.to_string().into() } else { format!("{c:?}").into() }
        });
    }
    let shared = Shared::clone(session);
    engine.register_indexer_get(
        move |cx: NativeCallContext<'_>, handle: &mut Deferred, key: ImmutableString| {
            let found = output(&shared, handle, &key).map_err(|error| {
                let origin = shared.property_origin(&cx);
                throw(error.at(origin), cx.call_position())
            })?;
            shared.touch(&found.reference);
            Ok::<_, Box<rhai::EvalAltResult>>(found)
        },
    );
    let shared = Shared::clone(session);
    engine.register_indexer_get(move |cx: NativeCallContext<'_>, handle: &mut Deferred, index: i64| {
        let found = element(handle, index).map_err(|error| throw(*error, cx.call_position()))?;
        shared.touch(&found.reference);
        Ok::<_, Box<rhai::EvalAltResult>>(found)
    });
}

fn refusals<T: Handle>(engine: &mut Engine) {
    for name in BINARY {
        let fail = move |cx: &NativeCallContext<'_>, handle: &T| -> Native<Dynamic> {
            Err(throw(handle.refuse(&operator(name)), cx.call_position()))
        };
        engine.register_fn(name, move |cx: NativeCallContext<'_>, left: T, _: T| fail(&cx, &left));
        engine.register_fn(name, move |cx: NativeCallContext<'_>, left: T, _: Dynamic| fail(&cx, &left));
        engine.register_fn(name, move |cx: NativeCallContext<'_>, _: Dynamic, right: T| fail(&cx, &right));
    }
    for name in ["!", "-", "+"] {
        engine.register_fn(name, move |cx: NativeCallContext<'_>, handle: T| -> Native<Dynamic> {
            Err(throw(handle.refuse(&operator(name)), cx.call_position()))
        });
    }
    // Methods of the types the value may turn out to have.
    for name in METHODS.into_iter().filter(|name| *name != "to_string" && *name != "contains") {
        engine.register_fn(name, move |cx: NativeCallContext<'_>, handle: T| -> Native<Dynamic> {
            Err(throw(handle.refuse(&operator(name)), cx.call_position()))
        });
    }
    engine.register_fn("contains", |cx: NativeCallContext<'_>, _: Array, handle: T| -> Native<bool> {
        Err(throw(handle.refuse("`in`"), cx.call_position()))
    });
    engine.register_fn("contains", |cx: NativeCallContext<'_>, _: Map, handle: T| -> Native<bool> {
        Err(throw(handle.refuse("`in`"), cx.call_position()))
    });
}

/// Printing makes a token; joining text to a handle is interpolation.
fn texts<T: Handle>(engine: &mut Engine, session: &Shared) {
    for name in ["to_string", "to_debug", "print", "debug"] {
        let shared = Shared::clone(session);
        engine.register_fn(name, move |handle: &mut T| -> ImmutableString {
            shared.tokens.borrow_mut().token(&handle.meaning()).into()
        });
    }
    let shared = Shared::clone(session);
    engine.register_fn("+", move |text: ImmutableString, handle: T| -> ImmutableString {
        format!("{text}{}", shared.tokens.borrow_mut().token(&handle.meaning())).into()
    });
    let shared = Shared::clone(session);
    engine.register_fn("+", move |handle: T, text: ImmutableString| -> ImmutableString {
        format!("{}{text}", shared.tokens.borrow_mut().token(&handle.meaning())).into()
    });
}

impl Deferred {
    /// The handle of a key below; of any type.
    pub(super) fn key(&self, key: &str) -> Self {
        let path = self.reference.path.key(key);
        Self { reference: Arc::new(Reference { step: self.reference.step.clone(), path }), schema: None }
    }

    /// The handle of an element below; of any type.
    pub(super) fn index(&self, index: usize) -> Self {
        let path = self.reference.path.index(index);
        Self { reference: Arc::new(Reference { step: self.reference.step.clone(), path }), schema: None }
    }
}

fn below(handle: &Deferred, segment: Segment) -> Option<Deferred> {
    let schema = match &handle.schema {
        Some(schema) => Some(schema.below(&segment)?).filter(|schema| !schema.is_any()),
        None => None,
    };
    let path = match segment {
        Segment::Key(key) => handle.reference.path.key(key),
        Segment::Index(index) => handle.reference.path.index(index),
    };
    let reference = Arc::new(Reference { step: handle.reference.step.clone(), path });
    Some(Deferred { reference, schema })
}

fn output(session: &Shared, handle: &Deferred, key: &str) -> Result<Deferred, Box<Diagnostic>> {
    if has_private(key) {
        return Err(Box::new(session.token_error(key, "indexing")));
    }
    let declares =
        handle.schema.as_ref().is_some_and(|schema| schema.fields().iter().any(|field| field.name == key));
    if METHODS.contains(&key) && !declares {
        return Err(Box::new(deferred(&handle.reference, &operator(&format!(".{key}")))));
    }
    below(handle, Segment::Key(key.into())).ok_or_else(|| {
        let outputs = || {
            handle
                .schema
                .as_ref()
                .map(Schema::fields)
                .unwrap_or_default()
                .iter()
                .map(|field| field.name.as_str())
        };
        let near = nearest(key, outputs());
        let what = if handle.reference.path == Path::root() {
            let title = handle.schema.as_ref().map(Schema::title).unwrap_or_default();
            format!("`{}`, which is of type {title},", handle.reference.step)
        } else {
            format!("`{}`", handle.reference)
        };
        let mut diagnostic = Diagnostic::error(
            Code::ScriptUnknownOutput,
            format!("{what} has no output `{}`", key.escape_debug()),
        );
        let list = outputs().collect::<Vec<_>>().join(", ");
        diagnostic = match near {
            Some(near) => {
                diagnostic.help(format!("did you mean `{near}`?")).fix("use the output that exists", near)
            }
            None if list.is_empty() => diagnostic.help("it is a single value"),
            None => diagnostic.help(format!("its outputs are: {list}")),
        };
        Box::new(diagnostic)
    })
}

fn element(handle: &Deferred, index: i64) -> Result<Deferred, Box<Diagnostic>> {
    usize::try_from(index).ok().and_then(|index| below(handle, Segment::Index(index))).ok_or_else(|| {
        Box::new(
            Diagnostic::error(
                Code::ScriptUnknownOutput,
                format!("`{}` has no element {index}", handle.reference),
            )
            .help("name an output; a list not known yet is indexed from 0"),
        )
    })
}
