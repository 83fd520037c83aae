//! The project's files as a script may see them: inside the root, through no link that leaves it, UTF-8, of
//! bounded size. Every file read is part of the inputs' digest, and its text is kept to quote from.

#![allow(clippy::disallowed_methods)] // this is where it is done

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use super::FileName;
use super::tokens::has_private;
use crate::diagnostic::{Code, Diagnostic};
use crate::digest::sha256_hex;
use crate::primitives::ProjectFiles;

/// The texts of scripts and modules by the name diagnostics use.
#[derive(Debug, Clone, Default)]
pub struct Sources(BTreeMap<FileName, Arc<str>>);

impl Sources {
    /// The text of a file.
    #[must_use]
    pub fn get(&self, file: &str) -> Option<&Arc<str>> {
        self.0.get(file)
    }

    /// Adds a text.
    pub fn insert(&mut self, file: FileName, text: Arc<str>) {
        self.0.insert(file, text);
    }

    /// Length in characters of the word, number or string that begins at a place; 1 for anything else, 0
    /// when the place is not in a known text.
    pub(super) fn word_length(&self, file: &str, line: u32, column: u32) -> u32 {
        let Some(text) = self.get(file) else { return 0 };
        let Some(line) = text.lines().nth(line.saturating_sub(1) as usize) else {
            return 0;
        };
        let rest: Vec<char> = line.chars().skip(column.saturating_sub(1) as usize).collect();
        let word = |c: &char| c.is_alphanumeric() || *c == '_';
        let length = match rest.first() {
            None => 0,
            Some(quote @ ('"' | '`')) => {
                let mut escaped = false;
                let end = rest.iter().skip(1).position(|c| {
                    let ends = c == quote && !escaped;
                    escaped = *c == '\\' && !escaped;
                    ends
                });
                end.map_or(1, |end| end + 2)
            }
            Some(c) if word(c) => {
                // A property's name belongs to it, `image.sha256`.
                let belongs =
                    |(at, c): &(usize, &char)| word(c) || (**c == '.' && rest.get(at + 1).is_some_and(word));
                rest.iter().enumerate().take_while(belongs).count()
            }
            Some(_) => 1,
        };
        u32::try_from(length).unwrap_or(1)
    }
}

/// The project of one evaluation.
#[derive(Debug)]
pub struct Project {
    root: PathBuf,
    max_bytes: usize,
    sources: RefCell<Sources>,
    digests: RefCell<BTreeMap<String, String>>,
}

impl Project {
    pub(super) fn new(root: PathBuf, max_bytes: usize) -> Self {
        Self { root, max_bytes, sources: RefCell::default(), digests: RefCell::default() }
    }

    pub(super) fn sources(&self) -> std::cell::Ref<'_, Sources> {
        self.sources.borrow()
    }

    /// Digests of all files that were read, by path.
    pub(super) fn digests(&self) -> BTreeMap<String, String> {
        self.digests.borrow().clone()
    }

    /// Keeps a text to quote from.
    pub(super) fn keep_source(&self, file: &FileName, text: Arc<str>) {
        self.sources.borrow_mut().insert(Arc::clone(file), text);
    }

    /// The real path of something in the project.
    fn inside(&self, path: &str) -> Result<PathBuf, Diagnostic> {
        let relative = Path::new(path);
        let outside = |why: &str| {
            Diagnostic::error(Code::ScriptOutside, format!("`{}` {why}", path.escape_debug()))
                .help("scripts read files inside the project only, by a path relative to its root")
        };
        if relative.is_absolute() {
            return Err(outside("is an absolute path"));
        }
        if relative.components().any(|part| matches!(part, Component::ParentDir)) {
            return Err(outside("leads upwards with `..`"));
        }
        let unreadable = |error: &std::io::Error| {
            Diagnostic::error(Code::ScriptFile, format!("cannot read `{}`: {error}", path.escape_debug()))
                .help("paths are relative to the project's root")
        };
        let root = self.root.canonicalize().map_err(|error| unreadable(&error))?;
        let real = root.join(relative).canonicalize().map_err(|error| unreadable(&error))?;
        if !real.starts_with(&root) {
            return Err(outside("leads out of the project through a link"));
        }
        if real.starts_with(root.join(".clawd")) {
            return Err(outside("is clawd's own state, which differs from run to run"));
        }
        Ok(real)
    }

    /// Reads a file of the project.
    pub(super) fn read(&self, path: &str) -> Result<String, Diagnostic> {
        let unreadable = |error: &std::io::Error| {
            Diagnostic::error(Code::ScriptFile, format!("cannot read `{}`: {error}", path.escape_debug()))
                .help("paths are relative to the project's root")
        };
        let real = self.inside(path)?;
        let metadata = fs::metadata(&real).map_err(|error| unreadable(&error))?;
        if !metadata.is_file() {
            return Err(Diagnostic::error(
                Code::ScriptFile,
                format!("`{}` is not a regular file", path.escape_debug()),
            ));
        }
        if metadata.len() > self.max_bytes as u64 {
            let message =
                format!("`{path}` has {} bytes, at most {} are read", metadata.len(), self.max_bytes);
            return Err(Diagnostic::error(Code::ScriptLimit, message)
                .help("raise `max_string_bytes` under `[limits]` in clawd.toml"));
        }
        let bytes = fs::read(&real).map_err(|error| unreadable(&error))?;
        self.digests.borrow_mut().insert(path.to_owned(), sha256_hex(&bytes));
        let text = String::from_utf8(bytes)
            .map_err(|_| Diagnostic::error(Code::ScriptFile, format!("`{path}` is not UTF-8 text")))?;
        if has_private(&text) {
            return Err(forged(path));
        }
        Ok(text)
    }
}

/// The most files a directory may hold that becomes part of a plan's inputs.
const MAX_TREE: usize = 2_000;

/// What a directory holds that changes by running a plan, or that no plan reads: state, caches, hidden files.
fn is_left_out(name: &str) -> bool {
    (name.starts_with('.') && name != ".terraform.lock.hcl") || name.contains(".tfstate")
}

impl Project {
    /// Whether a link leads to a file inside the project.
    fn leads_to_file(&self, link: &Path) -> std::io::Result<bool> {
        let root = self.root.canonicalize()?;
        Ok(link.canonicalize().is_ok_and(|real| real.starts_with(root) && real.is_file()))
    }

    /// Adds the files below a directory, as paths relative to it. The project's root itself holds all sorts of things: there
    /// only the files right in it are meant.
    fn walk(&self, real: &Path, under: &str, is_top: bool, found: &mut Vec<String>) -> std::io::Result<()> {
        for entry in fs::read_dir(real)? {
            let entry = entry?;
            let Some(name) = entry.file_name().to_str().map(str::to_owned) else { continue };
            if is_left_out(&name) {
                continue;
            }
            let path = if under.is_empty() { name } else { format!("{under}/{name}") };
            let kind = entry.file_type()?;
            // A link may stand for a file of the project. Directories are not followed: what they lead to is not the module's.
            let is_file = kind.is_file() || kind.is_symlink() && self.leads_to_file(&entry.path())?;
            if is_file {
                found.push(path);
            } else if kind.is_dir() && !is_top {
                self.walk(&entry.path(), &path, false, found)?;
            }
            if found.len() > MAX_TREE {
                return Err(std::io::Error::other(format!("it holds more than {MAX_TREE} files")));
            }
        }
        Ok(())
    }
}

impl ProjectFiles for Project {
    fn tree(&self, dir: &str) -> Result<Vec<String>, Diagnostic> {
        let real = self.inside(dir)?;
        let unreadable = |error: &std::io::Error| {
            let message = format!("cannot read the directory `{}`: {error}", dir.escape_debug());
            Diagnostic::error(Code::ScriptFile, message).help("paths are relative to the project's root")
        };
        let mut found = Vec::new();
        let is_top = self.root.canonicalize().is_ok_and(|root| root == real);
        self.walk(&real, "", is_top, &mut found).map_err(|error| unreadable(&error))?;
        found.sort();
        for path in &found {
            let bytes = fs::read(real.join(path)).map_err(|error| unreadable(&error))?;
            self.digests.borrow_mut().insert(format!("{dir}/{path}"), sha256_hex(&bytes));
        }
        Ok(found)
    }

    fn text(&self, path: &str) -> Result<Arc<str>, Diagnostic> {
        let text: Arc<str> = self.read(path)?.into();
        self.keep_source(&path.into(), Arc::clone(&text));
        Ok(text)
    }
}

/// A text that holds characters of tokens.
pub(super) fn forged(what: &str) -> Diagnostic {
    Diagnostic::error(
        Code::ScriptForgedToken,
        format!("`{what}` holds private-use characters (U+E000 to U+E0FF)"),
    )
    .help("clawd uses them to mark values not known yet; remove them")
}
