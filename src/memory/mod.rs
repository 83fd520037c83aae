//! L1, pure: the shared memory as data: which files belong to it, what a host may do with each, what a round of syncing
//! does with a path, how two versions become one, and what is refused.
//!
//! Never reads a file, a clock or a server: callers bring versions and texts, and do what is decided here. What is promised:
//! every line that somebody wrote is in the shared memory afterwards, or was removed by a version whose base held it, or lies
//! under `conflicts/`.

#![deny(clippy::disallowed_methods)]

pub mod class;
pub mod decide;
pub mod guard;
pub mod merge;
pub mod path;
pub mod secrets;
pub mod version;

pub use class::{Class, GlobError, Rules};
pub use decide::{Head, Move, decide};
pub use guard::{Refused, mass_deletion, shrinks};
pub use merge::{Merged, merge};
pub use path::{MemoryPath, PathError};
pub use version::{Tombstone, Version};
