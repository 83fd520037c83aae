//! What is kept beside a memory: the lock, what was overwritten, what was removed on purpose, and a log.

use std::collections::BTreeMap;
use std::fs::{self, File as StdFile, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::Written;
use super::error::{ErrorKind, MemoryError};
use super::index::Index;
use crate::digest::sha256_hex;
use crate::memory::{MemoryPath, Version};
use crate::units::Seconds;

/// How long a writer waits for others; each holds the lock for some milliseconds.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long between two looks at the lock, at most.
const PAUSE: Duration = Duration::from_millis(8);

/// Something that was done to a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// When, RFC 3339. For people; nothing is decided by it.
    pub at: String,
    /// What: `write`, `append`, `edit`, `rm`.
    pub what: String,
    /// The file.
    pub path: MemoryPath,
    /// The version before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Version>,
    /// The version after.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<Version>,
}

/// How the last round ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Last {
    /// The shared memory that it was with.
    pub remote: String,
    /// Whether both sides had the same then.
    pub in_step: bool,
    /// When, seconds since the epoch by this host's clock.
    ended: i64,
}

impl Last {
    /// How long ago by this host's clock. It is told, and no file is ever decided on by it.
    #[must_use]
    pub fn age(&self) -> Seconds {
        let age = jiff::Timestamp::now().as_second().saturating_sub(self.ended);
        Seconds(u64::try_from(age).unwrap_or(0))
    }
}

/// The directory beside a memory.
#[derive(Debug)]
pub(super) struct State {
    dir: PathBuf,
}

impl State {
    pub(super) fn open(dir: &Path) -> Result<Self, MemoryError> {
        let make = |path: &Path| {
            let made = fs::DirBuilder::new().recursive(true).mode(0o770).create(path);
            made.map_err(|error| MemoryError::io("make the directory", path, &error))
        };
        make(dir)?;
        make(&dir.join("blobs"))?;
        Ok(Self { dir: dir.to_owned() })
    }

    /// The lock of all writers. It is a file of its own, which nobody ever replaces: a lock on the file that is written would be
    /// one on what was there before.
    pub(super) fn lock(&self) -> Result<StdFile, MemoryError> {
        self.locked("lock")
    }

    /// The lock of rounds: two at once would only do the same twice.
    pub(super) fn lock_round(&self) -> Result<StdFile, MemoryError> {
        self.locked("round")
    }

    fn locked(&self, name: &str) -> Result<StdFile, MemoryError> {
        let path = self.dir.join(name);
        let failed = |error: &io::Error| MemoryError::io("lock", &path, error);
        let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o660).open(&path);
        let file = file.map_err(|error| failed(&error))?;
        let until = Instant::now() + PATIENCE;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::Error(error)) => return Err(failed(&error)),
                Err(TryLockError::WouldBlock) if Instant::now() >= until => {
                    let message =
                        format!("somebody holds {} for more than {} s", path.display(), PATIENCE.as_secs());
                    return Err(MemoryError::new(ErrorKind::Locked, message)
                        .help("the lock goes with its process; look for one that hangs: `fuser` names it"));
                }
                // A lock on a file has no event for becoming free, and waiting for it in the kernel has no bound. The pause
                // differs, so that many waiters do not come at once.
                Err(TryLockError::WouldBlock) => {
                    std::thread::sleep(PAUSE.mul_f64(fastrand::f64()));
                }
            }
        }
    }

    fn blob_path(&self, version: &Version) -> PathBuf {
        self.dir.join("blobs").join(version.as_str())
    }

    /// Keeps a content that is about to be replaced: it is on the disk when this returns.
    pub(super) fn keep(&self, content: &[u8]) -> Result<(), MemoryError> {
        let path = self.blob_path(&Version::of(content));
        if fs::read(&path).is_ok_and(|kept| kept == content) {
            // It may be one that was only remembered.
            let synced = StdFile::open(&path)
                .and_then(|file| file.sync_all())
                .and_then(|()| StdFile::open(self.dir.join("blobs"))?.sync_all());
            return synced.map_err(|error| MemoryError::io("write", &path, &error));
        }
        put(&path, content)
    }

    /// Remembers a content that both sides have, as the base of a later merge. A crash may take it: without it a merge is a union,
    /// which loses no line. So nobody waits for the disk here.
    pub(super) fn remember(&self, content: &[u8]) -> Result<(), MemoryError> {
        let path = self.blob_path(&Version::of(content));
        if fs::metadata(&path).is_ok_and(|kept| kept.len() == content.len() as u64) {
            return Ok(());
        }
        let new = beside(&path);
        let written = write_new(&new, content).and_then(|_| fs::rename(&new, &path));
        if written.is_err() {
            let _ = fs::remove_file(&new);
        }
        written.map_err(|error| MemoryError::io("write", &path, &error))
    }

    /// A content that was kept.
    pub(super) fn blob(&self, version: &Version) -> Result<Option<Vec<u8>>, MemoryError> {
        let path = self.blob_path(version);
        match fs::read(&path) {
            // One that was damaged is as good as none.
            Ok(content) => Ok(Some(content).filter(|content| Version::of(content) == *version)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(MemoryError::io("read", &path, &error)),
        }
    }

    fn removals_path(&self) -> PathBuf {
        self.dir.join("removed.json")
    }

    pub(super) fn removals(&self) -> Result<BTreeMap<MemoryPath, Version>, MemoryError> {
        let path = self.removals_path();
        match fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text).map_err(|error| {
                MemoryError::new(ErrorKind::Io, format!("{}: {error}", path.display())).help(
                    "remove it: files that were removed since the last round come back, and nothing is lost",
                )
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(BTreeMap::new()),
            Err(error) => Err(MemoryError::io("read", &path, &error)),
        }
    }

    fn write_removals(&self, removals: &BTreeMap<MemoryPath, Version>) -> Result<(), MemoryError> {
        put(&self.removals_path(), &serde_json::to_vec(removals).unwrap_or_default())
    }

    /// Notes that a version of a file was removed on purpose.
    pub(super) fn note_removal(&self, path: &MemoryPath, version: &Version) -> Result<(), MemoryError> {
        let mut removals = self.removals()?;
        removals.insert(path.clone(), version.clone());
        self.write_removals(&removals)
    }

    /// The file is there again.
    pub(super) fn forget_removal(&self, path: &MemoryPath) -> Result<(), MemoryError> {
        let mut removals = self.removals()?;
        match removals.remove(path) {
            Some(_) => self.write_removals(&removals),
            None => Ok(()),
        }
    }

    /// The bases of the last round with a store. One that is damaged, of another store or under other rules is empty.
    pub(super) fn index(&self, remote: &str, rules: &str) -> Result<Index, MemoryError> {
        self.index_in("index.json", remote, rules)
    }

    /// Writes the bases.
    pub(super) fn put_index(&self, index: &Index, remote: &str, rules: &str) -> Result<(), MemoryError> {
        put(&self.dir.join("index.json"), &index.encode(remote, rules))
    }

    /// What was published to a store. Losing it costs writing it again.
    pub(super) fn published(&self, remote: &str) -> Result<Index, MemoryError> {
        self.index_in(&published_name(remote), remote, "")
    }

    /// Writes what was published to a store.
    pub(super) fn put_published(&self, index: &Index, remote: &str) -> Result<(), MemoryError> {
        put(&self.dir.join(published_name(remote)), &index.encode(remote, ""))
    }

    fn index_in(&self, name: &str, remote: &str, rules: &str) -> Result<Index, MemoryError> {
        let path = self.dir.join(name);
        match fs::read(&path) {
            Ok(text) => Ok(Index::decode(&text, remote, rules).unwrap_or_else(|| {
                tracing::warn!(index = %path.display(), "the index is damaged, of another memory or under other rules; nothing is taken to be removed");
                Index::default()
            })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Index::default()),
            Err(error) => Err(MemoryError::io("read", &path, &error)),
        }
    }

    fn last_path(&self) -> PathBuf {
        self.dir.join("last.json")
    }

    /// Notes how a round ended.
    pub(super) fn put_last(&self, remote: &str, in_step: bool) -> Result<(), MemoryError> {
        let last = Last { remote: remote.to_owned(), in_step, ended: jiff::Timestamp::now().as_second() };
        put(&self.last_path(), &serde_json::to_vec(&last).unwrap_or_default())
    }

    /// How the last round ended; `None` when there was none, or the note of it is damaged.
    pub(super) fn last(&self) -> Option<Last> {
        serde_json::from_slice(&fs::read(self.last_path()).ok()?).ok()
    }

    fn log_path(&self) -> PathBuf {
        self.dir.join("log.jsonl")
    }

    /// Adds a line to the log. It is for people: a line that a crash takes is no loss of the memory's.
    pub(super) fn log(&self, what: &str, written: &Written) -> Result<(), MemoryError> {
        let path = self.log_path();
        let entry = Entry {
            at: jiff::Timestamp::now().to_string(),
            what: what.to_owned(),
            path: written.path.clone(),
            before: written.before.clone(),
            version: written.version.clone(),
        };
        let mut line = serde_json::to_vec(&entry).unwrap_or_default();
        line.push(b'\n');
        let opened = OpenOptions::new().create(true).append(true).mode(0o660).open(&path);
        let wrote = opened.and_then(|mut file| file.write_all(&line));
        wrote.map_err(|error| MemoryError::io("write", &path, &error))
    }

    pub(super) fn entries(&self) -> Result<Vec<Entry>, MemoryError> {
        let path = self.log_path();
        match fs::read_to_string(&path) {
            // A line that was cut off by a crash says nothing.
            Ok(text) => Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(MemoryError::io("read", &path, &error)),
        }
    }
}

/// The file of what was published to a store: each has one of its own.
fn published_name(remote: &str) -> String {
    format!("published-{}.json", &sha256_hex(remote.as_bytes())[..16])
}

/// A name beside a path that nobody has.
fn beside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{:016x}", fastrand::u64(..)));
    path.with_file_name(name)
}

fn write_new(path: &Path, content: &[u8]) -> io::Result<StdFile> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o660).open(path)?;
    file.write_all(content)?;
    Ok(file)
}

/// Puts a content in a file's place at once.
fn put(path: &Path, content: &[u8]) -> Result<(), MemoryError> {
    let write = || -> io::Result<()> {
        let new = beside(path);
        let written =
            write_new(&new, content).and_then(|file| file.sync_all()).and_then(|()| fs::rename(&new, path));
        if written.is_err() {
            let _ = fs::remove_file(&new);
        }
        written?;
        StdFile::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
    };
    write().map_err(|error| MemoryError::io("write", path, &error))
}
