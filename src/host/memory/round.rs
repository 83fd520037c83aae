//! One round of syncing: each path is looked at on both sides, decided on, and settled (`settle`) by conditional writes. Whoever is first on
//! either side wins the write, never the content: the other looks again and merges.
//!
//! What the store was asked is read back where its answer is lost. A round that breaks off at any point has done whole steps only,
//! and the next one finds them done.
//!
//! Many paths are on their way at once, all of them on one thread. The memory's lock is only held where nothing is waited for; of
//! what is read from the store, a bounded part is held until its path is worked on. A store that does not answer any more ends the
//! round: what was not tried is said.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::stream::{self, StreamExt as _};

use super::dir::Skipped;
use super::error::{ErrorKind, MemoryError};
use super::index::{Base, Index};
use super::report::Report;
use super::settle;
use super::{Memory, Shrinking};
use crate::memory::{Head, MemoryPath, Move, Tombstone, Version, decide, mass_deletion};
use crate::providers::ProviderError;
use crate::providers::ports::{Condition, MemoryStore, Stored};

/// Paths that are asked about, or settled, at once: a store far away answers one call in some ten milliseconds.
pub(super) const AT_ONCE: usize = 32;

/// How much of what was read from the store is held in memory between looking and acting, in bytes. What is beyond is read again.
const HELD: usize = 32 << 20;

/// A path as a look found it.
pub(super) struct Seen {
    pub(super) local: Option<Version>,
    pub(super) head: Head,
    /// What the shared memory has, where it had to be read and is not too much.
    pub(super) stored: Option<Vec<u8>>,
    pub(super) tag: Option<String>,
    /// The version that was removed here on purpose, where there is no file.
    pub(super) removed: Option<Version>,
}

impl Seen {
    pub(super) fn condition(&self) -> Condition<'_> {
        self.tag.as_deref().map_or(Condition::Absent, Condition::Is)
    }

    /// What both sides have from now on, where the shared memory stays as it was seen.
    pub(super) fn base(&self, version: &Version) -> Option<Base> {
        self.tag.as_deref().map(|tag| settle::base(version, tag))
    }
}

/// What came of working on a path.
pub(super) struct Worked {
    pub(super) path: MemoryPath,
    /// Its base from now on, where that is settled.
    pub(super) base: Option<Option<Base>>,
    pub(super) report: Report,
}

pub(super) struct Round<'a> {
    pub(super) memory: &'a Memory,
    pub(super) store: &'a dyn MemoryStore,
    /// The bases as they were before the round.
    pub(super) index: Index,
    pub(super) shrinking: Shrinking,
    /// How much is held of what was read from the store, in bytes.
    held: AtomicUsize,
    /// Notes of removals that there were when the round began.
    pub(super) noted: BTreeSet<MemoryPath>,
    /// Failures of the store or the lock in a row.
    pub(super) failures: AtomicUsize,
}

impl Memory {
    /// One round with a store; `remote` is its name, which the bases are kept under.
    ///
    /// # Errors
    /// The store cannot be listed; too many files would be removed; the directory is no memory any more. What is wrong with
    /// single files is in the report.
    pub async fn sync(
        &self,
        store: &dyn MemoryStore,
        remote: &str,
        shrinking: Shrinking,
    ) -> Result<Report, MemoryError> {
        let _alone = self.state.lock_round()?;
        let ended = self.round(store, remote, shrinking).await;
        let in_step = ended.as_ref().is_ok_and(Report::in_step);
        if let Err(error) = self.state.put_last(remote, in_step) {
            // The round is what it was; only whoever asks how things stand asks in vain.
            tracing::warn!(%error, "how the round ended cannot be written");
        }
        ended
    }

    /// What a round would do now. Nothing is written, and nothing stands in its way: what another round does meanwhile makes it
    /// old, as all that is told of a memory is.
    ///
    /// # Errors
    /// As for a round.
    pub async fn preview(&self, store: &dyn MemoryStore, remote: &str) -> Result<Report, MemoryError> {
        let round = Round::new(self, store, remote, Shrinking::Refused)?;
        let (seen, mut report) = round.look_at_all().await?;
        round.check_removals(&seen)?;
        for (path, it) in seen {
            let class = self.class(&path);
            let list = match round.decide(&path, &it) {
                Move::Keep | Move::Adopt => continue,
                Move::Push | Move::PushBack | Move::Merge if !self.rules.writes(&class) => {
                    // What somebody else removed, and nobody edited here, just goes.
                    let why = "it is not this host's to write; a round puts an edit aside";
                    report.refused.push((path, why.to_owned()));
                    continue;
                }
                Move::Push => {
                    let local = it.local.as_ref().map(|version| round.local(&path, version)).transpose()?;
                    let before = round.remote_content(&path, &it).await?;
                    if let Some(why) = round.refusal(&class, &before, &local.unwrap_or_default()) {
                        report.refused.push((path, why));
                        continue;
                    }
                    &mut report.pushed
                }
                Move::PushBack => &mut report.restored,
                Move::Pull | Move::Restore => &mut report.pulled,
                Move::Merge => &mut report.merged,
                Move::RemoveHere | Move::RemoveThere => &mut report.removed,
            };
            list.push(path);
        }
        report.sort();
        Ok(report)
    }

    async fn round(
        &self,
        store: &dyn MemoryStore,
        remote: &str,
        shrinking: Shrinking,
    ) -> Result<Report, MemoryError> {
        let round = Round::new(self, store, remote, shrinking)?;
        let (seen, mut report) = round.look_at_all().await?;
        round.check_removals(&seen)?;
        let mut index = round.index.clone();
        let rules = self.rules.digest();
        // Removals first, and remembered at once: a file that is made again is none that was removed.
        let (gone, rest): (Vec<_>, Vec<_>) = seen
            .into_iter()
            .partition(|(path, it)| matches!(round.decide(path, it), Move::RemoveHere | Move::RemoveThere));
        round.settle_all(gone, &mut index, &mut report).await;
        if index != round.index {
            self.state.put_index(&index, remote, &rules)?;
        }
        round.settle_all(rest, &mut index, &mut report).await;
        // What was put aside is shared as well, so that whoever has to look finds it everywhere.
        let places: Vec<MemoryPath> = report.aside.iter().map(|aside| aside.place.clone()).collect();
        let mut more = Vec::new();
        for path in places {
            match round.look(&path, None).await {
                Ok(it) => more.push((path, it)),
                Err(error) => report.failed.push((path, why(&error))),
            }
        }
        round.settle_all(more, &mut index, &mut report).await;
        report.sort();
        // What was settled is settled, also where other paths were not.
        if index != round.index {
            self.state.put_index(&index, remote, &rules)?;
        }
        Ok(report)
    }
}

impl<'a> Round<'a> {
    fn new(
        memory: &'a Memory,
        store: &'a dyn MemoryStore,
        remote: &str,
        shrinking: Shrinking,
    ) -> Result<Self, MemoryError> {
        let index = memory.state.index(remote, &memory.rules.digest())?;
        let noted = memory.state.removals()?.into_keys().filter(|path| !memory.rules.ignores(path)).collect();
        let (held, failures) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Ok(Self { memory, store, index, shrinking, held, noted, failures })
    }

    /// Looks at every path that either side has, or had.
    async fn look_at_all(&self) -> Result<(Vec<(MemoryPath, Seen)>, Report), MemoryError> {
        let known: Vec<&str> = self.index.bases.keys().map(MemoryPath::as_str).collect();
        let listed = self.store.list(&known).await.map_err(|error| unreachable(&error))?;
        let (files, skipped) = self.memory.list()?;
        let mut report = Report { skipped, ..Report::default() };
        let mut tags = BTreeMap::new();
        for object in listed {
            match object.key.parse::<MemoryPath>() {
                Ok(path) if self.memory.rules.ignores(&path) => {}
                Ok(path) => {
                    tags.insert(path, object.tag);
                }
                Err(error) => report.skipped.push(Skipped { name: object.key, why: error.to_string() }),
            }
        }
        let known = self.index.bases.keys().filter(|path| !self.memory.rules.ignores(path)).cloned();
        let paths: BTreeSet<MemoryPath> = files
            .into_iter()
            .chain(tags.keys().cloned())
            .chain(known)
            .chain(self.noted.iter().cloned())
            .collect();
        let looks = stream::iter(paths).map(|path| {
            let tag = tags.get(&path).map(String::as_str);
            async move {
                let look = self.look(&path, Some(tag)).await;
                (path, look)
            }
        });
        let looks: Vec<_> = looks.buffered(AT_ONCE).collect().await;
        let mut seen = Vec::with_capacity(looks.len());
        for (path, look) in looks {
            match look {
                Ok(it) => seen.push((path, it)),
                Err(error) => report.failed.push((path, why(&error))),
            }
        }
        Ok((seen, report))
    }

    /// Many files that go at once are an accident.
    fn check_removals(&self, seen: &[(MemoryPath, Seen)]) -> Result<(), MemoryError> {
        let goes = |(path, it): &&(MemoryPath, Seen)| {
            matches!(self.decide(path, it), Move::RemoveHere | Move::RemoveThere)
        };
        let removed = seen.iter().filter(goes).count();
        let there =
            seen.iter().filter(|(_, it)| it.local.is_some() || matches!(it.head, Head::File(_))).count();
        match mass_deletion(there, removed) {
            Err(refused) if self.shrinking == Shrinking::Refused => {
                Err(MemoryError::new(ErrorKind::Guarded, refused.to_string())
                    .help("nothing was done; if it is meant, say `--allow-shrink`"))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn base(&self, path: &MemoryPath) -> Option<&Base> {
        self.index.bases.get(path)
    }

    pub(super) fn decide(&self, path: &MemoryPath, seen: &Seen) -> Move {
        let base = self.base(path).filter(|base| !base.removed).map(|base| &base.version);
        decide(base, seen.local.as_ref(), &seen.head, seen.removed.as_ref())
    }

    /// Looks at a path on both sides. `listed` is its tag in a listing, `None` when the store is asked anew.
    pub(super) async fn look(
        &self,
        path: &MemoryPath,
        listed: Option<Option<&str>>,
    ) -> Result<Seen, MemoryError> {
        let local = self.memory.root.read(path)?.map(|found| found.version());
        // Read after the file: whoever removes one notes it first.
        let removed = match local {
            Some(_) => None,
            None => self.memory.state.removals()?.remove(path),
        };
        let seen =
            |head, stored, tag| Seen { local: local.clone(), head, stored, tag, removed: removed.clone() };
        match (listed, self.base(path)) {
            (Some(None), _) => return Ok(seen(Head::Absent, None, None)),
            (Some(Some(tag)), Some(base)) if base.tag == tag => {
                let version = base.version.clone();
                let head = if base.removed { Head::Removed(version) } else { Head::File(version) };
                return Ok(seen(head, None, Some(tag.to_owned())));
            }
            _ => {}
        }
        let Some(Stored { content, tag }) = self.get(path).await? else {
            return Ok(seen(Head::Absent, None, None));
        };
        if let Some(stone) = Tombstone::read(&content) {
            return Ok(seen(Head::Removed(stone.of), None, Some(tag)));
        }
        let version = Version::of(&content);
        let stored = (local.as_ref() != Some(&version)).then_some(content).and_then(|it| self.hold(it));
        Ok(seen(Head::File(version), stored, Some(tag)))
    }

    /// Holds a content, unless too much is held by now.
    fn hold(&self, content: Vec<u8>) -> Option<Vec<u8>> {
        let held = self.held.fetch_add(content.len(), Ordering::Relaxed);
        if held + content.len() <= HELD {
            return Some(content);
        }
        self.held.fetch_sub(content.len(), Ordering::Relaxed);
        None
    }

    pub(super) async fn get(&self, path: &MemoryPath) -> Result<Option<Stored>, MemoryError> {
        self.store.get(path.as_str()).await.map_err(|error| unreachable(&error))
    }

    async fn settle_all(&self, seen: Vec<(MemoryPath, Seen)>, index: &mut Index, report: &mut Report) {
        let mut working =
            stream::iter(seen).map(|(path, it)| self.settle(path, it)).buffer_unordered(AT_ONCE);
        while let Some(Worked { path, base, report: done }) = working.next().await {
            report.add(done);
            match base {
                Some(Some(base)) => {
                    index.bases.insert(path, base);
                }
                Some(None) => {
                    index.bases.remove(&path);
                }
                None => {}
            }
        }
    }
}

/// What failed, with the next move.
pub(super) fn why(error: &MemoryError) -> String {
    error.help.as_ref().map_or_else(|| error.to_string(), |help| format!("{error}; {help}"))
}

/// The store cannot be reached, or says no.
#[must_use]
pub fn unreachable(error: &ProviderError) -> MemoryError {
    // A role that lets a host write its own notes refuses the others one by one, and is no store that went away.
    let kind = match error.kind {
        crate::providers::ErrorKind::Permanent | crate::providers::ErrorKind::Refused => ErrorKind::Rejected,
        _ => ErrorKind::Remote,
    };
    let told = MemoryError::new(kind, error.to_string());
    match &error.help {
        Some(help) => told.help(help.clone()),
        None => told.help("run it again; nothing is half done"),
    }
}
