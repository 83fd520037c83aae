//! L0: `Value`, the tree every argument, output and observation is made of: JSON plus four leaves for
//! what a plan does not hold in the clear: a reference, a template, an unknown and a secret.
//!
//! Values are data: no IO, no evaluation. Maps are sorted by key, so two equal values always encode to
//! the same bytes. Failure modes: decoding refuses malformed leaves (`json`), typed reading refuses unknown
//! leaves (`typed`).

#![deny(clippy::disallowed_methods)]

mod json;
mod map;
mod path;
mod typed;
mod write;

use std::sync::Arc;

use smol_str::SmolStr;

pub use crate::address::Address;
pub use json::to_canonical_json;
pub use map::Map;
pub use path::{Path, PathError, Segment};
pub use typed::{TypedError, from_typed, to_typed};

/// One value of a plan.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Value {
    /// JSON null.
    #[default]
    Null,
    /// JSON boolean.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A finite number with a fraction.
    Float(f64),
    /// Text without reference tokens.
    String(SmolStr),
    /// A list.
    List(Vec<Value>),
    /// A map, sorted by key.
    Map(Map),
    /// The output of another step, known once that step is decided or applied.
    Ref(Arc<Reference>),
    /// Text with references in it.
    Template(Arc<[Part]>),
    /// A secret, by the name the script gave it. The value itself is never held.
    Secret(SmolStr),
    /// Not known until apply.
    Unknown,
}

/// A place in another step's outputs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    /// The step that produces the value.
    pub step: Address,
    /// Where in its outputs; empty for the step as a whole.
    pub path: Path,
}

/// A piece of a template.
#[derive(Debug, Clone, PartialEq)]
pub enum Part {
    /// Literal text.
    Text(SmolStr),
    /// A value known later.
    Ref(Arc<Reference>),
}

impl Value {
    /// A string value.
    #[must_use]
    pub fn string(text: impl AsRef<str>) -> Self {
        Self::String(SmolStr::new(text))
    }

    /// A map value from key and value pairs; a repeated key keeps the last value.
    #[must_use]
    pub fn map<K: AsRef<str>>(entries: impl IntoIterator<Item = (K, Self)>) -> Self {
        Self::Map(entries.into_iter().map(|(key, value)| (SmolStr::new(key), value)).collect())
    }

    /// The text of a string leaf.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            _ => None,
        }
    }

    /// The number of a whole-number leaf.
    #[must_use]
    pub fn as_int(&self) -> Option<i64> {
        match self {
            Self::Int(number) => Some(*number),
            _ => None,
        }
    }

    /// The entries of a map.
    #[must_use]
    pub fn as_map(&self) -> Option<&Map> {
        match self {
            Self::Map(map) => Some(map),
            _ => None,
        }
    }

    /// What kind of value this is, in the words of the documentation.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Float(_) => "float",
            Self::String(_) | Self::Template(_) => "string",
            Self::List(_) => "list",
            Self::Map(_) => "map",
            Self::Ref(_) => "a step's output",
            Self::Secret(_) => "secret",
            Self::Unknown => "a value not known yet",
        }
    }

    /// The value at a path. What lies below an unknown leaf is unknown.
    #[must_use]
    pub fn get(&self, path: &Path) -> Option<&Self> {
        let mut at = self;
        for segment in path.segments() {
            at = match (at, segment) {
                (Self::Unknown, _) => return Some(&Self::Unknown),
                (Self::Map(map), Segment::Key(key)) => map.get(key)?,
                (Self::List(items), Segment::Index(index)) => items.get(*index)?,
                _ => return None,
            };
        }
        Some(at)
    }

    /// Whether any leaf is still unknown: `Unknown`, a reference, or a template.
    #[must_use]
    pub fn has_unknown(&self) -> bool {
        match self {
            Self::Unknown | Self::Ref(_) | Self::Template(_) => true,
            Self::List(items) => items.iter().any(Self::has_unknown),
            Self::Map(map) => map.values().any(Self::has_unknown),
            _ => false,
        }
    }

    /// Calls `visit` for every reference in the tree, templates included.
    pub fn references(&self, visit: &mut impl FnMut(&Arc<Reference>)) {
        match self {
            Self::Ref(reference) => visit(reference),
            Self::Template(parts) => {
                for part in parts.iter() {
                    if let Part::Ref(reference) = part {
                        visit(reference);
                    }
                }
            }
            Self::List(items) => items.iter().for_each(|item| item.references(visit)),
            Self::Map(map) => map.values().for_each(|item| item.references(visit)),
            _ => {}
        }
    }

    /// Calls `visit` with the name of every secret in the tree.
    pub fn secrets(&self, visit: &mut impl FnMut(&SmolStr)) {
        match self {
            Self::Secret(name) => visit(name),
            Self::List(items) => items.iter().for_each(|item| item.secrets(visit)),
            Self::Map(map) => map.values().for_each(|item| item.secrets(visit)),
            _ => {}
        }
    }

    /// A copy in which every reference is replaced by what `resolve` knows of it; what it does not know
    /// becomes `Unknown`. A template is text once all its parts are known.
    #[must_use]
    pub fn substitute<'v>(&self, resolve: &impl Fn(&Reference) -> Option<&'v Self>) -> Self {
        match self {
            Self::Ref(reference) => resolve(reference).cloned().unwrap_or(Self::Unknown),
            Self::Template(parts) => substitute_template(parts, resolve),
            Self::List(items) => Self::List(items.iter().map(|item| item.substitute(resolve)).collect()),
            Self::Map(map) => {
                Self::Map(map.iter().map(|(key, value)| (key.clone(), value.substitute(resolve))).collect())
            }
            other => other.clone(),
        }
    }
}

fn substitute_template<'v>(parts: &[Part], resolve: &impl Fn(&Reference) -> Option<&'v Value>) -> Value {
    let mut text = String::new();
    for part in parts {
        match part {
            Part::Text(piece) => text.push_str(piece),
            Part::Ref(reference) => match resolve(reference) {
                Some(Value::String(known)) => text.push_str(known),
                Some(Value::Int(known)) => text.push_str(&known.to_string()),
                Some(Value::Float(known)) => text.push_str(&known.to_string()),
                Some(Value::Bool(known)) => text.push_str(if *known { "true" } else { "false" }),
                // Lists and maps have no text form that every tool would agree on; the script front end
                // refuses them in templates where the type is known, and here they stay unknown.
                _ => return Value::Unknown,
            },
        }
    }
    Value::String(text.into())
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Self::Int(value)
    }
}

impl From<Map> for Value {
    fn from(value: Map) -> Self {
        Self::Map(value)
    }
}

impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Self::String(value.into())
    }
}

impl From<String> for Value {
    fn from(value: String) -> Self {
        Self::String(value.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reference(text: &str) -> Value {
        Value::Ref(Arc::new(text.parse().expect("a valid reference")))
    }

    #[test]
    fn substitution_fills_what_is_known_and_marks_the_rest() {
        let known = Value::map([("image_id", Value::from("ami-1"))]);
        let resolve = |wanted: &Reference| known.get(&wanted.path);
        let template = Value::Template(
            [Part::Text("id-".into()), Part::Ref(Arc::new("import_ami.base#image_id".parse().unwrap()))]
                .into(),
        );
        let tree = Value::List(vec![
            reference("import_ami.base#image_id"),
            template,
            reference("import_ami.base#snapshot_id"),
        ]);
        assert_eq!(
            tree.substitute(&resolve),
            Value::List(vec![Value::from("ami-1"), Value::from("id-ami-1"), Value::Unknown])
        );
    }

    #[test]
    fn a_value_stays_small() {
        assert!(size_of::<Value>() <= 32, "{}", size_of::<Value>());
    }
}
