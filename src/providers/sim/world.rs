//! The simulated world on disk: an append-only log of changes to the tables.
//!
//! Each transaction is one line with a checksum, written by one call before it becomes visible in memory, so a
//! kill leaves whole transactions or a torn last line, which is ignored and cut off by the next writer. One
//! process writes at a time: the first commit locks the log, until the process ends. A writer compacts a log
//! most of which is dead. Failure modes: a log that is damaged before its last line is refused, never guessed at;
//! a second writer is refused.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::tables::{Draft, Record, Tables, Transaction};
use crate::providers::error::ProviderError;
use crate::providers::ports::Answer;

/// Where virtual time begins: 2026-01-01T00:00:00Z.
const EPOCH: i64 = 1_767_225_600;

/// A log is compacted when it has more than this many times the lines it needs.
const COMPACT_FACTOR: usize = 4;
const COMPACT_AT_LEAST: usize = 1_000;

struct Inner {
    tables: Tables,
    /// Bytes of the log that are in the tables.
    read_to: u64,
    /// Lines of the log that are in the tables.
    lines: usize,
    /// Which file was read: a reset or compacted world is another one.
    file: Option<(u64, u64)>,
    /// The log, locked, once something was written.
    writer: Option<File>,
}

impl Inner {
    fn empty() -> Self {
        Self { tables: Tables::beginning_at(EPOCH), read_to: 0, lines: 0, file: None, writer: None }
    }
}

/// A world on disk.
pub struct World {
    dir: PathBuf,
    inner: Mutex<Inner>,
}

fn io_error(what: &str, path: &std::path::Path, error: &std::io::Error) -> ProviderError {
    ProviderError::permanent("sim world", format!("cannot {what} {}: {error}", path.display()))
        .help("check the permissions of the project's .clawd directory")
}

impl World {
    /// Opens the world in a directory; one that does not exist yet is empty.
    ///
    /// # Errors
    /// When the log cannot be read or is damaged.
    pub fn open(dir: PathBuf) -> Answer<Self> {
        let world = Self { dir, inner: Mutex::new(Inner::empty()) };
        world.refresh()?;
        Ok(world)
    }

    fn log_path(&self) -> PathBuf {
        self.dir.join("world.log")
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic while the lock is held leaves whole tables: drafts are applied in one go.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads what other processes appended since.
    ///
    /// # Errors
    /// When the log cannot be read or is damaged.
    pub(super) fn refresh(&self) -> Answer<()> {
        self.catch_up(&mut self.lock())
    }

    fn catch_up(&self, inner: &mut Inner) -> Answer<()> {
        if inner.writer.is_some() {
            // Nobody else writes while this process holds the log.
            return Ok(());
        }
        let path = self.log_path();
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                *inner = Inner::empty();
                return Ok(());
            }
            Err(error) => return Err(io_error("open", &path, &error)),
        };
        let metadata = file.metadata().map_err(|error| io_error("read", &path, &error))?;
        let identity = (metadata.dev(), metadata.ino());
        if inner.file.is_some_and(|known| known != identity) || metadata.len() < inner.read_to {
            *inner = Inner::empty();
        }
        inner.file = Some(identity);
        let mut text = Vec::new();
        file.seek(SeekFrom::Start(inner.read_to))
            .and_then(|_| file.read_to_end(&mut text))
            .map_err(|error| io_error("read", &path, &error))?;
        let mut at = 0;
        while let Some(end) = text[at..].iter().position(|byte| *byte == b'\n') {
            let line = &text[at..at + end];
            let transaction = decode(line).ok_or_else(|| damaged(&path, inner.read_to + at as u64))?;
            inner.tables.apply(transaction);
            inner.lines += 1;
            at += end + 1;
        }
        inner.read_to += at as u64;
        Ok(())
    }

    /// Reads under one lock.
    pub(super) fn read<T>(&self, read: impl FnOnce(&Tables) -> T) -> T {
        read(&self.lock().tables)
    }

    /// Changes the world: what `change` puts is logged as one transaction and then visible.
    pub(super) fn commit<T>(&self, now: i64, change: impl FnOnce(&mut Draft<'_>) -> Answer<T>) -> Answer<T> {
        let mut inner = self.lock();
        self.begin_writing(&mut inner)?;
        let mut draft = inner.tables.draft();
        let result = change(&mut draft)?;
        let transaction = draft.finish(now);
        if !transaction.is_empty() {
            self.append(&mut inner, transaction)?;
        }
        Ok(result)
    }

    /// Keeps the time, which otherwise passes only with changes.
    pub(super) fn keep_time(&self, now: i64) -> Answer<()> {
        let mut inner = self.lock();
        if inner.writer.is_none() || now <= inner.tables.now {
            return Ok(());
        }
        let transaction = inner.tables.draft().finish(now);
        self.append(&mut inner, transaction)
    }

    fn append(&self, inner: &mut Inner, transaction: Transaction) -> Answer<()> {
        let line = encode(&transaction)?;
        let path = self.log_path();
        let written = inner.writer.as_mut().map(|writer| writer.write_all(&line));
        if let Some(Err(error)) = written {
            // What was torn is cut off when the log is opened for writing again.
            inner.writer = None;
            return Err(io_error("write", &path, &error));
        }
        inner.read_to += line.len() as u64;
        inner.lines += 1;
        inner.tables.apply(transaction);
        Ok(())
    }

    /// Takes the log for writing, brings the tables up to date, and cuts off a torn last line.
    fn begin_writing(&self, inner: &mut Inner) -> Answer<()> {
        if inner.writer.is_some() {
            return Ok(());
        }
        fs::create_dir_all(&self.dir).map_err(|error| io_error("create", &self.dir, &error))?;
        let path = self.log_path();
        let open = || OpenOptions::new().create(true).truncate(false).read(true).write(true).open(&path);
        let mut file = open().map_err(|error| io_error("open", &path, &error))?;
        file.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => {
                ProviderError::refused("sim world", "another process is changing this simulated world")
                    .help("wait until it is done")
            }
            TryLockError::Error(error) => io_error("lock", &path, &error),
        })?;
        self.catch_up(inner)?;
        if inner.lines > COMPACT_AT_LEAST && inner.lines > COMPACT_FACTOR * inner.tables.count() {
            file = self.compact(inner)?;
        }
        file.set_len(inner.read_to)
            .and_then(|()| file.seek(SeekFrom::End(0)))
            .map_err(|error| io_error("write", &path, &error))?;
        inner.writer = Some(file);
        Ok(())
    }

    /// Writes the tables as one transaction into a new log and puts it in the old one's place, locked.
    fn compact(&self, inner: &mut Inner) -> Answer<File> {
        let line = encode(&inner.tables.whole())?;
        let path = self.log_path();
        let fresh = self.dir.join("world.log.new");
        let file = OpenOptions::new()
            .create(true)
            .truncate(true)
            .read(true)
            .write(true)
            .open(&fresh)
            .and_then(|mut file| file.write_all(&line).map(|()| file))
            .map_err(|error| io_error("write", &fresh, &error))?;
        file.try_lock().map_err(|error| ProviderError::permanent("sim world", error.to_string()))?;
        fs::rename(&fresh, &path).map_err(|error| io_error("write", &path, &error))?;
        inner.file = file.metadata().ok().map(|metadata| (metadata.dev(), metadata.ino()));
        inner.read_to = line.len() as u64;
        inner.lines = 1;
        Ok(file)
    }

    /// What is in the world, as lines for people: kind, id and what matters of it.
    #[must_use]
    pub fn describe(&self) -> Vec<(String, String, String)> {
        self.read(|tables| {
            let line = |record: &Record| {
                let (kind, key) = record.place();
                (kind.to_owned(), key, record.detail())
            };
            tables.rows().filter(|record| record.is_listed()).map(line).collect()
        })
    }
}

fn encode(transaction: &Transaction) -> Answer<Vec<u8>> {
    let json = serde_json::to_string(transaction).map_err(|error| {
        ProviderError::permanent("sim world", format!("a record has no JSON form: {error}"))
    })?;
    Ok(format!("{:08x} {json}\n", crc32fast::hash(json.as_bytes())).into_bytes())
}

fn decode(line: &[u8]) -> Option<Transaction> {
    let text = std::str::from_utf8(line).ok()?;
    let (sum, json) = text.split_once(' ')?;
    let stated = u32::from_str_radix(sum, 16).ok()?;
    (crc32fast::hash(json.as_bytes()) == stated).then_some(())?;
    serde_json::from_str(json).ok()
}

fn damaged(path: &std::path::Path, offset: u64) -> ProviderError {
    ProviderError::permanent(
        "sim world",
        format!("{} is damaged at byte {offset}: a line does not match its checksum", path.display()),
    )
    .help("`clawd sim reset` empties the simulated world")
}
