//! The functions of the plan language besides the primitives; `keywords` documents them.

use rhai::{Dynamic, Engine, ImmutableString, Map as RhaiMap, NativeCallContext};

use super::convert::{to_dynamic, to_map, to_value};
use super::deferred::Deferred;
use super::params::param;
use super::session::{Native, Session, Shared, throw};
use super::steps::OutputTypes;
use super::tokens::has_private;
use crate::diagnostic::{Code, Diagnostic};
use crate::plan::{Budget, SecretSource};
use crate::primitives::Schema;
use crate::value::{Value, to_typed};

/// Registers them.
pub(super) fn register(engine: &mut Engine, session: &Shared) {
    macro_rules! builtin {
        ($name:literal, |$session:ident, $cx:ident $(, $arg:ident: $type:ty)*| $body:expr) => {
            let shared = Shared::clone(session);
            engine.register_fn($name, move |$cx: NativeCallContext<'_> $(, $arg: $type)*| {
                let $session: &Session = &shared;
                let $cx = &$cx;
                $body
            });
        };
    }
    builtin!("param", |session, cx, name: ImmutableString, spec: RhaiMap| param(session, cx, &name, spec));
    builtin!("secret", |session, cx, name: ImmutableString, spec: RhaiMap| {
        secret(session, cx, &name, spec)
    });
    if let Some(fleet) = &session.fleet {
        let name = ImmutableString::from(&fleet.name);
        engine.register_fn("fleet_name", move || name.clone());
        let canonical: rhai::Array = fleet.canonical.iter().cloned().map(Dynamic::from).collect();
        engine.register_fn("canonical_files", move || canonical.clone());
    }
    builtin!("read_text", |session, cx, path: ImmutableString| read(session, cx, &path)
        .map(ImmutableString::from));
    builtin!("read_json", |session, cx, path: ImmutableString| read_json(session, cx, &path));
    builtin!("read_toml", |session, cx, path: ImmutableString| read_toml(session, cx, &path));
    builtin!("output", |session, cx, name: ImmutableString, value: Dynamic| {
        output(session, cx, &name, value)
    });
    builtin!("assert", |session, cx, condition: Dynamic, message: ImmutableString| assert(
        session, cx, &condition, &message
    ));
    builtin!("fail", |session, cx, message: ImmutableString| fail(session, cx, &message));
    builtin!("warn", |session, cx, message: ImmutableString| warn(session, cx, &message));
    builtin!("allow", |session, cx, budget: RhaiMap| allow(session, cx, budget));
}

fn stop(session: &Session, cx: &NativeCallContext<'_>, diagnostic: Diagnostic) -> Box<rhai::EvalAltResult> {
    throw(diagnostic.at(session.call_origin(cx)), cx.call_position())
}

fn read(session: &Session, cx: &NativeCallContext<'_>, path: &str) -> Native<String> {
    if has_private(path) {
        return Err(stop(session, cx, session.token_error(path, "a file's path")));
    }
    let text = session.project.read(path).map_err(|diagnostic| {
        let position = session.spans.borrow().arg(&session.file(cx), cx.call_position(), 0);
        let origin = session.origin(&session.file(cx), position.unwrap_or_else(|| cx.call_position()));
        throw(diagnostic.at(origin), cx.call_position())
    })?;
    Ok(text)
}

fn not_parsed(
    session: &Session,
    cx: &NativeCallContext<'_>,
    path: &str,
    what: &str,
    error: &dyn std::fmt::Display,
) -> Box<rhai::EvalAltResult> {
    stop(session, cx, Diagnostic::error(Code::ScriptFile, format!("`{path}` is not valid {what}: {error}")))
}

/// Whether parsed data holds a character of tokens.
pub(super) fn holds_private(value: &Value) -> bool {
    match value {
        Value::String(text) => has_private(text),
        Value::List(items) => items.iter().any(holds_private),
        Value::Map(map) => map.iter().any(|(key, item)| has_private(key) || holds_private(item)),
        _ => false,
    }
}

/// Parsed data for the script. Escapes can write characters that the file's text does not hold.
fn data(
    session: &Session,
    cx: &NativeCallContext<'_>,
    path: &str,
    json: serde_json::Value,
) -> Native<Dynamic> {
    let value =
        Value::try_from(json).map_err(|error| not_parsed(session, cx, path, "data for a plan", &error))?;
    if holds_private(&value) {
        return Err(stop(session, cx, super::files::forged(path)));
    }
    Ok(to_dynamic(&value, None))
}

fn read_json(session: &Session, cx: &NativeCallContext<'_>, path: &str) -> Native<Dynamic> {
    let json = serde_json::from_str(&read(session, cx, path)?)
        .map_err(|error| not_parsed(session, cx, path, "JSON", &error))?;
    data(session, cx, path, json)
}

fn read_toml(session: &Session, cx: &NativeCallContext<'_>, path: &str) -> Native<Dynamic> {
    let table: toml::Table = read(session, cx, path)?
        .parse()
        .map_err(|error: toml::de::Error| not_parsed(session, cx, path, "TOML", &error))?;
    let json = plain_toml(toml::Value::Table(table))
        .map_err(|error| not_parsed(session, cx, path, "data for a plan", &error))?;
    data(session, cx, path, json)
}

/// TOML as JSON; dates become their text.
fn plain_toml(value: toml::Value) -> Result<serde_json::Value, String> {
    Ok(match value {
        toml::Value::String(text) => text.into(),
        toml::Value::Integer(number) => number.into(),
        toml::Value::Boolean(value) => value.into(),
        toml::Value::Datetime(date) => date.to_string().into(),
        toml::Value::Float(number) => serde_json::Number::from_f64(number)
            .ok_or_else(|| format!("{number} is no number a plan can hold"))?
            .into(),
        toml::Value::Array(items) => items.into_iter().map(plain_toml).collect::<Result<Vec<_>, _>>()?.into(),
        toml::Value::Table(table) => table
            .into_iter()
            .map(|(key, item)| Ok((key, plain_toml(item)?)))
            .collect::<Result<serde_json::Map<_, _>, String>>()?
            .into(),
    })
}

fn secret(
    session: &Session,
    cx: &NativeCallContext<'_>,
    name: &str,
    spec: RhaiMap,
) -> Native<super::deferred::Secret> {
    if has_private(name) {
        return Err(stop(session, cx, session.token_error(name, "a secret's name")));
    }
    const SOURCES: [&str; 3] = ["env:", "file:", "ssm:/"];
    let map = to_map(session, spec).map_err(|unreadable| stop(session, cx, unreadable.diagnostic))?;
    let source: SecretSource = to_typed(&Value::Map(map)).map_err(|error| {
        stop(
            session,
            cx,
            Diagnostic::error(Code::ScriptSecret, format!("the secret `{name}`: {error}"))
                .help("write secret(\"name\", #{ from: \"env:NAME\" })"),
        )
    })?;
    if !SOURCES.iter().any(|prefix| source.from.len() > prefix.len() && source.from.starts_with(prefix)) {
        let message =
            format!("the secret `{name}` comes from `{}`, which is no source", source.from.escape_debug());
        return Err(stop(
            session,
            cx,
            Diagnostic::error(Code::ScriptSecret, message)
                .help("sources are `env:NAME`, `file:PATH` and `ssm:/PATH`"),
        ));
    }
    if !session.recorder.borrow_mut().secret(name, &source) {
        let message = format!("the secret `{name}` is declared with two sources");
        return Err(stop(session, cx, Diagnostic::error(Code::ScriptSecret, message)));
    }
    Ok(super::deferred::Secret(name.into()))
}

fn output(session: &Session, cx: &NativeCallContext<'_>, name: &str, value: Dynamic) -> Native<()> {
    if has_private(name) {
        return Err(stop(session, cx, session.token_error(name, "an output's name")));
    }
    let value = to_value(session, value).map_err(|unreadable| stop(session, cx, unreadable.diagnostic))?;
    for problem in Schema::any().check(&value, &OutputTypes(session)) {
        let mut diagnostic = Diagnostic::error(problem.code, format!("output `{name}`: {}", problem.message))
            .at(session.call_origin(cx));
        diagnostic.help = problem.help;
        session.report(diagnostic, cx)?;
    }
    let mut hidden = None;
    value.secrets(&mut |secret| hidden = Some(secret.clone()));
    if let Some(secret) = hidden {
        let message = format!("output `{name}` would show the secret `{secret}`");
        session.report(Diagnostic::error(Code::ScriptSecret, message).at(session.call_origin(cx)), cx)?;
    }
    if !session.recorder.borrow_mut().output(name, value) {
        let message = format!("the output `{name}` is set twice");
        session.report(Diagnostic::error(Code::ScriptMisplaced, message).at(session.call_origin(cx)), cx)?;
    }
    Ok(())
}

fn assert(session: &Session, cx: &NativeCallContext<'_>, condition: &Dynamic, message: &str) -> Native<()> {
    if let Some(handle) = condition.read_lock::<Deferred>() {
        return Err(stop(session, cx, session.deferred_error(&handle.reference, "`assert`")));
    }
    match condition.as_bool() {
        Ok(true) => Ok(()),
        Ok(false) => {
            let text = session.tokens.borrow().readable(message);
            Err(stop(session, cx, Diagnostic::error(Code::ScriptAssert, text).label("this does not hold")))
        }
        Err(found) => {
            let message = format!("`assert` takes a bool, found a {}", super::types::type_name(found));
            Err(stop(session, cx, Diagnostic::error(Code::ScriptWrongType, message)))
        }
    }
}

fn fail(session: &Session, cx: &NativeCallContext<'_>, message: &str) -> Native<()> {
    let text = session.tokens.borrow().readable(message);
    Err(stop(session, cx, Diagnostic::error(Code::ScriptFail, text)))
}

fn warn(session: &Session, cx: &NativeCallContext<'_>, message: &str) -> Native<()> {
    let text = session.tokens.borrow().readable(message);
    session.recorder.borrow_mut().warn(text.clone());
    session
        .warnings
        .borrow_mut()
        .push(Diagnostic::warning(Code::ScriptWarn, text).at(session.call_origin(cx)));
    Ok(())
}

fn allow(session: &Session, cx: &NativeCallContext<'_>, budget: RhaiMap) -> Native<()> {
    let fail = |code: Code, message: String| stop(session, cx, Diagnostic::error(code, message));
    if !session.is_top_level(cx) {
        return Err(fail(
            Code::ScriptMisplaced,
            "`allow` stands at the top level of the plan script only, where a reviewer looks".to_owned(),
        ));
    }
    let map = to_map(session, budget).map_err(|unreadable| stop(session, cx, unreadable.diagnostic))?;
    let budget: Budget = to_typed(&Value::Map(map)).map_err(|error| {
        stop(
            session,
            cx,
            Diagnostic::error(Code::ScriptWrongType, format!("allow: {error}"))
                .help("keys are destroy, replace, format (lists of globs), max_destroy, max_replace (ints)"),
        )
    })?;
    budget.check_globs().map_err(|error| fail(Code::ScriptWrongType, format!("allow: {error}")))?;
    session.recorder.borrow_mut().allow(budget, session.call_origin(cx)).map_err(|first| {
        let diagnostic = Diagnostic::error(Code::ScriptMisplaced, "`allow` is called twice")
            .related("called here first", first)
            .help("one call, so that a reviewer sees the whole budget at once");
        stop(session, cx, diagnostic)
    })
}
