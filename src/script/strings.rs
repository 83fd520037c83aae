//! String functions of the plan language. They are ours, not Rhai's packages, because each one must
//! notice a value that is not known yet: comparing, measuring or cutting a token would be silently wrong.

use rhai::{Array, Dynamic, Engine, EvalAltResult, ImmutableString, NativeCallContext};

use super::deferred::{Deferred, Secret};
use super::session::{Native, Session, Shared, secret_used, throw};
use super::tokens::{has_private, is_private};
use super::types::type_name;
use crate::diagnostic::{Code, Diagnostic};

pub(super) fn guard(session: &Session, cx: &NativeCallContext<'_>, name: &str, texts: &[&str]) -> Native<()> {
    match texts.iter().find(|text| has_private(text)) {
        None => Ok(()),
        Some(text) => Err(throw(session.token_error(text, &format!("`{name}`")), cx.call_position())),
    }
}

pub(super) fn guard_char(session: &Session, cx: &NativeCallContext<'_>, name: &str, c: char) -> Native<()> {
    if is_private(c) {
        return Err(throw(session.token_error(&c.to_string(), &format!("`{name}`")), cx.call_position()));
    }
    Ok(())
}

/// Registers everything on strings.
pub(super) fn register(engine: &mut Engine, session: &Shared) {
    comparisons(engine, session);
    mixed_comparisons(engine, session);
    joining(engine, session);
    measuring(engine, session);
    changing(engine, session);
}

macro_rules! compare {
    ($engine:expr, $session:expr, $($name:literal => $test:expr),+ $(,)?) => {$(
        let shared = Shared::clone($session);
        $engine.register_fn($name, move |cx: NativeCallContext<'_>, left: ImmutableString, right: ImmutableString| -> Native<bool> {
            guard(&shared, &cx, $name, &[&left, &right])?;
            let test: fn(&str, &str) -> bool = $test;
            Ok(test(&left, &right))
        });
        let shared = Shared::clone($session);
        $engine.register_fn($name, move |cx: NativeCallContext<'_>, left: char, right: char| -> Native<bool> {
            guard_char(&shared, &cx, $name, left)?;
            guard_char(&shared, &cx, $name, right)?;
            let test: fn(&str, &str) -> bool = $test;
            Ok(test(&left.to_string(), &right.to_string()))
        });
    )+};
}

fn comparisons(engine: &mut Engine, session: &Shared) {
    compare!(engine, session,
        "==" => |left, right| left == right,
        "!=" => |left, right| left != right,
        "<" => |left, right| left < right,
        "<=" => |left, right| left <= right,
        ">" => |left, right| left > right,
        ">=" => |left, right| left >= right,
    );
}

/// Compares a string with what is no string: equal to nothing, and without order. A handle is no plain value.
fn mixed(
    session: &Session,
    cx: &NativeCallContext<'_>,
    name: &str,
    text: &str,
    other: &Dynamic,
) -> Native<bool> {
    guard(session, cx, name, &[text])?;
    if let Some(handle) = other.read_lock::<Deferred>() {
        let diagnostic = session.deferred_error(&handle.reference, &format!("`{name}`"));
        return Err(throw(diagnostic, cx.call_position()));
    }
    if let Some(secret) = other.read_lock::<Secret>() {
        return Err(throw(secret_used(&secret.0, &format!("`{name}`")), cx.call_position()));
    }
    match name {
        "==" if other.is_char() || other.is_string() => Ok(other.to_string() == text),
        "!=" if other.is_char() || other.is_string() => Ok(other.to_string() != text),
        "==" => Ok(false),
        "!=" => Ok(true),
        _ => {
            let message = format!("`{name}` compares a string with a {}", type_name(other.type_name()));
            Err(throw(Diagnostic::error(Code::ScriptWrongType, message), cx.call_position()))
        }
    }
}

fn mixed_comparisons(engine: &mut Engine, session: &Shared) {
    for name in ["==", "!=", "<", "<=", ">", ">="] {
        let shared = Shared::clone(session);
        engine.register_fn(name, move |cx: NativeCallContext<'_>, text: ImmutableString, other: Dynamic| {
            mixed(&shared, &cx, name, &text, &other)
        });
        let shared = Shared::clone(session);
        engine.register_fn(name, move |cx: NativeCallContext<'_>, other: Dynamic, text: ImmutableString| {
            mixed(&shared, &cx, name, &text, &other)
        });
        let shared = Shared::clone(session);
        engine.register_fn(name, move |cx: NativeCallContext<'_>, c: char, other: Dynamic| {
            mixed(&shared, &cx, name, &c.to_string(), &other)
        });
    }
}

/// Joins text and a plain value.
fn joined(left: &Dynamic, right: &Dynamic, cx: &NativeCallContext<'_>) -> Native<ImmutableString> {
    let scalar = |item: &Dynamic| {
        let plain = item.is_string() || item.is_int() || item.is_float() || item.is_bool() || item.is_char();
        plain.then(|| item.to_string())
    };
    if let (Some(left), Some(right)) = (scalar(left), scalar(right)) {
        return Ok(format!("{left}{right}").into());
    }
    let (left, right) = (type_name(left.type_name()), type_name(right.type_name()));
    let diagnostic =
        Diagnostic::error(Code::ScriptWrongType, format!("a {left} and a {right} cannot be joined"));
    Err(throw(diagnostic.help("use `${...}` in backticks"), cx.call_position()))
}

fn joining(engine: &mut Engine, session: &Shared) {
    engine.register_fn("+", |left: ImmutableString, right: ImmutableString| -> ImmutableString {
        left + &*right
    });
    engine.register_fn("+", |left: ImmutableString, right: char| -> ImmutableString { left + right });
    engine.register_fn("+", |cx: NativeCallContext<'_>, left: ImmutableString, right: Dynamic| {
        joined(&left.into(), &right, &cx)
    });
    engine.register_fn("+", |cx: NativeCallContext<'_>, left: Dynamic, right: ImmutableString| {
        joined(&left, &right.into(), &cx)
    });
    let shared = Shared::clone(session);
    let refuse =
        move |cx: &NativeCallContext<'_>, name: &str, left: &str, right: &Dynamic| -> Native<Dynamic> {
            guard(&shared, cx, name, &[left, &right.to_string()])?;
            let diagnostic =
                Diagnostic::error(Code::ScriptWrongType, "text is not subtracted").help("use `replaced`");
            Err(throw(diagnostic, cx.call_position()))
        };
    let subtract = refuse.clone();
    engine.register_fn("-", move |cx: NativeCallContext<'_>, left: ImmutableString, right: Dynamic| {
        subtract(&cx, "-", &left, &right)
    });
    engine.register_fn("-=", move |cx: NativeCallContext<'_>, left: &mut ImmutableString, right: Dynamic| {
        refuse(&cx, "-=", left, &right).map(|_| ())
    });
}

/// Registers a function of one string, guarded.
macro_rules! of_text {
    ($engine:expr, $session:expr, $name:literal, |$text:ident| $result:expr, $type:ty) => {
        let shared = Shared::clone($session);
        $engine.register_fn(
            $name,
            move |cx: NativeCallContext<'_>, $text: ImmutableString| -> Native<$type> {
                guard(&shared, &cx, $name, &[&$text])?;
                Ok($result)
            },
        );
    };
    ($engine:expr, $session:expr, $name:literal, |$text:ident, $other:ident| $result:expr, $type:ty) => {
        let shared = Shared::clone($session);
        $engine.register_fn(
            $name,
            move |cx: NativeCallContext<'_>,
                  $text: ImmutableString,
                  $other: ImmutableString|
                  -> Native<$type> {
                guard(&shared, &cx, $name, &[&$text, &$other])?;
                Ok($result)
            },
        );
    };
}

fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn measuring(engine: &mut Engine, session: &Shared) {
    of_text!(engine, session, "len", |text| count(text.chars().count()), i64);
    of_text!(engine, session, "bytes", |text| count(text.len()), i64);
    of_text!(engine, session, "is_empty", |text| text.is_empty(), bool);
    of_text!(engine, session, "contains", |text, part| text.contains(part.as_str()), bool);
    of_text!(engine, session, "starts_with", |text, part| text.starts_with(part.as_str()), bool);
    of_text!(engine, session, "ends_with", |text, part| text.ends_with(part.as_str()), bool);
    of_text!(
        engine,
        session,
        "index_of",
        |text, part| text.find(part.as_str()).map_or(-1, |at| count(text[..at].chars().count())),
        i64
    );
    let shared = Shared::clone(session);
    engine.register_get("len", move |cx: NativeCallContext<'_>, text: &mut ImmutableString| -> Native<i64> {
        guard(&shared, &cx, ".len", &[text])?;
        Ok(count(text.chars().count()))
    });
}

fn changing(engine: &mut Engine, session: &Shared) {
    of_text!(engine, session, "to_upper", |text| text.to_uppercase().into(), ImmutableString);
    of_text!(engine, session, "to_lower", |text| text.to_lowercase().into(), ImmutableString);
    of_text!(engine, session, "trimmed", |text| text.trim().into(), ImmutableString);
    of_text!(engine, session, "chars", |text| text.chars().map(Dynamic::from).collect(), Array);
    of_text!(engine, session, "split", |text| text.split_whitespace().map(Into::into).collect(), Array);
    of_text!(engine, session, "split", |text, by| text.split(by.as_str()).map(Into::into).collect(), Array);
    let shared = Shared::clone(session);
    engine.register_fn(
        "replaced",
        move |cx: NativeCallContext<'_>,
              text: ImmutableString,
              from: ImmutableString,
              to: ImmutableString|
              -> Native<ImmutableString> {
            guard(&shared, &cx, "replaced", &[&text, &from])?;
            let growth = text.matches(from.as_str()).count().saturating_mul(to.len());
            bounded(&cx, text.len().saturating_add(growth))?;
            Ok(text.replace(from.as_str(), &to).into())
        },
    );
    let shared = Shared::clone(session);
    engine.register_fn(
        "sub_string",
        move |cx: NativeCallContext<'_>,
              text: ImmutableString,
              start: i64,
              len: i64|
              -> Native<ImmutableString> {
            guard(&shared, &cx, "sub_string", &[&text])?;
            let (start, len) = (usize::try_from(start).unwrap_or(0), usize::try_from(len).unwrap_or(0));
            Ok(text.chars().skip(start).take(len).collect::<String>().into())
        },
    );
    let shared = Shared::clone(session);
    engine.register_fn(
        "sub_string",
        move |cx: NativeCallContext<'_>, text: ImmutableString, start: i64| -> Native<ImmutableString> {
            guard(&shared, &cx, "sub_string", &[&text])?;
            Ok(text.chars().skip(usize::try_from(start).unwrap_or(0)).collect::<String>().into())
        },
    );
}

/// Refuses to build a text that is larger than the sandbox allows, before it is built.
pub(super) fn bounded(cx: &NativeCallContext<'_>, bytes: usize) -> Native<()> {
    if bytes <= cx.engine().max_string_size() {
        return Ok(());
    }
    Err(EvalAltResult::ErrorDataTooLarge("Length of string".to_owned(), cx.call_position()).into())
}
