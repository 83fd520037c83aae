//! What stands between a plan and its effects: the budgets, and the comparison with what was shown. Pure.

use crate::diagnostic::{Code, Diagnostic};
use crate::plan::budget::{Cost, Excess, costs};
use crate::plan::conform::Difference;
use crate::plan::{Decided, Header, Plan, Step};

/// Whether the budgets of script and profile cover these costs.
///
/// # Errors
/// A diagnostic with the `allow` line that would cover them.
pub fn check_budget(header: &Header, costs: &[Cost]) -> Result<(), Box<Diagnostic>> {
    let budgets = [("the script", Some(&header.budget)), ("the profile", header.profile_budget.as_ref())];
    for (whose, budget) in budgets {
        let Some(budget) = budget else { continue };
        let excess = budget.excess(costs).map_err(|error| {
            Box::new(Diagnostic::error(Code::PlanOverBudget, format!("{whose}: {error}")))
        })?;
        if let Some(excess) = excess {
            return Err(Box::new(over_budget(whose, &excess)));
        }
    }
    Ok(())
}

fn over_budget(whose: &str, excess: &Excess) -> Diagnostic {
    let mut parts: Vec<String> =
        excess.uncovered.iter().map(|cost| format!("{} {}", cost.kind.as_str(), cost.subject)).collect();
    parts.extend(
        excess
            .exceeded
            .iter()
            .map(|(kind, count, most)| format!("{count} to {}, at most {most} allowed", kind.as_str())),
    );
    let message = format!("the plan goes beyond what {whose} allows: {}", parts.join("; "));
    let help = if whose == "the script" {
        format!("if it is meant, put this line into the plan script:\n{}", excess.allow_line)
    } else {
        "the profile's `budget` in clawd.toml bounds every plan; change it there if this is meant".to_owned()
    };
    Diagnostic::error(Code::PlanOverBudget, message).help(help)
}

/// The costs of a whole plan.
#[must_use]
pub fn plan_costs(plan: &Plan<Decided>) -> Vec<Cost> {
    plan.decided().flat_map(|(_, step, decided)| costs(&step.address, &decided.decision)).collect()
}

pub(super) fn stale(step: &Step, found: &[Difference]) -> Diagnostic {
    let lines: Vec<String> =
        found.iter().map(|it| format!("{}: was {}, now {}", it.subject, it.was, it.now)).collect();
    Diagnostic::error(
        Code::PlanStale,
        format!("{} is not as it was shown: {}", step.address, lines.join("; ")),
    )
    .at(step.origin.clone())
    .help("plan again and review what is new; nothing of this step was done")
}
