//! Lists, maps and characters of the plan language, where Rhai's own functions would be silently wrong: a test that
//! says neither true nor false, a callback whose error is swallowed, a walk over the characters of a token.

use std::any::TypeId;
use std::sync::Arc;

use rhai::{Array, Dynamic, Engine, FnPtr, ImmutableString, Map, Module, NativeCallContext, Position};

use super::deferred::Deferred;
use super::session::{Native, Session, Shared, secret_used, throw};
use super::strings::{bounded, guard, guard_char};
use super::tokens::has_private;
use super::types::type_name;
use crate::diagnostic::{Code, Diagnostic};
use crate::value::Value;

/// Registers everything on lists, maps and characters.
pub(super) fn register(engine: &mut Engine, session: &Shared) {
    characters(engine, session);
    maps(engine, session);
    tests(engine, session);
    refusals(engine);
    ordering(engine, session);
}

fn wrong(cx: &NativeCallContext<'_>, message: String, help: &str) -> Box<rhai::EvalAltResult> {
    throw(Diagnostic::error(Code::ScriptWrongType, message).help(help), cx.call_position())
}

fn characters(engine: &mut Engine, session: &Shared) {
    let mut module = Module::new();
    let shared = Shared::clone(session);
    module.set_iter_result(TypeId::of::<ImmutableString>(), move |item: Dynamic| {
        let text = item.into_immutable_string().unwrap_or_default();
        if has_private(&text) {
            let error = throw(shared.token_error(&text, "a loop"), Position::NONE);
            return Box::new(std::iter::once(Err(error)));
        }
        let chars: Vec<char> = text.chars().collect();
        Box::new(chars.into_iter().map(|c| Ok(Dynamic::from(c))))
    });
    engine.register_global_module(module.into());
    let help = "use `sub_string`";
    engine.register_fn(
        "chars",
        move |cx: NativeCallContext<'_>, _: ImmutableString, _: Dynamic| -> Native<Array> {
            Err(wrong(&cx, "`chars` takes no range".to_owned(), help))
        },
    );
    engine.register_fn(
        "chars",
        move |cx: NativeCallContext<'_>, _: ImmutableString, _: Dynamic, _: Dynamic| -> Native<Array> {
            Err(wrong(&cx, "`chars` takes no range".to_owned(), help))
        },
    );
    let shared = Shared::clone(session);
    engine.register_fn("to_int", move |cx: NativeCallContext<'_>, c: char| -> Native<i64> {
        guard_char(&shared, &cx, "to_int", c)?;
        Ok(i64::from(u32::from(c)))
    });
}

fn maps(engine: &mut Engine, session: &Shared) {
    for name in ["get", "remove"] {
        let shared = Shared::clone(session);
        engine.register_fn(
            name,
            move |cx: NativeCallContext<'_>, map: &mut Map, key: ImmutableString| -> Native<Dynamic> {
                guard(&shared, &cx, name, &[&key])?;
                let found =
                    if name == "get" { map.get(key.as_str()).cloned() } else { map.remove(key.as_str()) };
                Ok(found.unwrap_or(Dynamic::UNIT))
            },
        );
    }
    let shared = Shared::clone(session);
    engine.register_fn(
        "set",
        move |cx: NativeCallContext<'_>, map: &mut Map, key: ImmutableString, item: Dynamic| -> Native<()> {
            guard(&shared, &cx, "set", &[&key])?;
            map.insert(key.as_str().into(), item);
            Ok(())
        },
    );
    let shared = Shared::clone(session);
    engine.register_fn(
        "contains",
        move |cx: NativeCallContext<'_>, map: &mut Map, key: ImmutableString| -> Native<bool> {
            guard(&shared, &cx, "in", &[&key])?;
            Ok(map.contains_key(key.as_str()))
        },
    );
    let shared = Shared::clone(session);
    engine.register_fn(
        "to_json",
        move |cx: NativeCallContext<'_>, map: &mut Map| -> Native<ImmutableString> {
            to_json(&shared, &cx, map.clone())
        },
    );
}

/// JSON text of a map without handles.
fn to_json(session: &Session, cx: &NativeCallContext<'_>, map: Map) -> Native<ImmutableString> {
    let map =
        super::convert::to_map(session, map).map_err(|found| throw(found.diagnostic, cx.call_position()))?;
    let value = Value::Map(map);
    let mut unknown = None;
    value.references(&mut |reference| unknown = unknown.take().or_else(|| Some(Arc::clone(reference))));
    if let Some(reference) = unknown {
        return Err(throw(session.deferred_error(&reference, "`to_json`"), cx.call_position()));
    }
    let mut secret = None;
    value.secrets(&mut |name| secret = Some(name.clone()));
    if let Some(secret) = secret {
        return Err(throw(secret_used(&secret, "`to_json`"), cx.call_position()));
    }
    Ok(serde_json::to_string(&value).unwrap_or_default().into())
}

/// What a callback says of an element: true or false, and nothing that may turn out to be either.
fn says(session: &Session, cx: &NativeCallContext<'_>, test: &FnPtr, item: &Dynamic) -> Native<bool> {
    let said: Dynamic = test.call_within_context(cx, (item.clone(),))?;
    if let Some(handle) = said.read_lock::<Deferred>() {
        let diagnostic = session.deferred_error(&handle.reference, "a test on a list");
        return Err(throw(diagnostic, cx.call_position()));
    }
    said.as_bool().map_err(|found| {
        let message = format!("a test on a list must say true or false, it said a {}", type_name(found));
        wrong(cx, message, "compare, or ask with `in`")
    })
}

fn tests(engine: &mut Engine, session: &Shared) {
    let shared = Shared::clone(session);
    engine.register_fn(
        "filter",
        move |cx: NativeCallContext<'_>, items: Array, test: FnPtr| -> Native<Array> {
            let mut kept = Array::new();
            for item in items {
                if says(&shared, &cx, &test, &item)? {
                    kept.push(item);
                }
            }
            Ok(kept)
        },
    );
    let shared = Shared::clone(session);
    engine.register_fn(
        "find",
        move |cx: NativeCallContext<'_>, items: Array, test: FnPtr| -> Native<Dynamic> {
            for item in items {
                if says(&shared, &cx, &test, &item)? {
                    return Ok(item);
                }
            }
            Ok(Dynamic::UNIT)
        },
    );
    for (name, stops_at) in [("some", true), ("all", false)] {
        let shared = Shared::clone(session);
        engine.register_fn(
            name,
            move |cx: NativeCallContext<'_>, items: Array, test: FnPtr| -> Native<bool> {
                for item in items {
                    if says(&shared, &cx, &test, &item)? == stops_at {
                        return Ok(stops_at);
                    }
                }
                Ok(!stops_at)
            },
        );
    }
}

/// Functions that would take anything but `true` for false, or swallow their callback's errors.
fn refusals(engine: &mut Engine) {
    let refuse = |cx: &NativeCallContext<'_>, name: &str| -> Native<Dynamic> {
        let message = format!("`{name}` is not part of the plan language in this form");
        let diagnostic = Diagnostic::error(Code::ScriptUnknownFunction, message);
        Err(throw(diagnostic.help("use `filter`, `map`, `sort()` or a loop"), cx.call_position()))
    };
    for name in ["sort", "sort_by", "order", "order_by", "dedup", "drain", "retain", "index_of", "find_map"] {
        engine.register_fn(name, move |cx: NativeCallContext<'_>, _: &mut Array, _: FnPtr| refuse(&cx, name));
    }
    for name in ["filter", "drain", "retain"] {
        engine.register_fn(name, move |cx: NativeCallContext<'_>, _: &mut Map, _: FnPtr| refuse(&cx, name));
    }
    for name in ["order", "order_desc", "sort_desc"] {
        engine.register_fn(name, move |cx: NativeCallContext<'_>, _: &mut Array| refuse(&cx, name));
    }
}

fn ordering(engine: &mut Engine, session: &Shared) {
    let shared = Shared::clone(session);
    // Sorting compares without calling `==` or `<`, so it is guarded as a whole.
    engine.register_fn("sort", move |cx: NativeCallContext<'_>, items: &mut Array| -> Native<()> {
        if items.iter().all(Dynamic::is_int) {
            items.sort_by_key(|item| item.as_int().unwrap_or_default());
            return Ok(());
        }
        let texts: Result<Vec<ImmutableString>, _> =
            items.iter().map(|item| item.clone().into_immutable_string()).collect();
        let Ok(mut texts) = texts else {
            return Err(wrong(
                &cx,
                "`sort` takes a list of ints or of strings".to_owned(),
                "make them alike first",
            ));
        };
        for text in &texts {
            guard(&shared, &cx, "sort", &[text])?;
        }
        texts.sort();
        *items = texts.into_iter().map(Dynamic::from).collect();
        Ok(())
    });
    engine.register_fn(
        "join",
        |cx: NativeCallContext<'_>, items: &mut Array, by: ImmutableString| -> Native<ImmutableString> {
            let texts: Result<Vec<ImmutableString>, _> =
                items.iter().map(|item| item.clone().into_immutable_string()).collect();
            let texts = texts.map_err(|found| {
                let message = format!("`join` takes a list of strings, found a {}", type_name(found));
                wrong(&cx, message, "turn each into text with `${...}` in backticks")
            })?;
            let lengths = texts.iter().map(|text| text.len().saturating_add(by.len()));
            bounded(&cx, lengths.fold(0, usize::saturating_add))?;
            Ok(texts.iter().map(ImmutableString::as_str).collect::<Vec<_>>().join(&by).into())
        },
    );
}
