//! Versions of files, and the mark of one that was removed.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::digest::sha256_hex;

/// A version of a file: the sha256 of its content, in hex. No clock and no counter goes into it, so two hosts that write the
/// same write one version.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Version(String);

/// Why a text is no version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no version: expected the 64 hex digits of a sha256")]
pub struct VersionError(String);

impl Version {
    /// The version of a content.
    #[must_use]
    pub fn of(content: &[u8]) -> Self {
        Self(sha256_hex(content))
    }

    /// The 64 hex digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Enough of it for people.
    #[must_use]
    pub fn short(&self) -> &str {
        &self.0[..12]
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Version {
    type Err = VersionError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if text.len() == 64 && text.bytes().all(is_hex) {
            Ok(Self(text.to_owned()))
        } else {
            Err(VersionError(text.to_owned()))
        }
    }
}

impl TryFrom<String> for Version {
    type Error = VersionError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Version> for String {
    fn from(version: Version) -> Self {
        version.0
    }
}

/// What stands in a removed file's place in the shared memory. It is written over the version that is removed, under the
/// condition that this version is still there: a removal that races with an edit loses, and the version before it stays in the
/// store's history. An object that is deleted would say neither who removed what, nor that anybody did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tombstone {
    /// The version that was removed.
    pub of: Version,
}

/// How the content of a tombstone begins; no file of the memory may be one.
const MARK: &str = "clawd-memory-tombstone-v1 ";

impl Tombstone {
    /// Its content.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        format!("{MARK}{}\n", self.of).into_bytes()
    }

    /// Reads one; `None` for everything else.
    #[must_use]
    pub fn read(content: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(content).ok()?;
        let of = text.strip_prefix(MARK)?.strip_suffix('\n')?.parse().ok()?;
        Some(Self { of })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tombstone_reads_back_and_nothing_else_is_one() {
        let stone = Tombstone { of: Version::of(b"text") };
        assert_eq!(Tombstone::read(&stone.encode()), Some(stone.clone()));
        let mut longer = stone.encode();
        longer.extend_from_slice(b"more\n");
        for other in [&b""[..], b"clawd-memory-tombstone-v1 ab\n", &longer, &[0xff]] {
            assert_eq!(Tombstone::read(other), None);
        }
    }

    #[test]
    fn a_version_is_64_hex_digits() {
        let version = Version::of(b"text");
        assert_eq!(version.as_str().parse(), Ok(version.clone()));
        for text in ["", "ab", &version.as_str().to_uppercase(), &format!("{version}0")] {
            assert!(text.parse::<Version>().is_err(), "{text}");
        }
    }
}
