//! What a module's files set, as `tofu show -json` repeats them in a plan: it tells what people wrote from what a provider makes up.
//! Source: the OpenTofu documentation, "JSON Output Format", configuration representation.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value as Json;

use crate::value::{Map, Segment, Value};

#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct Configuration {
    root_module: ConfiguredModule,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct ConfiguredModule {
    resources: Vec<ConfiguredResource>,
    module_calls: BTreeMap<String, ModuleCall>,
    variables: BTreeMap<String, ConfiguredVariable>,
}

#[derive(Deserialize)]
struct ConfiguredVariable {
    #[serde(default)]
    sensitive: bool,
}

#[derive(Deserialize)]
struct ConfiguredResource {
    address: String,
    #[serde(default)]
    expressions: Json,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct ModuleCall {
    module: ConfiguredModule,
}

/// What the module's files set: the expressions of each resource by its address without instance keys. Blocks are lists of
/// objects there, whatever is set is an object of its own. What a `dynamic` block sets is not told.
pub(super) type Configured<'a> = BTreeMap<String, &'a Json>;

impl Configuration {
    /// The expressions of all resources.
    pub(super) fn resources(&self) -> Configured<'_> {
        let mut found = Configured::new();
        configured(&self.root_module, "", &mut found);
        found
    }

    /// Whether the root module declares a variable as sensitive.
    pub(super) fn is_sensitive(&self, variable: &str) -> bool {
        self.root_module.variables.get(variable).is_some_and(|it| it.sensitive)
    }
}

fn configured<'a>(module: &'a ConfiguredModule, prefix: &str, found: &mut Configured<'a>) {
    for resource in &module.resources {
        found.insert(format!("{prefix}{}", resource.address), &resource.expressions);
    }
    for (name, call) in &module.module_calls {
        configured(&call.module, &format!("{prefix}module.{name}."), found);
    }
}

/// Whether an expression stands for a value, rather than for a block.
fn is_value(expression: &Json) -> bool {
    expression
        .as_object()
        .is_some_and(|it| it.is_empty() || it.contains_key("constant_value") || it.contains_key("references"))
}

/// Whether these expressions set what is at a path, or a part of it. Blocks are not told apart by their place: a provider may
/// have them in another order.
pub(super) fn sets(expression: &Json, path: &[Segment]) -> bool {
    match (expression, path) {
        (expression, _) if is_value(expression) => true,
        (Json::Object(entries), [Segment::Key(name), rest @ ..]) => {
            entries.get(name.as_str()).is_some_and(|entry| sets(entry, rest))
        }
        (Json::Array(blocks), [Segment::Index(_), rest @ ..]) => blocks.iter().any(|block| sets(block, rest)),
        (Json::Object(_) | Json::Array(_), []) => true,
        _ => false,
    }
}

/// A value without what is not set in its blocks, neither by the module nor, as far as it is known, by the provider.
pub(super) fn without_unset(value: Value, expressions: &[&Json]) -> Value {
    let blocks: Vec<&Json> = expressions
        .iter()
        .flat_map(|it| it.as_array().map_or(std::slice::from_ref(*it), Vec::as_slice))
        .collect();
    if blocks.is_empty() || blocks.iter().any(|it| is_value(it)) {
        return value;
    }
    match value {
        Value::List(items) => {
            Value::List(items.into_iter().map(|item| without_unset(item, &blocks)).collect())
        }
        Value::Map(entries) => entries
            .into_iter()
            .map(|(name, value)| {
                let set: Vec<&Json> = blocks.iter().filter_map(|block| block.get(name.as_str())).collect();
                (name, value, set)
            })
            .filter(|(_, value, set)| !(*value == Value::Null || *value == Value::Unknown && set.is_empty()))
            .map(|(name, value, set)| (name, without_unset(value, &set)))
            .collect::<Map>()
            .into(),
        value => value,
    }
}
