//! The plan as a mermaid flow chart: steps as boxes, dependencies as arrows, colour by action.

use std::fmt::Write as _;

use crate::plan::{Action, Decided, Plan};

/// Renders a plan's graph.
#[must_use]
pub fn mermaid(plan: &Plan<Decided>) -> String {
    let mut out = String::from("flowchart LR\n");
    for (id, step, decided) in plan.decided() {
        let action = decided.decision.action;
        // Addresses hold no character that mermaid reads, and the class is one of ours.
        let _ = writeln!(
            out,
            "    s{}[\"{}<br/>{}\"]:::{}",
            id.index(),
            step.address,
            action.as_str(),
            class(action)
        );
    }
    for (id, step) in plan.ids() {
        for dependency in &step.depends_on {
            let arrow = if step.after.contains(dependency) { "-.->" } else { "-->" };
            let _ = writeln!(out, "    s{} {arrow} s{}", dependency.index(), id.index());
        }
    }
    for action in Action::ALL {
        let _ = writeln!(out, "    classDef {} fill:{}", class(action), fill(action));
    }
    out
}

const fn class(action: Action) -> &'static str {
    match action {
        Action::NoOp => "quiet",
        Action::Read => "reads",
        Action::Create => "creates",
        Action::Update => "updates",
        Action::Replace => "replaces",
        Action::Destroy => "destroys",
        Action::Unknown => "open",
    }
}

const fn fill(action: Action) -> &'static str {
    match action {
        Action::NoOp => "#eeeeee",
        Action::Read => "#ddeeff",
        Action::Create => "#d4f4d4",
        Action::Update => "#fff3c4",
        Action::Replace => "#ffd9b3",
        Action::Destroy => "#ffc9c9",
        Action::Unknown => "#e8d9ff",
    }
}
