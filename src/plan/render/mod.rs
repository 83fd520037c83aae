//! Plans as text: for people (`human`), for pull requests (`markdown`), as a picture (`mermaid`); JSON is in
//! `file`. Risk first: what may lose something stands on top. Renderers return text and know no terminal;
//! styling is a trait that `cli` fills in.

mod human;
mod markdown;
mod mermaid;
mod text;

pub use human::human;
pub use markdown::markdown;
pub use mermaid::mermaid;
pub use text::{Plain, Style, leaf, printable};

use super::{Action, Decided, Plan, Step, StepDecision};

/// Steps with what was decided for them.
type Shown<'a> = Vec<(&'a Step, &'a StepDecision)>;

/// The steps in the order a reviewer needs: risky ones first, then those that act, in plan order.
fn by_risk(plan: &Plan<Decided>) -> (Shown<'_>, Shown<'_>, usize) {
    let mut risky = Vec::new();
    let mut acting = Vec::new();
    let mut quiet = 0;
    for (_, step, decided) in plan.decided() {
        if decided.decision.is_risky() {
            risky.push((step, decided));
        } else if decided.decision.action == Action::NoOp
            && decided.decision.notes.is_empty()
            && decided.decision.drift.is_empty()
        {
            quiet += 1;
        } else {
            acting.push((step, decided));
        }
    }
    (risky, acting, quiet)
}
