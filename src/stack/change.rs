//! One change as `show -json` prints it: two sides, what is unknown and what is marked, down to where they differ.

use std::collections::BTreeSet;

use serde::Deserialize;
use serde_json::Value as Json;
use smol_str::SmolStr;

use super::mask::{below, holds_true, masked};
use crate::value::{Map, Path, Value};

#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct Change {
    pub(super) actions: Vec<String>,
    pub(super) before: Json,
    pub(super) after: Json,
    pub(super) after_unknown: Json,
    pub(super) before_sensitive: Json,
    pub(super) after_sensitive: Json,
    pub(super) replace_paths: Vec<Vec<Json>>,
    pub(super) importing: Option<Json>,
}

/// Walks both sides down to where they differ.
pub(super) fn differences(
    before: &Value,
    after: &Value,
    marks: (&Json, &Json),
    at: &Path,
    found: &mut Vec<(String, Value, Value)>,
) {
    let hidden = marks.0 == &Json::Bool(true) || marks.1 == &Json::Bool(true);
    match (before, after) {
        (before, after) if before == after => {}
        (Value::Map(before), Value::Map(after)) if !hidden => {
            let names: BTreeSet<&SmolStr> = before.keys().chain(after.keys()).collect();
            for name in names {
                let side = |map: &Map| map.get(name).cloned().unwrap_or_default();
                let marks = (below(marks.0, name), below(marks.1, name));
                differences(&side(before), &side(after), marks, &at.key(name.clone()), found);
            }
        }
        (Value::List(before), Value::List(after)) if !hidden && before.len() == after.len() => {
            for (index, (before, after)) in before.iter().zip(after).enumerate() {
                let mark = |mark: &Json| mark.get(index).cloned().unwrap_or_default();
                differences(before, after, (&mark(marks.0), &mark(marks.1)), &at.index(index), found);
            }
        }
        (before, after) => {
            // What is secret on one side is secret on the other: a mark often comes with the change.
            let hide = |value: &Value| masked(&masked(value, marks.0), marks.1);
            found.push((at.to_string(), hide(before), hide(after)));
        }
    }
}

/// A value with unknown leaves where they are marked.
pub(super) fn with_unknown(value: &Json, unknown: &Json) -> Value {
    match (value, unknown) {
        (_, Json::Bool(true)) => Value::Unknown,
        (Json::Object(entries), Json::Object(marks)) => {
            let names: BTreeSet<&String> = entries.keys().chain(marks.keys()).collect();
            names
                .into_iter()
                .map(|name| {
                    let side =
                        |map: &serde_json::Map<String, Json>| map.get(name).cloned().unwrap_or_default();
                    (SmolStr::new(name), with_unknown(&side(entries), &side(marks)))
                })
                .collect::<Map>()
                .into()
        }
        (Json::Array(items), Json::Array(marks)) => Value::List(
            (0..items.len().max(marks.len()))
                .map(|index| {
                    let side = |list: &[Json]| list.get(index).cloned().unwrap_or_default();
                    with_unknown(&side(items), &side(marks))
                })
                .collect(),
        ),
        (Json::Null, Json::Object(_) | Json::Array(_)) if holds_true(unknown) => Value::Unknown,
        (value, _) => value_of(value),
    }
}

/// JSON data as a value. A number that no value can hold becomes its text.
pub(super) fn value_of(json: &Json) -> Value {
    match json {
        Json::Array(items) => Value::List(items.iter().map(value_of).collect()),
        Json::Object(entries) => {
            Value::Map(entries.iter().map(|(name, item)| (SmolStr::new(name), value_of(item))).collect())
        }
        other => Value::try_from(other.clone()).unwrap_or_else(|_| Value::from(other.to_string())),
    }
}
