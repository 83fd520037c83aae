//! L0: the address of a step, `import_ami.base`: the primitive's name and the step's name.
//!
//! An address is cheap to clone, because references, journal records and events all carry one.

#![deny(clippy::disallowed_methods)]

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The longest step name; EC2 tag values take 256 characters, and the primitive's name stands before it.
pub const MAX_NAME: usize = 128;

/// The address of one step, unique in its plan.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    text: Arc<str>,
    /// Byte offset of the dot between the two names.
    dot: u32,
}

/// Why a text is not an address or not a step's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// No dot between primitive and name.
    #[error("`{0}` is not a step address: expected `primitive.name`, like `import_ami.base`")]
    Shape(String),
    /// The name is empty or too long.
    #[error("a step's name has 1 to {MAX_NAME} characters, this one has {0}")]
    Length(usize),
    /// The name has a character that tags, file names or globs could not carry.
    #[error(
        "a step's name holds letters, digits, `-`, `_` and `.`, and begins with a letter or digit; found {0:?}"
    )]
    Character(char),
}

impl Address {
    /// Builds an address from a primitive's name and a step's name.
    ///
    /// # Errors
    /// When the step's name is empty, too long, or has a character outside `A-Za-z0-9._-`.
    pub fn new(primitive: &str, name: &str) -> Result<Self, AddressError> {
        check_name(name)?;
        let dot = u32::try_from(primitive.len()).map_err(|_| AddressError::Shape(primitive.to_owned()))?;
        Ok(Self { text: format!("{primitive}.{name}").into(), dot })
    }

    /// The primitive's name, `import_ami`.
    #[must_use]
    pub fn primitive(&self) -> &str {
        &self.text[..self.dot as usize]
    }

    /// The step's name, `base`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.text[self.dot as usize + 1..]
    }

    /// The whole address, `import_ami.base`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

fn check_name(name: &str) -> Result<(), AddressError> {
    let length = name.chars().count();
    if length == 0 || length > MAX_NAME {
        return Err(AddressError::Length(length));
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let first = name.chars().next().filter(|c| !c.is_ascii_alphanumeric());
    match first.or_else(|| name.chars().find(|c| !allowed(*c))) {
        Some(found) => Err(AddressError::Character(found)),
        None => Ok(()),
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('.') {
            Some((primitive, name)) if !primitive.is_empty() => Self::new(primitive, name),
            _ => Err(AddressError::Shape(text.to_owned())),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text, f)
    }
}

impl Serialize for Address {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_an_address() {
        let address: Address = "mount_volume.CLAWDINATOR-1".parse().expect("a valid address");
        assert_eq!((address.primitive(), address.name()), ("mount_volume", "CLAWDINATOR-1"));
        assert_eq!(address.to_string(), "mount_volume.CLAWDINATOR-1");
    }

    #[test]
    fn bad_names_are_refused() {
        for name in ["", "-a", ".a", "a b", "a/b", "ä", "a#b", &"x".repeat(MAX_NAME + 1)] {
            assert!(Address::new("import_ami", name).is_err(), "{name:?}");
        }
        assert!("noname".parse::<Address>().is_err());
        assert!(".base".parse::<Address>().is_err());
    }
}
