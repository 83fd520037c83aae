//! Between Rhai's values and ours. Reading refuses what a plan cannot hold: functions, ranges, numbers that
//! are not finite, handles as keys, and strings that hold a damaged token.

use rhai::{Dynamic, ImmutableString, Map as RhaiMap};
use smol_str::SmolStr;

use super::deferred::{Deferred, Secret};
use super::session::Session;
use super::tokens::{Piece, has_private, template};
use crate::diagnostic::{Code, Diagnostic};
use crate::value::{Map, Path, Value};

/// What could not be read, and where in the value.
pub(super) struct Unreadable {
    pub(super) path: Path,
    pub(super) diagnostic: Diagnostic,
}

/// Reads a value out of the script.
pub(super) fn to_value(session: &Session, item: Dynamic) -> Result<Value, Box<Unreadable>> {
    read(session, item, &Path::root())
}

/// Reads a map out of the script.
pub(super) fn to_map(session: &Session, map: RhaiMap) -> Result<Map, Box<Unreadable>> {
    read_map(session, map, &Path::root())
}

fn unreadable(path: &Path, diagnostic: Diagnostic) -> Box<Unreadable> {
    Box::new(Unreadable { path: path.clone(), diagnostic })
}

fn read(session: &Session, item: Dynamic, at: &Path) -> Result<Value, Box<Unreadable>> {
    let item = item.flatten();
    if let Some(text) = item.read_lock::<ImmutableString>() {
        return read_text(session, &text, at);
    }
    if item.is_map() {
        let map = item.cast::<RhaiMap>();
        return read_map(session, map, at).map(Value::Map);
    }
    if item.is_array() {
        let items = item.cast::<rhai::Array>();
        return items
            .into_iter()
            .enumerate()
            .map(|(index, item)| read(session, item, &at.index(index)))
            .collect::<Result<_, _>>()
            .map(Value::List);
    }
    if let Some(handle) = item.read_lock::<Deferred>() {
        return Ok(Value::Ref(std::sync::Arc::clone(&handle.reference)));
    }
    if let Some(secret) = item.read_lock::<Secret>() {
        return Ok(Value::Secret(secret.0.clone()));
    }
    if item.is_unit() {
        return Ok(Value::Null);
    }
    if let Ok(value) = item.as_int() {
        return Ok(Value::Int(value));
    }
    if let Ok(value) = item.as_bool() {
        return Ok(Value::Bool(value));
    }
    if let Ok(value) = item.as_float() {
        return if value.is_finite() {
            Ok(Value::Float(value))
        } else {
            let message = format!("{value} is not a number a plan can hold");
            Err(unreadable(at, Diagnostic::error(Code::ScriptWrongType, message)))
        };
    }
    if let Ok(value) = item.as_char() {
        let mut buffer = [0; 4];
        return read_text(session, value.encode_utf8(&mut buffer), at);
    }
    let message = format!("a plan cannot hold a {}", super::types::type_name(item.type_name()));
    Err(unreadable(
        at,
        Diagnostic::error(Code::ScriptWrongType, message)
            .help("values are text, numbers, bools, lists and maps"),
    ))
}

fn read_map(session: &Session, map: RhaiMap, at: &Path) -> Result<Map, Box<Unreadable>> {
    map.into_iter()
        .map(|(key, item)| {
            if has_private(&key) {
                return Err(unreadable(at, session.token_error(&key, "a map key")));
            }
            let key = SmolStr::new(key.as_str());
            // The path is built only for values that can fail below it.
            let value = match item.is_int() || item.is_bool() || item.is_unit() {
                true => read(session, item, at)?,
                false => read(session, item, &at.key(key.clone()))?,
            };
            Ok((key, value))
        })
        .collect()
}

fn read_text(session: &Session, text: &str, at: &Path) -> Result<Value, Box<Unreadable>> {
    if !has_private(text) {
        return Ok(Value::string(text));
    }
    let tokens = session.tokens.borrow();
    match tokens.split(text) {
        Err(_) => {
            drop(tokens);
            let diagnostic = Diagnostic::error(
                Code::ScriptDeferredCut,
                format!(
                    "the text \"{}\" holds a piece of a value that is known only after apply",
                    session.tokens.borrow().readable(text).escape_debug()
                ),
            )
            .help("a string function cut that value apart; pass it on whole");
            Err(unreadable(at, diagnostic))
        }
        Ok(pieces) => match template(&pieces) {
            Ok(value) if pieces.iter().any(|piece| matches!(piece, Piece::Token(_))) => Ok(value),
            Ok(_) => Ok(Value::string(text)),
            Err(name) => Err(unreadable(
                at,
                Diagnostic::error(Code::ScriptSecret, format!("the secret `{name}` cannot be put into text"))
                    .help("text is stored and shown; pass the secret on whole"),
            )),
        },
    }
}

/// A value for the script. Leaves that only plans have do not occur in what scripts read; in models, unknown
/// leaves become handles with `path` below `handle`.
pub(super) fn to_dynamic(value: &Value, handle: Option<&Deferred>) -> Dynamic {
    match value {
        Value::Null => Dynamic::UNIT,
        Value::Bool(value) => (*value).into(),
        Value::Int(value) => (*value).into(),
        Value::Float(value) => (*value).into(),
        Value::String(text) => text.as_str().into(),
        Value::List(items) => Dynamic::from_array(
            items
                .iter()
                .enumerate()
                .map(|(index, item)| to_dynamic(item, handle.map(|handle| handle.index(index)).as_ref()))
                .collect(),
        ),
        Value::Map(map) => Dynamic::from_map(
            map.iter()
                .map(|(key, item)| {
                    let below = handle.map(|handle| handle.key(key));
                    (key.as_str().into(), to_dynamic(item, below.as_ref()))
                })
                .collect(),
        ),
        Value::Secret(name) => Dynamic::from(Secret(name.clone())),
        Value::Ref(_) | Value::Template(_) | Value::Unknown => match handle {
            Some(handle) => Dynamic::from(handle.clone()),
            None => Dynamic::UNIT,
        },
    }
}
