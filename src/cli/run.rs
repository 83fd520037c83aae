//! `clawd run PLAN`: plan, ask, apply.

use super::Outcome;
use super::execute::{self, ApplyArgs, Job};
use super::exit::{Exit, Failed};
use super::plan::show;
use super::progress;
use super::terminal::Terminal;
use super::workspace::{Made, PlanArgs, make_plan, runtime};
use crate::exec::guard::{check_budget, plan_costs};
use crate::plan::file;

/// Plan, ask, apply
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    plan: PlanArgs,
    /// Show the plan and stop.
    #[arg(long)]
    dry_run: bool,
    /// Exit with 2 when the plan shown by --dry-run has changes.
    #[arg(long, requires = "dry_run")]
    detailed_exitcode: bool,
    /// How the plan is shown; `jsonl` shows events while applying instead.
    #[arg(long, value_enum, default_value = "human")]
    format: Format,
    #[command(flatten)]
    apply: ApplyArgs,
}

/// How plan and progress are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Format {
    /// For people.
    Human,
    /// The plan as JSON; progress as lines on stderr.
    Json,
    /// The plan for a pull request; progress as lines on stderr.
    Markdown,
    /// The plan as a picture; progress as lines on stderr.
    Mermaid,
    /// Events while applying, one JSON object per line.
    Jsonl,
}

/// The plan as an event: what is about to happen, in numbers, and the digest of the whole.
fn planned_event(made: &Made) -> String {
    let event = serde_json::json!({
        "event": "planned",
        "script": made.plan.header.script,
        "digest": file::plan_digest(&made.plan),
        "summary": made.plan.summary(),
    });
    format!("{event}\n")
}

pub(super) fn run(args: &Args, terminal: &Terminal, command_line: &str) -> Outcome {
    let runtime = runtime()?;
    let made = make_plan(&args.plan, terminal, &runtime)?;
    let shown = match args.format {
        Format::Human => Some(super::plan::Format::Human),
        Format::Json => Some(super::plan::Format::Json),
        Format::Markdown => Some(super::plan::Format::Markdown),
        Format::Mermaid => Some(super::plan::Format::Mermaid),
        Format::Jsonl => None,
    };
    match shown {
        Some(format) => terminal.out(&show(&made, format, terminal)),
        None => terminal.out(&planned_event(&made)),
    }
    if !made.plan.phase.problems.is_empty() {
        return Err(Box::new(Failed { diagnostics: made.plan.phase.problems, sources: made.sources }));
    }
    let has_changes = made.plan.summary().has_changes();
    let within_budget = check_budget(&made.plan.header, &plan_costs(&made.plan));
    if args.dry_run {
        if let Err(excess) = within_budget {
            // A dry run shows; the refusal is what applying would say.
            terminal.diagnostics(&[*excess], &made.sources);
            return Ok(Exit::Refused);
        }
        made.leave();
        return Ok(if has_changes && args.detailed_exitcode { Exit::Changes } else { Exit::Done });
    }
    if !has_changes {
        return Ok(Exit::Done);
    }
    within_budget.map_err(|excess| Failed { diagnostics: vec![*excess], sources: made.sources.clone() })?;
    execute::approve(&made.plan, &args.apply, terminal)?;
    let job = Job {
        workspace: &made.workspace,
        providers: &made.providers,
        plan: &made.plan,
        sources: &made.sources,
        args: &args.apply,
        format: if args.format == Format::Jsonl { progress::Format::Jsonl } else { progress::Format::Human },
        command_line,
        resumes: None,
    };
    job.run(terminal, &runtime)
}
