//! The plan for a pull request.

use std::fmt::Write as _;

use super::by_risk;
use super::text::{leaf, printable};
use crate::plan::{Change, Decided, Nested, Plan, Step, StepDecision, file};
use crate::value::Value;

/// Renders a plan as GitHub-flavoured markdown.
#[must_use]
pub fn markdown(plan: &Plan<Decided>) -> String {
    let mut out = String::new();
    let header = &plan.header;
    let summary = plan.summary();
    let _ = writeln!(out, "## Plan of `{}`\n", header.script);
    let _ = writeln!(out, "Profile `{}`, fleet `{}`.", header.target.profile, header.target.fleet);
    if !summary.has_changes() && plan.phase.problems.is_empty() {
        let _ = writeln!(out, "\n**No changes.** The world is as the plan says.");
    } else {
        let _ = writeln!(out, "\n**{}**", summary.steps.phrase());
        let nested = summary.nested.phrase();
        if !nested.is_empty() {
            let _ = writeln!(out, "(resources inside steps: {nested})");
        }
    }
    let (risky, acting, quiet) = by_risk(plan);
    section(&mut out, "May lose something", &risky);
    section(&mut out, "Changes", &acting);
    if quiet > 0 {
        let _ = writeln!(out, "\n{quiet} up to date.");
    }
    if !plan.phase.unmanaged.is_empty() {
        let _ = writeln!(out, "\n### Unmanaged, left alone\n");
        for item in &plan.phase.unmanaged {
            let step = item.step.as_deref().map_or(String::new(), |step| format!(", made by `{step}`"));
            let _ = writeln!(out, "- {} `{}`{step}", item.kind, item.id);
        }
    }
    for warning in &header.warnings {
        let _ = writeln!(out, "\n> **Warning:** {}", escape(warning));
    }
    for problem in &plan.phase.problems {
        let _ = writeln!(out, "\n> **Error** `{}`: {}", problem.code, escape(&problem.message));
    }
    let _ = writeln!(out, "\n`{}`", file::plan_digest(plan));
    out
}

fn section(out: &mut String, title: &str, steps: &[(&Step, &StepDecision)]) {
    if steps.is_empty() {
        return;
    }
    let _ = writeln!(out, "\n### {title}\n\n| | step | why |\n|---|---|---|");
    for (step, StepDecision { decision, .. }) in steps {
        let _ = writeln!(
            out,
            "| `{}` {} | `{}` | {} |",
            decision.action.mark().trim(),
            decision.action.as_str(),
            step.address,
            escape(&decision.reason)
        );
    }
    let _ = writeln!(out, "\n<details><summary>details</summary>\n\n```diff");
    for (step, StepDecision { decision, .. }) in steps {
        let _ = writeln!(out, "{} {}", decision.action.mark(), step.address);
        lines(out, &decision.changes, "    ");
        nested_lines(out, &decision.nested);
        if !decision.drift.is_empty() {
            let _ = writeln!(out, "    changed outside since the last apply, not by this plan:");
            nested_lines(out, &decision.drift);
        }
        for note in &decision.notes {
            let _ = writeln!(out, "    note: {}", printable(note));
        }
    }
    let _ = writeln!(out, "```\n\n</details>");
}

fn nested_lines(out: &mut String, nested: &[Nested]) {
    for nested in nested {
        let reason =
            nested.reason.as_ref().map_or(String::new(), |reason| format!("  ({})", printable(reason)));
        let _ = writeln!(out, "{}   {}{reason}", nested.action.mark(), nested.address);
        lines(out, &nested.changes, "      ");
    }
}

fn lines(out: &mut String, changes: &[Change], indent: &str) {
    for change in changes {
        let before = if change.before == Value::Null {
            String::new()
        } else {
            format!("{} -> ", leaf(&change.before))
        };
        let _ = writeln!(out, "{indent}{}: {before}{}", change.path, leaf(&change.after));
    }
}

/// Keeps data from becoming markup or breaking a table row.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '|' | '`' | '*' | '_' | '<' | '>' | '[' | ']' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}
