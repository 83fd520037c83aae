//! Rhai's errors as diagnostics: the innermost place, the calls that led there, what was expected, and a
//! "did you mean" where a name is near.

use std::sync::Arc;

use rhai::{EvalAltResult, LexError, ParseErrorType, Position};

use super::FileName;
use super::keywords::{BUILTINS, METHODS};
use super::sandbox::Stopped;
use super::session::{Session, Thrown, line_column};
use super::types::{article, type_name};
use crate::diagnostic::{Code, Diagnostic, Frame, Origin, nearest};
use crate::primitives::Registry;

/// Whether Rhai stumbled over a deferred value without saying which.
pub(super) fn mentions_deferred(error: &EvalAltResult) -> bool {
    match innermost(error) {
        EvalAltResult::ErrorMismatchDataType(_, found, _) => found.contains("Deferred"),
        EvalAltResult::ErrorFunctionNotFound(signature, _) => signature.contains("Deferred"),
        EvalAltResult::ErrorIndexingType(name, _) => name.contains("Deferred"),
        EvalAltResult::ErrorFor(_) => true,
        _ => false,
    }
}

fn innermost(error: &EvalAltResult) -> &EvalAltResult {
    match error {
        EvalAltResult::ErrorInFunctionCall(_, _, inner, _) | EvalAltResult::ErrorInModule(_, inner, _) => {
            innermost(inner)
        }
        other => other,
    }
}

/// The diagnostic of an error.
pub(super) fn diagnostic(session: &Session, error: &EvalAltResult) -> Diagnostic {
    let mut file = Arc::clone(&session.main);
    let mut stack: Vec<Frame> = Vec::new();
    let mut at = error;
    loop {
        let (call, next, inner, position) = match at {
            EvalAltResult::ErrorInFunctionCall(name, source, inner, position) => {
                let next: FileName =
                    if source.is_empty() { Arc::clone(&file) } else { source.as_str().into() };
                (name.clone(), next, inner, *position)
            }
            EvalAltResult::ErrorInModule(path, inner, position) => (
                format!("import \"{}\"", path.trim_end_matches(".rhai")),
                path.as_str().into(),
                inner,
                *position,
            ),
            _ => break,
        };
        let (line, column) = line_column(position);
        let call = if call.starts_with("anon$") { "a closure".to_owned() } else { call };
        stack.push(Frame { call, file: Arc::clone(&file), line, column });
        file = next;
        at = inner;
    }
    stack.reverse();
    let mut diagnostic = describe(session, at, &file);
    if let Some(origin) = &mut diagnostic.origin {
        origin.stack = stack.into();
    }
    diagnostic
}

fn origin(session: &Session, file: &FileName, position: Position) -> Origin {
    session.origin(file, position)
}

/// The innermost error, without the calls.
fn describe(session: &Session, error: &EvalAltResult, file: &FileName) -> Diagnostic {
    if let EvalAltResult::ErrorRuntime(payload, position) = error {
        if let Some(thrown) = payload.read_lock::<Thrown>() {
            let mut diagnostic = (*thrown.0).clone();
            if diagnostic.origin.is_none() {
                diagnostic.origin = Some(origin(session, file, *position));
            }
            return diagnostic;
        }
        let text = payload.clone().into_string().unwrap_or_else(|_| "the script stopped".to_owned());
        return Diagnostic::error(Code::ScriptRuntime, text).at(origin(session, file, *position));
    }
    let place = origin(session, file, error.position());
    match error {
        EvalAltResult::ErrorParsing(kind, position) => parse_error(session, kind, file, *position),
        EvalAltResult::ErrorVariableNotFound(name, _) => unknown_variable(session, name, file, place),
        EvalAltResult::ErrorModuleNotFound(name, _) => unknown_variable(session, name, file, place),
        EvalAltResult::ErrorFunctionNotFound(signature, _) => unknown_function(session, signature, place),
        EvalAltResult::ErrorPropertyNotFound(name, _) => {
            if super::tokens::has_private(name) {
                return session.token_error(name, "a map key").at(place);
            }
            Diagnostic::error(Code::ScriptUnknownKey, format!("the map has no key `{}`", name.escape_debug()))
                .at(place)
                .help("`\"key\" in map` asks whether it is there; `map.keys()` lists the keys")
        }
        EvalAltResult::ErrorIndexNotFound(key, _) => {
            let key = key.to_string();
            Diagnostic::error(
                Code::ScriptUnknownKey,
                format!("there is no element `{}`", session.tokens.borrow().readable(&key)),
            )
            .at(place)
        }
        EvalAltResult::ErrorArrayBounds(length, index, _) => Diagnostic::error(
            Code::ScriptUnknownKey,
            format!("the list has {length} elements, none at {index}"),
        )
        .at(place),
        EvalAltResult::ErrorMismatchDataType(wanted, found, _)
            if found.contains("Deferred") || found.contains("Secret") =>
        {
            let wanted = type_name(wanted);
            handle_error(session, &format!("this place, which takes {} {wanted},", article(wanted)), place)
        }
        EvalAltResult::ErrorIndexingType(name, _) if name.contains("Deferred") => {
            handle_error(session, "a map key or list index", place)
        }
        EvalAltResult::ErrorFor(_) if session.touched.borrow().is_some() => {
            handle_error(session, "a loop", place)
        }
        EvalAltResult::ErrorFor(_) => {
            Diagnostic::error(Code::ScriptWrongType, "`for` takes a list or a range")
                .at(place)
                .help("a map is walked by its keys: `for key in map.keys()`")
        }
        EvalAltResult::ErrorMismatchDataType(wanted, found, _) => Diagnostic::error(Code::ScriptWrongType, {
            let (wanted, found) = (type_name(wanted), type_name(found));
            format!("expected {} {wanted}, found {} {found}", article(wanted), article(found))
        })
        .at(place),
        EvalAltResult::ErrorDataRace(..) => {
            let message =
                "a list or map is used inside a function that is called while it is walked or changed";
            Diagnostic::error(Code::ScriptRuntime, message)
                .at(place)
                .help("take a copy first: `let copy = list;`")
        }
        EvalAltResult::ErrorTooManyOperations(_) => {
            limit("the script runs too many operations", "max_operations", place)
        }
        EvalAltResult::ErrorStackOverflow(_) => {
            limit("the script calls functions too deeply", "max_call_levels", place)
        }
        EvalAltResult::ErrorDataTooLarge(what, _) => limit(
            &format!("a value is too large: {what}"),
            "max_string_bytes, max_array_items or max_map_items",
            place,
        ),
        EvalAltResult::ErrorTerminated(token, _) => match token.clone().try_cast::<Stopped>() {
            Some(Stopped::Operations) => {
                limit("the script runs too many operations", "max_operations", place)
            }
            Some(Stopped::Memory) => limit("the script takes too much memory", "max_memory_mib", place),
            _ => limit("the script runs too long", "max_cpu_ms", place),
        },
        other => {
            // Rhai appends the position to its text; ours stands in front.
            let text = other.to_string();
            let text = text.rsplit_once(" (line ").map_or(text.as_str(), |(text, _)| text);
            Diagnostic::error(Code::ScriptRuntime, session.tokens.borrow().readable(text)).at(place)
        }
    }
}

fn limit(message: &str, setting: &str, place: Origin) -> Diagnostic {
    Diagnostic::error(Code::ScriptLimit, message).at(place).help(format!(
        "plans are short and finite; where one must be larger, raise {setting} under `[limits]` in clawd.toml"
    ))
}

fn handle_error(session: &Session, use_: &str, place: Origin) -> Diagnostic {
    match &*session.touched.borrow() {
        Some(reference) => session.deferred_error(reference, use_).at(place),
        None => Diagnostic::error(
            Code::ScriptDeferred,
            format!("{use_} needs a value that is known only after apply"),
        )
        .at(place),
    }
}

/// Names that a source declares: after `let`, `const`, `for`, `as`, `fn` and in parameter lists.
fn declared_names(text: &str) -> Vec<String> {
    let words: Vec<&str> =
        text.split(|c: char| !(c.is_alphanumeric() || c == '_')).filter(|word| !word.is_empty()).collect();
    words
        .windows(2)
        .filter(|pair| matches!(pair[0], "let" | "const" | "for" | "as"))
        .map(|pair| pair[1].to_owned())
        .collect()
}

fn unknown_variable(session: &Session, name: &str, file: &FileName, place: Origin) -> Diagnostic {
    let names = session.project.sources().get(file).map(|text| declared_names(text)).unwrap_or_default();
    let is_function =
        BUILTINS.iter().map(|builtin| builtin.name).chain(Registry::all().names()).any(|known| known == name);
    let mut diagnostic =
        Diagnostic::error(Code::ScriptUnknownVariable, format!("there is no variable `{name}`")).at(place);
    if let Some(near) = nearest(name, names.iter().map(String::as_str).filter(|known| *known != name)) {
        diagnostic =
            diagnostic.help(format!("did you mean `{near}`?")).fix("use the variable that exists", near);
    } else if is_function {
        diagnostic = diagnostic.help(format!("`{name}` is a function: call it with parentheses"));
    } else if super::stdlib::MODULES.iter().any(|(module, _)| *module == format!("std/{name}")) {
        diagnostic = diagnostic.help(format!("import it first: import \"std/{name}\" as {name};"));
    } else {
        diagnostic = diagnostic.help("variables are declared with `let` before they are used; functions do not see the variables outside them");
    }
    diagnostic
}

fn unknown_function(session: &Session, signature: &str, place: Origin) -> Diagnostic {
    let (name, args) = signature.split_once(" (").unwrap_or((signature, ""));
    let args = args.trim_end_matches(')');
    let word = |c: char| c.is_alphanumeric() || matches!(c, '_' | ':');
    if !args.is_empty() && !name.contains(word) && !args.contains("Deferred") && !args.contains("Secret") {
        // An operator.
        let types: Vec<&str> = args.split(", ").map(type_name).collect();
        let message = format!("`{name}` does not work on {}", types.join(" and "));
        return Diagnostic::error(Code::ScriptWrongType, message).at(place);
    }
    if name.contains(word) && !name.chars().all(word) {
        // Rhai puts some plain sentences here.
        return Diagnostic::error(Code::ScriptRuntime, session.tokens.borrow().readable(signature)).at(place);
    }
    if args.contains("Deferred") || args.contains("Secret") {
        let known = BUILTINS.iter().any(|builtin| builtin.name == name);
        if let Some(reference) = session.touched.borrow().as_ref().filter(|_| args.contains("Deferred")) {
            return session.deferred_error(reference, &format!("`{name}`")).at(place);
        }
        let what = if known {
            "takes no value that is not known yet"
        } else {
            "needs a value that a script does not see"
        };
        return Diagnostic::error(Code::ScriptDeferred, format!("`{name}` {what}")).at(place);
    }
    let (module, bare) = name.rsplit_once("::").map_or((None, name), |(module, bare)| (Some(module), bare));
    let module_names = session.module_functions.borrow();
    let candidates: Vec<&str> = match module {
        Some(_) => module_names.values().flatten().map(String::as_str).collect(),
        None => BUILTINS
            .iter()
            .map(|builtin| builtin.name)
            .chain(Registry::all().names())
            .chain(METHODS)
            .collect(),
    };
    if candidates.contains(&bare) {
        let types: Vec<&str> = args.split(", ").map(type_name).collect();
        let message = format!("`{name}` cannot be called with ({})", types.join(", "));
        let mut diagnostic = Diagnostic::error(Code::ScriptUnknownFunction, message).at(place);
        if let Some(builtin) = BUILTINS.iter().find(|builtin| builtin.name == bare) {
            diagnostic = diagnostic.help(format!("it is {}", builtin.signature));
        } else if let Some(primitive) = Registry::all().get(bare) {
            diagnostic = diagnostic.help(
                if module.is_none() && Registry::all().get(bare).is_some() && args.is_empty() {
                    format!("write {}(\"name\", #{{ ... }})", primitive.name)
                } else {
                    format!(
                        "write {}(\"name\", #{{ ... }}); the profile may leave this primitive out",
                        primitive.name
                    )
                },
            );
        }
        return diagnostic;
    }
    let diagnostic =
        Diagnostic::error(Code::ScriptUnknownFunction, format!("there is no function `{name}`")).at(place);
    match nearest(bare, candidates) {
        Some(near) => {
            diagnostic.help(format!("did you mean `{near}`?")).fix("call the function that exists", near)
        }
        None => diagnostic.help("`clawd docs` lists the primitives and functions"),
    }
}

fn parse_error(session: &Session, kind: &ParseErrorType, file: &FileName, position: Position) -> Diagnostic {
    let place = origin(session, file, position);
    match kind {
        ParseErrorType::VariableUndefined(name) | ParseErrorType::ModuleUndefined(name) => {
            return unknown_variable(session, name, file, place);
        }
        ParseErrorType::BadInput(LexError::Runtime(text)) => return limit(text, "max_cpu_ms", place),
        ParseErrorType::Reserved(word) if matches!(word.as_str(), "null" | "nil") => {
            return Diagnostic::error(
                Code::ScriptSyntax,
                format!("`{word}` is not part of the plan language"),
            )
            .at(place)
            .help("nothing is written `()`");
        }
        ParseErrorType::ExprTooDeep => {
            return Diagnostic::error(Code::ScriptLimit, "an expression is nested too deeply")
                .at(place)
                .help("split it over variables");
        }
        _ => {}
    }
    let text = kind.to_string();
    let removed = match kind {
        ParseErrorType::Reserved(word) => Some(word.clone()),
        ParseErrorType::BadInput(LexError::ImproperSymbol(word, _)) => Some(word.clone()),
        _ => None,
    };
    let diagnostic = Diagnostic::error(Code::ScriptSyntax, text).at(place);
    match removed.as_deref() {
        Some(
            word @ ("switch" | "eval" | "try" | "catch" | "throw" | "type_of" | "Fn" | "call" | "curry"),
        ) => {
            let help = match word {
                "switch" => "use `if` and `else if`, or look the value up in a map",
                "try" | "catch" | "throw" => "plans do not catch errors; `assert` and `fail` report them",
                _ => "plans do not have it: what a plan does must be plain to read",
            };
            Diagnostic { message: format!("`{word}` is not part of the plan language"), ..diagnostic }
                .help(help)
        }
        _ => diagnostic,
    }
}
