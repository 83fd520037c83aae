//! Real parts: nix, moto over HTTP, and a proxy in front of it that records calls and breaks them.
//!
//! A part that is missing fails the test that needs it, by name, with how to get it. Nothing is skipped.

mod bootstrap;
mod contract;
mod faults;
mod image;
mod memory_plan;
mod memory_power;
mod memory_s3;
mod modules;
mod moto;
mod nix_flakes;
mod nix_lib;
mod project;
mod proxy;
mod prune;
mod stack;
mod stack_bad_input;
mod stack_conform;
mod stack_failures;
mod stack_s3;
mod stack_secrets;
mod stacks;
mod upload;
mod volumes;

pub(crate) use moto::Moto;
pub(crate) use project::RealProject;
pub(crate) use proxy::{Call, Fault, Proxy};
