//! `clawd apply FILE`: apply a saved plan. The script is not evaluated again.

use std::fs;
use std::path::{Path, PathBuf};

use super::Outcome;
use super::execute::{self, ApplyArgs, Job};
use super::exit::Exit;
use super::progress;
use super::terminal::Terminal;
use super::workspace::{ProfileArgs, Workspace, runtime};
use crate::diagnostic::{Code, Diagnostic};
use crate::plan::file::{self, FileError};
use crate::plan::render;
use crate::plan::{Decided, Plan};
use crate::script::Sources;

/// Apply a saved plan
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A file written by `clawd plan -o`.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// How progress is told.
    #[arg(long, value_enum, default_value = "human")]
    format: progress::Format,
    #[command(flatten)]
    apply: ApplyArgs,
}

/// Reads a saved plan.
pub(super) fn read_plan(path: &Path) -> Result<Plan<Decided>, Diagnostic> {
    let text = fs::read_to_string(path).map_err(|error| {
        Diagnostic::error(
            Code::FileUnreadable,
            format!("cannot read the plan file {}: {error}", path.display()),
        )
    })?;
    file::from_file(&text).map_err(|error| {
        let code = match error {
            FileError::Malformed(_) => Code::FileMalformed,
            FileError::Version { .. } => Code::FileVersion,
            FileError::Edited { .. } => Code::FileEdited,
            FileError::Cycle(_) | FileError::Graph(_) => Code::FileGraph,
        };
        Diagnostic::error(code, format!("{} cannot be applied: {error}", path.display()))
            .help("make the plan again with `clawd plan -o`")
    })
}

/// A plan is applied only where it was made for.
pub(super) fn check_target(workspace: &Workspace, plan: &Plan<Decided>) -> Result<(), Diagnostic> {
    let (made, here) = (&plan.header.target, &workspace.profile.target);
    if made == here {
        return check_rights(workspace, plan);
    }
    let show = |target: &crate::plan::Target| {
        format!(
            "profile {}, fleet {}, account {}, region {}",
            target.profile, target.fleet, target.account, target.region
        )
    };
    Err(Diagnostic::error(
        Code::FileTarget,
        format!("the plan was made for {}; here is {}", show(made), show(here)),
    )
    .help("apply it in the project it was made in, or make it again"))
}

/// The profile may have been narrowed since the plan was made.
fn check_rights(workspace: &Workspace, plan: &Plan<Decided>) -> Result<(), Diagnostic> {
    let profile = &workspace.profile;
    let narrowed = |message: String| {
        Diagnostic::error(Code::FileTarget, message)
            .help("the profile in clawd.toml was changed since: plan again")
    };
    if plan.header.profile_budget != profile.budget {
        return Err(narrowed(format!(
            "the plan was made under another budget of profile {}",
            profile.target.profile
        )));
    }
    let allowed =
        |name: &str| profile.primitives.as_ref().is_none_or(|names| names.iter().any(|known| known == name));
    match plan.steps.keys().find(|address| !allowed(address.primitive())) {
        Some(address) => {
            Err(narrowed(format!("the profile no longer lets plans use `{}`", address.primitive())))
        }
        None => Ok(()),
    }
}

pub(super) fn run(args: &Args, terminal: &Terminal, command_line: &str) -> Outcome {
    let plan = read_plan(&args.file)?;
    let workspace = Workspace::here(&ProfileArgs { profile: Some(plan.header.target.profile.clone()) })?;
    check_target(&workspace, &plan)?;
    let providers = workspace.providers()?;
    providers.tofu.bring(&execute::beside(&args.file));
    if args.format == progress::Format::Human {
        terminal.out(&render::human(&plan, providers.clock.now(), terminal.style()));
    }
    if !plan.summary().has_changes() {
        return Ok(Exit::Done);
    }
    execute::approve(&plan, &args.apply, terminal)?;
    let sources = Sources::default();
    let job = Job {
        workspace: &workspace,
        providers: &providers,
        plan: &plan,
        sources: &sources,
        args: &args.apply,
        format: args.format,
        command_line,
        resumes: None,
    };
    job.run(terminal, &runtime()?)
}
