//! `clawd bootstrap`: makes the bucket that the states of a profile's stacks and their locks lie in.

use super::Outcome;
use super::config::Adapters;
use super::exit::Exit;
use super::terminal::Terminal;
use super::workspace::{ProfileArgs, Workspace};

/// Make the bucket of a profile's states and their locks, or complete it
///
/// The bucket is private, versioned, encrypted, and refuses calls without TLS. What is there already and as it must be is not
/// written; what others set stays.
#[derive(Debug, clap::Args)]
#[cfg_attr(not(feature = "aws"), allow(dead_code))] // profiles that have a bucket are refused then
pub(super) struct Args {
    /// Show what would be done and stop.
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Exit with 2 when --dry-run shows something to do.
    #[arg(long, requires = "dry_run")]
    pub(super) detailed_exitcode: bool,
    /// Do it without asking.
    #[arg(long, short = 'y')]
    pub(super) yes: bool,
    #[command(flatten)]
    profile: ProfileArgs,
}

pub(super) fn run(args: &Args, terminal: &Terminal) -> Outcome {
    let workspace = Workspace::here(&args.profile)?;
    let why = match &workspace.profile.adapters {
        #[cfg(feature = "aws")]
        Adapters::Aws(aws) => return super::bucket::complete(args, &workspace, aws, terminal),
        #[cfg(not(feature = "aws"))]
        Adapters::Aws(_) => unreachable!("a profile with these adapters is refused when it is read"),
        Adapters::Sim(_) => "the simulator keeps the states of its stacks in its world",
        Adapters::Local => "its stacks keep their states in their directories",
    };
    terminal.out(&format!("The profile {} needs no bucket: {why}.\n", workspace.profile.target.profile));
    Ok(Exit::Done)
}
