//! `clawd docs [NAME]`: the reference.

use std::path::{Path, PathBuf};

use super::Outcome;
use super::exit::{Exit, Failed};
use super::terminal::Terminal;
use super::workspace::{PlanArgs, ProfileArgs, Workspace};
use crate::diagnostic::{Code, Diagnostic, nearest};
use crate::docs;
use crate::primitives::Registry;
use crate::script::BUILTINS;

/// The reference of primitives, functions and diagnostics
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A primitive or function, `codes` for the table of diagnostics, `iam` for what a plan needs; everything when not given.
    #[arg(value_name = "NAME")]
    name: Option<String>,
    /// With `iam`: the plan script.
    #[arg(value_name = "PLAN")]
    plan: Option<PathBuf>,
    /// Set a parameter of the plan; may be given more than once.
    #[arg(long = "param", value_name = "NAME=VALUE", requires = "plan")]
    params: Vec<String>,
    /// Set parameters from a TOML or JSON file.
    #[arg(long = "params", value_name = "FILE", requires = "plan")]
    params_file: Option<PathBuf>,
    /// The profile whose account and region the policy names.
    #[command(flatten)]
    profile: ProfileArgs,
    /// In which form.
    #[arg(long, value_enum, default_value = "markdown")]
    format: Format,
}

/// The forms of the reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// Pages to read.
    Markdown,
    /// JSON Schema of arguments and outputs.
    JsonSchema,
    /// Definitions for editors.
    Rhai,
    /// The AWS actions the primitives need, as a policy.
    Iam,
}

/// The least policy for a plan. Its script is evaluated, nothing is looked at.
fn iam_of_plan(args: &Args, script: &Path, terminal: &Terminal) -> Outcome {
    let args = PlanArgs {
        script: script.to_owned(),
        params: args.params.clone(),
        params_file: args.params_file.clone(),
        profile: args.profile.clone(),
    };
    let (workspace, script) = Workspace::of_script(&args.script, &args.profile)?;
    match workspace.evaluate(&script, args.params()?) {
        Ok(evaluation) => {
            terminal.out(&(docs::iam_of_plan(&evaluation.plan) + "\n"));
            Ok(Exit::Done)
        }
        Err(failure) => Err(Box::new(Failed { diagnostics: failure.diagnostics, sources: failure.sources })),
    }
}

pub(super) fn run(args: &Args, terminal: &Terminal) -> Outcome {
    match (args.name.as_deref(), &args.plan) {
        (Some("iam"), Some(plan)) => return iam_of_plan(args, plan, terminal),
        (_, Some(plan)) => {
            let message = format!("`{}` is one name too many", plan.display());
            return Err(Diagnostic::error(Code::Usage, message)
                .help("write `clawd docs iam PLAN` or `clawd docs NAME`")
                .into());
        }
        (Some("iam"), None) => {
            return Err(Diagnostic::error(Code::Usage, "`clawd docs iam` takes a plan script")
                .help("`clawd docs iam plans/spawn.rhai`; `clawd docs --format iam` prints what all primitives may need")
                .into());
        }
        _ => {}
    }
    let name = args.name.as_deref();
    let text = match (args.format, name) {
        (Format::Markdown, None) => Some(docs::markdown()),
        (Format::Markdown, Some("codes")) => Some(docs::codes()),
        (Format::Markdown, Some(name)) => {
            docs::primitive_markdown(name).or_else(|| docs::function_markdown(name))
        }
        (Format::JsonSchema, name) => docs::json_schema(name),
        (Format::Rhai, _) => Some(docs::rhai_definitions()),
        (Format::Iam, Some(name)) => docs::iam([name]).ok(),
        (Format::Iam, None) => docs::iam(Registry::all().names()).ok(),
    };
    match text {
        Some(text) => {
            terminal.out(&(text.trim_end().to_owned() + "\n"));
            Ok(Exit::Done)
        }
        None => {
            let name = name.unwrap_or_default();
            let known =
                Registry::all().names().chain(BUILTINS.map(|builtin| builtin.name)).chain(["codes", "iam"]);
            let help = nearest(name, known).map_or_else(
                || format!("there are: {}", Registry::all().names().collect::<Vec<_>>().join(", ")),
                |near| format!("did you mean `{near}`?"),
            );
            Err(Diagnostic::error(Code::Usage, format!("there is nothing called `{}`", name.escape_debug()))
                .help(help)
                .into())
        }
    }
}
