//! The terminal: the one place that writes to stdout and stderr.

use std::borrow::Cow;
use std::io::{self, IsTerminal as _, Write as _};

use clap::ValueEnum;
use tracing_subscriber::filter::LevelFilter;

use super::report;
use crate::diagnostic::Diagnostic;
use crate::plan::Action;
use crate::plan::render::{Plain, Style};
use crate::script::Sources;

/// When to use colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum ColorChoice {
    /// On a terminal, unless `NO_COLOR` is set.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// Stdout and stderr, with what they can show.
#[derive(Debug)]
pub(super) struct Terminal {
    color_out: bool,
    color_err: bool,
    /// Whether progress bars may be drawn.
    pub(super) draws: bool,
    /// Whether a person can be asked.
    pub(super) asks: bool,
}

/// Logs go to stderr, by level of `--verbose`.
pub(super) fn log_to_stderr(verbose: u8) {
    let level = match verbose {
        0 => LevelFilter::WARN,
        1 => LevelFilter::INFO,
        2 => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    };
    // A second initialisation, in tests within one process, keeps the first.
    let _ = tracing_subscriber::fmt().with_max_level(level).with_writer(io::stderr).without_time().try_init();
}

impl Terminal {
    pub(super) fn new(choice: ColorChoice) -> Self {
        let allowed = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let color = |is_terminal: bool| match choice {
            ColorChoice::Always => true,
            ColorChoice::Never => false,
            ColorChoice::Auto => is_terminal && allowed && !dumb,
        };
        Self {
            color_out: color(io::stdout().is_terminal()),
            color_err: color(io::stderr().is_terminal()),
            draws: io::stderr().is_terminal() && !dumb,
            asks: io::stdin().is_terminal() && io::stderr().is_terminal(),
        }
    }

    /// Writes to stdout. A closed pipe ends the output, not the work.
    pub(super) fn out(&self, text: &str) {
        self.out_bytes(text.as_bytes());
    }

    /// Writes bytes to stdout as they are: the content of a file.
    #[allow(clippy::unused_self)] // the terminal is the right to print
    pub(super) fn out_bytes(&self, bytes: &[u8]) {
        let mut stdout = io::stdout().lock();
        let _ = stdout.write_all(bytes).and_then(|()| stdout.flush());
    }

    /// Writes a line to stderr.
    #[allow(clippy::unused_self)] // the terminal is the right to print
    pub(super) fn note(&self, text: &str) {
        let _ = writeln!(io::stderr().lock(), "{text}");
    }

    /// The style of what goes to stdout.
    pub(super) fn style(&self) -> &'static dyn Style {
        if self.color_out { &Ansi } else { &Plain }
    }

    /// Prints diagnostics to stderr.
    pub(super) fn diagnostics(&self, diagnostics: &[Diagnostic], sources: &Sources) {
        let mut text = String::new();
        for diagnostic in diagnostics {
            text.push_str(&report::render(diagnostic, sources, self.color_err));
        }
        let _ = io::stderr().lock().write_all(text.as_bytes());
    }

    /// Asks a person; only the word `yes` is one.
    pub(super) fn confirms(&self, question: &str) -> bool {
        let mut stderr = io::stderr().lock();
        let _ =
            write!(stderr, "{question}\n  Only `yes` is taken as approval: ").and_then(|()| stderr.flush());
        drop(stderr);
        let mut answer = String::new();
        io::stdin().read_line(&mut answer).is_ok() && answer.trim() == "yes"
    }
}

/// ANSI colours.
struct Ansi;

impl Ansi {
    fn paint(code: &str, text: &str) -> Cow<'static, str> {
        format!("\u{1b}[{code}m{text}\u{1b}[0m").into()
    }
}

impl Style for Ansi {
    fn action<'a>(&self, action: Action, text: &'a str) -> Cow<'a, str> {
        let code = match action {
            Action::Create => "32",
            Action::Update => "33",
            Action::Replace => "35",
            Action::Destroy => "31",
            Action::Read | Action::Unknown => "36",
            Action::NoOp => "2",
        };
        Self::paint(code, text)
    }

    fn heading<'a>(&self, text: &'a str) -> Cow<'a, str> {
        Self::paint("1", text)
    }

    fn dim<'a>(&self, text: &'a str) -> Cow<'a, str> {
        Self::paint("2", text)
    }

    fn warning<'a>(&self, text: &'a str) -> Cow<'a, str> {
        Self::paint("1;33", text)
    }
}
