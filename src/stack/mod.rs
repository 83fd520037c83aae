//! L1, pure: what is known of an OpenTofu stack without running anything.
//!
//! `module` reads the variables and outputs of a module from its files; `types` says what a variable may hold and checks
//! values against it; `placeholder` puts stand-ins where a value is not known yet; `document` reads what `tofu show -json` says
//! of a plan, with `resource`, `outputs` and `change`; `state` reads what it says of a state; `plan` is what a review sees, and what is compared later. Nothing here reads a file, starts a process or knows where a module lies:
//! texts come in as arguments. Failure modes: a module that is no valid HCL, with file and line; a plan document of a version
//! that is not known.

#![deny(clippy::disallowed_methods)]

mod address;
mod change;
mod configured;
mod document;
mod mask;
pub mod module;
mod outputs;
pub mod placeholder;
pub mod plan;
mod resource;
mod state;
pub mod types;

pub use address::without_keys;
pub use document::{Document, DocumentError};
pub use mask::Mask;
pub use module::{Module, Output, Variable};
pub use placeholder::{Filled, Placeholders, Stuck};
pub use plan::{Basis, ResourceChange, StackPlan};
pub use state::State;
pub use types::Type;
