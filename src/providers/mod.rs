//! L2: the ports to the outside and their adapters.
//!
//! `ports` says what the primitives may ask of the world, reads apart from writes; an adapter answers. Only
//! `cli` chooses adapters. Nothing here knows plans, steps or scripts: a port speaks of images, volumes and
//! hosts.

pub mod absent;
#[cfg(feature = "aws")]
pub mod aws;
pub mod error;
pub mod model;
pub mod ports;
pub mod process;
pub mod sim;

pub use error::{ErrorKind, ProviderError};
pub use ports::Providers;
