//! Taking secrets out of what OpenTofu says: what it marks as sensitive, and the same texts where no mark is.

use std::collections::BTreeSet;

use serde_json::Value as Json;
use smol_str::SmolStr;

use crate::value::Value;

/// The name of a secret that OpenTofu made out by itself.
const NAMELESS: &str = "";

/// Texts that are marked as sensitive somewhere in a document. A provider may copy one to where no mark is, as
/// `terraform_data` does from `input` to `output`; it is masked there as well.
#[derive(Default)]
pub(super) struct Mask {
    /// Masked wherever a text holds them.
    parts: BTreeSet<String>,
    /// Masked where they are the whole text: short ones that are known to be secret.
    wholes: BTreeSet<String>,
}

/// Shorter texts are left to the marks, and those that are secrets of the plan itself are masked only as a whole: masking every
/// `1` would make a plan unreadable and hide nothing.
const SHORTEST_SECRET: usize = 6;

impl Mask {
    /// Of secrets that are known by themselves.
    pub(super) fn given(secrets: &[&str]) -> Self {
        let secrets = secrets.iter().filter(|text| !text.is_empty()).map(|text| (*text).to_owned());
        let (parts, wholes) = secrets.partition(|text: &String| text.len() >= SHORTEST_SECRET);
        Self { parts, wholes }
    }

    /// Leaves the short ones to the marks.
    pub(super) fn without_short(mut self) -> Self {
        self.parts.retain(|text| text.len() >= SHORTEST_SECRET);
        self
    }

    /// Adds what is marked in a value.
    pub(super) fn add(&mut self, value: &Json, marks: &Json) {
        match (value, marks) {
            (Json::String(text), Json::Bool(true)) => {
                self.parts.insert(text.clone());
            }
            (Json::Array(items), Json::Bool(true)) => items.iter().for_each(|item| self.add(item, marks)),
            (Json::Object(entries), Json::Bool(true)) => {
                entries.values().for_each(|item| self.add(item, marks));
            }
            (Json::Array(items), Json::Array(marks)) => {
                items.iter().zip(marks).for_each(|(item, mark)| self.add(item, mark));
            }
            (Json::Object(entries), Json::Object(marks)) => {
                for (name, item) in entries {
                    self.add(item, marks.get(name).unwrap_or(&Json::Null));
                }
            }
            _ => {}
        }
    }

    fn hides(&self, text: &str) -> bool {
        self.wholes.contains(text) || self.parts.iter().any(|secret| text.contains(secret.as_str()))
    }

    /// Whether a value holds a text that is hidden, as a key or below one.
    pub(super) fn reaches(&self, value: &Value) -> bool {
        match value {
            Value::String(text) => self.hides(text),
            Value::List(items) => items.iter().any(|item| self.reaches(item)),
            Value::Map(map) => map.iter().any(|(key, item)| self.hides(key) || self.reaches(item)),
            _ => false,
        }
    }

    pub(super) fn apply(&self, value: &mut Value) {
        match value {
            Value::String(text) if self.hides(text) => *value = nameless(),
            Value::Map(map) if map.keys().any(|key| self.hides(key)) => *value = nameless(),
            Value::List(items) => items.iter_mut().for_each(|item| self.apply(item)),
            Value::Map(map) => {
                let names: Vec<SmolStr> = map.keys().cloned().collect();
                for name in names {
                    if let Some(item) = map.get_mut(&name) {
                        self.apply(item);
                    }
                }
            }
            _ => {}
        }
    }
}

/// The marks below a key; a mark on the whole holds for every part.
pub(super) fn below<'a>(marks: &'a Json, key: &str) -> &'a Json {
    match marks {
        Json::Object(marks) => marks.get(key).unwrap_or(&Json::Null),
        whole => whole,
    }
}

/// Whether anything in a tree of marks is marked.
pub(super) fn holds_true(marks: &Json) -> bool {
    match marks {
        Json::Bool(mark) => *mark,
        Json::Array(items) => items.iter().any(holds_true),
        Json::Object(entries) => entries.values().any(holds_true),
        _ => false,
    }
}

fn nameless() -> Value {
    Value::Secret(NAMELESS.into())
}

/// A value with what is marked taken out.
pub(super) fn masked(value: &Value, marks: &Json) -> Value {
    match (value, marks) {
        (Value::Null | Value::Unknown, _) => value.clone(),
        (_, Json::Bool(true)) => nameless(),
        (Value::Map(map), Json::Object(_)) => {
            Value::Map(map.iter().map(|(key, item)| (key.clone(), masked(item, below(marks, key)))).collect())
        }
        (Value::List(items), Json::Array(marks)) => Value::List(
            items
                .iter()
                .enumerate()
                .map(|(index, item)| masked(item, marks.get(index).unwrap_or(&Json::Null)))
                .collect(),
        ),
        _ => value.clone(),
    }
}
