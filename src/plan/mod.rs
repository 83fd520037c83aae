//! L1, pure: the plan. A script records steps; deciding gives each an action; the whole is shown, saved,
//! read back and applied.
//!
//! The phase is in the type: `Plan<Recorded>` has steps and edges, `Plan<Decided>` has an action per step. A
//! plan is acyclic by construction, because a step can only name steps recorded before it; what comes from
//! a file is checked (`file`). Nothing here does IO, reads a clock or draws random numbers.

#![deny(clippy::disallowed_methods)]

pub mod action;
pub mod budget;
pub mod conform;
pub mod file;
pub mod graph;
pub mod recorder;
pub mod render;
pub mod step;
pub mod summary;

use std::collections::BTreeMap;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

use crate::diagnostic::Diagnostic;
use crate::units::GiB;
use crate::value::{Address, Map, Value};

pub use crate::digest::Digest;
pub use action::{Action, Change, Decision, Effect, Hindrance, Nested};
pub use budget::Budget;
pub use recorder::Recorder;
pub use step::{Step, StepId};
pub use summary::Summary;

/// The version of the plan format that this clawd writes and reads.
pub const FORMAT_VERSION: &str = "1";

/// Where a plan is applied: everything an idempotency token and a lock are keyed by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// The profile's name.
    pub profile: String,
    /// The fleet's name, the tag of everything that is created.
    pub fleet: String,
    /// The account.
    pub account: String,
    /// The region.
    pub region: String,
}

/// Where a secret comes from. The value is never held.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SecretSource {
    /// `env:NAME`, `file:PATH` or `ssm:/PATH`.
    pub from: String,
}

/// What a plan says apart from its steps.
#[derive(Debug, Clone, PartialEq)]
pub struct Header {
    /// The script, relative to the project.
    pub script: String,
    /// Where it is applied.
    pub target: Target,
    /// Digest of everything the script was evaluated from.
    pub inputs: Digest,
    /// The parameters with their final values.
    pub params: Map,
    /// The plan's outputs.
    pub outputs: Map,
    /// Where the secrets come from, by name.
    pub secrets: BTreeMap<SmolStr, SecretSource>,
    /// What the script allows to be destroyed, replaced or formatted.
    pub budget: Budget,
    /// What the profile allows; both must cover a change.
    pub profile_budget: Option<Budget>,
    /// The script's warnings.
    pub warnings: Vec<String>,
}

/// A plan in one of its phases.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan<P> {
    /// Everything but the steps.
    pub header: Header,
    /// The steps in the order of recording, which is an order in which they can be applied.
    pub steps: IndexMap<Address, Step>,
    /// What this phase knows.
    pub phase: P,
}

/// Phase: recorded by a script, nothing looked at yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded;

/// Phase: every step has an action.
#[derive(Debug, Clone, PartialEq)]
pub struct Decided {
    /// One per step, in the same order.
    pub decisions: Vec<StepDecision>,
    /// What carries the fleet's tag and is claimed by no step.
    pub unmanaged: Vec<Unmanaged>,
    /// What stands against applying: reads that failed, rules that say no. Not part of the digest: such a
    /// plan can be neither saved nor applied.
    pub problems: Vec<Diagnostic>,
}

/// What was decided for one step, and on what grounds.
#[derive(Debug, Clone, PartialEq)]
pub struct StepDecision {
    /// The decision.
    pub decision: Decision,
    /// The observation it rests on.
    pub seen: Value,
}

/// A resource of the fleet that no step of this plan claims. It is left alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unmanaged {
    /// `ami`, `snapshot`, `volume`, `instance`.
    pub kind: String,
    /// Its id.
    pub id: String,
    /// The step that created it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// Its size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_gib: Option<GiB>,
    /// When it was made, seconds since the epoch.
    pub created: i64,
}

impl<P> Plan<P> {
    /// The step with this id.
    ///
    /// # Panics
    /// Never for an id of this plan.
    #[must_use]
    pub fn step(&self, id: StepId) -> &Step {
        &self.steps[id.index()]
    }

    /// The steps with their ids.
    pub fn ids(&self) -> impl Iterator<Item = (StepId, &Step)> {
        self.steps.values().enumerate().map(|(index, step)| (StepId::from_index(index), step))
    }
}

impl Plan<Decided> {
    /// What was decided for a step.
    ///
    /// # Panics
    /// Never for an id of this plan.
    #[must_use]
    pub fn decision(&self, id: StepId) -> &Decision {
        &self.phase.decisions[id.index()].decision
    }

    /// The steps with what was decided for them.
    pub fn decided(&self) -> impl Iterator<Item = (StepId, &Step, &StepDecision)> {
        self.ids().zip(&self.phase.decisions).map(|((id, step), decision)| (id, step, decision))
    }

    /// Counts of what will be done.
    #[must_use]
    pub fn summary(&self) -> Summary {
        Summary::of(self.phase.decisions.iter().map(|step| &step.decision))
    }

    /// The plan's outputs with everything filled in that is known.
    #[must_use]
    pub fn known_outputs(&self) -> Value {
        Value::Map(self.header.outputs.clone()).substitute(&|reference| {
            let index = self.steps.get_index_of(&reference.step)?;
            self.phase.decisions[index].decision.planned.get(&reference.path)
        })
    }
}
