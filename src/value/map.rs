//! A map of values, sorted by key, stored as one flat list: plans hold hundreds of thousands of maps with a
//! handful of keys each, where a tree node or a hash table costs several times the entries themselves.

use smol_str::SmolStr;

use super::Value;

/// A map from text to value, sorted by key.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Map(Vec<(SmolStr, Value)>);

impl Map {
    /// An empty map.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The number of entries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are no entries.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn find(&self, key: &str) -> Result<usize, usize> {
        self.0.binary_search_by(|(candidate, _)| candidate.as_str().cmp(key))
    }

    /// The value under a key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.find(key).ok().map(|at| &self.0[at].1)
    }

    /// The value under a key, to change.
    pub fn get_mut(&mut self, key: &str) -> Option<&mut Value> {
        self.find(key).ok().map(|at| &mut self.0[at].1)
    }

    /// Sets a key, returning the value it had.
    pub fn insert(&mut self, key: impl Into<SmolStr>, value: Value) -> Option<Value> {
        let key = key.into();
        match self.find(&key) {
            Ok(at) => Some(std::mem::replace(&mut self.0[at].1, value)),
            Err(at) => {
                self.0.insert(at, (key, value));
                None
            }
        }
    }

    /// Takes a key out.
    pub fn remove(&mut self, key: &str) -> Option<Value> {
        self.find(key).ok().map(|at| self.0.remove(at).1)
    }

    /// The entries in key order.
    pub fn iter(&self) -> impl Iterator<Item = (&SmolStr, &Value)> {
        self.0.iter().map(|(key, value)| (key, value))
    }

    /// The keys in order.
    pub fn keys(&self) -> impl Iterator<Item = &SmolStr> {
        self.0.iter().map(|(key, _)| key)
    }

    /// The values in key order.
    pub fn values(&self) -> impl Iterator<Item = &Value> {
        self.0.iter().map(|(_, value)| value)
    }
}

impl FromIterator<(SmolStr, Value)> for Map {
    /// Collects entries in any order; a repeated key keeps the last value.
    fn from_iter<I: IntoIterator<Item = (SmolStr, Value)>>(entries: I) -> Self {
        let mut list: Vec<(SmolStr, Value)> = entries.into_iter().collect();
        if !list.is_sorted_by(|(left, _), (right, _)| left < right) {
            // A stable sort keeps the order of equal keys, so that the last one wins below.
            list.sort_by(|(left, _), (right, _)| left.cmp(right));
            list.reverse();
            list.dedup_by(|(later, _), (earlier, _)| later == earlier);
            list.reverse();
        }
        list.shrink_to_fit();
        Self(list)
    }
}

impl schemars::JsonSchema for Map {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Map".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "object", "additionalProperties": true })
    }
}

impl IntoIterator for Map {
    type Item = (SmolStr, Value);
    type IntoIter = std::vec::IntoIter<(SmolStr, Value)>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn collecting_sorts_and_keeps_the_last_of_a_repeated_key() {
        let map: Map = [("b", 1), ("a", 2), ("b", 3)]
            .into_iter()
            .map(|(key, number)| (SmolStr::new(key), Value::Int(number)))
            .collect();
        let entries: Vec<_> = map.iter().map(|(key, value)| (key.as_str(), value.as_int())).collect();
        assert_eq!(entries, [("a", Some(2)), ("b", Some(3))]);
    }
}
