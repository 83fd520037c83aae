//! One recorded call of a primitive.

use serde::{Deserialize, Serialize};

use crate::diagnostic::Origin;
use crate::units::Seconds;
use crate::value::{Address, Value};

/// A step's place in its plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct StepId(u32);

impl StepId {
    /// The id of the step at an index.
    ///
    /// # Panics
    /// When a plan has more than 2^32 steps, which the recorder refuses long before.
    #[must_use]
    pub fn from_index(index: usize) -> Self {
        Self(u32::try_from(index).expect("the recorder bounds the number of steps"))
    }

    /// The index of the step.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// One recorded call of a primitive.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// Its address, unique in the plan.
    pub address: Address,
    /// Its arguments, with references as leaves.
    pub args: Value,
    /// The steps that must be applied before: those its arguments name, and those of `after`.
    pub depends_on: Box<[StepId]>,
    /// The steps named by `after` only: order, no data.
    pub after: Box<[StepId]>,
    /// The longest one try may take; the profile's default when `None`.
    pub timeout: Option<Seconds>,
    /// Tries after the first; the profile's default when `None`.
    pub retries: Option<u32>,
    /// Where the script records it.
    pub origin: Origin,
}
