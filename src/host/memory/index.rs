//! What both sides had after the last round: the base of the next one. Losing it loses no line: without a base, nothing is taken to
//! be removed.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::digest::sha256_hex;
use crate::memory::{MemoryPath, Version};

const FORMAT: u32 = 1;

/// What both sides had of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Base {
    pub(super) version: Version,
    /// The store's tag of it: while it is there, nobody wrote anything else.
    pub(super) tag: String,
    /// Whether neither had it any more: the tag is that of the tombstone, which names the version.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) removed: bool,
}

/// The bases by path.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Index {
    pub(super) bases: BTreeMap<MemoryPath, Base>,
}

#[derive(Serialize, Deserialize)]
struct Written {
    format: u32,
    remote: String,
    rules: String,
    sum: String,
    bases: BTreeMap<MemoryPath, Base>,
}

impl Index {
    /// Its content. `remote` is the store that the bases are of, `rules` the digest of what belongs to the memory: a file that was
    /// ignored yesterday was not deleted.
    pub(super) fn encode(&self, remote: &str, rules: &str) -> Vec<u8> {
        let (remote, rules) = (remote.to_owned(), rules.to_owned());
        let written = Written { format: FORMAT, remote, rules, sum: self.sum(), bases: self.bases.clone() };
        serde_json::to_vec(&written).unwrap_or_default()
    }

    /// Reads one; `None` when it is damaged, of another form, of another store or under other rules.
    pub(super) fn decode(text: &[u8], remote: &str, rules: &str) -> Option<Self> {
        let written: Written = serde_json::from_slice(text).ok()?;
        let index = Self { bases: written.bases };
        let is_whole = written.format == FORMAT && written.sum == index.sum();
        (is_whole && written.remote == remote && written.rules == rules).then_some(index)
    }

    fn sum(&self) -> String {
        sha256_hex(&serde_json::to_vec(&self.bases).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_that_is_damaged_or_of_another_store_is_none() {
        let base = Base { version: Version::of(b"a"), tag: "t".to_owned(), removed: false };
        let index = Index { bases: BTreeMap::from([("a.md".parse().expect("a path"), base)]) };
        let text = index.encode("file:///a", "r");
        assert_eq!(Index::decode(&text, "file:///a", "r"), Some(index));
        assert_eq!(Index::decode(&text, "file:///b", "r"), None);
        assert_eq!(Index::decode(&text, "file:///a", "s"), None);
        assert_eq!(Index::decode(&text[..text.len() - 1], "file:///a", "r"), None);
        let other = String::from_utf8(text).expect("text").replace("\"t\"", "\"u\"");
        assert_eq!(Index::decode(other.as_bytes(), "file:///a", "r"), None);
    }
}
