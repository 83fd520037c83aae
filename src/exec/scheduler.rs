//! The scheduler: runs the steps of a plan that was found unchanged, in dependency order, as many at once as allowed.
//!
//! Each step is observed once more right before it acts, with all its arguments known, and compared with what was
//! shown; every try begins with that look. A failed step skips what depends on it; independent steps go on.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{Semaphore, watch};

use super::guard::{check_budget, stale};
use super::journal::{Journal, Record};
use super::observer::{Event, Observer};
use super::planner::{absent_output, hindered, resolve, survey, unknown_primitive};
use super::report::{Applied, Interrupt, Options, StepResult};
use super::retry;
use super::together::Together;
use crate::diagnostic::{Code, Diagnostic};
use crate::plan::budget::costs;
use crate::plan::conform::differences;
use crate::plan::graph::dependants;
use crate::plan::{Action, Decided, Decision, Plan, Step};
use crate::primitives::context::{Effect, timed_out};
use crate::primitives::{ApplyContext, EffectLog, ObserveContext, Port, Registry, StepError};
use crate::providers::ports::Purpose;
use crate::providers::{ErrorKind, ProviderError, Providers};
use crate::units::Seconds;
use crate::value::{Address, Value};

/// The longest a step's try may take when neither step nor profile say otherwise.
const DEFAULT_TIMEOUT: Seconds = Seconds(3600);

/// One run in progress.
pub(super) struct Run<'a> {
    approved: &'a Plan<Decided>,
    now: &'a Plan<Decided>,
    providers: &'a Providers,
    journal: &'a dyn Journal,
    observer: &'a dyn Observer,
    options: &'a Options,
    ports: BTreeMap<Port, Arc<Semaphore>>,
    log: Log<'a>,
}

/// What the scheduler knows of each step.
struct Progress {
    waiting: Vec<usize>,
    outputs: Vec<Option<Value>>,
    results: Vec<Option<StepResult>>,
}

impl<'a> Run<'a> {
    pub(super) fn new(
        approved: &'a Plan<Decided>,
        now: &'a Plan<Decided>,
        providers: &'a Providers,
        journal: &'a dyn Journal,
        observer: &'a dyn Observer,
        options: &'a Options,
    ) -> Self {
        let ports =
            options.per_port.iter().map(|(port, most)| (*port, Arc::new(Semaphore::new(*most)))).collect();
        Self { approved, now, providers, journal, observer, options, ports, log: Log { journal, observer } }
    }

    pub(super) async fn execute(&self, mut interrupt: watch::Receiver<Interrupt>) -> Applied {
        let count = self.now.steps.len();
        let acting = self.now.phase.decisions.iter().filter(|step| step.decision.action.acts()).count();
        self.observer.event(&Event::RunStarted { run: self.options.run.clone(), steps: acting });
        let dependants = dependants(self.now.steps.values());
        let mut progress = Progress {
            waiting: self.now.steps.values().map(|step| step.depends_on.len()).collect(),
            outputs: vec![None; count],
            results: vec![None; count],
        };
        let mut ready: VecDeque<usize> = (0..count).filter(|index| progress.waiting[*index] == 0).collect();
        let mut running = Together::new();
        let mut stopping = false;
        let mut listening = true;
        loop {
            let interrupted = *interrupt.borrow() >= Interrupt::Finish;
            while !stopping
                && !interrupted
                && running.len() < self.options.parallelism
                && let Some(index) = ready.pop_front()
            {
                match self.settled_before(index, &progress) {
                    Some(result) => self.settle(index, result, None, &dependants, &mut progress, &mut ready),
                    None => {
                        let args = self.args(index, &progress);
                        running.push(async move {
                            let outcome = match args {
                                Ok(args) => self.step(index, args).await,
                                Err(absent) => Err(absent),
                            };
                            (index, outcome)
                        });
                    }
                }
            }
            if running.is_empty() {
                break;
            }
            tokio::select! {
                biased;
                changed = interrupt.changed(), if listening => {
                    // Without a sender nobody can interrupt any more; that is no interruption.
                    listening = changed.is_ok();
                    if *interrupt.borrow() == Interrupt::Abort {
                        break;
                    }
                }
                Some((index, outcome)) = running.next() => {
                    let (result, outputs) = match outcome {
                        Ok((Action::NoOp, outputs)) => (StepResult::NoOp, Some(outputs)),
                        Ok((action, outputs)) => (StepResult::Done(action), Some(outputs)),
                        Err(diagnostic) => {
                            let refused = matches!(diagnostic.code, Code::PlanStale | Code::PlanOverBudget);
                            stopping |= refused || self.options.fail_fast;
                            (StepResult::Failed(diagnostic), None)
                        }
                    };
                    self.settle(index, result, outputs, &dependants, &mut progress, &mut ready);
                }
            }
        }
        drop(running);
        let interrupted = *interrupt.borrow() >= Interrupt::Finish;
        self.finish(progress, interrupted)
    }

    /// How a step ends without running, when it does.
    fn settled_before(&self, index: usize, progress: &Progress) -> Option<StepResult> {
        let step = &self.now.steps[index];
        let failed = step.depends_on.iter().find(|dependency| {
            matches!(
                progress.results[dependency.index()],
                Some(StepResult::Failed(_) | StepResult::Skipped(_))
            )
        });
        if let Some(dependency) = failed {
            let address = &self.now.step(*dependency).address;
            return Some(StepResult::Skipped(format!("{address} did not succeed")));
        }
        (!self.now.phase.decisions[index].decision.action.acts()).then_some(StepResult::NoOp)
    }

    fn settle(
        &self,
        index: usize,
        result: StepResult,
        outputs: Option<Value>,
        dependants: &[Vec<crate::plan::StepId>],
        progress: &mut Progress,
        ready: &mut VecDeque<usize>,
    ) {
        let step = &self.now.steps[index];
        let decision = &self.now.phase.decisions[index].decision;
        progress.outputs[index] = match &result {
            StepResult::NoOp | StepResult::Done(_) => {
                Some(outputs.unwrap_or_else(|| decision.planned.clone()))
            }
            StepResult::Failed(_) | StepResult::Skipped(_) => None,
        };
        let acted = decision.action.acts();
        match &result {
            StepResult::NoOp if !acted => {}
            StepResult::NoOp => {
                self.observer.event(&Event::StepDone { step: step.address.clone(), action: Action::NoOp });
            }
            StepResult::Done(action) => {
                self.observer.event(&Event::StepDone { step: step.address.clone(), action: *action });
            }
            StepResult::Failed(diagnostic) => {
                let error = diagnostic.message.clone();
                let code = diagnostic.code.to_string();
                self.observer.event(&Event::StepFailed {
                    step: step.address.clone(),
                    code,
                    error: error.clone(),
                });
                self.note(&Record::StepFailed { step: step.address.clone(), error });
            }
            StepResult::Skipped(reason) => {
                self.observer
                    .event(&Event::StepSkipped { step: step.address.clone(), reason: reason.clone() });
                self.note(&Record::StepSkipped { step: step.address.clone(), reason: reason.clone() });
            }
        }
        progress.results[index] = Some(result);
        for dependant in &dependants[index] {
            progress.waiting[dependant.index()] -= 1;
            if progress.waiting[dependant.index()] == 0 {
                ready.push_back(dependant.index());
            }
        }
    }

    /// Writes a record that nothing waits for; a broken journal shows at the next intent.
    fn note(&self, record: &Record) {
        if let Err(error) = self.journal.append(record) {
            tracing::warn!(%error, "a journal record was not written");
        }
    }

    /// The arguments with everything filled in that the steps before have yielded.
    fn args(&self, index: usize, progress: &Progress) -> Result<Value, Box<Diagnostic>> {
        let step = &self.now.steps[index];
        let yielded = |address: &Address| progress.outputs[self.now.steps.get_index_of(address)?].as_ref();
        match absent_output(&step.args, yielded) {
            Some(absent) => Err(Box::new(failure(step, &absent))),
            None => Ok(resolve(&step.args, |reference| yielded(&reference.step)?.get(&reference.path))),
        }
    }

    /// Runs one step: observe, compare, act; again after failures that may pass.
    async fn step(&self, index: usize, args: Value) -> Result<(Action, Value), Box<Diagnostic>> {
        let step = &self.now.steps[index];
        let shown = &self.approved.phase.decisions[index].decision;
        let action = self.now.phase.decisions[index].decision.action;
        let primitive = Registry::all()
            .get(step.address.primitive())
            .ok_or_else(|| Box::new(failure(step, &unknown_primitive(step))))?;
        let _permit = match self.ports.get(&primitive.port) {
            Some(port) => port.acquire().await.ok(),
            None => None,
        };
        self.observer.event(&Event::StepStarted { step: step.address.clone(), action });
        let timeout = step.timeout.unwrap_or(DEFAULT_TIMEOUT).duration();
        let retries = step.retries.unwrap_or(retry::DEFAULT_RETRIES);
        let mut attempt = 1;
        let mut begun = None;
        loop {
            let tried =
                tokio::time::timeout(timeout, self.attempt(step, &args, shown, &mut begun, timeout)).await;
            let error = match tried {
                Ok(Ok(done)) => return Ok(done),
                Ok(Err(Stop::Refused(diagnostic))) => return Err(diagnostic),
                Ok(Err(Stop::Failed(error))) => error,
                Err(_) => StepError::Provider(timed_out(&step.address, timeout)),
            };
            let kind = match &error {
                StepError::Provider(error) => error.kind,
                StepError::Refused(_) => ErrorKind::Refused,
            };
            let Some(wait) = retry::backoff(kind, attempt, retries, fastrand::f64()) else {
                return Err(Box::new(failure(step, &error)));
            };
            attempt += 1;
            self.observer.event(&Event::StepRetried {
                step: step.address.clone(),
                attempt,
                error: error.to_string(),
                wait_ms: u64::try_from(wait.as_millis()).unwrap_or(u64::MAX),
            });
            self.providers.clock.sleep(wait).await;
        }
    }

    async fn attempt(
        &self,
        step: &Step,
        args: &Value,
        shown: &Decision,
        begun: &mut Option<Decision>,
        timeout: Duration,
    ) -> Result<(Action, Value), Stop> {
        let header = &self.now.header;
        let observe = ObserveContext::new(self.providers, header, &step.address, Purpose::Act);
        let (seen, mut decision) =
            survey(step, args, &observe, self.providers).await.map_err(Stop::Failed)?;
        if let Some(hindrance) = decision.hindrance.take().filter(|_| decision.action.acts()) {
            return Err(Stop::Failed(hindered(hindrance)));
        }
        let found = differences(shown, &decision);
        if !found.is_empty() {
            return Err(Stop::Refused(Box::new(stale(step, &found))));
        }
        let own = costs(&step.address, &decision);
        // The whole plan's costs were checked before; a conforming decision costs no more than was shown, so its
        // own part is within the counts when it is covered at all.
        check_budget(&self.now.header, &own).map_err(Stop::Refused)?;
        if decision.action == Action::NoOp {
            // An earlier try did it and its answer was lost: it is done, with what it cost.
            let action = match begun {
                Some(begun) => {
                    self.note_done(step, begun, &decision.planned);
                    begun.action
                }
                None => Action::NoOp,
            };
            return Ok((action, decision.planned));
        }
        if decision.action == Action::Unknown {
            let message =
                format!("still not decided although everything before it is applied: {}", decision.reason);
            return Err(Stop::Failed(StepError::Provider(ProviderError::permanent(
                step.address.as_str(),
                message,
            ))));
        }
        let primitive = Registry::all()
            .get(step.address.primitive())
            .ok_or_else(|| Stop::Failed(unknown_primitive(step)))?;
        let cx = ApplyContext::new(self.providers, header, &step.address, &self.log, timeout);
        let begun = begun.insert(decision);
        let outputs = primitive.operations().apply(args, &seen, &cx).await.map_err(Stop::Failed)?;
        self.note_done(step, begun, &outputs);
        Ok((begun.action, outputs))
    }

    fn note_done(&self, step: &Step, decision: &Decision, outputs: &Value) {
        let costs = costs(&step.address, decision);
        self.note(&Record::StepDone {
            step: step.address.clone(),
            action: decision.action,
            costs: costs.iter().map(|cost| format!("{} {}", cost.kind.as_str(), cost.subject)).collect(),
            outputs: outputs.clone(),
        });
    }

    fn finish(&self, progress: Progress, interrupted: bool) -> Applied {
        let Progress { outputs, results, .. } = progress;
        // An interrupt that came when all was begun interrupted nothing.
        let interrupted = interrupted && results.iter().any(Option::is_none);
        let results = self
            .now
            .steps
            .keys()
            .zip(results)
            .map(|(address, result)| {
                let result = result.unwrap_or_else(|| {
                    let reason =
                        if interrupted { "the run was interrupted" } else { "the run stopped before it" };
                    StepResult::Skipped(reason.to_owned())
                });
                (address.clone(), result)
            })
            .collect();
        let known = Value::Map(self.now.header.outputs.clone()).substitute(&|reference| {
            let producer = self.now.steps.get_index_of(&reference.step)?;
            outputs[producer].as_ref()?.get(&reference.path)
        });
        let applied = Applied { results, outputs: known, interrupted };
        self.observer.event(&Event::RunEnded {
            run: self.options.run.clone(),
            status: applied.status().to_owned(),
            done: applied.done(),
            failed: applied.failures().count(),
            skipped: applied.skipped(),
        });
        applied
    }
}

/// Why a try ended without success.
enum Stop {
    /// It failed; another try may be of use.
    Failed(StepError),
    /// It must not be done.
    Refused(Box<Diagnostic>),
}

fn failure(step: &Step, error: &StepError) -> Diagnostic {
    let code = match error {
        StepError::Provider(error) if error.kind == ErrorKind::TimedOut => Code::RunTimeout,
        StepError::Provider(error) if error.kind == ErrorKind::Locked => Code::RunLocked,
        StepError::Provider(error) if error.kind == ErrorKind::Moved => Code::PlanStale,
        StepError::Refused(_) => Code::PlanRefused,
        StepError::Provider(_) => Code::RunFailed,
    };
    let mut diagnostic =
        Diagnostic::error(code, format!("{}: {error}", step.address)).at(step.origin.clone());
    diagnostic.help = error.help().map(str::to_owned);
    diagnostic
}

/// The journal and observer as primitives see them.
struct Log<'a> {
    journal: &'a dyn Journal,
    observer: &'a dyn Observer,
}

#[async_trait]
impl EffectLog for Log<'_> {
    async fn intent(&self, step: &Address, effect: &Effect) -> Result<(), ProviderError> {
        let record = Record::Intent {
            step: step.clone(),
            call: effect.call.to_owned(),
            token: effect.token.clone(),
            generation: effect.generation,
        };
        self.journal.durable(&record).await
    }

    async fn done(&self, step: &Address, effect: &Effect, result: &str) -> Result<(), ProviderError> {
        self.journal.append(&Record::Done {
            step: step.clone(),
            call: effect.call.to_owned(),
            token: effect.token.clone(),
            result: result.to_owned(),
        })
    }

    fn part(&self, step: &Address, of: &str, part: &str) {
        let record = Record::Part { step: step.clone(), of: of.to_owned(), part: part.to_owned() };
        if let Err(error) = self.journal.append(&record) {
            tracing::warn!(%error, "a journal record was not written");
        }
    }

    fn parts(&self, of: &str) -> Vec<String> {
        self.journal.parts(of)
    }

    fn progress(&self, step: &Address, message: &str) {
        self.observer.event(&Event::StepProgress { step: step.clone(), message: message.to_owned() });
    }
}
