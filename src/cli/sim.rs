//! `clawd sim`: the simulated world.

use std::fs;

use super::Outcome;
use super::execute::now;
use super::exit::Exit;
use super::runs::Format;
use super::terminal::Terminal;
use super::workspace::{ProfileArgs, Workspace};
use crate::diagnostic::{Code, Diagnostic};
use crate::exec::lock::{Holder, Lock};
use crate::providers::sim::World;

/// Show or empty the simulated world
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Empty the simulated world.
    Reset {
        #[command(flatten)]
        profile: ProfileArgs,
    },
    /// List what is in it.
    Show {
        /// How it is listed.
        #[arg(long, value_enum, default_value = "human")]
        format: Format,
        #[command(flatten)]
        profile: ProfileArgs,
    },
}

pub(super) fn run(args: &Args, terminal: &Terminal) -> Outcome {
    match &args.command {
        Command::Reset { profile } => reset(&Workspace::here(profile)?, terminal),
        Command::Show { format, profile } => show(&Workspace::here(profile)?, *format, terminal),
    }
}

fn reset(workspace: &Workspace, terminal: &Terminal) -> Outcome {
    let dir = workspace.state().join("world");
    if workspace.locks().exists() {
        let holder = Holder {
            run: "sim reset".to_owned(),
            pid: std::process::id(),
            command: "clawd sim reset".to_owned(),
            since: now(),
        };
        let _lock = Lock::acquire(&workspace.locks(), &workspace.profile.target, &holder)?;
        match fs::remove_dir_all(&dir) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                let message = format!("cannot empty {}: {error}", dir.display());
                return Err(Diagnostic::error(Code::StateUnwritable, message).into());
            }
            _ => {}
        }
    }
    terminal.note("The simulated world is empty.");
    Ok(Exit::Done)
}

fn show(workspace: &Workspace, format: Format, terminal: &Terminal) -> Outcome {
    let world = World::open(workspace.state().join("world")).map_err(|error| {
        let mut diagnostic = Diagnostic::error(Code::PlanRead, error.to_string());
        diagnostic.help = error.help;
        diagnostic
    })?;
    let rows = world.describe();
    let text = match format {
        Format::Json => {
            let rows: Vec<_> = rows
                .iter()
                .map(|(kind, id, detail)| serde_json::json!({ "kind": kind, "id": id, "detail": detail }))
                .collect();
            serde_json::to_string_pretty(&rows).expect("rows have a JSON form") + "\n"
        }
        Format::Human if rows.is_empty() => "The simulated world is empty.\n".to_owned(),
        Format::Human => {
            rows.iter().map(|(kind, id, detail)| format!("{kind:<9} {id}  {detail}\n")).collect()
        }
    };
    terminal.out(&text);
    Ok(Exit::Done)
}
