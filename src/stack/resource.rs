//! One resource's change in the words of a review, and which drift is told.

use serde::Deserialize;
use serde_json::Value as Json;
use smol_str::SmolStr;

use super::address::without_keys;
use super::change::{Change, differences, value_of, with_unknown};
use super::configured::{Configured, sets, without_unset};
use super::document::DocumentError;
use super::mask::{below, holds_true, masked};
use super::plan::ResourceChange;
use crate::value::{Map, Path, Segment, Value};

#[derive(Deserialize)]
pub(super) struct Changed {
    address: String,
    previous_address: Option<String>,
    deposed: Option<String>,
    #[serde(default)]
    mode: String,
    pub(super) change: Change,
    action_reason: Option<String>,
}

impl Changed {
    /// The change for a review; `None` when nothing happens to the resource.
    pub(super) fn read(&self, configured: &Configured<'_>) -> Result<Option<ResourceChange>, DocumentError> {
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

/// Drift that somebody should know of: what became of whole resources, of what the module sets, and of what the plan changes.
/// Providers also fill in what other resources made of one, such as the rules of a security group; that was no hand from outside.
pub(super) fn drifted(
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

fn dotted(path: &[Json]) -> String {
    let path = path.iter().fold(Path::root(), |path, segment| match (segment.as_str(), segment.as_u64()) {
        (Some(key), _) => path.key(key),
        (_, Some(index)) => path.index(usize::try_from(index).unwrap_or(usize::MAX)),
        _ => path,
    });
    path.to_string()
}
