//! Compiled schemas: what a primitive takes and yields, made from its Rust types by `schemars` and checked
//! against values that may hold references, before anything is looked at.
//!
//! Checking reports every problem with its path, so that the front end can point at the key. It never fills
//! in defaults: that is the typed reading's part.

use regex_lite::Regex;
use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::Value as Json;
use smol_str::SmolStr;

use crate::diagnostic::{Code, nearest};
use crate::value::{Part, Path, Reference, Segment, Value};

/// The key that marks a struct as the outputs of a primitive.
const STEP_KEY: &str = "x-clawd-step";

/// What a value may be.
#[derive(Debug, Clone)]
pub struct Schema {
    kind: Kind,
    nullable: bool,
}

#[derive(Debug, Clone)]
enum Kind {
    Any,
    Bool,
    Int { min: Option<i64>, max: Option<i64> },
    Float,
    String { choices: Vec<SmolStr>, pattern: Option<Pattern> },
    List(Box<Schema>),
    Map(Box<Schema>),
    Object { title: String, fields: Vec<Field>, step: Option<SmolStr> },
}

#[derive(Debug, Clone)]
struct Pattern {
    text: String,
    regex: Regex,
}

/// A field of an object.
#[derive(Debug, Clone)]
pub struct Field {
    /// Its name.
    pub name: SmolStr,
    /// What it may be.
    pub schema: Schema,
    /// Whether it must be given.
    pub required: bool,
    /// What it means, from the doc comment.
    pub doc: String,
    /// What it is when not given, as JSON.
    pub default: Option<Json>,
}

/// One thing wrong with a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where in the checked value.
    pub path: Path,
    /// The diagnostic's code.
    pub code: Code,
    /// What is wrong, without the place.
    pub message: String,
    /// The next move.
    pub help: Option<String>,
    /// The key to write in place of the last one of the path.
    pub rename: Option<String>,
}

/// What is known of a reference's type before anything ran: tells the schema of what it refers to.
pub trait References {
    /// The schema at the reference, or `None` when anything may be there.
    fn schema(&self, reference: &Reference) -> Option<&Schema>;
}

impl Schema {
    /// The schema of a Rust type.
    ///
    /// # Panics
    /// When the type's schema uses a form that this module does not read; the conventions test compiles all.
    #[must_use]
    pub fn of<T: JsonSchema>() -> Self {
        let json = json_schema::<T>();
        Self::compile(&json)
    }

    fn compile(json: &Json) -> Self {
        let plain = |kind| Self { kind, nullable: false };
        if json.as_bool() == Some(true) {
            return plain(Kind::Any);
        }
        if let Some(options) = json.get("anyOf").and_then(Json::as_array) {
            let (null, rest): (Vec<&Json>, Vec<&Json>) =
                options.iter().partition(|option| option.get("type").and_then(Json::as_str) == Some("null"));
            assert!(null.len() == 1 && rest.len() == 1, "unsupported anyOf in a schema: {json}");
            return Self { nullable: true, ..Self::compile(rest[0]) };
        }
        if let Some(options) = json.get("oneOf").and_then(Json::as_array) {
            let choices = options.iter().flat_map(choices_of).collect();
            return plain(Kind::String { choices, pattern: None });
        }
        let (type_name, nullable) = type_of(json);
        let int = |key| {
            json.get(key).and_then(Json::as_f64).map(|number: f64| {
                #[allow(clippy::cast_possible_truncation)] // bounds in our schemas are small whole numbers
                let whole = number as i64;
                whole
            })
        };
        let kind = match type_name {
            None => Kind::Any,
            Some("boolean") => Kind::Bool,
            Some("integer") => Kind::Int { min: int("minimum"), max: int("maximum") },
            Some("number") => Kind::Float,
            Some("string") => Kind::String {
                choices: choices_of(json),
                pattern: json.get("pattern").and_then(Json::as_str).map(Pattern::new),
            },
            Some("array") => Kind::List(Box::new(json.get("items").map_or(plain(Kind::Any), Self::compile))),
            Some("object") => Self::compile_object(json),
            Some(other) => panic!("unsupported type `{other}` in a schema: {json}"),
        };
        Self { kind, nullable }
    }

    fn compile_object(json: &Json) -> Kind {
        let Some(properties) = json.get("properties").and_then(Json::as_object) else {
            let inner = json.get("additionalProperties").cloned().unwrap_or(Json::Bool(true));
            return Kind::Map(Box::new(Self::compile(&inner)));
        };
        let required: Vec<&str> = json
            .get("required")
            .and_then(Json::as_array)
            .map(|names| names.iter().filter_map(Json::as_str).collect())
            .unwrap_or_default();
        let fields = properties
            .iter()
            .map(|(name, schema)| Field {
                name: name.into(),
                required: required.contains(&name.as_str()),
                doc: schema.get("description").and_then(Json::as_str).unwrap_or_default().to_owned(),
                default: schema.get("default").filter(|value| !value.is_null()).cloned(),
                schema: Self::compile(schema),
            })
            .collect();
        Kind::Object {
            title: json.get("title").and_then(Json::as_str).unwrap_or_default().to_owned(),
            fields,
            step: json.get(STEP_KEY).and_then(Json::as_str).map(SmolStr::new),
        }
    }

    /// The schema of any value that is no step.
    #[must_use]
    pub const fn any() -> Self {
        Self { kind: Kind::Any, nullable: true }
    }

    /// The fields of an object.
    #[must_use]
    pub fn fields(&self) -> &[Field] {
        match &self.kind {
            Kind::Object { fields, .. } => fields,
            _ => &[],
        }
    }

    /// The name of an object's Rust type: the step's type in the language of the documentation.
    #[must_use]
    pub fn title(&self) -> &str {
        match &self.kind {
            Kind::Object { title, .. } => title,
            _ => "",
        }
    }

    /// What may be written here, in the words of the documentation.
    #[must_use]
    pub fn describe(&self) -> String {
        match &self.kind {
            Kind::Any => "any value".to_owned(),
            Kind::Bool => "bool".to_owned(),
            Kind::Int { min: Some(min), max: Some(max) } => format!("int from {min} to {max}"),
            Kind::Int { min: Some(min), .. } if *min > 0 => format!("int of at least {min}"),
            Kind::Int { .. } => "int".to_owned(),
            Kind::Float => "float".to_owned(),
            Kind::String { choices, .. } if !choices.is_empty() => {
                let quoted: Vec<String> = choices.iter().map(|choice| format!("\"{choice}\"")).collect();
                quoted.join(" or ")
            }
            Kind::String { .. } => "string".to_owned(),
            Kind::List(inner) => format!("list of {}", inner.describe()),
            Kind::Map(inner) => format!("map of {}", inner.describe()),
            Kind::Object { title, step: Some(step), .. } => format!("{title} (a step of {step})"),
            Kind::Object { .. } => "map".to_owned(),
        }
    }

    /// The schema at one more path segment; `None` when there is no such place.
    #[must_use]
    pub fn below(&self, segment: &Segment) -> Option<&Self> {
        const ANY: &Schema = &Schema { kind: Kind::Any, nullable: true };
        match (&self.kind, segment) {
            (Kind::Any, _) => Some(ANY),
            (Kind::List(inner), Segment::Index(_)) | (Kind::Map(inner), Segment::Key(_)) => Some(inner),
            (Kind::Object { fields, .. }, Segment::Key(key)) => {
                fields.iter().find(|field| field.name == *key).map(|field| &field.schema)
            }
            _ => None,
        }
    }

    /// Whether something may stand below: a map, list or anything.
    #[must_use]
    pub fn is_scalar(&self) -> bool {
        matches!(self.kind, Kind::Bool | Kind::Int { .. } | Kind::Float | Kind::String { .. })
    }

    /// Whether any value fits.
    #[must_use]
    pub fn is_any(&self) -> bool {
        matches!(self.kind, Kind::Any)
    }

    /// Everything that is wrong with a value.
    pub fn check(&self, value: &Value, references: &dyn References) -> Vec<Problem> {
        let mut problems = Vec::new();
        Checker { references, problems: &mut problems }.check(self, value, &Path::root());
        problems
    }
}

impl Pattern {
    fn new(text: &str) -> Self {
        let regex =
            Regex::new(text).unwrap_or_else(|error| panic!("bad pattern `{text}` in a schema: {error}"));
        Self { text: text.to_owned(), regex }
    }
}

/// The JSON Schema of a Rust type, with every sub-schema inlined.
#[must_use]
pub fn json_schema<T: JsonSchema>() -> Json {
    let mut settings = SchemaSettings::draft2020_12();
    settings.inline_subschemas = true;
    settings.into_generator().into_root_schema_for::<T>().to_value()
}

fn type_of(json: &Json) -> (Option<&str>, bool) {
    match json.get("type") {
        Some(Json::String(name)) => (Some(name), false),
        Some(Json::Array(names)) => {
            let name = names.iter().filter_map(Json::as_str).find(|name| *name != "null");
            (name, names.iter().any(|name| name.as_str() == Some("null")))
        }
        _ => (None, false),
    }
}

fn choices_of(json: &Json) -> Vec<SmolStr> {
    let text = |value: &Json| value.as_str().map(SmolStr::new);
    match (json.get("enum").and_then(Json::as_array), json.get("const")) {
        (Some(values), _) => values.iter().filter_map(text).collect(),
        (None, Some(value)) => text(value).into_iter().collect(),
        _ => Vec::new(),
    }
}

struct Checker<'a> {
    references: &'a dyn References,
    problems: &'a mut Vec<Problem>,
}

impl Checker<'_> {
    fn problem(&mut self, path: &Path, code: Code, message: String, help: Option<String>) {
        self.problems.push(Problem { path: path.clone(), code, message, help, rename: None });
    }

    fn wrong_type(&mut self, schema: &Schema, path: &Path, found: &str) {
        let message = format!("expected {}, found {found}", schema.describe());
        self.problem(path, Code::ScriptWrongType, message, None);
    }

    fn check(&mut self, schema: &Schema, value: &Value, path: &Path) {
        match (&schema.kind, value) {
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
                let help =
                    "secrets go where a value may be anything, such as the `vars` of tofu_apply".to_owned();
                self.problem(path, Code::ScriptSecret, message, Some(help));
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
            if whole
                || self
                    .references
                    .schema(reference)
                    .is_some_and(|schema| !schema.is_scalar() && !schema.is_any())
            {
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
        match (&want.kind, have.map(|have| &have.kind)) {
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
                let help = have.map(|have| {
                    let outputs: Vec<&str> = have.fields().iter().map(|field| field.name.as_str()).collect();
                    format!("name the output that is meant: {}", outputs.join(", "))
                });
                self.problem(path, Code::ScriptWrongType, message, help);
            }
            (_, None | Some(Kind::Any)) => {}
            (want_kind, Some(have_kind)) if kinds_fit(want_kind, have_kind) => {}
            (_, Some(_)) => {
                let found = have.map_or_else(String::new, Self::described);
                let message = format!("expected {}, found `{reference}`, which is {found}", want.describe());
                self.problem(path, Code::ScriptWrongType, message, None);
            }
        }
    }

    fn described(schema: &Schema) -> String {
        schema.describe()
    }

    fn named(&self, reference: &Reference) -> String {
        match self.references.schema(reference) {
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
