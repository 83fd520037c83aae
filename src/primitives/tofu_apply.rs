//! `tofu_apply`: an `OpenTofu` stack. Its resource changes are nested changes of the one plan, and apply
//! does exactly what was shown.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::context::{ApplyContext, ObserveContext, Scope};
use super::partial::Partial;
use super::primitive::{Port, Primitive, Refusal};
use crate::plan::{Action, Change, Decision, Effect, Nested};
use crate::providers::ProviderError;
use crate::providers::ports::{ResourceChange, StackError, StackPlan, StackRequest};
use crate::value::{Map, Value};

/// Applies an `OpenTofu` stack.
pub(super) struct TofuApply;

fn default_workspace() -> String {
    "default".to_owned()
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Args {
    /// The module's directory, relative to the project.
    dir: String,
    /// Input variables.
    #[serde(default)]
    vars: Map,
    /// Destroy everything in the stack. Each resource counts against the budget.
    #[serde(default)]
    destroy: bool,
    /// The workspace.
    #[serde(default = "default_workspace")]
    workspace: String,
    /// Values that stand for variables not known yet while planning, by variable; for modules whose
    /// validation refuses the built-in placeholders.
    #[serde(default)]
    placeholders: Map,
}

/// An applied stack.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "Stack", extend("x-clawd-step" = "tofu_apply"))]
pub(super) struct Stack {
    /// The module's outputs.
    pub(super) outputs: Map,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Seen {
    /// The plan of the stack.
    plan: Option<StackPlan>,
    /// Why there is none yet.
    undecided: Option<String>,
}

impl Args {
    fn request(&self) -> StackRequest {
        StackRequest {
            dir: self.dir.clone(),
            workspace: self.workspace.clone(),
            vars: self.vars.clone(),
            destroy: self.destroy,
            placeholders: self.placeholders.clone(),
        }
    }
}

/// The request as far as it is known; only variables may have unknown leaves.
fn partial_request(args: &Partial<'_, Args>) -> Result<StackRequest, String> {
    let map = |path: &str| match args.get(path) {
        None => Ok(Map::new()),
        Some(Value::Map(map)) => Ok(map.clone()),
        Some(_) => Err(format!("{path} is not known yet")),
    };
    Ok(StackRequest {
        dir: args.str("dir").ok_or("dir is not known yet")?.to_owned(),
        workspace: match args.get("workspace") {
            None => default_workspace(),
            Some(value) => value.as_str().ok_or("workspace is not known yet")?.to_owned(),
        },
        vars: map("vars")?,
        destroy: match args.get("destroy") {
            None => false,
            Some(Value::Bool(destroy)) => *destroy,
            Some(_) => return Err("destroy is not known yet".to_owned()),
        },
        placeholders: map("placeholders")?,
    })
}

fn nested(change: &ResourceChange) -> Nested {
    let action = Action::from_word(&change.action).unwrap_or(Action::Unknown);
    let effect = if action == Action::Destroy { Effect::Destroy } else { Effect::Write };
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
    Nested { address: change.address.clone(), action, changes }
}

/// The step's own action: what the strongest of its resource changes amounts to for the stack as a whole.
fn action_of(plan: &StackPlan, destroy: bool) -> Action {
    if plan.changes.is_empty() {
        Action::NoOp
    } else if destroy {
        Action::Destroy
    } else if plan.empty {
        Action::Create
    } else {
        Action::Update
    }
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

    async fn observe(
        &self,
        args: &Partial<'_, Args>,
        cx: &ObserveContext<'_>,
    ) -> Result<Seen, ProviderError> {
        let request = match partial_request(args) {
            Ok(request) => request,
            Err(reason) => {
                return Ok(Seen { plan: None, undecided: Some(reason) });
            }
        };
        match cx.tofu().plan(&request).await {
            Ok(plan) => Ok(Seen { plan: Some(plan), undecided: None }),
            Err(StackError::Undecided(reason)) => Ok(Seen { plan: None, undecided: Some(reason) }),
            Err(StackError::Provider(error)) => Err(error),
        }
    }

    fn decide(&self, args: &Partial<'_, Args>, seen: &Seen, _: Scope<'_>) -> Result<Decision, Refusal> {
        let Some(plan) = &seen.plan else {
            let reason =
                seen.undecided.clone().unwrap_or_else(|| "the stack could not be planned".to_owned());
            return Ok(Decision::unknown(reason));
        };
        let destroy = matches!(args.get("destroy"), Some(Value::Bool(true)));
        let action = action_of(plan, destroy);
        let planned = Value::map([("outputs", plan.outputs.clone())]);
        let reason = match (action, plan.changes.len()) {
            (Action::NoOp, _) if destroy => "the stack is empty".to_owned(),
            (Action::NoOp, _) => "the stack is as its variables say".to_owned(),
            (_, 1) => "one resource changes".to_owned(),
            (_, count) => format!("{count} resources change"),
        };
        let mut decision = Decision::new(action, reason, planned);
        decision.nested = plan.changes.iter().map(nested).collect();
        decision.speculative = plan.speculative;
        Ok(decision)
    }

    async fn apply(&self, args: Args, seen: Seen, cx: &ApplyContext<'_>) -> Result<Stack, ProviderError> {
        let plan = seen.plan.ok_or_else(|| {
            ProviderError::permanent(
                "tofu plan",
                seen.undecided.unwrap_or_else(|| "the stack could not be planned".to_owned()),
            )
        })?;
        let request = args.request();
        cx.progress(&format!("applying {} resource changes of {}", plan.changes.len(), request.dir));
        let outputs = cx
            .effect("tofu apply", &(&request.dir, &request.workspace, plan.serial), |_| {
                cx.tofu().apply(&request, &plan)
            })
            .await?;
        Ok(Stack { outputs })
    }
}
