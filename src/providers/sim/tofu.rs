//! Simulated `OpenTofu`: the module's `sim.rhai` says which resources the variables mean; planning is a diff
//! against the stack's state, applying makes the state so. Instances become instances of the simulated EC2.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Component, Path, PathBuf};

use async_trait::async_trait;

use super::Sim;
use super::ec2::PUBLIC_AMI;
use super::tables::{Draft, Record, Stack};
use crate::providers::error::ProviderError;
use crate::providers::model::ModelError;
use crate::providers::ports::{
    Answer, Basis, Clock as _, Instance, Purpose, ResourceChange, StackError, StackPlan, StackRequest, Tags,
    Tofu, TofuRead, Watch,
};
use crate::stack::{Filled, Placeholders};
use crate::units::Seconds;
use crate::value::{Map, Value};

/// How long an apply takes, and an instance takes to go.
const APPLY: Seconds = Seconds(40);
const TERMINATION: Seconds = Seconds(30);

/// The lineage of every simulated state: there is one per stack and world.
const LINEAGE: &str = "sim";

/// The attribute that names a resource's type.
const TYPE: &str = "type";
/// Attributes that the provider computes.
const ID: &str = "id";

/// Attributes whose change replaces the resource.
fn forces_replacement(kind: &str, attribute: &str) -> bool {
    match kind {
        "aws_instance" => matches!(attribute, "ami" | "availability_zone" | "subnet_id"),
        "aws_iam_role" | "aws_iam_instance_profile" => attribute == "name",
        "terraform_data" => attribute == "triggers_replace",
        _ => false,
    }
}

/// A module with its model.
struct Module {
    file: PathBuf,
    source: String,
}

/// What a plan of a stack comes to.
struct Outcome {
    plan: StackPlan,
    /// Every resource of the stack after it.
    wanted: BTreeMap<String, Map>,
}

fn stack_key(request: &StackRequest) -> String {
    format!("{}#{}", request.dir, request.workspace)
}

/// Variables with the plan's own placeholders in the place of unknown ones; the others stay unknown.
fn with_placeholders(request: &StackRequest) -> Filled {
    Placeholders::new(&request.placeholders).own(&request.vars)
}

fn diff(address: &str, before: Option<&Map>, after: Option<&Map>) -> Option<ResourceChange> {
    let change = |action: &str, attributes| {
        Some(ResourceChange {
            address: address.to_owned(),
            action: action.to_owned(),
            attributes,
            reason: None,
        })
    };
    match (before, after) {
        (None, None) => None,
        (None, Some(after)) => {
            let attributes = after
                .iter()
                .filter(|(key, _)| *key != TYPE)
                .map(|(key, value)| (key.to_string(), Value::Null, value.clone()));
            change("create", attributes.collect())
        }
        (Some(before), None) => {
            let attributes = before.get(ID).map(|id| (ID.to_owned(), id.clone(), Value::Null));
            change("destroy", attributes.into_iter().collect())
        }
        (Some(before), Some(after)) => {
            let kind = after.get(TYPE).and_then(Value::as_str).unwrap_or_default();
            let attributes: Vec<(String, Value, Value)> = after
                .iter()
                .filter(|(key, value)| before.get(key) != Some(*value))
                .map(|(key, value)| {
                    (key.to_string(), before.get(key).cloned().unwrap_or_default(), value.clone())
                })
                .chain(
                    before
                        .iter()
                        .filter(|(key, _)| *key != ID && after.get(key).is_none())
                        .map(|(key, value)| (key.to_string(), value.clone(), Value::Null)),
                )
                .collect();
            if attributes.is_empty() {
                None
            } else if attributes.iter().any(|(key, _, _)| forces_replacement(kind, key)) {
                change("replace", attributes)
            } else {
                change("update", attributes)
            }
        }
    }
}

/// Makes replacements of what has another trigger than the last time.
fn trigger(request: &StackRequest, stack: &Stack, changes: &mut Vec<ResourceChange>) -> Answer<()> {
    for (address, trigger) in &request.replace {
        let at = changes.iter().position(|change| change.address == *address);
        let Some(before) = stack.resources.get(address) else {
            if at.is_some() {
                continue;
            }
            let message =
                format!("{}: `replace` names `{address}`, and there is no such resource", request.dir);
            return Err(ProviderError::permanent("tofu plan -replace", message));
        };
        if stack.triggers.get(address) == Some(trigger) {
            continue;
        }
        match at {
            Some(at) if changes[at].action == "update" => "replace".clone_into(&mut changes[at].action),
            Some(_) => {}
            None => changes.push(ResourceChange {
                address: address.clone(),
                action: "replace".to_owned(),
                attributes: before
                    .get(ID)
                    .map(|id| (ID.to_owned(), id.clone(), Value::Unknown))
                    .into_iter()
                    .collect(),
                reason: Some("asked for".to_owned()),
            }),
        }
    }
    changes.sort_by(|a, b| a.address.cmp(&b.address));
    Ok(())
}

impl Sim {
    fn module(&self, dir: &str) -> Answer<Module> {
        let relative = Path::new(dir);
        if relative.components().any(|part| !matches!(part, Component::Normal(_) | Component::CurDir)) {
            return Err(ProviderError::permanent(
                "tofu plan",
                format!("the module `{dir}` is outside the project"),
            )
            .help("name a directory inside the project, like `tofu/fleet`"));
        }
        let file = self.root.join(relative).join("sim.rhai");
        match fs::read_to_string(&file) {
            Ok(source) => Ok(Module { file: relative.join("sim.rhai"), source }),
            Err(error) => Err(ProviderError::permanent("tofu plan", format!("the module `{dir}` has no readable sim.rhai: {error}"))
                .help("a rehearsal needs `sim.rhai` beside the module: functions resources(vars) and outputs(vars, resources)")),
        }
    }

    fn stack(&self, request: &StackRequest) -> Stack {
        self.world.read(|tables| match tables.get("stack", &stack_key(request)) {
            Some(Record::Stack { row, .. }) => row.clone(),
            _ => Stack::default(),
        })
    }

    fn outcome(&self, request: &StackRequest) -> Result<Outcome, StackError> {
        let module = self.module(&request.dir)?;
        let stack = self.stack(request);
        let speculative = request.vars.iter().any(|(_, value)| value.has_unknown());
        let failed = |error: ModelError| match error {
            ModelError::NeedsUnknown(reason) => StackError::undecided(reason),
            ModelError::Failed(reason) if speculative => StackError::Undecided {
                reason: "the speculative plan failed".to_owned(),
                warning: Some(reason),
            },
            ModelError::Failed(reason) => StackError::Provider(ProviderError::permanent("tofu plan", reason)),
        };
        let filled = with_placeholders(request);
        let vars = &filled.vars;
        let mut wanted: BTreeMap<String, Map> = BTreeMap::new();
        if !request.destroy {
            for (address, attributes) in
                self.model.resources(&module.file, &module.source, vars).map_err(failed)?
            {
                let Value::Map(attributes) = attributes else {
                    let message = format!("{}: the resource {address} is not a map", module.file.display());
                    return Err(ProviderError::permanent("tofu plan", message).into());
                };
                wanted.insert(address.to_string(), attributes);
            }
        }
        let addresses: BTreeSet<&String> = stack.resources.keys().chain(wanted.keys()).collect();
        let mut changes: Vec<ResourceChange> = addresses
            .into_iter()
            .filter_map(|address| diff(address, stack.resources.get(address), wanted.get(address)))
            .collect();
        if !request.destroy {
            trigger(request, &stack, &mut changes)?;
        }
        // What is only updated or left alone keeps its id; what is new has none yet.
        let is_new = |change: &&ResourceChange| matches!(change.action.as_str(), "create" | "replace");
        let fresh: BTreeSet<&str> =
            changes.iter().filter(is_new).map(|change| change.address.as_str()).collect();
        for (address, attributes) in &mut wanted {
            let known = stack.resources.get(address).and_then(|before| before.get(ID));
            let id = known.filter(|_| !fresh.contains(address.as_str()));
            attributes.insert(ID, id.cloned().unwrap_or(Value::Unknown));
        }
        let mut outputs = if request.destroy {
            Value::Map(Map::new())
        } else {
            Value::Map(self.outputs(&module, vars, &wanted).map_err(failed)?)
        };
        if speculative {
            outputs = filled.trusted(&outputs, Some(&stack.outputs));
        }
        for (_, _, after) in changes.iter_mut().flat_map(|change| &mut change.attributes) {
            *after = filled.veiled(after);
        }
        let plan = StackPlan {
            basis: (stack.serial > 0).then(|| Basis { lineage: LINEAGE.to_owned(), serial: stack.serial }),
            empty: stack.resources.is_empty(),
            changes,
            drift: Vec::new(),
            outputs,
            output_changes: Vec::new(),
            speculative,
            warnings: Vec::new(),
        };
        Ok(Outcome { plan, wanted })
    }

    fn outputs(
        &self,
        module: &Module,
        vars: &Map,
        resources: &BTreeMap<String, Map>,
    ) -> Result<Map, ModelError> {
        let resources = resources
            .iter()
            .map(|(address, attributes)| (address.into(), Value::Map(attributes.clone())))
            .collect();
        self.model.outputs(&module.file, &module.source, vars, &resources)
    }

    /// Ends an instance that a stack no longer has; volumes come free once it is gone.
    fn terminate(&self, draft: &mut Draft<'_>, id: &str) {
        if let Some(Record::Instance { row, gone_at: None }) = draft.tables().get("instance", id).cloned() {
            draft.put(Record::Instance { row, gone_at: Some(self.ready_after(TERMINATION)) });
        }
    }

    fn launch(&self, draft: &mut Draft<'_>, attributes: &Map) -> Answer<String> {
        const OPERATION: &str = "ec2 RunInstances";
        let text = |key: &str| {
            attributes.get(key).and_then(Value::as_str).map(str::to_owned).ok_or_else(|| {
                ProviderError::permanent(
                    OPERATION,
                    format!("MissingParameter: an aws_instance needs the string `{key}`"),
                )
            })
        };
        let (ami, zone) = (text("ami")?, text("availability_zone")?);
        // Instances run in the home region: an image of another one is not found.
        let image = draft.tables().get("image", &ami).filter(|record| record.region().is_empty());
        if ami != PUBLIC_AMI && image.is_none() {
            return Err(ProviderError::permanent(OPERATION, format!("InvalidAMIID.NotFound: {ami}")));
        }
        let tags: Tags = attributes
            .get("tags")
            .and_then(Value::as_map)
            .into_iter()
            .flat_map(Map::iter)
            .filter_map(|(key, value)| Some((key.to_string(), value.as_str()?.to_owned())))
            .collect();
        let id = draft.fresh_id("i");
        let row = Instance {
            id: id.clone(),
            zone,
            image_id: ami,
            state: "running".to_owned(),
            tags,
            created: self.now(),
        };
        draft.put(Record::Instance { row, gone_at: None });
        Ok(id)
    }

    /// Makes the changes of a plan in one transaction; returns the resources with their ids.
    fn make(
        &self,
        draft: &mut Draft<'_>,
        plan: &StackPlan,
        before: &Stack,
        wanted: BTreeMap<String, Map>,
    ) -> Answer<BTreeMap<String, Map>> {
        let mut resources = wanted;
        for change in &plan.changes {
            if matches!(change.action.as_str(), "replace" | "destroy")
                && let Some(id) =
                    before.resources.get(&change.address).and_then(|old| old.get(ID)).and_then(Value::as_str)
            {
                self.terminate(draft, id);
            }
            if matches!(change.action.as_str(), "create" | "replace")
                && let Some(attributes) = resources.get_mut(&change.address)
            {
                let id = match attributes.get(TYPE).and_then(Value::as_str) {
                    Some("aws_instance") => self.launch(draft, attributes)?,
                    _ => draft.fresh_id("sim"),
                };
                attributes.insert(ID, id.into());
            }
        }
        Ok(resources)
    }
}

#[async_trait]
impl TofuRead for Sim {
    async fn plan(&self, request: &StackRequest, _: Purpose) -> Result<StackPlan, StackError> {
        self.faults.read("tofu plan")?;
        self.outcome(request).map(|outcome| outcome.plan)
    }
}

#[async_trait]
impl Tofu for Sim {
    async fn apply(&self, request: &StackRequest, plan: &StackPlan, _: &dyn Watch) -> Answer<Map> {
        const OPERATION: &str = "tofu apply";
        self.sleep(APPLY.duration()).await;
        let outcome = match self.outcome(request) {
            Ok(outcome) => outcome,
            Err(StackError::Provider(error)) => return Err(error),
            Err(StackError::Undecided { reason, .. }) => {
                return Err(ProviderError::permanent(OPERATION, reason));
            }
        };
        if outcome.plan != *plan {
            let serial = |plan: &StackPlan| plan.basis.as_ref().map_or(0, |basis| basis.serial);
            let message =
                format!("the state moved: was serial {}, now {}", serial(plan), serial(&outcome.plan));
            return Err(ProviderError::refused(OPERATION, message).help("plan again"));
        }
        let module = self.module(&request.dir)?;
        self.faults.write(OPERATION, || {
            let before = self.stack(request);
            self.world.commit(self.now(), |draft| {
                let resources = self.make(draft, plan, &before, outcome.wanted)?;
                let outputs = if request.destroy {
                    Map::new()
                } else {
                    self.outputs(&module, &with_placeholders(request).vars, &resources)
                        .map_err(|error| ProviderError::permanent(OPERATION, format!("outputs: {error:?}")))?
                };
                let mut triggers = before.triggers.clone();
                triggers.extend(request.replace.clone());
                triggers.retain(|address, _| resources.contains_key(address));
                let outputs_now = Value::Map(outputs.clone());
                let row = Stack { serial: before.serial + 1, resources, outputs: outputs_now, triggers };
                draft.put(Record::Stack { key: stack_key(request), row });
                Ok(outputs)
            })
        })
    }
}
