//! The plan for people at a terminal.

use std::fmt::Write as _;

use super::by_risk;
use super::text::{Style, leaf, printable};
use crate::plan::{Action, Change, Decided, Effect, Nested, Plan, Step, StepDecision, Unmanaged, file};
use crate::units::Seconds;
use crate::value::Value;

/// Renders a plan. `now` is used for ages only, in seconds since the epoch.
#[must_use]
pub fn human(plan: &Plan<Decided>, now: i64, style: &dyn Style) -> String {
    let mut out = String::with_capacity(256 * plan.steps.len().min(1 << 14));
    let header = &plan.header;
    let _ = writeln!(
        out,
        "{} {}",
        style.heading(&format!("Plan of {}", header.script)),
        style.dim(&format!("(profile {}, fleet {})", header.target.profile, header.target.fleet)),
    );
    let (risky, acting, quiet) = by_risk(plan);
    if !risky.is_empty() {
        let _ = writeln!(out, "\n{}", style.warning("May lose something; look at these first:"));
    }
    for (step, decided) in &risky {
        step_block(&mut out, step, decided, style);
    }
    if !risky.is_empty() && !acting.is_empty() {
        let _ = writeln!(out, "\n{}", style.heading("Also:"));
    }
    for (step, decided) in &acting {
        step_block(&mut out, step, decided, style);
    }
    if quiet > 0 {
        let what = if quiet == 1 { "step is" } else { "steps are" };
        let _ = writeln!(out, "\n{}", style.dim(&format!("{quiet} {what} up to date.")));
    }
    unmanaged(&mut out, &plan.phase.unmanaged, now, style);
    outputs(&mut out, plan, style);
    for warning in &header.warnings {
        let _ = writeln!(out, "\n{} {}", style.warning("Warning:"), printable(warning));
    }
    summary(&mut out, plan, style);
    out
}

fn summary(out: &mut String, plan: &Plan<Decided>, style: &dyn Style) {
    let summary = plan.summary();
    if !plan.phase.problems.is_empty() {
        let _ = writeln!(out, "\n{}", style.warning("This plan cannot be applied: see the errors."));
        return;
    }
    if !summary.has_changes() {
        let _ = writeln!(out, "\n{} The world is as the plan says.", style.heading("No changes."));
        return;
    }
    let _ = write!(out, "\n{} {}", style.heading("Plan:"), summary.steps.phrase());
    let nested = summary.nested.phrase();
    if !nested.is_empty() {
        let _ = write!(out, " (resources inside steps: {nested})");
    }
    let _ = writeln!(out, ".");
    let digest = format!("Digest: {}", file::plan_digest(plan));
    let _ = writeln!(out, "{}", style.dim(&digest));
}

fn step_block(
    out: &mut String,
    step: &Step,
    StepDecision { decision, .. }: &StepDecision,
    style: &dyn Style,
) {
    let mark = style.action(decision.action, padded(decision.action));
    let _ = writeln!(
        out,
        "\n{mark} {}  {}: {}",
        style.heading(step.address.as_str()),
        style.action(decision.action, decision.action.as_str()),
        printable(&decision.reason),
    );
    change_lines(out, &decision.changes, decision.action, "      ", style);
    if decision.speculative {
        let _ = writeln!(
            out,
            "      {}",
            style.dim("(speculative: planned with placeholders for values not known yet)")
        );
    }
    nested_lines(out, &decision.nested, style);
    if !decision.drift.is_empty() {
        let heading = "changed outside since the last apply, not by this plan:";
        let _ = writeln!(out, "      {}", style.warning(heading));
        nested_lines(out, &decision.drift, style);
    }
    for note in &decision.notes {
        let _ = writeln!(out, "      {}", style.dim(&format!("note: {}", printable(note))));
    }
}

fn nested_lines(out: &mut String, nested: &[Nested], style: &dyn Style) {
    for nested in nested {
        let mark = style.action(nested.action, padded(nested.action));
        let reason =
            nested.reason.as_ref().map_or(String::new(), |reason| format!("  ({})", printable(reason)));
        let _ = writeln!(out, "    {mark} {}{}", nested.address, style.dim(&reason));
        change_lines(out, &nested.changes, nested.action, "          ", style);
    }
}

/// The mark of an action, three characters wide.
const fn padded(action: Action) -> &'static str {
    match action {
        Action::NoOp => "   ",
        Action::Read => " <=",
        Action::Create => "  +",
        Action::Update => "  ~",
        Action::Replace => "-/+",
        Action::Destroy => "  -",
        Action::Unknown => "  ?",
    }
}

fn change_lines(out: &mut String, changes: &[Change], action: Action, indent: &str, style: &dyn Style) {
    let width = changes.iter().map(|change| change.path.chars().count()).max().unwrap_or(0);
    for change in changes {
        change_line(out, change, action, indent, width, style);
    }
}

fn change_line(
    out: &mut String,
    change: &Change,
    action: Action,
    indent: &str,
    width: usize,
    style: &dyn Style,
) {
    let effect = match change.effect {
        // A create that writes data writes on what it has just made; saying so again would only alarm.
        _ if action == Action::Create => String::new(),
        Effect::Write | Effect::Read => String::new(),
        Effect::Data => format!("  {}", style.warning("(writes over data)")),
        Effect::Destroy => format!("  {}", style.warning("(takes away)")),
    };
    let shown = match (&change.before, &change.after) {
        (Value::Null, after) => leaf(after),
        (before, Value::Null) => format!("{} -> (gone)", leaf(before)),
        (before, after) => format!("{} -> {}", leaf(before), leaf(after)),
    };
    let _ = writeln!(out, "{indent}{:<width$}  {shown}{effect}", change.path);
}

fn unmanaged(out: &mut String, found: &[Unmanaged], now: i64, style: &dyn Style) {
    if found.is_empty() {
        return;
    }
    let _ = writeln!(
        out,
        "\n{}",
        style.heading("Unmanaged: carries the fleet's tag, no step of this plan claims it, stays as it is:")
    );
    for item in found {
        let size = item.size_gib.map_or(String::new(), |size| format!(", {size}"));
        let age = Seconds(u64::try_from(now - item.created).unwrap_or(0));
        let step = item.step.as_deref().map_or(String::new(), |step| format!(", made by {step}"));
        let _ = writeln!(out, "      {} {}{size}, {age} old{step}", item.kind, item.id);
    }
}

fn outputs(out: &mut String, plan: &Plan<Decided>, style: &dyn Style) {
    let known = plan.known_outputs();
    let Some(known) = known.as_map().filter(|map| !map.is_empty()) else {
        return;
    };
    let _ = writeln!(out, "\n{}", style.heading("Outputs:"));
    for (name, value) in known.iter() {
        let _ = writeln!(out, "      {name} = {}", leaf(value));
    }
}
