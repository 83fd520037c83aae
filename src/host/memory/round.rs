//! One round of syncing: each path is looked at on both sides, decided on, and settled by conditional writes. Whoever is first on
//! either side wins the write, never the content: the other looks again and merges.
//!
//! What the store was asked is read back where its answer is lost. A round that breaks off at any point has done whole steps only,
//! and the next one finds them done.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

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
    /// Whether both sides have the same now, and nothing waits for anybody.
    #[must_use]
    pub fn in_step(&self) -> bool {
        self.aside.is_empty() && self.refused.is_empty() && self.failed.is_empty()
    }
}

/// A path as a look found it.
struct Seen {
    local: Option<Vec<u8>>,
    head: Head,
    /// The object, where it had to be read.
    stored: Option<Vec<u8>>,
    tag: Option<String>,
}

impl Seen {
    fn condition(&self) -> Condition<'_> {
        self.tag.as_deref().map_or(Condition::Absent, Condition::Is)
    }
}

/// What became of a path.
enum Settled {
    /// It is as it should be, with this as its base from now on.
    As(Option<Base>),
    /// Somebody was faster.
    Again,
    /// It stays as it is, and the report says why.
    Left,
}

struct Round<'a> {
    memory: &'a Memory,
    store: &'a dyn MemoryStore,
    index: Index,
    removals: BTreeMap<MemoryPath, Version>,
    shrinking: Shrinking,
    report: Report,
    /// Paths that came up meanwhile.
    more: VecDeque<MemoryPath>,
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
        let mut round = Round {
            memory: self,
            store,
            index: self.state.index(remote)?,
            removals: self.state.removals()?,
            shrinking,
            report: Report::default(),
            more: VecDeque::new(),
        };
        let before = round.index.clone();
        let ended = round.run().await;
        // What was settled is settled, also when the round broke off.
        if round.index != before {
            self.state.put_index(&round.index, remote)?;
        }
        ended.map(|()| round.report)
    }
}

impl Round<'_> {
    async fn run(&mut self) -> Result<(), MemoryError> {
        let listed = self.store.list().await.map_err(|error| unreachable(&error))?;
        let (files, skipped) = self.memory.list()?;
        self.report.skipped = skipped;
        let mut tags = BTreeMap::new();
        for object in listed {
            match object.key.parse::<MemoryPath>() {
                Ok(path) if self.memory.rules.ignores(&path) => {}
                Ok(path) => {
                    tags.insert(path, object.tag);
                }
                Err(error) => {
                    self.report.skipped.push(Skipped { name: object.key, why: error.to_string() });
                }
            }
        }
        let known = self.index.bases.keys().filter(|path| !self.memory.rules.ignores(path)).cloned();
        let paths: BTreeSet<MemoryPath> =
            files.into_iter().chain(tags.keys().cloned()).chain(known).collect();
        let mut seen = Vec::new();
        for path in paths {
            let tag = tags.get(&path).map(String::as_str);
            match self.look(&path, Some(tag)).await {
                Ok(it) => seen.push((path, it)),
                Err(error) => self.report.failed.push((path, error.to_string())),
            }
        }
        self.check_removals(&seen)?;
        for (path, it) in seen {
            self.settle(path, it).await?;
        }
        while let Some(path) = self.more.pop_front() {
            let it = self.look(&path, None).await?;
            self.settle(path, it).await?;
        }
        Ok(())
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
        let local = seen.local.as_deref().map(Version::of);
        decide(base, local.as_ref(), &seen.head, self.removals.get(path))
    }

    /// Looks at a path on both sides. `listed` is its tag in a listing, `None` when the store is asked anew.
    async fn look(&self, path: &MemoryPath, listed: Option<Option<&str>>) -> Result<Seen, MemoryError> {
        let local = self.memory.root.read(path)?.map(|found| found.content);
        let seen = |head, stored: Option<Stored>, tag| Seen {
            local: local.clone(),
            head,
            stored: stored.map(|it| it.content),
            tag,
        };
        match (listed, self.base(path)) {
            (Some(None), _) => return Ok(seen(Head::Absent, None, None)),
            (Some(Some(tag)), Some(base)) if base.tag == tag => {
                let version = base.version.clone();
                let head = if base.removed { Head::Removed(version) } else { Head::File(version) };
                return Ok(seen(head, None, Some(tag.to_owned())));
            }
            _ => {}
        }
        let stored = self.store.get(path.as_str()).await.map_err(|error| unreachable(&error))?;
        let (head, tag) = match &stored {
            None => (Head::Absent, None),
            Some(stored) => {
                let head = match Tombstone::read(&stored.content) {
                    Some(stone) => Head::Removed(stone.of),
                    None => Head::File(Version::of(&stored.content)),
                };
                (head, Some(stored.tag.clone()))
            }
        };
        Ok(seen(head, stored, tag))
    }

    async fn settle(&mut self, path: MemoryPath, first: Seen) -> Result<(), MemoryError> {
        let mut seen = first;
        for _ in 0..TRIES {
            match self.act(&path, &seen).await {
                Ok(Settled::As(Some(base))) => {
                    self.index.bases.insert(path, base);
                    return Ok(());
                }
                Ok(Settled::As(None)) => {
                    self.index.bases.remove(&path);
                    return Ok(());
                }
                Ok(Settled::Left) => return Ok(()),
                Ok(Settled::Again) => {}
                // Somebody wrote here between the look and the lock.
                Err(error) if error.kind == ErrorKind::Moved => {}
                Err(error) => {
                    self.report.failed.push((path, error.to_string()));
                    return Ok(());
                }
            }
            seen = self.look(&path, None).await?;
        }
        self.report
            .failed
            .push((path, "others write it all the time; the next round tries again".to_owned()));
        Ok(())
    }

    async fn act(&mut self, path: &MemoryPath, seen: &Seen) -> Result<Settled, MemoryError> {
        let class = self.memory.class(path);
        let writes = self.memory.rules.writes(&class);
        let local = seen.local.as_deref();
        let base = |content: &[u8], tag: &str| {
            Some(Base { version: Version::of(content), tag: tag.to_owned(), removed: false })
        };
        match (self.decide(path, seen), local) {
            (Move::Keep | Move::Adopt, Some(local)) => {
                self.memory.state.keep(local)?;
                Ok(Settled::As(seen.tag.as_deref().and_then(|tag| base(local, tag))))
            }
            (Move::Keep | Move::Adopt, None) => {
                if self.removals.remove(path).is_some() {
                    self.memory.state.forget_removal(path)?;
                }
                Ok(Settled::As(removed(seen)))
            }
            (Move::Push, Some(local)) if writes => {
                let before = self.remote_content(path, seen).await?;
                if let Some(why) = self.refusal(&class, &before, local) {
                    self.report.refused.push((path.clone(), why));
                    return Ok(Settled::Left);
                }
                let Some(tag) = self.put(path, local, seen.condition()).await? else {
                    return Ok(Settled::Again);
                };
                self.memory.state.keep(local)?;
                self.report.pushed.push(path.clone());
                Ok(Settled::As(base(local, &tag)))
            }
            (Move::PushBack, Some(local)) if writes => {
                let Some(tag) = self.put(path, local, seen.condition()).await? else {
                    return Ok(Settled::Again);
                };
                self.memory.state.keep(local)?;
                self.report.restored.push(path.clone());
                Ok(Settled::As(base(local, &tag)))
            }
            (Move::PushBack, Some(local))
                if self.base(path).is_some_and(|it| it.version == Version::of(local)) =>
            {
                // Nobody edited it here, and whose it is brings it back.
                Ok(Settled::Left)
            }
            (Move::Push | Move::PushBack, Some(local)) => self.put_aside(path, local, seen).await,
            (Move::Merge, Some(local)) => {
                let remote = self.remote_content(path, seen).await?;
                let known = self.base(path).filter(|base| !base.removed).map(|base| base.version.clone());
                let known = match known {
                    Some(version) => self.memory.state.blob(&version)?,
                    None => None,
                };
                let Merged::Both(whole) = merge(&self.memory.rules, &class, known.as_deref(), local, &remote)
                else {
                    return self.put_aside(path, local, seen).await;
                };
                if let Some(why) = self.refusal(&class, &remote, &whole) {
                    self.report.refused.push((path.clone(), why));
                    return Ok(Settled::Left);
                }
                // There first: if this breaks off, the next round merges what is here into what is there, which holds it.
                let tag = match whole == remote {
                    true => seen.tag.clone(),
                    false => self.put(path, &whole, seen.condition()).await?,
                };
                let Some(tag) = tag else { return Ok(Settled::Again) };
                self.write_here(path, &whole, Some(local))?;
                self.memory.state.keep(&whole)?;
                self.report.merged.push(path.clone());
                Ok(Settled::As(base(&whole, &tag)))
            }
            (it @ (Move::Pull | Move::Restore), local) => {
                let remote = self.remote_content(path, seen).await?;
                self.write_here(path, &remote, local)?;
                self.memory.state.keep(&remote)?;
                let list = if it == Move::Pull { &mut self.report.pulled } else { &mut self.report.restored };
                list.push(path.clone());
                if self.removals.remove(path).is_some() {
                    self.memory.state.forget_removal(path)?;
                }
                Ok(Settled::As(seen.tag.as_deref().and_then(|tag| base(&remote, tag))))
            }
            (Move::RemoveHere, Some(local)) => {
                let _lock = self.memory.state.lock()?;
                self.memory.state.keep(local)?;
                self.memory.root.remove(path, &Version::of(local))?;
                self.report.removed.push(path.clone());
                Ok(Settled::As(removed(seen)))
            }
            (Move::RemoveThere, _) => {
                let Head::File(of) = &seen.head else { return Ok(Settled::Left) };
                let stone = Tombstone { of: of.clone() }.encode();
                let Some(tag) = self.put(path, &stone, seen.condition()).await? else {
                    return Ok(Settled::Again);
                };
                self.memory.state.forget_removal(path)?;
                self.report.removed.push(path.clone());
                Ok(Settled::As(Some(Base { version: of.clone(), tag, removed: true })))
            }
            // What is decided for a local file is decided only where there is one.
            (Move::Push | Move::PushBack | Move::Merge | Move::RemoveHere, None) => Ok(Settled::Left),
        }
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
        let stored = self.store.get(path.as_str()).await.map_err(|error| unreachable(&error))?;
        match stored.filter(|stored| Version::of(&stored.content) == *version) {
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
        let stored = self.store.get(path.as_str()).await.map_err(|error| unreachable(&error))?;
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
        &mut self,
        path: &MemoryPath,
        local: &[u8],
        seen: &Seen,
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
            self.memory.state.keep(&remote)?;
            seen.tag.clone().map(|tag| Base { version: Version::of(&remote), tag, removed: false })
        } else {
            let _lock = self.memory.state.lock()?;
            self.memory.state.keep(local)?;
            self.memory.root.remove(path, &edit)?;
            removed(seen)
        };
        self.more.push_back(place.clone());
        self.report.aside.push(Aside { path: path.clone(), place });
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

fn unreachable(error: &ProviderError) -> MemoryError {
    let told = MemoryError::new(ErrorKind::Remote, error.to_string());
    match &error.help {
        Some(help) => told.help(help.clone()),
        None => told.help("run it again; nothing is half done"),
    }
}
