//! Publishing a part of a memory: a one-way copy to where anybody may read it. Every file is scanned for secrets before any of them
//! leaves, and one finding refuses the whole; what was put aside is never published. Nothing is read from there but tags, and
//! nothing there is deleted.

use std::collections::BTreeMap;

use futures_util::stream::{self, StreamExt as _};

use super::Memory;
use super::error::{ErrorKind, MemoryError};
use super::index::Base;
use super::round::{AT_ONCE, unreachable};
use crate::memory::class::CONFLICTS;
use crate::memory::secrets::{Finding, scan};
use crate::memory::{MemoryPath, Version};
use crate::providers::ports::{Condition, MemoryStore, Put};

/// Findings that are named; the rest is counted.
const NAMED: usize = 20;

/// What was published.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Published {
    /// Written there, by their path in the memory.
    pub written: Vec<MemoryPath>,
    /// There as they are here.
    pub unchanged: usize,
    /// There, and no file of what is published here.
    pub extra: Vec<String>,
}

impl Memory {
    /// Copies the files below a directory of the memory, or all of it, to a store; `remote` is its name.
    ///
    /// # Errors
    /// A file holds what looks like a secret, and then nothing was written; the store cannot be reached; somebody else writes there at
    /// this moment.
    pub async fn publish(
        &self,
        below: Option<&MemoryPath>,
        store: &dyn MemoryStore,
        remote: &str,
    ) -> Result<Published, MemoryError> {
        // The one that was set, and the one of the last round, which need not have been.
        let last = self.state.last();
        let mut shared =
            self.settings.remote.as_deref().into_iter().chain(last.as_ref().map(|it| &*it.remote));
        if let Some(own) = shared.find(|own| overlap(own, remote)) {
            return Err(MemoryError::usage(format!(
                "{remote} is a part of the shared memory {own}, or holds it"
            ))
            .help("what is published is not merged: publish to a prefix of its own"));
        }
        let _alone = self.state.lock_round()?;
        let files = self.to_publish(below)?;
        let listed = store.list(&[]).await.map_err(|error| unreachable(&error))?;
        let mut tags: BTreeMap<String, String> =
            listed.into_iter().map(|object| (object.key, object.tag)).collect();
        let before = self.state.published(remote)?;
        let mut index = before.clone();
        let mut report = Published::default();
        let mut changed = Vec::new();
        for (key, path, version) in files {
            let tag = tags.remove(&key);
            let known = index.bases.get(&path).filter(|base| Some(&base.tag) == tag.as_ref());
            match known.is_some_and(|base| base.version == version) {
                true => report.unchanged += 1,
                false => changed.push((key, path, version, tag)),
            }
        }
        report.extra = tags.into_keys().collect();
        let writes = stream::iter(changed).map(|(key, path, version, tag)| async move {
            let base = self.publish_one(store, &key, &path, &version, tag.as_deref()).await?;
            Ok::<_, MemoryError>((path, base))
        });
        let mut writes = writes.buffer_unordered(AT_ONCE);
        let mut failure = None;
        while let Some(written) = writes.next().await {
            match written {
                Ok((path, base)) => {
                    index.bases.insert(path.clone(), base);
                    report.written.push(path);
                }
                Err(error) => {
                    failure.get_or_insert(error);
                }
            }
        }
        report.written.sort();
        // What was published is remembered, also where other files were not.
        if index != before {
            self.state.put_published(&index, remote)?;
        }
        if let Some(error) = failure {
            return Err(error);
        }
        Ok(report)
    }

    /// The files, each with its key there and the version that was scanned.
    fn to_publish(
        &self,
        below: Option<&MemoryPath>,
    ) -> Result<Vec<(String, MemoryPath, Version)>, MemoryError> {
        let prefix = below.map(|below| format!("{below}/"));
        let (paths, _) = self.list()?;
        let (mut files, mut findings) = (Vec::new(), Vec::new());
        for path in paths.into_iter().filter(|path| path.names().next() != Some(CONFLICTS)) {
            let key = match &prefix {
                Some(prefix) => path.as_str().strip_prefix(prefix.as_str()).map(str::to_owned),
                None => Some(path.as_str().to_owned()),
            };
            let Some(key) = key else { continue };
            let Some(found) = self.root.read(&path)? else { continue };
            // Names are published, too.
            findings.extend(scan(key.as_bytes()).into_iter().map(|finding| (path.clone(), finding)));
            findings.extend(scan(&found.content).into_iter().map(|finding| (path.clone(), finding)));
            files.push((key, path, found.version()));
        }
        if let Some(below) = below.filter(|_| files.is_empty()) {
            return Err(MemoryError::new(
                ErrorKind::Missing,
                format!("the memory has no files below {below}"),
            )
            .help("name a directory of the memory, like `public`"));
        }
        match findings.is_empty() {
            true => Ok(files),
            false => Err(refusal(&findings)),
        }
    }

    /// Writes one file, exactly as it was scanned.
    async fn publish_one(
        &self,
        store: &dyn MemoryStore,
        key: &str,
        path: &MemoryPath,
        version: &Version,
        tag: Option<&str>,
    ) -> Result<Base, MemoryError> {
        let moved = |what: &str| {
            MemoryError::new(ErrorKind::Moved, format!("{path} {what}"))
                .help("run it again; what was published so far stays")
        };
        let found = self.root.read(path)?.filter(|found| found.version() == *version);
        let content = found.ok_or_else(|| moved("changed while it was published"))?.content;
        let condition = tag.map_or(Condition::Absent, Condition::Is);
        let base = |tag: String| Base { version: version.clone(), tag, removed: false };
        let put = store.put(key, &content, condition).await;
        if let Ok(Put::Done(tag)) = put {
            return Ok(base(tag));
        }
        // An answer that was lost, or a refusal because of one's own earlier try.
        let there = store.get(key).await.map_err(|error| unreachable(&error))?;
        match (there, put) {
            (Some(there), _) if there.content == content => Ok(base(there.tag)),
            (_, Ok(_)) => Err(moved("was written there by somebody else")),
            (_, Err(error)) => Err(unreachable(&error)),
        }
    }
}

/// Whether one of two places holds the other.
fn overlap(one: &str, other: &str) -> bool {
    let whole = |url: &str| format!("{}/", url.trim_end_matches('/'));
    let (one, other) = (whole(one), whole(other));
    one.starts_with(&other) || other.starts_with(&one)
}

/// Says where the secrets are, and nothing of them.
fn refusal(findings: &[(MemoryPath, Finding)]) -> MemoryError {
    let place = |(path, finding): &(MemoryPath, Finding)| {
        format!("{path}:{}:{} {} ({})", finding.line, finding.column, finding.what, finding.rule)
    };
    let mut places: Vec<String> = findings.iter().take(NAMED).map(place).collect();
    if findings.len() > NAMED {
        places.push(format!("{} more", findings.len() - NAMED));
    }
    let message = format!("nothing is published, there are secrets in it: {}", places.join("; "));
    MemoryError::new(ErrorKind::Guarded, message)
        .help("take them out, and change them where they are used: every host of the memory has read them")
}
