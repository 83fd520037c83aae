//! What `tofu show -json` says of a plan, in the terms of a review: resource changes with their attributes, what changed
//! outside, outputs. Source: the OpenTofu documentation, "JSON Output Format", versions 1.x.
//!
//! Values that OpenTofu marks as sensitive never get out of here: an attribute becomes a secret without a name, an output one
//! that is named by its place. What only OpenTofu's own bookkeeping changes (timestamps, versions) is left out, so that two
//! plans of one situation read the same.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::Value as Json;

use super::change::Change;
use super::configured::Configuration;
use super::mask::Mask;
use super::outputs::Outputs;
use super::plan::ResourceChange;
use super::resource::{Changed, drifted};
use super::state::State;
use crate::value::{Map, Value};

/// The major version of the format that is read.
const FORMAT: &str = "1.";

/// A plan as OpenTofu shows it.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    /// Whether the state before it holds no resources.
    pub empty: bool,
    /// The changes, sorted by address.
    pub changes: Vec<ResourceChange>,
    /// What changed outside, sorted by address.
    pub drift: Vec<ResourceChange>,
    /// The outputs after it.
    pub outputs: Map,
    /// The outputs in the state before it.
    pub before: Map,
    /// Outputs that hold a text which is marked as sensitive elsewhere, whatever OpenTofu itself says of them.
    pub hidden: BTreeSet<String>,
    /// What changes of the outputs: path, before, after.
    pub output_changes: Vec<(String, Value, Value)>,
    /// What is secret in it.
    pub mask: Mask,
}

/// Why a document cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DocumentError {
    /// It is no plan in JSON.
    #[error("the plan is not as `show -json` prints it: {0}")]
    Malformed(String),
    /// It has a version that is not known.
    #[error("the plan's format version is {0}, this clawd reads 1.x")]
    Version(String),
    /// OpenTofu did not finish planning.
    #[error("the plan is incomplete: planning failed half-way")]
    Incomplete,
    /// A change of a kind that is not known.
    #[error("{address}: unknown action {actions}")]
    Action {
        /// The resource.
        address: String,
        /// What OpenTofu wants to do.
        actions: String,
    },
}

#[derive(Deserialize)]
struct Shown {
    format_version: String,
    #[serde(default)]
    errored: bool,
    #[serde(default)]
    resource_changes: Vec<Changed>,
    #[serde(default)]
    resource_drift: Vec<Changed>,
    #[serde(default)]
    output_changes: BTreeMap<String, Change>,
    /// Its outputs are those after the plan, whatever the name says; those before it are in the changes.
    prior_state: Option<State>,
    #[serde(default)]
    configuration: Configuration,
    #[serde(default)]
    variables: BTreeMap<String, Given>,
}

#[derive(Deserialize)]
struct Given {
    #[serde(default)]
    value: Json,
}

impl Shown {
    /// What is secret in it: what is marked, and `secrets`.
    fn mask(&self, secrets: &[&str]) -> Mask {
        let mut mask = Mask::given(secrets);
        let resources = self.resource_changes.iter().chain(&self.resource_drift).map(|it| &it.change);
        for change in resources.chain(self.output_changes.values()) {
            mask.add(&change.before, &change.before_sensitive);
            mask.add(&change.after, &change.after_sensitive);
        }
        for (name, given) in &self.variables {
            if self.configuration.is_sensitive(name) {
                mask.add(&given.value, &Json::Bool(true));
            }
        }
        mask.without_short()
    }
}

impl Document {
    /// Reads what `tofu show -json` printed of a plan. `step` names the secrets among the outputs; `secrets` are texts
    /// that nothing may show.
    ///
    /// # Errors
    /// When the document is not a whole plan in a version that is known.
    pub fn read(text: &str, step: &str, secrets: &[&str]) -> Result<Self, DocumentError> {
        let malformed = |error: serde_json::Error| DocumentError::Malformed(error.to_string());
        let shown: Shown = serde_json::from_str(text).map_err(malformed)?;
        if !shown.format_version.starts_with(FORMAT) {
            return Err(DocumentError::Version(shown.format_version));
        }
        if shown.errored {
            return Err(DocumentError::Incomplete);
        }
        let set = shown.configuration.resources();
        let mask = shown.mask(secrets);
        let read = |changed: &[Changed]| -> Result<Vec<ResourceChange>, DocumentError> {
            let mut changes: Vec<ResourceChange> = changed
                .iter()
                .map(|change| change.read(&set))
                .filter_map(Result::transpose)
                .collect::<Result<_, _>>()?;
            changes.sort_by(|a, b| a.address.cmp(&b.address));
            for (_, before, after) in changes.iter_mut().flat_map(|change| &mut change.attributes) {
                mask.apply(before);
                mask.apply(after);
            }
            Ok(changes)
        };
        let empty = shown.prior_state.as_ref().is_none_or(State::is_empty);
        let outputs = Outputs { changes: &shown.output_changes, mask: &mask, step };
        let changes = read(&shown.resource_changes)?;
        let drift =
            read(&shown.resource_drift)?.into_iter().filter_map(|it| drifted(it, &set, &changes)).collect();
        Ok(Self {
            empty,
            changes,
            drift,
            outputs: outputs.after(),
            before: outputs.before(),
            output_changes: outputs.changing(),
            hidden: outputs.hidden(),
            mask,
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(document: &Json) -> Result<Document, DocumentError> {
        Document::read(&document.to_string(), "tofu_apply.x", &["canary-given"])
    }

    #[allow(clippy::needless_pass_by_value)] // what is passed is made at the place
    fn change(address: &str, change: Json) -> Json {
        json!({ "address": address, "mode": "managed", "change": change })
    }

    #[test]
    fn secrets_stay_inside_and_unknown_leaves_are_marked() {
        let document = json!({
            "format_version": "1.2",
            "resource_changes": [
                change("a.new", json!({
                    "actions": ["create"], "before": null,
                    "after": { "password": "canary", "pin": 4711, "tags": { "a": "1" }, "empty": null },
                    "after_unknown": { "id": true, "link": true, "tags": { "b": true } },
                    // Numbers and short texts are masked by their mark alone.
                    "after_sensitive": { "password": true, "pin": true },
                })),
                change("a.old", json!({
                    "actions": ["update"],
                    "before": { "password": "canary-1", "copy": "a canary-1", "arg": "canary-given", "size": 1, "list": [{ "k": "canary-2" }] },
                    "after": { "password": "canary-3", "copy": "a canary-3", "arg": null, "size": 2, "list": [{ "k": "canary-4" }] },
                    "before_sensitive": { "password": true }, "after_sensitive": { "list": [{ "k": true }] },
                })),
            ],
            "output_changes": {
                "id": { "actions": ["create"], "before": null, "after_unknown": true, "after_sensitive": false },
                "token": { "actions": ["no-op"], "before": "canary-5", "after": "canary-5", "before_sensitive": true, "after_sensitive": true },
                "rotated": { "actions": ["update"], "before": "canary-6", "after": "canary-7", "after_sensitive": true, "before_sensitive": true },
                "partly": { "actions": ["update"], "before": null, "after": { "password": "canary-8" }, "after_unknown": { "id": true }, "after_sensitive": true },
                "copied": { "actions": ["create"], "before": null, "after": ["x canary-given"], "after_sensitive": false },
            },
            "configuration": { "root_module": { "resources": [{ "address": "a.new", "expressions": { "link": {} } }] } },
        });
        let read = read(&document).expect("a plan");
        let whole = format!("{read:?}");
        assert!(!whole.contains("canary") && !whole.contains("4711"), "{whole}");
        let names =
            |change: &ResourceChange| change.attributes.iter().map(|it| it.0.clone()).collect::<Vec<_>>();
        assert_eq!(
            names(&read.changes[0]),
            ["link", "password", "pin", "tags"],
            "what the provider makes up is left out"
        );
        assert_eq!(
            read.changes[0].attributes[3].2,
            Value::map([("a", Value::from("1")), ("b", Value::Unknown)])
        );
        assert_eq!(names(&read.changes[1]), ["arg", "copy", "list[0].k", "password", "size"]);
        assert_eq!(read.outputs.get("id"), Some(&Value::Unknown));
        assert_eq!(read.outputs.get("token"), Some(&Value::Secret("tofu_apply.x#outputs.token".into())));
        for changing in ["rotated", "partly", "copied"] {
            assert_eq!(
                read.outputs.get(changing),
                Some(&Value::Unknown),
                "the handle would mean the old value"
            );
        }
        assert!(read.hidden.contains("copied"));
        assert_eq!(read.mask.redact("canary-6 and canary-7"), "(secret) and (secret)");
    }

    /// OpenTofu writes the state for it, and until then nobody knows the handle.
    #[test]
    fn a_mark_that_comes_or_goes_is_a_change() {
        let document = json!({ "format_version": "1.2", "output_changes": {
            "comes": { "actions": ["update"], "before": "canary", "after": "canary", "before_sensitive": false, "after_sensitive": true },
            "goes": { "actions": ["update"], "before": "canary", "after": "canary", "before_sensitive": true, "after_sensitive": false },
        } });
        let read = read(&document).expect("a plan");
        assert!(!format!("{read:?}").contains("canary"));
        let (no, yes) = (Value::Bool(false), Value::Bool(true));
        assert_eq!(
            read.output_changes,
            [
                ("comes (sensitive)".to_owned(), no.clone(), yes.clone()),
                ("goes (sensitive)".to_owned(), yes, no)
            ]
        );
        assert!(read.outputs.values().all(|value| *value == Value::Unknown));
    }

    #[test]
    fn drift_is_what_the_module_sets_and_what_is_gone() {
        let update = |address: &str, before: Json, after: Json| {
            change(address, json!({ "actions": ["update"], "before": before, "after": after }))
        };
        let document = json!({
            "format_version": "1.2",
            "resource_drift": [
                update("aws_role.r[\"a\"]", json!({ "inline_policy": [] }), json!({ "inline_policy": [{ "name": "p" }] })),
                update("aws_role.r[\"b\"]", json!({ "tags": { "x": "1" }, "arn": "1" }), json!({ "tags": { "x": "2" }, "arn": "2" })),
                update("aws_role.r[\"c\"]", json!({ "rule": [{ "key": null, "size": 1 }] }), json!({ "rule": [{ "key": false, "size": 2 }] })),
                update("aws_role.r[\"d\"]", json!({ "dynamic": [{ "port": 1 }], "computed": 1 }), json!({ "dynamic": [], "computed": 2 })),
                change("aws_role.gone", json!({ "actions": ["delete"], "before": { "id": "i" }, "after": null })),
            ],
            // What a `dynamic` block sets is not among the expressions.
            "resource_changes": [
                update("aws_role.r[\"d\"]", json!({ "dynamic": [] }), json!({ "dynamic": [{ "port": 1 }] })),
            ],
            "configuration": { "root_module": { "resources": [
                { "address": "aws_role.r", "expressions": { "tags": {}, "rule": [{ "size": { "constant_value": 1 } }] } },
            ] } },
        });
        let drift = read(&document).expect("a plan").drift;
        let told: Vec<(&str, Vec<&str>)> = drift
            .iter()
            .map(|change| {
                (change.address.as_str(), change.attributes.iter().map(|it| it.0.as_str()).collect())
            })
            .collect();
        assert_eq!(
            told,
            [
                ("aws_role.gone", vec!["id"]),
                ("aws_role.r[\"b\"]", vec!["tags.x"]),
                ("aws_role.r[\"c\"]", vec!["rule[0].size"]),
                ("aws_role.r[\"d\"]", vec!["dynamic"]),
            ]
        );
    }

    #[test]
    fn every_action_has_its_word() {
        let case = |actions: &[&str], more: Json| {
            let mut changed = change(
                "a.b[\"k\"]",
                json!({ "actions": actions, "before": { "id": "i" }, "after": { "id": "i" } }),
            );
            let object = changed.as_object_mut().expect("an object");
            object.extend(more.as_object().cloned().unwrap_or_default());
            let read = read(&json!({ "format_version": "1.0", "resource_changes": [changed] }));
            read.map(|document| {
                document.changes.into_iter().next().map(|it| (it.address, it.action, it.reason))
            })
        };
        let of = |address: &str, action: &str, reason: Option<&str>| {
            Ok(Some((address.to_owned(), action.to_owned(), reason.map(str::to_owned))))
        };
        let k = "a.b[\"k\"]";
        assert_eq!(case(&["no-op"], json!({})), Ok(None));
        assert_eq!(case(&["delete"], json!({})), of(k, "destroy", None));
        assert_eq!(
            case(&["delete"], json!({ "deposed": "ab12" })),
            of("a.b[\"k\"] (deposed ab12)", "destroy", None)
        );
        let tainted = json!({ "action_reason": "replace_because_tainted" });
        assert_eq!(
            case(&["delete", "create"], tainted),
            of(k, "replace", Some("tainted: an earlier apply broke off"))
        );
        assert_eq!(
            case(&["no-op"], json!({ "previous_address": "a.c" })),
            of(k, "update", Some("moved from a.c"))
        );
        assert_eq!(
            case(&["forget"], json!({})),
            of(k, "destroy", Some("no longer managed; the thing itself stays"))
        );
        assert_eq!(
            case(&["forget", "create"], json!({})),
            of(k, "replace", Some("the old one is no longer managed and stays"))
        );
        assert_eq!(case(&["read"], json!({ "mode": "data" })), of(k, "read", None));
        assert!(matches!(case(&["dance"], json!({})), Err(DocumentError::Action { .. })));
    }

    #[test]
    fn what_forces_a_replacement_is_told() {
        let document = json!({ "format_version": "1.2", "resource_changes": [change("a.b", json!({
            "actions": ["create", "delete"], "before": { "t": { "ami": "a" } }, "after": { "t": { "ami": "b" } },
            "replace_paths": [["t", "ami"], ["list", 0]],
        }))] });
        let changes = read(&document).expect("a plan").changes;
        assert_eq!(changes[0].reason.as_deref(), Some("forced by t.ami, list[0]"));
        assert_eq!(changes[0].attributes, [("t.ami".to_owned(), "a".into(), "b".into())]);
    }

    #[test]
    fn what_the_provider_makes_up_is_left_out() {
        let disk = json!({ "size": 16, "key": null });
        let configured = |address: &str| {
            json!({ "address": address, "expressions": {
                "disk": [{ "size": { "constant_value": 16 }, "group": { "references": ["b.c"] } }],
                "tags": { "constant_value": {} },
            } })
        };
        let unknown = json!({ "id": true, "arn": true, "disk": [{ "device": true, "group": true }] });
        let document = json!({
            "format_version": "1.2",
            "resource_changes": [
                change("a.new", json!({
                    "actions": ["create"], "before": null,
                    "after": { "disk": [disk], "tags": { "x": null } }, "after_unknown": unknown,
                })),
                change("a.other", json!({
                    "actions": ["delete", "create"],
                    "before": { "id": "i", "arn": "r", "disk": [{ "size": 16, "key": null, "device": "d", "group": "g" }] },
                    "after": { "disk": [disk] }, "after_unknown": unknown,
                })),
            ],
            "configuration": { "root_module": { "resources": [configured("a.new"), configured("a.other")] } },
        });
        let changes = read(&document).expect("a plan").changes;
        let disk = Value::map([("group", Value::Unknown), ("size", 16.into())]);
        assert_eq!(
            changes[0].attributes,
            [
                ("disk".to_owned(), Value::Null, Value::List(vec![disk])),
                ("tags".to_owned(), Value::Null, Value::map([("x", Value::Null)])),
            ]
        );
        assert_eq!(
            changes[1].attributes,
            [
                ("disk[0].group".to_owned(), "g".into(), Value::Unknown),
                ("id".to_owned(), "i".into(), Value::Unknown),
            ]
        );
    }

    #[test]
    fn a_document_that_is_no_whole_plan_is_refused() {
        assert!(matches!(Document::read("{}", "s", &[]), Err(DocumentError::Malformed(_))));
        assert!(matches!(read(&json!({ "format_version": "2.0" })), Err(DocumentError::Version(_))));
        let errored = json!({ "format_version": "1.2", "errored": true });
        assert_eq!(read(&errored), Err(DocumentError::Incomplete));
    }
}
