//! Our module resolver: `std/...` is embedded, everything else is a `.rhai` file inside the project. No
//! absolute paths, no `..`, no link that leaves the project, no circle. Each module is evaluated once.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use rhai::{Engine, EvalAltResult, Module, ModuleResolver, Position, Scope, Shared as RhaiShared};

use super::compile::compile;
use super::session::{Session, Shared, throw};
use super::stdlib;
use super::tokens::has_private;
use crate::diagnostic::{Code, Diagnostic, nearest};

pub(super) struct Resolver {
    session: Shared,
    loaded: RefCell<BTreeMap<String, RhaiShared<Module>>>,
    loading: RefCell<Vec<String>>,
}

impl Resolver {
    pub(super) fn new(session: &Shared) -> Self {
        Self { session: Rc::clone(session), loaded: RefCell::default(), loading: RefCell::default() }
    }

    fn load(
        &self,
        engine: &Engine,
        path: &str,
        name: &str,
        position: Position,
    ) -> Result<Module, Box<EvalAltResult>> {
        let session: &Session = &self.session;
        let text: Arc<str> = match stdlib::source(name) {
            Some(source) => source.into(),
            None => session
                .project
                .read(name)
                .map_err(|diagnostic| throw(missing(path, diagnostic), position))?
                .into(),
        };
        let file: Arc<str> = name.into();
        let inside = |error: Box<EvalAltResult>| -> Box<EvalAltResult> {
            EvalAltResult::ErrorInModule(name.to_owned(), error, position).into()
        };
        let ast = compile(engine, session, &file, &text).map_err(inside)?;
        let functions = ast.iter_functions().map(|function| function.name.to_owned()).collect();
        session.module_functions.borrow_mut().insert(name.to_owned(), functions);
        Module::eval_ast_as_new(Scope::new(), &ast, engine).map_err(inside)
    }
}

/// A module that is not there: say what there is.
fn missing(path: &str, diagnostic: Diagnostic) -> Diagnostic {
    if diagnostic.code != Code::ScriptFile {
        return diagnostic;
    }
    let known = || stdlib::MODULES.iter().map(|(name, _)| *name);
    let help = match nearest(path, known()) {
        Some(near) => format!("did you mean \"{near}\"?"),
        None => format!(
            "modules are {} and .rhai files named from the project's root, without the ending",
            known().collect::<Vec<_>>().join(", ")
        ),
    };
    Diagnostic::error(Code::ScriptModule, format!("there is no module \"{}\"", path.escape_debug()))
        .help(help)
}

impl ModuleResolver for Resolver {
    fn resolve(
        &self,
        engine: &Engine,
        _source: Option<&str>,
        path: &str,
        position: Position,
    ) -> Result<RhaiShared<Module>, Box<EvalAltResult>> {
        if path.starts_with('/') {
            let diagnostic = Diagnostic::error(
                Code::ScriptOutside,
                format!("`{}` is an absolute path", path.escape_debug()),
            )
            .help("modules are named from the project's root");
            return Err(throw(diagnostic, position));
        }
        if has_private(path) {
            return Err(throw(self.session.token_error(path, "a module's name"), position));
        }
        let path: String =
            path.split('/').filter(|part| !matches!(*part, "" | ".")).collect::<Vec<_>>().join("/");
        let path = path.as_str();
        let name = if path.starts_with("std/") || path.ends_with(".rhai") {
            path.to_owned()
        } else {
            format!("{path}.rhai")
        };
        if let Some(module) = self.loaded.borrow().get(&name) {
            return Ok(RhaiShared::clone(module));
        }
        if self.loading.borrow().contains(&name) {
            let circle = self
                .loading
                .borrow()
                .iter()
                .chain([&name])
                .map(|name| format!("\"{name}\""))
                .collect::<Vec<_>>()
                .join(" -> ");
            let diagnostic = Diagnostic::error(
                Code::ScriptModule,
                format!("modules import each other in a circle: {circle}"),
            )
            .help("move what both need into a third module");
            return Err(throw(diagnostic, position));
        }
        self.loading.borrow_mut().push(name.clone());
        let module = self.load(engine, path, &name, position);
        self.loading.borrow_mut().pop();
        let module: RhaiShared<Module> = module?.into();
        self.loaded.borrow_mut().insert(name, RhaiShared::clone(&module));
        Ok(module)
    }
}
