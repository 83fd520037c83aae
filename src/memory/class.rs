//! What a file is, which says who writes it and how two versions become one.

use std::collections::BTreeSet;

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

use super::path::MemoryPath;
use crate::digest::sha256_hex;

/// The canonical files of every memory.
pub const CANONICAL: [&str; 3] = ["architecture.md", "goals.md", "ops.md"];

/// Where edits are put aside that somebody has to look at.
pub const CONFLICTS: &str = "conflicts";

/// What a file is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Class {
    /// What all hosts share; the shared version is authoritative, and it is guarded against being emptied.
    Canonical,
    /// One host's notes of one day, `YYYY-MM-DD_HOST.md`, or what that host put aside. Only that host writes it.
    Own {
        /// The host whose it is.
        host: String,
    },
    /// Anything else; everybody writes it.
    Other,
}

/// What belongs to a memory and how, as one host sees it.
#[derive(Debug, Clone)]
pub struct Rules {
    /// This host.
    host: String,
    canonical: BTreeSet<String>,
    /// Globs of what stays out, and what they mean: those without a slash a name wherever it is, as in a .gitignore, the others a
    /// path. `*` matches anything but `/`, `**` anything.
    ignored: Vec<String>,
    names: GlobSet,
    paths: GlobSet,
}

/// A glob that means nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{glob}` is no pattern: {why}")]
pub struct GlobError {
    glob: String,
    why: String,
}

fn glob_set<'a>(globs: impl Iterator<Item = &'a String>) -> Result<GlobSet, GlobError> {
    let mut set = GlobSetBuilder::new();
    for glob in globs {
        let failed = |error: &globset::Error| GlobError { glob: glob.clone(), why: error.kind().to_string() };
        set.add(GlobBuilder::new(glob).literal_separator(true).build().map_err(|error| failed(&error))?);
    }
    set.build().map_err(|error| GlobError {
        glob: error.glob().unwrap_or_default().to_owned(),
        why: error.kind().to_string(),
    })
}

impl Rules {
    /// The rules of a host. `canonical` names further canonical files, `ignored` holds globs.
    ///
    /// # Errors
    /// A glob that means nothing.
    pub fn new(
        host: &str,
        canonical: impl IntoIterator<Item = String>,
        ignored: impl IntoIterator<Item = String>,
    ) -> Result<Self, GlobError> {
        let canonical = CANONICAL.into_iter().map(str::to_owned).chain(canonical).collect();
        let ignored: Vec<String> = ignored.into_iter().collect();
        let (paths, names): (Vec<&String>, Vec<&String>) =
            ignored.iter().partition(|glob| glob.contains('/'));
        let (names, paths) = (glob_set(names.into_iter())?, glob_set(paths.into_iter())?);
        Ok(Self { host: host.to_owned(), canonical, ignored, names, paths })
    }

    /// The host's name.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// What a file is.
    #[must_use]
    pub fn class(&self, path: &MemoryPath) -> Class {
        let mut names = path.names();
        if names.next() == Some(CONFLICTS) {
            return match names.next() {
                Some(host) => Class::Own { host: host.to_owned() },
                None => Class::Other,
            };
        }
        if self.canonical.contains(path.as_str()) {
            return Class::Canonical;
        }
        match author(path.name()) {
            Some(host) => Class::Own { host: host.to_owned() },
            None => Class::Other,
        }
    }

    /// Whether this host writes such files into the shared memory.
    #[must_use]
    pub fn writes(&self, class: &Class) -> bool {
        match class {
            Class::Own { host } => *host == self.host,
            Class::Canonical | Class::Other => true,
        }
    }

    /// Whether a file stays out of the memory.
    #[must_use]
    pub fn ignores(&self, path: &MemoryPath) -> bool {
        self.paths.is_match(path.as_str()) || path.names().any(|name| self.names.is_match(name))
    }

    /// What changes when the rules do: a file that was ignored yesterday was not deleted.
    #[must_use]
    pub fn digest(&self) -> String {
        sha256_hex(format!("{}\0{:?}\0{:?}", self.host, self.canonical, self.ignored).as_bytes())
    }

    /// Where an edit of this host is put aside: the file with its directories, named after what it was made on and what it is, so
    /// that no second one overwrites it.
    #[must_use]
    pub fn aside(&self, path: &MemoryPath, base: &str, edit: &str) -> Option<MemoryPath> {
        let (stem, extension) = match path.as_str().rsplit_once('.') {
            Some((stem, extension)) if !stem.is_empty() && !extension.contains('/') => {
                (stem, format!(".{extension}"))
            }
            _ => (path.as_str(), String::new()),
        };
        format!("{CONFLICTS}/{}/{stem}~{base}~{edit}{extension}", self.host).parse().ok()
    }
}

/// The host of a name like `2026-11-26_CLAWDINATOR-1.md`.
fn author(name: &str) -> Option<&str> {
    let (day, host) = name.strip_suffix(".md")?.split_once('_')?;
    let is_day = day.len() == 10
        && day.bytes().enumerate().all(|(index, byte)| match index {
            4 | 7 => byte == b'-',
            _ => byte.is_ascii_digit(),
        });
    (is_day && !host.is_empty()).then_some(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> MemoryPath {
        text.parse().expect(text)
    }

    #[test]
    fn names_say_whose_a_file_is() {
        let rules = Rules::new("H-1", ["team/plan.md".to_owned()], []).expect("rules");
        let own = |host: &str| Class::Own { host: host.to_owned() };
        for (text, class, writes) in [
            ("goals.md", Class::Canonical, true),
            ("team/plan.md", Class::Canonical, true),
            ("team/goals.md", Class::Other, true),
            ("2026-11-26_H-1.md", own("H-1"), true),
            ("notes/2026-11-26_H-2.md", own("H-2"), false),
            ("2026-11-26_.md", Class::Other, true),
            ("2026-1-26_H-2.md", Class::Other, true),
            ("2026-11-26.md", Class::Other, true),
            ("conflicts/H-2/goals~a~b.md", own("H-2"), false),
            ("conflicts/H-1/goals~a~b.md", own("H-1"), true),
        ] {
            assert_eq!(rules.class(&path(text)), class, "{text}");
            assert_eq!(rules.writes(&class), writes, "{text}");
        }
    }

    #[test]
    fn globs_ignore_names_or_paths() {
        let rules = Rules::new("H", [], ["*.swp", "cache/**", "a/*.md"].map(str::to_owned)).expect("globs");
        for (text, ignored) in [
            ("x.swp", true),
            ("a/b/x.swp", true),
            ("x.swp/y", true),
            ("cache/a/b", true),
            ("cache", false),
            ("a/x.md", true),
            ("a/b/x.md", false),
            ("b/a/x.md", false),
        ] {
            assert_eq!(rules.ignores(&path(text)), ignored, "{text}");
        }
        let error = Rules::new("H", [], ["a[".to_owned()]).expect_err("no glob");
        assert!(error.to_string().starts_with("`a[` is no pattern: "), "{error}");
    }

    #[test]
    fn what_is_put_aside_keeps_its_place_and_its_extension() {
        let rules = Rules::new("H", [], []).expect("rules");
        for (text, aside) in [
            ("goals.md", "conflicts/H/goals~b~e.md"),
            ("a.b/goals", "conflicts/H/a.b/goals~b~e"),
            (".hidden", "conflicts/H/.hidden~b~e"),
        ] {
            assert_eq!(rules.aside(&path(text), "b", "e"), Some(path(aside)));
        }
    }
}
