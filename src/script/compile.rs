//! Compiling a source: its syntax tree is indexed for positions, and what no plan may hold is refused.

use std::sync::Arc;

use rhai::{AST, Engine, EvalAltResult, Position};

use super::FileName;
use super::session::{Session, throw};
use crate::diagnostic::{Code, Diagnostic};

/// The largest source that is compiled: Rhai's parser is quadratic in places.
const MAX_SOURCE_BYTES: usize = 256 << 10;

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
