//! `clawd check PLAN...`: parse, evaluate, check; touches nothing.

use std::path::PathBuf;

use serde_json::json;

use super::Outcome;
use super::exit::{Exit, Failed};
use super::runs::Format;
use super::terminal::Terminal;
use super::workspace::{ProfileArgs, Workspace};
use crate::diagnostic::{Code, Diagnostic};
use crate::script::Given;

/// Parse, evaluate and check plans; touches nothing
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The plan scripts.
    #[arg(value_name = "PLAN", required = true)]
    scripts: Vec<PathBuf>,
    /// Set a parameter of the plans; may be given more than once.
    #[arg(long = "param", value_name = "NAME=VALUE")]
    params: Vec<String>,
    /// How the result is told; `json` tells diagnostics with places and fixes.
    #[arg(long, value_enum, default_value = "human")]
    format: Format,
    #[command(flatten)]
    profile: ProfileArgs,
}

pub(super) fn run(args: &Args, terminal: &Terminal) -> Outcome {
    let mut failed = Vec::new();
    let mut documents = Vec::new();
    let mut report = String::new();
    for script in &args.scripts {
        let (name, diagnostics, steps) = match check(script, args) {
            Ok((name, steps, warnings)) => {
                report.push_str(&format!("{name}: {steps} steps, no errors\n"));
                (name, warnings, Some(steps))
            }
            Err(failure) => {
                let name = script.display().to_string();
                let diagnostics = failure.diagnostics.clone();
                failed.push(failure);
                (name, diagnostics, None)
            }
        };
        documents.push(json!({ "script": name, "steps": steps, "diagnostics": diagnostics }));
    }
    match args.format {
        Format::Json => {
            let document = json!({ "format_version": "1", "plans": documents });
            terminal.out(
                &(serde_json::to_string_pretty(&document).expect("diagnostics have a JSON form") + "\n"),
            );
        }
        Format::Human => {
            terminal.out(&report);
            for failure in &failed {
                terminal.diagnostics(&failure.diagnostics, &failure.sources);
            }
        }
    }
    let usage = failed.iter().flat_map(|failure| &failure.diagnostics).any(|found| found.code == Code::Usage);
    Ok(match (failed.is_empty(), usage) {
        (true, _) => Exit::Done,
        (false, true) => Exit::Usage,
        (false, false) => Exit::Failed,
    })
}

fn check(script: &std::path::Path, args: &Args) -> Result<(String, usize, Vec<Diagnostic>), Box<Failed>> {
    let mut params = std::collections::BTreeMap::new();
    for param in &args.params {
        let (name, value) = param.split_once('=').ok_or_else(|| {
            Diagnostic::error(Code::Usage, format!("`--param {}` is not NAME=VALUE", param.escape_debug()))
        })?;
        params.insert(name.to_owned(), Given::Text(value.to_owned()));
    }
    let (workspace, name) = Workspace::of_script(script, &args.profile)?;
    match workspace.evaluate(&name, params) {
        Ok(evaluation) => Ok((name, evaluation.plan.steps.len(), evaluation.warnings)),
        Err(failure) => Err(Box::new(Failed { diagnostics: failure.diagnostics, sources: failure.sources })),
    }
}
