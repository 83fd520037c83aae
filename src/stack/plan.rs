//! What `tofu show -json` says of a plan, in the terms of a review: resource changes with their attributes, what changed
//! outside, outputs. Source: the OpenTofu documentation, "JSON Output Format", versions 1.x.
//!
//! Values that OpenTofu marks as sensitive never get out of here: an attribute becomes a secret without a name, an output one
//! that is named by its place. What only OpenTofu's own bookkeeping changes (timestamps, versions) is left out, so that two
//! plans of one situation read the same.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use smol_str::SmolStr;

use super::configured::{Configuration, Configured, sets, without_keys, without_unset};
use super::mask::{Mask, below, holds_true, masked};
use crate::value::{Map, Path, Segment, Value};

/// The major version of the format that is read.
const FORMAT: &str = "1.";

/// What a plan was made on: it may be applied to this state and to no other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Basis {
    /// Which state: OpenTofu draws the name when a state is made.
    pub lineage: String,
    /// How often it was written.
    pub serial: u64,
}

/// One resource change of a stack.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ResourceChange {
    /// The resource's address in the stack.
    pub address: String,
    /// `create`, `update`, `replace`, `destroy`, `read`.
    pub action: String,
    /// Attribute diffs: path, before, after.
    pub attributes: Vec<(String, Value, Value)>,
    /// Why, where the action alone does not say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// The plan of a stack.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StackPlan {
    /// The state it was made on; `None` where there is none yet.
    pub basis: Option<Basis>,
    /// Whether the state holds no resources.
    pub empty: bool,
    /// The changes, sorted by address.
    pub changes: Vec<ResourceChange>,
    /// What changed outside since the state was written, sorted by address.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub drift: Vec<ResourceChange>,
    /// Outputs after the changes; unknown leaves where only applying tells.
    pub outputs: Value,
    /// What changes of the outputs: path, before, after.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub output_changes: Vec<(String, Value, Value)>,
    /// Whether placeholders stood for unknown variables.
    pub speculative: bool,
    /// What OpenTofu warns of: checks that fail, what is deprecated.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

impl StackPlan {
    /// Whether applying it would change anything.
    #[must_use]
    pub fn acts(&self) -> bool {
        !self.changes.is_empty() || !self.output_changes.is_empty()
    }
}

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

#[derive(Deserialize)]
struct Changed {
    address: String,
    previous_address: Option<String>,
    deposed: Option<String>,
    #[serde(default)]
    mode: String,
    change: Change,
    action_reason: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Change {
    actions: Vec<String>,
    before: Json,
    after: Json,
    after_unknown: Json,
    before_sensitive: Json,
    after_sensitive: Json,
    replace_paths: Vec<Vec<Json>>,
    importing: Option<Json>,
}

#[derive(Deserialize)]
struct State {
    values: Option<StateValues>,
}

/// The outputs in here are those after the plan, whatever the name says; those before it are in the changes.
#[derive(Deserialize)]
struct StateValues {
    #[serde(default)]
    root_module: StateModule,
}

#[derive(Deserialize)]
struct StateOutput {
    #[serde(default)]
    sensitive: bool,
    #[serde(default)]
    value: Json,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct StateModule {
    resources: Vec<StateResource>,
    child_modules: Vec<StateModule>,
}

#[derive(Deserialize)]
struct StateResource {
    mode: String,
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

impl StateModule {
    fn is_empty(&self) -> bool {
        self.resources.iter().all(|resource| resource.mode == "data")
            && self.child_modules.iter().all(Self::is_empty)
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
        let state = shown.prior_state.as_ref().and_then(|state| state.values.as_ref());
        let empty = state.is_none_or(|values| values.root_module.is_empty());
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
        })
    }
}

/// Drift that somebody should know of: what became of whole resources, of what the module sets, and of what the plan changes.
/// Providers also fill in what other resources made of one, such as the rules of a security group; that was no hand from outside.
fn drifted(
    mut change: ResourceChange,
    configured: &Configured<'_>,
    changes: &[ResourceChange],
) -> Option<ResourceChange> {
    if change.action != "update" {
        return Some(change);
    }
    let expressions = configured.get(&without_keys(&change.address));
    let paths = |changes: &[(String, Value, Value)]| -> Vec<Path> {
        changes.iter().filter_map(|(path, _, _)| path.parse().ok()).collect()
    };
    let planned: Vec<Path> = changes
        .iter()
        .filter(|it| it.address == change.address)
        .flat_map(|it| paths(&it.attributes))
        .collect();
    let told = |path: &str| {
        let Ok(path) = path.parse::<Path>() else { return true };
        let path = path.segments();
        // One of both may be told as a whole.
        let meets = |other: &[Segment]| path.starts_with(other) || other.starts_with(path);
        expressions.is_some_and(|it| sets(it, path)) || planned.iter().any(|it| meets(it.segments()))
    };
    change.attributes.retain(|(path, _, _)| told(path));
    (!change.attributes.is_empty() || change.reason.is_some()).then_some(change)
}

/// The outputs as `tofu output -json` prints them. `step` names the secrets among them: those that OpenTofu marks, those in
/// `hidden`, and those that hold one of the texts in `secrets`.
///
/// # Errors
/// When the text is something else.
pub fn read_outputs(
    text: &str,
    step: &str,
    hidden: &BTreeSet<String>,
    secrets: &[&str],
) -> Result<Map, DocumentError> {
    let outputs: BTreeMap<String, StateOutput> =
        serde_json::from_str(text).map_err(|error| DocumentError::Malformed(error.to_string()))?;
    let mask = Mask::given(secrets);
    let read = |(name, output): (&String, &StateOutput)| {
        let value = value_of(&output.value);
        let is_secret = output.sensitive || hidden.contains(name) || mask.reaches(&value);
        (SmolStr::new(name), if is_secret { secret_output(step, name) } else { value })
    };
    Ok(outputs.iter().map(read).collect())
}

/// The handle of an output that OpenTofu keeps secret; it says where the value can be read again.
#[must_use]
pub fn secret_output(step: &str, name: &str) -> Value {
    Value::Secret(format!("{step}#{}", Path::root().key("outputs").key(name)).into())
}

/// The outputs of a plan.
struct Outputs<'a> {
    changes: &'a BTreeMap<String, Change>,
    mask: &'a Mask,
    step: &'a str,
}

impl Outputs<'_> {
    fn is_secret(&self, value: &Value, marks: &Json) -> bool {
        holds_true(marks) || self.mask.reaches(value)
    }

    /// The outputs after the plan. The handle of a secret is resolved by reading the output where it is, so one that changes is
    /// not known until it has changed.
    fn after(&self) -> Map {
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
    fn before(&self) -> Map {
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
    fn changing(&self) -> Vec<(String, Value, Value)> {
        let mut found = Vec::new();
        for (name, change) in self.changes.iter().filter(|(_, change)| change.actions != ["no-op"]) {
            let before = value_of(&change.before);
            let after = with_unknown(&change.after, &change.after_unknown);
            let marks = (&change.before_sensitive, &change.after_sensitive);
            differences(&before, &after, marks, &Path::root().key(name), &mut found);
        }
        for (_, before, after) in &mut found {
            self.mask.apply(before);
            self.mask.apply(after);
        }
        found
    }

    fn hidden(&self) -> BTreeSet<String> {
        let holds = |change: &Change| self.mask.reaches(&with_unknown(&change.after, &change.after_unknown));
        self.changes.iter().filter(|(_, change)| holds(change)).map(|(name, _)| name.clone()).collect()
    }
}

impl Changed {
    /// The change for a review; `None` when nothing happens to the resource.
    fn read(&self, configured: &Configured<'_>) -> Result<Option<ResourceChange>, DocumentError> {
        let actions: Vec<&str> = self.change.actions.iter().map(String::as_str).collect();
        let moved = self.previous_address.as_ref().filter(|previous| **previous != self.address);
        let (action, mut reason) = match actions[..] {
            ["no-op"] if self.change.importing.is_some() => {
                ("update", Some("imported into the state".to_owned()))
            }
            ["no-op"] if moved.is_some() => ("update", None),
            ["no-op"] => return Ok(None),
            ["create"] => ("create", None),
            ["read"] => ("read", None),
            ["update"] if self.change.importing.is_some() => {
                ("update", Some("imported into the state".to_owned()))
            }
            ["update"] => ("update", None),
            ["delete"] => ("destroy", None),
            ["delete", "create"] | ["create", "delete"] => ("replace", self.replaced_because()),
            // The thing stays and nobody looks after it: that is a loss, and it counts as one.
            ["forget"] => ("destroy", Some("no longer managed; the thing itself stays".to_owned())),
            ["forget", "create"] | ["create", "forget"] => {
                ("replace", Some("the old one is no longer managed and stays".to_owned()))
            }
            _ => {
                return Err(DocumentError::Action {
                    address: self.address.clone(),
                    actions: actions.join(", "),
                });
            }
        };
        if let Some(previous) = moved {
            reason = Some(format!("moved from {previous}"));
        }
        let address = match &self.deposed {
            Some(key) => format!("{} (deposed {key})", self.address),
            None => self.address.clone(),
        };
        // Reading data changes nothing that anybody has.
        let attributes = if self.mode == "data" { Vec::new() } else { self.attributes(action, configured) };
        Ok(Some(ResourceChange { address, action: action.to_owned(), attributes, reason }))
    }

    fn replaced_because(&self) -> Option<String> {
        let paths: Vec<String> = self.change.replace_paths.iter().map(|path| dotted(path)).collect();
        match self.action_reason.as_deref() {
            _ if !paths.is_empty() => Some(format!("forced by {}", paths.join(", "))),
            Some("replace_because_tainted") => Some("tainted: an earlier apply broke off".to_owned()),
            Some("replace_by_request") => Some("asked for".to_owned()),
            Some("replace_by_triggers") => Some("forced by replace_triggered_by".to_owned()),
            _ => None,
        }
    }

    fn attributes(&self, action: &str, configured: &Configured<'_>) -> Vec<(String, Value, Value)> {
        let change = &self.change;
        let expressions = configured.get(&without_keys(&self.address)).copied().unwrap_or(&Json::Null);
        match action {
            "create" => {
                // What the provider makes up is left out, what the module says is shown even when it is not known yet.
                let told = |name: &SmolStr, value: &Value| match value {
                    Value::Null => false,
                    Value::Unknown => sets(expressions, &[Segment::Key(name.clone())]),
                    _ => true,
                };
                let after = with_unknown(&change.after, &change.after_unknown);
                let entries = after.as_map().into_iter().flat_map(Map::iter);
                entries
                    .filter(|(name, value)| told(name, value))
                    .map(|(name, value)| {
                        let set: Vec<&Json> = expressions.get(name.as_str()).into_iter().collect();
                        let value = masked(value, below(&change.after_sensitive, name));
                        (name.to_string(), Value::Null, without_unset(value, &set))
                    })
                    .collect()
            }
            "destroy" => {
                let id =
                    change.before.get("id").filter(|_| !holds_true(below(&change.before_sensitive, "id")));
                id.map(|id| ("id".to_owned(), value_of(id), Value::Null)).into_iter().collect()
            }
            _ => {
                let mut found = Vec::new();
                let before = value_of(&change.before);
                let after = with_unknown(&change.after, &change.after_unknown);
                let marks = (&change.before_sensitive, &change.after_sensitive);
                differences(&before, &after, marks, &Path::root(), &mut found);
                if action == "replace" {
                    // Everything that the provider makes up is new then; which one goes is told by its id.
                    found.retain(|(path, _, after)| {
                        *after != Value::Unknown
                            || path == "id"
                            || path.parse::<Path>().is_ok_and(|path| sets(expressions, path.segments()))
                    });
                }
                found
            }
        }
    }
}

/// Walks both sides down to where they differ.
fn differences(
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
fn with_unknown(value: &Json, unknown: &Json) -> Value {
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
fn value_of(json: &Json) -> Value {
    match json {
        Json::Array(items) => Value::List(items.iter().map(value_of).collect()),
        Json::Object(entries) => {
            Value::Map(entries.iter().map(|(name, item)| (SmolStr::new(name), value_of(item))).collect())
        }
        other => Value::try_from(other.clone()).unwrap_or_else(|_| Value::from(other.to_string())),
    }
}

fn dotted(path: &[Json]) -> String {
    let path = path.iter().fold(Path::root(), |path, segment| match (segment.as_str(), segment.as_u64()) {
        (Some(key), _) => path.key(key),
        (_, Some(index)) => path.index(usize::try_from(index).unwrap_or(usize::MAX)),
        _ => path,
    });
    path.to_string()
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
        let outputs = json!({ "a": { "value": ["canary-given"] }, "b": { "value": "pin" }, "c": { "value": "pinned" },
            "d": { "value": "canary" }, "e": { "value": "canary", "sensitive": true } });
        let hidden = BTreeSet::from(["d".to_owned()]);
        let outputs = read_outputs(&outputs.to_string(), "s.x", &hidden, &["canary-given", "pin"]);
        let told = outputs.expect("outputs").iter().filter(|(_, it)| !matches!(it, Value::Secret(_))).count();
        assert_eq!(told, 1, "a short secret is one only as a whole");
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
