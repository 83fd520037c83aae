//! `clawd host`: what runs on an instance, called with a spec in a file and answered in one line of JSON. Whoever calls is a program:
//! the hosts port here, SSM, or systemd.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Outcome;
use super::exit::Exit;
use super::terminal::Terminal;
use crate::diagnostic::{Code, Diagnostic};
use crate::host::answers::{self, Answers};
use crate::host::keep::Keeper;
use crate::host::volume::{Disks, Programs};
use crate::providers::ports::{
    HOST_FORMAT, HOST_REPLY_LIMIT, HOST_SPEC_LIMIT, HostError, HostOutcome, HostReply, HostSpec,
    MemoryConfig, MemoryRequest, MemoryStatus, MountReport, MountRequest, MountedRequest, UnmountRequest,
};
use crate::providers::{ErrorKind, ProviderError};

/// How long a message or its help may be in an answer, in bytes: as JSON, a character may take six times its length.
const MESSAGE_LIMIT: usize = HOST_REPLY_LIMIT / 16;

/// What runs on a host: mounts its volume, keeps its memory
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
    /// Take disk images in this directory, as loop devices, for the disks of the host: a rehearsal.
    #[arg(long, global = true, value_name = "DIR")]
    images: Option<PathBuf>,
    /// Where answers are kept until the next boot.
    #[arg(long, global = true, value_name = "DIR", default_value = answers::DIR)]
    run: PathBuf,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Mount a volume; make a file system first where the spec allows it and the disk is blank
    Mount(SpecArgs),
    /// Unmount a volume, never by force
    Unmount(SpecArgs),
    /// Tell what is mounted at a path
    Mounted(SpecArgs),
    /// Make a directory on a mounted volume a memory, sync it, and keep it in step
    Memory(SpecArgs),
    /// Tell how a memory stands
    MemoryStatus(SpecArgs),
}

#[derive(Debug, clap::Args)]
struct SpecArgs {
    /// What is asked, as JSON.
    #[arg(long, value_name = "FILE")]
    spec: PathBuf,
}

pub(super) fn run(args: &Args, terminal: &Terminal) -> Outcome {
    let programs = Programs { path: std::env::var("PATH").unwrap_or_default() };
    let disks = Disks { images: args.images.clone(), programs: programs.clone() };
    match &args.command {
        Command::Mount(spec) => answer(spec, terminal, |spec: &HostSpec<MountRequest>| {
            once(
                &args.run,
                spec,
                |kept: &MountReport| disks.mounted(&kept.path).ok().flatten().as_ref() == Some(kept),
                || disks.mount(&spec.request),
            )
        }),
        Command::Unmount(spec) => answer(spec, terminal, |spec: &HostSpec<UnmountRequest>| {
            let is_so = |_: &()| disks.mounted(&spec.request.path) == Ok(None);
            once(&args.run, spec, is_so, || disks.unmount(&spec.request))
        }),
        Command::Mounted(spec) => {
            answer(spec, terminal, |spec: &HostSpec<MountedRequest>| disks.mounted(&spec.request.path))
        }
        Command::Memory(spec) => {
            let keeper = keeper(programs)?;
            // A round is never answered from what was: it is one more round.
            answer(spec, terminal, |spec: &HostSpec<MemoryConfig>| {
                once(&args.run, spec, |_: &MemoryStatus| false, || keeper.keep(&spec.request))
            })
        }
        Command::MemoryStatus(spec) => {
            let keeper = keeper(programs)?;
            answer(spec, terminal, |spec: &HostSpec<MemoryRequest>| keeper.status(&spec.request.dir))
        }
    }
}

/// Whoever runs `clawd memory`: this very program.
fn keeper(programs: Programs) -> Result<Keeper, Diagnostic> {
    let clawd = std::env::current_exe();
    let variables = std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value)));
    let variables = variables.filter(|(name, _)| name.starts_with("AWS_")).collect();
    clawd.map(|clawd| Keeper { clawd, programs, variables }).map_err(|error| {
        Diagnostic::error(Code::StateUnwritable, format!("clawd does not know where it lies: {error}"))
    })
}

/// Does something once under its token: a repeat is answered with what was done, if that `still` holds.
fn once<R: Serialize, T: Serialize + DeserializeOwned>(
    dir: &Path,
    spec: &HostSpec<R>,
    still: impl FnOnce(&T) -> bool,
    work: impl FnOnce() -> Result<T, ProviderError>,
) -> Result<T, ProviderError> {
    let token = spec.token.as_deref().ok_or_else(|| {
        ProviderError::permanent("host", "the spec has no token").help("what changes a host carries one")
    })?;
    let answers = Answers::open(dir)?;
    if let Some(kept) = answers.get::<T>(token, &spec.request)?
        && still(&kept)
    {
        return Ok(kept);
    }
    let done = work()?;
    answers.put(token, &spec.request, &done)?;
    Ok(done)
}

/// Reads a spec, does what it asks, and answers in one line.
fn answer<R: DeserializeOwned, T: Serialize>(
    args: &SpecArgs,
    terminal: &Terminal,
    work: impl FnOnce(&HostSpec<R>) -> Result<T, ProviderError>,
) -> Outcome {
    let spec = read(&args.spec)?;
    let outcome = work(&spec);
    let refused = outcome
        .as_ref()
        .err()
        .map(|error| matches!(error.kind, ErrorKind::Refused | ErrorKind::Moved | ErrorKind::Locked));
    let outcome = match outcome {
        Ok(done) => HostOutcome::Ok(done),
        Err(error) => HostOutcome::Error(short(error.into())),
    };
    // What is no token is told in the message, and not given back.
    let token = spec.token.filter(|token| answers::is_token(token));
    let reply = HostReply { version: HOST_FORMAT, token, outcome };
    terminal.out(&format!("{}\n", serde_json::to_string(&reply).unwrap_or_default()));
    Ok(match refused {
        None => Exit::Done,
        Some(true) => Exit::Refused,
        Some(false) => Exit::Failed,
    })
}

fn short(mut error: HostError) -> HostError {
    let cut = |text: &mut String| {
        if text.len() > MESSAGE_LIMIT {
            text.truncate(text.floor_char_boundary(MESSAGE_LIMIT));
            text.push_str(" ...");
        }
    };
    cut(&mut error.message);
    error.help.iter_mut().for_each(cut);
    error
}

fn read<R: DeserializeOwned>(path: &Path) -> Result<HostSpec<R>, Diagnostic> {
    let wrong = |message: String, help: &str| {
        Diagnostic::error(Code::HostSpec, format!("{}: {message}", path.display())).help(help.to_owned())
    };
    let mut text = Vec::new();
    let limit = HOST_SPEC_LIMIT as u64;
    File::open(path)
        .and_then(|file| file.take(limit + 1).read_to_end(&mut text))
        .map_err(|error| wrong(error.to_string(), "name a file that holds what is asked, as JSON"))?;
    if text.len() > HOST_SPEC_LIMIT {
        return Err(wrong(
            format!("it is longer than {limit} bytes"),
            "a spec names things; it carries none",
        ));
    }
    // The version first: a spec of another one may have another form.
    let version = serde_json::from_slice::<serde_json::Value>(&text)
        .map_err(|error| wrong(format!("it is no JSON: {error}"), "the hosts port writes it"))?
        .get("version")
        .and_then(serde_json::Value::as_u64);
    if version != Some(HOST_FORMAT.into()) {
        let found = version.map_or_else(|| "no version".to_owned(), |version| format!("version {version}"));
        return Err(wrong(
            format!("it has {found}, this clawd reads version {HOST_FORMAT}"),
            "give the host the clawd of whoever asks",
        ));
    }
    serde_json::from_slice(&text).map_err(|error| {
        wrong(format!("it asks for nothing that is known: {error}"), "the hosts port writes it")
    })
}
