//! A path into a value: `outputs.instance_ids["a.b"][0]`, and a reference: `tofu_apply.fleet#outputs`.

use std::fmt;
use std::str::FromStr;

use smol_str::SmolStr;

use super::Reference;

/// One step of a path.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Segment {
    /// A key of a map.
    Key(SmolStr),
    /// A place in a list, from 0.
    Index(usize),
}

/// A path into a value; empty for the value itself.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Path(Vec<Segment>);

/// Why a text is not a path or a reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a valid {what}")]
pub struct PathError {
    what: &'static str,
    text: String,
}

impl Path {
    /// The empty path.
    #[must_use]
    pub const fn root() -> Self {
        Self(Vec::new())
    }

    /// Whether this is the value itself.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The path's steps, outermost first.
    #[must_use]
    pub fn segments(&self) -> &[Segment] {
        &self.0
    }

    /// This path with one more key.
    #[must_use]
    pub fn key(&self, key: impl Into<SmolStr>) -> Self {
        self.with(Segment::Key(key.into()))
    }

    /// This path with one more list index.
    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        self.with(Segment::Index(index))
    }

    fn with(&self, segment: Segment) -> Self {
        let mut segments = Vec::with_capacity(self.0.len() + 1);
        segments.extend_from_slice(&self.0);
        segments.push(segment);
        Self(segments)
    }
}

fn is_plain(key: &str) -> bool {
    !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, segment) in self.0.iter().enumerate() {
            match segment {
                Segment::Key(key) if is_plain(key) && position == 0 => f.write_str(key)?,
                Segment::Key(key) if is_plain(key) => write!(f, ".{key}")?,
                // JSON's quoting is unambiguous and every reader of a plan knows it.
                Segment::Key(key) => {
                    let quoted = serde_json::to_string(key.as_str()).map_err(|_| fmt::Error)?;
                    write!(f, "[{quoted}]")?;
                }
                Segment::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}

impl FromStr for Path {
    type Err = PathError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refuse = || PathError { what: "path", text: text.to_owned() };
        let mut segments = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            if let Some(inside) = rest.strip_prefix('[') {
                let (segment, used) = bracketed(inside).ok_or_else(refuse)?;
                segments.push(segment);
                rest = inside[used..].strip_prefix(']').ok_or_else(refuse)?;
            } else {
                let word =
                    if segments.is_empty() { rest } else { rest.strip_prefix('.').ok_or_else(refuse)? };
                let end = word.find(['.', '[']).unwrap_or(word.len());
                if !is_plain(&word[..end]) {
                    return Err(refuse());
                }
                segments.push(Segment::Key(word[..end].into()));
                rest = &word[end..];
            }
        }
        Ok(Self(segments))
    }
}

/// Reads a quoted key or an index; returns it with the number of bytes read.
fn bracketed(text: &str) -> Option<(Segment, usize)> {
    if text.starts_with('"') {
        let mut values = serde_json::Deserializer::from_str(text).into_iter::<String>();
        let key = values.next()?.ok()?;
        Some((Segment::Key(key.into()), values.byte_offset()))
    } else {
        let end = text.find(']')?;
        Some((Segment::Index(text[..end].parse().ok()?), end))
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_root() {
            write!(f, "{}", self.step)
        } else {
            write!(f, "{}#{}", self.step, self.path)
        }
    }
}

impl FromStr for Reference {
    type Err = PathError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (step, path) = text.split_once('#').unwrap_or((text, ""));
        let step = step.parse().map_err(|_| PathError { what: "reference", text: text.to_owned() })?;
        Ok(Self { step, path: path.parse()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_read_back() {
        for text in ["", "a", "a.b-c", "a[0].b", r#"outputs["a.b"][2]"#, r#"["x\"]y"].z"#] {
            let path: Path = text.parse().expect(text);
            assert_eq!(path.to_string(), text);
        }
        for text in ["a..b", ".a", "a[", "a[x]", "a]", "a[\"x\"", "a b"] {
            assert!(text.parse::<Path>().is_err(), "{text}");
        }
    }
}
