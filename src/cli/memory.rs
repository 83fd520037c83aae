//! `clawd memory`: the directory of the shared memory, for agents and people. Contents come from stdin and go to stdout, so that no
//! quoting stands between an agent and a file.

use std::io::Read as _;
use std::path::PathBuf;

use serde_json::{Value as Json, json};

use super::Outcome;
use super::exit::Exit;
use super::terminal::Terminal;
use crate::diagnostic::{Code, Diagnostic};
use crate::host::memory::{Expected, Memory, MemoryError, Shrinking, Written};
use crate::memory::{Class, MemoryPath, Version};
use crate::plan::render::printable;

/// Where a memory is by default: on the host's data volume.
const DIR: &str = "/var/lib/clawd/memory";

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
    /// What was done here, oldest first
    Log {
        /// One file, relative to the memory.
        #[arg(value_name = "FILE")]
        path: Option<String>,
    },
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
}

pub(super) fn run(args: &Args, terminal: &Terminal) -> Outcome {
    match answer(args) {
        Ok(Said { json, .. }) if args.json => terminal.out(&format!("{json}\n")),
        Ok(Said { text, .. }) => terminal.out_bytes(&text),
        Err(problem) => {
            let diagnostic = problem.diagnostic();
            if args.json {
                terminal.out(&format!("{}\n", problem.json()));
                return Ok(Exit::of(diagnostic.code));
            }
            if let Problem::Memory(MemoryError { diff: Some(diff), .. }) = &problem {
                terminal.note(diff.lines().map(printable).collect::<Vec<_>>().join("\n").as_str());
            }
            return Err(diagnostic.into());
        }
    }
    Ok(Exit::Done)
}

fn answer(args: &Args) -> Result<Said, Problem> {
    let open = || Memory::open(&args.dir);
    match &args.command {
        Command::Init { host, canonical, ignore } => init(args, host, canonical, ignore),
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
        Command::Log { path } => {
            let path = path.as_deref().map(str::parse::<MemoryPath>).transpose()?;
            Ok(log(&open()?, path.as_ref())?)
        }
    }
}

fn init(args: &Args, host: &str, canonical: &[String], ignore: &[String]) -> Result<Said, Problem> {
    let (memory, changed) = Memory::init(&args.dir, host, canonical.to_vec(), ignore.to_vec())?;
    let host = &memory.settings().host;
    let did = if changed { "is a memory now" } else { "is a memory already" };
    Ok(Said {
        text: format!("{} {did}, of {host}\n", args.dir.display()).into_bytes(),
        json: json!({ "dir": args.dir, "host": host, "changed": changed }),
    })
}

fn read(memory: &Memory, path: &MemoryPath, is_json: bool) -> Result<Said, Problem> {
    let file = memory.read(path)?;
    // Bytes go to stdout as they are; JSON has none.
    if !is_json {
        return Ok(Said { text: file.content, json: Json::Null });
    }
    let content = String::from_utf8(file.content).map_err(|_| {
        let usage = Diagnostic::error(Code::Usage, format!("{path} is no text, which JSON could hold"));
        Problem::Usage(usage.help("read it without `--json`"))
    })?;
    Ok(Said { text: Vec::new(), json: json!({ "path": path, "version": file.version, "content": content }) })
}

fn written(Written { path, before, version }: &Written) -> Said {
    let text = match (before, version) {
        (_, Some(version)) if before.as_ref() == Some(version) => format!("{path} is as it was: {version}\n"),
        (_, Some(version)) => format!("{path} {version}\n"),
        (_, None) => format!("{path} is removed\n"),
    };
    Said { text: text.into_bytes(), json: json!({ "path": path, "before": before, "version": version }) }
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
    Ok(Said {
        text: text.into_bytes(),
        json: json!({ "host": memory.settings().host, "files": files, "skipped": skipped }),
    })
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
    Ok(Said { text: text.into_bytes(), json: json!(entries) })
}

fn input() -> Result<Vec<u8>, Problem> {
    let mut content = Vec::new();
    let read = std::io::stdin().lock().read_to_end(&mut content);
    read.map_err(|error| {
        Problem::Usage(Diagnostic::error(Code::Usage, format!("cannot read the content from stdin: {error}")))
    })?;
    Ok(content)
}
