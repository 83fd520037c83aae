//! The journal of a run: append-only, a checksum per record, an intent durable before each effect.
//!
//! A thread of its own writes what has gathered and syncs once for all of it (group commit); only intents wait
//! for the disk, because only they must be there before something happens. A torn last line is what a crash
//! leaves and is ignored; damage before it is an error.

#![allow(clippy::disallowed_methods)] // this is where it is done

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread::JoinHandle;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use crate::plan::{Action, Digest};
use crate::providers::ProviderError;
use crate::value::{Address, Value};

/// The journal's file in a run's directory.
pub const FILE: &str = "journal.jsonl";

/// One record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "snake_case")]
pub enum Record {
    /// The run begins, or goes on after an interruption.
    RunStarted {
        /// Its id.
        run: String,
        /// The plan it applies.
        plan: Digest,
        /// When, RFC 3339.
        at: String,
        /// The command line.
        command: String,
        /// Whether it goes on with what an earlier process began.
        resumed: bool,
    },
    /// An effect is about to happen.
    Intent {
        /// For which step.
        step: Address,
        /// The API call.
        call: String,
        /// Its idempotency token.
        token: String,
        /// The token's generation.
        generation: u32,
    },
    /// An effect happened.
    Done {
        /// For which step.
        step: Address,
        /// The API call.
        call: String,
        /// Its idempotency token.
        token: String,
        /// What it returned.
        result: String,
    },
    /// A part of something large arrived, such as blocks of a snapshot.
    Part {
        /// For which step.
        step: Address,
        /// What it is a part of, `snap-...`
        of: String,
        /// Which part, `0-511,600`.
        part: String,
    },
    /// A step is done.
    StepDone {
        /// Which.
        step: Address,
        /// What was done.
        action: Action,
        /// What it destroyed, replaced or formatted: `destroy import_ami.base`.
        costs: Vec<String>,
        /// Its outputs.
        outputs: Value,
    },
    /// A step failed.
    StepFailed {
        /// Which.
        step: Address,
        /// What went wrong.
        error: String,
    },
    /// A step was not begun.
    StepSkipped {
        /// Which.
        step: Address,
        /// Why.
        reason: String,
    },
    /// The run is over.
    RunEnded {
        /// `done`, `failed`, `refused`, `interrupted`.
        status: String,
        /// When, RFC 3339.
        at: String,
    },
}

/// Where records go.
#[async_trait]
pub trait Journal: Send + Sync {
    /// Appends a record; returns when it is on disk.
    async fn durable(&self, record: &Record) -> Result<(), ProviderError>;
    /// Appends a record without waiting for the disk.
    ///
    /// # Errors
    /// When an earlier write failed.
    fn append(&self, record: &Record) -> Result<(), ProviderError>;
    /// The parts of something that this run and the last ones before it noted. The journal is an accelerator here: what
    /// cannot be read is left out, and its parts are sent again.
    fn parts(&self, of: &str) -> Vec<String>;
}

/// How many runs are searched for parts: an unfinished upload is given up by EBS after a day at most.
const RUNS_SEARCHED: usize = 20;

fn line(record: &Record) -> Vec<u8> {
    let json = serde_json::to_string(record).expect("records always have a JSON form");
    format!("{:08x} {json}\n", crc32fast::hash(json.as_bytes())).into_bytes()
}

fn failed(error: &dyn std::fmt::Display) -> ProviderError {
    ProviderError::permanent("journal", format!("cannot be written: {error}"))
        .help("nothing is done without a journal; free space or mend the permissions of .clawd and run again")
}

struct Entry {
    bytes: Vec<u8>,
    /// Told when the entry is on disk.
    durable: Option<oneshot::Sender<Result<(), String>>>,
}

/// The journal on disk.
#[derive(Debug)]
pub struct FileJournal {
    /// The run's directory; those of earlier runs lie beside it.
    dir: PathBuf,
    entries: Option<mpsc::Sender<Entry>>,
    writer: Option<JoinHandle<()>>,
}

impl FileJournal {
    /// Opens the journal in a run's directory for appending; a torn last line is cut off.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn open(dir: &Path) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        let path = dir.join(FILE);
        let whole = whole_length(&path)?;
        let mut file = OpenOptions::new().create(true).truncate(false).write(true).open(&path)?;
        file.set_len(whole)?;
        io::Seek::seek(&mut file, io::SeekFrom::End(0))?;
        // The directory's entry must be durable too, or a crash could lose the whole file.
        File::open(dir)?.sync_all()?;
        let (entries, inbox) = mpsc::channel();
        let writer =
            std::thread::Builder::new().name("journal".to_owned()).spawn(move || write_all(file, &inbox))?;
        Ok(Self { dir: dir.to_owned(), entries: Some(entries), writer: Some(writer) })
    }

    fn send(&self, entry: Entry) -> Result<(), ProviderError> {
        let sent = self.entries.as_ref().map(|entries| entries.send(entry));
        match sent {
            Some(Ok(())) => Ok(()),
            _ => Err(failed(&"the writer has stopped")),
        }
    }
}

impl Drop for FileJournal {
    /// Waits until everything is on disk.
    fn drop(&mut self) {
        drop(self.entries.take());
        if let Some(writer) = self.writer.take() {
            // A panicked writer has nothing more to write, and its entries were answered with an error.
            let _ = writer.join();
        }
    }
}

/// Bytes of whole records at the beginning of a file: a torn or damaged last line does not count.
fn whole_length(path: &Path) -> io::Result<u64> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(error),
    };
    let end = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    let last =
        bytes[..end.saturating_sub(1)].iter().rposition(|byte| *byte == b'\n').map_or(0, |start| start + 1);
    let whole = if end > 0 && parse(&bytes[last..end - 1]).is_none() { last } else { end };
    Ok(whole as u64)
}

fn write_all(mut file: File, inbox: &mpsc::Receiver<Entry>) {
    let mut broken: Option<String> = None;
    while let Ok(first) = inbox.recv() {
        let batch: Vec<Entry> = std::iter::once(first).chain(inbox.try_iter()).collect();
        let bytes: Vec<u8> = batch.iter().flat_map(|entry| entry.bytes.iter().copied()).collect();
        if broken.is_none() {
            let needs_sync = batch.iter().any(|entry| entry.durable.is_some());
            let written =
                file.write_all(&bytes).and_then(|()| if needs_sync { file.sync_data() } else { Ok(()) });
            broken = written.err().map(|error| error.to_string());
        }
        let outcome = broken.clone().map_or(Ok(()), Err);
        for entry in batch {
            if let Some(durable) = entry.durable {
                // Nobody listens any more when the run was aborted.
                let _ = durable.send(outcome.clone());
            }
        }
    }
    if broken.is_none() {
        // The records after the last intent; losing them costs a look at the world, not correctness.
        let _ = file.sync_data();
    }
}

#[async_trait]
impl Journal for FileJournal {
    async fn durable(&self, record: &Record) -> Result<(), ProviderError> {
        let (durable, told) = oneshot::channel();
        self.send(Entry { bytes: line(record), durable: Some(durable) })?;
        match told.await {
            Ok(outcome) => outcome.map_err(|error| failed(&error)),
            Err(_) => Err(failed(&"the writer has stopped")),
        }
    }

    fn append(&self, record: &Record) -> Result<(), ProviderError> {
        self.send(Entry { bytes: line(record), durable: None })
    }

    fn parts(&self, of: &str) -> Vec<String> {
        let beside = self.dir.parent().and_then(|runs| fs::read_dir(runs).ok());
        let mut runs: Vec<PathBuf> =
            beside.into_iter().flatten().flatten().map(|entry| entry.path()).collect();
        // Runs are named by when they began.
        runs.sort();
        let last = runs.len().saturating_sub(RUNS_SEARCHED);
        runs[last..]
            .iter()
            .filter_map(|run| read(run).ok())
            .flatten()
            .filter_map(|record| match record {
                Record::Part { of: whole, part, .. } if whole == of => Some(part),
                _ => None,
            })
            .collect()
    }
}

/// A journal that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// No such file, or no permission.
    #[error("cannot read {path}: {error}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// A line before the last one is damaged.
    #[error("{path} is damaged at line {line}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Which line, from 1.
        line: usize,
    },
}

/// Reads the journal of a run. A torn last line is ignored.
///
/// # Errors
/// When the file cannot be read or is damaged before its last line.
pub fn read(dir: &Path) -> Result<Vec<Record>, JournalError> {
    let path = dir.join(FILE);
    let bytes = fs::read(&path).map_err(|error| JournalError::Io { path: path.clone(), error })?;
    let mut records = Vec::new();
    let mut rest = &bytes[..];
    let mut number = 0;
    while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
        number += 1;
        let (current, after) = (&rest[..end], &rest[end + 1..]);
        match parse(current) {
            Some(record) => records.push(record),
            None if after.is_empty() => break,
            None => return Err(JournalError::Damaged { path, line: number }),
        }
        rest = after;
    }
    Ok(records)
}

fn parse(bytes: &[u8]) -> Option<Record> {
    let (sum, json) = std::str::from_utf8(bytes).ok()?.split_once(' ')?;
    let stated = u32::from_str_radix(sum, 16).ok()?;
    (crc32fast::hash(json.as_bytes()) == stated).then_some(())?;
    serde_json::from_str(json).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records() -> Vec<Record> {
        let step: Address = "import_ami.base".parse().unwrap();
        vec![
            Record::Intent {
                step: step.clone(),
                call: "RegisterImage".into(),
                token: "t".into(),
                generation: 0,
            },
            Record::StepFailed { step, error: "no".into() },
            Record::RunEnded { status: "failed".into(), at: "now".into() },
        ]
    }

    async fn written(dir: &Path) {
        let journal = FileJournal::open(dir).unwrap();
        for record in records() {
            journal.durable(&record).await.unwrap();
        }
    }

    #[tokio::test]
    async fn records_read_back_and_a_torn_end_is_ignored_at_every_byte() {
        let dir = tempfile::tempdir().unwrap();
        written(dir.path()).await;
        assert_eq!(read(dir.path()).unwrap(), records());
        let whole = fs::read(dir.path().join(FILE)).unwrap();
        let ends: Vec<usize> =
            whole.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at + 1).collect();
        for cut in 0..whole.len() {
            fs::write(dir.path().join(FILE), &whole[..cut]).unwrap();
            let complete = ends.iter().filter(|end| **end <= cut).count();
            assert_eq!(read(dir.path()).unwrap(), records()[..complete], "cut at {cut}");
            // What goes on writes behind the last whole record.
            let more = Record::RunEnded { status: "done".into(), at: "later".into() };
            FileJournal::open(dir.path()).unwrap().durable(&more).await.unwrap();
            let mut whole = records()[..complete].to_vec();
            whole.push(more);
            assert_eq!(read(dir.path()).unwrap(), whole, "cut at {cut}");
        }
    }

    #[tokio::test]
    async fn parts_are_found_across_runs() {
        let runs = tempfile::tempdir().unwrap();
        let step: Address = "import_ami.base".parse().unwrap();
        let note = |journal: &FileJournal, of: &str, part: &str| {
            journal.append(&Record::Part { step: step.clone(), of: of.into(), part: part.into() }).unwrap();
        };
        let first = FileJournal::open(&runs.path().join("1")).unwrap();
        note(&first, "snap-1", "0-3");
        note(&first, "snap-2", "9");
        drop(first);
        let second = FileJournal::open(&runs.path().join("2")).unwrap();
        note(&second, "snap-1", "5");
        second.durable(&Record::RunEnded { status: "done".into(), at: "now".into() }).await.unwrap();
        assert_eq!(second.parts("snap-1"), ["0-3", "5"]);
        assert!(second.parts("snap-3").is_empty());
    }

    #[tokio::test]
    async fn damage_before_the_end_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        written(dir.path()).await;
        let mut bytes = fs::read(dir.path().join(FILE)).unwrap();
        bytes[20] ^= 1;
        fs::write(dir.path().join(FILE), bytes).unwrap();
        assert!(matches!(read(dir.path()), Err(JournalError::Damaged { line: 1, .. })));
    }
}
