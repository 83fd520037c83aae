//! One evaluation of a script, and further ones where they make an error clearer.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use rhai::{Engine, EvalAltResult, Scope};

use super::compile::compile;
use super::errors;
use super::files::Project;
use super::params::Params;
use super::resolver::Resolver;
use super::sandbox::{cpu_ms, sandbox, watch_variables};
use super::session::{Fleet, Found, Mode, Session, Shared, take_thrown, throw};
use super::spans::Spans;
use super::tokens::{Tokens, has_private};
use super::{Evaluation, Failure, Inputs, STDLIB, builtins, steps};
use crate::diagnostic::{Code, Diagnostic, Origin};
use crate::plan::{Digest, Header, Plan, Recorded, Recorder};

/// Problems that are told; a loop can make thousands of the same.
const MAX_PROBLEMS: usize = 50;

/// Nested problems whose call stack is looked up by evaluating again.
const MAX_STACKS: usize = 20;

/// A session for one evaluation.
pub(super) fn session(
    project: Project,
    main: &str,
    fleet: Option<Fleet>,
    params: Params,
    max_steps: usize,
    mode: Mode,
) -> Shared {
    Rc::new(Session {
        mode,
        project,
        main: main.into(),
        fleet,
        recorder: RefCell::new(Recorder::new(max_steps)),
        tokens: RefCell::new(Tokens::default()),
        params: RefCell::new(params),
        spans: RefCell::new(Spans::default()),
        problems: RefCell::default(),
        warnings: RefCell::default(),
        prints: RefCell::default(),
        touched: RefCell::default(),
        step_count: Cell::new(0),
        outputs: RefCell::default(),
        module_functions: RefCell::default(),
    })
}

/// One evaluation's result, before problems are told.
struct Attempt {
    session: Shared,
    /// The error that ended it.
    stopped: Option<Diagnostic>,
    /// Whether that error stumbled over a deferred value without naming it.
    unnamed_deferred: bool,
}

fn attempt(inputs: &Inputs, mode: Mode) -> Attempt {
    let project = Project::new(inputs.root.clone(), inputs.limits.max_string_bytes);
    let fleet = Fleet { name: inputs.target.fleet.clone(), canonical: inputs.canonical.clone() };
    let params = Params::new(inputs.params.clone());
    let session = session(project, &inputs.script, Some(fleet), params, inputs.limits.max_steps, mode);
    let mut engine = sandbox(&session, &inputs.limits);
    steps::register(&mut engine, &session, inputs);
    builtins::register(&mut engine, &session);
    engine.set_module_resolver(Resolver::new(&session));
    if mode != Mode::Collect {
        watch_variables(&mut engine, &session);
    }
    take_thrown();
    let outcome = run(&engine, &session);
    let error = match (outcome, take_thrown()) {
        (Err(error), _) => Some(error),
        // A list function swallowed it.
        (Ok(()), Some((diagnostic, position))) => Some(throw(diagnostic, position)),
        (Ok(()), None) => None,
    };
    let unnamed_deferred = error.as_deref().is_some_and(errors::mentions_deferred);
    let stopped = error.map(|error| errors::diagnostic(&session, &error));
    Attempt { session, stopped, unnamed_deferred }
}

fn run(engine: &Engine, session: &Shared) -> Result<(), Box<EvalAltResult>> {
    let main = Arc::clone(&session.main);
    let text: Arc<str> = match session.project.read(&main) {
        Ok(text) => text.into(),
        Err(diagnostic) => {
            let mut diagnostic = diagnostic;
            if diagnostic.code == Code::ScriptFile {
                diagnostic.code = Code::ScriptMissing;
                diagnostic.help =
                    Some("name a plan script inside the project, like plans/spawn.rhai".to_owned());
            }
            // The script itself has no place in a script.
            return Err(throw(diagnostic, rhai::Position::NONE));
        }
    };
    let ast = compile(engine, session, &main, &text)?;
    let mut scope = Scope::new();
    engine.run_ast_with_scope(&mut scope, &ast)
}

/// Evaluates a script, and again where that makes an error clearer: evaluation is deterministic.
pub(super) fn evaluate(inputs: &Inputs) -> Result<Evaluation, Box<Failure>> {
    let started = cpu_ms();
    // Evaluating again makes errors clearer; a script that is slow to fail is not run over and over.
    let has_time = || cpu_ms() - started < inputs.limits.max_cpu_ms;
    let first = attempt(inputs, Mode::Collect);
    let params_failed = first.session.params.borrow().failed;
    let mut diagnostics = Vec::new();
    let collected: Vec<Found> = first.session.problems.take();
    for (index, Found { diagnostic, nested }) in collected.into_iter().enumerate() {
        let traced = (nested && index < MAX_STACKS && has_time())
            .then(|| attempt(inputs, Mode::StopAt(index)).stopped)
            .flatten()
            .filter(|traced| traced.code == diagnostic.code && traced.message == diagnostic.message);
        diagnostics.push(traced.unwrap_or(diagnostic));
    }
    if let Some(stopped) = first.stopped {
        let clearer =
            (first.unnamed_deferred && has_time()).then(|| attempt(inputs, Mode::Watch).stopped).flatten();
        diagnostics.push(clearer.unwrap_or(stopped));
    } else {
        diagnostics.extend(first.session.params.borrow().unknown());
    }
    if params_failed {
        let about_params = |code| {
            matches!(
                code,
                Code::ScriptMissingParam
                    | Code::ScriptBadParam
                    | Code::ScriptUnknownParam
                    | Code::ScriptForgedToken
            )
        };
        diagnostics.retain(|diagnostic| about_params(diagnostic.code));
    }
    if diagnostics.len() > MAX_PROBLEMS {
        let more = diagnostics.len() - MAX_PROBLEMS;
        diagnostics.truncate(MAX_PROBLEMS);
        diagnostics
            .push(Diagnostic::error(Code::ScriptLimit, format!("and {more} more problems, not shown")));
    }
    // Files and terminals must not receive token characters.
    for diagnostic in &mut diagnostics {
        if has_private(&diagnostic.message) {
            diagnostic.message = first.session.tokens.borrow().readable(&diagnostic.message);
        }
        // A script that cannot be read has no text to point into.
        let known = |origin: &Origin| first.session.project.sources().get(&origin.file).is_some();
        diagnostic.origin = diagnostic.origin.take().filter(known);
    }
    let session = first.session;
    let (prints, sources) = (session.prints.take(), session.project.sources().clone());
    if !diagnostics.is_empty() {
        return Err(Box::new(Failure { diagnostics, prints, sources }));
    }
    let warnings = session.warnings.take();
    let plan = finish(inputs, &session);
    Ok(Evaluation { plan, warnings, prints, sources })
}

fn finish(inputs: &Inputs, session: &Session) -> Plan<Recorded> {
    let params = session.params.borrow().declared.clone();
    let stdlib: BTreeMap<&str, &str> = STDLIB.into_iter().collect();
    let digest = Digest::of_json(&serde_json::json!({
        "script": inputs.script,
        "files": session.project.digests(),
        "stdlib": stdlib,
        "params": params,
        "target": inputs.target,
        "canonical": inputs.canonical,
        "lock_files": inputs.lock_files,
    }))
    .expect("inputs always have a JSON form");
    session.recorder.take().finish(|draft| Header {
        script: inputs.script.clone(),
        target: inputs.target.clone(),
        inputs: digest,
        params,
        outputs: draft.outputs,
        secrets: draft.secrets,
        budget: draft.budget,
        profile_budget: inputs.budget.clone(),
        warnings: draft.warnings,
    })
}
