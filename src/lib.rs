//! clawd runs fleet plans: Rhai scripts that say what a fleet of NixOS hosts on AWS must look like. A plan is
//! evaluated once, shown, reviewed, and applied exactly as it was shown.
//!
//! Modules stand in layer order; dependencies point up this list only (`docs/design/layers.md`).

// L0: data.
pub mod address;
pub mod diagnostic;
pub mod digest;
pub mod units;
pub mod value;
// L1: pure.
pub mod image;
pub mod memory;
pub mod plan;
pub mod stack;
// L2: the outside.
pub mod providers;
// L3: operations.
pub mod primitives;
// L4: front end and executor; they never see each other.
pub mod docs;
pub mod exec;
pub mod host;
pub mod script;
// L5: the command line.
pub mod cli;
