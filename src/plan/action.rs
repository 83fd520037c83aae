//! What is decided for a step: the action, the reason, the changes, and the outputs as far as they are known.

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

use crate::value::Value;

/// What will be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// Nothing: the world is as the script says.
    NoOp,
    /// Something is looked at again at apply, nothing changes.
    Read,
    /// Something new is made.
    Create,
    /// Something is changed in place.
    Update,
    /// Something is destroyed and made anew.
    Replace,
    /// Something is destroyed.
    Destroy,
    /// Decided at apply, because it rests on what is not known yet.
    Unknown,
}

impl Action {
    /// Every action.
    pub const ALL: [Self; 7] =
        [Self::NoOp, Self::Read, Self::Create, Self::Update, Self::Replace, Self::Destroy, Self::Unknown];

    /// The word in plans, `no-op`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoOp => "no-op",
            Self::Read => "read",
            Self::Create => "create",
            Self::Update => "update",
            Self::Replace => "replace",
            Self::Destroy => "destroy",
            Self::Unknown => "unknown",
        }
    }

    /// The mark in front of a plan line; the ones of OpenTofu, so that nobody has to learn them.
    #[must_use]
    pub const fn mark(self) -> &'static str {
        match self {
            Self::NoOp => " ",
            Self::Read => "<=",
            Self::Create => "+",
            Self::Update => "~",
            Self::Replace => "-/+",
            Self::Destroy => "-",
            Self::Unknown => "?",
        }
    }

    /// Whether applying does anything.
    #[must_use]
    pub const fn acts(self) -> bool {
        !matches!(self, Self::NoOp)
    }

    /// The action a word names.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|action| action.as_str() == word)
    }
}

/// What a change does to what is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Effect {
    /// Looks at something.
    Read,
    /// Writes configuration.
    Write,
    /// Writes over data: formatting, restoring.
    Data,
    /// Takes something away.
    Destroy,
}

/// One attribute that changes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// The attribute.
    pub path: SmolStr,
    /// What it is; null when there is nothing yet.
    pub before: Value,
    /// What it will be; null when it goes.
    pub after: Value,
    /// What the change does.
    pub effect: Effect,
}

impl Change {
    /// A change of configuration.
    #[must_use]
    pub fn write(path: impl Into<SmolStr>, before: Value, after: Value) -> Self {
        Self { path: path.into(), before, after, effect: Effect::Write }
    }

    /// Something set on a thing that is made new.
    #[must_use]
    pub fn new(path: impl Into<SmolStr>, after: Value) -> Self {
        Self::write(path, Value::Null, after)
    }
}

/// One resource change inside a step, such as a resource of a tofu stack.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Nested {
    /// The resource's address inside the step.
    pub address: String,
    /// What happens to it.
    pub action: Action,
    /// Its attributes that change.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<Change>,
    /// Why, where the action alone does not say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Why a step cannot be done, should it have to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hindrance {
    /// What stands against it.
    pub message: String,
    /// The next move.
    pub help: String,
}

/// What is decided for a step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    /// The action.
    pub action: Action,
    /// Why, in one line.
    pub reason: String,
    /// Attributes that change.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<Change>,
    /// Resource changes inside the step.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nested: Vec<Nested>,
    /// What changed outside since it was last written down. Shown apart: it is no intended change, and costs nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub drift: Vec<Nested>,
    /// What the nested changes were planned on, where a provider counts its versions. Another basis is another plan.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub basis: Option<String>,
    /// Whether the nested changes were planned with placeholders for what is not known yet.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub speculative: bool,
    /// The outputs: every leaf a value or unknown.
    pub planned: Value,
    /// Things a reviewer should know that are no changes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// Whether it only yields outputs and is left undone when nothing that acts needs them. A mark from the
    /// primitive to the planner, which clears it.
    #[serde(skip)]
    pub on_demand: bool,
    /// Why it cannot be done here. A mark to planner and scheduler, which report it when the step acts: what is not
    /// needed may be impossible.
    #[serde(skip)]
    pub hindrance: Option<Hindrance>,
}

impl Decision {
    /// A decision without changes.
    #[must_use]
    pub fn new(action: Action, reason: impl Into<String>, planned: Value) -> Self {
        Self {
            action,
            reason: reason.into(),
            changes: Vec::new(),
            nested: Vec::new(),
            drift: Vec::new(),
            basis: None,
            speculative: false,
            planned,
            notes: Vec::new(),
            on_demand: false,
            hindrance: None,
        }
    }

    /// Nothing to do; the outputs are known.
    #[must_use]
    pub fn no_op(reason: impl Into<String>, outputs: Value) -> Self {
        Self::new(Action::NoOp, reason, outputs)
    }

    /// Decided at apply.
    #[must_use]
    pub fn unknown(reason: impl Into<String>) -> Self {
        Self::new(Action::Unknown, reason, Value::Unknown)
    }

    /// Adds changes.
    #[must_use]
    pub fn changes(mut self, changes: impl IntoIterator<Item = Change>) -> Self {
        self.changes.extend(changes);
        self
    }

    /// Adds a note.
    #[must_use]
    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.notes.push(note.into());
        self
    }

    /// Whether something of value may be lost: a destroy, a replace, or a change of data outside a create.
    #[must_use]
    pub fn is_risky(&self) -> bool {
        matches!(self.action, Action::Destroy | Action::Replace)
            || self.nested.iter().any(|nested| matches!(nested.action, Action::Destroy | Action::Replace))
            || self.formats()
            || self.changes.iter().any(|change| change.effect == Effect::Destroy)
    }

    /// Whether it writes over data on something this plan does not create.
    #[must_use]
    pub fn formats(&self) -> bool {
        self.action != Action::Create && self.changes.iter().any(|change| change.effect == Effect::Data)
    }
}
