//! A shared memory in a directory: for hosts on one machine, and for tests. Its keys are files, its tags their sha256, and one
//! lock makes condition and write one step.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use async_trait::async_trait;

use crate::digest::sha256_hex;
use crate::providers::error::ProviderError;
use crate::providers::ports::{Answer, Condition, Listed, MemoryStore, Put, Stored};

/// How the names of the store's own files begin.
const OWN: &str = ".clawd";

/// A directory as a store.
#[derive(Debug)]
pub(super) struct DirStore {
    dir: PathBuf,
}

impl DirStore {
    pub(super) fn open(dir: &Path) -> Answer<Self> {
        let store = Self { dir: dir.to_owned() };
        fs::create_dir_all(dir).map_err(|error| store.failed("make", "", &error))?;
        Ok(store)
    }

    fn failed(&self, what: &str, key: &str, error: &io::Error) -> ProviderError {
        ProviderError::permanent(
            "file memory",
            format!("cannot {what} {}: {error}", self.dir.join(key).display()),
        )
        .help("check the disk and the permissions")
    }

    fn place(&self, key: &str) -> Answer<PathBuf> {
        let is_plain = key.split('/').all(|name| !matches!(name, "" | "." | "..") && !name.starts_with(OWN));
        match is_plain {
            true => Ok(self.dir.join(key)),
            false => {
                Err(ProviderError::permanent("file memory", format!("`{}` is no key", key.escape_debug())))
            }
        }
    }

    fn read(&self, key: &str) -> Answer<Option<Stored>> {
        match fs::read(self.place(key)?) {
            Ok(content) => Ok(Some(Stored { tag: sha256_hex(&content), content })),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                Ok(None)
            }
            Err(error) => Err(self.failed("read", key, &error)),
        }
    }

    fn lock(&self) -> io::Result<File> {
        let path = self.dir.join(".clawd-lock");
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(path)?;
        // Held for one write; it goes with its process.
        file.lock()?;
        Ok(file)
    }

    fn write(&self, key: &str, content: &[u8]) -> io::Result<()> {
        let path = self.dir.join(key);
        let parent = path.parent().unwrap_or(&self.dir);
        fs::create_dir_all(parent)?;
        let new = parent.join(format!("{OWN}-new-{:016x}", fastrand::u64(..)));
        let mut file = OpenOptions::new().write(true).create_new(true).open(&new)?;
        let written =
            file.write_all(content).and_then(|()| file.sync_all()).and_then(|()| fs::rename(&new, &path));
        if written.is_err() {
            let _ = fs::remove_file(&new);
        }
        written?;
        File::open(parent)?.sync_all()
    }

    fn walk(&self, below: &str, found: &mut Vec<Listed>) -> Answer<()> {
        let failed = |error: io::Error| self.failed("list", below, &error);
        for entry in fs::read_dir(self.dir.join(below)).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with(OWN) {
                continue;
            }
            let key = if below.is_empty() { name } else { format!("{below}/{name}") };
            if entry.file_type().map_err(failed)?.is_dir() {
                self.walk(&key, found)?;
            } else if let Some(stored) = self.read(&key)? {
                found.push(Listed { key, tag: stored.tag });
            }
        }
        Ok(())
    }
}

#[async_trait]
impl MemoryStore for DirStore {
    async fn list(&self, _: &[&str]) -> Answer<Vec<Listed>> {
        let mut found = Vec::new();
        self.walk("", &mut found)?;
        found.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(found)
    }

    async fn get(&self, key: &str) -> Answer<Option<Stored>> {
        self.read(key)
    }

    async fn keeps_versions(&self) -> Answer<Option<bool>> {
        // What was overwritten is in the blobs of whoever wrote it.
        Ok(None)
    }

    async fn put(&self, key: &str, content: &[u8], condition: Condition<'_>) -> Answer<Put> {
        self.place(key)?;
        let _lock = self.lock().map_err(|error| self.failed("lock", "", &error))?;
        let there = self.read(key)?.map(|stored| stored.tag);
        let holds = match condition {
            Condition::Absent => there.is_none(),
            Condition::Is(tag) => there.as_deref() == Some(tag),
        };
        if !holds {
            return Ok(Put::Lost);
        }
        self.write(key, content).map_err(|error| self.failed("write", key, &error))?;
        Ok(Put::Done(sha256_hex(content)))
    }
}
