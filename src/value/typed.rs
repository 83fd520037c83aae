//! Typed views of values: a primitive's argument, output and observation structs to and from `Value`.
//!
//! Reading refuses leaves that are not known; it never invents a default for one. Fields of type `Value` or
//! `Map` take the tree as it is, so a secret stays a handle on its way to the provider that resolves it; a
//! field of any other type refuses it.

use std::fmt;

use serde::de::value::{MapDeserializer, SeqDeserializer};
use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, IntoDeserializer, VariantAccess, Visitor,
};
use serde::{Serialize, forward_to_deserialize_any};

use super::Value;

/// The name under which `Value` asks its deserializer for the tree as it is, leaves included.
pub(super) const WHOLE: &str = "clawd::Value";

/// Why a value is not of the wanted type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TypedError(pub(super) String);

impl serde::de::Error for TypedError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self(message.to_string())
    }
}

/// Reads a typed item from a value whose leaves are all known.
///
/// # Errors
/// When a leaf is unknown or the value has another shape than `T`.
pub fn to_typed<T: DeserializeOwned>(value: &Value) -> Result<T, TypedError> {
    T::deserialize(value)
}

/// Writes a typed item as a value.
///
/// # Errors
/// When the item has no JSON form or holds a number that is too large.
pub fn from_typed<T: Serialize>(item: &T) -> Result<Value, TypedError> {
    item.serialize(super::write::Writer)
}

/// Turns plain JSON into a value: a `$` key is data here, never a leaf.
fn plain(json: serde_json::Value) -> Result<Value, TypedError> {
    Ok(match json {
        serde_json::Value::Null => Value::Null,
        serde_json::Value::Bool(value) => Value::Bool(value),
        serde_json::Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(whole), _) => Value::Int(whole),
            (None, Some(float)) if !number.is_u64() => Value::Float(float),
            _ => return Err(TypedError(format!("{number} does not fit 64 bits with sign"))),
        },
        serde_json::Value::String(text) => Value::String(text.into()),
        serde_json::Value::Array(items) => {
            Value::List(items.into_iter().map(plain).collect::<Result<_, _>>()?)
        }
        serde_json::Value::Object(entries) => Value::Map(
            entries
                .into_iter()
                .map(|(key, item)| Ok((key.into(), plain(item)?)))
                .collect::<Result<_, TypedError>>()?,
        ),
    })
}

impl TryFrom<serde_json::Value> for Value {
    type Error = TypedError;

    /// Plain JSON data as a value; keys that begin with `$` are data.
    fn try_from(json: serde_json::Value) -> Result<Self, TypedError> {
        plain(json)
    }
}

impl<'de> IntoDeserializer<'de, TypedError> for &'de Value {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

impl<'de> Deserializer<'de> for &'de Value {
    type Error = TypedError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TypedError> {
        match self {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::Int(value) => visitor.visit_i64(*value),
            Value::Float(value) => visitor.visit_f64(*value),
            Value::String(value) => visitor.visit_borrowed_str(value),
            Value::List(items) => visitor.visit_seq(SeqDeserializer::new(items.iter())),
            Value::Map(map) => {
                visitor.visit_map(MapDeserializer::new(map.iter().map(|(key, value)| (key.as_str(), value))))
            }
            Value::Secret(name) => Err(TypedError(format!("the secret `{name}` cannot be read as a value"))),
            Value::Ref(reference) => Err(TypedError(format!("{reference} is not known yet"))),
            Value::Template(_) | Value::Unknown => Err(TypedError("the value is not known yet".to_owned())),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TypedError> {
        match self {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, TypedError> {
        if name == WHOLE {
            visitor.visit_newtype_struct(Whole(self))
        } else {
            visitor.visit_newtype_struct(self)
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, TypedError> {
        match self {
            Value::String(_) => visitor.visit_enum(Variant { name: self, content: None }),
            Value::Map(map) if map.len() == 1 => {
                let (key, content) = map.iter().next().expect("a map of length 1 has an entry");
                visitor.visit_enum(VariantOf { name: key, content })
            }
            other => Err(TypedError(format!("expected the name of a variant, found {}", other.kind()))),
        }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf
        unit unit_struct seq tuple tuple_struct map struct identifier ignored_any
    }
}

/// Hands a tree to `Value` itself: special leaves in their JSON form, literal `$` keys escaped.
struct Whole<'de>(&'de Value);

impl<'de> Deserializer<'de> for Whole<'de> {
    type Error = TypedError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, TypedError> {
        match self.0 {
            Value::Map(map) => visitor.visit_map(MapDeserializer::new(map.iter().map(|(key, value)| {
                let escaped = if key.starts_with('$') { format!("${key}") } else { key.to_string() };
                (escaped, value)
            }))),
            Value::Ref(_) | Value::Template(_) | Value::Secret(_) | Value::Unknown => {
                let json = serde_json::to_value(self.0).map_err(|error| TypedError(error.to_string()))?;
                json.deserialize_any(visitor).map_err(|error| TypedError(error.to_string()))
            }
            plain => plain.deserialize_any(visitor),
        }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option
        unit unit_struct newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

/// A variant named by a string leaf.
struct Variant<'de> {
    name: &'de Value,
    content: Option<&'de Value>,
}

/// A variant named by the only key of a map.
struct VariantOf<'de> {
    name: &'de str,
    content: &'de Value,
}

impl<'de> EnumAccess<'de> for Variant<'de> {
    type Error = TypedError;
    type Variant = Content<'de>;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Content<'de>), TypedError> {
        Ok((seed.deserialize(self.name)?, Content(self.content)))
    }
}

impl<'de> EnumAccess<'de> for VariantOf<'de> {
    type Error = TypedError;
    type Variant = Content<'de>;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Content<'de>), TypedError> {
        Ok((seed.deserialize(self.name.into_deserializer())?, Content(Some(self.content))))
    }
}

struct Content<'de>(Option<&'de Value>);

impl<'de> Content<'de> {
    fn value(self) -> Result<&'de Value, TypedError> {
        self.0.ok_or_else(|| TypedError("this variant needs content".to_owned()))
    }
}

impl<'de> VariantAccess<'de> for Content<'de> {
    type Error = TypedError;

    fn unit_variant(self) -> Result<(), TypedError> {
        match self.0 {
            None => Ok(()),
            Some(_) => Err(TypedError("this variant takes no content".to_owned())),
        }
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, TypedError> {
        seed.deserialize(self.value()?)
    }

    fn tuple_variant<V: Visitor<'de>>(self, _len: usize, visitor: V) -> Result<V::Value, TypedError> {
        self.value()?.deserialize_any(visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, TypedError> {
        self.value()?.deserialize_any(visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum State {
        Blank,
        Attached { to: String },
        Sized(u32),
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Sample {
        name: String,
        note: Option<String>,
        states: Vec<State>,
        share: f64,
    }

    #[test]
    fn typed_items_read_back() {
        let sample = Sample {
            name: "a".into(),
            note: None,
            states: vec![State::Blank, State::Attached { to: "i-1".into() }, State::Sized(3)],
            share: 0.5,
        };
        let value = from_typed(&sample).unwrap();
        assert_eq!(to_typed::<Sample>(&value).unwrap(), sample);
    }

    #[test]
    fn a_field_of_type_value_keeps_its_leaves() {
        let tree = Value::map([
            ("$ref", Value::from("data")),
            ("key", Value::Secret("db".into())),
            ("list", Value::List(vec![Value::Unknown, Value::Int(1)])),
        ]);
        assert_eq!(to_typed::<Value>(&tree).unwrap(), tree);
        assert_eq!(from_typed(&tree).unwrap(), tree);
        assert!(to_typed::<std::collections::BTreeMap<String, String>>(&tree).is_err());
    }

    #[test]
    fn unknown_leaves_are_refused() {
        assert!(to_typed::<Option<String>>(&Value::Unknown).is_err());
        assert!(to_typed::<Vec<i64>>(&Value::List(vec![Value::Int(1), Value::Unknown])).is_err());
    }
}
