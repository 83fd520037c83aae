//! How a run's events are told: bars on a terminal, plain lines elsewhere, JSON lines for programs.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::terminal::Terminal;
use crate::exec::{Event, Observer};
use crate::plan::render::printable;
use crate::value::Address;

/// How progress is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Format {
    /// For people: bars on a terminal, plain lines elsewhere.
    Human,
    /// One JSON event per line on stdout.
    Jsonl,
}

/// The observer for a format and a terminal.
pub(super) fn observer<'a>(format: Format, terminal: &'a Terminal) -> Box<dyn Observer + 'a> {
    match format {
        Format::Jsonl => Box::new(Lines(terminal)),
        Format::Human if terminal.draws => Box::new(Bars::new()),
        Format::Human => Box::new(Plain(terminal)),
    }
}

struct Lines<'a>(&'a Terminal);

impl Observer for Lines<'_> {
    fn event(&self, event: &Event) {
        let mut line = serde_json::to_string(event).expect("events have a JSON form");
        line.push('\n');
        self.0.out(&line);
    }
}

/// One line of text for an event; `None` when it says nothing new to a person.
fn line(event: &Event) -> Option<String> {
    Some(match event {
        Event::RunStarted { .. } | Event::RunEnded { .. } => return None,
        Event::StepStarted { step, action } => format!("{step}: {} ...", action.as_str()),
        Event::StepProgress { step, message } => format!("{step}: {}", printable(message)),
        Event::StepRetried { step, attempt, error, wait_ms } => {
            format!(
                "{step}: try {attempt} in {:.1} s: {}",
                Duration::from_millis(*wait_ms).as_secs_f64(),
                headline(error)
            )
        }
        Event::StepDone { step, action } => format!("{step}: done ({})", action.as_str()),
        Event::StepFailed { step, error, .. } => format!("{step}: failed: {}", headline(error)),
        Event::StepSkipped { step, reason } => format!("{step}: skipped: {}", printable(reason)),
    })
}

/// The first line of an error; all of it is told when the run ends.
fn headline(error: &str) -> std::borrow::Cow<'_, str> {
    printable(error.lines().next().unwrap_or_default())
}

struct Plain<'a>(&'a Terminal);

impl Observer for Plain<'_> {
    fn event(&self, event: &Event) {
        if let Some(line) = line(event) {
            self.0.note(&line);
        }
    }
}

struct Bars {
    all: MultiProgress,
    total: ProgressBar,
    steps: Mutex<HashMap<Address, ProgressBar>>,
}

impl Bars {
    fn new() -> Self {
        let all = MultiProgress::new();
        let total = all.add(ProgressBar::new(0));
        if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} steps  {elapsed}") {
            total.set_style(style);
        }
        Self { all, total, steps: Mutex::default() }
    }

    fn bar(&self, step: &Address) -> ProgressBar {
        let mut steps = self.steps.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = || {
            let bar = self.all.insert_before(&self.total, ProgressBar::new_spinner());
            bar.set_prefix(step.to_string());
            if let Ok(style) = ProgressStyle::with_template("{spinner} {prefix}: {wide_msg}") {
                bar.set_style(style);
            }
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        };
        steps.entry(step.clone()).or_insert_with(fresh).clone()
    }

    fn close(&self, step: &Address, event: &Event) {
        let bar = self.steps.lock().unwrap_or_else(PoisonError::into_inner).remove(step);
        if let Some(bar) = bar {
            bar.finish_and_clear();
        }
        self.total.inc(1);
        if let Some(line) = line(event) {
            // The terminal may be gone; the run goes on.
            let _ = self.all.println(line);
        }
    }
}

impl Observer for Bars {
    fn event(&self, event: &Event) {
        match event {
            Event::RunStarted { steps, .. } => self.total.set_length(*steps as u64),
            Event::StepStarted { step, action } => self.bar(step).set_message(action.as_str()),
            Event::StepProgress { step, message } => {
                self.bar(step).set_message(printable(message).into_owned());
            }
            Event::StepRetried { step, error, .. } => {
                self.bar(step).set_message(format!("waiting to try again: {}", printable(error)));
            }
            Event::StepDone { step, .. }
            | Event::StepFailed { step, .. }
            | Event::StepSkipped { step, .. } => {
                self.close(step, event);
            }
            Event::RunEnded { .. } => self.total.finish_and_clear(),
        }
    }
}
