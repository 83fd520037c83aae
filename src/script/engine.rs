//! The sandboxed engine and one evaluation of a script on it.

#![allow(clippy::disallowed_methods)] // this is where it is done

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fs;
use std::rc::Rc;
use std::sync::Arc;

use rhai::packages::{
    ArithmeticPackage, BasicArrayPackage, BasicIteratorPackage, BasicMapPackage, BasicMathPackage,
    BasicStringPackage, LogicPackage, Package,
};
use rhai::{AST, Dynamic, Engine, EvalAltResult, LexError, OptimizationLevel, Position, Scope, Token};
use rustix::time::{ClockId, clock_gettime};

use super::FileName;
use super::deferred::{self, Deferred};
use super::errors;
use super::files::Project;
use super::params::Params;
use super::resolver::Resolver;
use super::session::{Found, Mode, Session, Shared, take_thrown, throw};
use super::spans::Spans;
use super::tokens::{Tokens, has_private};
use super::{Evaluation, Failure, Inputs, Limits, STDLIB, builtins, lists, steps, strings};
use crate::diagnostic::{Code, Diagnostic, Origin};
use crate::plan::{Digest, Header, Plan, Recorded, Recorder};

/// Symbols of Rhai that plans do not have. `switch` takes its default arm on a value not known yet; `try`
/// could swallow an error that must stop a plan; the rest makes code that a reviewer cannot follow.
const DISABLED: [&str; 9] = ["switch", "eval", "try", "catch", "throw", "type_of", "Fn", "call", "curry"];

/// Operations between two looks at clock and memory.
const LOOK_EVERY: u64 = 256;

/// What a recorded step may take besides the memory limit.
const STEP_BYTES: usize = 8 << 10;

/// The largest source that is compiled: Rhai's parser is quadratic in places.
const MAX_SOURCE_BYTES: usize = 256 << 10;

/// Problems that are told; a loop can make thousands of the same.
const MAX_PROBLEMS: usize = 50;

/// Nested problems whose call stack is looked up by evaluating again.
const MAX_STACKS: usize = 20;

/// Why an evaluation was stopped from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stopped {
    Time,
    Memory,
    Operations,
}

/// Thread CPU time in milliseconds.
fn cpu_ms() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    u64::try_from(time.tv_sec).unwrap_or(0) * 1000 + u64::try_from(time.tv_nsec).unwrap_or(0) / 1_000_000
}

/// Resident memory of the process in bytes; 0 where the system does not tell.
fn resident_bytes() -> usize {
    let pages = fs::read_to_string("/proc/self/statm").ok();
    let pages = pages
        .as_deref()
        .and_then(|text| text.split(' ').nth(1))
        .and_then(|pages| pages.parse::<usize>().ok());
    pages.unwrap_or(0) * rustix::param::page_size()
}

/// An engine with the language of plans, but without what records.
pub(super) fn sandbox(session: &Shared, limits: &Limits) -> Engine {
    let mut engine = Engine::new_raw();
    for package in [
        ArithmeticPackage::new().as_shared_module(),
        BasicArrayPackage::new().as_shared_module(),
        BasicIteratorPackage::new().as_shared_module(),
        BasicMapPackage::new().as_shared_module(),
        BasicMathPackage::new().as_shared_module(),
        BasicStringPackage::new().as_shared_module(),
        LogicPackage::new().as_shared_module(),
    ] {
        engine.register_global_module(package);
    }
    // Folding constants would hide `&&` on a value not known yet; fast operators would bypass the guards on
    // string comparison; interning strings costs half of a recorded call.
    engine.set_optimization_level(OptimizationLevel::None);
    engine.set_fast_operators(false);
    engine.set_max_strings_interned(0);
    engine.set_strict_variables(true);
    engine.set_fail_on_invalid_map_property(true);
    engine.set_max_operations(limits.max_operations);
    engine.set_max_call_levels(limits.max_call_levels);
    engine.set_max_string_size(limits.max_string_bytes);
    engine.set_max_array_size(limits.max_array_items);
    engine.set_max_map_size(limits.max_map_items);
    engine.set_max_expr_depths(64, 64);
    engine.set_max_modules(64);
    for symbol in DISABLED {
        engine.disable_symbol(symbol);
    }
    let deadline = cpu_ms() + limits.max_cpu_ms;
    watch_tokens(&mut engine, deadline);
    watch_resources(&mut engine, session, limits, deadline);
    let shared = Rc::clone(session);
    engine.on_print(move |text| {
        let text = shared.tokens.borrow().readable(text);
        shared.prints.borrow_mut().push(text);
    });
    let shared = Rc::clone(session);
    engine.on_debug(move |text, source, position| {
        let text = shared.tokens.borrow().readable(text);
        shared.prints.borrow_mut().push(format!("{}:{position:?}: {text}", source.unwrap_or(&shared.main)));
    });
    deferred::register(&mut engine, session);
    strings::register(&mut engine, session);
    lists::register(&mut engine, session);
    engine
}

/// Rhai reserves words for later; `default` is a key of every other parameter. Tokens are also where a source that
/// takes too long to compile is noticed.
fn watch_tokens(engine: &mut Engine, deadline: u64) {
    let count = Cell::new(0u64);
    #[allow(deprecated)] // marked as volatile, not as going away
    engine.on_parse_token(move |token, _, _| {
        count.set(count.get() + 1);
        if count.get().is_multiple_of(LOOK_EVERY) && cpu_ms() >= deadline {
            return Token::LexError(
                LexError::Runtime("the script takes too long to compile".to_owned()).into(),
            );
        }
        match token {
            Token::Reserved(word) if *word == "default" => Token::Identifier(word),
            token => token,
        }
    });
}

fn watch_resources(engine: &mut Engine, session: &Shared, limits: &Limits, deadline: u64) {
    let (memory, most) = (limits.max_memory_mib << 20, limits.max_operations);
    let base = resident_bytes();
    let shared = Rc::clone(session);
    // Our own count: callbacks run on copies of Rhai's.
    let count = Cell::new(0u64);
    let next_memory_look = Cell::new(0u64);
    engine.on_progress(move |_| {
        let operations = count.get() + 1;
        count.set(operations);
        if !operations.is_multiple_of(LOOK_EVERY) {
            return None;
        }
        if operations > most {
            return Some(Dynamic::from(Stopped::Operations));
        }
        if cpu_ms() >= deadline {
            return Some(Dynamic::from(Stopped::Time));
        }
        if operations >= next_memory_look.get() {
            let grown = resident_bytes().saturating_sub(base);
            let allowed = memory + shared.step_count.get() * STEP_BYTES;
            if grown > allowed {
                return Some(Dynamic::from(Stopped::Memory));
            }
            // Reading /proc costs a few microseconds; while far from the limit, look less often.
            let factor = if grown < allowed / 4 { 4 } else { 1 };
            next_memory_look.set(operations + LOOK_EVERY * factor);
        }
        None
    });
}

/// In diagnostic evaluations: notes which deferred variable was read last.
fn watch_variables(engine: &mut Engine, session: &Shared) {
    let shared = Rc::clone(session);
    #[allow(deprecated)] // marked as volatile, not as going away
    engine.on_var(move |name, _, context| {
        if let Some(handle) = context.scope().get_value::<Deferred>(name) {
            shared.touch(&handle.reference);
        }
        Ok(None)
    });
}

/// A session for one evaluation.
pub(super) fn session(project: Project, main: &str, params: Params, max_steps: usize, mode: Mode) -> Shared {
    Rc::new(Session {
        mode,
        project,
        main: main.into(),
        recorder: RefCell::new(Recorder::new(max_steps)),
        tokens: RefCell::new(Tokens::default()),
        params: RefCell::new(params),
        spans: RefCell::new(Spans::default()),
        problems: RefCell::default(),
        warnings: RefCell::default(),
        prints: RefCell::default(),
        touched: RefCell::default(),
        step_count: Cell::new(0),
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
    let session =
        session(project, &inputs.script, Params::new(inputs.params.clone()), inputs.limits.max_steps, mode);
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

/// Compiles a source under its name and refuses what the syntax tree shows to be wrong.
pub(super) fn compile(
    engine: &Engine,
    session: &Session,
    file: &FileName,
    text: &Arc<str>,
) -> Result<AST, Box<EvalAltResult>> {
    session.project.keep_source(file, Arc::clone(text));
    if text.len() > MAX_SOURCE_BYTES {
        let message = format!("`{file}` has {} bytes, a source has at most {MAX_SOURCE_BYTES}", text.len());
        return Err(throw(Diagnostic::error(Code::ScriptLimit, message), Position::NONE));
    }
    let mut ast = engine.compile(&**text)?;
    ast.set_source(&**file);
    if let Some((diagnostic, position)) = session.spans.borrow_mut().index(file, text, &ast) {
        return Err(throw(diagnostic, position));
    }
    if let Some(function) = ast.iter_functions().find(|function| super::keywords::is_taken(function.name)) {
        let message =
            format!("`{}` is a function of the plan language and cannot be defined again", function.name);
        let diagnostic =
            Diagnostic::error(Code::ScriptMisplaced, message).help("give the function another name");
        return Err(throw(diagnostic, find_definition(text, function.name)));
    }
    Ok(ast)
}

/// Where a function is defined; Rhai does not keep it.
fn find_definition(text: &str, name: &str) -> Position {
    let needle = format!("fn {name}");
    let found = text.lines().enumerate().find_map(|(line, content)| {
        let column = content.find(&needle)? + "fn ".len();
        let column = content[..column].chars().count();
        Some((u16::try_from(line + 1).ok()?, u16::try_from(column + 1).ok()?))
    });
    found.map_or(Position::NONE, |(line, column)| Position::new(line, column))
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
