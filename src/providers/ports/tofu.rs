//! OpenTofu stacks: planned without a lock, applied exactly as planned.

use std::collections::BTreeMap;
use std::path::Path;

use async_trait::async_trait;
use serde::Serialize;
use smol_str::SmolStr;

use super::{Answer, ProviderError, Purpose, Watch};
use crate::value::Map;

pub use crate::stack::{Basis, ResourceChange, StackPlan};

/// What a stack is planned from.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct StackRequest {
    /// The step it is planned for; names the secrets among its outputs.
    pub step: String,
    /// The module's directory, relative to the project.
    pub dir: String,
    /// The workspace.
    pub workspace: String,
    /// Input variables; leaves may be unknown while planning, secrets are handles.
    pub vars: Map,
    /// Where the secrets among the variables come from, by name.
    pub secrets: BTreeMap<SmolStr, String>,
    /// Plan to destroy everything.
    pub destroy: bool,
    /// Values that stand for unknown variables in a speculative plan, by pattern.
    pub placeholders: Map,
    /// Settings of the backend beside those of the module.
    pub backend: Map,
    /// Resource operations at once; OpenTofu's own default when `None`.
    pub parallelism: Option<u16>,
    /// The program; `tofu`, else `terraform`, when `None`.
    pub binary: Option<String>,
    /// Resources to replace once per trigger: address and trigger.
    pub replace: BTreeMap<String, String>,
    /// Types of outputs, as the language writes them.
    pub outputs: BTreeMap<String, String>,
}

/// Why a stack could not be planned.
#[derive(Debug, Clone, PartialEq)]
pub enum StackError {
    /// The shape of the stack depends on what is not known yet, or a speculative plan failed.
    Undecided {
        /// Why, in one line.
        reason: String,
        /// What OpenTofu said of the speculative plan.
        warning: Option<String>,
    },
    /// Reading failed.
    Provider(ProviderError),
}

impl StackError {
    /// The shape depends on what is not known.
    #[must_use]
    pub fn undecided(reason: impl Into<String>) -> Self {
        Self::Undecided { reason: reason.into(), warning: None }
    }
}

impl From<ProviderError> for StackError {
    fn from(error: ProviderError) -> Self {
        Self::Provider(error)
    }
}

/// Planning stacks.
#[async_trait]
pub trait TofuRead: Send + Sync {
    /// Plans a stack without taking its lock. To act, the plan that was shown is the answer as long as the state is the
    /// one it was made on.
    async fn plan(&self, request: &StackRequest, purpose: Purpose) -> Result<StackPlan, StackError>;

    /// Puts the raw plans that were made for showing beside a saved plan, readable for their owner only.
    ///
    /// # Errors
    /// When they cannot be written.
    fn keep(&self, dir: &Path) -> Answer<()> {
        let _ = dir;
        Ok(())
    }

    /// Removes raw plans that were put somewhere and that nobody needs any more.
    fn discard(&self, dir: &Path) {
        let _ = dir;
    }

    /// Takes the raw plans beside a saved plan for those that were shown. One that is missing or damaged is made again.
    fn bring(&self, dir: &Path) {
        let _ = dir;
    }
}

/// Applying stacks.
#[async_trait]
pub trait Tofu: TofuRead {
    /// Applies exactly this plan; a state that moved since is refused. Returns the outputs.
    async fn apply(&self, request: &StackRequest, plan: &StackPlan, watch: &dyn Watch) -> Answer<Map>;
}
