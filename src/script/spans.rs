//! Where things stand in the sources. Rhai gives native functions the position of the callee only; the
//! positions of map keys and values come from walking the syntax tree after each compile.

use std::collections::HashMap;

use rhai::{AST, ASTNode, Expr, FnCallExpr, Position, Stmt};

use super::FileName;
use super::tokens::has_private;
use crate::value::{Path, Segment};

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
    /// Indexes a compiled source. Returns the place of the first literal that holds private characters:
    /// escapes could write a token that is not in the source text.
    pub(super) fn index(&mut self, file: &FileName, ast: &AST) -> Option<Position> {
        let mut forged = None;
        ast.walk(&mut |nodes: &[ASTNode<'_>]| {
            match nodes.last() {
                Some(ASTNode::Expr(Expr::FnCall(call, position) | Expr::MethodCall(call, position)))
                | Some(ASTNode::Stmt(Stmt::FnCall(call, position))) => self.add(file, call, *position),
                Some(ASTNode::Expr(Expr::StringConstant(text, position))) if has_private(text) => {
                    forged = forged.or(Some(*position));
                }
                Some(ASTNode::Expr(Expr::CharConstant(c, position))) if super::tokens::is_private(*c) => {
                    forged = forged.or(Some(*position));
                }
                _ => {}
            }
            true
        });
        forged
    }

    fn add(&mut self, file: &FileName, call: &FnCallExpr, position: Position) {
        if call.is_operator_call() || call.args.is_empty() {
            return;
        }
        let mut site = CallSite {
            args: call.args.iter().map(Expr::position).collect(),
            keys: Vec::new(),
        };
        if let Some(map) = call.args.iter().find(|arg| matches!(arg, Expr::Map(..))) {
            collect(map, &Path::root(), &mut site.keys);
        }
        self.0.insert((file.clone(), position), site);
    }

    /// Where an argument of a call stands.
    pub(super) fn arg(&self, file: &FileName, call: Position, index: usize) -> Option<Position> {
        self.0.get(&(file.clone(), call))?.args.get(index).copied()
    }

    /// Where an entry of the literal map of a call stands; the nearest entry above it when the path leads
    /// into something that is not a literal.
    pub(super) fn entry(&self, file: &FileName, call: Position, path: &Path, side: Side) -> Option<Position> {
        let site = self.0.get(&(file.clone(), call))?;
        let mut segments: &[Segment] = path.segments();
        while !segments.is_empty() {
            if let Some((_, key, value)) = site
                .keys
                .iter()
                .find(|(candidate, _, _)| candidate.segments() == segments)
            {
                let whole = segments.len() == path.segments().len();
                return Some(if side == Side::Key && whole { *key } else { *value });
            }
            segments = &segments[..segments.len() - 1];
        }
        None
    }
}

fn collect(expr: &Expr, at: &Path, keys: &mut Vec<(Path, Position, Position)>) {
    match expr {
        Expr::Map(entries, _) => {
            for (name, value) in &entries.0 {
                let path = at.key(name.name.as_str());
                keys.push((path.clone(), name.pos, value.position()));
                collect(value, &path, keys);
            }
        }
        Expr::Array(items, _) => {
            for (index, item) in items.iter().enumerate() {
                let path = at.index(index);
                keys.push((path.clone(), item.position(), item.position()));
                collect(item, &path, keys);
            }
        }
        _ => {}
    }
}
