//! The integration tests, one binary so that the suite links once.

#![allow(clippy::disallowed_methods, clippy::unwrap_used, missing_docs)] // a test that cannot go on should stop where it is

mod bad_input;
mod budget;
mod commands;
mod contract;
mod conventions;
mod crash;
mod layers;
mod memory;
mod plans;
mod properties;
#[cfg(feature = "aws")]
mod real;
mod safety;
mod simulator;
mod support;
mod volumes;
