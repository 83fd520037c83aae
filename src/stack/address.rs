//! Addresses of resource instances, `module.a["x"].b.c[0]`: the resource they mean, and the keys in them.

use serde_json::Value as Json;

/// An address without the keys of instances: `module.a["x"].b.c[0]` is `module.a.b.c`.
#[must_use]
pub fn without_keys(address: &str) -> String {
    parts(address).0
}

/// The keys of its instances that are texts.
pub(super) fn text_keys(address: &str) -> Vec<String> {
    let keys = parts(address).1.into_iter();
    keys.filter_map(|key| match serde_json::from_str(&key) {
        Ok(Json::String(key)) => Some(key),
        _ => None,
    })
    .collect()
}

/// An address without keys, and the keys as they are written.
fn parts(address: &str) -> (String, Vec<String>) {
    let (mut plain, mut keys) = (String::with_capacity(address.len()), Vec::new());
    let (mut key, mut quoted, mut escaped) = (None::<String>, false, false);
    for c in address.chars() {
        match (c, &mut key) {
            ('[', None) => key = Some(String::new()),
            (c, None) => plain.push(c),
            (']', Some(_)) if !quoted => keys.extend(key.take()),
            (c, Some(key)) => {
                if c == '"' && !escaped {
                    quoted = !quoted;
                }
                key.push(c);
            }
        }
        escaped = c == '\\' && !escaped;
    }
    (plain, keys)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_lose_their_keys() {
        for (address, plain) in
            [("a.b", "a.b"), ("a.b[0]", "a.b"), ("module.m[\"x]\\\"y\"].a.b[\"k\"]", "module.m.a.b")]
        {
            assert_eq!(without_keys(address), plain);
        }
    }

    #[test]
    fn keys_are_read_as_they_are_meant() {
        assert_eq!(text_keys("module.m[\"x]\\\"y\"].a.b[\"k\"]"), ["x]\"y", "k"]);
        assert_eq!(text_keys("a.b[0]"), Vec::<String>::new());
    }
}
