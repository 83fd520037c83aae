//! One round of syncing: each path is looked at on both sides, decided on, and settled by conditional writes. Whoever is first on
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
use super::{Memory, Shrinking};
use crate::memory::{
    Head, MemoryPath, Merged, Move, Tombstone, Version, decide, mass_deletion, merge, shrinks,
};
use crate::providers::ProviderError;
use crate::providers::ports::{Condition, MemoryStore, Put, Stored};

/// How often a path is looked at again because somebody was faster.
const TRIES: u32 = 5;

/// Paths that are asked about, or settled, at once: a store far away answers one call in some ten milliseconds.
pub(super) const AT_ONCE: usize = 32;

/// How much of what was read from the store is held in memory between looking and acting, in bytes. What is beyond is read again.
const HELD: usize = 32 << 20;

/// An edit that was put aside for a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Aside {
    /// The file it was made in.
    pub path: MemoryPath,
    /// Where it lies now.
    pub place: MemoryPath,
}

/// What a round did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    /// Written to the shared memory.
    pub pushed: Vec<MemoryPath>,
    /// Written here.
    pub pulled: Vec<MemoryPath>,
    /// Made of both sides' versions.
    pub merged: Vec<MemoryPath>,
    /// Removed on one side because it was removed on the other.
    pub removed: Vec<MemoryPath>,
    /// Brought back on one side: gone without having been removed, or edited where it was removed.
    pub restored: Vec<MemoryPath>,
    /// Put aside for a person.
    pub aside: Vec<Aside>,
    /// Refused because it looks like an accident, with the reason.
    pub refused: Vec<(MemoryPath, String)>,
    /// What failed, with the reason; the next round tries again.
    pub failed: Vec<(MemoryPath, String)>,
    /// What in directory or store is no file of a memory.
    pub skipped: Vec<Skipped>,
}

impl Report {
    /// Takes over what was done with one path.
    fn add(&mut self, other: Self) {
        self.pushed.extend(other.pushed);
        self.pulled.extend(other.pulled);
        self.merged.extend(other.merged);
        self.removed.extend(other.removed);
        self.restored.extend(other.restored);
        self.aside.extend(other.aside);
        self.refused.extend(other.refused);
        self.failed.extend(other.failed);
        self.skipped.extend(other.skipped);
    }

    /// Puts the lists in order: what was on its way at once ends in any.
    fn sort(&mut self) {
        let paths =
            [&mut self.pushed, &mut self.pulled, &mut self.merged, &mut self.removed, &mut self.restored];
        paths.into_iter().for_each(|list| list.sort());
        self.aside.sort_by(|a, b| a.path.cmp(&b.path));
        self.refused.sort();
        self.failed.sort();
    }

    /// Whether both sides have the same now, and nothing waits for anybody.
    #[must_use]
    pub fn in_step(&self) -> bool {
        self.aside.is_empty() && self.refused.is_empty() && self.failed.is_empty()
    }
}

/// A path as a look found it.
struct Seen {
    local: Option<Version>,
    head: Head,
    /// What the shared memory has, where it had to be read and is not too much.
    stored: Option<Vec<u8>>,
    tag: Option<String>,
    /// The version that was removed here on purpose, where there is no file.
    removed: Option<Version>,
}

impl Seen {
    fn condition(&self) -> Condition<'_> {
        self.tag.as_deref().map_or(Condition::Absent, Condition::Is)
    }

    /// What both sides have from now on, where the shared memory stays as it was seen.
    fn base(&self, version: &Version) -> Option<Base> {
        self.tag.as_deref().map(|tag| base(version, tag))
    }
}

/// A base of a file that is there.
fn base(version: &Version, tag: &str) -> Base {
    Base { version: version.clone(), tag: tag.to_owned(), removed: false }
}

/// What became of a path.
enum Settled {
    /// It is as it should be, with this as its base from now on.
    As(Option<Base>),
    /// Somebody was faster.
    Again,
    /// It stays as it is: the report says why, or it is somebody else's.
    Left,
}

/// What came of working on a path.
struct Worked {
    path: MemoryPath,
    /// Its base from now on, where that is settled.
    base: Option<Option<Base>>,
    report: Report,
}

struct Round<'a> {
    memory: &'a Memory,
    store: &'a dyn MemoryStore,
    /// The bases as they were before the round.
    index: Index,
    shrinking: Shrinking,
    /// How much is held of what was read from the store, in bytes.
    held: AtomicUsize,
    /// Notes of removals that there were when the round began.
    noted: BTreeSet<MemoryPath>,
    /// Failures of the store or the lock in a row.
    failures: AtomicUsize,
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

    fn base(&self, path: &MemoryPath) -> Option<&Base> {
        self.index.bases.get(path)
    }

    fn decide(&self, path: &MemoryPath, seen: &Seen) -> Move {
        let base = self.base(path).filter(|base| !base.removed).map(|base| &base.version);
        decide(base, seen.local.as_ref(), &seen.head, seen.removed.as_ref())
    }

    /// Looks at a path on both sides. `listed` is its tag in a listing, `None` when the store is asked anew.
    async fn look(&self, path: &MemoryPath, listed: Option<Option<&str>>) -> Result<Seen, MemoryError> {
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

    async fn get(&self, path: &MemoryPath) -> Result<Option<Stored>, MemoryError> {
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

    async fn settle(&self, path: MemoryPath, first: Seen) -> Worked {
        let mut report = Report::default();
        let base = match self.settle_one(&path, first, &mut report).await {
            Ok(base) => {
                self.failures.store(0, Ordering::Relaxed);
                base
            }
            Err(error) => {
                if matches!(error.kind, ErrorKind::Remote | ErrorKind::Locked) {
                    self.failures.fetch_add(1, Ordering::Relaxed);
                }
                report.failed.push((path.clone(), why(&error)));
                None
            }
        };
        Worked { path, base, report }
    }

    /// Settles a path; its base from now on, where that is settled.
    async fn settle_one(
        &self,
        path: &MemoryPath,
        first: Seen,
        report: &mut Report,
    ) -> Result<Option<Option<Base>>, MemoryError> {
        if self.failures.load(Ordering::Relaxed) >= AT_ONCE {
            let message = "not tried: one call after the other failed".to_owned();
            return Err(MemoryError::new(ErrorKind::Remote, message).help("the next round tries again"));
        }
        let mut seen = first;
        for _ in 0..TRIES {
            match self.act(path, &seen, report).await {
                Ok(Settled::As(base)) => {
                    self.forget_old_removal(path)?;
                    return Ok(Some(base));
                }
                Ok(Settled::Left) => return Ok(None),
                Ok(Settled::Again) => {}
                // Somebody wrote here between the look and the lock.
                Err(error) if error.kind == ErrorKind::Moved => {}
                Err(error) => return Err(error),
            }
            seen = self.look(path, None).await?;
        }
        Err(MemoryError::new(ErrorKind::Moved, format!("others write {path} all the time"))
            .help("the next round tries again"))
    }

    /// Takes the note of a removal away whose file is there again, put there by a program that knows nothing of notes: should it go
    /// once more without `rm`, it was not removed.
    fn forget_old_removal(&self, path: &MemoryPath) -> Result<(), MemoryError> {
        if !self.noted.contains(path) {
            return Ok(());
        }
        // Under the lock, no `rm` is half done.
        let _lock = self.memory.state.lock()?;
        match self.memory.root.read(path)? {
            Some(_) => self.memory.state.forget_removal(path),
            None => Ok(()),
        }
    }

    async fn act(&self, path: &MemoryPath, seen: &Seen, report: &mut Report) -> Result<Settled, MemoryError> {
        let class = self.memory.class(path);
        let writes = self.memory.rules.writes(&class);
        match (self.decide(path, seen), &seen.local) {
            (Move::Keep, Some(version)) => Ok(Settled::As(seen.base(version))),
            (Move::Adopt, Some(version)) => {
                self.memory.state.remember(&self.local(path, version)?)?;
                Ok(Settled::As(seen.base(version)))
            }
            (Move::Keep | Move::Adopt, None) => {
                self.forget_removal(path, seen)?;
                Ok(Settled::As(removed(seen)))
            }
            (Move::Push, Some(version)) if writes => {
                let local = self.local(path, version)?;
                let before = self.remote_content(path, seen).await?;
                if let Some(why) = self.refusal(&class, &before, &local) {
                    report.refused.push((path.clone(), why));
                    return Ok(Settled::Left);
                }
                let Some(tag) = self.put(path, &local, seen.condition()).await? else {
                    return Ok(Settled::Again);
                };
                self.memory.state.remember(&local)?;
                report.pushed.push(path.clone());
                Ok(Settled::As(Some(base(version, &tag))))
            }
            (Move::PushBack, Some(version)) if writes => {
                let local = self.local(path, version)?;
                let Some(tag) = self.put(path, &local, seen.condition()).await? else {
                    return Ok(Settled::Again);
                };
                self.memory.state.remember(&local)?;
                report.restored.push(path.clone());
                Ok(Settled::As(Some(base(version, &tag))))
            }
            (Move::PushBack, Some(version)) if self.base(path).is_some_and(|it| it.version == *version) => {
                // Nobody edited it here. Whose it is removed it, or brings it back.
                match seen.head {
                    Head::Removed(_) => self.remove_here(path, version, seen, report),
                    _ => Ok(Settled::Left),
                }
            }
            (Move::Push | Move::PushBack, Some(version)) => {
                let local = self.local(path, version)?;
                self.put_aside(path, &local, seen, report).await
            }
            (Move::Merge, Some(version)) => {
                let local = self.local(path, version)?;
                let remote = self.remote_content(path, seen).await?;
                let known = self.base(path).filter(|base| !base.removed).map(|base| base.version.clone());
                let known = match known {
                    Some(version) => self.memory.state.blob(&version)?,
                    None => None,
                };
                let Merged::Both(whole) =
                    merge(&self.memory.rules, &class, known.as_deref(), &local, &remote)
                else {
                    return self.put_aside(path, &local, seen, report).await;
                };
                if let Some(why) = self.refusal(&class, &remote, &whole) {
                    report.refused.push((path.clone(), why));
                    return Ok(Settled::Left);
                }
                // There first: if this breaks off, the next round merges what is here into what is there, which holds it.
                let tag = match whole == remote {
                    true => seen.tag.clone(),
                    false => self.put(path, &whole, seen.condition()).await?,
                };
                let Some(tag) = tag else { return Ok(Settled::Again) };
                self.write_here(path, &whole, Some(&local))?;
                self.memory.state.remember(&whole)?;
                report.merged.push(path.clone());
                Ok(Settled::As(Some(base(&Version::of(&whole), &tag))))
            }
            (it @ (Move::Pull | Move::Restore), version) => {
                let remote = self.remote_content(path, seen).await?;
                let local = version.as_ref().map(|version| self.local(path, version)).transpose()?;
                self.write_here(path, &remote, local.as_deref())?;
                self.memory.state.remember(&remote)?;
                let list = if it == Move::Pull { &mut report.pulled } else { &mut report.restored };
                list.push(path.clone());
                self.forget_removal(path, seen)?;
                Ok(Settled::As(seen.base(&Version::of(&remote))))
            }
            (Move::RemoveHere, Some(version)) => self.remove_here(path, version, seen, report),
            (Move::RemoveThere, _) => {
                let Head::File(of) = &seen.head else { return Ok(Settled::Left) };
                let stone = Tombstone { of: of.clone() }.encode();
                let Some(tag) = self.put(path, &stone, seen.condition()).await? else {
                    return Ok(Settled::Again);
                };
                self.forget_removal(path, seen)?;
                report.removed.push(path.clone());
                Ok(Settled::As(Some(Base { version: of.clone(), tag, removed: true })))
            }
            // What is decided for a local file is decided only where there is one.
            (Move::Push | Move::PushBack | Move::Merge | Move::RemoveHere, None) => Ok(Settled::Left),
        }
    }

    fn remove_here(
        &self,
        path: &MemoryPath,
        version: &Version,
        seen: &Seen,
        report: &mut Report,
    ) -> Result<Settled, MemoryError> {
        let local = self.local(path, version)?;
        let _lock = self.memory.state.lock()?;
        self.memory.state.keep(&local)?;
        self.memory.root.remove(path, version)?;
        report.removed.push(path.clone());
        Ok(Settled::As(removed(seen)))
    }

    /// The local content, if it is still the version that was seen.
    fn local(&self, path: &MemoryPath, version: &Version) -> Result<Vec<u8>, MemoryError> {
        let found = self.memory.root.read(path)?;
        found
            .filter(|found| found.version() == *version)
            .map(|found| found.content)
            .ok_or_else(|| MemoryError::new(ErrorKind::Moved, format!("{path} changed in this moment")))
    }

    /// Takes the note of a removal away once both sides have settled it, if it is still the one that was seen.
    fn forget_removal(&self, path: &MemoryPath, seen: &Seen) -> Result<(), MemoryError> {
        let Some(removed) = &seen.removed else { return Ok(()) };
        let _lock = self.memory.state.lock()?;
        if self.memory.state.removals()?.get(path) == Some(removed) {
            self.memory.state.forget_removal(path)?;
        }
        Ok(())
    }

    /// Why a change of the shared version is refused.
    fn refusal(&self, class: &crate::memory::Class, before: &[u8], after: &[u8]) -> Option<String> {
        match self.shrinking {
            Shrinking::Allowed => None,
            Shrinking::Refused => shrinks(class, before, after).err().map(|refused| refused.to_string()),
        }
    }

    /// What the shared memory has of a path: as it was read, else from the blobs, else read now.
    async fn remote_content(&self, path: &MemoryPath, seen: &Seen) -> Result<Vec<u8>, MemoryError> {
        let Head::File(version) = &seen.head else { return Ok(Vec::new()) };
        if let Some(stored) = &seen.stored {
            return Ok(stored.clone());
        }
        if let Some(blob) = self.memory.state.blob(version)? {
            return Ok(blob);
        }
        match self.get(path).await?.filter(|stored| Version::of(&stored.content) == *version) {
            Some(stored) => Ok(stored.content),
            None => Err(MemoryError::new(ErrorKind::Moved, format!("{path} changed in the shared memory"))),
        }
    }

    /// Writes to the store; the object's tag, or `None` when something else is there.
    async fn put(
        &self,
        path: &MemoryPath,
        content: &[u8],
        condition: Condition<'_>,
    ) -> Result<Option<String>, MemoryError> {
        let put = self.store.put(path.as_str(), content, condition).await;
        if let Ok(Put::Done(tag)) = put {
            return Ok(Some(tag));
        }
        // A lost answer, or a refusal because of one's own earlier try: what is there tells.
        let stored = self.get(path).await?;
        match (stored, put) {
            (Some(stored), _) if stored.content == content => Ok(Some(stored.tag)),
            (_, Ok(_)) => Ok(None),
            (_, Err(error)) => Err(unreachable(&error)),
        }
    }

    /// Puts a content in a file's place here, if that is still as it was seen.
    fn write_here(&self, path: &MemoryPath, content: &[u8], seen: Option<&[u8]>) -> Result<(), MemoryError> {
        if seen == Some(content) {
            return Ok(());
        }
        let _lock = self.memory.state.lock()?;
        if let Some(seen) = seen {
            self.memory.state.keep(seen)?;
        }
        let mode = self.memory.root.read(path)?.map(|found| found.mode);
        self.memory.root.put(path, content, seen.map(Version::of).as_ref(), mode)
    }

    /// Puts a local version aside as a whole, and then takes the shared one.
    async fn put_aside(
        &self,
        path: &MemoryPath,
        local: &[u8],
        seen: &Seen,
        report: &mut Report,
    ) -> Result<Settled, MemoryError> {
        let base = self.base(path).map_or("none", |base| base.version.short());
        let edit = Version::of(local);
        let place = self.memory.rules.aside(path, base, edit.short());
        let place = place.ok_or_else(|| {
            MemoryError::new(ErrorKind::Path, format!("{path} is too long to be put aside under `conflicts`"))
                .help("give it a shorter name")
        })?;
        let there = self.memory.root.read(&place)?.map(|found| found.content);
        if there.as_deref() != Some(local) {
            self.write_here(&place, local, there.as_deref())?;
        }
        let settled = if let Head::File(_) = &seen.head {
            let remote = self.remote_content(path, seen).await?;
            self.write_here(path, &remote, Some(local))?;
            self.memory.state.remember(&remote)?;
            seen.base(&Version::of(&remote))
        } else {
            let _lock = self.memory.state.lock()?;
            self.memory.state.keep(local)?;
            self.memory.root.remove(path, &edit)?;
            removed(seen)
        };
        report.aside.push(Aside { path: path.clone(), place });
        Ok(Settled::As(settled))
    }
}

/// The base of a path that neither side has; what is remembered is the tombstone, so that it is not read each time.
fn removed(seen: &Seen) -> Option<Base> {
    match (&seen.head, &seen.tag) {
        (Head::Removed(of), Some(tag)) => Some(Base { version: of.clone(), tag: tag.clone(), removed: true }),
        _ => None,
    }
}

/// What failed, with the next move.
fn why(error: &MemoryError) -> String {
    error.help.as_ref().map_or_else(|| error.to_string(), |help| format!("{error}; {help}"))
}

/// The store cannot be reached, or says no.
#[must_use]
pub fn unreachable(error: &ProviderError) -> MemoryError {
    let told = MemoryError::new(ErrorKind::Remote, error.to_string());
    match &error.help {
        Some(help) => told.help(help.clone()),
        None => told.help("run it again; nothing is half done"),
    }
}
