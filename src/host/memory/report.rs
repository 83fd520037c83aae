//! What a round did, path by path.

use super::dir::Skipped;
use crate::memory::MemoryPath;

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
    pub(super) fn add(&mut self, other: Self) {
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
    pub(super) fn sort(&mut self) {
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
