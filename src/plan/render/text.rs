//! Leaves of values as short text, and the styling hook.

use std::borrow::Cow;
use std::fmt::Write as _;

use crate::plan::Action;
use crate::value::{Part, Value};

/// How a renderer marks up text. The plain style marks nothing.
pub trait Style {
    /// Text that belongs to an action.
    fn action<'a>(&self, action: Action, text: &'a str) -> Cow<'a, str>;
    /// A heading.
    fn heading<'a>(&self, text: &'a str) -> Cow<'a, str>;
    /// Text of less weight.
    fn dim<'a>(&self, text: &'a str) -> Cow<'a, str>;
    /// Text that warns.
    fn warning<'a>(&self, text: &'a str) -> Cow<'a, str>;
}

/// No styling.
#[derive(Debug, Clone, Copy)]
pub struct Plain;

impl Style for Plain {
    fn action<'a>(&self, _: Action, text: &'a str) -> Cow<'a, str> {
        Cow::Borrowed(text)
    }

    fn heading<'a>(&self, text: &'a str) -> Cow<'a, str> {
        Cow::Borrowed(text)
    }

    fn dim<'a>(&self, text: &'a str) -> Cow<'a, str> {
        Cow::Borrowed(text)
    }

    fn warning<'a>(&self, text: &'a str) -> Cow<'a, str> {
        Cow::Borrowed(text)
    }
}

/// A value on one line: references by address, unknown leaves as `(known after apply)`.
#[must_use]
pub fn leaf(value: &Value) -> String {
    let mut text = String::new();
    write_leaf(&mut text, value);
    text
}

fn write_leaf(out: &mut String, value: &Value) {
    // Writing to a String cannot fail.
    let _ = match value {
        Value::Null => write!(out, "null"),
        Value::Bool(value) => write!(out, "{value}"),
        Value::Int(value) => write!(out, "{value}"),
        Value::Float(value) => write!(out, "{value}"),
        Value::String(text) => write!(out, "{}", quoted(text)),
        Value::Ref(reference) => write!(out, "{reference}"),
        Value::Secret(name) if name.is_empty() => write!(out, "(sensitive)"),
        Value::Secret(name) => write!(out, "(secret {name})"),
        Value::Unknown => write!(out, "(known after apply)"),
        Value::Template(parts) => {
            out.push('"');
            for part in parts.iter() {
                let _ = match part {
                    Part::Text(text) => write!(out, "{}", printable(text)),
                    Part::Ref(reference) => write!(out, "${{{reference}}}"),
                };
            }
            out.push('"');
            Ok(())
        }
        Value::List(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push_str(", ");
                }
                write_leaf(out, item);
            }
            out.push(']');
            Ok(())
        }
        Value::Map(map) => {
            out.push('{');
            for (index, (key, item)) in map.iter().enumerate() {
                out.push_str(if index > 0 { ", " } else { " " });
                let _ = write!(out, "{key}: ");
                write_leaf(out, item);
            }
            out.push_str(if map.is_empty() { "}" } else { " }" });
            Ok(())
        }
    };
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", printable(&text.replace('\\', "\\\\").replace('"', "\\\"")))
}

/// Text whose control characters are escaped, so that data cannot move a terminal's cursor or break a line.
#[must_use]
pub fn printable(text: &str) -> Cow<'_, str> {
    let hidden = |c: char| {
        c.is_control()
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    if !text.contains(hidden) {
        return Cow::Borrowed(text);
    }
    text.chars().map(|c| if hidden(c) { c.escape_default().to_string() } else { c.to_string() }).collect()
}
