//! The other direction of `typed`: a serializer that builds a `Value` from any item, without a detour through
//! JSON. Fields of type `Value` arrive in their JSON form and are read back into their leaves; a `$` key of
//! any other map is data.

use serde::Serialize;
use serde::ser::{
    Error as _, SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant, SerializeTuple,
    SerializeTupleStruct, SerializeTupleVariant, Serializer,
};
use smol_str::SmolStr;

use super::typed::{TypedError, WHOLE};
use super::{Map, Value};

impl serde::ser::Error for TypedError {
    fn custom<T: std::fmt::Display>(message: T) -> Self {
        Self(message.to_string())
    }
}

/// Builds values.
pub(super) struct Writer;

/// Builds a list, wrapped into a map of one key for a variant.
pub(super) struct ListWriter {
    items: Vec<Value>,
    variant: Option<&'static str>,
}

/// Builds a map, wrapped into a map of one key for a variant.
pub(super) struct MapWriter {
    entries: Vec<(SmolStr, Value)>,
    key: Option<SmolStr>,
    variant: Option<&'static str>,
}

fn wrapped(variant: Option<&'static str>, value: Value) -> Value {
    match variant {
        Some(name) => Value::map([(name, value)]),
        None => value,
    }
}

impl Serializer for Writer {
    type Ok = Value;
    type Error = TypedError;
    type SerializeSeq = ListWriter;
    type SerializeTuple = ListWriter;
    type SerializeTupleStruct = ListWriter;
    type SerializeTupleVariant = ListWriter;
    type SerializeMap = MapWriter;
    type SerializeStruct = MapWriter;
    type SerializeStructVariant = MapWriter;

    fn serialize_bool(self, value: bool) -> Result<Value, TypedError> {
        Ok(Value::Bool(value))
    }

    fn serialize_i8(self, value: i8) -> Result<Value, TypedError> {
        Ok(Value::Int(value.into()))
    }

    fn serialize_i16(self, value: i16) -> Result<Value, TypedError> {
        Ok(Value::Int(value.into()))
    }

    fn serialize_i32(self, value: i32) -> Result<Value, TypedError> {
        Ok(Value::Int(value.into()))
    }

    fn serialize_i64(self, value: i64) -> Result<Value, TypedError> {
        Ok(Value::Int(value))
    }

    fn serialize_u8(self, value: u8) -> Result<Value, TypedError> {
        Ok(Value::Int(value.into()))
    }

    fn serialize_u16(self, value: u16) -> Result<Value, TypedError> {
        Ok(Value::Int(value.into()))
    }

    fn serialize_u32(self, value: u32) -> Result<Value, TypedError> {
        Ok(Value::Int(value.into()))
    }

    fn serialize_u64(self, value: u64) -> Result<Value, TypedError> {
        i64::try_from(value)
            .map(Value::Int)
            .map_err(|_| TypedError::custom(format!("{value} does not fit 64 bits with sign")))
    }

    fn serialize_f32(self, value: f32) -> Result<Value, TypedError> {
        self.serialize_f64(value.into())
    }

    fn serialize_f64(self, value: f64) -> Result<Value, TypedError> {
        if value.is_finite() {
            Ok(Value::Float(value))
        } else {
            Err(TypedError::custom("a number must be finite"))
        }
    }

    fn serialize_char(self, value: char) -> Result<Value, TypedError> {
        self.serialize_str(value.encode_utf8(&mut [0; 4]))
    }

    fn serialize_str(self, value: &str) -> Result<Value, TypedError> {
        Ok(Value::string(value))
    }

    fn serialize_bytes(self, value: &[u8]) -> Result<Value, TypedError> {
        Ok(Value::List(value.iter().map(|byte| Value::Int((*byte).into())).collect()))
    }

    fn serialize_none(self) -> Result<Value, TypedError> {
        Ok(Value::Null)
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<Value, TypedError> {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<Value, TypedError> {
        Ok(Value::Null)
    }

    fn serialize_unit_struct(self, _name: &'static str) -> Result<Value, TypedError> {
        Ok(Value::Null)
    }

    fn serialize_unit_variant(
        self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
    ) -> Result<Value, TypedError> {
        Ok(variant.into())
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        value: &T,
    ) -> Result<Value, TypedError> {
        if name == WHOLE {
            let json = serde_json::to_value(value).map_err(TypedError::custom)?;
            return serde_json::from_value(json).map_err(TypedError::custom);
        }
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<Value, TypedError> {
        Ok(wrapped(Some(variant), value.serialize(self)?))
    }

    fn serialize_seq(self, length: Option<usize>) -> Result<ListWriter, TypedError> {
        Ok(ListWriter { items: Vec::with_capacity(length.unwrap_or(0)), variant: None })
    }

    fn serialize_tuple(self, length: usize) -> Result<ListWriter, TypedError> {
        self.serialize_seq(Some(length))
    }

    fn serialize_tuple_struct(self, _name: &'static str, length: usize) -> Result<ListWriter, TypedError> {
        self.serialize_seq(Some(length))
    }

    fn serialize_tuple_variant(
        self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
        length: usize,
    ) -> Result<ListWriter, TypedError> {
        Ok(ListWriter { items: Vec::with_capacity(length), variant: Some(variant) })
    }

    fn serialize_map(self, length: Option<usize>) -> Result<MapWriter, TypedError> {
        Ok(MapWriter { entries: Vec::with_capacity(length.unwrap_or(0)), key: None, variant: None })
    }

    fn serialize_struct(self, _name: &'static str, length: usize) -> Result<MapWriter, TypedError> {
        self.serialize_map(Some(length))
    }

    fn serialize_struct_variant(
        self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
        length: usize,
    ) -> Result<MapWriter, TypedError> {
        Ok(MapWriter { entries: Vec::with_capacity(length), key: None, variant: Some(variant) })
    }
}

impl ListWriter {
    fn push<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), TypedError> {
        self.items.push(value.serialize(Writer)?);
        Ok(())
    }

    fn finish(self) -> Value {
        wrapped(self.variant, Value::List(self.items))
    }
}

impl MapWriter {
    fn push<T: Serialize + ?Sized>(&mut self, key: SmolStr, value: &T) -> Result<(), TypedError> {
        self.entries.push((key, value.serialize(Writer)?));
        Ok(())
    }

    fn finish(self) -> Value {
        wrapped(self.variant, Value::Map(self.entries.into_iter().collect::<Map>()))
    }
}

macro_rules! list_writer {
    ($($trait:ident :: $method:ident),+) => {$(
        impl $trait for ListWriter {
            type Ok = Value;
            type Error = TypedError;

            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), TypedError> {
                self.push(value)
            }

            fn end(self) -> Result<Value, TypedError> {
                Ok(self.finish())
            }
        }
    )+};
}

list_writer!(
    SerializeSeq::serialize_element,
    SerializeTuple::serialize_element,
    SerializeTupleStruct::serialize_field,
    SerializeTupleVariant::serialize_field
);

macro_rules! struct_writer {
    ($($trait:ident),+) => {$(
        impl $trait for MapWriter {
            type Ok = Value;
            type Error = TypedError;

            fn serialize_field<T: Serialize + ?Sized>(&mut self, key: &'static str, value: &T) -> Result<(), TypedError> {
                self.push(SmolStr::new_static(key), value)
            }

            fn end(self) -> Result<Value, TypedError> {
                Ok(self.finish())
            }
        }
    )+};
}

struct_writer!(SerializeStruct, SerializeStructVariant);

impl SerializeMap for MapWriter {
    type Ok = Value;
    type Error = TypedError;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), TypedError> {
        match key.serialize(Writer)? {
            Value::String(text) => self.key = Some(text),
            Value::Int(number) => self.key = Some(number.to_string().into()),
            other => {
                return Err(TypedError::custom(format!("a key must be text, found {}", other.kind())));
            }
        }
        Ok(())
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), TypedError> {
        let key = self.key.take().ok_or_else(|| TypedError::custom("a value without a key"))?;
        self.push(key, value)
    }

    fn end(self) -> Result<Value, TypedError> {
        Ok(self.finish())
    }
}
