//! L4: the executor: observes and decides a recorded plan, and applies a decided one.
//!
//! It knows no Rhai and prints nothing: facts go to an `Observer`, intents to a journal. Steps run as futures of
//! one task, so nothing is shared between threads but what the ports share themselves.

mod apply;
pub mod guard;
pub mod journal;
pub mod lock;
pub mod observer;
pub mod planner;
pub mod report;
pub mod retry;
mod scheduler;
mod together;

pub use apply::apply;
pub use observer::{Event, Observer};
pub use planner::decide;
pub use report::{Applied, ApplyError, Interrupt, Options, StepResult};
