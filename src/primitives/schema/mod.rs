//! Compiled schemas: what a primitive takes and yields, made from its Rust types by `schemars` and checked
//! against values that may hold references, before anything is looked at.
//!
//! Checking reports every problem with its path, so that the front end can point at the key. It never fills
//! in defaults: that is the typed reading's part.

mod check;

use std::sync::{Arc, LazyLock};

use regex_lite::Regex;
use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::Value as Json;
use smol_str::SmolStr;

use self::check::Checker;
use crate::diagnostic::{Code, Origin};
use crate::stack::{Module, Type};
use crate::value::{Path, Reference, Segment, Value};

/// The key that marks a struct as the outputs of a primitive.
const STEP_KEY: &str = "x-clawd-step";

/// What a value may be. Cheap to clone: handles in scripts carry one each.
#[derive(Debug, Clone)]
pub struct Schema {
    kind: Arc<Kind>,
    nullable: bool,
    /// Whether the value is a secret, which is never shown or stored.
    secret: bool,
}

#[derive(Debug, Clone)]
enum Kind {
    Any,
    Bool,
    Int { min: Option<i64>, max: Option<i64> },
    Float,
    String { choices: Vec<SmolStr>, pattern: Option<Pattern> },
    List(Schema),
    Map(Schema),
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
    /// Where it is, when not in the arguments: a place in a file of the project.
    pub origin: Option<Origin>,
}

/// What is known of a reference's type before anything ran: tells the schema of what it refers to.
pub trait References {
    /// The schema at the reference, or `None` when anything may be there.
    fn schema(&self, reference: &Reference) -> Option<Schema>;
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
        let plain = Self::of_kind;
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
            Some("array") => Kind::List(json.get("items").map_or(plain(Kind::Any), Self::compile)),
            Some("object") => Self::compile_object(json),
            Some(other) => panic!("unsupported type `{other}` in a schema: {json}"),
        };
        Self { nullable, ..Self::of_kind(kind) }
    }

    fn of_kind(kind: Kind) -> Self {
        Self { kind: Arc::new(kind), nullable: false, secret: false }
    }

    /// The schema of a type of OpenTofu.
    #[must_use]
    pub fn of_type(ty: &Type) -> Self {
        let kind = match ty {
            Type::Any => return Self::any(),
            Type::String => Kind::String { choices: Vec::new(), pattern: None },
            Type::Number => Kind::Float,
            Type::Bool => Kind::Bool,
            Type::List(inner) | Type::Set(inner) => Kind::List(Self::of_type(inner)),
            Type::Map(inner) => Kind::Map(Self::of_type(inner)),
            Type::Tuple(_) => Kind::List(Self::any()),
            Type::Object(attributes) => Kind::Object {
                title: String::new(),
                fields: attributes
                    .iter()
                    .map(|attribute| Field::plain(&attribute.name, Self::of_type(&attribute.ty)))
                    .collect(),
                step: None,
            },
        };
        Self { nullable: true, ..Self::of_kind(kind) }
    }

    /// This schema with a field replaced by the outputs of a module; `declared` says the types of some.
    #[must_use]
    pub fn with_outputs(
        &self,
        field: &str,
        module: &Module,
        declared: impl Fn(&str) -> Option<Type>,
    ) -> Self {
        let Kind::Object { title, fields, step } = &*self.kind else { return self.clone() };
        let outputs = module
            .outputs
            .iter()
            .map(|(name, output)| {
                let schema = declared(name).map_or_else(Self::any, |ty| Self::of_type(&ty));
                Field::plain(name, Self { secret: output.sensitive, ..schema })
            })
            .collect();
        let outputs = Self::of_kind(Kind::Object { title: String::new(), fields: outputs, step: None });
        let fields = fields
            .iter()
            .map(|old| match old.name == field {
                true => Field { schema: outputs.clone(), ..old.clone() },
                false => old.clone(),
            })
            .collect();
        Self::of_kind(Kind::Object { title: title.clone(), fields, step: step.clone() })
    }

    fn compile_object(json: &Json) -> Kind {
        let Some(properties) = json.get("properties").and_then(Json::as_object) else {
            let inner = json.get("additionalProperties").cloned().unwrap_or(Json::Bool(true));
            return Kind::Map(Self::compile(&inner));
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
    pub fn any() -> Self {
        static ANY: LazyLock<Schema> =
            LazyLock::new(|| Schema { nullable: true, ..Schema::of_kind(Kind::Any) });
        ANY.clone()
    }

    /// The fields of an object.
    #[must_use]
    pub fn fields(&self) -> &[Field] {
        match &*self.kind {
            Kind::Object { fields, .. } => fields,
            _ => &[],
        }
    }

    /// The name of an object's Rust type: the step's type in the language of the documentation.
    #[must_use]
    pub fn title(&self) -> &str {
        match &*self.kind {
            Kind::Object { title, .. } => title,
            _ => "",
        }
    }

    /// What may be written here, in the words of the documentation.
    #[must_use]
    pub fn describe(&self) -> String {
        match &*self.kind {
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
    pub fn below(&self, segment: &Segment) -> Option<Self> {
        let found = match (&*self.kind, segment) {
            (Kind::Any, _) => self.clone(),
            (Kind::List(inner), Segment::Index(_)) | (Kind::Map(inner), Segment::Key(_)) => inner.clone(),
            (Kind::Object { fields, .. }, Segment::Key(key)) => {
                fields.iter().find(|field| field.name == *key)?.schema.clone()
            }
            _ => return None,
        };
        // A part of a secret is one.
        Some(Self { secret: self.secret || found.secret, ..found })
    }

    /// Whether the value is never shown.
    #[must_use]
    pub const fn is_secret(&self) -> bool {
        self.secret
    }

    /// Whether something may stand below: a map, list or anything.
    #[must_use]
    pub fn is_scalar(&self) -> bool {
        matches!(*self.kind, Kind::Bool | Kind::Int { .. } | Kind::Float | Kind::String { .. })
    }

    /// Whether any value fits.
    #[must_use]
    pub fn is_any(&self) -> bool {
        matches!(*self.kind, Kind::Any)
    }

    /// Everything that is wrong with a value.
    pub fn check(&self, value: &Value, references: &dyn References) -> Vec<Problem> {
        let mut problems = Vec::new();
        Checker { references, problems: &mut problems }.check(self, value, &Path::root());
        problems
    }
}

impl Field {
    /// A field that says no more than its name and type.
    fn plain(name: &SmolStr, schema: Schema) -> Self {
        Self { name: name.clone(), schema, required: false, doc: String::new(), default: None }
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
