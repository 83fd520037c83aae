//! Arguments as far as they are known: a value tree with unknown leaves, checked against `T`'s schema before.

use std::marker::PhantomData;

use serde::de::DeserializeOwned;

use crate::value::{Map, TypedError, Value, to_typed};

/// A view of `T` some of whose leaves may be unknown.
#[derive(Debug)]
pub struct Partial<'a, T> {
    value: &'a Value,
    of: PhantomData<fn() -> T>,
}

impl<'a, T: DeserializeOwned> Partial<'a, T> {
    /// Views a value.
    #[must_use]
    pub const fn new(value: &'a Value) -> Self {
        Self { value, of: PhantomData }
    }

    /// The typed arguments, when every leaf is known.
    ///
    /// # Errors
    /// When a leaf is unknown, or the value was not checked against `T`'s schema.
    pub fn known(&self) -> Result<T, TypedError> {
        to_typed(self.value)
    }

    /// Whether any leaf is unknown.
    #[must_use]
    pub fn has_unknown(&self) -> bool {
        self.value.has_unknown()
    }

    /// The value under a dotted path of plain keys, `image.store_path`. An absent key is `None`; below an
    /// unknown leaf everything is `Unknown`.
    #[must_use]
    pub fn get(&self, path: &str) -> Option<&'a Value> {
        let mut at = self.value;
        for key in path.split('.') {
            at = match at {
                Value::Unknown => return Some(&Value::Unknown),
                Value::Map(map) => map.get(key)?,
                _ => return None,
            };
        }
        Some(at)
    }

    /// A known string under a path.
    #[must_use]
    pub fn str(&self, path: &str) -> Option<&'a str> {
        self.get(path)?.as_str()
    }

    /// A known whole number under a path.
    #[must_use]
    pub fn int(&self, path: &str) -> Option<i64> {
        self.get(path)?.as_int()
    }

    /// A known map under a path; its leaves may be unknown.
    #[must_use]
    pub fn map(&self, path: &str) -> Option<&'a Map> {
        self.get(path)?.as_map()
    }

    /// The value under a path for a planned output: unknown when it is not there.
    #[must_use]
    pub fn planned(&self, path: &str) -> Value {
        self.get(path).cloned().unwrap_or(Value::Unknown)
    }

    /// The arguments as they were given.
    #[must_use]
    pub const fn value(&self) -> &'a Value {
        self.value
    }

    /// The places of all unknown leaves, `image.sha256`; for reasons in plans.
    #[must_use]
    pub fn unknown_leaves(&self) -> Vec<String> {
        let mut found = Vec::new();
        collect(self.value, &crate::value::Path::root(), &mut found);
        found
    }
}

fn collect(value: &Value, at: &crate::value::Path, found: &mut Vec<String>) {
    match value {
        Value::Unknown | Value::Ref(_) | Value::Template(_) => found.push(at.to_string()),
        Value::List(items) => {
            for (index, item) in items.iter().enumerate() {
                collect(item, &at.index(index), found);
            }
        }
        Value::Map(map) => {
            for (key, item) in map.iter() {
                collect(item, &at.key(key.clone()), found);
            }
        }
        _ => {}
    }
}
