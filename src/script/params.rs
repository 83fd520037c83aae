//! Parameters: declared by `param` in the script, given on the command line or in a file. A wrong one does not
//! end the evaluation: all are reported together, and nothing else, because the rest may follow from them.

use std::collections::BTreeMap;

use regex_lite::Regex;
use rhai::{Dynamic, ImmutableString, Map as RhaiMap, NativeCallContext};

use super::builtins::holds_private;
use super::convert::{to_dynamic, to_map};
use super::session::{Native, Session, throw};
use super::spans::Side;
use super::tokens::has_private;
use super::{Given, files};
use crate::diagnostic::{Code, Diagnostic, nearest};
use crate::value::{Map, Path, Value, to_typed};

/// The parameters of one evaluation.
#[derive(Debug, Default)]
pub(super) struct Params {
    given: BTreeMap<String, Given>,
    /// Declared ones with their final values.
    pub(super) declared: Map,
    /// Whether any is missing or wrong.
    pub(super) failed: bool,
}

/// What a parameter may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Type {
    String,
    Int,
    Float,
    Bool,
    List,
    Map,
}

const TYPES: [(&str, Type); 6] = [
    ("string", Type::String),
    ("int", Type::Int),
    ("float", Type::Float),
    ("bool", Type::Bool),
    ("list", Type::List),
    ("map", Type::Map),
];

/// Matching takes time that grows with both.
const MAX_PATTERN_BYTES: usize = 512;
const MAX_MATCHED_BYTES: usize = 4096;

const KEYS: [&str; 7] = ["type", "default", "min", "max", "choices", "pattern", "doc"];

impl Type {
    fn name(self) -> &'static str {
        TYPES.iter().find(|(_, it)| *it == self).map_or("", |(name, _)| name)
    }

    /// What stands in for a parameter that is missing, so that the evaluation can go on to the next one.
    fn stand_in(self) -> Value {
        match self {
            Self::String => "".into(),
            Self::Int => Value::Int(0),
            Self::Float => Value::Float(0.0),
            Self::Bool => Value::Bool(false),
            Self::List => Value::List(Vec::new()),
            Self::Map => Value::Map(Map::new()),
        }
    }

    fn fits(self, value: &Value) -> bool {
        matches!(
            (self, value),
            (Self::String, Value::String(_))
                | (Self::Int, Value::Int(_))
                | (Self::Float, Value::Float(_) | Value::Int(_))
                | (Self::Bool, Value::Bool(_))
                | (Self::List, Value::List(_))
                | (Self::Map, Value::Map(_))
        )
    }

    /// Reads the text of `--param k=v`.
    fn read(self, text: &str) -> Option<Value> {
        match self {
            Self::String => Some(Value::string(text)),
            Self::Int => text.parse().ok().map(Value::Int),
            Self::Float => text.parse().ok().filter(|number: &f64| number.is_finite()).map(Value::Float),
            Self::Bool => text.parse().ok().map(Value::Bool),
            Self::List | Self::Map => serde_json::from_str::<serde_json::Value>(text)
                .ok()
                .and_then(|json| Value::try_from(json).ok())
                .filter(|value| self.fits(value)),
        }
    }
}

/// A checked declaration.
struct Spec {
    kind: Type,
    default: Option<Value>,
    min: Option<f64>,
    max: Option<f64>,
    choices: Option<Vec<Value>>,
    pattern: Option<(String, Regex)>,
    doc: String,
}

/// A problem of a declaration: which key, and what.
type SpecProblem = (String, String, Option<String>);

impl Spec {
    fn read(map: &Map) -> Result<Self, SpecProblem> {
        if let Some(unknown) = map.keys().find(|key| !KEYS.contains(&key.as_str())) {
            let help = nearest(unknown, KEYS).map_or_else(
                || format!("the keys are: {}", KEYS.join(", ")),
                |near| format!("did you mean `{near}`?"),
            );
            return Err((
                unknown.to_string(),
                format!("a parameter has no `{}`", unknown.escape_debug()),
                Some(help),
            ));
        }
        let types = || TYPES.map(|(name, _)| format!("\"{name}\"")).join(", ");
        let kind = match map.get("type").map(Value::as_str) {
            None => {
                return Err((
                    String::new(),
                    "the parameter's `type` is missing".to_owned(),
                    Some(format!("one of {}", types())),
                ));
            }
            Some(name) => TYPES.iter().find(|(known, _)| Some(*known) == name).map(|(_, kind)| *kind),
        };
        let Some(kind) = kind else {
            return Err(("type".to_owned(), format!("`type` is one of {}", types()), None));
        };
        let number = |key: &'static str| match map.get(key) {
            None => Ok(None),
            #[allow(clippy::cast_precision_loss)] // bounds are compared, not computed with
            Some(Value::Int(number)) if matches!(kind, Type::Int | Type::Float) => Ok(Some(*number as f64)),
            Some(Value::Float(number)) if matches!(kind, Type::Int | Type::Float) => Ok(Some(*number)),
            Some(_) => Err((key.to_owned(), format!("`{key}` is a number, and bounds numbers only"), None)),
        };
        let pattern = match map.get("pattern") {
            None => None,
            Some(Value::String(text)) if kind == Type::String && text.len() <= MAX_PATTERN_BYTES => {
                match Regex::new(&format!("^(?:{text})$")) {
                    Ok(regex) => Some((text.to_string(), regex)),
                    Err(error) => {
                        return Err((
                            "pattern".to_owned(),
                            format!("`{text}` is not a regular expression: {error}"),
                            None,
                        ));
                    }
                }
            }
            Some(_) => {
                return Err((
                    "pattern".to_owned(),
                    format!("`pattern` is text of at most {MAX_PATTERN_BYTES} bytes, and for strings only"),
                    None,
                ));
            }
        };
        let choices = match map.get("choices") {
            None => None,
            Some(Value::List(items)) if items.iter().all(|item| kind.fits(item)) => Some(items.clone()),
            Some(_) => {
                return Err(("choices".to_owned(), format!("`choices` is a list of {}", kind.name()), None));
            }
        };
        let doc = map.get("doc").and_then(Value::as_str).unwrap_or_default().to_owned();
        let spec =
            Self { kind, default: None, min: number("min")?, max: number("max")?, choices, pattern, doc };
        let default = map.get("default").cloned();
        if let Some(default) = &default {
            spec.check(default)
                .map_err(|message| ("default".to_owned(), format!("the default {message}"), None))?;
        }
        Ok(Self { default, ..spec })
    }

    /// Whether a value fits; the error continues a sentence that begins with the value's name.
    fn check(&self, value: &Value) -> Result<(), String> {
        let shown = || crate::plan::render::leaf(value);
        if !self.kind.fits(value) {
            return Err(format!("is {}, a {}; expected {}", shown(), value.kind(), self.kind.name()));
        }
        #[allow(clippy::cast_precision_loss)] // compared with bounds only
        let number = match value {
            Value::Int(number) => Some(*number as f64),
            Value::Float(number) => Some(*number),
            _ => None,
        };
        if let (Some(number), Some(min)) = (number, self.min)
            && number < min
        {
            return Err(format!("is {}, at least {min} is expected", shown()));
        }
        if let (Some(number), Some(max)) = (number, self.max)
            && number > max
        {
            return Err(format!("is {}, at most {max} is expected", shown()));
        }
        if let Some(choices) = self.choices.as_ref().filter(|choices| !choices.contains(value)) {
            let list = choices.iter().map(crate::plan::render::leaf).collect::<Vec<_>>().join(", ");
            return Err(format!("is {}, expected one of {list}", shown()));
        }
        if let (Some((text, regex)), Some(value)) = (&self.pattern, value.as_str())
            && (value.len() > MAX_MATCHED_BYTES || !regex.is_match(value))
        {
            return Err(format!("is {}, which does not match {text}", shown()));
        }
        Ok(())
    }
}

impl Params {
    pub(super) fn new(given: BTreeMap<String, Given>) -> Self {
        Self { given, ..Self::default() }
    }

    /// The given parameters that the script never declared.
    pub(super) fn unknown(&self) -> Vec<Diagnostic> {
        let declared = || self.declared.keys().map(smol_str::SmolStr::as_str);
        self.given
            .keys()
            .filter(|name| self.declared.get(name).is_none())
            .map(|name| {
                let help = match nearest(name, declared()) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None if self.declared.is_empty() => "the plan has no parameters".to_owned(),
                    None => format!("its parameters are: {}", declared().collect::<Vec<_>>().join(", ")),
                };
                Diagnostic::error(
                    Code::ScriptUnknownParam,
                    format!("the plan has no parameter `{}`", name.escape_debug()),
                )
                .help(help)
            })
            .collect()
    }

    fn value_of(&self, name: &str, spec: &Spec) -> Result<Value, Diagnostic> {
        let wrong = |message: String| {
            Diagnostic::error(Code::ScriptBadParam, format!("the parameter `{name}` {message}"))
        };
        let value = match (self.given.get(name), &spec.default) {
            (Some(Given::Text(text)), _) => {
                let read = spec.kind.read(text);
                read.ok_or_else(|| {
                    wrong(format!("is \"{}\"; expected {}", text.escape_debug(), spec.kind.name()))
                })?
            }
            (Some(Given::Value(value)), _) => value.clone(),
            (None, Some(default)) => return Ok(default.clone()),
            (None, None) => {
                let about = if spec.doc.is_empty() { String::new() } else { format!(": {}", spec.doc) };
                return Err(Diagnostic::error(
                    Code::ScriptMissingParam,
                    format!("the parameter `{name}` ({}) is not given{about}", spec.kind.name()),
                )
                .help(format!("give it with `--param {name}=...`")));
            }
        };
        if holds_private(&value) {
            return Err(files::forged(&format!("the parameter {name}")));
        }
        spec.check(&value).map_err(wrong)?;
        Ok(value)
    }
}

/// `param(name, spec)`.
pub(super) fn param(
    session: &Session,
    cx: &NativeCallContext<'_>,
    name: &ImmutableString,
    spec: RhaiMap,
) -> Native<Dynamic> {
    if has_private(name) {
        let diagnostic = session.token_error(name, "a parameter's name").at(session.call_origin(cx));
        return Err(throw(diagnostic, cx.call_position()));
    }
    let file = session.file(cx);
    let at = |key: &str, side: Side| {
        let position = session.spans.borrow().entry(&file, cx.call_position(), &Path::root().key(key), side);
        session.origin(&file, position.unwrap_or_else(|| cx.call_position()))
    };
    let fail = |diagnostic: Diagnostic| {
        session.params.borrow_mut().failed = true;
        session.report(diagnostic, cx)
    };
    let map = match to_map(session, spec) {
        Ok(map) if to_typed::<serde::de::IgnoredAny>(&Value::Map(map.clone())).is_ok() => map,
        Ok(_) | Err(_) => {
            fail(
                Diagnostic::error(
                    Code::ScriptBadParam,
                    format!("the declaration of `{name}` needs values that are not known yet"),
                )
                .at(session.call_origin(cx)),
            )?;
            return Ok(Dynamic::UNIT);
        }
    };
    let spec = match Spec::read(&map) {
        Ok(spec) => spec,
        Err((key, message, help)) => {
            let side = if KEYS.contains(&key.as_str()) { Side::Value } else { Side::Key };
            let mut diagnostic = Diagnostic::error(Code::ScriptBadParam, message).at(at(&key, side));
            diagnostic.help = help;
            fail(diagnostic)?;
            return Ok(Dynamic::UNIT);
        }
    };
    if session.params.borrow().declared.get(name).is_some() {
        let message = format!("the parameter `{name}` is declared twice");
        fail(Diagnostic::error(Code::ScriptBadParam, message).at(session.call_origin(cx)))?;
    }
    let value = session.params.borrow().value_of(name, &spec);
    let value = match value {
        Ok(value) => value,
        Err(diagnostic) => {
            let position = session.spans.borrow().arg(&file, cx.call_position(), 0);
            let origin = session.origin(&file, position.unwrap_or_else(|| cx.call_position()));
            fail(diagnostic.at(origin))?;
            spec.kind.stand_in()
        }
    };
    session.params.borrow_mut().declared.insert(name.as_str(), value.clone());
    Ok(to_dynamic(&value, None))
}
