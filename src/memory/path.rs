//! Paths of the memory: relative, in a form that means one file on every host.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The most bytes of a path: S3's bound for keys is 1024, and the prefix needs some.
const LONGEST: usize = 800;

/// The most bytes of a name: what ext4 and xfs take, less what a temporary name adds.
const LONGEST_NAME: usize = 240;

/// How the names of clawd's own files in the directory begin.
pub const RESERVED: &str = ".clawd";

/// A file's path in the memory: names joined by `/`, none of them `.`, `..`, empty or with control characters. It can be
/// joined to a directory without leaving it, as long as no link is followed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MemoryPath(String);

/// Why a text is no path of the memory.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{}` is no path in the memory: {why}", .text.escape_debug())]
pub struct PathError {
    text: String,
    why: &'static str,
}

impl MemoryPath {
    /// The path as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Its names, outermost first.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.split('/')
    }

    /// The file's own name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or(&self.0)
    }
}

impl FromStr for MemoryPath {
    type Err = PathError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refuse = |why| Err(PathError { text: text.to_owned(), why });
        if text.len() > LONGEST {
            return refuse("it is longer than 800 bytes");
        }
        if text.starts_with('/') {
            return refuse("it is absolute; paths are relative to the memory");
        }
        for name in text.split('/') {
            match name {
                "" => return refuse("a name in it is empty"),
                "." | ".." => return refuse("`.` and `..` are no names"),
                _ => {}
            }
            if name.len() > LONGEST_NAME {
                return refuse("a name in it is longer than 240 bytes");
            }
            if name.chars().any(|c| c.is_control() || matches!(c, '\\' | '\u{fffd}')) {
                return refuse("a name in it holds a control character or a backslash");
            }
            if name.starts_with(RESERVED) {
                return refuse("names that begin with `.clawd` are clawd's own");
            }
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for MemoryPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for MemoryPath {
    type Error = PathError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<MemoryPath> for String {
    fn from(path: MemoryPath) -> Self {
        path.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_leave_the_directory_is_no_path() {
        for text in ["goals.md", "a/b c/d.md", "ä/ö.md", ".hidden", "a/clawd", "..a", "a..b"] {
            assert!(text.parse::<MemoryPath>().is_ok(), "{text}");
        }
        let long = "a".repeat(241);
        for text in [
            "",
            "/",
            "/etc/passwd",
            "..",
            "../a",
            "a/../b",
            "a/./b",
            "a//b",
            "a/",
            "a\nb",
            "a\0b",
            "a\\b",
            "\u{1b}[2J",
            ".clawd-memory.json",
            ".clawd/x",
            &long,
        ] {
            assert!(text.parse::<MemoryPath>().is_err(), "{text}");
        }
        let error = "a\n/../b".parse::<MemoryPath>().expect_err("no path").to_string();
        assert_eq!(
            error,
            "`a\\n/../b` is no path in the memory: a name in it holds a control character or a backslash"
        );
    }
}
