//! The state, as `state pull` prints it: which one it is, and which resources it has. Never written here.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value as Json;

use super::Stack;
use crate::providers::error::ProviderError;
use crate::providers::ports::{Answer, Basis};

/// The lineage of a state that is not there yet.
pub(super) const NONE: &str = "none";

/// A state.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct State {
    lineage: String,
    serial: u64,
    resources: Vec<Resource>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Resource {
    module: Option<String>,
    mode: String,
    #[serde(rename = "type")]
    kind: String,
    name: String,
    instances: Vec<Instance>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Instance {
    index_key: Json,
    attributes: Json,
    deposed: Option<String>,
}

impl State {
    /// Reads what `state pull` printed: nothing, when there is no state.
    pub(super) fn read(text: &str) -> Result<Self, serde_json::Error> {
        if text.trim().is_empty() { Ok(Self::default()) } else { serde_json::from_str(text) }
    }

    /// Which state it is.
    pub(super) fn basis(&self) -> Basis {
        let lineage = if self.lineage.is_empty() { NONE } else { &self.lineage };
        Basis { lineage: lineage.to_owned(), serial: self.serial }
    }

    /// The ids of the resources by address; empty for one without.
    pub(super) fn ids(&self) -> BTreeMap<String, String> {
        let id = |attributes: &Json| match attributes.get("id") {
            Some(Json::String(id)) => id.clone(),
            Some(Json::Number(id)) => id.to_string(),
            _ => String::new(),
        };
        self.instances().map(|(address, attributes)| (address, id(attributes))).collect()
    }

    /// The managed resources by address, with their attributes.
    pub(super) fn instances(&self) -> impl Iterator<Item = (String, &Json)> {
        self.resources.iter().filter(|resource| resource.mode == "managed").flat_map(|resource| {
            let current = resource.instances.iter().filter(|instance| instance.deposed.is_none());
            current.map(|instance| (resource.address(&instance.index_key), &instance.attributes))
        })
    }
}

impl Resource {
    fn address(&self, key: &Json) -> String {
        let module = self.module.as_ref().map_or(String::new(), |module| format!("{module}."));
        let key = match key {
            Json::Null => String::new(),
            // A key's JSON is as the language quotes it.
            key => format!("[{key}]"),
        };
        format!("{module}{}.{}{key}", self.kind, self.name)
    }
}

impl Stack<'_> {
    pub(super) async fn state(&self) -> Answer<State> {
        let text = self.read("tofu state pull", &["state", "pull"]).await?;
        State::read(&text).map_err(|error| {
            ProviderError::permanent("tofu state pull", format!("the state of {}: {error}", self.request.dir))
        })
    }

    /// Which state it is now.
    pub(super) async fn basis(&self) -> Answer<Basis> {
        Ok(self.state().await?.basis())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resources_have_the_addresses_of_plans() {
        let text = r#"{ "lineage": "l", "serial": 3, "resources": [
            { "mode": "managed", "type": "a", "name": "b", "instances": [{ "index_key": "k\"x", "attributes": { "id": "1" } }] },
            { "mode": "managed", "module": "module.m[0]", "type": "a", "name": "c", "instances": [{ "index_key": 2, "attributes": { "id": "2" } }, { "deposed": "d", "attributes": { "id": "3" } }] },
            { "mode": "data", "type": "a", "name": "d", "instances": [{ "attributes": { "id": "4" } }] } ] }"#;
        let state = State::read(text).unwrap();
        let ids: Vec<(String, String)> = state.ids().into_iter().collect();
        assert_eq!(
            ids,
            [
                ("a.b[\"k\\\"x\"]".to_owned(), "1".to_owned()),
                ("module.m[0].a.c[2]".to_owned(), "2".to_owned())
            ]
        );
        assert_eq!(State::read("\n").unwrap().basis(), Basis { lineage: "none".into(), serial: 0 });
    }
}
