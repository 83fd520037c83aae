//! Arguments of `tofu_apply` held against the module they name, while the script is evaluated: variables that are missing,
//! misspelt or of another type, and what the stack yields.
//!
//! Reads the module's files through `ProjectFiles` and never starts OpenTofu. A directory that holds nothing but `sim.rhai`
//! is a module for rehearsals only; there is nothing to hold the arguments against.

use std::collections::BTreeSet;
use std::sync::Arc;

use smol_str::SmolStr;

use super::Registry;
use super::partial::Partial;
use super::primitive::{Inspection, ProjectFiles};
use super::schema::Problem;
use super::tofu_apply::Args;
use crate::diagnostic::{Code, Diagnostic, nearest};
use crate::stack::module::{SourceFile, is_preset_file, module_files};
use crate::stack::{Module, Type, Variable};
use crate::value::{Map, Path, Segment, Value};

/// The model of a module that is for rehearsals only.
const MODEL: &str = "sim.rhai";

fn problem(path: Path, code: Code, message: String, help: Option<String>) -> Problem {
    Problem { path, code, message, help, rename: None, origin: None }
}

fn at(argument: &str) -> Path {
    Path::root().key(argument)
}

/// What a file's own diagnostic says, told at the argument that names the module.
fn found_in(diagnostic: Diagnostic) -> Problem {
    let Diagnostic { code, message, help, origin, .. } = diagnostic;
    Problem { path: at("dir"), code, message, help, rename: None, origin }
}

/// Holds the arguments against the module.
pub(super) fn inspect(args: &Partial<'_, Args>, files: &dyn ProjectFiles) -> Inspection {
    let Some(dir) = args.str("dir") else { return Inspection::default() };
    match load(dir, files) {
        Ok(None) => Inspection::default(),
        Err(problems) => Inspection { problems, outputs: None },
        Ok(Some(module)) => {
            let mut check = Check { dir, module: &module, problems: Vec::new() };
            check.variables(args);
            check.placeholders(args);
            check.backend(args);
            let declared = check.outputs(args);
            let stack = Registry::all().get("tofu_apply").map(|primitive| &primitive.outputs);
            let outputs =
                stack.map(|stack| stack.with_outputs("outputs", &module, |name| type_of(&declared, name)));
            Inspection { problems: check.problems, outputs }
        }
    }
}

fn type_of(declared: &[(SmolStr, Type)], name: &str) -> Option<Type> {
    declared.iter().find(|(known, _)| known == name).map(|(_, ty)| ty.clone())
}

/// The module in a directory, with all files that decide what it means noted; `None` for one of rehearsals only.
fn load(dir: &str, files: &dyn ProjectFiles) -> Result<Option<Module>, Vec<Problem>> {
    let mut problems = Vec::new();
    let module = read(dir, files).map_err(|found| found.into_iter().map(found_in).collect::<Vec<_>>())?;
    let Some(module) = module else { return Ok(None) };
    // Modules that it calls count as well; only whether they can be read matters here.
    let mut seen = BTreeSet::from([normal(dir, "").unwrap_or_default()]);
    let mut waiting: Vec<(String, String)> =
        module.calls.iter().map(|call| (dir.to_owned(), call.clone())).collect();
    while let Some((from, call)) = waiting.pop() {
        let Some(child) = normal(&from, &call) else {
            let message = format!("the module in `{from}` calls `{call}`, which is outside the project");
            problems.push(problem(at("dir"), Code::ScriptOutside, message, None));
            continue;
        };
        if !seen.insert(child.clone()) {
            continue;
        }
        match read(&child, files) {
            Ok(found) => {
                let calls = found.map(|module| module.calls).unwrap_or_default();
                waiting.extend(calls.into_iter().map(|call| (child.clone(), call)));
            }
            Err(found) => problems.extend(found.into_iter().map(found_in)),
        }
    }
    if problems.is_empty() { Ok(Some(module)) } else { Err(problems) }
}

/// A directory relative to another one, `..` resolved; `None` when it is outside the project.
pub(super) fn normal(from: &str, to: &str) -> Option<String> {
    let mut parts: Vec<&str> = Vec::new();
    for part in from.split('/').chain(to.split('/')) {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

fn read(dir: &str, files: &dyn ProjectFiles) -> Result<Option<Module>, Vec<Diagnostic>> {
    let tree = files.tree(dir).map_err(|error| vec![error])?;
    let here = || tree.iter().map(String::as_str).filter(|path| !path.contains('/'));
    let names = module_files(here());
    if names.is_empty() {
        if here().any(|name| name == MODEL) {
            return Ok(None);
        }
        let message = format!("there is no module in `{dir}`: it holds no .tf file");
        return Err(vec![
            Diagnostic::error(Code::StackModule, message)
                .help("name the directory of an OpenTofu module, like `tofu/fleet`"),
        ]);
    }
    let text = |name: &str| -> Result<(Arc<str>, Arc<str>), Diagnostic> {
        // The project's root itself is no prefix.
        let path = normal(dir, name).unwrap_or_default();
        Ok((Arc::from(path.as_str()), files.text(&path)?))
    };
    let texts: Vec<(Arc<str>, Arc<str>)> =
        names.into_iter().map(text).collect::<Result<_, _>>().map_err(|error| vec![error])?;
    let sources: Vec<SourceFile<'_>> = texts.iter().map(|(path, text)| SourceFile { path, text }).collect();
    let mut module = Module::read(&sources)?;
    for name in here().filter(|name| is_preset_file(name)) {
        let (path, text) = text(name).map_err(|error| vec![error])?;
        module.read_preset(SourceFile { path: &path, text: &text }).map_err(|error| vec![*error])?;
    }
    Ok(Some(module))
}

struct Check<'a> {
    dir: &'a str,
    module: &'a Module,
    problems: Vec<Problem>,
}

impl Check<'_> {
    fn add(&mut self, path: Path, code: Code, message: String, help: Option<String>) {
        self.problems.push(problem(path, code, message, help));
    }

    fn variables(&mut self, args: &Partial<'_, Args>) {
        let none = Map::new();
        let vars = match args.get("vars") {
            None => &none,
            Some(Value::Map(vars)) => vars,
            // Known at apply only: OpenTofu says then what does not fit.
            Some(_) => return,
        };
        let path = at("vars");
        for (name, value) in vars.iter() {
            match self.module.variables.get(name) {
                Some(variable) => self.variable(name, variable, value, &path.key(name.clone())),
                None => self.unknown("variable", name, path.key(name.clone())),
            }
        }
        let module = self.module;
        let given = |name: &SmolStr| vars.get(name).is_some() || module.preset.contains(name);
        for (name, variable) in
            module.variables.iter().filter(|(name, variable)| variable.required && !given(name))
        {
            let message =
                format!("the variable `{name}` of the module {} is missing: {}", self.dir, variable.ty);
            let place = if args.get("vars").is_some() { path.clone() } else { Path::root() };
            self.add(place, Code::ScriptMissingArgument, message, variable.description.clone());
        }
    }

    fn variable(&mut self, name: &str, variable: &Variable, value: &Value, path: &Path) {
        let mut secret = None;
        value.secrets(&mut |found| secret = Some(found.clone()));
        if let Some(secret) = secret.filter(|_| !variable.sensitive) {
            let message = format!(
                "the secret `{secret}` cannot be given to the variable `{name}`, which is not marked as sensitive: OpenTofu would print it"
            );
            let help = format!("write `sensitive = true` into variable \"{name}\" ({})", variable.origin);
            self.add(path.clone(), Code::ScriptSecret, message, Some(help));
        }
        for misfit in variable.ty.misfits(value) {
            let place = misfit.path.segments().iter().fold(path.clone(), |path, segment| match segment {
                Segment::Key(key) => path.key(key.clone()),
                Segment::Index(index) => path.index(*index),
            });
            let help =
                misfit.help.or_else(|| Some(format!("the variable is declared at {}", variable.origin)));
            let rename = misfit.rename.map(|name| name.to_string());
            let found = problem(place, Code::ScriptWrongType, misfit.message, help);
            self.problems.push(Problem { rename, ..found });
        }
    }

    fn unknown(&mut self, what: &str, name: &str, path: Path) {
        let names = || -> Vec<&str> {
            match what {
                "output" => self.module.outputs.keys().map(SmolStr::as_str).collect(),
                _ => self.module.variables.keys().map(SmolStr::as_str).collect(),
            }
        };
        let near = nearest(name, names());
        let help = match near {
            Some(near) => format!("did you mean `{near}`?"),
            None if names().is_empty() => format!("it has no {what}s"),
            None => format!("its {what}s are: {}", names().join(", ")),
        };
        let message = format!("the module {} has no {what} `{}`", self.dir, name.escape_debug());
        let found = problem(path, Code::ScriptUnknownArgument, message, Some(help));
        let rename = near.map(str::to_owned);
        self.problems.push(Problem { rename, ..found });
    }

    /// A pattern of a placeholder begins with a variable.
    fn placeholders(&mut self, args: &Partial<'_, Args>) {
        for (pattern, _) in args.map("placeholders").into_iter().flat_map(Map::iter) {
            let name = pattern.split('.').next().unwrap_or_default();
            if !self.module.variables.contains_key(name) {
                self.unknown("variable", name, at("placeholders").key(pattern.clone()));
            }
        }
    }

    /// Settings of a backend go to one that the module names, and are no secrets: OpenTofu keeps them in its data directory.
    fn backend(&mut self, args: &Partial<'_, Args>) {
        let Some(settings) = args.map("backend").filter(|settings| !settings.is_empty()) else { return };
        if self.module.backend.is_none() {
            let message = format!("the module {} names no backend that settings could be for", self.dir);
            let help = "write `terraform { backend \"s3\" {} }` into the module".to_owned();
            self.add(at("backend"), Code::ScriptWrongType, message, Some(help));
        }
        for (name, value) in settings.iter() {
            let path = at("backend").key(name.clone());
            let mut secret = None;
            value.secrets(&mut |found| secret = Some(found.clone()));
            if let Some(secret) = secret {
                let message =
                    format!("the secret `{secret}` cannot be a backend's setting: OpenTofu stores it");
                let help = "credentials of a backend come from the environment or AWS's own files".to_owned();
                self.add(path, Code::ScriptSecret, message, Some(help));
                continue;
            }
            match value {
                Value::List(_) | Value::Null => {
                    let message =
                        format!("expected text, a number, a bool or a map, found a {}", value.kind());
                    self.add(path, Code::ScriptWrongType, message, None);
                }
                _ => {}
            }
        }
    }

    /// The outputs whose types the script declares.
    fn outputs(&mut self, args: &Partial<'_, Args>) -> Vec<(SmolStr, Type)> {
        let mut declared = Vec::new();
        for (name, text) in args.map("outputs").into_iter().flat_map(Map::iter) {
            let path = at("outputs").key(name.clone());
            if !self.module.outputs.contains_key(name) {
                self.unknown("output", name, path);
                continue;
            }
            match text.as_str().map(Type::parse) {
                Some(Ok(ty)) => declared.push((name.clone(), ty)),
                Some(Err(error)) => {
                    let help = "types are written as in OpenTofu: \"string\", \"map(string)\"".to_owned();
                    self.add(path, Code::ScriptWrongType, error, Some(help));
                }
                None => {}
            }
        }
        declared
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_are_resolved_inside_the_project_only() {
        assert_eq!(normal("tofu/fleet", "../base"), Some("tofu/base".to_owned()));
        assert_eq!(normal("./tofu/fleet/", "./x"), Some("tofu/fleet/x".to_owned()));
        assert_eq!(normal("tofu", "../../x"), None);
    }
}
