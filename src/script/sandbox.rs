//! The sandboxed engine: which parts of Rhai plans have, and the bounds on time, memory and operations.
//!
//! It records nothing and reads no files; what an evaluation may do besides computing is registered elsewhere.

#![allow(clippy::disallowed_methods)] // the process's own memory is read from /proc

use std::cell::Cell;
use std::fs;
use std::rc::Rc;

use rhai::packages::{
    ArithmeticPackage, BasicArrayPackage, BasicIteratorPackage, BasicMapPackage, BasicMathPackage,
    BasicStringPackage, LogicPackage, Package,
};
use rhai::{Dynamic, Engine, LexError, OptimizationLevel, Token};
use rustix::time::{ClockId, clock_gettime};

use super::deferred::{self, Deferred};
use super::session::Shared;
use super::{Limits, lists, strings};

/// Symbols of Rhai that plans do not have. `switch` takes its default arm on a value not known yet; `try`
/// could swallow an error that must stop a plan; the rest makes code that a reviewer cannot follow.
const DISABLED: [&str; 9] = ["switch", "eval", "try", "catch", "throw", "type_of", "Fn", "call", "curry"];

/// Operations between two looks at clock and memory.
const LOOK_EVERY: u64 = 256;

/// What a recorded step may take besides the memory limit.
const STEP_BYTES: usize = 8 << 10;

/// Why an evaluation was stopped from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stopped {
    Time,
    Memory,
    Operations,
}

/// Thread CPU time in milliseconds.
pub(super) fn cpu_ms() -> u64 {
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
pub(super) fn watch_variables(engine: &mut Engine, session: &Shared) {
    let shared = Rc::clone(session);
    #[allow(deprecated)] // marked as volatile, not as going away
    engine.on_var(move |name, _, context| {
        if let Some(handle) = context.scope().get_value::<Deferred>(name) {
            shared.touch(&handle.reference);
        }
        Ok(None)
    });
}
