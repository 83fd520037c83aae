//! `clawd runs`: the history of runs, from their journals.

use std::fs;
use std::path::Path;

use serde::Serialize;

use super::Outcome;
use super::exit::Exit;
use super::terminal::Terminal;
use super::workspace::{ProfileArgs, Workspace};
use crate::diagnostic::{Code, Diagnostic, nearest};
use crate::exec::journal::{self, Record};
use crate::plan::render::printable;

/// List runs, the last one first
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// How they are listed.
    #[arg(long, value_enum, default_value = "human")]
    format: Format,
    #[command(flatten)]
    profile: ProfileArgs,
}

/// How records are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Format {
    /// For people.
    Human,
    /// For programs.
    Json,
}

/// One run as its journal tells it.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) id: String,
    pub(super) records: Vec<Record>,
    /// Why the journal cannot be read.
    pub(super) unreadable: Option<String>,
}

impl Run {
    /// `done`, `failed`, `refused`, `interrupted`, or `open` when the journal just ends.
    pub(super) fn status(&self) -> &str {
        let started = self.records.iter().rposition(|record| matches!(record, Record::RunStarted { .. }));
        let last = self.records[started.unwrap_or(0)..].iter().rev().find_map(|record| match record {
            Record::RunEnded { status, .. } => Some(status.as_str()),
            _ => None,
        });
        if self.unreadable.is_some() { "unreadable" } else { last.unwrap_or("open") }
    }

    /// Whether there is something to finish: a run that was refused before any effect has nothing.
    pub(super) fn is_open(&self) -> bool {
        let begun = || self.records.iter().any(|record| matches!(record, Record::Intent { .. }));
        match self.status() {
            "open" | "failed" | "interrupted" => true,
            "refused" => begun(),
            _ => false,
        }
    }

    pub(super) fn started(&self) -> Option<(&str, &str)> {
        self.records.iter().find_map(|record| match record {
            Record::RunStarted { at, command, .. } => Some((at.as_str(), command.as_str())),
            _ => None,
        })
    }
}

/// All runs of a profile, the oldest first.
#[derive(Debug)]
pub(super) struct History(Vec<Run>);

impl History {
    pub(super) fn read(dir: &Path) -> Result<Self, Diagnostic> {
        let unreadable = |error: &std::io::Error| {
            Diagnostic::error(
                Code::RunUnreadable,
                format!("cannot read the runs in {}: {error}", dir.display()),
            )
        };
        let entries = match fs::read_dir(dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Self(Vec::new())),
            Err(error) => return Err(unreadable(&error)),
        };
        let mut runs = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|error| unreadable(&error))?;
            let id = entry.file_name().to_string_lossy().into_owned();
            let (records, unreadable) = match journal::read(&entry.path()) {
                Ok(records) => (records, None),
                Err(error) => (Vec::new(), Some(error.to_string())),
            };
            runs.push(Run { id, records, unreadable });
        }
        // Ids begin with the time.
        runs.sort_by(|left, right| left.id.cmp(&right.id));
        Ok(Self(runs))
    }

    pub(super) fn find(&self, id: &str) -> Result<&Run, Diagnostic> {
        let run = self.0.iter().find(|run| run.id == id).ok_or_else(|| {
            let help = nearest(id, self.0.iter().map(|run| run.id.as_str())).map_or_else(
                || "`clawd runs` lists them".to_owned(),
                |near| format!("did you mean `{near}`?"),
            );
            Diagnostic::error(Code::RunUnreadable, format!("there is no run `{}`", printable(id))).help(help)
        })?;
        match &run.unreadable {
            Some(error) => Err(Diagnostic::error(Code::RunUnreadable, format!("the run {id}: {error}"))
                .help("run the plan again: it goes on from what is there, without the journal")),
            None => Ok(run),
        }
    }

    /// The last run, when it is not done. An older one is superseded: what came after it is what people want.
    pub(super) fn last_open(&self) -> Option<&Run> {
        self.0.last().filter(|run| run.is_open())
    }

    /// The run that was begun last.
    pub(super) fn last(&self) -> Option<&Run> {
        self.0.last()
    }
}

#[derive(Serialize)]
struct Line<'a> {
    run: &'a str,
    status: &'a str,
    started: &'a str,
    command: &'a str,
}

pub(super) fn run(args: &Args, terminal: &Terminal) -> Outcome {
    let workspace = Workspace::here(&args.profile)?;
    let history = History::read(&workspace.runs())?;
    let lines: Vec<Line<'_>> = history
        .0
        .iter()
        .rev()
        .map(|run| {
            let (started, command) = run.started().unwrap_or_default();
            Line { run: &run.id, status: run.status(), started, command }
        })
        .collect();
    let text = match args.format {
        Format::Json => serde_json::to_string_pretty(&lines).expect("runs have a JSON form") + "\n",
        Format::Human if lines.is_empty() => "No runs yet.\n".to_owned(),
        Format::Human => lines
            .iter()
            .map(|line| {
                format!("{}  {:<11} {}  {}\n", line.run, line.status, line.started, printable(line.command))
            })
            .collect(),
    };
    terminal.out(&text);
    Ok(Exit::Done)
}
