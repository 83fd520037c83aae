//! What the simulator needs to know of a tofu module: a pure function from variables to resources and
//! outputs. The module says it in `sim.rhai`; `script` runs that, `cli` injects it here.

use std::path::Path;

use crate::value::Map;

/// Why a module's model gave no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModelError {
    /// It needs the value of something that is not known yet.
    NeedsUnknown(String),
    /// It is wrong, or refuses the variables.
    Failed(String),
}

/// Evaluates models.
pub trait StackModel: Send + Sync {
    /// The wanted resources: address to attributes, with the resource type under `type`.
    ///
    /// # Errors
    /// When the model fails or needs an unknown value.
    fn resources(&self, file: &Path, source: &str, vars: &Map) -> Result<Map, ModelError>;

    /// The module's outputs, given the resources with their computed attributes.
    ///
    /// # Errors
    /// When the model fails or needs an unknown value.
    fn outputs(&self, file: &Path, source: &str, vars: &Map, resources: &Map) -> Result<Map, ModelError>;
}
