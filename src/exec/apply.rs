//! Applying a plan exactly as it was shown.
//!
//! First the whole plan is observed and decided again and compared with what was approved (`plan::conform`), and its
//! costs with the budgets; then the `scheduler` runs it. Nothing begins when anything differs.

use tokio::sync::watch;

use super::guard::{check_budget, plan_costs, stale};
use super::journal::Journal;
use super::observer::Observer;
use super::planner::decide_for;
use super::report::{Applied, ApplyError, Interrupt, Options};
use super::scheduler::Run;
use crate::diagnostic::{Code, Diagnostic};
use crate::plan::budget::Cost;
use crate::plan::conform::differences;
use crate::plan::{Decided, Plan, Recorded};
use crate::providers::ports::Purpose;
use crate::providers::{ProviderError, Providers};

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
        now = decide_for(Purpose::Act, recorded, providers) => now,
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
