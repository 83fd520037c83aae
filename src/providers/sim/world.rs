//! The simulated world's state: tables of records, kept as an append-only log of transactions.
//!
//! Each transaction is one line with a checksum, written by one call before it becomes visible in memory, so a
//! kill leaves whole transactions or a torn last line, which is ignored and cut off by the next writer. One
//! process writes at a time: the first commit locks the log, until the process ends. A writer compacts a log
//! most of which is dead. Failure modes: a log that is damaged before its last line is refused, never guessed at;
//! a second writer is refused.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use crate::providers::error::ProviderError;
use crate::providers::ports::{
    Answer, BuiltImage, Image, Instance, MemoryStatus, MountReport, Snapshot, TAG_CONTENT, TAG_STEP, Volume,
};
use crate::value::{Map, Value};

/// Where virtual time begins: 2026-01-01T00:00:00Z.
const EPOCH: i64 = 1_767_225_600;

/// A log is compacted when it has more than this many times the lines it needs.
const COMPACT_FACTOR: usize = 4;
const COMPACT_AT_LEAST: usize = 1_000;

/// One record of a table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "table", rename_all = "snake_case")]
pub(super) enum Record {
    Image { row: Image, ready_at: i64 },
    Snapshot { row: Snapshot, ready_at: i64 },
    Volume { row: Volume, ready_at: i64, content: Option<Content> },
    Instance { row: Instance, gone_at: Option<i64> },
    Store { path: String, row: BuiltImage },
    Stack { key: String, row: Stack },
    Mount { instance: String, row: MountReport },
    Memory { instance: String, row: MemoryStatus },
    Token { token: String, params: String, result: String },
}

/// What is on a volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Content {
    pub(super) fs: String,
    pub(super) uuid: String,
}

/// A stack's state.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(super) struct Stack {
    pub(super) serial: u64,
    pub(super) resources: BTreeMap<String, Map>,
    pub(super) outputs: Value,
}

impl Record {
    /// Table and key.
    fn place(&self) -> (&'static str, String) {
        match self {
            Self::Image { row, .. } => ("image", row.id.clone()),
            Self::Snapshot { row, .. } => ("snapshot", row.id.clone()),
            Self::Volume { row, .. } => ("volume", row.id.clone()),
            Self::Instance { row, .. } => ("instance", row.id.clone()),
            Self::Store { path, .. } => ("store", path.clone()),
            Self::Stack { key, .. } => ("stack", key.clone()),
            Self::Mount { instance, row } => ("mount", format!("{instance}#{}", row.path)),
            Self::Memory { instance, row } => ("memory", format!("{instance}#{}", row.config.dir)),
            Self::Token { token, .. } => ("token", token.clone()),
        }
    }
}

/// A transaction as it is logged.
#[derive(Debug, Serialize, Deserialize)]
struct Transaction {
    now: i64,
    next_id: u64,
    puts: Vec<Record>,
}

/// The tables in memory.
#[derive(Debug, Default)]
pub(super) struct Tables {
    /// Virtual time, seconds since the epoch.
    pub(super) now: i64,
    next_id: u64,
    rows: BTreeMap<(&'static str, String), Record>,
    /// Rows by what they are looked up by: the tags of step and content, and the names of images. A row keeps
    /// its place under a tag that changed since, so who looks up filters again.
    index: BTreeMap<(&'static str, &'static str, String), BTreeSet<String>>,
}

/// The index key of image names.
const NAME: &str = "name";

impl Tables {
    fn put(&mut self, record: Record) {
        let place = record.place();
        let tags = match &record {
            Record::Image { row, .. } => {
                self.index.entry(("image", NAME, row.name.clone())).or_default().insert(row.id.clone());
                Some(&row.tags)
            }
            Record::Volume { row, .. } => Some(&row.tags),
            _ => None,
        };
        for key in [TAG_STEP, TAG_CONTENT] {
            if let Some(value) = tags.and_then(|tags| tags.get(key)) {
                self.index.entry((place.0, key, value.clone())).or_default().insert(place.1.clone());
            }
        }
        self.rows.insert(place, record);
    }

    pub(super) fn get(&self, table: &'static str, key: &str) -> Option<&Record> {
        self.rows.get(&(table, key.to_owned()))
    }

    /// The records of a table in key order.
    pub(super) fn table(&self, table: &'static str) -> impl Iterator<Item = &Record> {
        self.rows
            .range((table, String::new())..)
            .take_while(move |((name, _), _)| *name == table)
            .map(|(_, row)| row)
    }

    /// The rows of a table that may carry all these tags; the caller filters.
    pub(super) fn tagged<'a>(&'a self, table: &'static str, tags: &[(&str, &str)]) -> Vec<&'a Record> {
        let indexed = tags.iter().find_map(|(key, value)| {
            let key = [TAG_STEP, TAG_CONTENT].into_iter().find(|known| known == key)?;
            Some((table, key, (*value).to_owned()))
        });
        match indexed {
            Some(place) => {
                self.index.get(&place).into_iter().flatten().filter_map(|id| self.get(table, id)).collect()
            }
            None => self.table(table).collect(),
        }
    }

    /// The records of a table whose keys begin with a prefix.
    pub(super) fn with_prefix<'a>(
        &'a self,
        table: &'static str,
        prefix: &'a str,
    ) -> impl Iterator<Item = &'a Record> {
        self.rows
            .range((table, prefix.to_owned())..)
            .take_while(move |((name, key), _)| *name == table && key.starts_with(prefix))
            .map(|(_, row)| row)
    }

    /// The image with a name.
    pub(super) fn image_named(&self, name: &str) -> Option<&Record> {
        let ids = self.index.get(&("image", NAME, name.to_owned()))?;
        ids.iter().find_map(|id| self.get("image", id))
    }
}

/// A change in the making: what it puts becomes visible and durable together.
pub(super) struct Draft<'a> {
    tables: &'a Tables,
    next_id: u64,
    puts: Vec<Record>,
}

impl Draft<'_> {
    pub(super) fn tables(&self) -> &Tables {
        self.tables
    }

    pub(super) fn put(&mut self, record: Record) {
        self.puts.push(record);
    }

    /// A fresh id in EC2's form: a prefix and 17 hex digits.
    pub(super) fn fresh_id(&mut self, prefix: &str) -> String {
        self.next_id += 1;
        let digest = crate::plan::digest::sha256_hex(format!("{prefix}{}", self.next_id).as_bytes());
        format!("{prefix}-0{}", &digest[..16])
    }
}

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
        let tables = Tables { now: EPOCH, ..Tables::default() };
        Self { tables, read_to: 0, lines: 0, file: None, writer: None }
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
            inner.tables.now = inner.tables.now.max(transaction.now);
            inner.tables.next_id = transaction.next_id;
            for record in transaction.puts {
                inner.tables.put(record);
            }
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
        let mut draft = Draft { next_id: inner.tables.next_id, tables: &inner.tables, puts: Vec::new() };
        let result = change(&mut draft)?;
        let Draft { next_id, puts, .. } = draft;
        if !puts.is_empty() {
            self.append(&mut inner, Transaction { now, next_id, puts })?;
        }
        Ok(result)
    }

    /// Keeps the time, which otherwise passes only with changes.
    pub(super) fn keep_time(&self, now: i64) -> Answer<()> {
        let mut inner = self.lock();
        if inner.writer.is_none() || now <= inner.tables.now {
            return Ok(());
        }
        let next_id = inner.tables.next_id;
        self.append(&mut inner, Transaction { now, next_id, puts: Vec::new() })
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
        inner.tables.now = inner.tables.now.max(transaction.now);
        inner.tables.next_id = transaction.next_id;
        for record in transaction.puts {
            inner.tables.put(record);
        }
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
        if inner.lines > COMPACT_AT_LEAST && inner.lines > COMPACT_FACTOR * inner.tables.rows.len() {
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
        let tables = &inner.tables;
        let transaction = Transaction {
            now: tables.now,
            next_id: tables.next_id,
            puts: tables.rows.values().cloned().collect(),
        };
        let line = encode(&transaction)?;
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
            let row = |record: &Record| {
                let (kind, key) = record.place();
                let detail = match record {
                    Record::Image { row, .. } => row.name.clone(),
                    Record::Snapshot { row, .. } => row.size.to_string(),
                    Record::Volume { row, content, .. } => format!(
                        "{} in {}, {}, {}",
                        row.size,
                        row.zone,
                        row.attached_to
                            .as_deref()
                            .map_or("free".to_owned(), |to| format!("attached to {to}")),
                        content.as_ref().map_or("blank", |content| content.fs.as_str()),
                    ),
                    Record::Instance { row, gone_at } => {
                        let state = if gone_at.is_some() { "terminated" } else { row.state.as_str() };
                        format!("{state}, {} in {}", row.image_id, row.zone)
                    }
                    Record::Store { row, .. } => row.size.to_string(),
                    Record::Stack { row, .. } => {
                        format!("serial {}, {} resources", row.serial, row.resources.len())
                    }
                    Record::Mount { row, .. } => format!("{} {}", row.volume_id, row.fs),
                    Record::Memory { row, .. } => format!("{}, {} files", row.config.remote, row.files),
                    Record::Token { result, .. } => result.clone(),
                };
                (kind.to_owned(), key, detail)
            };
            tables.rows.values().filter(|record| !matches!(record, Record::Token { .. })).map(row).collect()
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
