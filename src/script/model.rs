//! Models of tofu modules: `sim.rhai` beside a module, evaluated for the simulator in the same sandbox, without
//! anything that records. Unknown variables are handles there too.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rhai::{Dynamic, Engine, EvalAltResult, Map as RhaiMap, Scope};

use super::compile::compile;
use super::convert::{to_dynamic, to_map};
use super::deferred::Deferred;
use super::evaluate::session;
use super::files::Project;
use super::params::Params;
use super::sandbox::sandbox;
use super::session::{Mode, Shared, VARIABLE, throw};
use super::{Limits, errors, on_own_thread};
use crate::diagnostic::{Code, Diagnostic};
use crate::providers::model::{ModelError, StackModel};
use crate::value::{Address, Map, Path as ValuePath, Reference, Value};

/// Evaluates models.
#[derive(Debug)]
pub struct ScriptModel {
    root: PathBuf,
    limits: Limits,
}

impl ScriptModel {
    /// Models of the project in `root`.
    #[must_use]
    pub const fn new(root: PathBuf, limits: Limits) -> Self {
        Self { root, limits }
    }

    fn call(
        &self,
        file: &Path,
        source: &str,
        function: &str,
        args: &[(&str, &Map)],
    ) -> Result<Map, ModelError> {
        let outcome = on_own_thread(|| self.call_here(file, source, function, args));
        outcome.unwrap_or_else(|diagnostic| Err(ModelError::Failed(diagnostic.message)))
    }

    fn call_here(
        &self,
        file: &Path,
        source: &str,
        function: &str,
        args: &[(&str, &Map)],
    ) -> Result<Map, ModelError> {
        let name = file.to_string_lossy().into_owned();
        let project = Project::new(self.root.clone(), self.limits.max_string_bytes);
        let session = session(project, &name, None, Params::new(BTreeMap::new()), 0, Mode::Collect);
        let engine = sandbox(&session, &self.limits);
        let called = run(&engine, &session, source, function, args);
        let result = called.and_then(|result| {
            to_map(&session, result).map_err(|unreadable| throw(unreadable.diagnostic, rhai::Position::NONE))
        });
        match result {
            Ok(map) => Ok(map.into_iter().map(|(key, value)| (key, without_handles(value))).collect()),
            Err(error) => Err(model_error(&errors::diagnostic(&session, &error))),
        }
    }
}

fn model_error(diagnostic: &Diagnostic) -> ModelError {
    let place = diagnostic.origin.as_ref().map_or(String::new(), |origin| format!("{origin}: "));
    let text = format!("{place}{}", diagnostic.message);
    match diagnostic.code {
        Code::ScriptDeferred | Code::ScriptDeferredCut => ModelError::NeedsUnknown(text),
        _ => ModelError::Failed(text),
    }
}

fn run(
    engine: &Engine,
    session: &Shared,
    source: &str,
    function: &str,
    args: &[(&str, &Map)],
) -> Result<RhaiMap, Box<EvalAltResult>> {
    let main = Arc::clone(&session.main);
    let ast = compile(engine, session, &main, &source.into())?;
    let args: Vec<Dynamic> = args
        .iter()
        .map(|(prefix, map)| {
            Dynamic::from_map(
                map.iter()
                    .map(|(key, value)| {
                        (key.as_str().into(), to_dynamic(value, handle(prefix, key).as_ref()))
                    })
                    .collect(),
            )
        })
        .collect();
    // A handle inside the arguments is touched by being passed.
    let mut scope = Scope::new();
    let result = engine.call_fn::<Dynamic>(&mut scope, &ast, function, args)?;
    let found = result.type_name();
    result.try_cast_result::<RhaiMap>().map_err(|_| {
        let message =
            format!("`{function}` must return a map, it returned a {}", super::types::type_name(found));
        throw(Diagnostic::error(Code::ScriptWrongType, message), rhai::Position::NONE)
    })
}

/// The handle that stands for a variable or resource whose value is not known.
fn handle(prefix: &str, key: &str) -> Option<Deferred> {
    let (step, path) = match Address::new(prefix, key) {
        Ok(step) => (step, ValuePath::root()),
        // A resource address is no step's name; it becomes the path.
        Err(_) => (Address::new(VARIABLE, prefix).ok()?, ValuePath::root().key(key)),
    };
    Some(Deferred { reference: Arc::new(Reference { step, path }), schema: None })
}

/// What a model returns holds unknown leaves, not handles.
fn without_handles(value: Value) -> Value {
    match value {
        Value::Ref(_) | Value::Template(_) => Value::Unknown,
        Value::List(items) => Value::List(items.into_iter().map(without_handles).collect()),
        Value::Map(map) => {
            Value::Map(map.into_iter().map(|(key, item)| (key, without_handles(item))).collect())
        }
        other => other,
    }
}

impl StackModel for ScriptModel {
    fn resources(&self, file: &Path, source: &str, vars: &Map) -> Result<Map, ModelError> {
        self.call(file, source, "resources", &[(VARIABLE, vars)])
    }

    fn outputs(&self, file: &Path, source: &str, vars: &Map, resources: &Map) -> Result<Map, ModelError> {
        self.call(file, source, "outputs", &[(VARIABLE, vars), ("resource", resources)])
    }
}
