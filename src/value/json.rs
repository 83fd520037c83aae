//! The JSON form of a value. Leaves are objects with one `$` key; a literal map key that begins with `$` is
//! written with one more `$` and read back likewise, so data can never forge a leaf.

use std::fmt;
use std::sync::Arc;

use serde::de::{Error as _, MapAccess, SeqAccess, Visitor};
use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use smol_str::SmolStr;

use super::typed::WHOLE;
use super::{Map, Part, Reference, Value};

const REF: &str = "$ref";
const TEMPLATE: &str = "$template";
const SECRET: &str = "$secret";
const UNKNOWN: &str = "$unknown";

/// The one JSON text of a serializable item: no white space, keys as the item orders them.
///
/// # Errors
/// When the item cannot be JSON, such as a map with keys that are not text.
pub fn to_canonical_json(item: &impl Serialize) -> Result<Vec<u8>, serde_json::Error> {
    serde_json::to_vec(item)
}

/// Writes a reference as its text.
struct Shown<'a>(&'a Reference);

impl Serialize for Shown<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self.0)
    }
}

fn leaf<S: Serializer, T: Serialize + ?Sized>(
    serializer: S,
    key: &'static str,
    value: &T,
) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(Some(1))?;
    map.serialize_entry(key, value)?;
    map.end()
}

impl Serialize for Part {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Text(text) => serializer.serialize_str(text),
            Self::Ref(reference) => leaf(serializer, REF, &Shown(reference)),
        }
    }
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_newtype_struct(WHOLE, &Tree(self))
    }
}

/// The JSON form of a value, whatever the serializer makes of newtypes.
struct Tree<'a>(&'a Value);

impl Serialize for Tree<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Value::Null => serializer.serialize_unit(),
            Value::Bool(value) => serializer.serialize_bool(*value),
            Value::Int(value) => serializer.serialize_i64(*value),
            Value::Float(value) => serializer.serialize_f64(*value),
            Value::String(value) => serializer.serialize_str(value),
            Value::List(items) => {
                let mut list = serializer.serialize_seq(Some(items.len()))?;
                for item in items {
                    list.serialize_element(item)?;
                }
                list.end()
            }
            Value::Map(map) => map.serialize(serializer),
            Value::Ref(reference) => leaf(serializer, REF, &Shown(reference)),
            Value::Template(parts) => leaf(serializer, TEMPLATE, &**parts),
            Value::Secret(name) => leaf(serializer, SECRET, name),
            Value::Unknown => leaf(serializer, UNKNOWN, &true),
        }
    }
}

impl Serialize for Map {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_newtype_struct(WHOLE, &Entries(self))
    }
}

/// The entries of a map with their keys escaped.
struct Entries<'a>(&'a Map);

impl Serialize for Entries<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (key, value) in self.0.iter() {
            if key.starts_with('$') {
                map.serialize_entry(&format!("${key}"), value)?;
            } else {
                map.serialize_entry(key, value)?;
            }
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_newtype_struct(WHOLE, ValueVisitor)
    }
}

impl<'de> Deserialize<'de> for Map {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::Map(map) => Ok(map),
            other => Err(D::Error::custom(format!("expected a map, found {}", other.kind()))),
        }
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a plan value")
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Int(value))
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Value, E> {
        i64::try_from(value)
            .map(Value::Int)
            .map_err(|_| E::custom(format!("{value} does not fit 64 bits with sign")))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        if value.is_finite() { Ok(Value::Float(value)) } else { Err(E::custom("a number must be finite")) }
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::string(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element()? {
            items.push(item);
        }
        Ok(Value::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut entries: Vec<(SmolStr, Value)> = Vec::new();
        while let Some(key) = access.next_key::<SmolStr>()? {
            match key.strip_prefix('$') {
                None => entries.push((key, access.next_value()?)),
                Some(literal) if literal.starts_with('$') => {
                    entries.push((literal.into(), access.next_value()?));
                }
                Some(_) => {
                    let value = read_leaf(&key, &mut access)?;
                    return if entries.is_empty() && access.next_key::<SmolStr>()?.is_none() {
                        Ok(value)
                    } else {
                        Err(A::Error::custom(format!("`{key}` must stand alone in its object")))
                    };
                }
            }
        }
        Ok(Value::Map(entries.into_iter().collect()))
    }
}

fn read_reference<E: serde::de::Error>(text: &str) -> Result<Arc<Reference>, E> {
    text.parse().map(Arc::new).map_err(E::custom)
}

fn read_leaf<'de, A: MapAccess<'de>>(key: &str, access: &mut A) -> Result<Value, A::Error> {
    match key {
        REF => Ok(Value::Ref(read_reference(&access.next_value::<String>()?)?)),
        SECRET => Ok(Value::Secret(access.next_value()?)),
        UNKNOWN if access.next_value::<bool>()? => Ok(Value::Unknown),
        TEMPLATE => {
            let mut parts = Vec::new();
            for piece in access.next_value::<Vec<Value>>()? {
                parts.push(match piece {
                    Value::String(text) => Part::Text(text),
                    Value::Ref(reference) => Part::Ref(reference),
                    other => {
                        return Err(A::Error::custom(format!("a template cannot hold {}", other.kind())));
                    }
                });
            }
            Ok(Value::Template(parts.into()))
        }
        _ => Err(A::Error::custom(format!(
            "`{key}` is not a leaf of a plan; a literal key that begins with `$` is written with `$$`"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_value() -> impl Strategy<Value = Value> {
        let reference = prop_oneof![
            Just("import_ami.base#image_id"),
            Just("tofu_apply.fleet#outputs[\"$a.b\"][3]"),
            Just("build_image.base")
        ]
        .prop_map(|text| Arc::new(text.parse::<Reference>().expect("a valid reference")));
        let part = prop_oneof![
            "[a-z$]{1,6}".prop_map(|text| Part::Text(text.into())),
            reference.clone().prop_map(Part::Ref)
        ];
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::Bool),
            any::<i64>().prop_map(Value::Int),
            (-1e9..1e9f64).prop_map(Value::Float),
            "\\PC{0,8}".prop_map(|text| Value::String(text.into())),
            reference.prop_map(Value::Ref),
            prop::collection::vec(part, 1..4).prop_map(|parts| Value::Template(parts.into())),
            "[a-z]{1,8}".prop_map(|name| Value::Secret(name.into())),
            Just(Value::Unknown),
        ];
        leaf.prop_recursive(4, 32, 5, |inner| {
            let key = prop_oneof![
                "[a-z]{1,4}",
                Just("$ref".to_owned()),
                Just("$$x".to_owned()),
                Just("$secret".to_owned())
            ];
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::List),
                prop::collection::vec((key, inner), 0..5).prop_map(Value::map),
            ]
        })
    }

    proptest! {
        #[test]
        fn every_value_reads_back_from_its_json(value in any_value()) {
            let text = to_canonical_json(&value).expect("values are always JSON");
            let back: Value = serde_json::from_slice(&text).expect("what was written reads back");
            prop_assert_eq!(back, value);
        }
    }

    #[test]
    fn data_that_looks_like_a_leaf_stays_data() {
        let forged = Value::map([("$ref", Value::from("import_ami.base#image_id"))]);
        let text = String::from_utf8(to_canonical_json(&forged).unwrap()).unwrap();
        assert_eq!(text, r#"{"$$ref":"import_ami.base#image_id"}"#);
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), forged);
    }

    #[test]
    fn malformed_leaves_are_refused() {
        for text in [
            r#"{"$ref":"nodot"}"#,
            r#"{"$ref":"a.b","x":1}"#,
            r#"{"x":1,"$ref":"a.b"}"#,
            r#"{"$other":1}"#,
            r#"{"$unknown":false}"#,
            r#"{"$template":[1]}"#,
            "18446744073709551615",
        ] {
            assert!(serde_json::from_str::<Value>(text).is_err(), "{text}");
        }
    }
}
