//! A stack's outputs, before and after a plan; a secret becomes a handle, never a value.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value as Json;
use smol_str::SmolStr;

use super::change::{Change, differences, value_of, with_unknown};
use super::mask::{Mask, holds_true};
use crate::value::{Map, Path, Value};

/// The handle of an output that OpenTofu keeps secret; it says where the value can be read again.
pub(super) fn secret_output(step: &str, name: &str) -> Value {
    Value::Secret(format!("{step}#{}", Path::root().key("outputs").key(name)).into())
}

/// The outputs of a plan.
pub(super) struct Outputs<'a> {
    pub(super) changes: &'a BTreeMap<String, Change>,
    pub(super) mask: &'a Mask,
    pub(super) step: &'a str,
}

impl Outputs<'_> {
    fn is_secret(&self, value: &Value, marks: &Json) -> bool {
        holds_true(marks) || self.mask.reaches(value)
    }

    /// The outputs after the plan. The handle of a secret is resolved by reading the output where it is, so one that changes is
    /// not known until it has changed.
    pub(super) fn after(&self) -> Map {
        let kept = self.changes.iter().filter(|(_, change)| change.actions != ["delete"]);
        kept.map(|(name, change)| {
            let value = with_unknown(&change.after, &change.after_unknown);
            let value = match self.is_secret(&value, &change.after_sensitive) {
                true if change.actions == ["no-op"] => secret_output(self.step, name),
                true => Value::Unknown,
                false => value,
            };
            (SmolStr::new(name), value)
        })
        .collect()
    }

    /// The outputs in the state; one that is not there yet is no output.
    pub(super) fn before(&self) -> Map {
        let known = self.changes.iter().filter(|(_, change)| change.actions != ["create"]);
        known
            .map(|(name, change)| {
                let value = value_of(&change.before);
                let secret = self.is_secret(&value, &change.before_sensitive);
                (SmolStr::new(name), if secret { secret_output(self.step, name) } else { value })
            })
            .collect()
    }

    /// What changes of them, down to where they differ.
    pub(super) fn changing(&self) -> Vec<(String, Value, Value)> {
        let mut found = Vec::new();
        for (name, change) in self.changes.iter().filter(|(_, change)| change.actions != ["no-op"]) {
            let before = value_of(&change.before);
            let after = with_unknown(&change.after, &change.after_unknown);
            let marks = (&change.before_sensitive, &change.after_sensitive);
            let told = found.len();
            let at = Path::root().key(name);
            differences(&before, &after, marks, &at, &mut found);
            if told == found.len() {
                // OpenTofu writes the state for the mark alone.
                let is_marked = |mark: &Json| Value::Bool(holds_true(mark));
                found.push((format!("{at} (sensitive)"), is_marked(marks.0), is_marked(marks.1)));
            }
        }
        for (_, before, after) in &mut found {
            self.mask.apply(before);
            self.mask.apply(after);
        }
        found
    }

    pub(super) fn hidden(&self) -> BTreeSet<String> {
        let holds = |change: &Change| self.mask.reaches(&with_unknown(&change.after, &change.after_unknown));
        self.changes.iter().filter(|(_, change)| holds(change)).map(|(name, _)| name.clone()).collect()
    }
}
