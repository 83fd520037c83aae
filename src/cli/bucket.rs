//! What `bootstrap` does with a profile of an account: looks at the bucket, shows what it lacks, asks, and completes it.

use std::fmt::Write as _;

use super::Outcome;
use super::bootstrap::Args;
use super::config::Aws;
use super::execute::ask;
use super::exit::Exit;
use super::terminal::Terminal;
use super::workspace::{Workspace, runtime};
use crate::diagnostic::{Code, Diagnostic};
use crate::plan::render::{Style, printable};
use crate::plan::{Action, Target};
use crate::providers::aws::{Bootstrap, BucketChange, BucketPlan};
use crate::providers::{ErrorKind, ProviderError};

/// Looks, shows, asks, acts.
pub(super) fn complete(args: &Args, workspace: &Workspace, aws: &Aws, terminal: &Terminal) -> Outcome {
    let (bucket, target) = (&aws.state_bucket, &workspace.profile.target);
    let runtime = runtime()?;
    let bootstrap = Bootstrap::new(workspace.aws_settings(aws)?, bucket.clone(), target.fleet.clone());
    let plan = runtime.block_on(bootstrap.plan()).map_err(|error| problem(error, Code::PlanRead))?;
    terminal.out(&show(bucket, target, &plan, terminal.style()));
    if args.dry_run {
        let pending = plan.has_changes() && args.detailed_exitcode;
        return Ok(if pending { Exit::Changes } else { Exit::Done });
    }
    if !plan.has_changes() {
        return Ok(Exit::Done);
    }
    let verb = if plan.exists { "Complete" } else { "Make" };
    let question = format!("\n{verb} the bucket {bucket} in account {}?", target.account);
    ask(args.yes, &question, "review the plan and pass --yes", terminal)?;
    let mut tell = |what: &str| terminal.note(&format!("{bucket}: {}", printable(what)));
    runtime.block_on(bootstrap.make(&plan, &mut tell)).map_err(|error| {
        let problem = problem(error, Code::RunFailed);
        if problem.help.is_some() {
            return problem;
        }
        problem.help("what was written stays; `clawd bootstrap` goes on from there")
    })?;
    terminal.out(&format!("\n{} {bucket} is as it must be.\n", terminal.style().heading("Applied:")));
    Ok(Exit::Done)
}

fn problem(error: ProviderError, otherwise: Code) -> Diagnostic {
    let code = match error.kind {
        ErrorKind::Refused => Code::PlanRefused,
        ErrorKind::Moved => Code::PlanStale,
        _ => otherwise,
    };
    let mut diagnostic = Diagnostic::error(code, error.to_string());
    diagnostic.help = error.help;
    diagnostic
}

fn show(bucket: &str, target: &Target, plan: &BucketPlan, style: &dyn Style) -> String {
    let Target { profile, fleet, account, region } = target;
    let heading = style.heading("Bucket of states");
    let place = format!("(profile {profile}, fleet {fleet}, account {account}, region {region})");
    // Writing to a String cannot fail.
    let mut out = format!("{heading} {}\n", style.dim(&place));
    let (action, mark) = match (plan.exists, plan.has_changes()) {
        (false, _) => (Action::Create, "  +"),
        (true, true) => (Action::Update, "  ~"),
        (true, false) => (Action::NoOp, "   "),
    };
    let _ = writeln!(
        out,
        "\n{} {}  {}: {}",
        style.action(action, mark),
        style.heading(bucket),
        style.action(action, action.as_str()),
        reason(plan),
    );
    let width = plan.changes.iter().map(|change| change.setting.len()).max().unwrap_or(0);
    for change in &plan.changes {
        let _ = writeln!(out, "      {:<width$}  {}", change.setting, printable(&shown(change)));
    }
    for note in &plan.notes {
        let _ = writeln!(out, "      {}", style.dim(&format!("note: {}", printable(note))));
    }
    let _ = match (plan.exists, plan.has_changes()) {
        (false, _) => writeln!(out, "\n{} 1 to create.", style.heading("Plan:")),
        (true, true) => writeln!(out, "\n{} 1 to update.", style.heading("Plan:")),
        (true, false) => writeln!(out, "\n{}", style.heading("No changes.")),
    };
    out
}

fn reason(plan: &BucketPlan) -> String {
    match (plan.exists, plan.changes.len()) {
        (false, _) => "there is no such bucket".to_owned(),
        (true, 0) => "all settings are as they must be".to_owned(),
        (true, 1) => "one setting is not as it must be".to_owned(),
        (true, count) => format!("{count} settings are not as they must be"),
    }
}

fn shown(change: &BucketChange) -> String {
    match &change.before {
        Some(before) => format!("{before} -> {}", change.after),
        None => change.after.clone(),
    }
}
