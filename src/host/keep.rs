//! A memory directory kept in step on this host: made one on the mounted volume, synced once, watched from then on. All of it is done
//! by `clawd memory` as the owner of the mount, so that agents can write what a round wrote, and no link of theirs is followed as root.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::memory::Last;
use super::volume::{self, Programs, complaint};
use crate::providers::ports::{MemoryConfig, MemoryPending, MemoryStatus};
use crate::providers::{ErrorKind, ProviderError};

/// The service that the host's configuration declares: `clawd memory sync --watch` as the owner of the memory.
const SERVICE: &str = "clawd-memory.service";

/// How many names of a kind are told; the rest is counted.
const NAMES: usize = 20;

/// How long the names of a kind are together, in bytes: an answer is short.
const NAMES_LENGTH: usize = 1 << 10;

type Result<T> = std::result::Result<T, ProviderError>;

fn failed(message: impl Into<String>) -> ProviderError {
    ProviderError::permanent("host memory", message)
}

/// Runs `clawd memory` on this host.
#[derive(Debug)]
pub struct Keeper {
    /// clawd itself.
    pub clawd: PathBuf,
    /// The programs of the system.
    pub programs: Programs,
    /// What `clawd memory` may see besides: where AWS is, and as whom.
    pub variables: Vec<(String, OsString)>,
}

/// What `clawd memory status --json` says of a memory itself.
#[derive(Debug, Deserialize)]
struct Status {
    host: String,
    canonical: Vec<String>,
    ignore: Vec<String>,
    remote: Option<String>,
    last: Option<Last>,
    conflicts: u32,
    files: Vec<serde_json::Value>,
}

/// What `clawd memory init --json` says, as far as it is needed.
#[derive(Debug, Deserialize)]
struct Made {
    versions: Option<bool>,
}

/// What `clawd memory sync --json` says, as far as it is needed.
#[derive(Debug, Deserialize)]
struct Round {
    pushed: Vec<String>,
    pulled: Vec<String>,
    merged: Vec<String>,
    removed: Vec<String>,
    restored: Vec<String>,
    failed: Vec<Failed>,
}

/// A file that could not be synced.
#[derive(Debug, Deserialize)]
struct Failed {
    path: String,
    why: String,
}

/// What a failing `clawd memory --json` says.
#[derive(Debug, Deserialize)]
struct Complaint {
    error: Told,
}

#[derive(Debug, Deserialize)]
struct Told {
    code: String,
    message: String,
    help: Option<String>,
}

impl Keeper {
    /// Makes a directory a memory and keeps it in step: one round now, and a service from then on where it is to be watched.
    ///
    /// # Errors
    /// The directory is on no mounted volume; the round failed; the host has no such service.
    pub fn keep(&self, config: &MemoryConfig) -> Result<MemoryStatus> {
        let owner = owner(config)?;
        // What was set here and is none of the plan's stays.
        let before = self.ask::<Status>(&config.dir, owner, &["status"])?.or_none("memory.none")?;
        let mut init = vec!["init", "--host", &config.host, "--remote", &config.remote];
        for name in &config.canonical {
            init.extend(["--canonical", name]);
        }
        for glob in before.iter().flat_map(|status| &status.ignore) {
            init.extend(["--ignore", glob]);
        }
        let made: Made = self.memory(&config.dir, owner, &init)?;
        // A watcher may be in the middle of a long round, under other settings.
        self.service("stop", false)?;
        let round = self.memory::<Round>(&config.dir, owner, &["sync"]);
        // It watches also where the first round failed: the next one tries again.
        if config.watch {
            self.service("start", true)?;
        }
        // What waits for a person is told by the status; what failed was not shared.
        if let Some(first) = round?.failed.first() {
            let message = format!("not all of {} was synced: {}: {}", config.dir, first.path, first.why);
            return Err(failed(message).help("`clawd memory sync` on the host names all that failed"));
        }
        let status = self.status(&config.dir)?;
        let status = status.ok_or_else(|| failed(format!("{} is no memory any more", config.dir)))?;
        Ok(MemoryStatus { versions: made.versions, ..status })
    }

    /// How a memory stands; `None` when the directory is none.
    ///
    /// # Errors
    /// It is one, and cannot be read.
    pub fn status(&self, dir: &str) -> Result<Option<MemoryStatus>> {
        if fs::symlink_metadata(dir).is_err() {
            return Ok(None);
        }
        let mount = volume::mount_above(dir)?;
        // On the host's own disk it is none that a plan keeps.
        if mount == "/" {
            return Ok(None);
        }
        let owner = owner_of(&mount)?;
        let Some(status) = self.ask::<Status>(dir, owner, &["status"])?.or_none("memory.none")? else {
            return Ok(None);
        };
        let Status { host, canonical, ignore: _, remote, last, conflicts, files } = status;
        let pending = match &remote {
            // A shared memory that cannot be reached now is no reason not to tell how things stand here.
            Some(_) => self.ask::<Round>(dir, owner, &["sync", "--dry-run"])?.or_none("").unwrap_or(None),
            None => None,
        };
        let config = MemoryConfig {
            dir: dir.to_owned(),
            mount,
            remote: remote.unwrap_or_default(),
            host,
            canonical,
            watch: self.is_active(),
        };
        let last = last.filter(|last| last.remote == config.remote);
        Ok(Some(MemoryStatus {
            in_step: last.as_ref().is_some_and(|last| last.in_step),
            age: last.map(|last| last.age()),
            versions: None,
            conflicts,
            files: u32::try_from(files.len()).unwrap_or(u32::MAX),
            pending: pending.map(|round| MemoryPending {
                push: names(&round.pushed, &round.restored),
                pull: names(&round.pulled, &[]),
                merge: names(&round.merged, &[]),
                remove: names(&round.removed, &[]),
            }),
            config,
        }))
    }

    /// Starts or stops the service. Where it is not to run, a host without it is as good.
    fn service(&self, what: &str, must: bool) -> Result<()> {
        let help = format!(
            "the host's NixOS configuration declares {SERVICE}; where there is none, say `watch: false`"
        );
        match self.programs.output("systemctl", &[what, SERVICE]) {
            Ok(said) if said.status.success() => Ok(()),
            _ if !must => Ok(()),
            Ok(said) => Err(failed(format!("systemctl {what} {SERVICE}: {}", complaint(&said))).help(help)),
            Err(error) => Err(error.help(help)),
        }
    }

    fn is_active(&self) -> bool {
        let said = self.programs.output("systemctl", &["is-active", "--quiet", SERVICE]);
        said.is_ok_and(|said| said.status.success())
    }

    fn memory<T: DeserializeOwned>(&self, dir: &str, owner: (u32, u32), args: &[&str]) -> Result<T> {
        match self.ask(dir, owner, args)? {
            Said::Done(done) => Ok(done),
            Said::Failed(told) => Err(told.into()),
        }
    }

    /// Asks `clawd memory --json` as the owner of the memory.
    fn ask<T: DeserializeOwned>(
        &self,
        dir: &str,
        (user, group): (u32, u32),
        args: &[&str],
    ) -> Result<Said<T>> {
        let mut command = Command::new(&self.clawd);
        command.args(["memory", "--json", "--dir", dir]).args(args).current_dir("/").stdin(Stdio::null());
        // Whoever it runs as can read its environment.
        command.env_clear().env("PATH", &self.programs.path).envs(self.variables.iter().cloned());
        if rustix::process::geteuid().is_root() {
            command.uid(user).gid(group);
        }
        let said = command.output().map_err(|error| failed(format!("clawd cannot be started: {error}")))?;
        let line = String::from_utf8_lossy(&said.stdout);
        let broken = || {
            failed(format!(
                "`clawd memory {}` said: {}",
                args[0],
                String::from_utf8_lossy(&said.stderr).trim()
            ))
        };
        match serde_json::from_str::<Complaint>(&line) {
            Ok(complaint) => Ok(Said::Failed(complaint.error)),
            Err(_) => serde_json::from_str(&line).map(Said::Done).map_err(|_| broken()),
        }
    }
}

/// What `clawd memory` said.
enum Said<T> {
    Done(T),
    Failed(Told),
}

impl<T> Said<T> {
    /// What was done; nothing where it failed with this code.
    fn or_none(self, code: &str) -> Result<Option<T>> {
        match self {
            Self::Done(done) => Ok(Some(done)),
            Self::Failed(told) if told.code == code => Ok(None),
            Self::Failed(told) => Err(told.into()),
        }
    }
}

impl From<Told> for ProviderError {
    fn from(told: Told) -> Self {
        let kind = match told.code.as_str() {
            "memory.guarded" | "memory.moved" => ErrorKind::Refused,
            "memory.locked" | "memory.remote" => ErrorKind::Transient,
            _ => ErrorKind::Permanent,
        };
        let error = Self::new(kind, "host memory", told.message);
        match told.help {
            Some(help) => error.help(help),
            None => error,
        }
    }
}

/// Whose the memory is: whose the mount is. A directory that is on no mounted volume is refused.
fn owner(config: &MemoryConfig) -> Result<(u32, u32)> {
    let MemoryConfig { dir, mount, .. } = config;
    let below = Path::new(dir).strip_prefix(mount).is_ok_and(|rest| rest.components().next().is_some());
    if !below || volume::mount_above(dir)? != *mount {
        let message = format!("{dir} does not lie on the volume that is mounted at {mount}");
        return Err(ProviderError::refused("host memory", message)
            .help("an unmounted directory must not read as \"everything deleted\": mount the volume first"));
    }
    owner_of(mount)
}

fn owner_of(mount: &str) -> Result<(u32, u32)> {
    let is = fs::metadata(mount).map_err(|error| failed(format!("cannot look at {mount}: {error}")))?;
    Ok((is.uid(), is.gid()))
}

/// The first names of two lists, and how many more there are.
fn names(first: &[String], second: &[String]) -> Vec<String> {
    let all = first.len() + second.len();
    let mut room = NAMES_LENGTH;
    let fits = |name: &&String| {
        room = room.saturating_sub(name.len());
        room > 0
    };
    let mut told: Vec<String> = first.iter().chain(second).take(NAMES).take_while(fits).cloned().collect();
    if all > told.len() {
        told.push(format!("{} more", all - told.len()));
    }
    told
}
