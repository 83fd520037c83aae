//! OpenTofu stacks: planned without a lock, applied exactly as planned.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::{Answer, ProviderError};
use crate::value::{Map, Value};

/// What a stack is planned from.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StackRequest {
    /// The module's directory, relative to the project.
    pub dir: String,
    /// The workspace.
    pub workspace: String,
    /// Input variables; leaves may be unknown while planning.
    pub vars: Map,
    /// Plan to destroy everything.
    pub destroy: bool,
    /// Values that stand for unknown variables in a speculative plan.
    pub placeholders: Map,
}

/// One resource change of a stack.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ResourceChange {
    /// The resource's address in the stack.
    pub address: String,
    /// `create`, `update`, `replace`, `destroy`.
    pub action: String,
    /// Attribute diffs: path, before, after.
    pub attributes: Vec<(String, Value, Value)>,
}

/// The plan of a stack.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StackPlan {
    /// The state's serial the plan was made on.
    pub serial: u64,
    /// Whether the state holds no resources.
    pub empty: bool,
    /// The changes, sorted by address.
    pub changes: Vec<ResourceChange>,
    /// Outputs after the changes; unknown leaves where only applying tells.
    pub outputs: Value,
    /// Whether placeholders stood for unknown variables.
    pub speculative: bool,
}

/// Why a stack could not be planned.
#[derive(Debug, Clone, PartialEq)]
pub enum StackError {
    /// The shape of the stack depends on what is not known yet, or a speculative plan failed.
    Undecided(String),
    /// Reading failed.
    Provider(ProviderError),
}

impl From<ProviderError> for StackError {
    fn from(error: ProviderError) -> Self {
        Self::Provider(error)
    }
}

/// Planning stacks.
#[async_trait]
pub trait TofuRead: Send + Sync {
    /// Plans a stack without taking its lock.
    async fn plan(&self, request: &StackRequest) -> Result<StackPlan, StackError>;
}

/// Applying stacks.
#[async_trait]
pub trait Tofu: TofuRead {
    /// Applies exactly this plan; a state that moved since is refused. Returns the outputs.
    async fn apply(&self, request: &StackRequest, plan: &StackPlan) -> Answer<Map>;
}
