//! Applying a plan exactly as it was shown.
//!
//! First the whole plan is observed and decided again and compared with what was approved (`plan::conform`), and its
//! costs with the budgets; then the `scheduler` runs it. Nothing begins when anything differs.

use std::collections::BTreeMap;

use tokio::sync::watch;

use super::journal::Journal;
use super::observer::Observer;
use super::planner::decide;
use super::scheduler::Run;
use crate::diagnostic::{Code, Diagnostic};
use crate::plan::budget::{Cost, Excess, costs};
use crate::plan::conform::{Difference, differences};
use crate::plan::{Action, Decided, Header, Plan, Recorded, Step};
use crate::primitives::Port;
use crate::providers::{ProviderError, Providers};
use crate::value::{Address, Value};

/// How to apply.
#[derive(Debug, Clone)]
pub struct Options {
    /// The run's id.
    pub run: String,
    /// Steps at once.
    pub parallelism: usize,
    /// Steps at once per port.
    pub per_port: BTreeMap<Port, usize>,
    /// Start nothing new after the first failure.
    pub fail_fast: bool,
    /// What earlier processes of the same run already spent of the budget.
    pub spent: Vec<Cost>,
}

/// What a person has asked for while it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Interrupt {
    /// Nothing.
    None,
    /// Finish what runs, start nothing new.
    Finish,
    /// Stop at once.
    Abort,
}

/// How one step ended.
#[derive(Debug, Clone, PartialEq)]
pub enum StepResult {
    /// Nothing was to do.
    NoOp,
    /// Something was done.
    Done(Action),
    /// It failed.
    Failed(Box<Diagnostic>),
    /// It was not begun.
    Skipped(String),
}

/// What an apply did.
#[derive(Debug)]
pub struct Applied {
    /// One per step, in plan order.
    pub results: Vec<(Address, StepResult)>,
    /// The plan's outputs as far as they are known.
    pub outputs: Value,
    /// Whether a person interrupted it.
    pub interrupted: bool,
}

impl Applied {
    /// The failures.
    pub fn failures(&self) -> impl Iterator<Item = &Diagnostic> {
        self.results.iter().filter_map(|(_, result)| match result {
            StepResult::Failed(diagnostic) => Some(&**diagnostic),
            _ => None,
        })
    }

    /// How many steps were done.
    #[must_use]
    pub fn done(&self) -> usize {
        self.results.iter().filter(|(_, result)| matches!(result, StepResult::Done(_))).count()
    }

    /// How many steps were not begun.
    #[must_use]
    pub fn skipped(&self) -> usize {
        self.results.iter().filter(|(_, result)| matches!(result, StepResult::Skipped(_))).count()
    }

    /// `done`, `failed`, `refused` or `interrupted`.
    #[must_use]
    pub fn status(&self) -> &'static str {
        let refused =
            |diagnostic: &Diagnostic| matches!(diagnostic.code, Code::PlanStale | Code::PlanOverBudget);
        if self.failures().any(refused) {
            "refused"
        } else if self.failures().next().is_some() {
            "failed"
        } else if self.interrupted {
            "interrupted"
        } else {
            "done"
        }
    }
}

/// Why nothing was applied.
#[derive(Debug)]
pub enum ApplyError {
    /// The world cannot be read, or rules say no.
    Problems(Vec<Diagnostic>),
    /// The world moved: what was shown is not what would be done.
    Stale(Vec<Diagnostic>),
    /// More is destroyed, replaced or formatted than allowed.
    OverBudget(Box<Diagnostic>),
    /// A person interrupted it before anything began.
    Interrupted,
}

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

/// Applies an approved plan. The caller holds the target's lock.
///
/// # Errors
/// When nothing may be done at all; failures of single steps are in `Applied`.
pub async fn apply(
    approved: &Plan<Decided>,
    providers: &Providers,
    journal: &dyn Journal,
    observer: &dyn Observer,
    mut interrupt: watch::Receiver<Interrupt>,
    options: &Options,
) -> Result<Applied, ApplyError> {
    let unreadable = |error: &ProviderError| {
        ApplyError::Problems(vec![Diagnostic::error(Code::PlanRead, error.to_string())])
    };
    providers.clock.refresh().map_err(|error| unreadable(&error))?;
    let recorded = Plan { header: approved.header.clone(), steps: approved.steps.clone(), phase: Recorded };
    let now = tokio::select! {
        now = decide(recorded, providers) => now,
        true = asked_to_stop(&mut interrupt) => return Err(ApplyError::Interrupted),
    };
    if !now.phase.problems.is_empty() {
        return Err(ApplyError::Problems(now.phase.problems));
    }
    let moved: Vec<Diagnostic> = approved
        .decided()
        .zip(&now.phase.decisions)
        .filter_map(|((_, step, shown), now)| {
            let found = differences(&shown.decision, &now.decision);
            (!found.is_empty()).then(|| stale(step, &found))
        })
        .collect();
    if !moved.is_empty() {
        return Err(ApplyError::Stale(moved));
    }
    let all_costs: Vec<Cost> = options.spent.iter().cloned().chain(plan_costs(&now)).collect();
    check_budget(&now.header, &all_costs).map_err(ApplyError::OverBudget)?;
    let run = Run::new(approved, &now, providers, journal, observer, options);
    let applied = run.execute(interrupt).await;
    if let Err(error) = providers.clock.settle() {
        tracing::warn!(%error, "the providers' time was not kept");
    }
    Ok(applied)
}

/// Waits until a person interrupts; `false` when nobody can any more.
async fn asked_to_stop(interrupt: &mut watch::Receiver<Interrupt>) -> bool {
    interrupt.wait_for(|asked| *asked > Interrupt::None).await.is_ok()
}
