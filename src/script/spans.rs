//! Where things stand in the sources. Rhai gives native functions the position of the callee only; the
//! positions of map keys and values come from walking the syntax tree after each compile.

use std::collections::HashMap;

use rhai::{AST, ASTNode, Expr, FnCallExpr, Position, Stmt};

use super::FileName;
use super::files::forged;
use super::tokens::{has_private, is_private};
use crate::diagnostic::{Code, Diagnostic};
use crate::value::{Path, Segment};

/// The most arguments of one call: resolving a call takes time for each combination of their types.
const MAX_ARGUMENTS: usize = 16;

/// The literal map of one call: where its keys and values stand.
#[derive(Debug, Default)]
struct CallSite {
    /// Positions of the arguments.
    args: Vec<Position>,
    /// Key path to key position and value position.
    keys: Vec<(Path, Position, Position)>,
}

/// The call sites of all compiled sources.
#[derive(Debug, Default)]
pub(super) struct Spans(HashMap<(FileName, Position), CallSite>);

/// Which side of an entry is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Key,
    Value,
}

impl Spans {
    /// Indexes a compiled source. Returns the first thing in it that no plan may hold, with its place.
    pub(super) fn index(&mut self, file: &FileName, text: &str, ast: &AST) -> Option<(Diagnostic, Position)> {
        let mut wrong = None;
        ast.walk(&mut |nodes: &[ASTNode<'_>]| {
            let found = match nodes.last() {
                Some(ASTNode::Expr(Expr::FnCall(call, position) | Expr::MethodCall(call, position)))
                | Some(ASTNode::Stmt(Stmt::FnCall(call, position))) => {
                    self.add(file, call, *position);
                    (call.args.len() > MAX_ARGUMENTS).then(|| (too_many_arguments(call), *position))
                }
                Some(ASTNode::Expr(Expr::StringConstant(content, position))) => {
                    literal(file, text, content, *position)
                }
                Some(ASTNode::Expr(Expr::CharConstant(c, position))) if is_private(*c) => {
                    Some((forged(file), *position))
                }
                Some(ASTNode::Expr(Expr::Map(entries, _))) => entries
                    .0
                    .iter()
                    .find(|(name, _)| has_private(&name.name))
                    .map(|(name, _)| (forged(file), name.pos)),
                _ => None,
            };
            wrong = wrong.take().or(found);
            wrong.is_none()
        });
        wrong
    }

    fn add(&mut self, file: &FileName, call: &FnCallExpr, position: Position) {
        if call.is_operator_call() || call.args.is_empty() {
            return;
        }
        let mut site =
            CallSite { args: call.args.iter().map(Expr::start_position).collect(), keys: Vec::new() };
        if let Some(map) = call.args.iter().find(|arg| matches!(arg, Expr::Map(..))) {
            collect(map, &Path::root(), &mut site.keys);
        }
        self.0.insert((file.clone(), position), site);
    }

    /// Where an argument of a call stands.
    pub(super) fn arg(&self, file: &FileName, call: Position, index: usize) -> Option<Position> {
        self.0.get(&(file.clone(), call))?.args.get(index).copied()
    }

    /// Whether exactly this entry stands in the literal map of a call.
    pub(super) fn has_entry(&self, file: &FileName, call: Position, path: &Path) -> bool {
        self.0.get(&(file.clone(), call)).is_some_and(|site| site.keys.iter().any(|(key, _, _)| key == path))
    }

    /// Where an entry of the literal map of a call stands; the nearest entry above it when the path leads
    /// into something that is not a literal.
    pub(super) fn entry(&self, file: &FileName, call: Position, path: &Path, side: Side) -> Option<Position> {
        let site = self.0.get(&(file.clone(), call))?;
        let mut segments: &[Segment] = path.segments();
        while !segments.is_empty() {
            if let Some((_, key, value)) =
                site.keys.iter().find(|(candidate, _, _)| candidate.segments() == segments)
            {
                let whole = segments.len() == path.segments().len();
                return Some(if side == Side::Key && whole { *key } else { *value });
            }
            segments = &segments[..segments.len() - 1];
        }
        None
    }
}

fn too_many_arguments(call: &FnCallExpr) -> Diagnostic {
    let (name, count) = (&call.name, call.args.len());
    let message = format!("`{name}` is called with {count} arguments, at most {MAX_ARGUMENTS} are taken");
    Diagnostic::error(Code::ScriptLimit, message)
}

/// What is wrong with a literal text: escapes could write a token that is not in the source; `${` in double quotes
/// is not what it looks like.
fn literal(file: &FileName, text: &str, content: &str, position: Position) -> Option<(Diagnostic, Position)> {
    if has_private(content) {
        return Some((forged(file), position));
    }
    if !content.contains("${") {
        return None;
    }
    let line = text.lines().nth(position.line()?.checked_sub(1)?)?;
    let quote = line.chars().nth(position.position()?.checked_sub(1)?)?;
    (quote == '"').then(|| {
        let diagnostic = Diagnostic::error(
            Code::ScriptSyntax,
            "text in double quotes does not interpolate `${...}`",
        )
        .help("write it in backticks; where the characters themselves are meant, write \"$\" + \"{...}\"");
        (diagnostic, position)
    })
}

fn collect(expr: &Expr, at: &Path, keys: &mut Vec<(Path, Position, Position)>) {
    match expr {
        Expr::Map(entries, _) => {
            for (name, value) in &entries.0 {
                let path = at.key(name.name.as_str());
                keys.push((path.clone(), name.pos, value.start_position()));
                collect(value, &path, keys);
            }
        }
        Expr::Array(items, _) => {
            for (index, item) in items.iter().enumerate() {
                let path = at.index(index);
                keys.push((path.clone(), item.start_position(), item.start_position()));
                collect(item, &path, keys);
            }
        }
        _ => {}
    }
}
