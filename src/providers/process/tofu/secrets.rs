//! Secrets on their way to a stack: where they are read, which variables may hold them, and how they stay out of what is told.
//!
//! Never stores one: what was read lives as long as the plan or apply it is for.

use std::collections::BTreeSet;
use std::sync::PoisonError;

use smol_str::SmolStr;

use super::variables::Revealed;
use super::{PLAN, Stack, TofuProcess};
use crate::providers::error::ProviderError;
use crate::providers::ports::{Answer, StackRequest};
use crate::stack::Mask;
use crate::value::{Reference, Segment, Value};

impl TofuProcess {
    /// Reads the secrets among the variables.
    pub(super) async fn reveal(&self, request: &StackRequest) -> Answer<Revealed> {
        let mut names = BTreeSet::new();
        Value::Map(request.vars.clone()).secrets(&mut |name: &SmolStr| {
            names.insert(name.clone());
        });
        let mut revealed = Revealed::new();
        for name in names {
            let value = match request.secrets.get(&name) {
                Some(source) => self.around.secrets.read(source).await?.reveal().into(),
                None => self.secret_output(&name).await?,
            };
            revealed.push((name, value));
        }
        Ok(revealed)
    }

    /// A sensitive output of another stack, read where it is.
    async fn secret_output(&self, name: &str) -> Answer<serde_json::Value> {
        let failed = |message: String| ProviderError::permanent("tofu output", message);
        let reference: Reference =
            name.parse().map_err(|_| failed(format!("there is no secret `{name}`")))?;
        let request = {
            let stacks = self.stacks.lock().unwrap_or_else(PoisonError::into_inner);
            stacks.get(reference.step.as_str()).cloned()
        };
        let request =
            request.ok_or_else(|| failed(format!("`{name}` comes from a step that was not looked at")))?;
        let text = Box::pin(self.stack(&request)).await?.output_text().await?;
        let outputs: serde_json::Value =
            serde_json::from_str(&text).map_err(|error| failed(format!("{}: {error}", request.dir)))?;
        let mut segments = reference.path.segments().iter().skip(1);
        let Some(Segment::Key(output)) = segments.next() else {
            return Err(failed(format!("`{name}` is no output")));
        };
        let mut value = outputs.get(output.as_str()).and_then(|output| output.get("value"));
        for segment in segments {
            value = value.and_then(|value| match segment {
                Segment::Key(key) => value.get(key.as_str()),
                Segment::Index(index) => value.get(index),
            });
        }
        value
            .cloned()
            .ok_or_else(|| failed(format!("the stack in {} has no output `{name}` now", request.dir)))
    }
}

impl Stack<'_> {
    /// A secret goes to variables that OpenTofu keeps out of what it prints. Handles in the script were checked there;
    /// sensitive outputs of other stacks turn up only now.
    pub(super) fn check_secrets(&self) -> Answer<()> {
        for (name, value) in self.request.vars.iter() {
            let mut secret = None;
            value.secrets(&mut |found| secret = Some(found.clone()));
            let is_open = self.module.variables.get(name).is_some_and(|variable| !variable.sensitive);
            if let Some(secret) = secret.filter(|_| is_open) {
                let message = format!(
                    "{}: the variable `{name}` is not marked as sensitive and would be given `{secret}`, which is",
                    self.request.dir
                );
                return Err(ProviderError::permanent(PLAN, message)
                    .help(format!("write `sensitive = true` into variable \"{name}\"")));
            }
        }
        Ok(())
    }
}

/// Whether secrets go into a plan: the script's own, or sensitive outputs of other stacks.
pub(super) fn holds_secrets(request: &StackRequest) -> bool {
    request.vars.values().any(|value| {
        let mut found = false;
        value.secrets(&mut |_| found = true);
        found
    })
}

/// Texts of secrets that must not appear in anything that is told.
pub(super) fn texts(revealed: &Revealed) -> Vec<&str> {
    fn collect<'a>(value: &'a serde_json::Value, found: &mut Vec<&'a str>) {
        match value {
            serde_json::Value::String(text) => found.push(text),
            serde_json::Value::Array(items) => items.iter().for_each(|item| collect(item, found)),
            serde_json::Value::Object(entries) => entries.values().for_each(|item| collect(item, found)),
            _ => {}
        }
    }
    let mut found = Vec::new();
    revealed.iter().for_each(|(_, value)| collect(value, &mut found));
    found
}

/// What takes them out of messages.
pub(super) fn mask(revealed: &Revealed) -> Mask {
    Mask::given(&texts(revealed))
}
