//! L4: the Rhai front end, from source to `Plan<Recorded>`.
//!
//! Evaluation is deterministic and sandboxed: no time, random, network or environment, and no files but the
//! project's own. It runs on a thread of its own, never on an executor's worker. It knows nothing of
//! providers: what a script records is data. Failure modes: `Failure`, with every problem found.

mod builtins;
mod compile;
mod convert;
mod deferred;
mod errors;
mod evaluate;
mod files;
mod keywords;
mod lists;
mod model;
mod params;
mod resolver;
mod sandbox;
mod session;
mod spans;
mod stdlib;
mod steps;
mod strings;
mod tokens;
mod types;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::diagnostic::{Code, Diagnostic};
use crate::plan::{Budget, Plan, Recorded, Target};
use crate::value::Value;

pub use files::{Project, Sources};
pub use keywords::{BUILTINS, Builtin};
pub use model::ScriptModel;
pub use stdlib::MODULES as STDLIB;
pub use steps::COMMON_ARGUMENTS;

/// Bounds of one evaluation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Rhai operations.
    pub max_operations: u64,
    /// Nested calls.
    pub max_call_levels: usize,
    /// Bytes of a string, and of a file that is read.
    pub max_string_bytes: usize,
    /// Elements of an array, nested ones included.
    pub max_array_items: usize,
    /// Entries of a map, nested ones included.
    pub max_map_items: usize,
    /// Steps of a plan.
    pub max_steps: usize,
    /// Thread CPU time.
    pub max_cpu_ms: u64,
    /// Growth of the process besides the steps it records.
    pub max_memory_mib: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_operations: 5_000_000,
            max_call_levels: 64,
            max_string_bytes: 1 << 20,
            max_array_items: 20_000,
            max_map_items: 20_000,
            max_steps: 20_000,
            max_cpu_ms: 2_000,
            max_memory_mib: 128,
        }
    }
}

/// A parameter's value as it was given.
#[derive(Debug, Clone, PartialEq)]
pub enum Given {
    /// Text of `--param k=v`, read by the parameter's type.
    Text(String),
    /// A value of `--params FILE`.
    Value(Value),
}

/// Everything an evaluation depends on.
#[derive(Debug, Clone)]
pub struct Inputs {
    /// The project's root.
    pub root: PathBuf,
    /// The script, relative to the root.
    pub script: String,
    /// Given parameters.
    pub params: BTreeMap<String, Given>,
    /// Where the plan is applied.
    pub target: Target,
    /// Canonical files of the shared memory, besides those of every memory.
    pub canonical: Vec<String>,
    /// The primitives the profile lets a script use; all when `None`.
    pub primitives: Option<Vec<String>>,
    /// The profile's budget; the smaller of it and the script's holds.
    pub budget: Option<Budget>,
    /// Bounds.
    pub limits: Limits,
    /// Digests of further files that decide what the plan means, by path: lock files.
    pub lock_files: BTreeMap<String, String>,
}

/// What an evaluation yields.
#[derive(Debug)]
pub struct Evaluation {
    /// The plan.
    pub plan: Plan<Recorded>,
    /// Warnings with their places.
    pub warnings: Vec<Diagnostic>,
    /// What the script printed.
    pub prints: Vec<String>,
    /// The sources, to quote from.
    pub sources: Sources,
}

/// Why there is no plan.
#[derive(Debug)]
pub struct Failure {
    /// Every problem found, in the order of the script.
    pub diagnostics: Vec<Diagnostic>,
    /// What the script printed.
    pub prints: Vec<String>,
    /// The sources, to quote from.
    pub sources: Sources,
}

/// The stack of the evaluating thread: deep recursion must end at Rhai's limit, not at the thread's.
const STACK_BYTES: usize = 64 << 20;

/// Runs something that uses Rhai on a thread of its own.
fn on_own_thread<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T, Diagnostic> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name("script".to_owned())
            .stack_size(STACK_BYTES)
            .spawn_scoped(scope, work)
            .map_err(|error| {
                Diagnostic::error(Code::ScriptLimit, format!("no thread for the script: {error}"))
            })?;
        thread.join().map_err(|_| {
            Diagnostic::error(Code::ScriptRuntime, "the interpreter panicked")
                .help("this is a defect of clawd: report it with the script")
        })
    })
}

/// Evaluates a plan script.
///
/// # Errors
/// Every problem of the script, its parameters and its arguments.
pub fn evaluate(inputs: &Inputs) -> Result<Evaluation, Box<Failure>> {
    let outcome = on_own_thread(|| evaluate::evaluate(inputs));
    outcome.unwrap_or_else(|diagnostic| {
        Err(Box::new(Failure {
            diagnostics: vec![diagnostic],
            prints: Vec::new(),
            sources: Sources::default(),
        }))
    })
}

/// The name under which a file appears in plans and diagnostics.
type FileName = Arc<str>;
