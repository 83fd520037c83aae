//! `clawd show RUN`: one run's report, from its journal.

use std::fmt::Write as _;

use super::Outcome;
use super::exit::Exit;
use super::runs::{Format, History, Run};
use super::terminal::Terminal;
use super::workspace::{ProfileArgs, Workspace};
use crate::exec::journal::Record;
use crate::plan::render::{leaf, printable};

/// Show one run's report
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The run.
    #[arg(value_name = "RUN")]
    run: String,
    /// How it is shown; `json` is the journal's records.
    #[arg(long, value_enum, default_value = "human")]
    format: Format,
    #[command(flatten)]
    profile: ProfileArgs,
}

pub(super) fn run(args: &Args, terminal: &Terminal) -> Outcome {
    let workspace = Workspace::here(&args.profile)?;
    let history = History::read(&workspace.runs())?;
    let run = history.find(&args.run)?;
    let text = match args.format {
        Format::Json => serde_json::to_string_pretty(&run.records).expect("records have a JSON form") + "\n",
        Format::Human => report(run),
    };
    terminal.out(&text);
    Ok(Exit::Done)
}

fn report(run: &Run) -> String {
    let mut out = format!("Run {} ({})\n", run.id, run.status());
    for record in &run.records {
        // Writing to a String cannot fail.
        let _ = match record {
            Record::RunStarted { at, command, plan, resumed, .. } => {
                let word = if *resumed { "resumed" } else { "started" };
                writeln!(out, "\n{at}  {word}: {}\n  plan {plan}", printable(command))
            }
            Record::Intent { step, call, token, generation } => {
                let again =
                    if *generation > 0 { format!(", generation {generation}") } else { String::new() };
                writeln!(out, "  {step}: {call} (token {}{again})", &token[..12.min(token.len())])
            }
            Record::Done { step, call, result, .. } => {
                writeln!(out, "  {step}: {call} -> {}", printable(result))
            }
            // Parts are for going on with an upload; the effect they belong to has its own lines.
            Record::Part { .. } => Ok(()),
            Record::StepDone { step, action, outputs, .. } => {
                writeln!(out, "  {step}: done ({}) {}", action.as_str(), leaf(outputs))
            }
            Record::StepFailed { step, error } => writeln!(out, "  {step}: failed: {}", printable(error)),
            Record::StepSkipped { step, reason } => {
                writeln!(out, "  {step}: skipped: {}", printable(reason))
            }
            Record::RunEnded { status, at } => writeln!(out, "{at}  {status}"),
        };
    }
    out
}
