//! What a round does with one path: the three-way decision of base, local and remote version. No clock and no time of a file is
//! compared, so a host whose clock is off by years syncs like any other.

use super::version::Version;

/// What the shared memory has at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Head {
    /// Nothing. That is no removal: a removal leaves a tombstone.
    Absent,
    /// A file.
    File(Version),
    /// What was a file until somebody removed that version of it.
    Removed(Version),
}

/// What a round does with a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Move {
    /// Nothing: all are the same.
    Keep,
    /// Note that both sides have the same, whatever they had before.
    Adopt,
    /// Write the local version over what is there remotely, which is the base or nothing.
    Push,
    /// Write the local version where the shared memory has none any more: an edit wins over a removal, and what is missing
    /// without a tombstone was not removed.
    PushBack,
    /// Write the remote version over the local one, which is the base or nothing.
    Pull,
    /// Bring back a local file that is gone without having been removed.
    Restore,
    /// Make one of both.
    Merge,
    /// Remove the local file, of which the tombstone names the version.
    RemoveHere,
    /// Put a tombstone over the remote version, which is the one that was removed here, or that it was made of.
    RemoveThere,
}

/// Decides on a path. `base` is what both sides had after the last round, `None` also when nobody knows; `removed` is the version
/// that somebody removed here on purpose since then.
#[must_use]
pub fn decide(
    base: Option<&Version>,
    local: Option<&Version>,
    remote: &Head,
    removed: Option<&Version>,
) -> Move {
    let same = |other: &Version| base == Some(other);
    match (local, remote) {
        (None, Head::Absent | Head::Removed(_)) if base.is_none() => Move::Keep,
        (None, Head::Absent | Head::Removed(_)) => Move::Adopt,
        (Some(local), Head::File(remote)) if local == remote => match same(local) {
            true => Move::Keep,
            false => Move::Adopt,
        },
        (Some(local), Head::File(_)) if same(local) => Move::Pull,
        (Some(_), Head::File(remote)) if same(remote) => Move::Push,
        (Some(_), Head::File(_)) => Move::Merge,
        (Some(_), Head::Absent) if base.is_none() => Move::Push,
        (Some(_), Head::Absent) => Move::PushBack,
        // Whoever wrote the tombstone had seen this version.
        (Some(local), Head::Removed(of)) if same(local) && local == of => Move::RemoveHere,
        (Some(_), Head::Removed(_)) => Move::PushBack,
        (None, Head::File(_)) if base.is_none() && removed.is_none() => Move::Pull,
        // Without a base nobody here has seen it shared: what was removed here may have been another file of the same content. Who
        // edits and then removes had seen the base.
        (None, Head::File(remote))
            if base.is_some() && removed.is_some_and(|removed| removed == remote || same(remote)) =>
        {
            Move::RemoveThere
        }
        (None, Head::File(_)) => Move::Restore,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(name: &str) -> Version {
        Version::of(name.as_bytes())
    }

    /// Every case of the table in the design: base, local, remote, removed here.
    #[test]
    fn every_case_has_its_move() {
        let (a, b, c) = (version("a"), version("b"), version("c"));
        let some = |it: &Version| Some(it.clone());
        let file = |it: &Version| Head::File(it.clone());
        let gone = |it: &Version| Head::Removed(it.clone());
        for (base, local, remote, removed, wanted) in [
            (some(&a), some(&a), file(&a), None, Move::Keep),
            (None, None, Head::Absent, None, Move::Keep),
            (None, None, gone(&a), None, Move::Keep),
            // Both sides have the same.
            (some(&a), some(&b), file(&b), None, Move::Adopt),
            (None, some(&b), file(&b), None, Move::Adopt),
            (some(&a), None, Head::Absent, None, Move::Adopt),
            (some(&a), None, gone(&b), None, Move::Adopt),
            // One side changed.
            (some(&a), some(&b), file(&a), None, Move::Push),
            (None, some(&b), Head::Absent, None, Move::Push),
            (some(&a), some(&a), file(&b), None, Move::Pull),
            (None, None, file(&b), None, Move::Pull),
            // Both changed, or nobody knows from what.
            (some(&a), some(&b), file(&c), None, Move::Merge),
            (None, some(&b), file(&c), None, Move::Merge),
            // Gone there.
            (some(&a), some(&a), gone(&a), None, Move::RemoveHere),
            (some(&a), some(&a), Head::Absent, None, Move::PushBack),
            (some(&a), some(&a), gone(&b), None, Move::PushBack),
            (some(&a), some(&b), gone(&a), None, Move::PushBack),
            (None, some(&a), gone(&a), None, Move::PushBack),
            (some(&a), some(&b), Head::Absent, None, Move::PushBack),
            // Gone here.
            (some(&a), None, file(&a), some(&a), Move::RemoveThere),
            (some(&a), None, file(&a), some(&b), Move::RemoveThere),
            (None, None, file(&a), some(&a), Move::Restore),
            (some(&a), None, file(&a), None, Move::Restore),
            (some(&a), None, file(&b), some(&a), Move::Restore),
            (some(&a), None, file(&b), None, Move::Restore),
        ] {
            let told = decide(base.as_ref(), local.as_ref(), &remote, removed.as_ref());
            assert_eq!(told, wanted, "{base:?} {local:?} {remote:?} {removed:?}");
        }
    }
}
