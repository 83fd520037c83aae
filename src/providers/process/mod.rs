//! Adapters that run programs of this machine: nix and OpenTofu. And what is on its disk: image files.
//!
//! A program is started with a list of arguments, never through a shell; its environment is what is on a list, nothing
//! else (`tool`). Output is data: it is stripped of control sequences before anybody prints it.

#![allow(clippy::disallowed_methods)] // this is where it is done

mod builders;
mod clock;
pub(crate) mod disk;
mod flake;
mod hosts;
mod memory;
mod nix;
mod progress;
mod secrets;
mod tofu;
mod tool;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use self::tool::{AT_ONCE, Ending, Said, Tool};
use super::ports::{Answer, Clock, Hosts, MemoryStore, Nix, Secrets, Tofu};
use crate::image::BlockMap;
use crate::units::Bytes;

/// Nix on this machine.
#[must_use]
pub fn nix(place: Workplace) -> Arc<dyn Nix> {
    Arc::new(nix::NixProcess::new(place))
}

/// OpenTofu on this machine.
#[must_use]
pub fn tofu(place: Workplace, surroundings: Surroundings) -> Arc<dyn Tofu> {
    Arc::new(tofu::TofuProcess::new(place, surroundings))
}

/// Hosts that this machine stands for: `clawd` runs what runs on them, `images` holds their volumes.
#[must_use]
pub fn hosts(
    place: Workplace,
    clawd: PathBuf,
    images: PathBuf,
    variables: Vec<(String, OsString)>,
) -> Arc<dyn Hosts> {
    Arc::new(hosts::LocalHosts::new(place, clawd, images, variables))
}

/// Secrets of this machine: its environment and the project's files.
#[must_use]
pub fn secrets(place: Workplace) -> Arc<dyn Secrets> {
    Arc::new(secrets::LocalSecrets::new(place))
}

/// The blocks of an image file on this machine.
///
/// # Errors
/// When the file cannot be read, or has another size.
pub fn block_map(path: &Path, size: Bytes) -> Answer<BlockMap> {
    disk::block_map(path, size)
}

/// A shared memory in a directory of this machine.
///
/// # Errors
/// When the directory cannot be made.
pub fn memory_store(dir: &Path) -> Answer<Arc<dyn MemoryStore>> {
    Ok(Arc::new(memory::DirStore::open(dir)?))
}

/// The system's clock.
#[must_use]
pub fn clock() -> Arc<dyn Clock> {
    Arc::new(clock::SystemClock)
}

pub use tofu::Surroundings;

/// The environment of clawd itself, as `cli` read it.
pub type Environment = Vec<(OsString, OsString)>;

/// Text without control sequences and other control characters but line ends and tabs.
pub(super) fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if c == '\u{1b}' {
            // `ESC [ ... letter`; anything else after ESC is one character.
            if chars.next() == Some('[') {
                while chars.next().is_some_and(|c| !c.is_ascii_alphabetic()) {}
            }
        } else if !c.is_control() || matches!(c, '\n' | '\t') {
            out.push(c);
        }
    }
    out
}

/// Where the adapters of a profile work.
#[derive(Debug, Clone)]
pub struct Workplace {
    /// The project's root.
    pub root: PathBuf,
    /// What can be computed again.
    pub cache: PathBuf,
    /// The environment of clawd.
    pub environment: Environment,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_sequences_are_stripped() {
        assert_eq!(plain("\u{1b}[31;1merror:\u{1b}[0m a\tb\nc\r\u{7}"), "error: a\tb\nc");
        assert_eq!(plain("open \u{1b}[31"), "open ");
    }
}
