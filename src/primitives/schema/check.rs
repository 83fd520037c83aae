//! Holding values against schemas: every problem with its path, before anything is looked at.

use smol_str::SmolStr;

use super::{Field, Kind, Pattern, Problem, References, Schema};
use crate::diagnostic::{Code, nearest};
use crate::value::{Part, Path, Reference, Value};

/// Where a secret may be given.
const WHERE_SECRETS_GO: &str = "secrets go where a value may be anything, such as the `vars` of tofu_apply";

pub(super) struct Checker<'a> {
    pub(super) references: &'a dyn References,
    pub(super) problems: &'a mut Vec<Problem>,
}

impl Checker<'_> {
    fn problem(&mut self, path: &Path, code: Code, message: String, help: Option<String>) {
        self.problems.push(Problem { path: path.clone(), code, message, help, rename: None, origin: None });
    }

    fn wrong_type(&mut self, schema: &Schema, path: &Path, found: &str) {
        let message = format!("expected {}, found {found}", schema.describe());
        self.problem(path, Code::ScriptWrongType, message, None);
    }

    pub(super) fn check(&mut self, schema: &Schema, value: &Value, path: &Path) {
        match (&*schema.kind, value) {
            (_, Value::Null) if schema.nullable => {}
            (_, Value::Unknown) => {}
            (Kind::Any, _) => self.check_free(value, path),
            (_, Value::Ref(reference)) => self.check_reference(schema, reference, path),
            (Kind::Object { step: Some(_), .. }, found) => self.wrong_type(schema, path, &literal(found)),
            (Kind::String { choices, pattern }, Value::String(text)) => {
                self.check_text(schema, choices, pattern.as_ref(), text, path);
            }
            (Kind::String { choices, .. }, Value::Template(parts)) if choices.is_empty() => {
                self.check_template(parts, path);
            }
            (Kind::Int { min, max }, Value::Int(number)) => {
                if min.is_some_and(|min| *number < min) || max.is_some_and(|max| *number > max) {
                    self.wrong_type(schema, path, &number.to_string());
                }
            }
            (Kind::Bool, Value::Bool(_)) | (Kind::Float, Value::Float(_) | Value::Int(_)) => {}
            (Kind::List(inner), Value::List(items)) => {
                for (index, item) in items.iter().enumerate() {
                    self.check(inner, item, &path.index(index));
                }
            }
            (Kind::Map(inner), Value::Map(map)) => {
                for (key, item) in map.iter() {
                    self.check(inner, item, &path.key(key.clone()));
                }
            }
            (Kind::Object { fields, .. }, Value::Map(map)) => self.check_fields(fields, map, path),
            (_, Value::Secret(name)) => {
                let message =
                    format!("the secret `{name}` cannot be given here: this value is stored in the clear");
                self.problem(path, Code::ScriptSecret, message, Some(WHERE_SECRETS_GO.to_owned()));
            }
            (_, found) => self.wrong_type(schema, path, &literal(found)),
        }
    }

    fn check_text(
        &mut self,
        schema: &Schema,
        choices: &[SmolStr],
        pattern: Option<&Pattern>,
        text: &str,
        path: &Path,
    ) {
        if !choices.is_empty() && !choices.iter().any(|choice| choice == text) {
            let help = nearest(text, choices.iter().map(SmolStr::as_str))
                .map(|near| format!("did you mean \"{near}\"?"));
            let message = format!("expected {}, found \"{}\"", schema.describe(), text.escape_debug());
            self.problem(path, Code::ScriptWrongType, message, help);
        } else if let Some(pattern) = pattern.filter(|pattern| !pattern.regex.is_match(text)) {
            let message = format!("\"{}\" does not match {}", text.escape_debug(), pattern.text);
            self.problem(path, Code::ScriptWrongType, message, None);
        }
    }

    fn check_fields(&mut self, fields: &[Field], map: &crate::value::Map, path: &Path) {
        for (key, item) in map.iter() {
            match fields.iter().find(|field| field.name == *key) {
                Some(field) => self.check(&field.schema, item, &path.key(key.clone())),
                None => self.unknown_field(fields, key, path),
            }
        }
        for field in fields.iter().filter(|field| field.required && map.get(&field.name).is_none()) {
            let message = format!(
                "the argument `{}` is missing: {}",
                path.key(field.name.clone()),
                field.schema.describe()
            );
            self.problem(path, Code::ScriptMissingArgument, message, first_sentence(&field.doc));
        }
    }

    fn unknown_field(&mut self, fields: &[Field], key: &str, path: &Path) {
        let names = || fields.iter().map(|field| field.name.as_str());
        let near = nearest(key, names());
        let help = match near {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("the arguments are: {}", names().collect::<Vec<_>>().join(", ")),
        };
        self.problems.push(Problem {
            path: path.key(key),
            code: Code::ScriptUnknownArgument,
            message: format!("there is no argument `{}`", key.escape_debug()),
            help: Some(help),
            rename: near.map(str::to_owned),
            origin: None,
        });
    }

    /// In a place for anything, whole steps are still refused: they are handles, not data.
    fn check_free(&mut self, value: &Value, path: &Path) {
        match value {
            Value::Ref(reference) if reference.path.is_root() => {
                let message = format!("a step, {}, stands where a value is expected", reference.step);
                let help = "name the output that is meant, like `.image_id`".to_owned();
                self.problem(path, Code::ScriptWrongType, message, Some(help));
            }
            Value::List(items) => {
                for (index, item) in items.iter().enumerate() {
                    self.check_free(item, &path.index(index));
                }
            }
            Value::Map(map) => {
                for (key, item) in map.iter() {
                    self.check_free(item, &path.key(key.clone()));
                }
            }
            Value::Template(parts) => self.check_template(parts, path),
            _ => {}
        }
    }

    fn check_template(&mut self, parts: &[Part], path: &Path) {
        for part in parts {
            let Part::Ref(reference) = part else { continue };
            let whole = reference.path.is_root();
            let schema = self.references.schema(reference);
            if schema.as_ref().is_some_and(Schema::is_secret) {
                let message = format!("`{reference}` is sensitive and cannot be put into text");
                let help = "text is stored and shown; pass the value on whole".to_owned();
                self.problem(path, Code::ScriptSecret, message, Some(help));
            } else if whole || schema.is_some_and(|schema| !schema.is_scalar() && !schema.is_any()) {
                let what = if whole { "a step".to_owned() } else { format!("`{reference}`, a map or list,") };
                let message = format!("{what} cannot be put into text: {reference}");
                self.problem(
                    path,
                    Code::ScriptWrongType,
                    message,
                    Some("name the output that is meant".to_owned()),
                );
            }
        }
    }

    fn check_reference(&mut self, want: &Schema, reference: &Reference, path: &Path) {
        let have = self.references.schema(reference);
        match (&*want.kind, have.as_ref().map(|have| &*have.kind)) {
            (_, _) if have.as_ref().is_some_and(Schema::is_secret) => {
                let message = format!(
                    "`{reference}` is sensitive and cannot be given here: this value is stored in the clear"
                );
                self.problem(path, Code::ScriptSecret, message, Some(WHERE_SECRETS_GO.to_owned()));
            }
            (
                Kind::Object { step: Some(want_step), .. },
                Some(Kind::Object { step: Some(have_step), .. }),
            ) if reference.path.is_root() && want_step == have_step => {}
            (Kind::Object { step: Some(_), .. }, _) => {
                let found = self.named(reference);
                let help = reference.path.is_root().then_some(()).map_or_else(
                    || Some("pass the step itself, not one of its outputs".to_owned()),
                    |()| None,
                );
                let message = format!("expected {}, found {found}", want.describe());
                self.problem(path, Code::ScriptWrongType, message, help);
            }
            (_, _) if reference.path.is_root() => {
                let found = self.named(reference);
                let message = format!("expected {}, found {found}", want.describe());
                let help = have.as_ref().map(|have| {
                    let outputs: Vec<&str> = have.fields().iter().map(|field| field.name.as_str()).collect();
                    format!("name the output that is meant: {}", outputs.join(", "))
                });
                self.problem(path, Code::ScriptWrongType, message, help);
            }
            (_, None | Some(Kind::Any)) => {}
            (want_kind, Some(have_kind)) if kinds_fit(want_kind, have_kind) => {}
            (_, Some(_)) => {
                let found = have.as_ref().map_or_else(String::new, Schema::describe);
                let message = format!("expected {}, found `{reference}`, which is {found}", want.describe());
                self.problem(path, Code::ScriptWrongType, message, None);
            }
        }
    }

    fn named(&self, reference: &Reference) -> String {
        match &self.references.schema(reference) {
            Some(schema) if reference.path.is_root() => {
                let title = schema.title();
                let article = if title.starts_with(['A', 'E', 'I', 'O', 'U']) { "an" } else { "a" };
                format!("{article} {title}, the step {}", reference.step)
            }
            _ => format!("`{reference}`"),
        }
    }
}

fn kinds_fit(want: &Kind, have: &Kind) -> bool {
    match (want, have) {
        (Kind::List(want), Kind::List(have)) | (Kind::Map(want), Kind::Map(have)) => {
            want.is_any() || have.is_any() || kinds_fit(&want.kind, &have.kind)
        }
        (Kind::Float, Kind::Int { .. }) => true,
        // A number of OpenTofu may be whole.
        (Kind::Int { .. }, Kind::Float) => true,
        (want, have) => std::mem::discriminant(want) == std::mem::discriminant(have),
    }
}

/// A found value in a message: its kind, and the value where it is short.
fn literal(value: &Value) -> String {
    match value {
        Value::String(text) if text.len() <= 40 => format!("the string \"{}\"", text.escape_debug()),
        Value::Int(number) => format!("the int {number}"),
        Value::Float(number) => format!("the float {number}"),
        Value::Bool(value) => format!("the bool {value}"),
        Value::Null => "nothing, `()`".to_owned(),
        other => format!("a {}", other.kind()),
    }
}

fn first_sentence(doc: &str) -> Option<String> {
    let sentence = doc.split("\n\n").next().unwrap_or_default().replace('\n', " ");
    (!sentence.is_empty()).then_some(sentence)
}
