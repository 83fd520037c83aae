//! A stack's state as `show -json` prints it, with the marks of what is sensitive: the outputs as they are, and what is secret now.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::Value as Json;
use smol_str::SmolStr;

use super::change::value_of;
use super::document::DocumentError;
use super::mask::Mask;
use super::outputs::secret_output;
use crate::value::{Map, Value};

/// A state; one that is not there yet holds nothing.
#[derive(Debug, Default, Deserialize)]
pub struct State {
    values: Option<Values>,
}

#[derive(Debug, Deserialize)]
struct Values {
    #[serde(default)]
    outputs: BTreeMap<String, Output>,
    #[serde(default)]
    root_module: Module,
}

#[derive(Debug, Deserialize)]
struct Output {
    #[serde(default)]
    sensitive: bool,
    #[serde(default)]
    value: Json,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Module {
    resources: Vec<Resource>,
    child_modules: Vec<Module>,
}

#[derive(Debug, Deserialize)]
struct Resource {
    mode: String,
    #[serde(default)]
    values: Json,
    #[serde(default)]
    sensitive_values: Json,
}

impl Module {
    fn is_empty(&self) -> bool {
        self.resources.iter().all(|resource| resource.mode == "data")
            && self.child_modules.iter().all(Self::is_empty)
    }

    fn mark(&self, mask: &mut Mask) {
        for resource in &self.resources {
            mask.add(&resource.values, &resource.sensitive_values);
        }
        self.child_modules.iter().for_each(|module| module.mark(mask));
    }
}

impl State {
    /// Reads what `tofu show -json` printed of a state.
    ///
    /// # Errors
    /// When the text is something else.
    pub fn read(text: &str) -> Result<Self, DocumentError> {
        serde_json::from_str(text).map_err(|error| DocumentError::Malformed(error.to_string()))
    }

    /// Whether it holds no resources.
    pub(super) fn is_empty(&self) -> bool {
        self.values.as_ref().is_none_or(|values| values.root_module.is_empty())
    }

    /// What is secret in it, and what `given` hides.
    #[must_use]
    pub fn mask(&self, mut given: Mask) -> Mask {
        if let Some(values) = &self.values {
            values.root_module.mark(&mut given);
            let sensitive = values.outputs.values().filter(|output| output.sensitive);
            sensitive.for_each(|output| given.add(&output.value, &Json::Bool(true)));
        }
        given.without_short()
    }

    /// The outputs. `step` names the secrets among them: those that OpenTofu marks, those in `hidden`, and those that hold what
    /// `mask` hides.
    #[must_use]
    pub fn outputs(&self, step: &str, hidden: &BTreeSet<String>, mask: &Mask) -> Map {
        let read = |(name, output): (&String, &Output)| {
            let value = value_of(&output.value);
            let is_secret = output.sensitive || hidden.contains(name) || mask.reaches(&value);
            let value: Value = if is_secret { secret_output(step, name) } else { value };
            (SmolStr::new(name), value)
        };
        self.values.iter().flat_map(|values| &values.outputs).map(read).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_secret_is_known_by_its_marks_wherever_it_is_copied() {
        let state = json!({ "format_version": "1.0", "values": {
            "outputs": {
                "given": { "value": ["canary-given"] },
                "short": { "value": "pin" },
                "open": { "value": "pinned" },
                "hidden": { "value": "canary-1" },
                "marked": { "value": "canary-2", "sensitive": true },
                "made": { "value": { "copy": "a canary-3" } },
                "deep": { "value": "canary-4" },
            },
            "root_module": {
                "resources": [{ "address": "a.b", "mode": "managed", "values": { "password": "canary-3" },
                    "sensitive_values": { "password": true } }],
                "child_modules": [{ "resources": [{ "mode": "data", "values": { "list": ["canary-4"] },
                    "sensitive_values": { "list": [true] } }] }],
            },
        } });
        let state = State::read(&state.to_string()).expect("a state");
        let mask = state.mask(Mask::given(&["canary-given", "pin"]));
        let outputs = state.outputs("s.x", &BTreeSet::from(["hidden".to_owned()]), &mask);
        let told: Vec<&str> = outputs
            .iter()
            .filter(|(_, value)| !matches!(value, Value::Secret(_)))
            .map(|(name, _)| name.as_str())
            .collect();
        assert_eq!(told, ["open"], "a short secret is one only as a whole");
        assert_eq!(mask.redact("canary-2, canary-3 and canary-4"), "(secret), (secret) and (secret)");
        assert!(!state.is_empty());
        let none = State::read(r#"{ "format_version": "1.0" }"#).expect("no state yet");
        assert!(none.is_empty() && none.outputs("s.x", &BTreeSet::new(), &mask).is_empty());
    }
}
