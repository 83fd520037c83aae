//! `clawd memory`: the directory of the shared memory, for agents and people. Contents come from stdin and go to stdout, so that no
//! quoting stands between an agent and a file.

mod remote;
mod told;

use std::io::Read as _;
use std::path::PathBuf;

use serde_json::{Value as Json, json};

use remote::store;
use told::{foretold, published, synced};

use super::Outcome;
use super::exit::Exit;
use super::signals::Signals;
use super::terminal::Terminal;
use super::workspace::runtime;
use crate::diagnostic::{Code, Diagnostic};
use crate::host::memory::{
    Expected, Memory, MemoryError, Report, Shrinking, Told, Wanted, Written, keep_in_step, unreachable,
};
use crate::memory::class::CONFLICTS;
use crate::memory::{Class, MemoryPath, Version};
use crate::plan::render::printable;
use crate::providers::ports::MemoryStore;
use crate::units::{NotADuration, Seconds};

/// Where a memory is by default: on the host's data volume.
const DIR: &str = "/var/lib/clawd/memory";

/// What may be written where a memory is published, to find out whether conditions are honoured there.
const PUBLISH_PROBE: &str = ".clawd-probe";

/// Read and write the memory that agents share, without losing a line of anybody
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
    /// The memory's directory.
    #[arg(long, global = true, value_name = "DIR", env = "CLAWD_MEMORY_DIR", default_value = DIR)]
    dir: PathBuf,
    /// Answer in JSON, errors too.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Make a directory a memory: write the file that tells a mounted memory from an empty directory
    Init {
        /// The host it is on, the owner of daily notes like 2026-11-26_HOST.md.
        #[arg(long, value_name = "NAME")]
        host: String,
        /// A canonical file besides architecture.md, goals.md and ops.md.
        #[arg(long, value_name = "FILE")]
        canonical: Vec<String>,
        /// What stays out of the memory, as in a .gitignore.
        #[arg(long, value_name = "GLOB")]
        ignore: Vec<String>,
        /// The shared memory that `sync` goes to, s3://BUCKET/PREFIX or file:///DIR.
        #[arg(long, value_name = "URL")]
        remote: Option<String>,
    },
    /// List the files with their versions, and what is no file of the memory
    Status,
    /// Print a file; with --json path, version and content
    Read {
        /// The file, relative to the memory.
        #[arg(value_name = "FILE")]
        path: String,
    },
    /// Write a whole file from stdin; without --if-version only where there is none
    Write {
        /// The file, relative to the memory.
        #[arg(value_name = "FILE")]
        path: String,
        #[command(flatten)]
        condition: Condition,
    },
    /// Put text from stdin at the end of a file
    Append {
        /// The file, relative to the memory.
        #[arg(value_name = "FILE")]
        path: String,
    },
    /// Replace the one place in a file where a text stands
    Edit {
        /// The file, relative to the memory.
        #[arg(value_name = "FILE")]
        path: String,
        /// The text that goes; it must be there exactly once.
        #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
        old: String,
        /// The text that comes in its place.
        #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
        new: String,
        #[command(flatten)]
        condition: Condition,
    },
    /// Remove a file
    Rm {
        /// The file, relative to the memory.
        #[arg(value_name = "FILE")]
        path: String,
        #[command(flatten)]
        condition: Condition,
    },
    /// One round with the shared memory: exit 0 when in step, 3 when an edit was put aside or refused; with --watch, one after the other
    Sync {
        /// The shared memory, s3://BUCKET/PREFIX or file:///DIR; the one of `init` when not given.
        #[arg(long, value_name = "URL")]
        remote: Option<String>,
        /// The host that this memory must be of.
        #[arg(long, value_name = "NAME")]
        host: Option<String>,
        /// Canonical files may lose much, and many files may go.
        #[arg(long)]
        allow_shrink: bool,
        /// Only tell what a round would do.
        #[arg(long, conflicts_with = "watch")]
        dry_run: bool,
        /// Go on until interrupted: a round whenever something changes here, and one every period.
        #[arg(long)]
        watch: bool,
        /// How long at most between two rounds, like 60s or 5m.
        #[arg(long, value_name = "TIME", default_value = "60s", requires = "watch", value_parser = period)]
        period: Seconds,
    },
    /// Copy a part of the memory to where anybody may read it; anything that looks like a secret refuses the whole
    Publish {
        /// A directory of the memory; all of it when not given.
        #[arg(value_name = "DIR")]
        below: Option<String>,
        /// Where to, s3://BUCKET/PREFIX or file:///DIR.
        #[arg(long, value_name = "URL")]
        to: String,
    },
    /// What was done here, oldest first
    Log {
        /// One file, relative to the memory.
        #[arg(value_name = "FILE")]
        path: Option<String>,
    },
}

/// A period between rounds: faster asks for nothing new, slower is not in step.
fn period(text: &str) -> Result<Seconds, String> {
    let period: Seconds = text.parse().map_err(|error: NotADuration| error.to_string())?;
    match period {
        Seconds(1..=86_400) => Ok(period),
        _ => Err("from 1s to 1d".to_owned()),
    }
}

/// What must hold for a write.
#[derive(Debug, clap::Args)]
struct Condition {
    /// The version that must be there, as `read --json` tells it.
    #[arg(long, value_name = "VERSION")]
    if_version: Option<String>,
    /// A canonical file may lose much, or all.
    #[arg(long)]
    allow_shrink: bool,
}

impl Condition {
    fn expected(&self, without: Expected) -> Result<Expected, Problem> {
        match &self.if_version {
            None => Ok(without),
            Some(text) => text.parse::<Version>().map(Expected::Version).map_err(|error| {
                let usage = Diagnostic::error(Code::Usage, error.to_string());
                Problem::Usage(usage.help("`clawd memory read FILE --json` tells a file's version"))
            }),
        }
    }

    fn shrinking(&self) -> Shrinking {
        if self.allow_shrink { Shrinking::Allowed } else { Shrinking::Refused }
    }
}

/// What ends a command early.
enum Problem {
    Memory(MemoryError),
    Usage(Diagnostic),
}

impl<E: Into<MemoryError>> From<E> for Problem {
    fn from(error: E) -> Self {
        Self::Memory(error.into())
    }
}

impl Problem {
    fn diagnostic(&self) -> Diagnostic {
        match self {
            Self::Memory(error) => error.into(),
            Self::Usage(diagnostic) => diagnostic.clone(),
        }
    }

    fn json(&self) -> Json {
        let diagnostic = self.diagnostic();
        let mut error = json!({ "code": diagnostic.code.as_str(), "message": diagnostic.message, "help": diagnostic.help });
        if let Self::Memory(MemoryError { current, diff, .. }) = self {
            error["current_version"] = json!(current);
            error["diff"] = json!(diff);
        }
        json!({ "error": error })
    }
}

/// What a command has to say, for people and for programs.
struct Said {
    text: Vec<u8>,
    json: Json,
    exit: Exit,
}

impl Said {
    fn new(text: impl Into<Vec<u8>>, json: Json) -> Self {
        Self { text: text.into(), json, exit: Exit::Done }
    }
}

pub(super) fn run(args: &Args, terminal: &Terminal) -> Outcome {
    match answer(args, terminal) {
        Ok(Said { json, exit, .. }) if args.json => {
            terminal.out(&format!("{json}\n"));
            Ok(exit)
        }
        Ok(Said { text, exit, .. }) => {
            terminal.out_bytes(&text);
            Ok(exit)
        }
        Err(problem) => {
            let diagnostic = problem.diagnostic();
            if args.json {
                terminal.out(&format!("{}\n", problem.json()));
                return Ok(Exit::of(diagnostic.code));
            }
            if let Problem::Memory(MemoryError { diff: Some(diff), .. }) = &problem {
                terminal.note(diff.lines().map(printable).collect::<Vec<_>>().join("\n").as_str());
            }
            Err(diagnostic.into())
        }
    }
}

fn answer(args: &Args, terminal: &Terminal) -> Result<Said, Problem> {
    let open = || Memory::open(&args.dir);
    match &args.command {
        Command::Init { host, canonical, ignore, remote } => {
            let (host, canonical, ignore) = (host.clone(), canonical.clone(), ignore.clone());
            init(args, Wanted { host, canonical, ignore, remote: remote.clone() })
        }
        Command::Status => Ok(status(&open()?)?),
        Command::Read { path } => read(&open()?, &path.parse::<MemoryPath>()?, args.json),
        Command::Write { path, condition } => {
            let (path, expected) = (path.parse::<MemoryPath>()?, condition.expected(Expected::None)?);
            let memory = open()?;
            Ok(written(&memory.write(&path, &input()?, &expected, condition.shrinking())?))
        }
        Command::Append { path } => {
            let path = path.parse::<MemoryPath>()?;
            let memory = open()?;
            Ok(written(&memory.append(&path, &input()?)?))
        }
        Command::Edit { path, old, new, condition } => {
            let (path, expected) = (path.parse::<MemoryPath>()?, condition.expected(Expected::Any)?);
            Ok(written(&open()?.edit(&path, old, new, &expected, condition.shrinking())?))
        }
        Command::Rm { path, condition } => {
            let (path, expected) = (path.parse::<MemoryPath>()?, condition.expected(Expected::Any)?);
            Ok(written(&open()?.remove(&path, &expected, condition.shrinking())?))
        }
        Command::Publish { below, to } => {
            let below = below.as_deref().map(str::parse::<MemoryPath>).transpose()?;
            let memory = open()?;
            let store = store(to, PUBLISH_PROBE)?;
            let publishing = memory.publish(below.as_ref(), &*store, to);
            Ok(published(&runtime().map_err(Problem::Usage)?.block_on(publishing)?))
        }
        Command::Sync { remote, host, allow_shrink, dry_run, watch, period } => {
            let shrinking = if *allow_shrink { Shrinking::Allowed } else { Shrinking::Refused };
            let memory = open()?;
            let remote = remote_of(&memory, remote.as_deref(), host.as_deref())?;
            let store = store(&remote, &format!("{CONFLICTS}/{}/.clawd-probe", memory.settings().host))?;
            let runtime = runtime().map_err(Problem::Usage)?;
            if *watch {
                drop(memory);
                runtime.block_on(watched(args, terminal, &*store, &remote, *period))?;
                return Ok(Said::new("", json!({ "stopped": true })));
            }
            match dry_run {
                true => Ok(foretold(&runtime.block_on(memory.preview(&*store, &remote))?)),
                false => Ok(synced(&runtime.block_on(memory.sync(&*store, &remote, shrinking))?)),
            }
        }
        Command::Log { path } => {
            let path = path.as_deref().map(str::parse::<MemoryPath>).transpose()?;
            Ok(log(&open()?, path.as_ref())?)
        }
    }
}

fn init(args: &Args, wanted: Wanted) -> Result<Said, Problem> {
    let versions = match &wanted.remote {
        // A name that means nothing is told now, not by the first round; so is a bucket that is not there.
        Some(remote) => {
            let store = store(remote, PUBLISH_PROBE)?;
            runtime()
                .map_err(Problem::Usage)?
                .block_on(store.keeps_versions())
                .map_err(|error| unreachable(&error))?
        }
        None => None,
    };
    let (memory, changed) = Memory::init(&args.dir, wanted)?;
    let host = &memory.settings().host;
    let did = if changed { "is a memory now" } else { "is a memory already" };
    let mut text = format!("{} {did}, of {host}\n", args.dir.display());
    if versions == Some(false) {
        text.push_str("The bucket keeps no versions: what is overwritten there is gone. Turn them on.\n");
    }
    Ok(Said::new(text, json!({ "dir": args.dir, "host": host, "changed": changed, "versions": versions })))
}

fn read(memory: &Memory, path: &MemoryPath, is_json: bool) -> Result<Said, Problem> {
    let file = memory.read(path)?;
    // Bytes go to stdout as they are; JSON has none.
    if !is_json {
        return Ok(Said::new(file.content, Json::Null));
    }
    let content = String::from_utf8(file.content).map_err(|_| {
        let usage = Diagnostic::error(Code::Usage, format!("{path} is no text, which JSON could hold"));
        Problem::Usage(usage.help("read it without `--json`"))
    })?;
    Ok(Said::new("", json!({ "path": path, "version": file.version, "content": content })))
}

fn written(Written { path, before, version }: &Written) -> Said {
    let text = match (before, version) {
        (_, Some(version)) if before.as_ref() == Some(version) => format!("{path} is as it was: {version}\n"),
        (_, Some(version)) => format!("{path} {version}\n"),
        (_, None) => format!("{path} is removed\n"),
    };
    Said::new(text, json!({ "path": path, "before": before, "version": version }))
}

fn status(memory: &Memory) -> Result<Said, MemoryError> {
    let (paths, skipped) = memory.list()?;
    let mut text = format!("Memory of {}: {} files\n", memory.settings().host, paths.len());
    let mut files = Vec::new();
    for path in &paths {
        // One that went meanwhile is no longer there to tell of.
        let Ok(file) = memory.read(path) else { continue };
        let class = match memory.class(path) {
            Class::Canonical => "canonical".to_owned(),
            Class::Own { host } => format!("notes of {host}"),
            Class::Other => "shared".to_owned(),
        };
        text.push_str(&format!("  {}  {path}  ({})\n", file.version.short(), printable(&class)));
        files.push(
            json!({ "path": path, "version": file.version, "class": class, "bytes": file.content.len() }),
        );
    }
    if !skipped.is_empty() {
        text.push_str("\nNot of the memory:\n");
    }
    for it in &skipped {
        text.push_str(&format!("  {}: {}\n", printable(&it.name), printable(&it.why)));
    }
    let skipped: Vec<Json> = skipped.iter().map(|it| json!({ "name": it.name, "why": it.why })).collect();
    let (settings, last) = (memory.settings(), memory.last());
    if let Some(last) = &last {
        let how = if last.in_step { "in step" } else { "not in step" };
        text.push_str(&format!(
            "\nThe last round, {} ago with {}, ended {how}.\n",
            last.age(),
            printable(&last.remote)
        ));
    }
    let conflicts = paths.iter().filter(|path| path.names().next() == Some(CONFLICTS)).count();
    let json = json!({
        "host": settings.host,
        "canonical": settings.canonical,
        "ignore": settings.ignore,
        "remote": settings.remote,
        "last": last,
        "conflicts": conflicts,
        "files": files,
        "skipped": skipped,
    });
    Ok(Said::new(text, json))
}

/// The shared memory of a round: the one that was named, else the one of `init`.
fn remote_of(memory: &Memory, remote: Option<&str>, host: Option<&str>) -> Result<String, Problem> {
    let usage =
        |message: String, help: &str| Problem::Usage(Diagnostic::error(Code::Usage, message).help(help));
    let settings = memory.settings();
    if let Some(host) = host.filter(|host| host != &settings.host) {
        let message = format!("this memory is of {}, not of `{}`", settings.host, printable(host));
        return Err(usage(message, "`clawd memory init --host` says whose it is"));
    }
    let remote = remote.map(str::to_owned).or_else(|| settings.remote.clone());
    remote.ok_or_else(|| {
        usage(
            "no shared memory is named".to_owned(),
            "name one with `--remote`, here or for `clawd memory init`",
        )
    })
}

/// Keeps the memory in step until the process is told to end. What is in step already is not told.
async fn watched(
    args: &Args,
    terminal: &Terminal,
    store: &dyn MemoryStore,
    remote: &str,
    period: Seconds,
) -> Result<(), Problem> {
    let mut signals = Signals::new().map_err(|error| {
        Problem::Usage(Diagnostic::error(Code::StateUnwritable, format!("no signal can be caught: {error}")))
    })?;
    let stop = async {
        signals.next().await;
    };
    let tell = |told| {
        let Said { text, json, .. } = match told {
            Told::Round(report)
                if report == (Report { skipped: report.skipped.clone(), ..Report::default() }) =>
            {
                return;
            }
            Told::Round(report) => synced(&report),
            Told::Failed(error, pause) => {
                let diagnostic: Diagnostic = (&error).into();
                let text = format!("{}: {}; the next try is in {:.0?}\n", diagnostic.code, error, pause);
                Said::new(text, Problem::Memory(error).json())
            }
            Told::Blind(error) => {
                let text =
                    format!("nobody tells what changes here ({error}); a round every {period} remains\n");
                Said::new(text, json!({ "blind": error.to_string() }))
            }
        };
        match args.json {
            true => terminal.out(&format!("{json}\n")),
            false => terminal.out_bytes(&text),
        }
    };
    keep_in_step(&args.dir, store, remote, period.duration(), stop, tell).await;
    Ok(())
}

fn log(memory: &Memory, path: Option<&MemoryPath>) -> Result<Said, MemoryError> {
    let entries = memory.log(path)?;
    let short = |version: &Option<Version>| version.as_ref().map_or("-", Version::short).to_owned();
    let text: String = entries
        .iter()
        .map(|entry| {
            let (before, after) = (short(&entry.before), short(&entry.version));
            format!("{}  {:6}  {before} -> {after}  {}\n", entry.at, entry.what, entry.path)
        })
        .collect();
    Ok(Said::new(text, json!(entries)))
}

fn input() -> Result<Vec<u8>, Problem> {
    let mut content = Vec::new();
    let read = std::io::stdin().lock().read_to_end(&mut content);
    read.map_err(|error| {
        Problem::Usage(Diagnostic::error(Code::Usage, format!("cannot read the content from stdin: {error}")))
    })?;
    Ok(content)
}
