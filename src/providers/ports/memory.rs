//! The shared memory where all hosts reach it: objects that are written under a condition.

use async_trait::async_trait;

use super::Answer;

/// What a store has under a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// The key, below the memory's prefix. It may be anything: who lists decides what is a path.
    pub key: String,
    /// What changes whenever the object does, in the store's own words.
    pub tag: String,
}

/// An object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Its content.
    pub content: Vec<u8>,
    /// Its tag.
    pub tag: String,
}

/// What must be there for a write to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition<'a> {
    /// Nothing.
    Absent,
    /// The object of this tag.
    Is(&'a str),
}

/// What became of a conditional write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Put {
    /// It is done; the object has this tag now.
    Done(String),
    /// Something else is there. That may be an earlier try of one's own whose answer was lost: read it before deciding.
    Lost,
}

/// A shared memory. Every write is conditional: none overwrites what its writer has not seen. Nothing is ever deleted.
#[async_trait]
pub trait MemoryStore: Send + Sync {
    /// All objects, sorted by key. `known` are keys that were there before, sorted: by them a store that is far away can be listed in
    /// parts at once. They change nothing about what is found.
    async fn list(&self, known: &[&str]) -> Answer<Vec<Listed>>;
    /// An object; `None` when there is none.
    async fn get(&self, key: &str) -> Answer<Option<Stored>>;
    /// Whether the store keeps what is overwritten; `None` where that is not known, or not to be known.
    async fn keeps_versions(&self) -> Answer<Option<bool>>;
    /// Writes an object under a condition.
    async fn put(&self, key: &str, content: &[u8], condition: Condition<'_>) -> Answer<Put>;
}
