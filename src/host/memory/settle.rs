//! Settling one path of a round: the move that was decided on, by conditional writes on both sides.
//!
//! There first, and then here: what breaks off in between is in the shared memory, and the next round merges what is here into it.
//! Nothing is written here but under the memory's lock, and what was there is kept before.

use std::sync::atomic::Ordering;

use super::Shrinking;
use super::error::{ErrorKind, MemoryError};
use super::index::Base;
use super::report::{Aside, Report};
use super::round::{AT_ONCE, Round, Seen, Worked, unreachable, why};
use crate::memory::{Head, MemoryPath, Merged, Move, Tombstone, Version, merge, shrinks};
use crate::providers::ports::{Condition, Put};

/// How often a path is looked at again because somebody was faster.
const TRIES: u32 = 5;

/// What became of a path.
enum Settled {
    /// It is as it should be, with this as its base from now on.
    As(Option<Base>),
    /// Somebody was faster.
    Again,
    /// It stays as it is: the report says why, or it is somebody else's.
    Left,
}

/// A base of a file that is there.
pub(super) fn base(version: &Version, tag: &str) -> Base {
    Base { version: version.clone(), tag: tag.to_owned(), removed: false }
}

impl Round<'_> {
    pub(super) async fn settle(&self, path: MemoryPath, first: Seen) -> Worked {
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
    pub(super) fn local(&self, path: &MemoryPath, version: &Version) -> Result<Vec<u8>, MemoryError> {
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
    pub(super) fn refusal(
        &self,
        class: &crate::memory::Class,
        before: &[u8],
        after: &[u8],
    ) -> Option<String> {
        match self.shrinking {
            Shrinking::Allowed => None,
            Shrinking::Refused => shrinks(class, before, after).err().map(|refused| refused.to_string()),
        }
    }

    /// What the shared memory has of a path: as it was read, else from the blobs, else read now.
    pub(super) async fn remote_content(
        &self,
        path: &MemoryPath,
        seen: &Seen,
    ) -> Result<Vec<u8>, MemoryError> {
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
