//! `clawd resume [RUN]`: finish an interrupted run. The plan was approved; what was done stays done, and a world
//! that moved meanwhile is refused as in any apply.

use super::Outcome;
use super::apply::{check_target, read_plan};
use super::execute::{ApplyArgs, Job, PLAN_FILE, beside};
use super::progress;
use super::runs::{History, Run};
use super::terminal::Terminal;
use super::workspace::{ProfileArgs, Workspace, runtime};
use crate::diagnostic::{Code, Diagnostic};
use crate::exec::journal::Record;
use crate::plan::budget::{Cost, CostKind};
use crate::script::Sources;

/// Finish an interrupted run
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The run; the last one that is not done when not given.
    #[arg(value_name = "RUN")]
    run: Option<String>,
    /// How progress is told.
    #[arg(long, value_enum, default_value = "human")]
    format: progress::Format,
    #[command(flatten)]
    profile: ProfileArgs,
    #[command(flatten)]
    apply: ApplyArgs,
}

/// What a run's finished steps spent of the budget.
fn spent(records: &[Record]) -> Vec<Cost> {
    let cost = |text: &String| {
        let (word, subject) = text.split_once(' ')?;
        let kind = [CostKind::Destroy, CostKind::Replace, CostKind::Format]
            .into_iter()
            .find(|kind| kind.as_str() == word)?;
        Some(Cost { kind, subject: subject.to_owned() })
    };
    records
        .iter()
        .filter_map(|record| match record {
            Record::StepDone { costs, .. } => Some(costs.iter().filter_map(cost)),
            _ => None,
        })
        .flatten()
        .collect()
}

pub(super) fn run(args: &Args, terminal: &Terminal, command_line: &str) -> Outcome {
    let workspace = Workspace::here(&args.profile)?;
    let history = History::read(&workspace.runs())?;
    let Run { id, records, .. } = match &args.run {
        Some(id) => {
            let run = history.find(id)?;
            if let Some(later) = history.last().filter(|later| later.id != run.id) {
                let message = format!("the run {id} is not the last one: {} came after it", later.id);
                return Err(Diagnostic::error(Code::RunUnreadable, message)
                    .help("run its plan again: that goes on from what is there now")
                    .into());
            }
            run
        }
        None => history.last_open().ok_or_else(|| {
            Diagnostic::error(Code::RunUnreadable, "there is no run to resume: all are done")
                .help("`clawd runs` lists them")
        })?,
    };
    let file = workspace.runs().join(id).join(PLAN_FILE);
    let plan = read_plan(&file)?;
    check_target(&workspace, &plan)?;
    let providers = workspace.providers()?;
    providers.tofu.bring(&beside(&file));
    terminal.note(&format!("Resuming run {id} of {}", plan.header.script));
    let sources = Sources::default();
    let job = Job {
        workspace: &workspace,
        providers: &providers,
        plan: &plan,
        sources: &sources,
        args: &args.apply,
        format: args.format,
        command_line,
        resumes: Some((id.clone(), spent(records))),
    };
    job.run(terminal, &runtime()?)
}
