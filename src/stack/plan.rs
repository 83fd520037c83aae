//! What a stack's plan says, for a review and to be saved. Data only.

use serde::{Deserialize, Serialize};

use crate::value::Value;

/// What a plan was made on: it may be applied to this state and to no other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Basis {
    /// Which state: OpenTofu draws the name when a state is made.
    pub lineage: String,
    /// How often it was written.
    pub serial: u64,
}

/// One resource change of a stack.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ResourceChange {
    /// The resource's address in the stack.
    pub address: String,
    /// `create`, `update`, `replace`, `destroy`, `read`.
    pub action: String,
    /// Attribute diffs: path, before, after.
    pub attributes: Vec<(String, Value, Value)>,
    /// Why, where the action alone does not say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// The plan of a stack.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StackPlan {
    /// The state it was made on; `None` where there is none yet.
    pub basis: Option<Basis>,
    /// Whether the state holds no resources.
    pub empty: bool,
    /// The changes, sorted by address.
    pub changes: Vec<ResourceChange>,
    /// What changed outside since the state was written, sorted by address.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub drift: Vec<ResourceChange>,
    /// Outputs after the changes; unknown leaves where only applying tells.
    pub outputs: Value,
    /// What changes of the outputs: path, before, after.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub output_changes: Vec<(String, Value, Value)>,
    /// Whether placeholders stood for unknown variables.
    pub speculative: bool,
    /// What OpenTofu warns of: checks that fail, what is deprecated.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

impl StackPlan {
    /// Whether applying it would change anything.
    #[must_use]
    pub fn acts(&self) -> bool {
        !self.changes.is_empty() || !self.output_changes.is_empty()
    }
}
