//! `tofu_apply`: an `OpenTofu` stack. Its resource changes are nested changes of the one plan, and apply
//! does exactly what was shown.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

use super::context::{ApplyContext, ObserveContext, Scope};
use super::partial::Partial;
use super::primitive::{Inspection, Port, Primitive, ProjectFiles, Refusal};
use super::stack_module;
use crate::plan::{Action, Change, Decision, Effect, Nested};
use crate::providers::ProviderError;
use crate::providers::ports::{ResourceChange, StackError, StackPlan, StackRequest};
use crate::value::{Map, Value, from_typed, to_typed};

/// Applies an `OpenTofu` stack.
pub(super) struct TofuApply;

fn default_workspace() -> String {
    "default".to_owned()
}

/// The programs that know the language and print the same plans.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Binary {
    Tofu,
    Terraform,
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Args {
    /// The module's directory, relative to the project.
    dir: String,
    /// Input variables, held against the module's declarations before anything runs. A secret goes to a variable that is
    /// marked as sensitive.
    #[serde(default)]
    vars: Map,
    /// Destroy everything in the stack. Each resource counts against the budget.
    #[serde(default)]
    destroy: bool,
    /// The workspace.
    #[serde(default = "default_workspace")]
    #[schemars(regex(pattern = r"^[A-Za-z0-9][A-Za-z0-9._\-]{0,89}$"))]
    workspace: String,
    /// Settings of the backend beside those that the module makes, such as `bucket` and `key`. With a profile of an AWS
    /// account, a module that says `backend "s3" {}` has its state in the profile's state bucket unless they say otherwise.
    #[serde(default)]
    backend: Map,
    /// Resource operations at once; 10 when not given, as in `OpenTofu`.
    #[schemars(range(min = 1, max = 256))]
    parallelism: Option<u16>,
    /// The program; `tofu` when it is on `PATH`, else `terraform`.
    binary: Option<Binary>,
    /// Values that stand for variables not known yet while planning, by place: `instances.*.ami`, where `*` is any key. For
    /// modules whose validation refuses the built-in placeholders.
    #[serde(default)]
    placeholders: Map,
    /// Types of outputs, as the language writes them, `"map(string)"`: what uses them is checked before anything runs.
    #[serde(default)]
    outputs: BTreeMap<String, String>,
    /// Resources to replace, by address, each with a trigger: another trigger than the last one replaces the resource once,
    /// the same one changes nothing.
    #[serde(default)]
    replace: BTreeMap<String, String>,
}

/// An applied stack.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "Stack", extend("x-clawd-step" = "tofu_apply"))]
pub(super) struct Stack {
    /// The module's outputs. Sensitive ones are secrets: they may be passed on and are never stored.
    pub(super) outputs: Map,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Seen {
    /// The plan of the stack.
    plan: Option<StackPlan>,
    /// Why there is none yet.
    undecided: Option<String>,
    /// What `OpenTofu` said of a speculative plan that failed.
    #[serde(default)]
    warning: Option<String>,
}

/// The request as far as it is known; only variables may have unknown leaves.
fn request(
    args: &Partial<'_, Args>,
    step: &str,
    source: impl Fn(&str) -> Option<String>,
) -> Result<StackRequest, String> {
    // Everything but the variables decides how a plan is made, so it must be known.
    let vars = match args.get("vars") {
        None => Map::new(),
        Some(Value::Map(vars)) => vars.clone(),
        Some(_) => return Err("vars is not known yet".to_owned()),
    };
    let mut settings = args.value().as_map().cloned().unwrap_or_default();
    settings.remove("vars");
    if let Some((name, _)) = settings.iter().find(|(_, value)| value.has_unknown()) {
        return Err(format!("{name} is not known yet"));
    }
    let settings: Args = to_typed(&Value::Map(settings)).map_err(|error| error.to_string())?;
    let mut secrets = BTreeMap::new();
    Value::Map(vars.clone()).secrets(&mut |name: &SmolStr| {
        if let Some(source) = source(name) {
            secrets.insert(name.clone(), source);
        }
    });
    Ok(StackRequest {
        step: step.to_owned(),
        dir: stack_module::normal(&settings.dir, "").unwrap_or(settings.dir),
        workspace: settings.workspace,
        vars,
        secrets,
        destroy: settings.destroy,
        placeholders: settings.placeholders,
        backend: settings.backend,
        parallelism: settings.parallelism,
        binary: settings.binary.map(|binary| match binary {
            Binary::Tofu => "tofu".to_owned(),
            Binary::Terraform => "terraform".to_owned(),
        }),
        replace: settings.replace,
        outputs: settings.outputs,
    })
}

/// A resource change, with what it does to what is there.
fn nested(change: &ResourceChange) -> Nested {
    let effect = if change.action == "destroy" { Effect::Destroy } else { Effect::Write };
    shown(change, effect)
}

/// Something that happened already: it takes nothing away any more.
fn drifted(change: &ResourceChange) -> Nested {
    shown(change, Effect::Read)
}

fn shown(change: &ResourceChange, effect: Effect) -> Nested {
    let action = Action::from_word(&change.action).unwrap_or(Action::Unknown);
    let changes = change
        .attributes
        .iter()
        .map(|(path, before, after)| Change {
            path: path.into(),
            before: before.clone(),
            after: after.clone(),
            effect,
        })
        .collect();
    Nested { address: change.address.clone(), action, changes, reason: change.reason.clone() }
}

/// The step's own action: what the strongest of its resource changes amounts to for the stack as a whole.
fn action_of(plan: &StackPlan, destroy: bool) -> Action {
    if !plan.acts() && (plan.speculative || plan.outputs.has_unknown()) {
        // The real values have the last word: it is planned with them, and then nothing more may turn up.
        Action::Read
    } else if !plan.acts() {
        Action::NoOp
    } else if destroy {
        Action::Destroy
    } else if plan.empty {
        Action::Create
    } else {
        Action::Update
    }
}

fn reason_of(plan: &StackPlan, action: Action, destroy: bool) -> String {
    match (action, plan.changes.len()) {
        (Action::NoOp, _) if destroy => "the stack is empty".to_owned(),
        (Action::NoOp, _) => "the stack is as its variables say".to_owned(),
        (Action::Read, _) => "nothing changes as far as its variables are known".to_owned(),
        (_, 0) => "only outputs change".to_owned(),
        (_, 1) => "one resource changes".to_owned(),
        (_, count) => format!("{count} resources change"),
    }
}

/// What a plan rests on, in the words of a refusal.
fn basis_of(plan: &StackPlan) -> Option<String> {
    let basis = plan.basis.as_ref().filter(|_| plan.acts() && !plan.speculative)?;
    let short = basis.lineage.get(..8).unwrap_or(&basis.lineage);
    Some(format!("serial {} ({short})", basis.serial))
}

impl Primitive for TofuApply {
    const NAME: &'static str = "tofu_apply";
    const SUMMARY: &'static str = "Applies an OpenTofu stack; its resource changes are part of the plan.";
    const EXAMPLE: &'static str = r#"let stack = tofu_apply("fleet", #{
    dir: "tofu/fleet",
    vars: #{ instances: #{ "CLAWDINATOR-1": #{ type: "t3.large", zone: "eu-central-1a", ami: "ami-0123456789abcdef0" } } },
});
output("instances", stack.outputs.instance_ids);"#;
    const IAM: &'static [&'static str] =
        &["s3:DeleteObject", "s3:GetObject", "s3:ListBucket", "s3:PutObject"];
    const PORT: Port = Port::Tofu;
    type Args = Args;
    type Outputs = Stack;
    type Seen = Seen;

    fn inspect(args: &Partial<'_, Args>, files: &dyn ProjectFiles) -> Inspection {
        stack_module::inspect(args, files)
    }

    async fn observe(
        &self,
        args: &Partial<'_, Args>,
        cx: &ObserveContext<'_>,
    ) -> Result<Seen, ProviderError> {
        let undecided = |reason, warning| Seen { plan: None, undecided: Some(reason), warning };
        let source = |name: &str| cx.secret_source(name).map(str::to_owned);
        let request = match request(args, cx.scope().step.as_str(), source) {
            Ok(request) => request,
            Err(reason) => return Ok(undecided(reason, None)),
        };
        match cx.tofu().plan(&request, cx.purpose()).await {
            Ok(plan) => Ok(Seen { plan: Some(plan), undecided: None, warning: None }),
            Err(StackError::Undecided { reason, warning }) => Ok(undecided(reason, warning)),
            Err(StackError::Provider(error)) => Err(error),
        }
    }

    fn decide(&self, args: &Partial<'_, Args>, seen: &Seen, _: Scope<'_>) -> Result<Decision, Refusal> {
        let Some(plan) = &seen.plan else {
            let reason =
                seen.undecided.clone().unwrap_or_else(|| "the stack could not be planned".to_owned());
            let decision = Decision::unknown(reason);
            return Ok(match &seen.warning {
                Some(warning) => decision.note(warning.clone()),
                None => decision,
            });
        };
        let destroy = matches!(args.get("destroy"), Some(Value::Bool(true)));
        let action = action_of(plan, destroy);
        let planned = Value::map([("outputs", plan.outputs.clone())]);
        let mut decision = Decision::new(action, reason_of(plan, action, destroy), planned);
        decision.nested = plan.changes.iter().map(nested).collect();
        decision.drift = plan.drift.iter().map(drifted).collect();
        decision.basis = basis_of(plan);
        decision.speculative = plan.speculative;
        // Where resources change, an output that is new says no more than they do.
        let tells = |before: &Value| plan.changes.is_empty() || *before != Value::Null;
        let outputs = plan.output_changes.iter().filter(|(_, before, _)| tells(before));
        decision.changes = outputs
            .map(|(name, before, after)| {
                Change::write(format!("outputs.{name}"), before.clone(), after.clone())
            })
            .collect();
        let warnings = plan.warnings.iter().map(|warning| format!("OpenTofu warns: {warning}"));
        Ok(warnings.fold(decision, Decision::note))
    }

    async fn apply(&self, args: Args, seen: Seen, cx: &ApplyContext<'_>) -> Result<Stack, ProviderError> {
        let failed = |message: String| ProviderError::permanent("tofu plan", message);
        let plan = seen.plan.ok_or_else(|| {
            failed(seen.undecided.unwrap_or_else(|| "the stack could not be planned".to_owned()))
        })?;
        if plan.speculative {
            let message = "the plan holds placeholders, although everything before it is applied";
            return Err(failed(message.to_owned()));
        }
        let args = from_typed(&args).map_err(|error| failed(error.to_string()))?;
        let source = |name: &str| cx.secret_source(name).map(str::to_owned);
        let request = request(&Partial::new(&args), cx.step().as_str(), source).map_err(failed)?;
        cx.progress(&format!("applying {} resource changes of {}", plan.changes.len(), request.dir));
        let watch = cx.watch(None);
        let outputs = cx
            .effect("tofu apply", &(&request.dir, &request.workspace, &plan.basis), |_| {
                cx.tofu().apply(&request, &plan, &watch)
            })
            .await?;
        Ok(Stack { outputs })
    }
}
