//! The trait a primitive implements, and its erased form over `Value`, which script, planner and executor
//! work with.

use std::fmt;
use std::future::Future;
use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value as Json;

use super::context::{ApplyContext, ObserveContext, Scope};
use super::partial::Partial;
use super::schema::{Problem, Schema, json_schema};
use crate::diagnostic::Diagnostic;
use crate::plan::Decision;
use crate::providers::ProviderError;
use crate::value::{Value, from_typed, to_typed};

/// The port a primitive loads most; concurrency is bounded per port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Port {
    /// Nix evaluation and builds.
    Nix,
    /// EC2 calls.
    Ec2,
    /// OpenTofu processes.
    Tofu,
    /// Commands on hosts.
    Hosts,
}

/// A rule that says no, given what is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// What the rule is and what stands against it.
    pub message: String,
    /// The next move.
    pub help: Option<String>,
}

impl Refusal {
    /// A refusal with the next move.
    #[must_use]
    pub fn new(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { message: message.into(), help: Some(help.into()) }
    }
}

/// The files of the project that a step's arguments name. Each that is looked at becomes part of the plan's inputs.
pub trait ProjectFiles {
    /// The files below a directory, as paths relative to it, sorted.
    ///
    /// # Errors
    /// When the directory cannot be read, or is outside the project.
    fn tree(&self, dir: &str) -> Result<Vec<String>, Diagnostic>;

    /// A text.
    ///
    /// # Errors
    /// When the file cannot be read, or is outside the project.
    fn text(&self, path: &str) -> Result<Arc<str>, Diagnostic>;
}

/// What the files that arguments name say of them.
#[derive(Debug, Default)]
pub struct Inspection {
    /// What is wrong.
    pub problems: Vec<Problem>,
    /// What the step yields, where the files know more than the primitive.
    pub outputs: Option<Schema>,
}

/// A kind of operation. Primitives are stateless unit structs; a new dependency is a new port on
/// `Providers`, reached through the context, so that no constructor changes.
pub trait Primitive: Send + Sync + 'static {
    /// `verb_noun`, the file's stem.
    const NAME: &'static str;
    /// What it does, in one sentence of the reference.
    const SUMMARY: &'static str;
    /// A Rhai snippet that plans and applies in the simulator: documentation and test.
    const EXAMPLE: &'static str;
    /// The AWS actions it may call.
    const IAM: &'static [&'static str];
    /// The port that bounds how many run at once.
    const PORT: Port;
    /// The arguments; doc comments are the user's reference.
    type Args: DeserializeOwned + Serialize + JsonSchema + Send + Sync;
    /// The outputs; doc comments are the user's reference.
    type Outputs: DeserializeOwned + Serialize + JsonSchema + Send + Sync;
    /// The observation. It is saved with the plan and shown by `clawd show`.
    type Seen: DeserializeOwned + Serialize + Send + Sync;

    /// Whether a step with these arguments may call an action of `IAM`. The least policy of a plan leaves out the rest.
    #[must_use]
    fn needs(args: &Partial<'_, Self::Args>, action: &str) -> bool {
        let _ = (args, action);
        true
    }

    /// The ARN, or pattern of ARNs, that an action of `IAM` is called on.
    #[must_use]
    fn resource(args: &Partial<'_, Self::Args>, action: &str, scope: Scope<'_>) -> String {
        let _ = (args, action, scope);
        "*".to_owned()
    }

    /// Holds arguments against the project's files, while the script is evaluated. Never looks at the world.
    #[must_use]
    fn inspect(args: &Partial<'_, Self::Args>, files: &dyn ProjectFiles) -> Inspection {
        let _ = (args, files);
        Inspection::default()
    }

    /// Looks at the world through reading ports. Must not change anything managed, and must not read a
    /// failed look-up as "absent".
    fn observe(
        &self,
        args: &Partial<'_, Self::Args>,
        cx: &ObserveContext<'_>,
    ) -> impl Future<Output = Result<Self::Seen, ProviderError>> + Send;

    /// Decides what to do. Pure: the same arguments and observation give the same decision.
    ///
    /// # Errors
    /// When a rule forbids what the arguments ask for.
    fn decide(
        &self,
        args: &Partial<'_, Self::Args>,
        seen: &Self::Seen,
        scope: Scope<'_>,
    ) -> Result<Decision, Refusal>;

    /// Makes it so, and returns the outputs. Called with a fresh observation for which `decide` acts; must
    /// converge from any state an earlier, interrupted try left behind.
    fn apply(
        &self,
        args: Self::Args,
        seen: Self::Seen,
        cx: &ApplyContext<'_>,
    ) -> impl Future<Output = Result<Self::Outputs, ProviderError>> + Send;
}

/// Why a step could not be decided or applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StepError {
    /// A call to the outside failed.
    #[error(transparent)]
    Provider(#[from] ProviderError),
    /// A rule says no.
    #[error("{}", .0.message)]
    Refused(Refusal),
}

impl StepError {
    /// The next move.
    #[must_use]
    pub fn help(&self) -> Option<&str> {
        match self {
            Self::Provider(error) => error.help.as_deref(),
            Self::Refused(refusal) => refusal.help.as_deref(),
        }
    }
}

/// A primitive over values.
pub trait ErasedPrimitive: Send + Sync {
    /// The actions that a step with these arguments may call, each with the ARN it calls it on.
    fn permissions(&self, args: &Value, scope: Scope<'_>) -> Vec<(&'static str, String)>;

    /// Holds arguments that fit the schema against the project's files.
    fn inspect(&self, args: &Value, files: &dyn ProjectFiles) -> Inspection;

    /// Observes and decides. Returns the observation and the decision.
    fn survey<'a>(
        &'a self,
        args: &'a Value,
        cx: &'a ObserveContext<'a>,
    ) -> BoxFuture<'a, Result<(Value, Decision), StepError>>;

    /// Applies on a fresh observation. Returns the outputs.
    fn apply<'a>(
        &'a self,
        args: &'a Value,
        seen: &'a Value,
        cx: &'a ApplyContext<'a>,
    ) -> BoxFuture<'a, Result<Value, StepError>>;
}

struct Erased<P>(P);

/// A value that should have the type it was checked for has not: a defect of the primitive, reported as such.
fn defect<P: Primitive>(what: &str, error: &impl fmt::Display) -> ProviderError {
    ProviderError::permanent(P::NAME, format!("the {what} cannot be read: {error}"))
}

impl<P: Primitive> ErasedPrimitive for Erased<P> {
    fn permissions(&self, args: &Value, scope: Scope<'_>) -> Vec<(&'static str, String)> {
        let args = Partial::new(args);
        let needed = P::IAM.iter().filter(|action| P::needs(&args, action));
        needed.map(|action| (*action, P::resource(&args, action, scope))).collect()
    }

    fn inspect(&self, args: &Value, files: &dyn ProjectFiles) -> Inspection {
        P::inspect(&Partial::new(args), files)
    }

    fn survey<'a>(
        &'a self,
        args: &'a Value,
        cx: &'a ObserveContext<'a>,
    ) -> BoxFuture<'a, Result<(Value, Decision), StepError>> {
        async move {
            let partial = Partial::new(args);
            let seen = self.0.observe(&partial, cx).await?;
            let decision = self.0.decide(&partial, &seen, cx.scope()).map_err(StepError::Refused)?;
            let seen = from_typed(&seen).map_err(|error| defect::<P>("observation", &error))?;
            Ok((seen, decision))
        }
        .boxed()
    }

    fn apply<'a>(
        &'a self,
        args: &'a Value,
        seen: &'a Value,
        cx: &'a ApplyContext<'a>,
    ) -> BoxFuture<'a, Result<Value, StepError>> {
        async move {
            let args = to_typed(args).map_err(|error| defect::<P>("arguments", &error))?;
            let seen = to_typed(seen).map_err(|error| defect::<P>("observation", &error))?;
            let outputs = self.0.apply(args, seen, cx).await?;
            Ok(from_typed(&outputs).map_err(|error| defect::<P>("outputs", &error))?)
        }
        .boxed()
    }
}

/// A primitive with everything the rest of the house asks about it.
pub struct Registered {
    /// Its name.
    pub name: &'static str,
    /// What it does.
    pub summary: &'static str,
    /// Its example.
    pub example: &'static str,
    /// The AWS actions it may call.
    pub iam: &'static [&'static str],
    /// The port that bounds it.
    pub port: Port,
    /// What it takes.
    pub args: Schema,
    /// What it yields.
    pub outputs: Schema,
    /// The JSON Schema of its arguments.
    pub args_json: Json,
    /// The JSON Schema of its outputs.
    pub outputs_json: Json,
    erased: Box<dyn ErasedPrimitive>,
}

impl Registered {
    /// The registry's entry for a primitive.
    #[must_use]
    pub fn entry<P: Primitive>(primitive: P) -> (&'static str, Self) {
        let entry = Self {
            name: P::NAME,
            summary: P::SUMMARY,
            example: P::EXAMPLE,
            iam: P::IAM,
            port: P::PORT,
            args: Schema::of::<P::Args>(),
            outputs: Schema::of::<P::Outputs>(),
            args_json: json_schema::<P::Args>(),
            outputs_json: json_schema::<P::Outputs>(),
            erased: Box::new(Erased(primitive)),
        };
        (P::NAME, entry)
    }

    /// What observes, decides and applies.
    #[must_use]
    pub fn operations(&self) -> &dyn ErasedPrimitive {
        &*self.erased
    }
}

impl fmt::Debug for Registered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registered").field("name", &self.name).finish_non_exhaustive()
    }
}
