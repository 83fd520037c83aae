//! L5: the command line. The only place that prints, reads the environment, knows colours, and decides exit
//! codes; and the only one that names adapters. One file per subcommand.

#![allow(clippy::disallowed_methods)] // this is where it is done

mod apply;
mod bootstrap;
#[cfg(feature = "aws")]
mod bucket;
mod check;
mod config;
mod docs;
mod execute;
mod exit;
mod host;
mod man;
mod memory;
mod plan;
mod progress;
mod report;
mod resume;
mod run;
mod runs;
mod show;
mod signals;
mod sim;
mod terminal;
mod workspace;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use exit::Exit;
use terminal::Terminal;

/// Fleet plans for NixOS agent hosts on AWS: reviewed as one plan, applied exactly as shown.
#[derive(Debug, Parser)]
#[command(
    name = "clawd",
    version,
    propagate_version = true,
    max_term_width = 100,
    arg_required_else_help = true
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// When to use colours.
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    color: terminal::ColorChoice,
    /// More log lines on stderr; twice for still more.
    #[arg(long, short, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::Args),
    Plan(plan::Args),
    Apply(apply::Args),
    Resume(resume::Args),
    Check(check::Args),
    Docs(docs::Args),
    Runs(runs::Args),
    Show(show::Args),
    Sim(sim::Args),
    Bootstrap(bootstrap::Args),
    Memory(memory::Args),
    Host(host::Args),
    Completions(man::CompletionsArgs),
    #[command(hide = true)]
    Man(man::ManArgs),
}

/// Runs the command line and returns the process's exit code.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args: Vec<OsString> = args.into_iter().collect();
    let cli = match Cli::try_parse_from(&args) {
        Ok(cli) => cli,
        Err(error) => return exit::of_usage_error(&error).into(),
    };
    terminal::log_to_stderr(cli.verbose);
    let terminal = Terminal::new(cli.color);
    // The path of the binary says nothing to whoever reads a journal.
    let words = args.iter().skip(1).map(|arg| arg.to_string_lossy());
    let command_line = std::iter::once("clawd".into()).chain(words).collect::<Vec<_>>().join(" ");
    let outcome = match cli.command {
        Command::Run(args) => run::run(&args, &terminal, &command_line),
        Command::Plan(args) => plan::run(&args, &terminal),
        Command::Apply(args) => apply::run(&args, &terminal, &command_line),
        Command::Resume(args) => resume::run(&args, &terminal, &command_line),
        Command::Check(args) => check::run(&args, &terminal),
        Command::Docs(args) => docs::run(&args, &terminal),
        Command::Runs(args) => runs::run(&args, &terminal),
        Command::Show(args) => show::run(&args, &terminal),
        Command::Sim(args) => sim::run(&args, &terminal),
        Command::Bootstrap(args) => bootstrap::run(&args, &terminal),
        Command::Memory(args) => memory::run(&args, &terminal),
        Command::Host(args) => host::run(&args, &terminal),
        Command::Completions(args) => man::completions(&args, &terminal),
        Command::Man(args) => man::man(&args, &terminal),
    };
    outcome.unwrap_or_else(|failure| failure.report(&terminal)).into()
}

/// What every subcommand returns: an exit, or diagnostics that explain one.
type Outcome = Result<Exit, Box<exit::Failed>>;
