//! String and list functions of the plan language. They are ours, not Rhai's packages, because each one must
//! notice a value that is not known yet: comparing, measuring or cutting a token would be silently wrong.

use rhai::{Array, Dynamic, Engine, ImmutableString, Map, NativeCallContext};

use super::session::{Native, Shared, throw};
use super::tokens::{has_private, is_private};

fn guard(session: &Shared, cx: &NativeCallContext<'_>, name: &str, texts: &[&str]) -> Native<()> {
    match texts.iter().find(|text| has_private(text)) {
        None => Ok(()),
        Some(text) => Err(throw(
            session.token_error(text, &format!("`{name}`")),
            cx.call_position(),
        )),
    }
}

fn guard_char(session: &Shared, cx: &NativeCallContext<'_>, name: &str, c: char) -> Native<()> {
    if is_private(c) {
        return Err(throw(
            session.token_error(&c.to_string(), &format!("`{name}`")),
            cx.call_position(),
        ));
    }
    Ok(())
}

/// Registers everything on strings.
pub(super) fn register(engine: &mut Engine, session: &Shared) {
    comparisons(engine, session);
    joining(engine);
    measuring(engine, session);
    changing(engine, session);
    lists(engine, session);
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

fn joining(engine: &mut Engine) {
    fn scalar(item: &Dynamic) -> Option<String> {
        (item.is_int() || item.is_float() || item.is_bool() || item.is_char()).then(|| item.to_string())
    }
    fn refused(item: &Dynamic) -> Box<rhai::EvalAltResult> {
        format!(
            "cannot join text and a {}: use \"${{...}}\"",
            super::errors::type_name(item.type_name())
        )
        .into()
    }
    engine.register_fn(
        "+",
        |left: ImmutableString, right: Dynamic| -> Native<ImmutableString> {
            scalar(&right)
                .map(|text| format!("{left}{text}").into())
                .ok_or_else(|| refused(&right))
        },
    );
    engine.register_fn(
        "+",
        |left: Dynamic, right: ImmutableString| -> Native<ImmutableString> {
            scalar(&left)
                .map(|text| format!("{text}{right}").into())
                .ok_or_else(|| refused(&left))
        },
    );
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
    of_text!(
        engine,
        session,
        "contains",
        |text, part| text.contains(part.as_str()),
        bool
    );
    of_text!(
        engine,
        session,
        "starts_with",
        |text, part| text.starts_with(part.as_str()),
        bool
    );
    of_text!(
        engine,
        session,
        "ends_with",
        |text, part| text.ends_with(part.as_str()),
        bool
    );
    of_text!(
        engine,
        session,
        "index_of",
        |text, part| text
            .find(part.as_str())
            .map_or(-1, |at| count(text[..at].chars().count())),
        i64
    );
    let shared = Shared::clone(session);
    engine.register_get(
        "len",
        move |cx: NativeCallContext<'_>, text: &mut ImmutableString| -> Native<i64> {
            guard(&shared, &cx, ".len", &[text])?;
            Ok(count(text.chars().count()))
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
}

fn changing(engine: &mut Engine, session: &Shared) {
    of_text!(
        engine,
        session,
        "to_upper",
        |text| text.to_uppercase().into(),
        ImmutableString
    );
    of_text!(
        engine,
        session,
        "to_lower",
        |text| text.to_lowercase().into(),
        ImmutableString
    );
    of_text!(
        engine,
        session,
        "trimmed",
        |text| text.trim().into(),
        ImmutableString
    );
    of_text!(
        engine,
        session,
        "chars",
        |text| text.chars().map(Dynamic::from).collect(),
        Array
    );
    of_text!(
        engine,
        session,
        "split",
        |text| text.split_whitespace().map(Into::into).collect(),
        Array
    );
    of_text!(
        engine,
        session,
        "split",
        |text, by| text.split(by.as_str()).map(Into::into).collect(),
        Array
    );
    let shared = Shared::clone(session);
    engine.register_fn(
        "replaced",
        move |cx: NativeCallContext<'_>,
              text: ImmutableString,
              from: ImmutableString,
              to: ImmutableString|
              -> Native<ImmutableString> {
            guard(&shared, &cx, "replaced", &[&text, &from])?;
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
            let (start, len) = (
                usize::try_from(start).unwrap_or(0),
                usize::try_from(len).unwrap_or(0),
            );
            Ok(text.chars().skip(start).take(len).collect::<String>().into())
        },
    );
    let shared = Shared::clone(session);
    engine.register_fn(
        "sub_string",
        move |cx: NativeCallContext<'_>, text: ImmutableString, start: i64| -> Native<ImmutableString> {
            guard(&shared, &cx, "sub_string", &[&text])?;
            Ok(text
                .chars()
                .skip(usize::try_from(start).unwrap_or(0))
                .collect::<String>()
                .into())
        },
    );
}

fn lists(engine: &mut Engine, session: &Shared) {
    let shared = Shared::clone(session);
    // Sorting compares without calling `==` or `<`, so it is guarded as a whole.
    engine.register_fn(
        "sort",
        move |cx: NativeCallContext<'_>, items: &mut Array| -> Native<()> {
            if items.iter().all(Dynamic::is_int) {
                items.sort_by_key(|item| item.as_int().unwrap_or_default());
                return Ok(());
            }
            if !items.iter().all(Dynamic::is_string) {
                return Err("`sort` takes a list of ints or of strings".into());
            }
            let texts: Vec<ImmutableString> = items
                .iter()
                .filter_map(|item| item.clone().into_immutable_string().ok())
                .collect();
            for text in &texts {
                guard(&shared, &cx, "sort", &[text])?;
            }
            let mut texts = texts;
            texts.sort();
            *items = texts.into_iter().map(Dynamic::from).collect();
            Ok(())
        },
    );
    engine.register_fn(
        "join",
        |items: &mut Array, by: ImmutableString| -> Native<ImmutableString> {
            let texts: Result<Vec<ImmutableString>, _> = items
                .iter()
                .map(|item| item.clone().into_immutable_string())
                .collect();
            let texts = texts.map_err(|found| {
                format!(
                    "`join` takes a list of strings, found a {}",
                    super::errors::type_name(found)
                )
            })?;
            Ok(texts
                .iter()
                .map(ImmutableString::as_str)
                .collect::<Vec<_>>()
                .join(&by)
                .into())
        },
    );
}
