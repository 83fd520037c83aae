//! L1, pure: what is known of an OpenTofu stack without running anything.
//!
//! `module` reads the variables and outputs of a module from its files; `types` says what a variable may hold and checks
//! values against it; `placeholder` puts stand-ins where a value is not known yet; `plan` reads what `tofu show -json` says of
//! a plan, and what is compared with it later. Nothing here reads a file, starts a process or knows where a module lies:
//! texts come in as arguments. Failure modes: a module that is no valid HCL, with file and line; a plan document of a version
//! that is not known.

#![deny(clippy::disallowed_methods)]

mod configured;
mod mask;
pub mod module;
pub mod placeholder;
pub mod plan;
pub mod types;

pub use module::{Module, Output, Variable};
pub use placeholder::{Filled, Placeholders, Stuck};
pub use plan::{Basis, Document, ResourceChange, StackPlan};
pub use types::Type;
