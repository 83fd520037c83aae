//! The recorder: what a script's calls become. It accepts steps in order and refuses what would make the
//! graph ambiguous; it knows nothing of Rhai.

use std::collections::BTreeMap;

use indexmap::IndexMap;
use indexmap::map::Entry;
use smol_str::SmolStr;

use super::step::{Step, StepId};
use super::{Budget, Header, Plan, Recorded, SecretSource};
use crate::diagnostic::{Code, Diagnostic, Origin};
use crate::units::Seconds;
use crate::value::{Address, Map, Value};

/// A step to record.
#[derive(Debug)]
pub struct NewStep {
    /// Its address.
    pub address: Address,
    /// Its arguments.
    pub args: Value,
    /// Steps that must be applied before.
    pub after: Vec<StepId>,
    /// The longest one try may take.
    pub timeout: Option<Seconds>,
    /// Tries after the first.
    pub retries: Option<u32>,
    /// Where it is recorded.
    pub origin: Origin,
}

/// Collects steps, outputs, secrets and the budget of one evaluation.
#[derive(Debug, Default)]
pub struct Recorder {
    steps: IndexMap<Address, Step>,
    outputs: Map,
    secrets: BTreeMap<SmolStr, SecretSource>,
    budget: Option<(Budget, Origin)>,
    warnings: Vec<String>,
    max_steps: usize,
}

impl Recorder {
    /// An empty recorder that takes at most `max_steps` steps.
    #[must_use]
    pub fn new(max_steps: usize) -> Self {
        Self { max_steps, ..Self::default() }
    }

    /// How many steps there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.steps.len()
    }

    /// Whether nothing was recorded yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// The step with this id.
    ///
    /// # Panics
    /// Never for an id this recorder gave out.
    #[must_use]
    pub fn step(&self, id: StepId) -> &Step {
        &self.steps[id.index()]
    }

    /// The id of the step at an address.
    #[must_use]
    pub fn find(&self, address: &Address) -> Option<StepId> {
        self.steps.get_index_of(address).map(StepId::from_index)
    }

    /// Records a step. Its dependencies are the steps its arguments name and those of `after`.
    ///
    /// # Errors
    /// A duplicate address, pointing at both calls; too many steps.
    pub fn record(&mut self, new: NewStep) -> Result<StepId, Box<Diagnostic>> {
        if self.steps.len() >= self.max_steps {
            let message = format!("the plan has more than {} steps", self.max_steps);
            return Err(Box::new(
                Diagnostic::error(Code::ScriptLimit, message)
                    .at(new.origin)
                    .help("raise `max_steps` under `[limits]` in clawd.toml, or split the plan"),
            ));
        }
        let mut depends_on: Vec<StepId> = new.after.clone();
        new.args.references(&mut |reference| {
            // A reference comes from a handle the script holds, so its step stands earlier in this recorder.
            if let Some(id) = self.find(&reference.step) {
                depends_on.push(id);
            }
        });
        depends_on.sort_unstable();
        depends_on.dedup();
        let id = StepId::from_index(self.steps.len());
        match self.steps.entry(new.address) {
            Entry::Occupied(first) => {
                let address = first.key();
                let message = format!("the step `{address}` is recorded twice");
                Err(Box::new(
                    Diagnostic::error(Code::ScriptDuplicateStep, message)
                        .at(new.origin)
                        .label("recorded again here")
                        .related("recorded here first", first.get().origin.clone())
                        .help(format!(
                            "give one of them another name: names are unique per primitive, `{}` here",
                            address.primitive()
                        )),
                ))
            }
            Entry::Vacant(slot) => {
                let address = slot.key().clone();
                slot.insert(Step {
                    address,
                    args: new.args,
                    depends_on: depends_on.into(),
                    after: new.after.into(),
                    timeout: new.timeout,
                    retries: new.retries,
                    origin: new.origin,
                });
                Ok(id)
            }
        }
    }

    /// Sets an output of the plan; `false` when it was set before.
    pub fn output(&mut self, name: &str, value: Value) -> bool {
        self.outputs.insert(name, value).is_none()
    }

    /// Declares a secret; `false` when the name is taken by another source.
    pub fn secret(&mut self, name: &str, source: &SecretSource) -> bool {
        *self.secrets.entry(name.into()).or_insert_with(|| source.clone()) == *source
    }

    /// Sets the budget.
    ///
    /// # Errors
    /// The place of the first call when there was one.
    pub fn allow(&mut self, budget: Budget, origin: Origin) -> Result<(), Origin> {
        match &self.budget {
            Some((_, first)) => Err(first.clone()),
            None => {
                self.budget = Some((budget, origin));
                Ok(())
            }
        }
    }

    /// Keeps a warning for the reviewer.
    pub fn warn(&mut self, message: String) {
        self.warnings.push(message);
    }

    /// Ends the evaluation. The caller fills in what only it knows.
    #[must_use]
    pub fn finish(self, header: impl FnOnce(Draft) -> Header) -> Plan<Recorded> {
        let draft = Draft {
            outputs: self.outputs,
            secrets: self.secrets,
            budget: self.budget.map(|(budget, _)| budget).unwrap_or_default(),
            warnings: self.warnings,
        };
        Plan { header: header(draft), steps: self.steps, phase: Recorded }
    }
}

/// What the recorder gives to the plan's header.
#[derive(Debug)]
pub struct Draft {
    /// The outputs.
    pub outputs: Map,
    /// The secrets.
    pub secrets: BTreeMap<SmolStr, SecretSource>,
    /// The budget.
    pub budget: Budget,
    /// The warnings.
    pub warnings: Vec<String>,
}
