//! `clawd plan PLAN`: plan only.

use std::path::PathBuf;

use super::Outcome;
use super::execute::{beside, write_atomically};
use super::exit::{Exit, Failed};
use super::terminal::Terminal;
use super::workspace::{Made, PlanArgs, make_plan, runtime};
use crate::diagnostic::{Code, Diagnostic};
use crate::exec::guard::{check_budget, plan_costs};
use crate::plan::{file, render};

/// Plan only; nothing changes
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    plan: PlanArgs,
    /// Save the plan, to be applied exactly as it is shown.
    #[arg(long, short, value_name = "FILE")]
    out: Option<PathBuf>,
    /// How the plan is shown.
    #[arg(long, value_enum, default_value = "human")]
    format: Format,
    /// Exit with 2 when there are changes.
    #[arg(long)]
    detailed_exitcode: bool,
}

/// How a plan is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Format {
    /// For people, risk first.
    Human,
    /// For programs and golden files.
    Json,
    /// For a pull request.
    Markdown,
    /// As a picture.
    Mermaid,
}

/// The plan as text.
pub(super) fn show(made: &Made, format: Format, terminal: &Terminal) -> String {
    match format {
        Format::Human => render::human(&made.plan, made.providers.clock.now(), terminal.style()),
        Format::Json => file::to_json(&made.plan),
        Format::Markdown => render::markdown(&made.plan),
        Format::Mermaid => render::mermaid(&made.plan),
    }
}

pub(super) fn run(args: &Args, terminal: &Terminal) -> Outcome {
    let runtime = runtime()?;
    let made = make_plan(&args.plan, terminal, &runtime)?;
    terminal.out(&show(&made, args.format, terminal));
    if !made.plan.phase.problems.is_empty() {
        return Err(Box::new(Failed { diagnostics: made.plan.phase.problems, sources: made.sources }));
    }
    check_budget(&made.plan.header, &plan_costs(&made.plan))
        .map_err(|excess| Failed { diagnostics: vec![*excess], sources: made.sources.clone() })?;
    if let Some(path) = &args.out {
        // What lies beside it first: a plan never has the raw plans of an older one.
        made.providers.tofu.keep(&beside(path)).map_err(|error| {
            Diagnostic::error(
                Code::StateUnwritable,
                format!("the raw plans beside {}: {error}", path.display()),
            )
        })?;
        write_atomically(path, &file::to_file(&made.plan)).map_err(|error| {
            Diagnostic::error(
                Code::StateUnwritable,
                format!("cannot write the plan to {}: {error}", path.display()),
            )
        })?;
        terminal.note(&format!("Saved: {0}\nApply exactly this with: clawd apply {0}", path.display()));
    }
    let changes = args.detailed_exitcode && made.plan.summary().has_changes();
    made.leave();
    Ok(if changes { Exit::Changes } else { Exit::Done })
}
