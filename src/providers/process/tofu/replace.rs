//! Replacing on a trigger, once. Which trigger each resource was last replaced for is remembered in a second state beside the
//! stack's own, in the same backend: it is shared by all machines and cannot be lost with `.clawd/`.
//!
//! The trigger is written down before the resource is replaced, with the id it has then, and as done afterwards. A run that dies
//! in between goes on: a resource that still has that id is still to be replaced; one that has another was. Only where an id is
//! a name, and outlives what it names, such a run replaces once more.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::init::{Hold, local_state, lock};
use super::place::{Place, private_dir, unwritable};
use super::program::{Complaint, Complaints, Held};
use super::state::State;
use super::variables::backend_file;
use super::{Said, Stack, now};
use crate::providers::error::ProviderError;
use crate::providers::ports::{Answer, StackPlan};
use crate::stack::Mask;
use crate::stack::module::CLOUD;
use crate::value::Value;

const REPLACE: &str = "tofu apply (triggers)";

/// The workspace beside the stack's own.
const SUFFIX: &str = "clawd-replace";

/// What is remembered of a resource.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Memory {
    trigger: String,
    /// The id that the resource had when the trigger was written down; `None` when it was not there, or has been replaced.
    was: Option<String>,
}

/// By address.
type Memories = BTreeMap<String, Memory>;

/// Whether a resource is still to be replaced for a trigger.
fn is_due(trigger: &str, known: Option<&Memory>, id: Option<&String>) -> bool {
    match (id, known) {
        // It is made anew in any case.
        (None, _) => false,
        (Some(_), None) => true,
        (Some(id), Some(memory)) => memory.trigger != trigger || memory.was.as_ref() == Some(id),
    }
}

fn cloned((address, memory): (&String, &Memory)) -> (String, Memory) {
    (address.clone(), memory.clone())
}

impl Stack<'_> {
    /// The addresses that are to be replaced now.
    pub(super) async fn triggered(&self) -> Answer<Vec<String>> {
        if self.request.replace.is_empty() || self.request.destroy {
            return Ok(Vec::new());
        }
        if self.module.backend.as_ref().is_some_and(|backend| backend.kind == CLOUD) {
            let message = format!(
                "{}: `replace` remembers its triggers in a workspace beside the stack's, and a `cloud` block has no place for it",
                self.request.dir
            );
            return Err(ProviderError::permanent("tofu plan -replace", message)
                .help("name a backend instead, such as `backend \"s3\" {}`"));
        }
        let (ids, known) = (self.state().await?.ids(), self.memories().await?);
        let due = self
            .request
            .replace
            .iter()
            .filter(|(address, trigger)| is_due(trigger, known.get(*address), ids.get(*address)));
        Ok(due.map(|(address, _)| address.clone()).collect())
    }

    /// An address that means nothing would never be replaced, and nobody would notice.
    pub(super) async fn check_addresses(&self, plan: &StackPlan) -> Answer<()> {
        if self.request.replace.is_empty() || self.request.destroy {
            return Ok(());
        }
        let ids = self.state().await?.ids();
        let changing = |address: &str| plan.changes.iter().any(|change| change.address == address);
        let unknown =
            self.request.replace.keys().find(|address| !ids.contains_key(*address) && !changing(address));
        let Some(address) = unknown else { return Ok(()) };
        let near = crate::diagnostic::nearest(address, ids.keys().map(String::as_str));
        let message =
            format!("{}: `replace` names `{address}`, and there is no such resource", self.request.dir);
        Err(ProviderError::permanent("tofu plan -replace", message).help(match near {
            Some(near) => format!("did you mean `{near}`?"),
            None if ids.is_empty() => "the stack has no resources yet".to_owned(),
            None => format!("there is: {}", ids.keys().cloned().collect::<Vec<_>>().join(", ")),
        }))
    }

    /// Writes the triggers down, before anything is replaced for them.
    pub(super) async fn remember_triggers(&self) -> Answer<()> {
        if self.request.replace.is_empty() || self.request.destroy {
            return Ok(());
        }
        let (ids, known) = (self.state().await?.ids(), self.memories().await?);
        // Another request may name other resources; what is gone needs no memory.
        let mut memories: Memories =
            known.iter().filter(|(address, _)| ids.contains_key(*address)).map(cloned).collect();
        for (address, trigger) in &self.request.replace {
            if memories.get(address).is_none_or(|memory| memory.trigger != *trigger) {
                let memory = Memory { trigger: trigger.clone(), was: ids.get(address).cloned() };
                memories.insert(address.clone(), memory);
            }
        }
        self.remember(memories, &known).await
    }

    /// Writes down that what the triggers meant is done.
    pub(super) async fn triggers_are_done(&self) -> Answer<()> {
        if self.request.replace.is_empty() || self.request.destroy {
            return Ok(());
        }
        let known = self.memories().await?;
        let mut done = known.clone();
        for address in self.request.replace.keys() {
            if let Some(memory) = done.get_mut(address) {
                memory.was = None;
            }
        }
        self.remember(done, &known).await
    }

    async fn remember(&self, memories: Memories, known: &Memories) -> Answer<()> {
        if memories == *known {
            return Ok(());
        }
        let failed = |error: serde_json::Error| ProviderError::permanent(REPLACE, error.to_string());
        let memories = format!("-var=memories={}", serde_json::to_string(&memories).map_err(failed)?);
        let lock_timeout = self.tofu.lock_timeout();
        let apply = ["apply", "-input=false", "-no-color", "-auto-approve", &lock_timeout, &memories];
        self.beside(&apply).await.map(|_| ())
    }

    async fn memories(&self) -> Answer<Memories> {
        let said = self.beside(&["state", "pull"]).await?;
        let failed = |error: serde_json::Error| {
            ProviderError::permanent(REPLACE, format!("{}: {error}", self.request.dir))
        };
        let state = State::read(&said.stdout).map_err(failed)?;
        let memories = state.instances().filter_map(|(_, attributes)| {
            let input: Memories =
                serde_json::from_value(attributes.get("input")?.get("value")?.clone()).ok()?;
            Some(input)
        });
        Ok(memories.flatten().collect())
    }

    /// Runs a command on the second state. Its module holds nothing but the memories.
    async fn beside(&self, args: &[&str]) -> Answer<Said> {
        let home = self.place.home.join("triggers");
        let place = Place { module: home.clone(), common: home.clone(), home };
        let dir = &place.module;
        private_dir(dir).map_err(|error| unwritable(dir, &error))?;
        let _alone = lock(dir, Hold::Alone, self.tofu.around.lock_timeout).await?;
        let write = |name: &str, text: &str| {
            fs::write(dir.join(name), text).map_err(|error| unwritable(&dir.join(name), &error))
        };
        let settings = self.tofu.backend(&self.module, self.request)?;
        let local = local_state(&self.module, &self.place, &settings);
        let (backend, settings) = match (&local, &self.module.backend) {
            (Some(state), _) => {
                let mut settings = crate::value::Map::new();
                let path = format!("{}.{}.{SUFFIX}", state.display(), self.request.workspace);
                settings.insert("path", Value::from(path));
                ("backend \"local\" {}".to_owned(), settings)
            }
            (None, Some(backend)) => (backend.text.clone(), settings),
            (None, None) => (String::new(), settings),
        };
        write("main.tf", &format!("terraform {{\n{backend}\n}}\n"))?;
        let input = json!({ "resource": { "terraform_data": { "replaced": { "input": "${jsondecode(var.memories)}" } } },
            "variable": { "memories": { "type": "string" } } });
        write("memories.tf.json", &input.to_string())?;
        write("backend.tfbackend", &backend_file(&settings))?;
        let mut request = self.request.clone();
        request.workspace = match &local {
            Some(_) => "default".to_owned(),
            None => format!("{}-{SUFFIX}", self.request.workspace),
        };
        let of = format!("the triggers of {}", request.dir);
        let set = self.tofu.variables(&place, &request);
        let without: Vec<_> = set.iter().filter(|(name, _)| name != "TF_WORKSPACE").cloned().collect();
        let file = format!("-backend-config={}", dir.join("backend.tfbackend").display());
        let init = ["init", "-input=false", "-no-color", "-reconfigure", &file];
        let run = async |set: &[(String, OsString)], args: &[&str]| {
            let tool = self.program.tool(&place.module, &self.tofu.place.environment, set);
            let said = tool.run(args).await?;
            if said.status.success() {
                return Ok(said);
            }
            let complaints = Complaints(vec![Complaint::plain(&said.stderr)]);
            Err(match (Held::read(&complaints), &local) {
                (Some(held), None) => {
                    let dir = place.module.display().to_string();
                    let unlock = format!("force-unlock {}", held.id);
                    let unlock = place.command(&self.program.name, &dir, &request.workspace, &unlock);
                    held.refusal(REPLACE, &of, now(), Some(&unlock))
                }
                (Some(held), Some(_)) => held.refusal(REPLACE, &of, now(), None),
                (None, _) => self.failed(REPLACE, &complaints, &Mask::default()),
            })
        };
        run(&without, &init).await?;
        run(&set, args).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trigger_replaces_once_whatever_happens_in_between() {
        let (one, two) = ("i-1".to_owned(), "i-2".to_owned());
        let memory =
            |trigger: &str, was: Option<&String>| Memory { trigger: trigger.to_owned(), was: was.cloned() };
        assert!(is_due("a", None, Some(&one)), "never replaced");
        assert!(is_due("a", Some(&memory("a", Some(&one))), Some(&one)), "written down, not done yet");
        assert!(!is_due("a", Some(&memory("a", Some(&one))), Some(&two)), "done");
        assert!(is_due("b", Some(&memory("a", Some(&one))), Some(&two)), "another trigger");
        assert!(
            !is_due("a", Some(&memory("a", None)), Some(&one)),
            "made after the trigger was written down, or done under the same id"
        );
        assert!(!is_due("a", None, None), "not there");
    }
}
