//! From recorded to decided: every step is observed through reading ports and given an action, in dependency
//! order, as many at once as allowed. Dependants see what is known of the outputs before them.
//!
//! A failed read is a problem, never "absent": the step is unknown, independent steps go on, the plan cannot be
//! applied.

use std::collections::{HashSet, VecDeque};

use indexmap::IndexMap;

use super::retry;
use super::together::Together;
use crate::diagnostic::{Code, Diagnostic};
use crate::plan::graph::dependants;
use crate::plan::{
    Action, Decided, Decision, Effect, Hindrance, Plan, Recorded, Step, StepDecision, Unmanaged,
};
use crate::primitives::context::timed_out;
use crate::primitives::{ObserveContext, Refusal, Registry, StepError};
use crate::providers::Providers;
use crate::providers::ports::{Owned, Purpose};
use crate::units::Seconds;
use crate::value::{Address, Path, Reference, Segment, Value};

/// Observations at once.
const CONCURRENCY: usize = 64;

/// Tries of a look after the first. Adapters try a call again by themselves; somebody waits for the plan.
const RETRIES: u32 = 4;

/// Observes and decides, for a plan that people read.
pub async fn decide(plan: Plan<Recorded>, providers: &Providers) -> Plan<Decided> {
    decide_for(Purpose::Show, plan, providers).await
}

/// Observes and decides.
pub(super) async fn decide_for(
    purpose: Purpose,
    plan: Plan<Recorded>,
    providers: &Providers,
) -> Plan<Decided> {
    let Plan { header, steps, phase: Recorded } = plan;
    let dependants = dependants(steps.values());
    let mut waiting: Vec<usize> = steps.values().map(|step| step.depends_on.len()).collect();
    let mut ready: VecDeque<usize> = (0..steps.len()).filter(|index| waiting[*index] == 0).collect();
    let mut outcomes: Vec<Option<StepDecision>> = vec![None; steps.len()];
    let mut problems: Vec<(usize, Diagnostic)> = Vec::new();
    let mut running = Together::new();
    loop {
        while running.len() < CONCURRENCY
            && let Some(index) = ready.pop_front()
        {
            let step = &steps[index];
            let planned = |address: &Address| {
                let producer = steps.get_index_of(address)?;
                Some(&outcomes[producer].as_ref()?.decision.planned)
            };
            let absent = absent_output(&step.args, planned);
            let args = resolve(&step.args, |reference| planned(&reference.step)?.get(&reference.path));
            let header = &header;
            running.push(async move {
                if let Some(absent) = absent {
                    return (index, Err(absent));
                }
                let cx = ObserveContext::new(providers, header, &step.address, purpose);
                let surveyed = survey(step, &args, &cx, providers);
                let Some(timeout) = step.timeout.map(Seconds::duration) else {
                    return (index, surveyed.await);
                };
                let in_time = tokio::time::timeout(timeout, surveyed).await;
                let too_late = |_| Err(StepError::Provider(timed_out(&step.address, timeout)));
                (index, in_time.unwrap_or_else(too_late))
            });
        }
        let Some((index, surveyed)) = running.next().await else {
            break;
        };
        let step = &steps[index];
        outcomes[index] = Some(match surveyed {
            Ok((seen, decision)) => StepDecision { decision, seen },
            Err(error) => {
                problems.push((index, problem(step, &error)));
                // The problem has all of it, with its place.
                let message = error.to_string();
                let headline = message.lines().next().unwrap_or_default();
                StepDecision { decision: Decision::unknown(headline), seen: Value::Null }
            }
        });
        for dependant in &dependants[index] {
            waiting[dependant.index()] -= 1;
            if waiting[dependant.index()] == 0 {
                ready.push_back(dependant.index());
            }
        }
    }
    drop(running);
    problems.sort_by_key(|(index, _)| *index);
    let mut problems: Vec<Diagnostic> = problems.into_iter().map(|(_, problem)| problem).collect();
    let destroyed = destroyed(&outcomes);
    let unmanaged = match unmanaged(&header.target.fleet, providers).await {
        Ok(owned) => owned
            .into_iter()
            .filter(|owned| !is_claimed(owned, &steps, &outcomes) && !destroyed.contains(owned.id.as_str()))
            .map(|Owned { kind, id, step, size, created }| Unmanaged {
                kind,
                id,
                step,
                size_gib: size,
                created,
            })
            .collect(),
        Err(problem) => {
            problems.push(problem);
            Vec::new()
        }
    };
    let decisions = outcomes
        .into_iter()
        .map(|outcome| outcome.expect("the graph is acyclic, so every step was reached"))
        .collect();
    let mut plan = Plan { header, steps, phase: Decided { decisions, unmanaged, problems } };
    leave_out_what_nobody_needs(&mut plan);
    report_hindrances(&mut plan);
    plan
}

/// What stands against steps that act becomes a problem, now that it is known which ones do.
fn report_hindrances(plan: &mut Plan<Decided>) {
    let Decided { decisions, problems, .. } = &mut plan.phase;
    for (step, decided) in plan.steps.values().zip(decisions) {
        let hindrance = decided.decision.hindrance.take();
        if let Some(error) = hindrance.filter(|_| decided.decision.action.acts()).map(hindered) {
            problems.push(problem(step, &error));
        }
    }
}

/// A hindrance as the refusal it is.
pub(super) fn hindered(hindrance: Hindrance) -> StepError {
    StepError::Refused(Refusal { message: hindrance.message, help: Some(hindrance.help) })
}

/// Whether a step of the plan claims a resource: the step that made it is there and does not yield another one of the kind, or any
/// step yields this one.
fn is_claimed(owned: &Owned, steps: &IndexMap<Address, Step>, outcomes: &[Option<StepDecision>]) -> bool {
    let yields = |outcome: &StepDecision| match &outcome.decision.planned {
        Value::Map(planned) => planned.values().any(|value| value.as_str() == Some(owned.id.as_str())),
        _ => false,
    };
    if outcomes.iter().flatten().any(yields) {
        return true;
    }
    let address: Option<Address> = owned.step.as_deref().and_then(|step| step.parse().ok());
    let Some(index) = address.and_then(|address| steps.get_index_of(&address)) else { return false };
    let Some(Value::Map(planned)) = outcomes[index].as_ref().map(|outcome| &outcome.decision.planned) else {
        return true;
    };
    // Ids begin with their kind, `vol-...`; a step whose id is not known yet may still take this one.
    let prefix = owned.id.split('-').next().unwrap_or_default();
    let mut ids = planned
        .values()
        .filter_map(Value::as_str)
        .filter(|text| text.split_once('-').is_some_and(|(kind, rest)| kind == prefix && rest.len() >= 8));
    ids.next().is_none()
}

/// The ids of what steps take away, as a whole or one by one: the plan shows them there, and they do not stay as they are.
fn destroyed(outcomes: &[Option<StepDecision>]) -> HashSet<&str> {
    let changes = outcomes.iter().flatten().flat_map(|outcome| &outcome.decision.changes);
    let whole = changes.filter(|change| change.effect == Effect::Destroy).filter_map(|it| it.before.as_str());
    let nested = outcomes.iter().flatten().flat_map(|outcome| &outcome.decision.nested);
    let going = nested.filter(|nested| nested.action == Action::Destroy);
    let parts = going.flat_map(|nested| {
        let parts = nested.changes.iter().filter_map(|change| change.before.as_str());
        std::iter::once(nested.address.as_str()).chain(parts)
    });
    whole.chain(parts).collect()
}

/// Arguments with everything filled in that `known` knows.
pub(super) fn resolve<'v>(args: &Value, known: impl Fn(&Reference) -> Option<&'v Value>) -> Value {
    args.substitute(&known)
}

/// The first output that arguments name and that is known not to be there.
pub(super) fn absent_output<'v>(
    args: &Value,
    planned: impl Fn(&Address) -> Option<&'v Value>,
) -> Option<StepError> {
    let mut absent = None;
    args.references(&mut |reference| {
        let outputs = planned(&reference.step).filter(|outputs| outputs.get(&reference.path).is_none());
        if let Some(outputs) = outputs.filter(|_| absent.is_none()) {
            absent = Some(no_such_output(reference, outputs));
        }
    });
    absent
}

fn no_such_output(reference: &Reference, outputs: &Value) -> StepError {
    // The deepest place that is there, and what is there.
    let mut at = Path::root();
    let mut keys = Vec::new();
    for segment in reference.path.segments() {
        let here = outputs.get(&at);
        if let Some(Value::Secret(_)) = here {
            let message =
                format!("`{}#{at}` is a secret as a whole, and this step takes a part of it", reference.step);
            let help = "something in it is marked as sensitive: pass it on whole, or give the rest an output of its own";
            return StepError::Refused(Refusal { message, help: Some(help.to_owned()) });
        }
        keys = here
            .and_then(Value::as_map)
            .map(|map| map.keys().map(ToString::to_string).collect())
            .unwrap_or_default();
        at = match segment {
            Segment::Key(key) => at.key(key.clone()),
            Segment::Index(index) => at.index(*index),
        };
        if outputs.get(&at).is_none() {
            break;
        }
    }
    let help = match keys.is_empty() {
        true => "the step yields nothing there".to_owned(),
        false => format!("there is: {}", keys.join(", ")),
    };
    let message = format!("`{}` has no output `{at}`, which this step takes", reference.step);
    StepError::Refused(Refusal { message, help: Some(help) })
}

/// Observes and decides one step, trying again what may pass.
pub(super) async fn survey(
    step: &Step,
    args: &Value,
    cx: &ObserveContext<'_>,
    providers: &Providers,
) -> Result<(Value, Decision), StepError> {
    let primitive = Registry::all().get(step.address.primitive()).ok_or_else(|| unknown_primitive(step))?;
    let mut attempt = 1;
    loop {
        match primitive.operations().survey(args, cx).await {
            Err(StepError::Provider(error)) => {
                let Some(wait) = retry::backoff(error.kind, attempt, RETRIES, fastrand::f64()) else {
                    return Err(StepError::Provider(error));
                };
                attempt += 1;
                providers.clock.sleep(wait).await;
            }
            outcome => return outcome,
        }
    }
}

/// A plan file can name a primitive that this clawd does not have.
pub(super) fn unknown_primitive(step: &Step) -> StepError {
    StepError::Provider(crate::providers::ProviderError::permanent(
        step.address.as_str(),
        format!("this clawd has no primitive `{}`", step.address.primitive()),
    ))
}

async fn unmanaged(fleet: &str, providers: &Providers) -> Result<Vec<Owned>, Diagnostic> {
    let mut attempt = 1;
    loop {
        match providers.ec2.owned(fleet).await {
            Ok(owned) => return Ok(owned),
            Err(error) => {
                let Some(wait) = retry::backoff(error.kind, attempt, RETRIES, fastrand::f64()) else {
                    let message = format!("the fleet's resources cannot be listed: {error}");
                    let mut problem = Diagnostic::error(Code::PlanRead, message);
                    problem.help = error.help;
                    return Err(problem);
                };
                attempt += 1;
                providers.clock.sleep(wait).await;
            }
        }
    }
}

fn problem(step: &Step, error: &StepError) -> Diagnostic {
    let code = match error {
        StepError::Refused(_) => Code::PlanRefused,
        StepError::Provider(_) => Code::PlanRead,
    };
    let mut diagnostic =
        Diagnostic::error(code, format!("{}: {error}", step.address)).at(step.origin.clone());
    diagnostic.help = error.help().map(str::to_owned);
    diagnostic
}

/// What only yields outputs is left undone when nothing that acts needs them: a machine with an empty store does
/// not rebuild the image of an AMI that exists. Walks backwards, so that whole chains fall away.
fn leave_out_what_nobody_needs(plan: &mut Plan<Decided>) {
    let dependants = dependants(plan.steps.values());
    let needed_by_outputs = unknown_outputs(plan);
    for index in (0..plan.steps.len()).rev() {
        let decisions = &mut plan.phase.decisions;
        let on_demand = std::mem::take(&mut decisions[index].decision.on_demand);
        if !on_demand || dependants[index].is_empty() || needed_by_outputs.contains(&index) {
            continue;
        }
        let needed =
            dependants[index].iter().any(|dependant| decisions[dependant.index()].decision.action.acts());
        if !needed {
            let decision = &mut decisions[index].decision;
            decision.action = Action::NoOp;
            decision.reason = "not needed: no step that acts uses it".to_owned();
            decision.changes.clear();
            decision.notes.clear();
        }
    }
}

/// Steps whose unknown outputs the plan's outputs show.
fn unknown_outputs(plan: &Plan<Decided>) -> std::collections::BTreeSet<usize> {
    let mut found = std::collections::BTreeSet::new();
    Value::Map(plan.header.outputs.clone()).references(&mut |reference| {
        if let Some(index) = plan.steps.get_index_of(&reference.step) {
            let planned = &plan.phase.decisions[index].decision.planned;
            if planned.get(&reference.path).is_none_or(Value::has_unknown) {
                found.insert(index);
            }
        }
    });
    found
}
