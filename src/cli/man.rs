//! Shell completions and man pages, generated from the same definitions as the command line itself.

use clap::CommandFactory as _;

use super::exit::Exit;
use super::terminal::Terminal;
use super::{Cli, Outcome};
use crate::diagnostic::{Code, Diagnostic};

/// Print completions for a shell
#[derive(Debug, clap::Args)]
pub(super) struct CompletionsArgs {
    /// The shell.
    shell: clap_complete::Shell,
}

/// Print the man page of clawd, or of one of its commands
#[derive(Debug, clap::Args)]
pub(super) struct ManArgs {
    /// The command.
    command: Option<String>,
}

pub(super) fn completions(args: &CompletionsArgs, terminal: &Terminal) -> Outcome {
    let mut buffer = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "clawd", &mut buffer);
    terminal.out(&String::from_utf8_lossy(&buffer));
    Ok(Exit::Done)
}

pub(super) fn man(args: &ManArgs, terminal: &Terminal) -> Outcome {
    let mut root = Cli::command();
    root.build();
    let command = match &args.command {
        None => root,
        Some(name) => root.find_subcommand(name).cloned().ok_or_else(|| {
            Diagnostic::error(Code::Usage, format!("there is no command `{}`", name.escape_debug()))
        })?,
    };
    let mut buffer = Vec::new();
    clap_mangen::Man::new(command).render(&mut buffer).map_err(|error| {
        Diagnostic::error(Code::StateUnwritable, format!("the page cannot be written: {error}"))
    })?;
    terminal.out(&String::from_utf8_lossy(&buffer));
    Ok(Exit::Done)
}
