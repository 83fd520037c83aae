//! A memory directory on this machine: reading and writing its files so that no line of anybody is lost.
//!
//! Every write holds the memory's lock, looks at the file again, keeps what was there as a blob, and puts the new content in
//! place at once by a rename: a writer that dies leaves the old content or the new one, and one who comes too late is told what
//! is there now. Files are opened beneath the directory without following links. The lock, the blobs and the notes of what was
//! removed lie in a directory of their own beside the memory, so nothing of them is taken for a part of it.

mod dir;
mod error;
mod index;
mod publish;
mod report;
mod round;
mod settle;
mod state;
mod watch;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::memory::class::CONFLICTS;
use crate::memory::{Class, GlobError, MemoryPath, Rules, Tombstone, Version, shrinks};

pub use dir::Skipped;
use dir::{Found, Root};
pub use error::{ErrorKind, MemoryError};
pub use publish::Published;
pub use report::{Aside, Report};
pub use round::unreachable;
use state::State;
pub use state::{Entry, Last};
pub use watch::{Told, Watch, keep_in_step};

/// The file that says that a directory is a memory, and how it is one. While the directory is not mounted it is not there, and
/// an empty directory is then not taken for one in which everything was deleted.
pub const SENTINEL: &str = ".clawd-memory.json";

const FORMAT: u32 = 1;

/// What a memory is, as its sentinel says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The version of this form.
    format: u32,
    /// The memory's name, drawn when it was made.
    id: String,
    /// The host it is on: whose daily notes are this memory's own.
    pub host: String,
    /// Canonical files besides those of every memory.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub canonical: Vec<String>,
    /// Globs of what stays out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ignore: Vec<String>,
    /// The shared memory that it is kept in step with, where a round is not told another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote: Option<String>,
}

/// What a memory is to be.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Wanted {
    /// The host it is on.
    pub host: String,
    /// Canonical files besides those of every memory.
    pub canonical: Vec<String>,
    /// Globs of what stays out.
    pub ignore: Vec<String>,
    /// The shared memory that it is kept in step with.
    pub remote: Option<String>,
}

impl Settings {
    fn rules(&self) -> Result<Rules, GlobError> {
        Rules::new(&self.host, self.canonical.iter().cloned(), self.ignore.iter().cloned())
    }
}

/// A file with its version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Its path.
    pub path: MemoryPath,
    /// Its content.
    pub content: Vec<u8>,
    /// Its version.
    pub version: Version,
}

/// What a write did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// The file.
    pub path: MemoryPath,
    /// The version before; `None` when there was no file.
    pub before: Option<Version>,
    /// The version now; `None` when there is no file any more.
    pub version: Option<Version>,
}

/// What a writer knows of the file it writes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expected {
    /// There is none.
    None,
    /// It has this version.
    Version(Version),
    /// Whatever is there: the change is made of that.
    Any,
}

/// Whether a canonical file may lose much.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shrinking {
    /// It is refused.
    Refused,
    /// It is meant.
    Allowed,
}

/// A memory directory.
#[derive(Debug)]
pub struct Memory {
    root: Root,
    state: State,
    settings: Settings,
    rules: Rules,
}

/// Where the lock, blobs and notes of a memory are: beside it, on the same disk.
#[must_use]
pub fn state_of(dir: &Path) -> PathBuf {
    let mut name = dir.file_name().unwrap_or_default().to_owned();
    name.push(".clawd");
    dir.with_file_name(name)
}

impl Memory {
    /// Makes a directory a memory, or tells that it is one already: the same settings again change nothing, others replace those
    /// that are there.
    ///
    /// # Errors
    /// The directory cannot be made or written; a glob means nothing; the host has no name.
    pub fn init(dir: &Path, wanted: Wanted) -> Result<(Self, bool), MemoryError> {
        let Wanted { host, canonical, ignore, remote } = wanted;
        check_host(&host)?;
        for name in &canonical {
            name.parse::<MemoryPath>().map_err(|error| MemoryError::path(&error))?;
        }
        std::fs::create_dir_all(dir).map_err(|error| MemoryError::io("make the directory", dir, &error))?;
        let root = Root::open(dir)?;
        let state = State::open(&state_of(dir))?;
        let _lock = state.lock()?;
        let before = read_settings(&root, dir)?;
        let id = match &before {
            Some(settings) => settings.id.clone(),
            None => format!("{:016x}{:016x}", fastrand::u64(..), fastrand::u64(..)),
        };
        let settings = Settings { format: FORMAT, id, host, canonical, ignore, remote };
        let rules = settings.rules().map_err(|error| {
            MemoryError::usage(error.to_string())
                .help("write it as in a .gitignore, like `*.swp` or `cache/**`")
        })?;
        let changed = before.as_ref() != Some(&settings);
        if changed {
            let mut text = serde_json::to_vec_pretty(&settings).unwrap_or_default();
            text.push(b'\n');
            root.put_sentinel(SENTINEL, &text)?;
        }
        Ok((Self { root, state, settings, rules }, changed))
    }

    /// Opens a memory.
    ///
    /// # Errors
    /// The directory is none, because it is not there, not mounted, or was never made one.
    pub fn open(dir: &Path) -> Result<Self, MemoryError> {
        let root = Root::open(dir)?;
        let settings = read_settings(&root, dir)?.ok_or_else(|| MemoryError::no_memory(dir))?;
        let rules = settings.rules().map_err(|error| {
            MemoryError::new(ErrorKind::NoMemory, format!("{}: {error}", dir.join(SENTINEL).display()))
        })?;
        let state = State::open(&state_of(dir))?;
        Ok(Self { root, state, settings, rules })
    }

    /// What it is.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// How the last round ended, where there was one.
    #[must_use]
    pub fn last(&self) -> Option<Last> {
        self.state.last()
    }

    /// What a file of it is.
    #[must_use]
    pub fn class(&self, path: &MemoryPath) -> Class {
        self.rules.class(path)
    }

    /// Its files, sorted, and what in the directory is no file of a memory.
    ///
    /// # Errors
    /// A directory in it cannot be read.
    pub fn list(&self) -> Result<(Vec<MemoryPath>, Vec<Skipped>), MemoryError> {
        let (mut files, skipped) = self.root.list()?;
        files.retain(|path| !self.rules.ignores(path));
        Ok((files, skipped))
    }

    /// Reads a file.
    ///
    /// # Errors
    /// There is none, which is no empty file; it is a link or a device; it cannot be read.
    pub fn read(&self, path: &MemoryPath) -> Result<File, MemoryError> {
        let found = self.root.read(path)?.ok_or_else(|| self.missing(path))?;
        Ok(File { path: path.clone(), version: found.version(), content: found.content })
    }

    /// Writes a whole file.
    ///
    /// # Errors
    /// Another version than the expected is there; the file would lose what it must not; it cannot be written.
    pub fn write(
        &self,
        path: &MemoryPath,
        content: &[u8],
        expected: &Expected,
        shrinking: Shrinking,
    ) -> Result<Written, MemoryError> {
        self.change("write", path, expected, shrinking, |_| Ok(content.to_vec()))
    }

    /// Puts text after the end of a file, which is made where there is none. A last line without an end gets one first, so that
    /// two lines never become one.
    ///
    /// # Errors
    /// The file cannot be read or written.
    pub fn append(&self, path: &MemoryPath, content: &[u8]) -> Result<Written, MemoryError> {
        self.change("append", path, &Expected::Any, Shrinking::Refused, |before| {
            let mut whole = before.map_or_else(Vec::new, |found| found.content.clone());
            if !whole.is_empty() && !whole.ends_with(b"\n") && !content.is_empty() {
                whole.push(b'\n');
            }
            whole.extend_from_slice(content);
            Ok(whole)
        })
    }

    /// Replaces the one place in a file where `old` stands.
    ///
    /// # Errors
    /// `old` stands nowhere or more than once; there is no file; as for `write`.
    pub fn edit(
        &self,
        path: &MemoryPath,
        old: &str,
        new: &str,
        expected: &Expected,
        shrinking: Shrinking,
    ) -> Result<Written, MemoryError> {
        if old.is_empty() {
            return Err(MemoryError::usage(
                "the text to replace is empty; it would stand everywhere".to_owned(),
            )
            .help("use `append` to put text at the end, or `write` for a whole file"));
        }
        self.change("edit", path, expected, shrinking, |before| {
            let before = before.ok_or_else(|| self.missing(path))?;
            let (old, new) = (old.as_bytes(), new.as_bytes());
            // Places may overlap, and then it is not clear which is meant.
            let mut places = (0..before.content.len()).filter(|at| before.content[*at..].starts_with(old));
            let Some(at) = places.next() else { return Err(self.no_match(path, before, 0)) };
            let more = places.count();
            if more > 0 {
                return Err(self.no_match(path, before, more + 1));
            }
            let (head, tail) = (&before.content[..at], &before.content[at + old.len()..]);
            Ok([head, new, tail].concat())
        })
    }

    /// Removes a file, on purpose: the next round removes it from the shared memory, too.
    ///
    /// # Errors
    /// There is none; another version than the expected is there; a canonical file would be lost.
    pub fn remove(
        &self,
        path: &MemoryPath,
        expected: &Expected,
        shrinking: Shrinking,
    ) -> Result<Written, MemoryError> {
        let _lock = self.state.lock()?;
        let before = self.root.read(path)?.ok_or_else(|| self.missing(path))?;
        self.check(path, Some(&before), expected)?;
        self.guard(path, Some(&before), b"", shrinking)?;
        if let Class::Own { host } = self.class(path)
            && host != self.settings.host
            && path.names().next() != Some(CONFLICTS)
        {
            return Err(MemoryError::new(ErrorKind::Guarded, format!("{path} is a note of {host}'s"))
                .current(Some(before.version()), None)
                .help("only that host writes and removes its daily notes"));
        }
        let version = before.version();
        self.state.keep(&before.content)?;
        // First the note and then the removal: a file that goes without a note would come back.
        self.state.note_removal(path, &version)?;
        if let Err(error) = self.root.remove(path, &version) {
            // It is not removed, so nothing may say so later.
            let _ = self.state.forget_removal(path);
            return Err(error);
        }
        let written = Written { path: path.clone(), before: Some(version), version: None };
        self.state.log("rm", &written)?;
        Ok(written)
    }

    /// What was done to the memory on this machine, oldest first; of one file when a path is given.
    ///
    /// # Errors
    /// The log cannot be read.
    pub fn log(&self, path: Option<&MemoryPath>) -> Result<Vec<Entry>, MemoryError> {
        let mut entries = self.state.entries()?;
        entries.retain(|entry| path.is_none_or(|path| entry.path == *path));
        Ok(entries)
    }

    fn change(
        &self,
        what: &str,
        path: &MemoryPath,
        expected: &Expected,
        shrinking: Shrinking,
        make: impl FnOnce(Option<&Found>) -> Result<Vec<u8>, MemoryError>,
    ) -> Result<Written, MemoryError> {
        let _lock = self.state.lock()?;
        let before = self.root.read(path)?;
        self.check(path, before.as_ref(), expected)?;
        let content = make(before.as_ref())?;
        if Tombstone::read(&content).is_some() {
            return Err(MemoryError::usage(format!(
                "{path}: this content marks a removed file in the shared memory"
            ))
            .help("remove a file with `clawd memory rm`"));
        }
        self.guard(path, before.as_ref(), &content, shrinking)?;
        let version = Version::of(&content);
        let was = before.as_ref().map(Found::version);
        let written = Written { path: path.clone(), before: was.clone(), version: Some(version.clone()) };
        if was.as_ref() == Some(&version) {
            return Ok(written);
        }
        if let Some(before) = &before {
            self.state.keep(&before.content)?;
        }
        self.root.put(path, &content, was.as_ref(), before.as_ref().map(|found| found.mode))?;
        self.state.forget_removal(path)?;
        self.state.log(what, &written)?;
        Ok(written)
    }

    /// Holds what is there against what the writer knows.
    fn check(
        &self,
        path: &MemoryPath,
        before: Option<&Found>,
        expected: &Expected,
    ) -> Result<(), MemoryError> {
        let current = before.map(Found::version);
        match (expected, before) {
            (Expected::Any, _) | (Expected::None, None) => Ok(()),
            (Expected::None, Some(found)) => Err(MemoryError::new(
                ErrorKind::Moved,
                format!("{path} is there already, in version {}", found.version()),
            )
            .current(current, None)
            .help("read it, and name its version with `--if-version`; without one, `write` only creates")),
            (Expected::Version(_), None) => {
                Err(MemoryError::new(ErrorKind::Moved, format!("{path} is gone"))
                    .current(None, None)
                    .help("without `--if-version` it is created"))
            }
            (Expected::Version(wanted), Some(found)) if *wanted == found.version() => Ok(()),
            (Expected::Version(wanted), Some(found)) => {
                let diff = self.state.blob(wanted)?.map(|then| difference(path, &then, &found.content));
                Err(MemoryError::new(
                    ErrorKind::Moved,
                    format!("{path} is no longer {}: it is {} now", wanted.short(), found.version()),
                )
                .current(current, diff)
                .help("read it again, make the change in what is there now, and name its version"))
            }
        }
    }

    fn guard(
        &self,
        path: &MemoryPath,
        before: Option<&Found>,
        after: &[u8],
        shrinking: Shrinking,
    ) -> Result<(), MemoryError> {
        let Some(before) = before.filter(|_| shrinking == Shrinking::Refused) else { return Ok(()) };
        shrinks(&self.class(path), &before.content, after).map_err(|refused| {
            MemoryError::new(ErrorKind::Guarded, format!("{path} is canonical: {refused}"))
                .current(Some(before.version()), Some(difference(path, &before.content, after)))
                .help("if it is meant, say `--allow-shrink`")
        })
    }

    fn missing(&self, path: &MemoryPath) -> MemoryError {
        let error = MemoryError::new(ErrorKind::Missing, format!("there is no {path} in the memory"));
        let Ok((files, _)) = self.list() else { return error };
        match crate::diagnostic::nearest(path.as_str(), files.iter().map(MemoryPath::as_str)) {
            Some(near) => error.help(format!("did you mean `{near}`?")),
            None => error.help("`write` and `append` create it"),
        }
    }

    fn no_match(&self, path: &MemoryPath, found: &Found, times: usize) -> MemoryError {
        let message = match times {
            0 => format!("{path} does not hold the text to replace"),
            times => format!("{path} holds the text to replace {times} times"),
        };
        let help = match times {
            0 => "read it again; somebody may have changed it",
            _ => "give more of the text around the place that is meant",
        };
        MemoryError::new(ErrorKind::NoMatch, message).current(Some(found.version()), None).help(help)
    }
}

fn read_settings(root: &Root, dir: &Path) -> Result<Option<Settings>, MemoryError> {
    let Some(text) = root.sentinel(SENTINEL)? else { return Ok(None) };
    let wrong = |why: String| {
        MemoryError::new(ErrorKind::NoMemory, format!("{}: {why}", dir.join(SENTINEL).display()))
            .help("`clawd memory init` writes it anew; move what is there away first")
    };
    let settings: Settings = serde_json::from_slice(&text).map_err(|error| wrong(error.to_string()))?;
    if settings.format != FORMAT {
        return Err(wrong(format!("it has the form {}, this clawd reads {FORMAT}", settings.format)));
    }
    Ok(Some(settings))
}

fn check_host(host: &str) -> Result<(), MemoryError> {
    let fits = !host.is_empty()
        && host.len() <= 64
        && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
        && host.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    match fits {
        true => Ok(()),
        false => Err(MemoryError::usage(format!("`{}` is no name of a host", host.escape_debug()))
            .help("letters, digits, `-`, `_` and `.`, like CLAWDINATOR-1; daily notes are named after it")),
    }
}

/// The difference of two contents, for people and agents; nothing where lines mean nothing.
fn difference(path: &MemoryPath, then: &[u8], now: &[u8]) -> String {
    let (Ok(then), Ok(now)) = (std::str::from_utf8(then), std::str::from_utf8(now)) else {
        return format!("{path}: no text\n");
    };
    diffy::create_patch(then, now).to_string()
}
