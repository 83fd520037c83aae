//! Counts of what a plan will do: steps by action, and the resources inside steps.

use serde::Serialize;

use super::action::{Action, Decision};

/// How many of each action.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Counts {
    /// Made new.
    pub create: usize,
    /// Changed in place.
    pub update: usize,
    /// Destroyed and made anew.
    pub replace: usize,
    /// Destroyed.
    pub destroy: usize,
    /// Looked at.
    pub read: usize,
    /// Left as they are.
    pub no_op: usize,
    /// Decided at apply.
    pub unknown: usize,
}

/// What a plan will do, in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Summary {
    /// Steps by action.
    #[serde(flatten)]
    pub steps: Counts,
    /// Resources inside steps by action.
    pub nested: Counts,
}

impl Counts {
    fn add(&mut self, action: Action) {
        let slot = match action {
            Action::Create => &mut self.create,
            Action::Update => &mut self.update,
            Action::Replace => &mut self.replace,
            Action::Destroy => &mut self.destroy,
            Action::Read => &mut self.read,
            Action::NoOp => &mut self.no_op,
            Action::Unknown => &mut self.unknown,
        };
        *slot += 1;
    }

    /// `2 to create, 1 to update`; only what is not zero, no-ops left out.
    #[must_use]
    pub fn phrase(&self) -> String {
        let parts = [
            (self.create, "to create"),
            (self.update, "to update"),
            (self.replace, "to replace"),
            (self.destroy, "to destroy"),
            (self.read, "to read"),
            (self.unknown, "decided at apply"),
        ];
        let shown: Vec<String> = parts
            .iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, what)| format!("{count} {what}"))
            .collect();
        shown.join(", ")
    }
}

impl Summary {
    /// Counts decisions.
    #[must_use]
    pub fn of<'a>(decisions: impl Iterator<Item = &'a Decision>) -> Self {
        let mut summary = Self::default();
        for decision in decisions {
            summary.steps.add(decision.action);
            for nested in &decision.nested {
                summary.nested.add(nested.action);
            }
        }
        summary
    }

    /// Whether applying would do anything.
    #[must_use]
    pub fn has_changes(&self) -> bool {
        let Counts { create, update, replace, destroy, read, no_op: _, unknown } = self.steps;
        create + update + replace + destroy + read + unknown > 0
    }
}
