//! Type constraints of OpenTofu variables: reading them, describing them, and holding values against them.
//!
//! A value fits when OpenTofu would take it, conversions included: a number where a string is wanted, `"true"` where a bool
//! is. One thing is stricter: an attribute that an object does not have is a problem, where OpenTofu drops it without a word,
//! because a misspelt optional attribute would be lost. Source: the OpenTofu language, "Type Constraints".

use std::fmt;

use hcl_edit::expr::{Expression, FuncCall, ObjectKey};
use smol_str::SmolStr;

use crate::diagnostic::nearest;
use crate::value::{Path, Value};

/// What a variable or output may hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Type {
    /// Anything.
    Any,
    /// Text.
    String,
    /// A whole number or one with a fraction.
    Number,
    /// True or false.
    Bool,
    /// Values of one type, in order.
    List(Box<Type>),
    /// Values of one type, each once.
    Set(Box<Type>),
    /// Values of one type by key.
    Map(Box<Type>),
    /// Values of their own types, in order.
    Tuple(Vec<Type>),
    /// Values of their own types by name.
    Object(Vec<Attribute>),
}

/// An attribute of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attribute {
    /// Its name.
    pub name: SmolStr,
    /// What it may hold.
    pub ty: Type,
    /// Whether it may be left out.
    pub optional: bool,
}

/// One place where a value does not fit its type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Misfit {
    /// Where in the value.
    pub path: Path,
    /// What is wrong, without the place.
    pub message: String,
    /// The next move.
    pub help: Option<String>,
    /// The key to write in place of the last one of the path.
    pub rename: Option<SmolStr>,
}

impl Type {
    /// Reads a type constraint.
    ///
    /// # Errors
    /// What is no type, in words.
    pub fn read(expression: &Expression) -> Result<Self, String> {
        match expression {
            Expression::Variable(name) => Self::of_keyword(name.as_str()),
            // The quoted form of the first versions of the language.
            Expression::String(name) => match name.as_str() {
                "list" => Ok(Self::List(Box::new(Self::Any))),
                "map" => Ok(Self::Map(Box::new(Self::Any))),
                other => Self::of_keyword(other),
            },
            Expression::FuncCall(call) => Self::of_call(call),
            Expression::Parenthesis(inner) => Self::read(inner.inner()),
            _ => {
                Err("a type is a keyword like `string`, or `list(...)`, `map(...)`, `object({...})`"
                    .to_owned())
            }
        }
    }

    /// Reads a type constraint from its text, `map(string)`.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn parse(text: &str) -> Result<Self, String> {
        let expression: Expression =
            text.parse().map_err(|error: hcl_edit::parser::Error| error.message().to_owned())?;
        Self::read(&expression)
    }

    fn of_keyword(name: &str) -> Result<Self, String> {
        match name {
            "any" => Ok(Self::Any),
            "string" => Ok(Self::String),
            "number" => Ok(Self::Number),
            "bool" => Ok(Self::Bool),
            "list" => Ok(Self::List(Box::new(Self::Any))),
            "set" => Ok(Self::Set(Box::new(Self::Any))),
            "map" => Ok(Self::Map(Box::new(Self::Any))),
            other => Err(format!("there is no type `{}`", other.escape_debug())),
        }
    }

    fn of_call(call: &FuncCall) -> Result<Self, String> {
        let name = call.name.name.as_str();
        let mut args = call.args.iter();
        let (first, more) = (args.next(), args.next().is_some());
        let Some(first) = first.filter(|_| !more) else {
            return Err(format!("`{name}` takes one argument"));
        };
        match name {
            "list" => Ok(Self::List(Box::new(Self::read(first)?))),
            "set" => Ok(Self::Set(Box::new(Self::read(first)?))),
            "map" => Ok(Self::Map(Box::new(Self::read(first)?))),
            "tuple" => {
                let items = first.as_array().ok_or("`tuple` takes a list of types")?;
                items.iter().map(Self::read).collect::<Result<_, _>>().map(Self::Tuple)
            }
            "object" => {
                let entries = first.as_object().ok_or("`object` takes `{ name = type }`")?;
                entries
                    .iter()
                    .map(|(key, value)| Attribute::read(key, value.expr()))
                    .collect::<Result<_, _>>()
                    .map(Self::Object)
            }
            other => Err(format!("there is no type `{}(...)`", other.escape_debug())),
        }
    }

    /// Everything in a value that does not fit. What is not known yet fits.
    #[must_use]
    pub fn misfits(&self, value: &Value) -> Vec<Misfit> {
        let mut found = Vec::new();
        self.check(value, &Path::root(), &mut found);
        found
    }

    fn check(&self, value: &Value, at: &Path, found: &mut Vec<Misfit>) {
        match (self, value) {
            (Self::Any, _)
            | (_, Value::Null | Value::Unknown | Value::Ref(_) | Value::Secret(_))
            | (
                Self::String,
                Value::String(_) | Value::Template(_) | Value::Int(_) | Value::Float(_) | Value::Bool(_),
            )
            | (Self::Number, Value::Int(_) | Value::Float(_))
            | (Self::Bool, Value::Bool(_)) => {}
            (Self::Number, Value::String(text)) if text.parse::<f64>().is_ok_and(f64::is_finite) => {}
            (Self::Bool, Value::String(text)) if matches!(text.as_str(), "true" | "false") => {}
            (Self::List(inner) | Self::Set(inner), Value::List(items)) => {
                for (index, item) in items.iter().enumerate() {
                    inner.check(item, &at.index(index), found);
                }
            }
            (Self::Map(inner), Value::Map(map)) => {
                for (key, item) in map.iter() {
                    inner.check(item, &at.key(key.clone()), found);
                }
            }
            (Self::Tuple(types), Value::List(items)) if types.len() == items.len() => {
                for (index, (ty, item)) in types.iter().zip(items).enumerate() {
                    ty.check(item, &at.index(index), found);
                }
            }
            (Self::Object(attributes), Value::Map(map)) => check_object(attributes, map, at, found),
            (wanted, other) => found.push(Misfit {
                path: at.clone(),
                message: format!("expected {wanted}, found {}", shown(other)),
                help: None,
                rename: None,
            }),
        }
    }

    /// The type at one more step of a path; `None` when there is no such place.
    #[must_use]
    pub fn below(&self, segment: &crate::value::Segment) -> Option<&Self> {
        use crate::value::Segment;
        match (self, segment) {
            (Self::Any, _) => Some(&Self::Any),
            (Self::List(inner) | Self::Set(inner), Segment::Index(_))
            | (Self::Map(inner), Segment::Key(_)) => Some(inner),
            (Self::Tuple(types), Segment::Index(index)) => types.get(*index),
            (Self::Object(attributes), Segment::Key(key)) => {
                attributes.iter().find(|attribute| attribute.name == *key).map(|attribute| &attribute.ty)
            }
            _ => None,
        }
    }
}

fn check_object(attributes: &[Attribute], map: &crate::value::Map, at: &Path, found: &mut Vec<Misfit>) {
    for (key, item) in map.iter() {
        if let Some(attribute) = attributes.iter().find(|attribute| attribute.name == *key) {
            attribute.ty.check(item, &at.key(key.clone()), found);
            continue;
        }
        let names = || attributes.iter().map(|attribute| attribute.name.as_str());
        let near = nearest(key, names());
        found.push(Misfit {
            path: at.key(key.clone()),
            message: format!("the object has no attribute `{}`", key.escape_debug()),
            help: Some(match near {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("it has: {}", names().collect::<Vec<_>>().join(", ")),
            }),
            rename: near.map(SmolStr::new),
        });
    }
    for attribute in
        attributes.iter().filter(|attribute| !attribute.optional && map.get(&attribute.name).is_none())
    {
        found.push(Misfit {
            path: at.clone(),
            message: format!("the attribute `{}` is missing: {}", attribute.name, attribute.ty),
            help: None,
            rename: None,
        });
    }
}

impl Attribute {
    fn read(key: &ObjectKey, ty: &Expression) -> Result<Self, String> {
        let name = match key {
            ObjectKey::Ident(name) => Some(name.as_str()),
            ObjectKey::Expression(expression) => expression.as_str(),
        };
        let name = SmolStr::new(name.ok_or("an attribute's name is a plain word")?);
        let optional = match ty {
            Expression::FuncCall(call) if call.name.name.as_str() == "optional" => call.args.iter().next(),
            _ => None,
        };
        let read =
            Type::read(optional.unwrap_or(ty)).map_err(|error| format!("attribute `{name}`: {error}"))?;
        Ok(Self { name, ty: read, optional: optional.is_some() })
    }
}

impl fmt::Display for Type {
    /// As the language writes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("any"),
            Self::String => f.write_str("string"),
            Self::Number => f.write_str("number"),
            Self::Bool => f.write_str("bool"),
            Self::List(inner) => write!(f, "list({inner})"),
            Self::Set(inner) => write!(f, "set({inner})"),
            Self::Map(inner) => write!(f, "map({inner})"),
            Self::Tuple(types) => {
                f.write_str("tuple([")?;
                for (index, ty) in types.iter().enumerate() {
                    write!(f, "{}{ty}", if index == 0 { "" } else { ", " })?;
                }
                f.write_str("])")
            }
            Self::Object(attributes) => {
                f.write_str("object({")?;
                for (index, Attribute { name, ty, optional }) in attributes.iter().enumerate() {
                    let comma = if index == 0 { "" } else { "," };
                    if *optional {
                        write!(f, "{comma} {name} = optional({ty})")?;
                    } else {
                        write!(f, "{comma} {name} = {ty}")?;
                    }
                }
                f.write_str(" })")
            }
        }
    }
}

/// A found value in a message: its kind, and the value where it is short.
fn shown(value: &Value) -> String {
    match value {
        Value::String(text) if text.len() <= 40 => format!("the string \"{}\"", text.escape_debug()),
        Value::Int(number) => format!("the number {number}"),
        Value::Float(number) => format!("the number {number}"),
        Value::Bool(value) => format!("the bool {value}"),
        Value::List(items) => format!("a list of {}", items.len()),
        other => format!("a {}", other.kind()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_read_back_as_they_are_written() {
        for text in [
            "string",
            "list(number)",
            "map(object({ type = string, zone = string, ami = optional(string) }))",
            "tuple([string, bool])",
            "set(any)",
        ] {
            assert_eq!(Type::parse(text).expect(text).to_string(), text);
        }
        for (text, wanted) in [
            ("strin", "there is no type `strin`"),
            ("map(string, string)", "`map` takes one argument"),
            ("1 + 2", "a type is a keyword"),
            ("object({ a = lis(string) })", "attribute `a`: there is no type `lis(...)`"),
        ] {
            let error = Type::parse(text).expect_err(text);
            assert!(error.starts_with(wanted), "{text}: {error}");
        }
    }

    #[test]
    fn a_value_fits_where_opentofu_takes_it() {
        let hosts = Type::parse("map(object({ type = string, count = number, on = optional(bool) }))")
            .expect("a type");
        let host = |entries: &[(&str, Value)]| {
            Value::map([("a", Value::map(entries.iter().map(|(key, value)| (*key, value.clone()))))])
        };
        let messages = |value: &Value| -> Vec<String> {
            hosts
                .misfits(value)
                .into_iter()
                .map(|misfit| format!("{}: {}", misfit.path, misfit.message))
                .collect()
        };
        assert_eq!(
            messages(&host(&[("type", 3.into()), ("count", "4".into()), ("on", "true".into())])),
            [""; 0]
        );
        assert_eq!(messages(&host(&[("type", Value::Unknown), ("count", Value::Null)])), [""; 0]);
        assert_eq!(
            messages(&host(&[("typ", "x".into()), ("count", "four".into())])),
            [
                "a.count: expected number, found the string \"four\"",
                "a.typ: the object has no attribute `typ`",
                "a: the attribute `type` is missing: string",
            ]
        );
        assert_eq!(messages(&Value::List(vec![])), [format!(": expected {hosts}, found a list of 0")]);
    }
}
