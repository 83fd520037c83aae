//! Taking secrets out of what OpenTofu says: what it marks as sensitive, and the same texts where no mark is.

use std::collections::BTreeSet;
use std::fmt;

use serde_json::Value as Json;
use smol_str::SmolStr;

use crate::value::Value;

/// The name of a secret that OpenTofu made out by itself.
const NAMELESS: &str = "";

/// Texts that are secret: those that are given, and those that are marked as sensitive somewhere in a document. A provider may copy
/// one to where no mark is, as `terraform_data` does from `input` to `output`; it is masked there as well.
#[derive(Default, Clone, PartialEq)]
pub struct Mask {
    /// Masked wherever a text holds them.
    parts: BTreeSet<String>,
    /// Masked where they are the whole text: short ones that are known to be secret.
    wholes: BTreeSet<String>,
    /// Lines of texts that have several: a message that quotes such a text indents it, frames it, or puts it on one line.
    lines: BTreeSet<String>,
}

impl fmt::Debug for Mask {
    /// Whatever prints a mask must not print what it hides.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mask").finish_non_exhaustive()
    }
}

/// Shorter texts are left to the marks, and those that are secrets of the plan itself are masked only as a whole: masking every
/// `1` would make a plan unreadable and hide nothing.
const SHORTEST_SECRET: usize = 6;

/// What stands where a secret stood in a message.
const HIDDEN: &str = "(secret)";

impl Mask {
    /// Of secrets that are known by themselves.
    #[must_use]
    pub fn given(secrets: &[&str]) -> Self {
        let mut mask = Self::default();
        for text in secrets.iter().filter(|text| !text.is_empty()) {
            match text.len() >= SHORTEST_SECRET {
                true => mask.hide(text),
                false => drop(mask.wholes.insert((*text).to_owned())),
            }
        }
        mask
    }

    /// Hides a text wherever it stands, also as JSON and HCL write it.
    fn hide(&mut self, text: &str) {
        let quoted = serde_json::to_string(text).unwrap_or_default();
        self.parts.insert(quoted.trim_matches('"').to_owned());
        self.parts.insert(text.to_owned());
        if text.contains('\n') {
            self.lines.extend(text.lines().map(|line| line.trim().to_owned()));
        }
    }

    /// Leaves the short ones to the marks.
    pub(super) fn without_short(mut self) -> Self {
        self.parts.retain(|text| text.len() >= SHORTEST_SECRET);
        self.lines.retain(|text| text.len() >= SHORTEST_SECRET);
        self
    }

    /// Hides what another one hides as well.
    pub fn merge(&mut self, other: Self) {
        self.parts.extend(other.parts);
        self.wholes.extend(other.wholes);
        self.lines.extend(other.lines);
    }

    /// A message without what is hidden.
    #[must_use]
    pub fn redact(&self, message: &str) -> String {
        let lines = self.lines.iter().filter(|line| line.len() >= SHORTEST_SECRET);
        let mut texts: Vec<&String> = self.parts.iter().chain(&self.wholes).chain(lines).collect();
        // One that holds another goes first, or the rest of it would stay.
        texts.sort_by_key(|text| std::cmp::Reverse(text.len()));
        texts.into_iter().fold(message.to_owned(), |message, text| message.replace(text.as_str(), HIDDEN))
    }

    /// Adds what is marked in a value.
    pub(super) fn add(&mut self, value: &Json, marks: &Json) {
        match (value, marks) {
            (Json::String(text), Json::Bool(true)) => self.hide(text),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_of_several_lines_is_hidden_however_it_is_quoted() {
        let key = "-----BEGIN KEY-----\nMIIcanary1\nMIIcanary2\n";
        let mask = Mask::given(&[key, "pin"]);
        for message in [
            key.to_owned(),
            serde_json::json!({ "message": key }).to_string(),
            key.split_whitespace().collect::<Vec<_>>().join(" "),
            key.lines().map(|line| format!("  \u{2502} {line}\n")).collect(),
        ] {
            let told = mask.redact(&message);
            assert!(!told.contains("canary") && told.contains(HIDDEN), "{told}");
        }
        assert_eq!(mask.redact("a pin"), "a (secret)");
        assert!(!mask.reaches(&"a pin".into()) && mask.reaches(&"pin".into()));
        assert!(!format!("{mask:?}").contains("canary"));
    }
}
